"""Reports as a back-test would make them, written by hand: for those who show, store and serve them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from policies.policy import IdlePolicy
from service.backtest.question import HORIZONS
from service.backtest.report import (
    Horizon,
    Point,
    Report,
    Saving,
    Stop,
    Swept,
    Totals,
    Unknown,
    Warned,
)

START = datetime(2026, 10, 17, tzinfo=UTC)
END = START + timedelta(days=30)
HOUR = timedelta(hours=1)
MICROS = 1_000_000
POLICY = IdlePolicy.model_validate({"name": "idle-gpus", "type": "idle"})
"""Idle for 45m below 5 %, grace 30m: `usual_points` has it."""


def stop(number: int = 0, **more: Any) -> Stop:
    """Of the trainers, one after the other, six hours each, at 8 USD an hour."""
    at = START + number * timedelta(hours=7)
    values: dict[str, Any] = {
        "resource": f"r{number}",
        "name": f"trainer-{number}",
        "project": ("vision", "robotics", None)[number % 3],
        "owner": "lan@example.org",
        "at": at,
        "saves_until": at + 6 * HOUR,
        "gpu_hours_saved": 48.0,
        "cost_saved_micros": 48 * MICROS,
        "currency": "USD",
        "false_stop": False,
        "work_resumed_at": None,
    }
    return Stop(**(values | more))


def totals(stops: list[Stop] | tuple[Stop, ...], **more: Any) -> Totals:
    """What these stops add up to, and an oracle that saves a quarter more."""
    saved = sum(stop.gpu_hours_saved for stop in stops)
    cost: dict[str, int] = {}
    for one in stops:
        if one.cost_saved_micros is not None and one.currency is not None:
            cost[one.currency] = cost.get(one.currency, 0) + one.cost_saved_micros
    values: dict[str, Any] = {
        "stops": len(stops),
        "gpu_hours_saved": saved,
        "cost_saved_micros": cost,
        "without_price": sum(one.cost_saved_micros is None for one in stops),
        "false_stops": sum(one.false_stop is True for one in stops),
        "undecided": sum(one.false_stop is None for one in stops),
        "oracle_gpu_hours": saved * 1.25,
        "oracle_reached_gpu_hours": saved,
        "unknown_resources": 1,
        "resources": 77,
        "warnings": len(stops),
    }
    return Totals(**(values | more))


def point(minutes: int = 45, threshold: float = 0.05, grace: int = 30, **more: Any) -> Point:
    values: dict[str, Any] = {
        "window": timedelta(minutes=minutes),
        "threshold": threshold,
        "grace": timedelta(minutes=grace),
        "stops": 42,
        "gpu_hours_saved": 1234.0,
        "false_stops": 1,
        "undecided": 2,
        "decided": 40,
        "on_frontier": False,
    }
    return Point(**(values | more))


def usual_points() -> tuple[Point, ...]:
    """A frontier of five, the policy's own below it, and some that are worse than others."""
    frontier = [
        point(180, 0.01, 60, stops=8, gpu_hours_saved=410.0, false_stops=0, decided=8, undecided=0),
        point(180, 0.05, 60, stops=15, gpu_hours_saved=760.0, false_stops=0, decided=15, undecided=0),
        point(90, 0.05, 30, stops=30, gpu_hours_saved=1180.0, false_stops=0, decided=30, undecided=0),
        point(30, 0.05, 30, stops=55, gpu_hours_saved=1390.0, false_stops=2, decided=52, undecided=3),
        point(15, 0.2, 0, stops=120, gpu_hours_saved=1480.0, false_stops=21, decided=115, undecided=5),
    ]
    worse = [
        point(45, 0.01, grace, stops=20, gpu_hours_saved=600.0 - grace, false_stops=1, decided=20, undecided=0)
        for grace in (0, 30, 60)
    ]
    hopeless = [point(15, 0.01, 60, stops=90, gpu_hours_saved=700.0, false_stops=40, decided=80, undecided=10)]
    on = [replace(one, on_frontier=True) for one in frontier]
    return (*on, point(on_frontier=True), *worse, *hopeless)


def swept(points: tuple[Point, ...] | None = None, ceiling: float = 0.01) -> Swept:
    points = usual_points() if points is None else points
    within = [one for one in points if one.rate is not None and one.rate <= ceiling]
    best = max(within, key=lambda one: one.gpu_hours_saved, default=None)
    return Swept(points=points, max_false_stops=ceiling, recommended=best)


def usual_stops() -> tuple[Stop, ...]:
    """42: the last two undecided, one false, and costliest and longest another."""
    decided = [stop(number) for number in range(40)]
    at = decided[3].at
    decided[3] = replace(
        decided[3], false_stop=True, work_resumed_at=at + timedelta(minutes=72), saves_until=at + timedelta(minutes=72),
        gpu_hours_saved=9.6, cost_saved_micros=int(9.6 * MICROS),
    )  # fmt: skip
    return (*decided, stop(40, false_stop=None), stop(41, false_stop=None))


def report(**more: Any) -> Report:
    """A month of 42 stops, one of them false."""
    stops = more.pop("stops", usual_stops())
    days: dict[tuple[date, str | None, str | None], list[Stop]] = {}
    for one in stops:
        days.setdefault((one.at.date(), one.project, one.currency), []).append(one)
    savings = [
        Saving(
            project=project,
            day=day,
            stops=len(its),
            gpu_hours_saved=sum(one.gpu_hours_saved for one in its),
            cost_saved_micros=None if currency is None else sum(one.cost_saved_micros or 0 for one in its),
            currency=currency,
        )
        for (day, project, currency), its in sorted(days.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    ]
    values: dict[str, Any] = {
        "policy": POLICY.name,
        "type": "idle",
        "terms": "Stop what is idle for 45m (every GPU below 5%), 30m after a warning.",
        "start": START,
        "end": END,
        "horizon": 2 * HOUR,
        "step": timedelta(seconds=60),
        "samples": 3_326_400,
        "totals": totals(stops),
        "stops": stops,
        "horizons": [
            Horizon(horizon=each, false_stops=number, undecided=1 + number, decided=41 - number)
            for number, each in enumerate(HORIZONS)
        ],
        "savings": savings,
        "warned": [
            Warned(owner="lan@example.org", project="vision", warnings=30, resources=9),
            Warned(owner=None, project=None, warnings=12, resources=4),
        ],
        "unknown": [
            Unknown(
                resource="r99",
                name="dark",
                project="vision",
                hours=120.5,
                share=0.167,
                why="Its series ended on 2 Nov.",
            )
        ],
        "sweep": swept(),
        "limits": [
            "Recorded data cannot show what would have happened after a stop.",
            "People may have behaved otherwise, had they been warned.",
        ],
    }
    return Report(**(values | more))


def quiet(**more: Any) -> Report:
    """Nothing was stopped, and nothing could have been."""
    values: dict[str, Any] = {
        "stops": (),
        "totals": totals((), warnings=0, unknown_resources=0, resources=12),
        "horizons": [Horizon(horizon=each, false_stops=0, undecided=0, decided=0) for each in HORIZONS],
        "warned": [],
        "unknown": [],
        "sweep": None,
    }
    return report(**(values | more))
