"""Puts one file in the place of many and lets go of days that are too old. What rows mean is `layout`'s to say.

Whatever ends this, at any moment, nothing is lost and nothing counts twice: a compacted file names what it was made of.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import duckdb
import structlog

from service.history.layout import COMPACTED, REPLACES, WHOLE_DAY, History, Table, day_of, midnight, name_of
from service.history.record import copy

log = structlog.get_logger()

OVER_AFTER = timedelta(hours=2)
"""So long after its end a day is compacted: what comes late has come by then."""
MANY = 12
"""As many new files of a day that goes on become one. Twelve are an hour's."""
AT_MOST_SECONDS = 60.0
"""Of real time for one day of one table; what takes longer is given up and said, and its files stay as they are."""
MEMORY = "1GB"
"""What does not fit lies on the disk meanwhile."""

ROWS = {
    # of two rows that begin with the same sample the one that goes on for longer, as busy as the busier; once sorted,
    # they stand beside each other, and looking no further than that takes no memory
    Table.ACTIVITY: """
    SELECT resource, gpu, time, until, step,
        CASE WHEN again THEN greatest(utilisation, next_utilisation) ELSE utilisation END AS utilisation,
        memory_used_mib, power_watts, tensor_active, dram_active,
        CASE WHEN again THEN served OR next_served ELSE served END AS served
    FROM (
        SELECT *, (resource, gpu, time, served IS NULL) = lead((resource, gpu, time, served IS NULL)) OVER () AS again,
            (resource, gpu, time, served IS NULL) = lag((resource, gpu, time, served IS NULL)) OVER () AS told,
            lead(utilisation) OVER () AS next_utilisation, lead(served) OVER () AS next_served
        FROM (
            SELECT * FROM parts ORDER BY resource, gpu, time, served IS NULL, until DESC NULLS LAST, utilisation DESC
        )
    ) WHERE told IS NOT TRUE
    """,
    # of two stretches at once the later counts; those that go on as they were are one
    Table.RESOURCES: """
    WITH told AS (
        SELECT resource, time, until, last_value(known IGNORE NULLS) OVER (
            PARTITION BY resource ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS known
        FROM parts
    ), cut AS (
        SELECT resource, time, least(until, lead(time) OVER (PARTITION BY resource ORDER BY time)) AS until, known
        FROM told
    ), change AS (
        SELECT *, known IS DISTINCT FROM lag(known) OVER stretches OR time > lag(until) OVER stretches AS new
        FROM cut WHERE until > time AND known IS NOT NULL WINDOW stretches AS (PARTITION BY resource ORDER BY time)
    ), run AS (
        SELECT *, sum(new::INTEGER) OVER (PARTITION BY resource ORDER BY time) AS number FROM change
    )
    SELECT resource, min(time) AS time, max(until) AS until, any_value(known) AS known
    FROM run GROUP BY resource, number ORDER BY resource, min(time)
    """,
}
"""What a compacted file holds, of `parts`, in the order of its table: every answer is as before."""


class Compactor:
    """Keeps one history small. It writes beside nobody: whoever calls holds the lease."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._whole: set[tuple[Table, date]] = set()
        """Days that need not be looked at again."""

    def tidy(
        self, now: datetime, *, keep: timedelta | None, enough: Callable[[], bool], still_ours: Callable[[], None]
    ) -> Counter[str]:
        """Delete what is older than it is kept, then compact, the newest days first, until it is `enough`. What cannot
        be done is said in the log and tried again the next time. `still_ours` raises when somebody else governs."""
        done: Counter[str] = Counter()
        days = self.history.days()
        for day in days if keep is not None else []:
            if day >= day_of((now - (keep or timedelta(0))).timestamp()):
                break
            if enough():
                return done
            still_ours()
            self._delete(day)
            done["days deleted"] += 1
        for day in reversed(days):
            for table in Table:
                if enough():
                    return done
                if (table, day) not in self._whole and self._exists(day, now, keep):
                    still_ours()
                    done["files compacted"] += self._tidied(table, day, now)
        return +done

    def _exists(self, day: date, now: datetime, keep: timedelta | None) -> bool:
        return keep is None or day >= day_of((now - keep).timestamp())

    def _tidied(self, table: Table, day: date, now: datetime) -> int:
        try:
            return self._one(table, day, now)
        except duckdb.InterruptException:
            log.error("a day of history takes too long to compact", table=table.value, day=day.isoformat())
        except Exception as error:  # noqa: BLE001 - a bucket may fail in its own ways; one day's fault is no other's
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            reason = reason.replace(self.history.location, self.history.shown)
            log.error("history cannot be compacted", table=table.value, day=day.isoformat(), reason=reason)
        return 0

    def _one(self, table: Table, day: date, now: datetime) -> int:
        """How many files became one."""
        self._clear(table, day)
        written = self.history.written(table, day)
        over = now.timestamp() >= midnight(day) + 86_400 + OVER_AFTER.total_seconds()
        if over:
            if [name_of(path) for path in written] != [WHOLE_DAY]:
                self._together(table, day, written, WHOLE_DAY)
            self._whole.add((table, day))
            return len(written) if len(written) > 1 else 0
        new = [path for path in written if not path.endswith((COMPACTED, f"/{WHOLE_DAY}"))]
        if len(new) < MANY:
            return 0
        stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self._together(table, day, new, f"{stamp}{COMPACTED}")
        return len(new)

    def _together(self, table: Table, day: date, paths: Sequence[str], name: str) -> None:
        """One file in the place of these, there and readable before any of them goes."""
        if not paths:
            return
        metadata = json.dumps([name_of(path) for path in paths if name_of(path) != name]).replace("'", "''")
        with tempfile.TemporaryDirectory(prefix="curfew-") as spill, _limited(self.history) as connection:
            connection.execute(f"SET temp_directory = '{spill}'")
            columns = ", ".join(f"{column}::{kind} AS {column}" for column, kind in table.columns.items())
            connection.execute(
                f"CREATE TEMP VIEW parts AS SELECT {columns} FROM read_parquet("
                f"[{', '.join(_quoted(self.history.readable(path)) for path in paths)}], "
                "union_by_name = true, hive_partitioning = false)"
            )
            copy(
                self.history,
                connection,
                ROWS[table],
                table,
                day,
                name,
                metadata=f", KV_METADATA {{{REPLACES}: '{metadata}'}}",
            )
        self._clear(table, day)

    def _clear(self, table: Table, day: date) -> None:
        """Delete what no longer counts, and what a process left that was ended while it wrote."""
        counts = {name_of(path) for path in self.history.parts(table, day)}
        for path in self.history.written(table, day):
            if name_of(path) not in counts:
                self.history.files.rm_file(path)
        if self.history.local:
            for path in self.history.files.glob(f"{self.history.folder(table, day)}/.*.tmp"):
                self.history.files.rm_file(path)

    def _delete(self, day: date) -> None:
        for table in Table:
            folder = self.history.folder(table, day)
            if self.history.files.exists(folder):
                self.history.files.rm(folder, recursive=True)
            self._whole.discard((table, day))


@contextmanager
def _limited(history: History) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that gives up after a while."""
    with history.connect(memory=MEMORY) as connection:
        alarm = threading.Timer(AT_MOST_SECONDS, connection.interrupt)
        alarm.daemon = True
        alarm.start()
        try:
            yield connection
        finally:
            alarm.cancel()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
