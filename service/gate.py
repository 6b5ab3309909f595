"""Says whether a policy may begin to enforce: where the installation requires it, a back-test must have passed, or a
person who may answers for it. Asked where documents are applied, and of documents only: what enforces already goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlmodel import Session

from policies.digest import digest
from policies.policy import BasePolicy, BudgetPolicy, Mode
from policies.quantities import format_duration, format_share
from service.backtest.question import STEP
from service.model import FALSE_STOP_WITHIN
from service.runtime import Runtime
from service.settings import RequireBacktest
from service.store import audit, backtests, documents
from service.store.backtests import BacktestStatus
from service.store.documents import Change
from service.store.tables import Backtest, BacktestOverride

VALID_FOR = timedelta(days=90)
"""From its asking. A quarter on, people and machines are others."""
FRESH = timedelta(days=7)
"""Its data end at most so long before its asking: nobody picks the quiet fortnight of last spring."""
HORIZON = FALSE_STOP_WITHIN
"""The least time after a stop in which work makes it a false one: within a minute nobody is back."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What is required, and what the one who applies says to it."""

    required: RequireBacktest | None = None
    step: timedelta = STEP
    """How often this installation looks: who looks less often stops less."""
    now: datetime
    override: str | None = None
    """Why policies may enforce that have passed none."""


