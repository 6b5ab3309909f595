"""What the rules read is what the service writes: names, labels and words, on a page on which everything happened."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from providers.errors import Unreachable
from service.clock import SetClock
from service.store.tables import Hold
from tests.prometheus_rules.rules import PLACE, RULES, promtool
from tests.spine.company import ENFORCING, Company, minutes, small_company

METRIC = re.compile(r"(?<![:\w])(curfew_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on|without) \(([^)]*)\)")


@pytest.fixture
def here(sqlite_url: str, clock: SetClock) -> Iterator[Company]:
    with small_company(sqlite_url, clock) as made:
        yield made


@pytest.fixture
def page(here: Company) -> str:
    """An act had no effect, a source was silent, the mail server takes nothing more, and one project is on hold."""
    here.document(
        "project",
        name="vision",
        owners=["lead@example.org"],
        match=[{"tags": {"project": "vision"}}],
        spend_budgets=[{"name": "monthly", "period": "month", "amount": 1000}],
    )
    here.document("policy", **{**ENFORCING, "name": "canary", "mode": "observe", "rollout": "5%"})
    here.machine(stubborn=True)
    here.cycle()
    here.cycle(after=minutes(30))
    here.cycle(after=minutes(31))
    here.cloud.fail(Unreachable("no answer"), "list", times=1)
    here.cycle(after=minutes(1))
    here.postman.dead = True
    here.machine("another")
    with here.rt.database.transaction() as session:
        session.add(Hold(project="vision", reason="a visit", created_by="lead", created_at=here.clock.now()))
    here.cycle(after=minutes(1))
    return here.rt.metrics.decode()


def test_promtool_finds_no_fault_in_the_page(page: str) -> None:
    done = promtool("check", "metrics", stdin=page.encode())

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_would_find_one() -> None:
    assert promtool("check", "metrics", stdin=b"# TYPE curfew_cost counter\ncurfew_cost 1\n").returncode != 0


def test_every_rule_reads_metrics_and_labels_that_are_there(page: str) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)

    read = 0
    for rule in RULES:
        for metric, matchers in METRIC.findall(rule["expr"]):
            assert metric in labels, f"{metric} is not on the page"
            assert set(re.findall(r"(\w+)=", matchers)) <= labels[metric], rule
            read += 1
        metrics = {metric for metric, _ in METRIC.findall(rule["expr"])}
        recorded = "curfew:" in rule["expr"]
        known = {*PLACE, "instance", "pod"}.union(*(labels[metric] for metric in metrics))
        grouped = {label.strip() for group in GROUPED.findall(rule["expr"]) for label in group.split(",")}
        assert recorded or grouped <= known, rule
    assert read > 10


def test_the_words_that_rules_look_for_are_the_service_s(page: str) -> None:
    words = {
        (sample.name, label, value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        for label, value in sample.labels.items()
    }
    asked = {
        (metric, label, value)
        for rule in RULES
        for metric, matchers in METRIC.findall(rule["expr"])
        for label, value in re.findall(r'(\w+)="(\w+)"', matchers)
    }

    never_here = {("curfew_notifications_total", "outcome", "failed")}  # given up after two days
    assert asked - never_here <= words
    assert ("curfew_actions_total", "outcome", "failed") in words
    assert ("curfew_hourly_cost", "activity", "idle") in words
