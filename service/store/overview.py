"""Reads what the pages show: totals by project, findings by urgency, actions, sources, holds. Writes nothing.

The sums are those of `/metrics`; currencies are kept apart. What a reader may see is asked of `Sees`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any, TypeVar

from sqlmodel import Session, SQLModel, col, select

from service.store import outbox, views
from service.store import totals as money
from service.store.sums import counted, there
from service.store.tables import Action, Cycle, Document, Finding, Hold, Outbox, Resource, SourceState

Row = TypeVar("Row", bound=SQLModel)
Sees = Callable[[str | None], bool]
"""Whether things of this project (None: nobody's) may be shown."""
ActivityOf = Callable[[str], str]
"""Resource id → busy, idle or unknown, as the last cycle judged it."""
Money = dict[str, int]
"""Currency → micro-units."""

URGENCY = ("acting", "due", "warned", "refused", "open", "snoozed", "exempt", "enforced")
"""Active findings are shown in this order of their status."""
ACTIVITIES = ("busy", "idle", "unknown", "stopped")
AT_FIRST = 8
"""Findings on the first page; the others are one click away."""
SHOWN = 500
"""Rows of a page's list at most; the API lists everything."""


@dataclass(kw_only=True)
class Totals:
    """One project's share of the fleet, or all of it."""

    project: str | None = None
    resources: int = 0
    """Groups too; the GPUs and the cost of a group are its members', and counted with them."""
    gpus: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ACTIVITIES, 0.0))
    """Activity (`stopped` for what does not run) → GPUs, a shared one counted by its share."""
    hourly: Money = field(default_factory=lambda: defaultdict(int))
    idle_hourly: Money = field(default_factory=lambda: defaultdict(int))
    unpriced: int = 0
    """Running resources whose price is not known: the sums lack them."""

    @property
    def all_gpus(self) -> float:
        return sum(self.gpus.values())

    def add(self, other: Totals) -> None:
        self.resources += other.resources
        self.unpriced += other.unpriced
        for activity, gpus in other.gpus.items():
            self.gpus[activity] += gpus
        for mine, theirs in ((self.hourly, other.hourly), (self.idle_hourly, other.idle_hourly)):
            for currency, micros in theirs.items():
                mine[currency] += micros


@dataclass(frozen=True, kw_only=True)
class FindingRow:
    """The most urgent finding of one resource, and what else was found about it."""

    finding: Finding
    resource: Resource | None
    """None when it was forgotten, or has moved to where this reader does not see it."""
    others: Sequence[Finding] = ()


