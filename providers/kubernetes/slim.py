"""What of an object is kept in memory, in its own shape: enough for `translate`, and nothing of what it never reads.

Most pods of a cluster hold no accelerators, so most of the work here is to say so at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from providers.kubernetes.accelerators import (
    DEVICE_CLASSES,
    DRIVERS,
    PORTIONS,
    REGISTERED,
    at,
    items,
    text,
    texts,
    vendor_of,
)
from providers.kubernetes.owners import COLLECTIONS, NOTEBOOK_STOPPED

Json = Mapping[str, Any]
Slimmed = dict[str, Any]

CURFEW = "curfew.dev/"
KSERVE_STOPPED = "serving.kserve.io/stop"
PROTECTING = (
    "curfew-protect",
    "karpenter.sh/do-not-disrupt",
    "downscaler/exclude",
    "downscaler/exclude-until",
    "downscaler/force-uptime",
    "cluster-autoscaler.kubernetes.io/safe-to-evict",
    "cluster-autoscaler.kubernetes.io/scale-down-disabled",
)
"""Annotations and labels that protect. What each must say is `translate`'s."""
ANNOTATIONS = frozenset({*PROTECTING, NOTEBOOK_STOPPED, KSERVE_STOPPED, REGISTERED})

FINISHED_PHASES = frozenset({"Succeeded", "Failed"})
FINISHED_CONDITIONS = frozenset({"Complete", "Completed", "Succeeded", "Failed", "Finished"})
"""Types of conditions that end jobs, whatever their kind."""

COUNTS = frozenset({"replicas", "minReplicas", "parallelism", "numOfHosts", "numNodes", "size"})
SCALARS = COUNTS | {"suspend", "restartPolicy", "shutdownAfterJobFinishes"}
BULKY = frozenset(
    {"env", "envFrom", "args", "command", "status", "managedFields", "data", "securityContext", "volumeClaimTemplates"}
)
"""Fields of specs that are often long and never tell of accelerators."""
POD_SPEC = frozenset({"affinity", "containers", "initContainers", "resourceClaims", "tolerations", "volumes"})
"""Fields of specs of pods, which are read as such."""
STRAIGHT = frozenset({"deployments.apps", "statefulsets.apps", "daemonsets.apps", "jobs.batch", "cronjobs.batch"})
"""Kinds whose pods ask for what their template says. Those of others may get theirs from elsewhere (a runtime, a
class), and they are few."""


def slim(collection: str, obj: Json) -> Slimmed | None:
    """What is kept of an object; None: it is none of our business."""
    if not text(obj, "metadata", "uid") or not text(obj, "metadata", "name"):
        return None
    how = SLIMMERS.get(collection)
    if how is not None:
        return how(obj)
    known = COLLECTIONS.get(collection)
    if known is None:
        return None
    if known.metadata_only:
        return {"metadata": _place(obj)}
    return _owner(obj, straight=collection in STRAIGHT) if known.owner else None


# Metadata.


