"""The facts told of a fleet: the whole vocabulary, in the words of the rows they are about."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.facts import BASE, TELEMETRY, Facts
from policies.policy import DEFAULT_PROFILE
from service.pipeline.decide import decide
from service.pipeline.evaluate import Rows
from tests.pipeline.builders import NOW, known, world


def told() -> Facts:
    return decide(world(known("i-1"), known("i-2")), NOW).judged.facts


def test_every_fact_of_the_vocabulary_is_told_of_every_resource() -> None:
    facts = told()
    assert set(facts.base) == {column.name for column in BASE}
    assert set(facts.activity[DEFAULT_PROFILE.key]) == {column.name for column in TELEMETRY}
    assert {len(list(column)) for column in (*facts.base.values(), *facts.activity[DEFAULT_PROFILE.key].values())} == {
        2
    }


def test_a_column_says_the_same_read_through_and_row_by_row() -> None:
    facts = told()
    columns = {**facts.base, **facts.activity[DEFAULT_PROFILE.key]}
    assert {name: list(column) for name, column in columns.items()} == {
        name: [column[0], column[1]] for name, column in columns.items()
    }
    assert list(facts.tags) == [facts.tags[0], facts.tags[1]]
    assert sorted(facts.base["external_id"]) == ["i-1", "i-2"]


@given(st.lists(st.text("abc", max_size=3), unique=True), st.text("abc", max_size=3))
def test_a_row_is_found_in_whatever_order_the_resources_are(ids: list[str], other: str) -> None:
    rows = Rows([known(id=id) for id in ids])
    assert {id: rows[id] for id in ids} == {id: row for row, id in enumerate(ids)} == dict(rows)
    assert (other in rows) == (other in ids)
