"""Turns machines into hourly rates: the Azure Retail Prices API first, a built-in table last.

Whatever a rate is not (another region, an upper bound, a guess at the operating system) its source says. What nobody
lists has no price. Discounts are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from threading import Lock

from providers.azure.builtin import builtin_price, spelled
from providers.azure.client import Client, Json
from providers.errors import ProviderError, Unreachable
from providers.price_lists import EVERYBODY, NOT_ITS_OWN, Key, Memory, Rate, quoted, to_micros
from providers.questions import Questions
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef

LIST = "Azure Retail Prices"
CURRENCY = "USD"
"""What Microsoft sets its prices in. Those in other currencies are for reference."""
HOLDS, USABLE = timedelta(hours=12), timedelta(days=7)
"""The list moves a few times a year, its spot prices a few times a month."""
SIZES_PER_CALL = 15
"""Each is a term of the filter, of which OData bears some dozens."""
AT_ONCE = 4
PATIENCE_SECONDS = 40.0
"""A cycle does not wait longer for prices that have a table to fall back on."""
MOST_MICROS = 1_000_000 * 1_000_000
"""No machine costs a million an hour, and what does could not be stored."""
UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What one size costs in a region; or, in words, why the list does not say."""

    on_demand: Rate | str
    spot: Rate | str


class AzurePrices:
    """What Azure charges by list. Asks only for what is in use, in batches, and remembers for half a day."""

    def __init__(self, client: Client, *, source: str, now: Callable[[], datetime]) -> None:
        self._client = client
        self._questions: Questions[tuple[str, str, int]] = Questions(LIST, patience=PATIENCE_SECONDS, at_once=AT_ONCE)
        self._source = source
        self._now = now
        self._memory: Memory[Listed] = Memory(LIST, holds=HOLDS, usable=USABLE)
        self._lock = Lock()
        """Held while asking: whoever comes second finds the answers instead of asking again."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """Never raises: a list that fails leaves its earlier answers standing, and then the built-in table counts."""
        return quoted(records, _alike, self._prices)

    def _prices(self, examples: Sequence[ResourceRecord]) -> Sequence[Price | None]:
        now = self._now()
        with self._lock:
            self._ask(map(_key, examples), now)
            return [self._price(one, now) for one in examples]

    def _price(self, record: ResourceRecord, now: datetime) -> Price | None:
        """The best that is known, and in words what it is."""
        key = _key(record)
        listed = self._memory.told(key, now)
        caveats = [NOT_ITS_OWN.get(record.capacity_type, "")]
        if listed is None:
            return builtin_price(record.sku, key[1], *caveats, self._memory.why_none(key))
        if record.capacity_type is CapacityType.SPOT:
            if isinstance(listed.spot, Rate):
                return _said(listed.spot, f"spot in {key[1]}")
            caveats.append(listed.spot)
        if isinstance(listed.on_demand, Rate):
            return _said(listed.on_demand, f"on demand in {key[1]}", *caveats)
        return builtin_price(record.sku, key[1], *caveats, listed.on_demand)

    def _ask(self, keys: Iterable[Key], now: datetime) -> None:
        """Put all questions side by side; what fails is remembered with its reason and sinks no other."""
        by_region: dict[str, list[Key]] = {}
        for key in self._memory.due(keys, now):
            if not key[1].startswith("china"):  # it has a list of its own, in yuan and as one file
                by_region.setdefault(key[1], []).append(key)
        asked = {
            (EVERYBODY, region, start): due[start : start + SIZES_PER_CALL]
            for region, due in by_region.items()
            for start in range(0, len(due), SIZES_PER_CALL)
        }
        answers = self._questions.answers(
            {number: partial(self._listed, number[1], batch, now) for number, batch in asked.items()}
        )
        for number, told in answers.items():
            if isinstance(told, ProviderError):
                import structlog  # a third of what this package takes to import, and seldom needed

                structlog.get_logger().warning("prices are not renewed", source=self._source, reason=told.sentence)
                self._memory.failed(asked[number], told, now)
            else:
                self._memory.answered(asked[number], told, now)

    def _listed(self, region: str, keys: Sequence[Key], now: datetime) -> Mapping[Key, Listed]:
        sizes = [size for _, _, size in keys]
        query = {"currencyCode": f"'{CURRENCY}'", "$filter": wanted(region, sizes)}
        try:
            meters = [
                meter
                for page in self._client.prices(query)
                for item in page["Items"]
                if (meter := read(item)) is not None and meter.region == region and meter.in_force(now)
            ]
        except UNREADABLE as error:
            raise Unreachable(f"{LIST} cannot be read: {error!r}") from error
        by_size: dict[str, list[Meter]] = {}
        for meter in meters:
            by_size.setdefault(meter.size.lower(), []).append(meter)
        return {key: chosen(by_size[key[2].lower()], region) for key in keys if key[2].lower() in by_size}


def wanted(region: str, sizes: Sequence[str]) -> str:
    """The filter for these sizes' meters, as they are charged for by the hour. Case counts in it."""
    fixed = {"serviceName": "Virtual Machines", "priceType": "Consumption", "armRegionName": region}
    terms = [_equals(field, value) for field, value in fixed.items()]
    return " and ".join([*terms, f"({' or '.join(_equals('armSkuName', size) for size in sizes)})"])


