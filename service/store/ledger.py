"""The meter's intervals as rows: opened and closed only by change, summed exactly.

Who remembers them follows what changes: resources carry the revision of their writing, new intervals a higher number
than all before them, and one that ended without either is missed in how many are open. It does not matter who wrote.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from sys import intern
from typing import Any

from sqlalchemy import ColumnElement, bindparam, exists, func, insert, or_, update
from sqlalchemy import select as columns
from sqlmodel import Session, col

from service.model import Interval, MeterChange
from service.money import SECONDS_PER_HOUR, cumulative
from service.store.tables import MeterInterval, Resource

AT_ONCE = 1000
"""Rows read or written in one go."""
NOTHING = -1


@dataclass(kw_only=True)
class Latest:
    """Each resource's last interval as it was read; it may be forgotten at any time, and then all are read again."""

    revision: int = NOTHING
    last: int = NOTHING
    intervals: Mapping[str, Interval] = field(default_factory=dict, repr=False)
    """Never changed but replaced: others hold it too."""

    def follow(self, session: Session) -> Mapping[str, Interval]:
        """As they are now; only what changed is read."""
        revision, last = newest(session)  # before the rows: what is written meanwhile is read once more the next time
        if NOTHING in (self.revision, self.last) or revision < self.revision or last < self.last:
            self.intervals = latest(session)
        else:
            self._read(session)
            still_open = sum(interval.ended_at is None for interval in self.intervals.values())
            if still_open != how_many_open(session):  # one has ended, and nothing told of it
                self.intervals = latest(session)
        self.revision, self.last = revision, last
        return self.intervals

    def _read(self, session: Session) -> None:
        which = changed_since(self.revision, self.last)
        changed = set(session.connection().execute(columns(col(Resource.id)).where(which)).scalars())
        if changed:
            others = {id: interval for id, interval in self.intervals.items() if id not in changed}
            self.intervals = others | latest(session, which)


def newest(session: Session) -> tuple[int, int]:
    """The newest revision and the newest interval."""
    newest = (func.max(Resource.revision), func.max(MeterInterval.id))
    asked: Any = columns(*(func.coalesce(columns(one).scalar_subquery(), NOTHING) for one in newest))
    revision, last = session.connection().execute(asked).one()
    return revision, last


def changed_since(revision: int, last: int) -> ColumnElement[bool]:
    """Resources written since, and those with intervals made since."""
    made = columns(col(MeterInterval.resource_id)).where(col(MeterInterval.id) > last)
    return or_(col(Resource.revision) > revision, col(Resource.id).in_(made))


def how_many_open(session: Session) -> int:
    by_index = col(MeterInterval.resource_id) > ""  # else SQLite reads all there ever were
    asked = columns(func.count()).where(by_index, col(MeterInterval.ended_at).is_(None))
    return session.connection().execute(asked).scalar_one()


def latest(session: Session, *which: ColumnElement[bool]) -> dict[str, Interval]:
    """The last interval of each resource, if it is open or the resource still there."""
    is_open = col(MeterInterval.ended_at).is_(None)
    of_these = [col(MeterInterval.resource_id).in_(columns(col(Resource.id)).where(*which))] if which else []
    running = exists().where(col(MeterInterval.resource_id) == col(Resource.id), is_open)
    return _read(session, is_open, *of_these) | _last(session, col(Resource.ended_at).is_(None), ~running, *which)


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


def _read(session: Session, *which: ColumnElement[bool]) -> dict[str, Interval]:
    rows = session.connection().execute(columns(*_COLUMNS).where(*which), execution_options={"yield_per": AT_ONCE})
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
    values |= {name: _once(values[name]) for name in ("started_at", "rate_micros")}
    return Interval(**values)


@lru_cache(maxsize=4096)
def _once(value: Hashable) -> Hashable:
    """Many begin at the same moment, and there are few rates."""
    return value


def _row_of(interval: Interval) -> dict[str, Any]:
    base, rest = divmod(interval.base, SECONDS_PER_HOUR)
    values = {name: getattr(interval, name) for name in _FIELDS}
    return values | {"base": base, "base_rest": rest, "summed": False}
