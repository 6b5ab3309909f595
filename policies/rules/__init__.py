"""The policy types: which rule judges which kind of policy. One literal table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policies.policy import BasePolicy, IdlePolicy, OwnershipPolicy
from policies.rules import idle, ownership
from policies.rules.rule import Rule

RULES: Mapping[type[BasePolicy], Rule[Any]] = {
    IdlePolicy: idle.RULE,
    OwnershipPolicy: ownership.RULE,
}
