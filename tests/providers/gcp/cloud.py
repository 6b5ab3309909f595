"""Google Cloud on a port of this machine: projects with a state of their own, behind the methods that Google documents.

Every request and every answer is checked against Google's discovery documents. It counts what is asked and fails on
request. What single services do is in `cloud_compute` and its neighbours; how they say no in `cloud_refusals`.
"""

from __future__ import annotations

import copy
import json
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.providers.gcp import discovery
from tests.providers.gcp.cloud_accounts import Accounts
from tests.providers.gcp.cloud_billing import Billing
from tests.providers.gcp.cloud_catalogue import Catalogue
from tests.providers.gcp.cloud_compute import Compute
from tests.providers.gcp.cloud_gke import Gke
from tests.providers.gcp.cloud_groups import Groups
from tests.providers.gcp.cloud_monitoring import Monitoring
from tests.providers.gcp.cloud_operations import Operations
from tests.providers.gcp.cloud_refusals import (
    NO_ANSWER,
    Refusal,
    Reply,
    answer,
    forbidden,
    invalid,
    not_found,
    permission_denied,
    permission_for,
    rate_limited,
    service_disabled,
    unavailable,
)
from tests.providers.gcp.cloud_tpu import Tpus
from tests.providers.gcp.cloud_workbench import Workbench
from tests.providers.gcp.discovery import Method, Misfit

__all__ = ["NO_ANSWER", "PROJECT", "Call", "Cloud", "Project", "Refusal", "Reply", "Rule", "answer"]

