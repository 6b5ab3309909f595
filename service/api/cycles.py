"""`/cycles`: run one now, and what the last ones did."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlmodel import Session

from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Cursor, Limit, Listing, Shape
from service.api.writes import Done, TheWrite
from service.store import views
from service.store.tables import Cycle

router = APIRouter(prefix="/cycles", tags=["cycles"])


class CycleAnswer(Shape):
    """One run of the cycle."""

    id: str
    started_at: datetime
    finished_at: datetime | None
    requested_by: str
    error: str | None
    steps: list[dict[str, Any]]
    """How long each step took and what it did, in order."""
    sources: list[dict[str, Any]]
    """How each source answered."""


class CycleRequested(Shape):
    """Which cycle will do it: a running one's id, if one is running."""

    id: str


@router.get("", responses=responses(), summary="List cycles, newest first")
def list_cycles(
    runtime: TheRuntime, principal: Caller, cursor: Cursor = None, limit: Limit = 20
) -> Listing[CycleAnswer]:
    _unconfined(principal)
    with runtime.database.reading() as session:
        page = views.cycles(session, cursor=cursor, limit=limit)
    return Listing(items=[_shown(row) for row in page.items], next=page.next)


@router.get("/{cycle_id}", responses=responses(404), summary="One cycle")
def get_cycle(runtime: TheRuntime, principal: Caller, cycle_id: str) -> CycleAnswer:
    _unconfined(principal)
    with runtime.database.reading() as session:
        row = session.get(Cycle, cycle_id)
    if row is None:
        raise not_found("cycle", cycle_id)
    return _shown(row)


@router.post(
    "", status_code=202, responses=responses(409, 413), response_model=CycleRequested, summary="Run one cycle now"
)
def post_cycle(write: TheWrite) -> JSONResponse:
    require(write.principal, "cycle")

    def work(_: Session) -> Done:
        return Done(body=CycleRequested(id=write.runtime.request_cycle(by=write.principal.actor)), status=202)

    return write.once(work)


def _unconfined(principal: Principal) -> None:
    """A cycle's report speaks of every source."""
    if not principal.sees_all:
        raise Problem(403, "OtherProject", "cycles speak of every project; this token is confined to some")


def _shown(row: Cycle) -> CycleAnswer:
    return CycleAnswer(**{name: getattr(row, name) for name in CycleAnswer.model_fields})