def _equals(field: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"{field} eq '{quoted}'"


def _said(rate: Rate, what: str, *caveats: str) -> Price:
    said = (f"{LIST} {rate.since}: {what}, {rate.currency}; Linux assumed", *caveats)
    return Price(rate_micros=rate.micros, currency=rate.currency, source="; ".join(word for word in said if word))


def _alike(record: ResourceRecord) -> tuple[object, ...]:
    """What a price depends on."""
    return _key(record), record.capacity_type


def _key(record: ResourceRecord) -> Key:
    return EVERYBODY, record.ref.region, spelled(record.sku)


# Meters of the list → what a size costs, pure.


@dataclass(frozen=True, kw_only=True, slots=True)
class Meter:
    """A line of the list by which an hour of a Linux machine is charged."""

    size: str
    region: str
    spot: bool
    primary: bool
    """Whether it is used for charging; the others are kept for reference."""
    since: datetime
    until: datetime | None
    rate: Rate

    def in_force(self, now: datetime) -> bool:
        """The list tells of prices ahead, too."""
        return self.since <= now and (self.until is None or now < self.until)


OTHERS = re.compile(r"\b(windows|low priority|cloud ?services|dedicated host|expired)\b", re.IGNORECASE)
"""Words in the names of meters that are no Linux machine's, or no longer charge."""


def read(item: Json) -> Meter | None:
    """One item of the list; None for what is charged by other terms. Raises what is in UNREADABLE."""
    names = [item["productName"], item["skuName"], item["meterName"]]
    by_the_hour = (item["serviceName"], item["type"], item["unitOfMeasure"]) == (
        "Virtual Machines",
        "Consumption",
        "1 Hour",
    )
    if not by_the_hour or item["currencyCode"] != CURRENCY or OTHERS.search(" / ".join(names)):
        return None
    micros = to_micros(Decimal(str(item["retailPrice"])))  # the shortest that reads as this float is what was written
    if not 0 < micros <= MOST_MICROS:
        return None
    since, until = datetime.fromisoformat(item["effectiveStartDate"]), item.get("effectiveEndDate")
    return Meter(
        size=item["armSkuName"],
        region=item["armRegionName"],
        spot=any(name.lower().endswith(" spot") for name in names),
        primary=item.get("isPrimaryMeterRegion", True),
        since=since,
        until=datetime.fromisoformat(until) if until else None,
        rate=Rate(micros=micros, currency=item["currencyCode"], since=since.date()),
    )


def chosen(meters: Sequence[Meter], region: str) -> Listed:
    """What the meters of one size say, all of which are in force."""
    return Listed(
        on_demand=_rate([meter for meter in meters if not meter.spot], "on-demand", region),
        spot=_rate([meter for meter in meters if meter.spot], "spot", region),
    )


def _rate(meters: Sequence[Meter], how: str, region: str) -> Rate | str:
    """The newest. Of two different ones none: which is ours?"""
    meters = [meter for meter in meters if meter.primary] or meters
    newest = max((meter.since for meter in meters), default=None)
    rates = {meter.rate for meter in meters if meter.since == newest}
    if len(rates) == 1:
        return rates.pop()
    return f"{LIST} has {f'two {how} prices' if rates else f'no {how} price'} of it for {region}"
