"""Stops machines and starts them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curfew_rentals.client import Client
from curfew_rentals.translate import Machine
from providers.errors import Unsupported
from providers.records import ResourceRecord, ResourceRef, State, Verb


class RentalsActuator:
    """Changes the world."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return {"state": record.state.value}

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        if verb is not Verb.STOP:
            raise Unsupported(f"a rented machine knows no {verb}")
        self._client.post(_path(ref, "stop"), Machine, request_id=request_id, body={"note": reason})

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        if remembered["state"] in (State.RUNNING, State.PENDING):
            self._client.post(_path(ref, "start"), Machine, request_id=request_id, body={})


def _path(ref: ResourceRef, what: str) -> str:
    return f"/v1/machines/{ref.external_id}/{what}"
