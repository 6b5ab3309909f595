"""Between cycles: what has ended is summed up, what is old is let go of, by whoever holds the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlmodel import select
from structlog.testing import capture_logs

from service import jobs
from service.clock import SetClock
from service.jobs import Jobs
from service.runtime import Runtime, compose
from service.settings import Settings
from service.store import lease
from service.store.database import Database
from service.store.tables import Cycle, MeterSum, Outbox
from tests.store.test_growth import interval, message, resource
from tests.waiting import soon

DAY = timedelta(days=1)


@pytest.fixture
def rt(sqlite_url: str, clock: SetClock) -> Iterator[Runtime]:
    database = Database(sqlite_url)
    yield compose(Settings(cycle_seconds=0), clock=clock, database=database)
    database.close()


def after_a_cycle(rt: Runtime, running: Jobs) -> list[str]:
    """One cycle, and what the log says of the tidying after it."""
    with capture_logs() as said:
        running.request("test")
        done = threading.Event()
        running._worker.submit(done.set)  # queued behind both
        assert done.wait(30)
    return [entry["event"] for entry in said]


def messages(rt: Runtime) -> list[str]:
    with rt.database.reading() as session:
        return list(session.exec(select(Outbox.id)))


def put(rt: Runtime, *rows: object) -> None:
    with rt.database.transaction() as session:
        session.add_all(rows)


def test_what_has_ended_is_summed_up_after_every_cycle(rt: Runtime, clock: SetClock) -> None:
    running = Jobs(rt)
    put(rt, resource(), interval(-3 * DAY, -2 * DAY))
    after_a_cycle(rt, running)
    with rt.database.reading() as session:
        assert len(session.exec(select(MeterSum)).all()) == 3  # two days, and all days
    running.stop()


def test_what_is_old_goes_once_an_hour_and_is_told_of(rt: Runtime, clock: SetClock) -> None:
    running = Jobs(rt)
    old = clock.now() - 500 * DAY
    put(rt, message("a", created_at=old))
    assert after_a_cycle(rt, running) == ["let go of what is old"]
    put(rt, message("b", created_at=old))
    clock.forward(timedelta(minutes=59))
    assert after_a_cycle(rt, running) == []
    assert messages(rt) == ["b"]
    clock.forward(timedelta(minutes=1))
    assert after_a_cycle(rt, running) == ["let go of what is old"]
    assert messages(rt) == []
    running.stop()


def test_what_there_was_no_time_for_goes_after_the_next_cycle(
    rt: Runtime, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Jobs(rt)
    put(rt, message("a", created_at=clock.now() - 500 * DAY))
    with monkeypatch.context() as no_time:
        no_time.setattr(jobs, "AT_MOST_SECONDS", 0.0)
        after_a_cycle(rt, running)
    assert messages(rt) == ["a"]
    after_a_cycle(rt, running)
    assert messages(rt) == []
    running.stop()


def test_whoever_does_not_govern_removes_nothing(rt: Runtime, clock: SetClock) -> None:
    running = Jobs(rt)
    put(rt, message("a", created_at=clock.now() - 500 * DAY))
    with rt.database.transaction() as session:
        assert lease.take(session, "somebody else") is not None
    after_a_cycle(rt, running)
    assert messages(rt) == ["a"]
    running.stop()


def test_a_request_while_it_tidies_up_is_another_cycle(
    rt: Runtime, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, tidying, go_on = Jobs(rt), threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> None:
        tidying.set()
        assert go_on.wait(30)

    monkeypatch.setattr(jobs.retention, "count", slow)
    first = running.request("test")
    assert tidying.wait(30)
    second = running.request("test")
    go_on.set()
    running.stop()
    assert first != second
    with rt.database.reading() as session:
        assert set(session.exec(select(Cycle.id))) == {first, second}


def test_a_fault_while_it_tidies_up_ends_no_cycle(
    rt: Runtime, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Jobs(rt)

    def broken(*_: object, **__: object) -> None:
        raise LookupError

    with monkeypatch.context() as badly:
        badly.setattr(jobs.retention, "count", broken)
        assert after_a_cycle(rt, running) == ["what has ended could not be summed up or let go of"]
    put(rt, message("a", created_at=clock.now() - 500 * DAY))
    assert after_a_cycle(rt, running) == ["let go of what is old"]
    running.stop()


def cycles_asked_by(rt: Runtime) -> list[str]:
    with rt.database.reading() as session:
        return list(session.exec(select(Cycle.requested_by).where(Cycle.finished_at != None)))  # noqa: E711 - SQL


def test_what_a_source_sees_between_looks_brings_the_next_one_forward_once(sqlite_url: str, clock: SetClock) -> None:
    database = Database(sqlite_url)
    rt = compose(Settings(cycle_seconds=3600), clock=clock, database=database)
    running = Jobs(rt)
    running._rested_at = time.monotonic() + 0.5  # else the first may begin before the others are told
    for _ in range(3):
        rt.fleet.changed("source cluster")
    soon(lambda: cycles_asked_by(rt) == ["source cluster"], "one cycle of three wishes", within=10)
    rt.fleet.changed("source cluster")
    soon(lambda: len(cycles_asked_by(rt)) == 2, "another wish, another cycle", within=10)
    running.stop()
    rt.fleet.changed("source cluster")
    assert running._next is None or not running._next.is_alive()
    database.close()


RESTS = {
    "after a quiet time a short cycle needs none": ((0, 100, 101), 0),
    "a few at once neither": ((101, 105, 107), 0),
    "as many as were spared for are rested from": ((107, 107, 109), 2),
    "a long one is rested from, less what was spared": ((0, 100, 120), 10),
    "never for longer than it took": ((500, 100, 120), 20),
}


@pytest.mark.parametrize(("times", "rest"), RESTS.values(), ids=RESTS)
def test_between_cycles_before_their_time_is_rest(times: tuple[float, float, float], rest: float) -> None:
    _, _, ended = times
    assert max(0.0, jobs.rested_at(*times) - ended) == rest


def test_of_cycles_one_after_the_other_half_the_time_is_rest() -> None:
    now = rested = spent = 0.0
    for _ in range(100):
        now = max(now, rested)
        rested = jobs.rested_at(rested, now, now + 3)
        spent, now = spent + 3, now + 3
    assert spent <= (now + jobs.SPARED_SECONDS) / 2 + 3


def test_where_cycles_run_on_request_nothing_brings_one_forward(rt: Runtime) -> None:
    running = Jobs(rt)
    rt.fleet.changed("source cluster")
    assert running._next is None
    running.stop()
