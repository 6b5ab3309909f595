"""Turns what Azure answers of machines, VM sizes and Azure ML computes into records. Pure: no call is made here, and
nothing is decided.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil
from typing import Any

from providers import builtin_tables
from providers.errors import Unreachable
from providers.protections import PROTECTING_TAGS, UNTIL, moment
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

COMPUTES = "Azure ML compute"
"""A part of a subscription that an API of its own lists."""


# Names. The Resource Manager writes its ids in whatever case it likes, and compares them without regard to it.

SPELLED = {
    word.lower(): word
    for word in (
        "Microsoft.Compute",
        "Microsoft.ContainerService",
        "Microsoft.MachineLearningServices",
        "agentPools",
        "computes",
        "managedClusters",
        "virtualMachineScaleSets",
        "virtualMachines",
        "workspaces",
    )
}


def folded(path: str) -> str:
    """In small letters, as Azure compares ids: letter by letter, where each has one of the other case. The sign for
    kelvin is no K to it, though Unicode's small letter of both is k: they are names of two things.
    """
    if path.isascii():
        return path.lower()
    return "".join(low if (low := letter.lower()).upper() == letter else letter for letter in path)


@lru_cache(maxsize=65536)
def canonical(path: str) -> str:
    """An id in the one spelling that ours have: names in small letters, types as the manuals write them."""
    parts = folded(path).split("/")
    if len(parts) < 9 or not len(parts) % 2 or parts[0]:
        raise ValueError(f"{path!r} is no id of a resource")
    _, _, subscription, _, group, _, namespace, *rest = parts
    kinds = "/".join(SPELLED.get(word, word) for word in rest)
    spelled = SPELLED.get(namespace, namespace)
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{spelled}/{kinds}"


def group_of(path: str) -> str:
    """The resource group an id is of, in small letters."""
    return folded(path.split("/", 5)[4])


def last(path: str) -> str:
    return path[path.rfind("/") + 1 :]


def location(said: str) -> str:
    """`West Europe` and `westeurope` are one place."""
    return said.replace(" ", "").lower()


def text(said: object) -> str:
    """A name as it can be kept: anything but a text would be met far from here, and a database takes no NUL."""
    if not isinstance(said, str):
        raise TypeError("names and tags are texts")
    return said.replace("\0", "\ufffd") if "\0" in said else said


def tags_of(answer: Answer) -> Mapping[str, str]:
    """Tags, which are texts; one without a value has an empty one."""
    return {text(name): text("" if value is None else value) for name, value in (answer.get("tags") or {}).items()}


def check_account(path: str, account: str) -> None:
    """Another subscription's resource must be neither shown nor touched in this one's place."""
    if path.lower().split("/", 3)[2] != account:
        raise Unreachable(f"subscription {account} was asked, but what answers is {path}")


# VM sizes: what a machine presents.


@dataclass(frozen=True, kw_only=True, slots=True)
class Devices:
    """The accelerators a machine presents."""

    vendor: str | None
    model: str | None
    count: int
    share: float = 1.0
    memory_mib: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineType:
    """What all machines of one size have in common."""

    name: str = ""
    """As Azure's lists spell it; machines may spell it otherwise."""
    devices: Devices | None = None
    """None: no accelerators, and so not ours to govern."""
    local_storage_gib: int = 0
    """Disks that belong to the host and are lost when the machine is deallocated."""
    hibernates: bool | None = None
    """None: not told."""


PLAIN = MachineType()
MOST_GPUS = 1024
"""More than any machine will have: what is told beyond is no number of GPUs."""

NVIDIA = {
    "a10": ("A10", 24),
    "a100": ("A100-80GB", 80),
    "b200": ("B200", 180),
    "b300": ("B300", 288),
    "gb200": ("GB200", 192),
    "gb300": ("GB300", 288),
    "h100": ("H100", 80),
    "h200": ("H200", 141),
    "l4": ("L4", 24),
    "l40s": ("L40S", 48),
    "rtxpro6000bse": ("RTX PRO 6000", 96),
    "t4": ("T4", 16),
}
AMD = {
    "mi300x": ("MI300X", 192),
    "mi325x": ("MI325X", 256),
    "v620": ("Radeon Pro V620", 32),
    "v710": ("Radeon Pro V710", 24),
}
"""Accelerators by how the names of sizes call them (`Standard_NC24ads_A100_v4`): what everyone calls them, and the GiB
of one. For sizes that the built-in table lacks."""

