"""Turns what Azure answers of scale sets, their instances and the node pools of AKS into records.

Pure: no call is made here, and nothing is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from providers.azure import translate
from providers.azure.translate import (
    AKS_POOL,
    DELETE_LOCK,
    NO_TAG,
    NOTHING,
    Around,
    Devices,
    MachineType,
    Tags,
    canonical,
    capacity_type,
    folded,
    group_of,
    last,
    location,
    lock_blockers,
    lock_protections,
    named,
    tag_protections,
    tags_of,
    text,
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

SCALE_SETS, NODE_POOLS = "scale sets", "AKS node pools"
"""Parts of a subscription that lists of their own tell of."""


# Scale sets.


def is_uniform(scale_set: Answer) -> bool:
    """Sets of old say no mode, and are."""
    return str((scale_set.get("properties") or {}).get("orchestrationMode") or "Uniform").lower() == "uniform"


def profile_of(scale_set: Answer) -> Answer:
    """What new machines are made by."""
    found: Answer = (scale_set.get("properties") or {}).get("virtualMachineProfile") or {}
    return found


def only_places(scale_set: Answer) -> bool:
    """Whether it makes no machines, and only says where those that are put in it go."""
    return not is_uniform(scale_set) and (scale_set.get("properties") or {}).get("virtualMachineProfile") is None


def launched_skus(scale_set: Answer) -> tuple[str, ...]:
    """Sizes it makes: one, or several to choose from; its size is then called `Mix`."""
    profile = (scale_set.get("properties") or {}).get("skuProfile") or {}
    sizes = tuple(size["name"] for size in profile.get("vmSizes") or ())
    name = (scale_set.get("sku") or {}).get("name")
    return sizes or ((name,) if name else ())


def capacity_of(scale_set: Answer) -> int | None:
    """How many machines it is to have. None: whoever is put in it is."""
    number = (scale_set.get("sku") or {}).get("capacity")
    return None if number is None else int(number)


def may_have_instances(scale_set: Answer) -> bool:
    """Whether it is worth asking: one of nothing, with nothing under way, has none."""
    settled = str((scale_set.get("properties") or {}).get("provisioningState")).lower() == "succeeded"
    return bool(capacity_of(scale_set)) or not settled


def of_node_pool(answer: Answer) -> bool:
    """Whether AKS keeps a scale set or a machine for a node pool. That stands for its scale sets."""
    return AKS_POOL in named(tags_of(answer))


def instance_sku(instance: Answer, scale_set: Answer) -> str:
    """Of one of its machines, whose size may be another than that of the next."""
    return str(
        (instance.get("sku") or {}).get("name") or translate.sku_of(instance) or _first(launched_skus(scale_set))
    )


def _first(names: Sequence[str]) -> str:
    return names[0] if names else ""


def instance_record(
    instance: Answer,
    scale_set: Answer,
    *,
    account: str,
    machine: MachineType,
    around: Around = NOTHING,
    fully_described: bool = False,
) -> ResourceRecord:
    """One machine of a uniform scale set, asked for with its instance view."""
    translate.check_account(instance["id"], account)
    bought = {**(scale_set.get("properties") or {}), **profile_of(scale_set)}
    return translate.machine_record(
        instance,
        translate.view_of((instance.get("properties") or {}).get("instanceView")),
        account=account,
        machine=machine,
        around=around,
        bought=bought,
        tags={**tags_of(scale_set), **tags_of(instance)},
        scale_set=scale_set["id"],
        fully_described=fully_described,
        listed_in=SCALE_SETS,
    )


def is_protected(instance: Answer) -> bool:
    """Whether scaling in passes it over."""
    policy = (instance.get("properties") or {}).get("protectionPolicy") or {}
    return bool(policy.get("protectFromScaleIn") or policy.get("protectFromScaleSetActions"))


# Autoscale settings.


@dataclass(frozen=True, kw_only=True, slots=True)
class Autoscale:
    """What sets the size of a scale set."""

    name: str
    least: int
    most: int

    @property
    def remark(self) -> str:
        return f"the autoscale setting {self.name!r} sets its size ({self.least} to {self.most} instances)"


def autoscales(answers: Iterable[Answer]) -> dict[str, Autoscale]:
    """Those that are on, by the id of what they set the size of, in small letters."""
    found = {}
    for answer in answers:
        told = answer.get("properties") or {}
        target = folded(str(told.get("targetResourceUri") or ""))
        sizes = [profile.get("capacity") or {} for profile in told.get("profiles") or ()]
        if told.get("enabled", True) and target and sizes:
            found[target] = Autoscale(
                name=str(answer.get("name") or told.get("name") or ""),
                least=max(int(size.get("minimum") or 0) for size in sizes),
                most=max(int(size.get("maximum") or 0) for size in sizes),
            )
    return found


# Records.


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What else is known when a group is translated."""

    members: Sequence[ResourceRecord] = ()
    """Its machines with accelerators."""
    others: Sequence[str] = ()
    """Ids of all others: of those nothing is known, and they would go with the rest."""
    kept: Sequence[str] = ()
    """Names of those that are protected from scaling in."""
    types: Types = lambda _sku: None
    autoscale: Autoscale | None = None

    @property
    def size(self) -> int:
        return len(self.members) + len(self.others)


