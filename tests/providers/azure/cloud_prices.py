"""The Retail Prices API: meters of machines, found by a filter. It wants no login."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.providers.azure.cloud_part import Json, Part, Told, answers
from tests.providers.azure.cloud_refusals import answer

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

HOURLY = {
    "Standard_D4s_v5": 0.23,
    "Standard_NC4as_T4_v3": 0.644,
    "Standard_NC6s_v3": 3.823,
    "Standard_NC24ads_A100_v4": 4.775,
    "Standard_NC40ads_H100_v5": 9.08,
    "Standard_ND96isr_H100_v5": 127.816,
    "Standard_NV6ads_A10_v5": 0.59,
    "Standard_NV36ads_A10_v5": 4.16,
}
"""Dollars in western Europe, as they once were; what nobody lists here is not listed."""
REGIONS = {"westeurope": "EU West", "northeurope": "EU North", "eastus": "US East"}
TERM = re.compile(r"\s*(?:(\w+)\s+eq\s+'((?:[^']|'')*)'|contains\(\s*(\w+)\s*,\s*'((?:[^']|'')*)'\s*\))\s*")
Wanted = Callable[[Json], bool]


class Misread(ValueError):
    """The filter is none."""


class Prices(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.items: list[Json] = []
        self.most_per_page = 1000
        for size, price in HOURLY.items():
            for region in REGIONS:
                self.add(size, price, region=region)
                self.add(size, round(price * 1.4, 4), region=region, windows=True)
                self.add(size, round(price * 0.35, 4), region=region, how="Spot")
                self.add(size, round(price * 0.2, 4), region=region, how="Low Priority")
                self.add(size, round(price * 8760 * 0.6, 2), region=region, term="1 Year")

    def add(
        self,
        size: str,
        price: float,
        *,
        region: str = "westeurope",
        how: str = "",
        windows: bool = False,
        term: str = "",
        since: str = "2026-01-01T00:00:00Z",
        **fields: Any,
    ) -> Json:
        """A meter. `how` is `Spot` or `Low Priority`, `term` that of a reservation."""
        short = size.removeprefix("Standard_").replace("_", " ")
        product = f"Virtual Machines {short.split(' ')[0].rstrip('0123456789')} Series{' Windows' if windows else ''}"
        item: Json = {
            "currencyCode": "USD", "tierMinimumUnits": 0.0, "retailPrice": price, "unitPrice": price,
            "armRegionName": region, "location": REGIONS.get(region, region), "effectiveStartDate": since,
            "meterId": str(uuid.uuid4()), "meterName": f"{short} {how}".strip(), "productId": "DZH318Z0CSHK",
            "skuId": "DZH318Z0CSHK/00QN", "productName": product, "skuName": f"{short} {how}".strip(),
            "serviceName": "Virtual Machines", "serviceId": "DZH313Z7MMC8", "serviceFamily": "Compute",
            "unitOfMeasure": "1 Hour", "type": "Reservation" if term else "Consumption",
            "isPrimaryMeterRegion": True, "armSkuName": size,
        }  # fmt: skip
        if term:
            item["reservationTerm"] = term
        item.update(fields)
        self.items.append(item)
        return item

    @answers("RetailPrices_List", "GET", "/api/retail/prices", service="Retail", action="",
             query=("$filter", "currencyCode", "meterRegion", "api-version", "$skip", "$top"))  # fmt: skip
    def list_prices(self, call: Call) -> Told:
        if "authorization" in call.headers:
            self.cloud.bugs.append("The Retail Prices API was shown a token.")
        if call.query.get("currencyCode", "USD").strip("'") != "USD":
            return answer({"Error": {"Code": "BadRequest", "Message": "Only dollars are played here."}}, status=400)
        try:
            wanted = filtered(call.query["$filter"]) if "$filter" in call.query else lambda _: True
        except Misread as error:
            message = f"Invalid OData parameters supplied: {error}"
            return answer({"Error": {"Code": "BadRequest", "Message": message}}, status=400)
        found = [item for item in self.items if wanted(item)]
        start = int(call.query.get("$skip", "0"))
        told = found[start : start + self.most_per_page]
        following = None
        if start + len(told) < len(found):
            query = urlencode({**call.query, "$skip": str(start + len(told))})
            following = f"{self.cloud.endpoint}{call.path}?{query}"
        return {
            "BillingCurrency": "USD", "CustomerEntityId": "Default", "CustomerEntityType": "Retail", "Items": told,
            "NextPageLink": following, "Count": len(told),
        }  # fmt: skip


def filtered(text: str) -> Wanted:
    """OData's `eq`, `contains`, `and`, `or` and brackets. Values count with their case, names without."""
    wanted, rest = _any(text)
    if rest.strip():
        raise Misread(f"Syntax error at {rest[:30]!r}")
    return wanted


def _any(text: str) -> tuple[Wanted, str]:
    first, rest = _all(text)
    if (word := re.match(r"\s*or\b", rest)) is None:
        return first, rest
    second, rest = _any(rest[word.end() :])
    return lambda item: first(item) or second(item), rest


def _all(text: str) -> tuple[Wanted, str]:
    first, rest = _one(text)
    if (word := re.match(r"\s*and\b", rest)) is None:
        return first, rest
    second, rest = _all(rest[word.end() :])
    return lambda item: first(item) and second(item), rest


def _one(text: str) -> tuple[Wanted, str]:
    if text.lstrip().startswith("("):
        inside, rest = _any(text.lstrip()[1:])
        if not rest.lstrip().startswith(")"):
            raise Misread("a bracket is not closed")
        return inside, rest.lstrip()[1:]
    term = TERM.match(text)
    if term is None:
        raise Misread(f"Syntax error at {text[:30]!r}")
    name, value = (term[1] or term[3]).lower(), (term[2] or term[4] or "").replace("''", "'")
    contains = term[3] is not None

    def said(item: Mapping[str, Any]) -> bool:
        told = {key.lower(): one for key, one in item.items()}.get("type" if name == "pricetype" else name, "")
        return value in told if contains else told == value

    return said, text[term.end() :]
