"""Stands before every route: bounds what is read, refuses what no database can hold or no route takes, and adds the
security headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import Problem, answer
from service.documents import nearest

MAX_BODY_BYTES = 4 * 1024 * 1024
"""A few thousand documents; nothing else that is sent here comes near."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""For every answer that does not say otherwise itself."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = _refusal(scope)
        if problem is not None:
            await answer(Request(scope), problem)(scope, receive, send_with_headers)
            return
        await self._app(scope, _bounded(receive), send_with_headers)


def _refusal(scope: Scope) -> Problem | None:
    query = scope["query_string"].decode("latin-1")
    if "\x00" in scope["path"] or "\x00" in unquote(query):
        return Problem(400, "BadRequest", "a NUL character is no text")
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        return Problem(413, "TooLarge", _too_large())
    return None


def _bounded(receive: Receive) -> Receive:
    """Counts what really comes, whatever the length header said."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413, _too_large())
        return message

    return bounded


def _too_large() -> str:
    return f"a body may have at most {MAX_BODY_BYTES} bytes"


def only_known_parameters(request: Request) -> None:
    """A misspelt filter must not ask for everything: `DELETE /hold?projct=vision` would lift every hold there is."""
    known = set(_parameters(request.scope["route"].dependant))
    for name in request.query_params:
        if name not in known:
            raise Problem(422, "InvalidRequest", f"there is no parameter {name!r} here{nearest(name, known)}")


def _parameters(dependant: Dependant) -> Iterator[str]:
    """What a route and all it depends on read from the query."""
    yield from (parameter.alias for parameter in dependant.query_params)
    for part in dependant.dependencies:
        yield from _parameters(part)
