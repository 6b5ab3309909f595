"""Turns what EC2 Auto Scaling and EKS answer of groups into records, and a group's launches into the same on spot.

Pure: no call is made here, and nothing is decided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar

from providers.aws.translate import Devices, MachineType, managed_by
from providers.errors import Misconfigured
from providers.protections import tag_protections
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
T = TypeVar("T")


# Names. Neither of EKS's names has a slash, and a scaling group's has no colon.


def external_id(group: Answer) -> str:
    """A scaling group's name; its ARN where the name has a slash, as a node group's id has."""
    name = str(group["AutoScalingGroupName"])
    return str(group["AutoScalingGroupARN"]) if "/" in name else name


def scaling_group_name(external_id: str) -> str:
    return external_id.partition(":autoScalingGroupName/")[2] if external_id.startswith("arn:") else external_id


def node_group_names(external_id: str) -> tuple[str, str] | None:
    """Cluster and node group, where it is a node group's id."""
    if external_id.startswith("arn:") or "/" not in external_id:
        return None
    cluster, _, name = external_id.partition("/")
    return cluster, name


def node_group_of(group: Answer) -> str | None:
    """The node group that EKS keeps this scaling group for, as an external id."""
    tags = _tags(group)
    if "eks:nodegroup-name" in tags and "eks:cluster-name" in tags:
        return f"{tags['eks:cluster-name']}/{tags['eks:nodegroup-name']}"
    return None


def account_of(arn: str) -> str:
    return arn.split(":")[4]


def check_account(ref: ResourceRef, arn: str) -> None:
    """Names repeat in other accounts, and another's group must be neither shown nor touched in this one's place."""
    if account_of(arn) != ref.account:
        raise Misconfigured(
            f"{ref.external_id} belongs to account {ref.account}, but the credentials are of account {account_of(arn)}"
        )


# Members.

_NO_LONGER = ("Terminated", "Detached", "Warmed:")
"""Lifecycle states (or how they begin) of instances that are not, or not yet, the group's."""


def members(group: Answer) -> Sequence[Answer]:
    """Its instances, those that are coming or going too."""
    return [
        instance
        for instance in group.get("Instances") or ()
        if not str(instance.get("LifecycleState", "")).startswith(_NO_LONGER)
    ]


# What a group launches.


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What a group's launch template or configuration says, as far as it was asked."""

    capacity_type: CapacityType | None = None
    """None: it was not asked."""
    skus: tuple[str, ...] = ()
    by_attributes: bool = False
    """It names no types but attributes, accelerators among them."""
    gone: bool = False
    """It does not exist any more."""


MARKETS = {
    None: CapacityType.ON_DEMAND,
    "on-demand": CapacityType.ON_DEMAND,
    "spot": CapacityType.SPOT,
    "capacity-block": CapacityType.CAPACITY_BLOCK,
    "interruptible-capacity-reservation": CapacityType.RESERVED,
}
RESERVATIONS_FIRST = ("capacity-reservations-only", "capacity-reservations-first")


def launch_of_template(data: Answer) -> Launch:
    """`LaunchTemplateData` of one version."""
    market = MARKETS.get((data.get("InstanceMarketOptions") or {}).get("MarketType"), CapacityType.UNKNOWN)
    if market is CapacityType.ON_DEMAND and _reserves(data):
        market = CapacityType.RESERVED
    return Launch(
        capacity_type=market,
        skus=(data["InstanceType"],) if data.get("InstanceType") else (),
        by_attributes=_wants_accelerators(data.get("InstanceRequirements") or {}),
    )


def launch_of_configuration(configuration: Answer) -> Launch:
    """One entry of DescribeLaunchConfigurations."""
    return Launch(
        capacity_type=CapacityType.SPOT if configuration.get("SpotPrice") else CapacityType.ON_DEMAND,
        skus=(configuration["InstanceType"],),
    )


def template_of(group: Answer) -> Answer | None:
    """Which launch template, and which version of it; the mixed instances policy's where there is one."""
    mixed = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    found: Answer | None = mixed.get("LaunchTemplateSpecification") or group.get("LaunchTemplate")
    return found


def override_skus(group: Answer) -> tuple[str, ...]:
    """Types that the mixed instances policy names, in its order."""
    return tuple(dict.fromkeys(entry["InstanceType"] for entry in _overrides(group) if entry.get("InstanceType")))


