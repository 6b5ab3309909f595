"""Spend budgets: which period counts, how much of it is used, where it leads, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.documents import Project
from service.model import Spent
from service.pipeline.budget import BudgetState, Phase, hourly_of, state_of, states, window_of, windows
from service.pipeline.currency import Rate, Rates
from tests.pipeline.builders import hours, known

NOW = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
M = 1_000_000


def project(timezone: str = "UTC", currency: str = "USD", **budget: Any) -> Project:
    given = {"name": "monthly", "period": "month", "amount": 20_000} | budget
    return Project.model_validate(
        {"name": "vision", "timezone": timezone, "currency": currency, "spend_budgets": [given]}
    )


def spent(
    used: float = 0, *, day: float = 0, week: float = 0, since: timedelta = timedelta(days=30), **more: Any
) -> Spent:
    """In whole dollars, metered for long unless it is said."""
    return Spent(
        since=NOW - since,
        own=round(used * M),
        last_day={"USD": round(day * M)},
        last_week={"USD": round(week * M)},
        **more,
    )


def state(
    what: Spent, *, hourly: dict[str, int] | None = None, rates: Rates | None = None, now: datetime = NOW, **budget: Any
) -> BudgetState:
    owner = project(**budget)
    return state_of(owner.spend_budgets[0], owner, what, hourly or {}, rates or Rates(), now)


# --- which period counts ----------------------------------------------------------------------------------------------

PERIODS: dict[str, tuple[dict[str, Any], datetime, str, str]] = {
    "a month, in UTC": ({}, NOW, "2026-11-01T00:00", "2026-12-01T00:00"),
    "a month begins at the project's midnight": (
        {"timezone": "Asia/Ho_Chi_Minh"},
        NOW,
        "2026-10-31T17:00",
        "2026-11-30T17:00",
    ),
    "where it is already the first, the new month counts": (
        {"timezone": "Asia/Ho_Chi_Minh"},
        datetime(2026, 10, 31, 17, tzinfo=UTC),
        "2026-10-31T17:00",
        "2026-11-30T17:00",
    ),
    "a second before, the old one": (
        {"timezone": "Asia/Ho_Chi_Minh"},
        datetime(2026, 10, 31, 16, 59, 59, tzinfo=UTC),
        "2026-09-30T17:00",
        "2026-10-31T17:00",
    ),
    "a month in which summer time ends is an hour longer": (
        {"timezone": "Europe/Berlin"},
        datetime(2026, 10, 20, tzinfo=UTC),
        "2026-09-30T22:00",
        "2026-10-31T23:00",
    ),
    "December ends with the year": ({}, datetime(2026, 12, 31, 23, tzinfo=UTC), "2026-12-01T00:00", "2027-01-01T00:00"),
    "a quarter": ({"period": "quarter"}, NOW, "2026-10-01T00:00", "2027-01-01T00:00"),
    "the first quarter ends in another offset": (
        {"period": "quarter", "timezone": "America/New_York"},
        datetime(2026, 2, 3, tzinfo=UTC),
        "2026-01-01T05:00",
        "2026-04-01T04:00",
    ),
    "a range": (
        {"period": "range", "from": "2026-11-10", "until": "2026-11-20", "timezone": "Australia/Lord_Howe"},
        NOW,
        "2026-11-09T13:00",
        "2026-11-19T13:00",
    ),
    "where midnight is skipped, the day begins after it": (
        {"period": "range", "from": "2026-09-06", "until": "2026-09-07", "timezone": "America/Santiago"},
        NOW,
        "2026-09-06T04:00",
        "2026-09-07T03:00",
    ),
}


@pytest.mark.parametrize("sentence", PERIODS)
def test_the_period(sentence: str) -> None:
    more, now, start, end = PERIODS[sentence]
    owner = project(**more)
    window = window_of(owner.spend_budgets[0], owner, now)
    assert window.end is not None
    assert (f"{window.start:%Y-%m-%dT%H:%M}", f"{window.end:%Y-%m-%dT%H:%M}") == (start, end)
    assert windows({"vision": owner}, now) == {("vision", "monthly"): window}


def test_a_total_counts_everything_and_never_ends() -> None:
    owner = project(period="total", currency="EUR")
    window = window_of(owner.spend_budgets[0], owner, NOW)
    assert (window.start.year, window.end, window.currency) == (1970, None, "EUR")


def test_a_budget_may_be_in_another_currency_than_its_project() -> None:
    owner = project(currency="EUR", timezone="UTC")
    other = Project.model_validate(
        owner.model_dump(by_alias=True)
        | {"spend_budgets": [{"name": "m", "period": "month", "amount": 1, "currency": "USD"}]}
    )
    assert window_of(other.spend_budgets[0], other, NOW).currency == "USD"


# --- its state --------------------------------------------------------------------------------------------------------


def forecast(found: BudgetState) -> tuple[int, int] | None:
    return None if found.forecast is None else (found.forecast.low_micros // M, found.forecast.high_micros // M)


def missed(found: BudgetState) -> tuple[int, int] | None:
    return (
        None if found.forecast is None else (found.forecast.miss_low_micros // M, found.forecast.miss_high_micros // M)
    )


def runs_out(found: BudgetState) -> tuple[float | None, float | None]:
    """In hours from now."""
    return tuple(None if at is None else (at - NOW) / hours(1) for at in (found.run_out_earliest, found.run_out_latest))  # type: ignore[return-value]


# From NOW until December there are 351 hours.
STATES: dict[str, tuple[BudgetState, Callable[[BudgetState], object], object]] = {
    "half is used": (state(spent(10_000)), lambda s: (s.used_ratio, s.reached, s.spent), (0.5, 0.5, False)),
    "a micro-unit less is not half": (
        state(Spent(own=10_000 * M - 1)),
        lambda s: (s.reached, s.spent),
        (None, False),
    ),
    "all is used": (state(spent(20_000)), lambda s: (s.reached, s.spent), (1.0, True)),
    "a micro-unit less is not all": (state(Spent(own=20_000 * M - 1)), lambda s: (s.reached, s.spent), (0.8, False)),
    "own thresholds": (state(spent(5_800), alert_at=["29%", "30%"]), lambda s: s.reached, 0.29),
    "no thresholds": (state(spent(50_000), alert_at=[]), lambda s: s.reached, None),
    "the forecast spans the last day's pace and the last week's": (
        state(spent(10_000, day=240, week=3360)),
        forecast,
        (13_510, 17_020),
    ),
    "and what it will miss by": (state(spent(17_000, day=240, week=3360)), missed, (510, 4_020)),
    "a budget that will do misses by nothing": (state(spent(1_000, day=24, week=168)), missed, (0, 0)),
    "one of the paces may do": (state(spent(15_000, day=240, week=3360)), missed, (0, 2_020)),
    "when it runs out": (state(spent(18_000, day=240, week=3360)), runs_out, (100.0, 200.0)),
    "when one pace lasts to the end there is no latest": (
        state(spent(15_000, day=240, week=3360)),
        runs_out,
        (250.0, None),
    ),
    "at no cost it lasts": (state(spent(18_000)), runs_out, (None, None)),
    "what is spent does not run out": (state(spent(21_000, day=240, week=3360)), runs_out, (None, None)),
    "a total has no forecast but runs out": (
        state(spent(18_000, day=240, week=3360), period="total"),
        lambda s: (s.forecast, *runs_out(s)),
        (None, 100.0, 200.0),
    ),
    "six hours of history are used, and it says so": (
        state(spent(600, day=600, week=600, since=hours(6))),
        lambda s: (forecast(s), s.basis),
        ((35_700, 35_700), "at the pace of the 6 hours since it was first metered"),
    ),
    "three days of history": (
        state(spent(7200, day=240, week=7200, since=hours(72))),
        lambda s: (forecast(s), s.basis),
        ((10_710, 42_300), "at the pace of the last 24 hours and of the 3 days since it was first metered"),
    ),
    "without history the present rate speaks": (
        state(Spent(since=NOW), hourly={"USD": 10 * M}),
        lambda s: (forecast(s), s.basis),
        ((3_510, 3_510), "at the present rate, as there is no history yet,"),
    ),
    "half an hour of history says less than the present rate": (
        state(spent(1, day=1, week=1, since=hours(0.5)), hourly={"USD": 10 * M}),
        lambda s: (forecast(s), s.basis),
        ((3_511, 3_511), "at the present rate, as there is no history yet,"),
    ),
    "it runs out when the last micro-unit is gone, not a second before": (
        state(Spent(since=NOW, own=20_000 * M - 1), hourly={"USD": 3 * M}),
        lambda s: s.run_out_earliest == NOW + timedelta(seconds=1),
        True,
    ),
    "what was never metered costs nothing": (state(Spent()), forecast, (0, 0)),
    "an hour's cost is known": (state(spent(), hourly={"USD": 98_320_000}), lambda s: s.hourly_micros, 98_320_000),
    "a range that has not begun": (
        state(spent(5), period="range", **{"from": "2026-12-01", "until": "2026-12-05"}),
        lambda s: (s.phase, s.forecast, s.excess_micros(1.0, hours(1))),
        (Phase.AHEAD, None, 0),
    ),
    "a range that is over": (
        state(spent(50_000, day=240, week=3360), period="range", **{"from": "2026-11-01", "until": "2026-11-16"}),
        lambda s: (s.phase, s.forecast, s.reached, s.excess_micros(1.0, hours(1))),
        (Phase.OVER, None, 1.0, 0),
    ),
}


@pytest.mark.parametrize("sentence", STATES)
def test_the_state(sentence: str) -> None:
    found, ask, answer = STATES[sentence]
    assert ask(found) == answer


# --- what has to go ---------------------------------------------------------------------------------------------------

HOURLY = {"USD": 100 * M}
EXCESS: dict[str, tuple[BudgetState, float, int]] = {
    "what is affordable may stay": (state(spent(20_000 - 351 * 60), hourly=HOURLY), 1.0, 40),
    "nothing has to go where it suffices": (state(spent(0), hourly={"USD": 56 * M}), 1.0, 0),
    "all of it when it is spent": (state(spent(20_000), hourly=HOURLY), 1.0, 100),
    "all of it when it will be spent within the grace": (state(spent(19_950), hourly=HOURLY), 1.0, 100),
    "a total leaves all until its share is reached": (state(spent(15_000), hourly=HOURLY, period="total"), 0.8, 0),
    "and then all of it goes": (state(spent(16_000), hourly=HOURLY, period="total"), 0.8, 100),
    "what runs for nothing need not go": (state(spent(30_000)), 1.0, 0),
}


@pytest.mark.parametrize("sentence", EXCESS)
def test_the_excess(sentence: str) -> None:
    found, at, dollars = EXCESS[sentence]
    assert found.excess_micros(at, hours(1)) == dollars * M


# --- other currencies -------------------------------------------------------------------------------------------------


def rates(*pairs: tuple[str, str, str, str]) -> Rates:
    return Rates(
        [Rate.model_validate({"from": frm, "to": to, "rate": rate, "as_of": day}) for frm, to, rate, day in pairs]
    )


EUROS = Spent(
    since=NOW - timedelta(days=30),
    own=1_000 * M,
    foreign={(date(2026, 11, 3), "EUR"): 100 * M, (date(2026, 11, 10), "EUR"): 100 * M},
    last_day={"EUR": 24 * M},
    last_week={"EUR": 168 * M},
)


def test_each_day_is_converted_by_its_own_rate_and_the_rates_are_told() -> None:
    known_rates = rates(("EUR", "USD", "1.10", "2026-11-01"), ("EUR", "USD", "1.20", "2026-11-10"))
    found = state(EUROS, hourly={"EUR": 1 * M}, rates=known_rates)
    assert found.used_micros == (1_000 + 110 + 120) * M
    assert (found.hourly_micros, forecast(found)) == (1_200_000, (1_651, 1_651))
    assert found.conversions == ("1 EUR = 1.10 USD (as of 2026-11-01)", "1 EUR = 1.20 USD (as of 2026-11-10)")
    assert "Converted by 1 EUR = 1.10 USD (as of 2026-11-01), 1 EUR = 1.20 USD" in found.words


def test_without_a_rate_it_is_not_known_and_says_which_one_is_missing() -> None:
    found = state(EUROS, rates=rates(("EUR", "USD", "1.20", "2026-11-05"), ("USD", "EUR", "0.9", "2026-01-01")))
    assert (found.used_micros, found.used_ratio, found.reached, found.forecast) == (None, None, None, None)
    assert found.excess_micros(1.0, hours(1)) is None
    assert found.words == (
        "Spend budget monthly of vision is not known: there is no exchange rate from EUR to USD as of 2026-11-03 or "
        "before; write one into the file of CURFEW_RATES."
    )


@given(
    st.dictionaries(st.integers(1, 16), st.integers(0, 10**15), min_size=1),
    st.decimals("0.0001", "1000", places=4),
)
def test_converting_by_day_is_exact_to_the_nearest_micro_unit(days: dict[int, int], rate: Decimal) -> None:
    what = Spent(since=NOW, foreign={(date(2026, 11, day), "EUR"): micros for day, micros in days.items()})
    found = state(what, rates=rates(("EUR", "USD", f"{rate:f}", "2026-01-01")))
    assert found.used_micros is not None
    assert abs(found.used_micros - sum(days.values()) * rate) <= Decimal(len(days)) / 2


@given(
    used=st.lists(st.integers(0, 10**12), min_size=1, max_size=10),
    thresholds=st.lists(st.integers(1, 100).map(lambda percent: f"{percent}%"), max_size=5),
)
def test_more_spent_is_never_less_used_nor_a_lower_threshold(used: list[int], thresholds: list[str]) -> None:
    found = [state(Spent(since=NOW, own=one), alert_at=thresholds) for one in sorted(used)]
    assert [one.used_micros for one in found] == sorted(used)
    assert [one.reached or 0 for one in found] == sorted(one.reached or 0 for one in found)


@given(
    used=st.integers(0, 3 * 10**10),
    day=st.integers(0, 10**10),
    week=st.integers(0, 10**11),
    price=st.integers(0, 10**9),
)
def test_what_it_says_of_itself_fits_together(used: int, day: int, week: int, price: int) -> None:
    found = state(
        Spent(since=NOW - timedelta(days=9), own=used, last_day={"USD": day}, last_week={"USD": week}),
        hourly={"USD": price},
    )
    assert found.forecast is not None
    assert used <= found.forecast.low_micros <= found.forecast.high_micros
    assert found.forecast.miss_low_micros <= found.forecast.miss_high_micros
    if found.run_out_earliest is not None:
        assert not found.spent
        assert found.forecast.miss_high_micros >= 0
        assert NOW < found.run_out_earliest < (found.window.end or NOW)
        assert found.run_out_latest is None or found.run_out_earliest <= found.run_out_latest
    excess = found.excess_micros(1.0, hours(1))
    assert excess is not None
    assert 0 <= excess <= price


# --- words ------------------------------------------------------------------------------------------------------------

WORDS: dict[str, tuple[BudgetState, str]] = {
    "over it": (
        state(spent(20_412.10, day=240, week=3360)),
        "Spend budget monthly of vision: 20,412.10 of 20,000.00 USD (102 %) spent since 1 November; at the pace of the "
        "last 24 hours and of the last 7 days the month ends at 23,922.10 to 27,432.10 USD, "
        "3,922.10 to 7,432.10 over it.",
    ),
    "within it": (
        state(spent(100, day=24, week=168)),
        "Spend budget monthly of vision: 100.00 of 20,000.00 USD (0 %) spent since 1 November; at the pace of the last "
        "24 hours and of the last 7 days the month ends at 451.00 USD, within it.",
    ),
    "almost spent is not spent": (
        state(Spent(own=20_000 * M - 1, since=NOW)),
        "Spend budget monthly of vision: 20,000.00 of 20,000.00 USD (99 %) spent since 1 November; at the present "
        "rate, as there is no history yet, the month ends at 20,000.00 USD, within it.",
    ),
    "runs out, on the project's clocks": (
        state(spent(18_000, day=240, week=3360), timezone="Asia/Ho_Chi_Minh"),
        "Spend budget monthly of vision: 18,000.00 of 20,000.00 USD (90 %) spent since 1 November; at the pace of "
        "the last 24 hours and of the last 7 days the month ends at 21,440.00 to 24,880.00 USD, "
        "1,440.00 to 4,880.00 over it. "
        "It runs out between 20 November, 20:00 (Asia/Ho_Chi_Minh) and 25 November, 00:00 (Asia/Ho_Chi_Minh).",
    ),
    "assumed": (
        state(spent(100, assumed={"USD": 40 * M}), period="total"),
        "Spend budget monthly of vision: 100.00 of 20,000.00 USD (0 %) spent in all, 40.00 of it assumed.",
    ),
    "ahead": (
        state(spent(), period="range", **{"from": "2027-01-01", "until": "2027-02-01"}),
        "Spend budget monthly of vision: its period begins on 1 January 2027.",
    ),
    "over": (
        state(spent(100), period="range", **{"from": "2026-11-01", "until": "2026-11-10"}),
        "Spend budget monthly of vision: 100.00 of 20,000.00 USD (0 %) spent since 1 November. "
        "Its period ended on 9 November.",
    ),
}


@pytest.mark.parametrize("sentence", WORDS)
def test_the_words(sentence: str) -> None:
    found, words = WORDS[sentence]
    assert found.words == words


def test_every_budget_of_every_project_has_a_state() -> None:
    owner = project()
    machines = [known(), known("i-2"), known("i-3", project=None)]
    found = states({"vision": owner}, {("vision", "monthly"): spent(5)}, hourly_of(machines), Rates(), NOW)
    assert {key: (one.used_micros, one.hourly_micros) for key, one in found.items()} == {
        ("vision", "monthly"): (5 * M, 2 * 55_040_000)
    }
