"""Turns a source's settings into calls to an API server, and what can go wrong with a call into `providers.errors`.

The official SDK tells where the cluster is and who asks (certificates, tokens, plug-ins); what is asked and answered is
plain JSON, because its models would take most of the time of every list. What answers mean is `translate`'s business.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urlsplit

import orjson
import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NameResolutionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from providers.errors import (
    Conflict,
    Forbidden,
    Misconfigured,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
    shortened,
)
from providers.kubernetes import Config
from providers.pace import retry_after

Json = dict[str, Any]
T = TypeVar("T")

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 20.0
"""Longest wait for the next bytes of an answer."""
ANSWER_SECONDS = 30.0
"""Longest time until an answer is here in full."""
WATCH_SILENCE_SECONDS = 90.0
"""Longest wait for the next line of a watch: the API server sends a bookmark every minute where nothing happens."""
CREDENTIALS_SECONDS = 30.0
"""Longest time a kubeconfig's plug-in may take."""
RENEW_SECONDS = 30.0
"""Credentials that are refused are read anew, but not more often: another key may have been put into their place."""
CONNECTIONS = 64
"""Kept open: one for each watch, and some to ask by."""
PAGE = 500
MOST_BYTES = 256 * 2**20
"""No answer is longer; a page of 500 large pods has a tenth of it."""

JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


class Gone(Exception):
    """The resource version (or the page) asked for is too old: list again."""


