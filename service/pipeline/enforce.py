"""Carries out what the plan wants, one target at a time: look again, claim the intent, call, keep the outcome.

A crash at any instant leaves no double act and no lost act: the intent is stored under the lease's token before the
call, and whoever finds an intent without an outcome reads the truth back from the cloud before doing anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlmodel import Session, col, select

from policies.policy import BasePolicy, Mode
from providers.contract import Provider
from providers.errors import Conflict, NotFound, ProviderError
from providers.records import CapacityType, ResourceRecord, State, Verb, resource_id
from service.fleet import Fleet
from service.model import ActionStatus, FindingState, Intent, Known, Status
from service.pipeline import recheck
from service.pipeline.attribute import attribute
from service.pipeline.evaluate import Look
from service.pipeline.plan import (
    Limits,
    ceiling_of,
    effective_mode,
    exemption_for,
    held_words,
    hold_for,
    not_yet,
    rolled_out_to,
)
from service.pipeline.rollout import all_advanced
from service.pipeline.tell import told
from service.store import actions, audit, findings, lease, resources, rollouts
from service.store.database import Database
from service.store.documents import Documents, load
from service.store.tables import Action, Finding

log = structlog.get_logger()
LOOK_AGAIN_AT_REFUSED = timedelta(hours=1)
"""What only a full description shows (stop protection, spot request) is asked again this often."""
LEAST_ABANDON = timedelta(minutes=10)
"""An intent is given up after one grace, but not sooner than this."""
GIVEN_BACK_WITHIN = timedelta(days=1)
"""Half of an act is given back for so long after that, should its cloud not answer, or be at something else."""
_WAITS = "; it stays open until half of it is given back: "


@dataclass(frozen=True, kw_only=True)
class Hands:
    """What acting needs, composed once per cycle."""

    database: Database
    fleet: Fleet
    limits: Limits
    look: Look
    """What this cycle's plan was made on."""
    held: lease.Held
    now: Callable[[], datetime]
    fallback_channels: Sequence[str]


def enforce(intents: Sequence[Intent], documents: Documents, hands: Hands) -> dict[str, int]:
    """Every intent, each by itself; what goes wrong with one is kept with that one. Answers counts by outcome."""
    counts: dict[str, int] = {}
    for intent in intents:
        try:
            outcome = _one(intent, documents, hands)
        except lease.LeaseLost:
            raise
        except Exception:
            log.exception("an act failed in a way nobody foresaw", finding=intent.finding.id)
            _not_done(intent.finding, "it failed unexpectedly; the service's log has the details", hands)
            outcome = "unexpected"
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


def resume(hands: Hands) -> int:
    """Intents without an outcome: after a crash, a lost answer, or an undo somebody asked for. Answers how many."""
    with hands.database.reading() as session:
        waiting = [action for action in actions.in_flight(session) if action.status == ActionStatus.INTENDED]
        if not waiting:
            return 0
        documents = load(session)
    for action in waiting:
        try:
            _resume_one(action, documents, hands)
        except lease.LeaseLost:
            raise
        except Exception:
            log.exception("an intent could not be resumed", action=action.id)
    return len(waiting)


def reconsider(documents: Documents, hands: Hands) -> None:
    """Findings refused at a second look: ask again now and then whether what forbade acting is gone."""
    with hands.database.reading() as session:
        refused = [
            (findings.state_of(row), resources.find(session, row.resource_id))
            for row in session.exec(
                select(Finding).where(
                    col(Finding.status) == Status.REFUSED,
                    col(Finding.quiet_by) == "recheck",
                    col(Finding.quiet_until) <= hands.now(),
                    col(Finding.closed_at).is_(None),
                )
            ).all()
        ]
    for finding, known in refused:
        policy = documents.policies.get(finding.policy)
        if policy is None or known is None:
            continue
        try:
            _reconsider_one(finding, known, policy, documents, hands)
        except lease.LeaseLost:
            raise
        except Exception:
            log.exception("what forbids an act could not be asked again", finding=finding.id)


