"""Amazon EC2 and CloudWatch through boto3: one account, some or all of its regions.

Only the source's own fields are here, importable without the SDK; `build` brings in the rest.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb

REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")


def _regions(value: object) -> object:
    if value == "all":
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("write a list of regions like [us-east-1, eu-west-1], or: all")
    for region in value:
        if not isinstance(region, str) or not REGION.fullmatch(region):
            raise ValueError(f"{region!r} is no region; they are written like us-east-1")
    return tuple(dict.fromkeys(value))


class CloudWatchMetrics(BaseModel):
    """Where the CloudWatch agent puts GPU metrics. A metric set to null is not asked for (each one is billed)."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    namespace: str = Field("CWAgent", min_length=1)
    utilisation: str = Field("nvidia_smi_utilization_gpu", min_length=1)
    """Percent of time a kernel ran. The one idleness rests on, so it cannot be left out."""
    memory_activity: str | None = "nvidia_smi_utilization_memory"
    """Percent of time device memory was read or written."""
    memory_used: str | None = "nvidia_smi_memory_used"
    """Device memory held, MiB."""
    power: str | None = "nvidia_smi_power_draw"
    """Watts."""


class Config(BaseModel):
    """How to reach an AWS account. Credentials come from where all AWS tools find them: environment, profile, role."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    regions: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_regions)] = "all"
    """Region names, or `all`: every region enabled in the account."""
    role_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")] | None = None
    """A role to assume, in this or another account."""
    external_id: str | None = None
    """What the role's trust policy asks for, where it does."""
    profile: str | None = None
    """A profile of the AWS configuration files, instead of the default one."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = None
    """A stand-in for every AWS service this asks. `AWS_ENDPOINT_URL` works too."""
    cloudwatch: CloudWatchMetrics = CloudWatchMetrics()

    @model_validator(mode="after")
    def _external_id_needs_a_role(self) -> Config:
        if self.external_id is not None and self.role_arn is None:
            raise ValueError("external_id: is only used when a role is assumed; name it with role_arn")
        return self


def build(config: Config, context: BuildContext) -> Provider:
    """The account, ready to be asked. No call is made yet."""
    from providers.aws.actuator import Ec2Actuator
    from providers.aws.client import Client
    from providers.aws.inventory import Ec2Inventory
    from providers.aws.prices import AwsPrices
    from providers.aws.telemetry import CloudWatchTelemetry

    client = Client(config)
    return Provider(
        name="aws",
        capabilities=Capabilities(verbs={Kind.INSTANCE: frozenset({Verb.STOP})}),
        inventory=Ec2Inventory(client, config.regions),
        telemetry=CloudWatchTelemetry(client, config.cloudwatch, now=context.now),
        prices=AwsPrices(client, source=context.source, now=context.now),
        actuator=Ec2Actuator(client),
    )
