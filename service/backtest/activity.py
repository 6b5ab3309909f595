"""Turns stretches of samples into busy, idle or unknown, for one idle profile and every second: what
`service.pipeline.activity` says of one moment, said of all of them at once.

Held equal to it, moment by moment, by tests/backtest/test_parity.py. A look hears the samples of its window and those
that came after it; so a sample that speaks until `u` is heard by every look up to `u` plus the delay and the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.policy import IdleProfile
from providers.records import State
from service.backtest.past import Levels, Past, Series
from service.backtest.spans import (
    LINE,
    Ints,
    Spans,
    Steps,
    counted,
    counting,
    cut,
    enough,
    key_of,
    moved,
    on_line,
    time_of,
    union,
    weighed,
    without,
)

Chosen = NDArray[np.bool_]


@dataclass(frozen=True)
class Activity:
    """On the line of resources. Where none of them is, it is unknown."""

    idle: Spans
    busy: Spans
    busy_gpus: Steps
    """-1: not known."""
    idle_gpus: Steps
    unknown_gpus: Steps
    quiet: Spans
    """When all GPUs are heard and none works: told of the samples' own time, not of the looks that hear them."""


@dataclass(frozen=True)
class _Runs:
    """One entry for each run of each resource: between two starts. Columns."""

    resource: Ints
    start: Ints
    """The first second at which it is judged."""
    end: Ints
    floor: Ints
    """Samples before it belong to an earlier run or to its warm-up."""
    due: Ints
    """GPUs that should speak."""


@dataclass(frozen=True)
class _Voices:
    """Each series in each run of its resource: columns, and what it says on the line of voices."""

    run: Ints
    series: Ints
    resource: Ints
    gpu: Ints
    by_number: Chosen
    counter: Chosen
    spoken: Spans
    work: Spans


def activity_of(past: Past, profile: IdleProfile, work: Spans) -> Activity:
    """What each resource's GPUs did at every second. `work`: on the line of series, by the profile's threshold."""
    runs = _runs(past, profile)
    voices = _voices(past, runs, work, spoken=past.spoken)
    length, delay = int(profile.for_.total_seconds()), int(profile.telemetry_delay.total_seconds())
    needed = max(1, math.ceil(round(profile.min_coverage * length, 6)))
    heard = _while_judged(voices.spoken, 0, delay + length, voices, runs)
    works = _while_judged(voices.work, 0, delay + length, voices, runs)
    full = _while_judged(enough(voices.spoken, window=length, needed=needed), delay, delay, voices, runs)
    return _of_resources(past.series, past.spoken, profile, runs, voices, heard=heard, works=works, full=full)


@dataclass(frozen=True)
class Highest:
    """The highest value of a signal on any GPU in each look's window, on the line of resources."""

    known: Spans
    """Where samples speak for enough of the window on every GPU."""
    at_least: Sequence[Spans]
    """For each of the signal's numbers, where the highest value reaches it."""
    above: Sequence[Spans]


def highest_of(past: Past, profile: IdleProfile, levels: Levels) -> Highest:
    """What the looks that judge by this profile would have taken for the highest value."""
    runs = _runs(past, profile)
    length, delay = int(profile.for_.total_seconds()), int(profile.telemetry_delay.total_seconds())
    needed = max(1, math.ceil(round(profile.min_coverage * length, 6)))
    voices = _voices(past, runs, levels.spoken, spoken=levels.spoken)
    heard = _while_judged(voices.spoken, delay + 1, delay + length, voices, runs)
    full = _while_judged(enough(voices.spoken, window=length, needed=needed), delay, delay, voices, runs)
    gpus = ~voices.counter
    due = weighed(on_line(runs.resource, runs.start), on_line(runs.resource, runs.end), runs.due)
    counts = [_count(spans, voices, gpus) for spans in (heard, full)]
    at = np.unique(np.concatenate([due.at, *(steps.at for steps in counts)]))
    wanted, some, enough_of = (steps.at_place(at) for steps in (due, *counts))

    def reached(spans: Spans) -> Spans:
        voices = _voices(past, runs, spans, spoken=levels.spoken)
        looks = _while_judged(voices.work, delay + 1, delay + length, voices, runs)
        return moved(looks, voices.resource[key_of(looks.start)])

    return Highest(
        known=Steps(at, at).where((wanted > 0) & (enough_of >= wanted) & (enough_of >= some)),
        at_least=[reached(spans) for spans in levels.at_least],
        above=[reached(spans) for spans in levels.above],
    )


