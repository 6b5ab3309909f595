"""Lists: pages that miss nothing and repeat nothing, the newest first, and filters."""

from __future__ import annotations

from datetime import timedelta

import pytest

from service.store.tables import MeterInterval, SourceState
from tests.api.service_under_test import Api


def all_pages(api: Api, path: str, limit: int = 2) -> list[str]:
    """Ids in the order of the list, read page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = api.admin.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}").json()
        assert len(page["items"]) <= limit
        found += [str(item.get("id") or item["name"]) for item in page["items"]]
        if page["next"] is None:
            return found
        cursor = f"&cursor={page['next']}"


def test_findings_and_actions_come_newest_first(api_everywhere: Api) -> None:
    api = api_everywhere
    now = api.clock.now()
    ages = {"a": 3, "b": 1, "c": 1, "d": 2, "e": 0}  # b and c at the same moment
    for id, hours in ages.items():
        at = now - timedelta(hours=hours)
        api.finding(id, opened_at=at, policy=f"p-{id}")
        api.action(id, intended_at=at)
        api.cycle(id, at)
    for path in ("findings", "actions", "cycles"):
        assert all_pages(api, f"/api/v1/{path}") == ["e", "c", "b", "d", "a"]


def test_a_row_that_arrives_between_two_pages_shifts_nothing(api: Api) -> None:
    now = api.clock.now()
    for hours in range(4):
        api.finding(f"f{hours}", opened_at=now - timedelta(hours=hours), policy=f"p{hours}")
    first = api.admin.get("/api/v1/findings?limit=2").json()
    api.finding("new", opened_at=now + timedelta(hours=1), policy="new")
    second = api.admin.get(f"/api/v1/findings?limit=2&cursor={first['next']}").json()
    assert [item["id"] for item in first["items"] + second["items"]] == ["f0", "f1", "f2", "f3"]


def test_the_audit_log_is_newest_first(api: Api) -> None:
    for verb in ("one", "two", "three"):
        api.audit_line(verb=verb)
    assert [item["verb"] for item in api.admin.get("/api/v1/audit").json()["items"]] == ["three", "two", "one"]
    assert [item["verb"] for item in api.admin.get("/api/v1/audit?verb=one&verb=two").json()["items"]] == ["two", "one"]


def test_documents_and_tokens_come_by_name(api: Api) -> None:
    for name in ("c", "a", "b"):
        api.admin.put(f"/api/v1/projects/{name}", json={})
        api.admin.put(f"/api/v1/tokens/{name}", json={"role": "viewer"})
    assert all_pages(api, "/api/v1/projects") == all_pages(api, "/api/v1/tokens") == ["a", "b", "c"]


FILTERS = {
    "project=vision": ["one", "two"],
    "project=vision&project=speech": ["one", "three", "two"],
    "provider=gcp": ["three"],
    "kind=workload": ["three"],
    "state=stopped": ["two"],
    "state=stopped&project=speech": [],
    "capacity_type=spot": ["two"],
    "gpu_model=L4": ["three"],
    "source=other": ["three"],
    "name=two": ["two"],
    "external_id=i-one": ["one"],
    "activity=unknown": ["one", "three", "two"],
    "activity=idle": [],
}


@pytest.mark.parametrize("filter", FILTERS)
def test_resources_are_filtered(api: Api, filter: str) -> None:
    api.resource("one")
    api.resource("two", state="stopped", capacity_type="spot")
    api.resource("three", project="speech", provider="gcp", kind="workload", gpu_model="L4", source="other")
    assert all_pages(api, f"/api/v1/resources?{filter}") == FILTERS[filter]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_of_a_filter_the_database_cannot_answer(api: Api, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    class View:
        def activity(self, resource_id: str) -> tuple[str, int | None]:
            return ("idle", 600) if int(resource_id) % 3 == 0 else ("busy", None)

    monkeypatch.setattr("service.store.views.SCAN", 4)
    api.rt.view = View()  # type: ignore[assignment]
    for number in range(12):
        api.resource(f"{number:02}")
    assert all_pages(api, "/api/v1/resources?activity=idle", limit) == ["00", "03", "06", "09"]
    assert api.admin.get("/api/v1/resources/03").json()["idle_seconds"] == 600


BAD_CURSORS = [
    "x",
    "bm90IGpzb24",
    "WzFd",
    "W10",
    "WyJhIiwiYiJd",
    "WzEyMywgMV0",
    "WyIyMDI2LTExLTE2VDA5OjAwOjAwIiwgImEiXQ",
    "é",
]


@pytest.mark.parametrize("cursor", BAD_CURSORS)
@pytest.mark.parametrize("path", ["findings", "audit", "resources", "cycles"])
def test_a_made_up_cursor_is_refused(api: Api, path: str, cursor: str) -> None:
    answer = api.admin.get(f"/api/v1/{path}", params={"cursor": cursor})
    assert answer.status_code == 422


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x"])
def test_a_page_has_bounds(api: Api, limit: str) -> None:
    assert api.admin.get(f"/api/v1/findings?limit={limit}").status_code == 422


def test_a_filter_with_an_unknown_word_is_refused(api: Api) -> None:
    answer = api.admin.get("/api/v1/resources?state=runing")
    assert answer.status_code == 422
    assert "'running'" in answer.json()["detail"]


# --- what is derived on read -----------------------------------------------------------------------------------------


def test_the_cost_to_date_is_the_sum_of_the_meter(api_everywhere: Api) -> None:
    api = api_everywhere
    now = api.clock.now()
    api.resource(currency="USD")
    rate = 1_000_001
    start = now - timedelta(hours=2)
    common = {"resource_id": "trainer", "state": "running", "capacity_type": "spot", "price_source": "list"}
    first = MeterInterval(
        **common, rate_micros=rate, currency="USD", base=0, started_at=start, ended_at=start + timedelta(seconds=10)
    )
    second = MeterInterval(
        **common,
        rate_micros=rate,
        currency="USD",
        base=10 * rate // 3600,
        base_rest=10 * rate % 3600,
        started_at=start + timedelta(seconds=10),
    )
    foreign = MeterInterval(
        **common, rate_micros=rate, currency="EUR", base=0, started_at=start - timedelta(hours=1), ended_at=start
    )
    api.store(foreign, first, second)
    shown = api.admin.get("/api/v1/resources/trainer").json()
    assert shown["cost_to_date"] == {"amount_micros": 2 * rate, "currency": "USD"}
    assert shown["hourly_cost"] == {"amount_micros": 55_040_000, "currency": "USD"}
    api.clock.forward(timedelta(hours=1))
    assert api.admin.get("/api/v1/resources/trainer").json()["cost_to_date"]["amount_micros"] == 3 * rate


def test_without_a_price_there_is_no_cost(api: Api) -> None:
    api.resource(rate_micros=None, currency=None)
    shown = api.admin.get("/api/v1/resources/trainer").json()
    assert (shown["hourly_cost"], shown["cost_to_date"]) == (None, None)


def test_last_seen_is_when_its_cloud_last_spoke_of_it(api: Api) -> None:
    now = api.clock.now()
    api.store(SourceState(source="research", succeeded_at=now - timedelta(minutes=1)))
    api.resource("there")
    api.resource("missing", missing_since=now - timedelta(minutes=7))
    api.resource("unasked", source="never")
    seen = {item["id"]: item["last_seen"] for item in api.admin.get("/api/v1/resources").json()["items"]}
    assert seen == {
        "there": "2026-11-16T08:59:00Z",
        "missing": "2026-11-16T08:53:00Z",
        "unasked": "2026-11-15T09:00:00Z",
    }


def test_one_region_that_is_forbidden_makes_no_machine_of_another_look_old(api: Api) -> None:
    now = api.clock.now()
    parts = [{"part": "us-east-1", "complete": True}, {"part": "eu-west-1", "complete": False}]
    long_ago = now - timedelta(days=30)
    api.store(SourceState(source="research", attempted_at=now, succeeded_at=long_ago, parts=parts))
    api.resource("there", region="us-east-1", first_seen=long_ago)
    api.resource("forbidden", region="eu-west-1", first_seen=long_ago)

    seen = {item["id"]: item["last_seen"] for item in api.admin.get("/api/v1/resources").json()["items"]}

    assert seen == {"there": "2026-11-16T09:00:00Z", "forbidden": "2026-10-17T09:00:00Z"}


def test_a_protection_that_ran_out_protects_no_more(api: Api) -> None:
    until = api.clock.now() + timedelta(hours=1)
    marker = {"source": "curfew-protect", "sentence": "tagged curfew-protect", "until": until.isoformat()}
    api.resource(protections=[marker])
    assert api.admin.get("/api/v1/resources/trainer").json()["protected"] is True
    api.clock.forward(timedelta(hours=1))
    shown = api.admin.get("/api/v1/resources/trainer").json()
    assert (shown["protected"], shown["protections"]) == (False, [])