NOT_OURS = ("standard_np", "standard_nm")
"""FPGAs and video encoders are accelerators too, but do not train or infer."""


def may_have_accelerators(sku: str) -> bool:
    """Whether an unknown size may well be ours to govern; one without a name too."""
    name = sku.lower()
    return not name or (name.startswith("standard_n") and not name.startswith(NOT_OURS))


def machine_type(answer: Answer) -> MachineType | None:
    """One VM size of Resource SKUs. None: it may well have accelerators, but is told without a number of them, as
    happens with new ones, and the built-in table lacks it.
    """
    told = {one["name"]: one.get("value") for one in answer.get("capabilities") or ()}
    name = answer["name"]
    known = builtin_types().get(name.lower(), PLAIN)
    gpus = float(told.get("GPUs") or 0)
    if not 0 <= gpus <= MOST_GPUS:
        raise ValueError(f"{name} is told to have {gpus} GPUs")
    devices = _devices(name, gpus, known.devices)
    if devices is None:
        return None if may_have_accelerators(name) else PLAIN
    mib = sum(float(told.get(disk) or 0) for disk in ("MaxResourceVolumeMB", "NvmeDiskSizeInMiB"))
    return MachineType(
        name=name,
        devices=devices,
        local_storage_gib=round(mib / 1024) or known.local_storage_gib,
        hibernates=str(told.get("HibernationSupported")).lower() == "true",
    )


def _devices(name: str, gpus: float, known: Devices | None) -> Devices | None:
    if name.lower().startswith(NOT_OURS):
        return None
    if known is not None:  # a sixth of a GPU is told as one
        return replace(known, count=ceil(gpus) or known.count)
    if gpus <= 0:
        return None
    vendor, model, gib = _accelerator(name)
    share = gpus if gpus < 1 else 1.0
    memory = round(gib * share * 1024) if gib else None
    return Devices(vendor=vendor, model=model, count=ceil(gpus), share=share, memory_mib=memory)


def _accelerator(name: str) -> tuple[str | None, str | None, int | None]:
    """By what stands before the version: `Standard_NC36ds_xl_RTXPRO6000BSE_v6`."""
    parts = name.split("_")[2:]
    words = [part for part in parts if not (part[:1] in "vV" and part[1:].isdigit() and len(part) < 4)]
    word = words[-1] if words else ""
    for vendor, models in (("nvidia", NVIDIA), ("amd", AMD)):
        if word.lower() in models:
            return vendor, *models[word.lower()]
    return None, word or None, None


@cache
def builtin_types() -> Mapping[str, MachineType]:
    """The built-in table by size in small letters; `machine_types.csv` says where it is from."""
    return {
        row["sku"].lower(): MachineType(
            name=row["sku"],
            devices=Devices(
                vendor=row["gpu_vendor"],
                model=row["gpu_model"],
                count=int(row["gpu_count"]),
                share=float(Fraction(row["gpu_share"])),
                memory_mib=int(row["gpu_memory_mib"]),
            ),
            local_storage_gib=int(row["local_storage_gib"]),
        )
        for row in builtin_tables.rows("providers.azure", "machine_types.csv")
    }


