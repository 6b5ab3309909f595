"""Puts new days of a history beside or in the place of what is there: all of them, or none.

Files are made in a folder of their own within the history and moved at the end. What the rows mean is the writer's.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from enum import Enum
from pathlib import Path

import duckdb

from service.history.layout import COMPACTED, REPLACES, WHOLE_DAY, History, Table, midnight, name_of

STAGING = ".import-"
"""How the folders begin in which an import works."""
MOVES = "moves.json"
"""What is still to be moved; once it is there the import is decided, whatever ends the process."""
LOCK = ".lock"
ROW_GROUP = 122_880
DAY = 86_400
MEMORY = "2GB"
"""What making days may take; what does not fit lies on the disk of the history meanwhile."""
FOREVER = 2**62


class Busy(ValueError):
    """Somebody else is writing into the same history."""


class Wins(Enum):
    """Of two rows that tell of the same, which counts."""

    NEW = "new"
    OLD = "old"


@dataclass(kw_only=True)
class Staging:
    """Days that are being made, and where."""

    history: History
    wins: Wins
    folder: Path
    """Whatever is made along the way may lie here too; it is gone in the end."""
    links: Path
    """A folder whose path is plain: DuckDB takes `*` and `[` of a path for a pattern, and these are people's."""
    sql: duckdb.DuckDBPyConnection
    """Works in files beside what it makes, with so much memory and no more."""
    _made: dict[tuple[Table, date], list[str]] = field(default_factory=dict)
    """The files that lie in each new one's place, as the file system names them."""

    @property
    def plain(self) -> str:
        """The folder, by a path that is no pattern."""
        return str(self.links / "folder")

    def linked(self, file: Path) -> str:
        """A file that is somebody's, by a path that is no pattern."""
        Path(self.link).symlink_to(file.resolve())
        return self.link

    @property
    def link(self) -> str:
        """Where `linked` puts it."""
        return str(self.links / "file")

    def put(self, table: Table, day: date, rows: str) -> int:
        """Make a day's file of these rows (a SELECT of the table's columns) and those that are there. How many of them
        are in it now."""
        there = self.history.written(table, day)
        parts = self.history.parts(table, day)
        columns = ", ".join(table.columns)
        if parts:
            files = ", ".join(quoted(self._readable(part)) for part in parts)
            old = f"SELECT {columns} FROM read_parquet([{files}], union_by_name=true, hive_partitioning=false)"
            new_, old_ = ("winner", "loser") if self.wins is Wins.NEW else ("loser", "winner")
            rows = f"WITH {new_} AS ({rows}), {old_} AS ({old}), {_OVERLAID[table]}"
        typed = ", ".join(f"{column}::{kind} AS {column}" for column, kind in table.columns.items())
        replaced = json.dumps([name for path in there if (name := name_of(path)) != WHOLE_DAY])
        written = self.sql.execute(
            f"COPY (SELECT {typed} FROM ({rows}) ORDER BY {table.order}) "
            f"TO {quoted(f'{self.plain}/{_name(table, day)}')} (FORMAT parquet, COMPRESSION zstd, "
            f"ROW_GROUP_SIZE {ROW_GROUP}, KV_METADATA {{{REPLACES}: {quoted(replaced)}}})"
        ).fetchall()
        self._made[table, day] = there
        return int(written[0][0])

    def keep(self, rows: Sequence[tuple[str, int, int, str]]) -> None:
        """Take in what resources were: resource, from, until, known. `put_resources` makes days of them."""
        import numpy

        resources, times, untils, known = zip(*rows, strict=True)
        batch = {
            "resource": numpy.array(resources, dtype=object),
            "time": numpy.array(times, dtype=numpy.int64),
            "until": numpy.array(untils, dtype=numpy.int64),
            "known": numpy.array(known, dtype=object),
        }
        self.sql.register("batch", batch)
        self.sql.execute("INSERT INTO known SELECT resource, time, until, known FROM batch")
        self.sql.unregister("batch")

    def put_resources(self, progress: Callable[[float, str], None]) -> None:
        """Each day for itself: a stretch that lasts longer is in each of its days."""
        days = [
            date(1970, 1, 1) + timedelta(days=row[0])
            for row in self.sql.execute(
                f"SELECT DISTINCT unnest(range(time // {DAY}, (until - 1) // {DAY} + 1)) AS d FROM known ORDER BY d"
            ).fetchall()
        ]
        for count, day in enumerate(days):
            progress(count / len(days), f"resources on {day.isoformat()}")
            first, last = midnight(day), midnight(day) + DAY
            self.put(
                Table.RESOURCES,
                day,
                f"SELECT resource, greatest(time, {first}) AS time, least(until, {last}) AS until, known FROM known "
                f"WHERE time < {last} AND until > {first}",
            )

    def commit(self) -> None:
        """Let the new days take the places of the old ones. Raises Busy."""
        moves = []
        for (table, day), there in sorted(self._made.items()):
            now = self.history.written(table, day)
            if set(there) - set(now) or any(path.endswith((COMPACTED, WHOLE_DAY)) for path in set(now) - set(there)):
                raise Busy(f"{self.history.shown}: {day.isoformat()} was compacted meanwhile; try again")
            to = f"{self.history.folder(table, day)}/{WHOLE_DAY}"
            moves.append(_Move(made=_name(table, day), to=to, instead_of=[path for path in there if path != to]))
        if not self.history.local:
            _upload(self.history, self.folder, moves)
            return
        plan = self.folder / f"{MOVES}.part"
        with plan.open("w") as file:
            json.dump([asdict(move) for move in moves], file)
            file.flush()
            os.fsync(file.fileno())
        plan.rename(self.folder / MOVES)
        _move(self.folder)

    def _readable(self, part: str) -> str:
        if not self.history.local:
            return part
        return str(self.links / "history" / Path(part).relative_to(root_of(self.history)))


