"""Machines that must stay untouched, each for a reason that anybody who asks is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from providers.errors import Forbidden, Protected, Throttled, Unreachable, Unsupported
from providers.records import Blocker, ResourceRef, State, Verb
from providers.simulated.activity import Busy, Idle, Silent, Spare, Thin, Until
from service import people
from service.clock import SetClock
from service.explain import explain
from service.people import Person
from tests.spine.company import ENFORCING, SOURCE, Company, hours, minutes, small_company

LEAD = Person(actor="token:lead")
Scenario = Callable[[Company], ResourceRef]


@dataclass(frozen=True)
class Case:
    arranged: Scenario
    says: str
    """What whoever asks is told."""
    settings: dict[str, str]


CASES: dict[str, Case] = {}


def untouched(sentence: str, says: str, **settings: str) -> Callable[[Scenario], Scenario]:
    def keep(scenario: Scenario) -> Scenario:
        CASES[sentence] = Case(scenario, says, settings)
        return scenario

    return keep


def past_grace(here: Company) -> None:
    """Warned, half an hour over, and twice more."""
    here.cycle()
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(5))
    here.cycle(after=minutes(5))


# --- what is on it ----------------------------------------------------------------------------------------------------


@untouched("stop protection that only a full description shows", "its cloud refuses to stop it (disableApiStop)")
def _(here: Company) -> ResourceRef:
    ref = here.machine(locked=True)
    past_grace(here)
    assert here.finding(ref).status == "refused"
    return ref


@untouched("tagged curfew-protect", "It is protected: its tag curfew-protect is 'until we are done'")
def _(here: Company) -> ResourceRef:
    ref = here.machine(tags={"project": "vision", "curfew-protect": "until we are done"})
    past_grace(here)
    return ref


@untouched("protected a moment before it is acted on", "It is protected: its tag curfew-protect")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.cloud.machines[ref.external_id].locked = True
    here.cycle(after=minutes(31))
    here.cloud.machines[ref.external_id].locked = False
    here.cloud.machines[ref.external_id].tags["curfew-protect"] = "yes"
    here.cycle(after=minutes(70))
    return ref


@untouched("exempt", "Exempt until 2026-11-20T00:00:00+00:00: the demo")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.document("exemption", name="demo", projects=["vision"], until="2026-11-20T00:00:00Z", reason="the demo")
    past_grace(here)
    return ref


@untouched("exempted during its grace", "Exempt until")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.document("exemption", name="demo", resources=["trainer"], until="2026-11-20T00:00:00Z", reason="the demo")
    here.cycle(after=minutes(31))
    return ref


@untouched("a member of a scaling group", "It is a member of autoscaling:trainers")
def _(here: Company) -> ResourceRef:
    ref = here.machine(managed_by="autoscaling:trainers")
    past_grace(here)
    return ref


@untouched("local disks that nobody accepted to lose", "That needs accept_loss: [local_disks].")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "accept_loss": []})
    ref = here.machine()
    past_grace(here)
    return ref


@untouched("a one-time spot request", "It is a one-time spot request")
def _(here: Company) -> ResourceRef:
    blocker = Blocker(verb=Verb.STOP, code="OneTimeSpot", sentence="It is a one-time spot request; it cannot stop.")
    ref = here.machine(blockers=(blocker,))
    past_grace(here)
    return ref


@untouched("of another project", "Out of scope: project is nlp, and the policy speaks of vision.")
def _(here: Company) -> ResourceRef:
    here.document("project", name="nlp", match=[{"tags": {"project": "nlp"}}])
    ref = here.machine(tags={"project": "nlp"})
    past_grace(here)
    return ref


@untouched("claimed by two projects", "Out of scope: project is not known, and the policy speaks of vision.")
def _(here: Company) -> ResourceRef:
    here.document("project", name="nlp", match=[{"sources": [SOURCE]}])
    ref = here.machine()
    past_grace(here)
    return ref


# --- what it does -----------------------------------------------------------------------------------------------------


@untouched("busy", "8 of 8 H100 were busy in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine(activity=Busy())
    past_grace(here)
    return ref


@untouched("silent", "8 of 8 H100 sent no samples in the last 45m: unknown is never idle.")
def _(here: Company) -> ResourceRef:
    ref = here.machine(activity=Silent())
    past_grace(here)
    return ref


@untouched("with thin telemetry", "sent too few samples in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine(activity=Thin())
    past_grace(here)
    return ref


@untouched("with one silent GPU of eight", "1 of 8 H100 sent no samples in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine(activity=Spare(devices=frozenset({7}), others=Idle(), spare=Silent()))
    past_grace(here)
    return ref


@untouched("whose series match another machine too", "Nothing is known of its GPUs in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine(ambiguous=True)
    past_grace(here)
    return ref


@untouched("whose telemetry fails", "8 of 8 H100 sent no samples in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    with here.cloud.failing(Throttled("too often"), "samples"):
        past_grace(here)
    return ref


@untouched(
    "whose telemetry fails when it is due", "8 of 8 H100 sent no samples in the last 45m: unknown is never idle."
)
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.cycle(after=minutes(29))
    here.cloud.fail(Unreachable("no answer"), "samples")
    here.cycle(after=minutes(1))  # the cycle remembers samples; right before acting it asks anew
    assert "a second look says unknown" in here.finding(ref).status_reason
    return ref


@untouched("that becomes busy right before it is acted on", "a second look says ok: 8 of 8 H100 were busy")
def _(here: Company) -> ResourceRef:
    begins = here.clock.now() + minutes(29)
    here.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws", telemetry_interval="20m")
    ref = here.machine(activity=Until(moment=begins, first=Idle(), then=Busy()))
    here.cycle()
    here.cycle(after=minutes(20))
    here.cycle(after=minutes(10))  # too early to ask for telemetry again; the machine began to work this minute
    return ref


@untouched("just started", "sent too few samples in the last 45m")
def _(here: Company) -> ResourceRef:
    ref = here.machine(launched_at=here.clock.now() - minutes(15))
    past_grace(here)
    return ref


@untouched("restarted by a person during its grace", "is left alone until 2026-11-16T13:12:00+00:00 (cool-down)")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.cloud.stop(ref.external_id, here.clock.now() + minutes(5))
    here.cloud.start(ref.external_id, here.clock.now() + minutes(10))
    here.cycle(after=minutes(7))
    here.cycle(after=minutes(5))
    here.cycle(after=hours(2))
    here.cycle(after=hours(1.5))
    return ref


@untouched("restarted between the listing and the second look", "it was restarted in the meantime")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    inventory = here.rt.fleet.get(SOURCE).inventory  # type: ignore[union-attr]
    listed = inventory.list()  # type: ignore[union-attr]
    here.clock.forward(minutes(31))
    inventory.list = lambda: listed  # type: ignore[union-attr, method-assign]
    here.cloud.machines[ref.external_id].launched_at = here.clock.now() - minutes(1)
    here.cycle()
    return ref


@untouched("stopped by a person before it was due", "It is stopped: only what runs can be idle.")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.cloud.stop(ref.external_id)
    here.cycle(after=minutes(31))
    assert here.finding(ref).status == "cleared"
    return ref


# --- who may ----------------------------------------------------------------------------------------------------------


@untouched("in an installation that observes", "this installation's ceiling is observe", ceiling="observe")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    past_grace(here)
    assert here.outbox() == []
    return ref


@untouched("in an installation that warns", "this installation's ceiling is warn", ceiling="warn")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    past_grace(here)
    assert here.finding(ref).status == "warned"
    return ref


@untouched("seen through a source that only warns", "the ceiling of source research is warn")
def _(here: Company) -> ResourceRef:
    here.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws", ceiling="warn")
    ref = here.machine()
    past_grace(here)
    return ref


@untouched("where nobody could answer a warning", "Without a usable CURFEW_PUBLIC_URL", public_url="")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    past_grace(here)
    return ref


@untouched("under a policy that only notifies", "The policy only notifies.")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "action": "notify"})
    ref = here.machine()
    past_grace(here)
    assert here.told("warning")
    return ref


@untouched("under a policy that observes", "The policy's mode is observe: nothing is said or done.")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "mode": "observe"})
    ref = here.machine()
    past_grace(here)
    return ref


@untouched("that waits for approval", "Waits for a person's approval.")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "approval": "required"})
    ref = here.machine()
    past_grace(here)
    return ref


@untouched("whose people nobody could tell", "Its warning has not been delivered yet.")
def _(here: Company) -> ResourceRef:
    here.postman.dead = True
    ref = here.machine()
    for _ in range(3):
        here.cycle(after=hours(24))
    return ref


@untouched("that has no people at all", "Its warning has not been delivered yet.")
def _(here: Company) -> ResourceRef:
    here.document("project", name="vision", match=[{"tags": {"project": "vision"}}])
    ref = here.machine(tags={"project": "vision"})
    past_grace(here)
    return ref


@untouched("kept by its people", "Kept until 2026-11-16T12:00:00+00:00 by token:lead: we train tonight")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    with here.speaking(ref) as (session, finding, now):
        people.snooze(session, finding, until=now + hours(3), reason="we train tonight", by=LEAD, now=now)
    here.cycles(hours(2.5), every=minutes(75))
    return ref


@untouched("dismissed by its people", "Dismissed by token:lead: it serves a demo")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    with here.speaking(ref) as (session, finding, now):
        people.dismiss(session, finding, reason="it serves a demo", by=LEAD, now=now)
    here.cycles(hours(6), every=hours(3))
    return ref


@untouched("held", "Everything is on hold until somebody lifts it: the board visits")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    with here.rt.database.transaction() as session:
        people.hold(session, project=None, until=None, reason="the board visits", by=LEAD, now=here.clock.now())
    here.cycle(after=minutes(31))
    here.cycle(after=hours(9))
    return ref


@untouched("of a project that is held", "Project vision is on hold until 2026-11-16T21:00:00+00:00: a deadline")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    with here.rt.database.transaction() as session:
        until = here.clock.now() + hours(12)
        people.hold(session, project="vision", until=until, reason="a deadline", by=LEAD, now=here.clock.now())
    past_grace(here)
    return ref


# --- what changed in between ------------------------------------------------------------------------------------------


@untouched("whose policy was edited during its grace", "Warned; acts at 2026-11-16T11:31:00+00:00 unless somebody")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.clock.forward(minutes(20))
    here.document("policy", **{**ENFORCING, "grace": "2h"})
    here.cycle(after=minutes(11))
    here.cycle(after=minutes(5))
    return ref


@untouched("whose policy was edited while nobody could be told", "Warned; acts at 2026-11-16T11:40:00+00:00 unless")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.postman.dead = True
    here.cycle()
    here.clock.forward(minutes(1))
    here.document("policy", **{**ENFORCING, "grace": "2h"})
    here.postman.dead = False
    here.cycle(after=minutes(39))  # what was waiting to be sent said 30 minutes
    here.cycle(after=minutes(31))
    assert {row.status for row in here.outbox()} == {"delivered", "withdrawn"}
    return ref


@untouched("whose project changed during its grace", "Warned; acts at 2026-11-16T10:01:00+00:00 unless somebody")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "scope": {}})
    here.document("project", name="nlp", owners=["nlp@example.org"], match=[{"tags": {"project": "nlp"}}])
    ref = here.machine()
    here.cycle()
    here.cloud.machines[ref.external_id].tags["project"] = "nlp"
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(5))
    assert {row.channel for row in here.told("warning")} >= {"mail:lead@example.org", "mail:nlp@example.org"}
    return ref


@untouched("whose project changed right before it was acted on", "its project is none now, it was vision")
def _(here: Company) -> ResourceRef:
    here.document("policy", **{**ENFORCING, "scope": {}})
    ref = here.machine()
    here.cycle()
    inventory = here.rt.fleet.get(SOURCE).inventory  # type: ignore[union-attr]
    listed = inventory.list()  # type: ignore[union-attr]
    inventory.list = lambda: listed  # type: ignore[union-attr, method-assign]
    here.cloud.machines[ref.external_id].tags["project"] = "another"
    here.cycle(after=minutes(31))
    return ref


@untouched("whose policy was deleted", "Its policy no longer exists.")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.delete("policy", "idle-gpus")
    here.cycle(after=minutes(31))
    return ref


@untouched("whose source was deleted", "Its source no longer covers it")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.delete("source", SOURCE)
    here.cycle(after=minutes(31))
    assert here.resource(ref).ended_at is None
    return ref


@untouched("whose account is another one now", "Its state is not known, so neither is whether it idles.")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    here.cloud.account = "999999999999"
    past_grace(here)
    assert here.resource(ref).ended_at is None
    return ref


@untouched("whose region cannot be listed", "Its state is not known, so neither is whether it idles.")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    here.cycle()
    with here.cloud.failing(Throttled("too often"), "list", region="us-east-1"):
        past_grace(here)
    assert here.resource(ref).ended_at is None
    return ref


@untouched("that cannot be described", "it could not be described: no permission")
def _(here: Company) -> ResourceRef:
    ref = here.machine()
    with here.cloud.failing(Forbidden("no permission", permission="ec2:DescribeInstances"), "describe"):
        past_grace(here)
    return ref


REFUSALS = {
    "for which its cloud has another protection": Protected("disableApiStop is set"),
    "that its cloud cannot stop": Unsupported("this type cannot be stopped"),
    "that we may not stop": Forbidden("ec2:StopInstances is missing", permission="ec2:StopInstances"),
}


def refused(error: Exception) -> Scenario:
    def scenario(here: Company) -> ResourceRef:
        ref = here.machine()
        here.cloud.fail(error, "act")  # type: ignore[arg-type]
        past_grace(here)
        assert here.finding(ref).status == "refused"
        assert [action.status for action in here.actions()] == ["failed"]
        assert {row.channel for row in here.told("failed")} == {"mail:lead@example.org", "mail:mai@example.org"}
        return ref

    return scenario


for sentence, error in REFUSALS.items():
    untouched(sentence, f"The cloud refused: {error.sentence}")(refused(error))


@pytest.mark.parametrize("sentence", CASES)
def test_a_machine_stays_untouched_that_is(sentence: str, sqlite_url: str, clock: SetClock) -> None:
    case = CASES[sentence]
    with small_company(sqlite_url, clock, **case.settings) as here:
        ref = case.arranged(here)
        assert here.stops == []
        assert here.cloud.machines[ref.external_id].history[-1][1] is not State.TERMINATED
        told = explain(here.rt, here.resource(ref).id)
        assert case.says in json.dumps(told, default=str) or case.says in here.finding(ref).status_reason
