"""Calls over HTTP, and everything that can go wrong with one, in our words."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.config import Config as SdkConfig

from providers.aws import Config, client
from providers.aws.client import Client
from providers.contract import Capabilities
from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from tests.providers.aws.fleet import ACCOUNT, REGION
from tests.providers.aws.front import NO_ANSWER, Front, Reply, error

OTHER_ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{OTHER_ACCOUNT}:role/curfew"


@pytest.fixture
def calls(front: Front) -> Client:
    return Client(Config(regions=(REGION,), endpoint=front.endpoint))


def stop(calls: Client) -> None:
    calls.call("ec2", REGION, "StopInstances", InstanceIds=["i-0abc"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("RequestLimitExceeded", Throttled),
        ("UnauthorizedOperation", Forbidden),
        ("AuthFailure", Misconfigured),
        ("OptInRequired", Misconfigured),
        ("RequestExpired", Misconfigured),
        ("InvalidInstanceID.NotFound", NotFound),
        ("InvalidInstanceID.Malformed", NotFound),
        ("InvalidVpcID.NotFound", NotFound),
        ("InsufficientInstanceCapacity", NoCapacity),
        ("IncorrectInstanceState", Conflict),
        ("IncorrectSpotRequestState", Conflict),
        ("OperationNotPermitted", Protected),
        ("UnsupportedOperation", Unsupported),
        ("Unavailable", Unreachable),
        ("InternalError", Unreachable),
        ("AWordOfTomorrow", Unsupported),
    ],
)
def test_a_refusal_by_its_code(front: Front, calls: Client, code: str, expected: type[ProviderError]) -> None:
    front.refuse("ec2:StopInstances", code, "Because.")
    with pytest.raises(ProviderError) as refused:
        stop(calls)
    assert type(refused.value) is expected
    assert "ec2:StopInstances in us-east-1" in refused.value.sentence
    assert "Because" in refused.value.sentence
    assert refused.value.__cause__ is not None


class TestTheMissingPermissionIsNamed:
    def refused(self, front: Front, calls: Client, message: str) -> Forbidden:
        front.refuse("ec2:StopInstances", "UnauthorizedOperation", message)
        with pytest.raises(Forbidden) as refused:
            stop(calls)
        return refused.value

    def test_by_the_call_that_failed(self, front: Front, calls: Client) -> None:
        message = "You are not authorized to perform this operation."
        assert self.refused(front, calls, message).permission == "ec2:StopInstances"

    def test_by_aws_where_it_names_another(self, front: Front, calls: Client) -> None:
        message = (
            "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/curfew/x "
            "is not authorized to perform: kms:CreateGrant on resource: arn:aws:kms:us-east-1:123456789012:key/1 "
            "because no identity-based policy allows the action."
        )
        found = self.refused(front, calls, message)
        assert found.permission == "kms:CreateGrant"
        assert found.as_fault().permission == "kms:CreateGrant"

    def test_without_the_blob_that_nobody_can_read(self, front: Front, calls: Client) -> None:
        message = "You are not authorized. Encoded authorization failure message: " + "4GIOHlTkIaWHQD0Q0m6XSnuUMCm" * 40
        sentence = self.refused(front, calls, message).sentence
        assert "4GIOHl" not in sentence
        assert sentence.endswith("it needs ec2:StopInstances")


class TestPatience:
    def test_reading_tries_six_times_and_waits_longer_each_time(
        self, front: Front, calls: Client, pauses: list[float]
    ) -> None:
        front.refuse("ec2:DescribeInstances", "RequestLimitExceeded")
        with pytest.raises(Throttled):
            list(calls.items("ec2", REGION, "DescribeInstances", "Reservations"))
        assert front.counted["ec2:DescribeInstances"] == 6
        assert all(pause <= 2**attempt for attempt, pause in enumerate(pauses))

    def test_a_stumble_is_not_a_failure(self, front: Front, calls: Client) -> None:
        front.answer("ec2:DescribeInstances", NO_ANSWER, times=2)
        front.refuse("ec2:DescribeInstances", "Unavailable", times=2)
        assert list(calls.items("ec2", REGION, "DescribeInstances", "Reservations")) == []

    def test_acting_tries_twice(self, front: Front, calls: Client) -> None:
        front.answer("ec2:StopInstances", NO_ANSWER)
        with pytest.raises(Unreachable):
            calls.call("ec2", REGION, "StopInstances", prompt=True, InstanceIds=["i-0abc"])
        assert front.counted["ec2:StopInstances"] == 2

    def test_a_named_pause_is_passed_on(self, front: Front, calls: Client) -> None:
        slow_down = error("ec2", "RequestLimitExceeded", headers={"Retry-After": "7"})
        front.answer("ec2:StopInstances", slow_down)
        with pytest.raises(Throttled) as throttled:
            stop(calls)
        assert throttled.value.retry_after == 7


class TestWhatIsNotAws:
    ODD = pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"<html><body>Sign in to the network</body></html>", id="a well-formed page"),
            pytest.param(b"<!doctype html><p>Sign in<br>", id="a page that is no XML"),
            pytest.param(b"<DescribeInstancesResponse><reservationSet><item>", id="half an answer"),
            pytest.param(b"[1, 2]", id="a list"),
            pytest.param(b"null", id="null"),
            pytest.param(b'{"Metrics": 3, "Reservations": 3}', id="the right word with a wrong value"),
            pytest.param(b"\xa2\xff\x00", id="bytes"),
        ],
    )

    @ODD
    def test_is_no_answer_from_ec2(self, front: Front, calls: Client, body: bytes) -> None:
        front.answer("ec2:DescribeInstances", Reply(status=200, body=body))
        with pytest.raises(Unreachable):
            list(calls.items("ec2", REGION, "DescribeInstances", "Reservations"))

    @ODD
    def test_is_no_answer_from_cloudwatch(self, front: Front, calls: Client, body: bytes) -> None:
        front.answer("cloudwatch:ListMetrics", Reply(status=200, body=body))
        with pytest.raises(Unreachable):
            list(calls.items("cloudwatch", REGION, "ListMetrics", "Metrics"))

    @ODD
    def test_is_no_refusal_either(self, front: Front, calls: Client, body: bytes) -> None:
        front.answer("ec2:StopInstances", Reply(status=502, body=body))
        front.answer("cloudwatch:ListMetrics", Reply(status=502, body=body))
        with pytest.raises(Unreachable):
            stop(calls)
        with pytest.raises(Unreachable):
            list(calls.items("cloudwatch", REGION, "ListMetrics", "Metrics"))

    def test_nobody_listening_is_unreachable(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            calls = Client(Config(regions=(REGION,), endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}"))
            with pytest.raises(Unreachable) as told:
                stop(calls)
        assert "did you mean" not in told.value.sentence

    def test_a_misspelt_region_is_told_from_a_broken_network(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            calls = Client(Config(regions=("us-eats-1",), endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}"))
            with pytest.raises(Unreachable) as told:
                calls.call("ec2", "us-eats-1", "StopInstances", InstanceIds=["i-0abc"])
        assert "did you mean 'us-east-1'?" in told.value.sentence

    def test_a_server_that_never_answers_is_given_up(self, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
        impatient = SdkConfig(retries={"mode": "standard", "total_max_attempts": 1}, read_timeout=0.05)
        monkeypatch.setattr(client, "PROMPT", impatient)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            calls = Client(Config(regions=(REGION,), endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}"))
            with pytest.raises(Unreachable):
                calls.call("ec2", REGION, "StopInstances", prompt=True, InstanceIds=["i-0abc"])


class TestCredentials:
    def test_none_at_all(self, front: Front, calls: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(Misconfigured):
            stop(calls)
        assert not front.calls

    def test_a_profile_that_does_not_exist(self) -> None:
        with pytest.raises(Misconfigured) as told:
            Client(Config(profile="reserch"))
        assert "reserch" in told.value.sentence

    def test_the_account_is_whose_credentials_they_are(self, calls: Client) -> None:
        assert calls.account() == ACCOUNT

    def test_a_role_answers_for_its_own_account(self, front: Front) -> None:
        calls = Client(Config(regions=(REGION,), endpoint=front.endpoint, role_arn=ROLE, external_id="curfew-7"))
        assert not front.calls, "nothing is asked before it is needed"
        assert calls.account() == OTHER_ACCOUNT
        (assumed,) = [call for call in front.calls if call.action == "sts:AssumeRole"]
        assert assumed.fields["RoleArn"] == [ROLE]
        assert assumed.fields["ExternalId"] == ["curfew-7"]

    def test_a_role_is_assumed_once_for_all_calls(self, front: Front) -> None:
        calls = Client(Config(regions=(REGION,), endpoint=front.endpoint, role_arn=ROLE))
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: calls.account(), range(16))) == {OTHER_ACCOUNT}
        assert front.counted["sts:AssumeRole"] == 1

    def test_a_role_that_may_not_be_assumed_is_what_is_missing(self, front: Front) -> None:
        front.refuse("sts:AssumeRole", "AccessDenied", "User: arn:aws:iam::1:user/x is not authorized")
        calls = Client(Config(regions=(REGION,), endpoint=front.endpoint, role_arn=ROLE))
        with pytest.raises(Forbidden) as refused:
            stop(calls)
        assert refused.value.permission == "sts:AssumeRole"

    def test_credentials_near_their_end_are_renewed(self, front: Front) -> None:
        front.answer("sts:AssumeRole", assumed_until(datetime.now(UTC) + timedelta(minutes=5)), times=1)
        calls = Client(Config(regions=(REGION,), endpoint=front.endpoint, role_arn=ROLE))
        calls.account()
        assert calls.account() == OTHER_ACCOUNT
        assert front.counted["sts:AssumeRole"] == 2

    def test_credentials_that_arrive_expired_are_a_wrong_clock(self, front: Front) -> None:
        front.answer("sts:AssumeRole", assumed_until(datetime.now(UTC) - timedelta(hours=1)))
        calls = Client(Config(regions=(REGION,), endpoint=front.endpoint, role_arn=ROLE))
        with pytest.raises(Misconfigured) as told:
            stop(calls)
        assert "clock" in told.value.sentence

    @pytest.mark.parametrize(
        ("config", "home"),
        [
            (Config(), "us-east-1"),
            (Config(regions=("eu-west-1", "us-east-1")), "eu-west-1"),
            (Config(role_arn="arn:aws-us-gov:iam::123456789012:role/curfew"), "us-gov-west-1"),
        ],
    )
    def test_questions_about_no_region_go_to_one_of_the_same_partition(self, config: Config, home: str) -> None:
        assert Client(config).home_region == home


def assumed_until(end: datetime) -> Reply:
    """Credentials of moto's own account, ending then."""
    return Reply(
        status=200,
        headers={"Content-Type": "text/xml"},
        body=(
            '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
            "<AccessKeyId>ASIATESTING</AccessKeyId><SecretAccessKey>testing</SecretAccessKey>"
            f"<SessionToken>testing</SessionToken><Expiration>{end:%Y-%m-%dT%H:%M:%SZ}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        ).encode(),
    )


def test_an_act_ends_in_the_time_it_declares() -> None:
    """Two attempts with a second between them, after a renewal of the role's credentials that takes as many."""

    def longest(patience: Any) -> int:
        assert patience.retries == {"mode": "standard", "total_max_attempts": 2}
        one_attempt: int = patience.connect_timeout + patience.read_timeout
        return 2 * one_attempt + 1

    assert longest(client.PROMPT) + longest(client.RENEWAL) <= Capabilities(verbs={}).act_timeout_seconds
