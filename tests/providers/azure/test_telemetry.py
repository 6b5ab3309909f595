"""GPU samples of Azure Monitor over HTTP: whose they are, what they say, and what was not answered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.azure import Config, telemetry
from providers.azure.client import Client
from providers.azure.telemetry import OF_TELEGRAF, AzureMonitorTelemetry, Source, read
from providers.records import Kind, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer
from tests.providers.azure.cloud import NO_ANSWER, OTHER, SUBSCRIPTION, Call, Cloud, Reply
from tests.providers.azure.cloud_refusals import not_registered, unavailable

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
START, END = NOW - timedelta(minutes=10), NOW
FIRST = int(START.timestamp())
TELEGRAF = "Telegraf/nvidia_smi"
READER = ("Microsoft.Insights/metricNamespaces/read", "Microsoft.Insights/metrics/read")


@dataclass
class Monitored:
    """Telemetry of a source, before the stand-in and on a clock of its own."""

    cloud: Cloud
    telemetry: AzureMonitorTelemetry
    clock: list[datetime] = field(default_factory=lambda: [NOW])

    def machine(self, name: str = "trainer", *, gpus: int = 1, **fields: Any) -> ResourceRecord:
        subscription = fields.get("subscription", SUBSCRIPTION)
        path = self.cloud.compute.machine(name, **fields)
        ref = ResourceRef(
            provider="azure", account=subscription, region="westeurope", kind=Kind.INSTANCE, external_id=path
        )
        return a_record(ref, name, gpus)

    def compute(self, name: str = "ada", *, workspace: str = "", gpus: int = 1) -> ResourceRecord:
        path = self.cloud.ml.instance(workspace or self.cloud.ml.workspace(), name)
        ref = ResourceRef(
            provider="azure", account=SUBSCRIPTION, region="westeurope", kind=Kind.NOTEBOOK, external_id=path
        )
        return a_record(ref, name, gpus)

    def telegraf(
        self,
        record: ResourceRecord,
        *levels: float | None,
        metric: str = "utilization_gpu",
        index: int = 0,
        uuid: str = "",
        namespace: str = TELEGRAF,
        **dimensions: str,
    ) -> None:
        """What it writes, one value a minute from the window's beginning; None for a minute without."""
        self.cloud.monitor.push(
            record.ref.external_id,
            metric,
            minutes(levels),
            namespace=namespace,
            dimensions={
                "index": str(index),
                "uuid": uuid or f"GPU-{index}",
                "name": "Tesla T4",
                "host": "anything",
                **dimensions,
            },
        )

    def workspace(
        self,
        record: ResourceRecord,
        *levels: float | None,
        metric: str = "GpuUtilizationPercentage",
        device: int = 0,
        node: str = "node-1",
        run: str = "run-1",
    ) -> None:
        """What Azure Machine Learning writes."""
        workspace, _, name = record.ref.external_id.partition("/computes/")
        self.cloud.monitor.push(
            workspace,
            metric,
            minutes(levels),
            dimensions={"RunId": run, "InstanceId": node, "DeviceId": str(device), "ComputeName": name},
        )

    def ask(self, *records: ResourceRecord, start: datetime = START, end: datetime = END) -> TelemetryAnswer:
        return self.telemetry.samples(records, start=start, end=end)

    def asked(self) -> Mapping[str, int]:
        """Calls by method since the last time."""
        counted = {method: count for method, count in self.cloud.counted.items() if method.startswith("Metric")}
        self.cloud.calls.clear()
        return counted

    def later(self, **span: float) -> None:
        self.clock[0] += timedelta(**span)


def a_record(ref: ResourceRef, name: str, gpus: int) -> ResourceRecord:
    return ResourceRecord(
        ref=ref,
        incarnation="4242",
        name=name,
        zone=None,
        sku="Standard_NC4as_T4_v3",
        gpu_vendor="nvidia",
        gpu_model="T4",
        gpu_count=gpus,
    )


def minutes(levels: Sequence[float | None]) -> list[tuple[int, float]]:
    return [(FIRST + 60 * minute, level) for minute, level in enumerate(levels) if level is not None]


def told(answer: TelemetryAnswer) -> dict[tuple[str, str, Signal], tuple[float, ...]]:
    return {(one.ref.external_id, one.device, one.signal): tuple(one.values) for one in answer.series}


