"""Reads a plain table of samples, CSV or Parquet, into a history: what each GPU did, and what each resource was.

All work on rows is DuckDB's, out of core; Python sees one value per stretch in which a resource did not change.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from babel.numbers import list_currencies

from providers.records import CapacityType, Kind, Price, ResourceRecord, ResourceRef, State
from service.documents import nearest
from service.history.days import DAY, Staging, Wins, quoted, staging
from service.history.layout import History, Table, midnight
from service.model import Known
from service.store.resources import to_json

LATEST = midnight(date(2100, 1, 1))
MILLISECONDS = 10**11
"""Seconds of the year 5138: a time from here on was surely counted in milliseconds."""
SILENCE = DAY
"""Whoever has no row for longer is not known in between."""
LONG_BEFORE = timedelta(days=1)
"""Nobody tells when a resource began that runs in its first row. Had it begun right then, its warm-up would take the
first samples away; longer than any warm-up before, it takes none."""
PORTION = 20_000_000
"""Rows that are taken out of all of them at a time, whole days, so that no day is looked for in everything."""
AT_ONCE = 20_000
DEAREST = 100_000_000
"""Of any currency, for an hour: as much as a price file takes."""
OFFENCE = "curfew: a row is wrong"
ROUNDING = 1e-6
"""How far above the most a ratio may be: sums of shares are not exact."""

Progress = Callable[[float, str], None]
Row = Mapping[str, Any]

REQUIRED = ("resource", "time", "utilisation")
SAMPLE = ("gpu_index", "memory_used_bytes", "power_watts")
ATTRIBUTES: Mapping[str, str] = {
    "project": "VARCHAR",
    "owner": "VARCHAR",
    "name": "VARCHAR",
    "kind": "VARCHAR",
    "provider": "VARCHAR",
    "account": "VARCHAR",
    "region": "VARCHAR",
    "capacity_type": "VARCHAR",
    "sku": "VARCHAR",
    "gpu_model": "VARCHAR",
    "gpu_count": "INTEGER",
    "hourly_cost": "BIGINT",  # micro-units
    "currency": "VARCHAR",
    "state": "VARCHAR",
}
"""What a resource is, as against what it does."""
COLUMNS = (*REQUIRED, *SAMPLE, *ATTRIBUTES)
WORDS: Mapping[str, type[State] | type[Kind] | type[CapacityType]] = {
    "state": State,
    "kind": Kind,
    "capacity_type": CapacityType,
}
"""Columns that know certain words only."""


class Unreadable(ValueError):
    """The file is not such a table, and why."""


def nothing(share: float, words: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import brought in."""

    rows: int
    samples: int
    """Rows of them that became one, duplicates counted once."""
    duplicates: int
    """Further samples of the same GPU and second."""
    silent: int
    """Rows with neither utilisation nor state: they say nothing."""
    resources: int
    gpus: int
    start: datetime
    end: datetime
    days: int
    without_zone: bool
    """Some times had no zone and were taken as UTC."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a file is to be read."""

    ignore: Sequence[str] = ()
    """Columns that are not looked at."""
    percent: bool = False
    """`utilisation` is 0..100."""
    milliseconds: bool = False
    """`time` is in milliseconds where it is a number."""


def import_table(file: str, history: History, reading: Reading, progress: Progress = nothing) -> Imported:
    """Everything in a file, or nothing. Raises Unreadable, days.Busy, or OSError."""
    path = _local(file)
    with staging(history, Wins.NEW) as place:
        try:
            return _Import(path, place, reading, progress).run()
        except duckdb.Error as error:
            raise _said(error, path, place) from error


def _local(file: str) -> Path:
    if "://" in file:
        raise Unreadable(f"{file}: only a file on this machine is read; fetch it first")
    path = Path(file)
    if path.is_dir():
        raise Unreadable(f"{file}: is a folder; name one file")
    if not path.exists():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise Unreadable(f"{file}: there is no such file{nearest(path.name, beside)}")
    if not path.is_file():
        raise Unreadable(f"{file}: is no plain file")
    if path.stat().st_size == 0:
        raise Unreadable(f"{file}: is empty")
    return path


