"""Turns pods and what owns them into records of workloads: one for each top owner, with all that its pods hold.

Pure; what nodes are is told in `nodes`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, TypeVar

from providers.kubernetes.accelerators import (
    DEVICE_CLASSES,
    DRIVERS,
    Device,
    Hardware,
    Model,
    asked,
    asked_by_pod,
    at,
    dra_part,
    general_weight,
    items,
    model_by_labels,
    profile_in,
    quantity,
    text,
    texts,
    vendor_of,
)
from providers.kubernetes.cluster import Cluster, protections, time
from providers.kubernetes.nodes import bought, capacity_type, zone
from providers.kubernetes.owners import COLLECTIONS, NOTEBOOK_STOPPED, OWNERS, Collection, How, by_kind
from providers.kubernetes.slim import CURFEW, FINISHED_CONDITIONS, KSERVE_STOPPED
from providers.records import (
    Blocker,
    CapacityType,
    Initiator,
    Kind,
    Loss,
    LossName,
    Placement,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)

T = TypeVar("T")

Json = Mapping[str, Any]
Claim = tuple[str, str]
"""Namespace and name of a ResourceClaim."""

MOST_DEVICES = 2**31 - 1
"""Anybody may ask for more than the world has, and a number like any other is all that may come of it."""
VERBS = (Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO, Verb.TERMINATE)


# Who owns whom.


@dataclass(frozen=True, kw_only=True)
class Top:
    """The top of a chain of owners: what a workload is."""

    namespace: str
    api_version: str
    kind: str
    name: str
    uid: str
    object: Json | None
    """None: only references tell of it."""
    collection: Collection | None
    """None: a kind that we know no way to stop."""

    @property
    def external_id(self) -> str:
        """`namespace/Kind/name`. A stranger of the same kind as one of ours goes by its group too, as for kubectl."""
        group = self.api_version.rpartition("/")[0]
        kind = f"{self.kind}.{group}" if self.collection is None and self.kind in OWNERS and group else self.kind
        return f"{self.namespace}/{kind}/{self.name}"


@dataclass(kw_only=True)
class Group:
    """A top owner with everything below it."""

    top: Top
    pods: list[Json] = field(default_factory=list)
    owners: list[tuple[Collection, Json]] = field(default_factory=list)
    """Everything in between that asks for accelerators too."""


class Owners:
    """The chains of owners of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._found: dict[str, tuple[Collection, Json]] = {}
        for word, collection in COLLECTIONS.items():
            if collection.owner or collection.metadata_only:
                for uid, obj in cluster.all(word).items():
                    self._found[uid] = collection, obj
        self._named = {
            (collection.word, text(obj, "metadata", "namespace"), text(obj, "metadata", "name"))
            for collection, obj in self._found.values()
        }
        self._listed = cluster.objects.keys()
        self._above: dict[tuple[str, str], Top | None] = {}

    def top(self, uid: str, collection: Collection, obj: Json) -> Top | None:
        """Whoever owns the owners of this object, or itself. None where that cannot be told now."""
        reference = self._owner_of(obj)
        if reference is None:
            return _itself(uid, collection, obj)
        namespace = text(obj, "metadata", "namespace")
        above = namespace, text(reference, "uid")
        if above not in self._above:
            self._above[above] = self._climb(reference, namespace)
        return self._above[above]

    def _owner_of(self, obj: Json) -> Json | None:
        """Anybody may write anything into a reference. An owner in another namespace is none, as for Kubernetes, and so
        is one whose name has gone to another since."""
        reference = controller(obj)
        if reference is None:
            return None
        namespace = text(obj, "metadata", "namespace")
        if (owner := self._found.get(text(reference, "uid"))) is not None:
            return reference if text(owner[1], "metadata", "namespace") == namespace else None
        known = by_kind(text(reference, "apiVersion"), text(reference, "kind"))
        name = known.word if known is not None else "", namespace, text(reference, "name")
        return reference if name not in self._named else None

    def _climb(self, reference: Json, namespace: str) -> Top | None:
        seen = set()
        while True:
            uid = text(reference, "uid")
            seen.add(uid)
            if uid not in self._found:
                return self._unseen(reference, namespace)
            collection, obj = self._found[uid]
            further = self._owner_of(obj)
            if further is None or text(further, "uid") in seen:
                return _itself(uid, collection, obj)
            reference = further

    def _unseen(self, reference: Json, namespace: str) -> Top | None:
        """An owner of which only references tell."""
        known = by_kind(text(reference, "apiVersion"), text(reference, "kind"))
        if not namespace or (known is not None and known.metadata_only and known.word in self._listed):
            return None  # its pod was seen a moment earlier than it
        return Top(
            namespace=namespace,
            api_version=text(reference, "apiVersion"),
            kind=text(reference, "kind"),
            name=text(reference, "name"),
            uid=text(reference, "uid"),
            object=None,
            collection=known if known is not None and known.owner else None,
        )


