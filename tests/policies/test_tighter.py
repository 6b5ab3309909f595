"""A tighter policy never acts on less than a looser one: for the types of which that can be said, on random fleets.

Of idle policies it is said in `tests/pipeline/test_tighter.py`. Where it cannot be said, docs/policies.md says so, and
the counterexamples are below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.evaluate import Outcome, evaluate
from policies.facts import OWN
from policies.policy import Policy
from policies.quantities import format_duration
from tests.policies.builders import facts_of, machine

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)

Row = dict[str, Any]


def some(*values: Any) -> st.SearchStrategy[Any]:
    """One of these, or not known."""
    return st.sampled_from([None, *values])


FLEETS = st.lists(
    st.fixed_dictionaries(
        {
            "state": some("running", "running", "running", "stopped", "terminated", "unknown"),
            "region": some("us-east-1", "eu-west-1", "europe-west4"),
            "project": some("vision", "speech"),
            "owner": some("ana", "bob"),
            "gpu_model": some("H100", "L4"),
            "gpu_count": some(1, 4, 8),
            "capacity_type": some("on_demand", "on_demand", "spot", "reserved", "unknown"),
            "age_seconds": some(0, 1800, 3600, 86400),
            "running_seconds": some(0, 60, 3600, 7200, 86400),
            "ran_seconds": some(0, 3600, 3 * 3600, 72 * 3600),
            "hourly_cost": some(0.0, 1.5, 5.0, 55.04),
            "activity": some("busy", "idle"),
            "idle_seconds": some(0, 1800, 3600),
        }
    ),
    max_size=12,
).map(lambda rows: [machine(**{**row, "resource_id": f"r{index}"}) for index, row in enumerate(rows)])

hours = st.integers(0, 80).map(lambda count: f"{count + 1}h")
shares = st.integers(0, 100)
two_numbers = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)


def both(fleet: list[Row], tight: Mapping[str, Any], loose: Mapping[str, Any]) -> tuple[Outcome, Outcome]:
    """What the tighter and the looser policy say of the same fleet."""
    policies = [POLICY.validate_python({"name": name, **body}) for name, body in (("tight", tight), ("loose", loose))]
    facts = facts_of(fleet, policies)
    own = {"budget_used": 0.95, "budget_used_soon": 0.99, "budget_excess": 20.0, "budget_words": "Nearly spent."}
    columns = {column.name: [own.get(column.name)] * len(fleet) for column in OWN}
    judgement = evaluate(replace(facts, own={"tight": columns, "loose": columns}), policies)
    assert judgement.faults == {}
    return judgement.outcomes["tight"], judgement.outcomes["loose"]


def warned_or_acted_on(outcome: Outcome) -> set[int]:
    return {*outcome.breaches, *outcome.foreseen}


def assert_no_less(fleet: list[Row], tight: Mapping[str, Any], loose: Mapping[str, Any]) -> None:
    more, less = both(fleet, tight, loose)
    assert set(less.breaches) <= set(more.breaches)
    assert warned_or_acted_on(less) <= warned_or_acted_on(more)


@given(FLEETS, st.tuples(st.integers(1, 100), st.integers(1, 100)).map(sorted), hours)
def test_a_shorter_lifetime(fleet: list[Row], most: list[int], grace: str) -> None:
    short, long = ({"type": "lifetime", "grace": grace, "lifetime": {"max": f"{count}h"}} for count in most)
    assert_no_less(fleet, short, long)


@given(FLEETS, st.tuples(st.integers(0, 90), st.integers(0, 90)).map(sorted))
def test_a_longer_grace_foresees_no_less_and_changes_no_breach(fleet: list[Row], graces: list[int]) -> None:
    short, long = ({"type": "lifetime", "grace": f"{count}h", "lifetime": {"max": "72h"}} for count in graces)
    more, less = both(fleet, long, short)
    assert more.breaches == less.breaches
    assert warned_or_acted_on(less) <= warned_or_acted_on(more)


REGIONS = st.lists(st.sampled_from(["us-*", "eu-*", "europe-*", "us-east-1", "*-west*"]), min_size=1, unique=True)


@given(FLEETS, REGIONS, REGIONS)
def test_fewer_allowed_regions(fleet: list[Row], some_regions: list[str], others: list[str]) -> None:
    few = {"type": "residency", "residency": {"allowed_regions": some_regions}}
    many = {"type": "residency", "residency": {"allowed_regions": [*some_regions, *others]}}
    assert_no_less(fleet, few, many)


@given(
    FLEETS, st.tuples(st.integers(0, 90000), st.integers(0, 90000)).map(sorted), st.sampled_from(["project", "owner"])
)
def test_less_time_to_name_somebody_and_more_to_name(fleet: list[Row], within: list[int], one: str) -> None:
    soon, late = (format_duration(timedelta(seconds=seconds)) for seconds in within)
    strict = {"type": "ownership", "ownership": {"require": ["project", "owner"], "within": soon}}
    lax = {"type": "ownership", "ownership": {"require": [one], "within": late}}
    assert_no_less(fleet, strict, lax)


@given(
    FLEETS, st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), st.sampled_from(["", " AND gpu_count >= 4"])
)
def test_a_lower_threshold_and_fewer_conditions_in_an_expression(
    fleet: list[Row], costs: list[int], further: str
) -> None:
    low = {"type": "expression", "expression": {"when": f"hourly_cost > {costs[0]}"}}
    high = {"type": "expression", "expression": {"when": f"hourly_cost > {costs[1]}{further}"}}
    assert_no_less(fleet, low, high)


@given(FLEETS, two_numbers, st.sampled_from([None, "project", "owner", "gpu_model"]))
def test_a_smaller_quota(fleet: list[Row], most: list[int], per: str | None) -> None:
    small, large = ({"type": "quota", "quota": {"max_gpus": count, "per": per}} for count in most)
    assert_no_less(fleet, small, large)


@given(FLEETS, st.tuples(shares, shares).map(sorted))
def test_a_smaller_share_on_demand(fleet: list[Row], allowed: list[int]) -> None:
    small, large = ({"type": "spot", "spot": {"allowed_on_demand": f"{share}%"}} for share in allowed)
    assert_no_less(fleet, small, large)


@given(FLEETS, st.tuples(shares, shares).map(sorted), st.sampled_from(["idle_first", "newest_first"]))
def test_a_budget_that_speaks_earlier(fleet: list[Row], at: list[int], order: str) -> None:
    """Of the same spend budget, in the same order, when as much has to go."""
    early, late = ({"type": "budget", "budget": {"budget": "m", "at": f"{share}%", "order": order}} for share in at)
    assert_no_less(fleet, early, late)


NOT_COUNTING: dict[str, dict[str, Any]] = {
    "lifetime": {"lifetime": {"max": "2h"}},
    "residency": {"residency": {"allowed_regions": ["eu-*"]}},
    "ownership": {"ownership": {"within": "1h"}},
    "expression": {"expression": {"when": "hourly_cost > 1"}},
    "quota": {"quota": {"max_gpus": 8}},
}


@given(FLEETS, st.sampled_from(sorted(NOT_COUNTING)), st.sampled_from(["gpu_count >= 4", "hourly_cost > 2"]))
def test_a_wider_scope(fleet: list[Row], type: str, where: str) -> None:
    wide = {"type": type, **NOT_COUNTING[type]}
    assert_no_less(fleet, wide, {**wide, "scope": {"projects": ["vision"], "where": where}})


# --- what falls silent ---

RANKED: list[dict[str, Any]] = [
    {"type": "idle", "idle": {"for": "30m"}},
    *({"type": "budget", "budget": {"budget": "m", "at": "90%", "order": order}}
      for order in ("idle_first", "newest_first", "most_expensive_first")),
    {"type": "expression", "expression": {"when": "activity = 'idle' and hourly_cost > 1"}},
    {"type": "quota", "quota": {"max_gpus": 8}},
    {"type": "spot", "spot": {"allowed_on_demand": "50%"}},
]  # fmt: skip


RUNNING = st.lists(
    st.builds(
        machine,
        hourly_cost=st.sampled_from([1.5, 5.0, 15.0, 55.04]),
        activity=some("busy", "idle", "idle"),
        running_seconds=st.sampled_from([60, 3600, 86400]),
        capacity_type=st.sampled_from(["on_demand", "on_demand", "spot"]),
    ),
    min_size=2,
    max_size=6,
).map(lambda rows: [{**row, "resource_id": f"r{index}"} for index, row in enumerate(rows)])
"""Everybody competes for the same money and the same share."""


@settings(max_examples=150)
@given(st.one_of(RUNNING, FLEETS), st.sampled_from(RANKED), st.sets(st.integers(0, 5), min_size=1))
def test_whatever_falls_silent_nobody_moves_up(fleet: list[Row], body: dict[str, Any], silent: set[int]) -> None:
    """Charter 1, also for those who are met in an order: the silence of one is not the turn of the next."""
    unheard = {"activity": None, "idle_seconds": None, "gpu_utilization": None}
    after = [{**row, **unheard} if index in silent else row for index, row in enumerate(fleet)]

    before, later = both(fleet, body, body)[0], both(after, body, body)[0]
    assert set(later.breaches) <= set(before.breaches) - silent_of(body, silent)


def silent_of(body: Mapping[str, Any], silent: set[int]) -> set[int]:
    """Whom their own silence spares."""
    asks = body["type"] in ("idle", "expression") or body.get("budget", {}).get("order") == "idle_first"
    return silent if asks else set()


@settings(max_examples=150)
@given(st.one_of(RUNNING, FLEETS), st.sampled_from(RANKED), st.sets(st.integers(0, 5), min_size=1))
def test_whoever_goes_out_of_sight_nobody_moves_up(fleet: list[Row], body: dict[str, Any], unseen: set[int]) -> None:
    after = [{**row, "state": "unknown"} if index in unseen else row for index, row in enumerate(fleet)]

    before, later = both(fleet, body, body)[0], both(after, body, body)[0]
    assert set(later.breaches) <= set(before.breaches) - unseen


# --- where it cannot be said -----------------------------------------------------------------------------------------


def test_a_wider_scope_of_a_spot_policy_may_act_on_less() -> None:
    fleet = [machine(resource_id="a", region="us-east-1"), machine(resource_id="b", capacity_type="spot")]
    wide = {"type": "spot", "spot": {"allowed_on_demand": "50%"}}

    more, less = both(fleet, wide, {**wide, "scope": {"where": "capacity_type = 'on_demand'"}})

    assert (less.breaches, more.breaches) == ([0], [])


def test_another_order_of_a_budget_meets_others() -> None:
    fleet = [
        machine(resource_id="a", hourly_cost=30.0, activity="busy", running_seconds=60),
        machine(resource_id="b", hourly_cost=20.0, activity="idle"),
    ]

    idle, newest = both(
        fleet,
        {"type": "budget", "budget": {"budget": "m", "at": "90%", "order": "idle_first"}},
        {"type": "budget", "budget": {"budget": "m", "at": "90%", "order": "newest_first"}},
    )

    assert (idle.breaches, newest.breaches) == ([1], [0])


@pytest.mark.parametrize("gone", [0, 1])
def test_once_one_is_gone_a_quota_may_meet_nobody_more(gone: int) -> None:
    fleet = [machine(resource_id="a", running_seconds=7200), machine(resource_id="b", running_seconds=60)]
    quota = {"type": "quota", "quota": {"max_gpus": 8}}
    before, _ = both(fleet, quota, quota)
    after, _ = both([{**row, "state": "stopped"} if index == gone else row for index, row in enumerate(fleet)],
                    quota, quota)  # fmt: skip

    assert before.breaches == [1]
    assert after.breaches == []
