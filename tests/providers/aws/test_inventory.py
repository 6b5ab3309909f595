"""Listing and describing a mixed account over HTTP: what is seen, what is said about what could not be seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from providers.aws import inventory
from providers.contract import Inventory, Provider
from providers.errors import Forbidden, Misconfigured, NotFound, Throttled, Unreachable, Unsupported
from providers.records import (
    CapacityType,
    InventoryAnswer,
    Kind,
    LossName,
    PartReport,
    ResourceRecord,
    ResourceRef,
    State,
    Verb,
)
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import (
    ACCOUNT,
    REGION,
    forget,
    make_fleet,
    sdk,
    set_launch_time,
    start_instance,
    start_spot_instance,
)
from tests.providers.aws.front import NO_ANSWER, Call, Front, Reply

DENIED = "You are not authorized to perform this operation."


def of(provider: Provider) -> Inventory:
    assert provider.inventory is not None
    return provider.inventory


def by_id(answer: InventoryAnswer) -> Mapping[str, ResourceRecord]:
    return {record.ref.external_id: record for record in answer.records}


def part(answer: InventoryAnswer, name: str = REGION) -> PartReport:
    return next(report for report in answer.parts if report.part == name)


def ref(instance_id: str, *, region: str = REGION, account: str = ACCOUNT) -> ResourceRef:
    return ResourceRef(provider="aws", account=account, region=region, kind=Kind.INSTANCE, external_id=instance_id)


def stop_blockers(record: ResourceRecord) -> list[str]:
    return [blocker.code for blocker in record.blockers if blocker.verb is Verb.STOP]


def regions_named(*names: str) -> Reply:
    items = "".join(f"<item><regionName>{name}</regionName></item>" for name in names)
    body = f"<DescribeRegionsResponse><regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
    return Reply(status=200, body=body.encode(), headers={"Content-Type": "text/xml"})


def types_asked(call: Call) -> list[str]:
    return [value for key, values in call.fields.items() if key.startswith("Filter.1.Value.") for value in values]


class TestAMixedFleet:
    def test_is_seen_as_it_is(self, moto: str, aws: Build) -> None:
        fleet = make_fleet(moto)
        answer = of(aws()).list()
        seen = by_id(answer)
        assert set(seen) == {*fleet.values(), "trainers"} - {fleet["no_gpu"]}
        assert seen["trainers"].members == (fleet["group_member"],)
        assert (answer.identity, answer.complete) == (ACCOUNT, True)
        assert [report.fault for report in answer.parts] == [None]

        trainer = seen[fleet["on_demand"]]
        assert (trainer.name, trainer.sku, trainer.gpu_model, trainer.gpu_count) == (
            "trainer",
            "p5.48xlarge",
            "H100",
            8,
        )
        assert (trainer.capacity_type, trainer.state) == (CapacityType.ON_DEMAND, State.RUNNING)
        assert trainer.tags["project"] == "vision"
        assert {loss.name for loss in trainer.losses} == {LossName.LOCAL_DISKS}
        assert trainer.launched_at is not None
        assert not trainer.fully_described

        assert seen[fleet["untagged"]].name == fleet["untagged"]
        assert seen[fleet["group_member"]].managed_by == "autoscaling:trainers"
        assert seen[fleet["kubernetes_node"]].managed_by == "kubernetes:research"
        assert seen[fleet["inference"]].gpu_model == "Inferentia2"
        assert seen[fleet["stopped"]].state is State.STOPPED
        assert seen[fleet["terminated"]].state is State.TERMINATED
        assert seen[fleet["no_local_disks"]].losses == ()
        assert [found.source for found in seen[fleet["tag_protected"]].protections] == ["curfew-protect"]

    @pytest.mark.parametrize(
        ("machine", "codes"),
        [
            ("on_demand", []),
            ("spot_persistent", []),
            ("spot_one_time", ["OneTimeSpot"]),
            ("root_on_instance_store", ["InstanceStoreRoot"]),
            ("terminated", ["Terminated"]),
        ],
    )
    def test_what_aws_would_refuse_to_stop_is_known_before(
        self, moto: str, aws: Build, machine: str, codes: list[str]
    ) -> None:
        instance_id, provider = make_fleet(moto)[machine], aws()
        assert stop_blockers(by_id(of(provider).list())[instance_id]) == codes
        assert stop_blockers(of(provider).describe(ref(instance_id))) == codes

    def test_its_last_start_is_told_not_its_creation(self, moto: str, aws: Build) -> None:
        instance_id, days_ago = start_instance(moto, "g6.xlarge"), datetime(2026, 7, 1, 8, tzinfo=UTC)
        set_launch_time(instance_id, days_ago)
        assert by_id(of(aws()).list())[instance_id].launched_at == days_ago

    def test_is_listed_in_five_calls_and_in_three_when_its_types_and_spot_requests_are_known(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        make_fleet(moto)
        provider = aws()
        of(provider).list()
        first = front.counted
        of(provider).list()
        again = front.counted - first
        always = Counter(
            [
                "sts:GetCallerIdentity",
                "ec2:DescribeInstances",
                "autoscaling:DescribeAutoScalingGroups",
            ]
        )
        assert first == always + Counter(["ec2:DescribeInstanceTypes", "ec2:DescribeSpotInstanceRequests"])
        assert again == always


class TestPages:
    def test_all_are_read(self, moto: str, front: Front, aws: Build, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inventory, "PAGE", 2)
        started = {start_instance(moto, "g6.xlarge") for _ in range(7)}
        assert set(by_id(of(aws()).list())) == started
        assert front.counted["ec2:DescribeInstances"] == 4

    def test_a_page_that_fails_makes_the_part_incomplete_and_keeps_what_was_seen(
        self, moto: str, front: Front, aws: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inventory, "PAGE", 2)
        started = {start_instance(moto, "g6.xlarge") for _ in range(7)}
        front.rules.append(
            lambda call: NO_ANSWER if call.operation == "DescribeInstances" and "NextToken" in call.fields else None
        )
        answer = of(aws()).list()
        assert len(set(by_id(answer)) & started) == 2
        assert not answer.complete


class TestRegions:
    def test_all_means_those_enabled(self, moto: str, front: Front, aws: Build) -> None:
        here, there = start_instance(moto, "g6.xlarge"), start_instance(moto, "g5.xlarge", region="eu-west-1")
        start_instance(moto, "g5.xlarge", region="eu-north-1")
        front.answer("ec2:DescribeRegions", regions_named("us-east-1", "eu-west-1"))
        answer = of(aws(regions="all")).list()
        assert {instance_id: record.ref.region for instance_id, record in by_id(answer).items()} == {
            here: "us-east-1",
            there: "eu-west-1",
        }
        assert [report.part for report in answer.parts] == ["eu-west-1", "us-east-1"]

    def test_all_cannot_be_guessed(self, front: Front, aws: Build) -> None:
        front.refuse("ec2:DescribeRegions", "UnauthorizedOperation", DENIED)
        with pytest.raises(Forbidden) as refused:
            of(aws(regions="all")).list()
        assert refused.value.permission == "ec2:DescribeRegions"

    def test_one_that_is_not_enabled_says_so_and_sinks_no_other(self, moto: str, front: Front, aws: Build) -> None:
        here = start_instance(moto, "g6.xlarge")
        message = "AWS was not able to validate the provided access credentials"
        front.refuse("ec2:DescribeInstances", "AuthFailure", message, region="me-south-1")
        answer = of(aws(regions=["me-south-1", REGION])).list()
        assert set(by_id(answer)) == {here}
        assert part(answer).complete
        dark = part(answer, "me-south-1")
        assert not dark.complete
        assert dark.fault is not None
        assert dark.fault.code == "Misconfigured"
        assert "is me-south-1 enabled in this account?" in dark.fault.sentence

    def test_a_denied_one_names_the_permission(self, moto: str, front: Front, aws: Build) -> None:
        front.refuse("ec2:DescribeInstances", "UnauthorizedOperation", DENIED)
        fault = part(of(aws()).list()).fault
        assert fault is not None
        assert fault.permission == "ec2:DescribeInstances"

    def test_without_an_account_nothing_is_listed(self, front: Front, aws: Build) -> None:
        front.refuse("sts:GetCallerIdentity", "InvalidClientTokenId", "The security token is invalid.")
        with pytest.raises(Misconfigured):
            of(aws()).list()

    def test_a_page_in_front_of_aws_is_no_empty_account(self, front: Front, aws: Build) -> None:
        front.answer("ec2:DescribeInstances", Reply(status=200, body=b"<html><body>Sign in</body></html>"))
        assert not of(aws()).list().complete


class TestMachineTypes:
    def test_are_asked_for_once_in_a_region_that_has_them(self, moto: str, front: Front, aws: Build) -> None:
        start_instance(moto, "g6.xlarge")
        start_instance(moto, "g6.xlarge", region="eu-west-1")
        start_instance(moto, "g5.xlarge", region="eu-west-1")
        provider = aws(regions=["us-east-1", "eu-west-1"])
        assert len(of(provider).list().records) == 3
        asked = [call for call in front.calls if call.operation == "DescribeInstanceTypes"]
        assert sorted(sku for call in asked for sku in types_asked(call)) == ["g5.xlarge", "g6.xlarge"]
        assert all("g5.xlarge" not in types_asked(call) for call in asked if call.region == "us-east-1")

    def test_are_asked_for_in_batches(
        self, moto: str, front: Front, aws: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inventory, "TYPES_PER_CALL", 2)
        for sku in ("g5.xlarge", "g6.xlarge", "g6e.xlarge", "m5.large", "inf2.xlarge"):
            start_instance(moto, sku)
        assert len(of(aws()).list().records) == 4
        assert front.counted["ec2:DescribeInstanceTypes"] == 3

    def test_come_from_the_builtin_table_when_denied_and_that_is_said(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        instance_id = start_instance(moto, "p5.48xlarge")
        start_instance(moto, "m5.large")
        front.refuse("ec2:DescribeInstanceTypes", "UnauthorizedOperation", DENIED)
        provider = aws()
        answer = of(provider).list()
        record = by_id(answer)[instance_id]
        assert (record.gpu_model, record.gpu_count, len(record.losses)) == ("H100", 8, 2)
        report = part(answer)
        assert report.complete
        assert report.fault is not None
        assert report.fault.permission == "ec2:DescribeInstanceTypes"
        assert report.fault.sentence.endswith("the built-in table of machine types was used for p5.48xlarge")
        assert of(provider).describe(record.ref).gpu_model == "H100"

    def test_are_asked_for_again_after_a_refusal(self, moto: str, front: Front, aws: Build) -> None:
        start_instance(moto, "g6.xlarge")
        front.refuse("ec2:DescribeInstanceTypes", "UnauthorizedOperation", DENIED, times=1)
        provider = aws()
        assert part(of(provider).list()).fault is not None
        assert part(of(provider).list()).fault is None

    def test_a_machine_nobody_can_judge_is_left_out_but_never_looks_gone(
        self, moto: str, front: Front, aws: Build, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known, unknown = start_instance(moto, "g6.xlarge"), start_instance(moto, "g7e.2xlarge")
        start_instance(moto, "m5.large")
        monkeypatch.setattr(inventory, "_builtin", lambda sku: None)
        provider = aws()
        assert set(by_id(of(provider).list())) == {known, unknown}
        front.refuse("ec2:DescribeInstanceTypes", "UnauthorizedOperation", DENIED)
        answer = of(aws()).list()
        assert not answer.records
        report = part(answer)
        assert not report.complete
        assert report.fault is not None
        assert report.fault.sentence.endswith("machines of 2 types it lacks were left out: g6.xlarge, g7e.2xlarge")
        with pytest.raises(Forbidden):
            of(aws()).describe(ref(known))


class TestSpotRequests:
    def test_denied_leaves_the_list_complete_and_the_answer_to_describe(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        instance_id = start_spot_instance(moto, "g5.xlarge")
        front.refuse("ec2:DescribeSpotInstanceRequests", "UnauthorizedOperation", DENIED)
        provider = aws()
        answer = of(provider).list()
        assert stop_blockers(by_id(answer)[instance_id]) == []
        assert answer.complete
        fault = part(answer).fault
        assert fault is not None
        assert fault.permission == "ec2:DescribeSpotInstanceRequests"
        with pytest.raises(Forbidden) as refused:
            of(provider).describe(ref(instance_id))
        assert refused.value.permission == "ec2:DescribeSpotInstanceRequests"

    def test_are_not_asked_for_where_there_is_no_spot_machine(self, moto: str, front: Front, aws: Build) -> None:
        start_instance(moto, "g6.xlarge")
        of(aws()).list()
        assert front.counted["ec2:DescribeSpotInstanceRequests"] == 0

    def test_are_remembered_for_a_while_and_only_new_ones_asked_for(self, moto: str, front: Front, aws: Build) -> None:
        clock = [datetime(2026, 11, 20, 8, tzinfo=UTC)]
        provider = aws(now=lambda: clock[0])
        first = start_spot_instance(moto, "g5.xlarge")
        asked: list[Sequence[str]] = []
        for minute in range(12):
            clock[0] += timedelta(minutes=1)
            if minute == 2:
                second = start_spot_instance(moto, "g5.xlarge", request_type="persistent")
            answer = of(provider).list()
            assert stop_blockers(by_id(answer)[first]) == ["OneTimeSpot"]
            asked += [
                sorted(value for key, values in call.fields.items() if "Value" in key for value in values)
                for call in front.calls
                if call.operation == "DescribeSpotInstanceRequests"
            ]
            front.calls.clear()
        assert asked == [[first], [second], [first]]

    def test_that_cannot_be_asked_for_again_are_as_they_were_until_then(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        provider, instance_id = aws(), start_spot_instance(moto, "g5.xlarge")
        of(provider).list()
        front.refuse("ec2:DescribeSpotInstanceRequests", "UnauthorizedOperation", DENIED)
        another = start_spot_instance(moto, "g5.xlarge")
        answer = of(provider).list()
        assert stop_blockers(by_id(answer)[instance_id]) == ["OneTimeSpot"]
        assert stop_blockers(by_id(answer)[another]) == []
        assert part(answer).fault is not None

    def test_not_found_forbids(self, moto: str, aws: Build) -> None:
        answer = sdk(moto, "ec2").run_instances(
            ImageId="ami-12c6146b",
            InstanceType="g5.xlarge",
            MinCount=1,
            MaxCount=1,
            InstanceMarketOptions={"MarketType": "spot"},
        )
        record = of(aws()).describe(ref(answer["Instances"][0]["InstanceId"]))
        assert stop_blockers(record) == ["SpotRequestUnknown"]


class TestDescribe:
    def test_stop_protection_is_asked_for(self, moto: str, aws: Build) -> None:
        record = of(aws()).describe(ref(start_instance(moto, "g6.xlarge", stop_protected=True)))
        assert [protection.source for protection in record.protections] == ["disableApiStop"]

    def test_termination_protection_keeps_it_from_that_alone(self, moto: str, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        sdk(moto, "ec2").modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": True})
        record = of(aws()).describe(ref(instance_id))
        assert not record.protections
        assert [blocker.verb for blocker in record.blockers if blocker.code == "disableApiTermination"] == [
            Verb.TERMINATE
        ]

    def test_a_type_that_nobody_knows_does_not_make_it_gone(self, moto: str, front: Front, aws: Build) -> None:
        instance_id = start_instance(moto, "p99.48xlarge")
        with pytest.raises(Unsupported, match="p99"):
            of(aws()).describe(ref(instance_id))

    @pytest.mark.parametrize("action", ["ec2:DescribeInstances", "ec2:DescribeInstanceAttribute"])
    def test_what_may_not_be_asked_is_not_assumed(self, moto: str, front: Front, aws: Build, action: str) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        front.refuse(action, "UnauthorizedOperation", DENIED)
        with pytest.raises(Forbidden) as refused:
            of(aws()).describe(ref(instance_id))
        assert refused.value.permission == action

    def test_an_attribute_not_said_is_not_assumed(self, moto: str, front: Front, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        body = b"<DescribeInstanceAttributeResponse><instanceId>i</instanceId></DescribeInstanceAttributeResponse>"
        front.answer("ec2:DescribeInstanceAttribute", Reply(status=200, body=body))
        with pytest.raises(Unreachable):
            of(aws()).describe(ref(instance_id))

    def test_throttled_is_not_gone(self, moto: str, front: Front, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        front.refuse("ec2:DescribeInstances", "RequestLimitExceeded")
        with pytest.raises(Throttled):
            of(aws()).describe(ref(instance_id))

    def test_forgotten_by_ec2_is_gone(self, moto: str, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        forget(instance_id)
        with pytest.raises(NotFound):
            of(aws()).describe(ref(instance_id))

    def test_unknown_to_another_account_is_not_gone(self, moto: str, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        elsewhere = aws(role_arn="arn:aws:iam::111122223333:role/curfew")
        with pytest.raises(Misconfigured) as told:
            of(elsewhere).describe(ref(instance_id))
        assert "111122223333" in told.value.sentence

    def test_a_terminated_machine_is_an_answer_and_needs_no_further_questions(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        sdk(moto, "ec2").terminate_instances(InstanceIds=[instance_id])
        record = of(aws()).describe(ref(instance_id))
        assert (record.state, record.fully_described) == (State.TERMINATED, True)
        assert front.counted["ec2:DescribeInstanceAttribute"] == 0

    def test_a_machine_that_lost_its_gpus_to_a_change_of_type_has_none(self, moto: str, aws: Build) -> None:
        instance_id = start_instance(moto, "g6.xlarge")
        sdk(moto, "ec2").stop_instances(InstanceIds=[instance_id])
        sdk(moto, "ec2").modify_instance_attribute(InstanceId=instance_id, InstanceType={"Value": "m5.large"})
        record = of(aws()).describe(ref(instance_id))
        assert (record.sku, record.gpu_count, record.gpu_model) == ("m5.large", 0, None)
