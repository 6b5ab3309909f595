"""Stopping and starting over HTTP, with AWS's own refusals before moto."""

from __future__ import annotations

import json

import pytest

from providers.contract import Actuator
from providers.errors import Conflict, Forbidden, NoCapacity, NotFound, Protected, ProviderError, Unsupported
from providers.records import Kind, ResourceRef, Verb
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import ACCOUNT, REGION, make_fleet, sdk, start_instance
from tests.providers.aws.front import Front

RUNNING = {"state": "running", "launched_at": "2026-11-22T08:00:00+00:00"}


@pytest.fixture
def actuator(aws: Build) -> Actuator:
    found = aws().actuator
    assert found is not None
    return found


def ref(instance_id: str) -> ResourceRef:
    return ResourceRef(provider="aws", account=ACCOUNT, region=REGION, kind=Kind.INSTANCE, external_id=instance_id)


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


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.STOP])
def test_what_is_not_declared_is_not_even_asked(front: Front, actuator: Actuator, verb: Verb) -> None:
    with pytest.raises(Unsupported):
        actuator.act(ref("i-0abc"), verb, request_id="curfew-1")
    assert not front.calls


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


def test_what_was_down_before_stays_down(moto: str, front: Front, aws: Build) -> None:
    provider, instance_id = aws(), make_fleet(moto)["stopped"]
    assert provider.inventory is not None
    assert provider.actuator is not None
    record = provider.inventory.describe(ref(instance_id))
    remembered = json.loads(json.dumps(provider.actuator.remember(record, Verb.STOP)))
    provider.actuator.restore(ref(instance_id), remembered, request_id="curfew-1")
    assert state(moto, instance_id) == "stopped"
    assert front.counted["ec2:StartInstances"] == 0
