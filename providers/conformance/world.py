"""The adapter a provider's tests implement, so that one suite can arrange any cloud and read its truth.

It never goes through the provider under test: what the provider says is compared with what the world knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from providers.contract import Provider
from providers.records import ResourceRef, Signal, State


class World(Protocol):
    """A cloud of one's own, fresh and empty for every test."""

    @property
    def provider(self) -> Provider:
        """The provider under test, with all rights, reaching at least two parts (regions, zones, namespaces).

        Build it with as few retries as it allows: `throttled` and `unreachable` never end by themselves.
        """
        ...

    @property
    def identity(self) -> str:
        """The account id, subscription id, project id or cluster uid the cloud would name.

        Of a source that sees several accounts: what stands for all of them, and stays when one more is named.
        """
        ...

    def now(self) -> datetime:
        """The cloud's present, timezone-aware UTC."""
        ...

    def machine(
        self,
        *,
        name: str = "trainer",
        gpus: int = 1,
        tags: Mapping[str, str] | None = None,
        protected: bool = False,
        elsewhere: bool = False,
        priced: bool = True,
    ) -> ResourceRef:
        """Start one GPU machine that may be stopped; it runs when this returns. The answer is the ref to expect.

        Where nothing but workloads may be stopped, it is one, alone on a node of its own.
        `protected`: by the cloud's own protection where it has one, else by a well-known tag.
        `elsewhere`: in another part of the source than the machines without it.
        `priced=False`: of a type that the provider has no price for.
        """
        ...

    def machine_without_accelerators(self) -> ResourceRef:
        """Start one machine that is none of our business, in the part of the first machines."""
        ...

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        """Let telemetry know samples of one GPU: (unix seconds, value), in our units (ratios are 0..1).

        The suite pushes only `Signal.UTILISATION`, on full minutes, not later than `now()`.
        """
        ...

    def state(self, ref: ResourceRef) -> State | None:
        """The truth about a machine, asked of the cloud itself; None when it knows none by that id."""
        ...

    def snapshot(self) -> object:
        """Everything a provider could change, as one value that equals itself while nothing was changed."""
        ...

    def settle(self) -> None:
        """Let what is under way (stopping, pending) come to its end: move the clock, or wait."""
        ...

    def vanish(self, ref: ResourceRef) -> None:
        """Remove a machine behind our back, so that the cloud no longer knows its id or calls it terminated."""
        ...

    def read_only(self) -> AbstractContextManager[object]:
        """Within it, the cloud refuses every change for lack of a permission; reading works."""
        ...

    def throttled(self) -> AbstractContextManager[object]:
        """Within it, the cloud answers every call, of every kind, with "too many requests"."""
        ...

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        """Within it, the part where `ref` lives gives no answer; without `ref`, nothing does."""
        ...
