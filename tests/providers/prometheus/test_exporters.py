"""What exporters write, in all their dialects, becomes the same few series: one per device and signal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from providers.records import ResourceRecord, Signal
from tests.providers.prometheus.builders import NOON, START, ask, every, machine, peaks, telemetry, utilisation
from tests.providers.prometheus.conftest import Serve
from tests.providers.prometheus.server import Samples, fill, running

UTILISATION, TENSOR, DRAM = Signal.UTILISATION, Signal.TENSOR_ACTIVE, Signal.DRAM_ACTIVE
POWER, MEMORY = Signal.POWER_WATTS, Signal.MEMORY_USED_MIB
MINUTE = 60
UUID = "GPU-11111111-aaaa-4aaa-8aaa-111111111111"
OTHER = "GPU-22222222-bbbb-4bbb-8bbb-222222222222"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Series as an exporter names them, the machine they are of, and the highest value of each of ours."""

    series: Mapping[str, float | Samples]
    of: ResourceRecord
    gives: Mapping[tuple[str, Signal], float]


DIALECTS = {
    "dcgm-exporter up to 4.5.3": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",device="nvidia0",modelName="H100",Hostname="a01"}}': 44,
            f'DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{gpu="0",UUID="{UUID}",device="nvidia0",Hostname="a01"}}': 0.25,
            f'DCGM_FI_PROF_DRAM_ACTIVE{{gpu="0",UUID="{UUID}",device="nvidia0",Hostname="a01"}}': 0.125,
            f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{UUID}",device="nvidia0",Hostname="a01"}}': 310.5,
            f'DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{UUID}",device="nvidia0",Hostname="a01"}}': 20480,
        },
        of=machine("a01"),
        gives={
            (UUID, UTILISATION): 0.44,
            (UUID, TENSOR): 0.25,
            (UUID, DRAM): 0.125,
            (UUID, POWER): 310.5,
            (UUID, MEMORY): 20480,
        },
    ),
    "dcgm-exporter after 4.5.3, with a small hostname": Dialect(
        series={f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",hostname="a02"}}': 44},
        of=machine("a02"),
        gives={(UUID, UTILISATION): 0.44},
    ),
    "scraped without honor_labels: the exporter's own labels are renamed": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",pod="dcgm-exporter-x",namespace="gpu-operator",'
            'exported_pod="train-1",exported_namespace="vision",exported_container="main",'
            'instance="10.0.0.7:9400",exported_instance="a03:9400"}': 44
        },
        of=machine("a03"),
        gives={(UUID, UTILISATION): 0.44},
    ),
    "renamed UUID and gpu labels": Dialect(
        series={f'DCGM_FI_DEV_GPU_UTIL{{gpu="x",exported_gpu="0",exported_UUID="{UUID}",exported_Hostname="a04"}}': 44},
        of=machine("a04"),
        gives={(UUID, UTILISATION): 0.44},
    ),
    "the exporter's own number, not the scrape job's": Dialect(
        series={'DCGM_FI_DEV_GPU_UTIL{gpu="7",exported_gpu="0",Hostname="a06"}': 44},
        of=machine("a06"),
        gives={("0", UTILISATION): 0.44},
    ),
    "old exporters' pod labels": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",pod_name="train-1",pod_namespace="vision",'
            'container_name="main",instance="a05:9400"}': 44
        },
        of=machine("a05"),
        gives={(UUID, UTILISATION): 0.44},
    ),
    "graphics-engine active counts more than utilisation, which is 100 while a spin lock runs": Dialect(
        series={
            f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="{UUID}",Hostname="b01"}}': 0.03,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="b01"}}': 100,
        },
        of=machine("b01"),
        gives={(UUID, UTILISATION): 0.03},
    ),
    "engine activity of one GPU does not silence the utilisation of another": Dialect(
        series={
            f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="{UUID}",Hostname="b02"}}': 0.03,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="{OTHER}",Hostname="b02"}}': 44,
        },
        of=machine("b02", gpus=2),
        gives={(UUID, UTILISATION): 0.03, (OTHER, UTILISATION): 0.44},
    ),
    "MIG: utilisation is absent, each slice is a device": Dialect(
        series={
            f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="{UUID}",GPU_I_PROFILE="1g.10gb",GPU_I_ID="{slice_}",'
            f'Hostname="c01"{pod}}}': value
            for slice_, pod, value in [(7, ',pod="a"', 0.0), (8, "", 0.5), (9, ',pod="b"', 0.25)]
        },
        of=machine("c01"),
        gives={(f"{UUID}/7", UTILISATION): 0, (f"{UUID}/8", UTILISATION): 0.5, (f"{UUID}/9", UTILISATION): 0.25},
    ),
    "MIG beside whole GPUs": Dialect(
        series={
            f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="{UUID}",GPU_I_ID="7",Hostname="c02"}}': 0.5,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="{OTHER}",Hostname="c02"}}': 25,
        },
        of=machine("c02", gpus=2),
        gives={(f"{UUID}/7", UTILISATION): 0.5, (OTHER, UTILISATION): 0.25},
    ),
    "MIG slices do not stand in for GPUs that are silent": Dialect(
        series={
            f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="0",UUID="{UUID}",GPU_I_ID="{slice_}",Hostname="c03"}}': 0.0
            for slice_ in range(7, 14)
        }
        | {f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="{OTHER}",Hostname="c03"}}': 0},
        of=machine("c03", gpus=8),
        gives={(OTHER, UTILISATION): 0},
    ),
    "a slice that is named by a UUID of its own": Dialect(
        series={
            f'nvidia_smi_utilization_gpu_ratio{{uuid="MIG-{n}",index="0",instance="c04:9835"}}': n / 4 for n in (1, 2)
        },
        of=machine("c04"),
        gives={("0/MIG-1", UTILISATION): 0.25, ("0/MIG-2", UTILISATION): 0.5},
    ),
    "time-slicing: the device's value copied to four pods is one device, not 396 %": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d01",vgpu="{n}",pod="p{n}",namespace="x"}}': 99
            for n in range(4)
        },
        of=machine("d01"),
        gives={(UUID, UTILISATION): 0.99},
    ),
    "time-slicing: the processes' shares beside the device are not added to it": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d02"}}': 90,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d02",pod="p0",pod_uid="u0"}}': 60,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d02",pod="p1",pod_uid="u1"}}': 30,
            f'DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{UUID}",Hostname="d02"}}': 9000,
            f'DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{UUID}",Hostname="d02",pod="p0",pod_uid="u0"}}': 6000,
        },
        of=machine("d02"),
        gives={(UUID, UTILISATION): 0.9, (UUID, MEMORY): 9000},
    ),
    "two exporters of one GPU, one of which leaves out GPU-": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d03"}}': 44,
            f'nvidia_smi_utilization_gpu_ratio{{uuid="{UUID.removeprefix("GPU-")}",instance="d03:9835"}}': 0.5,
            f'nvidia_smi_power_draw_watts{{uuid="{UUID.removeprefix("GPU-")}",instance="d03:9835"}}': 300,
        },
        of=machine("d03"),
        gives={(UUID, UTILISATION): 0.44, (UUID, POWER): 300},
    ),
    "two exporters, one of which only counts GPUs: they are not taken for four": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="d04"}}': 1,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="{OTHER}",Hostname="d04"}}': 2,
            'amd_gpu_use_percent{gpu_use_percent="0",instance="d04:2021"}': 3,
            'amd_gpu_use_percent{gpu_use_percent="1",instance="d04:2021"}': 4,
        },
        of=machine("d04", gpus=4),
        gives={(UUID, UTILISATION): 0.01, (OTHER, UTILISATION): 0.02},
    ),
    "no value is written as a huge one": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="e01"}}': [
                *((t, 9223372036854775794.0) for t, _ in every(MINUTE, 0)[:30]),
                *((t, 9.0) for t, _ in every(MINUTE, 0)[30:]),
            ],
            f'DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{UUID}",Hostname="e01"}}': 9223372036854775794.0,
        },
        of=machine("e01"),
        gives={(UUID, UTILISATION): 0.09},
    ),
    "NaN, infinity and less than nothing are no values": Dialect(
        series={
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="e02"}}': math.nan,
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="1",UUID="{OTHER}",Hostname="e02"}}': math.inf,
            'DCGM_FI_DEV_GPU_UTIL{gpu="2",UUID="GPU-2",Hostname="e02"}': -1,
            'DCGM_FI_DEV_GPU_UTIL{gpu="3",UUID="GPU-3",Hostname="e02"}': 7,
        },
        of=machine("e02", gpus=4),
        gives={("GPU-3", UTILISATION): 0.07},
    ),
    "AMD's device-metrics-exporter": Dialect(
        series={
            f'{name}{{card_series="AMD Instinct MI300X OAM",gpu_compute_partition_type="spx",gpu_id="{gpu}",'
            f'gpu_partition_id="0",gpu_uuid="u{gpu}",hostname="f01",pod="",serial_number="s{gpu}"}}': value
            for gpu in (0, 1)
            for name, value in [
                ("gpu_gfx_activity", 50 + gpu),
                ("gpu_umc_activity", 20),
                ("gpu_package_power", 750),
                ("gpu_used_vram", 283),
            ]
        },
        of=machine("f01", gpus=2),
        gives={
            (f"s{gpu}", signal): value
            for gpu in (0, 1)
            for signal, value in [(UTILISATION, 0.5 + gpu / 100), (DRAM, 0.2), (POWER, 750), (MEMORY, 283)]
        },
    ),
    "the same with a prefix and without the newer labels": Dialect(
        series={'amd_gpu_gfx_activity{gpu_id="0",serial_number="s0",hostname="f02"}': 50},
        of=machine("f02"),
        gives={("s0", UTILISATION): 0.5},
    ),
    "AMD's compute partitions are slices of a card": Dialect(
        series={
            f'gpu_gfx_activity{{gpu_compute_partition_type="cpx",gpu_id="{part}",gpu_uuid="u{part}",hostname="f03",'
            'serial_number="s0"}': part
            for part in range(2)
        },
        of=machine("f03"),
        gives={("s0/u0", UTILISATION): 0, ("s0/u1", UTILISATION): 0.01},
    ),
    "amd_smi_exporter, which puts the number into a label named like the metric": Dialect(
        series={
            'amd_gpu_use_percent{gpu_use_percent="0",productname="Arcturus",instance="f04:2021"}': 50,
            'amd_gpu_use_percent{gpu_use_percent="1",productname="Arcturus",instance="f04:2021"}': 51,
            'amd_gpu_power{gpu_power="1",productname="Arcturus",instance="f04:2021"}': 36_000_000,
        },
        of=machine("f04", gpus=2),
        gives={("0", UTILISATION): 0.5, ("1", UTILISATION): 0.51, ("1", POWER): 36},
    ),
    "telegraf's rocm-smi, whose gpu_id is a model": Dialect(
        series={
            f'amd_rocm_smi_utilization_gpu{{gpu_id="0x738c",gpu_unique_id="0x{n}",host="f05",name="card{n}"}}': n
            for n in (1, 2)
        }
        | {
            'amd_rocm_smi_power_draw{gpu_id="0x738c",gpu_unique_id="0x1",host="f05",name="card1"}': 40,
            'amd_rocm_smi_memory_used{gpu_id="0x738c",gpu_unique_id="0x1",host="f05",name="card1"}': 2**23,
        },
        of=machine("f05", gpus=2),
        gives={
            ("0x1", UTILISATION): 0.01,
            ("0x2", UTILISATION): 0.02,
            ("0x1", POWER): 40,
            ("0x1", MEMORY): 8,
        },
    ),
    "cards without a unique id are not one card": Dialect(
        series={
            f'amd_rocm_smi_utilization_gpu{{gpu_id="0x738c",gpu_unique_id="N/A",host="f08",name="card{n}"}}': n
            for n in (1, 2)
        },
        of=machine("f08", gpus=2),
        gives={("1", UTILISATION): 0.01, ("2", UTILISATION): 0.02},
    ),
    "telegraf's nvidia-smi": Dialect(
        series={
            f'nvidia_smi_utilization_gpu{{host="f06",index="0",name="Tesla T4",pstate="P0",uuid="{UUID}"}}': 44,
            f'nvidia_smi_utilization_memory{{host="f06",index="0",name="Tesla T4",pstate="P0",uuid="{UUID}"}}': 12,
            f'nvidia_smi_power_draw{{host="f06",index="0",name="Tesla T4",pstate="P0",uuid="{UUID}"}}': 60.5,
            f'nvidia_smi_memory_used{{host="f06",index="0",name="Tesla T4",pstate="P0",uuid="{UUID}"}}': 1024,
        },
        of=machine("f06"),
        gives={(UUID, UTILISATION): 0.44, (UUID, DRAM): 0.12, (UUID, POWER): 60.5, (UUID, MEMORY): 1024},
    ),
    "nvidia_gpu_exporter": Dialect(
        series={
            f'nvidia_smi_utilization_gpu_ratio{{uuid="{UUID}",index="0",instance="f09:9835"}}': 0.44,
            f'nvidia_smi_utilization_memory_ratio{{uuid="{UUID}",index="0",instance="f09:9835"}}': 0.12,
            f'nvidia_smi_power_draw_watts{{uuid="{UUID}",index="0",instance="f09:9835"}}': 310.5,
            f'nvidia_smi_memory_used_bytes{{uuid="{UUID}",index="0",instance="f09:9835"}}': 2**30,
        },
        of=machine("f09"),
        gives={(UUID, UTILISATION): 0.44, (UUID, DRAM): 0.12, (UUID, POWER): 310.5, (UUID, MEMORY): 1024},
    ),
    "nvidia_gpu_prometheus_exporter": Dialect(
        series={
            f'nvidia_gpu_duty_cycle{{minor_number="0",uuid="{UUID}",name="V100",instance="f07:9445"}}': 44,
            f'nvidia_gpu_power_usage_milliwatts{{minor_number="0",uuid="{UUID}",instance="f07:9445"}}': 97_500,
            f'nvidia_gpu_memory_used_bytes{{minor_number="0",uuid="{UUID}",instance="f07:9445"}}': 2**30,
        },
        of=machine("f07"),
        gives={(UUID, UTILISATION): 0.44, (UUID, POWER): 97.5, (UUID, MEMORY): 1024},
    ),
    "without any UUID, the number on the machine": Dialect(
        series={f'DCGM_FI_DEV_GPU_UTIL{{gpu="{n}",device="nvidia{n}",Hostname="g01"}}': n for n in (1, 2)},
        of=machine("g01", gpus=2),
        gives={("1", UTILISATION): 0.01, ("2", UTILISATION): 0.02},
    ),
    "without anything, one device": Dialect(
        series={'nvidia_gpu_duty_cycle{instance="g02"}': 44}, of=machine("g02"), gives={("0", UTILISATION): 0.44}
    ),
    "power alone tells nothing of whether it works, and is not asked for": Dialect(
        series={f'DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{UUID}",Hostname="g03"}}': 302}, of=machine("g03"), gives={}
    ),
    "more than all is all": Dialect(
        series={f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="g04"}}': 100.4},
        of=machine("g04"),
        gives={(UUID, UTILISATION): 1.0},
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """All dialects in one server, as in a company that has bought others."""
    folder = tmp_path_factory.mktemp("dialects")
    spoken: dict[str, Samples] = {}
    for dialect in DIALECTS.values():
        for series, value in dialect.series.items():
            assert series not in spoken
            spoken[series] = every(MINUTE, value) if isinstance(value, int | float) else value
    fill(folder, spoken)
    with running(folder) as url:
        yield url


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_understood(server: str, name: str) -> None:
    dialect = DIALECTS[name]
    answer = ask(telemetry(server), [dialect.of])
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    assert peaks(answer, dialect.of) == pytest.approx(dialect.gives)


