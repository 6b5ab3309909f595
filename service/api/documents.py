"""`/sources`, `/projects`, `/policies`, `/exemptions` and `/apply`: documents over HTTP, as JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel import Session

from service import apply, files
from service.api import rollouts
from service.api.auth import Caller, Principal, TheRuntime, require
from service.api.problems import Problem, not_found, responses
from service.api.shapes import Cursor, Limit, Listing, Reason, Shape
from service.api.writes import Body, Done, TheWrite, Write
from service.documents import COLLECTIONS, MODELS, Kind, masked
from service.files import Mistake, RawDocument, Refused
from service.gate import Gate, Standing, gate_of, standings
from service.runtime import Runtime
from service.store import documents as store
from service.store import overview, views
from service.store.documents import Change
from service.store.tables import Document, SourceState

router = APIRouter()


class FieldChangeAnswer(Shape):
    """One field, before and after."""

    field: str
    before: Any
    after: Any


class ChangeAnswer(Shape):
    """What happens to one document."""

    action: Literal["create", "update", "delete", "unchanged"]
    kind: Kind
    name: str
    set: str | None
    fields: list[FieldChangeAnswer]
    notes: list[str]
    """What follows from it."""


class ApplyAnswer(Shape):
    """What an apply changes, or would change."""

    dry_run: bool
    changes: list[ChangeAnswer]


class Metadata(Shape):
    """What the service says about a document. Ignored when it comes back in a PUT or an apply."""

    version: int
    set: str | None
    """The set of files that owns it; null when it was PUT by hand."""
    updated_at: datetime
    updated_by: str


class BacktestMark(Shape):
    """Whether a policy may enforce, where the installation requires a back-test."""

    required: bool
    """False for one that cannot act."""
    passed: bool
    passed_at: datetime | None
    by: Literal["pass", "override"] | None
    """A back-test that passed, or a person who answers for it."""
    backtest: str | None = None
    """The one that decides, or the newest of the policy as it is. What follows is its; all of it is for those who may
    see what it saw."""
    stops: int | None = None
    decided: int | None = None
    false_stops: int | None = None
    rate: float | None = None
    missing: str | None = None
    """What there is instead of a pass."""
    overridden_by: str | None = None
    reason: str | None = None
    """Why they did."""


Override = Annotated[
    Reason | None,
    Query(description="why its policies may enforce though no back-test of them has passed; kept in the audit log"),
]

DocumentAnswer = dict[str, Any]
"""`kind`, `name`, all fields with their defaults, and `metadata`."""

# --- many documents --------------------------------------------------------------------------------------------------

_ANY_DOCUMENT = {
    "anyOf": [{"$ref": f"#/components/schemas/{kind.title()}"} for kind in MODELS],
    "required": ["kind", "name"],
}
_NAMED_TEXT = {
    "type": "object",
    "required": ["name", "text"],
    "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
}
_APPLY_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {**_ANY_DOCUMENT, "description": "one or many, with --- between them"}},
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"type": "array", "items": _ANY_DOCUMENT, "description": "documents"},
                        {
                            "type": "object",
                            "description": "YAML files, so that a mistake names its file",
                            "required": ["files"],
                            "properties": {"files": {"type": "array", "items": _NAMED_TEXT}},
                        },
                    ]
                }
            },
        },
    }
}


@router.post(
    "/apply",
    tags=["documents"],
    responses=responses(409, 413),
    response_model=ApplyAnswer,
    openapi_extra=_APPLY_BODY,
    summary="Apply many documents, all or nothing",
)
def post_apply(
    request: Request,
    write: TheWrite,
    body: Body,
    dry_run: Annotated[bool, Query(description="answer the difference, change nothing")] = False,
    prune: Annotated[bool, Query(description="delete what the set no longer has")] = False,
    set: Annotated[
        str | None, Query(min_length=1, max_length=100, description="the set of files that owns these documents")
    ] = None,
    override_backtest: Override = None,
) -> JSONResponse:
    """Documents of a set can only be changed through it. A mistake anywhere, and nothing is applied."""
    require(write.principal, "documents")
    gate = _gate(write, override_backtest)
    if prune and set is None:
        raise Problem(422, "InvalidRequest", "prune deletes what a set no longer has, so it needs `set`")
    runtime = write.runtime
    parsed = apply.check(runtime.settings, *documents_in(request, body))

    def planned(session: Session) -> list[Change]:
        return apply.plan(session, parsed, set_name=set, prune=prune, gate=gate, secrets=runtime.secrets)

    if dry_run:
        with runtime.database.reading() as session:
            answer = ApplyAnswer(dry_run=True, changes=[_change(change) for change in planned(session)])
        return JSONResponse(answer.model_dump(mode="json"))

    def work(session: Session) -> Done:
        changes = planned(session)
        apply.carry_out(session, changes, by=write.principal.actor, gate=gate)
        return Done(body=ApplyAnswer(dry_run=False, changes=[_change(change) for change in changes]))

    return write.once(work)


def _gate(write: Write, override: str | None) -> Gate:
    """What new enforcing takes; whoever lets it pass must have the right to."""
    if override is not None:
        require(write.principal, "override_backtest")
    return gate_of(write.runtime, override=override)


def documents_in(request: Request, body: bytes) -> tuple[list[RawDocument], list[Mistake]]:
    """Raw documents of a body, and what is already wrong with their text."""
    text = _text(body)
    if not _is_json(request):
        return apply.read_texts([("body", text)])
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and "files" in found:
        return apply.read_texts(_named_texts(found["files"]))
    return files.read_json(text, "body"), []


def _named_texts(entries: Any) -> list[tuple[str, str]]:
    sound = isinstance(entries, list) and all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("text"), str)
        for entry in entries
    )
    if not sound:
        raise Problem(422, "InvalidRequest", "files: a list of {name, text}")
    return [(entry["name"], entry["text"]) for entry in entries]


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(422, "InvalidRequest", "the body is not text in UTF-8") from None


def _is_json(request: Request) -> bool:
    return "json" in request.headers.get("content-type", "")


def _change(change: Change) -> ChangeAnswer:
    return ChangeAnswer(
        action=change.action,
        kind=change.kind,
        name=change.name,
        set=change.set_name,
        fields=[FieldChangeAnswer(**asdict(entry)) for entry in change.fields],
        notes=list(change.notes),
    )


# --- one document ----------------------------------------------------------------------------------------------------


def _routes(collection: str, kind: Kind) -> None:
    """The four routes of one kind."""

    @router.get(
        f"/{collection}",
        tags=[collection],
        responses=responses(),
        name=f"list_{collection}",
        summary=f"List {collection}",
    )
    def list_documents(
        runtime: TheRuntime, principal: Caller, cursor: Cursor = None, limit: Limit = 100
    ) -> Listing[DocumentAnswer]:
        with runtime.database.reading() as session:
            among = store.names_seen(session, kind, principal.projects)
            page = views.documents(session, kind, among=among, cursor=cursor, limit=limit)
            marks = _marks(session, runtime, page.items, principal)
            items = [_seen(session, row, principal, marks) for row in page.items]
            _tell_regret(session, runtime, page.items, items, principal)
        return Listing(items=items, next=page.next)

    @router.get(
        f"/{collection}/{{name}}",
        tags=[collection],
        responses=responses(404),
        name=f"get_{kind}",
        summary=f"One {kind}",
    )
    def get_document(runtime: TheRuntime, principal: Caller, name: str, response: Response) -> DocumentAnswer:
        """Its ETag is its version."""
        with runtime.database.reading() as session:
            among = store.names_seen(session, kind, principal.projects)
            row = store.find(session, kind, name)
            if row is None or (among is not None and name not in among):
                raise not_found(kind, name)
            response.headers["ETag"] = _etag(row)
            found = _seen(session, row, principal, _marks(session, runtime, [row], principal))
            _tell_regret(session, runtime, [row], [found], principal)
            return found

    @router.put(
        f"/{collection}/{{name}}",
        tags=[collection],
        responses={201: {"model": DocumentAnswer, "description": "Created"}, **responses(409, 412, 413)},
        response_model=DocumentAnswer,
        openapi_extra=_document_body(kind),
        name=f"put_{kind}",
        summary=f"Create or change a {kind}",
    )
    def put_document(
        request: Request,
        write: TheWrite,
        name: str,
        body: Body,
        if_match: IfMatch = None,
        override_backtest: Override = None,
    ) -> JSONResponse:
        """With `If-Match` only the version that was read is changed. 409 when a set of files owns it."""
        require(write.principal, "documents")
        return _put(write, kind, _one_document(request, body, kind, name), if_match, _gate(write, override_backtest))

    @router.delete(
        f"/{collection}/{{name}}",
        tags=[collection],
        responses=responses(404, 409, 412),
        response_model=ChangeAnswer,
        name=f"delete_{kind}",
        summary=f"Delete a {kind}",
    )
    def delete_document(write: TheWrite, name: str, if_match: IfMatch = None) -> JSONResponse:
        """Answers what follows from it: resources of a deleted source or project are kept, never terminated."""
        require(write.principal, "documents")

        def work(session: Session) -> Done:
            row = store.find(session, kind, name, lock=True)
            if row is None:
                raise not_found(kind, name)
            _check_version(row, if_match)
            change = store.plan_delete(session, row)
            apply.carry_out(session, [change], by=write.principal.actor, gate=gate_of(write.runtime))
            return Done(body=_change(change))

        return write.once(work)


IfMatch = Annotated[str | None, Header(max_length=100, description="the ETag that was read")]


def _document_body(kind: Kind) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{kind.title()}"}
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


_METADATA = {"type": "object", "description": "What the service said about it; ignored."}
_RENAMED = {"Money": "WrittenMoney"}
"""What is called alike in documents and in answers, and is not the same: an amount as people write it."""


def schemas() -> dict[str, Any]:
    """The documents' own schemas, for OpenAPI: as a PUT takes them, whose URL says kind and name."""
    found: dict[str, Any] = {}
    for kind, adapter in MODELS.items():
        schema = adapter.json_schema(ref_template="#/components/schemas/{model}")
        parts = schema.pop("$defs", {})
        sorts = schema["discriminator"]["mapping"].values() if "discriminator" in schema else ()
        for document in [parts[ref.rpartition("/")[2]] for ref in sorts] or [schema]:
            document["properties"] |= {"kind": {"const": kind}, "metadata": _METADATA}
            document["required"] = [field for field in document["required"] if field != "name"]
        found |= parts | {kind.title(): schema}
    for name, other in _RENAMED.items():
        found[other] = found.pop(name)
    return cast(dict[str, Any], _with_refs_renamed(found))


