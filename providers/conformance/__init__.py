"""One test suite that every provider passes: ours, and any that is installed beside us.

To adopt it, a provider's tests hold one file, `tests/providers/<name>/test_conformance.py`, with a fixture `world`
that yields an adapter to a cloud (a fake, an emulator or a real test account), and one class that names the suite:

    import pytest
    from collections.abc import Iterator
    from providers.conformance import ProviderContract, World

    @pytest.fixture
    def world() -> Iterator[World]:
        with my_fake_cloud() as cloud:
            yield MyWorld(cloud)

    class TestMyCloud(ProviderContract):
        pass

`World` (in `world.py`) says what the adapter must be able to do: make machines, push samples, tell the truth
independently of the provider, and make the cloud fail. Each test gets a fresh world and pays for what it makes only.
A provider that has only some parts (a Prometheus has no inventory) takes the classes of those parts, for example
`class TestMyTelemetry(TelemetryContract)`, and lets its world lend the missing inventory from another provider.

There is no way to declare a gap: what a fake cannot do by itself (deny, throttle, time out) the adapter does in front
of it, with an event hook or a proxy.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("providers.conformance.suite")

from providers.conformance.suite import (  # noqa: E402 - assertions must be rewritten before they are imported
    ActuatorContract,
    FailureContract,
    InventoryContract,
    PricesContract,
    ProviderContract,
    TelemetryContract,
)
from providers.conformance.world import World  # noqa: E402

__all__ = [
    "ActuatorContract",
    "FailureContract",
    "InventoryContract",
    "PricesContract",
    "ProviderContract",
    "TelemetryContract",
    "World",
]
