"""A proxy before Prometheus that keeps what was asked, and fails or answers by itself on request."""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request."""

    path: str
    query: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]
    length: int

    @property
    def finds_hosts(self) -> bool:
        """The question that comes first: who speaks at all."""
        return self.query.startswith("group by")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered in place of Prometheus' answer; a status of 0 hangs up instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


NO_ANSWER = Reply(status=0)
Rule = Callable[[Call], Reply | None]


def refusal(status: int, error: str, **headers: str) -> Reply:
    """A refusal in Prometheus' form."""
    body = json.dumps({"status": "error", "errorType": "x", "error": error}).encode()
    return Reply(status=status, body=body, headers={"Content-Type": "application/json", **headers})


def answer(result: list[object], **more: object) -> Reply:
    """An answer in Prometheus' form."""
    data = {"resultType": "matrix", "result": result}
    return Reply(status=200, body=json.dumps({"status": "success", "data": data, **more}).encode())


class Front:
    """The proxy. `rules` are asked first to last; the first reply counts, else the server behind answers."""

    def __init__(self, behind: Callable[[], str], *, tls: ssl.SSLContext | None = None) -> None:
        self._behind = behind
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._forward = httpx.Client(timeout=60, trust_env=False)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)

    @contextmanager
    def serving(self) -> Iterator[Front]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
            self._forward.close()

    @contextmanager
    def within(self, rule: Rule) -> Iterator[None]:
        """This rule before all others, for a while."""
        self.rules.insert(0, rule)
        try:
            yield
        finally:
            self.rules.remove(rule)

    def reply(self, call: Call, body: bytes) -> Reply:
        self.calls.append(call)
        for rule in self.rules:
            if (reply := rule(call)) is not None:
                return reply
        passed = {"Content-Type": call.headers["Content-Type"]}
        behind = self._forward.post(self._behind() + call.path, content=body, headers=passed)
        return Reply(status=behind.status_code, body=behind.content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asks may hang up, at the sight of a certificate for example. Anything else is the test's mistake."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fields = {key: values[0] for key, values in parse_qs(body.decode()).items()}
            call = Call(
                path=self.path,
                query=fields.get("query", ""),
                fields=fields,
                headers=dict(self.headers),
                length=len(body),
            )
            reply = front.reply(call, body)
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *args: Any) -> None:
            """Nothing: what was called is in `front.calls`."""

    return Handler
