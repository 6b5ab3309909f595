"""What people read is true: every setting is in the README, every metric is rendered under a name of our own."""

from __future__ import annotations

import re
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[2]


def test_every_setting_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()

    assert [name for name in Settings.model_fields if f"CURFEW_{name.upper()}" not in readme] == []


def test_the_readme_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"CURFEW_([A-Z_]+)\b", (ROOT / "README.md").read_text()))
    client_only = {"URL", "TOKEN", "SECRET_NAME"}

    assert named - {name.upper() for name in Settings.model_fields} == client_only


def test_every_module_opens_by_saying_what_it_does() -> None:
    modules = [path for package in ("policies", "providers", "service") for path in (ROOT / package).rglob("*.py")]

    assert len(modules) > 50
    assert [str(path.relative_to(ROOT)) for path in modules if not path.read_text().startswith('"""')] == []
