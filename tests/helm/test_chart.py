"""The chart is free of faults, refuses in a sentence what is wrong or unsafe, and asks the cluster for little."""

from __future__ import annotations

import json
import os
import re
import tomllib
from typing import Any

import pytest
import yaml

from service.settings import Settings
from tests.helm.chart import (
    CHART,
    NEWEST,
    OLDEST,
    POSTGRES,
    ROOT,
    VALUES,
    helm,
    one,
    pods,
    refusal,
    rendered,
    serving,
)
from tests.prometheus_rules.rules import FILES

every_value = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


@every_value
def test_helm_finds_no_fault(values: dict[str, Any]) -> None:
    done = helm("lint", "--strict", CHART, "--kube-version", NEWEST, values=values)

    assert done.returncode == 0, done.stdout + done.stderr


@every_value
def test_the_oldest_kubernetes_gets_the_same(values: dict[str, Any]) -> None:
    assert rendered(values, kubernetes=OLDEST) == rendered(values, kubernetes=NEWEST)


def test_as_it_stands_it_only_observes() -> None:
    environment = serving(rendered({})).environment

    assert environment["CURFEW_CEILING"] == "observe"
    assert environment["CURFEW_METRICS_ANONYMOUS"] == "0"
    assert not [value for value in environment.values() if isinstance(value, dict)], "it needs no Secret to start"


def test_it_changes_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("CURFEW_")]:
        monkeypatch.delenv(name)
    plain = Settings()
    for name, value in serving(rendered({})).environment.items():
        monkeypatch.setenv(name, value)

    assert Settings().model_dump(exclude={"home"}) == plain.model_dump(exclude={"home"})


def test_a_required_back_test_reads_as_the_service_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"days": 21, "maxFalseStops": "2.5%", "minStops": 30}
    found = serving(rendered({"requireBacktest": asked})).environment["CURFEW_REQUIRE_BACKTEST"]
    monkeypatch.setenv("CURFEW_REQUIRE_BACKTEST", str(found))

    required = Settings().require_backtest
    assert required is not None
    assert (required.days, required.max_false_stops, required.min_stops) == (21, 0.025, 30)


def test_large_numbers_stay_numbers() -> None:
    environment = serving(rendered({"retention": {"cycles": 10_000_000, "auditDays": 36_500}})).environment

    assert (environment["CURFEW_RETENTION_CYCLES"], environment["CURFEW_RETENTION_AUDIT_DAYS"]) == ("10000000", "36500")


