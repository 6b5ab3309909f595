"""Real databases for tests: a migrated SQLite file, and a PostgreSQL server of the test run's own on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from service.store.database import Database


def free_port() -> int:
    """A port the operating system has free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A running server; each test gets a database copied from one migrated template."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def create(self, *, template: str | None = None) -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        suffix = f' TEMPLATE "{template}"' if template else ""
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"{suffix}')
        return name

    def drop(self, name: str) -> None:
        with psycopg.connect(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def postgres_binaries() -> Path:
    """Where initdb lives. Missing is an error, never a silent skip."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").exists() else []
    path = shutil.which("initdb") or (str(found[-1]) if found else None)
    if path is None:
        raise RuntimeError("the tests need PostgreSQL's server programs (initdb, pg_ctl): apt-get install postgresql")
    return Path(path).parent


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A fresh server in a temporary folder; PostgreSQL refuses root, so root hands it to `postgres`."""
    binaries = postgres_binaries()
    folder = Path(tempfile.mkdtemp(prefix="curfew-pg-", dir="/tmp"))
    as_user: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data, port = folder / "data", free_port()
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": "/tmp"}
    try:
        subprocess.run(
            [*as_user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8"],
            **run,
        )
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        control = [*as_user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], **run)
        try:
            yield Postgres(port)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def migrated_sqlite(folder: Path) -> Path:
    """A SQLite file with the newest schema."""
    path = folder / "template.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()  # the last connection to close folds the write-ahead log into the file
    return path
