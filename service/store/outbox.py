"""Messages waiting to be delivered: queued in the transaction that makes them true, sent at least once later."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, literal, tuple_
from sqlmodel import Session, and_, col, func, select

from service.model import Message
from service.store.tables import Outbox, UtcDateTime, new_id

GIVE_UP_AFTER = timedelta(days=2)
"""A message that no channel took for so long has no reader any more."""
FIRST_RETRY = timedelta(seconds=30)
ASKED_AT_ONCE = 1000
"""Message-IDs in one question: databases bound the parameters they take."""
LONGEST_RETRY = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True)
class Addressed:
    """A message and one channel it goes to."""

    message: Message
    channel: str
    channel_kind: str
    keeps_only: bool = False
    """Its reader may keep the machine and look, and decide nothing else."""


def queue(session: Session, addressed: Iterable[Addressed], now: datetime) -> None:
    """Queue each once: its Message-ID is built from what it is about and to whom it goes."""
    wanted = {f"{entry.message.key}:{entry.channel}": entry for entry in addressed}
    if not wanted:
        return
    there: set[str] = set()
    for some in batched(list(wanted), ASKED_AT_ONCE):
        there.update(session.exec(select(Outbox.message_id).where(col(Outbox.message_id).in_(some))).all())
    session.add_all(
        Outbox(
            id=new_id(),
            message_id=message_id,
            kind=entry.message.kind,
            finding_id=entry.message.finding_id,
            episode=entry.message.episode,
            action_id=entry.message.action_id,
            channel=entry.channel,
            channel_kind=entry.channel_kind,
            payload={**entry.message.payload, **({"keeps_only": True} if entry.keeps_only else {})},
            created_at=now,
            next_try_at=now,
        )
        for message_id, entry in wanted.items()
        if message_id not in there
    )


def batched(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[at : at + size] for at in range(0, len(ids), size))


def is_queued(session: Session, key: str) -> bool:
    """Has a message about this ever been queued, for whatever channel?"""
    about = select(Outbox.id).where(col(Outbox.message_id).startswith(f"{key}:", autoescape=True))
    return session.exec(about.limit(1)).first() is not None


def pending(session: Session, now: datetime, *, after: Outbox | None = None, limit: int = 500) -> list[Outbox]:
    """What should be tried now, oldest first; the next ones `after` another."""
    waiting = select(Outbox).where(col(Outbox.status) == "pending", col(Outbox.next_try_at) <= now)
    if after is not None:
        place = tuple_(col(Outbox.created_at), col(Outbox.id))
        waiting = waiting.where(place > tuple_(literal(after.created_at, UtcDateTime), after.id))
    in_order = waiting.order_by(col(Outbox.created_at), col(Outbox.id))
    return list(session.exec(in_order.limit(limit)).all())


def last_errors(session: Session, finding_ids: Sequence[str]) -> dict[str, str]:
    """Finding → why what should tell of it was not taken when last tried; those that wait for nothing are left out."""
    rows = session.exec(
        select(Outbox)
        .where(col(Outbox.finding_id).in_(finding_ids), _undelivered())
        .order_by(col(Outbox.next_try_at), col(Outbox.id))
    ).all()
    return {row.finding_id: row.error for row in rows if row.finding_id is not None and row.error is not None}


def undelivered(session: Session) -> tuple[int, str | None]:
    """How many messages wait though they were tried, and what the last of them met."""
    rows = select(func.count()).select_from(Outbox).where(_undelivered())
    newest = select(Outbox.error).where(_undelivered()).order_by(col(Outbox.next_try_at).desc(), col(Outbox.id))
    return session.exec(rows).one(), session.exec(newest.limit(1)).first()


def _undelivered() -> ColumnElement[bool]:
    return and_(col(Outbox.status) == "pending", col(Outbox.error).is_not(None))


def delivered(row: Outbox, now: datetime) -> None:
    row.status, row.delivered_at, row.error, row.attempts = "delivered", now, None, row.attempts + 1


def withdrawn(row: Outbox) -> None:
    """It was overtaken before anybody took it; sent now it would not be true."""
    row.status, row.error = "withdrawn", "overtaken before it could be delivered"


def failed(row: Outbox, error: str, now: datetime) -> None:
    """Try again later, less and less often, until it is given up. A warning is not: while it is true it is owed."""
    row.attempts += 1
    row.error = error
    if row.kind != "warning" and now - row.created_at > GIVE_UP_AFTER:
        row.status = "failed"
        return
    row.next_try_at = now + min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(row.attempts - 1, 10))
