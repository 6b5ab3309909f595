"""Turns machines into hourly rates: the Cloud Billing Catalog's SKUs of their vCPUs, memory and GPUs summed, a built-in
table last.

Whatever a rate is not (on demand for want of a spot price, without a part, without fees) its source says. A text that
is not known is no price. Discounts are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from threading import Lock

from providers.errors import Forbidden, ProviderError, Unreachable
from providers.gcp.builtin import LOCAL_SSD, Parts, builtin_price, fees_of, parts_of, words_of
from providers.gcp.client import Client, Json, NotEnabled
from providers.price_lists import EVERYBODY, NOT_ITS_OWN, Memory, Rate, quoted, to_micros
from providers.questions import Questions
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef

SKUS = "/v1/services/6F81-5844-456A/skus"
"""Compute Engine's. Management fees are other services'; discounts are an account's own."""
PAGE = 5000
"""The catalogue's most. It has some ten thousands."""
FIELDS = (
    "nextPageToken,skus(description,category(resourceGroup,usageType),serviceRegions,"
    "pricingInfo(pricingExpression(usageUnit,tieredRates(unitPrice))))"
)
HOLDS, USABLE = timedelta(hours=12), timedelta(days=7)
"""The catalogue itself is renewed twice a day; spot prices move once a month."""
PATIENCE_SECONDS = 40.0
"""A cycle does not wait longer for prices that have a table to fall back on; what comes later counts in the next."""
CATALOGUE = (EVERYBODY, "everywhere", "Compute Engine")
"""It cannot be asked for less: one answer for all projects and regions."""
UNREADABLE = (KeyError, IndexError, TypeError, ValueError, AttributeError)

WORDS = {CapacityType.ON_DEMAND: "on demand", CapacityType.SPOT: "spot", CapacityType.FLEX_START: "flex-start"}
"""What the catalogue has rates of its own for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What an hour of one part costs, and since when that is seen."""

    amount: Fraction
    currency: str
    since: date


@dataclass(frozen=True, kw_only=True, slots=True)
class Sku:
    """What one SKU of the catalogue says: a part, how it is bought, where, and what it costs."""

    part: str
    capacity: CapacityType
    regions: Sequence[str]
    amount: Fraction
    currency: str


Where = tuple[str, CapacityType, str]
"""(region, how it is bought, part)"""


class Catalogue:
    """The rates of all parts of all machines that have accelerators."""

    def __init__(self, skus: Iterable[Sku], *, today: date, before: Catalogue | None = None) -> None:
        """`before`: the last one. What has not moved is as old as it was."""
        self._units: dict[Where, Unit] = {}
        self._twice: set[Where] = set()
        earlier = before._units if before is not None else {}
        for sku in skus:
            for region in sku.regions:
                where = region, sku.capacity, sku.part
                unit = Unit(amount=sku.amount, currency=sku.currency, since=today)
                known = self._units.setdefault(where, unit)
                if not _same(known, unit):
                    self._twice.add(where)
        for where, unit in self._units.items():
            if where in earlier and _same(earlier[where], unit):
                self._units[where] = earlier[where]

    def __len__(self) -> int:
        return len(self._units)

    def rate(self, region: str, capacity: CapacityType, parts: Parts) -> Rate | str:
        """The sum of the parts' rates; or, in words, why there is none."""
        units = []
        for part, amount in parts.items():
            unit = self._units.get((region, capacity, part))
            if unit is None or (region, capacity, part) in self._twice:
                kind = capacity.value.replace("_", "-")
                how = f"no {kind} price" if unit is None else f"two {kind} prices"
                return f"the Cloud Billing Catalog has {how} of {part} in {region}"
            units.append((unit, amount))
        currencies = sorted({unit.currency for unit, _ in units})
        if len(currencies) != 1:
            return f"the Cloud Billing Catalog lists its parts in {' and '.join(currencies) or 'no currency'}"
        return Rate(
            micros=to_micros(sum((unit.amount * amount for unit, amount in units), Fraction())),
            currency=currencies[0],
            since=max(unit.since for unit, _ in units),
        )


def _same(one: Unit, other: Unit) -> bool:
    return (one.amount, one.currency) == (other.amount, other.currency)


