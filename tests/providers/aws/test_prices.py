"""List prices: exact, dated, and honest about where they are only an estimate."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from providers.aws.prices import BuiltinPrices
from providers.aws.translate import builtin_types
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef

SHARED_PRICES = Path(__file__).parents[4] / "shared/data/prices/aws_all_ondemand_us-east-1_2026-07-20.csv"


def a_record(sku: str, *, region: str = "us-east-1", capacity: CapacityType = CapacityType.ON_DEMAND) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(
            provider="aws", account="123456789012", region=region, kind=Kind.INSTANCE, external_id="i-0abc"
        ),
        incarnation="i-0abc",
        name="trainer",
        zone=None,
        sku=sku,
        gpu_vendor="nvidia",
        gpu_model="H100",
        gpu_count=8,
        capacity_type=capacity,
    )


def quoted(record: ResourceRecord) -> Price | None:
    return BuiltinPrices().quote([record]).get(record.ref)


@pytest.mark.parametrize(
    ("sku", "micros"), [("p5.48xlarge", 55_040_000), ("g4ad.2xlarge", 541_170), ("p4d.24xlarge", 21_957_642)]
)
def test_rates_are_exact_micro_units(sku: str, micros: int) -> None:
    price = quoted(a_record(sku))
    assert price == Price(
        rate_micros=micros, currency="USD", source="builtin 2026-07-20: us-east-1 on-demand list price, Linux"
    )


@pytest.mark.parametrize(
    ("record", "caveat"),
    [
        (a_record("p5.48xlarge", region="eu-west-1"), "; other region (eu-west-1)"),
        (a_record("p5.48xlarge", capacity=CapacityType.SPOT), "; upper bound for spot"),
        (a_record("p5.48xlarge", capacity=CapacityType.RESERVED), "; what the reservation costs is not known"),
        (a_record("p5.48xlarge", capacity=CapacityType.CAPACITY_BLOCK), "; what the capacity block cost is not known"),
        (a_record("p5.48xlarge", capacity=CapacityType.UNKNOWN), "; how it is billed is not known"),
    ],
)
def test_an_estimate_says_so(record: ResourceRecord, caveat: str) -> None:
    price = quoted(record)
    assert price is not None
    assert price.source.endswith(caveat)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(a_record("p99.48xlarge"), id="a type of tomorrow"),
        pytest.param(a_record("p5e.48xlarge"), id="a type without a list price"),
        pytest.param(a_record("g4dn.xlarge", region="cn-north-1"), id="a region that bills in yuan"),
    ],
)
def test_what_has_no_price_is_left_out(record: ResourceRecord) -> None:
    assert BuiltinPrices().quote([record]) == {}


@pytest.mark.skipif(not SHARED_PRICES.exists(), reason="needs the shared data beside the project")
def test_the_table_agrees_with_the_published_list() -> None:
    with SHARED_PRICES.open(encoding="utf-8", newline="") as file:
        published = {row["instance_type"]: Decimal(row["on_demand_usd_per_hour"]) for row in csv.DictReader(file)}
    ours = {sku: row.usd_per_hour for sku, row in builtin_types().items()}
    assert ours == {sku: published.get(sku) for sku in ours}
