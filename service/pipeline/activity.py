"""Turns GPU samples into busy, idle or unknown, for one idle profile and one moment. Pure; DESIGN section 8.

A sample speaks from its own second until the next one, at most `max_gap`. A GPU is busy when a sample that speaks in
the window (or came after it) reaches the threshold, idle when samples speak for enough of the window and none does,
else unknown. A GPU that should be there but has no series is unknown. Nothing here ever fills a hole.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from operator import sub
from typing import Any

from policies.policy import IdleProfile
from providers.records import Kind, Series, Signal


@dataclass(frozen=True, kw_only=True, slots=True)
class Activity:
    """What one resource's GPUs did in a window; the telemetry facts of one row.

    A number is None while it could still turn out otherwise: of a silent GPU nobody knows how many watts it draws, so
    nobody knows the most that any GPU draws.
    """

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


def together(members: Sequence[Activity]) -> Activity:
    """What a group did: busy when one member was, idle when every one was, since the last of them fell idle."""
    activities = {member.activity for member in members}
    if "busy" in activities:
        activity: str | None = "busy"
    else:
        activity = "idle" if activities == {"idle"} else None
    since = [member.idle_since for member in members if member.idle_since is not None]
    return Activity(
        activity=activity,
        idle_since=max(since) if activity == "idle" and len(since) == len(members) else None,
        busy_gpus=_all(sum, [member.busy_gpus for member in members]),
        idle_gpus=_all(sum, [member.idle_gpus for member in members]),
        unknown_gpus=_all(sum, [member.unknown_gpus for member in members]),
        coverage=_all(min, [member.coverage for member in members]),
        max_utilisation=_all(max, [member.max_utilisation for member in members]),
        max_tensor_active=_all(max, [member.max_tensor_active for member in members]),
        max_dram_active=_all(max, [member.max_dram_active for member in members]),
        max_power_watts=_all(max, [member.max_power_watts for member in members]),
        max_memory_used_mib=_all(max, [member.max_memory_used_mib for member in members]),
    )


def _all(make: Callable[[list[Any]], Any], values: Sequence[Any]) -> Any:
    """One number of all members'; None while one member's is not known."""
    return make(list(values)) if values and None not in values else None


@dataclass(frozen=True, slots=True)
class _Window:
    """The stretch that is judged, in Unix seconds."""

    start: int
    end: int
    at: int
    """Now: samples after `end` may still show that work has begun."""
    floor: int
    """Samples before this belong to an earlier run or to its warm-up."""
    gap: int
    needed: float
    """Seconds that samples must speak for."""


@dataclass(frozen=True, slots=True)
class _Speech:
    """What one series says in the window."""

    covered: int
    """Seconds its samples speak for."""
    lowest: float = 0.0
    highest: float = 0.0
    """Both meaningless while nothing is covered."""
    newest: float | None = None
    """The highest sample that came after the window."""

    @property
    def heard(self) -> bool:
        """Whether there is any sample of it, in the window or after."""
        return self.covered > 0 or self.newest is not None


@dataclass(frozen=True, slots=True)
class _Due:
    """How many GPUs should speak, and what counts as one."""

    count: int
    workload: bool
    """It holds slices and shares of GPUs, each of which counts; a machine has GPUs, whatever they are cut into."""

    def gpu(self, device: str) -> str:
        return device if self.workload else device.partition("/")[0]

    def missing(self, devices: Iterable[str]) -> int:
        """GPUs that should be there and have no series."""
        return max(0, self.count - len({self.gpu(device) for device in devices}))


def _fullest(gpus: Mapping[str, _Speech], due: _Due, window: _Window, threshold: float) -> Mapping[str, _Speech]:
    """The devices of the one naming that shows most work, or else speaks for most GPUs.

    One source calls GPUs by number, another by uuid; counted together, four told of twice would hide four silent ones.
    """
    namings: dict[bool, dict[str, _Speech]] = {}
    for device, speech in gpus.items():
        namings.setdefault(_by_number(device), {})[device] = speech

    def fullness(named: Mapping[str, _Speech]) -> tuple[int, int, int]:
        busy = sum(_reaches(speech, threshold) for speech in named.values())
        return busy, -due.missing(named), sum(_enough(speech, window) for speech in named.values())

    return max((namings[key] for key in sorted(namings)), key=fullness, default={})


def _by_number(device: str) -> bool:
    """`3`, or in a pod `trainer-0:3`."""
    return device.partition("/")[0].rpartition(":")[2].isdigit()


def _former(gpus: Mapping[str, _Speech], due: _Due) -> set[str]:
    """Devices it had before: they are silent, and as many GPUs speak as there should be. Restarted, it got others."""
    speaking = {due.gpu(device) for device, speech in gpus.items() if speech.heard}
    if len(speaking) < due.count:
        return set()
    return {device for device in gpus if due.gpu(device) not in speaking}


def _pod(device: str) -> str:
    """Of a workload's device, or of a counter of its requests, the pod."""
    return device.partition(":")[0]


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
    window = _Window(
        start,
        end,
        int(at.timestamp()),
        int((started_at + profile.warm_up).timestamp()),
        int(profile.max_gap.total_seconds()),
        profile.min_coverage * (end - start),
    )
    said: dict[Signal, dict[str, _Speech]] = {}
    for one in series:
        devices = said.setdefault(one.signal, {})
        speech = _speech(one, window)
        before = devices.get(one.device)  # two sources may speak of the same GPU
        devices[one.device] = speech if before is None else _both(before, speech)
    due = _Due(gpu_count, workload=any(one.ref.kind is Kind.WORKLOAD for one in series))
    gpus = _fullest(said.get(Signal.UTILISATION, {}), due, window, profile.utilisation_below)
    if former := _former(gpus, due):
        series = [one for one in series if one.device not in former]
        said = {signal: _without(former, devices) for signal, devices in said.items()}
        gpus = _without(former, gpus)
    missing = due.missing(gpus)
    count = len(gpus) + missing
    busy = sum(_reaches(speech, profile.utilisation_below) for speech in gpus.values())
    idle = sum(not _reaches(s, profile.utilisation_below) and _enough(s, window) for s in gpus.values())
    unknown = count - busy - idle
    counters = said.get(Signal.REQUESTS_TOTAL, {})
    if due.workload and not missing:  # what a pod that is gone counted is over
        there = {_pod(device) for device in gpus}
        counters = {name: speech for name, speech in counters.items() if speech.heard or _pod(name) in there}
    served, may_have_served = _served(counters, window)
    if busy >= profile.busy_gpus_below or served:
        word: str | None = "busy"
    elif busy + unknown < profile.busy_gpus_below and not may_have_served:
        word = "idle"
    else:
        word = None
    worst = 0 if missing else min((speech.covered for speech in gpus.values()), default=0)
    return Activity(
        activity=word,
        idle_since=_idle_since(series, window, profile, prior_idle) if word == "idle" else None,
        busy_gpus=None if unknown or served else busy,
        idle_gpus=idle,
        unknown_gpus=unknown,
        coverage=worst / (end - start),
        max_utilisation=_peak(gpus, count, window),
        max_tensor_active=_peak(said.get(Signal.TENSOR_ACTIVE, {}), count, window),
        max_dram_active=_peak(said.get(Signal.DRAM_ACTIVE, {}), count, window),
        max_power_watts=_peak(said.get(Signal.POWER_WATTS, {}), count, window),
        max_memory_used_mib=_peak(said.get(Signal.MEMORY_USED_MIB, {}), count, window),
    )


