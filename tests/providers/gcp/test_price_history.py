"""Google's real list prices of three years price a fleet at past dates, by way of the price file."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path

import duckdb
import pytest

from providers.gcp.builtin import BUILTIN_REGION, N1_RATES, builtin_price, machine_types
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef
from service.pipeline.decide import decide
from service.pipeline.price import FilePrice, PriceFile, price_of
from tests.pipeline.builders import known, world
from tests.real_data import REAL_DATA, needs

HISTORY = "prices/gcp_gpu_price_history.parquet"
SKYPILOT = "prices/gcp_accel_ondemand_spot_skypilot_2022-06-24.csv"
OPENCOST = "prices/opencost_defaults/gcp.json"
pytestmark = needs(HISTORY, SKYPILOT, OPENCOST)

DAYS = [date(2022, 2, 10), date(2022, 9, 11), date(2023, 4, 24), date(2024, 2, 29), date(2024, 9, 19), date(2025, 6, 1)]
NOT_WHOLE = "a3-megagpu-8g"
"""The history sums its vCPUs and memory, and leaves its GPUs out."""
MICRO = Decimal("0.000001")

Sort = tuple[str, str, CapacityType]
"""(machine type, region, how it is bought)"""


def micros(price: float) -> int:
    """The history has floats that were sums; a price file has six decimals."""
    return int(Decimal(repr(price)).quantize(MICRO, ROUND_HALF_EVEN) * 1_000_000)


@cache
def history() -> Mapping[Sort, Sequence[tuple[date, int]]]:
    """Every change of every price, from the first day it was seen on."""
    changes: dict[Sort, list[tuple[date, int]]] = {}
    rows = duckdb.execute(
        f"""SELECT machine_type, region, CAST(catalog_commit_time AT TIME ZONE 'UTC' AS date), hour, hour_spot
        FROM '{REAL_DATA / HISTORY}' WHERE machine_type != '{NOT_WHOLE}' ORDER BY catalog_commit_time"""
    ).fetchall()
    for sku, region, day, on_demand, spot in rows:
        for capacity, price in ((CapacityType.ON_DEMAND, on_demand), (CapacityType.SPOT, spot)):
            if price is not None:
                known_ = changes.setdefault((sku, region, capacity), [])
                if not known_ or known_[-1][1] != micros(price):
                    known_.append((day, micros(price)))
    return changes


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> PriceFile:
    """The history as a person would write it down."""
    lines = [
        f"- {{provider: gcp, sku: {sku}, region: {region}, capacity_type: {capacity}, "
        f"hourly: {Decimal(price) * MICRO}, as_of: 2024-12-26, from: {day}}}\n"
        for (sku, region, capacity), changes in history().items()
        if region in REGIONS
        for day, price in changes
    ]
    path: Path = tmp_path_factory.mktemp("prices") / "google.yaml"
    path.write_text("".join(reversed(lines)))
    return PriceFile.read(path)


REGIONS = ("us-central1", "us-east4", "europe-west4", "asia-southeast1", "southamerica-east1")


def a_record(sort: Sort) -> ResourceRecord:
    sku, region, capacity = sort
    name = f"{sku}-{capacity.value.replace('_', '-')}"
    return ResourceRecord(
        ref=ResourceRef(
            provider="gcp",
            account="research",
            region=region,
            kind=Kind.INSTANCE,
            external_id=f"projects/research/zones/{region}-a/instances/{name}",
        ),
        incarnation=name,
        name=name,
        zone=f"{region}-a",
        sku=sku,
        gpu_vendor="nvidia",
        gpu_model=None,
        gpu_count=1,
        capacity_type=capacity,
    )


FLEET = tuple(
    (sku, region, capacity)
    for sku in sorted({*machine_types()} - {NOT_WHOLE})
    for region in REGIONS
    for capacity in (CapacityType.ON_DEMAND, CapacityType.SPOT)
)
"""One machine of every sort that there is now; some of them were not sold in those days."""


def listed_on(day: date) -> Mapping[Sort, int]:
    """What Google listed that day: of each price the newest by then, told by DuckDB."""
    rows = duckdb.execute(
        f"""SELECT machine_type, region, arg_max(hour, catalog_commit_time), arg_max(hour_spot, catalog_commit_time)
        FROM '{REAL_DATA / HISTORY}' WHERE CAST(catalog_commit_time AT TIME ZONE 'UTC' AS date) <= ?
        AND machine_type != '{NOT_WHOLE}' GROUP BY ALL""",
        [day],
    ).fetchall()
    return {
        (sku, region, capacity): micros(price)
        for sku, region, on_demand, spot in rows
        for capacity, price in ((CapacityType.ON_DEMAND, on_demand), (CapacityType.SPOT, spot))
        if price is not None
    }


def priced_on(day: date, file: PriceFile) -> Mapping[Sort, int]:
    prices = {sort: price_of(a_record(sort), file, {}, on=day) for sort in FLEET}
    return {sort: price.rate_micros for sort, price in prices.items() if price is not None}


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_a_fleet_costs_what_google_listed_on_the_day(file: PriceFile, day: date) -> None:
    listed = {sort: price for sort, price in listed_on(day).items() if sort in FLEET}
    priced = priced_on(day, file)

    assert priced == listed
    assert sum(priced.values()) == sum(listed.values()) > 0


def test_what_was_not_sold_yet_had_no_price(file: PriceFile) -> None:
    assert priced_on(date(2022, 2, 8), file) == {}
    assert {sku for sku, _, _ in priced_on(date(2023, 4, 23), file)} == {
        "a2-highgpu-1g", "a2-highgpu-2g", "a2-highgpu-4g", "a2-highgpu-8g", "a2-megagpu-16g",
        "a2-ultragpu-1g", "a2-ultragpu-2g", "a2-ultragpu-4g", "a2-ultragpu-8g",
    }  # fmt: skip


def test_the_same_world_ruled_on_another_day_costs_what_it_cost_then(file: PriceFile) -> None:
    """The live cycle's own code, with nothing changed but the time."""
    machines = [known(f"m-{number}", record=a_record(sort), price=None) for number, sort in enumerate(FLEET)]
    for day in DAYS[1::2]:
        then = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        ruled = decide(world(*machines, prices=file, quotes={}), then).resources
        listed = listed_on(day)

        assert {one.record.ref: one.price.rate_micros for one in ruled if one.price is not None} == {
            a_record(sort).ref: listed[sort] for sort in FLEET if sort in listed
        }


