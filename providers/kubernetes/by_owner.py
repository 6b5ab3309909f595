"""Turns a cluster into records as `translate` does, but reads only workloads of which something changed since.

A workload is told by what has the same owner at its top, by its namespaces and by the nodes its pods are on. Claims may
share devices, so all that is in namespaces with claims is read as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from providers.kubernetes.accelerators import text
from providers.kubernetes.cluster import Cluster
from providers.kubernetes.nodes import nodes
from providers.kubernetes.owners import COLLECTIONS, by_kind
from providers.kubernetes.workloads import controller, workloads
from providers.records import ResourceRecord

Json = Mapping[str, Any]
Objects = Mapping[str, Mapping[str, Json]]
"""By the word of their collection and their uid."""

CLAIMING = "*"
"""All namespaces with claims, as if they had one owner."""
CLAIMS = ("resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io")
SLICES = "resourceslices.resource.k8s.io"
NOTHING: Mapping[str, Json] = {}
"""The very same wherever there is nothing, so that it is seen at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """All that has one owner, and what it came to."""

    objects: Objects
    records: tuple[ResourceRecord, ...]


class ByOwner:
    """The records of one cluster, look after look."""

    def __init__(self) -> None:
        self._read: Mapping[str, Read] = {}
        self._uid = ""

    def records(self, cluster: Cluster, *, now: datetime) -> list[ResourceRecord]:
        """As `translate.records`, in another order. Quick where an object that did not change is the one it was."""
        before = self._read if cluster.uid == self._uid else {}
        read = {}
        for owner, objects in _divided(cluster).items():
            known = before.get(owner)
            if known is None or known.objects != objects:
                known = Read(objects=objects, records=workloads(Cluster(uid=cluster.uid, objects=objects)))
            read[owner] = known
        self._read, self._uid = read, cluster.uid
        return [*nodes(cluster, now=now), *(record for known in read.values() for record in known.records)]


def _divided(cluster: Cluster) -> Mapping[str, Objects]:
    """Everything by the uid of its top owner, each with what it is told by."""
    words = [word for word in cluster.objects if COLLECTIONS[word].namespaced]
    tops = _tops(cluster, words)
    claiming = {_namespace(found) for word in CLAIMS for found in cluster.all(word).values()}
    nothing = dict.fromkeys(cluster.objects, NOTHING)
    divided: dict[str, dict[str, Mapping[str, Json]]] = {}
    for word in words:
        for uid, found in cluster.objects[word].items():
            owner = CLAIMING if _namespace(found) in claiming else tops.get(uid, uid)
            objects = divided.get(owner)
            if objects is None:
                objects = divided[owner] = dict(nothing)
            if objects[word] is NOTHING:
                objects[word] = {uid: found}
            else:
                objects[word][uid] = found  # type: ignore[index]  # made above
    _with_surroundings(cluster, words, divided)
    return divided


def _tops(cluster: Cluster, words: list[str]) -> Mapping[str, str]:
    """Uid of what has an owner → that of its top owner. Whoever names an owner that is gone goes with what has its name
    now: only both together tell that."""
    there = {uid for word in words for uid in cluster.objects[word]}
    named = {
        (word, _namespace(found), found["metadata"]["name"]): uid
        for word in words
        if COLLECTIONS[word].owner or COLLECTIONS[word].metadata_only
        for uid, found in cluster.objects[word].items()
    }
    parents: dict[str, str] = {}
    for word in words:
        for uid, found in cluster.objects[word].items():
            if "ownerReferences" in found["metadata"] and (reference := controller(found)) is not None:
                owner: str = reference["uid"]
                kind = by_kind(text(reference, "apiVersion"), reference["kind"])
                if owner not in there and kind is not None:
                    owner = named.get((kind.word, _namespace(found), reference["name"]), owner)
                parents[uid] = owner
    tops: dict[str, str] = {}
    for uid in parents:
        below: dict[str, None] = {}
        top = uid
        while top not in below and top not in tops and top in parents:
            below[top] = None
            top = parents[top]
        # where they own each other, any of them stands for all
        tops |= dict.fromkeys(below, tops.get(top, top))
    return tops


def _with_surroundings(
    cluster: Cluster, words: list[str], divided: Mapping[str, dict[str, Mapping[str, Json]]]
) -> None:
    """The namespaces of each, and the nodes that its pods are on."""
    spaces = {found["metadata"]["name"]: (uid, found) for uid, found in cluster.all("namespaces").items()}
    places = {found["metadata"]["name"]: (uid, found) for uid, found in cluster.all("nodes").items()}
    slices = cluster.all(SLICES)
    for objects in divided.values():
        present = [objects[word] for word in words if objects[word] is not NOTHING]
        inside = {_namespace(found) for some in present for found in some.values()}
        if "namespaces" in objects:
            objects["namespaces"] = dict(spaces[name] for name in inside if name in spaces)
        on = {pod["spec"].get("nodeName", "") for pod in objects.get("pods", NOTHING).values()}
        if on and "nodes" in objects:
            objects["nodes"] = dict(places[name] for name in on if name in places)
        if slices:
            there = {"", *on}
            objects[SLICES] = {uid: one for uid, one in slices.items() if one["spec"].get("nodeName", "") in there}


def _namespace(found: Json) -> str:
    name: str = found["metadata"].get("namespace", "")
    return name