def _reconsider_one(
    finding: FindingState, known: Known, policy: BasePolicy, documents: Documents, hands: Hands
) -> None:
    provider = reachable(known.source, hands)
    if provider is None:
        return
    now = hands.now()
    forbidden = recheck.still_forbidden(
        known,
        policy,
        provider=provider,
        projects=documents.projects,
        limits=hands.limits,
        look=hands.look,
        now=now,
    )
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Finding, finding.id, with_for_update=True)
        if row is None or row.status != Status.REFUSED or row.quiet_by != "recheck":
            return
        if forbidden:
            row.quiet_until, row.status_reason = now + LOOK_AGAIN_AT_REFUSED, forbidden
        else:
            row.quiet_until = row.quiet_by = None  # the plan reopens it, with a fresh warning
        session.add(row)


def reachable(source: str, hands: Hands) -> Provider | None:
    """The provider of a source, unless another account answers for it now: then nothing it says is believed."""
    with hands.database.reading() as session:
        changed = resources.answers_as_another(session, source)
    return None if changed else hands.fleet.get(source)


def _one(intent: Intent, documents: Documents, hands: Hands) -> str:
    """One intent from second look to outcome."""
    known, finding = intent.resource, intent.finding
    policy = documents.policies[finding.policy]
    provider = reachable(known.source, hands)
    if provider is None or provider.actuator is None:
        return _not_done(finding, "its source cannot act just now", hands)
    _renew(hands, provider)
    fresh = recheck.look_again(
        known,
        finding,
        policy,
        provider=provider,
        telemetry_members=hands.fleet.members,
        projects=documents.projects,
        limits=hands.limits,
        look=hands.look,
        now=hands.now(),
    )
    if fresh.refusal is not None or fresh.record is None:
        return _refused(finding, fresh, hands)
    try:
        pre_state = provider.actuator.remember(fresh.record, Verb(intent.verb)) | _seen(fresh.record)
    except ProviderError as error:
        return _not_done(finding, f"what an undo needs could not be learnt: {error.sentence}", hands)
    try:
        with hands.database.transaction() as session:
            afresh = replace(known, record=fresh.record)
            _still_wanted(session, afresh, fresh.members, policy, documents, hands)
            if finding.stop_now_by is None:
                _still_rolled_out(session, known, policy, hands)
            action = actions.claim(
                session,
                intent,
                held=hands.held,
                pre_state=pre_state,
                requested_by=finding.stop_now_by or "curfew",
                abandon_after=max(policy.grace, LEAST_ABANDON),
                now=hands.now(),
            )
            audit.record(
                session,
                at=hands.now(),
                actor=finding.stop_now_by or "curfew",
                verb=f"intend {intent.verb}",
                object=f"resource/{known.id}",
                project=known.project,
                reason=intent.reason,
                details={"action": action.id, "finding": finding.id, "policy": finding.policy},
            )
    except actions.NotClaimed as why:
        return _not_done(finding, str(why), hands)
    return _call(action, known, provider, hands)


def _still_wanted(
    session: Session,
    fresh: Known,
    members: Sequence[Known],
    policy: BasePolicy,
    planned: Documents,
    hands: Hands,
) -> None:
    """Documents may have changed since the plan was made: whoever objected in time is heard."""
    documents = load(session)
    if documents.policies.get(policy.name) != policy:
        raise actions.NotClaimed("its policy was changed a moment ago")
    if documents.sources.get(fresh.source) != planned.sources.get(fresh.source):
        raise actions.NotClaimed("its source was changed a moment ago")
    if attribute(fresh.record, fresh.source, documents.projects).project != fresh.project:
        raise actions.NotClaimed("another project pays for it since a moment ago")
    for member in members:
        if attribute(member.record, member.source, documents.projects).project != member.project:
            raise actions.NotClaimed(f"another project pays for its member {member.record.name} since a moment ago")
    exemptions = tuple(documents.exemptions.values())
    exemption = exemption_for(fresh, policy.name, exemptions, hands.now(), members=members)
    if exemption is not None:
        raise actions.NotClaimed(f"it was exempted a moment ago: {exemption.reason}")
    if session.exec(
        select(Action.id).where(
            col(Action.resource_id) == fresh.id,
            col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value]),
        )
    ).first():
        raise actions.NotClaimed("another act on it is under way")


