"""Prices of AWS: the spot market and the Price List first, a dated table last, and honest about what each one is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import boto3
import pytest
from botocore.parsers import create_parser

from providers.aws.prices import on_demand_rates, price_list_region, spot_price
from providers.aws.translate import builtin_types
from providers.contract import Prices
from providers.price_lists import Rate
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef
from tests.providers.aws import pricing
from tests.providers.aws.conftest import Build
from tests.providers.aws.front import NO_ANSWER, Call, Front, Reply
from tests.real_data import REAL_DATA, needs

PRODUCT = "cloud_api/aws_cli_json_instance_selector/GetProducts/m5_large.json"
SPOT_MONTH = "cloud_api/aws_cli_json_instance_selector/DescribeSpotPriceHistory/m5_large.json"
PUBLISHED = "prices/aws_all_ondemand_us-east-1_2026-07-20.csv"
"""Of the real data."""

NOW = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)
BUILTIN = "builtin 2026-07-20: us-east-1 on-demand list price, USD, Linux"
LISTED = "AWS Price List 2026-11-01: on demand in us-east-1, USD; Linux and shared tenancy assumed"


def a_record(
    sku: str = "p5.48xlarge",
    *,
    zone: str | None = "us-east-1a",
    region: str = "us-east-1",
    capacity: CapacityType = CapacityType.ON_DEMAND,
    name: str = "i-0abc",
) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(provider="aws", account="123456789012", region=region, kind=Kind.INSTANCE, external_id=name),
        incarnation=name,
        name="trainer",
        zone=zone,
        sku=sku,
        gpu_vendor="nvidia",
        gpu_model="H100",
        gpu_count=8,
        capacity_type=capacity,
    )


def a_spot_record(zone: str | None = "us-east-1a", **fields: Any) -> ResourceRecord:
    return a_record(zone=zone, capacity=CapacityType.SPOT, **fields)


@dataclass
class Market:
    """The provider's prices before the stand-in, on a clock of their own."""

    front: Front
    prices: Prices
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

    def asked(self) -> dict[str, int]:
        """How often each price service was asked since the last time."""
        counted = dict(self.front.counted)
        self.front.calls.clear()
        return counted


@pytest.fixture
def front() -> Iterator[Front]:
    """Without moto behind it: nothing here asks anything but prices."""
    with Front("http://127.0.0.1:0").serving() as front:
        yield front


@pytest.fixture
def market(front: Front, aws: Build) -> Market:
    return a_market(front, aws)


def a_market(front: Front, aws: Build, **config: object) -> Market:
    clock = [NOW]
    prices = aws(now=lambda: clock[0], **config).prices
    assert prices is not None
    return Market(front, prices, clock)


# On demand.


def test_an_on_demand_machine_costs_what_the_price_list_says(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "55.0400000000")

    assert market.price(a_record()) == Price(rate_micros=55_040_000, currency="USD", source=LISTED)


@pytest.mark.parametrize(
    ("usd", "micros"),
    [("0.5260000000", 526_000), ("0.1234565000", 123_456), ("0.1234575000", 123_458), ("1.00000051", 1_000_001)],
)
def test_rates_are_whole_micro_units_ties_to_even(market: Market, usd: str, micros: int) -> None:
    market.front.prices.list("p5.48xlarge", usd)

    assert market.rate(a_record()) == micros


