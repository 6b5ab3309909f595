"""Turns nodes into records: what machine each is, how it was bought, what of its accelerators works. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from providers.kubernetes.accelerators import INSTANCE_TYPES, Hardware, at, items, text, texts
from providers.kubernetes.cluster import Cluster, protections, time
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef, State

Json = Mapping[str, Any]

YOUNG = timedelta(minutes=10)
"""How long a node that never was ready may take to become it."""
INSTALLING = timedelta(minutes=30)
"""How long a driver may take. A node that lacks it for longer runs, and costs, without its GPUs."""
BORN_READY = timedelta(minutes=1)
"""A readiness that has not changed since the node's first minute never was another."""


def nodes(cluster: Cluster, *, now: datetime) -> tuple[ResourceRecord, ...]:
    """Every node with accelerators, by name."""
    return tuple(_record(cluster, name, has, now=now) for name, has in sorted(cluster.hardware.items()))


def _record(cluster: Cluster, name: str, has: Hardware, *, now: datetime) -> ResourceRecord:
    node = cluster.nodes[name]
    labels, metadata = texts(node, "metadata", "labels"), at(node, "metadata")
    provider_id = text(node, "spec", "providerID")
    created = time(text(metadata, "creationTimestamp"))
    state, remarks = _node_state(node, has, created, now)
    return ResourceRecord(
        ref=ResourceRef(
            provider="kubernetes", account=cluster.uid, region=region(labels), kind=Kind.NODE, external_id=name
        ),
        incarnation=text(metadata, "uid") or name,
        name=name,
        zone=zone(labels),
        sku=next((labels[label] for label in INSTANCE_TYPES if labels.get(label)), ""),
        gpu_vendor=has.model.vendor if has.model else None,
        gpu_model=(has.model.name or None) if has.model else None,
        gpu_count=has.count,
        gpu_share=float(has.share),
        gpu_memory_mib=has.memory_mib,
        capacity_type=capacity_type(labels, provider_id),
        state=state,
        launched_at=created,
        created_at=created,
        tags=labels,
        managed_by=_managed_by(labels),
        machine=provider_id or None,
        remarks=(*remarks, *_node_remarks(node, has, state)),
        protections=tuple(protections(("", metadata))),
        listed_in="nodes",
    )


def region(labels: Mapping[str, str]) -> str:
    return labels.get("topology.kubernetes.io/region") or labels.get("failure-domain.beta.kubernetes.io/region") or ""


def zone(labels: Mapping[str, str]) -> str | None:
    found = labels.get("topology.kubernetes.io/zone") or labels.get("failure-domain.beta.kubernetes.io/zone") or ""
    # AKS numbers fault domains of regions without zones
    return None if found.isdigit() else found or None


def _node_state(node: Json, has: Hardware, created: datetime | None, now: datetime) -> tuple[State, tuple[str, ...]]:
    ready: Json = next((found for found in items(node, "status", "conditions") if found.get("type") == "Ready"), {})
    since = time(text(ready, "lastTransitionTime")) or created
    if text(ready, "status") == "True":
        if has.usable != 0 or _counts_any(node):
            return State.RUNNING, ()
        installing = since is not None and now - since < INSTALLING
        what = "still installing" if installing else "missing"
        when = f" at {since:%Y-%m-%d %H:%M} UTC" if since is not None else ""
        sentence = f"none of its GPUs is offered to pods since it became ready{when}: its driver or plug-in is {what}"
        return (State.PENDING if installing else State.RUNNING), (sentence,)
    if not ready:
        return State.UNKNOWN, ("it does not say whether it is ready",)
    reason = text(ready, "message") or text(ready, "reason")
    sentence = f"it is not ready{f': {reason}' if reason else ''}"
    never = created is not None and since is not None and since - created < BORN_READY
    starting = text(ready, "status") == "False" and never and created is not None and now - created < YOUNG
    return (State.PENDING if starting else State.UNKNOWN), (sentence,)


def _counts_any(node: Json) -> bool:
    """Whether its device plugin knows of any, be they broken."""
    capacity = at(node, "status", "capacity")
    return isinstance(capacity, dict) and any(value not in ("0", 0, None) for value in capacity.values())


