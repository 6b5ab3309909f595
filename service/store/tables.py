"""The tables: what must survive a crash, and nothing else.

What can be derived on read (last_seen, idle_seconds, cost_to_date, avoided cost) has no column, so that an unchanged
resource costs no write. Money is integer micro-units, time is UTC, lists and maps are JSON.
"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Index, TypeDecorator, text
from sqlmodel import Column, Field, SQLModel


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC datetime on every database; a naive one is refused on its way in."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime must not be stored: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def new_id() -> str:
    """Random, safe in a URL; order comes from time columns, never from ids."""
    return uuid.uuid4().hex


def _utc(nullable: bool = True, index: bool = False) -> Any:
    return Field(default=None, sa_type=UtcDateTime, nullable=nullable, index=index)


def _json() -> Any:
    return Field(default_factory=dict, sa_column=Column(JSON, nullable=False))


def _json_list() -> Any:
    return Field(default_factory=list, sa_column=Column(JSON, nullable=False))


class Document(SQLModel, table=True):
    """A source, project, policy or exemption as it was applied, with `${SECRET}` names unresolved."""

    __tablename__ = "document"

    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    set_name: str | None = None
    """The set (folder) of files that owns it; None when it was PUT by hand."""
    version: int
    """Rises by one with every change; its decimal text is the ETag."""
    body: dict[str, Any] = _json()
    updated_at: datetime = _utc(nullable=False)
    updated_by: str
    mode_changed_at: datetime | None = _utc()
    """When a policy last became stricter: warnings and graces from before do not count."""


class Token(SQLModel, table=True):
    """An API token: only its sha256 is kept."""

    __tablename__ = "token"

    name: str = Field(primary_key=True)
    sha256: str = Field(index=True, unique=True)
    role: str
    projects: list[str] = _json_list()
    """Projects an `owner` or `viewer` is confined to; empty means all for viewer, operator and admin."""
    created_at: datetime = _utc(nullable=False)
    expires_at: datetime | None = _utc()
    created_by: str
    rotated_at: datetime | None = _utc()
    last_used_on: date | None = None
    """In UTC. To the day, so that using it costs one write a day."""


class FormerTokenText(SQLModel, table=True):
    """A token's text from before a rotation, while it still works."""

    __tablename__ = "former_token_text"

    sha256: str = Field(primary_key=True)
    name: str = Field(index=True)
    until: datetime = _utc(nullable=False)


class SourceState(SQLModel, table=True):
    """What happened when a source was last asked."""

    __tablename__ = "source_state"

    source: str = Field(primary_key=True)
    identity: str | None = None
    """Account id or cluster uid of the first success; another one later is a fault, not an empty account."""
    attempted_at: datetime | None = _utc()
    succeeded_at: datetime | None = _utc()
    """Last answer complete in every part."""
    parts: list[Any] = _json_list()
    """[{part, complete, code, sentence, permission}] of the last attempt."""
    fault: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))


