"""What happened, to score stops against: when work was seen, when nothing was known, what each hour cost.

A stop saves while the machine is known to have run on without work; what is not heard saves and decides nothing.
Places are a resource at a second (`spans`), many at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from datetime import date
from functools import cache

import numpy as np
from numpy.typing import NDArray

from policies.policy import IdleProfile
from providers.records import Price, State
from service.backtest.past import Past, Series
from service.backtest.spans import (
    LINE,
    Ints,
    Spans,
    Steps,
    both,
    counted,
    counting,
    cut,
    either,
    key_of,
    moved,
    on_line,
    time_of,
    union,
    weighed,
    without,
)
from service.history.layout import day_of
from service.model import Known
from service.pipeline.plan import gpus_of
from service.pipeline.price import PriceFile, price_of

Floats = NDArray[np.float64]
Chosen = NDArray[np.bool_]
PARTS = 10**6
"""GPUs are counted in millionths, so that sums are exact."""
DAY = 86400


class Truth:
    """What happened, on the line of resources: a place is a resource at a second."""

    def __init__(self, past: Past, profile: IdleProfile, work: Spans, prices: PriceFile) -> None:
        """`work`: on the line of series, when samples show what counts as work."""
        self._past = past
        versions, spans = past.versions, past.versions.spans
        runs = np.array([*(_runs(known) for known in past.knowns), 2], np.int64)[versions.known]
        self.running = _merged(spans.of(runs == 1))
        """When it is known to have run."""
        self._whole = _whole_runs(past, runs == 1)
        """Each run from its beginning to its end: what is not known in its midst does not part it."""
        self.work = _at_work(past.series, work, profile.busy_gpus_below)
        """When it showed work."""
        self.heard = both(_heard(past), self.running)
        """When it ran and all of its GPUs were heard."""
        self._told = either(self.heard, spans.of(runs == 0))
        """When it is known whether it worked: what does not run does not work."""
        self.price_of = [cache(_priced(known, prices)) for known in past.knowns]
        """For each of the knowns: a day → what an hour of it cost."""
        self._weigh(by_day=bool(prices))
        self._work_ends, self._work_starts = self.work.end.tolist(), self.work.start.tolist()
        self._run_ends, self._run_starts = self._whole.end.tolist(), self._whole.start.tolist()

    def _weigh(self, *, by_day: bool) -> None:
        """GPU seconds and money of what was heard, piece by piece, each at its own price."""
        versions = self._past.versions
        found = cut(self.heard, versions.resource, versions.start, versions.end)
        row = key_of(found.start)
        start, end, known = time_of(found.start), time_of(found.end), versions.known[row]
        resource = versions.resource[row]
        if by_day:
            days = (end - 1) // DAY - start // DAY + 1
            of = np.repeat(np.arange(len(start)), days)
            midnight = (start[of] // DAY + counting(days)) * DAY
            start, end = np.maximum(start[of], midnight), np.minimum(end[of], midnight + DAY)
            known, resource = known[of], resource[of]
        self._pieces = Spans(on_line(resource, start), on_line(resource, end))
        prices = [
            self.price_of[index](day_of(time)) for index, time in zip(known.tolist(), start.tolist(), strict=True)
        ]
        gpus = np.array([round(gpus_of(one) * PARTS) for one in self._past.knowns] or [0], np.int64)[known]
        self._gpus = _Meter(self._pieces, gpus)
        self._money = {
            currency: _Meter(
                self._pieces,
                np.array(
                    [price.rate_micros if price and price.currency == currency else 0 for price in prices], np.int64
                ),
            )
            for currency in sorted({price.currency for price in prices if price is not None})
        }

    def gpu_hours(self, start: Ints, end: Ints) -> Floats:
        """GPU hours heard between two places of one resource."""
        return self._gpus.between(start, end) / PARTS / 3600

    def cost_micros(self, start: Ints, end: Ints, currency: str) -> Ints:
        """What these hours cost, as far as in this currency."""
        meter = self._money.get(currency)
        if meter is None:
            return np.zeros_like(start)
        return np.rint(meter.between(start, end) / 3600).astype(np.int64)

    def resumes(self, place: Ints) -> Ints:
        """Where the same resource next shows work; -1: never again."""
        return _next(self.work, place)

    def runs_until(self, place: Ints) -> Ints:
        """The end of the recorded run it is in."""
        index = np.searchsorted(self._whole.end, place, side="right")
        ends = np.append(self._whole.end, 0)[index]
        return np.where(self._whole.covers(place), ends, place)

    def lasts_until(self, place: int) -> tuple[int, bool]:
        """Up to where a stop there would last, and whether work ends it, not the end of the run. One place, fast."""
        run = bisect_right(self._run_ends, place)
        end = self._run_ends[run] if run < len(self._run_ends) and self._run_starts[run] <= place else place
        work = bisect_right(self._work_ends, place)
        if work < len(self._work_ends) and self._work_starts[work] < end:
            return max(self._work_starts[work], place), True
        return end, False

    def heard_until(self, place: Ints, end: Ints) -> Ints:
        """The last that is heard between two places of one resource; the first of them where nothing is."""
        if not len(self.heard):
            return place
        index = np.searchsorted(self.heard.start, end, side="left") - 1
        return np.where(index < 0, place, np.maximum(place, np.minimum(self.heard.end[np.maximum(index, 0)], end)))

    def told_until(self, place: Ints) -> Ints:
        """Up to where anything is known of the same resource."""
        index = np.searchsorted(self._told.start, (place // LINE + 1) * LINE) - 1
        ends = np.append(self._told.end, 0)[index]
        return np.where((index >= 0) & (ends // LINE == place // LINE), ends, place)

    def followed(self, place: Ints, horizon: int) -> Chosen:
        """Whether work is seen within the horizon."""
        resumed = self.resumes(place)
        return (resumed >= 0) & (resumed - place <= horizon)

    def decided(self, place: Ints, horizon: int, min_coverage: float) -> Chosen:
        """Whether it can be told if work follows: it does, or enough is known of the time in which it could, up to and
        with its last second."""
        known = self._told.within(place, place + horizon) >= min_coverage * horizon
        return self.followed(place, horizon) | (known & (self.told_until(place) > place + horizon))

    def rests(self) -> Spans:
        """Each stretch of a run in which no work was seen, from its first known second to its last."""
        known = _merged(_to_ends(self._whole, self.heard))
        return without(known, self.work)


class _Meter:
    """A rate over pieces of the line, summed up. It may wrap: a difference is right whenever it fits 64 bits itself."""

    def __init__(self, pieces: Spans, rate: Ints) -> None:
        self._pieces = pieces
        self._rate = rate
        self._sums = np.append(0, np.cumsum(rate * pieces.length))

    def between(self, start: Ints, end: Ints) -> Ints:
        return self._upto(end) - self._upto(start)

    def _upto(self, place: Ints) -> Ints:
        if not len(self._pieces):
            return np.zeros_like(place)
        index = np.searchsorted(self._pieces.start, place, side="right") - 1
        at = np.maximum(index, 0)
        inside = np.minimum(place, self._pieces.end[at]) - self._pieces.start[at]
        return np.where(index < 0, 0, self._sums[at] + inside * self._rate[at])


def _next(spans: Spans, place: Ints) -> Ints:
    """Where the same thing next is in one of its stretches; -1: never again."""
    index = np.searchsorted(spans.end, place, side="right")
    start = np.append(spans.start, -LINE)[index]
    return np.where(start // LINE == place // LINE, np.maximum(start, place), -1)


def _to_ends(running: Spans, heard: Spans) -> Spans:
    """Each run from the first second that was heard of it to the last."""
    if not len(running) or not len(heard):
        return Spans(running.start[:0], running.end[:0])
    first = np.searchsorted(heard.end, running.start, side="right")
    last = np.searchsorted(heard.start, running.end, side="left") - 1
    some = first <= last
    start = np.maximum(running.start[some], heard.start[first[some]])
    return Spans(start, np.minimum(running.end[some], heard.end[last[some]]))


def _merged(spans: Spans) -> Spans:
    return union(spans.start, spans.end)


def _whole_runs(past: Past, running: Chosen) -> Spans:
    """From the first version of each run to its last. Of two runs at once the later counts."""
    versions = past.versions
    began = [-1.0 if known.started_at is None else known.started_at.timestamp() for known in past.knowns]
    since = np.array([*began, -1.0])[versions.known][running]
    spans, resource = versions.spans.of(running), versions.resource[running]
    goes_on = (resource[1:] == resource[:-1]) & (since[1:] == since[:-1]) & (since[1:] >= 0)
    end = spans.end.copy()
    end[:-1] = np.where(goes_on, spans.start[1:], end[:-1])
    return union(spans.start, end)


def _runs(known: Known) -> int:
    """1: it runs; 0: it does not; 2: that is not known, or it is nobody's to judge."""
    if known.record.state is State.UNKNOWN or not known.governed:
        return 2
    return int(known.record.state is State.RUNNING)


