"""Turns a machine type into what it lists for, by the built-in table alone: no call, and no SDK, so that whoever else
meets machines of AWS (a Kubernetes node) may price them too.
"""

from __future__ import annotations

import re
from decimal import Decimal

from providers.aws.translate import builtin_types
from providers.records import CapacityType, Price

MICROS = 1_000_000
BUILTIN = "builtin 2026-07-20: us-east-1 on-demand list price, USD, Linux"
BUILTIN_REGION = "us-east-1"

NOT_ITS_OWN = {
    CapacityType.SPOT: "upper bound for spot",
    CapacityType.RESERVED: "what the reservation costs is not known",
    CapacityType.CAPACITY_BLOCK: "what the capacity block cost is not known",
    CapacityType.FLEX_START: "its own rate is not known",
    CapacityType.UNKNOWN: "how it is billed is not known",
}
"""Capacity that is priced on demand for want of its own price."""


def builtin_price(sku: str, place: str, *caveats: str) -> Price | None:
    """The list price, with all that it is not said in its source. None where AWS lists none, or bills otherwise."""
    row = builtin_types().get(sku)
    if row is None or row.usd_per_hour is None or place.startswith("cn-"):
        return None
    elsewhere = f"other region ({place})" if place != BUILTIN_REGION else ""
    source = "; ".join(caveat for caveat in (BUILTIN, elsewhere, *caveats) if caveat)
    return Price(rate_micros=to_micros(row.usd_per_hour), currency="USD", source=source)


def place_of(region: str, zone: str | None) -> str:
    """A zone without its letter is what the Price List calls a region code: us-east-1, or us-west-2-lax-1."""
    return re.sub(r"[a-z]$", "", zone or region)


def to_micros(amount: Decimal) -> int:
    """To the nearest micro-unit, ties to even."""
    return int((amount * MICROS).to_integral_value())
