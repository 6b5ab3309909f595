"""Turns what Compute Engine, Workbench and Cloud TPU answer into records. Pure: no call is made here, and nothing is
decided.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, lru_cache
from math import ceil, prod
from typing import Any

from providers import builtin_tables
from providers.errors import Unreachable
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

WORKBENCH, TPU_VMS = "Workbench instances", "TPU VMs"
"""Parts of a project that APIs of their own list."""


# Names. Google tells most things as the end of a URL.


def last(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def region_of(place: str) -> str:
    """Of a zone; a region is its own: `us-central1-a` → `us-central1`."""
    return place.rpartition("-")[0] if place.count("-") > 1 else place


def texts(labels: Mapping[str, str] | None) -> Mapping[str, str]:
    """Labels, which are texts: anything else would be met far from here, by whoever compares them."""
    if labels and not all(type(value) is str for value in labels.values()):
        raise TypeError("labels are texts")
    return labels or {}


def check_project(name: str, account: str) -> None:
    """Ids are told apart by project, and another's thing must be neither shown nor touched in this one's place."""
    project = name.partition("projects/")[2].partition("/")[0]
    if project != account and not project.isdigit():
        raise Unreachable(f"project {account} was asked, but what answers is of project {project or 'none'}")


# Accelerators: what a machine presents.


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """The accelerators a machine presents."""

    vendor: str | None
    model: str
    count: int
    share: float = 1.0
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineType:
    """What all machines of one type have in common."""

    devices: Devices | None
    """None: no accelerators but those that are attached to a machine itself."""
    local_storage_gb: int = 0
    """Local SSD that comes with the type."""


PLAIN = MachineType(devices=None)

ACCELERATORS = {
    "ct3": ("google", "TPU v3", 32),
    "ct3p": ("google", "TPU v3", 32),
    "ct4p": ("google", "TPU v4", 32),
    "ct5l": ("google", "TPU v5e", 16),
    "ct5lp": ("google", "TPU v5e", 16),
    "ct5p": ("google", "TPU v5p", 95),
    "ct6e": ("google", "TPU v6e", 32),
    "nvidia-a100-80gb": ("nvidia", "A100-80GB", 80),
    "nvidia-b200": ("nvidia", "B200", 180),
    "nvidia-gb200": ("nvidia", "GB200", 186),
    "nvidia-gb300": ("nvidia", "GB300", 279),
    "nvidia-h100-80gb": ("nvidia", "H100", 80),
    "nvidia-h100-mega-80gb": ("nvidia", "H100", 80),
    "nvidia-h200-141gb": ("nvidia", "H200", 141),
    "nvidia-l4": ("nvidia", "L4", 24),
    "nvidia-rtx-pro-6000": ("nvidia", "RTX PRO 6000", 96),
    "nvidia-rtx6000": ("nvidia", "RTX PRO 6000", 96),
    "nvidia-tesla-a100": ("nvidia", "A100", 40),
    "nvidia-tesla-k80": ("nvidia", "K80", 12),
    "nvidia-tesla-p100": ("nvidia", "P100", 16),
    "nvidia-tesla-p4": ("nvidia", "P4", 8),
    "nvidia-tesla-t4": ("nvidia", "T4", 16),
    "nvidia-tesla-v100": ("nvidia", "V100", 16),
    "tpu-v3-slice": ("google", "TPU v3", 32),
    "tpu-v4-podslice": ("google", "TPU v4", 32),
    "tpu-v5-lite-podslice": ("google", "TPU v5e", 16),
    "tpu-v5p-slice": ("google", "TPU v5p", 95),
    "tpu-v6e-slice": ("google", "TPU v6e", 32),
    "tpu7x": ("google", "TPU7x", 192),
}
"""Types of accelerators: whose they are, what everyone calls them, and the GiB of one of them. Workbench's names are
the same in capitals; `-vws` is a licence for virtual workstations beside the same device."""


@lru_cache(maxsize=256)
def accelerator(said: str, count: int) -> Devices:
    """So many devices of a type, by its name or its URL. One of tomorrow goes by what its name says."""
    name = last(said).lower().replace("_", "-").removesuffix("-vws")
    known = ACCELERATORS.get(name)
    if known is not None:
        vendor, model, gib = known
        return Devices(vendor=vendor, model=model, count=count, memory_mib=gib * 1024)
    maker, _, rest = name.partition("-")
    if maker in {"nvidia", "amd"} and rest:
        words = re.sub(r"-\d+gb$", "", rest.removeprefix("tesla-").removeprefix("instinct-"))
        return Devices(vendor=maker, model=words.replace("-", " ").upper(), count=count)
    if maker.startswith(("ct", "tpu")):
        return Devices(vendor="google", model=f"TPU {name}", count=count)
    return Devices(vendor=None, model=name, count=count)


MOST_DEVICES = 100_000
"""The largest slices of TPUs have some ten thousand chips. A number beyond is nobody's, and too large to be stored."""


