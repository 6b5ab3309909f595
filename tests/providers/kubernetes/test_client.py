"""How an API server is asked: who asks and where, what its refusals mean, and that nothing secret is told."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from urllib3.exceptions import SSLError

from providers import errors
from providers.errors import ProviderError
from providers.kubernetes import Config
from providers.kubernetes import client as module
from providers.kubernetes.client import Client, Gone, NotServed
from tests.kubernetes.cluster import Cluster
from tests.providers.kubernetes.front import NO_ANSWER, TOKEN, Call, Front, Reply, answer, kubeconfig, refused

ClientOf = Callable[[Front], Client]

FORBIDDEN = (
    'rayclusters.ray.io is forbidden: User "system:serviceaccount:curfew:observe" cannot list resource "rayclusters" '
    'in API group "ray.io" at the cluster scope'
)
SCALE_FORBIDDEN = (
    'deployments.apps "web" is forbidden: User "observe" cannot patch resource "deployments/scale" in API group "apps" '
    'in the namespace "vision"'
)

REFUSALS = {
    "who asks is not known": (refused(401, "Unauthorized", "Unauthorized"), errors.Forbidden),
    "a permission is missing": (refused(403, "Forbidden", FORBIDDEN), errors.Forbidden),
    "the object is not there": (
        refused(404, "NotFound", 'jobs.batch "train" not found', details={"name": "train", "kind": "jobs"}),
        errors.NotFound,
    ),
    "the kind is not there": (Reply(status=404, body=b"404 page not found\n"), NotServed),
    "a stranger's page is not there": (
        refused(404, "NotFound", "the server could not find the requested resource", details={}),
        errors.Unreachable,
    ),
    "it was changed meanwhile": (refused(409, "Conflict", "the object has been modified"), errors.Conflict),
    "the version is too old": (refused(410, "Expired", "too old resource version: 1 (2)"), Gone),
    "it is not valid": (refused(422, "Invalid", "spec.suspend: Invalid value"), errors.Unsupported),
    "a budget is against an eviction": (
        refused(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": "needs 1 healthy pods and has 1"}]},
        ),
        errors.Protected,
    ),
    "it is asked too often": (refused(429, "TooManyRequests", "too many requests"), errors.Throttled),
    "it failed": (refused(500, "InternalError", "etcdserver: leader changed"), errors.Unreachable),
    "it is not there for now": (Reply(status=503, body=b"<html>upstream</html>"), errors.Unreachable),
    "it sends us elsewhere": (Reply(status=307, headers={"Location": "http://169.254.169.254/"}), errors.Misconfigured),
    "it hangs up": (NO_ANSWER, errors.Unreachable),
    "it answers with something else": (Reply(status=200, body=b"<html>log in</html>"), errors.Unreachable),
    "it answers with a list": (Reply(status=200, body=b"[]"), errors.Misconfigured),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_told_in_our_words(front: Front, client_of: ClientOf, case: str) -> None:
    reply, expected = REFUSALS[case]
    front.rules.append(lambda call: reply)

    with pytest.raises(expected) as told:
        client_of(front).get("/apis/batch/v1/namespaces/vision/jobs/train")

    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_watch_is_told_in_the_same_words(front: Front, client_of: ClientOf, case: str) -> None:
    reply, expected = REFUSALS[case]
    if reply.status == 200:
        expected = errors.Unreachable
    front.rules.append(lambda call: reply)

    def watched() -> None:
        for _ in client_of(front).watch("/api/v1/pods", query={"resourceVersion": "1"}):
            pass
        raise errors.Unreachable("it ended")  # an empty stream is an end

    with pytest.raises(expected):
        watched()


@pytest.mark.parametrize(
    ("message", "permission"),
    [
        (FORBIDDEN, "list rayclusters.ray.io"),
        (SCALE_FORBIDDEN, "patch deployments.apps/scale"),
        (
            'nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope',
            "list nodes",
        ),
        ('admission webhook "policy.example.org" denied the request: no', None),
    ],
)
def test_the_missing_permission_is_named(
    front: Front, client_of: ClientOf, message: str, permission: str | None
) -> None:
    front.rules.append(lambda call: refused(403, "Forbidden", message))

    with pytest.raises(errors.Forbidden) as told:
        client_of(front).get("/api/v1/nodes")

    assert told.value.permission == permission
    assert message.split(":")[0] in told.value.sentence


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [
        (answer({"kind": "Status"}, status=429, Retry_After="7"), 7.0),
        (refused(429, "TooManyRequests", "slow down", details={"retryAfterSeconds": 10}), 10.0),
        (Reply(status=429), None),
        (Reply(status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
    ],
)
def test_it_says_when_to_come_back(front: Front, client_of: ClientOf, reply: Reply, seconds: float | None) -> None:
    front.rules.append(lambda call: reply)

    with pytest.raises(errors.Throttled) as told:
        client_of(front).get("/api/v1/nodes")

    assert told.value.retry_after == seconds


def test_a_list_is_read_page_by_page(front: Front, client_of: ClientOf) -> None:
    def page(call: Call) -> Reply:
        number = int(call.query.get("continue", "0"))
        following = str(number + 1) if number < 2 else ""
        return answer({"metadata": {"resourceVersion": "9", "continue": following}, "items": [{"page": number}]})

    front.rules.append(page)

    pages = list(client_of(front).pages("/api/v1/pods", query={"labelSelector": "a=b"}))

    assert [item["page"] for one in pages for item in one["items"]] == [0, 1, 2]
    assert all(call.query["limit"] == "500" and call.query["labelSelector"] == "a=b" for call in front.calls)


def test_a_list_of_nothing_is_empty(front: Front, client_of: ClientOf) -> None:
    front.rules.append(lambda call: answer({"metadata": {"resourceVersion": "9"}, "items": None}))

    assert [page["items"] for page in client_of(front).pages("/apis/apps/v1/replicasets")] == [[]]


def test_a_connection_that_was_closed_meanwhile_is_opened_again_to_read(front: Front, client_of: ClientOf) -> None:
    times = iter([NO_ANSWER])
    front.rules.append(lambda call: next(times, answer({"kind": "NodeList"})))

    assert client_of(front).get("/api/v1/nodes") == {"kind": "NodeList"}


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_change_is_never_sent_twice(front: Front, client_of: ClientOf, method: str) -> None:
    front.rules.append(lambda call: NO_ANSWER)

    with pytest.raises(errors.Unreachable):
        getattr(client_of(front), method)("/api/v1/namespaces/vision/pods/one", {"kind": "Pod"})

    assert len(front.calls) == 1


def test_an_answer_that_does_not_come_is_not_waited_for(
    front: Front, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.05)

    def silent(call: Call) -> Reply:
        release.wait(10)
        return NO_ANSWER

    front.rules.append(silent)
    try:
        with pytest.raises(errors.Unreachable, match="in time"):
            client_of(front).get("/api/v1/nodes")
    finally:
        release.set()


def test_an_answer_that_trickles_is_not_waited_for_for_ever(front: Front, tmp_path: Path) -> None:
    now = [0.0]

    def passing() -> float:
        now[0] += 20.0
        return now[0]

    front.rules.append(lambda call: answer({"items": ["x" * 2**19]}))
    client = Client(Config(kubeconfig=str(front.kubeconfig(tmp_path))), monotonic=passing)

    with pytest.raises(errors.Unreachable, match="in full"):
        client.get("/api/v1/nodes")


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        path = written(tmp_path, kubeconfig(f"https://127.0.0.1:{taken.getsockname()[1]}"))

        with pytest.raises(errors.Unreachable) as told:
            Client(Config(kubeconfig=path)).get("/api/v1/nodes")

    assert path in told.value.sentence


class TestWhoAsks:
    def test_the_token_of_the_kubeconfig(self, front: Front, client_of: ClientOf) -> None:
        front.rules.append(lambda call: answer({}))

        client_of(front).get("/version")

        assert front.calls[0].headers["Authorization"] == f"Bearer {TOKEN}"

    def test_a_token_that_is_refused_is_read_again_from_its_file(self, front: Front, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("old")
        path = written(tmp_path, kubeconfig(front.url, tokenFile=str(token)))
        now = [0.0]
        client = Client(Config(kubeconfig=path), monotonic=lambda: now[0])
        right = ["Bearer old"]
        front.rules.append(
            lambda call: answer({}) if call.headers["Authorization"] in right else refused(401, "Unauthorized", "no")
        )
        client.get("/version")
        token.write_text("new")
        right[:] = ["Bearer new"]
        with pytest.raises(errors.Forbidden):
            client.get("/version")  # within the same half minute nobody looks
        now[0] += 31

        client.get("/version")

        assert [call.headers["Authorization"] for call in front.calls] == [
            f"Bearer {n}" for n in ("old",) * 3 + ("new",)
        ]

    def test_a_plug_in_only_where_it_is_allowed(
        self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = plug_in(tmp_path, f"echo '{credential(token='from-the-plug-in')}'")
        path = written(tmp_path, kubeconfig(front.url, exec=program))
        front.rules.append(lambda call: answer({}))
        with pytest.raises(errors.Misconfigured, match="CURFEW_ALLOW_EXEC"):
            Client(Config(kubeconfig=path)).get("/version")
        assert not (tmp_path / "ran").exists()

        Client(Config(kubeconfig=path), allow_exec=True).get("/version")

        assert front.calls[-1].headers["Authorization"] == "Bearer from-the-plug-in"

    def test_a_plug_in_that_hangs_is_not_waited_for_and_not_started_again(
        self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "CREDENTIALS_SECONDS", 0.05)
        hang = tmp_path / "hang"
        program = plug_in(tmp_path, f"while [ ! -e {hang} ]; do sleep 0.05; done; echo '{credential(token='late')}'")
        client = Client(Config(kubeconfig=written(tmp_path, kubeconfig(front.url, exec=program))), allow_exec=True)
        front.rules.append(lambda call: answer({}))
        before = threading.active_count()
        try:
            for _ in range(5):
                with pytest.raises(errors.Unreachable, match="exec plug-in"):
                    client.get("/version")
            assert threading.active_count() <= before + 1
        finally:
            hang.touch()
        monkeypatch.undo()
        until(lambda: threading.active_count() <= before)

        client.get("/version")

        assert front.calls[-1].headers["Authorization"] == "Bearer late"

    def test_who_vouches_for_the_server_is_read_again_where_it_is_not_believed(
        self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]
        client = Client(Config(kubeconfig=written(tmp_path, kubeconfig(front.url))), monotonic=lambda: now[0])
        front.rules.append(lambda call: answer({}))
        client.get("/version")
        session = client._ready()

        def refused_by_us(*_args: object, **_more: object) -> None:
            raise SSLError("certificate verify failed")

        monkeypatch.setattr(session.pool, "request", refused_by_us)
        with pytest.raises(errors.Unreachable, match="TLS"):
            client.get("/version")
        now[0] += 31

        client.get("/version")

        assert client._ready() is not session

    def test_a_plug_in_that_fails_is_told(self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = written(tmp_path, kubeconfig(front.url, exec=plug_in(tmp_path, "exit 1")))

        with pytest.raises(errors.Misconfigured, match="gave no credentials"):
            Client(Config(kubeconfig=path), allow_exec=True).get("/version")

    def test_a_plug_in_of_the_past_runs_never(
        self, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        provider = {"name": "gcp", "config": {"cmd-path": str(tmp_path / "ran")}}
        path = written(tmp_path, kubeconfig(front.url, **{"auth-provider": provider}))

        with pytest.raises(errors.Misconfigured, match="auth-provider"):
            Client(Config(kubeconfig=path), allow_exec=True).get("/version")

    def test_outside_of_a_pod_there_is_no_service_account(self) -> None:
        with pytest.raises(errors.Misconfigured, match="in_cluster"):
            Client(Config(in_cluster=True)).get("/version")

    def test_in_a_pod_its_service_account(
        self, cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
        cluster.service_account(namespace, "observe", rules=rules)
        token = tmp_path / "token"
        token.write_text(cluster.token(namespace, "observe"))
        monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(token))
        monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(cluster.authority))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rpartition(":")[2])
        client = Client(Config(in_cluster=True))

        assert client.get("/api/v1/nodes")["kind"] == "NodeList"
        with pytest.raises(errors.Forbidden) as told:
            client.get("/api/v1/pods")

        assert told.value.permission == "list pods"


BROKEN = {
    "no file": None,
    "no YAML": "a: [",
    "the shadow file": "root:$6$secretsecret:19000:0:99999:7:::\n",
    "no contexts": "apiVersion: v1\nkind: Config\n",
    "a context without a cluster": yaml.safe_dump({**kubeconfig("https://203.0.113.1"), "clusters": []}),
    "a cluster without a server": yaml.safe_dump(
        {**kubeconfig("https://203.0.113.1"), "clusters": [{"name": "tests", "cluster": {"token": "secretsecret"}}]}
    ),
    "a certificate that is nowhere": yaml.safe_dump(
        kubeconfig("https://203.0.113.1", **{"client-certificate": "gone.crt", "client-key": "gone.key"})
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_kubeconfig_that_cannot_work_is_named_and_not_quoted(tmp_path: Path, case: str) -> None:
    path = tmp_path / "kubeconfig"
    if BROKEN[case] is not None:
        path.write_text(str(BROKEN[case]))

    with pytest.raises(errors.Misconfigured) as told:
        Client(Config(kubeconfig=str(path))).get("/version")

    assert str(path) in told.value.sentence
    assert "secretsecret" not in told.value.sentence
    assert told.value.__cause__ is None


def test_a_context_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = written(tmp_path, kubeconfig("https://203.0.113.1"))

    with pytest.raises(errors.Misconfigured, match=r"no context 'prod' in .*; it has tests"):
        Client(Config(kubeconfig=path, context="prod")).get("/version")


def test_a_server_that_may_not_be_reached_is_not_asked(front: Front, tmp_path: Path) -> None:
    path = written(tmp_path, kubeconfig(front.url))

    with pytest.raises(errors.Misconfigured, match="CURFEW_ALLOW_ENDPOINTS"):
        Client(Config(kubeconfig=path), may_reach=lambda host: host != "127.0.0.1").get("/version")

    assert not front.calls


class TestAWatch:
    def test_tells_events_line_by_line_and_ends_when_it_is_closed(
        self, cluster: Cluster, namespace: str, cluster_front: Front, client_of: ClientOf
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        client = client_of(cluster_front)
        version = client.get(path)["metadata"]["resourceVersion"]
        stream = client.watch(path, query={"resourceVersion": version})
        seen: list[Any] = []
        ended = threading.Event()

        def read() -> None:
            with suppress(ProviderError):
                seen.extend((event["type"], event["object"]["metadata"]["name"]) for event in stream)
            ended.set()

        threading.Thread(target=read, daemon=True).start()
        for name in ("first", "second"):
            cluster.create({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x" * 100_000}}, namespace)
        until(lambda: len(seen) >= 2)

        stream.close()

        assert ended.wait(10)
        assert seen == [("ADDED", "first"), ("ADDED", "second")]

    def test_that_breaks_off_is_told_as_such(
        self, cluster: Cluster, namespace: str, cluster_front: Front, client_of: ClientOf
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        client = client_of(cluster_front)
        version = client.get(path)["metadata"]["resourceVersion"]
        stream = iter(client.watch(path, query={"resourceVersion": version}))
        cluster.create({"kind": "ConfigMap", "metadata": {"name": "first"}}, namespace)
        next(stream)

        cluster_front.cut()

        with pytest.raises(errors.Unreachable):
            list(stream)


def until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def written(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def credential(**status: str) -> str:
    return json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})


def plug_in(folder: Path, script: str) -> dict[str, Any]:
    """A program that leaves a trace, and what a kubeconfig says of it."""
    program = folder / "plug-in"
    program.write_text(f"#!/bin/sh\ntouch {folder / 'ran'}\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
