"""Google Cloud through its REST APIs and google-auth: some projects, or all of an organisation or a folder.

Only the source's own fields are here, importable without the SDK; `build` brings in the rest.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb

if TYPE_CHECKING:
    from providers.gcp.client import Client

PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
SERVICE_ACCOUNT = re.compile(r"[^@\s/]+@[^@\s/]+")
ENDPOINT = re.compile(r"https?://[^\s/]+/?")
METRIC = r"^[a-z0-9.-]+(/[A-Za-z0-9_:.-]+)+$"


def _projects(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("write a list of project ids like [research-gpus]; for all of them name the organization")
    return tuple(dict.fromkeys(_project(project) for project in value))


def _project(value: object) -> str:
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        raise ValueError(f"{value} is a project number; write the project's id, as resources are named by it")
    if not isinstance(value, str) or not PROJECT.fullmatch(value):
        raise ValueError(f"{value!r} is no project id; they are written like research-gpus-4711")
    return value


def _number(value: object) -> object:
    """Numbers of organisations and folders, with or without what they are, and without quotes too."""
    text = str(value).removeprefix("organizations/").removeprefix("folders/")
    if not isinstance(value, str | int) or not text.isdigit():
        raise ValueError(f"{value!r} is no number of an organization or a folder; it has digits only")
    return text


def _left_out(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("write a list of project ids and folders, like [sandbox-1, folders/123456789]")
    return tuple(one if isinstance(one, str) and re.fullmatch(r"folders/\d+", one) else _project(one) for one in value)


def _service_account(value: object) -> object:
    if isinstance(value, str) and not SERVICE_ACCOUNT.fullmatch(value):
        raise ValueError("write the address of a service account, like curfew@research-gpus.iam.gserviceaccount.com")
    return value


def _endpoint(value: object) -> object:
    if isinstance(value, str) and not ENDPOINT.fullmatch(value):
        raise ValueError("write an address without a path, like https://host:port")
    return value


def _credentials(value: object) -> object:
    """A key that is encoded, or cut off, would be taken for the name of a file, and be quoted as one."""
    if not isinstance(value, str) or value in ("default", "anonymous") or "${" in value or value.lstrip()[:1] == "{":
        return value
    if len(value) <= LONGEST_PATH and value.isprintable() and ("/" in value or value.endswith(".json")):
        return value
    raise ValueError(
        "write default, anonymous, the path of a service account's key file, or ${NAME} for the key itself"
    )


LONGEST_PATH = 1000
"""An encoded key is twice as long."""


class CloudMonitoringMetrics(BaseModel):
    """What the Ops Agent's GPU metrics are called. A metric set to null is not asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    utilisation: str = Field("agent.googleapis.com/gpu/utilization", pattern=METRIC)
    """Percent of time a kernel ran. The one idleness rests on, so it cannot be left out."""
    memory_used: Annotated[str, Field(pattern=METRIC)] | None = "agent.googleapis.com/gpu/memory/bytes_used"
    """Device memory held, bytes; of its series only those whose state is `used`."""


class Config(BaseModel):
    """How to reach Google Cloud, and which of its projects are seen."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    projects: Annotated[tuple[str, ...] | None, BeforeValidator(_projects)] = None
    """Project ids."""
    organization: Annotated[str | None, BeforeValidator(_number)] = None
    """The number of an organisation: all its active projects, asked for again every few minutes."""
    folder: Annotated[str | None, BeforeValidator(_number)] = None
    """The number of a folder: all active projects in it and below."""
    exclude_projects: Annotated[tuple[str, ...], BeforeValidator(_left_out)] = ()
    """What `organization` and `folder` leave out: projects by id, folders with all below them."""
    credentials: Annotated[str, BeforeValidator(_credentials)] = "default"
    """`default`: where all Google tools find them. `anonymous`: none, for stand-ins. Else the path of a service
    account's key file, or the key itself (`${NAME}`)."""
    impersonate: Annotated[str | None, BeforeValidator(_service_account)] = None
    """A service account to act as, by its address."""
    endpoint: Annotated[str | None, BeforeValidator(_endpoint)] = None
    """Another address for every Google API this asks: a stand-in, or private endpoints, with `{service}` in the place
    of each one's name, as in `https://{service}-corp.p.googleapis.com`."""
    monitoring: CloudMonitoringMetrics = CloudMonitoringMetrics()

    @model_validator(mode="after")
    def _fields_go_together(self) -> Config:
        if [self.projects, self.organization, self.folder].count(None) != 2:
            raise ValueError("name either projects: [...], or organization:, or folder:")
        if self.exclude_projects and self.projects is not None:
            raise ValueError("exclude_projects: is only used with organization: or folder:")
        if self.impersonate is not None and self.credentials == "anonymous":
            raise ValueError("impersonate: needs credentials to ask with; anonymous has none")
        return self


def build(config: Config, context: BuildContext) -> Provider:
    """The projects, ready to be asked. No call is made yet."""
    from providers.gcp.client import Client

    return assembled(config, context, Client(config, may_reach=context.may_reach))


def assembled(config: Config, context: BuildContext, client: Client) -> Provider:
    """A provider that asks by this client."""
    from providers.gcp.actuator import GcpActuator
    from providers.gcp.inventory import GcpInventory
    from providers.gcp.prices import GcpPrices
    from providers.gcp.projects import Projects
    from providers.gcp.telemetry import CloudMonitoringTelemetry

    projects = Projects(config, client, now=context.now)
    actuator = GcpActuator(client)
    return Provider(
        name="gcp",
        capabilities=Capabilities(
            verbs={
                Kind.INSTANCE: frozenset({Verb.STOP, Verb.SUSPEND, Verb.TERMINATE}),
                Kind.NODE_GROUP: frozenset({Verb.SCALE_TO_ZERO}),
                Kind.NOTEBOOK: frozenset({Verb.STOP}),
            }
        ),
        inventory=GcpInventory(projects, client, now=context.now),
        telemetry=CloudMonitoringTelemetry(client, config.monitoring, now=context.now),
        prices=GcpPrices(client, source=context.source, now=context.now),
        actuator=actuator,
        operations=actuator,
        run_limits=actuator,
        close=client.close,
    )
