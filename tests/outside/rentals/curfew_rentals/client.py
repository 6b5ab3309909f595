"""Asks the API. What comes back is an answer of the form that was expected, or one of Curfew's errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from providers.errors import (
    Conflict,
    Forbidden,
    NoCapacity,
    NotFound,
    Protected,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers.pace import retry_after

A = TypeVar("A", bound=BaseModel)

TIMEOUT_SECONDS = 10.0

REFUSALS: Mapping[str, type[ProviderError]] = {
    "unauthenticated": Forbidden,
    "forbidden": Forbidden,
    "no_such_machine": NotFound,
    "no_capacity": NoCapacity,
    "busy": Conflict,
    "locked": Protected,
    "not_possible": Unsupported,
    "too_many_requests": Throttled,
}
"""The API's own words for why not. Whatever else is said, by it or by a proxy before it, proves nothing."""


class Refusal(BaseModel):
    """The API's body of an error."""

    code: str
    message: str
    needs: str | None = None
    """The permission that is missing."""


class Client:
    """One account's. Any thread may use it."""

    def __init__(self, endpoint: str, *, token: Callable[[], str]) -> None:
        def login(request: httpx.Request) -> httpx.Request:
            request.headers["Authorization"] = f"Bearer {token()}"  # asked for each time, as it may be renewed
            return request

        self._http = httpx.Client(base_url=endpoint, auth=login, timeout=TIMEOUT_SECONDS)

    def get(self, path: str, answer: type[A], **query: str | int) -> A:
        return self._ask("GET", path, answer, params=query)

    def post(self, path: str, answer: type[A], *, request_id: str, body: Mapping[str, str]) -> A:
        """Asked again with the same `request_id` it does nothing more."""
        return self._ask("POST", path, answer, json=dict(body), headers={"Idempotency-Key": request_id})

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, answer: type[A], **more: Any) -> A:
        where = f"{method} {path}"
        try:
            response = self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise Unreachable(f"{where} was not answered ({type(error).__name__})") from error
        try:
            if response.is_success:
                return answer.model_validate_json(response.content)
            refusal = Refusal.model_validate_json(response.content)
        except ValidationError as error:
            status = response.status_code
            raise Unreachable(f"{where} was answered with what cannot be read, with status {status}") from error
        raise REFUSALS.get(refusal.code, Unreachable)(
            f"{where}: {refusal.message}",
            permission=refusal.needs,
            retry_after=retry_after(response.headers.get("Retry-After")),
        )
