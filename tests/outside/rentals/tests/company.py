"""The rental company's API on loopback, to test against: machines at two sites, refusals in its own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PAGE = 1
"""Machines to a page: every list has several."""
SITES = ("berlin", "hanoi")
TYPES = {
    "l4": ("NVIDIA L4", 1, 23_034),
    "h100x8": ("NVIDIA H100 80GB", 8, 81_559),
    "mi300x": ("AMD Instinct MI300X", 1, 196_608),
}
CHARGES = [
    {"type": "l4", "plan": "hourly", "hour": "0.79"},
    {"type": "l4", "plan": "spot", "hour": "0.31"},
    {"type": "h100x8", "plan": "hourly", "hour": "21.60"},
]
"""Of the new mi300x no price is told yet."""


@dataclass
class Machine:
    """One of the company's."""

    id: str
    site: str = SITES[0]
    name: str = "trainer"
    type: str = "l4"
    plan: str = "hourly"
    state: str = "running"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=2))
    started_at: datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    locked: bool = False
    pool: str | None = None
    scratch_gb: int = 0

    def told(self) -> dict[str, Any]:
        gpu, gpus, memory = TYPES.get(self.type, ("", 0, 0))
        began = self.started_at or self.created_at
        return asdict(self) | {
            "gpu": gpu,
            "gpus": gpus,
            "gpu_memory_mib": memory,
            "created_at": self.created_at.isoformat(),
            "started_at": began.isoformat() if self.state in ("booting", "running") else None,
        }


@dataclass(frozen=True)
class Call:
    """One that came in."""

    method: str
    path: str
    query: Mapping[str, str]
    key: str | None
    """What tells that it is the same call again."""
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """And what is said to it."""

    status: int
    body: Mapping[str, Any]


def refused(status: int, code: str, message: str, **more: str) -> Answer:
    return Answer(status, {"code": code, "message": message, **more})


Rule = Callable[[Call], Answer | None]
"""What is said before the company itself is asked; an answer of status 0 is none."""
SILENCE = Answer(0, {})
NO_SUCH_MACHINE = refused(404, "no_such_machine", "there is no such machine")


class Company:
    """Its machines, and what is asked of it."""

    def __init__(self, *, account: str = "acct-4711", token: str = "a-token-of-the-tests") -> None:
        self.account, self.token = account, token
        self.machines: dict[str, Machine] = {}
        self.usage: dict[tuple[str, int], list[tuple[int, float | None]]] = {}
        """By machine and GPU."""
        self.calls: list[Call] = []
        self.url = ""
        self._rules: list[Rule] = []
        self._answered: dict[tuple[str, str], Answer] = {}
        self._lock = Lock()
        self._numbers = iter(range(1001, 10_000))

    # what tests arrange

    def rent(self, **what: Any) -> Machine:
        machine = Machine(id=f"m-{next(self._numbers)}", **what)
        self.machines[machine.id] = machine
        return machine

    def settle(self) -> None:
        """What is under way comes to its end."""
        ends = {"stopping": "stopped", "booting": "running"}
        for machine in self.machines.values():
            machine.state = ends.get(machine.state, machine.state)

    @contextmanager
    def within(self, rule: Rule) -> Iterator[None]:
        self._rules.append(rule)
        try:
            yield
        finally:
            self._rules.remove(rule)

    def site_of(self, call: Call) -> str | None:
        machine = self.machines.get(call.path.removeprefix("/v1/machines/").partition("/")[0])
        return machine.site if machine else call.query.get("site")

    @contextmanager
    def serving(self) -> Iterator[Company]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    # what the API says

    def answer(self, call: Call, token: str | None) -> Answer:
        with self._lock:
            self.calls.append(call)
            for rule in self._rules:
                if (said := rule(call)) is not None:
                    return said
            if token != f"Bearer {self.token}":
                return refused(401, "unauthenticated", "this token is not known")
            if call.method == "GET":
                return self._told(call)
            assert call.key is not None, "an act without an Idempotency-Key"
            once = call.key, call.path
            if once not in self._answered:
                self._answered[once] = self._done(call)
            return self._answered[once]

    def _told(self, call: Call) -> Answer:
        if call.path == "/v1/account":
            return Answer(200, {"id": self.account, "sites": SITES})
        if call.path == "/v1/prices":
            return Answer(200, {"since": "2026-11-01", "currency": "EUR", "charges": CHARGES})
        if call.path == "/v1/usage":
            since, until = int(call.query["since"]), int(call.query["until"])
            return Answer(
                200,
                {
                    "gpus": [
                        {"machine": id, "gpu": gpu, "samples": [one for one in samples if since <= one[0] < until]}
                        for (id, gpu), samples in self.usage.items()
                        if id in self.machines and self.machines[id].site == call.query["site"]
                    ]
                },
            )
        if call.path == "/v1/machines":
            start = int(call.query["page"] or 0)
            there = [machine.told() for machine in self.machines.values() if machine.site == call.query["site"]]
            more = str(start + PAGE) if start + PAGE < len(there) else None
            return Answer(200, {"machines": there[start : start + PAGE], "next": more})
        machine = self.machines.get(call.path.removeprefix("/v1/machines/"))
        return Answer(200, machine.told()) if machine else NO_SUCH_MACHINE

    def _done(self, call: Call) -> Answer:
        id, _, what = call.path.removeprefix("/v1/machines/").partition("/")
        machine = self.machines.get(id)
        if machine is None:
            return NO_SUCH_MACHINE
        if what == "stop" and machine.locked:
            return refused(409, "locked", f"{machine.name} is locked")
        if what == "start" and machine.state == "stopping":
            return refused(409, "busy", f"{machine.name} is still stopping")
        if what == "stop" and machine.state in ("booting", "running"):
            machine.state = "stopping"
        elif what == "start" and machine.state == "stopped":
            machine.state, machine.started_at = "booting", datetime.now(UTC)
        return Answer(202, machine.told())


def _handler(company: Company) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer goes out in one piece

        def _answer(self) -> None:
            path, query = urlsplit(self.path).path, urlsplit(self.path).query
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            call = Call(
                method=self.command,
                path=path,
                query=dict(parse_qsl(query, keep_blank_values=True)),
                key=self.headers.get("Idempotency-Key"),
                note=body.get("note", ""),
            )
            answer = company.answer(call, self.headers.get("Authorization"))
            if answer is SILENCE:
                self.close_connection = True
                return
            text = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Handler
