"""What people say, and what comes of it: stop now, keep, dismiss, approve, undo, restart, hold and lift."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session

from providers.errors import Conflict, NoCapacity, Unreachable
from providers.records import ResourceRef
from providers.simulated.activity import Busy, Idle, Silent, Until
from service import people
from service.people import NotPossible, Person
from service.pipeline import recheck
from service.pipeline.plan import Plan, plan
from service.store.tables import Action, Finding
from tests.spine.company import ENFORCING, SOURCE, Company, hours, minutes

LEAD = Person(actor="token:lead")


def stop_now(here: Company, ref: ResourceRef) -> None:
    with here.speaking(ref) as (session, finding, now):
        people.stop_now(session, finding, by=LEAD, now=now)


def stopped(here: Company) -> tuple[ResourceRef, Action]:
    """A machine that was warned about, stopped and verified."""
    ref = here.machine()
    here.cycle()
    here.cycle(after=minutes(30))
    here.cycle(after=minutes(2))
    [action] = here.actions()
    assert action.status == "verified"
    return ref, action


# --- stop now ---------------------------------------------------------------------------------------------------------


def test_stop_now_skips_the_grace(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1
    assert small.actions()[0].requested_by == "token:lead"


@pytest.mark.parametrize("activity", [Busy(), Silent()], ids=["busy", "silent"])
def test_stop_now_skips_the_look_at_activity(small: Company, activity: object) -> None:
    ref = small.machine(activity=Until(moment=small.clock.now(), first=Idle(), then=activity))  # type: ignore[arg-type]
    small.cycle()
    stop_now(small, ref)
    small.cycle(after=minutes(10))
    assert len(small.stops) == 1


def test_stop_now_skips_the_policys_own_mode(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "mode": "observe"})
    ref = small.machine()
    small.cycle()
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_stop_now_does_not_skip_protection_and_is_forgotten_with_it(small: Company) -> None:
    ref = small.machine(locked=True)
    small.cycle()
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert (small.stops, small.finding(ref).status) == ([], "refused")
    small.cloud.machines[ref.external_id].locked = False
    small.cycle(after=hours(1))
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(1))
    assert small.stops == []
    assert small.finding(ref).status == "warned"


def test_stop_now_does_not_skip_an_exemption_nor_act_when_that_ends(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.document("exemption", name="demo", projects=["vision"], until="2026-11-16T12:00:00Z", reason="the demo")
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert small.finding(ref).status == "exempt"
    small.cycle(after=hours(3))
    assert (small.stops, small.finding(ref).status) == ([], "warned")


def test_stop_now_does_not_skip_a_hold_nor_act_when_that_ends(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    with small.rt.database.transaction() as session:
        people.hold(session, project=None, until=None, reason="a visit", by=LEAD, now=small.clock.now())
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert "has to wait. Everything is on hold until somebody lifts it: a visit" in small.finding(ref).status_reason
    with small.rt.database.transaction() as session:
        people.lift(session, project=None, by=LEAD, now=small.clock.now())
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(1))
    assert (small.stops, small.finding(ref).status) == ([], "warned")


def test_what_could_not_be_done_for_an_hour_is_not_done_later(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cloud.fail(Unreachable("no answer"), "describe")
    stop_now(small, ref)
    small.cycle(after=minutes(1))
    assert "it could not be described: no answer" in small.finding(ref).status_reason
    small.cycle(after=minutes(61))
    small.cloud.heal()
    small.cycle(after=minutes(1))
    assert small.stops == []
    assert small.finding(ref).stop_now_by is None


def test_stop_now_on_what_has_stopped_meanwhile_does_nothing_when_it_starts_again(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cloud.stop(ref.external_id)
    stop_now(small, ref)
    small.cycle(after=minutes(2))
    small.cloud.start(ref.external_id)
    small.cycle(after=minutes(2))
    small.cycle(after=hours(1))
    assert small.stops == []


# --- keep, dismiss, approve -------------------------------------------------------------------------------------------


def test_after_a_snooze_there_is_a_fresh_warning_and_a_fresh_grace(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    with small.speaking(ref) as (session, finding, now):
        people.snooze(session, finding, until=now + hours(2), reason="training", by=LEAD, now=now)
    small.cycle(after=hours(1))
    small.cycle(after=hours(1))
    assert len(small.told("warning")) == 4  # two people, twice
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_a_dismissed_breach_counts_again_once_it_has_ended(small: Company) -> None:
    begins, ends = small.clock.now() + hours(1), small.clock.now() + hours(2)
    script = Until(moment=begins, first=Idle(), then=Until(moment=ends, first=Busy(), then=Idle()))
    ref = small.machine(activity=script)
    small.cycle()
    with small.speaking(ref) as (session, finding, now):
        people.dismiss(session, finding, reason="no", by=LEAD, now=now)
    small.cycle(after=minutes(50))
    assert small.finding(ref).status == "dismissed"
    small.cycle(after=minutes(40))
    small.cycle(after=hours(2))
    assert [f.status for f in small.findings()] == ["dismissed", "warned"]


def test_an_approved_act_follows_in_the_next_cycle(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "approval": "required"})
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(40))
    assert small.stops == []
    with small.speaking(ref) as (session, finding, now):
        people.approve(session, finding, by=LEAD, now=now)
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_an_approval_does_not_outlive_what_was_approved(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "approval": "required"})
    ref = small.machine()
    small.cycle()
    with small.speaking(ref) as (session, finding, now):
        people.approve(session, finding, by=LEAD, now=now)
    small.clock.forward(minutes(1))
    small.document(
        "policy", **{**ENFORCING, "approval": "required", "action": "terminate", "accept_loss": ["terminate"]}
    )
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(31))
    assert small.stops == []
    assert small.finding(ref).status_reason == "Waits for a person's approval."


WHEN_TOO_LATE: dict[str, Callable[[Session, Finding, datetime], None]] = {
    "snooze": lambda s, f, now: people.snooze(s, f, until=now + hours(1), reason="no", by=LEAD, now=now),
    "dismiss": lambda s, f, now: people.dismiss(s, f, reason="no", by=LEAD, now=now),
    "stop now": lambda s, f, now: people.stop_now(s, f, by=LEAD, now=now),
}


@pytest.mark.parametrize("verb", WHEN_TOO_LATE)
def test_after_the_act_only_undo_helps(small: Company, verb: str) -> None:
    ref, _ = stopped(small)
    with small.speaking(ref) as (session, finding, now), pytest.raises(NotPossible, match="acted on already"):
        WHEN_TOO_LATE[verb](session, finding, now)


def test_a_snooze_between_planning_and_acting_is_heard(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cycle has read the finding; before it writes, a person speaks."""
    ref = small.machine()
    small.cycle()

    def slow(**world: Any) -> Plan:
        with small.speaking(ref) as (session, finding, now):
            if finding.status == "warned":
                people.snooze(session, finding, until=now + hours(3), reason="wait", by=LEAD, now=now)
        return plan(**world)

    monkeypatch.setattr("service.pipeline.decide.plan", slow)
    small.cycle(after=minutes(30))
    small.cycle(after=minutes(5))
    assert small.stops == []
    assert small.finding(ref).status == "snoozed"


