"""A host's name may mean a public address when it is checked and the inside of the network when it is connected to."""

from __future__ import annotations

import socket
from itertools import chain, repeat
from typing import Any

import pytest

from service import targets
from service.notify.channels import Channels, channel_kind
from service.notify.events import event_of
from service.notify.messages import Rendered
from tests.conftest import MONDAY
from tests.notify.test_channels import channels

PUBLIC, INSIDE = "93.184.216.34", "127.0.0.1"
EVENT = event_of("test", {"project": "vision", "by": "token:ci"}, at=MONDAY)
MESSAGE = Rendered(subject="a", text="b", html="c", event=EVENT)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses connected to; nothing leaves. `rebinding.example` is public once, and loopback ever after."""
    system, answers, found = targets._system, chain([PUBLIC], repeat(INSIDE)), list[str]()

    def look_up(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        rebinding = str(host).rstrip(".").lower() == "rebinding.example"
        return system(next(answers) if rebinding else host, port, *more, **named)

    def connect(_socket: socket.socket, address: Any) -> None:
        found.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(targets, "_system", look_up)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return found


def by(url: str) -> tuple[Channels, str]:
    """Sent through a mail server of that name, or to a channel."""
    return (
        (channels(url, allowed=()), "mail:lan@example.org") if url.startswith("mail") else (channels(allowed=()), url)
    )


@pytest.mark.parametrize(
    "url",
    [
        "webhooks://rebinding.example/x",
        "webhook://Rebinding.Example./x",
        "json://rebinding.example/x",
        "jsons://rebinding.example/x",
        "workflows://rebinding.example/a/b",
        "mailto://rebinding.example?from=curfew@example.org&to={to}",
        "mailtos://rebinding.example?from=curfew@example.org&to={to}",
    ],
)
def test_what_was_checked_is_what_is_connected_to(connected: list[str], url: str) -> None:
    post, channel = by(url)
    assert not post.deliver(channel, MESSAGE, message_id="m1").ok
    assert set(connected) == {PUBLIC}
    assert targets._pins == {}


@pytest.mark.parametrize("url", ["json://r\u00e9binding.example/x", "webhooks://bücher.example/x"])
def test_a_name_that_libraries_may_read_differently_is_refused(connected: list[str], url: str) -> None:
    said = channels(allowed=()).deliver(url, MESSAGE, message_id="m1")
    assert not said.ok
    assert connected == []
    assert channel_kind(url) in ("json", "webhook")


def test_only_the_host_that_is_sent_to_is_pinned(connected: list[str]) -> None:
    with targets.checked_target("https://rebinding.example/x", ()):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", 9))
        with targets.checked_target("https://rebinding.example/x", ()), pytest.raises(OSError, match="refused"):
            socket.create_connection(("rebinding.example", 443))
    assert connected == ["127.0.0.1", PUBLIC]
    assert targets._pins == {}
