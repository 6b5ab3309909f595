"""Asks Azure what its VM sizes come with: all sizes of a location at once, when one is met that is not known.

What the answers mean is `translate`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from threading import Lock

from providers.azure import translate
from providers.azure.client import Client
from providers.azure.listing import items
from providers.azure.translate import MachineType
from providers.errors import NotFound, ProviderError, Unsupported
from providers.questions import readable
from providers.records import Fault

VERSION = "2021-07-01"
TOLD_HOLDS = timedelta(hours=6)
"""How long a location that did not know a size is not asked for it again: its list is a megabyte, and moves rarely."""
WAIT_SECONDS = 5.0
"""For another subscription that asks for the same location already. Then both ask."""


class MachineTypes:
    """What Azure said of its sizes. They never change, so each is told once for all subscriptions and locations."""

    def __init__(self, client: Client, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._types: dict[str, MachineType] = {}
        """By name in small letters."""
        self._told: dict[tuple[str, str], datetime] = {}
        """When a location was told, by subscription: some sizes are shown to some only."""
        self._turns: dict[str, Lock] = {}
        self._lock = Lock()

    def get(self, sku: str) -> MachineType | None:
        return self._types.get(sku.lower())

    def type_of(self, sku: str) -> MachineType | None:
        """Azure's word before the built-in table's."""
        return self.get(sku) or fallback(sku)

    def learn(self, subscription: str, wanted: Mapping[str, Collection[str]]) -> Mapping[str, Fault]:
        """Asks for sizes by the location they are used in, those that are not known yet. Answers what failed, and why,
        by the size in small letters."""
        unanswered: dict[str, Fault] = {}
        for place, skus in wanted.items():
            if not self._unknown(skus):
                continue
            turn = self._turn(place)
            mine = turn.acquire(timeout=WAIT_SECONDS)
            try:
                unknown = self._unknown(skus)
                if unknown and not self._lately(subscription, place):
                    self._ask(subscription, place)
            except ProviderError as error:
                unanswered |= dict.fromkeys(unknown, error.as_fault())
            finally:
                if mine:
                    turn.release()
        return unanswered

    def one(self, subscription: str, place: str, sku: str) -> MachineType:
        """Raises rather than leave it open whether a machine of an accelerated family has accelerators."""
        failure = self.learn(subscription, {place: {sku}}).get(sku.lower())
        found = self.type_of(sku)
        if found is None and translate.may_have_accelerators(sku):
            # not NotFound: that would read as if the machine were gone
            cause = f": {failure.sentence}" if failure else ""
            raise Unsupported(f"Azure in {place} does not tell what the size {sku or 'without a name'!r} has{cause}")
        return found or translate.PLAIN

    def _unknown(self, skus: Collection[str]) -> set[str]:
        return {sku.lower() for sku in skus if sku} - self._types.keys()

    def _lately(self, subscription: str, place: str) -> bool:
        told = self._told.get((subscription, place))
        return told is not None and timedelta() <= self._now() - told < TOLD_HOLDS

    def _turn(self, place: str) -> Lock:
        with self._lock:
            return self._turns.setdefault(place, Lock())

    def _ask(self, subscription: str, place: str) -> None:
        path = f"/subscriptions/{subscription}/providers/Microsoft.Compute/skus"
        with readable(path):
            for answer in items(self._client, path, version=VERSION, query={"$filter": f"location eq '{place}'"}):
                if answer.get("resourceType") == "virtualMachines":
                    machine = translate.machine_type(answer)
                    if machine is not None:
                        self._types[answer["name"].lower()] = machine
        self._told[subscription, place] = self._now()


def fallback(sku: str) -> MachineType | None:
    """Of a size that Azure did not tell."""
    return translate.builtin_types().get(sku.lower())


def fault_of(builtin: Collection[str], unjudged: Collection[str], unanswered: Mapping[str, Fault]) -> Fault | None:
    """Says which machines rest on the built-in table, and which were left out for want of a row there."""
    if not builtin and not unjudged:
        return None
    concerned = sorted({*builtin, *unjudged})
    cause = next((unanswered[sku.lower()] for sku in concerned if sku.lower() in unanswered), None)
    sentence = cause.sentence if cause else "Azure's Resource SKUs do not tell of every VM size in use"
    if builtin:
        sentence += f"; the built-in table of VM sizes was used for {', '.join(sorted(builtin))}"
    if unjudged:
        names = ", ".join(sku or "(without a name)" for sku in sorted(unjudged))
        sentence += f"; machines of {len(unjudged)} sizes it lacks were left out: {names}"
    return Fault(
        code=cause.code if cause else NotFound.code,
        sentence=sentence,
        permission=cause.permission if cause else None,
    )
