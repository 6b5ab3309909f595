"""What a recorder is handed look by look is what can be read afterwards: nothing twice, nothing made up."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from providers.records import Series, Signal, State
from service.history import record
from service.history.layout import History, Table
from service.history.record import Recorder
from service.store.resources import from_json, to_json
from tests.history.reading import MORNING, Row, at, heard, known, rows, said, samples, sight, spoken
from tests.pipeline.builders import ref

MINUTE, HOUR = 60, 3600
NINE = 9 * HOUR


@pytest.fixture(params=["a disk", "a bucket"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    place = History(str(tmp_path / "history") if request.param == "a disk" else f"memory://{uuid4().hex}/history")
    yield place
    if not place.local:
        place.files.rm(place.folder(Table.ACTIVITY, at(0).date()).partition("/activity")[0], recursive=True)


@pytest.fixture
def disk(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def looks(recorder: Recorder, *series: Series, first: int = NINE, last: int, every: int = 300) -> None:
    """A machine that goes on as it is, looked at until then; each look has the samples that are there by then."""
    machine = known()
    for second in range(first, last + 1, every):
        there = [_until(one, second) for one in series]
        recorder.see(sight(second, machine, series={machine.id: there}))


def _until(series: Series, second: int) -> Series:
    told = zip(series.times, series.values, strict=True)
    return samples(
        [(time - MORNING, value) for time, value in told if time <= MORNING + second],
        device=series.device,
        signal=series.signal,
    )  # fmt: skip


def minutely(first: int, last: int, value: float = 0.0) -> dict[int, float]:
    return dict.fromkeys(range(first, last, MINUTE), value)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_samples_become_windows_of_five_minutes_of_the_clock(history: History) -> None:
    recorder = Recorder(history)
    used = samples({**minutely(NINE + 90, NINE + 600, 0.02), NINE + 270: 0.31})
    watts = samples(minutely(NINE + 90, NINE + 600, 81.2), signal=Signal.POWER_WATTS)
    looks(recorder, used, watts, last=NINE + 2400)

    assert rows(history, Table.ACTIVITY) == [
        ("i-1", "0", NINE + 90, NINE + 270, 60, 0.31, None, 82.0, None, None, None),
        ("i-1", "0", NINE + 330, NINE + 570, 60, 0.02, None, 82.0, None, None, None),
    ]


def test_a_window_is_written_when_it_can_no_longer_change_or_when_the_service_ends(history: History) -> None:
    recorder = Recorder(history)
    looks(recorder, samples(minutely(NINE, NINE + 1200)), last=NINE + 1200)
    assert [row[2] for row in rows(history, Table.ACTIVITY)] == [NINE]
    recorder.close(at(NINE + 1210))
    assert [row[2] for row in rows(history, Table.ACTIVITY)] == [NINE, NINE + 300, NINE + 600, NINE + 900]


def test_a_hole_stays_a_hole(history: History) -> None:
    recorder = Recorder(history)
    holes = samples({NINE: 0.0, NINE + 60: 0.0, NINE + 250: 0.0, NINE + 900: 0.0, NINE + 930: math.nan})
    looks(recorder, holes, last=NINE + 3000)
    assert [row[2:6] for row in rows(history, Table.ACTIVITY)] == [
        (NINE, NINE + 250, 190, 0.0),
        (NINE + 900, None, None, 0.0),
    ]


def test_another_signal_is_told_only_where_it_speaks_as_much_as_utilisation_does(history: History) -> None:
    recorder = Recorder(history)
    thin = samples({NINE: 70.0, NINE + 240: 70.0, NINE + 310: 70.0}, signal=Signal.POWER_WATTS)
    looks(recorder, samples(minutely(NINE, NINE + 600)), thin, last=NINE + 3000)
    assert [(row[2], row[7]) for row in rows(history, Table.ACTIVITY)] == [(NINE, None), (NINE + 300, None)]


COUNTERS = {
    "a counter that stands still served nothing": ([7, 7, 7, 7, 7, 7], [True, False, False]),
    "one that moved between two windows did in the later one": ([0, 0, 3, 3, 3, 3], [False, True, False]),
    "one that moved within a window did": ([0, 0, 0, 3, 3, 3], [False, True, False]),
    "one that begins anew moved": ([0, 0, 0, 0, 5, 0], [False, False, True]),
}


@pytest.mark.parametrize("case", COUNTERS)
def test_counters_of_requests(disk: History, case: str) -> None:
    values, moved = COUNTERS[case]
    counter = samples(
        {NINE + 150 * index: float(value) for index, value in enumerate(values)}, signal=Signal.REQUESTS_TOTAL
    )
    looks(Recorder(disk), counter, last=NINE + 3000)
    assert [(row[5], row[10]) for row in rows(disk, Table.ACTIVITY)] == [(None, word) for word in moved]


def test_what_joins_with_two_machines_is_not_kept(disk: History) -> None:
    recorder, machine = Recorder(disk), known()
    series = {machine.id: [samples(minutely(NINE, NINE + 300))]}
    recorder.see(sight(NINE + 3000, machine, series=series, ambiguous=frozenset({machine.id})))
    assert rows(disk, Table.ACTIVITY) == []


def test_the_last_samples_of_what_stopped_are_kept(disk: History) -> None:
    recorder, machine = Recorder(disk), known()
    last = samples(minutely(NINE, NINE + 600, 0.5))
    recorder.see(sight(NINE + 600, machine, series={machine.id: [last]}))
    stopped = known(state=State.STOPPED)
    recorder.see(sight(NINE + 660, stopped, gone={ref("i-1"): (last,)}))
    for second in range(NINE + 900, NINE + 2400, 300):
        recorder.see(sight(second, stopped))
    assert [(row[2], row[5]) for row in rows(disk, Table.ACTIVITY)] == [(NINE, 0.5), (NINE + 300, 0.5)]


def test_of_two_sources_that_tell_of_one_gpu_the_fuller_says_for_how_long_and_the_busier_how_busy(
    disk: History,
) -> None:
    recorder, machine = Recorder(disk), known()
    both = [samples(minutely(NINE, NINE + 300, 0.01)), samples({NINE + 30: 0.7, NINE + 90: 0.0})]
    recorder.see(sight(NINE + 3000, machine, series={machine.id: both}))
    assert [row[2:6] for row in rows(disk, Table.ACTIVITY)] == [(NINE, NINE + 240, 60, 0.7)]


@given(value=st.floats(0, 1), threshold=st.integers(1, 10_000).map(lambda part: part / 10_000))
@settings(max_examples=12)
def test_rounding_never_moves_a_value_below_a_threshold(tmp_path: Path, value: float, threshold: float) -> None:
    history = History(str(tmp_path / uuid4().hex))
    looks(Recorder(history), samples({NINE: value, NINE + 300: threshold}), first=NINE + 3000, last=NINE + 3000)
    kept, edge = [row[5] for row in rows(history, Table.ACTIVITY)]
    assert kept >= threshold or value < threshold
    assert edge == threshold


TIMES = st.lists(st.integers(0, 5400), min_size=1, max_size=60, unique=True)
LEVELS = st.sampled_from([0.0, 0.01, 0.05, 0.5, math.nan])


@given(
    times=TIMES,
    values=st.lists(LEVELS, min_size=60, max_size=60),
    late=st.lists(st.integers(0, 600), min_size=60, max_size=60),
    pace=st.integers(30, 400),
)
def test_windows_say_what_the_samples_said_however_late_each_came(
    times: list[int], values: list[float], late: list[int], pace: int
) -> None:
    told: dict[int, tuple[float, int]] = {
        time: (value, time + delay) for time, value, delay in zip(times, values, late, strict=False)
    }
    every = samples({time: value for time, (value, _) in told.items()})
    found: list[Row] = []
    written: record.Told = 0
    for now in range(0, 7200, pace):
        there = samples({time: value for time, (value, came) in told.items() if came <= now})
        settled = MORNING + (now - 900) // 300 * 300
        new, written = record.rows_of("i-1", [there], written, MORNING, settled)
        found += new
    found += record.rows_of("i-1", [every], written, MORNING, MORNING + 7200)[0]

    windows = [row[2:6] for row in found]
    assert spoken(windows, 300).keys() == heard(every, 300).keys()
    for gap in (60, 300):
        known_of = heard(every, gap)
        for second, value in spoken(windows, gap).items():
            assert known_of[second] <= value


@given(
    ends=st.lists(st.tuples(st.sampled_from(["killed", "stopped", "goes on"]), st.integers(1, 5)), max_size=4),
    holes=st.sets(st.integers(0, 89), max_size=40),
)
@settings(max_examples=8)
def test_no_restart_writes_anything_twice_or_loses_a_sample(
    tmp_path: Path, ends: list[tuple[str, int]], holes: set[int]
) -> None:
    history = History(str(tmp_path / uuid4().hex))
    every = samples({NINE + MINUTE * minute: minute % 7 / 100 for minute in range(90) if minute not in holes})
    machine, recorder, now = known(), Recorder(history), NINE
    for how, count in [*ends, ("goes on", 3)]:
        for _ in range(count):
            now += 300
            recorder.see(sight(now, machine, series={machine.id: [_until(every, now)]}))
        if how == "stopped":
            recorder.close(at(now))
        if how != "goes on":
            recorder = Recorder(history)
            now += 60
    recorder.see(sight(now + 7200, machine, series={machine.id: [_until(every, now)]}))

    found = rows(history, Table.ACTIVITY)
    seconds = [(row[2], row[2] if row[3] is None else row[3]) for row in found]
    assert all(until < since for (_, until), (since, _) in pairwise(seconds))
    there = _until(every, now)
    assert {second + MORNING for second in spoken([row[2:6] for row in found], 300)} == heard(there, 300).keys()


def test_two_instances_that_govern_in_turns_write_no_sample_twice(history: History) -> None:
    every, machine = samples(minutely(NINE, NINE + 5400)), known()
    both = [Recorder(history), Recorder(history)]
    for index, second in enumerate(range(NINE + 60, NINE + 5400, 150)):
        both[index % 2].see(sight(second, machine, series={machine.id: [_until(every, second)]}))
    both[0].close(at(NINE + 5400))
    times = [row[2] for row in rows(history, Table.ACTIVITY)]
    assert times == sorted(set(times))
    assert set(said(history)["i-1"].values()) == {to_json(machine)}


# --- resources -------------------------------------------------------------------------------------------------------


def test_a_stretch_is_told_in_full_once_a_day_and_when_it_changes(history: History) -> None:
    recorder = Recorder(history)
    running, stopped = known(), known(state=State.STOPPED)
    late = 23 * HOUR + 40 * MINUTE
    for second in range(late, late + 2400, 300):
        recorder.see(sight(second, running if second < late + 600 else stopped))
    recorder.close(at(late + 2100))

    found = rows(history, Table.RESOURCES)
    assert [(row[1], row[2], row[3] and from_json(row[3]).record.state) for row in found] == [
        (late, late + 300, State.RUNNING),
        (late + 300, late + 600, None),
        (late + 600, late + 900, State.STOPPED),
        (late + 900, late + 1200, None),
        (late + 1200, late + 1500, State.STOPPED),
        (late + 1500, late + 1800, None),
        (late + 1800, late + 2100, None),
    ]


def test_what_did_not_answer_is_known_up_to_the_next_look_and_no_longer(disk: History) -> None:
    recorder, machine, other = Recorder(disk), known(), known("i-2")
    for second in range(NINE, NINE + 1800, 60):
        seen = {"i-2"} | ({"i-1"} if not NINE + 600 <= second < NINE + 1200 else set())
        recorder.see(sight(second, machine, other, seen=frozenset(seen)))
    recorder.close(at(NINE + 1800))
    answers = said(disk)
    assert [*answers["i-2"]] == [*range(NINE, NINE + 1740)]
    assert [*answers["i-1"]] == [*range(NINE, NINE + 600), *range(NINE + 1200, NINE + 1740)]


def test_a_look_speaks_for_as_long_as_the_meter_believes_it(disk: History) -> None:
    recorder, machine = Recorder(disk), known()
    for second in (NINE, NINE + 300, NINE + 3600, NINE + 3900):
        recorder.see(sight(second, machine, speaks=timedelta(minutes=10)))
    assert [*said(disk)["i-1"]] == [*range(NINE, NINE + 900), *range(NINE + 3600, NINE + 3900)]


def test_what_is_gone_is_not_known(disk: History) -> None:
    recorder, machine = Recorder(disk), known()
    recorder.see(sight(NINE, machine))
    recorder.see(sight(NINE + 60))
    recorder.see(sight(NINE + 660))
    assert [*said(disk)["i-1"]] == [*range(NINE, NINE + 60)]


RESTARTS = {
    "after a short one the last look speaks until the first one": (120, NINE + 1800),
    "after a long one it does not": (1200, NINE + 1500),
}


@pytest.mark.parametrize("case", RESTARTS)
def test_a_restart(disk: History, case: str) -> None:
    pause, known_until = RESTARTS[case]
    machine = known()
    before = Recorder(disk)
    for second in range(NINE, NINE + 1501, 300):
        before.see(sight(second, machine))
    again, first = Recorder(disk), NINE + 1500 + pause
    for second in range(first, first + 601, 300):
        again.see(sight(second, machine))
    hole = [] if pause == 120 else [*range(known_until, first)]
    everything = [*range(NINE, first + 600)]
    assert [*said(disk)["i-1"]] == [second for second in everything if second not in hole]


def test_what_another_instance_saw_is_never_taken_for_what_we_did(disk: History) -> None:
    one, other = Recorder(disk), Recorder(disk)
    ours, theirs = known(), known(project="audio")
    for second, who in ((0, one), (300, one), (450, other), (750, other), (900, one), (1200, one), (1500, one)):
        who.see(sight(NINE + second, ours if who is one else theirs))
    answers = {second - NINE: from_json(text).project for second, text in said(disk)["i-1"].items()}
    assert [answers[second] for second in (0, 299, 449, 450, 749, 900, 1199, 1200, 1499)] == [
        *("vision", "vision", "vision", "audio", "audio", "vision", "vision", "vision", "vision")
    ]


# --- faults ----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_said_once_counted_and_written_later(tmp_path: Path) -> None:
    place = tmp_path / "history"
    place.write_text("a file where the folder should be")
    recorder = Recorder(History(str(place)))
    used = samples(minutely(NINE, NINE + 1500))
    with capture_logs() as log:
        looks(recorder, used, last=NINE + 2400)
    assert [entry["event"] for entry in log] == ["history is not written"]
    assert recorder.health.errors == 9
    assert recorder.health.reason is not None
    place.unlink()
    looks(recorder, used, first=NINE + 2700, last=NINE + 2700)

    assert (recorder.health.reason, recorder.health.written_at) == (None, at(NINE + 2700))
    assert [row[2] for row in rows(recorder.history, Table.ACTIVITY)] == [*range(NINE, NINE + 1500, 300)]
    assert [*said(recorder.history)["i-1"]] == [*range(NINE, NINE + 2700)]


def test_a_place_that_hangs_holds_up_nobody(disk: History, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, written = threading.Event(), disk.written
    monkeypatch.setattr(record, "PATIENCE", 0.05)
    monkeypatch.setattr(disk, "written", lambda table, day: goes_on.wait(30) and written(table, day))
    recorder, machine = Recorder(disk), known()
    assert "did not take the rows" in recorder.see(sight(NINE, machine))
    assert recorder.see(sight(NINE + 60, machine)).startswith("not written: still writing since 09:00")
    goes_on.set()
    monkeypatch.setattr(record, "PATIENCE", 30)
    assert recorder._writing is not None
    recorder._writing.answer.result(30)
    recorder.see(sight(NINE + 300, machine))
    assert recorder.health.reason is None
    assert [*said(disk)["i-1"]] == [*range(NINE, NINE + 300)]


def test_memory_is_bounded_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "history").write_text("in the way")
    monkeypatch.setattr(record, "MOST_STRETCHES", 10)
    recorder = Recorder(History(str(tmp_path / "history")))
    for index in range(40):
        recorder.see(sight(NINE + 60 * index, known(project=f"p{index}")))
    assert len(recorder._ended) <= 10
    assert recorder.health.errors > 8


def test_no_half_written_file_is_ever_read(disk: History) -> None:
    recorder = Recorder(disk)
    looks(recorder, samples(minutely(NINE, NINE + 900)), last=NINE + 2400)
    folder = Path(disk.folder(Table.ACTIVITY, at(NINE).date()))
    (folder / ".20261122T090000-aa-0001.parquet.tmp").write_text("half a file")
    assert len(rows(disk, Table.ACTIVITY)) == 3
    assert [path.suffix for path in folder.iterdir()].count(".tmp") == 1


def test_a_new_history_is_for_whom_it_belongs_to_alone_because_it_names_people(disk: History) -> None:
    looks(Recorder(disk), samples(minutely(NINE, NINE + 900)), last=NINE + 2400)
    assert Path(disk.location).stat().st_mode & 0o077 == 0
