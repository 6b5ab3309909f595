"""The charter as properties of `decide`, over worlds nobody would think of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policies.codes import BREACH
from policies.policy import BasePolicy, Mode
from providers.records import CapacityType, Kind, Price, Protection, Series, Signal, State
from service.documents import POLICY
from service.model import ActiveHold, FindingState, Known, PastAct, Status
from service.pipeline.decide import World, decide
from service.pipeline.plan import InForce, Standing
from tests.pipeline.builders import (
    NOW,
    REGION,
    SOURCE,
    answer,
    exemption,
    finding,
    gpus,
    hours,
    idle_policy,
    in_force,
    known,
    limits,
    minutes,
    record,
    series,
    unowned_policy,
    warned,
    world,
)

SOURCES = (SOURCE, "second")


def counting(type: str, **rule: Any) -> BasePolicy:
    """A policy that counts across resources."""
    return POLICY.validate_python(
        {"name": type, "type": type, "mode": "enforce", "disruption_budget": {"max": "100%"}, **rule}
    )


POLICIES: dict[str, InForce] = {
    "idle-gpus": in_force(idle_policy("idle-gpus")),
    "spare": in_force(
        idle_policy("spare", idle={"for": "30m", "busy_gpus_below": 2, "when": "max_utilisation < 0.02"})
    ),
    "cool": in_force(idle_policy("cool", idle={"for": "45m", "when": "max_power_watts < 90 AND idle_seconds > 2700"})),
    "unowned": in_force(unowned_policy("unowned")),
    "spot": in_force(counting("spot", spot={"allowed_on_demand": "50%"})),
    "quota": in_force(counting("quota", quota={"max_gpus": 8})),
}
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
"""A ruling takes some hundredths of a second: every run looks at other worlds, and makes none of them smaller."""
FEW = settings(max_examples=20, phases=QUICK)
MANY = settings(max_examples=20, phases=QUICK)
LOCK = Protection(source="curfew-protect", sentence="its tag curfew-protect is 'yes'")


# --- worlds -----------------------------------------------------------------------------------------------------------


def mostly(usual: Any, *rare: Any) -> st.SearchStrategy[Any]:
    """The usual in five cases of six."""
    return st.integers(0, 5).flatmap(lambda die: st.sampled_from(rare) if die == 5 else st.just(usual))


@st.composite
def machines(draw: st.DrawFn, number: int) -> Known:
    """Running, unowned and unprotected mostly; of either source, with or without project and price."""
    state = draw(mostly(State.RUNNING, State.STOPPED, State.UNKNOWN))
    started = draw(mostly(hours(24), minutes(50), minutes(5)))
    tags = draw(mostly({"project": "vision"}, {"project": "vision", "owner": "mai"}, {}))
    seen = record(
        f"i-{number}",
        state=state,
        gpu_count=draw(st.integers(1, 3)),
        tags=tags,
        launched_at=NOW - started,
        capacity_type=draw(st.sampled_from([CapacityType.ON_DEMAND, CapacityType.SPOT])),
        protections=draw(mostly((), (LOCK,))),
    )
    rate = draw(mostly(55_040_000, None, 1_000_000, 8_000_000))
    return known(
        record=seen,
        source=draw(st.sampled_from(SOURCES)),
        started_at=NOW - started if state is State.RUNNING else None,
        project=tags.get("project"),
        owner=tags.get("owner"),
        price=None if rate is None else Price(rate_micros=rate, currency="USD", source="list"),
        restarted_at=draw(mostly(None, NOW - minutes(40))),
    )


LOADS: tuple[Any, ...] = (
    0.0,
    0.04,
    0.9,
    lambda before: 0.9 if before == -20 else 0.0,
    lambda before: None if -30 < before < -10 else 0.0,
    lambda before: 0.9 if before >= -1 else 0.0,
)


@st.composite
def telemetry_of(draw: st.DrawFn, machine: Known) -> tuple[Series, ...]:
    """All its GPUs idle and cool, but for one or the other."""
    found = []
    for device in range(machine.record.gpu_count):
        spoken: dict[str, Any] = {"device": str(device), "of": machine.record.ref, "length": hours(1.5)}
        for signal, values, usual in (
            (Signal.UTILISATION, LOADS, 0.0),
            (Signal.POWER_WATTS, (300.0,), 60.0),
        ):
            load = draw(mostly(usual, None, *values))
            if load is not None:
                found.append(series(load, signal=signal, **spoken))
    return tuple(found)


@st.composite
def findings_of(draw: st.DrawFn, machine: Known, policy: str) -> FindingState | None:
    """Where the finding of one policy on one machine stands: due, mostly."""
    about: dict[str, Any] = {"id": f"{policy}-{machine.record.name}", "policy": policy}
    found: FindingState | None = draw(
        mostly(
            warned(machine, **about),
            None,
            finding(machine, **about),
            warned(machine, **about, status=Status.DUE, approved_at=NOW),
            warned(machine, **about, due=minutes(20)),
            finding(machine, **about, status=Status.SNOOZED, quiet_until=NOW + hours(1)),
            finding(machine, **about, status=Status.ENFORCED),
            finding(machine, **about, status=Status.ACTING),
            finding(machine, **about, status=Status.REFUSED, quiet_by="recheck", quiet_until=NOW),
        )
    )
    return found


def in_a_group(found: list[Known], size: int) -> list[Known]:
    """The first so many are members of a scaling group, which is a resource too."""
    if not size:
        return found
    members = [
        replace(one, source=SOURCE, record=replace(one.record, managed_by="autoscaling:trainers"))
        for one in found[:size]
    ]
    seen = record(
        "trainers",
        kind=Kind.NODE_GROUP,
        members=tuple(one.record.ref.external_id for one in members),
        gpu_count=sum(one.record.gpu_count for one in members),
        launched_at=None,
    )
    return [*members, *found[size:], known(record=seen)]


@st.composite
def worlds(draw: st.DrawFn, /, **more: Any) -> World:
    """A dozen machines under up to four policies, in the middle of it all: each of them is a case of its own."""
    found = [draw(machines(number)) for number in range(draw(st.sampled_from([1, 4, 12])))]
    found = in_a_group(found, draw(st.sampled_from([0, 0, 1, 3])))
    names = draw(st.lists(st.sampled_from(sorted(POLICIES)), unique=True, min_size=1))
    standing = [draw(findings_of(machine, name)) for machine in found for name in names]
    chosen = {name: POLICIES[name] for name in names} | more.pop("policies", {})
    return world(
        *found,
        policies=list(chosen.values()),
        series={machine.id: draw(telemetry_of(machine)) for machine in found if not machine.is_group},
        answers=[
            answer(*(machine.record for machine in found if machine.source == source), source=source)
            for source in SOURCES
        ],
        standing=Standing(findings=tuple(f for f in standing if f is not None), **more.pop("standing", {})),
        exemptions=draw(mostly((), (exemption(resources=["i-0"]),))),
        limits=limits(source_ceilings={source: Mode.ENFORCE for source in SOURCES}, **more.pop("limits", {})),
        **more,
    )


def acted_on(seen: World) -> set[str]:
    """Whom the plan would act on."""
    return {intent.resource.id for intent in decide(seen, NOW).plan.intents}


def due(seen: World) -> set[tuple[str, str]]:
    """Which policies would act on whom, if none other did before."""
    standing = {one.id: one for one in seen.standing.findings}
    found = standing | {one.id: one for one in decide(seen, NOW).plan.findings}
    return {(one.policy, one.resource_id) for one in found.values() if one.status is Status.DUE}


# --- 1: unknown never stops anything ----------------------------------------------------------------------------------


def with_less(seen: World, random: Random) -> Iterator[World]:
    """The same world with less known of it: everywhere at once, as each machine is judged by itself."""
    telemetry = seen.telemetry
    yield replace(seen, telemetry=replace(telemetry, series={}))
    yield replace(seen, telemetry=replace(telemetry, ambiguous=frozenset(seen.known)))
    yield replace(seen, known={key: replace(one, started_at=None) for key, one in seen.known.items()})
    for source in SOURCES:
        others = [one for one in seen.answers if one.source != source]
        yield replace(seen, answers=others)
        yield replace(seen, answers=[*others, answer(source=source, regions=(), failed=[REGION])])
    for change in (without, late, without, late):
        less = {key: change(found, random) for key, found in telemetry.series.items()}
        yield replace(seen, telemetry=replace(telemetry, series=less))


def without(found: tuple[Series, ...], random: Random) -> tuple[Series, ...]:
    """One series is missing."""
    gone = random.randrange(len(found)) if found else 0
    return found[:gone] + found[gone + 1 :]


def late(found: tuple[Series, ...], random: Random) -> tuple[Series, ...]:
    """One series lacks its last twenty minutes."""
    slow = random.randrange(len(found)) if found else 0
    return tuple(
        replace(one, times=one.times[:-20], values=one.values[:-20]) if index == slow else one
        for index, one in enumerate(found)
    )


@MANY
@given(worlds(), st.randoms(use_true_random=False))
def test_knowing_less_never_causes_an_act(seen: World, random: Random) -> None:
    before = due(seen)
    for less in with_less(seen, random):
        assert due(less) <= before


# --- 5: the owner, never the member -----------------------------------------------------------------------------------


@MANY
@given(worlds())
def test_a_member_is_never_acted_on_and_its_group_only_when_every_member_breaches(seen: World) -> None:
    ruling = decide(seen, NOW)
    for intent in ruling.plan.intents:
        assert intent.resource.record.managed_by is None
        for name in intent.resource.record.members:
            (member,) = (one for one in ruling.resources if one.record.ref.external_id == name)
            outcome = ruling.judged.judgement.outcomes[intent.finding.policy]
            down = member.record.state in (State.STOPPED, State.SUSPENDED)
            assert down or outcome.codes[ruling.judged.rows[member.id]] == BREACH
            assert not member.record.protections


# --- 8: small blast radius --------------------------------------------------------------------------------------------

BUDGETS = st.fixed_dictionaries(
    {"max": st.sampled_from([0, 1, 2, "10%", "34%", "50%", "100%"])},
    optional={"max_hourly_cost": st.sampled_from([0, 1, 9, 56, 120])},
)
PAST = st.lists(st.sampled_from([1_000_000, 55_040_000]), max_size=3).map(
    lambda rates: tuple(
        PastAct(policy="idle-gpus", resource_id=f"x{n}", gpus=8, rate_micros=rate, currency="USD")
        for n, rate in enumerate(rates)
    )
)


def limited(budget: dict[str, Any]) -> dict[str, InForce]:
    return {name: in_force(policy_with(name, budget)) for name in POLICIES}


def policy_with(name: str, budget: dict[str, Any]) -> Any:
    return POLICIES[name].policy.model_copy(
        update={"disruption_budget": idle_policy(disruption_budget=budget).disruption_budget}
    )


@st.composite
def limited_worlds(draw: st.DrawFn, /, budget: dict[str, Any], **more: Any) -> World:
    seen: World = draw(worlds(standing={"acts": draw(PAST)}, **more))
    return replace(seen, policies={name: limited(budget)[name] for name in seen.policies})


@FEW
@given(BUDGETS.flatmap(lambda budget: st.tuples(st.just(budget), limited_worlds(budget))))
def test_acts_within_an_hour_fit_the_disruption_budget(given_: tuple[dict[str, Any], World]) -> None:
    budget, seen = given_
    ruling = decide(seen, NOW)
    counts: Counter[str] = Counter()
    money: Counter[str] = Counter()
    for act in seen.standing.acts:
        counts[act.policy or ""] += 1
        money[act.policy or ""] += act.rate_micros
    for name in seen.policies:
        mine = [intent for intent in ruling.plan.intents if intent.finding.policy == name]
        scope = ruling.judged.judgement.outcomes[name].in_scope
        most = budget["max"] if isinstance(budget["max"], int) else math.ceil(int(budget["max"][:-1]) * scope / 100)
        assert not mine or counts[name] + len(mine) <= most
        if "max_hourly_cost" in budget:
            assert all(intent.resource.price is not None for intent in mine)
            spent = sum(intent.resource.price.rate_micros for intent in mine if intent.resource.price)
            assert not mine or money[name] + spent <= budget["max_hourly_cost"] * 1_000_000


TIGHTER = {"100%": "50%", "50%": "34%", "34%": "10%", "10%": 0, 2: 1, 1: 0, 0: 0}


@FEW
@given(BUDGETS.flatmap(lambda budget: st.tuples(st.just(budget), limited_worlds(budget))))
def test_a_tighter_count_acts_on_no_others_and_less_money_disturbs_no_more_of_it(
    given_: tuple[dict[str, Any], World],
) -> None:
    budget, seen = given_
    before = decide(seen, NOW).plan.intents
    fewer = {**budget, "max": TIGHTER[budget["max"]]}
    tighter = replace(seen, policies={name: limited(fewer)[name] for name in seen.policies})
    assert acted_on(tighter) <= {intent.resource.id for intent in before}
    if "max_hourly_cost" in budget:
        cheaper = {**budget, "max": "100%", "max_hourly_cost": budget["max_hourly_cost"] // 2}
        roomy = {**budget, "max": "100%"}
        for name in seen.policies:
            spent = [
                sum(
                    intent.resource.price.rate_micros
                    for intent in decide(replace(seen, policies={name: limited(one)[name]}), NOW).plan.intents
                    if intent.resource.price
                )
                for one in (cheaper, roomy)
            ]
            assert spent[0] <= spent[1]


@FEW
@given(st.sampled_from([0.1, 0.3, 0.5, 1.0]).flatmap(lambda share: worlds(limits={"breaker": share})), PAST)
def test_the_breaker_lets_no_more_than_its_share_through(seen: World, past: tuple[PastAct, ...]) -> None:
    seen = replace(seen, standing=replace(seen.standing, acts=past))
    planned = {i.resource.id: i.resource.record.gpu_count for i in decide(seen, NOW).plan.intents}
    machines = [one for one in seen.known.values() if not one.is_group]
    running = sum(one.record.gpu_count for one in machines if one.record.state is State.RUNNING)
    disturbed, total = sum(planned.values()) + 8 * len(past), running + 8 * len(past)
    assert not planned or len(planned) + len(past) == 1 or disturbed / total <= seen.limits.breaker


@FEW
@given(worlds(), st.sampled_from([None, "vision"]))
def test_nothing_is_acted_on_under_a_hold(seen: World, project: str | None) -> None:
    hold = ActiveHold(id="h", project=project, reason="a visit", until=None)
    found = decide(replace(seen, standing=replace(seen.standing, holds=(hold,))), NOW).plan.intents
    assert [one for one in found if project in (None, one.resource.project)] == []


# --- 2 and 3: observe first, and no stop without a warning ------------------------------------------------------------


@FEW
@given(worlds(), st.sampled_from([Mode.OBSERVE, Mode.WARN]), st.booleans())
def test_below_enforce_nothing_is_acted_on(seen: World, ceiling: Mode, everywhere: bool) -> None:
    capped = {"ceiling": ceiling} if everywhere else {"source_ceilings": {source: ceiling for source in SOURCES}}
    assert acted_on(replace(seen, limits=replace(seen.limits, **capped))) == set()


@FEW
@given(worlds())
def test_whatever_is_acted_on_was_warned_about_a_grace_ago(seen: World) -> None:
    for intent in decide(seen, NOW).plan.intents:
        assert intent.finding.warned_at is not None
        assert intent.finding.warned_at + seen.policies[intent.finding.policy].policy.grace <= NOW
        assert intent.resource.record.protections == ()


# --- the same from whichever side one looks ---------------------------------------------------------------------------


def shuffled(seen: World, random: Random) -> World:
    """The same world, with everything in another order."""

    def mixed(items: Any) -> list[Any]:
        found = list(items)
        random.shuffle(found)
        return found

    answers = [
        replace(one, answer=replace(one.answer, records=tuple(mixed(one.answer.records))))
        for one in mixed(seen.answers)
        if one.answer is not None
    ]
    series = {key: tuple(mixed(found)) for key, found in mixed(seen.telemetry.series.items())}
    return replace(
        seen,
        known=dict(mixed(seen.known.items())),
        answers=answers,
        telemetry=replace(seen.telemetry, series=series),
        policies=dict(mixed(seen.policies.items())),
        projects=dict(mixed(seen.projects.items())),
        sources=dict(mixed(seen.sources.items())),
        exemptions=mixed(seen.exemptions),
        standing=replace(seen.standing, findings=mixed(seen.standing.findings), acts=mixed(seen.standing.acts)),
    )


def said(seen: World) -> tuple[Any, ...]:
    """A ruling without its order."""
    ruling = decide(seen, NOW)
    by_id: Callable[[Any], str] = lambda one: one.id  # noqa: E731
    return (
        sorted(ruling.resources, key=by_id),
        sorted(ruling.plan.findings, key=by_id),
        sorted((i.finding.id, i.resource.id, i.verb) for i in ruling.plan.intents),
        sorted(message.key for message in ruling.plan.messages),
        sorted(change.resource_id for change in ruling.meter),
        ruling.plan.breaker,
    )


@FEW
@given(limited_worlds({"max": 2, "max_hourly_cost": 60}), st.randoms(use_true_random=False))
def test_the_order_of_things_does_not_matter(seen: World, random: Random) -> None:
    assert said(shuffled(seen, random)) == said(seen)


@FEW
@given(worlds())
def test_the_same_world_gives_the_same_ruling_and_names_nothing_that_is_not_in_it(seen: World) -> None:
    ruling = decide(seen, NOW)
    assert said(seen) == said(seen)
    named = {one.resource_id for one in ruling.plan.findings} | {one.resource.id for one in ruling.plan.intents}
    assert named <= seen.known.keys()
    assert {one.id for one in ruling.resources} == seen.known.keys()
    assert set(ruling.judged.rows) <= seen.known.keys()


def test_these_worlds_do_act() -> None:
    """The properties would hold of worlds in which nothing ever happens."""
    one = known(owner=None, record=record(tags={"project": "vision"}))
    assert acted_on(world(one, series={one.id: gpus()}, standing=Standing(findings=(warned(one),)))) == {one.id}
