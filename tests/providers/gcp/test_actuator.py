"""What is done to single machines, over HTTP: equal to what Google's own client asks. Groups are beside this."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import RFC_4122, UUID

import httpx
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from providers.errors import (
    Conflict,
    Forbidden,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Refused,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.gcp import Config
from providers.gcp.actuator import LATEST_START_SECONDS, GcpActuator, request_uuid
from providers.gcp.client import Client
from providers.gcp.translate import NOTEBOOK_STATES, STATES, TPU_STATES, utc
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb
from tests.providers.gcp.cloud import NO_ANSWER, Call, Cloud, Refusal, Reply, answer
from tests.providers.gcp.cloud_operations import Failure

ZONE = "us-central1-a"
STOCKOUT = Failure(code="ZONE_RESOURCE_POOL_EXHAUSTED", message="The zone does not have enough room.", status=503)


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Client]:
    client = Client(
        Config(projects=("research",), credentials="anonymous", endpoint=cloud.endpoint), sleep=lambda _: None
    )
    yield client
    client.close()


@pytest.fixture
def actuator(client: Client) -> GcpActuator:
    return GcpActuator(client, sleep=lambda _: None)


def ref(path: str, kind: Kind = Kind.INSTANCE) -> ResourceRef:
    place = path.split("/")[3]
    region = place.rpartition("-")[0] if place.count("-") == 2 else place
    return ResourceRef(provider="gcp", account=path.split("/")[1], region=region, kind=kind, external_id=path)


def record(of: ResourceRef, state: State = State.RUNNING, created: str | None = None) -> ResourceRecord:
    """As much of one as is remembered."""
    return ResourceRecord(
        ref=of, incarnation="1", name=of.external_id.rpartition("/")[2], zone=ZONE, sku="a2-highgpu-1g",
        gpu_vendor="nvidia", gpu_model="A100", gpu_count=1, state=state, created_at=utc(created),
    )  # fmt: skip


def remember(actuator: GcpActuator, of: ResourceRecord, verb: Verb) -> dict[str, Any]:
    """As the store keeps it."""
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(of, verb)))
    return remembered


def seen(cloud: Cloud, path: str) -> ResourceRecord:
    """A machine as it is listed."""
    instance = cloud.compute.instances[path]
    return record(ref(path), STATES[instance["status"]], instance["creationTimestamp"])


def changes(cloud: Cloud) -> list[str]:
    """What was asked for that changes anything, by the last word of its method."""
    return [call.method.rpartition(".")[2] for call in cloud.calls if call.changes]


# As Google's own client asks.

Ask = Callable[[compute_v1.InstancesClient, dict[str, str]], object]
SDK: Mapping[str, tuple[dict[str, Any], Verb | None, Ask]] = {
    "stop": ({}, Verb.STOP, lambda sdk, names: sdk.stop_unary(compute_v1.StopInstanceRequest(names))),
    "stop with Local SSD": (
        {"local_ssds": 2},
        Verb.STOP,
        lambda sdk, names: sdk.stop_unary(compute_v1.StopInstanceRequest({**names, "discard_local_ssd": True})),
    ),
    "suspend": (
        {"machine_type": "n2-standard-8"},
        Verb.SUSPEND,
        lambda sdk, names: sdk.suspend_unary(compute_v1.SuspendInstanceRequest(names)),
    ),
    "suspend with Local SSD": (
        {"machine_type": "n2-standard-8", "local_ssds": 1},
        Verb.SUSPEND,
        lambda sdk, names: sdk.suspend_unary(compute_v1.SuspendInstanceRequest({**names, "discard_local_ssd": True})),
    ),
    "delete": ({}, Verb.TERMINATE, lambda sdk, names: sdk.delete_unary(compute_v1.DeleteInstanceRequest(names))),
    "start": (
        {"status": "TERMINATED"},
        None,
        lambda sdk, names: sdk.start_unary(compute_v1.StartInstanceRequest(names)),
    ),
    "resume": (
        {"status": "SUSPENDED", "machine_type": "n2-standard-8"},
        None,
        lambda sdk, names: sdk.resume_unary(compute_v1.ResumeInstanceRequest(names)),
    ),
}


def asked(call: Call) -> tuple[str, str, Mapping[str, Any], Any]:
    """All that Google hears of a change. The official client also says how it wants enumerations to be written."""
    return call.http, call.path, {key: value for key, value in call.query.items() if key != "$alt"}, call.body


def twice_the_same(cloud: Cloud) -> bool:
    ours, theirs = [asked(call) for call in cloud.calls if call.changes]
    assert ours == theirs
    return True


@pytest.mark.parametrize("act", SDK)
def test_what_is_asked_is_what_the_official_client_asks(cloud: Cloud, actuator: GcpActuator, act: str) -> None:
    how, verb, theirs = SDK[act]
    path = cloud.compute.machine("trainer", **how)
    if verb is None:
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="curfew-1")
    else:
        actuator.act(ref(path), verb, request_id="curfew-1")
    names = {"project": "research", "zone": ZONE, "instance": "trainer", "request_id": request_uuid("curfew-1")}
    sdk = compute_v1.InstancesClient(
        credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.endpoint}
    )
    theirs(sdk, names)
    assert twice_the_same(cloud)


@pytest.mark.parametrize("request_id", ["curfew-1", "", "0" * 32, "00000000-0000-0000-0000-000000000000", "ü" * 300])
def test_our_ids_are_google_s_kind_of_ids(request_id: str) -> None:
    ids = [request_uuid(request_id, step, again=again) for step in ("", "size") for again in (False, True)]
    assert len(set(ids)) == 4
    assert all((UUID(one).version, UUID(one).variant) == (5, RFC_4122) for one in ids)
    assert request_uuid(request_id, "size") == request_uuid(request_id, "size")
    assert not {one[:18] for one in ids} & {request_uuid("another")[:18]}


# Stopping.


@pytest.mark.parametrize("status", ["RUNNING", "REPAIRING", "PROVISIONING", "STAGING", "PENDING"])
def test_what_is_up_is_stopped(cloud: Cloud, actuator: GcpActuator, status: str) -> None:
    path = cloud.compute.machine(status=status)
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    cloud.settle()
    assert cloud.compute.status(path) == "TERMINATED"


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.SUSPEND])
@pytest.mark.parametrize(
    "status", ["STOPPING", "PENDING_STOP", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED", "DEPROVISIONING"]
)
def test_what_is_down_or_on_its_way_is_left_alone(cloud: Cloud, actuator: GcpActuator, status: str, verb: Verb) -> None:
    path = cloud.compute.machine(status=status)
    actuator.act(ref(path), verb, request_id="curfew-1")
    assert changes(cloud) == []
    assert cloud.compute.status(path) == status


@pytest.mark.parametrize(
    ("how", "discarded"),
    [
        ({"machine_type": "a2-highgpu-1g"}, None),
        ({"machine_type": "n1-standard-8", "gpus": ("nvidia-tesla-t4", 1), "local_ssds": 1}, True),
        ({"machine_type": "a2-ultragpu-1g"}, True),
        ({"machine_type": "a3-highgpu-8g"}, True),
        ({"machine_type": "a3-highgpu-8g", "local_ssds": 0}, True),  # of the type, though the machine tells of none
    ],
)
def test_local_ssd_is_given_up_only_where_there_is_some(
    cloud: Cloud, actuator: GcpActuator, how: dict[str, Any], discarded: bool | None
) -> None:
    actuator.act(ref(cloud.compute.machine(**how)), Verb.STOP, request_id="curfew-1")
    assert cloud.calls[-1].query.get("discardLocalSsd") is discarded
    assert "noGracefulShutdown" not in cloud.calls[-1].query


def test_one_of_the_same_name_in_another_zone_is_not_touched(cloud: Cloud, actuator: GcpActuator) -> None:
    here, there = cloud.compute.machine(zone="us-central1-a"), cloud.compute.machine(zone="us-central1-b")
    actuator.act(ref(here), Verb.STOP, request_id="curfew-1")
    assert (cloud.compute.status(here), cloud.compute.status(there)) == ("STOPPING", "RUNNING")


def test_twice_is_once(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    for request_id in ("curfew-1", "curfew-1", "curfew-2"):
        actuator.act(ref(path), Verb.STOP, request_id=request_id)
    assert changes(cloud) == ["stop"]


def test_an_answer_lost_on_its_way_stops_nothing_twice(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    lost = lost_once(cloud, "compute.instances.stop")
    with cloud.within(lost):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == ["stop", "stop"]
    assert len(cloud.operations.begun) == 1


def test_who_was_asked_before_a_restart_is_not_asked_again(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    cloud.settle()
    cloud.compute.instances[path]["status"] = "RUNNING"  # somebody needs it
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    cloud.settle()
    assert cloud.compute.status(path) == "RUNNING"


def lost_once(cloud: Cloud, method: str) -> Callable[[Call], Reply | None]:
    """The first call of that method is heard, but its answer gets lost."""
    heard: list[Call] = []

    def rule(call: Call) -> Reply | None:
        if call.method != method or heard:
            return None
        heard.append(call)
        cloud._once(call) or cloud._asked.setdefault(
            (call.project, call.query["requestId"]), (call, cloud._answers[method](call))
        )
        return NO_ANSWER

    return rule


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(403, "Required 'compute.instances.stop' permission for 'x'", reason="forbidden"), Forbidden),
        (Refusal(400, "The resource 'x' is not ready", reason="resourceNotReady"), Conflict),
        (Refusal(400, "Never.", reason="badRequest"), Unsupported),
        (Refusal(429, "Too often.", reason="rateLimitExceeded"), Throttled),
        (Refusal(503, "Out of order.", reason="backendError"), Unreachable),
    ],
)
def test_what_google_refuses_to_stop(
    cloud: Cloud, actuator: GcpActuator, refusal: Refusal, expected: type[ProviderError]
) -> None:
    path = cloud.compute.machine()
    cloud.refuse("compute.instances.stop", refusal)
    with pytest.raises(expected):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert cloud.compute.status(path) == "RUNNING"


def test_while_something_else_is_done_with_it(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    cloud.operations.looks = None
    labels = {"labels": {"a": "b"}, "labelFingerprint": cloud.compute.instances[path]["labelFingerprint"]}
    sdk = compute_v1.InstancesClient(
        credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.endpoint}
    )
    sdk.set_labels_unary(
        project="research", zone=ZONE, instance="trainer",
        instances_set_labels_request_resource=compute_v1.InstancesSetLabelsRequest(
            labels=labels["labels"], label_fingerprint=labels["labelFingerprint"]
        ),
    )  # fmt: skip
    with pytest.raises(Conflict):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.SUSPEND])
def test_what_is_gone_cannot_be_stopped(cloud: Cloud, actuator: GcpActuator, verb: Verb) -> None:
    path = cloud.compute.machine()
    cloud.compute.vanish(path)
    with pytest.raises(NotFound):
        actuator.act(ref(path), verb, request_id="curfew-1")


def test_machines_with_accelerators_are_not_suspended(cloud: Cloud, actuator: GcpActuator) -> None:
    with pytest.raises(Unsupported, match="suspend"):
        actuator.act(ref(cloud.compute.machine()), Verb.SUSPEND, request_id="curfew-1")


def test_no_call_begins_too_late(cloud: Cloud, client: Client) -> None:
    path = cloud.compute.machine()
    ticks = iter(range(0, 1000, int(LATEST_START_SECONDS) // 2 + 1))
    slow = GcpActuator(client, clock=lambda: float(next(ticks)))
    with pytest.raises(Unreachable, match="was not asked"):
        slow.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == []


# Deleting.


@pytest.mark.parametrize("status", ["RUNNING", "TERMINATED", "SUSPENDED"])
def test_what_is_deleted(cloud: Cloud, actuator: GcpActuator, status: str) -> None:
    path = cloud.compute.machine(status=status)
    for _ in range(2):
        actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
        cloud.settle()
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-2")
    assert cloud.compute.status(path) is None


def test_deletion_protection_refuses(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine(protected=True)
    with pytest.raises(Protected):
        actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    assert cloud.compute.status(path) == "RUNNING"


def test_deletion_protection_does_not_keep_it_from_being_stopped(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine(protected=True)
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert cloud.compute.status(path) == "STOPPING"


def test_nothing_brings_back_what_was_deleted(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.TERMINATE)
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    with pytest.raises(Unsupported, match="nothing brings it back"):
        actuator.restore(ref(path), remembered, request_id="curfew-2")


# Bringing back.


@pytest.mark.parametrize(
    ("verb", "machine_type", "asked_for"),
    [
        (Verb.STOP, "a2-highgpu-1g", ["stop", "start"]),
        (Verb.SUSPEND, "n2-standard-8", ["suspend", "resume"]),
    ],
)
def test_it_comes_back_as_it_was(
    cloud: Cloud, actuator: GcpActuator, verb: Verb, machine_type: str, asked_for: list[str]
) -> None:
    path = cloud.compute.machine(machine_type=machine_type, labels={"team": "nlp"})
    times = ("lastStartTimestamp", "lastStopTimestamp", "lastSuspendedTimestamp")

    def shown() -> dict[str, Any]:
        return {key: value for key, value in cloud.compute.instances[path].items() if key not in times}

    before = json.dumps(shown())
    remembered = remember(actuator, seen(cloud, path), verb)
    actuator.act(ref(path), verb, request_id="curfew-1")
    cloud.settle()
    for request_id in ("curfew-2", "curfew-2", "curfew-3"):
        actuator.restore(ref(path), remembered, request_id=request_id)
    cloud.settle()
    assert changes(cloud) == asked_for
    assert json.dumps(shown()) == before


@pytest.mark.parametrize("status", ["STOPPING", "PENDING_STOP", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED"])
def test_what_was_down_before_stays_down(cloud: Cloud, actuator: GcpActuator, status: str) -> None:
    path = cloud.compute.machine(status=status)
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert cloud.calls == []


@pytest.mark.parametrize("status", ["STOPPING", "PENDING_STOP", "SUSPENDING"])
def test_what_is_still_on_its_way_down_is_waited_for(cloud: Cloud, actuator: GcpActuator, status: str) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    cloud.compute.instances[path]["status"] = status
    with pytest.raises(Conflict, match="once it has stopped"):
        actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize("status", ["RUNNING", "PROVISIONING", "STAGING", "PENDING", "REPAIRING"])
def test_what_somebody_started_already_is_left_alone(cloud: Cloud, actuator: GcpActuator, status: str) -> None:
    path = cloud.compute.machine(status=status)
    remembered = {**remember(actuator, seen(cloud, path), Verb.STOP), "state": "running"}
    actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == []


def test_what_was_suspended_for_so_long_that_google_stopped_it_is_started(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.SUSPEND)
    cloud.compute.instances[path]["status"] = "TERMINATED"
    actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == ["start"]


def test_another_machine_under_its_name_is_not_started(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.compute.machine(created=datetime(2026, 11, 1, tzinfo=UTC))
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    cloud.compute.vanish(path)
    cloud.compute.machine(status="TERMINATED", created=datetime(2026, 11, 2, tzinfo=UTC))
    with pytest.raises(NotFound, match="made anew"):
        actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (Refusal(503, "No room.", reason="ZONE_RESOURCE_POOL_EXHAUSTED"), NoCapacity),
        (Refusal(403, "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally.", reason="quotaExceeded"), NoCapacity),
        (Refusal(400, "The resource 'x' is not ready", reason="resourceNotReady"), Conflict),
    ],
)
def test_what_google_cannot_start(
    cloud: Cloud, actuator: GcpActuator, refusal: Refusal, expected: type[ProviderError]
) -> None:
    path = cloud.compute.machine(status="TERMINATED")
    cloud.refuse("compute.instances.start", refusal)
    with pytest.raises(expected):
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="curfew-1")


def test_a_start_that_failed_late_can_be_asked_for_again(cloud: Cloud, actuator: GcpActuator) -> None:
    """Google answers what came of the first one, whenever it is asked by the same id."""
    path = cloud.compute.machine(status="TERMINATED")
    for _ in range(3):
        cloud.operations.fail_next("start", STOCKOUT)
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="curfew-1")
        cloud.settle()
        assert cloud.compute.status(path) == "TERMINATED"
    actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="curfew-1")
    cloud.settle()
    assert cloud.compute.status(path) == "RUNNING"


# What cannot be done here at all.

ELSEWHERE = "projects/research/locations/us-central1-a"


@pytest.mark.parametrize(
    ("path", "kind", "verbs"),
    [
        ("projects/research/zones/us-central1-a/instances/trainer", Kind.INSTANCE, {"stop", "suspend", "terminate"}),
        (f"{ELSEWHERE}/nodes/tpu", Kind.INSTANCE, {"stop", "terminate"}),
        (f"{ELSEWHERE}/instances/lab", Kind.NOTEBOOK, {"stop"}),
        ("projects/research/zones/us-central1-a/instanceGroupManagers/g", Kind.NODE_GROUP, {"scale_to_zero"}),
        ("projects/research/regions/us-central1/instanceGroupManagers/g", Kind.NODE_GROUP, {"scale_to_zero"}),
        ("projects/research/locations/us-central1/clusters/c/nodePools/p", Kind.NODE_GROUP, {"scale_to_zero"}),
        ("projects/research/zones/us-central1-a/disks/data", Kind.INSTANCE, set()),
        ("projects/research/zones/us-central1-a/instances/trainer/../../x", Kind.INSTANCE, set()),
        ("trainer", Kind.INSTANCE, set()),
        ("projects/research/zones/us-central1-a/instances/trainer", Kind.NOTEBOOK, set()),
        ("projects/research/zones/us-central1-a/instances/trainer", Kind.WORKLOAD, set()),
    ],
)
def test_what_is_not_possible_is_not_even_asked(
    cloud: Cloud, actuator: GcpActuator, path: str, kind: Kind, verbs: set[str]
) -> None:
    of = ResourceRef(provider="gcp", account="research", region="us-central1", kind=kind, external_id=path)
    for verb in Verb:
        if verb.value in verbs:
            continue
        with pytest.raises(Unsupported):
            actuator.act(of, verb, request_id="curfew-1")
        with pytest.raises(Unsupported):
            actuator.remember(record(of), verb)
    assert cloud.calls == []


# TPU VMs and notebooks, whose APIs know no request ids.


class Other:
    """What both have in common, by the names of each."""

    def __init__(self, cloud: Cloud, what: str) -> None:
        self.cloud, self.what = cloud, what
        if what == "TPU VM":
            self.ref = ref(cloud.tpus.node())
            self.up, self.states = "READY", TPU_STATES
        else:
            self.ref = ref(cloud.workbench.notebook(), Kind.NOTEBOOK)
            self.up, self.states = "ACTIVE", NOTEBOOK_STATES
        self.path = self.ref.external_id

    @property
    def state(self) -> str:
        if self.what == "TPU VM":
            return str(self.cloud.tpus.nodes[self.path]["state"])
        return str(self.cloud.workbench._told(self.path)["state"])

    def enter(self, state: str) -> None:
        things = self.cloud.tpus.nodes if self.what == "TPU VM" else self.cloud.workbench.notebooks
        things[self.path]["state"] = state

    def vanish(self) -> None:
        things = self.cloud.tpus.nodes if self.what == "TPU VM" else self.cloud.workbench.notebooks
        del things[self.path]

    @property
    def record(self) -> ResourceRecord:
        things = self.cloud.tpus.nodes if self.what == "TPU VM" else self.cloud.workbench.notebooks
        return record(self.ref, self.states[self.state], things[self.path]["createTime"])


@pytest.fixture(params=["TPU VM", "notebook"])
def other(cloud: Cloud, request: pytest.FixtureRequest) -> Other:
    return Other(cloud, request.param)


class TestTpuVmsAndNotebooks:
    def test_they_stop_and_come_back(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        remembered = remember(actuator, other.record, Verb.STOP)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(other.ref, Verb.STOP, request_id=request_id)
        cloud.settle()
        assert other.state == "STOPPED"
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(other.ref, remembered, request_id=request_id)
        cloud.settle()
        assert other.state == other.up
        assert changes(cloud) == ["stop", "start"]

    def test_what_is_down_is_left_alone(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        for state, word in other.states.items():
            if word in (State.RUNNING, State.PENDING):
                continue
            other.enter(state)
            actuator.act(other.ref, Verb.STOP, request_id="curfew-1")
            if word is not State.TERMINATED:
                actuator.restore(other.ref, remember(actuator, other.record, Verb.STOP), request_id="curfew-2")
        assert changes(cloud) == []

    def test_what_runs_is_not_started(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        remembered = remember(actuator, other.record, Verb.STOP)
        for state, word in other.states.items():
            if word in (State.RUNNING, State.PENDING):
                other.enter(state)
                actuator.restore(other.ref, remembered, request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_is_still_stopping_is_waited_for(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        remembered = remember(actuator, other.record, Verb.STOP)
        actuator.act(other.ref, Verb.STOP, request_id="curfew-1")
        with pytest.raises(Conflict, match="once it has stopped"):
            actuator.restore(other.ref, remembered, request_id="curfew-2")

    def test_what_is_gone(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        remembered = remember(actuator, other.record, Verb.STOP)
        other.vanish()
        with pytest.raises(NotFound):
            actuator.act(other.ref, Verb.STOP, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(other.ref, remembered, request_id="curfew-2")

    def test_another_one_under_its_name(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        remembered = remember(actuator, other.record, Verb.STOP) | {"created_at": "2020-01-01T00:00:00+00:00"}
        other.enter("STOPPED")
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(other.ref, remembered, request_id="curfew-1")

    def test_a_missing_permission_is_named(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        with cloud.read_only(), pytest.raises(Forbidden) as refused:
            actuator.act(other.ref, Verb.STOP, request_id="curfew-1")
        assert refused.value.permission in ("tpu.nodes.stop", "notebooks.instances.stop")
        assert other.state == other.up

    def test_what_got_no_answer_is_asked_once_only(self, cloud: Cloud, actuator: GcpActuator, other: Other) -> None:
        lost = cloud.within(lambda call: NO_ANSWER if call.changes else None)
        with lost, pytest.raises(Unreachable):
            actuator.act(other.ref, Verb.STOP, request_id="curfew-1")
        assert changes(cloud) == ["stop"]


def test_a_slice_of_several_machines_is_not_stopped(cloud: Cloud, actuator: GcpActuator) -> None:
    with pytest.raises(Unsupported, match="slice"):
        actuator.act(ref(cloud.tpus.node(hosts=4)), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize("hosts", [1, 4])
def test_a_tpu_vm_is_deleted(cloud: Cloud, actuator: GcpActuator, hosts: int) -> None:
    path = cloud.tpus.node(hosts=hosts)
    for _ in range(2):
        actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    cloud.settle()
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    assert path not in cloud.tpus.nodes
    assert changes(cloud) == ["delete"]


def test_a_tpu_vm_that_google_took_away_is_not_started(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.tpus.node(spot=True, state="PREEMPTED")
    with pytest.raises(Unsupported, match="taken away"):
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="curfew-1")


def test_a_notebook_is_not_stopped_while_it_is_upgraded(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.workbench.notebook(state="UPGRADING")
    with pytest.raises(Conflict, match="upgrading"):
        actuator.act(ref(path, Kind.NOTEBOOK), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == []


def test_a_notebook_that_lost_its_machine_is_not_started(cloud: Cloud, actuator: GcpActuator) -> None:
    path = cloud.workbench.notebook()
    remembered = remember(actuator, record(ref(path, Kind.NOTEBOOK)), Verb.STOP)
    cloud.compute.vanish(cloud.workbench.machine_of(path))
    with pytest.raises(NotFound, match="ORPHANED"):
        actuator.restore(ref(path, Kind.NOTEBOOK), remembered, request_id="curfew-1")


# What became of acts.


class TestWhatBecameOfActs:
    def stopped(self, cloud: Cloud, actuator: GcpActuator, name: str, failure: Failure | None = None) -> ResourceRef:
        of = ref(cloud.compute.machine(name))
        if failure is not None:
            cloud.operations.fail_next("stop", failure, target=of.external_id)
        actuator.act(of, Verb.STOP, request_id=f"stop-{name}")
        return of

    def test_those_that_failed_and_why(self, cloud: Cloud, actuator: GcpActuator) -> None:
        acts = {
            "stop-good": self.stopped(cloud, actuator, "good"),
            "stop-bad": self.stopped(cloud, actuator, "bad", Failure(code="INTERNAL_ERROR", message="Try again.")),
            "stop-odd": self.stopped(cloud, actuator, "odd", Failure(code="UNSUPPORTED_OPERATION", message="Never.")),
            "stop-never-asked": ref(cloud.compute.machine("other")),
        }
        assert actuator.failures(acts) == {}, "all are under way"
        cloud.settle()
        found = actuator.failures(acts)
        assert {request_id: type(error) for request_id, error in found.items()} == {
            "stop-bad": Unreachable,
            "stop-odd": Unsupported,
        }
        assert found["stop-odd"].sentence == "stop of projects/research/zones/us-central1-a/instances/odd: Never"

    def test_one_question_for_all_of_a_project(self, cloud: Cloud, actuator: GcpActuator) -> None:
        acts = {f"stop-m{number}": self.stopped(cloud, actuator, f"m{number}") for number in range(20)}
        cloud.calls.clear()
        actuator.failures(acts)
        assert [call.path for call in cloud.calls] == ["/compute/v1/projects/research/aggregated/operations"]

    def test_pages_are_followed(self, cloud: Cloud, actuator: GcpActuator) -> None:
        failure = Failure(code="INTERNAL_ERROR", message="No.")
        acts = {f"stop-m{number}": self.stopped(cloud, actuator, f"m{number}", failure) for number in range(5)}
        cloud.settle()
        cloud.most_per_page = 2
        assert actuator.failures(acts).keys() == acts.keys()

    def test_each_project_is_asked_for_its_own(self, cloud: Cloud, actuator: GcpActuator) -> None:
        cloud.add_project("vision-gpus")
        here = ref(cloud.compute.machine())
        there = ref(cloud.compute.machine(project="vision-gpus"))
        for of in (here, there):
            cloud.operations.fail_next("stop", Failure(code="INTERNAL_ERROR", message="No."))
            actuator.act(of, Verb.STOP, request_id=f"stop-{of.account}")
        cloud.settle()
        acts = {"stop-research": here, "stop-vision-gpus": there}
        with cloud.within(lambda call: NO_ANSWER if call.project == "research" else None):
            assert actuator.failures(acts).keys() == {"stop-vision-gpus"}, "a fault in asking is no failure"
        assert actuator.failures(acts).keys() == acts.keys()

    def test_what_was_asked_again_and_went_well_has_not_failed(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.compute.machine(status="TERMINATED")
        acts = {"start-1": ref(path)}
        cloud.operations.fail_next("start", STOCKOUT)
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="start-1")
        cloud.settle()
        assert {type(error) for error in actuator.failures(acts).values()} == {NoCapacity}
        actuator.restore(ref(path), {"verb": "stop", "state": "running"}, request_id="start-1")
        assert actuator.failures(acts) == {}
        cloud.settle()
        assert actuator.failures(acts) == {}

    def test_what_others_did_with_it_is_not_ours(self, cloud: Cloud, actuator: GcpActuator) -> None:
        of = self.stopped(cloud, actuator, "good")
        cloud.settle()
        cloud.operations.fail_next("start", STOCKOUT)
        actuator.restore(of, {"verb": "stop", "state": "running"}, request_id="somebody-else")
        cloud.settle()
        assert actuator.failures({"stop-good": of}) == {}

    def test_what_others_do_elsewhere_by_our_ids_is_not_ours(self, cloud: Cloud, actuator: GcpActuator) -> None:
        of, other = self.stopped(cloud, actuator, "good"), ref(cloud.compute.machine("other"))
        ours = request_uuid("stop-good")
        cloud.operations.fail_next("stop", Failure(code="INTERNAL_ERROR", message="No."), target=other.external_id)
        theirs = f"{ours[:-1]}{'0' if ours[-1] != '0' else '1'}"
        stop = f"{cloud.endpoint}/compute/v1/{other.external_id}/stop"
        assert httpx.post(stop, params={"requestId": theirs}).status_code == 200
        cloud.settle()
        assert actuator.failures({"stop-good": of}) == {}

    def test_many_are_asked_about_in_addresses_of_bearable_length(self, cloud: Cloud, actuator: GcpActuator) -> None:
        of = ref(cloud.compute.machine())
        assert actuator.failures({f"stop-{number}": of for number in range(250)}) == {}
        assert len(cloud.calls) == 3
        assert all(len(str(call.query["filter"])) < 4000 for call in cloud.calls)

    @pytest.mark.parametrize("status", [400, 403, 404, 500])
    def test_nothing_is_ever_raised(self, cloud: Cloud, actuator: GcpActuator, status: int) -> None:
        of = self.stopped(cloud, actuator, "good")
        cloud.rules.insert(0, lambda _call: Refusal(status, "No.", reason="no").reply)
        assert actuator.failures({"stop-good": of}) == {}

    def test_nothing_under_way_is_not_asked(self, cloud: Cloud, actuator: GcpActuator) -> None:
        assert actuator.failures({}) == {}
        assert cloud.calls == []


# A limit that Google keeps by itself.


class TestALimitOfRunning:
    def scheduling(self, cloud: Cloud, path: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = cloud.compute.instances[path]["scheduling"]
        return found

    @pytest.mark.parametrize("local_ssds", [0, 1])
    def test_it_is_set_and_the_rest_stays(self, cloud: Cloud, actuator: GcpActuator, local_ssds: int) -> None:
        path = cloud.compute.machine(status="TERMINATED", local_ssds=local_ssds)
        rest = dict(self.scheduling(cloud, path))
        actuator.limit_run(ref(path), 3600, request_id="curfew-1")
        cloud.settle()
        lost = {"onInstanceStopAction": {"discardLocalSsd": True}} if local_ssds else {}
        limits = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "STOP", **lost}
        assert self.scheduling(cloud, path) == {**rest, **limits}
        assert cloud.calls[-1].body == {**rest, **limits}, "Google may take what is not named for its default"
        actuator.limit_run(ref(path), 3600, request_id="curfew-2")
        assert changes(cloud) == ["setScheduling"]

    def test_as_the_official_client_asks(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.compute.machine(status="TERMINATED", machine_type="a2-ultragpu-1g")
        actuator.limit_run(ref(path), 7200, request_id="curfew-1")
        scheduling = self.scheduling(cloud, path)
        sdk = compute_v1.InstancesClient(
            credentials=AnonymousCredentials(), client_options={"api_endpoint": cloud.endpoint}
        )
        sdk.set_scheduling_unary(
            compute_v1.SetSchedulingInstanceRequest(
                project="research",
                zone=ZONE,
                instance="trainer",
                request_id=request_uuid("curfew-1"),
                scheduling_resource=compute_v1.Scheduling(
                    on_host_maintenance=scheduling["onHostMaintenance"],
                    automatic_restart=scheduling["automaticRestart"],
                    preemptible=scheduling["preemptible"],
                    provisioning_model=scheduling["provisioningModel"],
                    max_run_duration=compute_v1.Duration(seconds=7200),
                    instance_termination_action="STOP",
                    on_instance_stop_action=compute_v1.SchedulingOnInstanceStopAction(discard_local_ssd=True),
                ),
            )
        )
        assert twice_the_same(cloud)

    @pytest.mark.parametrize("provisioning", ["STANDARD", "SPOT"])
    def test_it_is_taken_away(self, cloud: Cloud, actuator: GcpActuator, provisioning: str) -> None:
        limits = {"maxRunDuration": {"seconds": "3600"}, "instanceTerminationAction": "STOP"}
        path = cloud.compute.machine(status="TERMINATED", provisioning=provisioning, scheduling=limits)
        sent: list[Any] = []

        def accepted(call: Call) -> Reply | None:
            if not call.changes:
                return None
            sent.append(call.body)
            return answer({"status": "RUNNING"})

        with cloud.within(accepted):
            actuator.limit_run(ref(path), None, request_id="curfew-1")
        gone = {"maxRunDuration": None, "instanceTerminationAction": "STOP" if provisioning == "SPOT" else None}
        assert sent == [{**self.scheduling(cloud, path), **gone}]

    def test_what_has_none_need_not_lose_it(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.compute.machine()
        actuator.limit_run(ref(path), None, request_id="curfew-1")
        assert changes(cloud) == []

    @pytest.mark.parametrize("status", ["RUNNING", "STOPPING", "SUSPENDED", "STAGING"])
    def test_google_takes_it_only_while_it_is_stopped(self, cloud: Cloud, actuator: GcpActuator, status: str) -> None:
        path = cloud.compute.machine(status=status)
        with pytest.raises(Conflict, match="only while it is stopped"):
            actuator.limit_run(ref(path), 3600, request_id="curfew-1")
        assert changes(cloud) == []

    @pytest.mark.parametrize("seconds", [0, 29, 120 * 86_400 + 1])
    def test_what_google_would_not_take(self, cloud: Cloud, actuator: GcpActuator, seconds: int) -> None:
        with pytest.raises(Unsupported, match="30 seconds at least"):
            actuator.limit_run(ref(cloud.compute.machine(status="TERMINATED")), seconds, request_id="curfew-1")
        assert cloud.calls == []

    @pytest.mark.parametrize(
        "theirs",
        [
            {"terminationTime": "2026-12-01T00:00:00Z", "instanceTerminationAction": "STOP"},
            {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"},
        ],
    )
    def test_what_its_owner_has_set_is_left_alone(
        self, cloud: Cloud, actuator: GcpActuator, theirs: dict[str, Any]
    ) -> None:
        path = cloud.compute.machine(status="TERMINATED", scheduling=theirs)
        with pytest.raises(Refused, match="by its owner"):
            actuator.limit_run(ref(path), 3600, request_id="curfew-1")
        assert changes(cloud) == []

    def test_preemptible_machines_of_the_old_kind_have_none(self, cloud: Cloud, actuator: GcpActuator) -> None:
        path = cloud.compute.machine(status="TERMINATED", scheduling={"preemptible": True})
        with pytest.raises(Unsupported, match="old kind"):
            actuator.limit_run(ref(path), 3600, request_id="curfew-1")

    def test_nothing_but_machines_has_one(self, cloud: Cloud, actuator: GcpActuator) -> None:
        for of in (ref(cloud.tpus.node()), ref(cloud.workbench.notebook(), Kind.NOTEBOOK)):
            with pytest.raises(Unsupported, match="no machine of Compute Engine"):
                actuator.limit_run(of, 3600, request_id="curfew-1")
        gone = replace(ref(cloud.compute.machine()), external_id="projects/research/zones/us-central1-a/instances/x")
        with pytest.raises(NotFound):
            actuator.limit_run(gone, 3600, request_id="curfew-1")
