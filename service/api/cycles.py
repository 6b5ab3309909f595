"""`/cycles`: run one now, and what the last ones did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlmodel import Session

from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Cursor, Limit, Listing, Shape
from service.api.writes import Done, TheWrite
from service.report import Report, SourceProgress, progress
from service.runtime import Runtime
from service.store import cycles, views
from service.store.tables import Cycle

router = APIRouter(prefix="/cycles", tags=["cycles"])


class AwaitedAnswer(Shape):
    """A question that a source still owes an answer to."""

    about: str
    """`listing`, `prices` or `telemetry`."""
    since: datetime
    """Maybe since an earlier cycle: who owes an answer is not asked again."""


class PartsAnswer(Shape):
    """The accounts and regions of a source's listing: the one under way, or the last one."""

    answered: list[str]
    """Well or not."""
    waiting: list[str]


class SourceProgressAnswer(Shape):
    """How far one source is."""

    source: str
    awaited: list[AwaitedAnswer]
    """Empty when it has answered whatever it has been asked so far."""
    parts: PartsAnswer | None
    """Null where its provider does not tell; both lists are empty while it is not known yet which parts there are."""
    last_success: datetime | None
    """When it last told all there is, in an earlier cycle."""
    fault: str | None
    """Why it cannot be asked at all."""


class ProgressAnswer(Shape):
    """How far a cycle is that has not finished."""

    unknown: str | None
    """Why it cannot be told here; then the rest is empty."""
    step: str | None
    """Which one is under way."""
    sources: list[SourceProgressAnswer]


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
    progress: ProgressAnswer | None
    """Null once it has finished."""


class CycleRequested(Shape):
    """Which cycle will do it: a running one's id, if one is running."""

    id: str


@router.get("", responses=responses(), summary="List cycles, newest first")
def list_cycles(
    runtime: TheRuntime, principal: Caller, cursor: Cursor = None, limit: Limit = 20
) -> Listing[CycleAnswer]:
    _unconfined(principal)
    running = runtime.running
    with runtime.database.reading() as session:
        page = views.cycles(session, cursor=cursor, limit=limit)
        successes = cycles.last_successes(session)
    return Listing(items=[_shown(row, runtime, running, successes) for row in page.items], next=page.next)


@router.get("/{cycle_id}", responses=responses(404), summary="One cycle")
def get_cycle(runtime: TheRuntime, principal: Caller, cycle_id: str) -> CycleAnswer:
    _unconfined(principal)
    running = runtime.running
    with runtime.database.reading() as session:
        row = session.get(Cycle, cycle_id)
        successes = cycles.last_successes(session)
    if row is None:
        raise not_found("cycle", cycle_id)
    return _shown(row, runtime, running, successes)


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


Successes = Mapping[str, datetime | None]


def _shown(row: Cycle, runtime: Runtime, before: Report | None, successes: Successes) -> CycleAnswer:
    """`before`: what ran when the row was not read yet; it may have begun or ended since."""
    stored = {name: getattr(row, name) for name in CycleAnswer.model_fields if name != "progress"}
    if row.finished_at is not None:
        return CycleAnswer(**stored, progress=None)
    running = next((one for one in (before, runtime.running) if one is not None and one.cycle == row.id), None)
    if running is None:
        return CycleAnswer(**stored, progress=ProgressAnswer(unknown=ELSEWHERE, step=None, sources=[]))
    so_far = {"steps": [*running.steps], "sources": [*running.sources]}
    sources = _sources(progress(runtime.fleet.members.values()), successes)
    return CycleAnswer(
        **stored | so_far, progress=ProgressAnswer(unknown=None, step=running.under_way, sources=sources)
    )


ELSEWHERE = "another process runs it, if any still does, and only that one knows how far it is"


def _sources(found: Sequence[SourceProgress], successes: Successes) -> list[SourceProgressAnswer]:
    return [
        SourceProgressAnswer(
            source=one.source,
            awaited=[AwaitedAnswer(about=question.about, since=question.since) for question in one.awaited],
            parts=None
            if one.parts is None
            else PartsAnswer(answered=list(one.parts.answered), waiting=list(one.parts.waiting)),
            last_success=successes.get(one.source),
            fault=one.fault,
        )
        for one in found
    ]
