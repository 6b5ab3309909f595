"""The pages of back-tests: the form that asks, how far one is, its report, and what the confined get to see of it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from service.backtest.question import Question
from service.backtest.report import as_json
from service.backtests import MOST_WAITING, Backtests
from service.store.tables import Backtest
from tests.backtest.reports import report
from tests.console.conftest import House, text_of

EVIL = "<script>alert(1)</script>\u202e&{{ 7*7 }}\"'"


class Noted(Backtests):
    """Of what is asked there is the row and the question; nobody works it out."""

    def add(self, id: str, question: Question) -> None:
        self._waiting.append((id, question))

    @property
    def asked(self) -> list[Question]:
        return [question for _, question in self._waiting]


@pytest.fixture
def noted(house: House) -> Noted:
    """Logged in, where there is a history, two projects and some policies."""
    made = Noted(house.runtime.database, house.clock, location="there", holder="us")
    house.runtime.backtests = made
    house.document("project", "robotics")
    for name, projects in (("idle-gpus", []), ("robots", ["robotics"]), ("seers", ["vision"])):
        house.document("policy", name, type="idle", scope={"projects": projects})
    house.log_in()
    return made


def row(house: House, id: str = "b1", **more: Any) -> Backtest:
    now = house.clock.now()
    values: dict[str, Any] = {
        "id": id,
        "policy": "idle-gpus",
        "digest": "d",
        "horizon_seconds": 7200,
        "step_seconds": 60,
        "asked_by": "token:lan",
        "asked_at": now - timedelta(minutes=3),
        "alive_at": now,
        "holder": "us",
    }
    made: Backtest = house.add(Backtest(**(values | more)))
    return made


def test_the_overview_leads_to_it(house: House) -> None:
    house.log_in()
    assert '<a href="/backtests">What would a policy have done?</a>' in house.client.get("/").text


def test_a_policy_is_tried_by_a_form(house: House, noted: Noted) -> None:
    answer = house.press(
        "/backtests", policy="seers", project="vision", stretch="the last 7 days", within="6h", ceiling="5%"
    )
    assert answer.status_code == 303
    (made,) = house.rows(Backtest)
    assert answer.headers["location"] == f"/backtests/{made.id}"
    assert (made.policy, made.project, made.asked_by) == ("seers", "vision", "token:CURFEW_ADMIN_TOKEN")
    (asked,) = noted.asked
    assert (asked.start, asked.end) == (house.clock.now() - timedelta(days=7), None)
    assert (asked.horizon, asked.max_false_stops) == (timedelta(hours=6), 0.05)


def test_the_form_offers_what_its_reader_sees(house: House, noted: Noted) -> None:
    offered = re.findall(r"<option[^>]*>([^<]*)", house.client.get("/backtests").text)
    assert offered[:6] == ["idle-gpus", "robots", "seers", "every project", "robotics", "vision"]
    house.log_in(house.token("theirs", "viewer", "vision"))
    offered = re.findall(r"<option[^>]*>([^<]*)", house.client.get("/backtests").text)
    assert offered[:3] == ["idle-gpus", "seers", "vision"]
    assert "robotics" not in offered


def test_a_policy_can_be_named_in_the_address(house: House, noted: Noted) -> None:
    assert "<option selected>seers</option>" in house.client.get("/backtests?policy=seers").text


REFUSED: dict[str, tuple[dict[str, str], int, str]] = {
    "a policy that is not there": ({"policy": "none"}, 404, "There is no policy 'none'."),
    "no policy": ({}, 404, "There is no policy ''."),
    "a stretch nobody offers": ({"policy": "seers", "stretch": "for ever"}, 422, "not one that Curfew made"),
    "a project that is not there": ({"policy": "seers", "project": "visio"}, 422, "did you mean 'vision'?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_says_why(house: House, noted: Noted, case: str) -> None:
    fields, status, says = REFUSED[case]
    answer = house.press("/backtests", **fields)
    assert (answer.status_code, says in text_of(answer)) == (status, True), text_of(answer)
    assert noted.asked == []


def test_a_form_from_elsewhere_asks_nothing(house: House, noted: Noted) -> None:
    assert house.client.post("/backtests", data={"policy": "seers", "csrf": "x"}).status_code == 403
    assert noted.asked == []


def test_who_comes_when_many_wait_is_told_so(house: House, noted: Noted) -> None:
    for _ in range(MOST_WAITING):
        assert house.press("/backtests", policy="seers").status_code == 303
    answer = house.press("/backtests", policy="seers")
    assert (answer.status_code, "Many back-tests wait already" in text_of(answer)) == (429, True)


def test_without_a_history_the_page_says_how_to_get_one(house: House, noted: Noted) -> None:
    noted.location = ""
    shown = text_of(house.client.get("/backtests"))
    assert "No history is kept here. CURFEW_HISTORY says where" in shown
    assert "What would it have done?" not in shown


STANDS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "waits": ({}, "It waits for its turn. This page looks again by itself.", True),
    "runs": (
        {"status": "running", "progress_share": 0.426, "progress_words": "judges Tuesday"},
        "It is being worked out, 42 % done: judges Tuesday.",
        True,
    ),
    "failed": (
        {"status": "failed", "error": "there is no history yet"},
        "It came to nothing. There is no history yet.",
        False,
    ),
    "is done": (
        {"status": "done", "report": as_json(report())},
        "It would have stopped 42 times and saved 1,978 GPU hours",
        False,
    ),
}


@pytest.mark.parametrize("case", STANDS)
def test_one_says_where_it_stands(house: House, noted: Noted, case: str) -> None:
    given, says, looks_again = STANDS[case]
    row(house, **given)
    answer = house.client.get("/backtests/b1")
    assert answer.status_code == 200
    assert says in text_of(answer)
    assert "Asked for by token:lan 3m ago" in text_of(answer).replace("3 minutes ago", "3m ago")
    assert ('http-equiv="refresh"' in answer.text) == looks_again
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "style=" not in answer.text


def test_times_are_those_of_the_project_it_looked_at(house: House, noted: Noted) -> None:
    row(house, status="done", project="vision", report=as_json(report()))
    assert "Replayed from 17 Oct 2026 07:00 to 16 Nov 2026 07:00 (Asia/Ho_Chi_Minh)" in text_of(
        house.client.get("/backtests/b1")
    )


def test_the_list_says_how_each_came_out(house: House, noted: Noted) -> None:
    row(house, "b1", status="done", stops=42, decided=40, false_stops=1)
    row(house, "b2", status="failed", policy="robots", project="robotics", asked_at=house.clock.now())
    shown = text_of(house.client.get("/backtests"))
    assert shown.index("robots robotics") < shown.index("idle-gpus every project")
    assert "42 1 of 40 Done" in shown


def test_the_confined_see_what_looked_at_their_own_alone(house: House, noted: Noted) -> None:
    for id, project in (("b1", "vision"), ("b2", "robotics"), ("b3", None)):
        row(house, id, project=project, status="done", policy=f"tried-{id}", report=as_json(report()))
    house.log_in(house.token("theirs", "viewer", "vision"))
    shown = text_of(house.client.get("/backtests"))
    assert re.findall(r"tried-b\d", shown) == ["tried-b1"]
    assert [house.client.get(f"/backtests/{id}").status_code for id in ("b1", "b2", "b3", "none")] == [
        200,
        404,
        404,
        404,
    ]
    assert house.press("/backtests", policy="seers").status_code == 403  # of everything
    assert house.press("/backtests", policy="seers", project="robotics").status_code == 403
    assert house.press("/backtests", policy="robots", project="vision").status_code == 404
    assert house.press("/backtests", policy="seers", project="vision").status_code == 303


def test_hostile_words_are_only_text(house: House, noted: Noted) -> None:
    row(house, "b1", status="failed", policy=EVIL, error=EVIL, asked_by=EVIL)
    row(house, "b2", status="running", progress_words=EVIL, policy=EVIL)
    for path in ("/backtests", "/backtests/b1", "/backtests/b2", f"/backtests?policy={EVIL}"):
        text = house.client.get(path).text
        assert "<script>" not in text
        assert "\u202e" not in text
        assert "49" not in re.sub(r"[\d:]{5}", "", text).partition("<main>")[2].partition("</main>")[0]
