"""What all of Compute Engine has in common: operations that change things, lists of one place, lists of all places."""

from __future__ import annotations

import base64
import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from tests.providers.gcp.cloud_lists import last_before, matching, page
from tests.providers.gcp.cloud_operations import Failure, Operation
from tests.providers.gcp.cloud_refusals import invalid, phrase

if TYPE_CHECKING:
    from tests.providers.gcp.cloud import Call, Cloud

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Json])

BASE = "https://www.googleapis.com/compute/v1/"
MOUNTAIN_VIEW = timezone(timedelta(hours=-8))


def answers(*methods: str) -> Callable[[F], F]:
    """This is what the cloud does when one of these methods is called."""

    def marked(function: F) -> F:
        function.methods = methods  # type: ignore[attr-defined]
        return function

    return marked


class ComputePart:
    """Some of the resources, with what all need."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def state(self) -> object:
        """What a call could change."""
        return None

    def operation(
        self,
        call: Call,
        verb: str,
        target: str,
        target_id: str,
        *,
        done: Callable[[], object] = lambda: None,
        undone: Callable[[], object] = lambda: None,
        failure: Failure | None = None,
    ) -> Json:
        """Begins one; answered is its first state."""
        place = "/".join(target.split("/")[:4])
        number = self.cloud.operations.number()
        name = f"operation-{number}"
        told: Json = {
            "kind": "compute#operation",
            "id": number,
            "name": name,
            place.split("/")[2].removesuffix("s"): f"{BASE}{place}",
            "operationType": verb,
            "targetLink": BASE + target,
            "targetId": target_id,
            "status": "RUNNING",
            "user": "tests@example.com",
            "progress": 0,
            "insertTime": self.stamp(),
            "startTime": self.stamp(),
            "selfLink": f"{BASE}{place}/operations/{name}",
        }
        if "requestId" in call.query:
            told["clientOperationId"] = call.query["requestId"]
        begun = self.cloud.operations.begin(
            Operation(
                path=f"{place}/operations/{name}", service="compute", verb=verb, target=target, told=told,
                close=self._close, done=done, undone=undone, failure=failure,
            )
        )  # fmt: skip
        return copy.deepcopy(begun.told)

    def _close(self, operation: Operation) -> None:
        operation.told.update(status="DONE", progress=100, endTime=self.stamp())
        if (failure := operation.failure) is not None:
            operation.told.update(
                error={"errors": [{"code": failure.code, "message": failure.message}]},
                httpErrorStatusCode=failure.status,
                httpErrorMessage=phrase(failure.status),
            )

    # Lists

    def check_place(self, call: Call) -> None:
        kind = "region" if "region" in call.names else "zone"
        if call.zone not in (self.cloud.regions if kind == "region" else self.cloud.zones):
            raise invalid(f"Invalid value for field '{kind}': '{call.zone}'. Unknown {kind}.")

    def scopes(self, *, regional: bool = False) -> list[str]:
        regions = [f"regions/{region}" for region in self.cloud.regions] if regional else []
        return [*regions, *(f"zones/{zone}" for zone in self.cloud.zones)]

    def listed(self, call: Call, things: Mapping[str, Json], what: str) -> Json:
        """Those of one zone or region."""
        self.check_place(call)
        place = f"projects/{call.project}/{'/'.join(call.path.strip('/').split('/')[4:])}"
        found = [(path, one) for path, one in things.items() if path.startswith(f"{place}/")]
        told, token = self.page(call, found)
        kind = f"region{what[0].upper()}{what[1:]}" if "region" in call.names and what != "operation" else what
        answer: Json = {"kind": f"compute#{kind}List", "id": place, "selfLink": BASE + place}
        if told:
            answer["items"] = [one for _, one in told]
        return {**answer, "nextPageToken": token} if token else answer

    def aggregated(self, call: Call, things: Mapping[str, Json], what: str, *, scopes: Sequence[str]) -> Json:
        """Those of all scopes. A scope nobody can reach is named on the page where it would have come."""
        place = f"projects/{call.project}/aggregated/{what}s"
        start = f"projects/{call.project}/"
        down = {f"zones/{zone}" for zone in self.cloud.down}
        mine = [(path, one) for path, one in things.items() if path.startswith(start)]
        told, token = self.page(call, [(path, one) for path, one in mine if scope_of(path) not in down])
        since = last_before(call.query.get("pageToken"))
        until = told[-1][0] if token else "~"
        by_scope: dict[str, Json] = {}
        for scope in scopes:
            here = [one for path, one in told if scope_of(path) == scope]
            if here:
                by_scope[scope] = {f"{what}s": here}
            elif scope in down and since < f"{start}{scope}" < until:
                by_scope[scope] = _warned("UNREACHABLE", f"The scope '{scope}' is currently unreachable.", scope)
            else:
                words = f"There are no results for scope '{scope}' on this page."
                by_scope[scope] = _warned("NO_RESULTS_ON_PAGE", words, scope)
        answer: Json = {
            "kind": f"compute#{what}AggregatedList", "id": place, "items": by_scope, "selfLink": BASE + place
        }  # fmt: skip
        unreached = [scope for scope, said in by_scope.items() if said.get("warning", {}).get("code") == "UNREACHABLE"]
        if unreached:
            answer["unreachables"] = [f"projects/{call.project}/{scope}" for scope in unreached]
        return {**answer, "nextPageToken": token} if token else answer

    def page(self, call: Call, found: Sequence[tuple[str, Json]]) -> tuple[list[tuple[str, Json]], str | None]:
        most = call.query.get("maxResults", 500)
        if most > 500:
            raise invalid(f"Invalid value for field 'maxResults': '{most}'. Must be less than or equal to 500.")
        wanted = matching(call.query["filter"]) if call.query.get("filter", "").strip() else lambda _: True
        return page(
            [(path, one) for path, one in found if wanted(one)],
            most=min(most or 500, self.cloud.most_per_page),
            token=call.query.get("pageToken"),
            question=f"{call.path} {call.query.get('filter', '')}",
        )

    def stamp(self, at: datetime | None = None) -> str:
        """As Compute Engine writes times: where Google is at home."""
        return (at or self.cloud.now()).astimezone(MOUNTAIN_VIEW).isoformat(timespec="milliseconds")


def last(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def scope_of(path: str) -> str:
    return "/".join(path.split("/")[2:4])


def fingerprint(value: object) -> str:
    return base64.b64encode(hashlib.sha256(repr(value).encode()).digest()[:8]).decode()


def _warned(code: str, message: str, scope: str) -> Json:
    return {"warning": {"code": code, "message": message, "data": [{"key": "scope", "value": scope}]}}
