"""What is done to single machines, over TLS: equal to what Azure's own client asks. Groups are beside this."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from threading import Event, current_thread, main_thread
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.mgmt.compute import ComputeManagementClient

from providers.azure import Config
from providers.azure import actuator as module
from providers.azure.actuator import AT_ONCE, LATEST_START_SECONDS, AzureActuator
from providers.azure.client import Client, Outcome
from providers.azure.translate import COMPUTE_STATES
from providers.errors import (
    Conflict,
    Forbidden,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb
from tests.providers.azure.cloud import NO_ANSWER, OTHER, SUBSCRIPTION, Call, Cloud, Refusal, Reply, answer
from tests.providers.azure.cloud_operations import NO_ROOM, PREEMPTED, Failure
from tests.providers.azure.cloud_refusals import (
    allocation_failed,
    conflict,
    denied_by_policy,
    not_allowed,
    quota_exceeded,
    throttled,
    throttled_by_compute,
    unavailable,
)

GROUP = "rg-ml"
ASKED = {"verb": "stop", "state": "running"}


@pytest.fixture
def client(cloud: Cloud) -> Iterator[Client]:
    client = Client(Config(**cloud.settings), secret=lambda _: "a-token", sleep=lambda _: None)
    yield client
    client.close()


@pytest.fixture
def actuator(client: Client) -> AzureActuator:
    return AzureActuator(client)


class Somebody:
    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        return AccessToken("a-token", int(time.time()) + 3600)


def official(cloud: Cloud) -> ComputeManagementClient:
    """Azure's own client."""
    return ComputeManagementClient(
        Somebody(),
        SUBSCRIPTION,
        base_url=cloud.endpoint,
        credential_scopes=[f"{cloud.endpoint}/.default"],
        connection_verify=cloud.ca_file,
        retry_total=0,
    )


def ref(path: str, kind: Kind = Kind.INSTANCE) -> ResourceRef:
    account = path.split("/")[2]
    return ResourceRef(provider="azure", account=account, region="westeurope", kind=kind, external_id=path)


def record(of: ResourceRef, state: State = State.RUNNING, incarnation: str = "1") -> ResourceRecord:
    """As much of one as is remembered."""
    return ResourceRecord(
        ref=of, incarnation=incarnation, name=of.external_id.rpartition("/")[2], zone=None,
        sku="Standard_NC24ads_A100_v4", gpu_vendor="nvidia", gpu_model="A100-80GB", gpu_count=1, state=state,
    )  # fmt: skip


def seen(cloud: Cloud, path: str, state: State = State.RUNNING) -> ResourceRecord:
    """A machine as it is listed."""
    return record(ref(path), state, cloud.compute.machines[path.lower()].properties["vmId"])


def remember(actuator: AzureActuator, of: ResourceRecord, verb: Verb) -> dict[str, Any]:
    """As the store keeps it."""
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(of, verb)))
    return remembered


def changes(cloud: Cloud) -> list[str]:
    """What was asked for that changes anything, by the last word of its method."""
    return [call.method.rpartition("_")[2] for call in cloud.calls if call.changes]


def asked(call: Call) -> tuple[str, str, Mapping[str, str], Any]:
    """All that Azure hears of a change."""
    return call.http, call.path, call.query, call.body


def lost_once(cloud: Cloud, method: str) -> Callable[[Call], Reply | None]:
    """The first call of that method is heard, but its answer gets lost."""
    heard: list[Call] = []

    def rule(call: Call) -> Reply | None:
        if call.method != method or heard:
            return None
        heard.append(call)
        found = cloud._found(call.http, call.path)
        assert found is not None
        found[2](call)
        return NO_ANSWER

    return rule


# As Azure's own client asks.

SDK: Mapping[str, tuple[dict[str, Any], Verb | None, Callable[[ComputeManagementClient], object]]] = {
    "stop": ({}, Verb.STOP, lambda sdk: sdk.virtual_machines.begin_deallocate(GROUP, "trainer", polling=False)),
    "stop what is powered off": (
        {"power": "stopped"},
        Verb.STOP,
        lambda sdk: sdk.virtual_machines.begin_deallocate(GROUP, "trainer", polling=False),
    ),
    "hibernate": (
        {"hibernation": True},
        Verb.HIBERNATE,
        lambda sdk: sdk.virtual_machines.begin_deallocate(GROUP, "trainer", hibernate=True, polling=False),
    ),
    "delete": ({}, Verb.TERMINATE, lambda sdk: sdk.virtual_machines.begin_delete(GROUP, "trainer", polling=False)),
    "start": (
        {"power": "deallocated"},
        None,
        lambda sdk: sdk.virtual_machines.begin_start(GROUP, "trainer", polling=False),
    ),
}


