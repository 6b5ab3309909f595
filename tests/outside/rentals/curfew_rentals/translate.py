"""Turns the API's machines into records. Pure: what cannot be said from the answer alone does not belong here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC

from pydantic import AwareDatetime, BaseModel

from providers.protections import tag_protections
from providers.records import (
    Blocker,
    CapacityType,
    Kind,
    Loss,
    LossName,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)

STATES = {
    "booting": State.PENDING,
    "running": State.RUNNING,
    "stopping": State.STOPPING,
    "stopped": State.STOPPED,
    "deleted": State.TERMINATED,
}
PLANS = {
    "hourly": CapacityType.ON_DEMAND,
    "spot": CapacityType.SPOT,
    "reserved": CapacityType.RESERVED,
}
MODELS = {
    "NVIDIA L4": ("nvidia", "L4"),
    "NVIDIA H100 80GB": ("nvidia", "H100"),
    "AMD Instinct MI300X": ("amd", "MI300X"),
}


class Machine(BaseModel):
    """As the API tells it."""

    id: str
    site: str
    name: str
    type: str
    gpu: str
    gpus: int
    gpu_memory_mib: int
    plan: str
    state: str
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    tags: Mapping[str, str]
    locked: bool
    pool: str | None
    scratch_gb: int


def record(account: str, machine: Machine) -> ResourceRecord:
    """Everything the API knows of a machine it tells in lists too, so each is fully described."""
    vendor, model = MODELS.get(machine.gpu, (None, machine.gpu))
    return ResourceRecord(
        ref=ResourceRef(
            provider="rentals",
            account=account,
            region=machine.site,
            kind=Kind.INSTANCE,
            external_id=machine.id,
        ),
        incarnation=machine.id,  # the company gives no id twice
        name=machine.name,
        zone=None,
        sku=machine.type,
        gpu_vendor=vendor,
        gpu_model=model,
        gpu_count=machine.gpus,
        gpu_memory_mib=machine.gpu_memory_mib,
        capacity_type=PLANS.get(machine.plan, CapacityType.UNKNOWN),
        state=STATES.get(machine.state, State.UNKNOWN),
        launched_at=machine.started_at.astimezone(UTC) if machine.started_at else None,
        created_at=machine.created_at.astimezone(UTC),
        tags=machine.tags,
        managed_by=f"pool:{machine.pool}" if machine.pool else None,
        protections=tuple(_protections(machine)),
        blockers=tuple(_blockers(machine)),
        losses=tuple(_losses(machine)),
        fully_described=True,
    )


def _protections(machine: Machine) -> Iterable[Protection]:
    if machine.locked:
        yield Protection(source="locked", sentence="it is locked against stopping")
    yield from tag_protections(machine.tags)


def _blockers(machine: Machine) -> Iterable[Blocker]:
    if machine.plan == "spot":
        yield Blocker(verb=Verb.STOP, code="SpotEnds", sentence="the company keeps a spot machine that stops")


def _losses(machine: Machine) -> Iterable[Loss]:
    if machine.scratch_gb:
        erased = f"its scratch disk of {machine.scratch_gb} GB is erased"
        yield Loss(verb=Verb.STOP, name=LossName.LOCAL_DISKS, sentence=erased)
