"""AKS: clusters with their node pools, whose machines are scale sets in a resource group of the cluster's own."""

from __future__ import annotations

import copy
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.providers.azure.cloud_compute import canonical
from tests.providers.azure.cloud_part import GROUP, SUBSCRIPTION, Json, Part, Told, answers, found
from tests.providers.azure.cloud_refusals import Refusal, invalid, parent_not_found

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

KIND = "Microsoft.ContainerService/managedClusters"
ONE = f"{GROUP}/providers/{KIND}/{{name}}"
POOL = ONE + "/agentPools/{pool}"
READ_ONLY = {"provisioningState", "currentOrchestratorVersion", "nodeImageVersion", "eTag"}


@dataclass(kw_only=True)
class Cluster:
    body: Json
    pools: dict[str, Json] = field(default_factory=dict)
    """By name: the properties of each, and nothing else."""

    @property
    def id(self) -> str:
        return str(self.body["id"]).lower()

    def pool(self, name: str) -> Json:
        """As it is answered by itself."""
        path = f"{self.body['id']}/agentPools/{name}"
        return {"id": path, "name": name, "type": f"{KIND}/agentPools", "properties": copy.deepcopy(self.pools[name])}

    def told(self) -> Json:
        body = copy.deepcopy(self.body)
        pools = [{"name": name, **pool} for name, pool in self.pools.items()]
        body["properties"]["agentPoolProfiles"] = copy.deepcopy(pools)
        return body