def test_each_region_has_its_own_price(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    market.front.prices.list("p5.48xlarge", "66.01", place="eu-west-1")
    there = a_record(region="eu-west-1", zone="eu-west-1c")

    assert market.rate(a_record()) == 55_040_000
    assert market.rate(there) == 66_010_000
    assert "on demand in eu-west-1" in market.source(there)


def test_a_local_zone_has_its_own_price(market: Market) -> None:
    market.front.prices.list("g4dn.2xlarge", "0.752", place="us-west-2")
    market.front.prices.list("g4dn.2xlarge", "0.904", place="us-west-2-lax-1", locationType="AWS Local Zone")

    assert market.rate(a_record("g4dn.2xlarge", region="us-west-2", zone="us-west-2-lax-1a")) == 904_000
    assert market.rate(a_record("g4dn.2xlarge", region="us-west-2", zone="us-west-2b")) == 752_000


@pytest.mark.parametrize(
    "attributes",
    [
        {"operatingSystem": "Windows"},
        {"tenancy": "Dedicated"},
        {"preInstalledSw": "SQL Std"},
        {"capacitystatus": "UnusedCapacityReservation"},
        {"marketoption": "CapacityBlock"},
    ],
)
def test_only_plain_linux_on_shared_hardware_counts(market: Market, attributes: dict[str, str]) -> None:
    market.front.prices.list("p5.48xlarge", "99.00", **attributes)
    market.front.prices.list("p5.48xlarge", "55.04")

    assert market.rate(a_record()) == 55_040_000


def test_a_product_at_zero_is_no_price(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "0.0000000000")

    assert market.source(a_record()) == f"{BUILTIN}; the AWS Price List has none of it for us-east-1"


def test_of_two_different_prices_neither_is_taken(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    market.front.prices.list("p5.48xlarge", "66.04")

    assert market.source(a_record()).startswith(BUILTIN)


def test_the_same_price_twice_is_a_price(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "54.00")
    market.front.prices.list("p5.48xlarge", "54.0000000000")

    assert market.rate(a_record()) == 54_000_000


def test_china_lists_in_yuan_at_its_own_endpoint(front: Front, aws: Build) -> None:
    market = a_market(front, aws, regions=["cn-north-1"])
    market.front.prices.list("g4dn.xlarge", "7.05", place="cn-north-1", currency="CNY")
    price = market.price(a_record("g4dn.xlarge", region="cn-north-1", zone="cn-north-1a"))

    assert price is not None
    assert (price.rate_micros, price.currency) == (7_050_000, "CNY")
    assert {call.region for call in front.calls} == {"cn-northwest-1"}


# Spot.


def test_a_spot_machine_costs_what_its_zone_charges_now(market: Market) -> None:
    for zone, usd in (("us-east-1a", "21.500000"), ("us-east-1b", "24.250000")):
        market.front.prices.sell_spot("p5.48xlarge", usd, zone=zone, since=NOW - timedelta(days=2))

    assert market.price(a_spot_record("us-east-1b")) == Price(
        rate_micros=24_250_000,
        currency="USD",
        source="EC2 spot price history 2026-11-14: spot in us-east-1b, USD; Linux assumed",
    )
    assert market.rate(a_spot_record("us-east-1a")) == 21_500_000


def test_the_newest_price_at_or_before_now_counts(market: Market) -> None:
    for hours, usd in ((-72, "20.000001"), (-1, "22.000001"), (-9, "21.000001"), (0, "23.000001"), (1, "24.000001")):
        market.front.prices.sell_spot("p5.48xlarge", usd, since=NOW + timedelta(hours=hours))

    assert market.rate(a_spot_record()) == 23_000_001


def test_another_systems_spot_price_is_not_ours(market: Market) -> None:
    market.front.prices.sell_spot("p5.48xlarge", "30.0", since=NOW, system="Windows")

    assert "upper bound for spot" in market.source(a_spot_record())


@pytest.mark.parametrize(
    ("zone", "why"),
    [
        ("us-east-1c", "; upper bound for spot; EC2's spot price history has none of it for us-east-1c"),
        (None, "; upper bound for spot; its zone is not known"),
    ],
)
def test_a_spot_machine_without_a_spot_price_gets_the_on_demand_price_as_an_upper_bound(
    market: Market, zone: str | None, why: str
) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    market.front.prices.sell_spot("p5.48xlarge", "21.5", zone="us-east-1a", since=NOW)
    record = a_spot_record(zone)

    assert market.rate(record) == 55_040_000
    assert market.source(record) == LISTED + why


def test_an_on_demand_machine_does_not_get_the_spot_price(market: Market) -> None:
    market.front.prices.sell_spot("p5.48xlarge", "21.5", since=NOW)

    assert market.rate(a_record()) == 55_040_000
    assert "ec2:DescribeSpotPriceHistory" not in market.asked()


# Other ways of paying.


@pytest.mark.parametrize(
    ("capacity", "caveat"),
    [
        (CapacityType.RESERVED, "; what the reservation costs is not known"),
        (CapacityType.CAPACITY_BLOCK, "; what the capacity block cost is not known"),
        (CapacityType.UNKNOWN, "; how it is billed is not known"),
    ],
)
def test_what_is_paid_in_other_ways_gets_the_list_price_and_says_so(
    market: Market, capacity: CapacityType, caveat: str
) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    record = a_record(capacity=capacity)

    assert market.rate(record) == 55_040_000
    assert market.source(record) == LISTED + caveat


# The built-in table.


@pytest.mark.parametrize(
    ("sku", "micros"), [("p5.48xlarge", 55_040_000), ("g4ad.2xlarge", 541_170), ("p4d.24xlarge", 21_957_642)]
)
def test_what_the_price_list_lacks_comes_from_the_table(market: Market, sku: str, micros: int) -> None:
    source = f"{BUILTIN}; the AWS Price List has none of it for us-east-1"

    assert market.price(a_record(sku)) == Price(rate_micros=micros, currency="USD", source=source)


def test_the_table_says_where_it_is_only_an_estimate(market: Market) -> None:
    assert "; other region (eu-west-1); " in market.source(a_record(region="eu-west-1", zone="eu-west-1a"))
    assert "; upper bound for spot; " in market.source(a_spot_record())


def test_where_there_is_no_price_list_there_is_still_the_table(front: Front, aws: Build) -> None:
    market = a_market(front, aws, regions=["us-gov-west-1"])
    record = a_record("g4dn.xlarge", region="us-gov-west-1", zone="us-gov-west-1a")

    assert market.source(record) == f"{BUILTIN}; other region (us-gov-west-1)"
    assert market.asked() == {}


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(a_record("p99.48xlarge"), id="a type of tomorrow"),
        pytest.param(a_record("p5e.48xlarge"), id="a type without a list price"),
        pytest.param(a_record("g4dn.xlarge", region="cn-north-1", zone="cn-north-1a"), id="a region billed in yuan"),
    ],
)
def test_what_nobody_lists_has_no_price(market: Market, record: ResourceRecord) -> None:
    assert market.prices.quote([record]) == {}


