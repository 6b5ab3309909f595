"""Measures whole cycles over a simulated fleet on SQLite: the first look, steady ones in which nothing changed, and one
after which 1 % of the fleet was stopped.

CPU seconds of this process step by step, rows written, and memory: the most of a cycle and what stays after it, above
what the service took before its first machine. The simulated cloud holds its own machines by then: they do not count.
That the rows written follow change and not the fleet is asserted first. With the allocator's settings of the image,
where none are given. Usage:
python -m bench.cycle [--machines 2000] [--rounds 4] [--signals one|all|none] [--large: 100,000 machines]
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event

from providers.simulated.activity import Busy, Idle, Silent
from providers.simulated.catalogue import SKUS
from service.clock import SetClock
from service.store.database import Database
from service.store.tables import Cycle
from tests.spine.company import Company, company

START = datetime(2026, 11, 16, 9, tzinfo=UTC)
LARGE = 100_000
ALLOCATOR = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""As in the image. The C library reads them when a process starts."""
WRITTEN_ANYWAY = 12
"""Rows that every cycle writes: its report, the lease, how the source did."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One cycle."""

    cpu: float
    rows: int
    peak_mb: float
    """While it ran."""
    memory_mb: float
    """After it."""
    cycle: Cycle


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--machines", type=int, default=2000)
    arguments.add_argument("--rounds", type=int, default=4)  # in the fourth all samples are asked for anew
    arguments.add_argument("--signals", choices=("one", "all", "none"), default="one")
    arguments.add_argument("--large", action="store_true")
    chosen = arguments.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}")
        database.upgrade()
        with company(database, SetClock(START), ceiling="observe") as made:
            measure(made, LARGE if chosen.large else chosen.machines, chosen.rounds, chosen.signals)
        database.close()


def measure(made: Company, machines: int, rounds: int, signals: str) -> None:
    made.cycle()
    sku = SKUS["g6.xlarge"]
    if signals == "one":
        sku = replace(sku, vendor="aws")  # tells its utilisation only
    doing: Callable[[int], Any] = lambda number: Idle() if number % 10 == 0 else Busy()  # noqa: E731
    if signals == "none":
        doing = lambda number: Silent()  # noqa: E731
    ids = [made.machine(f"m{number}", sku=sku, activity=doing(number)).external_id for number in range(machines)]
    gc.collect()
    start = memory_mb("VmRSS")  # the machines a real cloud would hold are in it
    print(
        f"{machines:,} machines, one GPU each, signals: {signals}; CPU seconds, memory above the start of the service"
    )

    def look(what: str) -> Measured:
        found = timed(made, start)
        each = f"{found.cpu / machines * 1000:.3f} per 1,000"
        print(
            f"  {what}: {found.cpu:.2f} ({each}), {found.rows:,} rows, {found.peak_mb:.0f} MB, then"
            f" {found.memory_mb:.0f} MB; {steps(found.cycle)}"
        )
        return found

    first = look("first look")
    made.clock.forward(timedelta(minutes=1))
    look("second look")  # it opens findings and tells the telemetry's first words
    steady = []
    for _ in range(rounds):
        made.clock.forward(timedelta(minutes=1))
        steady.append(look("steady"))
        [write] = [step for step in steady[-1].cycle.steps if step["step"] == "write"]
        assert write["summary"].startswith("0 resources and 0 findings"), write
        assert steady[-1].rows <= WRITTEN_ANYWAY, f"{steady[-1].rows} rows though nothing changed"
    changed = max(1, machines // 100)
    for id in ids[1::100]:  # busy ones
        made.cloud.stop(id)
    made.clock.forward(timedelta(minutes=5))
    after = look(f"{changed:,} stopped")
    assert after.rows <= WRITTEN_ANYWAY + 5 * changed, f"{after.rows} rows for {changed} that changed"
    cpu = statistics.median(one.cpu for one in steady)
    print(f"a steady cycle costs {cpu / first.cpu:.2f} of the first look and writes {steady[-1].rows} rows;")
    print(f"one after {changed:,} changes writes {(after.rows - steady[-1].rows) / changed:.1f} rows for each of them")


def timed(made: Company, start: float) -> Measured:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with rows_written(made.rt.database) as rows:
        began = time.process_time()
        cycle = made.cycle()
        spent = time.process_time() - began
    return Measured(
        cpu=spent,
        rows=sum(rows),
        peak_mb=memory_mb("VmHWM") - start,
        memory_mb=memory_mb("VmRSS") - start,
        cycle=cycle,
    )


@contextmanager
def rows_written(database: Database) -> Iterator[list[int]]:
    """How many rows each statement wrote meanwhile."""
    rows: list[int] = []

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(("INSERT", "UPDATE", "DELETE")):
            rows.append(max(0, cursor.rowcount))

    event.listen(database.engine, "after_cursor_execute", note)
    try:
        yield rows
    finally:
        event.remove(database.engine, "after_cursor_execute", note)


def memory_mb(which: str) -> float:
    """Resident memory of this process: `VmRSS` now, `VmHWM` at its peak."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which)]
    return int(line.split()[1]) / 1024


def steps(cycle: Cycle) -> str:
    return ", ".join(f"{step['step']} {step['seconds']:.2f}" for step in cycle.steps if step["seconds"] >= 0.005)


if __name__ == "__main__":
    if os.environ.keys().isdisjoint(ALLOCATOR):
        os.execve(sys.executable, [sys.executable, "-m", "bench.cycle", *sys.argv[1:]], {**os.environ, **ALLOCATOR})
    main()
