"""Turns everything that can go wrong with a request into an RFC 9457 problem with a stable `code`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError
from starlette.exceptions import HTTPException

from service.files import Mistake, Refused
from service.people import NotPossible
from service.store.documents import OwnedBySet
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


def install(app: FastAPI) -> None:
    """Every exception a route may raise, as a problem."""

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(NotPossible)
    def _not_possible(request: Request, error: NotPossible) -> JSONResponse:
        return answer(request, Problem(409, error.code, error.sentence))

    @app.exception_handler(OwnedBySet)
    def _owned(request: Request, error: OwnedBySet) -> JSONResponse:
        return answer(request, Problem(409, "OwnedBySet", str(error)))

    @app.exception_handler(Refused)
    def _refused(request: Request, error: Refused) -> JSONResponse:
        return answer(
            request, Problem(422, "InvalidDocuments", str(error), errors=[_field_error(m) for m in error.mistakes])
        )

    @app.exception_handler(BadCursor)
    def _bad_cursor(request: Request, error: BadCursor) -> JSONResponse:
        return answer(request, Problem(422, "BadCursor", "this cursor is not one that a list gave"))

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        errors = [
            {"field": ".".join(str(part) for part in e["loc"]), "reason": _reason(e["msg"])} for e in error.errors()
        ]
        detail = "; ".join(f"{e['field']}: {e['reason']}" for e in errors)
        return answer(request, Problem(422, "InvalidRequest", detail, errors=errors))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.title().replace(" ", "").replace("-", "")
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"there is nothing at {request.url.path}; the API is described at /docs"
        return answer(request, Problem(error.status_code, code, detail, headers=error.headers))

    @app.exception_handler(IntegrityError)
    def _raced(request: Request, error: IntegrityError) -> JSONResponse:
        log.info("two writers met", path=request.url.path)
        return answer(
            request, Problem(409, "WrittenMeanwhile", "someone else wrote the same at the same time; try again")
        )

    @app.exception_handler(OperationalError)
    def _no_database(request: Request, error: OperationalError) -> JSONResponse:
        log.error("the database does not answer", path=request.url.path, error=type(error.orig).__name__)
        return answer(
            request,
            Problem(
                503, "DatabaseUnavailable", "the database does not answer; try again", headers={"Retry-After": "5"}
            ),
        )

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", path=request.url.path, exc_info=error)
        return answer(request, Problem(500, "Internal", "something went wrong inside Curfew; its log says what"))


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")


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
