"""Turns what Compute Engine answers of managed instance groups, and Kubernetes Engine of node pools, into records.

Pure: no call is made here, and nothing is decided.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from providers.gcp.translate import (
    Devices,
    MachineType,
    attached,
    capacity_type,
    group_in,
    label_protections,
    last,
    managed_by,
    metadata_keys,
    presented,
    region_of,
    texts,
    utc,
)
from providers.records import (
    Blocker,
    CapacityType,
    Kind,
    Loss,
    LossName,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)

Answer = Mapping[str, Any]
Types = Callable[[str], MachineType | None]
T = TypeVar("T")

GROUP_FIELDS = (
    "id,name,creationTimestamp,targetSize,currentActions,instanceTemplate,versions/instanceTemplate,"
    "distributionPolicy/zones/zone,instanceFlexibilityPolicy/instanceSelections,allInstancesConfig/properties/labels,"
    "statefulPolicy,status(autoscaler,stateful/hasStatefulConfig)"
)
TEMPLATE_FIELDS = (
    "name,selfLink,properties(machineType,guestAccelerators,scheduling(provisioningModel,preemptible),labels,"
    "reservationAffinity/consumeReservationType,metadata/items/key)"
)
AUTOSCALER_FIELDS = "target,autoscalingPolicy(mode,minNumReplicas,maxNumReplicas)"
POOL_FIELDS = (
    "name,status,conditions/message,locations,instanceGroupUrls,autoscaling,autopilotConfig,queuedProvisioning,"
    "config(machineType,accelerators(acceleratorType,acceleratorCount),spot,preemptible,flexStart,resourceLabels,"
    "reservationAffinity/consumeReservationType)"
)
CLUSTER_FIELDS = "id,name,location,zone,status,createTime,locations,resourceLabels,autopilot/enabled"
"""What of each is looked at."""

GROUPS, NODE_POOLS = "instance groups", "GKE node pools"
"""Parts of a project that lists of their own tell of."""


# Names.


def in_project(path: str) -> str:
    """What follows the project in a URL or a path, as projects are told by id or number."""
    return path.partition("projects/")[2].partition("/")[2]


def place_of(external_id: str) -> str:
    """`zones/us-central1-a` or `regions/us-central1` of a group, `locations/…` of a node pool."""
    return "/".join(external_id.split("/")[2:4])


GKE_GROUP = re.compile(r"^(gke|gk3)-.+-grp$")
"""What Kubernetes Engine calls the groups of its node pools."""


# What a group launches.


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What an instance template says of the machines made from it."""

    skus: tuple[str, ...] = ()
    own_devices: Devices | None = None
    """Accelerators that are attached, whatever the machine type."""
    capacity_type: CapacityType = CapacityType.UNKNOWN
    reservation_bound: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    managed_by: str | None = None
    """By its labels, who makes machines from it."""


def launch_of(template: Answer) -> Launch:
    """One instance template."""
    properties = template.get("properties") or {}
    labels, scheduling = texts(properties.get("labels")), properties.get("scheduling") or {}
    affinity = (properties.get("reservationAffinity") or {}).get("consumeReservationType")
    machine_type = properties.get("machineType")
    return Launch(
        skus=(last(machine_type),) if machine_type else (),
        own_devices=attached(properties.get("guestAccelerators") or ()),
        capacity_type=capacity_type(scheduling, reserved=affinity == "SPECIFIC_RESERVATION"),
        reservation_bound=scheduling.get("provisioningModel") == "RESERVATION_BOUND",
        labels=labels,
        managed_by=managed_by(labels, metadata_keys(properties), group=None, name=template["name"]),
    )


def templates_of(group: Answer) -> tuple[str, ...]:
    """Its instance templates within the project; two while a new one is tried on some of its machines."""
    urls = [version.get("instanceTemplate") for version in group.get("versions") or ()]
    return tuple(dict.fromkeys(in_project(url) for url in urls or [group.get("instanceTemplate")] if url))


