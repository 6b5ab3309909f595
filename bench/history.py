"""Measures what keeping history costs: the size of a day of 10,000 GPUs, as written and as compacted, and what a cycle
spends on it beside everything else it does.

The day is drawn: jobs of some hours on machines of 8 GPUs, utilisation in steps of 1 % and power with noise while one
runs, memory nearly constant, tensor and DRAM activity, a sample a minute. Every sample goes through the recorder. That
the compacted day says what its parts said is asserted first.
Usage: python -m bench.history [--gpus 10000] [--hours 24] [--cycles 30]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from providers import simulated
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef, Series, Signal, State
from providers.simulated.activity import Busy, Idle
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Machine, SimulatedCloud
from service.clock import SetClock
from service.cycle import run_cycle
from service.documents import MODELS
from service.history.compact import Compactor
from service.history.layout import History, Table, day_of
from service.history.record import Recorder, Sight
from service.model import Known
from service.runtime import compose
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Document, new_id

MIDNIGHT = datetime(2026, 11, 16, tzinfo=UTC)
LOOK = timedelta(minutes=5)
SAMPLES = 5
"""In five minutes."""
REMEMBERED = 5
"""Stretches of five minutes that the service still has in memory at a look."""
GPUS = 8
GOAL = 1e9
"""Bytes a month, for 10,000 GPUs."""
Numbers = np.ndarray[Any, np.dtype[Any]]


def machine(number: int) -> Known:
    ref = ResourceRef(
        provider="aws", account="123456789012", region="us-east-1", kind=Kind.INSTANCE, external_id=f"i-{number:017x}"
    )
    record = ResourceRecord(
        ref=ref, incarnation=str(number), name=f"trainer-{number}", zone="us-east-1a", sku="p5.48xlarge",
        gpu_vendor="nvidia", gpu_model="H100", gpu_count=GPUS, capacity_type=CapacityType.SPOT, state=State.RUNNING,
        tags={"project": f"project-{number % 40}", "owner": f"person-{number % 300}@example.org"},
    )  # fmt: skip
    return Known(
        id=f"{number * 2654435761 % 2**64:020x}",
        source="aws",
        record=record,
        first_seen=MIDNIGHT,
        state_since=MIDNIGHT,
        started_at=MIDNIGHT,
        project=f"project-{number % 40}",
        price=Price(rate_micros=55_040_000, currency="USD", source="builtin"),
    )


class Fleet:
    """What its GPUs do, five minutes after five minutes."""

    def __init__(self, machines: int) -> None:
        self._chance = np.random.default_rng(7)
        self.machines = [machine(number) for number in range(machines)]
        self._phase = self._chance.integers(0, 60, machines)
        self._busy = self._chance.random(machines) < 0.6
        self._job()
        self._kept: list[dict[Signal, Numbers]] = []
        self._times: list[Numbers] = []

    def _job(self) -> None:
        gpus = len(self.machines) * GPUS
        self._level = self._chance.normal(82, 8, gpus)
        self._memory = self._chance.uniform(20_000, 78_000, gpus)

    def look(self, start: int) -> dict[str, tuple[Series, ...]]:
        """The samples of the last stretches, the one that begins at `start` the newest."""
        chance, machines = self._chance, len(self.machines)
        changes = chance.random(machines) < 1 / 36  # a job lasts three hours
        if changes.any():
            self._busy ^= changes
            self._job()
        shape = (machines * GPUS, SAMPLES)
        busy = np.repeat(self._busy, GPUS)[:, None]
        percent = np.clip(np.rint(chance.normal(self._level[:, None], 9, shape)), 1, 100)
        share = percent / 100
        self._kept.append(
            {
                Signal.UTILISATION: np.where(busy, share, 0.0),
                Signal.MEMORY_USED_MIB: np.where(busy, self._memory[:, None] + 2 * chance.integers(0, 2, shape), 4.0),
                Signal.POWER_WATTS: np.where(busy, 120 + 5.6 * percent, 68) + chance.normal(0, 6, shape) * (busy + 0.2),
                Signal.TENSOR_ACTIVE: np.where(busy, share * chance.uniform(0.3, 0.5, shape), 0.0),
                Signal.DRAM_ACTIVE: np.where(busy, share * chance.uniform(0.2, 0.4, shape), 0.0),
            }
        )
        scraped = start + 60 * np.arange(SAMPLES) + self._phase[:, None]
        self._times.append(scraped + (chance.random((machines, SAMPLES)) < 0.1) * (scraped % 60 < 59))
        self._kept, self._times = self._kept[-REMEMBERED:], self._times[-REMEMBERED:]
        return dict(self._series())

    def _series(self) -> Iterator[tuple[str, tuple[Series, ...]]]:
        times = np.concatenate(self._times, axis=1)
        values = {signal: np.concatenate([kept[signal] for kept in self._kept], axis=1) for signal in self._kept[0]}
        for number, known in enumerate(self.machines):
            moments = tuple(times[number].tolist())
            yield (
                known.id,
                tuple(
                    Series(
                        ref=known.record.ref,
                        device=str(gpu),
                        signal=signal,
                        times=moments,
                        values=array("d", values[signal][number * GPUS + gpu].tobytes()),
                    )
                    for gpu in range(GPUS)
                    for signal in values
                ),
            )


def a_day(folder: str, machines: int, hours: float) -> tuple[History, float, int]:
    """A history of that long; the CPU seconds that recording took, and in how many looks."""
    history, fleet = History(folder), Fleet(machines)
    recorder = Recorder(history)
    ids = frozenset(known.id for known in fleet.machines)
    now, spent, looks = MIDNIGHT, 0.0, 0
    while now < MIDNIGHT + timedelta(hours=hours):
        series = fleet.look(int(now.timestamp()))
        now += LOOK
        sight = Sight(at=now, resources=fleet.machines, seen=ids, series=series)
        began = time.process_time()
        said = recorder.see(sight)
        spent += time.process_time() - began
        looks += 1
        assert recorder.health.errors == 0, said
    recorder.close(now - timedelta(seconds=1))
    return history, spent, looks


def answers(history: History) -> list[tuple[Any, ...]]:
    """What a reader asks of activity, in sums."""
    [day] = history.days()
    with history.connect(threads=2) as connection:
        return connection.execute(
            "SELECT count(*), count(DISTINCT (resource, gpu)), sum(time), sum(until), sum(step), sum(utilisation),"
            " sum(power_watts), sum(memory_used_mib) FROM read_parquet(?)",
            [history.parts(Table.ACTIVITY, day)],
        ).fetchall()


def size(history: History, table: Table) -> int:
    [day] = history.days()
    return sum(Path(path).stat().st_size for path in history.written(table, day))


def cycles(folder: Path, machines: int, count: int) -> dict[str, float]:
    """Step → wall seconds of so many cycles of the whole service, a minute apart, on a simulated cloud."""
    clock = SetClock(MIDNIGHT)
    database = Database(f"sqlite:///{folder / 'bench.db'}")
    database.upgrade()
    rt = compose(Settings(home=folder, history=str(folder / "history")), clock=clock, database=database)  # type: ignore[arg-type]
    cloud = SimulatedCloud(clock.now, provider="aws", account="123456789012")
    simulated.clouds["bench"] = cloud
    documents = [
        ("source", {"name": "bench", "provider": "simulated", "company": "demo", "cloud": "aws"}),
        ("policy", {"name": "idle-gpus", "type": "idle", "idle": {"for": "45m"}, "action": "stop"}),
    ]
    with database.transaction() as session:
        for kind, body in documents:
            model = MODELS[kind].validate_python(body)  # type: ignore[index]
            plain = model.model_dump(mode="json", exclude_unset=True, by_alias=True)
            session.add(
                Document(kind=kind, name=body["name"], version=1, body=plain, updated_at=MIDNIGHT, updated_by="bench")
            )
    for number in range(machines):
        cloud.add(
            Machine(
                name=f"trainer-{number}",
                tags={"owner": "mai@example.org"},
                activity=Busy() if number % 3 else Idle(),
                launched_at=MIDNIGHT - timedelta(days=1),
                sku=SKUS["p5.48xlarge"],
            )
        )
    for number in range(count + 6):
        if number == 6:  # the first ones fetch and write everything
            rt.counted.step_seconds.clear()
        run_cycle(rt, cycle_id=new_id(), requested_by="bench")
        clock.forward(timedelta(minutes=1))
    assert rt.recorder is not None
    assert rt.recorder.health.errors == 0
    database.close()
    simulated.forget("bench")
    return {step: seconds for (step,), seconds in rt.counted.step_seconds.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--gpus", type=int, default=10_000)
    arguments.add_argument("--hours", type=float, default=24)
    arguments.add_argument("--cycles", type=int, default=30)
    chosen = arguments.parse_args()
    machines = chosen.gpus // GPUS
    with tempfile.TemporaryDirectory() as folder:
        history, spent, looks = a_day(f"{folder}/history", machines, chosen.hours)
        before, parts = answers(history), [size(history, table) for table in Table]
        files = len(history.written(Table.ACTIVITY, day_of(MIDNIGHT.timestamp())))
        began, cpu = time.perf_counter(), time.process_time()
        Compactor(history).tidy(MIDNIGHT + timedelta(days=2), keep=None, enough=lambda: False, still_ours=lambda: None)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        compacted = [size(history, table) for table in Table]
        after = answers(history)
        assert [round(a, 3) for a in after[0]] == [round(b, 3) for b in before[0]], (before, after)
        steps = cycles(Path(folder), machines, chosen.cycles)
    rows = before[0][0]
    month = sum(compacted) * 30 * 24 / chosen.hours
    print(
        f"{chosen.gpus:,} GPUs, {chosen.hours:g} hours, {rows:,} windows of five minutes (DuckDB {duckdb.__version__})"
    )
    print(f"  as written: {files} files of activity, {parts[0] / 1e6:.1f} MB; resources {parts[1] / 1e6:.2f} MB")
    print(f"  compacted: {compacted[0] / 1e6:.1f} MB, {compacted[0] / rows:.2f} bytes a window; resources"
          f" {compacted[1] / 1e6:.2f} MB; in {cpu:.1f} s CPU, {wall:.1f} s")  # fmt: skip
    print(f"  a month: {month / 1e6:.0f} MB (goal {GOAL / 1e6:.0f})")
    print(f"  recording: {spent / looks:.3f} s CPU each five minutes, {spent / rows * 1e6:.1f} µs a window")
    rest = sum(seconds for step, seconds in steps.items() if step not in ("record", "collect"))
    per_cycle = {
        "record": steps["record"] / chosen.cycles,
        "collect from a simulated cloud": steps["collect"] / chosen.cycles,
        "all other steps": rest / chosen.cycles,
    }
    per_cycle = {
        "record": steps["record"] / chosen.cycles,
        "collect from a simulated cloud": steps["collect"] / chosen.cycles,
        "all other steps": rest / chosen.cycles,
    }
    print(f"  the whole service on {machines:,} machines, {chosen.cycles} cycles a minute apart, seconds a cycle:")
    print(f"    {', '.join(f'{name} {seconds:.3f}' for name, seconds in per_cycle.items())}")
    print(f"    recording is {steps['record'] / rest:.2f} of all other steps")


if __name__ == "__main__":
    main()
