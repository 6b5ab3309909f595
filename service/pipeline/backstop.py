"""Decides how long clouds themselves may let machines run, for lifetime policies that ask for it, and tells them.

A backstop: should Curfew not be there, the cloud ends what has outlived its time. It comes later than anything Curfew
would do, is set only while a machine is stopped, and never in the place of a limit that somebody else has set. What is
wanted is pure; `set_backstops` is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import uuid4

import structlog
from sqlmodel import Session

from policies.codes import OK
from policies.policy import LifetimePolicy, Mode
from policies.quantities import format_duration
from providers.contract import Provider
from providers.errors import Conflict, ProviderError
from providers.records import State
from service.documents import Exemption
from service.model import ActiveHold, Known
from service.pipeline.enforce import LOOK_AGAIN_AT_REFUSED, Hands, reachable
from service.pipeline.evaluate import Judged
from service.pipeline.plan import InForce, Limits, effective_mode, exemption_for, hold_for, why_not
from service.store import audit, lease, resources
from service.store.findings import active_holds

log = structlog.get_logger()
LONGEST = timedelta(days=120)
"""No cloud counts longer; what may run for longer has no limit."""


@dataclass(frozen=True, kw_only=True)
class Backstop:
    """How long each further run of a stopped machine may last."""

    known: Known
    seconds: int | None
    """None: what we had set is taken back."""
    reason: str


def backstops(
    resources: Iterable[Known],
    judged: Judged,
    policies: Mapping[str, InForce],
    exemptions: Sequence[Exemption],
    holds: Sequence[ActiveHold],
    limits: Limits,
    now: datetime,
) -> list[Backstop]:
    """What should be set, and is not. What is on hold stays as it is."""
    asking = [
        in_force.policy
        for in_force in policies.values()
        if isinstance(in_force.policy, LifetimePolicy) and in_force.policy.lifetime.backstop is not None
    ]
    found = []
    for known in resources:
        if known.record.state is not State.STOPPED or hold_for(known.project, holds):
            continue
        wanted = _wanted(known, asking, judged, exemptions, limits, now)
        there, ours = known.record.run_limit_seconds, known.backstop_seconds
        if there is None and ours is not None:
            continue  # somebody took ours away, and that is to stay
        if there is not None and there not in (ours, known.backstop_before_seconds):
            continue  # somebody else's
        if wanted is not None and wanted.seconds != there:
            found.append(wanted)
        elif wanted is None and there is not None:
            found.append(Backstop(known=known, seconds=None, reason="No policy asks for a backstop any more."))
    return found


def _wanted(
    known: Known,
    asking: Sequence[LifetimePolicy],
    judged: Judged,
    exemptions: Sequence[Exemption],
    limits: Limits,
    now: datetime,
) -> Backstop | None:
    """The strictest that a policy asks for; None for none."""
    found = [_of_policy(known, policy) for policy in asking if _applies(known, policy, judged, exemptions, limits, now)]
    shortest = min(found, key=lambda one: one.seconds or 0, default=None)
    within = shortest is not None and (shortest.seconds or 0) <= LONGEST.total_seconds()
    return shortest if within else None


def _applies(
    known: Known,
    policy: LifetimePolicy,
    judged: Judged,
    exemptions: Sequence[Exemption],
    limits: Limits,
    now: datetime,
) -> bool:
    """Only where this policy could stop it itself, as things stand."""
    row = judged.rows.get(known.id)
    if row is None or judged.judgement.outcomes[policy.name].codes[row] != OK:
        return False
    return (
        effective_mode(policy, known.source, known.id, limits) is Mode.ENFORCE
        and policy.approval is None
        and why_not(known, policy, limits, now) is None
        and exemption_for(known, policy.name, exemptions, now) is None
    )


def _of_policy(known: Known, policy: LifetimePolicy) -> Backstop:
    """What is left of its lifetime, then all that the policy itself waits for, then the backstop's own distance."""
    rule = policy.lifetime
    assert rule.backstop is not None
    left = max(timedelta(), rule.max - timedelta(seconds=known.earlier_runs_seconds))
    longest = left + policy.cool_down + policy.grace + rule.backstop
    reason = (
        f"Policy {policy.name}: of {format_duration(rule.max)} it has {format_duration(left)} left; its cloud ends a "
        f"run by itself after {format_duration(longest)}, should nobody else."
    )
    return Backstop(known=known, seconds=int(longest.total_seconds()), reason=reason)


def set_backstops(wanted: Sequence[Backstop], hands: Hands, refused: MutableMapping[str, datetime]) -> int:
    """Each by itself, and only where a cloud can. Answers how many were set.

    `refused`: resources whose cloud said no, and when; kept from cycle to cycle, as some will never take a limit.
    """
    for resource in [key for key, at in refused.items() if hands.now() - at >= LOOK_AGAIN_AT_REFUSED]:
        del refused[resource]
    count = 0
    for one in wanted:
        provider = reachable(one.known.source, hands)
        if one.known.id in refused or provider is None:
            continue
        try:
            count += _set_one(one, provider, hands)
        except ProviderError as error:
            log.warning("a backstop could not be set", resource=one.known.id, reason=error.sentence)
            if not (error.retry or isinstance(error, Conflict)):  # started a moment ago, it may soon be stopped again
                refused[one.known.id] = hands.now()
        except _Held:
            continue
    return count


def _set_one(one: Backstop, provider: Provider, hands: Hands) -> bool:
    if provider.run_limits is None or provider.inventory is None:
        return False
    record = provider.inventory.describe(one.known.record.ref)
    if record.state is not State.STOPPED or record.run_limit_seconds != one.known.record.run_limit_seconds:
        return False
    if record.protections:
        return False
    _intended(one, hands)
    try:
        provider.run_limits.limit_run(one.known.record.ref, one.seconds, request_id=uuid4().hex)
    except ProviderError as error:
        if error.retry:  # it may be set all the same, and then it is ours
            _audit(one, hands)
        else:
            _remember(one, one.known.backstop_seconds, one.known.backstop_before_seconds, hands)
        raise
    _audit(one, hands)
    return True


class _Held(Exception):
    """A hold has come in between."""


def _intended(one: Backstop, hands: Hands) -> None:
    """Stored before the call: a limit of ours that nobody knew to be ours would never be taken back."""
    with hands.database.transaction() as session:
        lease.renew(session, hands.held)
        if hold_for(one.known.project, active_holds(session, hands.now())):
            raise _Held
        _save(session, one, one.seconds, before=one.known.record.run_limit_seconds)


def _audit(one: Backstop, hands: Hands) -> None:
    """Of what its cloud took, or may have taken. What it refuses it mostly refuses again and again."""
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        audit.record(
            session,
            at=hands.now(),
            actor="curfew",
            verb="limit runs" if one.seconds is not None else "lift the limit of runs",
            object=f"resource/{one.known.id}",
            project=one.known.project,
            reason=one.reason,
            details={"seconds": one.seconds, "before": one.known.record.run_limit_seconds},
        )


def _remember(one: Backstop, seconds: int | None, before: int | None, hands: Hands) -> None:
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        _save(session, one, seconds, before=before)


def _save(session: Session, one: Backstop, seconds: int | None, *, before: int | None) -> None:
    now_known = resources.find(session, one.known.id)
    if now_known is not None and (now_known.backstop_seconds, now_known.backstop_before_seconds) != (seconds, before):
        resources.save(session, [replace(now_known, backstop_seconds=seconds, backstop_before_seconds=before)])
