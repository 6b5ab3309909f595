"""What can go wrong between us and the server, in our words; and what must never leave with a question."""

from __future__ import annotations

import json
import socket
import ssl
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from providers import errors
from providers.errors import ProviderError
from providers.records import TelemetryAnswer
from tests.providers.prometheus.builders import ask, every, machine, telemetry
from tests.providers.prometheus.conftest import Fronted
from tests.providers.prometheus.front import NO_ANSWER, Call, Front, Reply, answer, refusal

DAY = timedelta(days=1)
HTML = {"Content-Type": "text/html"}
HERE, THERE = machine("i-1"), machine("i-2", region="eu-west-1")
HOSTS = answer([{"metric": {"instance_id": record.ref.external_id}} for record in (HERE, THERE)])
LEAST = {"__name__": "DCGM_FI_DEV_GPU_UTIL", "UUID": "GPU-1", "instance_id": "i-1"}

FAILURES: dict[str, tuple[Reply, type[ProviderError], str]] = {
    "no answer": (NO_ANSWER, errors.Unreachable, "gave no answer"),
    "too many requests": (refusal(429, "slow down", **{"Retry-After": "7"}), errors.Throttled, "slow down"),
    "no login": (refusal(401, "no org id"), errors.Forbidden, "wants a login"),
    "not this login": (refusal(403, "tenant vision may not"), errors.Forbidden, "tenant vision may not"),
    "no API here": (Reply(status=404, body=b"<html>nginx", headers=HTML), errors.Misconfigured, "path"),
    "another method is wanted": (refusal(405, "GET only"), errors.Misconfigured, "405"),
    "a question it does not understand": (refusal(400, "parse error"), errors.Misconfigured, "parse error"),
    "a query that fails": (refusal(422, "remote read failed"), errors.Unreachable, "remote read failed"),
    "a time-out of its own": (refusal(503, "query timed out"), errors.Unreachable, "timed out"),
    "a broken proxy": (Reply(status=502, body=b"<html>Bad Gateway", headers=HTML), errors.Unreachable, "502"),
    "sent elsewhere": (Reply(status=302, headers={"Location": "http://x/"}), errors.Misconfigured, "do not follow"),
    "a page in place of an answer": (Reply(status=200, body=b"<html>", headers=HTML), errors.Misconfigured, "like a"),
    "half an answer": (Reply(status=200, body=b'{"status":"success","da'), errors.Unreachable, "breaks off"),
    "another JSON": (Reply(status=200, body=b'{"hello":"world"}'), errors.Misconfigured, "does not answer like a"),
    "a list": (Reply(status=200, body=b"[]"), errors.Misconfigured, "does not answer like a"),
    "null": (Reply(status=200, body=b"null"), errors.Misconfigured, "does not answer like a"),
    "series in no known form": (answer([{"values": 3}]), errors.Unreachable, "cannot be read"),
    "values that are none": (answer([{"metric": {}, "values": [[1, "x"]]}]), errors.Unreachable, "cannot be read"),
    "times that are none": (
        Reply(status=200, body=answer([{"metric": {}, "values": [[7777, "1"]]}]).body.replace(b"7777", b"NaN")),
        errors.Unreachable,
        "cannot be read",
    ),
    "Thanos without one of its stores": (
        answer([], warnings=["No StoreAPIs matched for store-eu"]),
        errors.Unreachable,
        "in part only: No StoreAPIs matched",
    ),
    "VictoriaMetrics without one of its nodes": (answer([], isPartial=True), errors.Unreachable, "in part only"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_server_that_fails_at_once_is_told_in_our_words(scripted: Front, failure: str) -> None:
    reply, kind, words = FAILURES[failure]
    scripted.rules.append(lambda call: reply)
    with pytest.raises(kind) as told:
        ask(telemetry(scripted.url), [HERE])
    assert words in told.value.sentence
    assert scripted.url in told.value.sentence
    assert told.value.retry is kind.retry
    assert told.value.retry_after == (7 if kind is errors.Throttled else None)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_shard_that_fails_is_a_fault_and_sinks_no_other(scripted: Front, failure: str) -> None:
    reply, kind, words = FAILURES[failure]

    def rule(call: Call) -> Reply:
        if call.finds_hosts:
            return HOSTS
        return reply if "i-2" in call.query else answer([{"metric": LEAST, "values": [[every(60, 0)[0][0], "7"]]}])

    scripted.rules.append(rule)
    given = ask(telemetry(scripted.url), [HERE, THERE])
    assert [(one.ref, one.values) for one in given.series] == [(HERE.ref, pytest.approx((0.07,)))]
    (fault,) = given.faults
    assert (fault.part, fault.complete) == ("aws eu-west-1", False)
    assert fault.fault is not None
    assert fault.fault.code == kind.code
    assert words in fault.fault.sentence


@pytest.mark.parametrize("answered", [True, False])
def test_a_machine_of_which_a_part_is_missing_is_not_told_of_at_all(scripted: Front, answered: bool) -> None:
    """Two exporters, found by two labels. The one that was not answered could have seen the work."""
    seen = answer([{"metric": LEAST, "values": [[every(60, 0)[0][0], "7"]]}])

    def rule(call: Call) -> Reply:
        if call.finds_hosts:
            return answer([{"metric": {"instance_id": "i-1"}}, {"metric": {"Hostname": "i-1"}}])
        if "Hostname=" in call.query:
            return answer([]) if answered else NO_ANSWER
        return seen

    scripted.rules.append(rule)
    given = ask(telemetry(scripted.url), [HERE])
    assert len(given.series) == (1 if answered else 0)
    assert [fault.part for fault in given.faults] == ([] if answered else ["aws us-east-1"])


def test_histograms_and_strange_series_are_passed_over(scripted: Front) -> None:
    first = every(60, 0)[0][0]
    strange = [
        {"metric": LEAST, "histograms": [[first, {"count": "3"}]]},
        {"metric": LEAST | {"__name__": "something_else"}, "values": [[first, "9"]]},
        {"metric": {"__name__": "DCGM_FI_DEV_GPU_UTIL", "instance_id": "i-9"}, "values": [[first, "9"]]},
        {"metric": LEAST, "values": [[first - 1, "9"], [first + 0.25, "7"], [first + 3600, "9"]]},
    ]
    scripted.rules.append(lambda call: HOSTS if call.finds_hosts else answer(strange))
    given = ask(telemetry(scripted.url), [HERE])
    assert [(one.times, one.values) for one in given.series] == [((first,), pytest.approx((0.07,)))]


def test_where_nobody_listens_nothing_is_known() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(errors.Unreachable, match="gave no answer"):
            ask(telemetry(url), [HERE])


def test_a_server_that_never_ends_its_answer_is_left(scripted: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 10_000, 20))
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("providers.prometheus.client.time", clock)
    scripted.rules.append(lambda call: Reply(status=200, body=b" " * 3_000_000))
    with pytest.raises(errors.Unreachable, match="in time"):
        ask(telemetry(scripted.url), [HERE])


def test_a_redirect_is_not_followed(scripted: Front) -> None:
    """The address was checked against what may be reached; where it leads was not."""
    scripted.rules.append(
        lambda call: Reply(status=307, headers={"Location": f"{scripted.url}/secret"}) if "v1" in call.path else None
    )
    with pytest.raises(errors.Misconfigured):
        ask(telemetry(scripted.url, bearer_token="s3cret"), [HERE])
    assert [call.path for call in scripted.calls] == ["/api/v1/query"]


LOGINS = {
    "a token": ({"bearer_token": "s3cret"}, {"Authorization": "Bearer s3cret"}),
    "a password": (
        {"username": "curfew", "password": "s3cret"},
        {"Authorization": f"Basic {b64encode(b'curfew:s3cret').decode()}"},
    ),
    "a tenant": ({"tenant": "vision|research"}, {"X-Scope-OrgID": "vision|research"}),
}


@pytest.mark.parametrize("login", LOGINS)
def test_a_login_goes_with_every_question_and_into_no_message(scripted: Front, login: str) -> None:
    fields, headers = LOGINS[login]
    scripted.rules.append(lambda call: HOSTS if call.finds_hosts else refusal(403, "no"))
    given = ask(telemetry(scripted.url, **fields), [HERE])
    assert len(scripted.calls) == 2
    for call in scripted.calls:
        assert headers.items() <= {"Authorization": "", **call.headers}.items()
    assert "s3cret" not in repr(given)


def test_without_a_login_none_is_sent(scripted: Front) -> None:
    scripted.rules.append(lambda call: answer([]))
    ask(telemetry(scripted.url), [HERE])
    (call,) = scripted.calls
    assert "Authorization" not in call.headers
    assert "X-Scope-OrgID" not in call.headers


def test_a_path_in_front_of_the_api_is_kept(scripted: Front) -> None:
    scripted.rules.append(lambda call: answer([]))
    for path in ("/prometheus", "/prometheus/", "/prometheus/api/v1", "/prometheus/api/v1/"):
        ask(telemetry(scripted.url + path), [HERE])
    assert {call.path for call in scripted.calls} == {"/prometheus/api/v1/query"}


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.Misconfigured, match=r"ca_file: .*ca\.pem"):
        telemetry("https://metrics.example", ca_file=str(tmp_path / "ca.pem"))
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(errors.Misconfigured, match=r"ca_file: .*ca\.pem"):
        telemetry("https://metrics.example", ca_file=str(tmp_path / "ca.pem"))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by nobody but itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "metrics")])
    moment = datetime.now(UTC)
    written = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), moment - DAY, moment + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "metrics.pem"
    path.write_bytes(key.private_bytes(*form) + written.public_bytes(serialization.Encoding.PEM))
    return path


