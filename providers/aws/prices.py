"""Turns machines into hourly rates: EC2's spot price history and the AWS Price List first, a built-in table last.

Whatever a rate is not (another region, an upper bound, a guess at the operating system) its source says. What nobody
lists has no price. Discounts are not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Lock
from typing import Any

from providers.aws.accounts import Accounts
from providers.aws.builtin import builtin_price, place_of
from providers.aws.client import UNREADABLE
from providers.errors import ProviderError, Unreachable
from providers.price_lists import EVERYBODY, NOT_ITS_OWN, Key, Memory, Rate, quoted, to_micros
from providers.questions import Questions, batches
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef

AT_ONCE = 8
"""Questions to one account; threads here only wait."""
PATIENCE_SECONDS = 40.0
"""What both attempts of one call may take. A cycle does not wait longer for a price that has a list to fall back on."""
SPOT_HOLDS, SPOT_USABLE = timedelta(minutes=10), timedelta(days=1)
"""Spot prices move a few times a day; each move closes a row of the meter, so no more than six an hour and machine."""
LIST_HOLDS, LIST_USABLE = timedelta(hours=12), timedelta(days=7)
"""The Price List moves a few times a year."""
SPOT_KEYS_PER_CALL = 100
SPOT_PAGE = 1000
TYPES_PER_CALL = 40
"""Their names are joined by commas in one filter, of 1,024 characters at most."""
PRODUCTS_PAGE = 100

NOWHERE = ""
"""The place of a spot machine whose zone EC2 did not say: it has no spot price."""


class AwsPrices:
    """What AWS charges by list. Asks only for what is in use, in batches, and remembers for minutes to hours."""

    def __init__(self, accounts: Accounts, *, source: str, now: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._questions: Questions[tuple[str, str, str, int]] = Questions(
            "AWS", patience=PATIENCE_SECONDS, at_once=AT_ONCE
        )
        self._source = source
        self._now = now
        self._spot: Memory[Rate] = Memory("EC2's spot price history", holds=SPOT_HOLDS, usable=SPOT_USABLE)
        self._list: Memory[Rate] = Memory("the AWS Price List", holds=LIST_HOLDS, usable=LIST_USABLE)
        self._lock = Lock()
        """Held while asking: whoever comes second finds the answers instead of asking again."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """Never raises: a service that fails leaves its earlier answers standing, and then the next one counts."""
        return quoted(records, _alike, self._prices)

    def _prices(self, examples: Sequence[ResourceRecord]) -> Sequence[Price | None]:
        now = self._now()
        with self._lock:
            self._ask_spot([one for one in examples if one.capacity_type is CapacityType.SPOT], now)
            self._ask_list([one for one in examples if self._spot_rate(one, now) is None], now)
            return [self._price(one, now) for one in examples]

    def _price(self, record: ResourceRecord, now: datetime) -> Price | None:
        """The best that is known, and in words what it is."""
        spot = self._spot_rate(record, now)
        if spot is not None:
            source = f"EC2 spot price history {spot.since}: spot in {record.zone}, {spot.currency}; Linux assumed"
            return Price(rate_micros=spot.micros, currency=spot.currency, source=source)
        key = _list_key(record)
        listed = self._list.told(key, now)
        if listed is not None:
            source = f"AWS Price List {listed.since}: on demand in {key[1]}, {listed.currency}"
            caveats = [source, "Linux and shared tenancy assumed", *self._caveats(record)]
            return Price(rate_micros=listed.micros, currency=listed.currency, source="; ".join(caveats))
        return builtin_price(record.sku, key[1], *self._caveats(record), self._list.why_none(key))

    def _caveats(self, record: ResourceRecord) -> Iterable[str]:
        """Why an on-demand price is not what this machine costs."""
        if record.capacity_type in NOT_ITS_OWN:
            yield NOT_ITS_OWN[record.capacity_type]
        if record.capacity_type is CapacityType.SPOT:
            yield self._spot.why_none(_spot_key(record)) or "its zone is not known"

    # the spot market

    def _spot_rate(self, record: ResourceRecord, now: datetime) -> Rate | None:
        return self._spot.told(_spot_key(record), now) if record.capacity_type is CapacityType.SPOT else None

    def _ask_spot(self, records: Iterable[ResourceRecord], now: datetime) -> None:
        places = {_spot_key(record): (record.ref.account, record.ref.region) for record in records if record.zone}
        by_place: dict[tuple[str, str], list[Key]] = {}
        for key in self._spot.due(places, now):
            by_place.setdefault(places[key], []).append(key)
        self._ask(
            self._spot,
            by_place,
            SPOT_KEYS_PER_CALL,
            lambda account, region, keys: self._spot_rates(account, region, keys, now),
            now,
        )

    def _spot_rates(self, account: str, region: str, keys: Sequence[Key], now: datetime) -> Mapping[Key, Rate]:
        """The price of each key at this moment: from now until now, EC2 answers the last change before."""
        wanted = {
            "availability-zone": sorted({zone for _, zone, _ in keys}),
            "instance-type": sorted(
                {sku for _, _, sku in keys}
            ),  # by filter, as one unknown type would fail the others
            "product-description": ["Linux/UNIX"],
        }
        newest: dict[Key, tuple[datetime, Rate]] = {}
        for item in self._accounts.of(account).items(
            "ec2",
            region,
            "DescribeSpotPriceHistory",
            "SpotPriceHistory",
            prompt=True,
            StartTime=now,
            EndTime=now,
            Filters=[{"Name": name, "Values": values} for name, values in wanted.items()],
            MaxResults=SPOT_PAGE,
        ):
            zone, sku, since, micros = spot_price(item)
            key = account, zone, sku
            if micros > 0 and since <= now and (key not in newest or newest[key][0] < since):
                newest[key] = since, Rate(micros=micros, currency=_currency(region), since=since.date())
        return {key: rate for key, (_, rate) in newest.items()}

    # the Price List

    def _ask_list(self, records: Iterable[ResourceRecord], now: datetime) -> None:
        endpoint = price_list_region(self._accounts.home.home_region)
        if endpoint is None:
            return
        by_place: dict[tuple[str, str], list[Key]] = {}
        for key in self._list.due(map(_list_key, records), now):
            by_place.setdefault((EVERYBODY, key[1]), []).append(key)
        self._ask(
            self._list,
            by_place,
            TYPES_PER_CALL,
            lambda _, place, keys: self._listed_rates(endpoint, place, [sku for _, _, sku in keys]),
            now,
        )

    def _listed_rates(self, endpoint: str, place: str, skus: Sequence[str]) -> Mapping[Key, Rate]:
        """On-demand rates of these types. A type with two different ones is left out: which one is ours?"""
        wanted = {
            "regionCode": place,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",  # not: reserved and unused, or allocated
        }
        filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in wanted.items()]
        filters.append({"Type": "ANY_OF", "Field": "instanceType", "Value": ",".join(skus)})
        found: dict[str, dict[tuple[int, str], Rate]] = {}
        for text in self._accounts.home.items(
            "pricing",
            endpoint,
            "GetProducts",
            "PriceList",
            prompt=True,
            ServiceCode="AmazonEC2",
            FormatVersion="aws_v1",
            Filters=filters,
            MaxResults=PRODUCTS_PAGE,
        ):
            for sku, rate in on_demand_rates(str(text)):
                found.setdefault(sku, {})[rate.micros, rate.currency] = rate
        return {
            (EVERYBODY, place, sku): rate for sku, rates in found.items() if len(rates) == 1 for rate in rates.values()
        }

    # both

    def _ask(
        self,
        memory: Memory[Rate],
        due: Mapping[tuple[str, str], Sequence[Key]],
        at_once: int,
        ask: Callable[[str, str, Sequence[Key]], Mapping[Key, Rate]],
        now: datetime,
    ) -> None:
        """Put all questions side by side; what fails is remembered with its reason and sinks no other."""

        def answer(account: str, place: str, keys: Sequence[Key]) -> Mapping[Key, Rate]:
            try:
                return ask(account, place, keys)
            except (*UNREADABLE, ArithmeticError) as error:
                raise Unreachable(f"a price of AWS cannot be read: {error!r}") from error

        asked = {
            (*place, memory.name, number): batch
            for place, keys in due.items()
            for number, batch in enumerate(batches(keys, at_once))
        }
        answers = self._questions.answers({key: partial(answer, key[0], key[1], batch) for key, batch in asked.items()})
        for key, told in answers.items():
            if isinstance(told, ProviderError):
                import structlog  # a third of what this package takes to import, and seldom needed

                structlog.get_logger().warning("prices are not renewed", source=self._source, reason=told.sentence)
                memory.failed(asked[key], told, now)
            else:
                memory.answered(asked[key], told, now)


# Answers → rates, pure.


def spot_price(item: Mapping[str, Any]) -> tuple[str, str, datetime, int]:
    """One entry of DescribeSpotPriceHistory: where, what, since when, micro-units an hour."""
    since = item["Timestamp"].astimezone(UTC)
    return item["AvailabilityZone"], item["InstanceType"], since, to_micros(Decimal(item["SpotPrice"]))


def on_demand_rates(text: str) -> Iterable[tuple[str, Rate]]:
    """(machine type, rate) of one product of GetProducts. Nothing for capacity blocks, and for what lists at zero."""
    entry = json.loads(text)
    attributes = entry["product"]["attributes"]
    if attributes.get("marketoption", "OnDemand") != "OnDemand":
        return
    for term in entry["terms"].get("OnDemand", {}).values():
        since = date.fromisoformat(term["effectiveDate"][:10])
        for dimension in term["priceDimensions"].values():
            for currency, amount in dimension["pricePerUnit"].items():
                micros = to_micros(Decimal(amount))
                if dimension["unit"] == "Hrs" and micros > 0:
                    yield attributes["instanceType"], Rate(micros=micros, currency=currency, since=since)


# Where is what.


def price_list_region(home_region: str) -> str | None:
    """The nearest region that serves the Price List, of the few that do. None where a partition has none."""
    if home_region.startswith("cn-"):
        return "cn-northwest-1"
    if re.match(r"(us-gov|us-iso|eu-isoe|eusc)", home_region):
        return None
    return {"eu": "eu-central-1", "ap": "ap-south-1"}.get(home_region[:2], "us-east-1")


def _currency(region: str) -> str:
    return "CNY" if region.startswith("cn-") else "USD"


def _alike(record: ResourceRecord) -> tuple[object, ...]:
    """What a price depends on."""
    return record.ref.account, record.ref.region, record.zone, record.sku, record.capacity_type


# A place is a zone on the spot market, a region or Local Zone group in the Price List. Each account has its own names
# for the zones; the Price List is everybody's.


def _spot_key(record: ResourceRecord) -> Key:
    return record.ref.account, record.zone or NOWHERE, record.sku


def _list_key(record: ResourceRecord) -> Key:
    return EVERYBODY, place_of(record.ref.region, record.zone), record.sku
