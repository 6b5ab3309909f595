"""The starter policies: valid, in observe, understood by the judge, and each says for whom it is."""

from __future__ import annotations

from importlib.resources import files

import pytest
import yaml
from pydantic import TypeAdapter

from policies.evaluate import compile_policy, evaluate
from policies.policy import Mode, Policy
from tests.policies.builders import facts_of, machine

LIBRARY = {path.name: path for path in files("policies.library").iterdir() if path.name.endswith(".yaml")}
POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)


def load(name: str) -> Policy:
    document = yaml.safe_load(LIBRARY[name].read_text(encoding="utf-8"))
    assert document.pop("kind") == "policy"
    return POLICY.validate_python(document)


@pytest.mark.parametrize("name", LIBRARY)
def test_starter_policy(name: str) -> None:
    policy = load(name)
    document = yaml.safe_load(LIBRARY[name].read_text(encoding="utf-8"))
    assert document["mode"] == policy.mode == Mode.OBSERVE
    assert f"{policy.name}.yaml" == name
    assert policy.description.startswith("For ")
    assert policy.description.endswith(".")
    assert not policy.accept_loss
    assert compile_policy(policy).policy == policy


def test_the_library_covers_every_type_and_its_names_are_unique() -> None:
    policies = [load(name) for name in LIBRARY]
    assert {policy.type for policy in policies} == {"idle", "ownership"}
    judgement = evaluate(facts_of([machine(project=None)], policies), policies)
    assert judgement.faults == {}
    in_breach = {name for name, outcome in judgement.outcomes.items() if outcome.breaches}
    assert in_breach == set(judgement.outcomes) - {"idle-notebooks", "idle-endpoints", "memory-held-idle"}
