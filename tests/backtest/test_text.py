"""What a back-test says in a terminal: each number in words, and good words when there is nothing to tell."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, date, timedelta, timezone
from typing import Any

import pytest
from rich.console import Console

from service.backtest import text
from service.backtest.answer import marked
from service.backtest.report import Report, Saving, as_json
from tests.backtest.reports import MICROS, POLICY, START, point, quiet, report, stop, swept, totals, usual_points


def shown(report: Report, width: int = 80, **more: Any) -> str:
    """As a terminal of that many columns shows it."""
    out = io.StringIO()
    text.show(Console(file=out, width=width, highlight=False), marked(as_json(report), POLICY), **{"zone": UTC} | more)
    return out.getvalue()


def said(report: Report, **more: Any) -> str:
    """The same on one line, for sentences that were folded."""
    return " ".join(shown(report, **more).split())


def of(*stops: Any, **more: Any) -> Report:
    """A report of these stops alone."""
    return report(stops=stops, totals=totals(stops, **more))


FALSE = stop(1, false_stop=True, work_resumed_at=stop(1).at + timedelta(minutes=30))

SENTENCES: dict[str, tuple[Report, str]] = {
    "a month": (
        report(),
        "It would have stopped 42 times and saved 1,978 GPU hours (1,977.60 USD); 1 of 40 decided stops was false "
        "(2.5 %), 2 are undecided. A perfect watcher would have saved 2,472 GPU hours: this policy reaches 80 % of it.",
    ),
    "one stop": (of(stop()), "stopped once and saved 48 GPU hours (48.00 USD); the one decided stop was not false."),
    "one false stop": (of(FALSE), "the one decided stop was false."),
    "several false": (of(FALSE, FALSE, stop(2)), "2 of 3 decided stops were false (66.7 %)."),
    "none false": (of(*[stop(n) for n in range(30)]), "none of 30 decided stops was false."),
    "nothing decided": (
        of(stop(false_stop=None)),
        "whether any was false cannot be told, for the data end too soon after each.",
    ),
    "one undecided": (of(stop(), stop(1, false_stop=None)), "the one decided stop was not false, 1 is undecided."),
    "few decided": (
        of(*[stop(n) for n in range(12)]),
        "Only 12 decided stops stand behind this rate; the true one may well be as high as 18.4 %.",
    ),
    "two currencies": (of(stop(), stop(1, currency="EUR")), "(48.00 EUR and 48.00 USD)"),
    "no price": (
        of(stop(cost_saved_micros=None, currency=None)),
        "saved 48 GPU hours; the one decided stop was not false. Each of them has no known price and is in no sum",
    ),
    "some without a price": (
        of(stop(), stop(1), stop(2, cost_saved_micros=None, currency=None)),
        "1 of them has no known price and is in no sum of money.",
    ),
    "some more without a price": (
        of(stop(), *[stop(n, cost_saved_micros=None, currency=None) for n in (1, 2)]),
        "2 of them have no known price and are in no sum of money.",
    ),
    "nobody to beat": (of(stop(), oracle_gpu_hours=0.0), "A perfect watcher would have saved nothing either."),
    "nothing to stop": (quiet(), "It would have stopped nothing of the 12 resources in scope."),
    "nothing known of any": (
        quiet(totals=totals((), resources=3, unknown_resources=3)),
        "All of them were unknown for some of the time, and what is unknown is never stopped.",
    ),
    "nothing in scope": (quiet(totals=totals((), resources=0)), "Nothing was in scope:"),
    "no history": (quiet(samples=0), "There is no history of this time, so nothing can be said of it."),
    "the stretch": (
        report(),
        "Replayed from 17 Oct 2026 00:00 to 16 Nov 2026 00:00 (UTC) with a look every 1m, on 3,326,400 samples.",
    ),
    "the worst": (
        report(),
        "The longest of them, and the costliest: trainer-3 (project vision, lan@example.org, 8.00 USD an hour), "
        "stopped on 17 Oct 2026 21:00, worked again 1h 12m later.",
    ),
    "the recommended": (
        report(),
        "Recommended: idle for 1h30m below 5 %, grace 30m. It saves most (1,180 GPU hours) of the 3 points with at "
        "most 1 % false stops; none of 30 decided stops was false.",
    ),
    "none to recommend": (
        report(sweep=swept(usual_points()[3:5])),
        "None of the 2 points tried stays within 1 % false stops, so none is recommended. The fewest are of idle for "
        "30m below 5 %, grace 30m: 3.85 %.",
    ),
    "nothing in the sweep": (
        report(sweep=swept((point(stops=0, gpu_hours_saved=0.0, false_stops=0, undecided=0, decided=0),))),
        "None of the 1 point tried would have stopped anything",
    ),
    "nothing decided in the sweep": (
        report(sweep=swept((point(false_stops=0, undecided=42, decided=0),))),
        "No stop of the 1 point tried is decided, so none is recommended.",
    ),
    "already there": (
        report(sweep=swept((point(false_stops=0),))),
        "This policy is at that point already.",
    ),
    "a recommendation of few": (
        report(sweep=swept(usual_points()[:1])),
        "Only 8 decided stops stand behind this rate; the true one may well be as high as 25.3 %.",
    ),
    "the limits": (report(), "- Recorded data cannot show what would have happened after a stop."),
    "the unknown": (report(), "dark vision 120 16.7 % Its series ended on 2 Nov."),
    "the warned": (report(), "nobody is named no project 12 4"),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_it_says(case: str) -> None:
    found, says = SENTENCES[case]
    assert says in said(found)


def test_two_false_stops_are_named_apart_when_one_was_longer_and_the_other_dearer() -> None:
    longer = replace(FALSE, name="longer", work_resumed_at=FALSE.at + timedelta(hours=2))
    dearer = replace(FALSE, name="dearer", cost_saved_micros=480 * MICROS)
    found = said(of(longer, dearer))
    assert "The longest of them: longer (project robotics, lan@example.org, 8.00 USD an hour)" in found
    assert "The costliest: dearer (project robotics, lan@example.org, 80.00 USD an hour)" in found


def test_times_are_the_readers() -> None:
    hanoi = timezone(timedelta(hours=7), "ICT")
    assert "Replayed from 17 Oct 2026 07:00 to 16 Nov 2026 07:00 (ICT)" in said(report(), zone=hanoi)


def test_a_day_without_a_stop_stands_in_the_list_and_its_bar_is_empty() -> None:
    lines = [line.strip() for line in shown(of(stop(0), stop(8))).splitlines()]
    whole = "█" * 24
    assert f"2026-10-17      1         48  {whole}" in lines
    assert "2026-10-18      0          0" in lines
    assert f"2026-10-19      1         48  {whole}" in lines


def test_a_long_time_is_shown_by_month() -> None:
    days = [START.date() + timedelta(days=number) for number in range(90)]
    found = shown(report(savings=[saving(day) for day in days]))
    assert "  MONTH    STOPS" in found
    assert "  2026-10     15" in found  # from the 17th on
    assert "2026-10-17" not in found


def saving(day: date, **more: Any) -> Saving:
    values: dict[str, Any] = {"project": "vision", "stops": 1, "gpu_hours_saved": 2.0}
    return Saving(**{"day": day, "cost_saved_micros": None, "currency": None} | values | more)


def test_long_tables_say_how_much_more_there_is() -> None:
    days = [START.date()]
    many = [saving(day, project=f"p{number}") for day in days for number in range(14)]
    assert "and 4 more, which -o json lists" in shown(report(savings=many))


def test_the_sweep_shows_the_frontier_and_the_policys_own_point_and_no_other() -> None:
    lines = shown(report()).partition("Other terms")[2].partition("Recommended")[0].splitlines()[2:]
    assert [" ".join(line.split()) for line in lines] == [
        "3h 1 % 1h 8 410 0/8 0 %",
        "3h 5 % 1h 15 760 0/15 0 %",
        "1h30m 5 % 30m 30 1,180 0/30 0 % recommended",
        "45m 5 % 30m 42 1,234 1/40 2.5 % this policy",
        "30m 5 % 30m 55 1,390 2/52 3.85 %",
        "15m 20 % 0s 120 1,480 21/115 18.3 %",
    ]


def test_thresholds_that_make_no_difference_are_one_row() -> None:
    alike = tuple(point(threshold=threshold, on_frontier=True) for threshold in (0.01, 0.05, 0.2))
    found = said(report(sweep=swept((*alike, point(90, 0.01, stops=3, on_frontier=True)))))
    assert "45m 1 % to 20 % 30m 42 1,234 1/40 2.5 % this policy" in found
    assert "1h30m 1 % 30m 3" in found


@pytest.mark.parametrize("name", ["\x1b[31mred\x1b[0m", "a\nb", "[bold]x[/bold]", "\u202eevil", ":smile:"])
def test_names_cannot_speak_to_the_terminal(name: str) -> None:
    hostile = replace(FALSE, name=name, owner=name, project=name)
    found = shown(report(policy=name, stops=(hostile,), totals=totals((hostile,))))
    assert not any(character in found for character in "\x1b\u202e")
    assert ("[bold]x[/bold]" in found) == (name == "[bold]x[/bold]")
    assert (":smile:" in found) == (name == ":smile:")


def test_it_fits_a_terminal_of_80_columns() -> None:
    assert max(map(len, shown(report()).splitlines())) <= 80