# What goes wrong.

FAILURES: dict[str, tuple[Callable[[Front, str], None], str]] = {
    "it is denied": (
        lambda front, action: front.refuse(action, "AccessDeniedException", "no identity-based policy allows it"),
        "(Forbidden, it needs {action})",
    ),
    "it is throttled": (lambda front, action: front.refuse(action, "ThrottlingException"), "(Throttled)"),
    "it breaks": (lambda front, action: front.refuse(action, "InternalError"), "(Unreachable)"),
    "it hangs up": (lambda front, action: front.answer(action, NO_ANSWER), "(Unreachable)"),
    "a proxy's page answers": (
        lambda front, action: front.answer(action, Reply(status=200, body=b"<html>Log in</html>")),
        "(Unreachable)",
    ),
}


@pytest.mark.parametrize(("fails", "why"), FAILURES.values(), ids=FAILURES)
def test_a_price_list_that_fails_is_replaced_by_the_table_which_says_why(
    market: Market, fails: Callable[[Front, str], None], why: str
) -> None:
    fails(market.front, "pricing:GetProducts")

    assert market.rate(a_record()) == 55_040_000
    assert market.source(a_record()) == (
        f"{BUILTIN}; the AWS Price List did not answer {why.format(action='pricing:GetProducts')}"
    )


