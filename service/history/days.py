"""Puts new days of a history beside or in the place of what is there: all of them, or none.

Files are made in a folder of their own within the history and moved at the end. What the rows mean is the writer's.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import duckdb

from service.history.layout import WHOLE_DAY, History, Table

STAGING = ".import-"
"""How the folders begin in which an import works."""
MOVES = "moves.json"
"""What is still to be moved; once it is there the import is decided, whatever ends the process."""
LOCK = ".lock"
ROW_GROUP = 122_880
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
    _made: dict[tuple[Table, date], list[str]] = field(default_factory=dict)
    """The parts that each new file takes the place of, as the file system names them."""

    @property
    def plain(self) -> str:
        """The folder, by a path that is no pattern."""
        return str(self.links / "folder")

    def linked(self, file: Path) -> str:
        """A file that is somebody's, by a path that is no pattern."""
        link = self.links / "file"
        link.symlink_to(file.resolve())
        return str(link)

    def put(self, connection: duckdb.DuckDBPyConnection, table: Table, day: date, rows: str) -> int:
        """Make a day's file of these rows (a SELECT of the table's columns) and those that are there. How many of them
        are in it now."""
        parts = self.history.parts(table, day)
        columns = ", ".join(table.columns)
        if parts:
            files = ", ".join(quoted(self._readable(part)) for part in parts)
            old = f"SELECT {columns} FROM read_parquet([{files}], union_by_name=true, hive_partitioning=false)"
            new_, old_ = ("winner", "loser") if self.wins is Wins.NEW else ("loser", "winner")
            rows = f"WITH {new_} AS ({rows}), {old_} AS ({old}), {_OVERLAID[table]}"
        name = f"{table}-{day.isoformat()}.parquet"
        typed = ", ".join(f"{column}::{kind} AS {column}" for column, kind in table.columns.items())
        written = connection.execute(
            f"COPY (SELECT {typed} FROM ({rows}) ORDER BY {table.order}) TO {quoted(f'{self.plain}/{name}')} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
        ).fetchall()
        self._made[table, day] = [self._named(part) for part in parts]
        return int(written[0][0])

    def commit(self) -> None:
        """Let the new days take the places of the old ones."""
        moves = [
            {
                "from": f"{table}-{day.isoformat()}.parquet",
                "to": f"{self.history.folder(table, day)}/{WHOLE_DAY}",
                "instead_of": parts,
            }
            for (table, day), parts in sorted(self._made.items())
        ]
        if not self.history.local:
            _upload(self.history, self.folder, moves)
            return
        plan = self.folder / f"{MOVES}.part"
        with plan.open("w") as file:
            json.dump(moves, file)
            file.flush()
            os.fsync(file.fileno())
        plan.rename(self.folder / MOVES)
        _move(self.folder)

    def _readable(self, part: str) -> str:
        if not self.history.local:
            return part
        return str(self.links / "history" / Path(part).relative_to(root_of(self.history)))

    def _named(self, part: str) -> str:
        return part if self.history.local else str(self.history.files._strip_protocol(part))


def _move(folder: Path) -> None:
    """Carry out what was decided; what of it is done already is done."""
    for move in json.loads((folder / MOVES).read_text()):
        target = Path(move["to"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if (folder / move["from"]).exists():
            os.replace(folder / move["from"], target)
        for part in move["instead_of"]:
            if Path(part) != target:
                Path(part).unlink(missing_ok=True)
    (folder / MOVES).unlink()


def _upload(history: History, folder: Path, moves: Sequence[dict[str, Any]]) -> None:
    """Each file appears as a whole; should it be cut off between two, the same import again puts it right."""
    for move in moves:
        history.files.makedirs(move["to"].rpartition("/")[0], exist_ok=True)
        history.files.put_file(str(folder / move["from"]), move["to"])
    for move in moves:
        for part in move["instead_of"]:
            if part != move["to"]:
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
            yield Staging(history=history, wins=wins, folder=folder, links=Path(links))
        finally:
            if not (folder / MOVES).exists():  # else the next one carries it out
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _alone(history: History) -> Iterator[Path | None]:
    """The history's folder, while nobody else imports into it; what another one left is tidied up. None: it is not on
    a disk of ours, and who else writes there cannot be told."""
    if not history.local:
        yield None
        return
    root = root_of(history)
    new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with (root / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(
                    f"{history.location}: another import is under way there; try again when it is done"
                ) from None
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
