"""Measures the judge: resources × policies; compile, build and evaluate apart, against a plain Python loop.

CPU seconds of this process (user + system), the best and the median of several rounds; results are asserted equal
first. Read the ratios, not the seconds. Usage: python bench/judge.py [--resources 100000] [--policies 20] [--rounds 5]
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from policies.evaluate import Outcome, _bytes, _judge, _Table, compile_policy
from policies.facts import BASE, TELEMETRY, Facts
from policies.groups import fold
from policies.policy import BasePolicy, Policy, profile_of

Row = dict[str, Any]
CLOUD_CUSTODIAN_SECONDS = 14.6
"""CPU of Cloud Custodian's filter engine for 100,000 resources × 20 comparable policies."""

HALF, HOUR = {"for": "30m"}, {"for": "1h"}


def policies(count: int) -> list[tuple[Policy, Callable[[Row], bool]]]:
    """Policies as people write them, each with the same judgement as a Python function of a row."""

    def idle(row: Row) -> bool:
        return bool(row["state"] == "running" and row["activity"] == "idle")

    def unowned(row: Row) -> bool:
        return bool(
            row["state"] not in ("terminated", "unknown") and row["age_seconds"] >= 3600 and row["project"] is None
        )

    written: list[tuple[dict[str, Any], Callable[[Row], bool]]] = [
        ({"type": "idle"}, idle),
        ({"type": "idle", "scope": {"projects": ["vision"]}}, lambda r: r["project"] == "vision" and idle(r)),
        (
            {"type": "idle", "scope": {"regions": ["eu-*"], "kinds": ["instance"]}},
            lambda r: r["region"].startswith("eu-") and r["kind"] == "instance" and idle(r),
        ),
        ({"type": "idle", "scope": {"where": "gpu_count >= 4"}}, lambda r: r["gpu_count"] >= 4 and idle(r)),
        (
            {"type": "idle", "idle": HALF | {"when": "max_power_watts < 120"}},
            lambda r: idle(r) and r["max_power_watts"] is not None and r["max_power_watts"] < 120,
        ),
        ({"type": "idle", "scope": {"tags": {"team": "ml"}}}, lambda r: r["tags"].get("team") == "ml" and idle(r)),
        (
            {"type": "idle", "scope": {"skus": ["p5.*", "p4d*"], "providers": ["aws"]}, "idle": HOUR},
            lambda r: r["sku"].startswith(("p5.", "p4d")) and r["provider"] == "aws" and idle(r),
        ),
        (
            {"type": "idle", "scope": {"where": "hourly_cost > 40 AND gpu_model = 'H100'"}},
            lambda r: r["hourly_cost"] is not None and r["hourly_cost"] > 40 and r["gpu_model"] == "H100" and idle(r),
        ),
        ({"type": "ownership"}, unowned),
        (
            {"type": "ownership", "scope": {"where": "tags['team'] = 'cv' AND gpu_count = 8"}},
            lambda r: r["tags"].get("team") == "cv" and r["gpu_count"] == 8 and unowned(r),
        ),
    ]
    adapter: TypeAdapter[Policy] = TypeAdapter(Policy)
    return [
        (
            adapter.validate_python({"name": f"p{index}", **written[index % len(written)][0]}),
            written[index % len(written)][1],
        )
        for index in range(count)
    ]


def fleet(count: int) -> list[Row]:
    chance = random.Random(11)
    empty = {column.name: None for column in (*BASE, *TELEMETRY)}
    return [
        empty
        | {
            "resource_id": f"r{index}",
            "provider": chance.choice(("aws", "gcp", "kubernetes")),
            "kind": chance.choice(("instance", "instance", "workload")),
            "region": chance.choice(("eu-west-1", "us-east-1", "us-west-2", "ap-south-1")),
            "sku": chance.choice(("p5.48xlarge", "p4d.24xlarge", "g5.xlarge", "g6.xlarge")),
            "gpu_model": chance.choice(("H100", "A100-40GB", "A10G", "L4")),
            "gpu_count": chance.choice((1, 4, 8)),
            "state": "running" if chance.random() < 0.85 else "stopped",
            "project": chance.choice(("vision", "nlp", "speech", "infra", None)),
            "age_seconds": chance.randrange(10_000_000),
            "hourly_cost": None if chance.random() < 0.02 else chance.random() * 90,
            "activity": chance.choice(("busy", "busy", "busy", "idle", None)),
            "unknown_gpus": 0,
            "max_power_watts": None if chance.random() < 0.1 else chance.random() * 700,
            "tags": {"team": chance.choice(("ml", "cv", "infra"))} if chance.random() < 0.7 else {},
        }
        for index in range(count)
    ]


def columns(rows: list[Row], policies: list[BasePolicy]) -> Facts:
    telemetry = {column.name: [row[column.name] for row in rows] for column in TELEMETRY}
    return Facts(
        base={column.name: [row[column.name] for row in rows] for column in BASE},
        activity=dict.fromkeys({profile_of(policy).key for policy in policies}, telemetry),
        tags=[row["tags"] for row in rows],
        own={policy.name: {"claimed_by": [None] * len(rows)} for policy in policies},
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--resources", type=int, default=100_000)
    arguments.add_argument("--policies", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()

    written = policies(options.policies)
    rows = fleet(options.resources)
    facts = columns(rows, [policy for policy, _ in written])
    spent: dict[str, list[float]] = {"compile": [], "build": [], "evaluate": [], "Python loop": []}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        gc.collect()
        start = time.process_time()
        answer = work()
        spent[name].append(time.process_time() - start)
        return answer

    for _ in range(options.rounds):
        compiled = timed("compile", lambda: [compile_policy(policy) for policy, _ in written])
        with _judge() as connection:

            def build() -> list[Any]:
                table = _Table(facts)
                expressions = [table.expression(one) for one in compiled]  # noqa: B023
                table.load(connection)
                return expressions

            def evaluate() -> list[list[int]]:
                codes = _bytes(connection, expressions)  # noqa: B023
                pairs = zip(written, codes, strict=True)
                return [
                    Outcome(policy=policy, compiled=None, folded=fold(column, facts, policy)).breaches
                    for (policy, _), column in pairs
                ]

            expressions = timed("build", build)
            ours = timed("evaluate", evaluate)
        loop = timed("Python loop", lambda: [[i for i, row in enumerate(rows) if judged(row)] for _, judged in written])
        assert ours == loop, "the judge and the loop disagree"

    breaches = sum(map(len, loop))
    print(f"{options.resources:,} resources × {options.policies} policies, {breaches:,} breaches, equal results")
    for name, seconds in spent.items():
        print(f"{name:>12}: best {min(seconds):.3f} s, median {statistics.median(seconds):.3f} s of CPU")
    best = min(spent["evaluate"])
    print(f"evaluate is 1/{min(spent['Python loop']) / best:.0f} of the Python loop")
    if (options.resources, options.policies) == (100_000, 20):
        ratio = CLOUD_CUSTODIAN_SECONDS / best
        print(f"evaluate is 1/{ratio:.0f} of Cloud Custodian's {CLOUD_CUSTODIAN_SECONDS} s (goal: 1/250)")


if __name__ == "__main__":
    main()
