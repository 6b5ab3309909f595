"""Reads a history: Parquet by day → for how long each GPU's samples speak, when they show work, and what each resource
was. A year of a fleet fits: samples become stretches while they are read.

A stretch of samples that follow each other without a hole, all on the same side of every threshold, says as much as the
samples themselves: a sample speaks from its own second until the next one, at most `max_gap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from policies.policy import IdleProfile
from providers.records import State
from service.backtest.spans import LINE, NONE, Ints, Spans, on_line, union
from service.history.layout import History, Table, day_of, midnight
from service.model import Known
from service.store.resources import from_json

READERS = 2
"""Days that are read at the same time."""
Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What of a history is asked for."""

    start: int
    """Unix seconds, and up to `end`."""
    end: int
    gap: int
    """Seconds that a sample speaks when no next one follows."""
    thresholds: Sequence[float]
    """Ascending; a sample at or above one is work by it."""
    reach: int
    """Work that is no further apart than this may be told as one stretch."""


@dataclass(frozen=True)
class Series:
    """Everything that speaks: devices, and counters of requests. Columns, one entry each."""

    resource: Ints
    gpu: Ints
    """The whole GPU it is (a slice of), counted over all resources."""
    by_number: NDArray[np.bool_]
    """Whether its source names GPUs by number, not by uuid."""
    counter: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.resource)


@dataclass(frozen=True)
class Versions:
    """What each resource was, and for how long: sorted by resource, then time."""

    resource: Ints
    start: Ints
    end: Ints
    known: Ints
    """Index in `Past.knowns`."""

    def __len__(self) -> int:
        return len(self.resource)

    @property
    def spans(self) -> Spans:
        """On the line of resources; never more than one at a time."""
        return Spans(on_line(self.resource, self.start), on_line(self.resource, self.end))

    def of(self, chosen: NDArray[np.bool_]) -> Versions:
        return Versions(self.resource[chosen], self.start[chosen], self.end[chosen], self.known[chosen])


@dataclass(frozen=True, kw_only=True)
class Past:
    """A history in memory."""

    reading: Reading
    resources: Sequence[str]
    versions: Versions
    knowns: Sequence[Known]
    series: Series
    spoken: Spans
    """On the line of series: when its samples speak."""
    work: Sequence[Spans]
    """For each threshold, when they show work by it."""
    first_after: Mapping[tuple[int, int], int]
    """(series, a second at which samples begin to count) → its first sample from then on."""
    samples: int
    """Rows that were read."""


# --- what each resource was ------------------------------------------------------------------------------------------


@dataclass
class _Names:
    """Numbers for what DuckDB knows by its hash."""

    texts: list[Any] = field(default_factory=list)
    _number: dict[int, int] = field(default_factory=dict)
    _hashes: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    _numbers: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def missing(self, hashes: NDArray[np.uint64]) -> list[int]:
        return [int(one) for one in np.unique(hashes) if int(one) not in self._number]

    def add(self, one: int, text: Any) -> int:
        if one not in self._number:
            self._number[one] = len(self.texts)
            self.texts.append(text)
            self._hashes = np.zeros(0, np.uint64)
        return self._number[one]

    def numbers(self, hashes: NDArray[np.uint64]) -> Ints:
        if len(self._hashes) != len(self._number):
            known = np.array(list(self._number), np.uint64)
            order = np.argsort(known)
            self._hashes = known[order]
            self._numbers = np.array(list(self._number.values()), np.int64)[order]
        if not len(hashes):
            return np.zeros(0, np.int64)
        return self._numbers[np.searchsorted(self._hashes, hashes)]


def bounds(history: History) -> tuple[int, int] | None:
    """The first and the last second of which anything is known; None of an empty history."""
    days = [day for day in history.days() if history.parts(Table.RESOURCES, day)]
    if not days:
        return None
    with history.connect() as connection:
        found = [
            connection.execute(
                "SELECT min(time), max(until) FROM read_parquet(?)", [history.parts(Table.RESOURCES, day)]
            ).fetchall()[0]
            for day in sorted({days[0], days[-1]})
        ]
    starts, ends = [low for low, _ in found if low is not None], [high for _, high in found if high is not None]
    return (min(starts), max(ends)) if starts and ends else None


