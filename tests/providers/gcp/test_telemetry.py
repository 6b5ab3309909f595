"""GPU samples of the Ops Agent from Cloud Monitoring: whose they are, what they say, and what was not answered."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.gcp import CloudMonitoringMetrics, Config
from providers.gcp.client import Client
from providers.gcp.telemetry import FEW, CloudMonitoringTelemetry
from providers.records import Kind, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Reply, answer
from tests.providers.gcp.cloud_refusals import forbidden, rate_limited, service_disabled, unavailable
from tests.real_data import REAL_DATA, needs

FLIGHT = (
    "cloud_api/gcp_flights/filter-metrics-with-metric-key-as-instance-id/"
    "get-v3-projects-cloud-custodian-timeSeries_1.json"
)
"""A recorded answer."""

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
END = START + timedelta(minutes=10)
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
FIRST = int(START.timestamp())
UTILISATION, MEMORY = "agent.googleapis.com/gpu/utilization", "agent.googleapis.com/gpu/memory/bytes_used"
DCGM = "workload.googleapis.com/gpu.dcgm.utilization"
LIST = "monitoring.projects.timeSeries.list"
GIB = 2**30


def minutes(*values: float, first_minute: int = 0) -> list[tuple[float, float]]:
    """A sample a minute."""
    return [(FIRST + 60 * (first_minute + minute), value) for minute, value in enumerate(values)]


def gpu(number: int = 0, *, uuid: str | None = None, **labels: str) -> dict[str, str]:
    return {"gpu_number": str(number), "uuid": uuid or f"GPU-{number}", "model": "NVIDIA L4", **labels}


@dataclass
class Agents:
    """Machines of a Google Cloud, with what their agents wrote, and who asks about them."""

    cloud: Cloud

    def machine(
        self,
        name: str = "trainer",
        *,
        gpus: int = 1,
        project: str = "research",
        zone: str = "us-central1-a",
        kind: Kind = Kind.INSTANCE,
    ) -> ResourceRecord:
        path = self.cloud.compute.machine(name, project=project, zone=zone, machine_type="g2-standard-4")
        return a_record(path, self.cloud.compute.instances[path]["id"], gpus=gpus, kind=kind)

    def push(
        self,
        record: ResourceRecord,
        samples: Sequence[tuple[float, float]],
        *,
        labels: Mapping[str, str] | None = None,
        metric: str = UTILISATION,
        unit: str = "%",
        **fields: str,
    ) -> None:
        labels = gpu() if labels is None else labels
        self.cloud.monitoring.push(record.ref.external_id, samples, metric=metric, labels=labels, unit=unit, **fields)

    def push_memory(self, record: ResourceRecord, used: int, free: int, *, number: int = 0) -> None:
        for state, held in (("used", used), ("free", free)):
            labels = gpu(number, memory_state=state)
            self.push(record, minutes(held, held), labels=labels, metric=MEMORY, unit="By", value_type="INT64")

    def telemetry(self, now: datetime, **metrics: str | None) -> CloudMonitoringTelemetry:
        config = Config(projects=("research",), credentials="anonymous", endpoint=self.cloud.endpoint)
        client = Client(config, sleep=lambda _seconds: None)
        names = CloudMonitoringMetrics.model_validate({"memory_used": None, **metrics})
        return CloudMonitoringTelemetry(client, names, now=lambda: now)

    def ask(
        self, *records: ResourceRecord, start: datetime = START, end: datetime = END, **metrics: str | None
    ) -> TelemetryAnswer:
        return self.telemetry(NOW, **metrics).samples(records, start=start, end=end)


@pytest.fixture
def agents(cloud: Cloud) -> Agents:
    return Agents(cloud)


def a_record(
    external_id: str, incarnation: str, *, gpus: int = 1, kind: Kind = Kind.INSTANCE, vendor: str = "nvidia"
) -> ResourceRecord:
    _, project, _, zone, _, name = external_id.split("/")
    region = zone.rpartition("-")[0]
    return ResourceRecord(
        ref=ResourceRef(provider="gcp", account=project, region=region, kind=kind, external_id=external_id),
        incarnation=incarnation,
        name=name,
        zone=zone,
        sku="g2-standard-4",
        gpu_vendor=vendor,
        gpu_model="L4",
        gpu_count=gpus,
    )


def by_device(answer: TelemetryAnswer) -> Mapping[str, Sequence[float]]:
    return {series.device: series.values for series in answer.series}


class TestWhatIsSaid:
    def test_percent_becomes_a_ratio_and_bytes_become_mebibytes(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(37.5, 100.0))
        agents.push_memory(machine, 10 * GIB, 12 * GIB)
        times = (FIRST, FIRST + 60)

        assert agents.ask(machine, memory_used=MEMORY).series == (
            Series(ref=machine.ref, device="0", signal=Signal.UTILISATION, times=times, values=(0.375, 1.0)),
            Series(ref=machine.ref, device="0", signal=Signal.MEMORY_USED_MIB, times=times, values=(10_240.0,) * 2),
        )

    def test_samples_are_told_oldest_first_at_the_second_they_were_taken(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, [(FIRST + 7, 10), (FIRST + 68, 20), (FIRST + 121, 30)])
        [series] = agents.ask(machine).series

        assert (series.times, series.values) == ((FIRST + 7, FIRST + 68, FIRST + 121), (0.1, 0.2, 0.3))

    def test_the_busiest_sample_of_a_second_speaks_for_it(self, agents: Agents) -> None:
        machine = agents.machine()
        told = a_series(machine, [("2026-11-22T08:00:05.9Z", 0), ("2026-11-22T08:00:05.1Z", 90)])
        agents.cloud.rules.append(lambda _call: answer(told))
        [series] = agents.ask(machine).series

        assert (series.times, series.values) == ((FIRST + 5,), (0.9,))

    def test_the_window_is_half_open(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(*range(30), first_minute=-5))
        [series] = agents.ask(machine).series

        assert (series.times[0], series.times[-1]) == (FIRST, int(END.timestamp()) - 60)

    def test_nothing_is_known_of_what_is_to_come(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(1, 2, 3))
        telemetry = agents.telemetry(START + timedelta(seconds=61))

        [series] = telemetry.samples([machine], start=START, end=END).series
        assert len(series.times) == 2

    def test_what_is_no_value_is_no_sample(self, agents: Agents) -> None:
        machine = agents.machine()
        values: Sequence[object] = (0.0, 9.22e18, "NaN", "Infinity", "-Infinity", -1.0, None, 50.0, 104.0)
        points = [(f"2026-11-22T08:0{minute}:00Z", value) for minute, value in enumerate(values)]
        agents.cloud.rules.append(lambda _call: answer(a_series(machine, points)))
        [series] = agents.ask(machine).series

        assert series.values == (0.0, 0.5, 1.0)

    @pytest.mark.parametrize(
        ("metric", "unit", "value", "ratio"),
        [
            (UTILISATION, "%", 50.0, 0.5),
            (UTILISATION, "", 50.0, 0.5),
            (UTILISATION, "{not_a_unit}", 50.0, 0.5),
            (DCGM, "1", 0.5, 0.5),
            (DCGM, "10^2.%", 0.5, 0.5),
            (DCGM, "%", 50.0, 0.5),
        ],
    )
    def test_a_ratio_is_read_by_its_unit(
        self, agents: Agents, metric: str, unit: str, value: float, ratio: float
    ) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(value), metric=metric, unit=unit)

        assert by_device(agents.ask(machine, utilisation=metric)) == {"0": (ratio,)}

    @pytest.mark.parametrize("unit", ["", "By", "{not_a_unit}"])
    def test_a_unit_that_is_none_of_ours_is_not_guessed(self, agents: Agents, unit: str) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(0.5), metric=DCGM, unit=unit)
        answer = agents.ask(machine, utilisation=DCGM)

        assert answer.series == ()
        assert [report.fault.code for report in answer.faults if report.fault] == ["Misconfigured"]

    def test_what_only_ever_grows_tells_of_no_moment(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(0.5), metric=DCGM, unit="1", kind="CUMULATIVE")
        [report] = agents.ask(machine, utilisation=DCGM).faults

        assert report.fault is not None
        assert "is CUMULATIVE" in report.fault.sentence

    @pytest.mark.parametrize(("label", "metric"), [("memory_state", MEMORY), ("state", "workload.googleapis.com/m/b")])
    def test_memory_that_is_free_is_not_held(self, agents: Agents, label: str, metric: str) -> None:
        machine = agents.machine()
        for state, held in (("used", 2 * GIB), ("free", 20 * GIB)):
            agents.push(machine, minutes(held), labels={**gpu(), label: state}, metric=metric, unit="By")

        answer = agents.ask(machine, memory_used=metric)
        assert [(series.signal, series.values) for series in answer.series] == [(Signal.MEMORY_USED_MIB, (2048.0,))]

    def test_a_metric_not_wanted_is_not_asked_for(self, agents: Agents) -> None:
        agents.ask(agents.machine())

        assert agents.cloud.counted[LIST] == 1


class TestWhoseItIs:
    def test_a_machine_is_known_by_its_id_never_by_its_name(self, agents: Agents) -> None:
        machines = [agents.machine("trainer", zone=zone) for zone in ("us-central1-a", "us-central1-b", "us-east4-a")]
        for percent, machine in enumerate(machines):
            agents.push(machine, minutes(10 * percent))

        answer = agents.ask(*machines)
        assert {series.ref: series.values for series in answer.series} == {
            machine.ref: (percent / 10,) for percent, machine in enumerate(machines)
        }

    def test_what_a_machine_of_the_same_name_did_before_is_not_this_ones(self, agents: Agents) -> None:
        before = agents.machine()
        agents.push(before, minutes(90, 90))
        agents.cloud.compute.vanish(before.ref.external_id)
        now = agents.machine()
        agents.push(now, minutes(0, 0, first_minute=2))

        assert now.incarnation != before.incarnation
        assert by_device(agents.ask(now)) == {"0": (0.0, 0.0)}

    def test_each_gpu_is_known_by_its_number(self, agents: Agents) -> None:
        machine = agents.machine(gpus=8)
        for number in range(8):
            agents.push(machine, minutes(number), labels=gpu(number))

        assert by_device(agents.ask(machine)) == {str(number): (number / 100,) for number in range(8)}

    @pytest.mark.parametrize(
        ("labels", "gpus", "device"),
        [
            pytest.param({"uuid": "GPU-0"}, 8, "GPU-0", id="by its uuid, where it has no number"),
            pytest.param({}, 1, "0", id="as the only one"),
        ],
    )
    def test_a_gpu_without_a_number_is_known(
        self, agents: Agents, labels: Mapping[str, str], gpus: int, device: str
    ) -> None:
        machine = agents.machine(gpus=gpus)
        agents.push(machine, minutes(50), labels=labels)

        assert by_device(agents.ask(machine)) == {device: (0.5,)}

    def test_what_speaks_for_a_machine_speaks_for_none_of_its_gpus(self, agents: Agents) -> None:
        machine = agents.machine(gpus=8)
        agents.push(machine, minutes(0), labels={})

        assert agents.ask(machine) == TelemetryAnswer(series=())

    def test_a_machine_that_came_back_has_other_gpus_by_the_same_numbers(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(80, 80), labels=gpu(uuid="GPU-old"))
        agents.push(machine, minutes(0, 0, first_minute=4), labels=gpu(uuid="GPU-new"))
        [series] = agents.ask(machine).series

        assert [time - FIRST for time in series.times] == [0, 60, 240, 300]
        assert series.values == (0.8, 0.8, 0.0, 0.0)

    def test_two_gpus_by_one_number_at_one_time_are_ambiguous_in_everything_and_for_no_other(
        self, agents: Agents
    ) -> None:
        double, other = agents.machine("double"), agents.machine("other")
        agents.push(double, minutes(0, 0, 0), labels=gpu(uuid="GPU-a"))
        agents.push(double, minutes(90, first_minute=1), labels=gpu(uuid="GPU-b"))
        agents.push_memory(double, GIB, GIB)
        agents.push(other, minutes(0))

        answer = agents.ask(double, other, memory_used=MEMORY)
        assert answer.ambiguous == {double.ref}
        assert {series.ref for series in answer.series} == {other.ref}

    def test_two_machines_by_one_id_are_ambiguous(self, agents: Agents) -> None:
        machine, other = agents.machine(), agents.machine("other")
        agents.push(machine, minutes(0))
        twin = a_record("projects/research/zones/us-east4-a/instances/twin", machine.incarnation)

        answer = agents.ask(machine, twin, other)
        assert answer.ambiguous == {machine.ref, twin.ref}
        assert answer.series == ()

    def test_a_machine_that_is_named_twice_is_one(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.push(machine, minutes(50))

        assert by_device(agents.ask(machine, machine)) == {"0": (0.5,)}

    def test_what_another_project_tells_is_not_this_ones(self, agents: Agents) -> None:
        """A project may be the scope that sees the metrics of others."""
        agents.cloud.add_project("other-project")
        machine = agents.machine()
        told = a_series(machine, [("2026-11-22T08:00:00Z", 0)])
        told["timeSeries"][0]["resource"]["labels"]["project_id"] = "other-project"
        agents.cloud.rules.append(lambda _call: answer(told))

        assert agents.ask(machine).series == ()
        assert 'resource.labels.project_id = "research"' in agents.cloud.calls[0].query["filter"]

    def test_a_notebook_is_known_by_the_id_of_its_machine(self, agents: Agents) -> None:
        notebook = agents.machine(kind=Kind.NOTEBOOK)
        agents.push(notebook, minutes(50))

        assert by_device(agents.ask(notebook)) == {"0": (0.5,)}

    @pytest.mark.parametrize(
        "record",
        [
            pytest.param(
                a_record("projects/research/locations/us-central1-a/nodes/tpu", "4242", vendor="google"), id="a TPU"
            ),
            pytest.param(
                a_record("projects/research/locations/us-central1-a/instances/n", "4592c76e-b080", kind=Kind.NOTEBOOK),
                id="a notebook without a machine",
            ),
            pytest.param(
                a_record("projects/research/zones/us-central1-a/instanceGroupManagers/g", "4242", kind=Kind.NODE_GROUP),
                id="a group, for which its members speak",
            ),
        ],
    )
    def test_what_has_no_gpus_of_its_own_there_is_not_asked_about(self, agents: Agents, record: ResourceRecord) -> None:
        assert agents.ask(record) == TelemetryAnswer(series=())
        assert not agents.cloud.calls


class TestHowManyCalls:
    @pytest.mark.parametrize(("machines", "by_id"), [(1, True), (FEW, True), (FEW + 1, False), (500, False)])
    def test_one_for_a_metric_and_a_project(self, agents: Agents, machines: int, by_id: bool) -> None:
        records = [
            a_record(f"projects/research/zones/us-central1-a/instances/m-{number}", str(2**64 - 1 - number))
            for number in range(machines)
        ]
        agents.ask(*records, memory_used=MEMORY)

        assert agents.cloud.counted == {LIST: 2}
        for call in agents.cloud.calls:
            assert ("one_of" in call.query["filter"]) == by_id
            assert len(call.query["filter"]) < 2048

    def test_few_and_many_machines_are_answered_the_same(self, agents: Agents) -> None:
        machines = [agents.machine(f"m-{number}") for number in range(FEW + 1)]
        for number, machine in enumerate(machines):
            agents.push(machine, minutes(number))

        many, few = agents.ask(*machines), agents.ask(*machines[1:])
        assert len(many.series) == FEW + 1
        assert {*few.series} == {series for series in many.series if series.ref != machines[0].ref}

    def test_each_project_is_asked_by_itself(self, agents: Agents) -> None:
        agents.cloud.add_project("vision-lab")
        machines = [agents.machine(project=project) for project in ("research", "vision-lab")]
        for machine in machines:
            agents.push(machine, minutes(50))

        assert {series.ref for series in agents.ask(*machines).series} == {machine.ref for machine in machines}
        assert sorted(call.project for call in agents.cloud.calls) == ["research", "vision-lab"]

    def test_a_series_that_is_too_long_for_a_page_goes_on_on_the_next(self, agents: Agents) -> None:
        machine = agents.machine(gpus=2)
        agents.cloud.monitoring.most_points = 7
        for number in range(2):
            agents.push(machine, minutes(*range(10)), labels=gpu(number))

        answer = agents.ask(machine)
        assert agents.cloud.counted[LIST] == 3
        assert by_device(answer) == dict.fromkeys("01", tuple(value / 100 for value in range(10)))

    def test_what_is_asked_is_as_little_as_will_do(self, agents: Agents) -> None:
        machine = agents.machine()
        agents.ask(machine, start=START + timedelta(milliseconds=250))
        [call] = agents.cloud.calls

        assert call.path == "/v3/projects/research/timeSeries"
        assert {name: value for name, value in call.query.items() if name != "fields"} == {
            "filter": f'metric.type = "{UTILISATION}" AND resource.type = "gce_instance" AND '
            'resource.labels.project_id = "research" AND '
            f'resource.labels.instance_id = one_of("{machine.incarnation}")',
            "interval.startTime": "2026-11-22T07:59:59.250000Z",
            "interval.endTime": "2026-11-22T08:10:00.000000Z",
            "view": "FULL",
            "pageSize": 100_000,
        }
        assert "startTime" not in call.query["fields"]

    @pytest.mark.parametrize(
        ("machines", "end"),
        [
            pytest.param(0, END, id="no machines"),
            pytest.param(1, START, id="no time"),
            pytest.param(1, START - timedelta(hours=1), id="less than no time"),
        ],
    )
    def test_none_where_nothing_is_asked(self, agents: Agents, machines: int, end: datetime) -> None:
        records = [agents.machine() for _ in range(machines)]

        assert agents.ask(*records, end=end) == TelemetryAnswer(series=())
        assert not agents.cloud.calls


class TestWhatWasNotAnswered:
    @pytest.fixture
    def machine(self, agents: Agents) -> ResourceRecord:
        machine = agents.machine()
        agents.push(machine, minutes(0, 0))
        return machine

    def test_a_project_without_an_agent_has_no_samples_and_that_is_no_fault(self, agents: Agents) -> None:
        assert agents.ask(agents.machine()) == TelemetryAnswer(series=())

    FAULTS: Mapping[str, tuple[Callable[[Cloud], object], str, str | None]] = {
        "a permission is missing": (
            lambda cloud: cloud.refuse(LIST, forbidden("monitoring.timeSeries.list", "projects/research")),
            "Forbidden",
            "monitoring.timeSeries.list",
        ),
        "the API is not enabled": (
            lambda cloud: cloud.refuse(LIST, service_disabled("monitoring", "4242")),
            "Forbidden",
            None,
        ),
        "it is asked too often": (lambda cloud: cloud.refuse(LIST, rate_limited("monitoring", "4")), "Throttled", None),
        "it breaks": (lambda cloud: cloud.refuse(LIST, unavailable()), "Unreachable", None),
        "it hangs up": (lambda cloud: cloud.rules.append(lambda _call: NO_ANSWER), "Unreachable", None),
        "a proxy answers": (
            lambda cloud: cloud.rules.append(lambda _call: Reply(status=404, body=b"<html>nothing here</html>")),
            "Unreachable",
            None,
        ),
        "the answer is something else": (
            lambda cloud: cloud.rules.append(lambda _call: answer({"timeSeries": [{"unit": "%"}], "unit": "%"})),
            "Unreachable",
            None,
        ),
        "a part of it failed": (
            lambda cloud: cloud.rules.append(
                lambda _call: answer({"executionErrors": [{"message": "a cell is down"}]})
            ),
            "Unreachable",
            None,
        ),
    }

    @pytest.mark.parametrize(("fails", "code", "permission"), FAULTS.values(), ids=FAULTS)
    def test_is_unknown_and_one_fault_of_its_project(
        self,
        agents: Agents,
        machine: ResourceRecord,
        fails: Callable[[Cloud], object],
        code: str,
        permission: str | None,
    ) -> None:
        fails(agents.cloud)

        answer = agents.ask(machine)
        assert answer.series == ()
        [report] = answer.faults
        assert report.fault is not None
        assert (report.account, report.complete) == ("research", False)
        assert (report.fault.code, report.fault.permission) == (code, permission)

    def test_is_told_once_for_all_metrics(self, agents: Agents, machine: ResourceRecord) -> None:
        agents.cloud.refuse(LIST, forbidden("monitoring.timeSeries.list", "projects/research"))

        assert len(agents.ask(machine, memory_used=MEMORY).faults) == 1

    def test_is_absent_even_where_a_part_was_said(self, agents: Agents, machine: ResourceRecord) -> None:
        """In what is missing there may be work."""
        told = a_series(machine, [("2026-11-22T08:00:00Z", 0)])
        agents.cloud.rules.append(lambda _call: answer({**told, "executionErrors": [{"code": 14}]}))

        assert agents.ask(machine).series == ()

    def test_is_absent_when_the_next_page_fails(self, agents: Agents, machine: ResourceRecord) -> None:
        agents.cloud.monitoring.most_points = 1
        agents.cloud.rules.append(lambda call: unavailable().reply if call.query.get("pageToken") else None)

        assert agents.ask(machine).series == ()

    def test_of_one_project_sinks_no_other(self, agents: Agents, machine: ResourceRecord) -> None:
        agents.cloud.add_project("vision-lab")
        other = agents.machine(project="vision-lab")
        agents.push(other, minutes(50))
        agents.cloud.refuse(LIST, forbidden("monitoring.timeSeries.list", "projects/research"), project="research")

        answer = agents.ask(machine, other)
        assert {series.ref for series in answer.series} == {other.ref}
        assert [report.account for report in answer.faults] == ["research"]

    def test_of_one_metric_sinks_no_other(self, agents: Agents, machine: ResourceRecord) -> None:
        agents.push_memory(machine, GIB, GIB)

        def denied(call: Call) -> Reply | None:
            return unavailable().reply if UTILISATION in call.query["filter"] else None

        agents.cloud.rules.append(denied)
        assert [series.signal for series in agents.ask(machine, memory_used=MEMORY).series] == [Signal.MEMORY_USED_MIB]


@needs(FLIGHT)
def test_a_recorded_answer_is_read(agents: Agents) -> None:
    """It is of a metric that every machine has, and its unit is a ratio's."""
    flight = json.loads((REAL_DATA / FLIGHT).read_text())
    machine = a_record("projects/ABC/zones/us-central1-a/instances/name-123", "127589370984384384")
    agents.cloud.rules.append(lambda _call: answer(flight["body"]))
    taken = datetime(2025, 9, 10, 8, 56, tzinfo=UTC)

    [series] = agents.ask(
        machine,
        start=taken,
        end=taken + timedelta(minutes=1),
        utilisation="compute.googleapis.com/instance/cpu/utilization",
    ).series
    assert (series.times, series.values) == ((int(taken.timestamp()),), (0.01145088399757294,))


