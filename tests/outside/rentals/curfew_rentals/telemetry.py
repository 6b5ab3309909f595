"""Turns what the company measures of its GPUs into series: one question a site, whatever the number of machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from curfew_rentals.client import Client
from providers.errors import ProviderError
from providers.records import PartReport, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer


class Gpu(BaseModel):
    """What was measured of one GPU: Unix seconds and per cent, null where nothing was."""

    machine: str
    gpu: int
    samples: Sequence[tuple[int, float | None]]


class Usage(BaseModel):
    """What was measured at a site."""

    gpus: Sequence[Gpu]


class RentalsTelemetry:
    """Sees what GPUs did."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        sites: dict[str, dict[str, ResourceRef]] = {}
        for record in records:
            sites.setdefault(record.ref.region, {})[record.ref.external_id] = record.ref
        since, until = int(start.timestamp()), int(end.timestamp())
        series: list[Series] = []
        faults: list[PartReport] = []
        for site, refs in sites.items():
            try:
                usage = self._client.get("/v1/usage", Usage, site=site, since=since, until=until)
            except ProviderError as error:
                faults.append(PartReport(part=site, complete=False, fault=error.as_fault()))
                continue
            for gpu in usage.gpus:
                measured = {
                    second: percent / 100
                    for second, percent in sorted(gpu.samples)
                    if since <= second < until and percent is not None and 0 <= percent <= 100
                }
                if gpu.machine in refs and measured:
                    series.append(
                        Series(
                            ref=refs[gpu.machine],
                            device=str(gpu.gpu),
                            signal=Signal.UTILISATION,
                            times=tuple(measured),
                            values=tuple(measured.values()),
                        )
                    )
        return TelemetryAnswer(series=tuple(series), faults=tuple(faults))
