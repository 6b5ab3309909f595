"""What becomes of acts: accepted and never effective, answers lost, sources gone, intents left over, clocks set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from providers import simulated
from providers.contract import Provider
from providers.errors import Conflict, Forbidden, NoCapacity, Protected, Throttled, Unreachable
from providers.records import ResourceRecord, ResourceRef, State
from providers.simulated.activity import Busy, Idle, Until
from providers.simulated.actuator import SimulatedActuator
from providers.simulated.cloud import SimulatedCloud
from providers.simulated.inventory import SimulatedInventory
from providers.simulated.telemetry import SimulatedTelemetry
from service import people
from service.explain import explain
from service.people import Person
from tests.spine.company import ENFORCING, SOURCE, Company, hours, minutes

LEAD = Person(actor="token:lead")


def acted(here: Company, **more: Any) -> ResourceRef:
    """Warned about, and the call made."""
    ref = here.machine(**more)
    here.cycle()
    here.cycle(after=minutes(30))
    return ref


# --- acts that do not go as they should -------------------------------------------------------------------------------


def test_an_act_without_effect_has_failed_after_half_an_hour_and_people_are_told(small: Company) -> None:
    ref = acted(small, stubborn=True)
    small.cycle(after=minutes(30))
    assert small.actions()[0].status == "taken"
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert (action.status, action.error) == ("failed", "after 30m the cloud still shows it running")
    finding = small.finding(ref)
    assert finding.status == "refused"
    assert finding.status_reason == "The act had no effect: after 30m the cloud still shows it running."
    assert {row.channel for row in small.told("failed")} == {"mail:lead@example.org", "mail:mai@example.org"}


def test_an_act_that_the_cloud_accepts_and_cannot_carry_out_has_failed_at_once_with_its_reason(small: Company) -> None:
    ref = acted(small, fails_late=Conflict("its disk is being snapshotted"))
    small.cycle(after=minutes(1))
    [action] = small.actions()
    why = "the cloud accepted it and failed later: its disk is being snapshotted"
    assert (action.status, action.error) == ("failed", why)
    assert small.finding(ref).status == "refused"
    assert small.finding(ref).status_reason == f"The act had no effect: {why}."
    assert {row.channel for row in small.told("failed")} == {"mail:lead@example.org", "mail:mai@example.org"}


def test_what_failed_late_but_shows_all_the_same_has_not_failed(small: Company) -> None:
    ref = acted(small, stubborn=True)
    small.cloud.failed_late[small.actions()[0].id] = Conflict("its disk is being snapshotted")
    small.cloud.stop(ref.external_id)
    small.cycle(after=minutes(10))
    assert small.actions()[0].status == "verified"


def test_an_undo_that_the_cloud_has_no_room_for_in_the_end_has_failed(small: Company) -> None:
    ref = acted(small)
    small.cycle(after=minutes(10))
    small.cloud.machines[ref.external_id].fails_late = NoCapacity("the zone has none of these machines left")
    small.undo(small.actions()[0].id)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(1))
    undo = next(action for action in small.actions() if action.undoes)
    why = "the cloud accepted it and failed later: the zone has none of these machines left"
    assert (undo.status, undo.error) == ("failed", why)


def test_and_is_tried_again_only_after_a_fresh_warning(small: Company) -> None:
    ref = acted(small, stubborn=True)
    small.cycle(after=minutes(31))
    small.cloud.machines[ref.external_id].stubborn = False
    small.cycle(after=minutes(59))
    assert small.finding(ref).status == "refused"
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(1))
    assert small.finding(ref).status == "warned"
    assert small.stops == []
    small.cycle(after=minutes(30))
    assert len(small.stops) == 1


def test_an_act_that_never_comes_to_its_end_is_not_waited_for_without_end(small: Company) -> None:
    small.cloud.transition = hours(1000)
    acted(small)
    small.cycle(after=hours(24))
    assert small.actions()[0].status == "taken"
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert (action.status, action.error) == ("failed", "after 1d the cloud still shows it stopping")


def test_what_has_taken_a_machines_name_neither_undoes_nor_resumes_it(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are used again: what answers by one may be another machine, that somebody made since."""
    ref = acted(small)
    small.cycle(after=minutes(10))
    small.cloud.machines[ref.external_id].stubborn = True
    undo = small.undo(small.actions()[0].id)
    small.cycle(after=minutes(1))
    assert [action.status for action in small.actions() if action.undoes] == ["taken"]
    described = SimulatedInventory.describe

    def another(inventory: SimulatedInventory, asked: ResourceRef) -> ResourceRecord:
        record = replace(described(inventory, asked), incarnation="another", state=State.RUNNING)
        return replace(record, launched_at=small.clock.now())

    monkeypatch.setattr(SimulatedInventory, "describe", another)
    small.cycle(after=minutes(1))
    assert [(action.id, action.status) for action in small.actions() if action.undoes] == [(undo.id, "taken")]
    small.cycle(after=minutes(30))
    [failed] = [action for action in small.actions() if action.undoes]
    assert (failed.status, failed.error) == ("failed", "after 30m the cloud still shows it terminated")


