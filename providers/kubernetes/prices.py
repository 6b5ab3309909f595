"""Turns nodes into hourly rates where the cloud beneath them has a list of its own, and that list is built in.
Cloud.

Other nodes take theirs from a price file. A workload has no price: it costs its shares of the nodes it is on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.aws import builtin as aws
from providers.gcp import builtin as gcp
from providers.price_lists import NOT_ITS_OWN
from providers.records import Kind, Price, ResourceRecord, ResourceRef

OF_AWS, OF_GOOGLE = "aws:///", "gce://"
"""How machines of EC2 and Compute Engine begin in `spec.providerID`."""


class KubernetesPrices:
    """What nodes cost, without asking anybody."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """List prices of the nodes that are a cloud's. What is not known of one its price says."""
        quoted = {record.ref: _price(record) for record in records if record.ref.kind is Kind.NODE}
        return {ref: price for ref, price in quoted.items() if price is not None}


def _price(record: ResourceRecord) -> Price | None:
    machine = record.machine or ""
    if machine.startswith(OF_AWS):
        place = aws.place_of(record.ref.region, record.zone)
        return aws.builtin_price(record.sku, place, NOT_ITS_OWN.get(record.capacity_type, ""))
    return gcp.builtin_price(record) if machine.startswith(OF_GOOGLE) else None