# What a machine is doing.


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What an instance view says, in small letters."""

    power: str | None = None
    """`running`, `stopped`, `deallocated`, …; None where Azure does not tell, as happens in passing."""
    provisioning: str = ""
    hibernated: bool = False
    reservation: str = ""
    """The sort of capacity reservation it takes its capacity from, if any."""


UNSEEN = View()

POWER = {
    "starting": State.PENDING,
    "running": State.RUNNING,
    "stopping": State.RUNNING,  # towards `stopped`: it is billed all the way
    "stopped": State.RUNNING,  # by itself, but on its host, and billed: only deallocating ends that
    "deallocating": State.STOPPING,
    "deallocated": State.STOPPED,
}
POWERED_OFF = "it is stopped but not deallocated, so Azure still bills it"
UNDER_WAY = ("creating", "updating")
"""While it is created, and at times while it is started, a machine is told to be stopped."""


def view_of(instance_view: Answer | None) -> View:
    """Of an instance view, its statuses: `PowerState/running`, `ProvisioningState/succeeded`, …"""
    if not instance_view:
        return UNSEEN
    codes = tuple(str(status.get("code") or "") for status in instance_view.get("statuses") or ())
    return _view(codes, str(instance_view.get("capacityReservationType") or ""))


@lru_cache(maxsize=1024)
def _view(codes: tuple[str, ...], reservation: str) -> View:
    told: dict[str, str] = {}
    for code in codes:
        kind, _, word = code.lower().partition("/")
        told.setdefault(kind, word)
    return View(
        power=told.get("powerstate"),
        provisioning=told.get("provisioningstate", "").partition("/")[0],
        hibernated=told.get("hibernationstate") == "hibernated",
        reservation=reservation.lower(),
    )


def state_of(view: View, provisioning: str) -> State:
    if provisioning == "deleting":
        return State.STOPPING
    if provisioning == "creating" and view.power in (None, "stopped"):
        return State.PENDING
    if view.hibernated and view.power in (None, "deallocated"):
        return State.SUSPENDED
    return POWER.get(view.power or "", State.UNKNOWN)


def capacity_type(priority: str | None, bought: Answer, view: View = UNSEEN) -> CapacityType:
    """Whoever says no priority has the regular one. `bought`: what says of reservations and hosts."""
    word = (priority or "Regular").lower()
    if word in ("spot", "low", "lowpriority"):
        return CapacityType.SPOT
    if word != "regular":
        return CapacityType.UNKNOWN
    if view.reservation == "block":
        return CapacityType.CAPACITY_BLOCK
    if reservation_group(bought) or bought.get("host") or bought.get("hostGroup"):
        return CapacityType.RESERVED
    return CapacityType.ON_DEMAND


def reservation_group(bought: Answer) -> str | None:
    group = (bought.get("capacityReservation") or {}).get("capacityReservationGroup") or {}
    return group.get("id")


def utc(said: str | None) -> datetime | None:
    """`2022-08-31T08:19:39.0074366+00:00`. What cannot be read is not known."""
    if not said:
        return None
    try:
        time = datetime.fromisoformat(said)
        return time.astimezone(UTC) if time.tzinfo else None
    except (ValueError, OverflowError):  # the latter for the first and the last days of all calendars
        return None


# What surrounds it: other resources' answers that say something of it.


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A resource lock."""

    name: str
    level: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What else a subscription says of its machines; every key is in small letters."""

    locks: Mapping[str, Sequence[Lock]] = field(default_factory=dict)
    """By what they are on: a resource, its group, its subscription."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Ids of the services that keep a resource group for themselves, by its name."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Dynamic public addresses, by the network interface that has them."""
    placements: Collection[str] = ()
    """Scale sets that only place machines, and make none."""


NOTHING = Around()


DELETE_LOCK = "CanNotDelete"


def locks_of(answers: Iterable[Answer]) -> dict[str, list[Lock]]:
    found: dict[str, list[Lock]] = {}
    for answer in answers:
        scope = folded(answer["id"]).partition("/providers/microsoft.authorization/locks/")[0]
        level = str((answer.get("properties") or {}).get("level") or "")
        found.setdefault(scope, []).append(Lock(name=answer["name"], level=level))
    return found


def owners_of(answers: Iterable[Answer]) -> dict[str, str]:
    """Of resource groups."""
    return {folded(answer["name"]): answer["managedBy"] for answer in answers if answer.get("managedBy")}


def dynamic_addresses(answers: Iterable[Answer]) -> dict[str, str]:
    """Of public addresses, those that are given up when their machine is deallocated."""
    found = {}
    for answer in answers:
        told = answer.get("properties") or {}
        interface, _, name = folded(str((told.get("ipConfiguration") or {}).get("id") or "")).partition(
            "/ipconfigurations/"
        )
        if name and str(told.get("publicIPAllocationMethod")).lower() == "dynamic" and told.get("ipAddress"):
            found[interface] = str(told["ipAddress"])
    return found


def scopes(path: str) -> Sequence[str]:
    """Everything a lock can be on that holds for a resource, in small letters: its subscription first."""
    parts = folded(path).split("/")
    ends = (3, 5, *range(9, len(parts) + 1, 2))
    return ["/".join(parts[:end]) for end in ends]


def lock_protections(path: str, around: Around, *further: str) -> Iterable[Protection]:
    """A lock that lets it be read only keeps it from being started and stopped, too. So does one of tomorrow's."""
    for scope, lock in _locks_on(path, around, further):
        if lock.level.lower() != "cannotdelete":
            sentence = f"the lock {lock.name!r} on {_where(scope, path)} lets it be read only"
            yield Protection(source=f"{lock.level or 'unknown'} lock", sentence=sentence)


