"""What a program gets: a CloudEvent it can check is ours, at least once, and never by a detour."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from service.notify import webhook
from service.notify.channels import channel_kind, digest_size
from service.notify.events import event_of
from service.notify.messages import Rendered
from service.secrets import Secrets
from tests.notify.conftest import free_port
from tests.notify.test_channels import MESSAGE, channels
from tests.notify.test_messages import links, payload

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)
EVENT = event_of("warning", payload(), at=AT, finding_id="f1", due_at=AT + timedelta(minutes=30), links=links())
WARNING = replace(MESSAGE, event=EVENT)
KEY = bytes(range(24))
WHSEC = "whsec_" + base64.b64encode(KEY).decode()


class Listener:
    """Keeps what was posted to it."""

    def __init__(self, server: HTTPServer) -> None:
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.status = 204
        self.place = f"127.0.0.1:{server.port}/hook/abc-secret"
        server.expect_request("/hook/abc-secret").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        self.bodies.append(request.get_data())
        self.requests.append(request)
        return Response(status=self.status)


@pytest.fixture
def listener(httpserver: HTTPServer) -> Listener:
    return Listener(httpserver)


def signature(key: bytes, request: Request, body: bytes) -> str:
    """As a receiver computes it, from what it received."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def sent(listener: Listener, query: str, message: Rendered = WARNING, **secrets: str) -> Request:
    through = channels(secrets={"HOOK": "abc-secret", **secrets})
    delivery = through.deliver(f"webhook://{listener.place}{query}", message, message_id="warning:f1:1")
    assert delivery.ok, delivery.error
    return listener.requests[-1]


class TestTheEvent:
    def test_is_a_structured_cloudevent_with_the_payload_and_the_links(self, listener: Listener) -> None:
        request = sent(listener, "")
        event = json.loads(listener.bodies[0])
        data = event.pop("data")

        assert request.headers["Content-Type"].startswith("application/cloudevents+json")
        assert event == {
            "specversion": "1.0",
            "id": request.headers["webhook-id"],
            "source": "https://curfew.example.org",
            "type": "dev.curfew.finding.warned",
            "subject": "finding/f1",
            "time": "2026-11-14T06:00:00+00:00",
            "datacontenttype": "application/json",
        }
        assert data["links"] == links()
        assert (data["kind"], data["finding"], data["acts_at"]) == ("warning", "f1", "2026-11-14T06:30:00+00:00")
        assert {key: data[key] for key in payload()} == payload()

    def test_sent_again_it_has_the_same_id_and_another_message_has_another(self, listener: Listener) -> None:
        through = channels()
        for message_id in ("warning:f1:1", "warning:f1:1", "warning:f1:2 ünicode\n."):
            assert through.deliver(f"webhook://{listener.place}", WARNING, message_id=message_id).ok
        first, again, other = (request.headers["webhook-id"] for request in listener.requests)
        assert first == again != other
        assert other.isalnum()

    @pytest.mark.parametrize(
        ("kind", "finding_id", "body", "type", "subject"),
        [
            ("enforced", "f1", payload(), "dev.curfew.action.enforced", "finding/f1"),
            ("unknown", None, payload(), "dev.curfew.resource.unknown", "resource/r1"),
            ("budget", None, {"project": "vision"}, "dev.curfew.budget.reached", "project/vision"),
            ("other", None, {}, "dev.curfew.other", None),
        ],
    )
    def test_says_what_happened_to_what(
        self, kind: str, finding_id: str | None, body: dict[str, Any], type: str, subject: str | None
    ) -> None:
        event = event_of(kind, body, at=AT, finding_id=finding_id).envelope(id="i", source="")
        assert (event["type"], event.get("subject")) == (type, subject)
        assert event["source"] == "urn:curfew"

    def test_a_message_without_data_is_not_sent(self, listener: Listener) -> None:
        delivery = channels().deliver(f"webhook://{listener.place}", MESSAGE, message_id="m")
        assert not delivery.ok
        assert listener.requests == []


class TestTheSignature:
    @pytest.mark.parametrize(
        ("secret", "key"),
        [
            (WHSEC, KEY),
            ("plain words", b"plain words"),
            ("a+b/c=&d#e%41?f", b"a+b/c=&d#e%41?f"),
        ],
    )
    def test_is_that_of_standard_webhooks_whatever_the_secret_holds(
        self, listener: Listener, secret: str, key: bytes
    ) -> None:
        request = sent(listener, "?secret=${SIGN}", SIGN=secret)
        assert request.headers["webhook-signature"] == signature(key, request, listener.bodies[0])
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
        assert request.query_string == b""

    def test_while_a_secret_is_replaced_both_sign(self, listener: Listener) -> None:
        request = sent(listener, "?secret=${OLD}&team=a+b&secret=${NEW}", OLD="older", NEW="newer")
        assert request.headers["webhook-signature"].split(" ") == [
            signature(key, request, listener.bodies[0]) for key in (b"older", b"newer")
        ]
        assert request.args.to_dict() == {"team": "a+b"}

    def test_of_another_body_or_another_secret_is_another(self) -> None:
        made = {
            webhook.signatures([key], id=id, timestamp=at, body=body)
            for key, id, at, body in [
                (b"k", "i", 1, b"b"),
                (b"K", "i", 1, b"b"),
                (b"k", "I", 1, b"b"),
                (b"k", "i", 2, b"b"),
                (b"k", "i", 1, b"B"),
            ]
        }
        assert len(made) == 5

    def test_matches_the_published_example(self) -> None:
        """From the Standard Webhooks specification's own libraries."""
        made = webhook.signatures(
            [base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
            id="msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp=1614265330,
            body=b'{"test": 2432232314}',
        )
        assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

    @pytest.mark.parametrize("secret", [WHSEC, "plain words"])
    def test_is_accepted_by_the_example_in_the_docs_and_a_changed_one_is_not(
        self, listener: Listener, secret: str
    ) -> None:
        [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "alerts.md").read_text(), re.DOTALL)
        names: dict[str, Any] = {}
        exec(example, names)
        is_from_curfew = names["is_from_curfew"]

        request = sent(listener, "?secret=${SIGN}", SIGN=secret)
        headers, body = {name.lower(): value for name, value in request.headers.items()}, listener.bodies[0]
        assert is_from_curfew(headers, body, secret)
        assert not is_from_curfew(headers, body + b" ", secret)
        assert not is_from_curfew(headers, body, "another")
        assert not is_from_curfew({**headers, "webhook-id": "x"}, body, secret)

    def test_without_a_secret_there_is_none(self, listener: Listener) -> None:
        assert "webhook-signature" not in sent(listener, "").headers


