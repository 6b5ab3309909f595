"""Opens the database and hands out transactions: one per request or job step, opened and committed at the edge.

Code inside a transaction never commits, and no cloud is called while one is open. SQLite runs in WAL mode and takes
its write lock at BEGIN, so that a compare-and-set means the same on both databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from alembic.config import Config
from sqlalchemy import BigInteger, ColumnElement, Engine, create_engine, event, literal, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session, SQLModel

from alembic import command
from service.money import SECONDS_PER_HOUR

log = structlog.get_logger()
_SAID = "said"


class Database:
    """An engine and the way to open transactions on it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.kind = make_url(url).get_backend_name()
        """`sqlite` or `postgresql`."""
        if self.kind not in ("sqlite", "postgresql"):
            raise ValueError(
                f"CURFEW_DATABASE_URL: Curfew does not speak to {self.kind}; "
                "write postgresql://user:password@host/name, or nothing for SQLite in CURFEW_HOME"
            )
        self.sqlite = self.kind == "sqlite"
        path = make_url(url).database
        if self.sqlite and path and path != ":memory:":
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            Path(path).touch(mode=0o600)  # its write-ahead log takes after it
            self._file: tuple[Path, int] | None = (Path(path), Path(path).stat().st_ino)
        else:
            self._file = None
        self.engine: Engine = create_engine(url, pool_pre_ping=not self.sqlite, **_pool(sqlite=self.sqlite))
        if self.sqlite:
            event.listen(self.engine, "connect", _on_sqlite_connect)
            event.listen(self.engine, "begin", _begin_sqlite)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Read and write; commits at the end, rolls back on any exception."""
        self._still_there()
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            for event, about in session.info.get(_SAID, ()):
                log.info(event, **about)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Read only; nothing written here survives."""
        self._still_there()
        engine = self.engine.execution_options(curfew_reading=True)
        with Session(engine, expire_on_commit=False) as session:
            yield session
            session.expunge_all()  # what was read stays readable after the transaction
            session.rollback()

    def upgrade(self) -> None:
        """Bring the schema to the newest migration."""
        command.upgrade(migrations_config(self.url), "head")

    def check_writable(self) -> None:
        """Raises what `trouble_of` says in a sentence when nothing could be kept here."""
        with self.transaction() as session:
            session.execute(text("UPDATE lease SET token = token WHERE false"))

    def close(self) -> None:
        self.engine.dispose()

    def _still_there(self) -> None:
        """SQLite goes on without a word when its file was deleted: what it writes then is lost."""
        if self._file is None:
            return
        path, opened = self._file
        try:
            same = path.stat().st_ino == opened
        except OSError:
            same = False
        if not same:
            raise DatabaseGone(f"the database file {path} is gone or was replaced; put it right and start Curfew again")


class DatabaseGone(Exception):
    """The file that was opened is not there any more."""


TROUBLES = {
    "full": "the database cannot be written: its disk is full",
    "read-only": "the database cannot be written: it is read-only",
    "not a database": "the database cannot be read: its file is not a database, or is damaged",
    "no schema": "the database has not this version's schema; `curfew db upgrade` brings it there",
    "locked": "the database is locked by another program",
    "silent": "the database does not answer",
}
_BY_WORDS = {
    "is full": "full",
    "readonly database": "read-only",
    "not a database": "not a database",
    "malformed": "not a database",
    "no such table": "no schema",
    "no such column": "no schema",
    "is locked": "locked",
}
"""How SQLite says it."""
_BY_STATE = {"53100": "full", "25006": "read-only", "42P01": "no schema", "42703": "no schema"}
"""How PostgreSQL says it."""


def trouble_of(error: BaseException) -> str | None:
    """What is wrong with the database, in a sentence without secrets; None when the error is not about that."""
    if isinstance(error, DatabaseGone):
        return str(error)
    if not isinstance(error, DBAPIError):
        return None
    said = str(error.orig)
    word = _BY_STATE.get(getattr(error.orig, "sqlstate", None) or "")
    word = word or next((trouble for words, trouble in _BY_WORDS.items() if words in said), None)
    if word is None and isinstance(error, OperationalError):
        word = "silent"
    return None if word is None else TROUBLES[word]


