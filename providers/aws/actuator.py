"""Turns an intended act into one EC2 call on one instance. Whether to act is not decided, and not re-checked, here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.aws.client import Client
from providers.errors import Unsupported
from providers.records import ResourceRecord, ResourceRef, State, Verb


class Ec2Actuator:
    """Stops and starts instances, each by a call of its own: one bad id fails a whole batch.

    EC2 takes no request id for these calls and needs none, as stopping twice is stopping once.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """The state to return to, and the start it had then, for people to compare."""
        _only_stop(verb)
        return {
            "state": record.state.value,
            "launched_at": record.launched_at.isoformat() if record.launched_at else None,
        }

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str) -> None:
        _only_stop(verb)
        self._client.call("ec2", ref.region, "StopInstances", prompt=True, InstanceIds=[ref.external_id])

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        if remembered.get("state") in (State.STOPPING, State.STOPPED):
            return  # it was down before, so our stop changed nothing
        self._client.call("ec2", ref.region, "StartInstances", prompt=True, InstanceIds=[ref.external_id])


def _only_stop(verb: Verb) -> None:
    if verb is not Verb.STOP:
        raise Unsupported(f"an EC2 instance cannot be told to {verb} yet; stop is possible")
