"""Amazon EC2 with its groups, and CloudWatch, through boto3: one account or many, some or all of their regions.

Only the source's own fields are here, importable without the SDK; `build` brings in the rest.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from providers.contract import BuildContext, Capabilities, Provider
from providers.records import Kind, Verb

REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
ACCOUNT = re.compile(r"\d{12}")
UNIT = re.compile(r"ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}")


def _regions(value: object) -> object:
    if value == "all":
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("write a list of regions like [us-east-1, eu-west-1], or: all")
    for region in value:
        if not isinstance(region, str) or not REGION.fullmatch(region):
            raise ValueError(f"{region!r} is no region; they are written like us-east-1")
    return tuple(dict.fromkeys(value))


def _accounts(value: object) -> object:
    if value is None or value == "all":
        return value
    if not isinstance(value, list | tuple) or not value:
        raise ValueError('write a list of account ids like ["111122223333"], or: all')
    return tuple(dict.fromkeys(_account(account) for account in value))


def _account(value: object) -> str:
    # an id with a leading zero and no quotes has become another number by now, and a shorter one
    text = str(value) if isinstance(value, str | int) else ""
    if not ACCOUNT.fullmatch(text):
        raise ValueError(f'{value!r} is no account id; write its 12 digits in quotes, like "111122223333"')
    return text


def _left_out(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise ValueError("write a list of account ids and organisational units")
    return tuple(one if isinstance(one, str) and UNIT.fullmatch(one) else _account(one) for one in value)


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
    """How to reach AWS. Credentials come from where all AWS tools find them: environment, profile, role.

    Without `accounts` one account is seen: the credentials' own, or that of `role_arn`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    regions: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_regions)] = "all"
    """Region names, or `all`: every region enabled in the account."""
    role_arn: Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/.+$")] | None = None
    """A role to assume, in this or another account."""
    accounts: Annotated[Literal["all"] | tuple[str, ...] | None, BeforeValidator(_accounts)] = None
    """Account ids, or `all`: every active account of the organisation, asked for again every few minutes."""
    role_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=,.@/-]+$", max_length=512)] | None = None
    """The role to assume in each of `accounts`, by the same name everywhere; with its path, if it has one."""
    exclude_accounts: Annotated[tuple[str, ...], BeforeValidator(_left_out)] = ()
    """Accounts that `accounts: all` leaves out: by id, or by an organisational unit with all below it."""
    external_id: str | None = None
    """What the roles' trust policies ask for, where they do."""
    profile: str | None = None
    """A profile of the AWS configuration files, instead of the default one."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = None
    """A stand-in for every AWS service this asks. `AWS_ENDPOINT_URL` works too."""
    cloudwatch: CloudWatchMetrics = CloudWatchMetrics()

    @model_validator(mode="after")
    def _fields_go_together(self) -> Config:
        if self.accounts is not None and self.role_arn is not None:
            raise ValueError("role_arn: is for one account; with accounts: name the role by role_name")
        if (self.accounts is None) != (self.role_name is None):
            raise ValueError("accounts: and role_name: go together; the role is assumed in each of the accounts")
        if self.exclude_accounts and self.accounts != "all":
            raise ValueError("exclude_accounts: is only used with accounts: all")
        if self.external_id is not None and self.role_arn is None and self.role_name is None:
            raise ValueError("external_id: is only used when a role is assumed; name it with role_arn or role_name")
        return self


def build(config: Config, context: BuildContext) -> Provider:
    """The accounts, ready to be asked. No call is made yet."""
    from providers.aws.accounts import Accounts
    from providers.aws.actuator import AwsActuator
    from providers.aws.inventory import Ec2Inventory
    from providers.aws.prices import AwsPrices
    from providers.aws.telemetry import CloudWatchTelemetry

    accounts = Accounts(config, now=context.now)
    return Provider(
        name="aws",
        capabilities=Capabilities(
            verbs={
                Kind.INSTANCE: frozenset({Verb.STOP, Verb.HIBERNATE, Verb.TERMINATE}),
                Kind.NODE_GROUP: frozenset({Verb.SCALE_TO_ZERO, Verb.MOVE_TO_SPOT}),
            }
        ),
        inventory=Ec2Inventory(accounts, config.regions, now=context.now),
        telemetry=CloudWatchTelemetry(accounts, config.cloudwatch, now=context.now),
        prices=AwsPrices(accounts, source=context.source, now=context.now),
        actuator=AwsActuator(accounts),
    )
