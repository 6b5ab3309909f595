"""The same promise on all clouds at once, from outside: one policy, one project, machines of AWS, Google and Azure, and
a Job on a cluster whose node is Google's. What happened is asked of boto3, of the stand-ins and of kubectl.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import Curfew, curfew
from tests.e2e.test_spine_on_kubernetes import GPUS, MINUTES, actions, comparable, job, text_of
from tests.helm.accounts import ENFORCE, account
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import cluster
from tests.notify.conftest import Sink
from tests.providers.aws.fleet import (
    ENVIRONMENT,
    every_minute,
    push_gpu_samples,
    sdk,
    set_launch_time,
    start_instance,
)
from tests.providers.aws.front import Front
from tests.providers.azure.cloud import SUBSCRIPTION
from tests.providers.azure.cloud import Cloud as Azure
from tests.providers.gcp.cloud import PROJECT, Cloud
from tests.providers.gcp.conftest import cloud
from tests.providers.prometheus.server import fill, running
from tests.waiting import soon

__all__ = ["cloud", "cluster"]

DOCUMENTS = """
kind: source
name: aws
provider: aws
regions: [us-east-1]
endpoint: {aws}
telemetry_interval: 0s
---
kind: source
name: google
provider: gcp
projects: [research]
credentials: anonymous
endpoint: {gcp}
telemetry_interval: 0s
---
kind: source
name: azure
provider: azure
subscriptions: [{subscription}]
endpoint: {azure}
prices_endpoint: {azure}
ca_file: {ca_file}
token_secret: AZURE_TOKEN
telemetry_interval: 0s
---
kind: source
name: cluster
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
  - tags: {{project: vision}}
  - namespaces: [{namespace}]
---
kind: project
name: platform
owners: [platform@example.org]
match:
  - tags: {{team: platform}}
