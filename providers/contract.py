"""What a provider is: a few small Protocols, declared capabilities, and the value that holds them together.

Every method is synchronous, may be called from several threads, raises only `providers.errors`, and keeps no
state that matters across a restart. What each must do is tested by `providers.conformance`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from providers.errors import Misconfigured, ProviderError
from providers.records import (
    InventoryAnswer,
    Kind,
    Price,
    ResourceRecord,
    ResourceRef,
    TelemetryAnswer,
    Verb,
)


class Inventory(Protocol):
    """Sees resources."""

    def list(self) -> InventoryAnswer:
        """All resources with accelerators, in every part of the source.

        A part that fails is reported in `parts` and sinks no other. Raises only when nothing at all could be
        asked (no credentials, unknown account).
        """
        ...

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One resource, fresh and `fully_described`: read back from the cloud, never from a cache.

        Raises NotFound when the cloud says by id that it does not exist (a `terminated` record is also an answer).
        """
        ...


class Telemetry(Protocol):
    """Sees what GPUs did."""

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """Every known series of these resources with samples in [start, end).

        Failure of one part is a fault in the answer. Sentinels (>= 9.22e18) and NaN are already dropped.
        Absence is never filled in.
        """
        ...


class Prices(Protocol):
    """Knows what an hour costs."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """Rates while *running*, for those it knows. A resource it has no price for is left out, never zero."""
        ...


class Actuator(Protocol):
    """Changes the world. Each call is one attempt on one resource; it returns once the cloud accepted it."""

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """What `restore` needs to undo `verb`, as plain JSON. Stored before the act.

        May ask the cloud (the sizes and suspended processes of a group), and then raises as `act` does. `final: true`
        in it says that nothing brings back what is stopped.
        """
        ...

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        """Ask the cloud for `verb`. Done already = success. The same `request_id` twice = once.

        `reason` is a sentence for people; a cloud that has a place for it (an annotation, an event) shows it there.

        Raises NotFound, Protected, Unsupported, Conflict, Forbidden, Throttled, Unreachable. After Unreachable the
        outcome is unknown: the caller reads the truth back with `Inventory.describe`.
        """
        ...

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        """Put back what `remember` stored. Restored already = success. Raises NoCapacity when the cloud has none."""
        ...


class Operations(Protocol):
    """Knows what became of acts that a cloud accepts first and carries out by itself."""

    def failures(self, acts: Mapping[str, ResourceRef]) -> Mapping[str, ProviderError]:
        """Of these acts (by the request id they were asked with) those that have failed since, and why.

        Asked for all of them together. What is still under way, done, or cannot be told is left out. Never raises.
        """
        ...


class RunLimits(Protocol):
    """Lets a cloud itself end runs that last too long, where it can."""

    def limit_run(self, ref: ResourceRef, seconds: int | None, *, request_id: str) -> None:
        """Of a machine that is stopped: how long each run from the next one on may last. None: for as long as it likes.

        Set already = success. Raises as `Actuator.act` does; Conflict when it is not stopped.
        """
        ...


def _nothing() -> None:
    """Most providers keep nothing open, and see nothing between looks."""


def _anything(_host: str) -> bool:
    """Outside a service nobody forbids anything."""
    return True


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a provider declares about itself; the plan chooses only among these."""

    verbs: Mapping[Kind, frozenset[Verb]]
    act_timeout_seconds: int = 60
    """Longest time one `act` or `restore` may take, retries included. No call is started with less lease left."""
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One source, ready to be asked. A part that a source does not have (a Prometheus has no inventory) is None."""

    name: str
    capabilities: Capabilities
    inventory: Inventory | None = None
    telemetry: Telemetry | None = None
    prices: Prices | None = None
    actuator: Actuator | None = None
    operations: Operations | None = None
    """Only where a cloud accepts an act before it is done, and may fail in it later."""
    run_limits: RunLimits | None = None
    """Only where a cloud ends runs by itself."""
    close: Callable[[], None] = _nothing
    """Called once nobody will ask it again: ends what it keeps open (watches, connections). Never waits."""


def _no_secret(name: str) -> str:
    raise Misconfigured(f"there is no secret {name}")


@dataclass(frozen=True, kw_only=True)
class BuildContext:
    """What the service lends a provider when it is built."""

    source: str
    """The source's name, for messages."""
    now: Callable[[], datetime]
    """The service's clock; accelerated only in the demo."""
    may_reach: Callable[[str], bool] = _anything
    """Whether a host that a file of the source's names (a kubeconfig) may be asked."""
    allow_exec: bool = False
    """Whether programs that such a file names may be run to log in."""
    secret: Callable[[str], str] = _no_secret
    """A secret of the installation by its name, as it is now: one that is renewed is asked for each time. Raises
    Misconfigured when there is none."""
    changed: Callable[[], None] = _nothing
    """To be called when something is seen that may change a verdict, as a new protection: the service looks soon."""
