"""The meter's intervals as rows: opened and closed only by change, summed exactly."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.model import Interval, MeterChange
from service.store.tables import MeterInterval


def latest(session: Session) -> dict[str, Interval]:
    """Each resource's last interval, open or closed."""
    newest = select(func.max(MeterInterval.id)).group_by(col(MeterInterval.resource_id))
    rows = session.exec(select(MeterInterval).where(col(MeterInterval.id).in_(newest))).all()
    return {row.resource_id: interval_of(row) for row in rows}


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


def interval_of(row: MeterInterval) -> Interval:
    return Interval(
        resource_id=row.resource_id,
        project=row.project,
        state=row.state,
        capacity_type=row.capacity_type,
        activity=row.activity,
        assumed=row.assumed,
        rate_micros=row.rate_micros,
        currency=row.currency,
        price_source=row.price_source,
        started_at=row.started_at,
        base=row.base,
        ended_at=row.ended_at,
    )


def _row_of(interval: Interval) -> MeterInterval:
    return MeterInterval(
        resource_id=interval.resource_id,
        project=interval.project,
        state=interval.state,
        capacity_type=interval.capacity_type,
        activity=interval.activity,
        assumed=interval.assumed,
        rate_micros=interval.rate_micros,
        currency=interval.currency,
        price_source=interval.price_source,
        started_at=interval.started_at,
        ended_at=interval.ended_at,
        base=interval.base,
    )
