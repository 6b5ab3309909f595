"""Turns what the CloudWatch agent published about GPUs into series of samples, up to 500 series a call.

Learns which series exist, chooses one per device and signal, and fetches. Says nothing about busy or idle.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

from providers.aws import CloudWatchMetrics
from providers.aws.accounts import Accounts
from providers.errors import ProviderError
from providers.questions import Questions, batches
from providers.records import Fault, PartReport, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer

SERIES_PER_CALL = 500
"""GetMetricData's most."""
PERIOD_SECONDS = 60
"""CloudWatch keeps minutes for 15 days; a window further back has no samples, and so is unknown."""
LEARNT_FOR = timedelta(minutes=15)
"""How long a list of series is trusted. CloudWatch itself lists a new one only after some minutes."""
AT_ONCE = 8
"""Questions to one account."""
PATIENCE_SECONDS = 60.0
"""For one list and for one call. What is not here by then is unknown, and asked for again with the next window."""
SENTINEL = 9.22e18
"""Values at and above it are an exporter's way of writing `no value`."""

Dimensions = tuple[tuple[str, str], ...]
"""Sorted names and values; together with its metric's name they *are* a series' identity."""
Known = Mapping[str, Sequence[Dimensions]]
"""A metric's living series by instance id."""
Place = tuple[str, str]
"""(account, region)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A CloudWatch metric as one of our signals."""

    name: str
    signal: Signal
    unit: float
    """What one of CloudWatch's is in ours."""
    most: float = math.inf
    """What no sample of ours may exceed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One series to fetch."""

    ref: ResourceRef
    device: str
    metric: Metric
    dimensions: Dimensions


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """One call: up to 500 series of one region, over one window."""

    place: Place
    wanted: Sequence[Wanted]
    start: datetime
    end: datetime


class CloudWatchTelemetry:
    """GPU samples by the CloudWatch agent, joined to machines by their `InstanceId` dimension and nothing else."""

    def __init__(self, accounts: Accounts, metrics: CloudWatchMetrics, *, now: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._namespace = metrics.namespace
        self._metrics = tuple(_metrics(metrics))
        self._now = now
        self._lists: Questions[tuple[str, str, Metric]] = Questions("AWS", patience=PATIENCE_SECONDS, at_once=AT_ONCE)
        self._fetches: Questions[tuple[str, str, int]] = Questions("AWS", patience=PATIENCE_SECONDS, at_once=AT_ONCE)
        self._learnt: dict[tuple[Place, str], tuple[datetime, Known]] = {}
        self._lock = Lock()

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """Maxima of each minute of [start, end), at the time the minute begins."""
        records = [record for record in records if record.ref.kind.counted]  # its members speak for a group
        places = sorted({_place(record.ref) for record in records})
        if not places or start >= end:
            return TelemetryAnswer(series=())
        lists = self._lists.answers(
            {(*place, metric): partial(self._list, place, metric) for place in places for metric in self._metrics}
        )
        wanted, ambiguous = _choose(records, lists)
        answers = self._fetches.answers(
            {
                (*place, number): partial(self._fetch, Fetch(place=place, wanted=batch, start=start, end=end))
                for place, ours in wanted.items()
                for number, batch in enumerate(batches(ours, SERIES_PER_CALL))
            }
        )
        series: list[Series] = []
        faults: dict[tuple[str, str, Fault], None] = {}
        for (account, region, _), known in lists.items():
            if isinstance(known, ProviderError):
                faults[account, region, known.as_fault()] = None
        for (account, region, _), told in answers.items():
            found, flaws = ((), (told.as_fault(),)) if isinstance(told, ProviderError) else told
            series += found
            faults |= {(account, region, fault): None for fault in flaws}
        return TelemetryAnswer(
            series=tuple(series),
            ambiguous=ambiguous,
            faults=tuple(
                PartReport(
                    part=region, complete=False, fault=fault, account=account if self._accounts.several else None
                )
                for account, region, fault in faults
            ),
        )

    def _list(self, place: Place, metric: Metric) -> Known:
        """Which series of a metric are alive in a region: GetMetricData wants their exact dimensions."""
        now = self._now()
        with self._lock:
            learnt_at, known = self._learnt.get((place, metric.name), (None, {}))
        if learnt_at is not None and timedelta() <= now - learnt_at < LEARNT_FOR:
            return known
        found: dict[str, dict[Dimensions, None]] = defaultdict(dict)
        account, region = place
        for series in self._accounts.of(account).items(
            "cloudwatch",
            region,
            "ListMetrics",
            "Metrics",
            Namespace=self._namespace,
            MetricName=metric.name,
            RecentlyActive="PT3H",
        ):
            dimensions = tuple(sorted((d["Name"], d["Value"]) for d in series.get("Dimensions", ())))
            instance = dict(dimensions).get("InstanceId")
            if instance is not None:
                found[instance][dimensions] = None
        known = {instance: tuple(sets) for instance, sets in found.items()}
        with self._lock:
            self._learnt[place, metric.name] = (now, known)
        return known

    def _fetch(self, fetch: Fetch) -> tuple[Sequence[Series], Sequence[Fault]]:
        """One batch. A series that CloudWatch did not answer to the end is left out: its holes may hide work."""
        samples: dict[str, dict[int, float]] = defaultdict(dict)
        status: dict[str, str] = {}
        messages: dict[str, None] = {}
        account, region = fetch.place
        for page in self._accounts.of(account).pages(
            "cloudwatch",
            region,
            "GetMetricData",
            "MetricDataResults",
            MetricDataQueries=[self._query(number, one) for number, one in enumerate(fetch.wanted)],
            StartTime=fetch.start.replace(second=0, microsecond=0),
            EndTime=fetch.end,
            ScanBy="TimestampAscending",
        ):
            messages |= dict.fromkeys(_words(page))
            for result in page["MetricDataResults"]:
                status[result["Id"]] = result.get("StatusCode", "unknown")
                for time, value in zip(result.get("Timestamps", ()), result.get("Values", ()), strict=True):
                    samples[result["Id"]][int(time.timestamp())] = value
        first, last = fetch.start.timestamp(), fetch.end.timestamp()
        series = [
            Series(ref=one.ref, device=one.device, signal=one.metric.signal, times=times, values=values)
            for number, one in enumerate(fetch.wanted)
            if status.get(f"s{number}") == "Complete"
            for times, values in [_clean(samples[f"s{number}"], one.metric, first, last)]
            if times
        ]
        return series, [*_incomplete(region, status), *(_remark(region, words) for words in messages)]

    def _query(self, number: int, wanted: Wanted) -> Mapping[str, Any]:
        # the maximum, so that no minute with work in it looks idle; no unit, because the agent sets none
        return {
            "Id": f"s{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": self._namespace,
                    "MetricName": wanted.metric.name,
                    "Dimensions": [{"Name": name, "Value": value} for name, value in wanted.dimensions],
                },
                "Period": PERIOD_SECONDS,
                "Stat": "Maximum",
            },
        }