class TestDelivery:
    @pytest.mark.parametrize("status", [200, 201, 204])
    def test_any_2xx_is_one(self, listener: Listener, status: int) -> None:
        listener.status = status
        sent(listener, "")

    @pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
    def test_anything_else_is_none_and_names_the_status_but_no_secret(self, listener: Listener, status: int) -> None:
        listener.status = status
        place = listener.place.replace("abc-secret", "${HOOK}")
        delivery = channels(secrets={"HOOK": "abc-secret", "SIGN": "hunter2hunter2"}).deliver(
            f"webhook://user:password1@{place}?secret=${{SIGN}}", WARNING, message_id="m"
        )
        assert not delivery.ok
        assert delivery.error is not None
        assert str(status) in delivery.error
        for secret in ("abc-secret", "hunter2", "password1"):
            assert secret not in delivery.error
        assert len(listener.requests) == 1

    def test_a_redirect_is_not_followed(self, httpserver: HTTPServer) -> None:
        httpserver.expect_request("/inside").respond_with_data("ok")
        httpserver.expect_request("/hook").respond_with_data(
            "", status=307, headers={"Location": httpserver.url_for("/inside")}
        )
        delivery = channels().deliver(f"webhook://127.0.0.1:{httpserver.port}/hook", WARNING, message_id="m")
        assert not delivery.ok
        assert "redirects are not followed" in (delivery.error or "")
        assert [request.path for request, _ in httpserver.log] == ["/hook"]

    def test_a_private_target_is_refused_unless_allowed(self, listener: Listener) -> None:
        delivery = channels(allowed=()).deliver(f"webhook://{listener.place}", WARNING, message_id="m")
        assert not delivery.ok
        assert "CURFEW_ALLOW_TARGETS" in (delivery.error or "")
        assert listener.requests == []

    def test_nobody_there_is_a_sentence(self) -> None:
        delivery = channels().deliver(f"webhook://127.0.0.1:{free_port()}/hook", WARNING, message_id="m")
        assert not delivery.ok
        assert "does not answer" in (delivery.error or "")

    def test_who_takes_too_long_did_not_take_it(self, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            delivery = channels().deliver(
                f"webhook://127.0.0.1:{silent.getsockname()[1]}/hook", WARNING, message_id="m"
            )
        assert "did not answer within 0.2 seconds" in (delivery.error or "")

    def test_webhooks_speaks_tls(self, listener: Listener) -> None:
        delivery = channels().deliver(f"webhooks://{listener.place}", WARNING, message_id="m")
        assert not delivery.ok  # the listener does not
        assert listener.requests == []

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("webhooks:///path", "needs a host"),
            ("webhooks://127.0.0.1/x?secret=", "secret is empty"),
            ("webhooks://127.0.0.1/x?secret=whsec_%21%21", "must go on in base64"),
            ("webhooks://127.0.0.1/x?secret=${NOT_SET}", "the secret ${NOT_SET} is not set"),
        ],
    )
    def test_a_url_that_cannot_work_says_why(self, url: str, says: str) -> None:
        delivery = channels().deliver(url, WARNING, message_id="m")
        assert not delivery.ok
        assert says in (delivery.error or "")

    def test_the_whole_url_may_be_a_secret(self, listener: Listener) -> None:
        url = f"webhook://{listener.place}?secret=hunter2hunter2"
        assert channels(secrets={"URL": url}).deliver("${URL}", WARNING, message_id="m").ok
        [request] = listener.requests
        assert request.headers["webhook-signature"] == signature(b"hunter2hunter2", request, listener.bodies[0])


def test_programs_get_every_message_by_itself() -> None:
    assert {url: (channel_kind(url), digest_size(url)) for url in ("webhooks://h/p", "webhook://h", "${URL}")} == {
        "webhooks://h/p": ("webhook", 1),
        "webhook://h": ("webhook", 1),
        "${URL}": ("other", 1),
    }


def test_what_is_put_into_a_query_stays_where_it_belongs() -> None:
    read = webhook.webhook_of(
        "webhooks://h.example/hook?x=${A}&secret=${B}",
        Secrets(folder=None, environment={f"CURFEW_SECRET_{name}": f"{name}&?#" for name in "AB"}),
    )
    assert read == webhook.Webhook(url="https://h.example/hook?x=A%26%3F%23", secrets=(b"B&?#",))