def _runs(past: Past, profile: IdleProfile) -> _Runs:
    began, due = [-1], [0]
    for known in past.knowns:
        runs = known.record.state is State.RUNNING and known.governed and known.started_at is not None
        began.append(int(known.started_at.timestamp()) if runs and known.started_at else -1)
        due.append(known.record.gpu_count)
    versions = past.versions
    start = np.array(began, np.int64)[versions.known + 1]
    judged = start >= 0
    resource, start, count = (
        versions.resource[judged],
        start[judged],
        np.array(due, np.int64)[versions.known + 1][judged],
    )
    from_, until = versions.start[judged], versions.end[judged]
    first = np.ones(len(resource), bool)
    first[1:] = (resource[1:] != resource[:-1]) | (start[1:] != start[:-1]) | (count[1:] != count[:-1])
    last = np.append(first[1:], True)[: len(first)]
    floor = start[first] + int(profile.warm_up.total_seconds())
    return _Runs(resource[first], from_[first], until[last], floor, count[first])


def _voices(past: Past, runs: _Runs, work: Spans, *, spoken: Spans) -> _Voices:
    """Cut at where a run begins to count: a sample from before, or of its warm-up, says nothing of it."""
    series = past.series
    low = np.searchsorted(runs.resource, series.resource, side="left")
    count = np.searchsorted(runs.resource, series.resource, side="right") - low
    of = np.repeat(np.arange(len(series)), count)
    run = np.repeat(low, count) + counting(count)
    start = runs.floor[run]
    crossed = past.spoken.covers(on_line(of, start))  # by a sample from before, unless there is one from then on
    ends = np.append(past.spoken.end, 0)[np.searchsorted(past.spoken.end, on_line(of, start), side="right")]
    start = np.where(crossed, time_of(ends), start)
    asked = sorted((one * LINE + floor, first) for (one, floor), first in past.first_after.items())
    if asked:
        places, firsts = np.array(asked, np.int64).T
        wanted = on_line(of, runs.floor[run])
        index = np.minimum(np.searchsorted(places, wanted), len(places) - 1)
        start = np.where(places[index] == wanted, firsts[index], start)
    return _Voices(
        run,
        of,
        series.resource[of],
        series.gpu[of],
        series.by_number[of],
        series.counter[of],
        cut(spoken, of, start, runs.end[run]),
        cut(work, of, start, runs.end[run]),
    )


def _while_judged(spans: Spans, later: int, longer: int, voices: _Voices, runs: _Runs) -> Spans:
    """Each of them moved from what samples say to the looks that hear it, while its run is judged."""
    run = voices.run[key_of(spans.start)]
    voice = key_of(spans.start)
    start = np.maximum(spans.start + later, on_line(voice, runs.start[run]))
    return union(start, np.minimum(spans.end + longer, on_line(voice, runs.end[run])))


def _of_resources(
    series: Series,
    spoken: Spans,
    profile: IdleProfile,
    runs: _Runs,
    voices: _Voices,
    *,
    heard: Spans,
    works: Spans,
    full: Spans,
) -> Activity:
    """From what each device did to what its resource did, as `judge_activity` counts."""
    idles = without(full, works)
    served = _count(works, voices, voices.counter)
    quiet = _count(heard, voices, voices.counter), _count(full, voices, voices.counter)
    due = weighed(on_line(runs.resource, runs.start), on_line(runs.resource, runs.end), runs.due)
    namings = [
        _naming(series, spoken, voices, named, heard=heard, works=works, idles=idles) for named in _namings(voices)
    ]
    changes = [due, served, *quiet, *(steps for naming in namings for steps in naming.steps)]
    at = np.unique(np.concatenate([steps.at for steps in changes]))
    wanted = due.at_place(at)
    busy, idle, unknown = np.zeros_like(at), np.zeros_like(at), wanted
    for index, naming in enumerate(namings):  # of two the one that shows most work, or else speaks for most GPUs
        other = naming.at(at, wanted)
        if index == 0:
            busy, idle, unknown = other
            continue
        better = (other[0] > busy) | ((other[0] == busy) & (other[2] < unknown))
        busy, idle, unknown = (
            np.where(better, new, old) for new, old in zip(other, (busy, idle, unknown), strict=True)
        )
    least = profile.busy_gpus_below
    serves = served.at_place(at) > 0
    may_have_served = quiet[0].at_place(at) > quiet[1].at_place(at)
    is_busy = (wanted > 0) & ((busy >= least) | serves)
    is_idle = (wanted > 0) & ~is_busy & (busy + unknown < least) & ~may_have_served
    return Activity(
        idle=Steps(at, at).where(is_idle),
        busy=Steps(at, at).where(is_busy),
        busy_gpus=Steps(at, np.where(serves | (unknown > 0), -1, busy)),
        idle_gpus=Steps(at, idle),
        unknown_gpus=Steps(at, unknown),
        quiet=_quiet(voices, due),
    )


