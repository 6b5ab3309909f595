"""The meter's intervals as rows: opened and closed only by change, summed exactly."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ColumnElement, exists
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from service.model import Interval, MeterChange
from service.store.tables import MeterInterval, Resource


def latest(session: Session) -> dict[str, Interval]:
    """The last interval, open or closed, of each resource that is still there."""
    is_open = col(MeterInterval.ended_at).is_(None)
    running = exists().where(col(MeterInterval.resource_id) == col(Resource.id), is_open)
    return _read(session, is_open) | _last(session, col(Resource.ended_at).is_(None), ~running)


def latest_of(session: Session, resource_ids: Iterable[str]) -> dict[str, Interval]:
    """The last interval of each of these, there or not."""
    return _last(session, col(Resource.id).in_(list(resource_ids)))


def _last(session: Session, *which: ColumnElement[bool]) -> dict[str, Interval]:
    newest = (
        columns(col(MeterInterval.id))
        .where(col(MeterInterval.resource_id) == col(Resource.id))
        .order_by(col(MeterInterval.started_at).desc(), col(MeterInterval.id).desc())
        .limit(1)
        .scalar_subquery()
    )
    return _read(session, col(MeterInterval.id).in_(columns(newest).where(*which)))


def _read(session: Session, which: ColumnElement[bool]) -> dict[str, Interval]:
    rows = session.connection().execute(columns(*_COLUMNS).where(which))
    return {row.resource_id: Interval(**dict(zip(_FIELDS, row, strict=True))) for row in rows}


def apply(session: Session, changes: Iterable[MeterChange]) -> None:
    """Close and open as the meter said."""
    changes = list(changes)
    closing = {change.resource_id: change for change in changes if change.closes}
    if closing:
        rows = session.exec(
            select(MeterInterval).where(
                col(MeterInterval.ended_at).is_(None), col(MeterInterval.resource_id).in_(list(closing))
            )
        )
        for row in rows:
            row.ended_at = closing[row.resource_id].at
            session.add(row)
        session.flush()  # the one-open-interval index must see the close before the next open
    session.add_all(_row_of(interval) for change in changes for interval in change.opened)


_FIELDS = tuple(Interval.__dataclass_fields__)
_COLUMNS = tuple(col(getattr(MeterInterval, name)) for name in _FIELDS)


def _row_of(interval: Interval) -> MeterInterval:
    return MeterInterval(**{name: getattr(interval, name) for name in _FIELDS})
