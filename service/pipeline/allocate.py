"""Says whose machine each Kubernetes node is, and gives what machines cost to the workloads that hold their GPUs. Pure.

A node that a cloud lists too is one machine: the cloud's resource stands for it. Workloads carry their shares of its
rate, to the micro-unit; what nobody requested stays with the machine, or is split where its project says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from providers.machine_ids import listed_key, machine_key
from providers.records import CapacityType, Kind, Price
from service.documents import Project
from service.model import Known, Lent

Cluster = str
"""Its uid: the account of its nodes and workloads."""
NodeKey = tuple[Cluster, str]
"""Cluster, name of the node."""


# whose machine


def one_machine_each(resources: Sequence[Known]) -> tuple[Known, ...]:
    """Every node with the resource that is the same machine, if its cloud lists it through a source of its own."""
    if not any(known.record.ref.kind is Kind.NODE for known in resources):
        return tuple(resources)
    by_machine = {
        listed_key(known.record.ref.external_id): known
        for known in resources
        if known.record.ref.kind is Kind.INSTANCE and known.ended_at is None and known.orphaned_at is None
    }
    by_id = {known.id: known for known in resources}
    return tuple(
        _same_machine(known, by_machine, by_id) if known.record.ref.kind is Kind.NODE else known for known in resources
    )


def _same_machine(node: Known, by_machine: Mapping[str, Known], by_id: Mapping[str, Known]) -> Known:
    found = by_machine.get(machine_key(node.record.machine)) if node.record.machine else None
    if found is not None:
        same_as: str | None = found.id
    elif node.same_as is not None and node.same_as in by_id and by_id[node.same_as].orphaned_at is not None:
        same_as = None  # nobody looks at its cloud any more: the node stands for itself again
    else:
        same_as = node.same_as  # its machine has ended, and the node goes a little later
    return node if same_as == node.same_as else replace(node, same_as=same_as)


# what it costs, and whom


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What of one machine one workload holds."""

    workload: str
    share: Fraction


def allocate(resources: Sequence[Known], projects: Mapping[str, Project]) -> tuple[Known, ...]:
    """Workloads with what they cost, machines with what of them is held. All parts of a machine add up to it."""
    nodes = [known for known in resources if known.record.ref.kind is Kind.NODE and known.ended_at is None]
    placed = [known for known in resources if known.record.placements]
    by_id = {known.id: known for known in resources} if nodes else {}
    machines = _machines(nodes, by_id)
    holders = [known for known in placed if _holds(known)]
    held = _held(holders, machines)
    by_cluster = _by_cluster(held, holders)
    payers = _payers(holders, machines)
    rates = dict.fromkeys(payers, 0)
    lent = _lent_once(nodes, by_id)
    for machine, cluster in _each(machines):
        price, parts = machine.price, held.get(machine.id, [])
        cost = price.rate_micros if price is not None and machine.costs else 0
        given, kept = _give(rates, cost, parts)
        if price is not None and cost > given + kept and _splits_idle(machine, projects):
            alike = [part for part in by_cluster.get(cluster, []) if payers.get(part.workload) == price.currency]
            given += sum(_give(rates, cost - given - kept, _in_proportion(alike)))
        lent[machine.id] = Lent(share=sum((part.share for part in parts), Fraction()), micros=given)
    prices = {
        workload: Price(rate_micros=rates[workload], currency=currency, source="its share of its nodes")
        for workload, currency in payers.items()
    }
    bought = _bought(placed, machines)
    return tuple(_allocated(known, prices, lent, bought) for known in resources)


def _bought(placed: Iterable[Known], machines: Mapping[NodeKey, Known]) -> Mapping[str, CapacityType]:
    """Workload → how its machines were bought, where that is alike: their cloud knows it though no label says it."""
    found = {}
    for known in placed:
        if known.record.capacity_type is CapacityType.UNKNOWN:
            beneath = _beneath(known, machines)
            types = {CapacityType.UNKNOWN if one is None else one.record.capacity_type for one in beneath}
            if len(types) == 1:
                found[known.id] = types.pop()
    return found


def _give(rates: dict[str, int], amount: int, parts: Sequence[_Part]) -> tuple[int, int]:
    """Each workload its share of an amount: how much that is together, and how much of it stays where it is, because
    what its workload costs cannot be told."""
    amounts = _largest_remainder(amount, [part.share for part in parts])
    given = 0
    for part, micros in zip(parts, amounts, strict=True):
        if part.workload in rates:
            rates[part.workload] += micros
            given += micros
    return given, sum(amounts) - given


def _each(machines: Mapping[NodeKey, Known]) -> Iterable[tuple[Known, Cluster]]:
    """Each machine once, with its cluster."""
    return {machine.id: (machine, cluster) for (cluster, _), machine in machines.items()}.values()


def _in_proportion(parts: Sequence[_Part]) -> list[_Part]:
    """The same parts as shares of all of them together."""
    together = sum((part.share for part in parts), Fraction())
    return [replace(part, share=part.share / together) for part in parts]


