"""A whole installation with a provider from outside: a machine is warned about, stopped and put back like any other."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.process import Curfew, curfew
from tests.notify.conftest import Sink, sink
from tests.outside.conftest import Installed
from tests.outside.rentals.tests.company import Company, Machine
from tests.outside.test_guide import fences

__all__ = ["sink"]

TOKEN = "a-token-of-the-company"
MINUTES = 70

MORE = """
---
kind: project
name: vision
owners: [vision-lead@example.org]
currency: EUR
match:
  - tags: {project: vision}
---
kind: policy
name: idle-gpus
type: idle
mode: enforce
scope: {projects: [vision]}
idle: {for: 10m, warm_up: 1m}
grace: 3s
action: stop
accept_loss: [local_disks]
disruption_budget: {max: 100%}
"""


@pytest.fixture
def company() -> Iterator[Company]:
    with Company(token=TOKEN).serving() as company:
        yield company


@pytest.fixture
def service(tmp_path: Path, installed: Installed, sink: Sink) -> Iterator[Curfew]:
    environment = {
        "PYTHONPATH": str(installed.site),
        "CURFEW_SECRET_RENTALS_TOKEN": TOKEN,
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    with curfew(tmp_path, **environment) as service:
        yield service


def sampled(company: Company, machine: Machine, percent: float) -> None:
    now = int(time.time())
    for gpu in range(machine.told()["gpus"]):
        company.usage[machine.id, gpu] = [(now - 60 * minute, percent) for minute in range(MINUTES, -1, -1)]


def asked(company: Company, what: str) -> list[str]:
    """What it was asked to do, and to which machine."""
    return [call.path for call in company.calls if call.method == "POST" and call.path.endswith(what)]


def test_a_rented_machine_is_warned_about_stopped_and_put_back(company: Company, service: Curfew, sink: Sink) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    here = {"started_at": long_ago, "tags": {"project": "vision"}}
    idle = company.rent(name="trainer", type="h100x8", scratch_gb=900, **here)
    busy = company.rent(name="busy", **here)
    locked = company.rent(name="golden", site="hanoi", locked=True, **here)
    pooled = company.rent(name="worker", pool="render", **here)
    for machine, percent in ((idle, 0.0), (busy, 93.0), (locked, 0.0), (pooled, 0.0)):
        sampled(company, machine, percent)
    [source] = [text for language, text in fences() if language == "yaml"]
    service.apply(re.sub(r"https://api\.[a-z.]+", company.url, source) + MORE)

    report = service.cycle()
    assert report["error"] is None
    assert all(one["complete"] for one in report["sources"]), report["sources"]
    found = service.resources()
    assert set(found) == {idle.id, busy.id, locked.id, pooled.id}
    told = found[idle.id]
    assert (told["provider"], told["account"], told["region"]) == ("rentals", company.account, "berlin")
    assert (told["gpu_model"], told["gpu_count"], told["activity"]) == ("H100", 8, "idle")
    assert told["hourly_cost"] == {"amount_micros": 21_600_000, "currency": "EUR"}
    assert found[busy.id]["activity"] == "busy"
    [mail] = sink.arrived
    assert mail["To"] == "vision-lead@example.org"
    text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert "trainer" in text
    assert "scratch disk of 900 GB" in text
    assert asked(company, "/stop") == []

    time.sleep(3.2)
    service.cycle()
    company.settle()
    service.cycle()
    assert asked(company, "/stop") == [f"/v1/machines/{idle.id}/stop"]
    assert [company.machines[one.id].state for one in (idle, busy, locked, pooled)] == ["stopped", *["running"] * 3]
    [stop] = [call for call in company.calls if call.path.endswith("/stop")]
    [action] = service.get("/actions")["items"]
    assert (action["status"], action["verb"], stop.key) == ("verified", "stop", action["id"])
    assert stop.note == action["reason"]
    assert service.resources()[idle.id]["state"] == "stopped"

    service.post(f"/actions/{action['id']}/undo")
    service.cycle()
    company.settle()
    service.cycle()
    assert asked(company, "/start") == [f"/v1/machines/{idle.id}/start"]
    assert company.machines[idle.id].state == "running"
    assert service.get(f"/actions/{action['id']}")["status"] == "undone"

    sampled(company, idle, 0.0)
    for _ in range(2):
        service.cycle()
    assert asked(company, "/stop") == [f"/v1/machines/{idle.id}/stop"]
