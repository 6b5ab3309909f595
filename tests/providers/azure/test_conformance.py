"""Azure, as the tests' own plays it, keeps the contract of every provider."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace

import pytest

from providers.azure import Config, assembled
from providers.azure.client import Client
from providers.azure.translate import POWER
from providers.conformance import ProviderContract, World
from providers.contract import BuildContext, Provider
from providers.records import Kind, ResourceRef, Signal, State
from tests.providers.azure.cloud import NO_ANSWER, OTHER, SUBSCRIPTION, Call, Cloud, Reply
from tests.providers.azure.cloud_skus import Size

REGION = "westeurope"
SIZES = {1: "Standard_NC24ads_A100_v4", 8: "Standard_ND96isr_H100_v5"}
UNPRICED = Size(name="Standard_NC24ads_R100_v8", family="StandardNCadsR100v8Family", cpus=24, memory_gb=220, gpus="1")
"""Of tomorrow."""
PLAIN = "Standard_D4s_v5"
TELEGRAF = "Telegraf/nvidia_smi"


class AzureWorld:
    """Two empty subscriptions. A part of a source that may give no answer while others do is one of them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        cloud.skus.add(UNPRICED)
        config = Config(**cloud.settings)
        context = BuildContext(source="research-azure", now=self.now)
        client = Client(config, secret=lambda _: "a-token", sleep=lambda _: None)
        self._provider = assembled(config, context, client)
        self._groups = (f"rg-{number}" for number in count())

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def identity(self) -> str:
        return "subscriptions"

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
        account, size = OTHER if elsewhere else SUBSCRIPTION, SIZES[gpus] if priced else UNPRICED.name
        return self._started(name, account, size, tags=tags, lock="ReadOnly" if protected else None)

    def machine_without_accelerators(self) -> ResourceRef:
        return self._started("plain", SUBSCRIPTION, PLAIN)

    def _started(
        self,
        name: str,
        account: str,
        size: str,
        *,
        tags: Mapping[str, str] | None = None,
        lock: str | None = None,
    ) -> ResourceRef:
        """Names are given once in a resource group."""
        path = self.cloud.compute.machine(
            name, subscription=account, group=next(self._groups), location=REGION, size=size, tags=tags, lock=lock
        )
        return ResourceRef(provider="azure", account=account, region=REGION, kind=Kind.INSTANCE, external_id=path)

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        assert signal is Signal.UTILISATION
        percents = [(time, value * 100) for time, value in samples]
        said = {"index": str(device), "uuid": f"GPU-{device}", "name": "NVIDIA A100", "host": "trainer"}
        self.cloud.monitor.push(ref.external_id, "utilization_gpu", percents, namespace=TELEGRAF, dimensions=said)

    def state(self, ref: ResourceRef) -> State | None:
        power = self.cloud.compute.power(ref.external_id)
        return None if power is None else POWER[power]

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
            asked = call.method.startswith(("VirtualMachines_", "Metric"))
            return NO_ANSWER if asked and call.subscription == ref.account else None

        return self.cloud.within(silent)


@pytest.fixture
def world(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("providers.pace.time", SimpleNamespace(sleep=lambda _: None, monotonic=time.monotonic))
    world = AzureWorld(cloud)
    yield world
    world.provider.close()


class TestAzure(ProviderContract):
    pass
