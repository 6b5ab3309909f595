"""Asks every source what it has, what that costs and what its GPUs did. One that fails sinks no other.

Runs with no transaction open. What could not be asked is reported as such; it is never an empty answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from providers.errors import ProviderError
from providers.records import Fault, PartReport, Price, ResourceRecord, ResourceRef, Series, State, resource_id
from service.fleet import Member
from service.model import SourceAnswer, Telemetry
from service.pipeline.samples import SampleMemory

log = structlog.get_logger()
AT_ONCE = 16
"""Sources asked at the same time."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Everything the sources said in one look."""

    answers: tuple[SourceAnswer, ...]
    quotes: Mapping[ResourceRef, Price]
    series: Mapping[str, tuple[Series, ...]]
    """Resource id → series."""
    ambiguous: frozenset[str]
    telemetry_faults: Mapping[str, tuple[PartReport, ...]]
    """Source → what of its telemetry failed."""

    def telemetry(self, prior_idle: Mapping[tuple[str, str], datetime]) -> Telemetry:
        faults = tuple(part for parts in self.telemetry_faults.values() for part in parts)
        return Telemetry(series=self.series, ambiguous=self.ambiguous, faults=faults, prior_idle=prior_idle)


def collect(
    members: Iterable[Member],
    *,
    identities: Mapping[str, str],
    memories: dict[str, SampleMemory],
    window: timedelta,
    now: datetime,
) -> Collected:
    """One look at every source, side by side."""
    members = list(members)
    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="collect") as pool:
        answers = list(pool.map(lambda member: _inventory(member, identities.get(member.source.name)), members))
        usable = {a.source: a.answer.records for a in answers if a.answer is not None and not a.identity_changed}
        everything = [record for records in usable.values() for record in records]
        quotes: dict[ResourceRef, Price] = {}
        for prices in pool.map(lambda member: _prices(member, usable.get(member.source.name, ())), members):
            quotes |= prices
        for member in members:
            memories.setdefault(member.source.name, SampleMemory())
        faults = dict(
            pool.map(
                lambda member: _telemetry(
                    member,
                    memories[member.source.name],
                    _sampled(member, usable, everything),
                    window,
                    now,
                ),
                members,
            )
        )
    ids = {record.ref: resource_id(record.ref, record.incarnation) for record in everything}
    series: dict[str, tuple[Series, ...]] = {}
    ambiguous: set[str] = set()
    for member in members:
        memory = memories[member.source.name]
        for ref, found in memory.by_resource().items():
            if ref in ids:
                series[ids[ref]] = series.get(ids[ref], ()) + found
        ambiguous |= {ids[ref] for ref in memory.ambiguous if ref in ids}
    return Collected(
        answers=tuple(answers),
        quotes=quotes,
        series=series,
        ambiguous=frozenset(ambiguous),
        telemetry_faults=faults,
    )


def _inventory(member: Member, identity: str | None) -> SourceAnswer:
    name = member.source.name
    if member.provider is None:
        return SourceAnswer(source=name, fault=member.fault, identity=identity)
    if member.provider.inventory is None:
        return SourceAnswer(source=name, identity=identity)
    try:
        return SourceAnswer(source=name, answer=member.provider.inventory.list(), identity=identity)
    except ProviderError as error:
        return SourceAnswer(source=name, fault=error.as_fault(), identity=identity)
    except Exception:
        log.exception("inventory failed in a way its provider does not know", source=name)
        return SourceAnswer(source=name, fault=_unexpected("listing"), identity=identity)


def _prices(member: Member, records: Iterable[ResourceRecord]) -> Mapping[ResourceRef, Price]:
    if member.provider is None or member.provider.prices is None:
        return {}
    try:
        return member.provider.prices.quote(tuple(records))
    except ProviderError as error:
        log.warning("prices failed", source=member.source.name, reason=error.sentence)
    except Exception:
        log.exception("prices failed in a way their provider does not know", source=member.source.name)
    return {}  # resources keep the price they had


def _sampled(
    member: Member, usable: Mapping[str, tuple[ResourceRecord, ...]], everything: list[ResourceRecord]
) -> list[ResourceRecord]:
    """Running resources a source can say something of: its own, or everybody's when it has no inventory."""
    own = member.provider is not None and member.provider.inventory is not None
    records = usable.get(member.source.name, ()) if own else everything
    return [record for record in records if record.state is State.RUNNING]


def _telemetry(
    member: Member, memory: SampleMemory, records: list[ResourceRecord], window: timedelta, now: datetime
) -> tuple[str, tuple[PartReport, ...]]:
    name = member.source.name
    if member.provider is None or member.provider.telemetry is None or not records:
        return name, ()
    try:
        memory.refresh(
            member.provider.telemetry,
            records,
            window=window,
            interval=member.source.telemetry_interval,
            now=now,
        )
    except ProviderError as error:
        return name, (PartReport(part="telemetry", complete=False, fault=error.as_fault()),)
    except Exception:
        log.exception("telemetry failed in a way its provider does not know", source=name)
        return name, (PartReport(part="telemetry", complete=False, fault=_unexpected("telemetry")),)
    return name, memory.faults


def _unexpected(what: str) -> Fault:
    """A fault that says no more than it may: the exception itself is in the log."""
    return Fault(code="Unexpected", sentence=f"{what} failed unexpectedly; the service's log has the details")
