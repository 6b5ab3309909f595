"""No provider of ours goes without the suite that all providers pass."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from providers import registry
from providers.conformance import suite

CONTRACTS = {name for name in vars(suite) if name.endswith("Contract")}


@pytest.mark.parametrize("name", registry.BUILTIN)
def test_takes_the_conformance_suite(name: str) -> None:
    path = Path(__file__).parent / name / "test_conformance.py"
    assert path.is_file(), f"provider {name!r} has no tests/providers/{name}/test_conformance.py"
    module = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.ImportFrom) and node.module == "providers.conformance"
        for alias in node.names
    }
    collected = [
        node.name
        for node in module.body
        if isinstance(node, ast.ClassDef)
        and node.name.startswith("Test")
        and {base.id for base in node.bases if isinstance(base, ast.Name)} & CONTRACTS & imported
    ]
    assert collected, f"{path.name} of {name!r} has no Test… class that takes a contract of providers.conformance"
    worlds = [node.name for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "world"]
    assert worlds, f"{path.name} of {name!r} has no fixture `world`"
