"""The one door to the pure middle: attribute → price → allocate → evaluate → meter → plan, from values to a ruling.

Called by the live cycle, by the re-check before an act, and by previews; with the same inputs it gives the same
ruling, whatever the time of day outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from policies.policy import DEFAULT_PROFILE, Mode
from providers.records import Price, ResourceRef
from service.documents import Discount, Exemption, Project
from service.model import BudgetKey, Interval, Known, MeterChange, SourceAnswer, Spent, Telemetry
from service.pipeline.allocate import allocate, one_machine_each
from service.pipeline.attribute import attributed
from service.pipeline.budget import hourly_of, states
from service.pipeline.currency import Rates
from service.pipeline.evaluate import Judged, Look, groups_in, judge, of_members
from service.pipeline.meter import LONGEST_GAP, CostToDate, meter
from service.pipeline.plan import InForce, Limits, Plan, Standing, plan
from service.pipeline.price import PriceFile, price_of
from service.pipeline.reconcile import Reconciled, reconcile


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything a ruling rests on."""

    known: Mapping[str, Known]
    answers: Sequence[SourceAnswer]
    quotes: Mapping[ResourceRef, Price]
    telemetry: Telemetry
    sources: Mapping[str, Mode]
    """Name → ceiling."""
    projects: Mapping[str, Project]
    policies: Mapping[str, InForce]
    exemptions: Sequence[Exemption]
    standing: Standing
    limits: Limits
    intervals: Mapping[str, Interval]
    """Each resource's latest meter interval."""
    last_look: datetime | None = None
    """When a cycle last came to its end; what happened since is assumed when that is longer ago than `longest_gap`."""
    longest_gap: timedelta = LONGEST_GAP
    spent: Mapping[BudgetKey, Spent] = field(default_factory=dict)
    """What each spend budget asks of the meter."""
    rates: Rates = field(default_factory=Rates)
    prices: PriceFile = field(default_factory=PriceFile)
    discounts: Mapping[str, Sequence[Discount]] = field(default_factory=dict)
    """Source → what comes off its provider's prices."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What was decided; nothing of it is done yet."""

    resources: tuple[Known, ...]
    """All that have not ended long ago, changed or not."""
    by_id: dict[str, Known]
    changed: frozenset[str]
    """Ids whose stored row differs."""
    meter: tuple[MeterChange, ...]
    look: Look
    judged: Judged
    plan: Plan


def _as_it_was(known: Known, world: World) -> Known:
    """The very value we had, where nothing of it changed: a fleet is kept in memory once. One that was read from the
    database gives way to its like, whose record its source keeps too."""
    before = world.known.get(known.id)
    return before if before is not None and before.record is known.record and before == known else known


def _has_changed(known: Known, world: World) -> bool:
    before = world.known.get(known.id)
    return before is not known and before != known


def _priced(known: Known, world: World, on: date) -> Known:
    """With what is said of its price now, else what was said before."""
    if known.is_group:
        return known
    discounts = world.discounts.get(known.source, ())
    price = price_of(known.record, world.prices, world.quotes, discounts, on=on)
    return known if price is None or price == known.price else replace(known, price=price)


def _with_groups(resources: Iterable[Known]) -> tuple[Known, ...]:
    """What groups take from their members. At zero a group keeps its price."""
    resources = tuple(resources)
    after = {group.id: of_members(group, members) for group, members in groups_in(resources) if members}
    return tuple(after.get(known.id, known) for known in resources)


def _merged(world: World, now: datetime) -> Reconciled:
    """All resources as they are after this look, with who pays for them and what they cost."""
    merged = reconcile(world.known, world.answers, world.sources, now)
    machines = one_machine_each(merged.resources)
    today = now.astimezone(UTC).date()
    priced = [_priced(attributed(known, world.projects, now), world, today) for known in machines]
    costing = _with_groups(allocate(priced, world.projects))
    return replace(merged, resources=tuple(_as_it_was(known, world) for known in costing))


def decide(world: World, now: datetime) -> Ruling:
    """Attribute, price, evaluate, meter (idle time has its own intervals), plan: in this order, on values only."""
    merged = _merged(world, now)
    resources = merged.resources
    governed = [known for known in resources if known.governed]
    look = Look(
        resources=governed,
        seen=merged.seen,
        telemetry=world.telemetry,
        cost_to_date=CostToDate(intervals=world.intervals, at=now),
        at=now,
        projects=world.projects,
        budgets=states(world.projects, world.spent, hourly_of(governed), world.rates, now),
    )
    judged = judge(look, [in_force.policy for in_force in world.policies.values()])
    changes = meter(
        resources,
        world.intervals,
        now,
        activity=judged.activity[DEFAULT_PROFILE.key],
        last_look=world.last_look,
        longest_gap=world.longest_gap,
    )
    by_id = {known.id: known for known in resources}
    planned = plan(
        resources=by_id,
        judged=judged,
        lost=merged.lost,
        policies=world.policies,
        projects=world.projects,
        exemptions=world.exemptions,
        standing=world.standing,
        limits=world.limits,
        now=now,
        last_look=world.last_look,
    )
    changed = frozenset(known.id for known in resources if _has_changed(known, world))
    return Ruling(
        resources=resources,
        by_id=by_id,
        changed=changed,
        meter=tuple(changes),
        look=look,
        judged=judged,
        plan=planned,
    )
