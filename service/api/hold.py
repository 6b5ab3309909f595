"""`/hold`: the emergency stop of all acting, everywhere or in one project."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import Field
from sqlmodel import Session

from service import people
from service.api.auth import Caller, TheRuntime, require
from service.api.problems import not_found, responses
from service.api.shapes import Reason, Shape, Until
from service.api.writes import Done, TheWrite
from service.people import Person
from service.store import documents, views
from service.store.tables import Hold

router = APIRouter(prefix="/hold", tags=["hold"])


class HoldAnswer(Shape):
    """One hold in force."""

    id: str
    project: str | None
    """null: everywhere"""
    reason: str
    created_by: str
    created_at: datetime
    until: datetime | None
    """null: until a person lifts it"""


class HoldState(Shape):
    """Whether anything is held, and what."""

    held: bool
    holds: list[HoldAnswer]


class HoldRequest(Until):
    """Without `for` and `until` it stands until a person lifts it."""

    project: str | None = Field(None, max_length=63)
    reason: Reason = "held by hand"


@router.get("", responses=responses(), summary="What is on hold")
def get_hold(runtime: TheRuntime, principal: Caller) -> HoldState:
    with runtime.database.reading() as session:
        rows = views.holds(session, now=runtime.clock.now())
    holds = [shown(row) for row in rows if row.project is None or principal.sees(row.project)]
    return HoldState(held=bool(holds), holds=holds)


@router.put("", responses=responses(404, 409, 413), response_model=HoldAnswer, summary="Stop all acting at once")
def put_hold(write: TheWrite, body: HoldRequest) -> JSONResponse:
    """Checked in the transaction that takes an act. Warnings still go out, and nothing is stopped."""
    require(write.principal, "hold", body.project)

    def work(session: Session) -> Done:
        now = write.runtime.clock.now()
        if body.project is not None and documents.find(session, "project", body.project) is None:
            raise not_found("project", body.project)
        by = Person(actor=write.principal.actor)
        row = people.hold(session, project=body.project, until=body.end(now), reason=body.reason, by=by, now=now)
        session.flush()
        return Done(body=shown(row))

    return write.once(work)


@router.delete("", responses=responses(404, 409), response_model=HoldState, summary="Lift it; every grace starts anew")
def delete_hold(
    write: TheWrite,
    project: Annotated[str | None, Query(max_length=63, description="without it: the holds on everything")] = None,
) -> JSONResponse:
    """Answers what is still held."""
    require(write.principal, "hold", project)

    def work(session: Session) -> Done:
        now = write.runtime.clock.now()
        people.lift(session, project=project, by=Person(actor=write.principal.actor), now=now)
        session.flush()
        holds = [shown(row) for row in views.holds(session, now=now)]
        return Done(body=HoldState(held=bool(holds), holds=holds))

    return write.once(work)


def shown(row: Hold) -> HoldAnswer:
    return HoldAnswer(**{name: getattr(row, name) for name in HoldAnswer.model_fields})
