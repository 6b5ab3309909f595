"""Turns an intended act into AWS calls on one instance, one scaling group or one node group, and undoes it.

Whether to act is not decided, and not re-checked, here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from providers.aws import translate_groups
from providers.aws.accounts import Accounts
from providers.aws.client import Client
from providers.errors import NotFound, ProviderError, Refused, Unreachable, Unsupported
from providers.records import Kind, ResourceRecord, ResourceRef, State, Verb

Answer = Mapping[str, Any]

LATEST_START_SECONDS = 7.0
"""No call of an act begins later than this after its first, so that the last one ends within
`Capabilities.act_timeout_seconds` (53 of its 60 s at worst, by the client's own time-outs)."""

FIGHTING = ("AlarmNotification", "ScheduledActions")
"""Processes that would raise a group's sizes again: alarms drive target tracking, step and simple policies; schedules,
those of scaling plans too, set sizes at their hour. All others keep the sizes that are set, or only replace members.
Launch is left alone: it would spoil a person's own restart, and nothing launches at zero without a new size."""


class Calls:
    """The calls of one act, in one region, none begun too late."""

    def __init__(self, client: Client, region: str, clock: Callable[[], float]) -> None:
        self._client, self._region, self._clock = client, region, clock
        self._began = clock()

    def __call__(self, service: str, operation: str, *path: str, **params: Any) -> Any:
        if self._clock() - self._began > LATEST_START_SECONDS:
            raise Unreachable(
                f"{service}:{operation} in {self._region} was not begun: the calls before it took too long"
            )
        try:
            return self._client.call(service, self._region, operation, *path, prompt=True, **params)
        except Unsupported as error:
            if service == "autoscaling" and "name not found" in error.sentence:
                raise NotFound(error.sentence) from error  # its only word for it is ValidationError
            raise


class _Acts(Protocol):
    """How the verbs of one kind of resource are done. `remembered` holds what `remember` answered."""

    verbs: frozenset[Verb]

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]: ...

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb, request_id: str) -> None: ...

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer, request_id: str) -> None: ...


