"""What people are told: once per episode, only what is still true, and the same moment to everybody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlmodel import select

from providers.records import ResourceRef
from providers.simulated.activity import Busy, Idle, Until
from service import people
from service.clock import SetClock
from service.notify.channels import Delivery
from service.notify.messages import Rendered
from service.people import Person
from service.pipeline import notify
from service.pipeline.notify import drain
from service.store.database import Database
from service.store.tables import Outbox, new_id
from tests.spine.company import ENFORCING, Company, company, hours, minutes

LEAD = Person(actor="token:lead")


def test_each_person_is_told_once_however_many_cycles_there_are(small: Company) -> None:
    small.machine()
    for _ in range(5):
        small.cycle(after=minutes(5))
    assert sorted(row.channel for row in small.outbox()) == ["mail:lead@example.org", "mail:mai@example.org"]


def test_nothing_is_due_before_somebody_took_the_warning(small: Company) -> None:
    small.postman.dead = True
    ref = small.machine()
    small.cycle()
    small.cycle(after=hours(2))
    assert small.stops == []
    small.postman.dead = False
    small.cycle(after=hours(1))
    assert small.finding(ref).due_at == small.clock.now() + minutes(30)
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_a_warning_is_owed_for_as_long_as_it_is_true(small: Company) -> None:
    small.postman.dead = True
    ref = small.machine()
    small.cycle()
    for _ in range(4):
        small.cycle(after=hours(24))
    assert {row.status for row in small.outbox()} == {"pending"}
    small.postman.dead = False
    small.cycle(after=hours(1))
    assert small.finding(ref).status == "warned"


def kept(here: Company, ref: ResourceRef) -> None:
    with here.speaking(ref) as (session, finding, now):
        people.snooze(session, finding, until=now + hours(9), reason="wait", by=LEAD, now=now)


def worked(here: Company, ref: ResourceRef) -> None:
    here.cloud.machines[ref.external_id].activity = Until(moment=here.clock.now(), first=Idle(), then=Busy())


def dropped(here: Company, ref: ResourceRef) -> None:
    here.delete("policy", "idle-gpus")


OVER: dict[str, Callable[[Company, ResourceRef], None]] = {
    "its people kept it": kept,
    "it works again": worked,
    "its policy is gone": dropped,
}


@pytest.mark.parametrize("sentence", OVER)
def test_a_warning_that_waited_is_not_sent_when(sentence: str, small: Company) -> None:
    small.postman.dead = True
    ref = small.machine()
    small.cycle()
    small.postman.dead = False
    OVER[sentence](small, ref)
    small.cycle(after=minutes(20))
    assert small.postman.taken == []
    assert {row.status for row in small.outbox()} == {"withdrawn"}


def test_whoever_is_told_later_is_told_the_same_moment(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = small.machine()
    deliver = small.postman.deliver

    def only_the_lead(channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
        small.postman.dead = channel != "mail:lead@example.org"
        return deliver(channel, rendered, message_id=message_id)

    monkeypatch.setattr(small.postman, "deliver", only_the_lead)
    small.cycle()
    monkeypatch.setattr(small.postman, "deliver", deliver)
    small.postman.dead = False
    small.cycle(after=minutes(20))
    assert small.finding(ref).due_at is not None
    [late] = [words for channel, words in small.postman.taken if channel == "mail:mai@example.org"]
    assert "16:30" in late.text  # 09:30 UTC in the project's zone, not 16:50
    assert "16:50" not in late.text


WHILE_SENDING: dict[str, Callable[[Company, ResourceRef], None]] = {
    "its people keep it": kept,
    "its policy is made stricter": lambda here, ref: here.document("policy", **{**ENFORCING, "grace": "4h"}),
}


@pytest.mark.parametrize("sentence", WHILE_SENDING)
def test_a_warning_that_is_overtaken_while_it_is_sent_does_not_count(
    sentence: str, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with company(database, clock) as here:
        ref = here.machine()
        deliver = here.postman.deliver

        def slow(channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
            monkeypatch.setattr(here.postman, "deliver", deliver)
            clock.forward(minutes(1))
            WHILE_SENDING[sentence](here, ref)
            return deliver(channel, rendered, message_id=message_id)

        monkeypatch.setattr(here.postman, "deliver", slow)
        here.cycle()
        assert here.finding(ref).warned_at is None
        here.cycle(after=minutes(31))
        here.cycle(after=minutes(31))
        assert here.stops == []


def test_a_channel_that_refuses_a_thousand_messages_keeps_nobody_elses_back(small: Company) -> None:
    now = small.clock.now()
    with small.rt.database.transaction() as session:
        for number in range(1200):
            session.add(
                Outbox(
                    id=new_id(),
                    message_id=f"breaker:{number}",
                    kind="breaker",
                    channel="json://refuses" if number < 1199 else "mail:lead@example.org",
                    channel_kind="json",
                    payload={"reason": "too much", "held_by": "curfew", "timezone": "UTC"},
                    created_at=now,
                    next_try_at=now,
                )
            )
    deliver = small.postman.deliver

    def refusing(channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
        if channel.startswith("json"):
            return Delivery(ok=False, error="nobody answers")
        return deliver(channel, rendered, message_id=message_id)

    small.postman.deliver = refusing  # type: ignore[method-assign]
    drain(small.rt.post)
    assert [channel for channel, _ in small.postman.taken] == ["mail:lead@example.org"]


def test_whoever_drains_at_the_same_time_sends_again_and_warns_once(small: Company) -> None:
    ref = small.machine()
    small.postman.dead = True
    small.cycle()
    small.postman.dead = False
    small.clock.forward(minutes(5))
    with small.rt.database.reading() as session:
        rows = list(session.exec(select(Outbox)).all())
    drain(small.rt.post)
    due = small.finding(ref).due_at
    small.clock.forward(minutes(5))
    notify._record(rows, Delivery(ok=True), small.rt.post)
    assert small.finding(ref).due_at == due
