"""A cluster as far as it is seen, and what the metadata of any of its objects says: times, and what protects it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from providers.kubernetes.accelerators import DraDevice, Hardware, at, dra_device, hardware, items, text, texts
from providers.records import Protection

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as far as it is seen: slimmed objects by the word of their collection and their uid.

    A collection that could not be listed is left out; one without objects is there, and empty.
    """

    uid: str
    """Of the namespace kube-system, which never changes."""
    objects: Mapping[str, Mapping[str, Json]]

    def all(self, word: str) -> Mapping[str, Json]:
        return self.objects.get(word) or {}

    @cached_property
    def nodes(self) -> Mapping[str, Json]:
        """By name."""
        return {text(node, "metadata", "name"): node for node in self.all("nodes").values()}

    @cached_property
    def dra_devices(self) -> Mapping[str, tuple[DraDevice, ...]]:
        """What DRA drivers offer, by node."""
        found = defaultdict(list)
        for resource_slice in self.all("resourceslices.resource.k8s.io").values():
            driver, node = text(resource_slice, "spec", "driver"), text(resource_slice, "spec", "nodeName")
            for device in items(resource_slice, "spec", "devices"):
                found[node].append(dra_device(driver, device))
        return {node: tuple(devices) for node, devices in found.items()}

    @cached_property
    def hardware(self) -> Mapping[str, Hardware]:
        """Of every node that has accelerators, by its name."""
        found = {name: self._hardware(name, node) for name, node in self.nodes.items() if name}
        return {name: has for name, has in found.items() if has is not None}

    def _hardware(self, name: str, node: Json) -> Hardware | None:
        capacity, allocatable = at(node, "status", "capacity"), at(node, "status", "allocatable")
        return hardware(
            texts(node, "metadata", "labels"),
            texts(node, "metadata", "annotations"),
            capacity if isinstance(capacity, dict) else {},
            allocatable if isinstance(allocatable, dict) else {},
            self.dra_devices.get(name, ()),
        )


# What protects.

PROTECTING = (
    "curfew-protect",
    "karpenter.sh/do-not-disrupt",
    "downscaler/exclude",
    "downscaler/force-uptime",
    "cluster-autoscaler.kubernetes.io/scale-down-disabled",
)
"""Annotations and labels that protect by whatever value, short of `false`."""
EXCLUDE_UNTIL, SAFE_TO_EVICT = "downscaler/exclude-until", "cluster-autoscaler.kubernetes.io/safe-to-evict"


def protections(*said: tuple[str, Any]) -> Iterator[Protection]:
    """Reasons in the metadata of an object and of those around it, each with whose it is: ``, `its namespace's `."""
    seen = set()
    for whose, metadata in said:
        for protection in _protections(whose, metadata):
            if protection not in seen:
                seen.add(protection)
                yield protection


def _protections(whose: str, metadata: Any) -> Iterable[Protection]:
    for word, where in (("annotation", texts(metadata, "annotations")), ("label", texts(metadata, "labels"))):
        for key in PROTECTING:
            if key in where and where[key].strip().lower() != "false":
                yield Protection(source=key, sentence=f"{whose or 'its '}{word} {key} says {_short(where[key])!r}")
        if where.get(SAFE_TO_EVICT, "").strip().lower() == "false":
            yield Protection(source=SAFE_TO_EVICT, sentence=f"{whose or 'its '}{word} {SAFE_TO_EVICT} says 'false'")
        if EXCLUDE_UNTIL in where:
            until = where[EXCLUDE_UNTIL]
            sentence = f"{whose or 'its '}{word} {EXCLUDE_UNTIL} says {_short(until)!r}"
            yield Protection(source=EXCLUDE_UNTIL, sentence=sentence, until=time(until))


def _short(said: str) -> str:
    """Annotations may be as long as a book, and this one is read by people."""
    return said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}…"


LONGEST_SAID = 100
FRACTION_OF_A_MICROSECOND = re.compile(r"(\.\d{6})\d+")


def time(said: str) -> datetime | None:
    """An RFC 3339 time; None where it is none, so that what protects until then protects without an end."""
    try:
        found = datetime.fromisoformat(FRACTION_OF_A_MICROSECOND.sub(r"\1", said.strip()))
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
