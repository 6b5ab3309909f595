"""What people ask for: snooze, approve, dismiss, stop now, undo, hold. Each is one transaction with one audit line.

Used alike by the API, the links in mails and the command. Nothing here calls a cloud; a cycle carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session, col, select

from providers.records import Kind
from service.model import ActionStatus, Status
from service.store import audit, regrets
from service.store.tables import Action, Finding, Hold, Resource

LONGEST_SNOOZE = timedelta(days=14)
"""Whoever needs longer writes an exemption, which says why and is seen by all."""
UNDO_GIVES_UP_AFTER = timedelta(days=2)
"""Capacity may be gone for a while; an undo keeps trying this long."""


MOVED = "the machine belongs to another project now; putting it back takes the right there too"


class NotPossible(Exception):
    """What was asked does not fit the state things are in. `code` is stable, the text says what would."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks, as the audit log will name them: `token:ci`, `link:lead@example.org`."""

    actor: str


def snooze(session: Session, finding: Finding, *, until: datetime, reason: str, by: Person, now: datetime) -> None:
    """Leave the resource alone until then; a fresh warning and grace follow."""
    _must_be_active(session, finding)
    if finding.status in (Status.ACTING, Status.ENFORCED):
        raise NotPossible("TooLate", "it has been acted on already; undo the action instead")
    if until <= now:
        raise NotPossible("InThePast", f"{until.isoformat()} is not in the future")
    if until > now + LONGEST_SNOOZE:
        raise NotPossible(
            "TooLong", f"a snooze lasts at most {LONGEST_SNOOZE.days} days; write an exemption for longer"
        )
    _afresh(finding)
    finding.status = Status.SNOOZED.value
    finding.quiet_until, finding.quiet_by = until, by.actor
    finding.status_reason = f"Kept until {until.isoformat()} by {by.actor}: {reason}"
    session.add(finding)
    _note(session, finding, "snooze", by, now, reason=reason, until=until.isoformat())


def approve(session: Session, finding: Finding, *, by: Person, now: datetime) -> None:
    """Say yes to an act whose policy requires approval."""
    _must_be_active(session, finding)
    if finding.status not in (Status.OPEN, Status.WARNED, Status.DUE):
        raise NotPossible("NothingToApprove", f"a finding that is {finding.status} waits for no approval")
    finding.approved_at, finding.approved_by = now, by.actor
    session.add(finding)
    _note(session, finding, "approve", by, now)


def dismiss(session: Session, finding: Finding, *, reason: str, by: Person, now: datetime) -> None:
    """A person says no; the finding ends and a new one opens only after the breach has ended once."""
    _must_be_active(session, finding)
    if finding.status in (Status.ACTING, Status.ENFORCED):
        raise NotPossible("TooLate", "it has been acted on already; undo the action instead")
    _afresh(finding)
    finding.status, finding.closed_at, finding.quiet_until = Status.DISMISSED.value, now, None
    finding.quiet_by = by.actor
    finding.status_reason = f"Dismissed by {by.actor}: {reason}"
    session.add(finding)
    _note(session, finding, "dismiss", by, now, reason=reason)


def stop_now(session: Session, finding: Finding, *, by: Person, now: datetime) -> None:
    """Act without waiting for grace; protection, preconditions and ceilings still hold."""
    _must_be_active(session, finding)
    if finding.remedy == "notify":
        raise NotPossible("NothingToDo", "its policy only notifies; there is no act to bring forward")
    if finding.status in (Status.ACTING, Status.ENFORCED):
        raise NotPossible("TooLate", "it has been acted on already")
    if finding.status in (Status.SNOOZED, Status.EXEMPT):
        finding.quiet_until = finding.quiet_by = None
        finding.status = Status.OPEN.value
    finding.stop_now_by, finding.due_at = by.actor, now
    finding.status_reason = f"{by.actor} asked to stop it now; the next cycle looks again and acts."
    session.add(finding)
    _note(session, finding, "stop now", by, now)


def project_now(session: Session, action: Action) -> str | None:
    """Who would pay for what is put back; undoing takes the right there, and where it was acted on."""
    resource = session.get(Resource, action.resource_id)
    return action.project if resource is None else resource.project


