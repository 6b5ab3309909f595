"""Reads a history: Parquet by day → for how long each GPU's samples speak, when they show work, and what each resource
was. A year of a fleet fits: samples become stretches while they are read.

A stretch of samples that follow each other without a hole, all on the same side of every threshold, says as much as the
samples themselves: a sample speaks from its own second until the next one, at most `max_gap`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from policies.policy import IdleProfile
from providers.records import State
from service.backtest.question import NotReplayable
from service.backtest.spans import LINE, NONE, Ints, Spans, on_line, time_of, union
from service.history.layout import History, Table, day_of, midnight
from service.model import Known
from service.store.resources import from_json

READERS = 2
"""Days that are read at the same time."""
MOST_STRETCHES = 10_000_000
"""Of one signal: each takes some 400 bytes until all is scored, in the process that governs. A year of a fleet has a
tenth of them; a policy that believes each sample for a second has as many as there are samples."""
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
    signals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Further columns of activity, and the numbers that their highest values are compared with, ascending."""
    project: str | None = None
    """Only what belonged to it, and while it did; of others nothing is even read."""


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

    @property
    def owners(self) -> Ints:
        """Each GPU's resource."""
        found = np.zeros(int(self.gpu.max(initial=-1)) + 1, np.int64)
        found[self.gpu] = self.resource
        return found


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


@dataclass(frozen=True)
class Levels:
    """One signal, on the line of series."""

    spoken: Spans
    at_least: Sequence[Spans]
    """For each of its numbers, when its samples reach it."""
    above: Sequence[Spans]
    """The same, when they are above it."""


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
    signals: Mapping[str, Levels]
    """Column → what its samples say."""
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

    def has(self, one: int) -> bool:
        return one in self._number

    def missing(self, hashes: NDArray[np.uint64]) -> list[int]:
        return [int(one) for one in np.unique(hashes) if int(one) not in self._number]

    def add(self, one: int, text: Any) -> int:
        if one not in self._number:
            self._number[one] = len(self.texts)
            self.texts.append(text)
            self._hashes = np.zeros(0, np.uint64)
        return self._number[one]

    def numbers(self, hashes: NDArray[np.uint64]) -> Ints:
        """-1: nobody has named it."""
        if len(self._hashes) != len(self._number):
            known = np.array(list(self._number), np.uint64)
            order = np.argsort(known)
            self._hashes = known[order]
            self._numbers = np.array(list(self._number.values()), np.int64)[order]
        if not len(self._hashes):
            return np.full(len(hashes), -1)
        index = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[index] == hashes, self._numbers[index], -1)


def bounds(history: History) -> tuple[int, int] | None:
    """The first and the last second of which anything is known; None of an empty history."""
    days = history.days()
    first = next((found for day in days if (found := _bounds_of(history, day))), None)
    last = next((found for day in reversed(days) if (found := _bounds_of(history, day))), None)
    return (first[0], last[1]) if first and last else None


def _bounds_of(history: History, day: date) -> tuple[int, int] | None:
    parts = history.parts(Table.RESOURCES, day)
    if not parts:
        return None
    with history.connect() as connection, readable(history, Table.RESOURCES, day):
        found = connection.execute("SELECT min(time), max(until) FROM read_parquet(?)", [parts]).fetchall()[0]
    return None if None in found else found


@contextmanager
def readable(history: History, table: Table, day: date) -> Iterator[None]:
    """What cannot be read is told with the file's name and what is wrong with it. Raises ValueError."""
    try:
        yield
    except duckdb.Error as error:
        said = str(error).partition("\n")[0].replace(history.location, history.shown)
        raise ValueError(_unreadable(history, table, day) or f"{history.shown}, {table} of {day}: {said}") from error


def _unreadable(history: History, table: Table, day: date) -> str | None:
    """Which file is not as `table.columns` says, and how."""
    with history.connect() as connection:
        for path in history.parts(table, day):
            name = path.replace(history.location, history.shown)
            try:
                rows = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [[path]]).fetchall()
            except duckdb.Error:
                return f"{name} cannot be read: it is no Parquet file"
            there = {str(row[0]): str(row[1]) for row in rows}
            for column, kind in table.columns.items():
                if column not in there:
                    return f"{name} has no column {column!r}; its columns are {', '.join(sorted(there))}"
                if there[column] != kind:
                    return f"{name}: the column {column!r} is {there[column]}, where {kind} is meant"
    return None


