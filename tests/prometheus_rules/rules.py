"""The rule files as data, and promtool's word on what they make of given series."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "helm" / "curfew" / "rules"
FILES = [FOLDER / "recording.yaml", FOLDER / "alerts.yaml"]
_READ: list[dict[str, Any]] = [group for file in FILES for group in yaml.safe_load(file.read_text())["groups"]]
GROUPS: list[str] = [group["name"] for group in _READ]
RULES: list[dict[str, Any]] = [rule for group in _READ for rule in group["rules"]]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}

PLACE = {"namespace": "finops", "job": "curfew"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series of a test, in promtool's notation."""

    series: str
    values: str


def line(metric: str, values: str, *, page: str = "a", **labels: str) -> Line:
    """A series on the page of one replica."""
    every = {**PLACE, "instance": f"{page}:8080", "pod": f"curfew-{page}", **labels}
    return Line(
        series=metric + "{" + ",".join(f'{name}="{value}"' for name, value in every.items()) + "}", values=values
    )


def promtool(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Prometheus' own judge."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def judge(folder: Path, alert: str, lines: list[Line], at: str, expected: list[tuple[dict[str, str], str]]) -> str:
    """Empty when exactly these (labels, summary) fire at that time; else what promtool says."""
    rule = ALERTS[alert]
    alerts = [
        {
            "exp_labels": {**rule["labels"], **labels},
            "exp_annotations": {
                **rule["annotations"],
                "summary": summary,
                "description": _filled(rule["annotations"]["description"], labels),
            },
        }
        for labels, summary in expected
    ]
    test = {
        "rule_files": [str(file) for file in FILES],
        "evaluation_interval": "1m",
        "group_eval_order": GROUPS,
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": line.series, "values": line.values} for line in lines],
                "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": alerts}],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test, sort_keys=False))
    done = promtool("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _filled(text: str, labels: dict[str, str]) -> str:
    """A description names labels only, never the value."""
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
