"""Backstops: for whom the cloud itself is told to end runs, for how long, and when it is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import col, select

from providers.errors import Forbidden, Unreachable, Unsupported
from providers.records import Blocker, Loss, LossName, ResourceRecord, ResourceRef, Verb
from providers.simulated.inventory import SimulatedInventory
from service import people
from service.people import Person
from service.store.tables import Audit
from tests.spine.company import SOURCE, Company, hours, minutes

LEAD = Person(actor="token:lead")
LIFETIME: dict[str, Any] = {
    "name": "three-days",
    "type": "lifetime",
    "mode": "enforce",
    "scope": {"projects": ["vision"]},
    "lifetime": {"max": "72h", "backstop": "6h"},
    "grace": "30m",
    "action": "stop",
    "accept_loss": ["local_disks"],
}
RAN = hours(24)
BESIDES = hours(4) + minutes(30) + hours(6)
"""The cool-down, the grace and the backstop's own distance."""


def resting(here: Company, **more: Any) -> ResourceRef:
    """A machine that was seen running until somebody stopped it."""
    here.delete("policy", "idle-gpus")
    here.document("policy", **LIFETIME)
    ref = here.machine(launched_at=here.clock.now(), **more)
    here.cycle()
    here.clock.forward(RAN)
    here.cloud.stop(ref.external_id)
    here.cycle(after=minutes(2))
    here.cycle(after=minutes(2))
    return ref


def audited(here: Company) -> list[dict[str, Any]]:
    """Newest first."""
    with here.rt.database.reading() as session:
        rows = session.exec(select(Audit).where(col(Audit.verb).contains("limit")).order_by(col(Audit.id).desc())).all()
        return [row.model_dump() for row in rows]


def hold(here: Company) -> None:
    with here.rt.database.transaction() as session:
        people.hold(session, project=None, until=None, reason="a visit", by=LEAD, now=here.clock.now())


@contextmanager
def started_when_described(here: Company, ref: ResourceRef) -> Iterator[None]:
    described = SimulatedInventory.describe

    def describe(inventory: SimulatedInventory, asked: ResourceRef) -> ResourceRecord:
        here.cloud.start(ref.external_id)
        return described(inventory, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedInventory, "describe", describe)
        yield


def limit(here: Company, ref: ResourceRef) -> timedelta | None:
    seconds = here.cloud.machines[ref.external_id].run_limit_seconds
    return None if seconds is None else timedelta(seconds=seconds)


def test_a_stopped_machine_may_run_for_what_is_left_and_all_that_the_policy_itself_would_wait_for(
    small: Company,
) -> None:
    ref = resting(small)
    told = limit(small, ref)
    assert told is not None
    assert abs(told - (hours(72) - RAN + BESIDES)) <= minutes(2), "how exactly the end of the run is seen"


def test_the_policy_itself_comes_first_and_only_without_it_the_cloud(small: Company) -> None:
    ref = resting(small)
    told = limit(small, ref)
    assert told is not None
    small.cloud.start(ref.external_id)
    started = small.clock.now()
    while small.cloud.machines[ref.external_id].state_at(small.clock.now()) == "running":
        small.cycle(after=hours(1))
        assert small.clock.now() - started < told, "the cloud had to do it"


def test_it_is_set_once_and_in_the_audit_log(small: Company) -> None:
    ref = resting(small)
    for _ in range(3):
        small.cycle(after=hours(1))
    [line] = audited(small)
    assert (line["verb"], line["details"]["before"]) == ("limit runs", None)
    assert timedelta(seconds=line["details"]["seconds"]) == limit(small, ref)
    assert line["reason"].startswith("Policy three-days: of 3d it has 1d23h")


def test_a_running_machine_is_not_spoken_of(small: Company) -> None:
    small.document("policy", **LIFETIME)
    ref = small.machine()
    small.cycle()
    small.cycle(after=hours(1))
    assert limit(small, ref) is None


LEFT_ALONE: dict[str, dict[str, Any]] = {
    "a tag protects it": {"tags": {"project": "vision", "curfew-protect": "true"}},
    "somebody else's to stop": {"managed_by": "autoscaling:trainers"},
    "the cloud could not stop it": {"blockers": (Blocker(verb=Verb.STOP, code="No", sentence="it cannot be stopped"),)},
    "it would lose what nobody gave up": {
        "losses": (Loss(verb=Verb.STOP, name=LossName.GROUP_MEMBERS, sentence="members would go"),)
    },
    "its owner has set a limit": {"run_limit_seconds": 7200},
    "another project's": {"tags": {"project": "speech"}},
}


