"""Measures the Prometheus page of a large fleet: rendered anew after a cycle in which 1 % changed or nothing did, and
scraped again unchanged.

Against prometheus_client with a gauge per resource, in the same run: CPU seconds of this process, medians. That both
pages have the same GPUs, and ours the money that all intervals say one by one, is asserted first.
Usage: python -m bench.metrics [--resources 100000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, update
from sqlmodel import col, select

from policies.evaluate import evaluate
from policies.policy import DEFAULT_PROFILE
from policies.quantities import MICROS
from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef, State
from service import metrics
from service.clock import SetClock
from service.model import Interval, Known, MeterChange, Telemetry
from service.pipeline.activity import Activity
from service.pipeline.evaluate import Judged, Look, facts_of
from service.runtime import compose
from service.settings import Settings
from service.store import lease, ledger, retention, spend, totals
from service.store.database import Database
from service.store.open_intervals import OpenIntervals
from service.store.spend import By
from service.store.sums import BEGINNING
from service.store.tables import Finding, Outbox, Resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LABELS = ("project", "provider", "region", "gpu_model", "activity")
Row = dict[str, Any]


def fleet(count: int) -> list[Row]:
    """Machines of 40 projects, each with two regions of one cloud and two machine types, some of it spot."""
    chance = random.Random(5)
    regions = {"aws": ("us-east-1", "us-west-2", "eu-west-1", "ap-south-1"), "gcp": ("us-central1", "europe-west4")}
    types = (("H100", 8, 55.04), ("A100-40GB", 8, 21.96), ("L4", 1, 0.80), ("T4", 4, 3.91))
    makings = []
    for _ in range(40):
        provider = chance.choice(tuple(regions))
        makings.append((provider, chance.sample(regions[provider], 2), chance.sample(types, 2)))
    rows = []
    for number in range(count):
        project = number % 40
        provider, places, machines = makings[project]
        model, gpus, cost = chance.choice(machines)
        spot = chance.random() < 0.3
        rows.append(
            {
                "resource_id": f"{number:020x}",
                "source": f"account-{project}",
                "provider": provider,
                "region": chance.choice(places),
                "kind": "instance",
                "gpu_model": model,
                "gpu_count": gpus,
                "capacity_type": "spot" if spot else "on_demand",
                "state": "running",
                "project": f"project-{project}",
                "hourly_cost": cost * 0.4 if spot else cost,
                "currency": "USD",
                "activity": chance.choice(("busy", "busy", "idle", "unknown")),
            }
        )
    return rows


def stored(database: Database, rows: list[Row]) -> None:
    """The fleet with a month behind it: for each machine an open interval, one that ended, and for some a finding."""
    chance = random.Random(7)
    with database.transaction() as session:
        link = session.connection()
        given = {
            "account": "1", "external_id": "i", "incarnation": "i", "sku": "g6", "gpu_share": 1.0, "tags": {},
            "members": [], "protections": [], "blockers": [], "losses": [], "state_since": NOW, "first_seen": NOW,
            "earlier_runs_seconds": 0,
        }  # fmt: skip
        names = ("source", "provider", "region", "kind", "gpu_model", "gpu_count", "capacity_type", "state", "project")
        link.execute(
            insert(Resource),
            [{**given, "id": row["resource_id"], "name": "m", **{name: row[name] for name in names}} for row in rows],
        )
    for first, last in ((400, 200), (200, None)):
        began = [NOW - (first + chance.random()) * HOUR for _ in rows]  # no two of them together
        ended = None if last is None else NOW - last * HOUR
        opened = [
            MeterChange(resource_id=row["resource_id"], closes=False, at=NOW, opened=(interval(row, at, ended),))
            for row, at in zip(rows, began, strict=True)
        ]
        with database.transaction() as session:
            ledger.apply(session, opened)
    with database.transaction() as session:
        session.add_all(
            Finding(
                policy="idle", policy_version=1, resource_id=row["resource_id"], project=row["project"], status="open",
                status_reason="", reason="", remedy="stop", opened_at=NOW, rate_micros=10**6, currency="USD",
            )
            for row in rows[:5000]
        )  # fmt: skip
        session.add_all(
            Outbox(
                message_id=f"m{number}", kind="warning", channel="c", channel_kind="mail", status="delivered",
                created_at=NOW, next_try_at=NOW,
            )
            for number in range(5000)
        )  # fmt: skip
    sum_up(database)


def interval(row: Row, started_at: datetime, ended_at: datetime | None = None) -> Interval:
    return Interval(
        resource_id=row["resource_id"],
        project=row["project"],
        state="running",
        capacity_type=row["capacity_type"],
        activity=row["activity"],
        rate_micros=round(row["hourly_cost"] * MICROS),
        currency="USD",
        price_source="list",
        started_at=started_at.replace(microsecond=0),
        ended_at=ended_at,
        base=0,
    )


def sum_up(database: Database) -> None:
    """What follows every cycle."""
    with database.transaction() as session:
        held = lease.take(session, "bench")
    assert held is not None
    retention.count(database, held, NOW, enough=lambda: False)


def change(database: Database, rows: list[Row], at: datetime) -> None:
    """What a cycle writes: of these machines an interval ends and another begins, and they are written anew."""
    ids = [row["resource_id"] for row in rows]
    with database.transaction() as session:
        newest = session.exec(select(func.max(Resource.revision))).one()
        session.connection().execute(update(Resource).where(col(Resource.id).in_(ids)).values(revision=newest + 1))
        last = ledger.latest_of(session, ids)
        following = [
            replace(last[row["resource_id"]], started_at=at, base=last[row["resource_id"]].reached(at)) for row in rows
        ]
        ledger.apply(
            session,
            [MeterChange(resource_id=one.resource_id, closes=True, at=at, opened=(one,)) for one in following],
        )


def same_money(database: Database, rows: list[Row], opened: OpenIntervals, now: datetime) -> None:
    """What the page says of each project and kind is what its intervals say one by one, to the micro-unit."""
    projects = sorted({row["project"] for row in rows})
    kinds = (By.PROVIDER, By.GPU_MODEL, By.CAPACITY_TYPE)
    with database.reading() as session:
        said, _ = totals.costs(session, now, opened)
        one_by_one: Counter[tuple[Any, ...]] = Counter()
        for project in projects:
            metered = spend.metered(session, now=now, projects=[project])
            for (kind, currency), cost in spend.sums(metered, kinds, BEGINNING, now, UTC).items():
                one_by_one[project, *kind, currency] += cost.micros
    assert said == one_by_one


def known(row: Row) -> Known:
    ref = ResourceRef(
        provider=row["provider"],
        account="1",
        region=row["region"],
        kind=Kind.INSTANCE,
        external_id=row["resource_id"],
    )
    record = ResourceRecord(
        ref=ref,
        incarnation="i",
        name="m",
        zone=None,
        sku="g6",
        gpu_vendor="nvidia",
        gpu_model=row["gpu_model"],
        gpu_count=row["gpu_count"],
        capacity_type=CapacityType(row["capacity_type"]),
        state=State(row["state"]),
    )
    price = Price(rate_micros=round(row["hourly_cost"] * MICROS), currency=row["currency"], source="list")
    return Known(
        id=row["resource_id"],
        source=row["source"],
        record=record,
        first_seen=NOW,
        state_since=NOW,
        project=row["project"],
        price=price,
    )


def looked_at(rows: list[Row], resources: Sequence[Known]) -> tuple[Look, Judged]:
    """What a cycle has in hand when it renders the page."""
    seen = frozenset(one.id for one in resources)
    look = Look(resources=resources, seen=seen, telemetry=Telemetry(), cost_to_date={}, at=NOW)
    activity = {row["resource_id"]: Activity(activity=row["activity"]) for row in rows if row["activity"] != "unknown"}
    activities = {DEFAULT_PROFILE.key: activity}
    facts = facts_of(resources, [], seen, activities, {}, NOW)
    rows_of = {one.id: number for number, one in enumerate(resources)}
    return look, Judged(facts=facts, rows=rows_of, activity=activities, judgement=evaluate(facts, []), at=NOW)


def by_client(rows: list[Row]) -> Callable[[], bytes]:
    """The same fleet the usual way: a gauge per machine, set anew after a look, rendered for every scrape."""
    registry = CollectorRegistry()
    gauge = Gauge("gpus", "GPUs of each machine.", ("resource", *LABELS[1:]), registry=registry)
    for row in rows:
        gauge.labels(row["resource_id"], *(row[name] for name in LABELS[1:])).set(row["gpu_count"])
    return lambda: generate_latest(registry)


def gpus_on(page: bytes, name: str) -> float:
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    return sum(sample.value for sample in families[name].samples)


def median(rounds: int, work: Callable[[], Any], *, first: Callable[[], Any] = lambda: None) -> float:
    spent = []
    for _ in range(rounds):
        first()
        gc.collect()
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--resources", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    rows = fleet(chosen.resources)
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'bench.db'}")
        database.upgrade()
        stored(database, rows)
        clock, chance = SetClock(NOW), random.Random(3)
        rt = compose(Settings(home=Path(folder)), clock=clock, database=database)
        resources, client = [known(row) for row in rows], by_client(rows)
        look, judged = looked_at(rows, tuple(resources))

        def page() -> None:
            rt.metrics = metrics.page(rt, look, judged, clock.now())

        def a_cycle(share: float) -> None:
            """A minute in which so many machines changed."""
            nonlocal look, judged
            sum_up(database)
            clock.forward(MINUTE)
            changed = chance.sample(range(len(rows)), int(share * len(rows)))
            change(database, [rows[number] for number in changed], clock.now())
            for number in changed:
                resources[number] = replace(resources[number], state_since=clock.now())
            look, judged = looked_at(rows, tuple(resources))

        first = median(1, page)
        assert gpus_on(rt.metrics, "curfew_gpus") == gpus_on(client(), "gpus")
        same_money(database, rows, rt.memory.open_intervals, clock.now())
        theirs = median(chosen.rounds, client)
        anew = median(chosen.rounds, page, first=lambda: a_cycle(0.01))
        same_money(database, rows, rt.memory.open_intervals, clock.now())
        steady = median(chosen.rounds, page, first=lambda: a_cycle(0))
        again = median(chosen.rounds, lambda: metrics.render(rt))
        parts = {
            "counting the fleet": median(chosen.rounds, lambda: rt.memory.census.count(look.resources, judged)),
            "asking the database": median(chosen.rounds, lambda: metrics._from_rows(rt, clock.now())),
        }
        database.close()
    print(
        f"{chosen.resources:,} resources; CPU seconds, medians; "
        "the same GPUs on both pages, the money that all intervals say one by one"
    )
    print(f"  prometheus_client, a gauge each: {theirs:.3f}")
    print(f"  ours, rendered anew after 1 % changed: {anew:.3f}, {anew / theirs:.3f} of it (goal 0.1)")
    print(f"  ours, rendered anew, nothing changed: {steady:.3f}, {steady / theirs:.3f} of it")
    print(f"    {', '.join(f'{name} {seconds:.3f}' for name, seconds in parts.items())}")
    print(f"  ours, the first of a process: {first:.3f}")
    print(f"  ours, unchanged: {again:.6f}, {again / theirs:.5f} of it (goal 0.02)")
    print(f"  {len(rt.metrics) / 1000:.0f} kB a page")


if __name__ == "__main__":
    main()
