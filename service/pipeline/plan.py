"""Moves every finding one step along its life and chooses what to do now, within every limit. Pure.

Nothing is done here: the answer is changed findings, intents (still to be re-checked and claimed) and messages. Each
thing that is *not* done carries its reason in `status_reason`.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from policies.codes import OUT
from policies.decision import Decision, Verdict
from policies.evaluate import Outcome
from policies.policy import BasePolicy, BudgetPolicy, Mode, QuotaPolicy, Remedy, SpotPolicy, lowest
from policies.quantities import format_amount, format_duration, format_share
from policies.resolve import Candidate, resolve
from providers.records import CapacityType, Kind, State, Verb
from service.documents import Exemption, Project
from service.model import ActiveHold, FindingState, Intent, Known, Message, PastAct, RolloutStage, Status
from service.pipeline import rollout
from service.pipeline.evaluate import Judged, members_in

UNKNOWN_REPORTED_AFTER = timedelta(hours=6)
"""How long a running machine may be silent before its people are told so."""
PROTECTION_REPORTED_AFTER = timedelta(days=30)
"""Protections are put on and forgotten; older ones are reported."""
ASKED_FOR_AT_MOST = timedelta(hours=1)
"""A stop that a person asked for and that could not be done for so long has lapsed: who still wants it asks again."""
REMINDED_AFTER = (timedelta(days=1), timedelta(days=3))
REMINDED_EVERY = timedelta(days=7)
"""Who was warned and did nothing is told again, ever more rarely: what comes daily is not read."""
COUNTING = (SpotPolicy, QuotaPolicy, BudgetPolicy)
"""Policies that count across resources: one resource alone is never over, and what was not seen may tip the balance."""
SHRINK_AT_LEAST = 3
"""Fewer machines than this vanishing at once is everyday life, not a broken inventory."""


@dataclass(frozen=True, kw_only=True)
class InForce:
    """A policy with what the store knows of it."""

    policy: BasePolicy
    version: int
    stricter_since: datetime | None
    """Last edit that could have made it stricter: warnings from before do not count."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What caps every act, composed once at start-up."""

    ceiling: Mode
    source_ceilings: Mapping[str, Mode]
    breaker: float
    links_usable: bool
    """Without a usable public URL nobody can answer a warning, so nothing is enforced."""
    verbs: Mapping[str, Mapping[Kind, frozenset[Verb]]]
    """Source → kind → what its provider can do."""
    rollouts: Mapping[str, RolloutStage] = field(default_factory=dict)
    """Policy → how far its rollout has come. One that has a rollout and is not here meets nobody."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is already under way."""

    findings: Sequence[FindingState] = ()
    """Active ones."""
    dismissed: Sequence[FindingState] = ()
    """Ended by a person and still breached: kept quiet until the breach ends once."""
    acts: Sequence[PastAct] = ()
    """In flight or of the last hour."""
    holds: Sequence[ActiveHold] = ()
    held_until: Mapping[str | None, datetime] = field(default_factory=dict)
    """Project (None: everywhere) → when its last hold ended: graces from before start anew."""
    consented_at: datetime | None = None
    """When a person last lifted the breaker's hold: everything found by then has been looked at and agreed to."""
    unknown_since: Mapping[str, datetime] = field(default_factory=dict)

    def agreed(self, found_at: datetime | None) -> bool:
        """Whether the person who lifted the breaker's hold had this before them."""
        return self.consented_at is not None and found_at is not None and found_at <= self.consented_at


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What should happen now."""

    findings: tuple[FindingState, ...]
    """New and changed ones."""
    intents: tuple[Intent, ...]
    messages: tuple[Message, ...]
    breaker: str | None
    """Why everything must be held, if it must."""
    unknown_since: Mapping[str, datetime]


def plan(
    *,
    resources: Mapping[str, Known],
    judged: Judged,
    lost: Sequence[Known],
    policies: Mapping[str, InForce],
    projects: Mapping[str, Project],
    exemptions: Sequence[Exemption],
    standing: Standing,
    limits: Limits,
    now: datetime,
    last_look: datetime | None = None,
) -> Plan:
    """One step of every finding's life, and the acts that are due within every limit."""
    planner = _Planner(resources, judged, policies, projects, exemptions, standing, limits, now)
    planner.advance_all()
    breaker = planner.shrunk(lost)
    intents = [] if breaker else planner.choose()
    breaker = breaker or too_much(
        (intent.resource for intent in intents if not standing.agreed(intent.finding.opened_at)),
        [act for act in standing.acts if not standing.agreed(act.found_at)],
        resources,
        breaker=limits.breaker,
    )
    if breaker:
        intents = []
        planner.hold_back(breaker)
    planner.remind(intents, last_look)
    planner.report_unknown()
    planner.report_old_protections()
    return Plan(
        findings=tuple(planner.changed()),
        intents=tuple(intents),
        messages=tuple(planner.messages),
        breaker=breaker,
        unknown_since=planner.unknown_since,
    )


def finding_id(policy: str, resource_id: str, opened_at: datetime) -> str:
    """The same breach opened at the same moment has the same id, whoever computes it."""
    return hashlib.sha256(f"{policy}\0{resource_id}\0{opened_at.isoformat()}".encode()).hexdigest()[:32]


