"""What is remembered of samples between looks: each asked for once, nothing filled in, nothing believed too long."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import Unreachable
from providers.records import Fault, PartReport, ResourceRecord, ResourceRef, Series, Signal, TelemetryAnswer
from service.pipeline.samples import SampleMemory, merged
from tests.pipeline.builders import NOW, hours, minutes, record, ref, series

WINDOW = minutes(50)
INTERVAL = minutes(5)
FAILED = PartReport(part="us-east-1", complete=False, fault=Fault(code="Throttled", sentence="too often"))


@dataclass
class Exporter:
    """One sample a minute of every machine, and what was asked for."""

    lag: timedelta = timedelta(0)
    ambiguous: frozenset[ResourceRef] = frozenset()
    failing: bool = False
    raising: bool = False
    silent: bool = False
    asked: list[tuple[list[str], float, float]] = field(default_factory=list)
    at: datetime = NOW

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        assert start <= end
        self.asked.append(
            ([one.name for one in records], (start - NOW).total_seconds() / 60, (end - NOW).total_seconds() / 60)
        )
        if self.raising:
            raise Unreachable("no answer")
        if self.failing:
            return TelemetryAnswer(series=(), faults=(FAILED,))
        known_until = min(end, self.at - self.lag)
        found = [
            series(0.0, of=one.ref, until=known_until, length=max(known_until - start, timedelta(0)))
            for one in records
            if one.ref not in self.ambiguous and not self.silent
        ]
        return TelemetryAnswer(series=tuple(found), ambiguous=self.ambiguous)


@dataclass
class Look:
    """A memory, an exporter and a clock."""

    memory: SampleMemory = field(default_factory=SampleMemory)
    exporter: Exporter = field(default_factory=Exporter)

    def at(self, after: timedelta, *names: str, window: timedelta = WINDOW) -> None:
        self.exporter.at = NOW + after
        self.memory.refresh(
            self.exporter,
            [record(name) for name in names or ("i-1",)],
            window=window,
            interval=INTERVAL,
            now=NOW + after,
        )

    def remembered(self, name: str = "i-1") -> list[float]:
        """Minutes from the first moment."""
        found = self.memory.of(ref(name))
        return [(second - NOW.timestamp()) / 60 for one in found for second in one.times]

    def reached(self) -> list[float]:
        """Of them, those that the window reaches now."""
        oldest = (self.exporter.at - WINDOW - NOW).total_seconds() / 60
        return [minute for minute in self.remembered() if minute >= oldest]


def test_at_first_the_whole_window_is_asked_for() -> None:
    look = Look()
    look.at(minutes(0))
    assert look.exporter.asked == [(["i-1"], -50.0, 0.0)]
    assert look.remembered() == list(range(-50, 0))


def test_nothing_is_asked_before_it_is_time() -> None:
    look = Look()
    look.at(minutes(0))
    look.at(minutes(4))
    assert len(look.exporter.asked) == 1


def test_then_only_the_newest_and_what_may_have_come_late() -> None:
    look = Look()
    look.at(minutes(0))
    look.at(minutes(5))
    assert look.exporter.asked[1:] == [(["i-1"], -10.0, 5.0)]
    assert look.reached() == list(range(-45, 5))


def test_a_new_machine_is_asked_about_at_once_and_in_full() -> None:
    look = Look()
    look.at(minutes(0))
    look.at(minutes(1), "i-1", "i-2")
    assert look.exporter.asked[1:] == [(["i-2"], -49.0, 1.0)]


def test_samples_that_come_late_are_found() -> None:
    look = Look(exporter=Exporter(lag=minutes(8)))
    for minute in range(0, 60, 5):
        look.at(minutes(minute))
    assert look.reached() == list(range(5, 47))


def test_what_failed_is_asked_again_in_full() -> None:
    look = Look(exporter=Exporter(failing=True))
    look.at(minutes(0))
    assert list(look.memory.faults) == [FAILED]
    look.exporter.failing = False
    look.at(minutes(5))
    assert look.exporter.asked[1:] == [(["i-1"], -45.0, 5.0)]
    assert list(look.memory.faults) == []


def test_after_a_failure_in_between_no_sample_is_missing() -> None:
    look = Look()
    look.at(minutes(0))
    look.exporter.failing = True
    for minute in (5, 10, 15, 20):
        look.at(minutes(minute))
    look.exporter.failing = False
    look.at(minutes(25))
    assert look.reached() == list(range(-25, 25))


def test_an_exporter_that_raises_leaves_what_was_known_and_makes_up_nothing() -> None:
    look = Look()
    look.at(minutes(0))
    look.exporter.raising = True
    with pytest.raises(Unreachable):
        look.at(minutes(5))
    assert look.remembered() == list(range(-50, 0))


def test_a_longer_window_is_asked_for_in_full() -> None:
    look = Look()
    look.at(minutes(0))
    look.at(minutes(5), window=hours(2))
    assert look.exporter.asked[1:] == [(["i-1"], -115.0, 5.0)]


def test_what_no_window_reaches_is_forgotten_and_so_is_who_is_gone() -> None:
    look = Look()
    look.at(minutes(0), "i-1", "i-2")
    look.at(minutes(30), "i-1")
    assert look.remembered("i-2") == []
    look.at(minutes(35), "i-1")
    assert min(look.remembered()) == -20


def test_what_the_last_look_was_judged_on_is_there_until_the_next_one_is_complete() -> None:
    look = Look()
    for minute in range(10):
        look.at(minutes(minute))
    judged_on = look.reached()
    look.at(minutes(10))
    assert look.exporter.asked[-1] == (["i-1"], -5.0, 10.0)
    assert set(judged_on) <= set(look.remembered())
    assert min(look.remembered()) == min(judged_on) == 9 - 50


def test_a_gpu_that_fell_silent_stays_a_gpu_without_samples() -> None:
    look = Look()
    look.at(minutes(0))
    look.exporter.silent = True
    for minute in range(5, 120, 5):
        look.at(minutes(minute))
    [one] = look.memory.of(ref())
    assert one.times == ()


def test_the_clock_set_back_an_hour_and_everything_is_asked_anew() -> None:
    look = Look()
    look.at(hours(1))
    look.at(minutes(0))
    assert look.exporter.asked[-1] == (["i-1"], -50.0, 0.0)
    for minute in range(1, 60):
        look.at(minutes(minute))
    assert [minute for minute in look.remembered() if 5 <= minute < 55] == list(range(5, 55))


def test_the_clock_set_ahead_an_hour_and_what_nobody_sampled_is_missing() -> None:
    look = Look()
    look.at(minutes(0))
    look.exporter.lag = hours(1)
    look.at(hours(1))
    assert look.reached() == []


def test_an_ambiguous_machine_stays_so_until_an_answer_says_otherwise() -> None:
    look = Look(exporter=Exporter(ambiguous=frozenset({ref()})))
    look.at(minutes(0))
    assert look.memory.ambiguous == {ref()}
    look.at(minutes(1), "i-1", "i-2")
    assert look.memory.ambiguous == {ref()}
    look.exporter.failing = True
    look.at(minutes(6))
    assert look.memory.ambiguous == {ref()}
    look.exporter.failing, look.exporter.ambiguous = False, frozenset()
    look.at(minutes(11))
    assert look.memory.ambiguous == set()


SAMPLES = st.dictionaries(st.integers(0, 40), st.sampled_from([0.0, 0.5]), max_size=12)


def made(samples: dict[int, float]) -> Series:
    ordered = sorted(samples.items())
    blank = replace(series(0.0, signal=Signal.UTILISATION), times=(), values=())
    return replace(blank, times=tuple(t for t, _ in ordered), values=array("d", [v for _, v in ordered]))


@given(SAMPLES, SAMPLES)
def test_two_stretches_become_one_and_the_newer_answer_counts(
    before: dict[int, float], after: dict[int, float]
) -> None:
    assert merged(made(before), made(after)) == made(before | after)
    assert merged(None, made(after)) == made(after)
