"""The Google Cloud of these tests is honest: Google's own clients work with it, and it does and says what Google does.

Compute Engine is driven by `google-cloud-compute`, everything else by `google-api-python-client`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import compute_v1
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

from tests.providers.gcp import discovery
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Refusal, Reply, answer
from tests.providers.gcp.cloud_operations import no_capacity
from tests.real_data import REAL_DATA, needs

P, Z = "research", "us-central1-a"
AT = {"project": P, "zone": Z}
ONE = {**AT, "instance": "trainer"}
HERE = f"/compute/v1/projects/{P}/zones/{Z}"
ALL = f"/compute/v1/projects/{P}/aggregated/instances"
EVERYWHERE = f"projects/{P}/locations/-"
ROBOT, TARGET = "curfew@research.iam.gserviceaccount.com", "reader@research.iam.gserviceaccount.com"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
ONCE, AGAIN = "7f2e5a60-3b0c-4d1e-9a57-0d5a3f1c8e21", "7f2e5a60-3b0c-4d1e-9a57-0d5a3f1c8e22"
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sdk(cloud: Cloud, closing: ExitStack) -> Callable[[Any], Any]:
    """A client of google-cloud-compute."""

    def made(kind: Any, credentials: Any = None) -> Any:
        options = {"api_endpoint": cloud.endpoint}
        client = kind(credentials=credentials or AnonymousCredentials(), client_options=options)
        closing.callback(client.transport.close)
        return client

    return made


@pytest.fixture
def api(cloud: Cloud, closing: ExitStack) -> Callable[[str, str], Any]:
    """One of google-api-python-client."""

    def made(name: str, version: str) -> Any:
        options = {"api_endpoint": cloud.endpoint}
        client = build(name, version, credentials=AnonymousCredentials(), client_options=options, static_discovery=True)
        return closing.enter_context(client)

    return made


@pytest.fixture
def session(closing: ExitStack) -> Callable[[Any], AuthorizedSession]:
    """What google-auth makes of credentials."""
    return lambda credentials: closing.enter_context(AuthorizedSession(credentials))


@pytest.fixture
def instances(sdk: Any) -> Any:
    return sdk(compute_v1.InstancesClient)


@pytest.fixture
def operations(sdk: Any) -> Any:
    return sdk(compute_v1.ZoneOperationsClient)


def get(cloud: Cloud, path: str, **query: Any) -> Any:
    return httpx.get(cloud.endpoint + path, params=query).json()


def said(cloud: Cloud, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Status and words of a refusal."""
    answered = httpx.request(method, cloud.endpoint + path, json=body)
    return answered.status_code, answered.json()["error"]["message"]


def of_kind(told: Any, kind: str) -> Iterator[dict[str, Any]]:
    """Everything of that kind that Google told, less what the recorder added."""
    if isinstance(told, dict) and told.get("kind") == kind:
        yield {name: value for name, value in told.items() if not name.startswith("c7n")}
    elif isinstance(told, dict | list):
        for one in told.values() if isinstance(told, dict) else told:
            yield from of_kind(one, kind)


class TestGooglesSchemas:
    REQUESTS: Mapping[str, tuple[str, str, Any, str]] = {
        "a query parameter that no method has": ("GET", f"{ALL}?colour=red", None, "colour"),
        "a number where a truth value belongs": ("POST", f"{HERE}/instances/x/stop?discardLocalSsd=1", None, "boolean"),
        "words where a number belongs": ("GET", f"{ALL}?maxResults=many", None, "maxResults"),
        "fewer than none": ("GET", f"{ALL}?maxResults=-1", None, "maxResults"),
        "a required parameter left out": ("POST", f"{HERE}/instanceGroupManagers/x/resize", None, "size"),
        "a parameter given twice": ("GET", f"{ALL}?filter=a&filter=b", None, "more than once"),
        "a word that an enumeration does not have": (
            "POST", f"{HERE}/instances/x/setScheduling", {"provisioningModel": "CHEAP"}, "CHEAP",
        ),
        "a field that a message does not have": ("POST", f"{HERE}/instances", {"name": "x", "size": "big"}, "size"),
        "a field deep inside": (
            "POST", f"{HERE}/instances", {"name": "x", "disks": [{"bot": True}]}, "resource.disks[0]",
        ),
        "a list where a message belongs": ("POST", f"{HERE}/instances", {"name": "x", "scheduling": []}, "scheduling"),
        "a name that is none": ("GET", f"{HERE}/instances/Trainer", None, "Must be a match of regex"),
        "a body that is no message": ("POST", "/v2/projects/p/locations/z/nodes/x:stop", "stop", "is no object"),
    }  # fmt: skip

    @pytest.mark.parametrize("case", REQUESTS)
    def test_a_request_that_does_not_keep_to_them_is_refused(self, case: str) -> None:
        method, path, body, words = self.REQUESTS[case]

        with Cloud().serving() as cloud:
            status, message = said(cloud, method, path, body)

        assert (status, words in message, len(cloud.misfits)) == (400, True, 1)

    CHANGES: Mapping[str, Callable[[dict[str, Any]], object]] = {
        "a status that Google does not have": lambda machine: machine.update(status="SLEEPING"),
        "a field that Google does not have": lambda machine: machine.update(owner="ada"),
        "an id that is a number": lambda machine: machine.update(id=7),
        "a list that is none": lambda machine: machine.update(disks={}),
        "a label that is no text": lambda machine: machine.update(labels={"team": 1}),
        "a truth value in words": lambda machine: machine.update(deletionProtection="no"),
        "a number of another kind": lambda machine: machine["disks"][0].update(index=0.5),
        "nothing": lambda machine: machine.update(description=None),
    }

    @pytest.mark.parametrize("case", CHANGES)
    def test_an_answer_that_does_not_is_never_given(self, case: str) -> None:
        with Cloud().serving() as cloud:
            self.CHANGES[case](cloud.compute.instances[cloud.compute.machine()])

            assert httpx.get(f"{cloud.endpoint}{HERE}/instances/trainer").status_code == 500
            assert len(cloud.bugs) == 1

    @pytest.mark.parametrize(
        ("path", "expected"), [(f"/compute/v1/projects/{P}/global/networks", 501), (f"/compute/v2/projects/{P}", 404)]
    )
    def test_what_nobody_plays_and_what_google_does_not_have(self, path: str, expected: int) -> None:
        with Cloud().serving() as cloud:
            assert (httpx.get(cloud.endpoint + path).status_code, len(cloud.misfits)) == (expected, 1)

    def test_a_client_may_send_nulls_and_numbers_in_their_own_form(self) -> None:
        compute = discovery.service("compute")
        sent = {"maxRunDuration": {"seconds": 3600}, "terminationTime": None}

        assert [*compute.problems({"$ref": "Scheduling"}, sent, at="resource", asked_for="x")] == []
        assert len([*compute.problems({"$ref": "Scheduling"}, sent, at="answer", asked_for=None)]) == 2

    @needs("cloud_api/gcp_flights")
    @pytest.mark.parametrize(("kind", "schema"), [("compute#instance", "Instance"), ("compute#operation", "Operation")])
    def test_what_google_really_answered_keeps_to_them_and_looks_like_ours(
        self, cloud: Cloud, kind: str, schema: str
    ) -> None:
        recorded = [
            found
            for path in sorted((REAL_DATA / "cloud_api/gcp_flights").glob("*/*.json"))
            for found in of_kind(json.loads(path.read_text())["body"], kind)
        ]
        assert len(recorded) > 5
        for body in recorded:
            assert [*discovery.service("compute").problems({"$ref": schema}, body, at="answer", asked_for=None)] == []

        cloud.compute.machine()
        machine = get(cloud, f"{HERE}/instances/trainer")
        ours = machine if schema == "Instance" else httpx.post(f"{cloud.endpoint}{HERE}/instances/trainer/stop").json()

        always = frozenset.intersection(*(frozenset(body) for body in recorded))
        assert always <= ours.keys()


