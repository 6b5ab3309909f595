"""EC2 and CloudWatch, as moto and AWS's own refusals play them, keep the contract of every provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

import pytest

from providers.aws import Config, build
from providers.conformance import ProviderContract, World
from providers.contract import BuildContext, Provider
from providers.records import Kind, ResourceRef, Signal, State
from tests.providers.aws.fleet import ACCOUNT, forget, push_gpu_samples, sdk, start_instance
from tests.providers.aws.front import NO_ANSWER, Call, Front, Reply, error

HERE, THERE = "us-east-1", "eu-west-1"
SKUS = {1: "g6.xlarge", 8: "p5.48xlarge"}
UNPRICED = "trn2.3xlarge"
CHANGES = ("Start", "Stop", "Terminate", "Create", "Delete", "Modify")


class MotoWorld:
    """An empty AWS account of two regions."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self._provider = build(
            Config(regions=(HERE, THERE), endpoint=front.endpoint), BuildContext(source="research-aws", now=self.now)
        )

    @property
    def provider(self) -> Provider:
        return self._provider

    @property
    def identity(self) -> str:
        return ACCOUNT

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
        region = THERE if elsewhere else HERE
        sku = SKUS[gpus] if priced else UNPRICED
        return self._ref(
            start_instance(self.front.moto, sku, name=name, tags=tags, region=region, stop_protected=protected), region
        )

    def machine_without_accelerators(self) -> ResourceRef:
        return self._ref(start_instance(self.front.moto, "m5.large"), HERE)

    def _ref(self, instance_id: str, region: str) -> ResourceRef:
        return ResourceRef(provider="aws", account=ACCOUNT, region=region, kind=Kind.INSTANCE, external_id=instance_id)

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        assert signal is Signal.UTILISATION
        percent = [(datetime.fromtimestamp(time, UTC), value * 100) for time, value in samples]
        push_gpu_samples(self.front.moto, ref.external_id, device, percent, region=ref.region)

    def state(self, ref: ResourceRef) -> State | None:
        words = {
            instance["InstanceId"]: State(instance["State"]["Name"])
            for reservation in sdk(self.front.moto, "ec2", ref.region).describe_instances()["Reservations"]
            for instance in reservation["Instances"]
        }
        return words.get(ref.external_id)

    def snapshot(self) -> object:
        found = [sdk(self.front.moto, "ec2", region).describe_instances()["Reservations"] for region in (HERE, THERE)]
        for reservation in (one for region in found for one in region):
            for instance in reservation["Instances"]:
                instance.pop("StateTransitionReason", None)  # tells the time of the last call, even if it did nothing
        return found

    def settle(self) -> None:
        """moto's machines stop and start at once."""

    def vanish(self, ref: ResourceRef) -> None:
        forget(ref.external_id, region=ref.region)

    def read_only(self) -> AbstractContextManager[object]:
        def denied(call: Call) -> Reply | None:
            message = "You are not authorized to perform this operation."
            return error("ec2", "UnauthorizedOperation", message) if call.operation.startswith(CHANGES) else None

        return self.front.within(denied)

    def throttled(self) -> AbstractContextManager[object]:
        def throttled(call: Call) -> Reply:
            code = "RequestLimitExceeded" if call.service == "ec2" else "Throttling"
            return error(call.service, code, "Request limit exceeded.")

        return self.front.within(throttled)

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        return self.front.within(lambda call: NO_ANSWER if ref is None or call.region == ref.region else None)


@pytest.fixture
def world(front: Front) -> World:
    return MotoWorld(front)


class TestAws(ProviderContract):
    pass
