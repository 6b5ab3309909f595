"""What all price lists have in common: rates in whole micro-units, how long an answer counts, the words for what a list
price is not. Whom to ask, and what machines are made of, is each cloud's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Generic, TypeVar

from providers.errors import ProviderError
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef

MICROS = 1_000_000
ASK_AGAIN = timedelta(minutes=10)
"""After a failure: a permission that is missing stays missing for a while, and a throttled API wants a rest."""

NOT_ITS_OWN = {
    CapacityType.SPOT: "upper bound for spot",
    CapacityType.RESERVED: "what the reservation costs is not known",
    CapacityType.CAPACITY_BLOCK: "what the capacity block cost is not known",
    CapacityType.FLEX_START: "its own rate is not known",
    CapacityType.UNKNOWN: "how it is billed is not known",
}
"""Capacity that is priced on demand for want of its own price."""

Key = tuple[str, str, str]
"""(account, place, what). The first is empty where a price is everybody's."""
EVERYBODY = ""
Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """What a cloud says an hour costs, and since when."""

    micros: int
    currency: str
    since: date


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry(Generic[Told]):
    """The last answer about one key, and when to ask again."""

    told: Told | None
    usable_until: datetime
    ask_again: datetime
    why_none: str


class Memory(Generic[Told]):
    """What one price service told. An answer outlives failures to renew it, but not for ever."""

    def __init__(self, name: str, *, holds: timedelta, usable: timedelta) -> None:
        self.name = name
        self._holds = holds
        self._usable = usable
        self._entries: dict[Key, Entry[Told]] = {}

    def due(self, keys: Iterable[Key], now: datetime) -> list[Key]:
        """Those to ask about now, each once."""
        return sorted(key for key in set(keys) if key not in self._entries or self._entries[key].ask_again <= now)

    def answered(self, asked: Iterable[Key], told: Mapping[Key, Told], now: datetime) -> None:
        for key in asked:
            self._entries[key] = Entry(
                told=told.get(key),
                usable_until=now + self._usable,
                ask_again=now + self._holds,
                why_none=f"{self.name} has none of it for {key[1]}",
            )

    def failed(self, asked: Iterable[Key], error: ProviderError, now: datetime) -> None:
        needs = f", it needs {error.permission}" if error.permission else ""
        why = f"{self.name} did not answer ({error.code}{needs})"
        for key in asked:
            none: Entry[Told] = Entry(told=None, usable_until=now, ask_again=now, why_none=why)
            self._entries[key] = replace(self._entries.get(key, none), ask_again=now + ASK_AGAIN, why_none=why)

    def told(self, key: Key, now: datetime) -> Told | None:
        entry = self._entries.get(key)
        return entry.told if entry is not None and now < entry.usable_until else None

    def why_none(self, key: Key) -> str:
        """In words, why `told` has no answer; empty when it was never asked."""
        entry = self._entries.get(key)
        return entry.why_none if entry is not None else ""


def quoted(
    records: Iterable[ResourceRecord],
    alike: Callable[[ResourceRecord], Hashable],
    prices: Callable[[Sequence[ResourceRecord]], Sequence[Price | None]],
) -> Mapping[ResourceRef, Price]:
    """What each costs. `prices` is asked for one of each sort; `alike` says what a price depends on."""
    counted = [record for record in records if record.ref.kind.counted]  # a group costs what its members cost
    examples = {alike(record): record for record in counted}
    priced = dict(zip(examples, prices([*examples.values()]), strict=True))
    found = ((record.ref, priced[alike(record)]) for record in counted)
    return {ref: price for ref, price in found if price is not None}


def to_micros(amount: Decimal | Fraction) -> int:
    """To the nearest micro-unit, ties to even."""
    return round(Fraction(amount) * MICROS)
