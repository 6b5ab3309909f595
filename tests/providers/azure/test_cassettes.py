"""Answers that Azure once gave, recorded by others: each is read without loss, and a table says what comes of it.

None of them has an accelerator, so by themselves they come to nothing. To see that nothing of them is lost on the way,
each is also read as if every size in it came with one. That real GPUs look as we think they do is not shown by any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
import pytest
from azure.mgmt.compute import models
from azure.mgmt.compute._utils.model_base import _deserialize

from providers.azure import translate, translate_groups
from providers.azure.client import Client, NotEnabled
from providers.azure.inventory import AzureInventory
from providers.azure.translate import Lock
from providers.errors import Unreachable
from providers.records import CapacityType, InventoryAnswer, Kind, ResourceRecord, State
from tests.real_data import REAL_DATA, needs

CASSETTES = "cloud_api/azure_cassettes"
HERE = REAL_DATA / CASSETTES
SUBSCRIPTION = "ea42f556-5106-4743-99b0-c129bfa71a47"
NOW = datetime(2026, 11, 22, tzinfo=UTC)

pytestmark = needs(CASSETTES)


@cache
def interactions(cassette: str) -> Sequence[tuple[str, str, Mapping[str, str], Any]]:
    """Method, path, query and body of what was answered well, in the order it was."""
    told = json.loads((HERE / f"{cassette}.json").read_text("utf-8"))["interactions"]
    found = []
    for one in told:
        address = urlsplit(one["request"]["uri"])
        body = one["response"]["body"]
        found.append(
            (
                one["request"]["method"],
                unquote(address.path).replace("//", "/"),
                dict(parse_qsl(address.query)),
                body.get("data") if isinstance(body, dict) and "data" in body else body,
            )
        )
    return found


class Replay:
    """In the place of the client: answers what was recorded, of other machines what their list said, and of all else
    that there is none."""

    def __init__(self, cassette: str, *, as_if_accelerated: bool) -> None:
        self._as_if_accelerated = as_if_accelerated
        self._lists: dict[str, Any] = {}
        self._things: dict[str, Any] = {}
        for method, path, _, body in interactions(cassette):
            if method != "GET" or not isinstance(body, dict):
                continue
            if isinstance(body.get("value"), list):
                self._lists[path.lower()] = body
                self._things |= {one["id"].lower(): one for one in body["value"] if isinstance(one.get("id"), str)}
        for method, path, _, body in interactions(cassette):
            if method == "GET" and isinstance(body, dict) and "value" not in body:
                self._things[path.lower()] = body

    def get(self, path: str, *, version: str, query: Mapping[str, Any] | None = None) -> Any:
        assert version
        return self._things[path.lower()]

    def pages(self, path: str, *, version: str, query: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """Nobody has recorded a list of power states."""
        assert version
        if path.endswith("/skus"):
            yield {"value": [self._size(name) for name in sorted(self._sizes())]}
        elif "statusOnly" in (query or {}):
            raise Unreachable("the power states were not recorded")
        elif path.endswith(("/virtualMachineScaleSets/cctestvmss/virtualMachines", "/locks")):
            yield self._lists.get(path.lower(), {"value": []})
        elif path.lower() in self._lists:
            yield self._lists[path.lower()]
        else:
            raise NotEnabled(f"{path} was not recorded")

    def _sizes(self) -> set[str]:
        """All that is named anywhere."""
        found = {translate.sku_of(one) for one in self._things.values()}
        found |= {translate.compute_sku(one) for one in self._things.values()}
        found |= {sku for one in self._things.values() for sku in translate_groups.launched_skus(one)}
        return found - {""}

    def _size(self, name: str) -> Any:
        gpus = [{"name": "GPUs", "value": "1"}] if self._as_if_accelerated else []
        return {"resourceType": "virtualMachines", "name": name, "capabilities": gpus}


def replayed(cassette: str, *, as_if_accelerated: bool) -> InventoryAnswer:
    client = cast(Client, Replay(cassette, as_if_accelerated=as_if_accelerated))
    return AzureInventory(client, (SUBSCRIPTION,), now=lambda: NOW).list()


def told(record: ResourceRecord) -> tuple[str, str, State]:
    """As much as tells that it is read right."""
    path = record.ref.external_id.removeprefix(f"/subscriptions/{SUBSCRIPTION}/resourceGroups/")
    return path.replace("/providers/Microsoft.Compute/", " "), record.sku, record.state


def cc(sku: str, state: State = State.UNKNOWN, group: str = "test_vm") -> tuple[str, str, State]:
    """The machine that most of them are about."""
    return f"{group} virtualMachines/cctestvm", sku, state


# What comes of each, as if all sizes had GPUs; by themselves, nothing.

OF_A_CLUSTER = {
    (f"test_containerservice virtualMachines/k8s-{name}-c02b7042-{number}", "Standard_D2_v2", State.UNKNOWN)
    for name, number in (("agent", 0), ("agent", 1), ("agent", 2), ("master", 0))
}
MACHINES: dict[str, set[tuple[str, str, State]]] = {
    "ArmResourceTest.test_metric_filter_find": {*OF_A_CLUSTER, cc("Basic_A0")},
    "ArmResourceTest.test_metric_filter_find_average": {*OF_A_CLUSTER, cc("Basic_A0")},
    "ArmResourceTest.test_metric_filter_period_start_start_of_day": {cc("Standard_D2_v2")},
    "FunctionalActionsTagsTest.test_autotag_user_and_date": {cc("Standard_A1_v2")},
    "FunctionalActionsTagsTest.test_tag": {cc("Standard_A1_v2")},
    "FunctionalActionsTagsTest.test_untag": {cc("Standard_A1_v2")},
    "PolicyCompliance.test_find_by_name_definition": {cc("Basic_A0")},
    "VMSSTest.test_find_by_name": {
        ("test_vmss virtualMachineScaleSets/cctestvmss", "Standard_DS1_v2", State.PENDING),
    },
    "VMTest.virtual_machine_extensions": {cc("Standard_A1_v2")},
    "VMTest.virtual_machine_instance": {cc("Standard_A1_v2", State.RUNNING)},
    "VMTest.virtual_machine_interface": {
        cc("Standard_A1_v2"),
        ("erin virtualMachines/erinvm", "Standard_B1ls", State.UNKNOWN),
        ("stefan virtualMachines/stefanvm", "Standard_D2s_v3", State.UNKNOWN),
    },
}
"""Lists of machines. Their power states were not recorded, but for one that was asked for by itself; of the scale set,
no instances."""

NOTHING = {
    "AIFoundryApplicationTest.ai-foundry-applications": "projects of AI Foundry, which have no machines of their own",
    "AIFoundryConnectionTest.ai-foundry-connections": "connections of AI Foundry",
    "AIFoundryConnectionTest.ai-foundry-connections-delete": "connections of AI Foundry",
    "AIFoundryConnectionTest.ai-foundry-connections-query": "connections of AI Foundry",
    "AIFoundryProjectTest.ai-foundry-projects-filter": "projects of AI Foundry",
    "AdvisorRecommendationTest.test_find_by_category": "recommendations",
    "AdvisorRecommendationTest.test_find_by_name": "recommendations",
    "AiFoundryDeploymentTest.ai-foundry-deployment-delete": "deployments of models, billed by the token",
    "CostFilterTest.test_cost_resource_group": "resource groups and what they cost",
    "CostManagementExportTest.common": "exports of costs",
    "FunctionalActionsTagsTest.test_record_set_tagging_not_implemented": "zones of names",
    "LockActionTest.test_lock_action_child_resource": "a database and its locks",
    "LockActionTest.test_lock_action_resource_group": "resource groups and their locks",
    "MachineLearningWorkspaceComputeInstancesFilterTest.test_additional_attributes": "a compute cluster, no instance",
    "ModifyDiskTypeTests.change-attached-disk-type": "disks",
    "ModifyDiskTypeTests.skip-unsupported-disk-state": "disks",
    "ResourceGroupTest.test_empty_group": "resource groups",
    "ResourceLockFilter.test_find_by_lock_type": "vaults and their locks",
    "ResourceLockFilter.test_find_by_lock_type_any": "disks and their locks",
    "SessionHostTest.test_find_by_name": "pools of desktops",
    "SessionHostTest.test_session_host_vm": "two machines by themselves, in no list",
    "SubscriptionDiagnosticSettingsFilterTest.diag": "a subscription",
    "SubscriptionTaggingTest.test_subscription_mark_for_op": "a subscription and its tags",
    "SubscriptionTaggingTest.test_subscription_tag_trim": "a subscription and its tags",
    "SubscriptionTest.test_add_policy": "a subscription and its policies",
}
"""Nothing of ours, and why."""

ALONE = {
    "FunctionalActionsTagsTest.test_autotag_user_and_date": {cc("Standard_A1_v2")},
    "FunctionalActionsTagsTest.test_tag": {cc("Standard_A1_v2")},
    "FunctionalActionsTagsTest.test_untag": {cc("Standard_A1_v2")},
    "SessionHostTest.test_session_host_vm": {
        ("cfb-sfescbnv virtualMachines/cfb-test-0", "Standard_D2s_v3", State.RUNNING),
        ("cfb-sfescbnv virtualMachines/cfb-test-1", "Standard_D2s_v3", State.RUNNING),
    },
    "VMTest.virtual_machine_instance": {cc("Standard_A1_v2", State.RUNNING)},
}
"""Machines that were asked for by themselves, some of them with their instance views."""

ROOT = f"/subscriptions/{SUBSCRIPTION}/resourcegroups"
VAULT = {f"{ROOT}/test_keyvault/providers/microsoft.keyvault/vaults/cckeyvault1": [("lock", "CanNotDelete")]}
INHERITED = {f"{ROOT}/test_locked": [("cctestlockfilter", "CanNotDelete")]}
DATABASE = f"{ROOT}/test_locked/providers/microsoft.sql/servers/cclockedsqlserverc129bfa71a47/databases/cclockeddb"
LOCKS: dict[str, list[dict[str, list[tuple[str, str]]]]] = {
    "LockActionTest.test_lock_action_child_resource": [{**INHERITED, DATABASE: [("dblock", "ReadOnly")]}],
    "LockActionTest.test_lock_action_resource_group": [
        {f"{ROOT}/test_locked": [("cctestlockfilter", "CanNotDelete"), ("rglock", "CanNotDelete")]}
    ],
    "ResourceLockFilter.test_find_by_lock_type": [{}, VAULT, {}, VAULT],
    "ResourceLockFilter.test_find_by_lock_type_any": [{}, INHERITED, {}, INHERITED],
}
"""By what they are on: a list tells of those that are inherited, too."""

MACHINE = "/microsoft.compute/virtualmachines"


def machines_in(cassette: str) -> Iterator[Mapping[str, Any]]:
    """Every machine that was told, in a list or by itself."""
    for method, path, _, body in interactions(cassette):
        listed = path.lower().endswith(MACHINE)
        alone = f"{MACHINE}/" in path.lower() and path.count("/") == 8
        if method == "GET" and (listed or alone):
            yield from body["value"] if listed else [body]


def read(vm: Mapping[str, Any]) -> ResourceRecord:
    view = translate.view_of((vm.get("properties") or {}).get("instanceView"))
    machine = translate.MachineType(devices=translate.Devices(vendor="nvidia", model="T4", count=1))
    return translate.record(vm, view, account=SUBSCRIPTION, machine=machine)


class TestEveryCassette:
    def test_is_in_one_of_both_tables(self) -> None:
        assert {path.stem for path in HERE.glob("*.json")} == MACHINES.keys() | NOTHING.keys()
        assert not MACHINES.keys() & NOTHING.keys()

    @pytest.mark.parametrize("cassette", sorted([*MACHINES, *NOTHING]))
    def test_has_nothing_of_ours(self, cassette: str) -> None:
        found = replayed(cassette, as_if_accelerated=False)
        assert (found.records, found.complete) == ((), True)

    @pytest.mark.parametrize(("cassette", "meant"), MACHINES.items())
    def test_would_be_read_without_loss(self, cassette: str, meant: set[tuple[str, str, State]]) -> None:
        found = replayed(cassette, as_if_accelerated=True)
        assert {told(record) for record in found.records} == meant
        assert len(found.records) == len(meant)
        assert found.complete

    @pytest.mark.parametrize("cassette", sorted(NOTHING))
    def test_would_still_have_nothing(self, cassette: str) -> None:
        found = replayed(cassette, as_if_accelerated=True)
        assert (found.records, found.complete) == ((), True)

    @pytest.mark.parametrize(("cassette", "meant"), ALONE.items())
    def test_tells_machines_by_themselves(self, cassette: str, meant: set[tuple[str, str, State]]) -> None:
        found = [read(body) for body in machines_in(cassette) if "value" not in body]
        assert {told(record) for record in found} >= meant

    @pytest.mark.parametrize("cassette", sorted([*MACHINES, *ALONE]))
    def test_is_read_as_the_sdk_reads_it(self, cassette: str) -> None:
        for vm in machines_in(cassette):
            theirs: Any = _deserialize(models.VirtualMachine, dict(vm))
            ours = read(vm)
            assert ours.ref.external_id.lower() == theirs.id.lower()
            assert (ours.name, ours.ref.region, ours.sku) == (
                theirs.name,
                theirs.location,
                theirs.hardware_profile.vm_size,
            )
            assert (ours.incarnation, ours.tags, ours.created_at) == (
                theirs.vm_id.lower(),
                dict(theirs.tags or {}),
                theirs.time_created,
            )
            assert ours.zone == (f"{theirs.location}-{theirs.zones[0]}" if theirs.zones else None)
            assert (ours.capacity_type is CapacityType.ON_DEMAND) is (theirs.priority in (None, "Regular"))
            codes = [one.code for one in theirs.instance_view.statuses] if theirs.instance_view else []
            assert (ours.state is State.RUNNING) is ("PowerState/running" in codes)


class TestWhatElseTheyTell:
    @pytest.mark.parametrize(("cassette", "meant"), LOCKS.items())
    def test_locks(self, cassette: str, meant: list[dict[str, list[tuple[str, str]]]]) -> None:
        found = [
            translate.locks_of(body["value"])
            for method, path, _, body in interactions(cassette)
            if method == "GET" and path.lower().endswith("/locks")
        ]
        wanted = [
            {scope: [Lock(name=name, level=level) for name, level in theirs] for scope, theirs in one.items()}
            for one in meant
        ]
        assert found == wanted

    @pytest.mark.parametrize(
        ("cassette", "number"),
        [
            ("CostFilterTest.test_cost_resource_group", 20),
            ("LockActionTest.test_lock_action_resource_group", 17),
            ("ResourceGroupTest.test_empty_group", 27),
        ],
    )
    def test_resource_groups_that_no_service_keeps(self, cassette: str, number: int) -> None:
        [groups] = [body["value"] for _, path, _, body in interactions(cassette) if path.endswith("/resourcegroups")]
        assert len(groups) == number
        assert translate.owners_of(groups) == {}

    def test_nodes_of_a_cluster_say_so(self) -> None:
        found = replayed("ArmResourceTest.test_metric_filter_find", as_if_accelerated=True)
        owners = {record.name: record.managed_by for record in found.records}
        assert owners == {
            "k8s-agent-C02B7042-0": "kubernetes:agent",
            "k8s-agent-C02B7042-1": "kubernetes:agent",
            "k8s-agent-C02B7042-2": "kubernetes:agent",
            "k8s-master-C02B7042-0": "kubernetes:master",
            "cctestvm": None,
        }

    def test_a_scale_set_of_old_says_no_mode_and_is_uniform(self) -> None:
        [record] = replayed("VMSSTest.test_find_by_name", as_if_accelerated=True).records
        assert (record.ref.kind, record.incarnation) == (Kind.NODE_GROUP, "3ad96140-9304-4647-99a3-5a2d53c8badd")
        [(_, _, _, body)] = interactions("VMSSTest.test_find_by_name")
        assert translate_groups.is_uniform(body["value"][0])
        assert translate_groups.capacity_of(body["value"][0]) == 2

    def test_the_bytes_of_a_machine(self) -> None:
        """What a list costs for each machine; of power states, nobody has recorded one."""
        sizes = [len(orjson.dumps(vm)) for cassette in MACHINES for vm in machines_in(cassette)]
        assert 1_000 < sum(sizes) / len(sizes) < 10_000
