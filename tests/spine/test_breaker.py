"""The breaker holds everything until a person lifts it; whoever lifts it has looked, and is not asked twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlmodel import select

from providers.simulated.activity import Busy
from service.clock import SetClock
from service.people import Person, lift
from service.store.database import Database
from service.store.tables import Hold
from tests.spine.company import Company, company, minutes


@pytest.fixture
def here(database: Database, clock: SetClock) -> Iterator[Company]:
    with company(database, clock, breaker="30%") as made:
        yield made


def test_a_person_s_lift_is_consent_to_what_was_found_and_to_nothing_later(here: Company) -> None:
    idle = [here.machine(f"idle-{number}") for number in range(4)]
    for number in range(6):
        here.machine(f"busy-{number}", activity=Busy())
    here.cycle()
    here.cycle(after=minutes(31))
    assert here.cloud.acts == [], "four of ten would be stopped at once"
    assert {here.finding(ref).status for ref in idle} == {"due"}
    with here.rt.database.reading() as session:
        [hold] = session.exec(select(Hold)).all()
    assert hold.created_by == "curfew"
    assert "4 of" in hold.reason or "32 of 80" in hold.reason
    here.cycle(after=minutes(60))
    assert here.cloud.acts == [], "only a person lifts it"

    with here.rt.database.transaction() as session:
        lift(session, project=None, by=Person(actor="token:on-call"), now=here.clock.now())
    here.cycle(after=minutes(1))
    assert here.cloud.acts == [], "a fresh warning and grace come first"
    later = [here.machine(f"later-{number}") for number in range(4)]
    here.cycle(after=minutes(31))

    assert sorted(act.verb for act in here.cloud.acts) == ["stop"] * 4
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(31))
    assert len(here.cloud.acts) == 4, "what was found after the lift was not agreed to"
    assert {here.finding(ref).status for ref in later} == {"due"}
