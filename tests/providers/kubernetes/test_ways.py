"""What stops a workload and what leads back, for whatever an object may look like: no cluster is asked."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.kubernetes.owners import COLLECTIONS
from providers.kubernetes.ways import (
    HPA,
    JOBS,
    KEDA,
    KUEUE,
    MARKS,
    REMEMBERED,
    REQUEST,
    Step,
    Thing,
    as_json,
    compact,
    from_json,
    marked_edits,
    merge_patch,
    selects,
    steps,
)

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TOP = "uid-of-the-top"

SUSPENDABLE = [
    word
    for word, collection in COLLECTIONS.items()
    if collection.field in (("spec", "suspend"), ("spec", "runPolicy", "suspend")) and collection.kind != "RayJob"
]
OTHERS = ["deployments.apps", "statefulsets.apps", "leaderworkersets.leaderworkerset.x-k8s.io"]
ANNOTATED = ["notebooks.kubeflow.org", "inferenceservices.serving.kserve.io"]

VALUES = st.sampled_from(["", "true", "false", "0", "5", "it's", "2026-11-20T08:00:00Z"])
ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [
            "example.org/team",
            "kubeflow-resource-stopped",
            "serving.kserve.io/stop",
            "autoscaling.keda.sh/paused",
            "autoscaling.keda.sh/paused-replicas",
        ]
    ),
    VALUES,
    max_size=4,
)


@st.composite
def things(draw: st.DrawFn, word: str, *, of_top: bool = False) -> Thing:
    """An object of a collection with any of the fields that matter, or without them."""
    collection = COLLECTIONS[word]
    spec: dict[str, Any] = {"template": {"some": "pods"}}
    optional = st.none() | st.booleans()
    for key, values in {
        "suspend": optional,
        "active": optional,
        "replicas": st.none() | st.integers(0, 9),
        "minReplicas": st.none() | st.integers(0, 3),
        "runPolicy": st.none()
        | st.fixed_dictionaries({}, optional={"suspend": st.booleans(), "backoffLimit": st.just(2)}),
    }.items():
        value = draw(values)
        if value is not None:
            spec[key] = value
    if word in (HPA, KEDA):
        spec["scaleTargetRef"] = {"name": "it", "kind": "Deployment", "apiVersion": "apps/v1"}
    uid = TOP if of_top else f"uid-{draw(st.integers(0, 10**9))}"
    metadata: dict[str, Any] = {"name": "it", "namespace": "vision", "uid": uid, "resourceVersion": "1"}
    annotations = draw(st.none() | ANNOTATIONS)
    if annotations is not None:
        metadata["annotations"] = annotations
    if not of_top:
        metadata["ownerReferences"] = [{"uid": TOP, "controller": True}]
    return Thing(collection=collection, version="v1", object={"metadata": metadata, "spec": spec})


@st.composite
def situations(draw: st.DrawFn) -> tuple[Thing, list[Thing]]:
    top = draw(st.sampled_from([*SUSPENDABLE, *OTHERS, *ANNOTATED]).flatmap(lambda word: things(word, of_top=True)))
    beside = st.sampled_from([KUEUE, JOBS, HPA, KEDA]).flatmap(things)
    around = draw(st.lists(beside, max_size=4, unique_by=lambda thing: thing.uid))
    return top, around


def merged(whole: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(whole) if isinstance(whole, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def plain(told: dict[str, Any]) -> dict[str, Any]:
    """As the API server keeps it: no annotations are the same as none."""
    result = copy.deepcopy(told)
    if not result["metadata"].get("annotations"):
        result["metadata"].pop("annotations", None)
    return result


def done(step: Step, request_id: str) -> Thing:
    marks = dict.fromkeys(MARKS, "told") | {REQUEST: request_id, REMEMBERED: compact(as_json(step.edits))}
    told = merged(step.thing.object, merge_patch([(edit.path, edit.after) for edit in step.edits], marks))
    return Thing(collection=step.thing.collection, version="v1", object=told)


def undone(thing: Thing, step: Step) -> dict[str, Any]:
    edits = from_json(json.loads(json.dumps(as_json(step.edits))))
    back = [value for edit in edits for value in edit.back(thing)]
    return plain(merged(thing.object, merge_patch(back, dict.fromkeys(MARKS))))


@given(situations())
def test_whatever_is_done_leads_back(situation: tuple[Thing, list[Thing]]) -> None:
    top, around = situation
    for step in steps(top, around, NOW):
        assert undone(done(step, "request-1"), step) == plain(dict(step.thing.object))


@given(situations())
def test_what_is_done_needs_no_more_doing(situation: tuple[Thing, list[Thing]]) -> None:
    top, around = situation
    first = {step.thing.uid: done(step, "request-1") for step in steps(top, around, NOW)}
    stopped = first.get(top.uid, top), [first.get(thing.uid, thing) for thing in around]
    assert steps(*stopped, NOW) == ()
    assert all(step.done for step in steps(*stopped, NOW, request_id="request-1"))


@given(situations(), st.data())
def test_an_act_that_broke_off_goes_on_where_it_was(situation: tuple[Thing, list[Thing]], data: st.DataObject) -> None:
    top, around = situation
    whole = steps(top, around, NOW)
    got_to = data.draw(st.integers(0, len(whole)))
    first = {step.thing.uid: done(step, "request-1") for step in whole[:got_to]}
    rest = steps(
        first.get(top.uid, top), [first.get(thing.uid, thing) for thing in around], NOW, request_id="request-1"
    )
    assert [as_json(step.edits) for step in rest] == [as_json(step.edits) for step in whole], "the undo is the same"
    assert [step.done for step in rest] == [True] * got_to + [False] * (len(whole) - got_to)


def thing(word: str, spec: dict[str, Any], *, uid: str = TOP, **metadata: Any) -> Thing:
    named = {"name": "it", "namespace": "vision", "uid": uid, "resourceVersion": "1", **metadata}
    return Thing(collection=COLLECTIONS[word], version="v1", object={"metadata": named, "spec": spec})


def edited(top: Thing, *around: Thing) -> list[tuple[str, dict[str, Any]]]:
    return [(step.thing.collection.word, as_json(step.edits)["after"]) for step in steps(top, around, NOW)]


DEPLOYMENT = thing("deployments.apps", {"replicas": 2})
TARGET = {"name": "it", "kind": "Deployment", "apiVersion": "apps/v1"}


def test_an_hpa_that_may_scale_to_zero_itself_is_kept_from_raising_what_we_took_there() -> None:
    awake = thing(HPA, {"scaleTargetRef": TARGET, "minReplicas": 0}, uid="hpa")
    assert edited(DEPLOYMENT, awake) == [(HPA, {"/spec/minReplicas": 1}), ("deployments.apps", {"/spec/replicas": 0})]


AIMS = {
    "at a Deployment of another name": {"name": "another", "kind": "Deployment", "apiVersion": "apps/v1"},
    "at a StatefulSet of the same name": {"name": "it", "kind": "StatefulSet", "apiVersion": "apps/v1"},
    "at a Deployment of somebody else's making": {"name": "it", "kind": "Deployment", "apiVersion": "example.org/v1"},
}


@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
@pytest.mark.parametrize("word", [HPA, KEDA])
def test_what_aims_elsewhere_is_left_alone(word: str, aim: dict[str, str]) -> None:
    scaler = thing(word, {"scaleTargetRef": aim, "minReplicas": 0}, uid="scaler")
    assert edited(DEPLOYMENT, scaler) == [("deployments.apps", {"/spec/replicas": 0})]


def test_a_scaled_object_means_a_deployment_where_it_does_not_say() -> None:
    scaler = thing(KEDA, {"scaleTargetRef": {"name": "it"}}, uid="keda")
    assert [word for word, _ in edited(DEPLOYMENT, scaler)] == [KEDA, "deployments.apps"]
    assert [word for word, _ in edited(thing("statefulsets.apps", {"replicas": 2}), scaler)] == ["statefulsets.apps"]


def test_runs_of_a_cron_job_that_kueue_governs_are_stopped_through_kueue() -> None:
    cron = thing("cronjobs.batch", {})
    run = thing(JOBS, {"suspend": False}, uid="run", ownerReferences=[{"uid": TOP}])
    governing = thing(KUEUE, {"active": True}, uid="kueue", ownerReferences=[{"uid": "run"}])
    assert edited(cron, run, governing) == [
        ("cronjobs.batch", {"/spec/suspend": True}),
        (KUEUE, {"/spec/active": False}),
    ]


FORGED = {
    "all of it": {"before": {"": None}, "after": {"": {"kind": "HorizontalPodAutoscaler"}}},
    "its metadata": {"before": {"/metadata/annotations": None}, "after": {"/metadata/annotations": {"a": "b"}}},
    "what is none of ours": {"before": {"/spec/maxReplicas": 1000}, "after": {"/spec/maxReplicas": 3}},
    "ours, of another shape": {"before": {"/spec/minReplicas": {"a": 1}}, "after": {"/spec/minReplicas": 2}},
}


@pytest.mark.parametrize("forged", [*map(json.dumps, FORGED.values()), "[" * 100_000], ids=[*FORGED, "too deep"])
def test_what_anybody_wrote_as_remembered_is_not_put_back(forged: str) -> None:
    spec = {"scaleTargetRef": {"name": "it", "kind": "Deployment"}, "minReplicas": 2, "maxReplicas": 3}
    scaler = thing(HPA, spec, uid="hpa", annotations={"a": "b", REQUEST: "r", REMEMBERED: forged})
    assert edited(DEPLOYMENT, scaler) == [("deployments.apps", {"/spec/replicas": 0})]
    assert marked_edits(scaler) is None


def test_what_is_over_needs_no_stop() -> None:
    finished = thing(JOBS, {"suspend": False})
    ended = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert (
        steps(Thing(collection=finished.collection, version="v1", object={**finished.object, "status": ended}), (), NOW)
        == ()
    )
    assert steps(thing(JOBS, {"suspend": False}, deletionTimestamp="2026-11-22T09:59:00Z"), (), NOW) == ()


SELECTORS: dict[str, tuple[dict[str, Any] | None, bool]] = {
    "none at all": (None, False),
    "an empty one": ({}, True),
    "its labels": ({"matchLabels": {"app": "it"}}, True),
    "another's labels": ({"matchLabels": {"app": "another"}}, False),
    "one of several values": ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "it"]}]}, True),
    "none of several values": ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["it"]}]}, False),
    "a label it has": ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
    "a label it has not": ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    "both, of which one fails": (
        {"matchLabels": {"app": "it"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        False,
    ),
}


@pytest.mark.parametrize(("selector", "meant"), SELECTORS.values(), ids=SELECTORS)
def test_a_selector_means(selector: dict[str, Any] | None, meant: bool) -> None:
    assert selects(selector, {"app": "it"}) is meant