def lock_blockers(
    path: str, around: Around, *further: str, verb: Verb = Verb.TERMINATE, what: str = "it"
) -> Iterable[Blocker]:
    for scope, lock in _locks_on(path, around, further):
        if lock.level.lower() == "cannotdelete":
            sentence = f"the lock {lock.name!r} on {_where(scope, path)} forbids to delete {what}"
            yield Blocker(verb=verb, code=DELETE_LOCK, sentence=sentence)


def _locks_on(path: str, around: Around, further: Sequence[str]) -> Iterable[tuple[str, Lock]]:
    if around.locks:
        for scope in (*scopes(path), *further):
            for lock in around.locks.get(scope, ()):
                yield scope, lock


def _where(scope: str, path: str) -> str:
    depth = scope.count("/")
    if depth == 2:
        return "its subscription"
    if depth == 4:
        return "its resource group" if group_of(path) == last(scope) else f"the resource group {last(scope)}"
    return "it" if scope == folded(path) else f"{last(scope)}, which it belongs to"


# Who owns it.

Tags = Mapping[str, tuple[str, str]]
"""Name and value by the name in small letters, with `_` for the `/` that names of tags cannot have."""
NO_TAG = ("", "")


def named(tags: Mapping[str, str]) -> Tags:
    return {name.lower().replace("/", "_"): (name, value or "") for name, value in tags.items()}


AKS_POOL, AKS_CLUSTER = "aks-managed-poolname", "aks-managed-cluster-name"

KUBERNETES_TAGS = (
    ("karpenter.sh_nodepool", "karpenter"),
    ("karpenter.sh_nodeclaim", "karpenter"),
    ("karpenter.azure.com_cluster", "karpenter"),
)
"""Tags of Kubernetes nodes that stand above pools."""

CLUSTER_IN_NAME = (
    "sigs.k8s.io_cluster-api-provider-azure_cluster_",
    "kubernetes.io_cluster.",
    "kubernetes.io_cluster_",
    "kubernetes.io-cluster-",
)
"""Tags that name the cluster of a self-managed node in their own name (Cluster API, OpenShift)."""

OWNERS = {
    "microsoft.batch": "batch",
    "microsoft.containerservice": "aks",
    "microsoft.databricks": "databricks",
    "microsoft.devtestlab": "devtestlab",
    "microsoft.hdinsight": "hdinsight",
    "microsoft.labservices": "labservices",
    "microsoft.machinelearningservices": "azureml",
    "microsoft.redhatopenshift": "openshift",
    "microsoft.servicefabric": "servicefabric",
    "microsoft.solutions": "managed-application",
}
"""Services that make machines for themselves in resource groups of their own."""

OWNER_TAGS = (
    ("databricksenvironment", "databricks"),
    ("cycleowner", "cyclecloud"),
    ("batchaccountname", "batch"),
    ("hidden-devtestlabs-labuid", "devtestlab"),
)
OWNER_NAMES = ("clustername", "poolname")
"""Tags of everyone else who starts and replaces machines by himself, and those that name what they do it for."""

BATCH_GROUP = "azurebatch-"
"""How the resource groups begin that Batch makes in its users' subscriptions."""


def managed_by(path: str, tags: Tags, around: Around, *, owner: str | None, scale_set: str | None) -> str | None:
    """`owner` is what the machine's own `managedBy` says, `scale_set` the id of the one it is in."""
    group = group_of(path)
    keeper = folded(around.owners.get(group, ""))
    if tags and (found := _in_kubernetes(group, tags, keeper)):
        return found
    own = (owner or "").lower()
    for service in (keeper, own if "/virtualmachinescalesets/" not in own else ""):
        if service:
            return _service(service)
    if tags and (found := _by_tags(tags)):
        return found
    if group.startswith(BATCH_GROUP):
        return f"batch:{group}"
    if scale_set is not None and folded(scale_set) not in around.placements:
        return f"vmss:{last(scale_set).lower()}"
    return None


