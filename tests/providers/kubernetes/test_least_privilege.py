"""The chart's roles against a real API server: whoever observes sees everything and can change nothing; whoever
enforces can do and undo what the actuator does, and nothing else.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers.contract import Actuator, BuildContext, Inventory, Provider
from providers.errors import Conflict, Forbidden
from providers.kubernetes import Config, build
from providers.kubernetes.inventory import ON_DEMAND, THROUGH
from providers.kubernetes.owners import COLLECTIONS, OWNERS, by_kind
from providers.records import Verb
from tests.helm.accounts import ENFORCE, OBSERVE, TERMINATE, account, granted, rights
from tests.helm.chart import rendered
from tests.kubernetes.cluster import Cluster, Manifest
from tests.providers.kubernetes.stoppable import (
    CASES,
    SERVER,
    Case,
    as_it_is,
    cron_job,
    deployment,
    hpa,
    job,
    kind_of,
    kueue_workload,
    made,
    manifest,
    meant,
    record_of,
    scaled_object,
)
from tests.waiting import soon

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
REASON = "idle for 2h, GPUs at 0 %."
READ = {"get", "list", "watch"}


@contextmanager
def asked_by(kubeconfig: Path) -> Iterator[Provider]:
    """The provider, as whoever the kubeconfig is of."""
    provider = build(
        Config(kubeconfig=str(kubeconfig)), BuildContext(source="research-cluster", now=lambda: datetime.now(UTC))
    )
    assert provider.inventory is not None
    assert provider.actuator is not None
    try:
        yield provider
    finally:
        provider.close()


@pytest.fixture(scope="module")
def kubeconfigs(cluster: Cluster) -> Callable[[str], Path]:
    """Of the chart's accounts, made when first asked for."""
    found: dict[str, Path] = {}
    values = {"observe": OBSERVE, "enforce": ENFORCE, "terminate": TERMINATE}

    def kubeconfig(name: str) -> Path:
        if name == "admin":
            return cluster.kubeconfig
        if name not in found:
            found[name] = account(cluster, values[name]).kubeconfig
        return found[name]

    return kubeconfig