@pytest.mark.parametrize(("fails", "why"), FAILURES.values(), ids=FAILURES)
def test_a_spot_market_that_fails_is_replaced_by_the_price_list_which_says_why(
    market: Market, fails: Callable[[Front, str], None], why: str
) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    fails(market.front, "ec2:DescribeSpotPriceHistory")

    why = why.format(action="ec2:DescribeSpotPriceHistory")
    assert market.source(a_spot_record()) == (
        f"{LISTED}; upper bound for spot; EC2's spot price history did not answer {why}"
    )


@pytest.mark.parametrize(
    "product",
    [
        "no JSON",
        "[]",
        '{"product": {"attributes": {"instanceType": "p5.48xlarge"}}}',
        json.dumps({"product": {"attributes": {}}, "terms": {"OnDemand": {"a": {"effectiveDate": "soon"}}}}),
        json.dumps(
            {
                "product": {"attributes": {"instanceType": "p5.48xlarge"}},
                "terms": {
                    "OnDemand": {
                        "a": {
                            "effectiveDate": "2026-11-01T00:00:00Z",
                            "priceDimensions": {"b": {"unit": "Hrs", "pricePerUnit": {"USD": "cheap"}}},
                        }
                    }
                },
            }
        ),
    ],
)
def test_a_product_that_cannot_be_read_is_no_price(market: Market, product: str) -> None:
    body = pricing.written("pricing", "GetProducts", {"FormatVersion": "aws_v1", "PriceList": [product]})
    market.front.answer("pricing:GetProducts", Reply(status=200, body=body))

    assert market.source(a_record()) == f"{BUILTIN}; the AWS Price List did not answer (Unreachable)"


def test_one_region_that_fails_sinks_no_other(front: Front, aws: Build) -> None:
    market = a_market(front, aws)
    for zone in ("us-east-1a", "eu-west-1a"):
        front.prices.sell_spot("p5.48xlarge", "21.5", zone=zone, since=NOW)
    front.refuse("ec2:DescribeSpotPriceHistory", "UnauthorizedOperation", region="eu-west-1")
    here, there = a_spot_record(name="i-1"), a_spot_record("eu-west-1a", region="eu-west-1", name="i-2")
    quoted = market.prices.quote([here, there])

    assert quoted[here.ref].rate_micros == 21_500_000
    assert "it needs ec2:DescribeSpotPriceHistory" in quoted[there.ref].source


def test_a_failure_is_not_asked_about_again_for_ten_minutes(market: Market) -> None:
    market.front.refuse("pricing:GetProducts", "AccessDeniedException", times=1)
    market.front.prices.list("p5.48xlarge", "60")
    assert market.source(a_record()).startswith(BUILTIN)
    market.later(minutes=9, seconds=59)
    assert market.source(a_record()).startswith(BUILTIN)
    assert market.asked() == {"pricing:GetProducts": 1}
    market.later(seconds=1)
    assert market.rate(a_record()) == 60_000_000


def test_a_failure_leaves_the_last_answer_standing_for_a_while(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "60")
    market.front.prices.sell_spot("p5.48xlarge", "21.5", since=NOW)
    assert (market.rate(a_record()), market.rate(a_spot_record())) == (60_000_000, 21_500_000)
    for action in ("pricing:GetProducts", "ec2:DescribeSpotPriceHistory"):
        market.front.answer(action, NO_ANSWER)

    market.later(hours=23)
    assert (market.rate(a_record()), market.rate(a_spot_record())) == (60_000_000, 21_500_000)
    market.later(hours=1)
    assert (market.rate(a_record()), market.rate(a_spot_record())) == (60_000_000, 60_000_000)
    market.later(days=6)
    assert market.source(a_record()).startswith(BUILTIN)