def flexible_skus(group: Answer) -> tuple[str, ...]:
    """Types that its flexibility policy names, before whatever its template says."""
    selections = (group.get("instanceFlexibilityPolicy") or {}).get("instanceSelections") or {}
    ranked = sorted(selections.values(), key=lambda selection: selection.get("rank") or 0)
    return tuple(dict.fromkeys(sku for selection in ranked for sku in selection.get("machineTypes") or ()))


def launched_skus(group: Answer, launches: Sequence[Launch]) -> tuple[str, ...]:
    return flexible_skus(group) or tuple(dict.fromkeys(sku for launch in launches for sku in launch.skus))


def zone_in(group: Answer, place: str) -> str:
    """A zone it has machines in."""
    kind, _, name = place.partition("/")
    zones = (group.get("distributionPolicy") or {}).get("zones") or ()
    return name if kind == "zones" else last(zones[0]["zone"]) if zones else f"{name}-a"


# Autoscalers.


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoscaler:
    """What sets the size of a group."""

    group: str | None
    """`zones/Z/instanceGroupManagers/N`."""
    mode: str
    """`ON`, `OFF`, `ONLY_SCALE_OUT` or a word of tomorrow's."""
    least: int | None
    most: int | None

    @property
    def remark(self) -> str:
        mode = {"ONLY_UP": "only adds machines", "ONLY_SCALE_OUT": "only adds machines", "OFF": "is off"}
        says = mode.get(self.mode, "sets its size")
        return f"an autoscaler {says} (mode {self.mode}, {self.least or 0} to {self.most or 'any number of'} machines)"


def autoscaler(answer: Answer) -> Autoscaler:
    """One autoscaler. Those that say no mode are on."""
    policy = answer.get("autoscalingPolicy") or {}
    return Autoscaler(
        group=group_in(answer.get("target")),
        mode=policy.get("mode") or "ON",
        least=policy.get("minNumReplicas"),
        most=policy.get("maxNumReplicas"),
    )


# Members.


def member_ids(listed: Iterable[Answer], account: str) -> tuple[str, ...]:
    """Of what a group tells of its machines, those that are there, those that are coming or going too."""
    return tuple(
        f"projects/{account}/{in_project(one['instance'])}"
        for one in listed
        if (one.get("id") or one.get("instanceStatus")) and one.get("currentAction") != "ABANDONING"
    )


