"""Counts the fleet for the metrics page: how many resources and GPUs there are of each kind, what they cost an hour,
and of how many it is known what they do. Nothing is read or judged here.

A fleet has many machines and few kinds of them: what a machine counts as is told once, for as long as it is the very
value it was, and the amounts of each kind are added once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, compress, repeat
from operator import attrgetter, is_not

from policies.policy import DEFAULT_PROFILE
from providers.records import State
from service.model import Known
from service.pipeline.activity import UNKNOWN
from service.pipeline.evaluate import Judged

Labels = tuple[str, ...]
PLACE = ("project", "provider", "region", "kind")
WHAT = (*PLACE, "state", "gpu_model", "capacity_type", "activity")


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What there is, by `WHAT`, but for coverage."""

    resources: Counter[Labels] = field(default_factory=Counter)
    gpus: dict[Labels, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    hourly_micros: Counter[Labels] = field(default_factory=Counter)
    """By currency too."""
    running: Counter[Labels] = field(default_factory=Counter)
    """By source."""
    known: Counter[Labels] = field(default_factory=Counter)
    """Of them, those whose activity is known."""

    @property
    def coverage(self) -> dict[Labels, float]:
        return {source: self.known[source] / count for source, count in self.running.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    """All that a resource is counted by which does not change with the time."""

    source: str
    place: Labels
    gpu_model: str
    capacity_type: str
    counted: bool
    """A group is a resource; its GPUs and its cost are its members', and counted with them."""
    gpus: Fraction
    """Whole ones: slices as what they are of one. What workloads hold of a machine is counted with them."""
    in_cluster: bool
    """What is counted of it is what nobody requested."""
    rate_micros: int | None
    currency: str


class _Kind:
    """Resources of which the same is told: compared by being it, for that is asked of every one of them."""

    __slots__ = ("told",)

    def __init__(self, told: _Told) -> None:
        self.told = told


@dataclass(kw_only=True)
class Census:
    """What resources counted as when they were last counted; it may be forgotten at any time."""

    resources: Sequence[Known] = field(default=(), repr=False)
    kinds: list[_Kind] = field(default_factory=list, repr=False)
    """Of each of them."""

    def count(self, resources: Sequence[Known], judged: Judged) -> Counts:
        """These, which are those that were judged."""
        did = map(judged.activity[DEFAULT_PROFILE.key].get, map(attrgetter("id"), resources), repeat(UNKNOWN))
        states, activities = judged.facts.base["state"], [one.activity for one in did]
        counts = Counts()
        for (kind, state, activity), number in Counter(
            zip(self._kinds(resources), states, activities, strict=True)
        ).items():
            _add(counts, kind.told, state or State.UNKNOWN.value, activity or "unknown", number)
        return counts

    def _kinds(self, resources: Sequence[Known]) -> list[_Kind]:
        before, kinds = self.resources, self.kinds
        others = list(compress(range(len(resources)), map(is_not, resources, chain(before, repeat(None)))))
        same = {kind.told: kind for kind in set(kinds)} if others else {}
        if len(resources) == len(before) and all(resources[row].id == before[row].id for row in others):
            told = {row: _kind(resources[row], same) for row in others}
            kinds = [told.get(row, kind) for row, kind in enumerate(kinds)] if told else kinds
        else:  # some came or went, and others have moved up
            there = dict(zip(map(id, before), kinds, strict=True))
            kinds = [there.get(id(known)) or _kind(known, same) for known in resources]
        self.resources, self.kinds = resources, kinds
        return kinds


def _kind(known: Known, same: dict[_Told, _Kind]) -> _Kind:
    record, ref = known.record, known.record.ref
    held = 0 if known.lent is None else known.lent.share
    whole = record.gpu_count * Fraction(record.gpu_share).limit_denominator(1000)
    told = _Told(
        source=known.source,
        place=(known.project or "", ref.provider, ref.region, ref.kind.value),
        gpu_model=record.gpu_model or "",
        capacity_type=record.capacity_type.value,
        counted=ref.kind.counted,
        gpus=whole * (1 - held),
        in_cluster=known.lent is not None,
        rate_micros=known.rate_micros,
        currency="" if known.price is None else known.price.currency,
    )
    return same.setdefault(told, _Kind(told))


def _add(counts: Counts, told: _Told, state: str, activity: str, number: int) -> None:
    running = state == State.RUNNING
    doing = "unrequested" if told.in_cluster else activity
    key = (*told.place, state, told.gpu_model, told.capacity_type, doing if running else "")
    counts.resources[key] += number
    if not told.counted:
        return
    counts.gpus[key] += told.gpus * number
    if told.rate_micros is not None:
        counts.hourly_micros[*key, told.currency] += told.rate_micros * number
    if running:
        counts.running[told.source,] += number
        counts.known[told.source,] += number if activity != "unknown" else 0
