"""What the service says of the last cycle to admission: counted as the policies themselves count, and no more of people
than is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.decision import Verdict
from policies.policy import BasePolicy, Mode
from providers.records import CapacityType, Kind, State
from service.admission.judge import Judge
from service.admission.snapshot import InForceAtAdmission, Snapshot, made_of
from service.admission.spot import Flavour
from service.documents import POLICY, Exemption, Project, Source
from service.model import Known, Lent, Spent, Telemetry
from service.pipeline.budget import hourly_of, states
from service.pipeline.currency import Rates
from service.pipeline.evaluate import Look, judge
from service.pipeline.plan import InForce, Limits
from service.pipeline.rollout import begun
from tests.admission.builders import SOURCE, UID, VISION, pod, request
from tests.pipeline.builders import NOW, hours, known, record

M = 1_000_000
MONTHLY = {"name": "monthly", "period": "month", "amount": 20000}
PROJECT = Project.model_validate({**VISION, "notify": ["slack://T/O/KEN"], "spend_budgets": [MONTHLY]})
OTHER = Project.model_validate({"name": "speech", "match": [{"tags": {"project": "speech"}}]})


def node(name: str, **tags: str) -> Known:
    """One whose GPUs are all held by workloads."""
    seen = record(name, provider="kubernetes", account=UID, region="", kind=Kind.NODE, tags=tags)
    return known(record=seen, source=SOURCE, project=None, lent=Lent(share=Fraction(1), micros=0))


def workload(name: str, gpus: int = 8, **more: Any) -> Known:
    project = more.pop("project", "vision")
    age = more.pop("age", 24)
    given_: dict[str, Any] = {"gpu_count": gpus, "tags": {"project": project, "app": name, "owner": "ana"}, **more}
    place = {"provider": "kubernetes", "account": UID, "region": "", "kind": Kind.WORKLOAD}
    seen = record(f"vision/Deployment/{name}", **place, **given_)
    return known(record=seen, source=SOURCE, project=project, owner="ana", started_at=NOW - hours(age))


def snapshot(policies: Sequence[BasePolicy], resources: Sequence[Known] = (), **more: Any) -> Snapshot:
    """After a look at these."""
    projects = {PROJECT.name: PROJECT, OTHER.name: OTHER}
    resources = resources or [workload("server")]
    spent = {("vision", "monthly"): more.pop("spent", Spent())}
    budgets = states(projects, spent, hourly_of(resources), Rates(), NOW)
    look = Look(
        resources=resources,
        seen=frozenset(one.id for one in resources),
        telemetry=Telemetry(),
        cost_to_date={},
        at=NOW,
        projects=projects,
        budgets=budgets,
    )
    sources = {SOURCE: Source(name=SOURCE, provider="kubernetes", ceiling=more.pop("ceiling", Mode.ENFORCE))}
    given_: dict[str, Any] = {
        "at": NOW,
        "sources": sources,
        "identities": {SOURCE: UID},
        "namespaces": {SOURCE: {"vision": {}}},
        "projects": projects,
        "exemptions": (),
        "policies": {one.name: InForce(policy=one, version=1, stricter_since=None) for one in policies},
        "holds": (),
        "limits": Limits(
            ceiling=Mode.ENFORCE,
            source_ceilings={},
            breaker=1.0,
            links_usable=more.pop("links", True),
            verbs={},
            rollouts={one.name: replace(begun(one, NOW), share=more["share"]) for one in policies if "share" in more},
        ),
        "resources": resources,
        "judged": judge(look, policies),
        "budgets": budgets,
    }
    return made_of(**{**given_, **{key: value for key, value in more.items() if key != "share"}})


def written(type: str, **more: Any) -> BasePolicy:
    rules: dict[str, Any] = {
        "budget": {"budget": {"budget": "monthly"}},
        "schedule": {"schedule": {"on": "Mo-Fr 08:00-20:00"}},
        "quota": {"quota": {"max_gpus": 8, "per": "project"}},
    }
    body = {"name": type, "type": type, "mode": "enforce", **rules.get(type, {}), **more}
    found: BasePolicy = POLICY.validate_python(body)
    return found


def only(found: Snapshot) -> InForceAtAdmission:
    [policy] = found.policies
    return policy


def test_policies_of_what_is_not_known_of_a_new_pod_are_left_out() -> None:
    policies = [
        written("idle"),
        written("lifetime", lifetime={"max": "3h"}),
        written("quota", name="machines", scope={"kinds": ["instance"]}),
        written("quota", name="amazon", scope={"providers": ["aws"]}),
        written("spot"),
    ]

    assert [one.policy.name for one in snapshot(policies).policies] == ["spot"]


MODES: dict[str, tuple[dict[str, Any], dict[str, Any], Mode]] = {
    "as it says": ({}, {}, Mode.ENFORCE),
    "below its source's ceiling": ({}, {"ceiling": Mode.WARN}, Mode.WARN),
    "when nobody can answer": ({}, {"links": False}, Mode.WARN),
    "when it only notifies": ({"action": "notify"}, {}, Mode.WARN),
    "when a person must approve": ({"approval": "required"}, {}, Mode.WARN),
    "when its rollout has not come to all of its scope": ({"rollout": "99%"}, {"share": 0.99}, Mode.OBSERVE),
    "when it has": ({"rollout": "100%"}, {"share": 1.0}, Mode.ENFORCE),
    "when nobody knows how far it has come": ({"rollout": "100%"}, {}, Mode.OBSERVE),
    "when it observes": ({"mode": "observe", "approval": "required"}, {}, Mode.OBSERVE),
}


@pytest.mark.parametrize("when", MODES)
def test_how_far_a_policy_goes(when: str) -> None:
    body, more, mode = MODES[when]
    assert only(snapshot([written("quota", **body)], **more)).modes == {SOURCE: mode}


def test_nothing_secret_and_no_label_that_nobody_asks_for_leaves() -> None:
    told = snapshot(
        [written("quota", notify=["slack://T/O/KEN"])], namespaces={SOURCE: {"vision": {"project": "vision", "x": "y"}}}
    )

    assert "slack" not in told.model_dump_json()
    assert told.clusters[SOURCE].namespaces == {"vision": {"project": "vision"}}
    [(name, one)] = told.clusters[SOURCE].workloads.items()
    assert (name, one.tags) == ("vision/Deployment/server", {"project": "vision", "owner": "ana"})


def test_labels_that_an_exemption_or_a_condition_names_are_told() -> None:
    exempt = Exemption.model_validate(
        {"name": "e", "tags": {"tier": "demo"}, "until": "2026-12-01T00:00:00Z", "reason": "demo"}
    )
    policies = [written("quota", scope={"tags": {"team": "a"}, "where": "tags['app'] = 'server'"})]
    labels = {"tier": "demo", "team": "a", "app": "server", "pod-security.kubernetes.io/enforce": "restricted"}
    told = snapshot(policies, exemptions=[exempt], namespaces={SOURCE: {"vision": labels}})

    namespaces = told.clusters[SOURCE].namespaces
    assert namespaces is not None
    assert namespaces["vision"].keys() == {"tier", "team", "app"}


FLAVOURS = {
    "EKS": ({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, (Flavour.EKS,)),
    "EKS with Karpenter": (
        {"eks.amazonaws.com/capacityType": "SPOT", "karpenter.sh/nodepool": "gpu"},
        (Flavour.EKS, Flavour.KARPENTER),
    ),
    "GKE": ({"cloud.google.com/gke-nodepool": "l4"}, (Flavour.GKE,)),
    "AKS": ({"kubernetes.azure.com/agentpool": "gpu"}, (Flavour.AKS,)),
    "on premises": ({"kubernetes.io/os": "linux"}, ()),
}


@pytest.mark.parametrize("where", FLAVOURS)
def test_a_cluster_has_the_flavours_of_its_nodes(where: str) -> None:
    labels, flavours = FLAVOURS[where]
    assert snapshot([written("spot")], [node("gpu-1", **labels)]).clusters[SOURCE].flavours == flavours


def test_a_source_that_never_answered_has_no_cluster() -> None:
    assert snapshot([written("quota")], identities={}).clusters == {}


# --- counted as the rules count -------------------------------------------------------------------------------------

FLEET = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.sampled_from([CapacityType.ON_DEMAND, CapacityType.SPOT, CapacityType.UNKNOWN]),
        st.sampled_from([State.RUNNING, State.STOPPED, State.UNKNOWN]),
        st.sampled_from(["vision", "speech"]),
    ),
    max_size=6,
)
SHARES = st.sampled_from(["0%", "10%", "50%", "100%"])


def built(fleet: list[Any]) -> list[Known]:
    return [
        workload(f"w{number}", gpus, capacity_type=capacity, state=state, project=project)
        for number, (gpus, capacity, state, project) in enumerate(fleet)
    ]


def in_breach(policy: BasePolicy, resources: Sequence[Known], newest: Known) -> bool:
    """Whether the policy itself finds the newest one in breach once it runs."""
    everything = [*resources, newest]
    look = Look(
        resources=everything,
        seen=frozenset(one.id for one in everything),
        telemetry=Telemetry(),
        cost_to_date={},
        at=NOW,
        projects={PROJECT.name: PROJECT, OTHER.name: OTHER},
    )
    found = judge(look, [policy])
    return found.judgement.outcomes[policy.name].verdict(found.rows[newest.id]) is Verdict.BREACH


@settings(max_examples=20)
@given(fleet=FLEET, allowed=SHARES, asks=st.integers(1, 8))
def test_what_is_placed_on_spot_is_what_would_breach_on_demand(fleet: list[Any], allowed: str, asks: int) -> None:
    policy = written("spot", spot={"allowed_on_demand": allowed})
    resources = [*built(fleet), node("gpu-1", **{"eks.amazonaws.com/capacityType": "SPOT"})]

    placed = Judge(snapshot([policy], resources), SOURCE).mutate(request(pod(asks)), NOW).patch
    newest = workload("newest", asks, capacity_type=CapacityType.ON_DEMAND, age=0)
    assert bool(placed) == in_breach(policy, resources, newest)


@settings(max_examples=20)
@given(fleet=FLEET, most=st.integers(0, 20), asks=st.integers(1, 8), per=st.sampled_from([None, "project"]))
def test_what_a_quota_refuses_is_what_would_breach(fleet: list[Any], most: int, asks: int, per: str | None) -> None:
    policy = written("quota", quota={"max_gpus": most, **({"per": per} if per else {})})
    resources = built(fleet) or [workload("stopped", state=State.STOPPED)]

    answer = Judge(snapshot([policy], resources), SOURCE).validate(request(pod(asks)), NOW)
    newest = workload("newest", asks, age=0)
    assert (answer.refusal is not None) == in_breach(policy, resources, newest)


SPENT: dict[str, tuple[Spent, str, bool]] = {
    "nothing": (Spent(since=NOW - hours(24)), "100%", False),
    "all of it": (Spent(since=NOW - hours(24), own=20000 * M), "100%", True),
    "more than it, where more is allowed": (Spent(since=NOW - hours(24), own=21000 * M), "100%", True),
    "eight tenths, and it will not last": (Spent(since=NOW - hours(24), own=16000 * M), "80%", True),
    "eight tenths, but the policy speaks later": (Spent(since=NOW - hours(24), own=16000 * M), "90%", False),
}


@pytest.mark.parametrize("what", SPENT)
def test_money_is_spent(what: str) -> None:
    spent, at, expected = SPENT[what]
    told = only(snapshot([written("budget", budget={"budget": "monthly", "at": at})], spent=spent))

    assert told.budgets["vision"].spent is expected
    assert told.budgets["vision"].until == NOW.replace(month=11, day=30, hour=17)
    assert told.budgets["vision"].words


def test_money_that_lasts_is_not_spent_below_its_amount() -> None:
    stopped = [workload("server", state=State.STOPPED)]
    spent = Spent(since=NOW - timedelta(hours=24), own=16000 * M)
    told = only(snapshot([written("budget", budget={"budget": "monthly", "at": "80%"})], stopped, spent=spent))

    assert told.budgets["vision"].spent is False
