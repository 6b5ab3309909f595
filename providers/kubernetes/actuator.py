"""Turns an intended act into edits of a workload's objects, its eviction or its end, and undoes what can be undone.

What is edited is told by `ways`. Whether to act is not decided, and not re-checked, here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from providers.errors import Conflict, NotFound, Protected, ProviderError, Refused, Unreachable, Unsupported
from providers.kubernetes.client import Client, Gone, NotServed
from providers.kubernetes.owners import COLLECTIONS, OWNERS, Collection, How
from providers.kubernetes.ways import (
    MARKS,
    REMEMBERED,
    REQUEST,
    STOPPED_BY,
    UNDO,
    Edit,
    Path,
    Step,
    Thing,
    as_json,
    autoscalers,
    beside,
    compact,
    from_json,
    instant,
    marked_edits,
    merge_patch,
    selects,
    steps,
    undo_line,
)
from providers.records import Kind, ResourceRecord, ResourceRef, Verb

T = TypeVar("T")

LATEST_START_SECONDS = 10.0
"""No call of an act begins later than this after its first, so that the last one ends within
`Capabilities.act_timeout_seconds` (the client's own time-outs may add up to 75 s)."""
ATTEMPTS = 5
"""Where only a controller wrote its status between our look and our edit, we look again."""
MANAGER = {"fieldManager": "curfew"}
LONGEST_NOTE = 1000
"""Kubernetes takes 1024 bytes in an Event's message."""


class Calls:
    """The calls of one act, none begun too late."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self._client, self._clock = client, clock
        self._began = clock()

    def get(self, collection: Collection, namespace: str, name: str) -> Thing:
        for version in collection.versions:
            with suppress(NotServed):
                found = self._call(self._client.get, path_of(collection, version, namespace, name))
                return Thing(collection=collection, version=version, object=found)
        raise NotServed(f"the cluster serves no {collection.word} in a version that Curfew knows")

    def list(self, collection: Collection, namespace: str) -> list[Thing]:
        """None, where the cluster has no such kind."""
        for version in collection.versions:
            with suppress(NotServed):
                pages = self._call(lambda path: list(self._client.pages(path)), path_of(collection, version, namespace))
                return [
                    Thing(collection=collection, version=version, object=item)
                    for page in pages
                    for item in page["items"]
                ]
        return []

    def patch(self, thing: Thing, body: Mapping[str, Any]) -> None:
        """Fails if it is no longer as we saw it, or no longer the same."""
        seen = {key: thing.object["metadata"][key] for key in ("uid", "resourceVersion")}
        path = path_of(thing.collection, thing.version, thing.namespace, thing.name)
        whole = {**body, "metadata": {**body["metadata"], **seen}}
        self._call(lambda path: self._client.patch(path, whole, query=MANAGER), path)

    def evict(self, pod: Thing) -> None:
        """With its own grace; a disruption budget may be against it, and is never overruled."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        path = path_of(pod.collection, pod.version, pod.namespace, pod.name)
        try:
            self._call(lambda path: self._client.post(path, body), f"{path}/eviction")
        except Protected as error:
            raise Conflict(f"{self._budgets_of(pod)} allows no eviction of {pod.words} now") from error

    def _budgets_of(self, pod: Thing) -> str:
        """Those that count it and have nothing to spare, by name as far as we may ask."""
        path, labels = (
            f"/apis/policy/v1/namespaces/{pod.namespace}/poddisruptionbudgets",
            pod.at(("metadata", "labels")),
        )
        found: list[str] = []
        with suppress(ProviderError):
            found = [
                budget["metadata"]["name"]
                for budget in self._call(self._client.get, path)["items"]
                if selects(budget["spec"].get("selector"), labels or {})
                and not (budget.get("status") or {}).get("disruptionsAllowed")
            ]
        return f"PodDisruptionBudget {' and '.join(sorted(found))}" if found else "a PodDisruptionBudget"

    def delete(self, thing: Thing) -> None:
        body = {"propagationPolicy": "Background", "preconditions": {"uid": thing.uid}}
        path = path_of(thing.collection, thing.version, thing.namespace, thing.name)
        self._call(lambda path: self._client.delete(path, body), path)

    def tell(self, event: dict[str, Any]) -> None:
        """As good as it goes: what was done is done."""
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        with suppress(ProviderError):
            self._call(lambda path: self._client.post(path, event), path)

    def _call(self, ask: Callable[[str], T], path: str) -> T:
        if self._clock() - self._began > LATEST_START_SECONDS:
            raise Unreachable(f"{path} was not asked: the calls before it took too long")
        try:
            return ask(path)
        except Gone as error:
            raise Unreachable(f"{path} could not be read to its end") from error


class KubernetesActuator:
    """Acts on one workload at a time, through the objects that set its size.

    Each object is changed by one patch, which fails if it is no longer as it was seen, and which writes down on the
    object itself what it changed: so nothing is half done, and the same request is known again when it comes twice.
    """

    def __init__(
        self, client: Client, *, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._now = now
        self._clock = clock
        self._remembered: dict[ResourceRef, Mapping[str, Any]] = {}
        """What was just remembered, until it is acted on: whatever is otherwise by then was changed by somebody else.
        Lost with the process; then what the service checks before it repeats an act is what holds."""

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """Every value the act will change, as it is now; none, where somebody else has stopped it already."""
        calls = self._calls()
        top = _asked_for(calls, record.ref, _collection(record.ref, verb))
        if top.uid != record.incarnation:
            raise NotFound(f"{top.words} was deleted and made anew since it was looked at")
        remembered = {"verb": verb.value, "uid": top.uid, **self._before(calls, top, verb)}
        self._remembered[record.ref] = remembered
        return remembered

    def _before(self, calls: Calls, top: Thing, verb: Verb) -> dict[str, Any]:
        if verb is Verb.TERMINATE:
            return {"final": True, "plan": f"Deletes {top.words} and its pods; nothing brings them back."}
        if top.collection.how is How.EVICT:
            return {"final": True, "plan": f"Evicts {top.words}; a bare pod does not come back."}
        around = _around(calls, top)
        found = steps(top, around, self._now())
        return {
            "plan": _plan(top, found),
            "changes": [_as_json(step) for step in found],
            "autoscalers": autoscalers(top, around),
        }

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        calls = self._calls()
        remembered = self._remembered.pop(ref, None)
        top = _asked_for(calls, ref, _collection(ref, verb))
        if remembered is not None and remembered["uid"] != top.uid:
            raise Conflict(f"{top.words} was deleted and made anew a moment ago; nothing was done")
        if verb is Verb.TERMINATE or top.collection.how is How.EVICT:
            self._end(calls, top, verb, request_id, reason)
            return
        found = steps(top, _around(calls, top), self._now(), request_id=request_id)
        if found and remembered is not None and verb == remembered["verb"]:
            _check_unchanged(top, found, remembered)
        to_do = [step for step in found if not step.done]
        if to_do:
            marks = {
                STOPPED_BY: f"curfew, {instant(self._now())}: {reason or 'no reason was given'}",
                UNDO: undo_line(found),
                REQUEST: request_id,
            }
            self._do(calls, to_do, marks)
            self._tell(calls, top, request_id, "CurfewStopped", f"{_sentence(reason)} To undo it: {marks[UNDO]}")

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        calls = self._calls()
        verb = Verb(remembered["verb"])
        if remembered.get("final"):
            done = "deleted" if verb is Verb.TERMINATE else "evicted"
            raise Unsupported(f"{ref.external_id} was {done}; nothing undoes that")
        top = _asked_for(calls, ref, _collection(ref, verb))
        if top.uid != remembered["uid"]:
            raise NotFound(f"{top.words} was deleted and made anew since; what was remembered is not its own")
        ours = REQUEST in top.annotations
        changed = reversed(_changed(calls, top, remembered))
        left = [thing.words for thing, edits in changed if not _put_back(calls, thing, edits)]
        if left:
            raise Refused(
                f"{' and '.join(left)} does not bear Curfew's mark any more: whoever stopped it did so without us, and "
                "it is left so"
            )
        if ours:
            self._tell(calls, top, request_id, "CurfewRestored", "Curfew put back what it had changed.")

    def _calls(self) -> Calls:
        return Calls(self._client, self._clock)

    def _do(self, calls: Calls, to_do: Sequence[Step], marks: Mapping[str, str]) -> None:
        """Step by step; gives back at once what it did where the cluster refuses to go on."""
        for place, step in enumerate(to_do):
            values = [(edit.path, edit.after) for edit in step.edits]
            try:
                _edit(calls, step.thing, merge_patch(values, {**marks, REMEMBERED: compact(as_json(step.edits))}))
            except ProviderError as error:
                if not error.retry:  # else it is asked for again
                    _give_back(calls, to_do[:place])
                raise

    def _end(self, calls: Calls, top: Thing, verb: Verb, request_id: str, reason: str) -> None:
        """Deleting or evicting what is on its way out already is done already."""
        if "deletionTimestamp" in top.object["metadata"]:
            return
        with suppress(NotFound):  # it went meanwhile
            if verb is Verb.TERMINATE:
                calls.delete(top)
            else:
                calls.evict(top)
        done = "deleted" if verb is Verb.TERMINATE else "evicted"
        self._tell(calls, top, request_id, "CurfewStopped", f"{_sentence(reason)} It is {done}; nothing undoes that.")

    def _tell(self, calls: Calls, top: Thing, request_id: str, reason: str, note: str) -> None:
        """An Event; the same one, when it is told of again."""
        told = hashlib.sha256(f"{top.uid} {reason} {request_id}".encode()).hexdigest()[:16]
        moment = instant(self._now())
        calls.tell(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"curfew.{told}", "namespace": top.namespace},
                "involvedObject": {
                    "apiVersion": top.collection.api_version(top.version),
                    "kind": top.collection.kind,
                    "namespace": top.namespace,
                    "name": top.name,
                    "uid": top.uid,
                },
                "type": "Normal",
                "reason": reason,
                "message": _short(note),
                "source": {"component": "curfew"},
                "reportingComponent": "curfew",
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            }
        )


