"""How series find workloads: by the pod they name, where nothing speaks against it, and never by choosing among two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.prometheus import Cluster, LabelJoin
from providers.prometheus.join import Join, Way
from providers.records import Kind, ResourceRecord, Signal
from tests.providers.prometheus.builders import (
    CLUSTER,
    NOON,
    ask,
    every,
    machine,
    node,
    peaks,
    telemetry,
    utilisation,
    workload,
)
from tests.providers.prometheus.conftest import Serve
from tests.providers.prometheus.exporter import Page, scraped
from tests.providers.prometheus.server import Samples, fill, running

USUAL: tuple[Way, ...] = ("instance_id", "host_name")
OTHER = "9a7b6c5d-4e3f-4a1b-8c2d-1e0f9a8b7c6d"
UTILISATION, MEMORY = Signal.UTILISATION, Signal.MEMORY_USED_MIB
TRAIN, TUNE = workload(), workload("vision/Job/tune", pods={"tune-0": "gpu-2"})
HERE = workload(pods={"train-0": "gpu-1"})
THERE = workload(pods={"train-0": "gpu-9"}, cluster=OTHER)
TWIN = workload(pods={"train-0": "gpu-1"}, cluster=OTHER)
EU, US = Cluster(uid=CLUSTER, labels={"cluster": "eu"}), Cluster(uid=OTHER, labels={"cluster": "us"})
POD = {"namespace": "vision", "pod": "train-0"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Labels, the workloads and nodes there are, and which workloads are meant."""

    labels: Mapping[str, str]
    among: Sequence[ResourceRecord] = (TRAIN, TUNE)
    clusters: Sequence[Cluster] | None = None
    means: Sequence[ResourceRecord] = ()


