"""Tells what is in a history: how long, how much, and of how much of the time anything is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import duckdb

from service.history.layout import History, Table, midnight

SLOT = 300
"""Seconds: a GPU is known in a stretch of so long when there is a sample of it."""
DAY = 86_400

Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class OfProject:
    """What is known of one project."""

    project: str | None
    resources: int
    gpu_hours: float
    """For which its resources ran, as far as anything is known of them."""
    known_gpu_hours: float
    """Of these those in which the GPU was sampled."""

    @property
    def share(self) -> float | None:
        return min(1.0, self.known_gpu_hours / self.gpu_hours) if self.gpu_hours else None


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is in a history."""

    first: date | None
    last: date | None
    days: int
    resources: int
    gpus: int
    rows: Mapping[Table, int]
    bytes: int
    files: int
    projects: Sequence[OfProject]


def content(history: History, progress: Callable[[float, str], None] = lambda share, words: None) -> Content:
    """All of it is read, one day after the other."""
    days = history.days()
    rows: dict[Table, int] = dict.fromkeys(Table, 0)
    size = files = 0
    hours: dict[str | None, list[float]] = defaultdict(lambda: [0.0, 0.0])
    with history.connect(threads=2) as sql:
        sql.execute(
            "CREATE TABLE seen (resource VARCHAR, gpu VARCHAR); CREATE TABLE whose (resource VARCHAR, project VARCHAR)"
        )
        for count, day in enumerate(days):
            progress(count / len(days), f"reading {day.isoformat()}")
            for table in Table:
                written = history.written(table, day)
                files += len(written)
                size += sum(history.files.size(path) or 0 for path in written)
                rows[table] += _count(sql, history.parts(table, day))
            for project, ran, known in _day(sql, history, day):
                hours[project][0] += ran
                hours[project][1] += known
        resources = sql.execute(
            "SELECT count(DISTINCT resource) FROM (SELECT resource FROM whose UNION ALL SELECT resource FROM seen)"
        ).fetchall()
        gpus = sql.execute("SELECT count(*) FROM (SELECT DISTINCT resource, gpu FROM seen)").fetchall()
        of = dict(sql.execute("SELECT project, count(DISTINCT resource) FROM whose GROUP BY project").fetchall())
    return Content(
        first=days[0] if days else None,
        last=days[-1] if days else None,
        days=len(days),
        resources=int(resources[0][0]),
        gpus=int(gpus[0][0]),
        rows=rows,
        bytes=size,
        files=files,
        projects=[
            OfProject(project=project, resources=of.get(project, 0), gpu_hours=ran, known_gpu_hours=known)
            for project, (ran, known) in sorted(hours.items(), key=lambda entry: (entry[0] is None, entry[0]))
        ],
    )


def _count(sql: duckdb.DuckDBPyConnection, parts: list[str]) -> int:
    if not parts:
        return 0
    return int(sql.execute("SELECT coalesce(sum(num_rows), 0) FROM parquet_file_metadata(?)", [parts]).fetchall()[0][0])


def _day(sql: duckdb.DuckDBPyConnection, history: History, day: date) -> list[tuple[str | None, float, float]]:
    """Project → GPU hours that its resources ran, and of these those that are known."""
    activity, resources = (history.parts(table, day) for table in (Table.ACTIVITY, Table.RESOURCES))
    if activity:
        sql.execute(
            "INSERT INTO seen SELECT DISTINCT resource, gpu FROM read_parquet(?) WHERE served IS NULL", [activity]
        )
    if not resources:
        return []
    sql.execute(
        """
        CREATE OR REPLACE TEMP TABLE stretch AS
        SELECT resource, time, until, known->>'$.project' AS project,
               (known->>'$.state') = 'running' AS runs, (known->>'$.gpu_count')::INTEGER AS gpus
        FROM (
            SELECT resource, time, until,
                   last_value(known IGNORE NULLS) OVER (PARTITION BY resource ORDER BY time) AS known
            FROM read_parquet(?)
        ) WHERE known IS NOT NULL
        """,
        [resources],
    )
    sql.execute("INSERT INTO whose SELECT DISTINCT resource, project FROM stretch")
    ran = dict(
        sql.execute(
            "SELECT project, sum(gpus * (least(until, $end) - greatest(time, $start)))::DOUBLE / 3600 FROM stretch "
            "WHERE runs GROUP BY project",
            {"start": midnight(day), "end": midnight(day) + DAY},
        ).fetchall()
    )
    known = {}
    if activity:
        known = dict(
            sql.execute(
                f"""
                WITH slot AS (
                    SELECT resource, time // {SLOT} AS slot, count(DISTINCT gpu) AS gpus, min(time) AS time
                    FROM read_parquet(?) WHERE served IS NULL GROUP BY resource, slot
                )
                SELECT project, sum(least(slot.gpus, stretch.gpus))::DOUBLE * {SLOT} / 3600
                FROM slot ASOF JOIN stretch ON slot.resource = stretch.resource AND slot.time >= stretch.time
                WHERE runs AND slot.time < stretch.until GROUP BY project
                """,
                [activity],
            ).fetchall()
        )
    return [(project, hours, min(hours, known.get(project, 0.0))) for project, hours in ran.items()]


def as_json(found: Content) -> dict[str, Any]:
    """The same as plain JSON."""
    return {
        "from": found.first.isoformat() if found.first else None,
        "to": found.last.isoformat() if found.last else None,
        "days": found.days,
        "resources": found.resources,
        "gpus": found.gpus,
        "rows": {table.value: count for table, count in found.rows.items()},
        "bytes": found.bytes,
        "files": found.files,
        "projects": [{**asdict(project), "known_share": project.share} for project in found.projects],
    }
