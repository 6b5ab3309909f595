"""Turns a workload as it stands, and whatever else sets its size, into the edits that stop it and that lead back.

Pure: who asks for these objects, edits them and knows what may go wrong is `actuator`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from providers.errors import Unsupported
from providers.kubernetes.owners import Collection, How

Object = Mapping[str, Any]
Path = tuple[str, ...]

PREFIX = "curfew.dev/"
STOPPED_BY, REMEMBERED, UNDO, REQUEST = (f"{PREFIX}{word}" for word in ("stopped-by", "remembered", "undo", "request"))
MARKS = (STOPPED_BY, REMEMBERED, UNDO, REQUEST)
"""Annotations on whatever we changed: who, when and why; what was there; how to put it back; which request it was."""

JOBS = "jobs.batch"
KUEUE = "workloads.kueue.x-k8s.io"
HPA = "horizontalpodautoscalers.autoscaling"
KEDA = "scaledobjects.keda.sh"

KEDA_PAUSED = ("metadata", "annotations", "autoscaling.keda.sh/paused")
"""Since KEDA 2.11. Its older `paused-replicas` is no mere pause: it scales a target to that number again and again, so
that a person could not wake what we stopped, and it wins where both are set."""
KEDA_PAUSED_REPLICAS = ("metadata", "annotations", "autoscaling.keda.sh/paused-replicas")
KSERVE_STOP = ("metadata", "annotations", "serving.kserve.io/stop")
"""Takes down what serves, in whichever mode, and keeps it down when requests come. `minReplicas: 0` does not: with
Knative the next request wakes it, without Knative it means one."""
KSERVE_KNOWS_STOP = "Stopped"
"""The condition that every InferenceService has where KServe heeds the annotation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """An object, where it is kept."""

    collection: Collection
    version: str
    object: Object

    @property
    def namespace(self) -> str:
        return str(self.object["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.object["metadata"]["uid"])

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.object["metadata"].get("annotations") or {}

    @property
    def words(self) -> str:
        return f"{self.collection.kind} {self.namespace}/{self.name}"

    def at(self, path: Path) -> Any:
        """None where there is nothing: Kubernetes stores no null."""
        found: Any = self.object
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def owned_by(self, owner: Thing) -> bool:
        references = self.object["metadata"].get("ownerReferences") or ()
        return any(reference["uid"] == owner.uid for reference in references)

    def has(self, *conditions: str) -> bool:
        """One of these conditions is true of it."""
        found = self.at(("status", "conditions")) or ()
        return any(condition["type"] in conditions and condition["status"] == "True" for condition in found)

    @property
    def over(self) -> bool:
        """It runs no more, and never will again."""
        ended = self.has("Complete", "Failed", "Finished")
        return "deletionTimestamp" in self.object["metadata"] or (self.collection.word in (JOBS, KUEUE) and ended)

    @property
    def unchanging(self) -> Object:
        """What only those change who mean to change it; controllers write a status many times a minute."""
        ours = {key: value for key, value in self.object.items() if key not in ("status", "metadata")}
        told = ("resourceVersion", "managedFields", "generation")
        return ours | {"metadata": {key: value for key, value in self.object["metadata"].items() if key not in told}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One value of an object, as it was and as it is to be; None where there is none."""

    path: Path
    before: Any
    after: Any

    def back(self, thing: Thing) -> list[tuple[Path, Any]]:
        """The values that undo it, as far as nobody else has set it anew."""
        now = thing.at(self.path)
        if now == self.after:
            return [(self.path, self.before)]
        if self.before is None and isinstance(self.after, Mapping) and isinstance(now, Mapping):
            return [((*self.path, key), None) for key, value in self.after.items() if now.get(key) == value]
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is edited of one object, all of it at once."""

    thing: Thing
    edits: tuple[Edit, ...]
    words: str
    done: bool = False
    """By the same request, before."""


def beside(collection: Collection) -> tuple[str, ...]:
    """The collections in whose objects, of the same namespace, lies what else sets the size of such a workload."""
    if collection.how is How.SCALE:
        return (HPA, KEDA)
    if collection.how is How.SUSPEND:
        return (KUEUE, JOBS) if collection.kind == "CronJob" else (KUEUE,)
    return ()


def steps(top: Thing, around: Sequence[Thing], now: datetime, *, request_id: str = "") -> tuple[Step, ...]:
    """What stops a workload, in this order; back goes the other way round. Empty where nothing is left to do.

    What the same request has done already is among it, as done. The workload itself always is, for people to find.
    """
    if top.over:
        return ()
    found = [_resumed(step, request_id) for step in _steps(top, around, now)]
    if not any(step.edits for step in found):
        return ()
    whole = [_inherited(step) for step in found]
    return tuple(step for step in whole if step.edits or step.thing is top)


def _steps(top: Thing, around: Sequence[Thing], now: datetime) -> Iterator[Step]:
    how = top.collection.how
    if how is How.SCALE:
        yield from _silenced(top, around)
        yield _to_zero(top)
    elif how is How.SUSPEND:
        yield from _suspended(top, around)
    elif top.collection.kind == "InferenceService":
        yield _stopped_server(top)
    elif how is How.ANNOTATE:
        stopped = () if top.at(top.collection.field) else (_edit(top, top.collection.field, instant(now)),)
        yield Step(thing=top, edits=stopped, words=f"stops {top.words}")
    else:
        raise Unsupported(f"there is no way to stop a {top.collection.kind} that leads back")


def _resumed(step: Step, request_id: str) -> Step:
    if request_id and step.thing.annotations.get(REQUEST) == request_id:
        return replace(step, edits=marked_edits(step.thing) or (), done=True)
    return step


def _inherited(step: Step) -> Step:
    """What is still as an earlier act of ours left it, when a person woke the rest, goes back with this one."""
    if step.edits or step.done:
        return step
    held = (edit for edit in marked_edits(step.thing) or () if edit.back(step.thing))
    return replace(step, edits=tuple(held))


def _suspended(thing: Thing, around: Sequence[Thing]) -> Iterator[Step]:
    """Where Kueue governs it, through Kueue, which else would let it run again; a CronJob with its present runs."""
    governing = [
        other for other in around if other.collection.word == KUEUE and other.owned_by(thing) and not other.over
    ]
    for workload in governing:
        active = workload.at(workload.collection.field) is not False
        edits = (_edit(workload, workload.collection.field, False),) if active else ()
        yield Step(thing=workload, edits=edits, words=f"deactivates Kueue's {workload.words}")
    if governing:
        yield Step(thing=thing, edits=(), words="")
        return
    if thing.collection.kind == "RayJob":
        _check_ray_job(thing)
    runs = thing.at(thing.collection.field) is not True
    edits = (_edit(thing, thing.collection.field, True),) if runs else ()
    yield Step(thing=thing, edits=edits, words=f"suspends {thing.words}")
    if thing.collection.kind == "CronJob":
        for job in around:
            if job.collection.word == JOBS and job.owned_by(thing) and not job.over:
                yield from _suspended(job, around)


def _check_ray_job(thing: Thing) -> None:
    """KubeRay takes such a RayJob for invalid once it is suspended, and leaves its pods as they are."""
    if thing.at(("spec", "clusterSelector")):
        raise Unsupported(
            f"{thing.words} runs on a RayCluster of its own choosing, and KubeRay suspends no such RayJob"
        )
    if not thing.at(("spec", "shutdownAfterJobFinishes")):
        raise Unsupported(f"KubeRay suspends {thing.words} only with shutdownAfterJobFinishes: true")


def _to_zero(top: Thing) -> Step:
    """An absent number is one: that is what the API server makes of it, and custom kinds mean."""
    replicas = top.at(top.collection.field)
    edits = () if replicas == 0 else (_edit(top, top.collection.field, 0),)
    return Step(thing=top, edits=edits, words=f"takes {top.words} from {1 if replicas is None else replicas} to zero")


def _silenced(top: Thing, around: Sequence[Thing]) -> Iterator[Step]:
    """Who would raise it again. An HPA leaves a target at zero alone unless it may scale to zero itself."""
    for thing in around:
        if thing.collection.word == KEDA and _targets(thing, top, kind="Deployment", group="apps"):
            yield Step(thing=thing, edits=_paused(thing), words=f"pauses {thing.words}")
        elif thing.collection.word == HPA and _targets(thing, top):
            least = ("spec", "minReplicas")
            edits = (_edit(thing, least, 1),) if thing.at(least) == 0 else ()
            yield Step(thing=thing, edits=edits, words=f"keeps {thing.words} from raising it again")


def _targets(thing: Thing, top: Thing, *, kind: str | None = None, group: str | None = None) -> bool:
    """`kind`, `group`: what it means where it does not say."""
    target = thing.at(("spec", "scaleTargetRef")) or {}
    version = target.get("apiVersion")
    named = version.rpartition("/")[0] if version else group
    return (
        target.get("name") == top.name
        and target.get("kind", kind) == top.collection.kind
        and named in (None, top.collection.group)
    )


def _paused(thing: Thing) -> tuple[Edit, ...]:
    paused, replicas = thing.at(KEDA_PAUSED), thing.at(KEDA_PAUSED_REPLICAS)
    holds = paused is not None and paused.lower() not in ("false", "f", "0")
    return (
        *(() if holds else (_edit(thing, KEDA_PAUSED, "true"),)),
        *(() if replicas is None else (_edit(thing, KEDA_PAUSED_REPLICAS, None),)),
    )


def _stopped_server(top: Thing) -> Step:
    conditions = top.at(("status", "conditions")) or ()
    if conditions and not any(condition["type"] == KSERVE_KNOWS_STOP for condition in conditions):
        raise Unsupported(
            f"the KServe that runs {top.words} does not know the annotation {KSERVE_STOP[-1]}, and nothing else stops "
            "an InferenceService for good; newer versions know it"
        )
    stopped = str(top.at(KSERVE_STOP)).lower() == "true"
    edits = () if stopped else (_edit(top, KSERVE_STOP, "true"),)
    return Step(thing=top, edits=edits, words=f"stops {top.words}")


def _edit(thing: Thing, path: Path, after: Any) -> Edit:
    """Where what holds the value is not there either, that is what is new, and what goes again."""
    if path[0] == "spec" and len(path) == 3 and thing.at(path[:2]) is None:
        return Edit(path=path[:2], before=None, after={path[2]: after})
    return Edit(path=path, before=thing.at(path), after=after)


def autoscalers(top: Thing, around: Sequence[Thing]) -> list[dict[str, Any]]:
    """The HPAs that set the size of a workload, for people to read."""
    return [
        {"name": thing.name, "min": thing.at(("spec", "minReplicas")), "max": thing.at(("spec", "maxReplicas"))}
        for thing in around
        if thing.collection.word == HPA and _targets(thing, top)
    ]


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector means something with these labels; an empty one means everything, none nothing."""
    if selector is None:
        return False
    holds = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, values: value is not None,
        "DoesNotExist": lambda value, values: value is None,
    }
    exact = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in exact) and all(
        holds[each["operator"]](labels.get(each["key"]), each.get("values") or ())
        for each in selector.get("matchExpressions") or ()
    )


# How it is written down.


def instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_json(edits: Sequence[Edit]) -> dict[str, Any]:
    return {
        "before": {_pointer(edit.path): edit.before for edit in edits},
        "after": {_pointer(edit.path): edit.after for edit in edits},
    }


def from_json(told: Mapping[str, Any]) -> tuple[Edit, ...]:
    before, after = told["before"], told["after"]
    return tuple(Edit(path=_path(pointer), before=before[pointer], after=after[pointer]) for pointer in before)


def marked_edits(thing: Thing) -> tuple[Edit, ...] | None:
    """What the annotation on it says that we changed. None where it says nothing that can be read, or more than we ever
    change: whoever may edit the object may write there what he likes."""
    try:
        edits = from_json(json.loads(thing.annotations.get(REMEMBERED, "")))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return edits if all(_may_be_ours(thing.collection, edit) for edit in edits) else None


def _may_be_ours(collection: Collection, edit: Edit) -> bool:
    """Whether it is of a value that we change in objects of this kind."""
    if edit.path in CHANGED.get(collection.word, (collection.field,)):
        return not isinstance(edit.before, Mapping | list) and not isinstance(edit.after, Mapping | list)
    *above, last = collection.field or ("",)
    return len(above) == 2 and edit.path == tuple(above) and edit.before is None and edit.after == {last: True}


CHANGED: Mapping[str, tuple[Path, ...]] = {
    HPA: (("spec", "minReplicas"),),
    KEDA: (KEDA_PAUSED, KEDA_PAUSED_REPLICAS),
    "inferenceservices.serving.kserve.io": (KSERVE_STOP,),
}
"""Where it is not the field of the kind."""


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def merge_patch(values: Sequence[tuple[Path, Any]], marks: Mapping[str, str | None]) -> dict[str, Any]:
    """One JSON merge patch of all of it; None removes."""
    body: dict[str, Any] = {"metadata": {"annotations": dict(marks)}}
    for path, value in values:
        inside = body
        for key in path[:-1]:
            inside = inside.setdefault(key, {})
        inside[path[-1]] = value
    return body


def undo_line(found: Sequence[Step]) -> str:
    """What puts all of it back in one line of a shell, and takes our annotations away."""
    return " && ".join(
        f"kubectl patch {step.thing.collection.word} {step.thing.name} -n {step.thing.namespace} --type=merge -p "
        + shlex.quote(compact(merge_patch([(edit.path, edit.before) for edit in step.edits], dict.fromkeys(MARKS))))
        for step in reversed(found)
    )


def _pointer(path: Path) -> str:
    """As in JSON Patch."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def _path(pointer: str) -> Path:
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])
