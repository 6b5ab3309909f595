"""A real Kubernetes cluster takes the chart: installed, upgraded and removed by helm, every manifest checked strictly,
every pod under the `restricted` Pod Security Standard. Objects are made, pods do not run.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.helm.accounts import ENFORCE, OBSERVE
from tests.helm.chart import CHART, NEWEST, VALUES, pods, rendered
from tests.kubernetes.cluster import Cluster, Refused
from tests.kubernetes.programs import program

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
OPERATOR = {"ServiceMonitor", "PrometheusRule"}
"""Of the Prometheus operator, which is not here; the rules themselves are promtool's to judge."""


def helm(cluster: Cluster, *arguments: str, values: dict[str, Any] | None = None) -> str:
    command = [program("helm"), *arguments, *(["--values", "-"] if values is not None else [])]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cluster.programs.folder),
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    done = subprocess.run(
        command, input=json.dumps(values), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(cluster: Cluster, namespace: str, kind: str) -> list[str]:
    return [item["metadata"]["name"] for item in cluster.all(kind, namespace)]


def test_the_cluster_is_of_the_newest_version_the_chart_is_for(cluster: Cluster) -> None:
    version = cluster.http.get("/version").json()
    assert f"{version['major']}.{version['minor']}" == NEWEST


def test_what_is_wrong_is_refused(cluster: Cluster) -> None:
    """Else the rest would prove nothing."""
    namespace = cluster.namespace(labels=RESTRICTED)
    service = {"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1, "prot": "TCP"}]}}
    with pytest.raises(Refused, match="unknown field"):
        cluster.create(service, namespace)
    pod = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(Refused, match="violates PodSecurity"):
        cluster.create(pod, namespace)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_manifest_is_taken_strictly(cluster: Cluster, values: dict[str, Any]) -> None:
    namespace = cluster.namespace(labels=RESTRICTED)
    manifests = [m for m in rendered(values, release=namespace) if m["kind"] not in OPERATOR]
    accounts = [m for m in manifests if m["kind"] == "ServiceAccount"]
    for manifest in [*accounts, *(m for m in manifests if m not in accounts)]:
        cluster.create(manifest, namespace)
    for pod in pods(manifests):
        account = pod.spec.get("serviceAccountName", "default")
        if cluster.find("ServiceAccount", account, namespace) is None:
            cluster.create({"kind": "ServiceAccount", "metadata": {"name": account}}, namespace)
        metadata = {"name": pod.of["metadata"]["name"], "labels": pod.template["metadata"]["labels"]}
        cluster.create({"kind": "Pod", "metadata": metadata, "spec": pod.spec}, namespace)


def test_helm_installs_upgrades_and_removes(cluster: Cluster) -> None:
    namespace = cluster.namespace(labels=RESTRICTED)
    notes = helm(cluster, "install", "gpu", str(CHART), "--namespace", namespace, values={})
    assert "It tells what it would do and stops nothing." in notes
    assert "nobody can log in" in notes

    values = VALUES["enforcing, on a volume"] | {"persistence": {}, "documents": {"files": {"a.yaml": "# none\n"}}}
    notes = helm(cluster, "upgrade", "gpu", str(CHART), "--namespace", namespace, values=values)
    assert 'the ceiling "enforce"' in notes
    assert names(cluster, namespace, "ConfigMap") == ["gpu-curfew-documents", "kube-root-ca.crt"]

    helm(cluster, "uninstall", "gpu", "--namespace", namespace)
    assert names(cluster, namespace, "Deployment") == []
    assert names(cluster, namespace, "PersistentVolumeClaim") == ["gpu-curfew"], "the state stays"


def test_rights_come_and_go_with_the_values(cluster: Cluster) -> None:
    namespace = cluster.namespace(labels=RESTRICTED)
    release = f"gpu-{namespace}"

    def roles() -> list[str]:
        selector = f"app.kubernetes.io/instance={release}"
        found = [cluster.all(kind, labelSelector=selector) for kind in ("ClusterRole", "ClusterRoleBinding")]
        of_role, of_binding = ([one["metadata"]["name"] for one in each] for each in found)
        assert of_role == of_binding
        return of_role

    def upgraded(kubernetes: dict[str, bool]) -> str:
        return helm(
            cluster, "upgrade", "--install", release, str(CHART), "--namespace", namespace,
            values={"kubernetes": kubernetes},
        )  # fmt: skip

    assert "It can change nothing in it." in upgraded(OBSERVE)
    assert roles() == [f"{release}-curfew-observe"]
    assert "It may also suspend" in upgraded(ENFORCE)
    assert roles() == [f"{release}-curfew-enforce", f"{release}-curfew-observe"]
    assert "this cluster" not in upgraded({})
    assert roles() == []
