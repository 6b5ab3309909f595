"""`curfew admission` as a process of its own, a service that hands it snapshots, and certificates for both ends."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.admission.snapshot import Snapshot

TOKEN = "a-viewer-token-for-tests"


@dataclass
class Service:
    """A stand-in for `curfew serve`: says what it is given to say, with its ETag."""

    snapshot: Snapshot | None = None
    """None: no cycle has finished yet."""
    url: str = ""
    asked: list[Mapping[str, str]] = field(default_factory=list)
    """Headers of each request."""

    def answer(self, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        self.asked.append(headers)
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, "", b'{"detail": "this token is unknown, expired or revoked"}'
        if self.snapshot is None:
            return 409, "", b'{"detail": "a snapshot tells what the last cycle saw, and none has finished here yet"}'
        body = self.snapshot.model_dump_json(by_alias=True).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return (304, etag, b"") if headers.get("If-None-Match") == etag else (200, etag, body)


@contextmanager
def running_service(snapshot: Snapshot | None = None, *, service: Service | None = None) -> Iterator[Service]:
    told = service or Service(snapshot)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/v1/admission/snapshot"
            status, etag, body = told.answer(dict(self.headers.items()))
            self.send_response(status)
            self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()


def certificate(folder: Path, name: str = "curfew") -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself: its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "tls.crt", folder / "tls.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


@dataclass
class Process:
    """`curfew admission`."""

    popen: subprocess.Popen[str]
    url: str
    authority: Path
    log: Path

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        verify = ssl.create_default_context(cafile=str(self.authority))
        with httpx.Client(base_url=self.url, verify=verify, timeout=30) as client:
            yield client

    def review(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        with self.client() as client:
            answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        response: dict[str, Any] = answer.json()["response"]
        assert response["uid"] == request["uid"]
        return response

    def ready(self) -> bool:
        with self.client() as client:
            return client.get("/readyz").status_code == 200

    def counts(self) -> dict[str, float]:
        with self.client() as client:
            page = client.get("/metrics").text
        lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(30)


@contextmanager
def running(service: Service, folder: Path, *more: str, port: int = 0, token: str = TOKEN) -> Iterator[Process]:
    """On a port that the system has free."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    if not cert.exists():
        certificate(folder)
    command = [str(Path(sys.executable).parent / "curfew"), "admission", "--tls-cert", str(cert), "--tls-key", str(key)]
    environment = {"PATH": os.environ["PATH"], "CURFEW_URL": service.url, "CURFEW_TOKEN": token, "NO_PROXY": "*"}
    log = folder / "admission.log"
    with log.open("w") as err:
        popen = subprocess.Popen(
            [*command, "--port", str(port), *(more or ("--refresh", "0.1"))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    assert popen.stdout is not None
    try:
        readable, _, _ = select.select([popen.stdout], [], [], 60)
        said = popen.stdout.readline() if readable else ""
        assert said.startswith("Curfew reviews pods at "), said + log.read_text()
        yield Process(popen, said.split()[-1].rstrip("/"), cert, log)
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, signal.SIGTERM)
        popen.wait(30)
        popen.stdout.close()


def now() -> datetime:
    """Snapshots of a real process are of a real moment."""
    return datetime.now(UTC)


def logged(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
