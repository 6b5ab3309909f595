"""Where a back-test could tell wrong numbers: the edges of runs, of what is known, and of what people may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter

from policies.policy import BasePolicy, Policy
from providers.records import State
from service.backtest.question import Question
from service.backtest.replay import backtest
from service.backtest.report import Report
from service.documents import Project
from service.history.layout import Table
from service.model import Known
from tests.backtest.pasts import LONG_AGO, T0, Machine, at, every, machine, minutes, running, stopped, written

HOUR = 3600
END = T0 + 20 * HOUR
QUIET = every(60, T0, END)


def policy_of(**given: Any) -> BasePolicy:
    found: BasePolicy = TypeAdapter(Policy).validate_python(
        {
            "name": "p",
            "mode": "enforce",
            "type": "idle",
            "accept_loss": ["local_disks"],
            "disruption_budget": {"max": "100%"},
            **given,
        }
    )
    return found


def ask(folder: Path, machines: Sequence[Machine], policy: BasePolicy, **more: Any) -> Report:
    return backtest(written(folder, machines), Question(policy=policy, **more))


def expression(when: str, **more: Any) -> BasePolicy:
    return policy_of(type="expression", expression={"when": when}, **more)


def old(known: Known, **more: Any) -> Known:
    return replace(known, first_seen=LONG_AGO, **more)


# --- whom it stops ---------------------------------------------------------------------------------------------------

MET: Mapping[str, tuple[Known, BasePolicy, int]] = {
    "what nobody answers for": (old(running("m"), project=None), policy_of(type="ownership"), 1),
    "what does not run has nothing to be stopped": (old(stopped("m")), expression("age_seconds > 3600"), 0),
    "what it ran in all is known of what does not run": (
        old(stopped("m"), earlier_runs_seconds=7200),
        expression("ran_seconds >= 7200 and state = 'stopped'", action="notify"),
        0,
    ),
    "one of two conditions on time": (
        old(running("m")),
        expression("idle_seconds > 864000 or age_seconds > 3600"),
        1,
    ),
    "a tag that it does not have": (old(running("m")), expression("activity = 'idle' and tags['x'] is null"), 1),
    "a member of no group": (
        old(running("m")),
        expression("activity = 'idle'", scope={"where": "member_of is null"}),
        1,
    ),
}


@pytest.mark.parametrize(("known", "policy", "stops"), MET.values(), ids=MET.keys())
def test_whom_it_meets(known: Known, policy: BasePolicy, stops: int, tmp_path: Path) -> None:
    said = {"0": QUIET} if known.record.state is State.RUNNING else {}
    totals = ask(tmp_path, [Machine("m", was=[(T0, END, known)], said=said)], policy).totals
    assert totals.stops == stops
    assert totals.warnings == 1 - (stops == 0 and policy.acts)


def test_idleness_from_before_the_beginning_counts(tmp_path: Path) -> None:
    begun = T0 + 10 * HOUR
    report = ask(tmp_path, [machine("m", T0, END, QUIET)], expression("idle_seconds > 14400"), start=at(begun))
    assert [stop.at for stop in report.stops] == [at(begun + 1800)]


def test_a_restart_that_nobody_saw_ends_the_warning(tmp_path: Path) -> None:
    """Warned just before nothing was known for five hours; the cool-down of its restart is over by then."""
    again = T0 + 3 * HOUR
    later = old(running("m", since=at(again)), restarted_at=at(again))
    was = [(T0, T0 + 2 * HOUR, old(running("m"))), (T0 + 9 * HOUR, END, later)]
    policy = expression("age_seconds > 3600", grace="3h")
    report = ask(tmp_path, [Machine("m", was=was, said={"0": QUIET})], policy)
    assert [stop.at for stop in report.stops] == [at(T0 + 12 * HOUR)]
    assert report.totals.warnings == 2


# --- what becomes of a stop ------------------------------------------------------------------------------------------

STOP = T0 + 74 * 60
"""The look that finds it idle with the usual terms, and half an hour."""
OUTCOMES: Mapping[str, tuple[int, int | None, bool | None]] = {
    "work at the last second of two hours is missed": (END, STOP + 2 * HOUR, True),
    "a second later is not": (END, STOP + 2 * HOUR + 1, False),
    "data that end with the last second cannot tell": (STOP + 2 * HOUR, None, None),
    "a second later can": (STOP + 2 * HOUR + 1, None, False),
}


@pytest.mark.parametrize(("end", "work", "false"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_a_stop_is_false_true_or_undecided(end: int, work: int | None, false: bool | None, tmp_path: Path) -> None:
    samples = [*(one for one in QUIET if one[0] < (work or END)), *([(work, 0.9)] if work else [])]
    report = ask(tmp_path, [machine("m", T0, END, samples)], policy_of(), end=at(end))
    assert [(stop.at, stop.false_stop) for stop in report.stops] == [(at(STOP), false)]


def test_a_hole_in_what_is_known_of_a_run_does_not_part_it(tmp_path: Path) -> None:
    was = [(T0, T0 + 10 * HOUR, running("m")), (T0 + 11 * HOUR, END, running("m"))]
    report = ask(tmp_path, [Machine("m", was=was, said={"0": QUIET})], policy_of())
    assert report.totals.stops == 1
    assert report.totals.gpu_hours_saved == pytest.approx((END - STOP) / HOUR - 1)


def test_a_stop_saves_until_the_last_that_is_heard(tmp_path: Path) -> None:
    heard = [one for one in QUIET if one[0] < T0 + 5 * HOUR]
    was = [(T0, T0 + 10 * HOUR, running("m")), (T0 + 10 * HOUR, END, stopped("m"))]
    (stop,) = ask(tmp_path, [Machine("m", was=was, said={"0": heard})], policy_of()).stops
    assert stop.saves_until == at(T0 + 5 * HOUR + 240)
    assert stop.gpu_hours_saved == pytest.approx((T0 + 5 * HOUR + 240 - STOP) / HOUR)


def test_one_gpu_told_of_by_two_sources_is_not_two_at_work(tmp_path: Path) -> None:
    """With two busy GPUs to be busy, one at work is none to be missed, however often it is told of."""
    busy = every(60, T0, END, 0.9)
    said = {"0": busy, "1": QUIET, "GPU-a": busy, "GPU-b": QUIET}
    one = Machine("m", was=[(T0, END, running("m", gpus=2))], said=said)
    report = ask(tmp_path, [one], policy_of(idle={"busy_gpus_below": 2}))
    assert (report.totals.stops, report.totals.false_stops) == (1, 0)


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_hours_are_those_of_the_projects_clocks_when_they_change(tmp_path: Path) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    project = Project.model_validate(
        {"name": "vision", "timezone": "Europe/Berlin", "match": [{"tags": {"project": "vision"}}]}
    )
    start, end = (int(datetime(2026, 3, day, tzinfo=berlin).timestamp()) for day in (27, 31))  # from 28 to 29
    report = ask(
        tmp_path,
        [machine("m", start, end, every(300, start, end))],
        policy_of(type="schedule", schedule={"on": "08:00-20:00"}, cool_down="0s", grace="1h"),
        projects={"vision": project},
        step=minutes(5),
    )
    assert report.stops[0].at.astimezone(berlin).hour == 1  # it began in the night, and was warned then
    assert sum(row.gpu_hours_saved for row in report.savings) == pytest.approx(report.totals.gpu_hours_saved)
    assert {row.day.day for row in report.savings} == {27, 28, 29, 30}
    (spring,) = [row for row in report.savings if row.day.day == 29]
    assert spring.gpu_hours_saved == pytest.approx(23)


# --- what is written elsewhere, or by hand ---------------------------------------------------------------------------


def test_what_a_row_leaves_out_is_as_before_though_it_lies_before_the_beginning(tmp_path: Path) -> None:
    was = [(T0, T0 + 6 * HOUR, running("m")), (T0 + 6 * HOUR, END, running("m"))]
    history = written(tmp_path, [Machine("m", was=was, said={"0": QUIET})])
    for day in history.days():
        for path in history.parts(Table.RESOURCES, day):
            rewritten(path, f"* REPLACE (CASE WHEN time = {T0 + 6 * HOUR} THEN NULL ELSE known END AS known)", history)
    report = backtest(history, Question(policy=policy_of(), start=at(T0 + 12 * HOUR)))
    assert report.totals.stops == 1


def rewritten(path: str, what: str, history: Any) -> None:
    with history.connect() as connection:
        connection.execute(f"CREATE TABLE here AS SELECT {what} FROM read_parquet(?)", [[path]])
        connection.execute(f"COPY (SELECT * EXCLUDE (day) FROM here) TO '{path}' (FORMAT parquet)")


@pytest.mark.parametrize(
    ("table", "what", "words"),
    [
        (Table.ACTIVITY, "* EXCLUDE (utilisation)", "has no column 'utilisation'"),
        (Table.ACTIVITY, "* REPLACE (to_timestamp(time) AS time)", "the column 'time' is TIMESTAMP"),
        (Table.RESOURCES, "* EXCLUDE (until)", "has no column 'until'"),
        (Table.RESOURCES, "* REPLACE ('{}' AS known)", "a `known` that nobody can read"),
        (Table.RESOURCES, "* REPLACE ('no json' AS known)", "a `known` that nobody can read"),
    ],
)
def test_a_file_of_another_kind_is_named(table: Table, what: str, words: str, tmp_path: Path) -> None:
    history = written(tmp_path, [machine("m", T0, END, QUIET)])
    (path, *_) = history.parts(table, history.days()[0])
    rewritten(path, what, history)
    with pytest.raises(ValueError, match=words) as told:
        backtest(history, Question(policy=policy_of()))
    assert str(tmp_path) in str(told.value)


def test_names_are_text_whatever_they_say(tmp_path: Path) -> None:
    name = "m'); DROP TABLE was; --\"\n{x}"
    one = Machine(name, was=[(T0, END, running(name))], said={"0'; --": QUIET})
    report = ask(tmp_path, [one], policy_of())
    assert [stop.resource for stop in report.stops] == [name]


def test_a_project_that_nothing_belonged_to(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belonged to project 'visoin'"):
        ask(tmp_path, [machine("m", T0, END, QUIET)], policy_of(), project="visoin")


@pytest.mark.parametrize("step", [1, 7, 3600, 7200])
def test_any_step_tells_the_same_idleness(step: int, tmp_path: Path) -> None:
    report = ask(tmp_path, [machine("m", T0, END, QUIET)], policy_of(), step=timedelta(seconds=step))
    (stop,) = report.stops
    assert STOP - 60 < stop.at.timestamp() <= STOP + 2 * step + 60