@dataclass(frozen=True)
class _Move:
    """A file that was made, where it goes, and what goes then. It says itself whose place it takes, so that nothing
    counts twice in between."""

    made: str
    to: str
    instead_of: Sequence[str]


def _name(table: Table, day: date) -> str:
    return f"{table}-{day.isoformat()}.parquet"


def _move(folder: Path) -> None:
    """Carry out what was decided; what of it is done already is done."""
    for move in (_Move(**values) for values in json.loads((folder / MOVES).read_text())):
        target = Path(move.to)
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / move.made).exists():
            os.replace(folder / move.made, target)
        for part in move.instead_of:
            Path(part).unlink(missing_ok=True)
    (folder / MOVES).unlink()


def _upload(history: History, folder: Path, moves: Sequence[_Move]) -> None:
    """Each file appears as a whole; should it be cut off between two, the same import again puts it right."""
    for move in moves:
        history.files.makedirs(move.to.rpartition("/")[0], exist_ok=True)
        history.files.put_file(str(folder / move.made), move.to)
    for move in moves:
        for part in move.instead_of:
            history.files.rm_file(part)


@contextmanager
def staging(history: History, wins: Wins) -> Iterator[Staging]:
    """A place to make days in. Without `commit` nothing has happened. Raises Busy."""
    with tempfile.TemporaryDirectory(prefix="curfew-") as links, _alone(history) as root:
        folder = Path(tempfile.mkdtemp(prefix=STAGING, dir=root))
        (Path(links) / "folder").symlink_to(folder.resolve())
        if root is not None:
            (Path(links) / "history").symlink_to(root.resolve())
        try:
            with closing(_connect(history, Path(links) / "folder")) as sql:
                yield Staging(history=history, wins=wins, folder=folder, links=Path(links), sql=sql)
        finally:
            if not (folder / MOVES).exists():  # else the next one carries it out
                shutil.rmtree(folder, ignore_errors=True)


def _connect(history: History, folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        str(folder / "work.db"),
        config={
            "memory_limit": MEMORY,
            "temp_directory": str(folder / "spilled"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    connection.execute("CREATE TABLE known (resource VARCHAR, time BIGINT, until BIGINT, known VARCHAR)")
    if not history.local:
        connection.register_filesystem(history.files)
    return connection


@contextmanager
def _alone(history: History) -> Iterator[Path | None]:
    """The history's folder, while nobody else imports into it; what another one left is tidied up. None: it is not on
    a disk of ours, and who else writes there cannot be told."""
    if not history.local:
        yield None
        return
    root = root_of(history)
    new = not root.exists()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # it names people
    try:
        with (root / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{history.shown}: another import is under way there; try again when it is done") from None
            for left in root.glob(f"{STAGING}*"):
                if (left / MOVES).exists():
                    _move(left)
                shutil.rmtree(left, ignore_errors=True)
            yield root
    finally:
        if new and {entry.name for entry in root.iterdir()} == {LOCK}:  # a failed first import leaves nothing behind
            (root / LOCK).unlink()
            root.rmdir()


def root_of(history: History) -> Path:
    """The folder of a history on a disk of ours."""
    return Path(history.folder(Table.ACTIVITY, date.min)).parents[1]


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


_OVERLAID = {
    # a row of the loser counts where none of the winner tells of a moment of it
    Table.ACTIVITY: f"""
    free AS (
        SELECT loser.* FROM loser
        ASOF LEFT JOIN (SELECT resource AS r, gpu AS g, time AS since, until AS til FROM winner)
        ON resource = r AND gpu = g AND coalesce(until, time) >= since
        WHERE since IS NULL OR coalesce(til, since) < time
    )
    SELECT {", ".join(Table.ACTIVITY.columns)} FROM winner
    UNION ALL SELECT {", ".join(Table.ACTIVITY.columns)} FROM free""",
    # a stretch of the loser is cut to where the winner says nothing of the resource
    Table.RESOURCES: f"""
    ahead AS (
        SELECT *, max(until) OVER (
            PARTITION BY resource ORDER BY time, until ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS reached FROM winner
    ), gap AS (
        SELECT resource AS r, coalesce(reached, -{FOREVER}) AS since, time AS til FROM ahead
        WHERE reached IS NULL OR time > reached
        UNION ALL SELECT resource, max(until), {FOREVER} FROM winner GROUP BY resource
    ), whole AS (
        SELECT resource, time, until, coalesce(known, last_value(known IGNORE NULLS) OVER (
            PARTITION BY resource ORDER BY time
        )) AS known FROM loser
    )
    SELECT resource, time, until, known FROM winner
    UNION ALL SELECT resource, time, until, known FROM loser WHERE resource NOT IN (SELECT resource FROM winner)
    UNION ALL SELECT resource, greatest(time, since), least(until, til), known
    FROM whole JOIN gap ON resource = r AND time < til AND until > since""",
}
