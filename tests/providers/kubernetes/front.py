"""A server before a cluster, or in its place: it counts what is asked, fails on request, and cuts watches off."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import yaml

from tests.kubernetes.cluster import ADMIN, Cluster

TOKEN = "token-nobody-may-read"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as far as rules look at it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def watches(self) -> bool:
        return "watch" in self.query


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered in place of the cluster; a status of 0 hangs up instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Reply(status=0)
Rule = Callable[[Call], Reply | None]


def answer(body: Mapping[str, Any], *, status: int = 200, **headers: str) -> Reply:
    head = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return Reply(status=status, body=json.dumps(body).encode(), headers=head)


def refused(status: int, reason: str, message: str, *, details: Mapping[str, Any] | None = None) -> Reply:
    """As the API server says no."""
    body = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status,
        "reason": reason, "message": message, "details": dict(details or {}),
    }  # fmt: skip
    return answer(body, status=status)


class Front:
    """`rules` are asked first to last; the first reply counts, else the cluster answers, if there is one."""

    def __init__(self, cluster: Cluster | None = None) -> None:
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self._cluster = _forward(cluster) if cluster is not None else None
        self._open: dict[object, socket.socket] = {}
        """By who is at work on it: a connection to the cluster is used again by the next one."""
        self._ended = False
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Front]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._ended = True
            self.cut()
            self._server.server_close()
            if self._cluster is not None:
                self._cluster.close()

    def kubeconfig(self, folder: Path) -> Path:
        """One that leads here."""
        path = folder / "front.kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig(self.url)))
        return path

    def cut(self) -> None:
        """Every connection that is open breaks off."""
        with self._lock:
            for connection in self._open.values():
                _break_off(connection)

    @contextmanager
    def within(self, rule: Rule) -> Iterator[None]:
        """This rule before all others, for a while; what is under way when it begins breaks off."""
        self.rules.insert(0, rule)
        self.cut()
        try:
            yield
        finally:
            self.rules.remove(rule)

    def reply(self, call: Call) -> Reply | None:
        self.calls.append(call)
        for rule in self.rules:
            if (reply := rule(call)) is not None:
                return reply
        return None if self._cluster is not None else refused(404, "NotFound", "404 page not found")

    def pass_on(self, call: Call, send: Callable[[int, Mapping[str, str], Iterator[bytes]], None]) -> None:
        assert self._cluster is not None
        kept = {"accept", "content-type"}
        headers = {key: value for key, value in call.headers.items() if key.lower() in kept}
        with self._cluster.stream(
            call.method, call.path, params=call.query, headers={**headers, "Accept-Encoding": "identity"},
            content=call.body, timeout=httpx.Timeout(30, read=120),
        ) as told:  # fmt: skip
            upstream = told.extensions["network_stream"].get_extra_info("socket")
            self.connected(told, upstream)  # so that a watch nobody listens to any more ends too
            try:
                send(told.status_code, told.headers, told.iter_raw())
            finally:
                self.disconnected(told)

    def connected(self, user: object, connection: socket.socket) -> None:
        with self._lock:
            self._open[user] = connection
            if self._ended:
                _break_off(connection)

    def disconnected(self, user: object) -> None:
        with self._lock:
            del self._open[user]


def kubeconfig(url: str, **user: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "someone"}}],
        "clusters": [{"name": "tests", "cluster": {"server": url}}],
        "users": [{"name": "someone", "user": user or {"token": TOKEN}}],
    }


def _break_off(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _forward(cluster: Cluster) -> httpx.Client:
    return httpx.Client(
        base_url=cluster.url,
        headers={"Authorization": f"Bearer {ADMIN}"},
        verify=ssl.create_default_context(cafile=str(cluster.authority)),
        limits=httpx.Limits(max_connections=None),
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # waited for at the end
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked hung up, or was cut off."""


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            front.connected(self, self.connection)

        def finish(self) -> None:
            front.disconnected(self)
            super().finish()

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            parts = urlsplit(self.path)
            call = Call(
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query)),
                headers=dict(self.headers),
                body=self.rfile.read(length),
            )
            reply = front.reply(call)
            if reply is None:
                front.pass_on(call, self._relay)
            elif not reply.status:
                self.close_connection = True
            else:
                self.send_response(reply.status)
                for key, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply.body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library calls them

        def _relay(self, status: int, headers: Mapping[str, str], chunks: Iterator[bytes]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", headers.get("content-type", "application/json"))
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in chunks:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *args: Any) -> None:
            """Nothing: what was called is in `front.calls`."""

    return Handler
