"""A scaling group from warning to zero and back, exactly as it was; and all that keeps it from being touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlmodel import select

from providers.errors import NoCapacity, Unreachable, Unsupported
from providers.records import CapacityType, ResourceRef, State, Verb
from providers.simulated.activity import Busy, Idle, Silent
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Group
from service.clock import SetClock
from service.explain import explain
from service.model import ActionStatus, Status
from service.store.database import Database
from service.store.tables import MeterInterval
from tests.spine.company import ENFORCING, Company, company, hours, minutes

TAGS = {"project": "vision", "owner": "mai@example.org"}
TO_ZERO: dict[str, Any] = {**ENFORCING, "accept_loss": ["group_members"]}
TO_SPOT: dict[str, Any] = {
    "name": "on-spot",
    "type": "spot",
    "mode": "enforce",
    "scope": {"kinds": ["node_group"]},
    "spot": {"allowed_on_demand": "0%"},
    "grace": "30m",
    "action": "move_to_spot",
    "disruption_budget": {"max": "100%"},
}


@pytest.fixture
def here(database: Database, clock: SetClock) -> Iterator[Company]:
    with company(database, clock) as made:
        made.document("policy", **TO_ZERO)
        yield made


def trainers(here: Company, **more: Any) -> ResourceRef:
    """Three idle machines of 8 H100 in a group that keeps between one and six, launched an hour ago."""
    here.clock.forward(-hours(1))
    chosen = {"desired": 3, "minimum": 1, "maximum": 6, "tags": dict(TAGS), "activity": Idle(), **more}
    ref = here.cloud.add_group(Group(name="trainers", sku=SKUS["p5.48xlarge"], **chosen))
    here.clock.forward(hours(1))
    return ref


def past_grace(here: Company) -> None:
    here.cycle()
    here.cycle(after=minutes(31))


def sizes(here: Company) -> tuple[int, int, int]:
    group = here.cloud.groups["trainers"]
    return group.minimum, group.desired, group.maximum


def test_an_idle_group_goes_to_zero_and_comes_back_exactly_as_it_was(here: Company) -> None:
    ref = trainers(here)
    past_grace(here)

    assert [(act.verb, act.external_id) for act in here.stops] == [(Verb.SCALE_TO_ZERO, "trainers")]
    here.cycle(after=minutes(5))
    (action,) = here.actions()
    assert action.status == ActionStatus.VERIFIED
    assert (action.verb, here.finding(ref).status) == ("scale_to_zero", Status.ENFORCED)
    assert sizes(here) == (0, 0, 6)
    assert here.resource(ref).state == State.STOPPED

    here.undo(action.id)
    here.cycle(after=minutes(1))
    here.cycle(after=minutes(5))

    assert sizes(here) == (1, 3, 6)
    assert here.resource(ref).state == State.RUNNING
    assert [row.status for row in here.actions()] == [ActionStatus.UNDONE, ActionStatus.VERIFIED]


def test_who_put_it_back_is_left_alone_for_a_while(here: Company) -> None:
    ref = trainers(here)
    past_grace(here)
    here.cycle(after=minutes(5))
    here.cloud.resize("trainers", 2)
    here.cycles(hours(3))

    assert len(here.stops) == 1
    assert "restarted" in here.finding(ref).status_reason


def test_one_warning_goes_out_for_the_group_and_none_for_its_members(here: Company) -> None:
    trainers(here)
    here.cycle()

    warning, *others = here.told("warning")  # one for each of its people
    assert {other.finding_id for other in others} == {warning.finding_id}
    assert warning.payload["resource"]["name"] == "trainers"
    assert warning.payload["remedy"] == "scale_to_zero"
    assert "3 machines are terminated" in warning.payload["losses"][0]
    assert warning.payload["hourly_cost"]["amount_micros"] == 3 * 55_040_000


def busy_member(here: Company) -> None:
    next(iter(here.cloud.machines.values())).activity = Busy()


def silent_member(here: Company) -> None:
    next(iter(here.cloud.machines.values())).activity = Silent()


def protected_member(here: Company) -> None:
    next(iter(here.cloud.machines.values())).tags["curfew-protect"] = "until the paper is out"


UNTOUCHED: dict[str, tuple[Any, str]] = {
    "one member works": (busy_member, "one member spares it"),
    "one member is silent": (silent_member, "of one member it is not known"),
    "one member is protected": (protected_member, "its member trainers-0: its tag curfew-protect"),
}


@pytest.mark.parametrize("sentence", UNTOUCHED)
def test_a_group_stays(here: Company, sentence: str) -> None:
    arrange, words = UNTOUCHED[sentence]
    ref = trainers(here)
    arrange(here)
    past_grace(here)
    here.cycle(after=minutes(5))

    assert here.stops == []
    told = explain(here.rt, here.resource(ref).id)
    assert told is not None
    assert words in str(told["policies"])


LATE: dict[str, tuple[Any, str]] = {
    "a member begins to work": (busy_member, "one member spares it"),
    "a member falls silent": (silent_member, "not known"),
    "a member is protected": (protected_member, "protected"),
    "somebody adds a member": (lambda here: here.cloud.resize("trainers", 4), "was not seen before"),
}


@pytest.mark.parametrize("sentence", LATE)
def test_what_changes_in_the_last_moment_is_seen(here: Company, sentence: str) -> None:
    """Between the look that planned the act and the act itself."""
    arrange, words = LATE[sentence]
    ref = trainers(here)
    here.cycle()
    inner = here.cloud.meet

    def meet(call: Any, region: str, external_id: str | None = None, *, after: bool = False) -> None:
        if call == "describe" and external_id == "trainers" and not after:
            here.cloud.meet = inner  # type: ignore[method-assign]
            arrange(here)
        inner(call, region, external_id, after=after)

    here.cloud.meet = meet  # type: ignore[method-assign]
    here.cycle(after=minutes(31))

    assert here.stops == []
    assert words in here.finding(ref).status_reason


def test_a_group_whose_answer_is_lost_is_scaled_once(here: Company) -> None:
    ref = trainers(here)
    here.cycle()
    here.cloud.fail(Unreachable("the answer was lost"), "act", times=1, after=True)
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(1))
    here.cycle(after=minutes(5))

    assert len(here.stops) == 1
    assert here.finding(ref).status == Status.ENFORCED


def test_an_act_that_came_to_nothing_is_given_back_whole(here: Company) -> None:
    """It takes several calls on a real cloud, of which some may have had their effect."""
    ref = trainers(here)
    here.cycle()
    here.cloud.fail(Unsupported("AWS does not like it"), "act", times=1)
    here.cycle(after=minutes(31))

    assert [(act.verb, act.changed) for act in here.cloud.acts] == [(Verb.SCALE_TO_ZERO, False), (Verb.START, False)]
    assert (sizes(here), here.finding(ref).status) == ((1, 3, 6), Status.REFUSED)


def refused(here: Company) -> None:
    here.cloud.fail(Unsupported("its cloud does not like it"), "act")


def unanswered_until_it_is_too_late(here: Company) -> None:
    here.cloud.fail(Unreachable("its cluster is at something else"), "act")


def failing_in_the_end(here: Company) -> None:
    here.cloud.groups["trainers"].fails_late = NoCapacity("there is no room")


def without_effect(here: Company) -> None:
    here.cloud.groups["trainers"].stubborn = True


HALF_DONE: dict[str, tuple[Callable[[Company], None], ActionStatus, ActionStatus]] = {
    "its cloud refused it": (refused, ActionStatus.INTENDED, ActionStatus.ABANDONED),
    "there was no answer for a grace": (
        unanswered_until_it_is_too_late,
        ActionStatus.INTENDED,
        ActionStatus.ABANDONED,
    ),
    "its cloud took it and failed": (failing_in_the_end, ActionStatus.TAKEN, ActionStatus.FAILED),
    "it had no effect": (without_effect, ActionStatus.TAKEN, ActionStatus.FAILED),
}


@pytest.mark.parametrize("sentence", HALF_DONE)
def test_half_of_an_act_is_not_closed_before_it_is_given_back(here: Company, sentence: str) -> None:
    """What scales it was switched off by the first step, and its cloud does not answer just now."""
    arrange, waiting, ended = HALF_DONE[sentence]
    trainers(here)
    here.cycle()
    arrange(here)
    silence = here.cloud.fail(Unreachable("its cluster is at something else"), "restore")
    here.cycle(after=minutes(31))
    here.cycles(hours(2))
    [action] = here.actions()
    assert action.status == waiting
    assert "is given back: its cluster is at something else" in (action.error or "")

    here.cloud.heal(silence)
    here.cycle(after=minutes(5))
    [action] = here.actions()
    assert action.status == ended
    assert (here.cloud.acts[-1].verb, here.cloud.acts[-1].error) == (Verb.START, None)
    assert here.cloud.acts[-1].request_id == f"{action.id}-back"


@pytest.mark.parametrize("sentence", HALF_DONE)
def test_but_it_is_not_waited_for_without_end(here: Company, sentence: str) -> None:
    arrange, _, ended = HALF_DONE[sentence]
    trainers(here)
    here.cycle()
    arrange(here)
    here.cloud.fail(Unreachable("its cluster is at something else"), "restore")
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(31))
    here.cycle(after=hours(25))
    [action] = here.actions()
    assert action.status == ended
    assert "half of it could not be given back: its cluster is at something else" in (action.error or "")


def test_without_accepting_the_loss_of_its_members_it_is_refused_in_words(here: Company) -> None:
    here.document("policy", **ENFORCING)
    ref = trainers(here)
    past_grace(here)

    assert here.stops == []
    finding = here.finding(ref)
    assert finding.status == Status.REFUSED
    assert "needs accept_loss: [group_members]" in finding.status_reason


def test_what_a_group_costs_is_metered_with_its_members_and_only_once(here: Company) -> None:
    ref = trainers(here)
    here.cycle()

    with here.rt.database.reading() as session:
        metered = session.exec(select(MeterInterval)).all()
    assert here.resource(ref).rate_micros == 3 * 55_040_000
    assert sorted(row.rate_micros for row in metered) == [55_040_000] * 3
    assert here.resource(ref).id not in {row.resource_id for row in metered}


def test_a_group_moves_to_spot_without_disturbing_a_member_and_back(here: Company) -> None:
    here.delete("policy", "idle-gpus")
    here.document("policy", **TO_SPOT)
    ref = trainers(here, activity=Busy())
    past_grace(here)
    here.cycle(after=minutes(5))

    group = here.cloud.groups["trainers"]
    (action,) = here.actions()
    assert (action.status, group.launches, sizes(here)) == (ActionStatus.VERIFIED, CapacityType.SPOT, (1, 3, 6))
    assert action.rate_micros is None  # what it saves comes as members are replaced
    here.cycles(hours(1))
    assert here.finding(ref, "on-spot").status == Status.ENFORCED
    assert len(here.actions()) == 1

    here.undo(action.id)
    here.cycles(minutes(15))
    assert group.launches is CapacityType.ON_DEMAND
    here.cycles(hours(2))
    assert len(here.findings(policy="on-spot")) == 1  # the person who undid it is not asked again
    assert here.finding(ref, "on-spot").status == Status.DISMISSED


def test_whoever_sets_it_back_by_hand_is_not_fought(here: Company) -> None:
    here.delete("policy", "idle-gpus")
    here.document("policy", **TO_SPOT)
    ref = trainers(here, activity=Busy())
    past_grace(here)
    here.cycle(after=minutes(5))
    here.cloud.groups["trainers"].launches = CapacityType.ON_DEMAND
    here.cycles(hours(2))

    assert len(here.stops) == 1
    assert here.finding(ref, "on-spot").status == Status.DISMISSED
