"""Lifetime: a resource that has run for longer, in all, than it was meant to."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import LifetimePolicy
from policies.rules.rule import Evidence, Rule, length, state_known
from policies.rules.running import running


def condition(policy: LifetimePolicy, in_scope: exp.Expr) -> exp.Expr:
    most = exp.Literal.number(int(policy.lifetime.max.total_seconds()))
    return exp.and_(running(), exp.column("ran_seconds") >= most)


def foreseen(policy: LifetimePolicy, in_scope: exp.Expr) -> exp.Expr:
    most = int((policy.lifetime.max - policy.grace).total_seconds())
    return exp.and_(running(), exp.column("ran_seconds") >= exp.Literal.number(max(0, most)))


def breach(policy: LifetimePolicy, evidence: Evidence) -> str:
    return f"It has run for {length(evidence['ran_seconds'])} in all; {length(policy.lifetime.max)} is allowed."


def ok(policy: LifetimePolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: its time does not run."
    return breach(policy, evidence)


def unknown(policy: LifetimePolicy, evidence: Evidence) -> str:
    return "Its state or how long it has run is not known."


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "ran_seconds"),
    breach=breach,
    ok=ok,
    unknown=unknown,
    foreseen=foreseen,
    ahead=breach,
)
