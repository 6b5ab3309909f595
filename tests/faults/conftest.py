"""Real parts on loopback: moto behind a proxy that fails on request, a mail server; and no waiting between retries."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import botocore.loaders
import pytest

from tests.faults.installation import Installation, installed
from tests.notify.conftest import Sink, sink
from tests.providers.aws.fleet import ENVIRONMENT, ENVIRONMENT_TO_CLEAR, moto_endpoint, reset
from tests.providers.aws.front import Front

__all__ = ["sink"]


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that open nothing, whatever the machine has."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ENVIRONMENT_TO_CLEAR:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    without = SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic)
    monkeypatch.setattr("botocore.endpoint.time", without)
    monkeypatch.setattr("providers.aws.pace.time", without)


@pytest.fixture(scope="session", autouse=True)
def api_models() -> Iterator[None]:
    """AWS's API descriptions are read once, not anew for every provider."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.loaders.create_loader", lambda search_path_string=None: loader)
        yield


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    with moto_endpoint() as endpoint:
        yield endpoint


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
