"""Asks every source what it has, what that costs and what its GPUs did. One that fails or hangs sinks no other.

Runs with no transaction open. What could not be asked is reported as such; it is never an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import TypeVar, cast

import structlog

from providers.errors import ProviderError, Unreachable
from providers.records import (
    Fault,
    InventoryAnswer,
    PartReport,
    Price,
    ResourceRecord,
    ResourceRef,
    Series,
    State,
    resource_id,
)
from service.asking import Asked, ask, wait_for
from service.fleet import Member
from service.model import SourceAnswer, Telemetry
from service.pipeline.samples import SampleMemory

log = structlog.get_logger()
T = TypeVar("T")

PATIENCE = 75.0
"""Real seconds a source has for its listing, and once more for its prices and samples. Longer than a provider waits for
one of its own parts (AWS: 60), so that a region that hangs is missing alone; and twice that is within a cycle's lease.
"""

LISTING, PRICES, TELEMETRY = "listing", "prices", "telemetry"
Prices = Mapping[ResourceRef, Price]
Sampled = tuple[SampleMemory, tuple[PartReport, ...]]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Everything the sources said in one look."""

    answers: tuple[SourceAnswer, ...]
    quotes: Prices
    series: Mapping[str, tuple[Series, ...]]
    """Resource id → series."""
    ambiguous: frozenset[str]

    def telemetry(self, prior_idle: Mapping[tuple[str, str], datetime]) -> Telemetry:
        faults = tuple(part for answer in self.answers for part in answer.missing if part.part != PRICES)
        return Telemetry(series=self.series, ambiguous=self.ambiguous, faults=faults, prior_idle=prior_idle)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SeriesById(Mapping[str, tuple[Series, ...]]):
    """Resource id → its series, read where they are remembered: a fleet's samples are there once, for this look and for
    the next one, while which this one is still read from. What came after its moment does not count in it."""

    refs: Mapping[str, ResourceRef]
    memories: Sequence[SampleMemory]

    def __getitem__(self, resource_id: str) -> tuple[Series, ...]:
        ref = self.refs[resource_id]
        found = tuple(chain.from_iterable(memory.of(ref) for memory in self.memories))
        if not found:
            raise KeyError(resource_id)
        return found

    def __iter__(self) -> Iterator[str]:
        return (resource_id for resource_id in self.refs if resource_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def collect(
    members: Iterable[Member],
    *,
    identities: Mapping[str, str],
    memories: dict[str, SampleMemory],
    window: timedelta,
    now: datetime,
) -> Collected:
    """One look at every source, side by side: first what there is, then what that costs and does."""
    members = list(members)
    for member in members:
        _ask_listing(member, now)
    _wait(members)
    answers = tuple(_listed(member, identities.get(member.source.name)) for member in members)
    usable = {a.source: a.answer.records for a in answers if a.answer is not None and not a.identity_changed}
    everything = [record for records in usable.values() for record in records]

    for member in members:
        _ask_prices(member, usable.get(member.source.name, ()), now)
        _ask_telemetry(member, memories, _sampled(member, usable, everything), window, now)
    _wait(members)
    quotes: dict[ResourceRef, Price] = {}
    faults: dict[str, tuple[PartReport, ...]] = {}
    for member in members:
        prices, unpriced = _quoted(member)
        quotes |= prices
        faults[member.source.name] = _unsampled(member, memories) + unpriced

    ids = {record.ref: resource_id(record.ref, record.incarnation) for record in everything}
    sampled = [memories[member.source.name] for member in members if member.source.name in memories]
    return Collected(
        answers=tuple(replace(answer, missing=faults[answer.source]) for answer in answers),
        quotes=quotes,
        series=SeriesById(refs={id: ref for ref, id in ids.items()}, memories=sampled),
        ambiguous=frozenset(ids[ref] for memory in sampled for ref in memory.ambiguous if ref in ids),
    )


# what there is


def _ask_listing(member: Member, now: datetime) -> None:
    """A listing that came after its look is not used: it may tell of a time before something that was done since."""
    if member.provider is not None and member.provider.inventory is not None and not _hangs(member, LISTING):
        _ask(member, LISTING, member.provider.inventory.list, now)


def _listed(member: Member, identity: str | None) -> SourceAnswer:
    name = member.source.name
    if member.provider is None:
        return SourceAnswer(source=name, fault=member.fault, identity=identity)
    if member.provider.inventory is None:
        return SourceAnswer(source=name, identity=identity)
    found: InventoryAnswer | Fault = _answer(member, LISTING)
    if isinstance(found, Fault):
        return SourceAnswer(source=name, fault=found, identity=identity)
    return SourceAnswer(source=name, answer=found, identity=identity)


# what that costs


def _ask_prices(member: Member, records: Sequence[ResourceRecord], now: datetime) -> None:
    records = tuple(record for record in records if record.ref.kind.counted)
    if records and member.provider is not None and member.provider.prices is not None and not _hangs(member, PRICES):
        _ask(member, PRICES, partial(member.provider.prices.quote, records), now)


def _quoted(member: Member) -> tuple[Prices, tuple[PartReport, ...]]:
    """Resources whose prices nobody told keep those they had."""
    if PRICES not in member.asked:
        return {}, ()
    found: Prices | Fault = _answer(member, PRICES)
    return ({}, (_failed(PRICES, found),)) if isinstance(found, Fault) else (found, ())


# what its GPUs did


def _sampled(
    member: Member, usable: Mapping[str, tuple[ResourceRecord, ...]], everything: list[ResourceRecord]
) -> list[ResourceRecord]:
    """Running resources a source can say something of: its own, or everybody's when it has no inventory."""
    own = member.provider is not None and member.provider.inventory is not None
    records = usable.get(member.source.name, ()) if own else everything
    return [record for record in records if record.state is State.RUNNING and record.ref.kind.counted]


def _ask_telemetry(
    member: Member,
    memories: dict[str, SampleMemory],
    records: list[ResourceRecord],
    window: timedelta,
    now: datetime,
) -> None:
    """Lends the memory of its samples to the thread that asks: nobody else reads or writes it until it is back."""
    if member.provider is None or member.provider.telemetry is None or _hangs(member, TELEMETRY):
        return
    if TELEMETRY in member.asked:  # it came too late for the look that asked for it
        _unsampled(member, memories)
    if not records:
        return
    memory = memories.pop(member.source.name, None) or SampleMemory()
    refresh = partial(
        memory.refresh,
        member.provider.telemetry,
        records,
        window=window,
        interval=member.source.telemetry_interval,
        now=now,
    )

    def sampled() -> Sampled:
        failed = _tried(refresh, TELEMETRY, member.source.name)
        return memory, (memory.faults if failed is None else (_failed(TELEMETRY, failed),))

    _ask(member, TELEMETRY, sampled, now)


def _unsampled(member: Member, memories: dict[str, SampleMemory]) -> tuple[PartReport, ...]:
    """What of its samples is missing. What came is in its memory again."""
    if TELEMETRY not in member.asked:
        return ()
    found: Sampled | Fault = _answer(member, TELEMETRY)
    if isinstance(found, Fault):
        return (_failed(TELEMETRY, found),)
    memories[member.source.name], faults = found
    return faults


# asking


def _ask(member: Member, what: str, question: Callable[[], object], now: datetime) -> None:
    name = member.source.name
    member.asked[what] = ask(partial(_tried, question, what, name), at=now, name=f"{what} {name}")


def _hangs(member: Member, what: str) -> bool:
    """Whether it still owes an answer: then it is not asked a second time."""
    return what in member.asked and not member.asked[what].answer.done()


def _wait(members: Sequence[Member]) -> None:
    asked = [question for member in members for question in member.asked.values()]
    ending: Future[None] = members[0].ending if members else Future()
    wait_for(asked, patience=PATIENCE, unless=ending)


def _answer(member: Member, what: str) -> T | Fault:
    """Its answer, once; or that there is none yet."""
    asked = cast(Asked[T | Fault], member.asked[what])
    if asked.answer.done():
        del member.asked[what]
        return asked.answer.result()
    waited = f"within {PATIENCE:.0f} s" if asked.age >= PATIENCE else "before the service was stopped"
    since = asked.at.isoformat(timespec="minutes")
    return Unreachable(f"it has been asked since {since} and did not answer {waited}").as_fault()


def _tried(question: Callable[[], T], what: str, source: str) -> T | Fault:
    try:
        return question()
    except ProviderError as error:
        return error.as_fault()
    except Exception:
        log.exception("asking failed in a way the provider does not know", about=what, source=source)
        return _unexpected(what)


def _failed(what: str, fault: Fault) -> PartReport:
    return PartReport(part=what, complete=False, fault=fault)


def _unexpected(what: str) -> Fault:
    """A fault that says no more than it may: the exception itself is in the log."""
    return Fault(code="Unexpected", sentence=f"{what} failed unexpectedly; the service's log has the details")
