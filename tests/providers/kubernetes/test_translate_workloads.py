"""Workloads as records: who owns what, what it holds, in what state it is, and what stands against stopping it."""

from __future__ import annotations

import copy
import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.kubernetes import translate
from providers.kubernetes.owners import COLLECTIONS, OWNERS
from providers.records import CapacityType, Initiator, Kind, LossName, State, Verb
from tests.providers.kubernetes.objects import (
    CLUSTER,
    DAYS_AGO,
    NOW,
    Object,
    ago,
    cluster,
    container,
    deployment,
    namespace,
    node,
    owned_by,
    owner,
    pod,
    pod_spec,
    records,
    template,
    the_workload,
    word_of,
)
from tests.providers.kubernetes.test_translate_nodes import AKS, AWS_ID, EKS, a_gpu, a_slice, an_instance

GPU = "nvidia.com/gpu"


def job(name: str = "train", *, of: Object | None = None, ask: Any = None, parallelism: int = 1, **more: Any) -> Object:
    spec = {"parallelism": parallelism, "completions": parallelism, **template(ask)} | more.pop("spec", {})
    return owner("Job", name, spec, of=of, **more)


# Who owns it.


def replica_set(of: Object, name: str = "serve-5d9c") -> Object:
    return owner("ReplicaSet", name, of=of)


def chain(*owners: Object) -> list[Object]:
    """Each owned by the one before it, and a pod of the last."""
    linked: list[Object] = []
    for one in owners:
        if linked:
            one["metadata"] |= owned_by(linked[-1])
        linked.append(one)
    return [*linked, pod(of=linked[-1])]


RAY = {
    "headGroupSpec": {"template": {"spec": pod_spec({})}},
    "workerGroupSpecs": [{"groupName": "gpu", "replicas": 2, "minReplicas": 0, "maxReplicas": 9, **template()}],
}
CHAINS: dict[str, tuple[list[Object], str, str]] = {
    "a bare pod": ([pod("alone")], "vision/Pod/alone", "pods"),
    "a Job": (chain(job()), "vision/Job/train", "jobs.batch"),
    "a CronJob": (
        chain(owner("CronJob", "nightly", {"jobTemplate": {"spec": template()}}), job("nightly-1")),
        "vision/CronJob/nightly",
        "cronjobs.batch",
    ),
    "a Deployment": (
        chain(deployment(), owner("ReplicaSet", "serve-1")),
        "vision/Deployment/serve",
        "deployments.apps",
    ),
    "a StatefulSet": (chain(owner("StatefulSet", "db", template())), "vision/StatefulSet/db", "statefulsets.apps"),
    "a DaemonSet": (chain(owner("DaemonSet", "agent", template())), "vision/DaemonSet/agent", "daemonsets.apps"),
    "a JobSet": (
        chain(
            owner("JobSet", "big", {"replicatedJobs": [{"replicas": 1, "template": {"spec": template()}}]}),
            job("big-0"),
        ),
        "vision/JobSet/big",
        "jobsets.jobset.x-k8s.io",
    ),
    "a RayCluster": (chain(owner("RayCluster", "ray", RAY)), "vision/RayCluster/ray", "rayclusters.ray.io"),
    "a RayJob": (
        chain(owner("RayJob", "tune", {"rayClusterSpec": RAY}), owner("RayCluster", "tune-x", RAY)),
        "vision/RayJob/tune",
        "rayjobs.ray.io",
    ),
    "a RayService": (
        chain(owner("RayService", "llm", {"rayClusterConfig": RAY}), owner("RayCluster", "llm-x", RAY)),
        "vision/RayService/llm",
        "rayservices.ray.io",
    ),
    "a PyTorchJob": (
        chain(owner("PyTorchJob", "ddp", {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, **template()}}})),
        "vision/PyTorchJob/ddp",
        "pytorchjobs.kubeflow.org",
    ),
    "an MPIJob": (
        chain(owner("MPIJob", "hvd", {"mpiReplicaSpecs": {"Worker": {"replicas": 2, **template()}}})),
        "vision/MPIJob/hvd",
        "mpijobs.kubeflow.org",
    ),
    "a TrainJob, whose runtime says what it asks for": (
        chain(
            owner("TrainJob", "llama", {"runtimeRef": {"name": "torch"}}),
            owner("JobSet", "llama", {"replicatedJobs": [{"replicas": 1, "template": {"spec": template()}}]}),
            job("llama-node-0"),
        ),
        "vision/TrainJob/llama",
        "trainjobs.trainer.kubeflow.org",
    ),
    "a Notebook": (
        chain(owner("Notebook", "nb", template()), owner("StatefulSet", "nb", template())),
        "vision/Notebook/nb",
        "notebooks.kubeflow.org",
    ),
    "an InferenceService": (
        chain(
            owner("InferenceService", "llm", {"predictor": {"model": {"modelFormat": {"name": "vllm"}}}}),
            deployment("llm-predictor"),
            owner("ReplicaSet", "llm-predictor-1"),
        ),
        "vision/InferenceService/llm",
        "inferenceservices.serving.kserve.io",
    ),
    "an InferenceService on Knative": (
        chain(
            owner("InferenceService", "llm", {"predictor": {"model": {"modelFormat": {"name": "vllm"}}}}),
            owner("Service", "llm-predictor", api_version="serving.knative.dev/v1"),
            owner("Configuration", "llm-predictor", api_version="serving.knative.dev/v1"),
            owner("Revision", "llm-predictor-1", api_version="serving.knative.dev/v1"),
            deployment("llm-predictor-1-deployment"),
            owner("ReplicaSet", "llm-predictor-1-deployment-1"),
        ),
        "vision/InferenceService/llm",
        "inferenceservices.serving.kserve.io",
    ),
    "a LeaderWorkerSet, through its leader": (
        [
            *chain(
                owner(
                    "LeaderWorkerSet",
                    "deepseek",
                    {"leaderWorkerTemplate": {"size": 2, "workerTemplate": template()["template"]}},
                ),
                owner("StatefulSet", "deepseek", template({})),
            )[:-1],
            pod(
                "deepseek-0",
                {},
                of=owner("StatefulSet", "deepseek"),
                metadata={"labels": {"leaderworkerset.sigs.k8s.io/worker-index": "0"}},
            ),
            owner("StatefulSet", "deepseek-0", template(), of=pod("deepseek-0")),
            pod("deepseek-0-1", of=owner("StatefulSet", "deepseek-0")),
        ],
        "vision/LeaderWorkerSet/deepseek",
        "leaderworkersets.leaderworkerset.x-k8s.io",
    ),
    "a stranger": (
        chain(owner("Foo", "bar", api_version="example.org/v1"), deployment("bar"), owner("ReplicaSet", "bar-1")),
        "vision/Foo/bar",
        "pods",
    ),
    "a stranger of the same kind as one of ours": (
        chain(owner("Job", "bar", api_version="batch.volcano.sh/v1alpha1")),
        "vision/Job.batch.volcano.sh/bar",
        "pods",
    ),
    "a ReplicaSet without a Deployment": (chain(owner("ReplicaSet", "old")), "vision/ReplicaSet/old", "pods"),
    "one that only has an owner, no controller": (
        [pod("p", metadata={"ownerReferences": [{"apiVersion": "v1", "kind": "Foo", "name": "f", "uid": "u"}]})],
        "vision/Pod/p",
        "pods",
    ),
    "owners in a circle": (
        [
            owner("Deployment", "a", template(), of=owner("Deployment", "b")),
            owner("Deployment", "b", template(), of=owner("Deployment", "a")),
            pod(of=owner("Deployment", "a")),
        ],
        "",
        "deployments.apps",
    ),
}


