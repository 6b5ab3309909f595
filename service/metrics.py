"""Renders the Prometheus page: once per cycle, into bytes that are then only copied. Bounded labels only, never a
machine, pod or person; single resources are asked for through the REST API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, SupportsFloat

from sqlmodel import Session

from policies.policy import BasePolicy
from policies.quantities import MICROS
from service.census import WHAT, Labels
from service.gate import gate_of, standings
from service.history.record import Recorder
from service.model import Stops
from service.pipeline.budget import BudgetState
from service.pipeline.evaluate import Judged, Look
from service.runtime import Counted, Runtime
from service.store import regrets, totals
from service.store.findings import active_holds
from service.store.resources import source_states


def render(rt: Runtime) -> bytes:
    """What a scrape gets: the page of the last cycle."""
    return rt.metrics


def page(rt: Runtime, look: Look, judged: Judged, now: datetime) -> bytes:
    """The whole page."""
    rows = _from_rows(rt, now)
    fleet = rt.memory.census.count(look.resources, judged)
    amounts, used, forecast = _budgets(look.budgets.values())
    of_budget = ("project", "budget", "currency")
    by_project = ("project", "provider", "gpu_model", "capacity_type", "currency")
    saved = ("policy", "project", "currency")
    hourly = _units(fleet.hourly_micros)
    families: list[tuple[str, str, str, Labels, Mapping[Any, SupportsFloat]]] = [
        ("curfew_resources", "gauge", "Governed resources.", WHAT, fleet.resources),
        ("curfew_gpus", "gauge", "GPUs of governed resources.", WHAT, fleet.gpus),
        ("curfew_hourly_cost", "gauge", "Cost of an hour at present rates.", (*WHAT, "currency"), hourly),
        ("curfew_cost_total", "counter", "Cost metered so far, in whole units.", by_project, _units(rows.cost)),
        ("curfew_idle_cost_total", "counter", "What of it went to idle GPUs.", by_project, _units(rows.idle)),
        ("curfew_spend_budget_amount", "gauge", "What may be spent in the period.", of_budget, amounts),
        ("curfew_spend_budget_used_ratio", "gauge", "Share of it spent; absent when unknown.", of_budget, used),
        (
            "curfew_spend_budget_forecast_ratio",
            "gauge",
            "Share the period ends at, by the faster of its paces; absent without an end.",
            of_budget,
            forecast,
        ),
        ("curfew_avoided_cost_total", "counter", "Avoided by verified stops.", saved, _units(rows.avoided)),
        ("curfew_potential_avoided_cost_total", "counter", "What was not acted on.", saved, _units(rows.potential)),
        ("curfew_findings", "gauge", "Active findings.", ("policy", "status", "project"), rows.findings),
        ("curfew_holds", "gauge", "Holds in force; without a project: everywhere.", ("project",), rows.holds),
        ("curfew_actions_total", "counter", "Actions so far.", ("policy", "verb", "outcome"), rows.actions),
        (
            "curfew_false_stops_total",
            "counter",
            "Acts of policies that people undid, or whose machine they started again within two hours.",
            ("policy", "project", "why"),
            rows.false_stops,
        ),
        (
            "curfew_false_stop_rate",
            "gauge",
            "Share of them among a policy's decided acts of the last 90 days; absent without any.",
            ("policy",),
            {(policy,): stops.regretted / stops.decided for policy, stops in rows.observed.items() if stops.decided},
        ),
        (
            "curfew_false_stop_rate_predicted",
            "gauge",
            "The same by the newest back-test of the policy as it is now; absent without one.",
            ("policy",),
            rows.predicted,
        ),
        (
            "curfew_rollout_share",
            "gauge",
            "Share of its scope that a policy's rollout has come to; 0 after it fell back.",
            ("policy",),
            rows.rollouts,
        ),
        ("curfew_notifications_total", "counter", "Messages so far.", ("channel", "outcome"), rows.notifications),
        ("curfew_telemetry_coverage_ratio", "gauge", "Running, activity known.", ("source",), fleet.coverage),
        ("curfew_source_last_success_timestamp_seconds", "gauge", "Last complete answer.", ("source",), rows.sources),
        ("curfew_source_errors_total", "counter", "Looks that failed in part.", ("source",), rt.counted.source_errors),
    ]
    if rt.settings.require_backtest is not None:
        families.append(
            (
                "curfew_policy_backtest_passed",
                "gauge",
                "May enforce: 1; lacks a back-test: 0.",
                ("policy",),
                rows.passed,
            )
        )
    families += _history(rt.recorder)
    lines = [line for family in families for line in _family(*family)] + _durations(rt.counted)
    return ("\n".join(lines) + "\n").encode()


def _history(recorder: Recorder | None) -> list[tuple[str, str, str, Labels, Mapping[Any, SupportsFloat]]]:
    """How writing what was seen goes, as of the cycle before."""
    if recorder is None:
        return []
    health = recorder.health
    written = {(): health.written_at.timestamp()} if health.written_at is not None else {}
    return [
        ("curfew_history_last_written_timestamp_seconds", "gauge", "When history was last written.", (), written),
        ("curfew_history_errors_total", "counter", "Cycles that could not write history.", (), {(): health.errors}),
    ]


def _durations(counted: Counted) -> list[str]:
    """A summary without quantiles: how often each step ran and how long it took in all."""
    lines = [
        "# HELP curfew_cycle_duration_seconds Seconds spent in each step of the cycle.",
        "# TYPE curfew_cycle_duration_seconds summary",
    ]
    for labels in sorted(counted.step_runs):
        text = _labels(("step",), labels)
        lines.append(f"curfew_cycle_duration_seconds_sum{text} {counted.step_seconds[labels]:.6f}")
        lines.append(f"curfew_cycle_duration_seconds_count{text} {counted.step_runs[labels]}")
    return lines


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What is counted from rows."""

    cost: Mapping[totals.CostKey, int]
    idle: Mapping[totals.CostKey, int]
    avoided: Mapping[Labels, int]
    potential: Mapping[Labels, int]
    actions: Mapping[Labels, int]
    findings: Mapping[Labels, int]
    notifications: Mapping[Labels, int]
    false_stops: Mapping[Labels, int]
    observed: Mapping[str, Stops]
    """Of each policy, lately."""
    predicted: Mapping[Labels, float]
    rollouts: Mapping[Labels, float]
    holds: Mapping[Labels, int]
    sources: Mapping[Labels, float]
    passed: Mapping[Labels, bool]
    """Of policies that could act, where a back-test is required."""


