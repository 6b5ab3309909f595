"""Turns a source's settings into calls to Azure's Resource Manager, and what can go wrong with one into
`providers.errors`.

The SDK's own pipeline (azure-core, azure-identity) tells who asks and carries what is asked. That is plain JSON, as the
SDK's models take most of the time of every list; the tests hold what we ask and read against them. What answers mean is
`translate`'s business.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from json import JSONDecodeError
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import orjson
import requests
from azure.core import exceptions as sdk
from azure.core.credentials import AccessToken, TokenCredential
from azure.core.pipeline.policies import HeadersPolicy, UserAgentPolicy
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest, HttpResponse
from azure.mgmt.core import ARMPipelineClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from requests.adapters import HTTPAdapter

from providers.answers import whole
from providers.azure import Config, ManagedIdentity, ServicePrincipal, Token
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
    shortened,
)
from providers.pace import Pace, answered_in_the_end, retry_after

Json = dict[str, Any]
Query = Mapping[str, str | int]

AUTHORITIES = {
    "management.azure.com": "https://login.microsoftonline.com",
    "management.chinacloudapi.cn": "https://login.chinacloudapi.cn",
    "management.usgovcloudapi.net": "https://login.microsoftonline.us",
}
"""Who gives tokens for which Resource Manager."""

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""Longest wait for the next bytes of an answer that is read."""
PROMPT_SILENCE_SECONDS = 12.0
"""The same for acts and prices."""
ANSWER_SECONDS = 45.0
"""Longest time from an answer's first byte to its last; of one to acts and prices `PROMPT_SILENCE_SECONDS`."""
TOKEN_SECONDS = 8.0
"""Longest wait for a token."""
ATTEMPTS, PROMPT_ATTEMPTS = 5, 2
PROMPT_LATEST_SECONDS = 9.0
"""A second attempt at an act begins at most so long after the first, so that both end within
`Capabilities.act_timeout_seconds`."""
CONNECTIONS = 64
MOST_PAGES = 10_000
"""Of one list; a hundred thousand machines take a fifth of them."""


class NotEnabled(Forbidden):
    """The subscription has never registered this resource provider, so nothing of it can be there."""


class NotThere(Unreachable):
    """What was asked is not served at this address, or its subscription is not: it tells of no single resource."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """What Azure answered to an act. It carries most of them out by itself, after the answer."""

    body: Json
    operation: str | None
    """Path and query by which to ask what became of it; None when it was done at once."""
    retry_after: float | None = None
    """So many seconds Azure wants to pass before it is asked."""
    status: int = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of an act that was accepted, as far as it is known by now."""

    ended: bool
    error: ProviderError | None = None
    """Why it failed."""
    retry_after: float | None = None


