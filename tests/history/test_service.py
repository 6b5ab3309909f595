"""A service that runs keeps its history: what the meter says, history says; it ends in order; it is refused clearly."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from structlog.testing import capture_logs

from providers.simulated.activity import Busy, Idle
from service.clock import SetClock
from service.history.compact import Compactor
from service.history.layout import WHOLE_DAY, History, Table, day_of, name_of, shown
from service.jobs import Jobs
from service.model import Known
from service.runtime import compose
from service.serve import mask_of
from service.settings import Settings
from service.store import lease
from service.store.resources import from_json
from service.store.tables import MeterInterval
from tests.history.reading import MORNING, said
from tests.spine.company import Company, hours, minutes, small_company


@pytest.fixture
def here(sqlite_url: str, clock: SetClock, tmp_path: Path) -> Iterator[Company]:
    with small_company(sqlite_url, clock, history=str(tmp_path / "history"), cycle_seconds=0) as made:
        yield made


def kept(here: Company) -> History:
    assert here.rt.history is not None
    return here.rt.history


def found(here: Company, query: str) -> list[tuple[Any, ...]]:
    """Asked as the documentation says, with nothing but DuckDB."""
    import duckdb

    with duckdb.connect() as connection:
        return connection.execute(query.replace("HISTORY", kept(here).location)).fetchall()


def intervals(here: Company) -> list[MeterInterval]:
    with here.rt.database.reading() as session:
        return list(session.exec(select(MeterInterval)).all())


def metered(rows: list[MeterInterval], resource: str, at: datetime) -> tuple[Any, ...] | None:
    for row in rows:
        if row.resource_id == resource and row.started_at <= at and (row.ended_at is None or at < row.ended_at):
            return row.state, row.project, row.capacity_type, row.rate_micros, row.currency
    return None


def as_metered(known: Known) -> tuple[Any, ...]:
    record, price = known.record, known.price
    assert price is not None
    return record.state.value, known.project, record.capacity_type.value, known.rate_micros, price.currency


def test_at_every_look_history_says_what_the_meter_says(here: Company) -> None:
    idle, busy = here.machine("idle"), here.machine("busy", activity=Busy())
    looks = []
    for number in range(30):
        here.cycle(after=minutes(5))
        looks.append(here.clock.now())
        if number == 12:
            here.document("project", name="robots", match=[{"tags": {"owner": "mai@example.org"}}], owners=["a@b.org"])
            here.document("project", name="vision", match=[{"tags": {"project": "nobody"}}], owners=["a@b.org"])
        if number == 20:
            here.clock.forward(minutes(1))  # between two looks: the meter learns since when, history what was seen
            here.cloud.start(idle.external_id)
    assert here.rt.recorder is not None
    here.rt.recorder.close(here.clock.now())

    assert here.stops
    rows, answers = intervals(here), said(kept(here))
    seen = set()
    for ref in (idle, busy):
        resource = here.resource(ref).id
        for at in looks[:-1]:
            known = from_json(answers[resource][int(at.timestamp()) - MORNING])
            assert as_metered(known) == metered(rows, resource, at)
            seen.add((known.record.state.value, known.project))
    assert {("running", "vision"), ("stopped", "vision"), ("running", "robots")} <= seen


def test_what_it_kept_is_read_with_duckdb(here: Company) -> None:
    here.machine("idle", activity=Idle())
    here.machine("busy", activity=Busy())
    here.cycles(hours(2))
    windows = found(
        here, "SELECT resource, gpu, count(*), max(utilisation) FROM 'HISTORY/activity/*/*.parquet' GROUP BY ALL"
    )
    assert len(windows) == 16
    busiest = {resource: max(row[3] for row in windows if row[0] == resource) for resource, *_ in windows}
    assert busiest[here.named("idle")] < 0.05 < busiest[here.named("busy")]
    names = "SELECT DISTINCT known->>'name', known->>'owner' FROM 'HISTORY/resources/*/*.parquet' WHERE known NOT NULL"
    assert sorted(found(here, names)) == [("busy", "mai@example.org"), ("idle", "mai@example.org")]


def test_the_query_in_the_documentation_answers(here: Company) -> None:
    here.machine("idle", activity=Idle())
    here.machine("busy", activity=Busy())
    here.cycles(hours(1))
    Compactor(kept(here)).tidy(
        here.clock.now() + timedelta(days=1), keep=None, enough=lambda: False, still_ours=lambda: None
    )
    text = (Path(__file__).parents[2] / "docs" / "history.md").read_text()
    query = text.partition("```sql")[2].partition("```")[0].rstrip().rstrip(";").replace("'history/", "'HISTORY/")
    [(project, day, idle_gpu_hours)] = found(here, query)
    assert (project, str(day)) == ("vision", "2026-11-16")
    assert 1 < idle_gpu_hours <= 8


def test_the_cycle_says_how_it_went_and_so_do_the_metrics(here: Company) -> None:
    here.machine()
    [step] = [step for step in here.cycle().steps if step["step"] == "record"]
    assert step["summary"].endswith("rows written")
    Path(kept(here).location).rename(Path(kept(here).location).with_name("elsewhere"))
    Path(kept(here).location).write_text("in the way")
    cycle = here.cycle(after=minutes(5))
    [step] = [step for step in cycle.steps if step["step"] == "record"]
    assert step["summary"].startswith("not written: ")
    assert cycle.error is None
    here.cycle(after=minutes(1))
    page = here.rt.metrics.decode()
    assert "curfew_history_errors_total 1.0\n" in page
    assert "curfew_history_last_written_timestamp_seconds 1" in page


def test_without_history_nothing_is_kept(sqlite_url: str, clock: SetClock, tmp_path: Path) -> None:
    with small_company(sqlite_url, clock, home=tmp_path / "home", history="off") as here:
        here.machine()
        [step] = [step for step in here.cycle().steps if step["step"] == "record"]
        assert step["summary"] == "no history is kept"
        assert here.rt.history is None
        assert not (tmp_path / "home" / "history").exists()
        assert "curfew_history" not in here.rt.metrics.decode()


def ended(running: Jobs, *, after: int = 1) -> None:
    """So many cycles one after the other, and the end of the service."""
    for _ in range(after):
        running.request("test")
        done = threading.Event()
        running._worker.submit(done.set)
        assert done.wait(30)
    running.stop()


def test_a_service_that_ends_writes_what_it_has(here: Company) -> None:
    here.machine("busy", activity=Busy())
    here.cycles(minutes(10))
    before = len(found(here, "SELECT 1 FROM 'HISTORY/activity/*/*.parquet'"))
    ended(Jobs(here.rt))
    newest = found(here, "SELECT max(coalesce(until, time)) FROM 'HISTORY/activity/*/*.parquet'")[0][0]
    assert len(found(here, "SELECT 1 FROM 'HISTORY/activity/*/*.parquet'")) > before
    assert here.clock.now().timestamp() - newest < 300


def test_who_does_not_govern_writes_nothing(here: Company) -> None:
    here.machine("busy", activity=Busy())
    here.cycles(minutes(10))
    running = Jobs(here.rt)
    before = [kept(here).written(table, day) for table in Table for day in kept(here).days()]
    with here.rt.database.transaction() as session:
        assert lease.take(session, "another@elsewhere:1") is not None
    here.clock.forward(minutes(30))
    ended(running)
    assert [kept(here).written(table, day) for table in Table for day in kept(here).days()] == before


def test_between_cycles_days_that_are_over_are_compacted_and_old_ones_go(
    sqlite_url: str, clock: SetClock, tmp_path: Path
) -> None:
    with small_company(sqlite_url, clock, history=str(tmp_path / "history"), history_days=1, cycle_seconds=0) as here:
        here.machine("busy", activity=Busy())
        here.cycles(minutes(15))
        first = day_of(here.clock.now().timestamp())
        here.clock.forward(timedelta(days=1))
        running = Jobs(here.rt)
        running._run("c1", "test")
        assert [name_of(path) for path in kept(here).written(Table.ACTIVITY, first)] == [WHOLE_DAY]
        here.clock.forward(timedelta(days=1))
        running._run("c2", "test")
        assert first not in kept(here).days()
        running.stop()


def test_a_demo_keeps_history_too(
    sqlite_url: str, clock: SetClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CURFEW_HISTORY")
    rt = compose(Settings(home=tmp_path, demo_speed=240), clock=clock)
    assert rt.history is not None
    assert rt.history.location == str(tmp_path / "history")
    rt.database.close()


LOCATIONS = {
    "unless it is said otherwise it is in the home": (None, "home/history"),
    "a folder": ("/data/history", "/data/history"),
    "a bucket": ("s3://bucket/history", "s3://bucket/history"),
    "nothing at all": ("", None),
    "off": (" off ", None),
}


@pytest.mark.parametrize("case", LOCATIONS)
def test_where_history_is(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, place = LOCATIONS[case]
    monkeypatch.delenv("CURFEW_HISTORY")
    if given is not None:
        monkeypatch.setenv("CURFEW_HISTORY", given)
    assert Settings(home=Path("home")).resolved_history == place


REFUSED = {
    "a kind of place that nobody knows": ("attic://k:topsecret@box/h", "attic://***@box/h: there is no kind of place"),
    "one whose package is not installed": (
        "s3://k:topsecret@bucket/h",
        "s3://***@bucket/h: what reads such a place is",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_place_that_cannot_be_reached_is_refused_at_the_start(case: str, sqlite_url: str) -> None:
    location, says = REFUSED[case]
    settings = Settings(history=location, database_url=sqlite_url)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(f"CURFEW_HISTORY: {says}")) as refused:
        compose(settings)
    assert "topsecret" not in str(refused.value) + repr(settings)


def test_a_login_in_the_place_is_in_no_line_of_the_log() -> None:
    place = "s3://user:topsecret@bucket/history?token=hidden"
    mask = mask_of(Settings(history=place))  # type: ignore[arg-type]
    assert mask(f"cannot reach {place} with topsecret and hidden") == (
        "cannot reach s3://user:***@bucket/history?token=*** with *** and ***"
    )
    assert shown(place) == "s3://***@bucket/history?***"


def test_a_fault_of_the_recorder_breaks_no_cycle(here: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here.rt.recorder is not None
    monkeypatch.setattr(here.rt.recorder, "_look", lambda sight: 1 / 0)
    with capture_logs() as log:
        cycle = here.cycle()
    assert cycle.error is None
    assert "history could not be kept" in {entry["event"] for entry in log}