def _beneath(workload: Known, machines: Mapping[NodeKey, Known]) -> list[Known | None]:
    """The machine under each of its pods; None where nobody lists the node."""
    cluster = workload.record.ref.account
    return [machines.get((cluster, placed.node)) for placed in workload.record.placements]


def _payers(holders: Iterable[Known], machines: Mapping[NodeKey, Known]) -> dict[str, str]:
    """Workload → the one currency of all its machines. What others cost cannot be told: a node of theirs is not known
    or has no price, or they are not all in one currency. Never zero by omission."""
    found: dict[str, str] = {}
    for known in holders:
        beneath = _beneath(known, machines)
        currencies = {machine.price.currency if machine and machine.price else None for machine in beneath}
        if len(currencies) == 1 and (currency := currencies.pop()) is not None:
            found[known.id] = currency
    return found


def _holds(known: Known) -> bool:
    """Whether it is a workload that holds what its pods requested; one that a complete answer lacks holds nothing."""
    return known.record.ref.kind is Kind.WORKLOAD and known.governed and known.costs and known.missing_since is None


def _lent_once(nodes: Iterable[Known], by_id: Mapping[str, Known]) -> dict[str, Lent]:
    """Machines of clusters that nobody looks at any more: they are nodes still, and never stopped; who holds what of
    them pays no more."""
    found = {}
    for node in nodes:
        if node.same_as is not None and node.same_as in by_id:
            before = by_id[node.same_as].lent
            found[node.same_as] = Lent(share=before.share if before is not None else Fraction(), micros=0)
    return found


def _machines(nodes: Iterable[Known], by_id: Mapping[str, Known]) -> dict[NodeKey, Known]:
    """Node → the resource that stands for its machine: itself, or the cloud's."""
    found = {}
    for node in sorted(nodes, key=lambda known: known.missing_since is None):  # the one now called so is there
        if node.orphaned_at is None:
            machine = node if node.same_as is None else by_id.get(node.same_as)
            if machine is not None and machine.governed:
                found[node.record.ref.account, node.record.ref.external_id] = machine
    return found


def _held(holders: Iterable[Known], machines: Mapping[NodeKey, Known]) -> dict[str, list[_Part]]:
    """Machine → what each workload holds of it; where together they ask for more than there is, in proportion."""
    asked: dict[str, dict[str, Fraction]] = defaultdict(dict)
    for known in holders:
        for placed, machine in zip(known.record.placements, _beneath(known, machines), strict=True):
            if machine is not None:
                of_machine = asked[machine.id]
                of_machine[known.id] = of_machine.get(known.id, Fraction()) + placed.share
    return {
        machine: [
            _Part(workload=workload, share=share / max(Fraction(1), sum(of_machine.values(), Fraction())))
            for workload, share in sorted(of_machine.items())
        ]
        for machine, of_machine in asked.items()
    }


def _by_cluster(held: Mapping[str, Sequence[_Part]], holders: Iterable[Known]) -> dict[Cluster, list[_Part]]:
    """Cluster → its workloads with all they hold there."""
    clusters = {known.id: known.record.ref.account for known in holders}
    sums: dict[Cluster, dict[str, Fraction]] = defaultdict(dict)
    for parts in held.values():
        for part in parts:
            of_cluster = sums[clusters[part.workload]]
            of_cluster[part.workload] = of_cluster.get(part.workload, Fraction()) + part.share
    return {
        cluster: [_Part(workload=workload, share=share) for workload, share in sorted(shares.items())]
        for cluster, shares in sums.items()
    }


def _splits_idle(machine: Known, projects: Mapping[str, Project]) -> bool:
    """What nobody requested is its project's to keep or to share out."""
    project = projects.get(machine.project) if machine.project is not None else None
    return project is not None and project.idle_capacity == "split"


def _largest_remainder(amount: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole parts of an amount, each within one of its exact share; together their exact sum, less what is no whole."""
    exact = [amount * share for share in shares]
    parts = [int(one) for one in exact]
    missing = int(sum(exact)) - sum(parts)
    order = sorted(range(len(exact)), key=lambda index: (parts[index] - exact[index], index))
    for index in order[:missing]:
        parts[index] += 1
    return parts


def _allocated(
    known: Known, prices: Mapping[str, Price], lent: Mapping[str, Lent], bought: Mapping[str, CapacityType]
) -> Known:
    if known.record.ref.kind is Kind.WORKLOAD:
        if known.id in bought and bought[known.id] is not known.record.capacity_type:
            known = replace(known, record=replace(known.record, capacity_type=bought[known.id]))
        if not known.costs:
            return known  # what it cost when it last ran is what stopping it saved
        price = prices.get(known.id)
        return known if price == known.price else replace(known, price=price)
    given = lent.get(known.id)
    return known if given == known.lent else replace(known, lent=given)
