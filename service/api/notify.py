"""`/projects/{name}/notify/test`: whether messages about a project reach anybody, asked before it matters."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlmodel import Session

from service.api.auth import require
from service.api.problems import not_found, responses
from service.api.shapes import Shape
from service.api.writes import Done, TheWrite
from service.documents import mask_channel
from service.model import Message
from service.notify.channels import Delivery, channel_kind
from service.pipeline.address import channels_for
from service.pipeline.notify import tried_out
from service.store import audit
from service.store.documents import load

router = APIRouter(prefix="/projects", tags=["projects"])


class ChannelTried(Shape):
    """What one channel made of a test message."""

    channel: str
    """Without what is secret in it."""
    kind: str
    ok: bool
    error: str | None


class NotifyTest(Shape):
    """What every channel of a project made of a test message."""

    project: str
    channels: list[ChannelTried]
    """Empty: nobody would hear of this project."""


@router.post(
    "/{name}/notify/test",
    responses=responses(404, 409),
    response_model=NotifyTest,
    summary="Send a test message to each channel",
)
def test_notify(write: TheWrite, name: str) -> JSONResponse:
    """To everybody who would be warned about the project's machines; answers when all of them have answered."""
    runtime, principal = write.runtime, write.principal
    with runtime.database.reading() as session:
        projects = load(session).projects
    if name not in projects or not principal.sees(name):
        raise not_found("project", name)
    require(principal, "notify", name)
    if (before := write.answered()) is not None:
        return before
    asking = Message(kind="test", key="test", project=name, policy_channels=(), payload={})
    channels = channels_for(asking, projects, runtime.settings.notify)
    tried = tried_out(name, channels, runtime.post, by=principal.name)  # no transaction is open

    def work(session: Session) -> Done:
        audit.record(
            session,
            at=runtime.clock.now(),
            actor=principal.actor,
            verb="test notify",
            object=f"project/{name}",
            project=name,
            details={"channels": len(tried), "failed": sum(not delivery.ok for _, delivery in tried)},
        )
        return Done(body=_answer(name, tried))

    return write.once(work)


def _answer(name: str, tried: Sequence[tuple[str, Delivery]]) -> NotifyTest:
    return NotifyTest(
        project=name,
        channels=[
            ChannelTried(
                channel=mask_channel(channel.removeprefix("mail:")),
                kind=channel_kind(channel),
                ok=delivery.ok,
                error=delivery.error,
            )
            for channel, delivery in tried
        ],
    )
