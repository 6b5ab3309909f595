"""Azure on a port of this machine, by TLS: subscriptions with a state of their own, behind the methods Azure documents.

What Compute says and hears is checked against the models of Azure's own SDK. It counts what is asked and fails on
request. What single providers do is in `cloud_compute` and its neighbours; how they say no in `cloud_refusals`.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.providers.azure import cloud_models, cloud_tls
from tests.providers.azure.cloud_accounts import Accounts
from tests.providers.azure.cloud_aks import Aks
from tests.providers.azure.cloud_compute import Compute
from tests.providers.azure.cloud_locks import Locks
from tests.providers.azure.cloud_ml import MachineLearning
from tests.providers.azure.cloud_monitor import Monitor
from tests.providers.azure.cloud_operations import Operation, Operations
from tests.providers.azure.cloud_part import Json, Part, Route, Told
from tests.providers.azure.cloud_prices import Prices
from tests.providers.azure.cloud_refusals import (
    NO_ANSWER,
    Refusal,
    Reply,
    answer,
    disabled,
    forbidden,
    group_not_found,
    invalid,
    missing_version,
    not_registered,
    subscription_not_found,
    throttled,
    wrong_type,
    wrong_version,
)
from tests.providers.azure.cloud_resources import Group, Resources
from tests.providers.azure.cloud_scale_sets import ScaleSets
from tests.providers.azure.cloud_skus import Skus

__all__ = ["NO_ANSWER", "OTHER", "SUBSCRIPTION", "Call", "Cloud", "Refusal", "Reply", "Rule", "Subscription", "answer"]

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
OTHER = "22222222-2222-2222-2222-222222222222"
OPERATION = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/providers/(?P<service>[^/]+)/locations/[^/]+/"
    r"(?P<kind>operations|computeOperationsStatus)/(?P<id>[^/]+)",
    re.IGNORECASE,
)
VERSIONS = {
    "Microsoft.Authorization": ("2016-09-01", "2020-05-01"),
    "Microsoft.Compute": ("2026-04-01",),
    "Microsoft.Compute/skus": ("2021-07-01",),
    "Microsoft.ContainerService": ("2024-09-01", "2025-01-01", "2025-02-01", "2025-05-01", "2025-07-01"),
    "Microsoft.Insights/autoscalesettings": ("2022-10-01",),
    "Microsoft.Insights/metricDefinitions": ("2018-01-01", "2021-05-01", "2023-10-01", "2024-02-01"),
    "Microsoft.Insights/metricNamespaces": ("2024-02-01",),
    "Microsoft.Insights/metrics": ("2018-01-01", "2019-07-01", "2021-05-01", "2023-10-01", "2024-02-01"),
    "Microsoft.MachineLearningServices": ("2024-04-01", "2024-10-01", "2025-06-01"),
    "Microsoft.Network": ("2023-09-01", "2024-05-01", "2025-01-01"),
    "Microsoft.Resources": ("2021-04-01", "2022-09-01", "2022-12-01", "2025-04-01"),
}
"""Those that are played. The real ones know more, each with fields of its own."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as far as rules look at it. What nobody answers is of method ``""``."""

    service: str
    """The namespace: `Microsoft.Compute`."""
    method: str
    """Azure's id of it: `VirtualMachines_Deallocate`."""
    action: str = ""
    """What a role must hold for it: `Microsoft.Compute/virtualMachines/deallocate/action`."""
    http: str
    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    """What the variables in the path stand for."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    subscription: str = ""
    """In small letters."""

    @property
    def changes(self) -> bool:
        """Whether it asks for more than an answer."""
        return self.http != "GET" and bool(self.subscription) and self.method not in READING_POSTS

    @property
    def scope(self) -> str:
        """What it is about: a resource, or the subscription whose things are listed."""
        if self.http == "POST":
            return self.path.rpartition("/")[0]
        return self.path if "group" in self.names else f"/subscriptions/{self.subscription}"


READING_POSTS: set[str] = set()
Rule = Callable[[Call], Reply | None]


@dataclass(kw_only=True)
class Subscription:
    name: str
    state: str = "Enabled"
    """`Disabled` and `Warned` ones can be read, and not be changed."""
    unregistered: set[str] = field(default_factory=set)
    """Providers nobody has registered: `Microsoft.MachineLearningServices`, …"""
    groups: dict[str, Group] = field(default_factory=dict)
    """By their names in small letters."""


class Cloud:
    """`rules` are asked first to last; the first reply counts, else the cloud answers by its state."""

    def __init__(
        self,
        subscriptions: Sequence[str] = (SUBSCRIPTION,),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.now = now
        self.subscriptions: dict[str, Subscription] = {}
        for subscription in subscriptions:
            self.add_subscription(subscription)
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self.bugs: list[str] = []
        """Answers of this very cloud that the SDK's models do not know, and tokens that went where none belongs."""
        self.most_per_page = 200
        """No page of any list is longer."""
        self.down: set[str] = set()
        """Subscriptions for which there is no answer to anybody."""
        self.operations = Operations(now=self.stamp)
        self.accounts = Accounts(self)
        self.compute = Compute(self)
        self.locks = Locks(self)
        self.skus = Skus(self)
        self.scale_sets = ScaleSets(self)
        self.resources = Resources(self)
        self.aks = Aks(self)
        self.ml = MachineLearning(self)
        self.monitor = Monitor(self)
        self.prices = Prices(self)
        self._parts: tuple[Part, ...] = (
            self.accounts, self.compute, self.locks, self.skus, self.scale_sets, self.resources, self.aks, self.ml,
            self.monitor, self.prices,
        )  # fmt: skip
        self._answers: list[tuple[Route, Callable[[Call], Told]]] = [
            (route, getattr(part, name))
            for part in self._parts
            for name in dir(type(part))
            for route in getattr(getattr(type(part), name), "routes", ())
        ]
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.socket = cloud_tls.server().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.endpoint = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.ca_file = cloud_tls.ca_file()

    @contextmanager
    def serving(self) -> Iterator[Cloud]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    @property
    def settings(self) -> Json:
        """What a source says to reach it."""
        return {
            "subscriptions": [*self.subscriptions],
            "endpoint": self.endpoint,
            "prices_endpoint": self.endpoint,
            "ca_file": self.ca_file,
            "token_secret": "AZURE_TOKEN",
        }

    # What is there

    def add_subscription(self, subscription: str, **fields: Any) -> Subscription:
        name = fields.pop("name", f"research-{len(self.subscriptions) + 1}")
        one = self.subscriptions[subscription.lower()] = Subscription(name=name, **fields)
        return one

    def known(self, subscription: str | None) -> str:
        """The one that is named, else the first."""
        return subscription.lower() if subscription is not None else next(iter(self.subscriptions))

    def add_group(
        self, group: str, *, subscription: str | None = None, location: str = "westeurope", **fields: Any
    ) -> Group:
        groups = self.subscriptions[self.known(subscription)].groups
        if fields or group.lower() not in groups:
            groups[group.lower()] = Group(name=group, location=location, **fields)
        return groups[group.lower()]

    def settle(self) -> None:
        """All that is under way comes to its end, and what Azure keeps up by itself is as it should be again."""
        with self._lock:
            self.operations.settle()
            self.aks.repair()
            self.monitor.repair()

    def snapshot(self) -> object:
        """Everything that a call could change; operations are no part of it."""
        with self._lock:
            return copy.deepcopy([part.state() for part in self._parts])

    def stamp(self, at: datetime | None = None) -> str:
        """As Azure writes times."""
        return (at or self.now()).astimezone(UTC).isoformat(timespec="microseconds")

    @property
    def counted(self) -> Counter[str]:
        """Calls by method, retries included."""
        return Counter(call.method for call in self.calls)

    # What goes wrong

    @contextmanager
    def within(self, rule: Rule) -> Iterator[None]:
        """This rule before all others, for a while."""
        self.rules.insert(0, rule)
        try:
            yield
        finally:
            self.rules.remove(rule)

    def refuse(
        self, method: str, refusal: Refusal | Reply, *, subscription: str | None = None, times: int | None = None
    ) -> None:
        """Calls of a method (or of all of `VirtualMachines_`, or of a provider, `Microsoft.Compute`) are refused, in
        one subscription or all, some times or always."""
        left = [times]

        def rule(call: Call) -> Reply | None:
            said = method in (call.method, call.service) or (method.endswith("_") and call.method.startswith(method))
            if not said or subscription not in (None, call.subscription) or left[0] == 0:
                return None
            left[0] = None if left[0] is None else left[0] - 1
            return refusal.reply if isinstance(refusal, Refusal) else refusal

        self.rules.append(rule)

    def without(self, *actions: str) -> AbstractContextManager[None]:
        """Within it, the caller's roles lack these actions (`Microsoft.Compute/virtualMachines/deallocate/action`)."""
        lacking = {action.lower() for action in actions}
        return self.within(lambda call: self._denied(call) if call.action.lower() in lacking else None)

    def read_only(self) -> AbstractContextManager[None]:
        """Within it, the caller's roles lack everything that changes anything."""
        return self.within(lambda call: self._denied(call) if call.changes else None)

    def _denied(self, call: Call) -> Reply:
        return forbidden(call.action, call.scope).reply

    def throttled(self, *, retry_after: int | None = None) -> AbstractContextManager[None]:
        """Within it, everything is asked too often."""
        return self.within(
            lambda call: throttled(call.subscription, retry_after=retry_after, reading=not call.changes).reply
        )

    @contextmanager
    def unreachable(self, subscription: str | None = None) -> Iterator[None]:
        """Within it, nothing answers; or nothing of one subscription."""
        with self.within(
            lambda call: NO_ANSWER if subscription is None or call.subscription == subscription.lower() else None
        ):
            yield

    # How it answers

    def reply(self, http: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        found = self._found(http, path)
        mine = re.match(r"/subscriptions/([^/]+)", path, re.IGNORECASE)
        subscription = mine[1].lower() if mine else ""
        asked = dict(parse_qsl(query, keep_blank_values=True))
        operation = OPERATION.fullmatch(path)
        if found is not None:
            route, names, told = found
            call = Call(
                service=route.service, method=route.method, action=route.action, http=http, path=path, names=names,
                query=asked, body=_json(raw), headers=headers, subscription=subscription,
            )  # fmt: skip
        elif operation is not None:
            call = Call(
                service=operation["service"], method="Operations_Get", http=http, path=path,
                names=operation.groupdict(),
                action=f"{operation['service']}/locations/{operation['kind']}/read", query=asked, headers=headers,
                subscription=subscription,
            )  # fmt: skip
        else:
            call = Call(
                service="", method="", http=http, path=path, query=asked, body=_json(raw), headers=headers,
                subscription=subscription,
            )  # fmt: skip
        self.calls.append(call)
        for rule in self.rules:
            if (reply := rule(call)) is not None:
                return reply
        login = self.accounts.login(http, path, raw)
        if login is not None:
            return login
        try:
            with self._lock:
                if found is not None and route.service == "Retail":
                    return self._checked(route, call, told(call))
                self._admitted(call)
                if operation is not None:
                    return self._looked(call, operation["id"])
                if found is None:
                    raise self._nowhere(call)
                self._fitting(route, call)
                return self._checked(route, call, told(call))
        except Refusal as refusal:
            return refusal.reply

    def _admitted(self, call: Call) -> None:
        """Who asks is known, and so is what he asks."""
        self.accounts.caller(call.headers.get("authorization", ""))
        if "api-version" not in call.query:
            raise missing_version()
        if call.subscription and call.subscription not in self.subscriptions:
            raise subscription_not_found(call.subscription)

    def _fitting(self, route: Route, call: Call) -> None:
        kind = "/".join(route.action.split("/")[:2])
        versions = VERSIONS.get(kind) or VERSIONS[route.service]
        if call.query["api-version"] not in versions:
            raise wrong_version(call.query["api-version"], route.service, kind.partition("/")[2], versions)
        if unknown := {*call.query} - {"api-version", *route.query}:
            raise invalid(f"{route.method} has no parameters {', '.join(sorted(unknown))}.")
        if not call.subscription:
            return
        mine = self.subscriptions[call.subscription]
        if call.service in mine.unregistered:
            raise not_registered(call.service)
        group = call.names.get("group")
        if group is not None and group.lower() not in mine.groups:
            raise group_not_found(group)
        if call.changes and mine.state != "Enabled":
            raise disabled(call.subscription)
        if route.hears is not None and call.body is not None:
            for misfit in cloud_models.misfits(call.body, route.hears):
                raise invalid(misfit, code="InvalidRequestContent")
        self.locks.check(call)

    def _looked(self, call: Call, operation_id: str) -> Reply:
        operation = self.operations.begun.get(operation_id)
        if operation is None or call.http != "GET":
            words = f"The entity was not found in this Azure location: operation '{operation_id}'."
            raise Refusal(404, "NotFound", words)
        self.operations.look(operation)
        pace = self.operations.retry_after
        headers = {"Retry-After": str(pace)} if operation.ended is None and pace is not None else {}
        if call.query.get("monitor") != "true":
            return answer(operation.told(), headers=headers)
        return self._result(operation, headers)

    def _result(self, operation: Operation, headers: Mapping[str, str]) -> Reply:
        if operation.ended is None:
            return answer(None, status=202, headers=headers)
        if operation.failure is not None:
            return Refusal(409, operation.failure.code, operation.failure.message).reply
        result = operation.result()
        return answer(result, status=200 if result is not None or operation.verb != "delete" else 204)

    def _checked(self, route: Route, call: Call, told: Told) -> Reply:
        reply = told if isinstance(told, Reply) else answer(told)
        if route.tells is not None and reply.body and 200 <= reply.status < 300:
            wrong = cloud_models.misfits(json.loads(reply.body), route.tells)
            if wrong:
                self.bugs.extend(f"{call.method}: {misfit}" for misfit in wrong)
                raise Refusal(500, "InternalServerError", f"The stand-in is wrong. {wrong[0]}")
        return reply

    def _nowhere(self, call: Call) -> Refusal:
        named = re.search(r"/providers/([^/]+)/([^/]+)", call.path)
        if named is not None:
            return wrong_type(named[2], named[1], call.query["api-version"])
        return Refusal(404, "InvalidRequestUri", "The request URI is not known here.")

    def _found(self, http: str, path: str) -> tuple[Route, dict[str, str], Callable[[Call], Told]] | None:
        for route, told in self._answers:
            if route.http == http and (match := route.pattern.fullmatch(unquote(path))):
                return route, match.groupdict(), told
        return None


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw.strip() else None
    except json.JSONDecodeError:
        return raw


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked hung up."""


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                reply = cloud.reply(self.command, parts.path, parts.query, headers, raw)
            except Exception as error:  # noqa: BLE001 - a mistake of ours, told at the end of the test
                cloud.bugs.append(f"{self.command} {parts.path}: {error!r}")
                reply = Reply(status=500)
            if not reply.status:
                self.close_connection = True
                return
            said = {
                "Content-Length": str(len(reply.body)),
                "x-ms-request-id": str(uuid.uuid4()),
                "x-ms-ratelimit-remaining-subscription-reads": "11999",
                "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
            }
            self.send_response(reply.status)
            for key, value in {**said, **reply.headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library calls them

        def log_message(self, *args: Any) -> None:
            """Nothing: what was called is in `cloud.calls`."""

    return Handler
