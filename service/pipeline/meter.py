"""Turns what each resource costs now into meter changes: an interval is closed only by change. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from service.model import Interval, Known, MeterChange


def meter(resources: Iterable[Known], latest: Mapping[str, Interval], now: datetime) -> list[MeterChange]:
    """Changes to the meter: only where something that money depends on changed.

    `latest` is each resource's last interval, open or closed: a new one goes on counting from where it stands.
    """
    changes = []
    for known in resources:
        last = latest.get(known.id)
        current = last if last is not None and last.ended_at is None else None
        wanted = _wanted(known, now)
        if current is None and wanted is None:
            continue
        if current is not None and wanted is not None and _same(current, wanted):
            continue
        at = now if current is None else max(current.started_at, _when_it_changed(current, known, now))
        if wanted is not None:
            base = last.reached(at) if last is not None and last.currency == wanted.currency else 0
            wanted = replace(wanted, started_at=at, base=base)
        changes.append(MeterChange(resource_id=known.id, closes=current is not None, at=at, opened=wanted))
    return changes


def _wanted(known: Known, now: datetime) -> Interval | None:
    """The interval that should be open now; None for what is gone or has no price."""
    if not known.governed or known.price is None:
        return None
    return Interval(
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


def _same(current: Interval, wanted: Interval) -> bool:
    return (current.project, current.state, current.capacity_type, current.rate_micros, current.currency) == (
        wanted.project,
        wanted.state,
        wanted.capacity_type,
        wanted.rate_micros,
        wanted.currency,
    )


def _when_it_changed(current: Interval, known: Known, now: datetime) -> datetime:
    """The cloud's own word on when its state changed, where that is what changed; else the moment we saw it."""
    if known.ended_at is not None:
        return min(known.ended_at, now)
    if current.state != known.record.state.value:
        return min(known.state_since, now)
    return now
