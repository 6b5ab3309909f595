"""Turns a source's settings into calls to Google's REST APIs, and what can go wrong with one into `providers.errors`.

google-auth tells who asks (keys, tokens, impersonation); what is asked and answered is plain JSON. The official
clients' models take ten times the time of every list, and seconds and 160 MB to import; the tests hold what we ask and
read against them. What answers mean is `translate`'s business.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import google.auth
import orjson
import requests
from google.auth import exceptions as sdk
from google.auth import impersonated_credentials
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport import Response
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from providers.answers import whole
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
from providers.gcp import Config
from providers.pace import Pace, answered_in_the_end, retry_after

Json = dict[str, Any]
Query = Mapping[str, str | int | Sequence[str]]

SERVICES = {
    "cloudbilling": "Cloud Billing",
    "cloudresourcemanager": "Resource Manager",
    "compute": "Compute Engine",
    "container": "Kubernetes Engine",
    "monitoring": "Cloud Monitoring",
    "notebooks": "Vertex AI Workbench",
    "tpu": "Cloud TPU",
}
"""What is asked, by the name of its host, and what people call it."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""Longest wait for the next bytes of an answer that is read."""
PROMPT_SILENCE_SECONDS = 12.0
"""The same for acts and prices."""
ANSWER_SECONDS = 45.0
"""Longest time from an answer's first byte to its last; of one to acts and prices `PROMPT_SILENCE_SECONDS`."""
RENEWAL_SECONDS = 8.0
"""Longest wait for a new token."""
ATTEMPTS, PROMPT_ATTEMPTS = 5, 2
PROMPT_LATEST_SECONDS = 9.0
"""A second attempt at an act begins at most so long after the first: it too then ends within 50 s however slowly it is
answered, which leaves the calls before it the rest of `Capabilities.act_timeout_seconds`."""
CONNECTIONS = 64
MOST_PAGES = 10_000
"""No list has more; who goes on for ever would be listened to for ever, and all of it kept."""


class NotEnabled(Forbidden):
    """The API is switched off, in the project that was asked or in the one that the credentials belong to."""

    consumer: str | None = None
    """Which, by its number or its id, if Google says."""


