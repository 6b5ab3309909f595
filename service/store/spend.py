"""What was spent, summed from the meter's intervals: any window's exact cost, by who and for what. Nothing is written.

However a window, its days or its kinds of cost are split, the parts add up to the whole, because each interval's cost
is the difference of one cumulative integer. What every cycle asks is read from the sums of ended intervals
(`service.store.sums`) and from the intervals that are in no sum yet: it comes to the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, and_, case, func, literal_column, or_, text
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from providers.records import State
from service.days import day_of, days_in
from service.model import BudgetKey, Spent, Window
from service.money import cumulative, window_cost
from service.store.database import epoch, micros_after, whole
from service.store.open_intervals import Kind, OpenIntervals
from service.store.sums import BEGINNING, counted, there
from service.store.tables import MeterInterval, MeterSum, Resource

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
    """One interval that cost something, or what is left of several of one day, with what it may be broken down by."""

    project: str | None
    resource: str
    """Empty: of that day nobody knows any more which ones they were."""
    name: str | None
    """None when it is another project's by now."""
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
    rolled_up: int | None = None
    """Of a day that is all that is left: what it cost. It counts where the day begins."""

    def cost(self, start: datetime, end: datetime) -> int:
        """Micro-units of its part in [start, end)."""
        if self.rolled_up is not None:
            return self.rolled_up if start <= self.started_at < end else 0
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
    session: Session, *, now: datetime, projects: Collection[str], start: datetime = BEGINNING
) -> Iterator[Metered]:
    """Every interval of these projects since `start` that cost something, and the days that are left of older ones.

    Of a resource that is missing it is not known whether it still costs anything; it counts until it went missing.
    """
    for project in projects:
        yield from _of_intervals(session, now, project, start)
        yield from _rolled_up(session, project, start)


def _rolled_up(session: Session, project: str, start: datetime) -> Iterator[Metered]:
    since = max(start, BEGINNING)
    days = select(MeterSum).where(
        MeterSum.project == project, col(MeterSum.rolled_up_micros) > 0, col(MeterSum.ended_at) > since
    )
    for day in session.exec(days):
        yield Metered(
            project=project,
            resource="",
            name=None,
            provider=day.provider,
            gpu_model=day.gpu_model,
            capacity_type=day.capacity_type,
            activity=day.activity,
            assumed=day.assumed,
            currency=day.currency,
            base=0,
            rate_micros=0,
            started_at=day.started_at,
            ended_at=day.ended_at,
            rolled_up=day.rolled_up_micros,
        )


def _of_intervals(
    session: Session, now: datetime, project: str, start: datetime, *, unsummed: bool = False
) -> Iterator[Metered]:
    statement = (
        select(  # type: ignore[call-overload]  # SQLModel's overloads end at four columns
            MeterInterval.project,
            MeterInterval.resource_id,
            Resource.name,
            col(Resource.project).label("project_now"),
            Resource.provider,
            Resource.gpu_model,
            MeterInterval.capacity_type,
            MeterInterval.activity,
            MeterInterval.assumed,
            MeterInterval.currency,
            MeterInterval.base,
            MeterInterval.base_rest,
            MeterInterval.rate_micros,
            MeterInterval.started_at,
            MeterInterval.ended_at,
            Resource.missing_since,
        )
        .join(Resource, col(Resource.id) == col(MeterInterval.resource_id))
        .where(_asked_for(project, start, unsummed=unsummed))
    )
    for row in session.exec(statement):
        yield Metered(
            project=row.project,
            resource=row.resource_id,
            name=row.name if row.project_now == row.project else None,
            provider=row.provider,
            gpu_model=row.gpu_model or "",
            capacity_type=row.capacity_type,
            activity=row.activity,
            assumed=row.assumed,
            currency=row.currency,
            base=cumulative(row.base, row.base_rest),
            rate_micros=row.rate_micros,
            started_at=row.started_at,
            ended_at=row.ended_at or row.missing_since or now,
        )


def _asked_for(project: str, start: datetime, *, unsummed: bool = False) -> ColumnElement[bool]:
    """A project's intervals that cost something since `start`."""
    wanted = [counted(), col(MeterInterval.rate_micros) > 0, col(MeterInterval.project) == project]
    if start > BEGINNING:
        wanted.append(or_(col(MeterInterval.ended_at).is_(None), col(MeterInterval.ended_at) > start))
    if unsummed:
        wanted.append(~col(MeterInterval.summed))
    return and_(*wanted)


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


