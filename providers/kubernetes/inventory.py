"""Turns a cluster into records of its GPU nodes and its GPU workloads: all from memory, or one of them afresh.

Asks and remembers; what the answers mean is `translate`'s business.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from providers.errors import NotFound, ProviderError, Unreachable
from providers.kubernetes import translate
from providers.kubernetes.accelerators import text, texts
from providers.kubernetes.by_owner import ByOwner
from providers.kubernetes.client import JSON, METADATA_LIST, Client, Gone, NotServed
from providers.kubernetes.cluster import protections
from providers.kubernetes.owners import COLLECTIONS, OWNERS
from providers.kubernetes.watch import Look, Watched
from providers.progress import Progress
from providers.records import Blocker, InventoryAnswer, Kind, PartReport, ResourceRecord, ResourceRef, Verb

T = TypeVar("T")
Json = dict[str, Any]

AT_ONCE = 4
"""Lists and questions side by side: an API server serves others too."""
PATIENCE_SECONDS = 50.0
"""For everything to be listed first: less than a usual cycle."""
BRIEF_SECONDS = 10.0
"""For what was followed already and was lost."""
KINDS_HOLD_SECONDS = 300.0
"""How long it is trusted which kinds of object a cluster has."""

ON_DEMAND = frozenset({"horizontalpodautoscalers.autoscaling", "scaledobjects.keda.sh"})
"""No record needs them: they are asked for when one workload is described."""
OF_CLAIMS = (
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourceslices.resource.k8s.io",
)
EVERYTHING = ("nodes", "namespaces", "pods", *OF_CLAIMS)
"""What every workload is told by: how many GPUs its pods hold of which node, and whose they are."""
THROUGH: Mapping[str, tuple[str, ...]] = {
    "deployments.apps": ("replicasets.apps",),
    "cronjobs.batch": ("jobs.batch",),
    "jobsets.jobset.x-k8s.io": ("jobs.batch",),
    "leaderworkersets.leaderworkerset.x-k8s.io": ("statefulsets.apps",),
    "rayjobs.ray.io": ("rayclusters.ray.io", "jobs.batch"),
    "rayservices.ray.io": ("rayclusters.ray.io",),
    "mpijobs.kubeflow.org": ("jobs.batch",),
    "trainjobs.trainer.kubeflow.org": ("jobsets.jobset.x-k8s.io", "jobs.batch"),
    "notebooks.kubeflow.org": ("statefulsets.apps",),
    "inferenceservices.serving.kserve.io": (
        "deployments.apps",
        "replicasets.apps",
        "leaderworkersets.leaderworkerset.x-k8s.io",
        "statefulsets.apps",
        "services.serving.knative.dev",
        "configurations.serving.knative.dev",
        "revisions.serving.knative.dev",
    ),
}
"""What stands between owners of a kind and their pods. Where that is not known, neither is which pods they have."""


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """Which of the kinds we know a cluster has."""

    roots: Mapping[str, str]
    """By word of the collection: the path of its API, as in `/apis/batch/v1`."""
    faults: Mapping[str, ProviderError]
    """Of which it is not known, or which are there in no version that we know."""
    asked_at: float

    def path(self, word: str, namespace: str | None = None, name: str | None = None) -> str:
        collection = COLLECTIONS[word]
        inside = f"/namespaces/{namespace}" if namespace is not None and collection.namespaced else ""
        return f"{self.roots[word]}{inside}/{collection.plural}{f'/{name}' if name is not None else ''}"


class KubernetesInventory:
    """The GPU nodes and GPU workloads of one cluster. From the first list on it is followed by watches."""

    def __init__(
        self,
        client: Client,
        *,
        source: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
        brief_seconds: float = BRIEF_SECONDS,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._source = source
        self._now = now
        self._clock = clock
        self._patience, self._brief = patience_seconds, brief_seconds
        self._changed = changed
        self._lock = threading.Lock()
        """Guards what follows; held while asking which kinds there are."""
        self._lists_at_once = threading.Semaphore(AT_ONCE)
        self._by_owner = ByOwner()
        self._translating = threading.Lock()
        self._uid: str | None = None
        """Of the cluster that is followed."""
        self._kinds: Kinds | None = None
        self._watched: dict[str, Watched] = {}
        self._closed = False

    def list(self) -> InventoryAnswer:
        """All GPU nodes and workloads. What cannot be told for certain is left out, and its part is not complete."""
        uid = self._identity()
        first = self._follow(uid)
        looks = self._looks(self._patience if first else self._brief)
        if any(isinstance(look.fault, NotServed) for look in looks.values()):
            self._forget_kinds()
            self._follow(uid)  # a kind that is gone is no part any more
            looks = {word: look for word, look in looks.items() if word in self._watched}
        faults: dict[str, ProviderError] = {word: look.fault for word, look in looks.items() if look.fault is not None}
        faults |= self._kinds.faults if self._kinds is not None else {}
        faults |= {word: _not_told(word, via) for word in looks for via in _depends_on(word, faults)}
        objects = {word: look.objects for word, look in looks.items() if look.fault is None}
        found = self._translated(translate.Cluster(uid=uid, objects=objects))
        unlisted = {_part(record) for record in found} - looks.keys() - faults.keys()
        if unlisted:
            self._forget_kinds()  # pods name owners of a kind that has come since
        faults |= {word: Unreachable(f"{word} were not asked for yet") for word in unlisted}
        uncertain = {COLLECTIONS[word].kind for word in faults if word in COLLECTIONS} - {"Pod", "Node"}
        return InventoryAnswer(
            identity=uid,
            records=tuple(
                record for record in found if _part(record) not in faults and _owner_kind(record) not in uncertain
            ),
            parts=tuple(
                PartReport(
                    part=word,
                    complete=word not in faults,
                    fault=faults[word].as_fault() if word in faults else None,
                )
                for word in sorted(looks.keys() | faults.keys())
            ),
        )

    def progress(self) -> Progress:
        """Which collections have answered, while the others are still listed."""
        watched = dict(self._watched)
        answered = {word for word, one in watched.items() if one.answered}
        return Progress(answered=tuple(sorted(answered)), waiting=tuple(sorted(watched.keys() - answered)))

    def _translated(self, cluster: translate.Cluster) -> Sequence[ResourceRecord]:
        with self._translating:
            return self._by_owner.records(cluster, now=self._now())

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One node or workload, asked of the API server now, with all that takes a question of its own."""
        uid = self._identity()
        if uid != ref.account:
            raise Unreachable(f"{self._client.name} is another cluster than the one of {ref.external_id}")
        if ref.kind is Kind.NODE:
            return self._node(uid, ref)
        return self._workload(uid, ref)

    def namespaces(self) -> Mapping[str, Mapping[str, str]] | None:
        """Labels of each namespace, as last seen; None: not known. Asks nobody."""
        with self._lock:
            watched = self._watched.get("namespaces")
        look = watched.look(patience=0) if watched is not None else None
        if look is None or look.fault is not None:
            return None
        found = (namespace["metadata"] for namespace in look.objects.values())
        return {text(metadata, "name"): texts(metadata, "labels") for metadata in found}

    def close(self) -> None:
        """Ends all watches; never waits."""
        self._closed = True
        for watched in tuple(self._watched.values()):
            watched.close()

    def _heard(self, before: Json | None, after: Json | None) -> None:
        """Whoever protects something, or no longer does, does not wait for the next look."""
        if _protected(before) != _protected(after):
            self._changed()

    # What is followed

    def _identity(self) -> str:
        """Who answers. Asked every time: a kubeconfig may come to lead elsewhere."""
        uid: str = self._client.get("/api/v1/namespaces/kube-system")["metadata"]["uid"]
        return uid

    def _follow(self, uid: str) -> bool:
        """Whatever the cluster has of the kinds we know is listed and watched from now on. Whether anything is new."""
        with self._lock:
            if uid != self._uid:
                self._end(self._watched)
                self._uid, self._kinds = uid, None
            kinds = self._known_kinds()
            wanted = {word: root for word, root in kinds.roots.items() if word not in ON_DEMAND}
            self._end([word for word, watched in self._watched.items() if watched.path != _path_of(word, wanted)])
            new = [word for word in wanted if word not in self._watched]
            for word in new:
                self._watched[word] = Watched(
                    self._client,
                    kinds.path(word),
                    partial(translate.slim, word),
                    metadata_only=COLLECTIONS[word].metadata_only,
                    name=f"{self._source} {word}",
                    lists_at_once=self._lists_at_once,
                    clock=self._clock,
                    told=self._heard,
                )
            if not self._closed:
                for watched in self._watched.values():
                    watched.begin()
            return bool(new)

    def _end(self, words: Iterable[str]) -> None:
        for word in tuple(words):
            self._watched.pop(word).close()

    def _looks(self, seconds: float) -> Mapping[str, Look]:
        until = self._clock() + seconds
        with self._lock:
            watched = dict(self._watched)
        return {word: one.look(patience=max(until - self._clock(), 0.0)) for word, one in watched.items()}

    def _forget_kinds(self) -> None:
        with self._lock:
            if self._kinds is not None:
                self._kinds = replace(self._kinds, asked_at=self._clock() - KINDS_HOLD_SECONDS - 1)

    def _known_kinds(self) -> Kinds:
        """Which kinds there are, asked every few minutes; while nobody answers, what was said last stands."""
        if self._kinds is None or self._clock() - self._kinds.asked_at > KINDS_HOLD_SECONDS:
            try:
                self._kinds = self._asked_kinds()
            except ProviderError:
                if self._kinds is None:
                    raise
        return self._kinds

    def _asked_kinds(self) -> Kinds:
        groups = {collection.group for collection in COLLECTIONS.values()}
        served = {
            group["name"]: [version["version"] for version in group["versions"]]
            for group in self._client.get("/apis").get("groups") or ()
            if group["name"] in groups
        }
        roots = {("", "v1"): "/api/v1"} | {
            (group, version): f"/apis/{group}/{version}" for group, versions in served.items() for version in versions
        }
        told = dict(zip(roots, self._side_by_side(_caught(self._resources), roots.values()), strict=True))
        found: dict[str, str] = {}
        faults: dict[str, ProviderError] = {}
        for word, collection in COLLECTIONS.items():
            versions = [version for group, version in roots if group == collection.group]
            by_version = {version: told[collection.group, version] for version in versions}
            here = [version for version, names in by_version.items() if _has(names, collection.plural)]
            known = [version for version in collection.versions if version in here]
            failed = next((names for names in by_version.values() if isinstance(names, ProviderError)), None)
            if word in ON_DEMAND and not known:
                continue
            if known:
                found[word] = roots[collection.group, known[0]]
            elif here:
                faults[word] = Unreachable(
                    f"{word} are served as {', '.join(here)}, and Curfew knows {', '.join(collection.versions)}"
                )
            elif failed is not None:
                faults[word] = failed
        return Kinds(roots=found, faults=faults, asked_at=self._clock())

    def _resources(self, root: str) -> frozenset[str]:
        try:
            return frozenset(resource["name"] for resource in self._client.get(root).get("resources") or ())
        except NotServed:  # the version was withdrawn since the groups were told
            return frozenset()

    def _side_by_side(self, ask: Callable[[str], T], of: Iterable[str]) -> Sequence[T]:
        with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="kubernetes") as threads:
            return tuple(threads.map(ask, of))

    # One of them, afresh

    def _node(self, uid: str, ref: ResourceRef) -> ResourceRecord:
        node = self._client.get(f"/api/v1/nodes/{ref.external_id}")
        with self._lock:
            kinds = self._known_kinds()
        objects: dict[str, Mapping[str, Json]] = {"nodes": _kept("nodes", [node])}
        if OF_CLAIMS[-1] in kinds.roots:
            selected = {"fieldSelector": f"spec.nodeName={ref.external_id}"}
            objects[OF_CLAIMS[-1]] = self._all(kinds, OF_CLAIMS[-1], query=selected)
        cluster = translate.Cluster(uid=uid, objects=objects)
        return replace(self._found(cluster, ref), fully_described=True)

    def _workload(self, uid: str, ref: ResourceRef) -> ResourceRecord:
        namespace, kind, name = ref.external_id.split("/", 2)
        with self._lock:
            kinds = self._known_kinds()
        top = OWNERS.get(kind)
        objects: dict[str, Mapping[str, Json]] = {}
        if top is not None:
            if top.word not in kinds.roots:
                raise kinds.faults.get(top.word) or NotFound(f"{self._client.name} has no {top.word} any more")
            objects[top.word] = _kept(top.word, [self._client.get(kinds.path(top.word, namespace, name))])
            between: Iterable[str] = THROUGH.get(top.word, ())
        else:  # a stranger is known by what it controls alone
            between = [word for word, one in COLLECTIONS.items() if one.owner or one.metadata_only]
        listed = [
            word
            for word in dict.fromkeys(("pods", *between, "workloads.kueue.x-k8s.io"))
            if word in kinds.roots and (word == "pods" or word not in objects)
        ]
        for word in listed:
            if word in kinds.faults:
                raise kinds.faults[word]
        told = self._side_by_side(lambda word: self._all(kinds, word, namespace), listed)
        objects |= dict(zip(listed, told, strict=True))
        objects["namespaces"] = _kept("namespaces", [self._client.get(kinds.path("namespaces", name=namespace))])
        pods = objects["pods"].values()
        if any((pod.get("spec") or {}).get("resourceClaims") for pod in pods):
            claims = [word for word in OF_CLAIMS if word in kinds.roots]
            objects |= zip(
                claims, self._side_by_side(lambda word: self._all(kinds, word, namespace), claims), strict=True
            )
        return self._with_nodes(kinds, uid, ref, objects)

    def _with_nodes(
        self, kinds: Kinds, uid: str, ref: ResourceRef, objects: Mapping[str, Mapping[str, Json]]
    ) -> ResourceRecord:
        """The workload as its pods tell it, then with the nodes they are on."""
        without = self._found(translate.Cluster(uid=uid, objects=objects), ref)
        names = sorted({placement.node for placement in without.placements})
        nodes = self._side_by_side(_caught(lambda name: self._client.get(kinds.path("nodes", name=name))), names)
        for node in nodes:
            if isinstance(node, ProviderError) and not isinstance(node, NotFound):
                raise node
        there = _kept("nodes", [node for node in nodes if not isinstance(node, ProviderError)])
        record = self._found(translate.Cluster(uid=uid, objects={**objects, "nodes": there}), ref)
        return replace(
            record,
            remarks=(*record.remarks, *self._scalers(kinds, ref)),
            blockers=(*record.blockers, *self._budgets(ref)),
            fully_described=True,
        )

    def _found(self, cluster: translate.Cluster, ref: ResourceRef) -> ResourceRecord:
        for record in translate.records(cluster, now=self._now()):
            if (record.ref.kind, record.ref.external_id) == (ref.kind, ref.external_id):
                return record
        raise NotFound(f"{ref.external_id} has nothing to do with accelerators any more, or belongs to something else")

    def _all(
        self, kinds: Kinds, word: str, namespace: str | None = None, *, query: Mapping[str, str] | None = None
    ) -> Mapping[str, Json]:
        """All objects of a collection, in a namespace where they have one."""
        accept = METADATA_LIST if COLLECTIONS[word].metadata_only else JSON
        try:
            pages = self._client.pages(kinds.path(word, namespace), query=query, accept=accept)
            return _kept(word, (item for page in pages for item in page["items"]))
        except Gone as error:
            raise Unreachable(f"{word} change faster than they can be listed") from error

    def _scalers(self, kinds: Kinds, ref: ResourceRef) -> Iterable[str]:
        """Who else sets how many pods it has."""
        namespace, kind, name = ref.external_id.split("/", 2)
        if kind not in WITH_REPLICAS:
            return
        for word in sorted(ON_DEMAND & kinds.roots.keys()):
            for page in self._client.pages(kinds.path(word, namespace)):
                for scaler in page["items"]:
                    target = scaler["spec"].get("scaleTargetRef") or {}
                    if (target.get("kind", "Deployment"), target.get("name")) == (kind, name):
                        who = f"{COLLECTIONS[word].kind} {scaler['metadata']['name']}"
                        yield f"{who} sets how many pods it has, and rests while it is stopped"

    def _budgets(self, ref: ResourceRef) -> Iterable[Blocker]:
        """Disruption budgets that are against evicting a bare pod now."""
        namespace, kind, name = ref.external_id.split("/", 2)
        if kind != "Pod":
            return
        labels = self._client.get(f"/api/v1/namespaces/{namespace}/pods/{name}")["metadata"].get("labels") or {}
        for page in self._client.pages(f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets"):
            for budget in page["items"]:
                allowed = (budget.get("status") or {}).get("disruptionsAllowed", 0)
                if allowed < 1 and selects(budget["spec"].get("selector"), labels):
                    yield Blocker(
                        verb=Verb.STOP,
                        code="DisruptionBudget",
                        sentence=f"PodDisruptionBudget {budget['metadata']['name']} allows no disruption now",
                    )


WITH_REPLICAS = frozenset(one.kind for one in COLLECTIONS.values() if Verb.SCALE_TO_ZERO in one.verbs)
"""Kinds that autoscalers may point at."""


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector means these labels. An empty one means all, none at all means nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches(expression, labels) for expression in selector.get("matchExpressions") or ())


