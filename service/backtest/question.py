"""What a back-test is asked: a policy, a stretch of the past, and what counts as a false stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from policies.policy import BasePolicy, IdlePolicy
from service.documents import Project
from service.model import FALSE_STOP_WITHIN
from service.pipeline.price import PriceFile

HORIZONS = (timedelta(hours=1), timedelta(hours=2), timedelta(hours=6), timedelta(hours=12))
"""The table of false stops."""
STEP = timedelta(seconds=60)
"""How often Curfew looks, unless an installation says otherwise."""


class NotReplayable(ValueError):
    """The policy cannot be replayed on a history, and why."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points that are tried beside the policy's own: each idle window with each threshold and each grace."""

    windows: Sequence[timedelta]
    thresholds: Sequence[float]
    graces: Sequence[timedelta]

    @property
    def points(self) -> int:
        return len(self.windows) * len(self.thresholds) * len(self.graces)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One back-test."""

    policy: BasePolicy
    start: datetime | None = None
    """Nothing is stopped before; None: from the beginning of the history."""
    end: datetime | None = None
    """Nothing is known after; None: to its end."""
    project: str | None = None
    """Only what belonged to it."""
    horizon: timedelta = FALSE_STOP_WITHIN
    """A stop is false when work is seen within this time after it."""
    step: timedelta = STEP
    """How far one look is from the next."""
    max_false_stops: float = 0.01
    """The share of false stops that the owner would bear; the sweep recommends below it."""
    sweep: Sweep | None = None
    projects: Mapping[str, Project] = field(default_factory=dict)
    """Today's, for the clocks of schedules and days."""
    prices: PriceFile = field(default_factory=PriceFile)
    """What it says of a day wins over what was recorded."""


def usual_sweep(policy: BasePolicy) -> Sweep | None:
    """Five windows × four thresholds × three graces around what people choose, and the policy's own of each."""
    if not isinstance(policy, IdlePolicy):
        return None
    profile = policy.idle

    def minutes(*lengths: int, own: timedelta) -> list[timedelta]:
        return sorted({own, *(timedelta(minutes=length) for length in lengths)})

    return Sweep(
        windows=minutes(15, 30, 45, 90, 180, own=profile.for_),
        thresholds=sorted({profile.utilisation_below, 0.01, 0.05, 0.1, 0.2}),
        graces=minutes(15, 30, 60, own=policy.grace),  # nobody is stopped without time to object
    )
