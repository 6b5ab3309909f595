"""When a machine is busy, idle or unknown: DESIGN section 8, sentence by sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.records import Series, Signal
from service.model import LAST_LOOK, Telemetry
from service.pipeline.activity import Activity, judge_activity
from service.pipeline.evaluate import Look, judge
from tests.pipeline.builders import NOW, gpus, hours, idle_policy, known, minutes, profile, series

NOON = int(NOW.timestamp())
END = NOON - 180
START = END - 45 * 60


def judged(found: Sequence[Series], **more: Any) -> Activity:
    """One GPU, running since yesterday, by the default profile, unless told otherwise."""
    chosen = profile(**more.pop("profile", {}))
    given: dict[str, Any] = {"gpu_count": 1, "started_at": NOW - hours(24), "ambiguous": False, "at": NOW}
    return judge_activity(found, profile=chosen, **{**given, **more})


def samples(*pairs: tuple[int, float], device: str = "0", signal: Signal = Signal.UTILISATION) -> Series:
    times, values = zip(*pairs, strict=True) if pairs else ((), ())
    return replace(series(device=device, signal=signal), times=tuple(times), values=tuple(values))


def only(minute: int, value: float) -> Any:
    """Idle, but for one minute so many minutes before now."""
    return lambda before: value if before == minute else 0.0


def silent_in(first: int, last: int) -> Any:
    """Idle, with no samples in these minutes before now."""
    return lambda before: None if first <= before < last else 0.0


EIGHT_IDLE = gpus()
EVERY_MINUTE = [(second, 0.0) for second in range(START, END, 60)]

SENTENCES: dict[str, tuple[str | None, Sequence[Series], dict[str, Any]]] = {
    "samples all at zero are idle": ("idle", gpus(count=1), {}),
    "no series at all is unknown": (None, (), {}),
    "a series without a sample in the window is unknown": (None, (series(silent_in(-48, 0)),), {}),
    "one sample at the threshold is busy": ("busy", (series(only(-20, 0.05)),), {}),
    "one sample just below the threshold is idle": ("idle", (series(only(-20, 0.0499)),), {}),
    "a busy sample among many holes is busy all the same": ("busy", (samples((START + 600, 0.9)),), {}),
    "an ambiguous series is unknown": (None, gpus(count=1), {"ambiguous": True}),
    "a machine whose start nobody knows is unknown": (None, gpus(count=1), {"started_at": None}),
    "a machine without GPUs is unknown": (None, (), {"gpu_count": 0}),
    # coverage and holes
    "4 of 45 minutes missing beyond the gap are within 90 %": ("idle", (series(silent_in(-30, -22)),), {}),
    "6 of 45 minutes missing beyond the gap are too many": (None, (series(silent_in(-30, -19)),), {}),
    "coverage of exactly 90 % is enough": (
        "idle",
        (samples(*((START + second, 0.0) for second in range(0, 2131, 30))),),
        {},
    ),
    "a second less is not": (None, (samples(*((START + second, 0.0) for second in range(1, 2131, 1))),), {}),
    "samples a minute apart speak for all, though the gap allowed is a minute": (
        "idle",
        gpus(count=1),
        {"profile": {"max_gap": "1m", "min_coverage": "100%"}},
    ),
    "samples a minute apart speak for half when each speaks for 30 s": (
        None,
        gpus(count=1),
        {"profile": {"max_gap": "30s"}},
    ),
    "no minimum of coverage still needs one sample": (None, (samples(),), {"profile": {"min_coverage": "0%"}}),
    "with no minimum of coverage one idle sample is idle": (
        "idle",
        (samples((START, 0.0)),),
        {"profile": {"min_coverage": "0%"}},
    ),
    "late samples: the last ten minutes missing is too little": (None, (series(silent_in(-13, 0)),), {}),
    "a tail within the gap still speaks": ("idle", (series(silent_in(-7, 0)),), {}),
    # edges of the window
    "a busy sample at the window's first second counts": ("busy", (series(0.0), samples((START, 0.9), device="1")), {}),
    "a busy sample that still speaks into the window counts": (
        "busy",
        (samples((START - 240, 0.9), (START + 60, 0.0)),),
        {},
    ),
    "a busy sample followed by one at the window's start speaks not into it": (
        "idle",
        (samples((START - 60, 0.9), *EVERY_MINUTE),),
        {},
    ),
    "a busy sample exactly one gap before the window speaks not into it": (
        "idle",
        (samples((START - 300, 0.9), *((START + second, 0.0) for second in range(1, 2700, 60))),),
        {},
    ),
    "a busy sample one second nearer does": (
        "busy",
        (samples((START - 299, 0.9), *((START + second, 0.0) for second in range(1, 2700, 60))),),
        {},
    ),
    "a sample at the window's end does not cover it": (None, (samples((END, 0.0)),), {}),
    "a busy sample after the window's end shows that work began": ("busy", (series(only(-1, 0.9)),), {}),
    "an idle sample after a busy window changes nothing": ("busy", (series(only(-4, 0.9)),), {}),
    "a sample from the future says nothing yet": (
        "idle",
        (samples(*EVERY_MINUTE, (NOON + 60, 0.9)),),
        {},
    ),
    # start and warm-up
    "samples before the start do not count": (
        None,
        gpus(count=1),
        {"started_at": NOW - minutes(40), "profile": {"warm_up": "0s"}},
    ),
    "samples within the warm-up do not count": (None, gpus(count=1), {"started_at": NOW - minutes(57)}),
    "45 minutes after the warm-up it can be idle": ("idle", gpus(count=1), {"started_at": NOW - minutes(63)}),
    "busy only in its warm-up is not busy": (
        "idle",
        (series(only(-50, 0.9)),),
        {"started_at": NOW - minutes(64), "profile": {"max_gap": "5m"}},
    ),
    "a busy sample of the warm-up speaks not into the window": (
        "idle",
        (samples((START - 100, 0.9), *((START + second, 0.0) for second in range(1, 2880, 60))),),
        {"started_at": NOW - minutes(48), "profile": {"warm_up": "0s"}},
    ),
    # many GPUs
    "eight idle GPUs are idle": ("idle", EIGHT_IDLE, {"gpu_count": 8}),
    "one silent GPU of eight makes it unknown": (None, EIGHT_IDLE[:7], {"gpu_count": 8}),
    "one GPU of eight with too few samples makes it unknown": (
        None,
        (*EIGHT_IDLE[:7], series(silent_in(-40, -20), device="7")),
        {"gpu_count": 8},
    ),
    "one busy GPU protects seven silent ones": ("busy", (series(0.9),), {"gpu_count": 8}),
    "one busy GPU of eight is enough": ("busy", (*EIGHT_IDLE[:7], series(0.9, device="7")), {"gpu_count": 8}),
    "with busy_gpus_below 2 one busy GPU may be": (
        "idle",
        (*EIGHT_IDLE[:7], series(0.9, device="7")),
        {"gpu_count": 8, "profile": {"busy_gpus_below": 2}},
    ),
    "with busy_gpus_below 2 one silent GPU may be": (
        "idle",
        EIGHT_IDLE[:7],
        {"gpu_count": 8, "profile": {"busy_gpus_below": 2}},
    ),
    "with busy_gpus_below 2 one busy and one silent is unknown": (
        None,
        (*EIGHT_IDLE[:6], series(0.9, device="6")),
        {"gpu_count": 8, "profile": {"busy_gpus_below": 2}},
    ),
    "with busy_gpus_below 2 two busy ones are busy": (
        "busy",
        (*EIGHT_IDLE[:6], series(0.9, device="6"), series(0.9, device="7")),
        {"gpu_count": 8, "profile": {"busy_gpus_below": 2}},
    ),
    "more devices than expected (MIG), all idle, are idle": ("idle", gpus(count=7), {"gpu_count": 1}),
    "more devices than expected, one of them busy, is busy": (
        "busy",
        (*gpus(count=6), series(0.9, device="1/6")),
        {"gpu_count": 1},
    ),
    "more devices than expected, one of them silent, is unknown": (
        None,
        (*gpus(count=6), samples(device="1/6")),
        {"gpu_count": 1},
    ),
    # two sources, bad values, other signals
    "two sources speak of one GPU: the busy one counts, whichever comes first": (
        "busy",
        (series(0.9), series(0.0)),
        {},
    ),
    "two sources speak of one GPU: the busy one counts, whichever comes last": (
        "busy",
        (series(0.0), series(0.9)),
        {},
    ),
    "two sources speak of one GPU: one of them is enough": ("idle", (samples(), series(0.0)), {}),
    "what is not a number is no sample": (None, (series(math.nan),), {}),
    "a number among what is none still counts": ("busy", (series(lambda m: 0.9 if m == -20 else math.nan),), {}),
    "power alone says nothing of activity": (None, gpus(count=1, signal=Signal.POWER_WATTS), {}),
    # serving
    "a request counter that stands still beside an idle GPU is idle": (
        "idle",
        (series(0.0), series(17.0, signal=Signal.REQUESTS_TOTAL)),
        {},
    ),
    "a request counter that moved is busy": (
        "busy",
        (series(0.0), series(lambda m: 17.0 if m < -20 else 18.0, signal=Signal.REQUESTS_TOTAL)),
        {},
    ),
    "a request counter that moved after the window is busy": (
        "busy",
        (series(0.0), series(lambda m: 17.0 if m < -1 else 18.0, signal=Signal.REQUESTS_TOTAL)),
        {},
    ),
    "a request counter nobody could read may have moved": (
        None,
        (series(0.0), series(silent_in(-40, -10), signal=Signal.REQUESTS_TOTAL)),
        {},
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_activity(sentence: str) -> None:
    word, found, more = SENTENCES[sentence]
    assert judged(found, **more).activity == word


NUMBERS: dict[str, tuple[Sequence[Series], dict[str, Any], dict[str, Any]]] = {
    "idle GPUs are counted": (EIGHT_IDLE, {"gpu_count": 8}, {"busy_gpus": 0, "idle_gpus": 8, "unknown_gpus": 0}),
    "a silent GPU is counted as unknown, and then nobody knows how many are busy": (
        EIGHT_IDLE[:7],
        {"gpu_count": 8},
        {"busy_gpus": None, "idle_gpus": 7, "unknown_gpus": 1, "coverage": 0.0},
    ),
    "coverage is that of the worst GPU": (
        (series(0.0), series(silent_in(-48, -25), device="1")),
        {"gpu_count": 2},
        {"coverage": pytest.approx(26 / 45)},
    ),
    "the highest utilisation is told": (
        (series(only(-20, 0.03)), series(0.01, device="1")),
        {"gpu_count": 2},
        {"max_utilisation": 0.03},
    ),
    "nobody knows the highest utilisation while one GPU is silent, even where that GPU may be busy": (
        (series(0.01), series(0.02, device="1")),
        {"gpu_count": 3, "profile": {"busy_gpus_below": 2}},
        {"activity": "idle", "max_utilisation": None},
    ),
    "nobody knows the highest power while one GPU does not tell its own": (
        (*gpus(count=2), series(60.0, signal=Signal.POWER_WATTS)),
        {"gpu_count": 2},
        {"activity": "idle", "max_power_watts": None},
    ),
    "nobody knows the highest power where samples are too few": (
        (series(0.0), series(silent_in(-40, -20), signal=Signal.POWER_WATTS)),
        {},
        {"activity": "idle", "max_power_watts": None},
    ),
    "power that still spoke into the window counts": (
        (
            series(0.0),
            samples((START - 200, 300.0), *((s + 30, 60.0) for s, _ in EVERY_MINUTE), signal=Signal.POWER_WATTS),
        ),
        {},
        {"max_power_watts": 300.0},
    ),
    "every signal has its number": (
        (
            series(0.0),
            series(0.2, signal=Signal.TENSOR_ACTIVE),
            series(0.3, signal=Signal.DRAM_ACTIVE),
            series(61.0, signal=Signal.POWER_WATTS),
            series(512.0, signal=Signal.MEMORY_USED_MIB),
        ),
        {},
        {"max_tensor_active": 0.2, "max_dram_active": 0.3, "max_power_watts": 61.0, "max_memory_used_mib": 512.0},
    ),
}


@pytest.mark.parametrize("sentence", NUMBERS)
def test_the_numbers(sentence: str) -> None:
    found, more, expected = NUMBERS[sentence]
    told = judged(found, **more)
    assert {name: getattr(told, name) for name in expected} == expected


SINCE: dict[str, tuple[Sequence[Series], dict[str, Any], datetime | None]] = {
    "as far back as samples reach": (gpus(count=1), {}, NOW - hours(2)),
    "since the last busy sample, as far as samples reach": ((series(only(-70, 0.9)),), {}, NOW - minutes(69)),
    "not across a hole": ((series(silent_in(-80, -70)),), {}, NOW - minutes(70)),
    "not before the warm-up is over": (gpus(count=1), {"started_at": NOW - minutes(90)}, NOW - minutes(75)),
    "since the latest of several GPUs": (
        (series(only(-70, 0.9)), series(only(-60, 0.9), device="1")),
        {"gpu_count": 2},
        NOW - minutes(59),
    ),
    "since the last look said": (gpus(count=1), {"prior_idle": NOW - hours(9)}, NOW - hours(9)),
    "the last look cannot reach back before the present run": (
        gpus(count=1),
        {"prior_idle": NOW - hours(9), "started_at": NOW - hours(2)},
        NOW - minutes(105),
    ),
    "what the last look said falls with the first busy sample": (
        (series(only(-20, 0.9)),),
        {"prior_idle": NOW - hours(9)},
        None,
    ),
    "only for the window when some GPUs may be busy": (
        gpus(count=1),
        {"profile": {"busy_gpus_below": 2}},
        NOW - minutes(48),
    ),
}


@pytest.mark.parametrize("sentence", SINCE)
def test_idle_since(sentence: str) -> None:
    found, more, since = SINCE[sentence]
    assert judged(found, **more).idle_since == since


LOOKS: dict[str, tuple[timedelta | None, datetime]] = {
    "the last look was a minute ago: it is believed": (minutes(1), NOW - hours(9)),
    "its window just reached up to this one: it is believed": (minutes(45), NOW - hours(9)),
    "there is a stretch nobody looked at: it is not": (minutes(46), NOW - hours(2)),
    "the clock was set back since: it is not": (-minutes(1), NOW - hours(2)),
    "nobody knows when it was: it is not": (None, NOW - hours(2)),
}


@pytest.mark.parametrize("sentence", LOOKS)
def test_what_the_last_look_said_counts_only_without_a_stretch_in_between(sentence: str) -> None:
    ago, since = LOOKS[sentence]
    machine, policy = known(), idle_policy()
    empty = Look(resources=[machine], seen=frozenset({machine.id}), telemetry=Telemetry(), cost_to_date={}, at=NOW)
    prior = {(machine.id, key): NOW - hours(9) for key in judge(empty, [policy]).activity}
    if ago is not None:
        prior[LAST_LOOK] = NOW - ago
    telemetry = Telemetry(series={machine.id: gpus()}, prior_idle=prior)
    found = judge(replace(empty, telemetry=telemetry), [policy])
    assert found.idle_since()[(machine.id, next(iter(found.activity)))] == since


@st.composite
def some_series(draw: st.DrawFn) -> tuple[Series, ...]:
    """Up to four GPUs with samples of any spacing, sometimes at or above the threshold."""
    found = []
    for device in range(draw(st.integers(0, 4))):
        seconds = draw(st.lists(st.integers(START - 900, NOON + 60), max_size=60, unique=True).map(sorted))
        values = draw(st.lists(st.sampled_from([0.0, 0.01, 0.05, 0.9]), min_size=len(seconds), max_size=len(seconds)))
        found.append(samples(*zip(seconds, values, strict=True), device=str(device)))
    return tuple(found)


@given(some_series(), st.integers(1, 4), st.integers(1, 3))
def test_without_one_of_its_series_nothing_becomes_idle(found: tuple[Series, ...], count: int, below: int) -> None:
    more: dict[str, Any] = {"gpu_count": max(count, len(found)), "profile": {"busy_gpus_below": below}}
    whole = judged(found, **more)
    for gone in range(len(found)):
        less = judged(found[:gone] + found[gone + 1 :], **more)
        assert less.activity != "idle" or whole.activity == "idle"


@given(some_series(), st.data())
def test_a_further_busy_sample_makes_nothing_idle(found: tuple[Series, ...], data: st.DataObject) -> None:
    before = judged(found, gpu_count=4)
    for one in found:
        free = [second for second in range(START, NOON + 1, 7) if second not in one.times]
        extra = data.draw(st.sampled_from(free))
        pairs = sorted([*zip(one.times, one.values, strict=True), (extra, 0.9)])
        more = tuple(samples(*pairs, device=one.device) if other is one else other for other in found)
        assert before.activity == "idle" or judged(more, gpu_count=4).activity != "idle"


def slowly(found: Sequence[Series]) -> tuple[str | None, float]:
    """One GPU of the default profile, second by second: the section read aloud."""
    spoken = {}
    newest = []
    for one in found:
        for index, second in enumerate(one.times):
            following = one.times[index + 1] if index + 1 < len(one.times) else second + 300
            for heard in range(max(second, START), min(second + 300, following, END)):
                spoken[heard] = one.values[index]
            if END <= second <= NOON:
                newest.append(one.values[index])
    if any(value >= 0.05 for value in (*spoken.values(), *newest)):
        return "busy", len(spoken) / 2700
    return ("idle" if len(spoken) >= 0.9 * 2700 else None), len(spoken) / 2700


@given(
    st.lists(st.tuples(st.integers(1, 400), st.sampled_from([0.0, 0.04, 0.05])), max_size=40), st.integers(-900, 900)
)
def test_it_agrees_with_a_count_second_by_second(steps: list[tuple[int, float]], first: int) -> None:
    moment, pairs = START + first, []
    for step, value in steps:
        moment += step
        pairs.append((moment, value))
    word, coverage = slowly([samples(*pairs)])
    told = judged([samples(*pairs)])
    assert told.activity == word
    assert told.coverage == pytest.approx(coverage)
