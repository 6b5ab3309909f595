"""Expression: a person's own condition is the whole rule."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import ExpressionPolicy
from policies.rules.rule import Evidence, Rule, state_is, state_known


def condition(policy: ExpressionPolicy, in_scope: exp.Expr) -> exp.Expr:
    return state_is("terminated", wanted=False)


def breach(policy: ExpressionPolicy, evidence: Evidence) -> str:
    return policy.description or "It meets the policy's own condition."


def ok(policy: ExpressionPolicy, evidence: Evidence) -> str:
    return "It is terminated."


def unknown(policy: ExpressionPolicy, evidence: Evidence) -> str:
    assert not state_known(evidence)
    return "Its state is not known, so nothing else of it is judged."


RULE = Rule(
    condition=condition,
    when=lambda policy: policy.expression.when,
    evidence=("state",),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
