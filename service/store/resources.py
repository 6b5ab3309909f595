"""Resources and sources as rows, and as the plain values the pipeline works on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from sys import intern
from typing import Any

from sqlalchemy import ColumnElement, func, inspect
from sqlmodel import Session, col, select

from providers.records import (
    Blocker,
    CapacityType,
    Initiator,
    Kind,
    Loss,
    LossName,
    Placement,
    Price,
    Protection,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)
from service.model import Known, Lent, SourceAnswer
from service.store.database import write
from service.store.tables import Resource, SourceState, UtcDateTime

IDENTITY_CHANGED = "IdentityChanged"
AT_ONCE = 1000
"""Rows read or written in one go."""


NOTHING = -1


@dataclass(kw_only=True)
class Remembered:
    """Resources as they were last read; it may be forgotten at any time, and then all of them are read again."""

    known: Mapping[str, Known] = field(default_factory=dict)
    """Never changed but replaced: others hold it too."""
    revision: int = NOTHING

    def written(self, resources: Mapping[str, Known], revision: int | None) -> None:
        """All of them as they are by now, once that is committed: nobody need read what he wrote himself."""
        self.known = _there(resources)
        self.revision = self.revision if revision is None else revision


def load_known(session: Session, remembered: Remembered | None = None) -> Mapping[str, Known]:
    """Every resource that has not ended, by id. Of those that are remembered only what has changed is read."""
    remembered = remembered or Remembered()
    newest, there = session.exec(
        select(
            func.coalesce(func.max(Resource.revision), NOTHING),
            select(func.count()).where(col(Resource.ended_at).is_(None)).scalar_subquery(),
        )
    ).one()
    if newest < remembered.revision:  # another database than it was, or an older state of it
        remembered.known, remembered.revision = {}, NOTHING
    _refresh(session, remembered)
    if len(remembered.known) != there:  # some are gone
        remembered.known, remembered.revision = {}, NOTHING
        _refresh(session, remembered)
    remembered.revision = newest
    return remembered.known


def _refresh(session: Session, remembered: Remembered) -> None:
    changed = select(Resource).where(col(Resource.revision) > remembered.revision)
    if remembered.revision == NOTHING:
        changed = changed.where(col(Resource.ended_at).is_(None))
    read = {row.id: known_of(row) for row in session.exec(changed, execution_options={"yield_per": AT_ONCE})}
    if read:
        remembered.known = _there({**remembered.known, **read})


def _there(resources: Mapping[str, Known]) -> Mapping[str, Known]:
    """Those that have not ended: mostly all."""
    if all(known.ended_at is None for known in resources.values()):
        return resources
    return {id: known for id, known in resources.items() if known.ended_at is None}


def find(session: Session, resource_id: str) -> Known | None:
    """One resource, ended or not."""
    row = session.get(Resource, resource_id)
    return None if row is None else known_of(row)


def save(session: Session, resources: Iterable[Known]) -> int | None:
    """Write these as they are now; only changed ones are handed in. Their revision; None when there were none."""
    newest = session.exec(select(func.coalesce(func.max(Resource.revision), 0))).one()
    rows = (_values(known) | {"revision": newest + 1} for known in resources)
    wrote = False
    while some := list(islice(rows, AT_ONCE)):
        write(session, Resource, some, key=["id"])
        wrote = True
    return newest + 1 if wrote else None


def may_be_removed() -> ColumnElement[bool]:
    """Not the last that was written: by it whoever remembers knows how far he has read, and the next writing is told
    from it."""
    return col(Resource.revision) < select(func.max(Resource.revision)).scalar_subquery()


def known_of(row: Resource) -> Known:
    """A row as a value. What a fleet has in common is kept once, though every row tells it anew."""
    price = None
    if row.running_rate_micros is not None and row.currency is not None:
        price = _price(row.running_rate_micros, row.currency, row.price_source or "")
    return Known(
        id=intern(row.id),
        source=intern(row.source),
        record=ResourceRecord(
            ref=ResourceRef(
                provider=intern(row.provider),
                account=intern(row.account),
                region=intern(row.region),
                kind=Kind(row.kind),
                external_id=row.external_id,
            ),
            incarnation=row.incarnation,
            name=row.name,
            zone=row.zone and intern(row.zone),
            sku=intern(row.sku),
            gpu_vendor=row.gpu_vendor and intern(row.gpu_vendor),
            gpu_model=row.gpu_model and intern(row.gpu_model),
            gpu_count=row.gpu_count,
            gpu_share=row.gpu_share,
            gpu_memory_mib=row.gpu_memory_mib,
            capacity_type=CapacityType(row.capacity_type),
            state=State(row.state),
            launched_at=row.launched_at,
            created_at=row.created_at,
            tags={intern(key): intern(value) for key, value in row.tags.items()},
            managed_by=row.managed_by,
            members=tuple(row.members),
            placements=tuple(
                Placement(pod=entry["pod"], node=entry["node"], share=Fraction(entry["share"]))
                for entry in row.placements
            ),
            machine=row.machine,
            remarks=tuple(row.remarks),
            listed_in=row.listed_in and intern(row.listed_in),
            stopped_by=Initiator(row.stopped_by) if row.stopped_by else None,
            powered_off=row.powered_off,
            run_limit_seconds=row.run_limit_seconds,
            protections=tuple(_protection(entry) for entry in row.protections),
            blockers=tuple(Blocker(**{**entry, "verb": Verb(entry["verb"])}) for entry in row.blockers),
            losses=tuple(_loss(**entry) for entry in row.losses),
        ),
        first_seen=_moment(row.first_seen),
        state_since=_moment(row.state_since),
        started_at=row.started_at,
        earlier_runs_seconds=row.earlier_runs_seconds,
        restarted_at=row.restarted_at,
        backstop_seconds=row.backstop_seconds,
        backstop_before_seconds=row.backstop_before_seconds,
        protected_since=row.protected_since,
        missing_since=row.missing_since,
        ended_at=row.ended_at,
        orphaned_at=row.orphaned_at,
        project=row.project and intern(row.project),
        project_since=row.project_since and _moment(row.project_since),
        owner=row.owner and intern(row.owner),
        price=price,
        same_as=row.same_as,
        lent=None if row.lent_share is None else Lent(share=Fraction(row.lent_share), micros=row.lent_micros or 0),
    )


def _values(known: Known) -> dict[str, Any]:
    """A value as the columns of its row."""
    record = known.record
    return dict(
        id=known.id,
        source=known.source,
        provider=record.ref.provider,
        account=record.ref.account,
        region=record.ref.region,
        zone=record.zone,
        kind=record.ref.kind.value,
        external_id=record.ref.external_id,
        incarnation=record.incarnation,
        name=record.name,
        sku=record.sku,
        gpu_vendor=record.gpu_vendor,
        gpu_model=record.gpu_model,
        gpu_count=record.gpu_count,
        gpu_share=record.gpu_share,
        gpu_memory_mib=record.gpu_memory_mib,
        capacity_type=record.capacity_type.value,
        state=record.state.value,
        state_since=known.state_since,
        launched_at=record.launched_at,
        created_at=record.created_at,
        tags=dict(record.tags),
        managed_by=record.managed_by,
        members=list(record.members),
        placements=[
            {"pod": placed.pod, "node": placed.node, "share": str(placed.share)} for placed in record.placements
        ],
        machine=record.machine,
        remarks=list(record.remarks),
        listed_in=record.listed_in,
        stopped_by=record.stopped_by.value if record.stopped_by else None,
        powered_off=record.powered_off,
        run_limit_seconds=record.run_limit_seconds,
        backstop_seconds=known.backstop_seconds,
        backstop_before_seconds=known.backstop_before_seconds,
        protections=[_plain(asdict(entry)) for entry in record.protections],
        protected_since=known.protected_since,
        blockers=[_plain(asdict(entry)) for entry in record.blockers],
        losses=[_plain(asdict(entry)) for entry in record.losses],
        project=known.project,
        project_since=known.project_since,
        owner=known.owner,
        rate_micros=known.rate_micros,
        running_rate_micros=known.price.rate_micros if known.price else None,
        currency=known.price.currency if known.price else None,
        price_source=known.price.source if known.price else None,
        first_seen=known.first_seen,
        started_at=known.started_at,
        earlier_runs_seconds=known.earlier_runs_seconds,
        restarted_at=known.restarted_at,
        missing_since=known.missing_since,
        ended_at=known.ended_at,
        orphaned_at=known.orphaned_at,
        same_as=known.same_as,
        lent_share=str(known.lent.share) if known.lent else None,
        lent_micros=known.lent.micros if known.lent else None,
    )


def to_json(known: Known) -> str:
    """A value as one line of text, for places without tables: `from_json` reads it back."""
    return json.dumps(_values(known), default=_as_text, separators=(",", ":"), sort_keys=True)


def _as_text(value: datetime) -> str:
    return value.isoformat()


def from_json(text: str) -> Known:
    """The value that `to_json` wrote. What an older version did not write yet is as new resources have it."""
    values = json.loads(text)
    for name in _MOMENTS:
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    return known_of(Resource(**values))


_MOMENTS = tuple(name for name, column in inspect(Resource).columns.items() if isinstance(column.type, UtcDateTime))


@lru_cache(maxsize=4096)
def _price(rate_micros: int, currency: str, source: str) -> Price:
    return Price(rate_micros=rate_micros, currency=currency, source=source)


@lru_cache(maxsize=4096)  # one cycle sees many for the first time
def _moment(at: datetime) -> datetime:
    return at


@lru_cache(maxsize=4096)
def _loss(verb: str, name: str, sentence: str) -> Loss:
    return Loss(verb=Verb(verb), name=LossName(name), sentence=sentence)


def _protection(entry: Mapping[str, Any]) -> Protection:
    until = entry.get("until")
    return Protection(
        source=entry["source"],
        sentence=entry["sentence"],
        until=datetime.fromisoformat(until) if until else None,
    )


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready: times as ISO text, enums as words."""
    return {
        key: value.isoformat() if isinstance(value, datetime) else getattr(value, "value", value)
        for key, value in entry.items()
    }


