"""Cloud Monitoring: time series that were written, read back by filter, aligned and reduced."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import answers
from tests.providers.gcp.cloud_lists import Filter, page
from tests.providers.gcp.cloud_refusals import Refusal

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

Points = list[tuple[float, float]]
"""Unix seconds and value, in the order of time."""

GPU_UTILISATION = "agent.googleapis.com/gpu/utilization"


def _percentile(percent: int) -> Callable[[Sequence[float]], float]:
    return lambda values: sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


FUNCTIONS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "MEAN": lambda values: sum(values) / len(values),
    "MIN": min,
    "MAX": max,
    "SUM": sum,
    "COUNT": len,
    "NEXT_OLDER": lambda values: values[-1],
    "PERCENTILE_99": _percentile(99),
    "PERCENTILE_95": _percentile(95),
    "PERCENTILE_50": _percentile(50),
    "PERCENTILE_05": _percentile(5),
}


class Monitoring:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.series: dict[tuple[str, str], Json] = {}
        """By project and by what makes a series one: metric and resource with their labels."""
        self.points: dict[tuple[str, str], Points] = {}
        self.most_points = 100_000
        """No page has more, whatever is asked for."""

    def state(self) -> object:
        """Nothing: no call changes anything."""
        return None

    def push(
        self,
        machine: str,
        samples: Sequence[tuple[float, float]],
        *,
        metric: str = GPU_UTILISATION,
        labels: Mapping[str, str] | None = None,
        unit: str = "%",
        kind: str = "GAUGE",
        value_type: str = "DOUBLE",
    ) -> None:
        """What the agent on a machine (its path) has written: (Unix seconds, value)."""
        _, project, _, zone, _, _ = machine.split("/")
        resource = {
            "project_id": project, "zone": zone, "instance_id": self.cloud.compute.instances[machine]["id"]
        }  # fmt: skip
        self.write(
            project, {"type": metric, "labels": dict(labels or {})}, {"type": "gce_instance", "labels": resource},
            samples, unit=unit, kind=kind, value_type=value_type,
        )  # fmt: skip

    def write(
        self,
        project: str,
        metric: Json,
        resource: Json,
        samples: Sequence[tuple[float, float]],
        *,
        unit: str = "1",
        kind: str = "GAUGE",
        value_type: str = "DOUBLE",
    ) -> None:
        key = (project, repr([metric, resource]))
        self.series[key] = {
            "metric": metric, "resource": resource, "metricKind": kind, "valueType": value_type, "unit": unit
        }  # fmt: skip
        self.points[key] = sorted([*self.points.get(key, []), *samples])

    @answers("monitoring.projects.timeSeries.list")
    def list_series(self, call: Call) -> Json:
        expression = call.query.get("filter", "")
        kinds = re.findall(r'metric\.type\s*=\s*"([^"]+)"', expression)
        if len(set(kinds)) != 1:
            raise _bad("Field filter had an invalid value: The filter must specify a single metric type.")
        end = call.query.get("interval.endTime")
        if end is None:
            raise _bad("Field interval.endTime had an invalid value: It is required.")
        until = datetime.fromisoformat(end).timestamp()
        since = datetime.fromisoformat(call.query.get("interval.startTime", end)).timestamp()
        if since > until:
            raise _bad("Field interval.startTime had an invalid value: It must not be later than the end time.")
        self._check_described(call.project, kinds)
        wanted = MonitoringFilter(expression).read()
        found = [
            (self.series[key], [(at, value) for at, value in points if since < at <= until])
            for key, points in sorted(self.points.items())
            if key[0] == call.project and wanted(self.series[key])
        ]
        if since == until:
            found = [(told, points[-1:]) for told, points in found]
        found = self._aggregated(call, [(told, points) for told, points in found if points], until)
        return self._answered(call, found)

    def _check_described(self, project: str, kinds: Sequence[str]) -> None:
        """A metric that was never written in a project is not known there, unless it is Google's own."""
        for kind in kinds:
            written = any(key[0] == project and one["metric"]["type"] == kind for key, one in self.series.items())
            if not written and not kind.startswith("compute.googleapis.com/"):
                message = (
                    f'Cannot find metric(s) that match type = "{kind}". If a metric was created recently, it could '
                    "take up to 10 minutes to become available. Please try again soon."
                )
                raise Refusal(404, message, reason="notFound")

    def _aggregated(self, call: Call, found: Sequence[tuple[Json, Points]], until: float) -> list[tuple[Json, Points]]:
        aligner = call.query.get("aggregation.perSeriesAligner", "ALIGN_NONE").removeprefix("ALIGN_")
        reducer = call.query.get("aggregation.crossSeriesReducer", "REDUCE_NONE").removeprefix("REDUCE_")
        period = float(call.query.get("aggregation.alignmentPeriod", "0s").removesuffix("s"))
        if aligner == "NONE":
            if reducer != "NONE":
                raise _bad("Field aggregation.perSeriesAligner had an invalid value: It must be set for a reducer.")
            return list(found)
        if period < 60:
            message = 'Field aggregation.alignmentPeriod had an invalid value of "{}": It must be at least 60 seconds.'
            raise _bad(message.format(call.query.get("aggregation.alignmentPeriod", "0s")))
        aligned = [(told, _aligned(points, period, until, _function(aligner))) for told, points in found]
        if reducer == "NONE":
            return aligned
        fields = call.query.get("aggregation.groupByFields", [])
        groups: dict[str, tuple[Json, dict[float, list[float]]]] = {}
        for told, points in aligned:
            kept = _kept(told, fields)
            _, values = groups.setdefault(repr(kept), (kept, {}))
            for at, value in points:
                values.setdefault(at, []).append(value)
        function = _function(reducer)
        return [
            (told, sorted((at, float(function(several))) for at, several in values.items()))
            for told, values in groups.values()
        ]

    def _answered(self, call: Call, found: Sequence[tuple[Json, Points]]) -> Json:
        """Pages are counted in points, newest first, so a series may go on on the next page."""
        rows: list[tuple[str, tuple[Json, Points]]]
        if call.query.get("view") == "HEADERS":
            rows = [(f"{index:06d}", (told, [])) for index, (told, _) in enumerate(found)]
        else:
            rows = [
                (f"{index:06d} {place:06d}", (told, [point]))
                for index, (told, points) in enumerate(found)
                for place, point in enumerate(reversed(points))
            ]
        asked = call.query.get("pageSize") or self.most_points
        question = f"{call.path} {sorted((name, value) for name, value in call.query.items() if name[:4] != 'page')}"
        told_rows, token = page(
            rows, most=min(asked, self.most_points), token=call.query.get("pageToken"), question=question
        )
        series: dict[str, Json] = {}
        for key, (told, points) in told_rows:
            one = series.setdefault(key.split(" ")[0], {**told, "points": []})
            one["points"].extend(_point(told["valueType"], *point) for point in points)
        answer: Json = {"timeSeries": [*series.values()]} if series else {}
        if len(found) > 0:
            answer["unit"] = found[0][0]["unit"]
        return {**answer, "nextPageToken": token} if token else answer


