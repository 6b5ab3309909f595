"""A fleet that is counted again counts as if it were counted for the first time, whatever changed in between."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.evaluate import evaluate
from policies.policy import DEFAULT_PROFILE
from providers.records import Kind, State
from service.census import Census
from service.model import Known, Lent
from service.pipeline.activity import Activity
from service.pipeline.evaluate import Judged, facts_of
from tests.pipeline.builders import NOW, PRICE, known, record


def machine(name: str, *, kind: Kind = Kind.INSTANCE, state: State = State.RUNNING, **more: Any) -> Known:
    return known(record=record(name, kind=kind, state=state), **more)


def judged(resources: list[Known], did: Mapping[str, str], unseen: Collection[str] = ()) -> Judged:
    """Who did what, by name; of others that is not known."""
    activities = {
        DEFAULT_PROFILE.key: {
            one.id: Activity(activity=did[one.record.name]) for one in resources if one.record.name in did
        }
    }
    seen = frozenset(one.id for one in resources if one.record.name not in unseen)
    facts = facts_of(resources, [], seen, activities, {}, NOW)
    rows = {one.id: row for row, one in enumerate(resources)}
    return Judged(facts=facts, rows=rows, activity=activities, judgement=evaluate(facts, []), at=NOW)


def by(state: str, activity: str = "", kind: str = "instance") -> tuple[str, ...]:
    return "vision", "aws", "us-east-1", kind, state, "H100", "on_demand", activity


def test_what_is_counted_by_what() -> None:
    resources = [
        machine("a"),
        machine("b"),
        machine("c"),
        machine("stopped", state=State.STOPPED),
        machine("unseen"),
        machine("unpriced", state=State.STOPPED, price=None),
        machine("group", kind=Kind.NODE_GROUP),
        machine("shared", lent=Lent(share=Fraction(1, 3), micros=PRICE.rate_micros // 4)),
    ]
    counts = Census().count(resources, judged(resources, {"a": "idle", "b": "busy", "shared": "busy"}, ["unseen"]))
    assert counts.resources == {
        by("running", "idle"): 1,
        by("running", "busy"): 1,
        by("running", "unrequested"): 1,
        by("running", "unknown"): 1,
        by("running", "unknown", "node_group"): 1,
        by("stopped"): 2,
        by("unknown"): 1,
    }
    assert counts.gpus == {
        by("running", "idle"): 8,
        by("running", "busy"): 8,
        by("running", "unrequested"): 8 - Fraction(8, 3),
        by("running", "unknown"): 8,
        by("stopped"): 16,
        by("unknown"): 8,
    }
    assert counts.hourly_micros == {
        (*by("running", "idle"), "USD"): 55_040_000,
        (*by("running", "busy"), "USD"): 55_040_000,
        (*by("running", "unrequested"), "USD"): 55_040_000 - 13_760_000,
        (*by("running", "unknown"), "USD"): 55_040_000,
        (*by("stopped"), "USD"): 0,
        (*by("unknown"), "USD"): 55_040_000,
    }
    assert counts.coverage == {("research",): 3 / 4}


changes = st.lists(
    st.one_of(
        st.tuples(st.just("comes"), st.integers(0, 9)),
        st.tuples(st.just("goes"), st.integers(0, 9)),
        st.tuples(st.just("moves to"), st.integers(0, 9), st.sampled_from(["vision", "nlp", None])),
        st.tuples(st.just("costs"), st.integers(0, 9), st.sampled_from([None, 1, 10**9])),
        st.tuples(st.just("is told again"), st.integers(0, 9)),
        st.tuples(st.just("stands elsewhere"), st.integers(0, 9)),
        st.tuples(st.just("is busy"), st.integers(0, 9)),
    ),
    max_size=4,
)
"""What happens between two counts, to the machine of that row."""


def happens(fleet: list[Known], row: int, what: str, *more: Any) -> None:
    if what == "comes":
        fleet.insert(row, machine(f"i-{max((int(one.record.name[2:]) for one in fleet), default=0) + 1}"))
        return
    if row >= len(fleet):
        return
    one = fleet[row]
    match what, more:
        case "goes", ():
            fleet.pop(row)
        case "moves to", (project,):
            fleet[row] = replace(one, project=project)
        case "costs", (rate,):
            fleet[row] = replace(one, price=None if rate is None else replace(PRICE, rate_micros=rate))
        case "is told again", ():
            fleet[row] = replace(one)
        case "stands elsewhere", ():
            fleet.append(fleet.pop(row))


@given(st.lists(changes, min_size=1, max_size=6))
def test_counted_again_it_counts_as_if_for_the_first_time(story: list[list[tuple[Any, ...]]]) -> None:
    census, fleet = Census(), [machine(f"i-{number}") for number in range(4)]
    for together in story:
        did = {}
        for what, row, *more in together:
            happens(fleet, row, what, *more)
            if what == "is busy":
                did[f"i-{row}"] = "busy"
        now = list(fleet)
        assert census.count(now, judged(now, did)) == Census().count(now, judged(now, did))
