"""A shared cluster, from outside: a real API server and controller manager, a real Prometheus, AWS beneath, a real
mail server, and Curfew as a process of its own, with the rights that its chart gives. What happened is asked of kubectl
and boto3.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Postgres
from tests.e2e.process import Curfew, curfew
from tests.helm.accounts import ENFORCE, OBSERVE, account
from tests.kubernetes.cluster import Cluster, Manifest
from tests.kubernetes.conftest import cluster
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import ENVIRONMENT, set_launch_time, start_instance
from tests.providers.aws.front import Front
from tests.providers.prometheus.server import fill, running
from tests.waiting import soon

__all__ = ["cluster"]

MINUTES = 70
GPUS = ("a", "b", "c", "d", "e", "f")
DOCUMENTS = """
kind: source
name: research-aws
provider: aws
regions: [us-east-1]
endpoint: {aws}
---
kind: source
name: shared-cluster
provider: kubernetes
kubeconfig: {kubeconfig}
---
kind: source
name: metrics
provider: prometheus
url: {prometheus}
telemetry_interval: 0s
---
kind: project
name: vision
owners: [vision-lead@example.org]
match:
  - namespaces: [{vision}]
---
kind: project
name: platform
owners: [platform@example.org]
match:
  - tags: {{team: platform}}
---
kind: policy
name: idle-workloads
type: idle
mode: enforce
scope: {{projects: [vision], kinds: [workload]}}
idle: {{for: 10m, warm_up: 1m}}
grace: 2s
action: stop
disruption_budget: {{max: 100%}}
"""


def job(name: str, gpus: int) -> Manifest:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": pods(name, gpus)}}


def deployment(name: str, gpus: int) -> Manifest:
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pods(name, gpus)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pods(name: str, gpus: int) -> Manifest:
    container = {"name": "main", "image": "trainer:1", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    never = {"restartPolicy": "Never"} if name == "train" else {}
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **never}}


@dataclass
class Company:
    """Everything a test reaches for."""

    curfew: Curfew
    cluster: Cluster
    sink: Sink
    vision: str
    node: str
    instance: str

    def kubectl(self, *arguments: str) -> Any:
        return json.loads(self.cluster.kubectl("-n", self.vision, *arguments, "-o", "json"))

    def workload(self, name: str) -> dict[str, Any]:
        return self.curfew.resources()[f"{self.vision}/{name}"]


def comparable(thing: Manifest) -> Manifest:
    """Without what changes by being written."""
    metadata = {key: value for key, value in thing["metadata"].items() if key not in BOOKKEEPING}
    return {**{key: value for key, value in thing.items() if key != "status"}, "metadata": metadata}


BOOKKEEPING = ("resourceVersion", "generation", "managedFields")


@pytest.fixture
def kubernetes() -> dict[str, bool]:
    """The chart's values for what Curfew may do in the cluster."""
    return ENFORCE


