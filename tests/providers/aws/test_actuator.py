"""What is done to single machines, over HTTP, with AWS's own refusals before moto. Groups are beside this."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.contract import Actuator, Provider
from providers.errors import Conflict, Forbidden, NoCapacity, NotFound, Protected, ProviderError, Unsupported
from providers.records import Kind, ResourceRef, Verb
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import ACCOUNT, REGION, make_fleet, sdk, start_instance, start_spot_instance
from tests.providers.aws.front import Front

RUNNING = {"state": "running", "launched_at": "2026-11-22T08:00:00+00:00"}


@pytest.fixture
def actuator(aws: Build) -> Actuator:
    found = aws().actuator
    assert found is not None
    return found


def ref(instance_id: str) -> ResourceRef:
    return ResourceRef(provider="aws", account=ACCOUNT, region=REGION, kind=Kind.INSTANCE, external_id=instance_id)


def remembered_by(provider: Provider, instance_id: str, verb: Verb) -> dict[str, Any]:
    """As the store keeps it."""
    assert provider.inventory is not None
    assert provider.actuator is not None
    record = provider.inventory.describe(ref(instance_id))
    remembered: dict[str, Any] = json.loads(json.dumps(provider.actuator.remember(record, verb)))
    return remembered


def state(moto: str, instance_id: str) -> str:
    answer = sdk(moto, "ec2").describe_instances(InstanceIds=[instance_id])
    word: str = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
    return word


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("stop_protected", Protected),
        ("spot_one_time", Unsupported),
        ("root_on_instance_store", Unsupported),
        ("terminated", Conflict),
    ],
)
def test_what_aws_refuses_to_stop(moto: str, actuator: Actuator, machine: str, expected: type[ProviderError]) -> None:
    instance_id = make_fleet(moto)[machine]
    before = state(moto, instance_id)
    with pytest.raises(expected):
        actuator.act(ref(instance_id), Verb.STOP, request_id="curfew-1")
    assert state(moto, instance_id) == before


@pytest.mark.parametrize("machine", ["on_demand", "spot_persistent", "stopped", "untagged"])
def test_what_aws_stops(moto: str, actuator: Actuator, machine: str) -> None:
    instance_id = make_fleet(moto)[machine]
    actuator.act(ref(instance_id), Verb.STOP, request_id="curfew-1")
    assert state(moto, instance_id) == "stopped"


def test_one_call_names_one_machine(moto: str, front: Front, actuator: Actuator) -> None:
    first, second = start_instance(moto, "g6.xlarge"), start_instance(moto, "g6.xlarge")
    for instance_id in (first, second):
        actuator.act(ref(instance_id), Verb.STOP, request_id="curfew-1")
    assert [call.instance_ids for call in front.calls] == [[first], [second]]


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in (Verb.STOP, Verb.HIBERNATE, Verb.TERMINATE)])
def test_what_is_not_declared_is_not_even_asked(front: Front, actuator: Actuator, verb: Verb) -> None:
    with pytest.raises(Unsupported):
        actuator.act(ref("i-0abc"), verb, request_id="curfew-1")
    assert not front.calls


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.INSTANCE, Kind.NODE_GROUP)])
def test_nothing_else_is_acted_on(front: Front, actuator: Actuator, kind: Kind) -> None:
    with pytest.raises(Unsupported):
        actuator.act(replace(ref("i-0abc"), kind=kind), Verb.STOP, request_id="curfew-1")
    assert not front.calls


def test_hibernating_is_stopping_with_the_memory_kept(moto: str, front: Front, aws: Build, actuator: Actuator) -> None:
    instance_id = make_fleet(moto)["on_demand"]
    remembered = remembered_by(aws(), instance_id, Verb.HIBERNATE)
    actuator.act(ref(instance_id), Verb.HIBERNATE, request_id="curfew-1")
    (stopping,) = [call for call in front.calls if call.operation == "StopInstances"]
    assert stopping.fields["Hibernate"] == ["true"]
    assert state(moto, instance_id) == "stopped"
    actuator.restore(ref(instance_id), remembered, request_id="curfew-2")
    assert state(moto, instance_id) == "running"


def test_stopping_never_hibernates(moto: str, front: Front, actuator: Actuator) -> None:
    actuator.act(ref(start_instance(moto, "g6.xlarge")), Verb.STOP, request_id="curfew-1")
    assert "Hibernate" not in front.calls[-1].fields


def test_what_was_not_launched_for_it_is_not_hibernated(front: Front, actuator: Actuator) -> None:
    front.refuse("ec2:StopInstances", "UnsupportedHibernationConfiguration", "It cannot be hibernated.")
    with pytest.raises(Unsupported):
        actuator.act(ref("i-0abc"), Verb.HIBERNATE, request_id="curfew-1")


@pytest.mark.parametrize("machine", ["on_demand", "spot_one_time", "spot_persistent", "stopped", "terminated"])
def test_what_is_terminated(moto: str, actuator: Actuator, machine: str) -> None:
    instance_id = make_fleet(moto)[machine]
    for _ in range(2):
        actuator.act(ref(instance_id), Verb.TERMINATE, request_id="curfew-1")
    assert state(moto, instance_id) == "terminated"


@pytest.mark.parametrize(
    ("request_type", "expected"),
    [
        ("persistent", ["CancelSpotInstanceRequests", "TerminateInstances"]),
        ("one-time", ["TerminateInstances"]),
    ],
)
def test_a_spot_request_that_would_bring_another_goes_first(
    moto: str, front: Front, actuator: Actuator, request_type: str, expected: list[str]
) -> None:
    instance_id = start_spot_instance(moto, "g5.xlarge", request_type=request_type)
    actuator.act(ref(instance_id), Verb.TERMINATE, request_id="curfew-1")
    assert [call.operation for call in front.calls if not call.operation.startswith("Describe")] == expected


def test_termination_protection_refuses(moto: str, actuator: Actuator) -> None:
    instance_id = start_instance(moto, "g6.xlarge")
    sdk(moto, "ec2").modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": True})
    with pytest.raises(Protected):
        actuator.act(ref(instance_id), Verb.TERMINATE, request_id="curfew-1")
    assert state(moto, instance_id) == "running"


def test_nothing_brings_back_what_was_terminated(moto: str, front: Front, aws: Build, actuator: Actuator) -> None:
    instance_id = start_instance(moto, "g6.xlarge")
    remembered = remembered_by(aws(), instance_id, Verb.TERMINATE)
    actuator.act(ref(instance_id), Verb.TERMINATE, request_id="curfew-1")
    with pytest.raises(Unsupported, match="nothing brings it back"):
        actuator.restore(ref(instance_id), remembered, request_id="curfew-2")
    assert front.counted["ec2:StartInstances"] == 0


def test_what_was_remembered_before_verbs_were_is_a_stop(moto: str, actuator: Actuator) -> None:
    instance_id = make_fleet(moto)["stopped"]
    actuator.restore(ref(instance_id), RUNNING, request_id="curfew-1")
    assert state(moto, instance_id) == "running"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InsufficientInstanceCapacity", NoCapacity),
        ("VcpuLimitExceeded", NoCapacity),
        ("IncorrectInstanceState", Conflict),
        ("IncorrectSpotRequestState", Conflict),
        ("InvalidInstanceID.NotFound", NotFound),
        ("UnauthorizedOperation", Forbidden),
    ],
)
def test_what_aws_cannot_start(front: Front, actuator: Actuator, code: str, expected: type[ProviderError]) -> None:
    front.refuse("ec2:StartInstances", code, "Not now.")
    with pytest.raises(expected):
        actuator.restore(ref("i-0abc"), RUNNING, request_id="curfew-1")


def test_what_was_down_before_stays_down(moto: str, front: Front, aws: Build, actuator: Actuator) -> None:
    instance_id = make_fleet(moto)["stopped"]
    remembered = remembered_by(aws(), instance_id, Verb.STOP)
    actuator.restore(ref(instance_id), remembered, request_id="curfew-1")
    assert state(moto, instance_id) == "stopped"
    assert front.counted["ec2:StartInstances"] == 0
