"""Turns what EC2 answers into records. Pure: no call is made here, and nothing is decided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from providers import builtin_tables
from providers.protections import tag_protections
from providers.records import (
    Blocker,
    CapacityType,
    Initiator,
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


# Machine types: what a machine presents.


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """The accelerators a machine presents."""

    vendor: str
    model: str
    count: int
    share: float = 1.0
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineType:
    """What all machines of one type have in common."""

    devices: Devices | None
    """None: no accelerators, and so not ours to govern."""
    local_storage_gb: int = 0
    """Disks that belong to the host and are erased by a stop."""


MODELS = {
    "Gaudi HL-205": "Gaudi",
    "Inferentia": "Inferentia1",
    "Qualcomm AI100": "AI100",
    "RTX PRO Server 6000": "RTX PRO 6000",
    "T4g": "T4G",
    "Trainium": "Trainium1",
}
"""Names of EC2's that differ from everyone else's. The rest pass as they are."""

A100_OF_80_GB_ABOVE_MIB = 60_000
"""EC2 calls both A100s by one name."""


def machine_type(answer: Answer) -> MachineType:
    """One entry of DescribeInstanceTypes."""
    storage = answer.get("InstanceStorageInfo") or {}
    return MachineType(devices=_devices(answer), local_storage_gb=storage.get("TotalSizeInGB", 0))


def _devices(answer: Answer) -> Devices | None:
    # FPGAs and video encoders are accelerators too, but do not train or infer
    for devices in (
        (answer.get("GpuInfo") or {}).get("Gpus"),
        (answer.get("NeuronInfo") or {}).get("NeuronDevices"),
        (answer.get("InferenceAcceleratorInfo") or {}).get("Accelerators"),
    ):
        if devices:
            return _device(devices)
    return None


def _device(devices: list[Answer]) -> Devices:
    first = devices[0]
    memory = (first.get("MemoryInfo") or {}).get("SizeInMiB")
    return Devices(
        vendor=first.get("Manufacturer", "AWS").lower(),
        model=_model(first.get("Name", ""), memory),
        # a fraction of a GPU counts as no physical GPU and one logical one
        count=sum(device.get("LogicalGpuCount") or device.get("Count") or 0 for device in devices),
        share=first.get("GpuPartitionSize") or 1.0,
        memory_mib=memory,
    )


def _model(name: str, memory_mib: int | None) -> str:
    if name == "A100" and memory_mib is not None and memory_mib > A100_OF_80_GB_ABOVE_MIB:
        return "A100-80GB"
    return MODELS.get(name, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltinType:
    """A row of the built-in table: what to go by where EC2 does not answer, and the list price."""

    machine: MachineType
    usd_per_hour: Decimal | None


@cache
def builtin_types() -> Mapping[str, BuiltinType]:
    """The built-in table by type; `machine_types.csv` says where it is from."""
    return {
        row["sku"]: BuiltinType(
            machine=MachineType(
                devices=Devices(
                    vendor=row["gpu_vendor"],
                    model=row["gpu_model"],
                    count=int(row["gpu_count"]),
                    share=float(row["gpu_share"]),
                    memory_mib=int(row["gpu_memory_mib"]) if row["gpu_memory_mib"] else None,
                ),
                local_storage_gb=int(row["local_storage_gb"]),
            ),
            usd_per_hour=Decimal(row["usd_per_hour"]) if row["usd_per_hour"] else None,
        )
        for row in builtin_tables.rows("providers.aws", "machine_types.csv")
    }


ACCELERATED_FAMILY = re.compile(r"^(p|g|gr|trn|inf|dl)\d")
"""Families whose unknown types may well be ours to govern."""


# Instances.

STATES = {
    "pending": State.PENDING,
    "running": State.RUNNING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
    "shutting-down": State.TERMINATED,  # there is no way back from it, and it is not billed
    "terminated": State.TERMINATED,
}

BROUGHT_DOWN_BY = {
    "Client.InstanceInitiatedShutdown": Initiator.PERSON,
    "Client.UserInitiatedHibernate": Initiator.PERSON,
    "Client.UserInitiatedShutdown": Initiator.PERSON,
    "Server.InsufficientInstanceCapacity": Initiator.CLOUD,
    "Server.InternalError": Initiator.CLOUD,
    "Server.ScheduledStop": Initiator.CLOUD,
    "Server.SpotInstanceShutdown": Initiator.CLOUD,
    "Server.SpotInstanceTermination": Initiator.CLOUD,
}
"""EC2's reasons of the last change of state. A word of tomorrow names nobody: to take a person's act for the cloud's
would be to fight a person."""

LIFECYCLES = {
    "spot": CapacityType.SPOT,
    "capacity-block": CapacityType.CAPACITY_BLOCK,
    "scheduled": CapacityType.RESERVED,
    "interruptible-capacity-reservation": CapacityType.RESERVED,
}


def record(instance: Answer, *, account: str, region: str, machine: MachineType) -> ResourceRecord:
    """One instance of DescribeInstances. What takes a question of its own is added by `fully_described`."""
    tags = {tag["Key"]: tag.get("Value", "") for tag in instance.get("Tags") or ()}
    state = STATES.get((instance.get("State") or {}).get("Name", ""), State.UNKNOWN)
    capacity = _capacity_type(instance)
    devices = machine.devices
    return ResourceRecord(
        ref=ResourceRef(
            provider="aws", account=account, region=region, kind=Kind.INSTANCE, external_id=instance["InstanceId"]
        ),
        incarnation=instance["InstanceId"],  # EC2 never gives an id twice
        name=tags.get("Name") or instance["InstanceId"],
        zone=(instance.get("Placement") or {}).get("AvailabilityZone"),
        sku=instance["InstanceType"],
        gpu_vendor=devices.vendor if devices else None,
        gpu_model=devices.model if devices else None,
        gpu_count=devices.count if devices else 0,
        gpu_share=devices.share if devices else 1.0,
        gpu_memory_mib=devices.memory_mib if devices else None,
        capacity_type=capacity,
        state=state,
        stopped_by=_stopped_by(instance, state),
        launched_at=_utc(instance.get("LaunchTime")),
        created_at=_created_at(instance),
        tags=tags,
        managed_by=managed_by(instance, tags),
        protections=tuple(tag_protections(tags)),
        blockers=tuple(_blockers(instance, state, capacity)),
        losses=tuple(_losses(machine)),
    )


def _stopped_by(instance: Answer, state: State) -> Initiator | None:
    """A reason can outlive a restart, so it counts only while the machine is down."""
    if state not in {State.STOPPING, State.STOPPED, State.TERMINATED}:
        return None
    return BROUGHT_DOWN_BY.get((instance.get("StateReason") or {}).get("Code", ""))


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.astimezone(UTC)


def _created_at(instance: Answer) -> datetime | None:
    """The first thing attached to it: EC2 tells the last start only, and nothing is attached before creation."""
    interfaces = (interface.get("Attachment") or {} for interface in instance.get("NetworkInterfaces") or ())
    volumes = (mapping.get("Ebs") or {} for mapping in instance.get("BlockDeviceMappings") or ())
    times = [attached["AttachTime"] for attached in (*interfaces, *volumes) if attached.get("AttachTime")]
    return _utc(min(times, default=None))


def _capacity_type(instance: Answer) -> CapacityType:
    lifecycle = instance.get("InstanceLifecycle")
    if lifecycle:
        return LIFECYCLES.get(lifecycle, CapacityType.UNKNOWN)
    if instance.get("CapacityBlockId"):
        return CapacityType.CAPACITY_BLOCK
    if instance.get("CapacityReservationId"):
        return CapacityType.RESERVED
    return CapacityType.ON_DEMAND


KUBERNETES_TAGS = (
    ("karpenter.sh/nodepool", "karpenter"),
    ("karpenter.sh/nodeclaim", "karpenter"),
    ("karpenter.sh/provisioner-name", "karpenter"),
    ("eks:nodegroup-name", "eks-nodegroup"),
    ("eks:cluster-name", "kubernetes"),
    ("aws:eks:cluster-name", "kubernetes"),
    ("eks:eks-cluster-name", "kubernetes"),
    ("alpha.eksctl.io/cluster-name", "kubernetes"),
    ("KubernetesCluster", "kubernetes"),
)
"""Tags of Kubernetes nodes, the strongest claim first. They are often in scaling groups too, but those are
Kubernetes' to scale."""

