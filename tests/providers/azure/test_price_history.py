"""Azure's real list prices of three years price a fleet at past dates, by way of the price file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path

import duckdb
import pytest

from providers.azure.builtin import builtin_price, machine_prices
from providers.price_lists import to_micros
from providers.records import CapacityType, Kind, ResourceRecord, ResourceRef
from service.pipeline.decide import decide
from service.pipeline.price import FilePrice, PriceFile, price_of
from tests.pipeline.builders import known, world
from tests.real_data import REAL_DATA, needs

HISTORY = "prices/azure_gpu_ondemand_history_all_regions.csv"
NEWEST = "prices/azure_gpu_ondemand_2026-06-18.csv"
pytestmark = needs(HISTORY, NEWEST)

DAYS = [
    date(2023, 11, 1),
    date(2024, 2, 29),
    date(2024, 12, 13),
    date(2025, 6, 2),
    date(2026, 4, 2),
    date(2026, 11, 22),
]
REGIONS = ("eastus", "westus2", "southcentralus", "westeurope", "swedencentral", "japaneast")
MICRO = Decimal("0.000001")

Sort = tuple[str, str]
"""(size, region)"""


@cache
def history() -> Mapping[Sort, Sequence[tuple[date, int]]]:
    """Every change of every price, from the first day it was seen on."""
    changes: dict[Sort, list[tuple[date, int]]] = {}
    for size, region, day, price in listed("generated_at ASC"):
        known_ = changes.setdefault((size, region), [])
        if not known_ or known_[-1][1] != price:
            known_.append((day, price))
    return changes


def listed(order: str, *, until: date = date.max) -> Sequence[tuple[str, str, date, int]]:
    """(size, region, day, micro-units) of all lists of the file."""
    rows = duckdb.execute(
        f"""SELECT vm_size, region, CAST(generated_at AS TIMESTAMP)::date AS day, on_demand_usd_per_hour
        FROM read_csv('{REAL_DATA / HISTORY}', all_varchar=true) WHERE day <= ? ORDER BY {order}, vm_size, region""",
        [until],
    ).fetchall()
    return [(size, region, day, to_micros(Decimal(price))) for size, region, day, price in rows]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> PriceFile:
    """The history as a person would write it down."""
    lines = [
        f"- {{provider: azure, sku: {size}, region: {region}, hourly: {Decimal(price) * MICRO}, "
        f"as_of: 2026-06-18, from: {day}}}\n"
        for (size, region), changes in history().items()
        if region in REGIONS
        for day, price in changes
    ]
    path: Path = tmp_path_factory.mktemp("prices") / "azure.yaml"
    path.write_text("".join(reversed(lines)))
    return PriceFile.read(path)


def a_record(sort: Sort) -> ResourceRecord:
    size, region = sort
    name = f"{size}-{region}".lower().replace("_", "-")
    group = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/research"
    return ResourceRecord(
        ref=ResourceRef(
            provider="azure",
            account="11111111-1111-1111-1111-111111111111",
            region=region,
            kind=Kind.INSTANCE,
            external_id=f"{group}/providers/Microsoft.Compute/virtualMachines/{name}",
        ),
        incarnation=name,
        name=name,
        zone=None,
        sku=size,
        gpu_vendor="nvidia",
        gpu_model=None,
        gpu_count=1,
        capacity_type=CapacityType.ON_DEMAND,
    )


FLEET = tuple((row.sku, region) for row in machine_prices().values() for region in REGIONS)
"""One machine of every size that there is now, everywhere; some of them were not sold in those days."""


def listed_on(day: date) -> Mapping[Sort, int]:
    """What Azure listed that day: of each price the newest by then."""
    newest: dict[Sort, int] = {}
    for size, region, _, price in listed("generated_at DESC", until=day):
        newest.setdefault((size, region), price)
    return newest


def priced_on(day: date, file: PriceFile) -> Mapping[Sort, int]:
    prices = {sort: price_of(a_record(sort), file, {}, on=day) for sort in FLEET}
    return {sort: price.rate_micros for sort, price in prices.items() if price is not None}


@pytest.mark.parametrize("day", DAYS, ids=str)
def test_a_fleet_costs_what_azure_listed_on_the_day(file: PriceFile, day: date) -> None:
    then = {sort: price for sort, price in listed_on(day).items() if sort in FLEET}

    assert priced_on(day, file) == then
    assert len(then) > 150


def test_what_was_not_sold_yet_had_no_price(file: PriceFile) -> None:
    assert priced_on(date(2023, 10, 26), file) == {}
    sold = {size for size, _ in priced_on(date(2024, 12, 12), file)}
    assert "Standard_ND96isr_H100_v5" in sold
    assert "Standard_ND96isr_H200_v5" not in sold


def test_the_same_world_ruled_on_another_day_costs_what_it_cost_then(file: PriceFile) -> None:
    """The live cycle's own code, with nothing changed but the time."""
    machines = [known(f"m-{number}", record=a_record(sort), price=None) for number, sort in enumerate(FLEET)]
    for day in DAYS[::2]:
        then = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        ruled = decide(world(*machines, prices=file, quotes={}), then).resources
        prices = listed_on(day)

        assert {one.record.ref: one.price.rate_micros for one in ruled if one.price is not None} == {
            a_record(sort).ref: prices[sort] for sort in FLEET if sort in prices
        }


def test_every_price_ever_listed_is_found_on_its_day_in_every_region() -> None:
    some = [sort for number, sort in enumerate(sorted(history())) if number % 5 == 0]
    file = PriceFile(
        [
            FilePrice.model_validate(
                {"sku": size, "region": region, "hourly": str(Decimal(price) * MICRO), "as_of": day, "from": day}
            )
            for size, region in some
            for day, price in history()[size, region]
        ]
    )

    assert len({region for _, region in some}) > 40
    for sort in some:
        for day, price in history()[sort]:
            quoted = file.quote(a_record(sort), day)
            assert quoted is not None
            assert quoted.rate_micros == price


def test_the_built_in_table_is_the_newest_list() -> None:
    newest = {sort: price for sort, price in listed_on(date.max).items() if not sort[0].endswith("_Promo")}
    sold_now = {size for size, _, day, _ in listed("generated_at DESC") if day == date(2026, 6, 18)}
    prices = {(row.sku, row.region): builtin_price(row.sku, row.region) for row in machine_prices().values()}

    assert {sort: price.rate_micros for sort, price in prices.items() if price is not None} == {
        sort: newest[sort] for sort in prices
    }
    assert {size for size in sold_now if not size.endswith("_Promo")} == {size for size, _ in prices}
