"""The process: over TLS, with a certificate that changes; it takes over new snapshots, and lets everything in without
one that is fit.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from policies.policy import Mode
from service.admission.latest import OLDEST, Latest
from service.admission.server import LARGEST_REVIEW, Certificate
from service.client import Failure
from tests.admission.builders import NOW, SOURCE, cluster, pod, policy, request, snapshot
from tests.admission.process import TOKEN, Process, certificate, logged, now, running, running_service
from tests.waiting import soon


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_it_reviews_counts_and_takes_over_what_is_new(folder: Path) -> None:
    with running_service() as service, running(service, folder) as process:
        an_answer_without_a_snapshot(process)

        spot, budget = policy("spot"), policy("budget")
        service.snapshot = snapshot(spot, budget, at=now())
        soon(process.ready, "the snapshot is taken over")
        what_it_says(process)
        what_is_no_review_is_refused(process)
        what_it_counts(process)
        what_it_logs(process)

        service.snapshot = snapshot(policy("budget", mode=Mode.OBSERVE), at=now())
        soon(lambda: process.review("/validate", request())["allowed"], "the policy only observes now")
        soon(lambda: service.asked[-1].get("If-None-Match"), "it asks only for what is new")
        assert all(headers["Authorization"] == f"Bearer {TOKEN}" for headers in service.asked)
    assert process.popen.returncode == 0


def an_answer_without_a_snapshot(process: Process) -> None:
    assert process.review("/validate", request())["allowed"] is True
    with process.client() as client:
        assert client.get("/healthz").status_code == 200
        why = "every pod is let in: a snapshot tells what the last cycle saw"
        soon(lambda: why in client.get("/readyz").json()["open"], "it says why")
        assert client.get("/readyz").status_code == 503
    counts = process.counts()
    assert counts["curfew_admission_open"] == 1
    assert counts['curfew_admission_reviews_total{verdict="unjudged",policy="",mode=""}'] == 1


def what_it_says(process: Process) -> None:
    for dry_run in (False, True):
        refused = process.review("/validate", request(dryRun=dry_run))
        assert refused["allowed"] is False
        assert refused["status"]["code"] == 403
        assert "the money of project vision is spent" in refused["status"]["message"]

        placed = process.review("/mutate", request(dryRun=dry_run))
        assert (placed["allowed"], placed["patchType"]) == (True, "JSONPatch")
        patch = json.loads(base64.b64decode(placed["patch"]))
        assert patch[0] == {
            "op": "add",
            "path": "/spec/nodeSelector",
            "value": {"eks.amazonaws.com/capacityType": "SPOT"},
        }
    warned = process.review("/validate", request(pod(labels={"project": "speech"})))
    assert warned["allowed"] is True
    assert len(warned["warnings"]) == 1
    assert process.review("/validate", request(namespace="nobodys")) == {"uid": request()["uid"], "allowed": True}


def what_is_no_review_is_refused(process: Process) -> None:
    bodies: list[bytes] = [b"", b"{", b"[]", b"{}", b"[" * 100_000, b'{"apiVersion": "admission.k8s.io/v1"}']
    with process.client() as client:
        for body in [*bodies, b" " * (LARGEST_REVIEW + 1)]:
            assert client.post("/validate", content=body).status_code == 400
        assert client.get("/validate").status_code == 405


def what_it_counts(process: Process) -> None:
    """Dry runs are answered, not counted."""
    counts = process.counts()
    reviews = {name: count for name, count in counts.items() if name.startswith("curfew_admission_reviews_total")}
    assert reviews == {
        'curfew_admission_reviews_total{verdict="allowed",policy="",mode=""}': 2,
        'curfew_admission_reviews_total{verdict="mutated",policy="the-spot",mode="enforce"}': 1,
        'curfew_admission_reviews_total{verdict="refused",policy="the-budget",mode="enforce"}': 1,
        'curfew_admission_reviews_total{verdict="unjudged",policy="",mode=""}': 1,
    }
    assert counts["curfew_admission_review_duration_seconds_count"] == 7
    assert counts["curfew_admission_open"] == 0
    with process.client() as client:
        assert len(list(text_string_to_metric_families(client.get("/metrics").text))) == 4


def what_it_logs(process: Process) -> None:
    """Once a minute for each policy, project and outcome."""
    process.review("/validate", request())
    lines = [line for line in logged(process) if line["event"] == "a new pod was refused"]
    assert [(line["policy"], line["project"]) for line in lines] == [("the-budget", "vision")]


def test_a_certificate_that_changes_is_taken_over(folder: Path) -> None:
    with running_service(snapshot(at=now())) as service, running(service, folder) as process:
        before = presented(process)
        certificate(folder)
        soon(lambda: presented(process) != before, "new connections meet the new certificate")
        assert process.ready()


def presented(process: Process) -> str:
    host, port = process.url.removeprefix("https://").split(":")
    return ssl.get_server_certificate((host, int(port)), timeout=30)


def test_a_certificate_without_its_key_yet_is_not_taken_over(folder: Path) -> None:
    cert, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    held = Certificate(cert, key)
    held.given_to(context)
    good = key.read_bytes()
    certificate(folder, "new")
    new_key = key.read_bytes()

    key.write_bytes(good)
    held.renew()
    assert met(context) == "curfew"

    key.write_bytes(new_key)
    held.renew()
    assert met(context) == "new"


def test_nobody_is_turned_away_while_a_certificate_changes(folder: Path) -> None:
    cert, key = certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    held = Certificate(cert, key)
    held.given_to(context)
    ended = threading.Event()

    def renewing() -> None:
        for turn in range(60):
            certificate(folder, f"new-{turn % 2}")
            held.renew()
        ended.set()

    thread = threading.Thread(target=renewing)
    thread.start()
    names = set()
    while not ended.is_set():
        names.add(met(context))
    thread.join()
    assert names >= {"new-0", "new-1"}


def met(context: ssl.SSLContext) -> str:
    """The name in the certificate that whoever connects is met with."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    incoming = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [
        context.wrap_bio(incoming[0], incoming[1], server_side=True),
        client.wrap_bio(incoming[1], incoming[0]),
    ]
    for _ in range(10):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    found = x509.load_der_x509_certificate(ends[1].getpeercert(binary_form=True) or b"")
    name: Any = found.subject.rfc4514_string()
    return str(name).removeprefix("CN=")