def _still_rolled_out(session: Session, known: Known, policy: BasePolicy, hands: Hands) -> None:
    """What people regretted since the plan was made may have made the rollout fall back."""
    if policy.rollout is None:
        return
    limits = _limits_now(session, policy, hands)
    if not rolled_out_to(policy, known.id, limits):
        raise actions.NotClaimed(_left_out(policy, limits))


def _left_out(policy: BasePolicy, limits: Limits) -> str:
    return f"its policy's rollout leaves it out now: {not_yet(policy, limits).removesuffix('.')}"


def _limits_now(session: Session, policy: BasePolicy, hands: Hands) -> Limits:
    """With the policy's rollout as it stands this very moment."""
    now = hands.now()
    return replace(hands.limits, rollouts=all_advanced([policy], *rollouts.read(session, [policy], now), now))


def _call(action: Action, known: Known, provider: Provider, hands: Hands) -> str:
    """The call itself, with no transaction open, and its outcome."""
    assert provider.actuator is not None
    _renew(hands, provider)
    try:
        if action.undoes is not None:
            provider.actuator.restore(known.record.ref, action.pre_state, request_id=action.id)
        else:
            provider.actuator.act(known.record.ref, Verb(action.verb), request_id=action.id, reason=action.reason)
    except ProviderError as error:
        busy = action.undoes is not None and isinstance(error, Conflict)  # it is still stopping
        if error.retry or busy:  # what happened is not known: the next look reads the truth back
            return _keep(action, known, hands, status=ActionStatus.INTENDED, error=error.sentence)
        why, waits = given_back(action, known, provider, error.sentence, hands)
        if waits:
            return _keep(action, known, hands, status=ActionStatus.INTENDED, error=why, over=True)
        return _keep(action, known, hands, status=ActionStatus.FAILED, error=why)
    return _keep(action, known, hands, status=ActionStatus.TAKEN, error=None)


def given_back(action: Action, known: Known, provider: Provider, why: str, hands: Hands) -> tuple[str, bool]:
    """If an act in several steps came to nothing, what the first of them silenced speaks again.

    Answers why it came to nothing, in full, and whether to wait: as long as that may yet succeed, the act is not over.
    """
    if action.undoes is not None or not known.acted_on_in_steps or provider.actuator is None:
        return why, False
    why = why.partition(_WAITS)[0]
    _renew(hands, provider)
    try:
        provider.actuator.restore(known.record.ref, action.pre_state, request_id=f"{action.id}-back")
    except ProviderError as error:
        log.warning("half of an act could not be given back", action=action.id, reason=error.sentence)
        passes = error.retry or isinstance(error, Conflict)
        if passes and hands.now() < action.abandon_at + GIVEN_BACK_WITHIN:
            return f"{why}{_WAITS}{error.sentence}", True
        return f"{why}; half of it could not be given back: {error.sentence}", False
    return why, False


def _keep(
    action: Action, known: Known, hands: Hands, *, status: ActionStatus, error: str | None, over: bool = False
) -> str:
    """The outcome of a call, in one transaction with what follows from it. `over`: it is not to be repeated."""
    now = hands.now()
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Action, action.id)
        assert row is not None
        row.attempts += 1
        row.error = error
        row.abandon_at = now if over else row.abandon_at
        row.status = status.value
        if status is ActionStatus.TAKEN:
            row.taken_at = now
        elif status is ActionStatus.FAILED:
            _after_failure(session, row, known, hands, error or "")
        session.add(row)
        if status is not ActionStatus.INTENDED:
            audit.record(
                session,
                at=now,
                actor="curfew",
                verb=f"{row.verb} {status.value}",
                object=f"resource/{row.resource_id}",
                project=row.project,
                reason=error or row.reason,
                details={"action": row.id, "finding": row.finding_id, "policy": row.policy},
            )
    return status.value


def _after_failure(session: Session, row: Action, known: Known, hands: Hands, error: str) -> None:
    """A stop that the cloud refused: its finding says so and is looked at again later; people are told."""
    finding = acting(session, row)
    if finding is not None:
        finding.status = Status.REFUSED.value
        finding.status_reason = f"The cloud refused: {error}"
        finding.quiet_by, finding.quiet_until = "recheck", hands.now() + LOOK_AGAIN_AT_REFUSED
        finding.stop_now_by = None
        session.add(finding)
    told(session, "failed", row, known, hands.fallback_channels, hands.now())


