"""Guardrails: what is said once and for all is taken by a real API server, and says the same as the webhook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import yaml

from policies.policy import Mode
from service.admission.guardrails import Guardrails, guardrails
from service.admission.judge import Judge
from service.admission.snapshot import InForceAtAdmission
from service.admission.spot import Flavour, Wish
from tests.admission.builders import (
    NOW,
    SOURCE,
    SPEECH,
    VISION,
    exemption,
    held,
    pod,
    policy,
    request,
    snapshot,
    workload,
)
from tests.admission.builders import cluster as seen
from tests.admission.test_spot import WISHES
from tests.cli.conftest import Run, api, curfew, served
from tests.kubernetes.cluster import Cluster, Manifest
from tests.waiting import soon

__all__ = ["api", "curfew", "served"]


def made(*policies: InForceAtAdmission, **more: Any) -> Guardrails:
    return guardrails(snapshot(*policies, **more), SOURCE, NOW)


def kinds(found: Guardrails) -> list[tuple[str, str]]:
    return [(one["kind"], one["metadata"]["name"]) for one in found.manifests]


# --- what can be said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "actions"),
    [(Mode.OBSERVE, ["Audit"]), (Mode.WARN, ["Audit", "Warn"]), (Mode.ENFORCE, ["Deny"])],
)
def test_each_mode_has_its_actions(mode: Mode, actions: list[str]) -> None:
    found = made(policy("budget", mode=mode))

    assert kinds(found) == [
        ("ValidatingAdmissionPolicy", "curfew-the-budget"),
        ("ValidatingAdmissionPolicyBinding", "curfew-the-budget"),
    ]
    assert found.manifests[1]["spec"]["validationActions"] == actions
    assert found.manifests[0]["spec"]["failurePolicy"] == "Ignore"


LEFT_OUT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "hours": ({"type": "schedule"}, {}, "what it says depends on the hour, or on what runs just then"),
    "counts": ({"type": "quota"}, {}, "what it says depends on the hour, or on what runs just then"),
    "a share on demand": ({"type": "spot", "spot": {"allowed_on_demand": "10%"}}, {}, "a share of what runs"),
    "spot where there is none": ({"type": "spot"}, {"cluster": seen(flavours=())}, "no GPU node of this cluster"),
    "a condition": ({"type": "budget", "scope": {"where": "gpu_count > 1"}}, {}, "its scope has a condition"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_needs_the_webhook_is_left_out_and_said(what: str) -> None:
    body, more, words = LEFT_OUT[what]
    found = made(policy(**body), **more)

    assert found.manifests == ()
    assert any(words in note for note in found.notes)


SILENT: dict[str, tuple[InForceAtAdmission, dict[str, Any]]] = {
    "money that is there": (policy("budget", budgets={}), {}),
    "money that is there again": (
        policy("budget", budgets={"vision": {"spent": True, "until": NOW - timedelta(days=1), "words": ""}}),
        {},
    ),
    "everything held": (policy("budget"), {"holds": (held(),)}),
    "another cluster's": (policy("budget", scope={"sources": ["other"]}), {}),
}


@pytest.mark.parametrize("what", SILENT)
def test_there_is_nothing_to_guard(what: str) -> None:
    one, more = SILENT[what]
    assert made(one, **more).manifests == ()


def test_whoever_reads_it_knows_of_when_it_is() -> None:
    text = made(policy("budget"), policy("quota"), exemptions=[exemption()]).text()

    assert "# For the cluster training, as it stood at 2026-11-23T15:00:00+00:00. Print them anew often." in text
    assert "# The exemption demo-day is heeded; it ends at 2026-12-01T00:00:00+00:00." in text
    assert "# Policy the-quota is left out:" in text
    assert [one["kind"] for one in yaml.safe_load_all(text)] == [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ]


def test_the_command_says_what_is_missing(served: Any, curfew: Run) -> None:
    ran = curfew("guardrails", "kubernetes")

    assert (ran.code, ran.out) == (1, "")
    assert "a snapshot tells what the last cycle saw, and none has finished here yet" in ran.err


# --- on a real API server ---------------------------------------------------------------------------------------------


@contextmanager
def guarded(cluster: Cluster, found: Guardrails, label: str) -> Iterator[None]:
    """As `kubectl apply -f -` does it, but only for namespaces with the label `guarded: LABEL`."""
    manifests = list(yaml.safe_load_all(found.text()))
    for manifest in manifests:
        if manifest["kind"].endswith("Binding"):
            manifest["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = {"guarded": label}
    try:
        cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))
        for manifest in manifests:
            if manifest["kind"] == "ValidatingAdmissionPolicy":
                read_without_fault(cluster, manifest["metadata"]["name"])
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def read_without_fault(cluster: Cluster, name: str) -> None:
    """The controller manager checks the types of every expression."""

    def checked() -> Manifest | None:
        status = cluster.get("ValidatingAdmissionPolicy", name).get("status", {})
        return status if "typeChecking" in status or "observedGeneration" in status else None

    status = soon(checked, "the expressions are checked")
    assert not status.get("typeChecking", {}).get("expressionWarnings")


def said(cluster: Cluster, namespace: str, of: Manifest) -> str | None:
    """Why a pod is refused; None: it is not."""
    answer = cluster.http.post(cluster.path("Pod", namespace=namespace), json=of, params={"dryRun": "All"})
    if answer.status_code == 201:
        return None
    assert answer.status_code == 403, answer.text
    message: str = answer.json()["message"]
    return message


PODS: dict[str, Manifest] = {
    "nobody's": pod(),
    "vision's": pod(labels={"project": "vision"}),
    "vision's, with an owner": pod(labels={"project": "vision", "Owner": "ana"}),
    "vision's, with a blank for an owner": pod(labels={"project": "vision", "owner": ""}),
    "speech's": pod(labels={"project": "speech"}),
    "claimed by two": pod(labels={"project": "speech", "team": "vision"}),
    "vision's, exempt by a label": pod(labels={"project": "vision", "tier": "demo"}),
    "vision's, not exempt by a label": pod(labels={"project": "vision", "tier": "prod"}),
    "vision's, of an exempt Job": pod(labels={"project": "vision"}, owner="Job/exempt"),
    "vision's, without GPUs": pod(0, labels={"project": "vision"}),
    "vision's, of AMD": pod(resource="amd.com/gpu", labels={"project": "vision"}),
    "vision's, of a DaemonSet": pod(labels={"project": "vision"}, owner="DaemonSet/exporter"),
}
NAMESPACES: dict[str, dict[str, str]] = {"plain": {}, "of vision": {"team": "vision"}, "owned": {"owner": "mai"}}


def test_it_refuses_what_the_webhook_refuses_in_the_same_words(cluster: Cluster) -> None:
    there = {cluster.namespace(labels={"guarded": "alike", **labels}): labels for labels in NAMESPACES.values()}
    known = snapshot(
        policy("budget"),
        policy("ownership", ownership={"require": ["project"]}),
        policy("ownership", name="owners", ownership={"require": ["owner"]}),
        projects=[{**VISION, "match": [{"tags": {"project": "vision"}}, {"tags": {"team": "vision"}}]}, SPEECH],
        exemptions=[exemption(tags={"tier": "demo"}), exemption(name="job", resources=["x/Job/exempt"])],
        cluster=seen(namespaces=there, workloads={"x/Job/exempt": workload()}),
    )
    judge = Judge(known, SOURCE)

    with guarded(cluster, guardrails(known, SOURCE, NOW), "alike"):
        for namespace, labels in there.items():
            soon(lambda name=namespace: said(cluster, name, PODS["vision's"]), "it is guarded")  # type: ignore[misc]
            for case, of in PODS.items():
                expected = [one.sentence for one in judge.validate(request(of, namespace=namespace), NOW).said]
                if case == "vision's, of an exempt Job":
                    expected = []  # by its name alone: whose namespace it is in is not looked at
                message = said(cluster, namespace, of)
                assert (message is None) == (expected == []), (case, labels, message, expected)
                assert message is None or any(sentence in message for sentence in expected), (case, message)


def test_it_lets_in_what_asks_for_spot_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    cluster.patch("Namespace", namespace, {"metadata": {"labels": {"guarded": namespace}}})
    known = snapshot(policy("spot"), cluster=seen(flavours=(Flavour.KARPENTER,)))

    with guarded(cluster, guardrails(known, SOURCE, NOW), namespace):
        soon(lambda: said(cluster, namespace, pod()), "it is guarded")
        for what, (spec, asks) in WISHES.items():
            message = said(cluster, namespace, pod(**spec))
            assert (message is None) == (asks is Wish.SPOT and what != "spot, or nowhere"), (what, message)
            assert message is None or "GPU pods belong on spot nodes, and this one does not ask for them" in message


def test_a_warning_is_shown_and_what_observes_says_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.patch("Namespace", namespace, {"metadata": {"labels": {"guarded": namespace}}})
    mine = [{**VISION, "match": [{"namespaces": [namespace]}]}]
    known = snapshot(policy("budget", mode=Mode.WARN), policy("budget", name="quiet", mode=Mode.OBSERVE), projects=mine)

    with guarded(cluster, guardrails(known, SOURCE, NOW), namespace):

        def warned() -> str | None:
            path = cluster.path("Pod", namespace=namespace)
            answer = cluster.http.post(path, json=pod(), params={"dryRun": "All"})
            assert answer.status_code == 201
            warning: str | None = answer.headers.get("Warning")
            return warning

        warning = soon(warned, "it is guarded")
        assert "the money of project vision is spent" in warning
        assert "policy quiet" not in warning
