"""Each alert fires when its sentence says so and keeps quiet otherwise: judged by promtool, minute by minute."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.prometheus_rules.rules import ALERTS, FILES, PLACE, Line, judge, line, promtool

SUCCESS = "curfew_source_last_success_timestamp_seconds"
COUNT = "curfew_cycle_duration_seconds_count"
SECONDS = "curfew_cycle_duration_seconds_sum"
ERRORS = "curfew_source_errors_total"
COVERAGE = "curfew_telemetry_coverage_ratio"
MESSAGES = "curfew_notifications_total"
ACTIONS = "curfew_actions_total"
FINDINGS = "curfew_findings"
HOLDS = "curfew_holds"
USED = "curfew_spend_budget_used_ratio"
FORECAST = "curfew_spend_budget_forecast_ratio"
HOURLY = "curfew_hourly_cost"
ROLLOUT = "curfew_rollout_share"

DAY = 24 * 60
AWS = {"source": "aws"}
BUDGET = {"project": "vision", "budget": "monthly", "currency": "USD"}
MACHINES = {"state": "running", "project": "vision", "currency": "USD"}


def answering(*, page: str = "a", source: str = "aws") -> Line:
    """A source that answers every minute; in these tests the time is 0 at the start."""
    return line(SUCCESS, f"0+60x{2 * DAY}", page=page, source=source)


def cycling(step: str = "export", *, page: str = "a") -> Line:
    """A cycle every minute."""
    return line(COUNT, f"1+1x{2 * DAY}", page=page, step=step)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series until `at`, and what fires then: (labels, summary) of each; nothing when empty."""

    alert: str
    lines: list[Line]
    at: str
    fires: tuple[tuple[dict[str, str], str], ...] = ()


