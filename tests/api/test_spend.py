"""`GET /projects/{name}/spend`: what a project spent, broken down, and how its spend budgets stand."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from service.pipeline.currency import Rate, Rates
from service.store.tables import MeterInterval
from tests.api.service_under_test import Api

RATE = 55_040_000
PATH = "/api/v1/projects/vision/spend"
# The clock stands at Monday 16 November 2026, 09:00 UTC: 16:00 in Ho Chi Minh City.


@pytest.fixture
def vision(api_everywhere: Api) -> Api:
    """A project whose machine has run for 36 hours, idle for the last 12 of them."""
    api = api_everywhere
    budgets = [{"name": "monthly", "period": "month", "amount": 2000}]
    project(api, spend_budgets=budgets)
    api.resource()
    metered(api, -36, -12, activity="busy")
    metered(api, -12, None, base=24 * RATE, activity="idle")
    return api


def project(api: Api, **more: Any) -> None:
    body = {"timezone": "Asia/Ho_Chi_Minh", "owners": ["lead@example.org"]} | more
    assert api.admin.put("/api/v1/projects/vision", json=body).status_code in (200, 201)


def metered(api: Api, start: float, end: float | None, **more: Any) -> None:
    """An interval of the trainer, in hours around now."""
    now = api.clock.now()
    given = {
        "resource_id": "trainer",
        "project": "vision",
        "state": "running",
        "capacity_type": "on_demand",
        "rate_micros": RATE,
        "currency": "USD",
        "price_source": "list",
        "base": 0,
        "started_at": now + timedelta(hours=start),
        "ended_at": None if end is None else now + timedelta(hours=end),
    }
    api.store(MeterInterval(**given | more))


def spend(api: Api, **params: Any) -> Any:
    answer = api.admin.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def dollars(hours: float) -> dict[str, Any]:
    return {"amount_micros": round(hours * RATE), "currency": "USD"}


def test_what_runs_without_a_price_is_counted_apart(vision: Api) -> None:
    before = spend(vision)["unpriced"]
    vision.resource(id="nameless", external_id="i-2", running_rate_micros=None, rate_micros=None, currency=None)
    vision.resource(id="asleep", external_id="i-3", running_rate_micros=None, rate_micros=None, state="stopped")

    assert spend(vision)["unpriced"] == before + 1


def test_without_a_window_it_is_this_month_of_the_project(vision: Api) -> None:
    answer = spend(vision)
    assert (answer["from"], answer["to"], answer["until"]) == (
        "2026-10-31T17:00:00Z",
        "2026-11-30T17:00:00Z",
        "2026-11-16T09:00:00Z",
    )
    assert answer["timezone"] == "Asia/Ho_Chi_Minh"
    assert answer["totals"] == [{"cost": dollars(36), "assumed": dollars(0), "idle": dollars(12)}]
    assert answer["groups"] == []


def test_broken_down_by_the_days_of_the_project(vision: Api) -> None:
    answer = spend(vision, by="day")
    assert [(group["day"], group["cost"]["amount_micros"] / RATE) for group in answer["groups"]] == [
        ("2026-11-15", 20.0),
        ("2026-11-16", 16.0),
    ]


@pytest.mark.parametrize("by", [["provider", "activity"], ["provider,activity"]])
def test_broken_down_by_several(vision: Api, by: list[str]) -> None:
    answer = spend(vision, by=by)
    assert answer["by"] == ["provider", "activity"]
    found = [(group["provider"], group["activity"], group["cost"]) for group in answer["groups"]]
    assert found == [("aws", "busy", dollars(24)), ("aws", "idle", dollars(12))]
    assert {group["resource"] for group in answer["groups"]} == {None}


def test_every_breakdown_names_its_parts(vision: Api) -> None:
    answer = spend(vision, by="gpu_model,capacity_type,resource")
    [group] = answer["groups"]
    told = (group["gpu_model"], group["capacity_type"], group["resource"], group["resource_name"], group["day"])
    assert told == ("H100", "on_demand", "trainer", "trainer", None)


WINDOWS: dict[str, tuple[dict[str, str], float]] = {
    "days are the project's": ({"from": "2026-11-15", "to": "2026-11-16"}, 20),
    "a moment with its offset": ({"from": "2026-11-15T00:00:00Z", "to": "2026-11-15T10:00:00Z"}, 10),
    "an offset whose plus came as a space": ({"from": "2026-11-15T07:00:00 07:00", "to": "2026-11-15T10:00:00Z"}, 10),
    "an end in the future counts until now": ({"from": "2026-11-16", "to": "2027-01-01"}, 16),
    "only from": ({"from": "2026-11-16"}, 16),
    "a window before everything": ({"from": "2025-01-01", "to": "2025-02-01"}, 0),
    "a window after now": ({"from": "2026-12-01", "to": "2026-12-02"}, 0),
}


@pytest.mark.parametrize("sentence", WINDOWS)
def test_windows(vision: Api, sentence: str) -> None:
    params, hours = WINDOWS[sentence]
    totals = vision.admin.get(PATH, params=params).json()["totals"]
    assert [total["cost"] for total in totals] == ([dollars(hours)] if hours else [])


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no date": ({"from": "1.11.2026"}, "from: '1.11.2026' is neither a day like 2026-11-01 (in Asia/Ho_Chi_Minh)"),
    "no such day": ({"to": "2026-02-30"}, "to: '2026-02-30' is neither a day"),
    "a moment without its offset": ({"from": "2026-11-01T00:00:00"}, "nor a moment with its offset like 2026-11-01T00"),
    "beyond the calendar": ({"from": "9999-12-31"}, "between 2000 and 2200"),
    "an end before its beginning": ({"from": "2026-11-10", "to": "2026-11-01"}, "must come after"),
    "a word nobody breaks down by": ({"by": "day,gpu_modell"}, "did you mean 'gpu_model'?"),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_refused_in_words(vision: Api, sentence: str) -> None:
    params, says = REFUSED[sentence]
    answer = vision.admin.get(PATH, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "InvalidRequest")
    assert says in answer.json()["detail"]


def test_who_is_confined_elsewhere_does_not_know_of_it(vision: Api) -> None:
    assert vision.holder("v", "viewer", "vision").get(PATH).status_code == 200
    assert vision.holder("n", "viewer", "nlp").get(PATH).status_code == 404
    assert vision.admin.get("/api/v1/projects/nothing/spend").status_code == 404
    assert vision.nobody().get(PATH).status_code == 401


def test_what_nobody_saw_and_other_currencies_stand_apart(vision: Api) -> None:
    metered(vision, -50, -48, assumed=True, activity="unknown")
    metered(vision, -60, -59, currency="EUR")
    assert spend(vision)["totals"] == [
        {
            "cost": {"amount_micros": RATE, "currency": "EUR"},
            "assumed": {"amount_micros": 0, "currency": "EUR"},
            "idle": {"amount_micros": 0, "currency": "EUR"},
        },
        {"cost": dollars(38), "assumed": dollars(2), "idle": dollars(12)},
    ]


def test_what_is_metered_and_what_a_budget_used_agree_when_the_clock_was_set_back(vision: Api) -> None:
    vision.clock.at -= timedelta(hours=20)
    answer = spend(vision, by="activity,day")
    [budget] = answer["budgets"]
    assert [total["cost"] for total in answer["totals"]] == [dollars(16)] == [budget["used"]]
    assert sum(group["cost"]["amount_micros"] for group in answer["groups"]) == budget["used"]["amount_micros"]


def test_how_a_budget_stands(vision: Api) -> None:
    [budget] = spend(vision)["budgets"]
    assert (budget["name"], budget["period"], budget["phase"]) == ("monthly", "month", "running")
    assert (budget["amount"]["amount_micros"], budget["used"]) == (2000 * 10**6, dollars(36))
    assert budget["used_ratio"] == 36 * 55.04 / 2000
    assert budget["hourly_cost"] == dollars(1)
    assert budget["reached"] == "80%"
    hours_left = 14 * 24 + 8
    assert budget["forecast"]["low"] == budget["forecast"]["high"] == dollars(36 + hours_left)
    assert budget["forecast"]["miss_by_low"]["amount_micros"] == round((36 + hours_left) * RATE) - 2000 * 10**6
    assert budget["run_out"]["earliest"] == budget["run_out"]["latest"] == "2026-11-16T09:20:14Z"
    assert budget["basis"] == "at the pace of the last 24 hours and of the 36 hours since it was first metered"
    assert budget["error"] is None
    assert budget["words"].startswith("Spend budget monthly of vision: 1,981.44 of 2,000.00 USD (99 %) spent since")


def test_a_budget_in_another_currency_is_unknown_until_a_rate_is_given(vision: Api) -> None:
    project(vision, spend_budgets=[{"name": "euros", "period": "total", "amount": 2000, "currency": "EUR"}])
    [budget] = spend(vision)["budgets"]
    assert (budget["used"], budget["forecast"], budget["run_out"]) == (None, None, None)
    assert budget["error"].startswith("there is no exchange rate from USD to EUR as of 2026-11-15 or before")
    vision.rt.rates = Rates([Rate.model_validate({"from": "USD", "to": "EUR", "rate": "0.5", "as_of": "2026-01-01"})])
    [budget] = spend(vision)["budgets"]
    assert budget["used"] == {"amount_micros": 18 * RATE, "currency": "EUR"}
    assert (budget["from"], budget["to"], budget["conversions"]) == (None, None, ["1 USD = 0.5 EUR (as of 2026-01-01)"])