def attached(accelerators: Sequence[Answer]) -> Devices | None:
    """`guestAccelerators`, all entries together."""
    counts = [int(one.get("acceleratorCount") or 0) for one in accelerators]
    if not all(0 <= count <= MOST_DEVICES for count in counts):
        raise ValueError(f"no machine has {max(counts, key=abs)} accelerators")
    if not sum(counts):
        return None
    first = next(one for one, count in zip(accelerators, counts, strict=True) if count)
    return accelerator(first["acceleratorType"], sum(counts))


def presented(own: Devices | None, machine: MachineType) -> Devices | None:
    """A machine's own accelerators, together with what its type says of them; Google tells of some in both places."""
    by_type = machine.devices
    if own is None or by_type is None:
        return own or by_type
    return replace(by_type, count=own.count) if own.model == by_type.model else own


PARTITION_GB, LARGE_PARTITION_GB = 375, 3000
"""Local SSD that comes with a type is told in partitions; those of A4X are the large ones."""
PART_OF_A_GPU = re.compile(r"\b1/(\d+) NVIDIA")
"""A type that has a part of a GPU calls it one, and tells the part in its description only."""


def machine_type(answer: Answer) -> MachineType:
    """One machine type of Compute Engine."""
    told = answer.get("accelerators") or ()
    devices = attached(
        [
            {"acceleratorType": one.get("guestAcceleratorType"), "acceleratorCount": one.get("guestAcceleratorCount")}
            for one in told
        ]
    )
    part = PART_OF_A_GPU.search(answer.get("description") or "")
    if devices is not None and part is not None:
        parts = int(part[1])
        memory = devices.memory_mib // parts if devices.memory_mib else None
        devices = replace(devices, share=1 / parts, memory_mib=memory)
    partitions = (answer.get("bundledLocalSsds") or {}).get("partitionCount") or 0
    size = LARGE_PARTITION_GB if answer["name"].startswith("a4x-") else PARTITION_GB
    return MachineType(devices=devices, local_storage_gb=partitions * size)


@cache
def builtin_types() -> Mapping[str, MachineType]:
    """The built-in table by type; `machine_types.csv` says where it is from."""
    return {
        row["sku"]: MachineType(
            devices=Devices(
                vendor=row["gpu_vendor"],
                model=row["gpu_model"],
                count=int(row["gpu_count"]),
                share=float(row["gpu_share"]),
                memory_mib=int(row["gpu_memory_mib"]),
            ),
            local_storage_gb=int(row["local_storage_gb"]),
        )
        for row in builtin_tables.rows("providers.gcp", "machine_types.csv")
    }


ACCELERATED_FAMILY = re.compile(r"^(a\d|g(?!1-)\d|ct\d|tpu\d)")
"""Families whose unknown types may well be ours to govern. A g1-small is none of them."""
CUSTOM = re.compile(r"^(?:(\w+)-)?custom-(\d+)-\d+(-ext)?$")
"""A type made to measure, which no list has: `n1-custom-8-30720`, and `g2-custom-8-36864` with more memory."""


def without_asking(sku: str) -> MachineType | None:
    """What a type has that need not be asked for, as no list of types has it."""
    made = CUSTOM.match(sku)
    if made is None:
        return None
    if not ACCELERATED_FAMILY.match(sku):
        return PLAIN
    return builtin_types().get(f"{made[1]}-standard-{made[2]}")


# Machines.

