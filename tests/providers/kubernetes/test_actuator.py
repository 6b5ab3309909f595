"""Workloads are stopped through what sets their size, and come back as they were: against a real API server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from providers.errors import Conflict, Forbidden, NotFound, Refused, Unreachable, Unsupported
from providers.kubernetes import Config
from providers.kubernetes.actuator import KubernetesActuator
from providers.kubernetes.client import Client
from providers.records import Kind, ResourceRef, Verb
from tests.kubernetes.cluster import Cluster, Manifest
from tests.kubernetes.programs import program
from tests.providers.kubernetes.front import NO_ANSWER, Call, Front, Reply, refused
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
MARKS = ("curfew.dev/stopped-by", "curfew.dev/remembered", "curfew.dev/undo", "curfew.dev/request")


@pytest.fixture
def actuator(cluster: Cluster) -> KubernetesActuator:
    return KubernetesActuator(Client(Config(kubeconfig=str(cluster.kubeconfig))), now=lambda: NOW)


@pytest.fixture
def fronted(cluster_front: Front, client_of: Callable[[Front], Client]) -> KubernetesActuator:
    """One that reaches the cluster through something that can fail."""
    return KubernetesActuator(client_of(cluster_front), now=lambda: NOW)


def stop(
    actuator: KubernetesActuator, thing: Manifest, verb: Verb = Verb.STOP, *, request: str = "request-1"
) -> dict[str, Any]:
    """As the service does; what is remembered has been in its store."""
    record = record_of(thing)
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(record, verb)))
    actuator.act(record.ref, verb, request_id=request, reason=REASON)
    return remembered


def restore(actuator: KubernetesActuator, thing: Manifest, remembered: dict[str, Any]) -> None:
    actuator.restore(record_of(thing).ref, remembered, request_id="undo-1")


def marks(thing: Manifest) -> dict[str, str]:
    return {key: value for key, value in thing["metadata"].get("annotations", {}).items() if key in MARKS}


def patched(front: Front) -> list[Call]:
    return [call for call in front.calls if call.method == "PATCH"]


# There and back


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_stop_and_its_undo_leave_everything_as_it_was(
    case: Case, actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    before = made(cluster, namespace, case)
    for verb in case.verbs:
        remembered = stop(actuator, before[0], verb)
        stopped = as_it_is(cluster, before[0])
        assert case.stopped(stopped)
        assert set(marks(stopped)) == set(MARKS)
        restore(actuator, before[0], remembered)
        assert [meant(as_it_is(cluster, each)) for each in before] == [meant(each) for each in before]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_line_on_a_stopped_workload_undoes_the_stop(
    case: Case, actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    before = made(cluster, namespace, case)
    remembered = stop(actuator, before[0])
    shell(cluster, marks(as_it_is(cluster, before[0]))["curfew.dev/undo"])
    assert [meant(as_it_is(cluster, each)) for each in before] == [meant(each) for each in before]
    restore(actuator, before[0], remembered)
    assert [meant(as_it_is(cluster, each)) for each in before] == [meant(each) for each in before]


def shell(cluster: Cluster, line: str) -> None:
    path = f"{Path(program('kubectl')).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(cluster.programs.folder), "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(["sh", "-ec", line], env=environment, check=True, capture_output=True)


def test_kubectl_shows_who_stopped_it_and_why_and_how_to_undo_it(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    stop(actuator, it)
    assert marks(as_it_is(cluster, it)) == {
        "curfew.dev/stopped-by": "curfew, 2026-11-22T10:00:00Z: idle for 2h, GPUs at 0 %.",
        "curfew.dev/remembered": '{"before":{"/spec/suspend":false},"after":{"/spec/suspend":true}}',
        "curfew.dev/undo": f"kubectl patch jobs.batch it -n {namespace} --type=merge -p "
        '\'{"metadata":{"annotations":{"curfew.dev/stopped-by":null,"curfew.dev/remembered":null,'
        '"curfew.dev/undo":null,"curfew.dev/request":null}},"spec":{"suspend":false}}\'',
        "curfew.dev/request": "request-1",
    }
    described = cluster.kubectl("describe", "job", "it", "-n", namespace)
    assert "CurfewStopped" in described
    assert "Curfew: idle for 2h, GPUs at 0 %. To undo it: kubectl patch jobs.batch it" in described
    managers = {entry["manager"] for entry in as_it_is(cluster, it)["metadata"]["managedFields"]}
    assert "curfew" in managers


def test_an_undo_is_told_too(actuator: KubernetesActuator, cluster: Cluster, namespace: str) -> None:
    it = cluster.create(job(), namespace)
    remembered = stop(actuator, it)
    for _ in range(2):
        restore(actuator, it, remembered)
    told = [event["reason"] for event in cluster.all("v1/Event", namespace) if event["reason"].startswith("Curfew")]
    assert sorted(told) == ["CurfewRestored", "CurfewStopped"]


# What else sets the size


def test_an_hpa_leaves_what_is_at_zero_alone_and_goes_on_after_the_undo(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(deployment(1), namespace)
    scaler = cluster.create(hpa(1), namespace)
    remembered = stop(actuator, it)
    assert remembered["autoscalers"] == [{"name": "it", "min": 1, "max": 9}]

    def disabled() -> bool:
        conditions = as_it_is(cluster, scaler).get("status", {}).get("conditions", ())
        return any((each["type"], each["reason"]) == ("ScalingActive", "ScalingDisabled") for each in conditions)

    soon(disabled, "the HPA has seen it at zero and says that it does nothing")
    cluster.patch("HorizontalPodAutoscaler", "it", {"spec": {"minReplicas": 3}}, namespace)
    soon(lambda: as_it_is(cluster, scaler)["spec"]["minReplicas"] == 3 and disabled(), "it still does nothing")
    assert as_it_is(cluster, it)["spec"]["replicas"] == 0
    restore(actuator, it, remembered)
    soon(lambda: as_it_is(cluster, it)["spec"]["replicas"] == 3, "the HPA raises it to its own minimum")


def test_keda_is_paused_before_its_target_goes_and_wakes_after_it_is_back(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it, scaler = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(paused_replicas="5"),)))
    remembered = stop(fronted, it)
    assert "Pauses ScaledObject" in remembered["plan"]
    paused = as_it_is(cluster, scaler)["metadata"]["annotations"]
    assert paused["autoscaling.keda.sh/paused"] == "true"
    assert "autoscaling.keda.sh/paused-replicas" not in paused
    restore(fronted, it, remembered)
    touched = [kind for kind, _ in groupby(call.path.split("/")[-2] for call in patched(cluster_front))]
    assert touched == ["scaledobjects", "deployments", "scaledobjects"], "the Deployment is at zero in between"


def test_scalers_of_others_are_left_alone(actuator: KubernetesActuator, cluster: Cluster, namespace: str) -> None:
    it, *others = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(of="another"),)))
    remembered = stop(actuator, it)
    assert [meant(as_it_is(cluster, each)) for each in others] == [meant(each) for each in others]
    assert [change["in"] for change in remembered["changes"]] == ["deployments.apps"]


@pytest.mark.parametrize("case", ["a Job", "a RayJob", "a PyTorchJob without a run policy", "a JobSet"])
def test_what_kueue_governs_is_stopped_through_kueue(
    case: str, actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    (it,) = made(cluster, namespace, CASES[case])
    governed = cluster.create(kueue_workload(it), namespace)
    other = cluster.create(kueue_workload(cluster.create(job("other"), namespace), name="of-another"), namespace)
    remembered = stop(actuator, it, Verb.SUSPEND)
    assert as_it_is(cluster, governed)["spec"]["active"] is False
    assert as_it_is(cluster, it)["spec"] == it["spec"]
    assert marks(as_it_is(cluster, it))["curfew.dev/undo"] == marks(as_it_is(cluster, governed))["curfew.dev/undo"]
    restore(actuator, it, remembered)
    assert [meant(as_it_is(cluster, each)) for each in (it, governed, other)] == [
        meant(it),
        meant(governed),
        meant(other),
    ]


def test_the_undo_line_of_what_kueue_governs_works(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    governed = cluster.create(kueue_workload(it), namespace)
    stop(actuator, it)
    shell(cluster, marks(as_it_is(cluster, it))["curfew.dev/undo"])
    assert [meant(as_it_is(cluster, each)) for each in (it, governed)] == [meant(it), meant(governed)]


def test_kueue_has_no_say_in_what_it_is_done_with(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    done = cluster.create(kueue_workload(it), namespace)
    finished = {
        "type": "Finished",
        "status": "True",
        "reason": "Succeeded",
        "message": "",
        "lastTransitionTime": NOW_TEXT,
    }
    cluster.patch(
        "kueue.x-k8s.io/v1beta2/Workload", "it-kueue", {"status": {"conditions": [finished]}}, namespace, of="status"
    )
    stop(actuator, it)
    assert as_it_is(cluster, it)["spec"]["suspend"] is True
    assert as_it_is(cluster, done)["spec"]["active"] is True


NOW_TEXT = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")


def run_of(cron: Manifest, name: str, **spec: Any) -> Manifest:
    """A Job as the CronJob's controller makes it."""
    reference = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "it",
        "uid": cron["metadata"]["uid"],
        "controller": True,
    }
    made = job(name, **spec)
    return made | {"metadata": {"name": name, "ownerReferences": [reference]}}