def a_series(machine: ResourceRecord, points: Sequence[tuple[str, object]]) -> dict[str, Any]:
    """An answer, written by hand."""
    return {
        "unit": "%",
        "timeSeries": [
            {
                "metric": {"labels": gpu()},
                "resource": {"labels": {"instance_id": machine.incarnation, "project_id": machine.ref.account}},
                "metricKind": "GAUGE",
                "points": [
                    {"interval": {"endTime": time}, "value": {} if value is None else {"doubleValue": value}}
                    for time, value in reversed(points)
                ],
            }
        ],
    }


class Stub(Client):
    """A Cloud Monitoring that says this, whatever it is asked."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told

    def pages(self, *_: Any, **__: Any) -> Any:
        return iter([self.told])


@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries(
                {},
                optional={
                    "gpu_number": st.sampled_from(["0", "1"]),
                    "uuid": st.sampled_from(["GPU-a", "GPU-b"]),
                    "model": st.sampled_from(["L4", "T4"]),
                },
            ),
            st.sampled_from(["4242", "4343", "1"]),
            st.lists(
                st.tuples(st.integers(-2, 12), st.floats(-5, 120) | st.sampled_from([math.nan, math.inf, 9.3e18])),
                max_size=5,
            ),
        ),
        max_size=8,
    )
)
def test_whatever_is_told_each_device_has_one_series_in_order_or_its_machine_is_ambiguous(
    told: Sequence[tuple[Mapping[str, str], str, Sequence[tuple[int, float]]]],
) -> None:
    machines = [
        a_record("projects/research/zones/us-central1-a/instances/a", "4242"),
        a_record("projects/research/zones/us-central1-a/instances/b", "4343", gpus=2),
    ]
    series = [
        {
            "metric": {"labels": labels},
            "resource": {"labels": {"instance_id": machine}},
            "points": [
                {
                    "interval": {"endTime": (START + timedelta(minutes=minute)).isoformat()},
                    "value": {"doubleValue": value},
                }
                for minute, value in points
            ],
        }
        for labels, machine, points in told
    ]
    stub = Stub({"timeSeries": series, "unit": "%"})
    telemetry = CloudMonitoringTelemetry(stub, CloudMonitoringMetrics(memory_used=None), now=lambda: NOW)

    answer = telemetry.samples(machines, start=START, end=END)
    names = [(one.ref, one.device) for one in answer.series]
    assert len(names) == len(set(names))
    assert not answer.faults
    assert not answer.ambiguous & {ref for ref, _ in names}
    assert answer.ambiguous <= {machine.ref for machine in machines}
    for one in answer.series:
        assert list(one.times) == sorted(set(one.times))
        assert len(one.times) == len(one.values) > 0
        assert START.timestamp() <= one.times[0]
        assert one.times[-1] < END.timestamp()
        assert all(0 <= value <= 1 for value in one.values)
