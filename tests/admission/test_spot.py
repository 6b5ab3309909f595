"""What a pod asks for itself, and what is added to it: nothing of what was written goes, and twice is once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.admission.spot import AFFINITY, LABELS, PLACED, SPOT_WORDS, Flavour, Wish, patch, wish
from tests.admission.builders import applied, pod
from tests.kubernetes.cluster import Cluster

EKS, KARPENTER, GKE, AKS = (LABELS[flavour].key for flavour in Flavour)


def terms(*found: Any) -> dict[str, Any]:
    """As required affinity: each is a list of expressions, or a whole term."""
    listed = [term if isinstance(term, dict) else {"matchExpressions": term} for term in found]
    return {"affinity": {AFFINITY[1]: {AFFINITY[2]: {"nodeSelectorTerms": listed}}}}


def says(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": [*values]} if values else {})}


WISHES: dict[str, tuple[dict[str, Any], Wish]] = {
    "nothing": ({}, Wish.OPEN),
    "spot of EKS": ({"nodeSelector": {EKS: "SPOT"}}, Wish.SPOT),
    "on demand of EKS": ({"nodeSelector": {EKS: "ON_DEMAND"}}, Wish.OTHERWISE),
    "spot of Karpenter": ({"nodeSelector": {KARPENTER: "spot"}}, Wish.SPOT),
    "reserved of Karpenter": ({"nodeSelector": {KARPENTER: "reserved"}}, Wish.OTHERWISE),
    "spot of GKE": ({"nodeSelector": {GKE: "true"}}, Wish.SPOT),
    "preemptible of GKE": ({"nodeSelector": {"cloud.google.com/gke-preemptible": "true"}}, Wish.SPOT),
    "provisioned as spot by GKE": ({"nodeSelector": {"cloud.google.com/gke-provisioning": "spot"}}, Wish.SPOT),
    "standard of GKE": ({"nodeSelector": {"cloud.google.com/gke-provisioning": "standard"}}, Wish.OTHERWISE),
    "spot of AKS": ({"nodeSelector": {AKS: "spot"}}, Wish.SPOT),
    "another label": ({"nodeSelector": {"lifecycle": "Ec2Spot"}}, Wish.OPEN),
    "spot, by affinity": (terms([says(KARPENTER, "In", "spot")]), Wish.SPOT),
    "either, by affinity": (terms([says(KARPENTER, "In", "spot", "on-demand")]), Wish.OPEN),
    "either, by two terms": (terms([says(EKS, "In", "SPOT")], [says(EKS, "In", "ON_DEMAND")]), Wish.OPEN),
    "on demand, by affinity": (terms([says(KARPENTER, "In", "on-demand")]), Wish.OTHERWISE),
    "no spot, by affinity": (terms([says(KARPENTER, "NotIn", "spot")]), Wish.OTHERWISE),
    "spot of GKE, as it exists": (terms([says(GKE, "Exists")]), Wish.SPOT),
    "none of GKE's spot": (terms([says(GKE, "DoesNotExist")]), Wish.OTHERWISE),
    "a zone": (terms([says("topology.kubernetes.io/zone", "In", "a")]), Wish.OPEN),
    "a zone on spot": (terms([says("topology.kubernetes.io/zone", "In", "a"), says(EKS, "In", "SPOT")]), Wish.SPOT),
    "what there is not": (terms([says(EKS, "In", "SPOT"), says(KARPENTER, "In", "on-demand")]), Wish.SPOT),
    "nowhere": (terms({}), Wish.OPEN),
    "spot, or nowhere": (terms([says(EKS, "In", "SPOT")], {}), Wish.SPOT),
    "rather on demand, if there is": (
        {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [says(EKS, "In", "ON_DEMAND")]}}]}}},
        Wish.OPEN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WISHES)
def test_a_pod_asks_for(what: str) -> None:
    spec, expected = WISHES[what]
    assert wish(pod(**spec)["spec"]) is expected


TOLERATED: dict[str, tuple[list[dict[str, Any]], int]] = {
    "nothing yet": ([], 1),
    "everything": ([{"operator": "Exists"}], 0),
    "this": ([{"key": GKE, "operator": "Equal", "value": "true", "effect": "NoSchedule"}], 0),
    "this, however": ([{"key": GKE, "operator": "Exists"}], 0),
    "this, but only to stay": ([{"key": GKE, "operator": "Exists", "effect": "NoExecute"}], 1),
    "another value": ([{"key": GKE, "value": "false"}], 1),
    "another taint": ([{"key": "nvidia.com/gpu", "operator": "Exists"}], 1),
}


@pytest.mark.parametrize("what", TOLERATED)
def test_a_taint_is_tolerated_once(what: str) -> None:
    before, added = TOLERATED[what]
    of = pod(tolerations=before) if before else pod()
    after = applied(of, patch(of, [Flavour.GKE], policy="p"))["spec"]["tolerations"] if added or before else []

    assert after[: len(before)] == before
    assert len(after) == len(before) + added


# --- properties -------------------------------------------------------------------------------------------------------

NAMES = [EKS, KARPENTER, GKE, AKS, "topology.kubernetes.io/zone"]
WORDS = ["SPOT", "ON_DEMAND", "spot", "on-demand", "true", "a"]
EXPRESSIONS = st.one_of(
    st.builds(
        lambda key, operator, values: says(key, operator, *values),
        st.sampled_from(NAMES),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=2, unique=True),
    ),
    st.builds(says, st.sampled_from(NAMES), st.sampled_from(["Exists", "DoesNotExist"])),
)
FIELDS = [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]
TERMS = st.builds(
    lambda expressions, fields: {
        **({"matchExpressions": expressions} if expressions else {}),
        **({"matchFields": FIELDS} if fields else {}),
    },
    st.lists(EXPRESSIONS, max_size=2),
    st.booleans(),
)
PREFERRED = {"preferredDuringSchedulingIgnoredDuringExecution": [
    {"weight": 1, "preference": {"matchExpressions": [says("zone", "In", "a")]}}]}  # fmt: skip
AFFINITIES = st.one_of(
    st.none(),
    st.just({"podAffinity": {}}),
    st.just({"nodeAffinity": PREFERRED}),
    st.builds(
        lambda found, more: {"nodeAffinity": {AFFINITY[2]: {"nodeSelectorTerms": found}, **more}},
        st.lists(TERMS, min_size=1, max_size=3),
        st.sampled_from([{}, PREFERRED]),
    ),
)
TOLERATIONS = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from([{"operator": "Exists"}, {"key": GKE, "operator": "Exists"}, {"key": "gpu", "value": "a"}]),
        max_size=2,
    ),
)
SELECTORS = st.one_of(
    st.none(), st.dictionaries(st.sampled_from([*NAMES, "disk/a~b"]), st.sampled_from(WORDS), max_size=2)
)


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    given_ = {"affinity": draw(AFFINITIES), "tolerations": draw(TOLERATIONS), "nodeSelector": draw(SELECTORS)}
    made = pod(**{key: value for key, value in given_.items() if value is not None})
    if draw(st.booleans()):
        made["metadata"]["annotations"] = {"a/b": "c"}
    return made


ON = st.lists(st.sampled_from(Flavour), min_size=1, max_size=3, unique=True)


@given(of=pods(), on=ON)
def test_nothing_that_was_written_goes(of: dict[str, Any], on: list[Flavour]) -> None:
    after = applied(of, patch(of, on, policy="p"))

    if wish(of["spec"]) is Wish.OPEN:
        kept(of["metadata"], after["metadata"])
        kept(
            {key: value for key, value in of["spec"].items() if key != "affinity"},
            {key: value for key, value in after["spec"].items() if key != "affinity"},
        )
        every_node_for_it_was_one_before(of, after)


def kept(before: Any, after: Any) -> None:
    if isinstance(before, dict):
        for key, value in before.items():
            kept(value, after[key])
    elif isinstance(before, list):
        assert after[: len(before)] == before
    else:
        assert after == before


def required(of: dict[str, Any]) -> list[dict[str, Any]] | None:
    found = of["spec"].get("affinity", {}).get("nodeAffinity", {}).get(AFFINITY[2])
    terms_: list[dict[str, Any]] | None = None if found is None else found["nodeSelectorTerms"]
    return terms_


NODES = [
    {"topology.kubernetes.io/zone": zone, "disk/a~b": "a", **bought}
    for zone in ("a", "b")
    for bought in (
        {EKS: "SPOT"},
        {EKS: "ON_DEMAND"},
        {KARPENTER: "spot"},
        {KARPENTER: "on-demand"},
        {GKE: "true"},
        {AKS: "spot"},
        {},
    )
]


def takes(node: dict[str, str], of: dict[str, Any]) -> bool:
    """As a scheduler would say it of a node's labels; fields are those of another node."""
    selector = of["spec"].get("nodeSelector") or {}
    wanted = required(of)
    return all(node.get(key) == value for key, value in selector.items()) and (
        wanted is None or any(matches(node, term) for term in wanted)
    )


