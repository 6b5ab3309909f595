"""The Google Cloud of these tests is honest: Google's own client reads it, and what it does is what Google does."""

from __future__ import annotations

from typing import Any

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from tests.providers.gcp.cloud import Cloud
from tests.providers.gcp.cloud_operations import Failure

P, Z = "research", "us-central1-a"


def client(kind: Any, cloud: Cloud) -> Any:
    return kind(credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.endpoint})


@pytest.fixture
def instances(cloud: Cloud) -> Any:
    return client(compute_v1.InstancesClient, cloud)


@pytest.fixture
def operations(cloud: Cloud) -> Any:
    return client(compute_v1.ZoneOperationsClient, cloud)


def test_the_sdk_reads_a_machine(cloud: Cloud, instances: Any) -> None:
    cloud.compute.machine("trainer", machine_type="a2-ultragpu-1g", labels={"team": "nlp"}, provisioning="SPOT")

    read = instances.get(project=P, zone=Z, instance="trainer")

    assert (read.name, read.status, dict(read.labels)) == ("trainer", "RUNNING", {"team": "nlp"})
    assert read.scheduling.provisioning_model == "SPOT"
    assert [disk.type_ for disk in read.disks] == ["PERSISTENT", "SCRATCH"]


def test_a_machine_stops_when_its_operation_ends(cloud: Cloud, instances: Any, operations: Any) -> None:
    path = cloud.compute.machine()

    operation = instances.stop_unary(project=P, zone=Z, instance="trainer")

    assert (operation.status.name, cloud.compute.status(path)) == ("RUNNING", "STOPPING")
    ended = operations.wait(project=P, zone=Z, operation=operation.name)
    assert (ended.status.name, cloud.compute.status(path)) == ("DONE", "TERMINATED")


def test_an_operation_fails_late(cloud: Cloud, instances: Any, operations: Any) -> None:
    path = cloud.compute.machine(status="TERMINATED")
    cloud.operations.fail_next("start", Failure(code="ZONE_RESOURCE_POOL_EXHAUSTED", message="No room.", status=503))

    operation = instances.start_unary(project=P, zone=Z, instance="trainer")
    ended = operations.get(project=P, zone=Z, operation=operation.name)

    assert ended.error.errors[0].code == "ZONE_RESOURCE_POOL_EXHAUSTED"
    assert (ended.http_error_status_code, cloud.compute.status(path)) == (503, "TERMINATED")


def test_a_local_ssd_needs_a_decision(cloud: Cloud, instances: Any) -> None:
    path = cloud.compute.machine(local_ssds=1)

    with pytest.raises(exceptions.BadRequest, match="undefined value for `discard-local-ssd`"):
        instances.stop_unary(project=P, zone=Z, instance="trainer")
    instances.stop_unary(
        request=compute_v1.StopInstanceRequest(project=P, zone=Z, instance="trainer", discard_local_ssd=True)
    )

    assert cloud.compute.status(path) == "STOPPING"


def test_all_pages_together_are_the_whole_list(cloud: Cloud, instances: Any) -> None:
    paths = {
        cloud.compute.machine(f"m{number}", zone=zone)
        for zone in ("us-central1-a", "europe-west4-b")
        for number in range(3)
    }
    cloud.most_per_page = 2

    found = {
        f"projects/{P}/{scope}/instances/{machine.name}"
        for scope, scoped in instances.aggregated_list(project=P)
        for machine in scoped.instances
    }

    assert found == paths
    assert cloud.counted["compute.instances.aggregatedList"] == 3
