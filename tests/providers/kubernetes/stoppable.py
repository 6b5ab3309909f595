"""Workloads of every kind that can be stopped, as people write them, and how a test tells that one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from providers.records import Kind, ResourceRecord, ResourceRef, Verb
from tests.kubernetes.cluster import Cluster, Manifest
from tests.waiting import soon

POD: Manifest = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "trainer"}]}
SERVER: Manifest = {"containers": [{"name": "main", "image": "server"}]}
LABELS = {"app": "it"}


def manifest(api_version: str, kind: str, spec: Manifest, *, name: str = "it", **annotations: str) -> Manifest:
    named = {key.replace("__", "/").replace("_", "-"): value for key, value in annotations.items()}
    metadata: Manifest = {"name": name, **({"annotations": named} if named else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def job(name: str = "it", **spec: Any) -> Manifest:
    return manifest("batch/v1", "Job", {"template": {"spec": POD}, **spec}, name=name)


def cron_job(**spec: Any) -> Manifest:
    run = {"spec": {"template": {"spec": POD}}}
    return manifest("batch/v1", "CronJob", {"schedule": "0 0 29 2 *", "jobTemplate": run, **spec})


def deployment(replicas: int | None = 3, *, name: str = "it") -> Manifest:
    size = {} if replicas is None else {"replicas": replicas}
    template = {"metadata": {"labels": LABELS}, "spec": SERVER}
    return manifest(
        "apps/v1", "Deployment", {"selector": {"matchLabels": LABELS}, "template": template, **size}, name=name
    )


def stateful_set(replicas: int = 2) -> Manifest:
    return deployment(replicas) | {"kind": "StatefulSet"}


def hpa(least: int = 2, *, kind: str = "Deployment", of: str = "it") -> Manifest:
    target = {"apiVersion": "apps/v1", "kind": kind, "name": of}
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}
    spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": 9}
    return manifest(
        "autoscaling/v2", "HorizontalPodAutoscaler", spec | {"metrics": [{"type": "Resource", "resource": metric}]}
    )


def scaled_object(*, of: str = "it", **annotations: str) -> Manifest:
    made = manifest("keda.sh/v1alpha1", "ScaledObject", {"scaleTargetRef": {"name": of}, "minReplicaCount": 1})
    named = {f"autoscaling.keda.sh/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return made | {"metadata": {"name": "it"} | ({"annotations": named} if named else {})}


def kueue_workload(owner: Manifest, *, name: str = "it-kueue") -> Manifest:
    """What Kueue makes for a job that it governs."""
    made = manifest("kueue.x-k8s.io/v1beta2", "Workload", {"queueName": "gpus", "active": True}, name=name)
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    return made | {"metadata": {"name": name, "ownerReferences": [reference]}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A workload, with what stands beside it and the verbs that stop it."""

    manifest: Manifest
    beside: tuple[Manifest, ...] = ()
    verbs: tuple[Verb, ...] = (Verb.STOP, Verb.SUSPEND)
    stopped: Callable[[Manifest], bool] = lambda it: it["spec"]["suspend"] is True


SUSPENDED_RUN: Callable[[Manifest], bool] = lambda it: it["spec"]["runPolicy"]["suspend"] is True  # noqa: E731
AT_ZERO: Callable[[Manifest], bool] = lambda it: it["spec"]["replicas"] == 0  # noqa: E731
TO_ZERO = (Verb.STOP, Verb.SCALE_TO_ZERO)


def annotated(name: str, value: str | None = None) -> Callable[[Manifest], bool]:
    return lambda it: (
        it["metadata"]["annotations"].get(name) is not None
        and (value is None or it["metadata"]["annotations"][name] == value)
    )


REPLICAS = {"Worker": {"replicas": 2, "template": {"spec": POD}}}
RAY_JOB = {"entrypoint": "python train.py", "rayClusterSpec": {}, "shutdownAfterJobFinishes": True}

