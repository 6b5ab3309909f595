"""A crash at any instant: no double act, no lost act, no act without its warning and grace. Charter 3 and 11.

Every transaction, call to the cloud and delivery of a message is an instant, before and after. A story is told once to
count its instants, and then once for each of them, with the process dying there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from providers.errors import Unreachable
from providers.records import ResourceRef
from providers.simulated.actuator import SimulatedActuator
from providers.simulated.inventory import SimulatedInventory
from providers.simulated.telemetry import SimulatedTelemetry
from service.clock import SetClock
from service.store.database import Database
from tests.conftest import MONDAY
from tests.spine.company import Company, Postman, company, minutes

SHARDS = 4


class Died(BaseException):
    """The process is gone: nobody catches this."""


@dataclass
class Instants:
    """Counts the instants that pass while `watching`, and dies at one of them."""

    die_at: int = -1
    watching: bool = False
    passed: int = 0

    def instant(self) -> None:
        if self.watching:
            self.passed += 1
            if self.passed == self.die_at:
                self.watching = False
                raise Died

    def around(self, call: Callable[..., Any], *, changes: bool) -> Callable[..., Any]:
        def watched(*args: Any, **more: Any) -> Any:
            if changes:
                self.instant()
            answer = call(*args, **more)
            self.instant()
            return answer

        return watched

    def around_transactions(self, transaction: Callable[[Database], Any]) -> Callable[[Database], Any]:
        @contextmanager
        def watched(database: Database) -> Iterator[Session]:
            with transaction(database) as session:
                yield session
                self.instant()  # nothing is committed yet
            self.instant()

        return watched


@pytest.fixture
def instants(monkeypatch: pytest.MonkeyPatch) -> Instants:
    found = Instants()
    monkeypatch.setattr(Database, "transaction", found.around_transactions(Database.transaction))
    for part, name, changes in (
        (SimulatedActuator, "act", True),
        (SimulatedActuator, "restore", True),
        (Postman, "deliver", True),
        (SimulatedInventory, "list", False),
        (SimulatedInventory, "describe", False),
        (SimulatedTelemetry, "samples", False),
    ):
        monkeypatch.setattr(part, name, found.around(getattr(part, name), changes=changes))
    return found


# --- stories: what was before, what is watched, what must have come of it in the end ---------------------------------


@dataclass(frozen=True)
class Story:
    before: Callable[[Company, ResourceRef], None]
    watched: Callable[[Company, ResourceRef], None]
    after: Callable[[Company, ResourceRef], None]


def nothing(here: Company, ref: ResourceRef) -> None: ...


def warned(here: Company, ref: ResourceRef) -> None:
    here.cycle()


def acted(here: Company, ref: ResourceRef) -> None:
    here.cycle()
    here.cycle(after=minutes(31))


def stopped(here: Company, ref: ResourceRef) -> None:
    acted(here, ref)
    here.cycle(after=minutes(2))
    here.undo(here.actions()[0].id)


def a_cycle(here: Company, ref: ResourceRef) -> None:
    here.cycle()


def half_an_hour_later(here: Company, ref: ResourceRef) -> None:
    here.cycle(after=minutes(31))


def two_minutes_later(here: Company, ref: ResourceRef) -> None:
    here.cycle(after=minutes(2))


def it_is_stopped_once_after_its_warning(here: Company, ref: ResourceRef) -> None:
    for after in (1, 31, 2, 2):
        assert here.cycle(after=minutes(after)).error is None
    [stop] = here.stops
    first = min(row.delivered_at for row in here.told("warning") if row.delivered_at)
    assert stop.at >= first + minutes(30)
    assert here.resource(ref).state == "stopped"
    assert here.finding(ref).status == "enforced"
    assert [action.status for action in here.actions() if action.status != "abandoned"] == ["verified"]
    assert {row.channel for row in here.told("enforced")} == {"mail:lead@example.org", "mail:mai@example.org"}


def it_runs_again_started_once(here: Company, ref: ResourceRef) -> None:
    here.cycles(minutes(6), every=minutes(2))
    assert len(here.stops) == 1
    assert len([act for act in here.cloud.acts if act.changed and act.verb == "start"]) == 1
    assert here.resource(ref).state == "running"
    assert [action.status for action in here.actions()] == ["undone", "verified"]
    assert {row.channel for row in here.told("undone")} == {"mail:lead@example.org", "mail:mai@example.org"}


STORIES = {
    "while it is found and warned about": Story(nothing, a_cycle, it_is_stopped_once_after_its_warning),
    "while it is acted on": Story(warned, half_an_hour_later, it_is_stopped_once_after_its_warning),
    "while the act is read back": Story(acted, two_minutes_later, it_is_stopped_once_after_its_warning),
    "while it is put back": Story(stopped, a_cycle, it_runs_again_started_once),
}


def told(database: Database, story: Story, instants: Instants, die_at: int) -> None:
    """The story with the process dying at one instant of it, and its successor."""
    instants.die_at, instants.passed = die_at, 0
    with company(database, SetClock(MONDAY)) as here:
        ref = here.machine()
        story.before(here, ref)
        instants.watching = True
        if die_at < 0:
            story.watched(here, ref)
        else:
            with pytest.raises(Died):
                story.watched(here, ref)
            here.restart()
        instants.watching = False
        story.after(here, ref)


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("sentence", STORIES)
def test_the_process_dies(sentence: str, shard: int, instants: Instants, sqlite_template: Path, tmp_path: Path) -> None:
    story = STORIES[sentence]

    def fresh(name: str) -> Database:
        path = tmp_path / f"{name}.db"
        shutil.copy(sqlite_template, path)
        return Database(f"sqlite:///{path}")

    database = fresh("whole")
    told(database, story, instants, -1)
    database.close()
    count = instants.passed
    assert count > 10
    for die_at in range(1 + shard, count + 1, SHARDS):
        database = fresh(str(die_at))
        told(database, story, instants, die_at)
        database.close()


WORST = {
    "before the intent is stored": (SimulatedTelemetry, "samples", "after"),
    "before the call": (SimulatedActuator, "act", "before"),
    "after the call": (SimulatedActuator, "act", "after"),
}


@pytest.mark.parametrize("moment", WORST)
def test_the_process_dies_on_either_database(
    moment: str, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, name, when = WORST[moment]
    call = getattr(part, name)

    def dies(*args: Any, **more: Any) -> Any:
        if when == "after":
            call(*args, **more)
        raise Died

    with company(database, clock) as here:
        ref = here.machine()
        here.cycle()
        clock.forward(minutes(31))
        with monkeypatch.context() as patch:
            patch.setattr(part, name, dies)
            with pytest.raises(Died):
                here.cycle()
        here.restart()
        it_is_stopped_once_after_its_warning(here, ref)


LOST_ANSWERS = {"the call never reached the cloud": False, "the answer was lost after the deed": True}


@pytest.mark.parametrize("sentence", LOST_ANSWERS)
def test_an_answer_that_is_lost(sentence: str, small: Company) -> None:
    ref = small.machine()
    small.cycle()
    small.cloud.fail(Unreachable("no answer"), "act", times=1, after=LOST_ANSWERS[sentence])
    small.cycle(after=minutes(31))
    assert small.actions()[0].status == "intended"
    it_is_stopped_once_after_its_warning(small, ref)
