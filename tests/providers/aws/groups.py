"""Scaling groups and node groups in moto, and what AWS does with them where moto does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from moto.autoscaling.models import FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.responses import ActionResult
from moto.eks.models import EKSBackend

from providers.records import Kind, ResourceRef
from tests.providers.aws.fleet import ACCOUNT, IMAGE, REGION, sdk

Answer = Mapping[str, Any]

DISTRIBUTION_DEFAULTS = {
    "OnDemandAllocationStrategy": "prioritized",
    "OnDemandBaseCapacity": 0,
    "OnDemandPercentageAboveBaseCapacity": 100,
    "SpotAllocationStrategy": "lowest-price",
}


@contextmanager
def as_aws_does() -> Iterator[None]:
    """moto, mended in this process:

    - an update keeps the mixed instances policy that it does not name, and fills in what a new one leaves open;
    - a group of a mixed instances policy shows no launch template beside it;
    - there are instance refreshes to ask for, and none is under way;
    - EKS scales the group behind a node group, which `start_node_group` makes.
    """
    update: Any = FakeAutoScalingGroup.update
    template: Any = FakeAutoScalingGroup.launch_template
    config: Any = EKSBackend.update_nodegroup_config

    def updated(
        self: Any, *args: Any, launch_template: Any = None, mixed_instances_policy: Any = None, **rest: Any
    ) -> None:
        if mixed_instances_policy:
            given = {**DISTRIBUTION_DEFAULTS, **mixed_instances_policy.get("InstancesDistribution", {})}
            if given["SpotAllocationStrategy"] == "lowest-price":
                given.setdefault("SpotInstancePools", 2)
            mixed_instances_policy["InstancesDistribution"] = given
        elif not launch_template and self.mixed_instances_policy:
            mixed_instances_policy = deepcopy(self.mixed_instances_policy)
            # moto takes either, and has stored both
            del mixed_instances_policy["LaunchTemplate"]["LaunchTemplateSpecification"]["LaunchTemplateName"]
        update(self, *args, launch_template=launch_template, mixed_instances_policy=mixed_instances_policy, **rest)

    def shown(self: Any) -> Any:
        return None if self.mixed_instances_policy else template.fget(self)

    def configured(self: Any, cluster_name: str, nodegroup_name: str, *args: Any, **rest: Any) -> Any:
        answer = config(self, cluster_name, nodegroup_name, *args, **rest)
        node_group = self.clusters[cluster_name].nodegroups[nodegroup_name]
        scaling = node_group.scaling_config
        groups = get_backend("autoscaling")[self.account_id][self.region_name].autoscaling_groups
        for named in node_group.resources["autoScalingGroups"]:
            if named["name"] in groups:
                group = groups[named["name"]]
                group.min_size, group.max_size = scaling["minSize"], scaling["maxSize"]
                group.set_desired_capacity(scaling["desiredSize"])
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeAutoScalingGroup, "update", updated)
        patch.setattr(FakeAutoScalingGroup, "launch_template", property(shown))
        patch.setattr(
            AutoScalingResponse,
            "describe_instance_refreshes",
            lambda self: ActionResult({"InstanceRefreshes": []}),
            raising=False,
        )
        patch.setattr(EKSBackend, "update_nodegroup_config", configured)
        yield


def make_template(endpoint: str, sku: str | None, *, name: str = "trainers", **data: Any) -> str:
    """A launch template; its id."""
    wanted = {"ImageId": IMAGE, **({"InstanceType": sku} if sku else {}), **data}
    answer = sdk(endpoint, "ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData=wanted)
    template_id: str = answer["LaunchTemplate"]["LaunchTemplateId"]
    return template_id


def start_group(
    endpoint: str,
    name: str = "trainers",
    *,
    sku: str | None = "g6.xlarge",
    sizes: tuple[int, int, int] = (1, 4, 2),
    version: str = "$Latest",
    mixed: Answer | None = None,
    overrides: Sequence[Answer] = (),
    launch_configuration: bool = False,
    tags: Mapping[str, str] | None = None,
    protected: bool = False,
    template: Answer | None = None,
) -> ResourceRef:
    """A scaling group of its own launch template; sizes are least, most and desired."""
    scaling = sdk(endpoint, "autoscaling")
    launches: dict[str, Any]
    if launch_configuration:
        scaling.create_launch_configuration(LaunchConfigurationName=name, ImageId=IMAGE, InstanceType=sku)
        launches = {"LaunchConfigurationName": name}
    else:
        template_id = make_template(endpoint, sku, name=name.replace("/", "-"), **(template or {}))
        specification = {"LaunchTemplateId": template_id, "Version": version}
        launches = {"LaunchTemplate": specification}
        if mixed is not None:
            launches = {
                "MixedInstancesPolicy": {
                    "LaunchTemplate": {
                        "LaunchTemplateSpecification": specification,
                        "Overrides": [dict(one) for one in overrides],
                    },
                    "InstancesDistribution": {**DISTRIBUTION_DEFAULTS, "SpotInstancePools": 2, **mixed},
                }
            }
    least, most, desired = sizes
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=least,
        MaxSize=most,
        DesiredCapacity=desired,
        AvailabilityZones=[f"{REGION}a"],
        NewInstancesProtectedFromScaleIn=protected,
        Tags=[
            {"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": k, "Value": v, "PropagateAtLaunch": False}
            for k, v in (tags or {}).items()
        ],
        **launches,
    )
    return ref(name)


def start_node_group(
    endpoint: str,
    cluster: str = "research",
    name: str = "gpu",
    *,
    sku: str = "g6.xlarge",
    sizes: tuple[int, int, int] = (1, 4, 2),
    capacity_type: str = "ON_DEMAND",
    tags: Mapping[str, str] | None = None,
) -> ResourceRef:
    """An EKS node group, with the scaling group that EKS would make for it."""
    eks, (least, most, desired) = sdk(endpoint, "eks"), sizes
    if cluster not in eks.list_clusters()["clusters"]:
        role = f"arn:aws:iam::{ACCOUNT}:role/eks"
        eks.create_cluster(name=cluster, roleArn=role, resourcesVpcConfig={"subnetIds": []})
    node_group = eks.create_nodegroup(
        clusterName=cluster,
        nodegroupName=name,
        nodeRole=f"arn:aws:iam::{ACCOUNT}:role/node",
        subnets=["subnet-1"],
        instanceTypes=[sku],
        capacityType=capacity_type,
        scalingConfig={"minSize": least, "maxSize": most, "desiredSize": desired},
        tags=dict(tags or {}),
    )["nodegroup"]
    start_group(
        endpoint,
        node_group["resources"]["autoScalingGroups"][0]["name"],
        sku=sku,
        sizes=sizes,
        mixed={"OnDemandPercentageAboveBaseCapacity": 0 if capacity_type == "SPOT" else 100},
        overrides=[{"InstanceType": sku}],
        tags={
            "eks:cluster-name": cluster,
            "eks:nodegroup-name": name,
            f"kubernetes.io/cluster/{cluster}": "owned",
            f"k8s.io/cluster-autoscaler/{cluster}": "owned",
        },
    )
    return ref(f"{cluster}/{name}")


def ref(external_id: str, account: str = ACCOUNT) -> ResourceRef:
    return ResourceRef(provider="aws", account=account, region=REGION, kind=Kind.NODE_GROUP, external_id=external_id)


def group(endpoint: str, name: str) -> dict[str, Any]:
    """A scaling group as AWS shows it."""
    found: dict[str, Any] = sdk(endpoint, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
        "AutoScalingGroups"
    ][0]
    return found


def settings(endpoint: str, name: str) -> dict[str, Any]:
    """All that can be set of a group: what an undo must bring back exactly. Of its machines, how many of which type."""
    found = group(endpoint, name)
    found["Instances"] = sorted(instance["InstanceType"] for instance in found["Instances"])
    found["SuspendedProcesses"] = sorted(process["ProcessName"] for process in found["SuspendedProcesses"])
    return found


def sizes(endpoint: str, name: str) -> tuple[int, int, int]:
    found = group(endpoint, name)
    return found["MinSize"], found["MaxSize"], found["DesiredCapacity"]


def node_group(endpoint: str, ref: ResourceRef) -> dict[str, Any]:
    cluster, _, name = ref.external_id.partition("/")
    found: dict[str, Any] = sdk(endpoint, "eks").describe_nodegroup(clusterName=cluster, nodegroupName=name)[
        "nodegroup"
    ]
    return found
