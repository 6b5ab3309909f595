"""One governs at a time: a lease with a fencing token, counted in real time whatever the governed clock says.

Whoever takes the lease gets a higher token; every write that matters checks the token in its own transaction, so a
holder that was paused for too long cannot act on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from service.store.tables import Lease

NAME = "cycle"
LENGTH = timedelta(seconds=180)
"""Longer than any one step is allowed to take without renewing it."""


class LeaseLost(Exception):
    """Somebody else governs now; whatever was being done must stop."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Proof of holding the lease."""

    holder: str
    token: int


def real_now() -> datetime:
    return datetime.now(UTC)


def take(session: Session, holder: str, *, is_gone: Callable[[str], bool] = lambda holder: False) -> Held | None:
    """The lease, if it is free, expired, already ours or held by somebody gone; None while another holds it."""
    row = session.exec(select(Lease).where(Lease.name == NAME).with_for_update()).first()
    now = real_now()
    if row is None:
        try:
            with session.begin_nested():
                session.add(Lease(name=NAME, holder=holder, token=1, expires_at=now + LENGTH))
        except IntegrityError:  # somebody else was the very first, a moment before us
            return None
        return Held(holder=holder, token=1)
    if row.holder != holder and row.expires_at > now and not is_gone(row.holder):
        return None
    row.holder, row.token, row.expires_at = holder, row.token + 1, now + LENGTH
    session.add(row)
    return Held(holder=holder, token=row.token)


def renew(session: Session, held: Held, *, at_least: timedelta = timedelta(0)) -> None:
    """Extend it; raises LeaseLost when the token is no longer the newest. `at_least` must fit into what is left."""
    statement = (
        update(Lease)
        .where(col(Lease.name) == NAME, col(Lease.token) == held.token, col(Lease.holder) == held.holder)
        .values(expires_at=real_now() + max(LENGTH, at_least))
    )
    if session.connection().execute(statement).rowcount != 1:
        raise LeaseLost(f"the lease of {held.holder} was taken over")


def check(session: Session, held: Held) -> None:
    """Fence: raises LeaseLost unless the token is the newest. Locks the row until the transaction ends.

    A lease that ran out and that nobody took is still ours: a long look at slow clouds must not be for nothing.
    """
    row = session.exec(select(Lease).where(Lease.name == NAME).with_for_update()).first()
    if row is None or row.token != held.token:
        raise LeaseLost(f"the lease of {held.holder} is no longer valid")


def release(session: Session, held: Held) -> None:
    """Give it back early, so that the next one need not wait."""
    statement = (
        update(Lease).where(col(Lease.name) == NAME, col(Lease.token) == held.token).values(expires_at=real_now())
    )
    session.connection().execute(statement)