class GcpPrices:
    """What Google charges by list. Asks twice a day for everything, and keeps what machines with accelerators need."""

    def __init__(self, client: Client, *, source: str, now: Callable[[], datetime]) -> None:
        self._client = client
        self._questions: Questions[tuple[str, str]] = Questions("Google", patience=PATIENCE_SECONDS, at_once=1)
        self._source = source
        self._now = now
        self._memory: Memory[Catalogue] = Memory("the Cloud Billing Catalog", holds=HOLDS, usable=USABLE)
        self._lock = Lock()
        """Held while asking: whoever comes second finds the answer instead of asking again."""

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        """Never raises: a catalogue that fails leaves the earlier one standing, and then the built-in table counts."""
        return quoted(records, _alike, self._prices)

    def _prices(self, examples: Sequence[ResourceRecord]) -> Sequence[Price | None]:
        now = self._now()
        with self._lock:
            if examples:
                self._ask(now)
            return [self._price(one, now) for one in examples]

    def _price(self, record: ResourceRecord, now: datetime) -> Price | None:
        """The best that is known, and in words what it is."""
        parts = parts_of(record)
        if parts is None:
            return None
        catalogue = self._memory.told(CATALOGUE, now)
        if catalogue is None:
            return builtin_price(record, self._memory.why_none(CATALOGUE))
        whys: list[str] = []
        for capacity in dict.fromkeys((record.capacity_type, CapacityType.ON_DEMAND)):
            if capacity in WORDS:
                summed = _summed(catalogue, record.ref.region, capacity, parts)
                if isinstance(summed, Sum):
                    return _said(record, capacity, summed, whys)
                whys.append(summed)
        return builtin_price(record, *whys)

    def _ask(self, now: datetime) -> None:
        asked = self._memory.due([CATALOGUE], now)
        if not asked:
            return
        [told] = self._questions.answers({(EVERYBODY, "catalogue"): lambda: self._renew(now)}).values()
        if isinstance(told, ProviderError):
            import structlog  # a third of what this package takes to import, and seldom needed

            structlog.get_logger().warning("prices are not renewed", source=self._source, reason=told.sentence)
            self._memory.failed(asked, told, now)

    def _renew(self, now: datetime) -> Catalogue:
        """Kept by the thread that asks: a catalogue that came too late for one cycle counts in the next."""
        pages = self._client.pages(
            "cloudbilling",
            SKUS,
            query={"currencyCode": "USD", "pageSize": PAGE, "fields": FIELDS},
            prompt=True,
        )
        try:
            skus = [sku for page in pages for told in page.get("skus") or () if (sku := read(told)) is not None]
        except NotEnabled as error:
            raise Forbidden(error.sentence, permission="the Cloud Billing API enabled") from error
        except UNREADABLE as error:
            raise Unreachable(f"the Cloud Billing Catalog cannot be read: {error!r}") from error
        if not skus:
            raise Unreachable("the Cloud Billing Catalog was answered without any price that is known here")
        catalogue = Catalogue(skus, today=now.date(), before=self._memory.told(CATALOGUE, now))
        self._memory.answered([CATALOGUE], {CATALOGUE: catalogue}, now)
        return catalogue


