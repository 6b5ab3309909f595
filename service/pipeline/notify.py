"""Empties the outbox: renders each message, sends it, and records what was delivered.

A delivered warning is what makes a finding `warned` and sets when it is due: delivery plus grace. Sent at least once
with a stable Message-ID; a duplicate can only come from a crash between sending and recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import structlog

from service.model import Status
from service.notify.channels import Channels, Delivery
from service.notify.links import Links
from service.notify.messages import Rendered, render
from service.store import audit, outbox
from service.store.database import Database
from service.store.tables import Finding, Outbox

log = structlog.get_logger()
LINKS_LAST = timedelta(days=3)
"""How long the links of a message work after it was sent, at least."""


@dataclass(frozen=True, kw_only=True)
class Post:
    """What delivering needs."""

    database: Database
    channels: Channels
    links: Links
    now: Callable[[], datetime]


def drain(post: Post) -> dict[str, int]:
    """Send everything that is due to be sent. Answers counts by outcome."""
    counts = {"delivered": 0, "failed": 0}
    tried: set[str] = set()
    while True:
        with post.database.reading() as session:
            rows = [row for row in outbox.pending(session, post.now()) if row.id not in tried]
        if not rows:
            return counts
        for row in rows:
            tried.add(row.id)
            delivery = _send(row, post)
            _record(row, delivery, post)
            counts["delivered" if delivery.ok else "failed"] += 1


def _send(row: Outbox, post: Post) -> Delivery:
    try:
        return post.channels.deliver(row.channel, rendered(row, post), message_id=row.message_id)
    except Exception:
        log.exception("a message could not be sent in a way its channel does not know", message=row.id)
        return Delivery(ok=False, error="it failed unexpectedly; the service's log has the details")


def rendered(row: Outbox, post: Post) -> Rendered:
    """A queued message in words, as of now."""
    now = post.now()
    payload = row.payload
    grace = timedelta(seconds=payload.get("grace_seconds", 0))
    due_at = now + grace if row.kind == "warning" and payload.get("acts") else None
    links: dict[str, str] = {}
    if row.finding_id is not None:
        links = post.links.all_for(
            row.finding_id,
            row.episode or 0,
            row.channel.removeprefix("mail:"),
            now,
            ZoneInfo(payload.get("timezone", "UTC")),
            now + grace + LINKS_LAST,
        )
    return render(row.kind, payload, now=now, due_at=due_at, links=links)


def _record(row: Outbox, delivery: Delivery, post: Post) -> None:
    """What came of it, in one transaction with what follows from a delivered warning."""
    now = post.now()
    with post.database.transaction() as session:
        stored = session.get(Outbox, row.id)
        if stored is None or stored.status != "pending":
            return
        if not delivery.ok:
            outbox.failed(stored, delivery.error or "the channel did not take it", now)
            log.warning("a message was not delivered", message=row.id, kind=row.kind, reason=stored.error)
            session.add(stored)
            return
        outbox.delivered(stored, now)
        session.add(stored)
        finding = session.get(Finding, row.finding_id) if row.kind == "warning" and row.finding_id else None
        if finding is None or finding.status != Status.OPEN or finding.episode != row.episode:
            return
        finding.status = Status.WARNED.value
        finding.warned_at = now
        acts = bool(row.payload.get("acts"))
        finding.due_at = now + timedelta(seconds=row.payload["grace_seconds"]) if acts else None
        finding.status_reason = "Warned; acts when the grace is over unless somebody objects." if acts else "Warned."
        session.add(finding)
        audit.record(
            session,
            at=now,
            actor="curfew",
            verb="warn",
            object=f"finding/{finding.id}",
            project=finding.project,
            reason=finding.reason,
            details={"channel": row.channel_kind, "due_at": finding.due_at.isoformat() if finding.due_at else None},
        )