def listable(objects: Sequence[Object]) -> list[Object]:
    """Without those of kinds that nobody lists."""
    kinds = {(collection.group, collection.kind) for collection in COLLECTIONS.values()}
    return [obj for obj in objects if (obj["apiVersion"].rpartition("/")[0], obj["kind"]) in kinds]


@pytest.mark.parametrize("case", CHAINS)
def test_pods_are_grouped_under_their_top_owner(case: str) -> None:
    objects, external_id, listed_in = CHAINS[case]
    found = {key: record for key, record in records(*listable(objects), node()).items() if record.placements}
    assert found.keys() == {external_id} if external_id else len(found) == 1
    (record,) = found.values()
    assert (record.ref.account, record.ref.region, record.ref.kind) == (CLUSTER, "", Kind.WORKLOAD)
    assert record.listed_in == listed_in
    assert record.state is State.RUNNING
    assert record.managed_by is None
    assert record.name == record.ref.external_id.rpartition("/")[2]
    assert not record.fully_described


def test_the_uid_of_the_top_owner_tells_it_from_an_older_one_of_its_name() -> None:
    record = the_workload(*CHAINS["a Deployment"][0])
    assert record.incarnation == "uid-of-Deployment-vision-serve"


def test_everything_of_one_owner_is_one_workload() -> None:
    of = job(parallelism=3)
    record = the_workload(of, *(pod(f"train-{number}", {GPU: 2}, of=of) for number in range(3)))
    assert record.gpu_count == 6
    assert [placed.pod for placed in record.placements] == ["train-0", "train-1", "train-2"]


def test_the_same_name_in_two_namespaces_is_two_workloads() -> None:
    found = records(node(), pod("p", namespace="a"), pod("p", namespace="b"))
    assert {"a/Pod/p", "b/Pod/p"} < found.keys()


def test_an_owner_in_another_namespace_is_none() -> None:
    victim = deployment(namespace="speech")
    forged = pod("forged", of=victim, namespace="vision")
    between = owner("ReplicaSet", "forged", of=victim, namespace="vision")
    found = records(victim, pod("serve-0", of=victim, namespace="speech"), forged, between, pod("deep", of=between))
    assert found.keys() == {"speech/Deployment/serve", "vision/Pod/forged", "vision/ReplicaSet/forged"}
    assert [placed.pod for placed in found["speech/Deployment/serve"].placements] == ["serve-0"]


def test_strangers_of_one_uid_in_two_namespaces_are_two() -> None:
    flow = owner("Workflow", "flow", api_version="argoproj.io/v1alpha1")
    found = records(pod("p", of=flow), pod("q", of=flow, namespace="speech"))
    assert found.keys() == {"vision/Workflow/flow", "speech/Workflow/flow"}


def test_an_owner_whose_name_another_has_by_now_is_none() -> None:
    old = deployment(metadata={"uid": "of-the-one-before"})
    found = records(deployment(), pod("serve-0", of=deployment()), pod("left", of=old))
    assert found.keys() == {"vision/Deployment/serve", "vision/Pod/left"}


@pytest.mark.parametrize(
    "nonsense",
    [
        {"name": "../../speech/deployments/serve"},
        {"name": "serve\nSubject: hello"},
        {"name": "x" * 300},
        {"kind": "Deployment/serve"},
        {"kind": "<b>Deployment</b>"},
        {"apiVersion": "see https://example.org"},
        {"uid": "a\u202eb"},
    ],
    ids=str,
)
def test_what_nothing_can_be_called_owns_nothing(nonsense: dict[str, str]) -> None:
    (reference,) = owned_by(deployment())["ownerReferences"]
    forged = pod("p", metadata={"ownerReferences": [reference | nonsense]})
    assert records(forged).keys() == {"vision/Pod/p"}


def test_whoever_asks_for_more_than_the_world_has_is_counted_all_the_same() -> None:
    most = 2**31 - 1
    assert the_workload(pod(ask={GPU: str(2**63 - 1)}, on=None)).gpu_count == most
    assert the_workload(deployment(replicas=most, ask={GPU: most})).gpu_count == most
    assert the_workload(pod(ask={"nvidia.com/mig-1g.99999999999gb": "1"}, on=None)).gpu_memory_mib is None
    endless = {"containers": [{"resources": {"limits": {GPU: "9" * 5000}}}]}
    assert records(owner("RayCluster", "ray", {"headGroupSpec": {"template": {"spec": endless}}})) == {}


def test_a_pod_that_was_seen_a_moment_before_its_replica_set_waits_for_it() -> None:
    of = deployment()
    early = pod(of=owner("ReplicaSet", "serve-1", of=of))
    assert records(of, early).keys() == {"vision/Deployment/serve"}


def test_without_leave_to_list_replica_sets_pods_are_shown_all_the_same() -> None:
    kept = cluster(pod(of=owner("ReplicaSet", "serve-1")))
    blind = {word: objects for word, objects in kept.objects.items() if word != "replicasets.apps"}
    (record,) = translate.records(translate.Cluster(uid=CLUSTER, objects=blind), now=NOW)
    assert record.ref.external_id == "vision/ReplicaSet/serve-1"
    assert {blocker.code for blocker in record.blockers} == {"NoWay"}


