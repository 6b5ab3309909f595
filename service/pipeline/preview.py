"""Tells what a policy would do right now, judged on the last look by the cycle's own code. Pure; nothing is decided.

What would become of each breach is asked of `plan`, with the policy and every ceiling at `enforce`: what nothing
forbids then would be acted on. Under the policy's own mode and today's ceilings less may happen, and that is told too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from policies.decision import Decision, Verdict
from policies.policy import BasePolicy, Mode
from policies.quantities import format_duration
from providers.records import CapacityType
from service.documents import Exemption, Project
from service.model import ActiveHold, FindingState, Known, PastAct, RolloutStage, Status
from service.pipeline import rollout
from service.pipeline.evaluate import Judged, Look, judge, longest_window
from service.pipeline.plan import (
    InForce,
    Limits,
    Standing,
    budget_full,
    capped,
    effective_mode,
    held_words,
    hold_for,
    met_first,
    plan,
    too_much,
    verb_for,
)

HOURS_AHEAD = 24
"""Acts that would wait for the disruption budget for longer are only counted."""
PAID_ANYWAY = (CapacityType.RESERVED, CapacityType.CAPACITY_BLOCK)


class Then(StrEnum):
    """What would become of one resource under the policy's own mode and today's ceilings."""

    NOTHING = "nothing"
    """Observed only."""
    WARNED = "warned"
    ACTED_ON = "acted_on"
    """Warned, and after the grace acted on."""
    REFUSED = "refused"
    EXEMPT = "exempt"
    SNOOZED = "snoozed"
    DISMISSED = "dismissed"
    LEFT_ALONE = "left_alone"
    """Restarted just now, not running, or more than the disruption budget ever allows."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One resource in breach, foreseen to be, or of which it is not known."""

    known: Known
    verdict: Verdict
    would_act: bool
    """Nothing forbids it: it would be acted on if the policy and every ceiling said `enforce`."""
    then: Then
    why: str
    """What would happen, or why nothing would, in a sentence."""
    hour: int | None = None
    """In which hour after the grace the disruption budget meets it; None: later than a day, or never."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """One policy on the last look."""

    policy: BasePolicy
    judged: Judged
    in_scope: int
    cases: tuple[Case, ...]
    """Breaches in the order in which they would be met, then the foreseen, then the unknown."""
    breaker: str | None
    """Why the first hour's acts would trip the circuit breaker, if they would."""
    notes: tuple[str, ...]

    def decision(self, case: Case) -> Decision:
        """The verdict in words, with its numbers."""
        return self.judged.judgement.decision(self.policy.name, self.judged.rows[case.known.id])

    def could_not(self) -> list[tuple[str, int]]:
        """Why breaches could not be acted on, whatever the mode; the most frequent reason first."""
        if not self.policy.acts:
            return []
        reasons = Counter(case.why for case in self.cases if case.verdict is not Verdict.UNKNOWN and not case.would_act)
        return sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))


def preview(
    policy: BasePolicy,
    look: Look,
    *,
    window: timedelta,
    resources: Mapping[str, Known],
    projects: Mapping[str, Project],
    exemptions: Sequence[Exemption],
    standing: Standing,
    limits: Limits,
    now: datetime,
) -> Preview:
    """What this policy alone would do. `window`: how far back the look's samples were asked for."""
    judged = judge(look, [policy])
    limits = replace(limits, rollouts=_as_it_would_begin(policy, limits, now))
    unit_of = rollout.units(resources.values())
    outcome = judged.judgement.outcomes[policy.name]
    findings, unhindered = _turned_on(policy, judged, resources, projects, exemptions, standing, limits, now)
    breached = {look.resources[row].id for row in outcome.breaches}
    concerned = [look.resources[row] for row in (*outcome.breaches, *outcome.foreseen)]
    concerned.sort(key=lambda known: met_first(known, findings[known.id].evidence))
    free = [known for known in concerned if policy.acts and known.id in unhindered]
    hours, never = _spread(policy, free, outcome.in_scope, standing.acts)
    cases = [
        _case(
            policy,
            known,
            findings[known.id],
            ahead=known.id not in breached,
            unhindered=known.id in unhindered,
            hour=hours.get(known.id),
            never=never.get(known.id),
            hold=hold_for(known.project, standing.holds),
            unit=unit_of.get(known.id, known.id),
            limits=limits,
        )
        for known in sorted(concerned, key=lambda known: known.id not in breached)
    ]
    silent = sorted((look.resources[row] for row in outcome.unknown), key=lambda known: met_first(known, {}))
    reaches = longest_window([policy]) <= window
    cases += [_unknown(known, reaches=reaches) for known in silent]
    first_hour = [known for known in free if hours.get(known.id) == 1]
    return Preview(
        policy=policy,
        judged=judged,
        in_scope=outcome.in_scope,
        cases=tuple(cases),
        breaker=too_much(first_hour, standing.acts, resources, limits.breaker),
        notes=tuple(_notes(policy, outcome.fault, cases, window, reaches=reaches)),
    )


