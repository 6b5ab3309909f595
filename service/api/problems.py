"""Turns everything that can go wrong with a request into an RFC 9457 problem with a stable `code`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.exceptions import HTTPException

from service.documents import NAME_PATTERN, no_name
from service.files import Mistake, Refused
from service.people import NotPossible
from service.store.database import DatabaseGone, trouble_of
from service.store.documents import OwnedBySet, UnreadableDocument
from service.store.views import BadCursor

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. Programs look at `code`, people read `detail`.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


class Problem(Exception):
    """A refusal, as it is answered."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers


def not_found(kind: str, name: str) -> Problem:
    """Also for what the caller must not know of."""
    return Problem(404, "NotFound", f"there is no {kind} {name!r}")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: the refusals of a route. 401, 403, 422, 429 and 503 can come from every one."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({400, 401, 403, 422, 429, 503, *statuses})
    }


def answer(request: Request, problem: Problem) -> JSONResponse:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "instance": request.url.path,
    }
    if problem.errors:
        body["errors"] = list(problem.errors)
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _invalid(error: RequestValidationError) -> Problem:
    errors = [{"field": _field(e["loc"]), "reason": _reason(e)} for e in error.errors()]
    detail = "; ".join(": ".join(filter(None, entry.values())) for entry in errors)
    return Problem(422, "InvalidRequest", detail, errors=errors)


def _field(location: Sequence[Any]) -> str:
    """Without where in the request it stands: nobody wrote `body`."""
    inside = location[1:] if location[:1] in [("body",), ("query",), ("path",), ("header",)] else location
    return ".".join(str(part) for part in inside)


def _http(error: HTTPException) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    detail = "there is nothing here; the API is described at /docs" if error.status_code == 404 else str(error.detail)
    code = phrase.title().replace(" ", "").replace("-", "")
    return Problem(error.status_code, code, detail, headers=error.headers)


def _no_database(error: Exception) -> Problem:
    sentence = trouble_of(error)
    if sentence is None:
        return _unexpected(error)
    log.error("a request failed", reason=sentence)
    return Problem(503, "DatabaseUnavailable", sentence, headers={"Retry-After": "5"})


def _unexpected(error: Exception) -> Problem:
    log.error("a request failed", exc_info=error)
    return Problem(500, "Internal", "something went wrong inside Curfew; its log says what")


PROBLEMS: Mapping[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda error: error,
    RequestValidationError: _invalid,
    HTTPException: _http,
    Refused: lambda error: Problem(
        422, "InvalidDocuments", str(error), errors=[_field_error(mistake) for mistake in error.mistakes]
    ),
    BadCursor: lambda _: Problem(422, "BadCursor", "this cursor is not one that a list gave"),
    NotPossible: lambda error: Problem(409, error.code, error.sentence),
    OwnedBySet: lambda error: Problem(409, "OwnedBySet", str(error)),
    IntegrityError: lambda _: Problem(
        409, "WrittenMeanwhile", "someone else wrote the same at the same time; try again"
    ),
    UnreadableDocument: lambda error: Problem(503, "UnreadableDocument", str(error)),
    DBAPIError: _no_database,
    DatabaseGone: _no_database,
    Exception: _unexpected,
}
"""What may go wrong → how it is answered."""


def install(app: FastAPI) -> None:
    """Every exception a route may raise, as a problem."""

    def handle(request: Request, error: Exception) -> JSONResponse:
        found = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
        return answer(request, found(error))

    for kind in PROBLEMS:
        app.add_exception_handler(kind, handle)


def _reason(error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == NAME_PATTERN:
        return no_name(error["input"])
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def _field_error(mistake: Mistake) -> dict[str, Any]:
    return {
        "file": mistake.file,
        "line": mistake.line,
        "column": mistake.column,
        "document": mistake.document,
        "field": mistake.field,
        "reason": mistake.reason,
        "nearest": mistake.nearest,
        "message": str(mistake),
    }