def _versions(history: History, reading: Reading, names: _Names) -> tuple[Versions, list[Known]]:
    """Every stretch in which a resource was one and the same."""
    texts = _Names()
    columns: list[tuple[Ints, Ints, Ints, Ints]] = []
    with history.connect() as connection:
        for day in _days(history, reading):
            parts = history.parts(Table.RESOURCES, day)
            if not parts:
                continue
            connection.execute(
                """
                CREATE OR REPLACE TEMP TABLE was AS
                SELECT resource, time, until, last_value(known IGNORE NULLS) OVER (
                    PARTITION BY resource ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                ) AS known
                FROM read_parquet(?) WHERE time < ? AND until > ?
                """,
                [parts, reading.end, reading.start],
            )
            found = connection.execute(
                "SELECT hash(resource) AS r, time, until, hash(known) AS k FROM was WHERE known IS NOT NULL"
                " ORDER BY resource, time"
            ).fetchnumpy()
            for table, column, hashes in ((names, "resource", found["r"]), (texts, "known", found["k"])):
                new = table.missing(hashes)
                if new:
                    rows = connection.execute(
                        f"SELECT DISTINCT one, {column} FROM was JOIN (SELECT unnest(?::UBIGINT[]) AS one)"
                        f" ON hash({column}) = one",
                        [new],
                    ).fetchall()
                    for one, text in sorted(rows, key=lambda row: str(row[1])):
                        table.add(one, text)
            columns.append((names.numbers(found["r"]), found["time"], found["until"], texts.numbers(found["k"])))
    if not columns:
        nothing = np.zeros(0, np.int64)
        return Versions(nothing, nothing, nothing, nothing), []
    resource, start, end, known = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.lexsort((start, resource))
    return _joined(resource[order], start[order], end[order], known[order], reading), [
        from_json(text) for text in texts.texts
    ]


def _joined(resource: Ints, start: Ints, end: Ints, known: Ints, reading: Reading) -> Versions:
    """Stretches that go on as they were are one; of two at once the later counts."""
    same = resource[1:] == resource[:-1]
    end[:-1] = np.where(same, np.minimum(end[:-1], start[1:]), end[:-1])
    goes_on = same & (known[1:] == known[:-1]) & (end[:-1] == start[1:])
    first = np.append(True, ~goes_on)
    last = np.append(~goes_on, True)
    start, end = np.maximum(start[first], reading.start), np.minimum(end[last], reading.end)
    kept = end > start
    return Versions(resource[first][kept], start[kept], end[kept], known[first][kept])


def _days(history: History, reading: Reading) -> list[date]:
    first, last = day_of(reading.start), day_of(reading.end)
    return [day for day in history.days() if first <= day <= last]


# --- what its GPUs did -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Day:
    """The stretches of one day, sorted by series and time. The last of each series may go on the day after."""

    series: NDArray[np.uint64]
    start: Ints
    end: Ints
    level: Ints
    """How many thresholds its samples reach."""
    rows: int
    names: Sequence[tuple[int, str, str, bool]]
    """Series that were not known before: hash, resource, device, whether it counts requests."""
    first_after: Sequence[tuple[int, int, int]]
    """Series, the second that was asked about, its first sample from then on."""


def read(history: History, reading: Reading, profile: IdleProfile, *, progress: Progress, share: float = 1.0) -> Past:
    """Everything of a stretch of the past. `progress` is told up to `share`."""
    names = _Names()
    versions, knowns = _versions(history, reading, names)
    beginnings = _beginnings(versions, knowns, profile)
    days = [day for day in _days(history, reading) if history.parts(Table.ACTIVITY, day)]
    series, counters, seen = _Names(), list[bool](), set[int]()
    spoken: list[Spans] = []
    work: list[list[Spans]] = [[] for _ in reading.thresholds]
    first_after: dict[tuple[int, int], int] = {}
    rows, before = 0, None

    def asked(resource_hashes: Mapping[str, list[int]], day: date) -> Mapping[str, list[int]]:
        low, high = midnight(day) - reading.gap, midnight(day) + 86400  # or the day after, if no more came on its own
        return {
            name: within
            for name, times in resource_hashes.items()
            if (within := [time for time in times if low <= time < high])
        }

    by_name: dict[str, list[int]] = {}
    for number, time in beginnings:
        by_name.setdefault(names.texts[number], []).append(time)

    with ThreadPoolExecutor(READERS) as pool:
        wanted = iter(days)
        ahead = [
            pool.submit(_read_day, history, day, reading, seen, asked(by_name, day)) for day in islice(wanted, READERS)
        ]
        done = 0
        while ahead:
            found = ahead.pop(0).result()
            for one, resource, gpu, counter in found.names:
                if one not in seen:
                    seen.add(one)
                    series.add(one, (resource, gpu))
                    counters.append(counter)
            following = next(wanted, None)
            if following is not None:
                ahead.append(pool.submit(_read_day, history, following, reading, seen, asked(by_name, following)))
            day = _numbered(found, series)
            for one, time, first in found.first_after:
                key = int(series.numbers(np.array([one], np.uint64))[0]), time
                first_after[key] = min(first, first_after.get(key, first))
            rows += found.rows
            if before is not None:
                _keep(_until_next(before, day), reading, spoken, work)
            before = day
            done += 1
            progress(share * done / len(days), f"read {done} of {len(days)} days")
    if before is not None:
        _keep(before, reading, spoken, work)
    return Past(
        reading=reading,
        resources=names.texts,
        versions=versions,
        knowns=knowns,
        series=_series(series, counters, names),
        spoken=_together(spoken, 0),
        work=[_together(parts, reading.reach) for parts in work],
        first_after=first_after,
        samples=rows,
    )