def size_told(group: Answer) -> int | None:
    """How many machines a group has by its own count, those that are yet to be made too."""
    actions = group.get("currentActions")
    return None if actions is None else sum(actions.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What else is known when a group is translated."""

    members: tuple[str, ...] = ()
    """External ids of its machines."""
    instances: Mapping[str, ResourceRecord] = field(default_factory=dict)
    """Machines as records, by external id; those without accelerators may be missing."""
    launches: tuple[Launch, ...] = ()
    """What its templates say, as far as they were told."""
    types: Types = lambda _sku: None
    autoscaler: Autoscaler | None = None

    def running(self) -> Sequence[ResourceRecord]:
        return [self.instances[one] for one in self.members if one in self.instances]


def launches_accelerators(skus: Sequence[str], own: Iterable[Devices | None], types: Types) -> list[Devices]:
    """The accelerators a group's next machine would have, one for each kind it may make."""
    attached_ones = [devices for devices in own if devices is not None]
    found = [(sku, types(sku)) for sku in skus]
    by_type = [machine.devices for _, machine in found if machine is not None and machine.devices is not None]
    if attached_ones and by_type:
        return [presented(attached_ones[0], MachineType(devices=devices)) or devices for devices in by_type]
    return attached_ones or by_type


# Managed instance groups.


def record_of_group(
    group: Answer, seen: Seen, *, account: str, place: str, fully_described: bool
) -> ResourceRecord | None:
    """One managed instance group. None: neither its machines nor what it would launch have accelerators."""
    skus = launched_skus(group, seen.launches)
    next_ones = launches_accelerators(skus, (launch.own_devices for launch in seen.launches), seen.types)
    labels = dict(texts(((group.get("allInstancesConfig") or {}).get("properties") or {}).get("labels")))
    for launch in seen.launches:
        labels = {**launch.labels, **labels}
    capacity = _capacity_type(seen)
    return _record(
        ResourceRef(
            provider="gcp",
            account=account,
            region=region_of(last(place)),
            kind=Kind.NODE_GROUP,
            external_id=f"projects/{account}/{place}/instanceGroupManagers/{group['name']}",
        ),
        seen,
        skus=skus,
        next_ones=next_ones,
        incarnation=str(group["id"]),
        name=group["name"],
        zone=last(place) if place.startswith("zones/") else None,
        labels=labels,
        capacity=capacity,
        wanted=group.get("targetSize") or 0,
        created_at=group.get("creationTimestamp"),
        managed_by=next((launch.managed_by for launch in seen.launches if launch.managed_by), None)
        or next((one.managed_by for one in seen.running() if _by_another(one)), None),
        blockers=[*_group_blockers(group, seen)],
        remarks=(seen.autoscaler.remark,) if seen.autoscaler else (),
        listed_in=GROUPS,
        fully_described=fully_described,
    )


def _by_another(member: ResourceRecord) -> bool:
    """Whether somebody above the group claims its machine."""
    return member.managed_by is not None and not member.managed_by.startswith("mig:")


def _capacity_type(seen: Seen) -> CapacityType:
    """What it launches next. Where some of it is on demand, it is on demand: there is something to move."""
    kinds = [launch.capacity_type for launch in seen.launches] or [one.capacity_type for one in seen.running()]
    if CapacityType.ON_DEMAND in kinds:
        return CapacityType.ON_DEMAND
    return _common(kinds) or CapacityType.UNKNOWN


def _group_blockers(group: Answer, seen: Seen) -> Iterable[Blocker]:
    stateful = ((group.get("status") or {}).get("stateful") or {}).get("hasStatefulConfig")
    if stateful or group.get("statefulPolicy"):
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO,
            code="Stateful",
            sentence="it is stateful: what it keeps of each machine (name, disks, addresses) new ones would not have",
        )
    if any(launch.reservation_bound for launch in seen.launches):
        yield _RESERVATION_BOUND


_RESERVATION_BOUND = Blocker(
    verb=Verb.SCALE_TO_ZERO,
    code="ReservationBound",
    sentence="its machines are bound to a reservation, which is paid for in any case: scaling in saves nothing",
)


# Node pools of Kubernetes Engine.


def pool_path(cluster: Answer, pool: Answer) -> str:
    """Within its project; `location` is a zone or a region, told as `zone` by clusters of old."""
    place = cluster.get("location") or cluster["zone"]
    return f"locations/{place}/clusters/{cluster['name']}/nodePools/{pool['name']}"


def pool_groups(pool: Answer) -> tuple[str, ...]:
    """Its managed instance groups within the project, one for each zone."""
    return tuple(found for url in pool.get("instanceGroupUrls") or () if (found := group_in(_as_manager(url))))


def _as_manager(url: str) -> str:
    """Of old they were told as plain groups, of the same names."""
    return url.replace("/instanceGroups/", "/instanceGroupManagers/")


def pool_sku(pool: Answer) -> str:
    return last((pool.get("config") or {}).get("machineType") or "")


def pool_zone(cluster: Answer, pool: Answer) -> str:
    """A zone it has machines in."""
    place = str(cluster.get("location") or cluster["zone"])
    zones = pool.get("locations") or cluster.get("locations") or ()
    return str(zones[0]) if zones else place if place.count("-") > 1 else f"{place}-a"


