"""What reaches people and what does not, against a real mail server and a real web server on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from service.notify.channels import Channels, channel_kind
from service.notify.messages import Rendered
from service.secrets import Secrets
from service.settings import Settings
from tests.notify.conftest import Sink, free_port

LOOPBACK = ("127.0.0.1",)
MESSAGE = Rendered(
    subject="Will be stopped in 30 minutes: train-7 (8×H100)",
    text="train-7 will be stopped.\n",
    html="<p>train-7 will be <b>stopped</b>.</p>",
    level="warning",
)


def channels(
    mail: str | None = None,
    *,
    allowed: tuple[str, ...] = LOOPBACK,
    demo_speed: float = 0,
    secrets: dict[str, str] | None = None,
) -> Channels:
    environment = {f"CURFEW_SECRET_{name}": value for name, value in (secrets or {}).items()}
    settings = Settings(
        home=Path("/nowhere"),
        public_url="https://curfew.example.org",
        mail=None if mail is None else SecretStr(mail),
        allow_targets=allowed,
        demo_speed=demo_speed,
    )
    return Channels(settings, Secrets(folder=None, environment=environment))


def relay(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/{{to}}?from=curfew@example.org&name=Curfew"


class TestMail:
    def test_it_arrives_as_text_and_html_with_its_subject_and_recipient(self, sink: Sink) -> None:
        delivery = channels(relay(sink.port)).deliver("mail:lan@example.org", MESSAGE, message_id="warning/f1/1")

        assert delivery.ok, delivery.error
        (mail,) = sink.arrived
        assert sink.recipients == [["lan@example.org"]]
        assert mail["To"] == "lan@example.org"
        assert mail["From"] == "Curfew <curfew@example.org>"
        assert mail["Subject"] == MESSAGE.subject
        assert mail["Auto-Submitted"] == "auto-generated"
        assert mail.get_content_type() == "multipart/alternative"
        text, html = mail.iter_parts()
        assert (text.get_content_type(), text.get_content().replace("\r\n", "\n")) == ("text/plain", MESSAGE.text)
        assert (html.get_content_type(), html.get_content().strip()) == ("text/html", MESSAGE.html)

    def test_the_same_message_sent_twice_has_the_same_message_id_and_another_one_has_another(self, sink: Sink) -> None:
        through = channels(relay(sink.port))
        for message_id in ("warning/f1/1", "warning/f1/1", "warning/f1/2 with <odd> ünicode\n"):
            assert through.deliver("mail:lan@example.org", MESSAGE, message_id=message_id).ok

        first, again, other = (mail.get_all("Message-ID", []) for mail in sink.arrived)
        assert first == again != other
        assert len(first) == len(other) == 1
        assert all(ids[0].startswith("<") and ids[0].endswith("@example.org>") for ids in (first, other))

    def test_an_address_with_signs_that_mean_something_in_a_url_arrives_whole(self, sink: Sink) -> None:
        assert channels(relay(sink.port)).deliver("mail:a+b%c&d@corp.local", MESSAGE, message_id="m").ok
        assert sink.recipients == [["a+b%c&d@corp.local"]]

    def test_an_address_cannot_smuggle_in_options_or_a_second_recipient(self, sink: Sink) -> None:
        delivery = channels(relay(sink.port)).deliver("mail:a@x.org?to=eve@y.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert "addresses" in (delivery.error or "")
        assert sink.recipients == []

    def test_a_dead_server_is_an_error_without_the_password(self) -> None:
        mail = f"mailto://curfew:hunter2hunter2@127.0.0.1:{free_port()}/{{to}}?from=curfew@example.org"
        delivery = channels(mail).deliver("mail:lan@example.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert delivery.error is not None
        assert "does not answer" in delivery.error
        assert "hunter2" not in delivery.error

    def test_the_servers_own_words_are_kept_when_it_refuses(self, sink: Sink) -> None:
        sink.refuses = "550 5.1.1 no such person here"
        delivery = channels(relay(sink.port)).deliver("mail:lan@example.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert delivery.error is not None
        assert "550 5.1.1 no such person here" in delivery.error
        assert sink.arrived == []

    @pytest.mark.parametrize(
        ("mail", "says"),
        [
            (None, "CURFEW_MAIL is not set"),
            ("mailto://127.0.0.1:25/?from=curfew@example.org", "has no {to}"),
            ("mailto://127.0.0.1:25/{to}?from=c@example.org&bcc=all@example.org", "option bcc"),
            ("mailto://127.0.0.1:25/{to}?from=c@example.org&pgp=encrypt", "option pgp"),
        ],
    )
    def test_a_mail_setting_that_cannot_work_says_why(self, mail: str | None, says: str) -> None:
        delivery = channels(mail).deliver("mail:lan@example.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert says in (delivery.error or "")

    @pytest.mark.parametrize("header", ["Bcc", "cc", "Resent-Bcc", "To"])
    def test_no_header_of_an_url_sends_the_links_to_others_too(self, sink: Sink, header: str) -> None:
        mail = f"{relay(sink.port)}&%2B{header}=all@example.org"
        delivery = channels(mail).deliver("mail:lan@example.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert f"may not set the header {header}" in (delivery.error or "")
        assert sink.arrived == []

    def test_another_header_goes_with_the_mail(self, sink: Sink) -> None:
        mail = f"{relay(sink.port)}&%2BX-Team=platform"
        assert channels(mail).deliver("mail:lan@example.org", MESSAGE, message_id="m").ok
        assert sink.arrived[0]["X-Team"] == "platform"

    def test_a_private_mail_server_is_refused_unless_allowed(self, sink: Sink) -> None:
        delivery = channels(relay(sink.port), allowed=()).deliver("mail:lan@example.org", MESSAGE, message_id="m")
        assert not delivery.ok
        assert "CURFEW_ALLOW_TARGETS" in (delivery.error or "")
        assert sink.arrived == []


class TestWebhooks:
    def test_a_webhook_gets_subject_and_text(self, httpserver: HTTPServer) -> None:
        got: list[Any] = []

        def take(request: Request) -> Response:
            got.append(request.get_json())
            return Response("ok")

        httpserver.expect_request("/hook/abc-secret").respond_with_handler(take)
        url = f"json://127.0.0.1:{httpserver.port}/hook/${{HOOK}}"
        delivery = channels(secrets={"HOOK": "abc-secret"}).deliver(url, MESSAGE, message_id="m")

        assert delivery.ok, delivery.error
        assert got[0]["title"] == MESSAGE.subject
        assert got[0]["message"].strip() == MESSAGE.text.strip()
        assert got[0]["type"] == "warning"

    @pytest.mark.parametrize("option", ["", "?redirect=yes"])
    def test_a_redirect_is_not_followed_and_not_a_delivery(self, httpserver: HTTPServer, option: str) -> None:
        httpserver.expect_request("/inside").respond_with_data("ok")
        httpserver.expect_request("/hook").respond_with_data(
            "", status=307, headers={"Location": httpserver.url_for("/inside")}
        )
        delivery = channels().deliver(f"json://127.0.0.1:{httpserver.port}/hook{option}", MESSAGE, message_id="m")
        assert not delivery.ok
        assert [request.path for request, _ in httpserver.log] == ["/hook"]

    @pytest.mark.parametrize("option", ["", "?optional=yes", "?retry=5&wait=1"])
    def test_a_refusal_is_an_error_with_the_status_and_without_the_secret(
        self, httpserver: HTTPServer, option: str
    ) -> None:
        httpserver.expect_request("/hook/abc-secret").respond_with_data("go away abc-secret", status=403)
        url = f"json://127.0.0.1:{httpserver.port}/hook/${{HOOK}}{option}"
        delivery = channels(secrets={"HOOK": "abc-secret"}).deliver(url, MESSAGE, message_id="m")
        assert not delivery.ok
        assert delivery.error is not None
        assert "403" in delivery.error
        assert "abc-secret" not in delivery.error
        assert len(httpserver.log) == 1

    def test_a_token_written_into_the_document_is_no_part_of_an_error(self) -> None:
        url = f"jsons://user:hunter2hunter2@127.0.0.1:{free_port()}/hook?key=tokentoken"
        error = channels().deliver(url, MESSAGE, message_id="m").error or ""
        assert error
        assert "hunter2" not in error
        assert "tokentoken" not in error

    def test_a_private_target_is_refused_unless_allowed(self, httpserver: HTTPServer) -> None:
        url = f"json://127.0.0.1:{httpserver.port}/hook"
        delivery = channels(allowed=()).deliver(url, MESSAGE, message_id="m")
        assert not delivery.ok
        assert "CURFEW_ALLOW_TARGETS" in (delivery.error or "")
        assert httpserver.log == []

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("syslog://", "syslog:// is no channel"),
            ("ftp://example.org/x", "ftp:// is no channel"),
            ("not an url", "no:// is no channel"),
            ("workflows://example.org/a/b?template=/etc/passwd", "option template"),
            ("workflows://example.org/a/b?%74emplate=/etc/passwd", "option template"),
            ("slack://nonsense", "no complete slack:// URL"),
            ("slack://${NOT_SET}", "the secret ${NOT_SET} is not set"),
            ("demo://somebody", "only in the demo"),
        ],
    )
    def test_what_cannot_or_may_not_be_used_says_why(self, url: str, says: str) -> None:
        delivery = channels().deliver(url, MESSAGE, message_id="m")
        assert not delivery.ok
        assert says in (delivery.error or "")


class TestDemo:
    @pytest.mark.parametrize(
        ("mail", "channel"), [(None, "demo://vision-leads"), ("demo://{to}", "mail:lan@example.org")]
    )
    def test_the_demo_delivers_to_nobody_and_counts_it(self, mail: str | None, channel: str) -> None:
        assert channels(mail, demo_speed=60).deliver(channel, MESSAGE, message_id="m").ok


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("mail:lan@example.org", "mail"),
        ("mailtos://u:p@example.org", "mail"),
        ("slack://${SLACK}", "slack"),
        ("workflows://${TEAMS}", "msteams"),
        ("jsons://example.org/hook", "json"),
        ("demo://x", "demo"),
        ("${WHOLE_URL}", "other"),
        ("syslog://", "other"),
    ],
)
def test_a_channels_kind_is_one_of_few_words(channel: str, kind: str) -> None:
    assert channel_kind(channel) == kind