def say_once_committed(session: Session, event: str, **about: Any) -> None:
    """A line for the service's log: of what is rolled back, nothing is said."""
    session.info.setdefault(_SAID, []).append((event, about))


# --- what both databases can do, said for each -----------------------------------------------------------------------


class epoch(FunctionElement[int]):  # noqa: N801 - it stands for a function of the database
    """A moment as whole Unix seconds."""

    type = BigInteger()
    inherit_cache = True


@compiles(epoch, "sqlite")
def _sqlite_epoch(element: epoch, compiler: SQLCompiler, **more: Any) -> str:
    return f"unixepoch({compiler.process(element.clauses, **more)})"


@compiles(epoch, "postgresql")
def _postgresql_epoch(element: epoch, compiler: SQLCompiler, **more: Any) -> str:
    return f"CAST(floor(extract(epoch FROM {compiler.process(element.clauses, **more)})) AS BIGINT)"


def whole(at: datetime) -> ColumnElement[int]:
    """A known moment as `epoch` counts."""
    return literal(int(at.timestamp()), BigInteger())


def micros_after(rate: Any, seconds: Any, *, rest: Any = 0) -> ColumnElement[int]:
    """Whole micro-units that a rate makes in so many seconds, from a rest on. What an hour has in whole ones is counted
    apart, so that years of the dearest machine in the smallest currency fit 64 bits.
    """
    micros: ColumnElement[int] = (rate // SECONDS_PER_HOUR) * seconds + (
        rest + (rate % SECONDS_PER_HOUR) * seconds
    ) // SECONDS_PER_HOUR
    return micros


def write(session: Session, table: type[SQLModel], rows: list[dict[str, Any]], *, key: Sequence[str]) -> None:
    """Whole rows at once: each a new one, or in the place of the one with its key."""
    if rows:
        statement = _insert(session, table)
        others = {name: statement.excluded[name] for name in rows[0] if name not in key}
        session.connection().execute(statement.on_conflict_do_update(index_elements=key, set_=others), rows)


def add_up(
    session: Session, table: type[SQLModel], to: str, sums: Mapping[tuple[Any, ...], int], *, key: Sequence[str]
) -> None:
    """Add each to the column `to` of the row with that key, which is made where it is not there yet."""
    if sums:
        statement = _insert(session, table)
        added = {to: getattr(table, to) + statement.excluded[to]}
        rows = [{**dict(zip(key, values, strict=True)), to: amount} for values, amount in sums.items()]
        session.connection().execute(statement.on_conflict_do_update(index_elements=key, set_=added), rows)


def _insert(session: Session, table: type[SQLModel]) -> Any:
    """Both databases have the same `ON CONFLICT`, SQLAlchemy has one for each."""
    return (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(table)


def migrations_config(url: str) -> Config:
    """Alembic's configuration for a database, from a checkout or from an installed wheel."""
    packaged = Path(__file__).parent / "migrations"
    folder = packaged if packaged.exists() else Path(__file__).parents[2] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["url"] = url
    return config


CONNECT_SECONDS = 10
SILENT_SECONDS = 30
"""How long a PostgreSQL server may say nothing, while it is connected to and later: without these a network that
swallows what is sent would hold a cycle for a quarter of an hour, and one that loses the answer for two hours.
"""


def _pool(*, sqlite: bool) -> dict[str, Any]:
    if sqlite:
        return {"connect_args": {"check_same_thread": False, "timeout": 30}}
    patience = {
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": 1000 * SILENT_SECONDS,
        "keepalives_idle": SILENT_SECONDS // 3,
        "keepalives_interval": SILENT_SECONDS // 3,
        "keepalives_count": 2,
    }
    return {"pool_size": 10, "connect_args": patience}


def _on_sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    reading = connection.get_execution_options().get("curfew_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
