"""Tells how the stops of policies were received: how many were regretted beside what a back-test predicted, how far a
rollout has come, and how those it meets fare beside those it only observes. Reads; changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlmodel import Session

from policies.codes import BREACH, FORESEEN, OK, UNKNOWN, WHEN_FALSE, WHEN_UNKNOWN
from policies.policy import BasePolicy
from service.model import RolloutStage, Stops
from service.pipeline import rollout
from service.runtime import View
from service.store import regrets, rollouts
from service.store.documents import Confinement
from service.store.rollouts import Happened

_IN_SCOPE = frozenset({OK, BREACH, UNKNOWN, WHEN_UNKNOWN, WHEN_FALSE, FORESEEN})


@dataclass(frozen=True, kw_only=True)
class Regret:
    """What became of a policy's stops lately, and what a back-test said would."""

    stops: Stops
    predicted: float | None

    @property
    def rate(self) -> float | None:
        return self.stops.regretted / self.stops.decided if self.stops.decided else None

    @property
    def words(self) -> str:
        """`2 of 31 stops were regretted (6 %); the back-test predicted 1 %.`"""
        said = rollout.of_stops(self.stops)
        if self.predicted is None:
            return f"{said}; no back-test of the policy as it is predicts how many will be."
        return f"{said}; the back-test predicted {rollout.percent(self.predicted)}."


def regret_of(
    session: Session, policies: Iterable[BasePolicy], now: datetime, *, sees: Confinement
) -> dict[str, Regret]:
    """Of every policy that could act, as far as a reader sees it: of his projects, and by back-tests of those."""
    observed = regrets.observed(session, now, sees=sees)
    return {
        policy.name: Regret(
            stops=observed.get(policy.name, Stops()), predicted=regrets.predicted(session, policy, sees=sees)
        )
        for policy in policies
        if policy.acts
    }


@dataclass(frozen=True, kw_only=True)
class Stand:
    """Where a rollout is."""

    stage: RolloutStage
    stops: Stops
    """Decided since its present step began."""
    next_step_at: datetime | None
    words: str


def stand_of(session: Session, policies: Iterable[BasePolicy], now: datetime, *, sees: Confinement) -> dict[str, Stand]:
    """Of every policy that has a rollout; as the next cycle will find it. A reader learns of the stops of his projects
    only, and that there were too many of all."""
    chosen = {policy.name: policy for policy in policies if policy.rollout is not None}
    before, stops = rollouts.read(session, chosen.values(), now)
    found = {}
    for name, now_at in rollout.all_advanced(chosen.values(), before, stops, now).items():
        stage, decided = now_at, stops.get(name, Stops())
        if sees is not None:
            decided = regrets.since_step(session, {name: stage}, now, sees=sees)[name]
            stage = replace(stage, reason="too many of its stops were regretted.") if stage.fallen_back_at else stage
        since_began = decided if before.get(name) == now_at or stage.fallen_back_at else Stops()
        found[name] = Stand(
            stage=stage,
            stops=since_began,
            next_step_at=rollout.next_step_at(chosen[name], stage),
            words=rollout.words(chosen[name], stage, since_began, now),
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """What became of one of the two groups since the present step began, until it fell back if it did."""

    resources: int | None
    """In scope at the last look, a group with its members as one; None before the first."""
    findings: int
    """Opened since."""
    outlasted_grace: int
    """Of those: still breached one grace later, so that acting was due, or would have been."""
    stops: int
    snoozes: int
    undos: int
    restarts: int


def compared(
    session: Session, policy: BasePolicy, stage: RolloutStage, view: View | None, now: datetime, *, sees: Confinement
) -> Mapping[str, Group]:
    """`enforced`, and `observed`."""
    assert policy.rollout is not None
    share = policy.rollout.shares[stage.step]  # 0 by now, where it fell back
    until = stage.fallen_back_at or now
    happened = rollouts.happened(session, stage, until, sees=sees)
    unit_of = rollout.units(view.resources.values()) if view else {}

    def met(resource_id: str) -> bool:
        return rollout.holds(share, policy.name, unit_of.get(resource_id, resource_id))

    there = None if view is None else Counter(met(one) for one in _in_scope(view, policy.name, sees))
    return {
        name: _group(
            happened,
            policy,
            resources=None if there is None else there[enforced],
            mine=lambda resource_id, enforced=enforced: met(resource_id) is enforced,  # type: ignore[misc]
            until=until,
        )
        for name, enforced in (("enforced", True), ("observed", False))
    }


def _group(
    happened: Happened,
    policy: BasePolicy,
    *,
    resources: int | None,
    mine: Callable[[str], bool],
    until: datetime,
) -> Group:
    found = [breach for breach in happened.findings if mine(breach.resource_id)]
    return Group(
        resources=resources,
        findings=len(found),
        outlasted_grace=sum((breach.closed_at or until) - breach.opened_at >= policy.grace for breach in found),
        stops=sum(map(mine, happened.stops)),
        snoozes=sum(map(mine, happened.snoozes)),
        undos=sum(map(mine, happened.undos)),
        restarts=sum(map(mine, happened.restarts)),
    )


def _in_scope(view: View, policy: str, sees: Confinement) -> Iterator[str]:
    """Resources that the policy speaks of for certain."""
    outcome = view.judged.judgement.outcomes.get(policy)
    if outcome is None:
        return
    for resource_id, row in view.judged.rows.items():
        seen = sees is None or view.resources[resource_id].project in sees
        if seen and row not in outcome.folded.spoken_for and outcome.codes[row] in _IN_SCOPE:
            yield resource_id