def _intervals(now: datetime, *which: ColumnElement[bool]) -> CTE:
    """Like `metered`, inside the database."""
    ended = func.coalesce(epoch(MeterInterval.ended_at), epoch(Resource.missing_since), whole(now))
    statement = (
        columns(
            col(MeterInterval.project),
            col(Resource.provider),
            col(Resource.gpu_model),
            col(MeterInterval.capacity_type),
            col(MeterInterval.activity),
            col(MeterInterval.assumed),
            col(MeterInterval.currency),
            col(MeterInterval.base_rest),
            col(MeterInterval.rate_micros),
            epoch(MeterInterval.started_at).label("began"),
            ended.label("ended"),
        )
        .join(Resource, col(Resource.id) == col(MeterInterval.resource_id))
        .where(*which)
    )
    return statement.cte("metered").prefix_with("MATERIALIZED")  # else each use of a column is worked out anew


def _cost(rows: CTE, start: datetime, end: datetime) -> ColumnElement[int]:
    """Micro-units of each interval's part in [start, end): `window_cost`, word for word."""
    first = case((rows.c.began < whole(start), whole(start)), else_=rows.c.began)
    last = case((rows.c.ended > whole(end), whole(end)), else_=rows.c.ended)

    def reached(at: ColumnElement[int]) -> ColumnElement[int]:
        return micros_after(rows.c.rate_micros, at - rows.c.began, rest=rows.c.base_rest)

    return case((last > first, reached(last) - reached(first)), else_=0)


def metered_by_kind(session: Session, now: datetime, opened: OpenIntervals | None = None) -> Counter[Kind]:
    """(project, provider, gpu model, capacity type, currency, activity) → micro-units metered until now."""
    opened = opened or OpenIntervals()
    opened.follow(session)
    is_open = col(MeterInterval.ended_at).is_(None)
    ended = ~is_open & ~col(MeterInterval.summed)
    found = _of_kinds(session, now, ended)
    if opened.newest <= now.timestamp():
        found.update(opened.micros(now))
    else:  # a clock was set back
        opened.forget()
        found.update(_of_kinds(session, now, is_open))
    days = {name: col(getattr(MeterSum, name)) for name in _KIND}
    found.update(_by_kind(session, days, col(MeterSum.micros), col(MeterSum.started_at) == BEGINNING))
    return found


def _of_kinds(session: Session, now: datetime, which: ColumnElement[bool]) -> Counter[Kind]:
    rows = _intervals(now, which, counted(), col(MeterInterval.rate_micros) > 0)
    return Counter(_by_kind(session, dict(rows.c), _cost(rows, BEGINNING, now)))


_KIND = ("project", "provider", "gpu_model", "capacity_type", "currency", "activity")
_BETWEEN = "\x1f"


def _by_kind(session: Session, of: Mapping[str, Any], micros: Any, *which: ColumnElement[bool]) -> dict[Kind, int]:
    """Grouped by one text: SQLite sorts to group, and to sort by six of them costs twice as much."""
    between: ColumnElement[str] = literal_column(f"'{_BETWEEN}'")
    first, *others = (func.coalesce(of[name], "") for name in _KIND)
    what: Any = first
    for other in others:
        what = what + between + other
    rows = session.connection().execute(
        columns(what.label("what"), func.sum(micros)).where(*which).group_by(text("what"))
    )
    return {_kind(*what.split(_BETWEEN)): int(sum_) for what, sum_ in rows}


def _kind(project: str, *rest: str) -> Kind:
    provider, gpu_model, capacity_type, currency, activity = rest
    return project or None, provider, gpu_model, capacity_type, currency, activity


@dataclass(kw_only=True)
class Paces:
    """How fast projects spent, as of the last full hour: every cycle of that hour goes by it. It may be forgotten."""

    hour: datetime | None = None
    by_project: dict[str, Spent] = field(default_factory=dict)

    def of(self, session: Session, project: str, now: datetime) -> Spent:
        """What a project spent in its last day and week, the same for all its spend budgets. With a week behind it, to
        the full hour: to read a week of a large fleet takes seconds.
        """
        hour = now.replace(minute=0, second=0, microsecond=0)
        if hour != self.hour:
            self.hour, self.by_project = hour, {}
        since = _first_metered(session, project)
        if since is None or since > hour - LAST_WEEK:
            return _pace(session, project, since, now)
        if project not in self.by_project:
            self.by_project[project] = _pace(session, project, since, hour)
        return self.by_project[project]


def spent(
    session: Session, windows: Mapping[BudgetKey, Window], now: datetime, paces: Paces | None = None
) -> dict[BudgetKey, Spent]:
    """What each spend budget needs to know."""
    paces = paces or Paces()
    pace = {project: paces.of(session, project, now) for project in {project for project, _ in windows}}
    return {
        (project, name): replace(pace[project], **_period(session, project, window, now))
        for (project, name), window in windows.items()
    }


