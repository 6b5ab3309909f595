"""What was spent, summed from the meter's rows: exact however it is split, on both databases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.days import day_of, day_start, days_in
from service.model import Interval, MeterChange, Window
from service.store import ledger, spend, totals
from service.store.database import Database
from service.store.spend import By, Cost, Metered
from service.store.tables import MeterInterval, Resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
RATE = 3_600_000_000
A_CLUSTER_IN_DONG = 2_550_000 * 10**6
"""A million micro-units a second."""


def resource(id: str = "trainer", **more: Any) -> Resource:
    given = {
        "id": id, "source": "research", "provider": "aws", "account": "1", "region": "r", "kind": "instance",
        "external_id": id, "incarnation": id, "name": f"name of {id}", "sku": "p5", "gpu_model": "H100", "gpu_count": 8,
        "gpu_share": 1.0, "capacity_type": "spot", "state": "running", "state_since": NOW, "project": "vision",
        "first_seen": NOW, "rate_micros": RATE, "currency": "USD",
    }  # fmt: skip
    return Resource(**given | more)


def interval(start: timedelta, end: timedelta | None = None, **more: Any) -> MeterInterval:
    """Of the trainer, in hours around NOW. `base` is the cumulative integer."""
    given = {
        "resource_id": "trainer", "project": "vision", "state": "running", "capacity_type": "spot", "activity": "busy",
        "rate_micros": RATE, "currency": "USD", "price_source": "list", "base": 0,
        "started_at": NOW + start, "ended_at": None if end is None else NOW + end,
    }  # fmt: skip
    values = given | more
    values["base"], values["base_rest"] = divmod(values["base"], 3600)
    return MeterInterval(**values)


def stored(database: Database, *rows: Any) -> None:
    with database.transaction() as session:
        session.add_all(rows)


def asked(
    database: Database, by: Sequence[By], start: datetime, end: datetime, now: datetime = NOW, zone: str = "UTC"
) -> dict[Any, int]:
    with database.reading() as session:
        rows = list(spend.metered(session, now=now, projects=["vision"], start=start))
    return {key: cost.micros // 10**6 for key, cost in spend.sums(rows, by, start, end, ZoneInfo(zone)).items()}


def test_a_window_costs_what_lies_in_it(database: Database) -> None:
    stored(
        database,
        resource(),
        interval(-10 * HOUR, -6 * HOUR),
        interval(-6 * HOUR, -5 * HOUR, project="nlp"),
        interval(-5 * HOUR, -1 * HOUR, activity="idle"),
        interval(-1 * HOUR, activity="busy"),
    )
    assert asked(database, [], NOW - 100 * HOUR, NOW + 100 * HOUR) == {((), "USD"): 9 * 3600}
    assert asked(database, [], NOW - 7 * HOUR, NOW - 4 * HOUR) == {((), "USD"): 2 * 3600}
    assert asked(database, [], NOW - 6 * HOUR, NOW - 5 * HOUR) == {}
    assert asked(database, [By.ACTIVITY, By.RESOURCE], NOW - 7 * HOUR, NOW) == {
        (("busy", "trainer"), "USD"): 2 * 3600,
        (("idle", "trainer"), "USD"): 4 * 3600,
    }


def test_currencies_are_never_mixed(database: Database) -> None:
    stored(database, resource(), interval(-2 * HOUR, -1 * HOUR, currency="EUR"), interval(-1 * HOUR))
    assert asked(database, [By.PROVIDER], NOW - 9 * HOUR, NOW) == {
        (("aws",), "EUR"): 3600,
        (("aws",), "USD"): 3600,
    }


def test_what_is_missing_counts_until_it_went_missing(database: Database) -> None:
    stored(database, resource(missing_since=NOW - HOUR), interval(-3 * HOUR))
    assert asked(database, [], NOW - 9 * HOUR, NOW) == {((), "USD"): 2 * 3600}
    with database.reading() as session:
        cost, idle = totals.costs(session, NOW)
    assert cost == {("vision", "aws", "H100", "spot", "USD"): 2 * RATE}
    assert idle == {}


def test_a_day_is_the_projects_day_and_may_have_23_or_25_hours(database: Database) -> None:
    start = datetime(2026, 10, 24, tzinfo=UTC)
    stored(database, resource(), interval(start - NOW))
    days = asked(database, [By.DAY], start, datetime(2026, 10, 27, tzinfo=UTC), zone="Europe/Berlin")
    assert {day: seconds / 3600 for ((day,), _), seconds in days.items()} == {
        "2026-10-24": 22,
        "2026-10-25": 25,
        "2026-10-26": 24,
        "2026-10-27": 1,
    }


def test_what_a_spend_budget_asks(database: Database) -> None:
    stored(
        database,
        resource(),
        interval(-400 * HOUR, -300 * HOUR),
        interval(-300 * HOUR, -30 * HOUR, rate_micros=0),
        interval(-30 * HOUR, -20 * HOUR, currency="EUR"),
        interval(-20 * HOUR, -10 * HOUR, assumed=True),
        interval(-10 * HOUR),
    )
    window = Window(start=NOW - 350 * HOUR, end=NOW + HOUR, currency="USD", zone=UTC)
    other = Window(start=NOW - 15 * HOUR, end=NOW - 5 * HOUR, currency="EUR", zone=UTC)
    with database.reading() as session:
        found = spend.spent(session, {("vision", "m"): window, ("vision", "n"): other, ("nlp", "m"): window}, NOW)
    month = found["vision", "m"]
    assert month.since == NOW - 400 * HOUR
    assert month.own == (50 + 20) * RATE
    assert month.foreign == {(date(2026, 11, 15), "EUR"): 10 * RATE}
    assert month.assumed == {"USD": 10 * RATE}
    assert month.last_day == {"USD": 20 * RATE, "EUR": 4 * RATE}
    assert month.last_week == {"USD": 20 * RATE, "EUR": 10 * RATE}
    assert found["vision", "n"].own == 0
    assert sum(found["vision", "n"].foreign.values()) == 10 * RATE
    assert found["nlp", "m"].since is None
    assert found["nlp", "m"].own == 0


def test_a_pace_goes_by_the_last_full_hour_once_there_is_a_week_of_history(database: Database) -> None:
    """It is read once an hour; what a younger project spends is read with every cycle."""
    stored(database, resource(), resource("other"), interval(-200 * HOUR, -20 * HOUR), interval(-20 * HOUR))
    stored(database, interval(-5 * HOUR, resource_id="other", project="young"))
    window = Window(start=NOW - 350 * HOUR, end=None, currency="USD", zone=UTC)
    asked, paces = {("vision", "m"): window, ("young", "m"): window}, spend.Paces()

    def at(after: timedelta) -> list[tuple[int, int, int]]:
        with database.reading() as session:
            found = spend.spent(session, asked, NOW + after, paces).values()
        return [(one.own // RATE, one.last_day["USD"] // RATE, one.last_week["USD"] // RATE) for one in found]

    half = HOUR / 2
    assert at(timedelta(0)) == [(200, 24, 168), (5, 5, 5)]
    with database.transaction() as session:  # what changes within the hour counts from the next one on
        session.get_one(MeterInterval, 1).rate_micros = 0
    assert at(half) == [(20, 24, 168), (5, 5, 5)]
    assert at(HOUR) == [(21, 21, 21), (6, 6, 6)]


def test_an_hour_costs_what_is_there_and_judged(database: Database) -> None:
    stored(
        database,
        resource("a"),
        resource("b", currency="EUR", rate_micros=5),
        resource("c", ended_at=NOW),
        resource("d", orphaned_at=NOW),
        resource("e", rate_micros=None, currency=None),
        resource("f", project="nlp"),
    )
    with database.reading() as session:
        assert spend.hourly(session, "vision") == {"USD": RATE, "EUR": 5}


def test_what_the_database_sums_is_what_we_sum(database: Database) -> None:
    """Intervals of every length, some missing, some assumed, cut by windows at every second."""
    chance = random.Random(7)
    rows: list[Any] = []
    for machine in range(40):
        missing = NOW - chance.randrange(400_000) * SECOND if chance.random() < 0.2 else None
        rows.append(resource(str(machine), missing_since=missing, gpu_model=chance.choice(["H100", None])))
        at, base = NOW - 2_000_000 * SECOND + chance.randrange(10**6) * SECOND, chance.randrange(10**20)
        for turn in range(6):
            length, rate = chance.randrange(10**5), chance.choice([0, 1, 999_999_937, RATE, A_CLUSTER_IN_DONG])
            rows.append(
                interval(
                    at - NOW,
                    None if turn == 5 else at + length * SECOND - NOW,
                    resource_id=str(machine),
                    rate_micros=rate,
                    base=base,
                    currency=chance.choice(["USD", "EUR"]),
                    activity=chance.choice(["busy", "idle"]),
                    assumed=chance.random() < 0.3,
                )
            )
            at, base = at + length * SECOND, base + length * rate
    stored(database, *rows)
    with database.reading() as session:
        here = list(spend.metered(session, now=NOW, projects=["vision"]))
        kinds = [By.PROVIDER, By.GPU_MODEL, By.CAPACITY_TYPE, By.ACTIVITY]
        expected = {
            ("vision", *kind[:3], currency, kind[3]): cost.micros
            for (kind, currency), cost in spend.sums(here, kinds, spend.BEGINNING, NOW, UTC).items()
        }
        assert {kind: micros for kind, micros in spend.metered_by_kind(session, NOW).items() if micros} == expected
        for _ in range(20):
            start = NOW - chance.randrange(2_000_000) * SECOND
            end = start + chance.randrange(2_000_000) * SECOND
            found = spend.spent(
                session, {("vision", "m"): Window(start=start, end=end, currency="USD", zone=UTC)}, NOW
            )["vision", "m"]
            whole = spend.sums(here, [], start, min(end, NOW), UTC)
            assert found.own == whole.get(((), "USD"), Cost()).micros
            assert sum(found.foreign.values()) == whole.get(((), "EUR"), Cost()).micros
            assumed = {code: cost.assumed_micros for ((), code), cost in whole.items() if cost.assumed_micros}
            assert found.assumed == assumed
            week = spend.sums(here, [], NOW - timedelta(days=7), NOW, UTC)
            assert found.last_week == {code: cost.micros for ((), code), cost in week.items()}


# --- however it is split ----------------------------------------------------------------------------------------------

ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Ho_Chi_Minh"])


@st.composite
def rows(draw: st.DrawFn) -> list[Metered]:
    """A few machines, each with intervals that follow each other."""
    found = []
    for machine in range(draw(st.integers(1, 3))):
        at, base = datetime(2026, 10, 20, tzinfo=UTC) + timedelta(seconds=draw(st.integers(0, 10**6))), 0
        for _ in range(draw(st.integers(1, 4))):
            seconds, rate = draw(st.integers(0, 5 * 10**5)), draw(st.integers(0, 10**14))
            found.append(
                Metered(
                    project="vision", resource=str(machine), name="n", provider=draw(st.sampled_from(["aws", "gcp"])),
                    gpu_model="H100", capacity_type="spot", activity=draw(st.sampled_from(["busy", "idle", "unknown"])),
                    assumed=draw(st.booleans()), currency=draw(st.sampled_from(["USD", "EUR"])), base=base,
                    rate_micros=rate, started_at=at, ended_at=at + timedelta(seconds=seconds),
                )
            )  # fmt: skip
            at, base = at + timedelta(seconds=seconds), base + rate * seconds
    return found


@given(
    rows(),
    st.lists(st.sampled_from(list(By)), unique=True),
    ZONES,
    st.integers(0, 3 * 10**6),
    st.integers(0, 3 * 10**6),
)
def test_every_breakdown_of_every_window_adds_up_to_the_window(
    found: list[Metered], by: list[By], zone: str, first: int, second: int
) -> None:
    beginning = datetime(2026, 10, 19, tzinfo=UTC)
    start, end = (beginning + timedelta(seconds=seconds) for seconds in sorted((first, second)))
    groups = spend.sums(found, by, start, end, ZoneInfo(zone))
    for currency in ("USD", "EUR"):
        whole = sum(row.cost(start, end) for row in found if row.currency == currency)
        assert sum(cost.micros for (_, code), cost in groups.items() if code == currency) == whole
        assumed = sum(row.cost(start, end) for row in found if row.currency == currency and row.assumed)
        assert sum(cost.assumed_micros for (_, code), cost in groups.items() if code == currency) == assumed


@given(rows(), st.lists(st.integers(0, 3 * 10**6), max_size=6))
def test_windows_that_meet_add_up_to_everything(found: list[Metered], cuts: list[int]) -> None:
    beginning = datetime(2026, 10, 19, tzinfo=UTC)
    borders = [
        beginning,
        *(beginning + timedelta(seconds=cut) for cut in sorted(cuts)),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
    parts = [spend.sums(found, [], a, b, UTC) for a, b in pairwise(borders)]
    for currency in ("USD", "EUR"):
        whole = sum(row.cost(borders[0], borders[-1]) for row in found if row.currency == currency)
        assert sum(part.get(((), currency), Cost()).micros for part in parts) == whole


@given(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)), st.integers(0, 10**7), ZONES)  # noqa: DTZ001
def test_days_cover_a_stretch_without_a_hole(naive: datetime, seconds: int, name: str) -> None:
    zone, start = ZoneInfo(name), naive.replace(microsecond=0, tzinfo=UTC)
    end = start + timedelta(seconds=seconds)
    found = list(days_in(start, end, zone))
    assert sum((until - begin for _, begin, until in found), timedelta(0)) == end - start
    for day, begin, until in found:
        assert day_of(begin, zone) == day == day_of(until - timedelta(seconds=1), zone)
        assert day_start(day, zone) <= begin < until <= day_start(day + timedelta(days=1), zone)


def test_where_clocks_go_back_over_midnight_a_day_comes_twice() -> None:
    zone = ZoneInfo("America/St_Johns")  # until 2011 at one minute past midnight
    start, end = datetime(2010, 11, 6, 12, tzinfo=UTC), datetime(2010, 11, 8, 12, tzinfo=UTC)
    found = list(days_in(start, end, zone))
    assert sum((until - begin for _, begin, until in found), timedelta(0)) == end - start
    assert len({day for day, _, _ in found}) == 3


def test_a_window_that_begins_when_the_day_comes_again_ends_that_day_with_it() -> None:
    zone = ZoneInfo("America/St_Johns")
    again = datetime(2010, 11, 6, 23, 30, tzinfo=zone, fold=1).astimezone(UTC)
    first, second, *_ = days_in(again, again + timedelta(days=2), zone)
    assert (first[0], second[0]) == (date(2010, 11, 6), date(2010, 11, 7))
    assert first[2] - again <= timedelta(hours=1)


@pytest.mark.parametrize(("day", "start"), [("2026-09-06", "2026-09-06T04:00"), ("2026-09-07", "2026-09-07T03:00")])
def test_where_midnight_is_skipped_the_day_begins_after_it(day: str, start: str) -> None:
    assert f"{day_start(date.fromisoformat(day), ZoneInfo('America/Santiago')):%Y-%m-%dT%H:%M}" == start


def test_years_of_a_cluster_in_the_smallest_currency_are_metered_to_the_last_micro_unit(database: Database) -> None:
    """Rate times seconds would fit 64 bits for six weeks."""
    stored(database, resource(currency="VND", rate_micros=A_CLUSTER_IN_DONG))
    years = timedelta(days=10 * 365)
    first = Interval(
        resource_id="trainer", project="vision", state="running", capacity_type="spot", rate_micros=A_CLUSTER_IN_DONG,
        currency="VND", price_source="file", started_at=NOW - years, base=1,
    )  # fmt: skip
    second = replace(first, started_at=NOW, base=first.reached(NOW), activity="busy")
    opened = [
        MeterChange(resource_id="trainer", closes=False, at=first.started_at, opened=(first,)),
        MeterChange(resource_id="trainer", closes=True, at=NOW, opened=(second,)),
    ]
    with database.transaction() as session:
        for change in opened:
            ledger.apply(session, [change])

    with database.reading() as session:
        assert ledger.latest(session)["trainer"].base == 1 + A_CLUSTER_IN_DONG * 10 * 365 * 86400
        by_kind = spend.metered_by_kind(session, NOW)
        [row] = [row for row in spend.metered(session, now=NOW, projects=["vision"]) if row.ended_at > row.started_at]
    assert set((+by_kind).values()) == {A_CLUSTER_IN_DONG * 10 * 365 * 24}
    assert row.cost(NOW - years, NOW) == A_CLUSTER_IN_DONG * 10 * 365 * 24