class Aks(Part):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud)
        self.clusters: dict[str, Cluster] = {}
        """By id in small letters; what is written here is the truth."""
        self.wanted: dict[str, int] = {}
        """By id of a pool in small letters: how many nodes its pods need, for the autoscaler."""

    def state(self) -> object:
        return [self.clusters, self.wanted]

    # Truth

    def cluster(
        self,
        name: str = "ml",
        *,
        subscription: str | None = None,
        group: str = "rg-ml",
        location: str = "westeurope",
        tags: Mapping[str, str] | None = None,
        power: str = "Running",
        lock: str | None = None,
    ) -> str:
        """A cluster without pools; answered is its id in our spelling."""
        subscription = self.cloud.known(subscription)
        self.cloud.add_group(group, subscription=subscription, location=location)
        path = f"/subscriptions/{subscription}/resourcegroups/{group}/providers/{KIND}/{name}"
        nodes = f"MC_{group}_{name}_{location}"
        self.cloud.add_group(nodes, subscription=subscription, location=location, managed_by=path)
        body: Json = {
            "id": path, "name": name, "type": "Microsoft.ContainerService/ManagedClusters", "location": location,
            "sku": {"name": "Base", "tier": "Standard"}, "identity": {"type": "SystemAssigned"},
            "properties": {
                "provisioningState": "Succeeded", "powerState": {"code": power}, "kubernetesVersion": "1.33",
                "currentKubernetesVersion": "1.33.2", "dnsPrefix": name, "fqdn": f"{name}-1.hcp.{location}.azmk8s.io",
                "nodeResourceGroup": nodes, "enableRBAC": True, "maxAgentPools": 100,
            },
        }  # fmt: skip
        if tags:
            body["tags"] = dict(tags)
        self.clusters[path.lower()] = Cluster(body=body)
        if lock is not None:
            self.cloud.locks.lock(path, lock)
        return canonical(path.replace("/resourcegroups/", "/resourceGroups/"))

    def pool(
        self,
        cluster: str,
        name: str = "gpu",
        *,
        size: str = "Standard_NC24ads_A100_v4",
        count: int = 2,
        autoscaling: tuple[int, int] | None = None,
        priority: str | None = None,
        mode: str = "User",
        power: str = "Running",
        zones: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        **properties: Any,
    ) -> str:
        """A node pool with its scale set; answered is its id in our spelling. `autoscaling` is (least, most)."""
        one = self.clusters[cluster.lower()]
        pool: Json = {
            "count": count, "vmSize": size, "osDiskSizeGB": 128, "osDiskType": "Managed", "kubeletDiskType": "OS",
            "maxPods": 110, "type": "VirtualMachineScaleSets", "enableAutoScaling": autoscaling is not None,
            "scaleDownMode": "Delete", "provisioningState": "Succeeded", "powerState": {"code": power},
            "orchestratorVersion": "1.33", "currentOrchestratorVersion": "1.33.2", "mode": mode, "osType": "Linux",
            "osSKU": "Ubuntu", "nodeImageVersion": "AKSUbuntu-2204gen2containerd-202601.01.0",
            "eTag": str(uuid.uuid4()),
        }  # fmt: skip
        if autoscaling is not None:
            pool.update(minCount=autoscaling[0], maxCount=autoscaling[1])
        if priority is not None:
            pool["scaleSetPriority"] = priority
        if priority == "Spot":
            label = {"kubernetes.azure.com/scalesetpriority": "spot"}
            pool.update(scaleSetEvictionPolicy="Delete", spotMaxPrice=-1.0, nodeLabels=label,
                        nodeTaints=["kubernetes.azure.com/scalesetpriority=spot:NoSchedule"])  # fmt: skip
        if zones:
            pool["availabilityZones"] = list(zones)
        if tags:
            pool["tags"] = dict(tags)
        one.pools[name] = {**pool, **properties}
        self.wanted[f"{one.id}/agentpools/{name}"] = count
        subscription = one.id.split("/")[2]
        suffix = str(zlib.crc32(one.id.encode()))[:8]
        kept = {
            "aks-managed-poolName": name, "aks-managed-orchestrator": "Kubernetes:1.33.2",
            "aks-managed-resourceNameSuffix": suffix,
            "aks-managed-creationSource": f"vmssclient-aks-{name}-{suffix}-vmss",
        }  # fmt: skip
        self.cloud.scale_sets.scale_set(
            f"aks-{name}-{suffix}-vmss", subscription=subscription, group=one.body["properties"]["nodeResourceGroup"],
            location=one.body["location"], size=size, capacity=self._running(one, name), priority=priority,
            eviction="Delete", zones=zones, tags={**(tags or {}), **kept},
        )  # fmt: skip
        return canonical(f"{one.body['id']}/agentPools/{name}".replace("/resourcegroups/", "/resourceGroups/"))

    def truth(self, pool: str) -> Json | None:
        """The properties of a pool; None when it is gone."""
        cluster, _, name = pool.lower().rpartition("/agentpools/")
        one = self.clusters.get(cluster)
        return None if one is None else one.pools.get(name)

    def scale_set(self, pool: str) -> str:
        """The id of the scale set that a pool's nodes are in."""
        cluster, _, name = pool.lower().rpartition("/agentpools/")
        nodes = self.clusters[cluster].body["properties"]["nodeResourceGroup"].lower()
        return next(
            path for path, one in self.cloud.scale_sets.scale_sets.items()
            if f"/resourcegroups/{nodes}/" in path and one.body.get("tags", {}).get("aks-managed-poolName") == name
        )  # fmt: skip

    def vanish(self, pool: str) -> None:
        cluster, _, name = pool.lower().rpartition("/agentpools/")
        self.cloud.scale_sets.vanish(self.scale_set(pool))
        del self.clusters[cluster].pools[name]

    def repair(self) -> None:
        """The autoscaler gives a pool what its pods need, within its bounds, and scale sets follow their pools."""
        for cluster in self.clusters.values():
            for name, pool in cluster.pools.items():
                if pool["enableAutoScaling"] and pool["powerState"]["code"] == "Running":
                    needed = self.wanted[f"{cluster.id}/agentpools/{name}"]
                    count = min(max(needed, pool["minCount"]), pool["maxCount"])
                    if count != pool["count"]:
                        pool["count"] = count
                        self._touch(pool)
                self._follow(cluster, name)

    def _touch(self, pool: Json) -> None:
        """It is another state from now on."""
        pool["eTag"] = str(uuid.uuid4())

    def _follow(self, cluster: Cluster, name: str) -> None:
        path = self.scale_set(f"{cluster.id}/agentpools/{name}")
        self.cloud.scale_sets.grow(self.cloud.scale_sets.scale_sets[path], self._running(cluster, name))

    def _running(self, cluster: Cluster, name: str) -> int:
        stopped = {cluster.body["properties"]["powerState"]["code"], cluster.pools[name]["powerState"]["code"]}
        return 0 if "Stopped" in stopped else int(cluster.pools[name]["count"])

    # Clusters and pools

    @answers("ManagedClusters_List", "GET", f"{SUBSCRIPTION}/providers/{KIND}", query=("$skiptoken",))
    def list_clusters(self, call: Call) -> Told:
        start = f"/subscriptions/{call.subscription}/"
        return self.listed(call, [one for path, one in self.clusters.items() if path.startswith(start)], Cluster.told)

    @answers("ManagedClusters_Get", "GET", ONE)
    def get_cluster(self, call: Call) -> Told:
        return self._cluster(call).told()

    @answers("AgentPools_List", "GET", f"{ONE}/agentPools", query=("$skiptoken",))
    def list_pools(self, call: Call) -> Told:
        cluster = self._cluster(call, within="agentPools")
        return self.listed(call, [cluster.pool(name) for name in cluster.pools])

    @answers("AgentPools_Get", "GET", POOL)
    def get_pool(self, call: Call) -> Told:
        cluster, name = self._pool(call)
        return cluster.pool(name)

    @answers("AgentPools_CreateOrUpdate", "PUT", POOL)
    def put_pool(self, call: Call) -> Told:
        cluster, name = self._pool(call)
        pool, asked = cluster.pools[name], dict((call.body or {}).get("properties") or {})
        self._free(cluster, pool)
        if call.headers.get("if-match", pool["eTag"]) != pool["eTag"]:
            raise Refusal(412, "PreconditionFailed", "The condition 'If-Match' is not met: the node pool was changed.")
        self._check(cluster, name, pool, asked)
        before = copy.deepcopy(pool)
        self._touch(pool)
        if not asked.get("enableAutoScaling"):
            for bound in ("minCount", "maxCount"):
                pool.pop(bound, None)
        pool.update({key: value for key, value in asked.items() if key not in READ_ONLY})
        after = pool["powerState"]["code"]
        verb = "scale" if after == before["powerState"]["code"] else "start" if after == "Running" else "stop"
        pool["provisioningState"] = {"scale": "Scaling", "start": "Starting", "stop": "Stopping"}[verb]
        if not pool["enableAutoScaling"] and pool["count"]:  # pods for which there is no node at all still wait
            self.wanted[f"{cluster.id}/agentpools/{name}"] = pool["count"]

        def done() -> None:
            pool["provisioningState"] = "Succeeded"
            self._touch(pool)
            self._follow(cluster, name)

        def undone() -> None:
            pool.clear()
            pool.update(before, provisioningState="Failed")
            self._touch(pool)

        return self.accepted(
            call, verb, f"{cluster.id}/agentpools/{name}", location=cluster.body["location"], done=done, undone=undone,
            body=cluster.pool(name), status=200,
        )  # fmt: skip

    @answers("AgentPools_Delete", "DELETE", POOL, query=("ignore-pod-disruption-budget",))
    def delete_pool(self, call: Call) -> Told:
        cluster, name = self._pool(call)
        pool = cluster.pools[name]
        self._free(cluster, pool)
        pool["provisioningState"] = "Deleting"
        path = f"{cluster.id}/agentpools/{name}"

        def undone() -> None:
            pool["provisioningState"] = "Failed"

        return self.accepted(
            call, "delete", path, location=cluster.body["location"], done=lambda: self.vanish(path), undone=undone
        )  # fmt: skip

    def _check(self, cluster: Cluster, name: str, pool: Json, asked: Json) -> None:
        """What AKS would not do."""
        if not asked.get("count", 0) >= 0 or ("vmSize" in asked and asked["vmSize"] != pool["vmSize"]):
            raise invalid("Changing property 'properties.vmSize' is not allowed.", code="PropertyChangeNotAllowed")
        others = [one for other, one in cluster.pools.items() if other != name and one["mode"] == "System"]
        if asked.get("mode", pool["mode"]) == "System" and asked.get("count") == 0:
            raise invalid(
                "The value of parameter agentPoolProfile.count is invalid. Error details: a system node pool must have "
                f"at least one node; '{name}' would have none.",
                target="agentPoolProfile.count",
            )
        if pool["mode"] == "System" and asked.get("mode") == "User" and not others:
            raise invalid("There has to be at least one system agent pool.", code="OperationNotAllowed")
        if not asked.get("enableAutoScaling"):
            if {"minCount", "maxCount"} & {key for key, value in asked.items() if value is not None}:
                raise invalid(
                    "The value of parameter agentPoolProfile.minCount is invalid. Error details: minCount and maxCount "
                    "must not be set without enableAutoScaling.",
                    target="agentPoolProfile.minCount",
                )
            return
        least, most = asked.get("minCount"), asked.get("maxCount")
        if least is None or most is None or not least <= asked.get("count", pool["count"]) <= most:
            raise invalid(
                "The value of parameter agentPoolProfile.count is invalid. Error details: with autoscaling it must be "
                "between minCount and maxCount.",
                target="agentPoolProfile.count",
            )

    def _free(self, cluster: Cluster, pool: Json) -> None:
        if cluster.body["properties"]["powerState"]["code"] != "Running":
            words = (
                "Operation is not allowed: managed cluster is in stopped state, no operations except for start are "
                "allowed."
            )
            raise Refusal(400, "OperationNotAllowed", words)
        if pool["provisioningState"] not in {"Succeeded", "Failed", "Canceled"}:
            words = (
                f"Operation is not allowed: Another operation ({pool['provisioningState']}) is in progress, please "
                "wait for it to finish before starting a new operation. See https://aka.ms/aks-pending-operation for "
                "more details"
            )
            raise Refusal(409, "OperationNotAllowed", words)

    def _cluster(self, call: Call, *, within: str = "") -> Cluster:
        name = call.names["name"]
        path = f"/subscriptions/{call.subscription}/resourcegroups/{call.names['group']}/providers/{KIND}/{name}"
        if within and path.lower() not in self.clusters:
            raise parent_not_found(f"managedClusters/{within}", path)
        cluster: Cluster = found(self.clusters, call, KIND, path, name)
        return cluster

    def _pool(self, call: Call) -> tuple[Cluster, str]:
        cluster, name = self._cluster(call, within="agentPools"), call.names["pool"].lower()
        if name not in cluster.pools:
            words = f"Could not find the agentpool '{name}' in the managed cluster '{cluster.body['name']}'."
            raise Refusal(404, "NotFound", words)
        return cluster, name