# --- undo -------------------------------------------------------------------------------------------------------------


def undone(here: Company, ref: ResourceRef) -> None:
    here.cycle(after=minutes(1))
    here.cycle(after=minutes(2))
    assert [a.status for a in here.actions()] == ["undone", "verified"]
    assert here.resource(ref).state == "running"
    assert len([act for act in here.cloud.acts if act.verb == "start" and act.changed]) == 1


def test_undo_asked_for_twice_is_done_once(small: Company) -> None:
    ref, action = stopped(small)
    assert small.undo(action.id).id == small.undo(action.id, by="token:other").id
    undone(small, ref)
    with pytest.raises(NotPossible, match="undone"):
        small.undo(action.id)


def test_undo_keeps_trying_while_there_is_no_capacity(small: Company) -> None:
    ref, action = stopped(small)
    failure = small.cloud.fail(NoCapacity("no p5 left"), "restore")
    small.undo(action.id)
    for _ in range(3):
        small.cycle(after=hours(3))
    assert small.actions()[1].error == "no p5 left"
    small.cloud.heal(failure)
    undone(small, ref)


def test_undo_gives_up_in_the_end_and_says_so(small: Company) -> None:
    _, action = stopped(small)
    small.cloud.fail(NoCapacity("no p5 left"), "restore")
    small.undo(action.id)
    small.cycle(after=hours(47))
    assert small.actions()[1].status == "intended"
    small.cycle(after=hours(2))
    assert small.actions()[1].status == "abandoned"
    assert {row.channel for row in small.told("failed")} == {"mail:lead@example.org", "mail:mai@example.org"}
    assert small.undo(action.id).status == "intended"  # and may be asked for again


