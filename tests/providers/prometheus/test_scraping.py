"""What happens while a real Prometheus scrapes: targets that fall silent, and the holes they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.providers.prometheus.builders import ask, machine, telemetry
from tests.providers.prometheus.exporter import Page, scraped, wait_for

GPU = 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",Hostname="h"} 0\n'
OTHER = 'DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-2",Hostname="h"} 0\n'


def test_a_gpu_that_falls_off_the_bus_has_no_more_samples(tmp_path: Path) -> None:
    """Prometheus marks the end of its series with a NaN of its own; the other GPU goes on."""
    page = Page(text=GPU + OTHER)
    record = machine("h", gpus=2, launched_at=None)
    with scraped(tmp_path, {"dcgm": page}) as url:
        wait_for(url, "count(DCGM_FI_DEV_GPU_UTIL) == 2")
        page.text = GPU
        wait_for(url, "count(DCGM_FI_DEV_GPU_UTIL) == 1")
        gone = last_sample(url, "GPU-2")
        wait_for(url, f"timestamp(DCGM_FI_DEV_GPU_UTIL) >= {gone + 2}")
        now = datetime.now(UTC)
        answer = ask(telemetry(url), [record], start=now - timedelta(minutes=5), end=now + timedelta(seconds=1))
    ends = {series.device: series.times[-1] for series in answer.series}
    assert ends["GPU-2"] == int(gone)
    assert ends["GPU-1"] > ends["GPU-2"]
    assert {value for series in answer.series for value in series.values} == {0.0}


def last_sample(url: str, gpu: str) -> float:
    """When the raw series ends."""
    raw = {"query": f'DCGM_FI_DEV_GPU_UTIL{{UUID="{gpu}"}}[5m]'}
    with httpx.Client(trust_env=False) as client:
        (series,) = client.post(f"{url}/api/v1/query", data=raw).json()["data"]["result"]
    return float(series["values"][-1][0])
