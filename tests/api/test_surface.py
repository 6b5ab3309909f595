"""What every answer has in common: problems, limits, headers; and the probes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.api.guard import MAX_BODY_BYTES
from tests.api.service_under_test import Api

PROBLEMS = {
    "nothing there": ("GET", "/api/v1/nothing", {}, 404, "NotFound"),
    "no such method": ("PATCH", "/api/v1/hold", {}, 405, "MethodNotAllowed"),
    "no token": ("GET", "/api/v1/hold", {"headers": {"Authorization": ""}}, 401, "Unauthorised"),
    "a bad body": ("POST", "/api/v1/findings/f/snooze", {"json": {}}, 422, "InvalidRequest"),
    "no JSON": (
        "PUT",
        "/api/v1/hold",
        {"content": "{", "headers": {"Content-Type": "application/json"}},
        422,
        "InvalidRequest",
    ),
    "a NUL in the path": ("GET", "/api/v1/projects/a%00b", {}, 400, "BadRequest"),
    "a NUL in a filter": ("GET", "/api/v1/findings?project=%00", {}, 400, "BadRequest"),
    "a misspelt filter": ("GET", "/api/v1/findings?projct=vision", {}, 422, "InvalidRequest"),
    "a misspelt part of what is lifted": ("DELETE", "/api/v1/hold?projct=vision", {}, 422, "InvalidRequest"),
    "too much": ("POST", "/api/v1/apply", {"content": b"#" * (MAX_BODY_BYTES + 1)}, 413, "TooLarge"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_a_refusal_is_a_problem_with_a_stable_code(api: Api, case: str) -> None:
    method, path, request, status, code = PROBLEMS[case]
    answer = api.admin.request(method, path, **request)
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "detail", "instance"} <= set(problem)


def test_a_body_without_its_length_is_bounded_too(api: Api) -> None:
    async def endless() -> Any:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b"#" * 65536

    assert api.admin.post("/api/v1/apply", content=endless()).status_code == 413


def test_every_answer_carries_the_security_headers(api: Api) -> None:
    for path in ("/healthz", "/api/v1/hold", "/nothing"):
        headers = api.admin.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"


def test_what_goes_wrong_inside_tells_nothing_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr("service.store.views.holds", broken)
    answer = replace(api.admin, forgiving=True).get("/api/v1/hold")
    assert (answer.status_code, answer.json()["code"]) == (500, "Internal")
    assert "hunter2" not in answer.text


def test_a_database_that_does_not_answer_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("no connection"))

    monkeypatch.setattr("service.store.views.holds", gone)
    answer = api.admin.get("/api/v1/hold")
    assert (answer.status_code, answer.json()["code"]) == (503, "DatabaseUnavailable")
    assert "SELECT" not in answer.text


def test_alive_means_alive(api: Api) -> None:
    assert api.nobody().get("/healthz").json() == {"status": "ok"}


def test_readiness_follows_the_last_cycle(api: Api) -> None:
    assert api.nobody().get("/readyz").status_code == 200  # not due yet
    api.clock.forward(timedelta(seconds=181))
    late = api.nobody().get("/readyz")
    assert (late.status_code, late.json()["last_cycle"]) == (503, "none yet, which is late")
    api.cycle("c1", api.clock.now())
    assert api.nobody().get("/readyz").status_code == 200
    api.clock.forward(timedelta(seconds=180))
    assert api.nobody().get("/readyz").status_code == 200
    api.clock.forward(timedelta(seconds=1))
    assert api.nobody().get("/readyz").status_code == 503


def test_without_a_schedule_no_cycle_is_late(api: Api) -> None:
    object.__setattr__(api.rt.settings, "cycle_seconds", 0)
    api.clock.forward(timedelta(days=1))
    assert api.nobody().get("/readyz").json() == {"ready": True, "database": "ok", "last_cycle": "only on request"}


SAID = {
    "a length of time that is none": (
        ("POST", "/api/v1/findings/f/snooze", {"for": "soon", "reason": "busy"}),
        "for: 'soon' is no duration",
    ),
    "a field that is missing": (("POST", "/api/v1/findings/f/snooze", {"for": "4h"}), "reason: Field required"),
    "a name that is none": (
        ("PUT", "/api/v1/tokens/CI", {"role": "viewer"}),
        "name: 'CI' is no name; use lower case letters, digits and inner hyphens, at most 63",
    ),
    "a number that is too large": (("GET", "/api/v1/resources?limit=99999", None), "limit: "),
}


@pytest.mark.parametrize("sentence", SAID)
def test_what_is_wrong_is_said_of_the_field_that_was_written(api: Api, sentence: str) -> None:
    (method, path, body), says = SAID[sentence]
    answer = api.admin.request(method, path, json=body).json()
    assert answer["detail"].startswith(says)
    assert answer["errors"][0]["field"] == says.partition(":")[0]


def test_a_database_that_does_not_answer_is_not_ready(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("no connection"))

    monkeypatch.setattr("service.store.views.last_cycle", gone)
    answer = api.nobody().get("/readyz")
    assert (answer.status_code, answer.json()["database"]) == (503, "the database does not answer")


def test_asking_for_a_cycle_answers_its_id(api: Api) -> None:
    answer = api.admin.post("/api/v1/cycles")
    assert (answer.status_code, answer.json()) == (202, {"id": "cycle-1"})
    api.cycle("cycle-1", api.clock.now())
    assert api.admin.get("/api/v1/cycles/cycle-1").json()["finished_at"] == "2026-11-16T09:00:00Z"
    assert api.admin.get("/api/v1/cycles/other").status_code == 404


def test_metrics_are_the_text_of_prometheus(api: Api) -> None:
    api.rt.metrics = b"# HELP curfew_gpus GPUs.\n"
    answer = api.admin.get("/metrics")
    assert answer.text == "# HELP curfew_gpus GPUs.\n"
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_a_resource_is_explained(api: Api) -> None:
    api.resource()
    assert api.admin.get("/api/v1/resources/trainer/explain").json()["resource"]["id"] == "trainer"
    assert api.admin.get("/api/v1/resources/nothing/explain").status_code == 404


def test_openapi_tells_of_every_route_with_its_refusals(api: Api) -> None:
    spec = api.nobody().get("/openapi.json").json()
    for path, operations in spec["paths"].items():
        if not path.startswith("/api/"):
            continue
        for method, operation in operations.items():
            assert {"401", "403", "422"} <= set(operation["responses"]), f"{method} {path}"
            assert operation["summary"], f"{method} {path}"
            if method in ("put", "post", "delete"):
                assert "409" in operation["responses"], f"{method} {path}"
    for kind in ("Source", "Project", "Policy", "Exemption", "Problem"):
        assert kind in spec["components"]["schemas"]


def test_the_reference_page_needs_no_network_and_no_script(api: Api) -> None:
    answer = api.nobody().get("/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<script" not in answer.text
    assert "<code>?limit=&amp;cursor=</code>" in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    for word in ("/api/v1/findings/{finding_id}/snooze", "idle.utilisation_below", "idempotency-key", "412"):
        assert word in answer.text
