"""Services for the tests of the API: `api` on SQLite; `api_everywhere` on both databases, for what SQL decides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.clock import SetClock
from service.store.database import Database
from tests.api.service_under_test import Api, service_on


@pytest.fixture
def api(sqlite_url: str, clock: SetClock, tmp_path: Path) -> Iterator[Api]:
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path) as api:
        yield api
    database.close()


@pytest.fixture
def api_everywhere(database: Database, clock: SetClock, tmp_path: Path) -> Iterator[Api]:
    with service_on(database, clock, tmp_path) as api:
        yield api
