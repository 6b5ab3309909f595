"""When a workload is busy, idle or unknown: it holds slices and shares of GPUs, its pods come and go, and it serves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.policy import IdleProfile
from providers.records import Kind, ResourceRef, Series, Signal
from service.pipeline.activity import Activity, judge_activity

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
END = int(NOW.timestamp())
ACCOUNT = "0b9c2a1e"
WORKLOAD = ResourceRef(
    provider="kubernetes", account=ACCOUNT, region="", kind=Kind.WORKLOAD, external_id="vision/Deployment/detect"
)
MACHINE = ResourceRef(provider="aws", account="1", region="us-east-1", kind=Kind.INSTANCE, external_id="i-1")
A, B = "GPU-11111111", "GPU-22222222"
HOURS = timedelta(hours=1)


def at(minute: int) -> int:
    return END + 60 * minute


def gpu(device: str, value: float = 0.0, *, first: int = -120, last: int = 0, ref: ResourceRef = WORKLOAD) -> Series:
    """A sample a minute, from so many minutes before now until so many."""
    times = tuple(range(at(first), at(last), 60))
    return Series(ref=ref, device=device, signal=Signal.UTILISATION, times=times, values=(value,) * len(times))


def requests(
    pod: str, count: Callable[[int], float] = lambda minute: 41.0, *, first: int = -120, last: int = 0
) -> Series:
    """What a pod's counter of requests stood at, by minutes before now."""
    minutes = range(first, last)
    return Series(
        ref=WORKLOAD,
        device=f"{pod}:vllm:request_success_total:8000",
        signal=Signal.REQUESTS_TOTAL,
        times=tuple(at(minute) for minute in minutes),
        values=tuple(count(minute) for minute in minutes),
    )


