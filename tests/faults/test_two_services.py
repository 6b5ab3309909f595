"""Two services on one PostgreSQL, as processes of their own: one governs; when it is killed, the other takes over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.databases import Postgres
from tests.e2e.process import Curfew, curfew
from tests.faults.installation import SOURCE
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import ENVIRONMENT, every_minute, push_gpu_samples, sdk, set_launch_time, start_instance
from tests.providers.aws.front import NO_ANSWER, Call, Front, Reply

REGION = "us-east-1"
DOCUMENTS = """
{{kind: source, name: {source}, provider: aws, regions: [us-east-1], endpoint: "{endpoint}", telemetry_interval: 0s}}
---
{{kind: project, name: vision, owners: [lead@example.org], match: [{{tags: {{project: vision}}}}]}}
---
kind: policy
name: idle-gpus
type: idle
mode: enforce
scope: {{projects: [vision]}}
idle: {{for: 10m, warm_up: 1m}}
grace: 2s
action: stop
accept_loss: [local_disks]
disruption_budget: {{max: 100%}}
"""


@pytest.fixture
def database(postgres: Postgres, postgres_template: str) -> Iterator[str]:
    name = postgres.create(template=postgres_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def services(database: str, sink: Sink, tmp_path: Path) -> Iterator[list[Curfew]]:
    """Both govern every second, as far as the other lets them."""
    environment = {
        **ENVIRONMENT,
        "CURFEW_DATABASE_URL": database,
        "CURFEW_SECRET_KEY": "s" * 32,
        "CURFEW_CYCLE_SECONDS": "1",
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    with ExitStack() as stack:
        started = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            started.append(stack.enter_context(curfew(folder, **environment)))
        yield started


def until(told: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not told():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def governing(database: str) -> str:
    """Who holds the lease, or held it last."""
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        row = connection.execute("SELECT holder FROM lease").fetchone()
        return str(row[0]) if row else ""


@pytest.mark.parametrize("done", [False, True], ids=["before the call", "during the call"])
def test_the_one_that_governs_is_killed_as_it_acts(
    done: bool, services: list[Curfew], database: str, front: Front, sink: Sink
) -> None:
    trainer = start_instance(front.moto, "g6.xlarge", name="trainer", tags={"project": "vision"})
    set_launch_time(trainer, datetime.now(UTC) - timedelta(hours=2))
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=70)
    push_gpu_samples(front.moto, trainer, 0, every_minute(start, 70, 0))
    killed: list[Curfew] = []

    def rule(call: Call) -> Reply | None:
        if call.action != "ec2:StopInstances" or killed:
            return None
        [governor] = [one for one in services if f" {one.pid} " in governing(database)]
        if done:
            sdk(front.moto, "ec2").stop_instances(InstanceIds=call.instance_ids)
        governor.kill()
        killed.append(governor)
        return NO_ANSWER

    front.rules.insert(0, rule)
    services[0].apply(DOCUMENTS.format(source=SOURCE, endpoint=front.endpoint))
    until(lambda: bool(killed), "the machine is due")
    [left] = [one for one in services if one not in killed]
    until(lambda: [a["status"] for a in left.get("/actions")["items"]] == ["verified"], "the other takes over")
    until(lambda: left.http.get("/readyz").status_code == 200, "it is ready")
    [finding] = left.findings()
    assert finding["status"] == "enforced"
    assert front.counted["ec2:StopInstances"] == (1 if done else 2), "one act, never two, never none"
    [reservation] = sdk(front.moto, "ec2").describe_instances(InstanceIds=[trainer])["Reservations"]
    assert reservation["Instances"][0]["State"]["Name"] == "stopped"
    until(lambda: len(sink.arrived) > 1, "people are told")
    subjects = [mail["Subject"] for mail in sink.arrived]
    assert subjects == ["Will be stopped now: trainer (1×L4)", "Stopped: trainer (1×L4)"]