def _from_rows(rt: Runtime, now: datetime) -> _Rows:
    policies = [in_force.policy for in_force in rt.view.policies.values()] if rt.view else []
    rolled_out = rt.view.limits.rollouts if rt.view else {}
    with rt.database.reading() as session:
        cost, idle = totals.costs(session, now, rt.memory.open_intervals)
        return _Rows(
            cost=cost,
            idle=idle,
            avoided=totals.avoided(session, now),
            potential=totals.potential(session, now),
            actions=totals.actions(session),
            findings=totals.findings(session),
            notifications=totals.notifications(session),
            false_stops=totals.false_stops(session),
            observed=regrets.observed(session, now),
            predicted={
                (policy.name,): rate for policy in policies if (rate := regrets.predicted(session, policy)) is not None
            },
            rollouts={(name,): stage.share for name, stage in rolled_out.items()},
            holds=Counter((hold.project or "",) for hold in active_holds(session, now)),
            sources={key: at for key, at in source_states(session).items() if key[0] in rt.fleet.members},
            passed=_passed(session, rt, policies),
        )


def _passed(session: Session, rt: Runtime, policies: Iterable[BasePolicy]) -> dict[Labels, bool]:
    found = standings(session, policies, gate_of(rt))
    return {(name,): standing.passed for name, standing in found.items() if standing.required}


def _budgets(budgets: Iterable[BudgetState]) -> tuple[dict[Labels, float], dict[Labels, float], dict[Labels, float]]:
    """Amount, share used and share foreseen of every spend budget, as far as they are known."""
    amounts: dict[Labels, float] = {}
    used: dict[Labels, float] = {}
    forecast: dict[Labels, float] = {}
    for state in budgets:
        key = (state.project, state.budget.name, state.currency)
        amounts[key] = state.amount_micros / MICROS
        if state.used_ratio is not None:
            used[key] = state.used_ratio
        if state.forecast is not None:
            forecast[key] = state.forecast.high_micros / state.amount_micros
    return amounts, used, forecast


def _units(micros: Mapping[Any, int]) -> dict[Labels, float]:
    return {tuple(label or "" for label in key): amount / MICROS for key, amount in micros.items()}


def _family(name: str, kind: str, meaning: str, labels: Labels, samples: Mapping[Any, SupportsFloat]) -> Iterable[str]:
    """One metric family in the text format, in a stable order."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for key in sorted(samples):
        yield f"{name}{_labels(labels, key)} {float(samples[key])!r}"


@lru_cache(maxsize=20_000)
def _labels(names: Labels, values: Labels) -> str:
    """From page to page they are much the same."""
    if not names:
        return ""
    quoted = (value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, quoted, strict=True)) + "}"
