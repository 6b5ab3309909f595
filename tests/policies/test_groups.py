"""A group is met as a whole: only when every member that runs is in breach, and never one member by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.decision import Verdict
from policies.evaluate import Judgement, evaluate
from policies.policy import Policy
from tests.policies.builders import busy_machine, facts_of, machine, silent_machine

POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)
GROUP = machine(resource_id="g", name="trainers", kind="node_group", gpu_count=16, hourly_cost=110.08)
IDLE = {"type": "idle", "idle": {"for": "45m"}}


def member(build: Any = machine, number: int = 1, **changes: Any) -> dict[str, Any]:
    return dict(build(resource_id=f"m{number}", name=f"trainers-{number}", member_of="g", **changes))


def judged(
    members: Sequence[dict[str, Any] | None], body: dict[str, Any] = IDLE, *, group: dict[str, Any] = GROUP
) -> Judgement:
    """The group in row 0, its members behind it; None: a member that nobody lists as a GPU machine."""
    rows = [group, *(row for row in members if row is not None)]
    place = iter(range(1, len(rows)))
    policy = POLICY.validate_python({"name": "rule", **body})
    facts = replace(facts_of(rows, [policy]), members={0: [None if row is None else next(place) for row in members]})
    judgement = evaluate(facts, [policy])
    assert judgement.faults == {}
    return judgement


VERDICTS: dict[str, tuple[list[dict[str, Any] | None], Verdict, str]] = {
    "every member is idle": (
        [member(number=1), member(number=2)],
        Verdict.BREACH,
        "Every member that runs is in breach, and so is the group. trainers-1: ",
    ),
    "one member works": (
        [member(number=1), member(busy_machine, 2)],
        Verdict.OK,
        "A group is met as a whole, and one member spares it. trainers-2: ",
    ),
    "one member is silent": (
        [member(number=1), member(silent_machine, 2)],
        Verdict.UNKNOWN,
        "A group is met as a whole, and of one member it is not known. trainers-2: ",
    ),
    "one is silent and one works": ([member(silent_machine, 1), member(busy_machine, 2)], Verdict.OK, "trainers-2: "),
    "one member was not described in this look": (
        [member(number=1), member(number=2, state=None)],
        Verdict.UNKNOWN,
        "trainers-2: ",
    ),
    "one member has just been launched": (
        [member(number=1), member(number=2, state="pending")],
        Verdict.OK,
        "trainers-2: It is pending",
    ),
    "one member is no GPU machine that anybody lists": (
        [member(number=1), None],
        Verdict.UNKNOWN,
        "1 of its 2 members was not seen as a GPU machine.",
    ),
    "one member is on standby, stopped": ([member(number=1), member(number=2, state="stopped")], Verdict.BREACH, ""),
    "it is at zero": ([], Verdict.OK, "None of its members runs."),
    "all its members are going": ([member(number=1, state="stopping")], Verdict.OK, "None of its members runs."),
}


@pytest.mark.parametrize("sentence", VERDICTS)
def test_a_group_is_met_when_every_member_is_in_breach(sentence: str) -> None:
    members, verdict, words = VERDICTS[sentence]

    judgement = judged(members)

    decision = judgement.decision("rule", 0)
    assert (decision.verdict, words in decision.reason) == (verdict, True), decision.reason
    assert set(judgement.outcomes["rule"].breaches) <= {0}


SCOPES: dict[str, tuple[dict[str, Any], list[int], int]] = {
    "of every kind: the group speaks for its members": ({}, [0], 1),
    "of groups only: members are judged for the group's sake": ({"kinds": ["node_group"]}, [0], 1),
    "of machines only: members stand for themselves, and are never acted on": ({"kinds": ["instance"]}, [1, 2], 2),
    "of another project than the group's": ({"projects": ["speech"]}, [], 0),
    "of groups in another project": ({"projects": ["speech"], "kinds": ["node_group"]}, [], 0),
}


@pytest.mark.parametrize("sentence", SCOPES)
def test_whom_a_scope_meets(sentence: str) -> None:
    scope, breaches, in_scope = SCOPES[sentence]

    outcome = judged([member(number=1), member(number=2)], {**IDLE, "scope": scope}).outcomes["rule"]

    assert (outcome.breaches, outcome.in_scope) == (breaches, in_scope)


def test_a_group_of_another_project_leaves_its_members_to_themselves() -> None:
    group = {**GROUP, "project": "speech"}

    outcome = judged([member(number=1)], {**IDLE, "scope": {"projects": ["vision"]}}, group=group).outcomes["rule"]

    assert outcome.breaches == [1]


def test_a_group_that_a_policy_for_groups_does_not_mean_exposes_none_of_its_members() -> None:
    scope = {"kinds": ["node_group"], "projects": ["vision"]}

    outcome = judged([member(number=1)], {**IDLE, "scope": scope}, group={**GROUP, "project": "speech"}).outcomes[
        "rule"
    ]

    assert (outcome.breaches, outcome.in_scope) == ([], 0)


def test_nothing_is_told_of_a_member_that_another_project_pays_for() -> None:
    decision = judged([member(project="secret", number=7)], {**IDLE, "scope": {"projects": ["vision"]}}).decision(
        "rule", 0
    )

    assert decision.reason == "A group is met as a whole, and one member spares it. It is another project's."


def test_who_counts_counts_members_and_not_the_group_once_more() -> None:
    """16 GPUs run in the group: a quota of 16 is kept, one of 15 is not."""
    members = [member(number=1), member(number=2)]

    kept, over = (judged(members, {"type": "quota", "quota": {"max_gpus": most}}) for most in (16, 8))

    assert kept.outcomes["rule"].breaches == []
    assert over.decision("rule", 0).verdict is Verdict.OK  # the older member is within
    assert judged(members, {"type": "quota", "quota": {"max_gpus": 0}}).outcomes["rule"].breaches == [0]


# --- on to spot ------------------------------------------------------------------------------------------------------

TO_SPOT = {"type": "spot", "action": "move_to_spot"}


def bought(capacity_type: str, number: int, **more: Any) -> dict[str, Any]:
    return member(number=number, **{"capacity_type": capacity_type, "running_seconds": 7200 - number, **more})


PARTLY_ON_SPOT: dict[str, tuple[list[dict[str, Any] | None], Verdict, str]] = {
    "some run on spot already, the others on demand": (
        [bought("spot", 1), bought("on_demand", 2), bought("on_demand", 3)],
        Verdict.BREACH,
        "Every member that runs on anything but spot is in breach, and so is the group. trainers-2: It runs on demand",
    ),
    "all run on demand": ([bought("on_demand", 1), bought("on_demand", 2)], Verdict.BREACH, "trainers-1: "),
    "all run on spot": (
        [bought("spot", 1), bought("spot", 2)],
        Verdict.OK,
        "None of its members runs on anything but spot.",
    ),
    "the only one on demand is down": ([bought("spot", 1), bought("on_demand", 2, state="stopped")], Verdict.OK, ""),
    "of one it is not known how it was bought": (
        [bought("spot", 1), bought("on_demand", 2), bought("unknown", 3)],
        Verdict.UNKNOWN,
        "trainers-3: How its capacity was bought is not known; it is not taken for on demand.",
    ),
    "it is not known how the oldest was bought": (
        [bought("unknown", 1), bought("on_demand", 2)],
        Verdict.UNKNOWN,
        "trainers-1: How its capacity was bought is not known",
    ),
    "one on spot was not described in this look": (
        [bought("spot", 1, state=None), bought("on_demand", 2)],
        Verdict.UNKNOWN,
        "trainers-1: Its state is not known",
    ),
    "one on demand was not described in this look": (
        [bought("spot", 1), bought("on_demand", 2), bought("on_demand", 3, state=None)],
        Verdict.UNKNOWN,
        "trainers-3: Its state is not known",
    ),
    "one is no GPU machine that anybody lists": ([bought("on_demand", 1), None], Verdict.UNKNOWN, "1 of its 2 members"),
    "one has just been launched on spot": (
        [bought("spot", 1, state="pending"), bought("on_demand", 2)],
        Verdict.BREACH,
        "",
    ),
    "one has just been launched on demand": (
        [bought("on_demand", 1), bought("on_demand", 2, state="pending")],
        Verdict.OK,
        "one member spares it. trainers-2: It is pending",
    ),
    "one runs in a reservation": (
        [bought("spot", 1), bought("on_demand", 2), bought("reserved", 3)],
        Verdict.OK,
        "one member spares it. trainers-3: Its capacity is reserved.",
    ),
}


@pytest.mark.parametrize("sentence", PARTLY_ON_SPOT)
def test_whoever_is_on_spot_spares_no_group_from_it(sentence: str) -> None:
    members, verdict, words = PARTLY_ON_SPOT[sentence]

    decision = judged(members, TO_SPOT).decision("rule", 0)

    assert (decision.verdict, words in decision.reason) == (verdict, True), decision.reason


def test_whoever_is_on_spot_is_not_asked_even_where_the_scope_leaves_it_out() -> None:
    body = {**TO_SPOT, "scope": {"where": "capacity_type = 'on_demand'"}}

    assert judged([bought("spot", 1), bought("on_demand", 2)], body).outcomes["rule"].breaches == [0]


@pytest.mark.parametrize("action", ["notify", "stop", "scale_to_zero"])
def test_whatever_else_is_done_to_a_group_a_member_on_spot_spares_it(action: str) -> None:
    judgement = judged([bought("spot", 1), bought("on_demand", 2)], {"type": "spot", "action": action})

    assert judgement.decision("rule", 0).reason == (
        "A group is met as a whole, and one member spares it. trainers-1: Its capacity is spot."
    )
    assert judgement.outcomes["rule"].breaches == []


def test_no_other_policy_spares_less_because_a_member_is_on_spot() -> None:
    """An idle policy that moves to spot speaks of idleness: the member on spot works."""
    members = [member(busy_machine, 1, capacity_type="spot"), member(number=2)]

    assert judged(members, {**IDLE, "action": "move_to_spot"}).outcomes["rule"].breaches == []


def by_itself(capacity_type: str, number: int, **more: Any) -> dict[str, Any]:
    return {**bought(capacity_type, number, **more), "name": f"alone-{number}", "member_of": None}


SHARES: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]], list[int]]] = {
    "of 40 GPUs, 8 on demand are allowed, and the machine by itself is older": (
        "20%",
        [bought("on_demand", 2), bought("on_demand", 3), bought("spot", 4), bought("spot", 5)],
        [by_itself("on_demand", 1)],
        [0],
    ),
    "the group has the oldest, which the share allows it to keep": (
        "20%",
        [bought("on_demand", 1), bought("on_demand", 2), bought("spot", 3), bought("spot", 4)],
        [by_itself("on_demand", 5)],
        [5],
    ),
    "members on spot widen what is allowed, and the group's own row adds nothing": (
        "40%",
        [bought("on_demand", 2), bought("spot", 3), bought("spot", 4), bought("spot", 5)],
        [by_itself("on_demand", 1)],
        [],
    ),
    "one GPU less is allowed, and the newest on demand is over": (
        "39%",
        [bought("on_demand", 2), bought("spot", 3), bought("spot", 4), bought("spot", 5)],
        [by_itself("on_demand", 1)],
        [0],
    ),
    "nothing is allowed": (
        "0%",
        [bought("on_demand", 1), bought("spot", 2)],
        [by_itself("on_demand", 3), by_itself("spot", 4)],
        [0, 3],
    ),
}


@pytest.mark.parametrize("sentence", SHARES)
def test_a_share_counts_the_members_of_groups(sentence: str) -> None:
    share, members, others, breaches = SHARES[sentence]
    policy = POLICY.validate_python({"name": "rule", **TO_SPOT, "spot": {"allowed_on_demand": share}})
    facts = facts_of([GROUP, *members, *others], [policy])

    judgement = evaluate(replace(facts, members={0: range(1, len(members) + 1)}), [policy])

    assert judgement.outcomes["rule"].breaches == breaches


BOUGHT = st.lists(
    st.builds(
        machine,
        capacity_type=st.sampled_from(["on_demand", "on_demand", "spot", "spot", "reserved", "unknown"]),
        state=st.sampled_from([None, "running", "running", "running", "pending", "stopped"]),
        running_seconds=st.sampled_from([60, 3600, 7200]),
    ),
    max_size=6,
)


@given(BOUGHT, st.integers(0, 100))
def test_a_group_is_moved_when_all_that_could_be_on_spot_are_over_and_there_is_one(
    members: list[dict[str, Any]], share: int
) -> None:
    rows = [{**row, "resource_id": f"m{number}", "member_of": "g"} for number, row in enumerate(members)]
    outcome = judged(rows, {**TO_SPOT, "spot": {"allowed_on_demand": f"{share}%"}}).outcomes["rule"]

    left = [
        outcome.verdict(number)
        for number, row in enumerate(rows, start=1)
        if row["state"] != "stopped" and (row["capacity_type"] != "spot" or row["state"] is None)
    ]
    assert (outcome.breaches == [0]) == (bool(left) and set(left) == {Verdict.BREACH})
    if any(row["capacity_type"] == "unknown" and row["state"] == "running" for row in rows):
        assert outcome.breaches == []


@given(BOUGHT, st.sampled_from(["idle", "quota", "spot"]), st.sampled_from(["notify", "stop", "move_to_spot"]))
def test_for_everything_but_a_move_to_spot_every_member_must_breach(
    members: list[dict[str, Any]], type: str, action: str
) -> None:
    """Charter 5, unchanged by what a group's members were bought as."""
    if type == "spot" and action == "move_to_spot":
        action = "scale_to_zero"
    rows = [{**row, "resource_id": f"m{number}", "member_of": "g"} for number, row in enumerate(members)]
    body: dict[str, Any] = {"idle": IDLE, "quota": {"type": "quota", "quota": {"max_gpus": 8}}, "spot": TO_SPOT}[type]
    outcome = judged(rows, {**body, "action": action}).outcomes["rule"]

    up = {outcome.verdict(number) for number, row in enumerate(rows, start=1) if row["state"] != "stopped"}
    assert (outcome.breaches == [0]) == (up == {Verdict.BREACH})


