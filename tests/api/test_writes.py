"""What people say to findings and actions over HTTP; holds; and the same request sent twice."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlmodel import select

from service.store.tables import Audit, IdempotencyKey
from tests.api.service_under_test import Api, Client

SNOOZE = {"for": "4h", "reason": "a run is being set up"}


def test_a_snooze_is_answered_with_the_finding_as_it_is_then(api_everywhere: Api) -> None:
    api = api_everywhere
    api.finding()
    answer = api.admin.post("/api/v1/findings/f1/snooze", json=SNOOZE)
    assert (answer.status_code, answer.json()["status"]) == (200, "snoozed")
    assert answer.json()["quiet_until"] == "2026-11-16T13:00:00Z"
    assert api.admin.get("/api/v1/findings/f1").json() == answer.json()
    line = api.admin.get("/api/v1/audit").json()["items"][0]
    assert (line["actor"], line["verb"], line["reason"]) == ("token:CURFEW_ADMIN_TOKEN", "snooze", SNOOZE["reason"])


def test_stopping_now_and_undoing_ask_for_a_cycle(api: Api) -> None:
    api.finding()
    api.action("a2", finding_id="f1")
    owner = api.holder("lead", "owner", "vision")
    assert owner.post("/api/v1/findings/f1/act").status_code == 202
    undo = owner.post("/api/v1/actions/a2/undo")
    assert undo.status_code == 202
    assert undo.json()["undoes"] == "a2"
    assert api.cycles_asked_for == ["token:lead", "token:lead"]


def test_what_does_not_fit_the_state_of_things_is_a_conflict(api: Api) -> None:
    api.finding(status="cleared", closed_at=api.clock.now())
    answer = api.admin.post("/api/v1/findings/f1/act")
    assert answer.status_code == 409
    assert answer.json()["code"]
    assert api.cycles_asked_for == []


BAD_BODIES = {
    "no reason": {"for": "4h"},
    "an empty reason": {"for": "4h", "reason": "  "},
    "no end": {"reason": "why"},
    "two ends": {"for": "4h", "until": "2026-11-16T13:00:00Z", "reason": "why"},
    "no unit": {"for": 4, "reason": "why"},
    "nothing": {"for": "0s", "reason": "why"},
    "the past": {"until": "2026-11-16T08:00:00Z", "reason": "why"},
    "beyond the calendar": {"for": "999999999999d", "reason": "why"},
    "half a character": {"for": "4h", "reason": "\ud800"},
    "a NUL": {"for": "4h", "reason": "a\x00b"},
    "a field nobody knows": {"for": "4h", "reason": "why", "forever": True},
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_snooze_is_refused(api: Api, case: str) -> None:
    api.finding()
    content = json.dumps(BAD_BODIES[case])
    answer = api.admin.post("/api/v1/findings/f1/snooze", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert api.admin.get("/api/v1/findings/f1").json()["status"] == "warned"


# --- hold ------------------------------------------------------------------------------------------------------------


def test_a_hold_stands_until_its_end_or_until_it_is_lifted(api: Api) -> None:
    assert api.admin.get("/api/v1/hold").json() == {"held": False, "holds": []}
    api.admin.put("/api/v1/projects/vision", json={})
    api.admin.put("/api/v1/hold", json={"project": "vision", "until": "2026-11-16T10:00:00Z", "reason": "deadline"})
    api.admin.put("/api/v1/hold", json={})
    holds = api.admin.get("/api/v1/hold").json()["holds"]
    assert {(hold["project"], hold["until"], hold["reason"]) for hold in holds} == {
        ("vision", "2026-11-16T10:00:00Z", "deadline"),
        (None, None, "held by hand"),
    }
    left = api.admin.delete("/api/v1/hold").json()
    assert [hold["project"] for hold in left["holds"]] == ["vision"]
    assert api.admin.delete("/api/v1/hold?project=vision").json()["held"] is False


def test_a_hold_on_a_project_that_does_not_exist_is_refused(api: Api) -> None:
    assert api.admin.put("/api/v1/hold", json={"project": "vison"}).status_code == 404


# --- the same request twice -------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_answer_and_changes_nothing_more(api_everywhere: Api) -> None:
    api = api_everywhere
    key = {"Idempotency-Key": "k1"}
    first = api.admin.put("/api/v1/projects/vision", json={"currency": "EUR"}, headers=key)
    api.admin.put("/api/v1/projects/vision", json={"currency": "USD"})
    again = api.admin.put("/api/v1/projects/vision", json={"currency": "EUR"}, headers=key)
    assert (again.status_code, again.json(), again.headers["ETag"]) == (201, first.json(), '"1"')
    assert api.admin.get("/api/v1/projects/vision").json()["currency"] == "USD"


OTHER_REQUESTS = {
    "another body": ("/api/v1/projects/vision", {"currency": "JPY"}),
    "another path": ("/api/v1/projects/speech", {"currency": "EUR"}),
}


@pytest.mark.parametrize("case", OTHER_REQUESTS)
def test_the_same_key_with_another_request_is_a_conflict(api: Api, case: str) -> None:
    key = {"Idempotency-Key": "k1"}
    api.admin.put("/api/v1/projects/vision", json={"currency": "EUR"}, headers=key)
    path, body = OTHER_REQUESTS[case]
    answer = api.admin.put(path, json=body, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "IdempotencyKeyReused")


def test_a_key_belongs_to_its_token(api: Api) -> None:
    key = {"Idempotency-Key": "k1"}
    api.admin.put("/api/v1/projects/vision", json={}, headers=key)
    assert api.holder("ci", "admin").put("/api/v1/projects/speech", json={}, headers=key).status_code == 201


CHANGED_RIGHTS = {
    "a role that was lowered": ({"role": "viewer"}, 409),
    "projects that were narrowed": ({"role": "owner", "projects": ["speech"]}, 409),
    "another token of the same name": ({"role": "owner", "projects": ["vision"], "rotate": True}, 409),
    "the same rights once more": ({"role": "owner", "projects": ["vision"]}, 200),
}


@pytest.mark.parametrize("case", CHANGED_RIGHTS)
def test_a_kept_answer_is_for_the_token_and_the_rights_it_was_given_to(api: Api, case: str) -> None:
    rights, status = CHANGED_RIGHTS[case]
    api.finding()
    lead = api.holder("lead", "owner", "vision")
    key = {"Idempotency-Key": "k1"}
    assert lead.post("/api/v1/findings/f1/snooze", json=SNOOZE, headers=key).status_code == 200
    changed = api.admin.put("/api/v1/tokens/lead", json=rights).json()
    again = Client(api.app, token=changed.get("token") or lead.token)
    assert again.post("/api/v1/findings/f1/snooze", json=SNOOZE, headers=key).status_code == status


def test_a_refused_request_leaves_its_key_free(api: Api) -> None:
    key = {"Idempotency-Key": "k1"}
    assert api.admin.post("/api/v1/findings/f1/snooze", json=SNOOZE, headers=key).status_code == 404
    api.finding()
    assert api.admin.post("/api/v1/findings/f1/snooze", json=SNOOZE, headers=key).status_code == 200


def test_twins_at_the_same_moment_change_things_once(api_everywhere: Api) -> None:
    api = api_everywhere
    api.finding()
    api.admin.get("/api/v1/hold")  # routes are built by the first request
    ready = threading.Barrier(4)

    def send() -> tuple[int, str]:
        ready.wait()
        answer = api.admin.post("/api/v1/findings/f1/snooze", json=SNOOZE, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.text

    with ThreadPoolExecutor(4) as pool:
        answers = [future.result() for future in [pool.submit(send) for _ in range(4)]]
    assert set(answers) == {(200, answers[0][1])}
    with api.rt.database.reading() as session:
        assert len(session.exec(select(Audit).where(Audit.verb == "snooze")).all()) == 1


def test_two_who_create_the_same_at_once_get_an_answer_each(api_everywhere: Api) -> None:
    api = api_everywhere
    api.admin.get("/api/v1/hold")  # routes are built by the first request
    ready = threading.Barrier(4)

    def send() -> int:
        ready.wait()
        return api.admin.put("/api/v1/projects/vision", json={}).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = [future.result() for future in [pool.submit(send) for _ in range(4)]]
    assert answers.count(201) == 1
    assert set(answers) <= {200, 201, 409}
    assert api.admin.get("/api/v1/projects/vision").headers["ETag"] == '"1"'


def test_keys_are_forgotten_after_a_day(api: Api) -> None:
    api.admin.put("/api/v1/projects/vision", json={}, headers={"Idempotency-Key": "old"})
    api.clock.forward(timedelta(hours=25))
    api.admin.put("/api/v1/projects/vision", json={}, headers={"Idempotency-Key": "new"})
    with api.rt.database.reading() as session:
        assert [row.key.partition(":")[2] for row in session.exec(select(IdempotencyKey))] == ["new"]
