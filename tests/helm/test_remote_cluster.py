"""What docs/operations.md tells people to type gives Curfew a cluster to govern from elsewhere, command by command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from providers.contract import BuildContext
from providers.errors import Forbidden
from providers.kubernetes import Config, build
from providers.records import Verb
from tests.helm.chart import NEWEST, ROOT
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.programs import program
from tests.providers.kubernetes.stoppable import job, record_of
from tests.waiting import soon

PAGE = (ROOT / "docs" / "operations.md").read_text()
[SECTION] = re.findall(r"\*\*Another one\*\*(.*?)\n## ", PAGE, re.S)
TYPED = [block.replace("\n$ ", "\n").removeprefix("$ ") for block in re.findall(r"```console\n(.*?)```", SECTION, re.S)]
[KUBECONFIG] = re.findall(r"```\n(apiVersion: v1\nkind: Config\n.*?)```", SECTION, re.S)


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Path:
    """Where somebody types: helm and kubectl, the chart, and a kubeconfig with a context for the cluster."""
    (tmp_path / "helm").symlink_to(ROOT / "helm")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, more in {"kubectl": "", "helm": f"--kube-version {NEWEST}"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(program(name))} "$@" {more}\n')
        (programs / name).chmod(0o755)
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["contexts"].append({**config["contexts"][0], "name": "prod-eu"})
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    return tmp_path


def typed(desk: Path, lines: str) -> None:
    environment = {
        "PATH": f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(desk),
        "KUBECONFIG": str(desk / "kubeconfig"),
    }
    done = subprocess.run(["sh", "-ec", lines], cwd=desk, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_leads_to_a_cluster_that_is_seen_and_not_changed(
    cluster: Cluster, desk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cluster.namespace("finops")
    account, secret = TYPED
    typed(desk, account)
    server = "https://prod-eu.example.org:6443"
    assert server in KUBECONFIG
    (desk / "prod-eu.kubeconfig").write_text(KUBECONFIG.replace(server, cluster.url))
    typed(desk, secret)
    mounted = tmp_path_factory.mktemp("secrets")
    for name in ("prod-eu.kubeconfig", "prod-eu.crt", "prod-eu.token"):
        value = f"go-template={{{{index .data {name!r} | base64decode}}}}".replace("'", '"')
        (mounted / name).write_text(cluster.kubectl("-n", "finops", "get", "secret", "curfew-named", "-o", value))
    namespace = cluster.namespace()
    it = cluster.create(job(), namespace)
    config = Config(kubeconfig=str(mounted / "prod-eu.kubeconfig"))
    provider = build(config, BuildContext(source="prod-eu", now=lambda: datetime.now(UTC)))
    assert provider.inventory is not None
    assert provider.actuator is not None
    inventory = provider.inventory

    try:
        soon(lambda: all(part.complete for part in inventory.list().parts), "all of it is seen")
        with pytest.raises(Forbidden) as told:
            provider.actuator.act(record_of(it).ref, Verb.STOP, request_id="request-1", reason="idle")
    finally:
        provider.close()

    assert told.value.permission == "patch jobs.batch"