def _in_kubernetes(group: str, tags: Tags, keeper: str) -> str | None:
    for tag, system in KUBERNETES_TAGS:
        if tag in tags:
            return f"{system}:{tags[tag][1] or tag}"
    if AKS_POOL in tags:
        return f"aks:{cluster_of(group, tags, keeper)}/{tags[AKS_POOL][1].lower()}"
    for name in sorted(tags):
        for start in CLUSTER_IN_NAME:
            if name.startswith(start):
                return f"kubernetes:{tags[name][0][len(start) :]}"
    if tags.get("orchestrator", NO_TAG)[1].lower().startswith("kubernetes"):
        return f"kubernetes:{tags.get('poolname', NO_TAG)[1] or 'unnamed'}"
    return None


def _by_tags(tags: Tags) -> str | None:
    for tag, system in OWNER_TAGS:
        if tag in tags:
            name = next((tags[one][1] for one in OWNER_NAMES if one in tags), tags[tag][1])
            return f"{system}:{name or 'unnamed'}"
    return None


def _service(keeper: str) -> str:
    """`/…/providers/microsoft.databricks/workspaces/x` → `databricks:x`."""
    _, _, path = keeper.rpartition("/providers/")
    namespace = path.partition("/")[0]
    return f"{OWNERS[namespace]}:{last(keeper)}" if namespace in OWNERS else f"operator:{path}"


def cluster_of(group: str, tags: Tags, keeper: str) -> str:
    """The AKS cluster that keeps a resource group, in small letters: `mc_group_cluster_westeurope`, if nobody says."""
    if AKS_CLUSTER in tags:
        return tags[AKS_CLUSTER][1].lower()
    if "/managedclusters/" in keeper:
        return last(keeper)
    parts = group.split("_")
    return parts[-2] if len(parts) > 3 and parts[0] == "mc" else group


def tag_protections(tags: Tags) -> Iterable[Protection]:
    for tag in PROTECTING_TAGS if tags else ():
        name, value = tags.get(tag.replace("/", "_"), NO_TAG)
        if name and value.strip().lower() != "false":
            yield Protection(source=tag, sentence=f"its tag {name} says {value!r}")
    name, until = tags.get(UNTIL.replace("/", "_"), NO_TAG)
    if name:
        yield Protection(source=UNTIL, sentence=f"its tag {name} says {until!r}", until=moment(until))
    name, value = tags.get("maid_offhours", NO_TAG)
    if value.strip().lower() == "off":
        yield Protection(source="maid_offhours", sentence=f"its tag {name} says 'off'")


# Machines.


def record(
    vm: Answer,
    view: View,
    *,
    account: str,
    machine: MachineType,
    around: Around = NOTHING,
    fully_described: bool = False,
) -> ResourceRecord:
    """One virtual machine, with what is said of it elsewhere."""
    check_account(vm["id"], account)
    told = vm.get("properties") or {}
    return machine_record(
        vm,
        view,
        account=account,
        machine=machine,
        around=around,
        bought=told,
        tags=tags_of(vm),
        scale_set=scale_set_of(vm),
        fully_described=fully_described,
    )


def sku_of(vm: Answer) -> str:
    return str(((vm.get("properties") or {}).get("hardwareProfile") or {}).get("vmSize") or "")


def scale_set_of(vm: Answer) -> str | None:
    """The id of the flexible scale set it is in."""
    return ((vm.get("properties") or {}).get("virtualMachineScaleSet") or {}).get("id")


