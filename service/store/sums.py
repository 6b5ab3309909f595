"""Adds what ended intervals cost to the sums of their days, each once; and lets go of the intervals when they are old.

Reading is `service.store.spend`'s: whatever is in no sum yet it reads from the intervals, so that it does not matter
when they are summed. A sum is made of each interval's own whole micro-units, day by day on its project's clocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from providers.records import Kind
from service.days import day_start, days_in
from service.money import cumulative, window_cost
from service.store.database import add_up
from service.store.tables import Document, MeterInterval, MeterSum, Resource

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Before anything was metered. A sum from here to here is of all days together."""
KEY = ["project", "started_at", "ended_at", "provider", "gpu_model", "capacity_type", "activity", "assumed", "currency"]


def counted() -> ColumnElement[bool]:
    """Resources whose GPUs and cost add to sums; those of a group are its members' and counted with them."""
    return col(Resource.kind).not_in([kind.value for kind in Kind if not kind.counted])


def there() -> ColumnElement[bool]:
    """Resources that are judged: neither ended nor orphaned, and no second name of a machine."""
    return and_(col(Resource.ended_at).is_(None), col(Resource.orphaned_at).is_(None), col(Resource.same_as).is_(None))


UNUSED = ("idle", "unrequested")
"""Activities that are paid for nothing: idle GPUs, and what of a cluster's machines nobody requested."""


def sum_up(session: Session, *, at_most: int) -> int:
    """Add ended intervals that are in no sum yet to their days; how many there were."""
    rows = session.exec(
        select(MeterInterval)
        .where(~col(MeterInterval.summed), col(MeterInterval.ended_at).is_not(None))
        .limit(at_most)
        .with_for_update()
    ).all()
    _add(session, rows, "micros")
    ids = [row.id for row in rows]
    session.connection().execute(update(MeterInterval).where(col(MeterInterval.id).in_(ids)).values(summed=True))
    return len(rows)


def roll_up(session: Session, before: datetime, *, at_most: int) -> int:
    """Of what ended before, keep the days and let the intervals go; how many went.

    A resource that is still there keeps its last interval: the next one counts on from it. One that has been orphaned
    for as long is as good as gone.
    """
    later = aliased(MeterInterval)
    followed = exists().where(
        col(later.resource_id) == col(MeterInterval.resource_id), col(later.id) > col(MeterInterval.id)
    )
    there = exists().where(
        col(Resource.id) == col(MeterInterval.resource_id),
        col(Resource.ended_at).is_(None),
        or_(col(Resource.orphaned_at).is_(None), col(Resource.orphaned_at) >= before),
    )
    for project in _projects(session):
        old = select(MeterInterval).where(
            col(MeterInterval.project) == project if project else col(MeterInterval.project).is_(None),
            col(MeterInterval.ended_at) < before,
            col(MeterInterval.summed),
            or_(followed, ~there),
        )
        rows = session.exec(old.limit(at_most).with_for_update()).all()
        if rows:
            _add(session, rows, "rolled_up_micros")
            ids = [row.id for row in rows]
            session.connection().execute(delete(MeterInterval).where(col(MeterInterval.id).in_(ids)))
            return len(rows)
    return 0


def _projects(session: Session) -> Iterator[str | None]:
    """Whoever has intervals: from one to the next in the index, for there are few of them and many intervals."""
    yield None
    last = ""
    while found := session.exec(select(func.min(MeterInterval.project)).where(col(MeterInterval.project) > last)).one():
        yield found
        last = found


def _add(session: Session, rows: Iterable[MeterInterval], to: str) -> None:
    """Each day's part of each interval to that day's sum, and the whole to that of all days."""
    rows = [row for row in rows if row.rate_micros]
    zones = _zones(session)
    ids = {row.resource_id for row in rows}
    found = select(Resource.id, Resource.provider, Resource.gpu_model).where(col(Resource.id).in_(ids), counted())
    whats = {id: (provider, gpu_model or "") for id, provider, gpu_model in session.exec(found)}
    sums: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        if row.ended_at is None or row.resource_id not in whats:
            continue
        base = cumulative(row.base, row.base_rest)
        kind = (*whats[row.resource_id], row.capacity_type, row.activity, row.assumed, row.currency)
        project = row.project or ""
        for begins, ends, start, end in _days(row.started_at, row.ended_at, zones.get(project, UTC)):
            micros = window_cost(base, row.rate_micros, row.started_at, row.ended_at, start, end)
            if micros:
                sums[project, begins, ends, *kind] += micros
                sums[project, BEGINNING, BEGINNING, *kind] += micros
    add_up(session, MeterSum, to, sums, key=KEY)


def _zones(session: Session) -> dict[str, ZoneInfo]:
    """Project → on whose clocks its days are told."""
    rows = session.exec(select(Document).where(col(Document.kind) == "project"))
    return {row.name: ZoneInfo(str(row.body.get("timezone", "UTC"))) for row in rows}


def _days(start: datetime, end: datetime, zone: tzinfo) -> Iterator[tuple[datetime, datetime, datetime, datetime]]:
    """Each day that [start, end) touches: when it begins and ends, and the part of it that lies within."""
    for day, first, last in days_in(start, end, zone):
        yield day_start(day, zone), day_start(day + timedelta(days=1), zone), first, last
