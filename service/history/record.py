"""Keeps what each cycle saw: samples as windows of five minutes, resources as stretches, written as `layout` says.

Nothing is filled in: a window tells of its own samples alone, a stretch ends when nobody looked. What the rows mean to
a policy is not known here.
"""

from __future__ import annotations

import math
import os
import secrets
import tempfile
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import sub
from pathlib import Path
from typing import Any

import duckdb
import nanoarrow as na
import structlog

from providers.records import ResourceRef, Series, Signal
from service.asking import Asked, ask, wait_for
from service.history.layout import History, Table, day_of, midnight, name_of
from service.model import Known
from service.store.resources import to_json

log = structlog.get_logger()

WINDOW = 300
"""Seconds: samples of so long a stretch of the clock become one row. As long as a sample speaks by default, so that a
row hides no hole."""
SETTLED = timedelta(minutes=15)
"""A window is written when it is this old: samples are asked for every five minutes and may be ten minutes late."""
PATIENCE = 20.0
"""Real seconds that a cycle waits for its rows to be written."""
MOST_STRETCHES = 200_000
"""Stretches that have ended and are not written yet. Some hundred megabytes at most; beyond, the oldest are lost."""
DAY = 86_400
SIGNALS = {
    Signal.MEMORY_USED_MIB: 0,
    Signal.POWER_WATTS: 1,
    Signal.TENSOR_ACTIVE: 2,
    Signal.DRAM_ACTIVE: 3,
}
"""What a row tells beside utilisation, in the order of its columns."""
FINENESS = {
    "utilisation": 10_000,
    "memory_used_mib": 1 / 16,
    "power_watts": 1,
    "tensor_active": 10_000,
    "dram_active": 10_000,
}
"""Steps in one of each unit. Values are rounded up to the next, which keeps files small: what is not below a threshold
never falls below it."""
OTHERS = ("", False)
"""Stands for the devices that are not named one by one."""

