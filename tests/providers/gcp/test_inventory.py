"""Listing and describing projects over HTTP: what is seen, what is said about what could not be seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from providers.errors import Misconfigured, NotFound, Unreachable, Unsupported
from providers.gcp import Config, machine_types, translate
from providers.gcp.client import Client
from providers.gcp.inventory import GcpInventory
from providers.gcp.projects import Projects
from providers.records import (
    CapacityType,
    Fault,
    InventoryAnswer,
    Kind,
    LossName,
    PartReport,
    ResourceRecord,
    ResourceRef,
    State,
)
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Reply, answer
from tests.providers.gcp.cloud_refusals import forbidden
from tests.providers.gcp.templates import telling_templates

OTHERS = {"instance groups", "GKE node pools", "Workbench instances", "TPU VMs"}
"""Parts of a project beside its regions."""
LISTED_ALWAYS = Counter(
    [
        "compute.instances.aggregatedList",
        "compute.instanceGroupManagers.aggregatedList",
        "container.projects.locations.clusters.list",
        "notebooks.projects.locations.instances.list",
        "tpu.projects.locations.nodes.list",
    ]
)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


Build = Callable[..., GcpInventory]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def google(cloud: Cloud, clock: Clock) -> Iterator[Build]:
    """An inventory of some projects."""
    clients: list[Client] = []
    cloud.rules.append(telling_templates(cloud))

    def build(*projects: str, patience_seconds: float = 30.0) -> GcpInventory:
        config = Config(projects=projects or ("research",), credentials="anonymous", endpoint=cloud.endpoint)
        client = Client(config, sleep=lambda _: None)
        clients.append(client)
        return GcpInventory(Projects(config, client, now=clock), client, now=clock, patience_seconds=patience_seconds)

    yield build
    for client in clients:
        client.close()


def by_path(answer: InventoryAnswer) -> Mapping[str, ResourceRecord]:
    found = {record.ref.external_id: record for record in answer.records}
    assert len(found) == len(answer.records), "something is listed twice"
    return found


def part(answer: InventoryAnswer, name: str = "*", project: str = "research") -> PartReport:
    [found] = [report for report in answer.parts if (report.part, report.account) == (name, project)]
    return found


def fault(answer: InventoryAnswer, name: str = "*") -> Fault:
    found = part(answer, name).fault
    assert found is not None
    return found


def ref(path: str, kind: Kind = Kind.INSTANCE, project: str = "research") -> ResourceRef:
    region = translate.region_of(path.split("/")[3])
    return ResourceRef(provider="gcp", account=project, region=region, kind=kind, external_id=path)


def only(method: str, reply: Reply, **where: Any) -> Callable[[Call], Reply | None]:
    """A rule for one method, and only for calls of which this is true."""

    def rule(call: Call) -> Reply | None:
        hit = call.method == method and all(getattr(call, key) == value for key, value in where.items())
        return reply if hit else None

    return rule


def a_mixed_project(cloud: Cloud) -> dict[str, str]:
    """One of everything, by what it is."""
    machine = cloud.compute.machine
    cluster = cloud.gke.cluster(location="us-central1-b")
    return {
        "trainer": machine("trainer", labels={"project": "vision"}),
        "n1": machine("n1", machine_type="n1-standard-8", gpus=("nvidia-tesla-t4", 4)),
        "spot": machine("spot", machine_type="a3-highgpu-8g", zone="europe-west4-b", provisioning="SPOT"),
        "stopped": machine("stopped", machine_type="g2-standard-24", status="TERMINATED"),
        "tpu machine": machine("ct", machine_type="ct5lp-hightpu-4t"),
        "protected": machine("kept", labels={"curfew-protect": "paper"}, protected=True),
        "plain": machine("plain", machine_type="e2-medium"),
        "group": cloud.groups.group("trainers", size=2, autoscaled=(1, 4)),
        "regional group": cloud.groups.group("wide", region="us-east4", size=3, machine_type="g2-standard-4"),
        "empty group": cloud.groups.group("empty", size=0),
        "plain group": cloud.groups.group("cpus", machine_type="e2-standard-4"),
        "pool": cloud.gke.pool(cluster),
        "plain pool": cloud.gke.pool(cluster, "system", machine_type="e2-standard-4"),
        "notebook": cloud.workbench.notebook("lab"),
        "plain notebook": cloud.workbench.notebook("notes", machine_type="e2-standard-4"),
        "tpu": cloud.tpus.node("tpu", accelerator_type="v4-16", hosts=2),
    }


class TestAMixedProject:
    def test_is_seen_as_it_is(self, cloud: Cloud, google: Build) -> None:
        there = a_mixed_project(cloud)
        answer = google().list()
        seen = by_path(answer)
        members = [*cloud.groups.members[there["group"]], *cloud.groups.members[there["regional group"]]]
        nodes = [node for group in cloud.gke.groups(there["pool"]) for node in cloud.groups.members[group]]
        expected = {*there.values(), *members, *nodes}
        assert set(seen) == expected - {path for what, path in there.items() if what.startswith("plain")}
        assert answer.complete
        assert {report.part for report in answer.parts} == {"*", "us-central1", "europe-west4", "us-east4", *OTHERS}
        assert all(report.fault is None and report.account == "research" for report in answer.parts)

        trainer = seen[there["trainer"]]
        assert (trainer.name, trainer.sku, trainer.gpu_model, trainer.gpu_count) == (
            "trainer",
            "a2-highgpu-1g",
            "A100",
            1,
        )
        assert (trainer.capacity_type, trainer.state) == (CapacityType.ON_DEMAND, State.RUNNING)
        assert trainer.tags["project"] == "vision"
        assert not trainer.fully_described
        assert (seen[there["n1"]].gpu_model, seen[there["n1"]].gpu_count) == ("T4", 4)
        assert seen[there["spot"]].capacity_type is CapacityType.SPOT
        assert {loss.name for loss in seen[there["spot"]].losses} == {LossName.LOCAL_DISKS}
        assert seen[there["stopped"]].state is State.STOPPED
        assert seen[there["tpu machine"]].gpu_model == "TPU v5e"
        assert [found.source for found in seen[there["protected"]].protections] == ["curfew-protect"]
        assert seen[there["tpu"]].gpu_count == 8

        group = seen[there["group"]]
        assert (group.members, group.gpu_count) == (tuple(cloud.groups.members[there["group"]]), 2)
        assert {seen[member].managed_by for member in group.members} == {"mig:trainers"}
        assert len(seen[there["regional group"]].members) == 3
        assert (seen[there["empty group"]].state, seen[there["empty group"]].gpu_model) == (State.STOPPED, "A100")
        assert seen[there["pool"]].members == tuple(nodes)
        assert {seen[node].managed_by for node in nodes} == {"gke-node-pool:main/gpus"}
        assert seen[there["notebook"]].ref.kind is Kind.NOTEBOOK

    def test_is_described_as_it_is_listed(self, cloud: Cloud, google: Build) -> None:
        a_mixed_project(cloud)
        found = google()
        for short in found.list().records:
            full = found.describe(short.ref)
            assert full.fully_described
            for one in fields(full):
                if one.name != "fully_described":
                    assert getattr(full, one.name) == getattr(short, one.name), (short.ref.external_id, one.name)

    def test_is_listed_in_five_calls_when_its_types_and_templates_are_known(self, cloud: Cloud, google: Build) -> None:
        a_mixed_project(cloud)
        found = google()
        found.list()
        first = Counter(cloud.counted)
        found.list()
        again = cloud.counted - first
        scalers = Counter(["compute.autoscalers.aggregatedList"])
        assert again == LISTED_ALWAYS + scalers
        # who made machines is asked for once, beside their list
        assert first["compute.instances.aggregatedList"] == 2
        assert first["compute.instanceTemplates.aggregatedList"] == 1

    def test_values_of_metadata_are_not_fetched(self, cloud: Cloud, google: Build) -> None:
        script = "x" * 50_000
        cloud.compute.machine("trainer", metadata={"startup-script": script})
        found = google()
        told: list[int] = []

        def sizes(call: Call) -> None:
            if call.method == "compute.instances.aggregatedList":
                told.append(len(json.dumps(call.query)))
                assert "metadata/items/key" in str(call.query["fields"])

        cloud.rules.append(sizes)
        assert len(found.list().records) == 1
        assert len(told) == 1


class TestTheOfficialClient:
    def test_sees_the_same_machines(self, cloud: Cloud, google: Build) -> None:
        """Record by record, over the same wire, what its types say and what we say."""
        a_mixed_project(cloud)
        for number, status in enumerate(sorted(translate.STATES)):
            scheduling = {"preemptible": True} if number % 3 == 0 else {}
            cloud.compute.machine(
                f"m{number}", machine_type="a2-ultragpu-1g", status=status, scheduling=scheduling,
                provisioning=["STANDARD", "SPOT", "FLEX_START", "RESERVATION_BOUND"][number % 4],
                protected=number % 2 == 0, labels={"number": str(number)},
            )  # fmt: skip
        sdk = compute_v1.InstancesClient(
            credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.endpoint}, transport="rest"
        )
        cards = {sku: kind.accelerators for sku, kind in cloud.catalogue.machine_types.items()}
        theirs = {}
        for place, scoped in sdk.aggregated_list(project="research"):
            for one in scoped.instances:
                sku = one.machine_type.split("/")[-1]
                count = sum(card.accelerator_count for card in one.guest_accelerators) or cards[sku]
                if count:
                    theirs[f"projects/research/{place}/instances/{one.name}"] = (
                        str(one.id),
                        sku,
                        count,
                        translate.STATES[one.status],
                        datetime.fromisoformat(one.creation_timestamp),
                        dict(one.labels),
                        sum(disk.disk_size_gb for disk in one.disks if disk.type_ == "SCRATCH"),
                        one.deletion_protection,
                    )
        records = [record for record in google().list().records if "/zones/" in record.ref.external_id]
        ours = {
            record.ref.external_id: (
                record.incarnation,
                record.sku,
                record.gpu_count,
                record.state,
                record.created_at,
                record.tags,
                int(record.losses[0].sentence.split(" GB")[0].replace(",", "")) if record.losses else 0,
                any(blocker.code == "DeletionProtection" for blocker in record.blockers),
            )
            for record in records
            if record.ref.kind is Kind.INSTANCE
        }
        of_notebooks = {path.replace("/locations/", "/zones/") for path in cloud.workbench.notebooks}
        assert ours == {path: said for path, said in theirs.items() if path not in of_notebooks}


class TestPages:
    def test_all_are_read(self, cloud: Cloud, google: Build) -> None:
        cloud.most_per_page = 2
        there = {cloud.compute.machine(f"m{number}") for number in range(7)}
        assert set(by_path(google().list())) == there
        assert cloud.counted["compute.instances.aggregatedList"] == 4

    def test_one_that_fails_makes_the_project_incomplete_and_keeps_what_was_seen(
        self, cloud: Cloud, google: Build
    ) -> None:
        cloud.most_per_page = 2
        there = {cloud.compute.machine(f"m{number}") for number in range(7)}
        cloud.rules.append(
            lambda call: (
                NO_ANSWER if call.method == "compute.instances.aggregatedList" and "pageToken" in call.query else None
            )
        )
        answer = google().list()
        assert len(set(by_path(answer)) & there) == 2
        assert not part(answer).complete
        # nothing nearer may speak for machines that were not seen
        assert {report.part for report in answer.parts} == {"*", *OTHERS}

    @pytest.mark.parametrize(
        "told",
        [
            {},
            {"items": {}},
            {"kind": "compute#instanceAggregatedList", "id": "projects/research/aggregated/instances"},
            {"kind": "compute#instanceAggregatedList", "id": "projects/research/aggregated/instances", "items": {}},
            {"kind": "compute#instanceAggregatedList", "id": "projects/research/aggregated/instances", "items": []},
            {"kind": "compute#instanceAggregatedList", "id": "projects/other/aggregated/instances", "items": {}},
            {
                "kind": "compute#instanceAggregatedList",
                "id": "projects/research/aggregated/instances",
                "items": {"zones/us-central1-a": {"instances": [{"name": "half"}]}},
            },
            {
                "kind": "compute#instanceAggregatedList",
                "id": "projects/research/aggregated/instances",
                "items": ["zones/us-central1-a"],
            },
        ],
        ids=[
            "nothing",
            "no kind",
            "no places",
            "an empty object of places",
            "an empty list of places",
            "another project's",
            "half a machine",
            "another form",
        ],
    )
    def test_what_google_does_not_answer_is_no_empty_project(
        self, cloud: Cloud, google: Build, told: dict[str, Any]
    ) -> None:
        cloud.rules.append(only("compute.instances.aggregatedList", answer(told)))
        found = google().list()
        assert (found.records, part(found).complete) == ((), False)
        assert fault(found).code == "Unreachable"

    @pytest.mark.parametrize("labels", [{"project": 5}, {"project": None}, ["vision"]])
    def test_labels_that_are_no_texts_spoil_their_project_and_no_cycle(
        self, cloud: Cloud, google: Build, labels: Any
    ) -> None:
        cloud.compute.instances[cloud.compute.machine()]["labels"] = labels
        told = {
            "kind": "compute#instanceAggregatedList",
            "id": "projects/research/aggregated/instances",
            "items": {"zones/us-central1-a": {"instances": list(cloud.compute.instances.values())}},
        }
        cloud.rules.append(only("compute.instances.aggregatedList", answer(told)))
        found = google().list()
        assert (found.records, part(found).complete) == ((), False)

    def test_an_empty_project_is_complete(self, google: Build) -> None:
        answer = google().list()
        assert (answer.records, answer.complete) == ((), True)
        assert {report.part for report in answer.parts} == {"*", *OTHERS}


class TestSilentZones:
    def test_make_their_region_incomplete_and_sink_no_other(self, cloud: Cloud, google: Build) -> None:
        here = cloud.compute.machine("here")
        cloud.compute.machine("there", zone="us-east4-b")
        with cloud.zone_down("us-east4-b"):
            answer = google().list()
        assert set(by_path(answer)) == {here}
        assert part(answer).complete
        assert part(answer, "us-central1").complete
        dark = part(answer, "us-east4")
        assert not dark.complete
        assert fault(answer, "us-east4").sentence == (
            "Google Cloud itself cannot tell of the machines in us-east4-b just now"
        )

    def test_make_what_else_may_be_there_incomplete_too(self, cloud: Cloud, google: Build) -> None:
        with cloud.zone_down("us-east4-b"):
            answer = google().list()
        for what in OTHERS:
            assert not part(answer, what).complete, what
            assert "us-east4-b" in fault(answer, what).sentence

    @pytest.mark.parametrize(
        ("said", "region"),
        [
            ({"unreachables": ["projects/research/zones/us-east4-b"]}, "us-east4"),
            ({"unreachables": ["zones/us-east4-b"]}, "us-east4"),
            ({"unreachables": ["somewhere"]}, None),
            ({"warning": {"code": "PARTIAL_SUCCESS"}}, None),
            ({"warning": {"code": "NO_RESULTS_ON_PAGE"}}, ""),
            ({"items": {"zones/us-east4-b": {"warning": {"code": "UNREACHABLE"}}}}, "us-east4"),
            ({"items": {"zones/us-east4-b": {"warning": {"code": "LIST_OVERHEAD_QUOTA_EXCEED"}}}}, "us-east4"),
            ({"items": {"zones/us-east4-b": {"warning": {"code": "NO_RESULTS_ON_PAGE"}}}}, ""),
        ],
    )
    def test_are_told_in_several_ways(
        self, cloud: Cloud, google: Build, said: dict[str, Any], region: str | None
    ) -> None:
        """`region` is the one that is not complete, None the whole project, empty none."""
        head = {"kind": "compute#instanceAggregatedList", "id": "projects/research/aggregated/instances", "items": {}}
        cloud.rules.append(only("compute.instances.aggregatedList", answer(head | said)))
        found = google().list()
        broken = {report.part for report in found.parts if not report.complete}
        assert broken == ({"*"} if region is None else {region} if region else set())


class TestWhatFails:
    @pytest.mark.parametrize(
        ("method", "name", "permission"),
        [
            ("compute.instanceGroupManagers.aggregatedList", "instance groups", "compute.instanceGroupManagers.list"),
            ("container.projects.locations.clusters.list", "GKE node pools", None),
            ("notebooks.projects.locations.instances.list", "Workbench instances", None),
            ("tpu.projects.locations.nodes.list", "TPU VMs", None),
        ],
    )
    def test_is_a_part_of_its_own_and_spoils_no_other(
        self, cloud: Cloud, google: Build, method: str, name: str, permission: str | None
    ) -> None:
        there = cloud.compute.machine()
        cloud.rules.append(only(method, forbidden(permission or method, "projects/research").reply))
        answer = google().list()
        assert there in by_path(answer)
        assert {report.part for report in answer.parts if not report.complete} == {name}
        assert fault(answer, name).code == "Forbidden"
        if permission:
            assert fault(answer, name).permission == permission

    def test_one_project_spoils_no_other(self, cloud: Cloud, google: Build) -> None:
        cloud.add_project("genomics")
        here = cloud.compute.machine()
        cloud.compute.machine("there", project="genomics")
        method = "compute.instances.aggregatedList"
        cloud.rules.append(only(method, forbidden(method, "projects/genomics").reply, project="genomics"))
        answer = google("research", "genomics").list()
        assert set(by_path(answer)) == {here}
        assert part(answer).complete
        assert not part(answer, project="genomics").complete

    @pytest.mark.parametrize("service", ["container", "notebooks", "tpu"])
    def test_an_api_that_is_switched_off_has_nothing_and_is_not_asked_again_for_a_while(
        self, cloud: Cloud, google: Build, clock: Clock, service: str
    ) -> None:
        cloud.projects["research"].disabled.add(service)
        found = google()
        assert found.list().complete
        assert found.list().complete
        cloud.calls.clear()
        assert found.list().complete
        assert [call for call in cloud.calls if call.service == service] == []
        clock.now += timedelta(minutes=11)
        found.list()
        assert len([call for call in cloud.calls if call.service == service]) == 1

    def test_a_project_without_compute_engine_has_no_machines(self, cloud: Cloud, google: Build) -> None:
        cloud.projects["research"].disabled.update({"compute", "container", "notebooks", "tpu"})
        answer = google().list()
        assert (answer.records, answer.complete) == ((), True)

    def test_credentials_that_are_refused_are_no_empty_answer(self, cloud: Cloud, clock: Clock) -> None:
        config = Config(projects=("research",), credentials="/nonexistent/key.json", endpoint=cloud.endpoint)
        client = Client(config)
        with pytest.raises(Misconfigured):
            GcpInventory(Projects(config, client, now=clock), client, now=clock).list()

    def test_a_list_that_hangs_delays_no_other(self, cloud: Cloud, google: Build) -> None:
        import threading

        there, held = cloud.compute.machine(), threading.Event()

        def hang(call: Call) -> None:
            if call.service == "tpu":
                held.wait(20)

        cloud.rules.append(hang)
        found = google(patience_seconds=1.5)
        try:
            answer = found.list()
            assert set(by_path(answer)) == {there}
            assert {report.part for report in answer.parts if not report.complete} == {"TPU VMs"}
            assert found.progress().waiting == ("TPU VMs",)
            assert set(found.progress().answered) == {"machines", *OTHERS} - {"TPU VMs"}
        finally:
            held.set()

    def test_nothing_is_known_of_progress_before_the_first_list(self, google: Build) -> None:
        assert google().progress().waiting == ()

    def test_a_discovery_that_takes_too_long_leaves_the_projects_that_were_known(
        self, cloud: Cloud, clock: Clock
    ) -> None:
        import threading

        there, held = cloud.compute.machine(), threading.Event()
        config = Config(organization="1234567890", credentials="anonymous", endpoint=cloud.endpoint)
        client = Client(config, sleep=lambda _: None)
        found = GcpInventory(Projects(config, client, now=clock), client, now=clock, patience_seconds=1.5)
        assert set(by_path(found.list())) == {there}
        clock.now += timedelta(minutes=11)

        def hang(call: Call) -> None:
            if call.service == "cloudresourcemanager":
                held.wait(20)

        try:
            with cloud.within(hang):
                answer = found.list()
                assert set(by_path(answer)) == {there}
                assert {report.part for report in answer.parts if not report.complete} == {"projects"}
        finally:
            held.set()
            client.close()


class TestMachineTypes:
    def test_a_notebook_of_a_type_that_nobody_tells_of_is_not_gone(self, cloud: Cloud, google: Build) -> None:
        kinds = cloud.catalogue.machine_types
        kinds["g9-standard-4"] = kinds["g2-standard-4"]
        cloud.workbench.notebook(machine_type="g9-standard-4")
        cloud.refuse("compute.machineTypes.list", forbidden("compute.machineTypes.list", "projects/research"))
        answer = google().list()
        assert not part(answer, "Workbench instances").complete
        assert "g9-standard-4" in fault(answer, "Workbench instances").sentence

    def test_are_asked_for_once_by_the_zone_they_are_in(self, cloud: Cloud, google: Build) -> None:
        cloud.add_project("genomics")
        cloud.compute.machine("a")
        cloud.compute.machine("b", zone="europe-west4-a")
        cloud.compute.machine("c", project="genomics", machine_type="g2-standard-4")
        found = google("research", "genomics")
        assert len(found.list().records) == 3
        asked = [call for call in cloud.calls if call.method == "compute.machineTypes.list"]
        assert sorted((call.project, call.zone) for call in asked)[0] == ("genomics", "us-central1-a")
        assert len(asked) == 2
        cloud.calls.clear()
        found.list()
        assert cloud.counted["compute.machineTypes.list"] == 0

    def test_are_asked_for_in_batches(self, cloud: Cloud, google: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine_types, "TYPES_PER_CALL", 2)
        for sku in ("a2-highgpu-1g", "g2-standard-4", "g2-standard-96", "e2-medium", "n1-standard-4"):
            cloud.compute.machine(sku.replace("-", ""), machine_type=sku)
        assert len(google().list().records) == 3
        assert cloud.counted["compute.machineTypes.list"] == 3

    def test_come_from_the_builtin_table_when_denied_and_that_is_said(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine("big", machine_type="a3-highgpu-8g", local_ssds=0)
        cloud.compute.machine("plain", machine_type="e2-medium")
        method = "compute.machineTypes.list"
        cloud.rules.append(only(method, forbidden(method, "projects/research/zones/us-central1-a").reply))
        found = google()
        answer = found.list()
        record = by_path(answer)[there]
        assert (record.gpu_model, record.gpu_count) == ("H100", 8)
        assert "6,000 GB" in record.losses[0].sentence
        assert part(answer).complete
        assert fault(answer).permission == method
        assert fault(answer).sentence.endswith("the built-in table of machine types was used for a3-highgpu-8g")
        assert found.describe(record.ref).gpu_model == "H100"

    def test_are_asked_for_again_after_a_refusal(self, cloud: Cloud, google: Build) -> None:
        cloud.compute.machine("big", machine_type="a3-highgpu-8g")
        found, method = google(), "compute.machineTypes.list"
        with cloud.within(only(method, forbidden(method, "projects/research/zones/us-central1-a").reply)):
            assert part(found.list()).fault is not None
        assert part(found.list()).fault is None

    def test_one_nobody_knows_leaves_its_region_incomplete(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine("new", zone="us-east4-a")
        here = cloud.compute.machine("here")
        found = google()
        found.list()
        cloud.compute.instances[there]["machineType"] = cloud.compute.instances[there]["machineType"].replace(
            "a2", "a9"
        )
        answer = found.list()
        assert set(by_path(answer)) == {here}
        assert part(answer).complete
        assert not part(answer, "us-east4").complete
        assert "left out: a9-highgpu-1g" in fault(answer, "us-east4").sentence
        with pytest.raises(Unsupported, match="a9-highgpu-1g"):
            found.describe(ref(there))

    def test_one_nobody_knows_is_no_matter_where_the_gpus_are_told(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine("new", gpus=("nvidia-b300", 8))
        url = cloud.compute.instances[there]["machineType"]
        cloud.compute.instances[there]["machineType"] = url.replace("a2", "a9")
        answer = google().list()
        assert (by_path(answer)[there].gpu_model, by_path(answer)[there].gpu_count) == ("B300", 8)
        assert answer.complete


class TestTheSecondLook:
    def test_translates_only_what_has_changed(
        self, cloud: Cloud, google: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = [cloud.compute.machine(f"m{number}") for number in range(5)]
        found = google()
        before = by_path(found.list())
        translated: list[str] = []
        true = translate.record

        def counting(instance: Mapping[str, Any], **known: Any) -> ResourceRecord:
            translated.append(instance["name"])
            return true(instance, **known)

        monkeypatch.setattr(translate, "record", counting)
        cloud.compute.enter(cloud.compute.instances[paths[3]], "TERMINATED")
        after = by_path(found.list())
        assert translated == ["m3"]
        assert after[paths[3]].state is State.STOPPED
        assert all(after[path] is before[path] for path in paths if path != paths[3])

    def test_forgets_what_is_gone(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine()
        found = google()
        assert len(found.list().records) == 1
        cloud.compute.vanish(there)
        assert found.list().records == ()


class TestGroups:
    def test_members_that_are_not_made_yet_are_not_there(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=2)
        cloud.groups.resize(path, 3)
        group = by_path(google().list())[path]
        assert len(group.members) == 3  # made already, and starting
        cloud.groups.members[path] = cloud.groups.members[path][:2]
        assert len(by_path(google().list())[path].members) == 2

    def test_a_machine_that_was_let_go_is_its_own(self, cloud: Cloud, google: Build) -> None:
        """It still says who made it, but the group counts one less, and is asked which."""
        path = cloud.groups.group(size=2)
        free = cloud.groups.members[path].pop()
        cloud.groups.groups[path]["targetSize"] = 1
        found = google()
        seen = by_path(found.list())
        assert seen[free].managed_by is None
        assert seen[path].members == tuple(cloud.groups.members[path])
        assert {seen[member].managed_by for member in seen[path].members} == {"mig:trainers"}
        assert found.describe(ref(free)).managed_by is None
        assert cloud.counted["compute.instanceGroupManagers.listManagedInstances"] >= 1

    def test_one_that_does_not_tell_its_members_has_those_that_say_so(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=2)
        members = tuple(cloud.groups.members[path])
        cloud.groups.members[path].pop()
        refusal = forbidden("compute.instanceGroupManagers.get", path)
        cloud.rules.append(only("compute.instanceGroupManagers.listManagedInstances", refusal.reply))
        answer = google().list()
        assert by_path(answer)[path].members == members
        assert {by_path(answer)[member].managed_by for member in members} == {"mig:trainers"}
        assert part(answer, "instance groups").complete
        assert fault(answer, "instance groups").permission == "compute.instanceGroupManagers.get"

    def test_a_machine_whose_group_is_gone_is_its_own(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=1)
        [left] = cloud.groups.members[path]
        del cloud.groups.groups[path]
        found = google()
        assert by_path(found.list())[left].managed_by is None
        assert found.describe(ref(left)).managed_by is None

    def test_without_the_list_of_groups_members_are_still_known_as_such(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=1)
        [member] = cloud.groups.members[path]
        method = "compute.instanceGroupManagers.aggregatedList"
        cloud.rules.insert(0, only(method, forbidden(method, "projects/research").reply))
        assert by_path(google().list())[member].managed_by == "mig:trainers"

    def test_without_the_answer_who_made_it_a_machine_is_somebodys(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=1)
        [member] = cloud.groups.members[path]
        found = google()
        refusal = lambda call: NO_ANSWER if "metadata/items(key,value)" in str(call.query.get("fields")) else None  # noqa: E731
        with cloud.within(refusal):
            answer = found.list()
            assert by_path(answer)[member].managed_by == "mig:unnamed"
            assert part(answer).fault is not None
        assert by_path(found.list())[member].managed_by == "mig:trainers"

    def test_of_a_node_pool_are_not_listed_beside_it(self, cloud: Cloud, google: Build) -> None:
        pool = cloud.gke.pool(cloud.gke.cluster())
        groups = [record for record in google().list().records if record.ref.kind is Kind.NODE_GROUP]
        assert [group.ref.external_id for group in groups] == [pool]

    def test_of_a_node_pool_are_not_listed_in_its_place(self, cloud: Cloud, google: Build) -> None:
        """Kubernetes Engine does not answer; its groups are known by their names, its nodes by their labels."""
        cloud.gke.pool(cloud.gke.cluster())
        method = "container.projects.locations.clusters.list"
        cloud.rules.insert(0, only(method, forbidden(method, "projects/research").reply))
        answer = google().list()
        assert {record.ref.kind for record in answer.records} == {Kind.INSTANCE}
        assert {record.managed_by for record in answer.records} == {"gke-node-pool:main/gpus"}

    def test_nodes_without_labels_are_known_by_their_group(self, cloud: Cloud, google: Build) -> None:
        pool = cloud.gke.pool(cloud.gke.cluster())
        nodes = [node for group in cloud.gke.groups(pool) for node in cloud.groups.members[group]]
        for node in nodes:
            cloud.compute.instances[node]["labels"] = {"goog-gke-node": ""}
        seen = by_path(google().list())
        assert {seen[node].managed_by for node in nodes} == {"gke-node-pool:main/gpus"}
        assert set(seen[pool].members) == set(nodes)

    def test_templates_that_are_refused_leave_the_groups_incomplete(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=1)
        cloud.groups.group("empty", size=0)
        refusal = forbidden("compute.instanceTemplates.list", "projects/research")
        cloud.rules.insert(0, only("compute.instanceTemplates.aggregatedList", refusal.reply))
        answer = google().list()
        assert path in by_path(answer)  # by its members
        assert not part(answer, "instance groups").complete
        assert fault(answer, "instance groups").permission == "compute.instanceTemplates.list"

    def test_one_that_is_gone_is_told_by_its_id(self, cloud: Cloud, google: Build) -> None:
        path = cloud.groups.group(size=0)
        found = google()
        [group] = found.list().records
        del cloud.groups.groups[path]
        with pytest.raises(NotFound):
            found.describe(group.ref)


class TestNotebooks:
    def test_and_its_machine_are_one_thing(self, cloud: Cloud, google: Build) -> None:
        path = cloud.workbench.notebook("lab", status="TERMINATED")
        [record] = google().list().records
        machine = cloud.compute.instances[cloud.workbench.machine_of(path)]
        assert (record.ref.external_id, record.incarnation) == (path, machine["id"])
        assert record.state is State.STOPPED

    def test_are_known_by_their_machines_where_workbench_is_refused(self, cloud: Cloud, google: Build) -> None:
        path = cloud.workbench.notebook("lab")
        method = "notebooks.projects.locations.instances.list"
        cloud.rules.append(only(method, forbidden(method, "projects/research").reply))
        [record] = google().list().records
        assert record.ref.external_id == cloud.workbench.machine_of(path)
        assert record.managed_by == "workbench:lab"

    def test_are_not_counted_twice_while_workbench_does_not_answer(self, cloud: Cloud, google: Build) -> None:
        cloud.workbench.notebook("lab")
        found = google()
        assert [record.ref.kind for record in found.list().records] == [Kind.NOTEBOOK]
        with cloud.within(lambda call: NO_ANSWER if call.service == "notebooks" else None):
            answer = found.list()
        assert answer.records == ()
        assert not part(answer, "Workbench instances").complete

    def test_a_machine_that_has_taken_the_name_of_one_is_not_hidden_behind_it(
        self, cloud: Cloud, google: Build
    ) -> None:
        path = cloud.workbench.notebook("lab")
        cloud.compute.vanish(cloud.workbench.machine_of(path))
        other = cloud.compute.machine("lab", machine_type="a2-highgpu-1g")
        number = cloud.compute.instances[other]["id"]
        found = google()
        listed = by_path(found.list())
        assert listed[other].incarnation == number
        assert {record.incarnation for record in listed.values() if record.ref.kind is Kind.NOTEBOOK} <= {
            cloud.workbench.notebooks[path]["gceSetup"]["instanceId"]
        }
        assert found.describe(ref(path, Kind.NOTEBOOK)).incarnation != number

    def test_one_that_is_deleted_leaves_its_machine_free_to_be_seen(self, cloud: Cloud, google: Build) -> None:
        path = cloud.workbench.notebook("lab")
        found = google()
        found.list()
        del cloud.workbench.notebooks[path]
        [record] = found.list().records
        assert record.ref.kind is Kind.INSTANCE


class TestDescribe:
    def test_a_machine_that_is_gone_is_told_by_its_id(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine()
        cloud.compute.vanish(there)
        with pytest.raises(NotFound):
            google().describe(ref(there))

    def test_a_zone_that_is_silent_tells_of_no_machine(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine()
        with cloud.zone_down("us-central1-a"), pytest.raises(Unreachable):
            google().describe(ref(there))

    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            (Kind.INSTANCE, "projects/research/locations/us-central1-a/nodes/tpu"),
            (Kind.NOTEBOOK, "projects/research/locations/us-central1-a/instances/lab"),
            (Kind.NODE_GROUP, "projects/research/zones/us-central1-a/instanceGroupManagers/trainers"),
            (Kind.NODE_GROUP, "projects/research/locations/us-central1/clusters/main/nodePools/gpus"),
        ],
    )
    def test_whatever_is_gone_is_told_by_its_id(self, google: Build, kind: Kind, path: str) -> None:
        with pytest.raises(NotFound):
            google().describe(ref(path, kind))

    def test_another_projects_machine_is_not_asked_for_in_this_ones_name(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine()
        with pytest.raises(Unreachable):
            google().describe(ref(there, project="genomics"))
        assert cloud.calls == []

    def test_half_a_machine_is_none(self, cloud: Cloud, google: Build) -> None:
        there = cloud.compute.machine()
        cloud.rules.append(only("compute.instances.get", answer({"kind": "compute#instance", "name": "trainer"})))
        with pytest.raises(Unreachable):
            google().describe(ref(there))


class TestAnOrganisation:
    def test_is_seen_whole_and_names_what_it_cannot_tell(self, cloud: Cloud, clock: Clock) -> None:
        cloud.add_project("genomics")
        cloud.compute.machine("here")
        cloud.compute.machine("there", project="genomics")
        config = Config(organization="1234567890", credentials="anonymous", endpoint=cloud.endpoint)
        client = Client(config, sleep=lambda _: None)
        found = GcpInventory(Projects(config, client, now=clock), client, now=clock)
        answer = found.list()
        assert answer.identity == "organizations/1234567890"
        assert {record.ref.account for record in answer.records} == {"research", "genomics"}
        assert found.progress().answered == ("genomics", "research")
        clock.now += timedelta(minutes=11)
        with cloud.within(lambda call: NO_ANSWER if call.service == "cloudresourcemanager" else None):
            answer = found.list()
        assert len(answer.records) == 2
        [report] = [report for report in answer.parts if report.part == "projects"]
        assert not report.complete
        client.close()