CLUSTER_IN_KEY = ("kubernetes.io/cluster/", "sigs.k8s.io/cluster-api-provider-aws/cluster/")
"""Tags that name the cluster in their key; whatever the value (`owned`, `shared`), it is a node."""

OWNER_TAGS = (
    ("aws:elasticmapreduce:job-flow-id", "emr"),
    ("parallelcluster:cluster-name", "parallelcluster"),
    ("aws:batch:compute-environment", "batch"),
    ("AWSBatchServiceTag", "batch"),
    ("aws:ecs:clusterName", "ecs"),
    ("aws:autoscaling:groupName", "autoscaling"),
    ("aws:ec2spot:fleet-request-id", "spot-fleet"),
    ("aws:ec2:fleet-id", "ec2-fleet"),
)
"""Tags of everyone else who starts and replaces machines by himself. CloudFormation does not."""


def managed_by(instance: Answer, tags: Mapping[str, str]) -> str | None:
    for tag, owner in KUBERNETES_TAGS:
        if tag in tags:
            return f"{owner}:{tags[tag]}"
    for key in sorted(tags):
        for prefix in CLUSTER_IN_KEY:
            if key.startswith(prefix):
                return f"kubernetes:{key.removeprefix(prefix)}"
    operator = instance.get("Operator") or {}
    if operator.get("Managed"):
        return f"operator:{operator.get('Principal', 'unnamed')}"
    for tag, owner in OWNER_TAGS:
        if tag in tags:
            return f"{owner}:{tags[tag]}"
    return None