def _as_it_would_begin(policy: BasePolicy, limits: Limits, now: datetime) -> dict[str, RolloutStage]:
    """Its rollout as it stands, if it is this very policy's; else as applying it would make it begin."""
    if policy.rollout is None:
        return {}
    stage = limits.rollouts.get(policy.name)
    same = stage is not None and stage.fingerprint == rollout.fingerprint(policy)
    return {policy.name: stage if stage is not None and same else rollout.begun(policy, now)}


def _turned_on(
    policy: BasePolicy,
    judged: Judged,
    resources: Mapping[str, Known],
    projects: Mapping[str, Project],
    exemptions: Sequence[Exemption],
    standing: Standing,
    limits: Limits,
    now: datetime,
) -> tuple[dict[str, FindingState], frozenset[str]]:
    """Resource id → its finding after the first step, were the policy and every ceiling at `enforce`; and those whose
    people would be warned, because nothing stands in the way."""
    lasting = [
        finding
        for finding in standing.findings
        if finding.policy == policy.name and finding.status in (Status.SNOOZED, Status.REFUSED, Status.ACTING)
    ]
    dismissed = [finding for finding in standing.dismissed if finding.policy == policy.name]
    everywhere = policy.model_copy(update={"mode": Mode.ENFORCE, "rollout": None})
    on = InForce(policy=everywhere, version=0, stricter_since=None)
    open_ceilings = dict.fromkeys(limits.source_ceilings, Mode.ENFORCE)
    planned = plan(
        resources=resources,
        judged=judged,
        lost=(),
        policies={policy.name: on},
        projects=projects,
        exemptions=exemptions,
        standing=Standing(findings=lasting, dismissed=dismissed),
        limits=replace(limits, ceiling=Mode.ENFORCE, source_ceilings=open_ceilings, links_usable=True),
        now=now,
    )
    findings = {finding.resource_id: finding for finding in (*dismissed, *lasting, *planned.findings)}
    warned = {message.finding_id for message in planned.messages if message.kind == "warning"}
    return findings, frozenset(key for key, finding in findings.items() if finding.id in warned)


def _spread(
    policy: BasePolicy, free: Sequence[Known], in_scope: int, acts: Sequence[PastAct]
) -> tuple[dict[str, int], dict[str, str]]:
    """Resource id → the hour in which the disruption budget lets it be acted on; and why some never are."""
    hours: dict[str, int] = {}
    never: dict[str, str] = {}
    waiting: list[Known] = []
    for known in free:
        price = known.price
        alone = budget_full(policy, in_scope, 0, price.rate_micros if price else None, price.currency if price else "")
        if alone is None:
            waiting.append(known)
        else:
            never[known.id] = f"No hour has room for it. {alone}"
    recent = [act for act in acts if act.policy == policy.name]
    for hour in range(1, HOURS_AHEAD + 1):
        count = len(recent) if hour == 1 else 0
        spent = Counter[str]()
        for act in recent if hour == 1 else ():
            spent[act.currency or ""] += act.rate_micros
        later = []
        for known in waiting:
            rate, currency = (known.price.rate_micros, known.price.currency) if known.price else (None, "")
            together = None if rate is None else spent[currency] + rate
            if budget_full(policy, in_scope, count, together, currency) is None:
                hours[known.id] = hour
                count += 1
                spent[currency] += rate or 0
            else:
                later.append(known)
        waiting = later
        if not waiting:
            break
    return hours, never


