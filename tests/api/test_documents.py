"""Documents over HTTP: JSON and YAML, versions, sets, secrets never shown, all or nothing."""

from __future__ import annotations

import pytest

from service.store.tables import Document
from tests.api.service_under_test import Api

YAML = {"Content-Type": "application/yaml"}


def test_a_put_creates_then_changes_then_leaves_alone(api_everywhere: Api) -> None:
    admin = api_everywhere.admin
    created = admin.put("/api/v1/projects/vision", json={"currency": "EUR"})
    changed = admin.put("/api/v1/projects/vision", json={"currency": "USD"})
    same = admin.put("/api/v1/projects/vision", json={})
    assert [answer.status_code for answer in (created, changed, same)] == [201, 200, 200]
    assert [answer.headers["ETag"] for answer in (created, changed, same)] == ['"1"', '"2"', '"2"']


def test_yaml_and_json_say_the_same(api: Api) -> None:
    text = "type: idle\nidle: {for: 1h30m}\nscope: {where: gpu_count >= 1}\n"
    api.admin.put("/api/v1/policies/p", content=text, headers=YAML)
    body = {"type": "idle", "idle": {"for": "PT90M"}, "scope": {"where": "gpu_count >= 1"}}
    assert api.admin.put("/api/v1/policies/p", json=body).headers["ETag"] == '"1"'


@pytest.mark.parametrize(
    ("collection", "body"),
    [
        ("sources", {"provider": "simulated", "ceiling": "warn"}),
        ("projects", {"owners": ["lead@example.org"], "match": [{"tags": {"project": "vision"}}]}),
        ("policies", {"type": "idle", "idle": {"for": "1h"}, "disruption_budget": {"max": 3, "max_hourly_cost": 200}}),
        ("exemptions", {"resources": ["i-1"], "until": "2026-12-01T00:00:00+07:00", "reason": "demo day"}),
    ],
)  # fmt: skip
def test_what_is_shown_can_be_put_back(api: Api, collection: str, body: dict[str, object]) -> None:
    path = f"/api/v1/{collection}/one"
    assert api.admin.put(path, json=body).status_code == 201
    shown = api.admin.get(path)
    again = api.admin.put(path, json=shown.json(), headers={"If-Match": shown.headers["ETag"]})
    assert (again.status_code, again.headers["ETag"]) == (200, '"1"')
    assert api.admin.get(f"/api/v1/{collection}").json() == {"items": [shown.json()], "next": None}


def test_the_body_must_not_contradict_the_url(api: Api) -> None:
    answer = api.admin.put("/api/v1/projects/vision", json={"kind": "policy", "name": "speech"})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["kind", "name"]


def test_a_mistake_is_answered_with_its_place_and_the_nearest_right_thing(api: Api) -> None:
    answer = api.admin.put("/api/v1/policies/p", content="type: idle\nidle:\n  fro: 45m\n", headers=YAML)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "InvalidDocuments"
    assert problem["errors"] == [
        {
            "file": "body",
            "line": 3,
            "column": 3,
            "document": "policy 'p'",
            "field": "idle.fro",
            "reason": "there is no such field",
            "nearest": "for",
            "message": "body:3:3: policy 'p', idle.fro: there is no such field; did you mean 'for'?",
        }
    ]
    assert api.admin.get("/api/v1/policies/p").status_code == 404


def test_only_the_version_that_was_read_is_changed(api_everywhere: Api) -> None:
    admin = api_everywhere.admin
    path = "/api/v1/projects/vision"
    assert admin.put(path, json={}, headers={"If-Match": '"1"'}).status_code == 412
    admin.put(path, json={})
    assert admin.put(path, json={"currency": "EUR"}, headers={"If-Match": '"1"'}).status_code == 200
    late = admin.put(path, json={"currency": "JPY"}, headers={"If-Match": '"1"'})
    assert (late.status_code, late.json()["code"]) == (412, "VersionChanged")
    assert admin.delete(path, headers={"If-Match": '"1"'}).status_code == 412
    assert admin.put(path, json={"currency": "JPY"}, headers={"If-Match": '"1", "2"'}).status_code == 200
    assert admin.delete(path, headers={"If-Match": "*"}).status_code == 200


def test_a_deleted_document_is_gone(api: Api) -> None:
    api.admin.put("/api/v1/projects/vision", json={})
    api.resource()
    answer = api.admin.delete("/api/v1/projects/vision")
    assert answer.json()["notes"] == ["1 resource of it will belong to no project"]
    assert api.admin.get("/api/v1/projects/vision").status_code == 404
    assert api.admin.delete("/api/v1/projects/vision").status_code == 404


