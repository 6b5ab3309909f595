"""Policies that count across resources act on what is over, and look again across all of them right before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from providers.records import CapacityType, ResourceRecord, ResourceRef
from providers.simulated.activity import Busy
from tests.spine.company import Company, minutes

POLICIES: dict[str, dict[str, Any]] = {
    "quota": {"type": "quota", "quota": {"max_gpus": 16, "per": "project"}},
    "spot": {"type": "spot", "spot": {"allowed_on_demand": "80%"}},
}


@pytest.mark.parametrize("name", POLICIES)
def test_the_newest_is_over_and_stopped_and_the_others_stay(small: Company, name: str) -> None:
    here = small
    here.delete("policy", "idle-gpus")
    more = {"mode": "enforce", "grace": "10m", "accept_loss": ["local_disks"], "disruption_budget": {"max": "100%"}}
    here.document("policy", name=name, **POLICIES[name], **more)
    for age, machine in enumerate(("newest", "middle", "oldest"), 1):
        here.machine(machine, activity=Busy(), launched_at=here.clock.now() - timedelta(hours=age))
    here.cycles(minutes(20))
    stopped = {act.external_id for act in here.stops}
    assert [here.cloud.machines[one].name for one in stopped] == ["newest"]
    assert "16 GPUs" in here.actions()[-1].reason or "80 %" in here.actions()[-1].reason


def test_what_is_no_longer_over_at_the_second_look_is_left_alone(
    small: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = small
    here.delete("policy", "idle-gpus")
    more = {"mode": "enforce", "grace": "10m", "accept_loss": ["local_disks"], "disruption_budget": {"max": "100%"}}
    here.document("policy", name="spot", type="spot", spot={"allowed_on_demand": "0%"}, **more)
    ref = here.machine("trainer", activity=Busy(), launched_at=here.clock.now() - timedelta(hours=1))
    here.cycle()
    member = here.rt.fleet.get("research")
    assert member is not None
    assert member.inventory is not None
    listed = member.inventory.describe

    def described(asked: ResourceRef) -> ResourceRecord:
        return replace(listed(asked), capacity_type=CapacityType.SPOT)

    monkeypatch.setattr(member.inventory, "describe", described)
    here.cycle(after=minutes(10))
    assert here.stops == []
    assert "a second look says ok: Its capacity is spot" in here.finding(ref, "spot").status_reason
