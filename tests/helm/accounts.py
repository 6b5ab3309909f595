"""Service accounts of a real cluster with the rights that the chart gives, as it renders them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.helm.chart import Manifest, rendered
from tests.kubernetes.cluster import Cluster
from tests.waiting import soon

OBSERVE = {"observe": True}
ENFORCE = {**OBSERVE, "enforce": True}
TERMINATE = {**ENFORCE, "terminate": True}

KINDS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
"""What a cluster gets that Curfew looks at from elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Account:
    namespace: str
    name: str
    kubeconfig: Path


def account(cluster: Cluster, kubernetes: dict[str, bool]) -> Account:
    """A new one, once the API server knows all its rights."""
    namespace = cluster.namespace()
    made: dict[str, list[Manifest]] = {kind: [] for kind in KINDS}
    for manifest in rendered({"kubernetes": kubernetes}, release=namespace, namespace=namespace):
        if manifest["kind"] in made:
            made[manifest["kind"]].append(cluster.create(manifest, namespace))
    [its_own] = made["ServiceAccount"]
    name = its_own["metadata"]["name"]
    rules = [rule for role in made["ClusterRole"] for rule in role["rules"] if "resources" in rule]
    with cluster.client(cluster.token(namespace, name)) as client:
        soon(lambda: granted(rules) <= granted(rights(client)), "the API server knows its rights")
    return Account(namespace=namespace, name=name, kubeconfig=cluster.service_account(namespace, name))


def rights(client: httpx.Client) -> list[Manifest]:
    """All that whoever asks may do anywhere, as the API server sees it."""
    asked: dict[str, Any] = {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1"}
    answer = client.post(
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", json={**asked, "spec": {"namespace": "default"}}
    )
    assert answer.status_code == 201, answer.text
    status = answer.json()["status"]
    assert not status["incomplete"]
    rules: list[Manifest] = status["resourceRules"]
    return rules


def granted(rules: list[Manifest]) -> set[tuple[str, str]]:
    """Verb and resource, as refusals name them: `patch`, `deployments.apps`."""
    return {
        (verb, f"{plural}.{group}" if group else plural)
        for rule in rules
        for group in rule.get("apiGroups", ())
        for plural in rule["resources"]
        for verb in rule["verbs"]
    }
