"""Groups to zero and back, and on to spot and back, over HTTP: exactly as they were, whatever happens between."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest

from providers.aws import Config
from providers.aws.accounts import Accounts
from providers.aws.actuator import LATEST_START_SECONDS, AwsActuator
from providers.aws.groups import Groups
from providers.errors import Conflict, Forbidden, Misconfigured, NotFound, Refused, Throttled, Unreachable, Unsupported
from providers.records import CapacityType, ResourceRef, State, Verb
from tests.providers.aws import groups as made
from tests.providers.aws.fleet import ENVIRONMENT, REGION, sdk
from tests.providers.aws.front import NO_ANSWER, Call, Front, Reply, error
from tests.providers.aws.groups import ref, settings, sizes, start_group, start_node_group

ZERO, SPOT = Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT
FIGHTING = ["AlarmNotification", "ScheduledActions"]
PREDICTIVE = {
    "MetricSpecifications": [
        {
            "TargetValue": 50.5,
            "PredefinedMetricPairSpecification": {"PredefinedMetricType": "ASGCPUUtilization"},
        }
    ],
    "Mode": "ForecastAndScale",
    "MaxCapacityBreachBehavior": "IncreaseMaxCapacity",
    "MaxCapacityBuffer": 10,
}


@pytest.fixture(scope="module")
def accounts(shared_front: Front) -> Accounts:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        return Accounts(Config(regions=(REGION,), endpoint=shared_front.endpoint), now=lambda: datetime.now(UTC))


@pytest.fixture
def front(moto: str, shared_front: Front) -> Front:
    shared_front.rules.clear()
    shared_front.calls.clear()
    return shared_front


@pytest.fixture
def actuator(accounts: Accounts, front: Front) -> AwsActuator:
    return AwsActuator(accounts)


@pytest.fixture
def groups(accounts: Accounts, front: Front) -> Groups:
    return Groups(accounts.home)


def remember(actuator: AwsActuator, groups: Groups, of: ResourceRef, verb: Verb) -> dict[str, Any]:
    """As the store keeps it."""
    remembered: dict[str, Any] = json.loads(json.dumps(actuator.remember(groups.describe(of), verb)))
    return remembered


def suspend(moto: str, *processes: str) -> None:
    sdk(moto, "autoscaling").suspend_processes(AutoScalingGroupName="trainers", ScalingProcesses=list(processes))


def suspended(moto: str) -> list[str]:
    found: list[str] = settings(moto, "trainers")["SuspendedProcesses"]
    return found


def put_predictive_policy(moto: str, name: str = "forecast", **changes: Any) -> None:
    sdk(moto, "autoscaling").put_scaling_policy(
        AutoScalingGroupName="trainers",
        PolicyName=name,
        PolicyType="PredictiveScaling",
        PredictiveScalingConfiguration={**PREDICTIVE, **changes},
    )


def policies(moto: str) -> dict[str, Any]:
    answer = sdk(moto, "autoscaling").describe_policies(AutoScalingGroupName="trainers")
    return {policy["PolicyName"]: policy["PredictiveScalingConfiguration"] for policy in answer["ScalingPolicies"]}


class TestScalingGroupsToZeroAndBack:
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"sizes": (2, 2, 2)},
            {"sizes": (0, 8, 1)},
            {"sizes": (0, 8, 0)},
            {"version": "1"},
            {"launch_configuration": True},
            {"mixed": {"OnDemandBaseCapacity": 1}, "overrides": [{"InstanceType": "g6.xlarge"}]},
            {"tags": {"project": "vision"}},
        ],
    )
    def test_it_comes_back_exactly_as_it_was(
        self, moto: str, actuator: AwsActuator, groups: Groups, how: Mapping[str, Any]
    ) -> None:
        trainers = start_group(moto, **how)
        before = settings(moto, "trainers")
        remembered = remember(actuator, groups, trainers, ZERO)
        assert settings(moto, "trainers") == before, "remembering changes nothing"
        actuator.act(trainers, ZERO, request_id="curfew-1")
        most = before["MaxSize"]
        assert sizes(moto, "trainers") == (0, most, 0)
        assert groups.describe(trainers).state is State.STOPPED
        assert suspended(moto) == FIGHTING
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert settings(moto, "trainers") == before

    @pytest.mark.parametrize(
        "before", [[], ["AZRebalance"], ["AlarmNotification"], FIGHTING, ["ScheduledActions", "ReplaceUnhealthy"]]
    )
    def test_what_was_suspended_before_stays_suspended(
        self, moto: str, actuator: AwsActuator, groups: Groups, before: list[str]
    ) -> None:
        trainers = start_group(moto)
        if before:
            suspend(moto, *before)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        assert suspended(moto) == sorted({*before, *FIGHTING})
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert suspended(moto) == sorted(before)

    def test_predictive_policies_only_forecast_meanwhile(
        self, moto: str, actuator: AwsActuator, groups: Groups
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        put_predictive_policy(moto, "only-looking", Mode="ForecastOnly")
        before = policies(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        assert policies(moto) == {name: {**shown, "Mode": "ForecastOnly"} for name, shown in before.items()}
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert policies(moto) == before

    def test_a_predictive_policy_changed_meanwhile_is_left_as_it_is(
        self, moto: str, actuator: AwsActuator, groups: Groups
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        put_predictive_policy(moto, Mode="ForecastOnly", MaxCapacityBuffer=20)
        theirs = policies(moto)
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert policies(moto) == theirs
        assert sizes(moto, "trainers") == (1, 4, 2)

    def test_twice_is_once(self, moto: str, actuator: AwsActuator, groups: Groups, front: Front) -> None:
        trainers = start_group(moto)
        before = settings(moto, "trainers")
        remembered = remember(actuator, groups, trainers, ZERO)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(trainers, ZERO, request_id=request_id)
        assert front.counted["autoscaling:UpdateAutoScalingGroup"] == 1
        members = None
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(trainers, remembered, request_id=request_id)
            shown = groups.describe(trainers).members
            assert shown == (members or shown)
            members = shown
        assert settings(moto, "trainers") == before

    def test_silence_comes_before_the_sizes_and_goes_after_them(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        front.calls.clear()
        actuator.act(trainers, ZERO, request_id="curfew-1")
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert [call.operation for call in front.calls if not call.operation.startswith("Describe")] == [
            "SuspendProcesses",
            "PutScalingPolicy",
            "UpdateAutoScalingGroup",
            "UpdateAutoScalingGroup",
            "PutScalingPolicy",
            "ResumeProcesses",
        ]

    def test_what_is_remembered_reads_as_a_plan(self, moto: str, actuator: AwsActuator, groups: Groups) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        plan = remember(actuator, groups, trainers, ZERO)["plan"]
        assert plan == (
            "Takes trainers from 2 (at least 1, at most 4) to zero, and suspends AlarmNotification, ScheduledActions "
            "and lets the predictive policies forecast forecast only; undo puts exactly this back."
        )


CHANGES = ("SuspendProcesses", "PutScalingPolicy", "UpdateAutoScalingGroup", "ResumeProcesses")


class TestHalfDone:
    @pytest.mark.parametrize("at", CHANGES[:3])
    def test_an_act_that_got_no_answer_is_asked_for_again(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front, at: str
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        before, before_policies = settings(moto, "trainers"), policies(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        with front.within(lambda call: NO_ANSWER if call.operation == at else None), pytest.raises(Unreachable):
            actuator.act(trainers, ZERO, request_id="curfew-1")
        actuator.act(trainers, ZERO, request_id="curfew-1")
        assert sizes(moto, "trainers") == (0, 4, 0)
        assert suspended(moto) == FIGHTING
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert (settings(moto, "trainers"), policies(moto)) == (before, before_policies)

    @pytest.mark.parametrize("at", CHANGES[:3])
    def test_an_act_never_finished_is_undone(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front, at: str
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        before, before_policies = settings(moto, "trainers"), policies(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        with front.within(lambda call: NO_ANSWER if call.operation == at else None), pytest.raises(Unreachable):
            actuator.act(trainers, ZERO, request_id="curfew-1")
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert (settings(moto, "trainers"), policies(moto)) == (before, before_policies)

    @pytest.mark.parametrize("at", ["UpdateAutoScalingGroup", "PutScalingPolicy", "ResumeProcesses"])
    def test_an_undo_that_got_no_answer_is_asked_for_again(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front, at: str
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        before, before_policies = settings(moto, "trainers"), policies(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        with front.within(lambda call: NO_ANSWER if call.operation == at else None), pytest.raises(Unreachable):
            actuator.restore(trainers, remembered, request_id="curfew-2")
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert (settings(moto, "trainers"), policies(moto)) == (before, before_policies)

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("ScalingActivityInProgress", Conflict),
            ("ResourceContention", Conflict),
            ("AccessDenied", Forbidden),
            ("ValidationError", Unsupported),
        ],
    )
    def test_an_act_that_aws_refuses_leaves_nothing_behind(
        self,
        moto: str,
        actuator: AwsActuator,
        front: Front,
        code: str,
        expected: type[Exception],
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        before, before_policies = settings(moto, "trainers"), policies(moto)
        front.refuse("autoscaling:UpdateAutoScalingGroup", code, "Not now.")
        with pytest.raises(expected):
            actuator.act(trainers, ZERO, request_id="curfew-1")
        assert (settings(moto, "trainers"), policies(moto)) == (before, before_policies)

    def test_the_first_refusal_is_what_is_told(self, moto: str, actuator: AwsActuator, front: Front) -> None:
        trainers = start_group(moto)
        front.refuse("autoscaling:UpdateAutoScalingGroup", "ScalingActivityInProgress", "An activity is in progress.")
        front.refuse("autoscaling:ResumeProcesses", "AccessDenied", "You may not.")
        with pytest.raises(Conflict, match="An activity is in progress"):
            actuator.act(trainers, ZERO, request_id="curfew-1")

    def test_throttling_is_told_as_such(self, moto: str, actuator: AwsActuator, front: Front) -> None:
        trainers = start_group(moto)
        front.refuse("autoscaling:SuspendProcesses", "Throttling", "Rate exceeded")
        with pytest.raises(Throttled):
            actuator.act(trainers, ZERO, request_id="curfew-1")
        assert sizes(moto, "trainers") == (1, 4, 2)

    def test_no_call_begins_too_late(self, moto: str, accounts: Accounts, front: Front) -> None:
        trainers = start_group(moto)
        ticks = count(step=int(LATEST_START_SECONDS) // 2)  # each look at the clock is seconds later
        slow = AwsActuator(accounts, clock=lambda: float(next(ticks)))
        with pytest.raises(Unreachable, match="was not begun"):
            slow.act(trainers, ZERO, request_id="curfew-1")
        assert front.counted["autoscaling:UpdateAutoScalingGroup"] == 0


class TestSomebodyElse:
    @pytest.mark.parametrize(
        "theirs",
        [
            {"DesiredCapacity": 1},
            {"MinSize": 1, "DesiredCapacity": 1},
            {"MaxSize": 9},
            {"MinSize": 2, "MaxSize": 3, "DesiredCapacity": 3},
        ],
    )
    def test_sizes_set_since_are_left_alone_but_ours_is_given_back(
        self, moto: str, actuator: AwsActuator, groups: Groups, theirs: Mapping[str, int]
    ) -> None:
        trainers = start_group(moto)
        put_predictive_policy(moto)
        before = policies(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        sdk(moto, "autoscaling").update_auto_scaling_group(AutoScalingGroupName="trainers", **theirs)
        set_since = sizes(moto, "trainers")
        with pytest.raises(Refused, match="by someone else") as refused:
            actuator.restore(trainers, remembered, request_id="curfew-2")
        assert "they were 2 (at least 1, at most 4)" in refused.value.sentence
        assert sizes(moto, "trainers") == set_since
        assert suspended(moto) == []
        assert policies(moto) == before
        actuator.restore(trainers, remembered, request_id="curfew-3")  # nothing of ours is left
        assert sizes(moto, "trainers") == set_since

    def test_what_scales_it_after_the_undo_is_not_undone(
        self, moto: str, actuator: AwsActuator, groups: Groups
    ) -> None:
        trainers = start_group(moto)
        remembered = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-1")
        actuator.restore(trainers, remembered, request_id="curfew-2")
        sdk(moto, "autoscaling").set_desired_capacity(AutoScalingGroupName="trainers", DesiredCapacity=3)
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert sizes(moto, "trainers") == (1, 4, 3)

    @pytest.mark.parametrize("verb", [ZERO, SPOT])
    def test_a_group_made_anew_under_the_name_is_another(
        self, moto: str, actuator: AwsActuator, groups: Groups, verb: Verb
    ) -> None:
        trainers = start_group(moto)
        remembered = remember(actuator, groups, trainers, verb)
        actuator.act(trainers, verb, request_id="curfew-1")
        sdk(moto, "autoscaling").delete_auto_scaling_group(AutoScalingGroupName="trainers", ForceDelete=True)
        sdk(moto, "ec2").delete_launch_template(LaunchTemplateName="trainers")
        start_group(moto, sizes=(0, 4, 0))
        before = settings(moto, "trainers")
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(trainers, remembered, request_id="curfew-2")
        assert settings(moto, "trainers") == before

    @pytest.mark.parametrize("verb", [ZERO, SPOT])
    def test_a_group_that_is_gone(self, moto: str, actuator: AwsActuator, groups: Groups, verb: Verb) -> None:
        trainers = start_group(moto)
        remembered = remember(actuator, groups, trainers, verb)
        record = groups.describe(trainers)
        sdk(moto, "autoscaling").delete_auto_scaling_group(AutoScalingGroupName="trainers", ForceDelete=True)
        with pytest.raises(NotFound):
            actuator.remember(record, verb)
        with pytest.raises(NotFound):
            actuator.act(trainers, verb, request_id="curfew-1")
        with pytest.raises(NotFound):
            actuator.restore(trainers, remembered, request_id="curfew-2")

    @pytest.mark.parametrize("name", ["trainers", "research/gpu"])
    def test_one_of_the_same_name_in_another_account_is_not_touched(
        self, moto: str, actuator: AwsActuator, front: Front, name: str
    ) -> None:
        start_group(moto)
        start_node_group(moto)
        with pytest.raises(Misconfigured, match="999999999999"):
            actuator.act(ref(name, account="999999999999"), ZERO, request_id="curfew-1")
        assert all(call.operation.startswith("Describe") for call in front.calls)

    def test_a_group_that_goes_while_it_is_acted_on(self, moto: str, actuator: AwsActuator, front: Front) -> None:
        trainers = start_group(moto)
        front.refuse("autoscaling:SuspendProcesses", "ValidationError", "AutoScalingGroup name not found - null")
        with pytest.raises(NotFound):
            actuator.act(trainers, ZERO, request_id="curfew-1")


class TestOnToSpotAndBack:
    @pytest.mark.parametrize(
        "how",
        [
            {},
            {"version": "1"},
            {"sizes": (0, 4, 0)},
            {"mixed": {"OnDemandBaseCapacity": 1}},
            {
                "mixed": {
                    "OnDemandPercentageAboveBaseCapacity": 40,
                    "SpotAllocationStrategy": "lowest-price",
                    "SpotInstancePools": 3,
                    "SpotMaxPrice": "2.5",
                },
                "overrides": [
                    {"InstanceType": "g6.xlarge", "WeightedCapacity": "1"},
                    {"InstanceType": "g6.2xlarge", "WeightedCapacity": "1"},
                ],
            },
        ],
    )
    def test_it_comes_back_exactly_as_it_was(
        self, moto: str, actuator: AwsActuator, groups: Groups, how: Mapping[str, Any]
    ) -> None:
        trainers = start_group(moto, **how)
        before, members = settings(moto, "trainers"), set(groups.describe(trainers).members)
        remembered = remember(actuator, groups, trainers, SPOT)
        actuator.act(trainers, SPOT, request_id="curfew-1")
        record = groups.describe(trainers)
        assert record.capacity_type is CapacityType.SPOT
        assert set(record.members) == members
        moved = settings(moto, "trainers")
        distribution = moved["MixedInstancesPolicy"]["InstancesDistribution"]
        assert distribution["OnDemandBaseCapacity"] == distribution["OnDemandPercentageAboveBaseCapacity"] == 0
        assert distribution["SpotAllocationStrategy"] == "price-capacity-optimized"
        unmoved = {"MixedInstancesPolicy", "LaunchTemplate"}
        assert {key: value for key, value in moved.items() if key not in unmoved} == {
            key: value for key, value in before.items() if key not in unmoved
        }
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert settings(moto, "trainers") == before

    def test_twice_is_once(self, moto: str, actuator: AwsActuator, groups: Groups, front: Front) -> None:
        trainers = start_group(moto)
        before = settings(moto, "trainers")
        remembered = remember(actuator, groups, trainers, SPOT)
        for request_id in ("curfew-1", "curfew-1", "curfew-2"):
            actuator.act(trainers, SPOT, request_id=request_id)
        for request_id in ("curfew-3", "curfew-3", "curfew-4"):
            actuator.restore(trainers, remembered, request_id=request_id)
        assert settings(moto, "trainers") == before
        assert front.counted["autoscaling:UpdateAutoScalingGroup"] == 2

    def test_an_act_that_got_no_answer(self, moto: str, actuator: AwsActuator, groups: Groups, front: Front) -> None:
        trainers = start_group(moto)
        before = settings(moto, "trainers")
        remembered = remember(actuator, groups, trainers, SPOT)
        lost = front.within(lambda call: NO_ANSWER if call.operation == "UpdateAutoScalingGroup" else None)
        with lost, pytest.raises(Unreachable):
            actuator.act(trainers, SPOT, request_id="curfew-1")
        actuator.restore(trainers, remembered, request_id="curfew-2")
        assert settings(moto, "trainers") == before

    def test_launches_changed_since_are_left_alone(self, moto: str, actuator: AwsActuator, groups: Groups) -> None:
        trainers = start_group(moto)
        remembered = remember(actuator, groups, trainers, SPOT)
        actuator.act(trainers, SPOT, request_id="curfew-1")
        other = made.make_template(moto, "g6.2xlarge", name="other")
        sdk(moto, "autoscaling").update_auto_scaling_group(
            AutoScalingGroupName="trainers", LaunchTemplate={"LaunchTemplateId": other, "Version": "1"}
        )
        theirs = settings(moto, "trainers")
        with pytest.raises(Refused, match="by someone else"):
            actuator.restore(trainers, remembered, request_id="curfew-2")
        assert settings(moto, "trainers") == theirs

    def test_a_launch_configuration_cannot(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front
    ) -> None:
        trainers = start_group(moto, launch_configuration=True)
        record = groups.describe(trainers)
        with pytest.raises(Unsupported, match="launch configuration"):
            actuator.remember(record, SPOT)
        with pytest.raises(Unsupported, match="launch configuration"):
            actuator.act(trainers, SPOT, request_id="curfew-1")
        assert front.counted["autoscaling:UpdateAutoScalingGroup"] == 0

    def test_to_zero_on_spot_and_all_the_way_back(self, moto: str, actuator: AwsActuator, groups: Groups) -> None:
        trainers = start_group(moto)
        before = settings(moto, "trainers")
        to_spot = remember(actuator, groups, trainers, SPOT)
        actuator.act(trainers, SPOT, request_id="curfew-1")
        to_zero = remember(actuator, groups, trainers, ZERO)
        actuator.act(trainers, ZERO, request_id="curfew-2")
        actuator.restore(trainers, to_spot, request_id="curfew-3")
        assert sizes(moto, "trainers") == (0, 4, 0)
        actuator.restore(trainers, to_zero, request_id="curfew-4")
        assert settings(moto, "trainers") == before


class TestNodeGroupsToZeroAndBack:
    @pytest.mark.parametrize("wanted", [(1, 4, 2), (2, 2, 2), (0, 4, 1), (0, 4, 0)])
    def test_it_comes_back_exactly_as_it_was(
        self, moto: str, actuator: AwsActuator, groups: Groups, wanted: tuple[int, int, int]
    ) -> None:
        node_group = start_node_group(moto, sizes=wanted)

        def shown() -> dict[str, Any]:
            return {key: value for key, value in made.node_group(moto, node_group).items() if key != "modifiedAt"}

        before = shown()
        remembered = remember(actuator, groups, node_group, ZERO)
        actuator.act(node_group, ZERO, request_id="curfew-1")
        assert shown()["scalingConfig"] == {"minSize": 0, "maxSize": wanted[1], "desiredSize": 0}
        assert groups.describe(node_group).state is State.STOPPED
        actuator.restore(node_group, remembered, request_id="curfew-2")
        assert shown() == before
        assert len(groups.describe(node_group).members) == wanted[2]

    def test_each_request_is_sent_with_its_own_id_once(
        self, moto: str, actuator: AwsActuator, groups: Groups, front: Front
    ) -> None:
        node_group = start_node_group(moto)
        remembered = remember(actuator, groups, node_group, ZERO)
        for _ in range(2):
            actuator.act(node_group, ZERO, request_id="curfew-1")
        for _ in range(2):
            actuator.restore(node_group, remembered, request_id="curfew-2")
        sent = [json.loads(call.body) for call in front.calls if call.operation == "UpdateNodegroupConfig"]
        assert sent == [
            {"clientRequestToken": "curfew-1", "scalingConfig": {"minSize": 0, "desiredSize": 0}},
            {"clientRequestToken": "curfew-2", "scalingConfig": {"minSize": 1, "desiredSize": 2}},
        ]

    def test_sizes_set_since_are_left_alone(self, moto: str, actuator: AwsActuator, groups: Groups) -> None:
        node_group = start_node_group(moto)
        remembered = remember(actuator, groups, node_group, ZERO)
        actuator.act(node_group, ZERO, request_id="curfew-1")
        sdk(moto, "eks").update_nodegroup_config(
            clusterName="research", nodegroupName="gpu", scalingConfig={"desiredSize": 3}
        )
        with pytest.raises(Refused, match="by someone else"):
            actuator.restore(node_group, remembered, request_id="curfew-2")
        assert made.node_group(moto, node_group)["scalingConfig"]["desiredSize"] == 3

    def test_an_act_that_got_no_answer(self, moto: str, actuator: AwsActuator, groups: Groups, front: Front) -> None:
        node_group = start_node_group(moto)
        before = made.node_group(moto, node_group)["scalingConfig"]
        remembered = remember(actuator, groups, node_group, ZERO)

        def lost_on_its_way_back(call: Call) -> Reply | None:
            if call.operation != "UpdateNodegroupConfig":
                return None
            scaling = json.loads(call.body)["scalingConfig"]
            sdk(moto, "eks").update_nodegroup_config(clusterName="research", nodegroupName="gpu", scalingConfig=scaling)
            return NO_ANSWER

        with front.within(lost_on_its_way_back), pytest.raises(Unreachable):
            actuator.act(node_group, ZERO, request_id="curfew-1")
        actuator.act(node_group, ZERO, request_id="curfew-1")
        assert groups.describe(node_group).state is State.STOPPED
        actuator.restore(node_group, remembered, request_id="curfew-2")
        assert made.node_group(moto, node_group)["scalingConfig"] == before

    def test_what_eks_refuses(self, moto: str, actuator: AwsActuator, front: Front) -> None:
        node_group = start_node_group(moto)
        for code, expected in {
            "ResourceInUseException": Conflict,
            "InvalidRequestException": Conflict,
            "AccessDeniedException": Forbidden,
            "InvalidParameterException": Unsupported,
            "ResourceNotFoundException": NotFound,
        }.items():
            front.rules.clear()
            front.answer("eks:UpdateNodegroupConfig", error("eks", code, "Not now."))
            with pytest.raises(expected):
                actuator.act(node_group, ZERO, request_id="curfew-1")

    def test_one_made_anew_under_the_name_is_another(self, moto: str, actuator: AwsActuator, groups: Groups) -> None:
        node_group = start_node_group(moto)
        remembered = remember(actuator, groups, node_group, ZERO)
        with pytest.raises(NotFound, match="made anew"):
            actuator.restore(node_group, {**remembered, "group": "arn:aws:eks:other"}, request_id="curfew-2")


@pytest.mark.parametrize("external_id", ["trainers", "research/gpu"])
def test_what_a_group_cannot_do_is_not_even_asked(actuator: AwsActuator, front: Front, external_id: str) -> None:
    for verb in (Verb.STOP, Verb.TERMINATE, Verb.SUSPEND, Verb.START, Verb.HIBERNATE):
        with pytest.raises(Unsupported, match="scale_to_zero"):
            actuator.act(ref(external_id), verb, request_id="curfew-1")
    assert not front.calls


def test_a_node_group_cannot_be_moved_to_spot(actuator: AwsActuator, front: Front) -> None:
    with pytest.raises(Unsupported):
        actuator.act(ref("research/gpu"), SPOT, request_id="curfew-1")
    assert not front.calls
