"""Turns a back-test's findings into what people read in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.backtest import words
from service.visible import all_visible

BAR = 24
"""Characters of the longest bar."""
MOST = 10
"""Rows of a table; the JSON has them all."""
EIGHTHS = " ▏▎▍▌▋▊▉█"

Row = Sequence[str | Text]


def show(console: Console, found: Mapping[str, Any], zone: tzinfo | None = None) -> None:
    """The whole report. Times are in `zone`, or in that of this machine."""
    found = all_visible(found)
    console.print(Text.assemble((found["policy"], "bold"), f" ({found['type']})"))
    _say(console, found["terms"])
    _say(console, words.stretch(found, zone))
    console.print()
    console.print(Text(words.headline(found), style="bold"))
    for sentence in filter(None, (words.oracle(found), words.confidence(found["totals"]) if _stopped(found) else None)):
        _say(console, sentence)
    for part in (_savings, _warnings):
        part(console, found)
    _false_stops(console, found, zone)
    for part in (_sweep, _unknown, _limits):
        part(console, found)


def _stopped(found: Mapping[str, Any]) -> bool:
    return bool(found["totals"]["stops"])


def _savings(console: Console, found: Mapping[str, Any]) -> None:
    if not found["savings"]:
        return
    projects = [
        (name or words.NO_PROJECT, f"{saved.stops:,}", words.hours(saved.gpu_hours), saved.paid)
        for name, saved in words.by_project(found)
    ]
    _table(console, "What it would have saved", ("PROJECT", ">STOPS", ">GPU HOURS", ">SAVED"), projects)
    unit, days = words.by_day(found)
    most = max(saved.gpu_hours for _, saved in days) or 1
    rows = [
        (day, f"{saved.stops:,}", words.hours(saved.gpu_hours), Text(_bar(saved.gpu_hours / most), style="green"))
        for day, saved in days
    ]
    _table(console, None, (unit.upper(), ">STOPS", ">GPU HOURS", ""), rows, most=len(rows))


def _warnings(console: Console, found: Mapping[str, Any]) -> None:
    rows = [
        (
            row["owner"] or words.NOBODY,
            row["project"] or words.NO_PROJECT,
            f"{row['warnings']:,}",
            f"{row['resources']:,}",
        )
        for row in found["warnings"]
    ]
    title = f"Whom it would have warned: {words.count(found['totals']['warnings'], 'time')}"
    _table(console, title, ("OWNER", "PROJECT", ">WARNINGS", ">RESOURCES"), rows)


def _false_stops(console: Console, found: Mapping[str, Any], zone: tzinfo | None) -> None:
    if not _stopped(found):
        return
    rows = [
        (
            row["within"],
            f"{row['false_stops']:,}",
            f"{row['decided']:,}",
            f"{row['undecided']:,}",
            "not known" if row["false_stop_rate"] is None else words.percent(row["false_stop_rate"]),
        )
        for row in found["false_stops_by_horizon"]
    ]
    heads = ("WORKED AGAIN WITHIN", ">FALSE STOPS", ">DECIDED", ">UNDECIDED", ">RATE")
    _table(console, "Whom it would have hurt", heads, rows)
    for sentence in words.worst(found, zone):
        _say(console, sentence)


def _sweep(console: Console, found: Mapping[str, Any]) -> None:
    sweep = found["sweep"]
    if sweep is None:
        return
    points = words.shown_points(sweep)
    rows = [
        (
            point["for"],
            point["below"],
            point["grace"],
            f"{point['stops']:,}",
            words.hours(point["gpu_hours_saved"]),
            f"{point['false_stops']:,}/{point['decided']:,}",
            "" if point["false_stop_rate"] is None else words.percent(point["false_stop_rate"]),
            _mark(point),
        )
        for point in points
    ]
    title = f"Other terms: the frontier of {words.count(len(sweep['points']), 'point')}"
    heads = ("IDLE FOR", ">BELOW", "GRACE", ">STOPS", ">GPU HOURS", ">FALSE", ">RATE", "")
    _table(console, title, heads, rows, most=len(rows))
    if not rows:
        console.print()
    _say(console, words.recommendation(sweep))
    few = words.confidence(sweep["recommended"]) if sweep["recommended"] else None
    if few:
        _say(console, few)


def _mark(point: Mapping[str, Any]) -> Text:
    marks = [Text("this policy", style="bold")] if point["own"] else []
    marks += [Text("recommended", style="green")] if point["recommended"] else []
    return Text(", ").join(marks)


def _unknown(console: Console, found: Mapping[str, Any]) -> None:
    rows = [
        (
            row["name"],
            row["project"] or words.NO_PROJECT,
            words.hours(row["hours"]),
            words.percent(row["share"]),
            row["why"],
        )
        for row in found["unknown"]
    ]
    _table(console, "What was not known, and never stopped", ("NAME", "PROJECT", ">HOURS", ">SHARE", "WHY"), rows)


def _limits(console: Console, found: Mapping[str, Any]) -> None:
    if found["limits"]:
        console.print()
        console.print(Text("What this cannot show", style="bold"))
    for limit in found["limits"]:
        for number, line in enumerate(wrap(limit, console.width - 2)):
            console.print(Text(f"{' ' if number else '-'} {line}"))


def _table(console: Console, title: str | None, heads: Sequence[str], rows: Sequence[Row], *, most: int = MOST) -> None:
    """Nothing for no rows. A head that begins with `>` is of numbers."""
    if not rows:
        return
    found = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        found.add_column(head.removeprefix(">"), overflow="fold", justify="right" if head.startswith(">") else "left")
    for row in rows[:most]:
        found.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    console.print()
    if title:
        console.print(Text(title, style="bold"))
    console.print(Padding(found, (0, 0, 0, 2)))
    if len(rows) > most:
        console.print(f"  and {len(rows) - most:,} more, which -o json lists")


def _bar(share: float) -> str:
    """To an eighth of a character; anything at all shows."""
    eighths = max(round(share * BAR * 8), 1 if share > 0 else 0)
    return EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _say(console: Console, sentence: str) -> None:
    console.print(Text(sentence))
