"""What the back-test says of every second is what the live judge says at that second, on the same samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policies.policy import IdleProfile
from providers.records import Series, Signal, State
from service.backtest.activity import activity_of, highest_of
from service.backtest.past import Past, Reading, read
from service.backtest.spans import on_line
from service.pipeline.activity import UNKNOWN, Activity, judge_activity
from tests.backtest.pasts import T0, Machine, at, minutes, running, stopped, written

MIDNIGHT = T0 - T0 % 86400 + 86400


def nothing(share: float, words: str) -> None:
    pass


WATTS = [60.0, 90.0]


def past_of(folder: Path, machines: Sequence[Machine], profile: IdleProfile, *thresholds: float) -> Past:
    history = written(folder, machines)
    ends = [end for one in machines for _, end, _ in one.was]
    starts = [start for one in machines for start, _, _ in one.was]
    reading = Reading(
        start=min(starts) - 86400,
        end=max(ends) + 1,
        gap=int(profile.max_gap.total_seconds()),
        thresholds=thresholds or (profile.utilisation_below,),
        reach=0,
        signals={"power_watts": WATTS},
    )
    return read(history, reading, profile, progress=nothing)


@st.composite
def samples(draw: st.DrawFn, start: int, length: int) -> list[tuple[int, float]]:
    """Samples with jitter, holes and bursts of work."""
    step = draw(st.sampled_from([30, 57, 60, 300]))
    values = st.sampled_from([0.0, 0.0, 0.0, 0.04, 0.05, 0.9])
    found, time, value = [], start + draw(st.integers(0, 400)), draw(values)
    while time < start + length:
        found.append((time, value))
        move = draw(st.integers(0, 9))
        if move == 0:
            time += draw(st.integers(1, 2000))  # a hole
        elif move == 1:
            value = draw(values)
        time += step + draw(st.sampled_from([0, 0, 0, 1, -1]))
    return found


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """One that ran once or twice, around midnight, with one or two GPUs under one naming or slices of them."""
    start = MIDNIGHT - draw(st.integers(600, 7200))
    length = draw(st.integers(3600, 10000))
    gpus = draw(st.integers(1, 2))
    devices = draw(st.sampled_from([["0"], ["0", "1"], ["0/0", "0/1"], ["GPU-a", "GPU-b"], ["0", "GPU-a"]]))
    one = Machine("m")
    for device in devices:
        one.said[device] = draw(samples(start, length))
    since = start - draw(st.sampled_from([86400, 0, -300]))
    end = start + length + draw(st.sampled_from([0, 4000]))
    if draw(st.booleans()):
        one.was = [(start, end, running("m", gpus=gpus, since=at(since)))]
    else:
        off = start + length // 3
        again = off + draw(st.integers(60, 2000))
        one.was = [
            (start, off, running("m", gpus=gpus, since=at(since))),
            (off, again, stopped("m", gpus=gpus)),
            (again, max(end, again + 1), running("m", gpus=gpus, since=at(again))),
        ]
    return one


profiles = st.builds(
    IdleProfile,
    for_=st.sampled_from([minutes(5), minutes(17), minutes(45)]),
    min_coverage=st.sampled_from(["50%", "90%", "100%"]),
    max_gap=st.sampled_from([minutes(1), minutes(5)]),
    warm_up=st.sampled_from([minutes(0), minutes(15)]),
    telemetry_delay=st.sampled_from([minutes(0), minutes(3)]),
    busy_gpus_below=st.sampled_from([1, 1, 2]),
)


def live(one: Machine, profile: IdleProfile, second: int) -> Activity:
    """What the live judge says at a second."""
    was = next((known for start, end, known in one.was if start <= second < end), None)
    if was is None or was.record.state is not State.RUNNING:
        return UNKNOWN
    told = {
        Signal.UTILISATION: one.said,
        Signal.POWER_WATTS: {device: list(drew.items()) for device, drew in one.watts.items()},
    }
    heard = [
        Series(
            ref=was.record.ref,
            device=device,
            signal=signal,
            times=tuple(time for time, _ in kept),
            values=[value for _, value in kept],
        )
        for signal, of in told.items()
        for device, said in of.items()
        if (kept := [sample for sample in said if sample[0] <= second])
    ]
    return judge_activity(
        heard,
        gpu_count=was.record.gpu_count,
        started_at=was.started_at,
        ambiguous=False,
        profile=profile,
        at=at(second),
    )


def disagreements(one: Machine, profile: IdleProfile, seconds: Sequence[int]) -> list[tuple[int, Any, str | None]]:
    with tempfile.TemporaryDirectory() as folder:
        past = past_of(Path(folder), [one], profile)
    found = activity_of(past, profile, past.work[0])
    places = on_line(np.zeros(len(seconds), np.int64), np.array(seconds, np.int64))
    idle, busy = found.idle.covers(places), found.busy.covers(places)
    said = ["idle" if is_idle else "busy" if is_busy else None for is_idle, is_busy in zip(idle, busy, strict=True)]
    return [
        (second, expected, word)
        for second, word in zip(seconds, said, strict=True)
        if (expected := live(one, profile, second).activity) != word
    ]


@settings(
    max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # shrinking takes minutes
@given(one=machines(), profile=profiles, odd=st.integers(1, 61))
def test_every_moment_is_judged_as_it_would_have_been_live(one: Machine, profile: IdleProfile, odd: int) -> None:
    start, end = one.was[0][0], one.was[-1][1]
    edges = {time + more for said in one.said.values() for time, _ in said[:40] for more in (0, 1)}
    seconds = sorted({*range(start - 100, end + 100, 30 + odd), *(time for time in edges if start <= time < end)})
    assert disagreements(one, profile, seconds) == []


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(one=machines(), profile=profiles, holes=st.sets(st.integers(0, 200)))
def test_the_highest_power_draw_compares_as_it_would_have_live(
    one: Machine, profile: IdleProfile, holes: set[int]
) -> None:
    one.said = dict(list(one.said.items())[:1])
    one.was = [(one.was[0][0], one.was[-1][1], running("m"))]
    draws = [59.0, 60.0, 61.0, 90.0, 200.0]
    for device, said in one.said.items():
        told = [time for number, (time, _) in enumerate(said) if number not in holes]
        one.watts[device] = {time: draws[time // 1800 % 5] for time in told}
    with tempfile.TemporaryDirectory() as folder:
        past = past_of(Path(folder), [one], profile)
    found = highest_of(past, profile, past.signals["power_watts"])
    for second in range(one.was[0][0], one.was[-1][1], 97):
        place = np.array([second])
        expected = live(one, profile, second).max_power_watts
        if not found.known.covers(place)[0]:
            assert expected is None
            continue
        assert expected is not None
        assert [bool(spans.covers(place)[0]) for spans in found.at_least] == [expected >= watts for watts in WATTS]
        assert [bool(spans.covers(place)[0]) for spans in found.above] == [expected > watts for watts in WATTS]


def test_a_series_that_simply_ends_is_unknown_from_there_on() -> None:
    one = Machine("m", was=[(T0, T0 + 20000, running("m"))], said={"0": [(T0 + 60 * k, 0.0) for k in range(100)]})
    profile = IdleProfile(for_=minutes(45))
    assert disagreements(one, profile, range(T0, T0 + 20000, 60)) == []
    with tempfile.TemporaryDirectory() as folder:
        past = past_of(Path(folder), [one], profile)
    found = activity_of(past, profile, past.work[0])
    (end,) = found.idle.end.tolist()
    assert end < T0 + 100 * 60 + 15 * 60


def test_nobody_is_judged_by_what_was_written_for_another() -> None:
    lone = replace(running("m"), id="m")
    idle = Machine("m", was=[(T0, T0 + 20000, lone)], said={})
    other = Machine("n", was=[(T0, T0 + 20000, running("n"))], said={"0": [(T0 + 60 * k, 0.0) for k in range(300)]})
    profile = IdleProfile()
    with tempfile.TemporaryDirectory() as folder:
        past = past_of(Path(folder), [idle, other], profile)
    found = activity_of(past, profile, past.work[0])
    (speaker,) = [number for number, name in enumerate(past.resources) if name == "n"]
    assert set((found.idle.start // (1 << 36)).tolist()) == {speaker}