def effective_mode(policy: BasePolicy, source: str, unit: str | None, limits: Limits) -> Mode:
    """The lowest of the policy's mode, every ceiling, and its rollout. `unit`: the resource, or the group it is a
    member of; None: something that is none of ours yet, which only a rollout to all of them meets."""
    caps = [policy.mode, limits.ceiling, limits.source_ceilings.get(source, Mode.OBSERVE)]
    if not policy.acts or not limits.links_usable:
        caps.append(Mode.WARN)
    if not rolled_out_to(policy, unit, limits):
        caps.append(Mode.OBSERVE)
    return lowest(*caps)


def rolled_out_to(policy: BasePolicy, unit: str | None, limits: Limits) -> bool:
    """Whether the policy's rollout has come to it."""
    if policy.rollout is None:
        return True
    stage = limits.rollouts.get(policy.name)
    if stage is None or fell_back(policy, limits):
        return False
    return stage.share >= 1 if unit is None else rollout.holds(stage.share, policy.name, unit)


def ceiling_of(source: str, limits: Limits) -> Mode:
    """What a person's own request is capped by: every ceiling, not the policy's mode."""
    return lowest(limits.ceiling, limits.source_ceilings.get(source, Mode.OBSERVE))


def capped(policy: BasePolicy, source: str, unit: str | None, limits: Limits) -> str:
    """Why no more happens than the effective mode, when that is not `enforce`."""
    mode = effective_mode(policy, source, unit, limits)
    if policy.mode is mode:
        return f"The policy's mode is {mode}: nothing is {'said or ' if mode is Mode.OBSERVE else ''}done."
    if not policy.acts and mode is Mode.WARN:
        return "The policy only notifies."
    if limits.ceiling is mode:
        return f"The policy would {policy.mode}, but this installation's ceiling is {mode}."
    if limits.source_ceilings.get(source, Mode.OBSERVE) is mode:
        return f"The policy would {policy.mode}, but the ceiling of source {source} is {mode}."
    if not rolled_out_to(policy, unit, limits):
        return not_yet(policy, limits)
    return "Without a usable CURFEW_PUBLIC_URL nobody can answer a warning, so nothing is enforced."


def fell_back(policy: BasePolicy, limits: Limits) -> bool:
    """Whether its rollout met too many who regretted it."""
    stage = limits.rollouts.get(policy.name)
    return policy.rollout is not None and stage is not None and stage.fallen_back_at is not None


def not_yet(policy: BasePolicy, limits: Limits) -> str:
    """Why something outside of its rollout is only observed."""
    stage = limits.rollouts.get(policy.name)
    if stage is None:
        return "Its rollout has not begun; this one is observed."
    if stage.fallen_back_at is not None:
        return "Its rollout has fallen back and observes everything, until a person resumes it."  # to all: no numbers
    done = "warned" if policy.mode is Mode.WARN else "enforced"
    return f"Only {format_share(stage.share)} of its scope is {done} so far (rollout); this one is observed."


def verb_for(policy: BasePolicy, kind: Kind) -> Verb | None:
    """The verb a policy's action means on a kind: `stop` on a group means `scale_to_zero`."""
    if policy.action is Remedy.NOTIFY:
        return None
    if policy.action is Remedy.STOP and kind is Kind.NODE_GROUP:
        return Verb.SCALE_TO_ZERO
    return Verb(policy.action.value)


def why_not(known: Known, policy: BasePolicy, limits: Limits, now: datetime) -> str | None:
    """What forbids acting on this resource at all, or None. Asked before planning and again right before acting."""
    record = known.record
    verb = verb_for(policy, record.ref.kind)
    if verb is None:
        return None
    if record.ref.kind is Kind.NODE or known.lent is not None:
        return "It is a Kubernetes node; nodes are never stopped directly, only through what runs on them."
    if verb not in limits.verbs.get(known.source, {}).get(record.ref.kind, frozenset()):
        return f"Curfew has no way to do that here ({verb.value.replace('_', ' ')})."
    if record.managed_by is not None:
        return f"It is a member of {record.managed_by}; members are never acted on, only their owner."
    for protection in record.protections:
        if protection.until is None or protection.until > now:
            return _ended(f"It is protected: {protection.sentence}")
    for blocker in record.blockers:
        if blocker.verb is verb:
            return _ended(blocker.sentence)
    lost = [loss for loss in record.losses if loss.verb is verb and loss.name.value not in policy.accept_loss]
    if verb is Verb.TERMINATE and "terminate" not in policy.accept_loss:
        return "It would be terminated for good; that needs accept_loss: [terminate]."
    if lost:
        names = ", ".join(sorted({loss.name.value for loss in lost}))
        return f"{' '.join(_ended(loss.sentence) for loss in lost)} That needs accept_loss: [{names}]."
    return None


def _ended(sentence: str) -> str:
    """Providers' sentences come with and without their full stop."""
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def exemption_for(
    known: Known, policy: str, exemptions: Sequence[Exemption], now: datetime, *, members: Iterable[Known] = ()
) -> Exemption | None:
    """The exemption that covers a resource from a policy the longest, if one does now. One of a group's member covers
    the group: it cannot be met without it.
    """
    all_met = (known, *members)
    covering = [
        exemption
        for exemption in exemptions
        if exemption.until_utc > now
        and (not exemption.policies or policy in exemption.policies)
        and any(_covers(exemption, one) for one in all_met)
    ]
    return max(covering, key=lambda exemption: exemption.until_utc, default=None)