def test_every_setting_can_be_set() -> None:
    """Those of the demo apart: extraEnv refuses them, so there must be a value for each."""
    everything = {
        **VALUES["everything one can say of pods"],
        "database": {"kind": "postgresql"},
        "secrets": {
            "named": "curfew",
            **{name: {"name": "curfew"} for name in ("adminToken", "signingKey", "databaseUrl", "mail")},
        },
    }
    settings = {f"CURFEW_{name.upper()}" for name in Settings.model_fields}

    assert settings - set(serving(rendered(everything)).environment) == {"CURFEW_DEMO_SPEED", "CURFEW_DEMO_START"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a name that is mistyped": ({"replica": 2}, "additional properties 'replica' not allowed"),
    "a name that is mistyped, further down": (
        {"secrets": {"admintoken": {"name": "x", "key": "y"}}},
        "at '/secrets': additional properties 'admintoken' not allowed",
    ),
    "a ceiling that does not exist": ({"ceiling": "stop"}, "must be one of 'observe', 'warn', 'enforce'"),
    "a secret instead of its name": ({"secrets": {"adminToken": "0123456789abcdef"}}, "at '/secrets/adminToken'"),
    "a retention shorter than a month's budget": ({"retention": {"meterDays": 7}}, "at '/retention/meterDays'"),
    "a share without its sign": ({"breaker": "30"}, "at '/breaker'"),
    "replicas as a text": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "a URL with a login in it": ({"publicUrl": "https://me:secret@curfew.example.org"}, "at '/publicUrl'"),
    "a channel with its secret in it": (
        {"notify": ["me@example.org", "slack://TokenA/TokenB/TokenC"]},
        "notify[1]: write a mail address, or a channel with what is secret in it as ${NAME}",
    ),
    "a mail server with its password in it": ({"notify": ["mailtos://me:secret@example.org"]}, "notify[0]:"),
    "one of Curfew's settings past its value": (
        {"extraEnv": [{"name": "CURFEW_CEILING", "value": "enforce"}]},
        "extraEnv: CURFEW_CEILING is a setting of Curfew's own",
    ),
    "a label of the chart's own": (
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        "podLabels: app.kubernetes.io/name is a label of the chart's own",
    ),
    "a document that is no YAML file": (
        {"documents": {"files": {"vision.txt": "a"}}},
        "at '/documents/files': additional properties 'vision.txt' not allowed",
    ),
    "two replicas on SQLite": ({"replicas": 2}, "replicas: SQLite is one file for one process"),
    "PostgreSQL without its address": (
        {"database": {"kind": "postgresql"}},
        "secrets.databaseUrl.name: database.kind is postgresql",
    ),
    "PostgreSQL's address, but SQLite": (
        {"secrets": {"databaseUrl": {"name": "curfew"}}},
        "set database.kind=postgresql",
    ),
    "PostgreSQL without a signing key": (
        {**POSTGRES, "secrets": {"databaseUrl": {"name": "curfew"}}},
        "secrets.signingKey.name: with PostgreSQL no volume keeps a generated key",
    ),
    "enforcing where nobody can answer": ({"ceiling": "enforce"}, "publicUrl: ceiling is enforce"),
    "warning without a memory": ({"ceiling": "warn", "persistence": {"enabled": False}}, "persistence.enabled:"),
    "an Ingress for nowhere": ({"ingress": {"enabled": True}}, "publicUrl: the Ingress takes its host from it"),
    "documents twice": (
        {"documents": {"files": {"a.yaml": "b"}, "existingConfigMap": "c"}},
        "documents: files and existingConfigMap exclude each other",
    ),
    "scraping without a token": (
        {"metrics": {"serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor.token.name: /metrics takes a token",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(values: dict[str, Any], says: str) -> None:
    assert says in refusal(values)


def test_a_refused_channel_is_not_repeated() -> None:
    assert "TokenA" not in refusal({"notify": ["slack://TokenA/TokenB/TokenC"]})


def test_an_old_kubernetes_is_refused() -> None:
    done = helm("template", "curfew", CHART, "--kube-version", "1.24")

    assert "incompatible with Kubernetes v1.24" in done.stderr


def test_every_value_is_in_the_schema_with_a_sentence_and_nothing_else_is() -> None:
    def walk(value: Any, schema: dict[str, Any], path: str) -> None:
        assert schema.get("description", "").endswith("."), f"{path} has no sentence"
        if schema["type"] == "object" and "properties" in schema:
            assert schema["additionalProperties"] is False, path
            assert set(value) == set(schema["properties"]) - {"global"}, path
            for name, entry in value.items():
                walk(entry, schema["properties"][name], f"{path}/{name}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    walk(yaml.safe_load((CHART / "values.yaml").read_text()), {**schema, "description": "All."}, "")


@every_value
def test_its_pods_may_do_next_to_nothing(values: dict[str, Any]) -> None:
    for pod in pods(rendered(values)):
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False, "a Service named curfew-… would set CURFEW_ variables"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
        assert pod.spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod.container["resources"]["requests"]
        assert pod.container["resources"]["limits"]["memory"]
        for volume in pod.spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim", "configMap", "secret"}
        writable = {mount["mountPath"] for mount in pod.container["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= {"/tmp", "/var/lib/curfew"}


@every_value
def test_it_asks_the_cluster_for_no_rights(values: dict[str, Any]) -> None:
    kinds = {manifest["kind"] for manifest in rendered(values)}

    assert kinds <= {
        "ConfigMap",
        "Deployment",
        "Ingress",
        "Job",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    }, "no Role, no binding, no Secret"


def test_the_cluster_s_token_is_mounted_only_when_asked_for() -> None:
    manifests = rendered({"serviceAccount": {"automountToken": True}})

    assert serving(manifests).spec["automountServiceAccountToken"] is True
    assert one(manifests, "ServiceAccount")["automountServiceAccountToken"] is True


SECRET_SETTINGS = {"CURFEW_ADMIN_TOKEN", "CURFEW_SECRET_KEY", "CURFEW_DATABASE_URL", "CURFEW_MAIL"}


@every_value
def test_secrets_are_only_named(values: dict[str, Any]) -> None:
    for pod in pods(rendered(values)):
        for name in SECRET_SETTINGS & set(pod.environment):
            assert set(pod.environment[name]) == {"secretKeyRef"}, name


def test_the_migrations_get_the_database_and_nothing_else() -> None:
    values = VALUES["nothing but digits for names"]
    job = pods([one(rendered(values), "Job")])[0]

    assert set(job.environment) == {"HOME", "CURFEW_DATABASE_URL"}
    assert job.container["command"] + job.container["args"] == ["curfew", "db", "upgrade"]
    assert "serviceAccountName" not in job.spec, "the chart's own does not exist yet when the hook runs"
    assert job.of["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_one_sqlite_file_never_has_two_processes() -> None:
    manifests = rendered({})

    assert one(manifests, "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert not [manifest for manifest in manifests if manifest["kind"] == "Job"]


def test_the_volume_outlives_an_uninstall() -> None:
    claim = one(rendered({}), "PersistentVolumeClaim")

    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@every_value
def test_everything_selects_the_pods_it_means(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    labels = serving(manifests).template["metadata"]["labels"].items()
    of_job = [pod.template["metadata"]["labels"].items() for pod in pods(manifests) if pod.of["kind"] == "Job"]
    service = one(manifests, "Service")["spec"]["selector"].items()
    strict = [one(manifests, "Deployment")["spec"]["selector"]["matchLabels"].items(), service]
    strict += [m["spec"]["selector"]["matchLabels"].items() for m in manifests if m["kind"] == "PodDisruptionBudget"]
    loose = [m["spec"]["podSelector"]["matchLabels"].items() for m in manifests if m["kind"] == "NetworkPolicy"]

    for selector in strict:
        assert selector <= labels
        assert not any(selector <= other for other in of_job), "a Job serves nobody"
    for selector in loose:
        assert all(selector <= other for other in [labels, *of_job])


def test_a_change_of_documents_or_prices_starts_new_pods() -> None:
    def checksum(values: dict[str, Any]) -> str:
        found: str = serving(rendered(values)).template["metadata"]["annotations"]["checksum/documents"]
        return found

    files = {"documents": {"files": {"a.yaml": "kind: project\nname: a\n"}}}
    assert len({checksum(values) for values in ({}, files, {"prices": "x"}, {"rates": "x"})}) == 4


def test_texts_arrive_as_they_were_written() -> None:
    values = VALUES["everything one can say of pods"]
    documents, money = (m["data"] for m in rendered(values) if m["kind"] == "ConfigMap")

    assert documents == values["documents"]["files"]
    assert money == {"prices.yaml": values["prices"], "rates.yaml": values["rates"]}


def test_the_ingress_leads_where_the_links_do() -> None:
    ingress = one(rendered({"ingress": {"enabled": True}, "publicUrl": "http://curfew.internal:8080"}), "Ingress")

    assert ingress["spec"]["rules"][0]["host"] == "curfew.internal"
    assert "tls" not in ingress["spec"]


def test_the_rules_of_the_operator_are_the_plain_ones() -> None:
    rule = one(rendered({"metrics": {"prometheusRule": {"enabled": True}}}), "PrometheusRule")

    assert rule["spec"]["groups"] == [group for file in FILES for group in yaml.safe_load(file.read_text())["groups"]]


def test_the_scraper_hands_over_its_token() -> None:
    values = VALUES["three replicas on PostgreSQL, behind an Ingress, scraped"]
    manifests = rendered(values)
    [endpoint] = one(manifests, "ServiceMonitor")["spec"]["endpoints"]

    assert endpoint["authorization"]["credentials"] == {"name": "scraper", "key": "token"}
    assert endpoint["port"] == one(manifests, "Service")["spec"]["ports"][0]["name"]


def test_chart_image_and_program_agree() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    pod = serving(rendered({}))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    [port] = pod.container["ports"]
    home = pod.environment["CURFEW_HOME"]

    assert re.search(r"^USER (\d+)", dockerfile, re.M)[1] == str(pod.spec["securityContext"]["runAsUser"])  # type: ignore[index]
    assert re.search(r"^EXPOSE (\d+)$", dockerfile, re.M)[1] == str(port["containerPort"])  # type: ignore[index]
    assert f"CURFEW_HOME={home}" in dockerfile
    assert {"name": "home", "mountPath": home} in pod.container["volumeMounts"]
    entry = json.loads(re.search(r"^ENTRYPOINT (.+)$", dockerfile, re.M)[1])  # type: ignore[index]
    command = json.loads(re.search(r"^CMD (.+)$", dockerfile, re.M)[1])  # type: ignore[index]
    assert entry == pod.container["command"]
    assert command == pod.container["args"][: len(command)]
    assert pod.container["image"] == f"gpu-curfew:{version}"
