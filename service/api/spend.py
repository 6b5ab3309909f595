"""`/projects/{name}/spend`: any window's exact cost, broken down, and how the spend budgets stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlmodel import Session

from policies.quantities import format_share
from service.api.auth import Caller, TheRuntime
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Money, Shape, Words
from service.days import day_of, day_start, month_of
from service.documents import Project, nearest
from service.pipeline.budget import BudgetState, Forecast, Phase, state_of, windows
from service.runtime import Runtime
from service.store import documents, spend
from service.store.spend import By, Cost, Group
from service.store.sums import UNUSED

router = APIRouter(prefix="/projects", tags=["projects"])


class Total(Shape):
    """All of one currency in the window."""

    cost: Money
    assumed: Money
    """How much of it was metered while nobody looked, as if everything had gone on as it was."""
    idle: Money
    """How much of it went to GPUs that idled, by the installation's own idle profile."""


class SpendGroup(Shape):
    """One part of the spend. What was not asked to be told apart is null."""

    day: date | None = None
    """In the project's zone."""
    provider: str | None = None
    gpu_model: str | None = None
    capacity_type: str | None = None
    activity: str | None = None
    """busy, idle or unknown."""
    resource: str | None = None
    resource_name: str | None = None
    cost: Money
    assumed: Money


class ForecastAnswer(Shape):
    """Where the period ends, as a range, and by how much it misses the amount."""

    low: Money
    high: Money
    miss_by_low: Money
    miss_by_high: Money


class RunOut(Shape):
    """When the money is gone, if that is within the period."""

    earliest: datetime
    latest: datetime | None
    """Null: by its slower pace it lasts."""


class BudgetAnswer(Shape):
    """One spend budget, just now."""

    name: str
    period: str
    phase: Phase
    from_: datetime | None = Field(alias="from")
    """Null: it counts all time."""
    to: datetime | None
    amount: Money
    used: Money | None
    """Null: not known; `error` says why."""
    used_ratio: float | None
    assumed: Money | None
    hourly_cost: Money | None
    forecast: ForecastAnswer | None
    run_out: RunOut | None
    basis: str
    """What forecast and run-out rest on."""
    alert_at: list[str]
    reached: str | None
    """The highest threshold that has been reached."""
    conversions: list[str]
    """Exchange rates that were used."""
    error: str | None
    words: str


class SpendAnswer(Shape):
    """What a project spent in [from, to). Currencies are never mixed."""

    project: str
    timezone: str
    from_: datetime = Field(alias="from")
    to: datetime
    until: datetime
    """How far it is known: now, or `to` when that is past."""
    by: list[By]
    totals: list[Total]
    groups: list[SpendGroup]
    """They add up to the totals exactly."""
    unpriced: int
    """Resources that run just now without a price that anybody knows: they are in no sum."""
    budgets: list[BudgetAnswer]


MOMENT = "a day in the project's zone, like 2026-11-01, or a moment with its offset, like 2026-11-01T00:00:00Z"


@router.get("/{name}/spend", responses=responses(404), summary="What a project spent, and how its spend budgets stand")
def get_spend(
    runtime: TheRuntime,
    principal: Caller,
    name: str,
    by: Words,
    from_: Annotated[str | None, Query(alias="from", max_length=40, description=MOMENT)] = None,
    to: Annotated[str | None, Query(max_length=40, description=f"exclusive: {MOMENT}")] = None,
) -> SpendAnswer:
    """`by` breaks it down by one or several of day, provider, gpu_model, capacity_type, activity and resource:
    repeated, or with commas. Without a window: this month, on the clocks of the project.
    """
    now = runtime.clock.now()
    asked = _asked(by)
    with runtime.database.reading() as session:
        project = _project(session, name) if principal.sees(name) else None
        if project is None:
            raise not_found("project", name)
        start, end = _window(project, from_, to, now)
        until = max(start, min(end, now))  # what a clock that was set back has metered later is not yet so
        rows = list(spend.metered(session, now=now, projects=[name], start=start))
        budgets = _budgets(session, runtime, project, now)
        unpriced = spend.unpriced(session, name)
    by_activity = spend.sums(rows, [By.ACTIVITY], start, until, project.zone)
    names = {row.resource: row.name for row in rows}
    groups = spend.sums(rows, asked, start, until, project.zone) if asked else {}
    return SpendAnswer.model_validate(
        {
            "project": name,
            "timezone": project.timezone,
            "from": start,
            "to": end,
            "until": until,
            "by": asked,
            "totals": _totals(by_activity),
            "groups": [
                _group(asked, *key, cost, names) for key, cost in sorted(groups.items(), key=lambda one: one[0])
            ],
            "unpriced": unpriced,
            "budgets": [_budget(state) for state in budgets],
        }
    )