# What is acted on.


def path_of(collection: Collection, version: str, namespace: str, name: str = "") -> str:
    root = f"/apis/{collection.group}" if collection.group else "/api"
    return f"{root}/{version}/namespaces/{namespace}/{collection.plural}{f'/{name}' if name else ''}"


def _collection(ref: ResourceRef, verb: Verb) -> Collection:
    """Where such a workload is kept, if it can be told to do that at all."""
    if ref.kind is not Kind.WORKLOAD:
        raise Unsupported(f"in Kubernetes only workloads are acted on; {ref.external_id} is a {ref.kind.value}")
    kind = ref.external_id.split("/")[1]
    collection = OWNERS.get(kind)
    if collection is None:
        raise Unsupported(f"Curfew knows no way to stop a {kind}; it knows {', '.join(sorted(OWNERS))}")
    if verb not in collection.verbs:
        possible = ", ".join(sorted(verb.value for verb in collection.verbs))
        raise Unsupported(f"a {kind} cannot be told to {verb.value}; possible is {possible}")
    return collection


def _asked_for(calls: Calls, ref: ResourceRef, collection: Collection) -> Thing:
    namespace, _, name = ref.external_id.split("/")
    return calls.get(collection, namespace, name)


def _around(calls: Calls, top: Thing) -> list[Thing]:
    return [thing for word in beside(top.collection) for thing in calls.list(COLLECTIONS[word], top.namespace)]


