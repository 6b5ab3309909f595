"""What takes a while: operations begin with a call, and end after some looks at them, or when `settle()` is called."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an operation ends that was accepted and did not succeed."""

    code: str
    message: str
    status: int = 400
    """The one of HTTP that comes nearest."""


def no_capacity(zone: str, *, project: str = "research") -> Failure:
    """How a start ends where Google has no such machine left."""
    message = (
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request.  "
        "Try a different zone, or try again later."
    )
    return Failure(code="ZONE_RESOURCE_POOL_EXHAUSTED", message=message, status=503)


@dataclass(kw_only=True)
class Operation:
    path: str
    """Where it is looked up: `projects/…/zones/…/operations/…`."""
    service: str
    verb: str
    target: str
    """The path of what it acts on."""
    told: Json
    """As it is answered now."""
    close: Callable[[Operation], None]
    """Writes its end into `told`, in the manner of its API."""
    done: Callable[[], object]
    undone: Callable[[], object]
    failure: Failure | None = None
    looks: int | None = 1


@dataclass
class Operations:
    """All there ever were. `looks` is how often a new one is looked at until it has ended; None: until `settle()`."""

    looks: int | None = 1
    begun: dict[str, Operation] = field(default_factory=dict)
    _under_way: dict[str, Operation] = field(default_factory=dict)
    _failing: list[tuple[str, str | None, Failure]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(7_000_000_000_000_000_001))

    def number(self) -> str:
        """A numeric id that nothing else has."""
        return str(next(self._numbers))

    def fail_next(self, verb: str, failure: Failure, *, target: str | None = None) -> None:
        """The next operation of that kind (`start`, `resize`, …), on that target if one is named, fails at its end."""
        self._failing.append((verb, target, failure))

    def begin(self, operation: Operation) -> Operation:
        operation.looks = self.looks
        for planned in self._failing:
            verb, target, failure = planned
            if verb == operation.verb and target in (None, operation.target):
                self._failing.remove(planned)
                operation.failure = failure
                break
        self.begun[operation.path] = self._under_way[operation.path] = operation
        return operation

    def look(self, path: str) -> Operation | None:
        operation = self.begun.get(path)
        if operation is not None and operation.looks is not None:
            operation.looks -= 1
            if operation.looks <= 0:
                self.end(operation)
        return operation

    def under_way(self, target: str) -> Operation | None:
        return next((one for one in self._under_way.values() if one.target == target), None)

    def settle(self) -> None:
        """All that is under way ends, and what begins with its end."""
        while self._under_way:
            self.end(next(iter(self._under_way.values())))

    def end(self, operation: Operation) -> None:
        if self._under_way.pop(operation.path, None) is None:
            return
        (operation.done if operation.failure is None else operation.undone)()
        operation.close(operation)
