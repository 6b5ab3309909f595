"""What the chart says to start does start: its command line, variables and folders, as a process on this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.databases import Postgres, free_port
from tests.helm.chart import ROOT, Manifest, Pod, one, rendered, serving
from tests.prometheus_rules.rules import RULES, promtool
from tests.waiting import soon

TOKEN = "an-admin-token-for-tests"
SECRETS = {"admin-token": TOKEN, "signing-key": "k" * 32, "named": {"SLACK": "A/B/C"}}
DEMO = {"documents": {"files": {path.name: path.read_text() for path in (ROOT / "service" / "demo").glob("*.yaml")}}}


@dataclass(kw_only=True)
class Node:
    """A folder that stands for a node's file system, where pods are processes."""

    folder: Path
    manifests: list[Manifest]
    secrets: Mapping[str, Any]

    def command(self, pod: Pod) -> tuple[list[str], dict[str, str], Path]:
        """The container's command line, environment and working directory, its paths moved into the folder."""
        mounts = {mount["name"]: mount["mountPath"] for mount in pod.container["volumeMounts"]}
        for volume in pod.spec["volumes"]:
            self._mount(volume, self.folder / mounts[volume["name"]].lstrip("/"))
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name, value in pod.environment.items():
            environment[name] = self._secret(value) if isinstance(value, dict) else self._moved(value, mounts)
        command = [*pod.container["command"], *pod.container["args"]]
        return command, environment, self.folder / pod.container["workingDir"].lstrip("/")

    def _moved(self, value: str, mounts: Mapping[str, str]) -> str:
        inside = any(value == path or value.startswith(f"{path}/") for path in mounts.values())
        return f"{self.folder}{value}" if inside else value

    def _secret(self, reference: Manifest) -> str:
        value: str = self.secrets[reference["secretKeyRef"]["key"]]
        return value

    def _mount(self, volume: Manifest, path: Path) -> None:
        """As the kubelet does: the files of a ConfigMap or Secret are links into a folder of their own."""
        path.mkdir(parents=True, exist_ok=True)
        files: dict[str, str] = {}
        if "configMap" in volume:
            [found] = [m for m in self.manifests if m["metadata"]["name"] == volume["configMap"]["name"]]
            files = found["data"]
        elif "secret" in volume:
            files = self.secrets[volume["secret"]["secretName"]]
        if files and not (path / "..data").exists():
            (path / "..2026").mkdir()
            (path / "..data").symlink_to("..2026")
            for name, text in files.items():
                (path / "..2026" / name).write_text(text)
                (path / name).symlink_to(f"..data/{name}")

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The Deployment's pod; its address on loopback."""
        command, environment, folder = self.command(serving(self.manifests))
        port = free_port()
        command = [{"0.0.0.0": "127.0.0.1", "8080": str(port)}.get(word, word) for word in command]
        log = self.folder / f"{port}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None, f"it ended at once:\n{log.read_text()}"
            return httpx.get(f"{url}/readyz").status_code == 200

        try:
            soon(ready, f"the pod is ready; see {log}", every=0.25)
            yield url
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


def test_the_pod_serves_governs_and_has_every_metric_that_rules_read(tmp_path: Path) -> None:
    values = {
        **DEMO,
        "cycleSeconds": 1,
        "secrets": {"adminToken": {"name": "curfew"}, "named": "named"},
        "notify": ["slack://${SLACK}"],
    }
    node = Node(folder=tmp_path, manifests=rendered(values), secrets=SECRETS)

    with node.serving() as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}) as admin:
        assert httpx.get(f"{url}/metrics").status_code == 401, "no metrics without a token"
        page = soon(
            lambda: (text := admin.get("/metrics").text) and "curfew_cycle_duration_seconds_count" in text and text,
            "a page after the second cycle",
            every=0.25,
        )
        source = admin.get("/api/v1/sources/lumen-aws").json()

    assert source["metadata"]["set"] == "helm", "the documents belong to the chart"
    assert (tmp_path / "var/lib/curfew/curfew.db").exists(), "the state is on the volume"
    checked = promtool("check", "metrics", stdin=page.encode())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    read = {name for rule in RULES for name in re.findall(r"(?<![:\w])curfew_[a-z_]+", rule["expr"])}
    there = set(re.findall(r"^# TYPE (\w+) ", page, re.M))
    assert {re.sub(r"_(sum|count)$", "", name) for name in read} <= there


def test_migrations_then_two_replicas_on_postgresql(tmp_path: Path, postgres: Postgres) -> None:
    values = {
        **DEMO,
        "replicas": 2,
        "database": {"kind": "postgresql"},
        "secrets": {name: {"name": "curfew"} for name in ("adminToken", "signingKey", "databaseUrl")},
    }
    secrets = {**SECRETS, "database-url": postgres.url(postgres.create()).replace("+psycopg", "")}
    manifests = rendered(values)
    first, second = (Node(folder=tmp_path / name, manifests=manifests, secrets=secrets) for name in ("1", "2"))

    command, environment, folder = first.command(Pod(of=one(manifests, "Job")))
    migrated = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert migrated.returncode == 0, migrated.stderr
    with first.serving() as one_url, second.serving() as other_url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for url in (one_url, other_url):
            assert len(httpx.get(f"{url}/api/v1/sources", headers=headers).json()["items"]) == 4
    assert not list(tmp_path.rglob("*.db")), "nothing is kept in the pods"
