"""Verbs → changes of the simulated cloud, refused as real clouds refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.errors import Conflict, NotFound, Protected, ProviderError, Unsupported
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef, State, Verb
from providers.simulated.cloud import Group, SimulatedCloud

VERBS: Mapping[Kind, frozenset[Verb]] = {
    Kind.INSTANCE: frozenset({Verb.STOP, Verb.TERMINATE}),
    Kind.NODE_GROUP: frozenset({Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT}),
    Kind.WORKLOAD: frozenset({Verb.SCALE_TO_ZERO, Verb.SUSPEND}),
}

ENDS_IN = {
    Verb.STOP: State.STOPPED,
    Verb.SCALE_TO_ZERO: State.STOPPED,
    Verb.SUSPEND: State.SUSPENDED,
    Verb.TERMINATE: State.TERMINATED,
}


class SimulatedActuator:
    """Changes the world."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        remembered = {"verb": verb.value, "state": record.state.value}
        if record.ref.kind is not Kind.NODE_GROUP:
            return remembered
        group = self._cloud.groups[record.ref.external_id]
        return remembered | {
            "minimum": group.minimum,
            "desired": group.desired,
            "maximum": group.maximum,
            "launches": group.launches.value,
        }

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        def change(machine: Any) -> bool:
            if verb not in VERBS.get(ref.kind, ()):
                raise Unsupported(f"a simulated {ref.kind} knows no {verb}")
            if isinstance(machine, Group):
                return self._regroup(machine, verb)
            if machine.locked:
                raise Protected(f"{machine.name} refuses to {verb}: disableApiStop is set")
            for blocker in machine.blockers:
                if blocker.verb is verb:
                    raise Unsupported(blocker.sentence)
            return self._cloud.stop(ref.external_id, into=ENDS_IN[verb])

        self._cloud.attempt("act", ref, verb, request_id, change)

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        def change(machine: Any) -> bool:
            if isinstance(machine, Group):
                return self._put_back(machine, remembered)
            state = machine.state_at(self._cloud.now())
            if state is State.TERMINATED:
                raise NotFound(f"{machine.name} is terminated; nothing brings it back")
            if remembered["state"] not in (State.RUNNING, State.PENDING):
                return False
            if state is State.STOPPING:
                raise Conflict(f"{machine.name} is still stopping")
            return self._cloud.start(ref.external_id)

        self._cloud.attempt("restore", ref, Verb.START, request_id, change)

    def failures(self, acts: Mapping[str, ResourceRef]) -> Mapping[str, ProviderError]:
        return {request: self._cloud.failed_late[request] for request in acts if request in self._cloud.failed_late}

    def limit_run(self, ref: ResourceRef, seconds: int | None, *, request_id: str) -> None:
        machine = self._cloud.machines[ref.external_id]
        self._cloud.meet("act", ref.region, ref.external_id)
        if machine.state_at(self._cloud.now()) is not State.STOPPED:
            raise Conflict(f"{machine.name} is not stopped")
        machine.run_limit_seconds = seconds

    def _regroup(self, group: Group, verb: Verb) -> bool:
        if group.locked:
            raise Protected(f"{group.name} refuses to {verb}: disableApiStop is set")
        if verb is Verb.SCALE_TO_ZERO:
            return self._cloud.resize(group.name, 0, minimum=0, maximum=group.maximum)
        before, group.launches = group.launches, CapacityType.SPOT
        return before is not group.launches

    def _put_back(self, group: Group, remembered: Mapping[str, Any]) -> bool:
        if remembered["verb"] == Verb.MOVE_TO_SPOT:
            before, group.launches = group.launches, CapacityType(remembered["launches"])
            return before is not group.launches
        if (group.minimum, group.desired) != (0, 0):
            return False  # somebody has set its sizes since
        return self._cloud.resize(
            group.name, remembered["desired"], minimum=remembered["minimum"], maximum=remembered["maximum"]
        )