def test_failures_are_not_retried_for_long(market: Market, pauses: list[float]) -> None:
    market.front.answer("pricing:GetProducts", NO_ANSWER)
    market.price(a_record())

    assert market.asked() == {"pricing:GetProducts": 2}
    assert len(pauses) == 1


# How often it asks.


def test_nothing_is_asked_for_nothing(market: Market) -> None:
    assert market.prices.quote([]) == {}
    assert market.asked() == {}


def test_the_price_list_is_asked_twice_a_day_and_the_spot_market_six_times_an_hour(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "60")
    market.front.prices.sell_spot("p5.48xlarge", "21.5", since=NOW)
    records = [a_record(name="i-1"), a_spot_record(name="i-2")]
    for _ in range(60):
        market.prices.quote(records)
        market.later(minutes=1)
    assert market.asked() == {"pricing:GetProducts": 1, "ec2:DescribeSpotPriceHistory": 6}
    market.later(hours=11)
    market.prices.quote(records)
    assert market.asked() == {"pricing:GetProducts": 1, "ec2:DescribeSpotPriceHistory": 1}


def test_what_has_no_price_is_remembered_too(market: Market) -> None:
    for _ in range(3):
        market.prices.quote([a_record("p99.48xlarge")])

    assert market.asked() == {"pricing:GetProducts": 1}


def test_a_spot_price_is_followed_when_it_moves(market: Market) -> None:
    market.front.prices.sell_spot("p5.48xlarge", "21.5", since=NOW)
    market.front.prices.sell_spot("p5.48xlarge", "22.5", since=NOW + timedelta(minutes=3))
    assert market.rate(a_spot_record()) == 21_500_000
    market.later(minutes=9)
    assert market.rate(a_spot_record()) == 21_500_000
    market.later(minutes=1)
    assert market.rate(a_spot_record()) == 22_500_000


def test_a_price_that_does_not_move_keeps_its_words(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "60")
    market.front.prices.sell_spot("p5.48xlarge", "21.5", since=NOW)
    before = [market.price(a_record()), market.price(a_spot_record())]
    market.later(days=3)

    assert [market.price(a_record()), market.price(a_spot_record())] == before


def test_many_machines_are_few_questions(market: Market) -> None:
    types = sorted(builtin_types())
    for sku in types:
        market.front.prices.list(sku, "1.25")
        market.front.prices.sell_spot(sku, "0.5", since=NOW)
    records = [
        record
        for index, sku in enumerate(types * 10)
        for record in (a_record(sku, name=f"i-{index}"), a_spot_record(sku=sku, name=f"s-{index}"))
    ]
    quoted = market.prices.quote(records)

    assert len(types) > 80
    assert {price.rate_micros for price in quoted.values()} == {1_250_000, 500_000}
    assert len(quoted) == len(records)
    assert market.asked() == {"pricing:GetProducts": 3, "ec2:DescribeSpotPriceHistory": 1}


def test_long_answers_come_in_pages(market: Market) -> None:
    market.front.prices.page = 2
    for number, sku in enumerate(("g5.xlarge", "g6.xlarge", "p4d.24xlarge", "p5.48xlarge", "g4dn.xlarge"), 1):
        market.front.prices.list(sku, str(number))
        market.front.prices.sell_spot(sku, f"0.{number}", since=NOW)
    records = [a_record("g4dn.xlarge", name="i-1"), a_record("g5.xlarge", name="i-2")]
    spot = [a_spot_record(sku="g4dn.xlarge", name="i-3"), a_spot_record(sku="g5.xlarge", name="i-4")]
    more = [a_record("p5.48xlarge", name="i-5"), a_spot_record(sku="p5.48xlarge", name="i-6")]
    quoted = market.prices.quote([*records, *spot, *more])

    assert sorted(price.rate_micros for price in quoted.values()) == [
        100_000,
        400_000,
        500_000,
        1_000_000,
        4_000_000,
        5_000_000,
    ]
    assert market.asked() == {"pricing:GetProducts": 2, "ec2:DescribeSpotPriceHistory": 2}


