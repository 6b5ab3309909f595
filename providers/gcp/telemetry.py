"""Turns what the Ops Agent wrote about GPUs into Cloud Monitoring into series of samples: one question for each metric
of a project, none for a machine.

Joins by the machine's id, and puts a device's samples in order. Says nothing about busy or idle.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from providers.errors import Misconfigured, ProviderError, Unreachable
from providers.gcp import CloudMonitoringMetrics
from providers.gcp.client import Client, Json, NotThere
from providers.questions import Questions
from providers.records import Fault, PartReport, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer

POINTS_PER_PAGE = 100_000
"""The API's most."""
FEW = 64
"""As many machines are asked for by their ids: `one_of` takes a hundred, and filters end at 2,048 characters. For more
the whole project is asked; none but machines with GPUs have such series there."""
AT_ONCE = 4
"""Questions to one project."""
PATIENCE_SECONDS = 60.0
"""What is not here by then is unknown, and asked for again with the next window."""
SENTINEL = 9.22e18
"""Values at and above it are an exporter's way of writing `no value`."""
FIELDS = (
    "nextPageToken,unit,executionErrors,"
    "timeSeries(metric/labels,resource/labels,metricKind,points(interval/endTime,value))"
)
NEVER_WRITTEN = "Cannot find metric(s)"
"""How Google answers where no machine of the project has ever written the metric."""
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
OF_THE_AGENT = "agent.googleapis.com/"
UNTOLD = "{not_a_unit}"
RATIO = {"%": 0.01, "1": 1.0, "10^2.%": 1.0}
MEBIBYTES = {"By": 2.0**-20, "KiBy": 2.0**-10, "MiBy": 1.0}
"""What one of a metric's is in ours, by the unit that Google tells with each answer."""

Machines = Mapping[str, ResourceRecord]
"""By the id Google gave each: one of another day has another, whatever its name."""
Device = tuple[ResourceRef, str]
Samples = Mapping[int, float]
"""By Unix seconds."""
Told = Mapping[Device, Sequence[Samples]]
"""What was answered to one question, by device. It has several series when it was several GPUs."""
Question = tuple[str, str]
"""(project, metric)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric of Cloud Monitoring as one of our signals."""

    name: str
    signal: Signal
    units: Mapping[str, float]
    usual: str
    """The unit of the agent's, should Google not tell it."""
    most: float = math.inf
    """What no sample of ours may exceed."""

    def in_ours(self, unit: str) -> float:
        """A ratio that is taken for percent makes work look like none, so nothing is guessed."""
        told = unit.replace(UNTOLD, "") or (self.usual if self.name.startswith(OF_THE_AGENT) else "")
        if told not in self.units:
            known = ", ".join(self.units)
            raise Misconfigured(f"monitoring: {self.name} is told in {told or 'no unit'}, which is none of {known}")
        return self.units[told]