def gate_of(rt: Runtime, *, override: str | None = None) -> Gate:
    """This installation's, at this moment."""
    settings = rt.settings
    cycle = timedelta(seconds=settings.cycle_seconds * max(settings.demo_speed, 1))
    return Gate(required=settings.require_backtest, step=max(STEP, cycle), now=rt.clock.now(), override=override)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a policy stands before the gate."""

    required: bool
    """It could act, so it takes a back-test."""
    by: Literal["pass", "override"] | None = None
    """What lets it enforce."""
    backtest: Backtest | None = None
    """The one that decides; else the newest of the policy as it is."""
    override: BacktestOverride | None = None
    missing: str = ""
    """What there is instead, in words; empty when it may enforce."""

    @property
    def passed(self) -> bool:
        return self.by is not None

    @property
    def passed_at(self) -> datetime | None:
        if self.by == "pass" and self.backtest is not None:
            return self.backtest.finished_at
        return self.override.allowed_at if self.by == "override" and self.override is not None else None


# --- how policies stand ----------------------------------------------------------------------------------------------


def standings(session: Session, policies: Iterable[BasePolicy], gate: Gate) -> Mapping[str, Standing]:
    """Policy → how it stands; nothing where the installation requires nothing."""
    required = gate.required
    if required is None:
        return {}
    found = {policy.name: policy for policy in policies}
    tried = backtests.tried(session, found, since=gate.now - VALID_FOR)
    overrides = backtests.overrides(session, found)
    return {
        name: _standing(policy, required, gate.step, tried.get(name, ()), overrides)
        if policy.acts
        else Standing(required=False)
        for name, policy in found.items()
    }


def _standing(
    policy: BasePolicy,
    required: RequireBacktest,
    step: timedelta,
    tried: Sequence[Backtest],
    overrides: Mapping[tuple[str, str], BacktestOverride],
) -> Standing:
    """The newest that can tell decides, not the best: whoever asks often enough is lucky once."""
    as_it_is = digest(policy)
    own = [row for row in tried if row.digest == as_it_is]
    done = [row for row in own if row.status == BacktestStatus.DONE]
    sound = [row for row in done if not _flaw(row, policy, required, step)]
    deciding = next((row for row in sound if _decided(row) >= required.min_stops), None)
    if deciding is not None and _few_enough(deciding, required):
        return Standing(required=True, by="pass", backtest=deciding)
    newest = next(iter([*filter(None, [deciding]), *sound, *done]), None)
    override = overrides.get((policy.name, as_it_is))
    if override is not None:
        return Standing(required=True, by="override", backtest=newest, override=override)
    if newest is not None:
        missing = f"{_named(newest)} {_flaw(newest, policy, required, step) or _result(newest, required)}"
    elif isinstance(policy, BudgetPolicy):
        missing = "a budget policy cannot be back-tested, because history does not know what was spent"
    elif own:
        missing = f"{_named(own[0])} failed: {own[0].error}"
    elif any(row.status == BacktestStatus.DONE for row in tried):
        missing = f"it has changed since {_named(tried[0])}"
    else:
        missing = f"there is no back-test of it from the last {VALID_FOR.days} days"
    return Standing(required=True, backtest=newest, missing=missing)


def _flaw(row: Backtest, policy: BasePolicy, required: RequireBacktest, step: timedelta) -> str | None:
    """Why it cannot tell, whatever it found."""
    if row.project is not None and policy.scope.projects != (row.project,):
        return f"saw only what belongs to {row.project}, and the policy speaks of more"
    if row.horizon_seconds < HORIZON.total_seconds():
        looked = format_duration(timedelta(seconds=row.horizon_seconds))
        return f"looked for work within {looked} after a stop only, and {format_duration(HORIZON)} is the least"
    if row.step_seconds > step.total_seconds():
        looks = format_duration(timedelta(seconds=row.step_seconds))
        return f"looked every {looks} only, and Curfew looks every {format_duration(step)}"
    if row.data_from is None or row.data_to is None:
        return "knew no history"
    start, end = max(row.data_from, _asked(row, "from")), min(row.data_to, _asked(row, "to"))
    if row.asked_at - end > FRESH:
        return f"ends with {end:%d %b %Y}, and must reach to {FRESH.days} days before its asking"
    if end - start < timedelta(days=required.days):
        known = max(end - start, timedelta(0)) // timedelta(hours=1)
        return f"looked at {format_duration(timedelta(hours=known))} of history"
    return None


def _asked(row: Backtest, edge: Literal["from", "to"]) -> datetime:
    """Where the stretch that was asked for begins or ends; at the end of time where that was left open."""
    if row.question.get(edge):
        return datetime.fromisoformat(row.question[edge])
    return datetime.min.replace(tzinfo=UTC) if edge == "from" else datetime.max.replace(tzinfo=UTC)


def _decided(row: Backtest) -> int:
    return row.decided or 0


def _few_enough(row: Backtest, required: RequireBacktest) -> bool:
    return (row.false_stops or 0) <= required.max_false_stops * _decided(row) + 1e-9


def _named(row: Backtest) -> str:
    return f"its back-test {row.id[:8]} of {row.asked_at:%d %b %Y}"


def _result(row: Backtest, required: RequireBacktest) -> str:
    """What it found."""
    decided, false = _decided(row), row.false_stops or 0
    said = f"decided {decided} stop{'' if decided == 1 else 's'}"
    if decided < required.min_stops:
        return said
    return f"{said}, {false} of them false ({format_share(round(false / decided, 4))})"


# --- documents at the gate -------------------------------------------------------------------------------------------


def entering(session: Session, changes: Iterable[Change], gate: Gate) -> list[tuple[BasePolicy, Standing]]:
    """The policies that would begin to enforce, or to enforce otherwise, and how they stand. To be asked before the
    changes are made.
    """
    coming = [
        change.document
        for change in changes
        if isinstance(change.document, BasePolicy) and change.action != "unchanged"
        if change.document.mode is Mode.ENFORCE and not _goes_on(session, change.document)
    ]
    standing = standings(session, coming, gate)
    return [(policy, standing[policy.name]) for policy in coming if policy.name in standing and policy.acts]


def _goes_on(session: Session, policy: BasePolicy) -> bool:
    """It enforces already, and nothing that decides what it stops changes."""
    row = documents.find(session, "policy", policy.name)
    before = None if row is None else documents.policy_in(row)
    return before is not None and before.mode is Mode.ENFORCE and digest(before) == digest(policy)


def refusal(standing: Standing, required: RequireBacktest, file: str) -> str:
    """What is required, what there is, and what to do next."""
    file = shlex.quote(file) if file.endswith((".yaml", ".yml", ".json")) else "FILE"
    override = "apply it as an admin with --override-backtest 'why'"
    tries = f"run `curfew backtest -f {file}`, or "
    next_step = override if "cannot be back-tested" in standing.missing else tries + override
    return f"enforce takes a back-test that passed ({required}), and {standing.missing}; {next_step}"


def note(standing: Standing, gate: Gate) -> str:
    """What lets a policy enforce, for whoever reads what an apply changes."""
    if standing.by == "pass" and standing.backtest is not None and gate.required is not None:
        return f"it may enforce: {_named(standing.backtest)} {_result(standing.backtest, gate.required)}"
    if standing.override is not None:
        by, reason = standing.override.allowed_by, standing.override.reason
        return f"it may enforce without a back-test that passed, by {by}: {reason}"
    return f"it may enforce though {standing.missing}: {gate.override}"


def let_in(session: Session, entered: Iterable[tuple[BasePolicy, Standing]], gate: Gate, *, by: str) -> None:
    """Keep what each of them rests on, in the transaction that lets it enforce."""
    for policy, standing in entered:
        if standing.by == "pass" and standing.backtest is not None:
            backtests.rely_on(session, standing.backtest.id, now=gate.now)
        elif standing.by is None and gate.override is not None:
            of = digest(policy)
            backtests.override(session, policy.name, of, reason=gate.override, by=by, now=gate.now)
            audit.record(
                session,
                at=gate.now,
                actor=by,
                verb="override_backtest",
                object=f"policy/{policy.name}",
                reason=gate.override,
                details={"digest": of, "required": str(gate.required), "instead": standing.missing},
            )