@pytest.mark.parametrize(
    ("home", "endpoint"),
    [
        ("us-east-1", "us-east-1"),
        ("us-west-2", "us-east-1"),
        ("sa-east-1", "us-east-1"),
        ("eu-west-1", "eu-central-1"),
        ("ap-northeast-1", "ap-south-1"),
        ("cn-north-1", "cn-northwest-1"),
        ("us-gov-west-1", None),
    ],
)
def test_the_price_list_is_asked_where_it_lives(home: str, endpoint: str | None) -> None:
    session = boto3.Session()
    partition = session.get_partition_for_region(home)

    assert price_list_region(home) == endpoint
    assert endpoint in {None, *session.get_available_regions("pricing", partition)}


def test_the_price_list_is_asked_in_the_nearest_region_that_has_it(front: Front, aws: Build) -> None:
    market = a_market(front, aws, regions=["eu-west-1"])
    front.prices.list("p5.48xlarge", "66.01", place="eu-west-1")

    assert market.rate(a_record(region="eu-west-1", zone="eu-west-1a")) == 66_010_000
    assert [call.region for call in front.calls] == ["eu-central-1"]


# The stand-in is held to botocore's own model, both ways.


def _call(front: Front, service: str, operation: str, **params: object) -> Any:
    """As any program would ask."""
    return getattr(
        boto3.client(service, region_name="us-east-1", endpoint_url=front.endpoint),  # type: ignore[call-overload]
        operation,
    )(**params)


def test_what_is_asked_fits_the_model_and_says_what_is_meant(market: Market) -> None:
    market.prices.quote([a_record(), a_spot_record(name="i-2"), a_record("g5.xlarge", name="i-3")])
    asked = {
        call.operation: pricing.question(call.service, call.operation, call.fields, call.body)
        for call in market.front.calls
    }

    assert asked["DescribeSpotPriceHistory"] == {
        "StartTime": NOW,
        "EndTime": NOW,
        "MaxResults": 1000,
        "Filters": [
            {"Name": "availability-zone", "Values": ["us-east-1a"]},
            {"Name": "instance-type", "Values": ["p5.48xlarge"]},
            {"Name": "product-description", "Values": ["Linux/UNIX"]},
        ],
    }
    filters = asked["GetProducts"].pop("Filters")
    assert asked["GetProducts"] == {"ServiceCode": "AmazonEC2", "FormatVersion": "aws_v1", "MaxResults": 100}
    assert {(rule["Type"], rule["Field"], rule["Value"]) for rule in filters} == {
        ("TERM_MATCH", "regionCode", "us-east-1"),
        ("TERM_MATCH", "operatingSystem", "Linux"),
        ("TERM_MATCH", "tenancy", "Shared"),
        ("TERM_MATCH", "preInstalledSw", "NA"),
        ("TERM_MATCH", "capacitystatus", "Used"),
        ("ANY_OF", "instanceType", "g5.xlarge,p5.48xlarge"),
    }


def test_what_is_answered_fits_the_model_as_the_sdk_reads_it(market: Market) -> None:
    market.front.prices.list("p5.48xlarge", "55.04")
    market.front.prices.sell_spot("p5.48xlarge", "21.500000", since=NOW)
    front = market.front
    products = _call(front, "pricing", "get_products", ServiceCode="AmazonEC2")
    history = _call(front, "ec2", "describe_spot_price_history", StartTime=NOW, EndTime=NOW)

    for answer, shape in (
        (products, pricing.operation("pricing", "GetProducts").output_shape),
        (history, pricing.operation("ec2", "DescribeSpotPriceHistory").output_shape),
    ):
        pricing.must_fit({name: value for name, value in answer.items() if name in shape.members}, shape)
    assert dict(on_demand_rates(products["PriceList"][0])) == {
        "p5.48xlarge": Rate(micros=55_040_000, currency="USD", since=date(2026, 11, 1))
    }
    assert history["SpotPriceHistory"] == [
        {
            "AvailabilityZone": "us-east-1a",
            "InstanceType": "p5.48xlarge",
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": "21.500000",
            "Timestamp": NOW,
        }
    ]


