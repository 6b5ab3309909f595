"""Curfew as a real process of its own, started, spoken to and killed as its users and its fate would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.databases import free_port

TOKEN = "an-admin-token-for-tests"
STARTS_WITHIN = 60.0
CYCLE_WITHIN = 60.0


class Curfew:
    """One service process; `start` again after `kill` and it is the same installation."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "service.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "CURFEW_HOME": str(folder / "home"),
            "CURFEW_ADMIN_TOKEN": TOKEN,
            "CURFEW_PUBLIC_URL": self.url,
            "CURFEW_CYCLE_SECONDS": "0",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.http = self._client()

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)

    def start(self) -> None:
        """Until it is ready to answer."""
        self.http.close()  # connections to an earlier process died with it
        self.http = self._client()
        curfew = [str(Path(sys.executable).parent / "curfew"), "serve", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                curfew, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the service ended at once:\n{self.log.read_text()}"
            try:
                if self.http.get("/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the service did not start:\n{self.log.read_text()}")

    def kill(self) -> None:
        """`kill -9`, as a machine that loses power would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> None:
        """Politely, at the end."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(30)

    def ended(self, *, within: float) -> int:
        """Its exit code."""
        assert self._process is not None
        return self._process.wait(within)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(f"/api/v1{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.http.post(f"/api/v1{path}", json=body)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    def apply(self, yaml: str) -> Any:
        headers = {"Content-Type": "application/yaml"}
        answer = self.http.post("/api/v1/apply", params={"set": "test"}, content=yaml.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cycle(self) -> dict[str, Any]:
        """Run one and wait for its report."""
        cycle_id = self.post("/cycles")["id"]
        deadline = time.monotonic() + CYCLE_WITHIN
        while time.monotonic() < deadline:
            for cycle in self.get("/cycles", limit=10)["items"]:
                if cycle["id"] == cycle_id and cycle["finished_at"] is not None:
                    found: dict[str, Any] = cycle
                    return found
            time.sleep(0.05)
        raise AssertionError(f"the cycle did not finish:\n{self.log.read_text()}")

    def resources(self, **query: Any) -> dict[str, dict[str, Any]]:
        """By the cloud's own id."""
        return {item["external_id"]: item for item in self.get("/resources", limit=500, **query)["items"]}

    def findings(self, **query: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/findings", limit=500, **query)["items"]
        return found


@contextmanager
def curfew(folder: Path, **environment: str) -> Iterator[Curfew]:
    """A running service, ended whatever happens."""
    service = Curfew(folder, environment)
    service.start()
    try:
        yield service
    finally:
        service.stop()
        service.http.close()
