"""Finds the machine a series speaks of, by its labels alone: never by times, and never by choosing among two.

The ways are tried from the most to the least trusted; the first that finds anything counts. If it finds more than
one machine, the series is ambiguous, and so is each of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from providers.prometheus import LabelJoin
from providers.prometheus.vocabulary import HOST_LABELS, HOST_TAGS, INSTANCE_ID_LABELS, told
from providers.records import Kind, ResourceRecord, ResourceRef

MACHINES = frozenset({Kind.INSTANCE, Kind.NODE})
"""What has a host name; a Deployment that happens to be called like a host is none."""
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
    by_id: bool
    """By the cloud's own id, which no second machine has."""


class Join:
    """The ways from labels to these machines."""

    def __init__(self, ways: Iterable[Way], records: Iterable[ResourceRecord]) -> None:
        records = tuple(records)
        self._ways = tuple(_way(way, records) for way in ways)

    def match(self, labels: Mapping[str, str]) -> Match | None:
        for way in self._ways:
            found: dict[tuple[str, str], frozenset[ResourceRef]] = {}
            for name in way.labels:
                for label, value in told(labels, name):
                    if refs := way.find(value):
                        found[label, value] = refs
            if found:
                label, value = next(iter(found))
                refs = frozenset().union(*found.values())
                return Match(refs=refs, label=label, value=value, by_id=isinstance(way, _InstanceId))
        return None


def labels_of(ways: Iterable[Way]) -> tuple[str, ...]:
    """Every label that may lead to a machine."""
    names = (name for way in ways for name in _labels(way))
    return tuple(dict.fromkeys(label for name in names for label in (name, f"exported_{name}")))


def _labels(way: Way) -> tuple[str, ...]:
    if isinstance(way, LabelJoin):
        return (way.label,)
    return INSTANCE_ID_LABELS if way == "instance_id" else HOST_LABELS


def _way(way: Way, records: Iterable[ResourceRecord]) -> _InstanceId | _HostName | _Label:
    if isinstance(way, LabelJoin):
        return _Label(way, records)
    return _InstanceId(records) if way == "instance_id" else _HostName(records)


class _InstanceId:
    """By the cloud's own id, in the form of the cloud or of Kubernetes."""

    labels = INSTANCE_ID_LABELS

    def __init__(self, records: Iterable[ResourceRecord]) -> None:
        self._refs: Keys = defaultdict(set)
        for record in records:
            if record.ref.kind is Kind.INSTANCE:
                for key in {_id(record.ref.external_id), _gce_path(record.ref.external_id)}:
                    self._refs[key].add(record.ref)

    def find(self, value: str) -> frozenset[ResourceRef]:
        scheme, separator, rest = value.partition("://")
        if not separator:
            return frozenset(self._refs.get(_id(value), ()))
        # aws:///us-east-1a/i-0abc, gce://project/zone/name, azure:///subscriptions/…/virtualMachines/name
        last = rest.rpartition("/")[2] if scheme == "aws" else rest
        return frozenset(self._refs.get(_id(last), ()))


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


def _says_nothing(host: str) -> bool:
    """Every machine calls itself this."""
    return not host or _short(host) in ("localhost", "localhost6") or host.startswith("127.") or host == "::1"


def _id(value: str) -> str:
    return value.strip("/").lower()


def _gce_path(external_id: str) -> str:
    """`projects/p/zones/z/instances/n` as Kubernetes has it, `p/z/n`; any other id as it is."""
    path = re.search(r"projects/([^/]+)/zones/([^/]+)/instances/([^/]+)$", external_id)
    return "/".join(path.groups()).lower() if path else _id(external_id)