class TestMachines:
    def test_the_sdk_reads_one(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine(
            machine_type="a2-ultragpu-1g", labels={"team": "nlp"}, provisioning="SPOT", metadata={"owner": "ada"}
        )

        read = instances.get(**ONE)

        assert (read.name, read.status, dict(read.labels)) == ("trainer", "RUNNING", {"team": "nlp"})
        assert (read.scheduling.provisioning_model, read.scheduling.preemptible) == ("SPOT", True)
        assert [disk.type_ for disk in read.disks] == ["PERSISTENT", "SCRATCH"]
        assert [(item.key, item.value) for item in read.metadata.items] == [("owner", "ada")]
        assert instances.get(**{**ONE, "instance": str(read.id)}).name == "trainer"

    def test_all_pages_together_are_the_whole_list(self, cloud: Cloud, instances: Any) -> None:
        zones = ("us-central1-a", "europe-west4-b")
        paths = {cloud.compute.machine(f"m{number}", zone=zone) for zone in zones for number in range(3)}
        cloud.most_per_page = 2

        found = [
            f"projects/{P}/{scope}/instances/{machine.name}"
            for scope, scoped in instances.aggregated_list(project=P)
            for machine in scoped.instances
        ]

        assert sorted(found) == sorted(paths)
        assert cloud.counted["compute.instances.aggregatedList"] == 3

    def test_a_page_says_which_zones_have_nothing_on_it(self, cloud: Cloud) -> None:
        cloud.compute.machine()

        items = get(cloud, ALL)["items"]

        assert [scope for scope in items if "instances" in items[scope]] == [f"zones/{Z}"]
        assert items["zones/us-east4-a"]["warning"]["code"] == "NO_RESULTS_ON_PAGE"
        assert len(items) == len(cloud.zones)

    def test_the_next_page_holds_even_when_the_last_machine_of_this_one_goes(self, cloud: Cloud) -> None:
        paths = [cloud.compute.machine(name) for name in ("a", "b", "c")]
        cloud.most_per_page = 2

        token = get(cloud, f"{HERE}/instances")["nextPageToken"]
        cloud.compute.vanish(paths[1])

        assert [one["name"] for one in get(cloud, f"{HERE}/instances", pageToken=token)["items"]] == ["c"]
        assert said(cloud, "GET", f"{ALL}?pageToken={token}")[0] == 400

    FILTERS: Mapping[str, set[str]] = {
        "status = RUNNING": {"big", "spot"},
        'status="TERMINATED"': {"off"},
        "(status = RUNNING) (labels.team = nlp)": {"big"},
        "labels.team:* AND NOT status=RUNNING": {"off"},
        "status = TERMINATED OR scheduling.preemptible = true": {"off", "spot"},
        "name eq '.*o.*'": {"spot", "off"},
        "(status != RUNNING)": {"off"},
    }

    @pytest.mark.parametrize("expression", FILTERS)
    def test_filters(self, cloud: Cloud, expression: str) -> None:
        cloud.compute.machine("big", labels={"team": "nlp"})
        cloud.compute.machine("spot", provisioning="SPOT")
        cloud.compute.machine("off", status="TERMINATED", labels={"team": "vision"})

        found = get(cloud, f"{HERE}/instances", filter=expression)["items"]

        assert {one["name"] for one in found} == self.FILTERS[expression]

    def test_pages_of_what_has_no_pages(self, cloud: Cloud) -> None:
        for name in ("a", "b", "c"):
            cloud.gke.cluster(name)
        cloud.most_per_page = 2

        assert len(get(cloud, f"/v1/{EVERYWHERE}/clusters")["clusters"]) == 3

    def test_a_filter_that_is_none(self, cloud: Cloud) -> None:
        assert "Invalid list filter expression" in said(cloud, "GET", f"{ALL}?filter=status%20RUNNING")[1]

    def test_only_some_fields(self, cloud: Cloud) -> None:
        cloud.compute.machine()
        mask = "nextPageToken,items/*/instances(name,disks/type),items/*/warning/code"

        items = get(cloud, ALL, fields=mask)["items"]

        assert items[f"zones/{Z}"] == {"instances": [{"name": "trainer", "disks": [{"type": "PERSISTENT"}]}]}
        assert items["zones/us-east4-a"] == {"warning": {"code": "NO_RESULTS_ON_PAGE"}}

    @pytest.mark.parametrize(
        "mask", ["items/instances/name", "items/*/instances(nme)", "items(", "items/*//name", "items)", "items/", ","]
    )
    def test_fields_that_there_are_not(self, mask: str) -> None:
        with Cloud().serving() as cloud:
            status, words = said(cloud, "GET", f"{ALL}?fields={mask}")

        assert (status, "Invalid field selection" in words, len(cloud.misfits)) == (400, True, 1)

    def test_partial_success_may_still_be_asked_for(self, cloud: Cloud) -> None:
        assert "items" in get(cloud, ALL, returnPartialSuccess="true")

    def test_creating_one(self, cloud: Cloud, instances: Any, operations: Any) -> None:
        wanted = compute_v1.Instance(
            name="trainer",
            machine_type=f"zones/{Z}/machineTypes/n1-standard-8",
            guest_accelerators=[
                compute_v1.AcceleratorConfig(
                    accelerator_type=f"zones/{Z}/acceleratorTypes/nvidia-tesla-t4", accelerator_count=2
                )
            ],
            scheduling=compute_v1.Scheduling(
                on_host_maintenance="TERMINATE", max_run_duration=compute_v1.Duration(seconds=3600)
            ),
        )

        operation = instances.insert_unary(**AT, instance_resource=wanted)
        before = instances.get(**ONE).status
        operations.wait(**AT, operation=operation.name)
        read = instances.get(**ONE)

        assert (before, read.status) == ("PROVISIONING", "RUNNING")
        assert read.guest_accelerators[0].accelerator_type.endswith(f"zones/{Z}/acceleratorTypes/nvidia-tesla-t4")
        ends = datetime.fromisoformat(read.resource_status.scheduling.termination_timestamp)
        assert ends - datetime.fromisoformat(read.last_start_timestamp) == timedelta(hours=1)
        with pytest.raises(exceptions.Conflict, match="already exists"):
            instances.insert_unary(**AT, instance_resource=wanted)

    def test_gpus_cannot_be_migrated(self, instances: Any) -> None:
        wanted = compute_v1.Instance(name="trainer", machine_type=f"zones/{Z}/machineTypes/g2-standard-4")

        with pytest.raises(exceptions.BadRequest, match="do not support live migration"):
            instances.insert_unary(**AT, instance_resource=wanted)

    def test_one_that_is_not_there(self, instances: Any) -> None:
        with pytest.raises(exceptions.NotFound, match=f"projects/{P}/zones/{Z}/instances/trainer' was not found"):
            instances.get(**ONE)
        with pytest.raises(exceptions.NotFound, match="'projects/elsewhere' was not found"):
            instances.get(**{**ONE, "project": "elsewhere"})
        with pytest.raises(exceptions.BadRequest, match="Unknown zone"):
            instances.get(**{**ONE, "zone": "us-central1-x"})

    def test_a_project_by_its_number(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()

        assert instances.get(**{**ONE, "project": cloud.projects[P].number}).name == "trainer"


class TestStoppingAndStarting:
    def test_a_machine_is_stopped_when_the_operation_ends(self, cloud: Cloud, instances: Any, operations: Any) -> None:
        path = cloud.compute.machine()

        operation = instances.stop_unary(**ONE)

        assert (operation.status.name, cloud.compute.status(path)) == ("RUNNING", "STOPPING")
        ended = operations.wait(**AT, operation=operation.name)
        assert (ended.status.name, cloud.compute.status(path)) == ("DONE", "TERMINATED")
        assert instances.get(**ONE).last_stop_timestamp

    ACTS: Mapping[str, tuple[str, str, str]] = {
        "stop": ("RUNNING", "STOPPING", "TERMINATED"),
        "start": ("TERMINATED", "STAGING", "RUNNING"),
        "suspend": ("RUNNING", "SUSPENDING", "SUSPENDED"),
        "resume": ("SUSPENDED", "STAGING", "RUNNING"),
    }

    @pytest.mark.parametrize("act", ACTS)
    def test_the_ways_of_a_machine(self, cloud: Cloud, instances: Any, act: str) -> None:
        path = cloud.compute.machine(machine_type="n2-standard-8", status=self.ACTS[act][0])
        cloud.operations.looks = None

        getattr(instances, f"{act}_unary")(**ONE)
        through = cloud.compute.status(path)
        cloud.settle()

        assert (through, cloud.compute.status(path)) == self.ACTS[act][1:]

    @pytest.mark.parametrize("act", ACTS)
    def test_what_fails_late_leaves_it_as_it_was(self, cloud: Cloud, instances: Any, operations: Any, act: str) -> None:
        path = cloud.compute.machine(machine_type="n2-standard-8", status=self.ACTS[act][0])
        cloud.operations.fail_next(act, no_capacity(Z), target=path)

        operation = getattr(instances, f"{act}_unary")(**ONE)
        ended = operations.get(**AT, operation=operation.name)

        assert (ended.status.name, ended.http_error_status_code) == ("DONE", 503)
        assert ended.error.errors[0].code == "ZONE_RESOURCE_POOL_EXHAUSTED"
        assert cloud.compute.status(path) == self.ACTS[act][0]

    def test_an_operation_takes_as_many_looks_as_it_is_told(
        self, cloud: Cloud, instances: Any, operations: Any
    ) -> None:
        cloud.compute.machine()
        cloud.operations.looks = 3

        name = instances.stop_unary(**ONE).name

        assert [operations.get(**AT, operation=name).status.name for _ in range(3)] == ["RUNNING", "RUNNING", "DONE"]

    @pytest.mark.parametrize(("act", "status"), [("stop", "TERMINATED"), ("start", "RUNNING")])
    def test_what_is_so_already_is_no_error(self, cloud: Cloud, instances: Any, act: str, status: str) -> None:
        path = cloud.compute.machine(status=status)

        getattr(instances, f"{act}_unary")(**ONE)
        cloud.settle()

        assert cloud.compute.status(path) == status

    def test_another_act_has_to_wait(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        instances.stop_unary(**ONE)

        with pytest.raises(exceptions.BadRequest, match="is not ready"):
            instances.start_unary(**ONE)

    def test_local_ssds_need_a_decision(self, cloud: Cloud, instances: Any) -> None:
        path = cloud.compute.machine(local_ssds=1)

        with pytest.raises(exceptions.BadRequest, match="undefined value for `discard-local-ssd`"):
            instances.stop_unary(**ONE)

        assert cloud.compute.status(path) == "RUNNING"

    @pytest.mark.parametrize("discard", [True, False])
    def test_what_becomes_of_local_ssds(self, cloud: Cloud, instances: Any, discard: bool) -> None:
        path = cloud.compute.machine(local_ssds=1)

        instances.stop_unary(request=compute_v1.StopInstanceRequest(**ONE, discard_local_ssd=discard))
        cloud.settle()

        assert cloud.compute.discarded == ([path] if discard else [])
        assert instances.get(**ONE).disks[1].saved_state == ("" if discard else "PRESERVED")

    def test_gpus_cannot_be_suspended(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()

        with pytest.raises(exceptions.BadRequest, match="guest accelerators"):
            instances.suspend_unary(**ONE)

    def test_what_is_off_cannot_be_suspended(self, cloud: Cloud, instances: Any, operations: Any) -> None:
        cloud.compute.machine(machine_type="n2-standard-8", status="TERMINATED")

        ended = operations.wait(**AT, operation=instances.suspend_unary(**ONE).name)

        assert ended.error.errors[0].code == "UNSUPPORTED_OPERATION"

    def test_deleting_one(self, cloud: Cloud, instances: Any) -> None:
        path = cloud.compute.machine(protected=True)

        with pytest.raises(exceptions.BadRequest, match="protected against deletion"):
            instances.delete_unary(**ONE)
        instances.set_deletion_protection_unary(
            request=compute_v1.SetDeletionProtectionInstanceRequest(
                project=P, zone=Z, resource="trainer", deletion_protection=False
            )
        )
        cloud.settle()
        instances.delete_unary(**ONE)
        cloud.settle()

        assert cloud.compute.status(path) is None


class TestChangingAMachine:
    def test_labels_by_their_fingerprint(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine(labels={"team": "nlp"})
        mark = instances.get(**ONE).label_fingerprint
        change = compute_v1.InstancesSetLabelsRequest(label_fingerprint=mark, labels={"team": "vision"})

        instances.set_labels_unary(**ONE, instances_set_labels_request_resource=change)
        cloud.settle()

        assert dict(instances.get(**ONE).labels) == {"team": "vision"}
        with pytest.raises(exceptions.PreconditionFailed):
            instances.set_labels_unary(**ONE, instances_set_labels_request_resource=change)

    def test_metadata_by_its_fingerprint(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        stale = compute_v1.Metadata(fingerprint="AAAA")

        with pytest.raises(exceptions.PreconditionFailed):
            instances.set_metadata_unary(**ONE, metadata_resource=stale)

    def test_scheduling_only_while_it_is_stopped(self, cloud: Cloud, instances: Any) -> None:
        path = cloud.compute.machine()
        limit = compute_v1.Scheduling(max_run_duration=compute_v1.Duration(seconds=3600))

        with pytest.raises(exceptions.BadRequest, match="stopped"):
            instances.set_scheduling_unary(**ONE, scheduling_resource=limit)
        cloud.compute.enter(cloud.compute.instances[path], "TERMINATED")
        instances.set_scheduling_unary(**ONE, scheduling_resource=limit)
        cloud.settle()

        assert instances.get(**ONE).scheduling.max_run_duration.seconds == 3600


class TestAskingTwice:
    def test_the_same_request_is_done_once(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        request = compute_v1.StopInstanceRequest(**ONE, request_id=ONCE)

        first = instances.stop_unary(request=request)
        cloud.settle()
        second = instances.stop_unary(request=request)

        assert (first.name, first.status.name) == (second.name, "RUNNING")
        assert (second.status.name, second.client_operation_id) == ("DONE", ONCE)

    def test_the_id_of_another_request(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        instances.stop_unary(request=compute_v1.StopInstanceRequest(**ONE, request_id=ONCE))

        with pytest.raises(exceptions.BadRequest, match="another request"):
            instances.delete_unary(request=compute_v1.DeleteInstanceRequest(**ONE, request_id=ONCE))

    @pytest.mark.parametrize("text", ["once", "00000000-0000-0000-0000-000000000000"])
    def test_what_is_no_id(self, cloud: Cloud, instances: Any, text: str) -> None:
        cloud.compute.machine()

        with pytest.raises(exceptions.BadRequest, match="valid UUID"):
            instances.stop_unary(request=compute_v1.StopInstanceRequest(**ONE, request_id=text))

    def test_a_refused_request_may_be_asked_again(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine(local_ssds=1)
        request = compute_v1.StopInstanceRequest(**ONE, request_id=ONCE)
        with pytest.raises(exceptions.BadRequest):
            instances.stop_unary(request=request)
        request.discard_local_ssd = True
        instances.stop_unary(request=request)
        request.request_id = AGAIN

        assert instances.stop_unary(request=request).name != ""


class TestWhatGoogleOffers:
    def test_machine_types_say_what_accelerators_they_come_with(self, cloud: Cloud, sdk: Any) -> None:
        client = sdk(compute_v1.MachineTypesClient)

        found = {
            kind.name: [(one.guest_accelerator_type, one.guest_accelerator_count) for one in kind.accelerators]
            for scope, scoped in client.aggregated_list(project=P)
            for kind in scoped.machine_types
            if scope == f"zones/{Z}"
        }

        assert found["a3-highgpu-8g"] == [("nvidia-h100-80gb", 8)]
        assert found["n1-standard-8"] == []
        assert client.get(**AT, machine_type="a2-highgpu-1g").guest_cpus == 12

    def test_accelerator_types_by_zone(self, cloud: Cloud, sdk: Any) -> None:
        cloud.catalogue.lacks[Z] = {"nvidia-b200"}
        client = sdk(compute_v1.AcceleratorTypesClient)

        assert "nvidia-b200" in {one.name for one in client.list(project=P, zone="us-east4-a")}
        with pytest.raises(exceptions.NotFound):
            client.get(**AT, accelerator_type="nvidia-b200")


class TestInstanceGroups:
    def test_a_zonal_one_loses_its_machines(self, cloud: Cloud, operations: Any, sdk: Any) -> None:
        path = cloud.groups.group(size=2)
        client = sdk(compute_v1.InstanceGroupManagersClient)
        named = {**AT, "instance_group_manager": "trainers"}

        members = [(one.instance_status, one.current_action) for one in client.list_managed_instances(**named)]
        operation = client.resize_unary(**named, size=0)
        operations.wait(**AT, operation=operation.name)

        assert members == [("RUNNING", "NONE")] * 2
        assert (cloud.groups.size(path), client.get(**named).current_actions.deleting) == (0, 2)
        assert client.get(**named).status.is_stable is False
        cloud.settle()
        assert (client.get(**named).status.is_stable, cloud.compute.instances) == (True, {})

    def test_members_know_who_made_them(self, cloud: Cloud, instances: Any) -> None:
        path = cloud.groups.group(size=1, machine_type="g2-standard-4")
        name = cloud.groups.members[path][0].rpartition("/")[2]

        made_by = {item.key: item.value for item in instances.get(**AT, instance=name).metadata.items}["created-by"]

        assert made_by == f"projects/{cloud.projects[P].number}/zones/{Z}/instanceGroupManagers/trainers"

    def test_a_member_that_is_stopped_comes_back(self, cloud: Cloud, instances: Any) -> None:
        path = cloud.groups.group(size=1)
        (member,) = cloud.groups.members[path]

        instances.stop_unary(**AT, instance=member.rpartition("/")[2])
        cloud.settle()

        assert cloud.compute.status(member) == "RUNNING"

    def test_an_autoscaled_regional_one_cannot_be_resized_until_the_autoscaler_is_off(
        self, cloud: Cloud, sdk: Any
    ) -> None:
        path = cloud.groups.group(region="us-central1", size=3, autoscaled=(1, 5))
        groups = sdk(compute_v1.RegionInstanceGroupManagersClient)
        named = {"project": P, "region": "us-central1", "instance_group_manager": "trainers"}

        with pytest.raises(exceptions.PreconditionFailed, match="set autoscaling policy mode to OFF"):
            groups.resize_unary(**named, size=0)
        self._autoscaling(cloud, sdk, "OFF")
        groups.resize_unary(**named, size=0)
        cloud.settle()
        without = [*cloud.groups.members[path]]
        self._autoscaling(cloud, sdk, "ON")

        assert (without, len(cloud.groups.members[path])) == ([], 1)

    def _autoscaling(self, cloud: Cloud, sdk: Any, mode: str) -> None:
        policy = compute_v1.AutoscalingPolicy(mode=mode)
        sdk(compute_v1.RegionAutoscalersClient).patch_unary(
            project=P,
            region="us-central1",
            autoscaler_resource=compute_v1.Autoscaler(name="trainers", autoscaling_policy=policy),
        )
        cloud.settle()

    def test_all_of_them_zonal_and_regional(self, cloud: Cloud, sdk: Any) -> None:
        cloud.groups.group("here", autoscaled=(0, 3))
        cloud.groups.group("there", region="europe-west4", size=1)

        groups = sdk(compute_v1.InstanceGroupManagersClient).aggregated_list(project=P)
        scalers = sdk(compute_v1.AutoscalersClient).aggregated_list(project=P)

        found = {scope: one.name for scope, told in groups for one in told.instance_group_managers}
        assert found == {f"zones/{Z}": "here", "regions/europe-west4": "there"}
        assert [one.autoscaling_policy.mode for _, told in scalers for one in told.autoscalers] == ["ON"]

    def test_a_regional_one_is_patched(self, cloud: Cloud, sdk: Any) -> None:
        path = cloud.groups.group(region="us-central1", size=3)
        named = {"project": P, "region": "us-central1"}
        wanted = compute_v1.InstanceGroupManager(target_size=1, description="smaller")

        operation = sdk(compute_v1.RegionInstanceGroupManagersClient).patch_unary(
            **named, instance_group_manager="trainers", instance_group_manager_resource=wanted
        )
        ended = sdk(compute_v1.RegionOperationsClient).wait(**named, operation=operation.name)
        cloud.settle()

        assert (ended.status.name, cloud.groups.size(path), len(cloud.groups.members[path])) == ("DONE", 1, 1)
        assert cloud.groups.groups[path]["description"] == "smaller"

    def test_a_resize_that_fails_late(self, cloud: Cloud, operations: Any, sdk: Any) -> None:
        path = cloud.groups.group(size=2)
        cloud.operations.fail_next("resize", no_capacity(Z))
        client = sdk(compute_v1.InstanceGroupManagersClient)

        operation = client.resize_unary(**AT, instance_group_manager="trainers", size=0)

        assert operations.wait(**AT, operation=operation.name).error.errors
        assert cloud.groups.size(path) == 2


class TestKubernetesEngine:
    def test_a_pool_is_told_another_size(self, cloud: Cloud, api: Any) -> None:
        cluster = cloud.gke.cluster()
        pool = cloud.gke.pool(cluster, size=2, autoscaled=(1, 4))
        gke = api("container", "v1").projects().locations()
        pools = gke.clusters().nodePools()

        listed = gke.clusters().list(parent=EVERYWHERE).execute()["clusters"][0]
        operation = pools.setAutoscaling(name=pool, body={"autoscaling": {"enabled": False}}).execute()
        with pytest.raises(HttpError, match="currently updating cluster main"):
            pools.setSize(name=pool, body={"nodeCount": 0}).execute()
        name = f"projects/{P}/locations/us-central1/operations/{operation['name']}"
        ended = gke.operations().get(name=name).execute()
        pools.setSize(name=pool, body={"nodeCount": 0}).execute()
        cloud.settle()

        assert (listed["currentNodeCount"], len(listed["nodePools"][0]["instanceGroupUrls"])) == (6, 3)
        assert ended["status"] == "DONE"
        assert cloud.compute.instances == {}

    def test_an_autoscaled_pool_grows_to_its_least_size_again(self, cloud: Cloud, api: Any) -> None:
        pool = cloud.gke.pool(cloud.gke.cluster(location=Z), size=2, autoscaled=(1, 4))
        pools = api("container", "v1").projects().locations().clusters().nodePools()

        pools.setSize(name=pool, body={"nodeCount": 0}).execute()
        cloud.settle()

        assert [cloud.groups.size(group) for group in cloud.gke.groups(pool)] == [1]

    def test_nodes_are_known_as_such(self, cloud: Cloud) -> None:
        cloud.gke.pool(cloud.gke.cluster(location=Z), "gpus")

        (node,) = get(cloud, f"{HERE}/instances")["items"]

        assert node["labels"]["goog-k8s-node-pool-name"] == "gpus"


class TestTpus:
    def test_one_is_stopped_and_started(self, cloud: Cloud, api: Any) -> None:
        node = cloud.tpus.node()
        tpu = api("tpu", "v2").projects().locations()

        operation = tpu.nodes().stop(name=node).execute()
        through = tpu.nodes().get(name=node).execute()["state"]
        ended = tpu.operations().get(name=operation["name"]).execute()
        tpu.nodes().start(name=node).execute()
        cloud.settle()

        assert (operation["done"], through) == (False, "STOPPING")
        assert (ended["done"], ended["response"]["state"]) == (True, "STOPPED")
        assert tpu.nodes().list(parent=EVERYWHERE).execute()["nodes"][0]["state"] == "READY"

    def test_a_slice_cannot_be_stopped(self, cloud: Cloud, api: Any) -> None:
        node = cloud.tpus.node(hosts=4, accelerator_type="v5litepod-16")

        with pytest.raises(HttpError, match="single TPU nodes"):
            api("tpu", "v2").projects().locations().nodes().stop(name=node).execute()

    def test_it_fails_late(self, cloud: Cloud, api: Any) -> None:
        node = cloud.tpus.node(state="STOPPED")
        tpu = api("tpu", "v2").projects().locations()
        cloud.operations.fail_next("start", no_capacity(Z))

        operation = tpu.nodes().start(name=node).execute()

        assert tpu.operations().get(name=operation["name"]).execute()["error"]["code"] == 14
        assert cloud.tpus.nodes[node]["state"] == "STOPPED"


class TestNotebooks:
    def test_one_is_stopped_with_its_machine(self, cloud: Cloud, api: Any) -> None:
        notebook = cloud.workbench.notebook(machine_type="n1-standard-4", gpus=("nvidia-tesla-t4", 1))
        machine = cloud.workbench.machine_of(notebook)
        workbench = api("notebooks", "v2").projects().locations()

        (listed,) = workbench.instances().list(parent=EVERYWHERE).execute()["instances"]
        operation = workbench.instances().stop(name=notebook).execute()
        through = cloud.compute.status(machine)
        ended = workbench.operations().get(name=operation["name"]).execute()

        assert (listed["state"], through) == ("ACTIVE", "STOPPING")
        assert listed["gceSetup"]["acceleratorConfigs"] == [{"type": "NVIDIA_TESLA_T4", "coreCount": "1"}]
        assert listed["gceSetup"]["instanceId"] == cloud.compute.instances[machine]["id"]
        assert (ended["response"]["state"], cloud.compute.status(machine)) == ("STOPPED", "TERMINATED")

    def test_its_machine_can_be_stopped_beside_it(self, cloud: Cloud, instances: Any, api: Any) -> None:
        cloud.workbench.notebook()
        workbench = api("notebooks", "v2").projects().locations()

        instances.stop_unary(**AT, instance="lab")
        cloud.settle()

        assert workbench.instances().list(parent=EVERYWHERE).execute()["instances"][0]["state"] == "STOPPED"


class TestMonitoring:
    BUSY = 'metric.type = "agent.googleapis.com/gpu/utilization"'

    def series(self, cloud: Cloud, filter: str = BUSY, minutes: int = 10, **query: Any) -> Any:
        said: dict[str, Any] = {
            "interval.startTime": f"{NOW - timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}",
            "interval.endTime": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
            **{name.replace("__", "."): value for name, value in query.items()},
        }
        return get(cloud, f"/v3/projects/{P}/timeSeries", filter=filter, **said)

    def pushed(self, cloud: Cloud, name: str = "trainer", gpu: str = "0", minutes: int = 10) -> str:
        """One sample a minute: as many percent as it is minutes old."""
        path = f"projects/{P}/zones/{Z}/instances/{name}"
        if path not in cloud.compute.instances:
            cloud.compute.machine(name)
        now = NOW.timestamp()
        cloud.monitoring.push(
            path, [(now - 60 * age, float(age)) for age in range(minutes)], labels={"gpu_number": gpu}
        )
        return str(cloud.compute.instances[path]["id"])

    def values(self, answered: Any) -> list[list[float]]:
        return [[point["value"]["doubleValue"] for point in one["points"]] for one in answered["timeSeries"]]

    def test_the_newest_first_after_the_start_up_to_the_end(self, cloud: Cloud) -> None:
        self.pushed(cloud)

        assert self.values(self.series(cloud, minutes=3)) == [[0, 1, 2]]

    def test_pages_are_counted_in_points(self, cloud: Cloud) -> None:
        self.pushed(cloud, gpu="0", minutes=3)
        self.pushed(cloud, gpu="1", minutes=3)

        first = self.series(cloud, pageSize=4)
        second = self.series(cloud, pageSize=4, pageToken=first["nextPageToken"])

        assert (self.values(first), self.values(second)) == ([[0, 1, 2], [0]], [[1, 2]])
        assert "nextPageToken" not in second

    def test_machines_by_their_ids(self, cloud: Cloud) -> None:
        ids = [self.pushed(cloud, name) for name in ("a", "b", "c")]

        wanted = ", ".join(f'"{one}"' for one in ids[:2])
        found = self.series(cloud, f"{self.BUSY} AND resource.labels.instance_id = one_of({wanted})")["timeSeries"]

        assert {one["resource"]["labels"]["instance_id"] for one in found} == {*ids[:2]}

    @pytest.mark.parametrize(
        ("condition", "gpus"),
        [
            ('metric.labels.gpu_number = "1"', {"1"}),
            ('metric.label.gpu_number != "1"', {"0", "2"}),
            ('(metric.labels.gpu_number = "1" OR metric.labels.gpu_number = "2")', {"1", "2"}),
            ('resource.type = "gce_instance" AND resource.labels.zone = starts_with("us-")', {"0", "1", "2"}),
            ('metric.labels.gpu_number = monitoring.regex.full_match("[02]")', {"0", "2"}),
        ],
    )
    def test_filters(self, cloud: Cloud, condition: str, gpus: set[str]) -> None:
        for gpu in ("0", "1", "2"):
            self.pushed(cloud, gpu=gpu)

        found = self.series(cloud, f"{self.BUSY} AND {condition}")["timeSeries"]

        assert {one["metric"]["labels"]["gpu_number"] for one in found} == gpus

    @pytest.mark.parametrize(
        ("aligner", "expected"), [("MEAN", [2, 7]), ("MAX", [4, 9]), ("SUM", [10, 35]), ("COUNT", [5, 5])]
    )
    def test_aligned(self, cloud: Cloud, aligner: str, expected: list[float]) -> None:
        self.pushed(cloud)

        found = self.series(
            cloud, aggregation__alignmentPeriod="300s", aggregation__perSeriesAligner=f"ALIGN_{aligner}"
        )

        assert self.values(found) == [expected]

    def test_reduced_by_machine(self, cloud: Cloud) -> None:
        ids = [self.pushed(cloud, name, gpu) for name in ("a", "b") for gpu in ("0", "1")]

        found = self.series(
            cloud,
            aggregation__alignmentPeriod="300s",
            aggregation__perSeriesAligner="ALIGN_SUM",
            aggregation__crossSeriesReducer="REDUCE_SUM",
            aggregation__groupByFields="resource.labels.instance_id",
        )

        assert self.values(found) == [[20, 70], [20, 70]]
        assert {one["resource"]["labels"]["instance_id"] for one in found["timeSeries"]} == {*ids}

    @pytest.mark.parametrize(
        ("query", "status", "words"),
        [
            ({"filter": 'resource.type = "gce_instance"'}, 400, "single metric type"),
            ({"filter": 'metric.type = "agent.googleapis.com/gpu/heat"'}, 404, "Cannot find metric"),
            ({"filter": f"{BUSY} AND what"}, 400, "not understood"),
            ({"minutes": -1}, 400, "startTime"),
            ({"aggregation__perSeriesAligner": "ALIGN_MEAN"}, 400, "alignmentPeriod"),
            ({"aggregation__crossSeriesReducer": "REDUCE_SUM"}, 400, "perSeriesAligner"),
        ],
    )
    def test_questions_that_are_none(self, cloud: Cloud, query: dict[str, Any], status: int, words: str) -> None:
        self.pushed(cloud)

        error = self.series(cloud, **query)["error"]

        assert (error["code"], words in error["message"]) == (status, True)

    def test_googles_own_metrics_are_known_everywhere(self, cloud: Cloud) -> None:
        assert self.series(cloud, 'metric.type = "compute.googleapis.com/instance/cpu/utilization"') == {}


class TestPrices:
    def test_the_catalogue_comes_in_pages(self, cloud: Cloud, api: Any) -> None:
        for number in range(3):
            cloud.billing.list(f"Thing {number} GPU running in Americas", "1.25")
        skus = api("cloudbilling", "v1").services().skus()

        request, found = skus.list(parent="services/6F81-5844-456A", pageSize=2), []
        while request is not None:
            told = request.execute()
            found += told["skus"]
            request = skus.list_next(request, told)

        rate = found[0]["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]
        assert [one["description"].split(" GPU")[0] for one in found] == ["Thing 0", "Thing 1", "Thing 2"]
        assert rate == {"currencyCode": "USD", "units": "1", "nanos": 250_000_000}


class TestFoldersAndProjects:
    def test_a_tree(self, cloud: Cloud, api: Any) -> None:
        folder = cloud.accounts.folder("55", parent="organizations/1234567890")
        cloud.add_project("vision", parent=folder)
        cloud.add_project("gone", parent=folder, state="DELETE_REQUESTED")
        manager = api("cloudresourcemanager", "v3")

        def names(told: Any) -> list[str]:
            return [one["projectId"] for one in told.get("projects", [])]

        assert manager.folders().list(parent="organizations/1234567890").execute()["folders"][0]["name"] == folder
        assert names(manager.projects().list(parent="organizations/1234567890").execute()) == [P]
        assert names(manager.projects().list(parent=folder).execute()) == ["vision"]
        assert names(manager.projects().list(parent=folder, showDeleted=True).execute()) == ["vision", "gone"]
        assert names(manager.projects().search(query="state:ACTIVE").execute()) == [P, "vision"]
        with pytest.raises(HttpError, match="does not have permission"):
            manager.projects().list(parent="folders/7").execute()


class TestFaults:
    def test_a_rule_sees_the_call_and_may_answer_it(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        seen: list[Call] = []

        def rule(call: Call) -> Reply | None:
            seen.append(call)
            return answer({"name": "another"}) if call.zone == Z else None

        with cloud.within(rule):
            told = instances.stop_unary(request=compute_v1.StopInstanceRequest(**ONE, discard_local_ssd=True))

        assert told.name == "another"
        assert (seen[0].service, seen[0].method, seen[0].project) == ("compute", "compute.instances.stop", P)
        assert (seen[0].query, seen[0].changes) == ({"discardLocalSsd": True}, True)
        assert instances.get(**ONE).status == "RUNNING"

    def test_it_hangs_up(self, cloud: Cloud) -> None:
        with cloud.unreachable(), pytest.raises(httpx.RemoteProtocolError):
            get(cloud, ALL)
        with cloud.within(lambda call: NO_ANSWER if call.service == "tpu" else None):
            assert "items" in get(cloud, ALL)

    def test_some_refusals_and_then_none(self, cloud: Cloud) -> None:
        cloud.refuse("compute.instances", Refusal(429, "Slowly.", reason="rateLimitExceeded", retry_after=3), times=1)

        first, second = (httpx.get(cloud.endpoint + ALL) for _ in range(2))

        assert (first.status_code, first.headers["Retry-After"], second.status_code) == (429, "3", 200)

    def test_reading_alone(self, cloud: Cloud, instances: Any, operations: Any) -> None:
        cloud.compute.machine()
        name = instances.stop_unary(**ONE).name

        with cloud.read_only():
            with pytest.raises(
                exceptions.Forbidden,
                match=rf"'compute\.instances\.start' permission for 'projects/{P}/zones/{Z}/instances/trainer'",
            ) as refused:
                instances.start_unary(**ONE)
            assert instances.get(**ONE).status == "STOPPING"
            assert operations.wait(**AT, operation=name).status.name == "DONE"

        assert refused.value.errors[0]["reason"] == "forbidden"
        assert refused.value.details[0]["reason"] == "IAM_PERMISSION_DENIED"

    @pytest.mark.parametrize(
        ("permission", "path"),
        [
            ("compute.instances.list", ALL),
            ("compute.instanceGroupManagers.list", f"/compute/v1/projects/{P}/regions/us-east4/instanceGroupManagers"),
            ("container.clusters.list", f"/v1/{EVERYWHERE}/clusters"),
            ("tpu.nodes.list", f"/v2/{EVERYWHERE}/nodes"),
            ("notebooks.instances.list", f"/v2/{EVERYWHERE}/instances"),
            ("monitoring.timeSeries.list", f"/v3/projects/{P}/timeSeries"),
            ("resourcemanager.projects.list", "/v3/projects?parent=organizations/1234567890"),
        ],
    )
    def test_without_one_permission(self, cloud: Cloud, permission: str, path: str) -> None:
        with cloud.without(permission):
            status, words = said(cloud, "GET", path)

        assert (status, permission in words) == (403, True)
        assert httpx.get(cloud.endpoint + path).status_code in {200, 400}

    def test_too_often(self, cloud: Cloud, instances: Any, api: Any) -> None:
        with cloud.throttled():
            with pytest.raises(exceptions.Forbidden, match="Quota exceeded") as refused:
                instances.get(**ONE)
            with pytest.raises(HttpError) as newer:
                api("tpu", "v2").projects().locations().nodes().list(parent=EVERYWHERE).execute()

        assert refused.value.errors[0]["reason"] == "rateLimitExceeded"
        assert newer.value.status_code == 429

    def test_an_api_nobody_enabled(self, cloud: Cloud) -> None:
        cloud.projects[P].disabled.add("tpu")

        told = get(cloud, f"/v2/{EVERYWHERE}/nodes")["error"]

        assert [one.get("reason") for one in told["details"]] == [None, "SERVICE_DISABLED"]

    def test_a_zone_nobody_can_reach(self, cloud: Cloud) -> None:
        cloud.compute.machine()
        cloud.compute.machine("other", zone="us-east4-a")
        cloud.tpus.node()

        with cloud.zone_down(Z):
            told = get(cloud, ALL)
            nodes = get(cloud, f"/v2/{EVERYWHERE}/nodes")
            clusters = get(cloud, f"/v1/{EVERYWHERE}/clusters")
            alone = said(cloud, "GET", f"{HERE}/instances/trainer")

        assert alone[0] == 503
        assert told["items"][f"zones/{Z}"]["warning"]["code"] == "UNREACHABLE"
        assert told["unreachables"] == [f"projects/{P}/zones/{Z}"]
        assert len(told["items"]["zones/us-east4-a"]["instances"]) == 1
        assert nodes == {"unreachable": [f"projects/{P}/locations/{Z}"]}
        assert clusters == {"missingZones": [Z]}
        assert "unreachables" not in get(cloud, ALL)

    def test_it_is_named_on_one_page_only(self, cloud: Cloud) -> None:
        for zone in ("europe-west4-a", "us-central1-a", "us-east4-a"):
            cloud.compute.machine(zone=zone)
        cloud.most_per_page = 1

        with cloud.zone_down("us-central1-a"):
            first = get(cloud, ALL)
            second = get(cloud, ALL, pageToken=first["nextPageToken"])

        assert [bool(one.get("unreachables")) for one in (first, second)].count(True) == 1
        assert "nextPageToken" not in second

    def test_a_snapshot_stays_while_nothing_changes(self, cloud: Cloud, instances: Any) -> None:
        cloud.compute.machine()
        before = cloud.snapshot()

        get(cloud, ALL)
        assert cloud.snapshot() == before
        instances.stop_unary(**ONE)
        assert cloud.snapshot() != before


class TestWhoAsks:
    def key(self, cloud: Cloud, folder: Path) -> Any:
        path = cloud.accounts.key_file(folder, ROBOT)
        return service_account.Credentials.from_service_account_file(str(path), scopes=SCOPES)

    def test_a_key_is_good_for_a_token(self, cloud: Cloud, session: Any, tmp_path: Path) -> None:
        asking = session(self.key(cloud, tmp_path))

        assert asking.get(cloud.endpoint + ALL).status_code == 200
        assert (cloud.calls[-1].caller, cloud.counted["oauth2.token"]) == (ROBOT, 1)

    def test_the_sdk_signs_by_itself(self, cloud: Cloud, sdk: Any, tmp_path: Path) -> None:
        path = cloud.accounts.key_file(tmp_path, ROBOT)
        credentials = service_account.Credentials.from_service_account_file(str(path))

        assert [*sdk(compute_v1.InstancesClient, credentials).list(**AT)] == []
        assert (cloud.calls[-1].caller, cloud.counted["oauth2.token"]) == (ROBOT, 0)

    @pytest.mark.parametrize(
        "headers", [{}, {"Authorization": "Bearer ya29.stolen"}, {"Authorization": "Bearer a.b.c"}]
    )
    def test_without_a_token(self, cloud: Cloud, tmp_path: Path, headers: dict[str, str]) -> None:
        cloud.accounts.key_file(tmp_path)

        assert httpx.get(cloud.endpoint + ALL, headers=headers).status_code == 401

    def test_tokens_expire(self, cloud: Cloud, session: Any, tmp_path: Path) -> None:
        asking = session(self.key(cloud, tmp_path))
        asking.get(cloud.endpoint + ALL)

        cloud.accounts.expire()

        assert asking.get(cloud.endpoint + ALL).status_code == 200
        assert cloud.counted["oauth2.token"] == 2

    def test_a_key_that_was_withdrawn(self, cloud: Cloud, session: Any, tmp_path: Path) -> None:
        credentials = self.key(cloud, tmp_path)
        cloud.accounts.keys.clear()

        with pytest.raises(auth_exceptions.RefreshError, match="invalid_grant"):
            session(credentials).get(cloud.endpoint + ALL)

    def test_impersonation(self, cloud: Cloud, session: Any, tmp_path: Path) -> None:
        address = f"{cloud.endpoint}/v1/projects/-/serviceAccounts/{TARGET}:generateAccessToken"
        asking = session(
            impersonated_credentials.Credentials(
                self.key(cloud, tmp_path), TARGET, SCOPES, iam_endpoint_override=address
            )
        )

        with pytest.raises(auth_exceptions.RefreshError, match=r"iam\.serviceAccounts\.getAccessToken"):
            asking.get(cloud.endpoint + ALL)
        cloud.accounts.allow_impersonation(TARGET, by=ROBOT)

        assert asking.get(cloud.endpoint + ALL).status_code == 200
        assert cloud.calls[-1].caller == TARGET