def _said(error: duckdb.Error, path: Path, place: Staging) -> Exception:
    """DuckDB's reason in one line, by the file's own name."""
    said = str(error)
    if "No space left" in said or "max_temp_directory_size" in said:
        return OSError(28, "there is no space left to make the history in; nothing was changed")
    if "invalid unicode" in said.lower() or "not utf-8" in said.lower():
        return Unreadable(f"{path}: is not text in UTF-8")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if row := _LINE.search(said):
        why = next((line for line in lines[1:] if not line.startswith("Original Line")), "cannot be read")
        return Unreadable(f"{path}, line {row[1]}: {why[0].lower()}{why[1:]}")
    return Unreadable(f"{path}: {(lines[0].partition('Error: ')[2] or lines[0]).replace(place.link, str(path))}")


_LINE = re.compile(r"CSV Error on Line: (\d+)")


@dataclass(frozen=True)
class _Check:
    """Something that may be wrong with a row."""

    wrong: str
    """SQL, true of a row that is."""
    column: str
    sentence: str
    """What is wrong with its value."""


class _Import:
    """One file on its way into a history."""

    def __init__(self, path: Path, place: Staging, reading: Reading, progress: Progress) -> None:
        self._path = path
        self._place = place
        self._sql = place.sql
        self._reading = reading
        self._progress = progress
        self._source = ""
        """The file as DuckDB reads it."""
        self._columns: dict[str, tuple[str, str]] = {}
        """Ours → how the file calls it (as SQL), and its type."""
        self._checks: list[_Check] = []
        self._raw = ""
        """Our columns as they stand in the file, as SQL."""
        self._parsed = ""
        """And as we read them."""
        self._written = 0

    def run(self) -> Imported:
        self._open()
        self._read()
        days = self._days()
        self._activity(days)
        self._stretches()
        self._place.put_resources(lambda share, words: self._progress(0.95 + 0.04 * share, words))
        found = self._found(days)
        self._progress(0.99, "moving it into place")
        self._place.commit()
        self._progress(1.0, "done")
        return found

    # what there is

    def _open(self) -> None:
        link = self._place.linked(self._path)
        with self._path.open("rb") as file:
            magic = file.read(4)
        if magic == b"PAR1":
            self._source = f"read_parquet({quoted(link)}, hive_partitioning=false)"
            described = self._sql.execute(f"DESCRIBE SELECT * FROM {self._source}").fetchall()
            names = {name: (_identifier(name), str(kind)) for name, kind, *_ in described}
            self._take([(name, *names[name]) for name in names])
            return
        kind = "gzip" if magic[:2] == b"\x1f\x8b" else "zstd" if magic == b"\x28\xb5\x2f\xfd" else "none"
        if (kind == "none" and b"\0" in magic) or self._path.suffix.lower() in (".parquet", ".pq"):
            raise Unreadable(f"{self._path}: is neither CSV nor Parquet")
        reads = f"{quoted(link)}, auto_detect=false, compression={kind}"
        first = self._row(
            f"SELECT line FROM read_csv({reads}, columns={{'line': 'VARCHAR'}}, delim='\\x01', quote='', escape='', "
            "header=false, max_line_size=2097152) LIMIT 1"
        )
        delimiter, header = _header(first[0] if first else "")
        columns = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(header)))
        self._source = (
            f"read_csv({reads}, columns={{{columns}}}, delim={quoted(delimiter)}, quote='\"', escape='\"', "
            "header=true, nullstr=['', 'NULL', 'null', '\\N'])"
        )
        self._take([(name, f"c{index}", "VARCHAR") for index, name in enumerate(header)])

    def _take(self, columns: Sequence[tuple[str, str, str]]) -> None:
        """Which of the file's columns is which of ours."""
        ignored = {name.strip().lower() for name in self._reading.ignore}
        there = [name.strip().lower() for name, *_ in columns]
        for name in sorted(ignored - set(there)):
            raise Unreadable(f"{self._path}: there is no column {name!r} to ignore{nearest(name, there)}")
        for name, how, kind in columns:
            ours = name.strip().lower()
            if ours in ignored:
                continue
            if ours not in COLUMNS:
                raise Unreadable(
                    f"{self._path}: column {name!r} is not known{nearest(ours, COLUMNS)}; there are "
                    f"{', '.join(COLUMNS)}, and `--ignore-columns` leaves others out"
                )
            if ours in self._columns:
                raise Unreadable(f"{self._path}: there are two columns {ours!r}")
            self._columns[ours] = how, kind
        for name in REQUIRED:
            if name not in self._columns:
                raise Unreadable(f"{self._path}: there is no column {name!r}{nearest(name, there)}")

    # reading

    def _read(self) -> None:
        """The whole file as a table of our own. Ends at the first row that is wrong."""
        self._progress(0.0, "reading")
        time_, naive = self._time()
        columns = {
            "resource": self._text("resource", trimmed=False),
            "gpu": self._gpu(),
            "time": time_,
            "naive": naive,
            "utilisation": self._utilisation(),
            "memory_used_mib": self._amount("memory_used_bytes", "/ 1048576"),
            "power_watts": self._amount("power_watts"),
            **{name: self._attribute(name) for name in ATTRIBUTES if name in self._columns},
        }
        self._checks.insert(0, _Check("resource IS NULL", "resource", "is empty"))
        wrong = " OR ".join(f"coalesce({check.wrong}, false)" for check in self._checks)
        raw = ", ".join(f"{how} AS raw_{name}" for name, (how, _) in self._columns.items())
        parsed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
        typed = ", ".join(
            f"{name}::{kind} AS {name}" for name, kind in {**_SAMPLE, **ATTRIBUTES}.items() if name in columns
        )
        self._parsed = parsed
        self._raw = raw
        source = self._rows()
        try:
            self._run(
                f"CREATE TABLE sample AS SELECT {typed} FROM {source} "
                f"WHERE CASE WHEN {wrong} THEN error({quoted(OFFENCE)}) ELSE true END",
                0.0,
                0.45,
                "reading",
            )
        except duckdb.InvalidInputException as error:
            if OFFENCE not in str(error):
                raise
            raise self._offence(wrong) from None

    def _rows(self, further: str = "") -> str:
        """The file's rows: each of our columns as it stands there and as we read it, and none of its others."""
        return f"(SELECT *, {self._parsed} FROM (SELECT {further}{self._raw} FROM {self._source}))"

    def _offence(self, wrong: str) -> Unreadable:
        """The first row that is wrong, and how."""
        self._progress(0.45, "looking for the row that is wrong")
        self._sql.execute("SET threads = 1; SET preserve_insertion_order = true")
        numbered = self._rows("row_number() OVER () AS number, ")
        cases = " ".join(f"WHEN coalesce({check.wrong}, false) THEN {n}" for n, check in enumerate(self._checks))
        values = ", ".join(f"CAST(raw_{check.column} AS VARCHAR)" for check in self._checks)
        found = self._row(f"SELECT number, CASE {cases} END, {values} FROM {numbered} WHERE {wrong} LIMIT 1")
        if not found:  # the file was changed meanwhile
            return Unreadable(f"{self._path}: changed while it was read")
        number, which, *shown = found
        check = self._checks[which]
        value = shown[which]
        sentence = check.sentence
        if check.column == "utilisation" and "between" in sentence and self._all_percent():
            sentence += ": all of them are, if they are percent; then say --percent"
        if check.column == "time" and check.wrong.endswith(_AS_MILLISECONDS):
            sentence += "; if it is in milliseconds, say --milliseconds"
        if check.column in WORDS and value is not None:
            sentence += nearest(value.strip().lower(), WORDS[check.column])
        told = "" if value is None else f" {_shortened(value)!r}"
        return Unreadable(f"{self._path}, row {number} (after the header): {check.column}{told} {sentence}")

    def _all_percent(self) -> bool:
        how, _ = self._columns["utilisation"]
        row = self._row(
            f"SELECT min(u), max(u) FROM (SELECT TRY_CAST({how} AS DOUBLE) AS u FROM {self._source}) WHERE NOT isnan(u)"
        )
        return row[0] is not None and row[0] >= 0 and 1 < row[1] <= 100

    # each column

    def _text(self, name: str, *, trimmed: bool = True) -> str:
        text = f"CAST(raw_{name} AS VARCHAR)"
        return f"nullif(trim({text}), '')" if trimmed else f"CASE WHEN trim({text}) = '' THEN NULL ELSE {text} END"

    def _number(self, name: str) -> str:
        """NULL where there is none; what cannot be read as one is wrong."""
        number = f"TRY_CAST(raw_{name} AS DOUBLE)"
        self._checks.append(_Check(f"raw_{name} IS NOT NULL AND {number} IS NULL", name, "is no number"))
        return number

    def _time(self) -> tuple[str, str]:
        """Whole seconds, and whether its zone had to be guessed."""
        kind = self._columns["time"][1]
        number = "TRY_CAST(raw_time AS DOUBLE)" + (" / 1000" if self._reading.milliseconds else "")
        if kind.startswith("TIMESTAMP") or kind == "DATE":
            naive = "false" if kind == "TIMESTAMP WITH TIME ZONE" else "true"
            seconds = "epoch(raw_time::TIMESTAMPTZ)"
        elif kind == "VARCHAR":
            seconds = f"coalesce({number}, epoch(TRY_CAST(raw_time AS TIMESTAMPTZ)))"
            zoned = r"regexp_matches(raw_time, '(?i)(\dZ|[ 0-9](UTC|GMT)|:\d\d(\.\d+)? ?[+-]\d\d(:?\d\d)?)\s*$')"
            naive = f"TRY_CAST(raw_time AS DOUBLE) IS NULL AND NOT {zoned}"
        else:
            seconds, naive = number, "false"
        whole = f"TRY_CAST(floor({seconds}) AS BIGINT)"
        self._checks += [
            _Check(
                f"{whole} IS NULL",
                "time",
                "is neither Unix seconds nor a date and time like 2026-11-22T10:00:00Z",
            ),
            _Check(f"{whole} < 0", "time", "is before 1970"),
            _Check(f"{whole} >= {LATEST} AND {whole} {_AS_MILLISECONDS}", "time", "is no time in seconds"),
            _Check(f"{whole} >= {LATEST}", "time", "is after the year 2100"),
        ]
        return whole, naive

    def _utilisation(self) -> str:
        number = self._number("utilisation")
        most = 100 if self._reading.percent else 1
        self._checks.append(
            _Check(
                f"NOT isnan({number}) AND NOT ({number} BETWEEN 0 AND {most * (1 + ROUNDING)})",
                "utilisation",
                f"is not between 0 and {most}",
            )
        )
        return f"CASE WHEN isnan({number}) THEN NULL WHEN {number} > {most} THEN 1 ELSE {number} / {most} END"

    def _amount(self, name: str, into: str = "") -> str:
        if name not in self._columns:
            return "NULL"
        number = self._number(name)
        self._checks.append(_Check(f"{number} < 0 OR isinf({number})", name, "is no amount"))
        return f"CASE WHEN isnan({number}) THEN NULL ELSE {number} {into} END"

    def _gpu(self) -> str:
        if "gpu_index" not in self._columns:
            return "'0'"
        return rf"coalesce(regexp_replace({self._text('gpu_index')}, '^(\d+)\.0$', '\1'), '0')"

    def _attribute(self, name: str) -> str:
        match name:
            case "gpu_count":
                number = self._number(name)
                self._checks.append(
                    _Check(f"NOT isnan({number}) AND NOT ({number} BETWEEN 1 AND 100000)", name, "is no number of GPUs")
                )
                self._checks.append(_Check(f"{number} <> floor({number})", name, "is no whole number"))
                return f"CASE WHEN isnan({number}) THEN NULL ELSE {number} END"
            case "hourly_cost":
                number = self._number(name)
                wrong = f"NOT isnan({number}) AND NOT ({number} BETWEEN 0 AND {DEAREST})"
                self._checks.append(_Check(wrong, name, "is no cost of an hour"))
                return f"CASE WHEN isnan({number}) THEN NULL ELSE round({number} * 1000000) END"
            case "currency":
                text = f"upper({self._text(name)})"
                listed = ", ".join(quoted(currency) for currency in sorted(list_currencies()))
                self._checks.append(_Check(f"{text} NOT IN ({listed})", name, "is no ISO 4217 currency code"))
                return text
            case "state" | "kind" | "capacity_type":
                text = f"lower({self._text(name)})"
                words = [word.value for word in WORDS[name]]
                listed = ", ".join(quoted(word) for word in words)
                self._checks.append(_Check(f"{text} NOT IN ({listed})", name, f"is none of {', '.join(words)}"))
                return text
        return self._text(name)

    # days

    def _days(self) -> Mapping[date, int]:
        """Days that have samples, and how many rows with one each."""
        rows = self._sql.execute("SELECT time // 86400 AS d, count(utilisation) FROM sample GROUP BY d ORDER BY d")
        days = {_day(day): count for day, count in rows.fetchall()}
        if not days:
            raise Unreadable(f"{self._path}: has a header and no rows")
        return days

    def _activity(self, days: Mapping[date, int]) -> None:
        """Each day's samples, and in passing what each resource was on it."""
        attributes = self._given
        self._sql.execute(
            "CREATE TABLE piece (resource VARCHAR, since BIGINT, last BIGINT"
            + "".join(f", {name} {ATTRIBUTES[name]}" for name in attributes)
            + "); CREATE TABLE device (resource VARCHAR, gpu VARCHAR)"
        )
        done, total = 0, max(1, sum(days.values()))
        for portion in _portions(days):
            rows = "sample"
            if len(portion) < len(days):
                since, until = midnight(portion[0]), midnight(portion[-1]) + DAY
                rows = "portion"
                self._sql.execute(
                    f"CREATE TABLE portion AS SELECT * FROM sample WHERE time >= {since} AND time < {until}"
                )
            for day in portion:
                self._progress(0.45 + 0.45 * done / total, f"sorting {day.isoformat()}")
                self._one_day(rows, day, days[day])
                done += days[day]
            if rows == "portion":
                self._sql.execute("DROP TABLE portion")

    def _one_day(self, rows: str, day: date, samples: int) -> None:
        of_day = f"{rows} WHERE time >= {midnight(day)} AND time < {midnight(day) + DAY}"
        if samples:
            self._sql.execute(
                "CREATE OR REPLACE TEMP TABLE once AS SELECT resource, gpu, time, NULL AS until, NULL AS step, "
                "max(utilisation) AS utilisation, max(memory_used_mib) AS memory_used_mib, max(power_watts) AS "
                "power_watts, NULL AS tensor_active, NULL AS dram_active, NULL AS served "
                f"FROM {of_day} AND utilisation IS NOT NULL GROUP BY resource, gpu, time"
            )
            self._written += self._one("SELECT count(*) FROM once")
            self._place.put(Table.ACTIVITY, day, "SELECT * FROM once")
            self._sql.execute("INSERT INTO device SELECT DISTINCT resource, gpu FROM once")
        self._pieces(of_day)

    @property
    def _given(self) -> list[str]:
        return [*(name for name in ATTRIBUTES if name in self._columns and name != "state"), "state"]

    def _pieces(self, of_day: str) -> None:
        """Where what a resource was did not change within a day. Most never change: those are told without sorting."""
        attributes = self._given
        states = "state" if "state" in self._columns else "NULL::VARCHAR"
        state = f"coalesce({states}, CASE WHEN utilisation IS NOT NULL THEN 'running' END)"
        others = [name for name in attributes if name != "state"]
        selected = "".join(f"{name}, " for name in others)
        told = f"SELECT resource, time, {selected}{state} AS state FROM {of_day} "
        told += f"AND (utilisation IS NOT NULL OR {states} IS NOT NULL)"
        listed = ", ".join(attributes)
        self._sql.execute(
            "CREATE OR REPLACE TEMP TABLE whole AS SELECT resource, min(time) AS since, max(time) AS last, "
            + ", ".join(f"any_value({name}) AS {name}" for name in attributes)
            + f", min(hash({listed})) = max(hash({listed})) AS steady FROM ({told}) GROUP BY resource; "
            f"INSERT INTO piece SELECT resource, since, last, {listed} FROM whole WHERE steady"
        )
        if not self._one("SELECT count(*) FROM whole WHERE NOT steady"):
            return
        # several GPUs may tell in one second: what one leaves open another may know
        highest = ", ".join(f"max({name}) AS {name}" for name in attributes)
        filled = ", ".join(f"last_value({name} IGNORE NULLS) OVER w AS {name}" for name in attributes)
        self._sql.execute(
            f"""
            INSERT INTO piece
            WITH told AS ({told}),
            moment AS (
                SELECT resource, time, {highest} FROM told
                WHERE resource IN (SELECT resource FROM whole WHERE NOT steady) GROUP BY resource, time
            ), filled AS (
                SELECT resource, time, {filled} FROM moment WINDOW w AS (PARTITION BY resource ORDER BY time)
            ), changed AS (
                SELECT *, hash({listed}) IS DISTINCT FROM lag(hash({listed})) OVER w AS new
                FROM filled WINDOW w AS (PARTITION BY resource ORDER BY time)
            ), numbered AS (
                SELECT *, count(*) FILTER (new) OVER w AS number
                FROM changed WINDOW w AS (PARTITION BY resource ORDER BY time)
            )
            SELECT resource, min(time), max(time), {", ".join(f"any_value({name})" for name in attributes)}
            FROM numbered GROUP BY resource, number
            """
        )

    # what each resource was

    def _stretches(self) -> None:
        """The days' pieces together: what a row leaves open is as in the rows before it, and a stretch lasts until the
        next begins."""
        self._progress(0.9, "resources")
        attributes = self._given
        filled = ", ".join(f"last_value({name} IGNORE NULLS) OVER w AS {name}" for name in attributes)
        listed = ", ".join(attributes)
        self._sql.execute(
            f"""
            CREATE TABLE stretch AS
            WITH filled AS (
                SELECT resource, since, last, {filled}, lead(since) OVER w AS following
                FROM piece WINDOW w AS (PARTITION BY resource ORDER BY since)
            ), lasting AS (
                SELECT *, coalesce(following - last > {SILENCE}, true) AS ends,
                       CASE WHEN ends THEN last + 1 ELSE following END AS until
                FROM filled
            ), changed AS (
                SELECT *, hash({listed}) IS DISTINCT FROM lag(hash({listed})) OVER w
                          OR lag(ends) OVER w AS new
                FROM lasting WINDOW w AS (PARTITION BY resource ORDER BY since)
            ), numbered AS (
                SELECT *, count(*) FILTER (new) OVER w AS number
                FROM changed WINDOW w AS (PARTITION BY resource ORDER BY since)
            )
            SELECT resource, min(since) AS time, max(until) AS until,
                   {", ".join(f"any_value({name}) AS {name}" for name in attributes)}
            FROM numbered GROUP BY resource, number;
            CREATE TABLE gpus AS SELECT resource, count(DISTINCT gpu)::INTEGER AS gpus FROM device GROUP BY resource
            """
        )
        total = max(1, self._one("SELECT count(*) FROM stretch"))
        reader = self._sql.cursor()
        reader.execute(
            f"SELECT resource, time, until, coalesce(gpus, 1) AS gpus, {listed} FROM stretch "
            "LEFT JOIN gpus USING (resource) ORDER BY resource, time"
        )
        names = [entry[0] for entry in reader.description or ()]
        life = _Life()
        done = 0
        while rows := reader.fetchmany(AT_ONCE):
            values = [dict(zip(names, row, strict=True)) for row in rows]
            self._place.keep([(row["resource"], row["time"], row["until"], to_json(life.known(row))) for row in values])
            done += len(rows)
            self._progress(0.9 + 0.05 * done / total, "resources")
        reader.close()

    def _found(self, days: Mapping[date, int]) -> Imported:
        row = self._row("SELECT count(*), count(utilisation), bool_or(naive) FROM sample")
        span = self._row("SELECT count(DISTINCT resource), min(time), max(until) FROM known")
        if not span[0]:
            raise Unreadable(f"{self._path}: no row has a utilisation, nor a state: it says nothing")
        says = "utilisation IS NOT NULL" + (" OR state IS NOT NULL" if "state" in self._columns else "")
        return Imported(
            rows=row[0],
            samples=self._written,
            duplicates=row[1] - self._written,
            silent=row[0] - self._one(f"SELECT count(*) FROM sample WHERE {says}"),
            resources=span[0],
            gpus=self._one("SELECT coalesce(sum(gpus), 0)::BIGINT FROM gpus"),
            start=datetime.fromtimestamp(span[1], UTC),
            end=datetime.fromtimestamp(span[2], UTC),
            days=len(days),
            without_zone=bool(row[2]),
        )

    # asking

    def _row(self, query: str) -> tuple[Any, ...]:
        rows = self._sql.execute(query).fetchall()
        return tuple(rows[0]) if rows else ()

    def _one(self, query: str) -> int:
        return int(self._row(query)[0])

    def _run(self, statement: str, since: float, until: float, words: str) -> None:
        """A long statement, telling how far it is. Who interrupts us ends it too."""
        with ThreadPoolExecutor(1, thread_name_prefix="import") as pool:
            work = pool.submit(self._sql.execute, statement)
            try:
                while not work.done():
                    wait([work], timeout=0.1)
                    share = self._sql.query_progress() / 100
                    self._progress(since + (until - since) * min(1.0, max(0.0, share)), words)
            except BaseException:
                self._sql.interrupt()
                raise
            work.result()