def _itself(uid: str, collection: Collection, obj: Json) -> Top | None:
    namespace, name = text(obj, "metadata", "namespace"), text(obj, "metadata", "name")
    if not namespace or not name:
        return None
    return Top(
        namespace=namespace,
        api_version=collection.api_version(collection.versions[0]),
        kind=collection.kind,
        name=name,
        uid=uid,
        object=obj,
        collection=collection if collection.owner else None,
    )


def controller(obj: Json) -> Json | None:
    """The reference to who controls it, if it is whole, and such that something may be called so. The API server lets
    anybody write anything there."""
    for reference in items(obj, "metadata", "ownerReferences"):
        if reference.get("controller") is True and all(
            pattern.fullmatch(text(reference, key)) for key, pattern in WHOLE.items()
        ):
            return reference
    return None


WHOLE = {
    "apiVersion": re.compile(r"(?:[a-z0-9][a-z0-9.-]{0,252}/)?[a-zA-Z0-9]{0,63}"),
    "kind": re.compile(r"[A-Za-z][A-Za-z0-9]{0,62}"),
    "name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}"),
    "uid": re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,252}"),
}


def groups(cluster: Cluster) -> Iterable[Group]:
    owners, found = Owners(cluster), dict[tuple[str, str], Group]()

    def group(uid: str, collection: Collection, obj: Json) -> Group | None:
        top = owners.top(uid, collection, obj)
        return found.setdefault((top.namespace, top.uid), Group(top=top)) if top is not None else None

    pods = COLLECTIONS["pods"]
    for uid, pod in cluster.all("pods").items():
        if (of := group(uid, pods, pod)) is not None:
            of.pods.append(pod)
    for word, collection in COLLECTIONS.items():
        if collection.owner and collection is not pods:
            for uid, obj in cluster.all(word).items():
                if obj.get("spec") and (of := group(uid, collection, obj)) is not None:
                    of.owners.append((collection, obj))
    for of in found.values():
        of.pods.sort(key=lambda pod: (text(pod, "metadata", "name"), text(pod, "metadata", "uid")))
        of.owners.sort(key=lambda owner: (owner[0].word, text(owner[1], "metadata", "name")))
    return found.values()


# What pods hold.


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one pod holds, or waits for."""

    pod: Json
    node: str
    """`` while it waits for one."""
    devices: Mapping[Device, int]
    physical: Fraction
    """All of it in physical accelerators of its node."""
    claimed: frozenset[tuple[str, str, str]]
    """DRA devices: they may be other pods' too."""

    @property
    def deleted(self) -> bool:
        return bool(text(self.pod, "metadata", "deletionTimestamp"))

    @property
    def alive(self) -> bool:
        """As far as its kubelet says: one that has fallen silent may hold its devices still."""
        return text(self.pod, "status", "phase") in {"Pending", "Running"}


