"""Joins the lists of one subscription into its records: machines with their power states and the sets that make them,
so that each is there once and says whose it is. Pure: no call is made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from providers.azure import translate, translate_groups
from providers.azure.groups import Members
from providers.azure.listing import Listed
from providers.azure.translate import NOTHING, PLAIN, Around, MachineType, View
from providers.azure.translate_groups import Autoscale, Seen, Types
from providers.errors import together
from providers.records import Fault, PartReport, ResourceRecord

Answer = Mapping[str, Any]

EVERY_REGION = "*"
"""The part that speaks for all machines of a subscription, those of its silent regions excepted."""


class Machine(NamedTuple):
    """A machine with accelerators, as it was listed."""

    answer: Answer
    type: MachineType


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """The machines of a subscription, as the plain list tells them."""

    found: Sequence[Machine] = ()
    ids: Set[str] = frozenset()
    """Of all machines, those without accelerators too, in small letters."""
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Those without accelerators that are in scale sets, by the set's id in small letters."""
    regions: Mapping[str, Fault] = field(default_factory=dict)
    """Those of which not all is known, and why."""
    complete: bool = True
    fault: Fault | None = None


class Power(NamedTuple):
    view: View
    region: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Powers:
    """What the machines of a subscription are doing, as the list of states tells it, by id in small letters."""

    views: Mapping[str, Power] = field(default_factory=dict)
    complete: bool = True
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """All lists of a subscription. One that failed is empty, and not complete."""

    subscription: str
    machines: Machines = field(default_factory=Machines)
    powers: Powers = field(default_factory=Powers)
    scale_sets: Listed = field(default_factory=Listed)
    clusters: Listed = field(default_factory=Listed)
    workspaces: Listed = field(default_factory=Listed)

    def doubtful(self) -> Mapping[str, str]:
        """Machines that only one of both lists tells of, or whose power state was not told, with their regions: each is
        to be asked for by itself. By id in small letters.
        """
        views = self.powers.views
        found = {
            key: translate.location(machine.answer["location"])
            for machine in self.machines.found
            if (key := translate.folded(machine.answer["id"])) not in views or views[key].view.power is None
        }
        if self.machines.complete:
            found |= {key: views[key].region for key in views.keys() - self.machines.ids}
        return found

    def asked_sets(self, types: Types) -> Iterator[Answer]:
        """Uniform scale sets with accelerators, whose instances no list of machines tells."""
        for scale_set in self.scale_sets.answers:
            if translate_groups.is_uniform(scale_set) and translate_groups.may_have_instances(scale_set):
                skus = translate_groups.launched_skus(scale_set)
                if translate_groups.has_accelerators(skus, types):
                    yield scale_set

    def has_ours(self, types: Types) -> bool:
        """Whether anything here is or may be ours, so that what surrounds it is worth asking."""
        return (
            bool(self.machines.found or self.workspaces.answers)
            or any(
                translate_groups.has_accelerators(translate_groups.launched_skus(one), types)
                for one in self.scale_sets.answers
            )
            or any(
                translate_groups.has_accelerators(translate_groups.pool_skus(pool), types)
                for cluster in self.clusters.answers
                for pool in translate_groups.pools_of(cluster)
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class More:
    """What was asked once the lists were there; every key is in small letters."""

    alone: Mapping[str, Answer | None] = field(default_factory=dict)
    """Doubtful machines as each is by itself; None for one that is gone."""
    unanswered: Mapping[str, Fault] = field(default_factory=dict)
    """Regions of doubtful machines that were not told by themselves either."""
    instances: Mapping[str, Members] = field(default_factory=dict)
    """Of scale sets, by id; one that was not told has a fault and no answers."""
    computes: Sequence[Answer] = ()
    computes_faults: Sequence[Fault] = ()
    around: Around = NOTHING
    autoscales: Mapping[str, Autoscale] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    """Of what surrounds the machines: it is asked again before anything is done to one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    records: Sequence[ResourceRecord]
    parts: Sequence[PartReport]


def joined(look: Look, more: More, types: Types) -> Joined:
    """A subscription's records, and how complete they are."""
    single = [*_machines(look, more, types)]
    instances = [record for one in look.asked_sets(types) for record in _instances(one, look, more, types)]
    machines = [*single, *instances]
    computes = [*_computes(look, more, types)]
    return Joined(
        records=[*machines, *_scale_sets(look, more, types, machines), *_pools(look, more, types, machines), *computes],
        parts=[*_reports(look, more, types)],
    )


# Machines.


def _machines(look: Look, more: More, types: Types) -> Iterator[ResourceRecord]:
    """Each as both lists together tell it, or as it is by itself."""
    for machine in look.machines.found:
        power = look.powers.views.get(translate.folded(machine.answer["id"]))
        if power is not None and power.view.power is not None:
            yield _record(machine.answer, power.view, machine.type, look, more)
    for answer in _alone(more):
        machine_type = types(translate.sku_of(answer)) or PLAIN
        if machine_type.devices is not None:
            yield _record(answer, view_in(answer), machine_type, look, more)


def view_in(answer: Answer) -> View:
    """Of a machine that was asked for with its instance view."""
    return translate.view_of((answer.get("properties") or {}).get("instanceView"))


def _alone(more: More) -> Iterator[Answer]:
    return (answer for answer in more.alone.values() if answer is not None)


def _record(answer: Answer, view: View, machine: MachineType, look: Look, more: More) -> ResourceRecord:
    return translate.record(answer, view, account=look.subscription, machine=machine, around=more.around)


def _instances(scale_set: Answer, look: Look, more: More, types: Types) -> Iterator[ResourceRecord]:
    for answer in _told(scale_set, more).answers:
        machine = types(translate_groups.instance_sku(answer, scale_set)) or PLAIN
        if machine.devices is not None:
            yield translate_groups.instance_record(
                answer, scale_set, account=look.subscription, machine=machine, around=more.around
            )


def _told(scale_set: Answer, more: More) -> Members:
    return more.instances.get(translate.folded(scale_set["id"]), Members())


# Those that make them.


def _scale_sets(look: Look, more: More, types: Types, machines: Sequence[ResourceRecord]) -> Iterator[ResourceRecord]:
    members = _by_set(look, more, machines)
    for scale_set in look.scale_sets.answers:
        if translate_groups.of_node_pool(scale_set) or _unseen(scale_set, look, more):
            continue
        seen = Seen(
            members=members.get(translate.folded(scale_set["id"]), ()),
            others=_others(scale_set, look, more, members.get(translate.folded(scale_set["id"]), ())),
            kept=_kept(scale_set, more),
            types=types,
            autoscale=more.autoscales.get(translate.folded(scale_set["id"])),
        )
        record = translate_groups.record_of_scale_set(scale_set, seen, account=look.subscription, around=more.around)
        if record is not None:
            yield record


def _unseen(scale_set: Answer, look: Look, more: More) -> bool:
    """Whether its machines were not told: it must not look as if it had none."""
    if translate_groups.is_uniform(scale_set):
        return not _told(scale_set, more).complete
    return not look.machines.complete


def _kept(scale_set: Answer, more: More) -> Sequence[str]:
    return [one["name"] for one in _told(scale_set, more).answers if translate_groups.is_protected(one)]


def _others(scale_set: Answer, look: Look, more: More, members: Sequence[ResourceRecord]) -> Sequence[str]:
    """Machines of a set that are no records of ours, for want of accelerators or of an answer: they go with it, too."""
    path = translate.folded(scale_set["id"])
    if translate_groups.is_uniform(scale_set):
        found = [translate.canonical(one["id"]) for one in _told(scale_set, more).answers]
    else:
        ours = (
            machine.answer["id"]
            for machine in look.machines.found
            if translate.folded(translate.scale_set_of(machine.answer) or "") == path
            and more.alone.get(translate.folded(machine.answer["id"]), machine) is not None
        )
        found = [*map(translate.canonical, ours), *look.machines.beside.get(path, ())]
    known = {one.ref.external_id for one in members}
    return [one for one in found if one not in known]


def _by_set(look: Look, more: More, machines: Sequence[ResourceRecord]) -> Mapping[str, Sequence[ResourceRecord]]:
    """Machines by the scale set they are in."""
    flexible = {}
    for answer in (*(machine.answer for machine in look.machines.found), *_alone(more)):
        if scale_set := translate.scale_set_of(answer):
            flexible[translate.folded(answer["id"])] = translate.folded(scale_set)
    found: dict[str, list[ResourceRecord]] = {}
    for record in machines:
        path = translate.folded(record.ref.external_id)
        owner = flexible.get(path) or path.rpartition("/virtualmachines/")[0]
        found.setdefault(owner, []).append(record)
    return found


def _pools(look: Look, more: More, types: Types, machines: Sequence[ResourceRecord]) -> Iterator[ResourceRecord]:
    nodes: dict[tuple[str, str], list[ResourceRecord]] = {}
    for record in machines:
        if key := translate_groups.node_pool_of(record):
            nodes.setdefault(key, []).append(record)
    kept: dict[tuple[str, str], list[str]] = {}
    others: dict[tuple[str, str], list[str]] = {}
    unseen = set()
    for scale_set in filter(translate_groups.of_node_pool, look.scale_sets.answers):
        key = translate_groups.pool_of(scale_set)
        kept.setdefault(key, []).extend(_kept(scale_set, more))
        others.setdefault(key, []).extend(_others(scale_set, look, more, nodes.get(key, ())))
        if _unseen(scale_set, look, more):
            unseen.add(key)
    for cluster in look.clusters.answers if _nodes_told(look) else ():
        for pool in translate_groups.pools_of(cluster):
            key = (translate_groups.node_group_of(cluster), pool["name"].lower())
            if key in unseen:
                continue
            seen = Seen(members=nodes.get(key, ()), others=others.get(key, ()), kept=kept.get(key, ()), types=types)
            record_ = translate_groups.record_of_node_pool(
                cluster, pool, seen, account=look.subscription, around=more.around
            )
            if record_ is not None:
                yield record_


def _nodes_told(look: Look) -> bool:
    """Whether the machines that nodes are were told: no pool must look as if it had none."""
    return look.scale_sets.complete and look.machines.complete


def _computes(look: Look, more: More, types: Types) -> Iterator[ResourceRecord]:
    for answer in more.computes:
        machine = types(translate.compute_sku(answer)) or PLAIN
        if machine.devices is not None:
            yield translate.compute_record(answer, account=look.subscription, machine=machine, around=more.around)


# How complete it is.


def _reports(look: Look, more: More, types: Types) -> Iterator[PartReport]:
    """One for the machines, one for each region of which not all is known, one for each other list."""

    def part(name: str, complete: bool, faults: Sequence[Fault | None]) -> PartReport:
        told = together([fault for fault in faults if fault is not None])
        return PartReport(part=name, complete=complete, fault=told, account=look.subscription)

    machines, powers = look.machines, look.powers
    yield part(EVERY_REGION, machines.complete, [machines.fault, powers.fault, *more.faults])
    if machines.complete:
        for region, fault in sorted({**machines.regions, **more.unanswered}.items()):
            yield part(region, False, [fault])
    members = [_told(one, more) for one in look.asked_sets(types)]
    flexible = machines.complete or all(map(translate_groups.is_uniform, look.scale_sets.answers))
    sets_complete = look.scale_sets.complete and flexible and all(one.complete and not one.unjudged for one in members)
    sets_faults = [look.scale_sets.fault, None if flexible else machines.fault, *(one.fault for one in members)]
    yield part(translate_groups.SCALE_SETS, sets_complete, sets_faults)
    untold = (
        [_told(one, more).fault for one in look.asked_sets(types) if translate_groups.of_node_pool(one)]
        if look.clusters.answers
        else []
    )
    nodes = not look.clusters.answers or (_nodes_told(look) and not any(untold))
    pool_faults = [look.clusters.fault, *(() if nodes else (look.scale_sets.fault, machines.fault, *untold))]
    yield part(translate_groups.NODE_POOLS, look.clusters.complete and nodes, pool_faults)
    computes = [look.workspaces.fault, *more.computes_faults]
    yield part(translate.COMPUTES, look.workspaces.complete and not more.computes_faults, computes)
