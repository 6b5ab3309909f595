"""Ownership: a resource that nobody answers for, some time after it appeared.

What several projects claim at once has none by that: whose it is, is not known, which is no reason to stop it.
"""

from __future__ import annotations

from sqlglot import exp

from policies.policy import OwnershipPolicy
from policies.rules.rule import Evidence, Rule, length, state_is, state_known


def condition(policy: OwnershipPolicy, in_scope: exp.Expr) -> exp.Expr:
    within = exp.Literal.number(int(policy.ownership.within.total_seconds()))
    missing = [_lacks(name) for name in policy.ownership.require]
    return exp.and_(
        state_is("terminated", wanted=False), exp.column("age_seconds") >= within, exp.or_(exp.false(), *missing)
    )


def _lacks(name: str) -> exp.Expr:
    """True where it has none; NULL where more than one project says it is theirs."""
    none = exp.column(name).is_(exp.null())
    if name != "project":
        return none
    return exp.Case(ifs=[exp.If(this=exp.column("claimed_by").is_(exp.null()), true=none)])


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
    if evidence["claimed_by"] is not None and evidence["age_seconds"] is not None:
        return f"The projects {evidence['claimed_by']} claim it at once, so whose it is is not known."
    return f"It has {_missing(policy, evidence)}, but since when it exists is not known."


def _missing(policy: OwnershipPolicy, evidence: Evidence) -> str:
    return " and ".join(_without(name, evidence) for name in policy.ownership.require if evidence[name] is None)


def _without(name: str, evidence: Evidence) -> str:
    if name == "project" and evidence["claimed_by"] is not None:
        return f"no project of its own ({evidence['claimed_by']} claim it at once)"
    return f"no {name}"


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "project", "owner", "age_seconds", "claimed_by"),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