STATES = {
    "PROVISIONING": State.PENDING,
    "PENDING": State.PENDING,  # flex-start: waits for capacity
    "STAGING": State.PENDING,
    "RUNNING": State.RUNNING,
    "REPAIRING": State.RUNNING,
    "STOPPING": State.STOPPING,
    "PENDING_STOP": State.STOPPING,
    "DEPROVISIONING": State.STOPPING,  # halted, and what it held is being taken down
    "SUSPENDING": State.STOPPING,
    "SUSPENDED": State.SUSPENDED,
    "STOPPED": State.STOPPED,
    "TERMINATED": State.STOPPED,  # Google's word for a machine that can be started again
}

MODELS = {
    "SPOT": CapacityType.SPOT,
    "FLEX_START": CapacityType.FLEX_START,
    "RESERVATION_BOUND": CapacityType.RESERVED,
}
STANDARD = (None, "", "STANDARD")
"""A provisioning model that says nothing by itself; records of before 2022 have none."""


FIELDS = (
    "id,name,machineType,status,creationTimestamp,lastStartTimestamp,labels,deletionProtection,startRestricted,"
    "guestAccelerators(acceleratorType,acceleratorCount),"
    "scheduling(provisioningModel,preemptible,maxRunDuration/seconds,terminationTime,instanceTerminationAction),"
    "disks(type,diskSizeGb,diskEncryptionKey/sha256),metadata/items/key,"
    "resourceStatus/reservationConsumptionInfo/consumedReservation"
)
"""What of a machine is looked at. Most of its bytes are the values of its metadata: scripts, and whole configurations
of Kubernetes' nodes."""


def record(
    instance: Answer, *, account: str, zone: str, machine: MachineType, group: str | None = None
) -> ResourceRecord:
    """One machine of Compute Engine. `group` is the managed instance group it says it was made by."""
    labels = texts(instance.get("labels"))
    scheduling = instance.get("scheduling") or {}
    capacity = capacity_type(scheduling, reserved=consumes_a_reservation(instance))
    devices = presented(attached(instance.get("guestAccelerators") or ()), machine)
    name, sku = instance["name"], last(instance["machineType"])
    return ResourceRecord(
        ref=ResourceRef(
            provider="gcp",
            account=account,
            region=region_of(zone),
            kind=Kind.INSTANCE,
            external_id=f"projects/{account}/zones/{zone}/instances/{name}",
        ),
        incarnation=str(instance["id"]),
        name=name,
        zone=zone,
        sku=sku,
        gpu_vendor=devices.vendor if devices else None,
        gpu_model=devices.model if devices else None,
        gpu_count=devices.count if devices else 0,
        gpu_share=devices.share if devices else 1.0,
        gpu_memory_mib=devices.memory_mib if devices else None,
        capacity_type=capacity,
        state=STATES.get(instance.get("status") or "", State.UNKNOWN),
        launched_at=utc(instance.get("lastStartTimestamp")),
        created_at=utc(instance.get("creationTimestamp")),
        tags=labels,
        managed_by=managed_by(labels, metadata_keys(instance), group=group, name=name),
        remarks=tuple(_ends_by_itself(scheduling)),
        run_limit_seconds=run_limit(scheduling),
        protections=tuple(label_protections(labels)) if labels else (),
        blockers=_blockers(instance, sku, scheduling, devices),
        losses=disk_losses(local_disks_gb(instance, machine)),
    )


def utc(said: str | None) -> datetime | None:
    """`2026-11-01T00:00:00.123-07:00`, and nanoseconds too. What cannot be read is not known, nor is what has no value:
    Google writes that as a time of 1970 or of the year 1, and no machine has run for so long.
    """
    if not said:
        return None
    try:
        time = datetime.fromisoformat(said)
        known = time.tzinfo is not None and time > BEFORE_ALL_MACHINES
        return time.astimezone(UTC) if known else None
    except (ValueError, OverflowError):
        return None


BEFORE_ALL_MACHINES = datetime(2008, 1, 1, tzinfo=UTC)
"""Google Cloud is younger."""


def capacity_type(scheduling: Answer, *, reserved: bool) -> CapacityType:
    """`reserved`: whether it is known to use capacity of a reservation."""
    model = scheduling.get("provisioningModel")
    if model not in STANDARD:
        return MODELS.get(str(model), CapacityType.UNKNOWN)
    if scheduling.get("preemptible"):
        return CapacityType.SPOT
    return CapacityType.RESERVED if reserved else CapacityType.ON_DEMAND


