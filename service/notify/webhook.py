"""Posts an event to a program's address as signed JSON: CloudEvents 1.0 in a Standard Webhooks envelope.

`webhooks://host/path?secret=${NAME}` is https, `webhook://` is http. Whether the address may be reached at all is asked
of `service.targets` before; retries are the outbox's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from service.notify.events import Event, event_id
from service.secrets import Secrets

SCHEMES = {"webhook": "http", "webhooks": "https"}
TIMEOUT_SECONDS = 10.0
PREFIX = "whsec_"
"""Of a secret that is written in base64, as Standard Webhooks has it; any other one is taken as it is."""
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"


class NotAccepted(Exception):
    """The text says what came instead, without what is secret."""


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where to post, and what to sign with; several secrets while one is being replaced."""

    url: str
    secrets: tuple[bytes, ...]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]


def webhook_of(channel: str, secrets: Secrets) -> Webhook:
    """Reads a channel's URL. The query is taken apart before secrets are put in, so that they may hold any character.

    Raises ValueError or MissingSecret.
    """
    place, _, query = channel.partition("?")
    place, _, more = secrets.reveal(place).partition("?")  # the whole URL may be one secret
    options = [*((name, secrets.reveal(value)) for name, value in _pairs(query)), *_pairs(more)]
    parts = urlsplit(place)
    if not parts.hostname:
        raise ValueError("a webhook's URL needs a host; write it like webhooks://hooks.example.org/curfew")
    passed_on = urlencode([(name, value) for name, value in options if name != "secret"])
    return Webhook(
        url=urlunsplit((SCHEMES[parts.scheme], parts.netloc, parts.path or "/", passed_on, "")),
        secrets=tuple(_key(value) for name, value in options if name == "secret"),
    )


def _pairs(query: str) -> list[tuple[str, str]]:
    """`+` stays one: a query is written by hand here, and base64 has it."""
    return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)


def _key(secret: str) -> bytes:
    if not secret:
        raise ValueError("a webhook's secret is empty; leave it out to send unsigned")
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"a webhook's secret that starts with {PREFIX} must go on in base64") from None


def signatures(keys: Sequence[bytes], *, id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>` of HMAC-SHA256 over `id.timestamp.body`, one for each key."""
    signed = f"{id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{one}" for one in made)


def post(webhook: Webhook, event: Event, *, message_id: str, source: str, now: Callable[[], float] = time.time) -> None:
    """Delivered when the answer is 2xx; redirects are not followed. Raises NotAccepted.

    The timestamp is of the real clock, whatever clock governs: receivers compare it with theirs.
    """
    id, timestamp = event_id(message_id), int(now())
    body = json.dumps(event.envelope(id=id, source=source), separators=(",", ":")).encode()
    headers = {
        "content-type": CONTENT_TYPE,
        "user-agent": "Curfew",
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
    }
    if webhook.secrets:
        headers["webhook-signature"] = signatures(webhook.secrets, id=id, timestamp=timestamp, body=body)
    try:
        with (
            httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client,
            client.stream("POST", webhook.url, content=body, headers=headers) as answer,  # its body is nothing to us
        ):
            status = answer.status_code
    except httpx.InvalidURL:
        raise NotAccepted("the webhook's address is not valid") from None
    except httpx.TimeoutException:
        raise NotAccepted(f"{webhook.host} did not answer within {TIMEOUT_SECONDS:g} seconds") from None
    except httpx.HTTPError as error:
        raise NotAccepted(f"{webhook.host} does not answer: {type(error).__name__}") from None
    if 300 <= status < 400:
        raise NotAccepted(f"{webhook.host} answered {status}: redirects are not followed")
    if not 200 <= status < 300:
        raise NotAccepted(f"{webhook.host} answered {status}")
