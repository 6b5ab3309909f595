"""What Kubernetes says of accelerators, as numbers: names of resources, labels, annotations and DRA devices become
models, counts, and exact parts of physical GPUs. What a node or a workload is beyond that is `translate`'s.

Machine types are the last resort where no label tells the model; those of EC2 are read from the table beside its cloud.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from math import ceil, floor
from typing import Any, NamedTuple

from providers.aws import translate as ec2

Json = Mapping[str, Any]

# Reading what may be anything.


def at(found: Any, *path: str) -> Any:
    """What stands at the path; None where anything on the way is not there, or is not what it should be."""
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def text(found: Any, *path: str) -> str:
    """The text at the path, `` where there is none."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def texts(found: Any, *path: str) -> dict[str, str]:
    """The map of texts at the path, as labels and annotations are."""
    value = at(found, *path)
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def items(found: Any, *path: str) -> list[Json]:
    """The objects of the list at the path."""
    value = at(found, *path)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


QUANTITY = re.compile(r"(\d{1,19})(?:\.0*)?(k|M|G|Ki|Mi|Gi)?")
MOST = 2**53
FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(value: Any) -> int:
    """A whole number as Kubernetes writes them, `MOST` at most; whatever is none counts as nothing."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        return min(max(value, 0), MOST)
    matched = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return min(int(matched[1]) * FACTORS[matched[2] or ""], MOST) if matched else 0


# Names of resources.

VENDORS = {
    "amd.com/gpu": "amd",
    "aws.amazon.com/neuron": "aws",
    "aws.amazon.com/neuroncore": "aws",
    "aws.amazon.com/neurondevice": "aws",
    "google.com/tpu": "google",
    "gpu.intel.com/i915": "intel",
    "gpu.intel.com/xe": "intel",
    "habana.ai/gaudi": "habana",
    "nvidia.com/gpu": "nvidia",
    "qualcomm.com/qaic": "qualcomm",
}
NVIDIA = re.compile(r"nvidia\.com/(?:mig-.+|[vp]?gpu(?:[.-].+)?)")
"""Instances of MIG, and what time-slicing renames. Others that NVIDIA's plug-ins offer are network cards."""
AMD_PARTITION = re.compile(r"amd\.com/(spx|dpx|tpx|qpx|cpx)_nps\d+")
PARTITIONS_OF_AMD = {"spx": 1, "dpx": 2, "tpx": 3, "qpx": 4, "cpx": 8}

NEURON = ("aws.amazon.com/neuron", "aws.amazon.com/neurondevice", "aws.amazon.com/neuroncore")
"""Names of the same chips, whole ones first."""

MEMORY, MEMORY_PERCENTAGE = "nvidia.com/gpumem", "nvidia.com/gpumem-percentage"
PORTIONS = frozenset({MEMORY, MEMORY_PERCENTAGE})
"""How much of each `nvidia.com/gpu` it wants, where HAMi shares them."""

DRIVERS = {
    "gaudi.intel.com": "habana",
    "gpu.amd.com": "amd",
    "gpu.intel.com": "intel",
    "gpu.nvidia.com": "nvidia",
    "neuron.aws.com": "aws",
    "tpu.google.com": "google",
}
"""DRA drivers whose devices are accelerators. Those of network cards and of IMEX channels are not."""
DEVICE_CLASSES = DRIVERS | {"mig.nvidia.com": "nvidia"}


@lru_cache(maxsize=4096)
def vendor_of(resource: str) -> str | None:
    """Whose accelerators a resource counts; None: it counts something else."""
    if resource in VENDORS:
        return VENDORS[resource]
    if NVIDIA.fullmatch(resource):
        return "nvidia"
    if AMD_PARTITION.fullmatch(resource):
        return "amd"
    domain, _, name = resource.partition("/")
    # plug-ins for virtual machines and renamed resources count by the model: nvidia.com/GA102GL_A10
    return "nvidia" if domain == "nvidia.com" and _by_token(name) is not None else None


