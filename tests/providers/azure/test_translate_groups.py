"""What Azure answers of scale sets, their instances and the node pools of AKS, as records: tables of what is said and
what it means. What is read of a set is held to what the SDK's own types read of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.mgmt.compute import models
from azure.mgmt.compute._utils.model_base import _deserialize
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.azure import translate, translate_groups
from providers.azure.translate import Around, Devices, MachineType
from providers.azure.translate_groups import Autoscale, Seen
from providers.errors import Unreachable
from providers.machine_ids import listed_key, machine_key
from providers.records import CapacityType, Kind, LossName, ResourceRecord, State, Verb

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/RG-ML"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/Workers"
CLUSTER = (
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg-ml/providers/Microsoft.ContainerService/managedClusters/Train"
)
NODES = "MC_rg-ml_Train_westeurope"
TYPES = {
    "standard_nc24ads_a100_v4": MachineType(
        name="Standard_NC24ads_A100_v4",
        devices=Devices(vendor="nvidia", model="A100-80GB", count=1, memory_mib=81920),
        local_storage_gib=958,
    ),
    "standard_nc40ads_h100_v5": MachineType(
        name="Standard_NC40ads_H100_v5",
        devices=Devices(vendor="nvidia", model="H100", count=1, memory_mib=96256),
    ),
    "standard_d4s_v5": translate.PLAIN,
}


def type_of(sku: str) -> MachineType | None:
    return TYPES.get(sku.lower())


def a_set(capacity: int | None = 2, size: str | None = "Standard_NC24ads_A100_v4", **said: Any) -> dict[str, Any]:
    """What Compute says of a uniform scale set; a name with a capital letter is of the set itself."""
    outer = {name[0].lower() + name[1:]: value for name, value in said.items() if name[0].isupper()}
    inner = {name: value for name, value in said.items() if not name[0].isupper()}
    sku = {"name": size, "tier": "Standard", "capacity": capacity} if size else None
    return {
        "id": SET,
        "name": "Workers",
        "location": "westeurope",
        "sku": sku,
        "properties": {
            "virtualMachineProfile": {"priority": "Regular"},
            "orchestrationMode": "Uniform",
            "uniqueId": "3AD96140-0000-4000-8000-000000000001",
            "provisioningState": "Succeeded",
            "timeCreated": "2026-11-01T08:00:00+00:00",
            **inner,
        },
        **outer,
    }


def an_instance(number: int = 0, power: str | None = "running", **said: Any) -> dict[str, Any]:
    outer = {name[0].lower() + name[1:]: value for name, value in said.items() if name[0].isupper()}
    inner = {name: value for name, value in said.items() if not name[0].isupper()}
    codes = ["ProvisioningState/succeeded", *([f"PowerState/{power}"] if power else [])]
    return {
        "id": f"{SET}/virtualMachines/{number}",
        "name": f"Workers_{number}",
        "instanceId": str(number),
        "location": "westeurope",
        "sku": {"name": "Standard_NC24ads_A100_v4", "tier": "Standard"},
        "properties": {
            "vmId": f"AF3C1E6B-0000-4000-8000-00000000000{number}",
            "provisioningState": "Succeeded",
            "instanceView": {"statuses": [{"code": code} for code in codes]},
            **inner,
        },
        **outer,
    }


def instance(
    answer: Mapping[str, Any] | None = None,
    scale_set: Mapping[str, Any] | None = None,
    around: Around = translate.NOTHING,
) -> ResourceRecord:
    answer, scale_set = answer or an_instance(), scale_set or a_set()
    machine = type_of(translate_groups.instance_sku(answer, scale_set))
    assert machine is not None
    return translate_groups.instance_record(answer, scale_set, account=SUBSCRIPTION, machine=machine, around=around)


def members(*powers: str | None, **said: Any) -> list[ResourceRecord]:
    return [instance(an_instance(number, power, **said)) for number, power in enumerate(powers)]


def record_of(scale_set: Mapping[str, Any], around: Around = translate.NOTHING, **seen: Any) -> ResourceRecord | None:
    return translate_groups.record_of_scale_set(
        scale_set, Seen(types=type_of, **seen), account=SUBSCRIPTION, around=around
    )


def a_record(around: Around = translate.NOTHING, seen: Mapping[str, Any] | None = None, **said: Any) -> ResourceRecord:
    record = record_of(a_set(**said), around, **({"members": members("running", "running")} if seen is None else seen))
    assert record is not None
    return record


def codes(record: ResourceRecord, verb: Verb = Verb.SCALE_TO_ZERO) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is verb]


def locked(scope: str, level: str) -> Around:
    answer = {
        "id": f"{scope}/providers/Microsoft.Authorization/locks/keep",
        "name": "keep",
        "properties": {"level": level},
    }
    return Around(locks=translate.locks_of([answer]))


class TestInstances:
    def test_one_is_a_machine_of_its_set(self) -> None:
        record = instance(an_instance(Zones=["2"]))
        assert record.ref.kind is Kind.INSTANCE
        assert record.ref.external_id == f"{translate.canonical(SET)}/virtualMachines/0"
        assert (record.name, record.incarnation) == ("Workers_0", "af3c1e6b-0000-4000-8000-000000000000")
        assert (record.zone, record.sku, record.gpu_model) == ("westeurope-2", "Standard_NC24ads_A100_v4", "A100-80GB")
        assert (record.managed_by, record.listed_in, record.state) == ("vmss:workers", "scale sets", State.RUNNING)

    def test_kubernetes_calls_it_the_same(self) -> None:
        node = f"azure:///subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers/Microsoft.Compute/virtualMachineScaleSets/workers/virtualMachines/0"
        assert machine_key(node) == listed_key(instance().ref.external_id)

    @pytest.mark.parametrize(
        ("profile", "capacity"),
        [
            ({}, CapacityType.ON_DEMAND),
            ({"priority": "Spot", "evictionPolicy": "Delete"}, CapacityType.SPOT),
            ({"priority": "SpotPlus"}, CapacityType.UNKNOWN),
            ({"capacityReservation": {"capacityReservationGroup": {"id": "/x/r"}}}, CapacityType.RESERVED),
        ],
    )
    def test_it_is_bought_as_its_set_says(self, profile: dict[str, Any], capacity: CapacityType) -> None:
        assert instance(scale_set=a_set(virtualMachineProfile=profile)).capacity_type is capacity

    def test_it_has_the_tags_of_its_set_and_its_own(self) -> None:
        record = instance(an_instance(Tags={"team": "vision"}), a_set(Tags={"team": "nlp", "curfew-protect": "yes"}))
        assert record.tags == {"team": "vision", "curfew-protect": "yes"}
        assert [found.source for found in record.protections] == ["curfew-protect"]

    def test_its_size_may_be_another_than_its_sets(self) -> None:
        assert instance(an_instance(Sku={"name": "Standard_NC40ads_H100_v5"})).gpu_model == "H100"
        assert instance(an_instance(Sku=None)).gpu_model == "A100-80GB"

    def test_a_node_of_aks_belongs_to_its_pool(self) -> None:
        set_id = SET.replace("RG-ML", NODES.upper())
        scale_set = a_set(Id=set_id, Tags={"aks-managed-poolName": "gpu"})
        record = instance(an_instance(Id=f"{set_id}/virtualMachines/0"), scale_set)
        assert record.managed_by == "aks:train/gpu"
        assert translate_groups.node_pool_of(record) == (NODES.lower(), "gpu")
        assert translate_groups.pool_of(scale_set) == (NODES.lower(), "gpu")

    def test_a_lock_on_its_set_holds_for_it(self) -> None:
        [found] = instance(around=locked(SET, "ReadOnly")).protections
        assert found.sentence == "the lock 'keep' on workers, which it belongs to lets it be read only"

    def test_anothers_is_not_taken_for_this_ones(self) -> None:
        with pytest.raises(Unreachable):
            translate_groups.instance_record(an_instance(), a_set(), account="2" * 36, machine=TYPES["standard_d4s_v5"])


FLEXIBLE: dict[str, Any] = {"orchestrationMode": "Flexible"}
MIX: dict[str, Any] = {
    "skuProfile": {"vmSizes": [{"name": "Standard_NC24ads_A100_v4"}, {"name": "Standard_NC40ads_H100_v5"}]}
}
SETS: dict[str, tuple[dict[str, Any], int, bool]] = {
    "with machines that have accelerators": ({}, 2, True),
    "that makes such, and has none": ({"capacity": 0}, 0, True),
    "that makes others, and has such": ({"size": "Standard_D4s_v5"}, 2, True),
    "that makes others": ({"size": "Standard_D4s_v5"}, 0, False),
    "that makes what nobody knows": ({"size": "Standard_X1"}, 0, False),
    "that makes one of several sizes": ({"size": "Mix", **FLEXIBLE, **MIX}, 0, True),
    "that makes none, and only places those it has": (
        {"size": None, "virtualMachineProfile": None, **FLEXIBLE},
        2,
        False,
    ),
}


class TestScaleSets:
    @pytest.mark.parametrize(("said", "number", "ours"), SETS.values(), ids=SETS)
    def test_one(self, said: dict[str, Any], number: int, ours: bool) -> None:
        assert (record_of(a_set(**said), members=members(*["running"] * number)) is not None) is ours

    def test_is_a_group_of_its_machines(self) -> None:
        there = members("running", "running")
        record = a_record(seen={"members": there}, Zones=["1"], Tags={"team": "nlp"})
        assert record.ref.kind is Kind.NODE_GROUP
        assert record.ref.external_id == translate.canonical(SET)
        assert record.members == tuple(one.ref.external_id for one in there)
        assert (record.name, record.incarnation) == ("Workers", "3ad96140-0000-4000-8000-000000000001")
        assert (record.gpu_count, record.gpu_model, record.gpu_memory_mib) == (2, "A100-80GB", 81920)
        assert (record.sku, record.zone, record.listed_in) == (
            "Standard_NC24ads_A100_v4",
            "westeurope-1",
            "scale sets",
        )
        assert (record.tags, record.managed_by) == ({"team": "nlp"}, None)
        assert record.created_at == datetime(2026, 11, 1, 8, tzinfo=UTC)

    def test_one_without_machines_tells_what_it_would_make(self) -> None:
        record = record_of(a_set(capacity=0, size="Mix", **FLEXIBLE, **MIX))
        assert record is not None
        assert (record.sku, record.gpu_count) == ("Standard_NC24ads_A100_v4, Standard_NC40ads_H100_v5", 0)
        assert (record.gpu_vendor, record.gpu_model, record.gpu_memory_mib) == ("nvidia", None, None)

    def test_several_zones_are_none(self) -> None:
        assert a_record(Zones=["1", "2"]).zone is None

    @pytest.mark.parametrize(
        ("said", "powers", "meant"),
        [
            ({}, ["running", "running"], State.RUNNING),
            ({}, ["starting", "running"], State.RUNNING),
            ({}, ["starting", "starting"], State.PENDING),
            ({}, [], State.PENDING),
            ({}, ["stopped"], State.RUNNING),
            ({}, ["deallocated", "running"], State.RUNNING),
            ({}, ["deallocated", "deallocated"], State.STOPPED),
            ({"capacity": 0}, [], State.STOPPED),
            ({"capacity": 0}, ["running"], State.STOPPING),
            ({"provisioningState": "Deleting"}, ["running"], State.STOPPING),
            ({"provisioningState": "Deleting"}, [], State.STOPPED),
        ],
    )
    def test_states(self, said: dict[str, Any], powers: list[str], meant: State) -> None:
        assert a_record(seen={"members": members(*powers)}, **said).state is meant

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ({}, CapacityType.ON_DEMAND),
            ({"virtualMachineProfile": {"priority": "Spot"}}, CapacityType.SPOT),
            ({"virtualMachineProfile": {"priority": "SpotPlus"}}, CapacityType.UNKNOWN),
            (
                {"virtualMachineProfile": {"priority": "Spot"}, "priorityMixPolicy": {"baseRegularPriorityCount": 1}},
                CapacityType.ON_DEMAND,
            ),
            (
                {
                    "virtualMachineProfile": {"priority": "Spot"},
                    "priorityMixPolicy": {"baseRegularPriorityCount": 0, "regularPriorityPercentageAboveBase": 0},
                },
                CapacityType.SPOT,
            ),
            ({"hostGroup": {"id": "/x/hostGroups/g"}}, CapacityType.RESERVED),
        ],
    )
    def test_what_it_makes_next(self, said: dict[str, Any], meant: CapacityType) -> None:
        assert a_record(**said).capacity_type is meant

    def test_one_in_a_block_is_paid_for_in_advance(self) -> None:
        view = {"capacityReservationType": "Block", "statuses": [{"code": "PowerState/running"}]}
        record = a_record(seen={"members": members("running", instanceView=view)})
        assert record.capacity_type is CapacityType.CAPACITY_BLOCK
        assert codes(record) == ["CapacityBlock"]

    @pytest.mark.parametrize(
        ("tags", "owner"),
        [
            ({}, None),
            ({"resourceType": "Service Fabric", "clusterName": "mesh"}, "servicefabric:mesh"),
            ({"DatabricksEnvironment": "workerenv", "ClusterName": "etl"}, "databricks:etl"),
        ],
    )
    def test_who_makes_it(self, tags: dict[str, str], owner: str | None) -> None:
        assert a_record(Tags=tags).managed_by == owner

    def test_members_would_be_deleted(self) -> None:
        [loss] = a_record().losses
        assert (loss.verb, loss.name) == (Verb.SCALE_TO_ZERO, LossName.GROUP_MEMBERS)
        assert loss.sentence == (
            "its 2 instances would be deleted, with their temporary and operating system disks; new ones come when it "
            "is restored"
        )
        assert a_record(seen={}, capacity=0).losses == ()

    def test_it_cannot_be_scaled_past_what_protects_its_members(self) -> None:
        kept = [*members("running"), *members("running", Tags={"curfew-protect": "mine"})]
        record = a_record(seen={"members": kept, "kept": ["Workers_1"]})
        assert [(found.source, found.sentence) for found in record.protections] == [
            ("protectFromScaleIn", "1 of its 2 instances is protected from scale-in (Workers_1)"),
            ("curfew-protect", "of its member Workers_0: its tag curfew-protect says 'mine'"),
        ]

    def test_what_protects_all_is_told_once(self) -> None:
        around = locked(GROUP, "ReadOnly")
        there = [instance(around=around)]
        record = a_record(around, {"members": there})
        assert [found.sentence for found in record.protections] == [
            "the lock 'keep' on its resource group lets it be read only"
        ]

    @pytest.mark.parametrize(
        ("policy", "kept"),
        [({}, False), ({"protectFromScaleIn": True}, True), ({"protectFromScaleSetActions": True}, True)],
    )
    def test_which_scaling_in_passes_over(self, policy: dict[str, bool], kept: bool) -> None:
        assert translate_groups.is_protected(an_instance(protectionPolicy=policy)) is kept

    def test_a_lock_against_deletion_keeps_its_members(self) -> None:
        assert codes(a_record(locked(GROUP, "CanNotDelete"))) == ["CanNotDelete"]

    def test_what_sets_its_size_is_remarked(self) -> None:
        record = a_record(seen={"autoscale": Autoscale(name="by-queue", least=2, most=8)})
        assert record.remarks == ("the autoscale setting 'by-queue' sets its size (2 to 8 instances)",)
        assert codes(record) == []

    def test_one_that_is_being_deleted_is_left_alone(self) -> None:
        assert codes(a_record(provisioningState="Deleting")) == ["Deleting"]

    @pytest.mark.parametrize(
        ("said", "worth"),
        [
            ({"capacity": 2}, True),
            ({"capacity": 0}, False),
            ({"capacity": 0, "provisioningState": "Updating"}, True),
            ({"size": None}, False),
        ],
    )
    def test_one_of_nothing_is_not_asked_for_instances(self, said: dict[str, Any], worth: bool) -> None:
        assert translate_groups.may_have_instances(a_set(**said)) is worth

    def test_sets_of_old_say_no_mode_and_are_uniform(self) -> None:
        assert translate_groups.is_uniform(a_set(orchestrationMode=None))
        assert not translate_groups.is_uniform(a_set(**FLEXIBLE))


SETTING = {
    "id": f"{GROUP}/providers/Microsoft.Insights/autoscalesettings/by-queue",
    "name": "by-queue",
    "properties": {
        "enabled": True,
        "targetResourceUri": SET,
        "profiles": [
            {"capacity": {"minimum": "1", "maximum": "4", "default": "1"}},
            {"capacity": {"minimum": "2", "maximum": "8", "default": "2"}},
        ],
    },
}


class TestAutoscale:
    def test_the_most_of_all_its_profiles_counts(self) -> None:
        found = translate_groups.autoscales([SETTING])
        assert found == {SET.lower(): Autoscale(name="by-queue", least=2, most=8)}

    @pytest.mark.parametrize("said", [{"enabled": False}, {"targetResourceUri": None}, {"profiles": []}])
    def test_one_that_does_nothing_is_none(self, said: dict[str, Any]) -> None:
        assert translate_groups.autoscales([{**SETTING, "properties": {**SETTING["properties"], **said}}]) == {}  # type: ignore[dict-item]


# AKS.


def a_cluster(*pools: Mapping[str, Any], **said: Any) -> dict[str, Any]:
    outer = {name[0].lower() + name[1:]: value for name, value in said.items() if name[0].isupper()}
    inner = {name: value for name, value in said.items() if not name[0].isupper()}
    return {
        "id": CLUSTER,
        "name": "Train",
        "location": "westeurope",
        "sku": {"name": "Base", "tier": "Standard"},
        "properties": {
            "resourceUID": "64F0A1",
            "nodeResourceGroup": NODES,
            "powerState": {"code": "Running"},
            "agentPoolProfiles": list(pools),
            **inner,
        },
        **outer,
    }


def a_pool(**said: Any) -> dict[str, Any]:
    return {
        "name": "gpu",
        "count": 2,
        "vmSize": "Standard_NC24ads_A100_v4",
        "type": "VirtualMachineScaleSets",
        "mode": "User",
        "scaleDownMode": "Delete",
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
        **said,
    }


def pooled(
    around: Around = translate.NOTHING, cluster: Mapping[str, Any] | None = None, number: int = 2, **said: Any
) -> ResourceRecord:
    record = translate_groups.record_of_node_pool(
        cluster or a_cluster(),
        a_pool(**said),
        Seen(types=type_of, members=members(*["running"] * number)),
        account=SUBSCRIPTION,
        around=around,
    )
    assert record is not None
    return record


POOL_BLOCKERS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "nothing": ({}, {}, []),
    "that it failed once, not": ({"provisioningState": "Failed"}, {}, []),
    "that it is scaled": ({"provisioningState": "Scaling"}, {}, ["Scaling"]),
    "that it is upgraded": ({"provisioningState": "UpgradingNodeImageVersion"}, {}, ["Upgrading"]),
    "something of tomorrow": ({"provisioningState": "Dreaming"}, {}, ["NotReady"]),
    "that it is for the system": ({"mode": "System"}, {}, ["SystemPool"]),
    "that its nodes are single machines": ({"type": "VirtualMachines"}, {}, ["VirtualMachinesPool"]),
    "that its cluster is stopped": ({}, {"powerState": {"code": "Stopped"}}, ["ClusterStopped"]),
}


class TestNodePools:
    def test_one_is_a_group_of_its_nodes(self) -> None:
        record = pooled(
            cluster=a_cluster(Tags={"team": "nlp", "env": "dev"}), tags={"env": "prod"}, availabilityZones=["1"]
        )
        assert record.ref.kind is Kind.NODE_GROUP
        assert record.ref.external_id == f"{translate.canonical(CLUSTER)}/agentPools/gpu"
        assert (record.name, record.incarnation, record.zone) == ("gpu", "64f0a1/gpu", "westeurope-1")
        assert (record.sku, record.gpu_count, record.gpu_model) == ("Standard_NC24ads_A100_v4", 2, "A100-80GB")
        assert record.tags == {"team": "nlp", "env": "prod"}
        assert (record.listed_in, record.managed_by, len(record.members)) == ("AKS node pools", None, 2)

    def test_told_by_itself_it_is_the_same(self) -> None:
        pool = a_pool()
        alone = {"id": f"{CLUSTER}/agentPools/gpu", "name": "gpu", "properties": {**pool}}
        del alone["properties"]["name"]  # type: ignore[attr-defined]
        assert translate_groups.pool_alone(alone) == pool

    @pytest.mark.parametrize(
        ("said", "ours"),
        [({}, True), ({"vmSize": "Standard_D4s_v5"}, False), ({"vmSize": "Standard_X"}, False)],
    )
    def test_one_without_nodes_goes_by_what_it_would_make(self, said: dict[str, Any], ours: bool) -> None:
        record = translate_groups.record_of_node_pool(
            a_cluster(), a_pool(count=0, **said), Seen(types=type_of), account=SUBSCRIPTION
        )
        assert (record is not None) is ours

    @pytest.mark.parametrize(
        ("said", "skus"),
        [
            ({}, ("Standard_NC24ads_A100_v4",)),
            (
                {
                    "vmSize": None,
                    "virtualMachinesProfile": {
                        "scale": {"manual": [{"size": "A", "count": 1}, {"size": "B", "count": 2}]}
                    },
                },
                ("A", "B"),
            ),
            ({"vmSize": None, "virtualMachinesProfile": {"scale": {"autoscale": {"size": "A"}}}}, ("A",)),
        ],
        ids=["one size", "several", "one that is scaled by itself"],
    )
    def test_its_sizes(self, said: dict[str, Any], skus: tuple[str, ...]) -> None:
        assert translate_groups.pool_skus(a_pool(**said)) == skus

    @pytest.mark.parametrize(
        ("said", "number", "meant"),
        [
            ({}, 2, State.RUNNING),
            ({}, 0, State.PENDING),
            ({"count": 0}, 0, State.STOPPED),
            ({"count": 0}, 1, State.STOPPING),
            ({"powerState": {"code": "Stopped"}}, 0, State.STOPPED),
            ({"provisioningState": "Deleting"}, 1, State.STOPPING),
        ],
    )
    def test_states(self, said: dict[str, Any], number: int, meant: State) -> None:
        assert pooled(number=number, **said).state is meant

    @pytest.mark.parametrize(
        ("said", "meant"),
        [
            ({}, CapacityType.ON_DEMAND),
            ({"scaleSetPriority": "Regular"}, CapacityType.ON_DEMAND),
            ({"scaleSetPriority": "Spot"}, CapacityType.SPOT),
            ({"scaleSetPriority": "SpotPlus"}, CapacityType.UNKNOWN),
            ({"capacityReservationGroupID": "/x/r"}, CapacityType.RESERVED),
            ({"hostGroupID": "/x/g"}, CapacityType.RESERVED),
        ],
    )
    def test_what_it_makes_next(self, said: dict[str, Any], meant: CapacityType) -> None:
        assert pooled(**said).capacity_type is meant

    @pytest.mark.parametrize(("said", "of_cluster", "expected"), POOL_BLOCKERS.values(), ids=POOL_BLOCKERS)
    def test_what_stands_in_the_way(
        self, said: dict[str, Any], of_cluster: dict[str, Any], expected: list[str]
    ) -> None:
        assert codes(pooled(cluster=a_cluster(**of_cluster), **said)) == expected

    def test_nodes_would_be_deleted(self) -> None:
        assert [loss.name for loss in pooled().losses] == [LossName.GROUP_MEMBERS]

    def test_or_only_deallocated(self) -> None:
        [loss] = pooled(scaleDownMode="Deallocate").losses
        assert (loss.verb, loss.name) == (Verb.SCALE_TO_ZERO, LossName.LOCAL_DISKS)
        assert loss.sentence == "1,916 GiB of temporary disk would be erased"

    def test_its_bounds_are_remarked(self) -> None:
        assert pooled(enableAutoScaling=True, minCount=1, maxCount=8).remarks == (
            "cluster autoscaler sets its size (1 to 8 nodes)",
        )
        assert pooled().remarks == ()

    def test_aks_automatic_makes_its_own(self) -> None:
        assert pooled(cluster=a_cluster(Sku={"name": "Automatic"})).managed_by == "aks-automatic:train"

    @pytest.mark.parametrize(
        ("scope", "where"),
        [
            (CLUSTER, "train, which it belongs to"),
            (f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{NODES}", f"the resource group {NODES.lower()}"),
        ],
    )
    def test_locks_on_its_cluster_and_on_its_nodes_hold_for_it(self, scope: str, where: str) -> None:
        [found] = pooled(locked(scope, "ReadOnly")).protections
        assert found.sentence == f"the lock 'keep' on {where} lets it be read only"
        assert codes(pooled(locked(scope, "CanNotDelete"))) == ["CanNotDelete"]
        assert codes(pooled(locked(scope, "CanNotDelete"), scaleDownMode="Deallocate")) == []

    def test_anothers_is_not_taken_for_this_ones(self) -> None:
        with pytest.raises(Unreachable):
            translate_groups.record_of_node_pool(a_cluster(), a_pool(), Seen(types=type_of), account="2" * 36)


# The SDK's own types.


@st.composite
def scale_sets(draw: st.DrawFn) -> dict[str, Any]:
    priority = draw(st.sampled_from([None, "Regular", "Spot", "Low", "SpotPlus"]))
    profile = {} if priority is None else {"priority": priority}
    if draw(st.booleans()):
        profile["capacityReservation"] = {"capacityReservationGroup": {"id": "/x/r"}}  # type: ignore[assignment]
    sizes = draw(st.lists(st.sampled_from([*TYPES]), min_size=0, max_size=2, unique=True))
    mix: dict[str, Any] = {"skuProfile": {"vmSizes": [{"name": size} for size in sizes]}} if sizes else {}
    return a_set(
        capacity=draw(st.integers(0, 5)),
        Tags=draw(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.text(max_size=3), max_size=2)),
        Zones=draw(st.none() | st.lists(st.sampled_from("123"), max_size=2, unique=True)),
        virtualMachineProfile=profile,
        uniqueId=str(draw(st.uuids())),
        provisioningState=draw(st.sampled_from(["Succeeded", "Updating", "Deleting"])),
        orchestrationMode=draw(st.sampled_from(["Uniform", "Flexible"])),
        **mix,
    )


def read_by_microsoft(answer: dict[str, Any]) -> dict[str, Any]:
    one: Any = _deserialize(models.VirtualMachineScaleSet, answer)
    profile = one.virtual_machine_profile
    sizes = [size.name for size in one.sku_profile.vm_sizes] if one.sku_profile else [one.sku.name]
    regular = profile.priority in (None, "Regular")
    return {
        "id": one.id.lower(),
        "name": one.name,
        "incarnation": one.unique_id,
        "zone": f"{one.location}-{one.zones[0]}" if one.zones and len(one.zones) == 1 else None,
        "tags": dict(one.tags or {}),
        "created_at": one.time_created,
        "sizes": {size.lower() for size in sizes},
        "uniform": one.orchestration_mode == models.OrchestrationMode.UNIFORM,
        "wanted": one.sku.capacity,
        "spot": profile.priority in ("Spot", "Low"),
        "reserved": regular and bool(profile.capacity_reservation),
        "on_demand": regular and not profile.capacity_reservation,
        "deleting": one.provisioning_state == "Deleting",
    }


class TestTheOfficialTypes:
    @settings(max_examples=100, deadline=None)
    @given(scale_sets())
    def test_read_the_same(self, answer: dict[str, Any]) -> None:
        record = record_of(answer, members=members("running"))
        assert record is not None
        assert read_by_microsoft(answer) == {
            "id": record.ref.external_id.lower(),
            "name": record.name,
            "incarnation": record.incarnation,
            "zone": record.zone,
            "tags": record.tags,
            "created_at": record.created_at,
            "sizes": {size.lower() for size in translate_groups.launched_skus(answer)},
            "uniform": translate_groups.is_uniform(answer),
            "wanted": translate_groups.capacity_of(answer),
            "spot": record.capacity_type is CapacityType.SPOT,
            "reserved": record.capacity_type is CapacityType.RESERVED,
            "on_demand": record.capacity_type is CapacityType.ON_DEMAND,
            "deleting": "Deleting" in codes(record),
        }