def test_a_set_owns_its_documents(api_everywhere: Api) -> None:
    admin = api_everywhere.admin
    files = {"files": [{"name": "team/a.yaml", "text": "kind: project\nname: vision\n"}]}
    assert admin.post("/api/v1/apply?set=team", json=files).status_code == 200
    for answer in (
        admin.put("/api/v1/projects/vision", json={}),
        admin.delete("/api/v1/projects/vision"),
        admin.post("/api/v1/apply?set=other", json=files),
        admin.post("/api/v1/apply", json=files),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "OwnedBySet")
        assert "belongs to the set 'team'" in answer.json()["detail"]


def test_a_dry_run_answers_the_difference_and_changes_nothing(api_everywhere: Api) -> None:
    admin = api_everywhere.admin
    admin.post("/api/v1/apply?set=team", content="kind: project\nname: old\n", headers=YAML)
    text = "kind: project\nname: vision\n"
    dry = admin.post("/api/v1/apply?set=team&prune=true&dry_run=true", content=text, headers=YAML).json()
    assert dry["dry_run"] is True
    assert [(change["action"], change["name"]) for change in dry["changes"]] == [
        ("delete", "old"),
        ("create", "vision"),
    ]
    assert [item["name"] for item in admin.get("/api/v1/projects").json()["items"]] == ["old"]
    wet = admin.post("/api/v1/apply?set=team&prune=true", content=text, headers=YAML).json()
    assert wet["changes"] == dry["changes"]
    assert [item["name"] for item in admin.get("/api/v1/projects").json()["items"]] == ["vision"]


def test_an_apply_with_a_mistake_in_one_file_applies_none(api: Api) -> None:
    files = [
        {"name": "team/good.yaml", "text": "kind: project\nname: good\n"},
        {"name": "team/bad.yaml", "text": "kind: project\nname: bad\ntimezon: UTC\n"},
        {"name": "team/worse.yaml", "text": "kind: [\n"},
    ]
    answer = api.admin.post("/api/v1/apply?set=team", json={"files": files})
    assert answer.status_code == 422
    assert sorted((error["file"], error["line"]) for error in answer.json()["errors"]) == [
        ("team/bad.yaml", 3),
        ("team/worse.yaml", 2),
    ]
    assert api.admin.get("/api/v1/projects").json()["items"] == []


def test_pruning_needs_a_set(api: Api) -> None:
    assert api.admin.post("/api/v1/apply?prune=true", json=[]).status_code == 422


BODIES = {
    "no files": {"files": "x"},
    "a file without its text": {"files": [{"name": "a"}]},
    "a number": 5,
    "a list of numbers": [5],
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_holds_no_documents_is_refused(api: Api, case: str) -> None:
    assert api.admin.post("/api/v1/apply", json=BODIES[case]).status_code == 422


def test_bytes_that_are_no_text_are_refused(api: Api) -> None:
    assert api.admin.put("/api/v1/projects/p", content=b"name: caf\xe9", headers=YAML).status_code == 422


def test_passwords_in_channels_are_shown_to_nobody_and_do_not_come_back(api: Api) -> None:
    channels = [
        "slack://${SLACK}",
        "slack://TOKEN/B/C",
        "jsons://me:hunter2@hooks.example/x?key=abc",
        "lead@example.org",
    ]
    answer = api.admin.put("/api/v1/projects/vision", json={"notify": channels})
    shown = ["slack://${SLACK}", "slack://***", "jsons://***:***@hooks.example/***", "lead@example.org"]
    assert answer.json()["notify"] == api.admin.get("/api/v1/projects/vision").json()["notify"] == shown
    refused = api.admin.put("/api/v1/projects/vision", json={"notify": shown})
    assert refused.status_code == 422
    assert "stands for a secret" in refused.json()["detail"]
    assert "hunter2" not in api.admin.get("/api/v1/audit").text


def test_every_change_is_audited_with_who_and_what(api: Api) -> None:
    api.holder("ci", "admin").put("/api/v1/projects/vision", json={})
    line = api.admin.get("/api/v1/audit").json()["items"][0]
    assert (line["actor"], line["verb"], line["object"], line["project"]) == (
        "token:ci",
        "create",
        "project/vision",
        "vision",
    )


def test_a_stored_document_that_is_no_longer_valid_is_still_shown(api: Api) -> None:
    api.admin.put("/api/v1/projects/vision", json={})
    with api.rt.database.transaction() as session:
        session.get_one(Document, ("project", "vision")).body = {"name": "vision", "timezone": "Mars/Base"}
    assert api.admin.get("/api/v1/projects").json()["items"][0]["timezone"] == "Mars/Base"
    answer = api.holder("lead", "owner", "vision").get("/api/v1/policies")
    assert (answer.status_code, answer.json()["code"]) == (503, "UnreadableDocument")
    assert api.admin.put("/api/v1/projects/vision", json={}).json()["timezone"] == "UTC"
