"""Appends to the audit log, and finds in it: who did what to which object, when and why. Nothing here changes or
removes.

What is about a machine says its name and its cloud's id as they are now. Once it is committed, the service's log says
the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, or_
from sqlmodel import Session, col, select

from service.store.database import say_once_committed
from service.store.tables import Audit, Resource

Confinement = frozenset[str] | None
"""The projects a reader may see; None: all, and what belongs to none."""


def record(
    session: Session,
    *,
    at: datetime,
    actor: str,
    verb: str,
    object: str,
    project: str | None = None,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """One line, in the transaction of what it tells about: both are kept or neither is."""
    details = {**_machine(session, object, details or {}), **(details or {})}
    session.add(Audit(at=at, actor=actor, verb=verb, object=object, project=project, reason=reason, details=details))
    about = {key: details[key] for key in ("name", "external_id", "policy") if details.get(key)}
    say_once_committed(session, verb, at=at.isoformat(), actor=actor, object=object, reason=reason, **about)


def _machine(session: Session, object: str, details: Mapping[str, Any]) -> dict[str, str]:
    """Which machine it is about, in words that people and their clouds use."""
    resource_id = object.removeprefix("resource/") if object.startswith("resource/") else details.get("resource")
    with session.no_autoflush:  # what is told about is written when whoever changes it says so
        row = session.get(Resource, resource_id) if resource_id else None
    return {} if row is None else {"name": row.name, "external_id": row.external_id}


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which lines are asked for. Of each list any will do; empty: all."""

    project: Collection[str] = ()
    actor: Collection[str] = ()
    verb: Collection[str] = ()
    object: Collection[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    text: str = ""
    """Somewhere in the line, in capitals or not."""


def search(session: Session, asked: Search, *, sees: Confinement, before: int | None, limit: int) -> Sequence[Audit]:
    """Newest first, those numbered below `before`: lines are numbered in the order they were written. A reader who is
    confined to projects gets the lines of those.
    """
    statement = select(Audit).order_by(col(Audit.id).desc()).limit(limit)
    for name in ("project", "actor", "verb", "object"):
        if values := getattr(asked, name):
            statement = statement.where(getattr(Audit, name).in_(values))
    if asked.since is not None:
        statement = statement.where(col(Audit.at) >= asked.since)
    if asked.until is not None:
        statement = statement.where(col(Audit.at) < asked.until)
    if asked.text:
        statement = statement.where(or_(*_mentions(asked.text)))
    if sees is not None:
        statement = statement.where(col(Audit.project).in_(sees))
    if before is not None:
        statement = statement.where(col(Audit.id) < before)
    return session.exec(statement).all()


def _mentions(text: str) -> Iterator[ColumnElement[bool]]:
    for column in (Audit.actor, Audit.verb, Audit.object, Audit.project, Audit.reason):
        yield col(column).icontains(text, autoescape=True)
    # Details are kept as JSON, in which a quote or a letter beyond ASCII is written as an escape.
    yield cast(col(Audit.details), Text).icontains(json.dumps(text)[1:-1], autoescape=True)
