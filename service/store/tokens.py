"""Keeps API tokens: makes one, finds whose a presented one is, revokes it. Only their sha256 is ever stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from hmac import compare_digest

from sqlmodel import Session, select

from service.store import audit
from service.store.tables import Token

PREFIX = "curfew_"
"""Lets secret scanners recognise a leaked one."""


def digest(raw: str) -> str:
    """What is stored. A token is 256 random bits, so a plain hash is as good as a slow one."""
    return hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()


def find(session: Session, raw: str, *, now: datetime) -> Token | None:
    """Whose token this is, while it is valid."""
    sha256 = digest(raw)
    token = session.exec(select(Token).where(Token.sha256 == sha256)).first()
    if token is None or not compare_digest(token.sha256, sha256):
        return None
    return _valid(token, now)


def named(session: Session, name: str, *, now: datetime) -> Token | None:
    """The token of this name, while it is valid."""
    token = session.get(Token, name)
    return None if token is None else _valid(token, now)


def _valid(token: Token, now: datetime) -> Token | None:
    return None if token.expires_at is not None and token.expires_at <= now else token


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
    if token is None or rotate:
        raw = PREFIX + secrets.token_urlsafe(32)
    if token is None:
        token = Token(name=name, sha256="", role=role, created_at=now, created_by=by)
    if raw is not None:
        token.sha256 = digest(raw)
    token.role = role
    token.projects = sorted(projects)
    token.expires_at = expires_at
    session.add(token)
    session.flush()
    details = {"role": role, "projects": token.projects, "new_secret": raw is not None}
    audit.record(session, at=now, actor=by, verb=verb, object=f"token/{name}", details=details)
    return token, raw


def revoke(session: Session, token: Token, *, by: str, now: datetime) -> None:
    """From now on it opens nothing."""
    session.delete(token)
    audit.record(session, at=now, actor=by, verb="revoke", object=f"token/{token.name}")
