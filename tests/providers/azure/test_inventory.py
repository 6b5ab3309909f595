"""Listing and describing subscriptions by TLS: what is seen, what is said about what could not be seen."""

from __future__ import annotations

import copy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient

from providers.azure import Config, inventory, translate
from providers.azure.client import Client
from providers.azure.inventory import AzureInventory
from providers.errors import Forbidden, Misconfigured, NotFound, Unreachable, Unsupported
from providers.machine_ids import listed_key, machine_key
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
    Verb,
)
from tests.providers.azure.cloud import NO_ANSWER, OTHER, SUBSCRIPTION, Call, Cloud, Reply, answer
from tests.providers.azure.cloud_compute import Machine
from tests.providers.azure.cloud_refusals import forbidden, group_not_found, not_registered
from tests.providers.azure.cloud_skus import Size

PARTS = ["*", "scale sets", "AKS node pools", "Azure ML compute"]
LISTED_ALWAYS = Counter(
    {
        "VirtualMachines_ListAll": 2,
        "VirtualMachineScaleSets_ListAll": 1,
        "ManagedClusters_List": 1,
        "Workspaces_ListBySubscription": 1,
    }
)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


Build = Callable[..., AzureInventory]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def azure(cloud: Cloud, clock: Clock) -> Iterator[Build]:
    """An inventory of one subscription, or of those that are named."""
    with ExitStack() as opened:

        def build(*subscriptions: str, **options: Any) -> AzureInventory:
            asked = subscriptions or (SUBSCRIPTION,)
            config = Config(**{**cloud.settings, "subscriptions": asked})
            client = Client(config, secret=lambda _name: "a-token", sleep=lambda _seconds: None)
            opened.callback(client.close)
            return AzureInventory(client, config.subscriptions, now=clock, **options)

        yield build


def by_path(found: InventoryAnswer) -> Mapping[str, ResourceRecord]:
    return {record.ref.external_id: record for record in found.records}


def part(found: InventoryAnswer, name: str = "*", subscription: str = SUBSCRIPTION) -> PartReport:
    [one] = [report for report in found.parts if (report.part, report.account) == (name, subscription)]
    return one


def fault(found: InventoryAnswer, name: str = "*") -> Fault:
    told = part(found, name).fault
    assert told is not None
    return told


def ref(path: str, kind: Kind = Kind.INSTANCE, subscription: str = SUBSCRIPTION) -> ResourceRef:
    return ResourceRef(provider="azure", account=subscription, region="westeurope", kind=kind, external_id=path)


def codes(record: ResourceRecord, verb: Verb) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is verb]


def only(method: str, reply: Reply, **query: str) -> Callable[[Call], Reply | None]:
    """A rule for calls of a method, with these in their query."""

    def rule(call: Call) -> Reply | None:
        fits = call.method == method and all(call.query.get(name) == value for name, value in query.items())
        return reply if fits else None

    return rule


def states_only(reply: Reply) -> Callable[[Call], Reply | None]:
    return only("VirtualMachines_ListAll", reply, statusOnly="true")


def plain_only(reply: Reply) -> Callable[[Call], Reply | None]:
    return lambda call: reply if call.method == "VirtualMachines_ListAll" and "statusOnly" not in call.query else None


def moving(listed: Callable[..., Any]) -> Callable[..., Any]:
    """A list whose later pages begin with the last one of the page before."""

    def told(call: Call, things: Any, *rest: Any) -> Any:
        page, start = listed(call, things, *rest), int(call.query.get("$skiptoken", "0"))
        if start:
            again = listed(replace(call, query={**call.query, "$skiptoken": str(start - 1)}), things, *rest)
            page["value"].insert(0, again["value"][0])
        return page

    return told


def within_group(listed: Callable[..., Any], group: str) -> Callable[..., Any]:
    """A list that holds only what is in one resource group, as for a caller whose role ends there."""

    def told(call: Call, things: Any, *rest: Any) -> Any:
        page = listed(call, things, *rest)
        page["value"] = [one for one in page["value"] if f"/resourcegroups/{group}/" in one["id"].lower()]
        return page

    return told


def a_mixed_subscription(cloud: Cloud) -> dict[str, str]:
    """Whatever there can be, by what it is."""
    compute, sets = cloud.compute, cloud.scale_sets
    cluster = cloud.aks.cluster("ml")
    cloud.aks.pool(cluster, "system", size="Standard_D4s_v5", mode="System")
    workspace = cloud.ml.workspace()
    cloud.ml.cluster(workspace)
    cloud.ml.instance(workspace, "desk", size="STANDARD_D4S_V5")
    fleet = {
        "plain": compute.machine("Trainer", tags={"team": "nlp"}, zone="2"),
        "without GPUs": compute.machine("web", size="Standard_D4s_v5"),
        "spot": compute.machine("spot", priority="Spot", eviction="Delete", max_price=0.5),
        "off": compute.machine("off", power="stopped"),
        "released": compute.machine("released", power="deallocated"),
        "hibernating": compute.machine("asleep", size="Standard_NV36ads_A10_v5", hibernation=True),
        "a part": compute.machine("part", size="standard_nv6ads_a10_v5"),
        "on a disk of the host": compute.machine("fleeting", ephemeral_os_disk=True),
        "guarded": compute.machine("guarded", tags={"CURFEW-PROTECT": "yes"}),
        "read only": compute.machine("locked", lock="ReadOnly"),
        "kept": compute.machine("kept", lock="CanNotDelete"),
        "Databricks'": compute.machine("worker", group="databricks-rg"),
        "uniform": sets.scale_set("Uniform", capacity=2, priority="Spot", tags={"team": "vision"}),
        "flexible": sets.scale_set("flexible", capacity=2, flexible=True),
        "empty": sets.scale_set("empty", capacity=0),
        "web": sets.scale_set("web", size="Standard_D4s_v5"),
        "pool": cloud.aks.pool(cluster, "gpu", autoscaling=(1, 4)),
        "notebook": cloud.ml.instance(workspace, "Ada"),
    }
    cloud.subscriptions[SUBSCRIPTION].groups[
        "databricks-rg"
    ].managed_by = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Databricks/workspaces/Lake"
    cloud.resources.public_address(fleet["plain"])
    return fleet


