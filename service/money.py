"""Exact money of metered time: integers only, so that however time is split the parts add up to the whole.

A resource has one cumulative integer: rate in micro-units per hour × whole seconds. Cost between two moments is the
difference of the floors of that integer over 3600.
"""

from __future__ import annotations

from datetime import datetime, timedelta

SECONDS_PER_HOUR = 3600
AVOIDED_AT_MOST = timedelta(days=7)
"""A stop is not credited for longer: nobody leaves a machine idle for ever."""


def whole_seconds(start: datetime, end: datetime) -> int:
    """Seconds in [start, end), never negative."""
    return max(0, int((end - start).total_seconds()))


def cumulative(base: int, rest: int) -> int:
    """The cumulative integer, from its whole micro-units and what is left of one."""
    return base * SECONDS_PER_HOUR + rest


def interval_cost(base: int, rate_micros: int, seconds: int) -> int:
    """Micro-units of an interval: the difference of the cumulative floor at its two ends."""
    return (base + rate_micros * seconds) // SECONDS_PER_HOUR - base // SECONDS_PER_HOUR


def window_cost(
    base: int, rate_micros: int, started_at: datetime, ended_at: datetime, start: datetime, end: datetime
) -> int:
    """Micro-units of the part of an interval [started_at, ended_at) that lies in [start, end)."""
    first, last = max(started_at, start), min(ended_at, end)
    if last <= first:
        return 0
    reached = base + rate_micros * whole_seconds(started_at, first)
    return interval_cost(reached, rate_micros, whole_seconds(first, last))


def avoided_micros(rate_micros: int, start: datetime, end: datetime) -> int:
    """What not running in [start, end) avoided, counted for at most seven days."""
    return interval_cost(0, rate_micros, whole_seconds(start, min(end, start + AVOIDED_AT_MOST)))
