"""A scaling group from outside: warned about as one, scaled to zero in the cloud, and put back exactly as it was."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.conftest import Installation
from tests.providers.aws import groups
from tests.providers.aws.fleet import IMAGE, sdk, set_spot

GROUP = "trainers"
POLICY = """
---
kind: policy
name: idle-groups
type: idle
mode: enforce
scope: {kinds: [node_group]}
idle: {for: 10m, warm_up: 1m}
grace: 1s
action: scale_to_zero
accept_loss: [group_members]
disruption_budget: {max: 100%}
"""
ON_SPOT = """
---
kind: policy
name: groups-on-spot
type: spot
mode: enforce
scope: {kinds: [node_group]}
spot: {allowed_on_demand: 0%}
grace: 1s
action: move_to_spot
accept_loss: [group_members]
disruption_budget: {max: 100%}
"""
FORGOTTEN = ("Instances", "SuspendedProcesses", "Status", "CreatedTime")


def start_group(here: Installation) -> list[str]:
    """Two machines of 4 L4 in a group that keeps one to five, one of its processes suspended by its owner."""
    sdk(here.front.moto, "ec2").create_launch_template(
        LaunchTemplateName=GROUP, LaunchTemplateData={"ImageId": IMAGE, "InstanceType": "g6.12xlarge"}
    )
    scaling = sdk(here.front.moto, "autoscaling")
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP,
        MinSize=1,
        DesiredCapacity=2,
        MaxSize=5,
        AvailabilityZones=["us-east-1a"],
        LaunchTemplate={"LaunchTemplateName": GROUP, "Version": "1"},
        Tags=[{"Key": "project", "Value": "vision", "PropagateAtLaunch": True}],
    )
    scaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["AZRebalance"])
    return members(here)


def group(here: Installation) -> dict[str, Any]:
    """The truth, asked of the cloud and not of Curfew."""
    answer = sdk(here.front.moto, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    found: dict[str, Any] = answer["AutoScalingGroups"][0]
    return found


def members(here: Installation) -> list[str]:
    return [instance["InstanceId"] for instance in group(here)["Instances"]]


def suspended(here: Installation) -> set[str]:
    return {process["ProcessName"] for process in group(here)["SuspendedProcesses"]}


def settled(here: Installation) -> dict[str, Any]:
    return {key: value for key, value in group(here).items() if key not in FORGOTTEN}


def test_an_idle_group_is_scaled_to_zero_and_put_back_as_it_was(installation: Installation) -> None:
    here = installation
    here.documents(more=POLICY)
    for instance in start_group(here):
        here.age(instance)
        here.sampled(instance, percent=0, gpus=4)
    before = settled(here)

    assert here.curfew.cycle()["error"] is None
    resource = here.curfew.resources()[GROUP]
    assert (resource["kind"], resource["state"], resource["gpu_count"]) == ("node_group", "running", 8)
    assert (resource["activity"], resource["project"]) == ("idle", "vision")
    [finding] = here.curfew.findings(policy="idle-groups")
    assert finding["status"] == "warned"
    assert finding["reason"].startswith("Every member that runs is in breach")
    assert here.curfew.findings(policy="idle-gpus")[0]["status"] == "refused"  # its owner did not accept the loss

    time.sleep(1.2)
    here.curfew.cycle()
    here.curfew.cycle()
    assert (members(here), group(here)["DesiredCapacity"], group(here)["MinSize"]) == ([], 0, 0)
    assert {"AZRebalance", "AlarmNotification", "ScheduledActions"} <= suspended(here)
    [action] = here.curfew.get("/actions")["items"]
    assert (action["verb"], action["status"]) == ("scale_to_zero", "verified")

    here.curfew.post(f"/actions/{action['id']}/undo")
    for _ in range(3):
        here.curfew.cycle()
    assert settled(here) == before
    assert suspended(here) == {"AZRebalance"}
    assert len(members(here)) == 2
    assert here.curfew.get(f"/actions/{action['id']}")["status"] == "undone"


def test_one_busy_member_spares_the_group_and_says_so(installation: Installation) -> None:
    here = installation
    here.documents(more=POLICY)
    first, second = start_group(here)
    for instance, percent in ((first, 0), (second, 91)):
        here.age(instance)
        here.sampled(instance, percent=percent, gpus=4)

    here.curfew.cycle()
    time.sleep(1.2)
    here.curfew.cycle()

    assert len(members(here)) == 2
    told = here.curfew.get(f"/resources/{here.curfew.resources()[GROUP]['id']}/explain")
    [policy] = [entry for entry in told["policies"] if entry["policy"] == "idle-groups"]
    assert policy["verdict"] == "ok"
    assert "one member spares it" in policy["reason"]


def test_a_group_that_is_partly_on_spot_is_moved_and_put_back_as_it_was(installation: Installation) -> None:
    """A mixed instances group: one on demand at all times, of what is above a quarter; the rest is on spot already."""
    here = installation
    here.documents(more=ON_SPOT)
    groups.start_group(
        here.front.moto,
        GROUP,
        sizes=(1, 6, 4),
        mixed={"OnDemandBaseCapacity": 1, "OnDemandPercentageAboveBaseCapacity": 25, "SpotMaxPrice": "2.5"},
        overrides=[{"InstanceType": "g6.xlarge"}, {"InstanceType": "g5.xlarge"}],
        tags={"project": "vision"},
    )
    on_demand, *on_spot = members(here)
    for instance in on_spot:
        set_spot(instance)
    before, there = groups.settings(here.front.moto, GROUP), members(here)

    assert here.curfew.cycle()["error"] is None
    seen = here.curfew.resources()
    assert {seen[name]["capacity_type"] for name in on_spot} == {"spot"}
    assert (seen[on_demand]["capacity_type"], seen[GROUP]["capacity_type"]) == ("on_demand", "on_demand")
    [finding] = here.curfew.findings(policy="groups-on-spot")
    assert (finding["status"], finding["resource"]) == ("warned", seen[GROUP]["id"])
    assert finding["reason"].startswith("Every member that runs on anything but spot is in breach")

    time.sleep(1.2)
    here.curfew.cycle()
    here.curfew.cycle()
    [action] = here.curfew.get("/actions")["items"]
    assert (action["verb"], action["status"]) == ("move_to_spot", "verified")
    moved = group(here)["MixedInstancesPolicy"]["InstancesDistribution"]
    assert (moved["OnDemandBaseCapacity"], moved["OnDemandPercentageAboveBaseCapacity"]) == (0, 0)
    assert here.curfew.resources()[GROUP]["capacity_type"] == "spot"
    assert sorted(members(here)) == sorted(there)

    here.curfew.post(f"/actions/{action['id']}/undo")
    for _ in range(2):
        here.curfew.cycle()
    assert groups.settings(here.front.moto, GROUP) == before
    assert here.curfew.get(f"/actions/{action['id']}")["status"] == "undone"


def test_a_group_that_runs_on_spot_alone_is_left_as_it_launches(installation: Installation) -> None:
    here = installation
    here.documents(more=ON_SPOT)
    mixed = {"OnDemandPercentageAboveBaseCapacity": 50}
    groups.start_group(here.front.moto, GROUP, mixed=mixed, overrides=[{"InstanceType": "g6.xlarge"}])
    for instance in members(here):
        set_spot(instance)

    here.curfew.cycle()

    assert here.curfew.findings(policy="groups-on-spot") == []
    told = here.curfew.get(f"/resources/{here.curfew.resources()[GROUP]['id']}/explain")
    [policy] = [entry for entry in told["policies"] if entry["policy"] == "groups-on-spot"]
    assert policy["reason"] == "None of its members runs on anything but spot."
