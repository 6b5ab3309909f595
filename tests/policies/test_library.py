"""The starter policies: valid, in observe, understood by the judge, and each says for whom it is."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from policies.evaluate import compile_policy, evaluate
from policies.facts import OWN
from policies.library import texts
from policies.policy import BasePolicy, Mode, Policy
from service import files
from tests.policies.builders import facts_of, machine

LIBRARY = texts()
TYPES = {get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(Policy)[0])}


def load(name: str) -> BasePolicy:
    """Read as `apply` reads it."""
    raws, mistakes = files.read_yaml(LIBRARY[name], f"{name}.yaml")
    (parsed,), more = files.parse(raws)
    assert [*mistakes, *more] == []
    assert isinstance(parsed.document, BasePolicy)
    assert raws[0].body["mode"] == "observe"
    return parsed.document


@pytest.mark.parametrize("name", LIBRARY)
def test_starter_policy(name: str) -> None:
    policy = load(name)
    assert policy.mode is Mode.OBSERVE
    assert policy.name == name
    assert policy.description.startswith("For ")
    assert policy.description.endswith(".")
    assert not policy.accept_loss
    assert compile_policy(policy).policy == policy


def test_the_library_covers_every_type_of_policy() -> None:
    assert {getattr(load(name), "type", None) for name in LIBRARY} == TYPES
    assert len(TYPES) == 9


def test_all_of_them_are_judged_and_most_meet_a_forgotten_machine() -> None:
    policies = [load(name) for name in LIBRARY]
    forgotten = machine(project="vision", owner="ana", region="us-east-1", ran_seconds=80 * 3600)
    own = {"off_now": True, "off_soon": True, "budget_used": 1.1, "budget_used_soon": 1.1, "budget_excess": 9.0}
    facts = facts_of([forgotten | {"gpu_count": 24, "tags": {"curfew-schedule": "working-hours"}}], policies)
    facts = replace(
        facts,
        own={policy.name: {column.name: [own.get(column.name)] for column in OWN} for policy in policies},
    )

    judgement = evaluate(facts, policies)

    assert judgement.faults == {}
    not_met = {name for name, outcome in judgement.outcomes.items() if not outcome.breaches}
    assert not_met == {
        "idle-notebooks",
        "idle-endpoints",
        "memory-held-idle",
        "unowned-gpus",
        "no-name-on-it",
        "off-but-billed",
    }
