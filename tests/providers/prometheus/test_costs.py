"""Few questions, each of a bounded size, in bounded time, whatever the fleet and whatever the server puts up with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count

import pytest

from providers.prometheus import Config
from providers.prometheus.client import QUERY_SECONDS, Client
from providers.prometheus.telemetry import MOST_QUERY_BYTES, PrometheusTelemetry, Question
from providers.prometheus.vocabulary import METRICS
from providers.records import Signal, TelemetryAnswer
from tests.providers.prometheus.builders import NOON, START, ask, every, machine, telemetry
from tests.providers.prometheus.conftest import Fronted
from tests.providers.prometheus.front import Call, Front, Reply, answer, refusal
from tests.providers.prometheus.server import Samples

HOSTS = [machine(f"i-{n:04}", name=f"gpu-{n:04}.research.corp.example", gpus=2) for n in range(40)]


def fleet(seconds: int = 60) -> dict[str, Samples]:
    return {
        f'DCGM_FI_DEV_GPU_UTIL{{UUID="GPU-{record.ref.external_id}-{gpu}",Hostname="{record.name}"}}': every(
            seconds, gpu
        )
        for record in HOSTS
        for gpu in range(2)
    }


def told(given: TelemetryAnswer) -> dict[tuple[str, str], int]:
    """(machine, device) → how many samples."""
    return {(one.ref.external_id, one.device): len(one.times) for one in given.series}


WHOLE = {(record.ref.external_id, f"GPU-{record.ref.external_id}-{gpu}"): 60 for record in HOSTS for gpu in range(2)}


def test_a_small_fleet_takes_two_questions(fronted: Fronted) -> None:
    front = fronted(fleet())
    given = ask(telemetry(front.url), HOSTS)
    assert told(given) == WHOLE
    assert [call.finds_hosts for call in front.calls] == [True, False]
    assert {call.path for call in front.calls} == {"/api/v1/query"}
    assert {call.fields["timeout"] for call in front.calls} == {f"{QUERY_SECONDS}s"}


def test_hosts_are_looked_for_again_only_after_a_while_or_for_another_window(fronted: Fronted) -> None:
    front, moment = fronted(fleet()), [NOON]
    source = telemetry(front.url, now=lambda: moment[0])

    def looked(*, back: int = 60, forward: int = 0) -> bool:
        before = len(front.calls)
        ask(source, HOSTS[:1], start=NOON - timedelta(minutes=back), end=NOON + timedelta(minutes=forward))
        return any(call.finds_hosts for call in front.calls[before:])

    assert looked()
    assert not looked()
    assert not looked(back=15)
    assert looked(back=90)
    assert looked(forward=5)
    moment[0] += timedelta(minutes=4, seconds=59)
    assert not looked(forward=5)
    moment[0] += timedelta(seconds=1)
    assert looked(forward=5)


def test_no_question_is_longer_than_it_may_be_or_about_more_than_it_may_be(scripted: Front) -> None:
    """A fleet of 2,000 machines with 8 GPUs each and long names."""
    records = [machine(f"i-{n:05}", name=f"{'n' * 40}-{n:05}.corp.example", gpus=8) for n in range(2_000)]

    def rule(call: Call) -> Reply:
        if call.finds_hosts:
            return answer([{"metric": {"Hostname": record.name}} for record in records])
        return answer([])

    scripted.rules.append(rule)
    ask(telemetry(scripted.url), records)
    lookups = [call for call in scripted.calls if not call.finds_hosts]
    names = len("".join(metric.name + "|" for metrics in METRICS.values() for metric in metrics))
    assert max(len(call.query.encode()) for call in lookups) < MOST_QUERY_BYTES + names + 100
    hosts = [call.query.count("corp") for call in lookups]
    assert sum(hosts) == 2_000
    # five signals of eight GPUs, four samples a minute for an hour: 9,600 samples a machine, 250,000 a question
    assert max(hosts) == 26


def test_shorter_windows_hold_more_machines(scripted: Front) -> None:
    records = [machine(f"i-{n:05}", name=f"n{n:05}", gpus=8) for n in range(200)]
    hosts = answer([{"metric": {"Hostname": record.name}} for record in records])
    scripted.rules.append(lambda call: hosts if call.finds_hosts else answer([]))
    ask(telemetry(scripted.url), records, start=NOON - timedelta(minutes=10))
    assert len(scripted.calls) == 1 + 2


def test_each_region_is_asked_for_by_itself(scripted: Front) -> None:
    records = [machine(f"i-{n}", region=region) for n, region in enumerate(["us-east-1", "eu-west-1", "us-east-1"])]
    hosts = answer([{"metric": {"instance_id": record.ref.external_id}} for record in records])
    scripted.rules.append(lambda call: hosts if call.finds_hosts else answer([]))
    ask(telemetry(scripted.url), records)
    assert sorted(call.query.partition("instance_id=~")[2][:10] for call in scripted.calls[1:]) == [
        '"i-0|i-2"}',
        '"i-1"}[360',
    ]


def test_a_fleet_that_does_not_speak_is_not_asked_further(scripted: Front) -> None:
    scripted.rules.append(lambda call: answer([{"metric": {"Hostname": "stranger"}}]))
    assert ask(telemetry(scripted.url), HOSTS) == TelemetryAnswer(series=())
    assert len(scripted.calls) == 1


def test_a_server_that_wants_less_at_a_time_is_asked_in_parts(fronted: Fronted) -> None:
    """A real Prometheus that loads at most 400 samples: six of eighty series, in an hour by minutes."""
    front = fronted(fleet(), "--query.max-samples=400")
    given = ask(telemetry(front.url), HOSTS)
    assert given.faults == ()
    assert told(given) == WHOLE
    assert 20 < len(front.calls) < 50


def test_windows_are_halved_when_there_is_nothing_else_to_halve(fronted: Fronted) -> None:
    front = fronted({key: samples for key, samples in fleet().items() if "i-0000" in key}, "--query.max-samples=40")
    source = telemetry(front.url, metrics=only_utilisation())
    given = ask(source, HOSTS[:1])
    assert given.faults == ()
    assert told(given) == {key: 60 for key in WHOLE if key[0] == "i-0000"}


def only_utilisation() -> dict[str, object]:
    none: list[object] = []
    return {
        "utilisation": [{"name": "DCGM_FI_DEV_GPU_UTIL", "unit": "percent"}],
        "tensor_active": none,
        "dram_active": none,
        "power": none,
        "memory_used": none,
    }


def test_a_server_that_wants_nothing_at_all_is_a_fault_after_a_few_questions(scripted: Front) -> None:
    hosts = answer([{"metric": {"Hostname": record.name}} for record in HOSTS])
    too_many = refusal(422, "query processing would load too many samples into memory in query execution")
    scripted.rules.append(lambda call: hosts if call.finds_hosts else too_many)
    given = ask(telemetry(scripted.url), HOSTS)
    assert given.series == ()
    (fault,) = given.faults
    assert fault.fault is not None
    assert fault.fault.code == "Misconfigured"
    assert "too many samples" in fault.fault.sentence
    assert len(scripted.calls) < 25


REFUSALS = {
    "Prometheus": refusal(422, "query processing would load too many samples into memory in query execution"),
    "Mimir": refusal(422, "the query exceeded the maximum number of chunks (limit: 2000000 chunks)"),
    "Thanos": refusal(422, "limit 50000 violated (got 50001): exceeded series limit"),
    "VictoriaMetrics": refusal(422, "cannot select more than -search.maxSamplesPerQuery=1000000000 samples"),
    "a gateway": Reply(status=413, body=b"<html>Request Entity Too Large</html>"),
}


@pytest.mark.parametrize("server", REFUSALS)
def test_each_server_s_own_words_for_too_much_are_understood(scripted: Front, server: str) -> None:
    refused = count()
    rule: Callable[[Call], Reply] = lambda call: REFUSALS[server] if next(refused) == 0 else answer([])  # noqa: E731
    scripted.rules.append(rule)
    assert ask(telemetry(scripted.url), HOSTS) == TelemetryAnswer(series=())
    assert len(scripted.calls) == 3


def test_an_answer_that_is_too_long_is_asked_for_in_parts(fronted: Fronted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.prometheus.client.MOST_BYTES", 20_000)
    front = fronted(fleet())
    given = ask(telemetry(front.url), HOSTS)
    assert (told(given), given.faults) == (WHOLE, ())
    assert len(front.calls) > 5


def test_no_question_is_begun_when_the_time_is_up(scripted: Front) -> None:
    records = [machine(f"i-{n}", region=f"us-east-{n}") for n in range(8)]
    hosts = answer([{"metric": {"instance_id": record.ref.external_id}} for record in records])
    scripted.rules.append(lambda call: hosts if call.finds_hosts else answer([]))
    minutes = count()  # every look at the clock finds it a minute later
    config = Config.model_validate({"url": scripted.url})
    source = PrometheusTelemetry(
        Client(config),
        join=config.join,
        metrics=config.metrics.resolved,
        now=lambda: NOON,
        monotonic=lambda: 60.0 * next(minutes),
    )
    given = ask(source, records)
    assert len(scripted.calls) == 2
    assert len(given.faults) == 7
    assert {fault.fault.code for fault in given.faults if fault.fault} == {"Unreachable"}
    assert all(fault.fault and "not asked" in fault.fault.sentence for fault in given.faults)


def test_halves_are_the_whole() -> None:
    """Split to the end, a question is still about the same metrics, hosts and seconds."""

    def leaves(question: Question) -> list[Question]:
        halves = question.halves()
        return [leaf for half in halves for leaf in leaves(half)] if halves else [question]

    start, end = START.timestamp(), NOON.timestamp()
    whole = Question(names=["a", "b", "c"], label="host", values=["x", "y", "z"], start=start, end=end)
    small = leaves(whole)
    seconds = {
        (name, value, second)
        for leaf in small
        for name in leaf.names
        for value in leaf.values
        for second in range(int(leaf.start), int(leaf.end))
    }
    assert len(seconds) == 3 * 3 * 3600 == sum(int(leaf.end - leaf.start) for leaf in small)
    assert {(len(leaf.names), len(leaf.values)) for leaf in small} == {(1, 1)}
    assert min(leaf.end - leaf.start for leaf in small) >= 50


def test_signals_left_out_are_not_asked_for(fronted: Fronted) -> None:
    front = fronted(fleet())
    given = ask(telemetry(front.url, metrics={"power": [], "memory_used": []}), HOSTS[:1])
    assert len(given.series) == 2
    left_out = [metric.name for signal in (Signal.POWER_WATTS, Signal.MEMORY_USED_MIB) for metric in METRICS[signal]]
    assert not [name for name in left_out if any(f'{name}"' in c.query or f"{name}|" in c.query for c in front.calls)]