class Claims:
    """The DRA devices of one cluster: which pods have which, and how many share each."""

    def __init__(self, cluster: Cluster) -> None:
        self._devices: dict[Claim, list[tuple[str, str, str]]] = {}
        for claim in cluster.all("resourceclaims.resource.k8s.io").values():
            name = text(claim, "metadata", "namespace"), text(claim, "metadata", "name")
            results = items(claim, "status", "allocation", "devices", "results")
            self._devices[name] = sorted(
                (text(result, "driver"), text(result, "pool"), text(result, "device"))
                for result in results
                if text(result, "driver") in DRIVERS
            )
        self._templates = {
            (text(template, "metadata", "namespace"), text(template, "metadata", "name")): template
            for template in cluster.all("resourceclaimtemplates.resource.k8s.io").values()
        }
        self._parts: dict[tuple[str, str, str], Fraction] = {}
        for resource_slice in cluster.all("resourceslices.resource.k8s.io").values():
            pool = text(resource_slice, "spec", "pool", "name")
            for device in cluster.dra_devices.get(text(resource_slice, "spec", "nodeName"), ()):
                if device.driver == text(resource_slice, "spec", "driver"):
                    self._parts[device.driver, pool, device.name] = device.part
        self._users = Counter(
            device
            for pod in cluster.all("pods").values()
            if text(pod, "spec", "nodeName")
            for device in self.of_pod(pod)
        )

    def of_pod(self, pod: Json) -> frozenset[tuple[str, str, str]]:
        namespace = text(pod, "metadata", "namespace")
        made = {
            text(status, "name"): text(status, "resourceClaimName")
            for status in items(pod, "status", "resourceClaimStatuses")
        }
        names = (
            text(claim, "resourceClaimName") or made.get(text(claim, "name"), "")
            for claim in items(pod, "spec", "resourceClaims")
        )
        return frozenset(device for name in names for device in self._devices.get((namespace, name), ()))

    def physical(self, devices: Iterable[tuple[str, str, str]]) -> Fraction:
        """One pod's part of them: what several pods have is divided among them."""
        parts = (
            self._parts.get(device, dra_part(device[2])) / max(self._users[device], 1) for device in sorted(devices)
        )
        return sum(parts, Fraction())

    def part(self, device: tuple[str, str, str]) -> Fraction:
        return self._parts.get(device, dra_part(device[2]))

    def wanted(self, namespace: str, spec: Any) -> Counter[Device]:
        """What the claims of a pod of this spec will ask for, as far as templates tell."""
        found: Counter[Device] = Counter()
        for claim in items(spec, "resourceClaims"):
            if name := text(claim, "resourceClaimTemplateName"):
                template = self._templates.get((namespace, name))
                for request in items(template, "spec", "spec", "devices", "requests"):
                    device_class = text(request, "exactly", "deviceClassName")
                    if device_class in DEVICE_CLASSES:
                        found[Device(device_class)] += max(quantity(at(request, "exactly", "count")), 1)
            else:
                devices = self._devices.get((namespace, text(claim, "resourceClaimName")), ())
                found.update(Device(driver) for driver, _, _ in devices)
        return found


def held(cluster: Cluster, claims: Claims, pod: Json) -> Held | None:
    """None: the pod has nothing to do with accelerators after all, or is over."""
    if text(pod, "status", "phase") in {"Succeeded", "Failed"}:
        return None
    node = text(pod, "spec", "nodeName")
    hardware = cluster.hardware.get(node)
    devices = Counter(asked_by_pod(at(pod, "spec")))
    physical = sum((_weight(hardware, device) * count for device, count in devices.items()), Fraction())
    claimed = claims.of_pod(pod)
    if claimed:
        physical += claims.physical(claimed)
        devices.update(Device(driver) for driver, _, _ in claimed)
    elif not node:
        devices += claims.wanted(text(pod, "metadata", "namespace"), at(pod, "spec"))
        physical = sum((_weight(hardware, device) * count for device, count in devices.items()), Fraction())
    if not devices:
        return None
    return Held(pod=pod, node=node, devices=devices, physical=physical, claimed=claimed)


