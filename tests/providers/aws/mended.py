"""Does to groups in moto what AWS does to them, where moto does not."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from moto.autoscaling.models import FakeAutoScalingGroup
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.responses import ActionResult
from moto.eks.models import EKSBackend

DISTRIBUTION_DEFAULTS = {
    "OnDemandAllocationStrategy": "prioritized",
    "OnDemandBaseCapacity": 0,
    "OnDemandPercentageAboveBaseCapacity": 100,
    "SpotAllocationStrategy": "lowest-price",
}


@cache
def mend() -> None:
    """In this process, once and for all:

    - an update keeps the mixed instances policy that it does not name, and fills in what a new one leaves open;
    - a group of a mixed instances policy shows no launch template beside it;
    - there are instance refreshes to ask for, and none is under way;
    - EKS scales the group behind a node group, where there is one by the name it reports.
    """
    update: Any = FakeAutoScalingGroup.update
    template: Any = FakeAutoScalingGroup.launch_template
    configure: Any = EKSBackend.update_nodegroup_config

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
        answer = configure(self, cluster_name, nodegroup_name, *args, **rest)
        node_group = self.clusters[cluster_name].nodegroups[nodegroup_name]
        scaling = node_group.scaling_config
        groups = get_backend("autoscaling")[self.account_id][self.region_name].autoscaling_groups
        for named in node_group.resources["autoScalingGroups"]:
            if named["name"] in groups:
                group = groups[named["name"]]
                group.min_size, group.max_size = scaling["minSize"], scaling["maxSize"]
                group.set_desired_capacity(scaling["desiredSize"])
        return answer

    patched: Any = FakeAutoScalingGroup
    patched.update, patched.launch_template = updated, property(shown)
    answering: Any = AutoScalingResponse
    answering.describe_instance_refreshes = lambda self: ActionResult({"InstanceRefreshes": []})
    scaled: Any = EKSBackend
    scaled.update_nodegroup_config = configured