def acting(session: Session, action: Action) -> Finding | None:
    """The finding whose act this is, while it still is; an undo has none. Locked: people may speak to it meanwhile."""
    if action.finding_id is None or action.undoes is not None:
        return None
    finding = session.get(Finding, action.finding_id, with_for_update=True)
    return finding if finding is not None and finding.status == Status.ACTING else None


def _resume_one(action: Action, documents: Documents, hands: Hands) -> None:
    """An intent without an outcome: read the truth, then finish, repeat or abandon it."""
    with hands.database.reading() as session:
        known = resources.find(session, action.resource_id)
        original = session.get(Action, action.undoes) if action.undoes else None
    if original is not None and original.status == ActionStatus.TAKEN:
        return  # what is to be put back is not done yet; doing both at once could end either way
    too_old = action.abandon_at <= hands.now()
    provider = reachable(action.source, hands)
    if known is None or provider is None or provider.inventory is None or provider.actuator is None:
        if too_old:
            _abandon(action, known, "its source can no longer be reached", hands)
        return
    _renew(hands, provider)
    try:
        record = provider.inventory.describe(known.record.ref)
    except NotFound:
        if action.verb == Verb.TERMINATE or action.pre_state.get("final"):
            _keep(action, known, hands, status=ActionStatus.TAKEN, error=None)
        else:
            _abandon(action, known, "the resource no longer exists", hands)
        return
    except ProviderError as error:
        if too_old:
            _abandon(action, known, f"it could not be read back: {error.sentence}", hands)
        return
    _finish(action, original, known, record, documents, provider, hands)


def _finish(
    action: Action,
    original: Action | None,
    known: Known,
    record: ResourceRecord,
    documents: Documents,
    provider: Provider,
    hands: Hands,
) -> None:
    """What the truth makes of an intent. `original`: what an undo puts back."""
    if resource_id(record.ref, record.incarnation) != known.id:
        _abandon(action, known, "another resource has taken its name", hands)
    elif _took_effect(action, record) and not _put_back_in_steps(action, original, known):
        _keep(action, known, hands, status=ActionStatus.TAKEN, error=None)
    elif action.abandon_at <= hands.now():
        _abandon(action, known, action.error or "it did not take effect in time", hands)
    elif original is not None and original.resumed_at is not None and not known.acted_on_in_steps:
        _abandon(action, known, "it was started and stopped again by somebody else meanwhile", hands)
    else:
        why = None if original is not None else _why_not_again(action, known, record, documents, provider, hands)
        if why is None:
            _call(action, known, provider, hands)
        else:
            _abandon(action, known, why, hands)


def _why_not_again(
    action: Action, known: Known, record: ResourceRecord, documents: Documents, provider: Provider, hands: Hands
) -> str | None:
    """The call was never made, or had no effect. It is repeated only if everything that allowed it still holds."""
    policy = documents.policies.get(action.policy or "")
    with hands.database.reading() as session:
        hold = hold_for(action.project, findings.active_holds(session, hands.now()))
        row = session.get(Finding, action.finding_id)
        limits = hands.limits if policy is None else _limits_now(session, policy, hands)
    if policy is None or row is None:
        return "its policy no longer exists"
    if documents.mode_changed_at[policy.name] > action.intended_at:
        return "its policy was changed in the meantime"
    by_person = action.requested_by != "curfew"
    if not by_person and not rolled_out_to(policy, known.id, limits):
        return _left_out(policy, limits)
    mode = ceiling_of(known.source, limits) if by_person else effective_mode(policy, known.source, known.id, limits)
    if mode is not Mode.ENFORCE:
        return f"the ceiling is {mode.value} now"
    if _seen(record) != {key: action.pre_state.get(key) for key in _seen(record)}:
        return "it was restarted or changed in the meantime"
    if hold is not None:
        return held_words(hold)
    again = recheck.look_again(
        known,
        findings.state_of(row),
        policy,
        provider=provider,
        telemetry_members=hands.fleet.members,
        projects=documents.projects,
        limits=hands.limits,
        look=hands.look,
        now=hands.now(),
    )
    fresh, exemptions = replace(known, record=record), tuple(documents.exemptions.values())
    exemption = exemption_for(fresh, policy.name, exemptions, hands.now(), members=again.members)
    return again.refusal if exemption is None else f"it is exempt now: {exemption.reason}"


