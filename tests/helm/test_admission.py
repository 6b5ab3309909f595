"""Admission in the chart: off unless asked for, safe when on, and its certificate stays over upgrades."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from typer.main import get_command

from service.cli import app
from tests.helm.chart import CHART, NEWEST, VALUES, Manifest, Pod, helm, refusal, rendered
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.conftest import cluster
from tests.kubernetes.programs import program

__all__ = ["cluster"]

ON: dict[str, Any] = {"enabled": True, "token": {"name": "curfew"}}
MANAGED = {"certManager": {"enabled": True, "issuer": {"name": "", "kind": "Issuer"}}}
CASES: dict[str, dict[str, Any]] = {
    "as it stands": {"admission": ON},
    "cert-manager": {"admission": {**ON, "certificate": MANAGED}},
    "a company's issuer": {
        "admission": {
            **ON,
            "certificate": {"certManager": {"enabled": True, "issuer": {"name": "corp", "kind": "ClusterIssuer"}}},
        }
    },
    "a certificate of one's own": {
        "admission": {**ON, "certificate": {"secret": "mine", "caBundle": "Q0VSVA=="}, "source": "training"},
        "networkPolicy": {"enabled": False},
    },
    "one process, Curfew elsewhere": {
        "admission": {**ON, "replicas": 1, "url": "https://curfew.example.org", "exceptNamespaces": ["monitoring"]},
        "metrics": {"anonymous": True, "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    },
    "everything one can say of pods": {**VALUES["everything one can say of pods"], "admission": ON},
}
every_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES)
WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")


def named(manifests: list[Manifest], kind: str, name: str = "curfew-admission") -> Manifest:
    [found] = [one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def reviewing(manifests: list[Manifest]) -> Pod:
    return Pod(of=named(manifests, "Deployment"))


def hooks(manifests: list[Manifest]) -> list[Manifest]:
    found = [one for one in manifests if one["kind"] in WEBHOOKS]
    assert [one["kind"] for one in found] == [*WEBHOOKS]
    return [webhook for one in found for webhook in one["webhooks"]]


def test_as_the_chart_stands_no_api_server_asks_it() -> None:
    manifests = rendered({})

    assert not [one for one in manifests if one["kind"] in WEBHOOKS or "admission" in one["metadata"]["name"]]


@every_case
def test_helm_finds_no_fault(values: dict[str, Any]) -> None:
    done = helm("lint", "--strict", CHART, "--kube-version", NEWEST, values=values)

    assert done.returncode == 0, done.stdout + done.stderr


@every_case
def test_whatever_is_wrong_with_it_pods_get_in_and_soon(values: dict[str, Any]) -> None:
    for webhook in hooks(rendered(values)):
        assert (webhook["failurePolicy"], webhook["timeoutSeconds"]) == ("Ignore", 2)
        assert webhook["sideEffects"] == "None"
        assert webhook["rules"] == [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
             "scope": "Namespaced"}
        ]  # fmt: skip
        [selector] = webhook["namespaceSelector"]["matchExpressions"]
        assert selector["operator"] == "NotIn"
        assert {"kube-system", "finops"} <= set(selector["values"])


def test_a_placed_pod_is_looked_at_again_when_others_changed_it() -> None:
    placing, reviews = hooks(rendered(CASES["as it stands"]))

    assert placing["reinvocationPolicy"] == "IfNeeded"
    assert [hook["clientConfig"]["service"]["path"] for hook in (placing, reviews)] == ["/mutate", "/validate"]


def test_an_older_kubernetes_asks_about_all_pods() -> None:
    """It knows no matchConditions; the process looks by itself."""
    done = helm("template", "curfew", CHART, "--kube-version", "1.27", values=CASES["as it stands"])
    assert done.returncode == 0
    assert "matchConditions" not in done.stdout
    assert all("matchConditions" in hook for hook in hooks(rendered(CASES["as it stands"])))


@every_case
def test_its_pods_may_do_next_to_nothing(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    serving = Pod(of=named(manifests, "Deployment", "curfew"))
    pod = reviewing(manifests)

    assert pod.spec["automountServiceAccountToken"] is False
    assert pod.spec["enableServiceLinks"] is False
    assert pod.spec["securityContext"] == serving.spec["securityContext"]
    assert pod.container["securityContext"] == serving.container["securityContext"]
    assert pod.container["resources"]["requests"]
    assert pod.container["resources"]["limits"]["memory"]
    assert set(pod.environment["CURFEW_TOKEN"]) == {"secretKeyRef"}
    writable = {mount["mountPath"] for mount in pod.container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp"}
    assert not [one for one in manifests if "Role" in one["kind"]], "it asks the cluster for nothing"


@every_case
def test_everything_selects_the_pods_it_means(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    serving = Pod(of=named(manifests, "Deployment", "curfew")).template["metadata"]["labels"].items()
    labels = reviewing(manifests).template["metadata"]["labels"].items()
    selectors = [
        named(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        named(manifests, "Service")["spec"]["selector"],
        *(m["spec"]["selector"]["matchLabels"] for m in manifests if m["kind"] == "PodDisruptionBudget"),
    ]

    for selector in selectors:
        assert selector.items() <= labels
        assert not selector.items() <= serving
    assert not named(manifests, "Service", "curfew")["spec"]["selector"].items() <= labels
    assert (len([m for m in manifests if m["kind"] == "PodDisruptionBudget"]) == 1) == (
        named(manifests, "Deployment")["spec"]["replicas"] > 1
    )


def test_it_reaches_curfew_whoever_else_may() -> None:
    manifests = rendered({"admission": ON, "networkPolicy": {"from": [{"namespaceSelector": {}}]}})

    assert reviewing(manifests).environment["CURFEW_URL"] == "http://curfew.finops.svc:80"
    [out] = named(manifests, "NetworkPolicy")["spec"]["egress"]
    [into] = named(manifests, "NetworkPolicy", "curfew-admission-asks")["spec"]["ingress"]
    [port] = Pod(of=named(manifests, "Deployment", "curfew")).container["ports"]
    assert out["ports"] == into["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]


@every_case
def test_what_it_starts_exists(values: dict[str, Any]) -> None:
    """The command takes every option that the chart gives it, and listens where probes and Service look."""
    pod = reviewing(rendered(values))
    assert pod.container["command"] == ["curfew"]
    name, *options = pod.container["args"]
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}

    assert {option.partition("=")[0] for option in options} <= known
    assert f"--port={pod.container['ports'][0]['containerPort']}" in options
    assert ("--source=training" in options) == (values["admission"].get("source") == "training")


# --- certificates -----------------------------------------------------------------------------------------------------


def test_helm_makes_a_certificate_of_the_service_s_name() -> None:
    manifests = rendered(CASES["as it stands"])
    secret = named(manifests, "Secret", "curfew-admission-tls")
    made = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert names.get_values_for_type(x509.DNSName) == ["curfew-admission.finops.svc"]
    assert {hook["clientConfig"]["caBundle"] for hook in hooks(manifests)} == {secret["data"]["tls.crt"]}
    assert reviewing(manifests).spec["volumes"][0]["secret"]["secretName"] == "curfew-admission-tls"


@pytest.mark.parametrize(
    ("case", "issuer"),
    [
        ("cert-manager", {"name": "curfew-admission", "kind": "Issuer"}),
        ("a company's issuer", {"name": "corp", "kind": "ClusterIssuer"}),
    ],
)
def test_cert_manager_makes_it_and_tells_api_servers(case: str, issuer: dict[str, str]) -> None:
    manifests = rendered(CASES[case])
    certificate = named(manifests, "Certificate")

    assert certificate["spec"]["issuerRef"] == issuer
    assert certificate["spec"]["secretName"] == reviewing(manifests).spec["volumes"][0]["secret"]["secretName"]
    assert certificate["spec"]["dnsNames"] == ["curfew-admission.finops.svc"]
    assert bool([one for one in manifests if one["kind"] == "Issuer"]) == (issuer["name"] == "curfew-admission")
    for manifest in (one for one in manifests if one["kind"] in WEBHOOKS):
        assert manifest["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": "finops/curfew-admission"}
    assert not [one for one in manifests if one["kind"] == "Secret"]
    assert not [hook for hook in hooks(manifests) if "caBundle" in hook["clientConfig"]]


def test_a_certificate_of_one_s_own_is_used() -> None:
    manifests = rendered(CASES["a certificate of one's own"])

    assert not [one for one in manifests if one["kind"] in ("Secret", "Certificate", "Issuer")]
    assert {hook["clientConfig"]["caBundle"] for hook in hooks(manifests)} == {"Q0VSVA=="}
    assert reviewing(manifests).spec["volumes"][0]["secret"]["secretName"] == "mine"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no token": ({"enabled": True}, "admission.token.name: admission asks Curfew for what it judges on"),
    "two certificates": (
        {**ON, "certificate": {**MANAGED, "secret": "mine", "caBundle": "Q0VSVA=="}},
        "admission.certificate: secret and certManager exclude each other",
    ),
    "a certificate nobody knows": ({**ON, "certificate": {"secret": "mine"}}, "admission.certificate.caBundle:"),
    "an authority of nothing": ({**ON, "certificate": {"caBundle": "Q0VSVA=="}}, "admission.certificate.secret:"),
    "an authority that is no base64": (
        {**ON, "certificate": {"caBundle": "-----BEGIN"}},
        "/admission/certificate/caBundle",
    ),
    "no process": ({**ON, "replicas": 0}, "at '/admission/replicas'"),
    "a mistyped name": ({**ON, "replica": 1}, "additional properties 'replica' not allowed"),
}


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(values: dict[str, Any], says: str) -> None:
    assert says in refusal({"admission": values})


# --- a real API server ------------------------------------------------------------------------------------------------


def test_a_real_api_server_takes_it_and_upgrades_keep_its_certificate(cluster: Cluster, tmp_path: Path) -> None:
    namespace = cluster.namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"})
    run(cluster, tmp_path, "install", namespace, CASES["as it stands"])
    first = cluster.get("Secret", "gpu-curfew-admission-tls", namespace)
    hook = f"{namespace}-gpu-curfew-admission"
    assert cluster.get("ValidatingWebhookConfiguration", hook)["webhooks"][0]["matchConditions"]

    run(cluster, tmp_path, "upgrade", namespace, {"admission": {**ON, "replicas": 3}})
    assert cluster.get("Secret", "gpu-curfew-admission-tls", namespace)["data"] == first["data"]
    for kind in WEBHOOKS:
        [webhook] = cluster.get(kind, hook)["webhooks"]
        assert webhook["clientConfig"]["caBundle"] == first["data"]["tls.crt"]

    pod = reviewing(rendered(CASES["as it stands"]))
    cluster.create({"kind": "ServiceAccount", "metadata": {"name": pod.spec["serviceAccountName"]}}, namespace)
    cluster.create({"kind": "Pod", "metadata": {"name": "strict"}, "spec": pod.spec}, namespace)

    run(cluster, tmp_path, "uninstall", namespace, None)
    assert all(cluster.find(kind, hook) is None for kind in WEBHOOKS)


def run(cluster: Cluster, folder: Path, verb: str, namespace: str, values: dict[str, Any] | None) -> None:
    """The real helm against the cluster."""
    command = [program("helm"), verb, "gpu", *([str(CHART), "--values", "-"] if values is not None else [])]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(cluster.kubeconfig)}
    done = subprocess.run(
        [*command, "--namespace", namespace],
        input=json.dumps(values),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
