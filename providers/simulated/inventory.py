"""Simulated machines → records. The list asks less than `describe`, as on real clouds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from providers.errors import ProviderError
from providers.records import (
    Blocker,
    CapacityType,
    InventoryAnswer,
    Loss,
    LossName,
    PartReport,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)
from providers.simulated.catalogue import Sku
from providers.simulated.cloud import Group, Machine, SimulatedCloud

PROTECT_TAG = "curfew-protect"
TERMINATED_IS_LISTED_FOR = timedelta(hours=1)


class SimulatedInventory:
    """Sees resources."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud
        self._listed: dict[ResourceRef, ResourceRecord] = {}

    def list(self) -> InventoryAnswer:
        cloud = self._cloud
        with cloud.lock:
            now = cloud.present()
            records: list[ResourceRecord] = []
            parts: list[PartReport] = []
            for region in cloud.regions:
                try:
                    cloud.meet("list", region)
                except ProviderError as error:
                    parts.append(PartReport(part=region, complete=False, fault=error.as_fault()))
                    continue
                parts.append(PartReport(part=region, complete=True))
                records += [
                    self._as_listed(self._record(machine, now, fully=False))
                    for machine in cloud.machines.values()
                    if machine.region == region and machine.sku.gpus and not _forgotten(machine, now)
                ]
                records += [
                    self._group(group, now, fully=False) for group in cloud.groups.values() if group.region == region
                ]
            self._listed = {record.ref: record for record in records}
            return InventoryAnswer(identity=cloud.account, records=tuple(records), parts=tuple(parts))

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        with self._cloud.lock:
            now = self._cloud.present()
            self._cloud.meet("describe", ref.region, ref.external_id)
            thing = self._cloud.find(ref)
            if isinstance(thing, Group):
                return self._group(thing, now, fully=True)
            return self._record(thing, now, fully=True)

    def _as_listed(self, record: ResourceRecord) -> ResourceRecord:
        """Who did not change keeps the record of the last listing, as with the real clouds."""
        before = self._listed.get(record.ref)
        return before if before == record else record

    def _group(self, group: Group, now: datetime, *, fully: bool) -> ResourceRecord:
        members = self._cloud.members(group)
        sku = group.sku
        return ResourceRecord(
            ref=self._cloud.ref(group),
            incarnation=group.name,
            name=group.name,
            zone=None,
            sku=sku.name,
            gpu_vendor=sku.vendor,
            gpu_model=sku.model,
            gpu_count=sum(machine.sku.gpus for machine in members),
            gpu_memory_mib=sku.memory_mib,
            capacity_type=group.launches,
            state=_group_state(group, [machine.state_at(now) for machine in members]),
            tags=dict(group.tags),
            members=tuple(machine.external_id for machine in members),
            protections=_locked(group.tags, locked=fully and group.locked),
            blockers=_already_spot(group),
            losses=_members_lost(members),
            fully_described=fully,
        )

    def _record(self, machine: Machine, now: datetime, *, fully: bool) -> ResourceRecord:
        sku = machine.sku
        return ResourceRecord(
            ref=self._cloud.ref(machine),
            incarnation=machine.external_id if self._cloud.provider == "aws" else f"{machine.created_at:%Y%m%dT%H%M%S}",
            name=machine.name or machine.external_id,
            zone=machine.zone,
            sku=sku.name,
            gpu_vendor=sku.vendor,
            gpu_model=sku.model,
            gpu_count=sku.gpus,
            gpu_memory_mib=sku.memory_mib,
            capacity_type=machine.capacity_type,
            state=machine.state_at(now),
            launched_at=machine.launched_at,
            created_at=machine.created_at,
            tags=dict(machine.tags),
            managed_by=machine.managed_by,
            powered_off=machine.powered_off,
            run_limit_seconds=machine.run_limit_seconds,
            protections=_protections(machine, locks=fully),
            blockers=machine.blockers,
            losses=machine.losses + _losses(machine.sku),
            fully_described=fully,
        )


def _forgotten(machine: Machine, now: datetime) -> bool:
    since, state = machine.history[-1]
    return state is State.TERMINATED and since + TERMINATED_IS_LISTED_FOR <= now


def _group_state(group: Group, members: Sequence[State]) -> State:
    if group.desired == 0:
        return State.STOPPING if members else State.STOPPED
    return State.RUNNING if State.RUNNING in members else State.PENDING


def _already_spot(group: Group) -> tuple[Blocker, ...]:
    if group.launches is not CapacityType.SPOT:
        return ()
    sentence = "it launches spot machines already; others leave as they are replaced"
    return (Blocker(verb=Verb.MOVE_TO_SPOT, code="AlreadySpot", sentence=sentence),)


def _members_lost(members: Sequence[Machine]) -> tuple[Loss, ...]:
    if not members:
        return ()
    sentence = f"its {len(members)} machines are terminated, with their disks; new ones come when it is put back"
    return (Loss(verb=Verb.SCALE_TO_ZERO, name=LossName.GROUP_MEMBERS, sentence=sentence),)


def _protections(machine: Machine, *, locks: bool) -> tuple[Protection, ...]:
    return machine.protections + _locked(machine.tags, locked=locks and machine.locked)


def _locked(tags: Mapping[str, str], *, locked: bool) -> tuple[Protection, ...]:
    found: list[Protection] = []
    if PROTECT_TAG in tags:
        value = tags[PROTECT_TAG]
        found.append(
            Protection(source=PROTECT_TAG, sentence=f"its tag {PROTECT_TAG} is {value!r}", until=_end_of(value))
        )
    if locked:
        found.append(Protection(source="disableApiStop", sentence="its cloud refuses to stop it (disableApiStop)"))
    return tuple(found)


def _end_of(value: str) -> datetime | None:
    """A marker may name its own end; one that does not protects for ever."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@cache
def _losses(sku: Sku) -> tuple[Loss, ...]:
    terminated = Loss(verb=Verb.TERMINATE, name=LossName.TERMINATE, sentence="the machine and its disks are gone")
    if not sku.local_disks:
        return (terminated,)
    disks = Loss(
        verb=Verb.STOP,
        name=LossName.LOCAL_DISKS,
        sentence=f"a {sku.name} has local disks; what is on them is lost when it stops",
    )
    return disks, terminated
