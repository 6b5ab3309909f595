"""Carries out one write in one transaction, and once only when it comes with an `Idempotency-Key`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, delete

from service.api.auth import Caller, Principal, runtime_of
from service.api.problems import Problem
from service.runtime import Runtime
from service.store.tables import IdempotencyKey

KEPT = timedelta(hours=24)
"""How long a repeated key gives the first answer again."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a write answers."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Write:
    """One request that changes something."""

    runtime: Runtime
    principal: Principal
    key: str | None
    fingerprint: str

    def answered(self) -> JSONResponse | None:
        """The answer that this very request had before, for work that no transaction may be open for."""
        if self.key is None:
            return None
        with self.runtime.database.reading() as session:
            row = session.get(IdempotencyKey, self.key)
            return None if row is None else self._repeated(row)

    def once(self, work: Callable[[Session], Done]) -> JSONResponse:
        """Runs `work` in a transaction. A failed one leaves nothing behind, so its key may be used again."""
        with self.runtime.database.transaction() as session:
            if self.key is None:
                return _response(work(session))
            row, fresh = self._claim(session, self.key)
            if fresh:
                done = work(session)
                row.status = done.status
                row.body = {"body": jsonable_encoder(done.body), "headers": dict(done.headers)}
                return _response(done)
            return self._repeated(row)

    def _repeated(self, row: IdempotencyKey) -> JSONResponse:
        if row.fingerprint != self.fingerprint:
            raise Problem(409, "IdempotencyKeyReused", "this Idempotency-Key came with another request before")
        return _response(Done(body=row.body["body"], status=row.status, headers=row.body["headers"]))

    def _claim(self, session: Session, key: str) -> tuple[IdempotencyKey, bool]:
        """The key's row, and whether it is ours to fill. A twin that is under way is waited for."""
        now = self.runtime.clock.now()
        session.connection().execute(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < now - KEPT))
        row = session.get(IdempotencyKey, key)
        if row is not None:
            return row, False
        row = IdempotencyKey(key=key, fingerprint=self.fingerprint, status=0, created_at=now)
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            return session.get_one(IdempotencyKey, key), False
        return row, True


def _response(done: Done) -> JSONResponse:
    return JSONResponse(jsonable_encoder(done.body), done.status, headers=dict(done.headers))


async def _body(request: Request) -> bytes:
    return await request.body()


def _write(
    request: Request,
    principal: Caller,
    body: Annotated[bytes, Depends(_body)],
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="a repeated request with the same key changes nothing more"),
    ] = None,
    if_match: Annotated[str | None, Header(max_length=100, include_in_schema=False)] = None,
) -> Write:
    # A kept answer is given again to the same token with the same rights only, not to one of the same name.
    who = (principal.identity, principal.role, *(sorted(principal.projects) if principal.projects is not None else "*"))
    parts = (request.method, request.url.path, request.url.query, if_match or "", body.hex(), *who)
    return Write(
        runtime=runtime_of(request),
        principal=principal,
        key=None if idempotency_key is None else f"{principal.name}:{idempotency_key}",
        fingerprint=hashlib.sha256("\n".join(parts).encode()).hexdigest(),
    )


TheWrite = Annotated[Write, Depends(_write)]
Body = Annotated[bytes, Depends(_body)]
