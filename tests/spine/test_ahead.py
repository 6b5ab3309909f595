"""What can be foreseen is warned about one grace ahead, so that the act falls on time. Charter 3 and 15."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from providers.records import ResourceRef
from providers.simulated.activity import Busy
from service.clock import SetClock
from service.pipeline.alert import budget_alerts
from tests.spine.company import Company, minutes, small_company

ENFORCE = {
    "mode": "enforce",
    "grace": "30m",
    "accept_loss": ["local_disks"],
    "disruption_budget": {"max": "100%"},
    "cool_down": "0s",
}


@pytest.fixture
def here(small: Company) -> Company:
    small.delete("policy", "idle-gpus")
    return small


def busy(here: Company, name: str = "trainer") -> ResourceRef:
    return here.machine(name, activity=Busy(), launched_at=here.clock.now())


# --- schedule ---------------------------------------------------------------------------------------------------------

CHANGES = {
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-10-04", "2026-04-05"),
    "Asia/Ho_Chi_Minh": ("2026-03-29", "2026-10-25"),
}
"""Nights in which the clocks change; Vietnam's never do."""


@pytest.mark.parametrize(("zone", "day"), [(zone, day) for zone, days in CHANGES.items() for day in days])
@pytest.mark.parametrize("ends", ["03:10", "20:00"])
def test_warned_one_grace_before_the_hour_and_stopped_on_the_hour(
    sqlite_url: str, zone: str, day: str, ends: str
) -> None:
    hour = datetime.fromisoformat(f"{day}T{ends}").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    with small_company(sqlite_url, SetClock(hour - minutes(35))) as here:
        here.delete("policy", "idle-gpus")
        here.document(
            "project", name="vision", owners=["a@example.org"], match=[{"tags": {"project": "vision"}}], timezone=zone
        )
        here.document("policy", name="hours", type="schedule", schedule={"on": f"10:00-{ends}"}, **ENFORCE)
        ref = busy(here)

        here.cycle()
        assert here.findings() == []
        here.cycle(after=minutes(5))
        finding = here.finding(ref, "hours")
        assert (finding.status, finding.warned_at, finding.due_at) == ("warned", hour - minutes(30), hour)
        assert finding.reason.startswith(f"Its hours (10:00-{ends}) end at ")
        assert f", {ends} ({zone}), and it still runs." in finding.reason

        here.cycle(after=minutes(29))
        assert here.finding(ref, "hours").status == "warned"
        assert here.stops == []
        here.cycle(after=minutes(1))
        assert [act.verb.value for act in here.stops] == ["stop"]
        assert here.actions()[-1].taken_at == hour


SCHEDULE = {"name": "hours", "type": "schedule", "schedule": {"on": "Mo-Fr 08:00-20:00"}}


def before_eight(here: Company, minutes_before: float) -> None:
    """Monday evening in Ho Chi Minh City."""
    here.clock.at = datetime(2026, 11, 16, 13, tzinfo=UTC) - minutes(minutes_before)


def test_who_stops_it_in_time_hears_no_more(here: Company) -> None:
    before_eight(here, 30)
    here.document("policy", **SCHEDULE, **ENFORCE)
    ref = busy(here)
    here.cycle()
    here.cloud.stop(ref.external_id)
    here.cycle(after=minutes(10))
    assert here.finding(ref, "hours").status == "cleared"
    here.cycle(after=minutes(20))
    assert here.stops == []


def test_hours_that_are_made_longer_clear_what_was_foreseen(here: Company) -> None:
    before_eight(here, 30)
    here.document("policy", **SCHEDULE, **ENFORCE)
    ref = busy(here)
    here.cycle()
    here.document("policy", **SCHEDULE | {"schedule": {"on": "Mo-Fr 08:00-22:00"}}, **ENFORCE)
    here.cycle(after=minutes(10))
    assert here.finding(ref, "hours").status == "cleared"
    here.cycles(minutes(40))
    assert here.stops == []


def test_without_a_delivered_warning_the_hour_stops_nothing(here: Company) -> None:
    before_eight(here, 30)
    here.document("policy", **SCHEDULE, **ENFORCE)
    ref = busy(here)
    here.postman.dead = True
    here.cycles(minutes(60))
    assert here.stops == []
    assert here.finding(ref, "hours").status == "open"
    here.postman.dead = False
    here.cycles(minutes(30))
    assert here.finding(ref, "hours").due_at > here.clock.now() - minutes(5)  # type: ignore[operator]


def test_a_person_may_have_it_stopped_before_the_hour(here: Company) -> None:
    before_eight(here, 30)
    here.document("policy", **SCHEDULE, **ENFORCE)
    ref = busy(here)
    here.cycle()
    with here.speaking(ref, "hours") as (_, finding, _now):
        finding.stop_now_by = "token:lead"
    here.cycle(after=minutes(1))
    assert len(here.stops) == 1


# --- lifetime ---------------------------------------------------------------------------------------------------------


