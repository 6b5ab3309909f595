"""What a node costs by the list of the cloud beneath it, and that nothing else has a price here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from providers.kubernetes.prices import KubernetesPrices
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef

BUILTIN = "builtin 2026-07-20: us-east-1 on-demand list price, USD, Linux"

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

UNPRICED = {
    "a machine of nobody": replace(NODE, machine=None),
    "a machine of another cloud": replace(NODE, machine="gce://project/us-central1-a/gpu-1"),
    "a type that nobody lists": replace(NODE, sku="g6.tiny"),
    "a type that is sold by other terms only": replace(NODE, sku="trn2.3xlarge"),
    "a region with a currency of its own": replace(
        NODE, ref=replace(NODE.ref, region="cn-north-1"), zone="cn-north-1a"
    ),
    "a workload": replace(NODE, ref=replace(NODE.ref, kind=Kind.WORKLOAD), machine=None),
}

SOURCES = {
    BUILTIN: NODE,
    f"{BUILTIN}; other region (eu-west-1)": replace(NODE, zone="eu-west-1b"),
    f"{BUILTIN}; upper bound for spot": replace(NODE, capacity_type=CapacityType.SPOT),
    f"{BUILTIN}; how it is billed is not known": replace(NODE, capacity_type=CapacityType.UNKNOWN),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_price_says_what_it_is_not(source: str) -> None:
    record = SOURCES[source]

    price = KubernetesPrices().quote([record])[record.ref]

    assert (price.rate_micros, price.currency, price.source) == (804_800, "USD", source)


@pytest.mark.parametrize("case", UNPRICED)
def test_no_price_is_better_than_a_wrong_one(case: str) -> None:
    assert KubernetesPrices().quote([UNPRICED[case]]) == {}
