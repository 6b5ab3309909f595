"""Turns a login with a token into a signed cookie, and the cookie back into who is asking. The token is never kept.

The cookie holds the token's name, a mark that only the signing key makes of its digest, and when it was made. A
session ends with the text it was opened with: when that is revoked, or the overlap of its rotation is over; and when
somebody logs out, wherever the cookie may have gone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import Request, Response
from itsdangerous import BadData, URLSafeSerializer
from sqlmodel import col, delete

from service.api.auth import Principal, Role, authenticate, holders_of
from service.clock import RealClock
from service.runtime import Runtime
from service.store.tables import EndedSession

COOKIE = "curfew_session"
LASTS = timedelta(hours=12)
"""A working day. Counted in real time: people log in, not the demo."""
SALT = "curfew-session"

ANYBODY = Principal(name="anybody", role=Role.VIEWER)
"""Whoever looks at the demo: sees all of a simulated company, changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who looks at a page; `csrf` must come back with every form of theirs."""

    principal: Principal
    csrf: str = ""

    @property
    def logged_in(self) -> bool:
        return self.principal is not ANYBODY


def visitor_of(request: Request, runtime: Runtime) -> Visitor | None:
    """Who is asking; None when they must log in first."""
    cookie = request.cookies.get(COOKIE, "")
    principal = _principal(runtime, cookie) if cookie else None
    if principal is not None:
        return Visitor(principal=principal, csrf=_csrf(runtime, cookie))
    return Visitor(principal=ANYBODY) if runtime.settings.demo_speed > 0 else None


def log_in(response: Response, request: Request, runtime: Runtime, raw_token: str) -> bool:
    """Set the cookie if the token is good."""
    principal = authenticate(runtime, raw_token)
    if principal is None:
        return False
    issued = int(RealClock().now().timestamp())
    cookie = _signer(runtime).dumps([secrets.token_urlsafe(16), principal.name, _mark(runtime, principal), issued])
    secure = request.url.scheme == "https" or runtime.settings.public_url.startswith("https://")
    response.set_cookie(
        COOKIE,
        cookie if isinstance(cookie, str) else cookie.decode(),
        max_age=int(LASTS.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=secure,
        path=request.scope.get("root_path") or "/",
    )
    return True


def log_out(response: Response, request: Request, runtime: Runtime) -> None:
    """For good: whoever kept a copy of the cookie is logged out as well."""
    now = RealClock().now()
    id = _signer(runtime).loads(request.cookies[COOKIE])[0]
    with runtime.database.transaction() as session:
        session.connection().execute(delete(EndedSession).where(col(EndedSession.ended_at) < now - LASTS))
        session.merge(EndedSession(id=id, ended_at=now))
    response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/", httponly=True, samesite="strict")


def genuine(request: Request, visitor: Visitor, csrf: str) -> bool:
    """Whether a form was sent from a page of ours, by this visitor."""
    return (
        visitor.logged_in and not from_elsewhere(request) and hmac.compare_digest(csrf.encode(), visitor.csrf.encode())
    )


def from_elsewhere(request: Request) -> bool:
    """Whether the browser says that another site made it send this."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def _principal(runtime: Runtime, cookie: str) -> Principal | None:
    try:
        id, name, mark, issued = _signer(runtime).loads(cookie)
        issued_at = datetime.fromtimestamp(issued, RealClock().now().tzinfo)
    except (BadData, ValueError, TypeError, OverflowError):
        return None
    if RealClock().now() - issued_at >= LASTS:
        return None
    with runtime.database.reading() as session:
        if session.get(EndedSession, id) is not None:
            return None
    for principal in holders_of(runtime, name):
        if hmac.compare_digest(mark, _mark(runtime, principal)):
            return principal
    return None


def _mark(runtime: Runtime, principal: Principal) -> str:
    """Tells one token from another of the same name, and says nothing about either."""
    key = f"curfew-session-mark\0{runtime.settings.signing_key()}".encode()
    return hmac.new(key, principal.identity.encode(), hashlib.sha256).hexdigest()


def _csrf(runtime: Runtime, cookie: str) -> str:
    key = f"curfew-csrf\0{runtime.settings.signing_key()}".encode()
    return hmac.new(key, cookie.encode(), hashlib.sha256).hexdigest()


def _signer(runtime: Runtime) -> URLSafeSerializer:
    signing = {"digest_method": hashlib.sha256}
    return URLSafeSerializer(runtime.settings.signing_key(), salt=SALT, signer_kwargs=signing)
