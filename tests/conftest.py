"""Fixtures every test may use: databases of both kinds, migrated; a clock that stands where it was set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from service.clock import SetClock
from service.store.database import Database
from tests.databases import Postgres, migrated_sqlite, running_postgres

settings.register_profile(
    "curfew",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("curfew")

os.environ["CURFEW_HISTORY"] = "off"  # else every test would keep what it saw in the folder it was started from

MONDAY = datetime(2026, 11, 16, 9, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> SetClock:
    """Monday, 09:00 UTC."""
    return SetClock(MONDAY)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return migrated_sqlite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: Postgres) -> str:
    name = postgres.create()
    database = Database(postgres.url(name))
    database.upgrade()
    database.close()
    return name


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    path = tmp_path / "curfew.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of this test's own, once of each kind."""
    if request.param == "sqlite":
        opened = Database(request.getfixturevalue("sqlite_url"))
        yield opened
        opened.close()
        return
    server: Postgres = request.getfixturevalue("postgres")
    name = server.create(template=request.getfixturevalue("postgres_template"))
    opened = Database(server.url(name))
    yield opened
    opened.close()
    server.drop(name)
