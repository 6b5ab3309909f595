"""How far rollouts have come, as rows: read for a cycle, written under its lease, begun anew by a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, true
from sqlmodel import Session, col, select

from policies.policy import BasePolicy
from policies.quantities import format_share
from service.model import RolloutStage, Stops
from service.store import audit, regrets
from service.store.documents import Confinement
from service.store.tables import Action, Audit, Finding, RolloutState

_COLUMNS = tuple(RolloutStage.__dataclass_fields__)


def load(session: Session, policies: Iterable[BasePolicy]) -> dict[str, RolloutStage]:
    """Of those policies that have a rollout, as they were last written."""
    names = [policy.name for policy in policies if policy.rollout is not None]
    if not names:
        return {}
    rows = session.exec(select(RolloutState).where(col(RolloutState.policy).in_(names))).all()
    return {row.policy: _stage(row) for row in rows}


def read(
    session: Session, policies: Iterable[BasePolicy], now: datetime
) -> tuple[dict[str, RolloutStage], dict[str, Stops]]:
    """With what was decided of each since its present step began, until this very moment."""
    stages = load(session, policies)
    return stages, regrets.since_step(session, stages, now)


def save(session: Session, after: Mapping[str, RolloutStage], now: datetime) -> list[RolloutStage]:
    """Write what has changed, with a line in the audit log; answers what fell back just now. Where a person has let it
    begin anew since it was read, what they said counts. What has no rollout any more is forgotten, but not that it fell
    back: whoever brings the same policy back finds it there."""
    rows = {row.policy: row for row in session.exec(select(RolloutState)).all()}
    before = {name: _stage(row) for name, row in rows.items()}
    for name in before.keys() - after.keys():
        if before[name].fallen_back_at is None:
            session.delete(rows[name])
    fallen = []
    for name, stage in after.items():
        was = before.get(name)
        overtaken = was is not None and was.fingerprint == stage.fingerprint and was.since > stage.since
        if was == stage or overtaken:
            continue
        _write(session, stage)
        if stage.fallen_back_at is not None:
            fallen.append(stage)
        _note(session, _verb(was, stage), stage, by="curfew", now=now, reason=stage.reason)
    return fallen


def _verb(was: RolloutStage | None, stage: RolloutStage) -> str:
    if stage.fallen_back_at is not None:
        return "fall back"
    return "raise rollout" if was is not None and was.began_at == stage.began_at else "begin rollout"


def resume(session: Session, stage: RolloutStage, *, by: str, reason: str, now: datetime) -> bool:
    """A person lets a rollout that fell back begin anew; False when it has not fallen back."""
    row = session.get(RolloutState, stage.policy, with_for_update=True)
    if row is None or row.fallen_back_at is None:
        return False
    _write(session, stage)
    _note(session, "resume rollout", stage, by=by, now=now, reason=reason)
    return True


def _note(session: Session, verb: str, stage: RolloutStage, *, by: str, now: datetime, reason: str) -> None:
    audit.record(
        session,
        at=now,
        actor=by,
        verb=verb,
        object=f"policy/{stage.policy}",
        reason=reason,
        details={"policy": stage.policy, "share": format_share(stage.share), "step": stage.step},
    )


# --- what came of it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A finding, as far as groups are compared by it."""

    resource_id: str
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Happened:
    """What came of a policy in a step of its rollout; but for findings, the resources that it came to."""

    findings: Sequence[Breach]
    stops: Sequence[str]
    snoozes: Sequence[str]
    undos: Sequence[str]
    restarts: Sequence[str]


def happened(session: Session, stage: RolloutStage, until: datetime, *, sees: Confinement) -> Happened:
    """From the beginning of the present step on, in the projects that a reader sees (None: all)."""

    def within(table: Any, at: Any) -> ColumnElement[bool]:
        theirs = true() if sees is None else col(table.project).in_(sees)
        return and_(col(at) >= stage.since, col(at) <= until, theirs)

    found = session.exec(
        select(Finding.resource_id, Finding.opened_at, Finding.closed_at).where(
            col(Finding.policy) == stage.policy, within(Finding, Finding.opened_at)
        )
    ).all()
    own = (col(Action.policy) == stage.policy, regrets.a_policys_own())
    stops = session.exec(select(Action.resource_id).where(*own, within(Action, Action.verified_at))).all()
    regretted = session.exec(
        select(Action.resource_id, Action.regret_why).where(*own, within(Action, Action.regretted_at))
    ).all()
    snoozes = session.exec(select(Audit.details).where(col(Audit.verb) == "snooze", within(Audit, Audit.at))).all()
    return Happened(
        findings=[Breach(resource_id=one, opened_at=opened, closed_at=closed) for one, opened, closed in found],
        stops=stops,
        snoozes=[details["resource"] for details in snoozes if details.get("policy") == stage.policy],
        undos=[resource_id for resource_id, why in regretted if why == "undo"],
        restarts=[resource_id for resource_id, why in regretted if why == "restart"],
    )


def _stage(row: RolloutState) -> RolloutStage:
    return RolloutStage(**{name: getattr(row, name) for name in _COLUMNS})


def _write(session: Session, stage: RolloutStage) -> None:
    session.merge(RolloutState(**{name: getattr(stage, name) for name in _COLUMNS}))
    session.flush()