def record_of_node_pool(
    cluster: Answer,
    pool: Answer,
    groups: Sequence[Answer],
    seen: Seen,
    *,
    account: str,
    fully_described: bool,
) -> ResourceRecord | None:
    """One node pool, with the managed instance groups that Kubernetes Engine keeps for it. None: no accelerators."""
    config = pool.get("config") or {}
    own = attached(config.get("accelerators") or ())
    sku = pool_sku(pool)
    skus = (sku,) if sku else ()
    place = str(cluster.get("location") or cluster["zone"])
    zones = {last(one) for one in pool.get("locations") or cluster.get("locations") or ()}
    path = pool_path(cluster, pool)
    wanted = sum(group.get("targetSize") or 0 for group in groups) if groups else len(seen.members)
    return _record(
        ResourceRef(
            provider="gcp",
            account=account,
            region=region_of(place),
            kind=Kind.NODE_GROUP,
            external_id=f"projects/{account}/{path}",
        ),
        seen,
        skus=skus,
        next_ones=launches_accelerators(skus, [own], seen.types),
        incarnation=_pool_incarnation(cluster, pool),
        name=pool["name"],
        zone=zones.pop() if len(zones) == 1 else place if place.count("-") > 1 else None,
        labels={**texts(cluster.get("resourceLabels")), **texts(config.get("resourceLabels"))},
        capacity=_pool_capacity(pool, config),
        wanted=0 if pool.get("status") == "STOPPING" else wanted,
        created_at=None,  # its cluster's is another's
        managed_by=_pool_owner(cluster, pool),
        blockers=[*_pool_blockers(cluster, pool)],
        remarks=_pool_remarks(pool),
        listed_in=NODE_POOLS,
        fully_described=fully_described,
    )


def _pool_incarnation(cluster: Answer, pool: Answer) -> str:
    """By the cluster's own id: nothing tells one pool from another of its name in the same cluster."""
    return f"{cluster.get('id') or cluster.get('createTime') or cluster['name']}/{pool['name']}"


def _pool_capacity(pool: Answer, config: Answer) -> CapacityType:
    if config.get("spot") or config.get("preemptible"):
        return CapacityType.SPOT
    if config.get("flexStart") or (pool.get("queuedProvisioning") or {}).get("enabled"):
        return CapacityType.FLEX_START
    affinity = (config.get("reservationAffinity") or {}).get("consumeReservationType")
    return CapacityType.RESERVED if affinity == "SPECIFIC_RESERVATION" else CapacityType.ON_DEMAND


def _pool_owner(cluster: Answer, pool: Answer) -> str | None:
    """Who makes and removes it by himself. An autoscaler only sets its size, within bounds that can be set."""
    if (cluster.get("autopilot") or {}).get("enabled") or (pool.get("autopilotConfig") or {}).get("enabled"):
        return f"gke-autopilot:{cluster['name']}"
    if (pool.get("autoscaling") or {}).get("autoprovisioned"):
        return f"gke-node-auto-provisioning:{cluster['name']}"
    return None


POOL_STATUSES = {
    "PROVISIONING": ("Creating", "Kubernetes Engine is still creating it"),
    "STOPPING": ("Deleting", "Kubernetes Engine is deleting it"),
    "ERROR": ("Error", "Kubernetes Engine calls it unusable"),
}
"""What makes an act pointless. A pool that is being changed (`RECONCILING`) is not among them: the first step of our
own act changes it, and whoever acts waits for that.
"""
CLUSTER_STATUSES = {
    "PROVISIONING": ("ClusterCreating", "Kubernetes Engine is still creating its cluster"),
    "STOPPING": ("ClusterDeleting", "Kubernetes Engine is deleting its cluster"),
    "ERROR": ("ClusterError", "Kubernetes Engine calls its cluster unusable"),
}
"""One that is reconciled, or degraded, may well be resized meanwhile."""


def _pool_blockers(cluster: Answer, pool: Answer) -> Iterable[Blocker]:
    status, of_cluster = pool.get("status") or "", cluster.get("status") or ""
    if status in POOL_STATUSES:
        code, sentence = POOL_STATUSES[status]
        told = next((one["message"] for one in pool.get("conditions") or () if one.get("message")), None)
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO, code=code, sentence=f"{sentence}: {told.rstrip('.')}" if told else sentence
        )
    if of_cluster in CLUSTER_STATUSES:
        code, sentence = CLUSTER_STATUSES[of_cluster]
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code=code, sentence=sentence)


