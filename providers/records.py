"""The frozen records every provider answers with: one vocabulary for all clouds.

Plain values only. No SDK type, no project, no person: whoever reads a record cannot tell which SDK made it.
Times are timezone-aware UTC; money is an integer count of micro-units (1 USD = 1,000,000) per hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from sys import intern


class Kind(StrEnum):
    """What sort of thing is governed."""

    INSTANCE = "instance"
    NODE = "node"
    NODE_GROUP = "node_group"
    WORKLOAD = "workload"
    NOTEBOOK = "notebook"
    ENDPOINT = "endpoint"
    TRAINING_JOB = "training_job"

    @property
    def counted(self) -> bool:
        """Whether its GPUs and its cost add to sums; those of a group are its members', and counted with them."""
        return self is not Kind.NODE_GROUP


class Initiator(StrEnum):
    """Who brought a machine down, as far as its cloud tells."""

    CLOUD = "cloud"
    """A spot interruption, a scheduled retirement, a failure of the host."""
    PERSON = "person"
    """A call to the API (ours too) or a shutdown from inside."""


class State(StrEnum):
    """The same words on every cloud. GCP's TERMINATED is `stopped`; EC2's is `terminated`."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    TERMINATED = "terminated"
    UNKNOWN = "unknown"


class CapacityType(StrEnum):
    """How the capacity was bought. A word a cloud invents tomorrow is `unknown`, never `on_demand`."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"
    CAPACITY_BLOCK = "capacity_block"
    FLEX_START = "flex_start"
    UNKNOWN = "unknown"


class Verb(StrEnum):
    """What can be done to a resource. `start` only ever restores what we stopped."""

    STOP = "stop"
    HIBERNATE = "hibernate"
    SUSPEND = "suspend"
    SCALE_TO_ZERO = "scale_to_zero"
    TERMINATE = "terminate"
    MOVE_TO_SPOT = "move_to_spot"
    START = "start"


