"""What was spent, summed from the meter's intervals: any window's exact cost, by who and for what. Nothing is written.

However a window, its days or its kinds of cost are split, the parts add up to the whole, because each interval's cost
is the difference of one cumulative integer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from sqlalchemy import CTE, BigInteger, ColumnElement, case, func, literal, or_
from sqlalchemy import select as columns
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, col, select

from service.days import days_in
from service.model import BudgetKey, Spent, Window
from service.money import SECONDS_PER_HOUR, window_cost
from service.store.tables import MeterInterval, Resource

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Before anything was metered."""
LAST_DAY, LAST_WEEK = timedelta(hours=24), timedelta(days=7)


class By(StrEnum):
    """What a project's spend may be broken down by."""

    DAY = "day"
    PROVIDER = "provider"
    GPU_MODEL = "gpu_model"
    CAPACITY_TYPE = "capacity_type"
    ACTIVITY = "activity"
    RESOURCE = "resource"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metered:
    """One interval that cost something, with what it may be broken down by."""

    project: str | None
    resource: str
    name: str
    provider: str
    gpu_model: str
    capacity_type: str
    activity: str
    assumed: bool
    currency: str
    base: int
    rate_micros: int
    started_at: datetime
    ended_at: datetime

    def cost(self, start: datetime, end: datetime) -> int:
        """Micro-units of its part in [start, end)."""
        return window_cost(self.base, self.rate_micros, self.started_at, self.ended_at, start, end)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A sum in one currency."""

    micros: int = 0
    assumed_micros: int = 0
    """How much of it nobody saw."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(micros=self.micros + other.micros, assumed_micros=self.assumed_micros + other.assumed_micros)


Group = tuple[str, ...]
"""What was asked to be told apart, in the order asked for."""


def metered(
    session: Session, *, now: datetime, projects: Collection[str] | None, start: datetime = BEGINNING
) -> Iterator[Metered]:
    """Every interval since `start` that cost something; `projects` None: of everybody.

    Of a resource that is missing it is not known whether it still costs anything; it counts until it went missing.
    """
    statement = (
        select(  # type: ignore[call-overload]  # SQLModel's overloads end at four columns
            MeterInterval.project,
            MeterInterval.resource_id,
            Resource.name,
            Resource.provider,
            Resource.gpu_model,
            MeterInterval.capacity_type,
            MeterInterval.activity,
            MeterInterval.assumed,
            MeterInterval.currency,
            MeterInterval.base,
            MeterInterval.rate_micros,
            MeterInterval.started_at,
            MeterInterval.ended_at,
            Resource.missing_since,
        )
        .join(Resource, col(Resource.id) == col(MeterInterval.resource_id))
        .where(
            col(MeterInterval.rate_micros) > 0,
            or_(col(MeterInterval.ended_at).is_(None), col(MeterInterval.ended_at) > start),
        )
    )
    if projects is not None:
        statement = statement.where(col(MeterInterval.project).in_(projects))
    for row in session.exec(statement):
        yield Metered(
            project=row.project,
            resource=row.resource_id,
            name=row.name,
            provider=row.provider,
            gpu_model=row.gpu_model or "",
            capacity_type=row.capacity_type,
            activity=row.activity,
            assumed=row.assumed,
            currency=row.currency,
            base=row.base,
            rate_micros=row.rate_micros,
            started_at=row.started_at,
            ended_at=row.ended_at or row.missing_since or now,
        )


def sums(
    rows: Iterable[Metered], by: Sequence[By], start: datetime, end: datetime, zone: tzinfo
) -> dict[tuple[Group, str], Cost]:
    """(group, currency) → cost in [start, end). Days are those of the zone."""
    found: dict[tuple[Group, str], Cost] = {}
    for row in rows:
        first, last = max(start, row.started_at), min(end, row.ended_at)
        parts = days_in(first, last, zone) if By.DAY in by else ((None, first, last),)
        for day, begins, ends in parts:
            micros = row.cost(begins, ends)
            if micros:
                group = tuple(_label(row, one, day) for one in by)
                cost = Cost(micros=micros, assumed_micros=micros if row.assumed else 0)
                found[group, row.currency] = found.get((group, row.currency), Cost()) + cost
    return found


def _label(row: Metered, by: By, day: date | None) -> str:
    if by is By.DAY:
        return "" if day is None else day.isoformat()
    return str(getattr(row, by.value))


# --- the same, summed by the database: what every cycle asks ----------------------------------------------------------


class _epoch(FunctionElement[int]):  # noqa: N801 - it stands for a function of the database
    """A moment as whole Unix seconds, on both databases."""

    type = BigInteger()
    inherit_cache = True


@compiles(_epoch, "sqlite")
def _sqlite_epoch(element: _epoch, compiler: SQLCompiler, **more: Any) -> str:
    return f"unixepoch({compiler.process(element.clauses, **more)})"


@compiles(_epoch, "postgresql")
def _postgresql_epoch(element: _epoch, compiler: SQLCompiler, **more: Any) -> str:
    return f"CAST(floor(extract(epoch FROM {compiler.process(element.clauses, **more)})) AS BIGINT)"