@pytest.fixture
def asked(kubeconfigs: Callable[[str], Path]) -> Iterator[Callable[[str], Provider]]:
    """The provider as `observe`, `enforce`, `terminate` or `admin`."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(asked_by(kubeconfigs(name)))


def actuator(provider: Provider) -> Actuator:
    assert provider.actuator is not None
    return provider.actuator


def inventory(provider: Provider) -> Inventory:
    assert provider.inventory is not None
    return provider.inventory


# What the API server itself says of them


def in_all(cluster: Cluster, kubeconfig: Path) -> set[tuple[str, str]]:
    """All that the account may do, but for what everybody may ask about himself."""
    token = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json", kubeconfig=kubeconfig))["users"][0]
    with cluster.client(token["user"]["token"]) as client:
        found = granted(rights(client))
    return {(verb, word) for verb, word in found if not re.fullmatch(r"selfsubject\w+\.auth\w+\.k8s\.io", word)}


def test_whoever_observes_can_change_nothing_at_all(cluster: Cluster, kubeconfigs: Callable[[str], Path]) -> None:
    assert {verb for verb, _ in in_all(cluster, kubeconfigs("observe"))} == READ


def test_whoever_enforces_can_change_workloads_and_nothing_else(
    cluster: Cluster, kubeconfigs: Callable[[str], Path]
) -> None:
    observe, enforce, terminate = (in_all(cluster, kubeconfigs(name)) for name in ("observe", "enforce", "terminate"))
    assert {verb for verb, _ in enforce - observe} == {"patch", "create"}
    assert {word for verb, word in enforce if verb == "create"} == {"pods/eviction", "events"}
    assert {verb for verb, _ in terminate - enforce} == {"delete"}
    for untouchable in ("nodes", "pods/exec", "secrets", "configmaps", "namespaces"):
        assert {verb for verb, word in terminate if word == untouchable} <= READ
    assert not {word for _, word in terminate} & {"secrets", "configmaps", "pods/exec", "*"}


# Observing


def with_gpus(thing: Manifest, gpus: int = 2) -> Manifest:
    """The same, and each of its containers asks for GPUs."""
    thing = copy.deepcopy(thing)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for container in value.get("containers", ()):
                container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
            value = list(value.values())
        if isinstance(value, list):
            for each in value:
                walk(each)

    walk(thing)
    return thing


def company(cluster: Cluster, namespace: str) -> None:
    """A workload of every kind, their pods on one node as far as there are any; scalers and a disruption budget."""
    cluster.clear()
    node = cluster.node(gpus=64)
    for number, case in enumerate(CASES.values()):
        thing = with_gpus(case.manifest)
        thing["metadata"]["name"] = f"it-{number}"
        labels = thing["spec"].get("template", {}).get("metadata", {}).get("labels")
        if labels:
            labels["app"] = thing["spec"]["selector"]["matchLabels"]["app"] = f"it-{number}"
        cluster.create(thing, namespace)
    cluster.create(with_gpus(deployment(2, name="web")), namespace)
    cluster.create(hpa(of="web"), namespace)
    cluster.create(scaled_object(of="web"), namespace)
    governed = cluster.create(with_gpus(job("governed")), namespace)
    cluster.create(kueue_workload(governed), namespace)
    pod = {"kind": "Pod", "metadata": {"name": "bare", "labels": {"app": "bare"}}, "spec": SERVER}
    cluster.create(with_gpus(pod), namespace)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "bare"}}}
    cluster.create(manifest("policy/v1", "PodDisruptionBudget", budget, name="keep"), namespace)
    soon(lambda: len(cluster.settle(namespace, node=node)) > 10, "there are pods")


def test_whoever_observes_sees_all_that_an_admin_sees(
    cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    company(cluster, namespace)
    observer, admin = inventory(asked("observe")), inventory(asked("admin"))

    def alike() -> bool:
        seen, there = observer.list(), admin.list()
        return seen == there and len(seen.records) > 15

    soon(alike, "both see the same")
    seen = observer.list()
    assert all(part.complete for part in seen.parts), [part for part in seen.parts if not part.complete]
    served = {crd["metadata"]["name"] for crd in cluster.all("CustomResourceDefinition")} & COLLECTIONS.keys()
    assert {part.part for part in seen.parts} >= served - ON_DEMAND
    for record in seen.records:
        soon(
            lambda ref=record.ref: observer.describe(ref) == admin.describe(ref),  # type: ignore[misc]
            f"{record.ref.external_id} is described alike",
        )
    web = next(record.ref for record in seen.records if record.ref.external_id.endswith("Deployment/web"))
    assert len([remark for remark in observer.describe(web).remarks if "sets how many pods" in remark]) == 2
    bare = next(record.ref for record in seen.records if record.ref.external_id.endswith("Pod/bare"))

    def budget_is_told_of() -> bool:
        return "DisruptionBudget" in {blocker.code for blocker in observer.describe(bare).blockers}

    soon(budget_is_told_of, "its budget is told of")


MISSING = {
    "a kind that nothing else stands on": ("notebooks.kubeflow.org", {"notebooks.kubeflow.org"}),
    "the training operator's jobs": ("pytorchjobs.kubeflow.org", {"pytorchjobs.kubeflow.org"}),
    "Kueue": ("workloads.kueue.x-k8s.io", {"workloads.kueue.x-k8s.io"}),
    "a kind that others stand on": (
        "rayclusters.ray.io",
        {"rayclusters.ray.io", *(word for word, through in THROUGH.items() if "rayclusters.ray.io" in through)},
    ),
}


@pytest.mark.parametrize(("verbs", "permission"), [((), "list"), (("get", "list"), "watch")], ids=["at all", "watch"])
@pytest.mark.parametrize(("word", "incomplete"), MISSING.values(), ids=MISSING)
def test_a_kind_that_may_not_be_listed_is_one_part_that_is_not_known(
    word: str, incomplete: set[str], verbs: tuple[str, ...], permission: str, cluster: Cluster, namespace: str
) -> None:
    [role] = [each for each in rendered({"kubernetes": OBSERVE}) if each["kind"] == "ClusterRole"]
    plural, _, group = word.partition(".")
    rules = []
    for rule in role["rules"]:
        if group in rule.get("apiGroups", ()):
            rules.append({**rule, "resources": [plural], "verbs": list(verbs)} if verbs else None)
            rule = {**rule, "resources": [each for each in rule["resources"] if each != plural]}
        rules.append(rule if rule.get("resources") or "nonResourceURLs" in rule else None)
    kubeconfig = cluster.service_account(namespace, "narrow", rules=[rule for rule in rules if rule])

    with asked_by(kubeconfig) as provider:
        soon(lambda: known(provider) - {word}, "the API server knows its rights")
        parts = {part.part: part for part in inventory(provider).list().parts}

    assert {name for name, part in parts.items() if not part.complete} == incomplete
    fault = parts[word].fault
    assert fault is not None
    assert fault.permission == f"{permission} {word}"


def known(provider: Provider) -> set[str]:
    try:
        return {part.part for part in inventory(provider).list().parts if part.complete}
    except Forbidden:
        return set()


# Acts, refused

WATCHED_FOR_CHANGES = [
    *(name for name, owner in OWNERS.items() if owner.group in ("", "apps", "batch")),
    "ReplicaSet",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
]


def everything(cluster: Cluster, namespace: str) -> list[Manifest]:
    """Every object of the namespace that a workload could have to do with."""
    custom = [
        f"{crd['spec']['group']}/{version['name']}/{crd['spec']['names']['kind']}"
        for crd in cluster.all("CustomResourceDefinition")
        for version in crd["spec"]["versions"]
        if version["storage"] and crd["spec"]["scope"] == "Namespaced"
    ]
    return [thing for kind in (*WATCHED_FOR_CHANGES, *custom) for thing in cluster.all(kind, namespace)]


def changes_nothing(cluster: Cluster, namespace: str, attempts: Callable[[], None]) -> None:
    """Not a resource version differs from before the attempts to after them. Controllers may write a status at any
    time: then it is attempted again; what people mean never differs, whichever attempt it was."""
    before = {thing["metadata"]["uid"]: meant(thing) for thing in everything(cluster, namespace)}

    def quiet() -> bool:
        versions = versions_of(cluster, namespace)
        attempts()
        return versions_of(cluster, namespace) == versions

    soon(quiet, "the cluster is as it was")
    now = {thing["metadata"]["uid"]: meant(thing) for thing in everything(cluster, namespace)}
    assert {uid: now[uid] for uid in before} == before
    assert not events(cluster, namespace)


def versions_of(cluster: Cluster, namespace: str) -> dict[str, str]:
    return {thing["metadata"]["uid"]: thing["metadata"]["resourceVersion"] for thing in everything(cluster, namespace)}


def events(cluster: Cluster, namespace: str) -> list[str]:
    """Why, of those that are Curfew's."""
    found = cluster.all("Event", namespace)
    return sorted(event["reason"] for event in found if (event.get("source") or {}).get("component") == "curfew")