FINDS = {
    "namespace and pod": Case(labels=POD, means=[TRAIN]),
    "renamed, where the plain ones are the exporter's own": Case(
        labels={
            "namespace": "gpu-operator",
            "pod": "dcgm-exporter-x",
            "exported_namespace": "vision",
            "exported_pod": "train-0",
        },
        means=[TRAIN],
    ),
    "the plain pod does not count beside a renamed one": Case(labels={**POD, "exported_pod": "stranger"}),
    "only the pod was renamed": Case(
        labels={"namespace": "vision", "pod": "dcgm-exporter-x", "exported_pod": "train-0"}, means=[TRAIN]
    ),
    "only the namespace was renamed": Case(
        labels={"namespace": "gpu-operator", "exported_namespace": "vision", "pod": "train-0"}, means=[TRAIN]
    ),
    "as dcgm-exporter wrote it of old": Case(labels={"pod_namespace": "vision", "pod_name": "train-0"}, means=[TRAIN]),
    "as it wrote it of old, scraped through a pod": Case(
        labels={
            "namespace": "gpu-operator",
            "pod": "dcgm-exporter-x",
            "pod_namespace": "vision",
            "pod_name": "train-0",
        },
        means=[TRAIN],
    ),
    "as Knative writes it": Case(labels={"namespace_name": "vision", "pod_name": "train-0"}, means=[TRAIN]),
    "as the scrape jobs of old charts write it": Case(
        labels={"kubernetes_namespace": "vision", "kubernetes_pod_name": "train-0"}, means=[TRAIN]
    ),
    "a GPU that no pod holds": Case(labels={"namespace": "", "pod": "", "Hostname": "gpu-1"}),
    "the same, scraped through a pod": Case(labels={"namespace": "gpu-operator", "pod": "dcgm-exporter-x"}),
    "a pod of the name in another namespace": Case(labels={"namespace": "speech", "pod": "train-0"}),
    "a pod without its namespace": Case(labels={"pod": "train-0"}),
    "the pod of another job": Case(labels={"namespace": "vision", "pod": "tune-0"}, means=[TUNE]),
    "two labels that name two pods": Case(
        labels={**POD, "pod_namespace": "vision", "pod_name": "tune-0"}, means=[TRAIN, TUNE]
    ),
    "on its node": Case(labels={**POD, "node": "gpu-1"}, means=[TRAIN]),
    "on its node, by its long name": Case(labels={**POD, "Hostname": "gpu-1.eu.example"}, means=[TRAIN]),
    "on another node": Case(labels={**POD, "node": "gpu-7"}),
    "on another node that we know, though the label may name anything": Case(labels={**POD, "Hostname": "gpu-2"}),
    "on a node that is known without any pod": Case(labels={**POD, "hostname": "gpu-3"}, among=[TRAIN, node("gpu-3")]),
    "on another's node of the same short name": Case(
        labels={**POD, "Hostname": "gpu-1.us.example"}, among=[workload(pods={"train-0": "gpu-1.eu.example"})]
    ),
    "an exporter's pod and address say nothing of the node": Case(
        labels={**POD, "Hostname": "dcgm-exporter-x", "instance": "10.0.0.7:9400"}, means=[TRAIN]
    ),
    "one label names its node, another something else": Case(
        labels={**POD, "node": "collector", "exported_node": "gpu-1"}, means=[TRAIN]
    ),
    "a federating host in place of the node": Case(labels={**POD, "node": "collector"}),
    "one name in two clusters": Case(labels=POD, among=[HERE, THERE], means=[HERE, THERE]),
    "one name in two clusters, told apart by the node": Case(
        labels={**POD, "Hostname": "gpu-9"}, among=[HERE, THERE], means=[THERE]
    ),
    "one name in two clusters, on nodes of one name": Case(
        labels={**POD, "Hostname": "gpu-1"}, among=[HERE, TWIN], means=[HERE, TWIN]
    ),
    "a cluster's label that nobody explained": Case(
        labels={**POD, "cluster": "us"}, among=[HERE, TWIN], means=[HERE, TWIN]
    ),
    "told apart by the clusters' labels": Case(
        labels={**POD, "cluster": "us"}, among=[HERE, TWIN], clusters=[EU, US], means=[TWIN]
    ),
    "told apart by the clusters' labels, renamed": Case(
        labels={**POD, "cluster": "hub", "exported_cluster": "eu"}, among=[HERE, TWIN], clusters=[EU, US], means=[HERE]
    ),
    "without the label that its cluster's series carry": Case(labels=POD, among=[HERE, TWIN], clusters=[EU, US]),
    "of a cluster that nobody listed": Case(labels={**POD, "cluster": "asia"}, among=[HERE], clusters=[EU, US]),
    "the only cluster that is watched": Case(
        labels=POD, among=[HERE, TWIN], clusters=[Cluster(uid=OTHER)], means=[TWIN]
    ),
}


@pytest.mark.parametrize("name", FINDS)
def test_labels_lead_to(name: str) -> None:
    case = FINDS[name]
    join = Join(USUAL, case.among, case.clusters)
    found = join.workload(case.labels)
    assert (found.refs if found else frozenset()) == {record.ref for record in case.means}
    if found:
        assert case.labels[found.label] == found.value
        assert found.label in join.labels


def test_nodes_are_told_apart_like_pods() -> None:
    nodes = [node("gpu-1"), node("gpu-1", cluster=OTHER)]
    labels = {"node": "gpu-1", "cluster": "us"}
    either = Join(USUAL, nodes).machine(labels)
    one = Join(USUAL, nodes, [EU, US]).machine(labels)
    assert either is not None
    assert either.refs == {record.ref for record in nodes}
    assert one is not None
    assert one.refs == {nodes[1].ref}