def identities(session: Session) -> dict[str, str]:
    """Source → who it was when it first answered."""
    rows = session.exec(select(SourceState)).all()
    return {row.source: row.identity for row in rows if row.identity is not None}


def answers_as_another(session: Session, source: str) -> bool:
    """Did somebody else answer for this source when it was last asked?"""
    row = session.get(SourceState, source)
    return row is not None and row.fault is not None and row.fault["code"] == IDENTITY_CHANGED


def source_states(session: Session) -> dict[tuple[str, ...], float]:
    """(source,) → Unix time of its last complete answer, for those that ever gave one."""
    rows = session.exec(select(SourceState)).all()
    return {(row.source,): row.succeeded_at.timestamp() for row in rows if row.succeeded_at is not None}


def save_answers(session: Session, answers: Sequence[SourceAnswer], now: datetime) -> None:
    """How each source did in this look."""
    for answer in answers:
        row = session.get(SourceState, answer.source) or SourceState(source=answer.source)
        row.attempted_at = now
        row.fault = fault_of(answer)
        parts = (*(answer.answer.parts if answer.answer is not None else ()), *answer.missing)
        row.parts = [plain_part(part) for part in parts]
        if answer.answer is not None:
            row.identity = row.identity or answer.answer.identity
        if _succeeded(answer):
            row.succeeded_at = now
        session.add(row)


