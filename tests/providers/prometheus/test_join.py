"""How series find machines: by the most trusted label, and never by choosing among two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.prometheus import LabelJoin
from providers.prometheus.join import Join, Way
from providers.records import Kind, ResourceRecord
from tests.providers.prometheus.builders import NOON, START, ask, every, machine, telemetry
from tests.providers.prometheus.conftest import Fronted, Serve

A, B = machine("i-0a", name="alpha"), machine("i-0b", name="beta")
AZURE = "/subscriptions/s/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/gpu-1"
GCE = "projects/p/zones/us-east1-b/instances/gpu-1"
USUAL: tuple[Way, ...] = ("instance_id", "host_name")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Labels, the machines there are, and which of them are meant."""

    labels: Mapping[str, str]
    among: Sequence[ResourceRecord] = (A, B)
    ways: Sequence[Way] = USUAL
    means: Sequence[ResourceRecord] = ()


FINDS = {
    "the cloud's id": Case(labels={"instance_id": "i-0a"}, means=[A]),
    "the cloud's id in CloudWatch's spelling": Case(labels={"InstanceId": "i-0b"}, means=[B]),
    "a renamed id": Case(labels={"instance_id": "other", "exported_instance_id": "i-0a"}, means=[A]),
    "Kubernetes' id of an AWS machine": Case(labels={"provider_id": "aws:///us-east-1a/i-0a"}, means=[A]),
    "Kubernetes' id of a Google machine": Case(
        labels={"provider_id": "gce://p/us-east1-b/gpu-1"},
        among=[machine(GCE, provider="gcp"), machine(GCE.replace("-b", "-c"), provider="gcp")],
        means=[machine(GCE, provider="gcp")],
    ),
    "Kubernetes' id of an Azure machine, in any case": Case(
        labels={"provider_id": f"azure://{AZURE.lower()}"}, among=[machine(AZURE), A], means=[machine(AZURE)]
    ),
    "a namesake in another resource group is another machine": Case(
        labels={"provider_id": f"azure://{AZURE.replace('RG', 'other')}"}, among=[machine(AZURE)], means=[]
    ),
    "an id wins over a host name": Case(labels={"instance_id": "i-0a", "Hostname": "beta"}, means=[A]),
    "an id nobody has leaves the host name": Case(labels={"instance_id": "i-99", "Hostname": "beta"}, means=[B]),
    "the host's name": Case(labels={"Hostname": "alpha"}, means=[A]),
    "the host's name in newer exporters": Case(labels={"hostname": "alpha"}, means=[A]),
    "in any case": Case(labels={"hostname": "ALPHA"}, means=[A]),
    "the scraped address without its port": Case(labels={"instance": "alpha:9400"}, means=[A]),
    "the exporter's own address": Case(labels={"instance": "10.0.0.7:9400", "exported_instance": "beta"}, means=[B]),
    "the node, where the host is the exporter's pod": Case(
        labels={"Hostname": "dcgm-exporter-x", "node": "alpha", "instance": "10.0.0.7:9400"}, means=[A]
    ),
    "an id as host name": Case(labels={"Hostname": "i-0a.ec2.internal"}, means=[A]),
    "a long name where the machine has the short one": Case(labels={"nodename": "alpha.corp.example."}, means=[A]),
    "a short name where the machine has the long one": Case(
        labels={"host": "gpu-1"}, among=[machine("i-1", name="gpu-1.eu.example"), A], means=[machine("i-1")]
    ),
    "a long name that is another's": Case(
        labels={"host": "gpu-1.us.example"}, among=[machine("i-1", name="gpu-1.eu.example")], means=[]
    ),
    "the very same long name": Case(
        labels={"host": "gpu-1.eu.example"},
        among=[machine("i-1", name="gpu-1.eu.example"), machine("i-2", name="gpu-1.us.example")],
        means=[machine("i-1")],
    ),
    "a tag that names the host": Case(
        labels={"Hostname": "ip-10-0-0-5"},
        among=[machine("i-1", tags={"Private-DNS": "ip-10-0-0-5.ec2.internal"}), A],
        means=[machine("i-1")],
    ),
    "an address as a name": Case(
        labels={"instance": "10.0.0.5:9400"},
        among=[machine("i-1", name="10.0.0.5"), machine("i-2", name="10")],
        means=[machine("i-1")],
    ),
    "an address of IPv6": Case(
        labels={"instance": "[fd00::5]:9400"}, among=[machine("i-1", name="fd00::5")], means=[machine("i-1")]
    ),
    "a node of a cluster": Case(
        labels={"node": "gke-1"}, among=[machine("gke-1", kind=Kind.NODE), A], means=[machine("gke-1", kind=Kind.NODE)]
    ),
    "everybody's own name is nobody's": Case(
        labels={"Hostname": "localhost", "instance": "127.0.0.1:9400"}, among=[machine("i-1", name="localhost")]
    ),
    "a workload is no host": Case(labels={"host": "alpha"}, among=[machine("x", name="alpha", kind=Kind.WORKLOAD)]),
    "nothing that fits": Case(labels={"Hostname": "gamma", "UUID": "GPU-1", "gpu": "0"}),
    "an empty label": Case(labels={"Hostname": "", "instance_id": ""}, among=[machine("i-1", name="")]),
    "one name in two networks": Case(
        labels={"Hostname": "gpu-1"},
        among=[machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", account="222222222222"), A],
        means=[machine("i-1"), machine("i-2", account="222222222222")],
    ),
    "two labels that disagree": Case(labels={"Hostname": "alpha", "node": "beta"}, means=[A, B]),
    "a short name that begins two long ones": Case(
        labels={"Hostname": "gpu-1"},
        among=[machine("i-1", name="gpu-1.eu.example"), machine("i-2", name="gpu-1.us.example")],
        means=[machine("i-1"), machine("i-2")],
    ),
    "a long name whose beginning two machines have": Case(
        labels={"Hostname": "gpu-1.eu.example"},
        among=[machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", region="eu-west-1")],
        means=[machine("i-1"), machine("i-2", region="eu-west-1")],
    ),
    "a label of one's own, to a tag": Case(
        labels={"rack": "r7", "Hostname": "alpha"},
        ways=[LabelJoin(label="rack", to="tag:Rack"), "host_name"],
        among=[A, machine("i-7", tags={"Rack": "r7"})],
        means=[machine("i-7")],
    ),
    "a label of one's own, to the id, whatever the kind": Case(
        labels={"job_name": "train"},
        ways=[LabelJoin(label="job_name", to="external_id")],
        among=[machine("train", kind=Kind.TRAINING_JOB), A],
        means=[machine("train", kind=Kind.TRAINING_JOB)],
    ),
    "a label of one's own, to a name, word for word": Case(
        labels={"box": "alpha.corp.example"}, ways=[LabelJoin(label="box", to="name")]
    ),
    "a label of one's own that two share": Case(
        labels={"rack": "r7"},
        ways=[LabelJoin(label="rack", to="tag:Rack")],
        among=[machine("i-7", tags={"Rack": "r7"}), machine("i-8", tags={"Rack": "r7"})],
        means=[machine("i-7"), machine("i-8")],
    ),
    "what is not among the ways is not looked at": Case(labels={"Hostname": "alpha"}, ways=["instance_id"]),
}


@pytest.mark.parametrize("name", FINDS)
def test_labels_lead_to(name: str) -> None:
    case = FINDS[name]
    join = Join(case.ways, case.among)
    found = join.machine(case.labels)
    assert (found.refs if found else frozenset()) == {record.ref for record in case.means}
    if found:
        assert case.labels[found.label] == found.value
        assert found.label in join.labels


WORDS = st.sampled_from(["gpu-1", "gpu-1.eu", "gpu-1.us", "gpu-2", "i-1", "i-2", "10.0.0.1", "GPU-1", "localhost", ""])


@given(
    names=st.lists(WORDS, min_size=1, max_size=4),
    labels=st.dictionaries(st.sampled_from(["Hostname", "node", "instance", "instance_id"]), WORDS),
    data=st.data(),
)
def test_a_further_machine_never_takes_a_series_from_another(
    names: list[str], labels: dict[str, str], data: st.DataObject
) -> None:
    """It can make what was found ambiguous; it takes the place of it only where its name fits word for word."""
    records = [machine(f"i-{n}", name=name) for n, name in enumerate(names, start=1)]
    newcomer = machine("i-9", name=data.draw(WORDS))
    before = Join(USUAL, records).machine(labels)
    after = Join(USUAL, [*records, newcomer]).machine(labels)
    if before is None:
        assert after is None or after.refs == {newcomer.ref}
    else:
        assert after is not None
        assert after.refs in (before.refs, before.refs | {newcomer.ref}, {newcomer.ref})
        if after.refs == {newcomer.ref}:
            assert newcomer.name.lower() in {value.lower() for value in labels.values()}


# from here on with a server


def gpu(labels: str, value: float = 0.0) -> dict[str, list[tuple[int, float]]]:
    return {f"DCGM_FI_DEV_GPU_UTIL{{{labels}}}": every(60, value)}


def test_a_name_in_two_networks_is_ambiguous_for_both_and_told_of_neither(prometheus: Serve) -> None:
    here, there = machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", account="222222222222")
    other = machine("i-3", name="gpu-3")
    url = prometheus(gpu('UUID="GPU-1",Hostname="gpu-1"') | gpu('UUID="GPU-3",Hostname="gpu-3"'))
    answer = ask(telemetry(url), [here, there, other])
    assert answer.ambiguous == {here.ref, there.ref}
    assert {series.ref for series in answer.series} == {other.ref}


def test_an_id_on_the_series_settles_it(prometheus: Serve) -> None:
    here, there = machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", account="222222222222")
    url = prometheus(
        gpu('UUID="GPU-1",Hostname="gpu-1",instance_id="i-1"') | gpu('UUID="GPU-2",Hostname="gpu-1",instance_id="i-2"')
    )
    answer = ask(telemetry(url), [here, there])
    assert answer.ambiguous == frozenset()
    assert {(series.ref, series.device) for series in answer.series} == {(here.ref, "GPU-1"), (there.ref, "GPU-2")}


@pytest.mark.parametrize("alone", ["the first", "the second"])
def test_a_namesake_counts_though_only_one_is_asked_about(prometheus: Serve, alone: str) -> None:
    """As new machines are asked about by themselves, and as the look before an act does."""
    here, there = machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", account="222222222222")
    source = telemetry(prometheus(gpu('UUID="GPU-1",Hostname="gpu-1"')))
    ask(source, [here])
    ask(source, [there])
    answer = ask(source, [here if alone == "the first" else there])
    assert answer.ambiguous == {here.ref, there.ref}
    assert answer.series == ()


def test_a_namesake_that_nobody_asked_about_for_an_hour_is_forgotten(prometheus: Serve) -> None:
    moment = [NOON]
    here, there = machine("i-1", name="gpu-1"), machine("i-2", name="gpu-1", account="222222222222")
    source = telemetry(prometheus(gpu('UUID="GPU-1",Hostname="gpu-1"')), now=lambda: moment[0])
    ask(source, [there])
    moment[0] += timedelta(minutes=59)
    assert ask(source, [here]).ambiguous == {here.ref, there.ref}
    moment[0] += timedelta(minutes=1)
    answer = ask(source, [here])
    assert answer.ambiguous == frozenset()
    assert {series.ref for series in answer.series} == {here.ref}


def test_a_machine_that_was_renamed_is_found_by_its_new_name_only(prometheus: Serve) -> None:
    source = telemetry(prometheus(gpu('UUID="GPU-1",Hostname="new"')))
    record = machine("i-1", name="old")
    assert ask(source, [record]).series == ()
    assert len(ask(source, [replace(record, name="new")]).series) == 1
    assert ask(source, [record]).series == ()


def test_more_gpus_than_the_machine_has_are_those_of_a_namesake(prometheus: Serve) -> None:
    """Of the two hosts of this name we know one; which one is silent cannot be told."""
    url = prometheus(
        gpu('UUID="GPU-1",Hostname="gpu-1",instance="10.0.0.1:9400"')
        | gpu('UUID="GPU-2",Hostname="gpu-1",instance="10.9.0.1:9400"')
    )
    record = machine("i-1", name="gpu-1")
    answer = ask(telemetry(url), [record])
    assert answer.ambiguous == {record.ref}
    assert answer.series == ()


def test_the_machine_that_had_the_name_before_is_no_namesake(prometheus: Serve) -> None:
    restarted = START + timedelta(minutes=30)
    url = prometheus(
        {
            'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-1",Hostname="gpu-1"}': every(60, 0.0, end=restarted - timedelta(minutes=5)),
            'DCGM_FI_DEV_GPU_UTIL{UUID="GPU-2",Hostname="gpu-1"}': every(60, 0.0, start=restarted),
        }
    )
    answer = ask(telemetry(url), [machine("i-1", name="gpu-1", launched_at=restarted)])
    assert answer.ambiguous == frozenset()
    assert {series.device for series in answer.series} == {"GPU-1", "GPU-2"}


def test_equal_times_join_nothing(prometheus: Serve) -> None:
    url = prometheus(gpu('UUID="GPU-1",Hostname="stranger"') | gpu('UUID="GPU-2",Hostname="alpha"'))
    answer = ask(telemetry(url), [A, B])
    assert {(series.ref, series.device) for series in answer.series} == {(A.ref, "GPU-2")}


AWKWARD = ['quo"te', "back\\slash", "a|b", "a.c", "new\nline", "ünï", "(", "$x^", "[a-z]+", "sp ace"]


def test_awkward_names_are_asked_for_as_they_are(fronted: Fronted) -> None:
    """A name is never a pattern, and cannot end the text it stands in."""

    def written(name: str) -> str:
        return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    front = fronted(
        {
            key: samples
            for name in AWKWARD
            for key, samples in gpu(f'UUID="GPU-{written(name)}",Hostname="{written(name)}"').items()
        }
    )
    records = [machine(f"i-{n}", name=name) for n, name in enumerate(AWKWARD)]
    answer = ask(telemetry(front.url), records)
    assert answer.faults == ()
    assert {series.ref for series in answer.series} == {record.ref for record in records}
    assert len(front.calls) == 2
