"""What a real Prometheus has of the past comes into a history, of what Curfew knows and as the live cycle writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from providers.errors import Unreachable
from providers.records import CapacityType, Price, ResourceRecord, Series, Signal, State, TelemetryAnswer
from service import cli
from service.history import prometheus
from service.history.days import STAGING
from service.history.layout import History, Table
from service.history.prometheus import Imported, Lived, NothingToAsk, import_past
from service.history.record import WINDOW
from service.model import Known
from service.store import resources
from service.store.database import Database
from service.store.resources import from_json
from service.store.tables import Document, MeterInterval
from tests.history.reading import stored
from tests.providers.prometheus.builders import machine, telemetry
from tests.providers.prometheus.server import Samples, fill, running

END = datetime(2026, 11, 16, 12, tzinfo=UTC)
START = END - timedelta(days=2)
HOUR = timedelta(hours=1)

Serve = Callable[[Mapping[str, Samples]], str]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a real server that has these series and no others."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:

        def started(series: Mapping[str, Samples]) -> str:
            (tmp_path / "prometheus").mkdir()
            fill(tmp_path / "prometheus", series)
            return stack.enter_context(running(tmp_path / "prometheus"))

        yield started


@pytest.fixture
def place(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def second(at: datetime) -> int:
    return int(at.timestamp())


def gpu(host: str, index: int = 0, metric: str = "DCGM_FI_DEV_GPU_UTIL") -> str:
    return f'{metric}{{Hostname="{host}",gpu="{index}",UUID="GPU-{host}-{index}"}}'


def every(seconds: int, value: float, since: datetime, until: datetime) -> list[tuple[int, float]]:
    return [(at, value) for at in range(second(since), second(until), seconds)]


def seen(name: str = "trainer", **more: Any) -> Known:
    """Seen by Curfew first an hour before the end, running since the day before that."""
    record: ResourceRecord = machine("i-1", name=name, launched_at=None)
    return replace(
        Known(
            id=name,
            source="aws",
            record=record,
            first_seen=END - HOUR,
            state_since=END - HOUR,
            started_at=END - HOUR,
            project="vision",
            project_since=END - HOUR,
            price=Price(rate_micros=98_000_000, currency="USD", source="list"),
        ),
        **more,
    )


def interval(since: datetime, until: datetime | None, **more: Any) -> MeterInterval:
    values: dict[str, Any] = dict(
        resource_id="trainer",
        project="vision",
        state="running",
        capacity_type="on_demand",
        activity="idle",
        rate_micros=98_000_000,
        currency="USD",
        price_source="list",
        started_at=since,
        ended_at=until,
        base=0,
    )
    return MeterInterval(**{**values, **more})


def imported(server: Any, place: History, *lived: Lived, start: datetime = START, end: datetime = END) -> Imported:
    return import_past({"metrics": server}, lived, place, start=start, end=end, progress=lambda share, words: None)


def lives(place: History) -> list[tuple[datetime, datetime, Known]]:
    """What the resources were, without the cuts at midnight."""
    found: list[tuple[datetime, datetime, Known]] = []
    for _, since, until, text in stored(place, Table.RESOURCES):
        known = from_json(text)
        since, until = (datetime.fromtimestamp(at, UTC) for at in (since, until))
        if found and found[-1][1:] == (since, known):
            found[-1] = found[-1][0], until, known
        else:
            found.append((since, until, known))
    return found


@dataclass
class Told:
    """A server that tells what it is given."""

    series: tuple[Series, ...] = ()
    fails: Callable[[datetime], bool] = lambda start: False

    def samples(self, records: Any, *, start: datetime, end: datetime) -> TelemetryAnswer:
        if self.fails(start):
            raise Unreachable("it is asleep")
        asked = {record.ref for record in records}
        found = []
        for one in self.series:
            kept = [
                (at, value)
                for at, value in zip(one.times, one.values, strict=True)
                if second(start) <= at < second(end)
            ]
            if kept and one.ref in asked:
                times, values = zip(*kept, strict=True)
                found.append(replace(one, times=times, values=values))
        return TelemetryAnswer(series=tuple(found))


def of(known: Known, samples: Samples, *, signal: Signal = Signal.UTILISATION, device: str = "0") -> Series:
    times, values = zip(*samples, strict=True)
    return Series(ref=known.record.ref, device=device, signal=signal, times=times, values=values)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_every_sample_of_a_real_server_is_in_a_window_and_holes_stay_holes(serve: Serve, place: History) -> None:
    busy, hole = every(30, 80.0, START, START + HOUR), START + 3 * HOUR
    idle = every(30, 0.0, hole, END)
    server = telemetry(
        serve(
            {
                gpu("trainer"): [*busy, *idle],
                gpu("trainer", metric="DCGM_FI_DEV_FB_USED"): [(at, 1024.0) for at, _ in [*busy, *idle]],
                gpu("stranger"): busy,
            }
        )
    )
    found = imported(server, place, Lived(known=seen(), intervals=()))
    told = stored(place)
    assert {row[0] for row in told} == {"trainer"}
    assert len(told) == found.rows == 12 + 45 * 12
    assert [row[2] for row in told] == [
        *range(second(START), second(START + HOUR), WINDOW),
        *range(second(hole), second(END), WINDOW),
    ]
    assert {(row[3] - row[2], row[4]) for row in told} == {(270, 30)}
    assert [row[5] for row in told] == [0.8] * 12 + [0.0] * (45 * 12)
    assert {row[6] for row in told} == {1024.0}
    assert (found.resources, found.silent, list(found.faults)) == (1, 0, [])


def test_a_counter_that_stands_still_from_one_question_to_the_next_served_nothing(place: History) -> None:
    known = seen()
    moving = [(at, 5.0 if at < second(END - 12 * HOUR) else 6.0) for at, _ in every(60, 0, START, END)]
    imported(Told((of(known, moving, signal=Signal.REQUESTS_TOTAL),)), place, Lived(known=known, intervals=()))
    served = [row[0] for row in stored(place, columns="time") if row]
    moved = [time for time, value in stored(place, columns="time, served") if value]
    assert len(served) == 48 * 12
    assert moved == [second(END - 12 * HOUR)]


def test_two_servers_are_not_mixed_and_the_higher_counts(place: History) -> None:
    known = seen()
    one = Told((of(known, [(second(START), 0.1), (second(START) + 240, 0.1)]),))
    other = Told((of(known, [(second(START) + 120, 0.9)]),))
    import_past(
        {"one": one, "other": other},
        [Lived(known=known, intervals=())],
        place,
        start=START,
        end=END,
        progress=lambda share, words: None,
    )
    assert stored(place, columns="time, until, step, utilisation") == [
        (second(START), second(START) + 240, 240, pytest.approx(0.9))
    ]


def test_what_was_made_anew_under_an_old_name_is_another_resource(place: History) -> None:
    change = END - 6 * HOUR
    old = seen("old", first_seen=START, ended_at=change)
    new = replace(seen("new", first_seen=change), record=replace(old.record, incarnation="another"))
    server = Told((of(old, every(300, 0.5, START, END)),))
    imported(server, place, Lived(known=old, intervals=()), Lived(known=new, intervals=()))
    told = stored(place, columns="resource, time")
    assert {time for id, time in told if id == "old"} == set(range(second(START), second(change), 300))
    assert {time for id, time in told if id == "new"} == set(range(second(change), second(END), 300))


# --- what it was -----------------------------------------------------------------------------------------------------


def test_before_the_meter_it_is_told_as_it_is_today_from_its_first_sample_on(place: History) -> None:
    known = seen()
    server = Told((of(known, every(60, 0.5, END - 10 * HOUR, END)),))
    found = imported(server, place, Lived(known=known, intervals=(interval(END - HOUR, None),)))
    assert found.assumed == 1
    before, after = lives(place)
    assert before[:2] == (END - 10 * HOUR, END - HOUR)
    assert after[:2] == (END - HOUR, END)
    assert (before[2].project, before[2].price) == ("vision", known.price)
    assert before[2].started_at == END - 10 * HOUR - timedelta(days=1), "no warm-up hides its first samples"


def test_of_what_stopped_today_samples_of_the_past_still_show_that_it_ran(place: History) -> None:
    known = seen()
    stopped = replace(known, record=replace(known.record, state=State.STOPPED), started_at=None)
    server = Told((of(known, every(60, 0.5, END - 10 * HOUR, END - 5 * HOUR)),))
    imported(server, place, Lived(known=stopped, intervals=(interval(END - HOUR, None, state="stopped"),)))
    assert [known.record.state for *_, known in lives(place)] == [State.RUNNING, State.STOPPED]


def test_the_meter_tells_what_it_was_and_what_it_only_assumed_is_not_known(place: History) -> None:
    known = seen(project="speech")
    intervals = (
        interval(END - 10 * HOUR, END - 9 * HOUR, activity="busy"),
        interval(END - 9 * HOUR, END - 8 * HOUR, activity="idle"),
        interval(END - 8 * HOUR, END - 6 * HOUR, state="stopped", rate_micros=0, activity=""),
        # in the two hours that follow nobody looked
        interval(END - 4 * HOUR, END - 2 * HOUR, capacity_type="spot", rate_micros=40_000_000),
        interval(END - 2 * HOUR, None, project="speech", capacity_type="spot", rate_micros=40_000_000),
    )
    imported(Told(), place, Lived(known=known, intervals=intervals))
    told = [
        (
            (END - since) // HOUR,
            (END - until) // HOUR,
            one.record.state,
            one.record.capacity_type,
            one.project,
            one.price.rate_micros // 10**6 if one.price else None,
        )
        for since, until, one in lives(place)
    ]
    assert told == [
        (10, 8, State.RUNNING, CapacityType.ON_DEMAND, "vision", 98),
        (8, 6, State.STOPPED, CapacityType.ON_DEMAND, "vision", 98),
        (4, 2, State.RUNNING, CapacityType.SPOT, "vision", 40),
        (2, 0, State.RUNNING, CapacityType.SPOT, "speech", 40),
    ]
    assert [one.restarted_at for *_, one in lives(place)] == [None, None, END - 4 * HOUR, END - 4 * HOUR]


def test_what_a_history_has_already_stays(place: History) -> None:
    known = seen()
    first = Told((of(known, every(60, 0.25, END - 2 * HOUR, END - HOUR)),))
    imported(first, place, Lived(known=known, intervals=()))
    richer = replace(known, project="renamed")
    second_ = Told((of(known, every(60, 0.75, END - 3 * HOUR, END)),))
    imported(second_, place, Lived(known=richer, intervals=()))
    told = stored(place, columns="utilisation")
    assert [row[0] for row in told] == [0.75] * 12 + [0.25] * 12 + [0.75] * 12
    assert [name for name, _ in groupby(one.project for *_, one in lives(place))] == ["renamed", "vision", "renamed"]


# --- what fails ------------------------------------------------------------------------------------------------------


def test_what_a_server_did_not_tell_is_said_and_the_rest_is_kept(place: History) -> None:
    known = seen()
    asleep = START + 24 * HOUR
    server = Told((of(known, every(60, 0.5, START, END)),), fails=lambda start: start == asleep)
    found = imported(server, place, Lived(known=known, intervals=()))
    assert found.faults == ["metrics, 2026-11-15 12:00 to 18:00 UTC: it is asleep"]
    assert len(stored(place)) == 42 * 12


def test_a_server_that_never_answers_ends_it_and_nothing_is_changed(place: History, tmp_path: Path) -> None:
    with pytest.raises(NothingToAsk, match="source metrics gives no answer: it is asleep; nothing was changed"):
        imported(Told(fails=lambda start: True), place, Lived(known=seen(), intervals=()))
    assert not list((tmp_path).glob(f"history/{STAGING}*"))
    assert stored(place) == []


def test_a_large_fleet_is_asked_in_shorter_stretches() -> None:
    assert prometheus._stretch(10) == 21_600
    assert prometheus._stretch(1000) == 3600
    assert prometheus._stretch(10_000) == 600
    assert prometheus._stretch(10**6) == 600


# --- the command -----------------------------------------------------------------------------------------------------

Ran = tuple[int, str, str]


@pytest.fixture
def curfew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sqlite_url: str, tmp_path: Path
) -> Callable[..., Ran]:
    monkeypatch.setenv("CURFEW_DATABASE_URL", sqlite_url)
    monkeypatch.setenv("CURFEW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CURFEW_HISTORY", raising=False)
    monkeypatch.setenv("CURFEW_ALLOW_ENDPOINTS", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["curfew", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def put(database_url: str, *known: Known, provider: str = "prometheus", **fields: Any) -> None:
    """Into a database as the service would have."""
    database = Database(database_url)
    with database.transaction() as session:
        resources.save(session, known)
        body = {"name": "metrics", "provider": provider, **fields}
        session.add(Document(kind="source", name="metrics", version=1, body=body, updated_at=END, updated_by="test"))
        for one in known:
            session.add(interval(one.first_seen, None, resource_id=one.id))
    database.close()


def test_the_command_imports_what_the_installation_knows(
    serve: Serve, curfew: Callable[..., Ran], sqlite_url: str, tmp_path: Path
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    samples = every(60, 40.0, now - timedelta(hours=20), now)
    url = serve({gpu("trainer"): samples})
    silent = replace(seen("silent"), record=machine("i-2", name="silent"))
    put(sqlite_url, replace(seen(), first_seen=now - HOUR), replace(silent, first_seen=now - HOUR), url=url)
    code, out, err = curfew("history", "import", "prometheus", "--days", "1")
    assert code == 0, err
    assert "windows of 1 resources" in out
    assert "told by metrics" in out
    assert "1 of them are told with the project and the price of today for the time before Curfew" in out
    assert "Nothing was told of 1 further resources: they are unknown." in err
    code, out, err = curfew("history", "show")
    assert code == 0, err
    assert "vision" in out
    place = History(str(tmp_path / "home/history"))
    until = second(now) // WINDOW * WINDOW
    assert min(row[0] for row in stored(place, columns="time")) == next(
        at for at, _ in samples if at >= second(now - timedelta(days=1))
    )
    assert {row[0] for row in stored(place, columns="utilisation")} == {0.4}
    assert max(row[0] for row in stored(place, columns="until")) < until


def test_the_command_says_which_source_it_cannot_ask(curfew: Callable[..., Ran], sqlite_url: str) -> None:
    code, _, err = curfew("history", "import", "prometheus")
    assert (code, "no source has the provider prometheus" in err) == (1, True)
    put(sqlite_url, url="http://10.1.2.3:9090")
    code, _, err = curfew("history", "import", "prometheus", "--source", "metric")
    assert (code, "there is no source 'metric'; did you mean 'metrics'?" in err) == (1, True)


def test_show_says_when_there_is_nothing(curfew: Callable[..., Ran], tmp_path: Path) -> None:
    code, out, err = curfew("history", "show", "--history", str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "there is no history" in err


def test_show_tells_how_much_of_the_time_is_known(curfew: Callable[..., Ran], tmp_path: Path) -> None:
    file = tmp_path / "samples.csv"
    lines = [f"m,{1_795_305_600 + 60 * minute},0,vision" for minute in range(121) if not 30 <= minute < 60]
    file.write_text("\n".join(["resource,time,utilisation,project", *lines]))
    code, out, err = curfew("history", "import", "table", str(file), "--history", str(tmp_path / "h"))
    assert code == 0, err
    assert out.startswith("91 samples of 1 GPUs of 1 resources, 2026-11-22 00:00:00 to 2026-11-22 02:00:01 UTC, are in")
    code, out, err = curfew("history", "show", "--history", str(tmp_path / "h"), "-o", "json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["days"], found["resources"], found["gpus"], found["rows"]["activity"]) == (1, 1, 1, 91)
    (project,) = found["projects"]
    assert project["project"] == "vision"
    assert project["gpu_hours"] == pytest.approx(2 + 1 / 3600)
    assert project["known_share"] == pytest.approx(0.75, abs=0.05)


def test_a_table_that_is_wrong_is_one_sentence(curfew: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text("resource,time,utilisation\nm,1795305600,37\n")
    code, out, err = curfew(
        "history", "import", "table", str(tmp_path / "samples.csv"), "--history", str(tmp_path / "h")
    )
    assert (code, out) == (1, "")
    assert err.startswith("curfew: ")
    assert "then say --percent" in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_help_imports_nothing_heavy() -> None:
    heavy = ["duckdb", "numpy", "fsspec", "sqlalchemy"]
    script = f"import sys, service.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
