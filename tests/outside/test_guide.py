"""What the guide for authors of providers shows is the example itself, and it leaves out nothing of the contract."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import pytest

from providers import errors
from providers.contract import BuildContext, Provider
from providers.errors import ProviderError
from tests.outside.conftest import EXAMPLE
from tests.outside.test_installed import PUBLIC

GUIDE = Path(__file__).parents[2] / "docs" / "providers.md"

SHOWN = [
    "pyproject.toml",
    *sorted(str(path.relative_to(EXAMPLE)) for path in EXAMPLE.glob("curfew_rentals/*.py")),
    "tests/test_conformance.py",
]


def fences() -> Sequence[tuple[str, str]]:
    """What stands behind the opening of each block of code, and the block."""
    return re.findall(r"^```([a-z]+[^\n]*)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("file", SHOWN)
def test_shows_the_very_file(file: str) -> None:
    shown = [text for opening, text in fences() if opening.partition(" ")[2] == file]
    assert shown == [(EXAMPLE / file).read_text()]


def test_shows_no_other_file() -> None:
    assert [file for opening, _ in fences() if (file := opening.partition(" ")[2]) and file not in SHOWN] == []


NAMES = {
    "every part of a provider": [field.name for field in fields(Provider)],
    "everything it is lent": [field.name for field in fields(BuildContext)],
    "every error": [
        found.code
        for found in vars(errors).values()
        if isinstance(found, type) and issubclass(found, ProviderError) and found is not ProviderError
    ],
    "every module it may use": sorted(PUBLIC),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_speaks_of(names: Sequence[str]) -> None:
    guide = GUIDE.read_text()
    assert [name for name in names if not re.search(rf"`[a-z_.]*\b{re.escape(name)}\b[^`\n]*`", guide)] == []
