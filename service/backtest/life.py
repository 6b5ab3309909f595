"""Verdicts over time → warnings and stops: the life of each finding as `service.pipeline.plan` would have led it, with
the policy in `enforce` under every ceiling.

A breach is warned about in the look that finds it; after the grace the first look that still finds it stops. What is
unknown meanwhile waits, what is well again ends it, what is forbidden starts anew. A stopped resource is started again
by whoever resumes work on it, and is then left alone for the cool-down.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from policies.codes import BREACH, FORESEEN, OK, UNKNOWN, WHEN_FALSE, WHEN_UNKNOWN, WHERE_UNKNOWN
from policies.policy import BasePolicy
from service.backtest.judging import Verdicts
from service.backtest.question import NotReplayable
from service.model import Known
from service.pipeline.plan import budget_full

_WAITS = (UNKNOWN, WHERE_UNKNOWN, WHEN_UNKNOWN)
_COUNTED = (OK, BREACH, UNKNOWN, WHEN_UNKNOWN, WHEN_FALSE, FORESEEN)
HOUR = 3600
MOST_STOPS = 1_000_000
"""A thousand machines that are stopped each night of a year are a third of it. Each is a line of a report; of a policy
that stops what works, again and again, there is no end of them."""


@dataclass(frozen=True)
class Warned:
    """A warning that would have been sent."""

    resource: int
    tick: int
    known: int


@dataclass(frozen=True)
class Halted:
    """A stop that would have been made."""

    resource: int
    tick: int
    known: int


@dataclass(frozen=True)
class Lived:
    """What would have happened."""

    warnings: Sequence[Warned]
    stops: Sequence[Halted]
    """In the order of time."""
    waited: int
    """Stops that the disruption budget put off at least once."""


@dataclass
class _Life:
    """The finding of one resource; asked for its next stop, it goes on from where it was."""

    resource: int
    rows: Sequence[tuple[int, int, int, int, bool]]
    """First tick, last tick, what it was, code, blocked: only where there is anything to a finding."""
    projects: Sequence[str | None]
    restarts: Sequence[float]
    """When each of the knowns was last restarted, in Unix seconds."""
    step: int
    grace: int
    warnings: list[Warned]
    row: int = 0
    warned_at: int | None = None
    warned_for: str | None = None

    def next_stop(self, ready: int, *, at_least: int = 0) -> tuple[int, int, int] | None:
        """From `ready` on, and not before `at_least`: the first tick at which it is due and still breached, in which
        hour it fell due, and what it was."""
        while self.row < len(self.rows):
            first, last, known, code, blocked = self.rows[self.row]
            now = max(first, ready)
            if now < last and code not in _WAITS:
                if blocked:
                    self.warned_at = None
                else:
                    tick = max(now, at_least, self._due(now, known))
                    if code == BREACH and tick < last:
                        return tick, self._due_at() // HOUR, known
            self.skip()
        return None

    def _due(self, now: int, known: int) -> int:
        if self.warned_at is None or self._starts_anew(now, known):
            self.warned_at, self.warned_for = now, self.projects[known]
            self.warnings.append(Warned(self.resource, now, known))
        # Warned and due are two looks, however short the grace.
        return max(self.warned_at + 1, -(-self._due_at() // self.step))

    def _due_at(self) -> int:
        assert self.warned_at is not None
        return self.warned_at * self.step + self.grace

    def _starts_anew(self, now: int, known: int) -> bool:
        """It is another project's now, or was restarted since while nobody looked."""
        assert self.warned_at is not None
        restarted = self.warned_at * self.step < self.restarts[known] <= now * self.step
        return self.projects[known] != self.warned_for or restarted

    def stopped(self) -> None:
        self.warned_at = None

    def skip(self) -> None:
        """This stretch is over for it."""
        self.row += 1
        if self.row < len(self.rows) and self.rows[self.row - 1][1] != self.rows[self.row][0]:
            self.warned_at = None  # it was well in between