def _place(obj: Json) -> Slimmed:
    """Its name and its place in the chain of owners."""
    metadata = obj["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "uid") if isinstance(metadata.get(key), str)}
    controllers = [owner for owner in items(metadata, "ownerReferences") if owner.get("controller") is True]
    if controllers:
        wanted = ("apiVersion", "kind", "name", "uid", "controller")
        kept["ownerReferences"] = [{key: owner.get(key) for key in wanted} for owner in controllers[:1]]
    return kept


def _metadata(obj: Json) -> Slimmed:
    metadata = obj["metadata"]
    kept = _place(obj)
    for key in ("creationTimestamp", "deletionTimestamp"):
        if isinstance(metadata.get(key), str):
            kept[key] = metadata[key]
    return kept | _words(metadata)


def _words(metadata: Any) -> Slimmed:
    """Labels, and the annotations that mean something to us."""
    labels = texts(metadata, "labels")
    annotations = {
        key: value
        for key, value in texts(metadata, "annotations").items()
        if key in ANNOTATIONS or key.startswith(CURFEW)
    }
    kept: Slimmed = {}
    if labels:
        kept["labels"] = labels
    if annotations:
        kept["annotations"] = annotations
    return kept


# Pods and templates of pods.


def _accelerators(resources: Any) -> Slimmed:
    kept = {}
    for which in ("requests", "limits"):
        said = at(resources, which)
        if isinstance(said, dict):
            found = {name: value for name, value in said.items() if name in PORTIONS or vendor_of(name)}
            if found:
                kept[which] = found
    return kept


def _asks(spec: Any) -> bool:
    """Whether a pod of this spec may hold accelerators."""
    if not isinstance(spec, dict):
        return False
    if spec.get("resourceClaims"):
        return True
    for which in ("containers", "initContainers"):
        for container in items(spec, which):
            resources = container.get("resources")
            if not isinstance(resources, dict):
                continue
            for side in ("requests", "limits"):
                names = resources.get(side)
                # cpu and memory have no domain
                if isinstance(names, dict) and any("/" in name and vendor_of(name) for name in names):
                    return True
    return False


def _container(container: Json) -> Slimmed:
    kept: Slimmed = {}
    if isinstance(container.get("name"), str):
        kept["name"] = container["name"]
    if isinstance(container.get("restartPolicy"), str):
        kept["restartPolicy"] = container["restartPolicy"]
    if resources := _accelerators(container.get("resources")):
        kept["resources"] = resources
    mounts = [
        {"name": text(mount, "name"), "mountPath": text(mount, "mountPath")}
        for mount in items(container, "volumeMounts")
    ]
    if mounts:
        kept["volumeMounts"] = mounts
    return kept


def _pod_spec(spec: Json) -> Slimmed:
    kept: Slimmed = {}
    if isinstance(spec.get("nodeName"), str):
        kept["nodeName"] = spec["nodeName"]
    volumes = [volume for found in items(spec, "volumes") if (volume := _volume(found)) is not None]
    if volumes:
        kept["volumes"] = volumes
    names = {volume["name"] for volume in volumes}
    for which in ("initContainers", "containers"):
        containers = [_container(container) for container in items(spec, which)]
        for container in containers:
            mounts = [mount for mount in container.pop("volumeMounts", ()) if mount["name"] in names]
            if mounts:
                container["volumeMounts"] = mounts
        # one that neither asks for accelerators nor mounts what would be lost says nothing
        if containers := [container for container in containers if container.keys() & {"resources", "volumeMounts"}]:
            kept[which] = containers
    claims = [
        {key: claim[key] for key in ("name", "resourceClaimName", "resourceClaimTemplateName") if key in claim}
        for claim in items(spec, "resourceClaims")
    ]
    if claims:
        kept["resourceClaims"] = claims
    if selector := texts(spec, "nodeSelector"):
        kept["nodeSelector"] = selector
    if not kept.get("nodeName") and (terms := _terms(spec)):
        path = "requiredDuringSchedulingIgnoredDuringExecution"
        kept["affinity"] = {"nodeAffinity": {path: {"nodeSelectorTerms": terms}}}
    return kept


def _terms(spec: Json) -> list[Json]:
    path = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    return [{"matchExpressions": items(term, "matchExpressions")} for term in items(spec, *path)]


def _volume(volume: Json) -> Slimmed | None:
    """A volume that goes with its pod."""
    if not isinstance(volume.get("name"), str):
        return None
    if isinstance(volume.get("emptyDir"), dict):
        return {"name": volume["name"], "emptyDir": {"medium": text(volume, "emptyDir", "medium")}}
    if isinstance(volume.get("ephemeral"), dict):
        return {"name": volume["name"], "ephemeral": {}}
    return None


def _pod(pod: Json) -> Slimmed | None:
    spec, status = pod.get("spec"), pod.get("status")
    if not isinstance(spec, dict) or text(status, "phase") in FINISHED_PHASES:
        return None
    # a leader's name is the link between the pods of its group and their owner
    leads = text(pod, "metadata", "labels", "leaderworkerset.sigs.k8s.io/worker-index") == "0"
    if not leads and not _asks(spec):
        return None
    kept: Slimmed = {key: said for key in ("phase", "startTime") if (said := text(status, key))}
    claims = [
        {"name": claim.get("name"), "resourceClaimName": claim.get("resourceClaimName")}
        for claim in items(status, "resourceClaimStatuses")
    ]
    if claims:
        kept["resourceClaimStatuses"] = claims
    return {"metadata": _metadata(pod), "spec": _pod_spec(spec), "status": kept}


# Owners: whatever their shape, somewhere below their spec stand requests, limits or claims.


DEEPEST = 100
"""Templates of pods stand a few levels deep; whoever nests deeper means us, and is read so far."""


def _pruned(found: Any, level: int = 0) -> Any:
    """A spec without what tells nothing of accelerators; None where nothing is left."""
    if level > DEEPEST:
        return None
    if isinstance(found, dict):
        kept = _accelerators(found)
        if isinstance(found.get("containers"), list):
            kept |= _pod_spec(found)
        for key, value in found.items():
            if key in BULKY or key in kept or key in POD_SPEC:
                continue
            if key in SCALARS and isinstance(value, str | int):
                kept[key] = value
            elif key in ("metadata", "nodeSelector"):
                words = _words(value) if key == "metadata" else texts(value)
                if words:
                    kept[key] = words
            elif isinstance(value, dict | list) and (below := _pruned(value, level + 1)) is not None:
                kept[key] = below
        return kept or None
    if isinstance(found, list):
        kept_items = [_pruned(item, level + 1) for item in found if isinstance(item, dict)]
        return [item for item in kept_items if item is not None] or None
    return None


def asks_somewhere(found: Any, level: int = 0) -> bool:
    """Whether accelerators, or claims that may be some, are asked for anywhere below."""
    if level > DEEPEST:
        return False
    if isinstance(found, dict):
        for key, value in found.items():
            if key in ("requests", "limits") and isinstance(value, dict):
                if any("/" in name and vendor_of(name) for name in value):
                    return True
            elif key == "resourceClaims":
                if value:
                    return True
            elif key not in BULKY and isinstance(value, dict | list) and asks_somewhere(value, level + 1):
                return True
        return False
    return isinstance(found, list) and any(asks_somewhere(item, level + 1) for item in found)


def _owner(obj: Json, *, straight: bool) -> Slimmed | None:
    spec = obj.get("spec")
    asks = asks_somewhere(spec)
    if straight and not asks:
        # it may still be a link between pods that ask and who owns them all
        place = _place(obj)
        return {"metadata": place} if "ownerReferences" in place else None
    kept: Slimmed = {"metadata": _metadata(obj)}
    if (pruned := _pruned(spec)) is not None:
        kept["spec"] = pruned
    finished = [
        {"type": condition["type"], "status": "True"}
        for condition in items(obj, "status", "conditions")
        if text(condition, "type") in FINISHED_CONDITIONS and condition.get("status") == "True"
    ]
    status: Slimmed = {"conditions": finished} if finished else {}
    if deployment := text(obj, "status", "jobDeploymentStatus"):
        status["jobDeploymentStatus"] = deployment
    if status:
        kept["status"] = status
    return kept


# The rest.


def _node(node: Json) -> Slimmed | None:
    status = node.get("status")
    kept_status: Slimmed = {}
    for key in ("capacity", "allocatable"):
        said = at(status, key)
        if isinstance(said, dict):
            kept_status[key] = {name: value for name, value in said.items() if vendor_of(name)}
    conditions = [
        {key: condition.get(key) for key in ("type", "status", "reason", "message", "lastTransitionTime")}
        for condition in items(status, "conditions")
        if condition.get("type") == "Ready"
    ]
    if conditions:
        kept_status["conditions"] = conditions
    spec: Slimmed = {}
    if isinstance(at(node, "spec", "providerID"), str):
        spec["providerID"] = node["spec"]["providerID"]
    if at(node, "spec", "unschedulable") is True:
        spec["unschedulable"] = True
    return {"metadata": _metadata(node), "spec": spec, "status": kept_status}


def _namespace(namespace: Json) -> Slimmed:
    return {"metadata": _metadata(namespace)}


def _kueue_workload(workload: Json) -> Slimmed | None:
    kept = _place(workload)
    if "ownerReferences" not in kept:
        return None
    slimmed: Slimmed = {"metadata": kept}
    if isinstance(at(workload, "spec", "active"), bool):
        slimmed["spec"] = {"active": workload["spec"]["active"]}
    return slimmed


def _scaler(scaler: Json) -> Slimmed:
    target = at(scaler, "spec", "scaleTargetRef")
    wanted = ("apiVersion", "kind", "name")
    return {
        "metadata": _place(scaler),
        "spec": {"scaleTargetRef": {key: text(target, key) for key in wanted if text(target, key)}},
    }


def _claim(claim: Json) -> Slimmed | None:
    results = [
        {key: result.get(key) for key in ("driver", "pool", "device")}
        for result in items(claim, "status", "allocation", "devices", "results")
        if text(result, "driver") in DRIVERS and result.get("adminAccess") is not True
    ]
    if not results:
        return None
    return {"metadata": _place(claim), "status": {"allocation": {"devices": {"results": results}}}}


def _claim_template(template: Json) -> Slimmed | None:
    requests = [
        kept
        for request in items(template, "spec", "spec", "devices", "requests")
        if (kept := _claim_request(request)) is not None
    ]
    if not requests:
        return None
    return {"metadata": _place(template), "spec": {"spec": {"devices": {"requests": requests}}}}


def _claim_request(request: Json) -> Slimmed | None:
    """One request for accelerators; of several that would do, the first."""
    alternatives = items(request, "firstAvailable")
    inside = at(request, "exactly") or (alternatives[0] if alternatives else request)
    name = text(inside, "deviceClassName")
    if name not in DEVICE_CLASSES or at(inside, "adminAccess") is True:
        return None
    count = at(inside, "count")
    return {"exactly": {"deviceClassName": name, "count": count if isinstance(count, int) else 1}}


def _slice(found: Json) -> Slimmed | None:
    if text(found, "spec", "driver") not in DRIVERS:
        return None
    spec = {key: found["spec"][key] for key in ("driver", "nodeName") if isinstance(found["spec"].get(key), str)}
    spec["pool"] = {"name": text(found, "spec", "pool", "name")}
    spec["devices"] = [_device(device) for device in items(found, "spec", "devices")]
    return {"metadata": _place(found), "spec": spec}


def _device(device: Json) -> Slimmed:
    inside = at(device, "basic") or device
    attributes = {
        name: {"string": said}
        for name in ("type", "profile", "parentUUID", "productName")
        if (said := text(inside, "attributes", name, "string"))
    }
    kept: Slimmed = {"name": text(device, "name"), "attributes": attributes}
    if memory := at(inside, "capacity", "memory", "value"):
        kept["capacity"] = {"memory": {"value": memory}}
    return kept


SLIMMERS: dict[str, Callable[[Json], Slimmed | None]] = {
    "horizontalpodautoscalers.autoscaling": _scaler,
    "namespaces": _namespace,
    "nodes": _node,
    "pods": _pod,
    "resourceclaims.resource.k8s.io": _claim,
    "resourceclaimtemplates.resource.k8s.io": _claim_template,
    "resourceslices.resource.k8s.io": _slice,
    "scaledobjects.keda.sh": _scaler,
    "workloads.kueue.x-k8s.io": _kueue_workload,
}
"""The collections that are no owners, or more than that."""
