"""Finds what a series speaks of, by its labels alone: never by times, and never by choosing among two.

A machine: the ways are tried from the most to the least trusted, and the first that finds anything counts. A workload:
by its pod's name, where nothing the labels say of the node or the cluster speaks against it. If there is more than one,
the series is ambiguous, and so is each of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from providers.machine_ids import listed_key, machine_key, plain_key
from providers.prometheus import Cluster, LabelJoin
from providers.prometheus.vocabulary import (
    HOST_LABELS,
    HOST_TAGS,
    INSTANCE_ID_LABELS,
    NODE_LABELS,
    POD_LABELS,
    PodName,
    pods_of,
    told,
)
from providers.records import Kind, ResourceRecord, ResourceRef

MACHINES = frozenset({Kind.INSTANCE, Kind.NODE})
"""What has a host name; a Deployment that happens to be called like a host is none."""
IN_CLUSTERS = frozenset({Kind.NODE, Kind.WORKLOAD})
ADDRESS = re.compile(r"[\d.]+|.*:.*")

Way = Literal["instance_id", "host_name"] | LabelJoin
Keys = dict[str, set[ResourceRef]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """What a series' labels lead to."""

    refs: frozenset[ResourceRef]
    label: str
    """The label that led there, and its value: what to ask the server for."""
    value: str
    by_id: bool = False
    """By the cloud's own id, which no second machine has."""
    pod: str = ""
    """Which of its pods, of a workload."""


class Join:
    """The ways from labels to these machines and workloads."""

    def __init__(
        self, ways: Iterable[Way], records: Iterable[ResourceRecord], clusters: Sequence[Cluster] | None = None
    ) -> None:
        self._clusters = clusters
        records = tuple(record for record in records if self._watched(record.ref))
        self._ways = tuple(_way(way, records) for way in ways)
        self._same = _same_machines(records)
        self._pods = _Pods(records)
        of_clusters = {name for cluster in clusters or () for name in cluster.labels}
        of_machines = {name for way in self._ways for name in way.labels}
        of_pods = {name for names in POD_LABELS for name in names} | set(HOST_LABELS)
        self.pod_labels = _or_renamed(of_pods | of_clusters)
        """Every label that may lead to a workload."""
        self.labels = _or_renamed(of_machines | of_clusters | (of_pods if self._pods else set()))
        """Every label that may lead to one of these."""

    def matches(self, labels: Mapping[str, str]) -> tuple[Match, ...]:
        """A machine, a workload, both or none."""
        machine, workload = self.machine(labels), self.workload(labels)
        if machine is not None and workload is not None and machine.refs & workload.refs:
            machine = None  # a way of one's own led to the workload itself: its pod says more
        return tuple(match for match in (machine, workload) if match is not None)

    def machine(self, labels: Mapping[str, str]) -> Match | None:
        for way in self._ways:
            found: dict[tuple[str, str], frozenset[ResourceRef]] = {}
            for name in way.labels:
                for label, value in told(labels, name):
                    if refs := frozenset(ref for ref in way.find(value) if self._may_be(ref, labels)):
                        found[label, value] = refs
            if found:
                label, value = next(iter(found))
                refs = frozenset(self._same.get(ref, ref) for refs in found.values() for ref in refs)
                return Match(refs=refs, label=label, value=value, by_id=isinstance(way, _InstanceId))
        return None

    def workload(self, labels: Mapping[str, str]) -> Match | None:
        found = [
            Match(refs=refs, label=pod.label, value=pod.name, pod=pod.name)
            for pod in pods_of(labels)
            if (refs := frozenset(ref for ref in self._pods.find(pod, labels) if self._may_be(ref, labels)))
        ]
        return replace(found[0], refs=frozenset().union(*(match.refs for match in found))) if found else None

    def _watched(self, ref: ResourceRef) -> bool:
        if self._clusters is None or ref.kind not in IN_CLUSTERS:
            return True
        return any(cluster.uid == ref.account for cluster in self._clusters)

    def _may_be(self, ref: ResourceRef, labels: Mapping[str, str]) -> bool:
        """Whether a series carries what those of its cluster carry."""
        if self._clusters is None or ref.kind not in IN_CLUSTERS:
            return True
        return any(
            all(value in (found for _, found in told(labels, name)) for name, value in cluster.labels.items())
            for cluster in self._clusters
            if cluster.uid == ref.account
        )


def _or_renamed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(label for name in names for label in (name, f"exported_{name}")))


def _way(way: Way, records: Iterable[ResourceRecord]) -> _InstanceId | _HostName | _Label:
    if isinstance(way, LabelJoin):
        return _Label(way, records)
    return _InstanceId(records) if way == "instance_id" else _HostName(records)


