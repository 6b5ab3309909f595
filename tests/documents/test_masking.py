"""What of a notification channel is shown: where it goes, and nothing that lets anybody else write there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.documents import mask_channel

SHOWN = {
    "lead@example.org": "lead@example.org",
    "mail:lead@example.org": "mail:lead@example.org",
    "${SLACK}": "${SLACK}",
    "xoxb-12345-topsecret": "***",
    "slack://T000/B000/topsecret": "slack://***",
    "slack://${SLACK}": "slack://${SLACK}",
    "https://hooks.slack.com/services/T000/B000/topsecret": "https://hooks.slack.com/***",
    "https://hooks.slack.com/services/${HOOK}": "https://hooks.slack.com/***${HOOK}",
    "jsons://hooks.example:8443/x?key=topsecret": "jsons://hooks.example:8443/***",
    "jsons://hooks.example?key=topsecret": "jsons://hooks.example?***",
    "webhooks://hooks.example/curfew?secret=topsecret": "webhooks://hooks.example/***",
    "webhook://hooks.example?secret=${HOOK}": "webhook://hooks.example?***${HOOK}",
    "json://topsecret@h.example": "json://***@h.example",
    "json://topsecret:topsecret@h.example/": "json://***:***@h.example/",
    "json://${USER}:${PASSWORD}@h.example/x": "json://${USER}:${PASSWORD}@h.example/***",
    "json://[2001:db8::1]:80/topsecret": "json://[2001:db8::1]:80/***",
    "json://me:top/secret@h.example": "json://***",
    "json://me:top@secret@h.example": "json://***:***@h.example",
    "json://me:top?secret@h.example/x": "json://***",
    "mailto://me:topsecret@smtp.example.org:587/lead@example.org?smtp=topsecret": (
        "mailto://me:***@smtp.example.org:587/lead@example.org?smtp=***"
    ),
    "mailto://me:top/secret@smtp.example.org": "mailto://***",
}


@pytest.mark.parametrize("channel", SHOWN)
def test_of_a_channel_only_the_place_is_shown(channel: str) -> None:
    assert mask_channel(channel) == SHOWN[channel]


@given(path=st.text(min_size=1), user=st.text(), scheme=st.sampled_from(["json", "https", "xmls", "slack", "ntfy"]))
def test_no_path_and_no_login_of_a_webhook_comes_through(path: str, user: str, scheme: str) -> None:
    shown = mask_channel(f"{scheme}://{user}topsecret@hooks.example/topsecret{path}")
    assert "topsecret" not in shown
    assert "***" in shown
