"""GPU samples of the CloudWatch agent over HTTP: whose they are, what they say, and what was not answered."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.aws import CloudWatchMetrics
from providers.aws.accounts import Accounts
from providers.aws.client import Client
from providers.aws.telemetry import CloudWatchTelemetry
from providers.contract import Provider
from providers.records import Kind, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import ACCOUNT, REGION, every_minute, push_gpu_samples
from tests.providers.aws.front import JSON, NO_ANSWER, Front, Reply, metric_data

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
END = START + timedelta(minutes=10)
UTILISATION_ONLY = {"memory_activity": None, "memory_used": None, "power": None}


def a_record(instance_id: str = "i-0abc", *, gpus: int = 1, region: str = REGION) -> ResourceRecord:
    return ResourceRecord(
        ref=ResourceRef(provider="aws", account=ACCOUNT, region=region, kind=Kind.INSTANCE, external_id=instance_id),
        incarnation=instance_id,
        name=instance_id,
        zone=None,
        sku="g6.xlarge",
        gpu_vendor="nvidia",
        gpu_model="L4",
        gpu_count=gpus,
    )


def ask(provider: Provider, *records: ResourceRecord, start: datetime = START, end: datetime = END) -> TelemetryAnswer:
    assert provider.telemetry is not None
    return provider.telemetry.samples(records, start=start, end=end)


def by_signal(answer: TelemetryAnswer) -> Mapping[Signal, Series]:
    return {series.signal: series for series in answer.series}


def metrics_named(*dimensions: Mapping[str, str]) -> Reply:
    """An answer of ListMetrics."""
    metrics = [
        {"Namespace": "CWAgent", "MetricName": "m", "Dimensions": [{"Name": k, "Value": v} for k, v in each.items()]}
        for each in dimensions
    ]
    return Reply(status=200, body=json.dumps({"Metrics": metrics}).encode(), headers=JSON)


def result(number: int = 0, *values: float, status: str = "Complete", first_minute: int = 0) -> dict[str, Any]:
    """One series in an answer of GetMetricData, a value a minute."""
    begin = int(START.timestamp()) + 60 * first_minute
    times = [begin + 60 * minute for minute in range(len(values))]
    return {"Id": f"s{number}", "Timestamps": times, "Values": list(values), "StatusCode": status}


class TestWhatIsSaid:
    def test_percent_becomes_a_ratio_and_the_rest_stays(self, moto: str, aws: Build) -> None:
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 3, 37.5), memory=70_000, power=690.5)
        found = by_signal(ask(aws(), a_record()))
        times = tuple(int(START.timestamp()) + 60 * minute for minute in range(3))
        assert {signal: series.values for signal, series in found.items()} == {
            Signal.UTILISATION: (0.375,) * 3,
            Signal.MEMORY_USED_MIB: (70_000,) * 3,
            Signal.POWER_WATTS: (690.5,) * 3,
        }
        assert {series.times for series in found.values()} == {times}

    def test_the_busiest_moment_of_a_minute_speaks_for_it(self, moto: str, aws: Build) -> None:
        moments = [(START + timedelta(seconds=second), percent) for second, percent in ((5, 0), (25, 90), (45, 0))]
        push_gpu_samples(moto, "i-0abc", 0, moments)
        (series,) = ask(aws(), a_record()).series
        assert (series.times, series.values) == ((int(START.timestamp()),), (0.9,))

    def test_the_window_is_half_open_and_need_not_begin_on_a_minute(self, moto: str, aws: Build) -> None:
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START - timedelta(minutes=5), 20, 50))
        (series,) = ask(aws(), a_record(), start=START + timedelta(seconds=1), end=END).series
        assert series.times[0] == int(START.timestamp()) + 60
        assert series.times[-1] == int(END.timestamp()) - 60

    def test_what_is_no_value_is_no_sample(self, front: Front, aws: Build) -> None:
        front.answer("cloudwatch:ListMetrics", metrics_named({"InstanceId": "i-0abc", "index": "0"}))
        no_values = (9.22e18, 9223372036854775794.0, math.nan, math.inf, -1.0)
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 0.0, *no_values, 50.0, 104.0)]))
        (series,) = ask(aws(cloudwatch=UTILISATION_ONLY), a_record()).series
        assert series.values == (0.0, 0.5, 1.0)

    def test_a_metric_not_wanted_is_not_asked_for(self, front: Front, aws: Build) -> None:
        ask(aws(cloudwatch=UTILISATION_ONLY), a_record())
        assert front.counted["cloudwatch:ListMetrics"] == 1

    def test_metrics_may_have_other_names(self, moto: str, front: Front, aws: Build) -> None:
        provider = aws(cloudwatch={**UTILISATION_ONLY, "namespace": "GPU", "utilisation": "gpu_busy"})
        front.answer("cloudwatch:ListMetrics", metrics_named({"InstanceId": "i-0abc", "index": "0"}))
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 25.0)]))
        assert by_signal(ask(provider, a_record()))[Signal.UTILISATION].values == (0.25,)


class TestWhoseItIs:
    def test_a_machine_is_known_by_its_instance_id_never_by_its_host_name(self, moto: str, aws: Build) -> None:
        for instance_id, percent in (("i-0abc", 10), ("i-0def", 90)):
            push_gpu_samples(moto, instance_id, 0, every_minute(START, 2, percent), host="ip-10-0-0-1")
        answer = ask(aws(), a_record("i-0abc"), a_record("i-0def"))
        assert {series.ref.external_id: series.values for series in answer.series} == {
            "i-0abc": (0.1, 0.1),
            "i-0def": (0.9, 0.9),
        }
        assert not answer.ambiguous

    def test_a_series_without_an_instance_id_is_nobodys(self, moto: str, aws: Build) -> None:
        push_gpu_samples(moto, "", 0, every_minute(START, 2, 0), dimensions={"host": "i-0abc", "index": "0"})
        assert ask(aws(), a_record("i-0abc")) == TelemetryAnswer(series=())

    def test_an_aggregate_is_no_gpu_beside_the_gpus_own_series(self, moto: str, aws: Build) -> None:
        for index in range(2):
            push_gpu_samples(moto, "i-0abc", index, every_minute(START, 2, 80))
        push_gpu_samples(moto, "i-0abc", None, every_minute(START, 2, 0), dimensions={"InstanceId": "i-0abc"})
        answer = ask(aws(), a_record(gpus=2))
        assert {series.device: series.values for series in answer.series} == {"0": (0.8, 0.8), "1": (0.8, 0.8)}
        assert not answer.ambiguous

    def test_an_aggregate_alone_speaks_for_an_only_gpu_and_for_no_other(self, moto: str, aws: Build) -> None:
        for instance_id in ("i-0one", "i-8gpu"):
            push_gpu_samples(moto, instance_id, None, every_minute(START, 2, 0), dimensions={"InstanceId": instance_id})
        answer = ask(aws(), a_record("i-0one"), a_record("i-8gpu", gpus=8))
        assert [(series.ref.external_id, series.device) for series in answer.series] == [("i-0one", "0")]

    def test_a_rollup_of_a_gpu_is_the_same_gpu_and_its_own_series_counts(self, moto: str, aws: Build) -> None:
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 80))
        rollup = {"InstanceId": "i-0abc", "index": "0"}
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 0), dimensions=rollup)
        (series,) = ask(aws(), a_record()).series
        assert series.values == (0.8, 0.8)

    def test_two_hosts_under_one_gpu_are_ambiguous_in_everything_and_for_no_other(self, moto: str, aws: Build) -> None:
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 0), host="ip-10-0-0-1", power=60)
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 80), host="ip-10-0-0-2")
        push_gpu_samples(moto, "i-0def", 0, every_minute(START, 2, 0))
        answer = ask(aws(), a_record("i-0abc"), a_record("i-0def"))
        assert answer.ambiguous == {a_record("i-0abc").ref}
        assert {series.ref.external_id for series in answer.series} == {"i-0def"}


class TestHowManyCalls:
    @pytest.mark.parametrize(("series", "calls"), [(1, 1), (500, 1), (501, 2), (1000, 2), (1001, 3)])
    def test_one_for_each_500_series(self, front: Front, aws: Build, series: int, calls: int) -> None:
        names = [f"i-{number}" for number in range(series)]
        front.answer("cloudwatch:ListMetrics", metrics_named(*({"InstanceId": each, "index": "0"} for each in names)))
        front.answer("cloudwatch:GetMetricData", metric_data([]))
        ask(aws(cloudwatch=UTILISATION_ONLY), *(a_record(each) for each in names))
        assert front.counted["cloudwatch:GetMetricData"] == calls

    def test_which_series_exist_is_learnt_every_quarter_of_an_hour(self, moto: str, front: Front, aws: Build) -> None:
        clock = [START]
        provider = aws(cloudwatch=UTILISATION_ONLY, now=lambda: clock[0])
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 50))
        lists = []
        for minutes in (0, 5, 14, 15, 29, 31):
            clock[0] = START + timedelta(minutes=minutes)
            assert ask(provider, a_record()).series
            lists.append(front.counted["cloudwatch:ListMetrics"])
        assert lists == [1, 1, 1, 2, 2, 3]

    def test_a_list_that_failed_is_asked_for_again(self, moto: str, front: Front, aws: Build) -> None:
        provider = aws(cloudwatch=UTILISATION_ONLY)
        push_gpu_samples(moto, "i-0abc", 0, every_minute(START, 2, 50))
        front.refuse("cloudwatch:ListMetrics", "AccessDenied", times=1)
        assert not ask(provider, a_record()).series
        assert ask(provider, a_record()).series

    @pytest.mark.parametrize(
        ("records", "end"),
        [
            pytest.param([], END, id="no machines"),
            pytest.param([a_record()], START, id="no time"),
            pytest.param([a_record()], START - timedelta(hours=1), id="less than no time"),
        ],
    )
    def test_none_where_nothing_is_asked(
        self, front: Front, aws: Build, records: Sequence[ResourceRecord], end: datetime
    ) -> None:
        assert ask(aws(), *records, end=end) == TelemetryAnswer(series=())
        assert not front.calls


class TestWhatWasNotAnswered:
    @pytest.fixture
    def provider(self, front: Front, aws: Build) -> Provider:
        """Two machines have series: s0 is i-0abc's, s1 is i-0def's."""
        names = ({"InstanceId": "i-0abc", "index": "0"}, {"InstanceId": "i-0def", "index": "0"})
        front.answer("cloudwatch:ListMetrics", metrics_named(*names))
        return aws(cloudwatch=UTILISATION_ONLY)

    def ask(self, provider: Provider) -> TelemetryAnswer:
        return ask(provider, a_record("i-0abc"), a_record("i-0def"))

    @pytest.mark.parametrize(
        ("status", "code", "permission"),
        [
            ("PartialData", "Unreachable", None),
            ("InternalError", "Unreachable", None),
            ("Forbidden", "Forbidden", "cloudwatch:GetMetricData"),
            ("AWordOfTomorrow", "Unreachable", None),
        ],
    )
    def test_is_absent_even_where_a_part_was_said(
        self, front: Front, provider: Provider, status: str, code: str, permission: str | None
    ) -> None:
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 0.0, 0.0, status=status), result(1, 0.0)]))
        answer = self.ask(provider)
        assert [series.ref.external_id for series in answer.series] == ["i-0def"]
        (report,) = answer.faults
        assert report.part == REGION
        assert report.fault is not None
        assert (report.fault.code, report.fault.permission) == (code, permission)
        assert f"1 of 2 series unfinished ({status})" in report.fault.sentence

    def test_goes_on_on_the_next_page(self, front: Front, provider: Provider) -> None:
        first = metric_data([result(0, 0.0, 10.0, status="PartialData"), result(1, 0.0)], NextToken="more")
        front.answer("cloudwatch:GetMetricData", first, times=1)
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 20.0, first_minute=2)]))
        answer = self.ask(provider)
        assert {series.ref.external_id: series.values for series in answer.series} == {
            "i-0abc": (0.0, 0.1, 0.2),
            "i-0def": (0.0,),
        }
        assert answer.faults == ()

    def test_is_absent_when_the_next_page_fails(self, front: Front, provider: Provider) -> None:
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 0.0), result(1, 0.0)], NextToken="m"), times=1)
        front.answer("cloudwatch:GetMetricData", NO_ANSWER)
        answer = self.ask(provider)
        assert answer.series == ()
        assert [report.fault.code for report in answer.faults if report.fault] == ["Unreachable"]

    def test_is_reported_in_cloudwatchs_own_words(self, front: Front, provider: Provider) -> None:
        remark = {"Code": "MaxMetricsExceeded", "Value": "not all metrics were searched"}
        front.answer("cloudwatch:GetMetricData", metric_data([result(0, 0.0)], Messages=[remark]))
        (report,) = self.ask(provider).faults
        assert report.fault is not None
        assert "MaxMetricsExceeded: not all metrics were searched" in report.fault.sentence

    def test_sinks_no_other_batch(self, front: Front, aws: Build) -> None:
        names = [f"i-{number}" for number in range(600)]
        front.answer("cloudwatch:ListMetrics", metrics_named(*({"InstanceId": each, "index": "0"} for each in names)))
        front.rules.append(lambda call: NO_ANSWER if b"i-599" in call.body else None)
        front.answer("cloudwatch:GetMetricData", metric_data([result(number, 0.0) for number in range(500)]))
        answer = ask(aws(cloudwatch=UTILISATION_ONLY), *(a_record(each) for each in names))
        assert [series.ref.external_id for series in answer.series] == names[:500]
        assert [report.fault.code for report in answer.faults if report.fault] == ["Unreachable"]

    def test_denied_is_one_fault_for_a_region_and_names_the_permission(self, front: Front, aws: Build) -> None:
        front.refuse("cloudwatch:ListMetrics", "AccessDenied", "User: x is not authorized")
        answer = ask(aws(), a_record(), a_record("i-0def", region="eu-west-1"))
        assert [report.part for report in answer.faults] == ["eu-west-1", "us-east-1"]
        assert {report.fault.permission for report in answer.faults if report.fault} == {"cloudwatch:ListMetrics"}


class Stub(Client, Accounts):
    """A CloudWatch with these series, each with one sample, the same for every account."""

    several = False

    def __init__(self, series: Sequence[Mapping[str, str]]) -> None:
        self.series = series

    def of(self, account: str) -> Client:
        return self

    def items(self, service: str, region: str, operation: str, key: str, **params: Any) -> Any:
        return iter([{"Dimensions": [{"Name": n, "Value": v} for n, v in each.items()]} for each in self.series])

    def pages(self, service: str, region: str, operation: str, key: str, **params: Any) -> Any:
        queries = params["MetricDataQueries"]
        done = {"Timestamps": [START], "Values": [0.0], "StatusCode": "Complete"}
        return iter([{"MetricDataResults": [{"Id": query["Id"], **done} for query in queries]}])


@given(
    published=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "InstanceId": st.sampled_from(["i-0abc", "i-0def"]),
                "index": st.sampled_from(["0", "1"]),
                "host": st.sampled_from(["a", "b"]),
                "name": st.sampled_from(["L4", "H100"]),
            },
        ),
        max_size=8,
    ),
    gpus=st.integers(1, 2),
)
def test_whatever_is_published_a_gpu_has_one_series_or_its_machine_is_ambiguous(
    published: Sequence[Mapping[str, str]], gpus: int
) -> None:
    records = [a_record("i-0abc", gpus=gpus), a_record("i-0def", gpus=gpus)]
    telemetry = CloudWatchTelemetry(Stub(published), CloudWatchMetrics(), now=lambda: START)
    answer = telemetry.samples(records, start=START, end=END)
    told = [(series.ref, series.device, series.signal) for series in answer.series]
    assert len(told) == len(set(told))
    assert not answer.ambiguous & {ref for ref, _, _ in told}
    for record in records:
        own = [each for each in published if each.get("InstanceId") == record.ref.external_id]
        if any("index" in each for each in own):
            spoken_for = {device for ref, device, _ in told if ref == record.ref}
            assert record.ref in answer.ambiguous or spoken_for == {each["index"] for each in own if "index" in each}
