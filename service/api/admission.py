"""`/admission/snapshot`: all that the process which answers API servers judges new pods on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter, Request, Response
from sqlalchemy import func
from sqlmodel import Session, col, select

from service.admission.snapshot import Snapshot, made_of
from service.api.auth import Caller, TheRuntime
from service.api.problems import Problem, responses
from service.model import ActiveHold
from service.runtime import Runtime, View
from service.store import documents as store
from service.store import findings, resources
from service.store.tables import Document

router = APIRouter(prefix="/admission", tags=["admission"])

MEDIA_TYPE = "application/json"


@runtime_checkable
class TellsNamespaces(Protocol):
    """An inventory that knows the namespaces of its cluster."""

    def namespaces(self) -> Mapping[str, Mapping[str, str]] | None:
        """Name → labels, as last seen; None: not known. Asks nobody."""
        ...


@dataclass(frozen=True, kw_only=True)
class Made:
    """A snapshot as it is sent, and what it was made of."""

    view: View
    rests_on: tuple[Any, ...]
    body: bytes
    etag: str


_PARTS = {
    "at": "string",
    "clusters": "object",
    **dict.fromkeys(("holds", "projects", "exemptions", "policies"), "array"),
}
_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "For `curfew admission` of the same version; what is in its parts may change with the version.",
        "headers": {"ETag": {"schema": {"type": "string"}}},
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "properties": {name: {"type": type} for name, type in _PARTS.items()},
                    "required": [*_PARTS],
                    "additionalProperties": False,
                }
            }
        },
    },
    304: {"description": "Nothing has changed since the one that If-None-Match names."},
}


@router.get("/snapshot", responses={**responses(409), **_DESCRIBED}, summary="What admission judges new pods on")
def get_snapshot(request: Request, runtime: TheRuntime, principal: Caller) -> Response:
    """Made of the last cycle of this process, the documents in force and what is on hold now."""
    if not principal.sees_all:
        raise Problem(403, "OtherProject", "a snapshot speaks of every project; this token is confined to some")
    made = _made(request, runtime)
    headers = {"ETag": made.etag, "Cache-Control": "private, no-cache"}
    if made.etag in (tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(made.body, media_type=MEDIA_TYPE, headers=headers)


def _made(request: Request, runtime: Runtime) -> Made:
    """Kept until a cycle, a document or a hold makes another one."""
    view = runtime.view
    if view is None:
        raise Problem(409, "NoCycleYet", "a snapshot tells what the last cycle saw, and none has finished here yet")
    with runtime.database.reading() as session:
        holds = findings.active_holds(session, runtime.clock.now())
        rests_on = (tuple(holds), _documents_now(session))
        before: Made | None = getattr(request.app.state, "admission_snapshot", None)
        if before is not None and before.view is view and before.rests_on == rests_on:
            return before
        snapshot = _snapshot(session, runtime, view, holds)
    body = snapshot.model_dump_json(by_alias=True).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    made = request.app.state.admission_snapshot = Made(view=view, rests_on=rests_on, body=body, etag=etag)
    return made


def _documents_now(session: Session) -> tuple[Any, ...]:
    """Differs as soon as any document does."""
    versions = func.sum(Document.version)
    found = session.exec(select(func.count(), versions, func.max(col(Document.updated_at))).select_from(Document)).one()
    return tuple(found)


def _snapshot(session: Session, runtime: Runtime, view: View, holds: list[ActiveHold]) -> Snapshot:
    """A policy that was changed since the cycle has been judged by nobody yet: it speaks from the next one on."""
    documents = store.load(session)
    policies = {
        name: in_force
        for name, in_force in view.policies.items()
        if documents.policy_versions.get(name) == in_force.version
    }
    return made_of(
        at=view.at,
        sources=documents.sources,
        identities=resources.identities(session),
        namespaces=_namespaces(runtime),
        projects=documents.projects,
        exemptions=documents.exemptions.values(),
        policies=policies,
        holds=holds,
        limits=view.limits,
        resources=view.resources.values(),
        judged=view.judged,
        budgets=view.look.budgets,
    )


def _namespaces(runtime: Runtime) -> dict[str, Mapping[str, Mapping[str, str]]]:
    """Source → its namespaces, where somebody tells of them."""
    found: dict[str, Mapping[str, Mapping[str, str]]] = {}
    for source, member in runtime.fleet.members.items():
        inventory: object = member.provider.inventory if member.provider is not None else None
        told = inventory.namespaces() if isinstance(inventory, TellsNamespaces) else None
        if told is not None:
            found[source] = told
    return found
