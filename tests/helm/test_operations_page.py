"""What docs/operations.md and the alerts tell people to write and to type is what the chart and the program know."""

from __future__ import annotations

import re
from typing import Any

import yaml
from typer.main import get_command

from service.cli import app
from service.settings import Settings
from tests.helm.chart import ROOT, rendered, serving
from tests.prometheus_rules.rules import FILES

PAGE = (ROOT / "docs" / "operations.md").read_text()
SAID = PAGE + "".join(file.read_text() for file in FILES)


def test_its_values_are_taken_alone_and_together() -> None:
    first, several = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
    together: dict[str, Any] = {**first, **several, "secrets": {**first["secrets"], **several["secrets"]}}

    assert serving(rendered(first)).of["spec"]["replicas"] == 1
    assert serving(rendered(together)).of["spec"]["replicas"] == 2


def test_its_commands_exist() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    typed = set(re.findall(r"`curfew\s+([a-z]+)", SAID))

    assert typed >= {"get", "notify", "serve", "explain"}
    assert typed <= commands
    assert set(re.findall(r"`curfew\s+get\s+([a-z]+)", SAID)) <= {
        "cycles",
        "sources",
        "actions",
        "findings",
        "hold",
        "spend",
    }


def test_its_settings_exist() -> None:
    known = {f"CURFEW_{name.upper()}" for name in Settings.model_fields}

    assert set(re.findall(r"\bCURFEW_[A-Z_]+\b", SAID)) <= known


def test_its_values_exist() -> None:
    values = yaml.safe_load((ROOT / "helm" / "curfew" / "values.yaml").read_text())
    named = re.findall(r"`((?:secrets|networkPolicy|metrics|database|image|persistence|kubernetes)\.[\w.]+)`", PAGE)

    assert len(named) > 5
    for path in named:
        found = values
        for word in path.split("."):
            assert word in found, path
            found = found[word]
