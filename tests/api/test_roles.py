"""Who may do what to what: one table of role × verb × whose it is, asked over HTTP."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from service.api.auth import authenticate
from service.store.tables import Resource
from tests.api.service_under_test import Api, Client

MINE, THEIRS, NOBODYS = "vision", "speech", None

CALLERS = {
    "nobody": None,
    "viewer": ("viewer",),
    "viewer of vision": ("viewer", MINE),
    "owner of vision": ("owner", MINE),
    "operator": ("operator",),
    "admin": ("admin",),
}

LISTS = ("sources", "projects", "policies", "exemptions", "resources", "findings", "actions", "hold", "audit")

SNOOZE = {"for": "1h", "reason": "a run is being set up"}

WRITES = {
    # what: how, and the answers to nobody, a viewer, a viewer of vision, an owner of vision, an operator, an admin
    "snooze mine": ("POST", "/api/v1/findings/mine/snooze", SNOOZE, (401, 403, 403, 200, 200, 200)),
    "snooze theirs": ("POST", "/api/v1/findings/theirs/snooze", SNOOZE, (401, 403, 404, 404, 200, 200)),
    "snooze nobody's": ("POST", "/api/v1/findings/none/snooze", SNOOZE, (401, 403, 404, 404, 200, 200)),
    "dismiss mine": ("POST", "/api/v1/findings/mine/dismiss", {"reason": "why"}, (401, 403, 403, 200, 200, 200)),
    "dismiss theirs": ("POST", "/api/v1/findings/theirs/dismiss", {"reason": "why"}, (401, 403, 404, 404, 200, 200)),
    "stop mine now": ("POST", "/api/v1/findings/mine/act", None, (401, 403, 403, 202, 202, 202)),
    "stop theirs now": ("POST", "/api/v1/findings/theirs/act", None, (401, 403, 404, 404, 202, 202)),
    "undo mine": ("POST", "/api/v1/actions/mine/undo", None, (401, 403, 403, 202, 202, 202)),
    "undo theirs": ("POST", "/api/v1/actions/theirs/undo", None, (401, 403, 404, 404, 202, 202)),
    "test mine": ("POST", "/api/v1/projects/vision/notify/test", None, (401, 403, 403, 200, 200, 200)),
    "test theirs": ("POST", "/api/v1/projects/speech/notify/test", None, (401, 403, 404, 404, 200, 200)),
    "hold mine": ("PUT", "/api/v1/hold", {"project": MINE, "for": "1h"}, (401, 403, 403, 403, 200, 200)),
    "hold everything": ("PUT", "/api/v1/hold", {"for": "1h"}, (401, 403, 403, 403, 200, 200)),
    "lift a hold": ("DELETE", "/api/v1/hold", None, (401, 403, 403, 403, 200, 200)),
    "run a cycle": ("POST", "/api/v1/cycles", None, (401, 403, 403, 403, 202, 202)),
    "write a project": ("PUT", "/api/v1/projects/new", {}, (401, 403, 403, 403, 403, 201)),
    "write a source": ("PUT", "/api/v1/sources/new", {"provider": "simulated"}, (401, 403, 403, 403, 403, 201)),
    "write a policy": ("PUT", "/api/v1/policies/new", {"type": "idle"}, (401, 403, 403, 403, 403, 201)),
    "delete a project": ("DELETE", "/api/v1/projects/vision", None, (401, 403, 403, 403, 403, 200)),
    "apply": ("POST", "/api/v1/apply", [], (401, 403, 403, 403, 403, 200)),
    "preview an apply": ("POST", "/api/v1/apply?dry_run=true", [], (401, 403, 403, 403, 403, 200)),
    "make a token": ("PUT", "/api/v1/tokens/new", {"role": "viewer"}, (401, 403, 403, 403, 403, 201)),
    "list tokens": ("GET", "/api/v1/tokens", None, (401, 403, 403, 403, 403, 200)),
    "revoke a token": ("DELETE", "/api/v1/tokens/spare", None, (401, 403, 403, 403, 403, 204)),
    "list cycles": ("GET", "/api/v1/cycles", None, (401, 200, 403, 403, 200, 200)),
    "scrape": ("GET", "/metrics", None, (401, 200, 403, 403, 200, 200)),
    "live": ("GET", "/healthz", None, (200, 200, 200, 200, 200, 200)),
    "ready": ("GET", "/readyz", None, (200, 200, 200, 200, 200, 200)),
    "OpenAPI": ("GET", "/openapi.json", None, (200, 200, 200, 200, 200, 200)),
    "docs": ("GET", "/docs", None, (200, 200, 200, 200, 200, 200)),
}  # fmt: skip


@pytest.fixture
def company(api: Api) -> Api:
    """Three findings and actions: of vision, of speech and of nobody."""
    for name in (MINE, THEIRS):
        assert api.admin.put(f"/api/v1/projects/{name}", json={}).status_code == 201
    api.admin.put("/api/v1/tokens/spare", json={"role": "viewer"})
    for id, project in (("mine", MINE), ("theirs", THEIRS), ("none", NOBODYS)):
        api.resource(id, project=project)
        api.finding(id, project=project, resource_id=id)
        api.action(id, project=project, resource_id=id)
        api.audit_line(project=project)
    return api


def client_of(company: Api, who: str) -> Client:
    given = CALLERS[who]
    return company.nobody() if given is None else company.holder("caller", *given)


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("what", WRITES)
def test_who_may_do_what(company: Api, who: str, what: str) -> None:
    method, path, body, expected = WRITES[what]
    answer = client_of(company, who).request(method, path, **({} if body is None else {"json": body}))
    assert answer.status_code == expected[list(CALLERS).index(who)], answer.text


@pytest.mark.parametrize("now", [THEIRS, NOBODYS])
def test_what_has_moved_to_another_project_is_put_back_by_who_pays_for_it_now(company: Api, now: str | None) -> None:
    with company.rt.database.transaction() as session:
        moved = session.get_one(Resource, "mine")
        moved.project = now
        session.add(moved)
    answer = client_of(company, "owner of vision").post("/api/v1/actions/mine/undo")
    assert (answer.status_code, answer.json()["code"]) == (403, "OtherProject")
    assert "belongs to another project now" in answer.json()["detail"]
    assert company.admin.post("/api/v1/actions/mine/undo").status_code == 202


@pytest.mark.parametrize("who", ["viewer of vision", "owner of vision"])
@pytest.mark.parametrize("path", ["/api/v1/resources", "/api/v1/findings", "/api/v1/actions", "/api/v1/audit"])
def test_the_confined_see_their_own_and_nothing_else(company: Api, who: str, path: str) -> None:
    items = client_of(company, who).get(path).json()["items"]
    assert {item["project"] for item in items} == {MINE}


@pytest.mark.parametrize("who", ["viewer of vision", "owner of vision"])
@pytest.mark.parametrize("id", ["theirs", "none"])
@pytest.mark.parametrize("path", ["resources/{}", "resources/{}/explain", "findings/{}", "actions/{}"])
def test_what_the_confined_may_not_see_does_not_exist_for_them(company: Api, who: str, id: str, path: str) -> None:
    answer = client_of(company, who).get("/api/v1/" + path.format(id))
    assert answer.status_code == 404
    assert answer.json()["code"] == "NotFound"


def test_a_resource_that_is_called_like_anothers_id_does_not_explain_itself_in_its_place(company: Api) -> None:
    company.resource("decoy", name="mine", external_id="mine", project=THEIRS, first_seen=company.clock.now())
    for client in (client_of(company, "owner of vision"), company.admin):
        assert client.get("/api/v1/resources/mine/explain").json()["resource"]["id"] == "mine"
    assert company.admin.get("/api/v1/resources/i-mine/explain").status_code == 404


@pytest.mark.parametrize("who", ["viewer", "operator", "admin"])
def test_everybody_else_sees_all(company: Api, who: str) -> None:
    client = client_of(company, who)
    assert {client.get(f"/api/v1/{path}").status_code for path in LISTS} == {200}


def test_a_filter_does_not_widen_what_the_confined_see(company: Api) -> None:
    assert client_of(company, "owner of vision").get(f"/api/v1/findings?project={THEIRS}").json()["items"] == []


def test_the_confined_see_the_documents_that_concern_them(company: Api) -> None:
    admin = company.admin
    admin.put("/api/v1/sources/research", json={"provider": "simulated"})
    for name, scope in (("ours", [MINE]), ("others", [THEIRS]), ("everybodys", [])):
        admin.put(f"/api/v1/policies/{name}", json={"type": "idle", "scope": {"projects": scope}})
    for name, project in (("ours", MINE), ("others", THEIRS)):
        body = {"projects": [project], "until": "2026-12-01T00:00:00Z", "reason": "demo day"}
        assert admin.put(f"/api/v1/exemptions/{name}", json=body).status_code == 201
    owner = client_of(company, "owner of vision")
    seen = {
        kind: [item["name"] for item in owner.get(f"/api/v1/{kind}").json()["items"]]
        for kind in ("sources", "projects", "policies", "exemptions")
    }
    assert seen == {
        "sources": [],
        "projects": [MINE],
        "policies": ["everybodys", "ours"],
        "exemptions": ["ours"],
    }
    assert owner.get("/api/v1/sources/research").status_code == 404
    assert owner.get("/api/v1/policies/others").status_code == 404


def test_the_confined_see_holds_on_everything_and_on_their_own(company: Api) -> None:
    for project in (MINE, THEIRS, None):
        company.admin.put("/api/v1/hold", json={"project": project, "for": "1h"})
    holds = client_of(company, "owner of vision").get("/api/v1/hold").json()["holds"]
    assert {hold["project"] for hold in holds} == {MINE, None}


def test_metrics_are_open_only_when_the_installation_says_so(company: Api) -> None:
    object.__setattr__(company.rt.settings, "metrics_anonymous", True)
    assert company.nobody().get("/metrics").status_code == 200


def test_an_empty_token_opens_nothing_whatever_the_settings(company: Api) -> None:
    object.__setattr__(company.rt.settings, "admin_token", SecretStr(""))
    assert Client(company.app, token="").get("/api/v1/tokens").status_code == 401
    assert authenticate(company.rt, "") is None
