"""The meter and its money: exact, whatever happens in between. Charter 14."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.records import CapacityType, Price, State
from service.model import Interval, Known
from service.money import AVOIDED_AT_MOST, avoided_micros, interval_cost, whole_seconds, window_cost
from service.pipeline.meter import meter
from tests.pipeline.builders import NOW, hours, known, minutes, record

RATES = st.integers(0, 10**12)
SECONDS = st.integers(0, 400 * 86400)


@given(RATES, st.lists(SECONDS, max_size=8), st.integers(0, 10**15))
def test_however_time_is_split_the_parts_add_up_to_the_whole(rate: int, parts: list[int], base: int) -> None:
    reached, total = base, 0
    for seconds in parts:
        total += interval_cost(reached, rate, seconds)
        reached += rate * seconds
    assert total == interval_cost(base, rate, sum(parts))


@given(RATES, SECONDS, SECONDS, SECONDS)
def test_windows_that_meet_add_up_to_the_interval(rate: int, length: int, cut: int, other: int) -> None:
    end = NOW + timedelta(seconds=length)
    first, second = sorted((NOW + timedelta(seconds=cut), NOW + timedelta(seconds=other)))
    borders = [NOW - hours(1), first, second, NOW + timedelta(days=5000)]
    windows = [window_cost(17, rate, NOW, end, a, b) for a, b in pairwise(borders)]
    assert sum(windows) == interval_cost(17, rate, length)


def test_an_hour_costs_its_rate() -> None:
    assert interval_cost(0, 55_040_000, 3600) == 55_040_000
    assert interval_cost(0, 1, 3599) == 0
    assert interval_cost(1, 1, 3599) == 1


def test_time_never_runs_backwards() -> None:
    assert whole_seconds(NOW, NOW - minutes(1)) == 0
    assert window_cost(0, 3600, NOW, NOW - minutes(1), NOW - hours(1), NOW + hours(1)) == 0


def test_a_stop_is_credited_for_seven_days_at_most() -> None:
    assert avoided_micros(1_000_000, NOW, NOW + timedelta(days=30)) == 7 * 24 * 1_000_000
    assert avoided_micros(1_000_000, NOW, NOW + AVOIDED_AT_MOST) == 7 * 24 * 1_000_000
    assert avoided_micros(1_000_000, NOW, NOW - hours(1)) == 0


# --- the meter --------------------------------------------------------------------------------------------------------


@dataclass
class Book:
    """Intervals as the store keeps them: closed and opened only by the meter's changes."""

    closed: list[Interval]
    open: dict[str, Interval]

    def latest(self) -> dict[str, Interval]:
        found = {interval.resource_id: interval for interval in self.closed}
        return found | self.open

    def apply(self, resources: list[Known], at: datetime) -> int:
        changes = meter(resources, self.latest(), at)
        for change in changes:
            if change.closes:
                self.closed.append(replace(self.open.pop(change.resource_id), ended_at=change.at))
            for one in change.opened:
                assert change.resource_id not in self.open
                if one.ended_at is None:
                    self.open[change.resource_id] = one
                else:
                    self.closed.append(one)
        return len(changes)

    def cost(self, until: datetime) -> dict[str | None, int]:
        """By project, in micro-units."""
        found: dict[str | None, int] = defaultdict(int)
        for one in (*self.closed, *self.open.values()):
            found[one.project] += interval_cost(
                one.base, one.rate_micros, whole_seconds(one.started_at, one.ended_at or until)
            )
        return found


def book() -> Book:
    return Book(closed=[], open={})


def test_an_interval_is_closed_only_by_change() -> None:
    kept = book()
    assert kept.apply([known()], NOW) == 1
    for later in range(1, 500):
        assert kept.apply([known()], NOW + minutes(later)) == 0
    assert kept.cost(NOW + hours(10)) == {"vision": 550_400_000}


