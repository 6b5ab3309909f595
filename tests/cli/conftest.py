"""A service on a port of its own, and the command run against it as in a terminal of 80 columns."""

from __future__ import annotations

import io
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
import uvicorn

from service import cli
from service.clock import SetClock
from service.store.database import Database
from tests.api.service_under_test import ADMIN, Api, service_on


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def api(sqlite_url: str, clock: SetClock, tmp_path: Path) -> Iterator[Api]:
    database = Database(sqlite_url)
    with service_on(database, clock, tmp_path / "home") as api:
        yield api
    database.close()


@pytest.fixture
def served(api: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The service over real HTTP, on a port the system chose."""
    server = uvicorn.Server(
        uvicorn.Config(api.app, host="127.0.0.1", port=0, log_config=None, lifespan="off", ws="none", http="h11")
    )
    listening = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    monkeypatch.setenv("CURFEW_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.setenv("CURFEW_TOKEN", ADMIN)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(io.StringIO()))  # the service's log is not ours
    yield api
    structlog.reset_defaults()
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def curfew(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `curfew …`."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setenv("NO_PROXY", "*")

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["curfew", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run
