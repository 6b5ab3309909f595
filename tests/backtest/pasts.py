"""Small histories: a few machines and their samples, written as Parquet where back-tests read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from providers.records import Price, State
from service.history.layout import WHOLE_DAY, History, Table, day_of
from service.model import Known
from service.store.resources import to_json
from tests.pipeline.builders import known, record

T0 = int(datetime(2026, 3, 2, 6, tzinfo=UTC).timestamp())
"""A Monday morning."""
LONG_AGO = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Machine:
    """One resource: what it was, from when to when, and what its devices said."""

    id: str
    was: list[tuple[int, int, Known]] = field(default_factory=list)
    said: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    watts: dict[str, dict[int, float]] = field(default_factory=dict)
    """Device → second of a sample → what it drew; nothing is known of it at other seconds."""


def running(
    id: str, *, gpus: int = 1, since: datetime = LONG_AGO, hourly: int | None = 2_000_000, **more: Any
) -> Known:
    """A machine that runs."""
    price = None if hourly is None else Price(rate_micros=hourly, currency="USD", source="list")
    here = known(id, record=record(id, state=State.RUNNING, gpu_count=gpus), started_at=since, price=price)
    return replace(here, id=id, **more)


def stopped(id: str, **more: Any) -> Known:
    """The same, stopped."""
    one = running(id, **more)
    return replace(one, record=replace(one.record, state=State.STOPPED), started_at=None)


def every(step: int, start: int, end: int, value: float = 0.0) -> list[tuple[int, float]]:
    """Samples of one value at a steady pace."""
    return [(time, value) for time in range(start, end, step)]


def machine(id: str, start: int, end: int, samples: Sequence[tuple[int, float]], **more: Any) -> Machine:
    """One GPU that ran from start to end."""
    return Machine(id, was=[(start, end, running(id, **more))], said={"0": list(samples)})


def written(folder: Path, machines: Iterable[Machine]) -> History:
    """These machines as a history."""
    history = History(str(folder))
    activity: dict[Any, list[tuple[Any, ...]]] = {}
    resources: dict[Any, list[tuple[Any, ...]]] = {}
    for one in machines:
        for device, samples in one.said.items():
            for time, value in samples:
                activity.setdefault(day_of(time), []).append(
                    (one.id, device, time, value, one.watts.get(device, {}).get(time))
                )
        for start, end, was in one.was:
            time = start
            while time < end:
                until = min(end, (time // 86400 + 1) * 86400)
                resources.setdefault(day_of(time), []).append((one.id, time, until, to_json(was)))
                time = until
    with history.connect() as connection:
        for table, days, columns in (
            (Table.ACTIVITY, activity, "resource, gpu, time, utilisation, power_watts"),
            (Table.RESOURCES, resources, "resource, time, until, known"),
        ):
            for day, rows in days.items():
                made = ", ".join(f"{name} {kind}" for name, kind in table.columns.items())
                connection.execute(f"CREATE OR REPLACE TABLE made ({made})")
                columnwise = [list(column) for column in zip(*rows, strict=True)]
                values = ", ".join(["unnest(?)"] * len(columnwise))
                connection.execute(f"INSERT INTO made ({columns}) SELECT {values}", columnwise)
                Path(history.folder(table, day)).mkdir(parents=True)
                to = f"{history.folder(table, day)}/{WHOLE_DAY}"
                connection.execute(f"COPY (SELECT * FROM made ORDER BY {table.order}) TO '{to}' (FORMAT parquet)")
    return history


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)
