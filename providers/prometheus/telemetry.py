"""Turns the samples a Prometheus-compatible server has of GPUs into series of machines and workloads, in few and
bounded questions.

First one question finds which hosts speak at all, then each shard of hosts is asked for its raw samples. Raw, because
a range query would fill up to five minutes of every hole. Says nothing about busy or idle.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock

from providers.errors import Misconfigured, ProviderError, Unreachable
from providers.prometheus import Cluster
from providers.prometheus.client import Client, Row, Session, TooMuch
from providers.prometheus.join import MACHINES, Join, Match, Way
from providers.prometheus.vocabulary import (
    NAMINGS,
    REQUESTS,
    SCRAPERS,
    Device,
    Metric,
    device_of,
    of_processes,
    share_of,
)
from providers.records import (
    Fault,
    Kind,
    PartReport,
    ResourceRecord,
    ResourceRef,
    Series,
    Signal,
    TelemetryAnswer,
)

MOST_SAMPLES = 250_000
"""Samples a shard may be expected to hold: some MB of answer."""
SCRAPE_SECONDS = 15
"""Time between samples that is expected. Where it is shorter and the server minds, it is asked in smaller parts."""
MOST_QUERY_BYTES = 8_000
SHORTEST_SECONDS = 60
"""A window is not halved below this."""
WORKERS = 4
"""Questions at a time; a Prometheus answers 20 at a time, to everybody."""
MOST_SECONDS = 180.0
"""After this long no further question is begun: a server that crawls must not hold up the cycle."""
LEARNT_FOR = timedelta(minutes=5)
"""How long the list of hosts is trusted. Shorter than the ten minutes of samples that are asked for again."""
KNOWN_FOR = timedelta(hours=1)
"""How long a machine is remembered as a namesake of others after it was last asked about."""
COUNTERS = 8
"""Series that a counter of requests is expected to have in a pod: of its models, of their outcomes."""
SENTINEL = 9.22e18
"""Values at and above it are an exporter's way of writing `no value`."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Some metrics of some hosts over [start, end), Unix seconds."""

    names: Sequence[str]
    label: str = ""
    values: Sequence[str] = ()
    """Empty: of every host."""
    start: float
    end: float

    @property
    def selector(self) -> str:
        matchers = [f"__name__=~{_alternatives(self.names)}"]
        if self.values:
            matchers.append(f"{self.label}=~{_alternatives(self.values)}")
        return f"{{{','.join(matchers)}}}[{math.ceil((self.end - self.start) * 1000)}ms]"

    @property
    def at(self) -> float:
        # a range selector takes in its end, and before Prometheus 3 its start
        return self.end - 0.001

    def halves(self) -> tuple[Question, ...]:
        """The same in two parts: of hosts, else metrics, else time. Nothing when it is as small as it gets."""
        if len(self.values) > 1:
            return tuple(replace(self, values=part) for part in _halves(self.values))
        if len(self.names) > 1:
            return tuple(replace(self, names=part) for part in _halves(self.names))
        if self.end - self.start < 2 * SHORTEST_SECONDS:
            return ()
        middle = math.floor((self.start + self.end) / 2)
        return replace(self, end=middle), replace(self, start=middle)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One question, and whom it is about."""

    part: str
    question: Question
    refs: frozenset[ResourceRef]


@dataclass(frozen=True, kw_only=True, slots=True)
class Learnt:
    """Who spoke in a window: one set of these labels each."""

    labels: tuple[str, ...]
    start: float
    end: float
    at: datetime
    speakers: Sequence[Mapping[str, str]]

    def serves(self, labels: tuple[str, ...], start: float, end: float, now: datetime) -> bool:
        fresh = timedelta() <= now - self.at < LEARNT_FOR
        covers = self.start <= start and end - self.end < LEARNT_FOR.total_seconds()
        return labels == self.labels and fresh and covers


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one series of the server tells."""

    ref: ResourceRef
    by_id: bool
    pod: str
    device: Device
    metric: Metric
    samples: Mapping[int, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """One look: who is asked about over [first, last), until when, and what went wrong so far."""

    session: Session
    asked: Mapping[ResourceRef, ResourceRecord]
    first: int
    last: int
    until: float
    ambiguous: set[ResourceRef] = field(default_factory=set)
    lost: set[ResourceRef] = field(default_factory=set)
    """In all their series: what is missing could have been the busy one."""
    faults: list[PartReport] = field(default_factory=list)

    def concerns(self, match: Match) -> bool:
        """Whether it leads to one that is asked about."""
        return len(match.refs) == 1 and match.refs <= self.asked.keys() and not match.refs & self.ambiguous


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """Metrics that are asked for together, and how they find whom they speak of."""

    metrics: Mapping[str, Metric]
    found_by: Sequence[str]
    """Those that show who speaks at all."""
    labels: tuple[str, ...]
    """Those that may lead to somebody."""
    matches: Callable[[Mapping[str, str]], Sequence[Match]]
    series: Callable[[ResourceRecord], int]
    """How many series somebody is expected to have of each signal."""


class PrometheusTelemetry:
    """GPU samples of any cloud's machines and of any cluster's workloads."""

    def __init__(
        self,
        client: Client,
        *,
        join: Sequence[Way],
        metrics: Sequence[Metric],
        now: Callable[[], datetime],
        clusters: Sequence[Cluster] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ways = tuple(join)
        self._clusters = clusters
        self._of_gpus = {metric.name: metric for metric in metrics if metric.signal is not Signal.REQUESTS_TOTAL}
        self._of_requests = {metric.name: metric for metric in metrics if metric.signal is Signal.REQUESTS_TOTAL}
        self._rank = {metric.name: rank for rank, metric in enumerate(metrics)}
        self._now = now
        self._monotonic = monotonic
        self._learnt: dict[tuple[str, ...], Learnt] = {}
        self._known: dict[ResourceRef, tuple[ResourceRecord, datetime]] = {}
        self._join = Join(self._ways, (), clusters)
        self._lock = Lock()

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """Every sample of [start, end), at the whole second it was taken in. Raises when no host could be found."""
        first, last = math.ceil(start.timestamp()), math.ceil(end.timestamp())
        if not records or first >= last:
            return TelemetryAnswer(series=())
        join = self._joining(records)
        until = self._monotonic() + MOST_SECONDS
        with self._client.session() as session:
            asking = Asking(
                session=session,
                asked={record.ref: record for record in records},
                first=first,
                last=last,
                until=until,
            )
            told = list(self._told(asking, self._gpus(join)))
            counted = list(self._counted(asking, self._requests(join)))
        series = (*self._of_devices(told, asking), *of_counters(counted, asking))
        return TelemetryAnswer(series=series, ambiguous=frozenset(asking.ambiguous), faults=tuple(asking.faults))

    # who may be meant

    def _joining(self, records: Iterable[ResourceRecord]) -> Join:
        """The ways to these machines and to those asked about lately: a namesake counts though nobody asks about it."""
        now = self._now()
        with self._lock:
            before = self._known
            self._known = {ref: (record, at) for ref, (record, at) in before.items() if now - at < KNOWN_FOR}
            changed = len(self._known) < len(before)
            for record in records:
                known = self._known.get(record.ref)
                changed = changed or known is None or _names(known[0]) != _names(record)
                self._known[record.ref] = record, now
            if changed:
                self._join = Join(self._ways, (record for record, _ in self._known.values()), self._clusters)
            return self._join

    # what is asked

    def _gpus(self, join: Join) -> Topic:
        return Topic(
            metrics=self._of_gpus,
            found_by=[name for name, metric in self._of_gpus.items() if metric.signal is Signal.UTILISATION],
            labels=join.labels,
            matches=join.matches,
            series=lambda record: math.ceil(record.gpu_count / max(1, len(record.placements))),
        )

    def _requests(self, join: Join) -> Topic:
        """An inference server is a pod."""

        def matches(labels: Mapping[str, str]) -> Sequence[Match]:
            match = join.workload(labels)
            return () if match is None else (match,)

        return Topic(
            metrics=self._of_requests,
            found_by=list(self._of_requests),
            labels=join.pod_labels,
            matches=matches,
            series=lambda record: COUNTERS,
        )

    def _answers(self, asking: Asking, topic: Topic) -> Iterator[tuple[Row, Match]]:
        """Every series that leads to one resource that is asked about, with how."""
        speakers = [topic.matches(labels) for labels in self._speakers(asking, topic)]
        asking.ambiguous.update(_of_several(match for matches in speakers for match in matches))
        shards = list(self._shards(asking, topic, speakers))
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="prometheus") as pool:
            answers = list(pool.map(lambda shard: self._samples(asking, shard.question), shards))
        for shard, answer in zip(shards, answers, strict=True):
            if isinstance(answer, Fault):
                asking.lost.update(shard.refs)
                asking.faults.append(PartReport(part=shard.part, complete=False, fault=answer))
                continue
            for row in answer:
                matches = topic.matches(row.labels)
                asking.ambiguous.update(_of_several(matches))
                yield from ((row, match) for match in matches if asking.concerns(match))

    def _speakers(self, asking: Asking, topic: Topic) -> Sequence[Mapping[str, str]]:
        """One set of labels for each host, and each pod on it, that speaks in the window."""
        now, about = self._now(), tuple(topic.found_by)
        with self._lock:
            learnt = self._learnt.get(about)
            if learnt is not None and learnt.serves(topic.labels, asking.first, asking.last, now):
                return learnt.speakers
        by = ",".join(topic.labels)
        rows = self._ask(
            asking,
            Question(names=topic.found_by, start=asking.first, end=asking.last),
            lambda selector: f"group by ({by}) (last_over_time({selector}))",
        )
        speakers = [dict(labels) for labels in {tuple(sorted(row.labels.items())) for row in rows}]
        with self._lock:
            self._learnt[about] = Learnt(
                labels=topic.labels, start=asking.first, end=asking.last, at=now, speakers=speakers
            )
        return speakers

    def _shards(self, asking: Asking, topic: Topic, speakers: Iterable[Sequence[Match]]) -> Iterator[Shard]:
        """Hosts of a region, or pods, that are found by the same label, as many as one question may hold. What is
        asked of a host tells of the pods on it too."""
        values: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        refs: dict[tuple[str, str, str], set[ResourceRef]] = defaultdict(set)
        for matches in speakers:
            meant = [(match, ref) for match in matches if asking.concerns(match) for ref in match.refs]
            if not meant:
                continue
            match, ref = meant[0]
            part = f"{ref.provider} {ref.region}".strip()
            if ref not in refs[part, match.label, match.value]:
                values[part, match.label][match.value] += topic.series(asking.asked[ref])
            refs[part, match.label, match.value] |= {ref for _, ref in meant}
        signals = len({metric.signal for metric in topic.metrics.values()})
        most = MOST_SAMPLES * SCRAPE_SECONDS / (asking.last - asking.first) / signals
        for (part, label), weights in sorted(values.items()):
            for batch in _batches(dict(sorted(weights.items())), most):
                yield Shard(
                    part=part,
                    question=Question(
                        names=tuple(topic.metrics), label=label, values=batch, start=asking.first, end=asking.last
                    ),
                    refs=frozenset().union(*(refs[part, label, value] for value in batch)),
                )

    def _samples(self, asking: Asking, question: Question) -> Sequence[Row] | Fault:
        try:
            return self._ask(asking, question, lambda selector: selector)
        except ProviderError as error:
            return error.as_fault()

    def _ask(self, asking: Asking, question: Question, promql: Callable[[str], str]) -> Sequence[Row]:
        """The whole answer: in one piece, or in as many as the server wants."""
        if self._monotonic() >= asking.until:
            raise Unreachable(f"not asked: the questions before it took {MOST_SECONDS:.0f} s already")
        try:
            return asking.session.query(promql(question.selector), at=question.at)
        except TooMuch as refusal:
            halves = question.halves()
            if not halves:
                raise Misconfigured(
                    f"the server refuses even the smallest question: {refusal}; raise its limits"
                ) from refusal
        return [row for half in halves for row in self._ask(asking, half, promql)]

    # what GPUs did

    def _told(self, asking: Asking, topic: Topic) -> Iterator[Told]:
        for row, match in self._answers(asking, topic):
            metric = topic.metrics.get(row.labels.get("__name__", ""))
            if metric is None:
                continue
            samples = _clean(row.samples, metric, asking)
            if match.pod and of_processes(row.labels):  # none seen is no proof that none works
                samples = {second: value for second, value in samples.items() if value}
            if samples:
                (ref,) = match.refs
                device = device_of(row.labels)
                yield Told(
                    ref=ref,
                    by_id=match.by_id,
                    pod=match.pod,
                    device=_in_pod(device, match.pod, share_of(row.labels)) if match.pod else device,
                    metric=metric,
                    samples=samples,
                )

    def _of_devices(self, told: Iterable[Told], asking: Asking) -> Iterator[Series]:
        """One series per device and signal. Adds those that turn out to be two to the ambiguous ones."""
        by_pod: dict[ResourceRef, dict[str, list[Told]]] = defaultdict(lambda: defaultdict(list))
        for one in told:
            by_pod[one.ref][one.pod].append(one)
        for ref, pods in by_pod.items():
            record = asking.asked[ref]
            alike = [one for ones in pods.values() for one in _named_alike(ones)]
            if ref not in asking.lost and _more_than_it_has(alike, record):
                asking.ambiguous.add(ref)
            if ref not in asking.lost and ref not in asking.ambiguous:
                yield from self._of_one(record, alike)

    def _of_one(self, record: ResourceRecord, ones: Sequence[Told]) -> Iterator[Series]:
        # several series may tell of one device: of two exporters, of a pod before and after, of pods that share it
        values: dict[tuple[str, Signal], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for one in _without_slices_that_hide_gpus(ones, record):
            _highest(values[one.device.name, one.metric.signal][one.metric.name], one.samples)
        for (device, signal), by_metric in values.items():
            samples = by_metric[min(by_metric, key=self._rank.__getitem__)]
            yield _series(record.ref, device, signal, samples)

    # what servers served

    def _counted(self, asking: Asking, topic: Topic) -> Iterator[tuple[Row, Match]]:
        """Counters of those among the workloads that are inference servers."""
        workloads = {ref for ref in asking.asked if ref.kind is Kind.WORKLOAD}
        if not workloads or not topic.metrics:
            return
        try:
            yield from self._answers(asking, topic)
        except ProviderError as error:  # which of them serve is not known, so neither is which of them are idle
            asking.lost.update(workloads)
            asking.faults.append(PartReport(part="requests", complete=False, fault=error.as_fault()))


def of_counters(counted: Iterable[tuple[Row, Match]], asking: Asking) -> Iterator[Series]:
    """One series for each counter of each port of a pod: its parts (by model, by outcome) are added up.

    A part that appears or goes moves the sum, as a request does. Two scrapers' copies of a series are not added.
    """
    parts: dict[tuple[ResourceRef, str], dict[Labels, dict[Labels, dict[int, float]]]] = defaultdict(dict)
    for row, match in counted:
        (ref,) = match.refs
        name = row.labels.get("__name__", "")
        port = row.labels.get("instance", "").rpartition(":")[2]
        device = ":".join(filter(None, (match.pod, name, port if port.isdecimal() else "")))
        copy = tuple((label, row.labels.get(label, "")) for label in SCRAPERS)
        samples = parts[ref, device].setdefault(copy, {}).setdefault(tuple(sorted(row.labels.items())), {})
        _highest(samples, _clean(row.samples, REQUESTS, asking))
    for (ref, device), copies in parts.items():
        total: dict[int, float] = {}
        for series in copies.values():
            added: dict[int, float] = defaultdict(float)
            for samples in series.values():
                for second, value in samples.items():
                    added[second] += value
            _highest(total, added)
        if total and ref not in asking.lost and ref not in asking.ambiguous:
            yield _series(ref, device, Signal.REQUESTS_TOTAL, total)


def _series(ref: ResourceRef, device: str, signal: Signal, samples: Mapping[int, float]) -> Series:
    times = tuple(sorted(samples))
    return Series(ref=ref, device=device, signal=signal, times=times, values=tuple(samples[time] for time in times))


def _highest(merged: dict[int, float], samples: Mapping[int, float]) -> None:
    for second, value in samples.items():
        merged[second] = max(value, merged.get(second, value))


def _of_several(matches: Iterable[Match]) -> set[ResourceRef]:
    return {ref for match in matches if len(match.refs) > 1 for ref in match.refs}


def _in_pod(device: Device, pod: str, share: str) -> Device:
    """A GPU as the pod's: another pod of its workload may hold a share of the same, or one of the same number."""
    parts = filter(None, (device.part, f"vgpu{share}" if share else ""))
    return replace(device, gpu=f"{pod}:{device.gpu}", part="/".join(parts))


def _clean(values: Iterable[tuple[int, float]], metric: Metric, asking: Asking) -> dict[int, float]:
    """By whole seconds, in our unit, within the window, without what is no value."""
    samples: dict[int, float] = {}
    for second, value in values:
        if asking.first <= second < asking.last and 0 <= value < SENTINEL:  # NaN compares as neither
            ours = min(value * metric.unit, metric.most)
            samples[second] = max(ours, samples.get(second, ours))
    return samples


def _named_alike(ones: Sequence[Told]) -> Sequence[Told]:
    """Series that name GPUs in the most telling way there is. Named in two ways, one GPU would count as two."""
    spoken = {one.device.naming for one in ones if one.metric.signal is Signal.UTILISATION}
    naming = next((naming for naming in NAMINGS if naming in spoken), None)
    return [one for one in ones if one.device.naming == naming]


def _more_than_it_has(ones: Iterable[Told], record: ResourceRecord) -> bool:
    """More GPUs under one name than it has, since it started: another host, or pod, has the same name."""
    since = 0.0 if record.launched_at is None else record.launched_at.timestamp()
    gpus = {
        one.device.name if one.pod else one.device.gpu
        for one in ones
        if one.metric.signal is Signal.UTILISATION and not one.by_id and max(one.samples) >= since
    }
    return len(gpus) > record.gpu_count


def _without_slices_that_hide_gpus(ones: Sequence[Told], record: ResourceRecord) -> Sequence[Told]:
    """Seven slices of one GPU count as seven devices; where other GPUs are silent, they would stand in for those."""
    gpus = {one.device.gpu for one in ones if one.metric.signal is Signal.UTILISATION}
    if record.ref.kind not in MACHINES or len(gpus) >= record.gpu_count:
        return ones
    return [one for one in ones if not one.device.part]


def _names(record: ResourceRecord) -> tuple[object, ...]:
    """What it can be found by, besides its id."""
    return record.name, dict(record.tags), record.machine, record.placements


def _alternatives(words: Iterable[str]) -> str:
    """A PromQL text of a pattern that fits these words only."""
    escaped = (re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", word) for word in words)
    return json.dumps("|".join(escaped), ensure_ascii=False)


def _halves(whole: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    middle = len(whole) // 2
    return whole[:middle], whole[middle:]


def _batches(gpus: Mapping[str, int], most: float) -> Iterator[tuple[str, ...]]:
    """Hosts, in order, in batches of at most so many GPUs and so long a question; one host at the least."""
    batch: list[str] = []
    weight, length = 0, 0
    for host, count in gpus.items():
        size = len(_alternatives([host]).encode())
        if batch and (weight + count > most or length + size > MOST_QUERY_BYTES):
            yield tuple(batch)
            batch, weight, length = [], 0, 0
        batch.append(host)
        weight, length = weight + count, length + size
    if batch:
        yield tuple(batch)
