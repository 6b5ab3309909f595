"""A crash while a group is acted on or put back: nothing twice, nothing lost, nothing half. Charter 11.

Every instant is tried on one machine; here every third, for the rest is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.records import ResourceRef, Verb
from providers.simulated.activity import Idle
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Group
from service.clock import SetClock
from service.store.database import Database
from tests.conftest import MONDAY
from tests.spine.company import ENFORCING, Company, company, hours, minutes
from tests.spine.test_crash import Died, Instants, instants

__all__ = ["instants"]

POLICIES: dict[Verb, dict[str, Any]] = {
    Verb.SCALE_TO_ZERO: {**ENFORCING, "accept_loss": ["group_members"]},
    Verb.MOVE_TO_SPOT: {
        "name": "idle-gpus",
        "type": "spot",
        "mode": "enforce",
        "spot": {"allowed_on_demand": "0%"},
        "grace": "30m",
        "action": "move_to_spot",
        "disruption_budget": {"max": "100%"},
    },
}
LEFT = {Verb.SCALE_TO_ZERO: (0, 0, 6, "on_demand"), Verb.MOVE_TO_SPOT: (1, 2, 6, "spot")}
BEFORE = (1, 2, 6, "on_demand")
EVERY = 3


def how_it_is(here: Company) -> tuple[int, int, int, str]:
    group = here.cloud.groups["trainers"]
    return group.minimum, group.desired, group.maximum, group.launches.value


def trainers(here: Company, verb: Verb) -> ResourceRef:
    here.document("policy", **POLICIES[verb])
    here.clock.forward(-hours(1))
    chosen = Group(name="trainers", sku=SKUS["g6.xlarge"], desired=2, minimum=1, maximum=6, activity=Idle())
    chosen.tags = {"project": "vision", "owner": "mai@example.org"}
    ref = here.cloud.add_group(chosen)
    here.clock.forward(hours(1))
    here.cycle()
    return ref


def acts(here: Company) -> None:
    here.cycle(after=minutes(31))


def is_undone(here: Company) -> None:
    here.cycle(after=minutes(2))


def it_was_done_once(here: Company, verb: Verb, ref: ResourceRef) -> None:
    for after in (1, 31, 2, 2):
        assert here.cycle(after=minutes(after)).error is None
    assert [act.verb for act in here.stops] == [verb]
    assert how_it_is(here) == LEFT[verb]
    assert here.finding(ref).status == "enforced"
    assert [action.status for action in here.actions() if action.status != "abandoned"] == ["verified"]


def it_was_put_back(here: Company, verb: Verb, ref: ResourceRef) -> None:
    here.cycles(minutes(8), every=minutes(2))
    assert len([act for act in here.cloud.acts if act.changed and act.verb is Verb.START]) == 1
    assert how_it_is(here) == BEFORE
    assert [action.status for action in here.actions()] == ["undone", "verified"]


STORIES: dict[str, tuple[bool, Callable[[Company], None], Callable[[Company, Verb, ResourceRef], None]]] = {
    "while it is acted on": (False, acts, it_was_done_once),
    "while it is put back": (True, is_undone, it_was_put_back),
}


def told(database: Database, verb: Verb, sentence: str, instants: Instants, die_at: int) -> None:
    done, watched, after = STORIES[sentence]
    instants.die_at, instants.passed = die_at, 0
    with company(database, SetClock(MONDAY)) as here:
        ref = trainers(here, verb)
        if done:
            acts(here)
            here.cycle(after=minutes(2))
            here.undo(here.actions()[0].id)
        instants.watching = True
        if die_at < 0:
            watched(here)
        else:
            with pytest.raises(Died):
                watched(here)
            here.restart()
        instants.watching = False
        after(here, verb, ref)


@pytest.mark.parametrize("sentence", STORIES)
@pytest.mark.parametrize("verb", POLICIES)
def test_the_process_dies(verb: Verb, sentence: str, instants: Instants, sqlite_template: Path, tmp_path: Path) -> None:
    def fresh(name: str) -> Database:
        path = tmp_path / f"{name}.db"
        shutil.copy(sqlite_template, path)
        return Database(f"sqlite:///{path}")

    whole = fresh("whole")
    told(whole, verb, sentence, instants, -1)
    whole.close()
    count = instants.passed
    assert count > 10
    for die_at in range(1, count + 1, EVERY):
        database = fresh(str(die_at))
        told(database, verb, sentence, instants, die_at)
        database.close()