class AwsActuator:
    """Acts on one thing at a time: one bad id would fail a whole batch.

    Only EKS takes a request id for these calls. The others need none, as each asks for a state and not for a change.
    """

    def __init__(self, accounts: Accounts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._accounts = accounts
        self._clock = clock

    def remember(self, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """What it is like now: the state of an instance, the sizes, processes or launches of a group."""
        acts = _for(record.ref, verb)
        return {"verb": verb.value, **acts.remember(self._calls(record.ref), record, verb)}

    def act(self, ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
        _for(ref, verb).act(self._calls(ref), ref, verb, request_id)

    def restore(self, ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        verb = Verb(remembered.get("verb", Verb.STOP))
        _for(ref, verb).restore(self._calls(ref), ref, remembered, request_id)

    def _calls(self, ref: ResourceRef) -> Calls:
        return Calls(self._accounts.of(ref.account), ref.region, self._clock)


def _for(ref: ResourceRef, verb: Verb) -> _Acts:
    acts: _Acts
    if ref.kind is Kind.INSTANCE:
        what, acts = "an EC2 instance", Instances()
    elif ref.kind is not Kind.NODE_GROUP:
        raise Unsupported(f"AWS resources of kind {ref.kind} cannot be acted on")
    elif translate_groups.node_group_names(ref.external_id):
        what, acts = "an EKS node group", NodeGroups()
    else:
        what, acts = "a scaling group", ScalingGroups()
    if verb not in acts.verbs:
        possible = ", ".join(sorted(verb.value for verb in acts.verbs))
        raise Unsupported(f"{what} cannot be told to {verb.value}; possible is {possible}")
    return acts


class Instances:
    """EC2 instances. Stopping twice is stopping once, and so is ending."""

    verbs = frozenset({Verb.STOP, Verb.HIBERNATE, Verb.TERMINATE})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        """The state to return to, and the start it had then, for people to compare."""
        return {
            "state": record.state.value,
            "launched_at": record.launched_at.isoformat() if record.launched_at else None,
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb, request_id: str) -> None:
        if verb is Verb.TERMINATE:
            self._cancel_spot_request(calls, ref)
            calls("ec2", "TerminateInstances", InstanceIds=[ref.external_id])
        elif verb is Verb.HIBERNATE:
            calls("ec2", "StopInstances", InstanceIds=[ref.external_id], Hibernate=True)
        else:
            calls("ec2", "StopInstances", InstanceIds=[ref.external_id])

    def _cancel_spot_request(self, calls: Calls, ref: ResourceRef) -> None:
        """A persistent request would bring another machine in its place."""
        requests = calls(
            "ec2",
            "DescribeSpotInstanceRequests",
            "SpotInstanceRequests",
            Filters=[{"Name": "instance-id", "Values": [ref.external_id]}],
        )
        ids = [
            request["SpotInstanceRequestId"]
            for request in requests
            if request.get("Type") == "persistent" and request.get("State") in {"open", "active", "disabled"}
        ]
        if ids:
            calls("ec2", "CancelSpotInstanceRequests", SpotInstanceRequestIds=ids)

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer, request_id: str) -> None:
        if remembered.get("verb") == Verb.TERMINATE:
            raise Unsupported(f"{ref.external_id} was terminated; nothing brings it back")
        if remembered.get("state") in (State.STOPPING, State.STOPPED):
            return  # it was down before, so our stop changed nothing
        calls("ec2", "StartInstances", InstanceIds=[ref.external_id])


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large a group wants to be."""

    min: int
    max: int
    desired: int

    @property
    def at_zero(self) -> Sizes:
        """What our act makes of it. The most stays, so that nobody who restarts the group himself is refused."""
        return Sizes(min=0, max=self.max, desired=0)

    def words(self) -> str:
        return f"{self.desired} (at least {self.min}, at most {self.max})"

    def as_json(self) -> dict[str, int]:
        return {"min": self.min, "max": self.max, "desired": self.desired}

    @staticmethod
    def from_json(sizes: Mapping[str, int]) -> Sizes:
        return Sizes(min=sizes["min"], max=sizes["max"], desired=sizes["desired"])


class ScalingGroups:
    """EC2 Auto Scaling groups: to zero and back, or on to spot and back."""

    verbs = frozenset({Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        group = _scaling_group(calls, record.ref)
        if verb is Verb.MOVE_TO_SPOT:
            return self._remember_launches(group)
        sizes, suspends = _sizes_of(group), _not_suspended(group)
        policies = _predictive_policies(calls, group)
        fought = " and ".join([f"suspends {', '.join(suspends)}"] * bool(suspends) + _switched_off(policies))
        return {
            "plan": f"Takes {record.name} from {sizes.words()} to zero{f', and {fought}' if fought else ''}; "
            "undo puts exactly this back.",
            "group": group["AutoScalingGroupARN"],
            "sizes": sizes.as_json(),
            "suspended_before": translate_groups.suspended_processes(group),
            "suspends": suspends,
            "predictive_policies": policies,
        }

    def _remember_launches(self, group: Answer) -> dict[str, Any]:
        former = translate_groups.launches(group)
        if not former:
            raise Unsupported(_NO_TEMPLATE.format(group["AutoScalingGroupName"]))
        return {
            "plan": f"{group['AutoScalingGroupName']} launches from the same launch template as spot instances, by the "
            "strategy price-capacity-optimized. Members that are not on spot may be replaced one after another; undo "
            "puts the former launches back, and the same may happen the other way.",
            "group": group["AutoScalingGroupARN"],
            "launches": former,
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb, request_id: str) -> None:
        group = _scaling_group(calls, ref)
        if verb is Verb.MOVE_TO_SPOT:
            self._to_spot(calls, group)
        else:
            self._to_zero(calls, group)

    def _to_zero(self, calls: Calls, group: Answer) -> None:
        """First silences what would fight it; gives that back at once where AWS refuses to go on."""
        suspends, policies = _not_suspended(group), _predictive_policies(calls, group)
        try:
            if suspends:
                _processes(calls, "SuspendProcesses", group, suspends)
            for policy in policies:
                _put_policy(calls, group, {**policy, "configuration": _forecast_only(policy["configuration"])})
            if _sizes_of(group) != _sizes_of(group).at_zero:
                calls(
                    "autoscaling",
                    "UpdateAutoScalingGroup",
                    AutoScalingGroupName=group["AutoScalingGroupName"],
                    MinSize=0,
                    DesiredCapacity=0,
                )
        except ProviderError as error:
            if not error.retry:  # else it is asked for again
                self._give_back(calls, group, suspends, policies)
            raise

    def _give_back(
        self, calls: Calls, group: Answer, suspended: Sequence[str], policies: Sequence[dict[str, Any]]
    ) -> None:
        """As far as AWS lets us: what made us turn back is what counts, and undo does the rest."""
        try:
            for policy in policies:
                _put_policy(calls, group, policy)
            if suspended:
                _processes(calls, "ResumeProcesses", group, suspended)
        except ProviderError:
            return

    def _to_spot(self, calls: Calls, group: Answer) -> None:
        former = translate_groups.launches(group)
        if not former:
            raise Unsupported(_NO_TEMPLATE.format(group["AutoScalingGroupName"]))
        if not translate_groups.all_spot(group):
            self._launch_by(calls, group, translate_groups.launches_on_spot(former))

    def _launch_by(self, calls: Calls, group: Answer, launches: Mapping[str, Any]) -> None:
        calls(
            "autoscaling",
            "UpdateAutoScalingGroup",
            AutoScalingGroupName=group["AutoScalingGroupName"],
            **launches,
        )

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer, request_id: str) -> None:
        group = _scaling_group(calls, ref)
        _same(ref, remembered, group["AutoScalingGroupARN"])
        if remembered["verb"] == Verb.MOVE_TO_SPOT:
            self._restore_launches(calls, group, remembered["launches"])
        else:
            self._restore_sizes(calls, group, remembered)

    def _restore_sizes(self, calls: Calls, group: Answer, remembered: Answer) -> None:
        """Sizes first, while nothing fights them; then all that we had silenced."""
        before, now = Sizes.from_json(remembered["sizes"]), _sizes_of(group)
        ours = [name for name in remembered["suspends"] if name in translate_groups.suspended_processes(group)]
        policies = _still_switched_off(calls, group, remembered["predictive_policies"])
        changed = now not in (before, before.at_zero)
        if now != before and not changed:
            calls(
                "autoscaling",
                "UpdateAutoScalingGroup",
                AutoScalingGroupName=group["AutoScalingGroupName"],
                MinSize=before.min,
                DesiredCapacity=before.desired,
            )
        for policy in policies:
            _put_policy(calls, group, policy)
        if ours:
            _processes(calls, "ResumeProcesses", group, ours)
        if changed and (ours or policies):
            raise Refused(
                f"the sizes of {group['AutoScalingGroupName']} were set to {now.words()} by someone else since it was "
                f"scaled to zero, and are left so; before, they were {before.words()}. What scales it runs again"
            )

    def _restore_launches(self, calls: Calls, group: Answer, former: Mapping[str, Any]) -> None:
        now = translate_groups.launches(group)
        if translate_groups.same_launches(now, former):
            return
        if not translate_groups.same_launches(now, translate_groups.launches_on_spot(former)):
            raise Refused(
                f"how {group['AutoScalingGroupName']} launches was changed by someone else since it was moved to spot, "
                "and is left so"
            )
        self._launch_by(calls, group, former)


_NO_TEMPLATE = "{} launches from a launch configuration, which cannot be mixed with spot; a launch template can"


class NodeGroups:
    """EKS node groups: to zero and back."""

    verbs = frozenset({Verb.SCALE_TO_ZERO})

    def remember(self, calls: Calls, record: ResourceRecord, verb: Verb) -> dict[str, Any]:
        node_group = _node_group(calls, record.ref)
        sizes = _node_group_sizes(node_group)
        return {
            "plan": f"Takes node group {record.name} from {sizes.words()} to zero; undo puts exactly this back.",
            "group": node_group["nodegroupArn"],
            "sizes": sizes.as_json(),
        }

    def act(self, calls: Calls, ref: ResourceRef, verb: Verb, request_id: str) -> None:
        sizes = _node_group_sizes(_node_group(calls, ref))
        if sizes != sizes.at_zero:
            self._set(calls, ref, sizes.at_zero, request_id)

    def restore(self, calls: Calls, ref: ResourceRef, remembered: Answer, request_id: str) -> None:
        node_group = _node_group(calls, ref)
        _same(ref, remembered, node_group["nodegroupArn"])
        before, now = Sizes.from_json(remembered["sizes"]), _node_group_sizes(node_group)
        if now == before:
            return
        if now != before.at_zero:
            raise Refused(
                f"the sizes of node group {ref.external_id} were set to {now.words()} by someone else since it was "
                f"scaled to zero, and are left so; before, they were {before.words()}"
            )
        self._set(calls, ref, before, request_id)

    def _set(self, calls: Calls, ref: ResourceRef, sizes: Sizes, request_id: str) -> None:
        calls(
            "eks",
            "UpdateNodegroupConfig",
            **_eks_names(ref),
            scalingConfig={"minSize": sizes.min, "desiredSize": sizes.desired},
            clientRequestToken=request_id,
        )


# What is asked for on the way.


def _scaling_group(calls: Calls, ref: ResourceRef) -> Answer:
    name = translate_groups.scaling_group_name(ref.external_id)
    for group in calls("autoscaling", "DescribeAutoScalingGroups", "AutoScalingGroups", AutoScalingGroupNames=[name]):
        translate_groups.check_account(ref, group["AutoScalingGroupARN"])
        return cast(Answer, group)
    raise NotFound(f"EC2 Auto Scaling in {ref.region} knows no group {name}")


def _sizes_of(group: Answer) -> Sizes:
    return Sizes(min=group["MinSize"], max=group["MaxSize"], desired=group["DesiredCapacity"])


def _not_suspended(group: Answer) -> list[str]:
    return [name for name in FIGHTING if name not in translate_groups.suspended_processes(group)]


def _processes(calls: Calls, operation: str, group: Answer, names: Sequence[str]) -> None:
    calls("autoscaling", operation, AutoScalingGroupName=group["AutoScalingGroupName"], ScalingProcesses=list(names))


def _same(ref: ResourceRef, remembered: Answer, arn: str) -> None:
    if remembered["group"] != arn:
        raise NotFound(f"{ref.external_id} was deleted and made anew since; what was remembered is not its own")


# Predictive policies scale by themselves, through no process that could be suspended.


def _predictive_policies(calls: Calls, group: Answer) -> list[dict[str, Any]]:
    """Those that scale, as they are; the others only forecast."""
    return [
        {"name": policy["PolicyName"], "configuration": policy["PredictiveScalingConfiguration"]}
        for policy in _policies(calls, group)
        if policy["PredictiveScalingConfiguration"].get("Mode") == "ForecastAndScale"
    ]


def _still_switched_off(calls: Calls, group: Answer, remembered: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of those that we switched off, those that nobody has changed since."""
    if not remembered:
        return []
    now = {policy["PolicyName"]: policy["PredictiveScalingConfiguration"] for policy in _policies(calls, group)}
    return [policy for policy in remembered if now.get(policy["name"]) == _forecast_only(policy["configuration"])]


def _policies(calls: Calls, group: Answer) -> Sequence[Answer]:
    answer = calls(
        "autoscaling",
        "DescribePolicies",
        "ScalingPolicies",
        AutoScalingGroupName=group["AutoScalingGroupName"],
        PolicyTypes=["PredictiveScaling"],
    )
    return cast(Sequence[Answer], answer)


def _forecast_only(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {**configuration, "Mode": "ForecastOnly"}


def _put_policy(calls: Calls, group: Answer, policy: Mapping[str, Any]) -> None:
    calls(
        "autoscaling",
        "PutScalingPolicy",
        AutoScalingGroupName=group["AutoScalingGroupName"],
        PolicyName=policy["name"],
        PolicyType="PredictiveScaling",
        PredictiveScalingConfiguration=policy["configuration"],
    )


def _switched_off(policies: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ", ".join(policy["name"] for policy in policies)
    return [f"lets the predictive policies {names} forecast only"] if policies else []


# EKS.


def _node_group(calls: Calls, ref: ResourceRef) -> Answer:
    node_group = cast(Answer, calls("eks", "DescribeNodegroup", "nodegroup", **_eks_names(ref)))
    translate_groups.check_account(ref, node_group["nodegroupArn"])
    return node_group


def _eks_names(ref: ResourceRef) -> dict[str, str]:
    cluster, _, name = ref.external_id.partition("/")
    return {"clusterName": cluster, "nodegroupName": name}


def _node_group_sizes(node_group: Answer) -> Sizes:
    scaling = node_group["scalingConfig"]
    return Sizes(min=scaling["minSize"], max=scaling["maxSize"], desired=scaling["desiredSize"])
