"""A policy that begins with a share of its scope: whom it meets, what people's regret does to it, how it rises, falls
back and begins anew.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from providers.errors import Throttled
from providers.records import ResourceRef
from service import people
from service.explain import explain
from service.pipeline import recheck, rollout
from service.store import rollouts
from service.store.tables import Action, Audit, RolloutState
from tests.spine.company import ENFORCING, Company, hours, minutes

LEAD = people.Person(actor="token:lead")
CANARY: dict[str, Any] = {
    **ENFORCING,
    "rollout": {"share": "30%", "steps": ["60%", "100%"], "every": "1d", "min_stops": 1},
}


def canary(here: Company, **more: Any) -> None:
    here.document("policy", **{**CANARY, "rollout": {**CANARY["rollout"], **more}})


def within(share: float, refs: list[ResourceRef], here: Company) -> set[str]:
    """Their clouds' ids."""
    return {ref.external_id for ref in refs if rollout.holds(share, "idle-gpus", here.resource(ref).id)}


def met(here: Company) -> set[str]:
    return {act.external_id for act in here.stops}


def fleet(here: Company, count: int = 12) -> list[ResourceRef]:
    return [here.machine(f"trainer-{number}") for number in range(count)]


def stand(here: Company) -> RolloutState:
    with here.rt.database.reading() as session:
        return session.get_one(RolloutState, "idle-gpus")


def audited(here: Company, verb: str) -> list[Audit]:
    with here.rt.database.reading() as session:
        return list(session.exec(select(Audit).where(Audit.verb == verb)).all())


def stop_what_is_in(here: Company) -> None:
    """Warned, grace over, stopped, verified."""
    here.cycle()
    here.cycle(after=minutes(30))
    here.cycle(after=minutes(2))


def line(here: Company, start: str) -> float | None:
    found = [one for one in here.rt.metrics.decode().splitlines() if one.startswith(start)]
    return float(found[0].rpartition(" ")[2]) if found else None


# --- whom it meets ---------------------------------------------------------------------------------------------------


def test_only_the_share_is_warned_and_stopped_and_the_rest_is_observed(small: Company) -> None:
    canary(small)
    refs = fleet(small)
    stop_what_is_in(small)
    inside = within(0.3, refs, small)
    assert 0 < len(inside) < len(refs)
    assert met(small) == inside
    for ref in refs:
        finding = small.finding(ref)
        if ref.external_id in inside:
            assert finding.status == "enforced"
        else:
            assert (finding.status, finding.warned_at) == ("open", None)
            assert finding.status_reason == "Only 30% of its scope is enforced so far (rollout); this one is observed."
    assert {row.finding_id for row in small.outbox()} == {
        small.finding(ref).id for ref in refs if ref.external_id in inside
    }
    assert line(small, 'curfew_rollout_share{policy="idle-gpus"}') == 0.3


def test_a_persons_own_request_is_not_held_back_by_it(small: Company) -> None:
    canary(small)
    refs = fleet(small)
    small.cycle()
    outside = next(ref for ref in refs if ref.external_id not in within(0.3, refs, small))
    with small.speaking(outside) as (session, finding, now):
        people.stop_now(session, finding, by=LEAD, now=now)
    small.cycle(after=minutes(1))
    assert met(small) == {outside.external_id}


# --- regret ----------------------------------------------------------------------------------------------------------


def stopped(here: Company) -> tuple[ResourceRef, Action]:
    ref = here.machine()
    stop_what_is_in(here)
    [action] = here.actions()
    assert action.status == "verified"
    return ref, action


def the(here: Company, action: Action) -> Action:
    with here.rt.database.reading() as session:
        return session.get_one(Action, action.id)


UNDO = 'curfew_false_stops_total{policy="idle-gpus",project="vision",why="undo"}'
RESTART = 'curfew_false_stops_total{policy="idle-gpus",project="vision",why="restart"}'
RATE = 'curfew_false_stop_rate{policy="idle-gpus"}'


def test_an_undo_counts_once_however_it_ends(small: Company) -> None:
    ref, action = stopped(small)
    small.cycle(after=hours(5))
    assert (line(small, UNDO), line(small, RATE)) == (None, 0)
    small.undo(action.id)
    small.undo(action.id)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(30))
    assert small.resource(ref).state == "running"
    assert (the(small, action).regret_why, the(small, action).status) == ("undo", "undone")
    assert (line(small, UNDO), line(small, RESTART), line(small, RATE)) == (1, None, 1)


