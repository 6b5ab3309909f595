"""A tighter idle policy never calls less idle than a looser one, on random samples; and where that ends."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from providers.records import Series, Signal
from service.pipeline.activity import Activity
from tests.pipeline.test_activity import END, NOON, judged, samples

SPAN = 3 * 3600


@st.composite
def fleets_samples(draw: st.DrawFn) -> tuple[Series, ...]:
    """Up to three GPUs sampled densely, with a hole here and a busy moment there, and perhaps a request counter."""
    found = []
    for device in range(draw(st.sampled_from([1, 1, 2, 3]))):
        start = NOON - draw(st.sampled_from([SPAN, SPAN, 3600, 900]))
        hole = draw(st.sampled_from([180, 180, 900, 3600]))
        length = draw(st.sampled_from([0, 600, 900, 1200]))
        busy = draw(st.just([]) | st.lists(st.integers(0, 120), max_size=1))
        level = draw(st.sampled_from([0.0, 0.0, 0.02, 0.3]))
        pairs = [
            (second, 0.9 if (NOON - second) // 60 in busy else level)
            for second in range(start, NOON, 60)
            if not NOON - hole - length <= second < NOON - hole
        ]
        found.append(samples(*pairs, device=str(device)))
    if draw(st.integers(0, 3)) == 0:
        pairs = [(second, float(draw(st.integers(0, 1)))) for second in range(NOON - 7200, NOON, 1200)]
        found.append(samples(*pairs, signal=Signal.REQUESTS_TOTAL))
    return tuple(found)


def idle(found: tuple[Series, ...], **profile: Any) -> Activity:
    gpus = sum(one.signal is Signal.UTILISATION for one in found)
    return judged(found, gpu_count=gpus, profile=profile)


BASE = st.fixed_dictionaries(
    {
        "for": st.sampled_from(["15m", "45m", "90m"]),
        "utilisation_below": st.sampled_from([0.01, 0.05, 0.5]),
        "min_coverage": st.sampled_from(["60%", "90%", "100%"]),
        "busy_gpus_below": st.integers(1, 3),
        "max_gap": st.sampled_from(["2m", "2m", "30m"]),
    }
)

LOOSEST_FIRST: dict[str, list[Any]] = {
    "utilisation_below": [0.01, 0.03, 0.4, 1.0],
    "min_coverage": ["100%", "90%", "60%", "30%", "0%"],
    "busy_gpus_below": [1, 2, 3, 4],
}


@given(fleets_samples(), BASE, st.sampled_from(sorted(LOOSEST_FIRST)), st.data())
def test_a_tighter_profile_calls_no_less_idle(
    found: tuple[Series, ...], base: dict[str, Any], field: str, data: st.DataObject
) -> None:
    values = LOOSEST_FIRST[field]
    places = st.integers(0, len(values) - 1)
    loose, tight = sorted(data.draw(st.tuples(places, places)))
    if idle(found, **{**base, field: values[loose]}).activity == "idle":
        assert idle(found, **{**base, field: values[tight]}).activity == "idle"


LENGTHS = st.tuples(st.integers(5, 60), st.integers(30, 150)).map(sorted)


@given(fleets_samples(), BASE, LENGTHS)
def test_a_shorter_window_never_calls_busy_what_a_longer_one_calls_idle(
    found: tuple[Series, ...], base: dict[str, Any], lengths: list[int]
) -> None:
    short, long = (f"{count}m" for count in lengths)
    if idle(found, **{**base, "for": long}).activity == "idle":
        assert idle(found, **{**base, "for": short}).activity in ("idle", None)


@given(fleets_samples(), BASE, LENGTHS)
def test_a_shorter_window_calls_no_less_idle_when_every_second_must_be_known(
    found: tuple[Series, ...], base: dict[str, Any], lengths: list[int]
) -> None:
    short, long = (f"{count}m" for count in lengths)
    whole = {**base, "min_coverage": "100%"}
    if idle(found, **{**whole, "for": long}).activity == "idle":
        assert idle(found, **{**whole, "for": short}).activity == "idle"


def test_a_hole_at_the_end_is_much_of_a_short_window_and_little_of_a_long_one() -> None:
    """Why a shorter `for` may act on less: unknown never stops anything."""
    gpu = samples(*((second, 0.0) for second in range(END - SPAN, END - 900, 60)))

    assert judged([gpu], profile={"for": "150m"}).activity == "idle"
    assert judged([gpu], profile={"for": "30m"}).activity is None
