"""The snapshot that admission judges on: made of the last cycle and the documents in force, written as JSON by the
service, read by the process that answers API servers. Pure; what follows from it for a pod is `judge`'s.

What a policy counts (GPUs, money) is as the last cycle saw it. What depends on the minute (hours, ends of holds and
exemptions) is not decided here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from policies.codes import BREACH, FORESEEN, OK, UNKNOWN, WHEN_FALSE, WHEN_UNKNOWN
from policies.conditions import compile_condition
from policies.evaluate import Outcome
from policies.facts import Facts
from policies.policy import (
    BasePolicy,
    BudgetPolicy,
    Mode,
    OwnershipPolicy,
    Policy,
    QuotaPolicy,
    SchedulePolicy,
    SpotPolicy,
    lowest,
)
from providers.records import Kind
from service.admission.spot import Flavour, flavours
from service.documents import Exemption, Project, Source
from service.model import ActiveHold, BudgetKey, Known
from service.pipeline.attribute import OWNER_TAGS
from service.pipeline.budget import BudgetState, Phase
from service.pipeline.evaluate import Judged
from service.pipeline.plan import InForce, Limits, effective_mode

SPEAKING = (SpotPolicy, BudgetPolicy, SchedulePolicy, QuotaPolicy, OwnershipPolicy)
"""What can be told of a pod before it runs."""
IN_SCOPE = frozenset({OK, BREACH, UNKNOWN, WHEN_UNKNOWN, WHEN_FALSE, FORESEEN})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Workload(_Part):
    """What is known of a workload that may get further pods."""

    id: str
    """Curfew's own."""
    tags: dict[str, str]


class Cluster(_Part):
    """One source that is a Kubernetes cluster, as far as the last cycle saw it."""

    identity: str
    """The uid of its namespace kube-system."""
    flavours: tuple[Flavour, ...]
    """Whose nodes with accelerators it has or had lately."""
    namespaces: dict[str, dict[str, str]] | None
    """Their labels. null: nobody tells; then what a label might say of a pod is unknown."""
    workloads: dict[str, Workload]
    """By `namespace/Kind/name`."""


class Held(_Part):
    """A hold in force."""

    project: str | None
    until: datetime | None
    reason: str


class Money(_Part):
    """How the spend budget of a budget policy stands for one project."""

    spent: bool
    """New pods would only spend what is not there."""
    until: datetime | None
    """When its period ends; null: never."""
    words: str


class InForceAtAdmission(_Part):
    """A policy that has something to say of new pods, and what the last cycle counted for it."""

    policy: Policy
    modes: dict[str, Mode]
    """Source → how far it may go there, under every ceiling. Whose acts need an approval refuses nothing by itself."""
    gpus: float = 0
    """spot: running in its scope, and those of which that is not known."""
    on_demand_gpus: float = 0
    """spot: running on demand in its scope."""
    running: dict[str, float] = {}
    """quota: GPUs that run now for each project, owner or model; with no `per`, as the one entry ``."""
    budgets: dict[str, Money] = {}
    """budget: by project."""


class Snapshot(_Part):
    """All that admission knows."""

    at: datetime
    """When the cycle looked."""
    clusters: dict[str, Cluster]
    """By the name of their source."""
    holds: tuple[Held, ...]
    projects: tuple[Project, ...]
    """Without what is of no concern here: money and channels."""
    exemptions: tuple[Exemption, ...]
    policies: tuple[InForceAtAdmission, ...]

    @property
    def project_keys(self) -> list[str]:
        """Labels by which projects know what is theirs."""
        return sorted({key for project in self.projects for match in project.match for key in match.tags})


def made_of(
    *,
    at: datetime,
    sources: Mapping[str, Source],
    identities: Mapping[str, str],
    namespaces: Mapping[str, Mapping[str, Mapping[str, str]]],
    projects: Mapping[str, Project],
    exemptions: Iterable[Exemption],
    policies: Mapping[str, InForce],
    holds: Iterable[ActiveHold],
    limits: Limits,
    resources: Iterable[Known],
    judged: Judged,
    budgets: Mapping[BudgetKey, BudgetState],
) -> Snapshot:
    """A snapshot for every cluster whose identity is known. `namespaces` is source → name → labels, where told."""
    limits = replace(limits, source_ceilings={name: source.ceiling for name, source in sources.items()})
    exemptions = tuple(exemptions)
    speaking = {
        name: in_force.policy
        for name, in_force in sorted(policies.items())
        if isinstance(in_force.policy, SPEAKING) and _of_workloads(in_force.policy)
    }
    named = Keys.named_by(projects.values(), exemptions, speaking.values())
    there = list(resources)
    clusters = {
        name: _cluster(name, identities[name], namespaces.get(name), there, named)
        for name, source in sorted(sources.items())
        if source.provider == "kubernetes" and identities.get(name)
    }
    return Snapshot(
        at=at,
        clusters=clusters,
        holds=tuple(Held(project=hold.project, until=hold.until, reason=hold.reason) for hold in holds),
        projects=tuple(_trimmed(project) for _, project in sorted(projects.items())),
        exemptions=exemptions,
        policies=tuple(
            _in_force(policy, outcome, judged.facts, clusters, limits, budgets)
            for name, policy in speaking.items()
            if (outcome := judged.judgement.outcomes.get(name)) is not None and outcome.fault is None
        ),
    )