def test_a_cron_job_is_stopped_with_its_present_runs(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(cron_job(), namespace)
    runs = [
        cluster.create(run_of(it, "run-1"), namespace),
        cluster.create(run_of(it, "run-2", suspend=True), namespace),
    ]
    stranger = cluster.create(job("stranger"), namespace)
    before = [as_it_is(cluster, each) for each in (it, *runs, stranger)]
    remembered = stop(actuator, it)
    assert [as_it_is(cluster, each)["spec"]["suspend"] for each in before] == [True, True, True, False]
    assert not marks(as_it_is(cluster, runs[1]))
    restore(actuator, it, remembered)
    assert [meant(as_it_is(cluster, each)) for each in before] == [meant(each) for each in before]


def test_a_run_that_began_after_a_crash_of_ours_is_put_back_too(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(cron_job(), namespace)
    remembered = actuator.remember(record_of(it), Verb.STOP)
    started_anew = KubernetesActuator(Client(Config(kubeconfig=str(cluster.kubeconfig))), now=lambda: NOW)
    run = cluster.create(run_of(it, "run-1"), namespace)
    started_anew.act(record_of(it).ref, Verb.STOP, request_id="request-1", reason=REASON)
    assert as_it_is(cluster, run)["spec"]["suspend"] is True
    restore(started_anew, it, remembered)
    assert meant(as_it_is(cluster, run)) == meant(run)


# Others are at work too


def test_what_somebody_else_has_stopped_is_left_as_it_is(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(suspend=True), namespace)
    remembered = stop(fronted, it)
    assert remembered["changes"] == []
    assert "stopped already" in remembered["plan"]
    restore(fronted, it, remembered)
    assert patched(cluster_front) == []
    assert as_it_is(cluster, it)["spec"]["suspend"] is True


def test_what_somebody_changed_since_it_was_remembered_is_not_touched(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(deployment(2), namespace)
    actuator.remember(record_of(it), Verb.STOP)
    cluster.patch("Deployment", "it", {"spec": {"replicas": 5}}, namespace)
    with pytest.raises(Conflict, match="changed by somebody else a moment ago"):
        actuator.act(record_of(it).ref, Verb.STOP, request_id="request-1")
    assert as_it_is(cluster, it)["spec"]["replicas"] == 5
    assert not marks(as_it_is(cluster, it))


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.TERMINATE])
def test_what_was_made_anew_since_it_was_remembered_is_not_touched(
    verb: Verb, actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(cron_job(), namespace)
    actuator.remember(record_of(it), verb)
    cluster.delete("CronJob", "it", namespace)
    anew = cluster.create(cron_job(), namespace)
    with pytest.raises(Conflict, match="made anew"):
        actuator.act(record_of(it).ref, verb, request_id="request-1")
    assert meant(as_it_is(cluster, anew)) == meant(anew)
    with pytest.raises(NotFound, match="made anew"):
        actuator.remember(record_of(it), verb)


def before_each_patch(cluster: Cluster, path: str, change: Callable[[], object]) -> Callable[[Call], Reply | None]:
    """Somebody else is a moment quicker, every time."""

    def rule(call: Call) -> Reply | None:
        if call.method == "PATCH" and call.path == path:
            change()
        return None

    return rule


def test_a_change_at_the_very_moment_is_a_conflict_and_nothing_is_done(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it, scaler = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    somebody = lambda: cluster.patch("Deployment", "it", {"spec": {"replicas": 7}}, namespace)  # noqa: E731
    rule = before_each_patch(cluster, cluster.path("Deployment", "it", namespace), somebody)
    with cluster_front.within(rule), pytest.raises(Conflict, match="at the same moment"):
        stop(fronted, it)
    assert as_it_is(cluster, it)["spec"]["replicas"] == 7
    assert not marks(as_it_is(cluster, it))
    assert meant(as_it_is(cluster, scaler)) == meant(scaler), "what was paused is given back"


def test_a_status_written_at_the_very_moment_is_no_conflict(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    (it,) = made(cluster, namespace, CASES["a RayCluster"])
    told = iter(range(2))
    written = lambda: [  # noqa: E731
        cluster.patch("ray.io/v1/RayCluster", "it", {"status": {"seen": turn}}, namespace, of="status")
        for turn in [next(told, None)]
        if turn is not None
    ]
    with cluster_front.within(
        before_each_patch(cluster, cluster.path("ray.io/v1/RayCluster", "it", namespace), written)
    ):
        stop(fronted, it)
    assert as_it_is(cluster, it)["spec"]["suspend"] is True


def test_what_somebody_woke_stays_awake_and_only_our_marks_go(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it, scaler = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    remembered = stop(actuator, it)
    cluster.kubectl("scale", "deployment", "it", "--replicas=5", "-n", namespace)
    restore(actuator, it, remembered)
    assert as_it_is(cluster, it)["spec"]["replicas"] == 5
    assert not marks(as_it_is(cluster, it))
    assert meant(as_it_is(cluster, scaler)) == meant(scaler), "what we had silenced speaks again"


def test_a_notebook_that_somebody_stopped_anew_stays_stopped(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    (it,) = made(cluster, namespace, CASES["a Notebook"])
    remembered = stop(actuator, it)
    later = "2026-11-22T17:30:00Z"
    cluster.kubectl("annotate", "notebook", "it", "-n", namespace, "--overwrite", f"kubeflow-resource-stopped={later}")
    restore(actuator, it, remembered)
    assert as_it_is(cluster, it)["metadata"]["annotations"] == {"kubeflow-resource-stopped": later}


def test_a_notebook_is_put_back_whenever_the_act_came(
    cluster: Cluster, namespace: str, actuator: KubernetesActuator
) -> None:
    (it,) = made(cluster, namespace, CASES["a Notebook"])
    remembered = actuator.remember(record_of(it), Verb.STOP)
    an_hour_later = lambda: NOW.replace(hour=11)  # noqa: E731
    started_anew = KubernetesActuator(Client(Config(kubeconfig=str(cluster.kubeconfig))), now=an_hour_later)
    started_anew.act(record_of(it).ref, Verb.STOP, request_id="request-1")
    restore(started_anew, it, remembered)
    assert meant(as_it_is(cluster, it)) == meant(it)


def test_what_somebody_stopped_without_us_after_our_undo_is_left_so_and_that_is_said(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    remembered = stop(actuator, it)
    restore(actuator, it, remembered)
    cluster.patch("Job", "it", {"spec": {"suspend": True}}, namespace)
    with pytest.raises(Refused, match=f"Job {namespace}/it does not bear Curfew's mark any more"):
        restore(actuator, it, remembered)
    assert as_it_is(cluster, it)["spec"]["suspend"] is True


def test_what_an_earlier_stop_left_silenced_goes_back_with_the_next_one(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it, scaler = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    stop(actuator, it, request="request-1")
    cluster.kubectl("scale", "deployment", "it", "--replicas=5", "-n", namespace)
    remembered = stop(actuator, it, request="request-2")
    restore(actuator, it, remembered)
    assert as_it_is(cluster, it)["spec"]["replicas"] == 5
    assert meant(as_it_is(cluster, scaler)) == meant(scaler)


# Once, whatever happens


def lost_answers(front: Front, *, most: int = 1) -> Callable[[Call], Reply | None]:
    """The cluster does it, and its answer never comes."""

    def rule(call: Call) -> Reply | None:
        if call.method != "PATCH" or len(patched(front)) > most:
            return None
        front.pass_on(call, lambda status, headers, chunks: None)
        return NO_ANSWER

    return rule


@pytest.mark.parametrize("lost", [1, 2])
def test_an_act_whose_answer_was_lost_is_done_once(
    lost: int, fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    before = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    it = before[0]
    remembered = fronted.remember(record_of(it), Verb.STOP)
    with cluster_front.within(lost_answers(cluster_front, most=lost)):
        for _ in range(lost):
            with pytest.raises(Unreachable):
                fronted.act(record_of(it).ref, Verb.STOP, request_id="request-1", reason=REASON)
    fronted.act(record_of(it).ref, Verb.STOP, request_id="request-1", reason=REASON)
    fronted.act(record_of(it).ref, Verb.STOP, request_id="request-1", reason=REASON)
    assert len(patched(cluster_front)) == 2, "one for the Deployment, one for its ScaledObject"
    undo = marks(as_it_is(cluster, it))["curfew.dev/undo"]
    assert undo.count("kubectl") == 2, "the line knows what was done before the answer was lost"
    restore(fronted, it, remembered)
    assert [meant(as_it_is(cluster, each)) for each in before] == [meant(each) for each in before]


def test_what_was_woken_after_an_act_is_not_stopped_by_the_same_request(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    stop(actuator, it)
    cluster.patch("Job", "it", {"spec": {"suspend": False}}, namespace)
    actuator.act(record_of(it).ref, Verb.STOP, request_id="request-1")
    assert as_it_is(cluster, it)["spec"]["suspend"] is False


def test_stopping_again_by_another_request_changes_nothing(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    stop(actuator, it)
    stopped = as_it_is(cluster, it)
    actuator.act(record_of(it).ref, Verb.STOP, request_id="request-2")
    assert meant(as_it_is(cluster, it)) == meant(stopped)


def test_restoring_twice_is_success(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    (it,) = made(cluster, namespace, CASES["a RayCluster"])
    remembered = stop(fronted, it)
    for _ in range(3):
        restore(fronted, it, remembered)
    assert len(patched(cluster_front)) == 2
    assert as_it_is(cluster, it)["spec"]["suspend"] is False


def test_what_may_only_be_done_in_part_is_not_done(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it, scaler = made(cluster, namespace, Case(manifest=deployment(2), beside=(scaled_object(),)))
    message = (
        'deployments.apps "it" is forbidden: User "curfew" cannot patch resource "deployments" in API group "apps"'
    )

    def forbids(call: Call) -> Reply | None:
        refuses = call.method == "PATCH" and "/deployments/" in call.path
        return refused(403, "Forbidden", message) if refuses else None

    with cluster_front.within(forbids), pytest.raises(Forbidden) as caught:
        stop(fronted, it)
    assert caught.value.permission == "patch deployments.apps"
    assert meant(as_it_is(cluster, scaler)) == meant(scaler)


def test_who_may_not_ask_for_scalers_does_not_act(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(deployment(2), namespace)
    rule = lambda call: refused(403, "Forbidden", "no") if "scaledobjects" in call.path else None  # noqa: E731
    with cluster_front.within(rule), pytest.raises(Forbidden):
        fronted.act(record_of(it).ref, Verb.STOP, request_id="request-1")
    assert as_it_is(cluster, it)["spec"]["replicas"] == 2


def test_an_event_that_cannot_be_written_fails_nothing(
    fronted: KubernetesActuator, cluster_front: Front, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(job(), namespace)
    rule = lambda call: refused(403, "Forbidden", "no events") if call.path.endswith("/events") else None  # noqa: E731
    with cluster_front.within(rule):
        stop(fronted, it)
    assert as_it_is(cluster, it)["spec"]["suspend"] is True


def test_no_call_is_begun_late(cluster: Cluster, namespace: str) -> None:
    it = cluster.create(deployment(2), namespace)
    seconds = iter(range(0, 1000, 6))
    slow = KubernetesActuator(
        Client(Config(kubeconfig=str(cluster.kubeconfig))), now=lambda: NOW, clock=lambda: float(next(seconds))
    )
    with pytest.raises(Unreachable, match="took too long"):
        slow.act(record_of(it).ref, Verb.STOP, request_id="request-1")
    assert meant(as_it_is(cluster, it))["spec"]["replicas"] == 2


# What leads nowhere back


def bare_pod(cluster: Cluster, namespace: str) -> Manifest:
    pod = cluster.create(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it", "labels": {"app": "it"}}, "spec": SERVER},
        namespace,
    )
    cluster.bind("it", namespace, cluster.node())
    cluster.run("it", namespace)
    return pod


def test_a_bare_pod_is_evicted_for_good(actuator: KubernetesActuator, cluster: Cluster, namespace: str) -> None:
    pod = bare_pod(cluster, namespace)
    remembered = stop(actuator, pod)
    assert remembered["final"] is True
    assert "does not come back" in remembered["plan"]
    assert "deletionTimestamp" in as_it_is(cluster, pod)["metadata"]
    actuator.act(record_of(pod).ref, Verb.STOP, request_id="request-1")
    cluster.delete("Pod", "it", namespace, at_once=True)
    with pytest.raises(Unsupported, match="evicted; nothing undoes that"):
        restore(actuator, pod, remembered)
    with pytest.raises(NotFound):
        actuator.act(record_of(pod).ref, Verb.STOP, request_id="request-1")


def test_a_disruption_budget_is_respected_and_named(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    pod = bare_pod(cluster, namespace)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "it"}}}
    cluster.create(manifest("policy/v1", "PodDisruptionBudget", budget, name="keep-one"), namespace)
    soon(
        lambda: cluster.get("PodDisruptionBudget", "keep-one", namespace).get("status", {}).get("expectedPods"),
        "it counts",
    )
    other = {"minAvailable": 1, "selector": {"matchLabels": {"app": "another"}}}
    cluster.create(manifest("policy/v1", "PodDisruptionBudget", other, name="of-another"), namespace)
    with pytest.raises(Conflict, match=f"^PodDisruptionBudget keep-one allows no eviction of Pod {namespace}/it now"):
        stop(actuator, pod)
    assert "deletionTimestamp" not in as_it_is(cluster, pod)["metadata"]


def test_what_is_terminated_goes_with_its_pods(actuator: KubernetesActuator, cluster: Cluster, namespace: str) -> None:
    it = cluster.create(job(), namespace)
    pods = soon(lambda: cluster.all("Pod", namespace), "the job has its pod")
    remembered = stop(actuator, it, Verb.TERMINATE)
    assert remembered["final"] is True
    soon(lambda: cluster.find("Job", "it", namespace) is None, "it is gone")
    soon(lambda: cluster.find("Pod", pods[0]["metadata"]["name"], namespace) is None, "its pod is gone")
    with pytest.raises(Unsupported, match="deleted; nothing undoes that"):
        restore(actuator, it, remembered)
    with pytest.raises(NotFound):
        actuator.act(record_of(it).ref, Verb.TERMINATE, request_id="request-1")


OLD_KSERVE = {"conditions": [{"type": "Ready", "status": "True"}]}
IMPOSSIBLE = {
    "suspending a Deployment": (deployment(), Verb.SUSPEND, "a Deployment cannot be told to suspend; possible is"),
    "scaling a Job": (job(), Verb.SCALE_TO_ZERO, "a Job cannot be told to scale_to_zero"),
    "hibernating a Job": (job(), Verb.HIBERNATE, "cannot be told to hibernate"),
    "stopping a RayService": (
        manifest("ray.io/v1", "RayService", {}), Verb.STOP, "a RayService cannot be told to stop; possible is terminate"
    ),
    "a RayJob that outlives its run": (
        manifest("ray.io/v1", "RayJob", {"rayClusterSpec": {}}), Verb.STOP, "only with shutdownAfterJobFinishes: true"
    ),
    "a RayJob on a cluster of its own choosing": (
        manifest("ray.io/v1", "RayJob", {"clusterSelector": {"ray.io/cluster": "shared"}}), Verb.SUSPEND, "no such"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("thing", "verb", "why"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_is_not_possible_is_said(
    thing: Manifest, verb: Verb, why: str, actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    it = cluster.create(thing, namespace)
    for attempt in (
        lambda: actuator.remember(record_of(it), verb),
        lambda: actuator.act(record_of(it).ref, verb, request_id="request-1"),
    ):
        with pytest.raises(Unsupported, match=why):
            attempt()
    now = as_it_is(cluster, it)
    assert (now["spec"], marks(now)) == (it["spec"], {})


def test_an_old_kserve_that_would_not_heed_the_annotation_is_told_of(
    actuator: KubernetesActuator, cluster: Cluster, namespace: str
) -> None:
    (it,) = made(cluster, namespace, CASES["an InferenceService"])
    cluster.patch(kind_of(it), "it", {"status": OLD_KSERVE}, namespace, of="status")
    with pytest.raises(Unsupported, match="does not know the annotation"):
        stop(actuator, it)
    newer = {"conditions": [*OLD_KSERVE["conditions"], {"type": "Stopped", "status": "False"}]}
    cluster.patch(kind_of(it), "it", {"status": newer}, namespace, of="status")
    stop(actuator, it)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.SUSPEND, Verb.SCALE_TO_ZERO, Verb.TERMINATE])
def test_nodes_are_never_acted_on(verb: Verb, actuator: KubernetesActuator, cluster: Cluster) -> None:
    name = cluster.node()
    ref = ResourceRef(provider="kubernetes", account="a-cluster", region="", kind=Kind.NODE, external_id=name)
    with pytest.raises(Unsupported, match="only workloads are acted on"):
        actuator.act(ref, verb, request_id="request-1")
    assert "unschedulable" not in cluster.get("Node", name)["spec"]


def test_a_kind_nobody_told_us_of_is_not_acted_on(actuator: KubernetesActuator, namespace: str) -> None:
    ref = ResourceRef(
        provider="kubernetes", account="a-cluster", region="", kind=Kind.WORKLOAD, external_id=f"{namespace}/Foo/it"
    )
    with pytest.raises(Unsupported, match="knows no way to stop a Foo; it knows CronJob"):
        actuator.act(ref, Verb.STOP, request_id="request-1")