def _beginnings(versions: Versions, knowns: Sequence[Known], profile: IdleProfile) -> set[tuple[int, int]]:
    """(resource, second): from when on the samples of a run count, where that lies in the past that is read."""
    warm_up = profile.warm_up
    found = set()
    for resource, known in zip(versions.resource.tolist(), versions.known.tolist(), strict=True):
        one = knowns[known]
        if one.record.state is State.RUNNING and one.started_at is not None:
            found.add((resource, int((one.started_at + warm_up).timestamp())))
    return found


def _read_day(
    history: History, day: date, reading: Reading, seen: set[int], beginnings: Mapping[str, list[int]]
) -> _Day:
    """One day's samples as stretches: a row is kept only where something changes."""
    parts = history.parts(Table.ACTIVITY, day)
    level = " + ".join(f"(coalesce(utilisation, 0) >= {float(one)!r})::UTINYINT" for one in reading.thresholds) or "0"
    whole = reading.start <= midnight(day) and midnight(day) + 86400 <= reading.end
    within = "" if whole else f" AND time >= {reading.start} AND time < {reading.end}"
    ordered = " ORDER BY resource, gpu, time, level" if len(parts) > 1 else ""
    gap = reading.gap
    rows = f"""
        SELECT hash(resource, gpu) AS s, resource, gpu, served IS NOT NULL AS counter,
            CASE WHEN step > {gap} THEN coalesce(until, time) ELSE time END AS time, coalesce(until, time) AS last,
            CASE WHEN served IS NULL THEN {level} WHEN served THEN {len(reading.thresholds)} ELSE 0 END AS level
        FROM read_parquet(?) WHERE (isfinite(utilisation) OR served IS NOT NULL){within}{ordered}
    """
    changes = f"""
        SELECT s, time, before, last, level, ahead IS NULL AS final FROM (
            SELECT s, time, last, level, lag(s) OVER () AS ps, lag(last) OVER () AS before,
                lag(level) OVER () AS was, lead(s) OVER () AS ahead FROM ({rows})
        ) WHERE ps IS NULL OR ps <> s OR was <> level OR time - before NOT BETWEEN 0 AND {gap} OR ahead IS NULL
    """
    with history.connect() as connection:
        found = connection.execute(changes, [parts]).fetchnumpy()
        new = [int(one) for one in np.unique(_plain(found["s"], np.uint64)) if int(one) not in seen]
        names = (
            connection.execute(
                f"SELECT DISTINCT s, resource, gpu, counter FROM ({rows}) JOIN (SELECT unnest(?::UBIGINT[]) AS new)"
                " ON s = new ORDER BY resource, gpu",
                [parts, new],
            ).fetchall()
            if new
            else []
        )
        (count,) = connection.execute(f"SELECT count(*) FROM ({rows})", [parts]).fetchall()[0]
        first_after = [row for row in _first_after(connection, rows, parts, beginnings)]
    s, time, last, lvl = (_plain(found[name], kind) for name, kind in _KINDS.items())
    before, final = _plain(found["before"], np.int64), _plain(found["final"], np.bool_)
    return _stretches(s, time, before, last, lvl, final, gap, rows=count, names=names, first_after=first_after)


_KINDS: Mapping[str, Any] = {"s": np.uint64, "time": np.int64, "last": np.int64, "level": np.int64}


def _plain(column: Any, kind: Any) -> Any:
    """DuckDB masks what is NULL; nothing that is used here is."""
    return np.asarray(np.ma.filled(column, 0), dtype=kind)