Row = tuple[Any, ...]
Told = int | dict[tuple[str, bool], int]
"""The second of the last sample that is written: of all devices of a resource, or of each (and whether it is a counter
of requests)."""


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What one look saw."""

    at: datetime
    resources: Sequence[Known]
    """Governed ones."""
    seen: frozenset[str]
    """Those that were described in this very look."""
    series: Mapping[str, Sequence[Series]]
    ambiguous: frozenset[str] = frozenset()
    gone: Mapping[ResourceRef, Sequence[Series]] = field(default_factory=dict)
    """What was sampled of those that are no longer asked about."""
    speaks: timedelta = timedelta(minutes=10)
    """For how long a look says how things are when no next one follows."""


@dataclass(slots=True, eq=False)
class _Stretch:
    """A resource as it was, from `since` on."""

    known: Known
    since: int
    """What is before is written."""
    until: int | None = None
    """None: it goes on."""
    written: int | None = None
    """The second from which on our last row tells it."""
    bridge: int | None = None
    """From here until `since` it was as the row before says, which an earlier process wrote."""


@dataclass(kw_only=True)
class Health:
    """How writing goes, for people and for the metrics."""

    written_at: datetime | None = None
    """By the clock that governs."""
    errors: int = 0
    reason: str | None = None
    """Why the last rows are not written; None: they are."""


class Recorder:
    """Keeps what is seen. One per process; what several write goes beside each other."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.health = Health()
        self._writer = secrets.token_hex(4)
        self._files = 0
        self._open: dict[str, _Stretch] = {}
        self._ended: list[tuple[str, _Stretch]] = []
        self._told: dict[str, Told] = {}
        self._left: dict[str, tuple[Series, ...]] = {}
        """Samples of what is gone, until they are written."""
        self._read: set[str] = set()
        """Names of the files whose rows we know of."""
        self._others = 0
        """The second of the last row of `resources` that another one wrote: "as the row before" must not mean it."""
        self._sight: Sight | None = None
        self._tried = 0
        """Up to which second windows were settled when we last tried to write."""
        self._writing: Asked[int] | None = None

    def see(self, sight: Sight) -> str:
        """Take in one look; write when it is time. What became of it, in words: never an error."""
        try:
            if self._busy():
                return self._failed(f"still writing since {self._writing and self._writing.at:%H:%M}")
            self._look(sight)
            settled = _second(sight.at - SETTLED) // WINDOW * WINDOW
            if settled == self._tried:
                return "kept" if self.health.reason is None else f"kept, not written: {self.health.reason}"
            self._tried = settled
            return self._flush(sight, settled)
        except Exception as error:
            log.exception("history could not be kept")
            return self._failed(type(error).__name__)

    def close(self, now: datetime) -> str:
        """Write all there is, settled or not: the process ends. What is seen after is another one's."""
        try:
            if self._sight is None or self._busy():
                return "nothing to keep"
            return self._flush(self._sight, _second(max(now, self._sight.at)) + 1)
        except Exception as error:
            log.exception("history could not be kept")
            return self._failed(type(error).__name__)

    # what each resource was

    def _look(self, sight: Sight) -> None:
        """Stretches end with the last look that saw them so; a look speaks until the next one, but not for too long."""
        now, before = _second(sight.at), self._sight
        end = now if before is None else max(_second(before.at), min(now, _second(before.at + before.speaks)))
        here = {known.id: known for known in sight.resources if known.id in sight.seen}
        for gone in [*self._open] if end != now else [one for one in self._open if one not in here]:
            self._end(gone, end)
        opened = self._open
        for resource, known in here.items():
            stretch = opened.get(resource)
            if stretch is not None and stretch.known is not known:
                if stretch.known == known:
                    stretch.known = known
                else:
                    self._end(resource, now)
                    stretch = None
            if stretch is None:
                opened[resource] = _Stretch(known, now)
        if sight.gone:
            self._keep(sight)
        self._sight = sight

    def _end(self, resource: str, at: int) -> None:
        stretch = self._open.pop(resource)
        stretch.until = at
        if at > stretch.since:
            self._ended.append((resource, stretch))
        if len(self._ended) > MOST_STRETCHES:
            lost = len(self._ended) - MOST_STRETCHES // 2
            del self._ended[:lost]
            self._failed(f"{lost} stretches of what resources were are lost: they could not be written for too long")

    def _keep(self, sight: Sight) -> None:
        """The samples of what stopped or went are nobody else's any more."""
        ids = {stretch.known.record.ref: one for one, stretch in (*self._ended, *self._open.items())}
        ids |= {known.record.ref: known.id for known in sight.resources}
        for ref, series in sight.gone.items():
            if ref in ids:
                self._left[ids[ref]] = (*self._left.get(ids[ref], ()), *series)

    # writing

    def _busy(self) -> bool:
        if self._writing is None:
            return False
        if not self._writing.answer.done():
            return True
        self._take(self._writing)
        return False

    def _flush(self, sight: Sight, settled: int) -> str:
        """In a thread of its own, which alone holds this object until it is done: a place far away may hang."""
        self._writing = ask(lambda: self._write(sight, settled), at=sight.at, name="history")
        wait_for([self._writing], patience=PATIENCE, unless=Future())
        if not self._writing.answer.done():
            return self._failed(f"{self.history.shown} did not take the rows within {PATIENCE:.0f} s")
        return self._take(self._writing)

    def _take(self, writing: Asked[int]) -> str:
        self._writing = None
        error = writing.answer.exception()
        if error is not None:
            return self._failed(self._sentence(error))
        if self.health.reason is not None:
            log.info("history is written again", place=self.history.shown)
        self.health.reason, self.health.written_at = None, writing.at
        return f"{writing.answer.result()} rows written"

    def _failed(self, reason: str) -> str:
        if self.health.reason is None:
            log.warning("history is not written", reason=reason, place=self.history.shown)
        self.health.errors += 1
        self.health.reason = reason
        return f"not written: {reason}"

    def _sentence(self, error: BaseException) -> str:
        said = str(error).partition("\n")[0].replace(self.history.location, self.history.shown)
        return f"{type(error).__name__}: {said}" if said else type(error).__name__

    def _write(self, sight: Sight, settled: int) -> int:
        """Everything that is not written yet. What has been written counts as written, whatever fails after it."""
        with self.history.connect() as connection:
            return self._write_with(connection, sight, settled)

    def _write_with(self, connection: duckdb.DuckDBPyConnection, sight: Sight, settled: int) -> int:
        now = _second(sight.at)
        self._catch_up(connection, [day_of(now - DAY), day_of(now)])
        rows = 0
        for day, windows, told in self._activity(sight, settled):
            self._put(connection, Table.ACTIVITY, day, windows, sight.at)
            self._told |= told
            rows += len(windows)
        self._left = {one: series for one, series in self._left.items() if _newest(series) >= settled}
        stretches = self._stretches(now)
        for day in sorted(stretches):
            self._put(connection, Table.RESOURCES, day, [row for _, row in stretches[day]], sight.at)
            for stretch, row in stretches[day]:
                stretch.since, stretch.written, stretch.bridge = row[2], row[1], None
            rows += len(stretches[day])
        self._ended = []
        return rows

    def _catch_up(self, connection: duckdb.DuckDBPyConnection, days: Sequence[date]) -> None:
        """What others have written since, or we before a restart: none of it is written twice."""
        names: set[str] = set()
        for day in days:
            for table in Table:
                written = self.history.written(table, day)
                new = [path for path in written if name_of(path) not in self._read]
                if new and table is Table.ACTIVITY:
                    self._learn(connection, self._readable(new))
                elif new:
                    self._go_on(connection, self._readable(new), day)
                names |= {name_of(path) for path in written}
        self._read = names

    def _readable(self, paths: Sequence[str]) -> list[str]:
        return [self.history.readable(path) for path in paths]

    def _learn(self, connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
        """Up to when samples are written."""
        found: dict[str, dict[tuple[str, bool], int]] = defaultdict(dict)
        rows = connection.execute(
            "SELECT resource, gpu, served IS NOT NULL, max(coalesce(until, time)) FROM read_parquet(?) GROUP BY ALL",
            [files],
        ).fetchall()
        for resource, gpu, counter, last in rows:
            found[resource][gpu, counter] = last
        for resource, lasts in found.items():
            before = self._told.get(resource, {})
            before = {OTHERS: before} if isinstance(before, int) else before
            least = before.get(OTHERS, 0)
            later = {device: max(last, before.get(device, least)) for device, last in lasts.items()}
            self._told[resource] = _shortest(before | later)

    def _go_on(self, connection: duckdb.DuckDBPyConnection, files: list[str], day: date) -> None:
        """What was told of resources. The first time: an earlier process's look speaks until our first one."""
        first_time = not self._read
        rows = connection.execute(
            "SELECT resource, max(until), max(time) FROM read_parquet(?) GROUP BY resource", [files]
        ).fetchall()
        self._others = max([self._others, *(time for _, _, time in rows)])
        if not first_time or self._sight is None:
            return
        speaks = int(self._sight.speaks.total_seconds())
        for resource, until, _ in rows:
            first = self._open.get(resource)
            if first is not None and 0 < first.since - until <= speaks and day == day_of(until) == day_of(first.since):
                first.bridge = until

    def _put(
        self, connection: duckdb.DuckDBPyConnection, table: Table, day: date, rows: Sequence[Row], at: datetime
    ) -> None:
        """One file, sorted, there as a whole or not at all, beside whatever others write."""
        self._files += 1
        name = f"{at.astimezone(UTC):%Y%m%dT%H%M%S}-{self._writer}-{self._files:04}.parquet"
        put(self.history, connection, table, day, name, rows)
        self._read.add(name)

    # samples

    def _activity(self, sight: Sight, settled: int) -> Iterator[tuple[date, list[Row], dict[str, Told]]]:
        """For each day the rows of all windows that begin before `settled`, and what is told with them."""
        floor = midnight(day_of(_second(sight.at) - DAY))
        bounds = [(day, min(settled, day + DAY)) for day in (floor, floor + DAY) if day < settled]
        for day, upto in bounds:
            rows: list[Row] = []
            told: dict[str, Told] = {}
            for resource, series in self._sampled(sight):
                new, lasts = rows_of(resource, series, self._told.get(resource, 0), day, upto)
                if new:
                    rows += new
                    told[resource] = lasts
            if rows:
                yield day_of(day), rows, told

    def _sampled(self, sight: Sight) -> Iterator[tuple[str, Sequence[Series]]]:
        """What joins with two machines is unknown of both, and is not kept."""
        left = dict(self._left)
        for known in sight.resources:
            if known.id not in sight.ambiguous:
                series = sight.series.get(known.id, ())
                before = left.pop(known.id, ())
                if series or before:
                    yield known.id, (*series, *before)
        yield from left.items()

    def _stretches(self, until: int) -> dict[date, list[tuple[_Stretch, Row]]]:
        """For each day the rows of all stretches as far as they are known."""
        found: dict[date, list[tuple[_Stretch, Row]]] = defaultdict(list)
        for resource, stretch in (*self._ended, *self._open.items()):
            written, since = stretch.written, stretch.since
            end = until if stretch.until is None else stretch.until
            if stretch.bridge is not None and since < end:
                found[day_of(since)].append((stretch, (resource, stretch.bridge, since, None)))
            while since < end:
                day = day_of(since)
                upto = min(end, midnight(day) + DAY)
                ours = written is not None and written > self._others and written >= midnight(day)
                found[day].append((stretch, (resource, since, upto, None if ours else to_json(stretch.known))))
                since, written = upto, since
        return found


def _second(at: datetime) -> int:
    return int(at.timestamp())


def _newest(series: Iterable[Series]) -> int:
    return max((one.times[-1] for one in series if one.times), default=0)


def _shortest(lasts: dict[tuple[str, bool], int]) -> Told:
    """Most devices of a resource are sampled together: then one number tells of all."""
    distinct = {last for device, last in lasts.items() if device != OTHERS}
    return distinct.pop() if len(distinct) == 1 else lasts


# --- samples → rows --------------------------------------------------------------------------------------------------


def rows_of(resource: str, series: Sequence[Series], told: Told, since: int, upto: int) -> tuple[list[Row], Told]:
    """The rows of the windows of one resource, of samples from `since` on and before `upto` that are not told yet; and
    what is told then."""
    signals: dict[tuple[str, bool], list[Series]] = {}
    others: dict[str, list[Series]] = {}
    for one in series:
        if one.signal in SIGNALS:
            others.setdefault(one.device, []).append(one)
        else:
            signals.setdefault((one.device, one.signal is Signal.REQUESTS_TOTAL), []).append(one)
    rows: list[Row] = []
    before = {OTHERS: told} if isinstance(told, int) else told
    lasts = {device: last for device, last in before.items() if last >= since}
    for (device, counter), same in signals.items():
        after = max(before.get((device, counter), before.get(OTHERS, 0)), since - 1)
        last = after
        for window in _windows([_numbers(one) for one in same], after, upto):
            clock = window[0]
            if counter:
                rows.append((resource, device, *clock.span, *_NOTHING, any(part.moved for part in window)))
            else:
                highest = max(part.highest for part in window)
                rows.append((resource, device, *clock.span, highest, *_beside(others.get(device, ()), clock), None))
            last = max(last, *(part.last for part in window))
        lasts[device, counter] = last
    return rows, _shortest(lasts)


_NOTHING = (None, None, None, None, None)
"""Of what a counter of requests does not tell."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The samples of one series in one window."""

    series: Series
    begin: int
    end: int

    @property
    def last(self) -> int:
        return self.series.times[self.end - 1]

    @property
    def step(self) -> int:
        times = self.series.times[self.begin : self.end]
        return max(map(sub, times[1:], times), default=0)

    @property
    def span(self) -> tuple[int, int | None, int | None]:
        """`time`, `until`, `step`."""
        first = self.series.times[self.begin]
        return (first, self.last, self.step) if self.end - self.begin > 1 else (first, None, None)

    @property
    def highest(self) -> float:
        return max(self.series.values[self.begin : self.end])

    @property
    def moved(self) -> bool:
        """Whether a counter moved since the sample before, wherever that is; a counter begins at zero."""
        values = self.series.values[max(0, self.begin - 1) : self.end]
        return min(values) != max(values) or (self.begin == 0 and values[0] > 0)


def _windows(same: Sequence[Series], after: int, upto: int) -> Iterator[list[_Part]]:
    """Window by window the samples of one signal of one device, of each series that tells of it: two sources may. The
    one that speaks for longest comes first; they are not mixed, for together they would know more than either."""
    if len(same) == 1:
        yield from ([part] for part in _cut(same[0], after, upto))
        return
    found: dict[int, list[_Part]] = defaultdict(list)
    for one in same:
        for part in _cut(one, after, upto):
            found[part.last // WINDOW].append(part)
    for window in sorted(found):
        yield sorted(found[window], key=lambda part: part.series.times[part.begin] - part.last)


def _cut(series: Series, after: int, upto: int) -> Iterator[_Part]:
    times = series.times
    begin, stop = bisect_right(times, after), bisect_left(times, upto)
    while begin < stop:
        end = bisect_left(times, (times[begin] // WINDOW + 1) * WINDOW, begin, stop)
        yield _Part(series, begin, end)
        begin = end


def _beside(others: Iterable[Series], clock: _Part) -> list[float | None]:
    """The highest of the other signals, where their samples speak for as much as those of the utilisation do: the row
    tells for how long, once for all of them."""
    values: list[float | None] = [None, None, None, None]
    for one in others:
        if one.times is clock.series.times:
            part = _Part(one, clock.begin, clock.end)
        else:
            first = clock.series.times[clock.begin]
            part = _Part(one, bisect_left(one.times, first), bisect_right(one.times, clock.last))
            if part.end <= part.begin or part.series.times[part.begin] != first or part.last != clock.last:
                continue
            if part.step > clock.step:
                continue
        highest, place = part.highest, SIGNALS[one.signal]
        before = values[place]
        if not any(map(math.isnan, one.values[part.begin : part.end])):
            values[place] = highest if before is None else max(before, highest)
    return values


def _numbers(series: Series) -> Series:
    """Without what is not a number: that is no sample."""
    if not math.isnan(sum(series.values)):
        return series
    kept = [(time, value) for time, value in zip(series.times, series.values, strict=True) if not math.isnan(value)]
    return Series(
        ref=series.ref,
        device=series.device,
        signal=series.signal,
        times=tuple(time for time, _ in kept),
        values=tuple(value for _, value in kept),
    )


# --- rows → files ----------------------------------------------------------------------------------------------------

ARROW = {
    "VARCHAR": na.string(),
    "BIGINT": na.int64(),
    "INTEGER": na.int32(),
    "DOUBLE": na.float64(),
    "BOOLEAN": na.bool_(),
}
FORMAT = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION V2, ROW_GROUP_SIZE 122880"


def put(
    history: History,
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    day: date,
    name: str,
    rows: Sequence[Row],
) -> None:
    """Write rows (values in the order of the table's columns) as a new file of a day."""
    columns = table.columns
    arrays = [
        na.c_array(values, ARROW[kind]) for values, kind in zip(zip(*rows, strict=True), columns.values(), strict=True)
    ]
    schema = na.struct({column: ARROW[kind] for column, kind in columns.items()})
    connection.register("rows", na.c_array_from_buffers(schema, len(rows), [None], children=arrays))
    selected = ", ".join(f"{rounded(column)} AS {column}" for column in columns)
    copy(history, connection, f"SELECT {selected} FROM rows ORDER BY {table.order}", table, day, name)
    connection.unregister("rows")


def rounded(column: str) -> str:
    """Up to the next step; what is a hair above one is that one, for floating-point numbers are not exact."""
    steps = FINENESS.get(column)
    return f"ceil(round({column} * {steps}::DOUBLE, 6)) / {steps}::DOUBLE" if steps else column


def copy(
    history: History,
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    table: Table,
    day: date,
    name: str,
    *,
    metadata: str = "",
) -> int:
    """Write what a SELECT gives as a file of a day, whole or not at all, over the one of that name if there is one. How
    many rows."""
    folder = history.make_folder(table, day)
    if not history.local:
        with tempfile.TemporaryDirectory(prefix="curfew-") as elsewhere:
            count = _made(connection, rows, f"{elsewhere}/{name}", metadata)
            history.files.put_file(f"{elsewhere}/{name}", f"{folder}/{name}")
        return count
    unfinished = f"{folder}/.{name}.tmp"
    try:
        count = _made(connection, rows, unfinished, metadata)
        _onto_disk(unfinished)
        os.replace(unfinished, f"{folder}/{name}")
        _onto_disk(folder)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return count


def _made(connection: duckdb.DuckDBPyConnection, rows: str, path: str, metadata: str) -> int:
    """A file that can be read back, with as many rows as were written."""
    place = path.replace("'", "''")
    [(count,)] = connection.execute(f"COPY ({rows}) TO '{place}' ({FORMAT}{metadata})").fetchall()
    [(readable,)] = connection.execute("SELECT count(*) FROM read_parquet(?)", [path]).fetchall()
    if readable != count:
        raise OSError(f"of {count} rows {readable} can be read back")
    return int(count)


def _onto_disk(path: str) -> None:
    """So that what has been moved into place is there after a power cut too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
