"""The frozen values that pass between the steps. No SDK type, no table class, no HTTP: plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum
from fractions import Fraction
from typing import Any

from providers.records import Fault, InventoryAnswer, Kind, PartReport, Price, ResourceRecord, Series, State

_PAID_FOR = {
    Kind.NODE: (State.RUNNING, State.PENDING, State.UNKNOWN),
    Kind.WORKLOAD: (State.RUNNING, State.STOPPING),
}


@dataclass(frozen=True, kw_only=True)
class Lent:
    """What of a machine is held by workloads."""

    share: Fraction
    """Of its accelerators, at most 1."""
    micros: int
    """Of its price for an hour of running."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """One governed resource: its record, and what we derived and remember about it."""

    id: str
    source: str
    record: ResourceRecord
    first_seen: datetime
    state_since: datetime
    started_at: datetime | None = None
    """Start of the present run; the idle clock starts here."""
    earlier_runs_seconds: int = 0
    """How long all runs before the present one lasted, since it was first seen."""
    restarted_at: datetime | None = None
    """When it came back after we had seen it stopped; its cool-down starts here."""
    backstop_seconds: int | None = None
    """After how long we have told its cloud to end each run by itself; None: we have not."""
    backstop_before_seconds: int | None = None
    """What that was before: should its cloud not have heard of the change, this one is there yet, and is ours too."""
    protected_since: datetime | None = None
    missing_since: datetime | None = None
    ended_at: datetime | None = None
    orphaned_at: datetime | None = None
    project: str | None = None
    project_since: datetime | None = None
    owner: str | None = None
    price: Price | None = None
    """Rate of an hour of running; None when unknown."""
    same_as: str | None = None
    """Of a node: the resource that is the same machine, seen through its cloud. Only that one is judged and metered."""
    lent: Lent | None = None
    """Of a machine in a cluster, and of no other: what of it the cluster's workloads hold."""

    @property
    def rate_micros(self) -> int | None:
        """What an hour of it costs in its state now; None when no price is known. What workloads hold of a machine is
        their cost."""
        if self.price is None:
            return None
        if not self.costs:
            return 0
        return self.price.rate_micros - (self.lent.micros if self.lent else 0)

    @property
    def costs(self) -> bool:
        """Whether its state is one that is paid for. A machine that has joined a cluster runs, ready or not, and a
        workload holds its GPUs until its last pod is gone."""
        return self.record.state in _PAID_FOR.get(self.record.ref.kind, (State.RUNNING,))

    @property
    def is_group(self) -> bool:
        """Whether it consists of members, which are resources themselves and hold its GPUs and its cost."""
        return not self.record.ref.kind.counted

    @property
    def acted_on_in_steps(self) -> bool:
        """Whether an act on it takes several calls: of a group, or of a workload and whatever scales it. Only its own
        cloud tells then whether all of it was undone, and putting back twice is putting back once."""
        return self.is_group or self.record.ref.kind is Kind.WORKLOAD

    @property
    def governed(self) -> bool:
        """Still there and still ours to judge."""
        return self.ended_at is None and self.orphaned_at is None and self.same_as is None


@dataclass(frozen=True, kw_only=True)
class SourceAnswer:
    """What asking one source gave: an answer, or the fault that kept it from answering at all."""

    source: str
    answer: InventoryAnswer | None = None
    fault: Fault | None = None
    identity: str | None = None
    """Who the source was when it first answered; None before."""
    missing: tuple[PartReport, ...] = ()
    """What of its prices and telemetry could not be told."""

    @property
    def identity_changed(self) -> bool:
        return self.answer is not None and self.identity is not None and self.answer.identity != self.identity


