"""The meter's intervals as rows: opened and closed only by change, summed exactly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from sys import intern
from typing import Any

from sqlalchemy import ColumnElement, bindparam, exists, insert, update
from sqlalchemy import select as columns
from sqlmodel import Session, col

from service.model import Interval, MeterChange
from service.money import SECONDS_PER_HOUR, cumulative
from service.store.tables import MeterInterval, Resource

AT_ONCE = 1000
"""Rows read or written in one go."""


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
    rows = session.connection().execute(columns(*_COLUMNS).where(which), execution_options={"yield_per": AT_ONCE})
    return {interval.resource_id: interval for interval in map(_interval_of, rows)}


def apply(session: Session, changes: Iterable[MeterChange]) -> None:
    """Close and open as the meter said: first all closing, for a resource has one open interval at most."""
    changes = list(changes)
    closing = [{"of": change.resource_id, "at": change.at} for change in changes if change.closes]
    if closing:
        is_open = (col(MeterInterval.resource_id) == bindparam("of")) & col(MeterInterval.ended_at).is_(None)
        session.connection().execute(update(MeterInterval).where(is_open).values(ended_at=bindparam("at")), closing)
    opening = (_row_of(interval) for change in changes for interval in change.opened)
    while some := list(islice(opening, AT_ONCE)):
        session.connection().execute(insert(MeterInterval), some)


_FIELDS = tuple(Interval.__dataclass_fields__)
_COLUMNS = tuple(col(getattr(MeterInterval, name)) for name in (*_FIELDS, "base_rest"))


def _interval_of(row: Any) -> Interval:
    """Its words once for a whole fleet, its resource's id as everybody else has it."""
    values: dict[str, Any] = {
        name: intern(value) if type(value) is str else value for name, value in row._mapping.items()
    }
    values["base"] = cumulative(values["base"], values.pop("base_rest"))
    return Interval(**values)


def _row_of(interval: Interval) -> dict[str, Any]:
    base, rest = divmod(interval.base, SECONDS_PER_HOUR)
    values = {name: getattr(interval, name) for name in _FIELDS}
    return values | {"base": base, "base_rest": rest, "summed": False}
