"""Compaction changes no answer, whatever ends it and whoever writes meanwhile; days that are too old go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.history import compact
from service.history.compact import Compactor
from service.history.layout import COMPACTED, WHOLE_DAY, History, Table, name_of
from service.history.record import Recorder, put
from tests.history.reading import MORNING, at, known, rows, said, samples, sight

TODAY = at(0).date()
NIGHT = 26 * 3600
"""When the day is over and all that comes late has come."""


@pytest.fixture(params=["a disk", "a bucket"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    place = History(str(tmp_path / "history") if request.param == "a disk" else f"memory://{uuid4().hex}/history")
    yield place
    if not place.local:
        place.files.rm(place.folder(Table.ACTIVITY, TODAY).partition("/activity")[0], recursive=True)


@pytest.fixture
def disk(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def wrote(history: History, table: Table, name: str, *told: Sequence[Any], day: date = TODAY) -> None:
    """A file of these rows, with seconds after midnight."""
    moved = [
        tuple(MORNING + cell if place in when(table) and cell is not None else cell for place, cell in enumerate(row))
        for row in told
    ]
    with history.connect() as connection:
        put(history, connection, table, day, name, moved)


def when(table: Table) -> tuple[int, ...]:
    return (2, 3) if table is Table.ACTIVITY else (1, 2)


def used(time: int, until: int | None, value: float, *, gpu: str = "0", step: int | None = 60) -> tuple[Any, ...]:
    return ("i-1", gpu, time, until, step, value, None, None, None, None, None)


def tidy(history: History, second: float = NIGHT, *, keep: timedelta | None = None) -> dict[str, int]:
    return dict(Compactor(history).tidy(at(second), keep=keep, enough=lambda: False, still_ours=lambda: None))


def names(history: History, table: Table = Table.ACTIVITY, day: date = TODAY) -> list[str]:
    return [name_of(path) for path in history.written(table, day)]


def a_day(history: History) -> None:
    """What a service wrote of two machines."""
    recorder, machines = Recorder(history), (known(), known("i-2", project="audio"))
    series = [samples(dict.fromkeys(range(0, 4800, 60), 0.02), device=str(gpu)) for gpu in range(2)]
    for second in range(0, 4800, 300):
        if second == 1800:
            machines = (machines[0], known("i-2", project="robots"))
        recorder.see(sight(second, *machines, series={"i-1": series}))
    recorder.close(at(4800))


def test_a_day_that_is_over_becomes_one_file_of_the_same_answers(history: History) -> None:
    a_day(history)
    before, stretches = rows(history, Table.ACTIVITY), said(history)
    assert tidy(history)["files compacted"] >= 24
    assert names(history) == names(history, Table.RESOURCES) == [WHOLE_DAY]
    assert (rows(history, Table.ACTIVITY), said(history)) == (before, stretches)
    assert [(row[0], row[1], row[2]) for row in rows(history, Table.RESOURCES)] == [
        ("i-1", 0, 4500),
        ("i-2", 0, 1800),
        ("i-2", 1800, 4500),
    ]
    assert tidy(history) == {}


def test_a_day_that_goes_on_keeps_few_files(disk: History) -> None:
    a_day(disk)
    before = rows(disk, Table.ACTIVITY), said(disk)
    tidy(disk, 4 * 3600)
    [name] = names(disk)
    assert name.endswith(COMPACTED)
    assert (rows(disk, Table.ACTIVITY), said(disk)) == before
    assert tidy(disk, 5 * 3600) == {}
    wrote(disk, Table.ACTIVITY, "late.parquet", used(20_000, None, 0.5, step=None))
    tidy(disk)
    assert names(disk) == [WHOLE_DAY]
    assert rows(disk, Table.ACTIVITY) == sorted(
        [*before[0], used(20_000, None, 0.5, step=None)], key=lambda row: row[:3]
    )


def test_a_compacted_file_is_sorted_and_tells_all_in_full(disk: History) -> None:
    a_day(disk)
    tidy(disk)
    with disk.connect() as connection:
        for table in Table:
            [path] = disk.parts(table, TODAY)
            found = connection.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [path]).fetchall()
            key = (0, 1, 2) if table is Table.ACTIVITY else (0, 1)
            assert found == sorted(found, key=lambda row: [row[place] for place in key])
            assert table is Table.ACTIVITY or None not in {row[3] for row in found}


def test_what_two_wrote_of_the_same_samples_is_told_once(disk: History) -> None:
    wrote(disk, Table.ACTIVITY, "1.parquet", used(0, 240, 0.02), used(300, None, 0.0, step=None))
    wrote(
        disk,
        Table.ACTIVITY,
        "2.parquet",
        used(0, 180, 0.02),
        used(300, 540, 0.4),
        used(0, None, 0.0, gpu="1", step=None),
    )
    tidy(disk)
    assert rows(disk, Table.ACTIVITY) == [
        used(0, 240, 0.02),
        used(300, 540, 0.4),
        used(0, None, 0.0, gpu="1", step=None),
    ]


CUT_OFF: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before anything is written": lambda patch: patch.setattr(compact, "copy", _fails),
    "before anything is deleted": lambda patch: patch.setattr(Compactor, "_clear", _fails_the_second_time()),
    "when half is deleted": lambda patch: patch.setattr(Compactor, "_clear", _deletes_half),
}


def _fails(*_: Any, **__: Any) -> None:
    raise OSError("the power is gone")


def _fails_the_second_time() -> Callable[..., None]:
    told: dict[Any, int] = {}

    def clear(self: Compactor, table: Table, day: date) -> None:
        told[table] = told.get(table, 0) + 1
        if told[table] > 1:
            _fails()

    return clear


def _deletes_half(self: Compactor, table: Table, day: date) -> None:
    """The first call finds nothing to delete, as there is no compacted file yet."""
    counts = {name_of(path) for path in self.history.parts(table, day)}
    dead = [path for path in self.history.written(table, day) if name_of(path) not in counts]
    for path in dead[::2]:
        self.history.files.rm_file(path)
    if dead:
        _fails()


@pytest.mark.parametrize("moment", CUT_OFF)
def test_a_compaction_that_is_cut_off_loses_nothing_and_doubles_nothing(history: History, moment: str) -> None:
    a_day(history)
    before = rows(history, Table.ACTIVITY), said(history)
    with pytest.MonkeyPatch.context() as patch, capture_logs() as log:
        CUT_OFF[moment](patch)
        tidy(history)
    assert {entry["event"] for entry in log} == {"history cannot be compacted"}
    assert (rows(history, Table.ACTIVITY), said(history)) == before
    wrote(history, Table.ACTIVITY, "meanwhile.parquet", used(50_000, None, 0.5, step=None))
    tidy(history)
    assert names(history) == [WHOLE_DAY]
    assert len(rows(history, Table.ACTIVITY)) == len(before[0]) + 1
    assert said(history) == before[1]


def test_a_file_that_cannot_be_read_stays_and_stops_no_other_day(disk: History) -> None:
    a_day(disk)
    Path(disk.folder(Table.ACTIVITY, TODAY), "0-broken.parquet").write_text("no Parquet")
    with capture_logs() as log:
        tidy(disk)
    assert [(entry["event"], entry["table"]) for entry in log] == [("history cannot be compacted", "activity")]
    assert "0-broken.parquet" in names(disk)
    assert names(disk, Table.RESOURCES) == [WHOLE_DAY]


def test_what_takes_too_long_is_given_up(disk: History, monkeypatch: pytest.MonkeyPatch) -> None:
    a_day(disk)
    before = rows(disk, Table.ACTIVITY)
    monkeypatch.setattr(compact, "AT_MOST_SECONDS", 0.2)
    slow = "SELECT resource, gpu, time, until, step, utilisation, memory_used_mib, power_watts, tensor_active, dram_active, served FROM parts, range(300000000) GROUP BY ALL"  # noqa: E501
    monkeypatch.setitem(compact.ROWS, Table.ACTIVITY, slow)
    with capture_logs() as log:
        tidy(disk)
    assert [entry["event"] for entry in log] == ["a day of history takes too long to compact"]
    assert rows(disk, Table.ACTIVITY) == before


def test_days_that_are_too_old_go(history: History) -> None:
    for ago in (0, 1, 9, 10, 11, 400):
        day = TODAY - timedelta(days=ago)
        wrote(history, Table.ACTIVITY, "1.parquet", used(-86_400 * ago, None, 0.0, step=None), day=day)
    assert tidy(history, 3600, keep=timedelta(days=10))["days deleted"] == 2
    assert [(TODAY - day).days for day in history.days()] == [10, 9, 1, 0]
    assert tidy(history, 3600).get("days deleted") is None


def test_it_ends_when_it_is_enough_or_another_governs(disk: History) -> None:
    a_day(disk)
    compactor = Compactor(disk)
    assert compactor.tidy(at(NIGHT), keep=None, enough=lambda: True, still_ours=lambda: None) == {}
    with pytest.raises(OSError, match="power"):
        compactor.tidy(at(NIGHT), keep=None, enough=lambda: False, still_ours=_fails)
    assert WHOLE_DAY not in names(disk)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["vision", "audio", None]), st.integers(1, 4), st.booleans()), min_size=1, max_size=12
)


@given(lives=st.lists(CHANGES, min_size=1, max_size=2), restart=st.integers(0, 12))
@settings(max_examples=8)
def test_whatever_was_seen_compaction_changes_no_answer(
    tmp_path: Path, lives: list[list[tuple[str | None, int, bool]]], restart: int
) -> None:
    """Of each machine: who pays, for how many looks, and whether it answered."""
    history = History(str(tmp_path / uuid4().hex))
    told = [[(project, seen) for project, count, seen in life for _ in range(count)] for life in lives]
    recorder = Recorder(history)
    for look in range(max(map(len, told))):
        lived = [(number, life[look]) for number, life in enumerate(told) if look < len(life)]
        there = [(known(f"i-{number}", project=project), answered) for number, (project, answered) in lived]
        seen = frozenset(one.id for one, answered in there if answered)
        if look == restart:
            recorder = Recorder(history)
        recorder.see(sight(150 * look, *(one for one, _ in there), seen=seen))
    recorder.close(at(150 * 60))
    before = said(history)
    tidy(history, 8 * 3600)
    assert said(history) == before
    tidy(history)
    assert said(history) == before
