"""Residency: a resource in a region it must not be in."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import ResidencyPolicy
from policies.rules.rule import Evidence, Rule, state_is, state_known


def condition(policy: ResidencyPolicy, in_scope: exp.Expr) -> exp.Expr:
    allowed = [
        exp.Glob(this=exp.column("region"), expression=exp.Literal.string(pattern))
        for pattern in policy.residency.allowed_regions
    ]
    return exp.and_(state_is("terminated", wanted=False), exp.not_(exp.paren(exp.or_(*allowed))))


def breach(policy: ResidencyPolicy, evidence: Evidence) -> str:
    return f"It is in {evidence['region']}; allowed are {' and '.join(policy.residency.allowed_regions)}."


def ok(policy: ResidencyPolicy, evidence: Evidence) -> str:
    if evidence["state"] == "terminated":
        return "It is terminated."
    return f"It is in {evidence['region']}, which is allowed."


def unknown(policy: ResidencyPolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether it still is anywhere."
    return "Its region is not known."


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "region"),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
