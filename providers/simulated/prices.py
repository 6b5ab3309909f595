"""Simulated machine types → prices of an hour, from the simulated list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from providers.errors import ProviderError
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef
from providers.simulated.catalogue import SPOT_SHARE_PERCENT
from providers.simulated.cloud import SimulatedCloud

SOURCE = "simulated list"


class SimulatedPrices:
    """Knows what an hour costs."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        with self._cloud.lock:
            return {record.ref: price for record in records if (price := self._price(record)) is not None}

    def _price(self, record: ResourceRecord) -> Price | None:
        try:
            self._cloud.meet("quote", record.ref.region, record.ref.external_id)
        except ProviderError:
            return None
        machine = self._cloud.machines.get(record.ref.external_id)
        if machine is None or machine.sku.rate_micros is None:
            return None
        rate = machine.sku.rate_micros
        if record.capacity_type is CapacityType.SPOT:
            rate = rate * SPOT_SHARE_PERCENT // 100
        return _said(rate, self._cloud.currency)


@cache  # of a whole fleet, one for each sort of machine
def _said(rate_micros: int, currency: str) -> Price:
    return Price(rate_micros=rate_micros, currency=currency, source=SOURCE)
