"""What a back-test found, as values and as JSON. How it is shown is the command's and the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from policies.quantities import MICROS, format_duration


@dataclass(frozen=True, kw_only=True)
class Stop:
    """One stop that the policy would have made."""

    resource: str
    name: str
    project: str | None
    owner: str | None
    at: datetime
    saves_until: datetime
    """When work resumed, or knowledge ended, or it was stopped anyway."""
    gpu_hours_saved: float
    cost_saved_micros: int | None
    """Each hour at its own price; None when it has none."""
    currency: str | None
    false_stop: bool | None
    """Whether it showed work within the horizon; None: its data end before, so that nobody can tell."""
    work_resumed_at: datetime | None
    """When it next showed work, however late; None: never seen again."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What stops on one day would have saved of one project, in one currency. Counted where the hours fall."""

    project: str | None
    day: date
    stops: int
    """Made on this day."""
    gpu_hours_saved: float
    cost_saved_micros: int | None
    currency: str | None


@dataclass(frozen=True, kw_only=True)
class Warned:
    """How often one owner would have been warned."""

    owner: str | None
    project: str | None
    warnings: int
    resources: int


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """False stops, were another time after a stop looked at."""

    horizon: timedelta
    false_stops: int
    undecided: int
    decided: int

    @property
    def rate(self) -> float | None:
        return self.false_stops / self.decided if self.decided else None


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A resource that the policy speaks of and of which too little was known to judge it all the time."""

    resource: str
    name: str
    project: str | None
    hours: float
    """For which it ran and was not known to be busy or idle."""
    share: float
    """Of the hours it ran."""
    why: str
    """In a sentence."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the sweep."""

    window: timedelta
    threshold: float
    grace: timedelta
    stops: int
    gpu_hours_saved: float
    false_stops: int
    undecided: int
    decided: int
    on_frontier: bool
    """No other point saves as much at a lower rate of false stops, or more at the same."""

    @property
    def rate(self) -> float | None:
        return self.false_stops / self.decided if self.decided else None


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The sweep: every point, and which one to take."""

    points: Sequence[Point]
    max_false_stops: float
    recommended: Point | None
    """Saves most of those with at most that share of false stops; None: there is none."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The sums."""

    stops: int
    gpu_hours_saved: float
    cost_saved_micros: Mapping[str, int]
    """Currency → micro-units; never added across currencies."""
    without_price: int
    """Stops whose money is not known; they are in no sum of it."""
    false_stops: int
    undecided: int
    oracle_gpu_hours: float
    """What stops at the first second of each idle run would have saved, of those that no work follows within the
    horizon."""
    oracle_reached_gpu_hours: float
    """How much of that this policy saves."""
    unknown_resources: int
    resources: int
    """In scope at any time."""
    warnings: int

    @property
    def decided(self) -> int:
        return self.stops - self.undecided

    @property
    def false_stop_rate(self) -> float | None:
        return self.false_stops / self.decided if self.decided else None

    @property
    def oracle_share(self) -> float | None:
        return self.oracle_reached_gpu_hours / self.oracle_gpu_hours if self.oracle_gpu_hours else None


@dataclass(frozen=True, kw_only=True)
class Report:
    """One back-test's findings."""

    policy: str
    type: str
    terms: str
    """The policy in a sentence: what it would stop, and when."""
    start: datetime
    end: datetime
    """Of what is known of anything."""
    horizon: timedelta
    step: timedelta
    samples: int
    """Rows of activity that were read."""
    totals: Totals
    stops: Sequence[Stop]
    """In the order of time."""
    horizons: Sequence[Horizon]
    savings: Sequence[Saving]
    """By day, then project."""
    warned: Sequence[Warned]
    """Who most often, first."""
    unknown: Sequence[Unknown]
    """The longest first."""
    sweep: Swept | None
    limits: Sequence[str]
    """What these numbers cannot show, in sentences."""

    @property
    def longest_false(self) -> Stop | None:
        """The false stop after which work was missed for the longest time."""
        return max((stop for stop in self.stops if stop.false_stop), key=_missed, default=None)

    @property
    def costliest_false(self) -> Stop | None:
        """The false stop of the dearest machine."""
        return max((stop for stop in self.stops if stop.false_stop), key=_dear, default=None)


def _missed(stop: Stop) -> float:
    return (stop.work_resumed_at - stop.at).total_seconds() if stop.work_resumed_at else 0.0


