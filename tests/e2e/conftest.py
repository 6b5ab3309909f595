"""A whole installation on loopback: moto behind a proxy, a mail server, and Curfew as a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.databases import Postgres
from tests.e2e.process import Curfew, curfew
from tests.notify.conftest import Sink, sink
from tests.providers.aws.conftest import moto_server
from tests.providers.aws.fleet import (
    ENVIRONMENT,
    every_minute,
    push_gpu_samples,
    reset,
    set_launch_time,
    start_instance,
)
from tests.providers.aws.front import Front

__all__ = ["moto_server", "sink"]

DOCUMENTS = """
kind: source
name: research-aws
provider: aws
regions: [us-east-1]
endpoint: {endpoint}
telemetry_interval: 0s
---
kind: project
name: vision
owners: [vision-lead@example.org]
timezone: Asia/Ho_Chi_Minh
match:
  - tags: {{project: vision}}
---
kind: policy
name: idle-gpus
type: idle
mode: enforce
scope: {{projects: [vision]}}
idle: {{for: 10m, warm_up: 1m}}
grace: {grace}
action: stop
accept_loss: [local_disks]
disruption_budget: {{max: 100%}}
"""


@pytest.fixture
def front(moto_server: str) -> Iterator[Front]:
    """An empty AWS account behind a proxy that knows AWS's own refusals."""
    reset(moto_server)
    with Front(moto_server).serving() as front:
        yield front


@dataclass
class Installation:
    """Everything a test reaches for."""

    curfew: Curfew
    front: Front
    sink: Sink

    def documents(self, *, grace: str = "2s", more: str = "") -> None:
        self.curfew.apply(DOCUMENTS.format(endpoint=self.front.endpoint, grace=grace) + more)

    def machine(self, name: str, sku: str = "g6.xlarge", *, percent: float = 0, gpus: int = 1, **more: object) -> str:
        """A running machine of `vision`, launched two hours ago, with that utilisation until now."""
        tags = {"project": "vision", **more.pop("tags", {})}  # type: ignore[dict-item]
        instance = start_instance(self.front.moto, sku, name=name, tags=tags, **more)  # type: ignore[arg-type]
        self.age(instance)
        self.sampled(instance, percent=percent, gpus=gpus)
        return instance

    def age(self, instance: str, hours: float = 2) -> None:
        set_launch_time(instance, datetime.now(UTC) - timedelta(hours=hours))

    def sampled(self, instance: str, *, percent: float, gpus: int = 1, minutes: int = 70) -> None:
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=minutes)
        for gpu in range(gpus):
            push_gpu_samples(
                self.front.moto, instance, gpu, every_minute(start, minutes, percent), memory=70000, power=80
            )


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path: Path, front: Front, sink: Sink) -> Iterator[Installation]:
    """Curfew at the ceiling `enforce`, once on each database."""
    database = ""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        database = server.url(server.create())
    environment = {
        **ENVIRONMENT,
        "CURFEW_DATABASE_URL": database,
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    with curfew(tmp_path, **environment) as service:
        yield Installation(curfew=service, front=front, sink=sink)
