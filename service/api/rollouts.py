"""`/policies/{name}/rollout`: how far a policy has come in its scope, how those it meets fare beside those it only
observes, and letting it begin anew after it fell back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ConfigDict
from sqlmodel import Session

from policies.policy import BasePolicy
from policies.quantities import format_share
from service import canary
from service.api.auth import Caller, TheRuntime, require
from service.api.problems import not_found, responses
from service.api.shapes import Reason, Shape
from service.api.writes import Done, TheWrite
from service.canary import Stand
from service.people import NotPossible
from service.pipeline import rollout
from service.store import documents, rollouts
from service.store.documents import Confinement

router = APIRouter(prefix="/policies", tags=["policies"])


class RegretMark(Shape):
    """How the policy's own stops of the last 90 days were received."""

    decided: int
    """Regretted, or older than the two hours within which a restart would be regret."""
    regretted: int
    """Undone by a person, or their machine started again within two hours."""
    rate: float | None
    predicted: float | None
    """By the newest back-test of the policy as it is, that looked two hours ahead too."""
    words: str


class RolloutMark(Shape):
    """How far the rollout has come."""

    share: str
    """Of its scope, that is met; `0%` after it fell back."""
    step: int
    """0: the first share."""
    since: datetime
    """When this step began."""
    next_step_at: datetime | None
    """When it may rise; null: not by itself."""
    fallen_back_at: datetime | None
    decided: int
    """Stops decided in this step."""
    regretted: int
    words: str


class GroupAnswer(Shape):
    """What became of one group since the step began, until it fell back if it did."""

    resources: int | None
    """In scope at the last look, a group with its members as one; null before the first look."""
    findings: int
    """Opened since."""
    outlasted_grace: int
    """Of those, still in breach one grace later: acted on, or would have been."""
    stops: int
    snoozes: int
    undos: int
    restarts: int
    """Started again within two hours after a stop."""


class Groups(Shape):
    """Those that the policy meets, and those that it only observes so far."""

    enforced: GroupAnswer
    observed: GroupAnswer


class RolloutAnswer(RolloutMark):
    """How far the rollout has come, and what came of it."""

    policy: str
    groups: Groups
    regret: RegretMark | None


class Resumption(Shape):
    """Why it may begin anew."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


@router.get("/{name}/rollout", responses=responses(404), summary="How far a policy's rollout has come")
def get_rollout(runtime: TheRuntime, principal: Caller, name: str) -> RolloutAnswer:
    """404 too for a policy that has none."""
    with runtime.database.reading() as session:
        among = documents.names_seen(session, "policy", principal.projects)
        policy = _rolled_out(session, name) if among is None or name in among else None
        if policy is None:
            raise not_found("rollout", name)
        now = runtime.clock.now()
        stand = canary.stand_of(session, [policy], now, sees=principal.projects)[name]
        groups = canary.compared(session, policy, stand.stage, runtime.view, now, sees=principal.projects)
        regret = canary.regret_of(session, [policy], now, sees=principal.projects).get(name)
    return RolloutAnswer(
        **_mark(stand).model_dump(),
        policy=name,
        groups=Groups(**{key: GroupAnswer(**asdict(group)) for key, group in groups.items()}),
        regret=None if regret is None else _regret(regret),
    )


@router.post(
    "/{name}/rollout/resume",
    responses=responses(404, 409, 413),
    response_model=RolloutMark,
    summary="Let a rollout that fell back begin anew",
)
def resume_rollout(write: TheWrite, name: str, body: Resumption) -> JSONResponse:
    """With its first share, from the next cycle on; what was regretted before is forgiven."""
    require(write.principal, "rollout")

    def work(session: Session) -> Done:
        policy, now = _rolled_out(session, name), write.runtime.clock.now()
        if policy is None:
            raise not_found("rollout", name)
        begun = rollout.begun(policy, now)
        if not rollouts.resume(session, begun, by=write.principal.actor, reason=body.reason, now=now):
            raise NotPossible("NotFallenBack", f"the rollout of policy {name!r} has not fallen back")
        return Done(body=_mark(canary.stand_of(session, [policy], now, sees=None)[name]))

    return write.once(work)


def told(
    session: Session, policies: Iterable[BasePolicy], now: datetime, *, sees: Confinement
) -> dict[str, dict[str, Any]]:
    """Policy → what its metadata tells besides."""
    policies = list(policies)
    found: dict[str, dict[str, Any]] = {policy.name: {} for policy in policies}
    for name, regret in canary.regret_of(session, policies, now, sees=sees).items():
        found[name]["regret"] = _regret(regret).model_dump(mode="json")
    for name, stand in canary.stand_of(session, policies, now, sees=sees).items():
        found[name]["rollout"] = _mark(stand).model_dump(mode="json")
    return found


def _rolled_out(session: Session, name: str) -> BasePolicy | None:
    row = documents.find(session, "policy", name)
    policy = None if row is None else documents.policy_in(row)
    return None if policy is None or policy.rollout is None else policy


def _mark(stand: Stand) -> RolloutMark:
    stage = stand.stage
    return RolloutMark(
        share=format_share(stage.share),
        step=stage.step,
        since=stage.since,
        next_step_at=stand.next_step_at,
        fallen_back_at=stage.fallen_back_at,
        decided=stand.stops.decided,
        regretted=stand.stops.regretted,
        words=stand.words,
    )


def _regret(regret: canary.Regret) -> RegretMark:
    return RegretMark(
        decided=regret.stops.decided,
        regretted=regret.stops.regretted,
        rate=regret.rate,
        predicted=regret.predicted,
        words=regret.words,
    )