class LossName(StrEnum):
    """What a person must accept by name before an act that loses it (`accept_loss`)."""

    LOCAL_DISKS = "local_disks"
    GROUP_MEMBERS = "group_members"
    TERMINATE = "terminate"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceRef:
    """Where a resource lives in its cloud; enough to describe it or act on it."""

    provider: str
    account: str
    """Account id, subscription id, project id or cluster uid."""
    region: str
    kind: Kind
    external_id: str
    """The cloud's own id (`i-0abc…`, a full resource path, `namespace/Kind/name`; a node's name alone)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protection:
    """One reason found *on the resource* why it must not be touched."""

    source: str
    """The tag, annotation or cloud attribute that protects, e.g. `disableApiStop`, `curfew-protect`."""
    sentence: str
    until: datetime | None = None
    """Exclusive end, when the marker names one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocker:
    """A precondition of the cloud that makes one verb impossible or pointless now."""

    verb: Verb
    code: str
    """Stable, PascalCase: `OneTimeSpot`, `InstanceStoreRoot`, `CapacityBlock`, …"""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What a verb would destroy. Needs `accept_loss` by this name."""

    verb: Verb
    name: LossName
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """A pod's hold on the accelerators of the node it runs on."""

    pod: str
    """Its name; its namespace is its workload's."""
    node: str
    """External id of the node, in the same account."""
    share: Fraction
    """Of all accelerators of the node, above 0 and at most 1: 3 of 8 GPUs, or one seventh of one of 8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceRecord:
    """One GPU resource as its cloud describes it now."""

    ref: ResourceRef
    incarnation: str
    """Tells a re-created thing of the same name from the old one (uid, creation time); the external id on EC2."""
    name: str
    zone: str | None
    sku: str
    """Machine type / VM size / instance type."""
    gpu_vendor: str | None
    """`nvidia`, `amd`, `aws`, `intel`, `google`, `qualcomm`, `xilinx`, `habana`; None when unknown."""
    gpu_model: str | None
    """Normalised: `H100`, `A100-80GB`, `L4`, `T4`, `Trainium1`, `Inferentia2`, …"""
    gpu_count: int
    """Devices the machine presents, or that the workload's pods hold: as many series as telemetry must show."""
    gpu_share: float = 1.0
    """Part of a physical GPU each device is: 0.125 for an eighth of an L4."""
    gpu_memory_mib: int | None = None
    """Memory of one device."""
    capacity_type: CapacityType = CapacityType.UNKNOWN
    state: State = State.UNKNOWN
    """A group: `running` while it wants or has members, `stopping` while the last ones go, `stopped` at zero."""
    stopped_by: Initiator | None = None
    """Who brought it down, while it is down; None when it runs or the cloud does not say."""
    launched_at: datetime | None = None
    """Time of the last start (EC2 LaunchTime), None when the cloud does not say."""
    created_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    managed_by: str | None = None
    """`system:name` of the scaling group, scheduler or operator that owns it, e.g. `autoscaling:trainers`."""
    members: tuple[str, ...] = ()
    """Of a `node_group`: external ids of the instances it has now, in the same account and region. Its `gpu_count` is
    theirs together, its `capacity_type` what it launches next."""
    placements: tuple[Placement, ...] = ()
    """Of a `workload`: where its GPUs are now, one for each pod that holds some. It costs its shares of those nodes."""
    machine: str | None = None
    """Of a `node`: what the cloud beneath calls it (`aws:///us-east-1a/i-0abc`), where it is a cloud's machine."""
    remarks: tuple[str, ...] = ()
    """What is unusual about it, in sentences for people: a driver that is still installing, a GPU that is missing."""
    powered_off: bool = False
    """It does nothing, but its cloud keeps its capacity and bills it (Azure's `stopped`). Its state is `running`."""
    run_limit_seconds: int | None = None
    """The cloud itself ends each of its runs after so long (Google Cloud's `maxRunDuration`)."""
    protections: tuple[Protection, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    losses: tuple[Loss, ...] = ()
    listed_in: str | None = None
    """The part of its source that lists it, where that is not its region: one kind of Kubernetes object."""
    fully_described: bool = False
    """True when per-resource questions (stop protection, spot request) were asked too; only then may one act on it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A failure as data, for reports: which, in words, and the missing permission if that is what it was."""

    code: str
    sentence: str
    permission: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PartReport:
    """How listing one part (a region, a zone, a namespace) of a source went."""

    part: str
    """A region, or what its records name by `listed_in`. `*` speaks for everything of its account."""
    complete: bool
    fault: Fault | None = None
    account: str | None = None
    """Whose part it is, in a source of several accounts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryAnswer:
    """All resources a source has now. Absent from a *complete* part means absent; from an incomplete one, unknown."""

    identity: str
    """Account id or cluster uid that answered; must match what it was."""
    records: tuple[ResourceRecord, ...]
    parts: tuple[PartReport, ...]

    @property
    def complete(self) -> bool:
        return all(part.complete for part in self.parts)


class Signal(StrEnum):
    """What a telemetry series measures. Ratios are 0..1."""

    UTILISATION = "utilisation"
    """Graphics-engine active where there is one, else GPU utilisation. Ratio."""
    TENSOR_ACTIVE = "tensor_active"
    DRAM_ACTIVE = "dram_active"
    POWER_WATTS = "power_watts"
    MEMORY_USED_MIB = "memory_used_mib"
    REQUESTS_TOTAL = "requests_total"


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Samples of one signal of one device of one resource, ascending, at most one per second."""

    ref: ResourceRef
    device: str
    """GPU index or uuid; `GPU/instance` for MIG. Unique within the resource."""
    signal: Signal
    times: tuple[int, ...]
    """Unix seconds."""
    values: Sequence[float]
    """One for each of the times; an array takes a quarter of a tuple's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TelemetryAnswer:
    """Series for a window. What is not here is unknown, never idle."""

    series: tuple[Series, ...]
    ambiguous: frozenset[ResourceRef] = frozenset()
    """Resources for which a series matched more than one candidate: unknown for every one of them."""
    faults: tuple[PartReport, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What an hour of running costs."""

    rate_micros: int
    """Micro-units of `currency` per hour for the whole resource."""
    currency: str
    source: str
    """Where it is from, e.g. `builtin 2026-07-20`, `file prices.yaml`."""


def resource_id(ref: ResourceRef, incarnation: str) -> str:
    """Our own stable id, safe in a URL: a hash of provider, account, region, kind, external id and incarnation."""
    text = "\0".join((ref.provider, ref.account, ref.region, ref.kind, ref.external_id, incarnation))
    return intern(hashlib.sha256(text.encode()).hexdigest()[:20])  # many look it up; all hold the same one
