"""Objects as an API server answers them, in as few words as a test needs, and the records they come to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.kubernetes import translate
from providers.kubernetes.owners import BY_KIND, COLLECTIONS
from providers.records import Kind, ResourceRecord

Object = dict[str, Any]

CLUSTER = "c1c1c1c1-0000-4000-8000-000000000001"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAYS_AGO = "2026-11-20T08:00:00Z"
MINUTES_AGO = "2026-11-22T11:55:00Z"
READY = {
    "type": "Ready",
    "status": "True",
    "lastTransitionTime": DAYS_AGO,
    "message": "kubelet is posting ready status",
}


def node(
    name: str = "gpu-1",
    *,
    capacity: Mapping[str, Any] | None = None,
    allocatable: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    provider_id: str | None = None,
    ready: Mapping[str, Any] | None = READY,
    created: str = DAYS_AGO,
    **spec: Any,
) -> Object:
    """A ready node of eight plain GPUs on premises, unless said otherwise."""
    capacity = {"nvidia.com/gpu": "8"} if capacity is None else dict(capacity)
    everyday = {"cpu": "96", "memory": "1152Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": created,
            "labels": {"kubernetes.io/hostname": name} | dict(labels or {}),
            "annotations": dict(annotations or {}),
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"podCIDR": "10.0.0.0/24"} | ({"providerID": provider_id} if provider_id else {}) | spec,
        "status": {
            "capacity": everyday | capacity,
            "allocatable": everyday | (capacity if allocatable is None else dict(allocatable)),
            "conditions": [{"type": "MemoryPressure", "status": "False"}, *([dict(ready)] if ready else [])],
        },
    }


def container(ask: Mapping[str, Any] | None = None, *, name: str = "main", **more: Any) -> Object:
    """A container that requests, and so is limited to, these accelerators."""
    wants = {"nvidia.com/gpu": "1"} if ask is None else dict(ask)
    return {
        "name": name,
        "image": "registry.example.org/train:1",
        "env": [{"name": "TOKEN", "value": "hidden"}],
        "resources": {"requests": {"cpu": "4"} | wants, "limits": {"memory": "64Gi"} | wants},
    } | more


def pod_spec(ask: Mapping[str, Any] | None = None, **more: Any) -> Object:
    return {"containers": [container(ask)]} | more


def owned_by(owner: Object) -> Object:
    metadata = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": metadata["name"]}
    return {"ownerReferences": [reference | {"uid": metadata["uid"], "controller": True}]}


def pod(
    name: str = "train-0",
    ask: Mapping[str, Any] | None = None,
    *,
    on: str | None = "gpu-1",
    of: Object | None = None,
    namespace: str = "vision",
    phase: str | None = None,
    started: str = MINUTES_AGO,
    metadata: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> Object:
    """A pod of one container with one GPU, running on `gpu-1`; waiting, where it is on nothing."""
    phase = phase or ("Running" if on else "Pending")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{namespace}-{name}"}
        | {"creationTimestamp": DAYS_AGO}
        | (owned_by(of) if of is not None else {})
        | dict(metadata or {}),
        "spec": pod_spec(ask) | ({"nodeName": on} if on else {}) | spec,
        "status": {"phase": phase} | ({"startTime": started} if on else {}) | dict(status or {}),
    }


def owner(
    kind: str,
    name: str = "train",
    spec: Mapping[str, Any] | None = None,
    *,
    of: Object | None = None,
    namespace: str = "vision",
    api_version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **more: Any,
) -> Object:
    """An owner of a kind we know, or of any with its `api_version`."""
    known = next((found for (_, known_kind), found in BY_KIND.items() if known_kind == kind), None)
    if api_version is None:
        assert known is not None, f"say the api_version of {kind}"
        api_version = known.api_version(known.versions[0])
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-of-{kind}-{namespace}-{name}"}
        | {"creationTimestamp": DAYS_AGO}
        | (owned_by(of) if of is not None else {})
        | dict(metadata or {}),
        "spec": dict(spec or {}),
    } | more


def template(ask: Mapping[str, Any] | None = None, **more: Any) -> Object:
    return {"template": {"metadata": {"labels": {"app": "train"}}, "spec": pod_spec(ask, **more)}}


def deployment(name: str = "serve", *, replicas: int = 1, ask: Mapping[str, Any] | None = None, **more: Any) -> Object:
    return owner("Deployment", name, {"replicas": replicas, **template(ask)}, **more)


def namespace(name: str = "vision", **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": f"uid-of-{name}"} | metadata}


def word_of(obj: Object) -> str:
    """The collection that lists it."""
    group = obj["apiVersion"].rpartition("/")[0]
    return BY_KIND[group, obj["kind"]].word


def cluster(*objects: Object) -> translate.Cluster:
    """All of them slimmed, every collection listed."""
    kept: dict[str, dict[str, Object]] = {word: {} for word in COLLECTIONS}
    for obj in objects:
        slimmed = translate.slim(word_of(obj), obj)
        if slimmed is not None:
            kept[word_of(obj)][obj["metadata"]["uid"]] = slimmed
    return translate.Cluster(uid=CLUSTER, objects=kept)


def records(*objects: Object, now: datetime = NOW) -> dict[str, ResourceRecord]:
    """Nodes by name and workloads by `namespace/Kind/name`."""
    found = translate.records(cluster(*objects), now=now)
    assert len({record.ref for record in found}) == len(found)
    return {record.ref.external_id: record for record in found}


def the_node(obj: Object, *more: Object, now: datetime = NOW) -> ResourceRecord:
    return records(obj, *more, now=now)[obj["metadata"]["name"]]


def the_workload(*objects: Object, now: datetime = NOW) -> ResourceRecord:
    """The only one there is."""
    (found,) = [record for record in records(*objects, now=now).values() if record.ref.kind is Kind.WORKLOAD]
    return found


def ago(**time: float) -> str:
    return (NOW - timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")
