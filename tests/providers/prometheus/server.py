"""A real Prometheus in a folder of its own, filled from samples before it starts or by scraping while it runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

Samples = Sequence[tuple[int, float]]
NOTHING_TO_SCRAPE = "global: {scrape_interval: 1h}\n"


def program(name: str) -> str:
    """Missing is an error, never a silent skip."""
    path = shutil.which(name)
    if path is None:
        raise RuntimeError(f"the tests need {name}: apt-get install prometheus")
    return path


def open_metrics(series: Mapping[str, Samples]) -> str:
    """`name{labels}` → samples, as text that promtool reads; series of a metric stand together."""
    lines: list[str] = []
    for name in dict.fromkeys(key.partition("{")[0] for key in series):
        lines.append(f"# TYPE {name} gauge")
        for key, samples in series.items():
            if key.partition("{")[0] == name:
                lines += [f"{key} {value!r} {second}" for second, value in samples]
    return "\n".join([*lines, "# EOF", ""])


def fill(folder: Path, series: Mapping[str, Samples]) -> None:
    """Write blocks a Prometheus will find when it starts."""
    if not any(series.values()):
        return
    text = folder / "samples.om"
    text.write_text(open_metrics(series))
    command = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", text, folder / "data"]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def running(folder: Path, *flags: str, config: str = NOTHING_TO_SCRAPE) -> Iterator[str]:
    """A server in a process group of its own; the answer is its address."""
    (folder / "prometheus.yml").write_text(config)
    with (folder / "log").open("wb") as log:
        process, url = _started(folder, flags, log.fileno())
        try:
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _started(folder: Path, flags: Sequence[str], log: int) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(5):  # between our letting go of a port and its taking it, another may have it
        port = free_port()
        command = [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            *flags,
        ]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=folder)
        if _ready(process, f"http://127.0.0.1:{port}"):
            return process, f"http://127.0.0.1:{port}"
        process.wait()
    raise RuntimeError(f"Prometheus does not start:\n{(folder / 'log').read_text()}")


def _ready(process: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + 60
    with httpx.Client(trust_env=False) as client:
        while process.poll() is None:
            try:
                if client.get(f"{url}/-/ready").status_code == httpx.codes.OK:
                    return True
            except httpx.TransportError:
                pass
            if time.monotonic() > until:
                os.killpg(process.pid, signal.SIGKILL)
                raise RuntimeError("Prometheus is not ready after a minute")
            time.sleep(0.02)
    return False


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port
