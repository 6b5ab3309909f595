"""Machines, series and the provider over any address, in as few words as a test needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from providers.contract import BuildContext, Telemetry
from providers.prometheus import Config, build
from providers.records import Kind, Placement, ResourceRecord, ResourceRef, Series, Signal, State, TelemetryAnswer

NOON = datetime(2026, 11, 16, 12, 0, tzinfo=UTC)
START = NOON - timedelta(hours=1)


def machine(
    external_id: str,
    *,
    name: str | None = None,
    gpus: int = 1,
    tags: Mapping[str, str] | None = None,
    kind: Kind = Kind.INSTANCE,
    provider: str = "aws",
    account: str = "111111111111",
    region: str = "us-east-1",
    launched_at: datetime | None = NOON - timedelta(days=1),
) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(provider=provider, account=account, region=region, kind=kind, external_id=external_id),
        incarnation=external_id,
        name=name or external_id,
        zone=None,
        sku="p5.48xlarge",
        gpu_vendor="nvidia",
        gpu_model="H100",
        gpu_count=gpus,
        state=State.RUNNING,
        launched_at=launched_at,
        tags=tags or {},
    )


CLUSTER = "5f1c2f0e-8d5e-4f0b-9f0a-0c1d2e3f4a5b"


def workload(
    external_id: str = "vision/Job/train",
    *,
    pods: Mapping[str, str] | None = None,
    gpus: int = 1,
    cluster: str = CLUSTER,
    launched_at: datetime | None = NOON - timedelta(days=1),
) -> ResourceRecord:
    """`pods`: each with its node; `train-0` on `gpu-1` unless told otherwise."""
    placed = {"train-0": "gpu-1"} if pods is None else pods
    return ResourceRecord(
        ref=ResourceRef(provider="kubernetes", account=cluster, region="", kind=Kind.WORKLOAD, external_id=external_id),
        incarnation=external_id,
        name=external_id.rpartition("/")[2],
        zone=None,
        sku="nvidia.com/gpu",
        gpu_vendor="nvidia",
        gpu_model="H100",
        gpu_count=gpus,
        state=State.RUNNING,
        launched_at=launched_at,
        placements=tuple(Placement(pod=pod, node=node, share=Fraction(1, 8)) for pod, node in placed.items()),
    )


def node(name: str, *, gpus: int = 8, cluster: str = CLUSTER, provider_id: str | None = None) -> ResourceRecord:
    record = machine(name, gpus=gpus, kind=Kind.NODE, provider="kubernetes", account=cluster, region="eu")
    return replace(record, machine=provider_id)


def telemetry(url: str, *, now: Callable[[], datetime] = lambda: NOON, **fields: object) -> Telemetry:
    config = Config.model_validate({"url": url, **fields})
    built = build(config, BuildContext(source="metrics", now=now)).telemetry
    assert built is not None
    return built


def every(seconds: int, value: float, *, start: datetime = START, end: datetime = NOON) -> list[tuple[int, float]]:
    """The same value at a steady pace."""
    return [(second, value) for second in range(int(start.timestamp()), int(end.timestamp()), seconds)]


def utilisation(answer: TelemetryAnswer) -> dict[str, Series]:
    """Device → its utilisation, for answers about one machine."""
    found = [series for series in answer.series if series.signal is Signal.UTILISATION]
    assert len({series.ref for series in found}) <= 1
    assert len({series.device for series in found}) == len(found)
    return {series.device: series for series in found}


def peaks(answer: TelemetryAnswer, record: ResourceRecord) -> dict[tuple[str, Signal], float]:
    """(device, signal) → highest value, of one machine."""
    return {(one.device, one.signal): max(one.values) for one in answer.series if one.ref == record.ref}


def ask(
    source: Telemetry, records: Sequence[ResourceRecord], *, start: datetime = START, end: datetime = NOON
) -> TelemetryAnswer:
    return source.samples(records, start=start, end=end)
