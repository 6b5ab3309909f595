"""Google Cloud, as the tests' own plays it, keeps the contract of every provider."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from providers.conformance import ProviderContract, World
from providers.contract import BuildContext, Provider
from providers.gcp import Config, assembled
from providers.gcp.client import Client
from providers.gcp.translate import STATES
from providers.records import Kind, ResourceRef, Signal, State
from tests.providers.gcp.cloud import NO_ANSWER, PROJECT, Call, Cloud, Reply

REGION = "us-central1"
ELSEWHERE = "vision-gpus"
"""A part of a source that may give no answer while others do is a project."""
SKUS = {1: "a2-highgpu-1g", 8: "a2-highgpu-8g"}
UNPRICED = "ct5lp-hightpu-4t"
PLAIN = "e2-standard-4"


class GoogleWorld:
    """Two empty projects."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        cloud.add_project(ELSEWHERE)
        config = Config(projects=(PROJECT, ELSEWHERE), credentials="anonymous", endpoint=cloud.endpoint)
        context = BuildContext(source="research-gcp", now=self.now)
        self._provider = assembled(config, context, Client(config, sleep=lambda _: None))

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def identity(self) -> str:
        return "projects"

    def now(self) -> datetime:
        return datetime.now(UTC)

    def machine(
        self,
        *,
        name: str = "trainer",
        gpus: int = 1,
        tags: Mapping[str, str] | None = None,
        protected: bool = False,
        elsewhere: bool = False,
        priced: bool = True,
    ) -> ResourceRef:
        said = {key: value.replace(".", "-") for key, value in (tags or {}).items()}  # as labels must be written
        labels = {**said, **({"curfew-protect": "true"} if protected else {})}
        return self._started(name, ELSEWHERE if elsewhere else PROJECT, SKUS[gpus] if priced else UNPRICED, labels)

    def machine_without_accelerators(self) -> ResourceRef:
        return self._started("plain", PROJECT, PLAIN, {})

    def _started(self, name: str, project: str, sku: str, labels: Mapping[str, str]) -> ResourceRef:
        """Names are given once in a zone."""
        zones = (zone for zone in self.cloud.zones if zone.startswith(REGION))
        zone = next(zone for zone in zones if f"projects/{project}/zones/{zone}/instances/{name}" not in self.machines)
        path = self.cloud.compute.machine(name, project=project, zone=zone, machine_type=sku, labels=labels)
        return ResourceRef(provider="gcp", account=project, region=REGION, kind=Kind.INSTANCE, external_id=path)

    @property
    def machines(self) -> Mapping[str, object]:
        return self.cloud.compute.instances

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        assert signal is Signal.UTILISATION
        labels = {"gpu_number": str(device), "model": "NVIDIA A100", "uuid": f"GPU-{device}"}
        self.cloud.monitoring.push(ref.external_id, [(time, value * 100) for time, value in samples], labels=labels)

    def state(self, ref: ResourceRef) -> State | None:
        status = self.cloud.compute.status(ref.external_id)
        return None if status is None else STATES[status]

    def snapshot(self) -> object:
        return self.cloud.snapshot()

    def settle(self) -> None:
        self.cloud.settle()

    def vanish(self, ref: ResourceRef) -> None:
        self.cloud.compute.vanish(ref.external_id)

    def read_only(self) -> AbstractContextManager[object]:
        return self.cloud.read_only()

    def throttled(self) -> AbstractContextManager[object]:
        return self.cloud.throttled()

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        if ref is None:
            return self.cloud.unreachable()

        def silent(call: Call) -> Reply | None:
            """Its machines and what is measured of them; what else there may be are parts of their own."""
            asked = call.service == "monitoring" or call.method.startswith("compute.instances.")
            return NO_ANSWER if asked and call.project == ref.account else None

        return self.cloud.within(silent)


@pytest.fixture
def world(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("providers.pace.time", SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic))
    world = GoogleWorld(cloud)
    yield world
    world.provider.close()


class TestGoogleCloud(ProviderContract):
    pass
