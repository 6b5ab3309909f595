"""Judges one request of an API server on a snapshot: which policies speak of the pod, and what they say. Pure and fast.

Whatever is not known (a label of a namespace nobody told of, a fact that only a running pod has, two projects at once)
lets the pod in. How a request comes and what is counted of it is `server`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, TypeVar

from policies.calendar import calendar
from policies.codes import BREACH
from policies.conditions import Condition, ConditionError, compile_condition
from policies.evaluate import evaluate
from policies.facts import BASE, TELEMETRY, Facts
from policies.policy import (
    DEFAULT_PROFILE,
    BasePolicy,
    BudgetPolicy,
    ExpressionPolicy,
    ExpressionRule,
    Mode,
    OwnershipPolicy,
    QuotaPolicy,
    Remedy,
    SchedulePolicy,
    SpotPolicy,
)
from providers.kubernetes.accelerators import Device, asked_by_pod, at, items, model_by_labels, text, texts, vendor_of
from providers.kubernetes.nodes import bought
from providers.kubernetes.workloads import SYSTEM_NAMESPACES, SYSTEM_PREFIXES
from providers.records import Kind, ResourceRecord, ResourceRef
from service.admission import sentences, spot
from service.admission.snapshot import Cluster, InForceAtAdmission, Keys, Snapshot
from service.admission.spot import Wish
from service.documents import Exemption, Project
from service.pipeline.attribute import attribute

Json = Mapping[str, Any]
V = TypeVar("V")

REMEMBERED = 8192
"""Answers kept of each question: who writes new labels each time must not fill the memory."""


class Outcome(StrEnum):
    """What came of a policy that met a pod."""

    REFUSED = "refused"
    MUTATED = "mutated"
    WARNED = "warned"
    OBSERVED = "observed"
    """Let in without a word to anybody but us."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """One policy's word on one pod."""

    policy: str
    mode: Mode
    outcome: Outcome
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What an API server is told."""

    said: tuple[Said, ...] = ()
    warnings: tuple[str, ...] = ()
    patch: tuple[spot.Operation, ...] = ()
    project: str | None = None

    @property
    def refusal(self) -> str | None:
        """All that stands against it; None: it is let in."""
        return " ".join(one.sentence for one in self.said if one.outcome is Outcome.REFUSED) or None


LET_IN = Answer()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """A new pod that asks for accelerators, as far as the request tells."""

    manifest: Json
    spec: Json
    namespace: str
    labels: Mapping[str, str]
    devices: Mapping[Device, int]
    names: frozenset[str]
    """What an exemption may call it: its own name, and its owner's as far as it is known."""
    workloads: tuple[str, ...]
    """`namespace/Kind/name` of what it may belong to, the top of a chain of owners last."""

    @property
    def gpus(self) -> int:
        return sum(self.devices.values())


def pod_of(request: Json) -> Pod | None:
    """The pod of a request; None: it is none that policies speak of."""
    pod, namespace = at(request, "object"), text(request, "namespace")
    if not isinstance(pod, Mapping) or text(request, "operation") != "CREATE" or text(request, "subResource"):
        return None
    if text(request, "resource", "resource") != "pods" or _of_the_cluster(pod, namespace):
        return None
    spec = at(pod, "spec")
    devices = asked_by_pod(spec)
    if not devices:
        return None
    names, workloads = _owners(pod, namespace)
    return Pod(
        manifest=pod,
        spec=spec,
        namespace=namespace,
        labels=texts(pod, "metadata", "labels"),
        devices=devices,
        names=names,
        workloads=workloads,
    )


def _of_the_cluster(pod: Json, namespace: str) -> bool:
    """What keeps a cluster running, and what its nodes bring along."""
    if not namespace or namespace in SYSTEM_NAMESPACES or namespace.startswith(SYSTEM_PREFIXES):
        return True
    if "kubernetes.io/config.mirror" in texts(pod, "metadata", "annotations"):
        return True
    return any(owner.get("kind") in ("DaemonSet", "Node") for owner in items(pod, "metadata", "ownerReferences"))


