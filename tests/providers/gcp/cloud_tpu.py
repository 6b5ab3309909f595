"""Cloud TPU: TPU VMs, which Compute Engine does not list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import answers
from tests.providers.gcp.cloud_location_part import LocationPart, missing, precondition

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]


class Tpus(LocationPart):
    service = "tpu"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.nodes: dict[str, Json] = {}
        """By `projects/…/locations/…/nodes/…`."""

    def state(self) -> object:
        return self.nodes

    def node(
        self,
        name: str = "tpu",
        *,
        project: str = "research",
        zone: str = "us-central1-a",
        accelerator_type: str = "v5litepod-4",
        hosts: int = 1,
        state: str = "READY",
        spot: bool = False,
        labels: dict[str, str] | None = None,
        **fields: Any,
    ) -> str:
        """A TPU VM that is there, or a slice of several `hosts`; answered is its path."""
        path = f"projects/{project}/locations/{zone}/nodes/{name}"
        self.nodes[path] = {
            "name": path,
            "id": self.cloud.operations.number(),
            "acceleratorType": accelerator_type,
            "state": state,
            "health": "HEALTHY",
            "runtimeVersion": "v2-alpha-tpuv5-lite",
            "networkConfig": {"network": f"projects/{project}/global/networks/default", "enableExternalIps": False},
            "networkEndpoints": [{"ipAddress": f"10.128.1.{host + 2}", "port": 8470} for host in range(hosts)],
            "createTime": self.stamp(),
            "schedulingConfig": {"spot": True} if spot else {},
            "serviceAccount": {"email": "tests@example.com"},
            "apiVersion": "V2",
            **fields,
        }
        if labels:
            self.nodes[path]["labels"] = dict(labels)
        return path

    @answers("tpu.projects.locations.nodes.list")
    def list_nodes(self, call: Call) -> Json:
        return self.listed(call, self.nodes, "nodes", most=1000)

    @answers("tpu.projects.locations.nodes.get")
    def get_node(self, call: Call) -> Json:
        return self.nodes[self._node(call)]

    @answers("tpu.projects.locations.nodes.stop")
    def stop_node(self, call: Call) -> Json:
        path = self._node(call)
        if len(self.nodes[path]["networkEndpoints"]) > 1:
            raise precondition("Stop is only available with single TPU nodes.")
        return self._change(call, path, "stop", since="READY", through="STOPPING", to="STOPPED")

    @answers("tpu.projects.locations.nodes.start")
    def start_node(self, call: Call) -> Json:
        return self._change(call, self._node(call), "start", since="STOPPED", through="STARTING", to="READY")

    @answers("tpu.projects.locations.nodes.delete")
    def delete_node(self, call: Call) -> Json:
        path = self._node(call)
        node = self.nodes[path]
        before, node["state"] = node["state"], "DELETING"
        return self.operation(
            call, "delete", path, done=lambda: self.nodes.pop(path), undone=lambda: node.update(state=before),
            kind="Node", answer=dict,
        )  # fmt: skip

    @answers("tpu.projects.locations.operations.get")
    def get_operation(self, call: Call) -> Json:
        return self.operation_told(call)

    def _change(self, call: Call, path: str, verb: str, *, since: str, through: str, to: str) -> Json:
        node = self.nodes[path]
        before = node["state"]
        if before != since:
            raise precondition(f"The node cannot {verb} while it is in state {before}.")
        node["state"] = through
        return self.operation(
            call, verb, path, done=lambda: node.update(state=to), undone=lambda: node.update(state=before),
            kind="Node", answer=lambda: dict(node),
        )  # fmt: skip

    def _node(self, call: Call) -> str:
        self.check_location(call)
        path = f"projects/{call.project}/locations/{call.zone}/nodes/{call.names['nodesId']}"
        if path not in self.nodes:
            raise missing(path)
        return path
