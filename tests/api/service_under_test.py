"""A whole service on a database of its own, spoken to over HTTP; builders for the rows a cycle would have written."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from fastapi import FastAPI
from sqlmodel import SQLModel

from service.app import create_app
from service.clock import SetClock
from service.runtime import Runtime, compose
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Action, Audit, Cycle, Finding, Resource

ADMIN = "an-admin-token-for-tests"


@dataclass
class Client:
    """Speaks to the application with one token. Every answer must be one that OpenAPI tells of."""

    app: FastAPI
    token: str | None = ADMIN
    address: str = "192.0.2.1"
    forgiving: bool = False
    """Answers 500 as a server would, instead of raising what went wrong."""

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def put(self, path: str, **more: Any) -> httpx.Response:
        return self.request("PUT", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        return self.request("DELETE", path, **more)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(
                app=self.app, client=(self.address, 40000), raise_app_exceptions=not self.forgiving
            )
            async with httpx.AsyncClient(transport=transport, base_url="http://curfew.test") as client:
                return await client.request(method, path, headers=headers, **more)

        response = asyncio.run(send())
        if not self.forgiving:
            self._is_documented(method, path, response)
        return response

    def _is_documented(self, method: str, path: str, response: httpx.Response) -> None:
        plain = path.partition("?")[0]
        for template, operations in _documented_paths().items():
            operation = operations.get(method.lower())
            if operation is None or not re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), plain):
                continue
            documented = operation["responses"]
            assert str(response.status_code) in documented, f"{method} {template} → {response.status_code}"
            media = response.headers.get("content-type", "").partition(";")[0]
            content = documented[str(response.status_code)].get("content", {"": {}})
            assert media in content, f"{method} {template} → {response.status_code} {media}"
            return


@cache
def _documented_paths() -> dict[str, Any]:
    """The same for every service, and slow to build."""
    with TemporaryDirectory() as home:
        rt = compose(Settings(home=Path(home), secret_key="s" * 32, database_url="sqlite://"))  # type: ignore[arg-type]
        paths: dict[str, Any] = create_app(rt).openapi()["paths"]
        rt.database.close()
        return paths


@dataclass
class Api:
    """What a test holds in its hands."""

    rt: Runtime
    app: FastAPI
    clock: SetClock
    admin: Client
    cycles_asked_for: list[str] = field(default_factory=list)

    def holder(self, name: str, role: str, *projects: str) -> Client:
        """A client with a new token of this role."""
        body = {"role": role, "projects": list(projects)}
        answer = self.admin.put(f"/api/v1/tokens/{name}", json=body)
        assert answer.status_code == 201, answer.text
        return Client(self.app, token=answer.json()["token"])

    def nobody(self) -> Client:
        return Client(self.app, token=None)

    def store(self, *rows: SQLModel) -> None:
        with self.rt.database.transaction() as session:
            session.add_all(rows)

    def resource(self, id: str = "trainer", **more: Any) -> str:
        now = self.clock.now()
        values: dict[str, Any] = {
            "id": id,
            "source": "research",
            "provider": "aws",
            "account": "123456789012",
            "region": "us-east-1",
            "kind": "instance",
            "external_id": f"i-{id}",
            "incarnation": f"i-{id}",
            "name": id,
            "sku": "p5.48xlarge",
            "gpu_model": "H100",
            "gpu_count": 8,
            "gpu_share": 1.0,
            "capacity_type": "on_demand",
            "state": "running",
            "state_since": now - timedelta(hours=5),
            "project": "vision",
            "rate_micros": 55_040_000,
            "currency": "USD",
            "first_seen": now - timedelta(days=1),
        }
        self.store(Resource(**(values | more)))
        return id

    def finding(self, id: str = "f1", **more: Any) -> str:
        values: dict[str, Any] = {
            "id": id,
            "policy": "idle-gpus",
            "policy_version": 1,
            "resource_id": "trainer",
            "project": "vision",
            "status": "warned",
            "status_reason": "warned",
            "reason": "8 GPUs were idle for 45m",
            "remedy": "stop",
            "opened_at": self.clock.now(),
            "warned_at": self.clock.now(),
            "due_at": self.clock.now() + timedelta(minutes=30),
            "rate_micros": 55_040_000,
            "currency": "USD",
        }
        self.store(Finding(**(values | more)))
        return id

    def action(self, id: str = "a1", **more: Any) -> str:
        now = self.clock.now()
        values: dict[str, Any] = {
            "id": id,
            "resource_id": "trainer",
            "source": "research",
            "project": "vision",
            "policy": "idle-gpus",
            "verb": "stop",
            "status": "verified",
            "reason": "idle",
            "requested_by": "curfew",
            "lease_token": 1,
            "intended_at": now,
            "taken_at": now,
            "verified_at": now,
            "abandon_at": now + timedelta(minutes=30),
            "rate_micros": 55_040_000,
            "currency": "USD",
        }
        self.store(Action(**(values | more)))
        return id

    def cycle(self, id: str, at: datetime) -> None:
        self.store(Cycle(id=id, started_at=at, finished_at=at, requested_by="schedule"))

    def audit_line(self, **more: Any) -> None:
        values: dict[str, Any] = {"at": self.clock.now(), "actor": "curfew", "verb": "stop", "object": "action/a1"}
        self.store(Audit(**(values | more)))


@contextmanager
def service_on(database: Database, clock: SetClock, home: Path, **settings: Any) -> Iterator[Api]:
    """A service that governs nothing by itself: cycles are only noted."""
    given = {"home": home, "admin_token": ADMIN, "secret_key": "s" * 32, "cycle_seconds": 60} | settings
    rt = compose(Settings(**given), clock=clock, database=database)
    app = create_app(rt)
    api = Api(rt=rt, app=app, clock=clock, admin=Client(app))

    def ask(by: str) -> str:
        api.cycles_asked_for.append(by)
        return "cycle-1"

    rt.ask_for_cycle = ask
    yield api
