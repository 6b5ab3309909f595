"""Turns an intended act into calls to Azure's Resource Manager on one machine, one compute instance or one group, and
undoes it.

Whether to act is not decided, and not re-checked, here. Azure accepts most acts first and carries them out by itself;
what has failed of them since is told by `failures`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Protocol

from providers.azure import translate, translate_groups
from providers.azure.client import Accepted, Client, Json, NotEnabled, NotThere, Query
from providers.azure.surroundings import not_its_own
from providers.errors import (
    Conflict,
    NotFound,
    Protected,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.questions import Questions, readable
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb

Answer = Mapping[str, Any]

COMPUTE, AKS, MACHINE_LEARNING, AUTOSCALE = "2026-04-01", "2024-09-01", "2024-10-01", "2022-10-01"
"""Versions of the APIs: of Compute, that of the SDK our tests compare with; of the others, one that is documented."""
LATEST_START_SECONDS = 7.0
"""No call of an act begins later than this after its first, so that the last one ends within
`Capabilities.act_timeout_seconds`, by the client's own time-outs."""
AT_ONCE, PATIENCE_SECONDS = 4, 20.0
"""So many operations of a subscription are looked at side by side, and all together for no longer than this."""
MOST_OPERATIONS = 10_000
"""So many are known at once; of more, those that were begun last."""


class Calls:
    """The calls of one act, none begun too late; what Azure has accepted and not done yet is noted.

    Azure knows no ids of requests of ours, and needs none: each call asks for a state, so that twice is once.
    """

    def __init__(self, client: Client, *, clock: Callable[[], float], note: Callable[[Accepted], None]) -> None:
        self._client, self._clock, self._note = client, clock, note
        self._began = clock()

    def get(self, path: str, *, version: str, query: Query | None = None) -> Json:
        self._in_time(path)
        return self._client.get(path, version=version, query=query, prompt=True)

    def items(self, path: str, *, version: str) -> Iterator[Json]:
        """All that a list has, in its pages."""
        self._in_time(path)
        for page in self._client.pages(path, version=version, prompt=True):
            yield from page["value"]
            self._in_time(path)

    def post(self, path: str, *, version: str, query: Query | None = None) -> None:
        self._in_time(path)
        self._note(self._client.post(path, version=version, query=query))

    def put(self, path: str, body: Json, *, version: str, if_match: str | None = None) -> None:
        self._in_time(path)
        self._note(self._client.put(path, body, version=version, if_match=if_match))

    def patch(self, path: str, body: Json, *, version: str) -> None:
        self._in_time(path)
        self._note(self._client.patch(path, body, version=version))

    def delete(self, path: str, *, version: str) -> None:
        self._in_time(path)
        self._note(self._client.delete(path, version=version))

    def _in_time(self, path: str) -> None:
        if self._clock() - self._began > LATEST_START_SECONDS:
            raise Unreachable(f"{path} was not asked: what came before it took too long")


class _Acts(Protocol):
    """How the verbs of one kind of resource are done. `remembered` holds what `remember` answered."""

    what: str
    verbs: frozenset[Verb]

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]: ...

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None: ...

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None: ...


@dataclass(kw_only=True, slots=True)
class _Operation:
    """What Azure does by itself since an act was accepted."""

    account: str
    path: str
    what: str
    """As sentences call it."""
    due: float
    """Not looked at before."""
    error: ProviderError | None = None


