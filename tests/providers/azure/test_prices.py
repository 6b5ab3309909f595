"""Prices of Azure: the right one of a size's many meters, a dated table last, and honest about what each one is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.azure import Config
from providers.azure.builtin import machine_prices
from providers.azure.client import Client
from providers.azure.prices import AzurePrices, read, wanted
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef
from tests.providers.azure.cloud import NO_ANSWER, SUBSCRIPTION, Cloud, Reply
from tests.providers.azure.cloud_refusals import throttled, unavailable

NOW = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers"
T4, H100 = "Standard_NC4as_T4_v3", "Standard_ND96isr_H100_v5"
LISTED = "Azure Retail Prices 2026-01-01: on demand in westeurope, USD; Linux assumed"
BUILTIN = "builtin 2026-06-18: eastus on-demand list price, USD, Linux"


def a_record(
    sku: str = T4,
    *,
    region: str = "westeurope",
    capacity: CapacityType = CapacityType.ON_DEMAND,
    kind: Kind = Kind.INSTANCE,
    path: str = "Microsoft.Compute/virtualMachines/trainer",
) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(
            provider="azure", account=SUBSCRIPTION, region=region, kind=kind, external_id=f"{GROUP}/{path}"
        ),
        incarnation="4242",
        name=path.rpartition("/")[2],
        zone=None,
        sku=sku,
        gpu_vendor="nvidia",
        gpu_model=None,
        gpu_count=1,
        capacity_type=capacity,
    )


@dataclass
class Market:
    """The prices of a source, before the stand-in and on a clock of their own."""

    cloud: Cloud
    prices: AzurePrices
    clock: list[datetime] = field(default_factory=lambda: [NOW])

    def list(self, price: float = 0.644, *, size: str = T4, **fields: Any) -> dict[str, Any]:
        return self.cloud.prices.add(size, price, **fields)

    def later(self, **span: float) -> None:
        self.clock[0] += timedelta(**span)

    def price(self, record: ResourceRecord) -> Price | None:
        return self.prices.quote([record]).get(record.ref)

    def source(self, record: ResourceRecord) -> str:
        price = self.price(record)
        assert price is not None
        return price.source

    def rate(self, record: ResourceRecord) -> int | None:
        price = self.price(record)
        return None if price is None else price.rate_micros

    def asked(self) -> int:
        """How many pages were asked for since the last time."""
        counted = self.cloud.counted["RetailPrices_List"]
        self.cloud.calls.clear()
        return counted


@pytest.fixture
def market(cloud: Cloud) -> Market:
    """A list with nothing in it."""
    cloud.prices.items.clear()
    client = Client(Config(**cloud.settings), secret=lambda _: "a-token", sleep=_at_once)
    clock = [NOW]
    return Market(cloud, AzurePrices(client, source="research-azure", now=lambda: clock[0]), clock)


def _at_once(_seconds: float) -> None:
    """Nobody waits in tests."""


# The right meter.

OTHERS: dict[str, dict[str, Any]] = {
    "Windows": {"windows": True},
    "Low Priority": {"how": "Low Priority"},
    "a reservation": {"term": "3 Years"},
    "DevTest": {"type": "DevTestConsumption"},
    "Cloud Services": {"productName": "Virtual Machines NCASv3_T4 Series CloudServices"},
    "Cloud Services in two words": {"productName": "NCASv3_T4 Series Cloud Services"},
    "a dedicated host": {"productName": "NCASv3_T4 Series Dedicated Host"},
    "one that has expired": {"meterName": "NC4as T4 v3 - Expired"},
    "another service": {"serviceName": "Azure Machine Learning"},
    "another unit": {"unitOfMeasure": "100 Hours"},
    "another currency": {"currencyCode": "EUR"},
    "another region": {"region": "northeurope"},
    "nothing": {"price": 0.0},
    "more than can be stored": {"price": 1e300},
    "a price ahead": {"since": "2026-12-01T00:00:00Z"},
    "a price that has ended": {"since": "2026-10-01T00:00:00Z", "effectiveEndDate": "2026-11-16T09:00:00Z"},
    "one for reference only": {"isPrimaryMeterRegion": False, "since": "2026-05-01T00:00:00Z"},
    "what it cost before": {"since": "2025-05-01T00:00:00Z"},
    "spot": {"how": "Spot"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_machine_costs_what_its_own_meter_says(market: Market, other: str) -> None:
    market.list(**{"price": 0.1, **OTHERS[other]})
    market.list(0.644)
    market.list(**{"price": 0.2, **OTHERS[other]})

    assert market.price(a_record()) == Price(rate_micros=644_000, currency="USD", source=LISTED)


@pytest.mark.parametrize("other", OTHERS)
def test_no_other_meter_is_taken_for_it(market: Market, other: str) -> None:
    if other in ("what it cost before", "one for reference only"):
        return  # better than none, where there is no other
    market.list(**{"price": 0.1, **OTHERS[other]})

    assert market.rate(a_record()) == 526_000


def test_a_spot_machine_costs_what_its_spot_meter_says(market: Market) -> None:
    market.list(0.644)
    market.list(0.2254, how="Spot", since="2026-11-01T00:00:00Z")
    market.list(0.3156, how="Spot", windows=True)

    price = market.price(a_record(capacity=CapacityType.SPOT))

    assert price == Price(
        rate_micros=225_400,
        currency="USD",
        source="Azure Retail Prices 2026-11-01: spot in westeurope, USD; Linux assumed",
    )


def test_a_price_ahead_counts_from_its_day(market: Market) -> None:
    market.list(0.644)
    market.list(0.7, since="2026-11-17T00:00:00Z")

    assert market.rate(a_record()) == 644_000
    market.later(hours=15)
    assert market.rate(a_record()) == 700_000


def test_two_different_prices_are_none(market: Market) -> None:
    market.list(0.644)
    market.list(0.65)

    why = "Azure Retail Prices has two on-demand prices of it for westeurope"
    assert market.source(a_record()) == f"{BUILTIN}; other region (westeurope); {why}"


def test_the_same_price_twice_is_one(market: Market) -> None:
    market.list(0.644)
    market.list(0.644)

    assert market.rate(a_record()) == 644_000


@pytest.mark.parametrize("spelled", ["standard_nc4as_t4_v3", "STANDARD_NC4AS_T4_V3", T4])
def test_a_size_is_asked_for_as_azure_spells_it(market: Market, spelled: str) -> None:
    market.list(0.644)

    assert market.rate(a_record(spelled)) == 644_000


ALIKE = {
    "an instance of a scale set": a_record(path="Microsoft.Compute/virtualMachineScaleSets/workers/virtualMachines/0"),
    "a compute of Azure Machine Learning": a_record(
        "STANDARD_NC4AS_T4_V3",
        kind=Kind.NOTEBOOK,
        path="Microsoft.MachineLearningServices/workspaces/lab/computes/ada",
    ),
}


@pytest.mark.parametrize("what", ALIKE)
def test_whatever_is_a_machine_costs_what_machines_of_its_size_cost(market: Market, what: str) -> None:
    market.list(0.644)

    assert market.price(ALIKE[what]) == Price(rate_micros=644_000, currency="USD", source=LISTED)


def test_a_group_costs_what_its_members_cost(market: Market) -> None:
    market.list(0.644)
    group = a_record(kind=Kind.NODE_GROUP, path="Microsoft.Compute/virtualMachineScaleSets/workers")

    assert market.prices.quote([group]) == {}
    assert market.asked() == 0


# What a price is not, it says.

CAVEATS = {
    CapacityType.SPOT: "upper bound for spot; Azure Retail Prices has no spot price of it for westeurope",
    CapacityType.RESERVED: "what the reservation costs is not known",
    CapacityType.UNKNOWN: "how it is billed is not known",
}


@pytest.mark.parametrize("capacity", CAVEATS)
def test_capacity_without_its_own_price_gets_the_on_demand_one(market: Market, capacity: CapacityType) -> None:
    market.list(0.644)

    price = market.price(a_record(capacity=capacity))

    assert price == Price(rate_micros=644_000, currency="USD", source=f"{LISTED}; {CAVEATS[capacity]}")


def test_what_is_listed_as_spot_only_has_the_built_in_price(market: Market) -> None:
    market.list(0.2254, how="Spot")

    why = "Azure Retail Prices has no on-demand price of it for westeurope"
    assert market.source(a_record()) == f"{BUILTIN}; other region (westeurope); {why}"


def test_what_nobody_lists_has_no_price(market: Market) -> None:
    assert market.price(a_record("Standard_D4s_v5")) is None


def test_china_is_not_asked_about(market: Market) -> None:
    market.list(0.644, region="chinaeast2")

    assert market.price(a_record(region="chinaeast2")) is None
    assert market.asked() == 0


def test_the_built_in_table_is_of_one_region(market: Market) -> None:
    assert market.price(a_record(region="eastus")) == Price(
        rate_micros=526_000,
        currency="USD",
        source=f"{BUILTIN}; Azure Retail Prices has none of it for eastus",
    )
    assert market.source(a_record("Standard_NC8ads_A10_v4", region="southcentralus")).startswith(
        "builtin 2026-06-18: southcentralus on-demand list price, USD, Linux; Azure"
    )


# Asked for seldom, and for what is in use.


def test_only_what_is_in_use_is_asked_for(market: Market) -> None:
    market.prices.quote([a_record(), a_record(H100), a_record(region="eastus"), a_record(capacity=CapacityType.SPOT)])

    asked = sorted(call.query["$filter"] for call in market.cloud.calls)
    start = "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq"
    assert asked == [
        f"{start} 'eastus' and (armSkuName eq '{T4}')",
        f"{start} 'westeurope' and (armSkuName eq '{T4}' or armSkuName eq '{H100}')",
    ]
    assert {call.query["currencyCode"] for call in market.cloud.calls} == {"'USD'"}


def test_sizes_are_asked_for_fifteen_at_a_time(market: Market) -> None:
    sizes = [row.sku for row in machine_prices().values()][:40]
    for number, size in enumerate(sizes, 1):
        market.list(number, size=size)

    quoted = market.prices.quote([a_record(size, path=f"Microsoft.Compute/virtualMachines/{size}") for size in sizes])

    assert sorted(price.rate_micros for price in quoted.values()) == [n * 1_000_000 for n in range(1, 41)]
    assert market.asked() == 3


def test_all_pages_are_read(market: Market) -> None:
    market.cloud.prices.most_per_page = 1
    market.list(0.2, windows=True)
    market.list(0.3, how="Spot")
    market.list(0.644)

    assert market.rate(a_record()) == 644_000
    assert market.asked() == 3


def test_answers_are_remembered_for_half_a_day(market: Market) -> None:
    market.list(0.644)
    market.rate(a_record())
    market.later(hours=11, minutes=59)
    market.rate(a_record())
    market.rate(a_record(capacity=CapacityType.SPOT))

    assert market.asked() == 1
    market.later(minutes=1)
    market.rate(a_record())
    assert market.asked() == 1


def test_that_there_is_none_is_remembered_too(market: Market) -> None:
    market.price(a_record("Standard_D4s_v5"))
    market.price(a_record("Standard_D4s_v5"))

    assert market.asked() == 1


# What goes wrong.

ODD = {
    "no list of items": {"Count": 0},
    "items that are no list": {"Items": 3},
    "an item without a price": {"Items": [{"productName": "x", "skuName": "x", "meterName": "x"}]},
    "an item with a word for a price": "retailPrice",
    "an item with a word for a date": "effectiveStartDate",
}


def odd(market: Market, what: str) -> Reply:
    told = ODD[what]
    body = told if isinstance(told, dict) else {"Items": [{**market.list(), str(told): "many"}]}
    return Reply(status=200, body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


FAULTS: dict[str, tuple[Callable[[], Reply], str]] = {
    "no answer": (lambda: NO_ANSWER, "Unreachable"),
    "a busy server": (lambda: unavailable().reply, "Unreachable"),
    "too many questions": (lambda: throttled(SUBSCRIPTION, retry_after=None).reply, "Throttled"),
    "not json": (lambda: Reply(status=200, body=b"<html>"), "Unreachable"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_list_that_fails_is_no_reason_to_have_no_price(market: Market, fault: str) -> None:
    reply, code = FAULTS[fault]
    market.cloud.refuse("RetailPrices_List", reply())

    why = f"Azure Retail Prices did not answer ({code})"
    assert market.source(a_record()) == f"{BUILTIN}; other region (westeurope); {why}"


@pytest.mark.parametrize("what", ODD)
def test_a_list_that_cannot_be_read_has_failed(market: Market, what: str) -> None:
    market.cloud.refuse("RetailPrices_List", odd(market, what))

    assert market.source(a_record()).endswith("Azure Retail Prices did not answer (Unreachable)")


def test_earlier_answers_stand_for_a_week(market: Market) -> None:
    market.list(0.644)
    market.rate(a_record())
    market.cloud.refuse("RetailPrices_List", NO_ANSWER)
    for _ in range(13):
        market.later(hours=12)
        assert market.rate(a_record()) == 644_000
    market.later(hours=12)
    assert market.rate(a_record()) == 526_000


def test_a_list_that_failed_is_asked_again_after_ten_minutes(market: Market) -> None:
    market.list(0.644)
    market.cloud.refuse("RetailPrices_List", NO_ANSWER, times=2)

    assert market.rate(a_record()) == 526_000
    market.later(minutes=9)
    assert market.rate(a_record()) == 526_000
    market.later(minutes=1)
    assert market.rate(a_record()) == 644_000


def test_a_region_that_fails_sinks_no_other(market: Market) -> None:
    market.list(0.644)
    market.list(0.526, region="eastus")
    market.cloud.rules.append(lambda call: NO_ANSWER if "'eastus'" in call.query.get("$filter", "") else None)
    here, there = a_record(), a_record(region="eastus")

    quoted = market.prices.quote([here, there])

    assert quoted[here.ref].source == LISTED
    assert quoted[there.ref].source == f"{BUILTIN}; Azure Retail Prices did not answer (Unreachable)"


# Every amount, every name.


@given(st.decimals(min_value="0.000001", max_value="1000", places=6))
def test_a_price_is_exact_to_the_micro_unit(amount: Decimal) -> None:
    meter = read({**METER, "retailPrice": json.loads(str(amount))})
    assert meter is not None
    assert Decimal(meter.rate.micros) == amount * 1_000_000


@given(st.text(min_size=1, max_size=20))
def test_no_name_breaks_out_of_the_filter(name: str) -> None:
    asked = wanted("westeurope", [name])
    assert asked.endswith(f"and (armSkuName eq '{name.replace(chr(39), chr(39) * 2)}')")


METER: dict[str, Any] = {
    "currencyCode": "USD",
    "retailPrice": 0.644,
    "armRegionName": "westeurope",
    "effectiveStartDate": "2026-01-01T00:00:00Z",
    "meterName": "NC4as T4 v3",
    "productName": "Virtual Machines NCASv3_T4 Series",
    "skuName": "NC4as T4 v3",
    "serviceName": "Virtual Machines",
    "unitOfMeasure": "1 Hour",
    "type": "Consumption",
    "armSkuName": T4,
}