def test_a_lifetime_goes_on_across_restarts_of_the_machine_and_of_ours(here: Company) -> None:
    here.document("policy", name="two-hours", type="lifetime", lifetime={"max": "2h"}, **ENFORCE)
    ref = busy(here)
    here.cycles(minutes(60))
    here.cloud.stop(ref.external_id)
    here.cycles(timedelta(hours=3))
    assert here.resource(ref).earlier_runs_seconds == 3600 + 300  # it was seen stopped five minutes later
    here.restart()
    here.cloud.start(ref.external_id)
    here.cycles(minutes(20))
    assert here.findings() == []
    here.cycles(minutes(5))
    finding = here.finding(ref, "two-hours")
    assert (finding.status, finding.reason) == ("warned", "It has run for 1h30m in all; 2h is allowed.")
    here.restart()
    here.cycles(minutes(25))
    assert here.stops == []
    here.cycles(minutes(5))
    assert len(here.stops) == 1
    assert here.actions()[-1].reason == "It has run for 2h in all; 2h is allowed."


# --- spend budgets ----------------------------------------------------------------------------------------------------


def funded(here: Company, dollars: float, **more: object) -> None:
    """A month's money for vision, whose machines cost 55.04 an hour."""
    here.document(
        "project",
        name="vision",
        owners=["lead@example.org"],
        budget_owners=["money@example.org"],
        match=[{"tags": {"project": "vision"}}],
        timezone="Asia/Ho_Chi_Minh",
        spend_budgets=[{"name": "monthly", "period": "month", "amount": dollars, **more}],
    )


def test_a_budget_that_runs_out_is_warned_about_one_grace_ahead_and_stopped_when_it_is_spent(here: Company) -> None:
    funded(here, 2 * 55.04)
    here.document("policy", name="spent", type="budget", budget={"budget": "monthly"}, **ENFORCE)
    ref = busy(here)
    here.cycle()
    here.cycles(minutes(85))
    assert here.findings() == []
    here.cycles(minutes(5))
    finding = here.finding(ref, "spent")
    assert finding.status == "warned"
    assert finding.reason.startswith(
        "Spend budget monthly of vision: 82.56 of 110.08 USD (75 %) spent since 1 November"
    )
    here.cycles(minutes(25))
    assert here.stops == []
    here.cycles(minutes(5))
    assert len(here.stops) == 1
    assert "110.08 of 110.08 USD (100 %)" in here.actions()[-1].reason


def test_only_as_much_is_stopped_as_brings_the_month_under_the_amount(here: Company) -> None:
    left = datetime(2026, 11, 30, 17, tzinfo=UTC) - here.clock.now()
    funded(here, 55.04 * left / timedelta(hours=1) * 1.5)
    here.document("policy", name="ahead", type="budget", budget={"budget": "monthly", "at": "0%"}, **ENFORCE)
    busy(here, "worker")
    idler = here.machine("idler")
    here.cycles(minutes(60))
    assert [act.external_id for act in here.stops] == [idler.external_id]
    here.cycles(minutes(60))
    assert len(here.stops) == 1


def test_budget_owners_are_told_once_at_each_threshold_at_every_ceiling(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, ceiling="observe") as here:
        here.delete("policy", "idle-gpus")
        funded(here, 55.04, alert_at=["50%", "100%"])
        busy(here)
        here.cycle()
        here.cycles(minutes(29), every=minutes(1))
        assert here.postman.taken == []
        here.cycles(minutes(60), every=minutes(1))
        told = [(channel, rendered.subject) for channel, rendered in here.postman.taken]
        assert told == [
            ("mail:money@example.org", "50 % of spend budget monthly of vision is spent: $27.52 of $55.04"),
            ("mail:money@example.org", "Spend budget monthly of vision is spent: $55.04 of $55.04 (100 %)"),
        ]
        here.clock.at = datetime(2026, 12, 1, tzinfo=UTC)
        here.cycle()
        assert len(here.postman.taken) == 3  # a new month; the whole gap is assumed to have been run


def test_whoever_is_given_more_money_hears_of_its_thresholds_too(here: Company) -> None:
    funded(here, 55.04, alert_at=["50%", "100%"])
    busy(here)
    here.cycle()
    here.cycles(minutes(60))
    funded(here, 4 * 55.04, alert_at=["50%", "100%"])
    here.cycles(minutes(60))
    here.restart()
    here.cycles(minutes(120))
    assert [rendered.subject for _, rendered in here.postman.taken] == [
        "50 % of spend budget monthly of vision is spent: $27.52 of $55.04",
        "Spend budget monthly of vision is spent: $55.04 of $55.04 (100 %)",
        "50 % of spend budget monthly of vision is spent: $110.08 of $220.16",
        "Spend budget monthly of vision is spent: $220.16 of $220.16 (100 %)",
    ]


def test_a_threshold_below_one_that_was_told_of_is_no_news(here: Company) -> None:
    """What is used may be less than it was thought to be: a rate was corrected, a machine had ended before."""
    funded(here, 100, alert_at=["25%", "50%"])
    busy(here)
    here.cycle()
    here.cycle(after=minutes(60))
    assert [rendered.subject[:4] for _, rendered in here.postman.taken] == ["55 %"]
    assert here.rt.view is not None
    fallen = replace(here.rt.view.look.budgets["vision", "monthly"], used_micros=30_000_000)
    assert fallen.reached == 0.25
    with here.rt.database.reading() as session:
        assert budget_alerts(session, {("vision", "monthly"): fallen}, here.rt.rates, here.clock.now()) == []


def test_of_thresholds_passed_at_once_the_highest_is_told(here: Company) -> None:
    busy(here)
    here.cycle()
    here.cycles(minutes(60))
    funded(here, 60)
    here.cycle()
    [(_, rendered)] = here.postman.taken
    assert rendered.subject.startswith("91 % of spend budget")
    [image] = rendered.images
    assert image.png.startswith(b"\x89PNG")
