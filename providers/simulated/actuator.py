"""Verbs → changes of the simulated cloud, refused as real clouds refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.errors import Conflict, NotFound, Protected, Unsupported
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb
from providers.simulated.cloud import Machine, SimulatedCloud

VERBS: Mapping[Kind, frozenset[Verb]] = {
    Kind.INSTANCE: frozenset({Verb.STOP, Verb.TERMINATE}),
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
        return {"verb": verb.value, "state": record.state.value}

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str) -> None:
        def change(machine: Machine) -> bool:
            if verb not in VERBS.get(ref.kind, ()):
                raise Unsupported(f"a simulated {ref.kind} knows no {verb}")
            if machine.locked:
                raise Protected(f"{machine.name} refuses to {verb}: disableApiStop is set")
            for blocker in machine.blockers:
                if blocker.verb is verb:
                    raise Unsupported(blocker.sentence)
            return self._cloud.stop(ref.external_id, into=ENDS_IN[verb])

        self._cloud.attempt("act", ref, verb, request_id, change)

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        def change(machine: Machine) -> bool:
            state = machine.state_at(self._cloud.now())
            if state is State.TERMINATED:
                raise NotFound(f"{machine.name} is terminated; nothing brings it back")
            if remembered["state"] not in (State.RUNNING, State.PENDING):
                return False
            if state is State.STOPPING:
                raise Conflict(f"{machine.name} is still stopping")
            return self._cloud.start(ref.external_id)

        self._cloud.attempt("restore", ref, Verb.START, request_id, change)
