"""Turns a presented token into who is asking and what they may do. Who is told what is not decided here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from hmac import compare_digest
from typing import Annotated

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy.exc import DBAPIError

from service.api.problems import Problem
from service.runtime import Runtime
from service.store import tokens
from service.store.database import DatabaseGone, trouble_of
from service.store.tables import Token

log = structlog.get_logger()


class Role(StrEnum):
    """Each may do all that the ones before may."""

    VIEWER = "viewer"
    OWNER = "owner"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return list(Role).index(self)


ADMIN = "CURFEW_ADMIN_TOKEN"
"""The name of whoever holds the token of the settings; no stored token can be called that."""

NEEDS: Mapping[str, Role] = {
    "read": Role.VIEWER,
    "snooze": Role.OWNER,
    "approve": Role.OWNER,
    "dismiss": Role.OWNER,
    "act": Role.OWNER,
    "undo": Role.OWNER,
    "notify": Role.OWNER,
    "hold": Role.OPERATOR,
    "rollout": Role.OPERATOR,
    "cycle": Role.OPERATOR,
    "documents": Role.ADMIN,
    "override_backtest": Role.ADMIN,
    "tokens": Role.ADMIN,
}
"""The least role that may do a thing."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who is asking."""

    name: str
    role: Role
    projects: frozenset[str] | None = None
    """Confined to these; None: not confined."""
    identity: str = field(default="", repr=False)
    """Of the very text that was presented: another one of the same name is somebody else."""

    @property
    def actor(self) -> str:
        """How the audit log names them."""
        return f"token:{self.name}"

    def sees(self, project: str | None) -> bool:
        """Whether things of this project (None: of nobody's, or of everybody's) are theirs to see."""
        return self.projects is None or project in self.projects

    @property
    def sees_all(self) -> bool:
        """Not confined: sources and cycles are theirs to see, which speak of every project."""
        return self.projects is None

    def may(self, verb: str, project: str | None = None) -> bool:
        """Whether they may do this to things of that project (None: to what belongs to no single project)."""
        return self.role.rank >= NEEDS[verb].rank and self.sees(project)


def authenticate(runtime: Runtime, raw_token: str) -> Principal | None:
    """Who holds this token; None when it is empty, unknown, expired or revoked."""
    if not raw_token:
        return None
    presented = tokens.digest(raw_token)
    admin = _admin(runtime)
    if admin is not None and compare_digest(presented, admin.identity):
        return admin
    now = runtime.clock.now()
    with runtime.database.reading() as session:
        token = tokens.find(session, presented, now=now)
    if token is None:
        return None
    if token.last_used_on != now.date():
        _note_use(runtime, token.name, now.date())
    return _principal(token, presented)


def holders_of(runtime: Runtime, name: str) -> list[Principal]:
    """Whoever holds the token of this name, once for each text that opens it; none when it is not there or expired."""
    admin = _admin(runtime)
    if name == ADMIN and admin is not None:
        return [admin]
    now = runtime.clock.now()
    with runtime.database.reading() as session:
        token = tokens.named(session, name, now=now)
        return [] if token is None else [_principal(token, text) for text in tokens.texts(session, token, now=now)]


def _admin(runtime: Runtime) -> Principal | None:
    """Whoever holds the token of the settings."""
    admin = runtime.settings.admin_token
    if admin is None:
        return None
    return Principal(name=ADMIN, role=Role.ADMIN, identity=tokens.digest(admin.get_secret_value()))


def _note_use(runtime: Runtime, name: str, today: date) -> None:
    """A request is not refused because this could not be written."""
    try:
        with runtime.database.transaction() as session:
            tokens.note_use(session, name, today)
    except (DBAPIError, DatabaseGone) as error:
        log.warning("it could not be noted that a token was used", token=name, reason=trouble_of(error))


def _principal(token: Token, text: str) -> Principal:
    role = Role(token.role)
    projects = frozenset(token.projects) if token.projects or role is Role.OWNER else None
    return Principal(name=token.name, role=role, projects=projects, identity=text)


class FailedLogins:
    """Tells a guesser to wait after 20 wrong tokens in a minute from one address. Counted in real time."""

    def __init__(self, limit: str = "20/minute") -> None:
        self._limit = parse(limit)
        self._seen = MovingWindowRateLimiter(MemoryStorage())

    def blocked(self, address: str) -> bool:
        return not self._seen.test(self._limit, address)

    def failed(self, address: str) -> None:
        self._seen.hit(self._limit, address)


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def address_of(request: Request) -> str:
    return request.client.host if request.client else "unknown"


_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A Curfew token: `curfew token create`.")


def caller(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Who is asking, or 401; 429 for an address that keeps presenting wrong tokens."""
    return principal_of(request, None if credentials is None else credentials.credentials)


def bearer_of(request: Request) -> str | None:
    """The token of the Authorization header, for routes that may also be open."""
    scheme, _, raw = request.headers.get("Authorization", "").partition(" ")
    return raw.strip() if scheme.lower() == "bearer" else None


def principal_of(request: Request, raw: str | None) -> Principal:
    """A good token is always let in: others behind its address must not be able to lock its holder out."""
    if raw is None:
        raise _unauthorised("this needs a token: send `Authorization: Bearer …`")
    principal = authenticate(runtime_of(request), raw)
    if principal is not None:
        return principal
    failed_logins: FailedLogins = request.app.state.failed_logins
    address = address_of(request)
    if failed_logins.blocked(address):
        raise Problem(
            429,
            "TooManyFailedLogins",
            "too many wrong tokens came from this address; try again in a minute",
            headers={"Retry-After": "60"},
        )
    failed_logins.failed(address)
    raise _unauthorised("this token is unknown, expired or revoked")


def _unauthorised(detail: str) -> Problem:
    return Problem(401, "Unauthorised", detail, headers={"WWW-Authenticate": "Bearer"})


def require(principal: Principal, verb: str, project: str | None = None) -> None:
    """403 with the role that it takes."""
    if principal.role.rank < NEEDS[verb].rank:
        raise Problem(403, "RoleTooLow", f"this takes the role {NEEDS[verb]}; this token is {principal.role}")
    if not principal.may(verb, project):
        theirs = ", ".join(sorted(principal.projects or ())) or "no project"
        raise Problem(403, "OtherProject", f"this token is confined to {theirs}")


TheRuntime = Annotated[Runtime, Depends(runtime_of)]
Caller = Annotated[Principal, Depends(caller)]
