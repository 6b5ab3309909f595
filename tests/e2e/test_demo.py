"""What a newcomer does first: `make run`, and look. A real Prometheus scrapes it meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.databases import free_port
from tests.waiting import soon

ROOT = Path(__file__).parents[2]
POLL = 0.25
"""Seconds. The demo and its Prometheus are at work meanwhile."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """`make run` in a process group of its own; its address."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "DEMO_HOME": str(tmp_path / "demo"), "CURFEW_ADMIN_TOKEN": "demo"}
    with (tmp_path / "demo.log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def prometheus(demo: str, tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that scrapes the demo every second; its address."""
    config = tmp_path / "prometheus.yml"
    target = demo.removeprefix("http://")
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: curfew, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def test_within_a_minute_people_are_warned_machines_stop_and_money_is_avoided(demo: str, prometheus: str) -> None:
    def api(path: str) -> Any:
        return httpx.get(f"{demo}/api/v1{path}", headers={"Authorization": "Bearer demo"}).json()

    def query(expression: str) -> float:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    soon(lambda: httpx.get(f"{demo}/readyz").status_code == 200, "the service is ready", within=60, every=POLL)

    soon(lambda: api("/findings?status=warned")["items"], "people are warned", within=60, every=POLL)
    soon(
        lambda: [a for a in api("/actions")["items"] if a["status"] == "verified"],
        "machines stop",
        within=60,
        every=POLL,
    )
    first = soon(lambda: query("sum(curfew_avoided_cost_total)"), "avoided money is scraped", within=30, every=POLL)
    soon(lambda: query("sum(curfew_avoided_cost_total)") > first, "avoided money grows", within=30, every=POLL)

    resources = api("/resources?limit=500")["items"]
    assert 50 <= len(resources) <= 80
    assert {resource["provider"] for resource in resources} == {"aws", "azure", "gcp", "kubernetes"}
    for path in ("/", "/docs", "/metrics", "/openapi.json"):
        assert httpx.get(f"{demo}{path}").status_code == 200

    silent = {r["name"] for r in resources if (r["state"], r["activity"]) == ("running", "unknown")}
    by_id = {resource["id"]: resource["name"] for resource in resources}
    acted_on = {by_id[action["resource"]] for action in api("/actions?limit=500")["items"]}
    assert "flaky-metrics" in silent
    assert not acted_on & silent, "what is silent is never stopped"


def test_the_accelerated_clock_refuses_every_source_that_is_not_simulated(demo: str) -> None:
    soon(lambda: httpx.get(f"{demo}/healthz").status_code == 200, "the service answers", within=60, every=POLL)

    answer = httpx.put(
        f"{demo}/api/v1/sources/real",
        headers={"Authorization": "Bearer demo"},
        json={"provider": "aws", "regions": ["us-east-1"]},
    )

    assert answer.status_code == 422
    assert "simulated" in answer.text
