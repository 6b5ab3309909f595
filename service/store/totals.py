"""Sums over everything that was metered, done and said: what counters on `/metrics` are made of. Restart-safe,
because they are counted from rows, never in memory; what will not change any more is counted once, into `Tally`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, update
from sqlalchemy import select as columns
from sqlmodel import Session, col, select

from service.model import Status
from service.money import AVOIDED_AT_MOST, avoided_micros
from service.store.database import add_up, epoch, micros_after, whole
from service.store.open_intervals import OpenIntervals
from service.store.spend import metered_by_kind
from service.store.sums import UNUSED
from service.store.tables import Action, Finding, Outbox, Tally

CostKey = tuple[str | None, str, str, str, str]
"""project, provider, gpu model, capacity type, currency"""
Labels = tuple[str, ...]

SAVING_NOTHING = ("notify", "move_to_spot")
"""Remedies that stop nothing: what moving to spot saves comes as members are replaced, and is not claimed."""
_OBSERVED = [status.value for status in (Status.OPEN, Status.WARNED, Status.CLEARED)]
"""Findings that were never acted on."""


def costs(
    session: Session, now: datetime, opened: OpenIntervals | None = None
) -> tuple[Counter[CostKey], Counter[CostKey]]:
    """Micro-units metered until now, by who pays and for what; and how much of it was spent on idling."""
    total: Counter[CostKey] = Counter()
    idle: Counter[CostKey] = Counter()
    for (project, provider, model, capacity, currency, activity), micros in metered_by_kind(
        session, now, opened
    ).items():
        kind = (project, provider, model, capacity, currency)
        total[kind] += micros
        if activity in UNUSED:
            idle[kind] += micros
    return total, idle


def actions(session: Session) -> Counter[Labels]:
    """(policy, verb, status) → how many there ever were."""
    kinds = (col(Action.policy), col(Action.verb), col(Action.status))
    return _both(_tallied(session, "actions"), _grouped(session, kinds, func.count()))


def findings(session: Session) -> Counter[Labels]:
    """(policy, status, project) → how many are active."""
    kinds = (col(Finding.policy), col(Finding.status), col(Finding.project))
    return _grouped(session, kinds, func.count(), col(Finding.closed_at).is_(None))


def false_stops(session: Session) -> Counter[Labels]:
    """(policy, project, why) → how many verified acts of policies people regretted, ever."""
    kinds = (col(Action.policy), col(Action.project), col(Action.regret_why))
    return _both(_tallied(session, "false_stops"), _grouped(session, kinds, func.count(), regretted()))


def regretted() -> ColumnElement[bool]:
    """What is asked to be put back before it was seen done counts once it is."""
    return and_(col(Action.regretted_at).is_not(None), col(Action.verified_at).is_not(None))


def notifications(session: Session) -> Counter[Labels]:
    """(channel kind, status) → how many messages there ever were."""
    kinds = (col(Outbox.channel_kind), col(Outbox.status))
    return _both(_tallied(session, "notifications"), _grouped(session, kinds, func.count()))


def avoided(session: Session, now: datetime) -> Counter[Labels]:
    """(policy, project, currency) → micro-units that verified stops avoided until now."""
    kinds = (col(Action.policy), col(Action.project), col(Action.currency))
    cost = _avoided(Action.rate_micros, Action.verified_at, Action.resumed_at, now)
    running = _grouped(session, kinds, func.sum(cost), _stopped(), ~col(Action.tallied))
    return _both(_tallied(session, "avoided"), running)


def potential(session: Session, now: datetime) -> Counter[Labels]:
    """The twin of `avoided`: what acting at once on every finding that was only observed or warned would have saved."""
    kinds = (col(Finding.policy), col(Finding.project), col(Finding.currency))
    cost = _avoided(Finding.rate_micros, Finding.opened_at, Finding.closed_at, now)
    running = _grouped(session, kinds, func.sum(cost), _missed(), ~col(Finding.tallied))
    return _both(_tallied(session, "potential"), running)


def _stopped() -> ColumnElement[bool]:
    return and_(
        col(Action.undoes).is_(None),
        col(Action.verified_at).is_not(None),
        col(Action.rate_micros) > 0,
        col(Action.currency).is_not(None),
    )


def _missed() -> ColumnElement[bool]:
    return and_(
        col(Finding.status).in_(_OBSERVED),
        col(Finding.remedy).not_in(SAVING_NOTHING),
        col(Finding.rate_micros) > 0,
        col(Finding.currency).is_not(None),
    )


def _avoided(rate: Any, start: Any, end: Any, now: datetime) -> ColumnElement[int]:
    """`avoided_micros`, word for word, inside the database."""
    at_most = int(AVOIDED_AT_MOST.total_seconds())
    lasted = func.coalesce(epoch(end), whole(now)) - epoch(start)
    seconds = case((lasted < 0, 0), (lasted > at_most, at_most), else_=lasted)
    return micros_after(rate, seconds)


def _grouped(session: Session, kinds: tuple[Any, ...], sum_: Any, *where: ColumnElement[bool]) -> Counter[Labels]:
    rows = session.connection().execute(columns(*kinds, sum_).where(*where).group_by(*kinds))
    return Counter({tuple(label or "" for label in labels): int(amount) for *labels, amount in rows})


def _both(counted: Counter[Labels], rows: Counter[Labels]) -> Counter[Labels]:
    counted.update(rows)
    return counted


# --- counted once, and no more ---------------------------------------------------------------------------------------


def _tallied(session: Session, family: str) -> Counter[Labels]:
    rows = session.exec(select(Tally.labels, Tally.value).where(Tally.family == family))
    return Counter({tuple(json.loads(labels)): value for labels, value in rows})


def add_to_tally(session: Session, family: str, sums: Mapping[Labels, int]) -> None:
    """What is counted here must not be counted from rows any more."""
    added = {(family, json.dumps(labels)): amount for labels, amount in sums.items() if amount}
    add_up(session, Tally, "value", added, key=["family", "labels"])


def tally_findings(session: Session, *, at_most: int) -> int:
    """Add what findings that have ended could have saved; how many they were."""
    ended = select(Finding).where(~col(Finding.tallied), col(Finding.closed_at).is_not(None))
    rows = session.exec(ended.limit(at_most).with_for_update()).all()
    sums: Counter[Labels] = Counter()
    for row in rows:
        if (
            row.status in _OBSERVED
            and row.remedy not in SAVING_NOTHING
            and row.rate_micros
            and row.currency
            and row.closed_at
        ):
            labels = (row.policy, row.project or "", row.currency)
            sums[labels] += avoided_micros(row.rate_micros, row.opened_at, row.closed_at)
    add_to_tally(session, "potential", sums)
    _mark(session, Finding, [row.id for row in rows])
    return len(rows)


def tally_actions(session: Session, now: datetime, *, at_most: int) -> int:
    """Add what stops avoided of which nothing more will come; how many they were."""
    final = or_(col(Action.resumed_at).is_not(None), col(Action.verified_at) <= now - AVOIDED_AT_MOST)
    verified = select(Action).where(~col(Action.tallied), col(Action.verified_at).is_not(None), final)
    rows = session.exec(verified.limit(at_most).with_for_update()).all()
    sums: Counter[Labels] = Counter()
    for row in rows:
        if row.undoes is None and row.verified_at and row.rate_micros and row.currency:
            labels = (row.policy or "", row.project or "", row.currency)
            sums[labels] += avoided_micros(row.rate_micros, row.verified_at, row.resumed_at or now)
    add_to_tally(session, "avoided", sums)
    _mark(session, Action, [row.id for row in rows])
    return len(rows)


def _mark(session: Session, table: Any, ids: Iterable[str]) -> None:
    session.connection().execute(update(table).where(table.id.in_(ids)).values(tallied=True))
