"""Turns a machine type into the parts Google bills it by, and into what it listed for, by the built-in tables alone: no
call, and no SDK, so that whoever else meets machines of Google Cloud (a Kubernetes node) may price them too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache

from providers import builtin_tables
from providers.price_lists import NOT_ITS_OWN, to_micros
from providers.records import CapacityType, Kind, Price, ResourceRecord

BUILTIN = "builtin {as_of}: us-central1 {how} list price, USD; {what}"
BUILTIN_REGION = "us-central1"
AS_OF = "2024-12-26"
"""Of `machine_prices.csv`."""

LOCAL_SSD = "Local SSD"
"""By the GiB. The one part a machine may be priced without."""
N1_GPUS = frozenset({"K80", "P100", "P4", "T4", "V100"})
"""What can be attached to an N1; each is a part by its own name."""
N1_MEMORY = {"standard": Fraction("3.75"), "highmem": Fraction("6.5"), "highcpu": Fraction("0.9")}
"""GiB for each vCPU."""
N1_MOST = Fraction("6.5")
"""GiB for each vCPU of a custom N1; what is above is extended memory, and dearer."""
N1_AS_OF = "2022-06-24"
N1_RATES: Mapping[str, Decimal] = {
    "N1 vCPU": Decimal("0.031611"),
    "N1 GiB": Decimal("0.004237"),
    "P100": Decimal("1.46"),
    "P4": Decimal("0.6"),
    "T4": Decimal("0.35"),
    "V100": Decimal("2.48"),
}
"""USD an hour on demand in us-central1: GPUs from SkyPilot's catalogue of that day, the rest from OpenCost's defaults
(both Apache-2.0)."""
TPU_VERSIONS = {
    "v5litepod": "TPU v5e",
    "ct5l": "TPU v5e",
    "ct5lp": "TPU v5e",
    "v5p": "TPU v5p",
    "ct5p": "TPU v5p",
    "v6e": "TPU v6e",
    "ct6e": "TPU v6e",
}
"""Those that are billed by the chip."""

Parts = Mapping[str, Fraction]
"""How much of each part a machine has; its rate is the sum of theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineType:
    """A row of the table."""

    parts: Parts
    on_demand: Decimal | None
    spot: Decimal | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What the tables say an hour costs, and when that was."""

    usd: Fraction
    as_of: str
    how: str


def parts_of(record: ResourceRecord) -> Parts | None:
    """What the machine is billed by. None where that is not known for certain."""
    row = machine_types().get(record.sku)
    if row is not None:
        return row.parts
    return _n1(record) or _custom(record) or _tpu(record.sku)


def builtin_price(record: ResourceRecord, *caveats: str) -> Price | None:
    """The list price, with all that it is not said in its source. None where the tables have none."""
    parts = parts_of(record)
    listed = None if parts is None else _spot(record) or _on_demand(record, parts)
    if parts is None or listed is None:
        return None
    region = record.ref.region
    said = (
        BUILTIN.format(as_of=listed.as_of, how=listed.how, what=words_of(parts)),
        f"other region ({region})" if region != BUILTIN_REGION else "",
        "may have moved since" if listed.how == "spot" else NOT_ITS_OWN.get(record.capacity_type, ""),
        fees_of(record),
        *caveats,
    )
    return Price(rate_micros=to_micros(listed.usd), currency="USD", source="; ".join(word for word in said if word))


def words_of(parts: Parts) -> str:
    """What a price is made of."""
    if not any(part.endswith(" vCPU") for part in parts):
        return "by the accelerator, the machine included"
    return "vCPUs, memory, GPUs and bundled Local SSD" if LOCAL_SSD in parts else "vCPUs, memory and GPUs"


def fees_of(record: ResourceRecord) -> str:
    """What Google charges or takes off beside the machine, and no list of machines tells."""
    if record.ref.kind is Kind.NOTEBOOK:
        return "without the management fee"
    sustained = record.sku.startswith(("n1-", "custom-")) and record.capacity_type is CapacityType.ON_DEMAND
    return "before sustained use discounts" if sustained else ""


@cache
def machine_types() -> Mapping[str, MachineType]:
    """The built-in table by type; `machine_prices.csv` says where it is from."""
    return {
        row["sku"]: MachineType(
            parts=_parts(
                {
                    f"{row['series']} vCPU": Fraction(row["vcpus"]) if row["series"] else Fraction(),
                    f"{row['series']} GiB": Fraction(row["memory_gib"]) if row["series"] else Fraction(),
                    row["gpu"]: Fraction(row["gpus"]),
                    LOCAL_SSD: Fraction(row["local_ssd_gib"]),
                }
            ),
            on_demand=Decimal(row["on_demand"]) if row["on_demand"] else None,
            spot=Decimal(row["spot"]) if row["spot"] else None,
        )
        for row in builtin_tables.rows("providers.gcp", "machine_prices.csv")
    }


def _n1(record: ResourceRecord) -> Parts | None:
    """`n1-standard-8` with GPUs attached."""
    found = re.fullmatch(r"n1-(standard|highmem|highcpu)-(\d{1,2})", record.sku)
    gpus = _attached(record, N1_GPUS)
    if found is None or gpus is None:
        return None
    vcpus = Fraction(found[2])
    return _parts({"N1 vCPU": vcpus, "N1 GiB": vcpus * N1_MEMORY[found[1]]} | gpus)


def _custom(record: ResourceRecord) -> Parts | None:
    """`n1-custom-8-30720`, of old `custom-8-30720`, and `-ext` where memory is extended; or `g2-custom-8-32768`."""
    found = re.fullmatch(r"(?:(n1|g2)-)?custom-(\d{1,3})-(\d{3,7})(-ext)?", record.sku)
    if found is None:
        return None
    series = "G2 custom" if found[1] == "g2" else "N1 custom"
    gpus = _attached(record, frozenset({"L4"}) if series == "G2 custom" else N1_GPUS)
    vcpus, gib = Fraction(found[2]), Fraction(int(found[3]), 1024)
    extended = gib - vcpus * N1_MOST if found[4] else Fraction()
    if gpus is None or (found[4] and series == "G2 custom"):
        return None
    extended = max(extended, Fraction())
    own = {f"{series} vCPU": vcpus, f"{series} GiB": gib - extended, f"{series} extended GiB": extended}
    return _parts(own | gpus)


def _attached(record: ResourceRecord, known: frozenset[str]) -> dict[str, Fraction] | None:
    """The GPUs that only the record tells of: whole ones, of which one device may be a part."""
    model = (record.gpu_model or "").upper()
    count = Fraction(record.gpu_count) * Fraction(record.gpu_share).limit_denominator(64)
    return {model: count} if model in known and count > 0 and count.denominator == 1 else None


def _tpu(sku: str) -> Parts | None:
    """`v6e-8` and `ct6e-standard-8t` are eight chips; the number of a v5p counts cores, two on each chip."""
    found = re.fullmatch(r"(v5litepod|v5p|v6e)-(\d{1,5})|(ct5lp?|ct5p|ct6e)-\w+-(\d{1,2})t", sku)
    if found is None:
        return None
    chips = Fraction(found[2] or found[4])
    if found[1] == "v5p":
        chips /= 2
    return _parts({TPU_VERSIONS[found[1] or found[3]]: chips})


def _parts(amounts: Mapping[str, Fraction]) -> Parts:
    return {part: amount for part, amount in amounts.items() if amount}


def _spot(record: ResourceRecord) -> Listed | None:
    row = machine_types().get(record.sku)
    if record.capacity_type is not CapacityType.SPOT or row is None or row.spot is None:
        return None
    return Listed(usd=Fraction(row.spot), as_of=AS_OF, how="spot")


def _on_demand(record: ResourceRecord, parts: Parts) -> Listed | None:
    row = machine_types().get(record.sku)
    if row is not None:
        usd = None if row.on_demand is None else Fraction(row.on_demand)
        return None if usd is None else Listed(usd=usd, as_of=AS_OF, how="on-demand")
    if not parts.keys() <= N1_RATES.keys():
        return None
    usd = sum((amount * Fraction(N1_RATES[part]) for part, amount in parts.items()), Fraction())
    return Listed(usd=usd, as_of=N1_AS_OF, how="on-demand")
