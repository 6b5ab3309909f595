"""Turns managed instance groups and node pools with accelerators into records: lists them, and describes one.

Asks; what the answers mean is `translate_groups`' business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.errors import Misconfigured, NotFound, ProviderError, Unreachable, together
from providers.gcp import machine_types, translate, translate_groups
from providers.gcp.client import Client
from providers.gcp.listing import Silent, aggregated
from providers.gcp.machine_types import MachineTypes, named
from providers.gcp.translate import MachineType
from providers.gcp.translate_groups import Autoscaler, Launch, Seen, Types
from providers.questions import batches, readable
from providers.records import Fault, ResourceRecord, ResourceRef

Answer = Mapping[str, Any]

NAMES_PER_CALL = 20
"""Templates and machines that are asked for by name in one filter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A managed instance group, with what else is told of it."""

    place: str
    """`zones/us-central1-a` or `regions/us-central1`."""
    answer: Answer
    launches: tuple[Launch, ...]
    autoscaler: Autoscaler | None

    @property
    def path(self) -> str:
        """Within its project."""
        return f"{self.place}/instanceGroupManagers/{self.answer['name']}"

    def launches_accelerators(self, types: Types) -> bool:
        skus = translate_groups.launched_skus(self.answer, self.launches)
        own = (launch.own_devices for launch in self.launches)
        return bool(translate_groups.launches_accelerators(skus, own, types))


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """The managed instance groups of a project."""

    groups: Sequence[Group] = ()
    complete: bool = True
    fault: Fault | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Pools:
    """The node pools of a project, each with its cluster."""

    pools: Sequence[tuple[Answer, Answer]] = ()
    complete: bool = True
    fault: Fault | None = None


class GroupLists:
    """What a project's groups are. Members are told apart by whoever has seen the machines."""

    def __init__(self, client: Client, types: MachineTypes) -> None:
        self._client = client
        self._types = types
        self._launches: dict[str, Mapping[str, Launch]] = {}
        """What templates say, by project and path, for as long as a group uses them; they never change."""

    def type_of(self, sku: str) -> MachineType | None:
        return self._types.get(sku) or machine_types.fallback(sku)

    # lists

    def groups(self, project: str) -> Groups:
        """All managed instance groups, whether or not they have accelerators. Raises when none could be listed."""
        silent, faults = Silent(), list[Fault]()
        found: list[tuple[str, Answer]] = []
        complete = True
        try:
            for place, there in aggregated(
                self._client,
                project,
                "instanceGroupManagers",
                fields=translate_groups.GROUP_FIELDS,
                silent=silent,
            ):
                found += ((place, group) for group in there)
        except ProviderError as error:
            if not found:
                raise
            complete = False
            faults.append(error.as_fault())
        with readable("instanceGroupManagers"):
            launches = self._known_launches(project, found, faults)
            autoscalers = self._autoscalers(project, found, faults)
            unjudged = self._learn(project, found, launches, faults)
            groups = [
                Group(
                    place=place,
                    answer=group,
                    launches=tuple(launches[path] for path in translate_groups.templates_of(group) if path in launches),
                    autoscaler=autoscalers.get(f"{place}/instanceGroupManagers/{group['name']}"),
                )
                for place, group in found
            ]
        if silent.fault is not None:
            faults.insert(0, silent.fault)
        untold = any(
            not group.launches and not translate_groups.GKE_GROUP.match(group.answer["name"]) for group in groups
        )
        return Groups(
            groups=groups,
            complete=complete and silent.fault is None and not untold and not unjudged,
            fault=together(faults),
        )

    def pools(self, project: str) -> Pools:
        """All node pools, whether or not they have accelerators."""
        fields = f"missingZones,clusters({translate_groups.CLUSTER_FIELDS},nodePools({translate_groups.POOL_FIELDS}))"
        path = f"/v1/projects/{project}/locations/-/clusters"
        answer = self._client.get("container", path, query={"fields": fields})
        silent, faults = Silent(), list[Fault]()
        with readable(path):
            for zone in answer.get("missingZones") or ():
                silent.add(f"zones/{zone}", "the clusters")
            pools = [
                (cluster, pool) for cluster in answer.get("clusters") or () for pool in cluster.get("nodePools") or ()
            ]
            wanted: dict[str, set[str]] = {}
            for cluster, pool in pools:
                if sku := translate_groups.pool_sku(pool):
                    wanted.setdefault(translate_groups.pool_zone(cluster, pool), set()).add(sku)
        unanswered = self._types.learn(project, wanted)
        unjudged = {sku for _, pool in pools if (sku := translate_groups.pool_sku(pool)) and self.cannot_be_judged(sku)}
        if silent.fault is not None:
            faults.append(silent.fault)
        if fault := machine_types.fault_of((), unjudged, unanswered):
            faults.append(fault)
        return Pools(pools=pools, complete=silent.fault is None and not unjudged, fault=together(faults))

    def members(self, project: str, group: str) -> tuple[str, ...]:
        """External ids of the machines of a group, as it tells them itself. `group` is its path in the project."""
        path = f"/compute/v1/projects/{project}/{group}/listManagedInstances"
        listed: list[Answer] = []
        with readable(path):
            for page in self._client.pages("compute", path, query={"maxResults": 500}, method="POST"):
                listed += page.get("managedInstances") or ()
            return translate_groups.member_ids(listed, project)

    # one of them

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One group, fresh, with its machines and templates. Raises rather than leave one open."""
        with readable(ref.external_id):
            of_cluster = "/nodePools/" in ref.external_id
            record = self._describe_pool(ref) if of_cluster else self._describe_group(ref)
        if record is None:
            raise Unreachable(f"{ref.external_id} has neither machines with accelerators nor makes any just now")
        return record

    def _describe_group(self, ref: ResourceRef) -> ResourceRecord | None:
        path = translate_groups.in_project(ref.external_id)
        place = translate_groups.place_of(ref.external_id)
        group = self._group(ref.account, path)
        launches = [self._template(ref.account, template) for template in translate_groups.templates_of(group)]
        wanted = {translate_groups.zone_in(group, place): set(translate_groups.launched_skus(group, launches))}
        self._types.learn(ref.account, wanted)
        url = (group.get("status") or {}).get("autoscaler")
        scaler = self._client.get("compute", f"/compute/v1/{_project_path(url)}") if url else None
        members = self.members(ref.account, path)
        seen = Seen(
            members=members,
            instances=self._instances(ref.account, members, path),
            launches=tuple(launches),
            types=self.type_of,
            autoscaler=translate_groups.autoscaler(scaler) if scaler else None,
        )
        return translate_groups.record_of_group(group, seen, account=ref.account, place=place, fully_described=True)

    def _describe_pool(self, ref: ResourceRef) -> ResourceRecord | None:
        pool = self._client.get("container", f"/v1/{ref.external_id}")
        cluster = self._client.get("container", f"/v1/{ref.external_id.partition('/nodePools/')[0]}")
        if sku := translate_groups.pool_sku(pool):
            self._types.learn(ref.account, {translate_groups.pool_zone(cluster, pool): {sku}})
        paths = translate_groups.pool_groups(pool)
        groups = [self._group(ref.account, path) for path in paths]
        by_group = {path: self.members(ref.account, path) for path in paths}
        members = tuple(member for theirs in by_group.values() for member in theirs)
        instances: dict[str, ResourceRecord] = {}
        for path, theirs in by_group.items():
            instances |= self._instances(ref.account, theirs, path)
        seen = Seen(members=members, instances=instances, types=self.type_of)
        return translate_groups.record_of_node_pool(
            cluster, pool, groups, seen, account=ref.account, fully_described=True
        )

    def _group(self, project: str, path: str) -> Answer:
        group = self._client.get("compute", f"/compute/v1/projects/{project}/{path}")
        translate.check_project(group["selfLink"], project)
        return group

    def _template(self, project: str, path: str) -> Launch:
        try:
            template = self._client.get(
                "compute",
                f"/compute/v1/projects/{project}/{path}",
                query={"fields": translate_groups.TEMPLATE_FIELDS},
            )
        except NotFound as error:  # the template, not the group
            raise Misconfigured(f"{path} is not there, so what the group would launch is not known") from error
        return translate_groups.launch_of(template)

    def _instances(self, project: str, members: Collection[str], group: str) -> Mapping[str, ResourceRecord]:
        """Machines as records, with what protects them. By filter, for one that has just gone is no error."""
        by_zone: dict[str, list[str]] = {}
        for member in members:
            parts = member.split("/")
            by_zone.setdefault(parts[3], []).append(parts[5])
        found: dict[str, ResourceRecord] = {}
        for zone, names in by_zone.items():
            path = f"/compute/v1/projects/{project}/zones/{zone}/instances"
            fields = f"kind,nextPageToken,warning/code,items({translate.FIELDS})"
            for batch in batches(names, NAMES_PER_CALL):
                for page in self._client.pages("compute", path, query={"filter": named(batch), "fields": fields}):
                    for instance in page.get("items") or ():
                        sku = translate.last(instance["machineType"])
                        record = translate.record(
                            instance,
                            account=project,
                            zone=zone,
                            machine=self._types.one(project, zone, sku),
                            group=group,
                        )
                        found[record.ref.external_id] = record
        return found

    # what groups are made from

    def _known_launches(
        self, project: str, found: Sequence[tuple[str, Answer]], faults: list[Fault]
    ) -> Mapping[str, Launch]:
        """What their templates say, by path in the project. One that was not told is left out."""
        used = {
            path
            for _, group in found
            if not translate_groups.GKE_GROUP.match(group["name"])  # its node pool tells
            for path in translate_groups.templates_of(group)
        }
        known = {path: launch for path, launch in self._launches.get(project, {}).items() if path in used}
        names = sorted({translate.last(path) for path in used - known.keys()})
        for batch in batches(names, NAMES_PER_CALL):
            silent = Silent()
            try:
                for _, templates in aggregated(
                    self._client,
                    project,
                    "instanceTemplates",
                    fields=translate_groups.TEMPLATE_FIELDS,
                    silent=silent,
                    filter=named(batch),
                ):
                    for template in templates:
                        path = translate_groups.in_project(template["selfLink"])
                        if path in used:
                            known[path] = translate_groups.launch_of(template)
            except ProviderError as error:
                faults.append(error.as_fault())
        self._launches[project] = known
        if (untold := used - known.keys()) and not faults:
            names = sorted(translate.last(path) for path in untold)
            sentence = f"Compute Engine does not tell what these instance templates say: {', '.join(names[:3])}"
            faults.append(Fault(code=NotFound.code, sentence=sentence))
        return known

    def _autoscalers(
        self, project: str, found: Sequence[tuple[str, Answer]], faults: list[Fault]
    ) -> Mapping[str, Autoscaler]:
        """By the group they set the size of. Without them the rest is as true."""
        if not any((group.get("status") or {}).get("autoscaler") for _, group in found):
            return {}
        scalers: dict[str, Autoscaler] = {}
        try:
            for _, answers in aggregated(
                self._client, project, "autoscalers", fields=translate_groups.AUTOSCALER_FIELDS, silent=Silent()
            ):
                for scaler in map(translate_groups.autoscaler, answers):
                    if scaler.group is not None:
                        scalers[scaler.group] = scaler
        except ProviderError as error:
            faults.append(error.as_fault())
        return scalers

    def _learn(
        self,
        project: str,
        found: Sequence[tuple[str, Answer]],
        launches: Mapping[str, Launch],
        faults: list[Fault],
    ) -> set[str]:
        """Asks for the machine types they would launch. Answers those of which nobody knows what they have."""
        wanted: dict[str, set[str]] = {}
        for place, group in found:
            theirs = [launches[path] for path in translate_groups.templates_of(group) if path in launches]
            for sku in translate_groups.launched_skus(group, theirs):
                wanted.setdefault(translate_groups.zone_in(group, place), set()).add(sku)
        unanswered = self._types.learn(project, wanted)
        unjudged = {sku for skus in wanted.values() for sku in skus if self.cannot_be_judged(sku)}
        if fault := machine_types.fault_of((), unjudged, unanswered):
            faults.append(fault)
        return unjudged

    def cannot_be_judged(self, sku: str) -> bool:
        """Whether nobody knows what it has, and it may well have accelerators."""
        return bool(translate.ACCELERATED_FAMILY.match(sku)) and self.type_of(sku) is None


def _project_path(url: str) -> str:
    return f"projects/{url.partition('projects/')[2]}"