def test_a_node_is_the_machine_that_its_cloud_knows() -> None:
    """What leads to either, by id or by name, tells of the machine, and is not ambiguous."""
    here = machine("i-0a", name="ip-10-0-0-5.ec2.internal")
    seen = node("ip-10-0-0-5.ec2.internal", provider_id="aws:///us-east-1a/i-0a")
    other = node("gpu-2", provider_id="aws:///us-east-1a/i-0b")
    join = Join(USUAL, [here, seen, other])
    for labels in ({"node": seen.name}, {"Hostname": "ip-10-0-0-5"}, {"provider_id": "aws:///us-east-1a/i-0a"}):
        found = join.machine(labels)
        assert found is not None
        assert found.refs == {here.ref}
    found = join.machine({"node": "gpu-2"})
    assert found is not None
    assert found.refs == {other.ref}


def test_a_label_of_one_s_own_and_a_pod_lead_to_one_workload_once() -> None:
    ways: list[Way] = [LabelJoin(label="job", to="external_id")]
    (match,) = Join(ways, [TRAIN]).matches({**POD, "job": "vision/Job/train"})
    assert match.pod == "train-0"


WORDS = st.sampled_from(["gpu-1", "gpu-1.eu", "gpu-2", "10.0.0.1:9400", "dcgm-exporter-x", "localhost"])
PODS = st.sampled_from(["train-0", "train-1", "dcgm-exporter-x"])
LABELS = st.fixed_dictionaries(
    {"namespace": st.just("vision"), "pod": PODS},
    optional={"exported_pod": PODS, "node": WORDS, "Hostname": WORDS, "cluster": st.sampled_from(["eu", "us"])},
)


@st.composite
def placed(draw: st.DrawFn) -> ResourceRecord:
    pods = draw(st.dictionaries(PODS, WORDS, min_size=1, max_size=2))
    job = draw(st.sampled_from(["vision/Job/a", "vision/Job/b", "speech/Job/a"]))
    return workload(job, pods=pods, cluster=draw(st.sampled_from([CLUSTER, OTHER])))


@given(records=st.lists(placed(), max_size=3), labels=LABELS, newcomer=placed())
def test_a_further_workload_never_takes_a_series_from_another(
    records: list[ResourceRecord], labels: dict[str, str], newcomer: ResourceRecord
) -> None:
    """It makes it ambiguous, or its node is one that the labels name."""
    records = [record for record in records if record.ref != newcomer.ref]
    before, after = Join(USUAL, records).workload(labels), Join(USUAL, [*records, newcomer]).workload(labels)
    refs = frozenset() if before is None else before.refs
    found = frozenset() if after is None else after.refs
    assert found - refs <= {newcomer.ref}
    if refs - found:
        named = {labels.get("node", ""), labels.get("Hostname", "")}
        assert any(
            word.startswith(placement.node.partition(".")[0]) for placement in newcomer.placements for word in named
        )


@given(records=st.lists(placed(), max_size=4), labels=LABELS, clusters=st.sampled_from([[EU], [US], [EU, US]]))
def test_whoever_says_which_clusters_there_are_only_narrows(
    records: list[ResourceRecord], labels: dict[str, str], clusters: list[Cluster]
) -> None:
    found = Join(USUAL, records, clusters).workload(labels)
    word = {CLUSTER: "eu", OTHER: "us"}
    for ref in frozenset() if found is None else found.refs:
        assert labels.get("cluster") == word[ref.account]
        assert any(cluster.uid == ref.account for cluster in clusters)


# from here on with a server

UUID = "GPU-11111111-aaaa-4aaa-8aaa-111111111111"
UUID2 = "GPU-22222222-bbbb-4bbb-8bbb-222222222222"


@dataclass(frozen=True, kw_only=True)
class Told:
    """Series of a namespace of their own, the workload, and the highest value of each of its devices' signals."""

    series: Mapping[str, float | Samples]
    gives: Mapping[tuple[str, Signal], float] = field(default_factory=dict)
    pods: Mapping[str, str] = field(default_factory=lambda: {"p": "gpu-1"})
    gpus: int = 1
    ambiguous: bool = False


