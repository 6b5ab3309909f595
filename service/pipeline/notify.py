"""Empties the outbox: puts together what one channel gets at once, renders it, sends it, records what was delivered.

A delivered warning is what makes a finding `warned` and sets when it is due: delivery plus grace. Sent at least once
with a stable Message-ID; a duplicate can only come from a crash between sending and recording.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlmodel import Session, col, select

from service.documents import mask_channel
from service.model import Status
from service.notify import digest
from service.notify.channels import Channels, Delivery, digest_size
from service.notify.events import event_of
from service.notify.links import EVERYTHING, HARMLESS, PAGE_LASTS, Links, LinkVerb, ProjectClaim, Several
from service.notify.messages import Rendered, render
from service.notify.wording import zone_of
from service.store import audit, outbox
from service.store.database import Database
from service.store.tables import Document, Finding, Outbox

log = structlog.get_logger()
LINKS_LAST = timedelta(days=3)
"""How long the links of a message work after it was sent, at least."""
TESTED_AT_ONCE = 8
UNEXPECTED = "it failed unexpectedly; the service's log has the details"
REFUSALS = 3
"""After so many in a row a channel is left alone until the next cycle: each may take its whole time-out."""


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
    refusals: Counter[str] = Counter()
    last: Outbox | None = None
    while True:
        with post.database.transaction() as session:
            rows = outbox.pending(session, post.now(), after=last)
            true = _still_true(session, rows)
        if not rows:
            return counts
        last = rows[-1]
        waiting = deque(batches(true))
        while waiting:
            batch = waiting.popleft()
            if refusals[batch[0].channel] >= REFUSALS:
                continue  # it stays pending
            delivery = _send(batch, post)
            if delivery is None and len(batch) > 1:
                waiting.extendleft([row] for row in reversed(batch))  # whichever is at fault fails alone
                continue
            delivery = delivery or Delivery(ok=False, error=UNEXPECTED)
            _record(batch, delivery, post)
            refusals[batch[0].channel] = 0 if delivery.ok else refusals[batch[0].channel] + 1
            counts["delivered" if delivery.ok else "failed"] += len(batch)


def tried_out(project: str, channels: Sequence[str], post: Post, *, by: str) -> list[tuple[str, Delivery]]:
    """Sends a test message to each of these channels at once, and says what each answered. Nothing is queued."""
    payload = {"project": project, "by": by}
    now = post.now()
    words = render("test", payload, now=now, due_at=None, links={})
    words = replace(words, event=event_of("test", payload, at=now))

    def attempt(channel: str) -> tuple[str, Delivery]:
        try:
            return channel, post.channels.deliver(channel, words, message_id=f"test:{now.isoformat()}:{channel}")
        except Exception:
            log.exception("a test message could not be sent", project=project)
            return channel, Delivery(ok=False, error=UNEXPECTED)

    with ThreadPoolExecutor(TESTED_AT_ONCE) as pool:
        return list(pool.map(attempt, channels))


def _still_true(session: Session, rows: Sequence[Outbox]) -> list[Outbox]:
    """Withdraws what was overtaken while no channel took it: nobody should read that something will be stopped when
    it will not be.
    """
    kept = []
    for row in rows:
        if row.kind in ("warning", "reminder") and _overtaken(session, row):
            outbox.withdrawn(row)
            session.add(row)
        else:
            kept.append(row)
    return kept


def _overtaken(session: Session, row: Outbox) -> bool:
    """The finding has ended or started anew, or its policy was changed in a way that makes warnings start anew."""
    finding = session.get(Finding, row.finding_id)
    if finding is None or finding.closed_at is not None or finding.episode != row.episode:
        return True
    policy = session.get(Document, ("policy", finding.policy))
    if policy is None:
        return True
    changed_at = (policy.mode_changed_at or policy.updated_at).isoformat()
    return bool(row.payload.get("policy_changed_at", changed_at) != changed_at)


def batches(rows: Iterable[Outbox]) -> list[list[Outbox]]:
    """What is sent as one message each: all about machines that goes to one channel, the most urgent first."""
    alone: list[list[Outbox]] = []
    together: dict[str, list[Outbox]] = {}
    for row in rows:
        if row.kind in digest.KINDS and digest_size(row.channel) > 1:
            together.setdefault(row.channel, []).append(row)
        else:
            alone.append([row])
    found = []
    for channel, its_rows in together.items():
        size = digest_size(channel)
        its_rows.sort(key=lambda row: row.kind != "warning")
        found += [its_rows[at : at + size] for at in range(0, len(its_rows), size)]
    return found + alone


def message_id_of(batch: Sequence[Outbox]) -> str:
    """The same for the same messages, in whatever order they come."""
    if len(batch) == 1:
        return batch[0].message_id
    together = "\n".join(sorted(row.message_id for row in batch))
    return f"digest:{hashlib.sha256(together.encode()).hexdigest()}"


def _send(batch: Sequence[Outbox], post: Post) -> Delivery | None:
    """None: it broke in a way its channel does not know."""
    try:
        return post.channels.deliver(batch[0].channel, rendered(batch, post), message_id=message_id_of(batch))
    except Exception:
        log.exception("a message could not be sent", messages=[row.id for row in batch])
        return None


def rendered(batch: Sequence[Outbox], post: Post) -> Rendered:
    """Queued messages in words, as of now; several become a digest."""
    now = post.now()
    promised = _promised(batch, post)
    parts = [_part(row, post.links, now, promised.get(row.finding_id or "")) for row in batch]
    if len(parts) == 1:
        [row], [part] = batch, parts
        words = render(part.kind, part.payload, now=now, due_at=part.due_at, links=part.links)
        event = event_of(
            part.kind,
            part.payload,
            at=row.created_at,
            finding_id=row.finding_id,
            due_at=part.due_at,
            links=part.links,
        )
        return replace(words, event=event)
    return digest.render_digest(parts, now=now, url_of_all=_url_of_all(batch, post.links, now))


def _promised(batch: Sequence[Outbox], post: Post) -> dict[str, datetime]:
    """Finding → when it is due by an earlier delivery: whoever hears of it later is told the same moment."""
    ids = [row.finding_id for row in batch if row.kind == "warning" and row.finding_id is not None]
    if not ids:
        return {}
    with post.database.reading() as session:
        found = session.exec(select(Finding.id, Finding.due_at).where(col(Finding.id).in_(ids))).all()
    return {finding_id: due_at for finding_id, due_at in found if due_at is not None}


def _part(row: Outbox, links: Links, now: datetime, promised: datetime | None) -> digest.Part:
    payload = row.payload
    made: dict[str, str] = {}
    if row.finding_id is not None:
        zone = zone_of(payload.get("timezone"))
        expires = now + _grace(row) + LINKS_LAST
        verbs = HARMLESS if payload.get("keeps_only") else EVERYTHING
        made = links.all_for(row.finding_id, row.episode or 0, recipient_of(row.channel), now, zone, expires, verbs)
    elif row.kind == "budget" and links.usable:
        claim = ProjectClaim(project=payload["project"], recipient=recipient_of(row.channel), expires=now + PAGE_LASTS)
        made = {LinkVerb.DETAILS.value: links.url_of_project(claim)}
    due_at = (promised or now + _grace(row)) if row.kind == "warning" and payload.get("acts") else None
    return digest.Part(kind=row.kind, payload=payload, due_at=due_at, links=made)


def _url_of_all(batch: Sequence[Outbox], links: Links, now: datetime) -> str | None:
    """One link to all the findings of a digest."""
    findings = dict.fromkeys((row.finding_id, row.episode or 0) for row in batch if row.finding_id is not None)
    if not findings or not links.usable:
        return None
    expires = now + max(_grace(row) for row in batch) + LINKS_LAST
    return links.url_of_several(
        Several(
            findings=tuple(findings),
            recipient=recipient_of(batch[0].channel),
            expires=expires,
            keeps_only=any(row.payload.get("keeps_only") for row in batch),
        )
    )


def recipient_of(channel: str) -> str:
    """Who a link is for, as it may be read by whoever gets it: an address, or a channel without its secrets."""
    return channel.removeprefix("mail:") if channel.startswith("mail:") else mask_channel(channel)


def _grace(row: Outbox) -> timedelta:
    return timedelta(seconds=row.payload.get("grace_seconds", 0))


def _record(batch: Sequence[Outbox], delivery: Delivery, post: Post) -> None:
    """What came of it, in one transaction with what follows from each delivered warning."""
    now = post.now()
    with post.database.transaction() as session:
        for row in batch:
            _record_one(session, row, delivery, now)


def _record_one(session: Session, row: Outbox, delivery: Delivery, now: datetime) -> None:
    stored = session.get(Outbox, row.id, with_for_update=True)
    if stored is None or stored.status != "pending":
        return
    if not delivery.ok:
        outbox.failed(stored, delivery.error or "the channel did not take it", now)
        log.warning("a message was not delivered", message=row.id, kind=row.kind, reason=stored.error)
        session.add(stored)
        return
    outbox.delivered(stored, now)
    session.add(stored)
    finding = session.get(Finding, row.finding_id, with_for_update=True) if row.kind == "warning" else None
    if finding is None or finding.status != Status.OPEN or _overtaken(session, row):
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