def test_all_machines_are_told_apart_when_asked_for_at_once(server: str) -> None:
    records = [dialect.of for dialect in DIALECTS.values()]
    answer = ask(telemetry(server), records)
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    for dialect in DIALECTS.values():
        assert peaks(answer, dialect.of) == pytest.approx(dialect.gives)


def test_values_of_none_are_holes(server: str) -> None:
    dialect = DIALECTS["no value is written as a huge one"]
    series = utilisation(ask(telemetry(server), [dialect.of]))[UUID]
    assert list(series.times) == [t for t, _ in every(MINUTE, 0)[30:]]


def test_a_pod_that_follows_another_goes_on_with_the_same_device(prometheus: Serve) -> None:
    """A GPU's labels change with the pod on it; its samples are of one device all along."""
    middle = NOON.timestamp() - 1800
    whole = every(MINUTE, 10)
    series = {
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="h",pod="first"}}': [s for s in whole if s[0] < middle],
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="h",pod="next"}}': [s for s in whole if s[0] >= middle],
    }
    answer = ask(telemetry(prometheus(series)), [machine("h")])
    assert utilisation(answer)[UUID].times == tuple(t for t, _ in whole)


def test_two_replicas_of_a_prometheus_tell_of_one_gpu(prometheus: Serve) -> None:
    """Thanos without deduplication: the same GPU, seen a few seconds apart."""
    series = {
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="h",replica="a"}}': every(MINUTE, 10),
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="h",replica="b"}}': [
            (t + 7, v) for t, v in every(MINUTE, 12)
        ],
    }
    (told,) = utilisation(ask(telemetry(prometheus(series)), [machine("h")])).values()
    assert told.times[:4] == tuple(int(START.timestamp()) + second for second in (0, 7, 60, 67))
    assert told.values[:2] == pytest.approx((0.10, 0.12))


