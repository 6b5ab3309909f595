"""Turns an intended act into calls to Google's APIs on one machine, one notebook or one group, and undoes it.

Whether to act is not decided, and not re-checked, here. Google accepts most acts first and carries them out by itself;
what has failed of them since is told by `failures`.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid4, uuid5

from providers.errors import (
    Conflict,
    NotFound,
    ProviderError,
    Refused,
    Unreachable,
    Unsupported,
)
from providers.gcp.client import Client, Json, failure
from providers.gcp.translate import PLAIN, builtin_types, last, local_disks_gb, utc
from providers.gcp.translate_groups import AUTOSCALER_FIELDS, GKE_GROUP, autoscaler, pool_groups
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb

Answer = Mapping[str, Any]

LATEST_START_SECONDS = 7.0
"""No call of an act begins later than this after its first, so that the last one ends within
`Capabilities.act_timeout_seconds`, by the client's own time-outs."""
LOOK_SECONDS = 0.5
"""Between two looks at an operation that must be done before an act can go on."""
ASKED_TOGETHER = 100
"""So many acts are asked about in one question: their ids are part of an address, which has a longest length."""
SHORTEST_LIMIT_SECONDS, LONGEST_LIMIT_SECONDS = 30, 120 * 24 * 3600
"""What Google takes as a limit of a machine's running time."""


class Calls:
    """The calls of one act, none begun too late, each change under an id that keeps it from being made twice."""

    def __init__(
        self,
        client: Client,
        request_id: str,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._client, self._request_id, self._clock, self._sleep = client, request_id, clock, sleep
        self._began = clock()

    def get(self, service: str, path: str, *, fields: str | None = None) -> Json:
        self._in_time(path)
        return self._client.get(service, path, query={"fields": fields} if fields else None, prompt=True)

    def post(self, service: str, path: str, body: Json | None = None) -> Json:
        """Of the APIs that know no request ids: what they ask for must be looked up before."""
        self._in_time(path)
        return self._client.post(service, path, body if body is not None else {})

    def delete(self, service: str, path: str) -> Json:
        self._in_time(path)
        return self._client.delete(service, path)

    def compute(
        self,
        method: str,
        path: str,
        *,
        step: str = "",
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
    ) -> Json:
        """A change in Compute Engine: the operation that was accepted. Each step of an act has an id of its own."""
        operation = self._changed(method, path, request_uuid(self._request_id, step), query, body)
        if failure("", operation) is not None:
            # what was asked with this id has failed before, and would be answered so for ever
            operation = self._changed(method, path, request_uuid(self._request_id, step, again=True), query, body)
        self._succeeded(path, operation)
        return operation

    def done(self, service: str, path: str, operation: Json) -> None:
        """Returns once an operation is done, which is found at that path."""
        while not (operation.get("status") == "DONE" or operation.get("done")):
            self._sleep(LOOK_SECONDS)
            operation = self.get(service, path)
        self._succeeded(path, operation)

    def _changed(
        self, method: str, path: str, request: str, query: Mapping[str, str] | None, body: Json | None
    ) -> Json:
        self._in_time(path)
        asked = {**(query or {}), "requestId": request}
        if method == "DELETE":
            return self._client.delete("compute", path, query=asked)
        if method == "PATCH":
            return self._client.patch("compute", path, body or {}, query=asked)
        return self._client.post("compute", path, body, query=asked)

    def _succeeded(self, path: str, operation: Json) -> None:
        if (error := failure(path, operation)) is not None:
            raise error

    def _in_time(self, path: str) -> None:
        if self._clock() - self._began > LATEST_START_SECONDS:
            raise Unreachable(f"{path} was not asked: what came before it took too long")


def request_uuid(request_id: str, step: str = "", *, again: bool = False) -> str:
    """Our id of an act as Google wants ids: its first half tells the act, its second half the step.

    `again`: of an act that is asked for anew, because what was asked before has failed. It is never the same twice.
    """
    act, one = uuid5(NAMESPACE_URL, request_id), uuid5(NAMESPACE_URL, f"{request_id}/{step}")
    return f"{str(act)[:_OF_THE_ACT]}{str(uuid4() if again else one)[_OF_THE_ACT:]}"


_OF_THE_ACT = len("01234567-89ab-5def")


class _Acts(Protocol):
    """How the verbs of one kind of resource are done. `remembered` holds what `remember` answered."""

    what: str
    verbs: frozenset[Verb]

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]: ...

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None: ...

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None: ...


