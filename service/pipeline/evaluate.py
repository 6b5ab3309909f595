"""Builds the facts table from resources and telemetry, and has `policies.evaluate` judge it. Pure.

A resource that was not described in this look has no state (NULL), so that nothing can breach on stale knowledge.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from policies.evaluate import Judgement, evaluate
from policies.facts import TELEMETRY, Facts
from policies.policy import DEFAULT_PROFILE, BasePolicy, IdleProfile, profile_of
from policies.quantities import MICROS
from providers.records import Blocker, Kind, ResourceRef, State, Verb
from service.documents import Project
from service.model import LAST_LOOK, BudgetKey, Known, Telemetry
from service.pipeline.activity import UNKNOWN, Activity, judge_activity, together
from service.pipeline.budget import BudgetState
from service.pipeline.own import Columns, own_facts
from service.pipeline.price import together as together_costs


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything policies are judged on at one moment."""

    resources: Sequence[Known]
    """Governed ones."""
    seen: frozenset[str]
    """Ids described in this very look."""
    telemetry: Telemetry
    cost_to_date: Mapping[str, int]
    at: datetime
    projects: Mapping[str, Project] = field(default_factory=dict)
    budgets: Mapping[BudgetKey, BudgetState] = field(default_factory=dict)
    """Every spend budget's state."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The facts, who they are about, and what the policies say of them."""

    facts: Facts
    rows: Mapping[str, int]
    """Resource id → row."""
    activity: Mapping[str, Mapping[str, Activity]]
    """Profile key → resource id → activity."""
    judgement: Judgement
    at: datetime

    def default_activity(self, resource_id: str) -> tuple[str, int | None]:
        """Activity and idle seconds by the installation's own profile, as people see them."""
        found = self.activity[DEFAULT_PROFILE.key].get(resource_id, UNKNOWN)
        idle = None if found.idle_since is None else int((self.at - found.idle_since).total_seconds())
        return found.activity or "unknown", idle

    def idle_since(self) -> dict[tuple[str, str], datetime]:
        """(resource id, profile key) → since when it is idle, for the next look; and when this look was."""
        return {LAST_LOOK: self.at} | {
            (resource_id, key): found.idle_since
            for key, by_id in self.activity.items()
            for resource_id, found in by_id.items()
            if found.idle_since is not None
        }