CASES = {
    "a Job": Case(manifest=job()),
    "a Job with annotations of its own": Case(
        manifest=manifest("batch/v1", "Job", {"template": {"spec": POD}}, example_org__team='vision\'s "best"')
    ),
    "a CronJob": Case(manifest=cron_job()),
    "a CronJob that says it runs": Case(manifest=cron_job(suspend=False)),
    "a JobSet": Case(manifest=manifest("jobset.x-k8s.io/v1alpha2", "JobSet", {"replicatedJobs": []})),
    "a RayCluster": Case(manifest=manifest("ray.io/v1", "RayCluster", {"headGroupSpec": {}, "suspend": False})),
    "a RayJob": Case(manifest=manifest("ray.io/v1", "RayJob", RAY_JOB)),
    "a TrainJob": Case(
        manifest=manifest("trainer.kubeflow.org/v1alpha1", "TrainJob", {"runtimeRef": {"name": "torch"}})
    ),
    "a PyTorchJob without a run policy": Case(
        manifest=manifest("kubeflow.org/v1", "PyTorchJob", {"pytorchReplicaSpecs": REPLICAS}), stopped=SUSPENDED_RUN
    ),
    "an MPIJob with a run policy": Case(
        manifest=manifest("kubeflow.org/v1", "MPIJob", {"runPolicy": {"backoffLimit": 2}, "mpiReplicaSpecs": REPLICAS}),
        stopped=SUSPENDED_RUN,
    ),
    "a TFJob that says it runs": Case(
        manifest=manifest("kubeflow.org/v1", "TFJob", {"runPolicy": {"suspend": False}, "tfReplicaSpecs": REPLICAS}),
        stopped=SUSPENDED_RUN,
    ),
    "a Deployment": Case(manifest=deployment(3), verbs=TO_ZERO, stopped=AT_ZERO),
    "a Deployment of no stated size": Case(manifest=deployment(None), verbs=TO_ZERO, stopped=AT_ZERO),
    "a Deployment under an HPA": Case(manifest=deployment(2), beside=(hpa(2),), verbs=TO_ZERO, stopped=AT_ZERO),
    "a Deployment under KEDA": Case(manifest=deployment(2), beside=(scaled_object(),), verbs=TO_ZERO, stopped=AT_ZERO),
    "a Deployment that KEDA holds at a number": Case(
        manifest=deployment(2), beside=(scaled_object(paused_replicas="2"),), verbs=TO_ZERO, stopped=AT_ZERO
    ),
    "a Deployment whose KEDA was told not to pause": Case(
        manifest=deployment(2), beside=(scaled_object(paused="false"),), verbs=TO_ZERO, stopped=AT_ZERO
    ),
    "a StatefulSet": Case(manifest=stateful_set(2), verbs=TO_ZERO, stopped=AT_ZERO),
    "a Notebook": Case(
        manifest=manifest("kubeflow.org/v1", "Notebook", {"template": {"spec": SERVER}}),
        verbs=(Verb.STOP,),
        stopped=annotated("kubeflow-resource-stopped"),
    ),
    "an InferenceService": Case(
        manifest=manifest("serving.kserve.io/v1beta1", "InferenceService", {"predictor": {"minReplicas": 1}}),
        verbs=TO_ZERO,
        stopped=annotated("serving.kserve.io/stop", "true"),
    ),
    "an InferenceService that was told not to stop": Case(
        manifest=manifest(
            "serving.kserve.io/v1beta1", "InferenceService", {"predictor": {}}, serving_kserve_io__stop="false"
        ),
        verbs=TO_ZERO,
        stopped=annotated("serving.kserve.io/stop", "true"),
    ),
}


def made(cluster: Cluster, namespace: str, case: Case) -> list[Manifest]:
    """What is there once the cluster's own controllers have had their say; the workload is the first."""
    everything = [cluster.create(each, namespace) for each in (case.manifest, *case.beside)]
    if case.manifest["kind"] == "Deployment":
        soon(lambda: _told_of_all(as_it_is(cluster, everything[0])), "its controller has told of all its pods")
    return [as_it_is(cluster, each) for each in everything]


def _told_of_all(thing: Manifest) -> bool:
    """A Deployment has then its revision too, and nothing more is written."""
    status = thing.get("status", {})
    return bool(status.get("replicas") == status.get("updatedReplicas") == thing["spec"]["replicas"])


def kind_of(thing: Manifest) -> str:
    return f"{thing['apiVersion']}/{thing['kind']}"


def as_it_is(cluster: Cluster, thing: Manifest) -> Manifest:
    return cluster.get(kind_of(thing), thing["metadata"]["name"], thing["metadata"]["namespace"])


def meant(thing: Manifest) -> Manifest:
    """All of it that people mean: without what the API server and controllers write down."""
    written = ("resourceVersion", "generation", "managedFields")
    metadata = {key: value for key, value in thing["metadata"].items() if key not in written}
    return {key: value for key, value in thing.items() if key != "status"} | {"metadata": metadata}


def record_of(thing: Manifest) -> ResourceRecord:
    """As the inventory would tell of it, as far as the actuator looks."""
    metadata = thing["metadata"]
    name = f"{metadata['namespace']}/{thing['kind']}/{metadata['name']}"
    ref = ResourceRef(provider="kubernetes", account="a-cluster", region="", kind=Kind.WORKLOAD, external_id=name)
    return ResourceRecord(
        ref=ref, incarnation=metadata["uid"], name=metadata["name"], zone=None, sku="nvidia.com/gpu",
        gpu_vendor=None, gpu_model=None, gpu_count=1,
    )  # fmt: skip
