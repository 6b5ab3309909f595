"""The Azure of these tests is honest: Azure's own client reads it, and what it does is what Azure does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core import exceptions
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient

from tests.providers.azure.cloud import SUBSCRIPTION, Cloud
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