class Client:
    """The Resource Manager, with the source's credentials. Nothing is read or asked before the first question."""

    def __init__(
        self,
        config: Config,
        *,
        secret: Callable[[str], str],
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._secret = secret
        self._sleep = sleep
        self._monotonic = monotonic
        self._asking: ARMPipelineClient[HttpRequest, HttpResponse] | None = None
        self._anonymous: ARMPipelineClient[HttpRequest, HttpResponse] | None = None
        self._lock = Lock()
        """Held while credentials are made."""
        self._paces: dict[str, Pace] = {}

    # Questions. A path begins with `/subscriptions/`, and the version of the API goes with it.

    def get(self, path: str, *, version: str, query: Query | None = None, prompt: bool = False) -> Json:
        return self._asked("GET", path, query={"api-version": version, **(query or {})}, prompt=prompt).body

    def pages(self, path: str, *, version: str, query: Query | None = None, prompt: bool = False) -> Iterator[Json]:
        """A list, page by page. Those before an error are valid, but not all."""
        page, link = self.get(path, version=version, query=query, prompt=prompt), ""
        for _ in range(MOST_PAGES):
            if not isinstance(page.get("value"), list):
                raise Unreachable(f"Azure, GET {path} was answered without value")
            yield page
            following = str(page.get("nextLink") or "")
            if not following:
                return
            if following == link:
                raise Unreachable(f"Azure, GET {path} was answered with the same page again and again")
            page, link = self.follow(following, prompt=prompt), following
        raise Unreachable(f"Azure, GET {path} was answered with more than {MOST_PAGES} pages")

    def follow(self, link: str, *, prompt: bool = False) -> Json:
        """An address that Azure itself gave: of the next page, or of an operation."""
        return self._asked("GET", self._of_ours(link), query={}, prompt=prompt).body

    def prices(self, query: Query) -> Iterator[Json]:
        """Pages of the Retail Prices API, which wants no login and gets none."""
        path, asked = "/api/retail/prices", query
        for _ in range(MOST_PAGES):
            page = self._asked("GET", path, query=asked, prompt=True, retail=True).body
            yield page
            following = urlsplit(str(page.get("NextPageLink") or ""))
            if not following.path:
                return
            if path == (path := f"{following.path}?{following.query}"):
                raise Unreachable("Azure Retail Prices answered with the same page again and again")
            asked = {}
        raise Unreachable(f"Azure Retail Prices answered with more than {MOST_PAGES} pages")

    def outcome(self, operation: str, what: str) -> Outcome:
        """How an act stands: `what`, as sentences call it. Raises what keeps that from being known."""
        try:
            told = self._asked("GET", operation, query={}, prompt=True)
        except (Conflict, NoCapacity, Protected, Unsupported) as error:  # the answer to the act itself
            return Outcome(ended=True, error=error)
        status = str(told.body.get("status") or "").lower()
        if status in ("failed", "canceled"):
            why = told.body.get("error")
            return Outcome(ended=True, error=of_code(what, why if isinstance(why, dict) else {"code": status}))
        ended = status == "succeeded" or (not status and told.status != 202)
        return Outcome(ended=ended, retry_after=told.retry_after)

    # Acts. Each is asked once: whether it was heard is read back from the cloud.

    def post(self, path: str, body: Json | None = None, *, version: str, query: Query | None = None) -> Accepted:
        return self._asked("POST", path, query={"api-version": version, **(query or {})}, body=body, prompt=True)

    def put(self, path: str, body: Json, *, version: str, if_match: str | None = None) -> Accepted:
        """`if_match`: only as long as it is the state of that name (`eTag`), else Conflict."""
        return self._asked("PUT", path, query={"api-version": version}, body=body, prompt=True, if_match=if_match)

    def patch(self, path: str, body: Json, *, version: str) -> Accepted:
        return self._asked("PATCH", path, query={"api-version": version}, body=body, prompt=True)

    def delete(self, path: str, *, version: str, query: Query | None = None) -> Accepted:
        return self._asked("DELETE", path, query={"api-version": version, **(query or {})}, prompt=True)

    def close(self) -> None:
        """Ends the connections nobody uses."""
        for client in (self._asking, self._anonymous):
            if client is not None:
                client.close()

    # One call

    def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Query,
        prompt: bool,
        body: Json | None = None,
        retail: bool = False,
        if_match: str | None = None,
    ) -> Accepted:
        attempts = 1 if method != "GET" else PROMPT_ATTEMPTS if prompt else ATTEMPTS
        return answered_in_the_end(
            partial(
                self._answer, method, path, query=query, prompt=prompt, body=body, retail=retail, if_match=if_match
            ),
            pace=self._pace("prices" if retail else path),
            attempts=attempts,
            prompt=prompt,
            sleep=self._sleep,
            monotonic=self._monotonic,
            latest_seconds=PROMPT_LATEST_SECONDS if prompt else math.inf,
            hopeless=(NotThere,),
        )

    def _answer(
        self,
        method: str,
        path: str,
        *,
        query: Query,
        prompt: bool,
        body: Json | None,
        retail: bool,
        if_match: str | None,
    ) -> Accepted:
        where = f"{'Azure Retail Prices' if retail else 'Azure'}, {method} {path.partition('?')[0]}"
        client, base = self._ready(retail=retail)
        request = HttpRequest(
            method,
            base + path,
            params=dict(query),
            content=None if body is None else orjson.dumps(body),
            headers={
                "Content-Type": "application/json",
                "Accept": "application/json",
                **({"If-Match": if_match} if if_match else {}),
            },
        )
        silence = PROMPT_SILENCE_SECONDS if prompt else SILENCE_SECONDS
        try:
            response = client.send_request(
                request, stream=True, connection_timeout=CONNECT_SECONDS, read_timeout=silence
            )
            told = self._read(response, where, PROMPT_SILENCE_SECONDS if prompt else ANSWER_SECONDS)
        except sdk.AzureError as error:
            raise _no_answer(where, error) from error
        except (OSError, ValueError) as error:  # certificates and secrets that cannot be read
            raise Misconfigured(f"{where} was not asked: its credentials or its ca_file cannot be read") from error
        if not 200 <= response.status_code < 300:
            token = (response.request.headers.get("Authorization") or "").removeprefix("Bearer ")
            told = told.replace(token.encode(), b"...") if token else told  # whoever answers may echo it
            raise refusal(where, response.status_code, response.headers, told)
        try:
            answer = orjson.loads(told) if told.strip() else {}
        except orjson.JSONDecodeError as error:
            raise Unreachable(f"{where} was answered with what cannot be read: it is no JSON, or breaks off") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{where} was not answered as Azure does")
        link = response.headers.get("Azure-AsyncOperation") or response.headers.get("Location")
        pending = response.status_code in (201, 202) or response.headers.get("Azure-AsyncOperation")
        return Accepted(
            body=answer,
            operation=self._of_ours(link) if link and pending and method != "GET" else None,
            retry_after=retry_after(response.headers.get("Retry-After")),
            status=response.status_code,
        )

    def _read(self, response: HttpResponse, where: str, seconds: float) -> bytes:
        try:
            return whole(response.iter_bytes(), where, seconds=seconds, monotonic=self._monotonic)
        finally:
            response.close()

    def _of_ours(self, link: str) -> str:
        """Path and query of a link, if it stays where we ask: a token must not be sent elsewhere."""
        parts = urlsplit(link)
        if parts.scheme.lower() != "https" or _host(link) != _host(self._config.endpoint):
            raise Unreachable(f"Azure sends us to {parts.hostname or 'no host'}, and we do not follow to another host")
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    def _pace(self, path: str) -> Pace:
        """Azure counts by subscription."""
        found = re.search(r"/subscriptions/([^/?]+)", path, re.IGNORECASE)
        with self._lock:
            return self._paces.setdefault(found[1].lower() if found else path, Pace())

    # Who asks

    def _ready(self, *, retail: bool) -> tuple[ARMPipelineClient[HttpRequest, HttpResponse], str]:
        with self._lock:
            if retail:
                self._anonymous = self._anonymous or self._pipeline(self._config.prices_endpoint, [])
                return self._anonymous, self._config.prices_endpoint.rstrip("/")
            endpoint = self._config.endpoint.rstrip("/")
            if self._asking is None:
                who = ARMChallengeAuthenticationPolicy(self._credential(), f"{endpoint}/.default")
                self._asking = self._pipeline(endpoint, [who])
            return self._asking, endpoint

    def _pipeline(self, endpoint: str, who: list[Any]) -> ARMPipelineClient[HttpRequest, HttpResponse]:
        session = requests.Session()
        session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=0))
        return ARMPipelineClient(
            base_url=endpoint,
            # no policy that follows redirects, and none that asks again: that is done here, at the subscription's pace
            policies=[HeadersPolicy(), UserAgentPolicy(base_user_agent="gpu-curfew"), *who],
            transport=RequestsTransport(session=session, connection_verify=self._config.ca_file or True),
        )

    def _credential(self) -> TokenCredential:
        said = self._config.credentials
        if isinstance(said, Token):
            return _HeldElsewhere(said.token_secret, self._secret)
        authority = self._config.authority_endpoint or AUTHORITIES.get(_host(self._config.endpoint))
        try:
            return _identity(said, authority, self._config.ca_file, known=self._config.authority_endpoint is None)
        except (OSError, ValueError) as error:  # what they complain of may quote a secret
            raise Misconfigured("Azure's credentials cannot be used: a file of theirs is missing or damaged") from error