def _intervals(now: datetime, *, project: str | None = None, start: datetime = BEGINNING) -> CTE:
    """Like `metered`, inside the database."""
    ended = func.coalesce(_epoch(MeterInterval.ended_at), _epoch(Resource.missing_since), _whole(now))
    statement = (
        columns(
            col(MeterInterval.project),
            col(Resource.provider),
            func.coalesce(Resource.gpu_model, "").label("gpu_model"),
            col(MeterInterval.capacity_type),
            col(MeterInterval.activity),
            col(MeterInterval.assumed),
            col(MeterInterval.currency),
            col(MeterInterval.base),
            col(MeterInterval.rate_micros),
            _epoch(MeterInterval.started_at).label("began"),
            ended.label("ended"),
        )
        .join(Resource, col(Resource.id) == col(MeterInterval.resource_id))
        .where(
            col(MeterInterval.rate_micros) > 0,
            or_(col(MeterInterval.ended_at).is_(None), col(MeterInterval.ended_at) > start),
        )
    )
    if project is not None:
        statement = statement.where(col(MeterInterval.project) == project)
    return statement.cte("metered").prefix_with("MATERIALIZED")  # else each use of a column is worked out anew


def _whole(at: datetime) -> ColumnElement[int]:
    return literal(int(at.timestamp()), BigInteger())


def _cost(rows: CTE, start: datetime, end: datetime) -> ColumnElement[int]:
    """Micro-units of each interval's part in [start, end): `window_cost`, word for word."""
    first = case((rows.c.began < _whole(start), _whole(start)), else_=rows.c.began)
    last = case((rows.c.ended > _whole(end), _whole(end)), else_=rows.c.ended)

    def reached(at: ColumnElement[int]) -> ColumnElement[int]:
        micros: ColumnElement[int] = (rows.c.base + rows.c.rate_micros * (at - rows.c.began)) // SECONDS_PER_HOUR
        return micros

    return case((last > first, reached(last) - reached(first)), else_=0)


def metered_by_kind(
    session: Session, now: datetime
) -> Iterator[tuple[tuple[str | None, str, str, str, str, str], int]]:
    """(project, provider, gpu model, capacity type, currency, activity) → micro-units metered until now."""
    rows = _intervals(now)
    kinds = [rows.c[name] for name in ("project", "provider", "gpu_model", "capacity_type", "currency", "activity")]
    statement = columns(*kinds, func.sum(_cost(rows, BEGINNING, now))).group_by(*kinds)
    for *kind, micros in session.connection().execute(statement):
        yield tuple(kind), int(micros)


def spent(session: Session, windows: Mapping[BudgetKey, Window], now: datetime) -> dict[BudgetKey, Spent]:
    """What each spend budget needs to know."""
    return {(project, name): _spent(session, project, window, now) for (project, name), window in windows.items()}


def _spent(session: Session, project: str, window: Window, now: datetime) -> Spent:
    end = now if window.end is None else min(now, window.end)
    rows = _intervals(now, project=project, start=min(window.start, now - LAST_WEEK))
    asked = [(window.start, end), (now - LAST_DAY, now), (now - LAST_WEEK, now)]
    statement = columns(
        rows.c.currency, rows.c.assumed, *(func.sum(_cost(rows, first, last)) for first, last in asked)
    ).group_by(rows.c.currency, rows.c.assumed)
    period: Counter[str] = Counter()
    assumed: Counter[str] = Counter()
    last_day: Counter[str] = Counter()
    last_week: Counter[str] = Counter()
    for currency, nobody_looked, *found in session.connection().execute(statement):
        in_period, in_day, in_week = (int(micros) for micros in found)
        period[currency] += in_period
        last_day[currency] += in_day
        last_week[currency] += in_week
        if nobody_looked:
            assumed[currency] += in_period
    own = period.pop(window.currency, 0)
    return Spent(
        since=_first_metered(session, project),
        own=own,
        foreign=_by_day(session, project, window, end) if +period else {},
        assumed=+assumed,
        last_day=+last_day,
        last_week=+last_week,
    )


def _by_day(session: Session, project: str, window: Window, end: datetime) -> dict[tuple[date, str], int]:
    """What was spent in other currencies than the budget's, by day: each has its own rate."""
    rows = metered(session, now=end, projects=[project], start=window.start)
    foreign = (row for row in rows if row.currency != window.currency)
    return {
        (date.fromisoformat(day), currency): cost.micros
        for ((day,), currency), cost in sums(foreign, [By.DAY], window.start, end, window.zone).items()
    }


def _first_metered(session: Session, project: str) -> datetime | None:
    first = select(func.min(MeterInterval.started_at)).where(col(MeterInterval.project) == project)
    return session.exec(first).one()


def hourly(session: Session, project: str) -> dict[str, int]:
    """Currency → what an hour costs just now."""
    rows = session.exec(
        select(Resource.currency, func.sum(Resource.rate_micros))
        .where(
            Resource.project == project,
            col(Resource.ended_at).is_(None),
            col(Resource.orphaned_at).is_(None),
            col(Resource.rate_micros) > 0,
        )
        .group_by(col(Resource.currency))
    )
    return {currency: int(micros) for currency, micros in rows if currency is not None and micros is not None}
