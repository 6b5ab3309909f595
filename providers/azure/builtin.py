"""Turns a VM size into what it lists for, by the built-in table alone: no call, and no SDK, so that whoever else meets
machines of Azure (a Kubernetes node) may price them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from providers import builtin_tables
from providers.price_lists import to_micros
from providers.records import Price

BUILTIN = "builtin 2026-06-18: {region} on-demand list price, USD, Linux"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A row of the table."""

    sku: str
    region: str
    usd_per_hour: Decimal


def builtin_price(sku: str, region: str, *caveats: str) -> Price | None:
    """The list price, with all that it is not said in its source. None where Azure lists none, or bills otherwise."""
    row = machine_prices().get(sku.lower())
    if row is None or region.startswith("china"):
        return None
    elsewhere = f"other region ({region})" if region != row.region else ""
    said = (BUILTIN.format(region=row.region), elsewhere, *caveats)
    source = "; ".join(word for word in said if word)
    return Price(rate_micros=to_micros(row.usd_per_hour), currency="USD", source=source)


def spelled(sku: str) -> str:
    """As Azure's lists write it; case counts there, and not where machines are made."""
    row = machine_prices().get(sku.lower())
    return row.sku if row is not None else sku


@cache
def machine_prices() -> Mapping[str, Listed]:
    """The built-in table by size in lower case; `machine_prices.csv` says where it is from."""
    return {
        row["sku"].lower(): Listed(sku=row["sku"], region=row["region"], usd_per_hour=Decimal(row["usd_per_hour"]))
        for row in builtin_tables.rows("providers.azure", "machine_prices.csv")
    }
