"""Calls over HTTP, who asks, and everything that can go wrong with a call, in our words."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.transport.requests import AuthorizedSession

from providers.contract import Capabilities
from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.gcp import Config, client
from providers.gcp.client import Client, NotEnabled, NotThere, failure
from tests.providers.gcp.cloud import Cloud
from tests.providers.gcp.cloud_refusals import (
    NO_ANSWER,
    Refusal,
    Reply,
    already_exists,
    answer,
    bad_request,
    condition_not_met,
    forbidden,
    not_found,
    not_ready,
    rate_limited,
    service_disabled,
    unauthenticated,
    unavailable,
)

MACHINE = "projects/research/zones/us-central1-a/instances/trainer"
STOP = f"/compute/v1/{MACHINE}/stop"
POOL = "projects/research/locations/us-central1/clusters/ml/nodePools/gpu"
ONCE = {"requestId": "7f2e5a60-3b0c-5d1e-9a57-0d5a3f1c8e21"}
SECRET = "ya29.a-token-that-nobody-may-see"
ROBOT = "curfew@research.iam.gserviceaccount.com"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One request, as it came."""

    http: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class Wire:
    """Answers what it was told to, one after the other; the last answer for ever."""

    replies: list[Reply | Callable[[Heard], Reply]] = field(default_factory=lambda: [answer({})])
    heard: list[Heard] = field(default_factory=list)
    endpoint: str = ""

    def say(self, *replies: Reply | Callable[[Heard], Reply]) -> None:
        self.replies = [*replies]

    def reply(self, heard: Heard) -> Reply:
        self.heard.append(heard)
        said = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return said(heard) if callable(said) else said


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            heard = Heard(
                http=self.command,
                path=parts.path,
                query=parse_qs(parts.query),
                headers={key.lower(): value for key, value in self.headers.items()},
                body=body,
            )
            reply = wire.reply(heard)
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library calls them

        def log_message(self, *args: Any) -> None:
            """Nothing: what was asked is in `heard`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Whoever asked hung up."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    wire.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield wire
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def pauses() -> list[float]:
    """How long was waited before each further attempt; nothing is waited for."""
    return []


Made = Callable[..., Client]


@pytest.fixture
def made(wire: Wire, pauses: list[float]) -> Iterator[Made]:
    """Builds a client of the wire."""
    clients = []

    def build(**fields: Any) -> Client:
        config = Config.model_validate(
            {"projects": ["research"], "credentials": "anonymous", "endpoint": wire.endpoint, **fields}
        )
        clients.append(Client(config, sleep=pauses.append))
        return clients[-1]

    yield build
    for one in clients:
        one.close()


@pytest.fixture
def calls(made: Made) -> Client:
    return made()


def stop(calls: Client) -> Mapping[str, Any]:
    return calls.post("compute", STOP, query=ONCE)


def refused(calls: Client, wire: Wire, refusal: Refusal) -> ProviderError:
    wire.say(refusal.reply)
    with pytest.raises(ProviderError) as told:
        stop(calls)
    return told.value


class TestWhatIsAsked:
    def test_each_method_with_its_query_and_its_body(self, wire: Wire, calls: Client) -> None:
        calls.get("compute", f"/compute/v1/{MACHINE}", query={"fields": "id,name"})
        calls.post("container", f"/v1/{POOL}:setSize", {"nodeCount": 0})
        calls.put("compute", "/compute/v1/x", {"a": 1}, query=ONCE)
        calls.patch("compute", "/compute/v1/y", {"b": None}, query={"autoscaler": "trainers", **ONCE})
        calls.delete("compute", f"/compute/v1/{MACHINE}", query=ONCE)
        assert [(one.http, one.path, one.query, one.body) for one in wire.heard] == [
            ("GET", f"/compute/v1/{MACHINE}", {"fields": ["id,name"]}, b""),
            ("POST", f"/v1/{POOL}:setSize", {}, b'{"nodeCount":0}'),
            ("PUT", "/compute/v1/x", {"requestId": [ONCE["requestId"]]}, b'{"a":1}'),
            ("PATCH", "/compute/v1/y", {"autoscaler": ["trainers"], "requestId": [ONCE["requestId"]]}, b'{"b":null}'),
            ("DELETE", f"/compute/v1/{MACHINE}", {"requestId": [ONCE["requestId"]]}, b""),
        ]

    def test_a_list_is_followed_to_its_end(self, wire: Wire, calls: Client) -> None:
        wire.say(answer({"items": [1], "nextPageToken": "a"}), answer({"items": [2], "nextPageToken": "b"}), answer({}))
        pages = list(calls.pages("compute", "/compute/v1/list", query={"filter": "a = b"}))
        assert [page.get("items") for page in pages] == [[1], [2], None]
        assert [one.query for one in wire.heard] == [
            {"filter": ["a = b"]},
            {"filter": ["a = b"], "pageToken": ["a"]},
            {"filter": ["a = b"], "pageToken": ["b"]},
        ]

    @pytest.mark.parametrize("tokens", ["aaaaaaaa", "abababab", "abcdefgh"])
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_a_list_that_never_ends_is_no_list(
        self, wire: Wire, calls: Client, monkeypatch: pytest.MonkeyPatch, tokens: str, method: str
    ) -> None:
        monkeypatch.setattr(client, "MOST_PAGES", 5)
        wire.say(*(answer({"items": [1], "nextPageToken": token}) for token in tokens))
        with pytest.raises(Unreachable, match="the same page again and again"):
            list(calls.pages("compute", "/compute/v1/list", method=method))

    def test_pages_before_an_error_are_valid(self, wire: Wire, calls: Client) -> None:
        wire.say(answer({"items": [1], "nextPageToken": "a"}), forbidden("compute.instances.list", "x").reply)
        pages = calls.pages("compute", "/compute/v1/list")
        assert next(pages)["items"] == [1]
        with pytest.raises(Forbidden):
            next(pages)

    @pytest.mark.parametrize(
        ("endpoint", "asked"),
        [
            (None, "https://compute.googleapis.com"),
            ("https://{service}-corp.p.googleapis.com", "https://compute-corp.p.googleapis.com"),
            ("https://google.example.org/", "https://google.example.org"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ],
    )
    def test_where_an_api_is(
        self, made: Made, monkeypatch: pytest.MonkeyPatch, endpoint: str | None, asked: str
    ) -> None:
        urls = []

        def hung_up(_session: object, _method: str, url: str, **_rest: object) -> None:
            urls.append(url)
            raise requests.ConnectionError

        monkeypatch.setattr(AuthorizedSession, "request", hung_up)
        with pytest.raises(Unreachable):
            made(endpoint=endpoint).post("compute", STOP)
        assert urls == [asked + STOP]

    def test_nothing_is_read_or_asked_before_the_first_question(self, wire: Wire, made: Made) -> None:
        made(credentials="/nonexistent/key.json").close()
        assert wire.heard == []

    def test_several_threads_share_a_client(self, wire: Wire, calls: Client) -> None:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda _: stop(calls), range(40))) == [{}] * 40
        assert len(wire.heard) == 40


STRANGE_DISK = "projects/research/zones/us-central1-a/disks/data"
REFUSALS = {
    "a permission is missing": (forbidden("compute.instances.stop", MACHINE), Forbidden),
    "nobody is known by that token": (unauthenticated(), Misconfigured),
    "the API is off": (service_disabled("compute", "4711"), NotEnabled),
    "asked too often, as Compute Engine says it": (rate_limited("compute", "4711", status=403), Throttled),
    "asked too often, as all others say it": (rate_limited("tpu", "4711"), Throttled),
    "more machines than may be": (
        Refusal(403, "Quota 'NVIDIA_A100_GPUS' exceeded.  Limit: 8.0 in region x.", reason="quotaExceeded"),
        NoCapacity,
    ),
    "none left": (Refusal(503, "No room.", reason="ZONE_RESOURCE_POOL_EXHAUSTED"), NoCapacity),
    "it does not exist": (not_found(MACHINE), NotFound),
    "its project does not exist": (not_found("projects/research"), NotThere),
    "something else does not exist": (not_found(STRANGE_DISK), NotThere),
    "another operation runs": (not_ready(MACHINE), Conflict),
    "it exists already": (already_exists(MACHINE), Conflict),
    "it was changed meanwhile": (condition_not_met("Labels fingerprint invalid."), Conflict),
    "the cluster is busy": (
        Refusal(
            400,
            "Cluster is running incompatible operation operation-1.",
            reason="failedPrecondition",
            canonical="FAILED_PRECONDITION",
        ),
        Conflict,
    ),
    "it is protected": (
        bad_request("Invalid resource usage: 'Resource cannot be deleted if it's protected against deletion.'."),
        Protected,
    ),
    "it cannot be": (bad_request("Instances with guest accelerators do not support suspend."), Unsupported),
    "a word of tomorrow": (Refusal(400, "Because.", reason="aWordOfTomorrow"), Unsupported),
    "not played": (Refusal(501, "Not yet.", reason="notImplemented"), Unreachable),
    "it is out of order": (unavailable(), Unreachable),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_how_google_says_no(wire: Wire, calls: Client, case: str) -> None:
    refusal, expected = REFUSALS[case]
    told = refused(calls, wire, refusal)
    assert type(told) is expected
    assert f"Compute Engine, POST {STOP}" in told.sentence


@pytest.mark.parametrize(
    ("service", "path", "words"),
    [
        ("compute", STOP, f"The resource '{MACHINE}' was not found"),
        ("container", f"/v1/{POOL}:setSize", f"Not found: {POOL}."),
        (
            "container",
            f"/v1/{POOL}",
            "Not found: projects/research/locations/us-central1/clusters/ml.",
        ),
        (
            "notebooks",
            "/v2/projects/research/locations/us-central1-a/instances/book:stop",
            "Resource 'projects/research/locations/us-central1-a/instances/book' was not found",
        ),
    ],
)
def test_what_names_the_resource_speaks_of_it(wire: Wire, calls: Client, service: str, path: str, words: str) -> None:
    wire.say(Refusal(404, words, reason="notFound").reply)
    with pytest.raises(NotFound):
        calls.post(service, path, {})


@pytest.mark.parametrize(
    ("words", "details", "permission"),
    [
        (f"Required 'compute.instances.stop' permission for '{MACHINE}'", [], "compute.instances.stop"),
        ('Required "container.clusters.update" permission(s) for "projects/x".', [], "container.clusters.update"),
        ("Permission 'tpu.nodes.stop' denied on resource (or it may not exist).", [], "tpu.nodes.stop"),
        ("Permission monitoring denied.", [{"metadata": {"permission": "monitoring.x.list"}}], "monitoring.x.list"),
        ("The caller does not have permission", [], None),
    ],
)
def test_the_missing_permission_is_named(
    wire: Wire, calls: Client, words: str, details: list[dict[str, Any]], permission: str | None
) -> None:
    told = refused(calls, wire, Refusal(403, words, reason="forbidden", details=details))
    assert isinstance(told, Forbidden)
    assert told.permission == told.as_fault().permission == permission
    assert permission is None or told.sentence.endswith(f"it needs {permission}")


class TestWhatFailsLate:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            ({"errors": [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "No room."}]}, NoCapacity),
            ({"errors": [{"code": "STOCKOUT"}]}, NoCapacity),
            ({"errors": [{"code": "QUOTA_EXCEEDED", "message": "Quota 'GPUS' exceeded."}]}, NoCapacity),
            ({"errors": [{"code": "RESOURCE_NOT_READY", "message": "Not ready."}]}, Conflict),
            ({"errors": [{"code": "INTERNAL_ERROR", "message": "Internal error."}]}, Unreachable),
            ({"errors": [{"code": "UNSUPPORTED_OPERATION", "message": "Never."}]}, Unsupported),
            (
                {"errors": [{"code": "RESOURCE_NOT_FOUND", "message": f"The resource '{MACHINE}' was not found"}]},
                NotFound,
            ),
            (
                {"errors": [{"code": "RESOURCE_NOT_FOUND", "message": f"The resource '{STRANGE_DISK}' was not found"}]},
                Unsupported,
            ),
            ({"errors": [{"code": "PERMISSIONS_ERROR", "message": "Required 'a.b.c' permission for 'x'"}]}, Forbidden),
            ({"code": 8, "message": "There is no more capacity in the zone."}, NoCapacity),
            ({"code": 9, "message": "It is being deleted."}, Conflict),
            ({"code": 7, "message": "No."}, Forbidden),
            ({"code": 13, "message": "Internal error."}, Unreachable),
            ({"code": 3, "message": "Invalid."}, Unsupported),
        ],
    )
    def test_an_operation(self, error: Mapping[str, Any], expected: type[ProviderError]) -> None:
        told = failure("Stopping trainer", {"status": "DONE", "targetLink": f"https://x/{MACHINE}", "error": error})
        assert type(told) is expected
        assert told is not None
        assert told.sentence.startswith("Stopping trainer: ")

    @pytest.mark.parametrize("operation", [{}, {"status": "DONE"}, {"status": "RUNNING", "error": {"errors": []}}])
    def test_one_that_has_not_failed(self, operation: dict[str, Any]) -> None:
        assert failure("Stopping trainer", operation) is None


class TestPatience:
    def test_reading_tries_five_times_and_waits_longer_each_time(
        self, wire: Wire, calls: Client, pauses: list[float]
    ) -> None:
        wire.say(unavailable().reply)
        with pytest.raises(Unreachable):
            calls.get("compute", f"/compute/v1/{MACHINE}")
        assert len(wire.heard) == 5
        assert pauses == [0.5, 1, 2, 4]

    def test_a_stumble_is_not_a_failure(self, wire: Wire, calls: Client) -> None:
        wire.say(NO_ANSWER, unavailable().reply, rate_limited("compute", "4711", status=403).reply, answer({"a": 1}))
        assert calls.get("compute", f"/compute/v1/{MACHINE}") == {"a": 1}

    def test_acting_tries_twice_with_the_same_request_id(self, wire: Wire, calls: Client) -> None:
        wire.say(NO_ANSWER)
        with pytest.raises(Unreachable):
            stop(calls)
        assert [one.query for one in wire.heard] == [{"requestId": [ONCE["requestId"]]}] * 2

    def test_what_could_be_done_twice_is_tried_once(self, wire: Wire, calls: Client) -> None:
        wire.say(NO_ANSWER)
        with pytest.raises(Unreachable):
            calls.post("container", f"/v1/{POOL}:setSize", {"nodeCount": 0})
        assert len(wire.heard) == 1

    @pytest.mark.parametrize("status", [400, 403, 404, 409, 412])
    def test_a_no_is_taken_for_a_no(self, wire: Wire, calls: Client, status: int) -> None:
        told = refused(calls, wire, Refusal(status, "Because.", reason="because"))
        assert "Because" in told.sentence
        assert len(wire.heard) == 1

    def test_a_named_pause_is_kept(self, wire: Wire, calls: Client, pauses: list[float]) -> None:
        wire.say(rate_limited("compute", "4711", retry_after=7).reply, answer({}))
        calls.get("compute", f"/compute/v1/{MACHINE}")
        assert pauses == [7]

    def test_one_named_in_the_answer_too(self, wire: Wire, calls: Client, pauses: list[float]) -> None:
        wire.say(
            Refusal(503, "Later.", reason="backendError", details=[{"retryDelay": "3.5s"}]).reply,
            answer({}),
        )
        calls.get("compute", f"/compute/v1/{MACHINE}")
        assert pauses == [3.5]

    def test_a_pause_too_long_is_passed_on(self, wire: Wire, calls: Client, pauses: list[float]) -> None:
        wire.say(rate_limited("compute", "4711", retry_after=600).reply)
        with pytest.raises(Throttled) as told:
            calls.get("compute", f"/compute/v1/{MACHINE}")
        assert told.value.retry_after == 600
        assert pauses == []

    @pytest.mark.parametrize(("retry_after", "attempts"), [(8, 2), (10, 1)])
    def test_an_act_is_not_tried_again_too_late(
        self, wire: Wire, calls: Client, retry_after: int, attempts: int
    ) -> None:
        wire.say(rate_limited("compute", "4711", retry_after=retry_after).reply)
        with pytest.raises(Throttled) as told:
            stop(calls)
        assert told.value.retry_after == retry_after
        assert len(wire.heard) == attempts

    def test_an_act_that_was_answered_slowly_is_not_tried_again(self, wire: Wire) -> None:
        wire.say(unavailable().reply)
        hours = iter(range(0, 36_000, 3600))
        config = Config(projects=("research",), credentials="anonymous", endpoint=wire.endpoint)
        with pytest.raises(Unreachable):
            stop(Client(config, sleep=lambda _: None, monotonic=lambda: float(next(hours))))
        assert len(wire.heard) == 1

    def test_one_call_of_an_act_ends_in_time(self) -> None:
        longest = client.CONNECT_SECONDS + 3 * client.PROMPT_SILENCE_SECONDS  # headers, chunks, and the last silence
        assert client.PROMPT_LATEST_SECONDS + longest <= 50
        assert client.RENEWAL_SECONDS + longest <= 50 < Capabilities(verbs={}).act_timeout_seconds


PAGE = b"<!doctype html><title>Sign in to the network</title>"


class TestWhatIsNotGoogle:
    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(PAGE, id="a page"),
            pytest.param(b'{"items": [', id="half an answer"),
            pytest.param(b"[1, 2]", id="a list"),
            pytest.param(b"null", id="null"),
            pytest.param(b"\xa2\xff\x00", id="bytes"),
        ],
    )
    def test_is_no_answer(self, wire: Wire, calls: Client, body: bytes) -> None:
        wire.say(Reply(status=200, body=body))
        with pytest.raises(Unreachable):
            stop(calls)

    @pytest.mark.parametrize("status", [401, 403, 404])
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            PAGE,
            b"[]",
            b"{}",
            b'{"error": "no"}',
            b'{"error": {"message": "no", "details": 5}}',
            b'{"error": {"message": "no", "errors": true}}',
            b'{"error": {"errors": 7, "details": [{"metadata": "no", "retryDelay": 3}]}}',
        ],
    )
    def test_says_nothing_about_a_resource(self, wire: Wire, calls: Client, status: int, body: bytes) -> None:
        wire.say(Reply(status=status, body=body))
        with pytest.raises((NotThere, Misconfigured)):  # 401 without credentials: those are needed
            stop(calls)
        assert len(wire.heard) == 1

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_may_be_back_soon(self, wire: Wire, calls: Client, status: int) -> None:
        wire.say(Reply(status=status, body=PAGE))
        with pytest.raises(Unreachable, match=str(status)):
            stop(calls)

    def test_has_its_own_limits(self, wire: Wire, calls: Client) -> None:
        wire.say(Reply(status=429, body=PAGE, headers={"Retry-After": "30"}))
        with pytest.raises(Throttled) as told:
            stop(calls)
        assert told.value.retry_after == 30

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_does_not_lead_us_elsewhere(self, wire: Wire, calls: Client, status: int) -> None:
        wire.say(Reply(status=status, headers={"Location": f"{wire.endpoint}/elsewhere"}))
        with pytest.raises(Misconfigured, match="endpoint:"):
            stop(calls)
        assert len(wire.heard) == 1

    def test_an_answer_that_breaks_off(self, wire: Wire, calls: Client) -> None:
        wire.say(Reply(status=200, body=b"{}", headers={"Content-Length": "2000", "Connection": "close"}))
        with pytest.raises(Unreachable):
            stop(calls)

    def test_an_answer_without_end(self, wire: Wire, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("providers.answers.MOST_BYTES", 10)
        wire.say(answer({"items": ["x" * 100]}))
        with pytest.raises(Unreachable, match="more than"):
            stop(calls)

    def test_an_answer_that_drips(self, wire: Wire, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "ANSWER_SECONDS", -1)
        wire.say(answer({"items": [1]}))
        with pytest.raises(Unreachable, match="in full"):
            calls.get("compute", f"/compute/v1/{MACHINE}")

    def test_a_server_that_never_answers_is_given_up(self, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(client, "PROMPT_SILENCE_SECONDS", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            calls = made(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
            with pytest.raises(Unreachable, match="in time"):
                stop(calls)

    def test_nobody_listening(self, made: Made) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(Unreachable, match="no connection"):
                stop(made(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}"))

    def test_not_by_tls(self, wire: Wire, made: Made) -> None:
        with pytest.raises(Unreachable, match="TLS"):
            stop(made(endpoint=wire.endpoint.replace("http://", "https://")))


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def key(private_key: str, wire: Wire) -> dict[str, str]:
    """A service account's key; its tokens come from the wire."""
    return {
        "type": "service_account",
        "project_id": "research",
        "private_key_id": "k1",
        "private_key": private_key,
        "client_email": ROBOT,
        "client_id": "1",
        "token_uri": f"{wire.endpoint}/token",
    }


