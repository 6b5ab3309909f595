"""Scaling groups and node groups to put into moto, and what AWS shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from providers.records import Kind, ResourceRef
from tests.providers.aws.fleet import ACCOUNT, IMAGE, REGION, sdk
from tests.providers.aws.mended import DISTRIBUTION_DEFAULTS

Answer = Mapping[str, Any]


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