def judged(series: Sequence[Series], *, gpus: int = 1, started: timedelta = 24 * HOURS) -> Activity:
    return judge_activity(
        series, gpu_count=gpus, started_at=NOW - started, ambiguous=False, profile=IdleProfile(), at=NOW
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    series: Sequence[Series]
    word: str | None
    gpus: int = 1


CASES = {
    "two slices of one GPU are the two devices it holds": Case(
        series=[gpu(f"a:{A}/1"), gpu(f"a:{A}/2")], gpus=2, word="idle"
    ),
    "one slice does not stand in for the other, which is silent": Case(series=[gpu(f"a:{A}/1")], gpus=2, word=None),
    "a busy slice makes it busy": Case(series=[gpu(f"a:{A}/1"), gpu(f"a:{A}/2", 0.5)], gpus=2, word="busy"),
    "two slices of one GPU are one GPU of a machine": Case(
        series=[gpu(f"{A}/1", ref=MACHINE), gpu(f"{A}/2", ref=MACHINE)], gpus=2, word=None
    ),
    "two shares of one GPU, in two pods": Case(series=[gpu(f"a:{A}/vgpu0"), gpu(f"b:{A}/vgpu1")], gpus=2, word="idle"),
    "numbers of GPUs repeat from pod to pod": Case(series=[gpu("a:0"), gpu("b:0")], gpus=2, word="idle"),
    "GPUs told of by number and by uuid are told of twice": Case(
        series=[gpu("a:0"), gpu("a:1"), gpu(f"a:{A}"), gpu(f"a:{B}")], gpus=4, word=None
    ),
    "a pod of which nothing is heard is unknown": Case(series=[gpu(f"a:{A}")], gpus=2, word=None),
    "the GPU of a pod that was replaced is over": Case(
        series=[gpu(f"old:{A}", 0.9, last=-100), gpu(f"new:{B}")], word="idle"
    ),
    "the same on a machine that got other GPUs when it was restarted": Case(
        series=[gpu(A, 0.9, last=-100, ref=MACHINE), gpu(B, ref=MACHINE)], word="idle"
    ),
    "its own GPU that fell silent is not over": Case(
        series=[gpu(f"a:{A}", last=-100), gpu(f"b:{B}")], gpus=2, word=None
    ),
    "a slice that fell silent on a GPU of a machine whose others speak is not over": Case(
        series=[gpu(f"{A}/1", ref=MACHINE), gpu(f"{A}/2", last=-100, ref=MACHINE)], word=None
    ),
    "a GPU that spoke in part of the window is still counted": Case(
        series=[gpu(f"old:{A}", last=-20), gpu(f"new:{B}")], word=None
    ),
    "idle GPUs and no request": Case(series=[gpu(f"a:{A}"), requests("a")], word="idle"),
    "idle GPUs and one request": Case(
        series=[gpu(f"a:{A}"), requests("a", lambda minute: 41.0 + (minute > -30))], word="busy"
    ),
    "a counter that began anew has moved": Case(
        series=[gpu(f"a:{A}"), requests("a", lambda minute: 41.0 if minute < -30 else 0.0)], word="busy"
    ),
    "a request to one of two pods": Case(
        series=[
            *(gpu(f"{pod}:{A}/{pod}") for pod in "ab"),
            requests("a"),
            requests("b", lambda minute: float(minute > -30)),
        ],
        gpus=2,
        word="busy",
    ),
    "no request, but busy GPUs": Case(series=[gpu(f"a:{A}", 0.9), requests("a")], word="busy"),
    "no request, but a silent GPU": Case(series=[gpu(f"a:{A}"), requests("a")], gpus=2, word=None),
    "a counter that fell silent may have moved": Case(series=[gpu(f"a:{A}"), requests("a", last=-30)], word=None),
    "and also when it is silent for long": Case(series=[gpu(f"a:{A}"), requests("a", last=-100)], word=None),
    "the counter of a pod that was replaced is over": Case(
        series=[gpu(f"old:{A}", last=-100), requests("old", last=-100), gpu(f"new:{B}"), requests("new")], word="idle"
    ),
    "and is not, while a GPU is missing": Case(
        series=[requests("old", last=-100), gpu(f"new:{B}"), requests("new")], gpus=2, word=None
    ),
}


@pytest.mark.parametrize("sentence", CASES)
def test_activity(sentence: str) -> None:
    case = CASES[sentence]
    assert judged(case.series, gpus=case.gpus).activity == case.word


def test_the_numbers_leave_out_what_is_over() -> None:
    told = judged([gpu(f"old:{A}", 0.9, last=-100), gpu(f"new:{B}", 0.01)])
    assert (told.busy_gpus, told.idle_gpus, told.unknown_gpus) == (0, 1, 0)
    assert (told.max_utilisation, told.coverage) == (0.01, 1.0)
    assert told.idle_since == NOW - 2 * HOURS


def test_nothing_is_idle_before_its_newest_pod_is_warm_for_a_window() -> None:
    series = [gpu(f"a:{A}"), gpu(f"b:{B}", first=-60)]
    ages = {minutes: judged(series, gpus=2, started=timedelta(minutes=minutes)) for minutes in (61, 58, 20)}
    assert {minutes: told.activity for minutes, told in ages.items()} == {61: "idle", 58: None, 20: None}


def test_idle_since_the_last_request() -> None:
    told = judged([gpu(f"a:{A}"), requests("a", lambda minute: 41.0 + (minute >= -90))])
    assert told.activity == "idle"
    assert told.idle_since == NOW - timedelta(minutes=90)


@st.composite
def some_series(draw: st.DrawFn) -> tuple[Series, ...]:
    """GPUs and counters of up to three pods, some silent for a while, some at work."""
    found = []
    for pod in draw(st.sets(st.sampled_from("abc"), min_size=1)):
        for slice_ in range(draw(st.integers(1, 2))):
            value = draw(st.sampled_from([0.0, 0.04, 0.9]))
            first, last = draw(st.sampled_from([(-120, 0), (-120, -30), (-120, -100), (-40, 0)]))
            found.append(gpu(f"{pod}:{A}/{slice_}", value, first=first, last=last))
        if draw(st.booleans()):
            moved = draw(st.sampled_from([-110, -30, -1, 5]))
            found.append(requests(pod, lambda minute, moved=moved: float(minute >= moved)))  # type: ignore[misc]
    return tuple(found)


@given(some_series(), st.integers(0, 2))
def test_without_the_series_of_one_gpu_nothing_becomes_idle(found: tuple[Series, ...], more: int) -> None:
    gpus = len([one for one in found if one.signal is Signal.UTILISATION]) + more
    whole = judged(found, gpus=gpus)
    for gone, one in enumerate(found):
        if one.signal is Signal.UTILISATION:
            less = judged(found[:gone] + found[gone + 1 :], gpus=gpus)
            assert less.activity != "idle" or whole.activity == "idle"


@given(some_series())
def test_a_counter_can_only_forbid(found: tuple[Series, ...]) -> None:
    """Whatever it says, it makes nothing idle that is not idle by its GPUs."""
    gpus = [one for one in found if one.signal is Signal.UTILISATION]
    assert judged(found, gpus=len(gpus)).activity != "idle" or judged(gpus, gpus=len(gpus)).activity == "idle"
