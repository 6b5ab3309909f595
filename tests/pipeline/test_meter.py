"""The meter over time: idleness is metered from when it began, and what nobody saw says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.records import Price, State
from service.model import Interval
from service.money import interval_cost, whole_seconds
from service.pipeline.activity import Activity
from service.pipeline.meter import LONGEST_GAP, meter
from tests.pipeline.builders import NOW, PRICE, hours, known, minutes, record

BUSY = Activity(activity="busy")
UNKNOWN = Activity(activity=None)


def idle(since: datetime) -> Activity:
    return Activity(activity="idle", idle_since=since)


@dataclass
class Ledger:
    """Intervals as rows keep them: the open one is ended, the next ones follow."""

    rows: list[Interval] = field(default_factory=list)
    last_look: datetime | None = None

    def look(self, at: datetime, did: Activity = BUSY, **machine: object) -> int:
        """One look at the machine. Answers how many changes it made."""
        one = known(**machine)
        latest = {row.resource_id: row for row in self.rows}
        changes = meter([one], latest, at, activity={one.id: did}, last_look=self.last_look)
        for change in changes:
            if change.closes:
                assert self.rows[-1].ended_at is None
                self.rows[-1] = replace(self.rows[-1], ended_at=change.at)
            self.rows += change.opened
        self.last_look = at
        return len(changes)

    def cost(self, until: datetime, of: Callable[[Interval], object]) -> dict[object, int]:
        """Micro-units until then, by whatever is asked."""
        found: dict[object, int] = defaultdict(int)
        for row in self.rows:
            seconds = whole_seconds(row.started_at, row.ended_at or until)
            found[of(row)] += interval_cost(row.base, row.rate_micros, seconds)
        return {key: cost for key, cost in found.items() if cost}

    def hours(self, until: datetime, of: Callable[[Interval], object]) -> dict[object, float]:
        return {key: cost / PRICE.rate_micros for key, cost in self.cost(until, of).items()}


def activity(row: Interval) -> str:
    return row.activity


def by_the_minute(ledger: Ledger, start: datetime, end: datetime, did: Activity = BUSY, **machine: object) -> None:
    while start <= end:
        ledger.look(start, did, **machine)
        start += minutes(1)


def test_idleness_is_metered_from_when_it_began() -> None:
    ledger = Ledger()
    by_the_minute(ledger, NOW, NOW + minutes(59))
    ledger.look(NOW + minutes(60), idle(NOW + minutes(12)))
    assert ledger.hours(NOW + minutes(60), activity) == {"busy": 0.2, "idle": 0.8}
    assert [row.started_at for row in ledger.rows] == [NOW, NOW + minutes(12)]


def test_idleness_from_before_the_open_interval_counts_from_its_beginning() -> None:
    ledger = Ledger()
    by_the_minute(ledger, NOW, NOW + minutes(10), project="nlp")
    by_the_minute(ledger, NOW + minutes(11), NOW + minutes(29))
    ledger.look(NOW + minutes(30), idle(NOW - hours(3)))
    found = ledger.hours(NOW + minutes(60), lambda row: (row.project, row.activity))
    assert found == pytest.approx({("nlp", "busy"): 11 / 60, ("vision", "idle"): 49 / 60})


def test_work_is_metered_from_when_it_was_seen() -> None:
    ledger = Ledger()
    by_the_minute(ledger, NOW, NOW + minutes(29), idle(NOW - hours(1)))
    by_the_minute(ledger, NOW + minutes(30), NOW + minutes(39), BUSY)
    by_the_minute(ledger, NOW + minutes(40), NOW + minutes(60), UNKNOWN)
    found = ledger.hours(NOW + minutes(60), activity)
    assert found == pytest.approx({"idle": 1 / 2, "busy": 1 / 6, "unknown": 1 / 3})


def test_a_machine_that_does_not_run_does_nothing() -> None:
    ledger = Ledger()
    ledger.look(NOW, UNKNOWN, record=record(state=State.STOPPED))
    assert [row.activity for row in ledger.rows] == [""]


def test_idleness_and_another_price_in_one_look_are_two_changes() -> None:
    ledger = Ledger()
    by_the_minute(ledger, NOW, NOW + minutes(59))
    dearer = Price(rate_micros=2 * PRICE.rate_micros, currency="USD", source="file")
    ledger.look(NOW + minutes(60), idle(NOW + minutes(30)), price=dearer)
    found = ledger.hours(NOW + minutes(90), lambda row: (row.activity, row.rate_micros))
    assert found == {("busy", 55_040_000): 0.5, ("idle", 55_040_000): 0.5, ("idle", 110_080_000): 1.0}


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_a_stretch_that_nobody_saw_says_so() -> None:
    ledger = Ledger()
    ledger.look(NOW)
    ledger.look(NOW + hours(2))
    ledger.look(NOW + hours(2) + minutes(10))
    told = [(row.started_at - NOW, row.ended_at, row.assumed, row.activity) for row in ledger.rows]
    assert told == [
        (hours(0), NOW, False, "busy"),
        (hours(0), NOW + hours(2), True, "unknown"),
        (hours(2), None, False, "busy"),
    ]
    assert ledger.hours(NOW + hours(3), lambda row: row.assumed) == {True: 2.0, False: 1.0}


def test_ten_minutes_are_no_gap() -> None:
    ledger = Ledger()
    ledger.look(NOW)
    assert ledger.look(NOW + LONGEST_GAP) == 0
    assert ledger.look(NOW + 2 * LONGEST_GAP + timedelta(seconds=1)) == 1


def test_what_costs_nothing_needs_no_assuming() -> None:
    ledger = Ledger()
    halted = {"record": record(state=State.STOPPED)}
    ledger.look(NOW, UNKNOWN, **halted)
    assert ledger.look(NOW + hours(9), UNKNOWN, **halted) == 0


def test_a_machine_found_stopped_after_a_gap_is_assumed_to_have_run_until_now() -> None:
    ledger = Ledger()
    ledger.look(NOW)
    later = NOW + hours(5)
    ledger.look(later, UNKNOWN, record=record(state=State.STOPPED), state_since=later)
    assert ledger.hours(NOW + hours(9), lambda row: (row.state, row.assumed)) == {("running", True): 5.0}


def test_idleness_that_reaches_into_a_gap_is_known_and_its_price_is_assumed() -> None:
    ledger = Ledger()
    ledger.look(NOW)
    ledger.look(NOW + hours(5), idle(NOW + hours(4)))
    found = ledger.hours(NOW + hours(6), lambda row: (row.activity, row.assumed))
    assert found == {("unknown", True): 4.0, ("idle", True): 1.0, ("idle", False): 1.0}


def test_a_gap_is_assumed_once() -> None:
    ledger = Ledger()
    ledger.look(NOW)
    ledger.look(NOW + hours(5))
    ledger.look(NOW + hours(5))
    ledger.look(NOW + hours(10))
    assert ledger.hours(NOW + hours(10), lambda row: row.assumed) == {True: 10.0}


# --- whatever happens -------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(1, 7_200_000_000),  # microseconds to the next look
        st.sampled_from(["busy", "idle", "unknown"]),
        st.integers(0, 10_000),  # seconds it has been idle
        st.sampled_from(["vision", "nlp", None]),
        st.sampled_from([State.RUNNING, State.RUNNING, State.STOPPED]),
        st.sampled_from([1, 55_040_000, 999_999_937]),
    ),
    min_size=1,
    max_size=12,
)


@given(STEPS)
def test_every_split_of_time_activity_and_project_adds_up_to_the_whole(
    steps: list[tuple[int, str, int, str | None, State, int]],
) -> None:
    ledger, at, exact = Ledger(), NOW, 0
    rate, since = 0, NOW
    for wait, did, idle_for, project, state, price in steps:
        at += timedelta(microseconds=wait)
        seen = at.replace(microsecond=0)
        exact += rate * whole_seconds(since, seen)
        since = seen
        what = {
            "busy": BUSY,
            "unknown": UNKNOWN,
            "idle": idle(at.replace(microsecond=0) - timedelta(seconds=idle_for)),
        }[did]
        machine = _machine(project, state, price, at)
        ledger.look(at, what, **machine)
        assert ledger.look(at, what, **machine) == 0  # the same look again changes nothing
        rate = price if state is State.RUNNING else 0
    end = at + hours(1)
    exact += rate * whole_seconds(since, end)
    for split in (activity, lambda row: row.project, lambda row: row.assumed, lambda row: row.started_at):
        assert sum(ledger.cost(end, split).values()) == exact // 3600
    for before, after in zip(ledger.rows, ledger.rows[1:], strict=False):
        assert before.started_at <= before.ended_at == after.started_at
    assert not ledger.rows[-1].assumed


def _machine(project: str | None, state: State, price: int, at: datetime) -> dict[str, object]:
    return {
        "project": project,
        "record": record(state=state),
        "state_since": at,
        "price": Price(rate_micros=price, currency="USD", source="file"),
    }
