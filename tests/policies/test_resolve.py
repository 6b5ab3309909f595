"""Several due decisions on one resource become one act."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import Remedy
from policies.resolve import MILDEST_FIRST, Candidate, resolve

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def due(policy: str, remedy: Remedy = Remedy.STOP, *, minutes: int = 0, resource: str = "r1") -> Candidate:
    return Candidate(
        policy=policy,
        resource_id=resource,
        remedy=remedy,
        due_at=NOON + timedelta(minutes=minutes),
        finding_id=f"finding-of-{policy}",
    )


WINNERS = {
    "the only one": ([due("a")], "a"),
    "stop before terminate, even when due later": ([due("a", Remedy.TERMINATE), due("b", minutes=9)], "b"),
    "suspend before stop": ([due("a"), due("b", Remedy.SUSPEND)], "b"),
    "hibernate before stop": ([due("a"), due("b", Remedy.HIBERNATE)], "b"),
    "suspend before hibernate": ([due("a", Remedy.HIBERNATE), due("b", Remedy.SUSPEND)], "b"),
    "stop before scale to zero": ([due("a", Remedy.SCALE_TO_ZERO), due("b")], "b"),
    "scale to zero before move to spot": ([due("a", Remedy.MOVE_TO_SPOT), due("b", Remedy.SCALE_TO_ZERO)], "b"),
    "move to spot before terminate": ([due("a", Remedy.TERMINATE), due("b", Remedy.MOVE_TO_SPOT)], "b"),
    "an act before a word, which would satisfy nobody": ([due("a", Remedy.NOTIFY), due("b", Remedy.TERMINATE)], "b"),
    "the same act: who was due first": ([due("a", minutes=1), due("b")], "b"),
    "the same act at the same time: by name": ([due("b"), due("a")], "a"),
}


@pytest.mark.parametrize(("candidates", "want"), WINNERS.values(), ids=WINNERS.keys())
def test_the_mildest_act_wins(candidates: list[Candidate], want: str) -> None:
    winner, losers = resolve(candidates)
    assert winner.policy == want
    assert {winner, *losers} == set(candidates)


def test_every_remedy_has_its_place() -> None:
    assert sorted(MILDEST_FIRST) == sorted(Remedy)


@given(
    st.permutations([due("a"), due("b"), due("c", Remedy.TERMINATE), due("d", Remedy.SUSPEND), due("e", minutes=-5)])
)
def test_the_order_they_come_in_does_not_matter(candidates: list[Candidate]) -> None:
    winner, losers = resolve(candidates)
    assert [candidate.policy for candidate in (winner, *losers)] == ["d", "e", "a", "b", "c"]


def test_nothing_and_two_resources_cannot_be_resolved() -> None:
    for candidates in ([], [due("a"), due("b", resource="r2")]):
        with pytest.raises(ValueError, match="exactly one resource"):
            resolve(candidates)
