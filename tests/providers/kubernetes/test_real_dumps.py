"""Nodes as three clouds really answered them: GPUs, models, how they were bought, and whose machines they are.

The dumps (converged-computing/performance-study) are read where they lie beside the project; objects of the same shapes
are made in `test_translate_nodes`, which runs everywhere.
"""

from __future__ import annotations

import copy
import gzip
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.kubernetes import translate
from providers.kubernetes.prices import KubernetesPrices
from providers.machine_ids import machine_key
from providers.records import CapacityType, ResourceRecord, State
from tests.providers.kubernetes.objects import CLUSTER, NOW
from tests.real_data import REAL_DATA, needs

DUMPS = REAL_DATA / "kubernetes/perfstudy"
pytestmark = needs("kubernetes/perfstudy")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What every GPU node of a dump comes to."""

    nodes: int
    of: int
    """All nodes, with those that have no GPUs."""
    sku: str
    region: str
    zone: str | None
    managed_by: str
    machine: str
    """How its provider id begins."""


V100S = {
    "aws/eks/gpu/nodes-8.json.gz": Expected(
        nodes=8,
        of=8,
        sku="p3dn.24xlarge",
        region="us-east-1",
        zone="us-east-1a",
        managed_by="eks:workers",
        machine="aws:///us-east-1a/i-0",
    ),
    "azure/aks/gpu/size4/metadata/nodes-4.json.gz": Expected(
        nodes=4,
        of=5,
        sku="standard_nd40rs_v2",
        region="westus2",
        zone=None,
        managed_by="aks:nodepool1",
        machine="azure:///subscriptions/",
    ),
    "azure/aks/gpu/size8/metadata/nodes-8.json.gz": Expected(
        nodes=8,
        of=9,
        sku="standard_nd40rs_v2",
        region="westus2",
        zone=None,
        managed_by="aks:nodepool1",
        machine="azure:///subscriptions/",
    ),
    "google/gke/gpu/size4/metadata/nodes-4-second.json.gz": Expected(
        nodes=4,
        of=4,
        sku="n1-standard-32",
        region="us-central1",
        zone="us-central1-a",
        managed_by="gke:default-pool",
        machine="gce://converged-computing/us-central1-a/gke-gpu-cluster-4-",
    ),
    "google/gke/gpu/size8/metadata/nodes-8-8-26-2024.json.gz": Expected(
        nodes=8,
        of=8,
        sku="n1-standard-32",
        region="us-central1",
        zone="us-central1-a",
        managed_by="gke:default-pool",
        machine="gce://converged-computing/us-central1-a/gke-gpu-cluster-8-",
    ),
    "google/gke/gpu/size8/metadata/nodes-8-8-27-2024.json.gz": Expected(
        nodes=8,
        of=8,
        sku="n1-standard-32",
        region="us-central1",
        zone="us-central1-a",
        managed_by="gke:default-pool",
        machine="gce://converged-computing/us-central1-a/gke-gpu-cluster-8-",
    ),
}
"""Dump → what comes out. All were nodes of eight V100s, bought on demand."""


@cache
def dump(name: str) -> list[dict[str, Any]]:
    items = json.loads(gzip.decompress((DUMPS / name).read_bytes()))["items"]
    assert isinstance(items, list)
    return items


def told(nodes: list[dict[str, Any]]) -> tuple[ResourceRecord, ...]:
    slimmed = {node["metadata"]["uid"]: translate.slim("nodes", node) for node in nodes}
    kept = {uid: node for uid, node in slimmed.items() if node is not None}
    return translate.records(translate.Cluster(uid=CLUSTER, objects={"nodes": kept}), now=NOW)


@pytest.mark.parametrize("name", V100S)
def test_every_gpu_node_comes_out_as_it_was(name: str) -> None:
    nodes, expected = dump(name), V100S[name]
    records = told(nodes)
    assert (len(records), len(nodes)) == (expected.nodes, expected.of)
    for record in records:
        assert (record.gpu_vendor, record.gpu_model, record.gpu_count) == ("nvidia", "V100", 8)
        assert record.gpu_share == 1
        assert record.capacity_type is CapacityType.ON_DEMAND
        assert (record.state, record.remarks) == (State.RUNNING, ())
        assert (record.sku, record.ref.region, record.zone) == (expected.sku, expected.region, expected.zone)
        assert record.managed_by == expected.managed_by
        assert record.machine is not None
        assert record.machine.startswith(expected.machine)
        assert record.created_at is not None
        assert record.created_at.year == 2024
    assert len({record.incarnation for record in records}) == expected.nodes


LISTED = {"p3dn.24xlarge": 31_212_000, "standard_nd40rs_v2": 22_032_000, "n1-standard-32": 21_359_992}
"""What an hour of each lists for, by the table that is built in."""


@pytest.mark.parametrize("name", V100S)
def test_every_gpu_node_has_its_price(name: str) -> None:
    records = told(dump(name))
    prices = KubernetesPrices().quote(records)
    assert {ref: (price.rate_micros, price.currency) for ref, price in prices.items()} == {
        record.ref: (LISTED[record.sku], "USD") for record in records
    }


@pytest.mark.parametrize("name", V100S)
def test_every_machine_beneath_is_another(name: str) -> None:
    records = told(dump(name))
    assert len({machine_key(record.machine or "") for record in records}) == len(records)


@pytest.mark.parametrize("name", V100S)
def test_little_of_a_node_is_kept(name: str) -> None:
    for node in dump(name):
        slimmed = translate.slim("nodes", node)
        assert translate.slim("nodes", slimmed or {}) == slimmed
        assert len(json.dumps(slimmed)) < len(json.dumps(node)) / 3


@pytest.mark.parametrize("name", V100S)
@settings(max_examples=20)
@given(data=st.data())
def test_a_real_node_that_lacks_something_is_never_more_than_it_was(name: str, data: st.DataObject) -> None:
    node = copy.deepcopy(next(node for node in dump(name) if "nvidia.com/gpu" in node["status"]["capacity"]))
    inside = node
    while True:
        key = data.draw(st.sampled_from(sorted(inside)))
        if not isinstance(inside[key], dict) or not inside[key] or data.draw(st.booleans()):
            break
        inside = inside[key]
    del inside[key]
    slimmed = translate.slim("nodes", node)
    objects = {"nodes": {"uid": slimmed}} if slimmed is not None else {}
    for record in translate.records(translate.Cluster(uid=CLUSTER, objects=objects), now=NOW):
        assert record.gpu_count <= 8
        assert record.gpu_model in {"V100", None}
        ready = [one for one in (node.get("status") or {}).get("conditions") or () if one["type"] == "Ready"]
        assert (record.state is State.RUNNING) <= bool(ready and ready[0]["status"] == "True")
