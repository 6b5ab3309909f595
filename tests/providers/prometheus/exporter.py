"""Pages of metrics as exporters serve them, and the configuration with which a real Prometheus scrapes them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from tests.providers.prometheus.server import running


@dataclass(kw_only=True)
class Page:
    """What one exporter shows, and what the scrape job adds to it."""

    text: str
    target_labels: Mapping[str, str] = field(default_factory=dict)
    honor_labels: bool = False


@contextmanager
def scraped(folder: Path, pages: Mapping[str, Page]) -> Iterator[str]:
    """A Prometheus that has scraped every page at least once, and goes on five times a second."""
    with _serving(pages) as address:
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [
                {
                    "job_name": name,
                    "honor_labels": page.honor_labels,
                    "metrics_path": f"/{number}",
                    "static_configs": [{"targets": [address], "labels": dict(page.target_labels)}],
                }
                for number, (name, page) in enumerate(pages.items())
            ],
        }
        with running(folder, config=json.dumps(config)) as url:
            wait_for(url, f"count(up == 1) == {len(pages)}")
            yield url


def wait_for(url: str, promql: str) -> None:
    """Until a query has a result."""
    until = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while not client.post(f"{url}/api/v1/query", data={"query": promql}).json()["data"]["result"]:
            if time.monotonic() > until:
                raise RuntimeError(f"after a minute there is still nothing for {promql}")
            time.sleep(0.05)


@contextmanager
def _serving(pages: Mapping[str, Page]) -> Iterator[str]:
    shown = list(pages.values())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = shown[int(self.path.strip("/"))].text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
