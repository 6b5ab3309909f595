"""From inside a cluster: a pod's own account, as the kubelet lays it down in files, with the rights of the chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pytest
from kubernetes.config import incluster_config

from providers import errors
from providers.contract import BuildContext
from providers.kubernetes import Config, build
from providers.kubernetes.client import Client
from tests.helm.accounts import OBSERVE, account
from tests.kubernetes.cluster import Cluster
from tests.providers.kubernetes.stoppable import POD
from tests.waiting import soon

IN_CLUSTER = Config(in_cluster=True)


@dataclass(frozen=True)
class Files:
    """What the kubelet puts into a pod. It replaces a file as a whole, never writes into one."""

    folder: Path

    def put(self, name: str, text: str) -> None:
        new = self.folder / f".{name}"
        new.write_text(text)
        new.replace(self.folder / name)


@pytest.fixture
def files(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """The SDK knows only the one place where pods have them; here it is another."""
    found = Files(tmp_path)
    found.put("ca.crt", cluster.authority.read_text())
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rpartition(":")[2])
    return found


def projected(cluster: Cluster, namespace: str, name: str) -> str:
    """As the kubelet asks for it: for a while, and bound to the pod."""
    spec = {**POD, "serviceAccountName": name}
    pod = cluster.create({"kind": "Pod", "metadata": {"generateName": "curfew-"}, "spec": spec}, namespace)
    bound = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    request: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    answer = cluster.http.post(
        f"{cluster.path('ServiceAccount', name, namespace)}/token",
        json={**request, "spec": {"expirationSeconds": 3607, "boundObjectRef": bound}},
    )
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["status"]["token"]
    return token


def someone(cluster: Cluster, namespace: str, name: str, *, may_list: str) -> str:
    """A token of an account that may do just that."""
    rules = [{"apiGroups": [""], "resources": [may_list], "verbs": ["list"]}]
    cluster.service_account(namespace, name, rules=rules)
    token = projected(cluster, namespace, name)
    with cluster.client(token) as client:
        soon(lambda: client.get(f"/api/v1/{may_list}").status_code == 200, "the API server knows its rights")
    return token


def may(client: Client, plural: str) -> bool:
    try:
        client.get(f"/api/v1/{plural}")
    except errors.Forbidden:
        return False
    return True


def test_the_pod_sees_the_whole_cluster(cluster: Cluster, files: Files) -> None:
    release = account(cluster, OBSERVE)
    files.put("token", projected(cluster, release.namespace, release.name))
    provider = build(IN_CLUSTER, BuildContext(source="home", now=lambda: datetime.now(UTC)))
    assert provider.inventory is not None

    answer = provider.inventory.list()
    provider.close()

    assert answer.identity == cluster.get("Namespace", "kube-system")["metadata"]["uid"]
    assert [part for part in answer.parts if not part.complete] == []


def test_a_token_that_is_replaced_is_read_again_before_it_ends(
    cluster: Cluster, namespace: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet replaces it after four fifths of its time; the old one still works then."""
    now = [datetime(2026, 11, 22, 10, 0)]  # noqa: DTZ001 - as the SDK tells the time
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: now[0]), timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", clock)
    files.put("token", someone(cluster, namespace, "old", may_list="nodes"))
    client = Client(IN_CLUSTER)
    assert may(client, "nodes")
    files.put("token", someone(cluster, namespace, "new", may_list="pods"))
    assert not may(client, "pods"), "it is not read for every question"

    now[0] += timedelta(seconds=61)

    assert may(client, "pods")
    assert not may(client, "nodes")


def test_a_token_that_is_refused_is_read_again_at_once(cluster: Cluster, namespace: str, files: Files) -> None:
    """At once, if it was not read a moment ago."""
    seconds = [0.0]
    right = someone(cluster, namespace, "observe", may_list="nodes")
    files.put("token", right[:-8])
    client = Client(IN_CLUSTER, monotonic=lambda: seconds[0])
    with pytest.raises(errors.Forbidden, match="does not know who asks"):
        client.get("/api/v1/nodes")
    files.put("token", right)

    seconds[0] += 31

    assert may(client, "nodes")


def test_an_authority_that_is_replaced_is_read_again(cluster: Cluster, namespace: str, files: Files) -> None:
    files.put("token", someone(cluster, namespace, "observe", may_list="nodes"))
    files.put("ca.crt", Path(certifi.where()).read_text())
    client = Client(IN_CLUSTER)
    with pytest.raises(errors.Unreachable, match="TLS"):
        client.get("/api/v1/nodes")

    files.put("ca.crt", cluster.authority.read_text())

    assert may(client, "nodes")


@pytest.mark.parametrize(
    ("more", "works"), [("\n", True), (" \n\n", True), ("\nHost: elsewhere\n", False), ("ü", False)]
)
def test_what_a_person_wrote_into_the_file_is_a_token_or_is_not_repeated(
    more: str, works: bool, cluster: Cluster, namespace: str, files: Files
) -> None:
    files.put("token", someone(cluster, namespace, "observe", may_list="nodes") + more)
    client = Client(IN_CLUSTER)

    if works:
        assert may(client, "nodes")
    else:
        with pytest.raises(errors.Misconfigured) as told:
            client.get("/api/v1/nodes")
        assert told.value.sentence == "the cluster this runs in: the token holds characters that no token has"
