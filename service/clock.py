"""Where `now` comes from. Only this module reads the machine's clock; everything else is handed a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the governed time: UTC, whole seconds."""

    def now(self) -> datetime: ...


class RealClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC).replace(microsecond=0)


class AcceleratedClock:
    """The demo's clock: starts at `start` and runs `speed` times as fast as real time."""

    def __init__(self, *, start: datetime, speed: float) -> None:
        self._start = start
        self._speed = speed
        self._began = time.monotonic()

    def now(self) -> datetime:
        elapsed = timedelta(seconds=(time.monotonic() - self._began) * self._speed)
        return (self._start + elapsed).replace(microsecond=0)


class SetClock:
    """A clock that stands where it was set: tests and back-tests move it by hand."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def forward(self, by: timedelta) -> datetime:
        self.at += by
        return self.at
