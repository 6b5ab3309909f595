"""A proxy before moto that knows AWS's own refusals where moto has none, counts calls, and fails on request."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import httpx
from moto.backends import get_backend
from moto.iam.models import get_account_id_from

from tests.providers.aws import pricing
from tests.providers.aws.fleet import ACCOUNT

SERVICES = {"monitoring": "cloudwatch"}
PATHS = {
    r"GET /clusters/[^/]+/node-groups/[^/]+": "DescribeNodegroup",
    r"POST /clusters/[^/]+/node-groups/[^/]+/update-config": "UpdateNodegroupConfig",
}
"""Operations of services whose paths tell them."""
KEPT_HEADERS = {"content-type", "smithy-protocol", "x-amzn-errortype"}
JSON = {"Content-Type": "application/x-amz-json-1.0"}
XML = {"Content-Type": "text/xml"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request, as far as rules look at it."""

    service: str
    region: str
    operation: str
    fields: Mapping[str, Sequence[str]]
    body: bytes
    account: str = ACCOUNT
    """Whose credentials signed it."""

    @property
    def action(self) -> str:
        """`ec2:StopInstances`, as permissions are written."""
        return f"{self.service}:{self.operation}"

    @property
    def instance_ids(self) -> list[str]:
        return [value for key, values in self.fields.items() if key.startswith("InstanceId") for value in values]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered in place of moto's answer; a status of 0 hangs up instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Reply(status=0)
Rule = Callable[[Call], Reply | None]


class Front:
    """The proxy. `rules` are asked first to last; the first reply counts, else moto answers."""

    def __init__(self, moto: str) -> None:
        self.moto = moto
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self.prices = pricing.PriceBook()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._forward = httpx.Client(timeout=30)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Front]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
            self._forward.close()

    @property
    def counted(self) -> Counter[str]:
        """Calls by action, retries included."""
        return Counter(call.action for call in self.calls)

    def reply(self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.calls.append(call)
        for rule in (*self.rules, what_aws_refuses, self._what_it_costs):
            if (reply := rule(call)) is not None:
                return reply
        passed = {key: value for key, value in headers.items() if key.lower() not in {"host", "content-length"}}
        answer = self._forward.request(method, self.moto + path, headers=passed, content=body)
        kept = {key: value for key, value in answer.headers.items() if key.lower() in KEPT_HEADERS}
        return Reply(status=answer.status_code, body=answer.content, headers=kept)

    def _what_it_costs(self, call: Call) -> Reply | None:
        """Moto has no Price List, and a spot price of 2006."""
        if call.action not in {"pricing:GetProducts", "ec2:DescribeSpotPriceHistory"}:
            return None
        try:
            asked = pricing.question(call.service, call.operation, call.fields, call.body)
        except pricing.Misfit as misfit:
            return error(call.service, "InvalidParameterException", str(misfit))
        answer = self.prices.answer(call.action, call.region, asked)
        if answer is None:
            return NO_ANSWER
        body = pricing.written(call.service, call.operation, answer)
        return Reply(status=200, body=body, headers=JSON if call.service == "pricing" else XML)

    # rules

    def answer(self, action: str, reply: Reply, *, region: str | None = None, times: int | None = None) -> None:
        """Give this reply to calls of that action, in one region or all, for some times or always."""
        left = [times]

        def rule(call: Call) -> Reply | None:
            if call.action != action or region not in (None, call.region) or left[0] == 0:
                return None
            left[0] = None if left[0] is None else left[0] - 1
            return reply

        self.rules.append(rule)

    def refuse(
        self, action: str, code: str, message: str = "", *, region: str | None = None, times: int | None = None
    ) -> None:
        """Refuse calls of that action the way AWS would."""
        self.answer(action, error(action.split(":")[0], code, message), region=region, times=times)

    @contextmanager
    def within(self, rule: Rule) -> Iterator[None]:
        """This rule before all others, for a while."""
        self.rules.insert(0, rule)
        try:
            yield
        finally:
            self.rules.remove(rule)


def error(service: str, code: str, message: str = "", *, headers: Mapping[str, str] | None = None) -> Reply:
    """A refusal in the words of the service's protocol."""
    status = 503 if code in {"RequestLimitExceeded", "Unavailable"} else 500 if code == "InternalError" else 400
    status = 403 if code in {"UnauthorizedOperation", "AccessDenied"} else status
    if service in {"cloudwatch", "pricing", "eks"}:
        body = json.dumps({"__type": code, "message": message}).encode()
        return Reply(status=status, body=body, headers={**JSON, **(headers or {})})
    inner = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    text = (
        f"<Response><Errors>{inner}</Errors><RequestID>r</RequestID></Response>"
        if service == "ec2"
        else f"<ErrorResponse>{inner}<RequestId>r</RequestId></ErrorResponse>"
    )
    return Reply(status=status, body=text.encode(), headers={**XML, **(headers or {})})


def metric_data(results: Sequence[Mapping[str, Any]], **rest: Any) -> Reply:
    """An answer of GetMetricData; times are Unix seconds."""
    return Reply(status=200, body=json.dumps({"MetricDataResults": list(results), **rest}).encode(), headers=JSON)


def what_aws_refuses(call: Call) -> Reply | None:
    """EC2's own preconditions of stop and start, which moto does not check."""
    if call.action not in {"ec2:StopInstances", "ec2:StartInstances"}:
        return None
    backend = get_backend("ec2")[ACCOUNT][call.region]
    once = {
        request.instance.id
        for request in backend.spot_instance_requests.values()
        if request.type == "one-time" and request.instance is not None
    }
    for instance in backend.all_instances():
        if instance.id not in call.instance_ids:
            continue
        if instance.state == "terminated":
            way = "stopped" if call.operation == "StopInstances" else "started"
            message = f"The instance '{instance.id}' is not in a state from which it can be {way}."
            return error("ec2", "IncorrectInstanceState", message)
        if call.operation == "StopInstances" and instance.id in once:
            message = (
                f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time request."
            )
            return error("ec2", "UnsupportedOperation", message)
        if call.operation == "StopInstances" and instance.root_device_type == "instance-store":
            message = f"The instance '{instance.id}' does not have an 'ebs' root device type and cannot be stopped"
            return error("ec2", "UnsupportedOperation", message)
    return None


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = front.reply(self._call(body), self.command, self.path, dict(self.headers), body)
            if not reply.status:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for key, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def _call(self, body: bytes) -> Call:
            scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
            key, region, service = (scope[1], scope[2], scope[3]) if scope else ("", "", "")
            fields = parse_qs(body.decode()) if b"Action=" in body else {}
            operation = fields["Action"][0] if fields else self.headers.get("X-Amz-Target", "").rpartition(".")[2]
            asked = f"{self.command} {self.path}"
            operation = operation or next(name for path, name in PATHS.items() if re.fullmatch(path, asked))
            return Call(
                service=SERVICES.get(service, service),
                region=region,
                operation=operation,
                fields=fields,
                body=body,
                account=get_account_id_from(key),
            )

        def log_message(self, *args: Any) -> None:
            """Nothing: what was called is in `front.calls`."""

    return Handler
