"""`/actions`: every attempt to change the world, and putting it back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlmodel import Session, select

from service import people
from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import ANY_OF, Cursor, Limit, Listing, Money, Shape, Words, money
from service.api.writes import Done, TheWrite
from service.model import ActionStatus
from service.people import Person
from service.store import views
from service.store.tables import Action

router = APIRouter(prefix="/actions", tags=["actions"])


class ActionAnswer(Shape):
    """One attempt: intent, call, truth read back."""

    id: str
    finding: str | None
    resource: str
    resource_name: str | None
    """As people know it; null when it has moved to a project that is not yours to see."""
    source: str
    project: str | None
    policy: str | None
    verb: str
    status: ActionStatus
    reason: str
    requested_by: str
    undoes: str | None
    """The action this one puts back."""
    intended_at: datetime
    taken_at: datetime | None
    verified_at: datetime | None
    undone_at: datetime | None
    regretted_at: datetime | None
    """When somebody undid it, or started the machine again within two hours: then it counts as a false stop."""
    regret_why: Literal["undo", "restart"] | None
    error: str | None
    hourly_cost: Money | None
    """What an hour of running would have cost."""


@router.get("", responses=responses(), summary="List actions, newest first")
def list_actions(
    runtime: TheRuntime,
    principal: Caller,
    project: Words,
    resource: Words,
    finding: Words,
    policy: Words,
    status: Annotated[list[ActionStatus], ANY_OF],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Listing[ActionAnswer]:
    filters = {
        "project": project,
        "resource_id": resource,
        "finding_id": finding,
        "policy": policy,
        "status": [entry.value for entry in status],
    }
    with runtime.database.reading() as session:
        page = views.actions(session, filters=filters, sees=principal.projects, cursor=cursor, limit=limit)
        return Listing(items=shown(session, page.items, principal), next=page.next)


@router.get("/{action_id}", responses=responses(404), summary="One action")
def get_action(runtime: TheRuntime, principal: Caller, action_id: str) -> ActionAnswer:
    with runtime.database.reading() as session:
        return shown(session, [_visible(session, principal, action_id)], principal)[0]


@router.post(
    "/{action_id}/undo",
    status_code=202,
    responses=responses(404, 409, 413),
    response_model=ActionAnswer,
    summary="Put it back",
)
def undo(write: TheWrite, action_id: str) -> JSONResponse:
    """Answers the new action that will do it; it is verified in a later cycle. Where the machine has moved to another
    project, it takes the right there too.
    """

    def work(session: Session) -> Done:
        action = _visible(session, write.principal, action_id, lock=True)
        require(write.principal, "undo", action.project)
        if not write.principal.may("undo", people.project_now(session, action)):
            raise Problem(403, "OtherProject", people.MOVED)
        by = Person(actor=write.principal.actor)
        undoing = people.undo(session, action, by=by, now=write.runtime.clock.now())
        session.flush()
        return Done(body=shown(session, [undoing], write.principal)[0], status=202)

    answer = write.once(work)
    write.runtime.request_cycle(by=write.principal.actor)
    return answer


def _visible(session: Session, principal: Principal, action_id: str, *, lock: bool = False) -> Action:
    statement = select(Action).where(Action.id == action_id)
    row = session.exec(statement.with_for_update() if lock else statement).first()
    if row is None or not principal.sees(row.project):
        raise not_found("action", action_id)
    return row


def shown(session: Session, rows: Sequence[Action], to: Principal) -> list[ActionAnswer]:
    names = views.resource_names(session, {row.resource_id for row in rows}, to.projects)
    return [_answer(row, names.get(row.resource_id)) for row in rows]


def _answer(row: Action, resource_name: str | None) -> ActionAnswer:
    return ActionAnswer(
        **{name: getattr(row, name) for name in ActionAnswer.model_fields if name in Action.model_fields},
        finding=row.finding_id,
        resource=row.resource_id,
        resource_name=resource_name,
        hourly_cost=money(row.rate_micros, row.currency),
    )