def run_limit(scheduling: Answer) -> int | None:
    """After how many seconds Google ends each of its runs."""
    seconds = (scheduling.get("maxRunDuration") or {}).get("seconds")
    return min(int(seconds), LONGEST_LIMIT_SECONDS) if seconds else None


LONGEST_LIMIT_SECONDS = 120 * 24 * 3600
"""Google takes no longer ones."""


def _ends_by_itself(scheduling: Answer) -> Iterable[str]:
    seconds, time = run_limit(scheduling), utc(scheduling.get("terminationTime"))
    if seconds is None and time is None:
        return
    does = "deletes" if scheduling.get("instanceTerminationAction") == "DELETE" else "stops"
    if seconds is not None:
        hours, minutes = divmod(ceil(seconds / 60), 60)
        lasts = " ".join(f"{number} {unit}" for number, unit in ((hours, "h"), (minutes, "min")) if number)
        yield f"Google Cloud itself {does} it {lasts} after each start (maxRunDuration)"
    if time is not None:
        yield f"Google Cloud itself {does} it at {time:%Y-%m-%d %H:%M} UTC (terminationTime)"


def consumes_a_reservation(instance: Answer) -> bool:
    status = instance.get("resourceStatus") or {}
    return bool((status.get("reservationConsumptionInfo") or {}).get("consumedReservation"))


# Who owns it.

MADE_BY = "created-by"
"""What a managed instance group writes into the metadata of its machines."""
UNNAMED = "unnamed"
"""An owner that is there, but whose name is not told."""


def metadata_keys(instance: Answer) -> Collection[str]:
    items = (instance.get("metadata") or {}).get("items")
    return {item["key"] for item in items} if items else ()


def metadata_value(instance: Answer, key: str) -> str | None:
    items = (instance.get("metadata") or {}).get("items") or ()
    return next((item.get("value") for item in items if item["key"] == key), None)


def group_in(path: str | None) -> str | None:
    """A group within its project, in which its URLs differ (by number, by id): `zones/Z/instanceGroupManagers/N`."""
    parts = (path or "").split("/")
    return "/".join(parts[-4:]) if len(parts) >= 4 and parts[-2] == "instanceGroupManagers" else None


def node_pool_of(labels: Mapping[str, str]) -> str | None:
    """The node pool a machine is a node of, within its project: `locations/L/clusters/C/nodePools/N`."""
    place, cluster, pool = (labels.get(label) for label in NODE_POOL_LABELS)
    return f"locations/{place}/clusters/{cluster}/nodePools/{pool}" if place and cluster and pool else None


NODE_POOL_LABELS = ("goog-k8s-cluster-location", "goog-k8s-cluster-name", "goog-k8s-node-pool-name")
GKE_NODE_LABELS = ("goog-gke-node", "goog-k8s-node-pool-name")
CLUSTER_IN_LABEL = ("kubernetes-io-cluster-", "capg-cluster-")
"""Labels that name the cluster of a self-managed node in their key (OpenShift, Cluster API)."""
WORKBENCH_LABEL, WORKBENCH_KEY = "notebooks-product", "notebooks-api"

OWNER_LABELS = (
    ("k8s-io-cluster-name", "kops"),
    ("k8s-cluster-name", "kubernetes"),
    ("goog-dataproc-cluster-name", "dataproc"),
    ("goog-dataflow-job-name", "dataflow"),
    ("goog-dataflow-job-id", "dataflow"),
    ("dataflow_job_name", "dataflow"),
    ("dataflow_job_id", "dataflow"),
    ("batch-job-id", "batch"),
    ("goog-batch-worker", "batch"),
    ("slurm_cluster_name", "slurm"),
)
"""Labels of everyone else who starts and replaces machines by himself, the strongest claim first. They are often in
managed instance groups too, but those are theirs to size. Terraform does not."""


def managed_by(labels: Mapping[str, str], keys: Collection[str], *, group: str | None, name: str) -> str | None:
    if labels:
        for label in GKE_NODE_LABELS:
            if label in labels:
                _, cluster, pool = (labels.get(one) for one in NODE_POOL_LABELS)
                return f"gke-node-pool:{cluster}/{pool}" if cluster and pool else f"gke-node-pool:{UNNAMED}"
        for key in sorted(labels):
            if key.startswith(CLUSTER_IN_LABEL):
                return f"kubernetes:{key.partition('-cluster-')[2]}"
    if WORKBENCH_LABEL in labels or WORKBENCH_KEY in keys:
        return f"workbench:{labels.get('resource-name') or name}"
    if labels:
        for label, owner in OWNER_LABELS:
            if label in labels:
                return f"{owner}:{labels[label] or UNNAMED}"
    if "kube-env" in keys:
        return f"kubernetes:{UNNAMED}"
    if group is not None:
        return f"mig:{last(group)}"
    return None


