"""Quota: running GPUs beyond an agreed number, newest first."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import QuotaPolicy
from policies.rules.rule import Evidence, Rule, state_known
from policies.rules.running import counted, gpus_where, oldest_first, running


def condition(policy: QuotaPolicy, in_scope: exp.Expr) -> exp.Expr:
    reached = counted(gpus_where(exp.and_(in_scope, running())), per=policy.quota.per, order=oldest_first())
    over = exp.GT(this=reached, expression=exp.Literal.number(policy.quota.max_gpus))
    if policy.quota.per is None:
        return exp.and_(running(), over)
    # Without a project (owner, model) there is nothing to count for: NULL, not somebody else's quota.
    counted_for = exp.Case(ifs=[exp.If(this=exp.column(policy.quota.per).is_(exp.null()).not_(), true=over)])
    return exp.and_(running(), counted_for)


def breach(policy: QuotaPolicy, evidence: Evidence) -> str:
    return f"With it, more than {policy.quota.max_gpus} GPUs run at once{_for(policy, evidence)}; the newest are over."


def ok(policy: QuotaPolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: only what runs counts."
    return f"It is within the {policy.quota.max_gpus} GPUs that may run at once{_for(policy, evidence)}."


def unknown(policy: QuotaPolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether it counts."
    return f"Its {_word(policy)} is not known, so neither is whose quota it counts for."


def _word(policy: QuotaPolicy) -> str:
    return (policy.quota.per or "scope").replace("gpu_model", "GPU model")


def _for(policy: QuotaPolicy, evidence: Evidence) -> str:
    return f" for {_word(policy)} {evidence[policy.quota.per]}" if policy.quota.per else ""


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "project", "owner", "gpu_model", "gpu_count", "running_seconds"),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