@pytest.fixture
def monitored(cloud: Cloud) -> Monitored:
    clock = [NOW]
    cloud.now = lambda: clock[0]
    client = Client(Config(**cloud.settings), secret=lambda _: "a-token", sleep=lambda _: None)
    return Monitored(cloud, AzureMonitorTelemetry(client, now=lambda: clock[0]), clock)


class TestMachines:
    """What Telegraf writes to them."""

    def test_percent_are_ratios_by_gpu(self, monitored: Monitored) -> None:
        record = monitored.machine(gpus=2)
        monitored.telegraf(record, 0, 37.5, 100)
        monitored.telegraf(record, 5, index=1)
        monitored.telegraf(record, 12, metric="utilization_memory")
        monitored.telegraf(record, 15109, metric="memory_used")
        monitored.telegraf(record, 69.5, metric="power_draw")
        monitored.telegraf(record, 41, metric="temperature_gpu")

        answer = monitored.ask(record)

        machine = record.ref.external_id
        assert told(answer) == {
            (machine, "0", Signal.UTILISATION): (0.0, 0.375, 1.0),
            (machine, "1", Signal.UTILISATION): (0.05,),
            (machine, "0", Signal.DRAM_ACTIVE): (0.12,),
            (machine, "0", Signal.MEMORY_USED_MIB): (15109.0,),
            (machine, "0", Signal.POWER_WATTS): (69.5,),
        }
        assert answer.faults == ()
        assert answer.ambiguous == frozenset()

    def test_the_highest_moment_of_a_minute_counts(self, monitored: Monitored) -> None:
        record = monitored.machine()
        path = record.ref.external_id
        monitored.cloud.monitor.push(
            path, "utilization_gpu", [(FIRST + 10, 0.0), (FIRST + 20, 90.0), (FIRST + 50, 0.0)],
            namespace=TELEGRAF, dimensions={"index": "0", "uuid": "GPU-0"},
        )  # fmt: skip

        [series] = monitored.ask(record).series

        assert (series.times, series.values) == ((FIRST,), (0.9,))

    def test_a_gpu_in_several_states_is_one_gpu(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 0, None, pstate="P8")
        monitored.telegraf(record, None, 80, pstate="P0")

        assert [series.values for series in monitored.ask(record).series] == [(0.0, 0.8)]

    def test_only_the_window_is_told(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, *range(20))

        [series] = monitored.ask(record, start=START + timedelta(minutes=2, seconds=30), end=END).series

        assert series.times == tuple(FIRST + 60 * minute for minute in range(3, 10))

    @pytest.mark.parametrize("level", [telemetry.SENTINEL, 9223372036854775807.0, -1.0])
    def test_what_is_no_value_is_no_sample(self, monitored: Monitored, level: float) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 10, level, 30)

        assert [series.values for series in monitored.ask(record).series] == [(0.1, 0.3)]

    def test_more_than_all_is_all(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 101)

        assert [series.values for series in monitored.ask(record).series] == [(1.0,)]

    def test_two_gpus_under_one_number_are_ambiguous(self, monitored: Monitored) -> None:
        record, other = monitored.machine(gpus=2), monitored.machine("other")
        monitored.telegraf(record, 0)
        monitored.telegraf(record, 90, uuid="GPU-of-another")
        monitored.telegraf(record, 0, index=1)
        monitored.telegraf(other, 0)

        answer = monitored.ask(record, other)

        assert answer.ambiguous == {record.ref}
        assert {series.ref for series in answer.series} == {other.ref}

    def test_a_machine_without_such_metrics_is_unknown(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.cloud.monitor.push(record.ref.external_id, "Percentage CPU", minutes([90.0]))

        assert monitored.ask(record) == TelemetryAnswer(series=())
        assert monitored.asked() == {"MetricNamespaces_List": 1}

    def test_two_agents_on_one_machine_are_not_chosen_between(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 0)
        monitored.telegraf(record, 90, namespace="Other/nvidia_smi")

        assert monitored.ask(record) == TelemetryAnswer(series=())

    def test_a_prefix_of_ones_own_is_understood(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 90, namespace="research/gpus/nvidia_smi")

        assert [series.values for series in monitored.ask(record).series] == [(0.9,)]

    def test_without_a_number_a_single_gpu_is_known_and_more_are_not(self, monitored: Monitored) -> None:
        one, two = monitored.machine("one"), monitored.machine("two", gpus=2)
        for record in (one, two):
            monitored.cloud.monitor.push(
                record.ref.external_id, "utilization_gpu", minutes([50.0]), namespace=TELEGRAF, dimensions={"host": "h"}
            )

        answer = monitored.ask(one, two)

        assert told(answer) == {(one.ref.external_id, "0", Signal.UTILISATION): (0.5,)}

    def test_instances_of_scale_sets_and_groups_are_not_asked_about(self, monitored: Monitored) -> None:
        record = monitored.machine()
        sets = record.ref.external_id.replace("virtualMachines/trainer", "virtualMachineScaleSets/workers")
        instance = replace(record, ref=replace(record.ref, external_id=f"{sets}/virtualMachines/0"))
        group = replace(record, ref=replace(record.ref, external_id=sets, kind=Kind.NODE_GROUP))

        assert monitored.ask(instance, group) == TelemetryAnswer(series=())
        assert monitored.asked() == {}


class TestComputes:
    """What Azure Machine Learning writes to their workspace."""

    def test_a_compute_is_known_by_its_name_in_its_workspace(self, monitored: Monitored) -> None:
        lab, study = monitored.cloud.ml.workspace("lab"), monitored.cloud.ml.workspace("study")
        ada, bob, other = (
            monitored.compute("ada", workspace=lab, gpus=2),
            monitored.compute("bob", workspace=lab),
            monitored.compute("ada", workspace=study),
        )
        monitored.workspace(ada, 0, 50)
        monitored.workspace(ada, 75, device=1)
        monitored.workspace(bob, 25)
        monitored.workspace(bob, 4096, metric="GpuMemoryUtilizationMegabytes")
        monitored.workspace(other, 10)

        answer = monitored.ask(ada, bob, other)

        assert told(answer) == {
            (ada.ref.external_id, "0", Signal.UTILISATION): (0.0, 0.5),
            (ada.ref.external_id, "1", Signal.UTILISATION): (0.75,),
            (bob.ref.external_id, "0", Signal.UTILISATION): (0.25,),
            (bob.ref.external_id, "0", Signal.MEMORY_USED_MIB): (4096.0,),
            (other.ref.external_id, "0", Signal.UTILISATION): (0.1,),
        }
        assert monitored.asked() == {"Metrics_List": 2}

    def test_runs_on_one_gpu_are_taken_together(self, monitored: Monitored) -> None:
        ada = monitored.compute()
        monitored.workspace(ada, 0, 50, run="one")
        monitored.workspace(ada, 30, 0, run="other")

        assert [series.values for series in monitored.ask(ada).series] == [(0.3, 0.5)]

    def test_two_nodes_under_one_name_are_ambiguous(self, monitored: Monitored) -> None:
        ada = monitored.compute()
        monitored.workspace(ada, 0)
        monitored.workspace(ada, 90, node="node-2")

        answer = monitored.ask(ada)

        assert answer.series == ()
        assert answer.ambiguous == {ada.ref}

    def test_computes_nobody_asked_about_are_left_out(self, monitored: Monitored) -> None:
        lab = monitored.cloud.ml.workspace()
        ada, train = monitored.compute("ada", workspace=lab), monitored.compute("train", workspace=lab)
        monitored.workspace(train, 90)

        assert monitored.ask(ada) == TelemetryAnswer(series=())

    def test_a_workspace_is_asked_once_for_twenty_computes(self, monitored: Monitored) -> None:
        lab = monitored.cloud.ml.workspace()
        computes = [monitored.compute(f"c{number}", workspace=lab) for number in range(45)]
        for one in computes:
            monitored.workspace(one, 50)

        assert len(monitored.ask(*computes).series) == 45
        assert monitored.asked() == {"Metrics_List": 3}


class TestAsking:
    """As seldom as it can be."""

    def test_a_machine_is_asked_with_one_call_for_all_of_its_gpus_and_metrics(self, monitored: Monitored) -> None:
        record = monitored.machine(gpus=8)
        for index in range(8):
            monitored.telegraf(record, 50, index=index)
            monitored.telegraf(record, 50, index=index, metric="power_draw")

        assert len(monitored.ask(record).series) == 16
        assert monitored.asked() == {"MetricNamespaces_List": 1, "MetricDefinitions_List": 1, "Metrics_List": 1}
        monitored.ask(record)
        [call] = monitored.cloud.calls
        assert {name: call.query[name] for name in ("timespan", "interval", "aggregation", "$filter")} == {
            "timespan": "2026-11-22T08:50:00Z/2026-11-22T09:00:00Z",
            "interval": "PT1M",
            "aggregation": "Maximum",
            "$filter": "index eq '*' and uuid eq '*'",
        }
        assert call.query["metricnames"] == "utilization_gpu,power_draw"

    def test_what_a_machine_has_is_trusted_for_an_hour(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.ask(record)
        monitored.telegraf(record, 50)
        monitored.later(minutes=59)
        assert monitored.ask(record).series == ()
        assert monitored.asked() == {"MetricNamespaces_List": 1}
        monitored.later(minutes=1)
        assert len(monitored.ask(record).series) == 1

    def test_of_many_machines_some_are_learnt_with_each_look(
        self, monitored: Monitored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telemetry, "MOST_LEARNT", 3)
        records = [monitored.machine(f"m{number}") for number in range(7)]
        for record in records:
            monitored.telegraf(record, 50)
        known = []
        for _ in range(4):
            answer = monitored.ask(*records)
            known.append(len(answer.series))
            assert answer.faults == ()
            monitored.later(minutes=5)

        assert known == [3, 6, 7, 7]

    def test_of_many_machines_those_that_waited_longest_are_asked_first(
        self, monitored: Monitored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telemetry, "MOST_ASKED", 2)
        records = [monitored.machine(f"m{number}") for number in range(5)]
        for record in records:
            monitored.telegraf(record, 50)
        seen = []
        for _ in range(3):
            answer = monitored.ask(*records)
            seen.append(sorted(series.ref.external_id[-2:] for series in answer.series))
            [report] = answer.faults
            assert report.fault is not None
            assert (report.fault.code, report.complete) == ("Throttled", False)
            assert "waits: Azure Monitor is asked machine by machine; and 2 more like it" in report.fault.sentence
            monitored.later(minutes=5)

        assert seen == [["m0", "m1"], ["m2", "m3"], ["m0", "m4"]]

    def test_another_subscription_has_a_measure_of_its_own(
        self, monitored: Monitored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telemetry, "MOST_ASKED", 1)
        records = [monitored.machine(), monitored.machine("other", subscription=OTHER)]
        for record in records:
            monitored.telegraf(record, 50)

        answer = monitored.ask(*records)

        assert (len(answer.series), answer.faults) == (2, ())

    def test_nothing_is_asked_for_nothing(self, monitored: Monitored) -> None:
        record = monitored.machine()

        assert monitored.ask() == TelemetryAnswer(series=())
        assert monitored.ask(record, start=END, end=END) == TelemetryAnswer(series=())
        assert monitored.asked() == {}


class TestFaults:
    """What was not answered is a fault, and unknown."""

    def codes(self, answer: TelemetryAnswer) -> list[tuple[str, str | None, str]]:
        return [
            (report.part, report.account, report.fault.code)
            for report in answer.faults
            if report.fault is not None and not report.complete
        ]

    @pytest.mark.parametrize("method", ["MetricNamespaces_List", "MetricDefinitions_List", "Metrics_List"])
    def test_a_machine_that_cannot_be_asked_about_sinks_no_other(self, monitored: Monitored, method: str) -> None:
        record, other = monitored.machine(), monitored.machine("other")
        for one in (record, other):
            monitored.telegraf(one, 50)

        def hangs_up(call: Call) -> Reply | None:
            return NO_ANSWER if call.method == method and "/trainer/" in call.path else None

        with monitored.cloud.within(hangs_up):
            answer = monitored.ask(record, other)

        assert {series.ref for series in answer.series} == {other.ref}
        assert self.codes(answer) == [("westeurope", SUBSCRIPTION, "Unreachable")]
        assert {series.ref for series in monitored.ask(record, other).series} == {record.ref, other.ref}

    def test_a_missing_permission_is_told_once_and_by_name(self, monitored: Monitored) -> None:
        records = [monitored.machine(f"m{number}") for number in range(3)]
        elsewhere = monitored.machine("far", subscription=OTHER)

        with monitored.cloud.without("Microsoft.Insights/metricNamespaces/read"):
            answer = monitored.ask(*records, elsewhere)

        assert sorted(self.codes(answer)) == [
            ("westeurope", SUBSCRIPTION, "Forbidden"),
            ("westeurope", OTHER, "Forbidden"),
        ]
        here = next(report.fault for report in answer.faults if report.account == SUBSCRIPTION)
        assert here is not None
        assert here.permission == "Microsoft.Insights/metricNamespaces/read"
        assert here.sentence.endswith("and 2 more like it")

    @pytest.mark.parametrize("action", READER)
    def test_reading_is_all_that_is_needed(self, monitored: Monitored, action: str) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 50)
        with monitored.cloud.read_only():
            assert len(monitored.ask(record).series) == 1
        assert action.lower() in {call.action.lower() for call in monitored.cloud.calls}

    def test_a_subscription_that_never_registered_monitoring_has_none_of_it(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.cloud.refuse("Microsoft.Insights", not_registered("Microsoft.Insights"))

        assert monitored.ask(record) == TelemetryAnswer(series=())

    def test_a_machine_that_is_gone_is_no_fault(self, monitored: Monitored) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 50)
        monitored.ask(record)
        monitored.cloud.compute.machines.clear()
        gone = replace(record, ref=replace(record.ref, external_id=f"{record.ref.external_id}-2"))

        assert monitored.ask(record, gone) == TelemetryAnswer(series=())

    def test_a_workspace_that_fails_is_a_fault_of_its_region(self, monitored: Monitored) -> None:
        ada = monitored.compute()
        monitored.workspace(ada, 50)
        monitored.cloud.refuse("Metrics_List", unavailable())

        answer = monitored.ask(ada)

        assert (answer.series, self.codes(answer)) == ((), [("westeurope", SUBSCRIPTION, "Unreachable")])

    @pytest.mark.parametrize(
        "body",
        [
            {"value": [{"name": {"value": "utilization_gpu"}, "errorCode": "InternalError", "timeseries": []}]},
            {"value": [{"name": {"value": "something else"}, "timeseries": []}]},
            {"value": [{"name": {"value": "utilization_gpu"}, "timeseries": [{"data": []}]}, 3]},
            {"value": None},
            {},
        ],
    )
    def test_an_answer_that_is_not_whole_counts_for_nothing(self, monitored: Monitored, body: Any) -> None:
        record = monitored.machine()
        monitored.telegraf(record, 50)
        monitored.cloud.refuse("Metrics_List", Reply(status=200, body=json.dumps(body).encode()))

        answer = monitored.ask(record)

        assert (answer.series, self.codes(answer)) == ((), [("westeurope", SUBSCRIPTION, "Unreachable")])


# Whatever is answered.

REF = ResourceRef(provider="azure", account=SUBSCRIPTION, region="westeurope", kind=Kind.INSTANCE, external_id="/x")
SOURCE = Source(
    resource="/x",
    namespace=TELEGRAF,
    metrics=OF_TELEGRAF,
    filter="",
    owner=lambda _: REF,
    device="index",
    identity="uuid",
)
POINTS = st.lists(
    st.tuples(st.integers(-5, 15), st.one_of(st.none(), st.floats(), st.integers(-10, 200), st.just("NaN"))),
    max_size=12,
)


def answered(points: Iterable[tuple[int, object]]) -> dict[str, Any]:
    data = [
        {"timeStamp": f"{START + timedelta(minutes=minute):%Y-%m-%dT%H:%M:%SZ}"}
        | ({} if value is None else {"maximum": value})
        for minute, value in points
    ]
    named = [{"name": {"value": "index"}, "value": "0"}, {"name": {"value": "UUID"}, "value": "GPU-0"}]
    series = {"metadatavalues": named, "data": data}
    return {"value": [{"name": {"value": "utilization_gpu"}, "errorCode": "Success", "timeseries": [series]}]}


@given(points=POINTS)
def test_a_sample_is_a_ratio_of_a_minute_within_the_window(points: list[tuple[int, object]]) -> None:
    found = read(answered(points), SOURCE, START.timestamp(), END.timestamp())
    for samples in (one for by_identity in found.values() for one in by_identity.values()):
        assert samples
        assert all(START.timestamp() <= time < END.timestamp() for time in samples)
        assert all(0 <= value <= 1 and not math.isnan(value) for value in samples.values())


def test_series_are_in_order(monitored: Monitored) -> None:
    record = monitored.machine()
    monitored.telegraf(record, 1, 2, 3)
    [series] = monitored.ask(record).series
    assert series == Series(
        ref=record.ref,
        device="0",
        signal=Signal.UTILISATION,
        times=(FIRST, FIRST + 60, FIRST + 120),
        values=(0.01, 0.02, 0.03),
    )