def _weight(hardware: Hardware | None, device: Device) -> Fraction:
    return hardware.weight(device) if hardware is not None else general_weight(device.resource)


def placement(cluster: Cluster, one: Held) -> Placement | None:
    name = text(one.pod, "metadata", "name")
    if not one.node or not name:
        return None
    hardware = cluster.hardware.get(one.node)
    if hardware is None or not hardware.total:
        # a node that is not seen (yet): what the pod costs cannot be told, and whoever tells it finds no node either
        return Placement(pod=name, node=one.node, share=Fraction(1))
    return Placement(pod=name, node=one.node, share=min(one.physical / hardware.total, Fraction(1)))


# What templates ask for.


def wanted(claims: Claims, namespace: str, spec: Any, *, at_least: int) -> Counter[Device]:
    """All that is asked for below an owner's spec, times what it says how often. `at_least` 1 tells what one of each
    asks for, where there are none just now.
    """
    if isinstance(spec, list):
        return sum((wanted(claims, namespace, one, at_least=at_least) for one in spec), Counter[Device]())
    if not isinstance(spec, dict):
        return Counter()
    if "workerTemplate" in spec:
        found = _group_wanted(claims, namespace, spec, at_least=at_least)
    else:
        found = asked(spec) + asked_by_pod(spec) + claims.wanted(namespace, spec)
        for key in sorted(spec.keys() - _ASKED_ALREADY):
            found += wanted(claims, namespace, spec[key], at_least=at_least)
    times = 1
    for key in ("replicas" if "replicas" in spec else "minReplicas", "parallelism", "numOfHosts", "numNodes"):
        if isinstance(spec.get(key), int):
            times *= max(int(spec[key]), at_least)
    return Counter({device: count * times for device, count in found.items() if count * times > 0})


_ASKED_ALREADY = {"requests", "limits", "containers", "initContainers", "resourceClaims", "nodeSelector", "metadata"}


def _group_wanted(claims: Claims, namespace: str, spec: Json, *, at_least: int) -> Counter[Device]:
    """A group of pods of which the first leads; it may have a template of its own."""
    worker = wanted(claims, namespace, spec["workerTemplate"], at_least=at_least)
    leader = (
        wanted(claims, namespace, spec.get("leaderTemplate"), at_least=at_least) if "leaderTemplate" in spec else worker
    )
    workers = max(quantity(spec.get("size")), 1) - 1
    return leader + Counter({device: count * workers for device, count in worker.items() if workers})


def asked_by_owners(claims: Claims, group: Group) -> Counter[Device]:
    """What the top owner asks for, else the largest of what those between it and its pods ask for: each of those says
    the same again in its own way.
    """
    for at_least in (0, 1):
        asks = [
            (obj is group.top.object, found)
            for _, obj in group.owners
            if (found := wanted(claims, group.top.namespace, at(obj, "spec"), at_least=at_least))
        ]
        if asks:
            tops = [found for is_top, found in asks if is_top]
            return (
                tops[0] if tops else max((found for _, found in asks), key=lambda found: (found.total(), sorted(found)))
            )
    return Counter()


# The state.


def state_of(cluster: Cluster, group: Group, pods: Sequence[Held], queued: bool | None) -> State:
    """`queued`: whether Kueue lets it run; None where Kueue does not govern it."""
    if "pods" not in cluster.objects:
        return State.UNKNOWN
    bound = [one for one in pods if one.node]
    if pods and all(one.deleted for one in pods):
        return State.STOPPING if bound else _without_pods(group, queued)
    if any(one.alive for one in bound):
        return State.RUNNING
    if bound:
        return State.UNKNOWN
    if pods:
        return State.PENDING
    return _without_pods(group, queued)