# What people read.


def _plan(top: Thing, found: Sequence[Step]) -> str:
    if not found:
        return f"{top.words} is stopped already; nothing is changed, and there will be nothing to undo."
    words = "; ".join(step.words for step in found if step.edits)
    return f"{words[0].upper()}{words[1:]}; undo puts exactly this back."


def _sentence(reason: str) -> str:
    return f"Curfew: {reason.rstrip('. ')}." if reason else "Curfew stopped it."


def _short(note: str) -> str:
    whole = note.encode()
    return note if len(whole) <= LONGEST_NOTE else f"{whole[:LONGEST_NOTE].decode(errors='ignore')}…"


# What was remembered.


def _as_json(step: Step) -> dict[str, Any]:
    thing = step.thing
    return {"in": thing.collection.word, "name": thing.name, "uid": thing.uid, **as_json(step.edits)}


def _check_unchanged(top: Thing, found: Sequence[Step], remembered: Mapping[str, Any]) -> None:
    """What is stored for an undo is what the act meets; `after` is left out, as it may tell the time."""
    met = [(entry["uid"], entry["before"]) for entry in map(_as_json, found)]
    if met != [(entry["uid"], entry["before"]) for entry in remembered["changes"]]:
        raise Conflict(f"{top.words} was changed by somebody else a moment ago; nothing was done")


