"""Turns a source's settings into AWS calls, and what can go wrong with a call into `providers.errors`.

The only file that sees botocore's exceptions. What answers mean is `translate`'s business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from threading import Lock
from typing import Any, TypeVar, cast

import boto3
from botocore import exceptions as sdk
from botocore import xform_name
from botocore.config import Config as SdkConfig
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.parsers import ResponseParserError
from botocore.session import Session as SdkSession

from providers.aws import Config
from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.pace import Pace, retry_after

Answer = Mapping[str, Any]
T = TypeVar("T")

PATIENT = SdkConfig(
    retries={"mode": "standard", "total_max_attempts": 6},
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=64,
    user_agent_extra="gpu-curfew",
)
"""For reading: better late than wrong."""
PROMPT = SdkConfig(
    retries={"mode": "standard", "total_max_attempts": 2},
    connect_timeout=3,
    read_timeout=15,
    user_agent_extra="gpu-curfew",
)
"""For acting: both attempts, the pause between and a renewal of the role's credentials end within
`Capabilities.act_timeout_seconds` (2 x 18 s, 1 s and 2 x 8 s of 60 s). Also for prices, which have a list to fall
back on and must not keep a cycle waiting."""
RENEWAL = SdkConfig(
    retries={"mode": "standard", "total_max_attempts": 2},
    connect_timeout=3,
    read_timeout=5,
    user_agent_extra="gpu-curfew",
)
"""For assuming the role, which may happen inside any other call."""


Reading = Callable[[dict[str, Any], dict[str, Any]], None]
"""Reads a response's bytes before the SDK does: takes what it has read out of the first, puts it into the second."""


@dataclass(kw_only=True)
class _Asker:
    """Who asks just now: what the SDK's clients, which all accounts share, need to know of the account."""

    credentials: Callable[[], Credentials | None]
    pace: Pace
    prompt: bool = False
    reading: Reading | None = None
    turn: float = 0.0
    """When the last request was sent."""


_asker: ContextVar[_Asker] = ContextVar("asker")
"""Has no default: what nobody asks is not signed."""


@contextmanager
def _asking(asker: _Asker) -> Iterator[None]:
    token = _asker.set(asker)
    try:
        yield
    finally:
        _asker.reset(token)


class Sdk:
    """The SDK's clients of a source: one per service, region and patience, shared by its accounts and by threads.

    One of EC2's takes 1.4 MB and 10 ms to make, its certificates and connections more; forty accounts of seventeen
    regions cannot each have their own. Whose credentials sign a request is decided when it is sent.
    """

    def __init__(self, config: Config) -> None:
        self._endpoint = config.endpoint
        with translated("session", None):
            self._own = boto3.Session(profile_name=config.profile)
            self.home_region = _home_region(config, self._own.region_name)
            shared = SdkSession(profile=config.profile)
            shared.register_component("credential_provider", CredentialResolver([_WhoeverAsks()]))
            shared.register("before-send", _take_turn)
            shared.register("needs-retry", _keep_pace)
            shared.register("before-parse", _read_first)
            self._shared = boto3.Session(botocore_session=shared, region_name=self.home_region)
        self.partition = self._own.get_partition_for_region(self.home_region)
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._lock = Lock()

    def own_credentials(self) -> Credentials | None:
        """Those that all AWS tools find: environment, profile, the machine's role."""
        with self._lock:
            return self._own.get_credentials()

    def client(self, service: str, region: str, patience: str) -> Any:
        key = (service, region, patience)
        with self._lock:  # creating clients is what boto3 sessions cannot do in several threads
            if key not in self._clients:
                with translated(service, region):
                    self._clients[key] = cast(Any, self._shared).client(
                        service,
                        region_name=region,
                        endpoint_url=self._endpoint,
                        config={"patient": PATIENT, "prompt": PROMPT, "renewal": RENEWAL}[patience],
                    )
            return self._clients[key]