def _asked(words: Sequence[str]) -> list[By]:
    """What to tell apart, each once, in the order asked for."""
    found: list[By] = []
    for word in (part.strip() for entry in words for part in entry.split(",")):
        if word not in list(By):
            known = ", ".join(By)
            raise Problem(422, "InvalidRequest", f"by: {word!r} is none of {known}{nearest(word, By)}")
        if By(word) not in found:
            found.append(By(word))
    return found


def _project(session: Session, name: str) -> Project | None:
    row = documents.find(session, "project", name)
    document = None if row is None else documents.read(row)
    return document if isinstance(document, Project) else None


def _window(project: Project, from_: str | None, to: str | None, now: datetime) -> tuple[datetime, datetime]:
    """The window asked for; each end that is missing is that of this month."""
    first, after = month_of(day_of(now, project.zone))
    start = day_start(first, project.zone) if from_ is None else _moment("from", from_, project)
    end = day_start(after, project.zone) if to is None else _moment("to", to, project)
    if end <= start:
        raise Problem(
            422, "InvalidRequest", f"to: {end.isoformat()} must come after {start.isoformat()}; it is exclusive"
        )
    return start, end


def _moment(field: str, text: str, project: Project) -> datetime:
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            found = day_start(date.fromisoformat(text), project.zone)
        else:
            found = datetime.fromisoformat(text.replace(" ", "+"))  # a + in an URL is a space
            if found.tzinfo is None:
                raise ValueError(text)
            found = found.astimezone(UTC)
        if not 2000 <= found.year <= 2200:
            raise ValueError(text)
    except (ValueError, OverflowError):
        raise Problem(
            422,
            "InvalidRequest",
            f"{field}: {text!r} is neither a day like 2026-11-01 (in {project.timezone}) nor a moment with its offset "
            "like 2026-11-01T00:00:00Z, between 2000 and 2200",
        ) from None
    return found


def _totals(by_activity: dict[tuple[Group, str], Cost]) -> list[Total]:
    found: dict[str, Cost] = {}
    idle: dict[str, int] = {}
    for ((activity,), currency), cost in by_activity.items():
        found[currency] = found.get(currency, Cost()) + cost
        idle[currency] = idle.get(currency, 0) + (cost.micros if activity in UNUSED else 0)
    return [
        Total(
            cost=Money(amount_micros=cost.micros, currency=currency),
            assumed=Money(amount_micros=cost.assumed_micros, currency=currency),
            idle=Money(amount_micros=idle[currency], currency=currency),
        )
        for currency, cost in sorted(found.items())
    ]


def _group(by: Sequence[By], group: Group, currency: str, cost: Cost, names: dict[str, str | None]) -> SpendGroup:
    told: dict[str, str | None] = {one.value: label or None for one, label in zip(by, group, strict=True)}
    if told.get("resource"):
        told["resource_name"] = names.get(told["resource"] or "")
    return SpendGroup.model_validate(
        {
            **told,
            "cost": Money(amount_micros=cost.micros, currency=currency),
            "assumed": Money(amount_micros=cost.assumed_micros, currency=currency),
        }
    )


def _budgets(session: Session, runtime: Runtime, project: Project, now: datetime) -> list[BudgetState]:
    asked = spend.spent(session, windows({project.name: project}, now), now)
    hourly = spend.hourly(session, project.name)
    return [
        state_of(budget, project, asked[project.name, budget.name], hourly, runtime.rates, now)
        for budget in project.spend_budgets
    ]


def _budget(state: BudgetState) -> BudgetAnswer:
    def money(micros: int | None) -> Money | None:
        return None if micros is None else Money(amount_micros=micros, currency=state.currency)

    endless = state.window.end is None
    return BudgetAnswer.model_validate(
        {
            "name": state.budget.name,
            "period": state.budget.period,
            "phase": state.phase,
            "from": None if endless else state.window.start,
            "to": state.window.end,
            "amount": money(state.amount_micros),
            "used": money(state.used_micros),
            "used_ratio": state.used_ratio,
            "assumed": None if state.used_micros is None else money(state.assumed_micros),
            "hourly_cost": money(state.hourly_micros),
            "forecast": None if state.forecast is None else _forecast(state.forecast, state.currency),
            "run_out": None
            if state.run_out_earliest is None
            else RunOut(earliest=state.run_out_earliest, latest=state.run_out_latest),
            "basis": state.basis.rstrip(","),
            "alert_at": [format_share(share) for share in state.budget.alert_at],
            "reached": None if state.reached is None else format_share(state.reached),
            "conversions": list(state.conversions),
            "error": state.error,
            "words": state.words,
        }
    )


def _forecast(forecast: Forecast, currency: str) -> ForecastAnswer:
    def money(micros: int) -> Money:
        return Money(amount_micros=micros, currency=currency)

    return ForecastAnswer(
        low=money(forecast.low_micros),
        high=money(forecast.high_micros),
        miss_by_low=money(forecast.miss_low_micros),
        miss_by_high=money(forecast.miss_high_micros),
    )
