"""The chart's own webhooks on a real API server, led to a process on this machine and to one test's namespaces."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from tests.admission.process import Process
from tests.helm.chart import one, rendered
from tests.kubernetes.cluster import Cluster, Manifest
from tests.waiting import soon

VALUES = {"admission": {"enabled": True, "token": {"name": "curfew"}}}
KINDS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")

_numbers = itertools.count(1)


@contextmanager
def webhooks(cluster: Cluster, process: Process, label: str) -> Iterator[None]:
    """As long as it is entered, API servers ask about pods in namespaces with the label `reviewed: LABEL`."""
    manifests = [_led(manifest, process, label) for manifest in (one(rendered(VALUES), kind) for kind in KINDS)]
    for manifest in manifests:
        cluster.create(manifest)
    try:
        yield
    finally:
        for manifest in manifests:
            cluster.delete(manifest["kind"], manifest["metadata"]["name"])


def _led(manifest: Manifest, process: Process, label: str) -> Manifest:
    manifest["metadata"]["name"] += f"-{next(_numbers)}"
    [webhook] = manifest["webhooks"]
    path = webhook["clientConfig"]["service"]["path"]
    authority = base64.b64encode(process.authority.read_bytes()).decode()
    webhook["clientConfig"] = {"url": f"{process.url}{path}", "caBundle": authority}
    webhook["namespaceSelector"]["matchLabels"] = {"reviewed": label}
    return manifest


def asks(cluster: Cluster, process: Process, namespace: str, probe: Manifest) -> None:
    """Until the API server has read of the webhooks: it does so a moment after they are made."""

    def reviewed() -> bool:
        before = process.counts()["curfew_admission_review_duration_seconds_count"]
        cluster.http.post(cluster.path("Pod", namespace=namespace), json=probe, params={"dryRun": "All"})
        return process.counts()["curfew_admission_review_duration_seconds_count"] >= before + 2

    soon(reviewed, "the API server asks both webhooks")
