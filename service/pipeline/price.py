"""Gives each resource its hourly rate: the price file first, then what its provider quotes, less the source's discount.

Pure, apart from reading the file once at start-up. A resource nobody has a price for has none; it never costs zero by
omission.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from policies.quantities import format_amount, parse_amount
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef
from service.documents import Currency, Discount, nearest
from service.model import Known
from service.pipeline.entries import read_entries

DEAREST_MICROS = 100_000_000 * 10**6
"""Per hour. The dearest machine costs some millions in the smallest currencies; ten years of this fit the meter."""


def _pattern(value: str) -> str:
    if not value:
        raise ValueError("is empty, which fits nothing; leave it out to fit everything")
    return value


def _capacity_pattern(value: str) -> str:
    if not any(fnmatchcase(capacity, value) for capacity in CapacityType):
        raise ValueError(f"{value!r} fits no capacity type{nearest(value, CapacityType)}")
    return value


def _hourly(value: int) -> int:
    if value > DEAREST_MICROS:
        raise ValueError(f"is more than {format_amount(DEAREST_MICROS)} an hour; is it the price of one resource?")
    return value


HourlyMicros = Annotated[int, BeforeValidator(parse_amount), AfterValidator(_hourly)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Described = tuple[str, str, str, str, str, str]
"""Provider, account, region, sku, capacity type and GPU model: of a resource, or patterns for them."""


class FilePrice(BaseModel):
    """One entry of a price file. Patterns are shell patterns; the first entry that fits wins.

    Of entries with the same patterns the newest `from` counts that is not yet to come.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Pattern = "*"
    account: Pattern = "*"
    region: Pattern = "*"
    sku: Pattern = "*"
    capacity_type: Annotated[Pattern, AfterValidator(_capacity_pattern)] = "*"
    gpu_model: Pattern = "*"
    hourly: HourlyMicros = Field(description="for the whole resource")
    currency: Currency = "USD"
    as_of: date
    since: date | None = Field(None, alias="from")
    """The first day it counts, in UTC; without one it counts for all time before the others of its patterns."""

    @property
    def patterns(self) -> Described:
        return (self.provider, self.account, self.region, self.sku, self.capacity_type, self.gpu_model)


class _Dated:
    """Entries of the same patterns, by the day they begin to count."""

    def __init__(self, patterns: Described) -> None:
        self._patterns = patterns
        self._days: list[date] = []
        self._entries: list[FilePrice] = []

    def add(self, entry: FilePrice) -> None:
        """Of two for one day the first counts."""
        day = entry.since or date.min
        place = bisect_right(self._days, day)
        if self._days[place - 1 : place] != [day]:
            self._days.insert(place, day)
            self._entries.insert(place, entry)

    def fits(self, described: Described) -> bool:
        return all(fnmatchcase(value, pattern) for value, pattern in zip(described, self._patterns, strict=True))

    def on(self, day: date) -> FilePrice | None:
        place = bisect_right(self._days, day)
        return self._entries[place - 1] if place else None


class PriceFile:
    """The prices a person wrote down; they win over list prices."""

    def __init__(self, entries: Sequence[FilePrice] = (), *, name: str = "") -> None:
        dated: dict[Described, _Dated] = {}
        for entry in entries:
            dated.setdefault(entry.patterns, _Dated(entry.patterns)).add(entry)
        self._dated = tuple(dated.values())
        self._name = name
        self._fitting = lru_cache(maxsize=4096)(self._find)  # a fleet has many machines and few sorts of them

    def __bool__(self) -> bool:
        """Whether it says anything at all."""
        return bool(self._dated)

    @classmethod
    def read(cls, path: Path) -> PriceFile:
        """A YAML list of prices. Raises ValueError that names the file, the entry and the field."""
        return cls(read_entries(path, FilePrice, what="price file"), name=path.name)

    def quote(self, record: ResourceRecord, on: date) -> Price | None:
        """What the first entry says that fits it and counts on that day."""
        described = (
            record.ref.provider,
            record.ref.account,
            record.ref.region,
            record.sku,
            record.capacity_type.value,
            record.gpu_model or "",
        )
        entry = next((entry for dated in self._fitting(described) if (entry := dated.on(on)) is not None), None)
        if entry is None:
            return None
        since = f", from {entry.since.isoformat()} on" if entry.since else ""
        source = f"file {self._name}, {entry.as_of.isoformat()}{since}"
        return Price(rate_micros=entry.hourly, currency=entry.currency, source=source)

    def _find(self, described: Described) -> Sequence[_Dated]:
        return [dated for dated in self._dated if dated.fits(described)]


def price_of(
    record: ResourceRecord,
    file: PriceFile,
    quoted: Mapping[ResourceRef, Price],
    discounts: Iterable[Discount] = (),
    *,
    on: date,
) -> Price | None:
    """The running rate of a resource on a day, or None when nobody knows it. What the file says is final: nothing comes
    off.
    """
    price = file.quote(record, on)
    if price is not None:
        return price
    price = quoted.get(record.ref)
    discount = next((discount for discount in discounts if _fits(discount, record)), None)
    return price if price is None or discount is None else _less(price, discount.percent)


def together(members: Sequence[Known | None]) -> Price | None:
    """What the members of a group cost now: None where one has no price, or not all are in one currency."""
    known = [member for member in members if member is not None]
    rates = [member.rate_micros for member in known]
    currencies = {member.price.currency for member in known if member.price is not None}
    if len(known) < len(members) or None in rates or len(currencies) != 1:
        return None
    return Price(rate_micros=sum(rate or 0 for rate in rates), currency=currencies.pop(), source="its members together")


def _fits(discount: Discount, record: ResourceRecord) -> bool:
    fits_capacity = not discount.capacity_types or record.capacity_type in discount.capacity_types
    return fits_capacity and (not discount.skus or any(fnmatchcase(record.sku, sku) for sku in discount.skus))


@lru_cache(maxsize=4096)  # a fleet has many machines and few prices
def _less(price: Price, percent: Decimal) -> Price:
    """To the nearest micro-unit, ties to even."""
    rate = round(price.rate_micros * (1 - Fraction(percent) / 100))
    return replace(price, rate_micros=rate, source=f"{price.source}; less {percent:f} %")