def test_a_port_that_is_taken_is_said(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, running_service() as service:
        port = taken.getsockname()[1]
        with pytest.raises(AssertionError) as said, running(service, folder, port=port):
            pass
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in str(said.value)


# --- which snapshot, and how old -------------------------------------------------------------------------------------


class Told:
    """A client that is told what to answer."""

    def __init__(self) -> None:
        self.answers: list[Any] = []

    def unless(self, path: str, etag: str | None) -> tuple[str, bytes] | None:
        assert path == "/admission/snapshot"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else ("etag", answer.model_dump_json(by_alias=True).encode())


def latest(*answers: Any, source: str | None = None, at: datetime = NOW) -> Latest:
    told = Told()
    told.answers = list(answers)
    found = Latest(told, source, lambda: at)  # type: ignore[arg-type]
    for _ in answers:
        found.refresh()
    return found


def test_a_snapshot_is_good_for_a_quarter_of_an_hour() -> None:
    assert latest(snapshot(), at=NOW + OLDEST).judge() is not None
    old = latest(snapshot(), at=NOW + OLDEST + timedelta(seconds=1))
    assert old.judge() is None
    assert old.trouble == "the last snapshot is of 2026-11-23T15:00:00+00:00, more than 0:15:00 ago"


def test_a_service_that_fails_takes_nothing_away() -> None:
    found = latest(snapshot(), Failure("Curfew did not answer in time"))
    assert found.judge() is not None
    assert found.trouble is None


def test_an_older_look_of_another_replica_is_no_news() -> None:
    found = latest(snapshot(), snapshot(at=NOW - timedelta(minutes=5)))
    assert found.at == NOW


TWO = {SOURCE: cluster(), "serving": cluster(identity="2")}
WHICH: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no cluster has answered": ({"clusters": {}}, None, "no Kubernetes source has answered yet"),
    "there are two": ({"clusters": TWO}, None, "which cluster is this? --source names one of ['serving', 'training']"),
    "another name": (
        {},
        "trainig",
        "there is no Kubernetes source 'trainig' that has answered; there are ['training']",
    ),
}


@pytest.mark.parametrize("when", WHICH)
def test_which_cluster_it_is_must_be_clear(when: str) -> None:
    more, source, sentence = WHICH[when]
    found = latest(snapshot(**more), source=source)
    assert found.judge() is None
    assert found.trouble == sentence


def test_of_two_clusters_one_is_named() -> None:
    judge = latest(snapshot(clusters=TWO), source="serving").judge()
    assert judge is not None
    assert judge.source == "serving"


def test_a_snapshot_of_another_version_is_not_judged_on() -> None:
    class Newer:
        def model_dump_json(self, **_: Any) -> str:
            return json.dumps({**json.loads(snapshot().model_dump_json(by_alias=True)), "new": 1})

    found = latest(Newer())
    assert found.judge() is None
    assert "is the service of another version? new: Extra inputs are not permitted" in str(found.trouble)