class NotServed(Unreachable):
    """Nothing answers at this path: no such kind of object, or no API server. It tells of no single object."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """Where the cluster is and who asks, as last read."""

    configuration: Any
    pool: urllib3.PoolManager
    plugin: bool
    """Its credentials come from a program that is run for them."""
    read_at: float


class Client:
    """One cluster, as a document describes it. Nothing is read or asked before the first question."""

    def __init__(
        self,
        config: Config,
        *,
        may_reach: Callable[[str], bool] = lambda _host: True,
        allow_exec: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._may_reach = may_reach
        self._allow_exec = allow_exec
        self._monotonic = monotonic
        self._session: Session | None = None
        self._lock = threading.Lock()
        """Held while credentials are read: the SDK's own renewal is not made for several threads."""
        self._plugin: threading.Thread | None = None
        """What runs a program for them, or last did."""
        if config.in_cluster:
            self.name = "the cluster this runs in"
        else:
            context = f"context {config.context!r}" if config.context else "the current context"
            self.name = f"the cluster of {context} of {self._kubeconfig()}"

    # Questions

    def get(self, path: str, *, query: Mapping[str, str | int] | None = None, accept: str = JSON) -> Json:
        return self._asked("GET", path, query=query, accept=accept)

    def pages(
        self, path: str, *, query: Mapping[str, str | int] | None = None, accept: str = JSON, limit: int = PAGE
    ) -> Iterator[Json]:
        """A list, page by page. Raises Gone when it took so long that the next page is no longer known."""
        asked: dict[str, str | int] = {**(query or {}), "limit": limit}
        while True:
            page = self.get(path, query=asked, accept=accept)
            page["items"] = page.get("items") or []  # null, where a list of metadata is empty
            yield page
            following = (page.get("metadata") or {}).get("continue")
            if not following:
                return
            asked["continue"] = following

    def post(self, path: str, body: Json, *, query: Mapping[str, str | int] | None = None) -> Json:
        return self._asked("POST", path, query=query, body=body)

    def put(self, path: str, body: Json, *, query: Mapping[str, str | int] | None = None) -> Json:
        return self._asked("PUT", path, query=query, body=body)

    def patch(
        self, path: str, body: Any, *, content_type: str = MERGE_PATCH, query: Mapping[str, str | int] | None = None
    ) -> Json:
        return self._asked("PATCH", path, query=query, body=body, content_type=content_type)

    def delete(self, path: str, body: Json | None = None, *, query: Mapping[str, str | int] | None = None) -> Json:
        return self._asked("DELETE", path, query=query, body=body)

    def watch(self, path: str, *, query: Mapping[str, str | int], accept: str = JSON) -> Stream:
        """The events of a list from its resource version on. Raises Gone when that is too old."""
        response = self._sent(
            "GET", path, {**query, "watch": "true"}, accept=accept, silence=WATCH_SILENCE_SECONDS, once=True
        )
        if response.status != 200:
            body = self._read(response)
            raise refusal(self.name, "GET", path, response.status, response.headers, body)
        return Stream(response, self.name)

    def close(self) -> None:
        """Ends the connections nobody uses; watches are closed by those who opened them."""
        session = self._session
        if session is not None:
            session.pool.clear()

    # One call

    def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int] | None,
        accept: str = JSON,
        body: Any = None,
        content_type: str = JSON,
    ) -> Json:
        content = None if body is None else orjson.dumps(body)
        response = self._sent(method, path, query or {}, accept=accept, content=content, content_type=content_type)
        told = self._read(response)
        if not 200 <= response.status < 300:
            raise refusal(self.name, method, path, response.status, response.headers, told)
        try:
            answer = _objects_of(told)
        except orjson.JSONDecodeError as error:
            raise Unreachable(
                f"{self.name} gave an answer that cannot be read: it is no JSON, or breaks off"
            ) from error
        if not isinstance(answer, dict):
            raise Misconfigured(f"{self.name} does not answer like a Kubernetes API server")
        return answer

    def _sent(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        *,
        accept: str,
        content: bytes | None = None,
        content_type: str = JSON,
        silence: float | None = None,
        once: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """The beginning of an answer. Asks again with new credentials where these are refused, and where a connection
        that was kept open turns out to be closed; a change is never sent twice on that account."""
        headers = {"Accept": accept, "User-Agent": "curfew"}
        if content is not None:
            headers["Content-Type"] = content_type
        attempts = 1 if once or method != "GET" else 2
        while True:
            session = self._ready()
            try:
                response = session.pool.request(
                    method,
                    _url(session, path, query),
                    body=content,
                    headers=headers | self._login(session),
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence or SILENCE_SECONDS),
                    preload_content=False,
                    retries=False,
                    redirect=False,  # the address was allowed, where it leads was not
                )
            except (HTTPError, OSError) as error:
                if isinstance(error, SSLError) and self._renewed(session):
                    continue  # who vouches for the server may have changed too, and nothing was sent
                attempts -= 1
                if attempts and isinstance(error, ProtocolError):
                    continue
                raise _no_answer(self.name, error) from error
            if response.status != 401 or not self._renewed(session):
                return response
            response.close()

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        until = self._monotonic() + ANSWER_SECONDS
        body = bytearray()
        whole = False
        try:
            for chunk in response.stream(2**18):
                body += chunk
                if len(body) > MOST_BYTES:
                    raise Unreachable(f"{self.name} gave an answer of more than {MOST_BYTES // 2**20} MiB")
                if self._monotonic() > until:
                    raise Unreachable(f"{self.name} gave no answer in full within {ANSWER_SECONDS:g} s")
            whole = True
        except (HTTPError, OSError) as error:
            raise _no_answer(self.name, error) from error
        finally:
            if whole:
                response.release_conn()
            else:
                response.close()
        return bytes(body)

    # Where the cluster is, and who asks

    def _ready(self) -> Session:
        with self._lock:
            if self._session is None:
                self._session = self._loaded()
            return self._session

    def _renewed(self, refused: Session) -> bool:
        """Whether there is something else to ask with than what was refused."""
        with self._lock:
            if self._session is refused:
                if self._monotonic() - refused.read_at < RENEW_SECONDS:
                    return False
                self._session = None
            return True

    def _login(self, session: Session) -> dict[str, str]:
        with self._lock:
            read = partial(session.configuration.get_api_key_with_prefix, "BearerToken", alias="authorization")
            try:
                key: str | None = self._in_time(read) if session.plugin else read()
            except (ConfigException, OSError, ValueError) as error:
                raise Misconfigured(f"{self.name}: the token cannot be read ({type(error).__name__})") from error
        said = (key or "").strip()  # `kubectl create token > file` ends with a newline
        if not said.isascii() or not said.isprintable():
            raise Misconfigured(f"{self.name}: the token holds characters that no token has")
        return {"Authorization": said} if said else {}

    def _loaded(self) -> Session:
        if self._config.in_cluster:
            configuration, plugin = self._of_this_pod(), False
        else:
            configuration, plugin = self._of_kubeconfig()
        configuration.connection_pool_maxsize = CONNECTIONS
        try:
            pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        except (HTTPError, OSError, ValueError) as error:
            raise Misconfigured(f"{self.name}: its certificates or its proxy cannot be used") from error
        return Session(configuration=configuration, pool=pool, plugin=plugin, read_at=self._monotonic())

    def _of_this_pod(self) -> Any:
        configuration: Any = Configuration()
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            raise Misconfigured(f"in_cluster: this does not run in a pod with a service account: {error}") from error
        return configuration

    def _kubeconfig(self) -> str:
        return self._config.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"

    def _of_kubeconfig(self) -> tuple[Any, bool]:
        """The SDK's configuration, and whether a program was run for it. What the SDK complains of may quote tokens."""
        path = self._kubeconfig()
        unreadable = f"{path} is no kubeconfig that can be read"
        try:
            merged: Any = KubeConfigMerger(path).config  # type: ignore[no-untyped-call]
            if merged is None:
                raise Misconfigured(f"there is no kubeconfig at {path}")
            contexts = [entry["name"] for entry in merged["contexts"].value]
            context = self._config.context or merged.value.get("current-context") or None
            if context is None:
                raise Misconfigured(f"{path} has no current context; name one by context: {_listed(contexts)}")
            if context not in contexts:
                raise Misconfigured(f"there is no context {context!r} in {path}; it has {_listed(contexts)}")
            loader: Any = KubeConfigLoader(  # type: ignore[no-untyped-call]
                merged,
                active_context=context,
                config_base_path=None,  # files that it names are beside it, as for kubectl
            )
            names = loader.current_context["context"]
            cluster = merged["clusters"].get_with_name(names["cluster"])["cluster"].value
            found = merged["users"].get_with_name(names.get("user"), safe=True)
            user = found.value.get("user") or {} if found is not None else {}
            where = f"context {context!r} of {path}"
            self._allowed_address(where, cluster)
            plugin = self._allowed_login(where, user)
            configuration: Any = Configuration()
            load = partial(loader.load_and_set, configuration)
            _ = self._in_time(load) if plugin else load()
        except yaml.YAMLError:
            raise Misconfigured(f"{unreadable}: it is no YAML") from None
        except OSError as error:
            raise Misconfigured(f"{unreadable}: {error.strerror or type(error).__name__}") from None
        except (ConfigException, LookupError, TypeError, AttributeError, ValueError):
            of_context = f" for context {self._config.context!r}" if self._config.context else ""
            raise Misconfigured(f"{unreadable}{of_context}: a cluster, a user or a file it names is missing") from None
        if plugin and "BearerToken" not in configuration.api_key and not configuration.cert_file:
            raise Misconfigured(f"{where}: its exec plug-in gave no credentials; run kubectl with it to see why")
        return configuration, plugin

    def _allowed_address(self, where: str, cluster: Mapping[str, Any]) -> None:
        for url in filter(None, (cluster["server"], cluster.get("proxy-url"))):
            host = urlsplit(url).hostname
            if not host:
                raise Misconfigured(f"{where}: its server is no address")
            if not self._may_reach(host):
                raise Misconfigured(
                    f"{where}: {host} is on this machine or in a private network; add it to CURFEW_ALLOW_ENDPOINTS"
                )

    def _allowed_login(self, where: str, user: Mapping[str, Any]) -> bool:
        """Whether a program has to be run for it; raises where it may not."""
        if "auth-provider" in user:
            raise Misconfigured(f"{where}: its auth-provider is of the past; use a token, a certificate or exec")
        plugin = "exec" in user and not (user.get("token") or user.get("tokenFile"))
        if plugin and not self._allow_exec:
            raise Misconfigured(f"{where}: its exec plug-in is a program, which runs only with CURFEW_ALLOW_EXEC=1")
        return plugin

    def _in_time(self, act: Callable[[], T]) -> T:
        """What runs a program is not waited for for ever, as the SDK would, nor started again while it hangs."""
        no_answer = f"{self.name}: its exec plug-in gave no credentials within {CREDENTIALS_SECONDS:g} s"
        if self._plugin is not None and self._plugin.is_alive():
            raise Unreachable(f"{no_answer}, and has not ended yet")
        told: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

        def outcome() -> None:
            try:
                told.put((act(), None))
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                told.put((None, error))

        self._plugin = threading.Thread(target=outcome, name="kubernetes-credentials", daemon=True)
        self._plugin.start()
        try:
            answer, error = told.get(timeout=CREDENTIALS_SECONDS)
        except Empty:
            raise Unreachable(no_answer) from None
        self._plugin = None
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]