def _node_remarks(node: Json, has: Hardware, state: State) -> Iterator[str]:
    if has.usable is not None and has.usable < has.wanted and (has.usable or _counts_any(node)):
        missing = has.wanted - has.usable
        verb = "is" if missing == 1 else "are"
        yield f"{missing} of its {has.wanted} GPUs {verb} not offered to pods: broken, or not seen by its device plugin"
    if has.count == 0:
        yield "how many GPUs it has is not known yet"
    if text(node, "metadata", "deletionTimestamp"):
        yield "it is being removed from the cluster"
    elif at(node, "spec", "unschedulable") is True:
        yield "it is cordoned: no new pods come to it"


NODE_POOLS = (
    ("karpenter.sh/nodepool", "karpenter"),
    ("karpenter.sh/provisioner-name", "karpenter"),
    ("eks.amazonaws.com/nodegroup", "eks"),
    ("alpha.eksctl.io/nodegroup-name", "eks"),
    ("cloud.google.com/gke-nodepool", "gke"),
    ("kubernetes.azure.com/agentpool", "aks"),
)


def _managed_by(labels: Mapping[str, str]) -> str | None:
    return next((f"{system}:{labels[label]}" for label, system in NODE_POOLS if labels.get(label)), None)


# How a node was bought.

ON_PREMISES = frozenset(
    {"", "baremetal", "k3s", "kind", "kubevirt", "kwok", "metal3", "nutanix", "openstack", "vsphere"}
)
"""Provider ids that name no cloud which sells in several ways."""
BOUGHT = (
    (
        "karpenter.sh/capacity-type",
        {"spot": CapacityType.SPOT, "on-demand": CapacityType.ON_DEMAND, "reserved": CapacityType.RESERVED},
    ),
    (
        "eks.amazonaws.com/capacityType",
        {
            "SPOT": CapacityType.SPOT,
            "ON_DEMAND": CapacityType.ON_DEMAND,
            "CAPACITY_BLOCK": CapacityType.CAPACITY_BLOCK,
        },
    ),
    ("cloud.google.com/gke-spot", {"true": CapacityType.SPOT, "false": None}),
    ("cloud.google.com/gke-preemptible", {"true": CapacityType.SPOT, "false": None}),
    ("cloud.google.com/gke-flex-start", {"true": CapacityType.FLEX_START, "false": None}),
    (
        "cloud.google.com/gke-provisioning",
        {
            "standard": CapacityType.ON_DEMAND,
            "spot": CapacityType.SPOT,
            "preemptible": CapacityType.SPOT,
            "flex-start": CapacityType.FLEX_START,
        },
    ),
    ("kubernetes.azure.com/scalesetpriority", {"spot": CapacityType.SPOT, "regular": CapacityType.ON_DEMAND}),
    (
        "node.kubernetes.io/lifecycle",
        {
            "spot": CapacityType.SPOT,
            "normal": CapacityType.ON_DEMAND,
            "on-demand": CapacityType.ON_DEMAND,
            "ondemand": CapacityType.ON_DEMAND,
        },
    ),
    ("node-lifecycle", {"Ec2Spot": CapacityType.SPOT, "spot": CapacityType.SPOT, "on-demand": CapacityType.ON_DEMAND}),
    ("lifecycle", {"Ec2Spot": CapacityType.SPOT, "OnDemand": CapacityType.ON_DEMAND}),
)
"""Labels and what their words mean, the most exact first; None leaves it to the labels after it."""


def bought(labels: Mapping[str, str]) -> CapacityType | None:
    """What the labels say in words, None where they say nothing. A word of tomorrow is `unknown`."""
    if labels.get("karpenter.k8s.aws/capacity-reservation-type") == "capacity-block":
        return CapacityType.CAPACITY_BLOCK
    for label, words in BOUGHT:
        if label in labels and label != "lifecycle":
            found = words.get(labels[label], CapacityType.UNKNOWN)
        else:
            found = words.get(labels.get(label, ""))  # anyone may call a label `lifecycle`
        if found is not None:
            return found
    return None


def capacity_type(labels: Mapping[str, str], provider_id: str) -> CapacityType:
    said = bought(labels)
    if said is not None:
        return said
    # AKS itself writes its label on every spot node, and on no other
    if provider_id.partition(":")[0] in ON_PREMISES or "kubernetes.azure.com/agentpool" in labels:
        return CapacityType.ON_DEMAND
    return CapacityType.UNKNOWN
