"""Managed instance groups and their autoscalers: machines that come and go with a number."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import BASE, ComputePart, answers, fingerprint, last
from tests.providers.gcp.cloud_lists import merged
from tests.providers.gcp.cloud_operations import Operation
from tests.providers.gcp.cloud_refusals import condition_not_met, invalid, not_found

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

ACTIONS = (
    "abandoning", "creating", "creatingWithoutRetries", "deleting", "none", "recreating", "refreshing", "restarting",
    "resuming", "starting", "stopping", "suspending", "verifying",
)  # fmt: skip
AUTOSCALED = (
    "Resizing of autoscaled {}managed instance groups is not allowed. If you want to manually adjust target size "
    "remove the autoscaler or set autoscaling policy mode to OFF."
)
DOING = {"PROVISIONING": "CREATING", "STAGING": "CREATING", "STOPPING": "DELETING"}


class Groups(ComputePart):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.groups: dict[str, Json] = {}
        """By `projects/…/zones|regions/…/instanceGroupManagers/…`."""
        self.autoscalers: dict[str, Json] = {}
        """By `projects/…/zones|regions/…/autoscalers/…`."""
        self.members: dict[str, list[str]] = {}
        """Paths of the machines of a group, by its path."""
        self.recipes: dict[str, Json] = {}
        """What a group's next machine is made from, by its path."""

    def state(self) -> object:
        return [self.groups, self.autoscalers, self.members]

    # Truth

    def group(
        self,
        name: str = "trainers",
        *,
        project: str = "research",
        zone: str | None = "us-central1-a",
        region: str | None = None,
        size: int = 2,
        autoscaled: tuple[int, int] | None = None,
        mode: str = "ON",
        **machine: Any,
    ) -> str:
        """A group that is there with all its machines; answered is its path.

        Zonal, unless a `region` is named. `autoscaled` are the least and the most machines of its autoscaler, in this
        `mode`. What the machines are is told as for `Compute.machine`.
        """
        scope = f"regions/{region}" if region else f"zones/{zone}"
        place = f"projects/{project}/{scope}"
        path = f"{place}/instanceGroupManagers/{name}"
        template = f"{BASE}projects/{project}/global/instanceTemplates/{name}"
        zones = [one for one in self.cloud.zones if one.rpartition("-")[0] == region] if region else [str(zone)]
        self.groups[path] = {
            "kind": "compute#instanceGroupManager",
            "id": self.cloud.operations.number(),
            "creationTimestamp": self.stamp(),
            "name": name,
            scope.split("/")[0].removesuffix("s"): BASE + place,
            "instanceTemplate": template,
            "versions": [{"instanceTemplate": template, "targetSize": {"calculated": size}}],
            "instanceGroup": f"{BASE}{place}/instanceGroups/{name}",
            "baseInstanceName": name,
            "fingerprint": fingerprint(path),
            "targetSize": size,
            "selfLink": BASE + path,
            "listManagedInstancesResults": "PAGELESS",
            "updatePolicy": {
                "type": "OPPORTUNISTIC", "minimalAction": "REPLACE", "replacementMethod": "SUBSTITUTE",
                "maxSurge": {"fixed": 1, "calculated": 1}, "maxUnavailable": {"fixed": 1, "calculated": 1},
            },
        }  # fmt: skip
        if region:
            self.groups[path]["distributionPolicy"] = {
                "zones": [{"zone": f"{BASE}projects/{project}/zones/{one}"} for one in zones], "targetShape": "EVEN"
            }  # fmt: skip
        self.recipes[path] = {"project": project, "zones": zones, "machine": machine, "made": 0}
        self.members[path] = []
        for _ in range(size):
            self._add(path, status="RUNNING")
        if autoscaled is not None:
            self._autoscale(place, name, autoscaled, mode)
        return path

    def size(self, path: str) -> int:
        """How many machines it is to have."""
        return int(self.groups[path]["targetSize"])

    def repair(self) -> None:
        """What groups do by themselves: a member that somebody has stopped is started, one that is gone is replaced."""
        for path in self.groups:
            machines = self.cloud.compute.instances
            self.members[path] = [member for member in self.members[path] if member in machines]
            for member in self.members[path]:
                if machines[member]["status"] in {"TERMINATED", "STOPPED", "SUSPENDED"}:
                    self.cloud.compute.enter(machines[member], "RUNNING")
            while len(self.members[path]) < self.size(path):
                self._add(path, status="RUNNING")

    # Groups

    @answers("compute.instanceGroupManagers.get", "compute.regionInstanceGroupManagers.get")
    def get_group(self, call: Call) -> Json:
        return self._told(self._group(call))

    @answers("compute.instanceGroupManagers.list", "compute.regionInstanceGroupManagers.list")
    def list_groups(self, call: Call) -> Json:
        return self.listed(call, self._all_told(), "instanceGroupManager")

    @answers("compute.instanceGroupManagers.aggregatedList")
    def all_groups(self, call: Call) -> Json:
        return self.aggregated(call, self._all_told(), "instanceGroupManager", scopes=self.scopes(regional=True))

    @answers(
        "compute.instanceGroupManagers.listManagedInstances", "compute.regionInstanceGroupManagers.listManagedInstances"
    )
    def list_members(self, call: Call) -> Json:
        path = self._group(call)
        told, token = self.page(call, [(member, self._member(path, member)) for member in self.members[path]])
        for member in [*self.members[path]]:
            if (under_way := self.cloud.operations.under_way(member)) is not None:
                self.cloud.operations.look(under_way.path)
        answer: Json = {"managedInstances": [member for _, member in told]} if told else {}
        return {**answer, "nextPageToken": token} if token else answer

    @answers("compute.instanceGroupManagers.resize", "compute.regionInstanceGroupManagers.resize")
    def resize_group(self, call: Call) -> Json:
        path = self._group(call)
        return self._resized(call, path, "resize", call.query["size"])

    @answers("compute.instanceGroupManagers.patch", "compute.regionInstanceGroupManagers.patch")
    def patch_group(self, call: Call) -> Json:
        path = self._group(call)
        group, body = self.groups[path], dict(call.body)
        if body.pop("fingerprint", group["fingerprint"]) != group["fingerprint"]:
            raise condition_not_met("Invalid fingerprint.")
        size = body.pop("targetSize", None)
        if size is not None:
            return self._resized(call, path, "compute.instanceGroupManagers.patch", size, body)
        return self.operation(
            call, "compute.instanceGroupManagers.patch", path, group["id"], done=lambda: self._patch(group, body)
        )

    def _resized(self, call: Call, path: str, verb: str, size: int, body: Json | None = None) -> Json:
        group = self.groups[path]
        if size < 0:
            raise invalid(f"Invalid value for field 'size': '{size}'. Must be greater than or equal to 0.")
        autoscaler = self._autoscaler_of(path)
        if autoscaler is not None and autoscaler["autoscalingPolicy"]["mode"] == "ON":
            raise condition_not_met(AUTOSCALED.format("regional " if "/regions/" in path else ""))

        def done() -> None:
            self._patch(group, body or {})
            self.resize(path, size)

        return self.operation(call, verb, path, group["id"], done=done)

    def resize(self, path: str, size: int) -> None:
        """The group is told its size; its machines begin to come or go."""
        self.groups[path]["targetSize"] = size
        self.groups[path]["versions"][0]["targetSize"] = {"calculated": size}
        machines = self.cloud.compute.instances
        staying = [member for member in self.members[path] if machines[member]["status"] != "STOPPING"]
        for member in staying[size:]:
            self._remove(path, member)
        for _ in range(size - len(staying)):
            self._add(path, status="PROVISIONING")

    def _add(self, path: str, *, status: str) -> None:
        recipe = self.recipes[path]
        zone = recipe["zones"][recipe["made"] % len(recipe["zones"])]
        recipe["made"] += 1
        number = self.cloud.projects[recipe["project"]].number
        place = "/".join(path.split("/")[2:])
        machine = copy.deepcopy(recipe["machine"])
        machine["metadata"] = {
            **machine.pop("metadata", {}),
            "created-by": f"projects/{number}/{place}",
            "instance-template": f"projects/{number}/global/instanceTemplates/{last(path)}",
        }
        name = f"{self.groups[path]['baseInstanceName']}-{recipe['made']:04x}"
        member = self.cloud.compute.machine(name, project=recipe["project"], zone=zone, status=status, **machine)
        self.members[path].append(member)
        if status != "RUNNING":
            instance = self.cloud.compute.instances[member]
            self._by_itself("insert", member, lambda: self.cloud.compute.enter(instance, "RUNNING"))

    def _remove(self, path: str, member: str) -> None:
        self.cloud.compute.instances[member]["status"] = "STOPPING"

        def done() -> None:
            self.cloud.compute.instances.pop(member, None)
            self.members[path].remove(member)

        self._by_itself("delete", member, done)

    def _by_itself(self, verb: str, member: str, done: Any) -> None:
        """What a group does with a machine: an operation of Google's own."""
        name = f"operation-{self.cloud.operations.number()}"
        self.cloud.operations.begin(
            Operation(
                path=f"{'/'.join(member.split('/')[:4])}/operations/{name}", service="compute", verb=verb,
                target=member, told={}, close=lambda _: None, done=done, undone=lambda: None,
            )
        )  # fmt: skip

    def _patch(self, group: Json, body: Mapping[str, Any]) -> None:
        group.update(merged(group, body))
        group["fingerprint"] = fingerprint(group)

    def _member(self, path: str, member: str) -> Json:
        instance = self.cloud.compute.instances[member]
        return {
            "instance": BASE + member,
            "name": instance["name"],
            "id": instance["id"],
            "instanceStatus": instance["status"],
            "currentAction": DOING.get(instance["status"], "NONE"),
            "version": {"instanceTemplate": self.groups[path]["instanceTemplate"]},
        }

    def _told(self, path: str) -> Json:
        """With what its members are at just now."""
        actions = [self._member(path, member)["currentAction"].lower() for member in self.members[path]]
        autoscaler = self._autoscaler_of(path)
        status: Json = {
            "isStable": all(action == "none" for action in actions) and len(actions) == self.size(path),
            "versionTarget": {"isReached": True},
            "stateful": {"hasStatefulConfig": False},
        }
        if autoscaler is not None:
            status["autoscaler"] = autoscaler["selfLink"]
        counted = {action: actions.count(action) for action in ACTIONS}
        return {**self.groups[path], "currentActions": counted, "status": status}

    def _all_told(self) -> dict[str, Json]:
        return {path: self._told(path) for path in self.groups}

    def _group(self, call: Call) -> str:
        self.check_place(call)
        path = f"{self._place(call)}/instanceGroupManagers/{call.names['instanceGroupManager']}"
        if path not in self.groups:
            raise not_found(path)
        return path

    def _place(self, call: Call) -> str:
        return f"projects/{call.project}/{'regions' if 'region' in call.names else 'zones'}/{call.zone}"

    # Autoscalers

    @answers("compute.autoscalers.get", "compute.regionAutoscalers.get")
    def get_autoscaler(self, call: Call) -> Json:
        return self.autoscalers[self._autoscaler(call, call.names["autoscaler"])]

    @answers("compute.autoscalers.list", "compute.regionAutoscalers.list")
    def list_autoscalers(self, call: Call) -> Json:
        return self.listed(call, self.autoscalers, "autoscaler")

    @answers("compute.autoscalers.aggregatedList")
    def all_autoscalers(self, call: Call) -> Json:
        return self.aggregated(call, self.autoscalers, "autoscaler", scopes=self.scopes(regional=True))

    @answers("compute.autoscalers.patch", "compute.regionAutoscalers.patch")
    def patch_autoscaler(self, call: Call) -> Json:
        path = self._autoscaler(call, call.query.get("autoscaler") or call.body.get("name", ""))
        autoscaler = self.autoscalers[path]

        def done() -> None:
            autoscaler.update(merged(autoscaler, call.body))
            self._scale(autoscaler)

        return self.operation(call, "compute.autoscalers.patch", path, autoscaler["id"], done=done)

    def _autoscale(self, place: str, name: str, least_and_most: Sequence[int], mode: str) -> None:
        path = f"{place}/autoscalers/{name}"
        self.autoscalers[path] = {
            "kind": "compute#autoscaler",
            "id": self.cloud.operations.number(),
            "creationTimestamp": self.stamp(),
            "name": name,
            "target": f"{BASE}{place}/instanceGroupManagers/{name}",
            "autoscalingPolicy": {
                "minNumReplicas": least_and_most[0], "maxNumReplicas": least_and_most[1], "coolDownPeriodSec": 60,
                "cpuUtilization": {"utilizationTarget": 0.6, "predictiveMethod": "NONE"}, "mode": mode,
            },
            place.split("/")[2].removesuffix("s"): BASE + place,
            "selfLink": BASE + path,
            "status": "ACTIVE",
            "recommendedSize": least_and_most[0],
        }  # fmt: skip

    def _scale(self, autoscaler: Json) -> None:
        """One that is on keeps its group between its bounds."""
        policy, path = autoscaler["autoscalingPolicy"], autoscaler["target"].removeprefix(BASE)
        wanted = min(max(self.size(path), policy["minNumReplicas"]), policy["maxNumReplicas"])
        if policy["mode"] == "ON" and wanted != self.size(path):
            self.resize(path, wanted)

    def _autoscaler_of(self, group: str) -> Json | None:
        return next((one for one in self.autoscalers.values() if one["target"] == BASE + group), None)

    def _autoscaler(self, call: Call, name: str) -> str:
        self.check_place(call)
        path = f"{self._place(call)}/autoscalers/{name}"
        if path not in self.autoscalers:
            raise not_found(path)
        return path
