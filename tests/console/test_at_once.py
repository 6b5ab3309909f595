"""What several people, or a person and a cycle, do to the same thing at the same moment, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlmodel import Session

from service.app import create_app
from service.clock import SetClock
from service.notify.links import LinkVerb
from service.store.database import Database
from service.store.tables import Action, Finding
from tests.console.conftest import Browser, House, house_of

PATIENCE_SECONDS = 20


@pytest.fixture
def shared(database: Database, clock: SetClock) -> House:
    """Somebody is logged in."""
    house = house_of(database, clock)
    house.log_in()
    return house


@contextmanager
def first_of_all(database: Database) -> Iterator[tuple[Session, Any]]:
    """A transaction that writes before everybody else, and how to wait until all others have come up against it."""
    begun: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN IMMEDIATE"):  # SQLite's writers wait here
            begun.append(statement)

    def waiting() -> int:
        if database.sqlite:
            return len(begun)
        with database.engine.connect() as connection:
            asked = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return int(connection.execute(text(asked)).scalar_one())

    def all_have_come(others: Iterable[Future[Any]]) -> None:
        pause, rounds = threading.Event(), PATIENCE_SECONDS * 100
        while rounds and waiting() < sum(not other.done() for other in others):
            pause.wait(0.01)
            rounds -= 1

    with database.transaction() as session:
        session.connection()
        event.listen(database.engine, "before_cursor_execute", heard)
        yield session, all_have_come
    event.remove(database.engine, "before_cursor_execute", heard)


def test_what_is_put_back_by_many_at_once_is_put_back_once(shared: House) -> None:
    resource = shared.resource()
    finding = shared.finding(resource, status="enforced")
    stop = shared.action(resource, finding)
    button = f"/actions/{stop.id}/undo"
    links = [shared.link(finding, LinkVerb.UNDO, who) for who in ("lan@example.org", "mai@example.org")]
    csrf, app = shared.csrf(), create_app(shared.runtime)

    def press(path: str) -> int:
        return Browser(app, shared.client.cookies).post(path, data={"csrf": csrf}).status_code

    with ThreadPoolExecutor(4) as pool:
        with first_of_all(shared.runtime.database) as (session, all_have_come):
            session.get(Action, stop.id, with_for_update=True)
            answers = [pool.submit(press, path) for path in (button, button, *links)]
            all_have_come(answers)
        assert {answer.result(PATIENCE_SECONDS) for answer in answers} <= {200, 303, 409}
    assert len([action for action in shared.rows(Action) if action.undoes]) == 1


@pytest.mark.parametrize("by", ["button", "link", "digest"])
def test_what_is_claimed_while_somebody_keeps_it_stays_claimed(shared: House, by: str) -> None:
    finding = shared.finding(shared.resource())
    csrf, app = shared.csrf(), create_app(shared.runtime)
    path = {
        "button": f"/findings/{finding.id}/snooze",
        "link": shared.link(finding, LinkVerb.KEEP_4H),
        "digest": shared.link_to_all(finding),
    }[by]

    def press() -> int:
        return Browser(app, shared.client.cookies).post(path, data={"csrf": csrf}).status_code

    with ThreadPoolExecutor(1) as pool:
        with first_of_all(shared.runtime.database) as (session, all_have_come):
            claimed = session.get_one(Finding, finding.id, with_for_update=True)
            claimed.status = "acting"
            session.add(claimed)
            session.flush()
            answer = pool.submit(press)
            all_have_come([answer])
        answered = answer.result(PATIENCE_SECONDS)
    [row] = shared.rows(Finding)
    assert (row.status, row.quiet_until) == ("acting", None)
    assert answered == (200 if by == "digest" else 409)
