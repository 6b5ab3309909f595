"""A whole cloud in memory, on a clock you set: for the demo, for tests and for back-tests.

A source of this provider speaks of one cloud of the demo company, whose records carry that cloud's name. A test
that wants a cloud of its own puts it under its source's name first:

    clouds["lab"] = SimulatedCloud(clock.now, provider="aws")
"""

from __future__ import annotations

from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict

from providers.contract import BuildContext, Capabilities, Provider
from providers.simulated import company
from providers.simulated.actuator import VERBS, SimulatedActuator
from providers.simulated.cloud import Group, Machine, SimulatedCloud
from providers.simulated.inventory import SimulatedInventory
from providers.simulated.prices import SimulatedPrices
from providers.simulated.telemetry import SimulatedTelemetry

__all__ = ["Config", "Group", "Machine", "SimulatedCloud", "build", "clouds", "forget", "provider_of"]

clouds: dict[str, SimulatedCloud] = {}
"""By source name, for the life of the process: building a source twice reaches the same cloud."""
_building = Lock()


class Config(BaseModel):
    """A source's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    company: Literal["demo"] = "demo"
    cloud: Literal["aws", "gcp", "azure", "kubernetes"] = "aws"
    """Which of the company's clouds this source sees."""


def build(config: Config, context: BuildContext) -> Provider:
    """The source's cloud, made on the first call with the clock of that call."""
    with _building:
        if context.source not in clouds:
            clouds[context.source] = company.found(config.cloud, context.now)
        return provider_of(clouds[context.source])


def forget(source: str | None = None) -> None:
    """Let the next build start from a fresh cloud: for one source, or for all."""
    with _building:
        if source is None:
            clouds.clear()
        else:
            clouds.pop(source, None)


def provider_of(cloud: SimulatedCloud) -> Provider:
    """A provider over any simulated cloud."""
    actuator = SimulatedActuator(cloud)
    return Provider(
        name="simulated",
        capabilities=Capabilities(verbs=VERBS, act_timeout_seconds=5, simulated=True),
        inventory=SimulatedInventory(cloud),
        telemetry=SimulatedTelemetry(cloud),
        prices=SimulatedPrices(cloud),
        actuator=actuator,
        operations=actuator,
        run_limits=actuator,
    )
