"""Facts of one policy alone: its hours on the clocks of each project, and where its spend budget stands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from policies.decision import Verdict
from policies.policy import BasePolicy
from providers.records import Price, State
from service.documents import POLICY, Project
from service.model import BudgetKey, Known, Spent, Telemetry
from service.pipeline.attribute import attributed
from service.pipeline.budget import BudgetState, hourly_of, states
from service.pipeline.currency import Rate, Rates
from service.pipeline.evaluate import Judged, Look, judge
from service.pipeline.own import own_facts
from tests.pipeline.builders import NOW, known, record

M = 1_000_000


# --- schedule ---------------------------------------------------------------------------------------------------------


def schedule(on: str = "Mo-Fr 08:00-20:00", grace: str = "30m", **more: Any) -> BasePolicy:
    return POLICY.validate_python(
        {"name": "office-hours", "type": "schedule", "grace": grace, "schedule": {"on": on, **more}}
    )


def hours_of(zone: str, at: datetime, policy: BasePolicy | None = None) -> tuple[bool, bool, str | None]:
    """(off now, off one grace from now, when it switches) for a machine of a project in that zone."""
    project = Project.model_validate({"name": "vision", "timezone": zone})
    found = own_facts([policy or schedule()], [known()], {"vision": project}, {}, at)["office-hours"]
    return found["off_now"][0], found["off_soon"][0], found["on_again"][0]


def clock(zone: str, text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC)


ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Ho_Chi_Minh")
DAYS = {
    "Europe/Berlin": ("2026-03-30", "2026-10-26"),
    "America/New_York": ("2026-03-09", "2026-11-02"),
    "Australia/Lord_Howe": ("2026-04-06", "2026-10-05"),
    "Asia/Ho_Chi_Minh": ("2026-03-30", "2026-10-26"),
}
"""The Mondays after the clocks changed."""


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("which", [0, 1])
def test_hours_are_those_on_the_projects_wall_whatever_the_clocks_did(zone: str, which: int) -> None:
    monday = DAYS[zone][which]
    for time, expected in {
        "07:29": (True, True),
        "07:30": (True, False),
        "07:59": (True, False),
        "08:00": (False, False),
        "19:29": (False, False),
        "19:30": (False, True),
        "19:59": (False, True),
        "20:00": (True, True),
    }.items():
        off_now, off_soon, _ = hours_of(zone, clock(zone, f"{monday}T{time}"))
        assert (off_now, off_soon) == expected, time


def test_when_it_switches_next_is_said_on_the_projects_clocks() -> None:
    _, _, change = hours_of("Asia/Ho_Chi_Minh", clock("Asia/Ho_Chi_Minh", "2026-11-13T20:00"))
    assert change == "Monday 16 November, 08:00 (Asia/Ho_Chi_Minh)"


def test_what_is_always_on_never_switches() -> None:
    assert hours_of("UTC", NOW, schedule("24/7")) == (False, False, None)


def test_an_hour_that_comes_twice_is_as_long_as_the_clock_shows_it() -> None:
    night = schedule("02:00-02:30", grace="15m")
    first, second = (clock("Europe/Berlin", "2026-10-25T02:15", fold=fold) for fold in (0, 1))
    assert second - first == timedelta(hours=1)
    assert [hours_of("Europe/Berlin", at, night)[0] for at in (first, second)] == [False, False]


def test_holidays_are_off() -> None:
    national_day = clock("Asia/Ho_Chi_Minh", "2026-09-02T10:00")
    assert hours_of("Asia/Ho_Chi_Minh", national_day, schedule(holidays="VN"))[0]
    assert not hours_of("Asia/Ho_Chi_Minh", national_day, schedule())[0]


def test_hours_that_call_themselves_unknown_stop_nothing() -> None:
    assert hours_of("UTC", NOW, schedule("Mo-Su 00:00-24:00 unknown"))[:2] == (False, False)


def test_every_resource_follows_its_own_project_and_nobodys_follows_utc() -> None:
    projects = {
        name: Project.model_validate({"name": name, "timezone": zone})
        for name, zone in {"hanoi": "Asia/Ho_Chi_Minh", "york": "America/New_York"}.items()
    }
    machines = [known("1", project="hanoi"), known("2", project="york"), known("3", project=None)]
    at = datetime(2026, 11, 16, 13, 30, tzinfo=UTC)
    found = own_facts([schedule()], machines, projects, {}, at)["office-hours"]
    assert found["off_now"] == [True, False, False]


# --- ownership --------------------------------------------------------------------------------------------------------


CLAIMS = {"tags": {"project": "vision"}}, {"sources": ["research"]}


@pytest.mark.parametrize(("claimants", "verdict"), [(0, "breach"), (1, "ok"), (2, "unknown")])
def test_what_several_projects_claim_is_not_for_that_without_one(claimants: int, verdict: str) -> None:
    projects = {
        name: Project.model_validate({"name": name, "match": [claim]})
        for name, claim in list(zip(("nlp", "vision"), CLAIMS, strict=True))[:claimants]
    }
    policy = POLICY.validate_python({"name": "nobodys", "type": "ownership"})
    machine = attributed(known(project=None), projects, NOW)
    look = Look(
        resources=[machine],
        seen=frozenset({machine.id}),
        telemetry=Telemetry(),
        cost_to_date={},
        at=NOW,
        projects=projects,
    )
    decision = judge(look, [policy]).judgement.decision("nobodys", 0)
    assert decision.verdict.value == verdict, decision.reason
    assert decision.evidence["claimed_by"] == ("nlp and vision" if claimants == 2 else None)


# --- budget -----------------------------------------------------------------------------------------------------------


def budget(name: str = "over", **more: Any) -> BasePolicy:
    """Met in an order that asks for no telemetry."""
    named = {"budget": "monthly", "order": "most_expensive_first", **more}
    given = {"name": name, "type": "budget", "grace": "1h", "budget": named}
    return POLICY.validate_python(given)


VISION = Project.model_validate(
    {"name": "vision", "spend_budgets": [{"name": "monthly", "period": "month", "amount": 20_000}]}
)


def machine(name: str, dollars: int, currency: str = "USD", **more: Any) -> Known:
    return known(name, price=Price(rate_micros=dollars * M, currency=currency, source="file"), **more)


def standing(machines: list[Known], used: int, rates: Rates | None = None) -> dict[BudgetKey, BudgetState]:
    spent = {("vision", "monthly"): Spent(since=NOW - timedelta(days=20), own=used * M)}
    return states({"vision": VISION}, spent, hourly_of(machines), rates or Rates(), NOW)


def judged(machines: list[Known], used: int, policy: BasePolicy | None = None, rates: Rates | None = None) -> Judged:
    return judge(
        Look(
            resources=machines,
            seen=frozenset(one.id for one in machines),
            telemetry=Telemetry(),
            cost_to_date={},
            at=NOW,
            projects={"vision": VISION},
            budgets=standing(machines, used, rates),
        ),
        [policy or budget()],
    )


def verdicts(
    machines: list[Known], used: int, policy: BasePolicy | None = None, rates: Rates | None = None
) -> list[str]:
    judgement = judged(machines, used, policy, rates).judgement
    return [judgement.decision("over", row).verdict.value for row in range(len(machines))]


FLEET = [machine("big", 100), machine("small", 10), machine("other", 30)]
# 351 hours are left of the month.
VERDICTS: dict[str, tuple[int, BasePolicy, list[str]]] = {
    "below its share nothing is met": (19_000, budget(), ["ok", "ok", "ok"]),
    "spent: all of it": (20_000, budget(), ["breach", "breach", "breach"]),
    "spent one grace from now: all of it, ahead": (19_900, budget(), ["foreseen", "foreseen", "foreseen"]),
    "at 80 % only what must go, the dearest first": (16_000, budget(at="80%"), ["breach", "ok", "breach"]),
    "at 50 % one may be enough": (10_000, budget(at="50%"), ["breach", "ok", "breach"]),
    "where the rest of the month fits in, nothing must go": (0, budget(at="0%"), ["breach", "ok", "ok"]),
}


@pytest.mark.parametrize("sentence", VERDICTS)
def test_what_a_budget_policy_says(sentence: str) -> None:
    used, policy, expected = VERDICTS[sentence]
    assert verdicts(FLEET, used, policy) == expected


def test_the_words_say_how_the_budget_stands() -> None:
    judgement = judged(FLEET, 20_500).judgement
    reason = judgement.decision("over", 0).reason
    assert reason.startswith(
        "Spend budget monthly of vision: 20,500.00 of 20,000.00 USD (102 %) spent since 1 November"
    )
    assert reason.endswith("It is among the first to stop (most expensive first).")


def test_without_such_a_budget_it_is_not_known_and_says_so() -> None:
    policy = budget(budget="quarterly")
    decision = judged(FLEET, 30_000, policy).judgement.decision("over", 0)
    assert decision.verdict is Verdict.UNKNOWN
    assert decision.reason == "Project vision has no spend budget quarterly."


def test_what_belongs_to_no_project_is_met_by_no_budget() -> None:
    [verdict] = verdicts([machine("nobodys", 100, project=None)], 30_000)
    assert verdict == "unknown"


def test_what_does_not_run_spends_nothing() -> None:
    halted = machine("halted", 100, record=record("halted", state=State.STOPPED))
    assert verdicts([halted, machine("small", 10)], 20_000) == ["ok", "breach"]


EUROS = Rates([Rate.model_validate({"from": "EUR", "to": "USD", "rate": "2", "as_of": "2026-01-01"})])


def test_prices_in_one_other_currency_are_met_by_their_own_sums() -> None:
    fleet = [machine("big", 50, "EUR"), machine("small", 5, "EUR"), machine("other", 15, "EUR")]
    assert verdicts(fleet, 16_000, budget(at="80%"), EUROS) == ["breach", "ok", "breach"]
    assert verdicts(fleet, 20_000, rates=EUROS) == ["breach", "breach", "breach"]


def test_of_several_currencies_only_all_can_be_told() -> None:
    fleet = [machine("big", 100), machine("euro", 15, "EUR")]
    assert verdicts(fleet, 16_000, budget(at="80%"), EUROS) == ["unknown", "unknown"]
    assert verdicts(fleet, 20_000, rates=EUROS) == ["breach", "breach"]
    reason = judged(fleet, 16_000, budget(at="80%"), EUROS).judgement.decision("over", 0).reason
    assert reason.endswith("With prices in EUR and USD it cannot be told whose cost has to go.")


def test_without_a_rate_nothing_is_met_and_the_reason_names_it() -> None:
    fleet = [machine("euro", 15, "EUR")]
    decision = judged(fleet, 20_000).judgement.decision("over", 0)
    assert decision.verdict is Verdict.UNKNOWN
    assert "no exchange rate from EUR to USD as of 2026-11-16" in decision.reason
