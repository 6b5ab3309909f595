"""Turns the verdicts of members into the verdict of their group. Pure.

A group is met as a whole: only when every member that is asked is in breach. Members of a group that a policy speaks of
are met through it and never by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from policies.codes import BREACH, FORESEEN, OK, OUT, UNKNOWN, WHEN_FALSE, WHERE_UNKNOWN
from policies.facts import Facts
from policies.policy import BasePolicy, Remedy, SpotPolicy

_DOWN = frozenset({"stopping", "stopped", "suspended", "terminated"})


@dataclass(frozen=True, kw_only=True)
class Folded:
    """One policy's codes once groups speak for their members."""

    codes: bytes
    spoken_for: frozenset[int] = frozenset()
    """Rows that are met through their group, or only judged for its sake."""
    decided_by: dict[int, int | None] = field(default_factory=dict)
    """Row of a group → the member its verdict rests on most; None when it rests on none."""


def fold(codes: bytes, facts: Facts, policy: BasePolicy) -> Folded:
    """The verdicts of groups, from those of their members."""
    if not facts.members:
        return Folded(codes=codes)
    after, spoken_for = bytearray(codes), set[int]()
    decided_by: dict[int, int | None] = {}
    kinds = policy.scope.kinds
    for group, members in facts.members.items():
        known = [row for row in members if row is not None]
        if codes[group] < OUT:
            spoken_for.update(known)
        elif kinds:
            spoken_for.update(row for row in known if facts.base["kind"][row] not in kinds)
        if codes[group] < OUT and facts.base["state"][group] is None:
            after[group], decided_by[group] = UNKNOWN, None  # nor is it known whom it has now
        elif codes[group] < OUT and codes[group] != WHERE_UNKNOWN:
            after[group], decided_by[group] = _together(codes, _asked(members, facts, policy))
    return Folded(codes=bytes(after), spoken_for=frozenset(spoken_for), decided_by=decided_by)


def whom(policy: BasePolicy) -> str:
    """Which members of a group are asked, to be read after `every member that`."""
    return "runs on anything but spot" if _moves_to_spot(policy) else "runs"


def _moves_to_spot(policy: BasePolicy) -> bool:
    return isinstance(policy, SpotPolicy) and policy.action is Remedy.MOVE_TO_SPOT


def _asked(members: Sequence[int | None], facts: Facts, policy: BasePolicy) -> list[int | None]:
    """Whoever is down is no longer asked; nor, whether its group should launch on spot, whoever is seen to be on it."""
    states, capacity = facts.base["state"], facts.base["capacity_type"]
    up = [row for row in members if row is None or states[row] not in _DOWN]
    if not _moves_to_spot(policy):
        return up
    return [row for row in up if row is None or states[row] is None or capacity[row] != "spot"]


def _together(codes: bytes, asked: Sequence[int | None]) -> tuple[int, int | None]:
    """The group's code, and the row it rests on most."""
    if not asked:
        return OK, None
    rows = [row for row in asked if row is not None]
    spared = [row for row in rows if codes[row] in (OK, WHEN_FALSE) or codes[row] >= OUT]
    if spared:
        return OK, spared[0]
    if None in asked:
        return UNKNOWN, None
    for row in rows:
        if codes[row] not in (BREACH, FORESEEN):
            return UNKNOWN, row
    ahead = next((row for row in rows if codes[row] == FORESEEN), None)
    return (BREACH, rows[0]) if ahead is None else (FORESEEN, ahead)