class CloudMonitoringTelemetry:
    """GPU samples by the Ops Agent, joined to machines by their `instance_id` and nothing else: names repeat."""

    def __init__(self, client: Client, metrics: CloudMonitoringMetrics, *, now: Callable[[], datetime]) -> None:
        self._client = client
        self._metrics = tuple(_metrics(metrics))
        self._now = now
        self._questions: Questions[Question] = Questions("Google", patience=PATIENCE_SECONDS, at_once=AT_ONCE)

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """All samples of [start, end) as they were taken, the greatest of each second."""
        end = min(end, self._now())
        projects, ambiguous = _by_project(records)
        if not projects or start >= end:
            return TelemetryAnswer(series=(), ambiguous=frozenset(ambiguous))
        answers = self._questions.answers(
            {
                (project, metric.name): partial(self._ask, project, metric, machines, start, end)
                for project, machines in projects.items()
                for metric in self._metrics
            }
        )
        series: list[Series] = []
        faults: dict[tuple[str, Fault], None] = {}
        signals = {metric.name: metric.signal for metric in self._metrics}
        for (project, name), told in answers.items():
            if isinstance(told, ProviderError):
                faults[project, told.as_fault()] = None
                continue
            for (ref, device), parts in told.items():
                whole = _one_after_another(parts)
                if whole is None:
                    ambiguous.add(ref)
                elif whole:
                    times, values = tuple(whole), tuple(whole.values())
                    series.append(Series(ref=ref, device=device, signal=signals[name], times=times, values=values))
        return TelemetryAnswer(
            series=tuple(one for one in series if one.ref not in ambiguous),
            ambiguous=frozenset(ambiguous),
            faults=tuple(
                PartReport(part="*", complete=False, fault=fault, account=project) for project, fault in faults
            ),
        )

    def _ask(self, project: str, metric: Metric, machines: Machines, start: datetime, end: datetime) -> Told:
        """Raises when anything is missing: in a hole there may be work."""
        found: dict[Device, dict[object, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        pages = self._client.pages(
            "monitoring", f"/v3/projects/{project}/timeSeries", query=_query(project, metric, machines, start, end)
        )
        unit = ""
        try:
            for page in pages:
                _must_be_whole(page, metric)
                unit = page.get("unit") or unit
                factor = metric.in_ours(unit) if page.get("timeSeries") else 0.0
                for series in page.get("timeSeries") or ():
                    device = _device(project, metric, machines, series)
                    if device is not None:  # one that is too long for a page goes on on the next
                        part = found[device][frozenset(_labels(series).items())]
                        for time, value in _samples(series, start, end):
                            part[time] = max(part.get(time, 0.0), min(value * factor, metric.most))
        except NotThere as error:
            if NEVER_WRITTEN not in error.sentence:
                raise
            return {}
        except UNREADABLE as error:
            raise Unreachable(f"what Cloud Monitoring says of {metric.name} cannot be read: {error!r}") from error
        return {device: list(parts.values()) for device, parts in found.items()}


def _metrics(names: CloudMonitoringMetrics) -> Iterable[Metric]:
    yield Metric(name=names.utilisation, signal=Signal.UTILISATION, units=RATIO, usual="%", most=1.0)
    if names.memory_used:
        yield Metric(name=names.memory_used, signal=Signal.MEMORY_USED_MIB, units=MEBIBYTES, usual="By")


def _by_project(records: Iterable[ResourceRecord]) -> tuple[Mapping[str, Machines], set[ResourceRef]]:
    """Machines by project and id, without those of which two have one id. TPUs are no machines of Compute Engine: what
    Cloud Monitoring has of their workers tells of no node.
    """
    projects: dict[str, dict[str, ResourceRecord]] = defaultdict(dict)
    twice: set[ResourceRef] = set()
    for record in records:
        if not record.ref.kind.counted or record.gpu_vendor == "google" or not record.incarnation.isdigit():
            continue
        other = projects[record.ref.account].setdefault(record.incarnation, record)
        if other.ref != record.ref:
            twice |= {other.ref, record.ref}
    alone = {
        project: {key: record for key, record in machines.items() if record.ref not in twice}
        for project, machines in projects.items()
    }
    return {project: machines for project, machines in alone.items() if machines}, twice


def _query(project: str, metric: Metric, machines: Machines, start: datetime, end: datetime) -> Mapping[str, str | int]:
    """What a project sees may be other projects' as well, where it is the scope of their metrics."""
    wanted = [
        f'metric.type = "{metric.name}"',
        'resource.type = "gce_instance"',
        f'resource.labels.project_id = "{project}"',
    ]
    if len(machines) <= FEW:
        ids = ", ".join(f'"{key}"' for key in sorted(machines))
        wanted.append(f"resource.labels.instance_id = one_of({ids})")
    return {
        "filter": " AND ".join(wanted),
        "interval.startTime": _written(start - timedelta(seconds=1)),  # it is exclusive, and the end is not
        "interval.endTime": _written(end),
        "view": "FULL",
        "pageSize": POINTS_PER_PAGE,
        "fields": FIELDS,
    }


def _written(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _must_be_whole(page: Json, metric: Metric) -> None:
    errors = page.get("executionErrors")
    if errors:
        words = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
        raise Unreachable(f"Cloud Monitoring did not answer all that was asked of {metric.name}: {words}")


def _device(project: str, metric: Metric, machines: Machines, series: Json) -> Device | None:
    """Whose series it is. None where it is nobody's, or does not tell of memory that is used."""
    labels, resource = _labels(series), series["resource"]["labels"]
    record = machines.get(resource["instance_id"])
    state = labels.get("memory_state") or labels.get("state") or "used"
    if record is None or state != "used" or resource.get("project_id", project) != project:
        return None
    if series.get("metricKind") not in (None, "GAUGE"):
        raise Misconfigured(f"monitoring: {metric.name} is {series['metricKind']}; a metric of what is now is needed")
    name = labels.get("gpu_number") or labels.get("uuid") or ("0" if record.gpu_count == 1 else None)
    return None if name is None else (record.ref, name)


def _labels(series: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = series.get("metric", {}).get("labels", {})
    return labels


def _samples(series: Json, start: datetime, end: datetime) -> Iterable[tuple[int, float]]:
    """Those of [start, end) that have a value. Numbers come as numbers, as texts (of 64 bits), or as `NaN`."""
    first, last = start.timestamp(), end.timestamp()
    for point in series.get("points") or ():
        told = point["value"]
        value = float(told.get("doubleValue", told.get("int64Value", "nan")))
        time = int(datetime.fromisoformat(point["interval"]["endTime"]).timestamp())
        if first <= time < last and 0 <= value < SENTINEL:  # NaN compares as neither
            yield time, value


def _one_after_another(parts: Iterable[Samples]) -> Samples | None:
    """A machine that comes back has other GPUs by the same numbers. None where two were there at the same time."""
    whole: dict[int, float] = {}
    for part in sorted((part for part in parts if part), key=min):
        if whole and min(part) <= max(whole):
            return None
        whole |= sorted(part.items())
    return whole
