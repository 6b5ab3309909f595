"""The simulated cloud keeps the contract of every provider, as machines and as workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.conformance import ProviderContract, World
from providers.contract import Provider
from providers.errors import Forbidden, Throttled, Unreachable
from providers.records import Kind, ResourceRef, Signal, State
from providers.simulated import provider_of
from providers.simulated.catalogue import SKUS, Sku
from providers.simulated.cloud import Machine, SimulatedCloud

MACHINES = {1: SKUS["g6.xlarge"], 8: SKUS["p5.48xlarge"]}
NO_ACCELERATOR = Sku(name="m7i.large", vendor=None, model=None, gpus=0, memory_mib=None, watts=0, rate_micros=100_800)
UNPRICED = replace(MACHINES[1], name="g99.xlarge", rate_micros=None)


class SimulatedWorld:
    """A simulated cloud with a clock that moves only when it is told to."""

    def __init__(self, cloud: str, kind: Kind) -> None:
        self.moment = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)
        self.cloud = SimulatedCloud(self.now, provider=cloud, regions=("here", "there"))
        self.kind = kind
        self._provider = provider_of(self.cloud)

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
        return self._start(
            Machine(
                name=name,
                sku=MACHINES[gpus] if priced else UNPRICED,
                tags=dict(tags or {}),
                locked=protected,
                region="there" if elsewhere else "here",
                launched_at=self.moment - timedelta(days=1),
            )
        )

    def machine_without_accelerators(self) -> ResourceRef:
        return self._start(Machine(name="plain", sku=NO_ACCELERATOR, launched_at=self.moment - timedelta(days=1)))

    def _start(self, machine: Machine) -> ResourceRef:
        machine.kind = self.kind
        return self.cloud.add(machine)

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        self.cloud.push(ref.external_id, device, signal, samples)

    def state(self, ref: ResourceRef) -> State | None:
        machine = self.cloud.machines.get(ref.external_id)
        return None if machine is None else machine.state_at(self.moment)

    def snapshot(self) -> object:
        return deepcopy(self.cloud.machines)

    def settle(self) -> None:
        self.moment += timedelta(minutes=5)

    def vanish(self, ref: ResourceRef) -> None:
        self.cloud.vanish(ref.external_id)

    def read_only(self) -> AbstractContextManager[object]:
        return self.cloud.failing(Forbidden("you may not", permission="simulated:Act"), "act", "restore")

    def throttled(self) -> AbstractContextManager[object]:
        return self.cloud.failing(Throttled("too many requests", retry_after=1.0))

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        return self.cloud.failing(Unreachable("no answer"), region=None if ref is None else ref.region)


@pytest.fixture(params=[("aws", Kind.INSTANCE), ("gcp", Kind.INSTANCE), ("kubernetes", Kind.WORKLOAD)], ids=str)
def world(request: pytest.FixtureRequest) -> World:
    cloud, kind = request.param
    return SimulatedWorld(cloud, kind)


class TestSimulatedCloud(ProviderContract):
    pass
