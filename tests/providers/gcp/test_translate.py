"""What Compute Engine, Workbench and Cloud TPU answer, as records: tables of what is said and what it means. What is
read of a machine is held to what Google's own types read of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import compute_v1
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.errors import Unreachable
from providers.gcp import translate
from providers.gcp.translate import Devices, MachineType
from providers.machine_ids import listed_key, machine_key
from providers.records import CapacityType, Initiator, Kind, LossName, ResourceRecord, State, Verb
from tests.providers.gcp import discovery

PROJECT, ZONE = "research", "us-central1-a"
BASE = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/{ZONE}"
A100 = MachineType(devices=Devices(vendor="nvidia", model="A100", count=1, memory_mib=40960))


def attached(*said: tuple[str, int]) -> dict[str, Any]:
    return {
        "guestAccelerators": [
            {"acceleratorType": f"{BASE}/acceleratorTypes/{kind}", "acceleratorCount": count} for kind, count in said
        ]
    }


def an_instance(**said: Any) -> dict[str, Any]:
    """What Compute Engine says of a plain running machine, and whatever else is wanted."""
    return {
        "id": "7000000000000000001",
        "name": "trainer",
        "machineType": f"{BASE}/machineTypes/a2-highgpu-1g",
        "status": "RUNNING",
        "creationTimestamp": "2026-11-01T00:00:00.123-07:00",
        "lastStartTimestamp": "2026-11-02T01:30:00.456-08:00",
        "scheduling": {"provisioningModel": "STANDARD", "preemptible": False},
        "disks": [{"type": "PERSISTENT", "diskSizeGb": "100"}],
        **said,
    }


def a_record(machine: MachineType = A100, group: str | None = None, **said: Any) -> ResourceRecord:
    return translate.record(an_instance(**said), account=PROJECT, zone=ZONE, machine=machine, group=group)


def codes(record: ResourceRecord, verb: Verb) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is verb]


def metadata(*keys: str) -> dict[str, Any]:
    return {"metadata": {"items": [{"key": key} for key in keys]}}


class TestNames:
    def test_a_machine_is_named_by_its_full_path_and_told_apart_by_its_number(self) -> None:
        record = a_record()
        assert record.ref.external_id == "projects/research/zones/us-central1-a/instances/trainer"
        assert (record.ref.account, record.ref.region, record.zone) == (PROJECT, "us-central1", ZONE)
        assert (record.incarnation, record.sku) == ("7000000000000000001", "a2-highgpu-1g")

    def test_kubernetes_calls_it_the_same(self) -> None:
        assert listed_key(a_record().ref.external_id) == machine_key("gce://research/us-central1-a/trainer")

    @pytest.mark.parametrize(
        ("place", "region"),
        [
            ("us-central1-a", "us-central1"),
            ("us-central1-ai1a", "us-central1"),
            ("northamerica-northeast1-c", "northamerica-northeast1"),
            ("europe-west4", "europe-west4"),
        ],
    )
    def test_a_zone_has_its_region_in_its_name(self, place: str, region: str) -> None:
        assert translate.region_of(place) == region

    @pytest.mark.parametrize(
        "name",
        ["projects/research/zones/z/instances/n", "projects/123456789/zones/z/instances/n"],
        ids=["by id", "by number, as Google tells some"],
    )
    def test_what_is_the_projects_own_passes(self, name: str) -> None:
        translate.check_project(name, "research")

    @pytest.mark.parametrize("name", ["projects/other/zones/z/instances/n", "zones/z/instances/n", ""])
    def test_what_is_anothers_does_not(self, name: str) -> None:
        with pytest.raises(Unreachable):
            translate.check_project(name, "research")


ACCELERATORS = {
    "nvidia-tesla-t4": ("nvidia", "T4", 16),
    "nvidia-tesla-t4-vws": ("nvidia", "T4", 16),
    "nvidia-tesla-p4": ("nvidia", "P4", 8),
    "nvidia-tesla-p100-vws": ("nvidia", "P100", 16),
    "nvidia-tesla-v100": ("nvidia", "V100", 16),
    "nvidia-tesla-k80": ("nvidia", "K80", 12),
    "nvidia-tesla-a100": ("nvidia", "A100", 40),
    "nvidia-a100-80gb": ("nvidia", "A100-80GB", 80),
    "nvidia-l4": ("nvidia", "L4", 24),
    "nvidia-l4-vws": ("nvidia", "L4", 24),
    "nvidia-h100-80gb": ("nvidia", "H100", 80),
    "nvidia-h100-mega-80gb": ("nvidia", "H100", 80),
    "nvidia-h200-141gb": ("nvidia", "H200", 141),
    "nvidia-b200": ("nvidia", "B200", 180),
    "nvidia-gb200": ("nvidia", "GB200", 186),
    "nvidia-rtx-pro-6000": ("nvidia", "RTX PRO 6000", 96),
    "nvidia-rtx-pro-6000-vws": ("nvidia", "RTX PRO 6000", 96),
    "NVIDIA_TESLA_V100": ("nvidia", "V100", 16),
    "NVIDIA_H100_MEGA_80GB": ("nvidia", "H100", 80),
    "NVIDIA_RTX6000": ("nvidia", "RTX PRO 6000", 96),
    "ct5lp": ("google", "TPU v5e", 16),
    "ct6e": ("google", "TPU v6e", 32),
    "nvidia-b300": ("nvidia", "B300", None),
    "nvidia-x900-512gb": ("nvidia", "X900", None),
    "amd-instinct-mi400x": ("amd", "MI400X", None),
    "ct9z": ("google", "TPU ct9z", None),
    "graphcore-ipu": (None, "graphcore-ipu", None),
}
"""Accelerators by Google's names for them; the last ones are nobody's yet."""


class TestAccelerators:
    @pytest.mark.parametrize(("said", "meant"), ACCELERATORS.items())
    def test_are_named_as_everyone_names_them(self, said: str, meant: tuple[str | None, str, int | None]) -> None:
        vendor, model, gib = meant
        memory = None if gib is None else gib * 1024
        assert translate.accelerator(said, 2) == Devices(vendor=vendor, model=model, count=2, memory_mib=memory)

    @pytest.mark.parametrize(
        ("own", "machine", "meant"),
        [
            ((), A100, ("A100", 1)),
            ((("nvidia-tesla-a100", 1),), A100, ("A100", 1)),
            ((("nvidia-tesla-t4", 2),), translate.PLAIN, ("T4", 2)),
            ((("nvidia-tesla-t4", 1), ("nvidia-tesla-t4", 3)), translate.PLAIN, ("T4", 4)),
            ((("nvidia-tesla-t4", 0),), translate.PLAIN, (None, 0)),
            ((), translate.PLAIN, (None, 0)),
        ],
        ids=[
            "those of its type",
            "those of its type, told twice, are counted once",
            "those attached",
            "those attached, in several entries",
            "none attached",
            "none at all",
        ],
    )
    def test_a_machine_presents(
        self, own: tuple[tuple[str, int], ...], machine: MachineType, meant: tuple[str | None, int]
    ) -> None:
        record = a_record(machine, **attached(*own))
        assert (record.gpu_model, record.gpu_count) == meant

    @pytest.mark.parametrize("count", [-1, 10**12, "9" * 30])
    def test_a_number_that_no_machine_has_is_not_read(self, count: int | str) -> None:
        with pytest.raises(ValueError, match="no machine has"):
            translate.attached([{"acceleratorType": "nvidia-l4", "acceleratorCount": count}])

    def test_a_part_of_one_is_one_device(self) -> None:
        answer = {
            "name": "g4-standard-6",
            "description": "Graphics Optimized: 1/8 NVIDIA RTX PRO 6000 GPU, 6 vCPUs, 22GB RAM",
            "accelerators": [{"guestAcceleratorType": "nvidia-rtx-pro-6000", "guestAcceleratorCount": 1}],
        }
        machine = translate.machine_type(answer)
        record = a_record(machine, **attached(("nvidia-rtx-pro-6000", 1)))
        assert (record.gpu_count, record.gpu_share, record.gpu_memory_mib) == (1, 0.125, 12 * 1024)
        assert machine == translate.builtin_types()["g4-standard-6"]

    @pytest.mark.parametrize(
        ("sku", "partitions", "size_gb"),
        [("a3-highgpu-8g", 16, 6000), ("a2-ultragpu-1g", 1, 375), ("a4x-highgpu-4g", 4, 12_000)],
    )
    def test_local_ssd_of_a_type_is_told_in_partitions(self, sku: str, partitions: int, size_gb: int) -> None:
        answer = {"name": sku, "bundledLocalSsds": {"partitionCount": partitions}}
        assert translate.machine_type(answer).local_storage_gb == size_gb
        assert translate.builtin_types()[sku].local_storage_gb == size_gb

    def test_the_builtin_table_names_devices_as_the_rest_does(self) -> None:
        known = {(vendor, model, gib * 1024) for vendor, model, gib in translate.ACCELERATORS.values()}
        for sku, machine in translate.builtin_types().items():
            assert translate.ACCELERATED_FAMILY.match(sku), sku
            assert machine.devices is not None
            whole = round((machine.devices.memory_mib or 0) / machine.devices.share)
            assert (machine.devices.vendor, machine.devices.model, whole) in known, sku

    @pytest.mark.parametrize("sku", ["g1-small", "e2-medium", "n1-standard-8", "c4a-standard-8", "custom-4-8192"])
    def test_most_families_have_none(self, sku: str) -> None:
        assert not translate.ACCELERATED_FAMILY.match(sku)

    @pytest.mark.parametrize(
        ("sku", "meant"),
        [
            ("n2-custom-8-16384", translate.PLAIN),
            ("custom-4-8192-ext", translate.PLAIN),
            ("g2-custom-24-98304", translate.builtin_types()["g2-standard-24"]),
            ("g2-custom-7-98304", None),
            ("n2-standard-8", None),
        ],
    )
    def test_types_made_to_measure_are_in_no_list(self, sku: str, meant: MachineType | None) -> None:
        assert translate.without_asking(sku) == meant


class TestStates:
    def test_every_status_google_documents_has_one(self) -> None:
        document = discovery.service("compute").document["schemas"]["Instance"]["properties"]["status"]
        assert set(translate.STATES) == set(document["enum"])

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ("PENDING", State.PENDING),
            ("REPAIRING", State.RUNNING),
            ("PENDING_STOP", State.STOPPING),
            ("DEPROVISIONING", State.STOPPING),
            ("SUSPENDED", State.SUSPENDED),
            ("TERMINATED", State.STOPPED),
            ("STOPPED", State.STOPPED),
            ("HIBERNATING", State.UNKNOWN),
            (None, State.UNKNOWN),
        ],
    )
    def test_what_it_means(self, said: str | None, meant: State) -> None:
        assert a_record(status=said).state is meant

    def test_times_are_utc(self) -> None:
        record = a_record()
        assert record.launched_at == datetime(2026, 11, 2, 9, 30, 0, 456_000, tzinfo=UTC)
        assert record.created_at == datetime(2026, 11, 1, 7, 0, 0, 123_000, tzinfo=UTC)
        assert record.launched_at.utcoffset() == timedelta()

    @pytest.mark.parametrize(
        "said",
        [
            None,
            "",
            "yesterday",
            "2026-11-01T00:00:00",
            "1969-12-31T16:00:00.000-08:00",
            "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
        ],
    )
    def test_what_is_no_moment_is_not_known(self, said: str | None) -> None:
        assert translate.utc(said) is None

    def test_nanoseconds_are_read(self) -> None:
        assert translate.utc("2026-08-12T17:28:57.651511852Z") == datetime(2026, 8, 12, 17, 28, 57, 651_511, tzinfo=UTC)


CONSUMES = {"resourceStatus": {"reservationConsumptionInfo": {"consumedReservation": "projects/p/reservations/r"}}}
CAPACITY: dict[str, tuple[dict[str, Any], CapacityType]] = {
    "standard": ({"scheduling": {"provisioningModel": "STANDARD"}}, CapacityType.ON_DEMAND),
    "of before there were models": ({"scheduling": {"preemptible": False}}, CapacityType.ON_DEMAND),
    "that says nothing": ({"scheduling": {}}, CapacityType.ON_DEMAND),
    "spot": ({"scheduling": {"provisioningModel": "SPOT", "preemptible": True}}, CapacityType.SPOT),
    "preemptible, of old": ({"scheduling": {"preemptible": True}}, CapacityType.SPOT),
    "preemptible, and standard beside": (
        {"scheduling": {"preemptible": True, "provisioningModel": "STANDARD"}},
        CapacityType.SPOT,
    ),
    "flex-start": ({"scheduling": {"provisioningModel": "FLEX_START"}}, CapacityType.FLEX_START),
    "bound to a reservation": ({"scheduling": {"provisioningModel": "RESERVATION_BOUND"}}, CapacityType.RESERVED),
    "in a reservation it has found": ({"scheduling": {}, **CONSUMES}, CapacityType.RESERVED),
    "spot, whatever it consumes": ({"scheduling": {"provisioningModel": "SPOT"}, **CONSUMES}, CapacityType.SPOT),
    "that might use a reservation, and uses none": (
        {"reservationAffinity": {"consumeReservationType": "ANY_RESERVATION"}, "resourceStatus": {}},
        CapacityType.ON_DEMAND,
    ),
    "of tomorrow": ({"scheduling": {"provisioningModel": "BARTER"}}, CapacityType.UNKNOWN),
}


class TestCapacity:
    @pytest.mark.parametrize(("said", "meant"), CAPACITY.values(), ids=CAPACITY)
    def test_a_machine(self, said: dict[str, Any], meant: CapacityType) -> None:
        assert a_record(**said).capacity_type is meant

    def test_every_model_google_documents_is_known(self) -> None:
        document = discovery.service("compute").document["schemas"]["Scheduling"]["properties"]["provisioningModel"]
        assert {*translate.MODELS, "STANDARD"} == set(document["enum"])


GKE = {
    "goog-gke-node": "",
    "goog-k8s-cluster-name": "main",
    "goog-k8s-cluster-location": "us-central1",
    "goog-k8s-node-pool-name": "gpus",
}
MIG = "zones/us-central1-a/instanceGroupManagers/trainers"
OWNERS: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
    "nobody's": ({"labels": {"project": "vision"}}, None, None),
    "Terraform's is nobody's": ({"labels": {"goog-terraform-provisioned": "true"}}, None, None),
    "a node of GKE": ({"labels": GKE}, MIG, "gke-node-pool:main/gpus"),
    "a node of GKE, of before pools were named": ({"labels": {"goog-gke-node": ""}}, None, "gke-node-pool:unnamed"),
    "a node of OpenShift": ({"labels": {"kubernetes-io-cluster-prod-x7": "owned"}}, None, "kubernetes:prod-x7"),
    "a node of Cluster API": ({"labels": {"capg-role": "node", "capg-cluster-ml": "owned"}}, MIG, "kubernetes:ml"),
    "a node of kops": ({"labels": {"k8s-io-cluster-name": "ml-example-com"}}, MIG, "kops:ml-example-com"),
    "a node, by its metadata": (metadata("kube-env", "user-data"), MIG, "kubernetes:unnamed"),
    "Workbench's, by its labels": (
        {"labels": {"notebooks-product": "workbench-instances", "resource-name": "lab"}},
        None,
        "workbench:lab",
    ),
    "Workbench's, by its metadata": (metadata("notebooks-api", "proxy-mode"), None, "workbench:trainer"),
    "Dataproc's": ({"labels": {"goog-dataproc-cluster-name": "etl"}}, MIG, "dataproc:etl"),
    "Dataflow's": ({"labels": {"goog-dataflow-job-name": "score"}}, MIG, "dataflow:score"),
    "Batch's": ({"labels": {"batch-job-id": "fold-1"}}, MIG, "batch:fold-1"),
    "Batch's, without the job": ({"labels": {"goog-batch-worker": ""}}, None, "batch:unnamed"),
    "Slurm's": ({"labels": {"slurm_cluster_name": "hpc"}}, None, "slurm:hpc"),
    "a managed instance group's": ({}, MIG, "mig:trainers"),
    "a group's that is not told": (metadata("created-by"), translate.UNNAMED, "mig:unnamed"),
}


class TestOwners:
    @pytest.mark.parametrize(("said", "group", "owner"), OWNERS.values(), ids=OWNERS)
    def test_a_machine_is(self, said: dict[str, Any], group: str | None, owner: str | None) -> None:
        assert a_record(group=group, **said).managed_by == owner

    @pytest.mark.parametrize(
        ("said", "group"),
        [
            ("projects/123456/zones/us-central1-a/instanceGroupManagers/trainers", MIG),
            (
                "projects/123456/regions/us-central1/instanceGroupManagers/t",
                "regions/us-central1/instanceGroupManagers/t",
            ),
            (
                "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a/instanceGroupManagers/trainers",
                MIG,
            ),
            ("ada@example.com", None),
            ("", None),
            (None, None),
        ],
    )
    def test_who_made_it_is_told_as_a_path(self, said: str | None, group: str | None) -> None:
        assert translate.group_in(said) == group

    def test_its_node_pool_is_in_its_labels(self) -> None:
        assert translate.node_pool_of(GKE) == "locations/us-central1/clusters/main/nodePools/gpus"
        assert translate.node_pool_of({"goog-gke-node": ""}) is None


class TestProtection:
    @pytest.mark.parametrize(
        ("labels", "sources"),
        [
            ({"curfew-protect": "until-the-paper"}, ["curfew-protect"]),
            ({"curfew-protect": ""}, ["curfew-protect"]),
            ({"curfew-protect": "false"}, []),
            ({"maid_offhours": "off"}, ["maid_offhours"]),
            ({"maid_offhours": "on"}, []),
            ({"project": "vision"}, []),
        ],
    )
    def test_by_label(self, labels: dict[str, str], sources: list[str]) -> None:
        assert [found.source for found in a_record(labels=labels).protections] == sources

    def test_deletion_protection_keeps_it_from_being_deleted_only(self) -> None:
        record = a_record(deletionProtection=True)
        assert record.protections == ()
        assert codes(record, Verb.TERMINATE) == ["DeletionProtection"]
        assert codes(record, Verb.STOP) == []


TPU = MachineType(devices=Devices(vendor="google", model="TPU v5e", count=4, memory_mib=16384))
STOPPABLE: dict[str, tuple[MachineType, dict[str, Any], list[str]]] = {
    "a plain one": (A100, {}, []),
    "a spot one": (A100, {"scheduling": {"provisioningModel": "SPOT"}}, []),
    "a flex-start one": (A100, {"scheduling": {"provisioningModel": "FLEX_START"}}, []),
    "one that found a reservation": (A100, CONSUMES, []),
    "one bound to a reservation": (
        A100,
        {"scheduling": {"provisioningModel": "RESERVATION_BOUND"}},
        ["ReservationBound"],
    ),
    "one with TPUs": (TPU, {}, ["TpuMachine"]),
    "one with a disk whose key only its owner has": (
        A100,
        {"disks": [{"type": "PERSISTENT", "diskEncryptionKey": {"sha256": "x"}}]},
        ["CustomerKey"],
    ),
    "one with a key that Google keeps": (
        A100,
        {"disks": [{"type": "PERSISTENT", "diskEncryptionKey": {"kmsKeyName": "x"}}]},
        [],
    ),
    "one that may not be started again": (A100, {"startRestricted": True}, ["StartRestricted"]),
}


class TestWhatStandsInTheWay:
    @pytest.mark.parametrize(("machine", "said", "meant"), STOPPABLE.values(), ids=STOPPABLE)
    def test_of_stopping(self, machine: MachineType, said: dict[str, Any], meant: list[str]) -> None:
        assert codes(a_record(machine, **said), Verb.STOP) == meant

    def test_of_suspending_are_its_accelerators(self) -> None:
        assert codes(a_record(), Verb.SUSPEND) == ["Accelerators"]

    def test_machines_share_what_is_the_same_for_most(self) -> None:
        assert a_record().blockers is a_record(name="other").blockers

    @pytest.mark.parametrize(
        ("machine", "disks", "size_gb"),
        [
            (A100, [], 0),
            (A100, [{"type": "SCRATCH", "diskSizeGb": "375"}] * 2, 750),
            (A100, [{"type": "SCRATCH"}], 375),
            (MachineType(devices=A100.devices, local_storage_gb=3000), [], 3000),
            (
                MachineType(devices=A100.devices, local_storage_gb=750),
                [{"type": "SCRATCH", "diskSizeGb": "375"}] * 2,
                750,
            ),
        ],
        ids=["no Local SSD", "attached", "attached, its size not told", "of its type", "of its type, told as disks"],
    )
    def test_local_disks_would_be_lost(self, machine: MachineType, disks: list[dict[str, str]], size_gb: int) -> None:
        losses = a_record(machine, disks=disks).losses
        assert {(loss.verb, loss.name) for loss in losses} == (
            {(Verb.STOP, LossName.LOCAL_DISKS), (Verb.SUSPEND, LossName.LOCAL_DISKS)} if size_gb else set()
        )
        assert all(loss.sentence == f"{size_gb:,} GB of Local SSD would be erased" for loss in losses)


LIMITS: dict[str, tuple[dict[str, Any], int | None, list[str]]] = {
    "nobody has limited it": ({}, None, []),
    "its runs are limited": (
        {"maxRunDuration": {"seconds": "37800"}, "instanceTerminationAction": "STOP"},
        37800,
        ["Google Cloud itself stops it 10 h 30 min after each start (maxRunDuration)"],
    ),
    "its one run is limited": (
        {"provisioningModel": "FLEX_START", "maxRunDuration": {"seconds": "604800"},
         "instanceTerminationAction": "DELETE"},
        604800,
        ["Google Cloud itself deletes it 168 h after each start (maxRunDuration)"],
    ),
    "a limit of seconds": (
        {"maxRunDuration": {"seconds": "30", "nanos": 500}, "instanceTerminationAction": "STOP"},
        30,
        ["Google Cloud itself stops it 1 min after each start (maxRunDuration)"],
    ),
    "it ends at a time": (
        {"terminationTime": "2026-12-01T00:00:00-08:00", "instanceTerminationAction": "STOP"},
        None,
        ["Google Cloud itself stops it at 2026-12-01 08:00 UTC (terminationTime)"],
    ),
    "a spot machine that is deleted when Google wants it back": (
        {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}, None, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("scheduling", "seconds", "remarks"), LIMITS.values(), ids=LIMITS)
def test_what_google_ends_by_itself_says_so(
    scheduling: dict[str, Any], seconds: int | None, remarks: list[str]
) -> None:
    record = a_record(scheduling=scheduling)
    assert (record.run_limit_seconds, list(record.remarks)) == (seconds, remarks)


# Workbench.


def a_notebook(**said: Any) -> dict[str, Any]:
    return {
        "name": "projects/research/locations/us-central1-a/instances/lab",
        "id": "4592c76e-b080-4826-8607-f0a052691732",
        "state": "ACTIVE",
        "createTime": "2026-08-12T17:28:57.651511852Z",
        "labels": {"project": "vision"},
        "gceSetup": {
            "machineType": f"{BASE}/machineTypes/n1-standard-4",
            "acceleratorConfigs": [{"type": "NVIDIA_TESLA_T4", "coreCount": "2"}],
            "instanceId": "4532768441233380276",
        },
        **said,
    }


def noted(vm: ResourceRecord | None = None, **said: Any) -> ResourceRecord:
    record = translate.notebook(a_notebook(**said), account=PROJECT, machine=translate.PLAIN, vm=vm)
    assert record is not None
    return record


class TestWorkbench:
    def test_a_notebook_is_one_thing_with_its_machine(self) -> None:
        vm = a_record(name="lab", status="TERMINATED", disks=[{"type": "SCRATCH", "diskSizeGb": "375"}])
        record = noted(vm, state="STOPPED")
        assert record.ref.kind is Kind.NOTEBOOK
        assert record.ref.external_id == "projects/research/locations/us-central1-a/instances/lab"
        assert record.incarnation == vm.incarnation
        assert (record.launched_at, record.losses) == (vm.launched_at, vm.losses)
        assert (record.sku, record.gpu_model, record.gpu_count) == (vm.sku, "A100", 1)
        assert (record.listed_in, record.managed_by, record.tags["project"]) == ("Workbench instances", None, "vision")

    def test_one_whose_machine_is_not_seen_goes_by_what_it_was_set_up_with(self) -> None:
        record = noted()
        assert (record.gpu_model, record.gpu_count, record.sku) == ("T4", 2, "n1-standard-4")
        assert (record.incarnation, record.launched_at) == ("4532768441233380276", None)

    def test_without_accelerators_it_is_none_of_ours(self) -> None:
        plain = a_notebook(gceSetup={"machineType": f"{BASE}/machineTypes/e2-standard-4"})
        assert translate.notebook(plain, account=PROJECT, machine=translate.PLAIN) is None

    def test_every_state_google_documents_is_known(self) -> None:
        document = discovery.service("notebooks").document["schemas"]["Instance"]["properties"]["state"]
        assert {*translate.NOTEBOOK_STATES, "STATE_UNSPECIFIED"} == set(document["enum"])

    def test_its_machine_knows_best_what_is_running(self) -> None:
        assert noted(a_record(status="TERMINATED")).state is State.STOPPED
        assert noted(a_record(), state="STOPPING").state is State.STOPPING

    @pytest.mark.parametrize(
        ("said", "vm", "meant"),
        [
            ({}, {}, []),
            ({"state": "UPGRADING"}, {}, ["Upgrading"]),
            ({}, {"startRestricted": True}, ["StartRestricted"]),
        ],
    )
    def test_what_stands_in_the_way(self, said: dict[str, Any], vm: dict[str, Any], meant: list[str]) -> None:
        record = noted(a_record(**vm), **said)
        assert codes(record, Verb.STOP) == meant
        assert codes(record, Verb.SUSPEND) == []

    def test_anothers_is_not_taken_for_this_projects(self) -> None:
        with pytest.raises(Unreachable, match="other"):
            noted(name="projects/other/locations/us-central1-a/instances/lab")


# TPU VMs.


def a_node(**said: Any) -> ResourceRecord:
    node = {
        "name": "projects/research/locations/us-central1-a/nodes/tpu",
        "id": "7000000000000000002",
        "acceleratorType": "v5litepod-4",
        "state": "READY",
        "createTime": "2026-11-01T00:00:00Z",
        "networkEndpoints": [{"ipAddress": "10.0.0.2"}],
        **said,
    }
    return translate.tpu_vm(node, account=PROJECT)


CHIPS: dict[str, tuple[dict[str, Any], tuple[str, int]]] = {
    "v2-8": ({"acceleratorType": "v2-8"}, ("TPU v2", 4)),
    "v3-32": ({"acceleratorType": "v3-32"}, ("TPU v3", 16)),
    "v4-16": ({"acceleratorType": "v4-16"}, ("TPU v4", 8)),
    "v5litepod-8": ({"acceleratorType": "v5litepod-8"}, ("TPU v5e", 8)),
    "v5p-8": ({"acceleratorType": "v5p-8"}, ("TPU v5p", 4)),
    "v6e-1": ({"acceleratorType": "v6e-1"}, ("TPU v6e", 1)),
    "tpu7x-8": ({"acceleratorType": "tpu7x-8"}, ("TPU7x", 4)),
    "v9z-8": ({"acceleratorType": "v9z-8"}, ("TPU v9z", 8)),
    "a topology": (
        {"acceleratorType": "", "acceleratorConfig": {"type": "V4", "topology": "2x2x2"}},
        ("TPU v4", 8),
    ),
    "both": (
        {"acceleratorType": "v5p-16", "acceleratorConfig": {"type": "V5P", "topology": "2x2x2"}},
        ("TPU v5p", 8),
    ),
    "nothing that can be read": ({"acceleratorType": "best"}, ("TPU", 0)),
}


class TestTpus:
    @pytest.mark.parametrize("topology", ["1000000x1000000", "-4x4"])
    def test_a_number_that_no_slice_has_is_not_read(self, topology: str) -> None:
        with pytest.raises(ValueError, match="no slice has"):
            a_node(acceleratorConfig={"type": "V5P", "topology": topology})

    @pytest.mark.parametrize(("said", "meant"), CHIPS.values(), ids=CHIPS)
    def test_chips_are_counted(self, said: dict[str, Any], meant: tuple[str, int]) -> None:
        record = a_node(**said)
        assert (record.gpu_model, record.gpu_count, record.gpu_vendor) == (*meant, "google")

    def test_a_node_is_named_by_its_path(self) -> None:
        record = a_node()
        assert record.ref.external_id == "projects/research/locations/us-central1-a/nodes/tpu"
        assert (record.ref.kind, record.ref.region, record.incarnation) == (
            Kind.INSTANCE, "us-central1", "7000000000000000002",
        )  # fmt: skip
        assert (record.sku, record.listed_in) == ("v5litepod-4", "TPU VMs")

    @pytest.mark.parametrize(
        ("scheduling", "meant"),
        [
            ({}, CapacityType.ON_DEMAND),
            ({"spot": True}, CapacityType.SPOT),
            ({"preemptible": True}, CapacityType.SPOT),
            ({"reserved": True}, CapacityType.RESERVED),
        ],
    )
    def test_capacity(self, scheduling: dict[str, bool], meant: CapacityType) -> None:
        assert a_node(schedulingConfig=scheduling).capacity_type is meant

    @pytest.mark.parametrize(
        ("said", "codes_of_stop"),
        [
            ({}, []),
            ({"networkEndpoints": [{"ipAddress": "10.0.0.2"}, {"ipAddress": "10.0.0.3"}]}, ["TpuSlice"]),
            ({"schedulingConfig": {"spot": True}}, ["SpotTpu"]),
        ],
    )
    def test_what_stands_in_the_way(self, said: dict[str, Any], codes_of_stop: list[str]) -> None:
        assert codes(a_node(**said), Verb.STOP) == codes_of_stop

    @pytest.mark.parametrize(
        ("said", "meant", "by"),
        [
            ("READY", State.RUNNING, None),
            ("STOPPED", State.STOPPED, None),
            ("PREEMPTED", State.STOPPED, Initiator.CLOUD),
            ("HIDDEN", State.UNKNOWN, None),
        ],
    )
    def test_states(self, said: str, meant: State, by: Initiator | None) -> None:
        record = a_node(state=said)
        assert (record.state, record.stopped_by) == (meant, by)

    def test_states_are_among_those_google_documents(self) -> None:
        document = discovery.service("tpu").document["schemas"]["Node"]["properties"]["state"]
        assert set(translate.TPU_STATES) <= set(document["enum"])


# The reference: Google's own types, reading the same JSON.

WORDS = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)).map(  # noqa: DTZ001 - the zone follows
    lambda moment: f"{moment.isoformat(timespec='milliseconds')}-07:00"
)
INSTANCES = st.fixed_dictionaries(
    {
        "id": st.integers(1, 2**64 - 1).map(str),
        "name": WORDS,
        "machineType": st.sampled_from(["a2-highgpu-1g", "n1-standard-8"]).map(
            lambda sku: f"{BASE}/machineTypes/{sku}"
        ),
        "status": st.sampled_from(sorted(translate.STATES)),
        "creationTimestamp": MOMENTS,
    },
    optional={
        "lastStartTimestamp": MOMENTS,
        "labels": st.dictionaries(WORDS, WORDS, max_size=3),
        "deletionProtection": st.booleans(),
        "startRestricted": st.booleans(),
        "guestAccelerators": st.lists(
            st.fixed_dictionaries(
                {
                    "acceleratorType": st.sampled_from(["nvidia-tesla-t4", "nvidia-l4"]),
                    "acceleratorCount": st.integers(1, 8),
                }
            ),
            max_size=2,
        ),
        "scheduling": st.fixed_dictionaries(
            {},
            optional={
                "provisioningModel": st.sampled_from(["STANDARD", "SPOT", "FLEX_START", "RESERVATION_BOUND"]),
                "preemptible": st.booleans(),
                "maxRunDuration": st.integers(30, 10**7).map(lambda seconds: {"seconds": str(seconds)}),
            },
        ),
        "disks": st.lists(
            st.fixed_dictionaries(
                {"type": st.sampled_from(["PERSISTENT", "SCRATCH"]), "diskSizeGb": st.integers(1, 3000).map(str)}
            ),
            max_size=4,
        ),
        "metadata": st.just({"items": [{"key": "created-by"}, {"key": "startup-script"}]}),
        "resourceStatus": st.just(CONSUMES["resourceStatus"]),
    },
)


def read_by_google(instance: Mapping[str, Any], *, machine: MachineType, group: str | None) -> dict[str, Any]:
    """What a machine is by the official client's types, in our words."""
    read = compute_v1.Instance.from_json(json.dumps(instance))
    scheduling = read.scheduling
    models = {"SPOT": "spot", "FLEX_START": "flex_start", "RESERVATION_BOUND": "reserved"}
    consumed = read.resource_status.reservation_consumption_info.consumed_reservation
    standard = "spot" if scheduling.preemptible else "reserved" if consumed else "on_demand"
    cards = sum(one.accelerator_count for one in read.guest_accelerators)
    local = [disk.disk_size_gb for disk in read.disks if disk.type_ == "SCRATCH"]
    return {
        "incarnation": str(read.id),
        "name": read.name,
        "sku": read.machine_type.split("/")[-1],
        "state": translate.STATES[read.status],
        "created_at": datetime.fromisoformat(read.creation_timestamp),
        "launched_at": datetime.fromisoformat(read.last_start_timestamp) if read.last_start_timestamp else None,
        "tags": dict(read.labels),
        "gpu_count": cards or (machine.devices.count if machine.devices else 0),
        "capacity_type": CapacityType(models.get(scheduling.provisioning_model, standard)),
        "run_limit_seconds": scheduling.max_run_duration.seconds or None,
        "local disks": sum(local),
        "protected from deletion": read.deletion_protection,
        "managed_by": f"mig:{group.split('/')[-1]}" if group else None,
    }


class TestTheOfficialTypes:
    @given(instance=INSTANCES, group=st.sampled_from([None, MIG]))
    @settings(max_examples=150, deadline=None)
    def test_read_the_same(self, instance: dict[str, Any], group: str | None) -> None:
        machine = A100 if instance["machineType"].endswith("a2-highgpu-1g") else translate.PLAIN
        record = translate.record(instance, account=PROJECT, zone=ZONE, machine=machine, group=group)
        erased = {loss.sentence.split(" GB")[0].replace(",", "") for loss in record.losses}
        ours = {
            name: getattr(record, name)
            for name in (
                "incarnation", "name", "sku", "state", "created_at", "launched_at", "tags", "gpu_count",
                "capacity_type", "run_limit_seconds", "managed_by",
            )
        }  # fmt: skip
        ours["local disks"] = int(erased.pop()) if erased else 0
        ours["protected from deletion"] = codes(record, Verb.TERMINATE) == ["DeletionProtection"]
        assert ours == read_by_google(instance, machine=machine, group=group)
