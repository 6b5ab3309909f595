"""Reads a history back the plain way, second by second, and makes what a recorder is handed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.records import Series, Signal
from service.history.layout import History, Table
from service.history.record import Sight
from service.model import Known
from tests.pipeline.builders import record, ref

MORNING = 1_795_305_600
"""2026-11-22, midnight in UTC."""
SECONDS = timedelta(seconds=1)
Row = tuple[Any, ...]


def at(second: float) -> datetime:
    """So many seconds after midnight."""
    return datetime.fromtimestamp(MORNING + second, UTC)


def known(name: str = "i-1", **more: Any) -> Known:
    """A running machine of vision, known for long. What is said of its record is its record's."""
    of_record = {key: more.pop(key) for key in ("state", "tags", "gpu_count") if key in more}
    given: dict[str, Any] = {
        "id": name,
        "source": "research",
        "record": record(name, **of_record),
        "first_seen": at(-86_400),
        "state_since": at(-86_400),
        "started_at": at(-86_400),
        "project": "vision",
    }
    return Known(**{**given, **more})


def samples(
    values: Mapping[int, float] | Sequence[tuple[int, float]],
    *,
    name: str = "i-1",
    device: str = "0",
    signal: Signal = Signal.UTILISATION,
) -> Series:
    """Second after midnight → value."""
    told = sorted(dict(values).items())
    return Series(
        ref=ref(name),
        device=device,
        signal=signal,
        times=tuple(MORNING + second for second, _ in told),
        values=tuple(value for _, value in told),
    )


def sight(second: float, *resources: Known, series: Mapping[str, Sequence[Series]] | None = None, **more: Any) -> Sight:
    """A look at that second that saw all of these."""
    given: dict[str, Any] = {"seen": frozenset(one.id for one in resources)}
    return Sight(at=at(second), resources=resources, series=series or {}, **{**given, **more})


def stored(history: History, table: Table = Table.ACTIVITY, columns: str = "*") -> list[tuple[Any, ...]]:
    """All that count, in the order of the table."""
    parts = [part for day in history.days() for part in history.parts(table, day)]
    if not parts:
        return []
    with history.connect() as connection:
        return connection.execute(
            f"SELECT {columns} FROM read_parquet(?, hive_partitioning = false) ORDER BY {table.order}", [parts]
        ).fetchall()


def rows(history: History, table: Table) -> list[Row]:
    """The same with seconds since midnight."""
    columns = ", ".join(f"{column} - {MORNING}" if column in ("time", "until") else column for column in table.columns)
    return stored(history, table, columns)


def said(history: History) -> dict[str, dict[int, str]]:
    """Resource → second → what it was: of two rows the later counts, and what is not told is as the row before."""
    found: dict[str, dict[int, str]] = {}
    before: dict[str, str] = {}
    for resource, since, until, text in rows(history, Table.RESOURCES):
        before[resource] = text = text or before[resource]
        seconds = found.setdefault(resource, {})
        for second in [second for second in seconds if second >= since]:
            del seconds[second]
        seconds |= dict.fromkeys(range(since, until), text)
    return found


def spoken(told: Iterable[tuple[int, int | None, int | None, float]], gap: int) -> dict[int, float]:
    """Second → what rows (time, until, step, value) say of it: between the samples of a row where none is further than
    `gap` from the next, and after the last one up to the next row or `gap`."""
    found: dict[int, float] = {}
    ordered = sorted(told, key=lambda row: row[0])
    for index, (time, until, step, value) in enumerate(ordered):
        last = time if until is None else until
        first = time if step is None or step <= gap else last
        following = ordered[index + 1][0] if index + 1 < len(ordered) else last + gap
        found |= dict.fromkeys(range(first, min(last + gap, max(following, last))), value)
    return found


def heard(series: Series, gap: int) -> dict[int, float]:
    """The same of samples."""
    numbers = [(time, value) for time, value in zip(series.times, series.values, strict=True) if not math.isnan(value)]
    return spoken([(time, None, None, value) for time, value in numbers], gap)
