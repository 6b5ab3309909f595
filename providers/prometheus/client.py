"""Asks a Prometheus-compatible server one instant query and gives its result, or says in our words why not.

Knows HTTP and the API's envelope; what is asked and what the result means is `telemetry.py`'s.
"""

from __future__ import annotations

import json
import math
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from providers.errors import Forbidden, Misconfigured, ProviderError, Throttled, Unreachable, shortened
from providers.pace import retry_after
from providers.prometheus import Config

QUERY_SECONDS = 20
"""Longest time the server may take to evaluate a query; it gives up itself after it."""
ANSWER_SECONDS = QUERY_SECONDS + 10
"""Longest time until the answer is here in full."""
MOST_BYTES = 64 * 2**20
"""An answer longer than this is not read to its end, but asked for in parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One series of an answer."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[int, float]]
    """The second each was taken in, and its value; none in the answer to an aggregation."""


class TooMuch(Exception):
    """The server, or we, will not handle this much in one question; in parts it may work."""


class Client:
    """One server, as a document describes it. Connections are opened by `session` and closed at its end."""

    def __init__(self, config: Config) -> None:
        self._url = config.url
        self._headers = {"Accept": "application/json", "User-Agent": "curfew"}
        if config.tenant is not None:
            self._headers["X-Scope-OrgID"] = config.tenant
        if config.bearer_token is not None:
            self._headers["Authorization"] = f"Bearer {config.bearer_token.get_secret_value()}"
        self._login = None
        if config.username is not None and config.password is not None:
            self._login = httpx.BasicAuth(config.username, config.password.get_secret_value())
        self._trusted = _trusted(config.ca_file)

    def session(self) -> Session:
        http = httpx.Client(
            headers=self._headers,
            auth=self._login,
            verify=self._trusted,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=5, pool=None),
            follow_redirects=False,  # the address was allowed, where it leads was not
        )
        return Session(http, self._url)


class Session:
    """Some questions in a row, or side by side."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def query(self, promql: str, *, at: float) -> Sequence[Row]:
        """The series an instant query answers with. Raises ProviderError, or TooMuch."""
        fields = {"query": promql, "time": f"{at:.3f}", "timeout": f"{QUERY_SECONDS}s"}
        try:
            status, headers, body = self._post(fields)
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self._url} gave no answer in time") from error
        except (httpx.LocalProtocolError, httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError):
            # the words of these may quote a header
            raise Misconfigured(f"{self._url} cannot be asked: the address or the login is not well-formed") from None
        except httpx.HTTPError as error:
            raise _no_answer(self._url, error) from error
        if status != httpx.codes.OK:
            raise _refusal(self._url, status, headers, body)
        return _result(self._url, headers, body)

    def _post(self, fields: Mapping[str, str]) -> tuple[int, httpx.Headers, bytes]:
        until = time.monotonic() + ANSWER_SECONDS
        body = bytearray()
        with self._http.stream("POST", f"{self._url}/api/v1/query", data=fields) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise TooMuch(f"an answer of more than {MOST_BYTES // 2**20} MiB")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout("the answer trickles")
            return response.status_code, response.headers, bytes(body)


def _trusted(ca_file: str | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"ca_file: {ca_file} cannot be read as certificates: {error}") from error


def _no_answer(url: str, error: httpx.HTTPError) -> ProviderError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Misconfigured(f"{url} shows a certificate nobody here trusts; name its CA in ca_file")
    return Unreachable(f"{url} gave no answer: {shortened(str(error) or type(error).__name__)}")


def _result(url: str, headers: httpx.Headers, body: bytes) -> Sequence[Row]:
    """What a successful answer holds. One that says it is not whole is no answer: what it lacks may be work."""
    not_one = Misconfigured(f"{url} does not answer like a Prometheus; is a path such as /prometheus missing?")
    try:
        answer = json.loads(body)
    except ValueError as error:
        if "json" in headers.get("content-type", ""):
            raise Unreachable(f"{url} gave an answer that cannot be read: it is no JSON, or breaks off") from error
        raise not_one from error
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict) or data.get("resultType") not in ("vector", "matrix"):
        raise not_one
    if answer.get("warnings"):
        raise Unreachable(f"{url} answers in part only: {shortened('; '.join(map(str, answer['warnings'])))}")
    if answer.get("isPartial"):
        raise Unreachable(f"{url} answers in part only: some of its storage gave no answer")
    try:
        return [_row(series) for series in data["result"]]
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Unreachable(f"{url} gave an answer that cannot be read: its series are not in the usual form") from error


def _row(series: Mapping[str, Any]) -> Row:
    return Row(
        labels=dict(series["metric"]),
        samples=[(math.floor(moment), float(value)) for moment, value in series.get("values", ())],
    )


_TOO_MUCH = re.compile(r"too many|too large|too long|limit|exceed|maximum|cannot select more than", re.IGNORECASE)


def _refusal(url: str, status: int, headers: httpx.Headers, body: bytes) -> ProviderError | TooMuch:
    """The server answered no: which no."""
    words = _words(body)
    reason = f": {words}" if words else ""
    if status == 429:
        return Throttled(f"{url} is asked too often{reason}", retry_after=retry_after(headers.get("retry-after")))
    if status in (401, 403):
        which = "wants a login, or another one" if status == 401 else "does not let this login ask"
        return Forbidden(f"{url} {which}{reason}")
    if status == 413 or (status in (400, 422) and _TOO_MUCH.search(words)):
        return TooMuch(words or f"status {status}")
    if status == 422 or status >= 500:
        return Unreachable(f"{url} failed with status {status}{reason}")
    if 300 <= status < 400:
        return Misconfigured(f"{url} sends us elsewhere, and we do not follow; write the final address")
    if status == 404:
        return Misconfigured(f"{url} has no /api/v1/query; is a path such as /prometheus missing?")
    return Misconfigured(f"{url} refuses the question with status {status}{reason}")


def _words(body: bytes) -> str:
    """The reason a refusal gives; a page of HTML is none."""
    try:
        answer = json.loads(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
        return "" if text.startswith("<") else shortened(text)
    return shortened(str(answer.get("error") or answer.get("message") or "")) if isinstance(answer, dict) else ""