class AzureActuator:
    """Acts on one thing at a time, and knows what became of acts that Azure accepted."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._client = client
        self._clock = clock
        self._patience = patience_seconds
        self._questions: Questions[tuple[str, int]] = Questions("Azure", patience=patience_seconds, at_once=AT_ONCE)
        self._lock = Lock()
        self._operations: dict[str, _Operation] = {}
        """By the request id of their act, which has one at most; the latest last."""

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """What it is like now: the state of a machine, the size of a group and what else sets it."""
        acts = _for(record.ref, verb)
        with readable(record.ref.external_id):
            return {"verb": verb.value, **acts.remember(self._calls("", record.ref, ""), record, verb)}

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        acts = _for(ref, verb)
        with readable(ref.external_id):
            acts.act(self._calls(request_id, ref, verb.value), ref, verb)

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        acts = _for(ref, Verb(remembered.get("verb", Verb.STOP)))
        with readable(ref.external_id):
            acts.restore(self._calls(request_id, ref, "start"), ref, remembered)

    def _calls(self, request_id: str, ref: ResourceRef, what: str) -> Calls:
        note = partial(self._note, request_id, ref, f"{what} of {ref.external_id}")
        return Calls(self._client, clock=self._clock, note=note)

    # What became of acts.

    def failures(self, acts: Mapping[str, ResourceRef]) -> Mapping[str, ProviderError]:
        """Azure tells it of each operation by itself, at an address it gave when it accepted the act.

        Those addresses are only in this process' memory: acts from before it started are left out, and show in the
        state of what was acted on.
        """
        with self._lock:
            for request_id in [one for one, known in self._operations.items() if known.error and one not in acts]:
                del self._operations[request_id]
            mine = {one: self._operations[one] for one in acts if one in self._operations}
        self._look(mine)
        return {request_id: known.error for request_id, known in mine.items() if known.error is not None}

    def _note(self, request_id: str, ref: ResourceRef, what: str, accepted: Accepted) -> None:
        if accepted.operation is None:
            return
        due = self._clock() + (accepted.retry_after or 0.0)
        with self._lock:
            self._operations.pop(request_id, None)
            self._operations[request_id] = _Operation(account=ref.account, path=accepted.operation, what=what, due=due)
            while len(self._operations) > MOST_OPERATIONS:
                del self._operations[next(iter(self._operations))]

    def _look(self, operations: Mapping[str, _Operation]) -> None:
        """At those it is time for; first at those that waited longest, as some may not be reached this time."""
        now = self._clock()
        due = [(request_id, one) for request_id, one in operations.items() if one.error is None and one.due <= now]
        waiting: dict[str, deque[tuple[str, _Operation]]] = {}
        for request_id, one in sorted(due, key=lambda pair: pair[1].due):
            waiting.setdefault(one.account, deque()).append((request_id, one))
        self._questions.answers(
            {
                (account, lane): partial(self._look_at, mine, until=now + self._patience)
                for account, mine in waiting.items()
                for lane in range(min(AT_ONCE, len(mine)))
            }
        )

    def _look_at(self, waiting: deque[tuple[str, _Operation]], *, until: float) -> None:
        """One after the other, beside others that do the same, until none is left or a subscription does not answer."""
        while (now := self._clock()) < until:
            try:
                request_id, one = waiting.popleft()
            except IndexError:
                return
            one.due = now
            try:
                with readable(one.path):
                    outcome = self._client.outcome(one.path, one.what)
            except NotFound:  # Azure keeps them for a while only
                self._forget(request_id, one)
                continue
            except NotThere:
                continue
            except (Throttled, Unreachable) as error:
                one.due = now + (error.retry_after or 0.0)
                return
            except ProviderError:
                continue
            one.due, one.error = now + (outcome.retry_after or 0.0), outcome.error
            if outcome.ended and outcome.error is None:
                self._forget(request_id, one)

    def _forget(self, request_id: str, operation: _Operation) -> None:
        with self._lock:
            if self._operations.get(request_id) is operation:  # else the act was asked for again meanwhile
                del self._operations[request_id]


# Single machines.


DOWN = (State.STOPPING, State.STOPPED, State.SUSPENDED)


class Machines:
    """Virtual machines. To stop one is to deallocate it: one that is only powered off is billed as if it ran."""

    what = "a virtual machine"
    verbs = frozenset({Verb.STOP, Verb.HIBERNATE, Verb.TERMINATE})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return _state_of(record)

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        if verb is Verb.TERMINATE:
            self._delete(calls, ref)
        elif self._machine(calls, ref).state not in DOWN:
            query = {"hibernate": "true"} if verb is Verb.HIBERNATE else None
            calls.post(f"{ref.external_id}/deallocate", version=COMPUTE, query=query)

    def _delete(self, calls: Calls, ref: ResourceRef) -> None:
        try:
            if not self._machine(calls, ref).deleting:
                calls.delete(ref.external_id, version=COMPUTE)
        except NotFound:
            return  # it is gone already

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """A hibernated machine resumes by being started. One that was powered off when it was stopped runs, too: its
        capacity was held and billed, and Azure gives it back no other way.
        """
        if not _was_up(ref, remembered):
            return
        machine = self._machine(calls, ref)
        _same(ref, remembered["incarnation"], machine.incarnation)
        if machine.power == "stopping" or machine.state is State.STOPPING:
            raise Conflict(f"{ref.external_id} is stopping yet; it can be started once it has stopped")
        if machine.power == "stopped" or machine.state not in (State.PENDING, State.RUNNING):
            calls.post(f"{ref.external_id}/start", version=COMPUTE)

    def _machine(self, calls: Calls, ref: ResourceRef) -> _Machine:
        told = calls.get(ref.external_id, version=COMPUTE, query={"$expand": "instanceView"})["properties"]
        view = translate.view_of(told.get("instanceView"))
        provisioning = str(told.get("provisioningState") or view.provisioning).lower()
        return _Machine(
            incarnation=str(told["vmId"]).lower(),
            state=translate.state_of(view, provisioning),
            power=view.power,
            deleting=provisioning == "deleting",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Machine:
    """What a machine is doing."""

    incarnation: str
    state: State
    power: str | None
    deleting: bool


class ComputeInstances:
    """Compute instances of Azure Machine Learning, which stops and starts the machines beneath."""

    what = "a compute instance"
    verbs = frozenset({Verb.STOP})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return _state_of(record)

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        if self._state(self._compute(calls, ref)) not in DOWN:
            calls.post(f"{ref.external_id}/stop", version=MACHINE_LEARNING)

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        if not _was_up(ref, remembered):
            return
        compute = self._compute(calls, ref)
        created = translate.utc(compute["properties"].get("createdOn"))
        if remembered.get("created_at") and created is not None:
            _same(ref, remembered["created_at"], created.isoformat())
        state = self._state(compute)
        if state in (State.PENDING, State.RUNNING):
            return
        if state is not State.STOPPED:
            raise Conflict(f"{ref.external_id} is {_word(compute)} yet; it can be started once it has stopped")
        calls.post(f"{ref.external_id}/start", version=MACHINE_LEARNING)

    def _compute(self, calls: Calls, ref: ResourceRef) -> Json:
        compute = calls.get(ref.external_id, version=MACHINE_LEARNING)
        if not translate.is_instance(compute):
            raise Unsupported(f"{ref.external_id} is no compute instance; a compute cluster sizes itself")
        return compute

    def _state(self, compute: Answer) -> State:
        if str(compute["properties"].get("provisioningState")).lower() == "deleting":
            return State.STOPPING
        return translate.COMPUTE_STATES.get(_word(compute).lower(), State.UNKNOWN)


def _word(compute: Answer) -> str:
    return str((compute["properties"].get("properties") or {}).get("state") or "in a state that is not told")


# Groups.


class ScaleSets:
    """Scale sets, uniform and flexible ones: to zero and back.

    Only the capacity is set: how a set spreads, overprovisions, upgrades and repairs its machines stays as it is. What
    sets its capacity by itself, an autoscale setting of Azure Monitor, is off meanwhile, and keeps all that it says.
    """

    what = "a scale set"
    verbs = frozenset({Verb.SCALE_TO_ZERO})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        scale_set = self._scale_set(calls, record.ref)
        size, settings = _capacity(scale_set), _enabled(self._settings(calls, record.ref))
        switched = "".join(f", and switches off its autoscale setting {_bounds(one)}" for one in settings)
        return {
            "plan": f"Takes {record.name} from {_counted(size, 'machine')} to zero{switched}; "
            "undo puts exactly this back.",
            "group": _unique_id(scale_set),
            "size": size,
            "autoscale": [_id(one) for one in settings],
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        """First silences what would fight it; gives that back at once where Azure refuses to go on."""
        scale_set = self._scale_set(calls, ref)
        settings, size = _enabled(self._settings(calls, ref)), _capacity(scale_set)
        if size:
            self._check_members(calls, ref, scale_set)
        silenced: list[Json] = []
        try:
            for one in settings:
                self._switch(calls, one, on=False)
                silenced.append(one)
            if size:
                self._resize(calls, ref, scale_set, 0)
        except ProviderError as error:
            if not error.retry:  # else it is asked for again
                self._give_back(calls, silenced)
            raise

    def _give_back(self, calls: Calls, silenced: Sequence[Json]) -> None:
        """As far as Azure lets us: what made us turn back is what counts, and undo does the rest."""
        try:
            for one in silenced:
                self._switch(calls, one, on=True)
        except ProviderError:
            return

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """Its size first, while nothing fights it; then what sets it. What somebody has set since is left so."""
        scale_set = self._scale_set(calls, ref)
        _same(ref, remembered["group"], _unique_id(scale_set))
        settings = self._settings(calls, ref)
        fighting = _enabled(settings)
        silenced = [one for one in settings if _id(one) in remembered["autoscale"] and one not in fighting]
        before, now = remembered["size"], _capacity(scale_set)
        if before and not now and not fighting:
            self._resize(calls, ref, scale_set, before)
        for one in silenced:
            self._switch(calls, one, on=True)
        if silenced and now not in (0, before):
            raise Refused(
                f"the size of {ref.external_id} was set to {now} by someone else since it was scaled to zero, and is "
                f"left so; before, it was {before}. Its autoscale setting is on again"
            )

    def _scale_set(self, calls: Calls, ref: ResourceRef) -> Json:
        scale_set = calls.get(ref.external_id, version=COMPUTE)
        if translate_groups.of_node_pool(scale_set):
            raise Unsupported(f"{ref.external_id} belongs to a node pool of AKS, and is sized by that alone")
        if translate_groups.only_places(scale_set) or translate_groups.capacity_of(scale_set) is None:
            raise Unsupported(f"{ref.external_id} makes no machines, and only places those that are put in it")
        return scale_set

    def _check_members(self, calls: Calls, ref: ResourceRef, scale_set: Answer) -> None:
        """Those that somebody protected are not ours to lose, whether or not Azure itself would pass over them."""
        try:
            members = list(calls.items(f"{ref.external_id}/virtualMachines", version=COMPUTE))
        except Unsupported:
            if translate_groups.is_uniform(scale_set):
                raise
            return  # members of flexible sets could not always be protected
        kept = [one["name"] for one in members if translate_groups.is_protected(one)]
        if kept:
            raise Protected(
                f"of {ref.external_id}, {', '.join(kept[:3])}{', …' if len(kept) > 3 else ''} "
                f"{'is' if len(kept) == 1 else 'are'} protected from scale-in"
            )

    def _resize(self, calls: Calls, ref: ResourceRef, scale_set: Answer, size: int) -> None:
        """With the rest of its SKU, as Azure may take a SKU without a name for another one."""
        calls.patch(ref.external_id, {"sku": {**scale_set["sku"], "capacity": size}}, version=COMPUTE)

    def _settings(self, calls: Calls, ref: ResourceRef) -> Sequence[Json]:
        """The autoscale settings for it. Where Azure Monitor was never used, there are none."""
        path = f"/subscriptions/{ref.account}/providers/Microsoft.Insights/autoscalesettings"
        try:
            with not_its_own("the list of autoscale settings"):
                return [
                    one
                    for one in calls.items(path, version=AUTOSCALE)
                    if _target(one) == translate.folded(ref.external_id)
                ]
        except NotEnabled:
            return ()

    def _switch(self, calls: Calls, setting: Answer, *, on: bool) -> None:
        """Azure Monitor is told the whole setting, as Microsoft's own tools do; all else in it is as it was read."""
        body = {key: setting[key] for key in ("location", "tags") if key in setting}
        properties = {**setting["properties"], "enabled": on}
        calls.put(translate.canonical(setting["id"]), {**body, "properties": properties}, version=AUTOSCALE)


