"""AWS fails while a cycle runs: what could not be asked is not acted on, is not forgotten and is said; nothing else
waits for it. Once AWS is well again, everything that is due is done, once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from service.store.tables import Action, Resource
from tests.faults.installation import REGIONS, Installation
from tests.providers.aws.front import NO_ANSWER, Call, Reply, Rule, error

NEAR, FAR = REGIONS
MACHINES = {"near": NEAR, "far-1": FAR, "far-2": FAR}


def of_ec2(call: Call) -> bool:
    return call.service == "ec2"


def listing(call: Call) -> bool:
    return call.action == "ec2:DescribeInstances" and not call.instance_ids


def far(call: Call) -> bool:
    return call.region == FAR


def telemetry(call: Call) -> bool:
    return call.service == "cloudwatch"


def fails(*matches: Callable[[Call], bool], how: Callable[[Call], Reply]) -> Rule:
    return lambda call: how(call) if all(match(call) for match in matches) else None


def refusing(code: str) -> Callable[[Call], Reply]:
    return lambda call: error(call.service, code, "not now")


def hanging_up(call: Call) -> Reply:
    return NO_ANSWER


def from_moto(here: Installation, call: Call) -> bytes:
    """What AWS would have said."""
    scope = f"testing/20261116/{call.region}/ec2/aws4_request"
    headers = {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return httpx.post(here.front.moto, content=call.body, headers=headers).raise_for_status().content


def cut_off(here: Installation) -> Rule:
    """Half of the far region's answer."""

    def rule(call: Call) -> Reply | None:
        if not (listing(call) and far(call)):
            return None
        whole = from_moto(here, call)
        return Reply(status=200, body=whole[: len(whole) // 2], headers={"Content-Type": "text/xml"})

    return rule


def page_missing(here: Installation) -> Rule:
    """The far region's answer in two pages, of which the second never comes."""

    def rule(call: Call) -> Reply | None:
        if not (listing(call) and far(call)):
            return None
        if "NextToken" in call.fields:
            return error("ec2", "InternalError", "not now")
        first, *rest = re.split(rb"(?=<item>\s*<reservationId>)", from_moto(here, call))
        page = first + rest[0] + b"</reservationSet><nextToken>more</nextToken></DescribeInstancesResponse>"
        return Reply(status=200, body=page, headers={"Content-Type": "text/xml"})

    return rule


# How it fails → which machines cannot be judged meanwhile, and what is said of it.
FAULTS: dict[str, tuple[Callable[[Installation], Rule], str, str]] = {
    "every call is throttled": (
        lambda _: fails(how=refusing("RequestLimitExceeded")),
        "near far",
        "RequestLimitExceeded",
    ),
    "EC2 answers 500 everywhere": (
        lambda _: fails(listing, how=refusing("InternalError")),
        "near far",
        "InternalError",
    ),
    "one region is throttled": (
        lambda _: fails(of_ec2, far, how=refusing("RequestLimitExceeded")),
        "far",
        "RequestLimitExceeded",
    ),
    "one region is gone": (lambda _: fails(far, how=hanging_up), "far", "gave no answer"),
    "one region's listing is cut off in the middle": (cut_off, "far", "an answer that cannot be read"),
    "the second page of one region is missing": (page_missing, "far-2", "InternalError"),
    "CloudWatch answers 500": (
        lambda _: fails(telemetry, how=refusing("InternalError")),
        "near far",
        "InternalError",
    ),
    "CloudWatch is throttled in one region": (
        lambda _: fails(telemetry, far, how=refusing("Throttling")),
        "far",
        "Throttling",
    ),
    "CloudWatch hangs up": (lambda _: fails(telemetry, how=hanging_up), "near far", "gave no answer"),
}


@pytest.mark.parametrize("sentence", FAULTS)
def test_while(sentence: str, here: Installation) -> None:
    make, spared, says = FAULTS[sentence]
    unseen = {name for name in MACHINES if name.startswith(tuple(spared.split()))}
    for name, region in MACHINES.items():
        here.machine(name, region)
    here.machine("busy", NEAR, percent=90)
    assert here.cycle().error is None
    assert here.finding("far-1").status == "warned"

    with here.front.within(make(here)):
        here.clock.forward(timedelta(minutes=31))
        for minute in range(3):
            cycle = here.cycle(after=timedelta(minutes=minute))
            assert says in here.report(cycle)
        assert here.errors_counted == 3
        assert here.health["health"] in ("partly", "failing")
        assert says in " ".join(here.health["faults"])
        assert here.stopped == MACHINES.keys() - unseen, "the others do not wait for it"
        assert all(here.stops_of(name) == 0 for name in unseen)
        assert all(row.ended_at is None and row.orphaned_at is None for row in here.rows(Resource))

    for _ in range(2):
        assert here.cycle(after=timedelta(minutes=6)).error is None
    assert here.stopped == MACHINES.keys()
    assert {here.stops_of(name) for name in MACHINES} == {1}
    assert {action.status for action in here.rows(Action)} == {"verified"}
    assert here.health["health"] == "fine"


def right_before(call: Call) -> bool:
    """The look that follows a decision to act."""
    return call.action == "ec2:DescribeInstanceAttribute"


def stopping(call: Call) -> bool:
    return call.action == "ec2:StopInstances"


def reading_back(here: Installation) -> Rule:
    """No machine can be described any more once one was stopped."""

    def rule(call: Call) -> Reply | None:
        stopped = any(stopping(earlier) for earlier in here.front.calls[:-1])
        return error("ec2", "InternalError", "not now") if stopped and of_ec2(call) else None

    return rule


def done_all_the_same(here: Installation) -> Rule:
    """It is stopped, and the answer says that it failed."""

    def rule(call: Call) -> Reply | None:
        if not stopping(call):
            return None
        from_moto(here, call)
        return error("ec2", "InternalError", "not now")

    return rule


# How an act fails → how often the machine is asked to stop in three cycles, and what is said meanwhile.
ACTS: dict[str, tuple[Callable[[Installation], Rule], int, str]] = {
    "the look right before it answers 500": (
        lambda _: fails(right_before, how=refusing("InternalError")),
        0,
        "nothing was done: it could not be described: ec2:DescribeInstanceAttribute in us-east-1: not now",
    ),
    "the look right before it is throttled": (
        lambda _: fails(right_before, how=refusing("RequestLimitExceeded")),
        0,
        "nothing was done: it could not be described: ec2:DescribeInstanceAttribute in us-east-1: not now",
    ),
    "the call is throttled": (
        lambda _: fails(stopping, how=refusing("RequestLimitExceeded")),
        6,
        "RequestLimitExceeded",
    ),
    "the call answers 503": (lambda _: fails(stopping, how=refusing("Unavailable")), 6, "Unavailable"),
    "the call is hung up on": (lambda _: fails(stopping, how=hanging_up), 6, "gave no answer"),
    "the call answers 500 though it was done": (done_all_the_same, 2, "Verified in the cloud"),
    "nothing can be read back": (reading_back, 1, "An act is under way."),
}
"""Each call is tried twice by the SDK; what was done is not asked for in a further cycle."""


@pytest.mark.parametrize("sentence", ACTS)
def test_an_act_of_which(sentence: str, here: Installation) -> None:
    make, calls, says = ACTS[sentence]
    here.machine("trainer", NEAR)
    here.cycle()
    here.clock.forward(timedelta(minutes=31))
    with here.front.within(make(here)):
        for minute in range(3):
            assert here.cycle(after=timedelta(minutes=minute)).error is None
        said = [here.finding("trainer").status_reason, *(str(action.error) for action in here.rows(Action))]
        assert says in " ".join(said)
        assert here.stops_of("trainer") == calls
    truth = here.state("trainer")
    for _ in range(2):
        assert here.cycle(after=timedelta(minutes=6)).error is None
    assert here.state("trainer") == "stopped"
    assert here.stops_of("trainer") == calls + (truth == "running"), "one act, never two, never none"
    assert [action.status for action in here.rows(Action)] == ["verified"]
    assert here.finding("trainer").status == "enforced"
