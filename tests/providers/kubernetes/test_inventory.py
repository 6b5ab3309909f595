"""A cluster is listed once and followed from then on; one workload is described afresh; what fails is told by part."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers.errors import Forbidden, NotFound, Unreachable
from providers.kubernetes import Config
from providers.kubernetes import inventory as module
from providers.kubernetes.client import Client
from providers.kubernetes.inventory import KubernetesInventory, selects
from providers.records import InventoryAnswer, Kind, ResourceRecord, ResourceRef, State, Verb
from tests.kubernetes.cluster import Cluster, Manifest
from tests.providers.kubernetes.front import NO_ANSWER, Call, Front, Reply, answer, refused

GPU = {"limits": {"nvidia.com/gpu": "1"}}
CONTAINERS = [{"name": "main", "image": "trainer", "resources": GPU}]
POD: Manifest = {"restartPolicy": "Never", "containers": CONTAINERS}
SERVER: Manifest = {"containers": CONTAINERS}
LABELS = {"app": "it"}
KUBEFLOW = ("kubeflow.org", "trainer.kubeflow.org")
OWN = "leaderworkersets.leaderworkerset.x-k8s.io"
"""A kind that the test cluster does not have, unless a test installs it."""


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inventory(cluster_front: Front, tmp_path: Path, clock: Clock) -> Iterator[KubernetesInventory]:
    with followed(Client(Config(kubeconfig=str(cluster_front.kubeconfig(tmp_path)))), clock) as inventory:
        yield inventory


@contextmanager
def followed(client: Client, clock: Clock) -> Iterator[KubernetesInventory]:
    inventory = KubernetesInventory(client, source="research", now=lambda: datetime.now(UTC), clock=clock)
    try:
        yield inventory
    finally:
        inventory.close()


# What a test puts into the cluster.


def manifest(
    api_version: str, kind: str, spec: Manifest, *, name: str = "it", labels: Mapping[str, str] = {}
) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, "spec": spec}


DEPLOYMENT = manifest(
    "apps/v1",
    "Deployment",
    {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": SERVER}},
)
OWNERS: dict[str, Manifest] = {
    "Pod": manifest("v1", "Pod", POD, labels=LABELS),
    "Deployment": DEPLOYMENT,
    "StatefulSet": {**DEPLOYMENT, "kind": "StatefulSet"},
    "Job": manifest("batch/v1", "Job", {"template": {"spec": POD}}),
    "CronJob": manifest(
        "batch/v1", "CronJob", {"schedule": "0 0 29 2 *", "jobTemplate": {"spec": {"template": {"spec": POD}}}}
    ),
}


def put(cluster: Cluster, namespace: str, kind: str) -> str:
    """One of this kind, with its pods running on a node of its own; its external id."""
    node = cluster.node(labels={"nvidia.com/gpu.product": "NVIDIA-L4"})
    cluster.create(OWNERS[kind], namespace)
    if kind != "CronJob":
        until(lambda: cluster.all("Pod", namespace))
    until(lambda: all(pod["status"]["phase"] == "Running" for pod in cluster.settle(namespace, node=node)))
    return f"{namespace}/{kind}/it"


def workloads(answered: InventoryAnswer, namespace: str) -> dict[str, ResourceRecord]:
    return {
        record.ref.external_id: record
        for record in answered.records
        if record.ref.kind is Kind.WORKLOAD and record.ref.external_id.startswith(f"{namespace}/")
    }


def incomplete(answered: InventoryAnswer) -> dict[str, str]:
    return {part.part: part.fault.code for part in answered.parts if part.fault is not None and not part.complete}


def until(told: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listing(word: str) -> Callable[[Call], bool]:
    return lambda call: call.path.endswith(f"/{word}") and "/namespaces/" not in call.path


def failing(front: Front, which: Callable[[Call], bool], reply: Reply) -> None:
    front.rules.append(lambda call: reply if which(call) else None)


# The list.


class TestTheList:
    def test_after_the_first_one_asks_only_who_answers(
        self, cluster: Cluster, namespace: str, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        first = put(cluster, namespace, "Deployment")
        assert set(workloads(inventory.list(), namespace)) == {first}
        second = put(cluster, namespace, "Job")
        asked = len(cluster_front.calls)

        until(lambda: set(workloads(inventory.list(), namespace)) == {first, second})

        later = {call.path for call in cluster_front.calls[asked:]}
        assert later == {"/api/v1/namespaces/kube-system"}

    def test_what_happened_since_is_in_the_next(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory
    ) -> None:
        job = put(cluster, namespace, "Job")
        assert workloads(inventory.list(), namespace)[job].state is State.RUNNING
        (pod,) = cluster.all("Pod", namespace)

        cluster.patch("Job", "it", {"spec": {"suspend": True}}, namespace)
        until(lambda: "deletionTimestamp" in cluster.get("Pod", pod["metadata"]["name"], namespace)["metadata"])
        until(lambda: workloads(inventory.list(), namespace)[job].state is State.STOPPING)
        cluster.settle(namespace, node="nowhere")

        until(lambda: workloads(inventory.list(), namespace)[job].state is State.STOPPED)
        cluster.delete("Job", "it", namespace)
        until(lambda: workloads(inventory.list(), namespace) == {})

    def test_every_kind_the_cluster_has_is_a_part_and_no_other(self, inventory: KubernetesInventory) -> None:
        answered = inventory.list()

        assert answered.complete
        parts = {part.part for part in answered.parts}
        assert parts >= {"nodes", "pods", "namespaces", "jobs.batch", "deployments.apps", "rayclusters.ray.io"}
        assert OWN not in parts
        assert not parts & module.ON_DEMAND

    def test_a_kind_that_may_not_be_listed_is_one_part_and_names_what_is_missing(
        self, cluster: Cluster, namespace: str, clock: Clock
    ) -> None:
        rules = [
            {"apiGroups": [group], "resources": ["*"], "verbs": ["get", "list", "watch"]}
            for group in ("", "apps", "batch", "resource.k8s.io", "kueue.x-k8s.io", "serving.kserve.io", *KUBEFLOW)
        ]
        kubeconfig = cluster.service_account(namespace, "observe", rules=rules)
        deployment = put(cluster, namespace, "Deployment")

        with followed(Client(Config(kubeconfig=str(kubeconfig))), clock) as inventory:
            answered = inventory.list()

        assert set(workloads(answered, namespace)) == {deployment}
        assert incomplete(answered) == {
            "rayclusters.ray.io": "Forbidden",
            "rayjobs.ray.io": "Forbidden",
            "rayservices.ray.io": "Forbidden",
            "jobsets.jobset.x-k8s.io": "Forbidden",
            "trainjobs.trainer.kubeflow.org": "Unreachable",  # whose pods are a JobSet's
        }
        permissions = {part.part: part.fault.permission for part in answered.parts if part.fault is not None}
        assert permissions["rayclusters.ray.io"] == "list rayclusters.ray.io"

    @pytest.mark.parametrize(
        ("failing_word", "also"),
        [
            ("replicasets.apps", {"deployments.apps", "inferenceservices.serving.kserve.io"}),
            (
                "jobs.batch",
                {
                    "cronjobs.batch",
                    "jobsets.jobset.x-k8s.io",
                    "trainjobs.trainer.kubeflow.org",
                    "rayjobs.ray.io",
                    "mpijobs.kubeflow.org",
                },
            ),
            ("pytorchjobs.kubeflow.org", set()),
        ],
    )
    def test_owners_whose_pods_cannot_be_told_are_unknown_and_no_others(
        self,
        cluster: Cluster,
        namespace: str,
        cluster_front: Front,
        inventory: KubernetesInventory,
        failing_word: str,
        also: set[str],
    ) -> None:
        kinds = {put(cluster, namespace, kind): kind for kind in ("Deployment", "Job")}
        plural = failing_word.partition(".")[0]
        failing(cluster_front, listing(plural), refused(500, "InternalError", "not now"))

        answered = inventory.list()

        assert set(incomplete(answered)) == {failing_word} | also
        unknown = {"Deployment"} if plural == "replicasets" else {"Job"} if plural == "jobs" else set()
        assert {kinds[found] for found in workloads(answered, namespace)} == {"Deployment", "Job"} - unknown
        assert {record.listed_in for record in answered.records}.isdisjoint(incomplete(answered))

    @pytest.mark.parametrize("word", ["pods", "nodes", "namespaces"])
    def test_without_pods_nodes_or_namespaces_no_workload_is_known(
        self, cluster: Cluster, namespace: str, cluster_front: Front, inventory: KubernetesInventory, word: str
    ) -> None:
        put(cluster, namespace, "Deployment")
        failing(cluster_front, listing(word), NO_ANSWER)

        answered = inventory.list()

        assert workloads(answered, namespace) == {}
        known = {part.part for part in answered.parts if part.complete}
        assert known.isdisjoint({"deployments.apps", "pods", "jobs.batch"})
        nodes = [record for record in answered.records if record.ref.kind is Kind.NODE]
        assert bool(nodes) == (word != "nodes")

    def test_a_kind_that_comes_is_followed_and_one_that_goes_is_no_part_any_more(
        self, cluster: Cluster, cluster_front: Front, inventory: KubernetesInventory, clock: Clock
    ) -> None:
        assert OWN not in {part.part for part in inventory.list().parts}
        cluster.install([OWN_DEFINITION])
        try:
            clock.seconds += module.KINDS_HOLD_SECONDS + 1
            until(lambda: OWN in {part.part for part in inventory.list().parts})
            until(lambda: inventory.list().complete)
        finally:
            cluster.delete("CustomResourceDefinition", OWN)
        until(lambda: cluster.find("CustomResourceDefinition", OWN) is None)
        cluster_front.cut()

        until(lambda: OWN not in {part.part for part in inventory.list().parts})
        until(lambda: inventory.list().complete)

    def test_a_kind_in_a_version_nobody_here_knows_is_an_incomplete_part(
        self, cluster: Cluster, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        cluster.clear()
        only_new = {"groups": [{"name": "jobset.x-k8s.io", "versions": [{"version": "v9"}]}, *BUILT_IN_GROUPS]}
        resources = {"resources": [{"name": "jobsets", "kind": "JobSet"}]}
        failing(cluster_front, lambda call: call.path == "/apis", answer(only_new))
        failing(cluster_front, lambda call: call.path == "/apis/jobset.x-k8s.io/v9", answer(resources))

        answered = inventory.list()

        assert incomplete(answered) == {"jobsets.jobset.x-k8s.io": "Unreachable"}
        (fault,) = (part.fault for part in answered.parts if part.fault is not None)
        assert "v9" in fault.sentence

    def test_owners_of_a_kind_that_has_come_since_are_unknown_until_it_is_listed(
        self, cluster: Cluster, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        cluster.clear()
        namespace = cluster.namespace()
        put(cluster, namespace, "Job")
        ray = cluster.create(manifest("ray.io/v1", "RayJob", {"rayClusterSpec": {}}, name="ray"), namespace)
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "ray", "uid": ray["metadata"]["uid"]}
        cluster.patch("Job", "it", {"metadata": {"ownerReferences": [{**owner, "controller": True}]}}, namespace)
        without = {"groups": BUILT_IN_GROUPS}
        with cluster_front.within(lambda call: answer(without) if call.path == "/apis" else None):
            early = inventory.list()

        later = inventory.list()

        assert (incomplete(early), workloads(early, namespace)) == ({"rayjobs.ray.io": "Unreachable"}, {})
        assert later.complete
        assert set(workloads(later, namespace)) == {f"{namespace}/RayJob/ray"}

    def test_which_kinds_there_are_stands_while_nobody_says(
        self, cluster_front: Front, inventory: KubernetesInventory, clock: Clock
    ) -> None:
        before = inventory.list()
        failing(cluster_front, lambda call: call.path == "/apis", refused(503, "ServiceUnavailable", "not now"))
        clock.seconds += 100
        inventory.list()
        clock.seconds += module.KINDS_HOLD_SECONDS

        after = inventory.list()

        assert {part.part for part in after.parts} == {part.part for part in before.parts}

    def test_another_cluster_under_the_same_name_is_listed_anew(
        self, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        first = inventory.list()
        asked = len(cluster_front.calls)
        other = answer({"metadata": {"uid": "another-cluster"}})
        failing(cluster_front, lambda call: call.path == "/api/v1/namespaces/kube-system", other)

        second = inventory.list()

        assert (first.identity == second.identity, second.identity) == (False, "another-cluster")
        assert {call.path for call in cluster_front.calls[asked:]} >= {"/apis", "/api/v1/pods", "/api/v1/nodes"}
        assert {record.ref.account for record in second.records} <= {"another-cluster"}

    @pytest.mark.parametrize("path", ["/api/v1/namespaces/kube-system", "/apis"])
    def test_when_nothing_can_be_asked_it_raises(
        self, cluster_front: Front, inventory: KubernetesInventory, path: str
    ) -> None:
        failing(cluster_front, lambda call: call.path == path, NO_ANSWER)

        with pytest.raises(Unreachable):
            inventory.list()

    def test_while_it_is_listed_it_tells_what_has_answered(
        self, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        release = threading.Event()

        def slow(call: Call) -> Reply | None:
            if call.path == "/api/v1/pods":
                release.wait(20)
            return None

        cluster_front.rules.append(slow)
        asking = threading.Thread(target=inventory.list)
        asking.start()
        try:
            until(lambda: inventory.progress().waiting == ("pods",))
            assert "jobs.batch" in inventory.progress().answered
        finally:
            release.set()
            asking.join()
        assert inventory.progress().waiting == ()

    def test_closing_ends_every_watch(self, cluster_front: Front, inventory: KubernetesInventory) -> None:
        inventory.list()
        threads = [watched._thread for watched in inventory._watched.values()]
        assert len(threads) > 15

        inventory.close()

        for thread in threads:
            assert thread is not None
            thread.join(10)
            assert not thread.is_alive()


# One of them.


class TestDescribing:
    @pytest.mark.parametrize("kind", OWNERS)
    def test_agrees_with_the_list(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory, kind: str
    ) -> None:
        external_id = put(cluster, namespace, kind)
        short = workloads(inventory.list(), namespace)[external_id]

        full = inventory.describe(short.ref)

        assert full.fully_described
        for name in {field.name for field in fields(full)} - {"fully_described", "blockers"}:
            assert getattr(full, name) == getattr(short, name), name

    def test_a_node_agrees_with_the_list(self, cluster: Cluster, inventory: KubernetesInventory) -> None:
        name = cluster.node(labels={"nvidia.com/gpu.product": "NVIDIA-L4", "topology.kubernetes.io/region": "eu"})
        (short,) = (record for record in inventory.list().records if record.ref.external_id == name)

        full = inventory.describe(short.ref)

        assert full.fully_described
        assert (full.ref, full.gpu_count, full.placements) == (short.ref, 8, ())

    def test_never_answers_from_memory(
        self, cluster: Cluster, namespace: str, cluster_front: Front, inventory: KubernetesInventory
    ) -> None:
        deployment = workloads(inventory_of(inventory, cluster, namespace, "Deployment"), namespace)
        ref = next(iter(deployment.values())).ref
        cluster.patch("Deployment", "it", {"metadata": {"annotations": {"curfew-protect": "true"}}}, namespace)

        assert [protection.source for protection in inventory.describe(ref).protections] == ["curfew-protect"]

    def test_says_what_is_gone(self, cluster: Cluster, namespace: str, inventory: KubernetesInventory) -> None:
        answered = inventory_of(inventory, cluster, namespace, "Pod")
        (record,) = workloads(answered, namespace).values()
        cluster.delete("Pod", "it", namespace, at_once=True)

        with pytest.raises(NotFound):
            inventory.describe(record.ref)

    @pytest.mark.parametrize("kind", ["Deployment", "Job"])
    def test_says_what_has_no_accelerators_any_more(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory, kind: str
    ) -> None:
        cluster.create(strip(OWNERS[kind]), namespace)

        with pytest.raises(NotFound, match="accelerators"):
            inventory.describe(workload(cluster, f"{namespace}/{kind}/it"))

    def test_what_belongs_to_something_else_by_now_is_not_itself_any_more(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory
    ) -> None:
        put(cluster, namespace, "Job")
        owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": "ray", "uid": "1", "controller": True}
        cluster.patch("Job", "it", {"metadata": {"ownerReferences": [owner]}}, namespace)

        with pytest.raises(NotFound):
            inventory.describe(workload(cluster, f"{namespace}/Job/it"))

    def test_a_stranger_is_told_by_its_pods(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory
    ) -> None:
        node = cluster.node()
        owner = {"apiVersion": "example.com/v1", "kind": "Foo", "name": "foo", "uid": "1", "controller": True}
        pod = OWNERS["Pod"]
        cluster.create({**pod, "metadata": {**pod["metadata"], "ownerReferences": [owner]}}, namespace)
        cluster.settle(namespace, node=node)
        (short,) = workloads(inventory.list(), namespace).values()

        full = inventory.describe(short.ref)

        assert (full.ref.external_id, full.listed_in, full.gpu_count) == (f"{namespace}/Foo/foo", "pods", 1)
        assert {blocker.verb for blocker in full.blockers} >= {Verb.STOP}
        cluster.delete("Pod", "it", namespace, at_once=True)
        with pytest.raises(NotFound):
            inventory.describe(short.ref)

    def test_a_bare_pod_that_a_budget_protects_cannot_be_stopped_now(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory
    ) -> None:
        answered = inventory_of(inventory, cluster, namespace, "Pod")
        (record,) = workloads(answered, namespace).values()
        free = {blocker.code for blocker in inventory.describe(record.ref).blockers}
        for name, app in (("its", "it"), ("another", "other")):
            spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}
            cluster.create(manifest("policy/v1", "PodDisruptionBudget", spec, name=name), namespace)

        until(lambda: cluster.get("PodDisruptionBudget", "its", namespace)["status"].get("currentHealthy") is not None)
        blockers = [blocker for blocker in inventory.describe(record.ref).blockers if blocker.code not in free]

        assert [(blocker.verb, blocker.code) for blocker in blockers] == [(Verb.STOP, "DisruptionBudget")]
        assert "its" in blockers[0].sentence

    def test_an_autoscaler_is_remarked(self, cluster: Cluster, namespace: str, inventory: KubernetesInventory) -> None:
        answered = inventory_of(inventory, cluster, namespace, "Deployment")
        (record,) = workloads(answered, namespace).values()
        for name, target in (("its", "it"), ("another", "other")):
            spec = {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                "maxReplicas": 3,
            }
            cluster.create(manifest("autoscaling/v2", "HorizontalPodAutoscaler", spec, name=name), namespace)

        (remark,) = set(inventory.describe(record.ref).remarks) - set(record.remarks)

        assert remark.startswith("HorizontalPodAutoscaler its ")

    @pytest.mark.parametrize("what", ["deployments", "pods", "replicasets", "nodes", "namespaces"])
    def test_leaves_nothing_open(
        self, cluster: Cluster, namespace: str, cluster_front: Front, inventory: KubernetesInventory, what: str
    ) -> None:
        answered = inventory_of(inventory, cluster, namespace, "Deployment")
        (record,) = workloads(answered, namespace).values()
        words = refused(403, "Forbidden", f'cannot get resource "{what}" in API group "apps"')
        failing(cluster_front, lambda call: f"/{what}" in call.path and "kube-system" not in call.path, words)

        with pytest.raises(Forbidden):
            inventory.describe(record.ref)

    def test_another_cluster_is_never_taken_for_one_where_it_is_gone(
        self, cluster: Cluster, namespace: str, inventory: KubernetesInventory
    ) -> None:
        ref = workload(cluster, f"{namespace}/Deployment/it", account="another-cluster")

        with pytest.raises(Unreachable, match="another cluster"):
            inventory.describe(ref)


@pytest.mark.parametrize(
    ("selector", "means"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "it"}}, True),
        ({"matchLabels": {"app": "it", "tier": "web"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["it", "that"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["it"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "it"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_a_selector_means_what_kubernetes_says(selector: Mapping[str, Any] | None, means: bool) -> None:
    assert selects(selector, {"app": "it"}) is means


def inventory_of(inventory: KubernetesInventory, cluster: Cluster, namespace: str, kind: str) -> InventoryAnswer:
    put(cluster, namespace, kind)
    return inventory.list()


def workload(cluster: Cluster, external_id: str, *, account: str | None = None) -> ResourceRef:
    uid = account or cluster.get("Namespace", "kube-system")["metadata"]["uid"]
    return ResourceRef(provider="kubernetes", account=uid, region="", kind=Kind.WORKLOAD, external_id=external_id)


def strip(owner: Manifest) -> Manifest:
    """The same without accelerators."""
    text = json.dumps(owner).replace(json.dumps(GPU), "{}")
    stripped: Manifest = json.loads(text)
    return stripped


BUILT_IN_GROUPS = [{"name": group, "versions": [{"version": "v1"}]} for group in ("apps", "batch", "resource.k8s.io")]
OWN_DEFINITION: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": OWN},
    "spec": {
        "group": "leaderworkerset.x-k8s.io",
        "names": {"kind": "LeaderWorkerSet", "plural": "leaderworkersets", "listKind": "LeaderWorkerSetList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_labels_of_namespaces_are_known_once_they_are_listed(cluster: Cluster, inventory: KubernetesInventory) -> None:
    name = cluster.namespace(labels={"team": "vision"})
    assert inventory.namespaces() is None

    inventory.list()

    told = inventory.namespaces()
    assert told is not None
    assert told[name]["team"] == "vision"
