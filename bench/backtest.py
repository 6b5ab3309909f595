"""Measures back-tests: what the starter policy finds on a real day of pods, and what a year of a fleet takes.

The real day (77 GPU pods, a sample every 57 seconds with holes) lies beside the project; where it is missing, that part
is left out. The fleet is drawn: jobs of some hours on machines of 8 GPUs, utilisation in steps of 1 % with noise,
breaks and nights of nothing, holes; one drawn day is handed round, some machines further each day. A bare DuckDB
aggregation over the same files is what reading them costs at least; that both read the same samples is asserted.
Usage: python -m bench.backtest [--days 365] [--month 30] [--gpus 1000] [--picture FILE.svg]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import yaml

from policies.policy import IdlePolicy
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef, State
from service.backtest import page, words
from service.backtest.answer import marked
from service.backtest.question import Question, usual_sweep
from service.backtest.replay import backtest
from service.backtest.report import Report, as_json
from service.documents import MODELS
from service.history.layout import WHOLE_DAY, History, Table
from service.history.table import Reading, import_table
from service.model import Known
from service.store.resources import to_json

HERE = Path(__file__).parent
TRACE = HERE.parents[1] / "shared/data/traces/gentd26_pod_gpu_util_57s.parquet"
LIBRARY = HERE.parent / "policies/library/idle-gpus.yaml"
FIRST = date(2025, 11, 1)
GPUS = 8
DAY = 86_400
MEMORY = 4096
"""MiB that a year may take."""
CEILINGS = (0.10, 0.01)
Numbers = np.ndarray[Any, np.dtype[Any]]


def starter() -> IdlePolicy:
    document = yaml.safe_load(LIBRARY.read_text())
    found = MODELS[document.pop("kind")].validate_python(document)
    assert isinstance(found, IdlePolicy)
    return found


# --- a fleet ---------------------------------------------------------------------------------------------------------


def machine(number: int) -> Known:
    began = datetime(2025, 6, 1, tzinfo=UTC)
    ref = ResourceRef(
        provider="aws", account="123456789012", region="us-east-1", kind=Kind.INSTANCE, external_id=f"i-{number:017x}"
    )
    record = ResourceRecord(
        ref=ref, incarnation=str(number), name=f"trainer-{number}", zone="us-east-1a", sku="p5.48xlarge",
        gpu_vendor="nvidia", gpu_model="H100", gpu_count=GPUS, capacity_type=CapacityType.ON_DEMAND,
        state=State.RUNNING,
    )  # fmt: skip
    return Known(
        id=name(number),
        source="aws",
        record=record,
        first_seen=began,
        state_since=began,
        started_at=began,
        project=f"project-{number % 12}",
        price=Price(rate_micros=55_040_000, currency="USD", source="builtin"),
    )


def name(number: int) -> str:
    return f"m-{number:05d}"


def drawn_day(machines: int, step: int) -> dict[str, Numbers]:
    """One day of so many machines, a sample each `step` seconds: place, device, second of the day, utilisation."""
    chance = np.random.default_rng(8)
    count = DAY // step
    level = np.zeros((machines, GPUS, count))
    for place in range(machines):
        now = -int(chance.exponential(180))
        while now < 1440:  # minutes
            until = now + int(chance.exponential(180)) + 3
            at = slice(max(0, now * 60 // step), max(0, until * 60 // step))
            job = np.clip(chance.normal(chance.uniform(8, 95), 6, GPUS), 0, 100)[:, None]
            level[place, :, at] = np.clip(np.rint(chance.normal(job, 5, (GPUS, count))), 0, 100)[:, at]
            now = until + int(chance.exponential(20 if chance.random() < 0.6 else 400))
    heard = chance.random((machines, GPUS, count)) > 0.002
    for _ in range(machines // 2):  # exporters that are away for a while
        since, lasting = int(chance.integers(count)), int(chance.integers(5, 60)) * 60 // step
        heard[chance.integers(machines), :, since : since + lasting] = False
    places, devices, samples = np.nonzero(heard)
    return {
        "place": places.astype(np.int32),
        "gpu": devices.astype(np.int8),
        "second": (samples * step + places * 7 % min(step, 60)).astype(np.int64),
        "utilisation": level[heard] / 100,
    }


def written(folder: str, *, days: int, machines: int, step: int, lasting: int) -> History:
    """A history of so many days. Each row tells of samples of `lasting` seconds."""
    history = History(folder)
    knowns = [to_json(machine(number)) for number in range(machines)]
    with history.connect(threads=2, memory="2GB") as connection:
        connection.register("drawn", drawn_day(machines, step))
        connection.execute("CREATE TABLE drawn_day AS SELECT * FROM drawn")
        connection.execute("CREATE TABLE machine (resource VARCHAR, known VARCHAR)")
        connection.executemany("INSERT INTO machine VALUES (?, ?)", [[name(n), k] for n, k in enumerate(knowns)])
        until, longest = ("time + " + str(lasting), "60") if lasting else ("NULL", "NULL")
        for number in range(days):
            day, shift = FIRST + timedelta(days=number), number * 13 % machines
            midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
            part = (
                "SELECT format('m-{{:05d}}', place + {add}) AS resource, gpu::VARCHAR AS gpu, "
                "second + {midnight} AS time, utilisation FROM drawn_day WHERE place {half}"
            )
            put(
                history, connection, Table.ACTIVITY, day,
                f"SELECT resource, gpu, time, {until}, {longest}, utilisation, NULL, NULL, NULL, NULL, NULL FROM ("
                + part.format(add=-shift, midnight=midnight, half=f">= {shift}") + " UNION ALL "
                + part.format(add=machines - shift, midnight=midnight, half=f"< {shift}") + ")",
            )  # fmt: skip
            put(
                history, connection, Table.RESOURCES, day,
                f"SELECT resource, {midnight}, {midnight + DAY}, known FROM machine ORDER BY resource",
            )  # fmt: skip
    return history


def put(history: History, connection: duckdb.DuckDBPyConnection, table: Table, day: date, rows: str) -> None:
    folder = Path(history.folder(table, day))
    folder.mkdir(parents=True)
    names = ", ".join(table.columns)
    typed = ", ".join(f"{name}::{kind} AS {name}" for name, kind in table.columns.items())
    connection.execute(
        f"COPY (SELECT {typed} FROM ({rows}) AS r({names})) TO '{folder}/{WHOLE_DAY}' "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2, ROW_GROUP_SIZE 122880)"
    )


# --- what it takes ---------------------------------------------------------------------------------------------------

BARE = "SELECT resource, gpu, avg(utilisation), min(time), max(time), count(*) FROM read_parquet(?) GROUP BY 1, 2"


def bare(folder: str) -> dict[str, Any]:
    """The least that one can ask of all samples."""
    history = History(folder)
    parts = [part for day in history.days() for part in history.parts(Table.ACTIVITY, day)]
    with history.connect(threads=2) as connection:
        rows = connection.execute(BARE, [parts]).fetchall()
    return {"samples": sum(row[-1] for row in rows), "gpus": len(rows)}


def one_policy(folder: str) -> dict[str, Any]:
    return told(backtest(History(folder), Question(policy=starter())))


def sweep(folder: str) -> dict[str, Any]:
    policy = starter()
    return told(backtest(History(folder), Question(policy=policy, sweep=usual_sweep(policy))))


def told(report: Report) -> dict[str, Any]:
    totals = report.totals
    points = len(report.sweep.points) if report.sweep else 0
    return {"samples": report.samples, "stops": totals.stops, "resources": totals.resources, "points": points}


ASKED: Mapping[str, Callable[[str], dict[str, Any]]] = {"bare": bare, "one_policy": one_policy, "sweep": sweep}


def measured(what: str, folder: str) -> dict[str, Any]:
    """In a process of its own: what it found, seconds on the wall and of CPU, and the most memory it had."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.backtest", "--ask", what, "--of", folder],
        cwd=HERE.parent,
        check=True,
        stdout=subprocess.PIPE,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ask(what: str, folder: str) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    found = ASKED[what](folder)
    found |= {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "mib": int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024,  # ours alone
    }
    print(json.dumps(found))


