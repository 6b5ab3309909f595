"""What sizes of machines there are where, and what they can do: Compute's Resource SKUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.providers.azure.cloud_part import SUBSCRIPTION, Json, Part, Told, answers
from tests.providers.azure.cloud_refusals import invalid

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud


@dataclass(kw_only=True)
class Size:
    """What Azure tells of one. Of some with parts of a GPU it says one, and of some of its newest none at all."""

    name: str
    family: str
    cpus: int
    memory_gb: float
    gpus: str | None = None
    """As Azure writes it; None where it does not."""
    temporary_mb: int = 0
    nvme_mib: int = 0
    hibernation: bool | None = None
    ephemeral_os: bool = True
    low_priority: bool = True
    locations: tuple[str, ...] = ("eastus", "northeurope", "westeurope")
    more: Mapping[str, str] = field(default_factory=dict)

    def told(self, location: str) -> Json:
        said = {
            "MaxResourceVolumeMB": str(self.temporary_mb),
            "OSVhdSizeMB": "1047552",
            "vCPUs": str(self.cpus),
            "MemoryPreservingMaintenanceSupported": str(self.gpus is None),
            "HyperVGenerations": "V1,V2",
            "MemoryGB": f"{self.memory_gb:g}",
            "MaxDataDiskCount": "32",
            "CpuArchitectureType": "x64",
            "LowPriorityCapable": str(self.low_priority),
            "PremiumIO": "True",
            "VMDeploymentTypes": "IaaS",
            "vCPUsAvailable": str(self.cpus),
            "vCPUsPerCore": "1",
            "EphemeralOSDiskSupported": str(self.ephemeral_os),
            "EncryptionAtHostSupported": "True",
            "AcceleratedNetworkingEnabled": "True",
            "RdmaEnabled": str("r_" in self.name.removeprefix("Standard_").lower()),
            "MaxNetworkInterfaces": "8",
        }
        if self.gpus is not None:
            said["GPUs"] = self.gpus
        if self.nvme_mib:
            said["NvmeDiskSizeInMiB"] = str(self.nvme_mib)
        if self.hibernation is not None:
            said["HibernationSupported"] = str(self.hibernation)
        return {
            "resourceType": "virtualMachines",
            "name": self.name,
            "tier": "Standard",
            "size": self.name.removeprefix("Standard_"),
            "family": self.family,
            "locations": [location],
            "locationInfo": [{"location": location, "zones": ["1", "2", "3"], "zoneDetails": []}],
            "capabilities": [{"name": name, "value": value} for name, value in {**said, **self.more}.items()],
            "restrictions": [],
        }


GIB = 1024
SIZES = (
    Size(name="Standard_D4s_v5", family="standardDSv5Family", cpus=4, memory_gb=16, hibernation=True),
    Size(name="Standard_E4ds_v5", family="standardEDSv5Family", cpus=4, memory_gb=32, temporary_mb=150 * GIB,
         hibernation=True),
    Size(name="Standard_NC4as_T4_v3", family="Standard NCASv3_T4 Family", cpus=4, memory_gb=28, gpus="1",
         temporary_mb=176 * GIB),
    Size(name="Standard_NC6s_v3", family="standardNCSv3Family", cpus=6, memory_gb=112, gpus="1",
         temporary_mb=736 * GIB),
    Size(name="Standard_NC24ads_A100_v4", family="StandardNCADSA100v4Family", cpus=24, memory_gb=220, gpus="1",
         temporary_mb=64 * GIB, nvme_mib=915527),
    Size(name="Standard_NC40ads_H100_v5", family="StandardNCadsH100v5Family", cpus=40, memory_gb=320, gpus="1",
         temporary_mb=128 * GIB, nvme_mib=3662109),
    Size(name="Standard_ND96isr_H100_v5", family="standardNDSH100v5Family", cpus=96, memory_gb=1900, gpus="8",
         temporary_mb=1000 * GIB, nvme_mib=27343750 // 1000 * 1000),
    Size(name="Standard_ND96isr_MI300X_v5", family="standardNDISv5MI300XFamily", cpus=96, memory_gb=1850, gpus="8",
         temporary_mb=1000 * GIB),
    Size(name="Standard_ND128isr_NDR_GB200_v6", family="standardNDISRGB200V6NDRFamily", cpus=128, memory_gb=900,
         locations=("eastus",)),
    Size(name="Standard_NV6ads_A10_v5", family="StandardNVADSA10v5Family", cpus=6, memory_gb=55, gpus="1",
         temporary_mb=180 * GIB, hibernation=True),
    Size(name="Standard_NV36ads_A10_v5", family="StandardNVADSA10v5Family", cpus=36, memory_gb=440, gpus="1",
         temporary_mb=1440 * GIB, hibernation=True),
    Size(name="Standard_NV4as_v4", family="standardNVSv4Family", cpus=4, memory_gb=14, gpus="1",
         temporary_mb=88 * GIB),
)  # fmt: skip
GPUS_NOBODY_PRICES = "Standard_ND128isr_NDR_GB200_v6"


class Skus(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.sizes = {size.name: size for size in SIZES}

    def add(self, size: Size) -> None:
        self.sizes[size.name] = size

    @answers("ResourceSkus_List", "GET", f"{SUBSCRIPTION}/providers/Microsoft.Compute/skus",
             query=("$filter", "includeExtendedLocations", "$skiptoken"), tells="ResourceSku[]")  # fmt: skip
    def list_skus(self, call: Call) -> Told:
        """One for each size and location, and disks and others between them."""
        wanted = call.query.get("$filter")
        if wanted is not None and not wanted.startswith("location eq '"):
            raise invalid("The $filter supports only location eq.", target="$filter")
        where = wanted.removeprefix("location eq ").strip("'").lower() if wanted else None
        told = [
            size.told(location)
            for size in self.sizes.values()
            for location in size.locations
            if where in (None, location)
        ]
        disk = {"resourceType": "disks", "name": "Premium_LRS", "tier": "Premium", "size": "P10",
                "locations": [where or "westeurope"], "capabilities": [{"name": "MaxSizeGiB", "value": "128"}],
                "restrictions": []}  # fmt: skip
        return self.listed(call, [disk, *told])
