"""What GPUs did, as functions of time: for any device and second the same answer, so that nothing need be stored.

Small scripts that combine: `Until(moment=…, first=Busy(), then=Idle())`. Turning them into series is telemetry's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo


class Load(NamedTuple):
    """One GPU at one moment."""

    utilisation: float
    """Ratio of time the engine was active."""
    memory: float
    """Share of its memory that is held. Held is not used: an inference server waits with its model loaded."""
    requests: int | None = None
    """Requests served so far, where something serves."""


class Activity(Protocol):
    """A script. None is a sample that never came."""

    def __call__(self, device: int, second: int) -> Load | None: ...


def noise(seed: int, device: int, minute: int) -> float:
    """0..1, looking random, the same for the same arguments for ever."""
    mixed = (minute * 2654435761 ^ device * 40503 ^ seed * 97) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x45D9F3B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x45D9F3B & 0xFFFFFFFF
    return (mixed ^ mixed >> 16) / 0xFFFFFFFF


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Training: near its level, never quite steady."""

    level: float = 0.93
    memory: float = 0.85
    seed: int = 0

    def __call__(self, device: int, second: int) -> Load | None:
        return Load(self.level * (0.88 + 0.12 * noise(self.seed, device, second // 60)), self.memory)


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Nothing runs, though memory may still be held."""

    memory: float = 0.0

    def __call__(self, device: int, second: int) -> Load | None:
        return Load(0.0, self.memory)


@dataclass(frozen=True)
class Silent:
    """No exporter, no agent: no sample ever."""

    def __call__(self, device: int, second: int) -> Load | None:
        return None


@dataclass(frozen=True, kw_only=True)
class Until:
    """One script until a moment, another from then on."""

    moment: datetime
    first: Activity = field(default_factory=Busy)
    then: Activity = field(default_factory=Idle)

    @cached_property
    def _second(self) -> float:
        return self.moment.timestamp()

    def __call__(self, device: int, second: int) -> Load | None:
        return (self.first if second < self._second else self.then)(device, second)


@dataclass(frozen=True, kw_only=True)
class Spare:
    """Some devices do otherwise than the rest: the job took seven GPUs of eight."""

    devices: frozenset[int]
    others: Activity = field(default_factory=Busy)
    spare: Activity = field(default_factory=Idle)

    def __call__(self, device: int, second: int) -> Load | None:
        return (self.spare if device in self.devices else self.others)(device, second)


@dataclass(frozen=True, kw_only=True)
class Hours:
    """One script in certain hours of certain days of a person's own zone, another outside of them.

    `start` after `end` reaches over midnight, and the hours after it count as their own day.
    """

    zone: str = "UTC"
    start: int = 9
    end: int = 18
    days: frozenset[int] = frozenset(range(5))
    """Monday is 0."""
    inside: Activity = field(default_factory=Busy)
    outside: Activity = field(default_factory=Idle)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)

    def __call__(self, device: int, second: int) -> Load | None:
        local = datetime.fromtimestamp(second, self._zone)
        within = (
            self.start <= local.hour < self.end
            if self.start <= self.end
            else local.hour >= self.start or local.hour < self.end
        )
        return (self.inside if within and local.weekday() in self.days else self.outside)(device, second)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """An inference server: the model stays loaded, a request comes now and then and takes a minute."""

    every: timedelta
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    """When one of the requests comes; the others follow and precede it."""
    memory: float = 0.8

    @cached_property
    def _phase(self) -> int:
        return int(self.at.timestamp() % self.every.total_seconds())

    def __call__(self, device: int, second: int) -> Load | None:
        served, since = divmod(second - self._phase, int(self.every.total_seconds()))
        return Load(0.35 if since < 60 else 0.0, self.memory, served)


@dataclass(frozen=True, kw_only=True)
class Thin:
    """Telemetry with holes: a few minutes of samples, then a long gap, over and over."""

    of: Activity = field(default_factory=Idle)
    spoken_minutes: int = 6
    cycle_minutes: int = 20

    def __call__(self, device: int, second: int) -> Load | None:
        return self.of(device, second) if second // 60 % self.cycle_minutes < self.spoken_minutes else None
