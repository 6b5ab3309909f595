"""What Google offers, as far as it is played here: machine types with what is in them, and accelerator types."""

from __future__ import annotations

from typing import Any, NamedTuple

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
