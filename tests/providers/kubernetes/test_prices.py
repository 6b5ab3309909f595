"""What a node costs by the list of the cloud beneath it, and that nothing else has a price here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.kubernetes.prices import KubernetesPrices
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef

BUILTIN = "builtin 2026-07-20: us-east-1 on-demand list price, USD, Linux"
AZURE = "builtin 2026-06-18: eastus on-demand list price, USD, Linux"

NODE = ResourceRecord(
    ref=ResourceRef(provider="kubernetes", account="uid", region="us-east-1", kind=Kind.NODE, external_id="gpu-1"),
    incarnation="1",
    name="gpu-1",
    zone="us-east-1a",
    sku="g6.xlarge",
    gpu_vendor="nvidia",
    gpu_model="L4",
    gpu_count=1,
    capacity_type=CapacityType.ON_DEMAND,
    machine="aws:///us-east-1a/i-0123456789abcdef0",
)

AKS_NODE = replace(
    NODE,
    ref=replace(NODE.ref, region="eastus"),
    zone="eastus-1",
    sku="Standard_NC4as_T4_v3",
    gpu_model="T4",
    machine="azure:///subscriptions/s/resourceGroups/mc_a/providers/Microsoft.Compute/virtualMachines/aks-gpus-0",
)

GKE_NODE = replace(
    NODE,
    ref=replace(NODE.ref, region="us-central1"),
    zone="us-central1-a",
    sku="g2-standard-4",
    machine="gce://research/us-central1-a/gke-gpus-pool-1-0f3d",
)
GKE_BUILTIN = "builtin 2024-12-26: us-central1 {} list price, USD; vCPUs, memory and GPUs"
N1_BUILTIN = "builtin 2022-06-24: us-central1 on-demand list price, USD; vCPUs, memory and GPUs"

UNPRICED = {
    "a machine of nobody": replace(NODE, machine=None),
    "a machine of another cloud": replace(NODE, machine="oci://ocid1.instance.oc1/gpu-1"),
    "a type that nobody lists": replace(NODE, sku="g6.tiny"),
    "a type of Google's that nobody lists": replace(GKE_NODE, sku="a4-highgpu-8g"),
    "a type of another cloud": replace(GKE_NODE, sku=NODE.sku),
    "a size that is another cloud's type": replace(AKS_NODE, sku=NODE.sku),
    "a type that is sold by other terms only": replace(NODE, sku="trn2.3xlarge"),
    "a region with a currency of its own": replace(
        NODE, ref=replace(NODE.ref, region="cn-north-1"), zone="cn-north-1a"
    ),
    "a region of Azure with a currency of its own": replace(AKS_NODE, ref=replace(NODE.ref, region="chinaeast2")),
    "a workload": replace(NODE, ref=replace(NODE.ref, kind=Kind.WORKLOAD), machine=None),
}

SOURCES = {
    BUILTIN: (NODE, 804_800),
    f"{BUILTIN}; other region (eu-west-1)": (replace(NODE, zone="eu-west-1b"), 804_800),
    f"{BUILTIN}; upper bound for spot": (replace(NODE, capacity_type=CapacityType.SPOT), 804_800),
    f"{BUILTIN}; how it is billed is not known": (replace(NODE, capacity_type=CapacityType.UNKNOWN), 804_800),
    AZURE: (AKS_NODE, 526_000),
    f"{AZURE}; other region (westeurope)": (replace(AKS_NODE, ref=replace(NODE.ref, region="westeurope")), 526_000),
    f"{AZURE}; upper bound for spot": (
        replace(AKS_NODE, sku="standard_nc4as_t4_v3", capacity_type=CapacityType.SPOT),
        526_000,
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_price_says_what_it_is_not(source: str) -> None:
    record, rate = SOURCES[source]

    price = KubernetesPrices().quote([record])[record.ref]

    assert (price.rate_micros, price.currency, price.source) == (rate, "USD", source)


GKE_NODES = {
    GKE_BUILTIN.format("on-demand"): (GKE_NODE, 706_832),
    f"{GKE_BUILTIN.format('on-demand')}; other region (europe-west4)": (
        replace(GKE_NODE, ref=replace(GKE_NODE.ref, region="europe-west4")),
        706_832,
    ),
    f"{GKE_BUILTIN.format('spot')}; may have moved since": (
        replace(GKE_NODE, capacity_type=CapacityType.SPOT),
        272_524,
    ),
    f"{N1_BUILTIN}; before sustained use discounts": (
        replace(GKE_NODE, sku="n1-standard-8", gpu_model="T4", gpu_count=2),
        8 * 31_611 + 30 * 4_237 + 2 * 350_000,
    ),
    f"{N1_BUILTIN}; upper bound for spot": (
        replace(GKE_NODE, sku="n1-standard-8", gpu_model="T4", capacity_type=CapacityType.SPOT),
        8 * 31_611 + 30 * 4_237 + 350_000,
    ),
}


@pytest.mark.parametrize("source", GKE_NODES)
def test_a_node_of_gke_costs_what_google_listed(source: str) -> None:
    record, micros = GKE_NODES[source]

    price = KubernetesPrices().quote([record])[record.ref]

    assert (price.rate_micros, price.currency, price.source) == (micros, "USD", source)


@pytest.mark.parametrize("case", UNPRICED)
def test_no_price_is_better_than_a_wrong_one(case: str) -> None:
    assert KubernetesPrices().quote([UNPRICED[case]]) == {}
