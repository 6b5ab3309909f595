"""What Google offers, as far as it is played here: machine types with what is in them, and accelerator types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.providers.gcp.cloud_compute_part import BASE, ComputePart, answers
from tests.providers.gcp.cloud_refusals import not_found

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]


class MachineType(NamedTuple):
    cpus: int
    memory_gib: float
    accelerator: str | None = None
    accelerators: int = 0
    local_ssds: int = 0
    """Partitions of 375 GiB that every machine of the type comes with."""


MACHINE_TYPES = {
    "a2-highgpu-1g": MachineType(12, 85, "nvidia-tesla-a100", 1),
    "a2-highgpu-2g": MachineType(24, 170, "nvidia-tesla-a100", 2),
    "a2-highgpu-4g": MachineType(48, 340, "nvidia-tesla-a100", 4),
    "a2-highgpu-8g": MachineType(96, 680, "nvidia-tesla-a100", 8),
    "a2-megagpu-16g": MachineType(96, 1360, "nvidia-tesla-a100", 16),
    "a2-ultragpu-1g": MachineType(12, 170, "nvidia-a100-80gb", 1, 1),
    "a2-ultragpu-8g": MachineType(96, 1360, "nvidia-a100-80gb", 8, 8),
    "a3-highgpu-1g": MachineType(26, 234, "nvidia-h100-80gb", 1, 2),
    "a3-highgpu-8g": MachineType(208, 1872, "nvidia-h100-80gb", 8, 16),
    "a3-megagpu-8g": MachineType(208, 1872, "nvidia-h100-mega-80gb", 8, 16),
    "a3-ultragpu-8g": MachineType(224, 2952, "nvidia-h200-141gb", 8, 32),
    "a4-highgpu-8g": MachineType(224, 3968, "nvidia-b200", 8, 32),
    "ct5lp-hightpu-4t": MachineType(112, 192, "ct5lp", 4),
    "e2-medium": MachineType(2, 4),
    "e2-standard-4": MachineType(4, 16),
    "g2-standard-4": MachineType(4, 16, "nvidia-l4", 1),
    "g2-standard-24": MachineType(24, 96, "nvidia-l4", 2),
    "g2-standard-96": MachineType(96, 384, "nvidia-l4", 8),
    "g4-standard-48": MachineType(48, 180, "nvidia-rtx-pro-6000", 1),
    "n1-highmem-8": MachineType(8, 52),
    "n1-standard-4": MachineType(4, 15),
    "n1-standard-8": MachineType(8, 30),
    "n2-standard-8": MachineType(8, 32),
}

ACCELERATOR_TYPES = {
    "ct5lp": ("Cloud TPU v5e", 8),
    "nvidia-a100-80gb": ("NVIDIA A100 80GB", 8),
    "nvidia-b200": ("NVIDIA B200", 8),
    "nvidia-h100-80gb": ("NVIDIA H100 80GB", 8),
    "nvidia-h100-mega-80gb": ("NVIDIA H100 80GB MEGA", 8),
    "nvidia-h200-141gb": ("NVIDIA H200 141GB", 8),
    "nvidia-l4": ("NVIDIA L4", 8),
    "nvidia-l4-vws": ("NVIDIA L4 Virtual Workstation", 8),
    "nvidia-rtx-pro-6000": ("NVIDIA RTX PRO 6000", 8),
    "nvidia-tesla-a100": ("NVIDIA A100 40GB", 16),
    "nvidia-tesla-p4": ("NVIDIA P4", 4),
    "nvidia-tesla-t4": ("NVIDIA T4", 4),
    "nvidia-tesla-v100": ("NVIDIA V100", 8),
}
"""What it is called, and how many of it a machine may have."""


class Catalogue(ComputePart):
    """Every zone offers everything, unless it `lacks` a type."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.machine_types = dict(MACHINE_TYPES)
        self.lacks: dict[str, set[str]] = {}
        """What a zone does not offer."""

    @answers("compute.machineTypes.get")
    def get_machine_type(self, call: Call) -> Json:
        return self._found(call, self._machine_types(call.project), "machineTypes", call.names["machineType"])

    @answers("compute.machineTypes.list")
    def list_machine_types(self, call: Call) -> Json:
        return self.listed(call, self._machine_types(call.project), "machineType")

    @answers("compute.machineTypes.aggregatedList")
    def all_machine_types(self, call: Call) -> Json:
        return self.aggregated(call, self._machine_types(call.project), "machineType", scopes=self.scopes())

    @answers("compute.acceleratorTypes.get")
    def get_accelerator_type(self, call: Call) -> Json:
        return self._found(call, self._accelerators(call.project), "acceleratorTypes", call.names["acceleratorType"])

    @answers("compute.acceleratorTypes.list")
    def list_accelerator_types(self, call: Call) -> Json:
        return self.listed(call, self._accelerators(call.project), "acceleratorType")

    @answers("compute.acceleratorTypes.aggregatedList")
    def all_accelerator_types(self, call: Call) -> Json:
        return self.aggregated(call, self._accelerators(call.project), "acceleratorType", scopes=self.scopes())

    def _found(self, call: Call, things: Mapping[str, Json], folder: str, name: str) -> Json:
        self.check_place(call)
        path = f"projects/{call.project}/zones/{call.zone}/{folder}/{name}"
        if path not in things:
            raise not_found(path)
        return things[path]

    def _machine_types(self, project: str) -> dict[str, Json]:
        told: dict[str, Json] = {}
        for zone in self.cloud.zones:
            for number, (name, kind) in enumerate(self.machine_types.items(), start=1):
                if name in self.lacks.get(zone, ()):
                    continue
                path = f"projects/{project}/zones/{zone}/machineTypes/{name}"
                one = told[path] = {
                    "kind": "compute#machineType",
                    "id": str(1000 + number),
                    "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
                    "name": name,
                    "description": f"{kind.cpus} vCPUs, {kind.memory_gib:g} GB RAM",
                    "guestCpus": kind.cpus,
                    "memoryMb": int(kind.memory_gib * 1024),
                    "imageSpaceGb": 0,
                    "maximumPersistentDisks": 128,
                    "maximumPersistentDisksSizeGb": "263168",
                    "zone": zone,
                    "isSharedCpu": name == "e2-medium",
                    "architecture": "X86_64",
                    "selfLink": BASE + path,
                }
                if kind.accelerator is not None:
                    one["accelerators"] = [
                        {"guestAcceleratorType": kind.accelerator, "guestAcceleratorCount": kind.accelerators}
                    ]
                if kind.local_ssds:
                    one["bundledLocalSsds"] = {"defaultInterface": "NVME", "partitionCount": kind.local_ssds}
        return told

    def _accelerators(self, project: str) -> dict[str, Json]:
        told: dict[str, Json] = {}
        for zone in self.cloud.zones:
            for number, (name, (description, most)) in enumerate(ACCELERATOR_TYPES.items(), start=1):
                if name in self.lacks.get(zone, ()):
                    continue
                path = f"projects/{project}/zones/{zone}/acceleratorTypes/{name}"
                told[path] = {
                    "kind": "compute#acceleratorType",
                    "id": str(10000 + number),
                    "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
                    "name": name,
                    "description": description,
                    "maximumCardsPerInstance": most,
                    "zone": f"{BASE}projects/{project}/zones/{zone}",
                    "selfLink": BASE + path,
                }
        return told