@pytest.fixture(params=["sqlite", "postgresql"])
def company(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    front: Front,
    sink: Sink,
    cluster: Cluster,
    kubernetes: dict[str, bool],
) -> Iterator[Company]:
    """One machine of eight GPUs: an idle Job holds four of them, a busy Deployment two, nobody the last two."""
    database = ""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        database = server.url(server.create())
    cluster.clear()
    since = datetime.now(UTC) - timedelta(hours=2)
    instance = start_instance(front.moto, "p5.48xlarge", name="shared", tags={"team": "platform"})
    set_launch_time(instance, since)
    node = cluster.node(
        provider_id=f"aws:///us-east-1a/{instance}", labels={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    )
    vision = cluster.namespace()
    cluster.create(job("train", 4), vision)
    cluster.create(deployment("serve", 2), vision)
    found = soon(lambda: len(cluster.all("Pod", vision)) == 2 and cluster.all("Pod", vision), "both have their pod")
    names = {pod["metadata"]["labels"]["app"]: pod["metadata"]["name"] for pod in found}
    for name in names.values():
        cluster.bind(name, vision, node)
        cluster.run(name, vision, since=since)

    folder = tmp_path / "prometheus"
    folder.mkdir()
    fill(folder, dcgm(vision, node, names))
    environment = {
        **ENVIRONMENT,
        "CURFEW_DATABASE_URL": database,
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
    }
    with running(folder) as prometheus, curfew(tmp_path, **environment) as service:
        kubeconfig = account(cluster, kubernetes).kubeconfig
        service.apply(DOCUMENTS.format(aws=front.endpoint, kubeconfig=kubeconfig, prometheus=prometheus, vision=vision))
        yield Company(curfew=service, cluster=cluster, sink=sink, vision=vision, node=node, instance=instance)


def dcgm(namespace: str, node: str, names: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
    """What dcgm-exporter tells, scraped with the exporter's own labels renamed."""
    now = int(time.time())
    series = {}
    for number, gpu in enumerate(GPUS):
        app = "train" if number < 4 else "serve"
        labels = {
            "gpu": str(number),
            "UUID": f"GPU-{gpu}",
            "modelName": "NVIDIA H100 80GB HBM3",
            "Hostname": node,
            "exported_namespace": namespace,
            "exported_pod": names[app],
            "exported_container": "main",
            "namespace": "gpu-operator",
            "pod": "nvidia-dcgm-exporter-x",
        }
        told = ",".join(f'{key}="{value}"' for key, value in labels.items())
        load = 0.0 if app == "train" else 0.9
        series[f"DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{told}}}"] = [
            (now - 60 * minute, load) for minute in range(MINUTES, -1, -1)
        ]
    return series


def test_an_idle_job_is_warned_about_suspended_and_put_back(company: Company) -> None:
    here = company
    before = here.kubectl("get", "job", "train")
    report = here.curfew.cycle()
    assert report["error"] is None
    assert all(source["complete"] for source in report["sources"]), report["sources"]

    # one machine, listed once; its cost once, shared out
    everything = here.curfew.resources()
    assert set(everything) == {here.instance, f"{here.vision}/Job/train", f"{here.vision}/Deployment/serve"}
    machine, train, serve = everything[here.instance], here.workload("Job/train"), here.workload("Deployment/serve")
    assert (train["kind"], train["gpu_count"], train["gpu_model"], train["project"]) == (
        "workload",
        4,
        "H100",
        "vision",
    )
    assert (train["activity"], serve["activity"], machine["project"]) == ("idle", "busy", "platform")
    costs = [one["hourly_cost"]["amount_micros"] for one in (machine, train, serve)]
    whole = machine["hourly_cost"]["amount_micros"] + machine["held"]["hourly_cost"]["amount_micros"]
    assert sum(costs) == whole > 50_000_000
    assert abs(costs[1] - whole // 2) <= 1, "four of eight GPUs"
    assert machine["held"]["gpus"] == 6

    [mail] = here.sink.arrived
    assert mail["To"] == "vision-lead@example.org"
    [finding] = here.curfew.findings(policy="idle-workloads")
    assert finding["status"] == "warned"

    time.sleep(2.2)
    here.curfew.cycle()
    suspended = here.kubectl("get", "job", "train")
    assert suspended["spec"]["suspend"] is True
    assert "idle" in suspended["metadata"]["annotations"]["curfew.dev/stopped-by"]
    assert "kubectl" in suspended["metadata"]["annotations"]["curfew.dev/undo"]
    told = here.kubectl("get", "events", "--field-selector", "reason=CurfewStopped")["items"]
    assert [event["involvedObject"]["name"] for event in told] == ["train"]
    assert here.kubectl("get", "deployment", "serve")["spec"]["replicas"] == 1

    soon(lambda: pods_left(here) == 1, "the Job's pods go")
    soon(lambda: here.curfew.cycle() and actions(here)[0]["status"] == "verified", "it is verified")
    [finding] = here.curfew.findings(policy="idle-workloads")
    assert finding["status"] == "enforced"
    assert here.workload("Job/train")["state"] == "stopped"
    assert here.curfew.resources()[here.instance]["held"]["gpus"] == 2
    assert here.curfew.http.get("/metrics").text.count("curfew_avoided_cost_total{") >= 1

    here.curfew.post(f"/actions/{actions(here)[0]['id']}/undo")
    here.curfew.cycle()
    after = here.kubectl("get", "job", "train")
    assert comparable(after) == comparable(before)
    here.cluster.settle(here.vision, node=here.node)
    soon(lambda: here.curfew.cycle() and actions(here)[-1]["status"] == "undone", "the undo is verified")


@pytest.mark.parametrize(("company", "kubernetes"), [("sqlite", OBSERVE)], indirect=["company"])
def test_whoever_may_only_look_is_refused_which_is_told_and_nothing_is_half_done(company: Company) -> None:
    here = company
    soon(lambda: here.kubectl("get", "job", "train")["status"].get("ready") == 1, "the Job's controller is at rest")
    before = here.kubectl("get", "job,pod,deployment")
    report = here.curfew.cycle()
    assert all(source["complete"] for source in report["sources"]), report["sources"]
    assert (here.workload("Job/train")["activity"], here.workload("Deployment/serve")["activity"]) == ("idle", "busy")

    time.sleep(2.2)
    here.curfew.cycle()

    [action] = actions(here)
    assert action["status"] == "failed"
    assert 'cannot patch resource "jobs" in API group "batch"' in action["error"]
    [finding] = here.curfew.findings(policy="idle-workloads")
    assert finding["status"] == "refused"
    assert 'cannot patch resource "jobs"' in finding["status_reason"]
    [_, mail] = soon(lambda: len(here.sink.arrived) == 2 and here.sink.arrived, "its owner is told")
    assert mail["To"] == "vision-lead@example.org"
    assert mail["Subject"].startswith("Could not stop train")
    assert 'cannot patch resource "jobs"' in " ".join(text_of(mail).split())

    here.curfew.cycle()
    assert [again["id"] for again in actions(here)] == [action["id"]], "it is not tried again and again"
    assert here.kubectl("get", "job,pod,deployment")["items"] == before["items"], "to the resource version"
    assert not here.kubectl("get", "events", "--field-selector", "reason=CurfewStopped")["items"]


def text_of(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    text: str = part.get_content()
    return text


def pods_left(here: Company) -> int:
    """A turn of the kubelet: what is to end is gone."""
    return len(here.cluster.settle(here.vision, node=here.node))


def actions(here: Company) -> list[dict[str, Any]]:
    return [action for action in here.curfew.get("/actions")["items"] if action["verb"] == "stop"]
