"""The facts table: one row per governed resource (and moment), the vocabulary of every policy.

This list is the truth: the judge builds its table from it, the gate checks user conditions against it, and the
reference page `docs/facts.md` is written from it. A fact that is not known is NULL, and NULL in a condition means
unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Type(StrEnum):
    """DuckDB's names."""

    TEXT = "VARCHAR"
    INTEGER = "BIGINT"
    NUMBER = "DOUBLE"
    BOOLEAN = "BOOLEAN"


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One fact."""

    name: str
    type: Type
    meaning: str
    unit: str = ""
    telemetry: bool = False
    """Rests on telemetry and therefore on the policy's own idle profile; its NULL may never be turned into a value."""
    over_gpus: bool = False
    """A count or a maximum over GPUs. While one is silent it speaks of the others only: no policy acts on that."""
    of_silence: bool = False
    """Tells how much is not known, and so is known best when telemetry fails: no condition of a policy that acts."""


def _column(name: str, type: Type, meaning: str, unit: str = "", **more: bool) -> Column:
    return Column(name=name, type=type, meaning=meaning, unit=unit, **more)


def _over_gpus(name: str, type: Type, meaning: str, unit: str = "") -> Column:
    return _column(name, type, meaning, unit, telemetry=True, over_gpus=True)


def _of_silence(name: str, type: Type, meaning: str, unit: str = "") -> Column:
    return _column(name, type, meaning, unit, telemetry=True, of_silence=True)


COLUMNS: tuple[Column, ...] = (
    _column("resource_id", Type.TEXT, "Curfew's own id of the resource"),
    _column("source", Type.TEXT, "name of the source it was seen through"),
    _column("provider", Type.TEXT, "aws, gcp, azure, kubernetes, …"),
    _column("account", Type.TEXT, "account, subscription, project or cluster it lives in"),
    _column("region", Type.TEXT, "region, as the cloud writes it"),
    _column("zone", Type.TEXT, "zone within the region"),
    _column("kind", Type.TEXT, "instance, node, node_group, workload, notebook, endpoint or training_job"),
    _column("external_id", Type.TEXT, "the cloud's own id"),
    _column("name", Type.TEXT, "its name, for people"),
    _column("sku", Type.TEXT, "machine type"),
    _column("gpu_vendor", Type.TEXT, "nvidia, amd, aws, …"),
    _column("gpu_model", Type.TEXT, "H100, A100-80GB, L4, …"),
    _column("gpu_count", Type.INTEGER, "GPU devices it presents; of a workload, those its pods hold"),
    _column("requested_gpus", Type.NUMBER, "of a machine in a Kubernetes cluster: GPUs its workloads hold; else NULL"),
    _column("gpu_memory_mib", Type.INTEGER, "memory of one device", "MiB"),
    _column("capacity_type", Type.TEXT, "on_demand, spot, reserved, capacity_block, flex_start or unknown"),
    _column("state", Type.TEXT, "pending, running, stopping, stopped, suspended, terminated or unknown"),
    _column("powered_off", Type.BOOLEAN, "off by itself but neither released nor free of charge, as Azure's `stopped`"),
    _column("managed_by", Type.TEXT, "the scaling group, scheduler or operator that owns it; NULL when nobody does"),
    _column("member_of", Type.TEXT, "Curfew's own id of the group it is a member of; NULL when of none it knows"),
    _column("project", Type.TEXT, "the project that pays; NULL when none matches"),
    _column("owner", Type.TEXT, "the person named by its owner tag; NULL when none is"),
    _column("protected", Type.BOOLEAN, "carries a protection of the cloud or a well-known tag"),
    _column("age_seconds", Type.INTEGER, "since it was first seen or created, whichever is earlier", "s"),
    _column("running_seconds", Type.INTEGER, "since its last start; NULL when not running", "s"),
    _column("ran_seconds", Type.INTEGER, "ran in all since first seen; a restart does not reset it", "s"),
    _column(
        "hourly_cost",
        Type.NUMBER,
        "price of an hour in its state now, of a machine in a cluster without what workloads hold; NULL when not known",
        "per hour",
    ),
    _column("currency", Type.TEXT, "of hourly_cost and cost_to_date"),
    _column("cost_to_date", Type.NUMBER, "metered since first seen", "money"),
    _column("activity", Type.TEXT, "busy or idle by the policy's own profile; NULL when unknown", telemetry=True),
    _column("idle_seconds", Type.INTEGER, "how long every counted GPU has been idle", "s", telemetry=True),
    _over_gpus("busy_gpus", Type.INTEGER, "GPUs busy in the window"),
    _over_gpus("idle_gpus", Type.INTEGER, "GPUs idle in the window"),
    _of_silence("unknown_gpus", Type.INTEGER, "GPUs without enough samples in the window"),
    _of_silence("coverage", Type.NUMBER, "share of the window samples speak for, on the worst GPU", "0..1"),
    _over_gpus("max_utilisation", Type.NUMBER, "highest utilisation of any GPU in the window", "0..1"),
    _over_gpus("max_tensor_active", Type.NUMBER, "highest tensor-core activity in the window", "0..1"),
    _over_gpus("max_dram_active", Type.NUMBER, "highest memory-interface activity in the window", "0..1"),
    _over_gpus("max_power_watts", Type.NUMBER, "highest power draw of any GPU in the window", "W"),
    _over_gpus("max_memory_used_mib", Type.NUMBER, "most GPU memory held in the window", "MiB"),
)

OWN: tuple[Column, ...] = (
    _column("off_now", Type.BOOLEAN, "by the policy's schedule it should be off now"),
    _column("off_soon", Type.BOOLEAN, "by the policy's schedule it should be off one grace from now"),
    _column("on_again", Type.TEXT, "when the schedule switches next, in the project's zone"),
    _column("budget_used", Type.NUMBER, "share of the spend budget spent", "0..1"),
    _column("budget_used_soon", Type.NUMBER, "share spent one grace from now at present rates", "0..1"),
    _column(
        "budget_excess", Type.NUMBER, "hourly cost that must go for the period to end within the budget", "per hour"
    ),
    _column("budget_words", Type.TEXT, "the spend budget's state, for people"),
    _column("claimed_by", Type.TEXT, "the projects that claim it at once; NULL when no more than one does"),
)
"""Facts computed for one policy alone, from its own schedule, spend budget or the projects' claims. No condition of a
person reads them.
"""

BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}
OWN_BY_NAME: Mapping[str, Column] = {column.name: column for column in OWN}
BASE = tuple(column for column in COLUMNS if not column.telemetry)
TELEMETRY = tuple(column for column in COLUMNS if column.telemetry)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Columns of equal length, one entry per resource; `None` is NULL.

    `activity` holds, for each idle profile in use (by its key), the telemetry columns judged by that profile.
    `tags` holds each resource's tags; a condition reads them as `tags['key']`.
    """

    base: Mapping[str, Sequence[Any]]
    activity: Mapping[str, Mapping[str, Sequence[Any]]]
    tags: Sequence[Mapping[str, str]]
    own: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    """Policy name → the columns of `OWN` computed for it."""
    members: Mapping[int, Sequence[int | None]] = field(default_factory=dict)
    """Row of a group → rows of its members; None for a member that the facts do not know."""

    def __len__(self) -> int:
        return len(self.tags)

    def row(self, index: int, profile: str) -> dict[str, Any]:
        """One resource's facts under one profile."""
        values = {name: column[index] for name, column in self.base.items()}
        values |= {name: column[index] for name, column in self.activity[profile].items()}
        return values