def test_every_price_ever_listed_is_found_on_its_day_in_every_region() -> None:
    some = [sort for number, sort in enumerate(sorted(history())) if number % 9 == 0]
    entries = [
        FilePrice.model_validate(
            {
                "sku": sku,
                "region": region,
                "capacity_type": capacity,
                "hourly": str(Decimal(price) * MICRO),
                "as_of": day,
                "from": day,
            }
        )
        for sku, region, capacity in some
        for day, price in history()[sku, region, capacity]
    ]
    file = PriceFile(entries)

    assert len({region for _, region, _ in some}) > 30
    for sort in some:
        for day, price in history()[sort]:
            quoted = file.quote(a_record(sort), day)
            assert quoted is not None
            assert quoted.rate_micros == price


def test_the_built_in_table_is_the_newest_of_the_history() -> None:
    newest = {sort: changes[-1][1] for sort, changes in history().items() if sort[1] == BUILTIN_REGION}
    builtin = {
        sort: price.rate_micros
        for sku in machine_types()
        for sort in [(sku, BUILTIN_REGION, CapacityType.ON_DEMAND), (sku, BUILTIN_REGION, CapacityType.SPOT)]
        if (price := builtin_price(a_record(sort))) is not None
    }

    assert builtin == newest


def test_an_n1_in_the_table_is_made_of_what_others_list() -> None:
    rows = csv.DictReader((REAL_DATA / SKYPILOT).read_text().splitlines())
    gpus = {
        row["AcceleratorName"]: Decimal(row["Price"])
        for row in rows
        if row["Region"] == BUILTIN_REGION and row["AcceleratorCount"] == "1"
    }
    defaults = json.loads((REAL_DATA / OPENCOST).read_text())
    listed = gpus | {"N1 vCPU": Decimal(defaults["CPU"]), "N1 GiB": Decimal(defaults["RAM"])}

    assert {part: listed[part] for part in N1_RATES} == N1_RATES