def speed(folder: str, what: str, *, days: int, machines: int, step: int, lasting: int) -> None:
    began = time.perf_counter()
    written(folder, days=days, machines=machines, step=step, lasting=lasting)
    drawn = time.perf_counter() - began
    least, ours = measured("bare", folder), measured(what, folder)
    assert (ours["samples"], ours["resources"]) == (least["samples"], machines), (ours, least)
    bytes_ = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    print(
        f"{days} days of {machines * GPUS:,} GPUs, {least['samples']:,} rows, one each {step} s: {bytes_ / 1e6:,.0f} MB"
        f" (drawn in {drawn:.0f} s)"
    )
    print(f"  bare aggregation, 2 threads: {least['cpu']:.1f} s CPU, {least['wall']:.1f} s, {least['mib']:,.0f} MiB")
    words_ = f"a sweep of {ours['points']} points" if ours["points"] else "one policy"
    print(
        f"  {words_}: {ours['cpu']:.1f} s CPU, {ours['wall']:.1f} s, {ours['mib']:,.0f} MiB at the peak; "
        f"{ours['stops']:,} stops of the policy"
    )
    print(f"  ratio {ours['cpu'] / least['cpu']:.1f} of CPU, {ours['wall'] / least['wall']:.1f} of time")
    assert ours["mib"] <= MEMORY, ours


# --- a real day ------------------------------------------------------------------------------------------------------


