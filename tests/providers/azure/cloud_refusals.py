"""How Azure says no: the answers of the Resource Manager and its providers, in their words and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
CALLER = "7f0d3c6e-52a5-4c0e-9f7a-3c1c6e0b9a11"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is answered; a status of 0 hangs up instead."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


NO_ANSWER = Reply(status=0)


def answer(body: Mapping[str, Any] | None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    if body is None:
        return Reply(status=status, headers=headers or {})
    said = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Reply(status=status, body=json.dumps(body).encode(), headers=said)


class Refusal(Exception):
    """No."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Sequence[Json] = (),
        target: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        error: Json = {"code": code, "message": message}
        if target:
            error["target"] = target
        if details:
            error["details"] = list(details)
        self.reply = answer({"error": error}, status=status, headers=headers)


# Of the Resource Manager


def unauthenticated(*, missing: bool = False, expired: bool = False) -> Refusal:
    code, words = "InvalidAuthenticationToken", "The access token is invalid."
    if missing:
        code, words = "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing."
    if expired:
        code = "ExpiredAuthenticationToken"
        words = (
            "The access token expiry UTC time '11/22/2026 9:00:00 AM' is earlier than current UTC time '11/22/2026 "
            "9:30:00 AM'."
        )
    challenge = (
        'Bearer authorization_uri="https://login.windows.net/", error="invalid_token", '
        f'error_description="{"The authentication failed." if missing else words}"'
    )
    return Refusal(401, code, words, headers={"WWW-Authenticate": challenge})


def missing_version() -> Refusal:
    words = "The api-version query parameter (?api-version=) is required for all requests."
    return Refusal(400, "MissingApiVersionParameter", words)


def wrong_version(version: str, service: str, kind: str, known: Sequence[str]) -> Refusal:
    words = (
        f"No registered resource provider found for location '' and API version '{version}' for type '{kind}' in the "
        f"namespace '{service}'. The supported api-versions are '{', '.join(known)}'."
    )
    return Refusal(400, "NoRegisteredProviderFound", words)


def wrong_type(kind: str, service: str, version: str) -> Refusal:
    words = (
        f"The resource type '{kind}' could not be found in the namespace '{service}' for api version '{version}'. The "
        "supported api-versions are ''."
    )
    return Refusal(404, "InvalidResourceType", words)


def forbidden(action: str, scope: str, *, caller: str = CALLER) -> Refusal:
    """The caller's roles lack an action."""
    words = (
        f"The client '{caller}' with object id '{caller}' does not have authorization to perform action '{action}' "
        f"over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your "
        "credentials."
    )
    return Refusal(403, "AuthorizationFailed", words)


def linked_forbidden(action: str, linked: str, scope: str) -> Refusal:
    words = (
        f"The client '{CALLER}' with object id '{CALLER}' has permission to perform action '{action}' on scope "
        f"'{scope}'; however, it does not have permission to perform action(s) '{linked}' on the linked scope(s) "
        f"'{scope}' or the linked scope(s) are invalid."
    )
    return Refusal(403, "LinkedAuthorizationFailed", words)


def denied_by_policy(name: str) -> Refusal:
    return Refusal(403, "RequestDisallowedByPolicy", f"Resource '{name}' was disallowed by policy. Reasons: 'No GPUs'.")


def subscription_not_found(subscription: str) -> Refusal:
    return Refusal(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def group_not_found(group: str) -> Refusal:
    return Refusal(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def not_found(kind: str, name: str, group: str) -> Refusal:
    words = (
        f"The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix"
    )
    return Refusal(404, "ResourceNotFound", words)


def parent_not_found(kind: str, parent: str) -> Refusal:
    words = (
        f"Failed to perform 'read' on resource(s) of type '{kind}', because the parent resource '{parent}' could not "
        "be found."
    )
    return Refusal(404, "ParentResourceNotFound", words)


def not_registered(service: str) -> Refusal:
    words = (
        f"The subscription is not registered to use namespace '{service}'. See https://aka.ms/rps-not-found for how to "
        "register subscriptions."
    )
    details = [{"code": "MissingSubscriptionRegistration", "target": service, "message": words}]
    return Refusal(409, "MissingSubscriptionRegistration", words, details=details)


def disabled(subscription: str) -> Refusal:
    words = (
        f"The subscription '{subscription}' is disabled and therefore marked as read only. You cannot perform any "
        "write actions on this subscription until it is re-enabled."
    )
    return Refusal(409, "ReadOnlyDisabledSubscription", words)


def locked(scope: str, lock_scope: str, *, verb: str = "write") -> Refusal:
    words = (
        f"The scope '{scope}' cannot perform {verb} operation because following scope(s) are locked: '{lock_scope}'. "
        "Please remove the lock and try again."
    )
    return Refusal(409, "ScopeLocked", words)


def throttled(subscription: str, *, retry_after: int | None = 17, reading: bool = True) -> Refusal:
    """By the Resource Manager: too many calls for this subscription."""
    what = "reads" if reading else "writes"
    words = (
        f"Number of requests for subscription '{subscription}' and operation '{what}' exceeded the backend storage "
        "limit. Please try again after '17' seconds."
    )
    headers = {f"x-ms-ratelimit-remaining-subscription-{what}": "0"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Refusal(429, "SubscriptionRequestsThrottled", words, headers=headers)


def throttled_by_compute(*, retry_after: int | None = 60) -> Refusal:
    """By Compute: a policy of its own is exceeded, named in details."""
    details = [
        {
            "code": "TooManyRequests",
            "target": "HighCostGet30Min",
            "message": json.dumps({"operationGroup": "HighCostGet30Min", "allowedRequestCount": 900}),
        }
    ]
    words = "The server rejected the request because too many requests have been received for this subscription."
    headers = {"x-ms-ratelimit-remaining-resource": "Microsoft.Compute/HighCostGet3Min;0"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Refusal(429, "OperationNotAllowed", words, details=details, headers=headers)


def unavailable(*, retry_after: int | None = None) -> Refusal:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Refusal(503, "ServerBusy", "The server is busy. Please try again later.", headers=headers)


def internal() -> Refusal:
    return Refusal(500, "InternalServerError", "Encountered internal server error. Diagnostic information: none.")


# Of single providers


def invalid(message: str, *, code: str = "InvalidParameter", target: str = "") -> Refusal:
    return Refusal(400, code, message, target=target)


def conflict() -> Refusal:
    words = (
        "The request failed due to conflict with a concurrent request. To resolve it, please refer to "
        "https://aka.ms/activitylog to get more details on the conflicting requests."
    )
    return Refusal(409, "Conflict", words)


def not_allowed(message: str) -> Refusal:
    return Refusal(409, "OperationNotAllowed", message)


def quota_exceeded(family: str = "standardNDSH100v5Family", location: str = "westeurope") -> Refusal:
    return not_allowed(
        f"Operation could not be completed as it results in exceeding approved {family} Cores quota. Additional "
        f"details - Deployment Model: Resource Manager, Location: {location}, Current Limit: 96, Current Usage: 96, "
        "Additional Required: 96, (Minimum) New Limit Required: 192. Submit a request for Quota increase at "
        "https://aka.ms/ProdportalCRP. Please read more about quota limits at https://aka.ms/azurequotalimits"
    )


def allocation_failed(*, zonal: bool = False) -> Refusal:
    words = (
        "Allocation failed. We do not have sufficient capacity for the requested VM size in this region. Read more "
        "about improving likelihood of allocation success at https://aka.ms/allocation-guidance"
    )
    return Refusal(409, "ZonalAllocationFailed" if zonal else "AllocationFailed", words)
