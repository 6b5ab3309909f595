"""The chart as its users meet it: `helm template` with values in, manifests or a refusal out."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kubernetes.programs import program

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "curfew"
OLDEST, NEWEST = "1.25", "1.36"
"""Kubernetes versions the chart is rendered for; the newest is that of the API server."""

Manifest = dict[str, Any]


def helm(*arguments: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """The real helm, with values as a file on its standard input."""
    command = [program("helm"), *map(str, arguments)]
    if values is not None:
        command += ["--values", "-"]
    nowhere = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"}
    return subprocess.run(
        command, input=json.dumps(values or {}), capture_output=True, text=True, check=False, env=nowhere
    )


def rendered(
    values: dict[str, Any], *, kubernetes: str = NEWEST, release: str = "curfew", namespace: str = "finops"
) -> list[Manifest]:
    """Every manifest, hooks too."""
    done = helm("template", release, CHART, "--namespace", namespace, "--kube-version", kubernetes, values=values)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refusal(values: dict[str, Any]) -> str:
    """What helm says of values it does not take."""
    done = helm("template", "curfew", CHART, "--kube-version", NEWEST, values=values)
    assert done.returncode != 0, "helm took them"
    return done.stderr


def one(manifests: list[Manifest], kind: str) -> Manifest:
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


@dataclass(frozen=True, kw_only=True)
class Pod:
    """The pod of a Deployment or Job, and its only container."""

    of: Manifest

    @property
    def template(self) -> Manifest:
        template: Manifest = self.of["spec"]["template"]
        return template

    @property
    def spec(self) -> Manifest:
        spec: Manifest = self.template["spec"]
        return spec

    @property
    def container(self) -> Manifest:
        assert set(self.spec) & {"initContainers", "ephemeralContainers"} == set()
        [container] = self.spec["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, Any]:
        """Name to its value, or to the reference it is read from."""
        entries = self.container["env"]
        assert len({entry["name"] for entry in entries}) == len(entries), "a variable is set twice"
        return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in entries}


def pods(manifests: list[Manifest]) -> list[Pod]:
    return [Pod(of=manifest) for manifest in manifests if "template" in manifest.get("spec", {})]


def serving(manifests: list[Manifest]) -> Pod:
    return Pod(of=one(manifests, "Deployment"))


POSTGRES: dict[str, Any] = {
    "database": {"kind": "postgresql"},
    "secrets": {"signingKey": {"name": "curfew"}, "databaseUrl": {"name": "curfew"}},
}

VALUES: dict[str, dict[str, Any]] = {
    "as it stands": {},
    "enforcing, on a volume": {
        "ceiling": "enforce",
        "publicUrl": "https://curfew.example.org",
        "notify": ["platform@example.org", "slack://${SLACK}", "webhooks://hooks.example.org/gpu?secret=${HOOK}"],
        "secrets": {"adminToken": {"name": "curfew"}, "mail": {"name": "curfew"}, "named": "curfew-named"},
        "persistence": {"storageClass": "fast", "accessMode": "ReadWriteOncePod", "annotations": {"backup": "daily"}},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/curfew"}},
    },
    "three replicas on PostgreSQL, behind an Ingress, scraped": {
        **POSTGRES,
        "replicas": 3,
        "publicUrl": "https://curfew.example.org",
        "image": {"digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry", "other"]},
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}},
        "trustedProxies": ["10.0.0.0/8"],
        "metrics": {
            "serviceMonitor": {"enabled": True, "token": {"name": "scraper"}, "labels": {"release": "prometheus"}},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        },
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "extraEgress": [{"ports": [{"port": 9090, "protocol": "TCP"}]}],
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "curfew"}},
            }
        ],
    },
    "everything one can say of pods": {
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "finops"},
        "history": "s3://curfew/history",
        "requireBacktest": {"days": 14},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]}}},
        "extraEnv": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "documents": {"files": {"vision.yaml": "kind: project\nname: vision\n", "b.yml": "# nothing yet: ünïcode\n"}},
        "prices": "a: 'b'\n",
        "rates": "c: \"d\"\n",
        "serviceAccount": {"name": "gpu"},
        "service": {"type": "LoadBalancer", "port": 8443, "annotations": {"internal": "true"}},
    },
    "with what others made": {
        "serviceAccount": {"create": False, "name": "mine"},
        "persistence": {"existingClaim": "mine"},
        "documents": {"existingConfigMap": "mine"},
        "networkPolicy": {"enabled": False},
        "metrics": {"anonymous": True, "serviceMonitor": {"enabled": True}},
        "ingress": {"enabled": True},
        "publicUrl": "http://curfew.internal:8080",
    },
    "on Google Kubernetes Engine": {
        "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "curfew@gpus.iam.gserviceaccount.com"}},
        "networkPolicy": {"gkeMetadata": True},
        "allowEndpoints": ["{service}-corp.p.googleapis.com"],
    },
    "forgetful, for a look": {"persistence": {"enabled": False}},
    "nothing but digits for names": {
        **POSTGRES,
        "secrets": {
            "named": "1",
            **{name: {"name": "123"} for name in ("adminToken", "signingKey", "databaseUrl", "mail")},
        },
        "serviceAccount": {"name": "123"},
        "ingress": {"enabled": True, "className": "1", "tlsSecret": "1"},
        "publicUrl": "https://127.0.0.1.nip.example",
        "image": {"tag": "1", "pullSecrets": ["1"]},
        "documents": {"existingConfigMap": "1"},
        "podLabels": {"a": "1", "b": "true"},
    },
}  # fmt: skip
"""Values that must work, from the smallest to the most that can be said."""