def overrides_want_accelerators(group: Answer) -> bool:
    return any(_wants_accelerators(entry.get("InstanceRequirements") or {}) for entry in _overrides(group))


def _overrides(group: Answer) -> Sequence[Answer]:
    mixed = (group.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    return mixed.get("Overrides") or ()


def _wants_accelerators(requirements: Answer) -> bool:
    count = requirements.get("AcceleratorCount") or {}
    if count.get("Max") == 0:
        return False
    return (
        bool(count.get("Min"))
        or bool(requirements.get("AcceleratorNames"))
        or not {"gpu", "inference"}.isdisjoint(requirements.get("AcceleratorTypes") or ())
    )


def _reserves(launching: Answer) -> bool:
    specification = launching.get("CapacityReservationSpecification") or {}
    return specification.get("CapacityReservationPreference") in RESERVATIONS_FIRST or bool(
        specification.get("CapacityReservationTarget")
    )


def all_spot(group: Answer) -> bool:
    """Does its mixed instances policy launch spot instances only?"""
    distribution = _distribution(group)
    if distribution is None or distribution.get("DistributionSegments"):
        return False
    return {
        distribution.get("OnDemandBaseCapacity", 0),
        distribution.get("OnDemandPercentageAboveBaseCapacity", 100),
    } == {0}


def _distribution(group: Answer) -> Answer | None:
    mixed = group.get("MixedInstancesPolicy")
    return (mixed.get("InstancesDistribution") or {}) if mixed else None


def _capacity_type(group: Answer, launch: Launch, running: Collection[ResourceRecord]) -> CapacityType:
    """What it launches next. Where some of it is on demand, it is on demand: there is something to move."""
    found = launch.capacity_type
    distribution = _distribution(group)
    if distribution is not None:
        if distribution.get("DistributionSegments"):
            return CapacityType.UNKNOWN
        found = CapacityType.SPOT if all_spot(group) else CapacityType.ON_DEMAND
    elif found is None:
        found = _common([record.capacity_type for record in running]) or CapacityType.UNKNOWN
    if found is CapacityType.ON_DEMAND and _reserves(group):
        return CapacityType.RESERVED
    return found


# Records.


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What else is known when a group is translated."""

    instances: Mapping[str, ResourceRecord] = field(default_factory=dict)
    """Its members as records, by id; those without accelerators may be missing."""
    machines: Mapping[str, MachineType] = field(default_factory=dict)
    launch: Launch = Launch()
    refresh: str | None = None
    """The status of an instance refresh that is under way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Hardware:
    """The accelerators of a group's members, or of what it would launch."""

    skus: tuple[str, ...]
    devices: tuple[Devices, ...]

    @property
    def count(self) -> int:
        return sum(device.count for device in self.devices)


BY_ATTRIBUTES = "any with its attributes"
"""The machine type of a group that names none."""


def has_accelerators(group: Answer, seen: Seen) -> bool:
    """By its members; by what it would launch only where it has none."""
    hardware = _hardware([group], seen)
    if members(group):
        return bool(hardware.devices)
    return bool(hardware.devices) or _launches_by_attributes([group], seen)


def _launches_by_attributes(groups: Sequence[Answer], seen: Seen) -> bool:
    named = any(override_skus(group) for group in groups)
    return any(overrides_want_accelerators(group) for group in groups) or (seen.launch.by_attributes and not named)


def launched_skus(group: Answer, launch: Launch) -> tuple[str, ...]:
    """Types it would launch: overrides count before what they override."""
    return override_skus(group) or launch.skus


def _hardware(groups: Sequence[Answer], seen: Seen) -> _Hardware:
    devices, skus = list[Devices](), dict[str, None]()
    there = [member for group in groups for member in members(group)]
    for member in there:
        record = seen.instances.get(member["InstanceId"])
        sku = record.sku if record else member.get("InstanceType")
        if sku:
            skus[sku] = None
        found = _devices_of(record) if record else _devices_in(seen, sku)
        if found:
            devices.append(found)
    if not there:
        skus = dict.fromkeys(sku for group in groups for sku in launched_skus(group, seen.launch))
        devices = [found for sku in skus if (found := _devices_in(seen, sku))]
    return _Hardware(skus=tuple(skus), devices=tuple(devices))


def _devices_in(seen: Seen, sku: str | None) -> Devices | None:
    machine = seen.machines.get(sku) if sku else None
    return machine.devices if machine else None


def _devices_of(record: ResourceRecord) -> Devices | None:
    if record.gpu_model is None or record.gpu_vendor is None:
        return None
    return Devices(
        vendor=record.gpu_vendor,
        model=record.gpu_model,
        count=record.gpu_count,
        share=record.gpu_share,
        memory_mib=record.gpu_memory_mib,
    )


def record_of_group(group: Answer, seen: Seen, *, region: str, fully_described: bool) -> ResourceRecord:
    """One scaling group of DescribeAutoScalingGroups."""
    there = members(group)
    tags = _tags(group)
    running = [seen.instances[one["InstanceId"]] for one in there if one["InstanceId"] in seen.instances]
    capacity = _capacity_type(group, seen.launch, running)
    ref = ResourceRef(
        provider="aws",
        account=account_of(group["AutoScalingGroupARN"]),
        region=region,
        kind=Kind.NODE_GROUP,
        external_id=external_id(group),
    )
    return _record(
        ref,
        [group],
        seen,
        incarnation=group["AutoScalingGroupARN"],
        name=group["AutoScalingGroupName"],
        tags=tags,
        capacity=capacity,
        state=_state(group["DesiredCapacity"], there, deleting=bool(group.get("Status"))),
        created_at=group["CreatedTime"],
        managed_by=_owner(group, tags),
        blockers=[*_group_blockers(group, seen, capacity, running)],
        losses=[*_zero_losses(there), *_spot_losses(there, running, capacity)],
        fully_described=fully_described,
    )


def record_of_node_group(
    node_group: Answer, groups: Sequence[Answer], seen: Seen, *, account: str, region: str, fully_described: bool
) -> ResourceRecord:
    """One `nodegroup` of DescribeNodegroup, with the scaling groups that EKS keeps for it."""
    there = [member for group in groups for member in members(group)]
    status = node_group["status"]
    capacity = EKS_CAPACITY.get(node_group.get("capacityType", ""), CapacityType.UNKNOWN)
    ref = ResourceRef(
        provider="aws",
        account=account,
        region=region,
        kind=Kind.NODE_GROUP,
        external_id=f"{node_group['clusterName']}/{node_group['nodegroupName']}",
    )
    return _record(
        ref,
        groups,
        seen,
        incarnation=node_group["nodegroupArn"],
        name=node_group["nodegroupName"],
        tags=dict(node_group.get("tags") or {}),
        capacity=capacity,
        state=_state(
            (node_group.get("scalingConfig") or {}).get("desiredSize", 0), there, deleting=status == "DELETING"
        ),
        created_at=node_group.get("createdAt"),
        managed_by=None,  # whoever has tagged it, its sizes are set by itself
        blockers=[*_node_group_blockers(node_group, groups, capacity)],
        losses=[*_zero_losses(there)],
        fully_described=fully_described,
    )


def _record(
    ref: ResourceRef,
    groups: Sequence[Answer],
    seen: Seen,
    *,
    incarnation: str,
    name: str,
    tags: Mapping[str, str],
    capacity: CapacityType,
    state: State,
    created_at: Any,
    managed_by: str | None,
    blockers: Sequence[Blocker],
    losses: Sequence[Loss],
    fully_described: bool,
) -> ResourceRecord:
    hardware = _hardware(groups, seen)
    there = [member for group in groups for member in members(group)]
    skus = hardware.skus or ((BY_ATTRIBUTES,) if _launches_by_attributes(groups, seen) else ())
    zones = {zone for group in groups for zone in group.get("AvailabilityZones") or ()}
    memories = [device.memory_mib for device in hardware.devices]
    return ResourceRecord(
        ref=ref,
        incarnation=incarnation,
        name=name,
        zone=zones.pop() if len(zones) == 1 else None,
        sku=", ".join(skus),
        gpu_vendor=_common([device.vendor for device in hardware.devices]),
        gpu_model=_common([device.model for device in hardware.devices]),
        gpu_count=hardware.count if there else 0,
        gpu_share=_common([device.share for device in hardware.devices]) or 1.0,
        gpu_memory_mib=_common(memories),
        capacity_type=capacity,
        state=state,
        created_at=created_at.astimezone(UTC) if created_at else None,
        tags=tags,
        managed_by=managed_by,
        members=tuple(member["InstanceId"] for member in there),
        protections=tuple(_protections(tags, there, seen)),
        blockers=tuple(blockers),
        losses=tuple(losses),
        fully_described=fully_described,
    )


def _common(values: Sequence[T]) -> T | None:
    """What all of them are, if they are one thing."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _tags(group: Answer) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in group.get("Tags") or ()}


def _state(desired: int, there: Sequence[Answer], *, deleting: bool) -> State:
    if deleting or desired == 0:
        return State.STOPPING if there else State.STOPPED
    coming = all(str(member.get("LifecycleState", "")).startswith("Pending") for member in there)
    return State.PENDING if coming else State.RUNNING


GROUP_OWNER_TAGS = (
    ("kops.k8s.io/instancegroup", "kops"),
    ("AmazonECSManaged", "ecs"),
    ("elasticbeanstalk:environment-name", "elasticbeanstalk"),
)
"""Tags that owners put on groups only, beside those they put on machines too."""

CLUSTER_AUTOSCALER = "k8s.io/cluster-autoscaler/"
"""A group of self-managed nodes that Cluster Autoscaler scales; the cluster is named in the key."""


def _owner(group: Answer, tags: Mapping[str, str]) -> str | None:
    operator = group.get("Operator")
    found = managed_by({"Operator": {"Managed": True, **operator}} if operator else {}, tags)
    if found:
        return found
    for tag, owner in GROUP_OWNER_TAGS:
        if tag in tags:
            return f"{owner}:{tags[tag]}" if tags[tag] else owner
    clusters = [key.removeprefix(CLUSTER_AUTOSCALER) for key in sorted(tags) if key.startswith(CLUSTER_AUTOSCALER)]
    if clusters:
        named = [name for name in clusters if name != "enabled" and not name.startswith("node-template")]
        return f"kubernetes:{named[0]}" if named else "kubernetes:cluster-autoscaler"
    return None


def _protections(tags: Mapping[str, str], there: Sequence[Answer], seen: Seen) -> Iterable[Protection]:
    """Its own, and those of its members: it cannot be scaled past them."""
    own = list(tag_protections(tags))
    yield from own
    kept = [member["InstanceId"] for member in there if member.get("ProtectedFromScaleIn")]
    if kept:
        yield Protection(
            source="ProtectedFromScaleIn",
            sentence=f"{_some_of(kept, there)} protected from scale in ({_named(kept)})",
        )
    told = {protection.source for protection in own}  # tags of a group are on its members too
    for member in there:
        record = seen.instances.get(member["InstanceId"])
        for protection in record.protections if record else ():
            if protection.source not in told:
                told.add(protection.source)
                yield Protection(
                    source=protection.source,
                    sentence=f"of its member {member['InstanceId']}: {protection.sentence}",
                    until=protection.until,
                )


def _some_of(some: Sequence[str], there: Sequence[Answer]) -> str:
    return f"{len(some)} of its {len(there)} instances {'is' if len(some) == 1 else 'are'}"


def _named(ids: Sequence[str], most: int = 3) -> str:
    return ", ".join(ids[:most]) + (", …" if len(ids) > most else "")


# What stands in the way, and what would be lost.


def _group_blockers(
    group: Answer, seen: Seen, capacity: CapacityType, running: Collection[ResourceRecord]
) -> Iterable[Blocker]:
    for verb in (Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT):
        if group.get("Status"):
            yield Blocker(verb=verb, code="Deleting", sentence="it is being deleted")
        if seen.refresh:
            yield Blocker(
                verb=verb, code="InstanceRefresh", sentence=f"an instance refresh is under way ({seen.refresh})"
            )
        if seen.launch.gone:
            yield Blocker(
                verb=verb,
                code="LaunchTemplateGone",
                sentence="its launch template does not exist any more, so it could launch nothing afterwards",
            )
    suspended = suspended_processes(group)
    if "Terminate" in suspended:
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO,
            code="TerminateSuspended",
            sentence="its Terminate process is suspended, so scaling in would not happen",
        )
    if "Launch" in suspended:
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO,
            code="LaunchSuspended",
            sentence="its Launch process is suspended, so nothing would come back when it is restored",
        )
    standby = [
        one["InstanceId"] for one in members(group) if one.get("LifecycleState") in ("Standby", "EnteringStandby")
    ]
    if standby:
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO,
            code="Standby",
            sentence=f"{_some_of(standby, members(group))} on standby, which scaling in leaves running",
        )
    if group.get("WarmPoolConfiguration"):
        yield _WARM_POOL
    if CapacityType.CAPACITY_BLOCK in (capacity, *(record.capacity_type for record in running)):
        yield _CAPACITY_BLOCK
    yield from _spot_blockers(group, capacity)


_WARM_POOL = Blocker(
    verb=Verb.SCALE_TO_ZERO,
    code="WarmPool",
    sentence="it has a warm pool, which is filled up as the group is scaled in: machines would be launched, not ended",
)
_CAPACITY_BLOCK = Blocker(
    verb=Verb.SCALE_TO_ZERO,
    code="CapacityBlock",
    sentence="it runs in a capacity block, which is paid for in advance: scaling in saves nothing",
)


def _spot_blockers(group: Answer, capacity: CapacityType) -> Iterable[Blocker]:
    for applies, code, sentence in (
        (capacity is CapacityType.SPOT, "AlreadySpot", "it launches spot instances already"),
        (
            template_of(group) is None,
            "NoLaunchTemplate",
            "it launches from a launch configuration, which cannot be mixed with spot; a launch template can",
        ),
        (
            bool(group.get("WarmPoolConfiguration")),
            "WarmPool",
            "it has a warm pool, which spot instances cannot be in",
        ),
        (
            capacity is CapacityType.RESERVED,
            "CapacityReservation",
            "it launches into capacity reservations, which are paid for in any case",
        ),
        (
            capacity is CapacityType.CAPACITY_BLOCK,
            "CapacityBlock",
            "it launches into a capacity block, which is paid for in advance",
        ),
        (
            bool((_distribution(group) or {}).get("DistributionSegments")),
            "DistributionSegments",
            "its mixed instances policy has distribution segments, which Curfew does not rewrite",
        ),
    ):
        if applies:
            yield Blocker(verb=Verb.MOVE_TO_SPOT, code=code, sentence=sentence)


EKS_CAPACITY = {
    "ON_DEMAND": CapacityType.ON_DEMAND,
    "SPOT": CapacityType.SPOT,
    "CAPACITY_BLOCK": CapacityType.CAPACITY_BLOCK,
}
EKS_STATUSES = {
    "CREATING": ("Creating", "EKS is still creating it"),
    "UPDATING": ("Updating", "EKS is updating it"),
    "DELETING": ("Deleting", "EKS is deleting it"),
    "CREATE_FAILED": ("CreateFailed", "EKS failed to create it"),
    "DELETE_FAILED": ("DeleteFailed", "EKS failed to delete it"),
    "DEGRADED": ("Degraded", "EKS calls it degraded"),
}


def _node_group_blockers(node_group: Answer, groups: Sequence[Answer], capacity: CapacityType) -> Iterable[Blocker]:
    status = node_group["status"]
    if status != "ACTIVE":
        code, sentence = EKS_STATUSES.get(status, ("NotActive", f"EKS calls it {status}"))
        issues = [issue.get("message") for issue in (node_group.get("health") or {}).get("issues") or ()]
        told = f"{sentence}: {issues[0].rstrip('.')}" if issues and issues[0] else sentence
        yield Blocker(verb=Verb.SCALE_TO_ZERO, code=code, sentence=told)
    if (node_group.get("warmPoolConfig") or {}).get("enabled"):
        yield _WARM_POOL
    if capacity is CapacityType.CAPACITY_BLOCK:
        yield _CAPACITY_BLOCK
    if any("Terminate" in suspended_processes(group) for group in groups):
        yield Blocker(
            verb=Verb.SCALE_TO_ZERO,
            code="TerminateSuspended",
            sentence="the Terminate process of its scaling group is suspended, so scaling in would not happen",
        )
    yield Blocker(
        verb=Verb.MOVE_TO_SPOT,
        code="Unsupported",
        sentence="the capacity type of an EKS node group cannot be changed; a spot node group beside it can be made",
    )


def _zero_losses(there: Sequence[Answer]) -> Iterable[Loss]:
    if there:
        disks = "its local and root disks" if len(there) == 1 else "their local and root disks"
        yield Loss(
            verb=Verb.SCALE_TO_ZERO,
            name=LossName.GROUP_MEMBERS,
            sentence=f"its {_instances(there)} would be terminated, with {disks}; new ones come when it is restored",
        )


def _spot_losses(
    there: Sequence[Answer], running: Collection[ResourceRecord], capacity: CapacityType
) -> Iterable[Loss]:
    """EC2 Auto Scaling does not leave alone what no longer fits a new mixed instances policy."""
    spot = {record.ref.external_id for record in running if record.capacity_type is CapacityType.SPOT}
    others = [member for member in there if member["InstanceId"] not in spot]
    if others and capacity is not CapacityType.SPOT:
        yield Loss(
            verb=Verb.MOVE_TO_SPOT,
            name=LossName.GROUP_MEMBERS,
            sentence=(
                f"its {_instances(others)} not on spot may be replaced one by one, each by a new one first; what is on "
                "local and root disks goes with them"
            ),
        )


def _instances(there: Sequence[Answer]) -> str:
    return f"{len(there)} instance" if len(there) == 1 else f"{len(there)} instances"


# What acting needs.


def suspended_processes(group: Answer) -> list[str]:
    return sorted(process["ProcessName"] for process in group.get("SuspendedProcesses") or ())


def launches(group: Answer) -> dict[str, Any]:
    """How a group launches, in the words that put it back. Empty for a launch configuration."""
    mixed = group.get("MixedInstancesPolicy")
    if mixed:
        launch_template = mixed["LaunchTemplate"]
        distribution = dict(mixed.get("InstancesDistribution") or {})
        if distribution.get("SpotAllocationStrategy", "lowest-price") != "lowest-price":
            distribution.pop("SpotInstancePools", None)  # refused beside any other strategy
        return {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": _by_id(launch_template["LaunchTemplateSpecification"]),
                    "Overrides": [_override(entry) for entry in launch_template.get("Overrides") or ()],
                },
                "InstancesDistribution": distribution,
            }
        }
    return {"LaunchTemplate": _by_id(group["LaunchTemplate"])} if group.get("LaunchTemplate") else {}


def launches_on_spot(former: Mapping[str, Any]) -> dict[str, Any]:
    """The same launch template and types, all of it on spot. `former` is an answer of `launches`."""
    mixed = former.get("MixedInstancesPolicy") or {
        "LaunchTemplate": {"LaunchTemplateSpecification": former["LaunchTemplate"], "Overrides": []}
    }
    distribution = {
        **(mixed.get("InstancesDistribution") or {}),
        "OnDemandBaseCapacity": 0,
        "OnDemandPercentageAboveBaseCapacity": 0,
        "SpotAllocationStrategy": "price-capacity-optimized",
    }
    distribution.pop("SpotInstancePools", None)
    return {"MixedInstancesPolicy": {**mixed, "InstancesDistribution": distribution}}


DISTRIBUTION_DEFAULTS = {
    "OnDemandAllocationStrategy": "prioritized",
    "OnDemandBaseCapacity": 0,
    "OnDemandPercentageAboveBaseCapacity": 100,
    "SpotAllocationStrategy": "lowest-price",
}


def same_launches(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both launch alike; what AWS fills in by itself makes no difference."""
    return _filled_in(one) == _filled_in(other)


def _filled_in(launching: Mapping[str, Any]) -> tuple[object, ...]:
    mixed = launching.get("MixedInstancesPolicy")
    if not mixed:
        template = launching.get("LaunchTemplate")
        return (_version(template),) if template else ()
    template = mixed["LaunchTemplate"]
    overrides = template.get("Overrides") or []
    defaults = dict(DISTRIBUTION_DEFAULTS)
    if any(entry.get("InstanceRequirements") for entry in overrides):
        defaults["OnDemandAllocationStrategy"] = "lowest-price"
    distribution = {**defaults, **(mixed.get("InstancesDistribution") or {})}
    if distribution["SpotAllocationStrategy"] == "lowest-price":
        distribution.setdefault("SpotInstancePools", 2)
    distribution = {key: value for key, value in distribution.items() if value not in (None, "", [])}
    return _version(template["LaunchTemplateSpecification"]), overrides, distribution


def _version(specification: Answer) -> tuple[object, object]:
    return (
        specification.get("LaunchTemplateId") or specification.get("LaunchTemplateName"),
        specification.get("Version") or "$Default",
    )


def _override(entry: Answer) -> dict[str, Any]:
    own = entry.get("LaunchTemplateSpecification")
    return {**entry, "LaunchTemplateSpecification": _by_id(own)} if own else dict(entry)


def _by_id(specification: Answer) -> dict[str, Any]:
    """AWS tells id and name of a launch template, and takes only one of them."""
    known = {key: specification[key] for key in ("LaunchTemplateId", "Version") if specification.get(key)}
    if "LaunchTemplateId" not in known:
        known["LaunchTemplateName"] = specification["LaunchTemplateName"]
    return known
