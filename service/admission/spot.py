"""Where a cluster has its spot nodes, whether a pod asks for them, and what must be added to it so that it does. Pure.

Whether it should is `judge`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from providers.kubernetes.accelerators import at, items, text, texts
from providers.kubernetes.nodes import BOUGHT
from providers.records import CapacityType

Json = Mapping[str, Any]
Operation = dict[str, Any]
"""One of a JSONPatch."""

PLACED = "curfew.dev/placed-on-spot"
"""The annotation that tells which policy placed a pod."""


class Flavour(StrEnum):
    """Who provides a cluster's nodes, and so which label tells spot. A cluster may have several."""

    EKS = "eks"
    KARPENTER = "karpenter"
    GKE = "gke"
    AKS = "aks"


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What all spot nodes of one flavour carry, and nothing else does."""

    key: str
    value: str
    tainted: bool
    """Its spot nodes keep pods away that do not tolerate a taint of the same key and value."""
    seen_by: tuple[str, ...]
    """Labels of its nodes, spot or not."""


LABELS: Mapping[Flavour, Label] = {
    Flavour.EKS: Label(
        key="eks.amazonaws.com/capacityType",
        value="SPOT",
        tainted=False,
        seen_by=("eks.amazonaws.com/capacityType",),
    ),
    Flavour.KARPENTER: Label(
        key="karpenter.sh/capacity-type",
        value="spot",
        tainted=False,
        seen_by=("karpenter.sh/capacity-type", "karpenter.sh/nodepool"),
    ),
    Flavour.GKE: Label(
        key="cloud.google.com/gke-spot",
        value="true",
        tainted=True,
        seen_by=("cloud.google.com/gke-nodepool", "cloud.google.com/gke-spot", "cloud.google.com/gke-provisioning"),
    ),
    Flavour.AKS: Label(
        key="kubernetes.azure.com/scalesetpriority",
        value="spot",
        tainted=True,
        seen_by=("kubernetes.azure.com/agentpool", "kubernetes.azure.com/scalesetpriority"),
    ),
}


def flavours(nodes: Iterable[Mapping[str, str]]) -> tuple[Flavour, ...]:
    """Whose nodes these are, by their labels."""
    seen = frozenset[str]().union(*nodes)
    return tuple(flavour for flavour, label in LABELS.items() if not seen.isdisjoint(label.seen_by))


# What a pod asks for.


class Wish(StrEnum):
    """What a pod says itself of how its node must have been bought."""

    SPOT = "spot"
    OTHERWISE = "otherwise"
    """On demand, reserved, anything but spot."""
    OPEN = "open"


AFFINITY = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
SPOT_WORDS: Mapping[str, frozenset[str]] = {
    key: spot
    for key, words in BOUGHT
    if (spot := frozenset(word for word, bought in words.items() if bought is CapacityType.SPOT)) and "/" in key
}
"""Label → its words for spot."""


def wish(spec: Json) -> Wish:
    """What the whole pod asks for; of several terms any would do."""
    selected = _selected(spec)
    if selected is not Wish.OPEN:
        return selected
    found = {_wish_of(term) for term in _terms(spec) if not _matches_nothing(term)}
    return found.pop() if len(found) == 1 else Wish.OPEN


def _selected(spec: Json) -> Wish:
    return _together(_of_words(key, {value}) for key, value in texts(spec, "nodeSelector").items())


def _terms(spec: Json) -> list[Json]:
    return items(spec, *AFFINITY, "nodeSelectorTerms")


def _matches_nothing(term: Json) -> bool:
    """As Kubernetes has it, an empty term is for no node."""
    return not (items(term, "matchExpressions") or term.get("matchFields"))


def _wish_of(term: Json) -> Wish:
    return _together(_of_expression(expression) for expression in items(term, "matchExpressions"))


def _together(wishes: Iterable[Wish]) -> Wish:
    """All must hold. What contradicts itself runs nowhere, so not on demand either."""
    found = set(wishes)
    if Wish.SPOT in found:
        return Wish.SPOT
    return Wish.OTHERWISE if Wish.OTHERWISE in found else Wish.OPEN


def _of_words(key: str, values: set[str]) -> Wish:
    """One of these words must stand there."""
    spot = SPOT_WORDS.get(key)
    if spot is None or not values:
        return Wish.OPEN
    if values <= spot:
        return Wish.SPOT
    return Wish.OTHERWISE if values.isdisjoint(spot) else Wish.OPEN


def _of_expression(expression: Json) -> Wish:
    key, operator = text(expression, "key"), text(expression, "operator")
    said = expression.get("values")
    values = {value for value in said if isinstance(value, str)} if isinstance(said, list) else set()
    spot = SPOT_WORDS.get(key)
    if spot is None:
        return Wish.OPEN
    if operator == "In":
        return _of_words(key, values)
    if operator == "NotIn":
        return Wish.OTHERWISE if spot <= values else Wish.OPEN
    only_on_spot = key in {LABELS[Flavour.GKE].key, LABELS[Flavour.AKS].key, "cloud.google.com/gke-preemptible"}
    if only_on_spot and operator == "Exists":
        return Wish.SPOT
    return Wish.OTHERWISE if only_on_spot and operator == "DoesNotExist" else Wish.OPEN


# What is added to it.


def patch(pod: Json, on: Sequence[Flavour], *, policy: str) -> list[Operation]:
    """A JSONPatch that has the pod run on spot nodes only. All that was written in it stays, and still holds."""
    spec = at(pod, "spec")
    labels = [LABELS[flavour] for flavour in on]
    operations = [*_placing(spec, labels), *_tolerating(spec, labels)]
    if operations:
        operations += _entry(pod, ("metadata", "annotations"), PLACED, policy)
    return operations


def _placing(spec: Json, labels: Sequence[Label]) -> Iterator[Operation]:
    if len(labels) == 1:
        yield from _entry({"spec": spec}, ("spec", "nodeSelector"), labels[0].key, labels[0].value)
        return
    spots = [{"key": label.key, "operator": "In", "values": [label.value]} for label in labels]
    before = _terms(spec)
    if not before:
        terms: list[Json] = [{"matchExpressions": [spot]} for spot in spots]
    else:
        terms = [crossed for term in before for crossed in _crossed(term, spots)]
    if terms != before:
        yield from _put({"spec": spec}, ("spec", *AFFINITY, "nodeSelectorTerms"), terms)


def _crossed(term: Json, spots: Sequence[Json]) -> Iterator[Json]:
    """The term on each kind of spot node. One that asks for spot already stays, and one that matches no node: it would
    match some then."""
    if _wish_of(term) is Wish.SPOT or _matches_nothing(term):
        yield term
        return
    yield from ({**term, "matchExpressions": [*items(term, "matchExpressions"), spot]} for spot in spots)


def _tolerating(spec: Json, labels: Sequence[Label]) -> Iterator[Operation]:
    before = items(spec, "tolerations")
    missing = [label for label in labels if label.tainted and not any(_tolerates(one, label) for one in before)]
    added = [{"key": label.key, "operator": "Equal", "value": label.value, "effect": "NoSchedule"} for label in missing]
    if not isinstance(at(spec, "tolerations"), list):
        if added:
            yield {"op": "add", "path": "/spec/tolerations", "value": added}
        return
    yield from ({"op": "add", "path": "/spec/tolerations/-", "value": one} for one in added)


def _tolerates(toleration: Json, label: Label) -> bool:
    key, operator = text(toleration, "key"), text(toleration, "operator") or "Equal"
    if text(toleration, "effect") not in ("", "NoSchedule"):
        return False
    if operator == "Exists":
        return key in ("", label.key)
    return key == label.key and text(toleration, "value") == label.value


def _entry(found: Json, path: tuple[str, ...], key: str, value: str) -> Iterator[Operation]:
    """An entry of a map that may not be there yet."""
    if isinstance(at(found, *path), Mapping):
        yield {"op": "add", "path": _pointer(*path, key), "value": value}
    else:
        yield from _put(found, path, {key: value})


def _put(found: Json, path: tuple[str, ...], value: Any) -> Iterator[Operation]:
    """The value at the path; what is not there on the way is made with it."""
    for length in range(1, len(path)):
        if not isinstance(at(found, *path[:length]), Mapping):
            for key in reversed(path[length:]):
                value = {key: value}
            path = path[:length]
            break
    yield {"op": "add", "path": _pointer(*path), "value": value}


def _pointer(*path: str) -> str:
    return "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in path)