@pytest.mark.parametrize("act", SDK)
def test_what_is_asked_is_what_the_official_client_asks(cloud: Cloud, actuator: AzureActuator, act: str) -> None:
    how, verb, theirs = SDK[act]
    path = cloud.compute.machine("trainer", **how)
    power = cloud.compute.power(path)
    if verb is None:
        actuator.restore(ref(path), {**ASKED, "incarnation": seen(cloud, path).incarnation}, request_id="curfew-1")
    else:
        actuator.act(ref(path), verb, request_id="curfew-1")
    cloud.operations.begun.clear()
    cloud.compute.machines[path.lower()].power = power  # as if it had not been asked for
    with official(cloud) as sdk:
        theirs(sdk)
    ours, as_asked_by_it = [asked(call) for call in cloud.calls if call.changes]
    assert ours == as_asked_by_it


# Stopping.


@pytest.mark.parametrize("power", ["running", "starting", "stopping", "stopped", None])
def test_what_is_up_or_billed_is_deallocated(cloud: Cloud, actuator: AzureActuator, power: str | None) -> None:
    path = cloud.compute.machine(power=power)
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    cloud.settle()
    assert cloud.compute.power(path) == "deallocated"
    assert changes(cloud) == ["Deallocate"]


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.HIBERNATE])
@pytest.mark.parametrize("power", ["deallocating", "deallocated", "hibernated", "deleting"])
def test_what_is_down_or_on_its_way_is_left_alone(
    cloud: Cloud, actuator: AzureActuator, power: str, verb: Verb
) -> None:
    path = cloud.compute.machine(power=power, hibernation=True)
    machine = cloud.compute.machines[path.lower()]
    if power == "hibernated":
        machine.power, machine.hibernated = "deallocated", True
    if power == "deleting":
        machine.power, machine.provisioning = "running", "Deleting"
    before = cloud.snapshot()
    actuator.act(ref(path), verb, request_id="curfew-1")
    assert changes(cloud) == []
    assert cloud.snapshot() == before


def test_one_of_the_same_name_in_another_group_is_not_touched(cloud: Cloud, actuator: AzureActuator) -> None:
    here, there = cloud.compute.machine(group="rg-ml"), cloud.compute.machine(group="rg-vision")
    actuator.act(ref(here), Verb.STOP, request_id="curfew-1")
    assert (cloud.compute.power(here), cloud.compute.power(there)) == ("deallocating", "running")


def test_twice_is_once(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    for request_id in ("curfew-1", "curfew-1", "curfew-2"):
        actuator.act(ref(path), Verb.STOP, request_id=request_id)
    assert changes(cloud) == ["Deallocate"]


def test_an_answer_lost_on_its_way_stops_nothing_twice(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    with cloud.within(lost_once(cloud, "VirtualMachines_Deallocate")), pytest.raises(Unreachable):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == ["Deallocate"]
    assert len(cloud.operations.begun) == 1


def test_a_change_is_never_asked_twice_by_itself(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    with cloud.within(lambda call: NO_ANSWER if call.changes else None), pytest.raises(Unreachable):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == ["Deallocate"]


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (denied_by_policy("trainer"), Forbidden),
        (conflict(), Conflict),
        (not_allowed("Another operation (VMStart) is in progress."), Conflict),
        (not_allowed("Never."), Unsupported),
        (throttled(SUBSCRIPTION), Throttled),
        (throttled_by_compute(), Throttled),
        (unavailable(), Unreachable),
    ],
)
def test_what_azure_refuses_to_stop(
    cloud: Cloud, actuator: AzureActuator, refusal: Refusal, expected: type[ProviderError]
) -> None:
    path = cloud.compute.machine()
    cloud.refuse("VirtualMachines_Deallocate", refusal)
    with pytest.raises(expected):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert cloud.compute.power(path) == "running"


def test_a_missing_permission_is_named(cloud: Cloud, actuator: AzureActuator) -> None:
    path, needed = cloud.compute.machine(), "Microsoft.Compute/virtualMachines/deallocate/action"
    with cloud.without(needed), pytest.raises(Forbidden) as refused:
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert refused.value.permission == needed


def test_while_something_else_is_done_with_it(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine(power="stopped")
    cloud.operations.looks = None
    with official(cloud) as sdk:
        sdk.virtual_machines.begin_start(GROUP, "trainer", polling=False)
    with pytest.raises(Conflict):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.HIBERNATE])