def has_accelerators(skus: Sequence[str], types: Types) -> bool:
    """Whether it would make machines that have."""
    return any(machine is not None and machine.devices is not None for machine in map(types, skus))


def record_of_scale_set(
    scale_set: Answer, seen: Seen, *, account: str, around: Around = NOTHING, fully_described: bool = False
) -> ResourceRecord | None:
    """One scale set. None: neither its machines nor those it would make have accelerators, or it makes none."""
    translate.check_account(scale_set["id"], account)
    skus = launched_skus(scale_set)
    if only_places(scale_set) or not (seen.members or has_accelerators(skus, seen.types)):
        return None
    told, profile = scale_set.get("properties") or {}, profile_of(scale_set)
    path, tags = canonical(scale_set["id"]), tags_of(scale_set)
    lowered, capacity = named(tags), _capacity(told, profile, seen)
    return _record(
        path,
        account=account,
        region=location(scale_set["location"]),
        seen=seen,
        skus=skus,
        incarnation=str(told.get("uniqueId") or path).lower(),
        name=text(scale_set["name"]),
        zones=scale_set.get("zones") or (),
        tags=tags,
        capacity=capacity,
        wanted=capacity_of(scale_set),
        deleting=str(told.get("provisioningState")).lower() == "deleting",
        created_at=told.get("timeCreated"),
        managed_by=_owner(path, lowered, around),
        protections=_protections(lowered, seen, lock_protections(path, around)),
        blockers=(
            *_set_blockers(told, capacity),
            *_locked(lock_blockers(path, around, verb=Verb.SCALE_TO_ZERO, what="its instances"), seen),
        ),
        losses=_losses(seen.size, "instance"),
        remarks=(seen.autoscale.remark,) if seen.autoscale else (),
        listed_in=SCALE_SETS,
        fully_described=fully_described,
    )


def _owner(path: str, tags: Tags, around: Around) -> str | None:
    """Who makes and removes it by himself."""
    if "resourcetype" in tags and tags["resourcetype"][1].lower() == "service fabric":
        return f"servicefabric:{tags.get('clustername', NO_TAG)[1] or 'unnamed'}"
    return translate.managed_by(path, tags, around, owner=None, scale_set=None)


def _capacity(told: Answer, profile: Answer, seen: Seen) -> CapacityType:
    """What it makes next. Where some of it is on demand, it is on demand."""
    found = capacity_type(profile.get("priority"), {**told, **profile})
    mix = told.get("priorityMixPolicy") or {}
    if found is CapacityType.SPOT and (
        mix.get("baseRegularPriorityCount") or mix.get("regularPriorityPercentageAboveBase")
    ):
        return CapacityType.ON_DEMAND
    if found in (CapacityType.ON_DEMAND, CapacityType.RESERVED):
        block = any(member.capacity_type is CapacityType.CAPACITY_BLOCK for member in seen.members)
        return CapacityType.CAPACITY_BLOCK if block else found
    return found


