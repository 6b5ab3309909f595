"""Computes the facts that belong to one policy alone: what its schedule says, where its spend budget stands, and which
resources several projects claim.

Pure. The columns are `policies.facts.OWN`; a budget policy's state comes from `service.pipeline.budget`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from policies.calendar import calendar
from policies.policy import BasePolicy, BudgetPolicy, OwnershipPolicy, SchedulePolicy
from policies.quantities import MICROS
from service.documents import Project
from service.model import BudgetKey, Known
from service.pipeline.attribute import attribute
from service.pipeline.budget import BudgetState, hourly_of

Columns = Mapping[str, list[Any]]
"""Column → one entry per resource, in their order."""

JUST_OVER = 1 + 1e-9
"""`All of it` must stay more than the sum of all but the last, however floats round."""


def own_facts(
    policies: Sequence[BasePolicy],
    resources: Sequence[Known],
    projects: Mapping[str, Project],
    budgets: Mapping[BudgetKey, BudgetState],
    now: datetime,
) -> dict[str, Columns]:
    """Policy name → its own columns, for the policies that have any."""
    found: dict[str, Columns] = {}
    for policy in policies:
        if isinstance(policy, SchedulePolicy):
            found[policy.name] = _schedule(policy, resources, projects, now)
        elif isinstance(policy, BudgetPolicy):
            found[policy.name] = own_columns(policy, resources, budgets)
        elif isinstance(policy, OwnershipPolicy):
            found[policy.name] = {"claimed_by": [_claimants(known, projects) for known in resources]}
    return found


def _claimants(known: Known, projects: Mapping[str, Project]) -> str | None:
    """The projects that claim what belongs to none of them, because there are several."""
    if known.project is not None:
        return None
    claims = attribute(known.record, known.source, projects).claimed_by
    return " and ".join(claims) if len(claims) > 1 else None


def _schedule(
    policy: SchedulePolicy, resources: Sequence[Known], projects: Mapping[str, Project], now: datetime
) -> Columns:
    """On the clocks of each resource's project; what belongs to none follows UTC."""
    by_zone = cache(lambda zone: _hours(policy, zone, now))
    zones = {name: project.timezone for name, project in projects.items()}
    rows = [by_zone(zones.get(known.project or "", "UTC")) for known in resources]
    return {
        "off_now": [off_now for off_now, _, _ in rows],
        "off_soon": [off_soon for _, off_soon, _ in rows],
        "on_again": [change for _, _, change in rows],
    }


def _hours(policy: SchedulePolicy, zone: str, now: datetime) -> tuple[bool, bool, str | None]:
    """Off now, off one grace from now, and when it switches next."""
    hours = calendar(policy.schedule.on, holidays=policy.schedule.holidays, zone=zone)
    change = hours.next_change(now)
    words = None
    if change is not None:
        local = change.astimezone(ZoneInfo(zone))
        words = f"{local:%A} {local.day} {local:%B, %H:%M} ({zone})"
    return not hours.is_on(now), not hours.is_on(now + policy.grace), words


def own_columns(policy: BudgetPolicy, resources: Sequence[Known], budgets: Mapping[BudgetKey, BudgetState]) -> Columns:
    """The state of the spend budget that each resource's project has by the policy's name for it."""
    by_project = hourly_of(resources)
    rows = {
        project: _budget(policy, project, budgets, by_project.get(project or "", {}))
        for project in {known.project for known in resources}
    }
    names = ("budget_used", "budget_used_soon", "budget_excess", "budget_words")
    return {name: [rows[known.project][index] for known in resources] for index, name in enumerate(names)}


def _budget(
    policy: BudgetPolicy,
    project: str | None,
    budgets: Mapping[BudgetKey, BudgetState],
    hourly: Mapping[str, int],
) -> tuple[float | None, float | None, float | None, str]:
    """Share used now and one grace from now, excess cost, and the words."""
    if project is None:
        return None, None, None, "It belongs to no project, so no spend budget counts for it."
    state = budgets.get((project, policy.budget.budget))
    if state is None:
        return None, None, None, f"Project {project} has no spend budget {policy.budget.budget}."
    soon = state.used_after(policy.grace)
    excess = state.excess_micros(policy.budget.at, policy.grace)
    share = None if excess is None else _in_prices(excess, state.hourly_micros or 0, hourly)
    words = state.words
    if share is None and state.error is None:
        words = f"{words} With prices in {' and '.join(sorted(hourly))} it cannot be told whose cost has to go."
    return state.used_ratio, None if soon is None else soon / state.amount_micros, share, words


def _in_prices(excess: int, total: int, hourly: Mapping[str, int]) -> float | None:
    """The excess in the money that the resources are priced in. A part of several currencies cannot be summed: None."""
    if excess <= 0 or not hourly:
        return 0.0
    if excess >= total:
        return sum(hourly.values()) / MICROS * JUST_OVER
    if len(hourly) > 1:
        return None
    (here,) = hourly.values()
    return excess * here / total / MICROS