CHANGES: dict[str, tuple[Known, dict[str | None, int]]] = {
    "another rate counts from when it was seen": (
        known(price=Price(rate_micros=10_000_000, currency="USD", source="file")),
        {"vision": 55_040_000 + 10_000_000},
    ),
    "another project pays from when it was seen": (known(project="nlp"), {"vision": 55_040_000, "nlp": 55_040_000}),
    "stopped costs nothing, from when it stopped": (
        known(record=record(state=State.STOPPED), state_since=NOW + minutes(30)),
        {"vision": 27_520_000},
    ),
    "gone costs nothing, from when it was first missing": (
        known(record=record(state=State.TERMINATED), ended_at=NOW + minutes(15)),
        {"vision": 13_760_000},
    ),
    "an orphan is not metered": (known(orphaned_at=NOW + hours(1)), {"vision": 55_040_000}),
    "spot is another capacity at whatever it costs": (
        known(record=record(capacity_type=CapacityType.SPOT)),
        {"vision": 2 * 55_040_000},
    ),
    "a change before the interval began counts from its beginning": (
        known(record=record(state=State.STOPPED), state_since=NOW - hours(5)),
        {"vision": 0},
    ),
    "a change in the future counts from now": (
        known(record=record(state=State.STOPPED), state_since=NOW + hours(9)),
        {"vision": 55_040_000},
    ),
}


@pytest.mark.parametrize("sentence", CHANGES)
def test_a_change_after_an_hour_and_an_hour_of_it(sentence: str) -> None:
    changed, cost = CHANGES[sentence]
    kept = book()
    kept.apply([known()], NOW)
    kept.apply([changed], NOW + hours(1))
    assert {name: micros for name, micros in kept.cost(NOW + hours(2)).items() if micros or name in cost} == cost


def test_what_has_no_price_is_not_metered_as_free() -> None:
    kept = book()
    assert kept.apply([known(price=None)], NOW) == 0
    assert kept.apply([known()], NOW + hours(1)) == 1
    assert kept.cost(NOW + hours(2)) == {"vision": 55_040_000}


def test_another_currency_begins_a_count_of_its_own() -> None:
    kept = book()
    kept.apply([known()], NOW)
    kept.apply([known(price=Price(rate_micros=1_000_000, currency="EUR", source="file"))], NOW + hours(1))
    [interval] = kept.open.values()
    assert (interval.currency, interval.base) == ("EUR", 0)


def test_the_clock_set_back_an_hour_takes_nothing_back() -> None:
    kept = book()
    kept.apply([known()], NOW)
    kept.apply([known(project="nlp")], NOW - hours(1))
    kept.apply([known()], NOW - minutes(30))
    kept.apply([known()], NOW + hours(1))
    assert sum(kept.cost(NOW + hours(1)).values()) == 55_040_000


PROJECTS = st.sampled_from(["vision", "nlp", None])
STATES = st.sampled_from([State.RUNNING, State.STOPPED, State.PENDING, State.UNKNOWN])


@given(
    st.lists(st.tuples(st.integers(0, 7200), PROJECTS, STATES, RATES), min_size=1, max_size=12), st.integers(0, 7200)
)
def test_the_sum_over_projects_is_the_whole_and_a_restart_changes_nothing(
    steps: list[tuple[int, str | None, State, int]], rest: int
) -> None:
    kept, moment, exact, running = book(), NOW, 0, 0
    since = NOW
    for seconds, project, state, rate in steps:
        moment += timedelta(seconds=seconds)
        exact += running * whole_seconds(since, moment)
        since = moment
        price = Price(rate_micros=rate, currency="USD", source="file")
        one = known(project=project, price=price, record=record(state=state), state_since=moment)
        kept = Book(closed=list(kept.closed), open=dict(kept.open))  # a restart: only rows survive
        kept.apply([one], moment)
        assert kept.apply([one], moment) == 0  # the same look again changes nothing
        running = rate if state is State.RUNNING else 0
    end = moment + timedelta(seconds=rest)
    exact += running * whole_seconds(since, end)
    assert sum(kept.cost(end).values()) == exact // 3600
    assert kept.latest()[known().id].reached(end) == exact
