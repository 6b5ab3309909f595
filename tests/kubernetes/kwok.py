"""kwok plays the kubelets of a cluster larger than this machine: pods bound to its nodes run, and go when told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.kubernetes.cluster import Cluster, Manifest, gpu_node
from tests.waiting import soon

PLAYED = {"kwok.x-k8s.io/node": "fake"}
"""The annotation of the nodes that are its own; those of other tests are left alone."""

STAGES = """
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-is-ready}  # never played, as ours are; but kwok minds no pods where it minds no nodes
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
      - {key: .status.conditions, operator: DoesNotExist}
  next:
    statusTemplate: "conditions: [{type: Ready, status: 'True'}]"
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      conditions:
      {{ range $type := list "PodScheduled" "Initialized" "ContainersReady" "Ready" }}
      - {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {delete: true}
"""


@contextmanager
def kwok(cluster: Cluster) -> Iterator[None]:
    """As long as it runs, pods on its nodes do."""
    stages = cluster.programs.folder / "kwok.yaml"
    stages.write_text(STAGES)
    options = {
        "kubeconfig": cluster.kubeconfig,
        "config": stages,
        "manage-nodes-with-annotation-selector": ",".join(f"{key}={value}" for key, value in PLAYED.items()),
        "node-lease-duration-seconds": 0,
    }
    cluster.programs.start("kwok", options)
    try:
        yield
    finally:
        cluster.programs.stop("kwok")


def fleet(cluster: Cluster, namespace: str, *, nodes: int, pods: int, within: float = 600) -> None:
    """Nodes of eight GPUs and pods spread evenly over them, all running: on each node a PyTorchJob whose pods hold a
    GPU each, and where there are more pods than GPUs, bare ones beside it."""
    each = pods // nodes
    assert each * nodes == pods, f"{pods} pods do not spread evenly over {nodes} nodes"

    def filled(number: int) -> None:
        node = gpu_node(f"gpu-{number:04}", labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"})
        node["metadata"]["annotations"] = PLAYED
        cluster.register(node)
        job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": f"train-{number:04}"}}
        owner = _owner(cluster.create(job, namespace))
        for pod in range(each):
            metadata = {"ownerReferences": [owner]} if pod < 8 else {}
            name = f"{node['metadata']['name']}-{pod}"
            cluster.create(_pod(name, node["metadata"]["name"], metadata, gpus=int(pod < 8)), namespace)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(filled, range(nodes)))
    soon(lambda: _counted(cluster, namespace, "Running") == pods, f"{pods} pods run", within=within)


def _counted(cluster: Cluster, namespace: str, phase: str) -> int:
    """Without reading them all: the server says how many remain after the first."""
    path = cluster.path("Pod", namespace=namespace)
    waiting = cluster.http.get(path, params={"limit": 1, "fieldSelector": f"status.phase!={phase}"}).json()
    if waiting["items"]:
        return 0
    first = cluster.http.get(path, params={"limit": 1}).json()
    return len(first["items"]) + int(first["metadata"].get("remainingItemCount", 0))


def _owner(job: Manifest) -> Manifest:
    of = {"apiVersion": job["apiVersion"], "kind": job["kind"], "controller": True}
    return of | {key: job["metadata"][key] for key in ("name", "uid")}


def _pod(name: str, node: str, metadata: Manifest, *, gpus: int) -> Manifest:
    container: Manifest = {"name": "main", "image": "trainer"}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    spec = {"nodeName": node, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
