"""`/tokens`: who may do what. The text of a token is in one answer only, the one that made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from sqlmodel import Session

from policies.quantities import parse_duration
from service.api.auth import Caller, Role, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Cursor, Limit, Listing, Shape, Until
from service.api.writes import Done, TheWrite
from service.documents import NAME_PATTERN, Name
from service.store import tokens, views
from service.store.tables import Token

router = APIRouter(prefix="/tokens", tags=["tokens"])

DEFAULT_OVERLAP, LONGEST_OVERLAP = timedelta(hours=24), timedelta(days=30)
"""How long a text works on after its token was rotated: a day to bring the new one everywhere."""
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
    expires_soon: bool
    """Within the next 14 days: rotate it before then."""
    rotated_at: datetime | None
    old_text_until: datetime | None
    """Until when a text from before a rotation still works; null when none does."""
    last_used_on: date | None
    """The day, in UTC."""


class NewToken(TokenAnswer):
    """The answer that makes a text."""

    token: str | None = None
    """The text itself, when it is new. It is shown this once."""


class TokenRequest(Until):
    """Who may do what, `for` how long or `until` when; without either it does not expire."""

    model_config = ConfigDict(extra="forbid")

    role: Role
    projects: list[Name] = Field(default=[], max_length=100)
    rotate: bool = False
    """Make a new text for a token that exists; the old one stops working at once. `…/rotate` lets it work on."""

    @model_validator(mode="after")
    def _confined_where_it_means_something(self) -> TokenRequest:
        if self.role is Role.OWNER and not self.projects:
            raise ValueError("projects: an owner is the owner of projects; name them")
        if self.role in (Role.OPERATOR, Role.ADMIN) and self.projects:
            raise ValueError(f"projects: the role {self.role} is not confined to projects; use owner or viewer")
        return self


def _overlap(value: Any) -> timedelta:
    try:
        length = parse_duration(value)
    except OverflowError:
        length = timedelta.max
    if not timedelta(0) <= length <= LONGEST_OVERLAP:
        raise ValueError(f"must be between 0s and {LONGEST_OVERLAP.days} days")
    return length


class RotateRequest(Until):
    """How long the old text works on; and for how long the token is valid, which otherwise stays as it is."""

    model_config = ConfigDict(extra="forbid")

    overlap: Annotated[
        timedelta,
        BeforeValidator(_overlap),
        Field(json_schema_extra={"type": "string", "format": "", "examples": ["24h", "0s"]}),
    ] = DEFAULT_OVERLAP
    """Written like `24h`, which it is by default; `0s` ends the old text at once."""


@router.get("", responses=responses(), summary="List tokens")
def list_tokens(
    runtime: TheRuntime, principal: Caller, cursor: Cursor = None, limit: Limit = 100
) -> Listing[TokenAnswer]:
    require(principal, "tokens")
    with runtime.database.reading() as session:
        page = views.tokens(session, cursor=cursor, limit=limit)
        return Listing(items=_shown(session, page.items, runtime.clock.now()), next=page.next)


@router.get("/{name}", responses=responses(404), summary="One token")
def get_token(runtime: TheRuntime, principal: Caller, name: TokenName) -> TokenAnswer:
    require(principal, "tokens")
    with runtime.database.reading() as session:
        return _shown(session, [_existing(session, name)], runtime.clock.now())[0]


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
        answer = _new(session, row, raw, now)
    return JSONResponse(answer.model_dump(mode="json"), 201 if created else 200)


@router.post("/{name}/rotate", responses=responses(404, 409, 413), summary="Give a token a new text")
def rotate_token(
    runtime: TheRuntime, principal: Caller, name: TokenName, body: RotateRequest = RotateRequest()
) -> NewToken:
    """The new text is in this answer only; the old one works on for the overlap. An answer that was lost is no harm:
    rotate again, the text in use keeps its overlap.
    """
    require(principal, "tokens")
    now = runtime.clock.now()
    with runtime.database.transaction() as session:
        row = _existing(session, name, lock=True)
        end = body.end(now) or row.expires_at
        if end is not None and end <= now:
            raise Problem(409, "Expired", f"token {name!r} has expired; say `for` how long it shall be valid again")
        raw = tokens.rotate(session, row, overlap=body.overlap, expires_at=end, by=principal.actor, now=now)
        return _new(session, row, raw, now)


@router.delete("/{name}", status_code=204, responses=responses(404, 409), summary="Revoke a token")
def delete_token(write: TheWrite, name: TokenName) -> Response:
    require(write.principal, "tokens")

    def work(session: Session) -> Done:
        tokens.revoke(session, _existing(session, name), by=write.principal.actor, now=write.runtime.clock.now())
        return Done(body=None)

    write.once(work)
    return Response(status_code=204)


def _existing(session: Session, name: str, *, lock: bool = False) -> Token:
    row = session.get(Token, name, with_for_update=lock or None)
    if row is None:
        raise not_found("token", name)
    return row


def _shown(session: Session, rows: Sequence[Token], now: datetime) -> list[TokenAnswer]:
    former = tokens.former_until(session, [row.name for row in rows], now=now)
    return [TokenAnswer.model_validate(_fields(row, former.get(row.name), now)) for row in rows]


def _new(session: Session, row: Token, raw: str | None, now: datetime) -> NewToken:
    former = tokens.former_until(session, [row.name], now=now)
    return NewToken.model_validate(_fields(row, former.get(row.name), now) | {"token": raw})


def _fields(row: Token, former_until: datetime | None, now: datetime) -> dict[str, object]:
    end = row.expires_at
    return {name: getattr(row, name) for name in TokenAnswer.model_fields if name in Token.model_fields} | {
        "expired": end is not None and end <= now,
        "expires_soon": end is not None and now < end <= now + tokens.EXPIRES_SOON,
        "old_text_until": former_until,
    }