def _metrics(names: CloudWatchMetrics) -> Iterable[Metric]:
    yield Metric(name=names.utilisation, signal=Signal.UTILISATION, unit=0.01, most=1.0)
    if names.memory_activity:
        yield Metric(name=names.memory_activity, signal=Signal.DRAM_ACTIVE, unit=0.01, most=1.0)
    if names.memory_used:
        yield Metric(name=names.memory_used, signal=Signal.MEMORY_USED_MIB, unit=1.0)
    if names.power:
        yield Metric(name=names.power, signal=Signal.POWER_WATTS, unit=1.0)


def _place(ref: ResourceRef) -> Place:
    return ref.account, ref.region


def _choose(
    records: Iterable[ResourceRecord],
    lists: Mapping[tuple[str, str, Metric], Known | ProviderError],
) -> tuple[Mapping[Place, Sequence[Wanted]], frozenset[ResourceRef]]:
    """One series per machine, device and signal. A machine with two answers to that is ambiguous, in all its series."""
    wanted: dict[Place, list[Wanted]] = defaultdict(list)
    ambiguous = set()
    by_place: dict[Place, list[tuple[Metric, Known]]] = defaultdict(list)
    for (account, region, metric), known in lists.items():
        if not isinstance(known, ProviderError):
            by_place[account, region].append((metric, known))
    for record in records:
        place = _place(record.ref)
        ours = []
        for metric, known in by_place[place]:
            for device, candidates in _devices(known.get(record.ref.external_id, ()), record.gpu_count).items():
                if _same_device(candidates):
                    # an agent may publish aggregates beside the device's own series: the most specific is its own
                    dimensions = max(candidates, key=lambda candidate: (len(candidate), candidate))
                    ours.append(Wanted(ref=record.ref, device=device, metric=metric, dimensions=dimensions))
                else:
                    ambiguous.add(record.ref)
        if record.ref not in ambiguous:
            wanted[place] += ours
    return wanted, frozenset(ambiguous)


def _devices(sets: Iterable[Dimensions], gpu_count: int) -> Mapping[str, Sequence[Dimensions]]:
    """Candidates by GPU index. What has no index is an aggregate; it speaks for a GPU only where there is just one."""
    by_index: dict[str | None, list[Dimensions]] = defaultdict(list)
    for dimensions in sets:
        by_index[dict(dimensions).get("index")].append(dimensions)
    aggregates = by_index.pop(None, [])
    if not by_index and aggregates and gpu_count == 1:
        return {"0": aggregates}
    return {index: candidates for index, candidates in by_index.items() if index is not None}


def _same_device(candidates: Sequence[Dimensions]) -> bool:
    """Do they agree on every dimension they share? Two hosts, or two GPU models, under one index do not."""
    values: dict[str, str] = {}
    return all(values.setdefault(name, value) == value for dimensions in candidates for name, value in dimensions)


def _clean(
    samples: Mapping[int, float], metric: Metric, first: float, last: float
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """In order, in our unit, within the window, without what is no value."""
    kept = [
        (time, min(value * metric.unit, metric.most))
        for time, value in sorted(samples.items())
        if first <= time < last and 0 <= value < SENTINEL  # NaN compares as neither
    ]
    return tuple(time for time, _ in kept), tuple(value for _, value in kept)


def _words(page: Mapping[str, Any]) -> Iterable[str]:
    return (f"{message.get('Code')}: {message.get('Value')}" for message in page.get("Messages", ()))


def _remark(region: str, message: str) -> Fault:
    return Fault(code="Unreachable", sentence=f"cloudwatch:GetMetricData in {region} remarks: {message}")


def _incomplete(region: str, status: Mapping[str, str]) -> Iterable[Fault]:
    """What CloudWatch did not answer to the end, one fault per reason."""
    for reason in sorted(set(status.values()) - {"Complete"}):
        count = sum(1 for word in status.values() if word == reason)
        denied = reason == "Forbidden"
        yield Fault(
            code="Forbidden" if denied else "Unreachable",
            sentence=f"cloudwatch:GetMetricData in {region} left {count} of {len(status)} series unfinished ({reason})",
            permission="cloudwatch:GetMetricData" if denied else None,
        )