_AS_MILLISECONDS = f">= {MILLISECONDS}"
_SAMPLE = {
    "resource": "VARCHAR",
    "gpu": "VARCHAR",
    "time": "BIGINT",
    "naive": "BOOLEAN",
    "utilisation": "DOUBLE",
    "memory_used_mib": "DOUBLE",
    "power_watts": "DOUBLE",
}


class _Life:
    """What is known of resources as their stretches come, one resource after the other, each in the order of time."""

    def __init__(self) -> None:
        self._before: Known | None = None

    def known(self, row: Row) -> Known:
        """The value of one stretch."""
        at = datetime.fromtimestamp(row["time"], UTC)
        before = self._before if self._before is not None and self._before.id == row["resource"] else None
        known = _first(row, at) if before is None else _next(before, row, at)
        self._before = known
        return known


def _record(row: Row) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(
            provider=row.get("provider") or "imported",
            account=row.get("account") or "",
            region=row.get("region") or "",
            kind=Kind(row.get("kind") or Kind.INSTANCE),
            external_id=row["resource"],
        ),
        incarnation=row["resource"],
        name=row.get("name") or row["resource"],
        zone=None,
        sku=row.get("sku") or "",
        gpu_vendor=None,
        gpu_model=row.get("gpu_model"),
        gpu_count=row.get("gpu_count") or row["gpus"],
        capacity_type=CapacityType(row.get("capacity_type") or CapacityType.UNKNOWN),
        state=State(row["state"]),
    )