def _succeeded(answer: SourceAnswer) -> bool:
    """It told all there is; of a source that only has telemetry, all of that."""
    if answer.answer is None:
        return answer.fault is None and not answer.missing
    return answer.answer.complete and not answer.identity_changed


def fault_of(answer: SourceAnswer) -> dict[str, Any] | None:
    """Why a source gave nothing usable, as JSON, or None."""
    if answer.identity_changed and answer.answer is not None:
        return {
            "code": IDENTITY_CHANGED,
            "sentence": f"it answers as {answer.answer.identity}, but it was {answer.identity}; nothing is believed",
            "permission": None,
        }
    return None if answer.fault is None else asdict(answer.fault)


def report_of(answer: SourceAnswer) -> dict[str, Any]:
    """One source's line in a cycle's report."""
    return {
        "source": answer.source,
        "complete": _succeeded(answer),
        "resources": len(answer.answer.records) if answer.answer is not None else 0,
        "parts": [plain_part(part) for part in answer.answer.parts] if answer.answer is not None else [],
        "fault": fault_of(answer),
    }


def faults_in(line: Mapping[str, Any]) -> list[str]:
    """The sentences of a source's line in a report, the one that is about all of it first."""
    parts = [*line["parts"], *line.get("telemetry", ())]
    said = [line["fault"] and line["fault"]["sentence"]]
    said += [f"{part['part']}: {part['fault']['sentence']}" for part in parts if part["fault"]]
    return [sentence for sentence in said if sentence]


def plain_part(part: Any) -> dict[str, Any]:
    return {
        "part": part.part if part.account is None else f"{part.account}/{part.part}",
        "complete": part.complete,
        "fault": None if part.fault is None else asdict(part.fault),
    }
