"""Ownership: a resource that nobody answers for, some time after it appeared."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import OwnershipPolicy
from policies.rules.rule import Evidence, Rule, length, state_is, state_known


def condition(policy: OwnershipPolicy, in_scope: exp.Expr) -> exp.Expr:
    within = exp.Literal.number(int(policy.ownership.within.total_seconds()))
    missing = [exp.Is(this=exp.column(name), expression=exp.Null()) for name in policy.ownership.require]
    return exp.and_(
        state_is("terminated", wanted=False), exp.column("age_seconds") >= within, exp.or_(exp.false(), *missing)
    )


def breach(policy: OwnershipPolicy, evidence: Evidence) -> str:
    return (
        f"It has {_missing(policy, evidence)} {length(evidence['age_seconds'])} after it appeared; "
        f"{length(policy.ownership.within)} is allowed."
    )


def ok(policy: OwnershipPolicy, evidence: Evidence) -> str:
    if evidence["state"] == "terminated":
        return "It is terminated."
    if any(evidence[name] is None for name in policy.ownership.require):
        return (
            f"It has {_missing(policy, evidence)} yet, but appeared only {length(evidence['age_seconds'])} ago; "
            f"{length(policy.ownership.within)} is allowed."
        )
    return f"It has {' and '.join(f'the {name} {evidence[name]}' for name in policy.ownership.require)}."


def unknown(policy: OwnershipPolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether anybody need answer for it."
    return f"It has {_missing(policy, evidence)}, but since when it exists is not known."


def _missing(policy: OwnershipPolicy, evidence: Evidence) -> str:
    return " and ".join(f"no {name}" for name in policy.ownership.require if evidence[name] is None)


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "project", "owner", "age_seconds"),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