@pytest.mark.parametrize("more", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_is_left_alone(small: Company, more: dict[str, Any]) -> None:
    ref = resting(small, **more)
    assert small.cloud.machines[ref.external_id].run_limit_seconds == more.get("run_limit_seconds")


def observing(here: Company) -> None:
    here.document("policy", **{**LIFETIME, "mode": "warn"})


def without_it(here: Company) -> None:
    here.document("policy", **{**LIFETIME, "lifetime": {"max": "72h"}})


def exempt(here: Company) -> None:
    here.document(
        "exemption", name="demo", projects=["vision"], until=here.clock.now() + timedelta(days=30), reason="a demo"
    )


def gone(here: Company) -> None:
    here.delete("policy", "three-days")


@pytest.mark.parametrize("change", [observing, without_it, exempt, gone])
def test_what_nobody_asks_for_any_more_is_taken_back(small: Company, change: Callable[[Company], None]) -> None:
    ref = resting(small)
    change(small)
    small.cycle(after=minutes(1))
    assert limit(small, ref) is None
    assert [line["verb"] for line in audited(small)] == ["lift the limit of runs", "limit runs"]


def test_what_somebody_took_away_or_changed_is_theirs(small: Company) -> None:
    ref = resting(small)
    for theirs in (None, 3600):
        small.cloud.machines[ref.external_id].run_limit_seconds = theirs
        small.cycle(after=minutes(1))
        small.cycle(after=minutes(1))
        assert small.cloud.machines[ref.external_id].run_limit_seconds == theirs
    assert len(audited(small)) == 1


def test_while_something_is_on_hold_nothing_is_set_and_nothing_taken_back(small: Company) -> None:
    ref = resting(small)
    before = limit(small, ref)
    hold(small)
    gone(small)
    small.cycle(after=minutes(1))
    assert limit(small, ref) == before


def test_a_person_who_stops_by_has_the_last_word(small: Company) -> None:
    """Started again between the look and the call: nothing is set, as nothing can be."""
    small.document("policy", **LIFETIME)
    ref = small.machine(launched_at=small.clock.now())
    small.cycle()
    small.cloud.stop(ref.external_id)
    small.clock.forward(minutes(5))
    with started_when_described(small, ref):
        small.cycle()
    assert limit(small, ref) is None


@pytest.mark.parametrize(("error", "again"), [(Forbidden("no permission"), True), (Unreachable("no answer"), False)])
def test_what_the_cloud_refuses_is_tried_again_and_what_it_may_have_heard_is_not(
    small: Company, error: Exception, again: bool
) -> None:
    with small.cloud.failing(error, "act"):  # type: ignore[arg-type]
        ref = resting(small)
    small.cycle(after=hours(1))
    assert (limit(small, ref) is not None) is again


def ran_again(here: Company, ref: ResourceRef) -> None:
    """So less of its lifetime is left, and the limit has to be a shorter one."""
    here.cloud.start(ref.external_id)
    here.cycle(after=minutes(1))
    here.clock.forward(hours(1))
    here.cloud.stop(ref.external_id)


@pytest.mark.parametrize("between", [lambda _here, _ref: None, ran_again], ids=["lifted", "changed, then lifted"])
def test_a_limit_whose_change_the_cloud_did_not_hear_is_still_ours_to_take_back(
    small: Company, between: Callable[[Company, ResourceRef], None]
) -> None:
    ref = resting(small)
    before = limit(small, ref)
    small.cloud.fail(Unreachable("no answer"), "act", times=1)
    between(small, ref)
    if between is not ran_again:
        gone(small)
    small.cycle(after=minutes(1))
    assert limit(small, ref) == before, "it was not heard"
    small.document("policy", **{**LIFETIME, "mode": "warn"})
    small.cycle(after=minutes(1))
    assert limit(small, ref) is None


def test_what_the_cloud_refuses_is_neither_asked_each_time_nor_audited(small: Company) -> None:
    """Some machines never take a limit: TPUs, preemptible ones, those whose end their owner has set in another way."""
    refusal = small.cloud.fail(Unsupported("it takes no limit"), "act", times=100)
    resting(small)
    assert refusal.times == 99
    for _ in range(11):
        small.cycle(after=minutes(5))
    assert refusal.times == 99
    small.cycle(after=minutes(5))
    assert refusal.times == 98
    assert audited(small) == []


def test_below_the_ceiling_nothing_is_told_to_a_cloud(small: Company) -> None:
    small.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws", ceiling="warn")
    ref = resting(small)
    assert limit(small, ref) is None
