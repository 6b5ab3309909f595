"""What all open intervals cost until now, to the last micro-unit, without reading them all again: only what changed is
read. What has ended is not its business; `service.store.spend` adds both up.

An open interval costs floor((rest + rate · (now - began)) / 3600). With `zero`, where its count would have stood at the
beginning of time, that is floor((zero + rate · now) / 3600): all of one rate are run on at once, and of each only
whether what it had left of a micro-unit makes one more by now.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import Any

from sqlalchemy import and_, func
from sqlalchemy import select as columns
from sqlmodel import Session, col

from service.money import SECONDS_PER_HOUR
from service.store.database import epoch
from service.store.ledger import NOTHING, changed_since, how_many_open, newest
from service.store.sums import counted
from service.store.tables import MeterInterval, Resource

Kind = tuple[str | None, str, str, str, str, str]
"""project, provider, gpu model, capacity type, currency, activity"""


@dataclass(kw_only=True)
class OpenIntervals:
    """Every open interval as it was last read; it may be forgotten at any time, and then all of them are read again."""

    revision: int = NOTHING
    last: int = NOTHING
    newest: int = 0
    """The latest moment, in Unix seconds, at which one of them began or its resource went missing."""
    lines: dict[str, _Line] = field(default_factory=dict, repr=False)
    """By resource, which has one open interval at most."""
    counts: dict[tuple[Kind, int], _Count] = field(default_factory=dict, repr=False)
    """By kind and rate."""

    def follow(self, session: Session) -> None:
        """Read what has changed since."""
        revision, last = newest(session)  # before the rows: what is written meanwhile is read once more the next time
        if revision < self.revision or last < self.last:  # another database than it was, or an older state of it
            self.forget()
        self._read(session)
        if how_many_open(session) != len(self.lines):  # one has ended, and nothing told of it
            self.forget()
            self._read(session)
        self.revision, self.last = revision, last

    def forget(self) -> None:
        self.revision = self.last = NOTHING
        self.newest = 0
        self.lines, self.counts = {}, {}

    def micros(self, now: datetime) -> Counter[Kind]:
        """What each kind costs until now, which is not before `newest`."""
        at = int(now.timestamp())
        found: Counter[Kind] = Counter()
        for (kind, rate), count in self.counts.items():
            found[kind] += count.micros_after(rate * at)
        return found

    def _read(self, session: Session) -> None:
        for id, is_open, counts, missing, rate, rest, began, *kind in _changed(session, self.revision, self.last):
            resource = intern(id)  # as everybody else has it
            if resource in self.lines:
                self._drop(*self.lines.pop(resource))
            if not is_open:
                continue
            self.newest = max(self.newest, began, missing or 0)
            if not (counts and rate):
                self.lines[resource] = None, 0
            elif missing is None:
                self._put(resource, (tuple(kind), rate), rest - rate * began)
            else:  # it counts until then, and has stood still since
                self._put(resource, (tuple(kind), 0), rest + rate * max(0, missing - began))

    def _put(self, resource: str, of: tuple[Kind, int], zero: int) -> None:
        count = self.counts.get(of) or self.counts.setdefault(of, _Count(of=of))
        count.add(zero, 1)
        self.lines[resource] = count, zero

    def _drop(self, count: _Count | None, zero: int) -> None:
        if count is not None:
            count.add(zero, -1)
            if not count.intervals:
                del self.counts[count.of]


@dataclass(kw_only=True, slots=True)
class _Count:
    """All open intervals of one kind and one rate, as they would have stood at the beginning of time."""

    of: tuple[Kind, int]
    intervals: int = 0
    micros: int = 0
    rests: dict[int, int] = field(default_factory=dict)
    """What was left of a micro-unit → in how many of them."""

    def add(self, zero: int, number: int) -> None:
        micros, rest = divmod(zero, SECONDS_PER_HOUR)
        self.intervals += number
        self.micros += number * micros
        self.rests[rest] = self.rests.get(rest, 0) + number

    def micros_after(self, run: int) -> int:
        """The floors of all of them, each by itself, once all have run on by so much."""
        micros, rest = divmod(run, SECONDS_PER_HOUR)
        carried = sum(number for left, number in self.rests.items() if left + rest >= SECONDS_PER_HOUR)
        return self.micros + self.intervals * micros + carried


_Line = tuple[_Count | None, int]
"""What an open interval is counted in (None: in no sum), and its `zero`."""


def _changed(session: Session, revision: int, last: int) -> Any:
    """Resources written since, and those with intervals made since, each with its open interval if it has one; from
    the beginning, those that have one.
    """
    there = and_(col(MeterInterval.resource_id) == col(Resource.id), col(MeterInterval.ended_at).is_(None))
    rows: Any = columns(
        col(Resource.id),
        col(MeterInterval.id).is_not(None),
        counted(),
        epoch(Resource.missing_since),
        col(MeterInterval.rate_micros),
        col(MeterInterval.base_rest),
        epoch(MeterInterval.started_at),
        col(MeterInterval.project),
        col(Resource.provider),
        func.coalesce(Resource.gpu_model, ""),
        col(MeterInterval.capacity_type),
        col(MeterInterval.currency),
        col(MeterInterval.activity),
    )
    if revision == NOTHING:
        rows = rows.join_from(Resource, MeterInterval, there)
    else:
        rows = rows.outerjoin_from(Resource, MeterInterval, there).where(changed_since(revision, last))
    return session.connection().execute(rows)
