"""Turns a back-test's findings into a page: charts drawn here as SVG, tables beside them, no script, nothing fetched.

`body` is what stands on the console's page, `whole` a file that needs nothing else. What the sentences say is `words`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from functools import cache
from importlib.resources import files
from itertools import pairwise
from math import ceil, floor, log10
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.backtest import words
from service.visible import all_visible

Found = Mapping[str, Any]

STOPS = 200
"""Stops that are listed; the JSON has them all."""
ROWS = 50
"""The same for other tables."""
COLOURS = 6
"""Projects with a colour of their own in a chart; the rest share one."""
LONGEST_NAME = 120

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 86, 34, 20, 72
"""In units of the picture. The margins hold letters that a phone shows twice as large."""
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def body(found: Found, zone: tzinfo | None = None) -> Markup:
    """One report. Times are in `zone`, or in that of this machine."""
    found = all_visible(found)
    shown = {
        "found": found,
        "zone": zone,
        "words": words,
        "savings_chart": savings_chart(found),
        "frontier_chart": frontier_chart(found["sweep"]) if found["sweep"] else None,
        "own_mark": own_mark,
        "best_mark": best_mark,
        "not_drawn": not_drawn(found["sweep"]) if found["sweep"] else 0,
        "projects": words.by_project(found),
        "colours": _colours(found),
        "days": words.by_day(found),
        "most_stops": STOPS,
        "most_rows": ROWS,
    }
    return Markup(_environment().get_template("report.html").render(shown))  # noqa: S704 - it escapes by itself


def whole(reports: Sequence[Found], zone: tzinfo | None = None) -> str:
    """A file that can be mailed and kept: its style sheets are in it, and it may load nothing."""
    static = files("service.console") / "static"
    style = "\n".join((static / name).read_text("utf-8") for name in ("curfew.css", "backtest.css"))
    names = [str(found["policy"]) for found in all_visible(list(reports))]
    bodies = [body(found, zone) for found in reports]
    return _environment().get_template("whole.html").render(names=names, bodies=bodies, style=Markup(style))  # noqa: S704


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.backtest"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["name"] = _name
    return environment


def _name(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


# --- what is saved, by day and project -------------------------------------------------------------------------------


def _colours(found: Found) -> dict[str | None, int]:
    """Project → its colour, from 1; 0 is shared by those who save least."""
    return {name: index + 1 if index < COLOURS else 0 for index, (name, _) in enumerate(words.by_project(found))}


def savings_chart(found: Found) -> Markup | None:
    """GPU hours saved by day or month, a part of each bar for each project; None when there is nothing to draw."""
    unit, days = words.by_day(found)
    most = max((saved.gpu_hours for _, saved in days), default=0.0)
    if most <= 0:
        return None
    colours = _colours(found)
    ticks = _ticks(most)
    scale = INNER_HEIGHT / ticks[-1]
    step = INNER_WIDTH / len(days)
    width = max(min(step * 0.8, 48), 1)
    parts = [*_across(ticks, "GPU hours saved")]
    for index, (day, saved) in enumerate(days):
        x, y = LEFT + index * step + (step - width) / 2, float(HEIGHT - BOTTOM)
        for project in sorted(saved.by_project, key=lambda one: (colours[one] or COLOURS + 1, one or "")):
            hours = saved.by_project[project]
            y -= hours * scale
            said = f"{day}, {_name(project or words.NO_PROJECT)}: {words.gpu_hours(hours)}"
            parts.append(_rect(x, y, width, hours * scale, f"part colour-{colours[project]}", said))
    every = max(1, ceil(len(days) / 6))
    parts += [
        _text(LEFT + (index + 0.5) * step, HEIGHT - BOTTOM + 28, day[5:] if unit == "day" else day, "middle")
        for index, (day, _) in enumerate(days)
        if index % every == 0
    ]
    title = f"GPU hours saved by {unit}"
    told = f"{words.gpu_hours(sum(saved.gpu_hours for _, saved in days))} from {days[0][0]} to {days[-1][0]}, "
    told += f"most in one {unit}: {words.gpu_hours(most)}. The table below has the numbers."
    return _chart(title, told, parts)


# --- what other terms would give -------------------------------------------------------------------------------------


def frontier_chart(sweep: Found) -> Markup | None:
    """False-stop rate across, GPU hours saved upwards; None when no point has both."""
    rated = [point for point in sweep["points"] if point["false_stop_rate"] is not None]
    shown = [point for point in words.shown_points(sweep) if point["false_stop_rate"] is not None]
    if not shown:
        return None
    across = _ticks(max(*(point["false_stop_rate"] for point in shown), sweep["max_false_stops"] * 1.5, 0.001))
    upwards = _ticks(max(*(point["gpu_hours_saved"] for point in shown), 0.001))

    def place(point: Found) -> tuple[float, float]:
        x = LEFT + INNER_WIDTH * point["false_stop_rate"] / across[-1]
        return x, TOP + INNER_HEIGHT * (1 - point["gpu_hours_saved"] / upwards[-1])

    parts = [*_across(upwards, "GPU hours saved")]
    parts += [
        _text(LEFT + INNER_WIDTH * tick / across[-1], HEIGHT - BOTTOM + 28, words.percent(tick), "middle")
        for tick in across
    ]
    parts.append(_text(LEFT + INNER_WIDTH, HEIGHT - 8, "false stops among the decided →", "end"))
    limit = LEFT + INNER_WIDTH * sweep["max_false_stops"] / across[-1]
    said = f"The ceiling: at most {words.percent(sweep['max_false_stops'])} false stops"
    parts.append(
        Markup('<line class="limit" x1="{0:.1f}" y1="{1}" x2="{0:.1f}" y2="{2}"><title>{3}</title></line>').format(
            limit, TOP, HEIGHT - BOTTOM, said
        )
    )
    line = [point for point in shown if point["on_frontier"]]
    if len(line) > 1:
        places = [place(point) for point in line]
        steps = [places[0], *(step for (_, y), (x, up) in pairwise(places) for step in ((x, y), (x, up)))]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in steps)
        parts.append(Markup('<polyline class="frontier" points="{}"/>').format(path))
    parts += [
        _dot(*place(point), "other", _told(point))
        for point in rated
        if not words.is_shown(sweep, point) and point["false_stop_rate"] <= across[-1]
    ]
    for point in sorted(shown, key=lambda one: (one["own"], one["recommended"])):
        parts.append(_marked(point, *place(point)))
    told = f"{words.recommendation(sweep)} The table below has the numbers."
    return _chart("GPU hours saved against the rate of false stops", told, parts)


def not_drawn(sweep: Found) -> int:
    """Points that lie further right than the picture reaches, or of which no stop is decided."""
    shown = [point["false_stop_rate"] for point in words.shown_points(sweep) if point["false_stop_rate"] is not None]
    if not shown:
        return len(sweep["points"])
    end = _ticks(max(*shown, sweep["max_false_stops"] * 1.5, 0.001))[-1]
    return sum(point["false_stop_rate"] is None or point["false_stop_rate"] > end for point in sweep["points"])


def _told(point: Found) -> str:
    rate = "no decided stop" if point["false_stop_rate"] is None else words.decided(point)
    return f"{words.point_words(point)}: {words.gpu_hours(point['gpu_hours_saved'])}, {rate}"


def _marked(point: Found, x: float, y: float) -> Markup:
    """A dot on the frontier, a diamond for the recommended point, a square around the policy's own."""
    own, best = point["own"], point["recommended"]
    if not own and not best:
        return _dot(x, y, "on-frontier", _told(point))
    names = " and ".join(["this policy"] * own + ["recommended"] * best)
    said = Markup("<title>{}</title>").format(f"{names[0].upper()}{names[1:]}: {_told(point)}")
    shapes = own_mark(x, y) * own + best_mark(x, y) * best
    return Markup("<g>{}{}</g>").format(said, shapes)