"""

POLICY = """
kind: policy
name: {name}
type: {type}
mode: enforce
scope: {{projects: [vision]}}
{type}: {rule}
grace: 3s
action: stop
accept_loss: [local_disks]
disruption_budget: {{max: 100%}}
"""
IDLE = POLICY.format(name="idle-gpus", type="idle", rule="{for: 10m, warm_up: 1m}")
CLOSED = POLICY.format(name="closed", type="schedule", rule='{on: "Mo-Su 00:00-24:00; Jan 01-Dec 31 off"}')


@dataclass
class Company:
    """Everything a test reaches for."""

    curfew: Curfew
    front: Front
    cloud: Cloud
    azure: Azure
    cluster: Cluster
    sink: Sink
    namespace: str
    instance: str
    machine: str
    virtual: str
    node: str

    @property
    def job(self) -> str:
        return f"{self.namespace}/Job/train"

    def truth(self) -> tuple[str, str | None, bool, str | None]:
        """What AWS, Google, Kubernetes and Azure say of them."""
        answer = sdk(self.front.moto, "ec2").describe_instances(InstanceIds=[self.instance])
        state = answer["Reservations"][0]["Instances"][0]["State"]["Name"]
        suspended = bool(self.told_job()["spec"].get("suspend"))
        return state, self.cloud.compute.status(self.machine), suspended, self.azure.compute.power(self.virtual)

    def told_job(self) -> Any:
        return json.loads(self.cluster.kubectl("-n", self.namespace, "get", "job", "train", "-o", "json"))


@pytest.fixture
def azure() -> Iterator[Azure]:
    """One empty subscription."""
    with Azure((SUBSCRIPTION,)).serving() as azure:
        yield azure
    assert azure.bugs == []


@pytest.fixture
def company(
    tmp_path: Path, front: Front, cloud: Cloud, azure: Azure, sink: Sink, cluster: Cluster
) -> Iterator[Company]:
    """Three idle things of eight, eight and four GPUs, and a silent one of eight."""
    cluster.clear()
    now = datetime.now(UTC)
    since = now - timedelta(hours=2)
    instance = start_instance(front.moto, "p5.48xlarge", name="trainer", tags={"project": "vision"})
    set_launch_time(instance, since)
    start = now.replace(microsecond=0) - timedelta(minutes=MINUTES)
    for gpu in range(8):
        push_gpu_samples(front.moto, instance, gpu, every_minute(start, MINUTES, 0), memory=70000, power=80)

    machine = cloud.compute.machine(
        "trainer", machine_type="a3-highgpu-8g", labels={"project": "vision"}, lastStartTimestamp=since.isoformat()
    )
    for gpu in range(8):
        cloud.monitoring.push(
            machine,
            [(time.timestamp(), percent) for time, percent in every_minute(start, MINUTES, 0)],
            labels={"gpu_number": str(gpu), "model": "NVIDIA H100 80GB HBM3", "uuid": f"GPU-{gpu}"},
        )

    virtual = azure.compute.machine("trainer", size="Standard_ND96isr_H100_v5", tags={"project": "vision"})
    azure.prices.add("Standard_ND96isr_H100_v5", 98.32)
    below = cloud.compute.machine(
        "gke-shared-pool-1",
        machine_type="a2-highgpu-4g",
        labels={"team": "platform", "goog-k8s-cluster-name": "shared"},
    )
    node = cluster.node(
        "gke-shared-pool-1",
        gpus=4,
        provider_id=f"gce://{PROJECT}/us-central1-a/gke-shared-pool-1",
        labels={"cloud.google.com/gke-accelerator": "nvidia-tesla-a100"},
    )
    namespace = cluster.namespace()
    cluster.create(job("train", 4), namespace)
    [pod] = soon(lambda: cluster.all("Pod", namespace), "the Job has its pod")
    cluster.bind(pod["metadata"]["name"], namespace, node)
    cluster.run(pod["metadata"]["name"], namespace, since=since)
    folder = tmp_path / "prometheus"
    folder.mkdir()
    fill(folder, dcgm(namespace, node, pod["metadata"]["name"]))

    environment = {
        **ENVIRONMENT,
        "CURFEW_CEILING": "enforce",
        "CURFEW_BREAKER": "100%",
        "CURFEW_MAIL": f"mailto://127.0.0.1:{sink.port}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "CURFEW_ALLOW_TARGETS": "127.0.0.1",
        "CURFEW_ALLOW_ENDPOINTS": "127.0.0.1",
        "CURFEW_SECRET_AZURE_TOKEN": "a-token",
    }
    with running(folder) as prometheus, curfew(tmp_path, **environment) as service:
        kubeconfig = account(cluster, ENFORCE).kubeconfig
        service.apply(
            DOCUMENTS.format(
                aws=front.endpoint,
                gcp=cloud.endpoint,
                subscription=SUBSCRIPTION,
                azure=azure.endpoint,
                ca_file=azure.ca_file,
                kubeconfig=kubeconfig,
                prometheus=prometheus,
                namespace=namespace,
            )
        )
        yield Company(
            curfew=service,
            front=front,
            cloud=cloud,
            azure=azure,
            cluster=cluster,
            sink=sink,
            namespace=namespace,
            instance=instance,
            machine=machine,
            virtual=virtual,
            node=below,
        )


def dcgm(namespace: str, node: str, pod: str) -> dict[str, list[tuple[int, float]]]:
    now = int(time.time())
    samples = [(now - 60 * minute, 0.0) for minute in range(MINUTES, -1, -1)]
    told = 'modelName="NVIDIA A100-SXM4-40GB",Hostname="{}",exported_namespace="{}",exported_pod="{}"'
    labels = told.format(node, namespace, pod)
    return {
        f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{gpu="{number}",UUID="GPU-{gpu}",{labels}}}': samples
        for number, gpu in enumerate(GPUS[:4])
    }


def test_what_is_idle_is_met_alike_on_every_cloud_and_what_is_silent_on_none(company: Company) -> None:
    here = company
    here.curfew.apply(IDLE)
    before = here.told_job()
    report = here.curfew.cycle()
    assert report["error"] is None
    assert all(source["complete"] for source in report["sources"]), report["sources"]

    everything = here.curfew.resources()
    assert set(everything) == {here.instance, here.machine, here.virtual, here.node, here.job}
    assert everything[here.virtual]["activity"] == "unknown"
    ours = [everything[here.instance], everything[here.machine], everything[here.job]]
    assert [one["provider"] for one in ours] == ["aws", "gcp", "kubernetes"]
    assert [(one["gpu_model"], one["gpu_count"]) for one in ours] == [("H100", 8), ("H100", 8), ("A100", 4)]
    assert [(one["activity"], one["state"], one["project"]) for one in ours] == [("idle", "running", "vision")] * 3
    assert all(one["hourly_cost"]["amount_micros"] > 1_000_000 for one in ours)
    node = everything[here.node]
    assert (node["project"], node["held"]["gpus"], node["hourly_cost"]["amount_micros"]) == ("platform", 4, 0)

    # the same texts, in one mail
    [mail] = here.sink.arrived
    assert (mail["To"], text_of(mail).count("have been idle for")) == ("vision-lead@example.org", 3)
    findings = here.curfew.findings(policy="idle-gpus")
    assert {finding["status"] for finding in findings} == {"warned"}
    assert len({alike(finding["reason"]) for finding in findings}) == 1, [one["reason"] for one in findings]
    assert here.truth() == RUNNING

    time.sleep(3.2)
    here.curfew.cycle()
    here.cloud.settle()
    soon(lambda: here.cluster.settle(here.namespace, node="gke-shared-pool-1") == [], "the Job's pods go")
    soon(lambda: here.curfew.cycle() and verified(here) == 3, "all three are verified")
    assert here.truth() == (*STOPPED[:3], "running"), "nothing is known of Azure's, so it is left alone"
    assert [here.curfew.resources()[one["external_id"]]["state"] for one in ours] == ["stopped"] * 3

    # the same metrics
    page = here.curfew.http.get("/metrics").text
    for provider in ("aws", "gcp", "kubernetes"):
        stopped = [line for line in page.splitlines() if re.match(r"curfew_resources\{", line) and provider in line]
        assert any('state="stopped"' in line for line in stopped), stopped
    [line] = [line for line in page.splitlines() if line.startswith("curfew_actions_total{") and "verified" in line]
    assert line.endswith(" 3.0")

    for action in actions(here):  # type: ignore[arg-type]
        here.curfew.post(f"/actions/{action['id']}/undo")
    here.curfew.cycle()
    here.cloud.settle()
    here.curfew.cycle()
    assert here.truth() == RUNNING
    assert comparable(here.told_job()) == comparable(before)


def test_one_policy_stops_and_one_undo_starts_them_all(company: Company) -> None:
    here = company
    here.curfew.apply(CLOSED)
    report = here.curfew.cycle()
    assert all(source["complete"] for source in report["sources"]), report["sources"]
    ours = [here.instance, here.machine, here.job, here.virtual]
    everything = here.curfew.resources()
    assert [everything[one]["provider"] for one in ours] == ["aws", "gcp", "kubernetes", "azure"]
    assert everything[here.virtual]["hourly_cost"] == {"amount_micros": 98_320_000, "currency": "USD"}
    [mail] = here.sink.arrived
    findings = here.curfew.findings(policy="closed")
    assert {finding["status"] for finding in findings} == {"warned"}
    [reason] = {finding["reason"] for finding in findings}
    assert " ".join(text_of(mail).split()).count(reason) == len(findings) == 4
    assert here.truth() == RUNNING

    time.sleep(3.2)
    here.curfew.cycle()
    settle(here)
    soon(lambda: here.curfew.cycle() and verified(here) == 4, "all four are verified")
    assert here.truth() == STOPPED
    page = here.curfew.http.get("/metrics").text
    for provider in ("aws", "azure", "gcp", "kubernetes"):
        labels = f'provider="{provider}"'
        assert any('state="stopped"' in line and labels in line for line in page.splitlines()), provider

    assert here.curfew.http.delete("/api/v1/policies/closed").status_code in (200, 204, 409)
    for action in actions(here):  # type: ignore[arg-type]
        here.curfew.post(f"/actions/{action['id']}/undo")
    here.curfew.cycle()
    settle(here)
    soon(lambda: here.curfew.cycle() and undone(here) == 4, "all four are back")
    assert here.truth() == RUNNING


RUNNING = ("running", "RUNNING", False, "running")
STOPPED = ("stopped", "TERMINATED", True, "deallocated")


def settle(here: Company) -> None:
    """What is under way comes to its end."""
    here.cloud.settle()
    here.azure.settle()
    soon(lambda: quiet(here), "the Job's pods come or go")


def quiet(here: Company) -> bool:
    suspended = bool(here.told_job()["spec"].get("suspend"))
    return bool(here.cluster.settle(here.namespace, node="gke-shared-pool-1")) is not suspended


def undone(here: Company) -> int:
    return sum(action["status"] == "undone" for action in actions(here))  # type: ignore[arg-type]


def verified(here: Company) -> int:
    return sum(action["status"] == "verified" for action in here.curfew.get("/actions")["items"])


def alike(reason: str) -> str:
    """Without what differs: how many of which GPU, and for how long to the minute."""
    return re.sub(r"\d+[hm](\d+m)?", "TIME", re.sub(r"All \d \w+", "All GPUS", reason))
