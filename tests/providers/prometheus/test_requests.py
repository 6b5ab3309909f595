"""What inference servers counted, and how it is judged beside their GPUs, through a real Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import IdleProfile
from providers.prometheus.client import Row
from providers.prometheus.join import Match
from providers.prometheus.telemetry import Asking, of_counters
from providers.prometheus.vocabulary import METRICS
from providers.records import ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer
from service.pipeline.activity import judge_activity
from service.pipeline.samples import SampleMemory
from tests.providers.prometheus.builders import NOON, START, ask, every, machine, node, telemetry, workload
from tests.providers.prometheus.conftest import Fronted, Serve
from tests.providers.prometheus.front import Call, Front, Reply, answer, refusal
from tests.providers.prometheus.server import Samples, fill, running

MINUTE = 60
SERVER = workload("serving/Deployment/chat", pods={"chat-a": "gpu-1"})
TWO_PODS = workload("serving/Deployment/chat", pods={"chat-a": "gpu-1", "chat-b": "gpu-2"}, gpus=2)
POD_A = 'namespace="serving",pod="chat-a"'
VLLM = "vllm:request_success_total"


def gpu(pod: str = "chat-a", value: float | Samples = 0.0, host: str = "gpu-1") -> dict[str, Samples]:
    key = f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{UUID="GPU-{pod}",Hostname="{host}",namespace="serving",pod="{pod}"}}'
    return {key: every(MINUTE, value) if isinstance(value, int | float) else value}


def counter(labels: str = "", value: float | Samples = 41, *, pod: str = POD_A, name: str = VLLM) -> dict[str, Samples]:
    key = f"{name}{{{pod}{',' if labels else ''}{labels}}}"
    return {key: every(MINUTE, value) if isinstance(value, int | float) else value}


def since(minutes: int, value: float, before: float | None = None) -> Samples:
    """A value from so many minutes before noon on, and another, or nothing, until then."""
    moment = NOON - timedelta(minutes=minutes)
    earlier = [] if before is None else every(MINUTE, before, end=moment)
    return [*earlier, *every(MINUTE, value, start=moment)]


def until(minutes: int, value: float) -> Samples:
    return every(MINUTE, value, end=NOON - timedelta(minutes=minutes))


def merged(*parts: Mapping[str, Samples]) -> dict[str, Samples]:
    return {key: samples for part in parts for key, samples in part.items()}


def counted(told: TelemetryAnswer) -> dict[str, set[float]]:
    """Counter → every value it had."""
    return {one.device: set(one.values) for one in told.series if one.signal is Signal.REQUESTS_TOTAL}


def judged(series: Iterable[Series], record: ResourceRecord, *, ambiguous: Iterable[ResourceRef] = ()) -> str | None:
    return judge_activity(
        [one for one in series if one.ref == record.ref],
        gpu_count=record.gpu_count,
        started_at=record.launched_at,
        ambiguous=record.ref in set(ambiguous),
        profile=IdleProfile(),
        at=NOON,
    ).activity


@dataclass(frozen=True, kw_only=True)
class Case:
    """Series, whose they are, how it is judged, and what its counters stood at."""

    series: Mapping[str, Samples]
    word: str | None
    of: ResourceRecord = SERVER
    counts: Mapping[str, set[float]] = field(default_factory=dict)


CASES = {
    "idle GPUs and nothing that counts": Case(series=gpu(), word="idle"),
    "idle GPUs and a counter that stands still": Case(
        series=merged(gpu(), counter('instance="10.0.0.9:8000"')), word="idle", counts={f"chat-a:{VLLM}:8000": {41}}
    ),
    "idle GPUs and one request": Case(
        series=merged(gpu(), counter(value=since(20, 42, 41))), word="busy", counts={f"chat-a:{VLLM}": {41, 42}}
    ),
    "a request long before the window": Case(
        series=merged(gpu(), counter(value=since(55, 42, 41))), word="idle", counts={f"chat-a:{VLLM}": {41, 42}}
    ),
    "a request as the look is taken": Case(
        series=merged(gpu(), counter(value=since(2, 42, 41))), word="busy", counts={f"chat-a:{VLLM}": {41, 42}}
    ),
    "a counter that began anew": Case(
        series=merged(gpu(), counter(value=since(20, 0, 41))), word="busy", counts={f"chat-a:{VLLM}": {41, 0}}
    ),
    "a request to the second of two models": Case(
        series=merged(gpu(), counter('model="a"', 7), counter('model="b"', since(20, 1, 0))),
        word="busy",
        counts={f"chat-a:{VLLM}": {7, 8}},
    ),
    "a first outcome of its kind": Case(
        series=merged(gpu(), counter('finished_reason="stop"', 7), counter('finished_reason="length"', since(20, 1))),
        word="busy",
        counts={f"chat-a:{VLLM}": {7, 8}},
    ),
    "two Prometheus that tell of one counter do not double it": Case(
        series=merged(gpu(), counter('replica="0"', 7), counter('replica="1"', since(20, 7))),
        word="idle",
        counts={f"chat-a:{VLLM}": {7}},
    ),
    "two scrape jobs that tell of one counter do not double it": Case(
        series=merged(gpu(), counter('job="pods"', 7), counter('job="services"', since(20, 7))),
        word="idle",
        counts={f"chat-a:{VLLM}": {7}},
    ),
    "two ports of a pod count for themselves": Case(
        series=merged(gpu(), counter('instance="10.0.0.9:8000"', 7), counter('instance="10.0.0.9:8001"', 5)),
        word="idle",
        counts={f"chat-a:{VLLM}:8000": {7}, f"chat-a:{VLLM}:8001": {5}},
    ),
    "a server and the proxy beside it, of which one saw a request": Case(
        series=merged(gpu(), counter(), counter(value=since(20, 9, 8), name="revision_request_count")),
        word="busy",
        counts={f"chat-a:{VLLM}": {41}, "chat-a:revision_request_count": {8, 9}},
    ),
    "a counter that fell silent": Case(
        series=merged(gpu(), counter(value=until(20, 41))), word=None, counts={f"chat-a:{VLLM}": {41}}
    ),
    "a counter that is new": Case(
        series=merged(gpu(), counter(value=since(20, 41))), word=None, counts={f"chat-a:{VLLM}": {41}}
    ),
    "a still counter and busy GPUs": Case(
        series=merged(gpu(value=0.9), counter()), word="busy", counts={f"chat-a:{VLLM}": {41}}
    ),
    "a still counter and silent GPUs": Case(series=counter(), word=None, counts={f"chat-a:{VLLM}": {41}}),
    "a request to one of two pods": Case(
        of=TWO_PODS,
        series=merged(
            gpu(),
            gpu("chat-b", host="gpu-2"),
            counter(),
            counter(value=since(20, 2, 1), pod='namespace="serving",pod="chat-b"'),
        ),
        word="busy",
        counts={f"chat-a:{VLLM}": {41}, f"chat-b:{VLLM}": {1, 2}},
    ),
    "two pods on two nodes that rest": Case(
        of=TWO_PODS, series=merged(gpu(), gpu("chat-b", host="gpu-2")), word="idle"
    ),
    "two pods on two nodes, of which one works": Case(
        of=TWO_PODS, series=merged(gpu(), gpu("chat-b", 0.5, host="gpu-2")), word="busy"
    ),
    "two pods on two nodes, of which one is silent": Case(of=TWO_PODS, series=gpu(), word=None),
    "pods that started within the window": Case(
        of=replace(SERVER, launched_at=NOON - timedelta(minutes=58)), series=gpu(), word=None
    ),
    "pods that are warm for a window": Case(
        of=replace(SERVER, launched_at=NOON - timedelta(minutes=64)), series=gpu(), word="idle"
    ),
    "Triton": Case(
        series=merged(gpu(), counter('model="a",version="1"', since(20, 2, 1), name="nv_inference_request_success")),
        word="busy",
        counts={"chat-a:nv_inference_request_success": {1, 2}},
    ),
    "renamed labels of a counter, seen through another exporter": Case(
        series=merged(
            gpu(),
            counter(
                value=since(20, 2, 1),
                pod='namespace="monitoring",pod="proxy",exported_namespace="serving",exported_pod="chat-a"',
            ),
        ),
        word="busy",
        counts={f"chat-a:{VLLM}": {1, 2}},
    ),
    "another pod's requests": Case(
        series=merged(gpu(), counter(value=since(20, 2, 1), pod='namespace="speech",pod="chat-a"')), word="idle"
    ),
    "a pod of the name on another node": Case(
        series=merged(gpu(), counter('node="gpu-9"', since(20, 2, 1))), word="idle"
    ),
}


@pytest.mark.parametrize("sentence", CASES)
def test_judged(prometheus: Serve, sentence: str) -> None:
    case = CASES[sentence]
    told = ask(telemetry(prometheus(case.series)), [case.of])
    assert told.faults == ()
    assert judged(told.series, case.of, ambiguous=told.ambiguous) == case.word
    assert counted(told) == case.counts


@pytest.mark.parametrize("name", [metric.name for metric in METRICS[Signal.REQUESTS_TOTAL]])
def test_each_known_counter_is_read(scripted: Front, name: str) -> None:
    labels = {"__name__": name, "namespace": "serving", "pod": "chat-a"}
    series = {"metric": labels, "values": [[START.timestamp(), "1"], [NOON.timestamp() - 60, "2"]]}

    def rule(call: Call) -> Reply:
        if "DCGM" in call.query or name not in call.query:
            return answer([])
        return answer([{"metric": {"namespace": "serving", "pod": "chat-a"}}] if call.finds_hosts else [series])

    scripted.rules.append(rule)
    assert counted(ask(telemetry(scripted.url), [SERVER])) == {f"chat-a:{name}": {1.0, 2.0}}


def test_counters_of_one_s_own_take_the_place_of_the_usual_ones(prometheus: Serve) -> None:
    url = prometheus(merged(gpu(), counter(), counter(value=3, name="my_requests")))
    told = ask(telemetry(url, metrics={"requests": ["my_requests"]}), [SERVER])
    assert counted(told) == {"chat-a:my_requests": {3}}


def test_counters_that_are_left_out_are_not_asked_for(fronted: Fronted) -> None:
    front = fronted(merged(gpu(), counter()))
    told = ask(telemetry(front.url, metrics={"requests": []}), [SERVER])
    assert {one.signal for one in told.series} == {Signal.UTILISATION}
    assert not [call for call in front.calls if VLLM in call.query]


def test_machines_alone_are_not_asked_for_requests(fronted: Fronted) -> None:
    front = fronted(merged(gpu(), counter()))
    ask(telemetry(front.url), [machine("gpu-1"), node("gpu-2")])
    assert not [call for call in front.calls if VLLM in call.query or "pod_name" in call.query]


@pytest.mark.parametrize("which", ["who serves", "what they served"])
def test_requests_nobody_could_ask_for_leave_the_workload_unknown_and_its_node_known(
    fronted: Fronted, which: str
) -> None:
    front = fronted(merged(gpu(), counter()))
    front.rules.append(
        lambda call: (
            refusal(503, "down") if VLLM in call.query and call.finds_hosts is (which == "who serves") else None
        )
    )
    told = ask(telemetry(front.url), [SERVER, node("gpu-1", gpus=1)])
    assert {one.ref for one in told.series} == {node("gpu-1").ref}
    (fault,) = told.faults
    assert fault.fault is not None
    assert fault.fault.code == "Unreachable"
    assert fault.part == ("requests" if which == "who serves" else "kubernetes")


def test_what_is_missing_of_a_node_is_missing_of_the_workloads_on_it(fronted: Fronted) -> None:
    """Their GPUs are asked for in one question."""
    front = fronted(merged(gpu(), gpu("chat-b", host="gpu-2")))
    front.rules.append(lambda call: refusal(503, "down") if "gpu-2" in call.query else None)
    nodes = [node("gpu-1", gpus=1), replace(node("gpu-2", gpus=1), ref=replace(node("gpu-2").ref, region="us"))]
    told = ask(telemetry(front.url), [TWO_PODS, *nodes])
    assert {one.ref for one in told.series} == {nodes[0].ref}
    assert [fault.part for fault in told.faults] == ["kubernetes us"]


def test_a_pod_that_is_replaced_is_remembered_for_no_longer_than_it_matters(tmp_path: Path) -> None:
    """From look to look, with the samples of looks before: the old pod's GPU and counter hold nothing up."""
    old = replace(SERVER, launched_at=NOON - timedelta(days=1))
    new = replace(workload("serving/Deployment/chat", pods={"chat-b": "gpu-2"}), launched_at=NOON)
    later = NOON + timedelta(minutes=70)
    fill(
        tmp_path,
        merged(
            gpu(),
            counter(),
            gpu("chat-b", every(MINUTE, 0.0, start=NOON, end=later), host="gpu-2"),
            counter(value=every(MINUTE, 0, start=NOON, end=later), pod='namespace="serving",pod="chat-b"'),
        ),
    )
    words = {}
    memory = SampleMemory()
    with running(tmp_path) as url:
        moment = [NOON]
        source = telemetry(url, now=lambda: moment[0])
        for minutes in range(0, 71, 5):
            moment[0] = NOON + timedelta(minutes=minutes)
            record = old if minutes == 0 else new
            memory.refresh(source, [record], window=timedelta(minutes=53), interval=timedelta(minutes=5), now=moment[0])
            words[minutes] = judge_activity(
                memory.of(record.ref),
                gpu_count=1,
                started_at=record.launched_at,
                ambiguous=False,
                profile=IdleProfile(),
                at=moment[0],
            ).activity
    assert {word for minutes, word in words.items() if minutes < 60} == {"idle", None}
    assert [minutes for minutes, word in words.items() if word == "idle"] == [0, 60, 65, 70]


