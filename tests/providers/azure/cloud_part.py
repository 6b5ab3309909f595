"""What all of Azure's providers have in common: which call is whose, lists in pages, operations that take a while."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from tests.providers.azure.cloud_operations import Operation
from tests.providers.azure.cloud_refusals import Reply, answer, conflict, invalid, not_found

if TYPE_CHECKING:
    from tests.providers.azure.cloud import Call, Cloud

Json = dict[str, Any]
Told = Json | Reply
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Told])

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"


@dataclass(frozen=True, kw_only=True)
class Route:
    """One of Azure's methods: where it is, what it may be asked, and the SDK's types of what goes to and fro."""

    method: str
    """Azure's id of it: `VirtualMachines_Deallocate`."""
    http: str
    template: str
    query: Sequence[str] = ()
    hears: str | None = None
    tells: str | None = None
    action: str
    """What a role must hold for it: `Microsoft.Compute/virtualMachines/deallocate/action`."""
    service: str
    """The namespace: `Microsoft.Compute`. Of the Resource Manager's own methods, `Microsoft.Resources`."""
    pattern: re.Pattern[str]


def answers(
    method: str,
    http: str,
    template: str,
    *,
    query: Sequence[str] = (),
    hears: str | None = None,
    tells: str | None = None,
    action: str | None = None,
    service: str | None = None,
) -> Callable[[F], F]:
    """This is what the cloud does when this method is called; paths are compared without regard to case.

    `{name}` stands for one step of a path, `{name*}` for some.
    """
    parts = [
        f"(?P<{part[1:-1].rstrip('*')}>{'.+' if part.endswith('*}') else '[^/]+'})"
        if part[:1] == "{"
        else re.escape(part)
        for part in re.split(r"(\{\w+\*?\})", template)
    ]
    named = re.findall(r"/providers/([^/{]+)", template)
    route = Route(
        method=method, http=http, template=template, query=query, hears=hears, tells=tells,
        action=_action(http, template) if action is None else action,
        pattern=re.compile("".join(parts) + "/?", re.IGNORECASE),
        service=service or (named[-1] if named else "Microsoft.Resources"),
    )  # fmt: skip

    def marked(function: F) -> F:
        function.routes = [*getattr(function, "routes", ()), route]  # type: ignore[attr-defined]
        return function

    return marked


def _action(http: str, template: str) -> str:
    *before, last = template.split("/providers/")
    names = [part for part in last.split("/") if not part.startswith("{")]
    if not before:  # the Resource Manager's own
        names = ["Microsoft.Resources", *[part for part in last.split("/") if part and not part.startswith("{")]]
    verb = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}.get(http, "action")
    return "/".join([*names, verb])


class Part:
    """What one of Azure's providers keeps and does."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def state(self) -> object:
        """What a call could change."""
        return None

    # Lists

    def listed(self, call: Call, things: Sequence[T], tell: Callable[[T], object] = lambda thing: thing) -> Json:
        """A page of them, each as it is told, with the whole address of the next."""
        token = call.query.get("$skiptoken", "0")
        if not token.isdigit():
            raise invalid("The provided $skiptoken is invalid.", code="InvalidSkipToken")
        start, size = int(token), self.cloud.most_per_page
        told: Json = {"value": [tell(one) for one in things[start : start + size]]}
        if start + size < len(things):
            query = {**call.query, "$skiptoken": str(start + size)}
            told["nextLink"] = f"{self.cloud.endpoint}{call.path}?{urlencode(query)}"
        return told

    # What takes a while

    def accepted(
        self,
        call: Call,
        verb: str,
        target: str,
        *,
        location: str,
        done: Callable[[], object] = lambda: None,
        undone: Callable[[], object] = lambda: None,
        result: Callable[[], Json | None] = lambda: None,
        body: Json | None = None,
        status: int = 202,
        at: str = "operations",
    ) -> Reply:
        """Azure will do it: answered is where to ask what became of it."""
        operation_id = str(uuid.uuid4())
        service = call.service
        place = f"/subscriptions/{call.subscription}/providers/{service}/locations/{location}"
        begun = self.cloud.operations.begin(
            Operation(
                id=operation_id, path=f"{place}/{at}/{operation_id}", verb=verb, target=target.lower(),
                begun=self.cloud.stamp(), done=done, undone=undone, result=result,
            )
        )  # fmt: skip
        asked = urlencode({"p": "79ec9f8e-0e1a-4c5b-8d02-3a4b5c6d7e8f", "api-version": call.query["api-version"]})
        headers = {"Azure-AsyncOperation": f"{self.cloud.endpoint}{begun.path}?{asked}"}
        if status == 202:
            headers["Location"] = f"{self.cloud.endpoint}{begun.path}?{asked}&monitor=true"
        if self.cloud.operations.retry_after is not None:
            headers["Retry-After"] = str(self.cloud.operations.retry_after)
        return answer(body, status=status, headers=headers)

    def free(self, target: str, verb: str) -> Operation | None:
        """Nothing else is being done with it; of the same kind of operation, the one under way."""
        under_way = self.cloud.operations.under_way(target)
        if under_way is not None and under_way.verb != verb:
            raise conflict()
        return under_way


def found(things: Mapping[str, Any], call: Call, kind: str, path: str, name: str) -> Any:
    """The one that is asked for, whatever the case of the letters in its id."""
    thing = things.get(path.lower())
    if thing is None:
        raise not_found(kind, name, call.names.get("group", ""))
    return thing
