"""`/healthz`, `/readyz` and `/metrics`: for probes and Prometheus."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError

from service.api.auth import TheRuntime, bearer_of, principal_of, require
from service.api.problems import responses
from service.api.shapes import Shape
from service.runtime import Runtime
from service.store import views
from service.store.database import DatabaseGone, trouble_of

router = APIRouter(tags=["service"])

LATE_AFTER = 3
"""Cycles that may be missed before traffic is better sent elsewhere."""


class Health(Shape):
    """The process lives."""

    status: str = "ok"


class Readiness(Shape):
    """Whether requests and cycles can be served, and if not, why."""

    ready: bool
    database: str
    last_cycle: str


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> Health:
    return Health()


@router.get(
    "/readyz",
    responses={503: {"model": Readiness, "description": "Not ready"}},
    response_model=Readiness,
    summary="Are the database and the cycle well?",
)
def readyz(request: Request, runtime: TheRuntime) -> JSONResponse:
    try:
        found = _readiness(request, runtime)
    except (SQLAlchemyError, DatabaseGone) as error:
        database = trouble_of(error) or "the database does not answer"
        found = Readiness(ready=False, database=database, last_cycle="unknown")
    return JSONResponse(found.model_dump(), 200 if found.ready else 503)


@router.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses()},
    response_class=PlainTextResponse,
    summary="Prometheus",
)
def metrics(request: Request, runtime: TheRuntime) -> Response:
    """Open with CURFEW_METRICS_ANONYMOUS=1, else for tokens that are not confined to projects."""
    from service.metrics import render

    if not runtime.settings.metrics_anonymous:
        require(principal_of(request, bearer_of(request)), "read")
    return Response(render(runtime), media_type="text/plain; version=0.0.4; charset=utf-8")


def _readiness(request: Request, runtime: Runtime) -> Readiness:
    """A cycle is late after three intervals; the first one has as long from the start of the process."""
    with runtime.database.reading() as session:
        last = views.last_cycle(session)
    seconds = runtime.settings.cycle_seconds
    if seconds == 0:
        return Readiness(ready=True, database="ok", last_cycle="only on request")
    allowed = timedelta(seconds=LATE_AFTER * seconds * max(1, runtime.settings.demo_speed))
    finished = last.finished_at if last is not None else None
    since = max(filter(None, (finished, request.app.state.started_at)))
    words = finished.isoformat() if finished is not None else "none yet"
    late = runtime.clock.now() - since > allowed
    return Readiness(ready=not late, database="ok", last_cycle=f"{words}, which is late" if late else words)
