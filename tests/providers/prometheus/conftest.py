"""Prometheus servers filled by the test that asks for them, alone or behind a proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.providers.prometheus.front import Front
from tests.providers.prometheus.server import Samples, fill, running

Serve = Callable[..., str]
Fronted = Callable[..., Front]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached directly, whatever the machine has."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server that has these series and no others."""
    with ExitStack() as stack:

        def serve(series: Mapping[str, Samples], *flags: str) -> str:
            fill(tmp_path, series)
            return stack.enter_context(running(tmp_path, *flags))

        yield serve


@pytest.fixture
def fronted(prometheus: Serve) -> Iterator[Fronted]:
    """The same behind a proxy."""
    with ExitStack() as stack:

        def serve(series: Mapping[str, Samples], *flags: str) -> Front:
            url = prometheus(series, *flags)
            return stack.enter_context(Front(lambda: url).serving())

        yield serve


@pytest.fixture
def scripted() -> Iterator[Front]:
    """A proxy with nothing behind it: every reply is the test's own."""

    def nothing() -> str:
        raise AssertionError("the test gave no reply to this call")

    with Front(nothing).serving() as front:
        yield front
