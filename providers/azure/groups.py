"""Asks for scale sets with accelerators, their instances and the node pools of AKS: lists them, and describes one.

What the answers mean is `translate_groups`' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from providers.azure import machine_types, translate, translate_groups
from providers.azure.client import Client
from providers.azure.listing import Listed, items, listed
from providers.azure.machine_types import MachineTypes
from providers.azure.surroundings import Surroundings, another, not_its_own
from providers.azure.translate import NOTHING, Around
from providers.azure.translate_groups import Seen
from providers.errors import Unreachable, together
from providers.questions import readable
from providers.records import Fault, ResourceRecord, ResourceRef

Answer = Mapping[str, Any]

COMPUTE, AKS = "2026-04-01", "2024-09-01"
"""Versions of the API: that of the SDK our tests compare with, and one that is documented."""
EXPANDED = {"$expand": "instanceView"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Members:
    """The instances of a uniform scale set, with the sizes nobody knows."""

    answers: Sequence[Answer] = ()
    unjudged: frozenset[str] = field(default_factory=frozenset)
    complete: bool = True
    fault: Fault | None = None


class Groups:
    """Scale sets and node pools. Whose members machines are is told by whoever has seen them."""

    def __init__(self, client: Client, types: MachineTypes, surroundings: Surroundings) -> None:
        self._client = client
        self._types = types
        self._surroundings = surroundings

    # lists

    def scale_sets(self, subscription: str) -> Listed:
        """All scale sets, whether or not they have accelerators."""
        path = f"/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachineScaleSets"
        found = listed(self._client, path, version=COMPUTE)
        with readable(path):
            wanted: dict[str, set[str]] = {}
            for one in found.answers:
                translate.check_account(one["id"], subscription)
                translate_groups.capacity_of(one)
                wanted.setdefault(translate.location(one["location"]), set()).update(
                    translate_groups.launched_skus(one)
                )
        return self._judged(found, subscription, wanted)

    def clusters(self, subscription: str) -> Listed:
        """All AKS clusters, with their node pools."""
        path = f"/subscriptions/{subscription}/providers/Microsoft.ContainerService/managedClusters"
        found = listed(self._client, path, version=AKS)
        with readable(path):
            wanted: dict[str, set[str]] = {}
            for cluster in found.answers:
                translate.check_account(cluster["id"], subscription)
                for pool in translate_groups.pools_of(cluster):
                    place = translate.location(cluster["location"])
                    wanted.setdefault(place, set()).update(translate_groups.pool_skus(pool))
        return self._judged(found, subscription, wanted)

    def instances(self, subscription: str, scale_set: Answer) -> Members:
        """The machines of a uniform scale set, each with its instance view."""
        path = f"{translate.canonical(scale_set['id'])}/virtualMachines"
        with readable(path):
            answers = [*items(self._client, path, version=COMPUTE, query=EXPANDED)]
            skus = {translate_groups.instance_sku(one, scale_set) for one in answers}
            unanswered = self._types.learn(subscription, {translate.location(scale_set["location"]): skus})
        unjudged = frozenset(filter(self._cannot_be_judged, skus))
        return Members(answers=answers, unjudged=unjudged, fault=machine_types.fault_of((), unjudged, unanswered))

    def _judged(self, found: Listed, subscription: str, wanted: Mapping[str, set[str]]) -> Listed:
        """With the sizes they would make learnt; of those nobody knows, there may be more that is ours."""
        unanswered = self._types.learn(subscription, wanted)
        skus = {sku for theirs in wanted.values() for sku in theirs}
        unjudged = {*filter(self._cannot_be_judged, skus)}
        builtin = {sku for sku in skus if self._types.get(sku) is None and self._types.type_of(sku) is not None}
        faults = [
            one for one in (found.fault, machine_types.fault_of(builtin, unjudged, unanswered)) if one is not None
        ]
        return replace(found, complete=found.complete and not unjudged, fault=together(faults))

    def _cannot_be_judged(self, sku: str) -> bool:
        return self._types.type_of(sku) is None and translate.may_have_accelerators(sku)

    # one of them

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One scale set or node pool, fresh, with its machines. Raises rather than leave one open."""
        of_cluster = "/agentPools/" in ref.external_id
        answer = self._client.get(ref.external_id, version=AKS if of_cluster else COMPUTE)
        with readable(ref.external_id), not_its_own(f"what belongs to {ref.external_id}"):
            record = self._described_pool(ref, answer) if of_cluster else self._described_scale_set(ref, answer)
        if record is None:
            raise Unreachable(f"{ref.external_id} has neither machines with accelerators nor makes any just now")
        return record

    def describe_instance(self, ref: ResourceRef) -> ResourceRecord:
        """One machine of a uniform scale set."""
        instance = self._client.get(ref.external_id, version=COMPUTE, query=EXPANDED)
        scale_set = another(self._client, ref.external_id.partition("/virtualMachines/")[0], version=COMPUTE)
        around = self._surroundings.of_one(ref.account, ref.external_id)
        with readable(ref.external_id):
            return self._instance(instance, scale_set, ref.account, around, fully_described=True)

    def _described_scale_set(self, ref: ResourceRef, scale_set: Answer) -> ResourceRecord | None:
        around = self._surroundings.of_one(ref.account, ref.external_id)
        self._learn(ref, translate_groups.launched_skus(scale_set))
        members, others, kept = self._members(ref.account, scale_set, around)
        seen = Seen(
            members=members,
            others=others,
            kept=kept,
            types=self._types.type_of,
            autoscale=self._surroundings.autoscales(ref.account).get(translate.folded(ref.external_id)),
        )
        return translate_groups.record_of_scale_set(
            scale_set, seen, account=ref.account, around=around, fully_described=True
        )

    def _described_pool(self, ref: ResourceRef, answer: Answer) -> ResourceRecord | None:
        pool = translate_groups.pool_alone(answer)
        cluster = another(self._client, ref.external_id.partition("/agentPools/")[0], version=AKS)
        self._learn(ref, translate_groups.pool_skus(pool))
        around = self._surroundings.of_one(ref.account, ref.external_id)
        nodes = f"/subscriptions/{ref.account}/resourceGroups/{translate_groups.node_group_of(cluster)}"
        key = (translate_groups.node_group_of(cluster), pool["name"].lower())
        members: list[ResourceRecord] = []
        others: list[str] = []
        kept: list[str] = []
        path = f"{nodes}/providers/Microsoft.Compute/virtualMachineScaleSets"
        for scale_set in items(self._client, path, version=COMPUTE):
            if translate_groups.of_node_pool(scale_set) and translate_groups.pool_of(scale_set) == key:
                there, beside, protected = self._members(ref.account, scale_set, around)
                members += there
                others += beside
                kept += protected
        members += self._single_nodes(ref.account, pool, key, nodes, around)
        seen = Seen(members=members, others=others, kept=kept, types=self._types.type_of)
        return translate_groups.record_of_node_pool(
            cluster, pool, seen, account=ref.account, around=around, fully_described=True
        )

    def _single_nodes(
        self, subscription: str, pool: Answer, key: tuple[str, str], nodes: str, around: Around
    ) -> Sequence[ResourceRecord]:
        """Of a pool whose nodes are in no scale set."""
        if not translate_groups.has_single_nodes(pool):
            return ()
        found = []
        for vm in items(self._client, f"{nodes}/providers/Microsoft.Compute/virtualMachines", version=COMPUTE):
            if translate_groups.of_node_pool(vm) and translate_groups.pool_of(vm) == key:
                fresh = another(self._client, translate.canonical(vm["id"]), version=COMPUTE, query=EXPANDED)
                found.append(self._machine(fresh, subscription, around))
        return [record for record in found if record.gpu_count]

    def _members(
        self, subscription: str, scale_set: Answer, around: Around
    ) -> tuple[Sequence[ResourceRecord], Sequence[str], Sequence[str]]:
        """Its machines with accelerators as they are now, the ids of its others, and the names of those that scaling
        in passes over."""
        path = translate.canonical(scale_set["id"])
        if translate_groups.is_uniform(scale_set):
            answers = [*items(self._client, f"{path}/virtualMachines", version=COMPUTE, query=EXPANDED)]
            found = [self._instance(one, scale_set, subscription, around) for one in answers]
        else:
            query = {"$filter": f"'virtualMachineScaleSet/id' eq '{path}'", **EXPANDED}
            everywhere = f"/subscriptions/{subscription}/providers/Microsoft.Compute/virtualMachines"
            answers = [*items(self._client, everywhere, version=COMPUTE, query=query)]
            found = [self._machine(one, subscription, around) for one in answers]
        kept = [one["name"] for one in answers if translate_groups.is_protected(one)]
        others = [record.ref.external_id for record in found if not record.gpu_count]
        return [record for record in found if record.gpu_count], others, kept

    def _instance(
        self, instance: Answer, scale_set: Answer, subscription: str, around: Around, *, fully_described: bool = False
    ) -> ResourceRecord:
        sku = translate_groups.instance_sku(instance, scale_set)
        place = translate.location(scale_set["location"])
        return translate_groups.instance_record(
            instance,
            scale_set,
            account=subscription,
            machine=self._types.one(subscription, place, sku),
            around=around,
            fully_described=fully_described,
        )

    def _machine(self, vm: Answer, subscription: str, around: Around = NOTHING) -> ResourceRecord:
        place, sku = translate.location(vm["location"]), translate.sku_of(vm)
        view = translate.view_of((vm.get("properties") or {}).get("instanceView"))
        machine = self._types.one(subscription, place, sku)
        return translate.record(vm, view, account=subscription, machine=machine, around=around)

    def _learn(self, ref: ResourceRef, skus: Sequence[str]) -> None:
        for sku in skus:
            self._types.one(ref.account, ref.region, sku)
