"""Spot: on-demand GPUs beyond the allowed share of the scope's running GPUs, newest first."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import SpotPolicy
from policies.rules.rule import Evidence, Rule, percent, state_known
from policies.rules.running import counted, gpus_where, oldest_first, running


def condition(policy: SpotPolicy, in_scope: exp.Expr) -> exp.Expr:
    on_demand = exp.column("capacity_type").eq(exp.Literal.string("on_demand"))
    here = exp.and_(in_scope, running())
    # What may run counts to the whole, so that a machine out of sight never narrows what is allowed.
    all_gpus = counted(gpus_where(exp.and_(in_scope, exp.func("coalesce", running(), exp.true()))))
    kept = counted(gpus_where(exp.and_(here.copy(), on_demand)), order=oldest_first())
    allowed = exp.Mul(this=exp.Literal.number(policy.spot.allowed_on_demand), expression=all_gpus)
    # A capacity type the cloud did not say is NULL: neither on demand nor spot, so it never breaches, nor is it well.
    known = exp.func("nullif", exp.column("capacity_type"), exp.Literal.string("unknown"))
    over = exp.and_(on_demand.copy(), exp.GT(this=kept, expression=allowed))
    told = exp.and_(running(), known.is_(exp.null()).not_())
    return exp.and_(running(), exp.Case(ifs=[exp.If(this=told, true=over)]))


def breach(policy: SpotPolicy, evidence: Evidence) -> str:
    return (
        f"It runs on demand, and with the older ones the scope's on-demand GPUs exceed the "
        f"{percent(policy.spot.allowed_on_demand)} that are allowed."
    )


def ok(policy: SpotPolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: it takes no capacity."
    if evidence["capacity_type"] != "on_demand":
        return f"Its capacity is {evidence['capacity_type']}."
    return f"It is within the {percent(policy.spot.allowed_on_demand)} of the scope's GPUs allowed on demand."


def unknown(policy: SpotPolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether it takes capacity."
    return "How its capacity was bought is not known; it is not taken for on demand."


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "capacity_type", "gpu_count", "running_seconds"),
    breach=breach,
    ok=ok,
    unknown=unknown,
    by_share=True,
)
