"""A back-test as a page, in a real browser: what it draws, that it can be read on paper, in the dark and on a phone,
and that names in it are only ever text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from service.backtest import page
from service.backtest.answer import marked
from service.backtest.report import Report, as_json
from tests.backtest.reports import POLICY, START, point, quiet, report, stop, swept, totals, usual_points
from tests.e2e.browser import WIDTH, Phone, chromium, phone

EVIL = "<img src=x onerror=\"document.title='hacked'\">'\"&{{ 7*7 }}\u202e</title></svg><script>x</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def hand(browser: Browser) -> Iterator[Phone]:
    """A phone with scripts on: nothing hostile may run."""
    held = phone(browser, scripts=True)
    yield held
    held.page.context.close()


def json_of(report: Report) -> dict[str, Any]:
    return marked(as_json(report), POLICY)


def opened(hand: Phone, tmp_path: Path, *reports: Report) -> Page:
    file = tmp_path / "page.html"
    file.write_text(page.whole([json_of(one) for one in reports], UTC), "utf-8")
    hand.page.goto(file.as_uri())
    return hand.page


def test_a_month_is_told_in_words_tables_and_pictures(hand: Phone, tmp_path: Path) -> None:
    shown = opened(hand, tmp_path, report())
    told = hand.text()
    for says in (
        "What idle-gpus would have done",
        "It would have stopped 42 times and saved 1,978 GPU hours (1,977.60 USD); 1 of 40 decided stops was false",
        "A perfect watcher would have saved 2,472 GPU hours: this policy reaches 80 % of it.",
        "Replayed from 17 Oct 2026 00:00 to 16 Nov 2026 00:00 (UTC)",
        "The longest of them, and the costliest: trainer-3",
        "Recommended: idle for 1h30m below 5 %, grace 30m.",
        "Its series ended on 2 Nov.",
        "Recorded data cannot show what would have happened after a stop.",
    ):
        assert says in told
    assert shown.title() == "Back-test of idle-gpus"
    assert shown.locator("svg.chart[role=img]").count() == 2
    assert hand.complaints == []
    assert hand.sideways <= 0


def test_it_can_be_read_in_the_dark(browser: Browser, tmp_path: Path) -> None:
    """Each letter of a picture stands out from its ground, at least 4.5 to 1."""
    for dark in (False, True):
        held = phone(browser, scripts=True, dark=dark)
        shown = opened(held, tmp_path, report())
        for selector in (".chart .tick", "figcaption .quiet", ".backtest p"):
            letters = shown.locator(selector).first.evaluate(_COLOURS)
            assert _contrast(*letters) >= 4.5, (dark, selector, letters)
        held.page.context.close()


_COLOURS = """node => {
  const style = getComputedStyle(node), paper = [];
  for (let at = node; at; at = at.parentElement) paper.push(getComputedStyle(at).backgroundColor);
  const ground = paper.find(colour => colour !== 'rgba(0, 0, 0, 0)');
  return [node.namespaceURI.endsWith('svg') ? style.fill : style.color, ground];
}"""


def _contrast(ink: str, ground: str) -> float:
    lighter, darker = sorted((_luminance(ink), _luminance(ground)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_letters_in_pictures_are_large_enough_on_a_phone(hand: Phone, tmp_path: Path) -> None:
    shown = opened(hand, tmp_path, report())
    for chart in shown.locator("svg.chart[role=img]").all():
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] <= WIDTH
        heights = chart.locator("text").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert min(heights) >= 10


def test_no_letters_lie_upon_each_other_or_outside_of_their_picture(hand: Phone, tmp_path: Path) -> None:
    shown = opened(hand, tmp_path, report())
    for chart in shown.locator("svg.chart[role=img]").all():
        outer = chart.bounding_box()
        assert outer is not None
        boxes = [box for text in chart.locator("text").all() if (box := text.bounding_box())]
        for index, one in enumerate(boxes):
            assert one["x"] >= outer["x"] - 1
            assert one["x"] + one["width"] <= outer["x"] + outer["width"] + 1
            for other in boxes[:index]:
                apart = (
                    one["x"] + one["width"] <= other["x"] + 1
                    or other["x"] + other["width"] <= one["x"] + 1
                    or one["y"] + one["height"] <= other["y"] + 3
                    or other["y"] + other["height"] <= one["y"] + 3
                )
                assert apart, (one, other)


def test_it_is_printed_black_on_white(browser: Browser, tmp_path: Path) -> None:
    held = phone(browser, scripts=True, dark=True)
    shown = opened(held, tmp_path, report())
    shown.emulate_media(media="print")
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.locator(".chart .tick").first.evaluate(_COLOURS) == ["rgb(51, 51, 51)", "rgb(255, 255, 255)"]
    held.page.context.close()


@pytest.mark.parametrize("field", ["policy", "name", "project", "owner", "why", "limit", "terms", "currency"])
def test_a_hostile_name_is_only_text(hand: Phone, tmp_path: Path, field: str) -> None:
    false = stop(1, false_stop=True, work_resumed_at=stop(1).at + timedelta(minutes=5), currency="USD")
    named: dict[str, Any] = {key: EVIL for key in ("name", "project", "owner", "currency") if key == field}
    hostile = replace(false, **named)
    given: dict[str, Any] = {"stops": (hostile,), "totals": totals((hostile,))}
    others: dict[str, dict[str, Any]] = {
        "policy": {"policy": EVIL},
        "terms": {"terms": EVIL},
        "limit": {"limits": [EVIL]},
    }
    given |= others.get(field, {})
    if field == "why":
        given["unknown"] = [replace(report().unknown[0], why=EVIL, name=EVIL)]
    shown = opened(hand, tmp_path, report(**given))
    assert shown.locator("img").count() == 0
    assert shown.locator("script").count() == 0
    assert "hacked" not in shown.title().partition("<")[0]
    assert hand.complaints == []
    assert "\u202e" not in shown.content()
    assert "{{ 7*7 }}" in shown.locator("main").inner_text()


def test_nothing_happened_is_said_without_empty_tables(hand: Phone, tmp_path: Path) -> None:
    shown = opened(hand, tmp_path, quiet())
    assert "It would have stopped nothing of the 12 resources in scope." in hand.text()
    assert shown.locator("table").count() == shown.locator("svg.chart").count() == 0


def test_several_reports_stand_in_one_file(hand: Phone, tmp_path: Path) -> None:
    shown = opened(hand, tmp_path, report(), quiet(policy="night"))
    assert shown.title() == "Back-test of idle-gpus, night"
    assert shown.locator("h1").all_inner_texts() == ["What idle-gpus would have done", "What night would have done"]


def test_a_file_needs_nothing_else() -> None:
    text = page.whole([json_of(report())], UTC)
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!data:,)[^"]*"|@import|url\(h', text)
    assert "style=" not in text  # the console forbids it
    assert len(text) < 200_000


class _Numbers(HTMLParser):
    """What a reader of the tables sees, and what the titles of the pictures say."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.cells, self.titles = [], []  # type: ignore[var-annotated]
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "td" in self.stack:
            self.cells.append(data.strip())
        if "title" in self.stack and "svg" in self.stack:
            self.titles.append(data)