class Device(NamedTuple):
    """One sort of device that a container asks for."""

    resource: str
    """Name of the resource, or of the DRA driver."""
    memory: str = ""
    """How much of its memory, where it wants only a part: MiB, or with `%`."""


Devices = Mapping[Device, int]


def asked(resources: Any) -> Counter[Device]:
    """What one container's `resources` ask for. A limit stands where there is no request, as for Kubernetes."""
    requests, limits = at(resources, "requests"), at(resources, "limits")
    names: dict[str, int] = {}
    for source in (limits, requests):
        if isinstance(source, dict):
            for name, value in source.items():
                if vendor_of(name) is not None or name in PORTIONS:
                    names[name] = quantity(value)
    percentage, mebibytes = names.pop(MEMORY_PERCENTAGE, 0), names.pop(MEMORY, 0)
    memory = str(mebibytes) if mebibytes else f"{percentage}%" if percentage else ""
    found: Counter[Device] = Counter()
    for name, count in _without_aliases(names).items():
        if count:
            found[Device(name, memory if name == "nvidia.com/gpu" else "")] = count
    return found


def _without_aliases(names: dict[str, int]) -> dict[str, int]:
    """Each Neuron chip once: a core is part of a chip that may be asked for by another name too."""
    present = [name for name in NEURON if names.get(name)]
    return {name: count for name, count in names.items() if name not in present[1:]}


def asked_by_pod(spec: Any) -> Counter[Device]:
    """What a pod of this spec holds: its containers together, or one that goes before them and wants more. Sidecars
    stay beside both.
    """
    together: Counter[Device] = Counter()
    sidecars: Counter[Device] = Counter()
    before: Counter[Device] = Counter()
    for container in items(spec, "initContainers"):
        wanted = asked(container.get("resources"))
        if container.get("restartPolicy") == "Always":
            sidecars += wanted
            before |= sidecars
        else:
            before |= sidecars + wanted
    for container in items(spec, "containers"):
        together += asked(container.get("resources"))
    return (together + sidecars) | before


# Parts of GPUs.

MIG = re.compile(r"(?:(\d{1,2})c\.)?(\d{1,2})g\.(\d{1,4})gb", re.ASCII)
SLICES = 7
FOUR_SLICES = frozenset({"1g.6gb", "2g.12gb", "4g.24gb", "1g.24gb", "2g.48gb", "4g.96gb"})
"""Profiles of the cards that divide by four: A30 and RTX PRO 6000."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A MIG profile, such as `3g.20gb`."""

    part: Fraction
    """Of a GPU."""
    at_most: int
    """How many fit on one GPU."""
    memory_mib: int