def _same_machines(records: Iterable[ResourceRecord]) -> Mapping[ResourceRef, ResourceRef]:
    """Nodes that are machines of a cloud we see too: what is told of the one is the other's."""
    records = tuple(records)
    machines = _InstanceId(records)
    found = {record.ref: machines.find(record.machine) for record in records if record.machine}
    return {node: next(iter(refs)) for node, refs in found.items() if len(refs) == 1}


class _InstanceId:
    """By the cloud's own id, in the form of the cloud or of Kubernetes."""

    labels = INSTANCE_ID_LABELS

    def __init__(self, records: Iterable[ResourceRecord]) -> None:
        self._refs: Keys = defaultdict(set)
        for record in records:
            if record.ref.kind is Kind.INSTANCE:
                for key in {plain_key(record.ref.external_id), listed_key(record.ref.external_id)}:
                    self._refs[key].add(record.ref)

    def find(self, value: str) -> frozenset[ResourceRef]:
        return frozenset(self._refs.get(machine_key(value) if "://" in value else plain_key(value), ()))


class _HostName:
    """By host name against the name, the id or the host name tags. A short name fits a long one that begins with it."""

    labels = HOST_LABELS

    def __init__(self, records: Iterable[ResourceRecord]) -> None:
        self._whole: Keys = defaultdict(set)
        self._first_part: Keys = defaultdict(set)
        for record in records:
            if record.ref.kind in MACHINES:
                for name in _host_names(record):
                    self._whole[name].add(record.ref)
                    self._first_part[_short(name)].add(record.ref)

    def find(self, value: str) -> frozenset[ResourceRef]:
        host = _host(value)
        if _says_nothing(host):
            return frozenset()
        if _short(host) == host:
            return frozenset(self._first_part.get(host, ()))
        return frozenset(self._whole.get(host, ()) or self._whole.get(_short(host), ()))


class _Pods:
    """By the name of a pod, unless the series names another node than the pod's."""

    def __init__(self, records: Iterable[ResourceRecord]) -> None:
        self._placed: dict[tuple[str, str], list[tuple[ResourceRef, str]]] = defaultdict(list)
        self._nodes: set[str] = set()
        """Short names of all nodes we know."""
        for record in records:
            if record.ref.kind is Kind.NODE:
                self._nodes.add(_short(_host(record.ref.external_id)))
            for placed in record.placements:
                namespace = record.ref.external_id.partition("/")[0]
                self._placed[namespace, placed.pod].append((record.ref, _host(placed.node)))
                self._nodes.add(_short(_host(placed.node)))

    def __bool__(self) -> bool:
        return bool(self._placed)

    def find(self, pod: PodName, labels: Mapping[str, str]) -> frozenset[ResourceRef]:
        placed = self._placed.get((pod.namespace, pod.name))
        if placed is None:
            return frozenset()
        hosts = [(name, _host(value)) for name in HOST_LABELS for _, value in told(labels, name)]
        hosts = [(name, host) for name, host in hosts if not _says_nothing(host)]
        elsewhere = any(name in NODE_LABELS or _short(host) in self._nodes for name, host in hosts)
        return frozenset(ref for ref, node in placed if not elsewhere or any(_fits(host, node) for _, host in hosts))


class _Label:
    """By a label and what its value is, as the source's document says."""

    def __init__(self, way: LabelJoin, records: Iterable[ResourceRecord]) -> None:
        self.labels = (way.label,)
        self._refs: Keys = defaultdict(set)
        for record in records:
            if value := _attribute(record, way.to):
                self._refs[_host(value)].add(record.ref)

    def find(self, value: str) -> frozenset[ResourceRef]:
        return frozenset(self._refs.get(_host(value), ()))


def _attribute(record: ResourceRecord, to: str) -> str | None:
    if to == "external_id":
        return record.ref.external_id
    if to == "name":
        return record.name
    return record.tags.get(to.removeprefix("tag:"))


def _host_names(record: ResourceRecord) -> Iterator[str]:
    yield from (_host(name) for name in (record.name, record.ref.external_id) if name and "/" not in name)
    for key, value in record.tags.items():
        if key.lower().replace("-", "_") in HOST_TAGS and value:
            yield _host(value)


def _host(value: str) -> str:
    """In lower case, without a port and without the root's dot."""
    bracketed = re.fullmatch(r"\[(.+)\](:\d+)?", value)
    host = bracketed[1] if bracketed else re.sub(r"^([^:]+):\d+$", r"\1", value)
    return host.lower().rstrip(".")


def _short(host: str) -> str:
    """The part before the first dot. An address (of digits and dots, or with colons) has no parts."""
    return host if ADDRESS.fullmatch(host) else host.partition(".")[0]


def _fits(host: str, name: str) -> bool:
    """A short name fits a long one that begins with it; two long ones must be equal."""
    return host == name or (_short(host) == _short(name) and (_short(host) == host or _short(name) == name))


def _says_nothing(host: str) -> bool:
    """Every machine calls itself this."""
    return not host or _short(host) in ("localhost", "localhost6") or host.startswith("127.") or host == "::1"
