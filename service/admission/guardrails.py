"""What can be said once and for all, as plain ValidatingAdmissionPolicies: they need no process of ours, and know only
what was so when they were printed. Pure.

Hours, counts and a person's own conditions need the webhook; they are named among what is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml

from policies.policy import BasePolicy, BudgetPolicy, Mode, OwnershipPolicy, SpotPolicy
from service.admission import sentences
from service.admission.judge import fits
from service.admission.snapshot import Cluster, InForceAtAdmission, Snapshot
from service.admission.spot import AFFINITY, LABELS, SPOT_WORDS, Flavour
from service.documents import Exemption, Match, Project
from service.pipeline.attribute import OWNER_TAGS

Manifest = dict[str, Any]

ACTIONS: dict[Mode, list[str]] = {Mode.OBSERVE: ["Audit"], Mode.WARN: ["Audit", "Warn"], Mode.ENFORCE: ["Deny"]}

ACCELERATORS = (
    "^(nvidia[.]com/|amd[.]com/|habana[.]ai/|aws[.]amazon[.]com/neuron|google[.]com/tpu|gpu[.]intel[.]com/"
    "|qualcomm[.]com/)"
)


@dataclass(frozen=True, kw_only=True)
class Guardrails:
    """Manifests, and in sentences what they do not hold."""

    manifests: tuple[Manifest, ...]
    notes: tuple[str, ...]

    def text(self) -> str:
        """YAML for `kubectl apply -f -`."""
        notes = "".join(f"# {note}\n" for note in self.notes)
        return notes + yaml.safe_dump_all(self.manifests, sort_keys=False, allow_unicode=True, width=110)


def guardrails(snapshot: Snapshot, source: str, now: datetime) -> Guardrails:
    """For one cluster, as everything stands now."""
    made = _Made(snapshot, source, now)
    manifests = [manifest for one in snapshot.policies for manifest in made.of(one)]
    return Guardrails(manifests=tuple(manifests), notes=tuple([*made.opening(), *made.notes]))


class _Made:
    def __init__(self, snapshot: Snapshot, source: str, now: datetime) -> None:
        self.snapshot = snapshot
        self.source = source
        self.now = now
        self.cluster: Cluster = snapshot.clusters[source]
        self.projects = {project.name: project for project in snapshot.projects}
        self.notes: list[str] = []
        holds = [hold for hold in snapshot.holds if hold.until is None or hold.until > now]
        self.all_held = any(hold.project is None for hold in holds)
        self.held = sorted({hold.project for hold in holds if hold.project is not None})
        self.exemptions = [one for one in snapshot.exemptions if one.until_utc > now]
        self.tags: dict[str, str] = {}
        """Key of a label → the variable that holds it."""

    def opening(self) -> Iterator[str]:
        yield f"For the cluster {self.source}, as it stood at {self.snapshot.at.isoformat()}. Print them anew often."
        if self.all_held:
            yield "Everything is on hold, so there is nothing to guard."
        for exemption in self.exemptions:
            yield f"The exemption {exemption.name} is heeded; it ends at {exemption.until_utc.isoformat()}."

    def of(self, one: InForceAtAdmission) -> Iterator[Manifest]:
        """A policy and its binding, if anything of it can be said."""
        policy, mode = one.policy, one.modes.get(self.source)
        if mode is None or self.all_held or not fits(policy, self.source, self.cluster):
            return
        unsaid = self._unsaid(policy)
        if unsaid is not None:
            self.notes.append(f"Policy {policy.name} is left out: {unsaid}.")
            return
        self.tags = {}
        breaches = list(self._breaches(one))
        if not breaches:
            return
        spared = self._spared(policy)
        scope = self._scope(policy)
        validations = [
            {"expression": f"!({_all([scope, breach])}) || {spared}", "message": message, "reason": "Forbidden"}
            for breach, message in breaches
        ]
        yield from _manifests(policy.name, self._variables(), validations, mode, self.snapshot.at)

    def _unsaid(self, policy: BasePolicy) -> str | None:
        """Why the webhook is needed for it."""
        if policy.scope.where is not None or policy.scope.skus:
            return "its scope has a condition (where, skus)"
        match policy:
            case BudgetPolicy() | OwnershipPolicy():
                return None
            case SpotPolicy():
                if policy.spot.allowed_on_demand:
                    return "a share of what runs has to be counted"
                return None if self.cluster.flavours else "no GPU node of this cluster tells how it was bought"
        return "what it says depends on the hour, or on what runs just then"

    # What breaches.

    def _breaches(self, one: InForceAtAdmission) -> Iterator[tuple[str, str]]:
        """Expressions that are true of a pod in breach, with what it is told."""
        match one.policy:
            case BudgetPolicy():
                yield from self._money(one, one.policy)
            case OwnershipPolicy():
                keys = self.snapshot.project_keys
                if "project" in one.policy.ownership.require:
                    message = sentences.unowned(one.policy, ["project"], keys)
                    yield "variables.possible.size() == 0", message
                if "owner" in one.policy.ownership.require:
                    yield f"!({_owned()})", sentences.unowned(one.policy, ["owner"], keys)
            case SpotPolicy():
                yield f"!has(object.spec.nodeName) && !({_asks_for_spot()})", sentences.not_on_spot(one.policy, None)

    def _money(self, one: InForceAtAdmission, policy: BudgetPolicy) -> Iterator[tuple[str, str]]:
        for name, money in sorted(one.budgets.items()):
            project = self.projects.get(name)
            ended = money.until is not None and money.until <= self.now
            if project is not None and money.spent and not ended:
                message = sentences.money_spent(policy, project, money.words, money.until)
                yield f"variables.project == {_text(name)}", message

    def _scope(self, policy: BasePolicy) -> str:
        scope = policy.scope
        return _all(
            [
                *([f"variables.project in {_list(scope.projects)}"] if scope.projects else []),
                *(self._tag_is(key, value) for key, value in scope.tags.items()),
            ]
        )

    def _spared(self, policy: BasePolicy) -> str:
        """By holds and exemptions, and where several projects claim it. Where that is not known, it is."""
        reasons = ["variables.possible.size() > 1"]
        if self.held:
            reasons.append(f"variables.possible.exists(project, project in {_list(self.held)})")
        reasons += [
            self._covered(exemption)
            for exemption in self.exemptions
            if not exemption.policies or policy.name in exemption.policies
        ]
        return _any(reasons)

    def _covered(self, exemption: Exemption) -> str:
        said = [self._tag_is(key, value) for key, value in exemption.tags.items()]
        if exemption.projects:
            said.append(f"variables.possible.exists(project, project in {_list(exemption.projects)})")
        if exemption.resources:
            workloads = {one.id: name for name, one in self.cluster.workloads.items()}
            names = {workloads.get(name, name).rpartition("/")[2] for name in exemption.resources}
            said.append(
                f"{_list(sorted(names))}.exists(name, (has(object.metadata.name) && object.metadata.name == name) || "
                "(has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(owner, "
                "owner.name == name || owner.name.startsWith(name + '-'))))"
            )
        return _all(said)

    # Whose it is.

    def _variables(self) -> list[Manifest]:
        """`project`: whose it is for certain. `possible`: all who may claim it."""
        claims = [(name, self._claim(project, certain=True)) for name, project in self.projects.items()]
        possible = [(name, self._claim(project, certain=False)) for name, project in self.projects.items()]
        said = {
            "ofPod": "has(object.metadata.labels) ? object.metadata.labels : {}",
            "ofNamespace": "has(namespaceObject.metadata.labels) ? namespaceObject.metadata.labels : {}",
            **{
                variable: f"{_text(key)} in variables.ofPod ? variables.ofPod[{_text(key)}] : "
                f"{_text(key)} in variables.ofNamespace ? variables.ofNamespace[{_text(key)}] : ''"
                for key, variable in self.tags.items()
            },
            "claims": _names(claims),
            "possible": _names(possible),
            "project": "variables.claims.size() == 1 && variables.possible.size() == 1 ? variables.claims[0] : ''",
        }
        return [{"name": name, "expression": expression} for name, expression in said.items()]

    def _claim(self, project: Project, *, certain: bool) -> str:
        """Whose owner counts is for the webhook to say: here such a match may hold, and never does for certain."""
        matches = [match for match in project.match if self._may_be_here(match) and not (certain and match.owners)]
        return _any([self._matches(match) for match in matches])

    def _may_be_here(self, match: Match) -> bool:
        return (not match.accounts or self.cluster.identity in match.accounts) and (
            not match.sources or self.source in match.sources
        )

    def _matches(self, match: Match) -> str:
        said = [self._tag_is(key, value) for key, value in match.tags.items()]
        if match.namespaces:
            said.append(f"request.namespace in {_list(match.namespaces)}")
        return _all(said)

    def _tag_is(self, key: str, value: str) -> str:
        """By the pod's own label, else its namespace's."""
        variable = self.tags.setdefault(key, f"label{len(self.tags)}")
        return f"variables.{variable} == {_text(value)}"


def _manifests(
    name: str, variables: list[Manifest], validations: list[Manifest], mode: Mode, at: datetime
) -> Iterator[Manifest]:
    metadata = {
        "name": f"curfew-{name}",
        "labels": {"app.kubernetes.io/managed-by": "curfew"},
        "annotations": {"curfew.dev/snapshot": at.isoformat()},
    }
    everywhere = {
        "namespaceSelector": {
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]
        }
    }
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata,
        "spec": {
            "failurePolicy": "Ignore",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "matchConditions": CONDITIONS,
            "variables": variables,
            "validations": validations,
        },
    }
    yield {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata,
        "spec": {"policyName": metadata["name"], "validationActions": ACTIONS[mode], "matchResources": everywhere},
    }


# Expressions.


def _text(said: str) -> str:
    return json.dumps(said, ensure_ascii=False)


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(_text(word) for word in words)}]"


def _all(said: Iterable[str]) -> str:
    return " && ".join(f"({one})" for one in said if one != "true") or "true"


def _any(said: Sequence[str]) -> str:
    if "true" in said:
        return "true"
    return " || ".join(f"({one})" for one in said if one != "false") or "false"


def _names(claims: Iterable[tuple[str, str]]) -> str:
    """A list of the projects whose claim is true."""
    said = [f"{claim} ? {_text(name)} : ''" for name, claim in claims if claim != "false"]
    listed = ", ".join(said) or "''"
    return f"[{listed}].filter(name, name != '')"


def _owned() -> str:
    keys = _list(OWNER_TAGS)
    return _any(
        [
            f"variables.{where}.exists(key, key.lowerAscii() in {keys} && variables.{where}[key].trim() != '')"
            for where in ("ofPod", "ofNamespace")
        ]
    )


def _asks_for_spot() -> str:
    """By its node selector, or by every term of what its nodes must have."""
    selected = [
        f"({_text(key)} in object.spec.nodeSelector && "
        f"object.spec.nodeSelector[{_text(key)}] in {_list(sorted(words))})"
        for key, words in SPOT_WORDS.items()
    ]
    expressions = [
        f"(one.key == {_text(key)} && one.operator == 'In' && one.values.all(value, value in {_list(sorted(words))}))"
        for key, words in SPOT_WORDS.items()
    ]
    only_there = [LABELS[flavour].key for flavour in (Flavour.GKE, Flavour.AKS)]
    expressions.append(f"(one.key in {_list(only_there)} && one.operator == 'Exists')")
    there = [f"has(object.spec.{'.'.join(AFFINITY[:length])})" for length in range(1, len(AFFINITY) + 1)]
    terms = f"object.spec.{'.'.join(AFFINITY)}.nodeSelectorTerms"
    return _any(
        [
            f"has(object.spec.nodeSelector) && ({_any(selected)})",
            f"{' && '.join(there)} && {terms}.all(term, has(term.matchExpressions) && "
            f"term.matchExpressions.exists(one, {_any(expressions)}))",
        ]
    )


_LIMITS = (
    "has(c.resources) && has(c.resources.limits) && "
    f"c.resources.limits.exists(name, name.matches({_text(ACCELERATORS)}))"
)
CONDITIONS = [
    {
        "name": "asks-for-accelerators",
        "expression": f"object.spec.containers.exists(c, {_LIMITS}) || "
        f"(has(object.spec.initContainers) && object.spec.initContainers.exists(c, {_LIMITS}))",
    },
    {
        "name": "not-of-the-cluster-itself",
        "expression": "!request.namespace.startsWith('kube-') && !(has(object.metadata.ownerReferences) && "
        "object.metadata.ownerReferences.exists(owner, owner.kind == 'DaemonSet' || owner.kind == 'Node'))",
    },
]
"""As the webhooks of the chart have them."""
