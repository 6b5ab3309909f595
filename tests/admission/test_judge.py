"""What an API server is told of a new pod: a table over policies, modes and excuses; then what is not known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import Mode
from service.admission.judge import Answer, Judge, Outcome
from service.admission.snapshot import Money
from tests.admission.builders import (
    END_OF_MONTH,
    NOW,
    SOURCE,
    cluster,
    exemption,
    held,
    judge,
    pod,
    policy,
    request,
    snapshot,
    workload,
)

REFUSING = ("budget", "schedule", "quota", "ownership")
UNOWNED = {"namespace": "nobodys"}


def asked(found: Judge, of: Any = None, **more: Any) -> Answer:
    """Both questions, as an API server asks them: where it should run, then whether it is let in."""
    now = more.pop("now", NOW)
    review = request(of, **more)
    first, second = found.mutate(review, now), found.validate(review, now)
    assert first.refusal is None
    assert not second.patch
    return Answer(said=first.said + second.said, warnings=first.warnings + second.warnings, patch=first.patch)


def outcomes(answer: Answer) -> list[str]:
    return [one.outcome.value for one in answer.said]


def where(type: str) -> dict[str, Any]:
    return UNOWNED if type == "ownership" else {}


# --- the table -------------------------------------------------------------------------------------------------------

THEN = {
    ("spot", Mode.ENFORCE): "mutated",
    **{(type, Mode.ENFORCE): "refused" for type in REFUSING},
    **{(type, Mode.WARN): "warned" for type in (*REFUSING, "spot")},
    **{(type, Mode.OBSERVE): "observed" for type in (*REFUSING, "spot")},
}


@pytest.mark.parametrize(("type", "mode"), THEN, ids=[f"{type} in {mode}" for type, mode in THEN])
@pytest.mark.parametrize("dry_run", [False, True], ids=["for good", "dry run"])
def test_each_policy_in_each_mode(type: str, mode: Mode, dry_run: bool) -> None:
    answer = asked(judge(policy(type, mode=mode)), dryRun=dry_run, **where(type))

    assert outcomes(answer) == [THEN[type, mode]]
    assert (answer.refusal is not None) == (THEN[type, mode] == "refused")
    assert len(answer.warnings) == (mode is Mode.WARN)
    assert bool(answer.patch) == (THEN[type, mode] == "mutated")


JOBS = ["vision/Job/train", "nobodys/Job/train"]
LET_IN: dict[str, dict[str, Any]] = {
    "its project is exempt": {"exemptions": [exemption()]},
    "it is exempt by a label": {"exemptions": [exemption(tags={"tier": "demo"})], "labels": {"tier": "demo"}},
    "it is exempt by its name": {"exemptions": [exemption(resources=["train"])]},
    "its Job is exempt": {"exemptions": [exemption(resources=JOBS)], "owner": "Job/train"},
    "everything is held": {"holds": (held(),)},
    "its project is held": {"holds": (held("vision"),)},
    "everything is held for a while": {"holds": (held(until=NOW + timedelta(minutes=1)),)},
    "it asks for no GPU": {"gpus": 0},
    "it belongs to a DaemonSet": {"owner": "DaemonSet/exporter"},
    "its node brought it along": {"annotations": {"kubernetes.io/config.mirror": "1"}},
    "it is the cluster's own": {"namespace": "kube-system"},
}
"""Why a pod is let in that breaches, and how that is said."""


OF_A_PROJECT = ("its project is exempt", "its project is held")


@pytest.mark.parametrize(
    ("type", "reason"),
    [
        (type, reason)
        for type in (*REFUSING, "spot")
        for reason in LET_IN
        if type != "ownership" or reason not in OF_A_PROJECT
    ],
)
def test_let_in_without_a_word_because(type: str, reason: str) -> None:
    more = {**where(type), **LET_IN[reason]}
    of = pod(**{key: more.pop(key) for key in ("gpus", "owner", "annotations", "labels") if key in more})
    namespace = more.pop("namespace", "vision")

    answer = asked(judge(policy(type), **more), of, namespace=namespace)

    assert (answer.said, answer.warnings, answer.patch) == ((), (), ())


NOT_COVERED: dict[str, dict[str, Any]] = {
    "another project's exemption": {"exemptions": [exemption(projects=["speech"])]},
    "an exemption that has ended": {"exemptions": [exemption(until="2026-11-23T15:00:00Z")]},
    "an exemption from another policy": {"exemptions": [exemption(policies=["other"])]},
    "another project's hold": {"holds": (held("speech"),)},
    "a hold that has ended": {"holds": (held(until=NOW),)},
}


@pytest.mark.parametrize("reason", NOT_COVERED)
@pytest.mark.parametrize("type", ["budget", "schedule", "quota", "spot"])
def test_no_excuse(type: str, reason: str) -> None:
    assert outcomes(asked(judge(policy(type), **NOT_COVERED[reason]))) == [THEN[type, Mode.ENFORCE]]


def test_a_mode_is_that_of_its_source() -> None:
    assert outcomes(asked(judge(policy("budget", modes={SOURCE: Mode.OBSERVE})))) == ["observed"]
    assert outcomes(asked(judge(policy("budget", modes={"other": Mode.ENFORCE})))) == []


# --- what each says --------------------------------------------------------------------------------------------------


def test_spent_money_says_until_when_and_whom_to_ask() -> None:
    refusal = asked(judge(policy("budget"))).refusal

    assert refusal == (
        "Curfew, policy the-budget: the money of project vision is spent, so it gets no new GPU pods until "
        "Tuesday 1 December, 00:00 (Asia/Ho_Chi_Minh). 20,100 of 20,000 USD are used. "
        "Ask lead@example.org for more money or for an exemption."
    )


def test_money_is_there_again_with_the_next_period_even_before_a_new_snapshot() -> None:
    found = judge(policy("budget"))

    assert asked(found, now=END_OF_MONTH - timedelta(seconds=1)).refusal
    assert asked(found, now=END_OF_MONTH).refusal is None


def test_hours_end_and_begin_on_the_minute_on_the_projects_clocks() -> None:
    found = judge(policy("schedule"))
    opens = NOW.replace(hour=1) + timedelta(days=1)  # 08:00 in Ho Chi Minh City

    refusal = asked(found, now=opens - timedelta(seconds=1)).refusal
    assert refusal == (
        "Curfew, policy the-schedule: GPU pods of project vision run Mo-Fr 08:00-20:00 (Asia/Ho_Chi_Minh), and it is "
        "outside these hours. They begin Tuesday 24 November, 08:00 (Asia/Ho_Chi_Minh). "
        "If it cannot wait, ask lead@example.org for an exemption."
    )
    assert asked(found, now=opens).refusal is None
    assert asked(found, now=opens + timedelta(hours=12)).refusal


@pytest.mark.parametrize(
    ("running", "gpus", "refused"), [(8, 1, True), (7, 1, False), (7, 2, True), (0, 8, False), (0, 9, True)]
)
def test_a_quota_counts_what_runs_and_what_is_asked_for(running: float, gpus: int, refused: bool) -> None:
    found = judge(policy("quota", running={"vision": running}))

    assert (asked(found, pod(gpus)).refusal is not None) == refused


QUOTAS = {
    "whole scope": ({"max_gpus": 8}, {"": 8.0}, pod(), True),
    "another project's": ({"max_gpus": 8, "per": "project"}, {"speech": 8.0}, pod(), False),
    "the owner's": ({"max_gpus": 8, "per": "owner"}, {"ana": 8.0}, pod(labels={"owner": "ana"}), True),
    "nobody's owner": ({"max_gpus": 8, "per": "owner"}, {"ana": 8.0}, pod(), False),
    "the model it asks for": (
        {"max_gpus": 8, "per": "gpu_model"},
        {"H100": 8.0},
        pod(nodeSelector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}),
        True,
    ),
    "a model that is not known yet": ({"max_gpus": 0, "per": "gpu_model"}, {"H100": 8.0}, pod(), False),
}


@pytest.mark.parametrize("whose", QUOTAS)
def test_a_quota_of(whose: str) -> None:
    rule, running, of, refused = QUOTAS[whose]
    assert (asked(judge(policy("quota", quota=rule, running=running)), of).refusal is not None) == refused


def test_a_pod_of_nobody_is_told_which_label_it_lacks() -> None:
    rule = {"require": ["project", "owner"]}
    refusal = asked(judge(policy("ownership", ownership=rule)), **UNOWNED).refusal

    assert refusal == (
        "Curfew, policy the-ownership: this pod asks for GPUs and has no project and no owner. In its template, label "
        "it, or its namespace, with the project that pays for it (project) and label it with whom to ask about it "
        "(owner); whoever cannot asks your platform engineers for an exemption."
    )


OWNED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "by its own label": ({"labels": {"project": "vision"}}, {}),
    "by a label of its namespace": ({}, {"namespaces": {"nobodys": {"project": "vision"}}}),
    "by what is known of its Deployment": (
        {"owner": "ReplicaSet/server-7d9f", "labels": {"pod-template-hash": "7d9f"}},
        {"workloads": {"nobodys/Deployment/server": workload(project="vision")}},
    ),
    "by what is known of its CronJob": (
        {"owner": "Job/nightly-29394"},
        {"workloads": {"nobodys/CronJob/nightly": workload(project="vision")}},
    ),
}


@pytest.mark.parametrize("how", OWNED)
def test_a_pod_has_a_project(how: str) -> None:
    of, there = OWNED[how]
    found = judge(policy("ownership"), cluster=cluster(**{"namespaces": {"nobodys": {}}, **there}))

    assert asked(found, pod(**of), **UNOWNED).refusal is None


def test_several_policies_all_say_why() -> None:
    refusal = asked(judge(policy("budget"), policy("quota"))).refusal

    assert refusal is not None
    assert refusal.index("policy the-budget") < refusal.index("policy the-quota")


@pytest.mark.parametrize(
    ("scope", "speaks"),
    [
        ({"projects": ["vision"]}, True),
        ({"projects": ["speech"]}, False),
        ({"sources": [SOURCE]}, True),
        ({"sources": ["other"]}, False),
        ({"accounts": ["123456789012"]}, False),
        ({"regions": ["eu-*"]}, False),
        ({"skus": ["nvidia.com/*"]}, True),
        ({"skus": ["p5.*"]}, False),
        ({"tags": {"team": "a"}}, True),
        ({"tags": {"team": "b"}}, False),
        ({"where": "gpu_count >= 1 AND owner = 'ana'"}, True),
        ({"where": "gpu_count >= 2"}, False),
        ({"where": "tags['team'] = 'a'"}, True),
        ({"where": "tags['other'] IS NULL"}, True),
        ({"where": "region IS NULL AND provider = 'kubernetes'"}, True),
        ({"where": "hourly_cost < 50 OR gpu_count >= 1"}, False),  # what it costs is not known: maybe nothing is
        ({"where": "zone IS NULL"}, False),
        ({"where": "activity = 'idle'"}, False),
        ({"where": "state = 'running'"}, False),
    ],
)
def test_a_scope_speaks_of_what_is_known_to_be_in_it(scope: dict[str, Any], speaks: bool) -> None:
    of = pod(labels={"team": "a", "owner": "ana"})
    assert (asked(judge(policy("schedule", scope=scope)), of).refusal is not None) == speaks


# --- spot ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "gpus", "on_demand", "asks", "mutated"),
    [
        ("0%", 0, 0, 1, True),
        ("100%", 0, 0, 8, False),
        ("50%", 8, 4, 1, True),
        ("50%", 8, 4, 8, True),
        ("50%", 16, 4, 4, False),
        ("10%", 9, 0, 1, False),
        ("10%", 8, 0, 1, True),
    ],
)
def test_only_what_goes_beyond_the_allowed_share_is_placed(
    allowed: str, gpus: float, on_demand: float, asks: int, mutated: bool
) -> None:
    one = policy("spot", spot={"allowed_on_demand": allowed}, gpus=gpus, on_demand_gpus=on_demand)
    assert bool(asked(judge(one), pod(asks)).patch) == mutated


@pytest.mark.parametrize("mode", [Mode.WARN, Mode.ENFORCE])
def test_a_pod_that_asks_for_on_demand_keeps_it_and_is_told(mode: Mode) -> None:
    of = pod(nodeSelector={"eks.amazonaws.com/capacityType": "ON_DEMAND"})
    answer = asked(judge(policy("spot", mode=mode)), of)

    assert not answer.patch
    assert outcomes(answer) == ["warned"]
    assert "asks for other nodes by itself" in answer.warnings[0]


def test_where_no_node_tells_how_it_was_bought_nothing_is_placed() -> None:
    answer = asked(judge(policy("spot"), cluster=cluster(flavours=())))

    assert not answer.patch
    assert "no GPU node of this cluster tells" in answer.warnings[0]


def test_a_pod_that_is_on_a_node_already_stays_there() -> None:
    assert not asked(judge(policy("spot")), pod(nodeName="gpu-1")).patch


# --- not known -------------------------------------------------------------------------------------------------------

NOT_KNOWN: dict[str, dict[str, Any]] = {
    "nobody tells of namespaces": {"namespaces": None},
    "its namespace is new": {"namespaces": {"other": {}}},
}


@pytest.mark.parametrize("what", NOT_KNOWN)
@pytest.mark.parametrize("type", ["ownership", "schedule"])
def test_a_label_that_may_be_there_keeps_every_policy_of_projects_silent(type: str, what: str) -> None:
    found = judge(policy(type), cluster=cluster(**NOT_KNOWN[what]))

    assert asked(found, namespace="nobodys") == Answer()


@pytest.mark.parametrize("what", NOT_KNOWN)
def test_a_label_of_the_pod_itself_counts_though_its_namespace_is_not_known(what: str) -> None:
    """The other projects are known by their own namespaces and by the very label that it has."""
    found = judge(policy("budget"), cluster=cluster(**NOT_KNOWN[what]))

    assert asked(found, pod(labels={"project": "vision"}), namespace="nobodys").refusal


@pytest.mark.parametrize("type", [*REFUSING, "spot"])
def test_what_two_projects_claim_is_let_in_and_told(type: str) -> None:
    answer = asked(judge(policy(type)), pod(labels={"project": "speech"}))

    assert (answer.said, answer.patch) == ((), ())
    assert answer.warnings == (
        ()
        if type == "spot"
        else (
            "Curfew: more than one project claims this pod, so it counts for none of them. "
            "It is let in; label it so that it is one project's.",
        )
    )


def test_money_that_is_not_known_is_not_spent() -> None:
    unknown = {"vision": Money(spent=False, until=END_OF_MONTH, words="there is no rate")}

    assert asked(judge(policy("budget", budgets=unknown))) == Answer()
    assert asked(judge(policy("budget", budgets={}))) == Answer()


def test_an_exemption_that_may_cover_it_does() -> None:
    found = judge(
        policy("quota", quota={"max_gpus": 0}),
        exemptions=[exemption(tags={"tier": "demo"})],
        cluster=cluster(namespaces=None),
    )

    assert asked(found) == Answer()
    assert asked(found, pod(labels={"tier": "prod"})).refusal


KEYS, VALUES = ["project", "owner", "team"], ["vision", "speech", "ana", "a"]
LABELS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
POLICIES = st.lists(
    st.sampled_from(
        [
            policy("budget"),
            policy("schedule", scope={"projects": ["vision"]}),
            policy("schedule", name="teams", scope={"where": "tags['team'] IS NULL"}),
            policy("quota", quota={"max_gpus": 0}, scope={"tags": {"team": "a"}}),
            policy("quota", name="owners", quota={"max_gpus": 8, "per": "owner"}, running={"ana": 8.0}),
            policy("ownership", ownership={"require": ["project", "owner"]}),
        ]
    ),
    max_size=4,
    unique_by=lambda one: one.policy.name,
)
EXEMPT = st.sampled_from([[], [exemption(projects=["speech"])], [exemption(tags={"team": "a"})]])


@given(of=LABELS, of_namespace=LABELS, policies=POLICIES, exempt=EXEMPT, name=st.sampled_from(["vision", "nobodys"]))
def test_what_is_not_known_never_refuses(
    of: dict[str, str], of_namespace: dict[str, str], policies: list[Any], exempt: list[Any], name: str
) -> None:
    """Whoever is refused without the labels of the namespace is refused by the same policies whatever they are."""
    found = {
        key: asked(
            judge(*policies, exemptions=exempt, cluster=cluster(namespaces=namespaces)),
            pod(labels=of),
            namespace=name,
        )
        for key, namespaces in {"unknown": None, "known": {name: of_namespace}}.items()
    }

    refused = {
        key: {one.policy for one in answer.said if one.outcome is Outcome.REFUSED} for key, answer in found.items()
    }
    assert refused["unknown"] <= refused["known"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "spec", "containers", "resources", "limits", "nvidia.com/gpu", "labels", "nodeSelector"]
            ),
            inside,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(of=ANYTHING)
def test_whatever_is_sent_is_answered(of: Any) -> None:
    found = judge(policy("spot"), policy("ownership"))

    asked(found, None, object=of)


def test_what_is_no_new_pod_is_nobodys_business() -> None:
    found = judge(policy("spot"), policy("budget"))
    for more in (
        {"operation": "UPDATE"},
        {"subResource": "eviction"},
        {"resource": {"group": "", "version": "v1", "resource": "services"}},
    ):
        assert asked(found, None, **more) == Answer()


def test_a_snapshot_is_the_same_after_its_journey() -> None:
    made = snapshot(*(policy(type) for type in (*REFUSING, "spot")), exemptions=[exemption()], holds=(held("vision"),))

    assert type(made).model_validate_json(made.model_dump_json(by_alias=True)) == made
