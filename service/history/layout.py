"""Where history lies and what its two tables hold: Parquet files by day, on a disk or in any place fsspec reaches.

    LOCATION/activity/day=2026-11-22/*.parquet     what each GPU did
    LOCATION/resources/day=2026-11-22/*.parquet    what each resource was

A day is a day in UTC. Its files are written once, sorted as `Table.order`, and appear whole; compaction puts one file
in the place of many: `…-all.parquet` within a day, `all.parquet` of a day that is over. Nothing here knows policies.

A compacted file names in its own metadata (`REPLACES`) the files it was made of, and whatever it names does not count,
though it may still lie there: a compaction that is cut off at any moment loses nothing and doubles nothing. What is
written meanwhile, or later, is named by none and counts. Who deletes a compacted file deletes everything beside it too
(`History.written`), for what it stood for would count again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import fsspec.implementations.local

WHOLE_DAY = "all.parquet"
"""The one file of a compacted day, in the order of its table."""
COMPACTED = f"-{WHOLE_DAY}"
"""How the names of files end that stand for several of a day that goes on."""
REPLACES = "curfew_replaces"
"""Key of a compacted file's metadata: a JSON list of the names of the files it was made of."""
_DAY = re.compile(r"day=(\d{4}-\d{2}-\d{2})$")


class Table(StrEnum):
    """The two tables of a history."""

    ACTIVITY = "activity"
    RESOURCES = "resources"

    @property
    def columns(self) -> Mapping[str, str]:
        """Column → DuckDB's type, in order."""
        return ACTIVITY if self is Table.ACTIVITY else RESOURCES

    @property
    def order(self) -> str:
        """How the rows of a compacted day are sorted."""
        return "resource, gpu, time" if self is Table.ACTIVITY else "resource, time"


ACTIVITY: Mapping[str, str] = {
    "resource": "VARCHAR",
    "gpu": "VARCHAR",  # the device, as the live samples name it
    "time": "BIGINT",  # Unix seconds of the first sample this row tells of
    "until": "BIGINT",  # of the last one; NULL: there is one sample only
    "step": "INTEGER",  # seconds, the longest between two of its samples; NULL: there is one sample only
    "utilisation": "DOUBLE",  # 0..1, the highest; NULL for a counter of requests
    "memory_used_mib": "DOUBLE",  # the highest, as are all that follow; NULL where nothing tells
    "power_watts": "DOUBLE",
    "tensor_active": "DOUBLE",
    "dram_active": "DOUBLE",
    "served": "BOOLEAN",  # of a counter of requests: whether it moved since the row before; NULL for a GPU
}
"""One row per device and sample, or per device and a short window of samples. What has no row is not known."""

RESOURCES: Mapping[str, str] = {
    "resource": "VARCHAR",
    "time": "BIGINT",  # Unix seconds from which on it was so
    "until": "BIGINT",  # up to here it is known to have been so; not included
    "known": "VARCHAR",  # a `service.model.Known` as JSON (`service.store.resources.to_json`); NULL: as the row before
}
"""One row per resource and stretch in which nothing of it changed. Outside of its stretches nothing is known of it."""