class GcpActuator:
    """Acts on one thing at a time, and knows what became of acts that Google accepted."""

    def __init__(
        self,
        client: Client,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._clock = clock
        self._sleep = sleep

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """What it is like now: the state of a machine, the size and the autoscaler of a group."""
        acts = _for(record.ref, verb)
        return {"verb": verb.value, **acts.remember(self._calls(""), record, verb)}

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        _for(ref, verb).act(self._calls(request_id), ref, verb)

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        verb = Verb(remembered.get("verb", Verb.STOP))
        _for(ref, verb).restore(self._calls(request_id), ref, remembered)

    def limit_run(self, ref: ResourceRef, seconds: int | None, *, request_id: str) -> None:
        """Google itself stops the machine so many seconds after each of its starts (`maxRunDuration`); None: no more.

        Google takes a limit only while the machine is **stopped** (`instances.setScheduling` says so, and no other
        method changes it; the same goes for `terminationTime`): what runs is told by Conflict, and is not stopped for
        it here. A limit is from 30 seconds to 120 days; legacy preemptible machines cannot have one. What is on Local
        SSD is erased when a limit ends a run, so whoever asks for one must have accepted that. A limit of another kind
        (a time, a deletion) is its owner's, and is refused to touch.
        """
        acts = _of(ref)
        if not isinstance(acts, Instances):
            raise Unsupported(f"{ref.external_id} is no machine of Compute Engine; only those have a limit of running")
        acts.limit_run(self._calls(request_id), ref, seconds)

    def _calls(self, request_id: str) -> Calls:
        return Calls(self._client, request_id, clock=self._clock, sleep=self._sleep)

    # What became of acts.

    def failures(self, acts: Mapping[str, ResourceRef]) -> Mapping[str, ProviderError]:
        """Asked once for each project: Google keeps all operations, with the ids they were asked by, for two weeks.

        Kubernetes Engine, Workbench and Cloud TPU keep no such ids, so acts on what is theirs are left out; they show
        in the state of what was acted on.
        """
        by_project: dict[str, dict[str, str]] = defaultdict(dict)
        for request_id, ref in acts.items():
            by_project[ref.account][request_uuid(request_id)[:_OF_THE_ACT]] = request_id
        found: dict[str, ProviderError] = {}
        for project, requests in by_project.items():
            heads = sorted(requests)
            for start in range(0, len(heads), ASKED_TOGETHER):
                try:
                    operations = list(self._operations(project, heads[start : start + ASKED_TOGETHER]))
                except ProviderError:
                    break
                for head, target, error in _failed(operations):
                    if head in requests and _is_changed_by(acts[requests[head]], target):
                        found[requests[head]] = error
        return found

    def _operations(self, project: str, heads: Sequence[str]) -> Iterator[Json]:
        """What was asked for by ids that begin so. Google answers more, or all, where it does not know the filter."""
        pages = self._client.pages(
            "compute",
            f"/compute/v1/projects/{project}/aggregated/operations",
            query={"filter": f'clientOperationId eq "({"|".join(heads)}).*"', "maxResults": 500},
            prompt=True,
        )
        for page in pages:
            for scope in (page.get("items") or {}).values():
                yield from scope.get("operations") or ()


_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def _is_changed_by(ref: ResourceRef, target: str) -> bool:
    """Whoever may read operations sees the ids of ours, and can ask for something else by them, which then fails."""
    place = ref.external_id.partition("/instanceGroupManagers/")[0]
    return target == ref.external_id or (ref.kind is Kind.NODE_GROUP and target.startswith(f"{place}/autoscalers/"))


def _failed(operations: Sequence[Json]) -> Iterator[tuple[str, str, ProviderError]]:
    """The acts that failed, by the beginning of their ids, and what they were on: of what was asked several times, the
    last time counts.
    """
    latest: dict[tuple[str, str, str], Json] = {}
    for operation in sorted(operations, key=lambda one: utc(one.get("insertTime")) or _LONG_AGO):
        head = str(operation.get("clientOperationId") or "")[:_OF_THE_ACT]
        latest[head, str(operation.get("operationType")), str(operation.get("targetLink"))] = operation
    for (head, kind, link), operation in latest.items():
        target = link.partition("/v1/")[2]
        error = failure(f"{kind} of {target}", operation)
        if error is not None:
            yield head, target, error


# Single machines.


class Instances:
    """Machines of Compute Engine. What is down, or on its way there, is left alone."""

    what = "a machine of Compute Engine"
    verbs = frozenset({Verb.STOP, Verb.SUSPEND, Verb.TERMINATE})

    DOWN = frozenset({"DEPROVISIONING", "PENDING_STOP", "STOPPED", "STOPPING", "SUSPENDED", "SUSPENDING", "TERMINATED"})
    """A machine that shuts down gracefully (PENDING_STOP) is given the time its owner has set: it is not hurried."""
    ENDED = frozenset({"STOPPED", "TERMINATED"})
    UP = frozenset({"PENDING", "PROVISIONING", "REPAIRING", "RUNNING", "STAGING"})
    FIELDS = "id,name,status,creationTimestamp,machineType,disks(type,diskSizeGb)"

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return _state_of(record)

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        path = _compute_path(ref)
        if verb is Verb.TERMINATE:
            self._delete(calls, path)
            return
        instance = calls.get("compute", path, fields=self.FIELDS)
        if instance["status"] in self.DOWN:
            return
        calls.compute("POST", f"{path}/{verb.value}", query=self._discarding(instance))

    def _delete(self, calls: Calls, path: str) -> None:
        try:
            calls.compute("DELETE", path)
        except NotFound:
            return  # it is gone already

    def _discarding(self, instance: Answer) -> dict[str, str]:
        """Google wants to be told what becomes of Local SSD. This act is asked for only once a person accepted it."""
        machine = builtin_types().get(last(instance["machineType"]), PLAIN)
        return {"discardLocalSsd": "true"} if local_disks_gb(instance, machine) else {}

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """A suspended machine is resumed, a stopped one started; after 60 days Google stops what was suspended."""
        if not _was_up(ref, remembered):
            return
        path = _compute_path(ref)
        instance = calls.get("compute", path, fields=self.FIELDS)
        _same(ref, remembered, instance.get("creationTimestamp"))
        status = instance["status"]
        if status in self.UP:
            return
        if status in self.ENDED:
            calls.compute("POST", f"{path}/start")
        elif status == "SUSPENDED":
            calls.compute("POST", f"{path}/resume")
        else:
            raise Conflict(f"{ref.external_id} is {status} yet; it can be started once it has stopped")

    def limit_run(self, calls: Calls, ref: ResourceRef, seconds: int | None) -> None:
        if seconds is not None and not SHORTEST_LIMIT_SECONDS <= seconds <= LONGEST_LIMIT_SECONDS:
            raise Unsupported(
                f"a machine's running can be limited to {SHORTEST_LIMIT_SECONDS} seconds at least and to "
                f"{LONGEST_LIMIT_SECONDS} (120 days) at most, not to {seconds}"
            )
        path = _compute_path(ref)
        instance = calls.get("compute", path, fields=f"{self.FIELDS},scheduling")
        scheduling = instance.get("scheduling") or {}
        limit = (scheduling.get("maxRunDuration") or {}).get("seconds")
        if limit == (None if seconds is None else str(seconds)):
            return
        if scheduling.get("terminationTime") or scheduling.get("instanceTerminationAction") == "DELETE":
            raise Refused(
                f"how runs of {ref.external_id} end is set by its owner in another way: at a time, or by deletion"
            )
        if scheduling.get("preemptible") and scheduling.get("provisioningModel") != "SPOT":
            raise Unsupported(f"{ref.external_id} is a preemptible machine of the old kind, which takes no limit")
        if instance["status"] not in self.ENDED:
            raise Conflict(
                f"{ref.external_id} is {instance['status']}; Google takes a limit of running only while it is stopped"
            )
        calls.compute("POST", f"{path}/setScheduling", body=self._limited(instance, scheduling, seconds))

    def _limited(self, instance: Answer, scheduling: Json, seconds: int | None) -> Json:
        """All of it, as Google may take what is left out for its default; what is to go is named as null."""
        if seconds is None:
            kept = "instanceTerminationAction" if scheduling.get("provisioningModel") == "SPOT" else ""
            return {**scheduling, **dict.fromkeys((key for key in _LIMITS if key != kept and key in scheduling), None)}
        limits: Json = {"maxRunDuration": {"seconds": str(seconds)}, "instanceTerminationAction": "STOP"}
        if self._discarding(instance):
            limits["onInstanceStopAction"] = {"discardLocalSsd": True}
        return {**scheduling, **limits}


_LIMITS = ("maxRunDuration", "instanceTerminationAction", "onInstanceStopAction")


class TpuVms:
    """TPU VMs of Cloud TPU, which takes no request ids: what is asked for is looked up before."""

    what = "a TPU VM"
    verbs = frozenset({Verb.STOP, Verb.TERMINATE})

    DOWN = frozenset({"DELETING", "PREEMPTED", "STOPPED", "STOPPING", "TERMINATED"})
    UP = frozenset({"CREATING", "READY", "REIMAGING", "REPAIRING", "RESTARTING", "STARTING"})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return _state_of(record)

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        path = f"/v2/{ref.external_id}"
        if verb is Verb.TERMINATE:
            self._delete(calls, path)
            return
        node = calls.get("tpu", path)
        if node.get("state") in self.DOWN:
            return
        if len(node.get("networkEndpoints") or ()) > 1:
            raise Unsupported(f"{ref.external_id} is a slice of several machines, which Cloud TPU only deletes")
        calls.post("tpu", f"{path}:stop")

    def _delete(self, calls: Calls, path: str) -> None:
        try:
            if calls.get("tpu", path).get("state") != "DELETING":
                calls.delete("tpu", path)
        except NotFound:
            return

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        if not _was_up(ref, remembered):
            return
        path = f"/v2/{ref.external_id}"
        node = calls.get("tpu", path)
        _same(ref, remembered, node.get("createTime"))
        state = node.get("state")
        if state in self.UP:
            return
        if state in ("PREEMPTED", "TERMINATED"):
            raise Unsupported(f"{ref.external_id} was taken away by Google, which starts it no more")
        if state != "STOPPED":
            raise Conflict(f"{ref.external_id} is {state} yet; it can be started once it has stopped")
        calls.post("tpu", f"{path}:start")


class Notebooks:
    """Workbench instances. They are stopped by Workbench, not by the machine beneath, and without request ids."""

    what = "a Workbench instance"
    verbs = frozenset({Verb.STOP})

    DOWN = frozenset({"DELETED", "ORPHANED", "STOPPED", "STOPPING", "SUSPENDED", "SUSPENDING"})
    UP = frozenset({"ACTIVE", "INITIALIZING", "PROVISIONING", "STARTING", "UPGRADING"})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        return _state_of(record)

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        path = f"/v2/{ref.external_id}"
        state = calls.get("notebooks", path).get("state")
        if state in self.DOWN:
            return
        if state == "UPGRADING":
            raise Conflict(f"Workbench is upgrading {ref.external_id}, and does not stop it meanwhile")
        calls.post("notebooks", f"{path}:stop")

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        if not _was_up(ref, remembered):
            return
        path = f"/v2/{ref.external_id}"
        notebook = calls.get("notebooks", path)
        _same(ref, remembered, notebook.get("createTime"))
        state = notebook.get("state")
        if state in self.UP:
            return
        if state in ("DELETED", "ORPHANED"):
            raise NotFound(f"{ref.external_id} is {state}: there is no machine left to start")
        if state not in ("STOPPED", "SUSPENDED"):
            raise Conflict(f"{ref.external_id} is {state} yet; it can be started once it has stopped")
        calls.post("notebooks", f"{path}:start")


# Groups.


class Groups:
    """Managed instance groups, zonal and regional: to zero and back.

    Only the size is set: what waits in the group's standby pool (its stopped and suspended machines), how it spreads
    and what it makes stay as they are. Its autoscaler, if it has one, is off meanwhile, and keeps all its settings.
    """

    what = "a managed instance group"
    verbs = frozenset({Verb.SCALE_TO_ZERO})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        group = self._group(calls, record.ref)
        size, scaler = _size(group), self._scaler(calls, group)
        switched = ""
        if scaler is not None and scaler.works:
            switched = f", and switches off its autoscaler ({scaler.least} to {scaler.most} machines)"
        return {
            "plan": f"Takes {record.name} from {_counted(size, 'machine')} to zero{switched}; "
            "undo puts exactly this back.",
            "group": group["id"],
            "size": size,
            "autoscaler": None if scaler is None else scaler.mode,
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        """First silences what would fight it; gives that back at once where Google refuses to go on."""
        group = self._group(calls, ref)
        scaler = self._scaler(calls, group)
        silenced = scaler if scaler is not None and scaler.works else None
        try:
            if silenced is not None:
                self._done(calls, self._set_mode(calls, silenced, OFF, step="autoscaler"))
            if _size(group):
                self._resize(calls, ref, 0)
        except ProviderError as error:
            if silenced is not None and not error.retry:  # else it is asked for again
                self._give_back(calls, silenced)
            raise

    def _give_back(self, calls: Calls, silenced: Scaler) -> None:
        """As far as Google lets us: what made us turn back is what counts, and undo does the rest."""
        try:
            self._set_mode(calls, silenced, silenced.mode, step="back")
        except ProviderError:
            return

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """Its size first, while nothing fights it; then its autoscaler. What somebody has set since is left so."""
        group = self._group(calls, ref)
        _same_id(ref, remembered["group"], group["id"])
        before, now, mode = remembered["size"], _size(group), remembered["autoscaler"]
        scaler = self._scaler(calls, group)
        silenced = scaler if scaler is not None and not scaler.works and mode not in (None, OFF) else None
        if before and not now and (scaler is None or not scaler.works):
            operation = self._resize(calls, ref, before)
            if silenced is not None:
                self._done(calls, operation)
        if silenced is None:
            return
        self._set_mode(calls, silenced, mode, step="autoscaler")
        if now not in (0, before):
            raise Refused(
                f"the size of {ref.external_id} was set to {now} by someone else since it was scaled to zero, and is "
                f"left so; before, it was {before}. Its autoscaler runs again"
            )

    def _group(self, calls: Calls, ref: ResourceRef) -> Json:
        group = calls.get("compute", _compute_path(ref), fields="id,name,targetSize,status,statefulPolicy")
        if GKE_GROUP.match(group["name"]):
            raise Unsupported(f"{ref.external_id} belongs to a node pool of GKE, and is sized by that alone")
        stateful = (group.get("status") or {}).get("stateful") or {}
        if group.get("statefulPolicy") or stateful.get("hasStatefulConfig"):
            raise Unsupported(f"{ref.external_id} is stateful: a smaller size would delete what its machines keep")
        return group

    def _scaler(self, calls: Calls, group: Answer) -> Scaler | None:
        link = (group.get("status") or {}).get("autoscaler")
        if not link:
            return None
        path = _path_of(link)
        found = autoscaler(calls.get("compute", path, fields=AUTOSCALER_FIELDS))
        return Scaler(path=path, mode=found.mode, least=found.least or 0, most=found.most or 0)

    def _set_mode(self, calls: Calls, scaler: Scaler, mode: str, *, step: str) -> Json:
        place, _, name = scaler.path.rpartition("/")
        body = {"autoscalingPolicy": {"mode": mode}}
        return calls.compute("PATCH", place, step=step, query={"autoscaler": name}, body=body)

    def _resize(self, calls: Calls, ref: ResourceRef, size: int) -> Json:
        return calls.compute("POST", f"{_compute_path(ref)}/resize", step="size", query={"size": str(size)})

    def _done(self, calls: Calls, operation: Json) -> None:
        calls.done("compute", _path_of(operation["selfLink"]), operation)


OFF = "OFF"


@dataclass(frozen=True, kw_only=True)
class Scaler:
    """The autoscaler of a group."""

    path: str
    mode: str
    least: int
    most: int

    @property
    def works(self) -> bool:
        return self.mode != OFF


class NodePools:
    """Node pools of GKE: to zero and back, in all their zones.

    A cluster does one thing at a time. While it is at something else, what is left of an act is not asked for, and the
    caller, who is told that its outcome is unknown, asks again; each time begins where the pool is then.
    """

    what = "a node pool of GKE"
    verbs = frozenset({Verb.SCALE_TO_ZERO})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        pool = self._pool(calls, record.ref)
        sizes, autoscaling = self._sizes(calls, record.ref, pool), pool.get("autoscaling") or {}
        switched = ", and switches off its autoscaling" if autoscaling.get("enabled") else ""
        alike = len({*sizes.values()}) <= 1
        back = "puts exactly this back" if alike else f"gives each of its zones {_counted(max(sizes.values()), 'node')}"
        nodes = _counted(sum(sizes.values()), "node")
        return {
            "plan": f"Takes node pool {record.name} from {nodes} to zero{switched}; undo {back}.",
            "sizes": sizes,
            "autoscaling": autoscaling,
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb) -> None:
        pool = self._pool(calls, ref)
        if (pool.get("autoscaling") or {}).get("enabled"):
            self._set(calls, ref, pool, "setAutoscaling", {"autoscaling": {"enabled": False}}, wait=True)
        if any(self._sizes(calls, ref, pool).values()):
            self._set(calls, ref, pool, "setSize", {"nodeCount": 0})

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer) -> None:
        """Its autoscaling first, as that is soon done: sizes take minutes, and nothing else is possible meanwhile.

        Sizes are set for all zones alike: of zones that differed, to the largest; autoscaling, which made them differ,
        takes back what is too much.
        """
        pool = self._pool(calls, ref)
        before, now = remembered["sizes"], self._sizes(calls, ref, pool)
        if not before.keys() & now.keys():
            raise NotFound(f"{ref.external_id} was deleted and made anew since; what was remembered is not its own")
        wanted = max(before.values(), default=0)
        scaled, resized = bool(remembered["autoscaling"].get("enabled")), bool(wanted and not any(now.values()))
        if scaled and not (pool.get("autoscaling") or {}).get("enabled"):
            body = {"autoscaling": remembered["autoscaling"]}
            self._set(calls, ref, pool, "setAutoscaling", body, wait=resized)
        if resized:
            self._set(calls, ref, pool, "setSize", {"nodeCount": wanted})
        elif not scaled and now not in (before, dict.fromkeys(now, wanted)):
            raise Refused(
                f"the size of node pool {ref.external_id} was set to {sum(now.values())} by someone else since it was "
                f"scaled to zero, and is left so; before, it was {sum(before.values())}"
            )

    def _pool(self, calls: Calls, ref: ResourceRef) -> Json:
        return calls.get("container", f"/v1/{ref.external_id}")

    def _sizes(self, calls: Calls, ref: ResourceRef, pool: Answer) -> dict[str, int]:
        """By the instance group of each zone, whose names are no other pool's: the pool tells only its first size."""
        paths = [f"/compute/v1/projects/{ref.account}/{group}" for group in pool_groups(pool)]
        return {last(path): _size(calls.get("compute", path, fields="targetSize")) for path in paths}

    def _set(
        self, calls: Calls, ref: ResourceRef, pool: Answer, method: str, body: Json, *, wait: bool = False
    ) -> None:
        if pool.get("status") not in ("RUNNING", "RUNNING_WITH_ERROR", "ERROR"):
            raise Unreachable(f"{method} of {ref.external_id} was not asked: it is {pool.get('status')} just now")
        try:
            operation = calls.post("container", f"/v1/{ref.external_id}:{method}", body)
        except Conflict as error:
            raise Unreachable(f"{error.sentence}; it is asked for again") from error
        if wait:
            place = "/".join(ref.external_id.split("/")[:4])
            calls.done("container", f"/v1/{place}/operations/{operation['name']}", operation)


# What can be acted on, by what its path looks like.

_ACTS: Sequence[tuple[Kind, str, _Acts]] = (
    (Kind.INSTANCE, r"projects/[^/]+/zones/[^/]+/instances/[^/]+", Instances()),
    (Kind.INSTANCE, r"projects/[^/]+/locations/[^/]+/nodes/[^/]+", TpuVms()),
    (Kind.NOTEBOOK, r"projects/[^/]+/locations/[^/]+/instances/[^/]+", Notebooks()),
    (Kind.NODE_GROUP, r"projects/[^/]+/(zones|regions)/[^/]+/instanceGroupManagers/[^/]+", Groups()),
    (Kind.NODE_GROUP, r"projects/[^/]+/locations/[^/]+/clusters/[^/]+/nodePools/[^/]+", NodePools()),
)


def _of(ref: ResourceRef) -> _Acts:
    for kind, path, acts in _ACTS:
        if ref.kind is kind and re.fullmatch(path, ref.external_id):
            return acts
    raise Unsupported(f"{ref.external_id}, of kind {ref.kind}, is nothing in Google Cloud that can be acted on")


def _for(ref: ResourceRef, verb: Verb) -> _Acts:
    acts = _of(ref)
    if verb not in acts.verbs:
        possible = ", ".join(sorted(one.value for one in acts.verbs))
        raise Unsupported(f"{acts.what} cannot be told to {verb.value}; possible is {possible}")
    return acts


# What they have in common.


def _compute_path(ref: ResourceRef) -> str:
    return f"/compute/v1/{ref.external_id}"


def _path_of(link: str) -> str:
    """Google's links name its public address; what they lead to is asked for where the source says."""
    return f"/compute/v1/{link.partition('/compute/v1/')[2]}"


def _state_of(record: ResourceRecord) -> dict[str, Any]:
    """The state to return to, and what tells it from another of its name."""
    return {
        "state": record.state.value,
        "launched_at": record.launched_at.isoformat() if record.launched_at else None,
        "created_at": record.created_at.isoformat() if record.created_at else None,
    }


def _was_up(ref: ResourceRef, remembered: Answer) -> bool:
    """Whether there is anything to put back."""
    if remembered.get("verb") == Verb.TERMINATE:
        raise Unsupported(f"{ref.external_id} was deleted; nothing brings it back")
    return remembered.get("state") not in (State.STOPPING, State.STOPPED, State.SUSPENDED)


def _same(ref: ResourceRef, remembered: Answer, created: str | None) -> None:
    before, now = remembered.get("created_at"), utc(created)
    if before is not None and now is not None:
        _same_id(ref, before, now.isoformat())


def _same_id(ref: ResourceRef, before: str, now: str) -> None:
    if before != now:
        raise NotFound(f"{ref.external_id} was deleted and made anew since; what was remembered is not its own")


def _size(group: Answer) -> int:
    return int(group.get("targetSize") or 0)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
