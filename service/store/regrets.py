"""False stops as rows: acts that people undid, or whose machine they started again soon after. Marks them once, and
counts them beside all that are decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, func, or_, true
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from policies.digest import digest
from policies.policy import BasePolicy
from service.model import FALSE_STOP_WITHIN, ActionStatus, RolloutStage, Stops
from service.store import audit, backtests
from service.store.documents import Confinement
from service.store.tables import Action

RATE_OVER = timedelta(days=90)
"""The observed rate is of these last days."""


def undone(session: Session, action: Action, *, now: datetime) -> None:
    """A person asks for an act to be put back, however long after."""
    _regret(session, action, "undo", now)


def restarted(session: Session, action: Action, *, now: datetime) -> None:
    """Its machine was seen running again, and its cloud did not do that by itself: false if that came soon, and was
    none of our own doing."""
    assert action.verified_at is not None
    assert action.resumed_at is not None
    if action.resumed_at - action.verified_at > FALSE_STOP_WITHIN or _started_by_us(session, action):
        return
    if _regret(session, action, "restart", now):
        audit.record(
            session,
            at=now,
            actor="curfew",
            verb="regret",
            object=f"action/{action.id}",
            project=action.project,
            reason="Somebody started it again soon after it was stopped, which counts as a false stop.",
            details={"resource": action.resource_id, "policy": action.policy},
        )


def _regret(session: Session, action: Action, why: str, now: datetime) -> bool:
    """Once for each act, and of none that a person asked for: that was nobody's mistake but theirs."""
    if action.regretted_at is not None or action.undoes is not None or action.requested_by != "curfew":
        return False
    action.regretted_at, action.regret_why = now, why
    session.add(action)
    return True


def _started_by_us(session: Session, action: Action) -> bool:
    """An undo of another act on the same machine."""
    ours = select(Action.id).where(
        col(Action.resource_id) == action.resource_id,
        col(Action.undoes).is_not(None),
        col(Action.intended_at) >= action.intended_at,
        col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value, ActionStatus.VERIFIED.value]),
    )
    return session.exec(ours).first() is not None


# --- counting --------------------------------------------------------------------------------------------------------


def a_policys_own() -> ColumnElement[bool]:
    """Acts that were done because a policy said so."""
    return and_(
        col(Action.undoes).is_(None), col(Action.requested_by) == "curfew", col(Action.verified_at).is_not(None)
    )


def _decided(now: datetime) -> ColumnElement[bool]:
    return or_(col(Action.regretted_at).is_not(None), col(Action.verified_at) <= now - FALSE_STOP_WITHIN)


def observed(session: Session, now: datetime, *, sees: Confinement = None) -> dict[str, Stops]:
    """Policy → its decided stops of the last 90 days, in the projects that somebody sees (None: all)."""
    statement = (
        columns(col(Action.policy), func.count(), func.sum(case((col(Action.regretted_at).is_not(None), 1), else_=0)))
        .where(a_policys_own(), col(Action.verified_at) > now - RATE_OVER, _decided(now))
        .group_by(col(Action.policy))
    )
    if sees is not None:
        statement = statement.where(col(Action.project).in_(sees))
    rows = session.connection().execute(statement)
    return {policy or "": Stops(decided=decided, regretted=regretted) for policy, decided, regretted in rows}


def predicted(session: Session, policy: BasePolicy, *, sees: Confinement = None) -> float | None:
    """What the newest back-test of this very policy said that was asked for the same time after a stop, and that a
    reader may see; None when there is none, or nothing was decided in it."""
    within = int(FALSE_STOP_WITHIN.total_seconds())
    done = backtests.done_of(session, policy.name, digest(policy))
    seen = (row for row in done if sees is None or row.project in sees)
    newest = next((row for row in seen if row.horizon_seconds == within), None)
    if newest is None or not newest.decided or newest.false_stops is None:
        return None
    return newest.false_stops / newest.decided


def since_step(
    session: Session, stages: Mapping[str, RolloutStage], now: datetime, *, sees: Confinement = None
) -> dict[str, Stops]:
    """Policy → what was decided since the present step of its rollout began, of acts since the rollout itself did. One
    from an earlier step that is regretted now speaks against this one too."""
    return {name: _of_step(session, stage, now, sees) for name, stage in stages.items()}


def _of_step(session: Session, stage: RolloutStage, now: datetime, sees: Confinement) -> Stops:
    when = (col(Action.regretted_at) >= stage.since, col(Action.verified_at) > stage.since - FALSE_STOP_WITHIN)
    rows = session.exec(
        select(Action.regretted_at).where(
            a_policys_own(),
            col(Action.policy) == stage.policy,
            col(Action.intended_at) > stage.began_at,
            or_(when[0], and_(when[1], col(Action.regretted_at).is_(None))),
            _decided(now),
            true() if sees is None else col(Action.project).in_(sees),
        )
    ).all()
    return Stops(decided=len(rows), regretted=sum(at is not None for at in rows))