def undo(session: Session, action: Action, *, by: Person, now: datetime) -> Action:
    """Ask for an action to be put back; returns the new action that will do it, or the one that is already at it."""
    session.refresh(action, with_for_update=True)
    if action.undoes is not None:
        raise NotPossible("NotUndoable", "this is an undo itself; what it put back can be acted on anew")
    if action.status not in (ActionStatus.TAKEN, ActionStatus.VERIFIED):
        raise NotPossible("NotUndoable", f"an action that is {action.status} has nothing to put back")
    in_steps = action.verb == "scale_to_zero" or _is_workload(session, action)  # something may still be silenced
    if action.resumed_at is not None and not in_steps:
        raise NotPossible("NotUndoable", "the resource runs again already")
    if action.resumed_at is not None and _stopped_since(session, action):
        raise NotPossible("NotUndoable", "it ran again and was stopped anew since; undo that later act instead")
    if action.verb == "terminate" or action.pre_state.get("final"):
        raise NotPossible("NotUndoable", "what was terminated cannot be put back")
    under_way = session.exec(
        select(Action).where(
            col(Action.undoes) == action.id,
            col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value]),
        )
    ).first()
    if under_way is not None:
        return under_way
    putting_back = Action(
        finding_id=action.finding_id,
        resource_id=action.resource_id,
        source=action.source,
        project=action.project,
        policy=action.policy,
        verb=action.verb if action.verb == "move_to_spot" else "start",
        status=ActionStatus.INTENDED.value,
        reason=f"{by.actor} asked to undo it.",
        requested_by=by.actor,
        lease_token=0,
        pre_state=action.pre_state,
        undoes=action.id,
        intended_at=now,
        abandon_at=now + UNDO_GIVES_UP_AFTER,
        rate_micros=action.rate_micros,
        currency=action.currency,
    )
    session.add(putting_back)
    regrets.undone(session, action, now=now)
    session.flush()
    audit.record(
        session,
        at=now,
        actor=by.actor,
        verb="undo",
        object=f"action/{action.id}",
        project=action.project,
        details={"undo": putting_back.id, "resource": action.resource_id, "policy": action.policy},
    )
    return putting_back


def _stopped_since(session: Session, action: Action) -> bool:
    """Whether a later act on the same resource stands: what was remembered of it then is what leads back."""
    later = select(Action.id).where(
        col(Action.resource_id) == action.resource_id,
        col(Action.undoes).is_(None),
        col(Action.intended_at) > action.intended_at,
        col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value, ActionStatus.VERIFIED.value]),
        col(Action.resumed_at).is_(None),
        col(Action.verb) != "move_to_spot",
    )
    return session.exec(later).first() is not None


def _is_workload(session: Session, action: Action) -> bool:
    resource = session.get(Resource, action.resource_id)
    return resource is not None and resource.kind == Kind.WORKLOAD


def hold(
    session: Session, *, project: str | None, until: datetime | None, reason: str, by: Person, now: datetime
) -> Hold:
    """Stop all acting at once, everywhere or in one project."""
    if until is not None and until <= now:
        raise NotPossible("InThePast", f"{until.isoformat()} is not in the future")
    for before in _active(session, project, now):
        before.lifted_at, before.lifted_by = now, by.actor  # the new one replaces it
        session.add(before)
    row = Hold(project=project, until=until, reason=reason, created_by=by.actor, created_at=now)
    session.add(row)
    session.flush()
    audit.record(
        session,
        at=now,
        actor=by.actor,
        verb="hold",
        object=f"hold/{row.id}",
        project=project,
        reason=reason,
        details={"until": until.isoformat() if until else None},
    )
    return row


def lift(session: Session, *, project: str | None, by: Person, now: datetime) -> list[Hold]:
    """End the active holds of that reach; every grace in it starts anew."""
    lifted = _active(session, project, now)
    for row in lifted:
        row.lifted_at, row.lifted_by = now, by.actor
        session.add(row)
        audit.record(session, at=now, actor=by.actor, verb="lift", object=f"hold/{row.id}", project=project)
    return lifted


def _active(session: Session, project: str | None, now: datetime) -> list[Hold]:
    rows = session.exec(select(Hold).where(col(Hold.lifted_at).is_(None))).all()
    return [row for row in rows if row.project == project and (row.until is None or row.until > now)]


def _must_be_active(session: Session, finding: Finding) -> None:
    """Locked and as it stands now: a cycle may be writing it at this moment."""
    session.refresh(finding, with_for_update=True)
    if finding.closed_at is not None:
        raise NotPossible("Ended", f"this finding ended ({finding.status}): {finding.status_reason}")


def _afresh(finding: Finding) -> None:
    """Whatever was warned, due, approved or asked for no longer counts."""
    finding.episode += 1
    finding.warned_at = finding.due_at = finding.approved_at = None
    finding.approved_by = finding.stop_now_by = None


def _note(
    session: Session, finding: Finding, verb: str, by: Person, now: datetime, *, reason: str = "", **more: str
) -> None:
    audit.record(
        session,
        at=now,
        actor=by.actor,
        verb=verb,
        object=f"finding/{finding.id}",
        project=finding.project,
        reason=reason,
        details={"resource": finding.resource_id, "policy": finding.policy, **more},
    )
