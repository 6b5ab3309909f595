"""What a budget's message carries: told while its period runs, who spent most, and the money day by day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.documents import Project
from service.model import Message
from service.pipeline.alert import MOST_POINTS, budget_alerts
from service.pipeline.budget import states, windows
from service.pipeline.currency import Rate, Rates
from service.store import spend
from service.store.database import Database
from service.store.tables import MeterInterval, Resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
M = 10**6
RATES = Rates(
    Rate.model_validate({"from": "EUR", "to": "USD", "rate": rate, "as_of": day})
    for day, rate in (("2026-11-01", "1.1"), ("2026-11-16", "1.2"))
)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    made = Database(sqlite_url)
    yield made
    made.close()


def ran(database: Database, name: str, hourly: int, hours: float, currency: str = "USD") -> None:
    """A machine of vision that has run for so many hours until now."""
    start = NOW - timedelta(hours=hours)
    with database.transaction() as session:
        session.add(
            Resource(
                id=name, source="research", provider="aws", account="1", region="r", kind="instance", external_id=name,
                incarnation=name, name=name, sku="p5", gpu_count=8, gpu_share=1.0, capacity_type="spot",
                state="running", state_since=start, project="vision", first_seen=start, rate_micros=hourly * M,
                currency=currency,
            )
        )  # fmt: skip
        session.add(
            MeterInterval(
                resource_id=name, project="vision", state="running", capacity_type="spot", activity="busy",
                rate_micros=hourly * M, currency=currency, price_source="list", base=0, started_at=start,
            )
        )  # fmt: skip


def alerts(database: Database, **budget: Any) -> list[Message]:
    body = {"name": "monthly", "period": "month", "amount": 1000} | budget
    projects = {"vision": Project.model_validate({"name": "vision", "spend_budgets": [body]})}
    with database.reading() as session:
        spent = spend.spent(session, windows(projects, NOW), NOW)
        return budget_alerts(session, states(projects, spent, {}, RATES, NOW), RATES, NOW)


def test_money_of_two_currencies_day_by_day_each_by_the_rate_of_its_day(database: Database) -> None:
    ran(database, "small", 10, 24, "EUR")
    ran(database, "big", 100, 48)
    [message] = alerts(database)
    payload = message.payload
    days = {"2026-11-14": 1500, "2026-11-15": 3900 + 165, "2026-11-16": 4800 + 165 + 108}
    assert payload["history"] == [[f"2026-11-{day:02d}", 0] for day in range(1, 14)] + [
        [day, dollars * M] for day, dollars in days.items()
    ]
    assert payload["used"] == {"amount_micros": 5073 * M, "currency": "USD"}
    assert payload["spenders"] == [
        {"name": "big", "cost": {"amount_micros": 4800 * M, "currency": "USD"}},
        {"name": "small", "cost": {"amount_micros": 240 * M, "currency": "EUR"}},
    ]
    assert payload["conversions"] == ["1 EUR = 1.1 USD (as of 2026-11-01)", "1 EUR = 1.2 USD (as of 2026-11-16)"]


def test_of_many_days_some_are_shown_and_today_always(database: Database) -> None:
    ran(database, "old", 1, 300 * 24)
    [message] = alerts(database, period="total")
    points = message.payload["history"]
    assert MOST_POINTS / 2 < len(points) <= MOST_POINTS
    assert points == sorted(points)
    assert points[-1] == ["2026-11-16", 300 * 24 * M]


NOT_RUNNING = {
    "it has not begun": {"from": "2026-12-01", "until": "2026-12-31"},
    "it is over": {"from": "2026-11-01", "until": "2026-11-16"},
}


@pytest.mark.parametrize("sentence", NOT_RUNNING)
def test_a_period_that_is_not_now_alerts_nobody(database: Database, sentence: str) -> None:
    ran(database, "big", 100, 48)
    assert alerts(database, period="range", **NOT_RUNNING[sentence]) == []
    assert len(alerts(database, period="range", **{"from": "2026-11-01", "until": "2026-11-17"})) == 1


def test_what_is_not_known_alerts_nobody(database: Database) -> None:
    ran(database, "big", 100, 48, "JPY")
    assert alerts(database) == []
