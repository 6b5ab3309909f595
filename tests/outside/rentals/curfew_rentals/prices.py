"""Turns the company's price list into rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from pydantic import BaseModel

from curfew_rentals.client import Client
from curfew_rentals.translate import PLANS
from providers.price_lists import to_micros
from providers.records import Price, ResourceRecord, ResourceRef


class Charge(BaseModel):
    """What an hour of a type of machine costs by one plan."""

    type: str
    plan: str
    hour: Decimal


class PriceList(BaseModel):
    """All of it."""

    since: str
    currency: str
    charges: Sequence[Charge]


class RentalsPrices:
    """Knows what an hour costs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        told = self._client.get("/v1/prices", PriceList)
        rates = {(charge.type, PLANS.get(charge.plan)): to_micros(charge.hour) for charge in told.charges}
        source = f"price list of {told.since}"
        return {
            record.ref: Price(rate_micros=rate, currency=told.currency, source=source)
            for record in records
            if (rate := rates.get((record.sku, record.capacity_type))) is not None
        }
