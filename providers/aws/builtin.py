"""Turns a machine type into what it lists for, by the built-in table alone: no call, and no SDK, so that whoever else
meets machines of AWS (a Kubernetes node) may price them too.
"""

from __future__ import annotations

import re

from providers.aws.translate import builtin_types
from providers.price_lists import to_micros
from providers.records import Price

BUILTIN = "builtin 2026-07-20: us-east-1 on-demand list price, USD, Linux"
BUILTIN_REGION = "us-east-1"


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