CASES = {
    "nothing was ever scraped": Case(alert="CurfewGone", lines=[], at="11m", fires=(({}, "Curfew is gone."),)),
    "one of two installations went away": Case(
        alert="CurfewGone",
        lines=[
            line(COUNT, "1+1x30 stale", step="export", job="east"),
            line(COUNT, "1+1x90", step="export", job="west"),
        ],
        at="60m",
        fires=(({**PLACE, "job": "east"}, "Curfew is gone (east)."),),
    ),
    "a pod that takes five minutes to be replaced": Case(
        alert="CurfewGone",
        lines=[line(COUNT, "1+1x30 stale", step="export"), line(COUNT, "_x36 1+1x60", page="b", step="export")],
        at="40m",
    ),
    "pages are scraped, but their cycles stand still": Case(
        alert="CurfewCyclesStopped",
        lines=[line(COUNT, "1+1x30 31x60", step="export")],
        at="60m",
        fires=((PLACE, "Curfew (curfew) answers, but finishes no cycle."),),
    ),
    "one replica never has its turn, the other always": Case(
        alert="CurfewCyclesStopped", lines=[line(COUNT, "5x120", step="export"), cycling(page="b")], at="60m"
    ),
    "40 seconds of every minute are cycles": Case(
        alert="CurfewCycleSlow",
        lines=[line(SECONDS, "0+30x120", step="collect"), line(SECONDS, "0+10x120", step="write")],
        at="60m",
        fires=((PLACE, "Cycles of Curfew (curfew) take 66.67% of the time there is."),),
    ),
    "20 seconds of every minute on each of two replicas": Case(
        alert="CurfewCycleSlow",
        lines=[line(SECONDS, "0+20x120", step="collect"), line(SECONDS, "0+20x120", page="b", step="collect")],
        at="60m",
    ),
    "a source fails for half an hour": Case(
        alert="CurfewSourceSilent",
        lines=[
            line(SUCCESS, "0+60x30 1800x60", source="aws"),
            line(ERRORS, "_x30 1+1x60", source="aws"),
            answering(source="gcp"),
        ],
        at="60m",
        fires=(({**PLACE, **AWS}, "The source aws has not answered in full for 30m 0s."),),
    ),
    "a source failed for ten minutes": Case(
        alert="CurfewSourceSilent",
        lines=[
            line(SUCCESS, "0+60x30 1800x10 2460+60x60", source="aws"),
            line(ERRORS, "_x30 1+1x10 11x60", source="aws"),
        ],
        at="43m",
    ),
    "a deleted source, which nobody asks": Case(
        alert="CurfewSourceSilent",
        lines=[line(SUCCESS, "0+60x30 1800x600", source="aws"), line(ERRORS, "7x600", source="aws")],
        at="300m",
    ),
    "an old page says it is silent, the newest knows better": Case(
        alert="CurfewSourceSilent",
        lines=[
            line(SUCCESS, "60x120", source="aws"),
            answering(page="b"),
            line(ERRORS, "0+1x120", page="b", source="aws"),
        ],
        at="60m",
    ),
    "two of three looks fail in part": Case(
        alert="CurfewSourceErrors",
        lines=[line(ERRORS, "0+2x120", source="aws"), line(COUNT, "0+3x120", step="collect")],
        at="60m",
        fires=(({**PLACE, **AWS}, "66.67% of the looks at the source aws fail in part."),),
    ),
    "one look of three fails in part": Case(
        alert="CurfewSourceErrors",
        lines=[line(ERRORS, "0+1x120", source="aws"), line(COUNT, "0+3x120", step="collect")],
        at="60m",
    ),
    "the activity of a third is known, for hours": Case(
        alert="CurfewTelemetryCoverageLow",
        lines=[answering(), line(COVERAGE, "0.3x300", source="aws")],
        at="180m",
        fires=(({**PLACE, **AWS}, "Of the source aws, only 30% of what runs has known activity."),),
    ),
    "the activity of most is known": Case(
        alert="CurfewTelemetryCoverageLow", lines=[answering(), line(COVERAGE, "0.6x300", source="aws")], at="180m"
    ),
    "an old page knew little, the newest knows": Case(
        alert="CurfewTelemetryCoverageLow",
        lines=[
            line(SUCCESS, "60x300", source="aws"),
            line(COVERAGE, "0.1x300", source="aws"),
            answering(page="b"),
            line(COVERAGE, "0.9x300", page="b", source="aws"),
        ],
        at="180m",
    ),
    "an exporter broke an hour ago": Case(
        alert="CurfewTelemetryCoverageFell",
        lines=[answering(), line(COVERAGE, f"1x{DAY} 0.6x120", source="aws")],
        at=f"{DAY + 50}m",
        fires=(
            ({**PLACE, **AWS}, "Of the source aws, only 60% of what runs has known activity, less than yesterday."),
        ),
    ),
    "it is low as ever": Case(
        alert="CurfewTelemetryCoverageFell",
        lines=[answering(), line(COVERAGE, f"0.6x{2 * DAY}", source="aws")],
        at=f"{DAY + 50}m",
    ),
    "the mail server takes nothing": Case(
        alert="CurfewMessagesWaiting",
        lines=[answering(), line(MESSAGES, "0x10 3x60", channel="mail", outcome="pending")],
        at="40m",
        fires=(({**PLACE, "channel": "mail"}, "3 messages by mail cannot be delivered."),),
    ),
    "a message waited for ten minutes": Case(
        alert="CurfewMessagesWaiting",
        lines=[
            answering(),
            line(MESSAGES, "0x10 1x10 stale", channel="mail", outcome="pending"),
            line(MESSAGES, "5x60", channel="mail", outcome="delivered"),
        ],
        at="40m",
    ),
    "the first messages ever are given up": Case(
        alert="CurfewMessagesFailed",
        lines=[answering(), line(MESSAGES, "_x90 2x60", channel="slack", outcome="failed")],
        at="100m",
        fires=(({**PLACE, "channel": "slack"}, "2 messages by slack were given up in the last hour."),),
    ),
    "messages were given up long ago, and Prometheus is new": Case(
        alert="CurfewMessagesFailed",
        lines=[answering(), line(MESSAGES, "2x300", channel="slack", outcome="failed")],
        at="10m",
    ),
    "the last ones were given up two hours ago": Case(
        alert="CurfewMessagesFailed",
        lines=[answering(), line(MESSAGES, "_x10 2x300", channel="slack", outcome="failed")],
        at="130m",
    ),
    "one more stop is refused, another is abandoned": Case(
        alert="CurfewActionsFailed",
        lines=[
            answering(),
            line(ACTIONS, "4x90 5x60", policy="idle-gpus", verb="stop", outcome="failed"),
            line(ACTIONS, "_x90 1x60", policy="idle-gpus", verb="stop", outcome="abandoned"),
        ],
        at="100m",
        fires=(
            (
                {**PLACE, "policy": "idle-gpus", "verb": "stop"},
                "2 attempts to stop for the policy idle-gpus failed in the last hour.",
            ),
        ),
    ),
    "stops succeed": Case(
        alert="CurfewActionsFailed",
        lines=[answering(), line(ACTIONS, "0+1x150", policy="idle-gpus", verb="stop", outcome="verified")],
        at="100m",
    ),
    "a new pod shows old failures": Case(
        alert="CurfewActionsFailed",
        lines=[
            line(SUCCESS, "0+60x89 stale", source="aws"),
            line(ACTIONS, "4x89 stale", policy="idle-gpus", verb="stop", outcome="failed"),
            line(SUCCESS, "_x90 5400+60x60", page="b", source="aws"),
            line(ACTIONS, "_x90 4x60", page="b", policy="idle-gpus", verb="stop", outcome="failed"),
        ],
        at="100m",
    ),
    "everything is on hold since the morning": Case(
        alert="CurfewHeld",
        lines=[answering(), line(HOLDS, "1x300", project="")],
        at="250m",
        fires=(({**PLACE}, "Everything has been on hold for four hours."),),
    ),
    "one project is": Case(
        alert="CurfewHeld",
        lines=[answering(), line(HOLDS, "1x300", project="vision")],
        at="250m",
        fires=(({**PLACE, "project": "vision"}, "Project vision has been on hold for four hours."),),
    ),
    "a hold was lifted after an hour": Case(
        alert="CurfewHeld", lines=[answering(), line(HOLDS, "1x60 stale", project="vision")], at="250m"
    ),
    "acts wait since the morning": Case(
        alert="CurfewActsWait",
        lines=[answering(), line(FINDINGS, "2x300", policy="idle-gpus", status="due", project="vision")],
        at="250m",
        fires=(
            (
                {**PLACE, "policy": "idle-gpus", "status": "due"},
                "Acts of the policy idle-gpus have been due for four hours and wait.",
            ),
        ),
    ),
    "a rollout has fallen back": Case(
        alert="CurfewRolloutFellBack",
        lines=[answering(), line(ROLLOUT, "0.25x30 0x60", policy="idle-gpus")],
        at="40m",
        fires=(
            (
                {**PLACE, "policy": "idle-gpus"},
                "The rollout of the policy idle-gpus has fallen back, and it only observes.",
            ),
        ),
    ),
    "a rollout has just begun": Case(
        alert="CurfewRolloutFellBack", lines=[answering(), line(ROLLOUT, "0.01x90", policy="idle-gpus")], at="40m"
    ),
    "people are warned, nothing is due": Case(
        alert="CurfewActsWait",
        lines=[answering(), line(FINDINGS, "2x300", policy="idle-gpus", status="warned", project="vision")],
        at="250m",
    ),
    "the month's budget is spent": Case(
        alert="CurfewSpendBudgetSpent",
        lines=[answering(), line(USED, "1.02x10", **BUDGET)],
        at="5m",
        fires=(({**PLACE, **BUDGET}, "The spend budget monthly of vision is spent (102%)."),),
    ),
    "nearly all of it is spent": Case(
        alert="CurfewSpendBudgetSpent", lines=[answering(), line(USED, "0.99x10", **BUDGET)], at="5m"
    ),
    "an old page tells of last month": Case(
        alert="CurfewSpendBudgetSpent",
        lines=[
            line(SUCCESS, "60x20", source="aws"),
            line(USED, "1.3x20", **BUDGET),
            answering(page="b"),
            line(USED, "0.01x20", page="b", **BUDGET),
        ],
        at="10m",
    ),
    "it will not last the month": Case(
        alert="CurfewSpendBudgetForecastOver",
        lines=[answering(), line(USED, "0.7x90", **BUDGET), line(FORECAST, "1.4x90", **BUDGET)],
        at="70m",
        fires=(({**PLACE, **BUDGET}, "The spend budget monthly of vision is on its way to 140%."),),
    ),
    "it is spent already: one alert is enough": Case(
        alert="CurfewSpendBudgetForecastOver",
        lines=[answering(), line(USED, "1.1x90", **BUDGET), line(FORECAST, "1.4x90", **BUDGET)],
        at="70m",
    ),
    "it will just do": Case(
        alert="CurfewSpendBudgetForecastOver", lines=[answering(), line(FORECAST, "1x90", **BUDGET)], at="70m"
    ),
    "a third of the money is idle": Case(
        alert="CurfewIdleCostHigh",
        lines=[
            answering(),
            line(HOURLY, "20x180", activity="idle", gpu_model="H100", **MACHINES),
            line(HOURLY, "20.5x180", activity="idle", gpu_model="L4", **MACHINES),
            line(HOURLY, "80x180", activity="busy", gpu_model="H100", **MACHINES),
        ],
        at="130m",
        fires=(
            (
                {**PLACE, "activity": "idle", "project": "vision", "currency": "USD"},
                "vision pays 40.50 USD an hour for idle GPUs.",
            ),
        ),
    ),
    "machines of nobody idle": Case(
        alert="CurfewIdleCostHigh",
        lines=[answering(), line(HOURLY, "20x180", activity="idle", **{**MACHINES, "project": ""})],
        at="130m",
        fires=(
            (
                {**PLACE, "activity": "idle", "currency": "USD"},
                "Nobody's project pays 20.00 USD an hour for idle GPUs.",
            ),
        ),
    ),
    "little money is idle, or a small share of much": Case(
        alert="CurfewIdleCostHigh",
        lines=[
            answering(),
            line(HOURLY, "9x180", activity="idle", **MACHINES),
            line(HOURLY, "30x180", activity="idle", **{**MACHINES, "project": "speech"}),
            line(HOURLY, "300x180", activity="busy", **{**MACHINES, "project": "speech"}),
        ],
        at="130m",
    ),
    "an old page holds a machine for idle that is stopped": Case(
        alert="CurfewIdleCostHigh",
        lines=[
            line(SUCCESS, "60x180", source="aws"),
            line(HOURLY, "50x180", activity="idle", **MACHINES),
            answering(page="b"),
            line(HOURLY, "80x180", page="b", activity="busy", **MACHINES),
        ],
        at="130m",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_alert(case: Case, tmp_path: Path) -> None:
    disagrees = judge(tmp_path, case.alert, case.lines, case.at, list(case.fires))

    assert not disagrees, disagrees


def test_every_alert_is_seen_firing_and_keeping_quiet() -> None:
    firing = {case.alert for case in CASES.values() if case.fires}
    quiet = {case.alert for case in CASES.values() if not case.fires}

    assert firing == quiet == set(ALERTS)


def test_promtool_finds_no_fault_in_the_rules() -> None:
    done = promtool("check", "rules", *FILES)

    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_notices_a_wrong_expectation(tmp_path: Path) -> None:
    assert judge(tmp_path, "CurfewGone", [], "11m", []) != ""


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_to_do_and_where_to_read_on(alert: str) -> None:
    said = ALERTS[alert]["annotations"]
    page = Path(__file__).parents[2] / "docs" / "operations.md"
    headings = {re.sub(r"[^\w-]", "", found.lower()) for found in re.findall(r"^#+ (\S+)$", page.read_text(), re.M)}

    assert set(said) == {"summary", "description", "runbook"}
    assert said["summary"].endswith(".")
    assert said["description"].endswith((".", "?"))
    assert len(said["description"].split(". ")) >= 2
    assert said["runbook"] == f"docs/operations.md#{alert.lower()}"
    assert alert.lower() in headings
    assert ALERTS[alert]["labels"]["severity"] in ("info", "warning", "critical")
