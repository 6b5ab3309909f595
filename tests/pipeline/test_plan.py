"""Every step of a finding's life, and every reason not to act, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from policies.codes import FORESEEN
from policies.groups import Folded
from policies.policy import Mode
from providers.records import Blocker, Kind, Loss, LossName, Price, Protection, Signal, State, Verb
from service.model import ActiveHold, FindingState, Intent, Known, Message, PastAct, Status, Telemetry
from service.pipeline.decide import Ruling, World, decide
from service.pipeline.plan import Standing, plan
from tests.pipeline.builders import (
    NOW,
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

ONE = known()
ASKED: dict[str, Any] = {"stop_now_by": "token:lead", "due_at": NOW}
LOCK = Protection(source="curfew-protect", sentence="its tag curfew-protect is 'yes'")
DISKS = Loss(verb=Verb.STOP, name=LossName.LOCAL_DISKS, sentence="a p5.48xlarge has local disks.")
ONE_TIME = Blocker(verb=Verb.STOP, code="OneTimeSpot", sentence="It is a one-time spot request, which cannot stop.")
HOLD = ActiveHold(id="h", project=None, reason="demo day", until=NOW + hours(4))


def machine(**more: Any) -> Known:
    """ONE, with other things seen on it."""
    return known(record=record(**more))


def stands(*findings: FindingState, **more: Any) -> Standing:
    return Standing(findings=findings, **more)


@dataclass(frozen=True)
class After:
    """What a plan made of the one finding there is."""

    ruling: Ruling

    @property
    def finding(self) -> FindingState:
        [found] = self.ruling.plan.findings
        return found

    @property
    def intents(self) -> Sequence[Intent]:
        return self.ruling.plan.intents

    @property
    def said(self) -> list[Message]:
        return [one for one in self.ruling.plan.messages if one.kind in ("warning", "notice")]


def after(*machines: Known, at: timedelta = timedelta(0), **more: Any) -> After:
    return After(decide(world(*(machines or (ONE,)), **more), NOW + at))


BUSY = {ONE.id: gpus(0.9)}
SILENT: dict[str, Any] = {}


def one(*findings: FindingState, **more: Any) -> dict[str, Any]:
    """A world with this finding standing."""
    standing = more.pop("standing", {})
    return {"standing": stands(*findings, **standing), **more}


# (the world, status afterwards, words of the reason, is an act intended?, kind of message)
STEPS: dict[str, tuple[tuple[Known, ...], dict[str, Any], Status, str, bool, str | None]] = {
    # opening and warning
    "a breach opens a finding and queues its warning": (
        (ONE,),
        {},
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "as long as nobody took the warning it stays open, however long": (
        (ONE,),
        one(finding(opened_at=NOW - hours(99))),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "warned: it waits for its time": (
        (ONE,),
        one(warned(due=minutes(10))),
        Status.WARNED,
        "Warned; acts at 2026-11-16T09:10:00+00:00 unless somebody objects.",
        False,
        None,
    ),
    "a second before its time nothing is done": (
        (ONE,),
        one(warned(due=timedelta(seconds=1))),
        Status.WARNED,
        "Warned; acts at",
        False,
        None,
    ),
    "the grace is over: it is due": ((ONE,), one(warned()), Status.DUE, "The grace is over.", True, None),
    # modes and ceilings
    "observed: nothing is said or done": (
        (ONE,),
        {"policies": [idle_policy(mode="observe")]},
        Status.OPEN,
        "The policy's mode is observe: nothing is said or done.",
        False,
        None,
    ),
    "warned by a policy that only warns: it rests there": (
        (ONE,),
        one(warned(due_at=None), policies=[idle_policy(mode="warn")]),
        Status.WARNED,
        "The policy's mode is warn: nothing is done.",
        False,
        None,
    ),
    "a policy that only notifies": (
        (ONE,),
        one(warned(due_at=None), policies=[idle_policy(action="notify")]),
        Status.WARNED,
        "The policy only notifies.",
        False,
        None,
    ),
    "the installation's ceiling is warn": (
        (ONE,),
        one(warned(due_at=None), limits=limits(ceiling=Mode.WARN)),
        Status.WARNED,
        "The policy would enforce, but this installation's ceiling is warn.",
        False,
        None,
    ),
    "the installation's ceiling is observe": (
        (ONE,),
        {"limits": limits(ceiling=Mode.OBSERVE)},
        Status.OPEN,
        "The policy would enforce, but this installation's ceiling is observe.",
        False,
        None,
    ),
    "the source's ceiling is warn": (
        (ONE,),
        one(warned(due_at=None), limits=limits(source_ceilings={SOURCE: Mode.WARN})),
        Status.WARNED,
        "The policy would enforce, but the ceiling of source research is warn.",
        False,
        None,
    ),
    "the source's ceiling is observe": (
        (ONE,),
        {"limits": limits(source_ceilings={SOURCE: Mode.OBSERVE})},
        Status.OPEN,
        "The policy would enforce, but the ceiling of source research is observe.",
        False,
        None,
    ),
    "without a public URL nobody could answer": (
        (ONE,),
        one(warned(due_at=None), limits=limits(links_usable=False)),
        Status.WARNED,
        "Without a usable CURFEW_PUBLIC_URL nobody can answer a warning, so nothing is enforced.",
        False,
        None,
    ),
    "raised from warn to enforce, an old warning is not enough": (
        (ONE,),
        one(warned(due_at=None)),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "lowered to warn, what was due is not": (
        (ONE,),
        one(warned(), limits=limits(ceiling=Mode.WARN)),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "lowered to observe, the warning no longer counts": (
        (ONE,),
        one(warned(), limits=limits(ceiling=Mode.OBSERVE)),
        Status.OPEN,
        "this installation's ceiling is observe",
        False,
        None,
    ),
    "due without ever having been warned is no such thing": (
        (ONE,),
        one(finding(status=Status.DUE, due_at=NOW - hours(1))),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    # starting anew
    "the policy was changed after the warning": (
        (ONE,),
        one(warned(), policies=[in_force(idle_policy(), version=2, stricter_since=NOW - minutes(1))]),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "a change before the warning is what was warned about": (
        (ONE,),
        one(warned(), policies=[in_force(idle_policy(), version=2, stricter_since=NOW - minutes(31))]),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "it moved to another project in the meantime": (
        (ONE,),
        one(warned(project="nlp")),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "it was restarted in the meantime": (
        (known(started_at=NOW - hours(2), restarted_at=NOW - hours(2)),),
        one(warned(warned_at=NOW - hours(3)), policies=[idle_policy(cool_down="1h")]),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "it was restarted and is left alone": (
        (known(started_at=NOW - hours(2), restarted_at=NOW - hours(2)),),
        one(warned(warned_at=NOW - hours(3))),
        Status.OPEN,
        "It was restarted and is left alone until 2026-11-16T11:00:00+00:00 (cool-down).",
        False,
        None,
    ),
    "a hold ended after the warning": (
        (ONE,),
        one(warned(), standing={"held_until": {None: NOW - minutes(1)}}),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "a hold of its project ended after the warning": (
        (ONE,),
        one(warned(), standing={"held_until": {"vision": NOW - minutes(1)}}),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "a hold of another project is none of its business": (
        (ONE,),
        one(warned(), standing={"held_until": {"nlp": NOW - minutes(1)}}),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "a warning from the future: the clock was set back": (
        (ONE,),
        one(warned(warned_at=NOW + minutes(40), due_at=NOW - minutes(1))),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "a policy that seems to have been changed in the future was changed before the warning": (
        (ONE,),
        one(warned(), policies=[in_force(idle_policy(), version=1, stricter_since=NOW + minutes(10))]),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "unless nobody has judged by it yet": (
        (ONE,),
        one(warned(), policies=[in_force(idle_policy(), version=2, stricter_since=NOW + minutes(10))]),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    # quiet
    "exempt": (
        (ONE,),
        one(warned(), exemptions=(exemption(),)),
        Status.EXEMPT,
        "Exempt until 2026-11-20T00:00:00+00:00: demo day",
        False,
        None,
    ),
    "an exemption from other policies is none from this": (
        (ONE,),
        one(warned(), exemptions=(exemption(policies=["unowned"]),)),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "the exemption is over: a fresh warning": (
        (ONE,),
        one(finding(status=Status.EXEMPT, quiet_until=NOW - minutes(1))),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "the exemption was withdrawn: a fresh warning": (
        (ONE,),
        one(finding(status=Status.EXEMPT, quiet_until=NOW + hours(9))),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "the snooze is over: a fresh warning": (
        (ONE,),
        one(finding(status=Status.SNOOZED, quiet_until=NOW)),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    # forbidden
    "protected": (
        (machine(protections=(LOCK,)),),
        one(warned()),
        Status.REFUSED,
        "It is protected: its tag curfew-protect is 'yes'",
        False,
        "notice",
    ),
    "protected until tomorrow": (
        (machine(protections=(replace(LOCK, until=NOW + hours(24)),)),),
        {},
        Status.REFUSED,
        "It is protected",
        False,
        "notice",
    ),
    "a protection that has ended protects no more": (
        (machine(protections=(replace(LOCK, until=NOW),)),),
        one(warned()),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "managed by a scaling group": (
        (machine(managed_by="autoscaling:trainers"),),
        {},
        Status.REFUSED,
        "It is a member of autoscaling:trainers; members are never acted on, only their owner.",
        False,
        "notice",
    ),
    "local disks that nobody accepted to lose": (
        (machine(losses=(DISKS,)),),
        {"policies": [idle_policy(accept_loss=[])]},
        Status.REFUSED,
        "a p5.48xlarge has local disks. That needs accept_loss: [local_disks].",
        False,
        "notice",
    ),
    "a loss of another verb is none of this": (
        (machine(losses=(replace(DISKS, verb=Verb.TERMINATE),)),),
        one(warned(), policies=[idle_policy(accept_loss=[])]),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "termination that nobody accepted": (
        (ONE,),
        {"policies": [idle_policy(action="terminate")]},
        Status.REFUSED,
        "It would be terminated for good; that needs accept_loss: [terminate].",
        False,
        "notice",
    ),
    "a one-time spot request": (
        (machine(blockers=(ONE_TIME,)),),
        {},
        Status.REFUSED,
        "It is a one-time spot request, which cannot stop.",
        False,
        "notice",
    ),
    "a Kubernetes node": (
        (machine(kind=Kind.NODE),),
        {},
        Status.REFUSED,
        "It is a Kubernetes node; nodes are never stopped directly, only through what runs on them.",
        False,
        "notice",
    ),
    "a cloud that knows no such verb": (
        (ONE,),
        {"limits": replace(limits(), verbs={SOURCE: {Kind.INSTANCE: frozenset({Verb.TERMINATE})}})},
        Status.REFUSED,
        "Curfew has no way to do that here (stop).",
        False,
        "notice",
    ),
    "what forbade acting is gone: a fresh warning": (
        (ONE,),
        one(finding(status=Status.REFUSED)),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "what runs no longer needs no stopping": (
        (known(record=record(state=State.STOPPED), started_at=None),),
        {"policies": [unowned_policy()]},
        Status.OPEN,
        "It is stopped, so there is nothing to do.",
        False,
        None,
    ),
    # waiting when due
    "on hold": (
        (ONE,),
        one(warned(), standing={"holds": (HOLD,)}),
        Status.DUE,
        "Everything is on hold until 2026-11-16T13:00:00+00:00: demo day",
        False,
        None,
    ),
    "its project is on hold until somebody lifts it": (
        (ONE,),
        one(warned(), standing={"holds": (replace(HOLD, project="vision", until=None),)}),
        Status.DUE,
        "Project vision is on hold until somebody lifts it: demo day",
        False,
        None,
    ),
    "another project is on hold": (
        (ONE,),
        one(warned(), standing={"holds": (replace(HOLD, project="nlp"),)}),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "approval is required": (
        (ONE,),
        one(warned(), policies=[idle_policy(approval="required")]),
        Status.DUE,
        "Waits for a person's approval.",
        False,
        None,
    ),
    "approved, but the grace is not over": (
        (ONE,),
        one(warned(due=minutes(1), approved_at=NOW), policies=[idle_policy(approval="required")]),
        Status.WARNED,
        "Warned; acts at",
        False,
        None,
    ),
    "approved": (
        (ONE,),
        one(warned(approved_at=NOW), policies=[idle_policy(approval="required")]),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "the disruption budget is spent by count": (
        (ONE,),
        one(
            warned(),
            policies=[idle_policy(disruption_budget={"max": 1})],
            standing={"acts": (PastAct(policy="idle-gpus", resource_id="other", gpus=8, rate_micros=1),)},
        ),
        Status.DUE,
        "Waits for the disruption budget: 1 of 1 in 1 resources were disturbed within the hour.",
        False,
        None,
    ),
    "another policy's acts do not count": (
        (ONE,),
        one(
            warned(),
            policies=[idle_policy(disruption_budget={"max": 1})],
            standing={"acts": (PastAct(policy="unowned", resource_id="other", gpus=8, rate_micros=1),)},
        ),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "a disruption budget of nothing": (
        (ONE,),
        one(warned(), policies=[idle_policy(disruption_budget={"max": 0})]),
        Status.DUE,
        "Waits for the disruption budget: 0 of 0",
        False,
        None,
    ),
    "the disruption budget is spent by money": (
        (ONE,),
        one(
            warned(),
            policies=[idle_policy(disruption_budget={"max": 5, "max_hourly_cost": 60})],
            standing={
                "acts": (
                    PastAct(policy="idle-gpus", resource_id="other", gpus=1, rate_micros=4_960_001, currency="USD"),
                )
            },
        ),
        Status.DUE,
        "with it, 60.000001 USD per hour would be disturbed within the hour; 60.00 are allowed.",
        False,
        None,
    ),
    "money of another currency is not added": (
        (ONE,),
        one(
            warned(),
            policies=[idle_policy(disruption_budget={"max": 5, "max_hourly_cost": 60})],
            standing={
                "acts": (
                    PastAct(policy="idle-gpus", resource_id="other", gpus=1, rate_micros=9_000_000, currency="EUR"),
                )
            },
        ),
        Status.DUE,
        "The grace is over.",
        True,
        None,
    ),
    "nobody knows what it costs, and money is limited": (
        (known(price=None),),
        one(warned(), policies=[idle_policy(disruption_budget={"max": "100%", "max_hourly_cost": 60})]),
        Status.DUE,
        "Waits: its price is not known, so it cannot be told whether it fits the disruption budget.",
        False,
        None,
    ),
    # unknown and cleared
    "unknown: what was due waits": (
        (ONE,),
        one(warned(status=Status.DUE), series=SILENT),
        Status.WARNED,
        "Waiting: 8 of 8 H100 sent no samples in the last 45m: unknown is never idle.",
        False,
        None,
    ),
    "unknown: what was only found waits": (
        (ONE,),
        one(finding(), series=SILENT),
        Status.OPEN,
        "Waiting: ",
        False,
        None,
    ),
    "unknown and exempt is exempt": (
        (ONE,),
        one(warned(), series=SILENT, exemptions=(exemption(),)),
        Status.EXEMPT,
        "Exempt until",
        False,
        None,
    ),
    "its source could not be asked": (
        (ONE,),
        one(warned(), answers=()),
        Status.WARNED,
        "Waiting: Its state is not known, so neither is whether it idles.",
        False,
        None,
    ),
    "no longer idle: cleared": (
        (ONE,),
        one(warned(), series=BUSY),
        Status.CLEARED,
        "8 of 8 H100 were busy in the last 45m; highest utilisation 90 % against a threshold of 5 %.",
        False,
        None,
    ),
    "its policy is gone": (
        (ONE,),
        one(warned(), policies=[]),
        Status.CLEARED,
        "Its policy no longer exists.",
        False,
        None,
    ),
    "it is gone": (
        (known(missing_since=NOW - minutes(5)),),
        one(warned(), answers=[answer()]),
        Status.CLEARED,
        "The resource no longer exists.",
        False,
        None,
    ),
    "its source is gone": (
        (ONE,),
        one(warned(), answers=(), sources={}),
        Status.CLEARED,
        "Its source no longer covers it.",
        False,
        None,
    ),
    "snoozed, and no longer idle: cleared": (
        (ONE,),
        one(finding(status=Status.SNOOZED, quiet_until=NOW + hours(1)), series=BUSY),
        Status.CLEARED,
        "8 of 8 H100 were busy",
        False,
        None,
    ),
    # after the act
    "enforced, and it runs again": (
        (ONE,),
        one(finding(status=Status.ENFORCED)),
        Status.CLOSED,
        "It runs again.",
        False,
        None,
    ),
    "enforced, and it is gone": (
        (known(missing_since=NOW - minutes(5)),),
        one(finding(status=Status.ENFORCED), answers=[answer()]),
        Status.CLOSED,
        "The resource no longer exists.",
        False,
        None,
    ),
    # a person asked for it
    "stop now: due at once": (
        (ONE,),
        one(finding(**ASKED)),
        Status.DUE,
        "token:lead asked to stop it now.",
        True,
        None,
    ),
    "stop now needs no idleness": ((ONE,), one(finding(**ASKED), series=BUSY), Status.DUE, "asked to stop", True, None),
    "nor telemetry": ((ONE,), one(finding(**ASKED), series=SILENT), Status.DUE, "asked to stop it now", True, None),
    "nor approval, and no grace": (
        (ONE,),
        one(warned(due=minutes(20), **ASKED), policies=[idle_policy(approval="required")]),
        Status.DUE,
        "asked to stop it now",
        True,
        None,
    ),
    "nor room in the disruption budget": (
        (ONE,),
        one(finding(**ASKED), policies=[idle_policy(disruption_budget={"max": 0})]),
        Status.DUE,
        "asked to stop it now",
        True,
        None,
    ),
    "nor the end of a cool-down": (
        (known(restarted_at=NOW - minutes(10), started_at=NOW - minutes(10)),),
        one(finding(**ASKED)),
        Status.DUE,
        "asked to stop it now",
        True,
        None,
    ),
    "nor the policy's own mode": (
        (ONE,),
        one(finding(**ASKED), policies=[idle_policy(mode="observe")]),
        Status.DUE,
        "asked to stop it now",
        True,
        None,
    ),
    "stop now skips no protection, and lapses": (
        (machine(protections=(LOCK,)),),
        one(finding(**ASKED)),
        Status.REFUSED,
        "It is protected",
        False,
        "notice",
    ),
    "nor an exemption": (
        (ONE,),
        one(finding(**ASKED), exemptions=(exemption(),)),
        Status.EXEMPT,
        "Exempt until",
        False,
        None,
    ),
    "nor the installation's ceiling": (
        (ONE,),
        one(finding(**ASKED), limits=limits(ceiling=Mode.WARN)),
        Status.OPEN,
        "token:lead asked to stop it now, but the ceiling does not allow acting.",
        False,
        None,
    ),
    "nor its source's": (
        (ONE,),
        one(finding(**ASKED), limits=limits(source_ceilings={SOURCE: Mode.WARN})),
        Status.OPEN,
        "but the ceiling does not allow acting.",
        False,
        None,
    ),
    "nor a hold": (
        (ONE,),
        one(finding(**ASKED), standing={"holds": (HOLD,)}),
        Status.OPEN,
        "but it has to wait. Everything is on hold until 2026-11-16T13:00:00+00:00: demo day",
        False,
        None,
    ),
    "asked by somebody of another project, before it moved": (
        (ONE,),
        one(finding(project="nlp", **ASKED)),
        Status.OPEN,
        "Its warning has not been delivered yet.",
        False,
        "warning",
    ),
    "asked, and it does not run": (
        (known(record=record(state=State.STOPPED), started_at=None),),
        one(finding(policy="unowned", **ASKED), policies=[unowned_policy()]),
        Status.OPEN,
        "asked to stop it now, but it is stopped.",
        False,
        None,
    ),
    "asked more than an hour ago, and it could not be done": (
        (ONE,),
        one(finding(status=Status.DUE, status_reason="Nobody answers.", stop_now_by="x", due_at=NOW - minutes(61))),
        Status.OPEN,
        "x asked to stop it now, but that could not be done within 1h. Nobody answers.",
        False,
        None,
    ),
    "asked about what was refused: once more": (
        (ONE,),
        one(finding(status=Status.REFUSED, quiet_by="recheck", quiet_until=NOW + minutes(30), **ASKED)),
        Status.DUE,
        "asked to stop it now",
        True,
        None,
    ),
}


@pytest.mark.parametrize("sentence", STEPS)
def test_a_step(sentence: str) -> None:
    machines, more, status, words, acts, said = STEPS[sentence]
    came = after(*machines, **more)
    assert came.finding.status == status
    assert words in came.finding.status_reason
    assert bool(came.intents) == acts
    assert [message.kind for message in came.said] == ([said] if said else [])
    if status is not Status.DUE:
        assert came.finding.stop_now_by is None
    if status in (Status.OPEN, Status.REFUSED, Status.EXEMPT):
        assert (came.finding.warned_at, came.finding.due_at, came.finding.approved_at) == (None, None, None)
    if status in (Status.CLEARED, Status.CLOSED):
        assert came.finding.closed_at == NOW


NOTHING: dict[str, tuple[tuple[Known, ...], dict[str, Any]]] = {
    "busy machines have no findings": ((ONE,), {"series": BUSY}),
    "unknown ones have none": ((ONE,), {"series": SILENT}),
    "nor ambiguous ones": ((ONE,), {"telemetry": Telemetry(series={ONE.id: gpus()}, ambiguous=frozenset({ONE.id}))}),
    "nor those of another project": ((ONE,), {"policies": [idle_policy(scope={"projects": ["nlp"]})]}),
    "nor those of no project": (
        (known(record=record(tags={}), project=None),),
        {"policies": [idle_policy(scope={"projects": ["vision"]})]},
    ),
    "nor those that were not seen": ((ONE,), {"answers": ()}),
    "nor those whose account is another one now": ((ONE,), {"answers": [answer(record(), account="9")]}),
    "nor those that just started": ((known(started_at=NOW - minutes(57)),), {}),
    "what was snoozed stays so": (
        (ONE,),
        one(
            finding(
                status=Status.SNOOZED,
                quiet_until=NOW + hours(1),
                reason="",
            ),
            policies=[in_force(idle_policy(), version=1)],
            series=SILENT,
        ),
    ),
    "what was dismissed and still idles is left in peace": (
        (ONE,),
        {"standing": Standing(dismissed=(finding(status=Status.DISMISSED, closed_at=NOW - hours(1)),))},
    ),
    "what was dismissed and is unknown now too": (
        (ONE,),
        {
            "standing": Standing(dismissed=(finding(status=Status.DISMISSED, closed_at=NOW - hours(1)),)),
            "series": SILENT,
        },
    ),
    "an act under way is left to those who see to it": ((ONE,), one(finding(status=Status.ACTING))),
    "what is enforced rests": (
        (known(record=record(state=State.STOPPED), started_at=None),),
        one(finding(status=Status.ENFORCED)),
    ),
    "what is enforced and was not seen just now rests, though it ran when last seen": (
        (ONE,),
        one(finding(status=Status.ENFORCED), answers=()),
    ),
}


@pytest.mark.parametrize("sentence", NOTHING)
def test_nothing_changes(sentence: str) -> None:
    machines, more = NOTHING[sentence]
    ruling = decide(world(*machines, **more), NOW)
    assert (ruling.plan.findings, ruling.plan.intents, ruling.plan.messages) == ((), (), ())


def test_a_dismissed_breach_that_ends_once_counts_again() -> None:
    gone = finding(status=Status.DISMISSED, closed_at=NOW - hours(1))
    ended = after(standing=Standing(dismissed=(gone,)), series=BUSY).finding
    assert (ended.status, ended.quiet_until) == (Status.DISMISSED, NOW)
    assert after(standing=Standing()).finding.status is Status.OPEN


def test_a_fresh_start_is_a_new_episode_with_a_new_message() -> None:
    [first] = after().said
    again = after(standing=stands(warned(project="nlp", id=first.finding_id)))
    [second] = again.said
    assert again.finding.episode == 2
    assert first.key != second.key


def test_the_same_episode_is_the_same_message_however_often_it_is_planned() -> None:
    opened = after().finding
    keys = {message.key for _ in range(3) for message in after(standing=stands(opened)).said}
    assert keys == {message.key for message in after().said}


def test_a_policy_changed_before_its_warning_was_delivered_is_warned_about_as_it_is_now() -> None:
    opened = after().finding
    [old] = after(standing=stands(opened)).said
    changed = in_force(idle_policy(grace="2h"), version=2, stricter_since=NOW)
    [new] = after(standing=stands(opened), policies=[changed]).said
    assert old.key != new.key
    assert (old.payload["grace_seconds"], new.payload["grace_seconds"]) == (1800, 7200)


# --- several at once --------------------------------------------------------------------------------------------------


def fleet(count: int) -> tuple[Known, ...]:
    return tuple(known(f"i-{index}") for index in range(count))


def all_warned(machines: Sequence[Known], **more: Any) -> Standing:
    return stands(*(warned(machine, **more) for machine in machines))


BUDGETS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "a count": ({"max": 3}, 10, 0, 3),
    "a share": ({"max": "30%"}, 10, 0, 3),
    "a share is rounded up": ({"max": "25%"}, 10, 0, 3),
    "ten per cent of three is one": ({"max": "10%"}, 3, 0, 1),
    "ten per cent of ten is one, not two": ({"max": "10%"}, 10, 0, 1),
    "what was disturbed within the hour counts": ({"max": 3}, 10, 2, 1),
    "money": ({"max": "100%", "max_hourly_cost": 120}, 10, 0, 2),
    "money to the last unit": ({"max": "100%", "max_hourly_cost": "110.08"}, 10, 0, 2),
    "money that is less than one costs": ({"max": "100%", "max_hourly_cost": 55}, 10, 0, 0),
    "both hold": ({"max": 1, "max_hourly_cost": 120}, 10, 0, 1),
}


@pytest.mark.parametrize("sentence", BUDGETS)
def test_a_disruption_budget(sentence: str) -> None:
    budget, machines, past, acts = BUDGETS[sentence]
    found = fleet(machines)
    acted = tuple(
        PastAct(policy="idle-gpus", resource_id=f"x{n}", gpus=8, rate_micros=55_040_000, currency="USD")
        for n in range(past)
    )
    standing = replace(all_warned(found), acts=acted)
    came = after(*found, policies=[idle_policy(disruption_budget=budget)], standing=standing)
    assert len(came.intents) == acts
    waiting = [f for f in came.ruling.plan.findings if f.status is Status.DUE and "disruption" in f.status_reason]
    assert len(waiting) == machines - acts


def test_who_has_been_due_longest_comes_first() -> None:
    first, second = fleet(2)
    standing = stands(warned(first, due=-minutes(1)), warned(second, due=-minutes(2)))
    came = after(first, second, policies=[idle_policy(disruption_budget={"max": 1})], standing=standing)
    assert [intent.resource.id for intent in came.intents] == [second.id]


def test_one_machine_is_acted_on_once_whatever_number_of_policies_want_it() -> None:
    gentle, stern = idle_policy("gentle"), idle_policy("stern", action="terminate", accept_loss=["terminate"])
    standing = stands(warned(ONE, id="a", policy="gentle"), warned(ONE, id="b", policy="stern"))
    came = after(policies=[stern, gentle], standing=standing)
    assert [(intent.finding.policy, intent.verb) for intent in came.intents] == [("gentle", "stop")]
    [loser] = [f for f in came.ruling.plan.findings if f.policy == "stern"]
    assert (loser.status, loser.status_reason) == (Status.DUE, "Policy gentle acts on it first.")


def test_a_machine_with_an_act_under_way_gets_no_second_one() -> None:
    standing = stands(finding(ONE, id="a", status=Status.ACTING), warned(ONE, id="b", policy="other"))
    came = after(policies=[idle_policy(), idle_policy("other")], standing=standing)
    assert came.intents == ()
    assert came.finding.status_reason == "Another act on this resource is under way."


BREAKER: dict[str, tuple[int, int, int, float, bool]] = {
    # machines running, due, stopped within the hour, breaker's share, trips
    "within the share": (10, 3, 0, 0.3, False),
    "over the share": (10, 4, 0, 0.3, True),
    "with what was stopped within the hour": (9, 3, 1, 0.3, True),
    "one machine alone never trips it": (1, 1, 0, 0.3, False),
    "the second of two does": (1, 1, 1, 0.3, True),
    "raised to all, it never trips": (3, 3, 0, 1.0, False),
    "nothing due, nothing trips": (2, 0, 2, 0.3, False),
}


@pytest.mark.parametrize("sentence", BREAKER)
def test_the_breaker(sentence: str) -> None:
    running, due, past, share, trips = BREAKER[sentence]
    found = fleet(running)
    stopped = [known(f"s-{n}", record=record(f"s-{n}", state=State.STOPPED), started_at=None) for n in range(past)]
    acts = tuple(PastAct(policy="x", resource_id=one.id, gpus=8, rate_micros=0) for one in stopped)
    standing = replace(all_warned(found[:due]), acts=acts)
    series = {one.id: gpus() for one in found[:due]} | {one.id: gpus(0.9) for one in found[due:]}
    came = after(*found, *stopped, standing=standing, series=series, limits=limits(breaker=share))
    assert (came.ruling.plan.breaker is not None) == trips
    assert len(came.intents) == (0 if trips else due)
    if trips:
        assert all("circuit breaker" in f.status_reason for f in came.ruling.plan.findings)
        assert [message.kind for message in came.ruling.plan.messages] == ["breaker"]


SHRINKS: dict[str, tuple[int, int, bool, bool]] = {
    # machines, of which missing, in a complete answer, trips
    "three of nine are over 30 %": (9, 3, True, True),
    "two of three are everyday life": (3, 2, True, False),
    "three of ten are within the share": (10, 3, True, False),
    "missing from an incomplete answer is not vanished": (9, 9, False, False),
    "all of them": (9, 9, True, True),
}


@pytest.mark.parametrize("sentence", SHRINKS)
def test_a_shrinking_inventory_holds_everything(sentence: str) -> None:
    count, missing, complete, trips = SHRINKS[sentence]
    found = fleet(count)
    said = answer(
        *(one.record for one in found[missing:]),
        regions=["us-east-1"] if complete else [],
        failed=[] if complete else ["us-east-1"],
    )
    came = after(*found, answers=[said], standing=all_warned(found), limits=limits(breaker=0.3))
    assert ("vanished" in (came.ruling.plan.breaker or "")) == trips
    if trips:
        assert came.intents == ()


# --- what else is told ------------------------------------------------------------------------------------------------


def reports(seen: World, kind: str, at: timedelta) -> list[Message]:
    return [message for message in decide(seen, NOW + at).plan.messages if message.kind == kind]


def silent(since: timedelta, **more: Any) -> World:
    return world(ONE, series=SILENT, standing=Standing(unknown_since={ONE.id: NOW - since}), **more)


TOLD: dict[str, tuple[Callable[[], World], str, int]] = {
    "silent for six hours is told": (lambda: silent(hours(6)), "unknown", 1),
    "silent for less is not": (lambda: silent(hours(5)), "unknown", 0),
    "silent where nobody is to be spoken to is not": (
        lambda: silent(hours(6), limits=limits(ceiling=Mode.OBSERVE)),
        "unknown",
        0,
    ),
    "silent where every policy only observes is not": (
        lambda: silent(hours(6), policies=[idle_policy(mode="observe")]),
        "unknown",
        0,
    ),
    "a protection of thirty days is told": (
        lambda: world(known(record=record(protections=(LOCK,)), protected_since=NOW - hours(24 * 30))),
        "protected",
        1,
    ),
    "a younger one is not": (
        lambda: world(known(record=record(protections=(LOCK,)), protected_since=NOW - hours(24 * 29))),
        "protected",
        0,
    ),
}


@pytest.mark.parametrize("sentence", TOLD)
def test_what_else_is_told(sentence: str) -> None:
    build, kind, count = TOLD[sentence]
    assert len(reports(build(), kind, timedelta(0))) == count


def test_a_report_is_the_same_message_for_a_month() -> None:
    protected = world(known(record=record(protections=(LOCK,)), protected_since=NOW - hours(24 * 31)))
    keys = [reports(protected, "protected", timedelta(days=days))[0].key for days in (0, 10, 28, 30)]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_warning_says_what_would_be_lost_and_by_when() -> None:
    [message] = after(machine(losses=(DISKS,))).said
    assert message.payload["losses"] == ["a p5.48xlarge has local disks."]
    assert (message.payload["acts"], message.payload["grace_seconds"]) == (True, 1800)


def test_a_warning_that_announces_no_act_says_so() -> None:
    [message] = after(policies=[idle_policy(mode="warn")]).said
    assert message.payload["acts"] is False


def test_power_of_seven_gpus_of_eight_is_not_the_power_of_all() -> None:
    policy = idle_policy(idle={"for": "45m", "when": "max_power_watts < 90"})
    watts = gpus(60.0, signal=Signal.POWER_WATTS)
    whole = {ONE.id: (*gpus(), *watts[:7], series(300.0, device="7", signal=Signal.POWER_WATTS))}
    partial = {ONE.id: (*gpus(), *watts[:7])}
    for telemetry in (whole, partial):
        assert after(policies=[policy], series=telemetry, standing=Standing()).ruling.plan.findings == ()
    assert after(policies=[policy], series={ONE.id: (*gpus(), *watts)}).finding.status is Status.OPEN


def test_a_price_of_zero_is_a_price() -> None:
    free = known(price=Price(rate_micros=0, currency="USD", source="file"))
    policy = idle_policy(disruption_budget={"max": "100%", "max_hourly_cost": 0})
    assert len(after(free, policies=[policy], standing=stands(warned())).intents) == 1


FORESEES: dict[str, tuple[FindingState | None, Status, str]] = {
    "a breach that is foreseen is warned about": (None, Status.OPEN, "Its warning has not been delivered yet."),
    "its grace runs": (warned(due=minutes(5)), Status.WARNED, "Warned ahead; acts at"),
    "but it is not acted on before it is there": (warned(), Status.WARNED, "Warned ahead; acts once it is a breach."),
    "unless a person asks": (finding(**ASKED), Status.DUE, "asked to stop it now"),
}


@pytest.mark.parametrize("sentence", FORESEES)
def test_what_is_foreseen(sentence: str) -> None:
    before, status, words = FORESEES[sentence]
    seen = world(ONE, standing=stands(*([before] if before else [])))
    judged = decide(seen, NOW).judged
    outcome = judged.judgement.outcomes["idle-gpus"]
    ahead = replace(judged.judgement, outcomes={"idle-gpus": replace(outcome, folded=Folded(codes=bytes([FORESEEN])))})
    came = plan(
        resources={ONE.id: ONE},
        judged=replace(judged, judgement=ahead),
        lost=(),
        policies=seen.policies,
        projects=seen.projects,
        exemptions=(),
        standing=seen.standing,
        limits=seen.limits,
        now=NOW,
    )
    [found] = came.findings
    assert found.status == status
    assert words in found.status_reason
    assert bool(came.intents) == (status is Status.DUE)
