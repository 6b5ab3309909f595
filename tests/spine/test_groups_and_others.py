"""Groups whose members others have a say in, that were not seen, or that somebody scaled meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers import simulated
from providers.errors import Unreachable
from providers.records import ResourceRef, State, Verb
from providers.simulated.activity import Idle
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Group
from service import people
from service.clock import SetClock
from service.model import ActionStatus, Status
from service.people import NotPossible
from service.store.database import Database
from tests.spine.company import ENFORCING, SOURCE, Company, company, hours, minutes

TAGS = {"project": "vision", "owner": "mai@example.org"}
UNSCOPED: dict[str, Any] = {**ENFORCING, "scope": {}, "accept_loss": ["group_members"]}


@pytest.fixture
def here(database: Database, clock: SetClock) -> Iterator[Company]:
    with company(database, clock) as made:
        made.document("policy", **UNSCOPED)
        yield made


def trainers(here: Company) -> ResourceRef:
    """Three idle machines of 8 H100 in a group, launched an hour ago."""
    here.clock.forward(-hours(1))
    group = Group(name="trainers", sku=SKUS["p5.48xlarge"], desired=3, minimum=1, maximum=6)
    group.tags, group.activity = dict(TAGS), Idle()
    ref = here.cloud.add_group(group)
    here.clock.forward(hours(1))
    return ref


def sizes(here: Company) -> tuple[int, int, int]:
    group = here.cloud.groups["trainers"]
    return group.minimum, group.desired, group.maximum


def first(here: Company) -> Any:
    return next(iter(here.cloud.machines.values()))


def exempt(here: Company, **what: Any) -> None:
    until = (here.clock.now() + hours(24)).isoformat()
    here.document("exemption", name="paper", reason="the paper", until=until, **what)


def exempt_by_id(here: Company) -> None:
    exempt(here, resources=[first(here).external_id])


def exempt_by_name(here: Company) -> None:
    exempt(here, resources=[first(here).name])


def exempt_by_tag(here: Company) -> None:
    first(here).tags["run"] = "paper"
    exempt(here, tags={"run": "paper"})


def of_another_project(here: Company) -> None:
    here.document(
        "project", name="speech", owners=["s@example.org"], match=[{"tags": {"project": "speech"}}], timezone="UTC"
    )
    first(here).tags["project"] = "speech"


SAYS: dict[str, tuple[Callable[[Company], None], Status, str]] = {
    "one member is exempt by its id": (exempt_by_id, Status.EXEMPT, "the paper"),
    "one member is exempt by its name": (exempt_by_name, Status.EXEMPT, "the paper"),
    "one member is exempt by a tag": (exempt_by_tag, Status.EXEMPT, "the paper"),
    "one member is another project's": (
        of_another_project,
        Status.REFUSED,
        "one of its members belongs to another project",
    ),
}


@pytest.mark.parametrize("sentence", SAYS)
def test_a_group_stays(here: Company, sentence: str) -> None:
    arrange, status, words = SAYS[sentence]
    ref = trainers(here)
    arrange(here)
    here.cycle()
    here.cycles(hours(1))

    assert here.stops == []
    assert (here.finding(ref).status, words in here.finding(ref).status_reason) == (status, True)


@pytest.mark.parametrize("sentence", SAYS)
def test_even_in_the_last_moment(here: Company, sentence: str) -> None:
    arrange, _, _ = SAYS[sentence]
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
    assert here.finding(ref).status in (Status.DUE, Status.REFUSED)


@pytest.mark.parametrize("sentence", SAYS)
def test_a_person_who_asks_to_stop_it_now_passes_over_nobody(here: Company, sentence: str) -> None:
    arrange, _, _ = SAYS[sentence]
    ref = trainers(here)
    here.cycle()
    arrange(here)
    with here.speaking(ref) as (session, finding, now):
        people.stop_now(session, finding, by=people.Person(actor="token:lead"), now=now)
    here.cycle(after=minutes(1))

    assert here.stops == []


def test_members_seen_through_a_source_that_may_not_act_keep_their_group_from_it_too(here: Company) -> None:
    """Two sources see one account; the machines were there before the group and the source that may act."""
    here.delete("source", SOURCE)
    simulated.clouds["watched"] = here.cloud
    try:
        here.document("source", name="watched", provider="simulated", company="demo", cloud="aws", ceiling="observe")
        for number in range(2):
            here.machine(f"trainer-{number}", tags=dict(TAGS), managed_by="autoscaling:trainers")
        here.cycle()
        here.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws")
        group = Group(name="trainers", sku=SKUS["p5.48xlarge"], desired=2, tags=dict(TAGS))
        ref = here.cloud.add_group(group)
        here.cycles(hours(2))

        assert (here.resource(ref).source, here.stops) == (SOURCE, [])
    finally:
        simulated.forget("watched")


def test_a_protected_member_makes_no_further_rows_while_its_group_is_not_seen(here: Company) -> None:
    first_seen = trainers(here)
    first(here).tags["curfew-protect"] = "yes"
    here.cycle()
    here.cycle(after=minutes(5))
    before = here.resource(first_seen)
    here.cloud.fail(Unreachable("nobody answers"), "list")
    here.cycles(minutes(30))

    assert here.resource(first_seen).protections == before.protections
    assert here.resource(first_seen).revision == before.revision


def test_a_member_that_its_cloud_protects_is_told_of_once(here: Company) -> None:
    """Only its full description shows it."""
    ref = trainers(here)
    first(here).locked = True
    here.cycle()
    here.cycles(hours(6))

    assert here.stops == []
    assert here.finding(ref).status == Status.REFUSED
    assert {row.episode for row in here.told("warning")} == {1}


def test_an_undo_wakes_what_was_silenced_even_where_somebody_scaled_it_up(here: Company) -> None:
    trainers(here)
    here.cycle()
    here.cycle(after=minutes(31))
    here.cycle(after=minutes(5))
    (action,) = here.actions()
    here.undo(action.id)
    here.cloud.resize("trainers", 2)
    here.cycle(after=minutes(5))

    assert [act.verb for act in here.cloud.acts] == [Verb.SCALE_TO_ZERO, Verb.START]
    assert sizes(here) == (0, 2, 6)


def test_who_scales_it_up_before_the_next_look_is_not_fought(here: Company) -> None:
    ref = trainers(here)
    here.cycle()
    here.cycle(after=minutes(31))
    assert len(here.stops) == 1
    here.clock.forward(minutes(3))
    here.cloud.resize("trainers", 2)
    here.cycles(hours(3))

    (action,) = here.actions()
    assert (action.status, action.resumed_at is not None) == (ActionStatus.VERIFIED, True)
    assert len(here.stops) == 1
    assert here.resource(ref).state == State.RUNNING
    assert "left alone" in here.finding(ref).status_reason


def test_a_machine_that_joins_a_group_after_its_warning_is_never_met_by_itself(here: Company) -> None:
    trainers(here)
    alone = here.machine("alone", tags=dict(TAGS))
    here.document("policy", **{**UNSCOPED, "accept_loss": ["local_disks"]})
    here.cycle()
    here.cloud.machines[alone.external_id].managed_by = "autoscaling:trainers"
    here.cloud.groups["trainers"].desired = 4
    here.cycle(after=minutes(31))

    assert here.stops == []
    assert here.finding(alone).status == Status.CLEARED
    assert "met as a whole" in here.finding(alone).status_reason


def test_who_scales_it_up_while_the_old_members_still_go_is_not_fought(here: Company) -> None:
    """It is never seen without members; that there are others now is all that tells."""
    ref = trainers(here)
    here.cloud.transition = minutes(10)
    here.cycle()
    here.cycle(after=minutes(31))
    here.clock.forward(minutes(1))
    here.cloud.resize("trainers", 2)
    here.cycles(hours(3))

    assert len(here.stops) == 1
    resource = here.resource(ref)
    assert resource.restarted_at is not None
    [action] = here.actions()
    assert action.resumed_at is not None
    here.cycles(hours(3))
    assert len(here.stops) == 2  # once the cool-down is over, it is idle like any other
    with pytest.raises(NotPossible, match="later act"):
        here.undo(action.id)
    here.undo(here.actions()[1].id)
