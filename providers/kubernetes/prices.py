"""Turns nodes into hourly rates where the cloud beneath them has a list of its own: AWS's, as it is built in.

Other nodes take theirs from a price file. A workload has no price: it costs its shares of the nodes it is on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.aws.builtin import builtin_price, place_of
from providers.price_lists import NOT_ITS_OWN
from providers.records import Kind, Price, ResourceRecord, ResourceRef

OF_AWS = "aws:///"
"""How EC2's instances begin in `spec.providerID`."""


class KubernetesPrices:
    """What nodes cost, without asking anybody."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """List prices of the nodes that are EC2's. What is not known of one its price says."""
        quoted = {record.ref: _price(record) for record in records if _is_of_aws(record)}
        return {ref: price for ref, price in quoted.items() if price is not None}


def _is_of_aws(record: ResourceRecord) -> bool:
    return record.ref.kind is Kind.NODE and record.machine is not None and record.machine.startswith(OF_AWS)


def _price(record: ResourceRecord) -> Price | None:
    place = place_of(record.ref.region, record.zone)
    return builtin_price(record.sku, place, NOT_ITS_OWN.get(record.capacity_type, ""))