class Client:
    """All APIs of Google Cloud, with the source's credentials. Nothing is read or asked before the first question."""

    def __init__(
        self,
        config: Config,
        *,
        may_reach: Callable[[str], bool] = lambda _host: True,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._may_reach = may_reach
        self._sleep = sleep
        self._monotonic = monotonic
        self._session: AuthorizedSession | None = None
        self._renewing = Renewing(elsewhere=config.endpoint is not None)
        self._lock = Lock()
        """Held while credentials are read."""
        self._paces: dict[str, Pace] = {}

    # Questions

    def get(self, service: str, path: str, *, query: Query | None = None, prompt: bool = False) -> Json:
        return self._asked("GET", service, path, query=query, prompt=prompt)

    def pages(
        self, service: str, path: str, *, query: Query | None = None, prompt: bool = False, method: str = "GET"
    ) -> Iterator[Json]:
        """A list, page by page. Those before an error are valid, but not all."""
        asked, seen = dict(query or {}), set[str]()
        while True:
            page = self._asked(method, service, path, query=asked, prompt=prompt)
            yield page
            following = page.get("nextPageToken")
            if not following:
                return
            if following in seen or len(seen) >= MOST_PAGES:
                raise Unreachable(
                    f"{SERVICES[service]}, {method} {path} was answered with the same page again and again"
                )
            seen.add(following)
            asked["pageToken"] = following

    # Acts. Each is asked once more only where its `requestId` keeps it from being done twice.

    def post(
        self, service: str, path: str, body: Json | None = None, *, query: Query | None = None, prompt: bool = True
    ) -> Json:
        return self._asked("POST", service, path, query=query, body=body, prompt=prompt)

    def put(
        self, service: str, path: str, body: Json | None = None, *, query: Query | None = None, prompt: bool = True
    ) -> Json:
        return self._asked("PUT", service, path, query=query, body=body, prompt=prompt)

    def patch(self, service: str, path: str, body: Json, *, query: Query | None = None, prompt: bool = True) -> Json:
        return self._asked("PATCH", service, path, query=query, body=body, prompt=prompt)

    def delete(self, service: str, path: str, *, query: Query | None = None, prompt: bool = True) -> Json:
        return self._asked("DELETE", service, path, query=query, prompt=prompt)

    def close(self) -> None:
        """Ends the connections nobody uses."""
        if self._session is not None:
            self._session.close()
        self._renewing.close()

    # One call

    def _asked(
        self,
        method: str,
        service: str,
        path: str,
        *,
        query: Query | None,
        prompt: bool,
        body: Json | None = None,
    ) -> Json:
        attempts = PROMPT_ATTEMPTS if prompt else ATTEMPTS
        if method != "GET" and "requestId" not in (query or {}):
            attempts = 1
        return answered_in_the_end(
            partial(self._answer, method, service, path, query=query, prompt=prompt, body=body),
            pace=self._pace(path),
            attempts=attempts,
            prompt=prompt,
            sleep=self._sleep,
            monotonic=self._monotonic,
            latest_seconds=PROMPT_LATEST_SECONDS if prompt else math.inf,
            hopeless=(NotThere,),
        )

    def _answer(
        self, method: str, service: str, path: str, *, query: Query | None, prompt: bool, body: Json | None
    ) -> Json:
        where = f"{SERVICES[service]}, {method} {path}"
        silence = PROMPT_SILENCE_SECONDS if prompt else SILENCE_SECONDS
        try:
            with ExitStack() as answers:  # google-auth asks again with a new token, and leaves the first answer open
                response = self._ready().request(
                    method,
                    self._address(service) + path,
                    params=query,
                    data=None if body is None else orjson.dumps(body),
                    headers={"Content-Type": "application/json", "User-Agent": "gpu-curfew"},
                    timeout=(CONNECT_SECONDS, silence),
                    max_allowed_time=CONNECT_SECONDS + silence + RENEWAL_SECONDS,
                    allow_redirects=False,  # the address was allowed, where it leads was not
                    stream=True,
                    hooks={"response": partial(_close_with, answers)},
                )
                told = whole(
                    response.iter_content(2**18),
                    where,
                    seconds=PROMPT_SILENCE_SECONDS if prompt else ANSWER_SECONDS,
                    monotonic=self._monotonic,
                )
        except (requests.RequestException, sdk.GoogleAuthError) as error:
            raise _no_answer(where, error) from error
        if not 200 <= response.status_code < 300:
            raise refusal(where, path, response.status_code, response.headers, told)
        try:
            answer = orjson.loads(told)
        except orjson.JSONDecodeError as error:
            raise Unreachable(f"{where} was answered with what cannot be read: it is no JSON, or breaks off") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{where} was not answered as Google's APIs do")
        return answer

    def _address(self, service: str) -> str:
        if self._config.endpoint is None:
            return f"https://{service}.googleapis.com"
        return self._config.endpoint.rstrip("/").replace("{service}", service)

    def _pace(self, path: str) -> Pace:
        """Google counts by project, whoever asks."""
        found = re.search(r"/projects/([^/]+)", path)
        with self._lock:
            return self._paces.setdefault(found[1] if found else "", Pace())

    # Who asks

    def _ready(self) -> AuthorizedSession:
        with self._lock:
            if self._session is None:
                self._session = _session(self._credentials(), self._renewing)
            return self._session

    def _credentials(self) -> Credentials:
        credentials = self._own_credentials()
        if self._config.impersonate is None:
            return credentials
        target = self._config.impersonate
        impersonated: Credentials = impersonated_credentials.Credentials(
            source_credentials=credentials,
            target_principal=target,
            target_scopes=[SCOPE],
            iam_endpoint_override=self._impersonation_address(target),
        )
        return impersonated

    def _own_credentials(self) -> Credentials:
        said = self._config.credentials
        if said == "anonymous":
            anonymous: Credentials = AnonymousCredentials()
            return anonymous
        if said == "default":
            try:
                found, _project = google.auth.default(scopes=[SCOPE], request=self._renewing)
            except sdk.GoogleAuthError as error:
                raise Misconfigured(f"Google's credentials were not found: {_short(str(error))}") from error
            except (OSError, ValueError) as error:  # what they complain of may quote a key
                raise Misconfigured("Google's default credentials cannot be read") from error
            credentials: Credentials = found
            return credentials
        return self._key(said)

    def _key(self, said: str) -> Credentials:
        """A service account's key: the file, or the text itself. What the SDK complains of may quote it."""
        inline = said.lstrip().startswith("{")
        what = "credentials: the key" if inline else f"credentials: {said}"
        try:
            if inline:
                key = orjson.loads(said)
            else:
                with open(said, "rb") as file:
                    key = orjson.loads(file.read())
        except OSError as error:
            raise Misconfigured(f"{what} cannot be read: {error.strerror or type(error).__name__}") from None
        except orjson.JSONDecodeError:
            raise Misconfigured(f"{what} is no JSON; it must be a service account's key") from None
        if not isinstance(key, dict) or key.get("type") != "service_account":
            raise Misconfigured(f"{what} is no service account's key; leave others to credentials: default")
        try:
            credentials: Credentials = service_account.Credentials.from_service_account_info(key, scopes=[SCOPE])
        except (sdk.GoogleAuthError, ValueError, TypeError, KeyError):
            raise Misconfigured(f"{what} is not complete, or damaged") from None
        host = urlsplit(str(key.get("token_uri", ""))).hostname
        if not host or not self._may_reach(host):
            raise Misconfigured(
                f"{what} gets its tokens from {host}, on this machine or in a private network; "
                "add it to CURFEW_ALLOW_ENDPOINTS"
            )
        return credentials

    def _impersonation_address(self, target: str) -> str | None:
        if self._config.endpoint is None:
            return None
        return f"{self._address('iamcredentials')}/v1/projects/-/serviceAccounts/{target}:generateAccessToken"


class NotThere(Unreachable):
    """What was asked is not served at this address, or not its project: it tells of no single resource."""


def _session(credentials: Credentials, renewing: Request) -> AuthorizedSession:
    session = AuthorizedSession(credentials, auth_request=renewing)
    adapter = HTTPAdapter(pool_connections=16, pool_maxsize=CONNECTIONS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _close_with(answers: ExitStack, response: requests.Response, **_rest: object) -> None:
    answers.callback(response.close)


class Renewing(Request):
    """Asks for tokens: never for long, and without following redirects, which could carry a key elsewhere."""

    def __init__(self, *, elsewhere: bool) -> None:
        session = requests.Session()
        session.max_redirects = 0
        super().__init__(session)
        self._elsewhere = elsewhere

    def close(self) -> None:
        self.session.close()

    def __call__(self, url: str, *args: Any, **kwargs: Any) -> Response:
        if self._elsewhere and url.endswith("/allowedLocations"):
            # google-auth asks Google's public address by itself which regions a token is for
            raise sdk.TransportError("not asked: this source has an endpoint of its own")
        kwargs["timeout"] = RENEWAL_SECONDS
        answer: Response = super().__call__(url, *args, **kwargs)  # type: ignore[no-untyped-call]
        if kwargs.get("method") == "POST" and answer.status == 200 and not _object(answer.data):
            raise sdk.TransportError("what was answered is no token")  # google-auth takes it for one, and stumbles
        return answer


# What Google says no with, in our words.

_THROTTLED = {
    "RATE_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "dailyLimitExceeded",
    "quotaExceeded",
    "rateLimitExceeded",
    "userRateLimitExceeded",
}
_NOT_ENABLED = {"SERVICE_DISABLED", "accessNotConfigured"}
_NO_CAPACITY = {
    "QUOTA_EXCEEDED",
    "RESOURCE_POOL_EXHAUSTED",
    "STOCKOUT",
    "ZONE_RESOURCE_POOL_EXHAUSTED",
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "stockout",
}
_CHANGED = {
    "ABORTED",
    "CLUSTER_ALREADY_HAS_OPERATION",
    "CONDITION_NOT_MET",
    "FAILED_PRECONDITION",
    "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
    "RESOURCE_NOT_READY",
    "conditionNotMet",
    "resourceInUseByAnotherResource",
    "resourceNotReady",
}
_PROTECTED = re.compile(r"protected against deletion|deletion.?protection", re.IGNORECASE)
_QUOTA = re.compile(r"Quota '[\w./-]+' exceeded")
"""Of resources: more machines than may be. Of calls it is said in other words."""
_NAMED_PERMISSION = re.compile(
    r"[Pp]ermission ['\"]([\w.]+)['\"]|[Rr]equired ['\"]([\w.]+)['\"] permission|[Rr]equires? ['\"]?([\w.]+)"
)
_NAMED_RESOURCE = re.compile(r"projects/[\w.:~%-]+(?:/[\w.:~%-]+)*")
_CODES = {
    5: "NOT_FOUND",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_POOL_EXHAUSTED",  # of calls it is never said so late
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    13: "INTERNAL",
    14: "INTERNAL",
}
"""How operations of the newer APIs say why they failed."""
_OF_A_RESOURCE = 6
"""`projects/p/zones/z/instances/n` has so many segments; fewer are a project or a place."""


def refusal(where: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """Google answered no: which no, with the missing permission named."""
    told = _error(body)
    try:
        return _strange(where, status, headers) if told is None else _refusal(where, path, status, headers, told)
    except (TypeError, ValueError, AttributeError, KeyError):  # it is not Google's form
        return _strange(where, status, headers)


def _refusal(where: str, path: str, status: int, headers: Mapping[str, str], told: Json) -> ProviderError:
    words, reasons = str(told.get("message") or ""), frozenset(_reasons(told))
    retry_after = _retry_after(headers, told)
    if status == 403 and _QUOTA.search(words):
        return NoCapacity(f"{where}: {_short(words)}")
    if status == 429 or (status == 403 and reasons & _THROTTLED):
        return Throttled(f"{where} was asked too often: {_short(words)}", retry_after=retry_after)
    if status == 401:
        return Forbidden(f"{where}: Google does not know who asks: {_short(words)}")
    if status == 403:
        return _forbidden(where, words, reasons, told)
    if status == 404:
        return _not_found(where, path, words)
    return of_reasons(f"{where}: {_short(words) or 'no reason given'}", words, reasons, status, retry_after=retry_after)


def failure(where: str, operation: Json) -> ProviderError | None:
    """Why an operation that was accepted failed in the end; None while it has not."""
    error = operation.get("error") or {}
    errors = error.get("errors") or []
    if not errors and error.get("message"):  # of the APIs that came after Compute Engine's
        errors = [{"code": _CODES.get(int(error.get("code") or 0), ""), "message": error["message"]}]
    if not errors:
        return None
    words = "; ".join(str(one.get("message") or one.get("code")) for one in errors)
    codes = frozenset(str(one.get("code")) for one in errors)
    status = int(operation.get("httpErrorStatusCode") or 0)
    if status == 404 or codes & {"RESOURCE_NOT_FOUND", "NOT_FOUND"}:
        gone = _not_found(where, str(operation.get("targetLink") or where), words)
        return gone if isinstance(gone, NotFound) else Unsupported(f"{where}: {_short(words)}")
    if status == 403 or codes & {"PERMISSIONS_ERROR", "PERMISSION_DENIED", "FORBIDDEN"}:
        return Forbidden(f"{where}: {_short(words)}", permission=_permission(words))
    return of_reasons(f"{where}: {_short(words)}", words, codes, status)


def of_reasons(
    sentence: str, words: str, reasons: frozenset[str], status: int, *, retry_after: float | None = None
) -> ProviderError:
    if reasons & _NO_CAPACITY:
        return NoCapacity(sentence)
    if _PROTECTED.search(words):
        return Protected(sentence)
    if status in (409, 412) or reasons & _CHANGED:
        return Conflict(sentence)
    if status == 408 or status >= 500 or reasons & {"INTERNAL_ERROR", "INTERNAL"}:
        return Unreachable(sentence, retry_after=retry_after)
    return Unsupported(sentence)


def _strange(where: str, status: int, headers: Mapping[str, str]) -> ProviderError:
    """It is not one of Google's APIs that speaks, but a proxy before it, or somebody else."""
    if 300 <= status < 400:
        return Misconfigured(f"{where} is sent elsewhere, and we do not follow; write the final address as endpoint:")
    if status == 429:
        return Throttled(f"{where} was asked too often", retry_after=_retry_after(headers, {}))
    if status in (401, 403, 404):
        return NotThere(f"{where} was answered with status {status}, but not as Google's APIs do")
    return Unreachable(f"{where} failed with status {status}", retry_after=_retry_after(headers, {}))


def _forbidden(where: str, words: str, reasons: frozenset[str], told: Json) -> Forbidden:
    if reasons & _NOT_ENABLED:
        return _not_enabled(where, told)
    permission = _permission(words)
    for detail in _details(told):
        permission = permission or (detail.get("metadata") or {}).get("permission")
    needs = f"; it needs {permission}" if permission else ""
    return Forbidden(f"{where} is refused: {_short(words)}{needs}", permission=permission)


def _not_enabled(where: str, told: Json) -> NotEnabled:
    consumers = ((detail.get("metadata") or {}).get("consumer") for detail in _details(told))
    consumer = next((str(named).removeprefix("projects/") for named in consumers if named), None)
    error = NotEnabled(f"{where}: the API is not enabled in project {consumer or 'of an unknown name'}")
    error.consumer = consumer
    return error


def _not_found(where: str, path: str, words: str) -> ProviderError:
    """Only what names the resource speaks of it; a missing project, place or API does not."""
    named = _NAMED_RESOURCE.search(words)
    whole = named is not None and len(named[0].rstrip(".").split("/")) >= _OF_A_RESOURCE
    if whole and named is not None and named[0].rstrip(".").rsplit("/", 1)[-1] in re.split("[/:]", path):
        return NotFound(f"{where}: {_short(words)}")
    return NotThere(f"{where}: {_short(words) or 'nothing answers there'}")


def _error(body: bytes) -> Json | None:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(told, list) and told:  # as streams answer
        told = told[0]
    error = told.get("error") if isinstance(told, dict) else None
    return error if isinstance(error, dict) else None


def _object(text: bytes) -> Json | None:
    try:
        told = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None


def _details(told: Json) -> list[Json]:
    return [detail for detail in told.get("details") or () if isinstance(detail, dict)]


def _reasons(told: Json) -> Iterator[str]:
    """Google has said why in three places, in its time."""
    yield str(told.get("status") or "")
    for one in (*(told.get("errors") or ()), *_details(told)):
        if isinstance(one, dict) and one.get("reason"):
            yield str(one["reason"])


def _permission(words: str) -> str | None:
    found = _NAMED_PERMISSION.search(words)
    named = next((group for group in found.groups() if group), None) if found else None
    return named if named and named.count(".") >= 2 else None


def _retry_after(headers: Mapping[str, str], told: Json) -> float | None:
    delays = (str(detail.get("retryDelay") or "").removesuffix("s") for detail in _details(told))
    said = (retry_after(value) for value in (headers.get("Retry-After"), *delays))
    return next((seconds for seconds in said if seconds is not None), None)


def _no_answer(where: str, error: Exception) -> ProviderError:
    """What the transport and the credentials complain of. Their words may hold tokens, so few of them are passed on."""
    if isinstance(error, sdk.RefreshError):
        if error.retryable:
            return Unreachable(f"{where} was not asked: no new token for the credentials was given just now")
        return _refused_credentials(f"{where} was not asked: the credentials are refused", error)
    if isinstance(error, (sdk.TransportError, requests.Timeout)) or isinstance(error.__cause__, requests.Timeout):
        return Unreachable(f"{where} was not answered in time")
    if isinstance(error, sdk.InvalidOperation):  # what credentials that are none complain of
        return Misconfigured(f"{where} wants to know who asks; credentials: anonymous is for stand-ins only")
    if isinstance(error, sdk.GoogleAuthError):
        return Misconfigured(f"{where} was not asked: the credentials cannot be used ({type(error).__name__})")
    if isinstance(error, requests.exceptions.SSLError):
        return Unreachable(f"{where}: the address cannot be talked to by TLS")
    if isinstance(error, requests.ConnectionError):
        return Unreachable(f"{where} gave no answer: no connection, or it was closed")
    return Unreachable(f"{where} gave no answer: {type(error).__name__}")


def _refused_credentials(sentence: str, error: sdk.RefreshError) -> ProviderError:
    """OAuth's own words (`invalid_grant`), or those of the API that lends tokens. Anything else may echo a key."""
    answered = error.args[1] if len(error.args) > 1 else None
    if isinstance(answered, dict) and isinstance(answered.get("error"), str):
        words = " ".join(str(answered[key]) for key in ("error", "error_description") if answered.get(key))
        return Misconfigured(f"{sentence}: {_short(words)}")
    told = _error(answered.encode()) if isinstance(answered, str) else None
    if told is None:
        return Misconfigured(sentence)
    words = str(told.get("message") or "")
    if told.get("code") == 403:
        return Forbidden(f"{sentence}: {_short(words)}", permission=_permission(words))
    if int(told.get("code") or 0) >= 500 or told.get("code") == 429:
        return Unreachable(f"{sentence}: {_short(words)}")
    return Misconfigured(f"{sentence}: {_short(words)}")


def _short(text: str) -> str:
    return shortened(text).rstrip(".")
