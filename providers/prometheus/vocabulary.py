"""What the well-known exporters call things: their metrics as our signals, their labels as devices, machines and pods.

Names only, from the exporters' own documentation. What is made of them is told in `join.py` and `telemetry.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from providers.records import Signal

UNITS = {
    "ratio": 1.0,
    "percent": 0.01,
    "watts": 1.0,
    "milliwatts": 1e-3,
    "microwatts": 1e-6,
    "mebibytes": 1.0,
    "bytes": 1 / 2**20,
    "requests": 1.0,
}
"""What one of theirs is in ours."""
RATIOS = frozenset({Signal.UTILISATION, Signal.TENSOR_ACTIVE, Signal.DRAM_ACTIVE})


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric as one of our signals."""

    name: str
    signal: Signal
    unit: float
    """What one of the server's is in ours."""
    most: float
    """What no sample of ours may exceed."""

    @classmethod
    def of(cls, name: str, signal: Signal, unit: str) -> Metric:
        return cls(name=name, signal=signal, unit=UNITS[unit], most=1.0 if signal in RATIOS else math.inf)


def _known(signal: Signal, names: Mapping[str, str]) -> tuple[Metric, ...]:
    return tuple(Metric.of(name, signal, unit) for name, unit in names.items())


METRICS: Mapping[Signal, tuple[Metric, ...]] = {
    signal: _known(signal, names)
    for signal, names in {
        Signal.UTILISATION: {
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "ratio",  # dcgm-exporter; the only one MIG slices have
            "DCGM_FI_DEV_GPU_UTIL": "percent",
            "gpu_gfx_activity": "percent",  # AMD device-metrics-exporter, and with the prefix some give it
            "amd_gpu_gfx_activity": "percent",
            "amd_gpu_use_percent": "percent",  # amd_smi_exporter
            "nvidia_smi_utilization_gpu_ratio": "ratio",  # nvidia_gpu_exporter
            "nvidia_smi_utilization_gpu": "percent",  # telegraf
            "amd_rocm_smi_utilization_gpu": "percent",
            "nvidia_gpu_duty_cycle": "percent",  # nvidia_gpu_prometheus_exporter
        },
        Signal.TENSOR_ACTIVE: {"DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "ratio"},
        Signal.DRAM_ACTIVE: {
            "DCGM_FI_PROF_DRAM_ACTIVE": "ratio",
            "DCGM_FI_DEV_MEM_COPY_UTIL": "percent",
            "gpu_umc_activity": "percent",
            "amd_gpu_umc_activity": "percent",
            "nvidia_smi_utilization_memory_ratio": "ratio",
            "nvidia_smi_utilization_memory": "percent",
        },
        Signal.POWER_WATTS: {
            "DCGM_FI_DEV_POWER_USAGE": "watts",
            "gpu_package_power": "watts",
            "amd_gpu_package_power": "watts",
            "gpu_average_package_power": "watts",
            "amd_gpu_average_package_power": "watts",
            "amd_gpu_power": "microwatts",
            "nvidia_smi_power_draw_watts": "watts",
            "nvidia_smi_power_draw": "watts",
            "amd_rocm_smi_power_draw": "watts",
            "nvidia_gpu_power_usage_milliwatts": "milliwatts",
        },
        Signal.MEMORY_USED_MIB: {
            "DCGM_FI_DEV_FB_USED": "mebibytes",
            "gpu_used_vram": "mebibytes",
            "amd_gpu_used_vram": "mebibytes",
            "nvidia_smi_memory_used_bytes": "bytes",
            "nvidia_smi_memory_used": "mebibytes",
            "amd_rocm_smi_memory_used": "bytes",
            "nvidia_gpu_memory_used_bytes": "bytes",
        },
        Signal.REQUESTS_TOTAL: {
            "vllm:request_success_total": "requests",
            "sglang:num_requests_total": "requests",
            "nv_inference_request_success": "requests",  # Triton
            "tgi_request_count": "requests",
            "te_request_count": "requests",  # text-embeddings-inference
            "ts_inference_requests_total": "requests",  # TorchServe
            ":tensorflow:serving:request_count": "requests",
            "request_predict_seconds_count": "requests",  # KServe's own servers
            "revision_request_count": "requests",  # Knative's proxy beside any server
        },
    }.items()
}
"""Each signal's metrics, the one to prefer first where a device has several."""

REQUESTS = Metric.of("", Signal.REQUESTS_TOTAL, "requests")
"""Any counter of requests."""

INSTANCE_ID_LABELS = (
    "instance_id",
    "InstanceId",
    "instanceId",
    "ec2_instance_id",
    "gce_instance_id",
    "cloud_instance_id",
    "host_id",
    "provider_id",
    "providerID",
    "resource_id",
)
"""Labels in which people put the cloud's own id of a machine; `provider_id` is Kubernetes' form of it."""
HOST_LABELS = ("Hostname", "hostname", "host", "instance", "node", "nodename", "node_name", "kubernetes_node")
"""Labels that may name the host. dcgm-exporter's is `Hostname` up to 4.5.3 and `hostname` after it."""
NODE_LABELS = frozenset({"node", "nodename", "node_name", "kubernetes_node"})
"""Those of them that are never anything else: the others may name the exporter's own pod or address."""
HOST_TAGS = frozenset({"hostname", "host_name", "host", "private_dns", "private_dns_name", "fqdn"})
"""A machine's own tags (in lower case, `-` as `_`) that may name it as a host."""

POD_LABELS = (
    ("namespace", "pod"),
    ("pod_namespace", "pod_name"),  # dcgm-exporter of old
    ("namespace_name", "pod_name"),  # Knative
    ("kubernetes_namespace", "kubernetes_pod_name"),  # the scrape jobs of old charts
)
"""Labels that name a pod, each with the one that names its namespace."""
PER_PROCESS = frozenset({"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED"})
"""Of these, dcgm-exporter since 4.6 tells each pod's share where pods may share a GPU, and marks it with `pod_uid`.
A pod none of whose processes it sees has a share of nothing there, at work or not."""
SCRAPERS = ("job", "instance", "endpoint", "prometheus", "prometheus_replica", "replica", "receive_replica")
"""Labels that tell one scraper's copy of a series from another's; all others tell parts of what is counted."""

NO_VALUES = frozenset({"", "n/a", "none", "unknown", "not supported"})
"""What exporters write (in any case, in brackets or not) where they know none. Six GPUs called `N/A` are not one."""


def told(labels: Mapping[str, str], name: str) -> tuple[tuple[str, str], ...]:
    """A label's values, with where each is. `exported_…` is what Prometheus renames an exporter's own label to."""
    found = ((key, labels.get(key, "")) for key in (name, f"exported_{name}"))
    return tuple((key, value) for key, value in found if value.strip("[]").lower() not in NO_VALUES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Which GPU a series speaks of, and in what kind of name it says so."""

    naming: str
    """Devices named in different ways cannot be told apart from one another."""
    gpu: str
    """The physical GPU."""
    part: str = ""
    """A slice of it (MIG), or nothing for the whole."""

    @property
    def name(self) -> str:
        return f"{self.gpu}/{self.part}" if self.part else self.gpu


NAMINGS = ("uuid", "gpu_unique_id", "serial_number", "gpu_uuid", "index", "none")
"""Kinds of names for GPUs, the most telling first."""


def device_of(labels: Mapping[str, str]) -> Device:
    """The GPU that a series' labels name. Pods on it, jobs and virtual shares make no GPU of their own."""
    mig = _first(labels, "GPU_I_ID", "gpu_instance_id")
    index = _index(labels)
    if uuid := _first(labels, "UUID", "uuid"):
        if uuid.upper().startswith("MIG-"):  # names the slice alone; whose it is, its number tells
            return Device(naming="uuid", gpu=index or "GPU", part=uuid)
        # nvidia_gpu_exporter leaves out the `GPU-` that all others write
        return Device(naming="uuid", gpu="GPU-" + uuid.lower().removeprefix("gpu-"), part=mig)
    if unique := _first(labels, "gpu_unique_id"):
        return Device(naming="gpu_unique_id", gpu=unique)
    if serial := _first(labels, "serial_number"):
        return Device(naming="serial_number", gpu=serial, part=_amd_partition(labels))
    if uuid := _first(labels, "gpu_uuid"):
        return Device(naming="gpu_uuid", gpu=uuid)
    return Device(naming="index", gpu=index, part=mig) if index else Device(naming="none", gpu="0")


def of_processes(labels: Mapping[str, str]) -> bool:
    """Whether a series tells what a pod's processes did, as far as they were seen, instead of what the GPU did."""
    return labels.get("__name__") in PER_PROCESS and bool(told(labels, "pod_uid"))


def share_of(labels: Mapping[str, str]) -> str:
    """Which of the shares of a GPU or slice (time-slicing, MPS) a series is of, where it says so."""
    return _first(labels, "vgpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class PodName:
    """A pod as a series' labels name it."""

    namespace: str
    name: str
    label: str
    """The label with its name."""


def pods_of(labels: Mapping[str, str]) -> Iterator[PodName]:
    """The pods a series may speak of. Where Prometheus renamed a label, the plain one is the scrape job's: its pod is
    the exporter's own."""
    for namespace_label, pod_label in POD_LABELS:
        namespaces, pods = told(labels, namespace_label), told(labels, pod_label)
        if namespaces and pods:
            (_, namespace), (label, name) = namespaces[-1], pods[-1]
            yield PodName(namespace=namespace, name=name, label=label)


def _first(labels: Mapping[str, str], *names: str) -> str:
    """The exporter's own word, which is the renamed one where there are two."""
    return next((value for name in names for _, value in reversed(told(labels, name))), "")


def _amd_partition(labels: Mapping[str, str]) -> str:
    """AMD's compute partitions (anything but SPX) share their card's serial number."""
    if _first(labels, "gpu_compute_partition_type").lower() in ("", "spx"):
        return ""
    return _first(labels, "gpu_uuid", "gpu_id")


def _index(labels: Mapping[str, str]) -> str:
    """A GPU's number on its machine. Not every label of such a name holds one: telegraf's `gpu_id` is a model."""
    # amd_smi_exporter writes the number into a label that is named like the metric
    own = labels.get("__name__", "").removeprefix("amd_")
    for name in ("gpu", "index", "minor_number", "gpu_id", "device", "name", own):
        number = _first(labels, name).removeprefix("nvidia").removeprefix("card")
        if number.isdecimal():
            return number
    return ""