def _pace(session: Session, project: str, since: datetime | None, now: datetime) -> Spent:
    rows = _intervals(now, _asked_for(project, now - LAST_WEEK))
    day, week = (func.sum(_cost(rows, now - length, now)) for length in (LAST_DAY, LAST_WEEK))
    found = session.connection().execute(columns(rows.c.currency, day, week).group_by(rows.c.currency)).all()
    return Spent(
        since=since,
        last_day=+Counter({currency: int(in_day) for currency, in_day, _ in found}),
        last_week=+Counter({currency: int(in_week) for currency, _, in_week in found}),
    )


def unpriced(session: Session, project: str) -> int:
    """How many of a project's resources run without a price that anybody knows: they are in no sum."""
    return session.exec(
        select(func.count()).where(
            Resource.project == project,
            counted(),
            Resource.state == State.RUNNING,
            col(Resource.running_rate_micros).is_(None),
            there(),
        )
    ).one()


def _first_metered(session: Session, project: str) -> datetime | None:
    interval = select(func.min(MeterInterval.started_at)).where(col(MeterInterval.project) == project)
    day = select(func.min(MeterSum.started_at)).where(MeterSum.project == project, col(MeterSum.started_at) > BEGINNING)
    found = (session.exec(interval).one(), session.exec(day.where(col(MeterSum.rolled_up_micros) > 0)).one())
    return min((moment for moment in found if moment is not None), default=None)


def _period(session: Session, project: str, window: Window, now: datetime) -> dict[str, Any]:
    """What a project spent in the window."""
    end = now if window.end is None else min(now, window.end)
    summed = not _cuts_a_day(session, project, window)
    rows = _intervals(now, _asked_for(project, window.start, unsummed=summed))
    cost = func.sum(_cost(rows, window.start, end))
    found: Counter[tuple[str, bool]] = Counter()
    grouped = columns(rows.c.currency, rows.c.assumed, cost).group_by(rows.c.currency, rows.c.assumed)
    for currency, assumed, micros in session.connection().execute(grouped):
        found[currency, bool(assumed)] += int(micros)
    days = _days(project, window, MeterSum.micros if summed else MeterSum.rolled_up_micros)
    foreign: Counter[tuple[date, str]] = Counter()
    for began, currency, assumed, micros in session.connection().execute(days):
        found[currency, bool(assumed)] += int(micros)
        if currency != window.currency:
            foreign[day_of(began, window.zone), currency] += int(micros)
    if any(currency != window.currency and micros for (currency, _), micros in found.items()):
        foreign += _foreign_by_day(session, project, window, end, unsummed=summed)
    own = sum(micros for (currency, _), micros in found.items() if currency == window.currency)
    assumed_sums = +Counter({currency: micros for (currency, assumed), micros in found.items() if assumed})
    return {"own": own, "foreign": dict(+foreign), "assumed": assumed_sums}


def _cuts_a_day(session: Session, project: str, window: Window) -> bool:
    """Does the window begin or end within a day that was summed, as when the project's zone was another one then?"""
    edges = [edge for edge in (window.start, window.end) if edge is not None and edge > BEGINNING]
    within = [and_(col(MeterSum.started_at) < edge, col(MeterSum.ended_at) > edge) for edge in edges]
    if not within:
        return False
    cut = select(MeterSum.id).where(MeterSum.project == project, or_(*within))
    return session.exec(cut.limit(1)).first() is not None


def _days(project: str, window: Window, micros: Any) -> Select[Any]:
    """The sums of days that begin in the window: when, currency, assumed, micro-units."""
    what = (col(MeterSum.started_at), col(MeterSum.currency), col(MeterSum.assumed))
    begin_in = [col(MeterSum.project) == project, col(MeterSum.started_at) >= window.start]
    begin_in.append(col(MeterSum.started_at) > BEGINNING)
    if window.end is not None:
        begin_in.append(col(MeterSum.started_at) < window.end)
    return columns(*what, func.sum(micros)).where(*begin_in).group_by(*what)


def _foreign_by_day(
    session: Session, project: str, window: Window, end: datetime, *, unsummed: bool
) -> Counter[tuple[date, str]]:
    """What intervals cost in other currencies than the budget's, by day: each has its own rate."""
    rows = _of_intervals(session, end, project, window.start, unsummed=unsummed)
    foreign = (row for row in rows if row.currency != window.currency)
    found = sums(foreign, [By.DAY], window.start, end, window.zone)
    return Counter({(date.fromisoformat(day), currency): cost.micros for ((day,), currency), cost in found.items()})


def hourly(session: Session, project: str) -> dict[str, int]:
    """Currency → what an hour costs just now."""
    rows = session.exec(
        select(Resource.currency, func.sum(Resource.rate_micros))
        .where(
            Resource.project == project,
            counted(),
            there(),
            col(Resource.rate_micros) > 0,
        )
        .group_by(col(Resource.currency))
    )
    return {currency: int(micros) for currency, micros in rows if currency is not None and micros is not None}