def test_an_act_that_takes_its_time_has_not_failed(small: Company) -> None:
    small.cloud.transition = hours(2)
    ref = acted(small)
    small.cycle(after=hours(1))
    assert small.actions()[0].status == "taken"
    small.cycle(after=hours(1.1))
    assert small.actions()[0].status == "verified"
    assert small.finding(ref).status == "enforced"


def test_an_act_that_cannot_be_read_back_stays_open(small: Company) -> None:
    ref = acted(small)
    with small.cloud.failing(Forbidden("no permission"), "describe"):
        small.cycle(after=hours(1))
        assert small.actions()[0].status == "taken"
    small.cycle(after=minutes(1))
    assert small.finding(ref).status == "enforced"


def test_an_act_of_a_source_that_was_deleted_since_does_not_stay_open_for_ever(small: Company) -> None:
    acted(small)
    small.delete("source", SOURCE)
    small.cycle(after=minutes(31))
    [action] = small.actions()
    assert (action.status, action.error) == ("failed", "after 30m its source is gone, so nobody can tell")


def test_another_account_behind_the_source_verifies_nothing(small: Company) -> None:
    ref = acted(small)
    account, small.cloud.account = small.cloud.account, "999999999999"
    small.cycle(after=minutes(2))
    assert small.actions()[0].status == "taken"
    small.cloud.account = account
    small.cycle(after=minutes(2))
    assert small.finding(ref).status == "enforced"


def test_terminated_is_not_what_was_only_stopped(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "action": "terminate", "accept_loss": ["terminate", "local_disks"]})
    ref = small.machine(stubborn=True)
    small.cycle()
    small.cycle(after=minutes(30))
    small.cloud.stop(ref.external_id)
    small.cycle(after=minutes(5))
    assert small.actions()[0].status == "taken"


def test_two_policies_on_one_machine_act_once_and_the_milder_first(small: Company) -> None:
    sterner = {"name": "sterner", "action": "terminate", "accept_loss": ["terminate", "local_disks"]}
    small.document("policy", **{**ENFORCING, **sterner})
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(30))
    assert [act.verb for act in small.stops] == ["stop"]
    assert small.finding(ref, "sterner").status_reason == "Policy idle-gpus acts on it first."
    small.cycle(after=minutes(2))
    assert small.finding(ref, "sterner").status == "cleared"
    assert len(small.stops) == 1


UNFORESEEN: dict[str, tuple[type, str]] = {
    "describing": (SimulatedInventory, "describe"),
    "sampling": (SimulatedTelemetry, "samples"),
    "remembering": (SimulatedActuator, "remember"),
    "acting": (SimulatedActuator, "act"),
}


