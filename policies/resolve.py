"""Several due decisions on one resource become one act; the others are kept as evidence.

The mildest act wins, because every act can be followed by a sterner one and none can be followed by a milder one: who
is stopped today can still be terminated tomorrow, if that policy still finds a breach then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from policies.policy import Remedy

MILDEST_FIRST = (
    Remedy.SUSPEND,  # keeps the memory
    Remedy.HIBERNATE,  # keeps the memory, on disk
    Remedy.STOP,  # loses the memory
    Remedy.SCALE_TO_ZERO,  # loses the members, keeps the group
    Remedy.MOVE_TO_SPOT,  # replaces the machine
    Remedy.TERMINATE,  # loses everything
    Remedy.NOTIFY,  # changes nothing, so it satisfies nobody who is due an act
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One finding whose act is due."""

    policy: str
    resource_id: str
    remedy: Remedy
    due_at: datetime
    finding_id: str


def resolve(candidates: Iterable[Candidate]) -> tuple[Candidate, tuple[Candidate, ...]]:
    """The one to act on, then the losers in the order they would have been chosen. All are of one resource."""
    ordered = sorted(candidates, key=_rank)
    if len({candidate.resource_id for candidate in ordered}) != 1:
        raise ValueError("candidates of exactly one resource can be resolved")
    return ordered[0], tuple(ordered[1:])


def _rank(candidate: Candidate) -> tuple[int, datetime, str, str]:
    return MILDEST_FIRST.index(candidate.remedy), candidate.due_at, candidate.policy, candidate.finding_id
