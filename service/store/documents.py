"""Keeps documents: says what an apply would change, changes it whole or not at all, and loads them for a cycle.

Whether a document is valid is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import func
from sqlmodel import Session, col, select

from policies.policy import BasePolicy, Policy
from service.documents import (
    KINDS,
    MODELS,
    STORED,
    AnyDocument,
    Exemption,
    Kind,
    Project,
    Source,
    effective,
    kind_of,
    mask_channel,
    written,
)
from service.store import audit
from service.store.tables import Document, Resource

Confinement = frozenset[str] | None
"""The projects a reader may see; None: all, and what belongs to none."""
HARMLESS = frozenset({"description", "notify"})
"""Fields of a policy whose change makes nobody's warning out of date."""


class OwnedBySet(Exception):
    """A document belongs to a set of files and is changed there."""

    def __init__(self, owned: Sequence[Document]) -> None:
        super().__init__(
            "; ".join(f"{row.kind} {row.name!r} belongs to the set {row.set_name!r} of files" for row in owned)
            + ": change it there, or apply with that set's name"
        )


class UnreadableDocument(Exception):
    """A stored document is no longer valid here. Nothing is judged without it: an exemption may be in it."""

    def __init__(self, kind: str, name: str, reason: str) -> None:
        super().__init__(f"the stored {kind} {name!r} can no longer be read, apply it anew: {reason}")


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Everything that is applied, as a cycle reads it."""

    sources: Mapping[str, Source]
    projects: Mapping[str, Project]
    policies: Mapping[str, Policy]
    exemptions: Mapping[str, Exemption]
    policy_versions: Mapping[str, int]
    mode_changed_at: Mapping[str, datetime]
    """Policy → when it last changed in a way that may be stricter; warnings from before do not count."""


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """One field, before and after, as it may be shown."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one document."""

    action: Literal["create", "update", "delete", "unchanged"]
    kind: Kind
    name: str
    document: AnyDocument | None
    """None when it is deleted."""
    set_name: str | None
    fields: tuple[FieldChange, ...] = ()
    notes: tuple[str, ...] = ()
    """What follows from it, in sentences."""


# --- planning --------------------------------------------------------------------------------------------------------


def plan_changes(
    session: Session, documents: Sequence[AnyDocument], *, set_name: str | None, prune: bool
) -> list[Change]:
    """What applying these would change. `prune` also deletes what the set no longer has. Raises OwnedBySet."""
    stored = {(row.kind, row.name): row for row in session.exec(select(Document).with_for_update())}
    wanted = {(kind_of(document), document.name): document for document in documents}
    owned = [stored[key] for key in wanted if key in stored and stored[key].set_name not in (None, set_name)]
    if owned:
        raise OwnedBySet(owned)
    changes = [_put(stored.get(key), document, set_name) for key, document in wanted.items()]
    if prune and set_name is not None:
        gone = [row for key, row in stored.items() if row.set_name == set_name and key not in wanted]
        changes += [_delete(session, row, stored, wanted) for row in gone]
    return sorted(changes, key=lambda change: (KINDS.index(change.kind), change.name))


def plan_delete(session: Session, row: Document, *, set_name: str | None = None) -> Change:
    """Deleting one document. Raises OwnedBySet."""
    if row.set_name not in (None, set_name):
        raise OwnedBySet([row])
    stored = {(other.kind, other.name): other for other in session.exec(select(Document))}
    return _delete(session, row, stored, {})


def _put(row: Document | None, document: AnyDocument, set_name: str | None) -> Change:
    kind = kind_of(document)
    if row is None:
        return Change(action="create", kind=kind, name=document.name, document=document, set_name=set_name)
    before, after = effective_body(row), effective(document)
    fields = tuple(_differences(before, after))
    if row.set_name != set_name:
        fields += (FieldChange(field="set", before=row.set_name, after=set_name),)
    return Change(
        action="update" if fields else "unchanged",
        kind=kind,
        name=document.name,
        document=document,
        set_name=set_name,
        fields=fields,
    )


def _delete(
    session: Session,
    row: Document,
    stored: Mapping[tuple[str, str], Document],
    wanted: Mapping[tuple[Kind, str], AnyDocument],
) -> Change:
    kind: Kind = row.kind  # type: ignore[assignment]  # only our own kinds are ever stored
    bodies = {key: other.body for key, other in stored.items()} | {key: written(doc) for key, doc in wanted.items()}
    return Change(
        action="delete",
        kind=kind,
        name=row.name,
        document=None,
        set_name=row.set_name,
        notes=tuple(_consequences(session, kind, row.name, bodies)),
    )


