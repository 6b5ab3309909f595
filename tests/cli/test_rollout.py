"""`curfew rollout`, and what `get` and `explain` say of acts that people regretted."""

from __future__ import annotations

from typing import Any

import pytest

from policies.policy import BasePolicy
from service.documents import POLICY
from service.pipeline import rollout
from service.store.tables import RolloutState
from tests.api.service_under_test import Api
from tests.cli.conftest import Run

CANARY: dict[str, Any] = {"type": "idle", "mode": "enforce", "rollout": "30%"}


@pytest.fixture
def fallen(served: Api) -> Api:
    """A canary that fell back, and the act that somebody undid."""
    served.admin.put("/api/v1/policies/idle-gpus", json=CANARY)
    policy: BasePolicy = POLICY.validate_python({"name": "idle-gpus", **CANARY})
    begun = rollout.begun(policy, served.clock.now())
    given: dict[str, Any] = {name: getattr(begun, name) for name in RolloutState.model_fields}
    now = served.clock.now()
    given |= {"share": 0.0, "fallen_back_at": now, "reason": "1 of 1 stop was regretted (100 %)."}
    served.store(RolloutState(**given))
    served.resource("trainer")
    served.action("a1", regretted_at=now, regret_why="undo")
    return served


def test_a_rollout_is_shown_with_its_groups_and_resumed(fallen: Api, curfew: Run) -> None:
    shown = curfew("rollout", "show", "idle-gpus")
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    squeezed = " ".join(shown.out.split())
    assert "idle-gpus: It has fallen back and only observes" in squeezed
    assert "In the last 90 days: 1 of 1 stop was regretted (100 %); no back-test" in squeezed
    assert "ENFORCED OBSERVED" in squeezed
    assert "enforce 0%" in curfew("get", "policies").out
    resumed = curfew("rollout", "resume", "idle-gpus", "--reason", "the exporter was broken")
    assert resumed.out == "Policy idle-gpus begins anew with 30% of its scope.\n"
    assert "enforce 30%" in curfew("get", "policies").out
    again = curfew("rollout", "resume", "idle-gpus", "--reason", "twice")
    assert (again.code, again.err) == (1, "curfew: the rollout of policy 'idle-gpus' has not fallen back\n")


def test_a_name_that_nobody_has_is_told_with_the_nearest(fallen: Api, curfew: Run) -> None:
    assert "did you mean 'idle-gpus'?" in curfew("rollout", "show", "idle-gpu").err


def test_what_was_regretted_is_told_where_acts_are(fallen: Api, curfew: Run) -> None:
    table = curfew("get", "actions")
    assert "REGRETTED" in table.out.upper()
    assert "undone" in table.out
    assert max(map(len, table.out.splitlines())) <= 80
    assert "a false stop: somebody undid it" in curfew("explain", "trainer").out
