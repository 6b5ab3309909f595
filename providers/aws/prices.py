"""Turns machine types into hourly rates by a built-in, dated list: on demand, Linux, us-east-1.

Wherever the list is only an estimate (another region, spot, a reservation) the price's source says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from providers.aws.translate import builtin_types
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef

LIST = "builtin 2026-07-20: us-east-1 on-demand list price, Linux"
LISTED_REGION = "us-east-1"
MICROS = 1_000_000

NOT_ITS_OWN = {
    CapacityType.SPOT: "upper bound for spot",
    CapacityType.RESERVED: "what the reservation costs is not known",
    CapacityType.CAPACITY_BLOCK: "what the capacity block cost is not known",
    CapacityType.FLEX_START: "its own rate is not known",
    CapacityType.UNKNOWN: "how it is billed is not known",
}


class BuiltinPrices:
    """List prices. A type without one, and a partition that bills in another currency, is left out."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        quotes = {}
        for record in records:
            row = builtin_types().get(record.sku)
            if row is None or row.usd_per_hour is None or record.ref.region.startswith("cn-"):
                continue
            quotes[record.ref] = Price(
                rate_micros=int(row.usd_per_hour * MICROS), currency="USD", source=_source(record)
            )
        return quotes


def _source(record: ResourceRecord) -> str:
    caveats = [LIST]
    if record.ref.region != LISTED_REGION:
        caveats.append(f"other region ({record.ref.region})")
    if record.capacity_type in NOT_ITS_OWN:
        caveats.append(NOT_ITS_OWN[record.capacity_type])
    return "; ".join(caveats)
