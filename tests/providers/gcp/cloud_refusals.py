"""How Google says no: the answers of its APIs to what they will not do, in their words and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]

STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}

PERMISSION_VERBS = {
    "aggregatedList": "list",
    "listManagedInstances": "get",
    "patch": "update",
    "resize": "update",
    "setAutoscaling": "update",
    "setSize": "update",
    "wait": "get",
}
"""What methods are called in permissions where the names differ."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered; a status of 0 hangs up instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Reply(status=0)


def answer(body: Mapping[str, Any], *, status: int = 200, **headers: str) -> Reply:
    head = {key.replace("_", "-"): value for key, value in headers.items()}
    said = {"Content-Type": "application/json; charset=UTF-8", **head}
    return Reply(status=status, body=json.dumps(body).encode(), headers=said)


class Refusal(Exception):
    """No. `reason` is the word in `errors[]`, `details` are the newer, typed ones."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        reason: str,
        domain: str = "global",
        canonical: str | None = None,
        details: Sequence[Json] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        error: Json = {"code": status, "message": message}
        error["errors"] = [{"message": message, "domain": domain, "reason": reason}]
        error["status"] = canonical or STATUSES[status]
        if details:
            error["details"] = list(details)
        headers = {} if retry_after is None else {"Retry_After": str(retry_after)}
        self.reply = answer({"error": error}, status=status, **headers)


def invalid(message: str) -> Refusal:
    return Refusal(400, message, reason="invalid")


def bad_request(message: str) -> Refusal:
    return Refusal(400, message, reason="badRequest")


def not_found(path: str) -> Refusal:
    return Refusal(404, f"The resource '{path}' was not found", reason="notFound")


def already_exists(path: str) -> Refusal:
    return Refusal(409, f"The resource '{path}' already exists", reason="alreadyExists")


def not_ready(path: str) -> Refusal:
    return Refusal(400, f"The resource '{path}' is not ready", reason="resourceNotReady")


def condition_not_met(message: str) -> Refusal:
    return Refusal(412, message, reason="conditionNotMet")


def unauthenticated(*, missing: bool = False) -> Refusal:
    message = (
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential. See https://developers.google.com/identity/sign-in/web/devconsole-project."
    )
    if missing:
        message = message.replace(
            "had invalid authentication credentials", "is missing required authentication credential"
        )
    reason = "CREDENTIALS_MISSING" if missing else "ACCESS_TOKEN_EXPIRED"
    return Refusal(401, message, reason="authError", details=[_error_info(reason)])


def forbidden(permission: str, path: str) -> Refusal:
    """The caller's roles lack a permission."""
    message = f"Required '{permission}' permission for '{path}'"
    info = _error_info("IAM_PERMISSION_DENIED", domain="iam.googleapis.com", permission=permission, resource=path)
    return Refusal(403, message, reason="forbidden", details=[info])


def permission_denied(permission: str, path: str) -> Refusal:
    """The same in the words of the newer APIs."""
    message = f"Permission '{permission}' denied on resource '{path}' (or it may not exist)."
    info = _error_info("IAM_PERMISSION_DENIED", domain="iam.googleapis.com", permission=permission, resource=path)
    return Refusal(403, message, reason="forbidden", details=[info])


def permission_for(method: str) -> str:
    """What a role must hold for a method: `compute.instances.list` for `compute.instances.aggregatedList`."""
    parts = [part for part in method.split(".") if part not in {"projects", "locations"}] or method.split(".")
    if method.startswith("cloudresourcemanager."):
        return f"resourcemanager.{'.'.join(method.split('.')[1:])}"
    service, *resources, verb = parts
    resource = resources[0] if resources else ""
    if service == "compute":
        resource = resource.replace("regionI", "i").replace("regionA", "a")
    if service == "container" and resource == "clusters":
        verb = verb if len(resources) == 1 and verb in {"get", "list", "delete"} else PERMISSION_VERBS.get(verb, "get")
    return f"{service}.{resource}.{PERMISSION_VERBS.get(verb, verb)}"


def service_disabled(service: str, number: str) -> Refusal:
    host = f"{service}.googleapis.com"
    page = f"https://console.developers.google.com/apis/api/{host}/overview?project={number}"
    message = (
        f"{host} API has not been used in project {number} before or it is disabled. Enable it by visiting {page} then "
        "retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and "
        "retry."
    )
    link = {"description": "Google developers console API activation", "url": page}
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": [link]},
        _error_info("SERVICE_DISABLED", consumer=f"projects/{number}", service=host),
    ]
    return Refusal(403, message, reason="accessNotConfigured", domain="usageLimits", details=details)


def rate_limited(service: str, number: str, *, status: int = 429, retry_after: int | None = None) -> Refusal:
    """As Compute Engine says it, with 403, or as all newer APIs do, with 429."""
    host = f"{service}.googleapis.com"
    message = (
        "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute' of service "
        f"'{host}' for consumer 'project_number:{number}'."
    )
    info = _error_info("RATE_LIMIT_EXCEEDED", consumer=f"projects/{number}", service=host)
    return Refusal(
        status, message, reason="rateLimitExceeded", domain="usageLimits", canonical="RESOURCE_EXHAUSTED",
        details=[info], retry_after=retry_after,
    )  # fmt: skip


def unavailable(message: str = "The service is currently unavailable.", *, retry_after: int | None = None) -> Refusal:
    return Refusal(503, message, reason="backendError", retry_after=retry_after)


def phrase(status: int) -> str:
    """As in an operation's `httpErrorMessage`."""
    return HTTPStatus(status).phrase.upper()


def _error_info(reason: str, *, domain: str = "googleapis.com", **metadata: str) -> Json:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain}
    return {**info, "metadata": metadata} if metadata else info
