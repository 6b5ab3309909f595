"""The pass: which rows are in breach, in scope, unknown; and what of the charter is held here."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlglot import exp

from policies import evaluate as judging
from policies.codes import WHERE_UNKNOWN
from policies.conditions import ConditionError
from policies.decision import Verdict
from policies.evaluate import Judgement, JudgingError, compile_policy, evaluate
from policies.facts import TELEMETRY, Facts
from policies.policy import BasePolicy, IdlePolicy, SpotPolicy, profile_of
from policies.rules import RULES, idle
from policies.rules.rule import Rule
from tests.policies.builders import (
    busy_machine,
    facts_of,
    idle_policy,
    machine,
    ownership_policy,
    silent_machine,
)


def verdict(policy: BasePolicy, **row: Any) -> Verdict:
    judgement = evaluate(facts_of([machine(**row)], [policy]), [policy])
    assert judgement.faults == {}
    return judgement.outcomes[policy.name].verdict(0)


IDLE = {
    "idle and running": ({}, Verdict.BREACH),
    "busy": ({"activity": "busy"}, Verdict.OK),
    "activity not known": ({"activity": None}, Verdict.UNKNOWN),
    "stopped, whatever its activity": ({"state": "stopped"}, Verdict.OK),
    "stopped and silent": ({"state": "stopped", "activity": None}, Verdict.OK),
    "starting": ({"state": "pending"}, Verdict.OK),
    "state not known": ({"state": None}, Verdict.UNKNOWN),
    "the cloud calls its state unknown": ({"state": "unknown"}, Verdict.UNKNOWN),
    "busy, state not known": ({"state": None, "activity": "busy"}, Verdict.OK),
}


@pytest.mark.parametrize(("row", "want"), IDLE.values(), ids=IDLE.keys())
def test_idle(row: dict[str, Any], want: Verdict) -> None:
    assert verdict(idle_policy(), **row) is want


IDLE_WHEN = {
    "idle and the further condition holds": ({}, Verdict.BREACH),
    "idle but it does not hold": ({"max_power_watts": 240.0}, Verdict.OK),
    "idle and it is not known": ({"max_power_watts": None}, Verdict.UNKNOWN),
    "busy and it is not known": ({"activity": "busy", "max_power_watts": None}, Verdict.OK),
    "silent and it does not hold": ({"activity": None, "max_power_watts": 240.0}, Verdict.UNKNOWN),
}


@pytest.mark.parametrize(("row", "want"), IDLE_WHEN.values(), ids=IDLE_WHEN.keys())
def test_idle_with_a_further_condition(row: dict[str, Any], want: Verdict) -> None:
    assert verdict(idle_policy(idle={"when": "max_power_watts < 90"}), **row) is want


HOUR = 3600
OWNERSHIP = {
    "has both": ({}, Verdict.OK),
    "no project": ({"project": None}, Verdict.BREACH),
    "no owner": ({"owner": None}, Verdict.BREACH),
    "neither": ({"project": None, "owner": None}, Verdict.BREACH),
    "no project, but too young": ({"project": None, "age_seconds": HOUR - 1}, Verdict.OK),
    "no project, exactly old enough": ({"project": None, "age_seconds": HOUR}, Verdict.BREACH),
    "no project, of unknown age": ({"project": None, "age_seconds": None}, Verdict.UNKNOWN),
    "no project, terminated": ({"project": None, "state": "terminated"}, Verdict.OK),
    "no project, stopped": ({"project": None, "state": "stopped"}, Verdict.BREACH),
    "no project, state not known": ({"project": None, "state": None}, Verdict.UNKNOWN),
    "no project, state unknown to the cloud": ({"project": None, "state": "unknown"}, Verdict.UNKNOWN),
}


@pytest.mark.parametrize(("row", "want"), OWNERSHIP.values(), ids=OWNERSHIP.keys())
def test_ownership(row: dict[str, Any], want: Verdict) -> None:
    policy = ownership_policy(ownership={"require": ["project", "owner"], "within": "1h"})
    assert verdict(policy, **row) is want


def test_ownership_asks_only_for_what_is_required() -> None:
    assert verdict(ownership_policy(ownership={"require": ["project"]}), owner=None) is Verdict.OK
    assert verdict(ownership_policy(ownership={"require": ["owner"]}), project=None) is Verdict.OK
    with pytest.raises(ValidationError, match="at least 1 item"):
        ownership_policy(ownership={"require": []})


SCOPES: dict[str, tuple[dict[str, Any], bool]] = {
    "empty": ({}, True),
    "its project": ({"projects": ["nlp", "vision"]}, True),
    "another project": ({"projects": ["nlp"]}, False),
    "its source": ({"sources": ["research-aws"]}, True),
    "another source": ({"sources": ["research"]}, False),
    "its provider": ({"providers": ["aws"]}, True),
    "another provider": ({"providers": ["gcp"]}, False),
    "its account": ({"accounts": ["123456789012"]}, True),
    "another account": ({"accounts": ["1"]}, False),
    "its kind": ({"kinds": ["instance"]}, True),
    "another kind": ({"kinds": ["workload", "node"]}, False),
    "its region": ({"regions": ["us-east-1"]}, True),
    "a pattern of its region": ({"regions": ["eu-*", "us-*"]}, True),
    "a pattern of other regions": ({"regions": ["eu-*"]}, False),
    "a pattern is anchored": ({"regions": ["east"]}, False),
    "one letter": ({"regions": ["us-east-?"]}, True),
    "a class of letters": ({"regions": ["us-east-[12]"]}, True),
    "not a class of letters": ({"regions": ["us-east-[!1]"]}, False),
    "patterns are case-sensitive": ({"skus": ["P5.*"]}, False),
    "a dot is a dot": ({"skus": ["p5.*"]}, True),
    "a dot is no joker": ({"skus": ["p.*"]}, False),
    "its tag": ({"tags": {"team": "a"}}, True),
    "another value": ({"tags": {"team": "b"}}, False),
    "a tag it does not have": ({"tags": {"Team": "a"}}, False),
    "two tags, one wrong": ({"tags": {"team": "a", "env": "prod"}}, False),
    "two restrictions, one wrong": ({"projects": ["vision"], "kinds": ["node"]}, False),
    "a condition that holds": ({"where": "gpu_count >= 8"}, True),
    "a condition that does not": ({"where": "gpu_count > 8"}, False),
    "a quotation mark in a name": ({"projects": ["o'neill", "vision"]}, True),
}


@pytest.mark.parametrize(("scope", "want"), SCOPES.values(), ids=SCOPES.keys())
def test_scope(scope: dict[str, Any], want: bool) -> None:
    said = verdict(idle_policy(scope=scope), tags={"team": "a", "env": "dev"})
    assert said is (Verdict.BREACH if want else Verdict.OUT_OF_SCOPE)


@pytest.mark.parametrize(
    ("scope", "column"),
    [({"projects": ["vision"]}, "project"), ({"regions": ["*"]}, "region"), ({"skus": ["p5*"]}, "sku")],
)
def test_what_is_not_known_is_outside_of_a_listed_scope(scope: dict[str, Any], column: str) -> None:
    assert verdict(idle_policy(scope=scope), **{column: None}) is Verdict.OUT_OF_SCOPE


def test_a_condition_of_scope_on_what_is_not_known_is_unknown_and_counts_as_nobodys_share() -> None:
    policy = idle_policy(scope={"where": "project = 'vision'", "kinds": ["instance"]})
    rows = [machine(), machine(project=None), machine(project="nlp"), machine(project=None, kind="node")]
    outcome = evaluate(facts_of(rows, [policy]), [policy]).outcomes[policy.name]
    assert (outcome.breaches, outcome.unknown, outcome.in_scope) == ([0], [1], 1)


def test_a_scope_of_a_thousand_projects() -> None:
    policy = idle_policy(scope={"projects": [f"p{index}" for index in range(1000)]})
    rows = [machine(project="p999"), machine(project=None), machine(project="p1000"), machine(project="p0")]
    outcome = evaluate(facts_of(rows, [policy]), [policy]).outcomes[policy.name]
    assert (outcome.breaches, outcome.in_scope) == ([0, 3], 2)


def test_more_tags_than_can_be_told_apart_are_refused() -> None:
    with pytest.raises(ConditionError, match="201 restrictions are too many"):
        compile_policy(idle_policy(scope={"tags": {f"t{index}": "x" for index in range(201)}}))
    last = idle_policy(scope={"tags": {f"t{index}": "x" for index in range(200)}, "where": "gpu_count = 1"})
    tags = {f"t{index}": "x" for index in range(200)}
    assert verdict(last, tags=tags, gpu_count=1) is Verdict.BREACH
    assert verdict(last, tags=tags) is Verdict.OUT_OF_SCOPE
    assert verdict(last, tags=tags | {"t199": "y"}, gpu_count=1) is Verdict.OUT_OF_SCOPE


def test_counts_and_rows_of_several_policies_at_once() -> None:
    policies = [
        idle_policy("a"),
        idle_policy("b", scope={"kinds": ["workload"]}),
        ownership_policy("c", scope={"where": "gpu_count = 8"}),
    ]
    rows = [machine(), busy_machine(), silent_machine(kind="workload"), machine(project=None), machine(gpu_count=None)]
    outcomes = evaluate(facts_of(rows, policies), policies).outcomes
    assert {name: (o.breaches, o.unknown, o.in_scope) for name, o in outcomes.items()} == {
        "a": ([0, 3, 4], [2], 5),
        "b": ([], [2], 1),
        "c": ([3], [4], 4),
    }


def test_each_policy_is_judged_by_its_own_idle_profile() -> None:
    short, long = idle_policy("short", idle={"for": "10m"}), idle_policy("long", idle={"for": "5h"})
    facts = facts_of([machine()], [short])
    busy = facts_of([busy_machine()], [long])
    facts = replace(facts, activity={**facts.activity, **busy.activity})
    outcomes = evaluate(facts, [short, long]).outcomes
    assert (outcomes["short"].breaches, outcomes["long"].breaches) == ([0], [])


def test_no_facts_and_no_policies() -> None:
    policy = idle_policy(idle={"when": "max_power_watts < 90"}, scope={"tags": {"a": "b"}})
    outcome = evaluate(facts_of([], [policy]), [policy]).outcomes[policy.name]
    assert (outcome.breaches, outcome.unknown, outcome.in_scope, outcome.fault) == ([], [], 0, None)
    assert evaluate(facts_of([machine()]), []).outcomes == {}
    assert evaluate(facts_of([]), []).outcomes == {}


def test_two_policies_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        evaluate(facts_of([machine()]), [idle_policy("a"), ownership_policy("a")])


# One failure sinks nothing else.


def test_a_policy_with_a_faulty_condition_is_unknown_everywhere_and_sinks_no_other() -> None:
    bad = idle_policy("bad", idle={"when": "gpu_cout = 1"})
    worse = idle_policy("worse", scope={"where": "activity IS NULL"})
    good = idle_policy("good")
    judgement = evaluate(facts_of([machine()], [bad, good]), [bad, good, worse])
    assert judgement.faults["bad"] == "idle.when: `gpu_cout` at 1:1 is no fact; did you mean `gpu_count`?"
    assert judgement.faults["worse"].startswith("scope.where: `activity` at 1:1 rests on telemetry")
    assert judgement.outcomes["good"].breaches == [0]
    for name in ("bad", "worse"):
        outcome = judgement.outcomes[name]
        assert (outcome.breaches, outcome.unknown, outcome.in_scope) == ([], [0], 0)
        decision = judgement.decision(name, 0)
        assert decision.verdict is Verdict.UNKNOWN
        assert judgement.faults[name] in decision.reason


def test_a_policy_that_fails_as_it_runs_is_unknown_everywhere_and_sinks_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def trips(_: IdlePolicy, in_scope: exp.Expr) -> exp.Expr:
        return exp.GT(this=exp.cast(exp.column("name"), "bigint"), expression=exp.Literal.number(0))

    rule = replace(idle.RULE, condition=trips)
    rules: Mapping[type[BasePolicy], Rule[Any]] = {**RULES, IdlePolicy: rule}
    monkeypatch.setattr(judging, "RULES", rules)
    policies = [ownership_policy("before"), idle_policy("trips"), ownership_policy("after")]
    judgement = evaluate(facts_of([machine(project=None), machine()], policies), policies)
    assert list(judgement.faults) == ["trips"]
    assert "trainer" in judgement.faults["trips"]
    assert judgement.outcomes["trips"].unknown == [0, 1]
    assert judgement.outcomes["before"].breaches == judgement.outcomes["after"].breaches == [0]


def test_a_policy_of_a_type_without_a_rule_is_a_fault() -> None:
    other = BasePolicy(name="other")
    judgement = evaluate(facts_of([machine()]), [other])
    assert judgement.faults == {"other": "no rule judges a BasePolicy"}


def test_telemetry_that_was_not_judged_for_a_profile_is_a_fault_of_that_policy_only() -> None:
    here, missing = idle_policy("here"), idle_policy("missing", idle={"for": "5h"})
    judgement = evaluate(facts_of([machine()], [here]), [here, missing])
    assert judgement.faults == {"missing": "the facts have no activity: no activity judged by its idle profile"}
    assert judgement.outcomes["here"].breaches == [0]
    assert judgement.outcomes["missing"].unknown == [0]


def test_a_missing_column_is_a_fault_of_the_policies_that_read_it_only() -> None:
    reads, does_not = idle_policy("reads", scope={"where": "zone = 'a'"}), idle_policy("does-not")
    facts = facts_of([machine()], [reads])
    facts = replace(facts, base={name: column for name, column in facts.base.items() if name != "zone"})
    judgement = evaluate(facts, [reads, does_not])
    assert judgement.faults == {"reads": "the facts have no zone: no such column"}
    assert judgement.outcomes["does-not"].breaches == [0]
    assert judgement.decision("reads", 0).verdict is Verdict.UNKNOWN


def test_columns_of_unequal_length_are_refused_before_a_row_is_mistaken_for_another() -> None:
    facts = facts_of([machine(), busy_machine()], [idle_policy()])
    facts = replace(facts, base={**facts.base, "state": ["running"]})
    with pytest.raises(JudgingError, match="state has 1 entries for 2 rows"):
        evaluate(facts, [idle_policy()])


def test_half_a_surrogate_in_one_tag_hides_that_tag_only() -> None:
    policy = idle_policy(scope={"where": "tags['team'] = 'a'"})
    rows = [machine(tags={"team": "\ud800"}), machine(tags={"team": "a"}), machine(tags={})]
    outcome = evaluate(facts_of(rows, [policy]), [policy]).outcomes[policy.name]
    assert (outcome.breaches, outcome.unknown) == ([1], [0, 2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_measurement_that_is_no_number_is_not_known(value: float) -> None:
    policy = idle_policy(idle={"when": "max_power_watts > 10 OR max_power_watts <= 10"})
    judgement = evaluate(facts_of([machine(max_power_watts=value)], [policy]), [policy])
    assert judgement.outcomes[policy.name].unknown == [0]
    assert judgement.decision(policy.name, 0).evidence["max_power_watts"] is None


def test_names_with_hostile_characters_are_only_names() -> None:
    hostile = ["'; DROP TABLE facts; --", '"', "\\", "\0", "%_*?[", "tags@0", "🦆"]
    for name in hostile:
        policy = idle_policy(scope={"projects": [name], "tags": {name: name}})
        rows = [machine(project=name, tags={name: name}), machine()]
        outcome = evaluate(facts_of(rows, [policy]), [policy]).outcomes[policy.name]
        assert (outcome.breaches, outcome.in_scope, outcome.fault) == ([0], 1, None), name


# The second wall.


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "COPY (SELECT 1) TO '/tmp/curfew-judge-test'",
        "ATTACH '/tmp/curfew-judge-test.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 8",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT * FROM secret_of_the_caller",
    ],
)
def test_the_judge_reaches_nothing_outside(sql: str) -> None:
    secret_of_the_caller = duckdb.sql("SELECT 1")
    assert secret_of_the_caller is not None
    with judging._judge() as connection, pytest.raises(duckdb.Error):
        connection.execute(sql)


def test_a_pass_that_goes_astray_is_broken_off() -> None:
    endless = exp.maybe_parse("(SELECT sum(range) FROM range(1000000000000))::UTINYINT", dialect="duckdb")
    with judging._judge() as connection:
        connection.execute("CREATE TABLE facts AS SELECT 1 AS x")
        with pytest.raises(JudgingError, match=r"longer than 0\.05 s"):
            judging._bytes(connection, [endless], limit_seconds=0.05)


def test_no_watch_outlives_its_pass() -> None:
    evaluate(facts_of([machine()], [idle_policy()]), [idle_policy()])
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


# Properties over random fleets and policies.

POLICIES: list[BasePolicy] = [
    idle_policy("plain"),
    idle_policy("when", idle={"when": "max_power_watts < 90"}),
    idle_policy(
        "either", idle={"for": "1h", "when": "max_power_watts < 90 OR max_dram_active < 0.02 OR gpu_count = 8"}
    ),
    idle_policy("not", idle={"when": "NOT (busy_gpus > 0 AND max_dram_active < 0.5)"}),
    idle_policy("where", scope={"where": "hourly_cost / gpu_count > 4 OR project = 'vision'"}),
    idle_policy(
        "by-activity", scope={"where": "activity <> 'busy' OR idle_seconds > 60", "projects": ["vision", "nlp"]}
    ),
    idle_policy("patterns", scope={"regions": ["eu-*", "us-east-?"], "skus": ["p[45]*"], "kinds": ["instance"]}),
    idle_policy("tagged", scope={"tags": {"team": "a"}, "where": "coalesce(owner, tags['by'], 'x') <> 'bob'"}),
    ownership_policy("unowned"),
    ownership_policy(
        "nameless", ownership={"require": ["project", "owner"], "within": "2h"}, scope={"where": "gpu_count > 1"}
    ),
    ownership_policy("silent", scope={"where": "NOT idle_gpus = 0 OR max_utilisation < 0.05"}),
]


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*values, None])


MACHINES = st.fixed_dictionaries(
    {
        "state": some("running", "running", "running", "stopped", "terminated", "unknown"),
        "kind": some("instance", "workload"),
        "project": some("vision", "nlp"),
        "owner": some("ana", "bob"),
        "region": some("eu-west-1", "us-east-1", "us-west-2"),
        "sku": some("p5.48xlarge", "p4d.24xlarge", "g5.xlarge"),
        "gpu_count": some(0, 1, 8),
        "hourly_cost": some(0.0, 3.0, 55.0, math.nan),
        "age_seconds": some(0, HOUR, 10 * HOUR),
        "activity": some("idle", "idle", "busy"),
        "idle_seconds": some(0, 100),
        "busy_gpus": some(0, 1),
        "unknown_gpus": some(0, 1),
        "coverage": some(0.1, 1.0),
        "max_utilisation": some(0.0, 0.9, math.nan),
        "max_dram_active": some(0.0, 0.5),
        "max_power_watts": some(70.0, 300.0),
        "tags": st.sampled_from([{}, {"team": "a"}, {"team": "b", "by": "bob"}, {"by": "eve"}]),
    }
).map(lambda changes: machine(**changes))
FLEETS = st.lists(MACHINES, min_size=1, max_size=25)


def codes(judgement: Judgement) -> dict[str, bytes]:
    assert judgement.faults == {}
    return {name: outcome.codes for name, outcome in judgement.outcomes.items()}


@settings(max_examples=25, deadline=None)
@given(FLEETS, st.randoms(use_true_random=False))
def test_the_order_of_rows_and_policies_does_not_matter(fleet: list[dict[str, Any]], chance: random.Random) -> None:
    judged = codes(evaluate(facts_of(fleet, POLICIES), POLICIES))
    rows, policies = list(range(len(fleet))), list(POLICIES)
    chance.shuffle(rows)
    chance.shuffle(policies)
    shuffled = codes(evaluate(facts_of([fleet[row] for row in rows], POLICIES), policies))
    assert list(shuffled) == [policy.name for policy in policies]
    for name, column in shuffled.items():
        assert column == bytes(judged[name][row] for row in rows)


@settings(max_examples=25, deadline=None)
@given(FLEETS, st.sampled_from(POLICIES))
def test_a_policy_judges_alone_as_in_company_and_a_row_alone_as_in_a_fleet(
    fleet: list[dict[str, Any]], policy: BasePolicy
) -> None:
    together = codes(evaluate(facts_of(fleet, POLICIES), POLICIES))[policy.name]
    assert codes(evaluate(facts_of(fleet, [policy]), [policy]))[policy.name] == together
    assert codes(evaluate(facts_of(fleet[:1], [policy]), [policy]))[policy.name] == together[:1]


@settings(max_examples=40, deadline=None)
@given(FLEETS, st.data())
def test_losing_telemetry_never_makes_a_breach(fleet: list[dict[str, Any]], data: st.DataObject) -> None:
    lost = data.draw(
        st.lists(
            st.sets(st.sampled_from([column.name for column in TELEMETRY])), min_size=len(fleet), max_size=len(fleet)
        )
    )
    poorer = [row | dict.fromkeys(names) for row, names in zip(fleet, lost, strict=True)]
    before = evaluate(facts_of(fleet, POLICIES), POLICIES)
    after = evaluate(facts_of(poorer, POLICIES), POLICIES)
    for policy in POLICIES:
        assert set(after.outcomes[policy.name].breaches) <= set(before.outcomes[policy.name].breaches)


def test_while_one_gpu_is_silent_a_policy_that_acts_takes_counts_and_maxima_for_not_known() -> None:
    silent = machine(unknown_gpus=1, idle_gpus=7, busy_gpus=0)  # idle by busy_gpus_below: 2
    policies = [
        idle_policy("acts", idle={"busy_gpus_below": 2, "when": "idle_gpus < 8"}),
        idle_policy("tells", action="notify", idle={"busy_gpus_below": 2, "when": "idle_gpus < 8"}),
        idle_policy("by itself", idle={"busy_gpus_below": 2}),
        idle_policy("by its length", idle={"busy_gpus_below": 2, "when": "idle_seconds > 60"}),
    ]
    judgement = evaluate(facts_of([silent], policies), policies)
    verdicts = {policy.name: judgement.decision(policy.name, 0).verdict for policy in policies}
    assert verdicts == {
        "acts": Verdict.UNKNOWN,
        "tells": Verdict.BREACH,
        "by itself": Verdict.BREACH,
        "by its length": Verdict.BREACH,
    }
    assert "`idle_gpus < 8` is unknown: idle_gpus is 7, unknown_gpus is 1." in judgement.decision("acts", 0).reason


def test_no_share_is_taken_of_a_scope_that_telemetry_decides() -> None:
    text = {"where": "activity = 'idle'"}
    spot = {"type": "spot", "name": "spot", "spot": {"allowed_on_demand": "50%"}, "scope": text}
    acts, tells = (SpotPolicy.model_validate({**spot, "action": action}) for action in ("stop", "notify"))
    with pytest.raises(ConditionError, match="a share of the scope must not shrink"):
        compile_policy(acts)
    assert compile_policy(tells).where is not None


@settings(max_examples=25, deadline=None)
@given(FLEETS)
def test_a_null_in_what_a_person_asked_about_is_never_a_breach(fleet: list[dict[str, Any]]) -> None:
    judgement = evaluate(facts_of(fleet, POLICIES), POLICIES)
    asked = {
        "when": ["max_power_watts"],
        "either": ["max_power_watts", "max_dram_active", "gpu_count"],
        "not": ["busy_gpus", "max_dram_active"],
        "where": ["hourly_cost", "gpu_count", "project"],
        "by-activity": ["activity", "idle_seconds"],
        "nameless": ["gpu_count"],
        "silent": ["idle_gpus", "max_utilisation"],
    }
    for name, columns in asked.items():
        for row in judgement.outcomes[name].breaches:
            assert all(fleet[row][column] is not None for column in columns)


@settings(max_examples=25, deadline=None)
@given(FLEETS)
def test_the_rules_agree_with_the_same_rules_in_python(fleet: list[dict[str, Any]]) -> None:
    judgement = evaluate(facts_of(fleet, POLICIES), POLICIES)
    for index, row in enumerate(fleet):
        idle_now = row["state"] == "running" and row["activity"] == "idle"
        in_patterns = (
            row["kind"] == "instance"
            and row["region"] is not None
            and any(fnmatchcase(row["region"], pattern) for pattern in ("eu-*", "us-east-?"))
            and row["sku"] is not None
            and fnmatchcase(row["sku"], "p[45]*")
        )
        old = row["age_seconds"] is not None and row["age_seconds"] >= HOUR
        alive = row["state"] not in (None, "unknown", "terminated")
        want = {
            "plain": idle_now,
            "patterns": idle_now and in_patterns,
            "unowned": alive and old and row["project"] is None,
        }
        assert {name: index in judgement.outcomes[name].breaches for name in want} == want
        assert (judgement.outcomes["patterns"].verdict(index) is Verdict.OUT_OF_SCOPE) is not in_patterns


@settings(max_examples=25, deadline=None)
@given(FLEETS)
def test_every_pair_has_a_decision_with_a_reason_and_the_facts_it_rests_on(fleet: list[dict[str, Any]]) -> None:
    judgement = evaluate(facts_of(fleet, POLICIES), POLICIES)
    for policy in POLICIES:
        outcome = judgement.outcomes[policy.name]
        for row in range(len(fleet)):
            decision = judgement.decision(policy.name, row)
            assert decision.verdict is outcome.verdict(row)
            assert (decision.verdict is Verdict.BREACH) is (row in outcome.breaches)
            assert (decision.verdict is Verdict.UNKNOWN) is (row in outcome.unknown)
            assert decision.reason.endswith(".")
            assert "None" not in decision.reason
            assert "nan" not in decision.reason
            assert set(RULES[type(policy)].evidence) <= set(decision.evidence)
        rest = [row for row in range(len(fleet)) if outcome.verdict(row) is not Verdict.OUT_OF_SCOPE]
        where_unknown = outcome.codes.count(WHERE_UNKNOWN)
        assert outcome.in_scope == len(rest) - where_unknown


def test_rows_keep_their_place_over_more_than_one_block_of_the_engine() -> None:
    rows = 130_000
    facts = facts_of([machine()])
    base = {name: column * rows for name, column in facts.base.items()}
    base["project"] = [None if index % 1009 == 0 else "vision" for index in range(rows)]
    policy = ownership_policy(scope={"projects": []})
    own = {policy.name: {"claimed_by": [None] * rows}}
    judgement = evaluate(Facts(base=base, activity={}, tags=[{}] * rows, own=own), [policy])
    assert judgement.outcomes[policy.name].breaches == list(range(0, rows, 1009))


def test_the_same_pass_judges_many_moments() -> None:
    """A back-test: one row per resource and moment."""
    policy = idle_policy()
    moments = [busy_machine(), machine(idle_seconds=60), silent_machine(), machine(idle_seconds=3600)]
    outcome = evaluate(facts_of(moments, [policy]), [policy]).outcomes[policy.name]
    assert (outcome.breaches, outcome.unknown) == ([1, 3], [2])


def test_every_policy_type_has_a_rule() -> None:
    assert set(RULES) == set(BasePolicy.__subclasses__())
    assert profile_of(ownership_policy()).key
