"""What `docs/telemetry.md` tells people to write is accepted, and names everything that is looked for."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from providers.prometheus import client, telemetry
from providers.prometheus.vocabulary import HOST_LABELS, INSTANCE_ID_LABELS, METRICS, POD_LABELS
from service import apply
from service.settings import Settings

TEXT = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()
EXAMPLES = [dedent(example) for example in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("number", range(4))
def test_an_example_is_a_document(number: int) -> None:
    settings = Settings(allow_endpoints=("prometheus.monitoring.example.org", "thanos.monitoring.example.org"))
    raws, mistakes = apply.read_texts([("telemetry.md", EXAMPLES[number])])
    (parsed,) = apply.check(settings, raws, mistakes)
    assert parsed.kind == "source"


def test_there_is_no_example_besides() -> None:
    assert len(EXAMPLES) == 4


def test_everything_looked_for_is_named() -> None:
    names = [metric.name for metrics in METRICS.values() for metric in metrics]
    names += [name for labels in POD_LABELS for name in labels]
    assert [name for name in (*names, *INSTANCE_ID_LABELS, *HOST_LABELS) if f"`{name}`" not in TEXT] == []


def test_the_limits_are_as_they_are_told() -> None:
    words = " ".join(TEXT.split())
    assert f"at most {telemetry.MOST_SAMPLES:,} samples" in words
    assert f"at most {telemetry.MOST_QUERY_BYTES:,} bytes" in words
    assert f"time-out of {client.QUERY_SECONDS} seconds" in words
    assert (telemetry.WORKERS, telemetry.MOST_SECONDS) == (4, 180)
    assert (telemetry.LEARNT_FOR.total_seconds(), telemetry.KNOWN_FOR.total_seconds()) == (300, 3600)
