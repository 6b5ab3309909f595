"""The mail server is dead for an hour: warnings wait, nothing stops, and the grace begins with the delivery."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from aiosmtpd.controller import Controller

from service.store.tables import Action, Outbox
from tests.databases import free_port
from tests.faults.installation import Installation, installed
from tests.notify.conftest import Sink
from tests.providers.aws.front import Front


@pytest.fixture
def mail() -> Iterator[Controller]:
    """A mail server that is started and stopped at will, always on the same port."""
    sink = Sink()
    sink.port = free_port()
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port)
    yield controller
    controller.stop()


@pytest.fixture
def here(sqlite_url: str, front: Front, mail: Controller, no_pauses: None) -> Iterator[Installation]:
    with installed(sqlite_url, front, mail.handler) as made:
        yield made


def test_dead_for_an_hour_and_back(here: Installation, mail: Controller) -> None:
    here.machine("trainer", "us-east-1")
    here.machine("other", "eu-west-1")
    cycles = [here.cycle(), *(here.cycle(after=timedelta(minutes=5)) for _ in range(12))]
    assert {cycle.error for cycle in cycles} == {None}
    assert "messages: 2 failed" in [step["summary"] for step in cycles[0].steps]
    assert here.finding("trainer").status == "open"
    assert here.stopped == set()
    assert {(row.status, row.error) for row in here.rows(Outbox) if row.kind == "warning"} == {
        ("pending", f"the mail server 127.0.0.1:{mail.port} does not answer: Connection refused")
    }
    assert 'curfew_notifications_total{channel="mail",outcome="pending"}' in here.rt.metrics.decode()

    mail.start()
    here.cycle(after=timedelta(minutes=31))  # by then each has its next try
    delivered = here.clock.now()
    assert here.finding("trainer").due_at == delivered + timedelta(minutes=30), "the grace begins with the delivery"
    for _ in range(5):
        here.cycle(after=timedelta(minutes=5))
    assert here.stopped == set(), "it is not over yet"
    here.cycle(after=timedelta(minutes=6))
    assert here.stopped == {"trainer", "other"}
    here.cycle(after=timedelta(minutes=1))
    assert {action.status for action in here.rows(Action)} == {"verified"}
    assert [message["Subject"] for message in here.sink.arrived] == [
        "2 machines of vision will be stopped in 30 minutes: $1.61 an hour",
        "2 machines of vision were stopped",
    ]
