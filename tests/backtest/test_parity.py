"""A back-test of a day stops what the live cycle would have stopped, at the same look: `decide` is run tick by tick on
the same samples, with warnings delivered at once and stops that take effect."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from policies.policy import BasePolicy, Policy
from providers.records import Series, Signal, State, resource_id
from service.backtest.question import Question
from service.backtest.replay import backtest
from service.documents import Project
from service.model import FindingState, Known, PastAct, Status, Telemetry
from service.pipeline.decide import decide
from service.pipeline.plan import Standing
from tests.backtest.pasts import T0, Machine, at, running, stopped, written
from tests.pipeline.builders import answer, in_force, world

STEP = 600
VISION = Project.model_validate(
    {"name": "vision", "timezone": "Asia/Ho_Chi_Minh", "match": [{"tags": {"project": "vision"}}]}
)
PROJECTS = {"vision": VISION}


def policy_of(**given: Any) -> BasePolicy:
    found: BasePolicy = TypeAdapter(Policy).validate_python(
        {"name": "p", "mode": "enforce", "accept_loss": ["local_disks"], **given}
    )
    return found


class Live:
    """A cycle every ten minutes, without any cloud: what is stopped is stopped until its work would have resumed."""

    def __init__(self, machines: list[Machine], policy: BasePolicy) -> None:
        self.machines = {one.id: one for one in machines}
        self.policy = in_force(policy, stricter_since=None)
        self.threshold = getattr(policy, "idle", None).utilisation_below if hasattr(policy, "idle") else 0.05
        self.findings: dict[str, FindingState] = {}
        self.acts: list[tuple[int, PastAct]] = []
        self.down: dict[str, int | None] = {}
        """Stopped by us → when work resumes."""
        self.restarted: dict[str, int] = {}
        self.stops: list[tuple[str, int]] = []
        self.warnings = 0
        self.prior: dict[tuple[str, str], datetime] = {}

    def look(self, second: int) -> None:
        now = at(second)
        for name, resumes in list(self.down.items()):
            was = self._was(name, second)
            if was is None or was.record.state is not State.RUNNING:  # by its people; what they do next is theirs
                del self.down[name]
            elif resumes is not None and resumes <= second:
                del self.down[name]
                self.restarted[name] = resumes
        here = {name: known for name in self.machines if (known := self._was(name, second)) is not None}
        here = {name: self._as_it_is(name, known) for name, known in here.items()}
        ruling = decide(
            world(
                *(replace(known, id=id_of(known)) for known in here.values()),
                policies=[self.policy],
                answers=[answer(*(known.record for known in here.values()))],
                telemetry=Telemetry(
                    series={id_of(known): self._heard(name, known, second) for name, known in here.items()},
                    prior_idle=self.prior,
                ),
                projects=PROJECTS,
                standing=Standing(
                    findings=[finding for finding in self.findings.values() if finding.status.active],
                    acts=[act for when, act in self.acts if when > second - 3600],
                ),
            ),
            now,
        )
        self.prior = ruling.judged.idle_since()
        for finding in ruling.plan.findings:
            self.findings[finding.id] = replace(finding, was=None)
        for message in ruling.plan.messages:
            if message.kind == "warning" and message.finding_id is not None:
                self.warnings += 1
                finding = self.findings[message.finding_id]
                due = now + self.policy.policy.grace if message.payload["acts"] else None
                self.findings[finding.id] = replace(finding, status=Status.WARNED, warned_at=now, due_at=due)
        for intent in ruling.plan.intents:
            name = intent.resource.record.name
            self.stops.append((name, second))
            self.down[name] = self._resumes(name, second)
            self.findings[intent.finding.id] = replace(
                self.findings[intent.finding.id], status=Status.CLOSED, closed_at=now
            )
            price = intent.resource.price
            self.acts.append(
                (
                    second,
                    PastAct(
                        policy=self.policy.policy.name,
                        resource_id=intent.resource.id,
                        gpus=float(intent.resource.record.gpu_count),
                        rate_micros=price.rate_micros if price else 0,
                        currency=price.currency if price else None,
                    ),
                )
            )

    def _was(self, name: str, second: int) -> Known | None:
        return next((known for start, end, known in self.machines[name].was if start <= second < end), None)

    def _as_it_is(self, name: str, known: Known) -> Known:
        if name in self.down:
            return replace(known, record=replace(known.record, state=State.STOPPED), started_at=None)
        if name in self.restarted:
            last = max(at(self.restarted[name]), known.restarted_at or at(0))
            return replace(known, restarted_at=last)
        return known

    def _heard(self, name: str, known: Known, second: int) -> tuple[Series, ...]:
        if name in self.down:
            return ()
        return tuple(
            Series(
                ref=known.record.ref,
                device=device,
                signal=Signal.UTILISATION,
                times=tuple(time for time, _ in said if time <= second),
                values=[value for time, value in said if time <= second],
            )
            for device, said in self.machines[name].said.items()
            if said and said[0][0] <= second
        )

    def _resumes(self, name: str, second: int) -> int | None:
        for said in self.machines[name].said.values():
            before = [sample for sample in said if sample[0] <= second]
            if before and before[-1][1] >= self.threshold and second < before[-1][0] + 60:
                return second  # it works just now
        work = (
            time
            for said in self.machines[name].said.values()
            for time, value in said
            if value >= self.threshold and time >= second
        )
        return min(work, default=None)


def id_of(known: Known) -> str:
    return resource_id(known.record.ref, known.record.incarnation)


def a_day(seed: int) -> list[Machine]:
    """Machines of one or two GPUs that work in bursts, some with holes, some stopped and started by their people."""
    dice = random.Random(seed)
    machines = []
    for number in range(3):
        name, gpus = f"m{number}", dice.choice([1, 1, 2])
        start, end = T0, T0 + 86400
        hourly = 1_000_000 * (number + 1)  # never a tie between two
        said: dict[str, list[tuple[int, float]]] = {}
        for device in range(gpus):
            samples, time, value = [], start + dice.randrange(60), 0.0
            while time < end:
                if dice.random() < 0.008:
                    value = dice.choice([0.0, 0.0, 0.9])
                if dice.random() < 0.002:
                    time += dice.randrange(1, 4000)
                samples.append((time, value))
                time += 60
            said[str(device)] = samples
        if dice.random() < 0.4:
            off = start + dice.randrange(20000, 60000)
            again = off + dice.randrange(600, 9000)
            was = [
                (start, off, running(name, gpus=gpus, hourly=hourly)),
                (off, again, stopped(name, gpus=gpus, hourly=hourly)),
                (again, end, running(name, gpus=gpus, hourly=hourly, since=at(again), restarted_at=at(again))),
            ]
            said = {device: [one for one in of if not off <= one[0] < again] for device, of in said.items()}
        else:
            was = [(start, end, running(name, gpus=gpus, hourly=hourly))]
        machines.append(Machine(name, was=was, said=said))
    return machines


POLICIES = {
    "idle, with a cool-down": policy_of(type="idle", grace="30m", disruption_budget={"max": "100%"}),
    "one act an hour": policy_of(type="idle", idle={"for": "20m"}, grace="10m", disruption_budget={"max": 1}),
    "no grace at all": policy_of(type="idle", idle={"for": "90m"}, grace="0s", disruption_budget={"max": "100%"}),
    "a condition on hours of idling": policy_of(
        type="expression", expression={"when": "idle_seconds > 7200"}, grace="20m", disruption_budget={"max": "100%"}
    ),
    "outside of working hours": policy_of(
        type="schedule", schedule={"on": "Mo-Fr 08:00-20:00"}, grace="30m", disruption_budget={"max": "100%"}
    ),
    "after some hours of running": policy_of(
        type="lifetime", lifetime={"max": "30h"}, grace="1h", disruption_budget={"max": "100%"}
    ),
    "larger machines alone": policy_of(
        type="idle", scope={"where": "gpu_count >= 2"}, disruption_budget={"max": "50%"}
    ),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_stops_at_the_same_looks_as_live(policy: BasePolicy, seed: int, tmp_path: Path) -> None:
    machines = a_day(seed)
    live = Live(machines, policy)
    for second in range(-(-T0 // STEP) * STEP, T0 + 86400, STEP):
        live.look(second)
    report = backtest(
        written(tmp_path, machines),
        Question(policy=policy, step=timedelta(seconds=STEP), projects=PROJECTS),
    )
    assert {(stop.resource, int(stop.at.timestamp())) for stop in report.stops} == set(live.stops)
    assert report.totals.warnings == live.warnings