def _covers(exemption: Exemption, known: Known) -> bool:
    record = known.record
    return (
        (not exemption.resources or not {known.id, record.ref.external_id, record.name}.isdisjoint(exemption.resources))
        and (not exemption.projects or known.project in exemption.projects)
        and all(record.tags.get(key) == value for key, value in exemption.tags.items())
    )


def hold_for(project: str | None, holds: Sequence[ActiveHold]) -> ActiveHold | None:
    """The hold that stops acting for a project, if one is in force."""
    return next((hold for hold in holds if hold.project is None or hold.project == project), None)


def held_words(hold: ActiveHold) -> str:
    """`Everything is on hold until somebody lifts it: too much at once`."""
    reach = "Everything" if hold.project is None else f"Project {hold.project}"
    return f"{reach} is on hold until {hold.until.isoformat() if hold.until else 'somebody lifts it'}: {hold.reason}"


def payload_of(
    finding: FindingState, known: Known, in_force: InForce, project: Project | None, *, acts: bool, why: str | None
) -> dict[str, Any]:
    """What a message says of a finding, as plain JSON."""
    record, policy = known.record, in_force.policy
    verb = verb_for(policy, record.ref.kind)
    return {
        "project": finding.project,
        "timezone": project.timezone if project else "UTC",
        "policy": policy.name,
        "policy_changed_at": _moment(in_force.stricter_since),
        "mode": policy.mode.value,
        "remedy": verb.value if verb else "notify",
        "reason": finding.reason,
        "evidence": dict(finding.evidence),
        "resource": resource_payload(known),
        "hourly_cost": money(known.price.rate_micros, known.price.currency) if known.price else None,
        "grace_seconds": int(policy.grace.total_seconds()),
        "losses": [loss.sentence for loss in record.losses if loss.verb is verb],
        "approval_required": policy.approval is not None,
        "acts": acts,
        "not_acting_reason": why,
        "opened_at": finding.opened_at.isoformat(),
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def resource_payload(known: Known) -> dict[str, Any]:
    """What a message says of a resource."""
    record = known.record
    return {
        "id": known.id,
        "name": record.name,
        "kind": record.ref.kind.value,
        "provider": record.ref.provider,
        "account": record.ref.account,
        "region": record.ref.region,
        "external_id": record.ref.external_id,
        "sku": record.sku,
        "gpu_model": record.gpu_model,
        "gpu_count": record.gpu_count,
        "capacity_type": record.capacity_type.value,
        "state": record.state.value,
        "owner": known.owner,
        "launched_at": _moment(record.launched_at),
    }


def money(micros: int, currency: str) -> dict[str, Any]:
    return {"amount_micros": micros, "currency": currency}


def gpus_of(known: Known) -> float:
    """Whole-GPU equivalents. Those of a machine that workloads hold are theirs."""
    held = known.lent.share if known.lent is not None else 0
    return float(known.record.gpu_count * (1 - held)) * known.record.gpu_share


def met_first(known: Known, evidence: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Whom a disruption budget meets first among those due within the same hour: the idle, then the dearest."""
    return evidence.get("activity") != "idle", -(known.price.rate_micros if known.price else 0), known.id


def budget_full(policy: BasePolicy, in_scope: int, count: int, together: int | None, currency: str) -> str | None:
    """Why one more act has to wait, if it has to. `together`: what would then be disturbed, per hour."""
    budget = policy.disruption_budget
    everything = isinstance(budget.max, float) and budget.max >= 1  # whoever is met twice within the hour too
    most = budget.max if isinstance(budget.max, int) else math.ceil(round(budget.max * in_scope, 9))
    if count >= most and not everything:
        return (
            f"Waits for the disruption budget: {count} of {most} in {in_scope} resources were disturbed within the "
            "hour."
        )
    limit = budget.max_hourly_cost
    if limit is None:
        return None
    if together is None:
        return "Waits: its price is not known, so it cannot be told whether it fits the disruption budget."
    if limit.currency not in (None, currency):
        return f"Waits: its price is in {currency}, and the disruption budget is in {limit.currency}."
    if together > limit.amount:
        return (
            f"Waits for the disruption budget: with it, {format_amount(together)} {currency} per hour would be "
            f"disturbed within the hour; {format_amount(limit.amount)} are allowed."
        )
    return None


def too_much(
    acted_on: Iterable[Known], acts: Sequence[PastAct], resources: Mapping[str, Known], breaker: float
) -> str | None:
    """The breaker: more than its share of the installation's GPUs within an hour. One machine alone never trips it."""
    past = {act.resource_id: act.gpus for act in acts}
    planned = {known.id: gpus_of(known) for known in acted_on}
    disturbed = past | planned
    if not planned or len(disturbed) <= 1:
        return None
    running = {key: gpus_of(known) for key, known in resources.items() if runs(known) and not known.is_group}
    halted = {key: gpus for key, gpus in past.items() if key not in running and not _has_members(resources.get(key))}
    total = sum(running.values()) + sum(halted.values())
    if total and sum(disturbed.values()) / total > breaker:
        return (
            f"{sum(disturbed.values()):g} of {total:g} GPUs would be stopped within an hour, more than the "
            f"{breaker:.0%} the breaker allows."
        )
    return None


def _has_members(known: Known | None) -> bool:
    """Then its GPUs are counted with them."""
    return known is not None and bool(known.record.members)


def runs(known: Known) -> bool:
    """It runs and is ours to judge."""
    return known.governed and known.record.state is State.RUNNING


class _Planner:
    """The working state of one `plan` call."""

    def __init__(
        self,
        resources: Mapping[str, Known],
        judged: Judged,
        policies: Mapping[str, InForce],
        projects: Mapping[str, Project],
        exemptions: Sequence[Exemption],
        standing: Standing,
        limits: Limits,
        now: datetime,
    ) -> None:
        self.resources = resources
        self.judged = judged
        self.policies = policies
        self.projects = projects
        self.exemptions = exemptions
        self.standing = standing
        self.limits = limits
        self.now = now
        self.before = {finding.id: finding for finding in (*standing.findings, *standing.dismissed)}
        self.findings = dict(self.before)
        self.active = {(f.policy, f.resource_id): f for f in standing.findings}
        self.quiet = {(f.policy, f.resource_id): f for f in standing.dismissed}
        self.members = members_in(resources.values())
        self.group_of = {member.id: group for group, members in self.members.items() for member in members}
        self.still_breached: dict[str, tuple[InForce, Known]] = {}
        self.messages: list[Message] = []
        self.unknown_since: dict[str, datetime] = {}

    def _unit(self, known: Known) -> str:
        return self.group_of.get(known.id, known.id)

    def _mode(self, policy: BasePolicy, known: Known) -> Mode:
        return effective_mode(policy, known.source, self._unit(known), self.limits)

    def _capped(self, policy: BasePolicy, known: Known) -> str:
        return capped(policy, known.source, self._unit(known), self.limits)

    def changed(self) -> list[FindingState]:
        """Findings that differ from how they stood, which they remember, for whoever writes them late. That a reason's
        numbers went on is no change: rows follow change, not time; whoever asks why gets today's numbers."""
        return [
            replace(finding, was=self.before.get(key))
            for key, finding in self.findings.items()
            if key not in self.before or _standing(self.before[key]) != _standing(finding)
        ]

    def advance_all(self) -> None:
        """Each breach, present or foreseen, and each active finding, one step on."""
        touched: set[tuple[str, str]] = set()
        for name, in_force in self.policies.items():
            outcome = self.judged.judgement.outcomes[name]
            blind = isinstance(in_force.policy, COUNTING) and self._missed_some(outcome)
            for row in sorted([*outcome.breaches, *outcome.foreseen]):
                known = self._known_at(row)
                touched.add((name, known.id))
                if blind:
                    self._unknown(in_force, known, "It counts across resources, and not all of them could be seen.")
                else:
                    self._breached(in_force, known, row)
            for row in outcome.unknown:
                known = self._known_at(row)
                touched.add((name, known.id))
                self._unknown(in_force, known, self.judged.judgement.decision(name, row).reason)
        for pair, finding in self.active.items():
            if pair not in touched:
                self._not_breached(finding)
        for pair, finding in self.quiet.items():
            if pair not in touched:
                self._put(replace(finding, quiet_until=self.now))  # the breach ended once: a new one counts again

    def _known_at(self, row: int) -> Known:
        return self.resources[self.judged.facts.base["resource_id"][row]]

    def _put(self, finding: FindingState) -> FindingState:
        self.findings[finding.id] = finding
        return finding

    def _breached(self, in_force: InForce, known: Known, row: int) -> None:
        policy = in_force.policy
        if (policy.name, known.id) in self.quiet:
            return
        decision = self.judged.judgement.decision(policy.name, row)
        finding = self.active.get((policy.name, known.id)) or self._opened(in_force, known, decision)
        if finding.status in (Status.ACTING, Status.ENFORCED):
            self._settled(finding, known)
            return
        finding = replace(
            finding,
            policy_version=in_force.version,
            reason=decision.reason,
            evidence=decision.evidence,
            remedy=policy.action.value,
            rate_micros=known.price.rate_micros if known.price else None,
            currency=known.price.currency if known.price else None,
        )
        self.still_breached[finding.id] = in_force, known
        after = self._step(finding, in_force, known)
        self._put(_ahead(after) if decision.verdict is Verdict.FORESEEN else after)

    def _opened(self, in_force: InForce, known: Known, decision: Decision) -> FindingState:
        return FindingState(
            id=finding_id(in_force.policy.name, known.id, self.now),
            policy=in_force.policy.name,
            policy_version=in_force.version,
            resource_id=known.id,
            project=known.project,
            status=Status.OPEN,
            status_reason="Just found.",
            reason=decision.reason,
            evidence=decision.evidence,
            remedy=in_force.policy.action.value,
            opened_at=self.now,
        )

    def _step(self, finding: FindingState, in_force: InForce, known: Known) -> FindingState:
        """One step of a breached finding, in the order in which reasons not to act count."""
        policy = in_force.policy
        rests = self._at_rest(finding, policy, known)
        if rests is not None:
            return rests
        if finding.status in (Status.EXEMPT, Status.SNOOZED):
            finding = _reopened(finding, "The quiet time is over.")
        if finding.project != known.project:  # nobody of the old project can ask for anything here
            why = f"It moved from project {finding.project or 'none'} to {known.project or 'none'}."
            finding = replace(_reopened(finding, why), project=known.project, stop_now_by=None)
        anew = self._starts_anew(finding, in_force, known)
        if anew is not None:
            finding = _reopened(finding, anew)
        if finding.stop_now_by is None and self._mode(policy, known) is Mode.OBSERVE:
            return self._observed(finding, policy, known)
        why_forbidden = why_not(known, policy, self.limits, self.now)
        if why_forbidden is not None:
            if finding.status is not Status.REFUSED:
                self._tell(finding, in_force, known, kind="notice", acts=False, why=why_forbidden)
            refused = _afresh(finding)
            return replace(refused, status=Status.REFUSED, status_reason=why_forbidden, stop_now_by=None)
        if finding.status is Status.REFUSED:
            finding = _reopened(finding, "What forbade acting is gone.")
        if finding.stop_now_by is not None:
            return self._asked_for(finding, known)
        cool = _cooling_until(known, policy, self.now)
        if cool is not None:
            return replace(
                _afresh(finding),
                status=Status.OPEN,
                status_reason=f"It was restarted and is left alone until {cool.isoformat()} (cool-down).",
            )
        if policy.acts and known.record.state is not State.RUNNING:
            nothing = f"It is {known.record.state.value}, so there is nothing to do."
            return replace(_afresh(finding), status=Status.OPEN, status_reason=nothing)
        return self._by_mode(finding, in_force, known)

    def _observed(self, finding: FindingState, policy: BasePolicy, known: Known) -> FindingState:
        """Observe rests at open, and says what would keep it from acting in any other mode."""
        forbidden = why_not(known, policy, self.limits, self.now)
        besides = "" if forbidden is None else f" Nor could it act here: {forbidden}"
        reason = self._capped(policy, known) + besides
        if reason != finding.status_reason and fell_back(policy, self.limits):
            finding = replace(finding, episode=finding.episode + 1)  # no warning that is still on its way shall arrive
        return replace(_afresh(finding), status=Status.OPEN, status_reason=reason)

    def _at_rest(self, finding: FindingState, policy: BasePolicy, known: Known) -> FindingState | None:
        """The finding, while something or somebody keeps it from moving at all."""
        exempt = self._exempt(finding, policy, known)
        if exempt is not None:
            return exempt
        if finding.status is Status.SNOOZED and finding.quiet_until is not None and finding.quiet_until > self.now:
            return finding
        if finding.status is Status.REFUSED and finding.quiet_by == "recheck" and finding.stop_now_by is None:
            return finding  # only a full description shows what forbids it; `reconsider` asks for one now and then
        return None

    def _exempt(self, finding: FindingState, policy: BasePolicy, known: Known) -> FindingState | None:
        """The finding at rest, while an exemption covers it."""
        members = self.members.get(known.id, ())
        exemption = exemption_for(known, policy.name, self.exemptions, self.now, members=members)
        if exemption is None:
            return None
        return replace(
            _afresh(finding),
            status=Status.EXEMPT,
            quiet_until=exemption.until_utc,
            quiet_by=f"exemption {exemption.name}",
            stop_now_by=None,
            status_reason=f"Exempt until {exemption.until_utc.isoformat()}: {exemption.reason}",
        )

    def _starts_anew(self, finding: FindingState, in_force: InForce, known: Known) -> str | None:
        """Why warning and grace must start again, if they must."""
        if finding.warned_at is None:
            return None
        if finding.warned_at > self.now:
            return "The clock was set back after the warning."
        changed = in_force.stricter_since
        is_new = changed is not None and (changed <= self.now or self._judged_by(finding) != in_force.version)
        if changed is not None and changed > finding.warned_at and is_new:
            return "The policy was changed after the warning."
        if known.restarted_at is not None and self.now >= known.restarted_at > finding.warned_at:
            return "It was restarted after the warning."
        for reach in (None, known.project):
            ended = self.standing.held_until.get(reach)
            if ended is not None and ended > finding.warned_at:
                return "A hold ended after the warning."
        return None

    def _judged_by(self, finding: FindingState) -> int | None:
        """The policy's version at the last look. A change that lies ahead, as the clock was set back, counts once."""
        before = self.before.get(finding.id)
        return None if before is None else before.policy_version

    def _asked_for(self, finding: FindingState, known: Known) -> FindingState:
        """A person asked for it: due at once, or declined. What is declined lapses, so that nothing acts by surprise
        when a ceiling rises, a hold ends or the machine is started again."""
        asked_at = min(finding.due_at or self.now, self.now)
        hold = hold_for(finding.project, self.standing.holds)
        if hold is not None:
            why = f"but it has to wait. {held_words(hold)}"
        elif ceiling_of(known.source, self.limits) is not Mode.ENFORCE:
            why = "but the ceiling does not allow acting."
        elif known.record.state is not State.RUNNING:
            why = f"but it is {known.record.state.value}."
        elif self.now - asked_at > ASKED_FOR_AT_MOST:
            why = f"but that could not be done within {format_duration(ASKED_FOR_AT_MOST)}. {finding.status_reason}"
        elif finding.status is Status.DUE:
            return replace(finding, due_at=asked_at)  # tried before: the reason why it was not done stays
        else:
            why = f"{finding.stop_now_by} asked to stop it now."
            return replace(finding, status=Status.DUE, due_at=asked_at, status_reason=why)
        return replace(_reopened(finding, f"{finding.stop_now_by} asked to stop it now, {why}"), stop_now_by=None)

    def _by_mode(self, finding: FindingState, in_force: InForce, known: Known) -> FindingState:
        """Warn tells, enforce acts when the grace after a delivered warning is over."""
        policy = in_force.policy
        mode = self._mode(policy, known)
        if mode is Mode.ENFORCE and finding.warned_at is not None and finding.due_at is None:
            finding = _reopened(finding, "The earlier warning announced no act.")
        if mode is Mode.WARN and finding.due_at is not None:
            finding = _reopened(finding, "It will not be acted on after all.")
        if finding.warned_at is None:
            self._tell(finding, in_force, known, kind="warning", acts=mode is Mode.ENFORCE, why=None)
            why = "Its warning has not been delivered yet."
            return replace(finding, status=Status.OPEN, due_at=None, status_reason=why)
        if mode is Mode.WARN or finding.due_at is None:
            return replace(finding, status=Status.WARNED, status_reason=self._capped(policy, known))
        if finding.due_at > self.now:
            return replace(
                finding,
                status=Status.WARNED,
                status_reason=f"Warned; acts at {finding.due_at.isoformat()} unless somebody objects.",
            )
        return replace(finding, status=Status.DUE, status_reason="The grace is over.")

    def _tell(
        self, finding: FindingState, in_force: InForce, known: Known, *, kind: str, acts: bool, why: str | None
    ) -> None:
        """Queue a warning or notice for this episode, as far as the mode allows speaking at all."""
        if self._mode(in_force.policy, known) is Mode.OBSERVE:
            return
        project = self.projects.get(known.project) if known.project else None
        self.messages.append(
            Message(
                kind=kind,
                key=f"{kind}:{finding.id}:{finding.episode}:{_moment(in_force.stricter_since)}",
                project=known.project,
                policy_channels=in_force.policy.notify,
                payload=payload_of(finding, known, in_force, project, acts=acts, why=why),
                finding_id=finding.id,
                episode=finding.episode,
            )
        )

    def _missed_some(self, outcome: Outcome) -> bool:
        """Is there anything in a policy's scope that was not described in this look?"""
        states = self.judged.facts.base["state"]
        return any(code < OUT and states[row] is None for row, code in enumerate(outcome.codes))

    def _unknown(self, in_force: InForce, known: Known, reason: str) -> None:
        """Unknown never acts: an existing finding rests with the reason, none is opened."""
        finding = self.active.get((in_force.policy.name, known.id))
        if finding is None:
            return
        if finding.status in (Status.ACTING, Status.ENFORCED):
            self._settled(finding, known)
        elif finding.stop_now_by is not None:
            self._put(self._step(finding, in_force, known))
        elif (exempt := self._exempt(finding, in_force.policy, known)) is not None:
            self._put(exempt)
        elif finding.status in (Status.OPEN, Status.WARNED, Status.DUE):
            resting = Status.WARNED if finding.status is Status.DUE else finding.status
            self._put(replace(finding, status=resting, status_reason=f"Waiting: {reason}"))

    def _not_breached(self, finding: FindingState) -> None:
        """No longer breached, or its policy or resource is gone."""
        known = self.resources.get(finding.resource_id)
        in_force = self.policies.get(finding.policy)
        if finding.status in (Status.ACTING, Status.ENFORCED):
            self._settled(finding, known)
            return
        asked_for = finding.stop_now_by is not None and known is not None and known.governed
        if asked_for and known is not None and in_force is not None and known.record.state is State.RUNNING:
            self._put(self._step(finding, in_force, known))
            return
        if in_force is None:
            why = "Its policy no longer exists."
        elif known is None or known.ended_at is not None:
            why = "The resource no longer exists."
        elif known.orphaned_at is not None:
            why = "Its source no longer covers it."
        else:
            why = self._why_no_longer(finding.policy, known)
        self._put(replace(finding, status=Status.CLEARED, status_reason=why, closed_at=self.now))

    def _why_no_longer(self, policy: str, known: Known) -> str:
        row = self.judged.rows.get(known.id)
        if row is None:
            return "It is no longer judged."
        if row in self.judged.judgement.outcomes[policy].folded.spoken_for:
            return "It is a member of a group, which is met as a whole."
        return self.judged.judgement.decision(policy, row).reason

    def _settled(self, finding: FindingState, known: Known | None) -> None:
        """After the act: closed once the resource runs again or is gone."""
        if finding.status is not Status.ENFORCED:
            return
        if known is None or known.ended_at is not None:
            why = "The resource no longer exists."
        elif finding.remedy == Remedy.MOVE_TO_SPOT:
            if known.record.capacity_type is CapacityType.SPOT or self._state_seen(known) is None:
                return  # its running members leave as they are replaced
            why = "Somebody lets it launch on demand again; it is left alone until the breach ends once."
            self._put(replace(finding, status=Status.DISMISSED, status_reason=why, closed_at=self.now))
            return
        elif self._state_seen(known) == State.RUNNING:
            why = "It runs again."
        else:
            return
        self._put(replace(finding, status=Status.CLOSED, status_reason=why, closed_at=self.now))

    def _state_seen(self, known: Known) -> str | None:
        """Its state in this very look; None when it was not described, whatever it was before."""
        row = self.judged.rows.get(known.id)
        state: str | None = None if row is None else self.judged.facts.base["state"][row]
        return state

    def choose(self) -> list[Intent]:
        """The acts to try now: due, approved, not held, one per resource, within each disruption budget."""
        due = [finding for finding in self.findings.values() if finding.status is Status.DUE]
        in_flight = {f.resource_id for f in self.findings.values() if f.status is Status.ACTING}
        by_resource: dict[str, list[FindingState]] = {}
        for finding in due:
            if finding.resource_id in in_flight:
                self._put(replace(finding, status_reason="Another act on this resource is under way."))
                continue
            waiting = self._waits(finding)
            if waiting is not None:
                self._put(replace(finding, status_reason=waiting))
            else:
                by_resource.setdefault(finding.resource_id, []).append(finding)
        chosen = [self._one(findings) for findings in by_resource.values()]
        chosen.sort(
            key=lambda finding: (
                finding.stop_now_by is None,
                _hour(finding.due_at or self.now),
                met_first(self.resources[finding.resource_id], finding.evidence),
            )
        )
        return self._within_budgets(chosen)

    def _waits(self, finding: FindingState) -> str | None:
        """Why a due finding has to wait for a person, if it has to."""
        hold = hold_for(finding.project, self.standing.holds)
        if hold is not None:
            return held_words(hold)
        policy = self.policies[finding.policy].policy
        if policy.approval is not None and finding.approved_at is None and finding.stop_now_by is None:
            return "Waits for a person's approval."
        return None

    def _one(self, findings: Sequence[FindingState]) -> FindingState:
        """Several findings due on one resource become one act; the others keep its outcome as their reason."""
        by_id = {finding.id: finding for finding in findings}
        winner, losers = resolve(
            [
                Candidate(
                    policy=f.policy,
                    resource_id=f.resource_id,
                    remedy=Remedy(f.remedy),
                    due_at=f.due_at or self.now,
                    finding_id=f.id,
                )
                for f in findings
            ]
        )
        for loser in losers:
            self._put(replace(by_id[loser.finding_id], status_reason=f"Policy {winner.policy} acts on it first."))
        return by_id[winner.finding_id]

    def _within_budgets(self, chosen: Sequence[FindingState]) -> list[Intent]:
        counts: Counter[str] = Counter()
        spent: Counter[tuple[str, str]] = Counter()  # of each policy, in each currency: they are never added up
        for act in self.standing.acts:
            if act.policy is not None:
                counts[act.policy] += 1
                spent[act.policy, act.currency or ""] += act.rate_micros
        intents = []
        for finding in chosen:
            policy = self.policies[finding.policy].policy
            known = self.resources[finding.resource_id]
            price = known.price
            together = spent[policy.name, price.currency] + price.rate_micros if price else None
            in_scope = self.judged.judgement.outcomes[policy.name].in_scope
            full = budget_full(policy, in_scope, counts[policy.name], together, price.currency if price else "")
            if full is not None and finding.stop_now_by is None:
                self._put(replace(finding, status_reason=full))
                continue
            counts[policy.name] += 1
            if price is not None:
                spent[policy.name, price.currency] += price.rate_micros
            verb = verb_for(policy, known.record.ref.kind)
            assert verb is not None
            intents.append(Intent(finding=finding, resource=known, verb=verb.value, reason=finding.reason))
        return intents

    def shrunk(self, lost: Sequence[Known]) -> str | None:
        """The breaker: a large part of the inventory suddenly missing looks like our mistake, not theirs."""
        running = sum(runs(known) and not known.is_group for known in self.resources.values())
        if len(lost) >= SHRINK_AT_LEAST and running and len(lost) / running > self.limits.breaker:
            return f"{len(lost)} of {running} running resources suddenly vanished from the inventory."
        return None

    def hold_back(self, why: str) -> None:
        """Everything due waits for the person who lifts the breaker's hold."""
        for finding in list(self.findings.values()):
            if finding.status is Status.DUE:
                self._put(replace(finding, status_reason=f"The circuit breaker holds everything: {why}"))
        self.messages.append(
            Message(
                kind="breaker",
                key=f"breaker:{self.now.isoformat()}",
                project=None,
                policy_channels=(),
                payload={"reason": why, "held_by": "curfew", "timezone": "UTC"},
            )
        )

    def remind(self, intents: Sequence[Intent], last_look: datetime | None) -> None:
        """What was warned about and stays, in `warn` or waiting for its turn or an approval, is told again at times."""
        acting = {intent.resource.id for intent in intents}
        for key, (in_force, known) in self.still_breached.items():
            finding = self.findings[key]
            waits = finding.status is Status.DUE and finding.stop_now_by is None
            rests = finding.status is Status.WARNED and finding.due_at is None
            if finding.warned_at is None or not (waits or rests) or known.id in acting:
                continue
            number = reminders_after(self.now - finding.warned_at)
            told = 0 if last_look is None else reminders_after(last_look - finding.warned_at)
            if number > told and hold_for(finding.project, self.standing.holds) is None:
                self._remind(finding, in_force, known, number, waits=waits)

    def _remind(self, finding: FindingState, in_force: InForce, known: Known, number: int, *, waits: bool) -> None:
        assert finding.warned_at is not None
        project = self.projects.get(known.project) if known.project else None
        seconds, price = int((self.now - finding.warned_at).total_seconds()), known.price
        payload = payload_of(
            finding, known, in_force, project, acts=waits, why=None if waits else finding.status_reason
        )
        more = {
            "warned_at": finding.warned_at.isoformat(),
            "waits_for": finding.status_reason if waits else None,
            "cost_since_warning": money(price.rate_micros * seconds // 3600, price.currency) if price else None,
        }
        self.messages.append(
            Message(
                kind="reminder",
                key=f"reminder:{finding.id}:{finding.episode}:{number}",
                project=known.project,
                policy_channels=in_force.policy.notify,
                payload=payload | more,
                finding_id=finding.id,
                episode=finding.episode,
            )
        )

    def report_unknown(self) -> None:
        """Running machines that stay silent are told about, once per run; they are never acted on."""
        speaking = any(in_force.policy.mode is not Mode.OBSERVE for in_force in self.policies.values())
        loud = speaking and self.limits.ceiling is not Mode.OBSERVE
        for known in self.resources.values():
            if not runs(known) or known.is_group:
                continue
            if self.judged.default_activity(known.id)[0] != "unknown":
                continue
            since = self.standing.unknown_since.get(known.id, self.now)
            self.unknown_since[known.id] = since
            if loud and self.now - since >= UNKNOWN_REPORTED_AFTER:
                self._report(
                    known,
                    "unknown",
                    since,
                    f"It has sent no usable GPU telemetry for {format_duration(_whole_hours(self.now - since))}.",
                )

    def report_old_protections(self) -> None:
        """A protection older than 30 days is honoured and reported, once a month."""
        if self.limits.ceiling is Mode.OBSERVE:
            return
        for known in self.resources.values():
            since = known.protected_since
            if since is None or not known.governed or self.now - since < PROTECTION_REPORTED_AFTER:
                continue
            self._report(known, "protected", since, known.record.protections[0].sentence)

    def _report(self, known: Known, kind: str, since: datetime, reason: str) -> None:
        month = (self.now - since).days // 30
        project = self.projects.get(known.project) if known.project else None
        self.messages.append(
            Message(
                kind=kind,
                key=f"{kind}:{known.id}:{int(since.timestamp())}:{month}",
                project=known.project,
                policy_channels=(),
                payload={
                    "project": known.project,
                    "timezone": project.timezone if project else "UTC",
                    "resource": resource_payload(known),
                    "since": since.isoformat(),
                    "reason": reason,
                },
            )
        )


def reminders_after(age: timedelta) -> int:
    """How many reminders a warning of that age has called for: after a day, after three, then one a week."""
    first, second = REMINDED_AFTER
    if age < second:
        return int(age >= first)
    return 2 + (age - second) // REMINDED_EVERY


def _standing(finding: FindingState) -> FindingState:
    """A finding without the numbers that change with every look."""
    return replace(finding, reason="", evidence={})


def _whole_hours(length: timedelta) -> timedelta:
    return timedelta(hours=length // timedelta(hours=1))


def _afresh(finding: FindingState) -> FindingState:
    """Whatever was warned, due or approved no longer counts; a later warning belongs to a new episode."""
    if finding.warned_at is None and finding.due_at is None and finding.approved_at is None:
        return finding
    return replace(
        finding, episode=finding.episode + 1, warned_at=None, due_at=None, approved_at=None, approved_by=None
    )


def _reopened(finding: FindingState, why: str) -> FindingState:
    """Back to open, with a fresh warning and grace."""
    return replace(
        finding,
        status=Status.OPEN,
        status_reason=why,
        episode=finding.episode + 1,
        warned_at=None,
        due_at=None,
        approved_at=None,
        approved_by=None,
        quiet_until=None,
        quiet_by=None,
    )


def _ahead(finding: FindingState) -> FindingState:
    """A breach that is only foreseen is warned about and never due, unless a person asked for the act."""
    if finding.status is Status.DUE and finding.stop_now_by is None:
        return replace(finding, status=Status.WARNED, status_reason="Warned ahead; acts once it is a breach.")
    if finding.status is Status.WARNED and finding.due_at is not None:
        at = finding.due_at.isoformat()
        return replace(finding, status_reason=f"Warned ahead; acts at {at} if it is a breach by then.")
    return finding


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _cooling_until(known: Known, policy: BasePolicy, now: datetime) -> datetime | None:
    """End of the cool-down of a restarted resource, if it is still cooling."""
    if known.restarted_at is None:
        return None
    until = known.restarted_at + policy.cool_down
    return until if until > now else None
