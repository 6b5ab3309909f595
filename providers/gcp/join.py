"""Joins the lists of one project into its records: machines with the groups that make them and the notebooks they are
behind, so that each is there once and says whose it is. Pure: no call is made here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from providers.gcp import translate, translate_groups
from providers.gcp.groups import Group, Groups, Pools
from providers.gcp.translate import last
from providers.gcp.translate_groups import GKE_GROUP, Seen, Types
from providers.questions import readable
from providers.records import Fault, PartReport, ResourceRecord

Answer = Mapping[str, Any]
Place = tuple[str, str, str]
"""Zone, name and number of a machine; no number where that is not told."""

EVERY_REGION = "*"
"""The part that speaks for all machines of a project, those of its silent regions excepted."""


class Machine(NamedTuple):
    """A machine with accelerators, and the group it says it was made by, or its node pool, within its project."""

    record: ResourceRecord
    group: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """The machines of a project."""

    found: Sequence[Machine] = ()
    regions: Mapping[str, Fault] = field(default_factory=dict)
    """Those of which not all is known, and why."""
    complete: bool = True
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What an API of its own lists of a project, as it tells it."""

    answers: Sequence[Answer] = ()
    complete: bool = True
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """All lists of a project. One that failed is empty, and not complete."""

    project: str
    machines: Machines
    groups: Groups
    pools: Pools
    notebooks: Listed
    tpus: Listed

    def made_here(self) -> Mapping[str, Sequence[Machine]]:
        """Machines by the group they say they were made by, or their node pool."""
        found: dict[str, list[Machine]] = {}
        for machine in self.machines.found:
            if machine.group is not None:
                found.setdefault(machine.group, []).append(machine)
        return found

    def pool_of(self) -> Mapping[str, tuple[Answer, Answer]]:
        """Clusters and node pools by the groups that are kept for them."""
        return {
            path: (cluster, pool) for cluster, pool in self.pools.pools for path in translate_groups.pool_groups(pool)
        }

    def own_groups(self) -> Iterator[Group]:
        """Those that are nobody's node pool, as far as that is known."""
        of_pools = self.pool_of()
        for group in self.groups.groups:
            if group.path in of_pools or (not self.pools.complete and GKE_GROUP.match(group.answer["name"])):
                continue
            yield group

    def doubtful_groups(self, types: Types) -> Iterator[str]:
        """Paths of groups with accelerators that count other machines than those that say they were made by them: some
        are not made yet, are gone already, or were let go.
        """
        made_here = self.made_here()
        for group in self.own_groups():
            count = translate_groups.size_told(group.answer)
            theirs = made_here.get(group.path, ())
            if count is not None and count != len(theirs) and (theirs or group.launches_accelerators(types)):
                yield group.path


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """A project's records."""

    machines: Sequence[ResourceRecord]
    others: Sequence[ResourceRecord]

    @property
    def records(self) -> Sequence[ResourceRecord]:
        return [*self.machines, *self.others]


def joined(
    look: Look,
    types: Types,
    *,
    members: Mapping[str, Collection[str]],
    behind_notebooks: Collection[Place],
) -> Joined:
    """`members` are those that doubtful groups have told themselves. `behind_notebooks` are machines that Workbench
    told of before, for as long as it does not answer.
    """
    with readable(f"the lists of {look.project}"):
        notebooks, behind = _notebooks(look, types)
        behind |= set(behind_notebooks)
        whose = _owners(look, members)
        machines = [
            _owned(machine, whose) for machine in look.machines.found if behind.isdisjoint(_places(machine.record))
        ]
        instances = {record.ref.external_id: record for record in machines}
        return Joined(
            machines=machines,
            others=[
                *_groups(look, types, instances, members),
                *_pools(look, types, instances),
                *notebooks,
                *(translate.tpu_vm(node, account=look.project) for node in look.tpus.answers),
            ],
        )


def notebook_places(notebooks: Listed) -> frozenset[Place]:
    """The machines behind Workbench instances."""
    return frozenset(_place(answer) for answer in notebooks.answers)


def _place(notebook: Answer) -> Place:
    return (*translate.notebook_machine(notebook), translate.notebook_machine_id(notebook))


def _places(machine: ResourceRecord) -> tuple[Place, Place]:
    """What a notebook may say of its machine."""
    zone = machine.zone or ""
    return (zone, machine.name, machine.incarnation), (zone, machine.name, "")


