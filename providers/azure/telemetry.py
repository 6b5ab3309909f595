"""Turns what Azure Monitor keeps about GPUs into series of samples: what Telegraf writes to a machine, and what Azure
Machine Learning writes to a workspace about its computes. Azure itself measures no GPU of a VM.

Joins by the resource's own id, and puts a device's samples in order. Says nothing about busy or idle.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock

from providers.azure.client import Client, Json, NotEnabled
from providers.errors import NotFound, ProviderError, Throttled, Unreachable
from providers.questions import Questions
from providers.records import Fault, PartReport, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer

VERSION = "2024-02-01"
AT_ONCE = 4
"""Questions to one subscription: about as many a second as the Resource Manager refills (25)."""
PATIENCE_SECONDS = 60.0
"""What is not here by then is unknown, and asked for again with the next window."""
LEARNT_FOR = timedelta(hours=1)
"""How long it is trusted that a machine has such metrics, or none: to find out takes a call for each."""
MOST_LEARNT, MOST_ASKED = 500, 1500
"""Machines of one subscription with each look: there is no call for several. The others follow with the next looks."""
COMPUTES_PER_CALL = 20
MOST_SERIES = 1000
"""Azure Monitor answers ten of each metric unless it is asked for more."""
SENTINEL = 9.22e18
"""Values at and above it are an exporter's way of writing `no value`."""
UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)

