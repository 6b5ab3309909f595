"""Queues what people must be told about an action, in the transaction that made it true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlmodel import Session

from providers.records import Verb
from service.documents import Project
from service.model import Known, Message
from service.notify.channels import channel_kind
from service.pipeline.address import channels_for, only_by_tag
from service.pipeline.plan import money, resource_payload
from service.store import outbox
from service.store.documents import load
from service.store.outbox import Addressed
from service.store.tables import Action, Finding


def queued(
    session: Session,
    messages: Iterable[Message],
    projects: Mapping[str, Project],
    fallback: Sequence[str],
    now: datetime,
) -> None:
    """Each message to each of its channels, once."""
    addressed = []
    for message in messages:
        by_tag = only_by_tag(message, projects)
        addressed += [
            Addressed(
                message=message, channel=channel, channel_kind=channel_kind(channel), keeps_only=channel == by_tag
            )
            for channel in channels_for(message, projects, fallback)
        ]
    outbox.queue(session, addressed, now)


def told(session: Session, kind: str, action: Action, known: Known, fallback: Sequence[str], now: datetime) -> None:
    """Queue `enforced`, `undone` or `failed` for an action."""
    documents = load(session)
    project = documents.projects.get(action.project) if action.project else None
    policy = documents.policies.get(action.policy) if action.policy else None
    finding = session.get(Finding, action.finding_id) if action.finding_id else None
    message = Message(
        kind=kind,
        key=f"{kind}:{action.id}",
        project=action.project,
        policy_channels=policy.notify if policy else (),
        payload={
            "project": action.project,
            "timezone": project.timezone if project else "UTC",
            "policy": action.policy,
            "mode": policy.mode.value if policy else None,
            "remedy": action.verb,
            "reason": action.reason,
            "evidence": dict(finding.evidence) if finding else {},
            "resource": resource_payload(known),
            "hourly_cost": money(known.price.rate_micros, known.price.currency) if known.price else None,
            "losses": [],
            "acts": True,
            "action": {
                "id": action.id,
                "verb": action.verb,
                "final": action.verb == Verb.TERMINATE or bool(action.pre_state.get("final")),
                "at": now.isoformat(),
                "error": action.error,
                "requested_by": action.requested_by,
            },
        },
        finding_id=action.finding_id,
        action_id=action.id,
    )
    queued(session, [message], documents.projects, fallback, now)
