"""Azure Machine Learning: workspaces with compute instances and compute clusters."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.providers.azure.cloud_accounts import TENANT
from tests.providers.azure.cloud_compute import canonical
from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers, found
from tests.providers.azure.cloud_refusals import Refusal, parent_not_found

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

KIND = "Microsoft.MachineLearningServices/workspaces"
ONE = f"{GROUP}/providers/{KIND}/{{name}}"
COMPUTE = ONE + "/computes/{compute}"


class MachineLearning(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.workspaces: dict[str, Json] = {}
        """By id in small letters."""
        self.computes: dict[str, Json] = {}
        """By id in small letters; what is written here is the truth."""

    def state(self) -> object:
        return [self.workspaces, self.computes]

    # Truth

    def workspace(
        self, name: str = "vision", *, subscription: str | None = None, group: str = "rg-ml",
        location: str = "westeurope", kind: str = "Default",
    ) -> str:  # fmt: skip
        """A workspace; answered is its id in our spelling."""
        subscription = self.cloud.known(subscription)
        self.cloud.add_group(group, subscription=subscription, location=location)
        path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{KIND}/{name}"
        self.workspaces[path.lower()] = {
            "id": path, "name": name, "type": KIND, "location": location, "tags": {}, "etag": None, "kind": kind,
            "sku": {"name": "Basic", "tier": "Basic"}, "identity": {"type": "SystemAssigned", "tenantId": TENANT},
            "properties": {
                "friendlyName": name, "description": "", "provisioningState": "Succeeded", "tenantId": TENANT,
                "creationTime": self.cloud.stamp(), "workspaceId": "013279f0-4aa8-40bf-bc31-f82cb6e680c9",
            },
        }  # fmt: skip
        return canonical(path)

    def instance(
        self,
        workspace: str,
        name: str = "notebook",
        *,
        size: str = "STANDARD_NC24ADS_A100_V4",
        state: str = "Running",
        user: str = "ada@example.org",
        tags: Mapping[str, str] | None = None,
        idle_minutes: int | None = None,
        lock: str | None = None,
        **properties: Any,
    ) -> str:
        """A compute instance; answered is its id in our spelling. Azure writes its size in capital letters."""
        now = self.cloud.stamp()
        told: Json = {
            "vmSize": size, "subnet": None, "applicationSharingPolicy": "Personal", "state": state, "errors": [],
            "computeInstanceAuthorizationType": "personal", "enableNodePublicIp": True, "osImageMetadata": None,
            "sshSettings": {"sshPublicAccess": "Disabled", "adminUserName": "azureuser", "sshPort": 50000},
            "applications": [{"displayName": "Jupyter", "endpointUri": f"https://{name}.westeurope.instances.azureml.ms"}],
            "createdBy": {"userName": user, "userOrgId": TENANT, "userId": "5d3c1f8e-0000-4000-8000-000000000001"},
            "lastOperation": {"operationName": "Start", "operationTime": now, "operationStatus": "Succeeded",
                              "operationTrigger": "User"},
            "schedules": {"computeStartStop": []},
        }  # fmt: skip
        if idle_minutes is not None:
            told["idleTimeBeforeShutdown"] = f"PT{idle_minutes}M"
        path = self._add(workspace, name, "ComputeInstance", {**told, **properties}, tags)
        if lock is not None:
            self.cloud.locks.lock(path, lock)
        return path

    def cluster(self, workspace: str, name: str = "train", *, size: str = "STANDARD_NC24ADS_A100_V4", nodes: int = 0,
                least: int = 0, most: int = 4, priority: str = "Dedicated") -> str:  # fmt: skip
        """A compute cluster, that makes its nodes itself."""
        told: Json = {
            "vmSize": size, "vmPriority": priority, "subnet": None, "osType": "Linux", "allocationState": "Steady",
            "scaleSettings": {"minNodeCount": least, "maxNodeCount": most, "nodeIdleTimeBeforeScaleDown": "PT2M"},
            "currentNodeCount": nodes, "targetNodeCount": nodes, "errors": None,
            "nodeStateCounts": {"preparingNodeCount": 0, "runningNodeCount": nodes, "idleNodeCount": 0,
                                "unusableNodeCount": 0, "leavingNodeCount": 0, "preemptedNodeCount": 0},
        }  # fmt: skip
        return self._add(workspace, name, "AmlCompute", told, None)

    def _add(self, workspace: str, name: str, kind: str, told: Json, tags: Mapping[str, str] | None) -> str:
        home = self.workspaces[workspace.lower()]
        path, now = f"{home['id']}/computes/{name}", self.cloud.stamp()
        self.computes[path.lower()] = {
            "id": path, "name": name, "type": f"{KIND}/computes", "location": home["location"],
            "tags": dict(tags) if tags else None,
            "properties": {
                "createdOn": now, "modifiedOn": now, "disableLocalAuth": True, "description": None, "resourceId": None,
                "computeType": kind, "computeLocation": home["location"], "provisioningState": "Succeeded",
                "provisioningErrors": None, "isAttachedCompute": False, "properties": told,
            },
        }  # fmt: skip
        return canonical(path)

    def power(self, compute: str) -> str | None:
        """The truth about an instance: `Running`, `Stopped`, …; None when it is gone."""
        one = self.computes.get(compute.lower())
        return None if one is None else str(one["properties"]["properties"]["state"])

    def vanish(self, compute: str) -> None:
        del self.computes[compute.lower()]

    # Workspaces and computes

    @answers("Workspaces_ListBySubscription", "GET", f"{SUBSCRIPTION}/providers/{KIND}",
             query=("$skip", "$skiptoken", "kind"))  # fmt: skip
    def list_workspaces(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/"
        return self.listed(call, [one for path, one in self.workspaces.items() if path.startswith(start)])

    @answers("Compute_List", "GET", f"{ONE}/computes", query=("$skip", "$skiptoken"))
    def list_computes(self, call: Call) -> Told:
        name = call.names["name"]
        path = f"/subscriptions/{call.subscription}/resourceGroups/{call.names['group']}/providers/{KIND}/{name}"
        if path.lower() not in self.workspaces:
            raise parent_not_found("workspaces/computes", path)
        start = f"{path.lower()}/computes/"
        return self.listed(call, [one for path, one in self.computes.items() if path.startswith(start)])

    @answers("Compute_Get", "GET", COMPUTE)
    def get(self, call: Call) -> Told:
        return copy.deepcopy(self._compute(call))

    @answers("Compute_Start", "POST", f"{COMPUTE}/start")
    def start(self, call: Call) -> Told:
        return self._change(call, "start", through="Starting", to="Running")

    @answers("Compute_Stop", "POST", f"{COMPUTE}/stop")
    def stop(self, call: Call) -> Told:
        return self._change(call, "stop", through="Stopping", to="Stopped")

    @answers("Compute_Delete", "DELETE", COMPUTE, query=("underlyingResourceAction",))
    def delete(self, call: Call) -> Told:
        compute = self._compute(call)
        path = compute["id"].lower()
        self.free(path, "delete")
        compute["properties"]["provisioningState"] = "Deleting"

        def undone() -> None:
            compute["properties"]["provisioningState"] = "Failed"

        return self.accepted(
            call, "delete", path, location=compute["location"], at="computeOperationsStatus", undone=undone,
            done=lambda: self.computes.pop(path, None),
        )  # fmt: skip

    def _change(self, call: Call, verb: str, *, through: str, to: str) -> Told:
        compute = self._compute(call)
        told = compute["properties"]["properties"]
        if compute["properties"]["computeType"] != "ComputeInstance":
            words = f"Compute of type {compute['properties']['computeType']} cannot {verb}."
            raise Refusal(400, "BadRequest", words)
        if told["state"] not in {"Running", "Stopped"}:
            words = f"Cannot {verb} compute instance {compute['name']}: it is in state {told['state']}."
            raise Refusal(409, "Conflict", words)
        before, told["state"] = told["state"], through

        def ended(state: str, status: str) -> None:
            told["state"] = state
            told["lastOperation"] = {
                "operationName": verb.capitalize(), "operationTime": self.cloud.stamp(), "operationStatus": status,
                "operationTrigger": "User",
            }  # fmt: skip

        return self.accepted(
            call, verb, compute["id"], location=compute["location"], at="computeOperationsStatus",
            done=lambda: ended(to, "Succeeded"), undone=lambda: ended(before, f"{verb.capitalize()}Failed"),
        )  # fmt: skip

    def _compute(self, call: Call) -> Json:
        home, name = call.names["name"], call.names["compute"]
        place = f"/subscriptions/{call.subscription}/resourceGroups/{call.names['group']}/providers/{KIND}/{home}"
        if place.lower() not in self.workspaces:
            raise parent_not_found("workspaces/computes", place)
        compute: Json = found(
            self.computes, call, f"{KIND}/{home}/computes", f"{place}/computes/{name}", name
        )  # fmt: skip
        return compute
