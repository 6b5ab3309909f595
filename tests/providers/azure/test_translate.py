"""What Azure answers of machines, VM sizes and Azure ML computes, as records: tables of what is said and what it means.
What is read of a machine is held to what the SDK's own types read of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from azure.mgmt.compute import models
from azure.mgmt.compute._utils.model_base import _deserialize
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.azure import translate
from providers.azure.builtin import machine_prices
from providers.azure.translate import Around, Devices, Lock, MachineType, View
from providers.errors import Unreachable
from providers.machine_ids import listed_key, machine_key
from providers.records import CapacityType, Initiator, Kind, LossName, ResourceRecord, State, Verb

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/RG-ML"
TRAINER = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/Trainer"
OURS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers/Microsoft.Compute/virtualMachines/trainer"
NIC = f"{GROUP}/providers/Microsoft.Network/networkInterfaces/trainer-nic"
SCALE_SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/Workers"
A100 = MachineType(
    name="Standard_NC24ads_A100_v4",
    devices=Devices(vendor="nvidia", model="A100-80GB", count=1, memory_mib=81920),
    hibernates=True,
)
RUNNING = View(power="running")


def a_vm(**said: Any) -> dict[str, Any]:
    """What Compute says of a plain machine, and whatever else it says in its properties; a name with a capital letter
    is of the machine itself."""
    outer = {name[0].lower() + name[1:]: value for name, value in said.items() if name[0].isupper()}
    inner = {name: value for name, value in said.items() if not name[0].isupper()}
    return {
        "id": TRAINER,
        "name": "Trainer",
        "type": "Microsoft.Compute/virtualMachines",
        "location": "westeurope",
        "properties": {
            "vmId": "AF3C1E6B-0000-4000-8000-000000000001",
            "hardwareProfile": {"vmSize": "standard_nc24ads_a100_V4"},
            "provisioningState": "Succeeded",
            "timeCreated": "2026-11-01T08:00:00.1234567+00:00",
            "storageProfile": {"osDisk": {"createOption": "FromImage", "osType": "Linux"}},
            "networkProfile": {"networkInterfaces": [{"id": NIC}]},
            **inner,
        },
        **outer,
    }


def a_record(
    machine: MachineType = A100, view: View = RUNNING, around: Around = translate.NOTHING, **said: Any
) -> ResourceRecord:
    return translate.record(a_vm(**said), view, account=SUBSCRIPTION, machine=machine, around=around)


def codes(record: ResourceRecord, verb: Verb) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is verb]


def statuses(*said: str) -> dict[str, Any]:
    return {"statuses": [{"code": code, "level": "Info"} for code in said]}


class TestNames:
    def test_a_machine_has_one_id_however_it_is_spelled(self) -> None:
        record = a_record()
        assert record.ref.external_id == OURS
        assert (record.ref.account, record.ref.region, record.ref.kind) == (SUBSCRIPTION, "westeurope", Kind.INSTANCE)
        assert (record.name, record.incarnation) == ("Trainer", "af3c1e6b-0000-4000-8000-000000000001")
        assert record.sku == "Standard_NC24ads_A100_v4"

    @given(st.sampled_from([TRAINER, SCALE_SET, f"{SCALE_SET}/virtualMachines/0"]), st.randoms(use_true_random=False))
    def test_case_says_nothing(self, path: str, random: Any) -> None:
        otherwise = "".join(random.choice((one.lower(), one.upper())) for one in path)
        assert translate.canonical(otherwise) == translate.canonical(path)

    def test_other_types_are_spelled_as_the_manuals_do(self) -> None:
        said = f"/SUBSCRIPTIONS/{SUBSCRIPTION}/resourcegroups/RG/providers/microsoft.containerservice"
        assert translate.canonical(f"{said}/managedclusters/ML/agentpools/GPU") == (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.ContainerService"
            "/managedClusters/ml/agentPools/gpu"
        )

    @pytest.mark.parametrize("path", ["", "trainer", f"/subscriptions/{SUBSCRIPTION}", GROUP, f"{TRAINER}/extensions"])
    def test_what_is_no_id_of_a_resource_is_refused(self, path: str) -> None:
        with pytest.raises(ValueError, match="is no id of a resource"):
            translate.canonical(path)

    def test_kubernetes_calls_it_the_same(self) -> None:
        assert listed_key(OURS) == machine_key(f"azure://{TRAINER}")

    def test_another_subscriptions_machine_is_not_taken_for_this_ones(self) -> None:
        with pytest.raises(Unreachable, match="was asked, but what answers is"):
            translate.record(a_vm(), RUNNING, account="2" * 36, machine=A100)

    def test_a_place_may_be_written_with_spaces(self) -> None:
        assert a_record(Location="West Europe").ref.region == "westeurope"

    @pytest.mark.parametrize(("said", "zone"), [({}, None), ({"Zones": ["2"]}, "westeurope-2"), ({"Zones": []}, None)])
    def test_zones(self, said: dict[str, Any], zone: str | None) -> None:
        assert a_record(**said).zone == zone

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ("2026-11-01T08:00:00.1234567+00:00", datetime(2026, 11, 1, 8, 0, 0, 123456, tzinfo=UTC)),
            ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
            ("2026-11-01T08:00:00Z", datetime(2026, 11, 1, 8, tzinfo=UTC)),
            ("2026-11-01T08:00:00", None),
            ("yesterday", None),
            ("", None),
            (None, None),
        ],
    )
    def test_times(self, said: str | None, meant: datetime | None) -> None:
        assert a_record(timeCreated=said).created_at == meant


# VM sizes.


def a_size(name: str, **capabilities: str) -> dict[str, Any]:
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "capabilities": [{"name": key, "value": value} for key, value in {"vCPUs": "4", **capabilities}.items()],
    }


SIZES: dict[str, tuple[dict[str, Any], Devices | None]] = {
    "without GPUs": (a_size("Standard_D4s_v5"), None),
    "with one": (
        a_size("Standard_NC24ads_A100_v4", GPUs="1"),
        Devices(vendor="nvidia", model="A100-80GB", count=1, memory_mib=81920),
    ),
    "with eight": (
        a_size("Standard_ND96isr_H100_v5", GPUs="8"),
        Devices(vendor="nvidia", model="H100", count=8, memory_mib=81920),
    ),
    "of which Azure tells more than the table": (
        a_size("Standard_NC24ads_A100_v4", GPUs="2"),
        Devices(vendor="nvidia", model="A100-80GB", count=2, memory_mib=81920),
    ),
    "with a sixth of a GPU, told as one": (
        a_size("Standard_NV6ads_A10_v5", GPUs="1"),
        Devices(vendor="nvidia", model="A10", count=1, share=1 / 6, memory_mib=4096),
    ),
    "with an eighth of one, of AMD's": (
        a_size("Standard_NV4as_v4", GPUs="1"),
        Devices(vendor="amd", model="Radeon Instinct MI25", count=1, share=0.125, memory_mib=2048),
    ),
    "with GPUs of which Azure tells nothing": (
        a_size("Standard_ND128isr_NDR_GB200_v6"),
        Devices(vendor="nvidia", model="GB200", count=4, memory_mib=196608),
    ),
    "with FPGAs, that neither train nor infer": (a_size("Standard_NP10s", GPUs="1"), None),
    "with video encoders": (a_size("Standard_NM16ads_MA35D", GPUs="1"), None),
    "of tomorrow, with a GPU of today": (
        a_size("Standard_NC48ids_H200_v7", GPUs="2"),
        Devices(vendor="nvidia", model="H200", count=2, memory_mib=141 * 1024),
    ),
    "of tomorrow, with a part of one that is told": (
        a_size("Standard_NC8lds_xl_RTXPRO6000BSE_v7", GPUs="0.25"),
        Devices(vendor="nvidia", model="RTX PRO 6000", count=1, share=0.25, memory_mib=24 * 1024),
    ),
    "of tomorrow, of AMD's": (
        a_size("Standard_ND96isr_MI325X_v6", GPUs="8"),
        Devices(vendor="amd", model="MI325X", count=8, memory_mib=256 * 1024),
    ),
    "with a GPU of tomorrow": (
        a_size("Standard_ND72isr_R100_v7", GPUs="8"),
        Devices(vendor=None, model="R100", count=8),
    ),
    "with GPUs, by a name that tells nothing": (
        a_size("Standard_NX16s_v9", GPUs="1"),
        Devices(vendor=None, model=None, count=1),
    ),
    "of no family of ours, with GPUs": (
        a_size("Standard_E64gds_L40S_v8", GPUs="1"),
        Devices(vendor="nvidia", model="L40S", count=1, memory_mib=48 * 1024),
    ),
}


class TestSizes:
    @pytest.mark.parametrize(("answer", "devices"), SIZES.values(), ids=SIZES)
    def test_a_size(self, answer: dict[str, Any], devices: Devices | None) -> None:
        machine = translate.machine_type(answer)
        assert machine is not None
        assert machine.devices == devices

    @pytest.mark.parametrize("said", ["-3", "nan", "inf", "1e999", "1e300", "4096"])
    def test_what_is_no_number_of_gpus_is_not_believed(self, said: str) -> None:
        with pytest.raises(ValueError, match="is told to have"):
            translate.machine_type(a_size("Standard_NC24ads_A100_v4", GPUs=said))

    def test_one_that_may_well_have_some_is_not_taken_for_one_without(self) -> None:
        assert translate.machine_type(a_size("Standard_ND200isr_X9_v9")) is None

    @pytest.mark.parametrize(
        ("capabilities", "gib"),
        [
            ({"MaxResourceVolumeMB": "65536", "NvmeDiskSizeInMiB": "915456"}, 958),
            ({"MaxResourceVolumeMB": "180224"}, 176),
            ({"MaxResourceVolumeMB": "0"}, 958),
            ({}, 958),
        ],
        ids=["both", "a temporary disk", "none told, though the table knows", "nothing told"],
    )
    def test_temporary_disks_and_nvme_are_both_lost(self, capabilities: dict[str, str], gib: int) -> None:
        machine = translate.machine_type(a_size("Standard_NC24ads_A100_v4", GPUs="1", **capabilities))
        assert machine is not None
        assert machine.local_storage_gib == gib

    @pytest.mark.parametrize(("said", "meant"), [("True", True), ("False", False), (None, False)])
    def test_whether_it_hibernates(self, said: str | None, meant: bool) -> None:
        told = {} if said is None else {"HibernationSupported": said}
        machine = translate.machine_type(a_size("Standard_NV6ads_A10_v5", GPUs="1", **told))
        assert machine is not None
        assert machine.hibernates is meant

    @pytest.mark.parametrize(
        ("sku", "may"),
        [
            ("Standard_ND96isr_H100_v5", True),
            ("STANDARD_NC6", True),
            ("standard_nv4as_v4", True),
            ("", True),
            ("Standard_NP10s", False),
            ("Standard_NM16ads_MA35D", False),
            ("Standard_D4s_v5", False),
            ("Standard_HB120rs_v3", False),
            ("Basic_A0", False),
        ],
    )
    def test_most_families_have_none(self, sku: str, may: bool) -> None:
        assert translate.may_have_accelerators(sku) is may


class TestTheBuiltinTable:
    def test_names_devices_as_everyone_does(self) -> None:
        named = {(machine.devices.vendor, machine.devices.model) for machine in builtin().values() if machine.devices}
        own = {("nvidia", name) for name, _ in translate.NVIDIA.values()} | {
            ("amd", name) for name, _ in translate.AMD.values()
        }
        assert named - own == {
            ("amd", "Radeon Instinct MI25"),
            ("nvidia", "A100"),
            ("nvidia", "M60"),
            ("nvidia", "V100"),
        }

    def test_says_what_the_names_say(self) -> None:
        for machine in builtin().values():
            vendor, model, gib = translate._accelerator(machine.name)
            assert machine.devices is not None
            if vendor is not None and gib is not None and machine.devices.share == 1:
                same = {model, "A100"} if "ND96asr" in machine.name else {model}
                assert machine.devices.vendor == vendor, machine.name
                assert machine.devices.model in same, machine.name

    def test_whole_gpus_have_the_memory_of_their_parts(self) -> None:
        sizes: dict[str, set[float]] = {}
        for machine in builtin().values():
            devices = machine.devices
            assert devices is not None
            assert devices.memory_mib is not None
            assert devices.count >= 1, machine.name
            assert 0 < devices.share <= 1, machine.name
            if devices.model in ("A10", "Radeon Instinct MI25", "Radeon Pro V620", "Radeon Pro V710"):
                sizes.setdefault(devices.model, set()).add(round(devices.memory_mib / devices.share))
        assert all(len(memory) == 1 for memory in sizes.values()), sizes

    def test_knows_nearly_all_that_have_a_price(self) -> None:
        """Parts of an RTX PRO 6000 are priced, and which parts they are is published nowhere."""
        unknown = {name for name in machine_prices() if name not in builtin() and not name.startswith("standard_np")}
        assert all("rtxpro6000bse" in name for name in unknown), unknown


def builtin() -> Mapping[str, MachineType]:
    return translate.builtin_types()


# What a machine is doing.

STATES: dict[str, tuple[list[str], str, State]] = {
    "runs": (["ProvisioningState/succeeded", "PowerState/running"], "Succeeded", State.RUNNING),
    "runs, in the words of old": (["PowerState/Running"], "Succeeded", State.RUNNING),
    "starts": (["ProvisioningState/updating", "PowerState/starting"], "Updating", State.PENDING),
    "is created": (["ProvisioningState/creating"], "Creating", State.PENDING),
    "is created, and told to be stopped for a moment": (["PowerState/stopped"], "Creating", State.PENDING),
    "is created and runs already": (
        ["ProvisioningState/creating/osProvisioningComplete", "PowerState/running"],
        "Creating",
        State.RUNNING,
    ),
    "is being powered off, and billed": (["PowerState/stopping"], "Updating", State.RUNNING),
    "is powered off, and billed": (["PowerState/stopped"], "Succeeded", State.RUNNING),
    "is being deallocated": (["PowerState/deallocating"], "Updating", State.STOPPING),
    "is deallocated": (["PowerState/deallocated"], "Succeeded", State.STOPPED),
    "is hibernated": (["PowerState/deallocated", "HibernationState/Hibernated"], "Succeeded", State.SUSPENDED),
    "resumes": (["PowerState/starting", "HibernationState/Hibernated"], "Updating", State.PENDING),
    "is being deleted": (["PowerState/running"], "Deleting", State.STOPPING),
    "runs, though the last operation failed": (
        ["ProvisioningState/failed/VMExtensionProvisioningError", "PowerState/running"],
        "Failed",
        State.RUNNING,
    ),
    "could not be created": (["ProvisioningState/failed/AllocationFailed"], "Failed", State.UNKNOWN),
    "is something of tomorrow": (["PowerState/dreaming"], "Succeeded", State.UNKNOWN),
    "says nothing": ([], "Succeeded", State.UNKNOWN),
}


class TestStates:
    @pytest.mark.parametrize(("said", "provisioning", "meant"), STATES.values(), ids=STATES)
    def test_a_machine_that(self, said: list[str], provisioning: str, meant: State) -> None:
        record = a_record(view=translate.view_of(statuses(*said)), provisioningState=provisioning)
        assert record.state is meant

    @pytest.mark.parametrize("view", [None, {}, {"statuses": None}, {"statuses": [{"level": "Info"}]}])
    def test_a_view_without_statuses_tells_nothing(self, view: dict[str, Any] | None) -> None:
        assert a_record(view=translate.view_of(view)).state is State.UNKNOWN

    def test_one_that_is_stopped_but_not_deallocated_says_so(self) -> None:
        record = a_record(view=View(power="stopped"))
        assert record.powered_off
        assert record.remarks == (translate.POWERED_OFF,)
        assert codes(record, Verb.STOP) == []
        assert codes(record, Verb.HIBERNATE) == ["HibernationNotEnabled", "PoweredOff"]

    @pytest.mark.parametrize("provisioning", ["Creating", "Updating"])
    def test_one_on_its_way_is_not_said_to_be_off(self, provisioning: str) -> None:
        record = a_record(view=View(power="stopped"), provisioningState=provisioning)
        assert not record.powered_off
        assert record.remarks == ()

    def test_nor_is_one_that_was_started_between_the_list_of_machines_and_that_of_their_states(self) -> None:
        view = translate.view_of(statuses("ProvisioningState/updating", "PowerState/stopped"))
        assert not a_record(view=view, provisioningState="Succeeded").powered_off

    def test_a_failed_operation_is_remarked(self) -> None:
        assert a_record(provisioningState="Failed").remarks == ("Azure says that the last operation on it failed",)

    def test_azure_does_not_tell_when_it_was_started(self) -> None:
        assert a_record().launched_at is None


HOST: dict[str, Any] = {"host": {"id": f"{GROUP}/providers/Microsoft.Compute/hostGroups/g/hosts/h"}}
RESERVATION: dict[str, Any] = {
    "capacityReservation": {"capacityReservationGroup": {"id": f"{GROUP}/x/capacityReservationGroups/r"}}
}
CAPACITY: dict[str, tuple[dict[str, Any], CapacityType]] = {
    "without a priority": ({}, CapacityType.ON_DEMAND),
    "Regular": ({"priority": "Regular"}, CapacityType.ON_DEMAND),
    "Spot": ({"priority": "Spot"}, CapacityType.SPOT),
    "spot, in small letters": ({"priority": "spot"}, CapacityType.SPOT),
    "Low": ({"priority": "Low"}, CapacityType.SPOT),
    "SpotPlus": ({"priority": "SpotPlus"}, CapacityType.UNKNOWN),
    "of tomorrow": ({"priority": "Whenever"}, CapacityType.UNKNOWN),
    "in a capacity reservation": (RESERVATION, CapacityType.RESERVED),
    "that may not be in one": (
        {"capacityReservation": {"disableCapacityReservationAssignment": True}},
        CapacityType.ON_DEMAND,
    ),
    "on a host of its own": (HOST, CapacityType.RESERVED),
    "spot, whatever the reservation": ({"priority": "Spot", **RESERVATION}, CapacityType.SPOT),
}


class TestCapacity:
    @pytest.mark.parametrize(("said", "meant"), CAPACITY.values(), ids=CAPACITY)
    def test_a_machine(self, said: dict[str, Any], meant: CapacityType) -> None:
        assert a_record(**said).capacity_type is meant

    def test_every_priority_of_the_sdk_was_thought_of(self) -> None:
        assert {one.value for one in models.VirtualMachinePriorityTypes} == {"Regular", "Low", "Spot", "SpotPlus"}

    def test_a_block_is_told_by_the_instance_view(self) -> None:
        view = translate.view_of({"capacityReservationType": "Block", **statuses("PowerState/running")})
        record = a_record(view=view, **RESERVATION)
        assert record.capacity_type is CapacityType.CAPACITY_BLOCK
        assert codes(record, Verb.STOP) == ["CapacityBlock"]

    @pytest.mark.parametrize(
        ("said", "remarks"),
        [
            ({"evictionPolicy": "Deallocate", "billingProfile": {"maxPrice": -1}}, ()),
            ({"evictionPolicy": "Delete"}, ("Azure deletes it when it takes its capacity back",)),
            (
                {"billingProfile": {"maxPrice": 0.5}},
                ("Azure takes its capacity back when spot costs more than 0.5 USD an hour",),
            ),
        ],
        ids=["as usual", "deleted on eviction", "at a price"],
    )
    def test_what_eviction_means_is_remarked(self, said: dict[str, Any], remarks: tuple[str, ...]) -> None:
        record = a_record(priority="Spot", **said)
        assert record.remarks == remarks
        assert codes(record, Verb.STOP) == []


# Who owns it.

DATABRICKS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Databricks/workspaces/Lake"
AKS = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg/providers/Microsoft.ContainerService/managedClusters/Train"
POOL = {"aks-managed-poolName": "gpu"}
OWNERS: dict[str, tuple[dict[str, Any], Mapping[str, str], str | None]] = {
    "nobody's": ({"Tags": {"team": "nlp"}}, {}, None),
    "a scale set's": ({"virtualMachineScaleSet": {"id": SCALE_SET}}, {}, "vmss:workers"),
    "a scale set's, which says so twice": (
        {"virtualMachineScaleSet": {"id": SCALE_SET}, "ManagedBy": SCALE_SET},
        {},
        "vmss:workers",
    ),
    "a node of AKS": ({"Tags": POOL}, {"rg-ml": AKS}, "aks:train/gpu"),
    "a node of AKS, in a group nobody tells of": (
        {"Tags": POOL, "Id": TRAINER.replace("RG-ML", "MC_rg_Train_westeurope")},
        {},
        "aks:train/gpu",
    ),
    "a node of AKS, in a group of its own name": ({"Tags": POOL}, {}, "aks:rg-ml/gpu"),
    "a node of AKS, which says its cluster": (
        {"Tags": {**POOL, "aks-managed-cluster-name": "Vision"}},
        {"rg-ml": AKS},
        "aks:vision/gpu",
    ),
    "in a group AKS keeps": ({}, {"rg-ml": AKS}, "aks:train"),
    "Karpenter's, before AKS's": ({"Tags": {"karpenter.sh_nodepool": "h100", **POOL}}, {}, "karpenter:h100"),
    "a cluster's by Cluster API": (
        {"Tags": {"sigs.k8s.io_cluster-api-provider-azure_cluster_Lab": "owned"}},
        {},
        "kubernetes:Lab",
    ),
    "a cluster's of OpenShift": ({"Tags": {"kubernetes.io_cluster.ocp-x7": "owned"}}, {}, "kubernetes:ocp-x7"),
    "a cluster's of aks-engine": (
        {"Tags": {"orchestrator": "Kubernetes:1.18", "poolName": "gpu"}},
        {},
        "kubernetes:gpu",
    ),
    "Databricks', by its group": ({}, {"rg-ml": DATABRICKS}, "databricks:lake"),
    "Databricks', by itself": ({"ManagedBy": DATABRICKS}, {}, "databricks:lake"),
    "Databricks', by its tags": (
        {"Tags": {"Vendor": "Databricks", "DatabricksEnvironment": "workerenv-1", "ClusterName": "etl"}},
        {},
        "databricks:etl",
    ),
    "CycleCloud's": ({"Tags": {"CycleOwner": "cc", "ClusterName": "slurm"}}, {}, "cyclecloud:slurm"),
    "Batch's, by its group": (
        {"Id": TRAINER.replace("RG-ML", "AzureBatch-6e1b-C"), "virtualMachineScaleSet": {"id": SCALE_SET}},
        {},
        "batch:azurebatch-6e1b-c",
    ),
    "Batch's, by its tags": ({"Tags": {"BatchAccountName": "render", "PoolName": "p"}}, {}, "batch:p"),
    "a service's of tomorrow": (
        {},
        {"rg-ml": f"{GROUP}/providers/Microsoft.Quantum/labs/q"},
        "operator:microsoft.quantum/labs/q",
    ),
}


class TestOwners:
    @pytest.mark.parametrize(("said", "owners", "meant"), OWNERS.values(), ids=OWNERS)
    def test_a_machine_is(self, said: dict[str, Any], owners: Mapping[str, str], meant: str | None) -> None:
        assert a_record(around=Around(owners=owners), **said).managed_by == meant

    def test_a_set_that_only_places_machines_owns_none(self) -> None:
        around = Around(placements={SCALE_SET.lower()})
        assert a_record(around=around, virtualMachineScaleSet={"id": SCALE_SET}).managed_by is None

    def test_groups_say_who_keeps_them(self) -> None:
        groups = [{"name": "RG-ML", "managedBy": AKS}, {"name": "rg"}, {"name": "rg2", "managedBy": ""}]
        assert translate.owners_of(groups) == {"rg-ml": AKS}


# What protects it.

PROTECTING: dict[str, tuple[dict[str, str], list[str]]] = {
    "by our own tag": ({"curfew-protect": "demo on Friday"}, ["curfew-protect"]),
    "in capital letters": ({"CURFEW-PROTECT": ""}, ["curfew-protect"]),
    "that says no": ({"curfew-protect": " False "}, []),
    "by Karpenter's, as tags write it": ({"karpenter.sh_do-not-disrupt": "true"}, ["karpenter.sh/do-not-disrupt"]),
    "by a downscaler's": ({"Downscaler_Exclude": "true"}, ["downscaler/exclude"]),
    "for a while": ({"downscaler_exclude-until": "2026-12-24T18:00:00+01:00"}, ["downscaler/exclude-until"]),
    "by a custodian's": ({"maid_offhours": "OFF"}, ["maid_offhours"]),
    "by nothing": ({"maid_offhours": "on=(M-F,8)", "team": "nlp"}, []),
}


class TestProtection:
    @pytest.mark.parametrize(("tags", "sources"), PROTECTING.values(), ids=PROTECTING)
    def test_by_tag(self, tags: dict[str, str], sources: list[str]) -> None:
        record = a_record(Tags=tags)
        assert [found.source for found in record.protections] == sources
        assert record.tags == tags

    @pytest.mark.parametrize("said", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
    def test_a_time_at_the_end_of_all_calendars_is_none(self, said: str) -> None:
        assert a_record(timeCreated=said).created_at is None

    def test_tags_are_texts(self) -> None:
        assert a_record(Tags={"team": None, "note": "a\0b"}).tags == {"team": "", "note": "a\ufffdb"}
        for said in (5, ["x"], {"a": "b"}):
            with pytest.raises(TypeError):
                a_record(Tags={"team": said})
            with pytest.raises(TypeError):
                a_record(Name=said)

    def test_a_tag_is_quoted_as_it_is_written(self) -> None:
        [found] = a_record(Tags={"Curfew-Protect": "Friday"}).protections
        assert found.sentence == "its tag Curfew-Protect says 'Friday'"

    @pytest.mark.parametrize(
        ("said", "until"),
        [
            ("2026-12-24T18:00:00+01:00", datetime(2026, 12, 24, 17, tzinfo=UTC)),
            ("2026-12-24T18:00:00", datetime(2026, 12, 24, 18, tzinfo=UTC)),
            ("christmas", None),
            ("0001-01-01T00:00:00+14:00", None),
            ("9999-12-31T23:59:59-14:00", None),
        ],
    )
    def test_an_end_is_read(self, said: str, until: datetime | None) -> None:
        [found] = a_record(Tags={"downscaler_exclude-until": said}).protections
        assert found.until == until

    @pytest.mark.parametrize(
        ("scope", "where"),
        [
            (f"/subscriptions/{SUBSCRIPTION.upper()}", "its subscription"),
            (GROUP.replace("resourceGroups", "resourcegroups"), "its resource group"),
            (TRAINER, "it"),
        ],
    )
    def test_by_a_lock_that_it_inherits(self, scope: str, where: str) -> None:
        around = Around(locks=locks((scope, "ReadOnly")))
        [found] = a_record(around=around).protections
        assert (found.source, found.until) == ("ReadOnly lock", None)
        assert found.sentence == f"the lock 'keep' on {where} lets it be read only"

    @pytest.mark.parametrize(
        "scope",
        [f"{GROUP}-2", f"{TRAINER}-2", GROUP.replace(SUBSCRIPTION, "2" * 36), f"{TRAINER}/extensions/x"],
    )
    def test_not_by_anothers(self, scope: str) -> None:
        around = Around(locks=locks((scope, "ReadOnly"), (scope, "CanNotDelete")))
        assert a_record(around=around) == a_record()

    def test_a_lock_against_deletion_forbids_that_and_no_more(self) -> None:
        record = a_record(around=Around(locks=locks((GROUP, "CanNotDelete"))))
        assert record.protections == ()
        assert codes(record, Verb.TERMINATE) == ["CanNotDelete"]
        assert codes(record, Verb.STOP) == []

    def test_a_lock_of_tomorrow_protects(self) -> None:
        [found] = a_record(around=Around(locks=locks((GROUP, "Whatever")))).protections
        assert found.source == "Whatever lock"


def locks(*said: tuple[str, str]) -> dict[str, list[Lock]]:
    return translate.locks_of(
        {
            "id": f"{scope}/providers/Microsoft.Authorization/locks/keep",
            "name": "keep",
            "properties": {"level": level},
        }
        for scope, level in said
    )


# What stands in the way, and what would be lost.

EPHEMERAL: dict[str, Any] = {
    "storageProfile": {"osDisk": {"createOption": "FromImage", "diffDiskSettings": {"option": "Local"}}}
}
ENABLED: dict[str, Any] = {"additionalCapabilities": {"hibernationEnabled": True}}
IN_THE_WAY: dict[str, tuple[MachineType, dict[str, Any], list[str], list[str]]] = {
    "nothing but that hibernation is not enabled": (A100, {}, [], ["HibernationNotEnabled"]),
    "nothing": (A100, ENABLED, [], []),
    "a size that does not": (
        MachineType(name="x", devices=A100.devices, hibernates=False),
        ENABLED,
        [],
        ["HibernationUnsupported"],
    ),
    "nothing, as far as the table tells": (MachineType(name="x", devices=A100.devices), ENABLED, [], []),
    "spot": (A100, {**ENABLED, "priority": "Spot"}, [], ["SpotHibernation"]),
    "a reservation": (A100, {**ENABLED, **RESERVATION}, [], ["ReservationHibernation"]),
    "an ephemeral disk": (A100, {**ENABLED, **EPHEMERAL}, ["EphemeralOsDisk"], ["EphemeralOsDisk"]),
    "that it is being deleted": (
        A100,
        {**ENABLED, "provisioningState": "Deleting"},
        ["Deleting"],
        ["Deleting"],
    ),
}


class TestWhatStandsInTheWay:
    @pytest.mark.parametrize(("machine", "said", "stop", "hibernate"), IN_THE_WAY.values(), ids=IN_THE_WAY)
    def test_of_stopping_and_of_hibernating(
        self, machine: MachineType, said: dict[str, Any], stop: list[str], hibernate: list[str]
    ) -> None:
        record = a_record(machine, **said)
        assert codes(record, Verb.STOP) == stop
        assert codes(record, Verb.HIBERNATE) == hibernate

    def test_machines_share_what_is_the_same_for_most(self) -> None:
        assert translate._blockers(a_vm(), A100, CapacityType.SPOT, "", reserved=False) is translate._blockers(
            a_vm(), A100, CapacityType.SPOT, "", reserved=False
        )


class TestWhatWouldBeLost:
    @pytest.mark.parametrize(
        ("gib", "addresses", "sentence"),
        [
            (958, {}, "958 GiB of temporary disk would be erased"),
            (29696, {}, "29,696 GiB of temporary disk would be erased"),
            (0, {NIC.lower(): "203.0.113.7"}, "its dynamic public address 203.0.113.7 would be given up"),
            (
                176,
                {NIC.lower(): "203.0.113.7"},
                "176 GiB of temporary disk would be erased, and its dynamic public address 203.0.113.7 would be given "
                "up",
            ),
        ],
        ids=["a disk", "several disks", "an address", "both"],
    )
    def test_disks_and_addresses(self, gib: int, addresses: dict[str, str], sentence: str) -> None:
        machine = MachineType(name="x", devices=A100.devices, local_storage_gib=gib)
        record = a_record(machine, around=Around(addresses=addresses))
        assert [(loss.verb, loss.name, loss.sentence) for loss in record.losses] == [
            (Verb.STOP, LossName.LOCAL_DISKS, sentence),
            (Verb.HIBERNATE, LossName.LOCAL_DISKS, sentence),
        ]

    def test_nothing(self) -> None:
        assert a_record(around=Around(addresses={"another": "203.0.113.7"})).losses == ()

    @pytest.mark.parametrize(
        ("said", "found"),
        [
            ({"publicIPAllocationMethod": "Dynamic", "ipAddress": "203.0.113.7"}, {NIC.lower(): "203.0.113.7"}),
            ({"publicIPAllocationMethod": "Static", "ipAddress": "203.0.113.7"}, {}),
            ({"publicIPAllocationMethod": "Dynamic"}, {}),
            ({"publicIPAllocationMethod": "Dynamic", "ipAddress": "203.0.113.7", "ipConfiguration": None}, {}),
        ],
        ids=["dynamic", "static", "given up already", "of nobody"],
    )
    def test_addresses_that_can_be_lost(self, said: dict[str, Any], found: dict[str, str]) -> None:
        answer = {"properties": {"ipConfiguration": {"id": f"{NIC}/ipConfigurations/primary"}, **said}}
        assert translate.dynamic_addresses([answer]) == found


# Azure ML compute instances.

NOTEBOOK = f"{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/Vision/computes/Ada"


def a_compute(
    *, tags: dict[str, str] | None = None, outer: dict[str, Any] | None = None, **said: Any
) -> dict[str, Any]:
    return {
        "id": NOTEBOOK,
        "name": "Ada",
        "location": "westeurope",
        "tags": tags,
        "properties": {
            "computeType": "ComputeInstance",
            "computeLocation": "westeurope",
            "createdOn": "2026-11-01T08:00:00.1234567+00:00",
            "provisioningState": "Succeeded",
            **(outer or {}),
            "properties": {"vmSize": "STANDARD_NC24ADS_A100_V4", "state": "Running", **said},
        },
    }


def computed(
    around: Around = translate.NOTHING, gib: int = 0, outer: dict[str, Any] | None = None, **said: Any
) -> ResourceRecord:
    machine = MachineType(name=A100.name, devices=A100.devices, local_storage_gib=gib)
    return translate.compute_record(
        a_compute(outer=outer, **said), account=SUBSCRIPTION, machine=machine, around=around
    )


COMPUTE_STATES = {
    "Creating": State.PENDING,
    "CreateFailed": State.UNKNOWN,
    "Deleting": State.STOPPING,
    "Running": State.RUNNING,
    "Restarting": State.RUNNING,
    "JobRunning": State.RUNNING,
    "SettingUp": State.RUNNING,
    "SetupFailed": State.UNKNOWN,
    "Starting": State.PENDING,
    "Stopped": State.STOPPED,
    "Stopping": State.STOPPING,
    "UserSettingUp": State.RUNNING,
    "UserSetupFailed": State.RUNNING,
    "Unknown": State.UNKNOWN,
    "Unusable": State.UNKNOWN,
    "Dreaming": State.UNKNOWN,
}
"""Those of Azure ML's manual, and one of tomorrow's."""


class TestComputes:
    def test_one_is_a_notebook(self) -> None:
        record = computed()
        assert record.ref.kind is Kind.NOTEBOOK
        assert record.ref.external_id == translate.canonical(NOTEBOOK)
        assert record.ref.external_id.endswith("/Microsoft.MachineLearningServices/workspaces/vision/computes/ada")
        assert (record.name, record.sku, record.gpu_model) == ("Ada", "Standard_NC24ads_A100_v4", "A100-80GB")
        assert record.incarnation == "2026-11-01T08:00:00.123456+00:00"
        assert (record.capacity_type, record.listed_in) == (CapacityType.ON_DEMAND, "Azure ML compute")

    @pytest.mark.parametrize(("said", "meant"), COMPUTE_STATES.items())
    def test_states(self, said: str, meant: State) -> None:
        assert computed(state=said).state is meant

    def test_one_that_is_deleted_does_not_run(self) -> None:
        record = computed(outer={"provisioningState": "Deleting"})
        assert record.state is State.STOPPING
        assert codes(record, Verb.STOP) == ["Deleting"]

    def test_a_job_on_it_is_remarked(self) -> None:
        assert computed(state="JobRunning").remarks == ("a job is running on it",)

    def test_its_last_start_is_told_while_it_runs(self) -> None:
        start = {"operationName": "Start", "operationTime": "2026-11-02T08:00:00Z", "operationStatus": "Succeeded"}
        assert computed(lastOperation=start).launched_at == datetime(2026, 11, 2, 8, tzinfo=UTC)
        assert computed(lastOperation=start, state="Stopped").launched_at is None
        assert computed(lastOperation={**start, "operationName": "Resize"}).launched_at is None

    @pytest.mark.parametrize(("name", "by"), [("Stop", Initiator.PERSON), ("Create", None)])
    def test_who_stopped_it(self, name: str, by: Initiator | None) -> None:
        assert computed(state="Stopped", lastOperation={"operationName": name}).stopped_by is by
        assert computed(lastOperation={"operationName": name}).stopped_by is None

    def test_locks_and_tags_protect_it(self) -> None:
        around = Around(locks=locks((NOTEBOOK.rpartition("/computes/")[0], "ReadOnly")))
        record = computed(around, tags={"Curfew-Protect": "yes"})
        assert [found.source for found in record.protections] == ["curfew-protect", "ReadOnly lock"]
        assert record.protections[1].sentence == "the lock 'keep' on vision, which it belongs to lets it be read only"

    def test_its_temporary_disk_is_lost_when_it_is_stopped(self) -> None:
        assert [(loss.verb, loss.name) for loss in computed(gib=958).losses] == [(Verb.STOP, LossName.LOCAL_DISKS)]

    def test_clusters_are_none(self) -> None:
        assert translate.is_instance(a_compute())
        assert not translate.is_instance(a_compute(outer={"computeType": "AmlCompute"}))

    def test_anothers_is_not_taken_for_this_ones(self) -> None:
        with pytest.raises(Unreachable):
            translate.compute_record(a_compute(), account="2" * 36, machine=A100)


# The SDK's own types.

DATES = st.integers(0, 3_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, timezone(timedelta(hours=2))))


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    """All sorts of machines, with instance views."""

    def perhaps(name: str, strategy: st.SearchStrategy[Any]) -> dict[str, Any]:
        value = draw(st.none() | strategy)
        return {} if value is None else {name: value}

    powers = st.sampled_from(["starting", "running", "stopping", "stopped", "deallocating", "deallocated"])
    view = statuses(
        f"ProvisioningState/{draw(st.sampled_from(['succeeded', 'updating', 'failed/AllocationFailed']))}",
        *(f"PowerState/{power}" for power in [draw(st.none() | powers)] if power),
        *(["HibernationState/Hibernated"] if draw(st.booleans()) else []),
    )
    return a_vm(
        Location=draw(st.sampled_from(["westeurope", "eastus2"])),
        Tags=draw(st.dictionaries(st.text("abcXYZ-", min_size=1, max_size=9), st.text(max_size=9), max_size=3)),
        **perhaps("Zones", st.lists(st.sampled_from("123"), min_size=1, max_size=1)),
        vmId=str(draw(st.uuids())).upper(),
        provisioningState=draw(st.sampled_from(["Succeeded", "Updating", "Creating", "Deleting", "Failed"])),
        timeCreated=draw(DATES).isoformat(),
        instanceView=view,
        **perhaps("priority", st.sampled_from(["Regular", "Low", "Spot", "SpotPlus"])),
        **perhaps("evictionPolicy", st.sampled_from(["Deallocate", "Delete"])),
        **perhaps("billingProfile", st.sampled_from([{"maxPrice": -1.0}, {"maxPrice": 0.25}])),
        **perhaps("additionalCapabilities", st.sampled_from([{"hibernationEnabled": True}, {}])),
        **perhaps("virtualMachineScaleSet", st.just({"id": SCALE_SET})),
        **perhaps("capacityReservation", st.just(RESERVATION["capacityReservation"])),
        **perhaps("host", st.just(HOST["host"])),
        **draw(st.sampled_from([{}, EPHEMERAL])),
    )


def read_by_microsoft(answer: dict[str, Any]) -> dict[str, Any]:
    """What the SDK's types tell of a machine, in our words, by the shortest way."""
    vm: Any = _deserialize(models.VirtualMachine, answer)
    power = {one.code.split("/")[0]: one.code.split("/")[1] for one in vm.instance_view.statuses}
    regular = vm.priority in (None, models.VirtualMachinePriorityTypes.REGULAR)
    return {
        "id": vm.id.lower(),
        "name": vm.name,
        "region": vm.location,
        "incarnation": vm.vm_id.lower(),
        "zone": f"{vm.location}-{vm.zones[0]}" if vm.zones else None,
        "sku": vm.hardware_profile.vm_size.lower(),
        "tags": {name: value.replace("\0", "\ufffd") for name, value in (vm.tags or {}).items()},
        "created_at": vm.time_created,
        "powered_off": power.get("PowerState") == "stopped"
        and not {vm.provisioning_state.lower(), power.get("ProvisioningState")} & {"creating", "updating"},
        "hibernated": "HibernationState" in power and power.get("PowerState") in (None, "deallocated"),
        "billed": power.get("PowerState") in ("running", "stopping", "stopped"),
        "spot": vm.priority in ("Spot", "Low"),
        "on_demand": regular
        and not vm.host
        and not getattr(vm.capacity_reservation, "capacity_reservation_group", None),
        "deleted on eviction": vm.priority in ("Spot", "Low") and vm.eviction_policy == "Delete",
        "most": vm.billing_profile.max_price if vm.billing_profile else None,
        "in": vm.virtual_machine_scale_set.id.rpartition("/")[2].lower() if vm.virtual_machine_scale_set else None,
        "ephemeral": bool(vm.storage_profile.os_disk.diff_disk_settings),
        "hibernates": bool(vm.additional_capabilities and vm.additional_capabilities.hibernation_enabled),
        "deleting": vm.provisioning_state == "Deleting",
    }


