"""What the chart lets Curfew do in a cluster is what its provider asks for, kind by kind, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from providers.kubernetes.owners import ALL, COLLECTIONS, OWNERS, How
from providers.kubernetes.ways import beside
from providers.records import Verb
from tests.helm.accounts import ENFORCE, OBSERVE, TERMINATE, granted
from tests.helm.chart import CHART, NEWEST, OLDEST, VALUES, Manifest, helm, one, refusal, rendered, serving

READ = ("get", "list", "watch")
BUDGETS = "poddisruptionbudgets.policy"
LEADING_BACK = frozenset(How) - {How.NONE, How.EVICT}
"""Ways to stop something that are edits of it, or of what governs it."""


def roles(kubernetes: Mapping[str, bool], **values: Any) -> dict[str, Manifest]:
    manifests = rendered({"kubernetes": kubernetes, **values})
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == "ClusterRole"}


def granted_by(role: Manifest) -> set[tuple[str, str]]:
    return granted([rule for rule in role["rules"] if "resources" in rule])


def pairs(verbs: Iterable[str], words: Iterable[str]) -> set[tuple[str, str]]:
    words = tuple(words)
    return {(verb, word) for verb in verbs for word in words}


def edited() -> set[str]:
    """The collections in which the actuator edits objects."""
    ways = {one.word for one in ALL if one.how in LEADING_BACK}
    return ways | {word for one in ALL if one.owner for word in beside(one)}


def test_whoever_observes_reads_every_collection_and_nothing_else() -> None:
    [role] = roles(OBSERVE).values()

    assert granted_by(role) == pairs(READ, COLLECTIONS) | {("list", BUDGETS)}
    assert [rule for rule in role["rules"] if "nonResourceURLs" in rule] == [
        {"nonResourceURLs": ["/api/v1", "/apis", "/apis/*"], "verbs": ["get"]}
    ], "which kinds there are"


def test_whoever_enforces_edits_what_the_actuator_edits_and_nothing_else() -> None:
    role = roles(ENFORCE)["curfew-enforce"]

    assert granted_by(role) == pairs(["patch"], edited()) | {("create", "pods/eviction"), ("create", "events")}


def test_owners_are_deleted_only_where_that_is_allowed() -> None:
    without, allowed = (granted_by(roles(kubernetes)["curfew-enforce"]) for kubernetes in (ENFORCE, TERMINATE))

    assert all(Verb.TERMINATE in owner.verbs for owner in OWNERS.values())
    assert allowed - without == pairs(["delete"], (owner.word for owner in OWNERS.values()))
    assert without < allowed


@pytest.mark.parametrize("kubernetes", [OBSERVE, ENFORCE, TERMINATE])
def test_nothing_is_granted_that_could_do_harm_beyond_workloads(kubernetes: dict[str, bool]) -> None:
    for role in roles(kubernetes).values():
        of_nodes = {verb for verb, word in granted_by(role) if word.split("/")[0] == "nodes"}
        words = {word for _, word in granted_by(role)}
        assert of_nodes <= set(READ)
        assert not words & {"secrets", "configmaps", "pods/exec", "pods/attach", "pods/ephemeralcontainers", "pods/log"}
        assert "*" not in str([rule for rule in role["rules"] if "resources" in rule])
        assert not [rule for rule in role["rules"] if "resourceNames" in rule]


@pytest.mark.parametrize(
    ("kubernetes", "names"),
    [
        ({}, []),
        (OBSERVE, ["curfew-observe"]),
        (ENFORCE, ["curfew-enforce", "curfew-observe"]),
        (TERMINATE, ["curfew-enforce", "curfew-observe"]),
    ],
)
def test_each_role_is_bound_to_the_pods_own_account(kubernetes: dict[str, bool], names: list[str]) -> None:
    manifests = rendered({"kubernetes": kubernetes})
    bindings = [manifest for manifest in manifests if manifest["kind"] == "ClusterRoleBinding"]
    account = serving(manifests).spec["serviceAccountName"]

    assert account == one(manifests, "ServiceAccount")["metadata"]["name"]
    assert sorted(roles(kubernetes)) == names
    assert sorted(binding["roleRef"]["name"] for binding in bindings) == names
    for binding in bindings:
        assert binding["metadata"]["name"] == binding["roleRef"]["name"]
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "finops"}]


def test_no_right_without_being_asked() -> None:
    kinds = {manifest["kind"] for manifest in rendered({})}

    assert not {kind for kind in kinds if "Role" in kind}
    assert serving(rendered({})).spec["automountServiceAccountToken"] is False


def test_only_the_pod_that_serves_gets_the_token() -> None:
    postgres = VALUES["three replicas on PostgreSQL, behind an Ingress, scraped"]
    manifests = rendered({**postgres, "kubernetes": OBSERVE})

    assert serving(manifests).spec["automountServiceAccountToken"] is True
    assert one(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert one(manifests, "Job")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_network_lets_it_reach_the_api_server() -> None:
    def ports(**values: Any) -> set[int]:
        rules = one(rendered(values), "NetworkPolicy")["spec"]["egress"]
        return {port["port"] for rule in rules for port in rule["ports"]}

    assert ports(kubernetes=OBSERVE) - ports() == {6443}
    assert ports(kubernetes=OBSERVE, networkPolicy={"egressPorts": []}) == {53, 443, 6443}


def test_on_gke_it_may_ask_who_it_is_and_reach_nothing_else_there() -> None:
    """GKE's metadata server lends the pod its service account's tokens, at one of two addresses."""

    def rules(**values: Any) -> list[Any]:
        found: list[Any] = one(rendered(values), "NetworkPolicy")["spec"]["egress"]
        return found

    annotations = {"iam.gke.io/gcp-service-account": "curfew@research.iam.gserviceaccount.com"}
    on_gke = {"networkPolicy": {"gkeMetadata": True}, "serviceAccount": {"annotations": annotations}}
    added = [rule for rule in rules(**on_gke) if rule not in rules()]

    assert [(rule["to"], rule["ports"]) for rule in added] == [
        ([{"ipBlock": {"cidr": "169.254.169.252/32"}}], [{"port": 988, "protocol": "TCP"}]),
        ([{"ipBlock": {"cidr": "169.254.169.254/32"}}], [{"port": 80, "protocol": "TCP"}]),
    ]
    manifests = rendered(on_gke)
    assert one(manifests, "ServiceAccount")["metadata"]["annotations"] == annotations
    assert serving(manifests).spec["automountServiceAccountToken"] is False, "it needs no token of the cluster for that"


def test_two_releases_have_roles_of_their_own() -> None:
    def names(release: str) -> set[str]:
        manifests = rendered({"kubernetes": ENFORCE}, release=release)
        return {manifest["metadata"]["name"] for manifest in manifests if "Role" in manifest["kind"]}

    assert not names("research") & names("serving")


@pytest.mark.parametrize("kubernetes", [OBSERVE, ENFORCE, TERMINATE])
def test_helm_finds_no_fault(kubernetes: dict[str, bool]) -> None:
    done = helm("lint", "--strict", CHART, "--kube-version", NEWEST, values={"kubernetes": kubernetes})

    assert done.returncode == 0, done.stdout + done.stderr
    assert rendered({"kubernetes": kubernetes}, kubernetes=OLDEST) == rendered({"kubernetes": kubernetes})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "enforcing what is not seen": ({"kubernetes": {"enforce": True}}, "kubernetes.enforce: what Curfew does not see"),
    "deleting what may not be suspended": (
        {"kubernetes": {**OBSERVE, "terminate": True}},
        "kubernetes.terminate: whoever may not suspend a workload",
    ),
    "rights for every pod of the namespace": (
        {"kubernetes": OBSERVE, "serviceAccount": {"create": False}},
        "serviceAccount.name: every pod of the namespace",
    ),
    "a right that does not exist": ({"kubernetes": {"admin": True}}, "additional properties 'admin' not allowed"),
}


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(values: dict[str, Any], says: str) -> None:
    assert says in refusal(values)
