"""Measures no time but truth: 116 GPU machines of which 35 idle, behind an account that lets one call through a second.

Curfew and Cloud Custodian (0.9.53, in an environment of its own, `bench/.venv`) are asked for the idle ones, one after
the other, of the same stand-in for AWS. What each found is counted, and what it says of the rest is printed.
Usage: python -m bench.throttled [--machines 116] [--idle 35] [--without-custodian]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from service.store.tables import Finding, Resource
from tests.databases import migrated_sqlite
from tests.faults.installation import SOURCE, installed
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import (
    ENVIRONMENT,
    moto_endpoint,
    push_gpu_samples,
    reset,
    sdk,
    set_launch_time,
    start_instance,
)
from tests.providers.aws.front import Call, Front, Reply, error

CUSTODIAN = "c7n==0.9.53"
HERE = Path(__file__).parent
REGION = "us-east-1"
POLICY = {
    "policies": [
        {
            "name": "idle",
            "resource": "aws.ec2",
            "filters": [
                {"State.Name": "running"},
                {"type": "value", "key": "InstanceType", "op": "regex", "value": "^(p[2-6]|g[3-6]).*"},
                {
                    "type": "metrics",
                    "namespace": "Bench",
                    "name": "CPUUtilization",
                    "days": 0.0833334,
                    "period": 300,
                    "statistics": "Average",
                    "op": "less-than",
                    "value": 5,
                },
            ],
        }
    ]
}
"""As its documentation finds idle machines; the metric is one of ours, with the very samples that Curfew gets."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one of them made of it."""

    who: str
    found: set[str]
    said: Sequence[str]
    succeeded: bool
    calls: int
    refused: int
    seconds: float

    def print(self, idle: set[str]) -> None:
        print(
            f"  {self.who}: {len(self.found & idle)} of {len(idle)} found, {len(self.found - idle)} wrongly; "
            f"{self.calls} calls, {self.refused} refused, {self.seconds:.0f} s; "
            f"it calls that {'a success' if self.succeeded else 'incomplete'}"
        )
        for line in self.said:
            print(f"    says: {line[:200]}")


class Throttle:
    """Refuses whatever comes too soon after the last call it let through, as AWS would."""

    def __init__(self, *, pause: float) -> None:
        self.refused = self.calls = 0
        self._pause = pause
        self._next = 0.0
        self._lock = threading.Lock()

    def __call__(self, call: Call) -> Reply | None:
        with self._lock:
            self.calls += 1
            now = time.monotonic()
            if now < self._next:
                self.refused += 1
                code = "RequestLimitExceeded" if call.service == "ec2" else "ThrottlingException"
                return error(call.service, code, "Rate exceeded")
            self._next = now + self._pause
            return None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--machines", type=int, default=116)
    arguments.add_argument("--idle", type=int, default=35)
    arguments.add_argument("--without-custodian", action="store_true")
    chosen = arguments.parse_args()
    for name, value in ENVIRONMENT.items():
        os.environ[name] = value
    with moto_endpoint() as moto:
        reset(moto)
        with Front(moto).serving() as front:
            now = datetime.now(UTC).replace(second=0, microsecond=0)
            machines = fleet(moto, chosen.machines, chosen.idle, now)
            idle = {instance for instance, is_idle in machines.items() if is_idle}
            for pause in (0.0, 1.0):
                print("without throttling" if not pause else f"one call in {pause:g} s")
                answers = [in_a_folder(curfew, front, now, pause)]
                if not chosen.without_custodian:
                    answers.append(in_a_folder(custodian, front, now, pause))
                for answer in answers:
                    answer.print(idle)
                    assert pause or answer.found == idle, "with all the time in the world both find the same"
                assert answers[0].found <= idle, "a busy machine was taken for an idle one"
                assert answers[0].found == idle or not answers[0].succeeded, "what is missing was not said"


def in_a_folder(ask: Callable[..., Answer], front: Front, now: datetime, pause: float) -> Answer:
    with TemporaryDirectory() as folder:
        return ask(front, Path(folder), now, pause=pause)


def fleet(moto: str, machines: int, idle: int, now: datetime) -> dict[str, bool]:
    """Instance id → whether it idles, the same in both metrics."""
    found = {}
    idling = set(random.Random(0).sample(range(machines), idle))
    for number in range(machines):
        instance = start_instance(
            moto, "g6.xlarge", name=f"trainer-{number}", tags={"project": "vision"}, region=REGION
        )
        set_launch_time(instance, now - timedelta(hours=5), region=REGION)
        percent = 0.0 if number in idling else 80.0
        samples = [(now - timedelta(minutes=minute), percent) for minute in range(118, 0, -4)]
        push_gpu_samples(moto, instance, 0, samples, region=REGION)
        sdk(moto, "cloudwatch", REGION).put_metric_data(
            Namespace="Bench",
            MetricData=[
                {
                    "MetricName": "CPUUtilization",
                    "Dimensions": [{"Name": "InstanceId", "Value": instance}],
                    "Timestamp": at,
                    "Value": value,
                }
                for at, value in samples
            ],
        )
        found[instance] = number in idling
    return found


@contextmanager
def within(front: Front, throttle: Throttle) -> Iterator[Throttle]:
    with front.within(throttle):
        yield throttle


def curfew(front: Front, folder: Path, now: datetime, *, pause: float) -> Answer:
    """One cycle, its first."""
    migrated_sqlite(folder)
    with installed(f"sqlite:///{folder / 'template.db'}", front, Sink(port=9), home=folder) as here:
        here.clock.at = now
        with within(front, Throttle(pause=pause)) as throttle:
            began = time.monotonic()
            cycle = here.cycle()
            seconds = time.monotonic() - began
        [told] = [line for line in cycle.sources if line["source"] == SOURCE]
        faults = [part["fault"]["sentence"] for part in (*told["parts"], *told["telemetry"]) if part["fault"]]
        known = {row.id: row.external_id for row in here.rows(Resource)}
        return Answer(
            who="Curfew",
            found={known[row.resource_id] for row in here.rows(Finding)},
            said=[cycle.error] if cycle.error else faults,
            succeeded=cycle.error is None and not faults,
            calls=throttle.calls,
            refused=throttle.refused,
            seconds=seconds,
        )


def custodian(front: Front, folder: Path, now: datetime, *, pause: float) -> Answer:
    """One run of its policy for idle machines."""
    environment = HERE / ".venv"
    program = environment / "bin" / "custodian"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", CUSTODIAN]
        subprocess.run(pip, check=True)
    (folder / "policy.json").write_text(json.dumps(POLICY))
    with within(front, Throttle(pause=pause)) as throttle:
        began = time.monotonic()
        ran = subprocess.run(
            [program, "run", "--region", REGION, "--cache-period", "0", "-s", folder / "out", folder / "policy.json"],
            env={**os.environ, "AWS_ENDPOINT_URL": front.endpoint, "AWS_DEFAULT_REGION": REGION, "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - began
    resources = folder / "out" / "idle" / "resources.json"
    found = json.loads(resources.read_text()) if resources.exists() else []
    said = [line for line in ran.stderr.splitlines() if re.search("WARNING|ERROR", line)]
    return Answer(
        who=f"Cloud Custodian ({CUSTODIAN}, exit {ran.returncode})",
        found={resource["InstanceId"] for resource in found},
        said=said,
        succeeded=ran.returncode == 0,
        calls=throttle.calls,
        refused=throttle.refused,
        seconds=seconds,
    )


if __name__ == "__main__":
    main()