def gpu(labels: str, metric: str = "DCGM_FI_DEV_GPU_UTIL") -> str:
    return f"{metric}{{{labels}}}"


ENGINE = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
TELLS = {
    "a whole GPU": Told(
        series={gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="NS",pod="p"'): 44},
        gives={(f"p:{UUID}", UTILISATION): 0.44},
    ),
    "two of eight GPUs of a node": Told(
        series={
            gpu(f'gpu="{n}",UUID="GPU-{n}",Hostname="gpu-1",namespace="NS",pod="{pod}"'): n
            for n, pod in enumerate(["p", "p", "q", "q", "", "", "", ""])
        },
        gpus=2,
        gives={("p:GPU-0", UTILISATION): 0, ("p:GPU-1", UTILISATION): 0.01},
    ),
    "MIG: the slices that its pod holds, two of one GPU": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",GPU_I_ID="{n}",Hostname="gpu-1",namespace="NS",pod="{pod}"', ENGINE): n / 10
            for n, pod in [(7, "p"), (8, ""), (9, "p"), (10, "q")]
        },
        gpus=2,
        gives={(f"p:{UUID}/7", UTILISATION): 0.7, (f"p:{UUID}/9", UTILISATION): 0.9},
    ),
    "time-slicing: the device's value is each pod's, and nothing is added up": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="{n}",namespace="NS",pod="{pod}"', ENGINE): 0.71
            for n, pod in enumerate("pqr")
        },
        gives={(f"p:{UUID}/vgpu0", UTILISATION): 0.71},
    ),
    "time-slicing: two shares of one GPU in one pod are two devices": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="{n}",namespace="NS",pod="p"', ENGINE): 0.5
            for n in (1, 2)
        },
        gpus=2,
        gives={(f"p:{UUID}/vgpu{n}", UTILISATION): 0.5 for n in (1, 2)},
    ),
    "time-slicing: two pods of one workload on one GPU are two devices": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="{n}",namespace="NS",pod="{pod}"', ENGINE): 0.5
            for n, pod in enumerate("pq")
        },
        pods={"p": "gpu-1", "q": "gpu-1"},
        gpus=2,
        gives={(f"p:{UUID}/vgpu0", UTILISATION): 0.5, (f"q:{UUID}/vgpu1", UTILISATION): 0.5},
    ),
    "time-slicing without virtual GPUs: only one of the pods is named, and it is not this one": Told(
        series={gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="NS",pod="q"'): 0}
    ),
    "slices that are shared": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",GPU_I_ID="3",Hostname="gpu-1",vgpu="{n}",namespace="NS",pod="{pod}"', ENGINE): 0
            for n, pod in enumerate("pq")
        },
        gives={(f"p:{UUID}/3/vgpu0", UTILISATION): 0},
    ),
    "what a pod's own processes did stands beside the device, and is not added to it": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1"'): 90,
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="0",pod_uid="u",namespace="NS",pod="p"'): 60,
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="1",pod_uid="v",namespace="NS",pod="q"'): 30,
        },
        gives={(f"p:{UUID}/vgpu0", UTILISATION): 0.6},
    ),
    "no process was seen: that is no sample": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1"'): 90,
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="0",pod_uid="u",namespace="NS",pod="p"'): 0,
        },
    ),
    "no process was seen, and the graphics engine tells": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="0",pod_uid="u",namespace="NS",pod="p"'): 0,
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",vgpu="0",namespace="NS",pod="p"', ENGINE): 0.9,
        },
        gives={(f"p:{UUID}/vgpu0", UTILISATION): 0.9},
    ),
    "pods on several nodes whose GPUs are known by number only": Told(
        series={
            gpu(f'gpu="{n}",Hostname="{host}",namespace="NS",pod="{pod}"'): n
            for pod, host in [("w-0", "gpu-1"), ("w-1", "gpu-2")]
            for n in (0, 1)
        },
        pods={"w-0": "gpu-1", "w-1": "gpu-2"},
        gpus=4,
        gives={(f"{pod}:{n}", UTILISATION): n / 100 for pod in ("w-0", "w-1") for n in (0, 1)},
    ),
    "pods whose nodes name GPUs in different ways": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="NS",pod="w-0"'): 1,
            'gpu_gfx_activity{serial_number="s0",hostname="gpu-2",namespace="NS",pod="w-1"}': 2,
        },
        pods={"w-0": "gpu-1", "w-1": "gpu-2"},
        gpus=2,
        gives={(f"w-0:{UUID}", UTILISATION): 0.01, ("w-1:s0", UTILISATION): 0.02},
    ),
    "two containers of a pod that share its GPU": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",container="{c}",namespace="NS",pod="p"'): v
            for c, v in [("main", 3), ("side", 5)]
        },
        gives={(f"p:{UUID}", UTILISATION): 0.05},
    ),
    "more GPUs than it holds are those of a namesake": Told(
        series={
            gpu(f'gpu="0",UUID="{uuid}",instance="10.0.{n}.1:9400",namespace="NS",pod="p"'): 0
            for n, uuid in enumerate([UUID, UUID2])
        },
        ambiguous=True,
    ),
    "the GPU it had before it was started anew is no namesake's": Told(
        series={
            gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="NS",pod="p"'): every(
                60, 9, end=NOON - timedelta(minutes=40)
            ),
            gpu(f'gpu="1",UUID="{UUID2}",Hostname="gpu-1",namespace="NS",pod="p"'): every(
                60, 1, start=NOON - timedelta(minutes=30)
            ),
        },
        gives={(f"p:{UUID}", UTILISATION): 0.09, (f"p:{UUID2}", UTILISATION): 0.01},
    ),
    "the same pod name on another node is another cluster's": Told(
        series={gpu(f'gpu="0",UUID="{UUID}",node="elsewhere",namespace="NS",pod="p"'): 0}
    ),
}
RESTARTED = "the GPU it had before it was started anew is no namesake's"


