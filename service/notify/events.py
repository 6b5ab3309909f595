"""Turns a message's data into a CloudEvents 1.0 event, for programs that listen. Pure; sending is not here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

NOBODY = "urn:curfew"
"""Where events come from when the installation has no public address."""
TYPES: Mapping[str, str] = {
    "warning": "dev.curfew.finding.warned",
    "reminder": "dev.curfew.finding.reminded",
    "notice": "dev.curfew.finding.noticed",
    "enforced": "dev.curfew.action.enforced",
    "undone": "dev.curfew.action.undone",
    "failed": "dev.curfew.action.failed",
    "unknown": "dev.curfew.resource.unknown",
    "protected": "dev.curfew.resource.protected",
    "breaker": "dev.curfew.breaker.tripped",
    "rollout": "dev.curfew.rollout.fell_back",
    "budget": "dev.curfew.budget.reached",
}
"""Message kind → event type; others are `dev.curfew.` and their kind."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened, to what, when."""

    type: str
    subject: str | None
    """`finding/<id>`, `resource/<id>` or `project/<name>`."""
    time: datetime
    data: Mapping[str, Any]

    def envelope(self, *, id: str, source: str) -> dict[str, Any]:
        """The event as structured JSON."""
        subject = {} if self.subject is None else {"subject": self.subject}
        return {
            "specversion": "1.0",
            "id": id,
            "source": source or NOBODY,
            "type": self.type,
            **subject,
            "time": self.time.isoformat(),
            "datacontenttype": "application/json",
            "data": dict(self.data),
        }


def event_of(
    kind: str,
    payload: Mapping[str, Any],
    *,
    at: datetime,
    finding_id: str | None = None,
    due_at: datetime | None = None,
    links: Mapping[str, str] | None = None,
) -> Event:
    """The event of one message: its payload, what it is about, when something acts, and its reader's links."""
    return Event(
        type=TYPES.get(kind, f"dev.curfew.{kind}"),
        subject=_subject(finding_id, payload),
        time=at,
        data={
            **payload,
            "kind": kind,
            "finding": finding_id,
            "acts_at": due_at.isoformat() if due_at else None,
            "links": dict(links or {}),
        },
    )


def event_id(message_id: str) -> str:
    """The same for the same message, however often it is sent; letters and digits only."""
    return hashlib.sha256(message_id.encode()).hexdigest()[:40]


def _subject(finding_id: str | None, payload: Mapping[str, Any]) -> str | None:
    resource_id = (payload.get("resource") or {}).get("id")
    found = (("finding", finding_id), ("resource", resource_id), ("project", payload.get("project")))
    return next((f"{kind}/{id}" for kind, id in found if id), None)
