"""The cluster that the tests stand on is a real one."""

from __future__ import annotations

from tests.kubernetes.cluster import Cluster, Manifest, soon

POD: Manifest = {"containers": [{"name": "main", "image": "trainer"}]}


def deployment(name: str, *, replicas: int) -> Manifest:
    labels = {"app": name}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
    template = {"metadata": {"labels": labels}, "spec": POD}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {**spec, "template": template}}


def test_a_deployment_gets_pods_that_run_and_scales_to_zero(cluster: Cluster, namespace: str) -> None:
    node = cluster.node()
    cluster.create(deployment("server", replicas=2), namespace)
    soon(lambda: len(cluster.settle(namespace, node=node)) == 2, "both pods are there")

    def ready() -> bool:
        status = cluster.get("Deployment", "server", namespace)["status"]
        return bool(status.get("readyReplicas") == 2)

    soon(ready, "the deployment knows that they are ready")
    cluster.patch("Deployment", "server", {"spec": {"replicas": 0}}, namespace, of="scale")
    soon(lambda: cluster.settle(namespace, node=node) == [], "the pods are gone")
