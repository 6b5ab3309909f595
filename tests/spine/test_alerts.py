"""What people get over days: one message for many machines, one reminder now and then, nothing that is not so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from providers.simulated.activity import Busy
from service.clock import SetClock
from service.people import Person, hold
from service.store.database import Database
from tests.spine.company import ENFORCING, Company, company, minutes

LEAD = "mail:lead@example.org"


@pytest.fixture
def here(database: Database, clock: SetClock) -> Iterator[Company]:
    with company(database, clock) as made:
        yield made


def subjects(here: Company, channel: str = LEAD) -> list[str]:
    return [said.subject for to, said in here.postman.taken if to == channel]


def test_three_machines_are_one_message_to_each_person_and_one_grace(here: Company) -> None:
    refs = [here.machine(name) for name in ("one", "two", "three")]
    here.cycle()

    assert sorted(to for to, _ in here.postman.taken) == [LEAD, "mail:mai@example.org"]
    [subject] = subjects(here)
    assert subject.startswith("3 machines of vision will be stopped in 30 minutes: $")
    assert {here.finding(ref).due_at for ref in refs} == {here.clock.now() + minutes(30)}

    here.cycle(after=minutes(30))
    assert sorted(act.verb for act in here.cloud.acts) == ["stop"] * 3
    here.cycle(after=minutes(2))
    assert subjects(here)[1:] == ["3 machines of vision were stopped"]


def warn_only(here: Company, **more: Any) -> None:
    here.document("policy", **{**ENFORCING, "mode": "warn", **more})


def test_who_was_warned_and_did_nothing_hears_of_it_ever_more_rarely(here: Company) -> None:
    warn_only(here)
    ref = here.machine()
    here.cycle()
    began = here.clock.now()
    heard: list[timedelta] = []
    for _ in range(4 * 19):
        before = len(subjects(here))
        here.cycle(after=timedelta(hours=6))
        here.cycle(after=minutes(1))
        heard += [here.clock.now() - began] * (len(subjects(here)) - before)

    assert [told.days for told in heard] == [1, 3, 10, 17]
    assert here.finding(ref).status == "warned"
    assert set(subjects(here)[1:]) == {"Still there: trainer (8×H100)"}
    [_, first, *_] = [said for to, said in here.postman.taken if to == LEAD]
    words = " ".join(first.text.split())
    assert "In the 1 day 3 minutes since then it has cost $1,323.71, at its present price." in words
    assert "Curfew will not touch it. The policy's mode is warn: nothing is done." in words
    assert "will be stopped" not in first.text


def test_who_only_observes_is_never_reminded(here: Company) -> None:
    here.document("policy", **{**ENFORCING, "mode": "observe"})
    here.machine()
    here.cycles(timedelta(days=4), every=timedelta(hours=6))
    assert here.postman.taken == []


def test_what_waits_for_an_approval_is_asked_for_again(here: Company) -> None:
    here.document("policy", **ENFORCING, approval="required")
    here.machine()
    here.cycle()
    here.cycles(timedelta(hours=25), every=timedelta(hours=5))
    assert subjects(here) == ["Waits for approval: trainer (8×H100)", "Still waits for approval: trainer (8×H100)"]
    assert "/l/" in here.postman.taken[-1][1].text


def test_during_a_hold_nobody_is_reminded(here: Company) -> None:
    here.document("policy", **ENFORCING, approval="required")
    here.machine()
    here.cycle()
    with here.rt.database.transaction() as session:
        hold(session, project=None, until=None, reason="demo day", by=Person(actor="token:x"), now=here.clock.now())
    here.cycles(timedelta(hours=50), every=timedelta(hours=5))
    assert len(subjects(here)) == 1


def test_a_warning_that_no_channel_took_is_not_sent_when_it_is_no_longer_so(here: Company) -> None:
    here.postman.dead = True
    ref = here.machine()
    here.cycle()
    here.cloud.find(ref).activity = Busy()
    here.cycles(minutes(60))
    assert here.finding(ref).status == "cleared"

    here.postman.dead = False
    here.cycles(minutes(60))
    assert here.postman.taken == []
    assert {row.status for row in here.outbox()} == {"withdrawn"}
