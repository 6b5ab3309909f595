"""Whom a share of a scope holds, and when it rises, waits, falls back and begins anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policies.policy import BasePolicy
from service.model import RolloutStage, Status, Stops
from service.pipeline import rollout
from service.pipeline.decide import World, decide
from service.pipeline.plan import rolled_out_to
from tests.pipeline.builders import NOW, hours, idle_policy, known, limits, record
from tests.pipeline.test_charter import in_a_group, worlds

SHARES = st.floats(0, 1)
NAMES = st.text(max_size=20)
FEW = settings(max_examples=20, phases=(Phase.explicit, Phase.reuse, Phase.generate))
STEPS = {"share": "5%", "steps": ["25%", "100%"], "every": "7d", "max_false_stops": "10%", "min_stops": 4}


def stage(policy: BasePolicy, share: float = 0.05, **more: Any) -> RolloutStage:
    return replace(rollout.begun(policy, NOW - timedelta(days=3)), share=share, **more)


def policy(**more: Any) -> BasePolicy:
    return idle_policy(rollout={**STEPS, **more})


# --- whom a share holds ----------------------------------------------------------------------------------------------


@given(NAMES, NAMES, SHARES, SHARES)
def test_who_is_in_stays_in_as_the_share_rises(name: str, unit: str, one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert rollout.holds(larger, name, unit) or not rollout.holds(smaller, name, unit)


@given(NAMES, NAMES)
def test_nobody_is_in_nothing_and_everybody_in_all_of_it(name: str, unit: str) -> None:
    assert not rollout.holds(0, name, unit)
    assert rollout.holds(1, name, unit)


@settings(max_examples=20)
@given(NAMES, SHARES)
def test_of_many_about_that_share_is_in(name: str, share: float) -> None:
    count = 4000
    met = sum(rollout.holds(share, name, f"i-{number}") for number in range(count))
    assert abs(met / count - share) < 0.05  # more than six standard deviations


def test_another_policy_meets_others() -> None:
    units = [f"i-{number}" for number in range(400)]
    assert {u for u in units if rollout.holds(0.5, "a", u)} != {u for u in units if rollout.holds(0.5, "b", u)}


def test_a_group_is_in_or_out_with_all_that_it_has() -> None:
    machines = in_a_group([known(record=record(f"i-{number}")) for number in range(4)], 3)
    *members, alone, group = machines
    assert rollout.units(machines) == {member.id: group.id for member in members}
    assert alone.id not in rollout.units(machines)


def test_what_is_none_of_ours_yet_is_met_once_everything_is() -> None:
    chosen = policy()
    for share, met in ((0.05, False), (0.999, False), (1.0, True)):
        capped = limits(rollouts={chosen.name: stage(chosen, share)})
        assert rolled_out_to(chosen, None, capped) is met


# --- what the plan makes of it ---------------------------------------------------------------------------------------


def rolled_out(seen: World, share: float, **more: Any) -> World:
    """The same world, with every policy at that share."""
    chosen = {
        name: replace(one, policy=one.policy.model_copy(update={"rollout": policy().rollout}))
        for name, one in seen.policies.items()
    }
    stages = {name: stage(one.policy, share, **more) for name, one in chosen.items()}
    return replace(seen, policies=chosen, limits=replace(seen.limits, rollouts=stages))


@FEW
@given(worlds())
def test_rolled_out_to_all_the_plan_is_the_same_as_without(seen: World) -> None:
    without, everywhere = decide(seen, NOW).plan, decide(rolled_out(seen, 1.0), NOW).plan
    assert everywhere == without


@FEW
@given(worlds(), st.floats(0, 0.999), st.sampled_from([None, NOW - hours(1)]))
def test_outside_of_it_nobody_is_warned_or_acted_on(seen: World, share: float, fell: datetime | None) -> None:
    """Neither where it has not come to yet, nor anywhere once it fell back."""
    partly = rolled_out(seen, share, fallen_back_at=fell)
    ruling = decide(partly, NOW)
    unit_of = rollout.units(ruling.resources)

    def outside(name: str, resource_id: str | None) -> bool:
        unit = unit_of.get(resource_id or "", resource_id or "")
        return fell is not None or not rollout.holds(share, name, unit)

    for intent in ruling.plan.intents:
        assert not outside(intent.finding.policy, intent.resource.id)
    found = {finding.id: finding for finding in ruling.plan.findings}
    for message in ruling.plan.messages:
        if message.kind in ("warning", "reminder", "notice") and message.finding_id in found:
            finding = found[message.finding_id]
            assert not outside(finding.policy, finding.resource_id)
    for finding in found.values():
        if finding.status in (Status.WARNED, Status.DUE) and not finding.status_reason.startswith("Waiting: "):
            assert not outside(finding.policy, finding.resource_id)


@FEW
@given(worlds())
def test_a_policy_whose_rollout_nobody_knows_of_acts_on_nothing(seen: World) -> None:
    unknown = replace(rolled_out(seen, 1.0), limits=seen.limits)
    assert not decide(unknown, NOW).plan.intents


# --- how it goes on --------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)
AT_FIRST = 0.05, 0
CASES: dict[str, tuple[Stops, timedelta, tuple[float, int]]] = {
    "before its time it stays": (Stops(decided=40), 6 * DAY, AT_FIRST),
    "in time and without regret it rises": (Stops(decided=4), 7 * DAY, (0.25, 1)),
    "with as much regret as it may have it rises": (Stops(decided=10, regretted=1), 7 * DAY, (0.25, 1)),
    "with too few decided stops it waits": (Stops(decided=3), 70 * DAY, AT_FIRST),
    "with none it waits": (Stops(), 70 * DAY, AT_FIRST),
    "with more regret it falls back": (Stops(decided=10, regretted=2), DAY, (0.0, 0)),
    "one regretted stop alone makes it fall back": (Stops(decided=1, regretted=1), DAY, (0.0, 0)),
    "in time, but with more regret, it falls back": (Stops(decided=9, regretted=1), 7 * DAY, (0.0, 0)),
}


@pytest.mark.parametrize("case", CASES)
def test_how_it_goes_on(case: str) -> None:
    stops, after, (share, step) = CASES[case]
    chosen = policy()
    before = rollout.begun(chosen, NOW)
    found = rollout.advanced(chosen, before, stops, NOW + after)
    assert (found.share, found.step) == (share, step)
    assert (found.fallen_back_at is not None) is (share == 0)
    assert found.since == (NOW + after if step else NOW)


STOPS = st.builds(lambda decided, share: Stops(decided=decided, regretted=int(decided * share)),
                  st.integers(0, 200), st.floats(0, 1))  # fmt: skip


@given(st.lists(st.tuples(STOPS, st.integers(0, 20)), max_size=20))
def test_it_rises_by_one_step_at_a_time_and_never_after_it_fell_back(past: list[tuple[Stops, int]]) -> None:
    chosen = policy()
    assert chosen.rollout is not None
    now, found = NOW, rollout.begun(chosen, NOW)
    for stops, days in past:
        now += days * DAY
        before, found = found, rollout.advanced(chosen, found, stops, now)
        if before.fallen_back_at is not None:
            assert found == before
        elif rollout.too_many(chosen.rollout, stops):
            assert found.share == 0
        else:
            assert found.step in (before.step, before.step + 1)
            assert found.share == chosen.rollout.shares[found.step]
            assert found.step == before.step or now - before.since >= chosen.rollout.every


def test_the_limit_is_met_exactly() -> None:
    """29 % of 100 is 28.999… in floats."""
    chosen = policy(max_false_stops="29%").rollout
    assert chosen is not None
    assert not rollout.too_many(chosen, Stops(decided=100, regretted=29))
    assert rollout.too_many(chosen, Stops(decided=100, regretted=30))


CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "a description": ({"description": "for the board"}, False),
    "a channel": ({"notify": ["mail@example.org"]}, False),
    "the window": ({"idle": {"for": "1h"}}, True),
    "the mode": ({"mode": "warn"}, True),
    "the rollout itself": ({"rollout": "50%"}, True),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_policy_begins_anew(what: str) -> None:
    change, anew = CHANGES[what]
    before = replace(rollout.begun(policy(), NOW - DAY), share=0.0, fallen_back_at=NOW - hours(1))
    changed = idle_policy(**{"rollout": STEPS, **change})
    found = rollout.advanced(changed, before, Stops(), NOW)
    assert (found != before) is anew
    assert found.share == ((changed.rollout.share if changed.rollout else 0) if anew else 0)


@pytest.mark.parametrize(
    ("stops", "said"),
    [
        (Stops(), "No stop is decided yet"),
        (Stops(decided=1, regretted=1), "1 of 1 stop was regretted (100 %)"),
        (Stops(decided=31, regretted=2), "2 of 31 stops were regretted (6 %)"),
        (Stops(decided=200, regretted=1), "1 of 200 stops were regretted (0.5 %)"),
        (Stops(decided=31), "0 of 31 stops were regretted (0 %)"),
    ],
)
def test_regret_in_words(stops: Stops, said: str) -> None:
    assert rollout.of_stops(stops) == said


def test_what_comes_next_is_said() -> None:
    chosen = policy()
    now, begun = NOW, rollout.begun(chosen, NOW)
    assert "It rises to 25% at 2026-11-23" in rollout.words(chosen, begun, Stops(), now)
    assert "It waits to rise to 25% until 4 stops" in rollout.words(chosen, begun, Stops(), now + 8 * DAY)
    last = replace(begun, step=2, share=1.0)
    assert rollout.words(chosen, last, Stops(), now).endswith("That is its last step.")
    short = idle_policy(rollout="5%")
    assert "only when the policy is changed" in rollout.words(short, rollout.begun(short, now), Stops(), now)
    fallen = rollout.advanced(chosen, begun, Stops(decided=2, regretted=2), now)
    assert "until a person resumes it" in rollout.words(chosen, fallen, Stops(), now)


def test_whom_the_news_of_it_goes_to() -> None:
    chosen = idle_policy(rollout=STEPS, scope={"projects": ["vision", "speech"]}, notify=["slack://a"])
    told = rollout.messages(chosen, rollout.begun(chosen, NOW), NOW)
    assert [(one.project, one.policy_channels) for one in told] == [
        (None, ("slack://a",)), ("vision", ()), ("speech", ()),
    ]  # fmt: skip
    assert len({one.key for one in told}) == 3