def _with_refs_renamed(schema: Any) -> Any:
    match schema:
        case dict():
            return {key: _with_refs_renamed(value) for key, value in schema.items()}
        case list():
            return [_with_refs_renamed(value) for value in schema]
        case str():
            where, _, name = schema.rpartition("/")
            return f"{where}/{_RENAMED[name]}" if where == "#/components/schemas" and name in _RENAMED else schema
    return schema


def _one_document(request: Request, body: bytes, kind: Kind, name: str) -> RawDocument:
    """The document in a body; its kind and name may be left to the URL."""
    raws, mistakes = documents_in(request, body)
    if mistakes:
        raise Refused(mistakes)
    if len(raws) != 1:
        raise Problem(
            422, "InvalidRequest", f"a PUT takes one document, here are {len(raws)}; use /api/v1/apply for many"
        )
    raw = raws[0]
    named: Mapping[str, Any] = {"kind": kind, "name": name, **raw.body}
    wrong = [raw.mistake((key,), f"the URL says {wanted!r}") for key, wanted in (("kind", kind), ("name", name))
             if named[key] != wanted]  # fmt: skip
    if wrong:
        raise Refused(wrong)
    return RawDocument(file=raw.file, body=named, places=raw.places)


def _put(write: Write, kind: Kind, raw: RawDocument, if_match: str | None, gate: Gate) -> JSONResponse:
    runtime = write.runtime
    parsed = apply.check(runtime.settings, [raw])
    name = parsed[0].name

    def work(session: Session) -> Done:
        before = store.find(session, kind, name, lock=True)
        _check_version(before, if_match)
        changes = apply.plan(session, parsed, set_name=None, prune=False, gate=gate)
        apply.carry_out(session, changes, by=write.principal.actor, gate=gate)
        row = store.find(session, kind, name)
        assert row is not None  # it was just written
        created = changes[0].action == "create"
        return Done(body=_shown(row), status=201 if created else 200, headers={"ETag": _etag(row)})

    return write.once(work)