def test_only_a_trusted_server_is_asked(certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    with Front(lambda: "", tls=tls).serving() as front:
        front.rules.append(lambda call: answer([]))
        with pytest.raises(errors.Misconfigured, match="ca_file"):
            ask(telemetry(front.url), [HERE])
        assert front.calls == []
        assert ask(telemetry(front.url, ca_file=str(certificate)), [HERE]) == TelemetryAnswer(series=())
        assert len(front.calls) == 1


def test_a_long_reason_is_cut(scripted: Front) -> None:
    scripted.rules.append(lambda call: refusal(503, "because " * 1000))
    with pytest.raises(errors.Unreachable) as told:
        ask(telemetry(scripted.url), [HERE])
    assert len(told.value.sentence) < 500


def test_asking_for_nothing_asks_nothing(scripted: Front) -> None:
    source = telemetry(scripted.url)
    assert ask(source, []) == TelemetryAnswer(series=())
    assert scripted.calls == []


def test_samples_are_those_from_the_start_up_to_the_end(fronted: Fronted) -> None:
    """Half open, though range selectors take in one end or both."""
    samples = every(60, 10)
    before, after = (samples[0][0] - 60, 90.0), (samples[-1][0] + 60, 90.0)
    series = 'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",Hostname="i-1"}'
    front = fronted({series: [before, *samples, after]})
    (one,) = ask(telemetry(front.url), [HERE]).series
    assert one.times == tuple(second for second, _ in samples)
    for call in front.calls:
        assert json.loads(call.fields["time"]) == after[0] - 0.001
        assert "[3600000ms]" in call.query