class History:
    """A place with history in it, or about to be."""

    def __init__(self, location: str) -> None:
        """Raises ValueError for a place that cannot be reached from here, with a sentence that shows no secret."""
        self.location = location.rstrip("/")
        self._files, self._root = _reached(self.location)
        self.local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)

    @property
    def shown(self) -> str:
        """Where it is, as people may be told: without what a URL says of a login."""
        return shown(self.location)

    def days(self) -> list[date]:
        """Days of which anything is kept, ascending."""
        found = set()
        for table in Table:
            folder = f"{self._root}/{table}"
            self._files.invalidate_cache(folder)
            for path in self._files.ls(folder, detail=False) if self._files.exists(folder) else ():
                named = _DAY.search(str(path).rstrip("/"))
                if named:
                    found.add(date.fromisoformat(named[1]))
        return sorted(found)

    def parts(self, table: Table, day: date) -> list[str]:
        """The files of one day that count, in the order they were written, as DuckDB reads them."""
        written = self.written(table, day)
        replaced = self._replaced(written) if len(written) > 1 else frozenset()
        return [self.readable(path) for path in written if name_of(path) not in replaced]

    def written(self, table: Table, day: date) -> list[str]:
        """All files of one day, those too that a compacted one replaces, as the file system names them."""
        folder = self.folder(table, day)
        self._files.invalidate_cache(folder)  # others write there too
        try:
            found = self._files.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(path) for path in found if str(path).endswith(".parquet"))

    def _replaced(self, written: Iterable[str]) -> frozenset[str]:
        """The names of files that others say they stand for."""
        compacted = [self.readable(path) for path in written if path.endswith((COMPACTED, f"/{WHOLE_DAY}"))]
        if not compacted:
            return frozenset()
        with self.connect() as connection:
            told = connection.execute(
                "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = ?", [compacted, REPLACES]
            ).fetchall()
        return frozenset(name for (text,) in told for name in json.loads(text))

    def folder(self, table: Table, day: date) -> str:
        """Where the files of one day lie, as the file system names it."""
        return f"{self._root}/{table}/day={day.isoformat()}"

    def make_folder(self, table: Table, day: date) -> str:
        """The same, there to write into. A new history on a disk is for whom it belongs to alone: it names people."""
        if self.local:
            Path(self._root).mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.folder(table, day)
        self._files.makedirs(folder, exist_ok=True)
        return folder

    def readable(self, path: str) -> str:
        """A path of the file system as DuckDB reads and writes it."""
        return path if self.local else str(self._files.unstrip_protocol(path))

    @property
    def files(self) -> Any:
        """fsspec's file system."""
        return self._files

    def connect(self, *, threads: int = 1, memory: str = "1GB") -> duckdb.DuckDBPyConnection:
        """A DuckDB that reads and writes here. It is handed no text of a policy: those go to the judge, which is
        locked."""
        connection = duckdb.connect(
            ":memory:",
            config={
                "threads": threads,
                "memory_limit": memory,
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "allow_community_extensions": False,
            },
        )
        if not self.local:
            connection.register_filesystem(self._files)
        return connection


def _reached(location: str) -> tuple[Any, str]:
    """The file system of a place, and the place within it."""
    try:
        files, root = fsspec.core.url_to_fs(location)
    except ImportError as error:  # says which package to install
        raise ValueError(f"{shown(location)}: what reads such a place is not installed here. {error}") from None
    except OSError as error:  # some are connected to at once; what it says may hold the login
        reason = error.strerror or type(error).__name__
        raise ValueError(f"{shown(location)} cannot be reached: {reason}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise ValueError(f"{shown(location)} cannot be reached: {type(error).__name__}") from None
        kind = location.partition("://")[0]
        raise ValueError(
            f"{shown(location)}: there is no kind of place {kind!r}; name a folder, or a URL like s3://bucket/folder"
        ) from None
    if set(str(root)) & set("*?["):  # DuckDB would read whatever fits
        raise ValueError(f"{shown(location)}: a history cannot lie in a place with *, ? or [ in its name")
    return files, str(root).rstrip("/")


def shown(location: str) -> str:
    """A place as people may be told of it: a URL may hold a login, and keys as parameters."""
    return re.sub(r"(?<=\?).*", "***", re.sub(r"(?<=://).*@", "***@", location)) if "://" in location else location


def credentials(location: str) -> list[str]:
    """What of a place is secret: the password of its login, or all of it, and the values of its parameters."""
    if "://" not in location:
        return []
    place, _, parameters = location.partition("://")[2].partition("?")
    login = place.rpartition("@")[0]
    values = [parameter.partition("=")[2] or parameter for parameter in parameters.split("&")]
    return [secret for secret in (login.partition(":")[2] or login, *values) if secret]


def name_of(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]


def day_of(seconds: float) -> date:
    """The day in UTC that a Unix time falls on."""
    return datetime.fromtimestamp(seconds, UTC).date()


def midnight(day: date) -> int:
    """The Unix time at which a day begins in UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