_CAPACITY_BLOCK = Blocker(
    verb=Verb.SCALE_TO_ZERO,
    code="CapacityBlock",
    sentence="it runs in a block of reserved capacity, which is paid for in advance: scaling in saves nothing",
)


def _set_blockers(told: Answer, capacity: CapacityType) -> Iterable[Blocker]:
    if str(told.get("provisioningState")).lower() == "deleting":
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code="Deleting", sentence="it is being deleted")
    if capacity is CapacityType.CAPACITY_BLOCK:
        yield _CAPACITY_BLOCK


# Node pools of AKS.


def pools_of(cluster: Answer) -> Sequence[Answer]:
    """As its cluster tells them; told by themselves they have these fields as `properties`."""
    return (cluster.get("properties") or {}).get("agentPoolProfiles") or ()


def pool_alone(answer: Answer) -> Answer:
    """A node pool told by itself, as its cluster would."""
    return {**(answer.get("properties") or {}), "name": answer["name"]}


def node_group_of(cluster: Answer) -> str:
    """The resource group its machines are in, in small letters."""
    return folded(str((cluster.get("properties") or {}).get("nodeResourceGroup") or ""))


def pool_skus(pool: Answer) -> tuple[str, ...]:
    """Its size; a pool of single machines may have several."""
    scale = (pool.get("virtualMachinesProfile") or {}).get("scale") or {}
    sizes = [one.get("size") for kind in scale.values() if isinstance(kind, list) for one in kind]
    if isinstance(scale.get("autoscale"), dict):
        sizes.append(scale["autoscale"].get("size"))
    return tuple(dict.fromkeys(size for size in (pool.get("vmSize"), *sizes) if size))


def has_single_nodes(pool: Answer) -> bool:
    """Whether its nodes are machines of their own, in no scale set."""
    return str(pool.get("type")).lower() == "virtualmachines"


def node_pool_of(record: ResourceRecord) -> tuple[str, str] | None:
    """The resource group and the node pool that a machine is a node of, in small letters."""
    if record.managed_by is None or not record.managed_by.startswith(("aks:", "karpenter:")):
        return None
    pool = named(record.tags).get(AKS_POOL)
    return (group_of(record.ref.external_id), pool[1].lower()) if pool else None


def pool_of(answer: Answer) -> tuple[str, str]:
    """The same of a scale set or a machine that AKS keeps, as it was told."""
    return group_of(answer["id"]), named(tags_of(answer))[AKS_POOL][1].lower()


def record_of_node_pool(
    cluster: Answer,
    pool: Answer,
    seen: Seen,
    *,
    account: str,
    around: Around = NOTHING,
    fully_described: bool = False,
) -> ResourceRecord | None:
    """One node pool. None: neither its nodes nor those it would make have accelerators."""
    translate.check_account(cluster["id"], account)
    skus = pool_skus(pool)
    if not (seen.members or has_accelerators(skus, seen.types)):
        return None
    path = canonical(f"{cluster['id']}/agentPools/{pool['name']}")
    tags = {**tags_of(cluster), **tags_of(pool)}
    lowered, keeps = named(tags), _keeps_nodes(pool)
    stopped = _power(pool) == "stopped" or _power(cluster.get("properties") or {}) == "stopped"
    nodes_in = f"/subscriptions/{account}/resourcegroups/{node_group_of(cluster)}"
    return _record(
        path,
        account=account,
        region=location(cluster["location"]),
        seen=seen,
        skus=skus,
        incarnation=_pool_incarnation(cluster, pool),
        name=text(pool["name"]),
        zones=pool.get("availabilityZones") or (),
        tags=tags,
        capacity=_pool_capacity(pool),
        wanted=0 if stopped else int(pool.get("count") or 0),
        deleting=str(pool.get("provisioningState")).lower() == "deleting",
        created_at=None,  # its cluster's is another's
        managed_by=_pool_owner(cluster),
        protections=_protections(lowered, seen, lock_protections(path, around, nodes_in)),
        blockers=(
            *_pool_blockers(cluster, pool),
            *(
                ()
                if keeps
                else _locked(lock_blockers(path, around, nodes_in, verb=Verb.SCALE_TO_ZERO, what="its nodes"), seen)
            ),
        ),
        losses=_storage_losses(seen) if keeps else _losses(seen.size, "node"),
        remarks=_pool_remarks(pool),
        listed_in=NODE_POOLS,
        fully_described=fully_described,
    )


