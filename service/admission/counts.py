"""What the admission process counts of its reviews, as a Prometheus page. Labels are bounded: no pod, no person."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from policies.policy import Mode

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Seconds. The API server waits two at most."""
HEAD = {
    "curfew_admission_reviews_total": (
        "counter",
        "New pods by what came of them; dry runs are not counted.",
    ),
    "curfew_admission_review_duration_seconds": ("histogram", "How long a review took, from its body to its answer."),
    "curfew_admission_snapshot_timestamp_seconds": ("gauge", "When the cycle looked that pods are judged on."),
    "curfew_admission_open": ("gauge", "1 while every pod is let in because no snapshot is fit to judge on."),
}


class Counts:
    """Of this process. Filled by one thread, the event loop's."""

    def __init__(self) -> None:
        self.reviews: Counter[tuple[str, str, str]] = Counter()
        self._within = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0

    def reviewed(self, verdict: str, policy: str = "", mode: Mode | None = None) -> None:
        self.reviews[verdict, policy, "" if mode is None else mode.value] += 1

    def took(self, seconds: float) -> None:
        self._within[bisect_left(BUCKETS, seconds)] += 1
        self._seconds += seconds

    def page(self, *, snapshot_at: datetime | None, open_: bool) -> str:
        return "\n".join(self._lines(snapshot_at, open_)) + "\n"

    def _lines(self, snapshot_at: datetime | None, open_: bool) -> Iterator[str]:
        reviews, duration, timestamp, opened = HEAD
        yield from _head(reviews)
        for (verdict, policy, mode), count in sorted(self.reviews.items()):
            yield f'{reviews}{{verdict="{verdict}",policy="{policy}",mode="{mode}"}} {count}'
        yield from _head(duration)
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._within, strict=True):
            total += count
            yield f'{duration}_bucket{{le="{bound}"}} {total}'
        yield f"{duration}_sum {self._seconds:.6f}"
        yield f"{duration}_count {total}"
        if snapshot_at is not None:
            yield from _head(timestamp)
            yield f"{timestamp} {snapshot_at.timestamp()}"
        yield from _head(opened)
        yield f"{opened} {int(open_)}"


def _head(name: str) -> Iterator[str]:
    type_, words = HEAD[name]
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {type_}"