def _check_version(row: Document | None, if_match: str | None) -> None:
    if if_match is None:
        return
    wanted = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    if row is None:
        raise Problem(412, "VersionChanged", "there is no version of it to match")
    if _etag(row) not in wanted and "*" not in wanted:
        raise Problem(412, "VersionChanged", f"it is at version {row.version} by now; read it again")


def _etag(row: Document) -> str:
    return f'"{row.version}"'


def _marks(
    session: Session, runtime: Runtime, rows: Sequence[Document], principal: Principal
) -> Mapping[str, BacktestMark]:
    """Policy → whether it may enforce; nothing where that takes nothing. Numbers are for those who may see them."""
    policies = [policy for row in rows if row.kind == "policy" and (policy := store.policy_in(row)) is not None]
    return {
        name: _mark(standing, principal) for name, standing in standings(session, policies, gate_of(runtime)).items()
    }


def _mark(standing: Standing, principal: Principal) -> BacktestMark:
    found, tried = standing, standing.backtest
    mark = BacktestMark(required=found.required, passed=found.passed, passed_at=found.passed_at, by=found.by)
    if not principal.sees_all and (tried is None or not principal.sees(tried.project)):
        return mark
    mark.missing = found.missing or None
    if found.override is not None:
        mark.overridden_by, mark.reason = found.override.allowed_by, found.override.reason
    if tried is not None:
        mark.backtest, mark.stops, mark.decided = tried.id, tried.stops, tried.decided
        mark.false_stops = tried.false_stops
        mark.rate = tried.false_stops / tried.decided if tried.decided and tried.false_stops is not None else None
    return mark