def _at_work(series: Series, work: Spans, least: int) -> Spans:
    """Where so many GPUs worked at once, or a request was served."""
    owned = work.of(series.resource[key_of(work.start)] >= 0)
    voice = key_of(owned.start)
    counter, by_number = series.counter[voice], series.by_number[voice]
    shown = moved(owned.of(counter), series.resource[voice[counter]])
    for naming in (~by_number, by_number):  # two sources may speak of the same GPUs
        named = ~counter & naming
        many = counted(owned.of(named), series.resource[voice[named]])
        shown = either(shown, many.where(many.value >= least))
    return shown


def _heard(past: Past) -> Spans:
    """Where as many GPUs were heard as there should be."""
    series, versions = past.series, past.versions
    due_of = np.array([*(known.record.gpu_count for known in past.knowns), 0], np.int64)[versions.known]
    spans = versions.spans
    due = weighed(spans.start, spans.end, due_of)
    owner = series.owners
    heard = []
    for by_number in (False, True):  # two sources may speak of the same GPUs
        mine = (series.by_number == by_number) & ~series.counter & (series.resource >= 0)
        spoken = past.spoken.of(mine[key_of(past.spoken.start)])
        whole = moved(spoken, series.gpu[key_of(spoken.start)])
        gpus = counted(whole, owner[key_of(whole.start)])
        at = np.unique(np.concatenate([gpus.at, due.at]))
        wanted = due.at_place(at)
        heard.append(Steps(at, at).where((wanted > 0) & (gpus.at_place(at) >= wanted)))
    return either(*heard)


def _priced(known: Known, prices: PriceFile) -> Callable[[date], Price | None]:
    """A day → the price of an hour then: what the price file says, else what was recorded."""

    def on(day: date) -> Price | None:
        found = price_of(known.record, prices, {}, on=day) if prices else None
        return known.price if found is None else found

    return on