def _capacity(scale_set: Answer) -> int:
    return translate_groups.capacity_of(scale_set) or 0


def _unique_id(scale_set: Answer) -> str:
    return str((scale_set.get("properties") or {}).get("uniqueId")).lower()


def _id(setting: Answer) -> str:
    return translate.folded(str(setting["id"]))


def _target(setting: Answer) -> str:
    return translate.folded(str(setting["properties"].get("targetResourceUri") or ""))


def _enabled(settings: Sequence[Json]) -> Sequence[Json]:
    return [one for one in settings if one["properties"].get("enabled", True)]


def _bounds(setting: Answer) -> str:
    """`scale (1 to 4 machines)`"""
    (found,) = translate_groups.autoscales([setting]).values() or (None,)
    return f"{setting['name']} ({found.least} to {found.most} machines)" if found else str(setting["name"])


class NodePools:
    """Node pools of AKS: to zero and back, each in one call, that sets the size and the autoscaling together.

    AKS is told the whole pool, as it was read, and takes it only as long as nobody has changed it since.
    """

    what = "a node pool of AKS"
    verbs = frozenset({Verb.SCALE_TO_ZERO})

    READ_ONLY = ("eTag", "currentOrchestratorVersion", "nodeImageVersion", "provisioningState")
    BOUNDS = ("minCount", "maxCount")
    """Only a pool that is scaled automatically may have them."""

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        pool = self._sizable(calls, record.ref)
        size, scaling = _size(pool), self._scaling(pool)
        switched, back = "", "puts exactly this back"
        if scaling:
            least, most = (scaling[bound] for bound in self.BOUNDS)
            switched = f", and switches off its autoscaling ({least} to {most} nodes)"
            if size != (given := min(max(size, least), most)):
                back = f"gives it {_counted(given, 'node')}, as its autoscaling wants"
        return {
            "plan": f"Takes node pool {record.name} from {_counted(size, 'node')} to zero{switched}; undo {back}.",
            "cluster": self._cluster_id(calls, record.ref),
            "size": size,
            "autoscaling": scaling,
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        pool = self._sizable(calls, ref)
        if not _stopped(pool) and (pool.get("count") or pool.get("enableAutoScaling")):
            self._set(calls, ref, pool, {"count": 0, "enableAutoScaling": False})

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """What somebody has set since is left so; an autoscaling that he switched on decides."""
        pool = self._pool(calls, ref)
        _same(ref, remembered["cluster"], self._cluster_id(calls, ref))
        before, now, scaling = remembered["size"], _size(pool), remembered["autoscaling"]
        if pool.get("enableAutoScaling") or not (before or scaling):
            return
        if _stopped(pool):
            raise Refused(f"node pool {ref.external_id} was stopped by someone else since it was scaled to zero")
        if scaling:
            least, most = (scaling[bound] for bound in self.BOUNDS)
            count = min(max(now or before, least), most)  # AKS takes no other
            self._set(calls, ref, pool, {"count": count, "enableAutoScaling": True, **scaling})
        elif not now:
            self._set(calls, ref, pool, {"count": before})
        elif now != before:
            raise Refused(
                f"the size of node pool {ref.external_id} was set to {now} by someone else since it was scaled to "
                f"zero, and is left so; before, it was {before}"
            )

    def _sizable(self, calls: Calls, ref: ResourceRef) -> Json:
        pool = self._pool(calls, ref)
        if str(pool.get("mode")).lower() == "system":
            raise Unsupported(f"{ref.external_id} is a system pool, which AKS does not scale to zero")
        if translate_groups.has_single_nodes(pool):
            raise Unsupported(f"{ref.external_id} has single machines of several sizes, which Curfew does not scale")
        return pool

    def _pool(self, calls: Calls, ref: ResourceRef) -> Json:
        pool: Json = calls.get(ref.external_id, version=AKS)["properties"]
        return pool

    def _cluster_id(self, calls: Calls, ref: ResourceRef) -> str | None:
        """Tells its cluster from others of the name; pools have no such ids."""
        cluster = ref.external_id.partition("/agentPools/")[0]
        found: str | None = calls.get(cluster, version=AKS)["properties"].get("resourceUID")
        return found

    def _scaling(self, pool: Answer) -> dict[str, int]:
        return {bound: int(pool.get(bound) or 0) for bound in self.BOUNDS} if pool.get("enableAutoScaling") else {}

    def _set(self, calls: Calls, ref: ResourceRef, pool: Answer, changed: Json) -> None:
        state = str(pool.get("provisioningState") or "")
        if state.lower() not in translate_groups.SETTLED:
            raise Conflict(f"AKS is at something else with {ref.external_id} just now: it is {state}")
        same = {key: value for key, value in pool.items() if key not in (*self.READ_ONLY, *self.BOUNDS)}
        body = {"properties": {**same, **changed}}
        calls.put(ref.external_id, body, version=AKS, if_match=pool.get("eTag"))


def _stopped(pool: Answer) -> bool:
    """A stopped pool keeps its count, and has no nodes."""
    return str((pool.get("powerState") or {}).get("code")).lower() == "stopped"


def _size(pool: Answer) -> int:
    return 0 if _stopped(pool) else int(pool.get("count") or 0)


# What can be acted on, by what its id looks like.

_GROUP = r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
_ACTS: Sequence[tuple[Kind, str, _Acts]] = (
    (Kind.INSTANCE, r"Microsoft\.Compute/virtualMachines/[^/]+", Machines()),
    (Kind.NOTEBOOK, r"Microsoft\.MachineLearningServices/workspaces/[^/]+/computes/[^/]+", ComputeInstances()),
    (Kind.NODE_GROUP, r"Microsoft\.Compute/virtualMachineScaleSets/[^/]+", ScaleSets()),
    (Kind.NODE_GROUP, r"Microsoft\.ContainerService/managedClusters/[^/]+/agentPools/[^/]+", NodePools()),
)


def _for(ref: ResourceRef, verb: Verb) -> _Acts:
    acts = _of(ref)
    if verb not in acts.verbs:
        possible = ", ".join(sorted(one.value for one in acts.verbs))
        raise Unsupported(f"{acts.what} cannot be told to {verb.value}; possible is {possible}")
    return acts


def _of(ref: ResourceRef) -> _Acts:
    for kind, path, acts in _ACTS:
        if ref.kind is kind and re.fullmatch(_GROUP + path, ref.external_id):
            return acts
    raise Unsupported(f"{ref.external_id}, of kind {ref.kind}, is nothing in Azure that can be acted on")


# What they have in common.


def _state_of(record: ResourceRecord) -> dict[str, Any]:
    """The state to return to, and what tells it from another of its name."""
    return {
        "state": record.state.value,
        "incarnation": record.incarnation,
        "created_at": record.created_at.isoformat() if record.created_at else None,
    }


def _was_up(ref: ResourceRef, remembered: Answer) -> bool:
    """Whether there is anything to put back."""
    if remembered.get("verb") == Verb.TERMINATE:
        raise Unsupported(f"{ref.external_id} was deleted; nothing brings it back")
    return remembered.get("state") not in DOWN


def _same(ref: ResourceRef, before: str | None, now: str | None) -> None:
    if before != now:
        raise NotFound(f"{ref.external_id} was deleted and made anew since; what was remembered is not its own")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
