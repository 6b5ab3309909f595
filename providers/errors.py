"""Everything that can go wrong with a cloud, in our words; the SDK's own exception is chained as the cause.

    ProviderError
    ├── Unreachable        no answer: network, DNS, time-out, 5xx       (retry)
    ├── Throttled          asked too often                              (retry, after `retry_after` seconds if known)
    ├── Forbidden          a permission is missing, named if known
    ├── NotFound           the resource, region or account does not exist
    ├── NoCapacity         the cloud cannot give it back just now       (retry)
    ├── Conflict           its state changed under us, or someone else is at work on it
    ├── Protected          the cloud's own protection refuses
    ├── Unsupported        this verb is not possible here, ever
    ├── Refused            we refuse: a ceiling, a hold, a precondition of ours
    └── Misconfigured      the source's own settings cannot work

Closed on purpose: only a cloud's own package sees the SDK's exceptions, so the SDK can be replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from providers.records import Fault

T = TypeVar("T")
_LONGEST_REASON = 300


class ProviderError(Exception):
    """A cloud call failed. `retry` says whether the same call may succeed later by itself."""

    code = "ProviderError"
    retry = False

    def __init__(self, sentence: str, *, permission: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.permission = permission
        self.retry_after = retry_after

    def as_fault(self) -> Fault:
        return Fault(code=self.code, sentence=self.sentence, permission=self.permission)


class Unreachable(ProviderError):
    code = "Unreachable"
    retry = True


class Throttled(ProviderError):
    code = "Throttled"
    retry = True


class Forbidden(ProviderError):
    code = "Forbidden"


class NotFound(ProviderError):
    code = "NotFound"


class NoCapacity(ProviderError):
    code = "NoCapacity"
    retry = True


class Conflict(ProviderError):
    code = "Conflict"


class Protected(ProviderError):
    code = "Protected"


class Unsupported(ProviderError):
    code = "Unsupported"


class Refused(ProviderError):
    code = "Refused"


class Misconfigured(ProviderError):
    code = "Misconfigured"


def shortened(text: str) -> str:
    """What somebody else said, in one line of at most 300 characters."""
    words = " ".join(text.split())
    return words if len(words) <= _LONGEST_REASON else words[:_LONGEST_REASON] + "…"


def or_raise(answer: T | ProviderError) -> T:
    """An answer in whose place an error may stand."""
    if isinstance(answer, ProviderError):
        raise answer
    return answer


def together(faults: Sequence[Fault], *, about: str = "") -> Fault | None:
    """One fault to report for all: the first, and how many more there were. `about`: ` about groups`, if all are."""
    if not faults:
        return None
    first, more = faults[0], len(faults) - 1
    if not more:
        return first
    sentence = f"{first.sentence}; and {more} more question{'s' if more > 1 else ''}{about} went unanswered"
    return Fault(code=first.code, sentence=sentence, permission=first.permission)
