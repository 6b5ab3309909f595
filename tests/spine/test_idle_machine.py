"""The whole way of one idle machine, on the simulated cloud and both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from service.clock import SetClock
from service.people import Person, undo
from service.store.database import Database
from service.store.tables import Action
from tests.spine.company import Company, company, minutes


@pytest.fixture
def here(database: Database, clock: SetClock) -> Iterator[Company]:
    with company(database, clock) as made:
        yield made


def test_an_idle_machine_is_seen_warned_about_stopped_verified_and_undone(here: Company) -> None:
    ref = here.machine()

    here.cycle()
    finding = here.finding(ref)
    assert finding.status == "warned"
    assert finding.due_at == here.clock.now() + minutes(30)
    assert {channel for channel, _ in here.postman.taken} == {"mail:lead@example.org", "mail:mai@example.org"}
    assert here.cloud.acts == []

    here.cycle(after=minutes(29))
    assert here.cloud.acts == []

    here.cycle(after=minutes(1))
    assert [act.verb for act in here.cloud.acts] == ["stop"]
    here.cycle(after=minutes(2))
    assert here.finding(ref).status == "enforced"
    assert here.resource(ref).state == "stopped"
    [action] = here.actions()
    assert (action.status, action.policy, action.verb) == ("verified", "idle-gpus", "stop")

    with here.rt.database.transaction() as session:
        row = session.get(Action, action.id)
        assert row is not None
        undo(session, row, by=Person(actor="token:lead"), now=here.clock.now())
    here.cycle(after=minutes(1))
    here.cycle(after=minutes(2))
    assert here.resource(ref).state == "running"
    assert [action.status for action in here.actions()] == ["undone", "verified"]
    assert here.finding(ref).status == "closed"

    here.cycles(timedelta(hours=3, minutes=30), every=minutes(15))
    assert [act.verb for act in here.cloud.acts] == ["stop", "start"]
    assert "cool-down" in here.finding(ref).status_reason
