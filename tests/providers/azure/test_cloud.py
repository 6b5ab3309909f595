"""The Azure of these tests is honest: Azure's own client reads it, and what it does is what Azure does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.core import exceptions
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient, models

from tests.providers.azure.cloud import OTHER, SUBSCRIPTION, Cloud
from tests.providers.azure.cloud_operations import NO_ROOM

GROUP = "rg-ml"


class Somebody:
    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        return AccessToken("a-token", int(time.time()) + 3600)


@pytest.fixture
def sdk(cloud: Cloud) -> Iterator[ComputeManagementClient]:
    cloud.operations.retry_after = None
    with ComputeManagementClient(
        Somebody(),
        SUBSCRIPTION,
        base_url=cloud.endpoint,
        credential_scopes=[f"{cloud.endpoint}/.default"],
        connection_verify=cloud.ca_file,
        polling_interval=0,
        retry_total=0,
    ) as client:
        yield client


def test_the_sdk_reads_a_machine(cloud: Cloud, sdk: ComputeManagementClient) -> None:
    cloud.compute.machine("Trainer", size="Standard_ND96isr_H100_v5", tags={"team": "nlp"}, priority="Spot", zone="1")

    read = sdk.virtual_machines.get("RG-ML", "trainer", expand="instanceView")

    assert (read.name, read.hardware_profile.vm_size, read.zones) == ("Trainer", "Standard_ND96isr_H100_v5", ["1"])
    assert (read.priority, read.eviction_policy, read.billing_profile.max_price) == ("Spot", "Deallocate", -1)
    assert read.instance_view.statuses[-1].code == "PowerState/running"


def test_all_pages_together_are_the_whole_list(cloud: Cloud, sdk: ComputeManagementClient) -> None:
    machines = {cloud.compute.machine(f"m{number}") for number in range(5)}
    cloud.most_per_page = 2

    found = [str(one.id) for one in sdk.virtual_machines.list_all()]

    assert {one.lower() for one in found} == {one.lower() for one in machines}
    assert all("/resourceGroups/RG-ML/" in one for one in found)
    assert cloud.counted["VirtualMachines_ListAll"] == 3


def test_status_only_tells_what_all_are_doing(cloud: Cloud, sdk: ComputeManagementClient) -> None:
    cloud.compute.machine("a")
    cloud.compute.machine("b", power="deallocated")

    told = list(sdk.virtual_machines.list_all(status_only="true"))

    assert [one.instance_view.statuses[-1].code for one in told] == ["PowerState/running", "PowerState/deallocated"]
    assert [one.hardware_profile for one in told] == [None, None]


@pytest.mark.parametrize(
    ("act", "through", "to"),
    [
        ("begin_deallocate", "deallocating", "deallocated"),
        ("begin_power_off", "stopping", "stopped"),
        ("begin_start", "starting", "running"),
        ("begin_delete", "running", None),
    ],
)
def test_what_takes_a_while(cloud: Cloud, sdk: ComputeManagementClient, act: str, through: str, to: str | None) -> None:
    machine = cloud.compute.machine(power="deallocated" if act == "begin_start" else "running")

    poller = getattr(sdk.virtual_machines, act)(GROUP, "trainer", polling_interval=0)
    cloud.operations.looks = 2
    assert cloud.compute.power(machine) in (through, to)
    poller.wait()

    assert cloud.compute.power(machine) == to
    assert poller.status() == "Succeeded"


def test_an_operation_fails_late(cloud: Cloud, sdk: ComputeManagementClient) -> None:
    machine = cloud.compute.machine(power="deallocated")
    cloud.operations.fail_next("start", NO_ROOM, target=machine)

    with pytest.raises(exceptions.HttpResponseError) as told:
        sdk.virtual_machines.begin_start(GROUP, "trainer", polling_interval=0).result()

    assert told.value.error is not None
    assert told.value.error.code == "AllocationFailed"
    assert cloud.compute.power(machine) == "deallocated"


def test_a_machine_with_hibernation_keeps_its_memory(cloud: Cloud, sdk: ComputeManagementClient) -> None:
    machine = cloud.compute.machine(hibernation=True)
    other = cloud.compute.machine("other")

    sdk.virtual_machines.begin_deallocate(GROUP, "trainer", hibernate=True, polling_interval=0).result()
    with pytest.raises(exceptions.ResourceExistsError, match="does not have hibernation enabled"):
        sdk.virtual_machines.begin_deallocate(GROUP, "other", hibernate=True)

    view = sdk.virtual_machines.instance_view(GROUP, "trainer")
    codes = {status.code for status in view.statuses or ()}
    assert {"PowerState/deallocated", "HibernationState/Hibernated"} <= codes
    assert (cloud.compute.power(machine), cloud.compute.power(other)) == ("deallocated", "running")


@pytest.mark.parametrize(
    ("level", "act", "refused"),
    [
        ("CanNotDelete", "begin_deallocate", False),
        ("CanNotDelete", "begin_delete", True),
        ("ReadOnly", "begin_deallocate", True),
        ("ReadOnly", "begin_start", True),
        ("ReadOnly", "begin_delete", True),
    ],
)
@pytest.mark.parametrize("on", ["the machine", "its resource group", "its subscription"])
def test_what_a_lock_keeps_from_being_done(
    cloud: Cloud, sdk: ComputeManagementClient, level: str, act: str, refused: bool, on: str
) -> None:
    machine = cloud.compute.machine()
    steps = {"the machine": 9, "its resource group": 5, "its subscription": 3}[on]
    cloud.locks.lock("/".join(machine.split("/")[:steps]), level)
    before = cloud.snapshot()

    told: AbstractContextManager[object] = (
        pytest.raises(exceptions.ResourceExistsError, match="locked") if refused else nullcontext()
    )
    with told:
        getattr(sdk.virtual_machines, act)(GROUP, "trainer", polling_interval=0).wait()

    assert (cloud.snapshot() == before) is refused


class TestScaleSets:
    def test_of_uniform_ones_instances_are_listed(self, cloud: Cloud, sdk: ComputeManagementClient) -> None:
        workers = cloud.scale_sets.scale_set("workers", capacity=3, priority="Spot", zones=["1", "2"])

        (read,) = sdk.virtual_machine_scale_sets.list_all()
        instances = [*sdk.virtual_machine_scale_set_vms.list(GROUP, "workers", expand="instanceView")]

        assert read.sku is not None
        assert (read.name, read.sku.capacity, read.orchestration_mode) == ("workers", 3, "Uniform")
        assert read.virtual_machine_profile.priority == "Spot"
        assert [str(one.id).lower() for one in instances] == [one.lower() for one in cloud.scale_sets.members(workers)]
        assert {one.instance_view.statuses[-1].code for one in instances} == {"PowerState/running"}

    def test_of_flexible_ones_machines_are_listed(self, cloud: Cloud, sdk: ComputeManagementClient) -> None:
        workers = cloud.scale_sets.scale_set("workers", capacity=2, flexible=True)
        cloud.compute.machine("other")

        found = [*sdk.virtual_machines.list_all(filter=f"'virtualMachineScaleSet/id' eq '{workers}'")]

        assert {str(one.id).lower() for one in found} == {one.lower() for one in cloud.scale_sets.members(workers)}
        assert len(found) == 2

    @pytest.mark.parametrize("flexible", [False, True])
    def test_the_newest_go_first(self, cloud: Cloud, sdk: ComputeManagementClient, flexible: bool) -> None:
        workers = cloud.scale_sets.scale_set("workers", capacity=3, flexible=flexible)
        oldest, *_ = cloud.scale_sets.members(workers)

        sdk.virtual_machine_scale_sets.begin_update(
            GROUP, "workers", models.VirtualMachineScaleSetUpdate(sku=models.Sku(capacity=1)), polling_interval=0
        ).result()

        assert cloud.scale_sets.members(workers) == [oldest]
        assert cloud.scale_sets.capacity(workers) == 1

    def test_those_that_are_protected_stay(self, cloud: Cloud, sdk: ComputeManagementClient) -> None:
        workers = cloud.scale_sets.scale_set("workers", capacity=3)
        *_, newest = cloud.scale_sets.members(workers)
        cloud.scale_sets.protect(newest)

        sdk.virtual_machine_scale_sets.begin_update(
            GROUP, "workers", models.VirtualMachineScaleSetUpdate(sku=models.Sku(capacity=0)), polling_interval=0
        ).result()

        assert cloud.scale_sets.members(workers) == [newest]

    def test_single_instances_are_deallocated_and_deleted(self, cloud: Cloud, sdk: ComputeManagementClient) -> None:
        workers = cloud.scale_sets.scale_set("workers", capacity=3)
        first, second, third = cloud.scale_sets.members(workers)

        sdk.virtual_machine_scale_set_vms.begin_deallocate(GROUP, "workers", "0", polling_interval=0).result()
        sdk.virtual_machine_scale_sets.begin_delete_instances(
            GROUP, "workers", models.VirtualMachineScaleSetVMInstanceRequiredIDs(instance_ids=["1"]), polling_interval=0
        ).wait()

        assert [cloud.scale_sets.power(one) for one in (first, second, third)] == ["deallocated", None, "running"]
        assert cloud.scale_sets.capacity(workers) == 2


def test_sizes_say_what_they_can_do(sdk: ComputeManagementClient) -> None:
    told = {
        sku.name: {one.name: one.value for one in sku.capabilities or ()}
        for sku in sdk.resource_skus.list(filter="location eq 'westeurope'")
        if sku.resource_type == "virtualMachines"
    }

    assert (told["Standard_ND96isr_H100_v5"]["GPUs"], told["Standard_ND96isr_H100_v5"]["vCPUs"]) == ("8", "96")
    assert told["Standard_NV6ads_A10_v5"]["HibernationSupported"] == "True"
    assert "GPUs" not in told["Standard_D4s_v5"]
    assert "Standard_ND128isr_NDR_GB200_v6" not in told


REFUSALS = {
    "nobody asks": (401, "AuthenticationFailed", {"token": ""}),
    "no version": (400, "MissingApiVersionParameter", {"query": ""}),
    "a version nobody knows": (400, "NoRegisteredProviderFound", {"query": "api-version=1999-01-01"}),
    "a subscription nobody knows": (404, "SubscriptionNotFound", {"subscription": OTHER.replace("2", "3")}),
    "a resource group nobody knows": (404, "ResourceGroupNotFound", {"group": "rg-gone"}),
    "a machine nobody knows": (404, "ResourceNotFound", {"name": "gone"}),
    "a type nobody knows": (404, "InvalidResourceType", {"kind": "Microsoft.Compute/virtualCats"}),
    "a provider nobody registered": (
        409,
        "MissingSubscriptionRegistration",
        {"kind": "Microsoft.MachineLearningServices/workspaces", "query": "api-version=2024-10-01"},
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_how_it_says_no(cloud: Cloud, case: str) -> None:
    status, code, said = REFUSALS[case]
    cloud.compute.machine()
    cloud.subscriptions[SUBSCRIPTION].unregistered.add("Microsoft.MachineLearningServices")
    path = (
        f"/subscriptions/{said.get('subscription', SUBSCRIPTION)}/resourceGroups/{said.get('group', GROUP)}/providers/"
        f"{said.get('kind', 'Microsoft.Compute/virtualMachines')}/{said.get('name', 'trainer')}"
    )
    if "workspaces" in path:
        path += "/computes"
    reply = cloud.reply(
        "GET",
        path,
        said.get("query", "api-version=2026-04-01"),
        {"authorization": f"Bearer {said['token']}" if "token" in said else "Bearer some"},
        b"",
    )
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (status, code)


def asked(cloud: Cloud, http: str, path: str, query: str, body: object = None) -> Any:
    raw = b"" if body is None else json.dumps(body).encode()
    reply = cloud.reply(http, path, query, {"authorization": "Bearer some"}, raw)
    assert reply.status in (200, 202), reply.body
    return json.loads(reply.body) if reply.body else None


class TestNodePools:
    VERSION = "api-version=2025-05-01"

    def test_a_pool_is_listed_and_so_is_its_scale_set(self, cloud: Cloud) -> None:
        cluster = cloud.aks.cluster("ml")
        pool = cloud.aks.pool(cluster, "gpu", count=3, priority="Spot")

        (told,) = asked(cloud, "GET", f"{cluster}/agentPools", self.VERSION)["value"]
        (whole,) = asked(
            cloud,
            "GET",
            f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerService/managedClusters",
            self.VERSION,
        )["value"]

        assert told["id"].lower() == pool.lower()
        assert (told["properties"]["count"], told["properties"]["scaleSetPriority"]) == (3, "Spot")
        assert whole["properties"]["agentPoolProfiles"] == [{"name": "gpu", **told["properties"]}]
        assert len(cloud.scale_sets.members(cloud.aks.scale_set(pool))) == 3

    def test_a_pool_is_scaled_and_its_scale_set_follows(self, cloud: Cloud) -> None:
        pool = cloud.aks.pool(cloud.aks.cluster(), count=2)
        body = asked(cloud, "GET", pool, self.VERSION)
        body["properties"]["count"] = 0

        asked(cloud, "PUT", pool, self.VERSION, {"properties": body["properties"]})
        busy = cloud.reply("PUT", pool, self.VERSION, {"authorization": "Bearer some"}, json.dumps(body).encode())
        cloud.settle()

        assert (busy.status, json.loads(busy.body)["error"]["code"]) == (409, "OperationNotAllowed")
        assert cloud.aks.truth(pool) is not None
        assert cloud.scale_sets.members(cloud.aks.scale_set(pool)) == []

    def test_a_pool_is_changed_only_as_long_as_it_is_what_was_read(self, cloud: Cloud) -> None:
        pool = cloud.aks.pool(cloud.aks.cluster(), count=2)
        body = asked(cloud, "GET", pool, self.VERSION)
        raw = json.dumps({"properties": {**body["properties"], "count": 1}}).encode()
        asked_as = {"authorization": "Bearer some", "if-match": body["properties"]["eTag"]}

        first = cloud.reply("PUT", pool, self.VERSION, asked_as, raw)
        cloud.settle()
        second = cloud.reply("PUT", pool, self.VERSION, asked_as, raw)

        assert (first.status, second.status) == (200, 412)

    def test_the_autoscaler_gives_back_what_pods_need(self, cloud: Cloud) -> None:
        pool = cloud.aks.pool(cloud.aks.cluster(), count=2, autoscaling=(0, 4))
        body = asked(cloud, "GET", pool, self.VERSION)
        body["properties"]["count"] = 0

        asked(cloud, "PUT", pool, self.VERSION, body)
        cloud.settle()

        assert len(cloud.scale_sets.members(cloud.aks.scale_set(pool))) == 2

    def test_a_stopped_pool_has_no_nodes_and_keeps_its_count(self, cloud: Cloud) -> None:
        pool = cloud.aks.pool(cloud.aks.cluster(), count=2, autoscaling=(0, 4))
        body = asked(cloud, "GET", pool, self.VERSION)

        body["properties"]["powerState"] = {"code": "Stopped"}
        asked(cloud, "PUT", pool, self.VERSION, body)
        cloud.settle()

        told = asked(cloud, "GET", pool, self.VERSION)["properties"]
        assert (told["powerState"]["code"], told["count"]) == ("Stopped", 2)
        assert cloud.scale_sets.members(cloud.aks.scale_set(pool)) == []


def test_a_compute_instance_stops_and_starts(cloud: Cloud) -> None:
    workspace = cloud.ml.workspace()
    notebook = cloud.ml.instance(workspace)
    cloud.ml.cluster(workspace)

    asked(cloud, "POST", f"{notebook}/stop", "api-version=2024-10-01")
    stopping = cloud.ml.power(notebook)
    cloud.settle()

    told = asked(cloud, "GET", f"{workspace}/computes", "api-version=2024-10-01")["value"]
    kinds = [one["properties"]["computeType"] for one in told]
    assert (stopping, cloud.ml.power(notebook)) == ("Stopping", "Stopped")
    assert kinds == ["ComputeInstance", "AmlCompute"]


def test_an_autoscale_setting_keeps_its_scale_set_within_bounds(cloud: Cloud) -> None:
    workers = cloud.scale_sets.scale_set(capacity=0)
    cloud.monitor.autoscale_setting(workers, least=1, most=3)

    cloud.settle()

    assert cloud.scale_sets.capacity(workers) == 1


class TestMetrics:
    NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)

    def test_of_one_resource(self, cloud: Cloud) -> None:
        machine = cloud.compute.machine()
        start = int(self.NOW.timestamp())
        for device, value in (("0", 20.0), ("1", 60.0)):
            cloud.monitor.push(
                machine,
                "utilization_gpu",
                [(start, value)],
                namespace="telegraf/nvidia-smi",
                dimensions={"index": device},
            )

        (told,) = asked(
            cloud,
            "GET",
            f"{machine}/providers/Microsoft.Insights/metrics",
            "api-version=2024-02-01&metricnames=utilization_gpu&metricnamespace=telegraf/nvidia-smi&aggregation=Average"
            "&interval=PT1M&timespan=2026-11-22T09:00:00Z/2026-11-22T09:02:00Z&$filter=index eq '*'",
        )["value"]

        assert [one["metadatavalues"][0]["value"] for one in told["timeseries"]] == ["0", "1"]
        assert told["timeseries"][1]["data"] == [
            {"timeStamp": "2026-11-22T09:00:00Z", "average": 60.0},
            {"timeStamp": "2026-11-22T09:01:00Z"},
        ]

    def test_of_all_in_a_region(self, cloud: Cloud) -> None:
        start = int(self.NOW.timestamp())
        here, there = cloud.compute.machine("here"), cloud.compute.machine("there", location="eastus")
        for machine in (here, there):
            cloud.monitor.push(machine, "Percentage CPU", [(start, 5.0)])

        (told,) = asked(
            cloud,
            "GET",
            f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Insights/metrics",
            "api-version=2024-02-01&region=westeurope&metricnamespace=Microsoft.Compute/virtualMachines"
            "&metricnames=Percentage CPU&timespan=2026-11-22T09:00:00Z/2026-11-22T09:01:00Z"
            "&$filter=Microsoft.ResourceId eq '*'",
        )["value"]

        assert [one["metadatavalues"][0]["value"] for one in told["timeseries"]] == [here.lower()]


class TestPrices:
    def found(self, cloud: Cloud, wanted: str) -> list[Any]:
        reply = cloud.reply("GET", "/api/retail/prices", f"$filter={wanted}", {}, b"")
        assert reply.status == 200
        items: list[Any] = json.loads(reply.body)["Items"]
        return items

    def test_a_filter(self, cloud: Cloud) -> None:
        found = self.found(
            cloud,
            "serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq 'westeurope' and "
            "(armSkuName eq 'Standard_NC24ads_A100_v4' or armSkuName eq 'Standard_NC4as_T4_v3') and "
            "contains(meterName, 'Spot')",
        )
        assert sorted(item["retailPrice"] for item in found) == [0.2254, 1.6713]

    def test_the_case_of_values_counts(self, cloud: Cloud) -> None:
        assert self.found(cloud, "armSkuName eq 'standard_nc24ads_a100_v4'") == []

    def test_pages(self, cloud: Cloud) -> None:
        cloud.prices.most_per_page = 100
        first = json.loads(cloud.reply("GET", "/api/retail/prices", "", {}, b"").body)
        path, _, query = first["NextPageLink"].removeprefix(cloud.endpoint).partition("?")
        second = json.loads(cloud.reply("GET", path, query, {}, b"").body)
        assert [first["Count"], second["Count"], second["NextPageLink"]] == [100, len(cloud.prices.items) - 100, None]


def test_an_answer_with_a_field_that_the_sdk_does_not_know_is_a_mistake(cloud: Cloud) -> None:
    machine = cloud.compute.machine(properties={"gpuCount": 8})
    reply = cloud.reply("GET", machine, "api-version=2026-04-01", {"authorization": "Bearer some"}, b"")
    assert reply.status == 500
    assert cloud.bugs == ["VirtualMachines_Get: VirtualMachine.properties: VirtualMachineProperties has no gpuCount"]
    cloud.bugs.clear()
