"""Every policy type beyond idle and ownership, as tables: who breaches, who does not, of whom it cannot be told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from policies.decision import Verdict
from policies.evaluate import evaluate
from policies.facts import OWN, Facts
from policies.policy import Policy
from tests.policies.builders import busy_machine, facts_of, machine, silent_machine

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)


def judged(rows: list[dict[str, Any]], own: list[dict[str, Any]] | None = None, **policy: Any) -> list[str]:
    """The verdict of one policy over these rows, in words."""
    made = POLICY.validate_python({"name": "rule", **policy})
    facts = facts_of(rows, [made])
    columns = {column.name: [row.get(column.name) for row in own] for column in OWN} if own else {}
    facts = Facts(base=facts.base, activity=facts.activity, tags=facts.tags, own={"rule": columns})
    outcome = evaluate(facts, [made]).outcomes["rule"]
    assert outcome.fault is None
    return [outcome.verdict(row).value for row in range(len(rows))]


def aged(hours: float, **more: Any) -> dict[str, Any]:
    """A machine that has been running for so long."""
    return machine(**{"resource_id": f"r{hours}", "running_seconds": int(hours * 3600), "gpu_count": 8, **more})


def test_spot_meets_the_newest_on_demand_gpus_beyond_the_share() -> None:
    fleet = [
        aged(9, capacity_type="on_demand"),
        aged(8, capacity_type="on_demand"),
        aged(7, capacity_type="spot"),
        aged(6, capacity_type="on_demand"),
        aged(5, capacity_type="unknown"),
        aged(4, capacity_type="on_demand", state="stopped"),
    ]

    found = judged(fleet, type="spot", spot={"allowed_on_demand": "40%"})

    assert found == ["ok", "ok", "ok", "breach", "unknown", "ok"]


@pytest.mark.parametrize(
    "of_whom",
    [
        {"capacity_type": "unknown"},
        {"capacity_type": "on_demand", "state": None},
        {"capacity_type": "spot", "state": None},
    ],
)
def test_spot_finds_nothing_well_that_it_was_not_told(of_whom: dict[str, Any]) -> None:
    """However much the share would still allow."""
    fleet = [aged(9, **of_whom), aged(8, capacity_type="on_demand")]

    assert judged(fleet, type="spot", spot={"allowed_on_demand": "50%"})[0] == "unknown"


def test_spot_counts_only_its_own_scope() -> None:
    fleet = [aged(9, capacity_type="on_demand", project="a"), aged(8, capacity_type="spot", project="b")]

    found = judged(fleet, type="spot", spot={"allowed_on_demand": "50%"}, scope={"projects": ["a"]})

    assert found == ["breach", "out_of_scope"]


def test_quota_meets_the_newest_over_the_number_of_each_project() -> None:
    fleet = [
        aged(9, project="a"),
        aged(8, project="a"),
        aged(7, project="a"),
        aged(6, project="b"),
        aged(5, project=None),
        aged(4, project="a", state="stopped"),
    ]

    found = judged(fleet, type="quota", quota={"max_gpus": 16, "per": "project"})

    assert found == ["ok", "ok", "breach", "ok", "unknown", "ok"]


def test_quota_without_per_counts_the_whole_scope() -> None:
    fleet = [aged(9, region="us-east-1"), aged(8, region="eu-west-1"), aged(7, region="us-east-1")]

    found = judged(fleet, type="quota", quota={"max_gpus": 8}, scope={"where": "region LIKE 'us-%'"})

    assert found == ["ok", "out_of_scope", "breach"]


def test_the_order_of_rows_decides_nothing() -> None:
    fleet = [aged(hours, project="a") for hours in (3, 9, 5, 7, 1)]
    policy = {"type": "quota", "quota": {"max_gpus": 24, "per": "project"}}

    forwards = judged(fleet, **policy)

    assert judged(fleet[::-1], **policy) == forwards[::-1]
    assert forwards == ["breach", "ok", "ok", "ok", "breach"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        pytest.param({"off_now": True, "off_soon": True}, "breach", id="off now"),
        pytest.param({"off_now": False, "off_soon": True}, "foreseen", id="off within the grace"),
        pytest.param({"off_now": False, "off_soon": False}, "ok", id="within its hours"),
        pytest.param({"off_now": None, "off_soon": None}, "unknown", id="hours not known"),
    ],
)
def test_schedule(row: dict[str, Any], verdict: str) -> None:
    assert judged([machine()], [row], type="schedule", schedule={"on": "Mo-Fr 08:00-20:00"}) == [verdict]


def test_schedule_does_not_speak_of_what_is_stopped() -> None:
    own = [{"off_now": True, "off_soon": True}]

    assert judged([machine(state="stopped")], own, type="schedule", schedule={"on": "Mo-Fr 08:00-20:00"}) == ["ok"]


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [
        (72 * 3600, "breach"),
        (72 * 3600 - 1, "foreseen"),
        (71 * 3600, "foreseen"),
        (71 * 3600 - 1, "ok"),
        (None, "unknown"),
    ],
)
def test_lifetime_is_foreseen_one_grace_ahead(seconds: int | None, verdict: str) -> None:
    assert judged([machine(ran_seconds=seconds)], type="lifetime", lifetime={"max": "72h"}, grace="1h") == [verdict]


@pytest.mark.parametrize(
    ("region", "verdict"),
    [("eu-west-1", "ok"), ("europe-west4", "ok"), ("us-east-1", "breach"), ("EU-west-1", "breach")],
)
def test_residency(region: str, verdict: str) -> None:
    found = judged([machine(region=region)], type="residency", residency={"allowed_regions": ["eu-*", "europe-*"]})

    assert found == [verdict]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        pytest.param(machine(hourly_cost=60.0), "breach", id="it holds"),
        pytest.param(machine(hourly_cost=50.0), "ok", id="it does not hold"),
        pytest.param(machine(hourly_cost=None), "unknown", id="no price is known"),
        pytest.param(silent_machine(hourly_cost=60.0), "unknown", id="it is silent"),
    ],
)
def test_expression(row: dict[str, Any], verdict: str) -> None:
    when = "gpu_model = 'H100' AND idle_seconds > 1800 AND hourly_cost > 50"

    assert judged([row], type="expression", expression={"when": when}) == [verdict]


SPENT = {"budget_used": 1.02, "budget_used_soon": 1.03, "budget_excess": 12.0, "budget_words": "Spent."}


def test_budget_meets_the_idle_first_and_only_as_many_as_needed() -> None:
    fleet = [
        busy_machine(resource_id="a", hourly_cost=50.0),
        machine(resource_id="b", hourly_cost=5.0),
        machine(resource_id="c", hourly_cost=8.0),
        machine(resource_id="d", hourly_cost=2.0),
        silent_machine(resource_id="e", hourly_cost=9.0),
        machine(resource_id="f", hourly_cost=9.0, state="stopped"),
    ]

    found = judged(fleet, [SPENT] * 6, type="budget", budget={"budget": "monthly"})

    assert found == ["ok", "ok", "breach", "ok", "unknown", "ok"]


def test_budget_never_takes_silence_for_idleness_when_it_orders() -> None:
    fleet = [silent_machine(resource_id="a", hourly_cost=50.0), machine(resource_id="b", hourly_cost=13.0)]

    assert judged(fleet, [SPENT] * 2, type="budget", budget={"budget": "monthly"}) == ["unknown", "ok"]


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        pytest.param(
            {**SPENT, "budget_used": 0.99, "budget_used_soon": 1.0}, "foreseen", id="reached within the grace"
        ),
        pytest.param({**SPENT, "budget_used": 0.5, "budget_used_soon": 0.51}, "ok", id="far from it"),
        pytest.param({**SPENT, "budget_excess": 0.0}, "ok", id="the forecast fits"),
        pytest.param(dict.fromkeys(SPENT), "unknown", id="in another currency without a rate"),
    ],
)
def test_budget_speaks_when_its_share_is_reached(own: dict[str, Any], verdict: str) -> None:
    assert judged([machine(hourly_cost=5.0)], [own], type="budget", budget={"budget": "monthly"}) == [verdict]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"type": "schedule", "schedule": {"on": "Mo-Fr 8-20"}}, "no opening hours"),
        ({"type": "schedule", "schedule": {"on": "Mo-Fr 08:00-20:00", "holidays": "XX"}}, "no holidays are known"),
        ({"type": "lifetime", "lifetime": {"max": "0s"}}, "greater than"),
        ({"type": "residency", "residency": {"allowed_regions": []}}, "at least 1 item"),
        ({"type": "quota", "quota": {"max_gpus": -1}}, "greater than or equal"),
        ({"type": "spot", "spot": {"allowed_on_demand": 10}}, "write it with its sign"),
    ],
)
def test_what_cannot_be_meant_is_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        POLICY.validate_python({"name": "rule", **policy})


def test_verdicts_have_words() -> None:
    assert [verdict.value for verdict in Verdict] == ["breach", "foreseen", "ok", "unknown", "out_of_scope"]
