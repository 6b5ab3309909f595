"""Vertex AI Workbench: notebooks, each of which is a machine of Compute Engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import answers
from tests.providers.gcp.cloud_location_part import LocationPart, missing, precondition

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]

STATES = {
    "DEPROVISIONING": "DELETED", "PENDING": "PROVISIONING", "PENDING_STOP": "STOPPING", "PROVISIONING": "PROVISIONING",
    "REPAIRING": "ACTIVE", "RUNNING": "ACTIVE", "STAGING": "STARTING", "STOPPED": "STOPPED", "STOPPING": "STOPPING",
    "SUSPENDED": "SUSPENDED", "SUSPENDING": "SUSPENDING", "TERMINATED": "STOPPED",
}  # fmt: skip
"""What a notebook is while its machine is …"""


class Workbench(LocationPart):
    service = "notebooks"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.notebooks: dict[str, Json] = {}
        """By `projects/…/locations/…/instances/…`."""

    def state(self) -> object:
        return self.notebooks

    def notebook(
        self,
        name: str = "lab",
        *,
        project: str = "research",
        zone: str = "us-central1-a",
        machine_type: str = "g2-standard-4",
        gpus: tuple[str, int] | None = None,
        creator: str = "ada@example.com",
        labels: dict[str, str] | None = None,
        status: str = "RUNNING",
        **fields: Any,
    ) -> str:
        """A notebook that is there, with its machine in this status; answered is its path."""
        path = f"projects/{project}/locations/{zone}/instances/{name}"
        number = self.cloud.projects[project].number
        address = f"https://notebooks.googleapis.com/v2/{path}"
        metadata = {
            "notebooks-api": "PROD", "notebooks-api-version": "v2", "proxy-mode": "service_account",
            "resource-url": address,
        }  # fmt: skip
        told = {
            **(labels or {}), "consumer-project-id": project, "consumer-project-number": number,
            "notebooks-product": "workbench-instances", "resource-name": name,
        }  # fmt: skip
        machine = self.cloud.compute.machine(
            name, project=project, zone=zone, machine_type=machine_type, gpus=gpus, status=status, labels=told,
            metadata=metadata,
        )  # fmt: skip
        instance = self.cloud.compute.instances[machine]
        self.notebooks[path] = {
            "name": path,
            "id": f"00000000-0000-4000-8000-{len(self.notebooks):012d}",
            "gceSetup": {
                "machineType": instance["machineType"],
                "instanceId": instance["id"],
                "metadata": metadata,
                "bootDisk": {"diskSizeGb": "150", "diskEncryption": "GMEK"},
                "tags": ["deeplearning-vm", "notebook-instance"],
            },
            "creator": creator,
            "healthState": "HEALTHY",
            "createTime": self.stamp(),
            "updateTime": self.stamp(),
            "labels": told,
            **fields,
        }
        if gpus is not None:
            kind = gpus[0].upper().replace("-", "_")
            self.notebooks[path]["gceSetup"]["acceleratorConfigs"] = [{"type": kind, "coreCount": str(gpus[1])}]
        return path

    @staticmethod
    def machine_of(path: str) -> str:
        """The path of its machine."""
        return path.replace("/locations/", "/zones/")

    @answers("notebooks.projects.locations.instances.list")
    def list_notebooks(self, call: Call) -> Json:
        return self.listed(call, {path: self._told(path) for path in self.notebooks}, "instances")

    @answers("notebooks.projects.locations.instances.get")
    def get_notebook(self, call: Call) -> Json:
        return self._told(self._notebook(call))

    @answers("notebooks.projects.locations.instances.stop")
    def stop_notebook(self, call: Call) -> Json:
        return self._change(call, "stop", since="ACTIVE", through="STOPPING", to="TERMINATED")

    @answers("notebooks.projects.locations.instances.start")
    def start_notebook(self, call: Call) -> Json:
        return self._change(call, "start", since="STOPPED", through="STAGING", to="RUNNING")

    @answers("notebooks.projects.locations.operations.get")
    def get_operation(self, call: Call) -> Json:
        return self.operation_told(call)

    def _change(self, call: Call, verb: str, *, since: str, through: str, to: str) -> Json:
        path = self._notebook(call)
        compute = self.cloud.compute
        machine = compute.instances.get(self.machine_of(path), {})
        before = self._told(path)["state"]
        if before != since:
            raise precondition(f"Cannot {verb} an instance that is in state {before}.")
        status = machine["status"]
        compute.enter(machine, through)
        return self.operation(
            call, verb, path, done=lambda: compute.enter(machine, to), undone=lambda: compute.enter(machine, status),
            kind="Instance", answer=lambda: self._told(path),
        )  # fmt: skip

    def _told(self, path: str) -> Json:
        machine = self.cloud.compute.instances.get(self.machine_of(path))
        state = "ORPHANED" if machine is None else STATES[machine["status"]]
        return {"state": state, **self.notebooks[path]}

    def _notebook(self, call: Call) -> str:
        self.check_location(call)
        path = f"projects/{call.project}/locations/{call.zone}/instances/{call.names['instancesId']}"
        if path not in self.notebooks:
            raise missing(path)
        return path