def _owners(pod: Json, namespace: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Chains whose names tell what is above: a ReplicaSet is called after its Deployment, a Job after its CronJob."""
    controller = next((one for one in items(pod, "metadata", "ownerReferences") if one.get("controller")), None)
    kind, name = ("Pod", text(pod, "metadata", "name")) if controller is None else _named(controller)
    found = [(kind, name)]
    template = texts(pod, "metadata", "labels").get("pod-template-hash")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        found.append(("Deployment", name.removesuffix(f"-{template}")))
    elif kind == "Job" and name.rpartition("-")[2].isdigit():
        found.append(("CronJob", name.rpartition("-")[0]))
    elif kind == "StatefulSet":
        found.append(("Notebook", name))
    found = [(kind, name) for kind, name in found if name]
    workloads = tuple(f"{namespace}/{kind}/{name}" for kind, name in found)
    return frozenset((*workloads, *(name for _, name in found))), workloads


def _named(reference: Json) -> tuple[str, str]:
    return text(reference, "kind"), text(reference, "name")


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Who pays for a pod."""

    project: Project | None
    owner: str | None
    """None also where it is not known."""
    tags: Mapping[str, str]
    """Of those that anybody asks for."""
    complete: bool
    """False: the labels of its namespace are not known, so what no label says may yet be said."""
    settled: bool
    """Whether the project, or that there is none, is known."""
    contested: bool
    """Several projects claim it for certain."""

    def has(self, wanted: Mapping[str, str]) -> bool | None:
        """Whether it has all these tags; None: not known."""
        if any(key in self.tags and self.tags[key] != value for key, value in wanted.items()):
            return False
        if all(key in self.tags for key in wanted):
            return True
        return None if not self.complete else False


class Judge:
    """One snapshot, as one cluster's API servers are answered on it."""

    def __init__(self, snapshot: Snapshot, source: str) -> None:
        self.snapshot = snapshot
        self.source = source
        self._cluster: Cluster = snapshot.clusters[source]
        self._projects = {project.name: project for project in snapshot.projects}
        here = [one for one in snapshot.policies if source in one.modes and fits(one.policy, source, self._cluster)]
        policies = [prepared for one in here if (prepared := _Prepared.of(one, source)) is not None]
        self._spot = [one for one in policies if isinstance(one.policy, SpotPolicy)]
        self._others = [one for one in policies if not isinstance(one.policy, SpotPolicy)]
        self._keys = Keys.named_by(snapshot.projects, snapshot.exemptions, (one.policy for one in policies))
        self._whose = _Remembered[Whose]()

    # The two questions of an API server.

    def mutate(self, request: Json, now: datetime) -> Answer:
        """Where it should run."""
        pod = pod_of(request)
        if pod is None or not self._spot or text(pod.spec, "nodeName"):
            return LET_IN  # what is on a node already is placed nowhere
        whose = self._whose_is(pod)
        asks = spot.wish(pod.spec)
        if whose.contested or asks is Wish.SPOT or self._held(whose, now):
            return LET_IN
        said: list[Said] = []
        for one in self._spot:
            if not (_beyond(one, pod) and self._speaks_of(one, pod, whose) and self._met(one, pod, whose, now)):
                continue
            if asks is Wish.OPEN and one.mode is Mode.ENFORCE:
                patch = spot.patch(pod.manifest, self._cluster.flavours, policy=one.policy.name)
                if patch:
                    said.append(_said(one, Outcome.MUTATED, sentences.placed(one.policy, whose.project)))
                    return Answer(said=tuple(said), warnings=_warnings(said), patch=tuple(patch), project=_name(whose))
            outcome = Outcome.OBSERVED if one.mode is Mode.OBSERVE else Outcome.WARNED
            said.append(_said(one, outcome, self._left(one, asks, whose)))
        return Answer(said=tuple(said), warnings=_warnings(said), project=_name(whose))

    def validate(self, request: Json, now: datetime) -> Answer:
        """Whether it is let in."""
        pod = pod_of(request)
        if pod is None or not self._others:
            return LET_IN
        whose = self._whose_is(pod)
        if whose.contested:
            return Answer(warnings=(sentences.CLAIMED_TWICE,))
        if self._held(whose, now):
            return LET_IN
        said = [
            _said(one, OUTCOMES[one.mode], sentence)
            for one in self._others
            if self._speaks_of(one, pod, whose)
            and (sentence := self._against(one, pod, whose, now)) is not None
            and self._met(one, pod, whose, now)
        ]
        return Answer(said=tuple(said), warnings=_warnings(said), project=_name(whose))

    # Whose it is, and who speaks of it.

    def _whose_is(self, pod: Pod) -> Whose:
        known = [found for name in pod.workloads if (found := self._cluster.workloads.get(name)) is not None]
        namespaces = self._cluster.namespaces
        of_namespace = None if namespaces is None else namespaces.get(pod.namespace)
        tags = {**(of_namespace or {}), **(known[-1].tags if known else {}), **self._keys.of(pod.labels)}
        complete = of_namespace is not None or bool(known)
        key = (pod.namespace, complete, tuple(sorted(tags.items())))
        return self._whose.get(key, lambda: self._attributed(pod.namespace, tags, complete))

    def _attributed(self, namespace: str, tags: Mapping[str, str], complete: bool) -> Whose:
        """By the rules of the pipeline. Where labels are missing: settled is only what comes out the same whatever
        they are."""
        record = self._record(namespace, tags)
        if complete:
            found = attribute(record, self.source, self._projects)
            possible = found.claimed_by
        else:
            at_worst = {name: _at_worst(project) for name, project in self._projects.items()}
            at_best = {name: _at_best(project, tags) for name, project in self._projects.items()}
            found = attribute(record, self.source, at_worst)
            possible = attribute(record, self.source, at_best).claimed_by
        return Whose(
            project=self._projects[found.project] if found.project is not None else None,
            owner=found.owner if complete else None,
            tags=tags,
            complete=complete,
            settled=possible == found.claimed_by and len(possible) <= 1,
            contested=len(found.claimed_by) > 1,
        )

    def _record(self, namespace: str, tags: Mapping[str, str]) -> ResourceRecord:
        ref = ResourceRef(
            provider="kubernetes",
            account=self._cluster.identity,
            region="",
            kind=Kind.WORKLOAD,
            external_id=f"{namespace}/Pod/",
        )
        return ResourceRecord(
            ref=ref,
            incarnation="",
            name="",
            zone=None,
            sku="",
            gpu_vendor=None,
            gpu_model=None,
            gpu_count=0,
            tags=tags,
        )

    def _speaks_of(self, one: _Prepared, pod: Pod, whose: Whose) -> bool:
        """In its scope for certain, a person's condition apart."""
        scope = one.policy.scope
        if scope.projects and (not whose.settled or _name(whose) not in scope.projects):
            return False
        if scope.tags and whose.has(scope.tags) is not True:
            return False
        return not scope.skus or any(fnmatchcase(_sku(pod), pattern) for pattern in scope.skus)

    def _met(self, one: _Prepared, pod: Pod, whose: Whose, now: datetime) -> bool:
        """What takes longest to tell, and so is asked last: a person's condition holds, and it is not exempt."""
        return self._holds(one, pod, whose) and not self._exempt(one.policy, pod, whose, now)

    def _holds(self, one: _Prepared, pod: Pod, whose: Whose) -> bool:
        """A person's condition, asked of the same judge that judges everything; what it names must all be known."""
        if one.where is None:
            return True
        facts = self._facts(pod, whose)
        if not one.where.columns <= facts.keys():
            return False
        if not whose.complete and not one.where.tags <= whose.tags.keys():
            return False
        named = tuple((name, facts[name]) for name in sorted(one.where.columns))
        tags = tuple((key, whose.tags[key]) for key in sorted(one.where.tags) if key in whose.tags)
        return _true(one.where.text, one.policy.action, named, tags)

    def _facts(self, pod: Pod, whose: Whose) -> dict[str, Any]:
        """Facts that are known of a pod before it runs; None is known to be none."""
        vendors = {vendor_of(device.resource) for device in pod.devices}
        found: dict[str, Any] = {
            "source": self.source,
            "provider": "kubernetes",
            "account": self._cluster.identity,
            "region": None,
            "kind": Kind.WORKLOAD.value,
            "sku": _sku(pod),
            "gpu_vendor": vendors.pop() if len(vendors) == 1 else None,
            "gpu_count": pod.gpus,
            "requested_gpus": None,
            "powered_off": False,
            "managed_by": None,
            "member_of": None,
        }
        if whose.settled:
            found["project"] = _name(whose)
        if whose.complete:
            found["owner"] = whose.owner
        wished = texts(pod.spec, "nodeSelector")
        if (model := _model(pod)) is not None:
            found["gpu_model"] = model
        if (capacity := bought(wished)) is not None:
            found["capacity_type"] = capacity.value
        return found

    def _held(self, whose: Whose, now: datetime) -> bool:
        """Also by a hold of a project that it may be."""
        return any(
            (hold.project is None or not whose.settled or hold.project == _name(whose))
            and (hold.until is None or hold.until > now)
            for hold in self.snapshot.holds
        )

    def _exempt(self, policy: BasePolicy, pod: Pod, whose: Whose, now: datetime) -> bool:
        """Also where that is not known."""
        return any(
            (not exemption.policies or policy.name in exemption.policies)
            and exemption.until_utc > now
            and self._covers(exemption, pod, whose)
            for exemption in self.snapshot.exemptions
        )

    def _covers(self, exemption: Exemption, pod: Pod, whose: Whose) -> bool:
        if exemption.resources:
            ids = {found.id for name in pod.workloads if (found := self._cluster.workloads.get(name)) is not None}
            if (ids | pod.names).isdisjoint(exemption.resources):
                return False
        if exemption.projects and whose.settled and _name(whose) not in exemption.projects:
            return False
        return whose.has(exemption.tags) is not False

    # What they say.

    def _against(self, one: _Prepared, pod: Pod, whose: Whose, now: datetime) -> str | None:
        """Why it should not be let in; None: nothing that is known."""
        match one.policy:
            case BudgetPolicy():
                return _without_money(one, one.policy, whose, now)
            case SchedulePolicy():
                return _out_of_hours(one.policy, whose, now)
            case QuotaPolicy():
                return _over_quota(one, one.policy, pod, whose)
            case OwnershipPolicy():
                return self._unowned(one.policy, whose)
        return None

    def _unowned(self, policy: OwnershipPolicy, whose: Whose) -> str | None:
        missing = []
        if whose.settled and whose.project is None:
            missing.append("project")
        if whose.complete and whose.owner is None:
            missing.append("owner")
        missing = [name for name in missing if name in policy.ownership.require]
        return sentences.unowned(policy, missing, self.snapshot.project_keys) if missing else None

    def _left(self, one: _Prepared, asks: Wish, whose: Whose) -> str:
        """Why it is let in as it is."""
        if asks is Wish.OTHERWISE:
            return sentences.asks_for_on_demand(one.policy, whose.project)
        if not self._cluster.flavours:
            return sentences.no_spot_known(one.policy, whose.project)
        return sentences.to_be_placed(one.policy, whose.project)


OUTCOMES = {Mode.OBSERVE: Outcome.OBSERVED, Mode.WARN: Outcome.WARNED, Mode.ENFORCE: Outcome.REFUSED}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """A policy, ready to be asked about pods of one cluster."""

    given: InForceAtAdmission
    policy: BasePolicy
    mode: Mode
    where: Condition | None

    @classmethod
    def of(cls, given: InForceAtAdmission, source: str) -> _Prepared | None:
        """None where its condition cannot be read here, as when the service is of a newer version."""
        policy = given.policy
        where = policy.scope.where
        try:
            condition = None if where is None else compile_condition(where, acting=policy.acts)
        except ConditionError:
            return None
        return cls(given=given, policy=policy, mode=given.modes[source], where=condition)


class _Remembered(dict[Hashable, V]):
    """Answers by their question; all are forgotten when there are too many."""

    def get(self, question: Hashable, answer: Callable[[], V]) -> V:  # type: ignore[override]
        found = super().get(question)
        if found is None:
            if len(self) >= REMEMBERED:
                self.clear()
            found = self[question] = answer()
        return found


def _said(one: _Prepared, outcome: Outcome, sentence: str) -> Said:
    return Said(policy=one.policy.name, mode=one.mode, outcome=outcome, sentence=sentence)


def _warnings(said: Sequence[Said]) -> tuple[str, ...]:
    return tuple(one.sentence for one in said if one.outcome is Outcome.WARNED)


def _name(whose: Whose) -> str | None:
    return whose.project.name if whose.project is not None else None


def fits(policy: BasePolicy, source: str, cluster: Cluster) -> bool:
    """What of a scope is the same for all pods of a cluster. A workload is in no region."""
    scope = policy.scope
    return (
        not scope.regions
        and (not scope.sources or source in scope.sources)
        and (not scope.accounts or cluster.identity in scope.accounts)
    )


def _at_worst(project: Project) -> Project:
    """The project by what cannot change any more: who owns a pod may."""
    return project.model_copy(update={"match": tuple(match for match in project.match if not match.owners)})


def _at_best(project: Project, tags: Mapping[str, str]) -> Project:
    """The project as it would match if every label that nobody told of were the one it asks for."""
    matches = []
    for match in project.match:
        told = {key: value for key, value in match.tags.items() if key in tags}
        matches.append(match.model_copy(update={"tags": told, "owners": ()}))
    return project.model_copy(update={"match": tuple(matches)})


@lru_cache(maxsize=REMEMBERED)
def _true(where: str, action: Remedy, facts: tuple[tuple[str, Any], ...], tags: tuple[tuple[str, str], ...]) -> bool:
    """The same for ever, whichever snapshot is at hand: asking takes as long as many reviews."""
    asked = ExpressionPolicy(type="expression", name="where", action=action, expression=ExpressionRule(when=where))
    known: dict[str, Any] = {column.name: [None] for column in BASE}
    known |= {"resource_id": ["pod"], "state": ["pending"]}  # whether it is terminated is asked of all
    known |= {name: [value] for name, value in facts}
    row = Facts(
        base=known,
        activity={DEFAULT_PROFILE.key: {column.name: [None] for column in TELEMETRY}},
        tags=[dict(tags)],
    )
    return evaluate(row, [asked]).outcomes["where"].codes == bytes([BREACH])


def _sku(pod: Pod) -> str:
    return max(sorted(pod.devices), key=lambda device: pod.devices[device]).resource


def _model(pod: Pod) -> str | None:
    found = model_by_labels(texts(pod.spec, "nodeSelector"))
    return (found.name or None) if found is not None else None


def _beyond(one: _Prepared, pod: Pod) -> bool:
    """With it more would run on demand than the policy allows."""
    policy, given = one.policy, one.given
    assert isinstance(policy, SpotPolicy)
    return given.on_demand_gpus + pod.gpus > policy.spot.allowed_on_demand * (given.gpus + pod.gpus)


def _without_money(one: _Prepared, policy: BudgetPolicy, whose: Whose, now: datetime) -> str | None:
    if not whose.settled or whose.project is None:
        return None
    money = one.given.budgets.get(whose.project.name)
    if money is None or not money.spent or (money.until is not None and money.until <= now):
        return None
    return sentences.money_spent(policy, whose.project, money.words, money.until)


def _out_of_hours(policy: SchedulePolicy, whose: Whose, now: datetime) -> str | None:
    """On the clocks of its project; what certainly belongs to none follows UTC."""
    if not whose.settled:
        return None
    zone = whose.project.timezone if whose.project is not None else "UTC"
    hours = calendar(policy.schedule.on, holidays=policy.schedule.holidays, zone=zone)
    return None if hours.is_on(now) else sentences.out_of_hours(policy, whose.project, hours.next_change(now))


def _over_quota(one: _Prepared, policy: QuotaPolicy, pod: Pod, whose: Whose) -> str | None:
    counted = _counted_for(policy, pod, whose)
    if counted is None:
        return None
    name, words = counted
    running = one.given.running.get(name, 0.0)
    if running + pod.gpus <= policy.quota.max_gpus:
        return None
    return sentences.over_quota(policy, whose.project, words, pod.gpus, running)


def _counted_for(policy: QuotaPolicy, pod: Pod, whose: Whose) -> tuple[str, str] | None:
    """Whose quota it is, and that in words; None: not known, or nobody's."""
    match policy.quota.per:
        case None:
            return "", ""
        case "project":
            name = _name(whose) if whose.settled else None
            return None if name is None else (name, f"project {name}")
        case "owner":
            return None if whose.owner is None else (whose.owner, whose.owner)
        case "gpu_model":
            model = _model(pod)
            return None if model is None else (model, f"the model {model}")
