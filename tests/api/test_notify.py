"""A test call: whether messages about a project reach anybody, said for each channel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from service.clock import SetClock
from service.store.database import Database
from tests.api.service_under_test import Api, service_on

PATH = "/api/v1/projects/vision/notify/test"


@pytest.fixture
def api(sqlite_url: str, clock: SetClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("CURFEW_SECRET_HOOK", "hunter2hunter2")
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path, allow_targets=("127.0.0.1",), notify=("demo://ops",)) as made:
        yield made
    database.close()


def test_each_channel_is_tried_and_says_what_came_of_it(api: Api, httpserver: HTTPServer) -> None:
    events: list[dict[str, object]] = []

    def take(request: Request) -> Response:
        events.append(json.loads(request.get_data()))
        return Response(status=204)

    httpserver.expect_request("/good").respond_with_handler(take)
    httpserver.expect_request("/bad/hunter2hunter2").respond_with_data("no", status=403)
    place = f"127.0.0.1:{httpserver.port}"
    notify = [
        f"webhook://{place}/good?secret=${{HOOK}}",
        f"json://{place}/bad/${{HOOK}}",
        "slack://T1JJ3T3L2/A1BRTD4JD/${NOT_SET}",
    ]
    assert api.admin.put("/api/v1/projects/vision", json={"owners": ["lan@example.org"], "notify": notify}).is_success
    answer = api.admin.post(PATH)

    assert answer.status_code == 200
    found = answer.json()
    assert found["project"] == "vision"
    assert [(one["kind"], one["ok"]) for one in found["channels"]] == [
        ("mail", False),
        ("webhook", True),
        ("json", False),
        ("slack", False),
    ]
    errors = [one["error"] for one in found["channels"]]
    assert "CURFEW_MAIL is not set" in errors[0]
    assert errors[1] is None
    assert "403" in errors[2]
    assert "the secret ${NOT_SET} is not set" in errors[3]
    assert "hunter2" not in answer.text
    [event] = events
    assert event["type"] == "dev.curfew.test"
    assert event["subject"] == "project/vision"


def test_it_is_written_down_and_nothing_is_queued(api: Api) -> None:
    api.admin.put("/api/v1/projects/vision", json={"notify": ["demo://a", "demo://b"]})
    api.admin.post(PATH)
    line = api.admin.get("/api/v1/audit").json()["items"][0]
    assert (line["verb"], line["object"], line["details"]) == (
        "test notify",
        "project/vision",
        {"channels": 2, "failed": 2},
    )


def test_with_a_key_it_is_sent_once(api: Api, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook").respond_with_data("", status=204)
    api.admin.put("/api/v1/projects/vision", json={"notify": [f"webhook://127.0.0.1:{httpserver.port}/hook"]})
    first, again = (api.admin.post(PATH, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.json()["channels"][0]["ok"]
    assert len(httpserver.log) == 1
    api.admin.post(PATH)
    assert len(httpserver.log) == 2


def test_without_anybody_the_installations_own_channels_are_tried(api: Api) -> None:
    api.admin.put("/api/v1/projects/vision", json={})
    [only] = api.admin.post(PATH).json()["channels"]
    assert only["error"] == "demo:// channels deliver to nobody and exist only in the demo"


def test_one_channel_that_breaks_does_not_hide_the_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(api.rt.channels, "deliver", broken)
    api.admin.put("/api/v1/projects/vision", json={"notify": ["demo://a", "demo://b"]})
    answer = api.admin.post(PATH)
    assert [one["ok"] for one in answer.json()["channels"]] == [False, False]
    assert "hunter2" not in answer.text


def test_a_project_that_is_not_there_cannot_be_told_of(api: Api) -> None:
    assert api.admin.post("/api/v1/projects/nothing/notify/test").status_code == 404
