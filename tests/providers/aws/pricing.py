"""The Price List and the spot market, which moto lacks: in shape by botocore's own service model, in numbers made up.

A request that does not fit the model's input is refused, an answer that does not fit its output is never sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.loaders
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from moto.core.model import ServiceModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import SERIALIZERS

PRICE_LIST_REGIONS = ("us-east-1", "eu-central-1", "ap-south-1", "cn-northwest-1")
LISTED = "2026-11-01T00:00:00Z"


class Misfit(Exception):
    """Something that the service's model does not know."""


# Wire ↔ values, by the model.


@cache
def operation(service: str, name: str) -> Any:
    model = botocore.loaders.create_loader().load_service_model(service, "service-2")
    return ServiceModel(model, service).operation_model(name)


def question(service: str, name: str, fields: Mapping[str, Sequence[str]], body: bytes) -> dict[str, Any]:
    """The parameters of a request. Raises Misfit where they are not the model's."""
    model = operation(service, name)
    protocol = model.service_model.metadata["protocol"]
    flat = {key: value for key, (value, *_) in fields.items()}
    request: Any = {"body": body, "values": flat, "headers": {}, "method": "POST", "url_params": {}, "url_path": "/"}
    asked: dict[str, Any] = json.loads(body) if protocol == "json" else PROTOCOL_PARSERS[protocol](model).parse(request)
    must_fit(asked, model.input_shape)
    if protocol == "ec2":  # its parser drops what it does not know, so write it again and compare
        known = create_serializer(protocol).serialize_to_request(asked, model)["body"]
        if unknown := flat.keys() - known.keys():
            raise Misfit(f"{service}:{name} knows no {', '.join(sorted(unknown))}")
    utc = {key: value.replace(tzinfo=UTC) for key, value in asked.items() if isinstance(value, datetime)}
    return asked | utc


def written(service: str, name: str, answer: Mapping[str, Any]) -> bytes:
    """An answer as it goes over the wire. Raises Misfit where it is not the model's."""
    model = operation(service, name)
    must_fit(answer, model.output_shape)
    protocol = model.service_model.metadata["protocol"]
    body = SERIALIZERS[protocol](model).serialize(answer)["body"]
    return body if isinstance(body, bytes) else body.encode()


def must_fit(value: Mapping[str, Any], shape: Any) -> None:
    """Types, required and unknown members, lengths and ranges, and the enumerations too."""
    report = ParamValidator().validate(dict(value), shape)
    if report.has_errors():
        raise Misfit(report.generate_report())
    for given, allowed in _enumerated(value, shape):
        if given not in allowed:
            raise Misfit(f"{given!r} is none of {allowed}")


def _enumerated(value: Any, shape: Any) -> Iterator[tuple[str, Sequence[str]]]:
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from _enumerated(inner, shape.members[name])
    elif shape.type_name == "list":
        for inner in value:
            yield from _enumerated(inner, shape.member)
    elif getattr(shape, "enum", None):
        yield value, shape.enum


# What is listed.


@dataclass
class PriceBook:
    """Everything both services know; nothing, until a test lists it."""

    products: list[dict[str, Any]] = field(default_factory=list)
    spot_prices: list[dict[str, Any]] = field(default_factory=list)
    page: int = 100
    """Most items an answer holds, whatever is asked for."""

    def list(
        self,
        sku: str,
        usd: str,
        *,
        place: str = "us-east-1",
        effective: str = LISTED,
        currency: str = "USD",
        **attributes: str,
    ) -> None:
        """An on-demand hour, and beside it what it costs when reserved."""
        code = f"SKU{len(self.products):013d}"
        shown = {
            "capacitystatus": "Used",
            "instanceType": sku,
            "licenseModel": "No License required",
            "locationType": "AWS Region",
            "marketoption": "OnDemand",
            "operatingSystem": "Linux",
            "operation": "RunInstances",
            "preInstalledSw": "NA",
            "regionCode": place,
            "servicecode": "AmazonEC2",
            "tenancy": "Shared",
            "usagetype": f"BoxUsage:{sku}",
            **attributes,
        }
        on_demand = _term(code, "JRTCKXETXF", {currency: usd}, effective, {})
        lease = {"LeaseContractLength": "1yr", "OfferingClass": "standard", "PurchaseOption": "No Upfront"}
        reserved = _term(code, "4NA7Y494T4", {currency: "0.0100000000"}, effective, lease)
        self.products.append(
            {
                "product": {"productFamily": "Compute Instance", "attributes": shown, "sku": code},
                "serviceCode": "AmazonEC2",
                "terms": {"OnDemand": on_demand, "Reserved": reserved},
                "version": "20261102000000",
                "publicationDate": "2026-11-02T00:00:00Z",
            }
        )

    def sell_spot(
        self, sku: str, usd: str, *, zone: str = "us-east-1a", since: datetime, system: str = "Linux/UNIX"
    ) -> None:
        """The spot price of a type in a zone, from a moment until the next one."""
        self.spot_prices.append(
            {
                "AvailabilityZone": zone,
                "InstanceType": sku,
                "ProductDescription": system,
                "SpotPrice": usd,
                "Timestamp": since,
            }
        )

    def answer(self, action: str, region: str, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """None where there is no such service to ask."""
        start = int(asked.get("NextToken") or 0)
        most = min(self.page, asked.get("MaxResults") or self.page)
        if action == "pricing:GetProducts":
            if region not in PRICE_LIST_REGIONS:
                return None
            found: list[Any] = [json.dumps(product) for product in self._products(asked)]
            answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": found[start : start + most]}
        else:
            found = [item for item in self._spot(asked) if item["AvailabilityZone"].startswith(region)]
            answer = {"SpotPriceHistory": found[start : start + most]}
        return answer | ({"NextToken": str(start + most)} if start + most < len(found) else {})

    def _products(self, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for product in self.products:
            attributes = product["product"]["attributes"]
            if all(_matches(rule, attributes.get(rule["Field"])) for rule in asked.get("Filters", ())):
                yield product

    def _spot(self, asked: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """Newest first: changes within the time asked for, and of each series the last one before it."""
        start, end = (asked.get(name, datetime.now(UTC)) for name in ("StartTime", "EndTime"))
        fields = {
            "availability-zone": "AvailabilityZone",
            "instance-type": "InstanceType",
            "product-description": "ProductDescription",
        }
        before = set()
        for item in sorted(self.spot_prices, key=lambda item: item["Timestamp"], reverse=True):
            series = item["AvailabilityZone"], item["InstanceType"], item["ProductDescription"]
            if item["Timestamp"] > end or series in before:
                continue
            if item["Timestamp"] < start:
                before.add(series)
            if all(item[fields[rule["Name"]]] in rule["Values"] for rule in asked.get("Filters", ())):
                yield item


def _matches(rule: Mapping[str, str], value: str | None) -> bool:
    if rule["Type"] == "ANY_OF":
        return value in [word.strip() for word in rule["Value"].split(",")]
    return value == rule["Value"]


def _term(
    sku: str, offer: str, price: Mapping[str, str], effective: str, attributes: Mapping[str, str]
) -> dict[str, Any]:
    """One way of paying for a product, in the Price List's own nesting."""
    code = f"{sku}.{offer}"
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "description": "an hour",
        "appliesTo": [],
        "rateCode": f"{code}.6YS6EN2CT7",
        "pricePerUnit": dict(price),
    }
    return {
        code: {
            "sku": sku,
            "offerTermCode": offer,
            "effectiveDate": effective,
            "priceDimensions": {dimension["rateCode"]: dimension},
            "termAttributes": dict(attributes),
        }
    }
