"""A real API server asks, over TLS and by the chart's own webhooks; the real kubectl sees what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from policies.policy import Mode
from providers.kubernetes.accelerators import VENDORS
from service.admission.snapshot import InForceAtAdmission, Snapshot
from service.admission.spot import LABELS, PLACED, Flavour
from tests.admission.builders import SPEECH, VISION, policy, snapshot
from tests.admission.builders import cluster as seen
from tests.admission.builders import pod as written
from tests.admission.process import Process, Service, now, running, running_service
from tests.admission.webhooks import asks, webhooks
from tests.kubernetes.cluster import Cluster, Manifest, Refused
from tests.waiting import soon


@dataclass
class World:
    """A namespace whose pods are reviewed, by a process that tests tell what to know."""

    cluster: Cluster
    service: Service
    process: Process
    namespace: str
    label: str

    def knows(self, *policies: InForceAtAdmission, **more: Any) -> None:
        """From now on."""
        self.service.snapshot = self._snapshot(*policies, **more)
        at = self.service.snapshot.at.isoformat()

        def taken_over() -> bool:
            with self.process.client() as client:
                return bool(client.get("/readyz").json()["snapshot"] == at)

        soon(taken_over, "the snapshot is taken over")

    def _snapshot(self, *policies: InForceAtAdmission, **more: Any) -> Snapshot:
        there = seen(namespaces={self.namespace: {}}, **more.pop("cluster", {}))
        mine = {**VISION, "match": [{"namespaces": [self.namespace]}]}
        return snapshot(*policies, at=now(), cluster=there, projects=[mine, SPEECH], **more)

    def make(self, pod: Manifest) -> Manifest:
        return self.cluster.create(pod, self.namespace)

    def kubectl(self, pod: Manifest, *more: str, fails: bool = False) -> str:
        arguments = ("create", "-f", "-", "--namespace", self.namespace, *more)
        return self.cluster.kubectl(*arguments, stdin=yaml.safe_dump(pod), fails=fails)


@contextmanager
def reviewed(cluster: Cluster, folder: Path) -> Iterator[World]:
    """One that nothing is known of yet."""
    label = f"reviewed-{folder.name}".replace("_", "-")[:60]
    namespace = cluster.namespace(labels={"reviewed": label})
    with running_service() as service, running(service, folder) as process, webhooks(cluster, process, label):
        asks(cluster, process, namespace, pod("probe"))
        yield World(cluster, service, process, namespace, label)


@pytest.fixture(scope="module")
def process(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The process that these tests share."""
    with reviewed(cluster, tmp_path_factory.mktemp("process")) as world:
        yield world


@pytest.fixture
def world(process: World) -> World:
    """With a namespace of this test's own."""
    return replace(process, namespace=process.cluster.namespace(labels={"reviewed": process.label}))


def pod(name: str = "train", gpus: int = 1, **more: Any) -> Manifest:
    manifest = written(gpus, **more)
    manifest["metadata"]["name"] = name
    return manifest


TEMPLATE: Manifest = {"spec": {**pod()["spec"], "restartPolicy": "Never"}}
JOB: Manifest = {"kind": "Job", "metadata": {"name": "train"}, "spec": {"template": TEMPLATE}}


def test_kubectl_sees_the_sentence_and_pods_without_gpus_are_not_asked_about(world: World) -> None:
    world.knows(policy("budget"))

    complaint = world.kubectl(pod(), fails=True)
    assert "Error from server (Forbidden)" in complaint
    assert 'admission webhook "review.pods.curfew.dev" denied the request: Curfew, policy the-budget:' in complaint
    assert "the money of project vision is spent" in complaint
    assert "Ask lead@example.org for more money or for an exemption." in complaint
    assert world.cluster.all("Pod", world.namespace) == []

    before = world.process.counts()["curfew_admission_review_duration_seconds_count"]
    assert "created" in world.kubectl(pod("plain", gpus=0))
    assert world.process.counts()["curfew_admission_review_duration_seconds_count"] == before


def test_a_dry_run_is_told_the_same_and_counts_for_nothing(world: World) -> None:
    world.knows(policy("budget"))
    before = refused(world)

    assert "the money of project vision is spent" in world.kubectl(pod(), "--dry-run=server", fails=True)
    assert refused(world) == before
    world.kubectl(pod(), fails=True)
    assert refused(world) == before + 1


def refused(world: World) -> float:
    name = 'curfew_admission_reviews_total{verdict="refused",policy="the-budget",mode="enforce"}'
    return world.process.counts().get(name, 0)


