"""Snapshots and requests in a line each: a cluster on EKS, the project vision, a pod of one GPU in its namespace."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from policies.policy import Mode
from service.admission.judge import Judge
from service.admission.snapshot import Cluster, Held, InForceAtAdmission, Money, Snapshot, Workload
from service.admission.spot import Flavour
from service.documents import POLICY, Exemption, Project

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
"""A Monday; 22:00 in Ho Chi Minh City."""
SOURCE, UID = "training", "9f8e7d6c-0000-4000-8000-000000000001"
END_OF_MONTH = datetime(2026, 11, 30, 17, 0, tzinfo=UTC)

SPENT = Money(spent=True, until=END_OF_MONTH, words="20,100 of 20,000 USD are used.")

Json = dict[str, Any]

VISION = {
    "name": "vision",
    "owners": ["lead@example.org"],
    "timezone": "Asia/Ho_Chi_Minh",
    "match": [{"tags": {"project": "vision"}}, {"namespaces": ["vision"]}],
}
SPEECH = {"name": "speech", "match": [{"tags": {"project": "speech"}}, {"namespaces": ["speech"]}]}


def pod(
    gpus: int = 1, *, resource: str = "nvidia.com/gpu", labels: Mapping[str, str] | None = None, **spec: Any
) -> Json:
    """A pod as a person writes it. `owner` is a controller, as `Job/train`; `annotations` are its own."""
    owner = spec.pop("owner", None)
    annotations = spec.pop("annotations", None)
    container: Json = {"name": "main", "image": "trainer"}
    if gpus:
        container["resources"] = {"limits": {resource: str(gpus)}}
    metadata: Json = {"name": "train"}
    if labels:
        metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    if owner:
        kind, _, name = owner.partition("/")
        version = {"Job": "batch/v1"}.get(kind, "apps/v1")
        metadata = {k: v for k, v in metadata.items() if k != "name"} | {"generateName": f"{name}-"}
        metadata["ownerReferences"] = [
            {"apiVersion": version, "kind": kind, "name": name, "uid": "1", "controller": True}
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def request(of: Json | None = None, *, namespace: str = "vision", **more: Any) -> Json:
    """What an API server asks of it."""
    return {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "ana@example.org"},
        "object": copy.deepcopy(of if of is not None else pod()),
        "dryRun": False,
        **more,
    }


def policy(type: str, **more: Any) -> InForceAtAdmission:
    """One in `enforce` that is breached by the pod, unless told otherwise. What was counted may be given beside."""
    counted = {key: more.pop(key) for key in (*InForceAtAdmission.model_fields,) if key in more}
    counted.pop("policy", None)
    mode = more.pop("mode", Mode.ENFORCE)
    rules: dict[str, Any] = {
        "budget": {"budget": {"budget": "monthly"}},
        "schedule": {"schedule": {"on": "Mo-Fr 08:00-20:00"}},
        "quota": {"quota": {"max_gpus": 8, "per": "project"}},
        "ownership": {"ownership": {"require": ["project"]}},
        "spot": {"spot": {}},
    }
    states: dict[str, Json] = {
        "budget": {
            "budgets": {"vision": Money(spent=True, until=END_OF_MONTH, words="20,100 of 20,000 USD are used.")}
        },
        "quota": {"running": {"vision": 8.0, "": 8.0}},
        "spot": {"gpus": 8, "on_demand_gpus": 8},
    }
    body = {"name": f"the-{type}", "type": type, "mode": mode, **rules[type], **more}
    return InForceAtAdmission(
        policy=POLICY.validate_python(body),
        **{"modes": {SOURCE: mode}, **states.get(type, {}), **counted},
    )


def cluster(**more: Any) -> Cluster:
    given: Json = {
        "identity": UID,
        "flavours": (Flavour.EKS,),
        "namespaces": {"vision": {}, "speech": {}, "nobodys": {}},
        "workloads": {},
    }
    return Cluster(**{**given, **more})


def workload(**tags: str) -> Workload:
    return Workload(id="0123456789abcdef0123", tags=tags)


def snapshot(*policies: InForceAtAdmission, **more: Any) -> Snapshot:
    """`cluster` is the only one; `projects`, `exemptions` are their documents; `holds` are Held."""
    projects = more.pop("projects", [VISION, SPEECH])
    exemptions = more.pop("exemptions", [])
    given: Json = {
        "at": NOW,
        "clusters": {SOURCE: more.pop("cluster", cluster())},
        "holds": (),
        "projects": tuple(Project.model_validate(one) for one in projects),
        "exemptions": tuple(Exemption.model_validate(one) for one in exemptions),
        "policies": policies,
    }
    return Snapshot(**{**given, **more})


def exemption(**more: Any) -> Json:
    given: Json = {"name": "demo-day", "until": "2026-12-01T00:00:00Z", "reason": "demo day"}
    return {
        **given,
        **({"projects": ["vision"]} if not more.keys() & {"projects", "tags", "resources"} else {}),
        **more,
    }


def held(project: str | None = None, until: datetime | None = None) -> Held:
    return Held(project=project, until=until, reason="breaker")


def judge(*policies: InForceAtAdmission, **more: Any) -> Judge:
    return Judge(snapshot(*policies, **more), SOURCE)


def applied(of: Json, patch: Sequence[Json]) -> Json:
    """A JSONPatch of additions, as an API server applies it."""
    result = copy.deepcopy(of)
    for operation in patch:
        assert operation["op"] == "add"
        keys = [key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")[1:]]
        found: Any = result
        for key in keys[:-1]:
            found = found[key]
        value = copy.deepcopy(operation["value"])
        if isinstance(found, list):
            assert keys[-1] == "-"
            found.append(value)
        else:
            found[keys[-1]] = value
    return result
