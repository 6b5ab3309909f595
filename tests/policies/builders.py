"""Builds facts and policies in a line: a busy cluster's worth of defaults, and only what a test is about is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from policies.facts import BASE, TELEMETRY, Facts
from policies.policy import BasePolicy, IdlePolicy, OwnershipPolicy, Policy, profile_of

_POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)


def idle_policy(name: str = "idle-gpus", **fields: Any) -> IdlePolicy:
    policy = _POLICY.validate_python({"type": "idle", "name": name, **fields})
    assert isinstance(policy, IdlePolicy)
    return policy


def ownership_policy(name: str = "unowned", **fields: Any) -> OwnershipPolicy:
    policy = _POLICY.validate_python({"type": "ownership", "name": name, **fields})
    assert isinstance(policy, OwnershipPolicy)
    return policy


def machine(**changes: Any) -> dict[str, Any]:
    """A running machine of eight H100, all idle for 1h40m, of project vision and owner ana. `tags` are its tags."""
    return {
        "resource_id": "r1",
        "source": "research-aws",
        "provider": "aws",
        "account": "123456789012",
        "region": "us-east-1",
        "zone": "us-east-1a",
        "kind": "instance",
        "external_id": "i-0abc",
        "name": "trainer",
        "sku": "p5.48xlarge",
        "gpu_vendor": "nvidia",
        "gpu_model": "H100",
        "gpu_count": 8,
        "gpu_memory_mib": 81559,
        "requested_gpus": None,
        "capacity_type": "on_demand",
        "state": "running",
        "powered_off": False,
        "managed_by": None,
        "member_of": None,
        "project": "vision",
        "owner": "ana",
        "protected": False,
        "age_seconds": 86400,
        "running_seconds": 7200,
        "ran_seconds": 93_600,
        "hourly_cost": 55.04,
        "currency": "USD",
        "cost_to_date": 1320.96,
        "activity": "idle",
        "idle_seconds": 6000,
        "busy_gpus": 0,
        "idle_gpus": 8,
        "unknown_gpus": 0,
        "coverage": 0.98,
        "max_utilisation": 0.004,
        "max_tensor_active": 0.0,
        "max_dram_active": 0.01,
        "max_power_watts": 71.5,
        "max_memory_used_mib": 512.0,
        "tags": {},
    } | changes


def busy_machine(**changes: Any) -> dict[str, Any]:
    busy = {"activity": "busy", "idle_seconds": 0, "busy_gpus": 2, "idle_gpus": 6, "max_utilisation": 0.87}
    return machine(**(busy | changes))


def silent_machine(**changes: Any) -> dict[str, Any]:
    """No sample came of any of its GPUs."""
    nothing = {column.name: None for column in TELEMETRY}
    return machine(**(nothing | {"unknown_gpus": 8, "coverage": 0.0} | changes))


def facts_of(rows: Sequence[Mapping[str, Any]], policies: Iterable[BasePolicy] = ()) -> Facts:
    """Rows as columns; every policy's profile sees the same telemetry."""
    policies = list(policies)
    telemetry = {column.name: [row[column.name] for row in rows] for column in TELEMETRY}
    return Facts(
        base={column.name: [row[column.name] for row in rows] for column in BASE},
        activity={profile_of(policy).key: telemetry for policy in policies},
        tags=[row["tags"] for row in rows],
        own={
            policy.name: {"claimed_by": [row.get("claimed_by") for row in rows]}
            for policy in policies
            if isinstance(policy, OwnershipPolicy)
        },
    )
