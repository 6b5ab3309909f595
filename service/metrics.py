"""Renders the Prometheus page: once per cycle, into bytes that are then only copied. Bounded labels only, never a
machine, pod or person; single resources are asked for through the REST API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from policies.quantities import MICROS
from providers.records import State
from service.pipeline.budget import BudgetState
from service.pipeline.evaluate import Judged
from service.runtime import Counted, Runtime
from service.store import totals
from service.store.resources import source_states

Labels = tuple[str, ...]


def render(rt: Runtime) -> bytes:
    """What a scrape gets: the page of the last cycle."""
    return rt.metrics


def page(rt: Runtime, judged: Judged, budgets: Iterable[BudgetState], now: datetime) -> bytes:
    """The whole page."""
    with rt.database.reading() as session:
        cost, idle = totals.costs(session, now)
        avoided, potential = totals.avoided(session, now), totals.potential(session, now)
        acted, found, said = totals.actions(session), totals.findings(session), totals.notifications(session)
        sources = source_states(session)
    resources, gpus, hourly = _inventory(judged)
    amounts, used, forecast = _budgets(budgets)
    of_budget = ("project", "budget", "currency")
    by_project = ("project", "provider", "gpu_model", "capacity_type", "currency")
    what = ("project", "provider", "region", "kind", "state", "gpu_model", "capacity_type", "activity")
    saved = ("policy", "project", "currency")
    families: list[tuple[str, str, str, Labels, Mapping[Any, float]]] = [
        ("curfew_resources", "gauge", "Governed resources.", what, resources),
        ("curfew_gpus", "gauge", "GPUs of governed resources.", what, gpus),
        ("curfew_hourly_cost", "gauge", "Cost of an hour at present rates.", (*what, "currency"), hourly),
        ("curfew_cost_total", "counter", "Cost metered so far, in whole units.", by_project, _units(cost)),
        ("curfew_idle_cost_total", "counter", "What of it went to idle GPUs.", by_project, _units(idle)),
        ("curfew_spend_budget_amount", "gauge", "What may be spent in the period.", of_budget, amounts),
        ("curfew_spend_budget_used_ratio", "gauge", "Share of it spent; absent when unknown.", of_budget, used),
        (
            "curfew_spend_budget_forecast_ratio",
            "gauge",
            "Share the period ends at, by the faster of its paces; absent without an end.",
            of_budget,
            forecast,
        ),
        ("curfew_avoided_cost_total", "counter", "Avoided by verified stops.", saved, _units(avoided)),
        ("curfew_potential_avoided_cost_total", "counter", "What was not acted on.", saved, _units(potential)),
        ("curfew_findings", "gauge", "Active findings.", ("policy", "status", "project"), found),
        ("curfew_actions_total", "counter", "Actions so far.", ("policy", "verb", "outcome"), acted),
        ("curfew_notifications_total", "counter", "Messages so far.", ("channel", "outcome"), said),
        ("curfew_telemetry_coverage_ratio", "gauge", "Running, activity known.", ("source",), _coverage(judged)),
        ("curfew_source_last_success_timestamp_seconds", "gauge", "Last complete answer.", ("source",), sources),
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


def _inventory(judged: Judged) -> tuple[Counter[Labels], Counter[Labels], Counter[Labels]]:
    """How many resources and GPUs there are, and what they cost an hour, by bounded labels."""
    base = judged.facts.base
    resources: Counter[Labels] = Counter()
    gpus: Counter[Labels] = Counter()
    hourly: Counter[Labels] = Counter()
    for row in range(len(judged.facts)):
        state = base["state"][row] or State.UNKNOWN.value
        activity = judged.default_activity(base["resource_id"][row])[0] if state == State.RUNNING else ""
        place = (str(base[name][row] or "") for name in ("project", "provider", "region", "kind"))
        model, capacity = base["gpu_model"][row] or "", base["capacity_type"][row]
        key: Labels = (*place, state, model, capacity, activity)
        resources[key] += 1
        gpus[key] += base["gpu_count"][row]
        if base["hourly_cost"][row] is not None:
            hourly[(*key, base["currency"][row])] += base["hourly_cost"][row]
    return resources, gpus, hourly


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


def _coverage(judged: Judged) -> dict[Labels, float]:
    running: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for row in range(len(judged.facts)):
        if judged.facts.base["state"][row] == State.RUNNING:
            source = judged.facts.base["source"][row]
            running[source] += 1
            known[source] += judged.default_activity(judged.facts.base["resource_id"][row])[0] != "unknown"
    return {(source,): known[source] / count for source, count in running.items()}


def _units(micros: Mapping[Any, int]) -> dict[Labels, float]:
    return {tuple(label or "" for label in key): amount / MICROS for key, amount in micros.items()}


def _family(name: str, kind: str, meaning: str, labels: Labels, samples: Mapping[Any, float]) -> Iterable[str]:
    """One metric family in the text format, in a stable order."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for key in sorted(samples):
        yield f"{name}{_labels(labels, key)} {float(samples[key])!r}"


def _labels(names: Labels, values: Labels) -> str:
    quoted = (value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"") for value in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, quoted, strict=True)) + "}"
