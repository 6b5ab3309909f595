"""Remembers GPU samples between cycles, so that each is asked for once. Clouds bill for the asking.

Only what was really sampled is kept; nothing is filled in, and forgetting (a restart) only costs asking again. Values
are kept as arrays, eight bytes each: a fleet's samples are most of what a service remembers.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from providers.contract import Telemetry as TelemetryProvider
from providers.records import PartReport, ResourceRecord, ResourceRef, Series

LATE = timedelta(minutes=10)
"""Samples may arrive this late: the end of what was asked before is asked again."""


class SampleMemory:
    """The samples of one source."""

    def __init__(self) -> None:
        self._series: dict[ResourceRef, tuple[Series, ...]] = {}
        self._left: dict[ResourceRef, tuple[Series, ...]] = {}
        self._times: dict[tuple[int, int, int], tuple[int, ...]] = {}
        """Moments, by the first, the last and how many they are."""
        self._asked_until: dict[ResourceRef, datetime] = {}
        self._ambiguous: frozenset[ResourceRef] = frozenset()
        self._faults: tuple[PartReport, ...] = ()
        self._asked_at: datetime | None = None
        self._looked_at: datetime | None = None
        self._window = timedelta(0)

    @property
    def ambiguous(self) -> frozenset[ResourceRef]:
        return self._ambiguous

    @property
    def faults(self) -> tuple[PartReport, ...]:
        """Of the last asking."""
        return self._faults

    def refresh(
        self,
        provider: TelemetryProvider,
        records: Sequence[ResourceRecord],
        *,
        window: timedelta,
        interval: timedelta,
        now: datetime,
    ) -> None:
        """Ask for what is not known yet: everything of new resources, the newest of the others when it is time."""
        set_back = self._asked_at is not None and now < self._asked_at
        if window > self._window or set_back:  # what was asked before is not enough, or was asked of a time to come
            self._asked_until, self._window = {}, max(window, self._window)
        new = [record for record in records if record.ref not in self._asked_until]
        old = [record for record in records if record.ref in self._asked_until]
        due = self._asked_at is None or now - self._asked_at >= interval or set_back
        faults: list[PartReport] = []
        ambiguous: set[ResourceRef] = set()
        if new:
            self._ask(provider, new, now - window, now, faults, ambiguous)
        if old and due:
            oldest = min(self._asked_until[record.ref] for record in old)
            self._ask(provider, old, max(now - window, oldest - LATE), now, faults, ambiguous)
        if due:
            if faults:  # whoever could not be asked is as ambiguous as before
                ambiguous |= self._ambiguous
            self._asked_at, self._faults, self._ambiguous = now, tuple(faults), frozenset(ambiguous)
        elif new:
            self._faults += tuple(faults)
            self._ambiguous |= ambiguous
        self._forget_gone({record.ref for record in records})
        if due:  # the last look is read until this one is complete, and reads here
            self._forget_before(min(now, self._looked_at or now) - window)
        self._looked_at = now

    def of(self, ref: ResourceRef) -> tuple[Series, ...]:
        """What is remembered of one resource. Whoever asks while newer samples come gets those that are there."""
        return self._series.get(ref, ())

    def take_left(self) -> dict[ResourceRef, tuple[Series, ...]]:
        """What was sampled of resources that are no longer asked about, told once: whoever keeps it has it alone."""
        left, self._left = self._left, {}
        return left

    def _ask(
        self,
        provider: TelemetryProvider,
        records: Sequence[ResourceRecord],
        start: datetime,
        end: datetime,
        faults: list[PartReport],
        ambiguous: set[ResourceRef],
    ) -> None:
        answer = provider.samples(records, start=start, end=end)
        ambiguous |= answer.ambiguous
        faults += answer.faults
        if not answer.faults:  # what failed is asked again in full
            self._asked_until |= {record.ref: end for record in records}
        told = _by_resource(answer.series)
        del answer
        while told:  # one after the other: what is taken over is not there twice
            ref, new = told.popitem()
            self._series[ref] = self._together(self._series.get(ref, ()), new)

    def _together(self, before: Iterable[Series], new: Iterable[Series]) -> tuple[Series, ...]:
        """One resource's series, with what is new of them."""
        found = {(series.device, series.signal): series for series in before}
        for series in new:
            key = (series.device, series.signal)
            found[key] = self._sharing_times(merged(found.get(key), series))
        return tuple(found.values())

    def _sharing_times(self, series: Series) -> Series:
        """A fleet is sampled at the same moments: kept once, they take half the memory."""
        if not series.times:
            return series
        about = (series.times[0], series.times[-1], len(series.times))
        times = self._times.setdefault(about, series.times)
        return series if times is series.times or times != series.times else replace(series, times=times)

    def _forget_gone(self, refs: set[ResourceRef]) -> None:
        for gone in self._series.keys() - refs:
            self._left[gone] = self._series.pop(gone)
        for gone in self._asked_until.keys() - refs:
            del self._asked_until[gone]

    def _forget_before(self, moment: datetime) -> None:
        """Drop what no window reaches any more."""
        oldest = int(moment.timestamp())
        self._times = {}
        for ref, found in self._series.items():
            self._series[ref] = tuple(self._sharing_times(_since(series, oldest)) for series in found)


def _by_resource(told: Iterable[Series]) -> dict[ResourceRef, list[Series]]:
    found: dict[ResourceRef, list[Series]] = {}
    for series in told:
        found.setdefault(series.ref, []).append(series)
    return found


def merged(before: Series | None, after: Series) -> Series:
    """Two stretches of one series; where both have a second, the newer answer counts."""
    if before is None or not after.times:
        kept = after if before is None else before
        return replace(kept, values=array("d", kept.values))
    first = bisect_left(before.times, after.times[0])
    times, values = after.times, array("d", after.values)
    if before.times[first:] != times[: len(before.times) - first]:  # not the same moments again, and then further ones
        samples = dict(zip(before.times[first:], before.values[first:], strict=True)) | dict(
            zip(times, values, strict=True)
        )
        times = tuple(sorted(samples))
        values = array("d", [samples[time] for time in times])
    return replace(after, times=before.times[:first] + times, values=array("d", before.values[:first]) + values)


def _since(series: Series, oldest: int) -> Series:
    first = bisect_left(series.times, oldest)
    return replace(series, times=series.times[first:], values=series.values[first:]) if first else series