def namespace_of(name: str) -> str:
    return f"ns-{list(TELLS).index(name)}"


def of(name: str) -> ResourceRecord:
    told = TELLS[name]
    launched_at = NOON - timedelta(minutes=31) if name == RESTARTED else NOON - timedelta(days=1)
    return workload(f"{namespace_of(name)}/Job/j", pods=told.pods, gpus=told.gpus, launched_at=launched_at)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("workloads")
    fill(
        folder,
        {
            key.replace('"NS"', f'"{namespace_of(name)}"'): every(60, value)
            if isinstance(value, int | float)
            else value
            for name, told in TELLS.items()
            for key, value in told.series.items()
        },
    )
    with running(folder) as url:
        yield url


@pytest.mark.parametrize("name", TELLS)
def test_a_workload_alone_is_told_of(server: str, name: str) -> None:
    """As before an act, when nobody asks about its nodes."""
    record = of(name)
    answer = ask(telemetry(server), [record])
    assert answer.faults == ()
    assert answer.ambiguous == ({record.ref} if TELLS[name].ambiguous else frozenset())
    assert peaks(answer, record) == pytest.approx(TELLS[name].gives)


def test_all_workloads_are_told_of_together_with_their_nodes(server: str) -> None:
    records = {name: of(name) for name in TELLS}
    nodes = [node("gpu-1", gpus=40), node("gpu-2", gpus=4)]
    answer = ask(telemetry(server), [*records.values(), *nodes])
    assert answer.faults == ()
    assert answer.ambiguous == {records[name].ref for name, told in TELLS.items() if told.ambiguous}
    for name, told in TELLS.items():
        assert peaks(answer, records[name]) == pytest.approx(told.gives), name
    for one in nodes:
        assert peaks(answer, one)


