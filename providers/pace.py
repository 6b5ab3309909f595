"""Turns a cloud's throttling into pauses: how often an account is asked, by all its threads, regions and services
together.

AWS's own adaptive retry mode does not do this: its limiter is one per SDK client, that is per service and region, so
sixteen regions would each find out alone; it never asks slower than once in two seconds; and it slows acts like reads.
Google's and Azure's retry call by call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

FIRST = 10.0
"""Calls a second once a cloud throttles: what EC2 refills of its smaller buckets (10 to 20 a second and region)."""
LEAST = 0.2
"""Calls a second however much it throttles: slower than that, a listing would never end."""
MOST = 50.0
"""Calls a second at which the limit is forgotten: faster than one account ever asked."""
FASTER = 1.05
"""By how much each answer quickens: at one call a second, twice as fast after fifteen of them."""
SLOWER = 0.5


class Pace:
    """Without limit until its cloud throttles, then as often as it lets through, and slowly faster again."""

    def __init__(self, *, now: Callable[[], float] | None = None, sleep: Callable[[float], None] | None = None) -> None:
        self._now = now or time.monotonic
        self._sleep = sleep or time.sleep
        self._lock = Lock()
        self._rate: float | None = None
        self._next = 0.0
        self._slowed_at = 0.0

    @property
    def calls_a_second(self) -> float | None:
        """None without limit."""
        return self._rate

    def turn(self, *, wait: bool = True) -> float:
        """Returns when it is this call's turn, and says when that is. Acts do not wait behind questions."""
        with self._lock:
            now = self._now()
            if self._rate is None or not wait:
                return now
            turn = max(now, self._next)
            self._next = turn + 1 / self._rate
        if turn > now:
            self._sleep(turn - now)
        return turn

    def throttled(self, turn: float) -> None:
        """The call of that turn was one too many. Those sent together slow the rest only once."""
        with self._lock:
            if self._rate is not None and turn < self._slowed_at:
                return
            self._rate = FIRST if self._rate is None else max(LEAST, self._rate * SLOWER)
            self._slowed_at = self._now()
            self._next = max(self._next, self._slowed_at + 1 / self._rate)

    def answered(self) -> None:
        """A call was let through."""
        with self._lock:
            if self._rate is not None:
                faster = self._rate * FASTER
                self._rate = faster if faster < MOST else None
