"""The Cloud Billing Catalog: SKUs of Compute Engine in Google's own words and nesting, with numbers made up."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import answers
from tests.providers.gcp.cloud_lists import page
from tests.providers.gcp.cloud_refusals import not_found

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]
COMPUTE = "6F81-5844-456A"
AMERICAS = ("us-central1", "us-east1", "us-west1")
GROUPS = {"Core": "CPU", "Ram": "RAM", "GPU": "GPU", "Storage": "LocalSSD"}
UNITS = {"RAM": "GiBy.h", "LocalSSD": "GiBy.mo"}


class Billing:
    """Nothing, until a test lists it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.skus: list[Json] = []

    def state(self) -> object:
        return None

    def list(
        self,
        description: str,
        price: str,
        *,
        group: str | None = None,
        usage: str | None = None,
        unit: str | None = None,
        regions: Sequence[str] = AMERICAS,
        currency: str = "USD",
        tiers: Sequence[str] = (),
    ) -> Json:
        """One SKU. Its group, usage type and unit are as Google files such a text, unless said otherwise."""
        if group is None:
            words = description.partition(" running in ")[0].split()
            group = next((group for word, group in GROUPS.items() if word in words), "GPU")
            group = "N1Standard" if "N1 Predefined" in description else group
        ram = "Ram" in description.split()
        found = {
            "name": f"services/{COMPUTE}/skus/{len(self.skus):012X}",
            "skuId": f"{len(self.skus):012X}",
            "description": description,
            "category": {
                "serviceDisplayName": "Compute Engine",
                "resourceFamily": "Storage" if group == "LocalSSD" else "Compute",
                "resourceGroup": group,
                "usageType": usage or ("Preemptible" if "Spot" in description else "OnDemand"),
            },
            "serviceRegions": list(regions),
            "pricingInfo": [
                {
                    "summary": "",
                    "pricingExpression": {
                        "usageUnit": unit or ("GiBy.h" if ram else UNITS.get(group, "h")),
                        "displayQuantity": 1,
                        "tieredRates": [
                            {"startUsageAmount": 10 * number, "unitPrice": money(amount, currency)}
                            for number, amount in enumerate((*tiers, price))
                        ],
                        "baseUnit": "s",
                    },
                    "currencyConversionRate": 1,
                    "effectiveTime": f"{self.cloud.now():%Y-%m-%dT%H:%M:%S}.681Z",
                }
            ],
            "serviceProviderName": "Google",
            "geoTaxonomy": {"type": "MULTI_REGIONAL", "regions": list(regions)},
        }
        self.skus.append(found)
        return found

    @answers("cloudbilling.services.skus.list")
    def _list(self, call: Call) -> Json:
        if call.names["servicesId"] != COMPUTE:
            raise not_found(f"services/{call.names['servicesId']}")
        most = min(call.query.get("pageSize") or 5000, 5000, self.cloud.most_per_page)
        found = [(sku["skuId"], sku) for sku in self.skus]
        told, token = page(found, most=most, token=call.query.get("pageToken"), question="skus")
        return {"skus": [sku for _, sku in told], "nextPageToken": token or ""}


def money(amount: str, currency: str = "USD") -> Json:
    units, nanos = divmod(int(Decimal(amount) * 10**9), 10**9)
    return {"currencyCode": currency, "units": str(units), "nanos": nanos}
