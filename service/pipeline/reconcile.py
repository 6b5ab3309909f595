"""Merges what sources answered into what we knew: new, changed, restarted, missing, ended, orphaned. Pure.

Nothing vanishes by mistake: a resource ends only when its cloud says so by id, or when two complete answers of its
part lack it. What could not be asked stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from providers.records import CapacityType, Initiator, Kind, ResourceRecord, State, resource_id
from service.model import Known, SourceAnswer
from service.money import whole_seconds

_RUNNING = (State.RUNNING, State.PENDING)
_MACHINES = (Kind.INSTANCE, Kind.NODE)
"""What does not go unseen on an ordinary day. Workloads come and go."""
_HALTED = (State.STOPPED, State.SUSPENDED, State.STOPPING)


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Every resource that is not long ended, as it stands now."""

    resources: tuple[Known, ...]
    seen: frozenset[str]
    """Ids described in this very look; only these may be judged from it."""
    lost: tuple[Known, ...]
    """Running a look ago and now missing from a complete answer: a sudden many of these trips the breaker."""


def reconcile(
    known: Mapping[str, Known], answers: Sequence[SourceAnswer], sources: Iterable[str], now: datetime
) -> Reconciled:
    """One look merged into what was known."""
    live = {key: value for key, value in known.items() if value.ended_at is None}
    usable = [answer for answer in answers if answer.answer is not None and not answer.identity_changed]
    result: dict[str, Known] = dict(live)
    seen: set[str] = set()
    for key, (source, record) in _records(live, usable).items():
        before = live.get(key)
        if before is not None or record.state is not State.TERMINATED:
            seen.add(key)
            result[key] = _described(before, key, source, record, now)
    lost: list[Known] = []
    for answer in usable:
        missing, gone = _absent(live.values(), seen, answer, now)
        result |= missing
        lost += gone
    result |= _orphans(result.values(), set(sources), now)
    return Reconciled(resources=tuple(result[key] for key in sorted(result)), seen=frozenset(seen), lost=tuple(lost))


def _records(live: Mapping[str, Known], answers: Sequence[SourceAnswer]) -> dict[str, tuple[str, ResourceRecord]]:
    """Id → who describes it, and how. Where two sources see one account, the one it was seen through keeps it (a
    further source must not change whose ceiling holds), else the first by name; its cost counts once.
    """
    found: dict[str, tuple[str, ResourceRecord]] = {}
    for answer in sorted(answers, key=lambda answer: answer.source):
        assert answer.answer is not None
        for record in answer.answer.records:
            key = resource_id(record.ref, record.incarnation)
            before = live.get(key)
            ours = before is not None and before.source == answer.source
            if key not in found or (ours and found[key][0] != answer.source):
                found[key] = (answer.source, record)
    return found


def _described(before: Known | None, key: str, source: str, record: ResourceRecord, now: datetime) -> Known:
    """A resource as its cloud describes it now, with what we remember of it."""
    if before is None:
        return Known(
            id=key,
            source=source,
            record=record,
            first_seen=now,
            state_since=now,
            started_at=_start(record, now) if record.state in _RUNNING else None,
            protected_since=now if record.protections else None,
        )
    after = replace(before, source=source, record=record, missing_since=None, orphaned_at=None)
    if record.protections:
        after = replace(after, protected_since=before.protected_since or now)
    else:
        after = replace(after, protected_since=None)
    if record.state is State.TERMINATED:
        return replace(after, ended_at=now, state_since=now)
    return _counted(before, _in_state(before, after, now), now)


def _in_state(before: Known, after: Known, now: datetime) -> Known:
    """Since when it is in its state, and since when it runs."""
    record = after.record
    relaunched = _later(record.launched_at, before.record.launched_at) or _all_others(record, before.record)
    if record.state in _RUNNING and (before.started_at is None or relaunched):
        # a launch time that did not move tells of an earlier start: this one happened just before we saw it
        start = _start(record, now) if relaunched else now
        restarted = before.restarted_at if _by_itself(before, record) else start
        return replace(after, started_at=start, restarted_at=restarted, state_since=max(before.state_since, start))
    if record.state != before.record.state:
        return replace(after, state_since=now, started_at=None if record.state in _HALTED else before.started_at)
    return after


def _by_itself(before: Known, after: ResourceRecord) -> bool:
    """An interrupted spot machine comes back by its cloud when there is capacity again, and a workload that runs gets
    another pod by its controller; others come back by a person."""
    if after.ref.kind is Kind.WORKLOAD:
        return before.started_at is not None
    return before.record.stopped_by is Initiator.CLOUD and before.record.capacity_type is CapacityType.SPOT


def _all_others(after: ResourceRecord, before: ResourceRecord) -> bool:
    """A group has no launch time: it runs anew when none of those it had is left."""
    return bool(after.members and before.members) and set(after.members).isdisjoint(before.members)


def _counted(before: Known, after: Known, now: datetime) -> Known:
    """A run that has ended counts on; of a restart nobody saw, until it began anew."""
    if before.started_at is None or after.started_at == before.started_at:
        return after
    ran = whole_seconds(before.started_at, after.started_at or now)
    return replace(after, earlier_runs_seconds=before.earlier_runs_seconds + ran)


def _start(record: ResourceRecord, now: datetime) -> datetime:
    """When the present run began; never later than now, whatever a cloud's clock says."""
    return min(record.launched_at or now, now)


def _later(after: datetime | None, before: datetime | None) -> bool:
    return after is not None and before is not None and after > before


def _absent(
    live: Iterable[Known], seen: set[str], answer: SourceAnswer, now: datetime
) -> tuple[dict[str, Known], list[Known]]:
    """What this answer should have held and did not: missing at first, ended at the second complete answer."""
    assert answer.answer is not None
    parts = {(part.account, part.part): part.complete for part in answer.answer.parts}
    changed: dict[str, Known] = {}
    gone = []
    for known in live:
        if known.source != answer.source or known.id in seen:
            continue
        account, part = known.record.ref.account, known.record.listed_in or known.record.ref.region
        # the nearest that speaks for it; `*` speaks for what has no part of its own, as when an account does not answer
        names = ((account, part), (account, "*"), (None, part), (None, "*"))
        complete = next((parts[name] for name in names if name in parts), None)
        if complete is None:
            if known.orphaned_at is None:  # its region is no longer asked for: narrowing ends nothing
                changed[known.id] = replace(known, orphaned_at=now)
        elif complete:
            if known.missing_since is None:
                changed[known.id] = replace(known, missing_since=now)
                if known.record.state is State.RUNNING and known.record.ref.kind in _MACHINES and known.governed:
                    gone.append(known)
            else:
                ended = replace(known.record, state=State.TERMINATED)
                changed[known.id] = replace(known, record=ended, ended_at=known.missing_since, state_since=now)
    return changed, gone


def _orphans(resources: Iterable[Known], sources: set[str], now: datetime) -> dict[str, Known]:
    """Resources of sources that no longer exist: kept and shown, never judged."""
    return {
        known.id: replace(known, orphaned_at=now)
        for known in resources
        if known.source not in sources and known.orphaned_at is None
    }
