"""Cycles as rows: what each step did and how long it took, for the person who asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, select

from service.store.tables import Cycle, SourceState


def start(session: Session, *, cycle_id: str, requested_by: str, now: datetime) -> None:
    session.merge(Cycle(id=cycle_id, started_at=now, requested_by=requested_by))


def finish(
    session: Session, cycle_id: str, *, steps: list[Any], sources: list[Any], error: str | None, now: datetime
) -> None:
    row = session.get(Cycle, cycle_id)
    if row is None:
        return
    row.finished_at, row.steps, row.sources, row.error = now, steps, sources, error
    session.add(row)


def last(session: Session) -> Cycle | None:
    return session.exec(select(Cycle).order_by(col(Cycle.started_at).desc()).limit(1)).first()


def last_look(session: Session) -> datetime | None:
    """When the newest cycle that came to its end without an error looked at everything."""
    sound = select(Cycle.started_at).where(col(Cycle.finished_at).is_not(None), col(Cycle.error).is_(None))
    return session.exec(sound.order_by(col(Cycle.started_at).desc()).limit(1)).first()


def last_successes(session: Session) -> Mapping[str, datetime | None]:
    """Source → when it last told all there is."""
    return {row.source: row.succeeded_at for row in session.exec(select(SourceState))}