def read_by_us(answer: dict[str, Any]) -> dict[str, Any]:
    view = translate.view_of(answer["properties"]["instanceView"])
    record = translate.record(answer, view, account=SUBSCRIPTION, machine=A100)
    provisioning = answer["properties"]["provisioningState"]
    prices = [one.split(" more than ")[1].split(" ")[0] for one in record.remarks if "more than" in one]
    most = (answer["properties"].get("billingProfile") or {}).get("maxPrice")
    return {
        "id": record.ref.external_id.lower(),
        "name": record.name,
        "region": record.ref.region,
        "incarnation": record.incarnation,
        "zone": record.zone,
        "sku": record.sku.lower(),
        "tags": record.tags,
        "created_at": record.created_at,
        "powered_off": record.powered_off,
        "hibernated": record.state is State.SUSPENDED or (view.hibernated and view.power in (None, "deallocated")),
        "billed": record.state is State.RUNNING or (provisioning in ("Deleting", "Creating") and view.power in BILLED),
        "spot": record.capacity_type is CapacityType.SPOT,
        "on_demand": record.capacity_type is CapacityType.ON_DEMAND,
        "deleted on eviction": "Azure deletes it when it takes its capacity back" in record.remarks,
        "most": float(prices[0]) if prices else most,
        "in": (record.managed_by or "").removeprefix("vmss:") or None,
        "ephemeral": "EphemeralOsDisk" in codes(record, Verb.STOP),
        "hibernates": "HibernationNotEnabled" not in codes(record, Verb.HIBERNATE),
        "deleting": "Deleting" in codes(record, Verb.STOP),
    }


BILLED = ("running", "stopping", "stopped")


class TestTheOfficialTypes:
    @settings(max_examples=150, deadline=None)
    @given(machines())
    def test_read_the_same(self, answer: dict[str, Any]) -> None:
        assert read_by_us(answer) == read_by_microsoft(answer)
