"""Who hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from service.documents import Project
from service.model import Message
from service.pipeline.address import channels_for, only_by_tag

VISION = Project.model_validate(
    {
        "name": "vision",
        "owners": ["lead@example.org", "deputy@Labs.example.org"],
        "budget_owners": ["money@example.org", "lead@example.org"],
        "notify": ["slack://${SLACK}"],
    }
)
PEOPLE = ("mail:lead@example.org", "mail:deputy@Labs.example.org", "mail:money@example.org")

SENTENCES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "people first, each once, then the project's channels": ({}, (*PEOPLE, "slack://${SLACK}")),
    "an address among the channels is written to": (
        {"policy_channels": ("desk@partner.example", "lead@example.org")},
        (*PEOPLE, "slack://${SLACK}", "mail:desk@partner.example"),
    ),
    "then the policy's": ({"policy_channels": ("json://hook",)}, (*PEOPLE, "slack://${SLACK}", "json://hook")),
    "the owner on the machine, when the project writes to that domain": (
        {"owner": "mai@example.org"},
        (*PEOPLE, "mail:mai@example.org", "slack://${SLACK}"),
    ),
    "whatever the domain's case": (
        {"owner": "mai@labs.EXAMPLE.org"},
        (*PEOPLE, "mail:mai@labs.EXAMPLE.org", "slack://${SLACK}"),
    ),
    "a tag cannot send mail elsewhere": ({"owner": "thief@elsewhere.org"}, (*PEOPLE, "slack://${SLACK}")),
    "nor to two": ({"owner": "x@elsewhere.org y@example.org"}, (*PEOPLE, "slack://${SLACK}")),
    "a name is no address": ({"owner": "mai"}, (*PEOPLE, "slack://${SLACK}")),
    "without a project the installation's own": (
        {"project": None},
        ("mail:ops@example.org", "ntfy://room@host"),
    ),
    "a project nobody knows is none": ({"project": "gone"}, ("mail:ops@example.org", "ntfy://room@host")),
    "the policy's channels are somebody": ({"project": None, "policy_channels": ("json://hook",)}, ("json://hook",)),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_channels(sentence: str) -> None:
    more, channels = SENTENCES[sentence]
    message = Message(
        kind="warning",
        key="k",
        project=more.get("project", "vision"),
        policy_channels=more.get("policy_channels", ()),
        payload={"resource": {"owner": more.get("owner")}},
    )
    assert channels_for(message, {"vision": VISION}, ("ops@example.org", "ntfy://room@host")) == channels


def test_when_there_is_really_nobody_there_is_no_channel() -> None:
    message = Message(kind="breaker", key="k", project=None, policy_channels=(), payload={})
    assert channels_for(message, {}, ()) == ()


def asking(owner: str, *channels: str) -> Message:
    payload = {"resource": {"owner": owner}}
    return Message(kind="warning", key="k", project="vision", payload=payload, policy_channels=channels)


@pytest.mark.parametrize(
    ("message", "channel"),
    [
        (asking("mai@example.org"), "mail:mai@example.org"),
        (asking("lead@example.org"), None),
        (asking("mai@example.org", "mai@example.org"), None),
    ],
    ids=["a tag alone", "one of the project's people", "written to by the policy"],
)
def test_who_is_known_by_a_tag_alone(message: Message, channel: str | None) -> None:
    assert only_by_tag(message, {"vision": VISION}) == channel
