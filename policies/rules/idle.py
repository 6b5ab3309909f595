"""Idle: a running resource whose GPUs did nothing in the window. Whether they did is a fact, not judged here."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import IdlePolicy
from policies.rules.rule import Evidence, Rule, length, percent, state_is, state_known, were


def condition(policy: IdlePolicy, in_scope: exp.Expr) -> exp.Expr:
    return exp.and_(state_is("running"), exp.column("activity").eq(exp.Literal.string("idle")))


def breach(policy: IdlePolicy, evidence: Evidence) -> str:
    profile = policy.idle
    seconds = evidence["idle_seconds"]
    since = f" for {length(profile.for_ if seconds is None else seconds)}"
    count, idle = evidence["gpu_count"], evidence["idle_gpus"]
    if count is None or idle is None or idle >= count:
        subject = f"Its {_model(evidence)} has" if count == 1 else f"All {_gpus(evidence)} have"
        opening = f"{subject} been idle{since}"
    else:
        opening = (
            f"{idle} of {_gpus(evidence)} {'has' if idle == 1 else 'have'} been idle{since}, "
            f"and fewer than {profile.busy_gpus_below} busy or unknown count as idle"
        )
    numbers = [_utilisation(policy, evidence)] if evidence["max_utilisation"] is not None else []
    if evidence["coverage"] is not None:
        numbers.append(f"samples speak for {percent(evidence['coverage'])} of the last {length(profile.for_)}")
    return f"{opening}{': ' if numbers else ''}{'; '.join(numbers)}."


def ok(policy: IdlePolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: only what runs can be idle."
    busy = evidence["busy_gpus"]
    if busy is None:
        return f"It was busy in the last {length(policy.idle.for_)}."
    subject = (
        f"Its {_model(evidence)} was" if evidence["gpu_count"] == 1 else f"{busy} of {_gpus(evidence)} {were(busy)}"
    )
    numbers = f"; {_utilisation(policy, evidence)}" if evidence["max_utilisation"] is not None else ""
    return f"{subject} busy in the last {length(policy.idle.for_)}{numbers}."


def unknown(policy: IdlePolicy, evidence: Evidence) -> str:
    if not state_known(evidence):
        return "Its state is not known, so neither is whether it idles."
    window = f"in the last {length(policy.idle.for_)}"
    silent, coverage = evidence["unknown_gpus"], evidence["coverage"]
    if not silent:
        return f"Nothing is known of its GPUs {window}: unknown is never idle."
    subject = f"Its {_model(evidence)}" if evidence["gpu_count"] == 1 else f"{silent} of {_gpus(evidence)}"
    if not coverage:
        return f"{subject} sent no samples {window}: unknown is never idle."
    return (
        f"{subject} sent too few samples {window}: on the worst they speak for {percent(coverage)} of it, "
        f"where {percent(policy.idle.min_coverage)} is needed; unknown is never idle."
    )


def _model(evidence: Evidence) -> str:
    return evidence["gpu_model"] or "GPU"


def _gpus(evidence: Evidence) -> str:
    """`8 H100`, `8 GPUs`, `GPUs` when it is not known how many."""
    count, model = evidence["gpu_count"], evidence["gpu_model"]
    return f"{'' if count is None else f'{count} '}{model or 'GPUs'}"


def _utilisation(policy: IdlePolicy, evidence: Evidence) -> str:
    return (
        f"highest utilisation {percent(evidence['max_utilisation'])} against a threshold of "
        f"{percent(policy.idle.utilisation_below)}"
    )


RULE = Rule(
    condition=condition,
    when=lambda policy: policy.idle.when,
    evidence=(
        "state",
        "activity",
        "gpu_model",
        "gpu_count",
        "idle_seconds",
        "busy_gpus",
        "idle_gpus",
        "unknown_gpus",
        "coverage",
        "max_utilisation",
        "max_tensor_active",
        "max_dram_active",
        "max_power_watts",
        "max_memory_used_mib",
    ),
    breach=breach,
    ok=ok,
    unknown=unknown,
)
