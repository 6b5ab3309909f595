"""The walls hold: every import contract is kept as things are, and is seen to break when somebody breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BREAKS = {
    "policies judge alone, without clouds, clocks or databases": (
        "policies/resolve.py",
        "import time",
    ),
    "providers know clouds, never the service or the policies": ("providers/contract.py", "import service.documents"),
    "the middle is pure: values in, values out": ("service/pipeline/plan.py", "import service.store.database"),
    "a back-test cannot act": ("service/backtest/life.py", "import service.fleet"),
    "clouds do not know each other": ("providers/aws/translate.py", "import providers.simulated.cloud"),
    "SDKs stay inside their cloud": ("service/fleet.py", "import boto3"),
    "the service's rooms": ("service/store/audit.py", "import service.pipeline.plan"),
}
"""Contract → a file and the import that must not be in it."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [program, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and the contracts, to break."""
    for package in ("policies", "providers", "service"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_has_a_break_here(copy: Path) -> None:
    kept = lint(copy)

    assert kept.returncode == 0, kept.stdout
    assert f"Contracts: {len(BREAKS)} kept, 0 broken." in kept.stdout
    assert all(name in kept.stdout for name in BREAKS)


@pytest.mark.parametrize("contract", BREAKS, ids=list(BREAKS))
def test_a_contract_breaks_when_it_is_broken(copy: Path, contract: str) -> None:
    file, line = BREAKS[contract]
    path = copy / file
    path.write_text(path.read_text() + f"\n{line}\n")

    broken = lint(copy)

    assert broken.returncode != 0
    assert f"{contract} BROKEN" in broken.stdout