RESTS = {
    Status.REFUSED: Then.REFUSED,
    Status.EXEMPT: Then.EXEMPT,
    Status.SNOOZED: Then.SNOOZED,
    Status.DISMISSED: Then.DISMISSED,
}


def _case(
    policy: BasePolicy,
    known: Known,
    finding: FindingState,
    *,
    ahead: bool,
    unhindered: bool,
    hour: int | None,
    never: str | None,
    hold: ActiveHold | None,
    unit: str,
    limits: Limits,
) -> Case:
    """A breach, present or foreseen, under the policy's own mode and today's ceilings."""
    mode = effective_mode(policy, known.source, unit, limits)
    if not unhindered or never is not None:
        then = RESTS.get(finding.status, Then.LEFT_ALONE)
        why = finding.status_reason if never is None else never
    elif mode is Mode.ENFORCE:
        then, why = Then.ACTED_ON, _act(policy, known, hour, hold, ahead=ahead)
    elif mode is Mode.WARN:
        then, why = Then.WARNED, f"Its people are warned. {capped(policy, known.source, unit, limits)}"
    else:
        then, why = Then.NOTHING, capped(policy, known.source, unit, limits)
    return Case(
        known=known,
        verdict=Verdict.FORESEEN if ahead else Verdict.BREACH,
        would_act=policy.acts and unhindered and never is None,
        then=then,
        why=why,
        hour=hour,
    )


def _act(policy: BasePolicy, known: Known, hour: int | None, hold: ActiveHold | None, *, ahead: bool) -> str:
    """`Its people are warned; 30m after that: stop.`"""
    verb = verb_for(policy, known.record.ref.kind)
    assert verb is not None
    words = [f"Its people are warned; {format_duration(policy.grace)} after that: {verb.value.replace('_', ' ')}"]
    words.append(" if it is a breach by then." if ahead else ".")
    if hour is None:
        words.append(f" The disruption budget makes it wait for more than {HOURS_AHEAD} hours.")
    elif hour > 1:
        words.append(f" The disruption budget makes it wait: it is met in hour {hour}.")
    if policy.approval is not None:
        words.append(" A person must approve it first.")
    if hold is not None:
        words.append(f" {held_words(hold)}.")
    return "".join(words)


def _unknown(known: Known, *, reaches: bool) -> Case:
    why = "Unknown is never acted on." if reaches else "No samples reach so far back yet. Unknown is never acted on."
    return Case(known=known, verdict=Verdict.UNKNOWN, would_act=False, then=Then.UNKNOWN, why=why)


def _notes(
    policy: BasePolicy, fault: str | None, cases: Sequence[Case], window: timedelta, *, reaches: bool
) -> Iterator[str]:
    """What the numbers do not say by themselves."""
    if fault is not None:
        yield f"It cannot be judged: {fault}."
    if not reaches:
        yield (
            f"It needs samples of the last {format_duration(longest_window([policy]))}, and they were asked for of the "
            f"last {format_duration(window)} only: what needs older ones is unknown. Once the policy is applied, "
            "Curfew asks for them."
        )
    acting = [case for case in cases if case.would_act]
    late = sum(case.hour is None for case in acting)
    if late:
        yield f"The disruption budget would make {late} of {len(acting)} wait for more than {HOURS_AHEAD} hours."
    paid = sum(case.known.record.capacity_type in PAID_ANYWAY for case in acting)
    if paid:
        yield f"{paid} of {len(acting)} run on capacity that is paid for whether they run or not."
    priceless = sum(case.known.price is None for case in acting)
    if priceless:
        yield f"The price of {priceless} of {len(acting)} is not known; they are in no total."
