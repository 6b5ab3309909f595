"""The audit log is searched by who, what, when and any text, and exported whole without being held in memory."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from service.api import audit as route
from service.api.audit import _harmless
from service.store import audit
from service.store.tables import Audit
from tests.api.service_under_test import Api, Client

LINES: dict[str, dict[str, Any]] = {
    "old": {"days": 9, "actor": "curfew", "verb": "warn", "object": "finding/f1", "project": "vision"},
    "kept": {"days": 3, "actor": "token:lan", "verb": "snooze", "object": "finding/f1", "project": "vision",
             "reason": "Huấn luyện 100% _xong_", "details": {"name": 'train "seven"', "note": "Đà Nẵng"}},
    "theirs": {"days": 2, "actor": "link:an@example.org", "verb": "stop now", "object": "finding/f2",
               "project": "speech", "reason": "100 percent"},
    "nobodys": {"days": 1, "actor": "token:ops", "verb": "hold", "object": "hold/h1", "project": None},
    "new": {"days": 0, "actor": "curfew", "verb": "stop verified", "object": "resource/r1", "project": "vision"},
}  # fmt: skip
"""In the order in which they were written, and how many days ago."""


@pytest.fixture
def log(api_everywhere: Api) -> Api:
    now = api_everywhere.clock.now()
    for reason, line in LINES.items():
        given = {"reason": reason, **line}
        api_everywhere.audit_line(at=now - timedelta(days=given.pop("days")), **given)
    return api_everywhere


def told(api: Api, query: str, client: Client | None = None) -> list[str]:
    """Which of the lines the answer has, in its order. The tokens that were made here are not of interest."""
    items = (client or api.admin).get(f"/api/v1/audit?{query}").json()["items"]
    by_place = {(line["verb"], line["object"]): name for name, line in LINES.items()}
    return [by_place[item["verb"], item["object"]] for item in items if not item["object"].startswith("token/")]


SEARCHES = {
    "everything, newest first": ("", ["new", "nobodys", "theirs", "kept", "old"]),
    "of a project": ("project=vision", ["new", "kept", "old"]),
    "of either project": ("project=vision&project=speech", ["new", "theirs", "kept", "old"]),
    "by somebody": ("actor=token:lan", ["kept"]),
    "of some verbs": ("verb=snooze&verb=hold", ["nobodys", "kept"]),
    "about something": ("object=finding/f1", ["kept", "old"]),
    "since so long ago": ("from=2d", ["new", "nobodys", "theirs"]),
    "since a day": ("from=2026-11-15", ["new", "nobodys"]),
    "since a moment": ("from=2026-11-14T09:00:00Z", ["new", "nobodys", "theirs"]),
    "since a moment with its offset": ("from=2026-11-14T16:00:00%2B07:00", ["new", "nobodys", "theirs"]),
    "since a moment whose plus came as a space": ("from=2026-11-14T16:00:00+07:00", ["new", "nobodys", "theirs"]),
    "until a moment, exclusive": ("to=2026-11-13T09:00:00Z", ["old"]),
    "between": ("from=4d&to=1d", ["theirs", "kept"]),
    "with a word in its reason, in capitals or not": ("text=PERCENT", ["theirs"]),
    "with a word among the details": ("text=SEVEN", ["kept"]),
    "with letters beyond ASCII in its reason": ("text=luyện", ["kept"]),
    "with letters beyond ASCII among the details": ("text=Nẵng", ["kept"]),
    "with a quote among the details": ('text=train "seven', ["kept"]),
    "with signs that mean something to SQL": ("text=100%25 _", ["kept"]),
    "with nothing like it": ("text='; DROP TABLE audit; --", []),
    "all at once": ("project=vision&verb=snooze&from=4d&text=seven", ["kept"]),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_searching(log: Api, case: str) -> None:
    query, found = SEARCHES[case]
    assert told(log, query) == found


@pytest.mark.parametrize("field", ["from", "to"])
@pytest.mark.parametrize(
    "moment", ["yesterday", "2026-13-01", "2026-11-14T09:00:00", "9999999999d", "0001-01-01T00:00:00Z"]
)
def test_a_moment_that_is_none_is_refused(api: Api, field: str, moment: str) -> None:
    answer = api.admin.get("/api/v1/audit", params={field: moment})
    assert (answer.status_code, field in answer.json()["detail"]) == (422, True)


def test_pages_give_each_line_once(log: Api) -> None:
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        page = log.admin.get("/api/v1/audit", params={"limit": 2, **more}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("how", ["", "&format=ndjson", "&format=csv"])
@pytest.mark.parametrize(
    "query", ["", "project=speech", "text=percent", "actor=token:ops", "cursor=4", "cursor=999999"]
)
def test_the_confined_find_lines_of_their_project_only_however_they_ask(log: Api, query: str, how: str) -> None:
    lead = log.holder("lead", "viewer", "vision")
    text = lead.get(f"/api/v1/audit?{query}{how}").text
    for word in ("speech", "an@example.org", "token:ops", "h1", "percent"):
        assert word not in text


# --- exporting -------------------------------------------------------------------------------------------------------


def test_ndjson_has_the_lines_of_the_pages_exactly(log: Api) -> None:
    items = log.admin.get("/api/v1/audit").json()["items"]
    answer = log.admin.get("/api/v1/audit?format=ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert [json.loads(line) for line in answer.text.splitlines()] == items


def test_csv_has_one_row_for_each_line(log: Api) -> None:
    answer = log.admin.get("/api/v1/audit?format=csv&project=vision")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="curfew-audit-2026-11-16.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["verb"] for row in rows] == ["stop verified", "snooze", "warn"]
    assert rows[1]["at"] == "2026-11-13T09:00:00+00:00"
    assert rows[1]["reason"] == "Huấn luyện 100% _xong_"
    assert json.loads(rows[1]["details"])["note"] == "Đà Nẵng"


ACCEPTED = {
    "nothing": ("", "application/json"),
    "anything": ("*/*", "application/json"),
    "JSON": ("application/json", "application/json"),
    "CSV": ("text/csv", "text/csv"),
    "NDJSON, then anything": ("application/x-ndjson;q=0.9, */*;q=0.1", "application/x-ndjson"),
    "what a browser says": ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_the_format_may_be_asked_for_by_accept(log: Api, case: str) -> None:
    accept, media = ACCEPTED[case]
    answer = log.admin.get("/api/v1/audit", headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media


def test_an_export_has_every_line_and_holds_few_of_them_at_a_time(
    api_everywhere: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, looked_up = api_everywhere, audit.search
    held: list[int] = []

    def search(*given: Any, **more: Any) -> Sequence[Audit]:
        rows = looked_up(*given, **more)
        held.append(len(rows))
        return rows

    monkeypatch.setattr(route, "AT_ONCE", 7)
    monkeypatch.setattr(route.audit, "search", search)
    for count in range(23):
        api.audit_line(object=f"action/{count}")
    lines = api.admin.get("/api/v1/audit?format=ndjson").text.splitlines()
    assert [json.loads(line)["object"] for line in lines] == [f"action/{count}" for count in range(22, -1, -1)]
    assert held == [7, 7, 7, 2]


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_an_export_that_broke_off_goes_on_after_its_last_line(log: Api, format: str) -> None:
    whole = log.admin.get(f"/api/v1/audit?format={format}").text.splitlines()
    head = len(whole) - 5
    rest = log.admin.get(f"/api/v1/audit?format={format}&cursor=3").text.splitlines()
    assert rest == whole[:head] + whole[head + 3 :]


def test_a_database_that_is_gone_is_said_before_an_export_begins(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("no connection"))

    monkeypatch.setattr("service.store.audit.search", gone)
    assert api.admin.get("/api/v1/audit?format=csv").status_code == 503


NO_EXPORT = {
    "a limit": "format=csv&limit=10",
    "another format": "format=xlsx",
    "a format with a line break in it": "format=csv%0d%0aSet-Cookie:%20a=b",
    "a cursor of ones own making": "format=csv&cursor=1%20OR%201",
    "a negative cursor": "format=csv&cursor=-1",
    "a cursor beyond every number": "cursor=" + "9" * 40,
}


@pytest.mark.parametrize("case", NO_EXPORT)
def test_what_is_no_export_is_refused(log: Api, case: str) -> None:
    answer = log.admin.get(f"/api/v1/audit?{NO_EXPORT[case]}")
    assert answer.status_code == 422
    assert "set-cookie" not in answer.headers


FORMULAS = {
    "a command": "=cmd|' /C calc'!A0",
    "a sum": "+1+1",
    "a difference": "-2+3+cmd|' /C calc'!A0",
    "a function": "@SUM(1+1)*cmd|' /C calc'!A0",
    "after a blank": "  =1+1",
    "after a tab": "\t=1+1",
    "after a line break": "\r\n=1+1",
    "after a hidden character": "\u200b=1+1",
    "in full-width signs": "\uff1d1+1",
}


@pytest.mark.parametrize("case", FORMULAS)
def test_a_spreadsheet_takes_no_text_of_ours_for_a_formula(api: Api, case: str) -> None:
    evil = FORMULAS[case]
    api.audit_line(actor=evil, verb=evil, object=evil, project=evil, reason=evil, details={"name": evil})
    text = api.admin.get("/api/v1/audit?format=csv").text
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    for column in ("actor", "verb", "object", "project", "reason"):
        assert row[column].startswith("'")
    assert row["details"].startswith("{")
    assert len(text.splitlines()) == 2


@given(st.text())
def test_no_cell_begins_with_a_formula_or_breaks_its_line(text: str) -> None:
    cell = _harmless(text)
    assert not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell)
    assert len(cell.splitlines()) <= 1
