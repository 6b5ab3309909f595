"""Turns scaling groups and EKS node groups with accelerators into records: lists them, and describes one.

Asks; what the answers mean is `translate_groups`' business.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from providers.aws import translate, translate_groups
from providers.aws.client import Client, translated
from providers.aws.translate import MachineType
from providers.aws.translate_groups import Launch, Seen
from providers.errors import Misconfigured, NotFound, ProviderError, Unsupported, together
from providers.questions import batches
from providers.records import Fault, ResourceRecord, ResourceRef

Answer = Mapping[str, Any]
Faults = list[Fault]
Templates = dict[tuple[str, str, str], Launch]
"""What launch templates say by region, id and number of the version; that never changes."""

ABOUT = " about groups"
"""What questions of this file are about, where several went unanswered."""
PAGE = 100
"""Groups per page, EC2 Auto Scaling's most."""
TYPES_PER_CALL = 100
CONFIGURATIONS_PER_CALL = 50
INSTANCES_PER_CALL = 200
"""Values of one filter, EC2's most."""
REFRESHING = frozenset({"Pending", "InProgress", "Cancelling", "RollbackInProgress", "Baking"})


class Groups:
    """Scaling groups with accelerators. Those that EKS keeps for its node groups appear as the node groups."""

    def __init__(
        self, client: Client, *, types: dict[str, MachineType] | None = None, templates: Templates | None = None
    ) -> None:
        self._client = client
        self._types = types if types is not None else {}
        """What EC2 said of its types. They never change, and are known to the inventory too."""
        self._templates = templates if templates is not None else {}

    def list(self, region: str, instances: Sequence[ResourceRecord]) -> tuple[Sequence[ResourceRecord], Fault | None]:
        """Groups of a region whose members have accelerators, or that would launch such if they had members.

        `instances` are the region's machines with accelerators. With a fault, there may be more groups.
        """
        faults: Faults = []
        try:
            with translated("autoscaling", region, "DescribeAutoScalingGroups"):
                return self._listed(region, instances, faults), together(faults, about=ABOUT)
        except ProviderError as error:  # an answer that is not AWS's
            return (), together([error.as_fault(), *faults], about=ABOUT)

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        """One group, fresh, with its members, launch template and refreshes. Raises rather than leave one open."""
        try:
            with translated("autoscaling", ref.region, "DescribeAutoScalingGroups"):
                if translate_groups.node_group_names(ref.external_id):
                    return self._describe_node_group(ref)
                return self._describe_scaling_group(ref)
        except NotFound:
            # another account would not know it either, and that must not read as: it is gone
            account = self._client.account()
            if account != ref.account:
                raise Misconfigured(
                    f"{ref.external_id} belongs to account {ref.account}, but the credentials are of account {account}"
                ) from None
            raise

    def _listed(self, region: str, instances: Sequence[ResourceRecord], faults: Faults) -> Sequence[ResourceRecord]:
        known = {record.ref.external_id: record for record in instances}
        groups = self._all(region, faults)
        launches = self._launches(region, groups, faults)
        skus = _member_skus(groups, known) | {
            sku
            for group in groups
            for sku in translate_groups.launched_skus(group, _of(launches, group))
            if not translate_groups.members(group)
        }
        machines = self._machines(region, skus, faults)
        records: list[ResourceRecord] = []
        node_groups: dict[str, list[Answer]] = {}
        for group in groups:
            seen = Seen(instances=known, machines=machines, launch=_of(launches, group))
            if not translate_groups.has_accelerators(group, seen):
                continue
            node_group = translate_groups.node_group_of(group)
            if node_group is None:
                records.append(translate_groups.record_of_group(group, seen, region=region, fully_described=False))
            else:
                node_groups.setdefault(node_group, []).append(group)
        for node_group, theirs in node_groups.items():
            try:
                records.append(
                    translate_groups.record_of_node_group(
                        self._node_group(region, node_group),
                        theirs,
                        Seen(instances=known, machines=machines, launch=_of(launches, theirs[0])),
                        account=translate_groups.account_of(theirs[0]["AutoScalingGroupARN"]),
                        region=region,
                        fully_described=False,
                    )
                )
            except ProviderError as error:
                faults.append(error.as_fault())
        return records

    def _describe_scaling_group(self, ref: ResourceRef) -> ResourceRecord:
        name = translate_groups.scaling_group_name(ref.external_id)
        for group in self._by_name(ref.region, [name]):
            translate_groups.check_account(ref, group["AutoScalingGroupARN"])
            launch = self._launch(ref.region, group)
            seen = Seen(
                instances=self._instances(ref, [group]),
                machines=self._machines(ref.region, translate_groups.launched_skus(group, launch)),
                launch=launch,
                refresh=self._refresh(ref.region, group),
            )
            return translate_groups.record_of_group(group, seen, region=ref.region, fully_described=True)
        raise NotFound(f"EC2 Auto Scaling in {ref.region} knows no group {name}")

    def _describe_node_group(self, ref: ResourceRef) -> ResourceRecord:
        node_group = self._node_group(ref.region, ref.external_id)
        translate_groups.check_account(ref, node_group["nodegroupArn"])
        names = [group["name"] for group in (node_group.get("resources") or {}).get("autoScalingGroups") or ()]
        groups = self._by_name(ref.region, names) if names else ()
        launch = Launch(skus=tuple(node_group.get("instanceTypes") or ()))
        skus = {sku for group in groups for sku in translate_groups.launched_skus(group, launch)}
        seen = Seen(instances=self._instances(ref, groups), machines=self._machines(ref.region, skus), launch=launch)
        return translate_groups.record_of_node_group(
            node_group, groups, seen, account=ref.account, region=ref.region, fully_described=True
        )

    # groups

    def _all(self, region: str, faults: Faults) -> Sequence[Answer]:
        groups: list[Answer] = []
        try:
            for page in self._client.pages(
                "autoscaling", region, "DescribeAutoScalingGroups", "AutoScalingGroups", MaxRecords=PAGE
            ):
                groups += page["AutoScalingGroups"]
        except ProviderError as error:
            faults.append(error.as_fault())
        return groups

    def _by_name(self, region: str, names: Sequence[str]) -> Sequence[Answer]:
        answer = self._client.call(
            "autoscaling", region, "DescribeAutoScalingGroups", "AutoScalingGroups", AutoScalingGroupNames=[*names]
        )
        return cast(Sequence[Answer], answer)

    def _node_group(self, region: str, external_id: str) -> Answer:
        cluster, _, name = external_id.partition("/")
        answer = self._client.call(
            "eks", region, "DescribeNodegroup", "nodegroup", clusterName=cluster, nodegroupName=name
        )
        return cast(Answer, answer)

    def _refresh(self, region: str, group: Answer) -> str | None:
        """The status of an instance refresh that is under way. The newest come first, and one can be at a time."""
        refreshes = self._client.call(
            "autoscaling",
            region,
            "DescribeInstanceRefreshes",
            "InstanceRefreshes",
            AutoScalingGroupName=group["AutoScalingGroupName"],
        )
        return next((str(one["Status"]) for one in refreshes if one.get("Status") in REFRESHING), None)

    # what they launch

    def _launches(self, region: str, groups: Sequence[Answer], faults: Faults) -> Mapping[str, Launch]:
        """What groups without members would launch, by ARN. One that cannot be told is left out, with a fault."""
        asked = [group for group in groups if not translate_groups.members(group) and not _tells_types(group)]
        configurations: dict[str, Launch] = {}
        names = sorted({group["LaunchConfigurationName"] for group in asked if group.get("LaunchConfigurationName")})
        for batch in batches(names, CONFIGURATIONS_PER_CALL):
            try:
                configurations |= self._configurations(region, batch)
            except ProviderError as error:
                faults.append(error.as_fault())
        found: dict[str, Launch] = {}
        for group in asked:
            template = translate_groups.template_of(group)
            if template is None:
                found[group["AutoScalingGroupARN"]] = configurations.get(
                    group.get("LaunchConfigurationName", ""), Launch()
                )
                continue
            try:
                launch = self._template(region, template)
            except ProviderError as error:
                faults.append(error.as_fault())
                continue
            if launch.gone:
                faults.append(_untold(group, region))
            found[group["AutoScalingGroupARN"]] = launch
        return found

    def _launch(self, region: str, group: Answer) -> Launch:
        """What one group's launch template or configuration says now."""
        template = translate_groups.template_of(group)
        if template is not None:
            return self._template(region, template)
        name = group.get("LaunchConfigurationName")
        return self._configurations(region, [name]).get(name, Launch(gone=True)) if name else Launch()

    def _template(self, region: str, template: Answer) -> Launch:
        version = template.get("Version") or "$Default"
        named = {key: template[key] for key in ("LaunchTemplateId",) if template.get(key)} or {
            "LaunchTemplateName": template["LaunchTemplateName"]
        }
        key = (region, next(iter(named.values())), version)
        if key in self._templates:
            return self._templates[key]
        try:
            versions = self._client.call(
                "ec2",
                region,
                "DescribeLaunchTemplateVersions",
                "LaunchTemplateVersions",
                Versions=[version],
                **named,
            )
        except NotFound:  # the template, not the group
            return Launch(gone=True)
        if not versions:
            return Launch(gone=True)
        launch = translate_groups.launch_of_template(versions[0]["LaunchTemplateData"])
        if version.isdigit() and "LaunchTemplateId" in named:
            self._templates[key] = launch
        return launch

    def _configurations(self, region: str, names: Sequence[str]) -> dict[str, Launch]:
        return {
            answer["LaunchConfigurationName"]: translate_groups.launch_of_configuration(answer)
            for answer in self._client.items(
                "autoscaling",
                region,
                "DescribeLaunchConfigurations",
                "LaunchConfigurations",
                LaunchConfigurationNames=[*names],
            )
        }

    # members

    def _instances(self, ref: ResourceRef, groups: Iterable[Answer]) -> Mapping[str, ResourceRecord]:
        """Members as records, with what protects them. By filter, for one that has just gone would fail the others."""
        ids = [member["InstanceId"] for group in groups for member in translate_groups.members(group)]
        instances = [
            instance
            for batch in batches(ids, INSTANCES_PER_CALL)
            for reservation in self._client.items(
                "ec2",
                ref.region,
                "DescribeInstances",
                "Reservations",
                Filters=[{"Name": "instance-id", "Values": [*batch]}],
            )
            for instance in reservation.get("Instances", ())
        ]
        machines = self._machines(ref.region, {instance["InstanceType"] for instance in instances})
        nothing = MachineType(devices=None)
        return {
            instance["InstanceId"]: translate.record(
                instance,
                account=ref.account,
                region=ref.region,
                machine=machines.get(instance["InstanceType"], nothing),
            )
            for instance in instances
        }

    # machine types

    def _machines(self, region: str, skus: Iterable[str], faults: Faults | None = None) -> Mapping[str, MachineType]:
        """Types by name: EC2's word before the built-in table's. What neither knows is a fault, or raised."""
        failure: ProviderError | None = None
        for batch in batches(sorted(set(skus) - self._types.keys()), TYPES_PER_CALL):
            chosen = [{"Name": "instance-type", "Values": [*batch]}]  # asked by name, one unknown type fails the others
            try:
                for answer in self._client.items(
                    "ec2", region, "DescribeInstanceTypes", "InstanceTypes", Filters=chosen
                ):
                    self._types[answer["InstanceType"]] = translate.machine_type(answer)
            except ProviderError as error:
                failure = error
        machines = ChainMap(self._types, _builtin_machines())
        unknown = sorted(sku for sku in set(skus) if sku not in machines and translate.ACCELERATED_FAMILY.match(sku))
        if unknown:
            # not NotFound: that would read as if the group were gone
            failure = failure or Unsupported(
                f"ec2:DescribeInstanceTypes in {region} does not know {', '.join(unknown)}, nor does the built-in table"
            )
            if faults is None:
                raise failure
            faults.append(failure.as_fault())
        return machines


def _of(launches: Mapping[str, Launch], group: Answer) -> Launch:
    return launches.get(group["AutoScalingGroupARN"], Launch())


def _tells_types(group: Answer) -> bool:
    return bool(translate_groups.override_skus(group)) or translate_groups.overrides_want_accelerators(group)


def _member_skus(groups: Iterable[Answer], known: Mapping[str, ResourceRecord]) -> set[str]:
    """Types of members that are not among the region's machines with accelerators, whyever not."""
    return {
        member["InstanceType"]
        for group in groups
        for member in translate_groups.members(group)
        if member["InstanceId"] not in known and member.get("InstanceType")
    }


def _untold(group: Answer, region: str) -> Fault:
    return Fault(
        code=NotFound.code,
        sentence=(
            f"scaling group {group['AutoScalingGroupName']} in {region} has no members, and its launch template does "
            "not exist any more: whether it is one with accelerators cannot be told"
        ),
    )


@cache
def _builtin_machines() -> dict[str, MachineType]:
    return {sku: row.machine for sku, row in translate.builtin_types().items()}
