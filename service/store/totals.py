"""Sums over everything that was metered, done and said: what counters on `/metrics` are made of. Restart-safe,
because they are counted from rows, never in memory.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import cast

from sqlalchemy import func
from sqlmodel import Session, col, select

from service.model import Status
from service.money import avoided_micros
from service.store.spend import metered_by_kind
from service.store.tables import Action, Finding, Outbox

CostKey = tuple[str | None, str, str, str, str]
"""project, provider, gpu model, capacity type, currency"""


def costs(session: Session, now: datetime) -> tuple[Counter[CostKey], Counter[CostKey]]:
    """Micro-units metered until now, by who pays and for what; and how much of it was spent on idling."""
    total: Counter[CostKey] = Counter()
    idle: Counter[CostKey] = Counter()
    for (*key, activity), micros in metered_by_kind(session, now):
        kind = cast(CostKey, tuple(key))
        total[kind] += micros
        if activity == "idle":
            idle[kind] += micros
    return total, idle


def actions(session: Session) -> dict[tuple[str, str, str], int]:
    """(policy, verb, status) → how many."""
    rows = session.exec(
        select(Action.policy, Action.verb, Action.status, func.count()).group_by(
            col(Action.policy), col(Action.verb), col(Action.status)
        )
    )
    return {(policy or "", verb, status): count for policy, verb, status, count in rows}


def findings(session: Session) -> dict[tuple[str, str, str], int]:
    """(policy, status, project) → how many are active."""
    rows = session.exec(
        select(Finding.policy, Finding.status, Finding.project, func.count())
        .where(col(Finding.closed_at).is_(None))
        .group_by(col(Finding.policy), col(Finding.status), col(Finding.project))
    )
    return {(policy, status, project or ""): count for policy, status, project, count in rows}


def notifications(session: Session) -> dict[tuple[str, str], int]:
    """(channel kind, status) → how many messages."""
    rows = session.exec(
        select(Outbox.channel_kind, Outbox.status, func.count()).group_by(Outbox.channel_kind, Outbox.status)
    )
    return {(channel, status): count for channel, status, count in rows}


def avoided(session: Session, now: datetime) -> Counter[tuple[str, str, str]]:
    """(policy, project, currency) → micro-units that verified stops avoided until now."""
    total: Counter[tuple[str, str, str]] = Counter()
    rows = session.exec(select(Action).where(col(Action.undoes).is_(None), col(Action.verified_at).is_not(None)))
    for row in rows:
        if row.rate_micros and row.currency and row.verified_at:
            cost = avoided_micros(row.rate_micros, row.verified_at, row.resumed_at or now)
            total[(row.policy or "", row.project or "", row.currency)] += cost
    return total


def potential(session: Session, now: datetime) -> Counter[tuple[str, str, str]]:
    """The twin of `avoided`: what acting at once on every finding that was only observed or warned would have saved."""
    total: Counter[tuple[str, str, str]] = Counter()
    rows = session.exec(
        select(Finding).where(col(Finding.status).in_([Status.OPEN.value, Status.WARNED.value, Status.CLEARED.value]))
    )
    for row in rows:
        if row.rate_micros and row.currency and row.remedy != "notify":
            cost = avoided_micros(row.rate_micros, row.opened_at, row.closed_at or now)
            total[(row.policy, row.project or "", row.currency)] += cost
    return total
