"""Appends to the audit log: who did what to which object, when and why. Nothing here changes or removes.

What is about a machine says its name and its cloud's id as they are now. Once it is committed, the service's log says
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session

from service.store.database import say_once_committed
from service.store.tables import Audit, Resource


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
