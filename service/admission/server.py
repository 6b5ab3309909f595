"""The process that API servers call: AdmissionReviews over TLS, answered on the latest snapshot. Whatever goes wrong
here lets the pod in.
"""

from __future__ import annotations

import base64
import json
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.admission.counts import Counts
from service.admission.judge import LET_IN, Answer, Judge
from service.admission.latest import EVERY_SECONDS, Latest, Refreshing
from service.client import Client

log = structlog.get_logger()

LARGEST_REVIEW = 8 * 1024 * 1024
"""Bytes. An object and the one before it, each at most what etcd takes."""
LOGGED_EVERY = 60.0
"""Seconds between two lines of the log about the same policy, project and outcome."""
UNJUDGED = "unjudged"

Question = Callable[[Judge, Mapping[str, Any], datetime], Answer]


class Reviews:
    """Answers, counts and logs."""

    def __init__(self, latest: Latest, counts: Counts) -> None:
        self._latest = latest
        self._counts = counts
        self._logged: dict[tuple[Any, ...], float] = {}

    async def mutate(self, request: Request) -> Response:
        return await self._reviewed(request, Judge.mutate)

    async def validate(self, request: Request) -> Response:
        return await self._reviewed(request, Judge.validate)

    async def _reviewed(self, request: Request, question: Question) -> Response:
        body = await _body(request)
        began = time.perf_counter()
        review = _review_in(body) if body is not None else None
        if review is None:
            return JSONResponse({"detail": "this is no AdmissionReview of admission.k8s.io/v1"}, 400)
        answer = self._answer(review, question)
        response = Response(_written(review, answer), media_type="application/json")
        self._counts.took(time.perf_counter() - began)
        return response

    def _answer(self, review: Mapping[str, Any], question: Question) -> Answer:
        judge = self._latest.judge()
        counted = review.get("dryRun") is not True
        answer = None
        if judge is not None:
            try:
                answer = question(judge, review, self._latest.now())
            except Exception:
                log.exception("a pod was let in because it could not be judged")
        if answer is None:
            if counted:
                self._counts.reviewed(UNJUDGED)
            return LET_IN
        if counted:
            self._count(answer)
        return answer

    def _count(self, answer: Answer) -> None:
        if not answer.said:
            self._counts.reviewed("allowed")
        for one in answer.said:
            self._counts.reviewed(one.outcome.value, one.policy, one.mode)
            key = (one.policy, one.outcome, answer.project)
            now = time.monotonic()
            if now - self._logged.get(key, -LOGGED_EVERY) >= LOGGED_EVERY:
                self._logged[key] = now
                log.info(
                    f"a new pod was {one.outcome.value}",
                    policy=one.policy,
                    mode=one.mode.value,
                    project=answer.project,
                    reason=one.sentence,
                )


async def _body(request: Request) -> bytes | None:
    """None where it is too much."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_REVIEW:
            return None
        parts.append(part)
    return b"".join(parts)


def _review_in(body: bytes) -> Mapping[str, Any] | None:
    """The request in an AdmissionReview."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(review, Mapping) or review.get("apiVersion") != "admission.k8s.io/v1":
        return None
    request = review.get("request")
    return request if isinstance(request, Mapping) and isinstance(request.get("uid"), str) else None


def _written(review: Mapping[str, Any], answer: Answer) -> bytes:
    response: dict[str, Any] = {"uid": review["uid"], "allowed": answer.refusal is None}
    if answer.refusal is not None:
        response["status"] = {"code": 403, "reason": "Forbidden", "message": answer.refusal}
    if answer.warnings:
        response["warnings"] = list(answer.warnings)
    if answer.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(json.dumps(answer.patch).encode()).decode()
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()


def create_app(latest: Latest, counts: Counts) -> Starlette:
    """The whole HTTP surface of the process."""
    reviews = Reviews(latest, counts)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        trouble = latest.trouble
        at = latest.at.isoformat() if latest.at is not None else None
        said = {"ready": trouble is None, "snapshot": at, "open": trouble and f"every pod is let in: {trouble}"}
        return JSONResponse(said, 200 if trouble is None else 503)

    async def metrics(_: Request) -> Response:
        page = counts.page(snapshot_at=latest.at, open_=latest.judge() is None)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[
            Route("/mutate", reviews.mutate, methods=["POST"]),
            Route("/validate", reviews.validate, methods=["POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


class Certificate:
    """The certificate that new connections are met with: read again when its files change.

    A new one is taken over whole. Loaded into the context that is in use, there would be a moment when its key is not
    there yet, and whoever connects in it is turned away.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self._stamp = self._stamp_now()
        self._newest: ssl.SSLContext | None = None

    def given_to(self, context: ssl.SSLContext) -> None:
        self._newest = context
        context.sni_callback = self._meet

    def renew(self) -> None:
        """Files that do not fit each other yet are tried again later; until then the old ones are good."""
        stamp = self._stamp_now()
        if stamp is None or stamp == self._stamp:
            return
        newest = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            newest.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            log.warning("the new certificate cannot be used", reason=str(error))
            return
        self._newest = newest
        self._stamp = stamp
        log.info("the certificate was renewed")

    def _meet(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        """Asked by OpenSSL with each new connection, whether or not it names a host."""
        if self._newest is not None:
            connection.context = self._newest

    def _stamp_now(self) -> tuple[int, ...] | None:
        try:
            return tuple(part for file in self._files for part in (file.stat().st_mtime_ns, file.stat().st_ino))
        except OSError:
            return None


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._say(f"Curfew reviews pods at https://{f'[{host}]' if ':' in host else host}:{port}/")


def serve(
    client: Client,
    *,
    source: str | None,
    cert: Path,
    key: Path,
    host: str,
    port: int,
    refresh_seconds: float = EVERY_SECONDS,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Until it is told to stop. Raises ValueError for a certificate that cannot be used."""
    _configure_logs()
    latest, counts = Latest(client, source, lambda: datetime.now(UTC)), Counts()
    certificate = Certificate(cert, key)
    config = uvicorn.Config(
        create_app(latest, counts),
        ssl_certfile=str(cert),
        ssl_keyfile=str(key),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=120,  # API servers keep their connections
        timeout_graceful_shutdown=5,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"--tls-cert {cert}, --tls-key {key}: {_why(error)}") from None
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate.given_to(config.ssl)
    sys.setswitchinterval(0.001)  # who reads a snapshot holds up no review
    # uvicorn raises it once more when it has stopped, and an end in order is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with closing(client), _listen(host, port) as listening, Refreshing(latest, certificate.renew, refresh_seconds):
        _Server(config, say).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise ValueError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


def _configure_logs() -> None:
    """One JSON line per event on standard error; of the libraries only what they warn of."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return "they are no certificate with its key, in PEM" if isinstance(error, ssl.SSLError) else str(error)
