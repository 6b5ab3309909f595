"""A decision is a value with a reason. Doing nothing is a decision too, and has one as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What one policy says of one resource now."""

    BREACH = "breach"
    FORESEEN = "foreseen"
    """A breach one grace from now: warned about already, acted on only once it is one."""
    OK = "ok"
    UNKNOWN = "unknown"
    """A NULL stood somewhere in the condition. Reported after a while, never acted on."""
    OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One policy × one resource."""

    policy: str
    resource_id: str
    verdict: Verdict
    reason: str
    """A full sentence with the numbers used."""
    evidence: Mapping[str, Any]
    """The facts the reason rests on, by column name."""
