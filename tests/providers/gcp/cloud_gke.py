"""Google Kubernetes Engine: clusters and their node pools, which are instance groups of Compute Engine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tests.providers.gcp.cloud_compute_part import BASE, answers
from tests.providers.gcp.cloud_location_part import CODES, LocationPart, missing, precondition
from tests.providers.gcp.cloud_operations import Operation

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]


class Gke(LocationPart):
    service = "container"

    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.clusters: dict[str, Json] = {}
        """By `projects/…/locations/…/clusters/…`."""
        self.pools: dict[str, Json] = {}
        """By `projects/…/locations/…/clusters/…/nodePools/…`."""

    def state(self) -> object:
        return [self.clusters, self.pools]

    # Truth

    def cluster(
        self, name: str = "main", *, project: str = "research", location: str = "us-central1", **fields: Any
    ) -> str:
        """A cluster that is there, regional or zonal, without any nodes; answered is its path."""
        path = f"projects/{project}/locations/{location}/clusters/{name}"
        self.clusters[path] = {
            "name": name,
            "id": f"{len(self.clusters) + 1:064x}",
            "location": location,
            "zone": location,
            "locations": self._zones(location),
            "status": "RUNNING",
            "currentMasterVersion": "1.35.2-gke.1000",
            "createTime": self.stamp(),
            "resourceLabels": {},
            "selfLink": f"https://container.googleapis.com/v1/{path}",
            **fields,
        }
        return path

    def pool(
        self,
        cluster: str,
        name: str = "gpus",
        *,
        machine_type: str = "a2-highgpu-1g",
        size: int = 1,
        zones: Sequence[str] = (),
        gpus: tuple[str, int] | None = None,
        autoscaled: tuple[int, int] | None = None,
        spot: bool = False,
        **fields: Any,
    ) -> str:
        """A node pool that is there, with its machines; answered is its path.

        It has `size` nodes in each of its zones, which are the cluster's unless some are named; so many, too, does
        its autoscaler keep at least and at most.
        """
        _, project, _, location, _, cluster_name = cluster.split("/")
        path = f"{cluster}/nodePools/{name}"
        zones = list(zones) or self.clusters[cluster]["locations"]
        labels = {
            "goog-gke-node": "", "goog-k8s-cluster-name": cluster_name, "goog-k8s-cluster-location": location,
            "goog-k8s-node-pool-name": name,
        }  # fmt: skip
        metadata = {
            "cluster-name": cluster_name, "cluster-location": location,
            "kube-labels": f"cloud.google.com/gke-nodepool={name}",
        }  # fmt: skip
        groups = [
            self.cloud.groups.group(
                f"gke-{cluster_name}-{name}-{index:08x}-grp", project=project, zone=zone, size=size,
                machine_type=machine_type, gpus=gpus, labels=labels, metadata=metadata,
                provisioning="SPOT" if spot else "STANDARD",
            )
            for index, zone in enumerate(zones, start=1)
        ]  # fmt: skip
        config: Json = {"machineType": machine_type, "diskSizeGb": 100, "imageType": "COS_CONTAINERD"}
        accelerator = self.cloud.catalogue.machine_types[machine_type]
        of_pool = gpus or (accelerator.accelerator, accelerator.accelerators)
        if of_pool[0] is not None:
            config["accelerators"] = [{"acceleratorType": of_pool[0], "acceleratorCount": str(of_pool[1])}]
        if spot:
            config["spot"] = True
        self.pools[path] = {
            "name": name,
            "config": config,
            "initialNodeCount": size,
            "locations": zones,
            "autoscaling": {},
            "management": {"autoUpgrade": True, "autoRepair": True},
            "instanceGroupUrls": [BASE + group for group in groups],
            "status": "RUNNING",
            "version": "1.35.2-gke.1000",
            "selfLink": f"https://container.googleapis.com/v1/{path}",
            **fields,
        }
        if autoscaled is not None:
            least, most = autoscaled
            self.pools[path]["autoscaling"] = {"enabled": True, "minNodeCount": least, "maxNodeCount": most}
        return path

    def groups(self, pool: str) -> list[str]:
        """The paths of its instance groups, one for each zone."""
        return [str(url).removeprefix(BASE) for url in self.pools[pool]["instanceGroupUrls"]]

    def repair(self) -> None:
        """What an autoscaler does by itself: it keeps the pool from being smaller than it may."""
        for path, pool in self.pools.items():
            least = pool["autoscaling"].get("minNodeCount", 0) if pool["autoscaling"].get("enabled") else 0
            for group in self.groups(path):
                if self.cloud.groups.size(group) < least:
                    self.cloud.groups.resize(group, least)

    # Clusters

    @answers("container.projects.locations.clusters.list")
    def list_clusters(self, call: Call) -> Json:
        answer = self.listed(call, {path: self._told(path) for path in self.clusters}, "clusters", most=None)
        missing_zones = [path.split("/")[3] for path in answer.pop("unreachable", ())]
        return {**answer, "missingZones": missing_zones} if missing_zones else answer

    @answers("container.projects.locations.clusters.get")
    def get_cluster(self, call: Call) -> Json:
        return self._told(self._cluster(call))

    @answers("container.projects.locations.clusters.nodePools.list")
    def list_pools(self, call: Call) -> Json:
        return {"nodePools": self._told(self._cluster(call)).get("nodePools", [])}

    @answers("container.projects.locations.clusters.nodePools.get")
    def get_pool(self, call: Call) -> Json:
        return self.pools[self._pool(call)]

    @answers("container.projects.locations.clusters.nodePools.setSize")
    def set_size(self, call: Call) -> Json:
        path, size = self._pool(call), call.body.get("nodeCount", 0)

        def done() -> None:
            for group in self.groups(path):
                self.cloud.groups.resize(group, size)

        return self._operated(call, "SET_NODE_POOL_SIZE", path, done)

    @answers("container.projects.locations.clusters.nodePools.setAutoscaling")
    def set_autoscaling(self, call: Call) -> Json:
        path, asked = self._pool(call), call.body.get("autoscaling", {})
        wanted = asked if asked.get("enabled") else {}
        return self._operated(
            call, "SET_NODE_POOL_MANAGEMENT", path, lambda: self.pools[path].update(autoscaling=dict(wanted))
        )

    @answers("container.projects.locations.operations.get")
    def get_operation(self, call: Call) -> Json:
        return self.operation_told(call)

    def _operated(self, call: Call, kind: str, path: str, done: Callable[[], object]) -> Json:
        cluster = self._cluster(call)
        under_way = self.cloud.operations.under_way(cluster)
        if under_way is not None:
            raise precondition(
                f"Operation {under_way.told['name']} is currently updating cluster {self.clusters[cluster]['name']}. "
                "Please wait and try again once it is done."
            )
        name = f"operation-{self.cloud.operations.number()}"
        address = f"projects/{call.project}/locations/{call.zone}/operations/{name}"
        pool = self.pools[path]
        pool["status"] = "RECONCILING"
        told: Json = {
            "name": name, "zone": call.zone, "location": call.zone, "operationType": kind, "status": "RUNNING",
            "startTime": self.stamp(), "selfLink": f"https://container.googleapis.com/v1/{address}",
            "targetLink": f"https://container.googleapis.com/v1/{path}",
        }  # fmt: skip

        def close(operation: Operation) -> None:
            pool["status"] = "RUNNING"
            told.update(status="DONE", endTime=self.stamp())
            if (failure := operation.failure) is not None:
                told["error"] = {"code": CODES[failure.status], "message": failure.message}
                told["statusMessage"] = failure.message

        self.cloud.operations.begin(
            Operation(
                path=address, service=self.service, verb=kind, target=cluster, told=told, close=close, done=done,
                undone=lambda: None,
            )
        )  # fmt: skip
        return copy.deepcopy(told)

    def _told(self, path: str) -> Json:
        """With its pools, and how many nodes there are."""
        pools = {name: pool for name, pool in self.pools.items() if name.startswith(f"{path}/nodePools/")}
        nodes = sum(len(self.cloud.groups.members[group]) for name in pools for group in self.groups(name))
        told: Json = {**self.clusters[path], "currentNodeCount": nodes}
        return {**told, "nodePools": [*pools.values()]} if pools else told

    def _cluster(self, call: Call) -> str:
        self.check_location(call)
        path = f"projects/{call.project}/locations/{call.zone}/clusters/{call.names['clustersId']}"
        if path not in self.clusters:
            raise missing(path)
        return path

    def _pool(self, call: Call) -> str:
        path = f"{self._cluster(call)}/nodePools/{call.names['nodePoolsId']}"
        if path not in self.pools:
            raise missing(path)
        return path

    def _zones(self, location: str) -> list[str]:
        return [zone for zone in self.cloud.zones if location in {zone, zone.rpartition("-")[0]}][:3]
