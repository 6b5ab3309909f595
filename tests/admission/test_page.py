"""What docs/admission.md tells people to write and to type is what the chart and the program know."""

from __future__ import annotations

import re

import yaml
from typer.main import get_command

from service.admission.counts import HEAD
from service.admission.judge import Outcome
from service.admission.server import UNJUDGED
from service.admission.spot import LABELS, PLACED
from service.cli import app
from tests.helm.chart import ROOT, rendered

PAGE = (ROOT / "docs" / "admission.md").read_text()


def test_its_values_are_taken() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    manifests = rendered(yaml.safe_load(block))

    assert "ValidatingWebhookConfiguration" in {manifest["kind"] for manifest in manifests}
    values = yaml.safe_load((ROOT / "helm" / "curfew" / "values.yaml").read_text())
    for path in re.findall(r"`(admission\.[\w.]+)`", PAGE):
        found = values
        for word in path.split("."):
            found = found[word]


def test_its_commands_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    typed = set(re.findall(r"`curfew ([a-z]+)", PAGE))

    assert typed == {"admission", "token", "guardrails"}
    assert typed <= set(commands)
    assert "kubernetes" in commands["guardrails"].commands


def test_it_tells_of_every_metric_and_verdict() -> None:
    assert set(re.findall(r"`(curfew_\w+)", PAGE)) == set(HEAD)
    assert all(f"`{verdict}`" in PAGE for verdict in (*Outcome, UNJUDGED, "allowed"))


def test_it_tells_what_each_sort_of_node_is_asked_for_by() -> None:
    for label in LABELS.values():
        assert re.search(rf'`nodeSelector: {{{re.escape(label.key)}: "?{label.value}"?}}`', PAGE)
    assert PLACED in PAGE