EVENTS = st.lists(st.tuples(st.integers(0, 59), st.sampled_from(["stop", "length", "restart"])), max_size=6)


@given(events=EVENTS)
def test_what_a_server_did_is_seen_whatever_it_was(events: list[tuple[int, str]]) -> None:
    """What is told of a counter moves when the sum of its parts does: parts appear, and vanish when it begins anew."""
    rows, moved = history(events)
    (told,) = served(rows).values()
    seen = {minute for minute in range(1, 60) if told.get(minute) != told.get(minute - 1)}
    assert seen == moved


def history(events: list[tuple[int, str]]) -> tuple[dict[str, dict[int, float]], set[int]]:
    """Minute by minute what each part of a counter stands at, and in which minutes their sum changes."""
    rows: dict[str, dict[int, float]] = {"stop": {}, "length": {}}
    count = {"stop": 3.0}
    moved = set()
    for minute in range(60):
        before = sum(count.values())
        for at, what in events:
            if at == minute:
                count = {"stop": 0.0} if what == "restart" else {**count, what: count.get(what, 0.0) + 1}
        if minute and sum(count.values()) != before:
            moved.add(minute)
        for part, value in count.items():
            rows[part][minute] = value
    return rows, moved


def served(rows: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """The counters' values by minute, as the provider adds them up."""
    match = Match(refs=frozenset({SERVER.ref}), label="pod", value="chat-a", pod="chat-a")
    found = [
        (
            Row(
                labels={"__name__": VLLM, "finished_reason": part},
                samples=[(int(START.timestamp()) + MINUTE * minute, value) for minute, value in values.items()],
            ),
            match,
        )
        for part, values in rows.items()
        if values
    ]
    asking = Asking(
        session=None,  # type: ignore[arg-type]
        asked={SERVER.ref: SERVER},
        first=int(START.timestamp()),
        last=int(NOON.timestamp()),
        until=0,
    )
    return {
        one.device: dict(zip([(time - asking.first) // MINUTE for time in one.times], one.values, strict=True))
        for one in of_counters(found, asking)
    }


# what it costs the server


def fleet(serving: int) -> tuple[list[ResourceRecord], list[ResourceRecord], Callable[[Call], Reply]]:
    """500 workloads of one GPU each on 63 nodes, some of them with a counter, and a server that knows who speaks."""
    workloads = [
        workload(f"team-{n % 20}/Deployment/server-{n}", pods={f"server-{n}-{'f' * 10}-{n:05}": f"gpu-{n // 8}"})
        for n in range(500)
    ]
    nodes = [node(f"gpu-{n}") for n in range(63)]
    labels = [
        {"namespace": record.ref.external_id.partition("/")[0], "pod": placed.pod, "Hostname": placed.node}
        for record in workloads
        for placed in record.placements
    ]

    def rule(call: Call) -> Reply:
        if not call.finds_hosts:
            return answer([])
        return answer([{"metric": one} for one in (labels[:serving] if VLLM in call.query else labels)])

    return workloads, nodes, rule


def test_500_workloads_cost_a_few_questions(scripted: Front) -> None:
    """With their nodes, in the first look of 53 minutes and in the later ones of a quarter of an hour."""
    workloads, nodes, rule = fleet(serving=200)
    scripted.rules.append(rule)
    source = telemetry(scripted.url)

    def questions(records: list[ResourceRecord], minutes: int) -> tuple[int, int, int]:
        before = len(scripted.calls)
        ask(source, records, start=NOON - timedelta(minutes=minutes))
        calls = scripted.calls[before:]
        found = [call for call in calls if call.finds_hosts]
        requests = [call for call in calls if VLLM in call.query and not call.finds_hosts]
        return len(found), len(calls) - len(found) - len(requests), len(requests)

    assert questions([*nodes, *workloads], 53) == (2, 3, 2)
    assert questions([*nodes, *workloads], 15) == (0, 1, 1)
    assert questions(workloads, 53) == (0, 3, 2)  # without their nodes, by the pods' names
    assert questions(workloads[:1], 53) == (0, 1, 1)
    assert questions(nodes, 53) == (0, 3, 0)


def test_pods_are_answered_for_with_their_node(scripted: Front) -> None:
    workloads, nodes, rule = fleet(serving=0)
    scripted.rules.append(rule)
    ask(telemetry(scripted.url), [*nodes, *workloads])
    assert not [call for call in scripted.calls if not call.finds_hosts and "server-" in call.query]