# What it holds.


def test_a_running_job() -> None:
    of = job(metadata={"labels": {"project": "vision"}})
    record = the_workload(
        node(labels=EKS, provider_id=AWS_ID), of, pod("train-x", {GPU: 2}, of=of, started=ago(hours=3))
    )
    assert (record.sku, record.gpu_vendor, record.gpu_model, record.gpu_count) == (GPU, "nvidia", "V100", 2)
    assert (record.gpu_share, record.gpu_memory_mib) == (1.0, 32768)
    assert (record.zone, record.capacity_type) == ("us-east-1a", CapacityType.ON_DEMAND)
    assert record.launched_at == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert record.created_at is not None
    assert f"{record.created_at:%Y-%m-%dT%H:%M:%SZ}" == DAYS_AGO
    assert record.placements[0].share == Fraction(2, 8)


def test_the_latest_start_of_its_pods_counts() -> None:
    of = job(parallelism=2)
    pods = [pod("a", of=of, started=ago(hours=3)), pod("b", of=of, started=ago(hours=1))]
    assert the_workload(of, *pods).launched_at == datetime(2026, 11, 22, 11, tzinfo=UTC)


def test_pods_without_accelerators_are_none_of_ours() -> None:
    assert records(pod(ask={}), job(ask={}), deployment(ask={}, replicas=3)) == {}


def test_finished_pods_hold_nothing() -> None:
    assert records(pod("done", phase="Succeeded"), pod("broken", phase="Failed")) == {}


def test_init_containers_and_sidecars_count_as_for_the_scheduler() -> None:
    sidecar = container({GPU: 1}, name="proxy", restartPolicy="Always")
    assert the_workload(pod("p", {GPU: 2}, initContainers=[sidecar])).gpu_count == 3


def test_a_mig_instance_is_a_device_of_its_own() -> None:
    on = node(capacity={"nvidia.com/mig-3g.20gb": "2"}, labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"})
    record = the_workload(on, pod("p", {"nvidia.com/mig-3g.20gb": 2}))
    assert (record.sku, record.gpu_count) == ("nvidia.com/mig-3g.20gb", 2)
    assert record.gpu_share == pytest.approx(3 / 7)
    assert (record.gpu_model, record.gpu_memory_mib) == ("A100", 20 * 1024)


def test_of_mixed_devices_the_share_is_what_they_are_on_average() -> None:
    on = node(capacity={GPU: "7", "nvidia.com/mig-1g.5gb": "7"})
    record = the_workload(on, pod("p", {GPU: 1, "nvidia.com/mig-1g.5gb": 3}))
    assert (record.gpu_count, record.sku, record.gpu_memory_mib) == (4, "nvidia.com/mig-1g.5gb", None)
    assert record.gpu_share == pytest.approx((1 + 3 / 7) / 4)


def test_a_pod_on_a_part_of_a_gpu_of_a_machine_that_has_itself_a_part() -> None:
    on = node(capacity={GPU: "1"}, labels={"node.kubernetes.io/instance-type": "g6f.2xlarge"})
    record = the_workload(on, pod("p"))
    assert record.gpu_share == 0.25
    assert record.placements[0].share == 1


def test_nodes_that_differ_leave_open_what_it_is_on() -> None:
    of = job(parallelism=2)
    spot = EKS | {"eks.amazonaws.com/capacityType": "SPOT", "topology.kubernetes.io/zone": "us-east-1b"}
    l4 = spot | {"node.kubernetes.io/instance-type": "g6.12xlarge"}
    nodes = [node("a", labels=EKS, provider_id=AWS_ID), node("b", capacity={GPU: 4}, labels=l4, provider_id=AWS_ID)]
    record = the_workload(*nodes, of, pod("p", of=of, on="a"), pod("q", of=of, on="b"))
    assert (record.zone, record.gpu_model, record.gpu_memory_mib) == (None, None, None)
    assert record.gpu_vendor == "nvidia"
    assert record.capacity_type is CapacityType.UNKNOWN


def test_what_a_pod_on_an_unseen_node_costs_is_not_made_up() -> None:
    record = the_workload(pod("p", on="unseen"))
    assert [placed.node for placed in record.placements] == ["unseen"]
    assert (record.state, record.capacity_type, record.gpu_model) == (State.RUNNING, CapacityType.UNKNOWN, None)


WISHES: dict[str, tuple[dict[str, Any], str | None, CapacityType]] = {
    "nothing": ({}, None, CapacityType.UNKNOWN),
    "a node selector": (
        {"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-spot": "true"}},
        "L4",
        CapacityType.SPOT,
    ),
    "a required affinity": (
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                                    {
                                        "key": "node.kubernetes.io/instance-type",
                                        "operator": "In",
                                        "values": ["p5.48xlarge"],
                                    },
                                ]
                            }
                        ]
                    }
                }
            }
        },
        "H100",
        CapacityType.ON_DEMAND,
    ),
    "one of two": (
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "karpenter.sh/capacity-type",
                                        "operator": "In",
                                        "values": ["spot", "on-demand"],
                                    }
                                ]
                            }
                        ]
                    }
                }
            }
        },
        None,
        CapacityType.UNKNOWN,
    ),
    "a pool says nothing of how it was bought": (
        {"nodeSelector": {"kubernetes.azure.com/agentpool": "gpu"}},
        None,
        CapacityType.UNKNOWN,
    ),
}


@pytest.mark.parametrize("case", WISHES)
@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "suspended"])
def test_what_it_wants_tells_what_it_will_be_on(case: str, waiting: bool) -> None:
    spec, model, capacity = WISHES[case]
    of = owner("Job", "train", {"suspend": not waiting, **template(None, **spec)})
    record = the_workload(of, *([pod(of=of, on=None, **spec)] if waiting else []))
    assert record.state is (State.PENDING if waiting else State.STOPPED)
    assert (record.gpu_model, record.capacity_type) == (model, capacity)


# Devices of DRA.


def a_claim(name: str, *devices: str, driver: str = "gpu.nvidia.com", pool: str = "gpu-1", **result: Any) -> Object:
    results = [{"request": "gpu", "driver": driver, "pool": pool, "device": device} | result for device in devices]
    return owner("ResourceClaim", name) | {"status": {"allocation": {"devices": {"results": results}}}}


def claiming(name: str, *claims: str, **more: Any) -> Object:
    asked = [{"name": claim, "resourceClaimName": claim} for claim in claims]
    return pod(name, {}, resourceClaims=asked, **more)