def _abandon(action: Action, known: Known | None, why: str, hands: Hands) -> None:
    """Give an intent up; its finding starts anew. Who asked for an undo is told."""
    now, provider, waits = hands.now(), reachable(action.source, hands), False
    if known is not None and provider is not None:
        why, waits = given_back(action, known, provider, why, hands)
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Action, action.id)
        if row is None or row.status != ActionStatus.INTENDED:
            return
        row.error = why
        session.add(row)
        if waits:
            row.abandon_at = min(row.abandon_at, now)
            return
        row.status = ActionStatus.ABANDONED.value
        if row.undoes is not None and known is not None:
            told(session, "failed", row, known, hands.fallback_channels, now)
        finding = acting(session, row)
        if finding is not None:
            finding.status = Status.OPEN.value
            finding.status_reason = f"The act was abandoned: {why}."
            finding.episode += 1
            finding.warned_at = finding.due_at = finding.approved_at = None
            finding.stop_now_by = None
            session.add(finding)
        audit.record(
            session,
            at=now,
            actor="curfew",
            verb=f"abandon {row.verb}",
            object=f"resource/{row.resource_id}",
            project=row.project,
            reason=why,
            details={"action": row.id, "finding": row.finding_id, "policy": row.policy},
        )


def _took_effect(action: Action, record: ResourceRecord) -> bool:
    """Does the cloud already show what the action wanted?"""
    if action.verb == Verb.MOVE_TO_SPOT:
        return launches_as_wanted(action, record)
    if action.undoes is not None:
        return record.state in (State.RUNNING, State.PENDING)
    if action.verb == Verb.TERMINATE:
        return record.state is State.TERMINATED
    return record.state in (State.STOPPING, State.STOPPED, State.SUSPENDED, State.TERMINATED)


def launches_as_wanted(action: Action, record: ResourceRecord) -> bool:
    """Of a move to spot: on spot, and after its undo no more."""
    return (record.capacity_type is CapacityType.SPOT) is (action.undoes is None)


def _put_back_in_steps(action: Action, original: Action | None, known: Known) -> bool:
    """Sizes are not all that was changed then: whoever scaled it up by hand did not wake what we had silenced."""
    return original is not None and known.acted_on_in_steps and action.verb == Verb.START


def _seen(record: ResourceRecord) -> dict[str, Any]:
    """What tells this run of a machine from its next one."""
    return {
        "seen_state": record.state.value,
        "seen_launched_at": record.launched_at.isoformat() if record.launched_at else None,
    } | ({"seen_members": sorted(record.members)} if record.members else {})


def _refused(finding: FindingState, fresh: recheck.Fresh, hands: Hands) -> str:
    """A second look said no: forbidden things rest as refused, a changed world is left to the next cycle."""
    why = fresh.refusal or "it could not be described"
    if not fresh.forbidden:
        return _not_done(finding, why, hands)
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Finding, finding.id, with_for_update=True)
        if row is not None and row.status == Status.DUE:
            row.status, row.status_reason = Status.REFUSED.value, why
            row.quiet_by, row.quiet_until = "recheck", hands.now() + LOOK_AGAIN_AT_REFUSED
            row.stop_now_by = None
            session.add(row)
    return "refused"


def _not_done(finding: FindingState, why: str, hands: Hands) -> str:
    """Nothing was done, and the reason is kept."""
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Finding, finding.id, with_for_update=True)
        if row is not None and row.status == Status.DUE:
            row.status_reason = f"Looked again right before acting, and nothing was done: {why}."
            session.add(row)
    return "not done"


def _renew(hands: Hands, provider: Provider) -> None:
    """No call is started whose time-out exceeds what is left of the lease."""
    with hands.database.transaction() as session:
        lease.renew(session, hands.held, at_least=timedelta(seconds=2 * provider.capabilities.act_timeout_seconds))
