"""A company in which nothing changes costs no writes, whatever its size; a page of metrics that Prometheus accepts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from providers.simulated.activity import Busy
from service.clock import SetClock
from service.cycle import say_what_changed
from service.store.database import Database
from tests.spine.company import SOURCE, Company, company, minutes

BOUNDED = {
    "project", "provider", "region", "kind", "state", "gpu_model", "capacity_type", "activity", "policy", "budget",
    "mode", "status", "verb", "outcome", "source", "step", "channel", "currency", "why",
}  # fmt: skip


@pytest.fixture
def here(sqlite_url: str, clock: SetClock) -> Iterator[Company]:
    database = Database(sqlite_url)
    with company(database, clock) as made:
        yield made
    database.close()


def test_what_does_not_change_is_not_written(here: Company) -> None:
    here.machine("idle")
    here.machine("busy", activity=Busy())
    here.cycle()
    here.cycle(after=minutes(5))

    cycle = here.cycle(after=minutes(5))

    [write] = [step for step in cycle.steps if step["step"] == "write"]
    assert write["summary"] == "0 resources and 0 findings changed"


def test_after_a_restart_nothing_is_written_and_what_the_source_keeps_is_not_kept_twice(here: Company) -> None:
    here.machine("idle")
    here.machine("busy", activity=Busy())
    here.cycles(minutes(15))
    here.restart()

    cycle = here.cycle(after=minutes(5))

    [write] = [step for step in cycle.steps if step["step"] == "write"]
    assert write["summary"] == "0 resources and 0 findings changed"
    provider = here.rt.fleet.get(SOURCE)
    assert provider is not None
    assert provider.inventory is not None
    assert here.rt.view is not None
    listed = {id(record) for record in provider.inventory.list().records}
    assert {id(known.record) for known in here.rt.view.resources.values()} == listed


def test_each_step_says_in_words_what_it_did(here: Company) -> None:
    here.machine()
    told = {step["step"]: step["summary"] for step in here.cycle().steps}
    assert (told["enforce"], told["verify"]) == ("0 resumed; no acts", "no acts")
    assert told["notify"].startswith("messages: ")
    assert told["notify"].endswith(" delivered")
    told = {step["step"]: step["summary"] for step in here.cycle(after=minutes(30)).steps}
    assert told["enforce"] == "0 resumed; 1 act taken"


def test_a_fault_of_a_source_is_logged_when_it_comes_and_when_it_ends() -> None:
    fault = {"code": "Denied", "sentence": "it may not list"}
    line = {"source": "one", "complete": True, "parts": [], "telemetry": [], "fault": None}
    before: dict[str, list[str]] = {}
    with capture_logs() as said:
        for one in (line, line | {"fault": fault}, line | {"fault": fault}, line, line):
            say_what_changed(before, [one])
    assert [(entry["event"], entry.get("faults")) for entry in said] == [
        ("a source fails", ["it may not list"]),
        ("a source is well again", None),
    ]


def test_the_metrics_page_is_what_prometheus_wants(here: Company) -> None:
    here.machine("idle")
    here.machine("busy", activity=Busy())
    for _ in range(8):
        here.cycle(after=minutes(10))
    page = here.rt.metrics

    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}
    assert labels <= BOUNDED
    avoided = sum(sample.value for sample in families["curfew_avoided_cost"].samples)
    assert avoided > 0
    assert {sample.labels["outcome"] for sample in families["curfew_actions"].samples} == {"verified"}
    gpus = {sample.labels["activity"]: sample.value for sample in families["curfew_gpus"].samples}
    assert gpus == {"busy": 8, "": 8}