def _consequences(
    session: Session, kind: Kind, name: str, bodies: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[str]:
    """What loses its footing when this goes."""
    column = {"source": Resource.source, "project": Resource.project}.get(kind)
    if column is not None:
        living = select(func.count()).select_from(Resource).where(col(column) == name, col(Resource.ended_at).is_(None))
        count = session.exec(living).one()
        things = "1 resource" if count == 1 else f"{count} resources"
        if count and kind == "source":
            yield f"{things} seen through it will be kept, and no longer judged or metered"
        elif count:
            yield f"{things} of it will belong to no project"
    for (other_kind, other), body in sorted(bodies.items()):
        if other_kind == "policy" and name in body.get("scope", {}).get(f"{kind}s", ()):
            yield f"policy {other!r} names it in its scope"
        if other_kind == "project" and any(name in match.get(f"{kind}s", ()) for match in body.get("match", ())):
            yield f"project {other!r} is recognised by it"
        if other_kind == "exemption" and name in body.get(
            {"project": "projects", "policy": "policies"}.get(kind, ""), ()
        ):
            yield f"exemption {other!r} names it"


def effective_body(row: Document) -> Mapping[str, Any]:
    """With today's defaults, so that only what a person changed is a change; as stored when no longer valid."""
    try:
        return effective(MODELS[row.kind].validate_python(row.body))  # type: ignore[index]
    except ValidationError:
        return row.body


def _differences(before: Any, after: Any, field: str = "") -> Iterator[FieldChange]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differences(before.get(key), after.get(key), f"{field}.{key}".removeprefix("."))
    elif before != after:
        yield FieldChange(field=field, before=_shown(field, before), after=_shown(field, after))


def _shown(field: str, value: Any) -> Any:
    return [mask_channel(channel) for channel in value] if field == "notify" and isinstance(value, list) else value


# --- applying --------------------------------------------------------------------------------------------------------


def apply_changes(session: Session, changes: Sequence[Change], *, by: str, now: datetime) -> None:
    """Carry out a plan in the transaction it was made in. One audit line for each document that changes."""
    for change in changes:
        if change.action == "unchanged":
            continue
        # A new one is inserted even if it has appeared since: then the database refuses, and nothing is overwritten.
        row = None if change.action == "create" else session.get_one(Document, (change.kind, change.name))
        if change.document is None:
            session.delete(row)
        else:
            session.add(_written_row(row, change, change.document, by, now))
        audit.record(
            session,
            at=now,
            actor=by,
            verb=change.action,
            object=f"{change.kind}/{change.name}",
            project=change.name if change.kind == "project" else None,
            details={
                "set": change.set_name,
                "fields": [{"field": f.field, "before": f.before, "after": f.after} for f in change.fields],
                "notes": list(change.notes),
            },
        )
    session.flush()


def _written_row(row: Document | None, change: Change, document: AnyDocument, by: str, now: datetime) -> Document:
    if row is None:
        row = Document(kind=change.kind, name=change.name, version=0, updated_at=now, updated_by=by)
    fields = {change.field.split(".")[0] for change in change.fields} - {"set"}
    if change.action == "create" or fields:
        row.version += 1
        row.body = written(document)
        row.updated_at = now
        row.updated_by = by
    if isinstance(document, BasePolicy) and (change.action == "create" or fields - HARMLESS):
        row.mode_changed_at = now  # a looser edit restarts graces too: simpler than to rank every field, and safe
    row.set_name = change.set_name
    return row


# --- reading ---------------------------------------------------------------------------------------------------------


def load(session: Session) -> Documents:
    """All documents, valid. Raises UnreadableDocument."""
    rows = session.exec(select(Document).order_by(col(Document.kind), col(Document.name))).all()
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for row in rows:
        found[row.kind][row.name] = read(row)
    policies = [row for row in rows if row.kind == "policy"]
    return Documents(
        sources=found["source"],
        projects=found["project"],
        policies=found["policy"],
        exemptions=found["exemption"],
        policy_versions={row.name: row.version for row in policies},
        mode_changed_at={row.name: row.mode_changed_at or row.updated_at for row in policies},
    )


def read(row: Document) -> AnyDocument:
    """A stored document as a value. Raises UnreadableDocument."""
    try:
        document: AnyDocument = MODELS[row.kind].validate_python(row.body, context=STORED)  # type: ignore[index]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnreadableDocument(row.kind, row.name, f"{place}: {first['msg']}") from None
    return document


def policy_in(row: Document) -> BasePolicy | None:
    """A stored policy as a value; None when it can no longer be read, which is told elsewhere."""
    try:
        policy = read(row)
    except UnreadableDocument:
        return None
    return policy if isinstance(policy, BasePolicy) else None


def find(session: Session, kind: Kind, name: str, *, lock: bool = False) -> Document | None:
    statement = select(Document).where(Document.kind == kind, Document.name == name)
    return session.exec(statement.with_for_update() if lock else statement).first()


def names_seen(session: Session, kind: Kind, confined: Confinement) -> set[str] | None:
    """The names that a reader confined to some projects may see; None: all."""
    if confined is None:
        return None
    documents = load(session)
    match kind:
        case "project":
            return set(confined)
        case "source":
            return set()
        case "policy":
            scopes = {name: set(policy.scope.projects) for name, policy in documents.policies.items()}
            return {name for name, projects in scopes.items() if not projects or projects & confined}
        case "exemption":
            return {name for name, exemption in documents.exemptions.items() if set(exemption.projects) & confined}


def names(session: Session) -> dict[str, set[str]]:
    """Kind → the names that are applied."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for kind, name in session.exec(select(Document.kind, Document.name)):
        found[kind].add(name)
    return found


def spend_budgets(session: Session) -> dict[str, set[str]]:
    """Project → the names of its spend budgets."""
    rows = session.exec(select(Document.name, Document.body).where(Document.kind == "project"))
    return {name: {budget["name"] for budget in body.get("spend_budgets", ())} for name, body in rows}
