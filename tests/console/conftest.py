"""A small installation with its pages, and builders for what stands in its tables."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Cookies, Response
from sqlmodel import Session, SQLModel, select

from service.app import create_app
from service.clock import SetClock
from service.notify.links import LinkVerb, Several
from service.notify.wording import zone_of
from service.runtime import Runtime, compose
from service.settings import Settings
from service.store import tables, tokens
from service.store.database import Database

ADMIN = "an-admin-token-for-tests"
URL = "https://curfew.example.org"
HANOI = "Asia/Ho_Chi_Minh"


@dataclass
class Browser:
    """Speaks to the application over HTTP and keeps its cookies; follows no redirect."""

    app: FastAPI
    cookies: Cookies = field(default_factory=Cookies)

    def get(self, path: str) -> Response:
        return self.request("GET", path)

    def head(self, path: str) -> Response:
        return self.request("HEAD", path)

    def post(self, path: str, **more: Any) -> Response:
        return self.request("POST", path, **more)

    def request(self, method: str, path: str, **more: Any) -> Response:
        async def send() -> Response:
            transport = ASGITransport(app=self.app, client=("192.0.2.1", 40000))
            async with AsyncClient(transport=transport, base_url=URL, cookies=self.cookies) as client:
                response = await client.request(method, path, **more)
                self.cookies = client.cookies
                return response

        return asyncio.run(send())


@dataclass
class House:
    """An installation under test."""

    runtime: Runtime
    clock: SetClock
    client: Browser
    made: int = field(default=0)

    def add(self, row: SQLModel) -> Any:
        with self.runtime.database.transaction() as session:
            session.add(row)
        return row

    def read(self, look: Callable[[Session], Any]) -> Any:
        with self.runtime.database.reading() as session:
            return look(session)

    def rows(self, table: type[Any]) -> list[Any]:
        return list(self.read(lambda session: session.exec(select(table)).all()))

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables, to say that nothing changed."""
        names = [name for name in dir(tables) if isinstance(getattr(tables, name), type)]
        kinds = [getattr(tables, name) for name in names if hasattr(getattr(tables, name), "__tablename__")]
        return {
            kind.__tablename__: sorted((row.model_dump(mode="json") for row in self.rows(kind)), key=repr)
            for kind in kinds
            if kind.__module__ == tables.__name__ and kind is not SQLModel
        }

    def resource(self, name: str = "train-7", **more: Any) -> tables.Resource:
        self.made += 1
        now = self.clock.now()
        values: dict[str, Any] = {
            "id": f"r{self.made}",
            "source": "research",
            "provider": "aws",
            "account": "123456789012",
            "region": "us-east-1",
            "kind": "instance",
            "external_id": f"i-{self.made}",
            "incarnation": f"i-{self.made}",
            "name": name,
            "sku": "p5.48xlarge",
            "gpu_model": "H100",
            "gpu_count": 8,
            "gpu_share": 1.0,
            "capacity_type": "on_demand",
            "state": "running",
            "state_since": now - timedelta(hours=5),
            "project": "vision",
            "owner": "lan@example.org",
            "rate_micros": 98_320_000,
            "running_rate_micros": 98_320_000,
            "currency": "USD",
            "first_seen": now - timedelta(days=1),
        }
        made: tables.Resource = self.add(tables.Resource(**(values | more)))
        return made

    def finding(self, resource: tables.Resource, **more: Any) -> tables.Finding:
        self.made += 1
        values: dict[str, Any] = {
            "id": f"f{self.made}",
            "policy": "idle-gpus",
            "policy_version": 1,
            "resource_id": resource.id,
            "project": resource.project,
            "status": "warned",
            "status_reason": "Warned.",
            "reason": "All 8 GPUs have been idle for 52 minutes.",
            "evidence": {"idle_seconds": 3120, "max_utilisation": 0.013, "owner": None},
            "remedy": "stop",
            "opened_at": self.clock.now() - timedelta(minutes=10),
            "warned_at": self.clock.now() - timedelta(minutes=10),
            "due_at": self.clock.now() + timedelta(minutes=20),
            "rate_micros": resource.running_rate_micros,
            "currency": resource.currency,
        }
        made: tables.Finding = self.add(tables.Finding(**(values | more)))
        return made

    def action(self, resource: tables.Resource, finding: tables.Finding | None = None, **more: Any) -> tables.Action:
        self.made += 1
        now = self.clock.now()
        values: dict[str, Any] = {
            "id": f"a{self.made}",
            "finding_id": finding.id if finding else None,
            "resource_id": resource.id,
            "source": resource.source,
            "project": resource.project,
            "policy": "idle-gpus",
            "verb": "stop",
            "status": "verified",
            "reason": "All 8 GPUs have been idle for 52 minutes.",
            "requested_by": "curfew",
            "lease_token": 1,
            "intended_at": now - timedelta(hours=2),
            "taken_at": now - timedelta(hours=2),
            "verified_at": now - timedelta(hours=2),
            "abandon_at": now,
            "rate_micros": 98_320_000,
            "currency": "USD",
        }
        made: tables.Action = self.add(tables.Action(**(values | more)))
        return made

    def document(self, kind: str, name: str, **body: Any) -> None:
        row = tables.Document(
            kind=kind, name=name, version=1, body={"name": name, **body}, updated_at=self.clock.now(), updated_by="test"
        )
        with self.runtime.database.transaction() as session:
            session.merge(row)

    def token(self, name: str, role: str, *projects: str) -> str:
        with self.runtime.database.transaction() as session:
            _, raw = tokens.put(
                session,
                name,
                role=role,
                projects=projects,
                expires_at=self.clock.now() + timedelta(days=1),
                rotate=False,
                by="test",
                now=self.clock.now(),
            )
        assert raw is not None
        return raw

    def log_in(self, token: str = ADMIN) -> Response:
        return self.client.post("/login", data={"token": token})

    def press(self, path: str, **fields: str) -> Response:
        """A button of a page, with that page's own CSRF field."""
        return self.client.post(path, data={"csrf": self.csrf(), **fields})

    def csrf(self) -> str:
        """What the forms of this session carry."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.client.get("/").text)
        assert found is not None, "nobody is logged in"
        return found[1]

    def link_to_all(self, *findings: tables.Finding, recipient: str = "lan@example.org", **more: Any) -> str:
        """The path of a digest's one link."""
        named = tuple((finding.id, finding.episode) for finding in findings)
        expires = self.clock.now() + timedelta(days=3)
        several = Several(findings=named, recipient=recipient, expires=expires, **more)
        return self.runtime.links.url_of_several(several).removeprefix(URL)

    def link(self, finding: tables.Finding, verb: LinkVerb, recipient: str = "lan@example.org") -> str:
        """The path of a signed link, as a message would carry it."""
        now = self.clock.now()
        made = self.runtime.links.all_for(
            finding.id, finding.episode, recipient, now, zone_of(HANOI), now + timedelta(days=3)
        )
        return made[verb].removeprefix(URL)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(response: Response) -> str:
    """What a reader sees, on one line."""
    page = _Text()
    page.feed(response.text)
    return re.sub(r"\s+([.,:;]|/h)", r"\1", re.sub(r"\s+", " ", " ".join(page.words)))


def house_of(database: Database, clock: SetClock, **settings: Any) -> House:
    chosen = {"secret_key": "s" * 32, "public_url": URL, "admin_token": ADMIN}
    runtime = compose(Settings(**{**chosen, **settings}), clock=clock, database=database)
    made = House(runtime=runtime, clock=clock, client=Browser(create_app(runtime)))
    made.document("project", "vision", timezone=HANOI, owners=["lead@example.org"])
    return made


@pytest.fixture
def build(sqlite_url: str, clock: SetClock) -> Iterator[Callable[..., House]]:
    """Makes an installation with other settings."""
    database = Database(sqlite_url)
    yield lambda **settings: house_of(database, clock, **settings)
    database.close()


@pytest.fixture
def house(build: Callable[..., House]) -> House:
    return build()