def _versions(history: History, reading: Reading, names: _Names) -> tuple[Versions, list[Known]]:
    """Every stretch in which a resource was one and the same."""
    texts = _Names()
    columns: list[tuple[Ints, Ints, Ints, Ints]] = []
    with history.connect() as connection:
        for day in _days(history, reading):
            parts = history.parts(Table.RESOURCES, day)
            if not parts:
                continue
            with readable(history, Table.RESOURCES, day):
                connection.execute(
                    """
                    CREATE OR REPLACE TEMP TABLE was AS
                    SELECT resource::VARCHAR AS resource, time::BIGINT AS time, until::BIGINT AS until,
                        last_value(known IGNORE NULLS) OVER (
                            PARTITION BY resource ORDER BY time, known IS NULL
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                        ) AS known
                    FROM read_parquet(?) QUALIFY time < ? AND until > ?
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
    versions = _joined(resource[order], start[order], end[order], known[order], reading)
    return versions, [_known(history, text) for text in texts.texts]


def _known(history: History, text: str) -> Known:
    try:
        return from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{history.shown}: a row of its resources has a `known` that nobody can read ({type(error).__name__}): "
            f"{text[:60]!r}"
        ) from error


def _joined(resource: Ints, start: Ints, end: Ints, known: Ints, reading: Reading) -> Versions:
    """Stretches that go on as they were are one; of two at once the later counts."""
    same = resource[1:] == resource[:-1]
    alike = same & (known[1:] == known[:-1])
    row = np.cumsum(np.append(0, ~alike))  # told twice, the one that reaches further counts
    end = time_of(np.maximum.accumulate(on_line(row, end)))
    end[:-1] = np.where(same, np.minimum(end[:-1], start[1:]), end[:-1])
    goes_on = alike & (end[:-1] == start[1:])
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
class _Stretches:
    """One day's stretches of one signal, sorted by series and time. The last of each may go on the day after."""

    series: NDArray[np.uint64]
    start: Ints
    end: Ints
    level: Ints
    """How many of its numbers the samples reach."""


@dataclass(frozen=True)
class _Day:
    """What one day tells."""

    work: _Stretches
    signals: Mapping[str, _Stretches]
    rows: int
    names: Sequence[tuple[int, str, str, bool]]
    """Series that were not known before: hash, resource, device, whether it counts requests."""
    first_after: Sequence[tuple[int, int, int]]
    """Series, the second that was asked about, its first sample from then on."""


@dataclass(frozen=True)
class _Numbered:
    """Stretches by number of the series."""

    series: Ints
    start: Ints
    end: Ints
    level: Ints


class _Gathered:
    """Day after day what one signal says."""

    def __init__(self, levels: int, reach: int) -> None:
        self._reach = reach
        self._before: _Numbered | None = None
        self._spoken: list[Spans] = []
        self._stretches = 0
        self._levels: list[list[Spans]] = [[] for _ in range(levels)]

    def add(self, found: _Stretches, series: _Names) -> None:
        number = series.numbers(found.series)
        known = number >= 0
        day = _Numbered(number[known], found.start[known], found.end[known], found.level[known])
        if self._before is not None:
            self._keep(_until_next(self._before, day))
        self._before = day

    def _keep(self, day: _Numbered) -> None:
        start, end = on_line(day.series, day.start), on_line(day.series, day.end)
        self._spoken.append(union(start, end))
        for index, parts in enumerate(self._levels):
            shows = day.level > index
            parts.append(union(start[shows], end[shows], reach=self._reach))
        self._stretches += len(self._spoken[-1]) + max((len(parts[-1]) for parts in self._levels), default=0)
        if self._stretches > MOST_STRETCHES:
            raise NotReplayable(
                f"what its samples say falls into more than {MOST_STRETCHES:,} stretches; ask of a shorter time or of "
                "one project, or let a sample speak for longer (max_gap)"
            )

    def whole(self) -> tuple[Spans, list[Spans]]:
        """When it speaks, and when it reaches each of its numbers."""
        if self._before is not None:
            self._keep(self._before)
            self._before = None
        return _together(self._spoken, 0), [_together(parts, self._reach) for parts in self._levels]


def read(history: History, reading: Reading, profile: IdleProfile, *, progress: Progress, share: float = 1.0) -> Past:
    """Everything of a stretch of the past. `progress` is told up to `share`."""
    names, series, counters = _Names(), _Names(), list[bool]()
    versions, knowns = _versions(history, reading, names)
    mine = None
    if reading.project is not None:
        versions = versions.of(_belongs(knowns, reading.project)[versions.known])
        mine = [names.texts[number] for number in np.unique(versions.resource).tolist()]
    asked = _asked(versions, knowns, profile, names.texts)
    days = [day for day in _days(history, reading) if history.parts(Table.ACTIVITY, day)]
    work = _Gathered(len(reading.thresholds), reading.reach)
    signals = {name: _Gathered(2 * len(numbers), 0) for name, numbers in reading.signals.items()}
    first_after: dict[tuple[int, int], int] = {}
    rows = 0
    for index, found in enumerate(_one_after_the_other(history, days, reading, series, asked, mine)):
        for one, resource, gpu, counter in found.names:
            if not series.has(one):
                series.add(one, (resource, gpu))
                counters.append(counter)
        for one, time, first in found.first_after:
            key = series.add(one, None), time
            first_after[key] = min(first, first_after.get(key, first))
        work.add(found.work, series)
        for name, gathered in signals.items():
            gathered.add(found.signals[name], series)
        rows += found.rows
        progress(share * (index + 1) / len(days), f"read {index + 1} of {len(days)} days")
    spoken, levels = work.whole()
    return Past(
        reading=reading,
        resources=names.texts,
        versions=versions,
        knowns=knowns,
        series=_series(series, counters, names),
        spoken=spoken,
        work=levels,
        first_after=first_after,
        signals={name: _levels(gathered) for name, gathered in signals.items()},
        samples=rows,
    )


def _belongs(knowns: Sequence[Known], project: str) -> NDArray[np.bool_]:
    return np.array([known.project == project for known in knowns], bool)


def _levels(gathered: _Gathered) -> Levels:
    spoken, levels = gathered.whole()
    return Levels(spoken, levels[0::2], levels[1::2])


def _one_after_the_other(
    history: History,
    days: Sequence[date],
    reading: Reading,
    series: _Names,
    asked: Sequence[tuple[str, int]],
    mine: Sequence[str] | None,
) -> Iterator[_Day]:
    """Each day in turn, while the next ones are being read. One DuckDB for all of them: to open one takes as long as to
    read a day of a small fleet."""
    with history.connect(memory="2GB") as base, ThreadPoolExecutor(READERS) as pool:
        ahead: deque[Future[_Day]] = deque()
        for day in days:
            began = _on(day, asked, reading.gap)
            ahead.append(pool.submit(_read_day, base, history, day, reading, series, began, mine))
            if len(ahead) > READERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _asked(
    versions: Versions, knowns: Sequence[Known], profile: IdleProfile, names: Sequence[str]
) -> list[tuple[str, int]]:
    """(resource, second): from when on the samples of each run count."""
    found = set()
    for resource, known in zip(versions.resource.tolist(), versions.known.tolist(), strict=True):
        one = knowns[known]
        if one.record.state is State.RUNNING and one.started_at is not None:
            found.add((names[resource], int((one.started_at + profile.warm_up).timestamp())))
    return sorted(found, key=lambda entry: entry[1])


def _on(day: date, asked: Sequence[tuple[str, int]], gap: int) -> Sequence[tuple[str, int]]:
    """What is asked about a day; it is asked the day after too, if no more samples came on the day itself."""
    low = bisect_left(asked, midnight(day) - gap, key=lambda entry: entry[1])
    return asked[low : bisect_left(asked, midnight(day) + 86400, key=lambda entry: entry[1])]


def _read_day(
    base: duckdb.DuckDBPyConnection,
    history: History,
    day: date,
    reading: Reading,
    series: _Names,
    asked: Sequence[tuple[str, int]],
    mine: Sequence[str] | None,
) -> _Day:
    """One day's samples as stretches: a row is kept only where something changes. `mine`: of no other resources."""
    parts = history.parts(Table.ACTIVITY, day)
    whole = reading.start <= midnight(day) and midnight(day) + 86400 <= reading.end
    within = "" if whole else f" AND time >= {reading.start} AND time < {reading.end}"
    only = "" if mine is None else " AND resource IN (SELECT resource FROM mine)"
    order = " ORDER BY resource, gpu, time, level" if len(parts) > 1 or only else ""

    def rows(level: str, told: str) -> str:
        return f"""
            SELECT hash(resource, gpu) AS s, resource::VARCHAR AS resource, gpu::VARCHAR AS gpu,
                served IS NOT NULL AS counter,
                CASE WHEN step > {reading.gap} THEN coalesce(until, time) ELSE time END AS time,
                coalesce(until, time) AS last, {level} AS level
            FROM read_parquet(?)
            WHERE ({told}) AND resource IS NOT NULL AND gpu IS NOT NULL AND time IS NOT NULL{within}{only}{order}
        """

    most = len(reading.thresholds)
    works = f"CASE WHEN served IS NULL THEN {_reached('utilisation', reading.thresholds)} "
    works += f"WHEN served THEN {most} ELSE 0 END"
    samples = rows(works, "isfinite(utilisation) OR served IS NOT NULL")
    with base.cursor() as connection, readable(history, Table.ACTIVITY, day):
        if mine is not None:
            connection.execute("CREATE TEMP TABLE mine AS SELECT unnest(?::VARCHAR[]) AS resource", [mine])
        work = _stretches(connection, samples, parts, reading.gap)
        signals = {
            name: _stretches(
                connection, rows(_reached(name, numbers, also_above=True), f"isfinite({name})"), parts, reading.gap
            )
            for name, numbers in reading.signals.items()
        }
        new = series.missing(work.series)
        names = (
            connection.execute(
                f"SELECT DISTINCT s, resource, gpu, counter FROM ({samples}) JOIN (SELECT unnest(?::UBIGINT[]) AS new)"
                " ON s = new ORDER BY resource, gpu",
                [parts, new],
            ).fetchall()
            if new
            else []
        )
        (count,) = connection.execute(f"SELECT count(*) FROM ({samples})", [parts]).fetchall()[0]
        first_after = _first_after(connection, samples, parts, asked)
    return _Day(work, signals, count, names, first_after)


def _reached(column: str, numbers: Sequence[float], *, also_above: bool = False) -> str:
    """How many of these numbers a value reaches; and how many of them it is above, counted in between."""
    tests = [
        f"(coalesce({column}, 0) {comparison} {float(one)!r})::UTINYINT"
        for one in numbers
        for comparison in ((">=", ">") if also_above else (">=",))
    ]
    return f"({' + '.join(tests) or '0'})"


def _stretches(connection: duckdb.DuckDBPyConnection, rows: str, parts: list[str], gap: int) -> _Stretches:
    """From the rows where something changes: each stretch ends where the next begins, or `gap` after its last row."""
    changes = f"""
        SELECT s, time, before, last, level FROM (
            SELECT s, time, last, level, lag(s) OVER () AS ps, lag(last) OVER () AS before,
                lag(level) OVER () AS was, lead(s) OVER () AS ahead FROM ({rows})
        ) WHERE ps IS NULL OR ps <> s OR was <> level OR time - before NOT BETWEEN 0 AND {gap} OR ahead IS NULL
    """
    found = connection.execute(changes, [parts]).fetchnumpy()
    series, time, before, last, level = (_plain(found[name], kind) for name, kind in _KINDS.items())
    if not len(series):
        return _Stretches(series, time, time, level)
    changed = np.ones(len(series), bool)
    # The last row of all is there for its `last`; it begins a stretch only if something changes with it.
    if len(series) > 1:
        alike = series[-1] == series[-2] and level[-1] == level[-2] and 0 <= time[-1] - before[-1] <= gap
        changed[-1] = not alike
    ends = np.append(before[1:], last[-1])
    if not changed[-1]:
        ends[-2] = last[-1]
    series, start, ends, level = series[changed], time[changed], ends[changed], level[changed]
    row = np.cumsum(np.append(0, series[1:] != series[:-1]))
    following = np.searchsorted(on_line(row, start), on_line(row, ends))  # not before it ends: some are told twice
    following = np.maximum(following, np.arange(len(row)) + 1)
    until = np.append(on_line(row, start), np.iinfo(np.int64).max)[following] - on_line(row, ends)
    return _Stretches(series, start, np.maximum(ends + np.minimum(until, gap), start + 1), level)


_KINDS: Mapping[str, Any] = {
    "s": np.uint64,
    "time": np.int64,
    "before": np.int64,
    "last": np.int64,
    "level": np.int64,
}


def _plain(column: Any, kind: Any) -> Any:
    """DuckDB masks what is NULL; nothing that is used here is."""
    return np.asarray(np.ma.filled(column, 0), dtype=kind)


def _first_after(
    connection: duckdb.DuckDBPyConnection, rows: str, parts: list[str], asked: Sequence[tuple[str, int]]
) -> list[tuple[int, int, int]]:
    """Where a run's samples begin to count in the middle of a stretch, the first of them."""
    if not asked:
        return []
    return connection.execute(
        f"""
        SELECT s, asked.time, min(samples.time) FROM ({rows}) AS samples
        JOIN (SELECT unnest(?) AS resource, unnest(?) AS time) AS asked
            ON samples.resource = asked.resource AND samples.time >= asked.time
        GROUP BY s, asked.time
        """,
        [parts, [name for name, _ in asked], [time for _, time in asked]],
    ).fetchall()


def _until_next(day: _Numbered, following: _Numbered) -> _Numbered:
    """What spoke last on one day speaks at most until its first sample on the next."""
    if not len(day.series) or not len(following.series):
        return day
    heads = np.full(int(max(day.series.max(), following.series.max())) + 1, LINE)
    np.minimum.at(heads, following.series, following.start)
    return _Numbered(
        day.series, day.start, np.minimum(day.end, np.maximum(heads[day.series], day.start + 1)), day.level
    )


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
