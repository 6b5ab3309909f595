"""Where history lies and what its two tables hold: Parquet files by day, on a disk or in any place fsspec reaches.

    LOCATION/activity/day=2026-11-22/*.parquet     what each GPU did
    LOCATION/resources/day=2026-11-22/*.parquet    what each resource was

A day is a day in UTC. Its files are written once and never changed; compaction puts one file, `all.parquet`, in the
place of many. Nothing here knows policies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import duckdb
import fsspec
import fsspec.implementations.local

WHOLE_DAY = "all.parquet"
"""The one file of a compacted day, in the order of its table."""
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
        self.location = location.rstrip("/")
        self._files, self._root = fsspec.core.url_to_fs(self.location)
        self.local = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)

    def days(self) -> list[date]:
        """Days of which anything is kept, ascending."""
        found = set()
        for table in Table:
            folder = f"{self._root}/{table}"
            for path in self._files.ls(folder, detail=False) if self._files.exists(folder) else ():
                named = _DAY.search(str(path).rstrip("/"))
                if named:
                    found.add(date.fromisoformat(named[1]))
        return sorted(found)

    def parts(self, table: Table, day: date) -> list[str]:
        """The files of one day, in the order they were written, as DuckDB reads them."""
        folder = self.folder(table, day)
        if not self._files.exists(folder):
            return []
        names = sorted(str(path) for path in self._files.ls(folder, detail=False) if str(path).endswith(".parquet"))
        return [self.readable(name) for name in names]

    def folder(self, table: Table, day: date) -> str:
        """Where the files of one day lie, as the file system names it."""
        return f"{self._root}/{table}/day={day.isoformat()}"

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


def day_of(seconds: float) -> date:
    """The day in UTC that a Unix time falls on."""
    return datetime.fromtimestamp(seconds, UTC).date()


def midnight(day: date) -> int:
    """The Unix time at which a day begins in UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
