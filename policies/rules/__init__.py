"""The policy types: which rule judges which kind of policy. One literal table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.policy import (
    BasePolicy,
    BudgetPolicy,
    ExpressionPolicy,
    IdlePolicy,
    LifetimePolicy,
    OwnershipPolicy,
    QuotaPolicy,
    ResidencyPolicy,
    SchedulePolicy,
    SpotPolicy,
)
from policies.rules import budget, expression, idle, lifetime, ownership, quota, residency, schedule, spot
from policies.rules.rule import Rule

RULES: Mapping[type[BasePolicy], Rule[Any]] = {
    BudgetPolicy: budget.RULE,
    ExpressionPolicy: expression.RULE,
    IdlePolicy: idle.RULE,
    LifetimePolicy: lifetime.RULE,
    OwnershipPolicy: ownership.RULE,
    QuotaPolicy: quota.RULE,
    ResidencyPolicy: residency.RULE,
    SchedulePolicy: schedule.RULE,
    SpotPolicy: spot.RULE,
}