def _changed(calls: Calls, top: Thing, remembered: Mapping[str, Any]) -> list[tuple[Thing, tuple[Edit, ...]]]:
    """What the act changed and is still there: all that was remembered, and what it met besides (a run that a CronJob
    began after a crash of ours), which bears the same request."""
    found: list[tuple[Thing, tuple[Edit, ...]]] = []
    for entry in remembered["changes"]:
        with suppress(NotFound):
            thing = calls.get(COLLECTIONS[entry["in"]], top.namespace, entry["name"])
            if thing.uid == entry["uid"]:
                found.append((thing, from_json(entry)))
    request = top.annotations.get(REQUEST)
    known = {thing.uid for thing, _ in found}
    around = _around(calls, top) if request else ()
    besides = [thing for thing in around if thing.annotations.get(REQUEST) == request and thing.uid not in known]
    return [*found, *((thing, marked_edits(thing) or ()) for thing in besides)]


# One patch of one object.


def _edit(calls: Calls, thing: Thing, body: Mapping[str, Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            calls.patch(thing, body)
            return
        except Conflict as error:
            now = calls.get(thing.collection, thing.namespace, thing.name)
            if attempt == ATTEMPTS or now.unchanging != thing.unchanging:
                raise Conflict(f"{thing.words} was changed by somebody else at the same moment") from error
            thing = now


def _put_back(calls: Calls, thing: Thing, edits: Sequence[Edit]) -> bool:
    """As far as nobody else has set it since; our marks go in any case. False where somebody else has stopped it."""
    for attempt in range(1, ATTEMPTS + 1):
        if REQUEST not in thing.annotations:
            return not any(edit.back(thing) for edit in edits)
        try:
            calls.patch(thing, merge_patch(_values_back(thing, edits), dict.fromkeys(MARKS)))
            return True
        except Conflict:
            if attempt == ATTEMPTS:
                raise
            thing = calls.get(thing.collection, thing.namespace, thing.name)
    return False


def _values_back(thing: Thing, edits: Sequence[Edit]) -> list[tuple[Path, Any]]:
    """As remembered; only at what time we acted, its own annotation knows better."""
    done = {edit.path: edit.after for edit in marked_edits(thing) or ()}
    as_done = (replace(edit, after=done.get(edit.path, edit.after)) for edit in edits)
    return [value for edit in as_done for value in edit.back(thing)]


def _give_back(calls: Calls, done: Sequence[Step]) -> None:
    """As far as the cluster lets us: what made us turn back is what counts, and undo does the rest."""
    with suppress(ProviderError):
        for step in reversed(done):
            now = calls.get(step.thing.collection, step.thing.namespace, step.thing.name)
            _put_back(calls, now, step.edits)