@dataclass(frozen=True, kw_only=True)
class ActionRow:
    """An action with the resource it was on."""

    action: Action
    resource: Resource | None
    undo: Action | None
    """The newest attempt to put it back."""

    @property
    def can_be_undone(self) -> bool:
        """Worth offering; whether it works is decided by who carries it out."""
        action = self.action
        done = action.status == "verified" and action.undoes is None and action.resumed_at is None
        running = self.undo is not None and self.undo.status in ("intended", "taken", "verified")
        return done and action.verb != "terminate" and not running


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """How a source does: `fine`, `partly` (something of it failed), `failing`, or `new` (never asked)."""

    name: str
    provider: str
    health: str
    succeeded_at: datetime | None
    faults: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything on the first page."""

    total: Totals
    projects: Sequence[Totals]
    avoided: Money
    potential: Money
    """What acting at once on findings that were only observed or warned about would have saved."""
    findings: Sequence[FindingRow]
    findings_left_out: int
    actions: Sequence[ActionRow]
    sources: Sequence[SourceRow]
    holds: Sequence[Hold]
    cycle: Cycle | None
    undelivered: int
    """Messages that were tried and wait to be tried again."""
    undelivered_because: str | None
    timezones: Mapping[str, str]


def overview(session: Session, now: datetime, activity: ActivityOf, sees: Sees, *, all_of_it: bool) -> Overview:
    """The first page, as this reader may see it. Sources and cycles speak of all of it."""
    projects = totals(session, activity, sees)
    total = Totals()
    for one in projects:
        total.add(one)
    findings, found = most_urgent(session, sees, AT_FIRST)
    undelivered, because = outbox.undelivered(session) if all_of_it else (0, None)
    return Overview(
        total=total,
        projects=projects,
        avoided=_by_currency(money.avoided(session, now), sees),
        potential=_by_currency(money.potential(session, now), sees),
        findings=findings,
        findings_left_out=found - len(findings),
        actions=recent_actions(session, sees),
        sources=sources(session) if all_of_it else (),
        holds=[hold for hold in views.holds(session, now=now) if hold.project is None or sees(hold.project)],
        cycle=views.last_cycle(session) if all_of_it else None,
        undelivered=undelivered,
        undelivered_because=because,
        timezones=timezones(session),
    )


def totals(session: Session, activity: ActivityOf, sees: Sees) -> list[Totals]:
    """By project, dearest first; what is gone or no longer judged is not in it."""
    rows = session.exec(
        select(  # type: ignore[call-overload]  # SQLModel types no more than four columns
            Resource.id,
            Resource.project,
            Resource.state,
            Resource.gpu_count,
            Resource.gpu_share,
            Resource.rate_micros,
            Resource.currency,
            Resource.lent_share,
            counted(),
        ).where(there())
    )
    found: dict[str | None, Totals] = {}
    for resource_id, project, state, gpus, share, rate, currency, lent, counts in rows:
        if not sees(project):
            continue
        one = found.setdefault(project, Totals(project=project))
        one.resources += 1
        if not counts:
            continue
        doing = shown_activity(state, activity(resource_id) if lent is None else "idle")  # what nobody requested
        one.gpus[doing] += float(gpus * (1 - Fraction(lent or 0))) * share
        if rate is None or currency is None:
            one.unpriced += state == "running"
            continue
        one.hourly[currency] += rate
        if doing == "idle":
            one.idle_hourly[currency] += rate
    return sorted(found.values(), key=lambda one: (-sum(one.hourly.values()), one.project or "\uffff"))


def shown_activity(state: str, told: str) -> str:
    """What a resource does, as shown: `stopped` unless it runs, and unknown unless something is known."""
    if state != "running":
        return "stopped" if state in ("stopped", "suspended", "stopping") else "unknown"
    return told if told in ("busy", "idle") else "unknown"


def most_urgent(session: Session, sees: Sees, at_most: int | None = None) -> tuple[list[FindingRow], int]:
    """By resource, findings that have not ended: the first so many of the most urgent, then of the dearest, and how
    many there are in all. Only what is shown is read in full.
    """
    asked = select(Finding.id, Finding.resource_id, Finding.project, Finding.status, Finding.rate_micros)  # type: ignore[call-overload]  # five columns
    by_resource: dict[str, list[tuple[tuple[int, int, str], str]]] = defaultdict(list)
    for id, resource_id, project, status, rate in session.exec(asked.where(col(Finding.closed_at).is_(None))):
        if sees(project):
            by_resource[resource_id].append((_urgency(status, rate, id), id))
    ranked = sorted(sorted(found) for found in by_resource.values())
    shown = [[id for _, id in found] for found in ranked[:at_most]]
    findings = _by_id(session, Finding, [id for ids in shown for id in ids])
    resources = _by_id(session, Resource, [findings[ids[0]].resource_id for ids in shown])
    rows = []
    for first, *others in shown:
        resource = resources.get(findings[first].resource_id)
        rows.append(
            FindingRow(
                finding=findings[first],
                resource=resource if resource and sees(resource.project) else None,
                others=[findings[id] for id in others],
            )
        )
    return rows, len(ranked)


def _by_id(session: Session, table: type[Row], ids: Sequence[str]) -> dict[str, Row]:
    key: Any = table.id  # type: ignore[attr-defined]
    found: dict[str, Row] = {}
    for some in outbox.batched(ids, outbox.ASKED_AT_ONCE):
        found |= {row.id: row for row in session.exec(select(table).where(key.in_(some)))}  # type: ignore[attr-defined]
    return found


def _urgency(status: str, rate_micros: int | None, id: str) -> tuple[int, int, str]:
    return URGENCY.index(status) if status in URGENCY else len(URGENCY), -(rate_micros or 0), id


def _by_currency(found: Mapping[tuple[str, ...], int], sees: Sees) -> Money:
    """The sums of (policy, project, currency) that this reader may see, by currency."""
    total: Money = defaultdict(int)
    for (_policy, project, currency), micros in found.items():
        if sees(project or None):
            total[currency] += micros
    return total


def recent_actions(session: Session, sees: Sees, *, limit: int = 10) -> list[ActionRow]:
    """The newest first; undos stand beside what they put back."""
    rows = session.exec(
        select(Action, Resource)
        .outerjoin(Resource, col(Resource.id) == col(Action.resource_id))
        .where(col(Action.undoes).is_(None))
        .order_by(col(Action.intended_at).desc(), col(Action.id).desc())
        .limit(limit * 5)
    ).all()
    shown = [
        (action, resource if resource and sees(resource.project) else None)
        for action, resource in rows
        if sees(action.project)
    ]
    return _with_undos(session, shown[:limit])


def actions_of(session: Session, finding_id: str) -> list[ActionRow]:
    """What was done about one finding, the newest first."""
    rows = session.exec(
        select(Action, Resource)
        .outerjoin(Resource, col(Resource.id) == col(Action.resource_id))
        .where(col(Action.undoes).is_(None), col(Action.finding_id) == finding_id)
        .order_by(col(Action.intended_at).desc(), col(Action.id).desc())
    ).all()
    return _with_undos(session, rows)


def _with_undos(session: Session, rows: Sequence[tuple[Action, Resource | None]]) -> list[ActionRow]:
    ids = [action.id for action, _ in rows]
    undos = session.exec(select(Action).where(col(Action.undoes).in_(ids)).order_by(col(Action.intended_at))).all()
    newest = {undo.undoes: undo for undo in undos}
    return [ActionRow(action=action, resource=resource, undo=newest.get(action.id)) for action, resource in rows]


def messages_of(session: Session, finding_id: str) -> Sequence[Outbox]:
    """Who was told what about a finding, the newest first."""
    return session.exec(
        select(Outbox)
        .where(col(Outbox.finding_id) == finding_id)
        .order_by(col(Outbox.created_at).desc(), col(Outbox.channel))
        .limit(SHOWN)
    ).all()


def resources(session: Session, project: str | None) -> Sequence[Resource]:
    """A project's (None: nobody's) living resources, the dearest first."""
    return session.exec(
        select(Resource)
        .where(
            col(Resource.project) == project if project is not None else col(Resource.project).is_(None),
            there(),
        )
        .order_by(col(Resource.rate_micros).desc(), col(Resource.name), col(Resource.id))
        .limit(SHOWN)
    ).all()


def sources(session: Session) -> list[SourceRow]:
    """Every source applied, and how it does."""
    documents = session.exec(select(Document).where(col(Document.kind) == "source").order_by(col(Document.name))).all()
    states = {state.source: state for state in session.exec(select(SourceState))}
    return [source_row(row.name, str(row.body.get("provider", "")), states.get(row.name)) for row in documents]


def source_row(name: str, provider: str, state: SourceState | None) -> SourceRow:
    if state is None:
        return SourceRow(name=name, provider=provider, health="new", succeeded_at=None, faults=())
    # a part can be complete and lack what acting takes: locks that must not be read, sizes that are not told
    broken = [part for part in state.parts if not part.get("complete") or part.get("fault")]
    faults = tuple(f"{part.get('part')}: {_sentence(part.get('fault'))}" for part in broken)
    if state.fault is not None:
        return SourceRow(
            name=name,
            provider=provider,
            health="failing",
            succeeded_at=state.succeeded_at,
            faults=(_sentence(state.fault),),
        )
    health = "partly" if broken else "fine"
    return SourceRow(name=name, provider=provider, health=health, succeeded_at=state.succeeded_at, faults=faults)


def _sentence(fault: Mapping[str, Any] | None) -> str:
    return str((fault or {}).get("sentence") or "it gave no reason")


def timezones(session: Session) -> dict[str, str]:
    """Project → its time zone."""
    rows = session.exec(select(Document).where(col(Document.kind) == "project")).all()
    return {row.name: str(row.body.get("timezone", "UTC")) for row in rows}


def needs_approval(session: Session, policy: str) -> bool:
    """Whether a policy waits for a person's yes before it acts."""
    row = session.get(Document, ("policy", policy))
    return row is not None and row.body.get("approval") is not None