def word_of(thing: Manifest) -> str:
    collection = by_kind(thing["apiVersion"], thing["kind"])
    assert collection is not None
    return collection.word


def first_edited(things: list[Manifest]) -> str:
    """Whoever else sets the size is told first."""
    words = [word_of(thing) for thing in things]
    others = [word for word in words if word in ("scaledobjects.keda.sh", "workloads.kueue.x-k8s.io")]
    return (others or words)[0]


def governed(cluster: Cluster, namespace: str) -> list[Manifest]:
    it = cluster.create(job(), namespace)
    return [it, cluster.create(kueue_workload(it), namespace)]


def running_cron_job(cluster: Cluster, namespace: str) -> list[Manifest]:
    it = cluster.create(cron_job(), namespace)
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "it", "uid": it["metadata"]["uid"]}
    run = job("it-1")
    run["metadata"]["ownerReferences"] = [owner | {"controller": True}]
    return [it, cluster.create(run, namespace)]


Make = Callable[[Cluster, str], list[Manifest]]
WORKLOADS: dict[str, tuple[Make, tuple[Verb, ...]]] = {
    **{
        name: (lambda cluster, namespace, case=case: made(cluster, namespace, case), case.verbs)  # type: ignore[misc]
        for name, case in CASES.items()
    },
    "a Job governed by Kueue": (governed, (Verb.STOP, Verb.SUSPEND)),
    "a CronJob in the middle of a run": (running_cron_job, (Verb.STOP, Verb.SUSPEND)),
}