def machine_record(
    vm: Answer,
    view: View,
    *,
    account: str,
    machine: MachineType,
    around: Around,
    bought: Answer,
    tags: Mapping[str, str],
    scale_set: str | None,
    fully_described: bool,
    listed_in: str | None = None,
) -> ResourceRecord:
    """A machine of its own or of a uniform scale set. `bought` says how it was bought: its own properties, or the
    profile of its scale set.
    """
    told = vm.get("properties") or {}
    path, region, devices = canonical(vm["id"]), location(vm["location"]), machine.devices
    provisioning = str(told.get("provisioningState") or view.provisioning).lower()
    capacity = capacity_type(bought.get("priority"), bought, view)
    under_way = provisioning in UNDER_WAY or view.provisioning in UNDER_WAY  # the two may be told at different times
    powered_off = view.power == "stopped" and not under_way
    lowered = named(tags) if tags else {}
    zones = vm.get("zones")
    return ResourceRecord(
        ref=ResourceRef(provider="azure", account=account, region=region, kind=Kind.INSTANCE, external_id=path),
        incarnation=str(told["vmId"]).lower(),
        name=text(vm["name"]),
        zone=f"{region}-{zones[0]}" if zones else None,
        sku=machine.name or sku_of(vm),
        gpu_vendor=devices.vendor if devices else None,
        gpu_model=devices.model if devices else None,
        gpu_count=devices.count if devices else 0,
        gpu_share=devices.share if devices else 1.0,
        gpu_memory_mib=devices.memory_mib if devices else None,
        capacity_type=capacity,
        state=state_of(view, provisioning),
        created_at=utc(told.get("timeCreated")),
        tags=tags,
        managed_by=managed_by(path, lowered, around, owner=vm.get("managedBy"), scale_set=scale_set),
        remarks=_remarks(bought, capacity, provisioning, powered_off=powered_off),
        powered_off=powered_off,
        protections=(*tag_protections(lowered), *lock_protections(path, around)),
        blockers=(
            *_blockers(told, machine, capacity, provisioning, reserved=reservation_group(bought) is not None),
            *(_POWERED_OFF if powered_off else ()),
            *lock_blockers(path, around),
        ),
        losses=losses(machine.local_storage_gib, _given_up(told, around)),
        listed_in=listed_in,
        fully_described=fully_described,
    )


def _remarks(bought: Answer, capacity: CapacityType, provisioning: str, *, powered_off: bool) -> tuple[str, ...]:
    found = [POWERED_OFF] if powered_off else []
    if provisioning == "failed":
        found.append("Azure says that the last operation on it failed")
    if capacity is CapacityType.SPOT:
        if str(bought.get("evictionPolicy")).lower() == "delete":
            found.append("Azure deletes it when it takes its capacity back")
        most = (bought.get("billingProfile") or {}).get("maxPrice")
        if most is not None and most > 0:
            found.append(f"Azure takes its capacity back when spot costs more than {most:g} USD an hour")
    return tuple(found)


HALTING = (Verb.STOP, Verb.HIBERNATE)

_POWERED_OFF = (
    Blocker(
        verb=Verb.HIBERNATE,
        code="PoweredOff",
        sentence="it is powered off, and only a running machine can be hibernated; stopping it ends what it costs",
    ),
)


def _blockers(
    told: Answer, machine: MachineType, capacity: CapacityType, provisioning: str, *, reserved: bool
) -> tuple[Blocker, ...]:
    os_disk = (told.get("storageProfile") or {}).get("osDisk") or {}
    return _known_blockers(
        bool((os_disk.get("diffDiskSettings") or {}).get("option")),
        bool((told.get("additionalCapabilities") or {}).get("hibernationEnabled")),
        machine.hibernates,
        capacity,
        provisioning == "deleting",
        reserved,
    )


@lru_cache(maxsize=256)
def _known_blockers(
    ephemeral: bool, enabled: bool, hibernates: bool | None, capacity: CapacityType, deleting: bool, reserved: bool
) -> tuple[Blocker, ...]:
    """Most machines have the same ones; one tuple for all of them."""
    found = []
    for verb in HALTING:
        for applies, code, sentence in (
            (deleting, "Deleting", "it is being deleted"),
            (
                ephemeral,
                "EphemeralOsDisk",
                "its operating system is on an ephemeral disk of the host: Azure does not deallocate such machines, "
                "only deletes them",
            ),
            (
                capacity is CapacityType.CAPACITY_BLOCK,
                "CapacityBlock",
                "it runs in a block of reserved capacity, which is paid for in advance: stopping it saves nothing",
            ),
        ):
            if applies:
                found.append(Blocker(verb=verb, code=code, sentence=sentence))
    for applies, code, sentence in (
        (not enabled, "HibernationNotEnabled", "hibernation is not enabled for it"),
        (hibernates is False, "HibernationUnsupported", "Azure does not hibernate machines of its size"),
        (capacity is CapacityType.SPOT, "SpotHibernation", "Azure does not hibernate spot machines"),
        (reserved, "ReservationHibernation", "Azure does not hibernate machines in capacity reservations"),
    ):
        if applies:
            found.append(Blocker(verb=Verb.HIBERNATE, code=code, sentence=sentence))
    return tuple(found)


