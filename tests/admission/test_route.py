"""The snapshot as the service answers it: made when somebody asks, told again only when something changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from service.admission.snapshot import Snapshot
from service.api.admission import _namespaces
from service.app import create_app
from service.clock import SetClock
from tests.api.service_under_test import ADMIN, Client
from tests.spine.company import Company, minutes, small_company

PATH = "/api/v1/admission/snapshot"
QUOTA = {"name": "few", "type": "quota", "mode": "enforce", "quota": {"max_gpus": 8, "per": "project"}}


@pytest.fixture
def company(sqlite_url: str, clock: SetClock) -> Iterator[Company]:
    with small_company(sqlite_url, clock, admin_token=ADMIN) as made:
        made.document("policy", **QUOTA)
        made.machine()
        yield made


@pytest.fixture
def client(company: Company) -> Client:
    return Client(create_app(company.rt))


def read(answer: httpx.Response) -> Snapshot:
    assert answer.status_code == 200, answer.text
    return Snapshot.model_validate_json(answer.content)


def test_before_the_first_cycle_there_is_none(client: Client) -> None:
    answer = client.get(PATH)

    assert (answer.status_code, answer.json()["code"]) == (409, "NoCycleYet")


def test_it_tells_what_the_last_cycle_counted(company: Company, client: Client) -> None:
    cycle = company.cycle()

    found = read(client.get(PATH))
    assert found.at == cycle.started_at
    assert [(one.policy.name, one.running) for one in found.policies] == [("few", {"vision": 8.0})]
    assert [project.name for project in found.projects] == ["vision"]


def test_openapi_names_its_parts(client: Client) -> None:
    described = client.app.openapi()["paths"][PATH]["get"]["responses"]["200"]["content"]["application/json"]["schema"]

    assert set(described["properties"]) == set(Snapshot.model_fields)


def test_who_has_it_is_told_so_until_something_changes(company: Company, client: Client) -> None:
    company.cycle()
    etag = ""

    def news() -> int:
        nonlocal etag
        answer = client.get(PATH, headers={"If-None-Match": etag})
        etag = answer.headers["ETag"]
        return answer.status_code

    assert [news(), news(), news()] == [200, 304, 304]
    company.cycle(after=minutes(1))
    assert [news(), news()] == [200, 304]
    client.put("/api/v1/hold", json={"for": "1h"})
    assert [news(), news()] == [200, 304]
    company.document("project", name="speech", match=[{"tags": {"project": "speech"}}])
    assert [news(), news()] == [200, 304]


def test_a_hold_and_an_exemption_are_told_at_once_and_until_they_end(company: Company, client: Client) -> None:
    company.cycle()
    assert client.put("/api/v1/hold", json={"for": "1h", "project": "vision"}).status_code == 200
    until = (company.clock.now() + minutes(60)).isoformat()
    company.document("exemption", name="demo", projects=["vision"], until=until, reason="demo day")

    found = read(client.get(PATH))
    assert [(hold.project, hold.until) for hold in found.holds] == [("vision", company.clock.now() + minutes(60))]
    assert [one.name for one in found.exemptions] == ["demo"]
    company.clock.forward(minutes(61))
    assert read(client.get(PATH)).holds == ()


def test_a_policy_that_was_changed_is_silent_until_a_cycle_has_judged_it(company: Company, client: Client) -> None:
    company.cycle()
    company.document("policy", **{**QUOTA, "quota": {"max_gpus": 0}})
    assert read(client.get(PATH)).policies == ()
    company.cycle(after=minutes(1))
    assert [one.policy.name for one in read(client.get(PATH)).policies] == ["few"]

    company.delete("policy", "few")
    assert read(client.get(PATH)).policies == ()


def test_namespaces_are_those_of_inventories_that_know_them() -> None:
    class Telling:
        def namespaces(self) -> Mapping[str, Mapping[str, str]] | None:
            return {"vision": {"project": "vision"}}

    class NotYet:
        def namespaces(self) -> Mapping[str, Mapping[str, str]] | None:
            return None

    def member(inventory: Any) -> Any:
        return SimpleNamespace(provider=SimpleNamespace(inventory=inventory))

    members = {
        "a": member(Telling()),
        "b": member(NotYet()),
        "c": member(object()),
        "d": SimpleNamespace(provider=None),
    }
    runtime: Any = SimpleNamespace(fleet=SimpleNamespace(members=members))
    assert _namespaces(runtime) == {"a": {"vision": {"project": "vision"}}}
