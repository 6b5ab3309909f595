"""A real API server with its controllers keeps the contract of every provider; kubelet and scheduler are played."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers.conformance import ActuatorContract, FailureContract, InventoryContract, PricesContract, World
from providers.contract import BuildContext, Provider
from providers.kubernetes import Config, build
from providers.records import Kind, ResourceRef, Signal, State
from tests.kubernetes.cluster import Cluster, Manifest
from tests.providers.kubernetes.front import NO_ANSWER, Call, Front, Reply, refused

SKUS = {1: ("g6.xlarge", "NVIDIA-L4"), 8: ("p5.48xlarge", "NVIDIA-H100-80GB-HBM3")}
UNPRICED = "g6.unheard-of"
ON_DEMAND = {
    "eks.amazonaws.com/capacityType": "ON_DEMAND",
    "topology.kubernetes.io/region": "us-east-1",
    "topology.kubernetes.io/zone": "us-east-1a",
}
TRAINING_JOB = "kubeflow.org/v1/PyTorchJob"
PLURALS = {"Deployment": "deployments", "PyTorchJob": "pytorchjobs"}


class ClusterWorld:
    """An empty cluster. A machine is a Deployment of one pod in a namespace of its own, on a node of its own; elsewhere
    it is a PyTorchJob, because parts are kinds of object."""

    def __init__(self, cluster: Cluster, front: Front, kubeconfig: Path) -> None:
        self.cluster = cluster
        self.front = front
        self._provider = build(
            Config(kubeconfig=str(kubeconfig)), BuildContext(source="research-cluster", now=self.now)
        )
        self._nodes: dict[str, str] = {}
        """By namespace."""

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def identity(self) -> str:
        uid: str = self.cluster.get("Namespace", "kube-system")["metadata"]["uid"]
        return uid

    def now(self) -> datetime:
        return datetime.now(UTC)

    def machine(
        self,
        *,
        name: str = "trainer",
        gpus: int = 1,
        tags: Mapping[str, str] | None = None,
        protected: bool = False,
        elsewhere: bool = False,
        priced: bool = True,
    ) -> ResourceRef:
        sku, product = SKUS[gpus]
        labels = {
            "node.kubernetes.io/instance-type": sku if priced else UNPRICED,
            "nvidia.com/gpu.product": product,
            **ON_DEMAND,
        }
        namespace = self.cluster.namespace()
        self._nodes[namespace] = self.cluster.node(
            gpus=gpus, labels=labels, provider_id=f"aws:///us-east-1a/i-{abs(hash(namespace)):017x}"
        )
        metadata: Manifest = {"name": name, "labels": dict(tags or {})}
        if protected:
            metadata["annotations"] = {"curfew-protect": "true"}
        container = {"name": "main", "image": "trainer", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        if elsewhere:
            return self._training_job(namespace, metadata, container)
        self._deployment(namespace, metadata, container)
        self._settled(namespace, pods=1)
        return self._ref(namespace, "Deployment", name)

    def machine_without_accelerators(self) -> ResourceRef:
        namespace = self.cluster.namespace()
        self._nodes[namespace] = self.cluster.node(gpus=0)
        self._deployment(namespace, {"name": "web"}, {"name": "main", "image": "server"})
        self._settled(namespace, pods=1)
        return self._ref(namespace, "Deployment", "web")

    def _deployment(self, namespace: str, metadata: Manifest, container: Manifest) -> None:
        labels = {"app": "it"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        self.cluster.create(
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}, namespace
        )

    def _training_job(self, namespace: str, metadata: Manifest, container: Manifest) -> ResourceRef:
        """Its operator is not here: its pod is made as the operator would."""
        replicas = {"Worker": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}
        body = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata}
        made = self.cluster.create({**body, "spec": {"pytorchReplicaSpecs": replicas}}, namespace)
        owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "controller": True}
        owner |= {key: made["metadata"][key] for key in ("name", "uid")}
        pod = {"kind": "Pod", "metadata": {"name": "worker-0", "ownerReferences": [owner]}}
        self.cluster.create({**pod, "spec": {"containers": [container]}}, namespace)
        self._settled(namespace, pods=1)
        return self._ref(namespace, "PyTorchJob", metadata["name"])

    def _ref(self, namespace: str, kind: str, name: str) -> ResourceRef:
        return ResourceRef(
            provider="kubernetes",
            account=self.identity,
            region="",
            kind=Kind.WORKLOAD,
            external_id=f"{namespace}/{kind}/{name}",
        )

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        raise AssertionError("what GPUs do is told by Prometheus")

    def state(self, ref: ResourceRef) -> State | None:
        namespace, kind, name = ref.external_id.split("/")
        found = self.cluster.find(TRAINING_JOB if kind == "PyTorchJob" else kind, name, namespace)
        if found is None:
            return None
        pods = self.cluster.all("Pod", namespace)
        if any(pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"] for pod in pods):
            return State.RUNNING
        return State.STOPPED if found["spec"].get("replicas") == 0 and not pods else State.PENDING

    def snapshot(self) -> object:
        """What people wrote, and which pods there are. Events come and go; controllers tell what they saw."""
        return [
            {**item, "metadata": {key: value for key, value in item["metadata"].items() if key not in CHANGING}}
            | {"status": None}
            for kind in ("Deployment", TRAINING_JOB, "Pod", "Node", "Namespace")
            for item in self.cluster.all(kind)
        ]

    def settle(self) -> None:
        for namespace in self._nodes:
            if self.cluster.all("Deployment", namespace):
                (deployment,) = self.cluster.all("Deployment", namespace)
                self._settled(namespace, pods=deployment["spec"]["replicas"])

    def _settled(self, namespace: str, *, pods: int) -> None:
        """Until as many run, and no others are there."""

        def are_there() -> bool:
            found = self.cluster.settle(namespace, node=self._nodes[namespace])
            running = [pod for pod in found if pod["status"]["phase"] == "Running"]
            return len(running) == len(found) == pods

        until(lambda: are_there() and are_there())

    def vanish(self, ref: ResourceRef) -> None:
        namespace, kind, name = ref.external_id.split("/")
        self.cluster.delete(kind, name, namespace)
        until(lambda: not self.cluster.all("ReplicaSet", namespace))
        self._settled(namespace, pods=0)

    def read_only(self) -> AbstractContextManager[object]:
        def denied(call: Call) -> Reply | None:
            if call.method == "GET":
                return None
            message = (
                'deployments.apps is forbidden: User "observe" cannot patch resource "deployments" in API group "apps"'
            )
            return refused(403, "Forbidden", message)

        return self.front.within(denied)

    def throttled(self) -> AbstractContextManager[object]:
        return self._failing(lambda call: refused(429, "TooManyRequests", "too many requests, please try again later"))

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        part = PLURALS[ref.external_id.split("/")[1]] if ref is not None else ""
        return self._failing(lambda call: NO_ANSWER if part in call.path else None)

    @contextmanager
    def _failing(self, rule: Callable[[Call], Reply | None]) -> Iterator[None]:
        """From when whoever follows what fails has noticed."""
        followed = {call.path for call in self.front.calls if call.watches and rule(call) is not None}
        before = len(self.front.calls)
        with self.front.within(rule):
            until(lambda: followed <= {call.path for call in self.front.calls[before:]})
            yield


CHANGING = {"resourceVersion", "managedFields", "generation"}


def until(told: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def world(cluster: Cluster, cluster_front: Front, tmp_path: Path) -> Iterator[World]:
    cluster.clear()
    world = ClusterWorld(cluster, cluster_front, cluster_front.kubeconfig(tmp_path))
    yield world
    world.provider.close()


class TestKubernetes(InventoryContract, PricesContract, ActuatorContract, FailureContract):
    """Its telemetry is another provider's."""
