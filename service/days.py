"""Days, months and quarters on a zone's own clocks, as moments in UTC. A daylight-saving day has 23 or 25 hours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo


def day_start(day: date, zone: tzinfo) -> datetime:
    """When a day begins there. Where midnight is skipped, at the first moment after it."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def day_of(at: datetime, zone: tzinfo) -> date:
    """Which day it is there."""
    return at.astimezone(zone).date()


def days_in(start: datetime, end: datetime, zone: tzinfo) -> Iterator[tuple[date, datetime, datetime]]:
    """Each day that [start, end) touches, with the part of it that lies within."""
    while start < end:
        day = day_of(start, zone)
        until = min(end, day_start(day + timedelta(days=1), zone))
        if until <= start:  # clocks went back over midnight: this day comes a second time
            until = min(end, start + timedelta(hours=1))
        yield day, start, until
        start = until


def month_of(day: date) -> tuple[date, date]:
    """The first day of its month, and of the next one."""
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def quarter_of(day: date) -> tuple[date, date]:
    """The first day of its quarter, and of the next one."""
    first = day.replace(month=day.month - (day.month - 1) % 3, day=1)
    return first, (first + timedelta(days=93)).replace(day=1)