def _without(former: set[str], devices: Mapping[str, _Speech]) -> dict[str, _Speech]:
    return {device: speech for device, speech in devices.items() if device not in former}


def _speech(series: Series, window: _Window) -> _Speech:
    """For how long of [start, end) the samples of a series speak, and between which values."""
    times: Sequence[int] = series.times
    values: Sequence[float] = series.values
    if math.isnan(sum(values)):  # a careless provider: what is not a number is no sample
        kept = [(time, value) for time, value in zip(times, values, strict=True) if not math.isnan(value)]
        times, values = tuple(time for time, _ in kept), tuple(value for _, value in kept)
    floor = bisect_left(times, window.floor)
    first = bisect_left(times, window.start, floor)
    last = bisect_left(times, window.end, first)
    if first > floor and _speaks_at(times, first - 1, window):
        first -= 1  # a sample from before the window that still speaks into it
    newest = max(values[last : bisect_right(times, window.at, last)], default=None)
    spoken, heard = times[first:last], values[first:last]
    if not spoken:
        return _Speech(covered=0, newest=newest)
    between = sum(map(min, map(sub, spoken[1:], spoken), repeat(window.gap)))
    covered = between + min(window.gap, window.end - spoken[-1]) - max(0, window.start - spoken[0])
    return _Speech(covered=covered, lowest=min(heard), highest=max(heard), newest=newest)


