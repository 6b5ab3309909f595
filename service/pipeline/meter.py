"""Turns what each resource costs and does now into meter changes: an interval is closed only by change. Pure.

Two changes are known only afterwards and are metered from when they began: idleness, and a gap in our looking, whose
stretch is an interval of its own, marked as assumed. Moments are whole seconds, so that splitting loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from providers.records import State
from service.model import Interval, Known, MeterChange
from service.money import SECONDS_PER_HOUR
from service.pipeline.activity import UNKNOWN, Activity

LONGEST_GAP = timedelta(minutes=10)
"""Whatever happened in a longer time without a look is assumed to have gone on as it was, and says so."""


def meter(
    resources: Iterable[Known],
    latest: Mapping[str, Interval],
    now: datetime,
    *,
    activity: Mapping[str, Activity] | None = None,
    last_look: datetime | None = None,
    longest_gap: timedelta = LONGEST_GAP,
) -> list[MeterChange]:
    """Changes to the meter: only where something that money depends on changed.

    `latest` is each resource's last interval, open or closed: a new one goes on counting from where it stands.
    `activity` is what the installation's own idle profile says.
    """
    now = _second(now)
    gap = _second(last_look) if last_look is not None and now - last_look > longest_gap else None
    changes = []
    for known in resources:
        last = latest.get(known.id)
        current = last if last is not None and last.ended_at is None else None
        did = (activity or {}).get(known.id, UNKNOWN)
        wanted = _wanted(known, did, now)
        unseen = gap if current is not None and current.rate_micros else None  # what costs nothing needs no assuming
        if current is not None and (unseen is not None or not _same(current, wanted)):
            changes += _change(current, wanted, known, did.idle_since, unseen, now)
        elif current is None and wanted is not None:
            opened = (_after(last, wanted, now),)
            changes.append(MeterChange(resource_id=known.id, closes=False, at=now, opened=opened))
    return changes


@dataclass(frozen=True, kw_only=True, slots=True)
class CostToDate(Mapping[str, int]):
    """What each resource has cost until a moment, in micro-units: told from its last interval when it is asked for."""

    intervals: Mapping[str, Interval]
    at: datetime

    def __getitem__(self, resource_id: str) -> int:
        return self.intervals[resource_id].reached(self.at) // SECONDS_PER_HOUR

    def __iter__(self) -> Iterator[str]:
        return iter(self.intervals)

    def __len__(self) -> int:
        return len(self.intervals)


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)


def _wanted(known: Known, did: Activity, now: datetime) -> Interval | None:
    """The interval that should be open now; None for what is gone, has no price, or is counted by its members."""
    if not known.governed or known.price is None or known.is_group:
        return None
    return Interval(
        resource_id=known.id,
        project=known.project,
        state=known.record.state.value,
        capacity_type=known.record.capacity_type.value,
        activity=_activity(known, did) if known.record.state is State.RUNNING else "",
        rate_micros=known.rate_micros or 0,
        currency=known.price.currency,
        price_source=known.price.source,
        started_at=now,
        base=0,
    )


def _activity(known: Known, did: Activity) -> str:
    """What is metered of a machine in a cluster is what nobody requested of it."""
    return "unrequested" if known.lent is not None else did.activity or "unknown"


def _same(one: Interval, other: Interval | None) -> bool:
    return other is not None and _kind(one) == _kind(other)


def _kind(interval: Interval) -> tuple[object, ...]:
    """What money depends on."""
    return (
        interval.project,
        interval.state,
        interval.capacity_type,
        interval.activity,
        interval.assumed,
        interval.rate_micros,
        interval.currency,
    )


def _after(before: Interval | None, interval: Interval, at: datetime) -> Interval:
    """An interval from a moment on, counting from where the one before stands then."""
    base = before.reached(at) if before is not None and before.currency == interval.currency else 0
    return replace(interval, started_at=at, base=base, ended_at=None)


def _change(
    current: Interval,
    wanted: Interval | None,
    known: Known,
    idle_since: datetime | None,
    gap: datetime | None,
    now: datetime,
) -> list[MeterChange]:
    """The open interval ended where it stopped being true, and every stretch that followed it until now."""
    now = max(now, current.started_at)  # a clock set back takes nothing back
    story = _Story(
        current=current,
        wanted=wanted,
        at=min(now, max(current.started_at, _when_it_changed(current, known, now))),
        idle_since=None if idle_since is None else max(current.started_at, _second(idle_since)),
        gap=None if gap is None else max(current.started_at, gap),
        now=now,
    )
    stretches: list[Interval] = [current]
    for moment in story.moments():
        then = story.told_at(moment)
        before = stretches[-1]
        if before.ended_at is None and not _same(before, then):
            stretches[-1] = replace(before, ended_at=moment)
            if then is not None:
                stretches.append(_after(before, then, moment))
    ended_at = stretches[0].ended_at
    if ended_at is None:
        return []
    return [MeterChange(resource_id=known.id, closes=True, at=ended_at, opened=tuple(stretches[1:]))]


@dataclass(frozen=True, kw_only=True)
class _Story:
    """What is known of the time since the open interval began."""

    current: Interval
    wanted: Interval | None
    at: datetime
    """When it stopped being as it was and became as it should be."""
    idle_since: datetime | None
    gap: datetime | None
    """From here until now nobody looked."""
    now: datetime

    def moments(self) -> list[datetime]:
        """Whenever something may have changed."""
        found = {self.gap, self.idle_since, self.at, self.now}
        return sorted(moment for moment in found if moment is not None and moment <= self.now)

    def told_at(self, moment: datetime) -> Interval | None:
        """The interval from a moment on."""
        frame = self.current if moment < self.at else self.wanted
        if frame is None:
            return None
        assumed = self.gap is not None and self.gap <= moment < self.now
        return replace(frame, activity=self._activity(frame, moment, assumed), assumed=assumed)

    def _activity(self, frame: Interval, moment: datetime, assumed: bool) -> str:
        if frame.state != State.RUNNING:
            return ""
        if self.wanted is not None and self.wanted.activity == "idle":
            if self.idle_since is None or moment >= self.idle_since:
                return "idle"
            return "unknown" if assumed or frame is self.wanted else frame.activity
        return "unknown" if assumed else frame.activity


def _when_it_changed(current: Interval, known: Known, now: datetime) -> datetime:
    """The cloud's own word on when its state changed, where that is what changed; else the moment we saw it."""
    if known.ended_at is not None:
        return min(_second(known.ended_at), now)
    if current.state != known.record.state.value:
        return min(_second(known.state_since), now)
    return now
