"""Back-tests asked of a service: what may be asked, by whom, how it is worked out, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import backtests as queue
from service.backtest.answer import Progress
from service.backtest.question import Question
from service.backtest.report import as_json
from service.backtests import MOST_WAITING, STOPPED, Backtests
from service.clock import SetClock
from service.history.layout import History
from service.store import backtests
from service.store.database import Database
from service.store.tables import Backtest
from tests.api.service_under_test import Api, Client, service_on
from tests.backtest.reports import report
from tests.waiting import soon

IDLE = {"name": "idle-gpus", "type": "idle", "grace": "30m", "notify": []}
ASKED = {"policy": IDLE}
PATH = "/api/v1/policies/backtest"


@dataclass
class Engine:
    """In the place of the real one: notes what it is asked, and answers when it is let."""

    asked: list[Question] = field(default_factory=list)
    lets_go: threading.Event = field(default_factory=threading.Event)
    raises: Exception | None = None

    def __call__(self, _history: History, question: Question, progress: Progress) -> dict[str, Any]:
        self.asked.append(question)
        while True:
            progress(0.5, "judges the third of six days")
            if self.lets_go.wait(0.01):
                break
        if self.raises is not None:
            raise self.raises
        return as_json(report(policy=question.policy.name))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(queue, "TELL_EVERY", 0.0)
    return Engine()


@pytest.fixture
def api(sqlite_url: str, clock: SetClock, tmp_path: Path, engine: Engine) -> Iterator[Api]:
    """A service with two projects and some policies."""
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path, cycle_seconds=120) as api:
        api.rt.backtests = Backtests(database, clock, location="somewhere", holder=api.rt.holder, work=engine)
        for name in ("amber", "beryl"):
            assert api.admin.put(f"/api/v1/projects/{name}", json={"timezone": "Asia/Ho_Chi_Minh"}).status_code == 201
        for name, projects in (("amber-idle", ["amber"]), ("beryl-idle", ["beryl"]), ("both-idle", ["amber", "beryl"])):
            policy = {"type": "idle", "scope": {"projects": projects}}
            assert api.admin.put(f"/api/v1/policies/{name}", json=policy).status_code == 201
        yield api
        engine.lets_go.set()
        api.rt.backtests.stop()
    database.close()


def until(api: Api, id: str, status: str, who: Client | None = None) -> dict[str, Any]:
    """Looks again until it is so."""

    def found() -> dict[str, Any] | None:
        row: dict[str, Any] = (who or api.admin).get(f"/api/v1/backtests/{id}").json()
        return row if row["status"] == status else None

    row: dict[str, Any] = soon(found, f"back-test {id} is {status}")
    return row


def started(api: Api, **asked: Any) -> str:
    answer = api.admin.post(PATH, json=asked or ASKED)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_it_is_asked_for_worked_out_and_read(api: Api, engine: Engine) -> None:
    answer = api.admin.post(PATH, json=ASKED)
    id = answer.json()["id"]
    assert answer.json() == {"id": id, "status": "queued", "href": f"/api/v1/backtests/{id}"}

    under_way = until(api, id, "running")
    assert (under_way["report"], under_way["finished_at"]) == (None, None)

    def told() -> bool:
        now = api.admin.get(f"/api/v1/backtests/{id}").json()["progress"]
        return bool(now == {"share": 0.5, "words": "judges the third of six days"})

    soon(told, "how far it is")
    engine.lets_go.set()
    done = until(api, id, "done")
    assert done["report"] == as_json(report())
    assert (done["policy"], done["project"], done["asked_by"]) == ("idle-gpus", None, "token:CURFEW_ADMIN_TOKEN")
    assert (done["stops"], done["decided"], done["false_stops"], done["error"]) == (42, 40, 1, None)
    assert done["data_from"] == "2026-10-17T00:00:00Z"


def test_the_question_is_put_as_it_was_asked(api: Api, engine: Engine) -> None:
    started(
        api,
        **{
            "name": "both-idle",
            "from": "2026-11-01",
            "to": "2026-11-02T08:00:00+07:00",
            "project": "amber",
            "false_stop_within": "6h",
            "max_false_stops": "2.5%",
            "sweep": False,
        },
    )
    soon(lambda: engine.asked, "it is worked out")
    (question,) = engine.asked
    assert question.start == datetime(2026, 11, 1, tzinfo=UTC)
    assert question.end == datetime(2026, 11, 2, 1, tzinfo=UTC)
    assert (question.project, question.horizon, question.max_false_stops) == ("amber", timedelta(hours=6), 0.025)
    assert (question.sweep, question.step) == (None, timedelta(seconds=120))  # as often as this service looks
    assert question.policy.scope.projects == ("amber",)  # what it is for besides is not told
    assert set(question.projects) == {"amber", "beryl"}


def test_an_idle_policy_is_swept_and_another_is_not(api: Api, engine: Engine) -> None:
    engine.lets_go.set()
    started(api)
    started(api, policy={"name": "old", "type": "lifetime", "lifetime": {"max": "72h"}})
    soon(lambda: len(engine.asked) == 2, "both are worked out")
    first, second = engine.asked
    assert first.sweep is not None
    assert first.sweep.points >= 60
    assert second.sweep is None


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "nothing": ({}, 422, "give a `policy`, or the `name` of one that is applied"),
    "both": ({"name": "x", **ASKED}, 422, "give a `policy`, or the `name` of one"),
    "a policy that is not there": ({"name": "amber-idel"}, 404, "there is no policy 'amber-idel'"),
    "a mistake in the policy": ({"policy": IDLE | {"type": "idel"}}, 422, "did you mean 'idle'"),
    "a project in its scope that is not there": (
        {"policy": IDLE | {"scope": {"projects": ["ambr"]}}},
        422,
        "did you mean 'amber'",
    ),
    "another document": ({"policy": {"kind": "project", "name": "x"}}, 422, "policy: this is a project"),
    "no date": ({**ASKED, "from": "yesterday"}, 422, "'yesterday' is no date or moment"),
    "a moment before the first there is": ({**ASKED, "from": "0001-01-01T00:00+14:00"}, 422, "is no date or moment"),
    "an end before the beginning": (
        {**ASKED, "from": "2026-11-02", "to": "2026-11-01"},
        422,
        "before it begins",
    ),
    "no project of that name": ({**ASKED, "project": "ambr"}, 422, "there is no project 'ambr'; did you mean 'amber'?"),
    "no share": ({**ASKED, "max_false_stops": "1"}, 422, "write it with its sign"),
    "a month after": ({**ASKED, "false_stop_within": "31d"}, 422, "at most 30d"),
    "a field nobody knows": ({**ASKED, "form": "2026-11-01"}, 422, "form"),
    "a policy as long as a book": ({"policy": IDLE | {"description": "x" * 300_000}}, 413, "at most 262144 characters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_asked_says_why(api: Api, case: str) -> None:
    body, status, says = WRONG[case]
    answer = api.admin.post(PATH, json=body)
    assert (answer.status_code, says in answer.text.replace('\\"', '"')) == (status, True), answer.text
    assert api.admin.get("/api/v1/backtests").json()["items"] == []


def test_without_a_history_there_is_nothing_to_ask(api: Api) -> None:
    api.rt.backtests.location = ""
    answer = api.admin.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["code"]) == (409, "NoHistory")


def test_what_cannot_be_replayed_says_why(api: Api, engine: Engine) -> None:
    engine.raises = ValueError("a budget policy reads what was spent, which no history has")
    engine.lets_go.set()
    failed = until(api, started(api), "failed")
    assert (failed["error"], failed["report"]) == (str(engine.raises), None)


def test_what_breaks_off_says_no_more_than_that_and_the_next_one_goes_on(api: Api, engine: Engine) -> None:
    engine.raises = OSError("s3://key:secret@bucket is gone")
    engine.lets_go.set()
    failed = until(api, started(api), "failed")
    assert failed["error"] == "it broke off; the service's log says why"
    engine.raises = None
    until(api, started(api), "done")


def test_a_report_that_is_too_long_to_be_kept(api: Api, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_STOPS", 1)
    engine.lets_go.set()
    failed = until(api, started(api), "failed")
    assert "a service keeps no report of more than 1; ask of a shorter time or of one project" in failed["error"]
    assert failed["report"] is None


def test_one_is_worked_out_at_a_time_and_who_comes_when_many_wait_is_told_so(api: Api, engine: Engine) -> None:
    first = started(api)
    until(api, first, "running")
    waiting = [started(api) for _ in range(MOST_WAITING)]
    refused = api.admin.post(PATH, json=ASKED)
    assert (refused.status_code, refused.json()["code"]) == (429, "TooManyBacktests")
    assert sorted(one["status"] for one in rows(api)) == ["queued"] * MOST_WAITING + ["running"]
    assert len(engine.asked) == 1
    engine.lets_go.set()
    for id in waiting:
        until(api, id, "done")
    assert api.admin.post(PATH, json=ASKED).status_code == 202


def rows(api: Api, who: Client | None = None, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (who or api.admin).get(f"/api/v1/backtests{query}").json()["items"]
    return found


def test_a_repeated_request_asks_once(api: Api, engine: Engine) -> None:
    engine.lets_go.set()
    first, second = (api.admin.post(PATH, json=ASKED, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2))
    assert first == second
    until(api, first, "done")
    assert len(engine.asked) == 1


def test_a_service_that_stops_lets_go_of_all_it_was_asked(api: Api, engine: Engine) -> None:
    running = started(api)
    until(api, running, "running")
    waiting = started(api)
    api.rt.backtests.stop()
    for id in (running, waiting):
        row = until(api, id, "failed")
        assert row["error"] == STOPPED
    assert not [thread for thread in threading.enumerate() if thread.name == "back-tests" and _of(thread, engine)]


def _of(thread: threading.Thread, engine: Engine) -> bool:
    """Other tests of this process have threads of their own."""
    target = getattr(thread, "_target", None)
    return getattr(getattr(target, "__self__", None), "_work", None) is engine


def test_a_service_that_was_killed_says_so_of_what_it_left(api: Api) -> None:
    with api.rt.database.transaction() as session:
        row = Backtest(
            policy="p", digest="d", horizon_seconds=1, step_seconds=1, asked_by="x", asked_at=api.clock.now(),
            holder="gone", alive_at=api.clock.now(), status="running",
        )  # fmt: skip
        session.add(row)
        id = row.id
    with api.rt.database.transaction() as session:  # as `serve` does when it starts
        assert backtests.give_up(session, now=api.clock.now(), is_gone=lambda holder: holder == "gone") == 1
    assert until(api, id, "failed")["error"] == backtests.ABANDONED


def test_the_list_is_paged_newest_first_and_filtered(api: Api, engine: Engine, clock: SetClock) -> None:
    engine.lets_go.set()
    ids = []
    for name in ("amber-idle", "beryl-idle", "amber-idle"):
        ids.append(started(api, name=name))
        until(api, ids[-1], "done")
        clock.at += timedelta(minutes=1)
    assert [row["id"] for row in rows(api)] == ids[::-1]
    first = api.admin.get("/api/v1/backtests?limit=2").json()
    rest = api.admin.get(f"/api/v1/backtests?limit=2&cursor={first['next']}").json()
    assert [row["id"] for row in (*first["items"], *rest["items"])] == ids[::-1]
    assert [row["id"] for row in rows(api, query="?policy=amber-idle")] == [ids[2], ids[0]]
    assert rows(api, query="?status=failed") == []
    assert "report" not in first["items"][0]


CONFINED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no project": (ASKED, 403, "this token is confined to amber; say of which `project`"),
    "another's project": ({**ASKED, "project": "beryl"}, 403, "this token is confined to amber"),
    "a project that is not there": ({**ASKED, "project": "none"}, 403, "this token is confined to amber"),
    "another's policy": ({"name": "beryl-idle", "project": "amber"}, 404, "there is no policy 'beryl-idle'"),
    "a policy that is not there": ({"name": "none", "project": "amber"}, 404, "there is no policy 'none'"),
    "a scope with another's project": (
        {"policy": IDLE | {"scope": {"projects": ["amber", "beryl"]}}, "project": "amber"},
        403,
        "names sources, or projects that this token does not see",
    ),
    "a scope with a project that is not there": (
        {"policy": IDLE | {"scope": {"projects": ["bery"]}}, "project": "amber"},
        403,
        "names sources, or projects that this token does not see",
    ),
    "a scope with a source": (
        {"policy": IDLE | {"scope": {"sources": ["research"]}}, "project": "amber"},
        403,
        "names sources, or projects that this token does not see",
    ),
}


@pytest.mark.parametrize("case", CONFINED)
def test_who_is_confined_asks_of_their_own_alone(api: Api, case: str) -> None:
    body, status, says = CONFINED[case]
    amber = api.holder("amber-viewer", "viewer", "amber")
    answer: httpx.Response = amber.post(PATH, json=body)
    assert (answer.status_code, answer.json()["detail"]) == (status, says) or says in answer.json()["detail"]
    assert answer.status_code == status
    assert rows(api) == []


def test_who_is_confined_sees_what_looked_at_their_own_and_nothing_else(api: Api, engine: Engine) -> None:
    engine.lets_go.set()
    amber, beryl = (api.holder(f"{name}-viewer", "viewer", name) for name in ("amber", "beryl"))
    theirs = amber.post(PATH, json={"name": "both-idle", "project": "amber"}).json()["id"]
    until(api, theirs, "done", amber)
    everybodys = started(api, name="both-idle")
    until(api, everybodys, "done")
    assert [row["id"] for row in rows(api, amber)] == [theirs]
    assert rows(api, beryl) == []
    for who, id in ((beryl, theirs), (amber, everybodys), (beryl, everybodys)):
        assert who.get(f"/api/v1/backtests/{id}").status_code == 404
    assert engine.asked[0].policy.scope.projects == ("amber",)


def test_nothing_is_locked_while_one_is_worked_out(api: Api) -> None:
    """A transaction that stays open would keep SQLite from writing."""
    until(api, started(api), "running")
    begun = time.monotonic()
    assert api.admin.put("/api/v1/projects/third", json={}).status_code == 201
    assert time.monotonic() - begun < 10