def matches(node: dict[str, str], term: dict[str, Any]) -> bool:
    if not term or term.get("matchFields"):
        return False
    return all(fulfils(node, one) for one in term["matchExpressions"])


def fulfils(node: dict[str, str], expression: dict[str, Any]) -> bool:
    there, value = expression["key"] in node, node.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return there
    return not there


def is_spot(node: dict[str, str]) -> bool:
    return any(node.get(key) in words for key, words in SPOT_WORDS.items())


def every_node_for_it_was_one_before(before: dict[str, Any], after: dict[str, Any]) -> None:
    """What was required still is; and of the nodes that take it now, all are spot."""
    for node in NODES:
        if takes(node, after):
            assert takes(node, before)
            assert is_spot(node)


@given(of=pods(), on=ON)
def test_twice_is_once(of: dict[str, Any], on: list[Flavour]) -> None:
    """As when the API server asks again because another webhook changed the pod too."""
    once = applied(of, patch(of, on, policy="p"))

    if wish(of["spec"]) is Wish.OPEN and once != of:
        assert wish(once["spec"]) is Wish.SPOT or patch(once, on, policy="p") == []
        assert applied(once, patch(once, on, policy="p")) == once
        assert once["metadata"]["annotations"][PLACED] == "p"


@given(of=pods(), on=ON)
def test_every_spot_node_that_took_it_still_does(of: dict[str, Any], on: list[Flavour]) -> None:
    if wish(of["spec"]) is Wish.OPEN:
        after = applied(of, patch(of, on, policy="p"))
        ours = {LABELS[flavour].key for flavour in on}
        for node in NODES:
            if takes(node, of) and is_spot(node) and ours & node.keys():
                assert takes(node, after)


@settings(max_examples=25)
@given(data=st.data())
def test_an_api_server_takes_what_was_added(cluster: Cluster, data: st.DataObject) -> None:
    """Whatever pod it took before."""
    of, on = data.draw(pods()), data.draw(ON)
    after = applied(of, patch(of, on, policy="p"))
    answers = [
        cluster.http.post("/api/v1/namespaces/default/pods", json=one, params={"dryRun": "All"}) for one in (of, after)
    ]

    if answers[0].status_code == 201:
        assert answers[1].status_code == 201, answers[1].text
    else:
        assert answers[0].status_code == 422, answers[0].text
