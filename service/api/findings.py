"""`/findings`: policies that are breached, and what people say to that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, model_validator
from sqlmodel import Session, select

from service import people
from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import not_found, responses
from service.api.shapes import ANY_OF, Cursor, Limit, Listing, Money, Reason, Shape, Until, Words, money
from service.api.writes import Done, TheWrite, Write
from service.model import Status
from service.people import Person
from service.store import views
from service.store.tables import Finding

router = APIRouter(prefix="/findings", tags=["findings"])


class FindingAnswer(Shape):
    """One policy breached by one resource."""

    id: str
    policy: str
    policy_version: int
    resource: str
    resource_name: str | None
    """As people know it; null when it has moved to a project that is not yours to see."""
    project: str | None
    status: Status
    status_reason: str
    """Why it is where it is."""
    reason: str
    """The breach, with its numbers."""
    evidence: dict[str, Any]
    remedy: str
    opened_at: datetime
    warned_at: datetime | None
    due_at: datetime | None
    closed_at: datetime | None
    quiet_until: datetime | None
    """End of a snooze or exemption."""
    approved_by: str | None
    hourly_cost: Money | None


class Snooze(Until):
    """How long, and why."""

    reason: Reason

    @model_validator(mode="after")
    def _has_an_end(self) -> Snooze:
        if self.for_ is None and self.until is None:
            raise ValueError("give `for` (like 4h) or `until`")
        return self


class Dismissal(Shape):
    """Why not."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


@router.get("", responses=responses(), summary="List findings, newest first")
def list_findings(
    runtime: TheRuntime,
    principal: Caller,
    project: Words,
    policy: Words,
    resource: Words,
    status: Annotated[list[Status], ANY_OF],
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Listing[FindingAnswer]:
    filters = {
        "project": project,
        "policy": policy,
        "resource_id": resource,
        "status": [entry.value for entry in status],
    }
    with runtime.database.reading() as session:
        page = views.findings(session, filters=filters, sees=principal.projects, cursor=cursor, limit=limit)
        return Listing(items=shown(session, page.items, principal), next=page.next)


@router.get("/{finding_id}", responses=responses(404), summary="One finding")
def get_finding(runtime: TheRuntime, principal: Caller, finding_id: str) -> FindingAnswer:
    with runtime.database.reading() as session:
        return shown(session, [_visible(session, principal, finding_id)], principal)[0]


@router.post(
    "/{finding_id}/snooze",
    responses=responses(404, 409, 413),
    response_model=FindingAnswer,
    summary="Leave it alone for a while",
)
def snooze(write: TheWrite, finding_id: str, body: Snooze) -> JSONResponse:
    """A fresh warning and grace follow when it ends."""

    def work(session: Session, finding: Finding, by: Person, now: datetime) -> None:
        until = body.end(now)
        assert until is not None  # the body was checked for it
        people.snooze(session, finding, until=until, reason=body.reason, by=by, now=now)

    return _say(write, "snooze", finding_id, work)


@router.post(
    "/{finding_id}/approve",
    responses=responses(404, 409, 413),
    response_model=FindingAnswer,
    summary="Say yes to an act that waits for approval",
)
def approve(write: TheWrite, finding_id: str) -> JSONResponse:
    def work(session: Session, finding: Finding, by: Person, now: datetime) -> None:
        people.approve(session, finding, by=by, now=now)

    return _say(write, "approve", finding_id, work)


@router.post(
    "/{finding_id}/dismiss",
    responses=responses(404, 409, 413),
    response_model=FindingAnswer,
    summary="Say no: it ends until the breach ends and comes back",
)
def dismiss(write: TheWrite, finding_id: str, body: Dismissal) -> JSONResponse:
    def work(session: Session, finding: Finding, by: Person, now: datetime) -> None:
        people.dismiss(session, finding, reason=body.reason, by=by, now=now)

    return _say(write, "dismiss", finding_id, work)


@router.post(
    "/{finding_id}/act",
    status_code=202,
    responses=responses(404, 409, 413),
    response_model=FindingAnswer,
    summary="Stop now: no grace, all other safety",
)
def act(write: TheWrite, finding_id: str) -> JSONResponse:
    """Carried out by the cycle this asks for; protection, preconditions and ceilings still hold."""

    def work(session: Session, finding: Finding, by: Person, now: datetime) -> None:
        people.stop_now(session, finding, by=by, now=now)

    answer = _say(write, "act", finding_id, work, status=202)
    write.runtime.request_cycle(by=write.principal.actor)
    return answer


def _say(
    write: Write,
    verb: str,
    finding_id: str,
    work: Callable[[Session, Finding, Person, datetime], None],
    status: int = 200,
) -> JSONResponse:
    """What a person says to one finding: allowed, done, answered with the finding as it is then."""

    def in_transaction(session: Session) -> Done:
        finding = _visible(session, write.principal, finding_id, lock=True)
        require(write.principal, verb, finding.project)
        work(session, finding, Person(actor=write.principal.actor), write.runtime.clock.now())
        session.flush()
        session.refresh(finding)
        return Done(body=shown(session, [finding], write.principal)[0], status=status)

    return write.once(in_transaction)


def _visible(session: Session, principal: Principal, finding_id: str, *, lock: bool = False) -> Finding:
    statement = select(Finding).where(Finding.id == finding_id)
    row = session.exec(statement.with_for_update() if lock else statement).first()
    if row is None or not principal.sees(row.project):
        raise not_found("finding", finding_id)
    return row


def shown(session: Session, rows: Sequence[Finding], to: Principal) -> list[FindingAnswer]:
    names = views.resource_names(session, {row.resource_id for row in rows}, to.projects)
    return [_answer(row, names.get(row.resource_id)) for row in rows]


def _answer(row: Finding, resource_name: str | None) -> FindingAnswer:
    return FindingAnswer(
        **{name: getattr(row, name) for name in FindingAnswer.model_fields if name in Finding.model_fields},
        resource=row.resource_id,
        resource_name=resource_name,
        hourly_cost=money(row.rate_micros, row.currency),
    )
