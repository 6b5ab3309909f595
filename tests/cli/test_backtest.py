"""`curfew backtest` as people and pipelines use it: on a history in a folder, and asked of a service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import backtests, cli_backtest
from service.backtest.answer import Progress, marked
from service.backtest.question import STEP, NotReplayable, Question
from service.backtest.report import Report, as_json
from service.backtests import Backtests
from service.history.layout import History
from tests.api.service_under_test import Api
from tests.backtest.pasts import T0, every, machine
from tests.backtest.pasts import written as recorded
from tests.backtest.reports import quiet, report, stop, totals
from tests.cli.conftest import Run

HOUR, DAY = 3600, 86400
POLICY = "kind: policy\nname: idle-gpus\ntype: idle\n"
OTHER = "kind: policy\nname: night\ntype: schedule\nschedule: {on: 'Mo-Fr 08:00-20:00'}\n"
PROJECT = "kind: project\nname: vision\ntimezone: Asia/Ho_Chi_Minh\n"
SOURCE = "kind: source\nname: research\nprovider: nowhere\n"


@dataclass
class Engine:
    """In the place of the real one: notes what it is asked, and finds what it was given."""

    finds: Report = field(default_factory=report)
    asked: list[Question] = field(default_factory=list)
    refuses: tuple[str, ...] = ()

    def __call__(self, _history: History, question: Question, progress: Progress) -> dict[str, Any]:
        self.asked.append(question)
        progress(0.5, "judges")
        if question.policy.name in self.refuses:
            raise NotReplayable("a schedule needs nothing of the past")
        return marked(as_json(replace(self.finds, policy=question.policy.name)), question.policy)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(cli_backtest, "answer", engine)
    return engine


@pytest.fixture
def past(tmp_path: Path) -> str:
    """A history with a day in it, as far as anybody looks."""
    (tmp_path / "past" / "activity" / "day=2026-11-01").mkdir(parents=True)
    return str(tmp_path / "past")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


# --- on a history here -----------------------------------------------------------------------------------------------


def test_it_prints_what_the_policy_would_have_done(curfew: Run, engine: Engine, past: str, file: Path) -> None:
    ran = curfew("backtest", "-f", str(file), "--history", past)
    assert ran.code == 0, ran.err
    assert "It would have stopped 42 times and saved 1,978 GPU hours (1,977.60 USD)" in ran.out
    assert "this policy" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    (asked,) = engine.asked
    assert (asked.start, asked.end, asked.project, asked.step) == (None, None, None, STEP)
    assert (asked.horizon, asked.max_false_stops) == (timedelta(hours=2), 0.01)
    assert asked.sweep is not None


def test_every_option_reaches_the_question(curfew: Run, engine: Engine, past: str, file: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("[{sku: p5.48xlarge, hourly: 50, currency: EUR, as_of: 2026-01-01}]\n")
    file.write_text(f"{POLICY}---\n{PROJECT}---\n{SOURCE}")
    ran = curfew(
        "backtest", "-f", str(file), "--history", past, "--from", "2026-11-01", "--to", "2026-11-03T08:00+07:00",
        "-p", "vision", "--false-stop-within", "6h", "--max-false-stops", "2.5%", "--no-sweep", "--step", "5m",
        "--prices", str(prices),
    )  # fmt: skip
    assert ran.code == 0, ran.err
    (asked,) = engine.asked
    assert asked.start == datetime(2026, 11, 1, tzinfo=UTC)
    assert asked.end == datetime(2026, 11, 3, 1, tzinfo=UTC)
    assert (asked.project, asked.horizon, asked.step) == ("vision", timedelta(hours=6), timedelta(minutes=5))
    assert (asked.max_false_stops, asked.sweep) == (0.025, None)
    assert asked.projects["vision"].timezone == "Asia/Ho_Chi_Minh"
    assert asked.prices._dated  # what is in the file


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_one_policy_is_a_report_and_several_are_a_list(
    curfew: Run, engine: Engine, past: str, file: Path, output: str
) -> None:
    read = json.loads if output == "json" else yaml.safe_load
    one = read(curfew("backtest", "-f", str(file), "--history", past, "-o", output).out)
    assert (one["policy"], one["totals"]["stops"], len(one["stops"])) == ("idle-gpus", 42, 42)
    file.write_text(f"{POLICY}---\n{OTHER}")
    several = read(curfew("backtest", "-f", str(file), "--history", past, "-o", output).out)
    assert [each["policy"] for each in several] == ["idle-gpus", "night"]


def test_several_policies_are_printed_one_after_the_other(curfew: Run, engine: Engine, past: str, file: Path) -> None:
    file.write_text(f"{POLICY}---\n{OTHER}")
    ran = curfew("backtest", "-f", str(file), "--history", past)
    assert "\n\nnight (idle)\n" in ran.out


def test_one_that_cannot_be_replayed_does_not_keep_the_others_back(
    curfew: Run, engine: Engine, past: str, file: Path
) -> None:
    engine.refuses = ("night",)
    file.write_text(f"{OTHER}---\n{POLICY}")
    ran = curfew("backtest", "-f", str(file), "--history", past)
    assert "It would have stopped 42 times" in ran.out
    assert (ran.code, ran.err) == (1, "curfew: night: a schedule needs nothing of the past\n")


def test_a_page_is_written_beside(curfew: Run, engine: Engine, past: str, file: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = curfew("backtest", "-f", str(file), "--history", past, "-o", "json", "--page", str(page))
    assert json.loads(ran.out)["policy"] == "idle-gpus"  # and nothing but the report
    assert ran.err.replace("\n", "") == f"The page is in {page}."
    text = page.read_text()
    assert "<svg" in text
    assert "It would have stopped 42 times" in text


WRONG: dict[str, tuple[list[str], int, str]] = {
    "no such folder": (["--history", "nowhere"], 1, "nowhere: there is no such folder; `curfew history import"),
    "a history of an unknown kind": (
        ["--history", "moon://me:secret@x"],
        1,
        "moon://***@x: there is no kind of place 'moon'",
    ),
    "no date": (["--history", "PAST", "--from", "yesterday"], 2, "'yesterday' is no date or moment"),
    "an end before the beginning": (
        ["--history", "PAST", "--from", "2026-11-02", "--to", "2026-11-01"],
        2,
        "before it begins",
    ),
    "a share without its sign": (["--history", "PAST", "--max-false-stops", "1"], 2, "write it with its sign"),
    "no length": (["--history", "PAST", "--step", "0s"], 2, "must be longer than nothing"),
    "no price file": (
        ["--history", "PAST", "--prices", "none.yaml"],
        1,
        "the price file none.yaml cannot be read: No such file",
    ),
    "no file of policies": (["-f", "none.yaml"], 1, "none.yaml: there is no such file or folder"),
    "a page that cannot be": (["--history", "PAST", "--page", "/proc/x.html"], 1, "/proc/x.html: cannot be written"),
    "a pace that a service has itself": (["--step", "60s"], 2, "a service looks at its own pace"),
    "prices that a service has itself": (["--prices", "x"], 2, "has its own prices"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_sentence(curfew: Run, engine: Engine, past: str, file: Path, case: str) -> None:
    options, code, says = WRONG[case]
    ran = curfew("backtest", "-f", str(file), *(past if option == "PAST" else option for option in options))
    told = " ".join(ran.err.replace("│", " ").split())
    assert (ran.code, says in told, "Traceback" in told) == (code, True, False), ran.err


def test_an_empty_history_says_how_to_fill_it(curfew: Run, engine: Engine, tmp_path: Path, file: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = curfew("backtest", "-f", str(file), "--history", str(tmp_path / "empty"))
    assert (ran.code, engine.asked) == (1, [])
    assert f"curfew: {tmp_path / 'empty'}: there is no history in it; `curfew history import prometheus" in ran.err


def test_a_file_of_the_history_that_is_none_says_so(curfew: Run, tmp_path: Path, file: Path) -> None:
    for table in ("activity", "resources"):
        (tmp_path / "broken" / table / "day=2026-11-01").mkdir(parents=True)
        (tmp_path / "broken" / table / "day=2026-11-01" / "all.parquet").write_text("no Parquet")
    ran = curfew("backtest", "-f", str(file), "--history", str(tmp_path / "broken"))
    assert (ran.code, "broken" in ran.err, "Traceback" in ran.err) == (1, True, False)
    assert "cannot be read: " in ran.err


def test_a_mistake_is_told_with_its_file_and_line(curfew: Run, engine: Engine, past: str, file: Path) -> None:
    file.write_text(f"{PROJECT}---\nkind: policy\nname: p\ntype: idel\n")
    ran = curfew("backtest", "-f", str(file), "--history", past)
    assert ran.code == 1
    assert f"curfew: {file}:7:" in ran.err
    assert "did you mean 'idle'?" in ran.err


def test_files_without_a_policy_say_so(curfew: Run, engine: Engine, past: str, file: Path) -> None:
    file.write_text(PROJECT)
    ran = curfew("backtest", "-f", str(file), "--history", past)
    assert (ran.code, ran.err) == (1, f"curfew: {file}: there is no policy to back-test\n")


# --- in a pipeline ---------------------------------------------------------------------------------------------------

PIPELINE: dict[str, tuple[Report, str, int, str]] = {
    "few enough are false": (report(), "3%", 0, ""),
    "too many are false": (report(), "1%", 1, "idle-gpus: 1 of 40 decided stops are false, which is more than 1%"),
    "none is decided": (quiet(), "1%", 1, "idle-gpus: no stop of it is decided, so nothing shows that it is harmless"),
    "all are harmless": (report(totals=totals([stop(number) for number in range(30)])), "0%", 0, ""),
}


@pytest.mark.parametrize("case", PIPELINE)
def test_a_pipeline_fails_when(curfew: Run, engine: Engine, past: str, file: Path, case: str) -> None:
    engine.finds, ceiling, code, says = PIPELINE[case]
    ran = curfew(
        "backtest", "-f", str(file), "--history", past, "--max-false-stops", ceiling, "--fail-on-false-stops"
    )  # fmt: skip
    assert (ran.code, " ".join(ran.err.split())) == (code, says)


def test_without_being_asked_false_stops_fail_nothing(curfew: Run, engine: Engine, past: str, file: Path) -> None:
    assert curfew("backtest", "-f", str(file), "--history", past, "--max-false-stops", "0%").code == 0


# --- asked of a service ----------------------------------------------------------------------------------------------


@pytest.fixture
def asked_of(served: Api, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """What the service at CURFEW_URL works it out with."""
    monkeypatch.setattr(backtests, "TELL_EVERY", 0.0)
    monkeypatch.setattr(cli_backtest, "WAIT", 0.01)
    engine = Engine()
    served.rt.backtests = Backtests(
        served.rt.database, served.clock, location="there", holder=served.rt.holder, work=engine
    )
    yield engine
    served.rt.backtests.stop()


def test_a_service_is_asked_and_waited_for(curfew: Run, asked_of: Engine, file: Path) -> None:
    ran = curfew("backtest", "-f", str(file), "--from", "2026-11-01", "--max-false-stops", "2.5%", "--no-sweep")
    assert ran.code == 0, ran.err
    assert "It would have stopped 42 times" in ran.out
    (asked,) = asked_of.asked
    assert (asked.start, asked.end) == (datetime(2026, 11, 1, tzinfo=UTC), None)
    assert (asked.max_false_stops, asked.sweep) == (0.025, None)


def test_what_a_service_cannot_replay_is_said_as_here(curfew: Run, asked_of: Engine, file: Path) -> None:
    asked_of.refuses = ("idle-gpus",)
    ran = curfew("backtest", "-f", str(file))
    assert (ran.code, ran.err) == (1, "curfew: idle-gpus: a schedule needs nothing of the past\n")


def test_what_a_service_refuses_is_said(curfew: Run, asked_of: Engine, served: Api, file: Path) -> None:
    served.rt.backtests.location = ""
    ran = curfew("backtest", "-f", str(file))
    assert ran.code == 1
    assert "this service keeps no history to try a policy on" in ran.err


def test_a_service_finds_in_its_history_what_is_found_in_it_here(
    curfew: Run, served: Api, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real engine: a day of three machines, of which one was stopped too early."""
    monkeypatch.setattr(cli_backtest, "WAIT", 0.01)
    night = [(T0, 0.0, 6), (T0 + 6 * HOUR, 0.8, 2), (T0 + 8 * HOUR, 0.0, 12)]
    samples = [(time, value) for start, value, hours in night for time in range(start, start + hours * HOUR, 60)]
    rested = [(time, 0.0) for time in range(T0, T0 + 3 * HOUR, 60)] + every(60, T0 + 3 * HOUR, T0 + DAY, 0.9)
    machines = [
        machine("i-trainer", T0, T0 + 20 * HOUR, samples, project="vision", owner="lan@example.org"),
        machine("i-rested", T0, T0 + DAY, rested, project="vision"),
        machine("i-dark", T0, T0 + DAY, [], project="vision"),
    ]
    history = recorded(tmp_path / "history", machines)
    served.rt.backtests.location = history.location

    here, there = (
        json.loads(curfew("backtest", "-f", str(file), "-o", "json", *more).out)
        for more in (("--history", history.location), ())
    )

    assert here == there
    assert here["totals"]["stops"] == 3
    assert here["totals"]["false_stops"] == 1
    assert [stop["false_stop"] for stop in here["stops"] if stop["name"] == "i-rested"] == [True]
    assert here["longest_false_stop"]["resource"] == "i-rested"
    assert [row["resource"] for row in here["unknown"]] == ["i-dark"]
    assert any(point["own"] for point in here["sweep"]["points"])