def _dear(stop: Stop) -> tuple[float, float]:
    hours = max((stop.saves_until - stop.at).total_seconds(), 1.0)
    return (stop.cost_saved_micros or 0) / hours, stop.gpu_hours_saved / hours


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON: times in UTC, money as numbers beside their currency, never across currencies."""
    totals = report.totals
    return {
        "policy": report.policy,
        "type": report.type,
        "terms": report.terms,
        "from": report.start.isoformat(),
        "to": report.end.isoformat(),
        "false_stop_within": format_duration(report.horizon),
        "step_seconds": int(report.step.total_seconds()),
        "samples": report.samples,
        "totals": {
            "stops": totals.stops,
            "gpu_hours_saved": _hours(totals.gpu_hours_saved),
            "cost_saved": _only(totals.cost_saved_micros),
            "currency": next(iter(totals.cost_saved_micros)) if len(totals.cost_saved_micros) == 1 else None,
            "cost_saved_by_currency": {
                currency: micros / MICROS for currency, micros in sorted(totals.cost_saved_micros.items())
            },
            "stops_without_price": totals.without_price,
            "false_stops": totals.false_stops,
            "undecided": totals.undecided,
            "decided": totals.decided,
            "false_stop_rate": totals.false_stop_rate,
            "oracle_gpu_hours": _hours(totals.oracle_gpu_hours),
            "oracle_share": totals.oracle_share,
            "unknown_resources": totals.unknown_resources,
            "resources": totals.resources,
            "warnings": totals.warnings,
        },
        "stops": [_stop(stop) for stop in report.stops],
        "longest_false_stop": _stop(report.longest_false) if report.longest_false else None,
        "costliest_false_stop": _stop(report.costliest_false) if report.costliest_false else None,
        "false_stops_by_horizon": [
            {
                "within": format_duration(row.horizon),
                "false_stops": row.false_stops,
                "decided": row.decided,
                "undecided": row.undecided,
                "false_stop_rate": row.rate,
            }
            for row in report.horizons
        ],
        "savings": [
            {
                "project": row.project,
                "day": row.day.isoformat(),
                "stops": row.stops,
                "gpu_hours_saved": _hours(row.gpu_hours_saved),
                "cost_saved": _money(row.cost_saved_micros),
                "currency": row.currency,
            }
            for row in report.savings
        ],
        "warnings": [
            {"owner": row.owner, "project": row.project, "warnings": row.warnings, "resources": row.resources}
            for row in report.warned
        ],
        "unknown": [
            {
                "resource": row.resource,
                "name": row.name,
                "project": row.project,
                "hours": _hours(row.hours),
                "share": row.share,
                "why": row.why,
            }
            for row in report.unknown
        ],
        "sweep": None if report.sweep is None else _sweep(report.sweep),
        "limits": list(report.limits),
    }


def _stop(stop: Stop) -> dict[str, Any]:
    return {
        "resource": stop.resource,
        "name": stop.name,
        "project": stop.project,
        "owner": stop.owner,
        "at": stop.at.isoformat(),
        "saves_until": stop.saves_until.isoformat(),
        "gpu_hours_saved": _hours(stop.gpu_hours_saved),
        "cost_saved": _money(stop.cost_saved_micros),
        "currency": stop.currency,
        "false_stop": stop.false_stop,
        "work_resumed_at": stop.work_resumed_at.isoformat() if stop.work_resumed_at else None,
    }


def _sweep(sweep: Swept) -> dict[str, Any]:
    return {
        "max_false_stops": sweep.max_false_stops,
        "recommended": _point(sweep.recommended) if sweep.recommended else None,
        "points": [_point(point) for point in sweep.points],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "for": format_duration(point.window),
        "utilisation_below": point.threshold,
        "grace": format_duration(point.grace),
        "stops": point.stops,
        "gpu_hours_saved": _hours(point.gpu_hours_saved),
        "false_stops": point.false_stops,
        "decided": point.decided,
        "undecided": point.undecided,
        "false_stop_rate": point.rate,
        "on_frontier": point.on_frontier,
    }


def _hours(hours: float) -> float:
    return round(hours, 6)


def _money(micros: int | None) -> float | None:
    return None if micros is None else micros / MICROS


def _only(sums: Mapping[str, int]) -> float | None:
    """The sum, where there is one currency; nothing saved is nought in any."""
    if len(sums) > 1:
        return None
    return next((micros / MICROS for micros in sums.values()), 0.0)
