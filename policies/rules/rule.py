"""What a policy type is to the judge: a condition, the facts it rests on, and its reason in words. As data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from sqlglot import exp

from policies.policy import BasePolicy
from policies.quantities import format_duration

P = TypeVar("P", bound=BasePolicy)
Evidence = Mapping[str, Any]
"""Facts of one resource by column name; None is not known."""


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[P]):
    """One policy type. The sentences are asked for only when somebody reads them."""

    condition: Callable[[P, exp.Expr], exp.Expr]
    """True = breach, false = none, NULL = unknown; values from the policy stand in it as literals. The second argument
    is whether a row is in scope, for rules that count across it."""
    when: Callable[[P], str | None]
    """A person's further condition, which must hold too."""
    evidence: tuple[str, ...]
    """Facts to keep with a decision."""
    breach: Callable[[P, Evidence], str]
    ok: Callable[[P, Evidence], str]
    unknown: Callable[[P, Evidence], str]
    foreseen: Callable[[P, exp.Expr], exp.Expr] | None = None
    """True = it will be a breach one grace from now; only asked where it is none yet."""
    ahead: Callable[[P, Evidence], str] | None = None
    """The reason of a foreseen breach."""
    by_share: bool = False
    """Breached by exceeding a share of the scope, so a scope that shrinks makes breaches."""


def state_is(state: str, *, wanted: bool = True) -> exp.Expr:
    """`state` compared; a cloud that says `unknown` has said nothing, so that is NULL."""
    known = exp.func("nullif", exp.column("state"), exp.Literal.string("unknown"))
    compare = exp.EQ if wanted else exp.NEQ
    return compare(this=known, expression=exp.Literal.string(state))


def state_known(evidence: Evidence) -> bool:
    return evidence["state"] not in (None, "unknown")


def length(seconds: float | timedelta) -> str:
    """A duration for people: `1h40m`. Above ten minutes nobody asks for the seconds."""
    whole = int(seconds.total_seconds() if isinstance(seconds, timedelta) else seconds)
    return format_duration(timedelta(seconds=whole - whole % 60 if whole >= 600 else whole))


def percent(ratio: float) -> str:
    """`0.4 %`."""
    return f"{ratio * 100:.2f}".rstrip("0").rstrip(".") + " %"


def were(count: int) -> str:
    return "was" if count == 1 else "were"