def _without_pods(group: Group, queued: bool | None) -> State:
    top = group.top
    if top.object is None or top.collection is None:
        # a stranger: what it controls shows whether it wants pods
        if not group.owners:
            return State.UNKNOWN
        rests = [_at_rest(collection, obj, None) for collection, obj in group.owners]
        return State.STOPPED if all(rest is not None for rest in rests) else State.PENDING
    if top.collection.word == "pods":
        return State.STOPPING
    if text(top.object, "metadata", "deletionTimestamp"):
        return State.STOPPING
    return _at_rest(top.collection, top.object, queued) or State.PENDING


def _at_rest(collection: Collection, obj: Json, queued: bool | None) -> State | None:
    """Why an owner without pods has none; None: it wants some."""
    for condition in items(obj, "status", "conditions"):
        if text(condition, "type") in FINISHED_CONDITIONS and condition.get("status") == "True":
            return State.TERMINATED
    if text(obj, "status", "jobDeploymentStatus") in {"Complete", "Failed"}:
        return State.TERMINATED
    if collection.word in {"cronjobs.batch", "daemonsets.apps"}:
        return State.STOPPED  # between two runs, or without a node to run on
    if queued is not None:
        return None if queued else State.STOPPED  # Kueue suspends whatever waits for its turn
    value = at(obj, *collection.field) if collection.field else None
    stopped = {
        How.SUSPEND: value is True,
        How.SCALE: value == 0 and value is not False,
        How.ANNOTATE: bool(texts(obj, "metadata", "annotations").get(NOTEBOOK_STOPPED)),
        How.MIN_REPLICAS: value == 0 or texts(obj, "metadata", "annotations").get(KSERVE_STOPPED, "").lower() == "true",
    }
    return State.STOPPED if stopped.get(collection.how, False) else None


def queues(cluster: Cluster) -> Mapping[tuple[str, str], bool]:
    """Whether Kueue lets run what it governs, by namespace and uid of the job."""
    found: dict[tuple[str, str], bool] = {}
    for workload in cluster.all("workloads.kueue.x-k8s.io").values():
        reference = controller(workload)
        if reference is not None:
            job = text(workload, "metadata", "namespace"), text(reference, "uid")
            found[job] = found.get(job, True) and at(workload, "spec", "active") is not False
    return found


# The record.


def workloads(cluster: Cluster) -> tuple[ResourceRecord, ...]:
    """Every workload of the cluster, by name."""
    claims, governed, namespaces = Claims(cluster), queues(cluster), _namespaces(cluster)
    found = (_record(cluster, claims, group, governed, namespaces) for group in groups(cluster))
    return tuple(sorted((record for record in found if record is not None), key=_name))


def _name(record: ResourceRecord) -> tuple[str, str]:
    return record.ref.external_id, record.incarnation


def _namespaces(cluster: Cluster) -> Mapping[str, Json]:
    return {text(found, "metadata", "name"): found for found in cluster.all("namespaces").values()}


def _record(
    cluster: Cluster,
    claims: Claims,
    group: Group,
    governed: Mapping[tuple[str, str], bool],
    namespaces: Mapping[str, Json],
) -> ResourceRecord | None:
    top = group.top
    pods = [one for pod in group.pods if (one := held(cluster, claims, pod)) is not None]
    bound = [one for one in pods if one.node]
    asks = Counter[Device]() if pods else asked_by_owners(claims, group)
    if not pods and not asks:
        return None
    state = state_of(cluster, group, pods, governed.get((top.namespace, top.uid)))
    present = bound or pods
    devices, physical = _devices(claims, present, asks)
    count = min(sum(devices.values()), MOST_DEVICES)
    metadata = at(top.object, "metadata")
    namespace = at(namespaces.get(top.namespace), "metadata")
    places = tuple(placed for one in bound if (placed := placement(cluster, one)) is not None)
    nodes = [node for name in sorted({one.node for one in bound}) if (node := cluster.nodes.get(name)) is not None]
    wishes = _wishes(pods, group)
    return ResourceRecord(
        ref=ResourceRef(
            provider="kubernetes",
            account=cluster.uid,
            region="",
            kind=Kind.WORKLOAD,
            external_id=top.external_id,
        ),
        incarnation=top.uid,
        name=top.name,
        zone=_alike(zone(texts(node, "metadata", "labels")) for node in nodes),
        sku=max(sorted(devices), key=lambda device: devices[device]).resource,
        gpu_vendor=_vendor(devices),
        gpu_model=_model(cluster, bound, wishes),
        gpu_count=count,
        gpu_share=float(min(physical / count, Fraction(1)) * _machine_share(cluster, bound)) if physical else 1.0,
        gpu_memory_mib=_memory(cluster, bound, devices),
        capacity_type=_capacity_type(cluster, bound, nodes, wishes),
        state=state,
        stopped_by=_stopped_by(metadata, state),
        launched_at=max((start for one in bound if (start := _started(one)) is not None), default=None),
        created_at=time(text(metadata, "creationTimestamp")),
        tags=_tags(group, pods, namespace),
        placements=places,
        remarks=tuple(_remarks(top, governed)),
        protections=tuple(_protections(group, pods, namespace)),
        blockers=tuple(_blockers(top)),
        losses=tuple(_losses(top, group, pods)),
        listed_in=top.collection.word if top.collection is not None else "pods",
    )