PROTECTING_LABEL = "curfew-protect"
"""Protects by whatever value, short of `false`. Those of other tools have dots and slashes, which labels cannot."""


def label_protections(labels: Mapping[str, str]) -> Iterable[Protection]:
    if PROTECTING_LABEL in labels and labels[PROTECTING_LABEL] != "false":
        yield Protection(
            source=PROTECTING_LABEL, sentence=f"its label {PROTECTING_LABEL} says {labels[PROTECTING_LABEL]!r}"
        )
    if labels.get("maid_offhours") == "off":
        yield Protection(source="maid_offhours", sentence="its label maid_offhours says 'off'")


# What stands in the way, and what would be lost.

_SUSPEND = Blocker(
    verb=Verb.SUSPEND,
    code="Accelerators",
    sentence="Compute Engine does not suspend machines with accelerators, only stops them",
)
_TPU_STOP = Blocker(
    verb=Verb.STOP,
    code="TpuMachine",
    sentence="it is a machine with TPUs, which Compute Engine does not stop and start again, only deletes",
)
_RESERVATION_BOUND = Blocker(
    verb=Verb.STOP,
    code="ReservationBound",
    sentence="it is bound to a reservation, which is paid for in any case: stopping it saves nothing",
)
_CUSTOMER_KEY = Blocker(
    verb=Verb.STOP,
    code="CustomerKey",
    sentence="a disk of it is encrypted by a key that only its owner has, so Curfew could not start it again",
)
_START_RESTRICTED = Blocker(
    verb=Verb.STOP,
    code="StartRestricted",
    sentence="Google restricts its starting after suspicious activity, so it could not be started again",
)
_DELETION_PROTECTION = Blocker(verb=Verb.TERMINATE, code="DeletionProtection", sentence="its deletion protection is on")


def _blockers(instance: Answer, sku: str, scheduling: Answer, devices: Devices | None) -> tuple[Blocker, ...]:
    found = [_SUSPEND] if devices else []
    if devices is not None and devices.vendor == "google":
        found.append(_TPU_STOP)
    if scheduling.get("provisioningModel") == "RESERVATION_BOUND":
        found.append(_RESERVATION_BOUND)
    if instance.get("startRestricted"):
        found.append(_START_RESTRICTED)
    if any(disk.get("diskEncryptionKey", {}).get("sha256") for disk in instance.get("disks") or ()):
        found.append(_CUSTOMER_KEY)
    if instance.get("deletionProtection"):
        found.append(_DELETION_PROTECTION)
    return _shared(tuple(found))


@lru_cache(maxsize=256)
def _shared(blockers: tuple[Blocker, ...]) -> tuple[Blocker, ...]:
    """Most machines have the same ones; one tuple for all of them."""
    return blockers


def local_disks_gb(instance: Answer, machine: MachineType) -> int:
    """Local SSD, what is attached or comes with the type; a machine tells of both as disks, as a rule."""
    disks = instance.get("disks") or ()
    sizes = [int(disk.get("diskSizeGb") or PARTITION_GB) for disk in disks if disk.get("type") == "SCRATCH"]
    return max(sum(sizes), machine.local_storage_gb)


@lru_cache(maxsize=256)
def disk_losses(size_gb: int) -> tuple[Loss, ...]:
    if not size_gb:
        return ()
    return tuple(
        Loss(verb=verb, name=LossName.LOCAL_DISKS, sentence=f"{size_gb:,} GB of Local SSD would be erased")
        for verb in (Verb.STOP, Verb.SUSPEND)
    )


# Workbench.

NOTEBOOK_FIELDS = (
    "name,id,state,createTime,labels,enableDeletionProtection,"
    "gceSetup(machineType,acceleratorConfigs(type,coreCount),instanceId)"
)
"""What of a Workbench instance is looked at."""

