"""Small blast radius: disruption budgets wait and go on, the breaker holds everything until a person lifts it."""

from __future__ import annotations

from sqlmodel import select

from providers.errors import Throttled
from providers.simulated.activity import Busy
from service import people
from service.clock import SetClock
from service.explain import explain
from service.people import Person
from service.store.tables import Hold
from tests.spine.company import ENFORCING, Company, hours, minutes, small_company

LEAD = Person(actor="token:lead")


def fleet(here: Company, idle: int, busy: int = 0) -> None:
    for number in range(idle):
        here.machine(f"idle-{number}")
    for number in range(busy):
        here.machine(f"busy-{number}", activity=Busy())


def holds(here: Company) -> list[Hold]:
    with here.rt.database.reading() as session:
        return list(session.exec(select(Hold)).all())


def lift(here: Company) -> None:
    with here.rt.database.transaction() as session:
        people.lift(session, project=None, by=LEAD, now=here.clock.now())


def test_a_disruption_budget_waits_with_its_reason_and_goes_on_after_an_hour(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "disruption_budget": {"max": 2}})
    fleet(small, idle=5)
    small.cycle()
    small.cycle(after=minutes(30))
    assert len(small.stops) == 2
    waiting = [f for f in small.findings() if f.status == "due"]
    assert {f.status_reason for f in waiting} == {
        "Waits for the disruption budget: 2 of 2 in 5 resources were disturbed within the hour."
    }
    small.cycle(after=minutes(2))
    small.cycle(after=minutes(57))
    assert len(small.stops) == 2
    small.cycle(after=minutes(1))
    assert len(small.stops) == 4
    small.cycle(after=minutes(2))
    small.cycle(after=minutes(58))
    assert len(small.stops) == 5


def test_within_any_hour_no_more_is_disturbed_than_allowed(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "disruption_budget": {"max": "30%", "max_hourly_cost": 120}})
    fleet(small, idle=7)
    small.cycles(hours(4), every=minutes(12))
    times = [stop.at for stop in small.stops]
    assert len(times) == 7
    for first in times:
        assert sum(first <= later < first + hours(1) for later in times) <= 2  # a third would cost 165 an hour


def test_undone_acts_count_too(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "disruption_budget": {"max": 1}})
    fleet(small, idle=2)
    small.cycle()
    small.cycle(after=minutes(30))
    small.cycle(after=minutes(2))
    small.undo(small.actions()[0].id)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(2))
    assert len(small.stops) == 1


def test_too_much_at_once_trips_the_breaker_until_a_person_lifts_it(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, breaker="30%", notify="ops@example.org") as here:
        fleet(here, idle=4, busy=6)
        here.cycle()
        here.cycle(after=minutes(30))
        assert here.stops == []
        [hold] = holds(here)
        assert (hold.project, hold.until, hold.created_by) == (None, None, "curfew")
        assert "32 of 80 GPUs would be stopped within an hour, more than the 30% the breaker allows." in hold.reason
        assert [row.channel for row in here.told("breaker")] == ["mail:ops@example.org"]
        told = explain(here.rt, here.named("idle-0"))
        assert told is not None
        assert told["hold"]["reason"] == hold.reason
        here.cycles(hours(5), every=hours(1))
        assert here.stops == []
        assert len(holds(here)) == 1

        lift(here)
        here.document("policy", **{**ENFORCING, "disruption_budget": {"max": 2}})
        here.cycle(after=minutes(1))
        assert {finding.status for finding in here.findings()} == {"warned"}
        here.cycle(after=minutes(29))
        assert here.stops == []
        here.cycle(after=minutes(1))
        assert len(here.stops) == 2
        here.cycle(after=minutes(2))
        here.cycle(after=minutes(58))
        assert len(here.stops) == 4
        assert len(holds(here)) == 1


def test_one_machine_alone_never_trips_it_but_the_next_within_the_hour_does(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, breaker="30%") as here:
        here.document("policy", **{**ENFORCING, "disruption_budget": {"max": 1}})
        fleet(here, idle=1)
        here.cycle()
        here.cycle(after=minutes(20))
        assert holds(here) == []
        here.cycle(after=minutes(10))
        assert len(here.stops) == 1
        here.document("policy", **{**ENFORCING, "disruption_budget": {"max": 5}})
        fleet(here, idle=2)
        here.cycle(after=minutes(1))
        here.cycle(after=minutes(10))
        here.cycle(after=minutes(25))
        assert len(holds(here)) == 1
        assert len(here.stops) == 1


def test_a_shrinking_inventory_trips_the_breaker_before_anything_is_done(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, breaker="30%") as here:
        fleet(here, idle=1, busy=8)
        here.cycle()
        for name in ("busy-0", "busy-1", "busy-2"):
            [gone] = [ref for ref, machine in here.cloud.machines.items() if machine.name == name]
            here.cloud.vanish(gone)
        here.cycle(after=minutes(30))
        assert here.stops == []
        [hold] = holds(here)
        assert hold.reason == "3 of 9 running resources suddenly vanished from the inventory."
        here.cycle(after=minutes(30))
        assert here.stops == []


def test_two_machines_that_vanish_are_everyday_life(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, breaker="30%") as here:
        fleet(here, idle=1, busy=3)
        here.cycle()
        for name in ("busy-0", "busy-1"):
            [gone] = [ref for ref, machine in here.cloud.machines.items() if machine.name == name]
            here.cloud.vanish(gone)
        here.cycle(after=minutes(30))
        assert len(here.stops) == 1


def test_a_region_that_fails_is_no_shrinking_inventory(sqlite_url: str, clock: SetClock) -> None:
    with small_company(sqlite_url, clock, breaker="30%") as here:
        fleet(here, idle=0, busy=9)
        here.cycle()
        with here.cloud.failing(Throttled("too often"), "list"):
            here.cycle(after=minutes(5))
            here.cycle(after=minutes(5))
        assert holds(here) == []
        assert here.rt.view is not None
        assert len(here.rt.view.judged.rows) == 9