def _devices(claims: Claims, pods: Sequence[Held], asks: Counter[Device]) -> tuple[Counter[Device], Fraction]:
    """What the workload holds or asks for, each device once though several of its pods have it, and all that in
    physical ones.
    """
    if not pods:
        return asks, sum((general_weight(device.resource) * count for device, count in asks.items()), Fraction())
    devices: Counter[Device] = Counter()
    for one in pods:
        devices += Counter({device: count for device, count in one.devices.items()})
        devices -= Counter(Device(driver) for driver, _, _ in one.claimed)
    devices.update(Device(driver) for driver, _, _ in frozenset().union(*(one.claimed for one in pods)))
    return devices, sum((one.physical for one in pods), Fraction())


def _started(one: Held) -> datetime | None:
    return time(text(one.pod, "status", "startTime"))


def _alike(found: Iterable[T]) -> T | None:
    values = set(found)
    return values.pop() if len(values) == 1 else None


def _vendor(devices: Iterable[Device]) -> str | None:
    return _alike(vendor_of(device.resource) or DEVICE_CLASSES.get(device.resource) for device in devices)


def _model(cluster: Cluster, bound: Sequence[Held], wishes: Mapping[str, str]) -> str | None:
    if bound:
        found = {hardware.model if (hardware := cluster.hardware.get(one.node)) is not None else None for one in bound}
        model: Model | None = _alike(found)
    else:
        model = model_by_labels(wishes)
    return (model.name or None) if model is not None else None


def _machine_share(cluster: Cluster, bound: Sequence[Held]) -> Fraction:
    """Part of a real GPU that each GPU of its nodes is."""
    return _alike(found.share for one in bound if (found := cluster.hardware.get(one.node))) or Fraction(1)


def _memory(cluster: Cluster, bound: Sequence[Held], devices: Mapping[Device, int]) -> int | None:
    """Of one device: of a whole GPU what its node says, of a MIG instance what its profile says."""
    profiles = {profile_in(device.resource) if "/mig-" in device.resource else None for device in devices}
    profile = _alike(profiles)
    if profile is not None:
        return profile.memory_mib
    nodes = [cluster.hardware.get(one.node) for one in bound]
    whole = all(one.physical == sum(one.devices.values()) for one in bound)
    memories = {hardware.memory_mib if hardware is not None else None for hardware in nodes}
    return _alike(memories) if whole and profiles == {None} else None


def _capacity_type(
    cluster: Cluster, bound: Sequence[Held], nodes: Sequence[Json], wishes: Mapping[str, str]
) -> CapacityType:
    if not bound:
        return bought(wishes) or CapacityType.UNKNOWN
    if len(nodes) < len({one.node for one in bound}):
        return CapacityType.UNKNOWN
    found = {capacity_type(texts(node, "metadata", "labels"), text(node, "spec", "providerID")) for node in nodes}
    return _alike(found) or CapacityType.UNKNOWN


