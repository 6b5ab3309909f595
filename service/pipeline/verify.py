"""Reads the truth back from the cloud for everything that was done, and closes the books on it.

An act counts only when its cloud shows it; until then it is `taken`. A resource seen running again ends the avoided
cost of its stop, whoever started it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from sqlmodel import Session

from policies.quantities import format_duration
from providers.contract import Provider
from providers.errors import NotFound, ProviderError
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef, State, Verb, resource_id
from service.model import ActionStatus, Known, Status
from service.pipeline.enforce import LOOK_AGAIN_AT_REFUSED, Hands, acting, given_back, launches_as_wanted, reachable
from service.pipeline.tell import told
from service.store import actions, audit, lease, regrets, resources
from service.store.tables import Action, Finding

log = structlog.get_logger()
TAKES_AT_MOST = timedelta(minutes=30)
"""A stop that shows no effect for so long has failed."""
ENDS_AT_MOST = timedelta(days=1)
"""Nor is one waited for without end that is still on its way: it counts in disruption budgets, and whoever writes a pod
says how long it takes to end."""
_UNDER_WAY = (State.STOPPING, State.PENDING)


def verify(hands: Hands) -> dict[str, int]:
    """Every act that was taken, read back by itself. Answers counts by what it became."""
    with hands.database.reading() as session:
        taken = [action for action in actions.in_flight(session) if action.status == ActionStatus.TAKEN]
    failures = _failures(taken, hands)
    counts: dict[str, int] = {}
    for action in taken:
        try:
            outcome = _verify_one(action, hands, failures.get(action.id))
        except lease.LeaseLost:
            raise
        except Exception:
            log.exception("an act could not be verified", action=action.id)
            outcome = "unexpected"
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


def note_resumed(session: Session, resources: Mapping[str, Known], now: datetime) -> None:
    """Stops whose resource runs again: what they avoid ends here."""
    for action in actions.standing_stops(session):
        known = resources.get(action.resource_id)
        if known is None or known.record.state is not State.RUNNING:
            continue
        if known.started_at is None or action.verified_at is None:
            continue
        if _runs_anew(action, known.record.launched_at, known.started_at):
            action.resumed_at = max(min(known.started_at, now), action.verified_at)
            session.add(action)
            if not _by_its_cloud(known):
                regrets.restarted(session, action, now=now)


def _by_its_cloud(known: Known) -> bool:
    """A spot machine that its cloud had interrupted too comes back by itself, which begins no cool-down either."""
    spot = known.record.capacity_type is CapacityType.SPOT and known.record.ref.kind in (Kind.INSTANCE, Kind.NODE)
    return spot and (known.restarted_at is None or known.restarted_at != known.started_at)


def _runs_anew(action: Action, launched_at: datetime | None, started_at: datetime | None) -> bool:
    """Is this run another one than the action ended? A listing from before the act still shows the old one, and of a
    workload whose pods go one by one an earlier one."""
    seen = action.pre_state.get("seen_launched_at")
    if launched_at is not None:
        return seen is None or launched_at > datetime.fromisoformat(seen)
    return started_at is not None and action.taken_at is not None and started_at > action.taken_at


def _shows(action: Action, record: ResourceRecord) -> bool:
    """Does the cloud show what the action wanted, or that somebody has undone it since?"""
    if action.verb == Verb.MOVE_TO_SPOT:
        return launches_as_wanted(action, record)
    if action.undoes is not None:
        return record.state is State.RUNNING or (record.ref.kind is Kind.WORKLOAD and _wanted_again(record))
    if record.state is State.RUNNING:
        if record.members:  # a group has no launch time; machines that are all others than before came afterwards
            return set(record.members).isdisjoint(action.pre_state.get("seen_members", ()))
        return _runs_anew(action, record.launched_at, None)
    if action.verb == Verb.TERMINATE:
        return record.state is State.TERMINATED
    return record.state in (State.STOPPED, State.SUSPENDED, State.TERMINATED)


def _wanted_again(record: ResourceRecord) -> bool:
    """Of a workload it suffices that nothing of ours holds it any more: it may queue for hours, rest until its next
    hour, or have ended."""
    mine = record.state in (State.STOPPED, State.STOPPING) and record.stopped_by is not None
    return not mine and record.state is not State.UNKNOWN


def _failures(taken: Sequence[Action], hands: Hands) -> dict[str, ProviderError]:
    """Acts that their clouds accepted and could not carry out, by id: each source is asked once for all of its."""
    by_source: dict[str, dict[str, ResourceRef]] = defaultdict(dict)
    with hands.database.reading() as session:
        for action in taken:
            known = resources.find(session, action.resource_id)
            if known is not None:
                by_source[action.source][action.id] = known.record.ref
    found: dict[str, ProviderError] = {}
    for source, acts in by_source.items():
        provider = reachable(source, hands)
        if provider is not None and provider.operations is not None:
            try:
                found |= provider.operations.failures(acts)
            except Exception:
                log.exception("it could not be asked what became of acts", source=source)
    return found


def _verify_one(action: Action, hands: Hands, failure: ProviderError | None) -> str:
    with hands.database.reading() as session:
        known = resources.find(session, action.resource_id)
    provider = reachable(action.source, hands)
    if known is None or provider is None or provider.inventory is None:
        if known is not None and action.source not in hands.fleet.members:
            return _settle(action, known, hands)
        return "waiting"
    try:
        record = provider.inventory.describe(known.record.ref)
        is_gone = resource_id(record.ref, record.incarnation) != known.id  # another has taken its name
    except NotFound:
        is_gone = True
    except ProviderError as error:
        log.warning("an act could not be read back", action=action.id, reason=error.sentence)
        return "waiting"
    if is_gone:
        record = replace(known.record, state=State.TERMINATED, launched_at=None)
    return _settle(action, known, hands, provider=provider, record=record, failure=failure)


def _settle(
    action: Action,
    known: Known,
    hands: Hands,
    *,
    provider: Provider | None = None,
    record: ResourceRecord | None = None,
    failure: ProviderError | None = None,
) -> str:
    """What the truth makes of an act. No record: its source is gone, and nobody can tell any more."""
    now, state = hands.now(), record.state if record else None
    shows = record is not None and _shows(action, record)
    why, waits = None if shows else _why_failed(action, state, failure, now), False
    if why is not None and provider is not None and (failure is not None or state not in _UNDER_WAY):
        why, waits = given_back(action, known, provider, why, hands)
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Action, action.id, with_for_update=True)
        assert row is not None
        if shows:
            resumed = state is State.RUNNING and row.undoes is None and row.verb != Verb.MOVE_TO_SPOT
            launched_at = record.launched_at if record is not None else None
            _verified(session, row, known, hands, resumed=(launched_at or now) if resumed else None)
        elif why is not None and not waits:
            _failed(session, row, known, hands, why)
        else:
            row.error = why
            session.add(row)
            return "waiting"
        session.add(row)
        audit.record(
            session,
            at=now,
            actor="curfew",
            verb=f"{row.verb} {row.status}",
            object=f"resource/{row.resource_id}",
            project=row.project,
            reason=row.error or row.reason,
            details={
                "action": row.id,
                "finding": row.finding_id,
                "policy": row.policy,
                "state": state.value if state else None,
            },
        )
        return row.status


def _why_failed(action: Action, state: State | None, failure: ProviderError | None, now: datetime) -> str | None:
    """Of an act that its cloud does not show; None while it may yet."""
    if failure is not None:
        return f"the cloud accepted it and failed later: {failure.sentence}"
    assert action.taken_at is not None
    most = ENDS_AT_MOST if state in _UNDER_WAY else TAKES_AT_MOST
    if now - action.taken_at <= most:
        return None
    seen = f"the cloud still shows it {state.value}" if state else "its source is gone, so nobody can tell"
    return f"after {format_duration(most)} {seen}"


def _verified(session: Session, row: Action, known: Known, hands: Hands, *, resumed: datetime | None) -> None:
    """The cloud shows it."""
    now = hands.now()
    row.status, row.verified_at = ActionStatus.VERIFIED.value, now
    if row.undoes is not None:
        _undone(session, row.undoes, row, now)
        told(session, "undone", row, known, hands.fallback_channels, now)
        return
    row.resumed_at = None if resumed is None else max(resumed, now)
    if row.resumed_at is not None:
        regrets.restarted(session, row, now=now)
    if row.resumed_at is not None and known.is_group:
        _restarted(session, known.id, row.resumed_at)
    finding = acting(session, row)
    if finding is not None:
        finding.status = Status.ENFORCED.value
        finding.status_reason = f"Verified in the cloud at {now.isoformat()}."
        session.add(finding)
    told(session, "enforced", row, known, hands.fallback_channels, now)


def _restarted(session: Session, group_id: str, at: datetime) -> None:
    """Somebody wants its machines again before it was ever seen without: its cool-down starts here all the same."""
    group = resources.find(session, group_id)
    if group is not None:
        resources.save(session, [replace(group, restarted_at=at)])


def _undone(session: Session, original_id: str, row: Action, now: datetime) -> None:
    original = session.get(Action, original_id, with_for_update=True)
    if original is None:
        return
    if original.status == ActionStatus.VERIFIED:
        original.status, original.undone_at = ActionStatus.UNDONE.value, now
        original.resumed_at = original.resumed_at or now
    session.add(original)
    finding = session.get(Finding, original.finding_id, with_for_update=True) if original.finding_id else None
    if finding is not None and finding.closed_at is None:
        # nothing starts anew when launches go back on demand, so there is no cool-down to respect the person's word
        quiet = Status.DISMISSED if original.verb == Verb.MOVE_TO_SPOT else Status.CLOSED
        finding.status, finding.closed_at = quiet.value, now
        finding.status_reason = f"Undone by {row.requested_by}."
        session.add(finding)


def _failed(session: Session, row: Action, known: Known, hands: Hands, error: str) -> None:
    """It was accepted and had no effect."""
    row.status, row.error = ActionStatus.FAILED.value, error
    finding = acting(session, row)
    if finding is not None:
        finding.status, finding.status_reason = Status.REFUSED.value, f"The act had no effect: {error}."
        finding.quiet_by, finding.quiet_until = "recheck", hands.now() + LOOK_AGAIN_AT_REFUSED
        finding.stop_now_by = None
        session.add(finding)
    told(session, "failed", row, known, hands.fallback_channels, hands.now())
