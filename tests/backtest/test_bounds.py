"""What is asked of the past is worked out in the process that governs: no question makes it take all there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policies.policy import BasePolicy, ExpressionPolicy, IdlePolicy
from service.backtest import life, past
from service.backtest.question import NotReplayable, Question
from service.backtest.replay import backtest
from tests.backtest.pasts import T0, every, machine, written

DAY = 86_400


def asked(folder: Path, policy: BasePolicy) -> Any:
    history = written(folder, [machine("m-1", T0, T0 + DAY, every(60, T0, T0 + DAY, value=0.9))])
    return backtest(history, Question(policy=policy, end=datetime.fromtimestamp(T0 + DAY, UTC)))


def test_a_policy_that_stops_what_works_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "MOST_STOPS", 20)
    policy = ExpressionPolicy.model_validate(
        {
            "name": "all",
            "type": "expression",
            "expression": {"when": "gpu_count >= 1"},
            "grace": "0s",
            "cool_down": "0s",
        }
        | {"disruption_budget": {"max": "100%"}}
    )
    with pytest.raises(NotReplayable, match="stopped more than 20 times; ask of a shorter time"):
        asked(tmp_path, policy)


def test_a_policy_that_believes_each_sample_for_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "MOST_STRETCHES", 200)
    policy = IdlePolicy.model_validate(
        {"name": "now", "type": "idle", "idle": {"for": "15m", "max_gap": "1s"}, "grace": "0s"}
    )
    with pytest.raises(NotReplayable, match="more than 200 stretches"):
        asked(tmp_path, policy)
    patient = policy.model_copy(update={"idle": policy.idle.model_copy(update={"max_gap": timedelta(minutes=5)})})
    assert asked(tmp_path / "again", patient).totals.stops == 0
