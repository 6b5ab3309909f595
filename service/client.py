"""Speaks to a running Curfew over HTTP for the command line, and turns what goes wrong into one clear sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8080"
LARGEST_PAGE = 500


class Failure(Exception):
    """What was asked for did not happen; the text says why, one line for each reason."""


class Unusable(Failure):
    """It cannot be tried at all: a setting or what it names is wrong."""


class NotThere(Failure):
    """There is no such thing, or none that this token may see."""


class Client:
    """One installation, asked with one token."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url.rstrip("/")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Unusable(
                "CURFEW_TOKEN has a character that no token has, like a line break or an accent; copy it again"
            )
        self._token = token
        self._kept: httpx.Client | None = None

    def get(self, path: str, **params: Any) -> Any:
        return self.send("GET", path, params=params)

    def send(self, method: str, path: str, *, params: dict[str, Any] | None = None, json: Any = None) -> Any:
        """The parsed answer; None when there is no content."""
        import httpx

        given = {key: value for key, value in (params or {}).items() if value is not None}
        with self._reaching(), httpx.Client(headers=self._headers, timeout=60) as http:
            response = http.request(method, f"{self._url}/api/v1{path}", params=given, json=json)
        if response.is_success:
            return response.json() if response.content else None
        raise self._failure(response)

    def unless(self, path: str, etag: str | None) -> tuple[str, bytes] | None:
        """The answer's ETag and bytes; None where it still has the ETag given. Keeps its connection until `close`."""
        import httpx

        if self._kept is None:  # who asks this asks again and again
            self._kept = httpx.Client(headers=self._headers, timeout=30)
        with self._reaching():
            known = {"If-None-Match": etag} if etag else {}
            response = self._kept.get(f"{self._url}/api/v1{path}", headers=known)
        if response.status_code == 304:
            return None
        if not response.is_success:
            raise self._failure(response)
        return response.headers.get("ETag", ""), response.content

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def stream(self, path: str, **params: Any) -> Iterator[str]:
        """The text of a long answer as it comes. One that breaks off is a failure, not an end."""
        import httpx

        given = {key: value for key, value in params.items() if value is not None}
        url = f"{self._url}/api/v1{path}"
        with (
            self._reaching(),
            httpx.Client(headers=self._headers, timeout=60) as http,
            http.stream("GET", url, params=given) as response,
        ):
            if not response.is_success:
                response.read()
                raise self._failure(response)
            try:
                yield from response.iter_text()
            except httpx.RemoteProtocolError:
                raise Failure(f"Curfew at {self._url} broke off its answer; what has come so far is not all") from None

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """What goes wrong on the way, in a sentence."""
        import httpx

        try:
            yield
        except httpx.InvalidURL as error:
            raise Failure(f"CURFEW_URL is no address: {error}") from None
        except httpx.UnsupportedProtocol:
            raise Failure(f"CURFEW_URL must start with http:// or https://, it is {self._url!r}") from None
        except httpx.TimeoutException:
            raise Failure(f"Curfew at {self._url} did not answer in time") from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Failure(
                f"cannot reach Curfew at {self._url} ({reason}); is it running, is CURFEW_URL right?"
            ) from None

    def pages(self, path: str, *, limit: int, **params: Any) -> Iterator[Any]:
        """Items of a list, page by page; all of them when `limit` is 0."""
        left = limit or None
        cursor = None
        while True:
            size = LARGEST_PAGE if left is None else min(left, LARGEST_PAGE)
            page = self.get(path, limit=size, cursor=cursor, **params)
            yield from page["items"]
            cursor = page["next"]
            if left is not None:
                left -= len(page["items"])
            if cursor is None or left == 0:
                return

    def _failure(self, response: httpx.Response) -> Failure:
        try:
            problem = response.json()
            detail = str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return Failure(f"{self._url} answered {response.status_code}, and not as Curfew does; is CURFEW_URL right?")
        if response.status_code == 401:
            advice = (
                "it may be expired or revoked" if self._token else "set CURFEW_TOKEN; `curfew token create` makes one"
            )
            return Failure(f"{detail} ({advice})")
        if response.status_code == 404:
            return NotThere(detail)
        errors = [entry["message"] for entry in problem.get("errors", ()) if "message" in entry]
        return Failure("\n".join(errors) or detail)