Json = dict[str, Any]
PROJECT = "research"
ZONES = (
    "europe-west4-a", "europe-west4-b", "europe-west4-c",
    "us-central1-a", "us-central1-b", "us-central1-c", "us-central1-f",
    "us-east4-a", "us-east4-b", "us-east4-c",
)  # fmt: skip
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NO_SUCH_PAGE = Reply(status=404, body=b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>")
READING_POSTS = {
    "compute.instanceGroupManagers.listManagedInstances",
    "compute.regionInstanceGroupManagers.listManagedInstances",
    "compute.regionOperations.wait",
    "compute.zoneOperations.wait",
    "iamcredentials.projects.serviceAccounts.generateAccessToken",
    "oauth2.token",
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as far as rules look at it. What no API has is of method ``""``."""

    service: str
    method: str
    """Google's id of it: `compute.instances.stop`."""
    http: str
    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    """What the variables in the path stand for."""
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    project: str = ""
    zone: str = ""
    """The zone, region or location in the path."""
    caller: str = ""
    """Whose token it came with, if anybody asks for tokens."""

    @property
    def changes(self) -> bool:
        """Whether it asks for more than an answer."""
        return self.http != "GET" and self.method not in READING_POSTS


Rule = Callable[[Call], Reply | None]


@dataclass(kw_only=True)
class Project:
    id: str
    number: str
    parent: str = "organizations/1234567890"
    labels: dict[str, str] = field(default_factory=dict)
    state: str = "ACTIVE"
    disabled: set[str] = field(default_factory=set)
    """Services nobody has enabled in it: `tpu`, `notebooks`, …"""


class Cloud:
    """`rules` are asked first to last; the first reply counts, else the cloud answers by its state."""

    def __init__(
        self,
        projects: Sequence[str] = (PROJECT,),
        *,
        zones: Sequence[str] = ZONES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.zones = tuple(sorted(zones))
        self.now = now
        self.projects: dict[str, Project] = {}
        for project in projects:
            self.add_project(project)
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self.bugs: list[str] = []
        """Answers of this very cloud that Google's schemas do not allow, and where it broke."""
        self.misfits: list[str] = []
        """Requests that are not Google's, or not in the form that Google describes."""
        self.most_per_page = 500
        """No page of any list is longer, whatever is asked for."""
        self.down: set[str] = set()
        """Zones that give no answer to anybody, Google's own lists included."""
        self.operations = Operations()
        self.catalogue = Catalogue(self)
        self.compute = Compute(self)
        self.groups = Groups(self)
        self.gke = Gke(self)
        self.tpus = Tpus(self)
        self.workbench = Workbench(self)
        self.monitoring = Monitoring(self)
        self.billing = Billing(self)
        self.accounts = Accounts(self)
        self._parts = (
            self.catalogue, self.compute, self.groups, self.gke, self.tpus, self.workbench, self.monitoring,
            self.billing, self.accounts,
        )  # fmt: skip
        self._answers = {
            method: getattr(part, name)
            for part in self._parts
            for name in dir(type(part))
            for method in getattr(getattr(type(part), name), "methods", ())
        }
        self._asked: dict[tuple[str, str], tuple[Call, Json]] = {}
        """By project and `requestId`."""
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

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

    # What is there

    def add_project(self, project_id: str, **fields: Any) -> Project:
        number = str(400_000_000_000 + len(self.projects))
        project = self.projects[project_id] = Project(id=project_id, number=number, **fields)
        return project

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(sorted({region_of(zone) for zone in self.zones}))

    def settle(self) -> None:
        """All that is under way comes to its end, and what Google keeps up by itself is as it should be again."""
        with self._lock:
            self.operations.settle()
            self.gke.repair()
            self.groups.repair()
            self.operations.settle()

    def snapshot(self) -> object:
        """Everything that a call could change; operations are no part of it."""
        with self._lock:
            return copy.deepcopy([part.state() for part in self._parts])

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

    def refuse(self, method: str, refusal: Refusal, *, project: str | None = None, times: int | None = None) -> None:
        """Calls of a method (or of a service, `tpu.`) are refused, in one project or all, some times or always."""
        left = [times]

        def rule(call: Call) -> Reply | None:
            if not f"{call.method}.".startswith(f"{method.rstrip('.')}."):
                return None
            if project not in (None, call.project) or left[0] == 0:
                return None
            left[0] = None if left[0] is None else left[0] - 1
            return refusal.reply

        self.rules.append(rule)

    @contextmanager
    def zone_down(self, *zones: str) -> Iterator[None]:
        """Within it, Google itself cannot reach these zones: lists name them, calls into them fail with 503."""
        self.down.update(zones)
        try:
            yield
        finally:
            self.down.difference_update(zones)

    def without(self, *permissions: str) -> AbstractContextManager[None]:
        """Within it, the caller's roles lack these permissions (`compute.instances.stop`)."""
        return self.within(lambda call: self._denied(call) if permission_for(call.method) in permissions else None)

    def read_only(self) -> AbstractContextManager[None]:
        """Within it, the caller's roles lack everything that changes anything."""
        return self.within(lambda call: self._denied(call) if call.changes else None)

    def _denied(self, call: Call) -> Reply:
        segments = call.path.partition(":")[0].strip("/").split("/")[2 if call.service == "compute" else 1 :]
        if call.service != "compute":
            return permission_denied(permission_for(call.method), "/".join(segments)).reply
        whole = segments[: len(segments) // 2 * 2]
        return forbidden(permission_for(call.method), "/".join(whole if len(whole) > 4 else whole[:2])).reply

    def throttled(self, *, retry_after: int | None = None) -> AbstractContextManager[None]:
        """Within it, everything is asked too often: Compute Engine says so with 403, everybody else with 429."""

        def throttled(call: Call) -> Reply:
            number = self.projects[call.project].number if call.project in self.projects else "0"
            status = 403 if call.service == "compute" else 429
            return rate_limited(call.service, number, status=status, retry_after=retry_after).reply

        return self.within(throttled)

    def unreachable(self, zone: str | None = None) -> AbstractContextManager[None]:
        """Within it, nothing answers; or, of one zone, Google has no answer."""
        return self.zone_down(zone) if zone is not None else self.within(lambda _call: NO_ANSWER)

    # How it answers

    def reply(self, http: str, path: str, query: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        if path == "/token":
            call = Call(service="oauth2", method="oauth2.token", http=http, path=path, headers=headers)
            self.calls.append(call)
            ruled = next((reply for rule in self.rules if (reply := rule(call)) is not None), None)
            return ruled or self.accounts.token(raw)
        try:
            found = self._found(http, path)
            if found is None:
                raise Misfit("The requested URL was not found on this server.")
            method, names = found
            call = self._call(method, names, path, parse_qsl(query, keep_blank_values=True), headers, raw)
        except (Misfit, Refusal) as problem:  # or nobody knows who asks
            self.calls.append(Call(service="", method="", http=http, path=path, headers=headers))
            if isinstance(problem, Refusal):
                return problem.reply
            self.misfits.append(f"{http} {path}?{query}: {problem}")
            return Refusal(400, str(problem), reason="invalid").reply if found else NO_SUCH_PAGE
        self.calls.append(call)
        for rule in self.rules:
            if (reply := rule(call)) is not None:
                return reply
        try:
            with self._lock:
                return answer(self._told(method, call))
        except Refusal as refusal:
            return refusal.reply
        except Exception as error:  # noqa: BLE001 - the test is to see it, not whoever asked
            self.bugs.append(f"{call.method}: {error!r} at {traceback.extract_tb(error.__traceback__)[-1]}")
            return Refusal(500, f"The stand-in is wrong. {error!r}", reason="internalError").reply

    def _told(self, method: Method, call: Call) -> Json:
        if call.project not in {"", "-", *self.projects}:
            raise not_found(f"projects/{call.project}")
        if call.project in self.projects and call.service in self.projects[call.project].disabled:
            raise service_disabled(call.service, self.projects[call.project].number)
        if call.zone in self.down:
            raise unavailable(f"The zone '{call.zone}' is currently unavailable.")
        if call.method not in self._answers:
            self.misfits.append(f"{call.method} is not played here")
            raise Refusal(501, f"{call.method} is Google's, but not played here.", reason="notImplemented")
        told: Json = self._once(call) or self._answers[call.method](call)
        if "requestId" in call.query:
            self._asked.setdefault((call.project, call.query["requestId"]), (call, told))
        try:
            method.check_answer(told)
        except Misfit as misfit:
            self.bugs.append(str(misfit))
            raise Refusal(500, f"The stand-in is wrong. {misfit}", reason="internalError") from misfit
        mask = call.query.get("fields") or call.headers.get("x-goog-fieldmask")
        try:
            return method.pick(told, mask) if mask else told
        except Misfit as misfit:
            self.misfits.append(f"{call.method}: {misfit}")
            raise Refusal(400, str(misfit), reason="invalidParameter") from misfit

    def _once(self, call: Call) -> Json | None:
        """What a call with the same `requestId` has led to."""
        said = call.query.get("requestId")
        if said is None:
            return None
        if not UUID.fullmatch(said) or not said.strip("0-"):
            raise invalid(f"Invalid value for field 'requestId': '{said}'. Must be a valid UUID.")
        before = self._asked.get((call.project, said))
        if before is None:
            return None
        if any(getattr(before[0], part) != getattr(call, part) for part in ("method", "path", "query", "body")):
            raise invalid(f"Invalid value for field 'requestId': '{said}'. It was used for another request.")
        path = before[1].get("selfLink", "").partition("/compute/v1/")[2] or before[1].get("name", "")
        return self.operations.begun[path].told

    def _found(self, http: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """Workbench and TPUs share a path of operations: which one is meant is known by whose operation it is."""
        found = [*discovery.candidates(http, unquote(path))]
        owner = self.operations.begun.get(path.partition("/v2/")[2])
        for method, names in found:
            if owner is None or method.service.name == owner.service:
                return method, names
        return found[0] if found else None

    def _call(
        self,
        method: Method,
        names: Mapping[str, str],
        path: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        raw: bytes,
    ) -> Call:
        method.check_path(names)
        asked = method.query(query)
        try:
            body = json.loads(raw) if raw.strip() else None
        except json.JSONDecodeError as error:
            raise Misfit(f"Invalid JSON payload received. {error}") from error
        method.check_body(body)
        project = names.get("project") or names.get("projectsId") or ""
        numbered = {one.number: one.id for one in self.projects.values()}
        return Call(
            service=method.service.name,
            method=method.id,
            http=method.http,
            path=path,
            names=names,
            query=asked,
            body=body,
            headers=headers,
            project=numbered.get(project, project),
            zone=names.get("zone") or names.get("region") or names.get("locationsId") or "",
            caller=self.accounts.caller(headers.get("authorization", "")),
        )


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]


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
            reply = cloud.reply(self.command, parts.path, parts.query, headers, raw)
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - as the library calls them

        def log_message(self, *args: Any) -> None:
            """Nothing: what was called is in `cloud.calls`."""

    return Handler