def serving_tokens(*then: Reply) -> Callable[[Heard], Reply]:
    """Hands out tokens, `SECRET` first, and answers everything else one after the other, then with nothing."""
    tokens, rest = iter([SECRET, *(f"token-{number}" for number in range(2, 9))]), iter(then)

    def reply(heard: Heard) -> Reply:
        if heard.path == "/token":
            return answer({"access_token": next(tokens), "expires_in": 3600, "token_type": "Bearer"})
        if heard.path.endswith(":generateAccessToken"):
            expires = datetime.now(UTC) + timedelta(hours=1)
            return answer({"accessToken": "lent", "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")})
        return next(rest, answer({}))

    return reply


class TestWhoAsks:
    def test_anonymous_says_nothing_about_itself(self, wire: Wire, calls: Client) -> None:
        stop(calls)
        assert "authorization" not in wire.heard[0].headers

    def test_a_key_file(self, wire: Wire, made: Made, key: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "key.json").write_text(json.dumps(key))
        wire.say(serving_tokens())
        calls = made(credentials=str(tmp_path / "key.json"))
        for _ in range(2):
            stop(calls)
        assert [(one.path, one.bearer) for one in wire.heard] == [("/token", ""), (STOP, SECRET), (STOP, SECRET)]

    def test_the_key_itself(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(serving_tokens())
        stop(made(credentials=f"\n  {json.dumps(key)}"))
        assert wire.heard[-1].bearer == SECRET

    def test_where_all_google_tools_find_them(
        self, wire: Wire, made: Made, key: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        wire.say(serving_tokens())
        stop(made(credentials="default"))
        assert wire.heard[-1].bearer == SECRET

    def test_another_account_is_impersonated(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(serving_tokens())
        other = "reader@billing.iam.gserviceaccount.com"
        stop(made(credentials=json.dumps(key), impersonate=other))
        lending = f"/v1/projects/-/serviceAccounts/{other}:generateAccessToken"
        assert [(one.path, one.bearer) for one in wire.heard] == [("/token", ""), (lending, SECRET), (STOP, "lent")]

    def test_a_token_that_is_no_longer_taken_is_renewed_once(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(serving_tokens(unauthenticated().reply, answer({"status": "RUNNING"})))
        assert stop(made(credentials=json.dumps(key))) == {"status": "RUNNING"}
        assert [one.bearer for one in wire.heard if one.path == STOP] == [SECRET, "token-2"]

    def test_no_token_is_taken(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(serving_tokens(*[unauthenticated().reply] * 9))
        with pytest.raises(Forbidden, match="does not know who asks"):
            stop(made(credentials=json.dumps(key)))

    def test_google_itself_is_never_asked_beside_an_endpoint(
        self, wire: Wire, made: Made, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        send = requests.Session.send

        def sent(session: Any, request: Any, **rest: Any) -> Any:
            asked.append(urlsplit(request.url).hostname)
            return send(session, request, **rest)

        monkeypatch.setattr(requests.Session, "send", sent)
        wire.say(serving_tokens())
        stop(made(credentials=json.dumps(key), impersonate=ROBOT))
        for thread in threading.enumerate():  # of google-auth: they ask which regions a token is for
            if thread.daemon and "AccessBoundary" in type(thread).__name__:
                thread.join()
        assert set(asked) == {"127.0.0.1"}


class TestCredentialsThatCannotBeUsed:
    def test_none_are_found(self, made: Made) -> None:
        with pytest.raises(Misconfigured, match="were not found"):
            stop(made(credentials="default"))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("no json, s3cret", "no JSON"),
            ('["s3cret"]', "no service account's key"),
            ('{"type": "authorized_user", "refresh_token": "s3cret"}', "no service account's key"),
            ('{"type": "service_account", "private_key": "s3cret"}', "not complete, or damaged"),
        ],
    )
    def test_a_file_that_is_no_key(self, made: Made, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "key.json").write_text(text)
        with pytest.raises(Misconfigured, match=words) as told:
            stop(made(credentials=str(tmp_path / "key.json")))
        assert "s3cret" not in told.value.sentence

    def test_a_file_that_is_not_there(self, made: Made) -> None:
        with pytest.raises(Misconfigured, match=r"/nonexistent/key\.json cannot be read: No such file"):
            stop(made(credentials="/nonexistent/key.json"))

    def test_a_key_written_out_is_not_told(self, made: Made) -> None:
        with pytest.raises(Misconfigured) as told:
            stop(made(credentials='{"type": "service_account", "private_key": "s3cret"'))
        assert "s3cret" not in told.value.sentence

    def test_a_key_whose_tokens_come_from_a_forbidden_host(self, wire: Wire, key: dict[str, str]) -> None:
        config = Config(projects=("research",), endpoint=wire.endpoint, credentials=json.dumps(key))
        with pytest.raises(Misconfigured, match=r"127\.0\.0\.1.*CURFEW_ALLOW_ENDPOINTS"):
            stop(Client(config, may_reach=lambda _host: False))
        assert wire.heard == []

    def test_a_key_that_was_withdrawn(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(answer({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}, status=400))
        with pytest.raises(Misconfigured, match="invalid_grant Invalid JWT Signature"):
            stop(made(credentials=json.dumps(key)))

    def test_no_token_just_now(
        self, wire: Wire, made: Made, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
        wire.say(answer({"error": "internal_failure"}, status=500))
        with pytest.raises(Unreachable):
            stop(made(credentials=json.dumps(key)))

    @pytest.mark.parametrize("status", [200, 400, 403, 404])
    def test_a_page_that_echoes_what_it_was_asked(
        self, wire: Wire, made: Made, key: dict[str, str], status: int
    ) -> None:
        echoed = []

        def echo(heard: Heard) -> Reply:
            echoed.append(heard.body.decode())
            return Reply(status=status, body=b"<p>You said " + heard.body)

        wire.say(echo)
        with pytest.raises(ProviderError) as told:
            stop(made(credentials=json.dumps(key)))
        assert echoed
        assert not any(word in told.value.sentence for word in ("assertion", *echoed))

    def test_a_redirect_takes_no_key_along(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        wire.say(Reply(status=307, headers={"Location": f"{wire.endpoint}/elsewhere"}))
        with pytest.raises(ProviderError):
            stop(made(credentials=json.dumps(key)))
        assert {one.path for one in wire.heard} == {"/token"}

    def test_a_token_endpoint_that_never_answers(
        self, made: Made, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client, "RENEWAL_SECONDS", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
            with pytest.raises(Unreachable):
                stop(made(credentials=json.dumps({**key, "token_uri": uri})))

    @pytest.mark.parametrize(
        ("refusal", "expected"),
        [
            (
                Refusal(
                    403,
                    "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).",
                    reason="forbidden",
                ),
                Forbidden,
            ),
            (Refusal(404, "Unknown service account", reason="notFound"), Misconfigured),
            (unavailable(), Unreachable),
        ],
    )
    def test_an_account_that_may_not_be_impersonated(
        self, wire: Wire, made: Made, key: dict[str, str], refusal: Refusal, expected: type[ProviderError]
    ) -> None:
        tokens = serving_tokens()
        wire.say(lambda heard: refusal.reply if heard.path.endswith(":generateAccessToken") else tokens(heard))
        with pytest.raises(expected) as told:
            stop(made(credentials=json.dumps(key), impersonate=ROBOT))
        if expected is Forbidden:
            assert told.value.permission == "iam.serviceAccounts.getAccessToken"
        assert SECRET not in told.value.sentence

    def test_no_token_is_ever_told(self, wire: Wire, made: Made, key: dict[str, str]) -> None:
        for refusal in (unauthenticated(), unavailable(), forbidden("a.b.c", MACHINE)):
            wire.say(serving_tokens(*[refusal.reply] * 9))
            with pytest.raises(ProviderError) as told:
                stop(made(credentials=json.dumps(key)))
            assert SECRET not in told.value.sentence
            assert "PRIVATE KEY" not in told.value.sentence


class TestSignaturesHold:
    """The stand-in checks what google-auth signs, as Google does."""

    def asked(self, cloud: Cloud, **fields: Any) -> Mapping[str, Any]:
        config = Config.model_validate({"projects": ["research"], "endpoint": cloud.endpoint, **fields})
        calls = Client(config, sleep=lambda _: None)
        try:
            return calls.get("compute", f"/compute/v1/{cloud.compute.machine()}", query={"fields": "name"}, prompt=True)
        finally:
            calls.close()

    def test_of_a_key_file(self, cloud: Cloud, tmp_path: Path) -> None:
        assert self.asked(cloud, credentials=str(cloud.accounts.key_file(tmp_path, ROBOT))) == {"name": "trainer"}
        assert cloud.calls[-1].caller == ROBOT

    def test_of_one_who_impersonates_another(self, cloud: Cloud, tmp_path: Path) -> None:
        other = "reader@billing.iam.gserviceaccount.com"
        cloud.accounts.allow_impersonation(other, by=ROBOT)
        self.asked(cloud, credentials=str(cloud.accounts.key_file(tmp_path, ROBOT)), impersonate=other)
        assert cloud.calls[-1].caller == other

    def test_of_one_who_may_not(self, cloud: Cloud, tmp_path: Path) -> None:
        key_file = str(cloud.accounts.key_file(tmp_path, ROBOT))
        with pytest.raises(Forbidden) as told:
            self.asked(cloud, credentials=key_file, impersonate="reader@billing.iam.gserviceaccount.com")
        assert told.value.permission == "iam.serviceAccounts.getAccessToken"

    def test_of_nobody(self, cloud: Cloud, tmp_path: Path) -> None:
        cloud.accounts.key_file(tmp_path, ROBOT)
        with pytest.raises(Misconfigured, match="anonymous is for stand-ins only"):
            self.asked(cloud, credentials="anonymous")

    def test_of_a_key_that_was_withdrawn(self, cloud: Cloud, tmp_path: Path) -> None:
        key_file = cloud.accounts.key_file(tmp_path, ROBOT)
        cloud.accounts.keys[ROBOT] = "another key"
        with pytest.raises(Misconfigured, match="invalid_grant"):
            self.asked(cloud, credentials=str(key_file))