@dataclass
class _Hour:
    """What was disturbed within the hour."""

    policy: BasePolicy
    step: int
    acts: deque[tuple[int, str, int]] = field(default_factory=deque)
    """Tick, currency, rate."""
    spent: Counter[str] = field(default_factory=Counter)

    def full(self, tick: int, in_scope: int, rate: int | None, currency: str) -> bool:
        while self.acts and self.acts[0][0] * self.step <= tick * self.step - HOUR:
            _, of, less = self.acts.popleft()
            self.spent[of] -= less
        together = None if rate is None else self.spent[currency] + rate
        return budget_full(self.policy, in_scope, len(self.acts), together, currency) is not None

    def add(self, tick: int, rate: int | None, currency: str) -> None:
        self.acts.append((tick, currency, rate or 0))
        self.spent[currency] += rate or 0

    @property
    def frees_at(self) -> int | None:
        """The tick at which the oldest act leaves the hour."""
        return self.acts[0][0] + -(-HOUR // self.step) if self.acts else None


def lived(
    policy: BasePolicy,
    verdicts: Verdicts,
    knowns: Sequence[Known],
    names: Sequence[str],
    *,
    step: int,
    first_tick: int,
    until: Callable[[int, int], tuple[int, bool]],
) -> Lived:
    """Every warning and stop. `until(resource, tick)`: up to which second a stop then lasts, and whether work ends
    it."""
    warnings: list[Warned] = []
    stops: list[Halted] = []
    in_scope = _in_scope(verdicts)
    hour = _Hour(policy, step)
    cool = int(policy.cool_down.total_seconds())
    rates = [known.price.rate_micros if known.price else None for known in knowns]
    currencies = [known.price.currency if known.price else "" for known in knowns]
    lives = _lives(policy, verdicts, knowns, step, warnings)
    waiting: list[tuple[int, int, int, str, int, int]] = []

    def queue(life: _Life, ready: int, at_least: int = 0) -> None:
        found = life.next_stop(ready, at_least=at_least)
        while found is not None and not policy.acts:  # it only tells
            life.skip()
            found = life.next_stop(ready)
        if found is not None:
            tick, due_hour, known = found
            entry = (tick, due_hour, -(rates[known] or 0), names[life.resource])
            heapq.heappush(waiting, (*entry, life.resource, known))

    for life in lives.values():
        queue(life, first_tick)
    put_off: set[tuple[int, int | None]] = set()
    while waiting:
        tick, *_, resource, known = heapq.heappop(waiting)
        life = lives[resource]
        if hour.full(tick, in_scope(tick), rates[known], currencies[known]):
            put_off.add((resource, life.warned_at))
            if hour.frees_at is None:
                life.skip()
                queue(life, tick + 1)
            else:
                queue(life, tick + 1, hour.frees_at)
            continue
        hour.add(tick, rates[known], currencies[known])
        stops.append(Halted(resource, tick, known))
        if len(stops) > MOST_STOPS:
            raise NotReplayable(
                f"it would have stopped more than {MOST_STOPS:,} times; ask of a shorter time or of one project, "
                "or give it a longer cool-down"
            )
        life.stopped()
        end, worked = until(resource, tick)
        queue(life, max(-(-(end + cool if worked else end) // step), tick + 1))
    return Lived(warnings=warnings, stops=stops, waited=len(put_off))


def _lives(
    policy: BasePolicy, verdicts: Verdicts, knowns: Sequence[Known], step: int, warnings: list[Warned]
) -> dict[int, _Life]:
    """One for each resource that was ever in breach."""
    concerned = np.isin(verdicts.code, (BREACH, FORESEEN, *_WAITS))
    ever = np.unique(verdicts.resource[np.isin(verdicts.code, (BREACH, FORESEEN))])
    rows = np.flatnonzero(concerned & np.isin(verdicts.resource, ever))
    columns = [
        column[rows].tolist()
        for column in (
            verdicts.resource,
            verdicts.first,
            verdicts.last,
            verdicts.known,
            verdicts.code,
            verdicts.blocked,
        )
    ]
    found: dict[int, list[tuple[int, int, int, int, bool]]] = {}
    for resource, *row in zip(*columns, strict=True):
        found.setdefault(resource, []).append(tuple(row))
    projects = [known.project for known in knowns]
    restarts = [-math.inf if known.restarted_at is None else known.restarted_at.timestamp() for known in knowns]
    grace = int(policy.grace.total_seconds())
    return {
        resource: _Life(resource, of, projects, restarts, step, grace, warnings)
        for resource, of in sorted(found.items())
    }


def _in_scope(verdicts: Verdicts) -> Callable[[int], int]:
    """How many resources the policy speaks of for certain, at a tick."""
    spoken = np.isin(verdicts.code, _COUNTED) & (verdicts.known >= 0)
    ticks = np.concatenate([verdicts.first[spoken], verdicts.last[spoken]])
    weights = np.repeat(np.array([1, -1]), int(spoken.sum()))
    order = np.argsort(ticks, kind="stable")
    places, counts = ticks[order].tolist(), np.cumsum(weights[order]).tolist()

    def at(tick: int) -> int:
        index = bisect_right(places, tick) - 1
        return counts[index] if index >= 0 else 0

    return at