def _matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return True  # a word of tomorrow: better one blocker too many


def _kept(word: str, found: Iterable[Json]) -> dict[str, Json]:
    kept = ((item["metadata"]["uid"], translate.slim(word, item)) for item in found)
    return {uid: slimmed for uid, slimmed in kept if slimmed is not None}


def _part(record: ResourceRecord) -> str:
    assert record.listed_in is not None, f"{record.ref.external_id} is in no collection"
    return record.listed_in


def _owner_kind(record: ResourceRecord) -> str:
    return record.ref.external_id.split("/")[1] if record.ref.kind is Kind.WORKLOAD else "Node"


def _depends_on(word: str, faults: Mapping[str, ProviderError]) -> Iterable[str]:
    """What failed, and is needed to tell the workloads of this collection; at most one."""
    if word in faults or not COLLECTIONS[word].owner:
        return []
    return [one for one in (*EVERYTHING, *THROUGH.get(word, ())) if one in faults][:1]


def _not_told(word: str, via: str) -> ProviderError:
    return Unreachable(f"which GPUs {word} hold is not known: {via} were not listed")


def _path_of(word: str, roots: Mapping[str, str]) -> str | None:
    return f"{roots[word]}/{COLLECTIONS[word].plural}" if word in roots else None


def _has(names: frozenset[str] | ProviderError, plural: str) -> bool:
    return not isinstance(names, ProviderError) and plural in names


def _caught(ask: Callable[[str], T]) -> Callable[[str], T | ProviderError]:
    """The same, with an error in place of an answer that failed."""

    def asked(what: str) -> T | ProviderError:
        try:
            return ask(what)
        except ProviderError as error:
            return error

    return asked


def _protected(kept: Json | None) -> tuple[object, ...]:
    """What protects an object, and whatever belongs to it."""
    return tuple(protections(("", (kept or {}).get("metadata"))))
