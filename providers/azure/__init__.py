"""Azure through its REST API and azure-identity: the subscriptions that are named.

Only the source's own fields are here, importable without the SDK; `build` brings in the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb

if TYPE_CHECKING:
    from providers.azure.client import Client

GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STRICT = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _guid(value: object) -> str:
    if not isinstance(value, str) or not GUID.fullmatch(value):
        raise ValueError("that is no id; they are written like 11111111-2222-3333-4444-555555555555")
    return value.lower()


def _subscriptions(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("write a list of subscription ids like [11111111-2222-3333-4444-555555555555]")
    return tuple(dict.fromkeys(_guid(one) for one in value))


Guid = Annotated[str, BeforeValidator(_guid)]
Address = Annotated[str, Field(pattern=r"^https://[^\s/@?#]+/?$")]


class ManagedIdentity(BaseModel):
    """The identity of the machine or pod that Curfew runs on; of several, the one with this client id."""

    model_config = _STRICT

    managed_identity: Guid


class ServicePrincipal(BaseModel):
    """An application that was given rights, with its secret or its certificate."""

    model_config = _STRICT

    tenant_id: Guid
    client_id: Guid
    client_secret: str | None = Field(None, min_length=1)
    """As `${NAME}`."""
    certificate: str | None = Field(None, min_length=1)
    """Path of a PEM or PKCS #12 file with certificate and key."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ServicePrincipal:
        if (self.client_secret is None) == (self.certificate is None):
            raise ValueError("a service principal has either a client_secret: or a certificate:")
        return self


class Token(BaseModel):
    """Whatever else gets tokens: the one that the installation's secret of this name holds at the moment."""

    model_config = _STRICT

    token_secret: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


Credentials = Literal["default", "managed_identity"] | ManagedIdentity | ServicePrincipal | Token


def _credentials(value: Any) -> Any:
    """Which of the sorts is meant, so that a mistake is told of that one alone."""
    if isinstance(value, dict) and value:
        for field, model in (("token_secret", Token), ("managed_identity", ManagedIdentity)):
            if field in value:
                return model.model_validate(value)
        return ServicePrincipal.model_validate(value)
    if value not in ("default", "managed_identity") and not isinstance(value, BaseModel):
        raise ValueError("write default, managed_identity, or what a service principal needs")
    return value


class Config(BaseModel):
    """How to reach Azure, and which subscriptions are seen."""

    model_config = _STRICT

    subscriptions: Annotated[tuple[str, ...], BeforeValidator(_subscriptions)]
    """Subscription ids."""
    credentials: Annotated[Credentials, BeforeValidator(_credentials)] = "default"
    """`default`: where all Azure tools find them. `managed_identity`, also of a certain client id; a service principal
    with its `tenant_id`, `client_id` and `client_secret` or `certificate`; or `token_secret`, the name of a secret."""
    endpoint: Address = "https://management.azure.com"
    """The Resource Manager: of a sovereign cloud, or a stand-in. Always by TLS, as a token goes with every call."""
    authority_endpoint: Address | None = None
    """Who gives tokens, where it is not the one that belongs to the endpoint."""
    ca_file: str | None = Field(None, min_length=1)
    """The certificates to trust, and no others: a PEM file."""
    prices_endpoint: Address = "https://prices.azure.com"
    """Where the Retail Prices API is. It wants no login, and gets none."""

    @model_validator(mode="before")
    @classmethod
    def _token_beside_the_rest(cls, fields: Any) -> Any:
        """`token_secret: NAME` may stand by itself."""
        if isinstance(fields, dict) and "token_secret" in fields:
            if "credentials" in fields:
                raise ValueError("token_secret: is one way of credentials:; name only one")
            fields = {**fields, "credentials": {"token_secret": fields["token_secret"]}}
            del fields["token_secret"]
        return fields


def build(config: Config, context: BuildContext) -> Provider:
    """The subscriptions, ready to be asked. No call is made yet."""
    from providers.azure.client import Client

    return assembled(config, context, Client(config, secret=context.secret))


def assembled(config: Config, context: BuildContext, client: Client) -> Provider:
    """A provider that asks by this client."""
    from providers.azure.actuator import AzureActuator
    from providers.azure.inventory import AzureInventory
    from providers.azure.prices import AzurePrices
    from providers.azure.telemetry import AzureMonitorTelemetry

    actuator = AzureActuator(client)
    return Provider(
        name="azure",
        capabilities=Capabilities(
            verbs={
                Kind.INSTANCE: frozenset({Verb.STOP, Verb.HIBERNATE, Verb.TERMINATE}),
                Kind.NODE_GROUP: frozenset({Verb.SCALE_TO_ZERO}),
                Kind.NOTEBOOK: frozenset({Verb.STOP}),
            }
        ),
        inventory=AzureInventory(client, config.subscriptions, now=context.now),
        telemetry=AzureMonitorTelemetry(client, now=context.now),
        prices=AzurePrices(client, source=context.source, now=context.now),
        actuator=actuator,
        operations=actuator,
        close=client.close,
    )