def test_a_series_tells_of_its_machine_and_of_its_workload(prometheus: Serve) -> None:
    url = prometheus({gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="vision",pod="train-0"'): every(60, 44)})
    here = machine("i-0a", name="gpu-1")
    answer = ask(telemetry(url), [here, TRAIN])
    assert peaks(answer, here) == pytest.approx({(UUID, UTILISATION): 0.44})
    assert peaks(answer, TRAIN) == pytest.approx({(f"train-0:{UUID}", UTILISATION): 0.44})


def test_an_ambiguous_machine_leaves_its_workload_known(prometheus: Serve) -> None:
    url = prometheus({gpu(f'gpu="0",UUID="{UUID}",Hostname="gpu-1",namespace="vision",pod="train-0"'): every(60, 44)})
    hosts = [machine("i-0a", name="gpu-1"), machine("i-0b", name="gpu-1")]
    answer = ask(telemetry(url), [*hosts, TRAIN])
    assert answer.ambiguous == {host.ref for host in hosts}
    assert {one.ref for one in answer.series} == {TRAIN.ref}


def test_one_name_in_two_clusters_is_unknown_for_both_until_they_are_told_apart(prometheus: Serve) -> None:
    series = {
        gpu(f'UUID="GPU-{name}",instance="10.0.0.{n}:9400",cluster="{name}",namespace="vision",pod="train-0"'): every(
            60, n
        )
        for n, name in enumerate(["eu", "us"])
    }
    url = prometheus(series)
    both = [HERE, THERE]
    unclear = ask(telemetry(url), both)
    assert unclear.series == ()
    assert unclear.ambiguous == {HERE.ref, THERE.ref}
    listed = [{"uid": CLUSTER, "labels": {"cluster": "eu"}}, {"uid": OTHER, "labels": {"cluster": "us"}}]
    clear = ask(telemetry(url, clusters=listed), both)
    assert clear.ambiguous == frozenset()
    assert {(one.ref, one.device) for one in clear.series} == {
        (HERE.ref, "train-0:GPU-eu"),
        (THERE.ref, "train-0:GPU-us"),
    }
    one = ask(telemetry(url, clusters=[listed[1]]), both)
    assert {series.ref for series in one.series} == {THERE.ref}


def test_a_namesake_in_another_cluster_counts_though_only_one_is_asked_about(prometheus: Serve) -> None:
    url = prometheus({gpu(f'UUID="{UUID}",namespace="vision",pod="train-0"'): every(60, 0)})
    source = telemetry(url)
    ask(source, [THERE])
    answer = ask(source, [HERE])
    assert answer.series == ()
    assert answer.ambiguous == {HERE.ref, THERE.ref}


def test_a_pod_that_moved_is_found_where_it_is(prometheus: Serve) -> None:
    url = prometheus(
        {
            gpu(f'UUID="{uuid}",Hostname="{host}",namespace="vision",pod="train-0"'): every(60, value)
            for uuid, host, value in [(UUID, "gpu-1", 90), (UUID2, "gpu-2", 1)]
        }
    )
    source = telemetry(url)
    ask(source, [node("gpu-1"), node("gpu-2")])
    assert list(utilisation(ask(source, [TRAIN]))) == [f"train-0:{UUID}"]
    moved = replace(TRAIN, placements=(replace(TRAIN.placements[0], node="gpu-2"),))
    assert list(utilisation(ask(source, [moved]))) == [f"train-0:{UUID2}"]


# whole pages, scraped

EMBED, SPEAK = "embed-predictor-0", "speak-predictor-0"
SLICES = f"""\
{ENGINE}{{gpu="0",UUID="{UUID}",GPU_I_ID="7",Hostname="gpu-1",container="server",namespace="vision",pod="{EMBED}"}} 0.25
{ENGINE}{{gpu="0",UUID="{UUID}",GPU_I_ID="8",Hostname="gpu-1"}} 0
{ENGINE}{{gpu="0",UUID="{UUID}",GPU_I_ID="9",Hostname="gpu-1",container="server",namespace="vision",pod="{SPEAK}"}} 0.5
"""
HELD_BY_NONE = {
    "the labels are empty": f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",container="",namespace="",pod=""}} 44\n',
    "there are none": f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{UUID}",Hostname="gpu-1"}} 44\n',
}
EXPORTER = {"pod": "dcgm-exporter-x", "namespace": "gpu-operator", "container": "exporter"}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(Page(text=SLICES), id="scraped outside the cluster"),
        pytest.param(Page(text=SLICES, target_labels=EXPORTER), id="renamed labels"),
        pytest.param(Page(text=SLICES, target_labels=EXPORTER, honor_labels=True), id="honoured labels"),
        pytest.param(Page(text=SLICES, target_labels={**EXPORTER, "node": "gpu-1"}), id="with the node's name"),
        pytest.param(
            Page(
                text=SLICES.replace("namespace=", "pod_namespace=").replace(",pod=", ",pod_name="),
                target_labels=EXPORTER,
            ),
            id="as labels were of old",
        ),
    ],
)
def test_slices_tell_of_the_servers_that_hold_them(tmp_path: Path, page: Page) -> None:
    embed = workload("vision/InferenceService/embed", pods={EMBED: "gpu-1"})
    speak = workload("vision/InferenceService/speak", pods={SPEAK: "gpu-1"})
    exporter = workload("gpu-operator/DaemonSet/dcgm-exporter", pods={"stranger": "gpu-1"})
    host = node("gpu-1", gpus=1)
    with scraped(tmp_path, {"dcgm": page}) as url:
        now = datetime.now(UTC)
        answer = ask(
            telemetry(url),
            [embed, speak, exporter, host],
            start=now - timedelta(minutes=5),
            end=now + timedelta(seconds=1),
        )
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    assert peaks(answer, embed) == {(f"{EMBED}:{UUID}/7", UTILISATION): 0.25}
    assert peaks(answer, speak) == {(f"{SPEAK}:{UUID}/9", UTILISATION): 0.5}
    assert peaks(answer, exporter) == {}
    assert peaks(answer, host) == {(f"{UUID}/{n}", UTILISATION): value for n, value in [(7, 0.25), (8, 0), (9, 0.5)]}


