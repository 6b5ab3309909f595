"""What the younger APIs have in common: lists by location, `-` for all of them, and long-running operations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_lists import page
from tests.providers.gcp.cloud_operations import Operation
from tests.providers.gcp.cloud_refusals import Refusal, invalid

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 10, 412: 9, 429: 8, 500: 13, 503: 14}
"""gRPC's number of what HTTP says otherwise."""


class LocationPart:
    """Some of the resources of one service, with what all need."""

    service = ""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def state(self) -> object:
        """What a call could change."""
        return None

    def listed(self, call: Call, things: Mapping[str, Json], field: str, *, most: int | None = 500) -> Json:
        """Those of a location, or of all, without those in places that nobody can reach; `most` of them on a page."""
        self.check_location(call, wild=True)
        prefix = f"projects/{call.project}/locations/"
        here = [
            (path, one) for path, one in things.items()
            if path.startswith(prefix) and call.zone in {"-", path.split("/")[3]}
            and path.split("/")[3] not in self.cloud.down
        ]  # fmt: skip
        size = call.query.get("pageSize", 0)
        if size < 0:
            raise invalid("Page size must not be negative.")
        longest = min(size or most, most, self.cloud.most_per_page) if most is not None else len(here)
        told, token = page(here, most=longest, token=call.query.get("pageToken"), question=call.path)
        answer: Json = {field: [one for _, one in told]} if told else {}
        if call.zone == "-" and self.cloud.down:
            answer["unreachable"] = sorted(f"projects/{call.project}/locations/{zone}" for zone in self.cloud.down)
        return {**answer, "nextPageToken": token} if token else answer

    def check_location(self, call: Call, *, wild: bool = False) -> None:
        if call.zone not in {*self.cloud.zones, *self.cloud.regions, *(["-"] if wild else [])}:
            message = f"Location {call.zone} is not found or access is unauthorized."
            raise Refusal(404, message, reason="notFound")

    def operation(
        self,
        call: Call,
        verb: str,
        target: str,
        *,
        done: Callable[[], object],
        undone: Callable[[], object],
        kind: str,
        answer: Callable[[], Json],
    ) -> Json:
        """Begins one; `answer` is what it has led to, once it is done, in the form of that kind."""
        name = f"projects/{call.project}/locations/{call.zone}/operations/operation-{self.cloud.operations.number()}"
        told: Json = {
            "name": name,
            "metadata": {
                "@type": f"type.googleapis.com/google.cloud.{self.service}.v2.OperationMetadata",
                "createTime": self.stamp(), "target": target, "verb": verb, "apiVersion": "v2",
            },
            "done": False,
        }  # fmt: skip

        def close(operation: Operation) -> None:
            told["done"] = True
            told["metadata"]["endTime"] = self.stamp()
            if (failure := operation.failure) is not None:
                told["error"] = {"code": CODES[failure.status], "message": failure.message}
            else:
                told["response"] = {"@type": f"type.googleapis.com/google.cloud.{self.service}.v2.{kind}", **answer()}

        begun = self.cloud.operations.begin(
            Operation(
                path=name, service=self.service, verb=verb, target=target, told=told, close=close, done=done,
                undone=undone,
            )
        )  # fmt: skip
        return copy.deepcopy(begun.told)

    def operation_told(self, call: Call) -> Json:
        path = f"projects/{call.project}/locations/{call.zone}/operations/{call.names['operationsId']}"
        found = self.cloud.operations.look(path)
        if found is None:
            raise missing(path)
        return found.told

    def stamp(self, at: datetime | None = None) -> str:
        return (at or self.cloud.now()).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def missing(path: str) -> Refusal:
    """As these APIs say that something is not there."""
    return Refusal(404, f"Resource '{path}' was not found", reason="notFound")


def precondition(message: str) -> Refusal:
    return Refusal(400, message, reason="failedPrecondition", canonical="FAILED_PRECONDITION")
