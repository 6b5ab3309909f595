"""Keeps API tokens: makes one, finds whose a presented text is, gives it a new text, revokes it. Only the sha256 of a
text is ever stored.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from hmac import compare_digest

from sqlalchemy import or_, update
from sqlmodel import Session, col, delete, select

from policies.quantities import format_duration
from service.store import audit
from service.store.tables import FormerTokenText, Token

PREFIX = "curfew_"
"""Lets secret scanners recognise a leaked one."""
EXPIRES_SOON = timedelta(days=14)
"""Admins are told so long ahead: time to rotate it on a working day."""


def digest(raw: str) -> str:
    """What is stored. A token is 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def _new_text() -> str:
    return PREFIX + secrets.token_urlsafe(32)


# --- finding ---------------------------------------------------------------------------------------------------------


def find(session: Session, sha256: str, *, now: datetime) -> Token | None:
    """Whose text this is, while it works: the present one, or one from before a rotation."""
    token = session.exec(select(Token).where(Token.sha256 == sha256)).first()
    if token is not None and compare_digest(token.sha256, sha256):
        return _valid(token, now)
    former = session.get(FormerTokenText, sha256)
    if former is None or not compare_digest(former.sha256, sha256) or former.until <= now:
        return None
    return named(session, former.name, now=now)


def named(session: Session, name: str, *, now: datetime) -> Token | None:
    """The token of this name, while it is valid."""
    token = session.get(Token, name)
    return None if token is None else _valid(token, now)


def texts(session: Session, token: Token, *, now: datetime) -> list[str]:
    """The sha256 of each text that opens what this token opens."""
    former = select(FormerTokenText.sha256).where(FormerTokenText.name == token.name, col(FormerTokenText.until) > now)
    return [token.sha256, *session.exec(former)]


def former_until(session: Session, names: Collection[str], *, now: datetime) -> dict[str, datetime]:
    """Token → until when a text from before a rotation still works; absent when none does."""
    found: dict[str, datetime] = {}
    statement = select(FormerTokenText).where(col(FormerTokenText.name).in_(names), col(FormerTokenText.until) > now)
    for row in session.exec(statement):
        found[row.name] = max(row.until, found.get(row.name, row.until))
    return found


def expiring(session: Session, *, now: datetime) -> Sequence[Token]:
    """Those whose end is near, the nearest first."""
    soon = select(Token).where(col(Token.expires_at) > now, col(Token.expires_at) <= now + EXPIRES_SOON)
    return session.exec(soon.order_by(col(Token.expires_at), col(Token.name))).all()


def _valid(token: Token, now: datetime) -> Token | None:
    return None if token.expires_at is not None and token.expires_at <= now else token


# --- changing --------------------------------------------------------------------------------------------------------


def put(
    session: Session,
    name: str,
    *,
    role: str,
    projects: Sequence[str],
    expires_at: datetime | None,
    rotate: bool,
    by: str,
    now: datetime,
) -> tuple[Token, str | None]:
    """Create a token or change one; the text of the token comes back only when it is new. It cannot be shown again."""
    token = session.get(Token, name)
    verb = "change" if token else "create"
    raw = None
    if token is None:
        raw = _new_text()
        token = Token(name=name, sha256=digest(raw), role=role, created_at=now, created_by=by)
    elif rotate:
        raw = _replace_text(session, token, until=now, now=now)
    token.role = role
    token.projects = sorted(projects)
    token.expires_at = expires_at
    session.add(token)
    session.flush()
    details = {"role": role, "projects": token.projects, "expires_at": _iso(expires_at), "new_secret": raw is not None}
    audit.record(session, at=now, actor=by, verb=verb, object=f"token/{name}", details=details)
    return token, raw


def rotate(
    session: Session, token: Token, *, overlap: timedelta, expires_at: datetime | None, by: str, now: datetime
) -> str:
    """A new text, to be shown once. Those from before work for the overlap, never longer than the token did; without
    one they end at once.
    """
    until = now + overlap if token.expires_at is None else min(now + overlap, token.expires_at)
    raw = _replace_text(session, token, until=until, now=now)
    token.expires_at = expires_at
    session.add(token)
    session.flush()
    details = {"overlap": format_duration(overlap), "old_text_until": _iso(until), "expires_at": _iso(expires_at)}
    audit.record(session, at=now, actor=by, verb="rotate", object=f"token/{token.name}", details=details)
    return raw


def _replace_text(session: Session, token: Token, *, until: datetime, now: datetime) -> str:
    """The present text becomes a former one. Those of earlier rotations keep their own end, but end no later."""
    former = session.exec(select(FormerTokenText).where(FormerTokenText.name == token.name)).all()
    for row in former:
        if min(row.until, until) <= now:
            session.delete(row)
        elif row.until > until:
            row.until = until
            session.add(row)
    if until > now:
        session.add(FormerTokenText(sha256=token.sha256, name=token.name, until=until))
    raw = _new_text()
    token.sha256, token.rotated_at = digest(raw), now
    return raw


def note_use(session: Session, name: str, today: date) -> None:
    """Once a day at most, whoever else notes it at the same time."""
    used_before = or_(col(Token.last_used_on).is_(None), col(Token.last_used_on) < today)
    session.connection().execute(update(Token).where(col(Token.name) == name, used_before).values(last_used_on=today))


def revoke(session: Session, token: Token, *, by: str, now: datetime) -> None:
    """From now on none of its texts opens anything."""
    session.connection().execute(delete(FormerTokenText).where(col(FormerTokenText.name) == token.name))
    session.delete(token)
    audit.record(session, at=now, actor=by, verb="revoke", object=f"token/{token.name}")


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