class TestAMixedSubscription:
    def test_is_seen_as_it_is(self, cloud: Cloud, azure: Build) -> None:
        fleet = a_mixed_subscription(cloud)
        answer = azure().list()
        seen = by_path(answer)
        nodes = cloud.scale_sets.members(cloud.aks.scale_set(fleet["pool"]))
        uniform, flexible = (cloud.scale_sets.members(fleet[name]) for name in ("uniform", "flexible"))
        not_ours = {fleet["without GPUs"], fleet["web"]}
        assert set(seen) == {*fleet.values(), *nodes, *uniform, *flexible} - not_ours
        assert len(seen) == len(answer.records)
        assert (answer.identity, answer.complete) == ("subscriptions", True)
        assert [(report.part, report.fault) for report in answer.parts] == [(name, None) for name in PARTS]

        trainer = seen[fleet["plain"]]
        assert trainer.ref == ref(fleet["plain"])
        assert (trainer.name, trainer.sku, trainer.gpu_model, trainer.gpu_count) == (
            "Trainer",
            "Standard_NC24ads_A100_v4",
            "A100-80GB",
            1,
        )
        assert (trainer.capacity_type, trainer.state) == (CapacityType.ON_DEMAND, State.RUNNING)
        assert (trainer.zone, trainer.tags, trainer.managed_by) == ("westeurope-2", {"team": "nlp"}, None)
        assert {loss.sentence for loss in trainer.losses} == {
            "958 GiB of temporary disk would be erased, and its dynamic public address 203.0.113.7 would be given up"
        }
        assert not trainer.fully_described

        assert (seen[fleet["a part"]].sku, seen[fleet["a part"]].gpu_share) == ("Standard_NV6ads_A10_v5", 1 / 6)
        assert seen[fleet["spot"]].capacity_type is CapacityType.SPOT
        assert (seen[fleet["off"]].state, seen[fleet["off"]].powered_off) == (State.RUNNING, True)
        assert (seen[fleet["released"]].state, seen[fleet["released"]].powered_off) == (State.STOPPED, False)
        assert codes(seen[fleet["hibernating"]], Verb.HIBERNATE) == []
        assert codes(seen[fleet["plain"]], Verb.HIBERNATE) == ["HibernationNotEnabled", "HibernationUnsupported"]
        assert codes(seen[fleet["on a disk of the host"]], Verb.STOP) == ["EphemeralOsDisk"]
        assert [found.source for found in seen[fleet["guarded"]].protections] == ["curfew-protect"]
        assert [found.source for found in seen[fleet["read only"]].protections] == ["ReadOnly lock"]
        assert codes(seen[fleet["kept"]], Verb.TERMINATE) == ["CanNotDelete"]
        assert seen[fleet["Databricks'"]].managed_by == "databricks:lake"

        assert seen[fleet["uniform"]].members == tuple(uniform)
        assert seen[fleet["flexible"]].members == tuple(flexible)
        assert (seen[fleet["empty"]].members, seen[fleet["empty"]].state) == ((), State.STOPPED)
        assert seen[fleet["pool"]].members == tuple(nodes)
        assert {seen[one].managed_by for one in uniform} == {"vmss:uniform"}
        assert {seen[one].managed_by for one in flexible} == {"vmss:flexible"}
        assert {seen[one].managed_by for one in nodes} == {"aks:ml/gpu"}
        assert {seen[one].capacity_type for one in (*uniform, fleet["uniform"])} == {CapacityType.SPOT}
        assert seen[uniform[0]].tags == {"team": "vision"}
        assert seen[fleet["notebook"]].ref.kind is Kind.NOTEBOOK

    def test_is_described_as_it_is_listed(self, cloud: Cloud, azure: Build) -> None:
        a_mixed_subscription(cloud)
        found = azure()
        for record in found.list().records:
            assert found.describe(record.ref) == replace(record, fully_described=True)

    def test_is_listed_in_few_calls_however_many_machines_there_are(self, cloud: Cloud, azure: Build) -> None:
        for number in range(20):
            cloud.compute.machine(f"m{number}")
        found = azure()
        found.list()
        first = Counter(cloud.counted)
        assert first == LISTED_ALWAYS + Counter(
            {
                "ResourceSkus_List": 1,
                "ManagementLocks_ListAtSubscriptionLevel": 1,
                "ResourceGroups_List": 1,
                "PublicIPAddresses_ListAll": 1,
            }
        )
        found.list()
        assert cloud.counted - first == first - Counter({"ResourceSkus_List": 1})

    def test_without_anything_of_ours_is_asked_for_no_more(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("web", size="Standard_D4s_v5")
        found = azure().list()
        assert (found.records, found.complete) == ((), True)
        assert cloud.counted == LISTED_ALWAYS + Counter({"ResourceSkus_List": 1})

    def test_nodes_and_machines_are_one(self, cloud: Cloud, azure: Build) -> None:
        pool = cloud.aks.pool(cloud.aks.cluster("ml"))
        machines = {listed_key(record.ref.external_id) for record in azure().list().records}
        for one in cloud.scale_sets.members(cloud.aks.scale_set(pool)):
            assert machine_key(f"azure://{one}") in machines


class Somebody:
    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        return AccessToken("a-token", int(time.time()) + 3600)


class TestTheOfficialClient:
    def test_sees_the_same_machines(self, cloud: Cloud, azure: Build) -> None:
        """Record by record, over the same wire, what its types say and what we say."""
        a_mixed_subscription(cloud)
        powers = [None, "starting", "running", "stopping", "stopped", "deallocating", "deallocated"]
        for number, power in enumerate(powers):
            cloud.compute.machine(
                f"m{number}", power=power, tags={"number": str(number)}, hibernation=number % 2 == 0,
                priority=[None, "Regular", "Low", "Spot", "SpotPlus"][number % 5], ephemeral_os_disk=number == 3,
                location=["westeurope", "eastus"][number % 2], size="Standard_NV36ads_A10_v5",
            )  # fmt: skip
        theirs = {}
        view: Any
        with ComputeManagementClient(
            Somebody(), SUBSCRIPTION, base_url=cloud.endpoint, credential_scopes=[f"{cloud.endpoint}/.default"],
            connection_verify=cloud.ca_file, retry_total=0,
        ) as sdk:  # fmt: skip
            sizes: list[Any] = [*sdk.resource_skus.list(filter="location eq 'westeurope'")]
            gpus = {
                sku.name.lower(): int(capability.value)
                for sku in sizes
                for capability in sku.capabilities
                if capability.name == "GPUs"
            }
            machines: list[Any] = [*sdk.virtual_machines.list_all()]
            scale_sets: list[Any] = [*sdk.virtual_machine_scale_sets.list_all()]
            for scale_set in scale_sets:
                if scale_set.orchestration_mode == "Uniform":
                    group = scale_set.id.split("/")[4]
                    machines += sdk.virtual_machine_scale_set_vms.list(group, scale_set.name)
            for one in machines:
                if one.hardware_profile.vm_size.lower() in gpus:
                    group = one.id.split("/")[4]
                    if "/virtualMachineScaleSets/" in one.id:
                        name = one.id.split("/")[8]
                        vms, profile = (
                            sdk.virtual_machine_scale_set_vms,
                            sdk.virtual_machine_scale_sets.get(group, name),
                        )
                        view = vms.get_instance_view(group, name, one.instance_id)
                        priority = profile.virtual_machine_profile.priority
                    else:
                        view, priority = sdk.virtual_machines.instance_view(group, one.name), one.priority
                    theirs[one.id.lower()] = (
                        one.name,
                        one.vm_id,
                        one.hardware_profile.vm_size.lower(),
                        gpus[one.hardware_profile.vm_size.lower()],
                        POWERS[next((status.code for status in view.statuses if "Power" in status.code), None)],
                        PRIORITIES[priority],
                        one.time_created,
                        one.location,
                        dict(one.tags or {}),
                        one.storage_profile.os_disk.diff_disk_settings is not None,
                    )
        ours = {
            record.ref.external_id.lower(): (
                record.name,
                record.incarnation,
                record.sku.lower(),
                record.gpu_count,
                record.state,
                record.capacity_type,
                record.created_at,
                record.ref.region,
                record.tags,
                "EphemeralOsDisk" in codes(record, Verb.STOP),
            )
            for record in azure().list().records
            if record.ref.kind is Kind.INSTANCE
        }
        assert ours == theirs
        assert len(ours) > 20


POWERS = {
    None: State.UNKNOWN,
    "PowerState/starting": State.PENDING,
    "PowerState/running": State.RUNNING,
    "PowerState/stopping": State.RUNNING,
    "PowerState/stopped": State.RUNNING,
    "PowerState/deallocating": State.STOPPING,
    "PowerState/deallocated": State.STOPPED,
}
PRIORITIES = {
    None: CapacityType.ON_DEMAND,
    "Regular": CapacityType.ON_DEMAND,
    "Spot": CapacityType.SPOT,
    "Low": CapacityType.SPOT,
    "SpotPlus": CapacityType.UNKNOWN,
}


class TestPages:
    def test_of_both_lists_are_all_read(self, cloud: Cloud, azure: Build) -> None:
        cloud.most_per_page = 3
        there = {cloud.compute.machine(f"m{number}") for number in range(7)}
        seen = by_path(azure().list())
        assert set(seen) == there
        assert {record.state for record in seen.values()} == {State.RUNNING}
        assert cloud.counted["VirtualMachines_ListAll"] == 6

    def test_one_that_fails_makes_the_subscription_incomplete_and_keeps_what_was_seen(
        self, cloud: Cloud, azure: Build
    ) -> None:
        cloud.most_per_page = 3
        there = {cloud.compute.machine(f"m{number}") for number in range(7)}
        flexible = cloud.scale_sets.scale_set("flexible", flexible=True)
        plain = plain_only(NO_ANSWER)
        cloud.rules.append(lambda call: plain(call) if "$skiptoken" in call.query else None)
        found = azure().list()
        seen = by_path(found)
        assert len(set(seen) & there) == 3
        assert not part(found).complete
        assert {report.part for report in found.parts} == {*PARTS}
        # a set whose machines were not seen must not look as if it had none
        assert flexible not in seen
        assert not part(found, "scale sets").complete

    def test_an_empty_subscription_is_complete(self, azure: Build) -> None:
        found = azure().list()
        assert (found.records, found.complete) == ((), True)

    @pytest.mark.parametrize(
        "told",
        [
            {},
            {"value": None},
            {"value": [{"name": "half"}]},
            {"value": ["machine"]},
            {"value": [{"id": 7, "location": "westeurope"}]},
        ],
        ids=["nothing", "no list", "half a machine", "another form", "an id that is none"],
    )
    def test_what_azure_does_not_answer_is_no_empty_subscription(
        self, cloud: Cloud, azure: Build, told: dict[str, Any]
    ) -> None:
        cloud.rules.append(plain_only(answer(told)))
        found = azure().list()
        assert (found.records, part(found).complete) == ((), False)
        assert fault(found).code == "Unreachable"

    def test_another_subscriptions_machines_are_not_taken_for_this_ones(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("theirs", subscription=OTHER)
        told = [copy.deepcopy(machine.told()) for machine in cloud.compute.machines.values()]
        cloud.rules.append(plain_only(answer({"value": told})))
        found = azure().list()
        assert (found.records, part(found).complete) == ((), False)


class TestTheTwoLists:
    """Machines with what they are, and their power states."""

    def test_a_machine_that_only_one_tells_of_is_asked_for_by_itself(self, cloud: Cloud, azure: Build) -> None:
        first, second = (cloud.compute.machine(name) for name in ("first", "second"))
        states = [machine.status() for machine in cloud.compute.machines.values()]
        plain = [machine.told() for machine in cloud.compute.machines.values()]
        cloud.rules += [states_only(answer({"value": states[:1]})), plain_only(answer({"value": plain[1:]}))]
        found = azure().list()
        assert {path: record.state for path, record in by_path(found).items()} == {
            first: State.RUNNING,
            second: State.RUNNING,
        }
        assert found.complete
        assert cloud.counted["VirtualMachines_Get"] == 2

    def test_one_that_is_gone_meanwhile_is_gone(self, cloud: Cloud, azure: Build) -> None:
        there = cloud.compute.machine("there")
        gone = cloud.compute.machine("gone")
        states = [machine.status() for machine in cloud.compute.machines.values()]
        cloud.compute.vanish(gone)
        cloud.rules.append(states_only(answer({"value": states})))
        found = azure().list()
        assert (set(by_path(found)), found.complete) == ({there}, True)

    def test_one_whose_state_is_not_told_in_passing_is_asked_for_by_itself(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        [machine] = cloud.compute.machines.values()
        silent = {**machine.status(), "properties": {"vmId": machine.properties["vmId"]}}
        cloud.rules.append(states_only(answer({"value": [silent]})))
        found = azure().list()
        assert by_path(found)[path].state is State.RUNNING
        assert found.complete

    def test_one_whose_state_nobody_tells_is_unknown(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer", power=None)
        found = azure().list()
        assert by_path(found)[path].state is State.UNKNOWN
        assert found.complete

    def test_without_the_states_machines_are_asked_for_one_by_one(self, cloud: Cloud, azure: Build) -> None:
        there = {cloud.compute.machine(f"m{number}") for number in range(5)}
        cloud.compute.machine("web", size="Standard_D4s_v5")
        cloud.rules.append(states_only(NO_ANSWER))
        found = azure().list()
        assert {path: record.state for path, record in by_path(found).items()} == dict.fromkeys(there, State.RUNNING)
        assert (part(found).complete, fault(found).code) == (True, "Unreachable")
        assert cloud.counted["VirtualMachines_Get"] == 5

    def test_what_is_not_told_by_itself_either_leaves_its_region_incomplete(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("here")
        there = cloud.compute.machine("there", location="eastus")
        states = [machine.status() for path, machine in cloud.compute.machines.items() if path == there.lower()]
        cloud.rules += [states_only(answer({"value": states})), only("VirtualMachines_Get", NO_ANSWER)]
        found = azure().list()
        assert set(by_path(found)) == {there}
        assert part(found).complete
        assert not part(found, "westeurope").complete
        assert {report.part for report in found.parts} == {*PARTS, "westeurope"}

    def test_too_many_to_be_asked_for_leave_their_region_incomplete(
        self, cloud: Cloud, azure: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inventory, "MOST_ALONE", 3)
        there = {cloud.compute.machine(f"m{number}") for number in range(5)}
        cloud.rules.append(states_only(NO_ANSWER))
        found = azure().list()
        assert len(set(by_path(found)) & there) == 3
        assert not part(found, "westeurope").complete
        assert "do not agree on 5 machines, of which 3 were" in fault(found, "westeurope").sentence


class TestWhatFails:
    @pytest.mark.parametrize(
        ("method", "name"),
        [
            ("VirtualMachineScaleSets_ListAll", "scale sets"),
            ("ManagedClusters_List", "AKS node pools"),
            ("Workspaces_ListBySubscription", "Azure ML compute"),
            ("Compute_List", "Azure ML compute"),
            ("VirtualMachineScaleSetVMs_List", "scale sets"),
        ],
    )
    def test_is_a_part_of_its_own_and_spoils_no_machine(
        self, cloud: Cloud, azure: Build, method: str, name: str
    ) -> None:
        fleet = a_mixed_subscription(cloud)
        cloud.rules.append(only(method, NO_ANSWER))
        found = azure().list()
        assert fleet["plain"] in by_path(found)
        assert part(found).complete
        assert (part(found, name).complete, fault(found, name).code) == (False, "Unreachable")

    def test_groups_whose_machines_were_not_told_are_not_shown_without_any(self, cloud: Cloud, azure: Build) -> None:
        fleet = a_mixed_subscription(cloud)
        cloud.rules.append(only("VirtualMachineScaleSetVMs_List", NO_ANSWER))
        found = azure().list()
        seen = by_path(found)
        assert fleet["uniform"] not in seen
        assert fleet["pool"] not in seen
        assert {fleet["flexible"], fleet["empty"]} <= set(seen)
        assert not part(found, "AKS node pools").complete

    def test_without_the_scale_sets_nothing_is_known_of_node_pools(self, cloud: Cloud, azure: Build) -> None:
        fleet = a_mixed_subscription(cloud)
        cloud.rules.append(only("VirtualMachineScaleSets_ListAll", NO_ANSWER))
        found = azure().list()
        assert fleet["pool"] not in by_path(found)
        assert (part(found, "AKS node pools").complete, part(found).complete) == (False, True)
        # members of flexible sets are still known as such
        assert by_path(found)[cloud.scale_sets.members(fleet["flexible"])[0]].managed_by == "vmss:flexible"

    def test_without_the_clusters_nodes_are_still_known_as_such(self, cloud: Cloud, azure: Build) -> None:
        fleet = a_mixed_subscription(cloud)
        cloud.rules.append(only("ManagedClusters_List", NO_ANSWER))
        found = azure().list()
        [scale_set] = [path for path in cloud.scale_sets.scale_sets if "/aks-gpu-" in path]
        nodes = cloud.scale_sets.members(scale_set)
        assert {by_path(found)[one].managed_by for one in nodes} == {"aks:ml/gpu"}
        # what a pool stands for is not shown in its place
        assert scale_set not in {path.lower() for path in by_path(found)}
        assert (part(found, "AKS node pools").complete, part(found, "scale sets").complete) == (False, True)
        assert fleet["pool"] not in by_path(found)

    @pytest.mark.parametrize(
        "method",
        [
            "ManagementLocks_ListAtSubscriptionLevel",
            "ResourceGroups_List",
            "PublicIPAddresses_ListAll",
            "AutoscaleSettings_ListBySubscription",
        ],
    )
    def test_what_surrounds_machines_is_said_to_be_unknown(self, cloud: Cloud, azure: Build, method: str) -> None:
        fleet = a_mixed_subscription(cloud)
        cloud.rules.append(only(method, NO_ANSWER))
        found = azure().list()
        assert fleet["plain"] in by_path(found)
        assert found.complete
        assert fault(found).code == "Unreachable"

    def test_a_missing_permission_is_named(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("trainer")
        with cloud.without("Microsoft.Compute/virtualMachines/read"):
            found = azure().list()
        assert not part(found).complete
        assert fault(found).permission == "Microsoft.Compute/virtualMachines/read"
        assert part(found, "scale sets").complete

    def test_one_subscription_spoils_no_other(self, cloud: Cloud, azure: Build) -> None:
        here, there = cloud.compute.machine("here"), cloud.compute.machine("there", subscription=OTHER)
        with cloud.unreachable(OTHER):
            found = azure(SUBSCRIPTION, OTHER).list()
        assert set(by_path(found)) == {here}
        assert part(found).complete
        assert not any(part(found, name, OTHER).complete for name in PARTS)
        assert there not in by_path(found)

    def test_a_provider_nobody_registered_has_nothing_and_is_not_asked_again_for_a_while(
        self, cloud: Cloud, azure: Build, clock: Clock
    ) -> None:
        cloud.compute.machine("trainer")
        cloud.subscriptions[SUBSCRIPTION].unregistered |= {
            "Microsoft.ContainerService",
            "Microsoft.MachineLearningServices",
            "Microsoft.Network",
            "Microsoft.Insights",
        }
        found = azure()
        for _ in range(4):
            assert found.list().complete
        assert cloud.counted["Workspaces_ListBySubscription"] == 2, "what is said twice holds"
        clock.now += inventory.SWITCHED_OFF_HOLDS
        found.list()
        assert cloud.counted["Workspaces_ListBySubscription"] == 3

    def test_what_is_said_once_is_asked_again_as_two_answers_end_what_was_there(
        self, cloud: Cloud, azure: Build
    ) -> None:
        cloud.ml.instance(cloud.ml.workspace())
        found = azure()
        cloud.refuse("Workspaces_ListBySubscription", not_registered("Microsoft.MachineLearningServices"), times=1)
        assert [len(found.list().records) for _ in range(3)] == [0, 1, 1]

    def test_a_subscription_without_compute_has_no_machines(self, cloud: Cloud, azure: Build) -> None:
        cloud.subscriptions[SUBSCRIPTION].unregistered |= {"Microsoft.Compute"}
        found = azure().list()
        assert (found.records, found.complete) == ((), True)

    def test_credentials_that_cannot_be_used_are_no_empty_answer(self, cloud: Cloud, clock: Clock) -> None:
        client = Client(Config(**cloud.settings), secret=lambda _name: "", sleep=lambda _seconds: None)
        with pytest.raises(Misconfigured):
            AzureInventory(client, (SUBSCRIPTION,), now=clock).list()

    def test_a_list_that_hangs_delays_no_other(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        let_go = threading.Event()

        def hang(call: Call) -> Reply | None:
            if call.method == "ManagedClusters_List":
                let_go.wait(20)
            return None

        found = azure(patience_seconds=1.0)
        cloud.rules.append(hang)
        try:
            first = found.list()
            assert set(by_path(first)) == {path}
            assert part(first).complete
            assert not part(first, "AKS node pools").complete
            assert found.progress().waiting == ("AKS node pools",)
            assert set(found.progress().answered) == {*inventory.LISTS} - {"AKS node pools"}
        finally:
            let_go.set()

    def test_nothing_is_known_of_progress_before_the_first_list(self, azure: Build) -> None:
        assert azure(SUBSCRIPTION, OTHER).progress().waiting == ()


class TestSizes:
    def test_are_asked_for_once_by_the_location_they_are_in(self, cloud: Cloud, azure: Build, clock: Clock) -> None:
        for location in ("westeurope", "eastus"):
            cloud.compute.machine(f"m-{location}", location=location)
            cloud.compute.machine(f"odd-{location}", location=location, size="Standard_ND9_X9_v9")
        found = azure(SUBSCRIPTION, OTHER)
        found.list()
        asked = [call.query["$filter"] for call in cloud.calls if call.method == "ResourceSkus_List"]
        assert sorted(asked) == ["location eq 'eastus'", "location eq 'westeurope'"]
        found.list()
        assert cloud.counted["ResourceSkus_List"] == 2
        clock.now += timedelta(days=1)  # there may be new ones
        found.list()
        assert cloud.counted["ResourceSkus_List"] == 4

    def test_come_from_the_builtin_table_when_denied_and_that_is_said(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer", size="Standard_NC24ADS_a100_v4")
        cloud.compute.machine("web", size="Standard_D4s_v5")
        with cloud.without("Microsoft.Compute/skus/read"):
            found = azure().list()
        assert by_path(found)[path].gpu_model == "A100-80GB"
        assert by_path(found)[path].sku == "Standard_NC24ads_A100_v4"
        assert part(found).complete
        assert fault(found).permission == "Microsoft.Compute/skus/read"
        assert "the built-in table of VM sizes was used for Standard_NC24ADS_a100_v4" in fault(found).sentence

    def test_are_asked_for_again_after_a_refusal(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("trainer")
        found = azure()
        with cloud.without("Microsoft.Compute/skus/read"):
            found.list()
        assert part(found.list()).fault is None

    @pytest.mark.parametrize("told", [False, True], ids=["not told at all", "told without GPUs"])
    def test_one_nobody_knows_leaves_its_region_incomplete(self, cloud: Cloud, azure: Build, told: bool) -> None:
        if told:
            cloud.skus.add(Size(name="Standard_ND9_X9_v9", family="x", cpus=9, memory_gb=9))
        here = cloud.compute.machine("here", location="eastus")
        cloud.compute.machine("odd", size="Standard_ND9_X9_v9")
        found = azure().list()
        assert set(by_path(found)) == {here}
        assert part(found).complete
        assert not part(found, "westeurope").complete
        assert "machines of 1 sizes it lacks were left out: Standard_ND9_X9_v9" in fault(found, "westeurope").sentence

    def test_one_that_azure_tells_of_needs_no_table(self, cloud: Cloud, azure: Build) -> None:
        cloud.skus.add(Size(name="Standard_ND9_R100_v9", family="x", cpus=9, memory_gb=9, gpus="8"))
        path = cloud.compute.machine("new", size="standard_nd9_r100_V9")
        record = by_path(azure().list())[path]
        assert (record.sku, record.gpu_model, record.gpu_count) == ("Standard_ND9_R100_v9", "R100", 8)

    @pytest.mark.parametrize("flexible", [False, True])
    def test_a_set_of_what_nobody_knows_leaves_the_sets_incomplete(
        self, cloud: Cloud, azure: Build, flexible: bool
    ) -> None:
        cloud.scale_sets.scale_set("odd", size="Standard_ND9_X9_v9", capacity=0, flexible=flexible)
        found = azure().list()
        assert (found.records, part(found, "scale sets").complete, part(found).complete) == ((), False, True)

    def test_a_machine_without_a_size_is_not_left_out_unseen(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("odd", properties={"hardwareProfile": {}})
        found = azure().list()
        assert not part(found, "westeurope").complete
        assert "(without a name)" in fault(found, "westeurope").sentence


class TestGroups:
    def test_a_set_that_only_places_machines_is_none_and_owns_none(self, cloud: Cloud, azure: Build) -> None:
        scale_set = cloud.scale_sets.scale_set("places", flexible=True, capacity=0)
        body = cloud.scale_sets.scale_sets[scale_set.lower()].body
        del body["sku"], body["properties"]["virtualMachineProfile"]
        machine = cloud.compute.machine("own", scale_set=scale_set)
        found = azure()
        seen = by_path(found.list())
        assert set(seen) == {machine}
        assert seen[machine].managed_by is None
        assert found.describe(ref(machine)).managed_by is None
        with pytest.raises(Unreachable, match="neither machines with accelerators nor makes any"):
            found.describe(ref(scale_set, Kind.NODE_GROUP))

    @pytest.mark.parametrize("flexible", [False, True])
    def test_machines_without_accelerators_are_members_too_and_would_be_lost_with_the_rest(
        self, cloud: Cloud, azure: Build, flexible: bool
    ) -> None:
        path = cloud.scale_sets.scale_set("workers", flexible=flexible)
        if flexible:
            other = cloud.compute.machine("head", size="Standard_D4s_v5", scale_set=path)
        else:
            last = cloud.scale_sets.scale_sets[path.lower()].instances["1"]
            last.body["sku"]["name"] = "Standard_D4s_v5"
            other = f"{path}/virtualMachines/1"
        found = azure()
        for record in (by_path(found.list())[path], found.describe(ref(path, Kind.NODE_GROUP))):
            assert other in record.members
            assert record.gpu_count == len(record.members) - 1
            assert [loss.sentence[: loss.sentence.index(" would")] for loss in record.losses] == [
                f"its {len(record.members)} instances"
            ]

    def test_one_whose_state_is_not_told_is_a_member_yet(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.scale_sets.scale_set("workers", flexible=True)
        first, second = cloud.compute.machines.values()
        cloud.rules += [states_only(answer({"value": [first.status()]})), only("VirtualMachines_Get", NO_ANSWER)]
        found = by_path(azure().list())
        assert {one.lower() for one in found[path].members} == {first.id, second.id}
        assert {one.lower() for one in found} == {path.lower(), first.id}

    @pytest.mark.parametrize("flexible", [False, True])
    def test_a_list_that_moves_while_it_is_read_tells_of_no_machine_twice(
        self, cloud: Cloud, azure: Build, monkeypatch: pytest.MonkeyPatch, flexible: bool
    ) -> None:
        path = cloud.scale_sets.scale_set("workers", flexible=flexible, capacity=3)
        cloud.most_per_page = 2
        for part_ in (cloud.compute, cloud.scale_sets):
            monkeypatch.setattr(part_, "listed", moving(part_.listed))
        found = azure()
        listed = found.list()
        assert len(listed.records) == 4
        for record in (by_path(listed)[path], found.describe(ref(path, Kind.NODE_GROUP))):
            assert (len(record.members), record.gpu_count) == (3, 3)

    def test_what_sets_its_size_is_remarked(self, cloud: Cloud, azure: Build) -> None:
        scale_set = cloud.scale_sets.scale_set("workers")
        cloud.monitor.autoscale_setting(scale_set, "by-queue", least=2, most=8)
        found = azure()
        for record in (by_path(found.list())[scale_set], found.describe(ref(scale_set, Kind.NODE_GROUP))):
            assert record.remarks == ("the autoscale setting 'by-queue' sets its size (2 to 8 instances)",)

    def test_instances_that_are_protected_from_scaling_in_protect_their_set(self, cloud: Cloud, azure: Build) -> None:
        scale_set = cloud.scale_sets.scale_set("workers")
        instance = cloud.scale_sets.scale_sets[scale_set.lower()].instances["1"]
        instance.properties["protectionPolicy"] = {"protectFromScaleIn": True}
        found = azure()
        for record in (by_path(found.list())[scale_set], found.describe(ref(scale_set, Kind.NODE_GROUP))):
            assert [one.source for one in record.protections] == ["protectFromScaleIn"]

    def test_deallocated_instances_do_not_run(self, cloud: Cloud, azure: Build) -> None:
        scale_set = cloud.scale_sets.scale_set("workers", power="deallocated")
        assert by_path(azure().list())[scale_set].state is State.STOPPED

    def test_a_pool_of_single_machines_has_those_of_its_name(self, cloud: Cloud, azure: Build) -> None:
        cluster = cloud.aks.cluster("ml")
        pool = cloud.aks.pool(cluster, "gpu", type="VirtualMachines")
        cloud.scale_sets.vanish(cloud.aks.scale_set(pool))
        node = cloud.compute.machine("node", group="MC_rg-ml_ml_westeurope", tags={"aks-managed-poolName": "gpu"})
        cloud.compute.machine("other", group="MC_rg-ml_ml_westeurope", tags={"aks-managed-poolName": "web"})
        found = azure()
        for record in (by_path(found.list())[pool], found.describe(ref(pool, Kind.NODE_GROUP))):
            assert record.members == (node,)
            assert codes(record, Verb.SCALE_TO_ZERO) == ["VirtualMachinesPool"]


class TestLocks:
    @pytest.mark.parametrize(
        "scope",
        [f"/subscriptions/{SUBSCRIPTION}", f"/subscriptions/{SUBSCRIPTION}/resourcegroups/RG-ML"],
        ids=["of its subscription", "of its resource group"],
    )
    def test_are_inherited(self, cloud: Cloud, azure: Build, scope: str) -> None:
        path = cloud.compute.machine("trainer")
        cloud.locks.lock(scope, "ReadOnly")
        found = azure()
        for record in (by_path(found.list())[path], found.describe(ref(path))):
            assert [one.source for one in record.protections] == ["ReadOnly lock"]

    @pytest.mark.parametrize("kind", ["flexible", "uniform", "pool"])
    def test_that_keep_a_member_keep_its_group(self, cloud: Cloud, azure: Build, kind: str) -> None:
        """Scaling in would delete the others, and fail of this one."""
        if kind == "pool":
            path = cloud.aks.pool(cloud.aks.cluster("ml"), "gpu")
            [scale_set] = cloud.scale_sets.scale_sets.values()
            cloud.locks.lock(scale_set.body["id"])
        else:
            path = cloud.scale_sets.scale_set("workers", flexible=kind == "flexible")
            members = cloud.compute.machines.values() if kind == "flexible" else ()
            cloud.locks.lock(next((one.id for one in members), f"{path}/virtualMachines/0"))
        found = azure()
        for record in (by_path(found.list())[path], found.describe(ref(path, Kind.NODE_GROUP))):
            [blocker] = [one for one in record.blockers if one.verb is Verb.SCALE_TO_ZERO]
            assert blocker.code == "CanNotDelete"
            assert "of its member" in blocker.sentence
            assert "the lock 'keep' on" in blocker.sentence

    def test_that_are_not_told_leave_nothing_fully_described(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer", lock="ReadOnly")
        found = azure()
        with cloud.without("Microsoft.Authorization/locks/read"):
            listed = found.list()
            assert not by_path(listed)[path].fully_described
            assert fault(listed).permission == "Microsoft.Authorization/locks/read"
            with pytest.raises(Forbidden):
                found.describe(ref(path))

    def test_on_other_things_protect_nothing(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        cloud.locks.lock(f"{path}-2", "ReadOnly")
        assert by_path(azure().list())[path].protections == ()


class TestNotebooks:
    def test_a_project_uses_the_computes_of_its_hub(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.ml.instance(cloud.ml.workspace("hub", kind="Hub"), "ada")
        cloud.ml.instance(cloud.ml.workspace("project", kind="Project"), "ada")
        assert set(by_path(azure().list())) == {path}

    def test_what_would_be_lost(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.ml.instance(cloud.ml.workspace())
        assert [loss.name for loss in by_path(azure().list())[path].losses] == [LossName.LOCAL_DISKS]

    def test_one_of_a_size_nobody_knows_leaves_them_incomplete(self, cloud: Cloud, azure: Build) -> None:
        cloud.ml.instance(cloud.ml.workspace(), size="STANDARD_ND9_X9_V9")
        found = azure().list()
        assert (found.records, part(found, "Azure ML compute").complete) == ((), False)


class TestNamesThatLookAlike:
    """Azure compares letters one by one, and not all that Unicode calls one letter are one to it."""

    def test_are_of_two_machines(self, cloud: Cloud, azure: Build) -> None:
        ours = cloud.compute.machine("trainer", group="workers")
        [machine] = cloud.compute.machines.values()
        theirs = ours.replace("workers", "wor\N{KELVIN SIGN}ers")
        other = Machine(
            body={**machine.body, "id": theirs, "properties": {**machine.properties, "vmId": "another"}},
            power="deallocated",
        )
        both = (machine, other)
        cloud.rules += [
            states_only(answer({"value": [one.status() for one in both]})),
            plain_only(answer({"value": [one.told(shouted=True) for one in both]})),
        ]
        states = {path: record.state for path, record in by_path(azure().list()).items()}
        assert states == {ours: State.RUNNING, theirs: State.STOPPED}

    @pytest.mark.parametrize("group", ["Ünïcode", "ΟΔΟΣ", "Москва", "STRASSE"])
    def test_the_case_of_all_others_does_not_matter(self, cloud: Cloud, azure: Build, group: str) -> None:
        cloud.compute.machine("trainer", group=group)
        [record] = azure().list().records
        assert record.state is State.RUNNING
        assert record.ref.external_id == translate.canonical(record.ref.external_id.upper())


class TestWhatListsLack:
    """Azure leaves out of its lists what the caller's role does not cover, and says nothing."""

    @pytest.fixture
    def narrowed(self, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """From then on the role covers the resource group rg-a alone."""

        def narrow() -> None:
            for part_ in cloud.compute, cloud.scale_sets, cloud.aks, cloud.ml:
                monkeypatch.setattr(part_, "listed", within_group(part_.listed, "rg-a"))
            cloud.rules.append(
                lambda call: (
                    forbidden(call.action, call.scope).reply
                    if call.names.get("group", "rg-a").lower() != "rg-a"
                    else None
                )
            )

        return narrow

    @pytest.mark.parametrize("kind", ["machine", "flexible scale set", "uniform scale set", "pool", "notebook"])
    def test_is_not_gone_where_the_role_does_not_cover_it_any_more(
        self, cloud: Cloud, azure: Build, narrowed: Callable[[], None], kind: str
    ) -> None:
        here = cloud.compute.machine("here", group="rg-a")
        if kind == "machine":
            cloud.compute.machine("there", group="rg-b", location="eastus")
        elif kind == "pool":
            cloud.aks.pool(cloud.aks.cluster("ml", group="rg-b"), "gpu")
        elif kind == "notebook":
            cloud.ml.instance(cloud.ml.workspace(group="rg-b"))
        else:
            cloud.scale_sets.scale_set(group="rg-b", flexible=kind.startswith("flexible"))
        found = azure()
        before = found.list()
        assert before.complete
        narrowed()
        for _ in range(3):
            after = found.list()
            assert set(by_path(after)) == {here}
            complete = {report.part: report.complete for report in after.parts}
            lost = [one for one in before.records if one.ref.external_id != here]
            assert lost
            for one in lost:
                assert not complete.get(one.listed_in or one.ref.region, complete["*"]), one.ref.external_id

    def test_is_told_with_the_permission_it_takes(
        self, cloud: Cloud, azure: Build, narrowed: Callable[[], None]
    ) -> None:
        there = cloud.compute.machine("there", group="rg-b")
        found = azure()
        found.list()
        narrowed()
        told = fault(found.list(), "westeurope")
        assert told.permission == "Microsoft.Compute/virtualMachines/read"
        assert f"lists lack {there}, which is not known to be gone" in told.sentence

    def test_is_gone_where_azure_says_so_by_its_id(self, cloud: Cloud, azure: Build) -> None:
        cloud.compute.machine("here")
        there = cloud.compute.machine("there")
        found = azure()
        found.list()
        cloud.compute.vanish(there)
        assert found.list().complete
        asked = cloud.counted["VirtualMachines_Get"]
        assert asked == 1
        assert found.list().complete
        assert cloud.counted["VirtualMachines_Get"] == asked, "it is asked for once"

    def test_is_not_asked_for_when_it_is_only_no_longer_ours(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        found = azure()
        found.list()
        cloud.compute.machines[path.lower()].properties["hardwareProfile"]["vmSize"] = "Standard_D4s_v5"
        assert (found.list().records, found.list().complete) == ((), True)
        assert cloud.counted["VirtualMachines_Get"] == 0

    def test_is_there_when_it_is_there(self, cloud: Cloud, azure: Build) -> None:
        there = cloud.compute.machine("there")
        found = azure()
        found.list()
        with cloud.within(only("VirtualMachines_ListAll", answer({"value": []}))):
            for _ in range(2):
                told = found.list()
                assert fault(told, "westeurope").sentence == f"Azure's lists lack {there}, which is there"
                assert not part(told, "westeurope").complete
        assert found.list().complete

    def test_is_in_doubt_when_it_is_too_much_to_be_asked_for(
        self, cloud: Cloud, azure: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inventory, "MOST_ALONE", 3)
        paths = [cloud.compute.machine(f"m{number}") for number in range(5)]
        found = azure()
        found.list()
        for path in paths:
            cloud.compute.vanish(path)
        assert [part.complete for part in found.list().parts if part.part == "westeurope"] == [False]
        assert found.list().complete
        assert cloud.counted["VirtualMachines_Get"] == 5

    def test_a_failure_in_between_makes_nobody_forget(
        self, cloud: Cloud, azure: Build, narrowed: Callable[[], None]
    ) -> None:
        cloud.compute.machine("there", group="rg-b")
        found = azure()
        found.list()
        with cloud.unreachable():
            found.list()
        narrowed()
        assert not part(found.list(), "westeurope").complete


class TestDescribe:
    @pytest.mark.parametrize(
        ("kind", "path"),
        [
            (Kind.INSTANCE, "Microsoft.Compute/virtualMachines/none"),
            (Kind.NODE_GROUP, "Microsoft.Compute/virtualMachineScaleSets/none"),
            (Kind.NOTEBOOK, "Microsoft.MachineLearningServices/workspaces/vision/computes/none"),
        ],
    )
    def test_whatever_is_gone_is_told_by_its_id(self, cloud: Cloud, azure: Build, kind: Kind, path: str) -> None:
        cloud.ml.workspace()
        with pytest.raises(NotFound):
            azure().describe(ref(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers/{path}", kind))

    def test_a_machine_whose_group_is_gone_is_gone(self, azure: Build) -> None:
        path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/gone/providers/Microsoft.Compute/virtualMachines/none"
        with pytest.raises(NotFound):
            azure().describe(ref(path))

    @pytest.mark.parametrize(
        "method", ["ManagementLocks_ListAtSubscriptionLevel", "ResourceGroups_Get", "PublicIPAddresses_ListAll"]
    )
    def test_nothing_is_left_open(self, cloud: Cloud, azure: Build, method: str) -> None:
        path = cloud.compute.machine("trainer")
        cloud.rules.append(only(method, NO_ANSWER))
        with pytest.raises(Unreachable):
            azure().describe(ref(path))

    def test_that_something_else_is_not_found_does_not_mean_that_it_is_gone(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        cloud.refuse("ResourceGroups_Get", group_not_found("rg-ml"))
        with pytest.raises(Unreachable, match="to which a resource belongs, is not found"):
            azure().describe(ref(path))

    @pytest.mark.parametrize("method", ["ManagementLocks_ListAtSubscriptionLevel", "PublicIPAddresses_ListAll"])
    @pytest.mark.parametrize("code", ["NotFound", "ResourceNotFound"])
    def test_nor_does_that_a_list_of_what_surrounds_it_is_not_found(
        self, cloud: Cloud, azure: Build, method: str, code: str
    ) -> None:
        path = cloud.compute.machine("trainer")
        cloud.refuse(method, answer({"error": {"code": code, "message": "Nothing is here."}}, status=404))
        with pytest.raises(Unreachable, match="not found"):
            azure().describe(ref(path))

    def test_nor_does_that_the_resource_group_of_a_pools_nodes_is_not_found(self, cloud: Cloud, azure: Build) -> None:
        cluster = cloud.aks.cluster("ml")
        pool = cloud.aks.pool(cluster, "gpu")
        cloud.refuse("VirtualMachineScaleSets_List", group_not_found("mc_rg-ml_ml_westeurope"))
        with pytest.raises(Unreachable, match="not found"):
            azure().describe(ref(pool, Kind.NODE_GROUP))

    def test_a_size_nobody_knows_is_no_answer(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("odd", size="Standard_ND9_X9_v9")
        with pytest.raises(Unsupported, match="does not tell what the size 'Standard_ND9_X9_v9' has"):
            azure().describe(ref(path))

    def test_another_sources_machine_is_not_asked_for(self, cloud: Cloud, azure: Build) -> None:
        with pytest.raises(Misconfigured, match="none of this source's"):
            azure().describe(ref("/x", subscription=OTHER))
        assert cloud.calls == []

    def test_half_a_machine_is_none(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        cloud.rules.append(only("VirtualMachines_Get", answer({"name": "half"})))
        with pytest.raises(Unreachable, match="cannot be read"):
            azure().describe(ref(path))

    def test_it_is_as_it_is_now(self, cloud: Cloud, azure: Build) -> None:
        path = cloud.compute.machine("trainer")
        found = azure()
        found.list()
        cloud.compute.machines[path.lower()].power = "deallocated"
        record = found.describe(ref(path))
        assert (record.state, record.fully_described) == (State.STOPPED, True)


class TestManySubscriptions:
    def test_are_seen_side_by_side(self, cloud: Cloud, azure: Build) -> None:
        more = [f"{number:08}-0000-4000-8000-000000000000" for number in range(40)]
        there = set()
        for one in more:
            cloud.add_subscription(one)
            there.add(cloud.compute.machine("trainer", subscription=one))
        found = azure(*more).list()
        assert set(by_path(found)) == there
        assert found.complete
        assert cloud.counted["ResourceSkus_List"] <= 2

    def test_the_same_name_in_another_is_another_machine(self, cloud: Cloud, azure: Build) -> None:
        for one in (SUBSCRIPTION, OTHER):
            cloud.compute.machine("trainer", subscription=one)
        found = azure(SUBSCRIPTION, OTHER).list()
        assert {record.ref.account for record in found.records} == {SUBSCRIPTION, OTHER}
        assert len({translate.canonical(record.ref.external_id) for record in found.records}) == 2
