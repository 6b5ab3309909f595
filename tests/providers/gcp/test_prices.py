"""Prices of Google Cloud: the catalogue's parts summed, a dated table last, and honest about what each one is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import BuildContext
from providers.gcp import Config, build
from providers.gcp.builtin import machine_types, parts_of
from providers.gcp.client import Client
from providers.gcp.prices import BODIES, GcpPrices, meant, read
from providers.questions import Questions
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Reply, answer
from tests.providers.gcp.cloud_billing import Billing
from tests.providers.gcp.cloud_refusals import forbidden, rate_limited, service_disabled, unavailable
from tests.real_data import REAL_DATA, needs
from tests.waiting import soon

REAL_SKUS = "prices/opencost_defaults/skus.json"

NOW = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
LISTED = "Cloud Billing Catalog 2026-11-16: on demand in us-central1, USD; vCPUs, memory and GPUs"
SPOT_LISTED = "Cloud Billing Catalog 2026-11-16: spot in us-central1, USD; vCPUs, memory and GPUs"
BUILTIN = "builtin 2024-12-26: us-central1 on-demand list price, USD; vCPUs, memory and GPUs"


def a_record(
    sku: str = "a2-highgpu-1g",
    *,
    gpu: str = "A100",
    gpus: int = 1,
    share: float = 1.0,
    region: str = "us-central1",
    capacity: CapacityType = CapacityType.ON_DEMAND,
    name: str = "trainer",
    kind: Kind = Kind.INSTANCE,
) -> ResourceRecord:
    external_id = f"projects/research/zones/{region}-a/instances/{name}"
    return ResourceRecord(
        ref=ResourceRef(provider="gcp", account="research", region=region, kind=kind, external_id=external_id),
        incarnation="4242",
        name=name,
        zone=f"{region}-a",
        sku=sku,
        gpu_vendor="nvidia",
        gpu_model=gpu,
        gpu_count=gpus,
        gpu_share=share,
        capacity_type=capacity,
    )


def a_spot_record(sku: str = "a2-highgpu-1g", **fields: Any) -> ResourceRecord:
    return a_record(sku, capacity=CapacityType.SPOT, **fields)


def an_n1(sku: str = "n1-standard-8", *, gpu: str = "T4", **fields: Any) -> ResourceRecord:
    return a_record(sku, gpu=gpu, **fields)


@dataclass
class Market:
    """The prices of a source, before the stand-in and on a clock of their own."""

    cloud: Cloud
    billing: Billing
    prices: GcpPrices
    clock: list[datetime] = field(default_factory=lambda: [NOW])

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
        """How many pages of the catalogue were asked for since the last time."""
        counted = self.cloud.counted["cloudbilling.services.skus.list"]
        self.cloud.calls.clear()
        return counted


@pytest.fixture
def market(cloud: Cloud) -> Market:
    """A catalogue with nothing in it."""
    client = Client(Config(projects=("research",), credentials="anonymous", endpoint=cloud.endpoint), sleep=_at_once)
    clock = [NOW]
    cloud.most_per_page = 5000
    return Market(cloud, cloud.billing, GcpPrices(client, source="research-gcp", now=lambda: clock[0]), clock)


def _at_once(_seconds: float) -> None:
    """Nobody waits in tests."""


def list_a2(market: Market, **fields: Any) -> None:
    """What Google lists for an A2 with the smaller A100, on demand."""
    market.billing.list("A2 Instance Core running in Americas", "0.031611", **fields)
    market.billing.list("A2 Instance Ram running in Americas", "0.004237", **fields)
    market.billing.list("Nvidia Tesla A100 GPU running in Americas", "2.933908", **fields)


def list_spot_a2(market: Market, **fields: Any) -> None:
    market.billing.list("Spot Preemptible A2 Instance Core running in Americas", "0.01659", **fields)
    market.billing.list("Spot Preemptible A2 Instance Ram running in Americas", "0.00222", **fields)
    market.billing.list(
        "Nvidia Tesla A100 GPU attached to Spot Preemptible VMs running in Americas", "1.5399", **fields
    )


def list_n1(market: Market) -> None:
    for text, price in (
        ("N1 Predefined Instance Core", "0.031611"),
        ("N1 Predefined Instance Ram", "0.004237"),
        ("Custom Instance Core", "0.033174"),
        ("Custom Instance Ram", "0.004446"),
        ("Custom Extended Instance Ram", "0.009550"),
        ("Nvidia Tesla T4 GPU", "0.35"),
        ("Nvidia Tesla V100 GPU", "2.48"),
    ):
        market.billing.list(f"{text} running in Americas", price)


# What a machine is made of.


def test_a_machine_costs_its_vcpus_its_memory_and_its_gpus(market: Market) -> None:
    list_a2(market)

    assert market.price(a_record()) == Price(rate_micros=3_673_385, currency="USD", source=LISTED)
    assert market.rate(a_record("a2-megagpu-16g", gpus=16)) == 55_739_504


MADE_OF = {
    "a GPU on a predefined N1": (an_n1("n1-standard-8"), {"N1 vCPU": 8, "N1 GiB": 30, "T4": 1}),
    "several": (an_n1("n1-highmem-16", gpu="V100", gpus=4), {"N1 vCPU": 16, "N1 GiB": 104, "V100": 4}),
    "little memory": (an_n1("n1-highcpu-2"), {"N1 vCPU": 2, "N1 GiB": Fraction("1.8"), "T4": 1}),
    "an N1 to measure": (an_n1("n1-custom-8-30720"), {"N1 custom vCPU": 8, "N1 custom GiB": 30, "T4": 1}),
    "one by its old name": (an_n1("custom-8-30720"), {"N1 custom vCPU": 8, "N1 custom GiB": 30, "T4": 1}),
    "one with extended memory": (
        an_n1("n1-custom-4-40960-ext"),
        {"N1 custom vCPU": 4, "N1 custom GiB": 26, "N1 custom extended GiB": 14, "T4": 1},
    ),
    "one that could have more, and has not": (
        an_n1("n1-custom-8-30720-ext"),
        {"N1 custom vCPU": 8, "N1 custom GiB": 30, "T4": 1},
    ),
    "time slices of a whole GPU": (
        an_n1(gpus=4, share=0.25),
        {"N1 vCPU": 8, "N1 GiB": 30, "T4": 1},
    ),
    "a G2 to measure": (
        a_record("g2-custom-8-40960", gpu="L4"),
        {"G2 custom vCPU": 8, "G2 custom GiB": 40, "L4": 1},
    ),
    "an A2 that comes with Local SSD": (
        a_record("a2-ultragpu-1g", gpu="A100-80GB"),
        {"A2 vCPU": 12, "A2 GiB": 170, "A100 80GB": 1, "Local SSD": 375},
    ),
    "an A3 Mega": (
        a_record("a3-megagpu-8g", gpu="H100", gpus=8),
        {"A3 Mega vCPU": 208, "A3 Mega GiB": 1872, "H100 Mega": 8, "Local SSD": 6000},
    ),
    "an A4, which is billed by the slice": (a_record("a4-highgpu-8g", gpu="B200", gpus=8), {"B200 slice": 8}),
    "a TPU, by the chip": (a_record("v5litepod-16", gpu="TPU v5e"), {"TPU v5e": 16}),
    "a TPU whose number counts cores": (a_record("v5p-8", gpu="TPU v5p"), {"TPU v5p": 4}),
    "a TPU by its machine type": (a_record("ct6e-standard-8t", gpu="TPU v6e"), {"TPU v6e": 8}),
}


@pytest.mark.parametrize(("record", "parts"), MADE_OF.values(), ids=MADE_OF)
def test_what_is_known_of_a_machine_type_is_exact(record: ResourceRecord, parts: dict[str, Fraction]) -> None:
    assert parts_of(record) == parts


NOT_KNOWN = {
    "a type of tomorrow": a_record("a9-highgpu-1g"),
    "a part of a GPU, of which it is not known how it is billed": a_record("g4-standard-6", gpu="RTX PRO 6000"),
    "a superchip that has no list price": a_record("a4x-highgpu-4g", gpu="GB200", gpus=4),
    "an N1 with a GPU of tomorrow": an_n1(gpu="T5"),
    "an N1 whose GPU is not known": an_n1(gpu=""),
    "an N1 without GPUs": an_n1(gpus=0),
    "an N1 with half a GPU": an_n1(gpus=1, share=0.5),
    "an N1 of a shape that does not exist": an_n1("n1-ultramem-40"),
    "another series with a GPU": a_record("n2-standard-8", gpu="T4"),
    "a G2 with extended memory": a_record("g2-custom-8-40960-ext", gpu="L4"),
    "a TPU that another service bills": a_record("v4-8", gpu="TPU v4"),
    "nothing": a_record(""),
}


@pytest.mark.parametrize("record", NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_what_is_not_known_for_certain_has_no_price(market: Market, record: ResourceRecord) -> None:
    list_a2(market)
    list_n1(market)

    assert market.price(record) is None


@pytest.mark.parametrize(
    ("record", "micros"),
    [
        (an_n1("n1-standard-8"), 8 * 31_611 + 30 * 4_237 + 350_000),
        (an_n1("n1-highcpu-2"), 420_849),  # 0.4208486: memory of 1.8 GiB
        (an_n1("n1-custom-8-30720"), 8 * 33_174 + 30 * 4_446 + 350_000),
        (an_n1("n1-custom-4-40960-ext"), 4 * 33_174 + 26 * 4_446 + 14 * 9_550 + 350_000),
        (an_n1("n1-highmem-16", gpu="V100", gpus=4), 16 * 31_611 + 104 * 4_237 + 4 * 2_480_000),
    ],
)
def test_an_n1_costs_itself_and_the_gpus_attached(market: Market, record: ResourceRecord, micros: int) -> None:
    list_n1(market)

    assert market.rate(record) == micros
    assert market.source(record) == f"{LISTED}; before sustained use discounts"


@pytest.mark.parametrize("price", ["1", "0.000000001", "12345.123456789"])
def test_no_fraction_is_lost_before_the_sum_is_rounded(market: Market, price: str) -> None:
    market.billing.list("A4 Nvidia B200 (1 gpu slice) running in Americas", price)

    assert market.rate(a_record("a4-highgpu-8g", gpu="B200", gpus=8)) == round(8 * Fraction(Decimal(price)) * 10**6)


def test_bundled_local_ssd_is_part_of_the_price_by_the_hour_of_its_month(market: Market) -> None:
    list_a2(market)
    market.billing.list("Nvidia Tesla A100 80GB GPU running in Americas", "3.92808")
    market.billing.list("SSD backed Local Storage", "0.08")
    price = market.price(a_record("a2-ultragpu-1g"))

    assert price == Price(
        rate_micros=5_068_798,
        currency="USD",
        source="Cloud Billing Catalog 2026-11-16: on demand in us-central1, USD; "
        "vCPUs, memory, GPUs and bundled Local SSD",
    )


def test_without_a_price_of_its_local_ssd_a_machine_is_priced_without_and_says_so(market: Market) -> None:
    list_a2(market)
    market.billing.list("Nvidia Tesla A100 80GB GPU running in Americas", "3.92808")

    assert market.rate(a_record("a2-ultragpu-1g")) == 5_027_702
    assert market.source(a_record("a2-ultragpu-1g")) == (
        f"{LISTED}; the Cloud Billing Catalog has no on-demand price of Local SSD in us-central1"
    )


def test_what_is_billed_by_the_accelerator_says_so(market: Market) -> None:
    market.billing.list("TpuV6e running in Americas", "2.7", group="TPU")

    assert market.price(a_record("v6e-8", gpu="TPU v6e", gpus=8)) == Price(
        rate_micros=21_600_000,
        currency="USD",
        source="Cloud Billing Catalog 2026-11-16: on demand in us-central1, USD; "
        "by the accelerator, the machine included",
    )


def test_each_region_has_its_own_price(market: Market) -> None:
    list_a2(market)
    for text, price in (
        ("A2 Instance Core", "0.0348"),
        ("A2 Instance Ram", "0.0047"),
        ("Nvidia Tesla A100 GPU", "3.2"),
    ):
        market.billing.list(f"{text} running in Netherlands", price, regions=["europe-west4"])
    there = a_record(region="europe-west4")

    assert market.rate(a_record()) == 3_673_385
    assert market.rate(there) == 12 * 34_800 + 85 * 4_700 + 3_200_000
    assert "on demand in europe-west4" in market.source(there)


def test_a_notebook_costs_what_its_machine_costs_and_a_fee_that_nobody_lists(market: Market) -> None:
    list_a2(market)

    assert market.source(a_record(kind=Kind.NOTEBOOK)) == f"{LISTED}; without the management fee"


def test_a_group_has_no_price_of_its_own(market: Market) -> None:
    list_a2(market)

    assert market.price(a_record(kind=Kind.NODE_GROUP)) is None


def test_a_price_is_in_the_currency_that_google_says(market: Market) -> None:
    list_a2(market, currency="EUR")
    price = market.price(a_record())

    assert price is not None
    assert (price.rate_micros, price.currency) == (3_673_385, "EUR")


def test_money_of_two_currencies_is_not_added(market: Market) -> None:
    market.billing.list("A2 Instance Core running in Americas", "0.031611")
    market.billing.list("A2 Instance Ram running in Americas", "0.004237")
    market.billing.list("Nvidia Tesla A100 GPU running in Americas", "2.7", currency="EUR")

    assert market.source(a_record()) == f"{BUILTIN}; the Cloud Billing Catalog lists its parts in EUR and USD"


# How it was bought.


def test_a_spot_machine_costs_what_spot_parts_cost(market: Market) -> None:
    list_a2(market)
    list_spot_a2(market)

    assert market.price(a_spot_record()) == Price(rate_micros=1_927_680, currency="USD", source=SPOT_LISTED)
    assert market.rate(a_record()) == 3_673_385


def test_a_flex_start_machine_has_rates_of_its_own(market: Market) -> None:
    list_a2(market)
    market.billing.list("DWS Defined Duration A2 Core running in Americas", "0.01739")
    market.billing.list("DWS Defined Duration A2 Ram running in Americas", "0.00233")
    market.billing.list("Nvidia Tesla A100 GPU attached to DWS Defined Duration VMs running in Americas", "1.61365")

    assert market.price(a_record(capacity=CapacityType.FLEX_START)) == Price(
        rate_micros=2_020_380,
        currency="USD",
        source="Cloud Billing Catalog 2026-11-16: flex-start in us-central1, USD; vCPUs, memory and GPUs",
    )


def test_a_spot_price_may_be_filed_under_on_demand(market: Market) -> None:
    market.billing.list("A4 Nvidia B200 (1 gpu slice) running in Americas", "16.11")
    market.billing.list("Spot Preemptible A4 Nvidia B200 (1 gpu slice) running in Americas", "4.9542", usage="OnDemand")
    machine = {"gpu": "B200", "gpus": 8}

    assert market.rate(a_spot_record("a4-highgpu-8g", **machine)) == 39_633_600
    assert market.rate(a_record("a4-highgpu-8g", gpu="B200", gpus=8)) == 128_880_000


def test_without_all_spot_prices_a_spot_machine_gets_the_on_demand_price_as_an_upper_bound(market: Market) -> None:
    list_a2(market)
    market.billing.list("Spot Preemptible A2 Instance Core running in Americas", "0.01659")

    assert market.rate(a_spot_record()) == 3_673_385
    assert market.source(a_spot_record()) == (
        f"{LISTED}; upper bound for spot; the Cloud Billing Catalog has no spot price of A2 GiB in us-central1"
    )


@pytest.mark.parametrize(
    ("capacity", "caveat"),
    [
        (CapacityType.RESERVED, "; what the reservation costs is not known"),
        (CapacityType.CAPACITY_BLOCK, "; what the capacity block cost is not known"),
        (CapacityType.UNKNOWN, "; how it is billed is not known"),
        (
            CapacityType.FLEX_START,
            "; its own rate is not known; the Cloud Billing Catalog has no flex-start price of A2 vCPU in us-central1",
        ),
    ],
)
def test_what_is_paid_in_other_ways_gets_the_list_price_and_says_so(
    market: Market, capacity: CapacityType, caveat: str
) -> None:
    list_a2(market)
    record = a_record(capacity=capacity)

    assert market.rate(record) == 3_673_385
    assert market.source(record) == LISTED + caveat


# What the catalogue's texts mean.

MEANT = {
    "A2 Instance Core running in Americas": ("A2 vCPU", CapacityType.ON_DEMAND),
    "A3 Instance Ram running in Salt Lake City": ("A3 GiB", CapacityType.ON_DEMAND),
    "A3Plus Instance Ram running in Americas": ("A3 Mega GiB", CapacityType.ON_DEMAND),
    "A3Ultra Instance Core running in São Paulo": ("A3 Ultra vCPU", CapacityType.ON_DEMAND),
    "G2 Instance Core running in EMEA": ("G2 vCPU", CapacityType.ON_DEMAND),
    "G2 Custom Instance Ram running in Tokyo": ("G2 custom GiB", CapacityType.ON_DEMAND),
    "G4 Instance Core running in Iowa": ("G4 vCPU", CapacityType.ON_DEMAND),
    "N1 Predefined Instance Core running in APAC": ("N1 vCPU", CapacityType.ON_DEMAND),
    "Custom Instance Core running in Americas": ("N1 custom vCPU", CapacityType.ON_DEMAND),
    "Custom Extended Instance Ram running in Hong Kong": ("N1 custom extended GiB", CapacityType.ON_DEMAND),
    "Nvidia Tesla T4 GPU running in Seoul": ("T4", CapacityType.ON_DEMAND),
    "Nvidia Tesla A100 80GB GPU running in Netherlands": ("A100 80GB", CapacityType.ON_DEMAND),
    "Nvidia H100 80GB GPU running in Americas": ("H100", CapacityType.ON_DEMAND),
    "Nvidia H100 80GB Mega GPU running in Tokyo": ("H100 Mega", CapacityType.ON_DEMAND),
    "Nvidia H100 80GB Plus GPU running in Americas": ("H100 Mega", CapacityType.ON_DEMAND),
    "H200 141GB GPU running in Netherlands": ("H200", CapacityType.ON_DEMAND),
    "RTX 6000 96GB running in Belgium": ("RTX PRO 6000", CapacityType.ON_DEMAND),
    "SSD backed Local Storage": ("Local SSD", CapacityType.ON_DEMAND),
    "SSD backed Local Storage in Tel Aviv": ("Local SSD", CapacityType.ON_DEMAND),
    "Spot Preemptible A2 Instance Core running in Americas": ("A2 vCPU", CapacityType.SPOT),
    "Spot Preemptible Custom Extended Instance Ram running in APAC": ("N1 custom extended GiB", CapacityType.SPOT),
    "Nvidia L4 GPU attached to Spot Preemptible VMs running in Americas": ("L4", CapacityType.SPOT),
    "RTX 6000 96GB attached to Spot Preemptible VMs running in Belgium": ("RTX PRO 6000", CapacityType.SPOT),
    "SSD backed Local Storage attached to Spot Preemptible VMs": ("Local SSD", CapacityType.SPOT),
    "TpuV5e attached to Spot Preemptible VMs running in Americas": ("TPU v5e", CapacityType.SPOT),
    "DWS Defined Duration A3 Core running in Americas": ("A3 vCPU", CapacityType.FLEX_START),
    "Nvidia H100 Mega 80GB GPU attached to DWS Defined Duration VMs running in Americas": (
        "H100 Mega",
        CapacityType.FLEX_START,
    ),
    "DWS Defined Duration SSD backed Local Storage running in Americas": ("Local SSD", CapacityType.FLEX_START),
}


@pytest.mark.parametrize("text", MEANT)
def test_a_text_of_the_catalogue_is_understood(text: str) -> None:
    assert meant(text) == MEANT[text]


OTHER_TEXTS = [
    "Commitment v1: A2 Cpu in Americas for 1 Year",
    "Commitment v1: Nvidia Tesla A100 GPU running in Americas for 3 Years",
    "A2 Instance Core running in Americas for 1 Year",
    "Reserved Nvidia Tesla A100 GPU in Americas",
    "Reserved A2 Core in Netherlands",
    "Reserved Nvidia H100 80GB Mega GPU in Americas in Calendar Mode",
    "DWS Calendar Mode A4 Nvidia B200 (1 gpu slice) running in Americas",
    "Sole Tenancy Premium for A2 Instance Core running in Americas",
    "Nvidia Tesla T4 GPU attached to Sole Tenancy VMs running in Americas",
    "Nvidia Tesla T4 Virtual Workstation GPU running in Americas",
    "Spot Preemptible Nvidia L4 GPU attached to DWS Defined Duration VMs running in Americas",
    "1/8 vGPU no lssd running in Iowa",
    "A2 Core running in Americas",
    "A9 Instance Core running in Americas",
    "C3 Instance Core running in Americas",
    "C4A Instance Local SSD running in Americas",
    "N2 Custom Instance Core running in Americas",
    "Committed Use Discount Premium for E2 Custom Instance Core running in Johannesburg",
    "A2 Instance Core running in Americas ",
    "Storage PD Capacity",
    "",
]


@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_any_other_text_is_no_price(text: str) -> None:
    assert meant(text) is None


@given(st.sampled_from(sorted(BODIES)), st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=9))
def test_one_word_that_is_not_known_makes_a_text_unknown(body: str, word: str) -> None:
    assert meant(f"{word} {body} running in Americas") is None
    assert meant(f"{body} {word} running in Americas") is None
    assert meant(f"{body} running in Americas {word}") is None


MISFILED = {
    "a commitment": {"usage": "Commit1Yr"},
    "spot by its usage type, and not by its words": {"usage": "Preemptible"},
    "a usage type of tomorrow": {"usage": "Calendar"},
    "another unit": {"unit": "mo"},
    "memory in other bytes": {"unit": "GBy.h"},
    "another group": {"group": "License"},
    "nothing to pay": {"price": "0"},
    "nowhere": {"regions": ()},
}


@pytest.mark.parametrize("how", MISFILED.values(), ids=MISFILED)
@pytest.mark.parametrize("text", ["A2 Instance Ram running in Americas", "Nvidia Tesla A100 GPU running in Americas"])
def test_a_part_that_is_filed_otherwise_is_no_price(market: Market, text: str, how: dict[str, Any]) -> None:
    list_a2(market)
    market.billing.skus = [sku for sku in market.billing.skus if sku["description"] != text]
    market.billing.list(text, **{"price": "2.5", **how})

    assert "the Cloud Billing Catalog has no on-demand price of" in market.source(a_record())


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "no category": lambda sku: sku.pop("category"),
    "no text": lambda sku: sku.pop("description"),
    "no price": lambda sku: sku["pricingInfo"].clear(),
    "no tier": lambda sku: sku["pricingInfo"][0]["pricingExpression"]["tieredRates"].clear(),
    "no currency": lambda sku: sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"].clear(),
    "no region": lambda sku: sku.pop("serviceRegions"),
    "words for a number": lambda sku: sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0].update(
        unitPrice={"currencyCode": "USD", "units": "cheap"}
    ),
    "more than anything costs": lambda sku: sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0].update(
        unitPrice={"currencyCode": "USD", "units": "9" * 30}
    ),
}


@pytest.mark.parametrize("breaks", BROKEN.values(), ids=BROKEN)
def test_a_part_that_cannot_be_read_is_no_price_and_harms_no_other(
    market: Market, breaks: Callable[[dict[str, Any]], object]
) -> None:
    sku = market.billing.list("Nvidia Tesla A100 GPU running in Americas", "2.933908")
    whole = read(sku)
    breaks(sku)

    assert whole is not None
    assert read(sku) is None


def test_the_first_tier_that_costs_counts(market: Market) -> None:
    market.billing.list("TpuV6e running in Americas", "1.9", group="TPU", tiers=["0", "2.7"])

    assert market.rate(a_record("v6e-1", gpu="TPU v6e")) == 2_700_000


def test_of_two_different_prices_neither_is_taken(market: Market) -> None:
    list_a2(market)
    market.billing.list("Nvidia Tesla A100 GPU running in Iowa", "3.1", regions=["us-central1"])

    assert market.rate(a_record(region="us-east1")) == 3_673_385
    assert market.source(a_record()) == (
        f"{BUILTIN}; the Cloud Billing Catalog has two on-demand prices of A100 in us-central1"
    )


def test_the_same_price_twice_is_a_price(market: Market) -> None:
    list_a2(market)
    market.billing.list("Nvidia Tesla A100 GPU running in Iowa", "2.933908", regions=["us-central1"])

    assert market.rate(a_record()) == 3_673_385


@needs(REAL_SKUS)
def test_real_skus_price_a_real_machine(market: Market) -> None:
    """As they were in March 2023; what other series cost stands beside them, in rupiah."""
    told = answer({"skus": json.loads((REAL_DATA / REAL_SKUS).read_text())["skus"]})
    market.cloud.rules.append(lambda _call: told)

    assert market.source(a_record()) == LISTED
    assert market.rate(a_record()) == 3_673_385
    assert market.rate(a_record("a2-highgpu-8g", gpus=8)) == 29_387_080


TYPES = ("a2-ultragpu-1g", "a3-megagpu-8g", "a4-highgpu-8g", "ct5lp-hightpu-4t", "g2-standard-4")


@pytest.mark.parametrize(
    ("machine_type", "gpus"),
    [
        *(("n1-standard-8", (f"nvidia-tesla-{model}", 1)) for model in ("p4", "p100", "t4", "v100")),
        *((machine_type, None) for machine_type in TYPES),
    ],
)
def test_what_the_inventory_says_of_a_machine_is_enough_to_price_it(
    cloud: Cloud, machine_type: str, gpus: tuple[str, int] | None
) -> None:
    cloud.compute.machine(machine_type=machine_type, gpus=gpus)
    provider = build(
        Config(projects=("research",), credentials="anonymous", endpoint=cloud.endpoint),
        BuildContext(source="research-gcp", now=lambda: NOW),
    )
    assert provider.inventory is not None
    [record] = provider.inventory.list().records

    assert parts_of(record)


# The built-in table.


@pytest.mark.parametrize(
    ("sku", "micros"), [("a2-highgpu-1g", 3_673_385), ("a3-highgpu-8g", 88_490_000), ("g2-standard-4", 706_832)]
)
def test_what_the_catalogue_lacks_comes_from_the_table(market: Market, sku: str, micros: int) -> None:
    market.billing.list("TpuV6e running in Americas", "2.7", group="TPU")
    price = market.price(a_record(sku))

    assert price is not None
    assert price.rate_micros == micros
    assert price.source.startswith("builtin 2024-12-26: us-central1 on-demand list price, USD; vCPUs, memory")
    assert "the Cloud Billing Catalog has no on-demand price of" in price.source


def test_the_table_knows_what_spot_machines_listed_for_on_that_day(market: Market) -> None:
    market.cloud.refuse("cloudbilling.", unavailable())

    assert market.price(a_spot_record()) == Price(
        rate_micros=1_469_355,
        currency="USD",
        source="builtin 2024-12-26: us-central1 spot list price, USD; vCPUs, memory and GPUs; may have moved since; "
        "the Cloud Billing Catalog did not answer (Unreachable)",
    )


def test_the_table_says_where_it_is_only_an_estimate(market: Market) -> None:
    market.cloud.refuse("cloudbilling.", unavailable())

    assert "; other region (europe-west4); " in market.source(a_record(region="europe-west4"))
    assert "; upper bound for spot; " in market.source(an_n1(capacity=CapacityType.SPOT))
    assert "; what the reservation costs is not known; " in market.source(a_record(capacity=CapacityType.RESERVED))
    assert "; before sustained use discounts; " in market.source(an_n1())


def test_an_n1_is_in_the_table_by_its_parts(market: Market) -> None:
    market.cloud.refuse("cloudbilling.", unavailable())

    assert market.rate(an_n1(gpus=2)) == 8 * 31_611 + 30 * 4_237 + 2 * 350_000
    assert market.source(an_n1()).startswith("builtin 2022-06-24: us-central1 on-demand list price, USD")


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(a_record("a3-megagpu-8g", gpu="H100", gpus=8), id="a type without a list price"),
        pytest.param(an_n1("n1-custom-8-30720"), id="an N1 to measure"),
        pytest.param(an_n1(gpu="K80"), id="a GPU that is sold no more"),
        pytest.param(a_record("v6e-8", gpu="TPU v6e"), id="a TPU"),
    ],
)
def test_what_nobody_lists_has_no_price(market: Market, record: ResourceRecord) -> None:
    market.cloud.refuse("cloudbilling.", unavailable())

    assert market.price(record) is None


def test_the_table_is_whole() -> None:
    """A spot price is below the other, and a machine of twice the size costs at least as much."""
    rows = machine_types()

    assert len(rows) > 25
    assert {"a2-highgpu-1g", "a3-megagpu-8g", "a4-highgpu-8g", "g2-standard-4", "g4-standard-48"} <= rows.keys()
    for sku, row in rows.items():
        assert (row.on_demand is None) == (row.spot is None), sku
        assert row.on_demand is None or 0 < row.spot < row.on_demand, sku  # type: ignore[operator]
        assert row.parts
        assert set(row.parts) <= {*BODIES.values()}, sku


# What goes wrong.

FAILURES: dict[str, tuple[Callable[[Cloud], object], str]] = {
    "it is denied": (
        lambda cloud: cloud.refuse("cloudbilling.", forbidden("billing.resources.get", "services")),
        "(Forbidden, it needs billing.resources.get)",
    ),
    "its API is not enabled": (
        lambda cloud: cloud.refuse("cloudbilling.", service_disabled("cloudbilling", "4242")),
        "(Forbidden, it needs the Cloud Billing API enabled)",
    ),
    "it is throttled": (
        lambda cloud: cloud.refuse("cloudbilling.", rate_limited("cloudbilling", "4242")),
        "(Throttled)",
    ),
    "it breaks": (lambda cloud: cloud.refuse("cloudbilling.", unavailable()), "(Unreachable)"),
    "it hangs up": (lambda cloud: cloud.rules.append(lambda _call: NO_ANSWER), "(Unreachable)"),
    "a proxy's page answers": (
        lambda cloud: cloud.rules.append(lambda _call: Reply(status=200, body=b"<html>Log in</html>")),
        "(Unreachable)",
    ),
    "there is nothing in it": (
        lambda cloud: cloud.rules.append(lambda _call: Reply(status=200, body=b'{"skus": []}')),
        "(Unreachable)",
    ),
    "it is something else": (
        lambda cloud: cloud.rules.append(lambda _call: Reply(status=200, body=b'{"skus": 7}')),
        "(Unreachable)",
    ),
}


@pytest.mark.parametrize(("fails", "why"), FAILURES.values(), ids=FAILURES)
def test_a_catalogue_that_fails_is_replaced_by_the_table_which_says_why(
    market: Market, fails: Callable[[Cloud], object], why: str
) -> None:
    list_a2(market)
    fails(market.cloud)

    assert market.source(a_record()) == f"{BUILTIN}; the Cloud Billing Catalog did not answer {why}"


def test_half_a_catalogue_is_none(market: Market) -> None:
    """What is missing may be a second price."""
    list_a2(market)
    market.cloud.most_per_page = 2
    market.cloud.rules.append(lambda call: unavailable().reply if call.query.get("pageToken") else None)

    assert market.source(a_record()) == f"{BUILTIN}; the Cloud Billing Catalog did not answer (Unreachable)"


def test_a_failure_is_not_asked_about_again_for_ten_minutes(market: Market) -> None:
    list_a2(market)
    market.cloud.refuse("cloudbilling.", forbidden("x.y.z", "services"), times=1)
    assert market.source(a_record()).startswith("builtin")
    market.later(minutes=9, seconds=59)
    assert market.source(a_record()).startswith("builtin")
    assert market.asked() == 1
    market.later(seconds=1)
    assert market.source(a_record()).startswith("Cloud Billing Catalog")


def test_a_failure_leaves_the_last_answer_standing_for_a_week(market: Market) -> None:
    list_a2(market)
    assert market.source(a_record()) == LISTED
    market.cloud.rules.append(lambda _call: NO_ANSWER)

    market.later(days=6, hours=23)
    assert market.source(a_record()) == LISTED
    market.later(hours=1)
    assert market.source(a_record()).startswith("builtin")


def test_a_catalogue_that_comes_too_late_counts_in_the_next_cycle(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_a2(market)
    told = threading.Event()

    def hesitates(_call: Call) -> None:
        told.wait(10)

    market.cloud.rules.append(hesitates)
    monkeypatch.setattr(market.prices, "_questions", Questions("Google", patience=0.05, at_once=1))
    assert market.source(a_record()) == f"{BUILTIN}; the Cloud Billing Catalog did not answer (Unreachable)"
    told.set()
    soon(lambda: market.source(a_record()) == LISTED, "the catalogue that came late counts")

    assert market.asked() == 1


# How often it asks.


def test_nothing_is_asked_for_nothing(market: Market) -> None:
    assert market.prices.quote([]) == {}
    assert market.prices.quote([a_record(kind=Kind.NODE_GROUP)]) == {}
    assert market.asked() == 0


def test_the_catalogue_is_asked_twice_a_day_whatever_it_is_asked_about(market: Market) -> None:
    list_a2(market)
    list_n1(market)
    for minute in range(60):
        sku = sorted(machine_types())[minute % 20]
        market.prices.quote([a_record(sku), an_n1(), a_record("a9-highgpu-1g", region=f"us-east{minute}")])
        market.later(minutes=1)
    assert market.asked() == 1
    market.later(hours=11)
    market.prices.quote([a_record()])
    assert market.asked() == 1


def test_long_answers_come_in_pages(market: Market) -> None:
    list_a2(market)
    list_n1(market)
    market.cloud.most_per_page = 3

    assert market.rate(a_record()) == 3_673_385
    assert market.rate(an_n1()) == 8 * 31_611 + 30 * 4_237 + 350_000
    assert market.asked() == 4


def test_what_is_asked_is_as_little_as_will_do(market: Market) -> None:
    list_a2(market)
    market.price(a_record())
    [call] = market.cloud.calls

    assert (call.names, call.query["currencyCode"], call.query["pageSize"]) == (
        {"servicesId": "6F81-5844-456A"},
        "USD",
        5000,
    )
    assert "geoTaxonomy" not in call.query["fields"]


def test_a_price_that_does_not_move_keeps_its_words_and_one_that_moves_its_day(market: Market) -> None:
    list_a2(market)
    before = market.price(a_record())
    market.later(days=3)
    assert market.price(a_record()) == before

    market.billing.skus.pop()
    market.billing.list("Nvidia Tesla A100 GPU running in Americas", "2.5")
    market.later(hours=12)
    assert market.rate(a_record()) == 3_239_477
    assert market.source(a_record()) == LISTED.replace("11-16", "11-19")
    assert market.price(a_record(region="us-east1")) is not None


def test_many_machines_are_priced_by_one_look(market: Market) -> None:
    list_a2(market)
    list_spot_a2(market)
    records = [
        record for number in range(500) for record in (a_record(name=f"a-{number}"), a_spot_record(name=f"s-{number}"))
    ]
    quoted = market.prices.quote(records)

    assert len(quoted) == 1000
    assert {price.rate_micros for price in quoted.values()} == {3_673_385, 1_927_680}
    assert market.asked() == 1