@pytest.mark.parametrize("sentence", UNFORESEEN)
def test_what_nobody_foresaw_on_one_machine_sinks_no_other(
    sentence: str, small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name = UNFORESEEN[sentence]
    bad, good = small.machine("bad"), small.machine("good")
    small.cycle()
    call = getattr(part, name)

    def breaks(self: object, what: Any, *args: Any, **more: Any) -> Any:
        spoken = what if isinstance(what, list) else [what]
        if len(spoken) == 1 and bad.external_id in repr(spoken):
            raise ZeroDivisionError("nobody thought of this")
        return call(self, what, *args, **more)

    monkeypatch.setattr(part, name, breaks)
    assert small.cycle(after=minutes(30)).error is None
    assert [act.external_id for act in small.stops] == [good.external_id]
    small.cycle(after=minutes(2))
    assert small.finding(good).status == "enforced"
    if sentence != "acting":
        assert "failed unexpectedly" in small.finding(bad).status_reason


def test_what_nobody_foresaw_when_a_refusal_is_asked_again_sinks_nothing(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = small.machine("refused", locked=True)
    small.cycle()
    small.cycle(after=minutes(30))
    assert small.finding(refused).status == "refused"
    other = small.machine("other")
    small.cycle(after=minutes(1))
    describe = SimulatedInventory.describe

    def breaks(self: SimulatedInventory, ref: ResourceRef) -> Any:
        if ref == refused:
            raise ZeroDivisionError("nobody thought of this")
        return describe(self, ref)

    monkeypatch.setattr(SimulatedInventory, "describe", breaks)
    assert small.cycle(after=hours(1)).error is None
    assert [act.external_id for act in small.stops] == [other.external_id]


# --- an intent that was left over -------------------------------------------------------------------------------------


def left_over(here: Company) -> ResourceRef:
    """The intent is stored and the call did not reach the cloud."""
    ref = here.machine()
    here.cycle()
    here.cloud.fail(Throttled("too often"), "act", times=1)
    here.cycle(after=minutes(30))
    assert [action.status for action in here.actions()] == ["intended"]
    return ref


def edited(here: Company, ref: ResourceRef) -> None:
    here.document("policy", **{**ENFORCING, "mode": "observe"})


def made_stricter(here: Company, ref: ResourceRef) -> None:
    here.document("policy", **{**ENFORCING, "grace": "1h"})


def deleted(here: Company, ref: ResourceRef) -> None:
    here.delete("policy", "idle-gpus")


def capped(here: Company, ref: ResourceRef) -> None:
    here.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws", ceiling="warn")


def exempted(here: Company, ref: ResourceRef) -> None:
    here.document("exemption", name="demo", projects=["vision"], until="2026-11-20T00:00:00Z", reason="the demo")


def held(here: Company, ref: ResourceRef) -> None:
    with here.rt.database.transaction() as session:
        people.hold(session, project=None, until=None, reason="a visit", by=LEAD, now=here.clock.now())


def moved(here: Company, ref: ResourceRef) -> None:
    here.cloud.machines[ref.external_id].tags["project"] = "another"


def protected(here: Company, ref: ResourceRef) -> None:
    here.cloud.machines[ref.external_id].locked = True


def restarted(here: Company, ref: ResourceRef) -> None:
    here.cloud.machines[ref.external_id].launched_at = here.clock.now()


def busied(here: Company, ref: ResourceRef) -> None:
    here.cloud.machines[ref.external_id].activity = Until(moment=here.clock.now(), first=Idle(), then=Busy())
    here.clock.forward(minutes(3))


def silenced(here: Company, ref: ResourceRef) -> None:
    here.cloud.fail(Unreachable("no answer"), "samples")


ABANDONED: dict[str, tuple[Callable[[Company, ResourceRef], None], str]] = {
    "its policy only observes now": (edited, "its policy was changed in the meantime"),
    "its policy was changed": (made_stricter, "its policy was changed in the meantime"),
    "its policy was deleted": (deleted, "its policy no longer exists"),
    "its source only warns now": (capped, "the ceiling is warn now"),
    "it is exempt now": (exempted, "it is exempt now: the demo"),
    "it is held now": (held, "Everything is on hold until somebody lifts it: a visit"),
    "another project pays for it now": (moved, "its project is none now, it was vision"),
    "it is protected now": (protected, "It is protected: its cloud refuses to stop it (disableApiStop)"),
    "it was restarted": (restarted, "it was restarted or changed in the meantime"),
    "it is busy now": (busied, "a second look says ok: 8 of 8 H100 were busy"),
    "its telemetry fails now": (silenced, "a second look says unknown"),
}


@pytest.mark.parametrize("sentence", ABANDONED)
def test_an_intent_left_over_is_not_carried_out_when(sentence: str, small: Company) -> None:
    change, why = ABANDONED[sentence]
    ref = left_over(small)
    small.clock.forward(minutes(1))
    change(small, ref)
    small.restart()
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert action.status == "abandoned"
    assert why in (action.error or "")
    assert small.stops == []
    assert small.finding(ref).warned_at is None or small.finding(ref).warned_at == small.clock.now()
    small.cycle(after=minutes(20))
    assert small.stops == []


def test_an_intent_left_over_is_carried_out_when_all_is_as_it_was(small: Company) -> None:
    left_over(small)
    small.restart()
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1
    assert [action.status for action in small.actions()] == ["taken"]


def test_an_intent_older_than_a_grace_is_given_up_and_its_finding_warned_about_anew(small: Company) -> None:
    ref = left_over(small)
    small.cloud.fail(Unreachable("no answer"), "describe")
    small.cycle(after=minutes(29))
    assert small.actions()[0].status == "intended"
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert (action.status, action.error) == ("abandoned", "it could not be read back: no answer")
    small.cloud.heal()
    small.cycle(after=minutes(1))
    assert small.finding(ref).status == "warned"
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_an_intent_that_had_its_effect_is_taken_whatever_its_age(small: Company) -> None:
    ref = left_over(small)
    small.cloud.stop(ref.external_id)
    small.cycle(after=hours(5))
    assert small.actions()[0].status == "verified"
    assert small.finding(ref).status == "enforced"


def test_an_intent_for_what_is_gone_is_given_up(small: Company) -> None:
    ref = left_over(small)
    small.cloud.vanish(ref.external_id)
    small.cycle(after=minutes(1))
    assert (small.actions()[0].status, small.actions()[0].error) == ("abandoned", "the resource no longer exists")


def test_a_termination_whose_answer_was_lost_is_known_by_what_is_gone(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "action": "terminate", "accept_loss": ["terminate", "local_disks"]})
    ref = left_over(small)
    small.cloud.vanish(ref.external_id)
    small.cycle(after=minutes(1))
    assert small.actions()[0].status == "verified"


# --- refused at the second look ---------------------------------------------------------------------------------------


def test_what_only_a_full_description_forbids_is_asked_again_once_an_hour(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = small.machine(locked=True)
    small.cycle()
    small.cycle(after=minutes(30))
    assert small.finding(ref).status == "refused"
    asked = []
    describe = SimulatedInventory.describe

    def counted(self: SimulatedInventory, ref: ResourceRef) -> Any:
        asked.append(small.clock.now())
        return describe(self, ref)

    monkeypatch.setattr(SimulatedInventory, "describe", counted)
    small.cycles(hours(3), every=minutes(20))
    assert len(asked) == 3
    assert small.cloud.acts == []
    assert len(small.told("warning")) == 2


def test_once_it_is_gone_there_is_a_fresh_warning(small: Company) -> None:
    ref = small.machine(locked=True)
    small.cycle()
    small.cycle(after=minutes(30))
    small.cloud.machines[ref.external_id].locked = False
    small.cycle(after=hours(1))
    small.cycle(after=minutes(1))
    assert small.finding(ref).status == "warned"
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_a_machine_refused_by_its_cloud_is_not_asked_for_every_minute(small: Company) -> None:
    small.machine()
    small.cycle()
    small.cloud.fail(Protected("disableApiStop is set"), "act")
    small.cycles(minutes(80), every=minutes(10))
    assert len(small.cloud.acts) == 1


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_the_clock_set_ahead_an_hour_stops_nothing_that_nobody_sampled(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cloud.lag = hours(1)  # the samples are those of the real hour
    small.cycle(after=hours(1))
    assert small.stops == []
    assert small.finding(ref).status == "warned"


def test_the_clock_set_back_an_hour_starts_the_grace_anew(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(20))
    small.clock.forward(-hours(1))
    small.cycle()
    assert small.stops == []
    assert small.finding(ref).due_at == small.clock.now() + minutes(30)
    small.cycle(after=minutes(29))
    assert small.stops == []
    small.cycle(after=minutes(1))
    assert len(small.stops) == 1


def test_a_stop_before_the_clock_was_set_back_is_verified_all_the_same(small: Company) -> None:
    ref = acted(small)
    small.cycle(after=minutes(2))
    small.clock.forward(-hours(1))
    for _ in range(3):
        assert small.cycle(after=minutes(30)).error is None
    assert len(small.stops) == 1
    assert small.finding(ref).status in ("enforced", "closed")


# --- what the second look knows ---------------------------------------------------------------------------------------


def test_a_policy_that_asks_for_long_idleness_acts_although_a_second_look_sees_only_its_window(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "idle": {"for": "45m", "when": "idle_seconds > 7200"}})
    small.machine()
    small.cycles(hours(4), every=minutes(15))
    assert len(small.stops) == 1


def test_and_not_where_nobody_looked_in_between(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "idle": {"for": "45m", "when": "idle_seconds > 7200"}})
    now = small.clock.now()
    in_between = Until(moment=now + minutes(80), first=Busy(), then=Idle())
    work = Until(moment=now + minutes(70), first=Idle(), then=in_between)
    small.machine(activity=work)
    small.cycle()
    small.cycle(after=minutes(60))  # idle for 2h already
    small.cycle(after=minutes(120))  # busy in between, and nobody looked
    told = explain(small.rt, small.named("trainer"))
    assert told is not None
    assert told["policies"][0]["verdict"] == "ok"


def test_two_sources_that_contradict_each_other_stop_nothing(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second source has telemetry only, and says that the GPUs work; whichever is asked last, it counts."""
    ref = small.machine()
    machine = small.cloud.machines[ref.external_id]
    other = SimulatedCloud(small.clock.now, provider="aws", account="123456789012")
    other.add(replace(machine, activity=Busy()))
    simulated.clouds["metrics"] = other
    small.document("source", name="metrics", provider="simulated", company="demo", cloud="aws")
    built = simulated.provider_of

    def telemetry_only(cloud: SimulatedCloud) -> Provider:
        provider = built(cloud)
        return replace(provider, inventory=None, actuator=None, prices=None) if cloud is other else provider

    monkeypatch.setattr(simulated, "provider_of", telemetry_only)
    small.cycle()
    small.cycle(after=minutes(31))
    simulated.forget("metrics")
    assert (small.stops, small.findings()) == ([], [])
