"""What makes a policy the same one for whoever has tried it: everything that decides what it stops and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.digest import DECIDES_NOTHING, digest
from policies.policy import BasePolicy, Policy
from policies.quantities import Money

READ: TypeAdapter[Any] = TypeAdapter(Policy)

WRITTEN: dict[str, Any] = {
    "name": "idle-gpus",
    "type": "idle",
    "mode": "observe",
    "scope": {"projects": ["vision"], "tags": {"team": "a", "stage": "b"}, "where": "gpu_count >= 1"},
    "idle": {"for": "45m", "utilisation_below": 0.05},
    "grace": "30m",
    "action": "stop",
    "notify": ["mailto://lead@example.org"],
    "accept_loss": ["local_disks"],
    "disruption_budget": {"max": "10%"},
    "cool_down": "4h",
    "description": "GPUs that do nothing",
}


def a_policy(**changes: Any) -> BasePolicy:
    policy: BasePolicy = READ.validate_python({**WRITTEN, **changes})
    return policy


SAME: dict[str, dict[str, Any]] = {
    "how far it may go": {"mode": "enforce"},
    "whom it tells": {"notify": []},
    "what it says of itself": {"description": "others"},
    "who is asked first": {"approval": "required"},
    "an order that means nothing": {"scope": {**WRITTEN["scope"], "tags": {"stage": "b", "team": "a"}}},
    "another way to write a length": {"grace": "PT30M", "idle": {"for": "45m0s", "utilisation_below": 0.05}},
    "a default that is written out": {"idle": {**WRITTEN["idle"], "min_coverage": "90%", "busy_gpus_below": 1}},
}
OTHER: dict[str, dict[str, Any]] = {
    "a name": {"name": "idle-gpu"},
    "a scope": {"scope": {**WRITTEN["scope"], "projects": ["vision", "speech"]}},
    "a condition": {"scope": {**WRITTEN["scope"], "where": "gpu_count >= 2"}},
    "a window": {"idle": {**WRITTEN["idle"], "for": "46m"}},
    "a threshold, even a stricter one": {"idle": {**WRITTEN["idle"], "utilisation_below": 0.04}},
    "a warm-up": {"idle": {**WRITTEN["idle"], "warm_up": "16m"}},
    "a longer grace": {"grace": "31m"},
    "an action": {"action": "terminate", "accept_loss": ["local_disks"]},
    "an accepted loss": {"accept_loss": []},
    "a disruption budget": {"disruption_budget": {"max": 10}},
    "a count in the place of a share": {"disruption_budget": {"max": 1}},
    "all as a share": {"disruption_budget": {"max": "100%"}},
    "a cool-down": {"cool_down": "5h"},
    "a type": {"type": "lifetime", "idle": None, "lifetime": {"max": "72h"}},
}


@pytest.mark.parametrize("case", SAME)
def test_it_stays_the_same_with_another(case: str) -> None:
    assert digest(a_policy(**SAME[case])) == digest(a_policy())


@pytest.mark.parametrize("case", OTHER)
def test_it_is_another_with_another(case: str) -> None:
    fields = {**WRITTEN, **OTHER[case]}
    policy = READ.validate_python({key: value for key, value in fields.items() if value is not None})
    assert digest(policy) != digest(a_policy())


def test_no_two_of_these_are_the_same() -> None:
    policies = [
        {key: value for key, value in {**WRITTEN, **more}.items() if value is not None} for more in OTHER.values()
    ]
    assert len({digest(READ.validate_python(body)) for body in policies}) == len(OTHER)


TYPES: dict[str, dict[str, Any]] = {
    "idle": {},
    "ownership": {},
    "spot": {},
    "schedule": {"schedule": {"on": "Mo-Fr 08:00-20:00"}},
    "lifetime": {"lifetime": {"max": "72h"}},
    "residency": {"residency": {"allowed_regions": ["eu-*"]}},
    "quota": {"quota": {"max_gpus": 16}},
    "expression": {"expression": {"when": "gpu_count > 8"}},
    "budget": {"budget": {"budget": "monthly"}},
}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every single value of a policy as it is hashed, empty lists and maps among them."""
    if isinstance(value, dict) and value:
        return [leaf for key, entry in value.items() for leaf in leaves(entry, (*path, key))]
    return [path]


def moved(value: Any) -> Any:
    """Another value of its kind, whether it makes sense or not."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case timedelta():
            return value + timedelta(seconds=1)
        case tuple():
            return (*value, "x")
        case dict():
            return {**value, "x": "y"}
    return "x"


UNSET = {"max_hourly_cost": Money(amount=1_000_000), "backstop": timedelta(hours=6)}
"""Values for what is not set at first, where no text would do."""


def changed(policy: BasePolicy, path: tuple[Any, ...]) -> BasePolicy:
    """A copy with one value moved; nothing is validated, so that no field is left out."""
    head, *rest = path
    value = getattr(policy, head)
    inner: Any
    if not rest:
        inner = UNSET[head] if value is None and head in UNSET else moved(value)
    elif isinstance(value, dict):
        inner = {**value, rest[0]: moved(value[rest[0]])}
    else:
        inner = changed(value, tuple(rest))
    return policy.model_copy(update={head: inner})


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # values that no document could have
@given(st.data())
def test_any_single_field_makes_it_another_but_for_those_that_decide_nothing(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(TYPES)))
    policy = READ.validate_python({"name": "p", "type": kind, "scope": {"tags": {"team": "a"}}, **TYPES[kind]})
    path = data.draw(st.sampled_from(leaves(policy.model_dump(by_alias=False))))
    same = digest(changed(policy, path)) == digest(policy)
    assert same is (path[0] in DECIDES_NOTHING)
