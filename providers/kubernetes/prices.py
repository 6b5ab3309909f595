"""Turns nodes into hourly rates where the cloud beneath them has a list of its own, and that list is built in.

Other nodes take theirs from a price file. A workload has no price: it costs its shares of the nodes it is on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from providers.aws import builtin as aws
from providers.azure import builtin as azure
from providers.gcp import builtin as gcp
from providers.price_lists import NOT_ITS_OWN
from providers.records import Kind, Price, ResourceRecord, ResourceRef


class KubernetesPrices:
    """What nodes cost, without asking anybody."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """List prices of the nodes that are a cloud's. What is not known of one its price says."""
        quoted = {record.ref: _price(record) for record in records if record.ref.kind is Kind.NODE}
        return {ref: price for ref, price in quoted.items() if price is not None}


def _price(record: ResourceRecord) -> Price | None:
    listed = LISTED.get((record.machine or "").partition("://")[0])
    return None if listed is None else listed(record)


def _of_aws(record: ResourceRecord) -> Price | None:
    return aws.builtin_price(record.sku, aws.place_of(record.ref.region, record.zone), _caveat(record))


def _of_azure(record: ResourceRecord) -> Price | None:
    return azure.builtin_price(record.sku, record.ref.region, _caveat(record))


def _caveat(record: ResourceRecord) -> str:
    return NOT_ITS_OWN.get(record.capacity_type, "")


LISTED: Mapping[str, Callable[[ResourceRecord], Price | None]] = {
    "aws": _of_aws,
    "azure": _of_azure,
    "gce": gcp.builtin_price,
}
"""By how `spec.providerID` begins."""
