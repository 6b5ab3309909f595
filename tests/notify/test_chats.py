"""What Slack, Discord and Teams are handed: short, with links that are links, and nothing that calls everybody."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.slack import NotifySlack
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from service.notify import wording
from service.notify.messages import BRIEF_AT_MOST, Rendered, render
from tests.notify.test_channels import channels
from tests.notify.test_messages import EVIL, KINDS, NOW, hostile, links, payload, resource, warning

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"
DISCORD = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"
TEAMS = "workflows://127.0.0.1:{port}/643a027bcd8a4cef93c7e4e9d1b8a7a1/a-signature"
DISCORDS_LIMIT = 2000
EVIL_NAME = "train_7 *x* <!channel> @everyone [a](https://evil.example) `q` ||s|| <at>all</at>"

Send = Callable[[str, Rendered], Any]


@pytest.fixture
def send(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Sends through Apprise to a server here in place of theirs; answers the JSON that arrived."""
    got: list[Any] = []

    def take(request: Request) -> Response:
        got.append(request.get_json())
        return Response("ok")

    httpserver.expect_request(re.compile(".*")).respond_with_handler(take)
    monkeypatch.setattr(NotifySlack, "webhook_url", httpserver.url_for("/slack"))
    real = requests.post
    here = httpserver.url_for("").rstrip("/")

    def post(url: str, *args: Any, **more: Any) -> Any:
        return real(re.sub(r"^https://[^/]+", here, url), *args, **more)

    monkeypatch.setattr(requests, "post", post)

    def sent(url: str, message: Rendered) -> Any:
        delivery = channels().deliver(url.format(port=httpserver.port), message, message_id="m")
        assert delivery.ok, delivery.error
        return got[-1]

    return sent


def words_of(chat: str, sent: Any) -> str:
    """All that a reader sees, with the markup."""
    if chat == "slack":
        [attachment] = sent["attachments"]
        return f"{attachment['title']}\n{attachment['text']}"
    if chat == "discord":
        return str(sent["content"])
    [card] = sent["attachments"]
    [block] = card["content"]["body"]
    assert block["wrap"] is True
    return str(block["text"])


CHATS = {"slack": SLACK, "discord": DISCORD, "teams": TEAMS}


@pytest.mark.parametrize("chat", CHATS)
def test_a_warning_says_what_why_how_much_and_what_would_be_lost(send: Send, chat: str) -> None:
    words = words_of(chat, send(CHATS[chat], warning()))
    for said in (
        "Will be stopped in 30 minutes: train-7 (8×H100)",
        "All 8 GPUs have been idle for 52 minutes.",
        "Saturday 14 November 2026, 13:30 (Asia/Ho_Chi_Minh, UTC+7)",
        "Cost: $98.32 an hour ($2,359.68 a day)",
        "What would be lost: The 8 local NVMe disks are wiped when it stops.",
    ):
        assert words.count(said) == 1
    assert len(words) <= DISCORDS_LIMIT


@pytest.mark.parametrize("chat", CHATS)
def test_its_links_are_labels_to_press(send: Send, chat: str) -> None:
    words, made = words_of(chat, send(CHATS[chat], warning())), links()
    for verb, label in (
        ("keep_1h", "Keep it for 1 hour"),
        ("keep_4h", "Keep it for 4 hours"),
        ("keep_until_morning", "Keep it until Monday 16 November, 09:00"),
        ("stop_now", "Stop it now"),
        ("details", "See the details"),
    ):
        assert (f"<{made[verb]}|{label}>" if chat == "slack" else f"[{label}]({made[verb]})") in words


def test_slack_does_not_fold_the_links_away(send: Send) -> None:
    [attachment] = send(SLACK, warning())["attachments"]
    assert attachment["text"].count("\n") < 5
    assert attachment["footer"] == "Curfew"


def test_slack_gets_blocks_where_its_url_asks_for_them(send: Send) -> None:
    long = warning(resource=resource(name="n" * 500))
    [attachment] = send(SLACK + "?blocks=yes", long)["attachments"]
    header, section = attachment["blocks"][:2]
    assert len(header["text"]["text"]) <= 150
    assert section["text"]["type"] == "mrkdwn"
    assert "|Keep it for 4 hours>" in section["text"]["text"]


def test_discord_unfolds_no_link(send: Send) -> None:
    assert send(DISCORD, warning())["flags"] & 4


@pytest.mark.parametrize("chat", CHATS)
def test_nothing_is_fetched_from_elsewhere(send: Send, chat: str) -> None:
    sent = repr(send(CHATS[chat], warning())).replace("http://adaptivecards.io/schemas/adaptive-card.json", "")
    assert set(re.findall(r"https?://([^/|)>' ]+)", sent)) == {"curfew.example.org"}


@pytest.mark.parametrize("chat", CHATS)
def test_a_name_that_anyone_may_set_marks_nothing_up_and_calls_nobody(send: Send, chat: str) -> None:
    words = words_of(chat, send(CHATS[chat], warning(resource=resource(name=EVIL_NAME))))
    ours = {url for url in links().values() if url in words}
    for url in ours:
        words = words.replace(url, "")
    for call in ("@everyone", "<!channel", "&lt;!channel", "<at>", "`", "||", "://evil"):
        assert call not in words
    assert len(ours) == 5


@given(kind=st.sampled_from(KINDS), name=hostile, other=hostile, acts=st.booleans())
@example(kind="warning", name="x", other="n" * 400, acts=True)
def test_a_brief_is_short_and_holds_no_markup_but_its_links(kind: str, name: str, other: str, acts: bool) -> None:
    changed = payload(
        acts=acts,
        resource=resource(name=name, owner=other, sku=other, gpu_model=other),
        reason=other,
        losses=[other] * 9,
        not_acting_reason=name,
        action={"id": "a", "verb": "stop", "at": None, "error": other},
    )
    brief = render(kind, changed, now=NOW, due_at=NOW + timedelta(minutes=30), links=links()).brief
    assert len(brief) <= BRIEF_AT_MOST
    bare = re.sub(r"\[[^\[\]]+\]\(https://curfew\.example\.org/l/[\w.\-]+\)", "", brief)
    assert not set("[]<>*`~|\\") & set(bare)
    assert "@everyone" not in bare.lower()


@pytest.mark.parametrize("evil", EVIL)
def test_what_a_chat_shows_is_one_line_a_person_can_read(evil: str) -> None:
    assert wording.chat(evil).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train_7_b of mai@example.org, 8×H100: $98.32", "train_7_b of mai@example.org, 8×H100: $98.32"),
        ("_x_ __y__", "＿x＿ ＿＿y＿＿"),
        ("# a heading", "– a heading"),
        ("-# small", "– small"),
        ("@Here", "＠Here"),
    ],
)
def test_what_means_something_to_a_chat_is_replaced_and_nothing_else(text: str, shown: str) -> None:
    assert wording.chat(text) == shown


def test_the_discord_of_the_tests_is_apprises() -> None:
    assert NotifyDiscord.body_maxlen == DISCORDS_LIMIT