def test_every_number_of_a_picture_is_in_a_table_too() -> None:
    found = _Numbers(page.body(json_of(report()), UTC))
    assert [title for title in found.titles if "idle for" in title and title.startswith("This policy")] == [
        "This policy: idle for 45m below 5 %, grace 30m: 1,234 GPU hours, 1 of 40 decided stops was false (2.5 %), "
        "2 are undecided"
    ]
    days = [title for title in found.titles if title.startswith("2026-")]
    assert "2026-10-17, no project: 48 GPU hours" in days
    for title in days:
        assert title.partition(",")[0] in found.cells


def bars(found: Report) -> list[tuple[float, float]]:
    """Where each part of a bar begins and how high it is, from the ground up."""
    text = str(page.savings_chart(json_of(found)))
    return [
        (float(y), float(height))
        for y, height in re.findall(r'class="part [^>]* y="([\d.]+)"[^>]* height="([\d.]+)"', text)
    ]


def test_parts_of_a_bar_are_as_high_as_they_save_and_stand_upon_each_other() -> None:
    stops = (stop(0), stop(1, gpu_hours_saved=24.0, at=stop(0).at))
    found = bars(report(stops=stops, totals=totals(stops)))
    (lower, upper) = found
    assert lower[1] == pytest.approx(2 * upper[1], abs=0.02)
    assert upper[0] + upper[1] == pytest.approx(lower[0], abs=0.02)
    assert lower[0] + lower[1] == pytest.approx(page.HEIGHT - page.BOTTOM, abs=0.02)


def test_more_projects_than_colours_share_the_last_one() -> None:
    stops = tuple(stop(0, project=f"p{number}", gpu_hours_saved=float(100 - number)) for number in range(9))
    text = page.body(json_of(report(stops=stops, totals=totals(stops))), UTC)
    assert "3 others" in text
    assert text.count('class="part colour-0"') == 4  # three parts and the legend


def test_a_long_time_is_drawn_by_month() -> None:
    stops = tuple(
        stop(0, at=START + timedelta(days=number), saves_until=START + timedelta(days=number, hours=6))
        for number in range(0, 90, 3)
    )
    text = page.body(json_of(report(stops=stops, totals=totals(stops))), UTC)
    assert "GPU hours saved by month" in text
    assert text.count('class="part ') == 5  # October to January, one project, and the legend


FRONTIERS: dict[str, tuple[tuple[Any, ...], int, int]] = {
    "the usual": (usual_points(), 4, 1),
    "one point only": ((point(on_frontier=True),), 0, 0),
    "nothing false anywhere": ((point(false_stops=0, on_frontier=True), point(15, false_stops=0)), 0, 0),
    "nothing decided anywhere": ((point(decided=0, false_stops=0, undecided=42),), 0, 1),
}


@pytest.mark.parametrize("case", FRONTIERS)
def test_a_frontier_is_drawn_or_said_of(case: str) -> None:
    points, dots, left_out = FRONTIERS[case]
    sweep = json_of(report(sweep=swept(points)))["sweep"]
    chart = str(page.frontier_chart(sweep) or "")
    assert chart.count('class="on-frontier"') == dots
    assert page.not_drawn(sweep) == left_out
    assert "nan" not in chart
    for number in re.findall(r'(?:c?[xy][12]?)="([-\d.]+)"', chart):
        assert -1 <= float(number) <= page.WIDTH


def test_the_first_200_stops_are_listed() -> None:
    stops = tuple(stop(number) for number in range(230))
    text = page.body(json_of(report(stops=stops, totals=totals(stops), savings=[])), UTC)
    assert "And 30 more, in the JSON." in text
    assert "trainer-199<" in text
    assert "trainer-200<" not in text
