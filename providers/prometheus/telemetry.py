"""Turns the samples a Prometheus-compatible server has of GPUs into series of machines, in few and bounded questions.

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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Lock

from providers.errors import Misconfigured, ProviderError, Unreachable
from providers.prometheus.client import Client, Row, Session, TooMuch
from providers.prometheus.join import Join, Match, Way, labels_of
from providers.prometheus.vocabulary import NAMINGS, Device, Metric, device_of
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
SENTINEL = 9.22e18
"""Values at and above it are an exporter's way of writing `no value`."""


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
    """Which hosts spoke in a window: one set of labels each."""

    start: float
    end: float
    at: datetime
    hosts: Sequence[Mapping[str, str]]

    def serves(self, start: float, end: float, now: datetime) -> bool:
        fresh = timedelta() <= now - self.at < LEARNT_FOR
        return fresh and self.start <= start and end - self.end < LEARNT_FOR.total_seconds()


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one series of the server tells."""

    ref: ResourceRef
    by_id: bool
    device: Device
    metric: Metric
    samples: Mapping[int, float]


class PrometheusTelemetry:
    """GPU samples of any cloud's machines."""

    def __init__(
        self,
        client: Client,
        *,
        join: Sequence[Way],
        metrics: Sequence[Metric],
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._ways = tuple(join)
        self._metrics = {metric.name: metric for metric in metrics}
        self._rank = {metric.name: rank for rank, metric in enumerate(metrics)}
        self._now = now
        self._monotonic = monotonic
        self._learnt: Learnt | None = None
        self._known: dict[ResourceRef, tuple[ResourceRecord, datetime]] = {}
        self._join = Join(self._ways, ())
        self._lock = Lock()

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        """Every sample of [start, end), at the whole second it was taken in. Raises when no host could be found."""
        first, last = math.ceil(start.timestamp()), math.ceil(end.timestamp())
        if not records or first >= last:
            return TelemetryAnswer(series=())
        asked = {record.ref: record for record in records}
        join = self._joining(records)
        until = self._monotonic() + MOST_SECONDS
        with self._client.session() as session:
            matches = [match for host in self._hosts(session, first, last, until) if (match := join.match(host))]
            ambiguous = {ref for match in matches if len(match.refs) > 1 for ref in match.refs}
            shards = list(self._shards(matches, asked, ambiguous, first, last))
            with ThreadPoolExecutor(WORKERS, thread_name_prefix="prometheus") as pool:
                answers = list(pool.map(lambda shard: self._samples(session, shard.question, until), shards))
        told: list[Told] = []
        lost: set[ResourceRef] = set()
        faults: list[PartReport] = []
        for shard, answer in zip(shards, answers, strict=True):
            if isinstance(answer, Fault):
                lost |= shard.refs  # in all its series: what is missing could have been the busy one
                faults.append(PartReport(part=shard.part, complete=False, fault=answer))
                continue
            for row in answer:
                match = join.match(row.labels)
                if match is None:
                    continue
                if len(match.refs) > 1:
                    ambiguous |= match.refs
                    continue
                told += self._told(row, match, first, last)
        series = list(self._series(told, asked, lost, ambiguous))
        return TelemetryAnswer(series=tuple(series), ambiguous=frozenset(ambiguous), faults=tuple(faults))

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
                self._join = Join(self._ways, (record for record, _ in self._known.values()))
            return self._join

    # what is asked

    def _hosts(self, session: Session, first: float, last: float, until: float) -> Sequence[Mapping[str, str]]:
        """One set of labels for each host with utilisation in the window."""
        now = self._now()
        with self._lock:
            if self._learnt is not None and self._learnt.serves(first, last, now):
                return self._learnt.hosts
        names = [name for name, metric in self._metrics.items() if metric.signal is Signal.UTILISATION]
        by = ",".join(labels_of(self._ways))
        rows = self._ask(
            session,
            Question(names=names, start=first, end=last),
            lambda selector: f"group by ({by}) (last_over_time({selector}))",
            until,
        )
        hosts = [dict(labels) for labels in {tuple(sorted(row.labels.items())) for row in rows}]
        with self._lock:
            self._learnt = Learnt(start=first, end=last, at=now, hosts=hosts)
        return hosts

    def _shards(
        self,
        matches: Iterable[Match],
        asked: Mapping[ResourceRef, ResourceRecord],
        ambiguous: set[ResourceRef],
        first: float,
        last: float,
    ) -> Iterator[Shard]:
        """Hosts of a region that are found by the same label, as many as one question may hold."""
        hosts: dict[tuple[str, str], dict[str, ResourceRef]] = defaultdict(dict)
        for match in matches:
            for ref in match.refs:
                if ref in asked and ref not in ambiguous:
                    hosts[f"{ref.provider} {ref.region}", match.label][match.value] = ref
        most = MOST_SAMPLES * SCRAPE_SECONDS / (last - first) / len({m.signal for m in self._metrics.values()})
        for (part, label), refs in sorted(hosts.items()):
            gpus = {value: asked[ref].gpu_count for value, ref in sorted(refs.items())}
            for values in _batches(gpus, most):
                yield Shard(
                    part=part,
                    question=Question(names=tuple(self._metrics), label=label, values=values, start=first, end=last),
                    refs=frozenset(refs[value] for value in values),
                )

    def _samples(self, session: Session, question: Question, until: float) -> Sequence[Row] | Fault:
        try:
            return self._ask(session, question, lambda selector: selector, until)
        except ProviderError as error:
            return error.as_fault()

    def _ask(self, session: Session, question: Question, promql: Callable[[str], str], until: float) -> Sequence[Row]:
        """The whole answer: in one piece, or in as many as the server wants."""
        if self._monotonic() >= until:
            raise Unreachable(f"not asked: the questions before it took {MOST_SECONDS:.0f} s already")
        try:
            return session.query(promql(question.selector), at=question.at)
        except TooMuch as refusal:
            halves = question.halves()
            if not halves:
                raise Misconfigured(
                    f"the server refuses even the smallest question: {refusal}; raise its limits"
                ) from refusal
        return [row for half in halves for row in self._ask(session, half, promql, until)]

    # what it means

    def _told(self, row: Row, match: Match, first: float, last: float) -> Iterator[Told]:
        (ref,) = match.refs
        metric = self._metrics.get(row.labels.get("__name__", ""))
        if metric is None:
            return
        samples = _clean(row.samples, metric, first, last)
        if samples:
            device = device_of(row.labels)
            yield Told(ref=ref, by_id=match.by_id, device=device, metric=metric, samples=samples)

    def _series(
        self,
        told: Iterable[Told],
        asked: Mapping[ResourceRef, ResourceRecord],
        lost: set[ResourceRef],
        ambiguous: set[ResourceRef],
    ) -> Iterator[Series]:
        """One series per device and signal. Adds machines that turn out to be two to `ambiguous`."""
        of_machine: dict[ResourceRef, list[Told]] = defaultdict(list)
        for one in told:
            if one.ref in asked and one.ref not in lost:
                of_machine[one.ref].append(one)
        for ref, ones in of_machine.items():
            alike = _named_alike(ones)
            if _more_than_one_machine(alike, asked[ref]):
                ambiguous.add(ref)
            if ref not in ambiguous:
                yield from self._of_machine(asked[ref], alike)

    def _of_machine(self, record: ResourceRecord, ones: Sequence[Told]) -> Iterator[Series]:
        # several series may tell of one device: of two exporters, of a pod before and after, of pods that share it
        values: dict[tuple[str, Signal], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
        for one in _without_slices_that_hide_gpus(ones, record):
            merged = values[one.device.name, one.metric.signal][one.metric.name]
            for second, value in one.samples.items():
                merged[second] = max(value, merged.get(second, value))
        for (device, signal), by_metric in values.items():
            samples = by_metric[min(by_metric, key=self._rank.__getitem__)]
            times = tuple(sorted(samples))
            yield Series(
                ref=record.ref,
                device=device,
                signal=signal,
                times=times,
                values=tuple(samples[second] for second in times),
            )


def _clean(values: Iterable[tuple[int, float]], metric: Metric, first: float, last: float) -> dict[int, float]:
    """By whole seconds, in our unit, within the window, without what is no value."""
    samples: dict[int, float] = {}
    for second, value in values:
        if first <= second < last and 0 <= value < SENTINEL:  # NaN compares as neither
            ours = min(value * metric.unit, metric.most)
            samples[second] = max(ours, samples.get(second, ours))
    return samples


def _named_alike(ones: Sequence[Told]) -> Sequence[Told]:
    """Series that name GPUs in the most telling way there is. Named in two ways, one GPU would count as two."""
    spoken = {one.device.naming for one in ones if one.metric.signal is Signal.UTILISATION}
    naming = next((naming for naming in NAMINGS if naming in spoken), None)
    return [one for one in ones if one.device.naming == naming]


def _more_than_one_machine(ones: Iterable[Told], record: ResourceRecord) -> bool:
    """More GPUs under one host name than the machine has, since it started: another host has the same name."""
    since = 0.0 if record.launched_at is None else record.launched_at.timestamp()
    gpus = {
        one.device.gpu
        for one in ones
        if one.metric.signal is Signal.UTILISATION and not one.by_id and max(one.samples) >= since
    }
    return len(gpus) > record.gpu_count


def _without_slices_that_hide_gpus(ones: Sequence[Told], record: ResourceRecord) -> Sequence[Told]:
    """Seven slices of one GPU count as seven devices; where other GPUs are silent, they would stand in for those."""
    gpus = {one.device.gpu for one in ones if one.metric.signal is Signal.UTILISATION}
    if record.ref.kind is not Kind.INSTANCE or len(gpus) >= record.gpu_count:
        return ones
    return [one for one in ones if not one.device.part]


def _names(record: ResourceRecord) -> tuple[object, ...]:
    """What a machine can be found by, besides its id."""
    return record.name, dict(record.tags)


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