def test_what_is_gone_cannot_be_stopped(cloud: Cloud, actuator: AzureActuator, verb: Verb) -> None:
    path = cloud.compute.machine()
    cloud.compute.vanish(path)
    with pytest.raises(NotFound):
        actuator.act(ref(path), verb, request_id="curfew-1")


@pytest.mark.parametrize(
    ("how", "verb", "why"),
    [
        ({"ephemeral_os_disk": True}, Verb.STOP, "ephemeral"),
        ({}, Verb.HIBERNATE, "does not have hibernation enabled"),
        ({"hibernation": True, "power": "stopped"}, Verb.HIBERNATE, "running VM"),
    ],
)
def test_what_azure_does_with_no_such_machine(
    cloud: Cloud, actuator: AzureActuator, how: dict[str, Any], verb: Verb, why: str
) -> None:
    with pytest.raises(Unsupported, match=why):
        actuator.act(ref(cloud.compute.machine(**how)), verb, request_id="curfew-1")


def test_no_call_begins_too_late(cloud: Cloud, client: Client) -> None:
    path = cloud.compute.machine()
    ticks = count(step=int(LATEST_START_SECONDS) // 2 + 1)  # each look at the clock is seconds later
    slow = AzureActuator(client, clock=lambda: float(next(ticks)))
    with pytest.raises(Unreachable, match="was not asked"):
        slow.act(ref(path), Verb.STOP, request_id="curfew-1")
    assert changes(cloud) == []


def test_what_is_not_answered_as_azure_does_is_no_answer(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    with cloud.within(lambda _call: answer({"status": "fine"})), pytest.raises(Unreachable, match="cannot be read"):
        actuator.act(ref(path), Verb.STOP, request_id="curfew-1")


# Deleting, and locks.


@pytest.mark.parametrize("power", ["running", "stopped", "deallocated"])
def test_what_is_deleted(cloud: Cloud, actuator: AzureActuator, power: str) -> None:
    path = cloud.compute.machine(power=power)
    for _ in range(2):
        actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    cloud.settle()
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-2")
    assert cloud.compute.power(path) is None
    assert changes(cloud) == ["Delete"]


def test_what_went_while_it_was_to_be_deleted(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    words = "The Resource 'Microsoft.Compute/virtualMachines/trainer' under resource group 'rg-ml' was not found."
    cloud.refuse("VirtualMachines_Delete", Refusal(404, "ResourceNotFound", words))
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")


def test_nothing_brings_back_what_was_deleted(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.TERMINATE)
    actuator.act(ref(path), Verb.TERMINATE, request_id="curfew-1")
    with pytest.raises(Unsupported, match="nothing brings it back"):
        actuator.restore(ref(path), remembered, request_id="curfew-2")


@pytest.mark.parametrize("on", ["the machine", "its resource group", "its subscription"])
@pytest.mark.parametrize(
    ("level", "act", "refused"),
    [
        ("CanNotDelete", "stop", False),
        ("CanNotDelete", "start", False),
        ("CanNotDelete", "terminate", True),
        ("ReadOnly", "stop", True),
        ("ReadOnly", "start", True),
        ("ReadOnly", "terminate", True),
    ],
)
def test_what_a_lock_keeps_from_being_done(
    cloud: Cloud, actuator: AzureActuator, level: str, act: str, refused: bool, on: str
) -> None:
    path = cloud.compute.machine(power="deallocated" if act == "start" else "running")
    steps = {"the machine": 9, "its resource group": 5, "its subscription": 3}[on]
    cloud.locks.lock("/".join(path.split("/")[:steps]), level)
    before = cloud.snapshot()

    def ask() -> None:
        if act == "start":
            remembered = {**ASKED, "incarnation": seen(cloud, path).incarnation}
            actuator.restore(ref(path), remembered, request_id="curfew-1")
        else:
            actuator.act(ref(path), Verb(act), request_id="curfew-1")

    if refused:
        with pytest.raises(Protected, match="locked"):
            ask()
    else:
        ask()
    assert (cloud.snapshot() == before) is refused


# Bringing back.


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.HIBERNATE])
def test_it_comes_back_as_it_was(cloud: Cloud, actuator: AzureActuator, verb: Verb) -> None:
    path = cloud.compute.machine(tags={"team": "nlp"}, hibernation=True)
    machine = cloud.compute.machines[path.lower()]
    before = json.dumps(machine.body)
    remembered = remember(actuator, seen(cloud, path), verb)
    actuator.act(ref(path), verb, request_id="curfew-1")
    cloud.settle()
    assert (machine.power, machine.hibernated) == ("deallocated", verb is Verb.HIBERNATE)
    for request_id in ("curfew-2", "curfew-2", "curfew-3"):
        actuator.restore(ref(path), remembered, request_id=request_id)
    cloud.settle()
    assert changes(cloud) == ["Deallocate", "Start"]
    assert (machine.power, machine.hibernated, json.dumps(machine.body)) == ("running", False, before)


@pytest.mark.parametrize("state", [State.STOPPING, State.STOPPED, State.SUSPENDED])
def test_what_was_down_before_stays_down(cloud: Cloud, actuator: AzureActuator, state: State) -> None:
    path = cloud.compute.machine(power="deallocated")
    remembered = remember(actuator, seen(cloud, path, state), Verb.STOP)
    actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert cloud.calls == []


def test_what_was_powered_off_and_billed_runs_when_it_is_wanted_back(cloud: Cloud, actuator: AzureActuator) -> None:
    """Its capacity was held; Azure gives it back only to what runs."""
    path = cloud.compute.machine(power="stopped")
    remembered = remember(actuator, replace(seen(cloud, path), powered_off=True), Verb.STOP)
    actuator.act(ref(path), Verb.STOP, request_id="curfew-1")
    cloud.settle()
    actuator.restore(ref(path), remembered, request_id="curfew-2")
    cloud.settle()
    assert cloud.compute.power(path) == "running"


@pytest.mark.parametrize("power", ["deallocating", "stopping", "deleting"])
def test_what_is_still_on_its_way_down_is_waited_for(cloud: Cloud, actuator: AzureActuator, power: str) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    if power == "deleting":
        cloud.compute.machines[path.lower()].provisioning = "Deleting"
    else:
        cloud.compute.machines[path.lower()].power = power
    with pytest.raises(Conflict, match="once it has stopped"):
        actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize("power", ["running", "starting"])
def test_what_somebody_started_already_is_left_alone(cloud: Cloud, actuator: AzureActuator, power: str) -> None:
    path = cloud.compute.machine(power=power)
    actuator.restore(ref(path), remember(actuator, seen(cloud, path), Verb.STOP), request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize("power", ["stopped", None])
def test_what_does_not_run_for_sure_is_started(cloud: Cloud, actuator: AzureActuator, power: str | None) -> None:
    path = cloud.compute.machine(power=power)
    actuator.restore(ref(path), remember(actuator, seen(cloud, path), Verb.STOP), request_id="curfew-1")
    assert changes(cloud) == ["Start"]


def test_another_machine_under_its_name_is_not_started(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine()
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    cloud.compute.vanish(path)
    cloud.compute.machine(power="deallocated")
    with pytest.raises(NotFound, match="made anew"):
        actuator.restore(ref(path), remembered, request_id="curfew-1")
    assert changes(cloud) == []


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (allocation_failed(), NoCapacity),
        (allocation_failed(zonal=True), NoCapacity),
        (quota_exceeded(), NoCapacity),
        (Refusal(409, "SkuNotAvailable", "The requested size is currently not available here."), NoCapacity),
        (conflict(), Conflict),
        (unavailable(), Unreachable),
    ],
)
def test_what_azure_cannot_start(
    cloud: Cloud, actuator: AzureActuator, refusal: Refusal, expected: type[ProviderError]
) -> None:
    path = cloud.compute.machine(power="deallocated")
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    cloud.refuse("VirtualMachines_Start", refusal)
    with pytest.raises(expected):
        actuator.restore(ref(path), remembered, request_id="curfew-1")


def test_a_start_that_failed_late_can_be_asked_for_again(cloud: Cloud, actuator: AzureActuator) -> None:
    path = cloud.compute.machine(power="deallocated")
    remembered = remember(actuator, seen(cloud, path), Verb.STOP)
    for _ in range(3):
        cloud.operations.fail_next("start", NO_ROOM)
        actuator.restore(ref(path), remembered, request_id="curfew-1")
        cloud.settle()
        assert cloud.compute.power(path) == "deallocated"
    actuator.restore(ref(path), remembered, request_id="curfew-1")
    cloud.settle()
    assert cloud.compute.power(path) == "running"


# What cannot be done here at all.

PLACE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ml/providers"
COMPUTE, LEARNING = f"{PLACE}/Microsoft.Compute", f"{PLACE}/Microsoft.MachineLearningServices"
POOL = f"{PLACE}/Microsoft.ContainerService/managedClusters/ml/agentPools/gpu"


@pytest.mark.parametrize(
    ("path", "kind", "verbs"),
    [
        (f"{COMPUTE}/virtualMachines/trainer", Kind.INSTANCE, {"stop", "hibernate", "terminate"}),
        (f"{LEARNING}/workspaces/vision/computes/lab", Kind.NOTEBOOK, {"stop"}),
        (f"{COMPUTE}/virtualMachineScaleSets/workers", Kind.NODE_GROUP, {"scale_to_zero"}),
        (POOL, Kind.NODE_GROUP, {"scale_to_zero"}),
        (f"{COMPUTE}/virtualMachineScaleSets/workers/virtualMachines/0", Kind.INSTANCE, set()),
        (f"{COMPUTE}/virtualMachines/trainer/../../x", Kind.INSTANCE, set()),
        (f"{COMPUTE}/disks/data", Kind.INSTANCE, set()),
        ("trainer", Kind.INSTANCE, set()),
        (f"{COMPUTE}/virtualMachines/trainer", Kind.NODE_GROUP, set()),
        (f"{COMPUTE}/virtualMachines/trainer", Kind.WORKLOAD, set()),
    ],
)
def test_what_is_not_possible_is_not_even_asked(
    cloud: Cloud, actuator: AzureActuator, path: str, kind: Kind, verbs: set[str]
) -> None:
    of = ResourceRef(provider="azure", account=SUBSCRIPTION, region="westeurope", kind=kind, external_id=path)
    for verb in Verb:
        if verb.value in verbs:
            continue
        with pytest.raises(Unsupported):
            actuator.act(of, verb, request_id="curfew-1")
        with pytest.raises(Unsupported):
            actuator.remember(record(of), verb)
    assert cloud.calls == []


# Compute instances of Azure ML.


class Notebook:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.path = cloud.ml.instance(cloud.ml.workspace())
        self.ref = ref(self.path, Kind.NOTEBOOK)

    @property
    def body(self) -> dict[str, Any]:
        return self.cloud.ml.computes[self.path.lower()]

    def enter(self, state: str) -> None:
        self.body["properties"]["properties"]["state"] = state

    def remembered(self, state: State = State.RUNNING) -> dict[str, Any]:
        return {"verb": "stop", "state": state.value, "created_at": self.body["properties"]["createdOn"]}


@pytest.fixture
def notebook(cloud: Cloud) -> Notebook:
    return Notebook(cloud)


class TestComputeInstances:
    def test_they_stop_and_come_back(self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook) -> None:
        remembered = remember(actuator, record(notebook.ref), Verb.STOP)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(notebook.ref, Verb.STOP, request_id=request_id)
        cloud.settle()
        assert cloud.ml.power(notebook.path) == "Stopped"
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(notebook.ref, remembered, request_id=request_id)
        cloud.settle()
        assert cloud.ml.power(notebook.path) == "Running"
        assert [(call.http, call.path, dict(call.query), call.body) for call in cloud.calls if call.changes] == [
            ("POST", f"{notebook.path}/{verb}", {"api-version": "2024-10-01"}, None) for verb in ("stop", "start")
        ]

    def test_what_is_down_is_left_alone(self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook) -> None:
        for state in ("Stopping", "Stopped", "Deleting"):
            notebook.enter(state)
            actuator.act(notebook.ref, Verb.STOP, request_id="curfew-1")
        for was in (State.STOPPING, State.STOPPED):
            actuator.restore(notebook.ref, notebook.remembered(was), request_id="curfew-2")
        notebook.enter("Running")
        notebook.body["properties"]["provisioningState"] = "Deleting"
        actuator.act(notebook.ref, Verb.STOP, request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_runs_is_not_started(self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook) -> None:
        for state, word in COMPUTE_STATES.items():
            if word in (State.RUNNING, State.PENDING):
                notebook.enter(state)
                actuator.restore(notebook.ref, notebook.remembered(), request_id="curfew-1")
        assert changes(cloud) == []

    @pytest.mark.parametrize("state", ["Stopping", "Deleting", "Unusable", "Unknown", "CreateFailed"])
    def test_what_cannot_be_started_now(
        self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook, state: str
    ) -> None:
        notebook.enter(state)
        with pytest.raises(Conflict, match=f"is {state} yet"):
            actuator.restore(notebook.ref, notebook.remembered(), request_id="curfew-1")
        assert changes(cloud) == []

    def test_what_cannot_be_stopped_now(self, actuator: AzureActuator, notebook: Notebook) -> None:
        notebook.enter("Starting")
        with pytest.raises(Conflict):
            actuator.act(notebook.ref, Verb.STOP, request_id="curfew-1")

    def test_what_is_gone(self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook) -> None:
        remembered = notebook.remembered()
        cloud.ml.vanish(notebook.path)
        with pytest.raises(NotFound):
            actuator.act(notebook.ref, Verb.STOP, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(notebook.ref, remembered, request_id="curfew-2")

    def test_another_one_under_its_name(self, actuator: AzureActuator, notebook: Notebook) -> None:
        notebook.enter("Stopped")
        remembered = {**notebook.remembered(), "created_at": "2020-01-01T00:00:00+00:00"}
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(notebook.ref, remembered, request_id="curfew-1")

    def test_locks(self, cloud: Cloud, actuator: AzureActuator, notebook: Notebook) -> None:
        cloud.locks.lock(notebook.path, "ReadOnly")
        with pytest.raises(Protected):
            actuator.act(notebook.ref, Verb.STOP, request_id="curfew-1")

    def test_a_cluster_is_no_compute_instance(self, cloud: Cloud, actuator: AzureActuator) -> None:
        cluster = ref(cloud.ml.cluster(cloud.ml.workspace()), Kind.NOTEBOOK)
        with pytest.raises(Unsupported, match="sizes itself"):
            actuator.act(cluster, Verb.STOP, request_id="curfew-1")


# What became of acts.

BROKEN = Failure(code="InternalExecutionError", message="An internal execution error occurred.")
NEVER = Failure(code="OperationNotAllowed", message="Never.")


class TestWhatBecameOfActs:
    @pytest.fixture(autouse=True)
    def at_any_time(self, cloud: Cloud) -> None:
        cloud.operations.retry_after = None

    def stopped(
        self, cloud: Cloud, actuator: AzureActuator, name: str, failure: Failure | None = None, **how: Any
    ) -> ResourceRef:
        of = ref(cloud.compute.machine(name, **how))
        if failure is not None:
            cloud.operations.fail_next("deallocate", failure, target=of.external_id)
        actuator.act(of, Verb.STOP, request_id=f"stop-{name}")
        return of

    def looks(self, cloud: Cloud) -> int:
        return cloud.counted["Operations_Get"]

    def test_those_that_failed_and_why(self, cloud: Cloud, actuator: AzureActuator) -> None:
        cloud.operations.looks = 2
        acts = {
            "stop-good": self.stopped(cloud, actuator, "good"),
            "stop-bad": self.stopped(cloud, actuator, "bad", BROKEN),
            "stop-odd": self.stopped(cloud, actuator, "odd", NEVER),
            "stop-late": self.stopped(cloud, actuator, "late", PREEMPTED),
            "stop-never-asked": ref(cloud.compute.machine("other")),
        }
        assert actuator.failures(acts) == {}, "all are under way"
        found = actuator.failures(acts)
        assert {request_id: type(error) for request_id, error in found.items()} == {
            "stop-bad": Unreachable,
            "stop-odd": Unsupported,
            "stop-late": Conflict,
        }
        assert found["stop-odd"].sentence == f"stop of {acts['stop-odd'].external_id}: Never (OperationNotAllowed)"

    def test_a_start_for_which_there_is_no_room(self, cloud: Cloud, actuator: AzureActuator) -> None:
        path = cloud.compute.machine(power="deallocated")
        cloud.operations.fail_next("start", NO_ROOM)
        remembered = remember(actuator, seen(cloud, path), Verb.STOP)
        actuator.restore(ref(path), remembered, request_id="start-1")
        (error,) = actuator.failures({"start-1": ref(path)}).values()
        assert isinstance(error, NoCapacity)
        assert error.sentence.startswith(f"start of {path}: Allocation failed")
        actuator.restore(ref(path), remembered, request_id="start-1")
        assert actuator.failures({"start-1": ref(path)}) == {}, "what is asked again has not failed"
        assert cloud.compute.power(path) == "running"

    def test_what_succeeded_is_not_asked_about_again(self, cloud: Cloud, actuator: AzureActuator) -> None:
        acts = {"stop-good": self.stopped(cloud, actuator, "good")}
        for _ in range(3):
            assert actuator.failures(acts) == {}
        assert self.looks(cloud) == 1

    def test_what_failed_is_told_until_nobody_asks(self, cloud: Cloud, actuator: AzureActuator) -> None:
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", BROKEN)}
        assert [actuator.failures(acts).keys() for _ in range(3)] == [acts.keys()] * 3
        assert self.looks(cloud) == 1
        assert actuator.failures({}) == {}
        assert actuator.failures(acts) == {}

    def test_what_nobody_asks_about_is_kept_while_it_is_under_way(self, cloud: Cloud, actuator: AzureActuator) -> None:
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", BROKEN)}
        assert actuator.failures({}) == {}
        assert actuator.failures(acts).keys() == acts.keys()

    def test_what_azure_has_forgotten_is_forgotten(self, cloud: Cloud, actuator: AzureActuator) -> None:
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", BROKEN)}
        cloud.operations.begun.clear()
        for _ in range(2):
            assert actuator.failures(acts) == {}
        assert self.looks(cloud) == 1

    def test_what_was_asked_before_a_restart_is_left_out(
        self, cloud: Cloud, actuator: AzureActuator, client: Client
    ) -> None:
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", BROKEN)}
        assert AzureActuator(client).failures(acts) == {}
        assert self.looks(cloud) == 0

    def test_nothing_is_looked_at_earlier_than_azure_wants(self, cloud: Cloud, client: Client) -> None:
        cloud.operations.retry_after, cloud.operations.looks = 10, 2
        clock = [0.0]
        actuator = AzureActuator(client, clock=lambda: clock[0])
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", BROKEN)}
        told = []
        for clock[0] in (0.0, 9.0, 10.0, 19.0, 20.0):
            told.append((self.looks(cloud), [*actuator.failures(acts)]))
        assert told == [(0, []), (0, []), (0, []), (1, []), (1, ["stop-bad"])]

    def test_all_together_by_a_few_threads(
        self, cloud: Cloud, actuator: AzureActuator, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = set()
        outcome = client.outcome

        def noticed(operation: str, what: str) -> Outcome:
            threads.add(current_thread())
            return outcome(operation, what)

        monkeypatch.setattr(client, "outcome", noticed)
        acts = {f"stop-m{number}": self.stopped(cloud, actuator, f"m{number}", NEVER) for number in range(25)}
        assert actuator.failures(acts).keys() == acts.keys()
        assert self.looks(cloud) == 25
        assert len(threads) <= AT_ONCE
        assert main_thread() not in threads

    def test_a_subscription_that_does_not_answer_delays_no_other(self, cloud: Cloud, actuator: AzureActuator) -> None:
        acts = {
            "stop-here": self.stopped(cloud, actuator, "here", NEVER),
            "stop-there": self.stopped(cloud, actuator, "there", NEVER, subscription=OTHER),
        }
        with cloud.unreachable(SUBSCRIPTION):
            assert actuator.failures(acts).keys() == {"stop-there"}, "a fault in asking is no failure"
        assert actuator.failures(acts).keys() == acts.keys()

    def test_an_answer_that_does_not_come_is_not_waited_for(
        self, cloud: Cloud, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        actuator = AzureActuator(client, patience_seconds=0.05)
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", NEVER)}
        answered = Event()

        def slow(operation: str, what: str) -> Outcome:
            answered.wait(10)
            return Outcome(ended=False)

        monkeypatch.setattr(client, "outcome", slow)
        assert actuator.failures(acts) == {}
        answered.set()

    def test_those_that_cannot_be_looked_at_do_not_keep_others_from_it(
        self, cloud: Cloud, actuator: AzureActuator
    ) -> None:
        denied = {f"stop-m{number}": self.stopped(cloud, actuator, f"m{number}", NEVER) for number in range(9)}
        places = {one.path for one in cloud.operations.begun.values()}
        acts = {**denied, "stop-bad": self.stopped(cloud, actuator, "bad", NEVER)}
        refused = Refusal(403, "AuthorizationFailed", "You may not.").reply
        with cloud.within(lambda call: refused if call.path in places else None):
            assert actuator.failures(acts).keys() == {"stop-bad"}

    def test_what_is_throttled_is_left_for_later(self, cloud: Cloud, client: Client) -> None:
        clock = [0.0]
        actuator = AzureActuator(client, clock=lambda: clock[0])
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", NEVER)}
        with cloud.throttled(retry_after=30):
            assert actuator.failures(acts) == {}
        assert actuator.failures(acts) == {}
        clock[0] = 30.0
        assert actuator.failures(acts).keys() == acts.keys()

    def test_no_more_are_known_than_can_be_kept(
        self, cloud: Cloud, actuator: AzureActuator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_OPERATIONS", 3)
        acts = {f"stop-m{number}": self.stopped(cloud, actuator, f"m{number}", NEVER) for number in range(5)}
        assert [*actuator.failures(acts)] == ["stop-m2", "stop-m3", "stop-m4"]

    @pytest.mark.parametrize(
        "reply",
        [
            NO_ANSWER,
            Reply(status=502, body=b"<html>"),
            answer({}, status=202),
            answer({"status": "InProgress", "error": "?"}),
            answer({"status": 3}),
            Refusal(401, "ExpiredAuthenticationToken", "The token has expired.").reply,
            Refusal(403, "AuthorizationFailed", "You may not.").reply,
            Refusal(404, "SubscriptionNotFound", "There is none.").reply,
            Refusal(429, "TooManyRequests", "Later.").reply,
            Refusal(500, "InternalServerError", "No.").reply,
        ],
    )
    def test_what_cannot_be_told_is_left_out_and_asked_again(
        self, cloud: Cloud, actuator: AzureActuator, reply: Reply
    ) -> None:
        acts = {"stop-bad": self.stopped(cloud, actuator, "bad", NEVER)}
        with cloud.within(lambda call: reply if call.method == "Operations_Get" else None):
            assert actuator.failures(acts) == {}
        assert actuator.failures(acts).keys() == acts.keys()

    @pytest.mark.parametrize("failure", [None, NO_ROOM])
    def test_an_operation_that_has_only_a_location(
        self, cloud: Cloud, actuator: AzureActuator, failure: Failure | None
    ) -> None:
        """Some of Azure's services tell no status, but answer there what they would have answered at once."""
        cloud.operations.looks = 2

        def bare(call: Call) -> Reply | None:
            if call.method != "VirtualMachines_Deallocate":
                return None
            found = cloud._found(call.http, call.path)
            assert found is not None
            told = found[2](call)
            assert isinstance(told, Reply)
            return Reply(status=202, headers={"Location": told.headers["Location"]})

        with cloud.within(bare):
            acts = {"stop-some": self.stopped(cloud, actuator, "some", failure)}
        assert actuator.failures(acts) == {}
        found = actuator.failures(acts)
        assert [type(error) for error in found.values()] == ([NoCapacity] if failure else [])
        assert actuator.failures(acts).keys() == found.keys()
        assert self.looks(cloud) == 2

    def test_nothing_under_way_is_not_asked(self, cloud: Cloud, actuator: AzureActuator) -> None:
        assert actuator.failures({}) == {}
        assert actuator.failures({"stop-1": ref(cloud.compute.machine())}) == {}
        assert cloud.calls == []
