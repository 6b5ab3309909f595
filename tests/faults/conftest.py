"""Real parts on loopback: moto behind a proxy that fails on request, a mail server; and no waiting between retries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.faults.installation import Installation, installed
from tests.notify.conftest import Sink, sink
from tests.providers.aws.conftest import api_models, aws_environment, moto_server
from tests.providers.aws.fleet import reset
from tests.providers.aws.front import Front

__all__ = ["api_models", "aws_environment", "moto_server", "sink"]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    without = SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic)
    monkeypatch.setattr("botocore.endpoint.time", without)
    monkeypatch.setattr("providers.pace.time", without)


@pytest.fixture
def front(moto_server: str) -> Iterator[Front]:
    """An empty AWS account behind a proxy."""
    reset(moto_server)
    with Front(moto_server).serving() as front:
        yield front


@pytest.fixture
def here(sqlite_url: str, front: Front, sink: Sink, no_pauses: None) -> Iterator[Installation]:
    """Curfew on SQLite, governing that account."""
    with installed(sqlite_url, front, sink) as made:
        yield made
