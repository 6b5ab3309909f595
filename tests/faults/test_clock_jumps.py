"""The clock jumps an hour, between two cycles and in the middle of one: nobody is acted on without samples of the time
that never was, and no grace is shorter than what was promised.

Clocks of a simulated cloud, which jump too, are the business of `tests.spine.test_outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from service.store.tables import Action
from tests.faults.installation import Installation
from tests.providers.aws.front import Call, Reply

HOUR = timedelta(hours=1)
MOMENTS: dict[str, Callable[[Call], bool]] = {
    "between two cycles": lambda call: call.action == "sts:GetCallerIdentity",
    "while it lists": lambda call: call.action == "ec2:DescribeInstances",
    "while it asks for samples": lambda call: call.action == "cloudwatch:GetMetricData",
}


@pytest.mark.parametrize("sentence", MOMENTS)
@pytest.mark.parametrize("way", [HOUR, -HOUR], ids=["ahead", "back"])
def test_it_jumps(way: timedelta, sentence: str, here: Installation) -> None:
    here.machine("trainer", "us-east-1", until=timedelta(minutes=12))
    assert here.cycle().error is None
    promised = here.finding("trainer").due_at
    assert promised is not None
    jumped: list[Call] = []

    def rule(call: Call) -> Reply | None:
        if not jumped and MOMENTS[sentence](call):
            jumped.append(call)
            here.clock.forward(way)
        return None

    here.clock.forward(timedelta(minutes=10))
    with here.front.within(rule):
        for _ in range(3):
            assert here.cycle(after=timedelta(minutes=1)).error is None
    assert jumped
    assert here.stopped == set()
    assert here.rows(Action) == []

    here.clock.forward(-way)  # somebody puts it right
    here.sampled("trainer", percent=0, since=timedelta(0), until=timedelta(hours=3))
    while here.clock.now() < promised + 2 * HOUR:
        assert here.cycle(after=timedelta(minutes=8)).error is None
        if here.clock.now() < promised:
            assert here.stopped == set()
    assert here.stopped == {"trainer"}
    assert here.stops_of("trainer") == 1
    assert [action.status for action in here.rows(Action)] == ["verified"]