@lru_cache(maxsize=256)
def profile_in(name: str) -> Profile | None:
    """The MIG profile that a resource, product or device is named after."""
    matched = MIG.search(name.lower())
    if matched is None:
        return None
    compute, slices, memory = matched[1], int(matched[2]), int(matched[3])
    of = 4 if f"{slices}g.{memory}gb" in FOUR_SLICES else SLICES
    if not 0 < slices <= of:
        return None
    part = Fraction(min(int(compute), slices) if compute and int(compute) else slices, of)
    return Profile(part=part, at_most=of // slices, memory_mib=memory * 1024)


# Models.


class Model(NamedTuple):
    """Who makes it, and what everyone calls it."""

    vendor: str
    name: str


_TOKENS = {
    "nvidia": "A2 A10 A10G A16 A30 A40 A100 A800 B100 B200 B300 GB200 GB300 GH200 H20 H100 H200 H800 "
    "K80 L4 L20 L40 L40S M60 P4 P40 P100 T4 T4G V100",
    "amd": "MI100 MI210 MI250 MI250X MI300A MI300X MI308X MI325X MI350X MI355X",
    "aws": "Inferentia1 Inferentia2 Trainium1 Trainium2 Trainium3",
    "habana": "Gaudi Gaudi2 Gaudi3",
}
TOKENS = {name.lower(): Model(vendor, name) for vendor, names in _TOKENS.items() for name in names.split()}
RTX = re.compile(r"rtx-?(?P<pro>pro-)?(?P<number>a?\d{3,4})(?P<more>-?(?:ti|super))?(?P<ada>-ada)?")
TPUS = {
    "tpu-v3": "TPU v3",
    "tpu-v4": "TPU v4",
    "tpu-v5-lite": "TPU v5e",
    "tpu-v5e": "TPU v5e",
    "tpu-v5p": "TPU v5p",
    "tpu-v6e": "TPU v6e",
    "tpu7x": "TPU7x",
}


def _dashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _by_token(name: str) -> Model | None:
    for token in _dashed(name).split("-"):
        if token in TOKENS:
            return TOKENS[token]
    return None


@cache
def _of_ec2() -> Mapping[str, Model]:
    """Models by the names that EC2 and Karpenter give them."""
    devices = [found.machine.devices for found in ec2.builtin_types().values()]
    models = {device.model: Model(device.vendor, device.model) for device in devices if device is not None}
    theirs = {_dashed(name): models[model] for name, model in ec2.MODELS.items() if model in models}
    return {_dashed(name): model for name, model in models.items()} | theirs


@lru_cache(maxsize=1024)
def model(said: str, memory_mib: int | None = None) -> Model | None:
    """A model by any of the names it is given in labels; None: it cannot be told whose it is."""
    name = _dashed(re.split(r"-MIG-|-SHARED", said)[0])
    if not name:
        return None
    found = _of_ec2().get(name) or _by_token(name)
    if found is not None and found.name.startswith("A100"):
        large = "80gb" in name or (memory_mib or 0) > ec2.A100_OF_80_GB_ABOVE_MIB
        return Model("nvidia", "A100-80GB" if large else "A100")
    if found is not None:
        return found
    if rtx := RTX.search(name):
        words = ("RTX", rtx["pro"] and "PRO", rtx["number"].upper(), rtx["more"], rtx["ada"] and "Ada")
        return Model("nvidia", " ".join(word.strip("-") for word in words if word).replace("ti", "Ti"))
    for start, tpu in TPUS.items():
        if name.startswith(start):
            return Model("google", tpu)
    return None


PRODUCTS = (
    ("nvidia.com/gpu.product", "nvidia"),
    ("amd.com/gpu.product-name", "amd"),
    ("beta.amd.com/gpu.product-name", "amd"),
    ("cloud.google.com/gke-accelerator", "nvidia"),
    ("cloud.google.com/gke-tpu-accelerator", "google"),
    ("karpenter.k8s.aws/instance-gpu-name", None),
    ("karpenter.k8s.aws/instance-accelerator-name", None),
    ("eks.amazonaws.com/instance-gpu-name", None),
    ("eks.amazonaws.com/instance-accelerator-name", None),
    ("karpenter.azure.com/sku-gpu-name", None),
)
"""Labels that name the model, the most exact first, with whose it then is in any case."""

COUNTS = (
    "karpenter.k8s.aws/instance-gpu-count",
    "karpenter.k8s.aws/instance-accelerator-count",
    "eks.amazonaws.com/instance-gpu-count",
    "eks.amazonaws.com/instance-accelerator-count",
    "cloud.google.com/gke-accelerator-count",
    "karpenter.azure.com/sku-gpu-count",
)
"""Labels that say how many a machine of its type has, whether or not they work."""

PRODUCT, COUNT, REPLICAS = "nvidia.com/gpu.product", "nvidia.com/gpu.count", "nvidia.com/gpu.replicas"
INSTANCE_TYPES = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")


def model_by_labels(labels: Mapping[str, str]) -> Model | None:
    """The model that a node's labels name, or those a pod wants of its node."""
    for label, vendor in PRODUCTS:
        said = labels.get(label)
        if not said:
            continue
        # where GPUs are divided, the memory is that of a part
        memory = quantity(labels.get("nvidia.com/gpu.memory")) if label == PRODUCT and "-MIG-" not in said else None
        if found := model(said, memory):
            return found
        if vendor is not None:
            shown = re.sub(rf"^{vendor}[-_ ]", "", re.split(r"-MIG-|-SHARED", said)[0], flags=re.IGNORECASE)
            return Model(vendor, re.sub(r"[-_]+", " ", shown).strip() or said)
    for label in INSTANCE_TYPES:
        if (machine := machine_type(labels.get(label, ""))) is not None:
            return machine.model
    vendors = {
        labels.get("karpenter.k8s.aws/instance-gpu-manufacturer"),
        labels.get("kubernetes.azure.com/accelerator"),
    }
    return Model("nvidia", "") if "nvidia" in vendors else None


# Machine types.


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What machines of a type have."""

    model: Model
    count: int | None
    share: Fraction = Fraction(1)
    """Part of a physical GPU each of its devices is."""
    memory_mib: int = 0
    """Of one of them, where it is known."""


GOOGLE = (
    (r"a2-ultragpu-(\d+)g", Model("nvidia", "A100-80GB")),
    (r"a2-(?:high|mega)gpu-(\d+)g", Model("nvidia", "A100")),
    (r"a3-ultragpu-(\d+)g", Model("nvidia", "H200")),
    (r"a3-(?:high|mega|edge)gpu-(\d+)g", Model("nvidia", "H100")),
    (r"a4-highgpu-(\d+)g", Model("nvidia", "B200")),
    (r"a4x-highgpu-(\d+)g", Model("nvidia", "GB200")),
    (r"ct3-hightpu-(\d+)t", Model("google", "TPU v3")),
    (r"ct4p-hightpu-(\d+)t", Model("google", "TPU v4")),
    (r"ct5lp-hightpu-(\d+)t", Model("google", "TPU v5e")),
    (r"ct5p-hightpu-(\d+)t", Model("google", "TPU v5p")),
    (r"ct6e-standard-(\d+)t", Model("google", "TPU v6e")),
    (r"g4-standard-\d+()", Model("nvidia", "RTX PRO 6000")),
    (r"g2-standard-\d+()", Model("nvidia", "L4")),
)
"""Google's types, whose names tell how many."""
GOOGLE_COUNTS = {
    **dict.fromkeys(("g2-standard-4", "g2-standard-8", "g2-standard-12", "g2-standard-16", "g2-standard-32"), 1),
    "g2-standard-24": 2,
    "g2-standard-48": 4,
    "g2-standard-96": 8,
    "g4-standard-48": 1,
    "g4-standard-96": 2,
    "g4-standard-192": 4,
    "g4-standard-384": 8,
}
AZURE = (
    (r"nd\d+a?s?r_v4|nd96asr_a100_v4", Model("nvidia", "A100"), 8),
    (r"nd96am?sr_a100_v4", Model("nvidia", "A100-80GB"), 8),
    (r"nd96is?r_h100_v5", Model("nvidia", "H100"), 8),
    (r"nd96is?r_h200_v5", Model("nvidia", "H200"), 8),
    (r"nd96isr_mi300x_v5", Model("amd", "MI300X"), 8),
    (r"nd40rs_v2", Model("nvidia", "V100"), 8),
    (r"nc24ads_a100_v4", Model("nvidia", "A100-80GB"), 1),
    (r"nc48ads_a100_v4", Model("nvidia", "A100-80GB"), 2),
    (r"nc96ads_a100_v4", Model("nvidia", "A100-80GB"), 4),
    (r"nc40ads_h100_v5", Model("nvidia", "H100"), 1),
    (r"nc80adis_h100_v5", Model("nvidia", "H100"), 2),
    (r"nc(?:4|8|16)as_t4_v3", Model("nvidia", "T4"), 1),
    (r"nc64as_t4_v3", Model("nvidia", "T4"), 4),
    (r"nc6s_v3", Model("nvidia", "V100"), 1),
    (r"nc12s_v3", Model("nvidia", "V100"), 2),
    (r"nc24r?s_v3", Model("nvidia", "V100"), 4),
    (r"nv36adm?s_a10_v5", Model("nvidia", "A10"), 1),
    (r"nv72ads_a10_v5", Model("nvidia", "A10"), 2),
)
"""Azure's types without `Standard_`; case does not count there."""


@lru_cache(maxsize=1024)
def machine_type(name: str) -> Machine | None:
    """What a cloud's machine type has; None: no accelerators, or none that we know of."""
    builtin = ec2.builtin_types().get(name)
    if builtin is not None:
        devices = builtin.machine.devices
        if devices is None:
            return None
        share = Fraction(devices.share).limit_denominator(64)
        return Machine(
            model=Model(devices.vendor, devices.model),
            count=devices.count,
            share=share,
            memory_mib=devices.memory_mib or 0,
        )
    for pattern, found in GOOGLE:
        if matched := re.fullmatch(pattern, name):
            return Machine(model=found, count=int(matched[1]) if matched[1] else GOOGLE_COUNTS.get(name))
    size = name.lower().removeprefix("standard_")
    for pattern, found, count in AZURE:
        if re.fullmatch(pattern, size):
            return Machine(model=found, count=count)
    return None


# A node's hardware.

REGISTERED = "hami.io/node-nvidia-register"
"""HAMi's annotation: each GPU of the node with its memory."""
SHARED_CLIENTS, PARTITION_SIZE = (
    "cloud.google.com/gke-max-shared-clients-per-gpu",
    "cloud.google.com/gke-gpu-partition-size",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """The accelerators of one node."""

    model: Model | None
    """Its name is `` where only whose it is can be told."""
    count: int
    """Physical ones."""
    wanted: int
    """How many there should be: as many as its type has, if that is more than there are."""
    usable: int | None
    """How many of them pods may get; None where parts of GPUs do not tell."""
    total: Fraction
    """What all shares are of, in physical ones; never below what its resources add up to."""
    memory_mib: int | None
    """Of one of them."""
    share: Fraction = Fraction(1)
    """Part of a real GPU each is: the machine may itself have been given a part of one."""
    weights: Mapping[str, Fraction] = field(default_factory=dict)
    vgpu_memory_mib: int = 0
    """Of each GPU, where HAMi divides it by memory."""

    def weight(self, device: Device) -> Fraction:
        """Which part of a physical one the device is."""
        if self.vgpu_memory_mib and device.resource == "nvidia.com/gpu":
            return _part_of_memory(device.memory, self.vgpu_memory_mib)
        if device.resource in self.weights:
            return self.weights[device.resource]
        return general_weight(device.resource)


def general_weight(resource: str) -> Fraction:
    """Which part of a physical one a device is, as far as its name tells."""
    if partition := AMD_PARTITION.fullmatch(resource):
        return Fraction(1, PARTITIONS_OF_AMD[partition[1]])
    profile = profile_in(resource) if "/mig-" in resource else None
    return profile.part if profile is not None else Fraction(1)


def _part_of_memory(memory: str, of: int) -> Fraction:
    """Without a wish for memory HAMi gives the whole GPU. Its memory is never given twice, so parts add up to 1."""
    part = Fraction(quantity(memory[:-1]), 100) if memory.endswith("%") else Fraction(quantity(memory), of)
    return min(part, Fraction(1)) if part else Fraction(1)


def hardware(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    capacity: Mapping[str, Any],
    allocatable: Mapping[str, Any],
    dra: Iterable[DraDevice] = (),
) -> Hardware | None:
    """A node's accelerators; None: it has none, and so is not ours to show."""
    offered = {name: count for name, value in capacity.items() if vendor_of(name) and (count := quantity(value))}
    there = _without_aliases(offered)
    cards, card_memory, dra_model = _dra_cards(dra)
    machine = next((found for label in INSTANCE_TYPES if (found := machine_type(labels.get(label, "")))), None)
    registered = _registered(annotations.get(REGISTERED, ""))
    found_model = model_by_labels(labels) or (model(registered[1]) if registered else None) or dra_model
    if not there and not cards and found_model is None:
        return None
    divided = _divided(labels)
    by_type = max([machine.count or 0 if machine else 0, *(quantity(labels.get(label)) for label in COUNTS)])
    counted = quantity(labels.get(COUNT)) if divided is None else 0

    if registered:
        counted = registered[0]
    weights = {name: _weight(name, offered, labels, counted, divided, machine) for name in offered}
    together = sum((weights[name] * count for name, count in there.items()), Fraction())
    if registered and "nvidia.com/gpu" in there:
        together = Fraction(counted)
    if divided is not None and there and not by_type:
        slices = ceil(sum(weights[name] / divided.part * count for name, count in there.items()))
        counted = max(counted, ceil(Fraction(slices, divided.at_most)))
    elif divided is not None:
        counted = by_type
    fewest = max(ceil(together), cards)
    count = max(counted, fewest) or by_type
    parts = divided is not None or any("/mig-" in name for name in there) or bool(registered)
    usable = None if there or cards else 0
    if there and not parts:
        left = {name: quantity(allocatable.get(name)) for name in there}
        usable = max(floor(sum((weights[name] * number for name, number in left.items()), Fraction())), cards)
    resource_vendor = next((vendor_of(name) for name in sorted(there)), None)
    if found_model is None or (resource_vendor is not None and found_model.vendor != resource_vendor):
        found_model = Model(resource_vendor, "") if resource_vendor is not None else found_model
    return Hardware(
        model=found_model,
        count=count,
        wanted=max(count, by_type),
        usable=usable,
        total=max(Fraction(count), together),
        memory_mib=_memory(labels, divided, machine) or (registered[2] if registered else card_memory) or None,
        share=machine.share if machine is not None else Fraction(1),
        weights=weights,
        vgpu_memory_mib=registered[2] if registered else 0,
    )


def _divided(labels: Mapping[str, str]) -> Profile | None:
    """The MIG profile that `nvidia.com/gpu` counts on this node, where all its GPUs are divided alike."""
    _, separator, profile = labels.get(PRODUCT, "").partition("-MIG-")
    return profile_in(profile if separator else labels.get(PARTITION_SIZE, ""))


def _weight(
    name: str,
    offered: Mapping[str, int],
    labels: Mapping[str, str],
    counted: int,
    divided: Profile | None,
    machine: Machine | None,
) -> Fraction:
    if name == NEURON[-1]:
        by_type = (machine.count if machine is not None else None) or max(quantity(labels.get(key)) for key in COUNTS)
        chips = max(offered.get(chip, 0) for chip in NEURON[:-1]) or by_type
        return min(Fraction(chips, offered[name]), Fraction(1)) if chips else Fraction(1)
    if "/mig-" in name:
        whole = name.removesuffix(".shared")
        return general_weight(whole) / max(quantity(labels.get(f"{whole}.replicas")), 1)
    if vendor_of(name) != "nvidia":
        return general_weight(name)
    part = divided.part if divided is not None else Fraction(1)
    return part / _replicas(name, offered, labels, counted)


def _replicas(name: str, offered: Mapping[str, int], labels: Mapping[str, str], counted: int) -> int:
    """How many pods a GPU of this name is offered to."""
    plain = "nvidia.com/gpu"
    renamed = any(other != plain and NVIDIA.fullmatch(other) and "/mig-" not in other for other in offered)
    if name == plain and renamed:
        return 1  # what is shared has another name
    said = max(quantity(labels.get(REPLICAS)), quantity(labels.get(SHARED_CLIENTS)))
    if said > 1:
        return said
    physical = counted if name == plain else counted - offered.get(plain, 0)
    return ceil(Fraction(offered[name], physical)) if 0 < physical < offered[name] else 1


def _memory(labels: Mapping[str, str], divided: Profile | None, machine: Machine | None) -> int:
    by_type = machine.memory_mib if machine is not None else 0
    if divided is not None:
        return by_type  # the labels are of parts
    names = ("nvidia.com/gpu.memory", "karpenter.k8s.aws/instance-gpu-memory", "eks.amazonaws.com/instance-gpu-memory")
    return next((size for name in names if (size := quantity(labels.get(name)))), by_type)


@lru_cache(maxsize=4096)
def _registered(said: str) -> tuple[int, str, int] | None:
    """How many GPUs HAMi registered, the model, and the memory of the largest. It writes this in two ways."""
    if said.lstrip().startswith(("[", "{")):
        sizes = [int(size) for size in re.findall(r'"devmem"\s*:\s*(\d+)', said)]
        types = re.findall(r'"type"\s*:\s*"([^"]*)"', said)
    else:
        devices = [fields for device in said.split(":") if len(fields := device.split(",")) >= 5]
        sizes = [quantity(fields[2]) for fields in devices]
        types = [fields[4] for fields in devices]
    largest = max(sizes, default=0)
    return (len(sizes), types[0] if types else "", largest) if largest else None


# DRA.


@dataclass(frozen=True, kw_only=True, slots=True)
class DraDevice:
    """One device that a DRA driver offers on a node."""

    driver: str
    name: str
    part: Fraction
    """Of a physical one."""
    parent: str
    """What tells the physical one."""
    product: str
    memory_mib: int


def dra_device(driver: str, device: Json) -> DraDevice:
    """A device of a ResourceSlice; its attributes stand one level deeper in the oldest version of it."""
    inside = at(device, "basic") or device
    name = text(device, "name")
    attributes = at(inside, "attributes")
    kind = text(attributes, "type", "string")
    memory = quantity(at(inside, "capacity", "memory", "value"))
    part = dra_part(name, text(attributes, "profile", "string"), kind)
    return DraDevice(
        driver=driver,
        name=name,
        part=part,
        parent=text(attributes, "parentUUID", "string") or (name if part == 1 else name.partition("-mig-")[0]),
        product=text(attributes, "productName", "string"),
        memory_mib=memory // 2**20 if memory > 2**20 else 0,
    )


def dra_part(name: str, profile: str = "", kind: str = "") -> Fraction:
    """Which part of a physical one a device is. One that is a part, nobody says which, is taken for the smallest."""
    named = re.sub(r"(\d)g(\d)", r"\1g.\2", name)  # device names have no dots
    if found := profile_in(profile) or (profile_in(named) if "-mig-" in name else None):
        return found.part
    return Fraction(1, SLICES) if kind == "mig" or "-mig-" in name else Fraction(1)


def _dra_cards(devices: Iterable[DraDevice]) -> tuple[int, int, Model | None]:
    """Physical ones that DRA offers: partitions of one are listed beside it. Their memory, their model."""
    devices = sorted(devices, key=lambda device: device.name)
    whole = [device for device in devices if device.part == 1]
    parents = {(device.driver, device.parent) for device in devices}
    count = len(whole) if whole else len(parents)
    memory = min((device.memory_mib for device in whole), default=0)
    for device in devices:
        vendor = DRIVERS.get(device.driver)
        found = model(device.product, device.memory_mib if device.part == 1 else None)
        if found is not None or vendor is not None:
            return count, memory, found or Model(vendor or "", "")
    return count, memory, None
