"""A policy as one short hash of everything that decides what it stops and when: what was proven of it holds for as long
as this stays the same.
"""

from __future__ import annotations

import hashlib
import json

from policies.policy import BasePolicy

DECIDES_NOTHING = frozenset({"mode", "notify", "description", "approval", "rollout"})
"""How far it may go, whom it tells, what it says of itself, who is asked first, with which share it begins: by none of
these is another machine stopped, or earlier."""


def digest(policy: BasePolicy) -> str:
    """All other fields with today's defaults, its name and type among them: under another name it is another policy.
    A looser one is another one, too; who is met earlier and who later by a change is not ranked here.
    """
    decides = policy.model_dump(mode="json", by_alias=True, exclude=set(DECIDES_NOTHING))
    return hashlib.sha256(json.dumps(decides, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