# --- whatever the members ---------------------------------------------------------------------------------------------

MEMBERS = st.lists(
    st.builds(
        machine,
        activity=st.sampled_from([None, "busy", "idle", "idle"]),
        idle_seconds=st.just(6000),
        state=st.sampled_from([None, "running", "running", "running", "pending", "stopped"]),
    ),
    max_size=6,
)


@given(MEMBERS)
def test_a_group_in_breach_has_only_members_in_breach(members: list[dict[str, Any]]) -> None:
    """Charter 5: a group only when every member breaches, whatever the rest say."""
    judgement = judged([{**row, "resource_id": f"m{number}", "member_of": "g"} for number, row in enumerate(members)])

    if judgement.outcomes["rule"].breaches:
        verdicts = {
            judgement.outcomes["rule"].verdict(row + 1) for row, one in enumerate(members) if one["state"] != "stopped"
        }
        assert verdicts == {Verdict.BREACH}


@given(MEMBERS, st.sets(st.integers(0, 5)))
def test_a_member_that_falls_silent_never_brings_its_group_into_breach(
    members: list[dict[str, Any]], silent: set[int]
) -> None:
    rows = [{**row, "resource_id": f"m{number}", "member_of": "g"} for number, row in enumerate(members)]
    hushed = [{**row, "activity": None, "idle_seconds": None} if at in silent else row for at, row in enumerate(rows)]

    assert set(judged(hushed).outcomes["rule"].breaches) <= set(judged(rows).outcomes["rule"].breaches)


def test_a_group_that_was_not_described_in_this_look_is_unknown() -> None:
    """Whom it has now is not known, however much those it had are in breach."""
    judgement = judged([member(number=1)], group={**GROUP, "state": None})
    assert judgement.decision("rule", 0).verdict is Verdict.UNKNOWN
