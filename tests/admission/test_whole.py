"""All of it: a real API server that Curfew governs as a service, asks `curfew admission`, and is asked by kubectl."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.admission.builders import pod as written
from tests.admission.process import Service, running
from tests.admission.webhooks import asks, webhooks
from tests.e2e.process import TOKEN, Curfew, curfew
from tests.kubernetes.cluster import Cluster, Manifest
from tests.waiting import soon

DOCUMENTS = """
kind: source
name: shared-cluster
provider: kubernetes
kubeconfig: {kubeconfig}
---
kind: project
name: vision
owners: [lead@example.org]
match:
  - namespaces: [{namespace}]
---
kind: policy
name: one-gpu
type: quota
mode: {mode}
quota: {{max_gpus: 1, per: project}}
scope: {{projects: [vision]}}
---
kind: policy
name: on-spot
type: spot
mode: enforce
scope: {{projects: [vision]}}
---
kind: policy
name: owned
type: ownership
mode: enforce
"""


def pod(name: str) -> Manifest:
    manifest = written()
    manifest["metadata"]["name"] = name
    return manifest


def test_what_a_cycle_saw_is_what_the_next_pod_is_told(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.namespace(labels={"reviewed": "whole"})
    node = cluster.node(labels={"karpenter.sh/capacity-type": "on-demand"})
    folder = tmp_path / "admission"
    folder.mkdir()
    settings = {"CURFEW_CEILING": "enforce", "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1"}
    with curfew(tmp_path, **settings) as service:
        apply(service, cluster, namespace, "enforce")
        with running(Service(url=service.url), folder, token=TOKEN) as process, webhooks(cluster, process, "whole"):
            asks(cluster, process, namespace, pod("probe"))
            cluster.create(pod("first"), namespace)  # nothing is known yet
            cluster.settle(namespace, node=node)
            assert service.cycle()["error"] is None
            soon(process.ready, "the snapshot is taken over")

            complaint = cluster.kubectl("create", "-f", "-", "-n", namespace, stdin=text("second"), fails=True)
            assert "policy one-gpu: this pod asks for 1 GPU, and 1 of the 1 that may run at once" in complaint

            hold(service, lambda: let_in(cluster, namespace))
            soon(lambda: not let_in(cluster, namespace), "the hold is lifted")

            apply(service, cluster, namespace, "observe")
            soon(lambda: let_in(cluster, namespace), "a policy that was changed speaks from the next cycle on")
            assert service.cycle()["error"] is None
            soon(lambda: placed(cluster, namespace), "the other one goes on")

        printed = guardrails(service)
        assert [one["metadata"]["name"] for one in yaml.safe_load_all(printed)] == ["curfew-on-spot"] * 2 + [
            "curfew-owned"
        ] * 2
        assert "# Policy one-gpu is left out: what it says depends on the hour, or on what runs just then." in printed
    cluster.clear()


def apply(service: Curfew, cluster: Cluster, namespace: str, mode: str) -> None:
    service.apply(DOCUMENTS.format(kubeconfig=cluster.kubeconfig, namespace=namespace, mode=mode))


def text(name: str) -> str:
    return yaml.safe_dump(pod(name))


def asked(cluster: Cluster, namespace: str) -> Manifest:
    path = cluster.path("Pod", namespace=namespace)
    answer: Manifest = cluster.http.post(path, json=pod("asked"), params={"dryRun": "All"}).json()
    return answer


def let_in(cluster: Cluster, namespace: str) -> bool:
    return bool(asked(cluster, namespace)["kind"] == "Pod")


def placed(cluster: Cluster, namespace: str) -> bool:
    return bool(asked(cluster, namespace)["spec"].get("nodeSelector") == {"karpenter.sh/capacity-type": "spot"})


def hold(service: Curfew, let_in: Callable[[], bool]) -> None:
    assert service.http.put("/api/v1/hold", json={"for": "1h"}).status_code == 200
    soon(let_in, "on hold nobody is refused, without another cycle")
    assert service.http.delete("/api/v1/hold").status_code == 200


def guardrails(service: Curfew) -> str:
    program = str(Path(sys.executable).parent / "curfew")
    environment = {"PATH": os.environ["PATH"], "CURFEW_URL": service.url, "CURFEW_TOKEN": TOKEN, "NO_PROXY": "*"}
    done = subprocess.run(
        [program, "guardrails", "kubernetes"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
