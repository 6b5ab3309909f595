"""Scaling groups and node groups as records, over HTTP: what is seen, what it takes, and what is said when it fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.aws import Config
from providers.aws.client import Client
from providers.aws.groups import Groups
from providers.errors import Forbidden, Misconfigured, NotFound
from providers.records import CapacityType, Fault, Kind, LossName, ResourceRecord, State, Verb
from tests.providers.aws import groups as made
from tests.providers.aws.conftest import Build
from tests.providers.aws.fleet import ACCOUNT, ENVIRONMENT, REGION, sdk, start_instance
from tests.providers.aws.front import XML, Front, Reply
from tests.providers.aws.groups import group, make_template, ref, start_group, start_node_group

GPUS_BY_ATTRIBUTES = {"VCpuCount": {"Min": 4}, "MemoryMiB": {"Min": 16384}, "AcceleratorTypes": ["gpu"]}
DENIED = "User is not authorized to perform: autoscaling:DescribeAutoScalingGroups"


@pytest.fixture(scope="module")
def client(shared_front: Front) -> Client:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        return Client(Config(regions=(REGION,), endpoint=shared_front.endpoint))


@pytest.fixture
def front(moto: str, shared_front: Front) -> Front:
    shared_front.rules.clear()
    shared_front.calls.clear()
    return shared_front


@pytest.fixture
def groups(client: Client, front: Front) -> Groups:
    return Groups(client)


def listed(groups: Groups) -> dict[str, ResourceRecord]:
    records, fault = groups.list(REGION, [])
    assert fault is None
    return {record.ref.external_id: record for record in records}


def instance_refreshes(*statuses: str) -> Reply:
    entries = "".join(f"<member><Status>{status}</Status></member>" for status in statuses)
    body = (
        '<DescribeInstanceRefreshesResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">'
        f"<DescribeInstanceRefreshesResult><InstanceRefreshes>{entries}</InstanceRefreshes>"
        "</DescribeInstanceRefreshesResult></DescribeInstanceRefreshesResponse>"
    )
    return Reply(status=200, body=body.encode(), headers=XML)


def blockers(record: ResourceRecord, verb: Verb) -> set[str]:
    return {blocker.code for blocker in record.blockers if blocker.verb is verb}


class TestWhatIsListed:
    def test_a_group_is_what_its_members_are(self, moto: str, groups: Groups) -> None:
        start_group(moto, sku="g6.12xlarge", tags={"project": "vision"})
        shown = group(moto, "trainers")
        record = listed(groups)["trainers"]
        assert record.ref == ref("trainers")
        assert record.ref.kind is Kind.NODE_GROUP
        assert record.incarnation == shown["AutoScalingGroupARN"]
        assert (record.name, record.sku, record.zone) == ("trainers", "g6.12xlarge", f"{REGION}a")
        assert (record.gpu_vendor, record.gpu_model, record.gpu_count) == ("nvidia", "L4", 2 * 4)
        assert set(record.members) == {instance["InstanceId"] for instance in shown["Instances"]}
        assert record.state is State.RUNNING
        assert record.created_at == shown["CreatedTime"]
        assert record.tags == {"project": "vision"}
        assert (record.managed_by, record.launched_at, record.fully_described) == (None, None, False)
        assert {(loss.verb, loss.name) for loss in record.losses} == {
            (Verb.SCALE_TO_ZERO, LossName.GROUP_MEMBERS),
            (Verb.MOVE_TO_SPOT, LossName.GROUP_MEMBERS),
        }
        assert "its 2 instances" in record.losses[0].sentence

    @pytest.mark.parametrize(
        "launches",
        [
            {"sku": "g6.xlarge"},
            {"sku": "g6.xlarge", "launch_configuration": True},
            {"sku": "m5.large", "mixed": {}, "overrides": [{"InstanceType": "g6.xlarge"}]},
            {"sku": None, "template": {"InstanceRequirements": GPUS_BY_ATTRIBUTES}},
        ],
        ids=["a launch template", "a launch configuration", "overrides", "attributes"],
    )
    def test_a_group_at_zero_is_what_it_would_launch(
        self, moto: str, groups: Groups, launches: Mapping[str, Any]
    ) -> None:
        start_group(moto, sizes=(0, 4, 0), **launches)
        record = listed(groups)["trainers"]
        assert (record.state, record.members, record.gpu_count, record.losses) == (State.STOPPED, (), 0, ())
        if launches["sku"]:
            assert (record.sku, record.gpu_model) == ("g6.xlarge", "L4")
        else:
            assert (record.sku, record.gpu_model) == ("any with its attributes", None)

    @pytest.mark.parametrize("desired", [0, 1])
    def test_groups_without_accelerators_are_absent(self, moto: str, groups: Groups, desired: int) -> None:
        start_group(moto, "web", sku="m5.large", sizes=(0, 4, desired))
        start_group(moto, "web-old", sku="m5.large", sizes=(0, 4, desired), launch_configuration=True)
        assert listed(groups) == {}

    def test_members_tell_a_type_that_nobody_knows_yet(self, moto: str, groups: Groups, front: Front) -> None:
        start_group(moto, sku="p5.48xlarge", sizes=(1, 1, 1))
        front.refuse("ec2:DescribeInstanceTypes", "UnauthorizedOperation")
        assert listed(groups)["trainers"].gpu_count == 8

    def test_a_name_with_a_slash_is_told_from_a_node_group(self, moto: str, groups: Groups) -> None:
        start_group(moto, "research/gpu")
        start_node_group(moto, "research", "gpu")
        arn = group(moto, "research/gpu")["AutoScalingGroupARN"]
        assert listed(groups).keys() == {arn, "research/gpu"}
        assert groups.describe(ref(arn)).incarnation == arn
        assert groups.describe(ref("research/gpu")).incarnation.startswith("arn:aws:eks:")

    def test_a_node_group_stands_for_the_scaling_group_behind_it(self, moto: str, groups: Groups) -> None:
        node_group = start_node_group(moto, tags={"project": "vision"})
        shown = made.node_group(moto, node_group)
        record = listed(groups)["research/gpu"]
        behind = group(moto, shown["resources"]["autoScalingGroups"][0]["name"])
        assert listed(groups).keys() == {"research/gpu"}
        assert record.incarnation == shown["nodegroupArn"]
        assert set(record.members) == {instance["InstanceId"] for instance in behind["Instances"]}
        assert (record.name, record.gpu_count, record.state) == ("gpu", 2, State.RUNNING)
        assert (record.tags, record.managed_by) == ({"project": "vision"}, None)
        assert blockers(record, Verb.MOVE_TO_SPOT) == {"Unsupported"}

    def test_a_node_group_at_zero(self, moto: str, groups: Groups) -> None:
        start_node_group(moto, sizes=(0, 4, 0))
        record = listed(groups)["research/gpu"]
        assert (record.state, record.members, record.sku, record.gpu_model) == (State.STOPPED, (), "g6.xlarge", "L4")

    def test_what_it_takes(self, moto: str, groups: Groups, front: Front) -> None:
        for name in ("one", "two"):
            start_group(moto, name)
        start_group(moto, "numbered", sizes=(0, 1, 0), version="1")
        start_group(moto, "latest", sizes=(0, 1, 0))
        for name in ("configured", "configured-too"):
            start_group(moto, name, sizes=(0, 1, 0), launch_configuration=True)
        listed(groups)
        assert front.counted == {
            "autoscaling:DescribeAutoScalingGroups": 1,
            "autoscaling:DescribeLaunchConfigurations": 1,
            "ec2:DescribeLaunchTemplateVersions": 2,
            "ec2:DescribeInstanceTypes": 1,
        }
        listed(groups)
        again = front.counted
        assert again["ec2:DescribeLaunchTemplateVersions"] == 3, "a numbered version never changes"
        assert again["ec2:DescribeInstanceTypes"] == 1


class TestWhatCannotBeSeen:
    def test_no_groups_at_all(self, moto: str, groups: Groups, front: Front) -> None:
        start_group(moto)
        front.refuse("autoscaling:DescribeAutoScalingGroups", "AccessDenied", DENIED)
        records, fault = groups.list(REGION, [])
        assert not records
        assert fault is not None
        assert (fault.code, fault.permission) == ("Forbidden", "autoscaling:DescribeAutoScalingGroups")

    @pytest.mark.parametrize(
        ("action", "launch_configuration"),
        [("ec2:DescribeLaunchTemplateVersions", False), ("autoscaling:DescribeLaunchConfigurations", True)],
    )
    def test_what_a_group_at_zero_would_launch(
        self, moto: str, groups: Groups, front: Front, action: str, launch_configuration: bool
    ) -> None:
        start_group(moto)
        start_group(moto, "asleep", sizes=(0, 1, 0), launch_configuration=launch_configuration)
        front.refuse(action, "AccessDenied", "You may not.")
        records, fault = groups.list(REGION, [])
        assert [record.name for record in records] == ["trainers"], "one failure sinks nothing else"
        assert fault is not None
        assert (fault.code, fault.permission) == ("Forbidden", action)

    def test_a_node_group(self, moto: str, groups: Groups, front: Front) -> None:
        start_group(moto)
        start_node_group(moto)
        front.refuse("eks:DescribeNodegroup", "AccessDeniedException", "You may not.")
        records, fault = groups.list(REGION, [])
        assert [record.name for record in records] == ["trainers"]
        assert fault is not None
        assert (fault.code, fault.permission) == ("Forbidden", "eks:DescribeNodegroup")

    def test_a_launch_template_that_is_gone(self, moto: str, groups: Groups) -> None:
        start_group(moto, sizes=(0, 1, 0))
        sdk(moto, "ec2").delete_launch_template(LaunchTemplateName="trainers")
        records, fault = groups.list(REGION, [])
        assert not records
        assert fault is not None
        assert "trainers" in fault.sentence
        assert "cannot be told" in fault.sentence

    def test_several_at_once_are_counted(self, moto: str, groups: Groups, front: Front) -> None:
        for name in ("one", "two", "three"):
            start_group(moto, name, sizes=(0, 1, 0))
        front.refuse("ec2:DescribeLaunchTemplateVersions", "AccessDenied", "You may not.")
        _, fault = groups.list(REGION, [])
        assert fault is not None
        assert fault.sentence.endswith("and 2 more questions about groups went unanswered")

    def test_a_type_that_neither_ec2_nor_the_table_knows(self, moto: str, groups: Groups, front: Front) -> None:
        start_group(moto, sku="p99.xlarge", sizes=(0, 1, 0))
        _, fault = groups.list(REGION, [])
        assert isinstance(fault, Fault)
        assert "p99.xlarge" in fault.sentence


class TestAmongTheMachines:
    def test_a_group_is_listed_and_described_with_its_members(self, moto: str, aws: Build) -> None:
        start_group(moto)
        inventory = aws().inventory
        assert inventory is not None
        answer = inventory.list()
        assert answer.complete
        found = {record.ref.external_id: record for record in answer.records}
        trainers = found.pop("trainers")
        assert set(trainers.members) == set(found)
        assert trainers.capacity_type is CapacityType.ON_DEMAND
        assert {record.managed_by for record in found.values()} == {"autoscaling:trainers"}
        assert inventory.describe(trainers.ref).fully_described

    def test_without_its_groups_a_region_is_incomplete_and_keeps_its_machines(
        self, moto: str, front: Front, aws: Build
    ) -> None:
        start_group(moto)
        front.refuse("autoscaling:DescribeAutoScalingGroups", "AccessDenied", DENIED)
        inventory = aws().inventory
        assert inventory is not None
        answer = inventory.list()
        assert [record.ref.kind for record in answer.records] == [Kind.INSTANCE, Kind.INSTANCE]
        (part,) = answer.parts
        assert not part.complete
        assert part.fault is not None
        assert part.fault.permission == "autoscaling:DescribeAutoScalingGroups"

    def test_a_group_has_no_price_and_no_samples_of_its_own(self, moto: str, front: Front, aws: Build) -> None:
        start_group(moto)
        provider = aws()
        assert provider.inventory is not None
        assert provider.prices is not None
        assert provider.telemetry is not None
        trainers = provider.inventory.describe(ref("trainers"))
        front.calls.clear()
        now = datetime.now(UTC)
        assert not provider.prices.quote([trainers])
        assert not provider.telemetry.samples([trainers], start=now - timedelta(hours=1), end=now).series
        assert not front.calls


class TestOneGroup:
    def test_it_is_what_the_list_said_and_more(self, moto: str, groups: Groups) -> None:
        start_group(moto)
        start_node_group(moto)
        for name, before in listed(groups).items():
            record = groups.describe(ref(name))
            assert record.fully_described
            assert (record.ref, record.incarnation, record.members) == (before.ref, before.incarnation, before.members)
            assert (record.state, record.gpu_count, record.sku) == (before.state, before.gpu_count, before.sku)
            assert record.capacity_type is CapacityType.ON_DEMAND

    @pytest.mark.parametrize(
        ("launches", "expected"),
        [
            ({}, CapacityType.ON_DEMAND),
            ({"template": {"InstanceMarketOptions": {"MarketType": "spot"}}}, CapacityType.SPOT),
            ({"template": {"InstanceMarketOptions": {"MarketType": "capacity-block"}}}, CapacityType.CAPACITY_BLOCK),
            (
                {
                    "template": {
                        "CapacityReservationSpecification": {
                            "CapacityReservationPreference": "capacity-reservations-only"
                        }
                    }
                },
                CapacityType.RESERVED,
            ),
            ({"launch_configuration": True}, CapacityType.ON_DEMAND),
            ({"mixed": {"OnDemandPercentageAboveBaseCapacity": 0}}, CapacityType.SPOT),
            ({"mixed": {"OnDemandPercentageAboveBaseCapacity": 50}}, CapacityType.ON_DEMAND),
            (
                {"mixed": {"OnDemandBaseCapacity": 1, "OnDemandPercentageAboveBaseCapacity": 0}},
                CapacityType.ON_DEMAND,
            ),
        ],
    )
    def test_its_capacity_type_is_what_it_launches_next(
        self, moto: str, groups: Groups, launches: Mapping[str, Any], expected: CapacityType
    ) -> None:
        trainers = start_group(moto, sizes=(0, 1, 0), **launches)
        assert groups.describe(trainers).capacity_type is expected
        assert listed(groups)["trainers"].capacity_type is expected

    @pytest.mark.parametrize("status", ["Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"])
    def test_an_instance_refresh_under_way_is_in_the_way(
        self, moto: str, groups: Groups, front: Front, status: str
    ) -> None:
        trainers = start_group(moto)
        front.answer("autoscaling:DescribeInstanceRefreshes", instance_refreshes(status, "Successful"))
        record = groups.describe(trainers)
        assert blockers(record, Verb.SCALE_TO_ZERO) == blockers(record, Verb.MOVE_TO_SPOT) == {"InstanceRefresh"}

    def test_instance_refreshes_of_the_past_are_not(self, moto: str, groups: Groups, front: Front) -> None:
        trainers = start_group(moto)
        front.answer("autoscaling:DescribeInstanceRefreshes", instance_refreshes("Successful", "Failed", "Cancelled"))
        assert not groups.describe(trainers).blockers

    def test_members_on_standby_are_in_the_way(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto)
        sdk(moto, "autoscaling").enter_standby(
            AutoScalingGroupName="trainers",
            InstanceIds=[group(moto, "trainers")["Instances"][0]["InstanceId"]],
            ShouldDecrementDesiredCapacity=True,
        )
        assert blockers(groups.describe(trainers), Verb.SCALE_TO_ZERO) == {"Standby"}

    def test_a_warm_pool_is_in_the_way(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto)
        sdk(moto, "autoscaling").put_warm_pool(AutoScalingGroupName="trainers")
        record = groups.describe(trainers)
        assert blockers(record, Verb.SCALE_TO_ZERO) == blockers(record, Verb.MOVE_TO_SPOT) == {"WarmPool"}

    @pytest.mark.parametrize(
        ("process", "code"), [("Terminate", "TerminateSuspended"), ("Launch", "LaunchSuspended"), ("AZRebalance", None)]
    )
    def test_suspended_processes(self, moto: str, groups: Groups, process: str, code: str | None) -> None:
        trainers = start_group(moto)
        sdk(moto, "autoscaling").suspend_processes(AutoScalingGroupName="trainers", ScalingProcesses=[process])
        assert blockers(groups.describe(trainers), Verb.SCALE_TO_ZERO) == ({code} if code else set())

    def test_a_launch_template_that_is_gone(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto)
        sdk(moto, "ec2").delete_launch_template(LaunchTemplateName="trainers")
        record = groups.describe(trainers)
        assert len(record.members) == 2, "the group itself is not gone"
        assert "LaunchTemplateGone" in blockers(record, Verb.SCALE_TO_ZERO) & blockers(record, Verb.MOVE_TO_SPOT)

    @pytest.mark.parametrize("status", ["UPDATING", "DELETING", "DEGRADED", "CREATING", "CREATE_FAILED", "SOMETHING"])
    def test_a_node_group_that_is_not_active(self, moto: str, groups: Groups, front: Front, status: str) -> None:
        node_group = start_node_group(moto)
        shown = {**made.node_group(moto, node_group), "status": status, "createdAt": 0, "modifiedAt": 0}
        body = json.dumps({"nodegroup": shown}).encode()
        front.answer(
            "eks:DescribeNodegroup", Reply(status=200, body=body, headers={"Content-Type": "application/json"})
        )
        assert len(blockers(groups.describe(node_group), Verb.SCALE_TO_ZERO)) == 1

    def test_members_protected_from_scale_in_protect_the_group(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto, protected=True)
        sources = {protection.source for protection in groups.describe(trainers).protections}
        assert sources == {"ProtectedFromScaleIn"}

    def test_its_own_tags_protect_it(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto, tags={"curfew-protect": "customer demo"})
        assert {one.source for one in groups.describe(trainers).protections} == {"curfew-protect"}

    def test_a_protected_member_protects_the_group(self, moto: str, groups: Groups) -> None:
        trainers = start_group(moto)
        member = group(moto, "trainers")["Instances"][0]["InstanceId"]
        sdk(moto, "ec2").create_tags(Resources=[member], Tags=[{"Key": "curfew-protect", "Value": "yes"}])
        (protection,) = groups.describe(trainers).protections
        assert protection.source == "curfew-protect"
        assert member in protection.sentence

    @pytest.mark.parametrize("name", ["nobody", "research/nobody", "nobody/gpu"])
    def test_what_does_not_exist(self, moto: str, groups: Groups, name: str) -> None:
        start_node_group(moto)
        with pytest.raises(NotFound):
            groups.describe(ref(name))

    @pytest.mark.parametrize("name", ["trainers", "research/gpu"])
    def test_one_of_the_same_name_in_another_account_is_another(self, moto: str, groups: Groups, name: str) -> None:
        start_group(moto)
        start_node_group(moto)
        with pytest.raises(Misconfigured, match=ACCOUNT):
            groups.describe(ref(name, account="999999999999"))

    @pytest.mark.parametrize("name", ["trainers", "research/gpu"])
    def test_another_accounts_is_not_gone(self, moto: str, groups: Groups, name: str) -> None:
        with pytest.raises(Misconfigured, match=ACCOUNT):
            groups.describe(ref(name, account="999999999999"))

    @pytest.mark.parametrize(
        "action",
        [
            "autoscaling:DescribeAutoScalingGroups",
            "autoscaling:DescribeInstanceRefreshes",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplateVersions",
        ],
    )
    def test_no_part_of_it_is_left_open(self, moto: str, groups: Groups, front: Front, action: str) -> None:
        trainers = start_group(moto)
        front.refuse(action, "AccessDenied", "You may not.")
        with pytest.raises(Forbidden) as refused:
            groups.describe(trainers)
        assert refused.value.permission == action


def test_what_runs_outside_of_any_group_makes_none(moto: str, groups: Groups) -> None:
    start_instance(moto, "g6.xlarge")
    make_template(moto, "g6.xlarge")
    assert listed(groups) == {}
