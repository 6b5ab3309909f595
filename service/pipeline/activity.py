"""Turns GPU samples into busy, idle or unknown, for one idle profile and one moment. Pure; DESIGN section 8.

A sample speaks from its own second until the next one, at most `max_gap`. A GPU is busy when a sample that speaks in
the window reaches the threshold, idle when samples speak for enough of the window and none does, else unknown. A GPU
that should be there but has no series is unknown. Nothing here ever fills a hole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from policies.policy import IdleProfile
from providers.records import Series, Signal


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """What one resource's GPUs did in a window; the telemetry facts of one row."""

    activity: str | None
    """`busy`, `idle`, or None: unknown."""
    idle_since: datetime | None = None
    busy_gpus: int | None = None
    idle_gpus: int | None = None
    unknown_gpus: int | None = None
    coverage: float | None = None
    max_utilisation: float | None = None
    max_tensor_active: float | None = None
    max_dram_active: float | None = None
    max_power_watts: float | None = None
    max_memory_used_mib: float | None = None


UNKNOWN = Activity(activity=None)


@dataclass(frozen=True, slots=True)
class _Device:
    """One GPU in the window."""

    busy: bool
    covered: int
    """Seconds of the window that samples speak for."""
    peak: float | None


def window_of(profile: IdleProfile, at: datetime) -> tuple[int, int]:
    """The window [start, end) in Unix seconds that a profile judges at a moment."""
    end = int((at - profile.telemetry_delay).timestamp())
    return end - int(profile.for_.total_seconds()), end


def judge_activity(
    series: Sequence[Series],
    *,
    gpu_count: int,
    started_at: datetime | None,
    ambiguous: bool,
    profile: IdleProfile,
    at: datetime,
    prior_idle: datetime | None = None,
) -> Activity:
    """Busy, idle or unknown at `at`.

    `started_at` is the start of the present run (samples before it plus the warm-up are dropped); unknown start means
    unknown activity. `prior_idle` is since when it was idle at the last look, so that a long idleness is told in full.
    """
    if ambiguous or started_at is None or gpu_count < 1:
        return UNKNOWN
    start, end = window_of(profile, at)
    floor = int((started_at + profile.warm_up).timestamp())
    gap = int(profile.max_gap.total_seconds())
    devices = {}
    for one in series:
        if one.signal is Signal.UTILISATION:
            devices[one.device] = _device(one, start, end, floor, gap, profile.utilisation_below)
    needed = profile.min_coverage * (end - start)
    busy = sum(device.busy for device in devices.values())
    idle = sum(not device.busy and device.covered >= needed for device in devices.values())
    unknown = max(gpu_count, len(devices)) - busy - idle
    if busy >= profile.busy_gpus_below:
        word: str | None = "busy"
    elif busy + unknown < profile.busy_gpus_below:
        word = "idle"
    else:
        word = None
    silent = len(devices) < gpu_count
    worst = 0 if silent else min((device.covered for device in devices.values()), default=0)
    return Activity(
        activity=word,
        idle_since=_idle_since(series, start, floor, gap, profile, prior_idle) if word == "idle" else None,
        busy_gpus=busy,
        idle_gpus=idle,
        unknown_gpus=unknown,
        coverage=worst / (end - start),
        max_utilisation=max((d.peak for d in devices.values() if d.peak is not None), default=None),
        max_tensor_active=_peak(series, Signal.TENSOR_ACTIVE, start, end, floor),
        max_dram_active=_peak(series, Signal.DRAM_ACTIVE, start, end, floor),
        max_power_watts=_peak(series, Signal.POWER_WATTS, start, end, floor),
        max_memory_used_mib=_peak(series, Signal.MEMORY_USED_MIB, start, end, floor),
    )


def _device(series: Series, start: int, end: int, floor: int, gap: int, threshold: float) -> _Device:
    """One GPU: does a sample that speaks in [start, end) reach the threshold, and for how long do they speak?"""
    times, values = series.times, series.values
    first = bisect_left(times, max(start - gap, floor))
    last = bisect_left(times, end)
    busy, covered, peak = False, 0, None
    for index in range(first, last):
        begin = times[index]
        until = min(begin + gap, times[index + 1] if index + 1 < len(times) else begin + gap, end)
        spoken = until - max(begin, start)
        if spoken <= 0:
            continue
        covered += spoken
        value = values[index]
        peak = value if peak is None or value > peak else peak
        busy = busy or value >= threshold
    return _Device(busy=busy, covered=covered, peak=peak)


def _peak(series: Iterable[Series], signal: Signal, start: int, end: int, floor: int) -> float | None:
    """Highest value of a signal in the window."""
    best: float | None = None
    for one in series:
        if one.signal is signal:
            inside = one.values[bisect_left(one.times, max(start, floor)) : bisect_left(one.times, end)]
            best = max(inside) if inside and best is None else max((*inside, best)) if best is not None else best
    return best


def _idle_since(
    series: Sequence[Series], start: int, floor: int, gap: int, profile: IdleProfile, prior: datetime | None
) -> datetime:
    """Since when every counted GPU has been idle, as far as the samples at hand (or the last look) reach back."""
    since = datetime.fromtimestamp(start, UTC)
    if prior is not None and prior <= since:
        return prior
    if profile.busy_gpus_below > 1:
        return since
    reached = max(
        (
            _idle_back_to(one, start, floor, gap, profile.utilisation_below)
            for one in series
            if one.signal is Signal.UTILISATION
        ),
        default=start,
    )
    return datetime.fromtimestamp(min(reached, start), UTC)


def _idle_back_to(series: Series, start: int, floor: int, gap: int, threshold: float) -> int:
    """The earliest second from which samples speak without a hole and below the threshold up to the window."""
    earliest = start
    for index in range(bisect_left(series.times, start) - 1, -1, -1):
        moment = series.times[index]
        if moment < floor or series.values[index] >= threshold or earliest - moment > gap:
            break
        earliest = moment
    return earliest
