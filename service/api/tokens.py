"""`/tokens`: who may do what. The text of a token is in one answer only, the one that made it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field, model_validator
from sqlmodel import Session

from service.api.auth import Caller, Role, TheRuntime, require
from service.api.problems import not_found, responses
from service.api.shapes import Cursor, Limit, Listing, Shape, Until
from service.api.writes import Done, TheWrite
from service.documents import NAME_PATTERN, Name
from service.store import tokens, views
from service.store.tables import Token

router = APIRouter(prefix="/tokens", tags=["tokens"])

TokenName = Annotated[str, Path(pattern=NAME_PATTERN)]


class TokenAnswer(Shape):
    """A token, without its text."""

    name: str
    role: Role
    projects: list[str]
    """Confined to these; empty: to none (owner) or not confined (the others)."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    expired: bool


class NewToken(TokenAnswer):
    """The answer to a PUT."""

    token: str | None = None
    """The text itself, when it is new. It is shown this once."""


class TokenRequest(Until):
    """Who may do what, `for` how long or `until` when; without either it does not expire."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    projects: list[Name] = Field(default=[], max_length=100)
    rotate: bool = False
    """Make a new text for a token that exists; the old one stops working at once."""

    @model_validator(mode="after")
    def _confined_where_it_means_something(self) -> TokenRequest:
        if self.role is Role.OWNER and not self.projects:
            raise ValueError("projects: an owner is the owner of projects; name them")
        if self.role in (Role.OPERATOR, Role.ADMIN) and self.projects:
            raise ValueError(f"projects: the role {self.role} is not confined to projects; use owner or viewer")
        return self


@router.get("", responses=responses(), summary="List tokens")
def list_tokens(
    runtime: TheRuntime, principal: Caller, cursor: Cursor = None, limit: Limit = 100
) -> Listing[TokenAnswer]:
    require(principal, "tokens")
    with runtime.database.reading() as session:
        page = views.tokens(session, cursor=cursor, limit=limit)
    now = runtime.clock.now()
    return Listing(items=[TokenAnswer.model_validate(_shown(row, now)) for row in page.items], next=page.next)


@router.get("/{name}", responses=responses(404), summary="One token")
def get_token(runtime: TheRuntime, principal: Caller, name: TokenName) -> TokenAnswer:
    require(principal, "tokens")
    with runtime.database.reading() as session:
        return TokenAnswer.model_validate(_shown(_existing(session, name), runtime.clock.now()))


@router.put(
    "/{name}",
    responses={201: {"model": NewToken, "description": "Created"}, **responses(409, 413)},
    response_model=NewToken,
    summary="Create a token, or change one",
)
def put_token(runtime: TheRuntime, principal: Caller, name: TokenName, body: TokenRequest) -> JSONResponse:
    """Repeating it changes nothing more, so it needs no Idempotency-Key: an answer with a secret is never kept."""
    require(principal, "tokens")
    now = runtime.clock.now()
    with runtime.database.transaction() as session:
        created = session.get(Token, name) is None
        row, raw = tokens.put(
            session,
            name,
            role=body.role.value,
            projects=body.projects,
            expires_at=body.end(now),
            rotate=body.rotate,
            by=principal.actor,
            now=now,
        )
        answer = NewToken.model_validate(_shown(row, now) | {"token": raw})
    return JSONResponse(answer.model_dump(mode="json"), 201 if created else 200)


@router.delete("/{name}", status_code=204, responses=responses(404, 409), summary="Revoke a token")
def delete_token(write: TheWrite, name: TokenName) -> Response:
    require(write.principal, "tokens")

    def work(session: Session) -> Done:
        tokens.revoke(session, _existing(session, name), by=write.principal.actor, now=write.runtime.clock.now())
        return Done(body=None)

    write.once(work)
    return Response(status_code=204)


def _existing(session: Session, name: str) -> Token:
    row = session.get(Token, name)
    if row is None:
        raise not_found("token", name)
    return row


def _shown(row: Token, now: datetime) -> dict[str, object]:
    expired = row.expires_at is not None and row.expires_at <= now
    return {name: getattr(row, name) for name in TokenAnswer.model_fields if name != "expired"} | {"expired": expired}
