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

from policies.quantities import MICROS
from service.census import WHAT, Labels
from service.pipeline.budget import BudgetState
from service.pipeline.evaluate import Judged, Look
from service.runtime import Counted, Runtime
from service.store import totals
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
        ("curfew_notifications_total", "counter", "Messages so far.", ("channel", "outcome"), rows.notifications),
        ("curfew_telemetry_coverage_ratio", "gauge", "Running, activity known.", ("source",), fleet.coverage),
        ("curfew_source_last_success_timestamp_seconds", "gauge", "Last complete answer.", ("source",), rows.sources),
        ("curfew_source_errors_total", "counter", "Looks that failed in part.", ("source",), rt.counted.source_errors),
    ]
    lines = [line for family in families for line in _family(*family)] + _durations(rt.counted)
    return ("\n".join(lines) + "\n").encode()


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
    holds: Mapping[Labels, int]
    sources: Mapping[Labels, float]


def _from_rows(rt: Runtime, now: datetime) -> _Rows:
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
            holds=Counter((hold.project or "",) for hold in active_holds(session, now)),
            sources={key: at for key, at in source_states(session).items() if key[0] in rt.fleet.members},
        )


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
    quoted = (value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, quoted, strict=True)) + "}"