def _pool_remarks(pool: Answer) -> tuple[str, ...]:
    scaling = pool.get("autoscaling") or {}
    if not scaling.get("enabled"):
        return ()
    in_all = "totalMaxNodeCount" in scaling
    least, most = (scaling.get(key) or 0 for key in (TOTAL if in_all else EACH))
    return (f"cluster autoscaler sets its size ({least} to {most} nodes{'' if in_all else ' in each zone'})",)


EACH, TOTAL = ("minNodeCount", "maxNodeCount"), ("totalMinNodeCount", "totalMaxNodeCount")


# What groups of both kinds have in common.


def _record(
    ref: ResourceRef,
    seen: Seen,
    *,
    skus: Sequence[str],
    next_ones: Sequence[Devices],
    incarnation: str,
    name: str,
    zone: str | None,
    labels: Mapping[str, str],
    capacity: CapacityType,
    wanted: int,
    created_at: str | None,
    managed_by: str | None,
    blockers: Sequence[Blocker],
    remarks: tuple[str, ...],
    listed_in: str,
    fully_described: bool,
) -> ResourceRecord | None:
    running = seen.running()
    theirs = [_devices_of(one) for one in running]
    devices = [one for one in theirs if one is not None] or list(next_ones)
    if not devices:
        return None
    return ResourceRecord(
        ref=ref,
        incarnation=incarnation,
        name=name,
        zone=zone,
        sku=", ".join(dict.fromkeys(one.sku for one in running) or skus),
        gpu_vendor=_common([one.vendor for one in devices]),
        gpu_model=_common([one.model for one in devices]),
        gpu_count=sum(one.count for one in theirs if one is not None),
        gpu_share=_common([one.share for one in devices]) or 1.0,
        gpu_memory_mib=_common([one.memory_mib for one in devices]),
        capacity_type=capacity,
        state=_state(wanted, seen),
        created_at=utc(created_at),
        tags=labels,
        managed_by=managed_by,
        members=seen.members,
        remarks=remarks,
        protections=tuple(_protections(labels, running)),
        blockers=tuple(blockers),
        losses=tuple(_losses(seen.members)),
        listed_in=listed_in,
        fully_described=fully_described,
    )


def _devices_of(record: ResourceRecord) -> Devices | None:
    if record.gpu_model is None:
        return None
    return Devices(
        vendor=record.gpu_vendor,
        model=record.gpu_model,
        count=record.gpu_count,
        share=record.gpu_share,
        memory_mib=record.gpu_memory_mib,
    )


def _common(values: Sequence[T]) -> T | None:
    """What all of them are, if they are one thing."""
    return values[0] if values and all(value == values[0] for value in values) else None


_RESTING = (State.STOPPED, State.SUSPENDED)


def _state(wanted: int, seen: Seen) -> State:
    """Members that a group has stopped or suspended, to have them at hand, are no longer running ones."""
    known = [seen.instances[one].state if one in seen.instances else None for one in seen.members]
    there = [state for state in known if state not in _RESTING]
    if not wanted:
        return State.STOPPING if there else State.STOPPED
    return State.PENDING if all(state is State.PENDING for state in there) else State.RUNNING


def _protections(labels: Mapping[str, str], running: Sequence[ResourceRecord]) -> Iterable[Protection]:
    """Its own, and those of its machines: it cannot be scaled past them."""
    own = list(label_protections(labels))
    yield from own
    told = {protection.source for protection in own}  # labels of a group are on its machines too
    for member in running:
        for protection in member.protections:
            if protection.source not in told:
                told.add(protection.source)
                yield Protection(
                    source=protection.source,
                    sentence=f"of its member {member.name}: {protection.sentence}",
                    until=protection.until,
                )


def _losses(members: Sequence[str]) -> Iterable[Loss]:
    if members:
        one = len(members) == 1
        yield Loss(
            verb=Verb.SCALE_TO_ZERO,
            name=LossName.GROUP_MEMBERS,
            sentence=(
                f"its {len(members)} machine{'' if one else 's'} would be deleted, with {'its' if one else 'their'} "
                "local and boot disks; new ones come when it is restored"
            ),
        )
