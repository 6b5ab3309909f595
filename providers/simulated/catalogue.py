"""The machine types the simulated clouds sell: what is in them and what an hour costs, near real list prices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Sku:
    """One machine type."""

    name: str
    vendor: str | None = "nvidia"
    model: str | None
    gpus: int
    memory_mib: int | None
    """Of one device."""
    watts: int
    """Most that one device draws."""
    rate_micros: int | None
    """Per hour on demand; None when no price list has it."""
    local_disks: bool = False
    """Has disks that are lost when it stops."""


def _sku(
    name: str,
    model: str,
    gpus: int,
    memory_mib: int,
    watts: int,
    rate_micros: int,
    *,
    vendor: str = "nvidia",
    local_disks: bool = False,
) -> Sku:
    return Sku(
        name=name,
        vendor=vendor,
        model=model,
        gpus=gpus,
        memory_mib=memory_mib,
        watts=watts,
        rate_micros=rate_micros,
        local_disks=local_disks,
    )


AWS = (
    _sku("p5.48xlarge", "H100", 8, 81559, 700, 55_040_000, local_disks=True),
    _sku("p4d.24xlarge", "A100-40GB", 8, 40960, 400, 21_957_642, local_disks=True),
    _sku("g6e.12xlarge", "L40S", 4, 46068, 350, 10_492_640, local_disks=True),
    _sku("g6.xlarge", "L4", 1, 23034, 72, 804_800, local_disks=True),
    _sku("g5.12xlarge", "A10G", 4, 23028, 300, 5_672_000, local_disks=True),
    _sku("g4dn.xlarge", "T4", 1, 15360, 70, 526_000, local_disks=True),
    _sku("trn1.32xlarge", "Trainium1", 16, 32768, 200, 21_500_000, vendor="aws", local_disks=True),
)
GCP = (
    _sku("a3-highgpu-8g", "H100", 8, 81559, 700, 88_490_000, local_disks=True),
    _sku("a2-ultragpu-4g", "A100-80GB", 4, 81920, 400, 20_275_000, local_disks=True),
    _sku("a2-highgpu-1g", "A100-40GB", 1, 40960, 400, 3_673_385),
    _sku("g2-standard-24", "L4", 2, 23034, 72, 1_998_000),
    _sku("g2-standard-12", "L4", 1, 23034, 72, 999_000),
)
AZURE = (
    _sku("Standard_ND96isr_H100_v5", "H100", 8, 81559, 700, 98_320_000, local_disks=True),
    _sku("Standard_ND96isr_MI300X_v5", "MI300X", 8, 196608, 750, 48_000_000, vendor="amd", local_disks=True),
    _sku("Standard_NC24ads_A100_v4", "A100-80GB", 1, 81920, 300, 3_673_000, local_disks=True),
    _sku("Standard_NV36ads_A10_v5", "A10", 1, 24564, 150, 3_200_000),
)
KUBERNETES = (
    _sku("nvidia-h100-80gb-x8", "H100", 8, 81559, 700, 44_000_000),
    _sku("nvidia-a100-80gb-x4", "A100-80GB", 4, 81920, 400, 14_000_000),
    _sku("nvidia-a100-80gb-x1", "A100-80GB", 1, 81920, 400, 3_500_000),
    _sku("nvidia-l4-x2", "L4", 2, 23034, 72, 1_400_000),
    _sku("nvidia-l4-x1", "L4", 1, 23034, 72, 700_000),
)

SKUS = {sku.name: sku for sku in (*AWS, *GCP, *AZURE, *KUBERNETES)}
SPOT_SHARE_PERCENT = 35
"""What spot costs of the price on demand."""