def _price(row: Row) -> Price | None:
    micros = row.get("hourly_cost")
    if micros is None:
        return None
    return Price(rate_micros=micros, currency=row.get("currency") or "USD", source="history table")


def _first(row: Row, at: datetime) -> Known:
    record, project = _record(row), row.get("project")
    return Known(
        id=row["resource"],
        source="imported",
        record=record,
        first_seen=at,
        state_since=at,
        started_at=at - LONG_BEFORE if record.state is State.RUNNING else None,
        ended_at=at if record.state is State.TERMINATED else None,
        project=project,
        project_since=at if project else None,
        owner=row.get("owner"),
        price=_price(row),
    )


_DOWN = (State.STOPPED, State.SUSPENDED, State.STOPPING, State.TERMINATED)


def _next(before: Known, row: Row, at: datetime) -> Known:
    """As the live cycle would remember it."""
    record, project = _record(row), row.get("project")
    after = replace(
        before,
        record=record,
        ended_at=(before.ended_at or at) if record.state is State.TERMINATED else None,
        project=project,
        project_since=before.project_since if project == before.project else at if project else None,
        owner=row.get("owner"),
        price=_price(row),
    )
    if record.state is not before.record.state:
        after = replace(after, state_since=at)
    if record.state is State.RUNNING and before.started_at is None:
        came_back = before.record.state in _DOWN
        return replace(after, started_at=at, restarted_at=at if came_back else before.restarted_at)
    if record.state in _DOWN and before.started_at is not None:
        ran = int((at - max(before.started_at, before.first_seen)).total_seconds())
        return replace(after, started_at=None, earlier_runs_seconds=before.earlier_runs_seconds + ran)
    return after


# --- small things ----------------------------------------------------------------------------------------------------


def _header(line: str) -> tuple[str, list[str]]:
    """By which character fields are told apart, and what they are called."""
    line = line.lstrip("\ufeff")
    split = {character: next(csv.reader([line], delimiter=character), []) for character in (",", ";", "\t", "|")}
    delimiter = max(split, key=lambda character: len(split[character]))
    return delimiter, split[delimiter]


def _portions(days: Mapping[date, int]) -> Iterator[list[date]]:
    """Days one after the other, together at most so many rows, or one day."""
    portion: list[date] = []
    rows = 0
    for day, count in days.items():
        if portion and rows + count > PORTION:
            yield portion
            portion, rows = [], 0
        portion.append(day)
        rows += count
    yield portion


def _day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