SPOT_CALL = {"Action": ["DescribeSpotPriceHistory"], "Version": ["2016-11-15"]}
MISFITS: dict[str, Callable[[], object]] = {
    "a request without the service it is about": lambda: pricing.question("pricing", "GetProducts", {}, b"{}"),
    "a request with a field that does not exist": lambda: pricing.question(
        "pricing", "GetProducts", {}, b'{"ServiceCode": "AmazonEC2", "Region": "us-east-1"}'
    ),
    "a filter of a kind that does not exist": lambda: pricing.question(
        "pricing",
        "GetProducts",
        {},
        b'{"ServiceCode": "AmazonEC2", "Filters": [{"Type": "LIKE", "Field": "tenancy", "Value": "Shared"}]}',
    ),
    "a page that is too long": lambda: pricing.question(
        "pricing", "GetProducts", {}, b'{"ServiceCode": "AmazonEC2", "MaxResults": 0}'
    ),
    "a spot question with a field that does not exist": lambda: pricing.question(
        "ec2", "DescribeSpotPriceHistory", {**SPOT_CALL, "Filter.1.Values.1": ["Linux/UNIX"]}, b""
    ),
    "an answer with a field that does not exist": lambda: pricing.written("pricing", "GetProducts", {"Prices": []}),
    "a product that is no text": lambda: pricing.written("pricing", "GetProducts", {"PriceList": [{"product": {}}]}),
    "a spot price that is a number": lambda: pricing.written(
        "ec2", "DescribeSpotPriceHistory", {"SpotPriceHistory": [{"SpotPrice": 21.5}]}
    ),
}


@pytest.mark.parametrize("made", MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_the_model_is_refused(made: Callable[[], object]) -> None:
    with pytest.raises(pricing.Misfit):
        made()


def test_a_request_that_does_not_fit_is_refused_over_http(front: Front) -> None:
    asked = Call(service="pricing", region="us-east-1", operation="GetProducts", fields={}, body=b"{}")
    reply = front.reply(asked, "POST", "/", {}, b"{}")

    assert reply.status == 400
    assert b"Missing required parameter" in reply.body


# Whole answers: one of our own making, real ones, and the table against the published list.


def test_of_all_ways_to_pay_for_a_product_only_the_hour_on_demand_counts() -> None:
    def term(effective: str, *prices: tuple[str, str]) -> dict[str, Any]:
        dimensions = {
            f"RATE{number}": {"unit": unit, "description": "made up", "appliesTo": [], "pricePerUnit": {"USD": usd}}
            for number, (unit, usd) in enumerate(prices)
        }
        return {"effectiveDate": effective, "termAttributes": {}, "priceDimensions": dimensions}

    product = {
        "product": {
            "productFamily": "Compute Instance",
            "attributes": {"instanceType": "p0.large", "operatingSystem": "Linux", "vcpu": "3"},
            "sku": "MADEUP",
        },
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {"MADEUP.A": term("2026-11-01T00:00:00Z", ("Quantity", "77"), ("Hrs", "1.2300000000"))},
            "Reserved": {
                "MADEUP.B": term("2025-10-31T23:59:59Z", ("Hrs", "0.4500000000"), ("Quantity", "1234")),
                "MADEUP.C": term("2025-10-31T23:59:59Z", ("Quantity", "5678"), ("Hrs", "0.0000000000")),
            },
        },
    }

    assert list(on_demand_rates(json.dumps(product))) == [
        ("p0.large", Rate(micros=1_230_000, currency="USD", since=date(2026, 11, 1)))
    ]