def _wishes(pods: Sequence[Held], group: Group) -> dict[str, str]:
    """The labels that every node for it must have."""
    specs = [spec for one in pods if (spec := at(one.pod, "spec")) is not None]
    specs += [spec for _, obj in group.owners for spec in _pod_specs(at(obj, "spec"))] if not specs else []
    return dict(set.intersection(*(set(_wished(spec).items()) for spec in specs))) if specs else {}


def _pod_specs(found: Any) -> Iterator[Json]:
    if isinstance(found, list):
        for item in found:
            yield from _pod_specs(item)
    elif isinstance(found, dict):
        if "containers" in found:
            yield found
        else:
            for key in sorted(found):
                yield from _pod_specs(found[key])


def _wished(spec: Any) -> dict[str, str]:
    wishes = texts(spec, "nodeSelector")
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    terms = items(spec, *path)
    if len(terms) == 1:  # of several, any would do
        for expression in items(terms[0], "matchExpressions"):
            values = expression.get("values")
            only = values[0] if isinstance(values, list) and len(values) == 1 else None
            if expression.get("operator") == "In" and isinstance(only, str):
                wishes[text(expression, "key")] = only
    return wishes


def _stopped_by(metadata: Any, state: State) -> Initiator | None:
    """Our own mark; who else stopped it, Kubernetes does not say."""
    down = state in {State.STOPPED, State.STOPPING}
    return Initiator.PERSON if down and f"{CURFEW}stopped-by" in texts(metadata, "annotations") else None


PASSING = frozenset(
    {
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "batch.kubernetes.io/job-name",
        "controller-revision-hash",
        "controller-uid",
        "job-name",
        "pod-template-generation",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    }
)
"""Labels that controllers write anew on each pod."""


def _tags(group: Group, pods: Sequence[Held], namespace: Any) -> dict[str, str]:
    """Labels of the namespace, overlaid by those that all its pods have, overlaid by the owner's."""
    of_pods = [set(texts(one.pod, "metadata", "labels").items()) for one in pods]
    if not of_pods:
        of_pods = [set(labels.items()) for _, obj in group.owners for labels in _template_labels(at(obj, "spec"))]
    common = set.intersection(*of_pods) if of_pods else set()
    passing = {key: value for key, value in sorted(common) if key not in PASSING}
    return texts(namespace, "labels") | passing | texts(group.top.object, "metadata", "labels")


def _template_labels(found: Any) -> Iterator[dict[str, str]]:
    if isinstance(found, list):
        for item in found:
            yield from _template_labels(item)
    elif isinstance(found, dict):
        if isinstance(at(found, "spec", "containers"), list):
            yield texts(found, "metadata", "labels")
        for key in sorted(found):
            yield from _template_labels(found[key])


# What stands against acting on it.

SYSTEM_NAMESPACES = frozenset({"calico-system", "gmp-system", "gpu-operator", "nvidia-gpu-operator", "tigera-operator"})
SYSTEM_PREFIXES = ("kube-", "openshift-", "gke-managed-")


def _protections(group: Group, pods: Sequence[Held], namespace: Any) -> Iterator[Protection]:
    name = group.top.namespace
    if name in SYSTEM_NAMESPACES or name.startswith(SYSTEM_PREFIXES):
        yield Protection(
            source=f"namespace {name}", sentence=f"it belongs to the cluster itself: its namespace is {name}"
        )
    said = [("", at(group.top.object, "metadata")), ("its namespace's ", namespace)]
    said += [
        (f"its {collection.kind}'s ", at(obj, "metadata"))
        for collection, obj in group.owners
        if obj is not group.top.object
    ]
    said += [("a pod's ", at(one.pod, "metadata")) for one in pods if one.pod is not group.top.object]
    yield from protections(*said)


