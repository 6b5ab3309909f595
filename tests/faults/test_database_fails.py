"""The database is gone for a while, at any moment of a cycle, and back: nothing wrong is done, nothing is lost, and the
service recovers by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.app import create_app
from service.store import database
from service.store.database import Database, trouble_of
from service.store.tables import Action, Outbox
from tests.api.service_under_test import Client
from tests.databases import Postgres
from tests.faults.installation import Installation, installed
from tests.faults.wire import Wire
from tests.notify.conftest import Sink
from tests.providers.aws.front import Call, Front, Reply


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[Wire]:
    with Wire(postgres.port).laid() as wire:
        yield wire


@pytest.fixture
def here(
    postgres: Postgres, postgres_template: str, wire: Wire, front: Front, sink: Sink, no_pauses: None
) -> Iterator[Installation]:
    """Curfew on PostgreSQL, at the other end of the wire."""
    name = postgres.create(template=postgres_template)
    url = postgres.url(name).replace(str(postgres.port), str(wire.port))
    with installed(url, front, sink) as made:
        yield made
    wire.mend()
    postgres.drop(name)


def at(action: str, *, region: str = "us-east-1") -> Callable[[Call], bool]:
    return lambda call: call.action == action and call.region == region


MOMENTS: dict[str, Callable[[Call], bool]] = {
    "while it lists": at("ec2:DescribeInstances"),
    "while it asks for samples": at("cloudwatch:GetMetricData"),
    "while it looks right before acting": at("ec2:DescribeInstanceAttribute"),
    "while it acts": at("ec2:StopInstances"),
}


@pytest.mark.parametrize("sentence", MOMENTS)
def test_gone(sentence: str, here: Installation, wire: Wire) -> None:
    here.machine("trainer", "us-east-1")
    here.machine("busy", "eu-west-1", percent=90)
    assert here.cycle().error is None
    here.clock.forward(timedelta(minutes=31))
    cut: list[Call] = []

    def rule(call: Call) -> Reply | None:
        if MOMENTS[sentence](call) and not cut:
            cut.append(call)
            wire.cut()
        return None

    api = Client(create_app(here.rt))
    with here.front.within(rule):
        with pytest.raises(OperationalError):
            here.cycle()
        assert cut
        assert (api.get("/readyz").status_code, api.get("/api/v1/findings").status_code) == (503, 503)
        assert api.get("/healthz").status_code == 200, "a restart would not bring it back"

    wire.mend()
    assert api.get("/readyz").status_code == 200
    for _ in range(3):
        assert here.cycle(after=timedelta(minutes=1)).error is None
    assert here.stopped == {"trainer"}
    assert here.stops_of("trainer") == 1, "one act, never two, never none"
    assert [action.status for action in here.rows(Action)] == ["verified"]
    assert here.finding("trainer").status == "enforced"
    assert [row.status for row in here.rows(Outbox)] == ["delivered", "delivered"]


def test_gone_after_a_mail_was_taken_and_before_that_was_recorded(here: Installation, wire: Wire) -> None:
    """The one message that may come twice; it is the same one, and the grace begins with the later."""
    here.machine("trainer", "us-east-1")
    take = here.sink.handle_DATA

    async def taken_and_cut(*said: Any) -> str:
        wire.cut()
        return await take(*said)

    here.sink.handle_DATA = taken_and_cut  # type: ignore[method-assign]
    with pytest.raises(OperationalError):
        here.cycle()
    here.sink.handle_DATA = take  # type: ignore[method-assign]
    wire.mend()
    assert here.cycle(after=timedelta(minutes=5)).error is None
    first, second = here.sink.arrived
    assert first["Message-ID"] == second["Message-ID"]
    assert here.finding("trainer").due_at == here.clock.now() + timedelta(minutes=30)


def test_who_does_not_answer_at_all_is_given_up(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "CONNECT_SECONDS", 1)
    asleep = Database(f"postgresql+psycopg://postgres@127.0.0.1:{wire.port}/postgres")
    wire.freeze()
    with pytest.raises(OperationalError) as gone, asleep.reading() as session:
        session.execute(text("SELECT 1"))
    assert trouble_of(gone.value) == "the database does not answer"
    asleep.close()
