"""Reads the truth back from the cloud for everything that was done, and closes the books on it.

An act counts only when its cloud shows it; until then it is `taken`. A resource seen running again ends the avoided
cost of its stop, whoever started it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlmodel import Session

from providers.errors import NotFound, ProviderError
from providers.records import State
from service.model import ActionStatus, Known, Status
from service.pipeline.enforce import LOOK_AGAIN_AT_REFUSED, Hands
from service.pipeline.tell import told
from service.store import actions, audit, lease, resources
from service.store.tables import Action, Finding

log = structlog.get_logger()
TAKES_AT_MOST = timedelta(minutes=30)
"""A stop that shows no effect for so long has failed."""
_HALTED = (State.STOPPED, State.SUSPENDED, State.TERMINATED)


def verify(hands: Hands) -> dict[str, int]:
    """Every act that was taken, read back by itself. Answers counts by what it became."""
    with hands.database.reading() as session:
        taken = [action for action in actions.in_flight(session) if action.status == ActionStatus.TAKEN]
    counts: dict[str, int] = {}
    for action in taken:
        try:
            outcome = _verify_one(action, hands)
        except lease.LeaseLost:
            raise
        except Exception:
            log.exception("an act could not be verified", action=action.id)
            outcome = "unexpected"
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts


def note_resumed(session: Session, running: dict[str, Known], now: datetime) -> None:
    """Stops whose resource runs again: what they avoid ends here."""
    for action in actions.standing_stops(session):
        known = running.get(action.resource_id)
        if known is not None and known.started_at is not None and action.verified_at is not None:
            action.resumed_at = max(min(known.started_at, now), action.verified_at)
            session.add(action)


def _verify_one(action: Action, hands: Hands) -> str:
    with hands.database.reading() as session:
        known = resources.find(session, action.resource_id)
    provider = hands.fleet.get(action.source)
    if known is None or provider is None or provider.inventory is None:
        return "waiting"
    try:
        record = provider.inventory.describe(known.record.ref)
        state, launched = record.state, record.launched_at
    except NotFound:
        state, launched = State.TERMINATED, None
    except ProviderError as error:
        log.warning("an act could not be read back", action=action.id, reason=error.sentence)
        return "waiting"
    now = hands.now()
    assert action.taken_at is not None
    with hands.database.transaction() as session:
        lease.check(session, hands.held)
        row = session.get(Action, action.id)
        assert row is not None
        restarted = launched is not None and launched.isoformat() != row.pre_state.get("seen_launched_at")
        if row.undoes is not None:
            done = state is State.RUNNING
        else:
            done = state in _HALTED or (state is State.RUNNING and restarted)
        if done:
            _verified(session, row, known, hands, resumed=launched if restarted and row.undoes is None else None)
        elif now - action.taken_at > TAKES_AT_MOST:
            _failed(session, row, known, hands, state)
        else:
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
            details={"action": row.id, "finding": row.finding_id, "state": state.value},
        )
        return row.status


def _verified(session: Session, row: Action, known: Known, hands: Hands, *, resumed: datetime | None) -> None:
    """The cloud shows it."""
    now = hands.now()
    row.status, row.verified_at = ActionStatus.VERIFIED.value, now
    if row.undoes is not None:
        _undone(session, row.undoes, row, now)
        told(session, "undone", row, known, hands.fallback_channels, now)
        return
    row.resumed_at = None if resumed is None else max(resumed, now)
    finding = session.get(Finding, row.finding_id) if row.finding_id else None
    if finding is not None and finding.status == Status.ACTING:
        finding.status = Status.ENFORCED.value
        finding.status_reason = f"Verified in the cloud at {now.isoformat()}."
        session.add(finding)
    told(session, "enforced", row, known, hands.fallback_channels, now)


def _undone(session: Session, original_id: str, row: Action, now: datetime) -> None:
    original = session.get(Action, original_id)
    if original is None:
        return
    original.status, original.undone_at = ActionStatus.UNDONE.value, now
    original.resumed_at = original.resumed_at or now
    session.add(original)
    finding = session.get(Finding, original.finding_id) if original.finding_id else None
    if finding is not None and finding.closed_at is None:
        finding.status, finding.closed_at = Status.CLOSED.value, now
        finding.status_reason = f"Undone by {row.requested_by}."
        session.add(finding)


def _failed(session: Session, row: Action, known: Known, hands: Hands, state: State) -> None:
    row.status = ActionStatus.FAILED.value
    row.error = f"after {TAKES_AT_MOST} the cloud still shows it {state.value}"
    finding = session.get(Finding, row.finding_id) if row.finding_id else None
    if finding is not None and row.undoes is None and finding.status == Status.ACTING:
        finding.status, finding.status_reason = Status.REFUSED.value, f"The act had no effect: {row.error}."
        finding.quiet_by, finding.quiet_until = "recheck", hands.now() + LOOK_AGAIN_AT_REFUSED
        session.add(finding)
    told(session, "failed", row, known, hands.fallback_channels, hands.now())