def real_day(folder: str, *, half: int | None = None) -> History:
    """The trace as a history: all pods, or a half of them, by a hash of their names."""
    chosen = ""
    if half is not None:
        names = [row[0] for row in duckdb.execute(f"SELECT DISTINCT container_ip FROM '{TRACE}'").fetchall()]
        mine = [name for name in names if hashlib.sha256(name.encode()).digest()[0] % 2 == half]
        chosen = f"WHERE container_ip IN ({', '.join(repr(name) for name in mine)})"
    table = Path(folder) / f"pods-{half}.parquet"
    duckdb.execute(
        "COPY (SELECT container_ip AS resource, timestamp_anon AS time, gpu_util_pct / 100 AS utilisation "
        f"FROM '{TRACE}' {chosen}) TO '{table}' (FORMAT parquet)"
    )
    history = History(f"{folder}/history-{half}")
    import_table(str(table), history, Reading())
    return history


def found_in(history: History, ceiling: float) -> Mapping[str, Any]:
    policy = starter()
    question = Question(policy=policy, sweep=usual_sweep(policy), max_false_stops=ceiling)
    return marked(as_json(backtest(history, question)), policy)


def line(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return "no point is within it"
    return (
        f"{words.point_words(point)}: {point['stops']} stops, {point['gpu_hours_saved']:.1f} GPU hours, "
        f"{words.decided(point)}"
    )


def same(point: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    terms = ("for", "utilisation_below", "grace")
    return next(one for one in points if all(one[term] == point[term] for term in terms))


def a_real_day(folder: str, picture: Path | None) -> None:
    """What the starter policy finds, and whether what is chosen on one half of the pods holds on the other."""
    whole, halves = real_day(folder), [real_day(folder, half=half) for half in (0, 1)]
    found = found_in(whole, CEILINGS[0])
    totals = found["totals"]
    print(f"a real day of {totals['resources']} pods, {found['samples']:,} samples; the starter policy as it is:")
    print(
        f"  {totals['stops']} stops, {totals['gpu_hours_saved']:.1f} GPU hours; {totals['oracle_share']:.1%} of the "
        f"oracle's {totals['oracle_gpu_hours']:.1f}; {totals['false_stops']} of {totals['decided']} decided "
        f"stops false ({totals['false_stop_rate']:.1%}), {totals['undecided']} undecided"
    )
    for half, history in enumerate(halves):
        print(f"  on half {half}: {line(own(found_in(history, CEILINGS[0])))}")
    for ceiling in CEILINGS:
        best = found_in(whole, ceiling)["sweep"]["recommended"]
        print(f"  with at most {ceiling:.0%} false stops, on all pods: {line(best)}")
        tried = [found_in(history, ceiling) for history in halves]
        for chosen, checked in ((0, 1), (1, 0)):
            best = tried[chosen]["sweep"]["recommended"]
            print(f"    chosen on half {chosen} ({tried[chosen]['totals']['resources']} pods): {line(best)}")
            if best is not None:
                print(f"    checked on half {checked}: {line(same(best, tried[checked]['sweep']['points']))}")
    if picture is not None:
        picture.write_text(drawn(found))


def own(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(point for point in found["sweep"]["points"] if point["own"])


def drawn(found: Mapping[str, Any]) -> str:
    """The frontier as the page of a back-test has it, as a file of its own, with its colours for light and dark."""
    static = HERE.parent / "service/console/static"
    colours = re.findall(
        r"(?ms)^:root \{.*?^\}|^@media \(prefers-color-scheme: dark\) \{.*?^\}", (static / "curfew.css").read_text()
    )
    rules = re.findall(r"(?m)^\.chart .*$", (static / "backtest.css").read_text())
    style = "\n".join([*colours[:2], "svg { font-family: system-ui, sans-serif; }", *rules])
    chart = str(page.frontier_chart(found["sweep"]))
    chart = chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    paper = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
    return chart.replace("<title>", f"<style>\n{style}\n</style>{paper}<title>", 1) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=365)
    arguments.add_argument("--month", type=int, default=30)
    arguments.add_argument("--gpus", type=int, default=1000)
    arguments.add_argument("--picture", type=Path)
    arguments.add_argument("--ask", choices=ASKED, help=argparse.SUPPRESS)
    arguments.add_argument("--of", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.ask:
        ask(chosen.ask, chosen.of)
        return
    machines = chosen.gpus // GPUS
    with TemporaryDirectory() as folder:
        if TRACE.exists():
            a_real_day(folder, chosen.picture)
        else:
            print("the real day is not beside the project: left out")
        if chosen.month:
            speed(f"{folder}/month", "sweep", days=chosen.month, machines=machines, step=300, lasting=240)
        if chosen.days:
            speed(f"{folder}/year", "one_policy", days=chosen.days, machines=machines, step=60, lasting=0)


if __name__ == "__main__":
    main()
