"""What the tests of whole cycles share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from service.clock import SetClock
from service.store import lease
from tests.spine.company import Company, small_company


@pytest.fixture
def small(sqlite_url: str, clock: SetClock) -> Iterator[Company]:
    """The company on SQLite alone."""
    with small_company(sqlite_url, clock) as made:
        yield made


@pytest.fixture
def let_leases_expire(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Each call lets ten minutes pass for leases, which are counted in real time."""
    passed = timedelta(0)
    monkeypatch.setattr(lease, "real_now", lambda: datetime.now(UTC) + passed)

    def expire() -> None:
        nonlocal passed
        passed += timedelta(minutes=10)

    return expire
