"""The cluster that the tests stand on is a real one, and what plays its kubelets does what they do."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from tests.kubernetes.cluster import Cluster, Manifest, Refused, running_cluster
from tests.kubernetes.kwok import fleet, kwok
from tests.kubernetes.programs import ROOT
from tests.waiting import soon

POD: Manifest = {"containers": [{"name": "main", "image": "trainer"}]}
LABELS = {"app": "server"}


def deployment(*, replicas: int) -> Manifest:
    template = {"metadata": {"labels": LABELS}, "spec": POD}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return {"kind": "Deployment", "metadata": {"name": "server"}, "spec": spec}


def served(cluster: Cluster, namespace: str, *, replicas: int) -> list[Manifest]:
    """A deployment and its pods, which run; the deployment knows."""
    node = cluster.node()
    cluster.create(deployment(replicas=replicas), namespace)

    def ready() -> Any:
        cluster.settle(namespace, node=node)
        return cluster.get("Deployment", "server", namespace)["status"].get("readyReplicas") == replicas

    soon(ready, "the deployment knows that its pods are ready")
    return cluster.all("Pod", namespace)


def test_a_deployment_gets_pods_that_run_and_at_zero_they_are_gone(cluster: Cluster, namespace: str) -> None:
    pods = served(cluster, namespace, replicas=2)
    [owner] = pods[0]["metadata"]["ownerReferences"]
    assert owner["kind"] == "ReplicaSet"

    cluster.patch("Deployment", "server", {"spec": {"replicas": 0}}, namespace, of="scale")

    node = pods[0]["spec"]["nodeName"]
    soon(lambda: cluster.settle(namespace, node=node) == [], "the pods are gone")


def test_a_job_that_is_suspended_has_no_pods_and_gets_them_back(cluster: Cluster, namespace: str) -> None:
    node = cluster.node()
    template = {"spec": {**POD, "restartPolicy": "Never"}}
    spec = {"parallelism": 2, "completions": 2, "template": template}
    cluster.create({"kind": "Job", "metadata": {"name": "train"}, "spec": spec}, namespace)
    soon(lambda: len(cluster.settle(namespace, node=node)) == 2, "its pods run")

    cluster.patch("Job", "train", {"spec": {"suspend": True}}, namespace)
    soon(lambda: cluster.settle(namespace, node=node) == [], "the pods are gone")
    conditions = soon(lambda: cluster.get("Job", "train", namespace)["status"].get("conditions"), "the job says so")
    assert [(c["type"], c["status"]) for c in conditions] == [("Suspended", "True")]

    cluster.patch("Job", "train", {"spec": {"suspend": False}}, namespace)
    soon(lambda: len(cluster.settle(namespace, node=node)) == 2, "its pods are back")


def test_an_eviction_against_a_disruption_budget_is_refused(cluster: Cluster, namespace: str) -> None:
    [pod] = served(cluster, namespace, replicas=1)
    budget = {"minAvailable": 1, "selector": {"matchLabels": LABELS}}
    cluster.create({"kind": "PodDisruptionBudget", "metadata": {"name": "always-one"}, "spec": budget}, namespace)

    def healthy() -> Any:
        return cluster.get("PodDisruptionBudget", "always-one", namespace).get("status", {}).get("currentHealthy") == 1

    soon(healthy, "the budget counts the pod")
    refused = cluster.evict(pod["metadata"]["name"], namespace)
    assert refused.status_code == 429
    assert "always-one needs 1 healthy pods and has 1 currently" in refused.text

    cluster.delete("PodDisruptionBudget", "always-one", namespace)
    assert cluster.evict(pod["metadata"]["name"], namespace).status_code == 201


def test_an_autoscaler_finds_its_deployment(cluster: Cluster, namespace: str) -> None:
    served(cluster, namespace, replicas=1)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "server"}
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    metrics = [{"type": "Resource", "resource": cpu}]
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3, "metrics": metrics}
    cluster.create({"kind": "HorizontalPodAutoscaler", "metadata": {"name": "server"}, "spec": spec}, namespace)

    def scaled() -> Any:
        return cluster.get("Deployment", "server", namespace)["spec"]["replicas"] == 2

    soon(scaled, "the autoscaler brings it to its least")


def test_kubectl_sees_the_gpus_of_a_node_and_whose_pods_are_on_it(cluster: Cluster, namespace: str) -> None:
    node = cluster.node(gpus=8, allocatable=7, labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})
    limits = {"limits": {"nvidia.com/gpu": "4"}}
    pod = {"containers": [{"name": "main", "image": "trainer", "resources": limits}], "nodeName": node}
    cluster.create({"kind": "Pod", "metadata": {"name": "train"}, "spec": pod}, namespace)
    cluster.run("train", namespace)

    assert cluster.kubectl("get", "node", node, "-o", "jsonpath={.status.allocatable['nvidia\\.com/gpu']}") == "7"
    assert "Ready" in cluster.kubectl("get", "node", node).split()
    on_it = cluster.kubectl("get", "pods", "-n", namespace, "--field-selector", f"spec.nodeName={node}")
    assert on_it.split()[-5:-1] == ["train", "1/1", "Running", "0"]


def test_a_service_account_may_do_what_its_role_says_and_no_more(cluster: Cluster, namespace: str) -> None:
    cluster.create({"kind": "Pod", "metadata": {"name": "train"}, "spec": POD}, namespace)
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    reader = cluster.service_account(namespace, "reader", rules=rules)

    assert "pod/train" in cluster.kubectl("get", "pods", "-n", namespace, "-o", "name", kubeconfig=reader)
    complaint = cluster.kubectl("delete", "pod", "train", "-n", namespace, kubeconfig=reader, fails=True)
    assert f"system:serviceaccount:{namespace}:reader" in complaint
    assert "cannot delete resource" in complaint


@pytest.mark.parametrize(
    ("kind", "spec", "wrong"),
    [
        ("jobset.x-k8s.io/v1alpha2/JobSet", {"suspend": True}, {"suspend": "yes"}),
        ("ray.io/v1/RayCluster", {"suspend": True}, {"suspend": "yes"}),
        ("ray.io/v1/RayJob", {"suspend": True}, {"suspend": "yes"}),
        ("ray.io/v1/RayService", {"suspend": True}, {"suspend": "yes"}),
        ("kubeflow.org/v1/PyTorchJob", {"runPolicy": {"suspend": True}}, {"runPolicy": {"suspend": "yes"}}),
        ("kubeflow.org/v1/MPIJob", {"runPolicy": {"suspend": True}}, {"runPolicy": {"suspend": "yes"}}),
        ("kubeflow.org/v1/TFJob", {"runPolicy": {"suspend": True}}, {"runPolicy": {"suspend": "yes"}}),
        ("trainer.kubeflow.org/v1alpha1/TrainJob", {"suspend": True}, {"suspend": "yes"}),
        ("kubeflow.org/v1/Notebook", {"template": {"spec": POD}}, []),
        ("serving.kserve.io/v1beta1/InferenceService", {"predictor": {"minReplicas": 0}}, {"predictor": []}),
        ("kueue.x-k8s.io/v1beta1/Workload", {"active": False}, {"active": "no"}),
        ("kueue.x-k8s.io/v1beta2/Workload", {"active": False}, {"active": "no"}),
        ("kueue.x-k8s.io/v1beta2/LocalQueue", {"stopPolicy": "Hold"}, {"stopPolicy": "Pause"}),
        ("keda.sh/v1alpha1/ScaledObject", {"minReplicaCount": 1}, {"minReplicaCount": "one"}),
        ("keda.sh/v1alpha1/ScaledJob", {"jobTargetRef": {}}, []),
    ],
)
def test_custom_kinds_keep_what_is_right_and_refuse_what_is_wrong(
    cluster: Cluster, namespace: str, kind: str, spec: Manifest, wrong: Any
) -> None:
    api_version, _, name = kind.rpartition("/")
    manifest = {"apiVersion": api_version, "kind": name, "metadata": {"name": "one"}, "spec": {**spec, "more": [1]}}
    cluster.create(manifest, namespace)
    cluster.patch(kind, "one", {"status": {"told": True}}, namespace, of="status")

    found = cluster.get(kind, "one", namespace)
    assert (found["spec"]["more"], found["status"]) == ([1], {"told": True})
    assert {key: found["spec"][key] for key in spec} == spec
    with pytest.raises(Refused, match="422"):
        cluster.patch(kind, "one", {"spec": wrong}, namespace)


def test_kwok_runs_the_pods_of_many_nodes_and_clearing_leaves_none() -> None:
    """In a cluster of its own, as clearing is felt by every test that shares one."""
    with running_cluster() as cluster:
        namespace = cluster.namespace()
        with kwok(cluster):
            fleet(cluster, namespace, nodes=10, pods=100)
        pods = cluster.all("Pod")
        assert {pod["status"]["phase"] for pod in pods} == {"Running"}
        owners = [pod["metadata"].get("ownerReferences", [{}])[0].get("kind") for pod in pods]
        assert (owners.count("PyTorchJob"), owners.count(None), len(cluster.all("Node"))) == (80, 20, 10)

        cluster.clear()

        assert [cluster.all(kind) for kind in ("Node", "Pod", "PyTorchJob")] == [[], [], []]


KILLED = """
from tests.kubernetes.programs import Programs

programs = Programs()
programs.start("etcd", {f"listen-{who}-urls": "http://127.0.0.1:0" for who in ("client", "peer")})
print(programs.folder, flush=True)
input()
"""


def test_programs_end_with_a_test_run_that_is_killed() -> None:
    with Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip())
        started = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        assert (len(started), folder.is_dir()) == (2, True)

        run.kill()

    soon(lambda: not folder.exists(), "its folder is gone")
    soon(lambda: not any(Path("/proc", pid, "exe").exists() for pid in started), "its programs are gone")
