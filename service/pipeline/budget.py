"""Turns what projects spent into the state of their spend budgets: how much is used, where it leads, when it runs out.

Pure. Reading the meter is the store's; telling people is `service.pipeline.alert`'s; what a policy makes of it is
`service.pipeline.own`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from policies.quantities import MICROS
from service.days import day_of, day_start, month_of, quarter_of
from service.documents import Project, SpendBudget
from service.model import BudgetKey, Known, Spent, Window
from service.money import SECONDS_PER_HOUR, whole_seconds
from service.pipeline.currency import Rates

EVER = datetime(1970, 1, 1, tzinfo=UTC)
"""Where a budget over all time begins: before anything was metered."""
LAST_DAY, LAST_WEEK = timedelta(hours=24), timedelta(days=7)
LEAST_HISTORY = timedelta(hours=1)
"""Less says nothing of how a project spends; the present rate says more."""
FARTHEST = timedelta(days=3660)
"""A budget that lasts longer does not run out."""


class Phase(StrEnum):
    """Where now is in the period of a spend budget."""

    AHEAD = "ahead"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast money goes: so much in so many seconds."""

    micros: int
    seconds: int

    def after(self, seconds: int) -> int:
        """What goes in so many seconds."""
        return self.micros * seconds // self.seconds

    def lasts(self, micros: int, now: datetime) -> datetime | None:
        """When so much is gone; None when it lasts as good as for ever."""
        if self.micros <= 0:
            return None
        seconds = -(-micros * self.seconds // self.micros)
        return now + timedelta(seconds=seconds) if seconds <= FARTHEST.total_seconds() else None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Where the period leads, as a range, and by how much it will miss the amount (0: not at all)."""

    low_micros: int
    high_micros: int
    miss_low_micros: int
    miss_high_micros: int


@dataclass(frozen=True, kw_only=True)
class BudgetState:
    """One spend budget of one project at one moment. Money in micro-units of the budget's currency."""

    project: str
    budget: SpendBudget
    window: Window
    at: datetime
    used_micros: int | None = None
    """None: not known; `error` says why."""
    assumed_micros: int = 0
    """How much of it nobody saw."""
    hourly_micros: int | None = None
    """What an hour costs just now."""
    forecast: Forecast | None = None
    """None where there is no end to look ahead to."""
    basis: str = ""
    """What the forecast and the run-out rest on: `at the pace of …`."""
    run_out_earliest: datetime | None = None
    run_out_latest: datetime | None = None
    """When it will be spent, as a range; None: not within the period. A budget that is spent has neither."""
    conversions: tuple[str, ...] = ()
    """The exchange rates that were used, in words."""
    error: str | None = None

    @property
    def amount_micros(self) -> int:
        return self.budget.amount

    @property
    def currency(self) -> str:
        return self.window.currency

    @property
    def phase(self) -> Phase:
        if self.at < self.window.start:
            return Phase.AHEAD
        return Phase.OVER if self.window.end is not None and self.at >= self.window.end else Phase.RUNNING

    @property
    def used_ratio(self) -> float | None:
        return None if self.used_micros is None else self.used_micros / self.amount_micros

    @property
    def spent(self) -> bool:
        return self.used_micros is not None and self.used_micros >= self.amount_micros

    def used_after(self, ahead: timedelta) -> int | None:
        """What will be used so long from now if everything goes on as it is just now."""
        if self.used_micros is None or self.hourly_micros is None:
            return None
        return self.used_micros + Pace(micros=self.hourly_micros, seconds=SECONDS_PER_HOUR).after(_seconds(ahead))

    def is_share(self, share: float, micros: int | None) -> bool:
        """Is it so large a share of the amount? Exact: shares are decimal fractions."""
        return micros is not None and micros >= Fraction(share).limit_denominator(10**8) * self.amount_micros

    @property
    def reached(self) -> float | None:
        """The highest of its thresholds that has been reached."""
        return max((share for share in self.budget.alert_at if self.is_share(share, self.used_micros)), default=None)

    def excess_micros(self, at: float, grace: timedelta) -> int | None:
        """Hourly cost that must go for the period to end within the amount; all of it where it is spent, or will be
        one grace from now, and where a budget without an end has reached the share `at`. None: not known.
        """
        soon = self.used_after(grace)
        if self.phase is not Phase.RUNNING:
            return 0
        if self.used_micros is None or self.hourly_micros is None or soon is None:
            return None
        left, end = self.amount_micros - self.used_micros, self.window.end
        if left <= 0 or soon >= self.amount_micros or (end is None and self.is_share(at, soon)):
            return self.hourly_micros
        if end is None:
            return 0
        affordable = left * SECONDS_PER_HOUR // max(1, whole_seconds(self.at, end))
        return max(0, self.hourly_micros - affordable)

    @property
    def words(self) -> str:
        """Its state in a sentence or two, for people."""
        return _words(self)


# --- which stretch counts --------------------------------------------------------------------------------------------


def windows(projects: Mapping[str, Project], now: datetime) -> dict[BudgetKey, Window]:
    """For every spend budget, what of time it counts just now."""
    return {
        (project.name, budget.name): window_of(budget, project, now)
        for project in projects.values()
        for budget in project.spend_budgets
    }


def window_of(budget: SpendBudget, project: Project, now: datetime) -> Window:
    """The period that a spend budget is in."""
    zone, currency = project.zone, budget.currency or project.currency
    if budget.period == "total":
        return Window(start=EVER, end=None, currency=currency, zone=zone)
    first, after = _days_of(budget, day_of(now, zone))
    return Window(start=day_start(first, zone), end=day_start(after, zone), currency=currency, zone=zone)


def _days_of(budget: SpendBudget, today: date) -> tuple[date, date]:
    if budget.period == "range":
        assert budget.from_ is not None  # the document would have been refused
        assert budget.until is not None
        return budget.from_, budget.until
    return month_of(today) if budget.period == "month" else quarter_of(today)


# --- what was spent → state ------------------------------------------------------------------------------------------


def states(
    projects: Mapping[str, Project],
    spent: Mapping[BudgetKey, Spent],
    hourly: Mapping[str, Mapping[str, int]],
    rates: Rates,
    now: datetime,
) -> dict[BudgetKey, BudgetState]:
    """Every spend budget's state. `hourly` is project → currency → what an hour costs just now."""
    return {
        (project.name, budget.name): state_of(
            budget,
            project,
            spent.get((project.name, budget.name), Spent()),
            hourly.get(project.name, {}),
            rates,
            now,
        )
        for project in projects.values()
        for budget in project.spend_budgets
    }


def hourly_of(resources: Sequence[Known]) -> dict[str, dict[str, int]]:
    """Project → currency → what an hour costs just now."""
    found: dict[str, dict[str, int]] = {}
    for known in resources:
        if known.project is not None and known.price is not None and known.rate_micros and not known.is_group:
            by_currency = found.setdefault(known.project, {})
            by_currency[known.price.currency] = by_currency.get(known.price.currency, 0) + known.rate_micros
    return found


def state_of(
    budget: SpendBudget, project: Project, spent: Spent, hourly: Mapping[str, int], rates: Rates, now: datetime
) -> BudgetState:
    """One spend budget's state. Without an exchange rate that it needs it is not known, and says which one."""
    window = window_of(budget, project, now)
    state = BudgetState(project=project.name, budget=budget, window=window, at=now)
    exchange = _Exchange(rates=rates, target=window.currency, today=day_of(now, window.zone))
    try:
        state = replace(
            state,
            used_micros=spent.own
            + sum(exchange.of(micros, currency, day) for (day, currency), micros in _dated(spent)),
            assumed_micros=exchange.today_of(spent.assumed),
            hourly_micros=exchange.today_of(hourly),
        )
        paces, basis = _paces(spent, exchange, state.hourly_micros or 0, now)
    except _NoRate as error:
        return BudgetState(project=project.name, budget=budget, window=window, at=now, error=str(error))
    state = replace(state, conversions=tuple(sorted(exchange.told)))
    return _ahead(state, paces, basis) if state.phase is Phase.RUNNING else state


def _dated(spent: Spent) -> list[tuple[tuple[date, str], int]]:
    return sorted(spent.foreign.items())


class _NoRate(Exception):
    """An exchange rate is missing; the text says which one."""


@dataclass(kw_only=True)
class _Exchange:
    """Everything into one currency, by the rate of the day."""

    rates: Rates
    target: str
    today: date
    told: set[str] = field(default_factory=set)

    def of(self, micros: int, currency: str, day: date) -> int:
        if currency == self.target:
            return micros
        converted = self.rates.convert(micros, currency, self.target, day)
        if converted is None:
            raise _NoRate(
                f"there is no exchange rate from {currency} to {self.target} as of {day.isoformat()} or before; "
                "write one into the file of CURFEW_RATES"
            )
        self.told.add(f"1 {currency} = {converted.rate:f} {self.target} (as of {converted.as_of.isoformat()})")
        return converted.micros

    def today_of(self, sums: Mapping[str, int]) -> int:
        return sum(self.of(micros, currency, self.today) for currency, micros in sorted(sums.items()))


def _paces(spent: Spent, exchange: _Exchange, hourly: int, now: datetime) -> tuple[list[Pace], str]:
    """How fast money goes, by what history there is, and that history in words."""
    history = timedelta(0) if spent.since is None else now - spent.since
    if history < LEAST_HISTORY:
        return [Pace(micros=hourly, seconds=SECONDS_PER_HOUR)], "at the present rate, as there is no history yet,"
    day = Pace(micros=exchange.today_of(spent.last_day), seconds=_seconds(min(history, LAST_DAY)))
    week = Pace(micros=exchange.today_of(spent.last_week), seconds=_seconds(min(history, LAST_WEEK)))
    if history < LAST_DAY:
        return [day], f"at the pace of the {_length(history)} since it was first metered"
    if history < LAST_WEEK:
        return [day, week], f"at the pace of the last 24 hours and of the {_length(history)} since it was first metered"
    return [day, week], "at the pace of the last 24 hours and of the last 7 days"


def _ahead(state: BudgetState, paces: Sequence[Pace], basis: str) -> BudgetState:
    """Where it leads: the forecast for the end of the period, and when the money runs out."""
    assert state.used_micros is not None
    forecast, end = None, state.window.end
    if end is not None:
        reached = [state.used_micros + pace.after(whole_seconds(state.at, end)) for pace in paces]
        forecast = Forecast(
            low_micros=min(reached),
            high_micros=max(reached),
            miss_low_micros=max(0, min(reached) - state.amount_micros),
            miss_high_micros=max(0, max(reached) - state.amount_micros),
        )
    gone = [None if state.spent else pace.lasts(state.amount_micros - state.used_micros, state.at) for pace in paces]
    within = [at for at in gone if at is not None and (end is None or at < end)]
    return replace(
        state,
        forecast=forecast,
        basis=basis,
        run_out_earliest=min(within, default=None),
        run_out_latest=max(within) if within and len(within) == len(gone) else None,
    )


def _seconds(length: timedelta) -> int:
    return int(length.total_seconds())


# --- state → words ---------------------------------------------------------------------------------------------------


def _words(state: BudgetState) -> str:
    called = f"Spend budget {state.budget.name} of {state.project}"
    if state.phase is Phase.AHEAD:
        return f"{called}: its period begins on {_date(state, state.window.start)}."
    if state.used_micros is None:
        return f"{called} is not known: {state.error}."
    of = f"{_money(state.used_micros)} of {_money(state.amount_micros)} {state.currency}"
    share = state.used_micros * 100 // state.amount_micros
    assumed = f", {_money(state.assumed_micros)} of it assumed" if state.assumed_micros else ""
    sentences = [f"{called}: {of} ({share} %) spent {_since(state)}{assumed}{_leads_to(state)}."]
    if state.phase is Phase.OVER and state.window.end is not None:
        sentences.append(f"Its period ended on {_date(state, state.window.end - timedelta(seconds=1))}.")
    if state.run_out_earliest is not None:
        sentences.append(_runs_out(state, state.run_out_earliest))
    if state.conversions:
        sentences.append(f"Converted by {', '.join(state.conversions)}.")
    return " ".join(sentences)


def _since(state: BudgetState) -> str:
    return "in all" if state.budget.period == "total" else f"since {_date(state, state.window.start)}"


def _leads_to(state: BudgetState) -> str:
    forecast = state.forecast
    if forecast is None:
        return ""
    ends_at = _range(forecast.low_micros, forecast.high_micros)
    named = {"month": "the month", "quarter": "the quarter"}.get(state.budget.period, "the period")
    if forecast.miss_high_micros == 0:
        verdict = "within it"
    elif forecast.miss_low_micros == 0:
        verdict = f"up to {_money(forecast.miss_high_micros)} over it"
    else:
        verdict = f"{_range(forecast.miss_low_micros, forecast.miss_high_micros)} over it"
    return f"; {state.basis} {named} ends at {ends_at} {state.currency}, {verdict}"


def _runs_out(state: BudgetState, earliest: datetime) -> str:
    first, latest = _moment(state, earliest), state.run_out_latest
    if latest is None:
        return f"It runs out on {first} at the earliest."
    last = _moment(state, latest)
    return f"It runs out on {first}." if last == first else f"It runs out between {first} and {last}."


def _date(state: BudgetState, at: datetime) -> str:
    day = day_of(at, state.window.zone)
    year = "" if day.year == day_of(state.at, state.window.zone).year else f" {day.year}"
    return f"{day.day} {day:%B}{year}"


def _moment(state: BudgetState, at: datetime) -> str:
    """To the hour: nobody knows it better. `21 November, 13:00 (Asia/Ho_Chi_Minh)`."""
    local = at.astimezone(state.window.zone)
    return f"{_date(state, at)}, {local:%H}:00 ({state.window.zone})"


def _money(micros: int) -> str:
    return f"{Decimal(micros) / MICROS:,.2f}"


def _range(low: int, high: int) -> str:
    return _money(low) if _money(low) == _money(high) else f"{_money(low)} to {_money(high)}"


def _length(length: timedelta) -> str:
    hours = _seconds(length) // SECONDS_PER_HOUR
    if hours < 48:
        return f"{hours} hours" if hours != 1 else "hour"
    return f"{hours // 24} days"