def test_own_names_take_the_place_of_the_usual_ones(prometheus: Serve) -> None:
    url = prometheus(
        {
            'acme_gpu_busy{UUID="GPU-1",Hostname="h"}': every(MINUTE, 30),
            'acme_gpu_engine{UUID="GPU-1",Hostname="h"}': every(MINUTE, 0.2),
            'acme_mw{UUID="GPU-1",Hostname="h"}': every(MINUTE, 5000),
            'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",Hostname="h"}': every(MINUTE, 99),
            'DCGM_FI_DEV_FB_USED{UUID="GPU-1",Hostname="h"}': every(MINUTE, 99),
            'DCGM_FI_PROF_DRAM_ACTIVE{UUID="GPU-1",Hostname="h"}': every(MINUTE, 0.1),
        }
    )
    source = telemetry(
        url,
        metrics={
            "utilisation": [
                {"name": "acme_gpu_engine", "unit": "ratio"},
                {"name": "acme_gpu_busy", "unit": "percent"},
            ],
            "power": [{"name": "acme_mw", "unit": "milliwatts"}],
            "memory_used": [],
        },
    )
    told = peaks(ask(source, [machine("h")]), machine("h"))
    assert told == pytest.approx({("GPU-1", UTILISATION): 0.2, ("GPU-1", POWER): 5.0, ("GPU-1", DRAM): 0.1})