def _first_after(
    connection: duckdb.DuckDBPyConnection, rows: str, parts: list[str], beginnings: Mapping[str, list[int]]
) -> Iterator[tuple[int, int, int]]:
    """Where a run's samples begin to count in the middle of a stretch, the first of them."""
    asked = [(name, time) for name, times in beginnings.items() for time in times]
    if not asked:
        return
    yield from connection.execute(
        f"""
        SELECT s, asked.time, min(samples.time) FROM ({rows}) AS samples
        JOIN (SELECT unnest(?) AS resource, unnest(?) AS time) AS asked
            ON samples.resource = asked.resource AND samples.time >= asked.time
        GROUP BY s, asked.time
        """,
        [parts, [name for name, _ in asked], [time for _, time in asked]],
    ).fetchall()


def _stretches(
    s: NDArray[np.uint64],
    time: Ints,
    before: Ints,
    last: Ints,
    level: Ints,
    final: NDArray[np.bool_],
    gap: int,
    **about: Any,
) -> _Day:
    """From the rows where something changes: each stretch ends where the next begins, or `gap` after its last row."""
    if not len(s):
        nothing = np.zeros(0, np.int64)
        return _Day(s, nothing, nothing, nothing, **about)
    changes = np.ones(len(s), bool)
    # The last row of all is there for its `last`; it begins a stretch only if something changes with it.
    if len(s) > 1:
        alike = s[-1] == s[-2] and level[-1] == level[-2] and 0 <= time[-1] - before[-1] <= gap
        changes[-1] = not alike
    ends = np.append(before[1:], last[-1])
    if not changes[-1]:
        ends[-2] = last[-1]
    series, start, ends, level = s[changes], time[changes], ends[changes], level[changes]
    goes_on = (series[1:] == series[:-1]) & (start[1:] >= ends[:-1]) & (start[1:] - ends[:-1] <= gap)
    end = ends + gap
    end[:-1] = np.where(goes_on, start[1:], end[:-1])
    return _Day(series, start, end, level, **about)


@dataclass(frozen=True)
class _Numbered:
    """The stretches of one day, by number of the series."""

    series: Ints
    start: Ints
    end: Ints
    level: Ints


def _numbered(day: _Day, series: _Names) -> _Numbered:
    return _Numbered(series.numbers(day.series), day.start, day.end, day.level)


def _until_next(day: _Numbered, following: _Numbered) -> _Numbered:
    """What spoke last on one day speaks at most until its first sample on the next."""
    if not len(day.series) or not len(following.series):
        return day
    heads = np.full(int(max(day.series.max(), following.series.max())) + 1, LINE)
    np.minimum.at(heads, following.series, following.start)
    return _Numbered(
        day.series, day.start, np.minimum(day.end, np.maximum(heads[day.series], day.start + 1)), day.level
    )


def _keep(day: _Numbered, reading: Reading, spoken: list[Spans], work: Sequence[list[Spans]]) -> None:
    start, end = on_line(day.series, day.start), on_line(day.series, day.end)
    spoken.append(union(start, end))
    for index, parts in enumerate(work):
        shows = day.level > index
        parts.append(union(start[shows], end[shows], reach=reading.reach))


def _together(parts: Sequence[Spans], reach: int) -> Spans:
    if not parts:
        return NONE
    return union(
        np.concatenate([part.start for part in parts]), np.concatenate([part.end for part in parts]), reach=reach
    )


def _series(series: _Names, counters: Sequence[bool], names: _Names) -> Series:
    """Who speaks for which resource and GPU. What speaks for a resource that is not known to have been there is kept as
    nobody's."""
    places = {text: number for number, text in enumerate(names.texts)}
    gpus: dict[tuple[int, str], int] = {}
    resource, gpu, by_number = [], [], []
    for name, device in series.texts:
        number = places.get(name, -1)
        whole = device.partition("/")[0]
        resource.append(number)
        gpu.append(gpus.setdefault((number, device if _of_a_pod(device) else whole), len(gpus)))
        by_number.append(whole.rpartition(":")[2].isdigit())
    return Series(
        np.array(resource, np.int64), np.array(gpu, np.int64), np.array(by_number, bool), np.array(counters, bool)
    )


def _of_a_pod(device: str) -> bool:
    """A workload holds slices and shares of GPUs, each of which counts; a machine has GPUs, whatever they are cut
    into."""
    return ":" in device