@pytest.mark.parametrize(
    ("after", "counts"), [(minutes(20), True), (hours(2) - minutes(1), True), (hours(2) + minutes(2), False)]
)
def test_a_restart_counts_when_it_comes_soon(small: Company, after: timedelta, counts: bool) -> None:
    ref, action = stopped(small)
    small.clock.forward(after)
    small.cloud.start(ref.external_id)
    small.cycle(after=minutes(1))
    small.cycle(after=hours(3))
    assert the(small, action).regret_why == ("restart" if counts else None)
    assert (line(small, RESTART), line(small, RATE)) == ((1, 1) if counts else (None, 0))
    assert len(audited(small, "regret")) == counts


def test_a_restart_seen_where_the_stop_was_to_be_verified_counts_too(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cycle(after=minutes(30))
    small.clock.forward(minutes(1))
    small.cloud.start(ref.external_id)
    small.cycle(after=minutes(1))
    [action] = small.actions()
    assert (action.status, action.regret_why) == ("verified", "restart")


def test_what_a_person_asked_for_is_nobodys_false_stop(small: Company) -> None:
    ref = small.machine()
    small.cycle()
    with small.speaking(ref) as (session, finding, now):
        people.stop_now(session, finding, by=LEAD, now=now)
    small.cycle(after=minutes(1))
    small.cycle(after=minutes(2))
    [action] = small.actions()
    small.undo(action.id)
    small.cycle(after=minutes(3))
    assert the(small, action).regretted_at is None
    assert (line(small, UNDO), line(small, RATE)) == (None, None)


def test_until_its_time_is_over_a_stop_that_nobody_regrets_is_not_decided(small: Company) -> None:
    stopped(small)
    small.cycle(after=minutes(100))
    assert line(small, RATE) is None
    small.cycle(after=minutes(30))
    assert line(small, RATE) == 0


# --- falling back ----------------------------------------------------------------------------------------------------


def regretted(here: Company) -> list[ResourceRef]:
    """The canary's stops are undone by somebody; answers all machines."""
    canary(here)
    here.machine("spare")
    refs = fleet(here)
    stop_what_is_in(here)
    here.undo(next(action.id for action in here.actions() if action.status == "verified"))
    here.cycle(after=minutes(1))
    return refs


def test_with_too_much_regret_it_observes_everything_and_says_so(small: Company) -> None:
    regretted(small)
    state = stand(small)
    assert (state.share, state.reason) == (0, "1 of 1 stop was regretted (100 %), more than the 1% it may have.")
    assert line(small, 'curfew_rollout_share{policy="idle-gpus"}') == 0
    [told] = {row.channel for row in small.told("rollout")}
    assert told == "mail:lead@example.org"
    [(_, letter)] = [one for one in small.postman.taken if "regretted" in one[1].subject]
    assert "1 of 1 stop was regretted" in letter.text
    assert [row.object for row in audited(small, "fall back")] == ["policy/idle-gpus"]
    before = len(small.stops)
    small.machine("new")
    small.cycles(hours(6), every=minutes(30))
    assert len(small.stops) == before
    assert len(small.told("rollout")) == 1
    assert "has fallen back" in next(f.status_reason for f in small.findings(status="open"))


def test_resumed_it_begins_anew_with_its_first_share_and_forgives(small: Company) -> None:
    refs = regretted(small)
    with small.rt.database.transaction() as session:
        policy, now = rollout_policy(small), small.clock.now()
        assert rollouts.resume(session, rollout.begun(policy, now), by="token:ops", reason="mended", now=now)
        assert not rollouts.resume(session, rollout.begun(policy, now), by="token:ops", reason="again", now=now)
    small.cycle(after=minutes(1))
    assert (stand(small).share, stand(small).fallen_back_at) == (0.3, None)
    [line_] = audited(small, "resume rollout")
    assert (line_.actor, line_.reason) == ("token:ops", "mended")
    extra = [small.machine(f"later-{number}") for number in range(12)]
    before = len(small.stops)
    stop_what_is_in(small)
    then = {act.external_id for act in small.stops[before:]}
    assert then - {ref.external_id for ref in refs} == within(0.3, extra, small)
    assert then


def rollout_policy(here: Company) -> Any:
    from service.store.documents import load

    with here.rt.database.reading() as session:
        return load(session).policies["idle-gpus"]


def test_a_changed_policy_begins_anew_and_an_unchanged_one_stays_where_it_fell(small: Company) -> None:
    regretted(small)
    small.clock.forward(minutes(1))
    small.document("policy", **CANARY)
    small.cycle()
    assert stand(small).share == 0
    small.delete("policy", "idle-gpus")
    small.cycle(after=minutes(1))
    small.document("policy", **{**CANARY, "description": "the same in other words"})
    small.cycle(after=minutes(1))
    assert stand(small).share == 0
    small.document("policy", **{**CANARY, "grace": "45m"})
    small.cycle(after=minutes(1))
    assert stand(small).share == 0.3


def test_regret_between_plan_and_act_stops_the_act(small: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are due at once; while the second is looked at again, somebody undoes an earlier stop."""
    canary(small, share="99.9%", steps=[])
    first = small.machine("first")
    stop_what_is_in(small)
    [done] = small.actions()
    second = small.machine("second")
    small.cycle()
    look_again = recheck.look_again

    def while_somebody_undoes(*args: Any, **more: Any) -> Any:
        small.undo(done.id)
        return look_again(*args, **more)

    monkeypatch.setattr("service.pipeline.recheck.look_again", while_somebody_undoes)
    small.cycle(after=minutes(30))
    assert met(small) == {first.external_id}
    assert "its policy's rollout leaves it out now" in small.finding(second).status_reason
    small.cycle(after=minutes(1))
    assert small.finding(second).status == "open"


def test_a_warning_that_nobody_took_yet_does_not_arrive_after_it_fell_back(small: Company) -> None:
    canary(small, share="99.9%", steps=[])
    small.machine("first")
    stop_what_is_in(small)
    [done] = small.actions()
    small.postman.dead = True
    second = small.machine("second")
    small.cycle()
    small.undo(done.id)
    small.cycle(after=minutes(1))
    small.postman.dead = False
    small.cycles(hours(2), every=minutes(20))
    assert small.finding(second).status == "open"
    told = [row for row in small.outbox() if row.finding_id == small.finding(second).id]
    assert {row.status for row in told} == {"withdrawn"}


def test_an_intent_that_a_crash_left_is_given_up_once_it_fell_back(small: Company) -> None:
    canary(small, share="99.9%", steps=[])
    first = small.machine("first")
    stop_what_is_in(small)
    [done] = small.actions()
    small.machine("second")
    small.cycle()
    small.cloud.fail(Throttled("too often"), "act", times=1)
    small.cycle(after=minutes(30))
    left = small.actions()[-1]
    assert left.status == "intended"
    small.undo(done.id)
    small.cycle(after=minutes(1))
    assert met(small) == {first.external_id}
    assert the(small, left).status == "abandoned"
    assert "leaves it out now: Its rollout has fallen back" in (the(small, left).error or "")


def test_explain_says_whether_it_has_come_to_a_machine(small: Company) -> None:
    canary(small)
    refs = fleet(small)
    small.cycle()
    for ref in refs:
        id = small.resource(ref).id
        [said] = (explain(small.rt, id) or {})["policies"]
        inside = ref.external_id in within(0.3, refs, small)
        assert (said["rollout"]["share"], said["rollout"]["enforced"]) == ("30%", inside)
        assert said["rollout"]["reason"].startswith("Its rollout has come" if inside else "Only 30% of its scope")


# --- rising ----------------------------------------------------------------------------------------------------------


def test_it_rises_on_schedule_while_nobody_regrets_and_keeps_whom_it_had(small: Company) -> None:
    canary(small)
    refs = fleet(small)
    stop_what_is_in(small)
    few = met(small)
    small.cycle(after=hours(23))
    assert stand(small).share == 0.3
    small.cycle(after=hours(1))
    assert stand(small).share == 0.6
    small.cycle(after=minutes(30))
    small.cycle(after=minutes(2))
    more = met(small)
    assert few < more == within(0.6, refs, small)
    small.cycle(after=hours(24))
    small.cycle(after=minutes(30))
    small.cycle(after=minutes(2))
    assert stand(small).share == 1
    assert met(small) == {ref.external_id for ref in refs}
    assert [row.details["share"] for row in audited(small, "raise rollout")] == ["60%", "100%"]


def test_it_waits_where_too_little_was_learnt(small: Company) -> None:
    canary(small, min_stops=100)
    fleet(small)
    stop_what_is_in(small)
    small.cycle(after=hours(30))
    assert stand(small).share == 0.3


def test_the_short_form_never_rises(small: Company) -> None:
    small.document("policy", **{**ENFORCING, "rollout": "30%"})
    fleet(small)
    stop_what_is_in(small)
    small.cycle(after=timedelta(days=60))
    assert stand(small).share == 0.3


def test_regret_of_an_earlier_steps_stop_speaks_against_this_one(small: Company) -> None:
    canary(small)
    fleet(small)
    stop_what_is_in(small)
    small.cycle(after=hours(24))
    assert stand(small).share == 0.6
    small.undo(small.actions()[0].id)
    small.cycle(after=minutes(1))
    assert stand(small).fallen_back_at is not None