@dataclass(frozen=True, kw_only=True)
class _Naming:
    """How many devices of one naming did what, on the line of resources."""

    heard: Steps
    busy: Steps
    idle: Steps
    gpus: Steps
    """Whole GPUs of which anything is heard."""
    silent_slices: Steps
    """Of GPUs of which something else is heard."""
    devices: Steps
    """Those that have ever been heard so far, and of how many GPUs."""
    known_gpus: Steps

    @property
    def steps(self) -> tuple[Steps, ...]:
        return (self.heard, self.busy, self.idle, self.gpus, self.silent_slices, self.devices, self.known_gpus)

    def at(self, at: Ints, due: Ints) -> tuple[Ints, Ints, Ints]:
        """How many are busy, idle and unknown. While fewer GPUs are heard than there should be, those that were heard
        before are missed, and those that never were; else they are gone, and others are there instead."""
        busy, idle, heard = (steps.at_place(at) for steps in (self.busy, self.idle, self.heard))
        missed = self.devices.at_place(at) - heard + np.maximum(0, due - self.known_gpus.at_place(at))
        silent = np.where(self.gpus.at_place(at) < due, missed, self.silent_slices.at_place(at))
        return busy, idle, heard - busy - idle + silent


def _namings(voices: _Voices) -> Iterator[Chosen]:
    """One source calls GPUs by number, another by uuid; counted together, they would hide silent ones."""
    for by_number in (False, True):
        named = ~voices.counter & (voices.by_number == by_number)
        if named.any():
            yield named


def _naming(
    series: Series, spoken: Spans, voices: _Voices, of: Chosen, *, heard: Spans, works: Spans, idles: Spans
) -> _Naming:
    mine = heard.of(of[key_of(heard.start)])
    voice = key_of(mine.start)
    by_device = moved(mine, voices.series[voice])
    by_gpu = moved(mine, voices.gpu[voice])
    owner = series.owners
    ever = spoken.of(np.isin(key_of(spoken.start), voices.series[of]))  # that of its warm-up shows that it is there
    devices, first = _firsts(ever)
    gpus, first_of_gpu = _firsts(moved(ever, series.gpu[key_of(ever.start)]))
    on = cut(by_gpu, series.gpu[devices], first, np.full_like(first, LINE - 1))
    silent = without(moved(on, devices[key_of(on.start)]), by_device)
    return _Naming(
        heard=counted(by_device, series.resource[key_of(by_device.start)]),
        busy=_count(works, voices, of),
        idle=_count(idles, voices, of),
        gpus=counted(by_gpu, owner[key_of(by_gpu.start)]),
        silent_slices=counted(silent, series.resource[key_of(silent.start)]),
        devices=_from(series.resource[devices], first),
        known_gpus=_from(owner[gpus], first_of_gpu),
    )


def _firsts(spans: Spans) -> tuple[Ints, Ints]:
    """Each thing that is there at all, and since when."""
    key, first = np.unique(key_of(spans.start), return_index=True)
    return key, time_of(spans.start[first])


def _from(resource: Ints, first: Ints) -> Steps:
    """How many there are from each one's first second on."""
    return weighed(on_line(resource, first), on_line(resource, np.full_like(first, LINE - 1)), np.ones_like(first))


def _quiet(voices: _Voices, due: Steps) -> Spans:
    every = np.ones(len(voices.run), bool)
    speaking, working = _count(voices.spoken, voices, ~voices.counter), _count(voices.work, voices, every)
    at = np.unique(np.concatenate([speaking.at, working.at, due.at]))
    wanted = due.at_place(at)
    return Steps(at, at).where((wanted > 0) & (speaking.at_place(at) >= wanted) & (working.at_place(at) == 0))


def _count(spans: Spans, voices: _Voices, of: Chosen) -> Steps:
    """How many of these voices are in their stretches."""
    mine = spans.of(of[key_of(spans.start)])
    return counted(mine, voices.resource[key_of(mine.start)])
