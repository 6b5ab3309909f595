"""Simulated activity → series, one sample a minute for each GPU and signal, made up on the spot for any window."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from math import ceil
from sys import intern

from providers.errors import ProviderError
from providers.records import PartReport, ResourceRecord, ResourceRef, Series, Signal, State, TelemetryAnswer
from providers.simulated.activity import Load
from providers.simulated.catalogue import Sku
from providers.simulated.cloud import Machine, SimulatedCloud

STEP = 60
"""Seconds between samples."""


class SimulatedTelemetry:
    """Sees what GPUs did."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        cloud = self._cloud
        with cloud.lock:
            until = min(end.timestamp(), (cloud.present() - cloud.lag).timestamp() + 1)
            series: list[Series] = []
            ambiguous: set[ResourceRef] = set()
            faults: dict[str, PartReport | None] = {}
            for record in records:
                if record.ref.region not in faults:
                    faults[record.ref.region] = self._fault(record.ref.region)
                machine = cloud.machines.get(record.ref.external_id)
                if machine is None or faults[record.ref.region] is not None:
                    continue
                if machine.ambiguous:
                    ambiguous.add(record.ref)
                    continue
                series += _series(record.ref, machine, start.timestamp(), until)
        return TelemetryAnswer(
            series=tuple(series),
            ambiguous=frozenset(ambiguous),
            faults=tuple(fault for fault in faults.values() if fault is not None),
        )

    def _fault(self, region: str) -> PartReport | None:
        try:
            self._cloud.meet("samples", region)
        except ProviderError as error:
            return PartReport(part=region, complete=False, fault=error.as_fault())
        return None


def _series(ref: ResourceRef, machine: Machine, start: float, end: float) -> Iterator[Series]:
    known = machine.pushed or _acted_out(machine, _running_minutes(machine, start, end))
    for (device, signal), values in known.items():
        times = _once(tuple(sorted(second for second in values if start <= second < end)))
        if times:
            yield Series(
                ref=ref,
                device=intern(str(device)),
                signal=signal,
                times=times,
                values=array("d", [values[second] for second in times]),
            )


@lru_cache(maxsize=64)
def _once(times: tuple[int, ...]) -> tuple[int, ...]:
    """The same moments are kept once, however many tell of them."""
    return times


def _running_minutes(machine: Machine, start: float, end: float) -> list[int]:
    """Full minutes of [start, end) in which it ran: what does not run has no exporter."""
    minutes: list[int] = []
    ends = [moment.timestamp() for moment, _ in machine.history[1:]] + [end]
    for (since, state), until in zip(machine.history, ends, strict=True):
        if state is State.RUNNING:
            first = ceil(max(since.timestamp(), start) / STEP) * STEP
            minutes += _minutes(first, ceil(min(until, end)))
    return minutes


@lru_cache(maxsize=64)  # a fleet is sampled at the same moments
def _minutes(first: int, end: int) -> tuple[int, ...]:
    return tuple(range(first, end, STEP))


def _acted_out(machine: Machine, minutes: Sequence[int]) -> dict[tuple[int, Signal], dict[int, float]]:
    known: dict[tuple[int, Signal], dict[int, float]] = {}
    for device in range(machine.sku.gpus):
        for second in minutes:
            load = machine.activity(device, second)
            if load is not None:
                for signal, value in _signals(machine.sku, load, device):
                    known.setdefault((device, signal), {})[second] = value
    return known


def _signals(sku: Sku, load: Load, device: int) -> Iterator[tuple[Signal, float]]:
    """What the exporters of such a GPU would say. Trainium and its like tell their utilisation only."""
    yield Signal.UTILISATION, load.utilisation
    if sku.vendor in ("nvidia", "amd"):
        yield Signal.TENSOR_ACTIVE, load.utilisation * 0.55
        yield Signal.DRAM_ACTIVE, load.utilisation * 0.4
        yield Signal.POWER_WATTS, sku.watts * (0.12 + 0.05 * (load.memory > 0) + 0.8 * load.utilisation)
        yield Signal.MEMORY_USED_MIB, (sku.memory_mib or 0) * load.memory
    if load.requests is not None and device == 0:
        yield Signal.REQUESTS_TOTAL, float(load.requests)
