"""Stretches of time of many things at once: unions, overlaps and counts, on sorted arrays. Knows nothing of GPUs.

Everybody's time is laid one behind the other on one line: thing `k` at second `t` is at `k * LINE + t`. So a stretch is
a pair of integers, and things never touch each other. Stretches are half-open, sorted and disjoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
LINE = 1 << 36
"""Longer than any time and everything that is added to it."""


def on_line(key: Ints, time: Ints) -> Ints:
    """Where these things are at these seconds."""
    return key * LINE + time


def key_of(place: Ints) -> Ints:
    return place // LINE


def time_of(place: Ints) -> Ints:
    return place % LINE


@dataclass(frozen=True)
class Spans:
    """Stretches on the line."""

    start: Ints
    end: Ints

    def __len__(self) -> int:
        return len(self.start)

    @property
    def length(self) -> Ints:
        return self.end - self.start

    def covers(self, place: Ints) -> NDArray[np.bool_]:
        """Whether each of these places lies in a stretch."""
        if not len(self):
            return np.zeros(len(place), bool)
        index = np.searchsorted(self.start, place, side="right") - 1
        return (index >= 0) & (place < self.end[np.maximum(index, 0)])

    def before(self, place: Ints) -> Ints:
        """How many seconds of the line before each of these places lie in a stretch."""
        if not len(self):
            return np.zeros(len(place), np.int64)
        ends = np.cumsum(self.length)
        index = np.searchsorted(self.start, place, side="right") - 1
        at = np.maximum(index, 0)
        return np.where(index < 0, 0, ends[at] - np.maximum(self.end[at] - place, 0))

    def within(self, start: Ints, end: Ints) -> Ints:
        """How many seconds of each of these stretches lie in ours."""
        return self.before(end) - self.before(start)

    def of(self, chosen: NDArray[np.bool_]) -> Spans:
        return Spans(self.start[chosen], self.end[chosen])


NONE = Spans(np.zeros(0, np.int64), np.zeros(0, np.int64))


def union(start: Ints, end: Ints, *, reach: int = 0) -> Spans:
    """Whatever any of these covers; two that are at most `reach` apart become one. Empty ones are dropped."""
    full = end > start
    start, end = start[full], end[full]
    if not len(start):
        return NONE
    if (start[1:] < start[:-1]).any():
        order = np.argsort(start, kind="stable")
        start, end = start[order], end[order]
    end = np.maximum.accumulate(end)
    first = np.empty(len(start), bool)
    first[0] = True
    first[1:] = start[1:] > end[:-1] + reach
    last = np.append(first[1:], True)
    return Spans(start[first], end[last])


def both(one: Spans, other: Spans) -> Spans:
    """Where both are."""
    return at_least(2, [one, other])


def either(one: Spans, other: Spans) -> Spans:
    return union(np.concatenate([one.start, other.start]), np.concatenate([one.end, other.end]))


def without(one: Spans, other: Spans) -> Spans:
    """Where one is and the other is not."""
    places = np.concatenate([one.start, one.end, other.start, other.end])
    weights = np.repeat(np.array([2, -2, -1, 1]), [len(one), len(one), len(other), len(other)])
    steps = stepped(places, weights)
    return steps.where(steps.value == 2)


def at_least(count: int, many: Sequence[Spans]) -> Spans:
    """Where at least so many of them are."""
    places = np.concatenate([side for spans in many for side in (spans.start, spans.end)])
    weights = np.concatenate([np.repeat(np.array([1, -1]), len(spans)) for spans in many])
    steps = stepped(places, weights)
    return steps.where(steps.value >= count)


@dataclass(frozen=True)
class Steps:
    """A number along the line: `value[i]` holds from `at[i]` up to `at[i + 1]`; before the first it is 0."""

    at: Ints
    value: Ints

    def where(self, chosen: NDArray[np.bool_]) -> Spans:
        """The stretches where it is one of the chosen."""
        if not len(self.at):
            return NONE
        end = np.append(self.at[1:], self.at[-1])
        return union(self.at[chosen], end[chosen])

    def at_place(self, place: Ints) -> Ints:
        """What it is at each of these places."""
        if not len(self.at):
            return np.zeros(len(place), np.int64)
        index = np.searchsorted(self.at, place, side="right") - 1
        return np.where(index < 0, 0, self.value[np.maximum(index, 0)])


def stepped(places: Ints, weights: Ints) -> Steps:
    """The sum of the weights of all places up to each place."""
    if not len(places):
        return Steps(places, weights)
    order = np.argsort(places, kind="stable")
    at, value = places[order], np.cumsum(weights[order])
    last = np.append(at[1:] != at[:-1], True)
    return Steps(at[last], value[last])


def moved(spans: Spans, to: Ints) -> Spans:
    """The same times of other things: `to` says for each stretch whose they become. Those that then meet are one."""
    return union(on_line(to, time_of(spans.start)), on_line(to, time_of(spans.end)))


def counted(spans: Spans, of: Ints) -> Steps:
    """How many of these stretches there are at once; `of` says for each of them whose it is."""
    return weighed(on_line(of, time_of(spans.start)), on_line(of, time_of(spans.end)), np.ones_like(of))


def weighed(start: Ints, end: Ints, weight: Ints) -> Steps:
    """The sum of what each weighs between its two places."""
    return stepped(np.concatenate([start, end]), np.concatenate([weight, -weight]))


def enough(spans: Spans, *, window: int, needed: int) -> Spans:
    """Every end of a window of that length in which the stretches of its own thing fill at least `needed` seconds.

    What a sliding window holds rises and falls by one for each second, or stays: it changes its slope where a stretch
    begins or ends, and again a window later.
    """
    if not len(spans):
        return NONE
    places = np.concatenate([spans.start, spans.end, spans.start + window, spans.end + window])
    slopes = stepped(places, np.repeat(np.array([1, -1, -1, 1]), len(spans)))
    at, slope = slopes.at, slopes.value
    ahead = np.append(np.diff(at), 0)
    held = np.concatenate([[0], np.cumsum(slope * ahead)[:-1]])
    missing = needed - held
    start = np.where(slope > 0, at + np.maximum(missing, 0), np.where(missing <= 0, at, at + ahead))
    end = np.where(slope < 0, np.minimum(at + ahead, at - missing + 1), at + ahead)
    return union(start, end)


def counting(count: Ints) -> Ints:
    """0, 1, … for each of them anew."""
    return np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)


def cut(spans: Spans, key: Ints, start: Ints, end: Ints) -> Spans:
    """The parts of each thing's stretches within its [start, end); on a line of its own for each of these parts."""
    if not len(spans) or not len(key):
        return NONE
    low = np.searchsorted(spans.end, on_line(key, start), side="right")
    count = np.maximum(np.searchsorted(spans.start, on_line(key, end), side="left") - low, 0)
    part = np.repeat(np.arange(len(key)), count)
    chosen = np.repeat(low, count) + counting(count)
    began = np.maximum(time_of(spans.start[chosen]), start[part])
    ended = np.minimum(time_of(spans.end[chosen]), end[part])
    return union(on_line(part, began), on_line(part, ended))
