"""Turns spend budgets that have reached a threshold into messages to whoever answers for the money, once per threshold,
period and amount.

They go out at every ceiling, `observe` too: they tell of money that is spent and disturb nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

from sqlmodel import Session

from policies.quantities import format_amount, format_share
from service.days import day_of
from service.model import BudgetKey, Message
from service.pipeline.budget import BudgetState, Phase
from service.pipeline.currency import Rates
from service.pipeline.plan import money
from service.store import outbox, spend
from service.store.spend import By, Metered

TOP_SPENDERS = 5
MOST_POINTS = 100
"""Of the picture: more than that nobody sees."""


def budget_alerts(
    session: Session, states: Mapping[BudgetKey, BudgetState], rates: Rates, now: datetime
) -> list[Message]:
    """What has not been said yet. Where several thresholds were passed at once only the highest is told of."""
    found = []
    for state in states.values():
        share = state.reached
        if share is None or state.phase is not Phase.RUNNING:
            continue
        as_much_or_more = [one for one in state.budget.alert_at if one >= share]  # what is used may be less than it was
        if any(outbox.is_queued(session, _key(state, one)) for one in as_much_or_more):
            continue
        found.append(
            Message(
                kind="budget",
                key=_key(state, share),
                project=state.project,
                policy_channels=(),
                payload=_payload(session, state, share, rates, now),
            )
        )
    return found


def _key(state: BudgetState, share: float) -> str:
    """Once for each threshold, period and amount: half of more money is another half."""
    start = "total" if state.window.end is None else day_of(state.window.start, state.window.zone).isoformat()
    amount = f"{format_amount(state.amount_micros)} {state.currency}"
    return f"budget:{state.project}:{state.budget.name}:{start}:{amount}:{format_share(share)}"


def _payload(session: Session, state: BudgetState, share: float, rates: Rates, now: datetime) -> dict[str, Any]:
    """What the message says, as plain JSON."""
    rows = list(spend.metered(session, now=now, projects=[state.project], start=state.window.start))
    currency, forecast = state.currency, state.forecast
    assert state.used_micros is not None
    return {
        "project": state.project,
        "timezone": str(state.window.zone),
        "budget": state.budget.name,
        "period": state.budget.period,
        "period_start": None if state.window.end is None else state.window.start.isoformat(),
        "period_end": None if state.window.end is None else state.window.end.isoformat(),
        "threshold": format_share(share),
        "amount": money(state.amount_micros, currency),
        "used": money(state.used_micros, currency),
        "assumed": money(state.assumed_micros, currency) if state.assumed_micros else None,
        "used_ratio": state.used_ratio,
        "hourly_cost": None if state.hourly_micros is None else money(state.hourly_micros, currency),
        "forecast_low": None if forecast is None else money(forecast.low_micros, currency),
        "forecast_high": None if forecast is None else money(forecast.high_micros, currency),
        "miss_by_low": None if forecast is None else money(forecast.miss_low_micros, currency),
        "miss_by_high": None if forecast is None else money(forecast.miss_high_micros, currency),
        "basis": state.basis,
        "run_out_earliest": state.run_out_earliest.isoformat() if state.run_out_earliest else None,
        "run_out_latest": state.run_out_latest.isoformat() if state.run_out_latest else None,
        "reason": state.words,
        "conversions": list(state.conversions),
        "spenders": _spenders(rows, state, rates, now),
        "history": _history(rows, state, rates, now),
    }


def _spenders(rows: list[Metered], state: BudgetState, rates: Rates, now: datetime) -> list[dict[str, Any]]:
    """Who spent most in the period, by name, each in the money it is priced in."""
    names = {row.resource: row.name for row in rows}
    today = day_of(now, state.window.zone)
    ranked = []
    for ((resource,), currency), cost in spend.sums(
        rows, [By.RESOURCE], state.window.start, now, state.window.zone
    ).items():
        weight = rates.convert(cost.micros, currency, state.currency, today)
        ranked.append((weight.micros if weight else 0, resource, money(cost.micros, currency)))
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    return [{"name": names[resource] or resource, "cost": cost} for _, resource, cost in ranked[:TOP_SPENDERS]]


def _history(rows: list[Metered], state: BudgetState, rates: Rates, now: datetime) -> list[list[Any]]:
    """[day, micro-units spent by its end] from the period's first day (or the first that cost anything) until today."""
    by_day: dict[date, int] = {}
    for ((label,), currency), cost in spend.sums(rows, [By.DAY], state.window.start, now, state.window.zone).items():
        day = date.fromisoformat(label)
        converted = rates.convert(cost.micros, currency, state.currency, day)
        by_day[day] = by_day.get(day, 0) + (converted.micros if converted else 0)
    today = day_of(now, state.window.zone)
    day = min(by_day, default=today) if state.window.end is None else day_of(state.window.start, state.window.zone)
    points, total = list[list[Any]](), 0
    while day <= today:
        total += by_day.get(day, 0)
        points.append([day.isoformat(), total])
        day += timedelta(days=1)
    stride = -(-len(points) // MOST_POINTS)
    return points[::-stride][::-1]  # today is always among them