def _tell_regret(
    session: Session, runtime: Runtime, rows: Sequence[Document], answers: Sequence[DocumentAnswer], to: Principal
) -> None:
    """Into the metadata of policies: how many of their stops were regretted, and how far their rollouts have come."""
    policies = [policy for row in rows if row.kind == "policy" and (policy := store.policy_in(row)) is not None]
    if not policies:
        return
    told = rollouts.told(session, policies, runtime.clock.now(), sees=to.projects)
    for answer in answers:
        answer["metadata"] |= told.get(answer["name"], {})


def _seen(session: Session, row: Document, principal: Principal, marks: Mapping[str, BacktestMark]) -> DocumentAnswer:
    """A document. It names no projects that its reader may not see; a source says how it does to those who see all."""
    found = _shown(row)
    for part in (found, found.get("scope", {})):
        if "projects" in part:
            part["projects"] = [name for name in part["projects"] if principal.sees(name)]
    if row.kind == "source" and principal.projects is None:
        how = overview.source_row(row.name, found["provider"], session.get(SourceState, row.name))
        found["metadata"]["health"] = {
            "health": how.health,
            "last_complete": how.succeeded_at.isoformat() if how.succeeded_at else None,
            "faults": list(how.faults),
        }
    if row.kind == "policy" and row.name in marks:
        found["metadata"]["backtest"] = marks[row.name].model_dump(mode="json")
    return found


def _shown(row: Document) -> DocumentAnswer:
    body = masked(store.effective_body(row))
    first: dict[str, Any] = {key: body.pop(key) for key in ("name", "type") if key in body}
    metadata = Metadata(version=row.version, set=row.set_name, updated_at=row.updated_at, updated_by=row.updated_by)
    return {"kind": row.kind, **first, **body, "metadata": metadata.model_dump(mode="json")}


for _collection, _kind in COLLECTIONS.items():
    _routes(_collection, _kind)