class Stream:
    """The events of one watch, in the order they happened, until the server ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse, name: str) -> None:
        self._response = response
        self._name = name

    def __iter__(self) -> Iterator[Json]:
        """Raises Unreachable when the connection breaks off. What came before it is whole."""
        rest = b""
        try:
            for chunk in self._response.stream(2**18):
                *lines, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
                for line in lines:
                    if line:
                        yield orjson.loads(line)
        except (HTTPError, OSError, ValueError) as error:  # ValueError: closed here meanwhile, or no JSON
            raise _no_answer(self._name, error) from error
        finally:
            self._response.close()

    def close(self) -> None:
        """Ends it, from whichever thread; never waits."""
        with suppress(OSError, ValueError, RuntimeError):  # it has ended already
            self._response.shutdown()


# What the API server says no with, in our words.


def refusal(
    name: str, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> ProviderError | Gone:
    told = _status(body)
    words = shortened(str(told.get("message") or ""))
    reason = f": {words}" if words else ""
    details = told.get("details") or {}
    if status == 410:
        return Gone(words)
    if status == 404:
        # Only what names the object speaks of it; a path that is not served, or a stranger's page, does not.
        if details.get("name"):
            return NotFound(f"{name} has none such{reason}")
        return NotServed(f"{name} does not serve {path}")
    if status in (401, 403):
        if status == 401:
            return Forbidden(f"{name} does not know who asks{reason}")
        return Forbidden(f"{name} does not let us{reason}", permission=_permission(words))
    if status == 429:
        if any(cause.get("reason") == "DisruptionBudget" for cause in details.get("causes") or ()):
            return Protected(f"a disruption budget is against it{reason}")
        return Throttled(f"{name} is asked too often{reason}", retry_after=_retry_after(headers, details))
    if status == 409:
        return Conflict(f"{name} has something else there by now{reason}")
    if 300 <= status < 400:
        return Misconfigured(f"{name} sends us elsewhere, and we do not follow; write the final address")
    if status == 408 or status >= 500:
        return Unreachable(f"{name} failed with status {status}{reason}", retry_after=_retry_after(headers, details))
    return Unsupported(f"{name} refuses {method} {unquote(path)} with status {status}{reason}")


def _status(body: bytes) -> Json:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) and told.get("kind") == "Status" else {}


_CANNOT = re.compile(r'cannot (\w+) resource "([^"/]+)(/[^"]+)?" in API group "([^"]*)"')


def _permission(words: str) -> str | None:
    """`patch deployments.apps/scale`, as the verb and the resource of a rule that would allow it."""
    found = _CANNOT.search(words)
    if found is None:
        return None
    verb, plural, subresource, group = found.groups()
    return f"{verb} {plural}{'.' + group if group else ''}{subresource or ''}"


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    return retry_after(headers.get("Retry-After") or str(details.get("retryAfterSeconds") or ""))


def _no_answer(name: str, error: Exception) -> Unreachable:
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError, TimeoutError)):
        return Unreachable(f"{name} gave no answer in time")
    if isinstance(error, SSLError):
        return Unreachable(f"{name} cannot be talked to by TLS: {shortened(str(error))}")
    if isinstance(error, NameResolutionError):
        return Unreachable(f"{name} cannot be found: its host name has no address")
    if isinstance(error, (ProtocolError, IncompleteRead)):
        return Unreachable(f"{name} hung up")
    return Unreachable(f"{name} gave no answer: {type(error).__name__}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _objects_of(page: bytes) -> Any:
    """With the cyclic garbage collector at rest: it would walk through all that is being made, again and again, and
    finds nothing, as JSON has no cycles. The parser lets no other thread run meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(page)
    finally:
        if collects:
            gc.enable()


def _url(session: Session, path: str, query: Mapping[str, str | int]) -> str:
    return f"{session.configuration.host}{path}{'?' + urlencode(query) if query else ''}"