class Rows(Mapping[str, int]):
    """Resource id → row. Few are looked up: found by halving, for a table of a whole fleet is large."""

    def __init__(self, resources: Sequence[Known]) -> None:
        self._resources = resources
        self._by_id = array("L", sorted(range(len(resources)), key=self._id))

    def __getitem__(self, resource_id: str) -> int:
        place = bisect_left(self._by_id, resource_id, key=self._id)
        if place == len(self._by_id) or self._id(self._by_id[place]) != resource_id:
            raise KeyError(resource_id)
        return self._by_id[place]

    def __iter__(self) -> Iterator[str]:
        return (known.id for known in self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    def _id(self, row: int) -> str:
        return self._resources[row].id


def judge(look: Look, policies: Sequence[BasePolicy]) -> Judged:
    """Everything each policy says of each governed resource, at one moment."""
    resources, now = look.resources, look.at
    profiles = {profile.key: profile for profile in (DEFAULT_PROFILE, *(profile_of(policy) for policy in policies))}
    groups = groups_in(resources)
    activity = {key: _activity(resources, groups, look.telemetry, profile, now) for key, profile in profiles.items()}
    own = own_facts(policies, resources, look.projects, look.budgets, now)
    facts = facts_of(resources, groups, look.seen, activity, look.cost_to_date, now, own=own)
    return Judged(
        facts=facts,
        rows=Rows(resources),
        activity=activity,
        judgement=evaluate(facts, policies),
        at=now,
    )


def longest_window(policies: Sequence[BasePolicy]) -> timedelta:
    """How far back samples are needed to judge all policies."""
    profiles = (DEFAULT_PROFILE, *(profile_of(policy) for policy in policies))
    return max(profile.for_ + profile.max_gap + profile.telemetry_delay for profile in profiles)


_OF_MEMBERS = ("MemberOfAnotherProject", "MemberHoldsWorkloads")

Groups = Sequence[tuple[Known, Sequence[Known | None]]]
"""Each group with its members, in the order in which it names them."""


def groups_in(resources: Iterable[Known]) -> Groups:
    """Each group with its members, None for those that are no resources of ours, or are seen through another source:
    what caps an act there is not what caps it here."""
    resources = tuple(resources)
    groups = [known for known in resources if known.is_group]
    if not groups:
        return []
    by_place = {
        (known.source, *place_of(known.record.ref)): known
        for known in resources
        if known.record.ref.kind is Kind.INSTANCE
    }
    return [
        (group, [by_place.get((group.source, *place_of(group.record.ref, name))) for name in group.record.members])
        for group in groups
    ]


def of_members(group: Known, members: Sequence[Known | None]) -> Known:
    """A group costs what its members cost; what protects one of them protects it, and who pays for one must be asked
    for it. What it was told of them before, as when it was not described in this look, is not told twice."""
    there = [member for member in members if member is not None]
    protections = [
        replace(protection, sentence=f"its member {member.record.name}: {protection.sentence}")
        for member in there
        for protection in member.record.protections
    ]
    blockers = [
        Blocker(
            verb=verb,
            code="MemberOfAnotherProject",
            sentence="one of its members belongs to another project",  # whose name is not everybody's to know
        )
        for member in there
        if member.project not in (None, group.project)
        for verb in (Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT)
    ]
    blockers += [
        Blocker(
            verb=verb,
            code="MemberHoldsWorkloads",
            sentence=f"workloads of a Kubernetes cluster hold GPUs of its member {member.record.name}",
        )
        for member in there
        if member.lent is not None and member.lent.share > 0
        for verb in (Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT)
    ]
    own = tuple(one for one in group.record.blockers if one.code not in _OF_MEMBERS)
    record = replace(
        group.record,
        protections=tuple(dict.fromkeys([*group.record.protections, *protections])),
        blockers=(*own, *dict.fromkeys(blockers)),
    )
    return replace(group, record=record, price=together_costs(members))


def members_in(resources: Iterable[Known]) -> Mapping[str, Sequence[Known]]:
    """Id of a group → those of its members that are resources of ours."""
    return {group.id: [one for one in members if one is not None] for group, members in groups_in(resources)}


def place_of(ref: ResourceRef, external_id: str | None = None) -> tuple[str, str, str, str]:
    """What tells a machine from all others, whatever its kind; of a group's ref with a member's id, that member's."""
    return ref.provider, ref.account, ref.region, external_id or ref.external_id


def _activity(
    resources: Sequence[Known], groups: Groups, telemetry: Telemetry, profile: IdleProfile, now: datetime
) -> dict[str, Activity]:
    prior = _prior(telemetry, profile, now)
    found = {
        known.id: judge_activity(
            telemetry.series.get(known.id, ()),
            gpu_count=known.record.gpu_count,
            started_at=known.started_at,
            ambiguous=known.id in telemetry.ambiguous,
            profile=profile,
            at=now,
            prior_idle=prior.get((known.id, profile.key)),
        )
        for known in resources
        if known.record.state is State.RUNNING and not known.is_group
    }
    for group, members in groups:
        if group.record.state is State.RUNNING:
            found[group.id] = together([UNKNOWN if one is None else found.get(one.id, UNKNOWN) for one in members])
    return found


def _prior(telemetry: Telemetry, profile: IdleProfile, now: datetime) -> Mapping[tuple[str, str], datetime]:
    """What the last look said, if its window reaches up to this one: what was not looked at may have been busy."""
    looked = telemetry.prior_idle.get(LAST_LOOK)
    return telemetry.prior_idle if looked is not None and timedelta(0) <= now - looked <= profile.for_ else {}


def facts_of(
    resources: Sequence[Known],
    groups: Groups,
    seen: frozenset[str],
    activity: Mapping[str, Mapping[str, Activity]],
    cost_to_date: Mapping[str, int],
    now: datetime,
    *,
    own: Mapping[str, Columns] | None = None,
) -> Facts:
    """The facts table: one row per resource, in the order given."""
    place = {known.id: row for row, known in enumerate(resources)}
    group_of = {member.id: group.id for group, members in groups for member in members if member is not None}
    base: dict[str, Sequence[Any]] = {
        name: Told(of=of, resources=resources) for name, of in _told_of(group_of, cost_to_date, now).items()
    }
    base["state"] = [_state(known, seen) for known in resources]  # asked for again and again
    return Facts(
        base=base,
        activity={
            key: {name: Told(of=of, resources=resources) for name, of in _told_by(by_id, now).items()}
            for key, by_id in activity.items()
        },
        tags=Told(of=attrgetter("record.tags"), resources=resources),
        own=own or {},
        members={
            place[group.id]: [None if member is None else place[member.id] for member in members]
            for group, members in groups
        },
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Told(Sequence[Any]):
    """One fact of each resource, told when it is read: most are read of few resources, and a fleet has millions."""

    of: Callable[[Known], Any]
    resources: Sequence[Known]

    def __len__(self) -> int:
        return len(self.resources)

    def __iter__(self) -> Iterator[Any]:
        return map(self.of, self.resources)

    def __getitem__(self, row: Any) -> Any:
        return self.of(self.resources[row])


def _told_of(
    group_of: Mapping[str, str], cost_to_date: Mapping[str, int], now: datetime
) -> dict[str, Callable[[Known], Any]]:
    """The base facts, each as what tells it of a resource."""

    def age(known: Known) -> int:
        return _seconds(min(known.record.created_at or known.first_seen, known.first_seen), now)

    def running(known: Known) -> int | None:
        runs = known.record.state is State.RUNNING and known.started_at is not None
        return _seconds(known.started_at, now) if runs and known.started_at else None

    def ran(known: Known) -> int:
        return known.earlier_runs_seconds + (_seconds(known.started_at, now) if known.started_at else 0)

    def cost(known: Known) -> float | None:
        micros = cost_to_date.get(known.id)
        return None if micros is None else micros / MICROS

    def requested(known: Known) -> float | None:
        return None if known.lent is None else float(known.lent.share * known.record.gpu_count)

    return {
        "resource_id": attrgetter("id"),
        "source": attrgetter("source"),
        "provider": attrgetter("record.ref.provider"),
        "account": attrgetter("record.ref.account"),
        "region": lambda known: known.record.ref.region or None,  # a workload is in none
        "zone": attrgetter("record.zone"),
        "kind": attrgetter("record.ref.kind.value"),
        "external_id": attrgetter("record.ref.external_id"),
        "name": attrgetter("record.name"),
        "sku": attrgetter("record.sku"),
        "gpu_vendor": attrgetter("record.gpu_vendor"),
        "gpu_model": attrgetter("record.gpu_model"),
        "gpu_count": attrgetter("record.gpu_count"),
        "requested_gpus": requested,
        "gpu_memory_mib": attrgetter("record.gpu_memory_mib"),
        "capacity_type": attrgetter("record.capacity_type.value"),
        "powered_off": attrgetter("record.powered_off"),
        "managed_by": attrgetter("record.managed_by"),
        "member_of": lambda known: group_of.get(known.id),
        "project": attrgetter("project"),
        "owner": attrgetter("owner"),
        "protected": lambda known: bool(known.record.protections),
        "age_seconds": age,
        "running_seconds": running,
        "ran_seconds": ran,
        "hourly_cost": lambda known: None if known.rate_micros is None else known.rate_micros / MICROS,
        "currency": lambda known: None if known.price is None else known.price.currency,
        "cost_to_date": cost,
    }


def _told_by(by_id: Mapping[str, Activity], now: datetime) -> dict[str, Callable[[Known], Any]]:
    """The telemetry facts of one profile, each as what tells it of a resource."""

    def told(name: str) -> Callable[[Known], Any]:
        value = attrgetter(name)
        return lambda known: value(by_id.get(known.id, UNKNOWN))

    def idle_seconds(known: Known) -> int | None:
        since = by_id.get(known.id, UNKNOWN).idle_since
        return None if since is None else _seconds(since, now)

    return {column.name: idle_seconds if column.name == "idle_seconds" else told(column.name) for column in TELEMETRY}


def _state(known: Known, seen: frozenset[str]) -> str | None:
    """Not known of what was not described in this look."""
    state = known.record.state
    return state.value if known.id in seen and state is not State.UNKNOWN else None


def _seconds(since: datetime, now: datetime) -> int:
    return max(0, int((now - since).total_seconds()))
