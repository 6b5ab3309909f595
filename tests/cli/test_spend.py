"""`curfew get spend PROJECT`: what it spent this month, and how its spend budgets stand."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from service.store.tables import MeterInterval
from tests.api.service_under_test import Api
from tests.cli.conftest import Run


@pytest.fixture
def vision(served: Api) -> Api:
    """Ten hours of one machine, the last four of them idle."""
    budgets = [{"name": "monthly", "period": "month", "amount": 1000}]
    served.admin.put("/api/v1/projects/vision", json={"timezone": "Asia/Ho_Chi_Minh", "spend_budgets": budgets})
    served.resource()
    now = served.clock.now()
    for start, end, activity in ((-10, -4, "busy"), (-4, 0, "idle")):
        served.store(
            MeterInterval(
                resource_id="trainer",
                project="vision",
                state="running",
                capacity_type="on_demand",
                activity=activity,
                rate_micros=55_040_000,
                currency="USD",
                price_source="list",
                base=0,
                started_at=now + timedelta(hours=start),
                ended_at=now + timedelta(hours=end),
            )
        )
    return served


def test_it_is_read_at_a_glance(vision: Api, curfew: Run) -> None:
    ran = curfew("get", "spend", "vision")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines[:2] == ["vision spent from 01 Nov 2026 00:00 to 16 Nov 2026 16:00", "(Asia/Ho_Chi_Minh):"]
    assert lines[2:6] == [
        "GPU MODEL ACTIVITY COST ASSUMED",
        "H100 busy 330.24 USD",
        "H100 idle 220.16 USD",
        "all 550.40 USD",
    ]
    assert "Spend budget monthly of vision: 550.40 of 1,000.00 USD (55 %) spent since" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_any_days_of_the_project_can_be_asked_for(vision: Api, curfew: Run) -> None:
    asked = ("get", "spend", "vision", "--by", "day", "-o", "json")
    costs = {
        days: sum(group["cost"]["amount_micros"] for group in json.loads(curfew(*asked, *days).out)["groups"])
        for days in (("--from", "2026-10-01", "--to", "2026-11-01"), ("--from", "2026-11-16"), ())
    }
    assert list(costs.values()) == [0, 550_400_000, 550_400_000]
    wrong = curfew("get", "spend", "vision", "--from", "yesterday")
    assert (wrong.code, wrong.err.startswith("curfew: from: 'yesterday' is neither a day like")) == (1, True)


def test_whoever_mistypes_a_project_is_told_the_nearest(vision: Api, curfew: Run) -> None:
    for words in (
        ("get", "spend", "visoin"),
        ("get", "projects", "visoin"),
        ("get", "findings", "-p", "visoin"),
        ("notify", "test", "visoin"),
        ("hold", "-p", "visoin"),
    ):
        ran = curfew(*words)
        assert (ran.code, ran.err) == (1, "curfew: there is no project 'visoin'; did you mean 'vision'?\n"), words
    assert curfew("get", "findings", "-p", "vision").out == "There are no findings.\n"


def test_it_is_broken_down_as_asked_and_exact_in_json(vision: Api, curfew: Run) -> None:
    found = json.loads(curfew("get", "spend", "vision", "--by", "capacity_type,resource", "-o", "json").out)
    [group] = found["groups"]
    assert (group["capacity_type"], group["resource_name"]) == ("on_demand", "trainer")
    assert group["cost"] == {"amount_micros": 550_400_000, "currency": "USD"}


def test_without_a_project_it_asks_whose(served: Api, curfew: Run) -> None:
    ran = curfew("get", "spend")
    assert ran.code == 2
    assert "curfew get spend PROJECT" in ran.err


def test_a_project_that_spent_nothing(served: Api, curfew: Run) -> None:
    served.admin.put("/api/v1/projects/quiet", json={})
    assert curfew("get", "spend", "quiet").out.splitlines()[2] == "nothing"
