"""Appends to the audit log: who did what to which object, when and why. Nothing here reads, changes or removes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session

from service.store.tables import Audit


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
    session.add(
        Audit(
            at=at,
            actor=actor,
            verb=verb,
            object=object,
            project=project,
            reason=reason,
            details=dict(details or {}),
        )
    )
