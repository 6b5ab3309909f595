"""What one answer of EC2 Auto Scaling or EKS means, with no cloud near; and the same launches on spot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from providers.aws.translate import MachineType, builtin_types
from providers.aws.translate_groups import (
    EKS_CAPACITY,
    EKS_STATUSES,
    MARKETS,
    Launch,
    Seen,
    all_spot,
    has_accelerators,
    launch_of_template,
    launches,
    launches_on_spot,
    members,
    record_of_group,
    record_of_node_group,
    same_launches,
)
from providers.records import Blocker, CapacityType, Loss, ResourceRecord, State, Verb

NAME, ARN = "trainers", "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:0f:autoScalingGroupName/trainers"
MACHINES: Mapping[str, MachineType] = {sku: row.machine for sku, row in builtin_types().items()}
TEMPLATE = {"LaunchTemplateId": "lt-0abc", "LaunchTemplateName": "trainers", "Version": "7"}


def instance(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "InstanceId": f"i-{number}",
        "InstanceType": "g6.xlarge",
        "LifecycleState": "InService",
        "ProtectedFromScaleIn": False,
        **fields,
    }


def group(*instances: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "AutoScalingGroupName": NAME,
        "AutoScalingGroupARN": ARN,
        "MinSize": 0,
        "MaxSize": 8,
        "DesiredCapacity": len(instances),
        "AvailabilityZones": ["eu-west-1a", "eu-west-1b"],
        "CreatedTime": datetime(2026, 11, 1, tzinfo=UTC),
        "LaunchTemplate": TEMPLATE,
        "Instances": list(instances),
        **fields,
    }


def mixed(distribution: Mapping[str, Any] | None = None, *overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "MixedInstancesPolicy": {
            "LaunchTemplate": {"LaunchTemplateSpecification": TEMPLATE, "Overrides": list(overrides)},
            "InstancesDistribution": dict(distribution or {}),
        },
        "LaunchTemplate": None,
    }


def record(answer: Mapping[str, Any], **seen: Any) -> ResourceRecord:
    return record_of_group(answer, Seen(machines=MACHINES, **seen), region="eu-west-1", fully_described=True)


def tagged(**tags: str) -> dict[str, Any]:
    return {"Tags": [{"Key": key.replace("__", "/"), "Value": value} for key, value in tags.items()]}


@pytest.mark.parametrize(
    ("desired", "lifecycles", "expected"),
    [
        (2, ["InService", "InService"], State.RUNNING),
        (2, ["InService", "Pending"], State.RUNNING),
        (1, ["Terminating"], State.RUNNING),
        (2, ["Pending", "Pending:Wait"], State.PENDING),
        (2, [], State.PENDING),
        (0, ["Terminating", "Terminating:Wait"], State.STOPPING),
        (0, ["InService"], State.STOPPING),
        (0, ["Standby"], State.STOPPING),
        (0, [], State.STOPPED),
        (0, ["Terminated", "Detached", "Warmed:Stopped"], State.STOPPED),
    ],
)
def test_the_state_of_a_group(desired: int, lifecycles: list[str], expected: State) -> None:
    instances = [instance(number, LifecycleState=lifecycle) for number, lifecycle in enumerate(lifecycles)]
    assert record(group(*instances, DesiredCapacity=desired)).state is expected


def test_a_group_that_is_being_deleted_never_runs() -> None:
    assert record(group(instance(), Status="Delete in progress")).state is State.STOPPING
    assert record(group(Status="Delete in progress", DesiredCapacity=2)).state is State.STOPPED


def test_members_of_several_types_are_counted_together() -> None:
    found = record(group(instance(1), instance(2, InstanceType="p5.48xlarge"), instance(3, InstanceType="m5.large")))
    assert found.gpu_count == 1 + 8
    assert found.sku == "g6.xlarge, p5.48xlarge, m5.large"
    assert (found.gpu_vendor, found.gpu_model, found.gpu_memory_mib) == ("nvidia", None, None)
    assert found.zone is None


def test_a_share_of_a_gpu_stays_one() -> None:
    found = record(group(instance(1, InstanceType="g6f.xlarge"), instance(2, InstanceType="g6f.xlarge")))
    assert (found.gpu_count, found.gpu_share) == (2, 0.125)


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ({}, False),
        ({"AcceleratorCount": {"Min": 1}}, True),
        ({"AcceleratorNames": ["h100"]}, True),
        ({"AcceleratorTypes": ["inference"]}, True),
        ({"AcceleratorTypes": ["fpga"]}, False),
        ({"AcceleratorTypes": ["gpu"], "AcceleratorCount": {"Max": 0}}, False),
    ],
)
def test_attributes_that_ask_for_accelerators(requirements: Mapping[str, Any], expected: bool) -> None:
    by_override = group(**mixed({}, {"InstanceRequirements": requirements}))
    assert has_accelerators(by_override, Seen(machines=MACHINES)) is expected
    by_template = Seen(machines=MACHINES, launch=launch_of_template({"InstanceRequirements": requirements}))
    assert has_accelerators(group(), by_template) is expected


def test_overrides_count_before_the_template_they_override() -> None:
    launch = Launch(skus=("g6.xlarge",))
    assert not has_accelerators(
        group(**mixed({}, {"InstanceType": "m5.large"})), Seen(machines=MACHINES, launch=launch)
    )


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"project": "vision"}, None),
        ({"aws:cloudformation:stack-name": "vision"}, None),
        ({"eks:nodegroup-name": "gpu"}, "eks-nodegroup:gpu"),
        ({"karpenter.sh/nodepool": "gpu"}, "karpenter:gpu"),
        ({"kubernetes.io/cluster/research": "owned"}, "kubernetes:research"),
        ({"sigs.k8s.io/cluster-api-provider-aws/cluster/research": "owned"}, "kubernetes:research"),
        ({"KubernetesCluster": "research"}, "kubernetes:research"),
        ({"kops.k8s.io/instancegroup": "gpu"}, "kops:gpu"),
        (
            {"k8s.io/cluster-autoscaler/enabled": "true", "k8s.io/cluster-autoscaler/research": "owned"},
            "kubernetes:research",
        ),
        ({"k8s.io/cluster-autoscaler/enabled": "true"}, "kubernetes:cluster-autoscaler"),
        ({"AmazonECSManaged": ""}, "ecs"),
        ({"AWSBatchServiceTag": "batch"}, "batch:batch"),
        ({"aws:elasticmapreduce:job-flow-id": "j-1"}, "emr:j-1"),
        ({"parallelcluster:cluster-name": "hpc"}, "parallelcluster:hpc"),
        ({"elasticbeanstalk:environment-name": "web"}, "elasticbeanstalk:web"),
    ],
)
def test_whose_group_it_is(tags: Mapping[str, str], expected: str | None) -> None:
    answer = group(instance(), Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    assert record(answer).managed_by == expected


def test_a_service_that_operates_a_group_owns_it() -> None:
    assert record(group(instance(), Operator={"Principal": "x.amazonaws.com"})).managed_by == "operator:x.amazonaws.com"


SPOT = {"OnDemandBaseCapacity": 0, "OnDemandPercentageAboveBaseCapacity": 0}


@pytest.mark.parametrize(
    ("fields", "seen", "expected"),
    [
        ({}, {"launch": Launch(capacity_type=CapacityType.ON_DEMAND)}, []),
        ({}, {"launch": Launch(capacity_type=CapacityType.SPOT)}, ["AlreadySpot"]),
        (mixed(SPOT), {}, ["AlreadySpot"]),
        (mixed({"OnDemandPercentageAboveBaseCapacity": 50}), {}, []),
        (mixed({"DistributionSegments": [{"TargetCapacityTypes": ["spot"]}]}), {}, ["DistributionSegments"]),
        ({"LaunchTemplate": None, "LaunchConfigurationName": "old"}, {}, ["NoLaunchTemplate"]),
        ({"WarmPoolConfiguration": {"PoolState": "Stopped"}}, {}, ["WarmPool"]),
        (
            {"CapacityReservationSpecification": {"CapacityReservationPreference": "capacity-reservations-first"}},
            {"launch": Launch(capacity_type=CapacityType.ON_DEMAND)},
            ["CapacityReservation"],
        ),
        (
            {"CapacityReservationSpecification": {"CapacityReservationPreference": "default"}},
            {"launch": Launch(capacity_type=CapacityType.ON_DEMAND)},
            [],
        ),
        ({}, {"launch": Launch(capacity_type=CapacityType.CAPACITY_BLOCK)}, ["CapacityBlock"]),
        ({"Status": "Delete in progress"}, {}, ["Deleting"]),
        ({}, {"refresh": "InProgress"}, ["InstanceRefresh"]),
        ({}, {"launch": Launch(gone=True)}, ["LaunchTemplateGone"]),
    ],
)
def test_what_keeps_a_group_from_spot(fields: Mapping[str, Any], seen: Mapping[str, Any], expected: list[str]) -> None:
    found = record(group(instance(), **fields), **seen).blockers
    assert [blocker.code for blocker in found if blocker.verb is Verb.MOVE_TO_SPOT] == expected


def test_a_capacity_block_is_not_scaled_in() -> None:
    found = record(group(instance()), launch=Launch(capacity_type=CapacityType.CAPACITY_BLOCK)).blockers
    assert "CapacityBlock" in {blocker.code for blocker in found if blocker.verb is Verb.SCALE_TO_ZERO}


def test_nothing_is_lost_where_nothing_is() -> None:
    assert not record(group()).losses


def test_members_on_spot_already_are_not_replaced() -> None:
    spot = record(group())  # any record will do
    answer = group(instance(1), instance(2), **mixed({"OnDemandPercentageAboveBaseCapacity": 50}))
    on_spot = ResourceRecord(
        ref=spot.ref.__class__(
            provider="aws", account="123456789012", region="eu-west-1", kind=spot.ref.kind, external_id="i-1"
        ),
        incarnation="i-1",
        name="i-1",
        zone=None,
        sku="g6.xlarge",
        gpu_vendor="nvidia",
        gpu_model="L4",
        gpu_count=1,
        capacity_type=CapacityType.SPOT,
    )
    (lost,) = [loss for loss in record(answer, instances={"i-1": on_spot}).losses if loss.verb is Verb.MOVE_TO_SPOT]
    assert "its 1 instance not on spot" in lost.sentence


def test_sentences_go_on_from_it_is() -> None:
    """They stand after `It is protected:` or by themselves, and end without a full stop or are made to."""
    answer = group(
        *(instance(number, LifecycleState="Standby", ProtectedFromScaleIn=True) for number in range(5)),
        Status="Delete in progress",
        WarmPoolConfiguration={},
        SuspendedProcesses=[{"ProcessName": "Launch"}, {"ProcessName": "Terminate"}],
        **tagged(**{"curfew-protect": "yes"}),
    )
    found = record(answer, refresh="Pending", launch=Launch(gone=True, capacity_type=CapacityType.CAPACITY_BLOCK))
    told: list[Blocker | Loss] = [*found.blockers, *found.losses]
    assert len(told) > 8
    for one in told:
        assert one.sentence[0].islower() or one.sentence[0].isdigit()
        assert not one.sentence.endswith(".")
    assert "5 of its 5 instances are protected from scale in (i-0, i-1, i-2, …)" in {
        protection.sentence for protection in found.protections
    }


class TestNodeGroups:
    def shown(self, **fields: Any) -> dict[str, Any]:
        return {
            "nodegroupName": "gpu",
            "clusterName": "research",
            "nodegroupArn": "arn:aws:eks:eu-west-1:123456789012:nodegroup/research/gpu/0f",
            "status": "ACTIVE",
            "capacityType": "ON_DEMAND",
            "scalingConfig": {"minSize": 0, "maxSize": 4, "desiredSize": 1},
            **fields,
        }

    def record(self, **fields: Any) -> ResourceRecord:
        return record_of_node_group(
            self.shown(**fields),
            [group(instance())],
            Seen(machines=MACHINES),
            account="123456789012",
            region="eu-west-1",
            fully_described=True,
        )

    def test_every_status_and_capacity_type_of_the_api_is_known(self) -> None:
        model: Any = boto3.Session().client("eks", region_name="eu-west-1").meta.service_model
        assert set(model.shape_for("NodegroupStatus").enum) == {"ACTIVE", *EKS_STATUSES}
        assert set(model.shape_for("CapacityTypes").enum) == set(EKS_CAPACITY)

    @pytest.mark.parametrize("status", [*EKS_STATUSES, "TOMORROW"])
    def test_only_an_active_one_is_scaled(self, status: str) -> None:
        found = [one.code for one in self.record(status=status).blockers if one.verb is Verb.SCALE_TO_ZERO]
        assert len(found) == 1

    def test_what_ails_it_is_told(self) -> None:
        issues = [{"code": "NodeCreationFailure", "message": "Instances failed to join the cluster."}]
        found = self.record(status="DEGRADED", health={"issues": issues}).blockers
        assert "Instances failed to join the cluster" in " ".join(blocker.sentence for blocker in found)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, set()),
            ({"warmPoolConfig": {"enabled": True}}, {"WarmPool"}),
            ({"warmPoolConfig": {"enabled": False}}, set()),
            ({"capacityType": "CAPACITY_BLOCK"}, {"CapacityBlock"}),
        ],
    )
    def test_what_keeps_it_from_zero(self, fields: Mapping[str, Any], expected: set[str]) -> None:
        found = self.record(**fields).blockers
        assert {blocker.code for blocker in found if blocker.verb is Verb.SCALE_TO_ZERO} == expected

    @pytest.mark.parametrize(
        ("word", "expected"),
        [("SPOT", CapacityType.SPOT), ("ON_DEMAND", CapacityType.ON_DEMAND), ("TOMORROW", CapacityType.UNKNOWN)],
    )
    def test_its_capacity_type(self, word: str, expected: CapacityType) -> None:
        assert self.record(capacityType=word).capacity_type is expected


def test_every_market_of_a_launch_template_is_known() -> None:
    model: Any = boto3.Session().client("ec2", region_name="eu-west-1").meta.service_model
    assert set(model.shape_for("MarketType").enum) == set(MARKETS) - {None}


def test_every_lifecycle_state_of_the_api_is_a_member_or_is_not() -> None:
    model: Any = boto3.Session().client("autoscaling", region_name="eu-west-1").meta.service_model
    states = model.shape_for("LifecycleState").enum
    gone = {state for state in states if not members(group(instance(LifecycleState=state)))}
    assert gone == {"Terminated", "Detached", *(state for state in states if state.startswith("Warmed:"))}


DISTRIBUTIONS = st.fixed_dictionaries(
    {},
    optional={
        "OnDemandAllocationStrategy": st.sampled_from(["prioritized", "lowest-price"]),
        "OnDemandBaseCapacity": st.integers(0, 5),
        "OnDemandPercentageAboveBaseCapacity": st.integers(0, 100),
        "SpotAllocationStrategy": st.sampled_from(
            ["lowest-price", "capacity-optimized", "capacity-optimized-prioritized", "price-capacity-optimized"]
        ),
        "SpotInstancePools": st.integers(1, 20),
        "SpotMaxPrice": st.sampled_from(["", "3.5"]),
    },
)
OVERRIDES: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.sampled_from(
        [
            {"InstanceType": "g6.xlarge"},
            {"InstanceType": "g5.xlarge", "WeightedCapacity": "2"},
            {"InstanceType": "p5.48xlarge", "LaunchTemplateSpecification": {**TEMPLATE, "LaunchTemplateId": "lt-1"}},
        ]
    ),
    max_size=3,
)


@st.composite
def launching(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return group(LaunchTemplate=draw(st.sampled_from([TEMPLATE, {"LaunchTemplateId": "lt-2"}])))
    return group(**mixed(draw(DISTRIBUTIONS), *draw(OVERRIDES)))


@given(launching())
def test_on_spot_it_launches_the_same_and_nothing_on_demand(answer: dict[str, Any]) -> None:
    former = launches(answer)
    moved = launches_on_spot(former)
    assert all_spot(moved)
    assert same_launches(launches_on_spot(moved), moved)
    before = former.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    after = moved["MixedInstancesPolicy"]["LaunchTemplate"]
    assert after["Overrides"] == before.get("Overrides", [])
    assert after["LaunchTemplateSpecification"] == (
        before.get("LaunchTemplateSpecification") or former["LaunchTemplate"]
    )


@given(launching())
def test_what_is_sent_is_what_the_api_takes(answer: dict[str, Any]) -> None:
    model = boto3.Session().client("autoscaling", region_name="eu-west-1").meta.service_model
    shape = model.operation_model("UpdateAutoScalingGroup").input_shape
    for sent in (launches(answer), launches_on_spot(launches(answer))):
        assert not ParamValidator().validate({"AutoScalingGroupName": NAME, **sent}, shape).has_errors()
        for specification in specifications(sent):
            assert not {"LaunchTemplateId", "LaunchTemplateName"} <= specification.keys()


def specifications(sent: Any) -> list[dict[str, Any]]:
    if isinstance(sent, list):
        return [found for one in sent for found in specifications(one)]
    if not isinstance(sent, dict):
        return []
    own = [sent] if "LaunchTemplateId" in sent or "LaunchTemplateName" in sent else []
    return own + [found for one in sent.values() for found in specifications(one)]


@given(launching())
def test_what_aws_fills_in_is_no_change(answer: dict[str, Any]) -> None:
    former = launches(answer)
    shown = answer
    if "MixedInstancesPolicy" in answer:
        distribution = answer["MixedInstancesPolicy"]["InstancesDistribution"]
        filled = {
            "OnDemandAllocationStrategy": "prioritized",
            "OnDemandBaseCapacity": 0,
            "OnDemandPercentageAboveBaseCapacity": 100,
            "SpotAllocationStrategy": "lowest-price",
            **distribution,
        }
        if filled["SpotAllocationStrategy"] == "lowest-price":
            filled.setdefault("SpotInstancePools", 2)
        policy = {**answer["MixedInstancesPolicy"], "InstancesDistribution": filled}
        shown = {**answer, "MixedInstancesPolicy": policy}
    assert same_launches(launches(shown), former)


@pytest.mark.parametrize(
    "other",
    [
        group(LaunchTemplate={**TEMPLATE, "Version": "8"}),
        group(LaunchTemplate={**TEMPLATE, "LaunchTemplateId": "lt-2"}),
        group(LaunchTemplate=None, LaunchConfigurationName="old"),
        group(**mixed()),
        group(**mixed(SPOT)),
    ],
)
def test_what_is_a_change(other: dict[str, Any]) -> None:
    assert not same_launches(launches(group()), launches(other))


def test_the_order_of_overrides_is_their_priority() -> None:
    one, two = {"InstanceType": "g6.xlarge"}, {"InstanceType": "g5.xlarge"}
    assert not same_launches(launches(group(**mixed({}, one, two))), launches(group(**mixed({}, two, one))))