class MonitoringFilter(Filter):
    """`metric.type = "…" AND resource.labels.instance_id = one_of("…", "…")`."""

    def compared(self, name: str, operator: str) -> Callable[[Json], bool]:
        kind, value = self.tokens.pop(0) if self.tokens else ("", "")
        if kind == "word" and self.skipped("mark", "("):
            values = []
            while self.tokens and self.tokens[0][0] == "value":
                values.append(self.tokens.pop(0)[1])
                self.skipped("mark", ",")
            if not self.skipped("mark", ")") or not values or operator not in {"=", "!="}:
                raise self.bad()
            test = self._called(value, values)
        elif kind == "value" and operator in {"=", "!="}:
            test = value.__eq__
        else:
            raise self.bad()

        def matches(series: Json) -> bool:
            there: Any = series
            for part in (
                name.replace("metric.label.", "metric.labels.")
                .replace("resource.label.", "resource.labels.")
                .split(".")
            ):
                there = there.get(part, "") if isinstance(there, dict) else ""
            return bool(test(str(there))) == (operator == "=")

        return matches

    def _called(self, name: str, values: Sequence[str]) -> Callable[[str], bool]:
        if name == "one_of":
            if len(values) > 100:
                raise self.bad()
            return lambda text: text in values
        if name == "starts_with" and len(values) == 1:
            return lambda text: text.startswith(values[0])
        if name == "monitoring.regex.full_match" and len(values) == 1:
            return lambda text: re.fullmatch(values[0], text) is not None
        raise self.bad()

    def bad(self) -> Refusal:
        return _bad(f'Field filter had an invalid value of "{self.expression}": The filter is not understood.')


def _aligned(points: Points, period: float, until: float, function: Callable[[Sequence[float]], float]) -> Points:
    """One point at the end of every period that has any; periods are counted back from the end of the interval."""
    windows: dict[int, list[float]] = {}
    for at, value in points:
        windows.setdefault(int((until - at) // period), []).append(value)
    return sorted((until - number * period, float(function(values))) for number, values in windows.items())


def _function(name: str) -> Callable[[Sequence[float]], float]:
    if name not in FUNCTIONS:
        raise Refusal(501, f"{name} is Google's, but not played here.", reason="notImplemented")
    return FUNCTIONS[name]


def _kept(told: Json, fields: Sequence[str]) -> Json:
    """Of a series what is left when it is reduced: its types, and the labels it is grouped by."""
    kept: Json = {**told, "metric": {"type": told["metric"]["type"], "labels": {}}}
    kept["resource"] = {"type": told["resource"]["type"], "labels": {}}
    for field in fields:
        part, _, label = field.replace(".label.", ".labels.").partition(".labels.")
        if part in {"metric", "resource"} and label in told[part]["labels"]:
            kept[part]["labels"][label] = told[part]["labels"][label]
    return kept


def _point(value_type: str, at: float, value: float) -> Json:
    stamp = (datetime.fromtimestamp(0, UTC) + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told: Json = {"int64Value": str(int(value))} if value_type == "INT64" else {"doubleValue": value}
    return {"interval": {"startTime": stamp, "endTime": stamp}, "value": told}


def _bad(message: str) -> Refusal:
    return Refusal(400, message, reason="badRequest")