def _notebooks(look: Look, types: Types) -> tuple[Sequence[ResourceRecord], frozenset[Place]]:
    if not look.notebooks.answers:
        return (), frozenset()
    by_place = {place: record for record, _ in look.machines.found for place in _places(record)}
    found = [
        translate.notebook(
            answer,
            account=look.project,
            machine=types(translate.notebook_sku(answer)) or translate.PLAIN,
            vm=by_place.get(_place(answer)),
        )
        for answer in look.notebooks.answers
    ]
    return [record for record in found if record is not None], notebook_places(look.notebooks)


# Whose a machine is.


class _Owners(NamedTuple):
    pools: Mapping[str, tuple[Answer, Answer]]
    """By the groups that are kept for them."""
    groups: Collection[str] | None
    """All there are; None where that is not known."""
    members: Mapping[str, Collection[str]]


def _owners(look: Look, members: Mapping[str, Collection[str]]) -> _Owners:
    all_groups = {group.path for group in look.groups.groups} if look.groups.complete else None
    return _Owners(pools=look.pool_of(), groups=all_groups, members=members)


def _owned(machine: Machine, whose: _Owners) -> ResourceRecord:
    """As it is, save where its group knows better than the machine whose it is."""
    record, group = machine
    if group is None or "/nodePools/" in group or record.managed_by is None:
        return record
    if group in whose.pools:
        cluster, pool = whose.pools[group]
        return replace(record, managed_by=f"gke-node-pool:{cluster['name']}/{pool['name']}")
    if record.managed_by != f"mig:{last(group)}":
        return record
    let_go = group in whose.members and record.ref.external_id not in whose.members[group]
    gone = whose.groups is not None and group not in whose.groups
    return replace(record, managed_by=None) if let_go or gone else record


# Groups.


def _groups(
    look: Look, types: Types, instances: Mapping[str, ResourceRecord], members: Mapping[str, Collection[str]]
) -> Iterator[ResourceRecord]:
    made_here = look.made_here()
    for group in look.own_groups():
        theirs = (machine.record.ref.external_id for machine in made_here.get(group.path, ()))
        seen = Seen(
            members=tuple(members.get(group.path, theirs)),
            instances=instances,
            launches=group.launches,
            types=types,
            autoscaler=group.autoscaler,
        )
        record = translate_groups.record_of_group(
            group.answer, seen, account=look.project, place=group.place, fully_described=False
        )
        if record is not None:
            yield record


def _pools(look: Look, types: Types, instances: Mapping[str, ResourceRecord]) -> Iterator[ResourceRecord]:
    made_here = look.made_here()
    by_path = {group.path: group.answer for group in look.groups.groups}
    for cluster, pool in look.pools.pools:
        paths = translate_groups.pool_groups(pool)
        theirs = {
            machine.record.ref.external_id: None
            for path in (translate_groups.pool_path(cluster, pool), *paths)
            for machine in made_here.get(path, ())
        }
        record = translate_groups.record_of_node_pool(
            cluster,
            pool,
            [by_path[path] for path in paths if path in by_path],
            Seen(members=tuple(theirs), instances=instances, types=types),
            account=look.project,
            fully_described=False,
        )
        if record is not None:
            yield record


# How complete it is.


def reports(look: Look, machines: Sequence[ResourceRecord]) -> Iterator[PartReport]:
    """One for the machines, one for each region that has some or is silent, one for each other list."""

    def part(name: str, complete: bool, fault: Fault | None) -> PartReport:
        return PartReport(part=name, complete=complete, fault=fault, account=look.project)

    yield part(EVERY_REGION, look.machines.complete, look.machines.fault)
    if look.machines.complete:
        regions = {record.ref.region for record in machines} | look.machines.regions.keys()
        for region in sorted(regions):
            fault = look.machines.regions.get(region)
            yield part(region, fault is None, fault)
    yield part(translate_groups.GROUPS, look.groups.complete, look.groups.fault)
    yield part(translate_groups.NODE_POOLS, look.pools.complete, look.pools.fault)
    yield part(translate.WORKBENCH, look.notebooks.complete, look.notebooks.fault)
    yield part(translate.TPU_VMS, look.tpus.complete, look.tpus.fault)