def _identity(said: object, authority: str | None, ca_file: str | None, *, known: bool) -> TokenCredential:
    """`known`: whether Microsoft knows the authority, and need not be asked about it."""
    from azure import identity

    for name in ("azure.identity", "msal"):  # they log what they were answered, whatever that is
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # asked again here, at our pace, and never waited for in silence
    named: dict[str, Any] = {"retry_total": 0, "connection_timeout": CONNECT_SECONDS, "read_timeout": TOKEN_SECONDS}
    if ca_file:
        named["connection_verify"] = ca_file
    if authority is not None:
        named |= {"authority": authority, "disable_instance_discovery": not known}
    if isinstance(said, ServicePrincipal):
        if said.client_secret is not None:
            return identity.ClientSecretCredential(said.tenant_id, said.client_id, said.client_secret, **named)
        return identity.CertificateCredential(said.tenant_id, said.client_id, said.certificate, **named)
    if isinstance(said, ManagedIdentity):
        return identity.ManagedIdentityCredential(client_id=said.managed_identity)
    if said == "managed_identity":
        return identity.ManagedIdentityCredential()
    return identity.DefaultAzureCredential(**named)


def _host(url: str) -> str:
    """Host and port, written in one way: some of Azure's links name the port that need not be named."""
    return urlsplit(url).netloc.lower().removesuffix(":443")


