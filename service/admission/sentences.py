"""What people read who made a pod: why it is not let in or was changed, whom to ask, when it opens again.

The webhook and the guardrails say the same. What is a breach is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from policies.policy import BasePolicy, BudgetPolicy, OwnershipPolicy, QuotaPolicy, SchedulePolicy, SpotPolicy
from policies.rules.rule import percent
from service.documents import Project
from service.visible import visible


def money_spent(policy: BudgetPolicy, project: Project, words: str, until: datetime | None) -> str:
    opens = f" until {moment(until, project)}" if until is not None else ""
    return told(
        policy.name,
        f"the money of project {project.name} is spent, so it gets no new GPU pods{opens}. {words}",
        f"Ask {people(project)} for more money or for an exemption.",
    )


def out_of_hours(policy: SchedulePolicy, project: Project | None, until: datetime | None) -> str:
    opens = f" They begin {moment(until, project)}." if until is not None else ""
    return told(
        policy.name,
        f"GPU pods {_of(project)}run {policy.schedule.on} ({_zone(project)}), and it is outside these hours.{opens}",
        f"If it cannot wait, ask {people(project)} for an exemption.",
    )


def over_quota(policy: QuotaPolicy, project: Project | None, whose: str, asked: int, running: float) -> str:
    counted = f" for {whose}" if whose else ""
    return told(
        policy.name,
        f"this pod asks for {_gpus(asked)}, and {running:g} of the {policy.quota.max_gpus} that may run at once"
        f"{counted} already run.",
        f"Wait until some have ended, or ask {people(project)} for an exemption.",
    )


def unowned(policy: OwnershipPolicy, missing: Sequence[str], keys: Iterable[str]) -> str:
    """`keys`: the labels by which projects know what is theirs."""
    advice = []
    if "project" in missing:
        known = _or(sorted(keys))
        advice.append(
            f"label it, or its namespace, with the project that pays for it ({known})"
            if known
            else "make it in a namespace of the project that pays for it"
        )
    if "owner" in missing:
        advice.append("label it with whom to ask about it (owner)")
    return told(
        policy.name,
        f"this pod asks for GPUs and has {' and '.join(f'no {name}' for name in missing)}.",
        f"In its template, {' and '.join(advice)}; whoever cannot asks {people(None)} for an exemption.",
    )


def not_on_spot(policy: BasePolicy, project: Project | None) -> str:
    """What the guardrail says: it cannot place a pod."""
    return told(
        policy.name,
        f"GPU pods {_of(project)}belong on spot nodes{_but(policy)}, and this one does not ask for them.",
        f"Give it the node selector of spot nodes, or ask {people(project)} for an exemption.",
    )


def placed(policy: BasePolicy, project: Project | None) -> str:
    return told(policy.name, f"GPU pods {_of(project)}belong on spot nodes; this one was placed there.")


def to_be_placed(policy: BasePolicy, project: Project | None) -> str:
    return told(
        policy.name,
        f"GPU pods {_of(project)}belong on spot nodes{_but(policy)}; "
        "this one is let in as it is, and would be placed there if the policy were enforced.",
    )


def asks_for_on_demand(policy: BasePolicy, project: Project | None) -> str:
    return told(
        policy.name,
        f"GPU pods {_of(project)}belong on spot nodes{_but(policy)}, and this one asks for other nodes by itself. "
        "It is let in as it is; the policy will find it there.",
        f"Take that out of it, or ask {people(project)} for an exemption.",
    )


def no_spot_known(policy: BasePolicy, project: Project | None) -> str:
    return told(
        policy.name,
        f"GPU pods {_of(project)}belong on spot nodes{_but(policy)}, "
        "but no GPU node of this cluster tells by its labels how it was bought. This one is let in as it is.",
    )


CLAIMED_TWICE = (
    "Curfew: more than one project claims this pod, so it counts for none of them. "
    "It is let in; label it so that it is one project's."
)


# Parts of sentences.


def told(policy: str, *sentences: str) -> str:
    return visible(" ".join((f"Curfew, policy {policy}:", *sentences)))


def people(project: Project | None) -> str:
    if project is None:
        return "your platform engineers"
    return _or(dict.fromkeys((*project.owners, *project.budget_owners))) or "your platform engineers"


def moment(at: datetime, project: Project | None) -> str:
    """`Tuesday 24 November, 08:00 (Asia/Ho_Chi_Minh)`."""
    local = at.astimezone(ZoneInfo(_zone(project)))
    return f"{local:%A} {local.day} {local:%B, %H:%M} ({_zone(project)})"


def _zone(project: Project | None) -> str:
    return project.timezone if project is not None else "UTC"


def _of(project: Project | None) -> str:
    return f"of project {project.name} " if project is not None else ""


def _but(policy: BasePolicy) -> str:
    allowed = policy.spot.allowed_on_demand if isinstance(policy, SpotPolicy) else 0
    return f" but for {percent(allowed)} of its GPUs" if allowed else ""


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"


def _or(words: Iterable[str]) -> str:
    *others, last = [*words] or [""]
    return f"{', '.join(others)} or {last}" if others else last