class Resource(SQLModel, table=True):
    """One governed thing, as last described, with what we derived: who pays, what it costs."""

    __tablename__ = "resource"

    id: str = Field(primary_key=True)
    source: str = Field(index=True)
    provider: str
    account: str
    region: str
    zone: str | None = None
    kind: str
    external_id: str
    incarnation: str
    name: str
    sku: str
    gpu_vendor: str | None = None
    gpu_model: str | None = None
    gpu_count: int
    gpu_share: float
    gpu_memory_mib: int | None = None
    capacity_type: str
    state: str
    state_since: datetime = _utc(nullable=False)
    launched_at: datetime | None = _utc()
    created_at: datetime | None = _utc()
    tags: dict[str, str] = _json()
    managed_by: str | None = None
    members: list[Any] = _json_list()
    """A group's: external ids of the instances it has."""
    placements: list[Any] = _json_list()
    """A workload's: [{pod, node, share}]."""
    machine: str | None = None
    """A node's: what the cloud beneath calls it."""
    remarks: list[str] = _json_list()
    listed_in: str | None = None
    """The part of its source that lists it, where that is not its region."""
    same_as: str | None = Field(default=None, index=True)
    """A node's: the resource that is the same machine; only that one is shown, judged and metered."""
    lent_share: str | None = None
    """A machine's: what of its accelerators workloads hold, as a fraction, `3/4`."""
    lent_micros: int | None = Field(default=None, sa_type=BigInteger)
    """What of its running rate those workloads carry."""
    stopped_by: str | None = None
    """Who brought it down: cloud or person."""
    powered_off: bool = False
    run_limit_seconds: int | None = None
    """After how long its cloud ends each run by itself."""
    backstop_seconds: int | None = None
    """The limit that we have set there; another one is somebody else's."""
    backstop_before_seconds: int | None = None
    """The one before it, which may be there yet: whether its cloud heard of a change is not always known."""
    protections: list[Any] = _json_list()
    protected_since: datetime | None = _utc()
    blockers: list[Any] = _json_list()
    losses: list[Any] = _json_list()
    project: str | None = Field(default=None, index=True)
    project_since: datetime | None = _utc()
    owner: str | None = None
    rate_micros: int | None = Field(default=None, sa_type=BigInteger)
    """Micro-units per hour in its state now; None when no price is known."""
    running_rate_micros: int | None = Field(default=None, sa_type=BigInteger)
    currency: str | None = None
    price_source: str | None = None
    first_seen: datetime = _utc(nullable=False)
    started_at: datetime | None = _utc()
    """Start of the present run, as told by the cloud or seen by us; the idle clock starts here."""
    earlier_runs_seconds: int = Field(default=0, sa_type=BigInteger)
    """How long all runs before the present one lasted, since it was first seen."""
    restarted_at: datetime | None = _utc()
    """When it last came back after we had seen it stopped; its cool-down starts here."""
    missing_since: datetime | None = _utc()
    """First complete answer that lacked it; the second one ends it."""
    ended_at: datetime | None = _utc(index=True)
    """Terminated, by the cloud's word or by two complete answers without it."""
    orphaned_at: datetime | None = _utc()
    """Its source was narrowed or deleted: kept, shown, never judged."""
    revision: int = Field(default=0, sa_type=BigInteger, index=True)
    """Rises with every writing of resources: whoever remembers them reads only what has changed since."""