def _given_up(told: Answer, around: Around) -> str:
    """The dynamic public addresses of its network interfaces."""
    if not around.addresses:
        return ""
    interfaces = (told.get("networkProfile") or {}).get("networkInterfaces") or ()
    found = (around.addresses.get(folded(str(one.get("id") or ""))) for one in interfaces)
    return ", ".join(address for address in found if address)


@lru_cache(maxsize=4096)
def losses(storage_gib: int, addresses: str = "", *, verbs: tuple[Verb, ...] = HALTING) -> tuple[Loss, ...]:
    """What deallocating would destroy."""
    lost = [f"{storage_gib:,} GiB of temporary disk would be erased"] if storage_gib else []
    if addresses:
        lost.append(f"its dynamic public address {addresses} would be given up")
    if not lost:
        return ()
    return tuple(Loss(verb=verb, name=LossName.LOCAL_DISKS, sentence=", and ".join(lost)) for verb in verbs)


# Azure ML compute instances.

COMPUTE_STATES = {
    "creating": State.PENDING,
    "starting": State.PENDING,
    "settingup": State.RUNNING,
    "usersettingup": State.RUNNING,
    "running": State.RUNNING,
    "jobrunning": State.RUNNING,
    "restarting": State.RUNNING,
    "usersetupfailed": State.RUNNING,
    "stopping": State.STOPPING,
    "deleting": State.STOPPING,
    "stopped": State.STOPPED,
}
"""One that failed to be set up, is unusable or unknown is unknown here, too."""


def is_instance(compute: Answer) -> bool:
    """Whether a compute of a workspace is one machine for one person; a cluster sizes itself."""
    return str((compute.get("properties") or {}).get("computeType")).lower() == "computeinstance"


def compute_sku(compute: Answer) -> str:
    return str(((compute.get("properties") or {}).get("properties") or {}).get("vmSize") or "")


def compute_region(compute: Answer) -> str:
    return location(str(compute.get("location") or (compute.get("properties") or {}).get("computeLocation") or ""))


def compute_record(
    compute: Answer, *, account: str, machine: MachineType, around: Around = NOTHING, fully_described: bool = False
) -> ResourceRecord:
    """One compute instance of an Azure ML workspace."""
    check_account(compute["id"], account)
    told = compute.get("properties") or {}
    own = told.get("properties") or {}
    path, region, devices = canonical(compute["id"]), compute_region(compute), machine.devices
    tags = tags_of(compute)
    lowered = named(tags)
    word = str(own.get("state") or "").lower()
    deleting = str(told.get("provisioningState")).lower() == "deleting"
    state = State.STOPPING if deleting else COMPUTE_STATES.get(word, State.UNKNOWN)
    created = utc(told.get("createdOn"))
    return ResourceRecord(
        ref=ResourceRef(provider="azure", account=account, region=region, kind=Kind.NOTEBOOK, external_id=path),
        incarnation=created.isoformat() if created else path,
        name=text(compute["name"]),
        zone=None,
        sku=machine.name or compute_sku(compute),
        gpu_vendor=devices.vendor if devices else None,
        gpu_model=devices.model if devices else None,
        gpu_count=devices.count if devices else 0,
        gpu_share=devices.share if devices else 1.0,
        gpu_memory_mib=devices.memory_mib if devices else None,
        capacity_type=CapacityType.ON_DEMAND,
        state=state,
        stopped_by=Initiator.PERSON if state is State.STOPPED and _last(own) == "stop" else None,
        launched_at=_launched(own) if state is State.RUNNING else None,
        created_at=created,
        tags=tags,
        remarks=("a job is running on it",) if word == "jobrunning" else (),
        protections=(*tag_protections(lowered), *lock_protections(path, around)),
        blockers=(
            *((Blocker(verb=Verb.STOP, code="Deleting", sentence="it is being deleted"),) if deleting else ()),
            *lock_blockers(path, around),
        ),
        losses=losses(machine.local_storage_gib, verbs=(Verb.STOP,)),
        listed_in=COMPUTES,
        fully_described=fully_described,
    )


def _last(own: Answer) -> str:
    return str((own.get("lastOperation") or {}).get("operationName") or "").lower()


def _launched(own: Answer) -> datetime | None:
    """Whatever was done last may have been a start."""
    begins = _last(own) in ("create", "start", "restart")
    return utc((own.get("lastOperation") or {}).get("operationTime")) if begins else None