def _pool_incarnation(cluster: Answer, pool: Answer) -> str:
    """By the cluster's own id: nothing tells one pool from another of its name in the same cluster."""
    uid = (cluster.get("properties") or {}).get("resourceUID") or last(cluster["id"])
    return f"{uid}/{pool['name']}".lower()


def _power(told: Answer) -> str:
    return str((told.get("powerState") or {}).get("code") or "").lower()


def _pool_capacity(pool: Answer) -> CapacityType:
    if pool.get("capacityReservationGroupID"):
        return capacity_type(
            pool.get("scaleSetPriority"),
            {"capacityReservation": {"capacityReservationGroup": {"id": pool["capacityReservationGroupID"]}}},
        )
    return capacity_type(pool.get("scaleSetPriority"), {"hostGroup": pool.get("hostGroupID")})


def _pool_owner(cluster: Answer) -> str | None:
    """Who makes and removes it by himself. An autoscaler only sets its size, within bounds that can be set."""
    automatic = str((cluster.get("sku") or {}).get("name")).lower() == "automatic"
    return f"aks-automatic:{last(cluster['id']).lower()}" if automatic else None


POOL_STATES = {
    "creating": ("Creating", "AKS is still creating it"),
    "deleting": ("Deleting", "AKS is deleting it"),
    "scaling": ("Scaling", "AKS is scaling it"),
    "starting": ("Starting", "AKS is starting it"),
    "stopping": ("Stopping", "AKS is stopping it"),
    "updating": ("Updating", "AKS is updating it"),
    "upgrading": ("Upgrading", "AKS is upgrading it"),
    "upgradingnodeimageversion": ("Upgrading", "AKS is upgrading its node image"),
    "migrating": ("Migrating", "AKS is migrating it"),
}
SETTLED = ("", "succeeded", "failed", "canceled")
"""States in which AKS takes further requests; one that failed can well be scaled."""


def _pool_blockers(cluster: Answer, pool: Answer) -> Iterable[Blocker]:
    word = str(pool.get("provisioningState") or "").lower()
    if word not in SETTLED:
        code, sentence = POOL_STATES.get(word, ("NotReady", f"AKS calls it {pool['provisioningState']}"))
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code=code, sentence=sentence)
    if _power(cluster.get("properties") or {}) == "stopped":
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code="ClusterStopped", sentence="its cluster is stopped")
    if str(pool.get("mode")).lower() == "system":
        sentence = "it is a system pool, which AKS does not scale to zero"
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code="SystemPool", sentence=sentence)
    if has_single_nodes(pool):
        sentence = "its nodes are single machines of several sizes, which Curfew does not scale"
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code="VirtualMachinesPool", sentence=sentence)


def _keeps_nodes(pool: Answer) -> bool:
    """Whether nodes that are scaled in are deallocated instead of deleted."""
    return str(pool.get("scaleDownMode")).lower() == "deallocate"


def _storage_losses(seen: Seen) -> tuple[Loss, ...]:
    storage = sum(machine.local_storage_gib for one in seen.members if (machine := seen.types(one.sku)) is not None)
    return translate.losses(storage, verbs=(Verb.SCALE_TO_ZERO,))


def _pool_remarks(pool: Answer) -> tuple[str, ...]:
    if not pool.get("enableAutoScaling"):
        return ()
    least, most = (int(pool.get(bound) or 0) for bound in ("minCount", "maxCount"))
    return (f"cluster autoscaler sets its size ({least} to {most} nodes)",)


# What both have in common.