def test_undo_while_it_is_still_stopping_waits_for_that(small: Company) -> None:
    small.cloud.transition = minutes(10)
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(30))
    [action] = small.actions()
    assert action.status == "taken"
    small.undo(action.id)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(8))
    assert small.resource(ref).state == "stopping"
    small.cycle(after=minutes(2))
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(11))
    assert [a.status for a in small.actions()] == ["undone", "verified"]
    assert small.resource(ref).state == "running"


def test_undo_of_a_stop_that_takes_its_time_does_not_come_before_it(small: Company) -> None:
    """The cloud accepted the stop and shows nothing of it yet; calling it back now could end either way."""
    ref = small.machine(stubborn=True)
    small.cycle()
    small.cycle(after=minutes(30))
    [action] = small.actions()
    small.undo(action.id)
    small.cycle(after=minutes(1))
    assert [a.status for a in small.actions()] == ["taken", "intended"]
    small.cloud.machines[ref.external_id].stubborn = False
    small.cloud.stop(ref.external_id)
    small.cycle(after=minutes(2))
    undone(small, ref)


def test_a_conflict_is_no_end_of_an_undo(small: Company) -> None:
    ref, action = stopped(small)
    small.cloud.fail(Conflict("somebody is at work on it"), "restore", times=1)
    small.undo(action.id)
    small.cycle(after=minutes(1))
    assert small.actions()[1].status == "intended"
    undone(small, ref)


def test_undo_after_a_person_restarted_it_is_refused(small: Company) -> None:
    ref, action = stopped(small)
    small.cloud.start(ref.external_id)
    small.cycle(after=minutes(2))
    with pytest.raises(NotPossible, match="runs again already"):
        small.undo(action.id)


def test_an_undo_does_not_start_what_a_person_started_and_stopped_since(small: Company) -> None:
    ref, action = stopped(small)
    small.cloud.fail(NoCapacity("no p5 left"), "restore", times=1)
    small.undo(action.id)
    small.cycle(after=minutes(1))
    small.cloud.start(ref.external_id)
    with small.cloud.failing(Unreachable("no answer"), "describe"):
        small.cycle(after=minutes(2))
    small.cloud.stop(ref.external_id)
    small.cycle(after=minutes(2))
    assert small.actions()[1].status == "abandoned"
    assert small.resource(ref).state == "stopped"


def test_an_undo_of_what_is_gone_is_given_up_and_said(small: Company) -> None:
    ref, action = stopped(small)
    small.undo(action.id)
    small.cloud.vanish(ref.external_id)
    small.cycle(after=minutes(1))
    assert small.actions()[1].status == "abandoned"
    assert small.told("failed")


def test_what_was_terminated_cannot_be_put_back(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "action": "terminate", "accept_loss": ["terminate", "local_disks"]})
    ref, action = stopped(small)
    assert small.resource(ref).state == "terminated"
    with pytest.raises(NotPossible, match="cannot be put back"):
        small.undo(action.id)


# --- a person restarts it ---------------------------------------------------------------------------------------------


def test_what_a_person_restarts_is_closed_left_alone_and_saves_nothing_more(small: Company) -> None:
    ref, action = stopped(small)
    small.clock.forward(hours(1))
    small.cloud.start(ref.external_id)
    restarted = small.clock.now()
    small.cycle(after=minutes(2))
    [action] = small.actions()
    assert action.resumed_at == restarted
    assert small.finding(ref).status == "closed"
    assert small.resource(ref).restarted_at == restarted
    small.cycle(after=hours(2))
    assert "cool-down" in small.finding(ref).status_reason
    small.cycle(after=hours(2))
    assert small.finding(ref).status == "warned"
    assert len(small.stops) == 1


