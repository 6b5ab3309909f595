"""A source that only has telemetry does well or badly like any other, and says so wherever one looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import select

from providers.contract import Provider
from providers.errors import Unreachable
from providers.records import TelemetryAnswer
from service.clock import SetClock
from service.documents import Source
from service.store import overview
from service.store.database import Database
from service.store.tables import SourceState
from tests.spine.company import SOURCE, Company, company, minutes


class Exporters:
    """Answers that it knows nothing, or does not answer."""

    def __init__(self) -> None:
        self.dead = False

    def samples(self, records: Any, *, start: Any, end: Any) -> TelemetryAnswer:
        if self.dead:
            raise Unreachable("prometheus:9090 does not answer")
        return TelemetryAnswer(series=())


@pytest.fixture
def exporters() -> Exporters:
    return Exporters()


@pytest.fixture
def here(
    database: Database, clock: SetClock, exporters: Exporters, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Company]:
    """The company, and a second source without an inventory."""
    with company(database, clock) as made:
        made.document(
            "source", name="metrics", provider="simulated", company="demo", cloud="aws", telemetry_interval="0s"
        )
        build = made.rt.fleet._member

        def member(source: Source) -> Any:
            built = build(source)
            if source.name != "metrics" or built.provider is None:
                return built
            alone = Provider(name="exporters", capabilities=built.provider.capabilities, telemetry=exporters)
            return replace(built, provider=alone)

        monkeypatch.setattr(made.rt.fleet, "_member", member)
        yield made


def health(here: Company) -> dict[str, tuple[str, tuple[str, ...]]]:
    with here.rt.database.reading() as session:
        return {row.name: (row.health, row.faults) for row in overview.sources(session)}


def errors(here: Company, source: str) -> float:
    for line in here.rt.metrics.decode().splitlines():
        if line.startswith(f'curfew_source_errors_total{{source="{source}"}}'):
            return float(line.rpartition(" ")[2])
    return 0


def test_one_that_answers_is_fine(here: Company) -> None:
    here.machine()
    here.cycle()
    report = here.cycle(after=minutes(5))

    assert health(here) == {"metrics": ("fine", ()), SOURCE: ("fine", ())}
    assert {line["source"]: line["complete"] for line in report.sources} == {"metrics": True, SOURCE: True}
    assert errors(here, "metrics") == 0
    assert 'curfew_source_last_success_timestamp_seconds{source="metrics"}' in here.rt.metrics.decode()


def test_one_that_does_not_answer_is_told_of(here: Company, exporters: Exporters) -> None:
    here.machine()
    here.cycle()
    with here.rt.database.reading() as session:
        before = session.exec(select(SourceState.succeeded_at).where(SourceState.source == "metrics")).one()
    exporters.dead = True
    report = here.cycle(after=minutes(5))

    state, faults = health(here)["metrics"]
    assert (state, faults) != ("fine", ())
    assert "prometheus:9090 does not answer" in str(faults)
    assert {line["source"]: line["complete"] for line in report.sources} == {"metrics": False, SOURCE: True}
    assert errors(here, "metrics") == 1
    with here.rt.database.reading() as session:
        assert session.exec(select(SourceState.succeeded_at).where(SourceState.source == "metrics")).one() == before