def _blockers(top: Top) -> Iterator[Blocker]:
    group = top.api_version.rpartition("/")[0]
    named = f"{top.kind} ({group})" if group else top.kind
    if top.collection is None:
        for verb in VERBS:
            sentence = f"Curfew knows no way to stop a {named}; ask who runs {top.kind} {top.name} to stop it there"
            yield Blocker(verb=verb, code="NoWay", sentence=sentence)
        return
    if top.object is None:
        for verb in VERBS:
            sentence = f"its {top.kind} {top.name} itself was not seen: not listed yet, or not allowed to be listed"
            yield Blocker(verb=verb, code="OwnerUnseen", sentence=sentence)
        return
    for verb in VERBS:
        if verb in top.collection.verbs:
            continue
        if verb is Verb.SUSPEND:
            yield Blocker(verb=verb, code="NoSuspend", sentence=f"a {named} cannot be suspended, only stopped")
        elif verb is Verb.SCALE_TO_ZERO:
            yield Blocker(verb=verb, code="NoReplicas", sentence=f"a {named} has no replicas to scale")
        else:
            yield Blocker(verb=verb, code="NoWay", sentence=f"Curfew knows no way to stop a {named} and bring it back")
    if top.kind == "RayJob" and at(top.object, "spec", "shutdownAfterJobFinishes") is not True:
        for verb in (Verb.STOP, Verb.SUSPEND):
            sentence = "KubeRay suspends a RayJob only where its shutdownAfterJobFinishes is true"
            yield Blocker(verb=verb, code="RayJobKeepsCluster", sentence=sentence)


SCRATCH = frozenset({"/dev/shm", "/run", "/tmp", "/var/run"})  # noqa: S108 - paths inside other people's containers
"""Where nobody expects to find anything again."""
INJECTED = ("istio-", "linkerd-", "workload-", "credential-socket", "kserve-provision-location", "ray-logs")
"""Volumes that meshes and operators add to every pod: certificates, logs, models that are fetched again."""


def _losses(top: Top, group: Group, pods: Sequence[Held]) -> Iterator[Loss]:
    if top.collection is None:
        return
    if top.collection.how is How.EVICT:
        yield Loss(verb=Verb.STOP, name=LossName.TERMINATE, sentence="a bare pod that is evicted does not come back")
    specs = [spec for one in pods if (spec := at(one.pod, "spec")) is not None]
    specs = specs or [spec for _, obj in group.owners for spec in _pod_specs(at(obj, "spec"))]
    volumes = sorted({name for spec in specs for name in _lost_with(spec)})
    if not volumes:
        return
    named = f"volume {volumes[0]}" if len(volumes) == 1 else f"volumes {', '.join(volumes)}"
    for verb in (Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO):
        if verb in top.collection.verbs:
            sentence = f"what its pods wrote to the {named} would be erased with them"
            yield Loss(verb=verb, name=LossName.LOCAL_DISKS, sentence=sentence)


def _lost_with(spec: Json) -> Iterator[str]:
    """Volumes of this pod that go with it and hold what it wrote."""
    going = {
        text(volume, "name")
        for volume in items(spec, "volumes")
        if ("emptyDir" in volume and text(volume, "emptyDir", "medium") != "Memory") or "ephemeral" in volume
    }
    for which in ("containers", "initContainers"):
        for container in items(spec, which):
            for mount in items(container, "volumeMounts"):
                name = text(mount, "name")
                scratch = text(mount, "mountPath").rstrip("/") in SCRATCH
                if name in going and not scratch and not name.startswith(INJECTED):
                    yield name


def _remarks(top: Top, governed: Mapping[tuple[str, str], bool]) -> Iterator[str]:
    if top.collection is None:
        return
    if top.collection.how is How.SUSPEND and top.kind not in {"CronJob", "RayCluster"}:
        yield "suspending it ends its pods: once resumed, they start from the beginning or from their last checkpoint"
    if (top.namespace, top.uid) in governed:
        yield "Kueue decides when it runs"
