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

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from service.days import days_in
from service.model import BudgetKey, Spent, Window
from service.money import interval_cost, whole_seconds, window_cost
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

    @property
    def whole_cost(self) -> int:
        """Micro-units from its beginning to its end."""
        return interval_cost(self.base, self.rate_micros, whole_seconds(self.started_at, self.ended_at))


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


def spent(session: Session, windows: Mapping[BudgetKey, Window], now: datetime) -> dict[BudgetKey, Spent]:
    """What each spend budget needs to know, in one reading."""
    projects = {project for project, _ in windows}
    if not projects:
        return {}
    earliest = min(now - LAST_WEEK, *(window.start for window in windows.values()))
    by_project: dict[str | None, list[Metered]] = {}
    for row in metered(session, now=now, projects=projects, start=earliest):
        by_project.setdefault(row.project, []).append(row)
    since = {project: _first_metered(session, project) for project in projects}
    return {key: _spent(by_project.get(key[0], []), window, since[key[0]], now) for key, window in windows.items()}


def _spent(rows: Sequence[Metered], window: Window, since: datetime | None, now: datetime) -> Spent:
    end = now if window.end is None else min(now, window.end)
    foreign: Counter[tuple[date, str]] = Counter()
    assumed: Counter[str] = Counter()
    last_day: Counter[str] = Counter()
    last_week: Counter[str] = Counter()
    own = 0
    for row in rows:
        micros = row.cost(window.start, end)
        last_day[row.currency] += row.cost(now - LAST_DAY, now)
        last_week[row.currency] += row.cost(now - LAST_WEEK, now)
        if row.assumed:
            assumed[row.currency] += micros
        if row.currency == window.currency:
            own += micros
        elif micros:
            first, last = max(window.start, row.started_at), min(end, row.ended_at)
            for day, begins, ends in days_in(first, last, window.zone):
                foreign[day, row.currency] += row.cost(begins, ends)
    return Spent(since=since, own=own, foreign=+foreign, assumed=+assumed, last_day=+last_day, last_week=+last_week)


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