def _blockers(instance: Answer, state: State, capacity: CapacityType) -> Iterable[Blocker]:
    for verb in (Verb.STOP, Verb.HIBERNATE):
        if state is State.TERMINATED:
            yield Blocker(verb=verb, code="Terminated", sentence="it is terminated")
        if instance.get("RootDeviceType") == "instance-store":
            yield Blocker(
                verb=verb,
                code="InstanceStoreRoot",
                sentence="its root disk is an instance store, which cannot be stopped, only terminated",
            )
        if capacity is CapacityType.CAPACITY_BLOCK:
            yield Blocker(
                verb=verb,
                code="CapacityBlock",
                sentence="it runs in a capacity block, which is paid for in advance: stopping it saves nothing",
            )
    if not (instance.get("HibernationOptions") or {}).get("Configured"):
        yield Blocker(
            verb=Verb.HIBERNATE,
            code="HibernationNotConfigured",
            sentence="hibernation was not configured when it was launched",
        )


def _losses(machine: MachineType) -> Iterable[Loss]:
    if machine.local_storage_gb:
        for verb in (Verb.STOP, Verb.HIBERNATE):
            yield Loss(
                verb=verb,
                name=LossName.LOCAL_DISKS,
                sentence=f"{machine.local_storage_gb:,} GB of NVMe instance storage would be erased",
            )


# What takes a question of its own.


SPOT_REQUEST = ("Type", "State", "LaunchGroup", "AvailabilityZoneGroup")
"""What of a spot request is looked at."""


def with_spot_request(record: ResourceRecord, request: Answer | None) -> ResourceRecord:
    """A spot machine together with what its spot request allows. No request found allows nothing."""
    blockers = tuple(
        Blocker(verb=verb, code=code, sentence=sentence)
        for verb in (Verb.STOP, Verb.HIBERNATE)
        for code, sentence in _spot_blockers(request)
    )
    return replace(record, blockers=record.blockers + blockers)


def _spot_blockers(request: Answer | None) -> Iterable[tuple[str, str]]:
    if request is None:
        yield "SpotRequestUnknown", "its spot request was not found, so whether EC2 would stop it is not known"
        return
    if request.get("Type") != "persistent":
        yield "OneTimeSpot", "its spot request is a one-time request, whose machines EC2 does not stop, only terminate"
    if request.get("State") in {"cancelled", "closed", "failed"}:
        yield "SpotRequestGone", f"its spot request is {request['State']}; EC2 stops machines of active requests only"
    if request.get("LaunchGroup") or request.get("AvailabilityZoneGroup"):
        yield "SpotGroup", "its spot request belongs to a launch group, whose machines EC2 does not stop one by one"


def fully_described(record: ResourceRecord, *, stop_protection: bool, termination_protection: bool) -> ResourceRecord:
    """A record whose every sub-question was answered: one may act on it."""
    protections, blockers = record.protections, record.blockers
    if stop_protection:
        protections += (Protection(source="disableApiStop", sentence="its EC2 stop protection is on"),)
    if termination_protection:  # which does not keep it from being stopped
        blockers += (
            Blocker(
                verb=Verb.TERMINATE,
                code="disableApiTermination",
                sentence="its EC2 termination protection is on",
            ),
        )
    return replace(record, protections=protections, blockers=blockers, fully_described=True)