NOTEBOOK_STATES = {
    "INITIALIZING": State.PENDING,
    "PROVISIONING": State.PENDING,
    "STARTING": State.PENDING,
    "ACTIVE": State.RUNNING,
    "UPGRADING": State.RUNNING,
    "STOPPING": State.STOPPING,
    "SUSPENDING": State.STOPPING,
    "STOPPED": State.STOPPED,
    "SUSPENDED": State.SUSPENDED,
    "ORPHANED": State.STOPPED,  # an upgrade has removed its machine, and made no other
    "DELETED": State.TERMINATED,
}


def notebook_machine(answer: Answer) -> tuple[str, str]:
    """Zone and name of the machine behind a Workbench instance: its own."""
    parts = answer["name"].split("/")
    return parts[3], parts[5]


def notebook_machine_id(answer: Answer) -> str:
    """The number of that machine, empty where Workbench does not tell: somebody may have deleted it, and have made
    another of its name.
    """
    return str((answer.get("gceSetup") or {}).get("instanceId") or "")


def notebook_sku(answer: Answer) -> str:
    return last((answer.get("gceSetup") or {}).get("machineType") or "")


def notebook(
    answer: Answer, *, account: str, machine: MachineType, vm: ResourceRecord | None = None
) -> ResourceRecord | None:
    """One Workbench instance; `vm` is the machine behind it, where it was seen. None: it has no accelerators."""
    check_project(answer["name"], account)
    setup = answer.get("gceSetup") or {}
    own = attached(
        [
            {"acceleratorType": one.get("type"), "acceleratorCount": one.get("coreCount")}
            for one in setup.get("acceleratorConfigs") or ()
        ]
    )
    devices = presented(own, machine)
    if devices is None and vm is None:
        return None
    zone, name = notebook_machine(answer)
    labels = texts(answer.get("labels"))
    state = NOTEBOOK_STATES.get(answer.get("state") or "", State.UNKNOWN)
    return ResourceRecord(
        ref=ResourceRef(
            provider="gcp",
            account=account,
            region=region_of(zone),
            kind=Kind.NOTEBOOK,
            external_id=f"projects/{account}/locations/{zone}/instances/{name}",
        ),
        incarnation=str((vm.incarnation if vm else setup.get("instanceId")) or answer["id"]),
        name=name,
        zone=zone,
        sku=vm.sku if vm else notebook_sku(answer),
        gpu_vendor=vm.gpu_vendor if vm else devices.vendor if devices else None,
        gpu_model=vm.gpu_model if vm else devices.model if devices else None,
        gpu_count=vm.gpu_count if vm else devices.count if devices else 0,
        gpu_share=vm.gpu_share if vm else devices.share if devices else 1.0,
        gpu_memory_mib=vm.gpu_memory_mib if vm else devices.memory_mib if devices else None,
        capacity_type=vm.capacity_type if vm else CapacityType.ON_DEMAND,
        # what its machine is at, costs; Workbench may be late to notice
        state=vm.state if vm and state is State.RUNNING else state,
        launched_at=vm.launched_at if vm else None,
        created_at=utc(answer.get("createTime")),
        tags=labels,
        protections=tuple(label_protections(labels)),
        blockers=tuple(_notebook_blockers(answer, vm)),
        losses=vm.losses if vm else disk_losses(machine.local_storage_gb),
        listed_in=WORKBENCH,
    )


def _notebook_blockers(answer: Answer, vm: ResourceRecord | None) -> Iterable[Blocker]:
    if answer.get("state") == "UPGRADING":
        yield Blocker(verb=Verb.STOP, code="Upgrading", sentence="Workbench is upgrading it")
    if answer.get("enableDeletionProtection"):
        yield _DELETION_PROTECTION
    for blocker in vm.blockers if vm else ():
        if blocker.verb is Verb.STOP:
            yield blocker


# TPU VMs.

TPU_FIELDS = (
    "name,id,state,createTime,labels,acceleratorType,acceleratorConfig(type,topology),"
    "schedulingConfig(spot,preemptible,reserved),networkEndpoints/ipAddress"
)
"""What of a node is looked at."""

