"""Schedule: a resource that runs when its hours say off. Foreseen one grace ahead, so that the act falls on time."""

from __future__ import annotations

from sqlglot import exp

from policies.policy import SchedulePolicy
from policies.rules.rule import Evidence, Rule, state_known
from policies.rules.running import running


def condition(policy: SchedulePolicy, in_scope: exp.Expr) -> exp.Expr:
    return exp.and_(running(), exp.column("off_now"))


def foreseen(policy: SchedulePolicy, in_scope: exp.Expr) -> exp.Expr:
    return exp.and_(running(), exp.column("off_soon"))


def breach(policy: SchedulePolicy, evidence: Evidence) -> str:
    until = f" until {evidence['on_again']}" if evidence["on_again"] else ""
    return f"It runs outside its hours ({policy.schedule.on}): it should be off{until}."


def ahead(policy: SchedulePolicy, evidence: Evidence) -> str:
    return f"Its hours ({policy.schedule.on}) end at {evidence['on_again']}, and it still runs."


def ok(policy: SchedulePolicy, evidence: Evidence) -> str:
    if state_known(evidence) and evidence["state"] != "running":
        return f"It is {evidence['state']}: it may be that at any hour."
    return f"It runs within its hours ({policy.schedule.on})."


def unknown(policy: SchedulePolicy, evidence: Evidence) -> str:
    return "Its state is not known, so neither is whether it runs outside its hours."


RULE = Rule(
    condition=condition,
    when=lambda policy: None,
    evidence=("state", "off_now", "off_soon", "on_again"),
    breach=breach,
    ok=ok,
    unknown=unknown,
    foreseen=foreseen,
    ahead=ahead,
)
