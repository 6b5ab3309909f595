"""Looks again right before acting: a fresh description, fresh activity, protection, project. Anything changed: no act.

Reads from the cloud, changes nothing. It judges with the same `judge` as the cycle, on one row; on all rows with this
one afresh where a policy counts across them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from policies.decision import Verdict
from policies.policy import BasePolicy
from providers.contract import Provider
from providers.errors import NotFound, ProviderError
from providers.records import ResourceRecord, Series, State, resource_id
from service.documents import Project
from service.fleet import Member
from service.model import FindingState, Known, Telemetry
from service.pipeline.attribute import attributed
from service.pipeline.evaluate import Look, groups_in, judge, longest_window, of_members
from service.pipeline.plan import COUNTING, Limits, why_not


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """What a second look found: the resource as it is now, or why nothing may be done."""

    record: ResourceRecord | None
    members: tuple[Known, ...] = ()
    """Those of a group, as they are now."""
    refusal: str | None = None
    forbidden: bool = False
    """True when a protection, precondition or loss forbids it, rather than the world having moved on."""


def look_again(
    known: Known,
    finding: FindingState,
    policy: BasePolicy,
    *,
    provider: Provider,
    telemetry_members: Mapping[str, Member],
    projects: Mapping[str, Project],
    limits: Limits,
    look: Look,
    now: datetime,
) -> Fresh:
    """May we still act on this resource for this finding, this very moment? `look` is the cycle's: all the others."""
    described = describe(known, provider)
    if described.record is None or described.refusal is not None:
        return described
    record = described.record
    after = attributed(replace(known, record=record), projects, now)
    members, unseen = described_members(after, look, provider, projects, now)
    if unseen is not None:
        return _moved(record, unseen)
    if why := why_not(of_members(after, members), policy, limits, now):
        return Fresh(record=record, refusal=why, forbidden=True)
    if after.project != finding.project:
        return _moved(record, f"its project is {after.project or 'none'} now, it was {finding.project or 'none'}")
    if record.state is not State.RUNNING:
        return _moved(record, f"it is {record.state.value} now")
    if record.launched_at != known.record.launched_at:
        return _moved(record, "it was restarted in the meantime")
    if finding.stop_now_by is not None:
        return Fresh(record=record, members=members)
    afresh = (after, *members)
    telemetry = sampled_now(members or afresh, policy, telemetry_members, now)
    judged = judge(_looked(look, afresh, policy, telemetry, now), [policy])
    decision = judged.judgement.decision(policy.name, judged.rows[known.id])
    if decision.verdict is not Verdict.BREACH:
        return _moved(record, f"a second look says {decision.verdict.value.replace('_', ' ')}: {decision.reason}")
    return Fresh(record=record, members=members)


def described_members(
    group: Known, look: Look, provider: Provider, projects: Mapping[str, Project], now: datetime
) -> tuple[tuple[Known, ...], str | None]:
    """The members of a group as they are now, each read back by itself; or why they cannot be told."""
    if not group.is_group:
        return (), None
    [(_, seen)] = groups_in([group, *(one for one in look.resources if not one.is_group)])
    members = []
    for name, before in zip(group.record.members, seen, strict=True):
        if before is None:
            return (), f"its member {name} was not seen before"
        fresh = describe(before, provider)
        if fresh.record is None or fresh.refusal is not None:
            return (), f"of its member {name}: {fresh.refusal}"
        if fresh.record.launched_at != before.record.launched_at:
            return (), f"its member {name} was restarted in the meantime"
        members.append(attributed(replace(before, record=fresh.record), projects, now))
    return tuple(members), None


def _looked(look: Look, afresh: Sequence[Known], policy: BasePolicy, telemetry: Telemetry, now: datetime) -> Look:
    """The cycle's look with one resource as it is now. Whoever counts across resources needs all the others too."""
    alone = not isinstance(policy, COUNTING)
    ids = {known.id for known in afresh}
    others = () if alone else tuple(known for known in look.resources if known.id not in ids)
    series = telemetry.series if alone else {**look.telemetry.series, **telemetry.series}
    ambiguous = look.telemetry.ambiguous - ids | telemetry.ambiguous
    return replace(
        look,
        resources=(*others, *afresh),
        seen=look.seen | ids,
        telemetry=replace(look.telemetry, series=series, ambiguous=ambiguous),
        at=now,
    )


def still_forbidden(
    known: Known,
    policy: BasePolicy,
    *,
    provider: Provider,
    projects: Mapping[str, Project],
    limits: Limits,
    look: Look,
    now: datetime,
) -> str | None:
    """What of a fresh description, of its members too, forbids acting, if anything."""
    fresh = describe(known, provider)
    if fresh.record is None or fresh.refusal is not None:
        return fresh.refusal
    after = attributed(replace(known, record=fresh.record), projects, now)
    members, unseen = described_members(after, look, provider, projects, now)
    return unseen or why_not(of_members(after, members), policy, limits, now)


def describe(known: Known, provider: Provider) -> Fresh:
    """One resource read back from its cloud, in full and still the same incarnation."""
    if provider.inventory is None:
        return Fresh(record=None, refusal="its source has no inventory")
    try:
        record = provider.inventory.describe(known.record.ref)
    except NotFound:
        return Fresh(record=None, refusal="it no longer exists")
    except ProviderError as error:
        return Fresh(record=None, refusal=f"it could not be described: {error.sentence}")
    if resource_id(record.ref, record.incarnation) != known.id:
        return Fresh(record=record, refusal="another resource has taken its name")
    if not record.fully_described:
        return Fresh(record=record, refusal="its cloud did not describe it in full")
    return Fresh(record=record)


def sampled_now(
    resources: Sequence[Known], policy: BasePolicy, members: Mapping[str, Member], now: datetime
) -> Telemetry:
    """Samples of these, of one source, asked for right now, past every memory. What fails is simply not there:
    unknown.
    """
    start = now - longest_window([policy])
    ids = {known.record.ref: known.id for known in resources}
    series: dict[str, list[Series]] = {key: [] for key in ids.values()}
    ambiguous: set[str] = set()
    for name, member in members.items():
        provider = member.provider
        if provider is None or provider.telemetry is None:
            continue
        if provider.inventory is not None and name != resources[0].source:
            continue
        try:
            answer = provider.telemetry.samples([known.record for known in resources], start=start, end=now)
        except ProviderError:
            continue
        ambiguous |= {ids[ref] for ref in answer.ambiguous if ref in ids}
        for one in answer.series:
            if one.ref in ids:
                series[ids[one.ref]].append(one)
    return Telemetry(series={key: tuple(found) for key, found in series.items()}, ambiguous=frozenset(ambiguous))


def _moved(record: ResourceRecord, why: str) -> Fresh:
    return Fresh(record=record, refusal=why)