TPU_STATES = {
    "CREATING": State.PENDING,
    "STARTING": State.PENDING,
    "READY": State.RUNNING,
    "RESTARTING": State.RUNNING,
    "REIMAGING": State.RUNNING,
    "REPAIRING": State.RUNNING,
    "STOPPING": State.STOPPING,
    "DELETING": State.STOPPING,
    "STOPPED": State.STOPPED,
    "PREEMPTED": State.STOPPED,
    "TERMINATED": State.STOPPED,
}
TAKEN_AWAY = ("PREEMPTED", "TERMINATED")
"""States that Google alone brings a TPU VM into."""
TPU_TYPES = {
    "V2": "v2",
    "V3": "v3",
    "V4": "v4",
    "V5LITE_POD": "v5litepod",
    "V5P": "v5p",
    "V6E": "v6e",
}
"""What types are called in `acceleratorConfig`, and how their names begin in `acceleratorType`."""
TPUS = {
    "v2": ("TPU v2", 16, 2),
    "v3": ("TPU v3", 32, 2),
    "v4": ("TPU v4", 32, 2),
    "v5litepod": ("TPU v5e", 16, 1),
    "v5p": ("TPU v5p", 95, 2),
    "v6e": ("TPU v6e", 32, 1),
    "tpu7x": ("TPU7x", 192, 2),
}
"""The model, the GiB of a chip, and how much of the number in a type's name a chip is: some count cores."""


def tpu_vm(node: Answer, *, account: str) -> ResourceRecord:
    """One node of Cloud TPU: a slice of chips with all its machines."""
    check_project(node["name"], account)
    parts = node["name"].split("/")
    zone, name = parts[3], parts[5]
    sku, devices = _tpus(node)
    labels, status = texts(node.get("labels")), node.get("state") or ""
    state = TPU_STATES.get(status, State.UNKNOWN)
    scheduling = node.get("schedulingConfig") or {}
    spot = bool(scheduling.get("spot") or scheduling.get("preemptible"))
    reserved = CapacityType.RESERVED if scheduling.get("reserved") else CapacityType.ON_DEMAND
    return ResourceRecord(
        ref=ResourceRef(
            provider="gcp",
            account=account,
            region=region_of(zone),
            kind=Kind.INSTANCE,
            external_id=f"projects/{account}/locations/{zone}/nodes/{name}",
        ),
        incarnation=str(node.get("id") or node.get("createTime") or node["name"]),
        name=name,
        zone=zone,
        sku=sku,
        gpu_vendor=devices.vendor,
        gpu_model=devices.model,
        gpu_count=devices.count,
        gpu_memory_mib=devices.memory_mib,
        capacity_type=CapacityType.SPOT if spot else reserved,
        state=state,
        stopped_by=Initiator.CLOUD if status in TAKEN_AWAY else None,
        created_at=utc(node.get("createTime")),
        tags=labels,
        protections=tuple(label_protections(labels)),
        blockers=(_SUSPEND, *_tpu_blockers(node, spot=spot)),
        listed_in=TPU_VMS,
    )


def _tpus(node: Answer) -> tuple[str, Devices]:
    """`v5litepod-8` is eight chips, `v4-8` four, for it counts cores; a topology of 2x2x1 is four in any case."""
    config = node.get("acceleratorConfig") or {}
    named, _, number = str(node.get("acceleratorType") or "").rpartition("-")
    family = named or TPU_TYPES.get(config.get("type") or "", "")
    topology = str(config.get("topology") or "")
    model, gib, of_number = TPUS.get(family, (f"TPU {family}".strip(), 0, 1))
    if topology:
        chips = prod(int(side) for side in topology.split("x"))
    else:
        chips = max(int(number) // of_number, 1) if number.isdigit() else 0
    if not 0 <= chips <= MOST_DEVICES:
        raise ValueError(f"no slice has {chips} chips")
    sku = str(node.get("acceleratorType") or "") or f"{family}-{chips * of_number}"
    return sku, Devices(vendor="google", model=model, count=chips, memory_mib=gib * 1024 or None)


def _tpu_blockers(node: Answer, *, spot: bool) -> Iterable[Blocker]:
    if len(node.get("networkEndpoints") or ()) > 1:
        yield Blocker(
            verb=Verb.STOP,
            code="TpuSlice",
            sentence="it is a slice of several machines, which Cloud TPU does not stop, only deletes",
        )
    if spot:
        yield Blocker(
            verb=Verb.STOP,
            code="SpotTpu",
            sentence="it is a spot TPU, which Cloud TPU does not start again once it is stopped",
        )
