"""Nodes as records: tables of what is said and what it means, and what holds whatever is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from providers.records import CapacityType, Kind, State
from tests.providers.kubernetes.objects import CLUSTER, DAYS_AGO, READY, Object, ago, node, pod, records, the_node

GPU = "nvidia.com/gpu"
EKS = {
    "eks.amazonaws.com/capacityType": "ON_DEMAND",
    "eks.amazonaws.com/nodegroup": "workers",
    "node.kubernetes.io/instance-type": "p3dn.24xlarge",
    "topology.kubernetes.io/region": "us-east-1",
    "topology.kubernetes.io/zone": "us-east-1a",
}
GKE = {
    "cloud.google.com/gke-accelerator": "nvidia-tesla-v100",
    "cloud.google.com/gke-nodepool": "default-pool",
    "cloud.google.com/gke-provisioning": "standard",
    "node.kubernetes.io/instance-type": "n1-standard-32",
    "topology.kubernetes.io/region": "us-central1",
    "topology.kubernetes.io/zone": "us-central1-a",
}
AKS = {
    "accelerator": "nvidia",
    "kubernetes.azure.com/accelerator": "nvidia",
    "kubernetes.azure.com/agentpool": "nodepool1",
    "node.kubernetes.io/instance-type": "standard_nd40rs_v2",
    "topology.kubernetes.io/region": "westus2",
    "topology.kubernetes.io/zone": "0",
}
AWS_ID, GCE_ID = "aws:///us-east-1a/i-0abc", "gce://a-project/us-central1-a/gpu-1"
AZURE_ID = (
    "azure:///subscriptions/1/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/v/virtualMachines/0"
)


def test_a_node_of_eks() -> None:
    record = the_node(node("ip-10-0-0-1.ec2.internal", labels=EKS, provider_id=AWS_ID))
    assert (record.ref.provider, record.ref.account, record.ref.kind) == ("kubernetes", CLUSTER, Kind.NODE)
    assert (record.ref.region, record.zone) == ("us-east-1", "us-east-1a")
    assert record.incarnation == "uid-of-ip-10-0-0-1.ec2.internal"
    assert (record.sku, record.gpu_vendor, record.gpu_model, record.gpu_count) == ("p3dn.24xlarge", "nvidia", "V100", 8)
    assert record.gpu_memory_mib == 32768
    assert record.capacity_type is CapacityType.ON_DEMAND
    assert record.machine == AWS_ID
    assert record.managed_by == "eks:workers"
    assert record.tags["eks.amazonaws.com/nodegroup"] == "workers"
    assert record.listed_in == "nodes"
    assert (record.state, record.remarks, record.protections) == (State.RUNNING, (), ())
    assert not record.fully_described


def test_a_node_of_gke() -> None:
    record = the_node(node(labels=GKE, provider_id=GCE_ID))
    assert (record.gpu_model, record.gpu_count, record.ref.region) == ("V100", 8, "us-central1")
    assert (record.capacity_type, record.managed_by) == (CapacityType.ON_DEMAND, "gke:default-pool")


def test_a_node_of_aks() -> None:
    record = the_node(node(labels=AKS, provider_id=AZURE_ID))
    assert (record.gpu_model, record.gpu_count) == ("V100", 8)
    assert record.zone is None  # a fault domain is no zone
    # AKS marks each of its spot nodes itself
    assert (record.capacity_type, record.managed_by) == (CapacityType.ON_DEMAND, "aks:nodepool1")


def test_a_node_without_accelerators_is_not_ours() -> None:
    assert records(node(capacity={})) == {}
    assert (
        records(node(capacity={"vpc.amazonaws.com/efa": "1"}, labels={"node.kubernetes.io/instance-type": "m5.large"}))
        == {}
    )


CAPACITY: dict[str, tuple[dict[str, str], str | None, CapacityType]] = {
    "Karpenter, spot": ({"karpenter.sh/capacity-type": "spot"}, AWS_ID, CapacityType.SPOT),
    "Karpenter, on demand": ({"karpenter.sh/capacity-type": "on-demand"}, AWS_ID, CapacityType.ON_DEMAND),
    "Karpenter, reserved": ({"karpenter.sh/capacity-type": "reserved"}, AWS_ID, CapacityType.RESERVED),
    "Karpenter, a capacity block": (
        {"karpenter.sh/capacity-type": "reserved", "karpenter.k8s.aws/capacity-reservation-type": "capacity-block"},
        AWS_ID,
        CapacityType.CAPACITY_BLOCK,
    ),
    "Karpenter, a word of tomorrow": ({"karpenter.sh/capacity-type": "leased"}, AWS_ID, CapacityType.UNKNOWN),
    "EKS, spot": ({"eks.amazonaws.com/capacityType": "SPOT"}, AWS_ID, CapacityType.SPOT),
    "EKS, on demand": ({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, AWS_ID, CapacityType.ON_DEMAND),
    "EKS, a capacity block": (
        {"eks.amazonaws.com/capacityType": "CAPACITY_BLOCK"},
        AWS_ID,
        CapacityType.CAPACITY_BLOCK,
    ),
    "GKE, spot": ({"cloud.google.com/gke-spot": "true"}, GCE_ID, CapacityType.SPOT),
    "GKE, spot by provisioning": ({"cloud.google.com/gke-provisioning": "spot"}, GCE_ID, CapacityType.SPOT),
    "GKE, preemptible": ({"cloud.google.com/gke-preemptible": "true"}, GCE_ID, CapacityType.SPOT),
    "GKE, standard": ({"cloud.google.com/gke-provisioning": "standard"}, GCE_ID, CapacityType.ON_DEMAND),
    "GKE, flex start": ({"cloud.google.com/gke-provisioning": "flex-start"}, GCE_ID, CapacityType.FLEX_START),
    "GKE, said not to be spot": (
        {"cloud.google.com/gke-spot": "false", "cloud.google.com/gke-provisioning": "standard"},
        GCE_ID,
        CapacityType.ON_DEMAND,
    ),
    "AKS, spot": (
        {"kubernetes.azure.com/scalesetpriority": "spot", "kubernetes.azure.com/agentpool": "a"},
        AZURE_ID,
        CapacityType.SPOT,
    ),
    "AKS, a word of tomorrow": (
        {"kubernetes.azure.com/scalesetpriority": "spotplus", "kubernetes.azure.com/agentpool": "a"},
        AZURE_ID,
        CapacityType.UNKNOWN,
    ),
    "legacy, spot": ({"node.kubernetes.io/lifecycle": "spot"}, AWS_ID, CapacityType.SPOT),
    "legacy, normal": ({"node.kubernetes.io/lifecycle": "normal"}, AWS_ID, CapacityType.ON_DEMAND),
    "legacy, Ec2Spot": ({"node-lifecycle": "Ec2Spot"}, AWS_ID, CapacityType.SPOT),
    "somebody's own label": ({"lifecycle": "production"}, AWS_ID, CapacityType.UNKNOWN),
    "a cloud, and no word": ({}, AWS_ID, CapacityType.UNKNOWN),
    "on premises": ({}, None, CapacityType.ON_DEMAND),
    "on premises, with an id": ({}, "k3s://gpu-1", CapacityType.ON_DEMAND),
    "an unheard-of cloud": ({}, "nimbus://gpu-1", CapacityType.UNKNOWN),
}


@pytest.mark.parametrize("case", CAPACITY)
def test_how_a_node_was_bought(case: str) -> None:
    labels, provider_id, expected = CAPACITY[case]
    assert the_node(node(labels=labels, provider_id=provider_id)).capacity_type is expected


POOLS = {
    "karpenter.sh/nodepool": "karpenter:x",
    "karpenter.sh/provisioner-name": "karpenter:x",
    "eks.amazonaws.com/nodegroup": "eks:x",
    "cloud.google.com/gke-nodepool": "gke:x",
    "kubernetes.azure.com/agentpool": "aks:x",
    "pool": None,
}


@pytest.mark.parametrize("label", POOLS)
def test_who_manages_a_node(label: str) -> None:
    assert the_node(node(labels={label: "x"})).managed_by == POOLS[label]


PRODUCT, COUNT, REPLICAS = "nvidia.com/gpu.product", "nvidia.com/gpu.count", "nvidia.com/gpu.replicas"
HAMI = "GPU-1,10,32768,100,NVIDIA-Tesla V100-PCIE-32GB,0,true:GPU-2,10,32768,100,NVIDIA-Tesla V100-PCIE-32GB,0,true:"
HAMI_JSON = (
    '[{"id":"GPU-1","count":10,"devmem":32768,"devcore":100,"type":"NVIDIA-Tesla V100-PCIE-32GB","health":true}]'
)

SHARED: dict[str, tuple[Object, Mapping[str, Any], int, Fraction]] = {
    "two of eight whole GPUs": (node(), {GPU: 2}, 8, Fraction(2, 8)),
    "time-slicing by four": (
        node(capacity={GPU: "32"}, labels={PRODUCT: "NVIDIA-L4-SHARED", COUNT: "8", REPLICAS: "4"}),
        {GPU: 1},
        8,
        Fraction(1, 32),
    ),
    "time-slicing that only the counts tell": (
        node(capacity={GPU: "32"}, labels={COUNT: "8"}),
        {GPU: 1},
        8,
        Fraction(1, 32),
    ),
    "time-slicing, one of eight broken": (
        node(capacity={GPU: "28"}, labels={COUNT: "8", REPLICAS: "4"}),
        {GPU: 4},
        8,
        Fraction(1, 8),
    ),
    "time-slicing, renamed": (
        node(
            capacity={GPU: "0", "nvidia.com/gpu.shared": "40"}, labels={PRODUCT: "Tesla-T4", COUNT: "4", REPLICAS: "10"}
        ),
        {"nvidia.com/gpu.shared": 1},
        4,
        Fraction(1, 40),
    ),
    "time-slicing of some: a whole one": (
        node(capacity={GPU: "2", "nvidia.com/gpu.shared": "20"}, labels={COUNT: "4", REPLICAS: "10"}),
        {GPU: 1},
        4,
        Fraction(1, 4),
    ),
    "time-slicing of some: a shared one": (
        node(capacity={GPU: "2", "nvidia.com/gpu.shared": "20"}, labels={COUNT: "4", REPLICAS: "10"}),
        {"nvidia.com/gpu.shared": 1},
        4,
        Fraction(1, 40),
    ),
    "GKE's time-sharing": (
        node(capacity={GPU: "16"}, labels=GKE | {"cloud.google.com/gke-max-shared-clients-per-gpu": "8"}),
        {GPU: 1},
        2,
        Fraction(1, 16),
    ),
    "MIG, mixed: a seventh": (
        node(capacity={GPU: "6", "nvidia.com/mig-1g.5gb": "7", "nvidia.com/mig-3g.20gb": "2"}, labels={COUNT: "8"}),
        {"nvidia.com/mig-1g.5gb": 1},
        8,
        Fraction(1, 56),
    ),
    "MIG, mixed: three sevenths twice": (
        node(capacity={GPU: "6", "nvidia.com/mig-1g.5gb": "7", "nvidia.com/mig-3g.20gb": "2"}, labels={COUNT: "8"}),
        {"nvidia.com/mig-3g.20gb": 2},
        8,
        Fraction(6, 56),
    ),
    "MIG, mixed, without labels": (
        node(capacity={GPU: "6", "nvidia.com/mig-1g.5gb": "14"}),
        {"nvidia.com/mig-1g.5gb": 7},
        8,
        Fraction(1, 8),
    ),
    "MIG, mixed, and its instances shared by two": (
        node(
            capacity={"nvidia.com/mig-1g.5gb.shared": "14"}, labels={COUNT: "1", "nvidia.com/mig-1g.5gb.replicas": "2"}
        ),
        {"nvidia.com/mig-1g.5gb.shared": 1},
        1,
        Fraction(1, 14),
    ),
    "MIG, single: GPUs are instances": (
        node(capacity={GPU: "56"}, labels={PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", COUNT: "56", REPLICAS: "1"}),
        {GPU: 1},
        8,
        Fraction(1, 56),
    ),
    "MIG, single, instances that leave something": (
        node(capacity={GPU: "16"}, labels={PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", COUNT: "16"}),
        {GPU: 2},
        8,
        Fraction(6, 56),
    ),
    "MIG, single, shared": (
        node(
            capacity={GPU: "28"},
            labels={PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb-SHARED", COUNT: "14", REPLICAS: "2"},
        ),
        {GPU: 1},
        2,
        Fraction(1, 28),
    ),
    "MIG, single, whose type tells the GPUs": (
        node(
            capacity={GPU: "8"},
            labels={PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "node.kubernetes.io/instance-type": "p4d.24xlarge"},
        ),
        {GPU: 1},
        8,
        Fraction(1, 56),
    ),
    "MIG on GKE": (
        node(
            capacity={GPU: "7"},
            labels={
                "cloud.google.com/gke-accelerator": "nvidia-tesla-a100",
                "cloud.google.com/gke-gpu-partition-size": "1g.5gb",
                "node.kubernetes.io/instance-type": "a2-highgpu-1g",
            },
        ),
        {GPU: 1},
        1,
        Fraction(1, 7),
    ),
    "MIG that is not valid is no count": (
        node(capacity={GPU: "8"}, labels={PRODUCT: "NVIDIA-A100-SXM4-40GB-MIG-INVALID", COUNT: "0", REPLICAS: "0"}),
        {GPU: 1},
        8,
        Fraction(1, 8),
    ),
    "HAMi: a quarter of the memory": (
        node(capacity={GPU: "20"}, annotations={"hami.io/node-nvidia-register": HAMI}),
        {GPU: 1, "nvidia.com/gpumem": "8192", "nvidia.com/gpucores": "30"},
        2,
        Fraction(1, 8),
    ),
    "HAMi: half of the memory of each of two": (
        node(capacity={GPU: "20"}, annotations={"hami.io/node-nvidia-register": HAMI}),
        {GPU: 2, "nvidia.com/gpumem-percentage": "50"},
        2,
        Fraction(1, 2),
    ),
    "HAMi: without a wish, all of it": (
        node(capacity={GPU: "20"}, annotations={"hami.io/node-nvidia-register": HAMI}),
        {GPU: 1},
        2,
        Fraction(1, 2),
    ),
    "HAMi, in its newer words": (
        node(capacity={GPU: "10"}, annotations={"hami.io/node-nvidia-register": HAMI_JSON}),
        {GPU: 1, "nvidia.com/gpumem": "16384"},
        1,
        Fraction(1, 2),
    ),
    "Neuron: chips": (
        node(capacity={"aws.amazon.com/neuron": "16", "aws.amazon.com/neuroncore": "32"}),
        {"aws.amazon.com/neuron": 4},
        16,
        Fraction(4, 16),
    ),
    "Neuron: chips under an older name": (
        node(
            capacity={
                "aws.amazon.com/neuron": "16",
                "aws.amazon.com/neurondevice": "16",
                "aws.amazon.com/neuroncore": "32",
            }
        ),
        {"aws.amazon.com/neurondevice": 1},
        16,
        Fraction(1, 16),
    ),
    "Neuron: cores": (
        node(capacity={"aws.amazon.com/neuron": "16", "aws.amazon.com/neuroncore": "32"}),
        {"aws.amazon.com/neuroncore": 1},
        16,
        Fraction(1, 32),
    ),
    "Neuron: cores alone, whose type tells the chips": (
        node(
            capacity={"aws.amazon.com/neuroncore": "32"}, labels={"node.kubernetes.io/instance-type": "trn1.32xlarge"}
        ),
        {"aws.amazon.com/neuroncore": 2},
        16,
        Fraction(1, 16),
    ),
    "AMD": (node(capacity={"amd.com/gpu": "8"}), {"amd.com/gpu": 8}, 8, Fraction(1)),
    "AMD, in eight parts each": (
        node(capacity={"amd.com/cpx_nps4": "64"}),
        {"amd.com/cpx_nps4": 1},
        8,
        Fraction(1, 64),
    ),
    "Gaudi": (node(capacity={"habana.ai/gaudi": "8"}), {"habana.ai/gaudi": 1}, 8, Fraction(1, 8)),
    "TPU": (node(capacity={"google.com/tpu": "4"}), {"google.com/tpu": 4}, 4, Fraction(1)),
    "Intel": (node(capacity={"gpu.intel.com/i915": "2"}), {"gpu.intel.com/i915": 1}, 2, Fraction(1, 2)),
    "a virtual machine's GPU": (
        node(capacity={"nvidia.com/GA102GL_A10": "2"}),
        {"nvidia.com/GA102GL_A10": 1},
        2,
        Fraction(1, 2),
    ),
}
"""A node, what a pod asks for, the node's physical accelerators, the pod's share of them."""


@pytest.mark.parametrize("case", SHARED)
def test_a_node_counts_physical_accelerators_and_a_pod_has_its_share(case: str) -> None:
    obj, ask, count, share = SHARED[case]
    found = records(obj, pod("p", ask))
    assert found["gpu-1"].gpu_count == count
    (placement,) = found["vision/Pod/p"].placements
    assert (placement.pod, placement.node, placement.share) == ("p", "gpu-1", share)


VENDORS = {
    "AMD": ("amd", None),
    "Gaudi": ("habana", None),
    "HAMi, in its newer words": ("nvidia", "V100"),
    "Intel": ("intel", None),
    "MIG on GKE": ("nvidia", "A100"),
    "Neuron: cores alone, whose type tells the chips": ("aws", "Trainium1"),
    "TPU": ("google", None),
    "time-slicing by four": ("nvidia", "L4"),
}


@pytest.mark.parametrize("case", VENDORS)
def test_whose_accelerators_they_are_is_told_even_where_the_model_is_not(case: str) -> None:
    record = the_node(SHARED[case][0])
    assert (record.gpu_vendor, record.gpu_model) == VENDORS[case]


def test_the_memory_of_a_gpu_is_not_that_of_its_parts() -> None:
    whole = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "40960"}
    parts = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/gpu.memory": "4864"}
    assert the_node(node(labels=whole)).gpu_memory_mib == 40960
    assert the_node(node(labels=parts)).gpu_memory_mib is None


def test_a_machine_with_a_part_of_a_gpu_says_which() -> None:
    record = the_node(node(capacity={GPU: "1"}, labels={"node.kubernetes.io/instance-type": "g6f.2xlarge"}))
    assert (record.gpu_model, record.gpu_count, record.gpu_share) == ("L4", 1, 0.25)


# Nodes of DRA drivers.


def a_slice(*devices: Object, on: str = "gpu-1", driver: str = "gpu.nvidia.com") -> Object:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{on}-{driver}", "uid": f"uid-of-slice-{on}-{driver}"},
        "spec": {"nodeName": on, "driver": driver, "pool": {"name": on}, "devices": list(devices)},
    }


def a_gpu(name: str, product: str = "NVIDIA H100 80GB HBM3") -> Object:
    attributes = {"type": {"string": "gpu"}, "productName": {"string": product}, "uuid": {"string": f"GPU-{name}"}}
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": "81559Mi"}}}


def an_instance(name: str, profile: str, parent: str) -> Object:
    attributes = {
        "type": {"string": "mig"},
        "profile": {"string": profile},
        "productName": {"string": "NVIDIA H100 80GB HBM3"},
        "parentUUID": {"string": parent},
    }
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": "9984Mi"}}}


def test_gpus_of_a_dra_driver_are_counted_without_a_device_plugin() -> None:
    record = the_node(node(capacity={}), a_slice(a_gpu("gpu-0"), a_gpu("gpu-1")))
    assert (record.gpu_vendor, record.gpu_model, record.gpu_count) == ("nvidia", "H100", 2)
    assert (record.gpu_memory_mib, record.state, record.remarks) == (81559, State.RUNNING, ())


def test_instances_of_a_gpu_are_listed_beside_it_and_add_none() -> None:
    instances = [an_instance(f"gpu-0-mig-1g10gb-19-{place}", "1g.10gb", "GPU-gpu-0") for place in range(7)]
    assert the_node(node(capacity={}), a_slice(a_gpu("gpu-0"), *instances)).gpu_count == 1
    assert the_node(node(capacity={}), a_slice(*instances)).gpu_count == 1


def test_the_same_gpus_told_by_both_ways_are_counted_once() -> None:
    assert the_node(node(capacity={GPU: "2"}), a_slice(a_gpu("gpu-0"), a_gpu("gpu-1"))).gpu_count == 2


def test_the_oldest_slices_have_attributes_one_level_deeper() -> None:
    old = {"name": "gpu-0", "basic": {key: value for key, value in a_gpu("gpu-0").items() if key != "name"}}
    assert the_node(node(capacity={}), a_slice(old)).gpu_model == "H100"


def test_network_cards_of_dra_drivers_are_none_of_ours() -> None:
    assert records(node(capacity={}), a_slice({"name": "nic-0"}, driver="dra.net")) == {}


# What a node is going through.

NOT_READY = {"type": "Ready", "status": "False", "message": "container runtime network not ready"}
SILENT = {"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}
JUST_READY = READY | {"lastTransitionTime": ago(minutes=3)}

GOING_THROUGH: dict[str, tuple[Object, State, int, str | None]] = {
    "everything in order": (node(labels=EKS), State.RUNNING, 8, None),
    "the driver is installing, the label tells of GPUs": (
        node(capacity={}, labels=GKE, ready=JUST_READY),
        State.PENDING,
        0,
        "since it became ready at 2026-11-22 11:57 UTC: its driver or plug-in is still installing",
    ),
    "the driver is installing, the type tells how many": (
        node(capacity={}, labels=EKS, ready=JUST_READY),
        State.PENDING,
        8,
        "still installing",
    ),
    "the plug-in registered, and offers none yet": (
        node(capacity={GPU: "0"}, labels=EKS, ready=JUST_READY),
        State.PENDING,
        8,
        "still installing",
    ),
    "the driver never came": (
        node(capacity={}, labels=EKS),
        State.RUNNING,
        8,
        "since it became ready at 2026-11-20 08:00 UTC: its driver or plug-in is missing",
    ),
    "one GPU is broken": (
        node(allocatable={GPU: "7"}),
        State.RUNNING,
        8,
        "1 of its 8 GPUs is not offered to pods: broken, or not seen by its device plugin",
    ),
    "two GPUs are not seen at all, the type tells": (
        node(capacity={GPU: "6"}, labels=EKS),
        State.RUNNING,
        6,
        "2 of its 8 GPUs are not offered to pods: broken, or not seen by its device plugin",
    ),
    "a GPU is lost to the plug-in, the labels still tell": (
        node(capacity={GPU: "7"}, labels={COUNT: "8"}),
        State.RUNNING,
        8,
        "1 of its 8 GPUs is not offered to pods: broken, or not seen by its device plugin",
    ),
    "all are broken": (
        node(allocatable={GPU: "0"}),
        State.RUNNING,
        8,
        "8 of its 8 GPUs are not offered to pods: broken, or not seen by its device plugin",
    ),
    "some are shared, all work": (
        node(capacity={GPU: "32"}, labels={COUNT: "8", REPLICAS: "4"}),
        State.RUNNING,
        8,
        None,
    ),
    "it is starting": (
        node(created=ago(minutes=2), ready=NOT_READY | {"lastTransitionTime": ago(minutes=2)}),
        State.PENDING,
        8,
        "it is not ready: container runtime network not ready",
    ),
    "it has been starting for too long": (
        node(created=ago(minutes=20), ready=NOT_READY | {"lastTransitionTime": ago(minutes=20)}),
        State.UNKNOWN,
        8,
        "it is not ready: container runtime network not ready",
    ),
    "it was ready before": (
        node(ready=NOT_READY | {"lastTransitionTime": ago(minutes=2)}),
        State.UNKNOWN,
        8,
        "it is not ready: container runtime network not ready",
    ),
    "it fell silent": (
        node(ready=SILENT | {"lastTransitionTime": ago(minutes=2)}),
        State.UNKNOWN,
        8,
        "it is not ready: Kubelet stopped posting node status.",
    ),
    "it never said anything": (node(ready=None), State.UNKNOWN, 8, "it does not say whether it is ready"),
    "it is cordoned": (node(unschedulable=True), State.RUNNING, 8, "it is cordoned: no new pods come to it"),
}


@pytest.mark.parametrize("case", GOING_THROUGH)
def test_a_node_is_shown_as_what_it_is(case: str) -> None:
    obj, state, count, remark = GOING_THROUGH[case]
    record = the_node(obj)
    assert (record.state, record.gpu_count) == (state, count)
    if remark is None:
        assert record.remarks == ()
    else:
        assert any(remark in said for said in record.remarks), record.remarks


def test_a_node_whose_gpus_cannot_be_counted_yet_says_so() -> None:
    record = the_node(node(capacity={}, labels=GKE, ready=JUST_READY))
    assert "how many GPUs it has is not known yet" in record.remarks


def test_a_node_that_is_going_says_so() -> None:
    going = node()
    going["metadata"]["deletionTimestamp"] = ago(minutes=1)
    assert the_node(going).remarks == ("it is being removed from the cluster",)


def test_time_alone_changes_nothing_about_a_node_in_order() -> None:
    obj = node(labels=EKS)
    later = the_node(obj).launched_at
    assert later is not None
    assert the_node(obj, now=later.replace(year=2027)) == the_node(obj)


PROTECTED = {
    "karpenter.sh/do-not-disrupt": ("true", True),
    "curfew-protect": ("until the demo", True),
    "cluster-autoscaler.kubernetes.io/scale-down-disabled": ("true", True),
    "example.org/protect": ("true", False),
}


@pytest.mark.parametrize("key", PROTECTED)
@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_what_protects_a_node(key: str, where: str) -> None:
    value, protects = PROTECTED[key]
    obj = node()
    obj["metadata"][where] = {key: value}
    found = the_node(obj).protections
    assert [protection.source for protection in found] == ([key] if protects else [])


def test_a_node_created_anew_under_its_name_is_another() -> None:
    old, new = node(), node()
    new["metadata"]["uid"] = "another-uid"
    first, second = the_node(old), the_node(new)
    assert first.ref == second.ref
    assert first.incarnation != second.incarnation
    assert first == replace(second, incarnation=first.incarnation)
    assert first.created_at is not None
    assert f"{first.created_at:%Y-%m-%dT%H:%M:%SZ}" == DAYS_AGO