def test_a_listing_that_lags_behind_ends_no_saving(small: Company) -> None:
    ref, _ = stopped(small)
    inventory = small.rt.fleet.get(SOURCE).inventory  # type: ignore[union-attr]
    listing = inventory.list  # type: ignore[union-attr]
    machine = small.cloud.machines[ref.external_id]
    history, machine.history = machine.history, machine.history[:1]
    stale = listing()
    machine.history = history
    inventory.list = lambda: stale  # type: ignore[union-attr, method-assign]
    small.cycle(after=minutes(1))
    inventory.list = listing  # type: ignore[union-attr, method-assign]
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert action.resumed_at is None


def test_a_region_that_fails_after_the_act_closes_nothing(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(30))
    with small.cloud.failing(Unreachable("no answer"), "list"):
        small.cycle(after=minutes(2))  # verified by asking for it alone
        small.cycle(after=minutes(2))  # listed last when it ran
    assert small.finding(ref).status == "enforced"
    assert small.actions()[0].resumed_at is None


# --- holds ------------------------------------------------------------------------------------------------------------


def hold(here: Company, length: timedelta | None = None, project: str | None = None) -> None:
    with here.rt.database.transaction() as session:
        now = here.clock.now()
        until = None if length is None else now + length
        people.hold(session, project=project, until=until, reason="a visit", by=LEAD, now=now)


HOLDS = {
    "lifted by a person": (None, None),
    "of the project, lifted by a person": (None, "vision"),
    "that ran out": (hours(2), None),
    "of the project that ran out": (hours(2), "vision"),
}


@pytest.mark.parametrize("sentence", HOLDS)
def test_after_a_hold_there_is_a_fresh_warning_and_grace(small: Company, sentence: str) -> None:
    length, project = HOLDS[sentence]
    ref = small.machine()
    small.cycle()
    hold(small, length, project)
    small.cycle(after=hours(1))
    assert small.finding(ref).status == "due"
    if length is None:
        with small.rt.database.transaction() as session:
            people.lift(session, project=project, by=LEAD, now=small.clock.now())
        small.cycle(after=minutes(1))
    else:
        small.cycle(after=hours(1))
    assert small.finding(ref).status == "warned"
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_a_hold_set_after_the_plan_was_made_is_heard(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = small.machine()
    small.cycle()
    look_again = recheck.look_again

    def slow(*args: Any, **more: Any) -> recheck.Fresh:
        hold(small)
        return look_again(*args, **more)

    monkeypatch.setattr(recheck, "look_again", slow)
    small.cycle(after=minutes(30))
    assert small.stops == []
    assert "everything is on hold: a visit" in small.finding(ref).status_reason.lower()


def test_an_undo_is_done_even_under_a_hold(small: Company) -> None:
    ref, action = stopped(small)
    hold(small)
    small.undo(action.id)
    undone(small, ref)


# --- what a person asks for that makes no sense -----------------------------------------------------------------------


def test_what_is_not_possible_says_why(small: Company) -> None:
    ref, action = stopped(small)
    with small.rt.database.transaction() as session:
        finding = session.get_one(Finding, small.finding(ref).id)
        now = small.clock.now()
        with pytest.raises(NotPossible, match="waits for no approval"):
            people.approve(session, finding, by=LEAD, now=now)
    small.undo(action.id)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(2))
    with small.rt.database.transaction() as session:
        finding = session.get_one(Finding, finding.id)
        for act in (people.approve, people.stop_now):
            with pytest.raises(NotPossible, match="this finding ended"):
                act(session, finding, by=LEAD, now=now)
        with pytest.raises(NotPossible, match="not in the future"):
            people.hold(session, project=None, until=now, reason="x", by=LEAD, now=now)
    with pytest.raises(NotPossible, match="this is an undo itself"):
        small.undo(small.actions()[1].id)