TWO_GPUS = [node(capacity={}), a_slice(a_gpu("gpu-0"), a_gpu("gpu-1"))]


def test_devices_of_a_claim_are_held() -> None:
    record = the_workload(*TWO_GPUS, a_claim("c", "gpu-0"), claiming("p", "c"))
    assert (record.sku, record.gpu_vendor, record.gpu_model, record.gpu_count) == (
        "gpu.nvidia.com",
        "nvidia",
        "H100",
        1,
    )
    assert record.placements[0].share == Fraction(1, 2)


def test_a_claim_made_from_a_template_is_found_by_the_pods_status() -> None:
    made = {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x7"}]}
    asked = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    record = the_workload(
        *TWO_GPUS, a_claim("p-gpu-x7", "gpu-0", "gpu-1"), pod("p", {}, resourceClaims=asked, status=made)
    )
    assert (record.gpu_count, record.placements[0].share) == (2, Fraction(1))


def test_claims_add_to_what_containers_ask_for() -> None:
    on = [node(capacity={GPU: "2"}), a_slice(a_gpu("gpu-0"), a_gpu("gpu-1"))]
    asked = [{"name": "c", "resourceClaimName": "c"}]
    record = the_workload(*on, a_claim("c", "gpu-0"), pod("p", {GPU: 1}, resourceClaims=asked))
    assert (record.gpu_count, record.placements[0].share) == (2, Fraction(1))


def test_a_device_that_pods_share_is_one_device_and_divided() -> None:
    of = job(parallelism=2)
    record = the_workload(*TWO_GPUS, of, a_claim("c", "gpu-0"), claiming("p", "c", of=of), claiming("q", "c", of=of))
    assert record.gpu_count == 1
    assert [placed.share for placed in record.placements] == [Fraction(1, 4), Fraction(1, 4)]


def test_a_mig_device_of_dra_is_the_part_that_its_slice_says() -> None:
    on = [node(capacity={}), a_slice(a_gpu("gpu-0"), an_instance("gpu-0-mig-9-0-4", "3g.40gb", "GPU-gpu-0"))]
    record = the_workload(*on, a_claim("c", "gpu-0-mig-9-0-4"), claiming("p", "c"))
    assert record.gpu_share == pytest.approx(3 / 7)
    assert record.placements[0].share == Fraction(3, 7)


def test_network_cards_and_looking_on_hold_nothing() -> None:
    nic = a_claim("nic", "nic-0", driver="dra.net")
    watching = a_claim("watching", "gpu-0", adminAccess=True)
    found = records(*TWO_GPUS, nic, watching, claiming("p", "nic", "watching"))
    assert found.keys() == {"gpu-1"}


def test_a_claim_that_is_not_allocated_yet_is_waited_for() -> None:
    one_gpu = owner(
        "ResourceClaimTemplate",
        "one-gpu",
        {
            "spec": {
                "devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.nvidia.com", "count": 2}}]}
            }
        },
    )
    asked = [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    record = the_workload(one_gpu, pod("p", {}, on=None, resourceClaims=asked))
    assert (record.state, record.sku, record.gpu_count) == (State.PENDING, "gpu.nvidia.com", 2)
    stopped = the_workload(one_gpu, owner("Deployment", "serve", {"replicas": 0, **template({}, resourceClaims=asked)}))
    assert (stopped.state, stopped.gpu_count) == (State.STOPPED, 2)


# What its template asks for, while it has no pods.

TEMPLATES: dict[str, tuple[Object, int]] = {
    "a Job": (job(ask={GPU: 2}, parallelism=4, spec={"suspend": True}), 8),
    "a Deployment at zero": (deployment(replicas=0, ask={GPU: 2}), 2),
    "a Deployment that was never counted": (owner("Deployment", "serve", template({GPU: 2})), 2),
    "a CronJob": (owner("CronJob", "nightly", {"jobTemplate": {"spec": {"parallelism": 2, **template()}}}), 2),
    "a JobSet": (
        owner(
            "JobSet",
            "big",
            {
                "suspend": True,
                "replicatedJobs": [
                    {"replicas": 2, "template": {"spec": {"parallelism": 4, **template({GPU: 8})}}},
                    {"replicas": 1, "template": {"spec": template({})}},
                ],
            },
        ),
        64,
    ),
    "a RayCluster": (
        owner(
            "RayCluster",
            "ray",
            {
                "suspend": True,
                "headGroupSpec": template({GPU: 1}),
                "workerGroupSpecs": [
                    {"replicas": 3, "minReplicas": 2, "maxReplicas": 9, "numOfHosts": 2, **template({GPU: 4})}
                ],
            },
        ),
        25,
    ),
    "a RayCluster whose workers come on demand": (
        owner("RayCluster", "ray", {"workerGroupSpecs": [{"replicas": 0, "minReplicas": 0, **template({GPU: 4})}]}),
        4,
    ),
    "a PyTorchJob": (
        owner(
            "PyTorchJob",
            "ddp",
            {
                "runPolicy": {"suspend": True},
                "pytorchReplicaSpecs": {
                    "Master": {"replicas": 1, **template({GPU: 8})},
                    "Worker": {"replicas": 3, **template({GPU: 8})},
                },
            },
        ),
        32,
    ),
    "a TrainJob that says it itself": (
        owner("TrainJob", "llama", {"trainer": {"numNodes": 4, "resourcesPerNode": {"requests": {GPU: 8}}}}),
        32,
    ),
    "a Notebook": (
        owner("Notebook", "nb", template(), metadata={"annotations": {"kubeflow-resource-stopped": DAYS_AGO}}),
        1,
    ),
    "an InferenceService": (
        owner(
            "InferenceService",
            "llm",
            {"predictor": {"minReplicas": 2, "model": {"resources": {"limits": {GPU: "4"}}}}},
        ),
        8,
    ),
    "an InferenceService with containers of its own": (
        owner("InferenceService", "llm", {"predictor": {"minReplicas": 2, "containers": [container({GPU: 4})]}}),
        8,
    ),
    "a LeaderWorkerSet": (
        owner(
            "LeaderWorkerSet",
            "deepseek",
            {"replicas": 2, "leaderWorkerTemplate": {"size": 4, "workerTemplate": {"spec": pod_spec({GPU: 8})}}},
        ),
        64,
    ),
    "a LeaderWorkerSet whose leader is another": (
        owner(
            "LeaderWorkerSet",
            "deepseek",
            {
                "replicas": 1,
                "leaderWorkerTemplate": {
                    "size": 3,
                    "leaderTemplate": {"spec": pod_spec({GPU: 1})},
                    "workerTemplate": {"spec": pod_spec({GPU: 8})},
                },
            },
        ),
        17,
    ),
    "a kind of tomorrow, of whatever shape": (
        owner("RayService", "new", {"deep": {"pools": [{"sort": {"resources": {"limits": {GPU: "3"}}}}]}}),
        3,
    ),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_without_pods_it_is_shown_with_what_its_template_asks_for(case: str) -> None:
    obj, count = TEMPLATES[case]
    record = the_workload(obj)
    assert (record.gpu_count, record.sku, record.gpu_vendor) == (count, GPU, "nvidia")
    assert record.placements == ()
    assert record.launched_at is None


def test_what_stands_between_it_and_its_pods_does_not_count_again() -> None:
    objects = listable(CHAINS["a JobSet"][0])[:-1]
    assert the_workload(*objects).gpu_count == 1


def test_where_the_top_does_not_say_those_below_it_do() -> None:
    objects = listable(CHAINS["a TrainJob, whose runtime says what it asks for"][0])[:-1]
    record = the_workload(*objects)
    assert (record.ref.external_id, record.gpu_count) == ("vision/TrainJob/llama", 1)


# Its state.

SUSPENDED: Any = {"spec": {"suspend": True}}
GOING: Any = {"deletionTimestamp": ago(minutes=1)}
COMPLETE: Any = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}


def kueue(of: Object, *, active: bool | None = None) -> Object:
    return owner("Workload", f"job-{of['metadata']['name']}", {} if active is None else {"active": active}, of=of)


STATES: dict[str, tuple[list[Object], State]] = {
    "a pod runs": ([job(), pod(of=job())], State.RUNNING),
    "a pod is bound, and pulls its image": ([pod(phase="Pending")], State.RUNNING),
    "one runs, one waits": ([job(), pod("a", of=job()), pod("b", of=job(), on=None)], State.RUNNING),
    "one runs, one goes": ([job(), pod("a", of=job()), pod("b", of=job(), metadata=GOING)], State.RUNNING),
    "all go": ([job(), pod("a", of=job(), metadata=GOING), pod("b", of=job(), metadata=GOING)], State.STOPPING),
    "all go, and it is suspended": ([job(**SUSPENDED), pod(of=job(), metadata=GOING)], State.STOPPING),
    "all that go were waiting": ([job(**SUSPENDED), pod(of=job(), on=None, metadata=GOING)], State.STOPPED),
    "all wait": ([job(), pod(of=job(), on=None)], State.PENDING),
    "its node fell silent": ([pod(phase="Unknown")], State.UNKNOWN),
    "a Job has no pods yet": ([job()], State.PENDING),
    "a Job is suspended": ([job(**SUSPENDED)], State.STOPPED),
    "a Job is complete": ([job(**COMPLETE)], State.TERMINATED),
    "a Job failed": ([job(status={"conditions": [{"type": "Failed", "status": "True"}]})], State.TERMINATED),
    "a Job has not failed": ([job(status={"conditions": [{"type": "Failed", "status": "False"}]})], State.PENDING),
    "a Job is being deleted": ([job(metadata=GOING)], State.STOPPING),
    "a CronJob between two runs": ([owner("CronJob", "n", {"jobTemplate": {"spec": template()}})], State.STOPPED),
    "a CronJob whose last run is over": (
        [
            owner("CronJob", "n", {"jobTemplate": {"spec": template()}}),
            job("n-1", of=owner("CronJob", "n"), **COMPLETE),
        ],
        State.STOPPED,
    ),
    "a Deployment at zero": ([deployment(replicas=0)], State.STOPPED),
    "a Deployment that wants pods": ([deployment(replicas=1)], State.PENDING),
    "a Deployment that does not say": ([owner("Deployment", "d", template())], State.PENDING),
    "a StatefulSet at zero": ([owner("StatefulSet", "s", {"replicas": 0, **template()})], State.STOPPED),
    "a DaemonSet without nodes": ([owner("DaemonSet", "d", template())], State.STOPPED),
    "a PyTorchJob is suspended": ([TEMPLATES["a PyTorchJob"][0]], State.STOPPED),
    "a PyTorchJob succeeded": (
        [
            owner(
                "PyTorchJob",
                "p",
                {"pytorchReplicaSpecs": {"Worker": template()}},
                status={"conditions": [{"type": "Succeeded", "status": "True"}]},
            )
        ],
        State.TERMINATED,
    ),
    "a RayCluster is suspended": ([TEMPLATES["a RayCluster"][0]], State.STOPPED),
    "a RayJob is complete": (
        [owner("RayJob", "r", {"rayClusterSpec": RAY}, status={"jobDeploymentStatus": "Complete"})],
        State.TERMINATED,
    ),
    "a Notebook is stopped": ([TEMPLATES["a Notebook"][0]], State.STOPPED),
    "a Notebook starts": ([owner("Notebook", "nb", template())], State.PENDING),
    "an InferenceService may be at zero": (
        [
            owner(
                "InferenceService", "i", {"predictor": {"minReplicas": 0, "model": {"resources": {"limits": {GPU: 1}}}}}
            )
        ],
        State.STOPPED,
    ),
    "an InferenceService is stopped by its annotation": (
        [
            owner(
                "InferenceService",
                "i",
                {"predictor": {"model": {"resources": {"limits": {GPU: 1}}}}},
                metadata={"annotations": {"serving.kserve.io/stop": "true"}},
            )
        ],
        State.STOPPED,
    ),
    "Kueue has not let it in yet": ([job(**SUSPENDED), kueue(job())], State.PENDING),
    "Kueue was told to hold it": ([job(**SUSPENDED), kueue(job(), active=False)], State.STOPPED),
    "Kueue lets it run": ([job(), kueue(job(), active=True), pod(of=job())], State.RUNNING),
    "a stranger's Deployment at zero": (
        [deployment(replicas=0, of=owner("Foo", "f", api_version="example.org/v1"))],
        State.STOPPED,
    ),
    "a stranger's Deployment that wants pods": (
        [deployment(of=owner("Foo", "f", api_version="example.org/v1"))],
        State.PENDING,
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_in_what_state_it_is(case: str) -> None:
    objects, state = STATES[case]
    assert the_workload(node(), *objects).state is state


def test_without_leave_to_list_pods_no_state_is_known() -> None:
    kept = cluster(job(), deployment(replicas=0))
    blind = {word: objects for word, objects in kept.objects.items() if word != "pods"}
    found = translate.records(translate.Cluster(uid=CLUSTER, objects=blind), now=NOW)
    assert [record.state for record in found] == [State.UNKNOWN, State.UNKNOWN]


def test_what_we_stopped_says_who_did_it_until_it_runs_again() -> None:
    marked = {"annotations": {"curfew.dev/stopped-by": "curfew, 2026-11-22T10:00:00Z: idle for 2 h"}}
    assert the_workload(job(metadata=marked, **SUSPENDED)).stopped_by is Initiator.PERSON
    assert the_workload(job(**SUSPENDED)).stopped_by is None
    assert the_workload(node(), job(metadata=marked), pod(of=job())).stopped_by is None


# Tags.


def test_labels_of_its_namespace_its_pods_and_its_owner_are_its_tags_the_nearest_first() -> None:
    of = deployment(metadata={"labels": {"owner": "an", "app": "serve"}})
    its = {"project": "pods", "owner": "pods", "pod-template-hash": "5d9c", "team": "a"}
    here = namespace(labels={"project": "namespace", "owner": "namespace", "cost-centre": "7"})
    record = the_workload(
        here,
        of,
        owner("ReplicaSet", "serve-1", of=of),
        pod("a", of=owner("ReplicaSet", "serve-1"), metadata={"labels": its}),
        pod("b", of=owner("ReplicaSet", "serve-1"), metadata={"labels": its | {"team": "b"}}),
    )
    assert record.tags == {"app": "serve", "cost-centre": "7", "owner": "an", "project": "pods"}


def test_without_pods_the_labels_of_its_template_stand_for_theirs() -> None:
    assert the_workload(deployment(replicas=0), namespace(labels={"project": "vision"})).tags == {
        "app": "train",
        "project": "vision",
    }


# What stands against stopping it.

PROTECTING: dict[str, tuple[str, str, bool]] = {
    "our own word": ("curfew-protect", "true", True),
    "our own word, taken back": ("curfew-protect", "false", False),
    "Karpenter": ("karpenter.sh/do-not-disrupt", "true", True),
    "the autoscaler": ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false", True),
    "the autoscaler, which may": ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true", False),
    "a downscaler": ("downscaler/exclude", "true", True),
    "a downscaler until a time": ("downscaler/exclude-until", "2026-12-01T00:00:00Z", True),
    "a downscaler until some time": ("downscaler/exclude-until", "Christmas", True),
    "a downscaler's hours": ("downscaler/force-uptime", "true", True),
    "nobody": ("example.org/important", "true", False),
}


@pytest.mark.parametrize("case", PROTECTING)
@pytest.mark.parametrize("whose", ["owner", "namespace", "pod", "between"])
@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_what_protects_it_wherever_it_stands(case: str, whose: str, where: str) -> None:
    key, value, protects = PROTECTING[case]
    said: Any = {where: {key: value}}
    top = owner("CronJob", "nightly", {"jobTemplate": {"spec": template()}}, metadata=said if whose == "owner" else {})
    between = job("nightly-1", of=top, metadata=said if whose == "between" else {})
    record = the_workload(
        namespace(**(said if whose == "namespace" else {})),
        top,
        between,
        pod(of=between, metadata=said if whose == "pod" else {}),
    )
    assert [protection.source for protection in record.protections] == ([key] if protects else [])
    assert all(key in protection.sentence for protection in record.protections)


def test_what_protects_it_is_said_in_short() -> None:
    said = {"annotations": {"curfew-protect": "y" * 200_000, "downscaler/exclude-until": "z" * 50_000}}
    assert all(len(protection.sentence) < 300 for protection in the_workload(job(metadata=said)).protections)


def test_a_protection_until_a_time_says_when() -> None:
    until = {"annotations": {"downscaler/exclude-until": "2026-12-01T07:00:00+07:00"}}
    (protection,) = the_workload(job(metadata=until)).protections
    assert protection.until == datetime(2026, 12, 1, tzinfo=UTC)
    open_end = {"annotations": {"downscaler/exclude-until": "Christmas"}}
    assert the_workload(job(metadata=open_end)).protections[0].until is None


@pytest.mark.parametrize("name", ["kube-system", "gpu-operator", "openshift-monitoring", "gke-managed-system"])
def test_what_belongs_to_the_cluster_itself_is_protected(name: str) -> None:
    (protection,) = the_workload(pod("p", namespace=name)).protections
    assert name in protection.sentence


def test_kubeflow_belongs_to_people() -> None:
    assert the_workload(pod("p", namespace="kubeflow-an")).protections == ()


VERBS: dict[str, set[Verb]] = {
    "a CronJob": {Verb.STOP, Verb.SUSPEND, Verb.TERMINATE},
    "a DaemonSet": {Verb.TERMINATE},
    "a Deployment": {Verb.STOP, Verb.SCALE_TO_ZERO, Verb.TERMINATE},
    "a Job": {Verb.STOP, Verb.SUSPEND, Verb.TERMINATE},
    "a JobSet": {Verb.STOP, Verb.SUSPEND, Verb.TERMINATE},
    "a LeaderWorkerSet, through its leader": {Verb.STOP, Verb.SCALE_TO_ZERO, Verb.TERMINATE},
    "a Notebook": {Verb.STOP, Verb.TERMINATE},
    "a PyTorchJob": {Verb.STOP, Verb.SUSPEND, Verb.TERMINATE},
    "a RayCluster": {Verb.STOP, Verb.SUSPEND, Verb.TERMINATE},
    "a RayService": {Verb.TERMINATE},
    "a ReplicaSet without a Deployment": set(),
    "a StatefulSet": {Verb.STOP, Verb.SCALE_TO_ZERO, Verb.TERMINATE},
    "a bare pod": {Verb.STOP, Verb.TERMINATE},
    "a stranger": set(),
    "an InferenceService": {Verb.STOP, Verb.SCALE_TO_ZERO, Verb.TERMINATE},
}


@pytest.mark.parametrize("case", VERBS)
def test_what_can_be_done_to_it(case: str) -> None:
    objects, external_id, _ = CHAINS[case]
    record = records(*listable(objects), node())[external_id]
    blocked = {blocker.verb for blocker in record.blockers}
    assert {Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO, Verb.TERMINATE} - blocked == VERBS[case]


def test_a_stranger_is_named_to_whoever_asks_why_nothing_was_done() -> None:
    record = the_workload(*listable(CHAINS["a stranger"][0]))
    assert {blocker.code for blocker in record.blockers} == {"NoWay"}
    assert record.blockers[0].sentence.startswith("Curfew knows no way to stop a Foo (example.org)")


def test_an_owner_that_is_not_seen_cannot_be_acted_on() -> None:
    record = the_workload(pod(of=owner("RayCluster", "ray")))
    assert (record.ref.external_id, record.listed_in) == ("vision/RayCluster/ray", "rayclusters.ray.io")
    assert {(blocker.code, blocker.verb) for blocker in record.blockers} == {
        ("OwnerUnseen", verb) for verb in (Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO, Verb.TERMINATE)
    }


@pytest.mark.parametrize("shuts_down", [True, False])
def test_a_rayjob_is_suspended_only_if_it_gives_its_cluster_up(shuts_down: bool) -> None:
    record = the_workload(owner("RayJob", "tune", {"shutdownAfterJobFinishes": shuts_down, "rayClusterSpec": RAY}))
    codes = {blocker.verb: blocker.code for blocker in record.blockers}
    assert (codes.get(Verb.STOP) == "RayJobKeepsCluster") is not shuts_down


def mounting(path: str, name: str = "work", **volume: Any) -> dict[str, Any]:
    return {
        "containers": [container(volumeMounts=[{"name": name, "mountPath": path}])],
        "volumes": [{"name": name, **(volume or {"emptyDir": {}})}],
    }


VOLUMES: dict[str, tuple[dict[str, Any], bool]] = {
    "an emptyDir that a container mounts": (mounting("/checkpoints"), True),
    "an ephemeral volume": (mounting("/checkpoints", ephemeral={"volumeClaimTemplate": {}}), True),
    "an emptyDir in memory": (mounting("/cache", emptyDir={"medium": "Memory"}), False),
    "shared memory": (mounting("/dev/shm"), False),
    "scratch": (mounting("/tmp/"), False),
    "an emptyDir that nobody mounts": ({"volumes": [{"name": "work", "emptyDir": {}}]}, False),
    "a claim on a disk": (mounting("/data", persistentVolumeClaim={"claimName": "data"}), False),
    "a folder of the host": (mounting("/data", hostPath={"path": "/data"}), False),
    "a mesh's own": (mounting("/etc/istio/proxy", "istio-envoy"), False),
    "a model that is fetched again": (mounting("/mnt/models", "kserve-provision-location"), False),
}


@pytest.mark.parametrize("case", VOLUMES)
@pytest.mark.parametrize("running", [True, False], ids=["running", "without pods"])
def test_what_its_pods_would_lose(case: str, running: bool) -> None:
    spec, lost = VOLUMES[case]
    of = owner("Deployment", "serve", {"replicas": 1, **template(None, **spec)})
    objects = [of, owner("ReplicaSet", "serve-1", of=of)]
    objects += [pod(of=owner("ReplicaSet", "serve-1"), **spec)] if running else []
    losses = the_workload(*objects).losses
    assert {(loss.verb, loss.name) for loss in losses} == (
        {(Verb.STOP, LossName.LOCAL_DISKS), (Verb.SCALE_TO_ZERO, LossName.LOCAL_DISKS)} if lost else set()
    )
    assert all("work" in loss.sentence for loss in losses)


def test_a_bare_pod_does_not_come_back() -> None:
    (loss,) = the_workload(pod("p")).losses
    assert (loss.verb, loss.name) == (Verb.STOP, LossName.TERMINATE)


def test_what_starts_from_the_beginning_says_so() -> None:
    assert any("from the beginning" in remark for remark in the_workload(job()).remarks)
    assert the_workload(deployment()).remarks == ()
    assert "Kueue decides when it runs" in the_workload(job(), kueue(job())).remarks


# What is kept.

EVERYTHING = [
    node("gpu-1", labels=EKS, provider_id=AWS_ID),
    node("gpu-2", labels=AKS, capacity={GPU: "6", "nvidia.com/mig-1g.5gb": "14"}),
    namespace(labels={"project": "vision"}, annotations={"curfew-protect": "true"}),
    a_slice(a_gpu("gpu-0"), an_instance("gpu-0-mig-9-0-4", "3g.40gb", "GPU-gpu-0"), on="gpu-3"),
    node("gpu-3", capacity={}),
    a_claim("c", "gpu-0", pool="gpu-3"),
    claiming("claiming", "c", on="gpu-3"),
    job("queued", spec={"suspend": True}),
    kueue(job("queued"), active=False),
    owner(
        "HorizontalPodAutoscaler",
        "h",
        {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "serve"}},
    ),
    *[obj for objects, _, _ in CHAINS.values() for obj in listable(objects)],
    *[obj for obj, _ in TEMPLATES.values()],
    pod("waiting", on=None, nodeSelector={"nvidia.com/gpu.product": "NVIDIA-L4"}),
    pod("going", on="gpu-2", metadata=GOING),
    pod("parts", {"nvidia.com/mig-1g.5gb": 3}, on="gpu-2"),
]


@pytest.mark.parametrize("number", range(len(EVERYTHING)))
def test_what_is_kept_is_kept_whole_and_is_all_that_is_read(number: int) -> None:
    obj = EVERYTHING[number]
    kept = translate.slim(word_of(obj), obj)
    if kept is not None:
        assert translate.slim(word_of(obj), kept) == kept
    assert "hidden" not in json.dumps(kept)
    assert "managedFields" not in json.dumps(kept)


@pytest.mark.parametrize("nested", [lambda below: {"a": below}, lambda below: [{"b": [below]}]], ids=["maps", "lists"])
def test_an_owner_without_a_floor_is_read_as_far_as_people_build(nested: Callable[[Any], Any]) -> None:
    below: Any = {"replicas": 1, **template()}
    for _ in range(300):
        below = nested(below)
    bottomless = owner("RayCluster", "ray", {"headGroupSpec": template(), "x": below})
    assert the_workload(bottomless).gpu_count == 1


def test_slimming_leaves_the_object_alone() -> None:
    for obj in EVERYTHING:
        before = copy.deepcopy(obj)
        translate.slim(word_of(obj), obj)
        assert obj == before


@pytest.mark.parametrize("word", [*COLLECTIONS, "secrets"])
def test_what_has_no_name_is_not_kept(word: str) -> None:
    assert translate.slim(word, {}) is None
    assert translate.slim(word, {"metadata": None, "spec": None}) is None
    assert translate.slim(word, {"metadata": {"uid": "u", "name": None}}) is None


def test_of_secrets_nothing_is_kept() -> None:
    assert translate.slim("secrets", {"metadata": {"uid": "u", "name": "n"}, "data": {"key": "value"}}) is None


# What holds whatever there is.

ASKS = [{GPU: 1}, {GPU: 2}, {GPU: 8}, {"nvidia.com/mig-1g.5gb": 1}, {"nvidia.com/mig-3g.20gb": 2}]
RICH = {GPU: "4", "nvidia.com/mig-1g.5gb": "7", "nvidia.com/mig-3g.20gb": "4"}
NODES = {
    "plain": node("plain", capacity={GPU: "8"}),
    "rich": node("rich", capacity=RICH, labels={"nvidia.com/gpu.count": "8"}),
    "unlabelled": node("unlabelled", capacity=RICH),
    "sliced": node(
        "sliced", capacity={GPU: "32"}, labels={"nvidia.com/gpu.count": "8", "nvidia.com/gpu.replicas": "4"}
    ),
    "single": node(
        "single", capacity={GPU: "16"}, labels={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"}
    ),
}


def fits(ask: Mapping[str, int], free: dict[str, int]) -> bool:
    return all(free.get(name, 0) >= count for name, count in ask.items())


@given(wanted=st.lists(st.tuples(st.sampled_from(sorted(NODES)), st.sampled_from(ASKS)), max_size=40))
def test_pods_that_fit_on_a_node_have_shares_of_it_that_fit(wanted: list[tuple[str, Mapping[str, int]]]) -> None:
    free = {
        name: {key: int(value) for key, value in obj["status"]["capacity"].items() if "/" in key}
        for name, obj in NODES.items()
    }
    pods = []
    for number, (on, ask) in enumerate(wanted):
        if fits(ask, free[on]):
            for name, count in ask.items():
                free[on][name] -= count
            pods.append(pod(f"p{number}", ask, on=on))
    found = records(*NODES.values(), *pods)
    shares: dict[str, Fraction] = defaultdict(Fraction)
    for record in found.values():
        for placed in record.placements:
            assert 0 < placed.share <= 1
            shares[placed.node] += placed.share
    assert all(share <= 1 for share in shares.values())
    for name in ("plain", "sliced"):
        full = not free[name][GPU]
        assert (shares[name] == 1) is full


@given(seed=st.integers(0, 2**32), doubled=st.booleans())
def test_the_order_of_objects_means_nothing(seed: int, doubled: bool) -> None:
    shuffled = EVERYTHING * (1 + doubled)
    random.Random(seed).shuffle(shuffled)
    unique = {obj["metadata"]["uid"]: obj for obj in EVERYTHING}
    in_order = [unique[uid] for uid in dict.fromkeys(obj["metadata"]["uid"] for obj in shuffled)]
    expected = translate.records(cluster(*unique.values()), now=NOW)
    assert translate.records(cluster(*in_order), now=NOW) == expected


def paths(found: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [inner for key, value in below for inner in ((*path, key), *paths(value, (*path, key)))]


STRANGE: list[Any] = ["?", 7, -1, 1.5, True, [], {}, [None], [{}], [[]], {"a": None}]


def damage(found: Any, data: st.DataObject) -> None:
    """Some of what it says is taken away, or is null, or is something else."""
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(paths(found)))
        inside = found
        for key in path[:-1]:
            inside = inside[key]
        how = data.draw(st.sampled_from(["gone", "null", "strange"]))
        if how == "gone":
            del inside[path[-1]]
        else:
            inside[path[-1]] = None if how == "null" else copy.deepcopy(data.draw(st.sampled_from(STRANGE)))
        if not paths(found):
            return


def says(obj: Any, *path: str) -> Any:
    """What stands at the path, if anything does."""
    for key in path:
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def is_ready(obj: Any) -> bool:
    conditions = says(obj, "status", "conditions")
    said = [(says(one, "type"), says(one, "status")) for one in conditions] if isinstance(conditions, list) else []
    return ("Ready", "True") in said


def is_on_a_node(obj: Any) -> bool:
    return says(obj, "status", "phase") in ("Pending", "Running") and isinstance(says(obj, "spec", "nodeName"), str)


@given(data=st.data())
def test_whatever_is_missing_nothing_fails_and_nothing_runs_out_of_nothing(data: st.DataObject) -> None:
    kept = copy.deepcopy({word: dict(objects) for word, objects in cluster(*EVERYTHING).objects.items()})
    word = data.draw(st.sampled_from(sorted(word for word, objects in kept.items() if objects)))
    uid = data.draw(st.sampled_from(sorted(kept[word])))
    damage(kept[word][uid], data)
    found = translate.records(translate.Cluster(uid=CLUSTER, objects=kept), now=NOW)
    ready = [says(obj, "metadata", "name") for obj in kept["nodes"].values() if is_ready(obj)]
    running = [says(obj, "metadata", "name") for obj in kept["pods"].values() if is_on_a_node(obj)]
    for record in found:
        if record.ref.kind is Kind.NODE and record.state is State.RUNNING:
            assert record.name in ready
        if record.ref.kind is Kind.WORKLOAD and record.state is State.RUNNING:
            assert any(placement.pod in running for placement in record.placements)
        assert all(0 < placement.share <= 1 for placement in record.placements)
        assert 0 < record.gpu_share <= 1
        assert record.gpu_count >= 0


@settings(max_examples=300)
@given(data=st.data())
def test_whatever_an_object_looks_like_it_is_kept_or_not_and_nothing_fails(data: st.DataObject) -> None:
    obj = copy.deepcopy(data.draw(st.sampled_from(EVERYTHING)))
    word = word_of(obj)
    damage(obj, data)
    kept = translate.slim(word, obj)
    if kept is not None:
        translate.records(translate.Cluster(uid=CLUSTER, objects={word: {"uid": kept}}), now=NOW)


def test_every_kind_of_owner_is_tried_here() -> None:
    tried = {obj["kind"] for obj in EVERYTHING}
    alike = {"TFJob", "XGBoostJob", "PaddleJob", "JAXJob"}  # all like a PyTorchJob
    assert OWNERS.keys() - tried == alike