@pytest.mark.parametrize(("make", "verbs"), WORKLOADS.values(), ids=WORKLOADS)
def test_every_act_of_whoever_only_observes_is_refused_and_changes_nothing(
    make: Make, verbs: tuple[Verb, ...], cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    things = make(cluster, namespace)
    record = record_of(things[0])
    hands = actuator(asked("observe"))
    permissions = {verb: f"patch {first_edited(things)}" for verb in verbs}
    permissions[Verb.TERMINATE] = f"delete {word_of(things[0])}"

    def attempts() -> None:
        for verb, permission in permissions.items():
            hands.remember(record, verb)
            with pytest.raises(Forbidden) as told:
                hands.act(record.ref, verb, request_id="request-1", reason=REASON)
            assert told.value.permission == permission

    changes_nothing(cluster, namespace, attempts)


DELETED_ONLY = {
    "a DaemonSet": deployment(None) | {"kind": "DaemonSet"},
    "a RayService": manifest("ray.io/v1", "RayService", {}),
}


@pytest.mark.parametrize("thing", DELETED_ONLY.values(), ids=DELETED_ONLY)
def test_neither_is_anything_deleted_that_could_not_be_stopped(
    thing: Manifest, cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    it = cluster.create(thing, namespace)

    def attempts() -> None:
        for name in ("observe", "enforce"):
            with pytest.raises(Forbidden) as told:
                actuator(asked(name)).act(record_of(it).ref, Verb.TERMINATE, request_id="request-1")
            assert told.value.permission == f"delete {word_of(it)}"

    changes_nothing(cluster, namespace, attempts)
    actuator(asked("terminate")).act(record_of(it).ref, Verb.TERMINATE, request_id="request-1")
    soon(lambda: cluster.find(kind_of(it), "it", namespace) is None, "it is gone")


def test_whoever_observes_cannot_undo_either(
    cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    it, _ = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    remembered = actuator(asked("enforce")).remember(record_of(it), Verb.STOP)
    actuator(asked("enforce")).act(record_of(it).ref, Verb.STOP, request_id="request-1", reason=REASON)
    stopped = as_it_is(cluster, it)

    with pytest.raises(Forbidden) as told:
        actuator(asked("observe")).restore(record_of(it).ref, remembered, request_id="undo-1")

    assert told.value.permission == "patch deployments.apps"
    assert meant(as_it_is(cluster, it)) == meant(stopped)
    assert events(cluster, namespace) == ["CurfewStopped"]


# Acts, done


@pytest.mark.parametrize(("make", "verbs"), WORKLOADS.values(), ids=WORKLOADS)
def test_whoever_enforces_stops_and_puts_back_every_kind(
    make: Make, verbs: tuple[Verb, ...], cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    things = make(cluster, namespace)
    record = record_of(things[0])
    hands = actuator(asked("enforce"))
    for verb in verbs:
        remembered = json.loads(json.dumps(hands.remember(record, verb)))
        hands.act(record.ref, verb, request_id=f"request-{verb}", reason=REASON)
        changed = [meant(as_it_is(cluster, thing)) != meant(thing) for thing in things]
        assert any(changed)
        assert "curfew.dev/stopped-by" in as_it_is(cluster, things[0])["metadata"]["annotations"]
        hands.restore(record.ref, remembered, request_id=f"undo-{verb}")
        assert [meant(as_it_is(cluster, thing)) for thing in things] == [meant(thing) for thing in things]
    assert events(cluster, namespace) == sorted(["CurfewStopped", "CurfewRestored"] * len(verbs))


@pytest.mark.parametrize(("make", "verbs"), WORKLOADS.values(), ids=WORKLOADS)
def test_whoever_enforces_deletes_only_where_that_was_allowed(
    make: Make, verbs: tuple[Verb, ...], cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    it = make(cluster, namespace)[0]
    record = record_of(it)

    def attempt() -> None:
        with pytest.raises(Forbidden) as told:
            actuator(asked("enforce")).act(record.ref, Verb.TERMINATE, request_id="request-1", reason=REASON)
        assert told.value.permission == f"delete {word_of(it)}"

    changes_nothing(cluster, namespace, attempt)
    actuator(asked("terminate")).act(record.ref, Verb.TERMINATE, request_id="request-1", reason=REASON)
    soon(lambda: cluster.find(kind_of(it), "it", namespace) is None, "it is gone")
    assert events(cluster, namespace) == ["CurfewStopped"]


def bare_pod(cluster: Cluster, namespace: str) -> Manifest:
    metadata = {"name": "it", "labels": {"app": "it"}}
    pod = cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SERVER}, namespace)
    cluster.bind("it", namespace, cluster.node())
    cluster.run("it", namespace)
    return pod


@pytest.mark.parametrize(
    ("name", "verb", "permission"),
    [
        ("observe", Verb.STOP, "create pods/eviction"),
        ("observe", Verb.TERMINATE, "delete pods"),
        ("enforce", Verb.TERMINATE, "delete pods"),
    ],
)
def test_a_bare_pod_stays(
    name: str, verb: Verb, permission: str, cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    pod = bare_pod(cluster, namespace)

    def attempt() -> None:
        with pytest.raises(Forbidden) as told:
            actuator(asked(name)).act(record_of(pod).ref, verb, request_id="request-1", reason=REASON)
        assert told.value.permission == permission

    changes_nothing(cluster, namespace, attempt)


@pytest.mark.parametrize(("name", "verb"), [("enforce", Verb.STOP), ("terminate", Verb.TERMINATE)])
def test_a_bare_pod_goes(
    name: str, verb: Verb, cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    pod = bare_pod(cluster, namespace)

    actuator(asked(name)).act(record_of(pod).ref, verb, request_id="request-1", reason=REASON)

    assert "deletionTimestamp" in as_it_is(cluster, pod)["metadata"]
    assert events(cluster, namespace) == ["CurfewStopped"]


def test_whoever_enforces_is_told_by_name_which_budget_is_against_it(
    cluster: Cluster, namespace: str, asked: Callable[[str], Provider]
) -> None:
    pod = bare_pod(cluster, namespace)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "it"}}}
    cluster.create(manifest("policy/v1", "PodDisruptionBudget", budget, name="keep-one"), namespace)
    soon(lambda: cluster.get("PodDisruptionBudget", "keep-one", namespace)["status"].get("expectedPods"), "it counts")

    with pytest.raises(Conflict, match="PodDisruptionBudget keep-one allows no eviction"):
        actuator(asked("enforce")).act(record_of(pod).ref, Verb.STOP, request_id="request-1", reason=REASON)