def test_a_warning_is_shown_and_the_pod_is_made(world: World) -> None:
    world.knows(policy("budget", mode=Mode.WARN))
    world.kubectl(pod())  # what it warns of is on standard error
    answer = world.cluster.http.post(world.cluster.path("Pod", namespace=world.namespace), json=pod("other"))

    assert answer.status_code == 201
    assert "the money of project vision is spent" in answer.headers["Warning"]


def test_what_only_observes_is_not_heard_of(world: World) -> None:
    world.knows(policy("budget", mode=Mode.OBSERVE), policy("spot", mode=Mode.OBSERVE))
    names = [
        f'curfew_admission_reviews_total{{verdict="observed",policy="the-{type}",mode="observe"}}'
        for type in ("budget", "spot")
    ]
    before = world.process.counts()

    made = world.make(pod())  # a warning would fail it
    assert "nodeSelector" not in made["spec"]
    counts = world.process.counts()
    assert [counts[name] - before.get(name, 0) for name in names] == [1, 1]


@pytest.mark.parametrize("flavours", [*((one,) for one in Flavour), (Flavour.EKS, Flavour.KARPENTER)])
def test_pods_are_placed_on_spot_and_stay_as_they_were_written(world: World, flavours: tuple[Flavour, ...]) -> None:
    world.knows(policy("spot"), cluster={"flavours": flavours})
    theirs: Manifest = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]}]}}},
    }  # fmt: skip

    made = world.make(pod(**theirs))
    bare = world.make(pod("bare"))

    for one in (made, bare):
        assert one["metadata"]["annotations"][PLACED] == "the-spot"
    assert made["spec"]["tolerations"][0] == theirs["tolerations"][0]
    assert made["spec"]["nodeSelector"]["disk"] == "fast"
    if len(flavours) == 1:
        label = LABELS[flavours[0]]
        assert made["spec"]["nodeSelector"] == {"disk": "fast", label.key: label.value}
        assert bare["spec"]["nodeSelector"] == {label.key: label.value}
        assert any(one.get("key") == label.key for one in bare["spec"]["tolerations"]) == label.tainted
    else:
        path = made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert len(path["nodeSelectorTerms"]) == 4


def test_a_job_keeps_the_template_that_was_written_and_its_pods_go_to_spot(world: World) -> None:
    world.knows(policy("spot"))
    template = {"spec": {**pod()["spec"], "restartPolicy": "Never"}}
    world.cluster.create(
        {"kind": "Job", "metadata": {"name": "train"}, "spec": {"template": template}}, world.namespace
    )

    [made] = soon(lambda: world.cluster.all("Pod", world.namespace), "the Job has its pod")
    assert made["spec"]["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}
    job = world.cluster.get("Job", "train", world.namespace)
    assert "nodeSelector" not in job["spec"]["template"]["spec"]


def test_a_job_over_quota_says_why_its_pods_do_not_come(world: World) -> None:
    world.knows(policy("quota"))
    template = {"spec": {**pod()["spec"], "restartPolicy": "Never"}}
    world.cluster.create(
        {"kind": "Job", "metadata": {"name": "train"}, "spec": {"template": template}}, world.namespace
    )

    def told() -> bool:
        events = world.cluster.all("v1/Event", world.namespace)
        return any("8 of the 8 that may run at once" in event["message"] for event in events)

    soon(told, "an event of the Job says it")


def test_every_sort_of_accelerator_is_asked_about(world: World) -> None:
    world.knows(policy("budget"))
    for resource in [*sorted(VENDORS), "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared"]:
        with pytest.raises(Refused, match="the money of project vision is spent"):
            world.make(pod(resource=resource))
        before = pod("before", gpus=0)
        before["spec"]["initContainers"] = [{**pod(resource=resource)["spec"]["containers"][0], "name": "before"}]
        with pytest.raises(Refused, match="the money of project vision is spent"):
            world.make(before)


def test_the_cluster_s_own_is_not_asked_about(world: World) -> None:
    world.knows(policy("budget"))
    labels = {"app": "exporter"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod()["spec"]}}
    world.cluster.node()
    world.cluster.create({"kind": "DaemonSet", "metadata": {"name": "exporter"}, "spec": spec}, world.namespace)

    soon(lambda: world.cluster.all("Pod", world.namespace), "its pod is let in")


def test_without_a_snapshot_or_a_process_every_pod_gets_in(cluster: Cluster, tmp_path: Path) -> None:
    with reviewed(cluster, tmp_path) as world:
        assert "created" in world.kubectl(pod("unknown"))
        assert world.process.counts()["curfew_admission_open"] == 1

        world.knows(policy("budget"))
        world.kubectl(pod(), fails=True)
        world.process.kill()
        assert "created" in world.kubectl(pod())
