"""Remembers GPU samples between cycles, so that each is asked for once. Clouds bill for the asking.

Only what was really sampled is kept; nothing is filled in, and forgetting (a restart) only costs asking again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from providers.contract import Telemetry as TelemetryProvider
from providers.records import PartReport, ResourceRecord, ResourceRef, Series, Signal

LATE = timedelta(minutes=10)
"""Samples may arrive this late: the end of what was asked before is asked again."""

_Key = tuple[ResourceRef, str, Signal]


class SampleMemory:
    """The samples of one source."""

    def __init__(self) -> None:
        self._series: dict[_Key, Series] = {}
        self._times: dict[tuple[int, int, int], tuple[int, ...]] = {}
        """Moments, by the first, the last and how many they are."""
        self._asked_until: dict[ResourceRef, datetime] = {}
        self._ambiguous: frozenset[ResourceRef] = frozenset()
        self._faults: tuple[PartReport, ...] = ()
        self._asked_at: datetime | None = None
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
        self._forget({record.ref for record in records}, now - window)

    def by_resource(self) -> dict[ResourceRef, tuple[Series, ...]]:
        """Everything remembered, by resource."""
        found: dict[ResourceRef, list[Series]] = {}
        for series in self._series.values():
            found.setdefault(series.ref, []).append(series)
        return {ref: tuple(series) for ref, series in found.items()}

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
        for series in answer.series:
            key = (series.ref, series.device, series.signal)
            self._series[key] = self._sharing_times(merged(self._series.get(key), series))
        ambiguous |= answer.ambiguous
        faults += answer.faults
        if not answer.faults:  # what failed is asked again in full
            self._asked_until |= {record.ref: end for record in records}

    def _sharing_times(self, series: Series) -> Series:
        """A fleet is sampled at the same moments: kept once, they take half the memory."""
        if not series.times:
            return series
        about = (series.times[0], series.times[-1], len(series.times))
        times = self._times.setdefault(about, series.times)
        if times is series.times or times != series.times:
            return series
        return Series(ref=series.ref, device=series.device, signal=series.signal, times=times, values=series.values)

    def _forget(self, refs: set[ResourceRef], before: datetime) -> None:
        """Drop what no window reaches any more and what is gone."""
        oldest = int(before.timestamp())
        self._times = {}
        self._series = {
            key: self._sharing_times(series if series.times and series.times[0] >= oldest else _since(series, oldest))
            for key, series in self._series.items()
            if key[0] in refs
        }
        self._asked_until = {ref: until for ref, until in self._asked_until.items() if ref in refs}


def merged(before: Series | None, after: Series) -> Series:
    """Two stretches of one series; where both have a second, the newer answer counts."""
    if before is None or not before.times or (after.times and before.times[-1] < after.times[0]):
        times = (before.times if before else ()) + after.times
        values = (before.values if before else ()) + after.values
    else:
        samples = dict(zip(before.times, before.values, strict=True)) | dict(
            zip(after.times, after.values, strict=True)
        )
        times = tuple(sorted(samples))
        values = tuple(samples[time] for time in times)
    return Series(ref=after.ref, device=after.device, signal=after.signal, times=times, values=values)


def _since(series: Series, oldest: int) -> Series:
    kept = [(time, value) for time, value in zip(series.times, series.values, strict=True) if time >= oldest]
    return Series(
        ref=series.ref,
        device=series.device,
        signal=series.signal,
        times=tuple(time for time, _ in kept),
        values=tuple(value for _, value in kept),
    )