def _speaks_at(times: Sequence[int], index: int, window: _Window) -> bool:
    """Does this sample, from before the window, still speak at its start?"""
    followed = index + 1 < len(times) and times[index + 1] <= window.start
    return times[index] + window.gap > window.start and not followed


def _both(one: _Speech, other: _Speech) -> _Speech:
    """Two series of the same signal of one GPU: whichever is busy counts, and the fuller one for how much is known."""
    if not one.covered or not other.covered:
        fuller = one if one.covered else other
        lowest, highest = fuller.lowest, fuller.highest
    else:
        lowest, highest = min(one.lowest, other.lowest), max(one.highest, other.highest)
    newest = max((value for value in (one.newest, other.newest) if value is not None), default=None)
    return _Speech(covered=max(one.covered, other.covered), lowest=lowest, highest=highest, newest=newest)


def _reaches(speech: _Speech, threshold: float) -> bool:
    """A sample in the window reaches it, or one after the window: what has just begun to work is not idle."""
    in_window = speech.covered > 0 and speech.highest >= threshold
    return in_window or (speech.newest is not None and speech.newest >= threshold)


def _enough(speech: _Speech, window: _Window) -> bool:
    """Samples speak for as much of the window as is needed, and never for nothing of it."""
    return speech.covered > 0 and speech.covered >= window.needed


def _served(counters: Mapping[str, _Speech], window: _Window) -> tuple[bool, bool]:
    """Of something that serves: has its request counter moved, and could it have moved without our seeing it?"""
    moved = any(
        speech.covered and (speech.lowest != speech.highest or speech.newest not in (None, speech.highest))
        for speech in counters.values()
    )
    return moved, any(not _enough(speech, window) for speech in counters.values())


def _peak(devices: Mapping[str, _Speech], count: int, window: _Window) -> float | None:
    """The highest value of a signal, where samples speak for enough of the window on every GPU; else None."""
    if len(devices) < count or not all(_enough(speech, window) for speech in devices.values()):
        return None
    return max(speech.highest for speech in devices.values())


def _idle_since(series: Sequence[Series], window: _Window, profile: IdleProfile, prior: datetime | None) -> datetime:
    """Since when every counted GPU has been idle, as far as the samples at hand (or the last look) reach back."""
    since = datetime.fromtimestamp(window.start, UTC)
    if prior is not None and prior <= since:
        return min(since, max(prior, datetime.fromtimestamp(window.floor, UTC)))
    if profile.busy_gpus_below > 1:
        return since
    idling = {Signal.UTILISATION: _below(profile.utilisation_below), Signal.REQUESTS_TOTAL: _unchanged}
    reached = max(
        (_idle_back_to(one, window, idling[one.signal]) for one in series if one.signal in idling),
        default=window.start,
    )
    return datetime.fromtimestamp(min(reached, window.start), UTC)


def _below(threshold: float) -> Callable[[float, float], bool]:
    return lambda value, later: value < threshold


def _unchanged(value: float, later: float) -> bool:
    return value == later


def _idle_back_to(series: Series, window: _Window, idling: Callable[[float, float], bool]) -> int:
    """The earliest second from which samples speak without a hole and without work up to the window."""
    earliest = window.start
    first = bisect_left(series.times, window.start)
    later = series.values[first] if first < len(series.times) else math.nan
    for index in range(first - 1, -1, -1):
        moment, value = series.times[index], series.values[index]
        if moment < window.floor or not idling(value, later) or earliest - moment > window.gap:
            break
        earliest, later = moment, value
    return earliest
