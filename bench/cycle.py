"""Measures whole cycles over a simulated fleet on SQLite: the first look, and a steady one in which nothing changed.

CPU seconds of this process, step by step. The steady cycle is asserted to write no resource and no finding first.
Usage: python -m bench.cycle [--machines 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from providers.simulated.activity import Busy, Idle
from providers.simulated.cloud import SKUS
from service.clock import SetClock
from service.store.database import Database
from service.store.tables import Cycle
from tests.spine.company import Company, company

START = datetime(2026, 11, 16, 9, tzinfo=UTC)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--machines", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}")
        database.upgrade()
        with company(database, SetClock(START), ceiling="observe") as made:
            measure(made, chosen.machines, chosen.rounds)
        database.close()


def measure(made: Company, machines: int, rounds: int) -> None:
    for number in range(machines):
        made.machine(f"m{number}", sku=SKUS["g6.xlarge"], activity=Idle() if number % 10 == 0 else Busy())
    first, cycle = timed(made)
    print(f"{machines:,} machines, one GPU each; CPU seconds")
    print(f"  first look: {first:.2f} ({per_thousand(first, machines)}); {steps(cycle)}")
    steady = []
    for _ in range(rounds):
        made.clock.forward(timedelta(minutes=1))
        spent, cycle = timed(made)
        [write] = [step for step in cycle.steps if step["step"] == "write"]
        assert write["summary"].startswith("0 resources and 0 findings"), write
        steady.append(spent)
    median = statistics.median(steady)
    print(f"  steady: {median:.2f} ({per_thousand(median, machines)}); {steps(cycle)}")
    print(f"a steady cycle costs {median / first:.2f} of the first look, and writes no resource and no finding")


def timed(made: Company) -> tuple[float, Cycle]:
    began = time.process_time()
    cycle = made.cycle()
    return time.process_time() - began, cycle


def per_thousand(seconds: float, machines: int) -> str:
    return f"{seconds / machines * 1000:.3f} per 1,000"


def steps(cycle: Cycle) -> str:
    return ", ".join(f"{step['step']} {step['seconds']:.2f}" for step in cycle.steps)


if __name__ == "__main__":
    main()
