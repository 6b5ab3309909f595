"""A real Kubernetes API server takes the chart: installed, upgraded and removed by helm, every manifest checked
strictly, every pod under the `restricted` Pod Security Standard. No kubelet: objects are made, pods do not run.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.databases import free_port
from tests.e2e.test_demo import eventually
from tests.helm.chart import CHART, NEWEST, VALUES, Manifest, pods, rendered, tools

TOKEN = "a-cluster-token-for-tests"
PATHS = {
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "Ingress": "apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "Job": "apis/batch/v1/namespaces/{}/jobs",
    "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "PersistentVolumeClaim": "api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "api/v1/namespaces/{}/pods",
    "PodDisruptionBudget": "apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "Service": "api/v1/namespaces/{}/services",
    "ServiceAccount": "api/v1/namespaces/{}/serviceaccounts",
}
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Of the Prometheus operator, which is not here; the rules themselves are promtool's to judge."""


class Cluster:
    """What helm and a strict client need."""

    def __init__(self, url: str, authority: Path) -> None:
        self.url = url
        self.authority = authority
        self.http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {TOKEN}"},
            verify=ssl.create_default_context(cafile=str(authority)),
            timeout=30,
        )

    def namespace(self, name: str) -> None:
        """One in which only restricted pods are let in."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        body = {"metadata": {"name": name, "labels": labels}}
        assert self.http.post("/api/v1/namespaces", json=body).status_code == 201
        account = {"metadata": {"name": "default"}}  # a controller's work, and there is none
        assert self.http.post(f"/api/v1/namespaces/{name}/serviceaccounts", json=account).status_code == 201

    def create(self, namespace: str, manifest: Manifest) -> None:
        """Strictly: a field that Kubernetes does not know, or one that is there twice, is an error."""
        path = PATHS[manifest["kind"]].format(namespace)
        answer = self.http.post(f"/{path}", json=manifest, params={"fieldValidation": "Strict"})
        assert answer.status_code == 201, answer.text
        assert "Warning" not in answer.headers, answer.headers["Warning"]

    def names(self, namespace: str, kind: str) -> list[str]:
        items = self.http.get(f"/{PATHS[kind].format(namespace)}").json()["items"]
        return [item["metadata"]["name"] for item in items]

    def helm(self, folder: Path, *arguments: str, values: dict[str, Any] | None = None) -> str:
        command = [str(tools() / "helm"), *arguments, "--kube-apiserver", self.url, "--kube-token", TOKEN]
        command += ["--kube-ca-file", str(self.authority)] + (["--values", "-"] if values is not None else [])
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": "/dev/null"}
        done = subprocess.run(
            command, input=json.dumps(values), env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def _running(program: str, options: dict[str, Any], log: Path) -> Iterator[None]:
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=log.parent, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """etcd and kube-apiserver on loopback, on ports of their own."""
    etcd = shutil.which("etcd", path=f"{tools()}:{os.environ['PATH']}")
    assert etcd is not None, "the tests need etcd: apt-get install etcd-server"
    store, peer, port = (f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", free_port())
    key = tmp_path / "accounts.key"
    made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    key.write_bytes(made.private_bytes(*plain))
    (tmp_path / "tokens.csv").write_text(f"{TOKEN},admin,1,system:masters\n")
    of_etcd = {
        "data-dir": "etcd",
        "listen-client-urls": store,
        "advertise-client-urls": store,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
    }
    of_apiserver = {
        "etcd-servers": store,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": "certificates",
        "token-auth-file": "tokens.csv",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-cluster-ip-range": "10.0.0.0/24",
        "authorization-mode": "RBAC",
    }
    with ExitStack() as stack:
        stack.enter_context(_running(etcd, of_etcd, tmp_path / "etcd.log"))
        stack.enter_context(_running(str(tools() / "kube-apiserver"), of_apiserver, tmp_path / "apiserver.log"))
        authority = tmp_path / "certificates" / "apiserver.crt"
        eventually(authority.exists, within=60, what="the API server has its certificate")
        found = Cluster(f"https://127.0.0.1:{port}", authority)
        stack.callback(found.http.close)
        eventually(lambda: found.http.get("/readyz").status_code == 200, within=90, what="the API server is ready")
        yield found


def test_a_real_api_server_takes_the_chart(cluster: Cluster, tmp_path: Path) -> None:
    version = cluster.http.get("/version").json()
    assert f"{version['major']}.{version['minor']}" == NEWEST

    what_is_wrong_is_refused(cluster)
    for number, values in enumerate(VALUES.values()):
        every_manifest_is_taken_strictly(cluster, f"strict-{number}", values)
    helm_installs_upgrades_and_removes(cluster, tmp_path)


def what_is_wrong_is_refused(cluster: Cluster) -> None:
    """Else the rest would prove nothing."""
    cluster.namespace("wrong")
    service = {"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1, "prot": "TCP"}]}}
    with pytest.raises(AssertionError, match="unknown field"):
        cluster.create("wrong", service)
    pod = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        cluster.create("wrong", pod)


def every_manifest_is_taken_strictly(cluster: Cluster, namespace: str, values: dict[str, Any]) -> None:
    cluster.namespace(namespace)
    manifests = [m for m in rendered(values) if m["kind"] not in OPERATOR]
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    for manifest in [*accounts, *(m for m in manifests if m not in accounts)]:
        cluster.create(namespace, manifest)
    for pod in pods(manifests):
        if (name := pod.spec.get("serviceAccountName")) and not accounts:
            cluster.create(namespace, {"kind": "ServiceAccount", "metadata": {"name": name}})
        labels = pod.template["metadata"]["labels"]
        metadata = {"name": pod.of["metadata"]["name"], "labels": labels}
        cluster.create(namespace, {"kind": "Pod", "metadata": metadata, "spec": pod.spec})


def helm_installs_upgrades_and_removes(cluster: Cluster, folder: Path) -> None:
    cluster.namespace("finops")
    notes = cluster.helm(folder, "install", "gpu", str(CHART), "--namespace", "finops", values={})
    assert "It tells what it would do and stops nothing." in notes
    assert "nobody can log in" in notes

    values = VALUES["enforcing, on a volume"] | {"persistence": {}, "documents": {"files": {"a.yaml": "# none\n"}}}
    notes = cluster.helm(folder, "upgrade", "gpu", str(CHART), "--namespace", "finops", values=values)
    assert 'the ceiling "enforce"' in notes
    assert cluster.names("finops", "ConfigMap") == ["gpu-curfew-documents"]

    cluster.helm(folder, "uninstall", "gpu", "--namespace", "finops")
    assert cluster.names("finops", "Deployment") == []
    assert cluster.names("finops", "PersistentVolumeClaim") == ["gpu-curfew"], "the state stays"