class _HeldElsewhere:
    """A token that somebody else renews: read anew for every call."""

    def __init__(self, name: str, secret: Callable[[str], str]) -> None:
        self._name, self._secret = name, secret

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        token = self._secret(self._name).strip()
        if not token or not token.isascii() or not token.isprintable():
            raise Misconfigured(f"the secret {self._name} is no token")
        return AccessToken(token, int(time.time()) + 1)


# What Azure says no with, in our words.

_THROTTLED = {
    "SubscriptionRequestsThrottled",
    "TenantRequestsThrottled",
    "ResourceRequestsThrottled",
    "TooManyRequests",
}
_NOT_ENABLED = {"MissingSubscriptionRegistration", "SubscriptionNotRegistered"}
_NOT_SERVED = {
    "InvalidApiVersionParameter",
    "InvalidResourceNamespace",
    "InvalidResourceType",
    "NoRegisteredProviderFound",
}
"""This Resource Manager does not know the API or its version: there may well be things of that kind."""
_NO_CAPACITY = {
    "AllocationFailed",
    "OverconstrainedAllocationRequest",
    "OverconstrainedZonalAllocationRequest",
    "QuotaExceeded",
    "SkuNotAvailable",
    "ZonalAllocationFailed",
}
_CHANGED = {
    "AnotherOperationInProgress",
    "Conflict",
    "ConflictingUserInput",
    "OperationPreempted",
    "PreconditionFailed",
    "RetryableError",
}
_FORBIDDEN = {"AuthorizationFailed", "LinkedAuthorizationFailed", "ReadOnlyDisabledSubscription"}
_NOT_FOUND = {"NotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "ResourceNotFound"}
_FULL = re.compile(
    r"exceed\w* (?:the )?(?:approved|quota)|quota limit|insufficient [\w ]+ quota|"
    r"not have (?:sufficient|enough) capacity",
    re.IGNORECASE,
)
_BUSY = re.compile(r"in progress|another operation|concurrent", re.IGNORECASE)
_NAMED_RESOURCE = re.compile(r"Resource '([^']+)'", re.IGNORECASE)
_NO_TOKEN_NOW = re.compile(
    r"HTTP Error: (?:429|5\d\d)|AADSTS90033\b|temporarily_unavailable|Connection aborted|Failed to resolve|timed out"
)
_NAMED_ACTION = re.compile(r"not have (?:authorization|permission) to perform action(?:\(s\))? '([^']+)'")


def refusal(where: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Azure answered no: which no, with the missing permission named."""
    told = _error(body)
    if told is None:
        return _strange(where, status, headers)
    return of_code(where, told, status, retry_after=retry_after(headers.get("Retry-After")))


def of_code(where: str, told: Json, status: int = 0, *, retry_after: float | None = None) -> ProviderError:
    """Of an error as Azure writes it, of a call or of an operation that failed in the end.

    `where` names what was acted on: that something else is not found says nothing about it.
    """
    code, words = str(told.get("code") or ""), str(told.get("message") or "")
    details = told.get("details")
    listed = details if isinstance(details, list) else ()
    codes = {code, *(str(one.get("code")) for one in listed if isinstance(one, dict))}
    sentence = f"{where}: {_short(words) or 'no reason given'} ({code or status})"
    if status == 429 or codes & _THROTTLED:
        return Throttled(sentence, retry_after=retry_after)
    if codes & _NOT_ENABLED:
        return NotEnabled(f"{where}: the resource provider is not registered in this subscription")
    if codes & _NOT_SERVED:
        return NotThere(sentence)
    if code == "ScopeLocked":
        return Protected(sentence)
    if status == 401:
        return Forbidden(f"{where}: Azure does not know who asks: {_short(words)} ({code})")
    if status == 403 or code in _FORBIDDEN:
        return _forbidden(where, words, code)
    if code in _NOT_FOUND or status == 404:
        return _not_found(where, code, words, status)
    if codes & _NO_CAPACITY or _FULL.search(words):
        return NoCapacity(sentence)
    if codes & _CHANGED or status == 412 or _BUSY.search(words):
        return Conflict(sentence)
    if status == 408 or status >= 500 or code in ("InternalServerError", "InternalExecutionError", "ServerBusy"):
        return Unreachable(sentence, retry_after=retry_after)
    return Conflict(sentence) if status == 409 and code != "OperationNotAllowed" else Unsupported(sentence)


def _not_found(where: str, code: str, words: str, status: int) -> ProviderError:
    """Only what names the resource speaks of it; its subscription, or something that stands between, does not."""
    sentence = f"{where}: {_short(words) or 'nothing answers there'} ({code or status})"
    named = _NAMED_RESOURCE.search(words)
    of_it = named is None or named[1].rpartition("/")[2].lower() in re.split(r"[/\s]", where.lower())
    if code in _NOT_FOUND and of_it:
        return NotFound(sentence)
    return NotThere(sentence) if status else Unsupported(sentence)


def _forbidden(where: str, words: str, code: str) -> Forbidden:
    named = _NAMED_ACTION.search(words)
    permission = named[1] if named else None
    needs = f"; it needs {permission}" if permission else ""
    return Forbidden(f"{where} is refused: {_short(words)} ({code}){needs}", permission=permission)


def _strange(where: str, status: int, headers: Mapping[str, str]) -> ProviderError:
    """It is not the Resource Manager that speaks, but a proxy before it, or somebody else."""
    if 300 <= status < 400:
        return Misconfigured(f"{where} is sent elsewhere, and we do not follow; write the final address as endpoint:")
    if status == 429:
        return Throttled(f"{where} was asked too often", retry_after=retry_after(headers.get("Retry-After")))
    if status in (401, 403, 404):
        return NotThere(f"{where} was answered with status {status}, but not as Azure does")
    return Unreachable(f"{where} failed with status {status}", retry_after=retry_after(headers.get("Retry-After")))


def _error(body: bytes) -> Json | None:
    """What Azure says is wrong. Most write it as `error`, AKS and Azure Monitor bare, the price list in capitals."""
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    error = told.get("error") or told.get("Error") or told
    if not isinstance(error, dict):
        return None
    plain = {key[:1].lower() + key[1:]: value for key, value in error.items()}
    return plain if plain.get("code") else None


def _no_answer(where: str, error: sdk.AzureError) -> ProviderError:
    """What the transport and the credentials complain of. Their words may hold tokens, so few of them are passed on."""
    if "NO_CERTIFICATE_OR_CRL_FOUND" in str(error):
        return Misconfigured(f"{where} was not asked: its ca_file holds no certificate")
    if isinstance(error, sdk.ClientAuthenticationError):
        return _no_token(where, error)
    if isinstance(error, (sdk.ServiceRequestTimeoutError, sdk.ServiceResponseTimeoutError)):
        return Unreachable(f"{where} was not answered in time")
    if isinstance(error, (sdk.ServiceRequestError, sdk.ServiceResponseError, sdk.IncompleteReadError)):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Unreachable(f"{where}: the address cannot be talked to by TLS; is ca_file: right?")
        return Unreachable(f"{where} gave no answer: no connection, or it was closed")
    return Unreachable(f"{where} gave no answer: {type(error).__name__}")


def _no_token(where: str, error: sdk.ClientAuthenticationError) -> ProviderError:
    """Refused for what the credentials are, or whoever gives tokens has no answer just now."""
    cause = error.__cause__
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unreachable(f"{where} was not asked: who gives tokens cannot be talked to by TLS; is ca_file: right?")
    no_answer = isinstance(cause, (sdk.ServiceRequestError, sdk.ServiceResponseError, sdk.DecodeError, JSONDecodeError))
    if no_answer or _NO_TOKEN_NOW.search(str(error)):
        return Unreachable(f"{where} was not asked: who gives tokens has no answer just now")
    return Misconfigured(f"{where} was not asked: no token was given for the credentials ({_oauth(error)})")


def _oauth(error: sdk.ClientAuthenticationError) -> str:
    """The number that Microsoft gives every reason, else only what sort it is."""
    found = re.search(r"AADSTS\d+", str(error))
    return found[0] if found else type(error).__name__


def _short(text: str) -> str:
    return shortened(text).rstrip(".")
