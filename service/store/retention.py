"""Lets go of what ended long ago, a few rows at a time, and keeps the sums of it: no counter and no cost ever falls.

What still has a part to play stays, however old: open findings, stops that can be undone, messages that must not be
sent again, the last interval of what is still there. Every batch is a transaction of its own under the lease, begins
with the oldest and knows nothing of the one before: whatever ends it, the next one goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from service.model import ActionStatus, Status
from service.store import audit, lease, sums, totals
from service.store.backtests import UNFINISHED, give_up
from service.store.database import Database
from service.store.resources import may_be_removed
from service.store.tables import (
    Action,
    Audit,
    AuditHorizon,
    Backtest,
    Cycle,
    Document,
    Finding,
    LinkUse,
    MeterInterval,
    Outbox,
    Resource,
)

AT_ONCE = 500
"""Rows in one transaction: a few hundredths of a second, so that nobody waits for it."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """For how long what has ended is kept; None: for ever."""

    findings: timedelta | None
    """With their actions, messages and used links."""
    meter: timedelta | None
    resources: timedelta | None
    audit: timedelta | None
    cycles: int
    """How many reports."""


Batch = Callable[[Session], int]
"""Does a part of the work in a transaction; how many rows it dealt with, fewer than `AT_ONCE` when nothing is left."""


def count(database: Database, held: lease.Held, now: datetime, *, enough: Callable[[], bool]) -> Counter[str]:
    """Add what has ended to the sums, so that cycles need not read it again: all of it, or until it is `enough`."""
    return _work(database, held, _counting(now), enough)


def let_go(
    database: Database, held: lease.Held, keep: Keep, now: datetime, *, enough: Callable[[], bool]
) -> Counter[str]:
    """Remove what is older than it is kept."""
    return _work(database, held, _removing(keep, now), enough)


def _work(
    database: Database, held: lease.Held, work: Iterator[tuple[str, Batch]], enough: Callable[[], bool]
) -> Counter[str]:
    done: Counter[str] = Counter()
    for name, batch in work:
        handled = AT_ONCE
        while handled >= AT_ONCE and not enough():
            with database.transaction() as session:
                lease.check(session, held)
                handled = batch(session)
            done[name] += handled
    return +done


def _counting(now: datetime) -> Iterator[tuple[str, Batch]]:
    yield "intervals summed", lambda session: sums.sum_up(session, at_most=AT_ONCE)
    yield "findings tallied", lambda session: totals.tally_findings(session, at_most=AT_ONCE)
    yield "actions tallied", lambda session: totals.tally_actions(session, now, at_most=AT_ONCE)
    yield "back-tests given up", lambda session: give_up(session, now=now)


def _removing(keep: Keep, now: datetime) -> Iterator[tuple[str, Batch]]:
    """In this order: first what refers to something, then that."""
    if keep.findings is not None:
        long_ago = now - keep.findings
        yield "findings", lambda session: _findings(session, long_ago)
        yield "actions", lambda session: _actions(session, long_ago)
        yield "messages", lambda session: _messages(session, long_ago)
        yield "used links", lambda session: _used_links(session, long_ago)
        yield "back-tests", lambda session: _backtests(session, long_ago)
    if keep.meter is not None:
        rolled_up = now - keep.meter
        yield "intervals", lambda session: sums.roll_up(session, rolled_up, at_most=AT_ONCE)
    if keep.resources is not None:
        gone = now - keep.resources
        yield "resources", lambda session: _resources(session, gone)
    if keep.audit is not None:
        age = keep.audit
        yield "audit lines", lambda session: _audit_lines(session, age, now)
    yield "cycles", lambda session: _cycles(session, keep.cycles)


# --- findings, and what belongs to them ------------------------------------------------------------------------------


def _still_there(resource_id: Any) -> ColumnElement[bool]:
    return exists().where(col(Resource.id) == resource_id, col(Resource.ended_at).is_(None))


def _matters() -> ColumnElement[bool]:
    """Actions under way, stops that hold (they can be undone), and those whose sums are not made yet."""
    return or_(
        col(Action.status).in_([ActionStatus.INTENDED.value, ActionStatus.TAKEN.value]),
        and_(
            col(Action.status) == ActionStatus.VERIFIED.value,
            col(Action.undoes).is_(None),
            col(Action.resumed_at).is_(None),
            _still_there(col(Action.resource_id)),
        ),
        and_(col(Action.verified_at).is_not(None), ~col(Action.tallied)),
    )


def _findings(session: Session, before: datetime) -> int:
    """A dismissed one stays for as long as its breach may go on: without it, it would be found again."""
    dismissed = and_(
        col(Finding.status) == Status.DISMISSED.value,
        col(Finding.quiet_until).is_(None),
        _still_there(col(Finding.resource_id)),
    )
    old = (
        select(Finding.id)
        .where(
            col(Finding.opened_at) < before,
            col(Finding.closed_at) < before,
            col(Finding.tallied),
            ~dismissed,
            ~exists().where(col(Action.finding_id) == col(Finding.id), _matters()),
        )
        .order_by(col(Finding.opened_at))
    )
    ids = session.exec(old.limit(AT_ONCE)).all()
    _remove_actions(session, col(Action.finding_id).in_(ids))
    _remove_messages(session, col(Outbox.finding_id).in_(ids))
    session.connection().execute(delete(LinkUse).where(col(LinkUse.finding_id).in_(ids)))
    session.connection().execute(delete(Finding).where(col(Finding.id).in_(ids)))
    return len(ids)


def _actions(session: Session, before: datetime) -> int:
    """Those whose finding is gone, or that never had one."""
    old = select(Action.id).where(
        col(Action.intended_at) < before, ~exists().where(col(Finding.id) == col(Action.finding_id)), ~_matters()
    )
    ids = session.exec(old.limit(AT_ONCE)).all()
    _remove_actions(session, col(Action.id).in_(ids))
    return len(ids)


def _messages(session: Session, before: datetime) -> int:
    """Those whose finding is gone, or that never had one. That a budget was told of is known from its message alone."""
    old = select(Outbox.id).where(
        col(Outbox.created_at) < before,
        col(Outbox.status) != "pending",
        col(Outbox.kind) != "budget",
        ~exists().where(col(Finding.id) == col(Outbox.finding_id)),
    )
    ids = session.exec(old.limit(AT_ONCE)).all()
    _remove_messages(session, col(Outbox.id).in_(ids))
    return len(ids)


def _used_links(session: Session, before: datetime) -> int:
    found = col(Finding.id) == col(LinkUse.finding_id)
    old = select(LinkUse.nonce).where(col(LinkUse.used_at) < before, ~exists().where(found))
    nonces = session.exec(old.limit(AT_ONCE)).all()
    session.connection().execute(delete(LinkUse).where(col(LinkUse.nonce).in_(nonces)))
    return len(nonces)


def _remove_actions(session: Session, which: ColumnElement[bool]) -> None:
    regretted = tuple(
        func.coalesce(column, "") for column in (col(Action.policy), col(Action.project), col(Action.regret_why))
    )
    _count(session, "false_stops", regretted, and_(which, totals.regretted()))
    kinds = (func.coalesce(col(Action.policy), ""), col(Action.verb), col(Action.status))
    _count_and_remove(session, Action, "actions", kinds, which)


def _remove_messages(session: Session, which: ColumnElement[bool]) -> None:
    _count_and_remove(session, Outbox, "notifications", (col(Outbox.channel_kind), col(Outbox.status)), which)


def _count_and_remove(
    session: Session, table: Any, family: str, kinds: tuple[Any, ...], which: ColumnElement[bool]
) -> None:
    """They go on being counted."""
    _count(session, family, kinds, which)
    session.connection().execute(delete(table).where(which))


def _count(session: Session, family: str, kinds: tuple[Any, ...], which: ColumnElement[bool]) -> None:
    rows = session.connection().execute(columns(*kinds, func.count()).where(which).group_by(*kinds))
    totals.add_to_tally(session, family, {tuple(labels): number for *labels, number in rows})


def _backtests(session: Session, before: datetime) -> int:
    """But for those that a policy was let enforce by, while there is such a policy."""
    policy = exists().where(col(Document.kind) == "policy", col(Document.name) == col(Backtest.policy))
    old = (
        select(Backtest.id)
        .where(
            col(Backtest.asked_at) < before,
            col(Backtest.status).not_in(UNFINISHED),
            ~and_(col(Backtest.relied_on_at).is_not(None), policy),
        )
        .order_by(col(Backtest.asked_at))
    )
    ids = session.exec(old.limit(AT_ONCE)).all()
    session.connection().execute(delete(Backtest).where(col(Backtest.id).in_(ids)))
    return len(ids)


# --- the rest --------------------------------------------------------------------------------------------------------


def _resources(session: Session, before: datetime) -> int:
    """What ended or was orphaned long ago and of which nothing else tells any more."""
    old = select(Resource.id).where(
        or_(col(Resource.ended_at) < before, col(Resource.orphaned_at) < before),
        *(~exists().where(col(one) == col(Resource.id)) for one in _TELLING),
        may_be_removed(),
    )
    ids = session.exec(old.limit(AT_ONCE)).all()
    session.connection().execute(delete(Resource).where(col(Resource.id).in_(ids)))
    return len(ids)


_TELLING = (MeterInterval.resource_id, Finding.resource_id, Action.resource_id)


def _audit_lines(session: Session, age: timedelta, now: datetime) -> int:
    """By whole days. The database lets go of lines from before a horizon only, and that it moved is a line itself."""
    before = (now - age).replace(hour=0, minute=0, second=0, microsecond=0)
    oldest = session.exec(select(Audit.at).order_by(col(Audit.id)).limit(1)).first()
    if oldest is None or oldest >= before:
        return 0
    horizon = session.get(AuditHorizon, 1) or AuditHorizon(until=oldest)
    if horizon.until < before:
        lines = session.exec(select(func.count()).select_from(Audit).where(col(Audit.at) < before)).one()
        audit.record(
            session,
            at=now,
            actor="curfew",
            verb="let go",
            object="audit/log",
            reason=f"Lines are kept for {age.days} days (CURFEW_RETENTION_AUDIT_DAYS).",
            details={"before": before.isoformat(), "lines": lines},
        )
        horizon.until = before
        session.add(horizon)
        session.flush()
    ids = session.exec(select(Audit.id).where(col(Audit.at) < before).order_by(col(Audit.id)).limit(AT_ONCE)).all()
    session.connection().execute(delete(Audit).where(col(Audit.id).in_(ids)))
    return len(ids)


def _cycles(session: Session, keep: int) -> int:
    newest_first = select(Cycle.id).order_by(col(Cycle.started_at).desc(), col(Cycle.id))
    ids = session.exec(newest_first.offset(keep).limit(AT_ONCE)).all()
    session.connection().execute(delete(Cycle).where(col(Cycle.id).in_(ids)))
    return len(ids)
