"""Curfew in this process on a clock that is set, governing an AWS account over HTTP and writing real mails.

What it did is asked of moto; what it says, of its report, its metrics and its API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlmodel import select

from service.app import create_app
from service.clock import SetClock
from service.cycle import run_cycle
from service.documents import MODELS
from service.runtime import Runtime, compose
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Cycle, Document, Finding, Resource, new_id
from tests.api.service_under_test import ADMIN, Client
from tests.conftest import MONDAY
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import push_gpu_samples, sdk, set_launch_time, start_instance
from tests.providers.aws.front import Front

SOURCE = "research-aws"
REGIONS = ("us-east-1", "eu-west-1")


@dataclass
class Installation:
    """What a test holds in its hands."""

    rt: Runtime
    clock: SetClock
    front: Front
    sink: Sink
    machines: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name → region and instance id."""

    def machine(self, name: str, region: str, *, percent: float = 0, until: timedelta = timedelta(hours=3)) -> None:
        """A running machine of `vision`, as busy as that from before now until then."""
        instance = start_instance(self.front.moto, "g6.xlarge", name=name, tags={"project": "vision"}, region=region)
        set_launch_time(instance, self.clock.now() - timedelta(hours=3), region=region)
        self.machines[name] = (region, instance)
        self.sampled(name, percent=percent, since=timedelta(minutes=-70), until=until)

    def sampled(self, name: str, *, percent: float, since: timedelta, until: timedelta) -> None:
        """Samples every four minutes."""
        region, instance = self.machines[name]
        start, minutes = self.clock.now() + since, int((until - since).total_seconds()) // 60
        samples = [(start + timedelta(minutes=minute), percent) for minute in range(0, minutes, 4)]
        push_gpu_samples(self.front.moto, instance, 0, samples, region=region)

    def document(self, kind: str, **body: Any) -> None:
        model = MODELS[kind].validate_python(body)  # type: ignore[index]
        with self.rt.database.transaction() as session:
            session.add(
                Document(
                    kind=kind,
                    name=body["name"],
                    version=1,
                    body=model.model_dump(mode="json", exclude_unset=True, by_alias=True),
                    updated_at=self.clock.now(),
                    updated_by="test",
                )
            )

    def cycle(self, *, after: timedelta = timedelta(0)) -> Cycle:
        """Let time pass, then run one cycle."""
        self.clock.forward(after)
        cycle_id = new_id()
        run_cycle(self.rt, cycle_id=cycle_id, requested_by="test")
        with self.rt.database.reading() as session:
            return session.get_one(Cycle, cycle_id)

    def rows(self, table: type[Any]) -> list[Any]:
        with self.rt.database.reading() as session:
            return list(session.exec(select(table)).all())

    def finding(self, name: str) -> Finding:
        """The newest one of a machine."""
        [resource] = [row for row in self.rows(Resource) if row.external_id == self.machines[name][1]]
        found: list[Finding] = [row for row in self.rows(Finding) if row.resource_id == resource.id]
        return max(found, key=lambda finding: finding.opened_at)

    # the truth, asked of the cloud and of the mail server

    def state(self, name: str) -> str:
        region, instance = self.machines[name]
        answer = sdk(self.front.moto, "ec2", region).describe_instances(InstanceIds=[instance])
        state: str = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
        return state

    @property
    def stopped(self) -> set[str]:
        return {name for name in self.machines if self.state(name) == "stopped"}

    def stops_of(self, name: str) -> int:
        """How often it was asked for, retries included."""
        instance = self.machines[name][1]
        calls = [call for call in self.front.calls if call.action == "ec2:StopInstances"]
        return sum(instance in call.instance_ids for call in calls)

    # what it says

    def report(self, cycle: Cycle) -> str:
        return json.dumps([line for line in cycle.sources if line["source"] == SOURCE])

    @property
    def errors_counted(self) -> int:
        """`curfew_source_errors_total`, as scraped."""
        for line in self.rt.metrics.decode().splitlines():
            if line.startswith(f'curfew_source_errors_total{{source="{SOURCE}"}}'):
                return int(float(line.rpartition(" ")[2]))
        return 0

    @property
    def health(self) -> dict[str, Any]:
        """How the source does, as the API and the overview tell it."""
        answer = Client(create_app(self.rt)).get(f"/api/v1/sources/{SOURCE}")
        found: dict[str, Any] = answer.json()["metadata"]["health"]
        return found


@contextmanager
def installed(database_url: str, front: Front, sink: Sink, **settings: Any) -> Iterator[Installation]:
    """An account of two regions, one project, one enforcing policy."""
    clock, database = SetClock(MONDAY), Database(database_url)
    chosen = {
        "admin_token": ADMIN,
        "secret_key": "s" * 32,
        "ceiling": "enforce",
        "breaker": "100%",
        "public_url": "https://curfew.example.org",
        "mail": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "allow_targets": "127.0.0.1",
        "allow_endpoints": "127.0.0.1",
    }
    here = Installation(
        rt=compose(Settings(**{**chosen, **settings}), clock=clock, database=database),
        clock=clock,
        front=front,
        sink=sink,
    )
    here.document(
        "source", name=SOURCE, provider="aws", regions=list(REGIONS), endpoint=front.endpoint, telemetry_interval="0s"
    )
    here.document("project", name="vision", owners=["lead@example.org"], match=[{"tags": {"project": "vision"}}])
    here.document(
        "policy",
        name="idle-gpus",
        type="idle",
        mode="enforce",
        scope={"projects": ["vision"]},
        idle={"for": "45m"},
        grace="30m",
        action="stop",
        accept_loss=["local_disks"],
        disruption_budget={"max": "100%"},
    )
    yield here
    database.close()