def best_mark(x: float, y: float) -> Markup:
    corners = " ".join(f"{a:.1f},{b:.1f}" for a, b in ((x, y - 9), (x + 9, y), (x, y + 9), (x - 9, y)))
    return Markup('<polygon class="best" points="{}"/>').format(corners)


def own_mark(x: float, y: float) -> Markup:
    return Markup('<rect class="own" x="{:.1f}" y="{:.1f}" width="20" height="20"/>').format(x - 10, y - 10)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _chart(title: str, told: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>{}</svg>').format(
        WIDTH, HEIGHT, title, told, Markup("").join(parts)
    )


def _across(ticks: Sequence[float], unit: str) -> Iterable[Markup]:
    """Lines across the picture with their numbers, and what they count."""
    for tick in ticks:
        y = TOP + INNER_HEIGHT * (1 - tick / ticks[-1])
        yield Markup('<line class="grid" x1="{}" y1="{y:.1f}" x2="{}" y2="{y:.1f}"/>').format(LEFT, WIDTH - RIGHT, y=y)
        yield _text(LEFT - 10, y + 5, words.hours(tick), "end")
    yield _text(4, HEIGHT - 8, f"↑ {unit}", "start")


def _rect(x: float, y: float, width: float, height: float, kind: str, said: str) -> Markup:
    said = Markup("<title>{}</title>").format(said)
    return Markup('<rect class="{}" x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}">{}</rect>').format(
        kind, x, y, width, height, said
    )


def _dot(x: float, y: float, kind: str, said: str) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}</title></circle>').format(
        kind, x, y, said
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(kind, x, y, anchor, text)


def _ticks(most: float) -> list[float]:
    """From 0 to at least `most`, in three to six steps of 1, 2 or 5 times a power of ten."""
    rough = most / 4
    power = 10.0 ** floor(log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    return [step * number for number in range(ceil(most / step * 0.999) + 1)]
