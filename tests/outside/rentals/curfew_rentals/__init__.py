"""The rental company as a provider: what a source says of it, and its parts put together."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb


class Config(BaseModel):
    """A source's own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    token_secret: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The name of the secret that is the API's token."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] = "https://api.rentals.example"
    """Where the API is."""


def build(config: Config, context: BuildContext) -> Provider:
    """The account behind the token, ready to be asked. No call is made yet."""
    from curfew_rentals.actuator import RentalsActuator
    from curfew_rentals.client import Client
    from curfew_rentals.inventory import RentalsInventory
    from curfew_rentals.prices import RentalsPrices
    from curfew_rentals.telemetry import RentalsTelemetry

    client = Client(config.endpoint, token=lambda: context.secret(config.token_secret))
    return Provider(
        name="rentals",
        capabilities=Capabilities(verbs={Kind.INSTANCE: frozenset({Verb.STOP})}),
        inventory=RentalsInventory(client),
        telemetry=RentalsTelemetry(client),
        prices=RentalsPrices(client),
        actuator=RentalsActuator(client),
        close=client.close,
    )