LAST_LOOK = ("", "")
"""Key of `Telemetry.prior_idle`: when the last look was."""


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What was sampled, by resource id. A resource that is not a key has no series at all."""

    series: Mapping[str, tuple[Series, ...]] = field(default_factory=dict)
    ambiguous: frozenset[str] = frozenset()
    faults: tuple[PartReport, ...] = ()
    prior_idle: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    """(resource id, profile key) → since when it was idle at the last look, if it was; and when that was."""


class Status(StrEnum):
    """The life of a finding."""

    OPEN = "open"
    WARNED = "warned"
    DUE = "due"
    ACTING = "acting"
    ENFORCED = "enforced"
    REFUSED = "refused"
    SNOOZED = "snoozed"
    EXEMPT = "exempt"
    CLEARED = "cleared"
    DISMISSED = "dismissed"
    CLOSED = "closed"

    @property
    def active(self) -> bool:
        return self not in (Status.CLEARED, Status.DISMISSED, Status.CLOSED)


class ActionStatus(StrEnum):
    """The life of an action."""

    INTENDED = "intended"
    TAKEN = "taken"
    VERIFIED = "verified"
    FAILED = "failed"
    ABANDONED = "abandoned"
    UNDONE = "undone"


@dataclass(frozen=True, kw_only=True)
class FindingState:
    """One policy breached by one resource, as it stands."""

    id: str
    policy: str
    policy_version: int
    resource_id: str
    project: str | None
    status: Status
    status_reason: str
    reason: str
    evidence: Mapping[str, Any]
    remedy: str
    opened_at: datetime
    episode: int = 1
    warned_at: datetime | None = None
    due_at: datetime | None = None
    approved_at: datetime | None = None
    approved_by: str | None = None
    stop_now_by: str | None = None
    quiet_until: datetime | None = None
    quiet_by: str | None = None
    closed_at: datetime | None = None
    rate_micros: int | None = None
    currency: str | None = None
    was: FindingState | None = field(default=None, compare=False, repr=False)
    """How it stood when the plan was made: who finds it otherwise when writing was overtaken by a person."""


@dataclass(frozen=True, kw_only=True)
class PastAct:
    """An act in flight or of the last hour: what the disruption budgets and the breaker count."""

    policy: str | None
    resource_id: str
    gpus: float
    rate_micros: int
    currency: str | None = None
    found_at: datetime | None = None
    """When its finding was opened."""


FALSE_STOP_WITHIN = timedelta(hours=2)
"""Whose machine is started again so soon after a stop regrets it. Back-tests look as far, unless asked otherwise."""


@dataclass(frozen=True, kw_only=True)
class Stops:
    """How many of a policy's stops are decided, and how many of them people regretted: by an undo, or by starting the
    machine again soon after. A stop is decided once it was regretted, or its time for that is over."""

    decided: int = 0
    regretted: int = 0


@dataclass(frozen=True, kw_only=True)
class RolloutStage:
    """How far the rollout of a policy has come."""

    policy: str
    fingerprint: str
    """Of the policy that it is about; another one begins anew."""
    step: int
    """0: the first share."""
    share: float
    """Of its scope, that is met just now; 0 after it fell back."""
    began_at: datetime
    """With the first share: stops from before say nothing."""
    since: datetime
    """When this step began."""
    fallen_back_at: datetime | None = None
    reason: str = ""
    """Why it stands there."""


@dataclass(frozen=True, kw_only=True)
class ActiveHold:
    """An emergency stop in force."""

    id: str
    project: str | None
    reason: str
    until: datetime | None


@dataclass(frozen=True, kw_only=True)
class Intent:
    """An act the plan wants: handed to recheck, then to enforce."""

    finding: FindingState
    resource: Known
    verb: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something people must be told, as data. Addressed and rendered later."""

    kind: str
    """warning, reminder, notice, enforced, undone, failed, breaker, rollout, unknown, protected, budget"""
    key: str
    """What it is about; the same key is never queued twice for one channel."""
    project: str | None
    policy_channels: tuple[str, ...]
    payload: Mapping[str, Any]
    finding_id: str | None = None
    episode: int | None = None
    action_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """The meter's latest interval of one resource; open while `ended_at` is None."""

    resource_id: str
    project: str | None
    state: str
    capacity_type: str
    activity: str = ""
    """busy, idle or unknown by the installation's own idle profile; empty when it does not run."""
    assumed: bool = False
    """Nobody looked in this stretch; it is assumed to have gone on as it was."""
    rate_micros: int
    currency: str
    price_source: str
    started_at: datetime
    base: int
    """The resource's cumulative integer at `started_at`, micro-units × seconds per hour."""
    ended_at: datetime | None = None

    def reached(self, at: datetime) -> int:
        """The cumulative integer at a moment within, or at the end when it has ended before."""
        until = at if self.ended_at is None else min(at, self.ended_at)
        return self.base + self.rate_micros * max(0, int((until - self.started_at).total_seconds()))


@dataclass(frozen=True, kw_only=True)
class MeterChange:
    """End the open interval of a resource (if any) at `at`, and go on with these."""

    resource_id: str
    closes: bool
    at: datetime
    opened: tuple[Interval, ...]
    """One after the other without a hole; only the last may be open."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The stretch of time that one spend budget counts just now."""

    start: datetime
    end: datetime | None
    """None: it has no end."""
    currency: str
    zone: tzinfo


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a project spent, as far as one of its spend budgets asks. Sums in micro-units, never across currencies."""

    since: datetime | None = None
    """When anything of the project was first metered; None for never."""
    own: int = 0
    """In the period, in the budget's own currency."""
    foreign: Mapping[tuple[date, str], int] = field(default_factory=dict)
    """In the period, by day and currency, where that is another one: each day has its own rate."""
    assumed: Mapping[str, int] = field(default_factory=dict)
    """How much of the period's sums nobody saw, by currency."""
    last_day: Mapping[str, int] = field(default_factory=dict)
    """In the last 24 hours, by currency."""
    last_week: Mapping[str, int] = field(default_factory=dict)
    """In the last 7 days, by currency."""


BudgetKey = tuple[str, str]
"""Project, name of its spend budget."""