class MeterInterval(SQLModel, table=True):
    """A stretch of time in which nothing that money depends on changed. Closed only by change.

    `base` and `base_rest` are the resource's one cumulative integer at `started_at`, in micro-units × seconds per hour
    (so a rate of r for s seconds adds r·s exactly), as `base` · 3600 + `base_rest`: years of it in dong would fit no
    column of 64 bits. Cost between two moments is the difference of the cumulative floor(x / 3600).
    """

    __tablename__ = "meter_interval"
    __table_args__ = (
        Index("meter_interval_resource", "resource_id", "started_at"),
        Index("meter_interval_project", "project", "ended_at"),
        Index("meter_interval_first", "project", "started_at"),
        Index(
            "meter_interval_open",
            "resource_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index(
            "meter_interval_unsummed",
            "project",
            "ended_at",
            sqlite_where=text("summed = 0"),
            postgresql_where=text("NOT summed"),
        ),
        Index(
            "meter_interval_to_sum",
            "ended_at",
            sqlite_where=text("summed = 0 AND ended_at IS NOT NULL"),
            postgresql_where=text("NOT summed AND ended_at IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    resource_id: str
    project: str | None = None
    state: str
    capacity_type: str
    activity: str = ""
    """busy, idle or unknown by the installation's own idle profile; empty when it does not run."""
    assumed: bool = False
    """Nobody looked in this stretch; it is assumed to have gone on as it was."""
    rate_micros: int = Field(sa_type=BigInteger)
    currency: str
    price_source: str
    started_at: datetime = _utc(nullable=False)
    ended_at: datetime | None = _utc()
    base: int = Field(sa_type=BigInteger)
    """Whole micro-units."""
    base_rest: int = 0
    """Below 3600."""
    summed: bool = False
    """Its cost is in `MeterSum`; only what has ended ever is."""


class MeterSum(SQLModel, table=True):
    """What ended intervals cost in one day of their project, or (from 1970 to 1970) in all days together."""

    __tablename__ = "meter_sum"
    __table_args__ = (
        Index(
            "meter_sum_key",
            "project",
            "started_at",
            "ended_at",
            "provider",
            "gpu_model",
            "capacity_type",
            "activity",
            "assumed",
            "currency",
            unique=True,
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    project: str
    """Empty: nobody's."""
    started_at: datetime = _utc(nullable=False)
    ended_at: datetime = _utc(nullable=False)
    """The day on the project's clocks, as they were when it was summed."""
    provider: str
    gpu_model: str
    capacity_type: str
    activity: str
    assumed: bool
    currency: str
    micros: int = Field(default=0, sa_type=BigInteger)
    """Of all intervals that were ever summed."""
    rolled_up_micros: int = Field(default=0, sa_type=BigInteger)
    """Of those among them that are gone: this is all that is left of them."""


class Finding(SQLModel, table=True):
    """One policy breached by one resource; at most one active per pair. Its life: DESIGN section 5a."""

    __tablename__ = "finding"
    __table_args__ = (
        Index(
            "finding_active",
            "policy",
            "resource_id",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("finding_opened", "opened_at", "id"),
        Index("finding_status", "status", "quiet_until"),
        Index(
            "finding_untallied",
            "policy",
            sqlite_where=text("tallied = 0"),
            postgresql_where=text("NOT tallied"),
        ),
    )

    id: str = Field(default_factory=new_id, primary_key=True)
    policy: str
    policy_version: int
    resource_id: str = Field(index=True)
    project: str | None = None
    status: str
    status_reason: str
    reason: str
    evidence: dict[str, Any] = _json()
    remedy: str
    opened_at: datetime = _utc(nullable=False)
    episode: int = 1
    """Rises whenever warning and grace start anew; a warning counts only for its own episode."""
    warned_at: datetime | None = _utc()
    due_at: datetime | None = _utc()
    approved_at: datetime | None = _utc()
    approved_by: str | None = None
    stop_now_by: str | None = None
    """An authorised person asked for it: grace and the activity check are skipped, nothing else is."""
    quiet_until: datetime | None = _utc()
    """End of a snooze or exemption."""
    quiet_by: str | None = None
    closed_at: datetime | None = _utc()
    rate_micros: int | None = Field(default=None, sa_type=BigInteger)
    currency: str | None = None
    tallied: bool = False
    """It has ended, and what it could have saved is in `Tally`."""


class Action(SQLModel, table=True):
    """One attempt to change the world: intent first, then the call, the outcome, the truth read back."""

    __tablename__ = "action"
    __table_args__ = (
        Index("action_intended", "intended_at", "id"),
        Index("action_status", "status", "resumed_at", "policy", "verb"),
        Index(
            "action_untallied",
            "verified_at",
            sqlite_where=text("tallied = 0"),
            postgresql_where=text("NOT tallied"),
        ),
        Index("action_verified", "verified_at", "policy"),
        Index(
            "action_regretted",
            "policy",
            "project",
            "regret_why",
            sqlite_where=text("regretted_at IS NOT NULL"),
            postgresql_where=text("regretted_at IS NOT NULL"),
        ),
        Index(
            "action_undo_under_way",
            "undoes",
            unique=True,
            sqlite_where=text("status IN ('intended', 'taken')"),
            postgresql_where=text("status IN ('intended', 'taken')"),
        ),
    )

    id: str = Field(default_factory=new_id, primary_key=True)
    """Also the cloud's idempotency key for this attempt."""
    finding_id: str | None = Field(default=None, index=True)
    resource_id: str = Field(index=True)
    source: str
    project: str | None = None
    policy: str | None = None
    verb: str
    status: str
    """intended, taken, verified, failed, abandoned, undone"""
    reason: str
    requested_by: str
    lease_token: int
    pre_state: dict[str, Any] = _json()
    undoes: str | None = Field(default=None, index=True)
    """The action this one puts back, when it is an undo."""
    intended_at: datetime = _utc(nullable=False)
    taken_at: datetime | None = _utc()
    verified_at: datetime | None = _utc()
    undone_at: datetime | None = _utc()
    resumed_at: datetime | None = _utc()
    """First seen running again, by undo or by a person: avoided cost ends here."""
    regretted_at: datetime | None = _utc()
    """When a person undid it, or started the machine again soon after: a false stop."""
    regret_why: str | None = None
    """undo, restart"""
    abandon_at: datetime = _utc(nullable=False)
    """An intent older than one grace is given up and its finding reopened."""
    attempts: int = 0
    error: str | None = None
    rate_micros: int | None = Field(default=None, sa_type=BigInteger)
    """What an hour of running would have cost."""
    currency: str | None = None
    tallied: bool = False
    """What it avoided is final, and in `Tally`."""


class RolloutState(SQLModel, table=True):
    """How far the rollout of a policy has come; `service.model.RolloutStage`."""

    __tablename__ = "rollout"

    policy: str = Field(primary_key=True)
    fingerprint: str
    """Of the policy that it is about; another one begins anew."""
    step: int
    share: float
    """Of its scope, that is met just now; 0 after it fell back."""
    began_at: datetime = _utc(nullable=False)
    since: datetime = _utc(nullable=False)
    """When this step began."""
    fallen_back_at: datetime | None = _utc()
    reason: str


class Hold(SQLModel, table=True):
    """The emergency stop: while one is active nothing acts, everywhere or in one project."""

    __tablename__ = "hold"

    id: str = Field(default_factory=new_id, primary_key=True)
    project: str | None = None
    """None: everywhere."""
    reason: str
    created_by: str
    created_at: datetime = _utc(nullable=False)
    until: datetime | None = _utc()
    """None: until a person lifts it (the circuit breaker's own)."""
    lifted_at: datetime | None = _utc()
    lifted_by: str | None = None


class Outbox(SQLModel, table=True):
    """Messages to deliver at least once. The Message-ID is stable, so a duplicate is seen as one."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("outbox_pending", "status", "next_try_at"),
        Index("outbox_counted", "channel_kind", "status"),
        Index("outbox_created", "created_at"),
    )

    id: str = Field(default_factory=new_id, primary_key=True)
    message_id: str = Field(unique=True)
    """Built from what it is about, so that the same message cannot be queued twice."""
    kind: str
    """warning, reminder, notice, enforced, undone, failed, breaker, rollout, unknown, protected, budget"""
    finding_id: str | None = Field(default=None, index=True)
    episode: int | None = None
    action_id: str | None = None
    channel: str
    """`mail:address`, or the document's channel URL with its `${SECRET}` unresolved."""
    channel_kind: str
    """Bounded word for metrics: mail, slack, json, …"""
    payload: dict[str, Any] = _json()
    """What the message says, as data; rendered when sent."""
    status: str = "pending"
    """pending, delivered, failed (given up), withdrawn (no longer true when its turn came)"""
    attempts: int = 0
    created_at: datetime = _utc(nullable=False)
    next_try_at: datetime = _utc(nullable=False)
    delivered_at: datetime | None = _utc()
    error: str | None = None


class Backtest(SQLModel, table=True):
    """A policy tried on what was seen, by this service: asked for, under way, or with its report."""

    __tablename__ = "backtest"
    __table_args__ = (
        Index("backtest_asked", "asked_at", "id"),
        Index("backtest_policy", "policy", "digest", "status"),
    )

    id: str = Field(default_factory=new_id, primary_key=True)
    policy: str
    digest: str
    """`policies.digest`: of the policy as it was when it was tried."""
    body: dict[str, Any] = _json()
    """The policy as it was written, with `${SECRET}` names unresolved."""
    project: str | None = Field(default=None, index=True)
    """It saw what belonged to this one only; None: the whole installation's."""
    question: dict[str, Any] = _json()
    """What else was asked, in the words of the one who asked."""
    horizon_seconds: int
    """A stop is false when work is seen within this time after it."""
    step_seconds: int
    """How far one look is from the next."""
    asked_by: str
    asked_at: datetime = _utc(nullable=False)
    started_at: datetime | None = _utc()
    finished_at: datetime | None = _utc()
    status: str = "queued"
    """queued, running, done, failed"""
    holder: str
    """The process that does it."""
    alive_at: datetime = _utc(nullable=False)
    """Its last sign of life, in real time."""
    progress_share: float = 0.0
    progress_words: str = ""
    error: str | None = None
    data_from: datetime | None = _utc()
    data_to: datetime | None = _utc()
    """The stretch of the past of which something was known."""
    stops: int | None = None
    decided: int | None = None
    undecided: int | None = None
    false_stops: int | None = None
    relied_on_at: datetime | None = _utc()
    """When a policy was last let enforce because of it."""
    report: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    """`service.backtest.report.as_json`."""


class BacktestOverride(SQLModel, table=True):
    """A person let this very policy enforce without a back-test. It holds until the policy changes."""

    __tablename__ = "backtest_override"

    policy: str = Field(primary_key=True)
    digest: str = Field(primary_key=True)
    reason: str
    allowed_by: str
    allowed_at: datetime = _utc(nullable=False)


class Audit(SQLModel, table=True):
    """Who did what, when and why. Append-only: the database itself refuses updates, and deletes of what is younger than
    `AuditHorizon` says."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _utc(nullable=False)
    actor: str
    """`token:name`, `link:address`, `curfew` for the service itself."""
    verb: str
    object: str
    """`kind/name` or `kind/id`."""
    project: str | None = Field(default=None, index=True)
    reason: str = ""
    details: dict[str, Any] = _json()


class AuditHorizon(SQLModel, table=True):
    """Lines of the audit log from before may be removed. Set by retention alone, which says so in the log itself."""

    __tablename__ = "audit_horizon"

    id: int = Field(default=1, primary_key=True)
    until: datetime = _utc(nullable=False)


class Tally(SQLModel, table=True):
    """Sums over rows that will not change any more: counters on `/metrics` need not count them again."""

    __tablename__ = "tally"

    family: str = Field(primary_key=True)
    """`avoided`, `potential` (of rows that are tallied), `actions`, `false_stops`, `notifications` (of rows that are
    gone)."""
    labels: str = Field(primary_key=True)
    """A JSON list, as text."""
    value: int = Field(default=0, sa_type=BigInteger)


class Cycle(SQLModel, table=True):
    """One run of the cycle."""

    __tablename__ = "cycle"

    id: str = Field(default_factory=new_id, primary_key=True)
    started_at: datetime = _utc(nullable=False, index=True)
    finished_at: datetime | None = _utc()
    requested_by: str
    error: str | None = None
    steps: list[Any] = _json_list()
    """[{step, seconds, summary}] in order"""
    sources: list[Any] = _json_list()
    """[{source, complete, resources, parts, fault}]"""


class Lease(SQLModel, table=True):
    """One governs at a time. The token rises with every new holder and fences the old one off.

    Counted in real time (`service.store.lease`), never on the demo's accelerated clock.
    """

    __tablename__ = "lease"

    name: str = Field(primary_key=True)
    holder: str
    token: int
    expires_at: datetime = _utc(nullable=False)


class IdempotencyKey(SQLModel, table=True):
    """The answer a write gave, so that a repeated one gives the same."""

    __tablename__ = "idempotency_key"

    key: str = Field(primary_key=True)
    """token name + key"""
    fingerprint: str
    status: int
    body: dict[str, Any] = _json()
    created_at: datetime = _utc(nullable=False)


class EndedSession(SQLModel, table=True):
    """A session of the pages that was logged out of, kept for as long as its cookie could still be shown."""

    __tablename__ = "ended_session"

    id: str = Field(primary_key=True)
    ended_at: datetime = _utc(nullable=False)
    """In real time, like the session."""


class LinkUse(SQLModel, table=True):
    """A signed link that was used."""

    __tablename__ = "link_use"

    nonce: str = Field(primary_key=True)
    used_at: datetime = _utc(nullable=False)
    recipient: str
    verb: str
    finding_id: str
