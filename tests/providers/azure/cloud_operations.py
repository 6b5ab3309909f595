"""What takes a while: operations begin with a call, and end after some looks at them, or when `settle()` is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an operation ends that was accepted and did not succeed."""

    code: str
    message: str
    status: str = "Failed"


PREEMPTED = Failure(
    code="OperationPreempted", message="The operation has been preempted by a more recent operation.", status="Canceled"
)
NO_ROOM = Failure(
    code="AllocationFailed",
    message=(
        "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. Read more "
        "about improving likelihood of allocation success at https://aka.ms/allocation-guidance"
    ),
)


@dataclass(kw_only=True)
class Operation:
    id: str
    path: str
    """Where its status is: `/subscriptions/…/providers/Microsoft.Compute/locations/…/operations/…`."""
    verb: str
    """`deallocate`, `start`, `powerOff`, `delete`, …"""
    target: str
    """The id of what it acts on, in small letters."""
    begun: str
    done: Callable[[], object]
    undone: Callable[[], object]
    result: Callable[[], Json | None] = lambda: None
    """What its `Location` answers in the end."""
    failure: Failure | None = None
    looks: int | None = 1
    ended: str | None = None

    def told(self) -> Json:
        """Its status, as it is now."""
        told: Json = {"name": self.id, "startTime": self.begun, "status": "InProgress"}
        if self.ended is not None:
            told.update(status=self.failure.status if self.failure else "Succeeded", endTime=self.ended)
            if self.failure is not None:
                told["error"] = {"code": self.failure.code, "message": self.failure.message}
        return told


@dataclass
class Operations:
    """All there ever were. `looks` is how often a new one is looked at until it has ended; None: until `settle()`."""

    now: Callable[[], str]
    looks: int | None = 1
    retry_after: int | None = 10
    """Seconds that Azure asks for between looks."""
    begun: dict[str, Operation] = field(default_factory=dict)
    """By id."""
    _failing: list[tuple[str, str | None, Failure]] = field(default_factory=list)

    def fail_next(self, verb: str, failure: Failure, *, target: str | None = None) -> None:
        """The next operation of that kind (`start`, `delete`, …), on that target if one is named, fails at its end."""
        self._failing.append((verb, target.lower() if target else None, failure))

    def begin(self, operation: Operation) -> Operation:
        operation.looks = self.looks
        for planned in self._failing:
            verb, target, failure = planned
            if verb == operation.verb and target in (None, operation.target):
                self._failing.remove(planned)
                operation.failure = failure
                break
        self.begun[operation.id] = operation
        return operation

    def look(self, operation: Operation) -> Operation:
        if operation.looks is not None:
            operation.looks -= 1
            if operation.looks <= 0:
                self.end(operation)
        return operation

    def under_way(self, target: str) -> Operation | None:
        return next((one for one in self.begun.values() if one.target == target.lower() and one.ended is None), None)

    def settle(self) -> None:
        """All that is under way ends, and what begins with its end."""
        while under_way := [operation for operation in self.begun.values() if operation.ended is None]:
            for operation in under_way:
                self.end(operation)

    def end(self, operation: Operation) -> None:
        if operation.ended is None:
            operation.ended = self.now()
            (operation.done if operation.failure is None else operation.undone)()