def _record(
    path: str,
    *,
    account: str,
    region: str,
    seen: Seen,
    skus: Sequence[str],
    incarnation: str,
    name: str,
    zones: Sequence[str],
    tags: Mapping[str, str],
    capacity: CapacityType,
    wanted: int | None,
    deleting: bool,
    created_at: str | None,
    managed_by: str | None,
    protections: tuple[Protection, ...],
    blockers: tuple[Blocker, ...],
    losses: tuple[Loss, ...],
    remarks: tuple[str, ...],
    listed_in: str,
    fully_described: bool,
) -> ResourceRecord:
    there = seen.members
    types = [machine for sku in skus if (machine := seen.types(sku)) is not None]
    devices = [found for one in there if (found := _devices_of(one))] or [
        machine.devices for machine in types if machine.devices is not None
    ]
    spelled = dict.fromkeys(one.sku for one in there) or dict.fromkeys(
        machine.name if (machine := seen.types(sku)) is not None and machine.name else sku for sku in skus
    )
    return ResourceRecord(
        ref=ResourceRef(provider="azure", account=account, region=region, kind=Kind.NODE_GROUP, external_id=path),
        incarnation=incarnation,
        name=name,
        zone=f"{region}-{last(zones[0])}" if len(zones) == 1 else None,
        sku=", ".join(spelled),
        gpu_vendor=_common([one.vendor for one in devices]),
        gpu_model=_common([one.model for one in devices]),
        gpu_count=sum(one.gpu_count for one in there),
        gpu_share=_common([one.share for one in devices]) or 1.0,
        gpu_memory_mib=_common([one.memory_mib for one in devices]),
        capacity_type=capacity,
        state=_state(wanted, there, deleting=deleting),
        created_at=utc(created_at),
        tags=tags,
        managed_by=managed_by,
        members=(*(one.ref.external_id for one in there), *seen.others),
        remarks=remarks,
        protections=protections,
        blockers=blockers,
        losses=losses,
        listed_in=listed_in,
        fully_described=fully_described,
    )


def _devices_of(record: ResourceRecord) -> Devices | None:
    if not record.gpu_count:
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


DOWN = (State.STOPPED, State.SUSPENDED)


def _state(wanted: int | None, there: Sequence[ResourceRecord], *, deleting: bool) -> State:
    """Instances can be deallocated and stay where they are: a set of such ones only does not run."""
    up = [one for one in there if one.state not in DOWN]
    if deleting or wanted == 0 or (wanted is None and not there) or (there and not up):
        return State.STOPPING if up else State.STOPPED
    return State.PENDING if all(one.state is State.PENDING for one in up) else State.RUNNING


def _protections(tags: Tags, seen: Seen, locks: Iterable[Protection]) -> tuple[Protection, ...]:
    """Its own, and those of its members: it cannot be scaled past them."""
    found = [*tag_protections(tags), *locks]
    if seen.kept:
        number, of = len(seen.kept), seen.size
        sentence = (
            f"{number} of its {of} instances {'is' if number == 1 else 'are'} protected from scale-in "
            f"({', '.join(seen.kept[:3])}{', …' if number > 3 else ''})"
        )
        found.append(Protection(source="protectFromScaleIn", sentence=sentence))
    told = {protection.source for protection in found}  # its tags and locks are its members' too
    for one in seen.members:
        for protection in one.protections:
            if protection.source not in told:
                told.add(protection.source)
                sentence = f"of its member {one.name}: {protection.sentence}"
                found.append(Protection(source=protection.source, sentence=sentence, until=protection.until))
    return tuple(found)


def _locked(own: Iterable[Blocker], seen: Seen) -> Iterable[Blocker]:
    """What forbids to delete its machines: its own locks, else the first of theirs."""
    found = [*own]
    if not found:
        theirs = ((one, blocker) for one in seen.members for blocker in one.blockers if blocker.code == DELETE_LOCK)
        for one, blocker in islice(theirs, 1):
            sentence = f"of its member {one.name}: {blocker.sentence}"
            found.append(Blocker(verb=Verb.SCALE_TO_ZERO, code=DELETE_LOCK, sentence=sentence))
    return found


def _losses(number: int, what: str) -> tuple[Loss, ...]:
    if not number:
        return ()
    disks = "its temporary and operating system disks" if number == 1 else "their temporary and operating system disks"
    sentence = (
        f"its {number} {what}{'' if number == 1 else 's'} would be deleted, with {disks}; new ones come when it is "
        "restored"
    )
    return (Loss(verb=Verb.SCALE_TO_ZERO, name=LossName.GROUP_MEMBERS, sentence=sentence),)
