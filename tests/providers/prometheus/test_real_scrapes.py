"""Pages that real exporters served and users posted, scraped by a real Prometheus, each told as what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from xml.etree import ElementTree

import pytest

from providers.records import ResourceRecord, Signal
from tests.providers.prometheus.builders import ask, machine, peaks, telemetry, workload
from tests.providers.prometheus.exporter import Page, scraped
from tests.real_data import REAL_DATA, needs

pytestmark = needs("metrics")
METRICS = REAL_DATA / "metrics"
UTILISATION, DRAM = Signal.UTILISATION, Signal.DRAM_ACTIVE
POWER, MEMORY = Signal.POWER_WATTS, Signal.MEMORY_USED_MIB
H100 = "linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01__{}.metrics"
MASKED = "GPU-00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Where a page is, what the scrape job makes of it, and what is told of which machine."""

    page: str
    """`dcgm 363`: what users posted in that issue; `H100 idle`; by telegraf, `nvidia-smi …` and `rocm-smi …`."""
    of: ResourceRecord
    gives: Mapping[tuple[str, Signal], float]
    target_labels: Mapping[str, str] = field(default_factory=dict)
    honor_labels: bool = False


SCRAPES = {
    "2020: no host name, no model, empty pod labels": Scrape(
        page="dcgm 138",
        target_labels={"instance": "old-box:9400"},
        of=machine("old-box"),
        gives={
            ("GPU-6bf47ca9-ad3e-15db-beed-1079a7d74116", UTILISATION): 0.44,
            ("GPU-6bf47ca9-ad3e-15db-beed-1079a7d74116", POWER): 302.206,
        },
    ),
    "2022: the host is the exporter's pod, and there is no utilisation": Scrape(
        page="dcgm 58", target_labels={"node": "titan"}, of=machine("titan"), gives={}
    ),
    "2023: through another Prometheus, with the node's name": Scrape(
        page="dcgm 472",
        honor_labels=True,
        of=machine("aks-gpunp-66230965-vmss000000"),
        gives={("GPU-c89b14a3-ce7c-6725-8424-b55d37d9c332", UTILISATION): 0.73},
    ),
    "2023: the same without honor_labels": Scrape(
        page="dcgm 472",
        target_labels={"node": "collector", "job": "federate"},
        of=machine("AKS-gpunp-66230965-vmss000000.internal"),
        gives={("GPU-c89b14a3-ce7c-6725-8424-b55d37d9c332", UTILISATION): 0.73},
    ),
    "2024: memory is held, nothing runs": Scrape(
        page="dcgm 363",
        of=machine("k8s-gpu1"),
        gives={
            ("GPU-7ad09335-aadb-19c3-e3a8", UTILISATION): 0,
            ("GPU-7ad09335-aadb-19c3-e3a8", MEMORY): 21383,
        },
    ),
    "2025: slices of an H100, scraped through a pod": Scrape(
        page="dcgm 512",
        target_labels={"pod": "dcgm-exporter-x", "namespace": "gpu-operator", "container": "exporter"},
        of=machine("gsrh100-074"),
        gives={(f"GPU-58e8f5ea-13cc-013a-d88f-2bcf5ae8bc77/{n}", UTILISATION): 0 for n in (7, 8, 9)},
    ),
    "an H100 at rest": Scrape(
        page="H100 idle",
        target_labels={"instance": "h100-idle:9835"},
        of=machine("h100-idle"),
        gives={(MASKED, UTILISATION): 0, (MASKED, DRAM): 0, (MASKED, POWER): 69.85, (MASKED, MEMORY): 0},
    ),
    "an H100 at work": Scrape(
        page="H100 load",
        target_labels={"instance": "h100-load:9835"},
        of=machine("h100-load"),
        gives={
            (MASKED, UTILISATION): 1,
            (MASKED, DRAM): 0.11,
            (MASKED, POWER): 631.95,
            (MASKED, MEMORY): 20780679168 / 2**20,
        },
    ),
    "a T4 by telegraf": Scrape(
        page="nvidia-smi tesla-t4",
        of=machine("tesla-t4"),
        gives={
            ("GPU-d37e67a5-91dd-3774-a5cb-99096249601a", UTILISATION): 0,
            ("GPU-d37e67a5-91dd-3774-a5cb-99096249601a", POWER): 26.78,
            ("GPU-d37e67a5-91dd-3774-a5cb-99096249601a", MEMORY): 1032,
        },
    ),
    "an RTX 3080 by telegraf, whose driver has no plain power any more": Scrape(
        page="nvidia-smi rtx-3080-v13",
        of=machine("rtx-3080-v13"),
        gives={
            ("GPU-19d6d965-2acc-f646-00f8-4c76979aabb4", UTILISATION): 0.65,
            ("GPU-19d6d965-2acc-f646-00f8-4c76979aabb4", MEMORY): 9184,
        },
    ),
    "an A100 in MIG mode by telegraf: nothing is known of its slices": Scrape(
        page="nvidia-smi a100-sxm4-v12", of=machine("a100-sxm4-v12"), gives={}
    ),
    "MI100s by telegraf": Scrape(
        page="rocm-smi mi100_rocm602",
        of=machine("mi100_rocm602", gpus=4),
        gives={
            (card, signal): value
            for card, watts in {
                "0x79ccd55167a2124a": 36,
                "0x4edfb117a17a07d": 44,
                "0xd4a9ec48d03d261d": 43,
                "0x1b9dd972253c3736": 39,
            }.items()
            for signal, value in [(UTILISATION, 0), (POWER, watts), (MEMORY, 6750208 / 2**20)]
        },
    ),
    "MI100s that give no unique id are six cards all the same": Scrape(
        page="rocm-smi mi100_rocm571",
        of=machine("mi100_rocm571", gpus=6),
        gives={
            (str(card), signal): value
            for card, watts in enumerate([39, 37, 35, 39, 39, 40])
            for signal, value in [(UTILISATION, 0), (POWER, watts), (MEMORY, 6782976 / 2**20)]
        },
    ),
}


