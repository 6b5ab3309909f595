"""Findings, holds and past acts as rows and as the values the plan works on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from sys import intern
from typing import Any

from sqlalchemy import ColumnElement, Row
from sqlalchemy import select as columns
from sqlmodel import Session, col, or_, select

from service.model import ActionStatus, ActiveHold, FindingState, PastAct, Status
from service.store.tables import Action, Finding, Hold, Resource

DISRUPTION_WINDOW = timedelta(hours=1)
"""Disruption budgets and the breaker count what was disturbed within this."""
AT_ONCE = 500
"""Findings in one question: databases bound the parameters they take."""
_COLUMNS = tuple(name for name in FindingState.__dataclass_fields__ if name != "was")
_COUNTING = (ActionStatus.INTENDED, ActionStatus.TAKEN, ActionStatus.VERIFIED, ActionStatus.UNDONE)


def load_active(session: Session) -> list[FindingState]:
    """Findings that have not ended."""
    return _load(session, col(Finding.closed_at).is_(None))


def load_dismissed(session: Session) -> list[FindingState]:
    """Findings a person ended while the breach went on; a set `quiet_until` says the breach has ended since."""
    return _load(session, col(Finding.status) == Status.DISMISSED, col(Finding.quiet_until).is_(None))


def _load(session: Session, *which: ColumnElement[bool]) -> list[FindingState]:
    asked: Any = columns(*(col(getattr(Finding, name)) for name in _COLUMNS)).where(*which)
    rows = session.execute(asked, execution_options={"yield_per": AT_ONCE})
    return [state_of(row) for row in rows]


def save(session: Session, findings: Iterable[FindingState]) -> None:
    """Write these as they are now, but for those that somebody changed since they were read: what people say counts."""
    left = iter(findings)
    while some := {finding.id: finding for finding in islice(left, AT_ONCE)}:
        there = session.exec(select(Finding).where(col(Finding.id).in_(some)).with_for_update()).all()
        for row in there:
            finding = some.pop(row.id)
            if finding.was == state_of(row):
                row.sqlmodel_update(_columns(finding))
        session.add_all(Finding(**_columns(finding)) for finding in some.values())
        session.flush()


def state_of(row: Finding | Row[Any]) -> FindingState:
    """A row as a value. What many have in common is kept once."""
    values = {name: _once(getattr(row, name)) for name in _COLUMNS}
    evidence = {intern(name): _once(value) for name, value in row.evidence.items()}
    return FindingState(**{**values, "status": Status(row.status), "evidence": evidence})


def _once(value: Any) -> Any:
    return intern(value) if type(value) is str else value


def _columns(finding: FindingState) -> dict[str, Any]:
    values = {name: getattr(finding, name) for name in _COLUMNS}
    return {**values, "status": finding.status.value, "evidence": dict(finding.evidence)}


def recent_acts(session: Session, now: datetime) -> list[PastAct]:
    """Acts in flight or of the last hour, undos apart."""
    rows = session.exec(
        select(Action, Resource, Finding)
        .join(Resource, col(Resource.id) == col(Action.resource_id))
        .outerjoin(Finding, col(Finding.id) == col(Action.finding_id))
        .where(
            col(Action.undoes).is_(None),
            col(Action.status).in_([status.value for status in _COUNTING]),
            or_(
                col(Action.intended_at) > now - DISRUPTION_WINDOW,
                col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value]),
            ),
        )
    ).all()
    return [
        PastAct(
            policy=action.policy,
            resource_id=action.resource_id,
            gpus=resource.gpu_count * resource.gpu_share,
            rate_micros=action.rate_micros or 0,
            currency=action.currency,
            found_at=finding.opened_at if finding else None,
        )
        for action, resource, finding in rows
    ]


def active_holds(session: Session, now: datetime) -> list[ActiveHold]:
    """Holds in force, the widest first."""
    rows = session.exec(select(Hold).where(col(Hold.lifted_at).is_(None)).order_by(col(Hold.project))).all()
    return [
        ActiveHold(id=row.id, project=row.project, reason=row.reason, until=row.until)
        for row in sorted(rows, key=lambda row: row.project or "")
        if row.until is None or row.until > now
    ]


def breaker_lifted(session: Session, now: datetime) -> datetime | None:
    """When a person last lifted a hold that the breaker had set."""
    rows = session.exec(select(Hold).where(Hold.created_by == "curfew", col(Hold.lifted_at) <= now)).all()
    return max((row.lifted_at for row in rows if row.lifted_at is not None), default=None)


def holds_ended(session: Session, now: datetime) -> dict[str | None, datetime]:
    """Project (None: everywhere) → when its last hold ended, by lifting or by time."""
    ended: dict[str | None, datetime] = {}
    for row in session.exec(select(Hold)).all():
        end = row.lifted_at or row.until
        if end is not None and end <= now:
            ended[row.project] = max(end, ended.get(row.project, end))
    return ended
