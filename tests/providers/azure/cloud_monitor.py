"""Azure Monitor: what resources were doing, minute by minute, and the autoscale settings of scale sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import TYPE_CHECKING

from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers
from tests.providers.azure.cloud_refusals import Refusal, invalid

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

PLATFORM = {
    "microsoft.compute/virtualmachines": (
        "Percentage CPU", "Network In Total", "Network Out Total", "Disk Read Bytes", "Disk Write Bytes",
        "Available Memory Bytes", "VmAvailabilityMetric",
    ),
    "microsoft.compute/virtualmachinescalesets": ("Percentage CPU", "Network In Total", "Network Out Total"),
    "microsoft.machinelearningservices/workspaces": (
        "CpuUtilizationPercentage", "GpuUtilizationPercentage", "GpuMemoryUtilizationPercentage",
        "GpuMemoryUtilizationMegabytes", "GpuEnergyJoules",
    ),
}  # fmt: skip
"""What Azure measures by itself: of machines nothing of their GPUs. Guests may send more, under names of their own."""
AGGREGATIONS = {"average": fmean, "maximum": max, "minimum": min, "total": sum, "count": len}
INTERVALS = {"PT1M": 1, "PT5M": 5, "PT15M": 15, "PT30M": 30, "PT1H": 60, "PT6H": 360, "PT12H": 720, "P1D": 1440}
QUERY = ("timespan", "interval", "metricnames", "aggregation", "top", "orderby", "$filter", "metricnamespace",
         "resultType", "AutoAdjustTimegrain", "ValidateDimensions", "rollupby")  # fmt: skip
MOST_METRICS = 20
EQUALS = re.compile(r"([\w.]+)\s+eq\s+'([^']*)'")


@dataclass(kw_only=True)
class Series:
    resource: str
    """In small letters."""
    metric: str
    namespace: str
    dimensions: Mapping[str, str] = field(default_factory=dict)
    samples: list[tuple[int, float]] = field(default_factory=list)
    written_as: str = ""
    """The namespace, in the letters it was given in."""


class Monitor(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.series: list[Series] = []
        self.autoscale: dict[str, Json] = {}
        """By id in small letters."""

    def state(self) -> object:
        return self.autoscale

    # Truth

    def push(
        self,
        resource: str,
        metric: str,
        samples: Sequence[tuple[int, float]],
        *,
        namespace: str | None = None,
        dimensions: Mapping[str, str] | None = None,
    ) -> None:
        """Samples of a resource: (unix seconds, value), in Azure's unit. Without a namespace, that of its type."""
        said = dict(dimensions or {})
        named = (namespace or type_of(resource)).lower()
        for one in self.series:
            if (one.resource, one.metric, one.namespace, one.dimensions) == (resource.lower(), metric, named, said):
                one.samples.extend(samples)
                return
        self.series.append(
            Series(
                resource=resource.lower(), metric=metric, namespace=named, dimensions=said, samples=list(samples),
                written_as=namespace or type_of(resource),
            )
        )  # fmt: skip

    def autoscale_setting(
        self, scale_set: str, name: str = "scale", *, least: int = 1, most: int = 4, enabled: bool = True
    ) -> str:
        """A rule that keeps the capacity of a scale set within bounds; answered is its id."""
        body = self.cloud.scale_sets.scale_sets[scale_set.lower()].body
        place = body["id"].partition("/providers/")[0]
        path = f"{place}/providers/microsoft.insights/autoscalesettings/{name}"
        bounds = {"minimum": str(least), "maximum": str(most), "default": str(least)}
        self.autoscale[path.lower()] = {
            "id": path, "name": name, "type": "Microsoft.Insights/autoscaleSettings", "location": body["location"],
            "tags": {},
            "properties": {
                "enabled": enabled, "name": name, "targetResourceUri": body["id"],
                "targetResourceLocation": body["location"],
                "profiles": [{"name": "default", "capacity": bounds, "rules": []}],
            },
        }  # fmt: skip
        return path

    def repair(self) -> None:
        """Scale sets with an autoscale setting have what it says."""
        for setting in self.autoscale.values():
            told = setting["properties"]
            scale_set = self.cloud.scale_sets.scale_sets.get(told["targetResourceUri"].lower())
            if told["enabled"] and scale_set is not None:
                bounds = told["profiles"][0]["capacity"]
                now = scale_set.body["sku"]["capacity"]
                wanted = min(max(now, int(bounds["minimum"])), int(bounds["maximum"]))
                self.cloud.scale_sets.grow(scale_set, wanted)

    # Metrics

    @answers("Metrics_List", "GET", "/{resource*}/providers/Microsoft.Insights/metrics", query=QUERY)
    def metrics(self, call: Call) -> Told:
        resource = f"/{call.names['resource']}".lower()
        place = self._place(resource)
        namespace = call.query.get("metricnamespace", type_of(resource)).lower()
        start, end, step = self._when(call)
        wanted = self._wanted(call, resource, namespace)
        mine = [one for one in self.series if one.resource == resource and one.namespace == namespace]
        return {
            "cost": 59, "timespan": call.query.get("timespan", ""), "interval": call.query.get("interval", "PT1M"),
            "value": [self._metric(call, resource, metric, mine, start, end, step) for metric in wanted],
            "namespace": namespace, "resourceregion": place,
        }  # fmt: skip

    @answers("Metrics_ListAtSubscriptionScope", "GET", f"{SUBSCRIPTION}/providers/Microsoft.Insights/metrics",
             query=("region", *QUERY))  # fmt: skip
    def all_metrics(self, call: Call) -> Told:
        """Of all resources of a type in a region: told apart by `Microsoft.ResourceId`, where that is asked for."""
        if "region" not in call.query or "metricnamespace" not in call.query:
            raise invalid("The query parameters region and metricnamespace are required.", code="BadRequest")
        namespace, start = call.query["metricnamespace"].lower(), f"/subscriptions/{call.subscription}/"
        begin, end, step = self._when(call)
        mine = [
            Series(
                resource=one.resource, metric=one.metric, namespace=one.namespace, samples=one.samples,
                dimensions={**one.dimensions, "Microsoft.ResourceId": one.resource},
            )
            for one in self.series
            if one.namespace == namespace and one.resource.startswith(start)
            and self._place(one.resource) == call.query["region"].lower()
        ]  # fmt: skip
        return {
            "cost": 59, "timespan": call.query.get("timespan", ""), "interval": call.query.get("interval", "PT1M"),
            "value": [
                self._metric(call, f"/subscriptions/{call.subscription}", metric, mine, begin, end, step)
                for metric in self._wanted(call, namespace, namespace)
            ],
            "namespace": namespace, "resourceregion": call.query["region"],
        }  # fmt: skip

    @answers("MetricNamespaces_List", "GET", "/{resource*}/providers/Microsoft.Insights/metricNamespaces",
             query=("startTime",))  # fmt: skip
    def namespaces(self, call: Call) -> Told:
        """Those that something was ever written to, and the one of the resource's type."""
        resource = f"/{call.names['resource']}".lower()
        self._place(resource)
        written = {one.namespace: one.written_as for one in self.series if one.resource == resource}
        named = {type_of(resource): type_of(resource), **written}
        return {
            "value": [
                {
                    "id": f"{resource}/providers/microsoft.insights/metricNamespaces/{name.replace('/', '-')}",
                    "type": "Microsoft.Insights/metricNamespaces", "name": name.replace("/", "-"),
                    "classification": "Platform" if name in PLATFORM else "Custom",
                    "properties": {"metricNamespaceName": name},
                }
                for name in named.values()
            ]
        }  # fmt: skip

    @answers("MetricDefinitions_List", "GET", "/{resource*}/providers/Microsoft.Insights/metricDefinitions",
             query=("metricnamespace",))  # fmt: skip
    def definitions(self, call: Call) -> Told:
        resource = f"/{call.names['resource']}".lower()
        place = self._place(resource)
        namespace = call.query.get("metricnamespace", type_of(resource)).lower()
        mine = [one for one in self.series if one.resource == resource and one.namespace == namespace]
        dimensions: dict[str, dict[str, None]] = {name: {} for name in PLATFORM.get(namespace, ())}
        for one in mine:
            dimensions.setdefault(one.metric, {}).update(dict.fromkeys(one.dimensions))
        return {
            "value": [
                {
                    "id": f"{resource}/providers/microsoft.insights/metricdefinitions/{metric}",
                    "resourceId": resource, "namespace": namespace, "metricClass": "Transactions", "unit": "Percent",
                    "name": {"value": metric, "localizedValue": metric}, "isDimensionRequired": False,
                    "primaryAggregationType": "Average", "supportedAggregationTypes": ["Average", "Maximum"],
                    "metricAvailabilities": [{"timeGrain": "PT1M", "retention": "P93D"}],
                    "dimensions": [{"value": name, "localizedValue": name} for name in names],
                }
                for metric, names in dimensions.items()
            ],
            "resourceregion": place,
        }  # fmt: skip

    def _place(self, resource: str) -> str:
        thing = self.cloud.compute.machines.get(resource) or self.cloud.scale_sets.scale_sets.get(resource)
        if thing is not None:
            return str(thing.body["location"])
        if resource in self.cloud.ml.workspaces:
            return str(self.cloud.ml.workspaces[resource]["location"])
        words = f"The Resource '{'/'.join(resource.split('/')[6:])}' was not found."
        raise Refusal(404, "ResourceNotFound", words)

    def _wanted(self, call: Call, resource: str, namespace: str) -> list[str]:
        known = {*PLATFORM.get(namespace, ()), *(one.metric for one in self.series if one.namespace == namespace)}
        wanted = [name for name in call.query.get("metricnames", "").split(",") if name]
        if len(wanted) > MOST_METRICS:
            raise invalid(f"Requested metrics count: {len(wanted)} bigger than allowed max: 20.", code="BadRequest")
        by_name = {name.lower(): name for name in known}
        for name in wanted:
            if name.lower() not in by_name:
                words = (
                    f"Failed to find metric configuration for provider: {namespace.partition('/')[0]}, resource Type: "
                    f"{namespace.partition('/')[2]}, metric: {name}, Valid metrics: {','.join(sorted(known))}"
                )
                raise invalid(words, code="BadRequest")
        return [by_name[name.lower()] for name in wanted]

    def _when(self, call: Call) -> tuple[datetime, datetime, timedelta]:
        interval = call.query.get("interval", "PT1M")
        if interval not in INTERVALS:
            raise invalid(f"Invalid time grain duration: {interval}, supported ones are: {', '.join(INTERVALS)}",
                          code="BadRequest")  # fmt: skip
        now = self.cloud.now().replace(second=0, microsecond=0)
        try:
            said = (
                [datetime.fromisoformat(one) for one in call.query["timespan"].split("/")]
                if "timespan" in call.query
                else [now - timedelta(hours=1), now]
            )
            start, end = [one.replace(tzinfo=one.tzinfo or UTC) for one in said]
        except ValueError as error:
            raise invalid(f"Invalid timespan: {call.query['timespan']}", code="BadRequest") from error
        if end <= start:
            raise invalid("Start time cannot be later than or equal to end time", code="BadRequest")
        return start, end, timedelta(minutes=INTERVALS[interval])

    def _metric(
        self, call: Call, resource: str, metric: str, mine: Sequence[Series], start: datetime, end: datetime,
        step: timedelta,
    ) -> Json:  # fmt: skip
        asked: dict[str, set[str]] = {}
        for name, value in EQUALS.findall(call.query.get("$filter", "")):
            asked.setdefault(name.lower(), set()).add(value.lower())  # `or` stands between values of one name
        groups: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
        for one in mine:
            said = {name.lower(): value for name, value in one.dimensions.items()}
            fits = all(values & {"*", said.get(name, "").lower()} for name, values in asked.items())
            if one.metric == metric and fits:
                groups.setdefault(tuple((name, said.get(name, "")) for name in asked), []).extend(one.samples)
        return {
            "id": f"{resource}/providers/Microsoft.Insights/metrics/{metric}", "type": "Microsoft.Insights/metrics",
            "name": {"value": metric, "localizedValue": metric}, "displayDescription": metric, "unit": "Percent",
            "errorCode": "Success",
            "timeseries": [
                {
                    "metadatavalues": [
                        {"name": {"value": name, "localizedValue": name}, "value": value}
                        for name, value in key
                    ],
                    "data": self._data(call, samples, start, end, step),
                }
                for key, samples in groups.items()
            ],
        }  # fmt: skip

    def _data(
        self, call: Call, samples: Sequence[tuple[int, float]], start: datetime, end: datetime, step: timedelta
    ) -> list[Json]:
        """One for every interval; one without samples has no value."""
        told, at = [], start.replace(second=0, microsecond=0)
        words = [one.strip().lower() for one in call.query.get("aggregation", "Average").split(",")]
        while at < end:
            here = [value for time, value in samples if at.timestamp() <= time < (at + step).timestamp()]
            point: Json = {"timeStamp": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
            for word in words:
                if word not in AGGREGATIONS:
                    raise invalid(f"The aggregation type {word} is not supported.", code="BadRequest")
                if here:
                    point[word] = float(AGGREGATIONS[word](here))  # type: ignore[operator]
            told.append(point)
            at += step
        return told

    # Autoscale settings

    @answers("AutoscaleSettings_ListBySubscription", "GET",
             f"{SUBSCRIPTION}/providers/Microsoft.Insights/autoscalesettings", query=("$skiptoken",))  # fmt: skip
    def list_autoscale(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/"
        return self.listed(call, [one for path, one in self.autoscale.items() if path.startswith(start)])

    @answers(
        "AutoscaleSettings_CreateOrUpdate", "PUT", f"{GROUP}/providers/Microsoft.Insights/autoscalesettings/{{name}}"
    )
    def put_autoscale(self, call: Call) -> Told:
        """All of a setting is told; what is not becomes what Azure takes for it."""
        told = dict((call.body or {}).get("properties") or {})
        if unknown := {*(call.body or {})} - {"location", "tags", "properties"}:
            raise invalid(f"Could not find member '{min(unknown)}' on object of type 'AutoscaleSettingResource'.")
        if "location" not in call.body or not told.get("profiles"):
            raise invalid("The autoscale setting is missing its location or its profiles.", code="BadRequest")
        before = self.autoscale.get(call.path.lower(), {"id": call.path, "name": call.names["name"]})
        self.autoscale[call.path.lower()] = {
            **before, "type": "Microsoft.Insights/autoscaleSettings", "location": call.body["location"],
            "tags": call.body.get("tags") or {}, "properties": {"enabled": False, **told},
        }  # fmt: skip
        return self.autoscale[call.path.lower()]


def type_of(resource: str) -> str:
    """`Microsoft.Compute/virtualMachines` of a machine's id."""
    steps = resource.rpartition("/providers/")[2].split("/")
    return "/".join([steps[0], *steps[1::2]])
