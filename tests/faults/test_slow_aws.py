"""AWS answers slowly, or not at all: at one call a second everything is found or said to be missing, and a region that
hangs does not hold up the end of the process.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.store.tables import Finding, Resource
from tests.e2e.process import curfew
from tests.faults.installation import REGIONS, SOURCE, installed
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import ENVIRONMENT, start_instance
from tests.providers.aws.front import Call, Front, Reply, error

NEAR, FAR = REGIONS
DOCUMENT = f"{{kind: source, name: {SOURCE}, provider: aws, regions: [{NEAR}, {FAR}], endpoint: '%s'}}"


@pytest.fixture
def hanging(front: Front) -> Iterator[threading.Event]:
    """The far region takes every call and answers none, until the test is over. Set once it was asked."""
    asked, over = threading.Event(), threading.Event()

    def rule(call: Call) -> Reply | None:
        if call.region != FAR:
            return None
        asked.set()
        over.wait(120)
        return Reply(status=503)

    front.rules.insert(0, rule)
    yield asked
    over.set()


def test_a_service_that_is_stopped_ends_its_cycle_in_order_and_waits_for_no_region_that_hangs(
    front: Front, hanging: threading.Event, tmp_path: Path
) -> None:
    start_instance(front.moto, "g6.xlarge", region=NEAR)
    with curfew(tmp_path, **ENVIRONMENT, CURFEW_ALLOW_ENDPOINTS="127.0.0.1") as service:
        service.apply(DOCUMENT % front.endpoint)
        service.post("/cycles")
        assert hanging.wait(30)
        os.kill(service.pid, signal.SIGTERM)
        assert service.ended(within=20) == 0
        assert "Traceback" not in service.log.read_text()
    with sqlite3.connect(tmp_path / "home" / "curfew.db") as database:
        [(finished, error, sources)] = database.execute("SELECT finished_at, error, sources FROM cycle").fetchall()
        [(expires,)] = database.execute("SELECT expires_at FROM lease").fetchall()
    assert (finished is not None, error) == (True, None)
    assert "did not answer before the service was stopped" in sources
    assert datetime.fromisoformat(expires).replace(tzinfo=UTC) <= datetime.now(UTC), "whoever comes next need not wait"


class OneCallASecond:
    """Refuses whatever comes within a second of the last call it let through, as AWS would."""

    def __init__(self) -> None:
        self.refused = 0
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Reply | None:
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self.refused += 1
                code = "RequestLimitExceeded" if call.service == "ec2" else "ThrottlingException"
                return error(call.service, code, "slow down")
            self._next = now + 1
            return None


def test_at_one_call_a_second_everything_is_found_or_said_to_be_missing(
    sqlite_url: str, front: Front, sink: Sink
) -> None:
    """In real time, with the SDK's own pauses."""
    with installed(sqlite_url, front, sink) as here:
        idle = {f"trainer-{number}" for number in range(8)}
        for name in idle:
            here.machine(name, NEAR)
        here.machine("busy", NEAR, percent=80)
        throttle = OneCallASecond()
        with front.within(throttle):
            cycle = here.cycle()
        assert cycle.error is None
        assert throttle.refused > 0
        seen = {row.id: row.name for row in here.rows(Resource)}
        warned = {seen[row.resource_id] for row in here.rows(Finding)}
        [told] = cycle.sources
        assert warned <= idle
        assert len(seen) == len(here.machines) or not told["complete"]
        assert warned == idle or told["telemetry"] or not told["complete"]