def text_of(page: str) -> str:
    """A page as its exporter serves it."""
    exporter, _, which = page.partition(" ")
    if exporter == "dcgm":
        return posted()[which]
    if exporter == "H100":
        return (METRICS / "nvidia_gpu_exporter" / H100.format(which)).read_text()
    if exporter == "nvidia-smi":
        return "".join(_nvidia_smi(which))
    return "".join(_rocm_smi(which))


@cache
def posted() -> dict[str, str]:
    """What users posted, by issue. One posted labels without their value; it gets one."""
    pages: dict[str, str] = {}
    issue = ""
    for line in (METRICS / "dcgm_label_variants_from_github_issues.prom").read_text().splitlines():
        link = re.match(r"# https://\S+/issues/(\d+)", line)
        if link:
            issue = link[1]
        elif issue and (series := re.fullmatch(r"# (DCGM\S+\{.*\})", line)):
            pages[issue] = f"{series[1]} 73\n"
        elif issue:
            pages[issue] = pages.get(issue, "") + line + "\n"
    return pages


def _nvidia_smi(name: str) -> Iterator[str]:
    """As telegraf turns nvidia-smi's XML into metrics; what is not a number is left out."""
    root = ElementTree.parse(METRICS / "nvidia_smi_xml_telegraf" / f"{name}.xml").getroot()
    for index, gpu in enumerate(root.iter("gpu")):
        labels = f'host="{name}",index="{index}",name="{gpu.findtext("product_name")}",uuid="{gpu.findtext("uuid")}"'
        for metric, path in {
            "utilization_gpu": "utilization/gpu_util",
            "memory_used": "fb_memory_usage/used",
            "power_draw": "power_readings/power_draw",
        }.items():
            if number := re.match(r"[\d.]+", gpu.findtext(path, "")):
                yield f"nvidia_smi_{metric}{{{labels}}} {number[0]}\n"


def _rocm_smi(name: str) -> Iterator[str]:
    """As telegraf turns rocm-smi's JSON into metrics."""
    for card, told in json.loads((METRICS / "amd_rocm_smi_json_telegraf" / f"{name}.json").read_text()).items():
        if not card.startswith("card"):
            continue
        model = told.get("Device ID") or told["GPU ID"]
        labels = f'gpu_id="{model}",gpu_unique_id="{told["Unique ID"]}",host="{name}",name="{card}"'
        for metric, key in {
            "utilization_gpu": "GPU use (%)",
            "memory_used": "VRAM Total Used Memory (B)",
            "power_draw": "Average Graphics Package Power (W)",
        }.items():
            yield f"amd_rocm_smi_{metric}{{{labels}}} {told[key]}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pages = {
        name: Page(text=text_of(scrape.page), target_labels=scrape.target_labels, honor_labels=scrape.honor_labels)
        for name, scrape in SCRAPES.items()
    }
    with scraped(tmp_path_factory.mktemp("scrapes"), pages) as url:
        yield url


@pytest.mark.parametrize("name", SCRAPES)
def test_a_page_is_told_as_what_it_says(server: str, name: str) -> None:
    scrape = SCRAPES[name]
    now = datetime.now(UTC)
    answer = ask(telemetry(server), [scrape.of], start=now - timedelta(minutes=5), end=now + timedelta(seconds=1))
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    assert peaks(answer, scrape.of) == pytest.approx(scrape.gives)


def test_slices_of_an_h100_tell_of_the_servers_that_hold_them(server: str) -> None:
    host, namespace = "gsrh100-074", "model-playground-stg"
    uuid = "GPU-58e8f5ea-13cc-013a-d88f-2bcf5ae8bc77"
    holders = {
        "text-embedding-predictor-00008-deployment-57946f6c67-vdtjl": 7,
        "tts-predictor-00011-deployment-5554f75554-8j8pl": 9,
    }
    now = datetime.now(UTC)
    servers = {pod: workload(f"{namespace}/Deployment/{pod}", pods={pod: host}) for pod in holders}
    answer = ask(
        telemetry(server), list(servers.values()), start=now - timedelta(minutes=5), end=now + timedelta(seconds=1)
    )
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    for pod, slice_ in holders.items():
        assert peaks(answer, servers[pod]) == {(f"{pod}:{uuid}/{slice_}", UTILISATION): 0}
