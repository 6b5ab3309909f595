"""A plain table of samples becomes a history: all of it or nothing, and what is wrong with it is said."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from socket import socket
from typing import Any

import duckdb
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from providers.records import State
from service.history import days
from service.history.layout import History, Table
from service.history.table import Imported, Reading, Unreadable, import_table
from service.model import Known
from service.store.resources import from_json
from tests.history.reading import stored
from tests.real_data import REAL_DATA, needs

DAY = 86_400
MORNING = 1_795_305_600
"""2026-11-22, midnight in UTC."""


@pytest.fixture
def place(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., str]:
    """Writes a file of these lines."""

    def write(*lines: str, name: str = "samples.csv", encoding: str = "utf-8") -> str:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
        return str(path)

    return write


def took(file: str, place: History, **reading: Any) -> Imported:
    return import_table(file, place, Reading(**reading))


def samples(place: History) -> list[tuple[Any, ...]]:
    return stored(place, columns="resource, gpu, time, utilisation")


def stretches(place: History) -> list[tuple[str, int, int, Known]]:
    """What resources were, without the cuts at midnight."""
    found: list[tuple[str, int, int, Known]] = []
    for resource, since, until, known in stored(place, Table.RESOURCES):
        value = from_json(known)
        if found and found[-1][0] == resource and found[-1][2] == since and found[-1][3] == value:
            found[-1] = (resource, found[-1][1], until, value)
        else:
            found.append((resource, since, until, value))
    return found


def at(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is read ----------------------------------------------------------------------------------------------------


def test_the_three_columns_are_enough(place: History, csv: Callable[..., str]) -> None:
    found = took(csv("resource,time,utilisation", f"m-1,{MORNING},0.25", f"m-1,{MORNING + 60},0"), place)
    assert samples(place) == [("m-1", "0", MORNING, 0.25), ("m-1", "0", MORNING + 60, 0.0)]
    assert (found.samples, found.resources, found.gpus, found.days) == (2, 1, 1, 1)
    assert (found.start, found.end) == (at(MORNING), at(MORNING + 61))
    ((resource, since, until, known),) = stretches(place)
    assert (resource, since, until) == ("m-1", MORNING, MORNING + 61)
    assert known.id == known.record.name == known.record.ref.external_id == "m-1"
    assert (known.record.state, known.record.gpu_count, known.record.ref.provider) == (State.RUNNING, 1, "imported")
    assert known.price is None
    assert known.project is None


def test_a_new_history_is_for_whom_it_belongs_to_alone_because_it_names_people(
    place: History, csv: Callable[..., str]
) -> None:
    took(csv("resource,time,utilisation", f"m-1,{MORNING},0.25"), place)
    assert Path(place.location).stat().st_mode & 0o077 == 0


def test_it_had_begun_long_before_its_first_row_so_that_no_warm_up_hides_it(
    place: History, csv: Callable[..., str]
) -> None:
    took(csv("resource,time,utilisation", f"m-1,{MORNING},0"), place)
    assert stretches(place)[0][3].started_at == at(MORNING) - timedelta(days=1)


def test_every_column_is_taken(place: History, csv: Callable[..., str]) -> None:
    took(
        csv(
            "resource,time,utilisation,gpu_index,memory_used_bytes,power_watts,project,owner,name,kind,provider,account,"
            "region,capacity_type,sku,gpu_model,gpu_count,hourly_cost,currency,state",
            f"m-1,{MORNING},0.5,3,2097152,70.5,vision,ann@example.org,Trainer,node,aws,42,us-east-1,spot,p5,H100,8,"
            "12.3456789,eur,running",
        ),
        place,
    )
    assert stored(place, columns="gpu, memory_used_mib, power_watts, until, step, served") == [
        ("3", 2.0, 70.5, None, None, None)
    ]
    ((_, _, _, known),) = stretches(place)
    record = known.record
    assert (known.project, known.owner, record.name) == ("vision", "ann@example.org", "Trainer")
    assert (record.ref.kind.value, record.ref.provider, record.ref.account) == ("node", "aws", "42")
    assert (record.ref.region, record.sku, record.gpu_model, record.gpu_count) == ("us-east-1", "p5", "H100", 8)
    assert record.capacity_type.value == "spot"
    assert known.price is not None
    assert (known.price.rate_micros, known.price.currency) == (12_345_679, "EUR")
    assert known.price.source == "history table"


HEADER = "resource,time,utilisation"
ONE_SAMPLE = [("m-1", "0", MORNING, 0.5)]
WRITTEN: Mapping[str, Sequence[str]] = {
    "headers in capitals and with blanks": ["Resource, TIME ,Utilisation", f"m-1,{MORNING},0.5"],
    "a byte order mark": [f"\ufeff{HEADER}", f"m-1,{MORNING},0.5"],
    "semicolons": [HEADER.replace(",", ";"), f"m-1;{MORNING};0.5"],
    "tabs": [HEADER.replace(",", "\t"), f"m-1\t{MORNING}\t0.5"],
    "quotes everywhere": ['"resource","time","utilisation"', f'"m-1","{MORNING}","0.5"'],
    "columns in another order": ["utilisation,resource,time", f"0.5,m-1,{MORNING}"],
    "a moment in UTC": [HEADER, "m-1,2026-11-22T00:00:00Z,0.5"],
    "a moment with an offset": [HEADER, "m-1,2026-11-22T05:30:00+05:30,0.5"],
    "a moment with a blank and an offset of hours": [HEADER, "m-1,2026-11-22 02:00:00+02,0.5"],
    "a moment without a zone, which is UTC": [HEADER, "m-1,2026-11-22 00:00:00,0.5"],
    "a part of a second": [HEADER, f"m-1,{MORNING}.9,0.5"],
    "a utilisation that is missing, beside": [HEADER, f"m-1,{MORNING},0.5", f"m-1,{MORNING + 60},"],
    "a utilisation that is not a number, beside": [HEADER, f"m-1,{MORNING},0.5", f"m-1,{MORNING + 60},NaN"],
    "the same again, of which the highest counts": [HEADER, f"m-1,{MORNING},0.1", f"m-1,{MORNING},0.5"],
    "a GPU's number with a point": [f"{HEADER},gpu_index", f"m-1,{MORNING},0.5,0.0"],
    "Windows' ends of lines": [f"{HEADER}\r", f"m-1,{MORNING},0.5\r"],
}


@pytest.mark.parametrize("how", WRITTEN)
def test_it_may_be_written_with(how: str, place: History, csv: Callable[..., str]) -> None:
    found = took(csv(*WRITTEN[how]), place)
    assert samples(place) == ONE_SAMPLE
    assert found.without_zone == ("without a zone" in how)
    assert found.duplicates == ("again" in how)
    assert found.silent == ("beside" in how)


NAMES = {
    "a path": "projects/p/instances/../../etc",
    "quotes": 'it\'s "one"',
    "another script": "机器-①🚀",
    "a line's end": "one\ntwo",
    "a pattern": "*[a]?",
    "SQL": "'); DROP TABLE sample; --",
    "blanks around it": "  m  ",
    "a thousand characters": "x" * 1000,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_resource_may_be_called_anything(name: str, place: History, csv: Callable[..., str]) -> None:
    quoted = NAMES[name].replace('"', '""')
    took(csv(HEADER, f'"{quoted}",{MORNING},0.5'), place)
    assert samples(place) == [(NAMES[name], "0", MORNING, 0.5)]
    assert stretches(place)[0][3].id == NAMES[name]


@pytest.mark.parametrize("name", ["a*b.csv", "[x].csv", "it's.csv", "?.csv"])
def test_the_file_and_its_place_may_be_called_anything(name: str, tmp_path: Path, csv: Callable[..., str]) -> None:
    """No name is a pattern: beside them lie files that it would fit."""
    for other in ("ab.csv", "aXb.csv", "x.csv"):
        csv(HEADER, f"other,{MORNING},1", name=other)
    for _ in range(2):  # the second time there is something to merge with
        took(csv(HEADER, f"m-1,{MORNING},0.5", name=name), History(str(tmp_path / "it's; h")))
    (file,) = (tmp_path / "it's; h").glob("activity/*/*")
    with duckdb.connect() as connection, file.open("rb") as opened:
        (tmp_path / "plain.parquet").write_bytes(opened.read())
        assert connection.sql(f"SELECT resource FROM '{tmp_path}/plain.parquet'").fetchall() == [("m-1",)]


def test_a_place_that_does_not_answer_is_told_without_its_login() -> None:
    with socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(ValueError, match="cannot be reached: Connection refused") as told:
            History(f"ftp://bob:s3cret@127.0.0.1:{port}/past")
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("name", ["h*", "h?", "h[x]"])
def test_a_history_lies_in_no_place_whose_name_is_a_pattern(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot lie in a place with"):
        History(str(tmp_path / name))


def test_it_may_be_compressed(place: History, tmp_path: Path) -> None:
    path = tmp_path / "samples.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\nm-1,{MORNING},0.5\n".encode()))
    took(str(path), place)
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'm-2' AS resource, {MORNING} AS time, 0.5 AS utilisation) TO '{tmp_path}/two.csv.zst' "
            "(FORMAT csv, COMPRESSION zstd)"
        )
    took(str(tmp_path / "two.csv.zst"), place)
    assert samples(place) == [("m-1", "0", MORNING, 0.5), ("m-2", "0", MORNING, 0.5)]


PARQUET = {
    "whole seconds": f"{MORNING}::BIGINT",
    "seconds with a fraction": f"{MORNING}.25::DOUBLE",
    "a moment with a zone": f"to_timestamp({MORNING})",
    "a moment without one": "TIMESTAMP '2026-11-22 00:00:00'",
    "nanoseconds without a zone": "TIMESTAMP_NS '2026-11-22 00:00:00'",
    "text": "'2026-11-22T00:00:00Z'",
    "a decimal number": f"{MORNING}::DECIMAL(18, 3)",
}


@pytest.mark.parametrize("kind", PARQUET)
def test_parquet_tells_the_time_as(kind: str, place: History, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'm-1' AS Resource, {PARQUET[kind]} AS \"TIME\", 0.5::FLOAT AS utilisation, 0::TINYINT AS "
            f"gpu_index) TO '{tmp_path}/samples' (FORMAT parquet)"
        )
    found = took(str(tmp_path / "samples"), place)
    assert samples(place) == ONE_SAMPLE
    assert found.without_zone == ("without" in kind)


def test_percent_and_milliseconds_are_taken_when_they_are_told(place: History, csv: Callable[..., str]) -> None:
    took(csv(HEADER, f"m-1,{MORNING}999,50"), place, percent=True, milliseconds=True)
    assert samples(place) == ONE_SAMPLE


def test_columns_can_be_left_out(place: History, csv: Callable[..., str]) -> None:
    took(csv(f"{HEADER},comment", f"m-1,{MORNING},0.5,hello"), place, ignore=["Comment"])
    assert samples(place) == ONE_SAMPLE


def test_the_gpus_are_those_that_were_sampled(place: History, csv: Callable[..., str]) -> None:
    lines = [f"m-1,{MORNING + 60 * minute},0.5,{gpu}" for minute in range(3) for gpu in range(4)]
    found = took(csv(f"{HEADER},gpu_index", *lines), place)
    assert found.gpus == 4
    assert stretches(place)[0][3].record.gpu_count == 4


# --- what is refused -------------------------------------------------------------------------------------------------

REFUSED: Mapping[str, tuple[Sequence[str], str]] = {
    "nothing but a header": ([HEADER], "has a header and no rows"),
    "no column of time": (["resource,tme,utilisation", "m,1,1"], "column 'tme' is not known; did you mean 'time'?"),
    "no utilisation": (["resource,time", "m,1"], "there is no column 'utilisation'"),
    "an unknown column": ([f"{HEADER},colour", "m,1,1,red"], "column 'colour' is not known; there are resource, time"),
    "a column twice": ([f"{HEADER},Time", "m,1,1,1"], "there are two columns 'time'"),
    "percent": (
        [HEADER, f"m,{MORNING},0", f"m,{MORNING},37"],
        "row 2 (after the header): utilisation '37' is not between 0 and 1: all of them are, if they are percent; "
        "then say --percent",
    ),
    "more than percent": ([HEADER, f"m,{MORNING},370"], "row 1 (after the header): utilisation '370' is not between"),
    "less than nothing": ([HEADER, f"m,{MORNING},-0.1"], "utilisation '-0.1' is not between 0 and 1"),
    "infinity": ([HEADER, f"m,{MORNING},inf"], "utilisation 'inf' is not between 0 and 1"),
    "a word for a utilisation": ([HEADER, f"m,{MORNING},high"], "utilisation 'high' is no number"),
    "no resource": ([HEADER, f"m,{MORNING},0", f",{MORNING},0"], "row 2 (after the header): resource is empty"),
    "a resource of blanks": ([HEADER, f"  ,{MORNING},0"], "resource '  ' is empty"),
    "no time": ([HEADER, "m,,0"], "time is neither Unix seconds nor a date and time like"),
    "a word for a time": ([HEADER, "m,yesterday,0"], "time 'yesterday' is neither Unix seconds nor a date"),
    "milliseconds": ([HEADER, f"m,{MORNING}000,0"], "is no time in seconds; if it is in milliseconds, say --milli"),
    "a time before 1970": ([HEADER, "m,-1,0"], "time '-1' is before 1970"),
    "a date before 1970": ([HEADER, "m,1969-12-31T00:00:00Z,0"], "time '1969-12-31T00:00:00Z' is before 1970"),
    "a time in 2200": ([HEADER, "m,7258118400,0"], "time '7258118400' is after the year 2100"),
    "a number of no use": ([HEADER, f"m,{10**400},0"], "time '1000000000"),
    "a negative memory": ([f"{HEADER},memory_used_bytes", f"m,{MORNING},0,-1"], "memory_used_bytes '-1' is no amount"),
    "half a GPU": ([f"{HEADER},gpu_count", f"m,{MORNING},0,0.5"], "gpu_count '0.5' is no number of GPUs"),
    "a GPU and a half": ([f"{HEADER},gpu_count", f"m,{MORNING},0,1.5"], "gpu_count '1.5' is no whole number"),
    "a negative cost": ([f"{HEADER},hourly_cost", f"m,{MORNING},0,-1"], "hourly_cost '-1' is no cost of an hour"),
    "an unknown currency": ([f"{HEADER},currency", f"m,{MORNING},0,EURO"], "currency 'EURO' is no ISO 4217"),
    "an unknown state": (
        [f"{HEADER},state", f"m,{MORNING},0,runing"],
        "state 'runing' is none of pending, running, stopping, stopped, suspended, terminated, unknown; did you mean "
        "'running'?",
    ),
    "a row with too many fields": ([HEADER, f"m,{MORNING},0,5"], ", line 2: expected Number of Columns: 3 Found: 4"),
    "a row with too few": ([HEADER, f"m,{MORNING},0", f"m,{MORNING}"], ", line 3: "),
    "a quote that never ends": ([HEADER, f'"m,{MORNING},0'], ", line 2: "),
    "neither utilisation nor state": ([HEADER, f"m,{MORNING},"], "no row has a utilisation, nor a state"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_is(what: str, tmp_path: Path, csv: Callable[..., str]) -> None:
    lines, sentence = REFUSED[what]
    with pytest.raises(Unreadable) as refused:
        took(csv(*lines), History(str(tmp_path / "history")))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(tmp_path / "samples.csv") in str(refused.value)
    assert not (tmp_path / "history").exists(), "nothing is left behind"


def test_no_file_is_refused_in_a_sentence(place: History, tmp_path: Path, csv: Callable[..., str]) -> None:
    csv(HEADER, name="samples.csv")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "no.parquet").write_text(f"{HEADER}\nm,{MORNING},1\n")
    (tmp_path / "image").write_bytes(b"\0\1\2\3" * 100)
    for file, sentence in {
        str(tmp_path / "sample.csv"): "there is no such file; did you mean 'samples.csv'?",
        str(tmp_path / "*.csv"): "there is no such file",
        str(tmp_path): "is a folder; name one file",
        str(tmp_path / "empty.csv"): "is empty",
        "https://example.org/samples.csv": "only a file on this machine is read",
        "s3://bucket/samples.parquet": "only a file on this machine is read",
        "/dev/null": "is no plain file",
        str(tmp_path / "torn.parquet"): "torn.parquet: ",
        str(tmp_path / "no.parquet"): "is neither CSV nor Parquet",
        str(tmp_path / "image"): "is neither CSV nor Parquet",
    }.items():
        with pytest.raises(Unreadable) as refused:
            took(file, place)
        assert sentence in str(refused.value)
        assert "\n" not in str(refused.value)


def test_text_that_is_not_utf_8_is_refused(place: History, csv: Callable[..., str]) -> None:
    with pytest.raises(Unreadable, match=r"samples\.csv: "):
        took(csv(HEADER, f"m,{MORNING},1", encoding="utf-16"), place)
    with pytest.raises(Unreadable, match="is not text in UTF-8"):
        took(csv(HEADER, f"Köln,{MORNING},1", encoding="latin-1"), place)


# --- what a resource was ---------------------------------------------------------------------------------------------


def test_what_changes_begins_a_stretch_and_what_is_left_open_is_as_before(
    place: History, csv: Callable[..., str]
) -> None:
    took(
        csv(
            f"{HEADER},project,hourly_cost",
            f"m,{MORNING},1,vision,2",
            f"m,{MORNING + 60},1,,",
            f"m,{MORNING + 120},1,speech,",
            f"m,{MORNING + 180},1,speech,3",
        ),
        place,
    )
    told = [
        (since - MORNING, until - MORNING, known.project, known.price.rate_micros if known.price else None)
        for _, since, until, known in stretches(place)
    ]
    assert told == [
        (0, 120, "vision", 2_000_000),
        (120, 180, "speech", 2_000_000),
        (180, 181, "speech", 3_000_000),
    ]
    assert [known.project_since for *_, known in stretches(place)] == [at(MORNING), *[at(MORNING + 120)] * 2]


def test_a_state_holds_until_the_next_row(place: History, csv: Callable[..., str]) -> None:
    took(
        csv(
            f"{HEADER},state",
            f"m,{MORNING},0,running",
            f"m,{MORNING + 600},,stopped",
            f"m,{MORNING + 4200},,running",
            f"m,{MORNING + 4260},0.5,",
        ),
        place,
    )
    told = stretches(place)
    assert [(since - MORNING, until - MORNING, known.record.state.value) for _, since, until, known in told] == [
        (0, 600, "running"),
        (600, 4200, "stopped"),
        (4200, 4261, "running"),
    ]
    first, stopped, again = (known for *_, known in told)
    assert (first.started_at, first.restarted_at) == (at(MORNING) - timedelta(days=1), None)
    assert (stopped.started_at, stopped.state_since, stopped.earlier_runs_seconds) == (None, at(MORNING + 600), 600)
    assert (again.started_at, again.restarted_at) == (at(MORNING + 4200), at(MORNING + 4200))
    assert [row[2] - MORNING for row in samples(place)] == [0, 4260]


def test_after_a_day_of_silence_nothing_is_known_until_it_speaks_again(place: History, csv: Callable[..., str]) -> None:
    took(csv(HEADER, f"m,{MORNING},0", f"m,{MORNING + DAY},0", f"m,{MORNING + 2 * DAY + 1},0"), place)
    assert [(since - MORNING, until - MORNING) for _, since, until, _ in stretches(place)] == [
        (0, DAY + 1),
        (2 * DAY + 1, 2 * DAY + 2),
    ]


def test_each_day_tells_of_its_resources_by_itself(place: History, csv: Callable[..., str]) -> None:
    took(csv(HEADER, *(f"m,{MORNING + hour * 3600},0" for hour in range(0, 72, 6))), place)
    assert place.days() == [date(2026, 11, 22), date(2026, 11, 23), date(2026, 11, 24)]
    assert [(since, until) for _, since, until, _ in stored(place, Table.RESOURCES)] == [
        (MORNING, MORNING + DAY),
        (MORNING + DAY, MORNING + 2 * DAY),
        (MORNING + 2 * DAY, MORNING + 66 * 3600 + 1),
    ]


PROJECTS = st.sampled_from(["", "vision", "speech"])
STATES = st.sampled_from(["", "running", "stopped"])
TOLD = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.one_of(st.integers(0, 12), st.integers(0, 80).map(lambda hours: hours * 3600)),
        st.sampled_from(["", "0", "0.5"]),
        PROJECTS,
        STATES,
    ),
    min_size=1,
    max_size=14,
    unique_by=lambda row: row[:2],
)


def expected(told: Sequence[tuple[str, int, str, str, str]]) -> dict[tuple[str, int], tuple[str | None, str]]:
    """(resource, second) → project and state at each row and right after it, by walking through the rows."""
    found: dict[tuple[str, int], tuple[str | None, str]] = {}
    for resource in ("a", "b"):
        mine = sorted(row for row in told if row[0] == resource and (row[2] or row[4]))
        project: str | None = None
        for index, (_, second, _, said, state) in enumerate(mine):
            project = said or project
            known = project, state or "running"
            found[resource, second] = known
            following = mine[index + 1][1] if index + 1 < len(mine) else math.inf
            if second + 1 < following <= second + DAY:
                found[resource, second + 1] = found[resource, int(following) - 1] = known
    return found


@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(told=TOLD)
def test_at_every_moment_it_is_what_its_last_row_says(told: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("told")
    file = folder / "samples.csv"
    lines = [",".join((row[0], str(MORNING + row[1]), *row[2:])) for row in told]
    random.Random(7).shuffle(lines)
    file.write_text("\n".join([f"{HEADER},project,state", *lines]))
    place = History(str(folder / "history"))
    wanted = expected(told)
    if not wanted:
        with pytest.raises(Unreadable):
            took(str(file), place)
        return
    took(str(file), place)
    cut = [(row[0], row[1], row[2], from_json(row[3])) for row in stored(place, Table.RESOURCES)]

    def said(resource: str, second: int) -> list[tuple[str | None, str]]:
        return [
            (known.project, known.record.state.value)
            for id, since, until, known in cut
            if id == resource and since <= second < until
        ]

    assert {key: said(key[0], MORNING + key[1]) for key in wanted} == {key: [value] for key, value in wanted.items()}
    assert sum(until - since for _, since, until, _ in cut) == _known_seconds(told)
    assert len(samples(place)) == sum(bool(row[2]) for row in told)


def _known_seconds(told: Sequence[tuple[str, int, str, str, str]]) -> int:
    """Each row speaks until the next one, or for its own second where that is more than a day away or there is none."""
    total = 0
    for resource in ("a", "b"):
        mine = sorted(row[1] for row in told if row[0] == resource and (row[2] or row[4]))
        for second, following in pairwise([*mine, math.inf]):
            total += int(following - second) if following - second <= DAY else 1
    return total


# --- what is there already -------------------------------------------------------------------------------------------


def test_others_are_added_and_the_same_is_replaced(place: History, csv: Callable[..., str]) -> None:
    took(csv(f"{HEADER},project", f"a,{MORNING},0.1,old", f"a,{MORNING + 60},0.1,old", f"b,{MORNING},0.2,old"), place)
    took(csv(f"{HEADER},project", f"a,{MORNING + 60},0.9,new", f"c,{MORNING},0.3,new"), place)
    assert samples(place) == [
        ("a", "0", MORNING, 0.1),
        ("a", "0", MORNING + 60, 0.9),
        ("b", "0", MORNING, 0.2),
        ("c", "0", MORNING, 0.3),
    ]
    told = [(id, since - MORNING, until - MORNING, known.project) for id, since, until, known in stretches(place)]
    assert told == [("a", 0, 60, "old"), ("a", 60, 61, "new"), ("b", 0, 1, "old"), ("c", 0, 1, "new")]


def test_an_older_stretch_is_cut_out_where_the_new_one_lies(place: History, csv: Callable[..., str]) -> None:
    took(csv(f"{HEADER},project", f"a,{MORNING},0,old", f"a,{MORNING + 3600},0,old"), place)
    took(csv(f"{HEADER},project", f"a,{MORNING + 600},0,new", f"a,{MORNING + 1200},0,new"), place)
    told = [(since - MORNING, until - MORNING, known.project) for _, since, until, known in stretches(place)]
    assert told == [(0, 600, "old"), (600, 1201, "new"), (1201, 3601, "old")]


def test_the_same_import_again_changes_nothing(place: History, tmp_path: Path, csv: Callable[..., str]) -> None:
    file = csv(f"{HEADER},gpu_index", *(f"m-{n % 3},{MORNING + n * 1000},0.5,{n % 2}" for n in range(300)))
    took(file, place)
    before = stored(place), stored(place, Table.RESOURCES), len(everything(tmp_path / "history"))
    took(file, place)
    assert (stored(place), stored(place, Table.RESOURCES), len(everything(tmp_path / "history"))) == before


def test_a_day_is_one_sorted_file_of_the_layouts_types(place: History, tmp_path: Path, csv: Callable[..., str]) -> None:
    lines = [f"m-{n},{MORNING + n},0.5" for n in random.Random(1).sample(range(5000), 5000)]
    took(csv(HEADER, *lines), place)
    (file,) = place.parts(Table.ACTIVITY, date(2026, 11, 22))
    with place.connect() as connection:
        described = connection.execute("DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning=false)", [file])
        assert [(row[0], row[1]) for row in described.fetchall()] == list(Table.ACTIVITY.columns.items())
        found = connection.execute("SELECT resource FROM read_parquet(?)", [file]).fetchall()
        assert found == sorted(found)
        codecs = connection.execute("SELECT DISTINCT compression FROM parquet_metadata(?)", [file]).fetchall()
        assert codecs == [("ZSTD",)]


def test_one_import_at_a_time(place: History, csv: Callable[..., str]) -> None:
    file = csv(HEADER, f"m,{MORNING},1")
    with days.staging(place, days.Wins.NEW), pytest.raises(days.Busy, match="another import is under way"):
        took(file, place)
    took(file, place)
    assert len(samples(place)) == 1


def test_a_day_that_is_compacted_meanwhile_is_not_merged_twice(
    place: History, tmp_path: Path, csv: Callable[..., str]
) -> None:
    took(csv(HEADER, f"a,{MORNING},1"), place)
    day = tmp_path / "history/activity/day=2026-11-22"
    (day / "all.parquet").rename(day / "20261122T000000-part.parquet")
    before = everything(tmp_path / "history")

    def compacted(share: float, words: str) -> None:
        if words.startswith("moving"):
            (day / "20261122T000000-part.parquet").rename(day / "all.parquet")

    with pytest.raises(days.Busy, match="2026-11-22 was compacted meanwhile; try again"):
        import_table(csv(HEADER, f"b,{MORNING},1"), place, Reading(), compacted)
    assert sorted(everything(tmp_path / "history").values()) == sorted(before.values())


class Unplugged(Exception):
    pass


@pytest.mark.parametrize("moves", range(5))
def test_an_import_that_is_cut_off_while_moving_is_finished_by_the_next(
    moves: int, place: History, tmp_path: Path, csv: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    took(csv(HEADER, f"a,{MORNING},0.1", f"a,{MORNING + DAY},0.1"), place)
    done = 0
    replace = days.os.replace

    def unplugged(one: Any, other: Any) -> None:
        nonlocal done
        if done == moves:
            raise Unplugged
        done += 1
        replace(one, other)

    new = csv(HEADER, f"b,{MORNING},0.2", f"b,{MORNING + DAY},0.2")
    with monkeypatch.context() as patched:
        patched.setattr(days.os, "replace", unplugged)
        try:
            took(new, place)
        except Unplugged:
            assert moves < 4
    took(csv(HEADER, f"c,{MORNING},0.3"), place)
    assert [row[0] for row in samples(place)] == ["a", "a", "b", "b", "c"]
    assert not list((tmp_path / "history").glob(f"{days.STAGING}*"))


@pytest.mark.parametrize("words", ["reading", "sorting 2026-11-22", "resources", "moving it into place"])
def test_an_import_that_is_interrupted_leaves_everything_as_it_was(
    words: str, place: History, tmp_path: Path, csv: Callable[..., str]
) -> None:
    took(csv(HEADER, f"a,{MORNING},0.1"), place)
    before = everything(tmp_path / "history")

    def interrupted(share: float, told: str) -> None:
        if told == words:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_table(csv(HEADER, f"b,{MORNING},0.1"), place, Reading(), interrupted)
    assert everything(tmp_path / "history") == before


def test_a_full_disk_is_told_in_a_sentence_and_nothing_changes(
    place: History, tmp_path: Path, csv: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    took(csv(HEADER, f"a,{MORNING},0.1"), place)
    before = everything(tmp_path / "history")

    def full(*arguments: object) -> int:
        raise duckdb.IOException('IO Error: Could not write all bytes to file "x": No space left on device')

    monkeypatch.setattr(days.Staging, "put", full)
    with pytest.raises(OSError, match="there is no space left to make the history in; nothing was changed"):
        took(csv(HEADER, f"b,{MORNING},0.1"), place)
    assert everything(tmp_path / "history") == before


@pytest.fixture
def far_away() -> Iterator[History]:
    place = History("memory://imported/history")
    yield place
    place.files.rm("/imported", recursive=True)


def test_a_history_may_lie_anywhere(far_away: History, csv: Callable[..., str]) -> None:
    took(csv(HEADER, f"a,{MORNING},0.1"), far_away)
    took(csv(HEADER, f"b,{MORNING},0.2", f"a,{MORNING},0.3"), far_away)
    assert samples(far_away) == [("a", "0", MORNING, 0.3), ("b", "0", MORNING, 0.2)]


# --- how much --------------------------------------------------------------------------------------------------------


def test_days_are_taken_in_portions_where_there_are_many_rows(
    place: History, csv: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.history.table.PORTION", 100)
    lines = [f"m-{n % 7},{MORNING + n * 3000},{(n % 10) / 10},{'p' if n < 200 else 'q'}" for n in range(400)]
    found = took(csv(f"{HEADER},project", *lines), place)
    assert found.samples == len(samples(place)) == 400
    assert {(known.id, known.project) for *_, known in stretches(place)} == {
        (f"m-{n}", project) for n in range(7) for project in "pq"
    }


def test_many_resources_are_told_one_by_one(place: History, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT 'm-' || range AS resource, {MORNING} AS time, 0.5 AS utilisation FROM range(45000)) "
            f"TO '{tmp_path}/many.parquet' (FORMAT parquet)"
        )
    assert took(f"{tmp_path}/many.parquet", place).resources == 45_000
    told = stored(place, Table.RESOURCES, "resource, known")
    assert len(told) == 45_000
    assert all(json.loads(known)["id"] == resource for resource, known in told[::997])


# --- a real day ------------------------------------------------------------------------------------------------------

TRACE = REAL_DATA / "traces/gentd26_pod_gpu_util_57s.parquet"


@needs("traces/gentd26_pod_gpu_util_57s.parquet")
def test_a_real_day_of_pods_is_there_sample_by_sample_and_hole_by_hole(place: History, tmp_path: Path) -> None:
    table = tmp_path / "pods.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT container_ip AS resource, timestamp_anon AS time, gpu_util_pct / 100 AS utilisation, "
            f"gpu_mem_used_bytes AS memory_used_bytes FROM '{TRACE}') TO '{table}' (FORMAT parquet)"
        )
        wanted = connection.execute(
            f"""
            SELECT container_ip, count(*), min(timestamp_anon), max(timestamp_anon), sum(gpu_util_pct), max(hole),
                   count(*) FILTER (hole > 300)
            FROM (
                SELECT *, timestamp_anon - lag(timestamp_anon) OVER (
                    PARTITION BY container_ip ORDER BY timestamp_anon
                ) AS hole FROM '{TRACE}' WHERE gpu_util_pct IS NOT NULL
            )
            GROUP BY ALL ORDER BY ALL
            """
        ).fetchall()
    found = took(str(table), place)
    mine: dict[str, list[tuple[int, float]]] = {}
    for resource, _, second, utilisation in samples(place):
        mine.setdefault(resource, []).append((second, utilisation))
    assert [(pod, len(told), told[0][0], told[-1][0]) for pod, told in sorted(mine.items())] == [
        row[:4] for row in wanted
    ]
    for pod, _, _, _, percent, longest, holes in wanted:
        told = mine[pod]
        gaps = [after[0] - before[0] for before, after in pairwise(told)]
        assert sum(value for _, value in told) * 100 == pytest.approx(percent)
        assert max(gaps, default=None) == longest
        assert sum(gap > 300 for gap in gaps) == holes
    assert [(id, since, until) for id, since, until, _ in stretches(place)] == [
        (pod, first, last + 1) for pod, _, first, last, *_ in wanted
    ]
    assert found.samples == sum(row[1] for row in wanted)