@pytest.mark.parametrize("text", HELD_BY_NONE.values(), ids=HELD_BY_NONE)
def test_gpus_that_no_pod_holds_tell_of_nobody_s_workload(tmp_path: Path, text: str) -> None:
    """Scraped through a pod: Prometheus puts the exporter's own labels in the place of those that say nothing."""
    page = Page(text=text, target_labels={**EXPORTER, "node": "gpu-1"})
    strangers = [workload(pods={"train-0": "gpu-1"}), node("gpu-1")]
    with scraped(tmp_path, {"dcgm": page}) as url:
        now = datetime.now(UTC)
        answer = ask(telemetry(url), strangers, start=now - timedelta(minutes=5), end=now + timedelta(seconds=1))
    assert {one.ref.kind for one in answer.series} == {Kind.NODE}


ACCEPTED: dict[str, list[dict[str, Any]]] = {
    "one cluster": [{"uid": CLUSTER}],
    "two, by a label": [{"uid": CLUSTER, "labels": {"cluster": "eu"}}, {"uid": OTHER, "labels": {"cluster": "us"}}],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_clusters_are_written(name: str) -> None:
    telemetry("https://metrics.example.org", clusters=ACCEPTED[name])


@pytest.mark.parametrize("clusters", [[], [{"uid": ""}], [{"labels": {}}], [{"uid": CLUSTER, "labels": {"a-b": "c"}}]])
def test_clusters_that_say_nothing_are_refused(clusters: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="clusters"):
        telemetry("https://metrics.example.org", clusters=clusters)
