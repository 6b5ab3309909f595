"""Turns a cloud's throttling into pauses: how often an account is asked, by all its threads, regions and services
together.

AWS's own adaptive retry mode does not do this: its limiter is one per SDK client, that is per service and region, so
sixteen regions would each find out alone; it never asks slower than once in two seconds; and it slows acts like reads.
Google's and Azure's retry call by call.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from providers.errors import ProviderError, Throttled, Unreachable

T = TypeVar("T")

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


def retry_after(said: object) -> float | None:
    """Seconds, from a Retry-After header or its like. None where it is a date, something else, or was not said."""
    return float(said) if isinstance(said, str) and re.fullmatch(r"\d+(\.\d+)?", said) else None


PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 20.0
"""Before the second attempt, and twice as long before each further one, unless the cloud says when to come back."""


def answered_in_the_end(
    question: Callable[[], T],
    *,
    pace: Pace,
    attempts: int,
    prompt: bool,
    sleep: Callable[[float], None],
    monotonic: Callable[[], float],
    latest_seconds: float = math.inf,
    hopeless: tuple[type[ProviderError], ...] = (),
) -> T:
    """The answer to a question that is asked at that pace, and again where it was one too many or had no answer.

    `prompt`: it waits behind no other. `latest_seconds`: no further attempt begins later than this after the first.
    `hopeless`: errors that another attempt would meet too.
    """
    pause, latest = PAUSE_SECONDS, monotonic() + latest_seconds
    while True:
        turn = pace.turn(wait=not prompt)
        try:
            answer = question()
        except (Throttled, Unreachable) as error:
            if isinstance(error, Throttled):
                pace.throttled(turn)
            attempts -= 1
            wait = max(pause, error.retry_after or 0.0)
            too_late = wait > LONGEST_PAUSE_SECONDS or monotonic() + wait > latest
            if attempts <= 0 or too_late or isinstance(error, hopeless):
                raise
            sleep(wait)
            pause *= 2
        else:
            pace.answered()
            return answer