OF_A_GROUP = r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers"
MACHINE = re.compile(rf"{OF_A_GROUP}/Microsoft\.Compute/virtualMachines/[^/]+", re.IGNORECASE)
COMPUTE = re.compile(
    rf"({OF_A_GROUP}/Microsoft\.MachineLearningServices/workspaces/[^/]+)/computes/[^/]+", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric of Azure Monitor as one of our signals."""

    name: str
    signal: Signal
    unit: float
    """What one of Azure's is in ours."""
    most: float = math.inf
    """What no sample of ours may exceed."""


OF_TELEGRAF = (
    Metric(name="utilization_gpu", signal=Signal.UTILISATION, unit=0.01, most=1.0),
    Metric(name="utilization_memory", signal=Signal.DRAM_ACTIVE, unit=0.01, most=1.0),
    Metric(name="memory_used", signal=Signal.MEMORY_USED_MIB, unit=1.0),
    Metric(name="power_draw", signal=Signal.POWER_WATTS, unit=1.0),
)
"""Its input `nvidia_smi`, as its output `azure_monitor` names it."""
INPUTS = ("nvidia_smi", "nvidia-smi")
"""How its namespace ends; before it is a prefix, `Telegraf/` by default."""
OF_WORKSPACES = (
    Metric(name="GpuUtilizationPercentage", signal=Signal.UTILISATION, unit=0.01, most=1.0),
    Metric(name="GpuMemoryUtilizationMegabytes", signal=Signal.MEMORY_USED_MIB, unit=1.0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnt:
    """What a machine has in Azure Monitor of its GPUs: nothing, for most of them."""

    ask_again: datetime
    namespace: str = ""
    metrics: tuple[Metric, ...] = ()
    dimensions: frozenset[str] = frozenset()
    """Of all of its metrics, in small letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One question: series of one resource, told apart by some of their dimensions."""

    resource: str
    namespace: str
    metrics: tuple[Metric, ...]
    filter: str
    owner: Callable[[Mapping[str, str]], ResourceRef | None]
    device: str
    """The dimension that numbers a machine's GPUs, in small letters; empty where there is only one."""
    identity: str
    """The one that a GPU has two of when it is two: its uuid, or its node. Empty where none tells."""


NEVER = datetime.min.replace(tzinfo=UTC)
Samples = dict[int, float]
"""By Unix seconds."""
Told = Mapping[tuple[ResourceRef, str, Signal], Mapping[str, Samples]]
"""By whose, device and signal: what each identity says. Two of them are two GPUs."""
Question = tuple[str, str, int]
"""(subscription, resource, number)"""


class AzureMonitorTelemetry:
    """Maxima of each minute, by the Resource Manager."""

    def __init__(self, client: Client, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._now = now
        self._lists: Questions[Question] = Questions("Azure Monitor", patience=PATIENCE_SECONDS, at_once=AT_ONCE)
        self._fetches: Questions[Question] = Questions("Azure Monitor", patience=PATIENCE_SECONDS, at_once=AT_ONCE)
        self._learnt: dict[str, Learnt] = {}
        self._asked: dict[str, datetime] = {}
        """When each machine's samples were last asked for: those that waited longest come first."""
        self._lock = Lock()

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """All samples of [start, end), at the time their minute begins."""
        now = self._now()
        machines = {one.ref.external_id: one for one in records if MACHINE.fullmatch(one.ref.external_id)}
        workspaces = _by_workspace(records)
        if not (machines or workspaces) or start >= end:
            return TelemetryAnswer(series=())
        faults = _Faults()
        self._learn(machines, now, faults)
        sources = {
            **self._sources_of_machines(machines, now, faults),
            **_sources_of_workspaces(workspaces),
        }
        answers = self._fetches.answers(
            {key: partial(self._fetch, source, start, end) for key, source in sources.items()}
        )
        series: list[Series] = []
        ambiguous: set[ResourceRef] = set()
        for key, told in answers.items():
            if isinstance(told, ProviderError):
                faults.add(key[0], _region(key[1], machines, workspaces), told)
                continue
            ambiguous |= {ref for (ref, _, _), by_identity in told.items() if len(by_identity) > 1}
            series += _series(told)
        return TelemetryAnswer(
            series=tuple(one for one in series if one.ref not in ambiguous),
            ambiguous=frozenset(ambiguous),
            faults=faults.reports(),
        )

    # what there is

    def _learn(self, machines: Mapping[str, ResourceRecord], now: datetime, faults: _Faults) -> None:
        """Whether machines have metrics of their GPUs: those that are due longest, as many as may be asked."""
        with self._lock:
            since = {machine: known.ask_again for machine, known in self._learnt.items()}
        due = [machine for machine in machines if since.get(machine, NEVER) <= now]
        due.sort(key=lambda machine: (since.get(machine, NEVER), machine))
        answers = self._lists.answers(
            {
                (machines[machine].ref.account, machine, 0): partial(self._look, machine, now)
                for machine in _first_of_each(due, machines, MOST_LEARNT)
            }
        )
        with self._lock:
            for (account, machine, _), told in answers.items():
                if isinstance(told, ProviderError):
                    faults.add(account, machines[machine].ref.region, told)
                    known = self._learnt.get(machine, Learnt(ask_again=now))
                    self._learnt[machine] = replace(known, ask_again=now)  # due again, after all others
                else:
                    self._learnt[machine] = told
            for gone in [one for one, known in self._learnt.items() if known.ask_again < now - LEARNT_FOR]:
                del self._learnt[gone]

    def _look(self, machine: str, now: datetime) -> Learnt:
        nothing = Learnt(ask_again=now + LEARNT_FOR)
        try:
            spaces = [
                str(space["properties"]["metricNamespaceName"])
                for page in self._client.pages(
                    f"{machine}/providers/Microsoft.Insights/metricNamespaces", version=VERSION
                )
                for space in page["value"]
            ]
            ours = [space for space in spaces if space.replace("\\", "/").rpartition("/")[2].lower() in INPUTS]
            if len(ours) != 1:  # none, or nobody knows which
                return nothing
            path = f"{machine}/providers/Microsoft.Insights/metricDefinitions"
            named = {
                str(metric["name"]["value"]): {str(one["value"]).lower() for one in metric.get("dimensions") or ()}
                for page in self._client.pages(path, version=VERSION, query={"metricnamespace": ours[0]})
                for metric in page["value"]
            }
        except (NotEnabled, NotFound):
            return nothing
        except UNREADABLE as error:
            raise Unreachable(f"what Azure Monitor lists of {machine} cannot be read: {error!r}") from error
        metrics = tuple(metric for metric in OF_TELEGRAF if metric.name in named)
        dimensions = [named[metric.name] for metric in metrics]
        return Learnt(
            ask_again=now + LEARNT_FOR,
            namespace=ours[0],
            metrics=metrics,
            dimensions=frozenset.intersection(*map(frozenset, dimensions)) if dimensions else frozenset(),
        )

    def _sources_of_machines(
        self, machines: Mapping[str, ResourceRecord], now: datetime, faults: _Faults
    ) -> Mapping[Question, Source]:
        with self._lock:
            known = {machine: self._learnt.get(machine) for machine in machines}
            asked = {machine: self._asked.get(machine, NEVER) for machine in machines}
        found = {machine: _source_of_machine(record, known[machine]) for machine, record in machines.items()}
        sources = {machine: source for machine, source in found.items() if source is not None}
        waiting = sorted(sources, key=lambda machine: (asked[machine], machine))
        chosen = _first_of_each(waiting, machines, MOST_ASKED)
        with self._lock:
            self._asked |= dict.fromkeys(chosen, now)
            for gone in [machine for machine, at in self._asked.items() if at < now - LEARNT_FOR]:
                del self._asked[gone]
        for machine in sorted(sources.keys() - chosen):
            ref = machines[machine].ref
            faults.add(
                ref.account, ref.region, Throttled(f"{machine} waits: Azure Monitor is asked machine by machine")
            )
        return {(machines[machine].ref.account, machine, 0): sources[machine] for machine in sorted(chosen)}

    # the samples

    def _fetch(self, source: Source, start: datetime, end: datetime) -> Told:
        query: dict[str, str | int] = {
            "metricnamespace": source.namespace,
            "metricnames": ",".join(metric.name for metric in source.metrics),
            "timespan": f"{_minute(start)}/{_stamp(end)}",
            "interval": "PT1M",
            "aggregation": "Maximum",  # so that no minute with work in it looks idle
        }
        if source.filter:
            query |= {"$filter": source.filter, "top": MOST_SERIES}
        path = f"{source.resource}/providers/Microsoft.Insights/metrics"
        try:
            answer = self._client.get(path, version=VERSION, query=query)
            return read(answer, source, start.timestamp(), end.timestamp())
        except (NotEnabled, NotFound):
            return {}
        except UNREADABLE as error:
            raise Unreachable(f"what Azure Monitor says of {source.resource} cannot be read: {error!r}") from error


# Answers → samples, pure.


def read(answer: Json, source: Source, first: float, last: float) -> Told:
    """Raises when a metric was not answered in full: in a hole there may be work."""
    metrics = {metric.name.lower(): metric for metric in source.metrics}
    found: dict[tuple[ResourceRef, str, Signal], dict[str, Samples]] = defaultdict(lambda: defaultdict(dict))
    for told in answer["value"]:
        metric = metrics[told["name"]["value"].lower()]
        if told.get("errorCode", "Success") != "Success":
            why = told.get("errorMessage") or told["errorCode"]
            raise Unreachable(f"Azure Monitor does not say {metric.name} of {source.resource}: {why}")
        for series in told["timeseries"]:
            dimensions = {one["name"]["value"].lower(): str(one["value"]) for one in series.get("metadatavalues") or ()}
            ref = source.owner(dimensions)
            if ref is None:
                continue
            device = dimensions[source.device] if source.device else "0"
            samples = _clean(series["data"], metric, first, last)
            if samples:
                identity = dimensions[source.identity] if source.identity else ""
                found[ref, device, metric.signal][identity].update(samples)
    return found


def _clean(points: Iterable[Json], metric: Metric, first: float, last: float) -> Samples:
    """In our unit, within the window, without what is no value."""
    kept: Samples = {}
    for point in points:
        time, value = datetime.fromisoformat(point["timeStamp"]).timestamp(), point.get("maximum")
        if isinstance(value, int | float) and first <= time < last and 0 <= value < SENTINEL:  # NaN compares as neither
            kept[int(time)] = min(value * metric.unit, metric.most)
    return kept


def _series(told: Told) -> Iterable[Series]:
    for (ref, device, signal), by_identity in told.items():
        if len(by_identity) == 1:
            [samples] = by_identity.values()
            times = tuple(sorted(samples))
            yield Series(
                ref=ref, device=device, signal=signal, times=times, values=tuple(samples[time] for time in times)
            )


# Records → questions, pure.


def _source_of_machine(record: ResourceRecord, learnt: Learnt | None) -> Source | None:
    """None where nothing is there, or it cannot be told whose GPU is meant."""
    if learnt is None or not learnt.metrics:
        return None
    device = next((name for name in ("index", "uuid") if name in learnt.dimensions), "")
    if not device and record.gpu_count != 1:
        return None
    split = [name for name in ("index", "uuid") if name in learnt.dimensions]
    ref = record.ref
    return Source(
        resource=ref.external_id,
        namespace=learnt.namespace,
        metrics=learnt.metrics,
        filter=" and ".join(f"{name} eq '*'" for name in split),
        owner=lambda _: ref,
        device=device,
        identity="uuid" if "uuid" in split else "",
    )


def _by_workspace(records: Iterable[ResourceRecord]) -> Mapping[str, Sequence[ResourceRecord]]:
    """Azure Machine Learning's computes, whose names are unique within their workspace."""
    found: dict[str, list[ResourceRecord]] = defaultdict(list)
    for record in records:
        if named := COMPUTE.fullmatch(record.ref.external_id):
            found[named[1]].append(record)
    return found


def _sources_of_workspaces(workspaces: Mapping[str, Sequence[ResourceRecord]]) -> Mapping[Question, Source]:
    sources: dict[Question, Source] = {}
    for workspace, computes in workspaces.items():
        for number in range(0, len(computes), COMPUTES_PER_CALL):
            batch = computes[number : number + COMPUTES_PER_CALL]
            sources[batch[0].ref.account, workspace, number] = _source_of_workspace(workspace, batch)
    return sources


def _source_of_workspace(workspace: str, computes: Sequence[ResourceRecord]) -> Source:
    refs = {one.ref.external_id.rpartition("/")[2].lower(): one.ref for one in computes}
    named = " or ".join(f"ComputeName eq '{one.name}'" for one in computes)
    return Source(
        resource=workspace,
        namespace="Microsoft.MachineLearningServices/workspaces",
        metrics=OF_WORKSPACES,
        filter=f"{named} and InstanceId eq '*' and DeviceId eq '*'",
        owner=lambda dimensions: refs.get(dimensions["computename"].lower()),
        device="deviceid",
        identity="instanceid",
    )


def _first_of_each(ids: Iterable[str], machines: Mapping[str, ResourceRecord], most: int) -> set[str]:
    """So many of each subscription."""
    by_account: dict[str, list[str]] = defaultdict(list)
    for each in ids:
        by_account[machines[each].ref.account].append(each)
    return {each for ours in by_account.values() for each in ours[:most]}


def _region(
    resource: str, machines: Mapping[str, ResourceRecord], workspaces: Mapping[str, Sequence[ResourceRecord]]
) -> str:
    record = machines.get(resource) or workspaces[resource][0]
    return record.ref.region


def _minute(at: datetime) -> str:
    return _stamp(at.replace(second=0, microsecond=0))


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


class _Faults:
    """What went wrong, once for each region of a subscription and sort: a thousand machines fail alike."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str, str | None], tuple[Fault, int]] = {}

    def add(self, account: str, region: str, error: ProviderError) -> None:
        fault = error.as_fault()
        first, more = self._first.get((account, region, fault.code, fault.permission), (fault, -1))
        self._first[account, region, fault.code, fault.permission] = first, more + 1

    def reports(self) -> tuple[PartReport, ...]:
        return tuple(
            PartReport(part=region, complete=False, fault=_with_more(fault, more), account=account)
            for (account, region, _, _), (fault, more) in self._first.items()
        )


def _with_more(fault: Fault, more: int) -> Fault:
    if not more:
        return fault
    return Fault(code=fault.code, sentence=f"{fault.sentence}; and {more} more like it", permission=fault.permission)
