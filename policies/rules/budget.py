"""Budget: running resources of a project whose money is spent, in the policy's order, only as many as bring the
forecast of the period under the amount. Foreseen one grace before the share is reached.
"""

from __future__ import annotations

from sqlglot import exp

from policies.policy import BudgetPolicy
from policies.rules.rule import Evidence, Rule, percent, state_known
from policies.rules.running import counted, running


def condition(policy: BudgetPolicy, in_scope: exp.Expr) -> exp.Expr:
    return _met(policy, exp.column("budget_used") >= _at(policy), in_scope)


def foreseen(policy: BudgetPolicy, in_scope: exp.Expr) -> exp.Expr:
    return _met(policy, exp.column("budget_used_soon") >= _at(policy), in_scope)


def _met(policy: BudgetPolicy, spent: exp.Expr, in_scope: exp.Expr) -> exp.Expr:
    return exp.and_(_costs(), spent, _place_known(policy), _among_the_first(policy, in_scope))


def _at(policy: BudgetPolicy) -> exp.Expr:
    return exp.Literal.number(policy.budget.at)


def _costs() -> exp.Expr:
    """It runs and costs something; a price nobody knows is NULL."""
    return exp.and_(running(), exp.column("hourly_cost") > exp.Literal.number(0))


def _place_known(policy: BudgetPolicy) -> exp.Expr:
    """True, or NULL where the order asks for an activity that nobody knows."""
    if policy.budget.order != "idle_first":
        return exp.true()
    return exp.Case(ifs=[exp.If(this=_activity().is_(exp.null()).not_(), true=exp.true())])


def _activity() -> exp.Expr:
    return exp.func("nullif", exp.column("activity"), exp.Literal.string("unknown"))


def _among_the_first(policy: BudgetPolicy, in_scope: exp.Expr) -> exp.Expr:
    """Those met before it do not suffice. What may cost counts as met: being out of sight is nobody's turn."""
    may_cost = exp.and_(in_scope, exp.func("coalesce", _costs(), exp.true()))
    cost = exp.Case(
        ifs=[exp.If(this=may_cost, true=exp.func("coalesce", exp.column("hourly_cost"), exp.Literal.number(0)))],
        default=exp.Literal.number(0),
    )
    met = counted(cost, per="project", order=_order(policy), before=True)
    return exp.LT(this=met, expression=exp.column("budget_excess"))


def _order(policy: BudgetPolicy) -> list[exp.Expr]:
    """What costs most first within each rank; of unknown activity ranks with the idle, else its silence would cost
    the next one its turn.
    """
    by_cost = exp.Ordered(this=exp.column("hourly_cost"), desc=True, nulls_first=False)
    by_id = exp.Ordered(this=exp.column("resource_id"), desc=False, nulls_first=False)
    if policy.budget.order == "most_expensive_first":
        return [by_cost, by_id]
    if policy.budget.order == "newest_first":
        return [exp.Ordered(this=exp.column("running_seconds"), desc=False, nulls_first=False), by_cost, by_id]
    busy = exp.Case(
        ifs=[exp.If(this=exp.column("activity").eq(exp.Literal.string("busy")), true=exp.Literal.number(1))],
        default=exp.Literal.number(0),
    )
    return [exp.Ordered(this=busy, desc=False, nulls_first=False), by_cost, by_id]


def breach(policy: BudgetPolicy, evidence: Evidence) -> str:
    order = policy.budget.order.replace("_", " ")
    return f"{evidence['budget_words']} It is among the first to stop ({order})."


def ok(policy: BudgetPolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: it spends nothing."
    used = evidence["budget_used"]
    if used is not None and used >= policy.budget.at:
        return f"{evidence['budget_words']} Stopping others suffices to end the period within it."
    return f"{evidence['budget_words']} The policy speaks from {percent(policy.budget.at)} on."


def unknown(policy: BudgetPolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether it spends."
    told = all(evidence[name] is not None for name in ("budget_used", "budget_excess", "hourly_cost"))
    if told and policy.budget.order == "idle_first":
        return f"{evidence['budget_words']} Idle machines come first, and whether this one is idle is not known."
    return evidence["budget_words"] or f"The state of the spend budget {policy.budget.budget} is not known."


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "hourly_cost", "currency", "activity", "budget_used", "budget_excess", "budget_words"),
    breach=breach,
    ok=ok,
    unknown=unknown,
    foreseen=foreseen,
    ahead=breach,
)