class Client:
    """Every AWS service of one account: its credentials and its pace."""

    def __init__(self, config: Config, *, role_arn: str | None = None, sdk: Sdk | None = None) -> None:
        self._config = config
        self._sdk = sdk or Sdk(config)
        self._pace = Pace()
        role_arn = role_arn or config.role_arn
        self._credentials: Callable[[], Credentials | None] = self._sdk.own_credentials
        if role_arn is not None:
            self._credentials = _Role(self._sdk, role_arn, config.external_id).credentials

    def assuming(self, role_arn: str) -> Client:
        """Another account by a role there, with its own pace."""
        return Client(self._config, role_arn=role_arn, sdk=self._sdk)

    @property
    def home_region(self) -> str:
        """Where questions go that are not about one region."""
        return self._sdk.home_region

    @property
    def partition(self) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`, as in ARNs."""
        return self._sdk.partition

    def call(self, service: str, region: str, operation: str, *path: str, prompt: bool = False, **params: Any) -> Any:
        """The answer, or what stands at `path` in it. `operation` is the API's name, and so the permission's too."""
        client = self._sdk.client(service, region, "prompt" if prompt else "patient")
        with translated(service, region, operation), _asking(self._asker(prompt)):
            answer = getattr(client, xform_name(operation))(**params)
        return _at(path, answer, service, region, operation)

    def pages(
        self,
        service: str,
        region: str,
        operation: str,
        key: str,
        *,
        prompt: bool = False,
        reading: Reading | None = None,
        **params: Any,
    ) -> Iterator[Answer]:
        """All pages of an answer, each with something under `key`. Those before an error are valid, but not all."""
        client = self._sdk.client(service, region, "prompt" if prompt else "patient")
        asker = self._asker(prompt, reading)
        with translated(service, region, operation):
            pages = iter(client.get_paginator(xform_name(operation)).paginate(**params))
        while True:
            with translated(service, region, operation), _asking(asker):  # not while the page is being used
                page = next(pages, None)
            if page is None:
                return
            _at((key,), page, service, region, operation)
            yield page

    def items(self, service: str, region: str, operation: str, key: str, **params: Any) -> Iterator[Answer]:
        """Everything under `key` in all pages."""
        for page in self.pages(service, region, operation, key, **params):
            with translated(service, region, operation):
                yield from page[key]

    def account(self) -> str:
        """Id of the account that answers."""
        return cast(str, self.call("sts", self.home_region, "GetCallerIdentity", "Account"))

    def _asker(self, prompt: bool, reading: Reading | None = None) -> _Asker:
        return _Asker(credentials=self._credentials, pace=self._pace, prompt=prompt, reading=reading)


def _at(path: Sequence[str], answer: Any, service: str, region: str, operation: str) -> Any:
    """An answer that lacks what AWS always says is not AWS's: a proxy's page must not read as an empty account."""
    for key in path:
        if not isinstance(answer, Mapping) or key not in answer:
            raise Unreachable(f"{_where(service, region, operation)} was answered without {'.'.join(path)}")
        answer = answer[key]
    return answer


def _home_region(config: Config, default: str | None) -> str:
    if config.regions != "all":
        return config.regions[0]
    partition = config.role_arn.split(":")[1] if config.role_arn else "aws"
    return default or {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}.get(partition, "us-east-1")


# What the SDK asks back while it makes a call.


class _WhoeverAsks(CredentialProvider):
    """In place of credentials: those of the account that asks."""

    METHOD = "curfew-whoever-asks"

    def load(self) -> Credentials:
        return _AskersCredentials("", "", method=self.METHOD)


class _AskersCredentials(Credentials):
    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        credentials = _asker.get().credentials()
        if credentials is None:
            raise sdk.NoCredentialsError
        return credentials.get_frozen_credentials()


def _not_our_business(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Refreshing temporary credentials failed")


logging.getLogger("botocore.credentials").addFilter(_not_our_business)
"""A role that is refused is reported by its account, in a sentence; the SDK would log a traceback with each call."""


class _Role:
    """Credentials of a role, fetched at first use and renewed before they run out."""

    def __init__(self, sdk: Sdk, role_arn: str, external_id: str | None) -> None:
        self._sdk = sdk
        self._question = {"RoleArn": role_arn, "RoleSessionName": "curfew"}
        if external_id is not None:
            self._question["ExternalId"] = external_id
        self._refreshed = DeferredRefreshableCredentials(self._renew, "curfew-assumed-role")

    def credentials(self) -> Credentials:
        return self._refreshed

    def _renew(self) -> dict[str, str]:
        # a pace of its own, as it is another account's call
        with _asking(_Asker(credentials=self._sdk.own_credentials, pace=Pace(), prompt=True)):
            sts = self._sdk.client("sts", self._sdk.home_region, "renewal")
            credentials = sts.assume_role(**self._question)["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }


def _take_turn(**_: Any) -> None:
    """Before a request is sent, first and repeated ones alike."""
    asker = _asker.get()
    asker.turn = asker.pace.turn(wait=not asker.prompt)


def _keep_pace(**said: Any) -> None:
    """After an answer. None at all says nothing about the pace."""
    if said["response"] is None:
        return
    asker = _asker.get()
    http, answer = said["response"]
    if http.status_code == 429 or answer.get("Error", {}).get("Code") in CODES[Throttled]:
        asker.pace.throttled(asker.turn)
    else:
        asker.pace.answered()


def _read_first(**said: Any) -> None:
    """Between the bytes and the SDK's parser."""
    reading = _asker.get().reading
    if reading is not None and said["response_dict"]["status_code"] == 200:
        reading(said["response_dict"], said["customized_response_dict"])


# What can go wrong, from the SDK's words into ours.

CODES: Mapping[type[ProviderError], frozenset[str]] = {
    Throttled: frozenset(
        {
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
        }
    ),
    Forbidden: frozenset(
        {
            "AccessDenied",
            "AccessDeniedException",
            "Blocked",
            "Client.UnauthorizedOperation",
            "UnauthorizedAccess",
            "UnauthorizedOperation",
        }
    ),
    Misconfigured: frozenset(
        {
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IncompleteSignature",
            "InvalidClientTokenId",
            "InvalidSignatureException",
            "InvalidToken",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "NotSignedUp",
            "OptInRequired",
            "PendingVerification",
            "RegionDisabledException",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        }
    ),
    NotFound: frozenset(
        {
            "InvalidInstanceID",
            "InvalidInstanceID.Malformed",
            "InvalidInstanceID.NotFound",
            "InvalidLaunchTemplateId.NotFoundException",
            "InvalidLaunchTemplateId.VersionNotFound",
            "InvalidLaunchTemplateName.NotFoundException",
            "ResourceNotFoundException",
        }
    ),
    NoCapacity: frozenset(
        {
            "InstanceLimitExceeded",
            "InsufficientCapacity",
            "InsufficientHostCapacity",
            "InsufficientInstanceCapacity",
            "InsufficientReservedInstanceCapacity",
            "MaxSpotInstanceCountExceeded",
            "ReservationCapacityExceeded",
            "Server.InsufficientInstanceCapacity",
            "SpotMaxPriceTooLow",
            "VcpuLimitExceeded",
        }
    ),
    Conflict: frozenset(
        {
            "ConcurrentModification",
            "IncorrectInstanceState",
            "IncorrectSpotRequestState",
            "IncorrectState",
            "IncorrectStateException",
            "InvalidRequestException",
            "InvalidState",
            "ResourceContention",
            "ResourceContentionFault",
            "ResourceInUse",
            "ResourceInUseException",
            "ScalingActivityInProgress",
            "ScalingActivityInProgressFault",
        }
    ),
    Protected: frozenset({"OperationNotPermitted"}),
    Unreachable: frozenset(
        {
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "InternalServiceError",
            "InternalServiceFault",
            "RequestTimeout",
            "RequestTimeoutException",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "Unavailable",
        }
    ),
}
_CLASS_OF_CODE = {code: error for error, codes in CODES.items() for code in codes}

_OUR_SETTINGS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.ProfileNotFound,
    sdk.ConfigParseError,
    sdk.InvalidConfigError,
    sdk.NoRegionError,
    sdk.InvalidRegionError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.ParamValidationError,
    sdk.InvalidEndpointConfigurationError,
)

UNREADABLE = (ResponseParserError, ValueError, TypeError, AttributeError, LookupError)
"""What the SDK's parsers let through when something that is not AWS answers: a proxy's page, half a body."""

_NAMED_PERMISSION = re.compile(r"not authori[sz]ed to perform:?\s+([a-z0-9-]+:[A-Za-z0-9]+)")
_LONGEST_REASON = 300


@contextmanager
def translated(service: str, region: str | None, operation: str | None = None) -> Iterator[None]:
    """Whatever the SDK raises inside comes out as one of `providers.errors`, with the SDK's as its cause."""
    try:
        yield
    except sdk.ClientError as error:
        raise _refusal(error, service, region) from error
    except _OUR_SETTINGS as error:
        raise Misconfigured(f"{_where(service, region, operation)}: {_short(str(error))}") from error
    except sdk.BotoCoreError as error:
        hint = _region_hint(region) if isinstance(error, sdk.EndpointConnectionError) else ""
        raise Unreachable(f"{_where(service, region, operation)} gave no answer: {_short(str(error))}{hint}") from error
    except RuntimeError as error:  # credentials that have run out when they arrive
        raise Misconfigured(f"{_where(service, region, operation)}: {error}; is this machine's clock right?") from error
    except UNREADABLE as error:
        raise Unreachable(f"{_where(service, region, operation)} gave an answer that cannot be read") from error


def _refusal(error: sdk.ClientError, service: str, region: str | None) -> ProviderError:
    """AWS answered no: which no, with the missing permission named."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = str(error.response.get("Error", {}).get("Message", ""))
    metadata = error.response.get("ResponseMetadata", {})
    # a role is assumed inside another call: the failed call's own name counts
    action = f"{'sts' if error.operation_name == 'AssumeRole' else service}:{error.operation_name}"
    place = f"{action} in {region}" if region else action
    kind = _kind_of_refusal(code, metadata.get("HTTPStatusCode", 0))
    if kind is Forbidden:
        named = _NAMED_PERMISSION.search(message)
        permission = named[1] if named else action
        return Forbidden(f"AWS refuses {place}: {_short(message)}; it needs {permission}", permission=permission)
    sentence = f"{place}: {_short(message) or 'no reason given'} ({code})"
    if kind is Misconfigured and region:
        sentence += f"; are the credentials valid, and is {region} enabled in this account?"
    later = retry_after(metadata.get("HTTPHeaders", {}).get("retry-after")) if kind.retry else None
    return kind(sentence, retry_after=later)


def _kind_of_refusal(code: str, status: int) -> type[ProviderError]:
    if code in _CLASS_OF_CODE:
        return _CLASS_OF_CODE[code]
    if code.endswith(".NotFound"):
        return NotFound
    if status == 429:
        return Throttled
    if status >= 500:
        return Unreachable
    return Unsupported


def _where(service: str, region: str | None, operation: str | None) -> str:
    action = f"{service}:{operation}" if operation else f"AWS {service}"
    return f"{action} in {region}" if region else action


def _short(message: str) -> str:
    """AWS appends an encoded blob of kilobytes to some refusals; nobody can read it."""
    words = message.split("Encoded authorization failure message")[0].strip().rstrip(".")
    return words if len(words) <= _LONGEST_REASON else words[:_LONGEST_REASON] + "…"


def _region_hint(region: str | None) -> str:
    """A misspelt region looks like a network failure: its host name does not exist."""
    if region is None or region in _known_regions():
        return ""
    close = get_close_matches(region, _known_regions(), n=1)
    return f"; AWS's SDK knows no region {region!r}" + (f", did you mean {close[0]!r}?" if close else "")


@cache
def _known_regions() -> frozenset[str]:
    session = boto3.Session()
    return frozenset(
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition)
    )
