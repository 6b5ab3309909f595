"""Turns what each resource costs now into meter changes, and intervals into exact money. Pure integers.

A resource has one cumulative integer: rate in micro-units per hour × whole seconds. Cost between two moments is the
difference of the floors of that integer over 3600, so however time is split, the parts add up to the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from service.pipeline.model import Known, MeterChange, OpenInterval

SECONDS_PER_HOUR = 3600
AVOIDED_AT_MOST = timedelta(days=7)
"""A stop is not credited for longer: nobody leaves a machine idle for ever."""


def whole_seconds(start: datetime, end: datetime) -> int:
    """Seconds in [start, end), never negative."""
    return max(0, int((end - start).total_seconds()))


def interval_cost(base: int, rate_micros: int, seconds: int) -> int:
    """Micro-units of an interval: the difference of the cumulative floor at its two ends."""
    return (base + rate_micros * seconds) // SECONDS_PER_HOUR - base // SECONDS_PER_HOUR


def window_cost(base: int, rate_micros: int, started_at: datetime, ended_at: datetime, start: datetime, end: datetime) -> int:
    """Micro-units of the part of an interval [started_at, ended_at) that lies in [start, end)."""
    first, last = max(started_at, start), min(ended_at, end)
    if last <= first:
        return 0
    reached = base + rate_micros * whole_seconds(started_at, first)
    return interval_cost(reached, rate_micros, whole_seconds(first, last))


def avoided_micros(rate_micros: int, start: datetime, end: datetime) -> int:
    """What not running in [start, end) avoided, counted for at most seven days."""
    return interval_cost(0, rate_micros, whole_seconds(start, min(end, start + AVOIDED_AT_MOST)))


def meter(resources: Iterable[Known], opened: Mapping[str, OpenInterval], now: datetime) -> list[MeterChange]:
    """Changes to the meter: only where something that money depends on changed."""
    changes = []
    for known in resources:
        current = opened.get(known.id)
        wanted = _wanted(known, now)
        if current is None and wanted is None:
            continue
        if current is not None and wanted is not None and _same(current, wanted):
            continue
        at = now if current is None else max(current.started_at, _when_it_changed(current, known, now))
        if wanted is not None:
            wanted = _carry(current, wanted, at)
        changes.append(MeterChange(resource_id=known.id, closes=current is not None, at=at, opened=wanted))
    return changes


def _wanted(known: Known, now: datetime) -> OpenInterval | None:
    """The interval that should be open now; None for what is gone or has no price."""
    if not known.governed or known.price is None:
        return None
    return OpenInterval(
        resource_id=known.id,
        project=known.project,
        state=known.record.state.value,
        capacity_type=known.record.capacity_type.value,
        rate_micros=known.rate_micros or 0,
        currency=known.price.currency,
        price_source=known.price.source,
        started_at=now,
        base=0,
    )


def _same(current: OpenInterval, wanted: OpenInterval) -> bool:
    return (current.project, current.state, current.capacity_type, current.rate_micros, current.currency) == (
        wanted.project,
        wanted.state,
        wanted.capacity_type,
        wanted.rate_micros,
        wanted.currency,
    )


def _when_it_changed(current: OpenInterval, known: Known, now: datetime) -> datetime:
    """The cloud's own word on when its state changed, where that is what changed; else the moment we saw it."""
    if known.ended_at is not None:
        return min(known.ended_at, now)
    if current.state != known.record.state.value:
        return min(known.state_since, now)
    return now


def _carry(current: OpenInterval | None, wanted: OpenInterval, at: datetime) -> OpenInterval:
    """The new interval goes on where the old one stops counting."""
    if current is None or current.currency != wanted.currency:
        return replace(wanted, started_at=at)
    return replace(wanted, started_at=at, base=current.base + current.rate_micros * whole_seconds(current.started_at, at))
