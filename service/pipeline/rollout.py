"""Says to which share of its scope a policy's rollout has come, whom that share holds, and when it rises or falls back.
Pure.

Stops and their regret are counted by the store; what a stop needs besides is `plan`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from policies.policy import BasePolicy, Rollout
from policies.quantities import format_share
from service.model import Known, Message, RolloutStage, Stops
from service.pipeline.evaluate import members_in

_DECIDES_NOTHING = {"description", "notify"}


def holds(share: float, policy: str, unit: str) -> bool:
    """Whether that share of the policy's scope holds this one: by a hash of both, so that it is always the same ones,
    others for each policy, and none leaves as the share rises."""
    if share >= 1:
        return True
    place = int.from_bytes(hashlib.sha256(f"{policy}\0{unit}".encode()).digest())
    return place < int(share * 2**53) << (256 - 53)  # exact: 2**53 is as fine as a float's parts of 1 are


def units(resources: Iterable[Known]) -> Mapping[str, str]:
    """Member → its group: a group is in or out with all that it has. Whatever is no key here is a unit by itself."""
    return {member.id: group for group, members in members_in(resources).items() for member in members}


def fingerprint(policy: BasePolicy) -> str:
    """Of what a person wrote, but for what it says of itself and whom it tells: a policy with another one is another
    policy, and begins anew. Not of defaults, so that nothing begins anew because Curfew was upgraded."""
    body = policy.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_DECIDES_NOTHING)
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def begun(policy: BasePolicy, now: datetime) -> RolloutStage:
    """At the first share."""
    assert policy.rollout is not None
    return RolloutStage(
        policy=policy.name,
        fingerprint=fingerprint(policy),
        step=0,
        share=policy.rollout.share,
        began_at=now,
        since=now,
        reason="It begins with this share.",
    )


def advanced(policy: BasePolicy, before: RolloutStage | None, stops: Stops, now: datetime) -> RolloutStage:
    """Where the rollout stands now: one step up when its time has come and few enough stops were regretted, nowhere
    when too many were. What fell back stays there, until the policy is changed or a person lets it begin anew."""
    rollout = policy.rollout
    assert rollout is not None
    if before is None or before.fingerprint != fingerprint(policy) or before.step >= len(rollout.shares):
        return begun(policy, now)
    if before.fallen_back_at is not None:
        return before
    if too_many(rollout, stops):
        why = f"{of_stops(stops)}, more than the {format_share(rollout.max_false_stops)} it may have."
        return replace(before, share=0.0, fallen_back_at=now, reason=why)
    if before.step + 1 == len(rollout.shares) or now < before.since + rollout.every:
        return before
    if stops.decided < rollout.min_stops:
        return before
    step = before.step + 1
    why = f"It rose from {format_share(rollout.shares[before.step])}: {_lower(of_stops(stops))}."
    return replace(before, step=step, share=rollout.shares[step], since=now, reason=why)


def too_many(rollout: Rollout, stops: Stops) -> bool:
    """One regretted stop is known at once; the many good ones beside it only when their time is over. That makes it
    fall back too early rather than too late."""
    return stops.regretted > round(rollout.max_false_stops * stops.decided, 9)


def all_advanced(
    policies: Iterable[BasePolicy],
    before: Mapping[str, RolloutStage],
    stops: Mapping[str, Stops],
    now: datetime,
) -> dict[str, RolloutStage]:
    """Of every policy that has a rollout."""
    return {
        policy.name: advanced(policy, before.get(policy.name), stops.get(policy.name, Stops()), now)
        for policy in policies
        if policy.rollout is not None
    }


def next_step_at(policy: BasePolicy, stage: RolloutStage) -> datetime | None:
    """When its share may rise next; None: never by itself."""
    rollout = policy.rollout
    if rollout is None or stage.fallen_back_at is not None or stage.step + 1 >= len(rollout.shares):
        return None
    return stage.since + rollout.every


def words(policy: BasePolicy, stage: RolloutStage, stops: Stops, now: datetime) -> str:
    """Where it stands and what comes next, in sentences."""
    rollout = policy.rollout
    assert rollout is not None
    if stage.fallen_back_at is not None:
        return f"It has fallen back and only observes, until a person resumes it or changes it: {stage.reason}"
    said = f"{format_share(stage.share)} of its scope since {stage.since.isoformat()}; {_lower(of_stops(stops))}."
    at = next_step_at(policy, stage)
    if at is None:
        return said + (" That is its last step." if rollout.steps else " It rises only when the policy is changed.")
    rises = f"to {format_share(rollout.shares[stage.step + 1])}"
    if now < at:
        return f"{said} It rises {rises} at {at.isoformat()}, if {rollout.min_stops} stops are decided by then."
    return f"{said} It waits to rise {rises} until {rollout.min_stops} stops are decided."


def of_stops(stops: Stops) -> str:
    """`2 of 31 stops were regretted (6 %)`"""
    if not stops.decided:
        return "No stop is decided yet"
    one = stops.decided == 1
    told = f"{stops.regretted} of {stops.decided} stop{'' if one else 's'} {'was' if one else 'were'} regretted"
    return f"{told} ({percent(stops.regretted / stops.decided)})"


def percent(rate: float) -> str:
    """`6 %`; small ones with what tells them from nothing."""
    hundredths = 100 * rate
    return f"{hundredths:.0f} %" if hundredths >= 2 or not hundredths else f"{hundredths:.2g} %"


def _lower(said: str) -> str:
    return said[:1].lower() + said[1:]


def messages(policy: BasePolicy, stage: RolloutStage, now: datetime) -> list[Message]:
    """That it fell back: to the policy's own channels (without any, the installation's) and to the owners of the
    projects that it names."""
    payload: dict[str, Any] = {
        "policy": policy.name,
        "timezone": "UTC",
        "reason": stage.reason,
        "share": format_share(policy.rollout.shares[stage.step]) if policy.rollout else None,
        "at": now.isoformat(),
    }
    key = f"rollout:{policy.name}:{now.isoformat()}"
    told = [Message(kind="rollout", key=key, project=None, policy_channels=policy.notify, payload=payload)]
    return told + [
        Message(
            kind="rollout",
            key=f"{key}:{project}",
            project=project,
            policy_channels=(),
            payload=payload | {"project": project},
        )
        for project in policy.scope.projects
    ]