def test_a_stretch_of_spot_prices_in_several_zones_is_read(market: Market) -> None:
    for hour, zone, usd in [
        (-9, "us-east-1a", "20.1"),
        (-5, "us-east-1b", "30.3"),
        (-3, "us-east-1a", "21.2"),
        (-2, "us-east-1b", "29.9"),
        (-1, "us-east-1a", "22.4"),
    ]:
        market.front.prices.sell_spot("p5.48xlarge", usd, zone=zone, since=NOW + timedelta(hours=hour))

    rates = {zone: market.rate(a_spot_record(zone)) for zone in ("us-east-1a", "us-east-1b")}
    assert rates == {"us-east-1a": 22_400_000, "us-east-1b": 29_900_000}


@needs(PRODUCT)
def test_a_recorded_product_is_read() -> None:
    text = (REAL_DATA / PRODUCT).read_text()

    assert list(on_demand_rates(text)) == [
        ("m5.large", Rate(micros=96_000, currency="USD", since=date(2021, 2, 1))),
    ]


@needs(PRODUCT)
def test_a_recorded_product_comes_through_the_sdk(market: Market) -> None:
    product = json.loads((REAL_DATA / PRODUCT).read_text())
    product["product"]["attributes"]["regionCode"] = "us-east-1"  # not yet told in 2021
    market.front.prices.products.append(product)

    assert market.price(a_record("m5.large")) == Price(
        rate_micros=96_000, currency="USD", source=LISTED.replace("2026-11-01", "2021-02-01")
    )


@needs(SPOT_MONTH)
def test_a_recorded_month_of_spot_prices_is_read(front: Front, aws: Build) -> None:
    recorded = json.loads((REAL_DATA / SPOT_MONTH).read_text())["SpotPriceHistory"]
    history = [item | {"Timestamp": datetime.fromisoformat(item["Timestamp"])} for item in recorded]
    market = a_market(front, aws)
    market.clock[0] = datetime(2021, 2, 1, 12, 0, tzinfo=UTC)
    market.front.prices.spot_prices += history
    zones = {item["AvailabilityZone"] for item in history}

    assert len(zones) == 5
    for zone in zones:
        newest = max(
            (spot_price(item) for item in history if item["AvailabilityZone"] == zone),
            key=lambda price: (price[2] <= market.clock[0], price[2]),
        )
        assert market.rate(a_spot_record(zone, sku="m5.large")) == newest[3] > 30_000


@needs(PRODUCT, SPOT_MONTH)
def test_recorded_answers_fit_the_model() -> None:
    """So that the stand-in's own strictness is not stricter than AWS."""
    history = json.loads((REAL_DATA / SPOT_MONTH).read_text())
    product = (REAL_DATA / PRODUCT).read_text()
    shape = pricing.operation("ec2", "DescribeSpotPriceHistory").output_shape
    body = pricing.written("ec2", "DescribeSpotPriceHistory", history)
    read = create_parser("ec2").parse({"status_code": 200, "headers": {}, "body": body}, shape)

    assert len(read["SpotPriceHistory"]) == 250
    pricing.must_fit({"SpotPriceHistory": read["SpotPriceHistory"]}, shape)
    pricing.written("pricing", "GetProducts", {"FormatVersion": "aws_v1", "PriceList": [product]})


@needs(PUBLISHED)
def test_the_table_agrees_with_the_published_list() -> None:
    with (REAL_DATA / PUBLISHED).open(encoding="utf-8", newline="") as file:
        published = {row["instance_type"]: Decimal(row["on_demand_usd_per_hour"]) for row in csv.DictReader(file)}
    ours = {sku: row.usd_per_hour for sku, row in builtin_types().items()}
    assert ours == {sku: published.get(sku) for sku in ours}
