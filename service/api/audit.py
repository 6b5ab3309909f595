"""`/audit`: who did what, when and why. Append-only; there is nothing to write to here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter

from service.api.auth import Caller, TheRuntime
from service.api.problems import responses
from service.api.shapes import Cursor, Limit, Listing, Shape, Words
from service.store import views

router = APIRouter(prefix="/audit", tags=["audit"])


class AuditLine(Shape):
    """One thing that was done."""

    id: int
    at: datetime
    actor: str
    """`token:name`, `link:address`, or `curfew` for the service itself."""
    verb: str
    object: str
    """`kind/name` or `kind/id`"""
    project: str | None
    reason: str
    details: dict[str, Any]


@router.get("", responses=responses(), summary="List audit lines, newest first")
def list_audit(
    runtime: TheRuntime,
    principal: Caller,
    project: Words,
    actor: Words,
    verb: Words,
    object: Words,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Listing[AuditLine]:
    filters = {"project": project, "actor": actor, "verb": verb, "object": object}
    with runtime.database.reading() as session:
        page = views.audit(session, filters=filters, sees=principal.projects, cursor=cursor, limit=limit)
    items = [AuditLine(**{name: getattr(row, name) for name in AuditLine.model_fields}) for row in page.items]
    return Listing(items=items, next=page.next)
