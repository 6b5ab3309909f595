"""A real Prometheus keeps the contract of every provider of telemetry; simulated clouds lend the machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest

from providers.conformance import TelemetryContract, World
from providers.contract import Provider
from providers.records import ResourceRef, Signal, State
from providers.simulated import Machine, SimulatedCloud, provider_of
from providers.simulated.catalogue import SKUS
from tests.providers.prometheus.builders import telemetry
from tests.providers.prometheus.front import NO_ANSWER, Front, refusal
from tests.providers.prometheus.server import Samples, fill, running

SKU = {1: SKUS["g6.xlarge"], 8: SKUS["p5.48xlarge"]}


class PrometheusWorld:
    """Machines of a simulated cloud, whose samples a Prometheus has from the first question on."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.moment = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)
        self.cloud = SimulatedCloud(self.now, provider="aws", regions=("here", "there"))
        self.pushed: dict[str, Samples] = {}
        self._folder, self._stack = folder, stack
        self.front = stack.enter_context(Front(lambda: self._server).serving())
        self._provider = replace(
            provider_of(self.cloud), name="prometheus", telemetry=telemetry(self.front.url, now=self.now)
        )

    @cached_property
    def _server(self) -> str:
        fill(self._folder, self.pushed)
        return self._stack.enter_context(running(self._folder))

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def identity(self) -> str:
        return self.cloud.account

    def now(self) -> datetime:
        return self.moment

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
        region = "there" if elsewhere else "here"
        launched_at = self.moment - timedelta(days=1)
        machine = Machine(
            name=name, sku=SKU[gpus], tags=dict(tags or {}), locked=protected, region=region, launched_at=launched_at
        )
        return self.cloud.add(machine)

    def machine_without_accelerators(self) -> ResourceRef:
        raise NotImplementedError("is asked for by the inventory's contract only")

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        assert signal is Signal.UTILISATION
        labels = f'gpu="{device}",UUID="GPU-{ref.external_id}-{device}",Hostname="{ref.external_id}.internal"'
        self.pushed[f"DCGM_FI_DEV_GPU_UTIL{{{labels}}}"] = [(second, value * 100) for second, value in samples]

    def state(self, ref: ResourceRef) -> State | None:
        machine = self.cloud.machines.get(ref.external_id)
        return None if machine is None else machine.state_at(self.moment)

    def snapshot(self) -> object:
        return deepcopy(self.cloud.machines), deepcopy(self.pushed)

    def settle(self) -> None:
        self.moment += timedelta(minutes=5)

    def vanish(self, ref: ResourceRef) -> None:
        self.cloud.vanish(ref.external_id)

    def read_only(self) -> AbstractContextManager[object]:
        return ExitStack()  # it only ever reads

    def throttled(self) -> AbstractContextManager[object]:
        return self.front.within(lambda call: refusal(429, "too many requests"))

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        return self.front.within(lambda call: NO_ANSWER if ref is None or ref.external_id in call.query else None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield PrometheusWorld(tmp_path, stack)


class TestPrometheus(TelemetryContract):
    pass