def _of_workloads(policy: BasePolicy) -> bool:
    scope = policy.scope
    return (not scope.kinds or "workload" in scope.kinds) and (not scope.providers or "kubernetes" in scope.providers)


def _trimmed(project: Project) -> Project:
    return project.model_copy(update={"notify": (), "spend_budgets": (), "description": ""})


# Labels.


class Keys:
    """The keys of labels that somebody asks for; of all others nothing need be known."""

    def __init__(self, exact: Iterable[str]) -> None:
        self._exact = frozenset(exact)

    @classmethod
    def named_by(
        cls, projects: Iterable[Project], exemptions: Iterable[Exemption], policies: Iterable[BasePolicy]
    ) -> Keys:
        named = {key for project in projects for match in project.match for key in match.tags}
        named |= {key for exemption in exemptions for key in exemption.tags}
        for policy in policies:
            named |= {*policy.scope.tags}
            if policy.scope.where is not None:
                named |= compile_condition(policy.scope.where, acting=policy.acts).tags
        return cls(named)

    def of(self, labels: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in labels.items() if key in self._exact or _names_an_owner(key)}


@lru_cache(maxsize=4096)
def _names_an_owner(key: str) -> bool:
    return key.lower() in OWNER_TAGS


# Clusters.


def _cluster(
    source: str,
    identity: str,
    namespaces: Mapping[str, Mapping[str, str]] | None,
    resources: Sequence[Known],
    named: Keys,
) -> Cluster:
    ours = [known for known in resources if known.source == source]
    return Cluster(
        identity=identity,
        flavours=flavours(known.record.tags for known in ours if known.record.ref.kind is Kind.NODE),
        namespaces=None if namespaces is None else {name: named.of(labels) for name, labels in namespaces.items()},
        workloads={
            known.record.ref.external_id: Workload(id=known.id, tags=named.of(known.record.tags))
            for known in ours
            if known.record.ref.kind is Kind.WORKLOAD and known.governed
        },
    )


# Policies.


def _in_force(
    policy: Policy,
    outcome: Outcome,
    facts: Facts,
    clusters: Iterable[str],
    limits: Limits,
    budgets: Mapping[BudgetKey, BudgetState],
) -> InForceAtAdmission:
    by_hand = Mode.WARN if policy.approval is not None else Mode.ENFORCE
    counted: dict[str, Any] = {}
    match policy:
        case SpotPolicy():
            counted = _spot(outcome, facts)
        case QuotaPolicy():
            counted = {"running": _running(policy, outcome, facts)}
        case BudgetPolicy():
            counted = {
                "budgets": {
                    project: _money(policy, state)
                    for (project, budget), state in budgets.items()
                    if budget == policy.budget.budget
                }
            }
    return InForceAtAdmission(
        policy=policy.model_copy(update={"notify": (), "description": ""}),
        modes={source: lowest(effective_mode(policy, source, None, limits), by_hand) for source in clusters},
        **counted,
    )


def _spot(outcome: Outcome, facts: Facts) -> dict[str, float]:
    """As the rule itself counts: what may run counts to the whole."""
    states, bought = facts.base["state"], facts.base["capacity_type"]
    here = [row for row in _rows(outcome, facts) if states[row] in (None, "running")]
    on_demand = [row for row in here if states[row] == "running" and bought[row] == "on_demand"]
    return {
        "gpus": sum(_gpus(facts, row) for row in here),
        "on_demand_gpus": sum(_gpus(facts, row) for row in on_demand),
    }


def _running(policy: QuotaPolicy, outcome: Outcome, facts: Facts) -> dict[str, float]:
    per = policy.quota.per
    states, whose = facts.base["state"], facts.base[per] if per else None
    found: Counter[str] = Counter()
    for row in _rows(outcome, facts):
        name = whose[row] if whose is not None else ""
        if states[row] == "running" and name is not None:
            found[name] += _gpus(facts, row)  # type: ignore[assignment]  # parts of GPUs count too
    return dict(found)


def _rows(outcome: Outcome, facts: Facts) -> Iterable[int]:
    """What the policy speaks of for certain; a group is counted by its members."""
    kinds = facts.base["kind"]
    return (row for row, code in enumerate(outcome.codes) if code in IN_SCOPE and kinds[row] != "node_group")


def _gpus(facts: Facts, row: int) -> float:
    """Those of a machine that workloads hold are theirs."""
    return (facts.base["gpu_count"][row] or 0) - (facts.base["requested_gpus"][row] or 0)


def _money(policy: BudgetPolicy, state: BudgetState) -> Money:
    at = policy.budget.at
    reached = state.phase is Phase.RUNNING and state.is_share(at, state.used_micros)
    # Below the amount it is only refused what would lead beyond it.
    spent = reached and (state.spent or (state.excess_micros(at, policy.grace) or 0) > 0)
    return Money(spent=spent, until=state.window.end, words=state.words)