def _alike(record: ResourceRecord) -> tuple[object, ...]:
    """What a price depends on."""
    return (
        record.ref.region,
        record.ref.kind,
        record.sku,
        record.capacity_type,
        record.gpu_model,
        record.gpu_count,
        record.gpu_share,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sum:
    """What a machine costs by the catalogue."""

    rate: Rate
    parts: Parts
    missing: str = ""
    """What is not in it, in words."""


def _summed(catalogue: Catalogue, region: str, capacity: CapacityType, parts: Parts) -> Sum | str:
    """The rate of all parts, or why there is none. Local SSD is little enough to do without."""
    rate = catalogue.rate(region, capacity, parts)
    if isinstance(rate, Rate):
        return Sum(rate=rate, parts=parts)
    fewer = {part: amount for part, amount in parts.items() if part != LOCAL_SSD}
    without = catalogue.rate(region, capacity, fewer)
    return Sum(rate=without, parts=fewer, missing=rate) if isinstance(without, Rate) else rate


def _said(record: ResourceRecord, capacity: CapacityType, summed: Sum, whys: Iterable[str]) -> Price:
    rate = summed.rate
    said = (
        f"Cloud Billing Catalog {rate.since}: {WORDS[capacity]} in {record.ref.region}, {rate.currency}",
        words_of(summed.parts),
        summed.missing,
        NOT_ITS_OWN.get(record.capacity_type, "") if capacity is not record.capacity_type else "",
        *whys,
        fees_of(record),
    )
    source = "; ".join(word for word in said if word)
    return Price(rate_micros=rate.micros, currency=rate.currency, source=source)


# One SKU of the catalogue → what it says, pure. A text that is not exactly one of these is no price.

_MACHINES = {
    "A2": "A2",
    "A3": "A3",
    "A3Plus": "A3 Mega",
    "A3Ultra": "A3 Ultra",
    "Custom": "N1 custom",
    "G2": "G2",
    "G2 Custom": "G2 custom",
    "G4": "G4",
    "N1 Predefined": "N1",
}
BODIES: Mapping[str, str] = {
    **{f"{text} Instance Core": f"{series} vCPU" for text, series in _MACHINES.items()},
    **{f"{text} Instance Ram": f"{series} GiB" for text, series in _MACHINES.items()},
    "Custom Extended Instance Ram": "N1 custom extended GiB",
    **{f"Nvidia Tesla {model} GPU": model for model in ("A100", "A100 80GB", "K80", "P100", "P4", "T4", "V100")},
    "Nvidia H100 80GB GPU": "H100",
    "Nvidia H100 80GB Mega GPU": "H100 Mega",
    "Nvidia H100 Mega 80GB GPU": "H100 Mega",
    "Nvidia H100 80GB Plus GPU": "H100 Mega",
    "H200 141GB GPU": "H200",
    "Nvidia L4 GPU": "L4",
    "RTX 6000 96GB": "RTX PRO 6000",
    "A4 Nvidia B200 (1 gpu slice)": "B200 slice",
    "TpuV5e": "TPU v5e",
    "TpuV5p": "TPU v5p",
    "TpuV6e": "TPU v6e",
    "SSD backed Local Storage": LOCAL_SSD,
}
"""What the catalogue calls each part, without how it is bought and where."""
GROUPS = frozenset({"CPU", "GPU", "LocalSSD", "N1Standard", "RAM", "TPU"})
SPOT, FLEX_START = "Spot Preemptible", "DWS Defined Duration"
BOUGHT = {None: CapacityType.ON_DEMAND, SPOT: CapacityType.SPOT, FLEX_START: CapacityType.FLEX_START}
TEXT = re.compile(
    rf"((?P<before>{SPOT}|{FLEX_START}) )?(?P<body>\S.*?)( attached to (?P<attached>{SPOT}|{FLEX_START}) VMs)?"
    r"( (running )?in [^\W\da-z_][\w.'-]*( [^\W\da-z_][\w.'-]*)*)?"  # a place: words in capitals
)
HOURS_A_MONTH = 730
MOST_OF_A_PART = 1_000_000
"""Of any currency: no part of a machine costs more an hour, and what does could not be stored."""


def read(sku: Json) -> Sku | None:
    """None for what is no part of a machine with accelerators, is bought in other ways, or cannot be read."""
    try:
        return _read(sku)
    except UNREADABLE:
        return None


def _read(sku: Json) -> Sku | None:
    category = sku["category"]
    if category.get("resourceGroup") not in GROUPS:
        return None
    known = meant(sku["description"])
    usages = {"OnDemand"} if known and known[1] is CapacityType.ON_DEMAND else {"OnDemand", "Preemptible"}
    expression = sku["pricingInfo"][-1]["pricingExpression"]  # in the order of time
    if known is None or category.get("usageType") not in usages or expression["usageUnit"] != _unit(known[0]):
        return None
    paid = next((price for tier in expression["tieredRates"] if (price := _amount(tier["unitPrice"]))[0] > 0), None)
    if paid is None or paid[0] > MOST_OF_A_PART:
        return None
    amount, currency = paid
    part, capacity = known
    return Sku(
        part=part,
        capacity=capacity,
        regions=tuple(sku["serviceRegions"]),
        amount=amount / HOURS_A_MONTH if part == LOCAL_SSD else amount,
        currency=currency,
    )


def meant(description: str) -> tuple[str, CapacityType] | None:
    """Of which part a text speaks, and how it is bought.

    The text counts, not the usage type: a few spot SKUs are filed under `OnDemand`.
    """
    found = TEXT.fullmatch(description)
    if found is None:
        return None
    before, attached = found["before"], found["attached"]
    if before and attached and before != attached:
        return None
    bought, body = before or attached, found["body"]
    if bought == FLEX_START:  # which leaves a word out
        body = re.sub(r"^(\w+) (Core|Ram)$", r"\1 Instance \2", body)
    return (BODIES[body], BOUGHT[bought]) if body in BODIES else None


def _unit(part: str) -> str:
    if part == LOCAL_SSD:
        return "GiBy.mo"
    return "GiBy.h" if part.endswith(" GiB") else "h"


def _amount(money: Json) -> tuple[Fraction, str]:
    return Fraction(int(money.get("units") or 0)) + Fraction(int(money.get("nanos") or 0), 10**9), money["currencyCode"]
