"""Actions as rows: claimed by compare-and-set under the lease's token, their outcomes stored after the call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from providers.records import Verb
from service.model import ActionStatus, Intent, Status
from service.store import lease
from service.store.findings import active_holds
from service.store.tables import Action, Finding


class NotClaimed(Exception):
    """Between planning and claiming something changed; nothing is done."""


def claim(
    session: Session,
    intent: Intent,
    *,
    held: lease.Held,
    pre_state: dict[str, Any],
    requested_by: str,
    abandon_after: timedelta,
    now: datetime,
) -> Action:
    """Store the intent, if the finding is still due, nothing is on hold and the lease is still ours.

    One transaction: from its commit on, exactly this intent exists, and whoever comes after a crash finds it.
    """
    lease.check(session, held)
    finding = session.exec(select(Finding).where(Finding.id == intent.finding.id).with_for_update()).first()
    if finding is None or finding.status != Status.DUE or finding.episode != intent.finding.episode:
        raise NotClaimed("the finding is no longer due")
    for hold in active_holds(session, now):
        if hold.project is None or hold.project == finding.project:
            raise NotClaimed(f"everything is on hold: {hold.reason}")
    known = intent.resource
    # moving to spot stops nothing; what it saves is the difference of prices, as members are replaced: none is claimed
    price = None if intent.verb == Verb.MOVE_TO_SPOT else known.price
    action = Action(
        finding_id=finding.id,
        resource_id=known.id,
        source=known.source,
        project=known.project,
        policy=finding.policy,
        verb=intent.verb,
        status=ActionStatus.INTENDED.value,
        reason=intent.reason,
        requested_by=requested_by,
        lease_token=held.token,
        pre_state=pre_state,
        intended_at=now,
        abandon_at=now + abandon_after,
        rate_micros=price.rate_micros if price else None,
        currency=price.currency if price else None,
    )
    finding.status = Status.ACTING.value
    finding.status_reason = "An act is under way."
    session.add_all([action, finding])
    session.flush()
    return action


def in_flight(session: Session) -> Sequence[Action]:
    """Intents without an outcome and acts not yet verified, oldest first."""
    return session.exec(
        select(Action)
        .where(col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value]))
        .order_by(col(Action.intended_at), col(Action.id))
    ).all()


def standing_stops(session: Session) -> Sequence[Action]:
    """Verified stops whose resource has not been seen running since."""
    return session.exec(
        select(Action).where(
            col(Action.undoes).is_(None),
            col(Action.verb) != Verb.MOVE_TO_SPOT.value,
            col(Action.status) == ActionStatus.VERIFIED.value,
            col(Action.resumed_at).is_(None),
        )
    ).all()
