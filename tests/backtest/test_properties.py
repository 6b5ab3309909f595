"""What must hold of every back-test, whatever the history: tried on many small ones."""

from __future__ import annotations

import random
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from policies.policy import BasePolicy, Policy
from providers.contract import Actuator
from providers.records import State
from service.backtest.question import Question, Sweep
from service.backtest.replay import backtest
from service.backtest.report import Report
from service.backtest.spans import Spans, at_least, both, cut, either, enough, key_of, on_line, time_of, union, without
from service.documents import Project
from service.history.layout import History, Table
from tests.backtest.pasts import T0, Machine, at, every, machine, minutes, running, stopped, written

HOUR = 3600
END = T0 + 24 * HOUR
VISION = Project.model_validate(
    {"name": "vision", "timezone": "Asia/Ho_Chi_Minh", "match": [{"tags": {"project": "vision"}}]}
)
PROJECTS = {"vision": VISION}


def policy_of(**given: Any) -> BasePolicy:
    """One that neither budgets nor leaves alone what it has stopped before."""
    found: BasePolicy = TypeAdapter(Policy).validate_python(
        {
            "name": "p",
            "mode": "enforce",
            "type": "idle",
            "grace": "30m",
            "accept_loss": ["local_disks"],
            "disruption_budget": {"max": "100%"},
            "cool_down": "0s",
            **given,
        }
    )
    return found


def idle(threshold: float = 0.05, window: int = 45, **more: Any) -> BasePolicy:
    return policy_of(idle={"for": f"{window}m", "utilisation_below": threshold, "warm_up": "0s"}, **more)


@contextmanager
def history_of(machines: Sequence[Machine]) -> Iterator[History]:
    with tempfile.TemporaryDirectory() as folder:
        yield written(Path(folder), machines)


def ask(machines: Sequence[Machine], policy: BasePolicy, **more: Any) -> Report:
    with history_of(machines) as history:
        return asked(history, policy, **more)


def asked(history: History, policy: BasePolicy, **more: Any) -> Report:
    return backtest(history, Question(policy=policy, **{"step": minutes(5), "projects": PROJECTS, **more}))


def said(dice: random.Random, start: int, end: int, *, holes: bool = True) -> list[tuple[int, float]]:
    """Samples a minute or five apart, in bursts, some with holes."""
    step, time, value = dice.choice([60, 300]), start + dice.randrange(60), 0.0
    found = []
    while time < end:
        if dice.random() < step / 3000:
            value = dice.choice([0.0, 0.0, 0.02, 0.05, 0.07, 0.3, 0.9])
        if holes and dice.random() < step / 20000:
            time += dice.randrange(1, 9000)
        found.append((time, value))
        time += step
    return [sample for sample in found if sample[0] < end]


def machines_of(seed: int, *, holes: bool = True, restarts: bool = True) -> list[Machine]:
    """A few for a day, of one GPU or two; some are stopped and started by their people, some cost nothing known."""
    dice = random.Random(seed)
    found = []
    for name in ("a", "b", "c")[: dice.choice([1, 2, 3])]:
        gpus, hourly = dice.choice([1, 1, 2]), dice.choice([None, 1_000_000, 2_345_678])
        more: dict[str, Any] = {"gpus": gpus, "hourly": hourly, "project": dice.choice(["vision", "speech", None])}
        one = Machine(name, was=[(T0, END, running(name, **more))])
        if restarts and dice.random() < 0.4:
            off = T0 + dice.randrange(4 * HOUR, 16 * HOUR)
            again = off + dice.randrange(60, 3 * HOUR)
            back = running(name, since=at(again), **more)
            one.was = [(T0, off, running(name, **more)), (off, again, stopped(name, **more)), (again, END, back)]
        for gpu in range(gpus):
            samples = said(dice, T0, END, holes=holes)
            one.said[str(gpu)] = [
                sample
                for sample in samples
                if any(start <= sample[0] < end and was.record.state is State.RUNNING for start, end, was in one.was)
            ]
        found.append(one)
    return found


seeds = st.integers(0, 10**6)
few = settings(max_examples=10, deadline=None)


# --- more caution never saves more -----------------------------------------------------------------------------------


CAUTION: Mapping[str, tuple[bool, Sequence[BasePolicy]]] = {
    "more grace": (True, [idle(grace=f"{grace}m") for grace in (0, 7, 30, 90)]),
    "a lower threshold": (True, [idle(threshold, grace="10m") for threshold in (0.5, 0.06, 0.05, 0.01)]),
    # With holes a longer window may be heard well enough where a shorter one is not.
    "a longer window": (False, [idle(window=window, grace="10m") for window in (15, 45, 46, 180)]),
}


@pytest.mark.parametrize(("holes", "policies"), CAUTION.values(), ids=CAUTION.keys())
@few
@given(seed=seeds)
def test_never_saves_more_for(holes: bool, policies: Sequence[BasePolicy], seed: int) -> None:
    with history_of(machines_of(seed, holes=holes)) as history:
        saved = [asked(history, policy).totals.gpu_hours_saved for policy in policies]
    assert all(less <= more + 1e-9 for more, less in pairwise(saved)), saved


@few
@given(seed=seeds)
def test_nor_do_the_points_of_a_sweep(seed: int) -> None:
    """Here work is what the policy's own threshold calls so."""
    sweep = Sweep(windows=[minutes(30), minutes(90)], thresholds=[0.01, 0.06], graces=[minutes(0), minutes(45)])
    swept = ask(machines_of(seed, holes=False), idle(0.05), sweep=sweep).sweep
    assert swept is not None
    saved = {(point.window, point.threshold, point.grace): point.gpu_hours_saved for point in swept.points}
    for (window, threshold, grace), hours in saved.items():
        for (longer, lower, later), fewer in saved.items():
            if longer >= window and lower <= threshold and later >= grace:
                assert fewer <= hours + 1e-9, ((window, threshold, grace), (longer, lower, later))


# --- what must not matter --------------------------------------------------------------------------------------------


def facts_of(report: Report, names: Mapping[str, str]) -> Any:
    stops = [replace(stop, resource=names[stop.resource], name="") for stop in report.stops]
    return (
        sorted(stops, key=lambda stop: (stop.at, stop.resource)),
        replace(report.totals, gpu_hours_saved=0.0, oracle_gpu_hours=0.0, oracle_reached_gpu_hours=0.0),
        [round(report.totals.oracle_gpu_hours, 6), round(report.totals.oracle_reached_gpu_hours, 6)],
        report.horizons,
        report.warned,
        sorted((names[one.resource], one.hours, one.why) for one in report.unknown),
    )


def renamed(one: Machine, name: str) -> Machine:
    was = [(start, end, replace(known, id=name)) for start, end, known in one.was]
    return Machine(name, was=was, said=one.said)


@few
@given(seed=seeds)
def test_the_order_and_the_names_of_resources_change_nothing(seed: int) -> None:
    machines = machines_of(seed)
    new = {one.id: f"x{9 - number}" for number, one in enumerate(machines)}
    policy = idle(disruption_budget={"max": 1000})
    before = ask(machines, policy)
    after = ask([renamed(one, new[one.id]) for one in reversed(machines)], policy)
    assert facts_of(before, {one.id: one.id for one in machines}) == facts_of(
        after, {name: old for old, name in new.items()}
    )


def scattered(history: History, dice: random.Random) -> None:
    """Each day's rows in more files, in any order, some of them twice."""
    for table in Table:
        for day in history.days():
            for path in history.parts(table, day):
                with history.connect() as connection:
                    rows = connection.execute("SELECT * FROM read_parquet(?) LIMIT 0", [[path]])
                    columns = ", ".join(entry[0] for entry in rows.description or () if entry[0] != "day")
                    connection.execute(f"CREATE TABLE here AS SELECT {columns} FROM read_parquet('{path}')")
                    for number in range(3):
                        to = path.replace("all.parquet", f"{number}.parquet")
                        share = dice.choice([0, 1])
                        connection.execute(
                            f"COPY (SELECT * FROM here WHERE hash(time) % 3 = {number} OR hash(time, 1) % 4 = {share}"
                            f" ORDER BY {table.order}) TO '{to}' (FORMAT parquet)"
                        )
                Path(path).unlink()


@few
@given(seed=seeds)
def test_in_how_many_files_it_lies_and_how_often_changes_nothing(seed: int) -> None:
    machines = machines_of(seed)
    names = {one.id: one.id for one in machines}
    with history_of(machines) as history:
        before = asked(history, idle())
        scattered(history, random.Random(seed))
        after = asked(history, idle())
    assert facts_of(before, names) == facts_of(after, names)


# --- sums and bounds -------------------------------------------------------------------------------------------------


POLICIES: Sequence[BasePolicy] = [
    idle(),
    idle(threshold=0.06, window=15, grace="0s", cool_down="2h"),
    policy_of(type="schedule", schedule={"on": "Mo-Fr 08:00-20:00"}),
    policy_of(type="lifetime", lifetime={"max": "30h"}),
    policy_of(type="expression", expression={"when": "idle_seconds > 7200"}),
]


def running_hours(machines: Sequence[Machine], since: int) -> float:
    return sum(
        max(0, end - max(start, since)) * known.record.gpu_count / HOUR
        for one in machines
        for start, end, known in one.was
        if known.record.state is State.RUNNING
    )


@settings(max_examples=15, deadline=None)
@given(seed=seeds, policy=st.sampled_from(POLICIES), begun=st.integers(0, 12 * HOUR))
def test_every_sum_adds_up(seed: int, policy: BasePolicy, begun: int) -> None:
    machines = machines_of(seed)
    report = ask(machines, policy, start=at(T0 + begun))
    totals = report.totals
    assert 0 <= totals.oracle_reached_gpu_hours <= totals.oracle_gpu_hours + 1e-9
    assert totals.gpu_hours_saved <= running_hours(machines, T0 + begun) + 1e-9
    assert totals.stops == len(report.stops) == sum(row.stops for row in report.savings)
    assert totals.gpu_hours_saved == pytest.approx(sum(row.gpu_hours_saved for row in report.savings), abs=1e-6)
    money = Counter[str]()
    for row in report.savings:
        if row.currency is not None and row.cost_saved_micros is not None:
            money[row.currency] += row.cost_saved_micros
    assert dict(money) == dict(totals.cost_saved_micros)
    assert totals.false_stops + totals.undecided <= totals.stops
    assert totals.without_price == sum(stop.currency is None for stop in report.stops)
    for one in report.horizons:
        assert (one.decided + one.undecided, one.false_stops <= one.decided) == (totals.stops, True)
    mine = next(one for one in report.horizons if one.horizon == report.horizon)
    assert (mine.false_stops, mine.undecided) == (totals.false_stops, totals.undecided)
    for stop in report.stops:
        assert T0 + begun <= stop.at.timestamp() <= stop.saves_until.timestamp() <= END
        if stop.work_resumed_at is not None:
            assert stop.at <= stop.work_resumed_at
            assert stop.saves_until <= stop.work_resumed_at


@few
@given(seed=seeds, cut_off=st.integers(6 * HOUR, 20 * HOUR))
def test_what_was_decided_stays_so_when_more_becomes_known(seed: int, cut_off: int) -> None:
    with history_of(machines_of(seed)) as history:
        early = asked(history, idle(), end=at(T0 + cut_off))
        late = {(stop.resource, stop.at): stop for stop in asked(history, idle()).stops}
    for stop in early.stops:
        after = late[stop.resource, stop.at]
        if stop.false_stop is not None:
            assert stop.false_stop == after.false_stop
        assert stop.gpu_hours_saved <= after.gpu_hours_saved + 1e-9


@few
@given(seed=seeds)
def test_who_sends_no_samples_is_never_idle_and_holes_are_not(seed: int) -> None:
    machines = machines_of(seed)
    mute = replace(machines[0], id="mute", was=[(T0, END, running("mute"))], said={})
    report = ask([*machines, mute], idle())
    assert "mute" not in {stop.resource for stop in report.stops}
    by_id = {one.id: one for one in machines}
    for stop in report.stops:
        second = int(stop.at.timestamp())
        for samples in by_id[stop.resource].said.values():
            heard = [time for time, _ in samples if second - 2 * 48 * 60 <= time <= second]
            covered = sum(min(300, after - time) for time, after in zip(heard, [*heard[1:], second], strict=True))
            assert covered >= 0.9 * 45 * 60 - 600


# --- the algebra of stretches, against plain sets of seconds ---------------------------------------------------------


LENGTH = 60
pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, LENGTH), st.integers(0, LENGTH)), max_size=8)
Seconds = set[tuple[int, int]]


def spans_of(stretches: Sequence[tuple[int, int, int]]) -> Spans:
    key, start, end = (np.array([one[place] for one in stretches], np.int64) for place in range(3))
    return union(on_line(key, start), on_line(key, end))


def seconds_of(spans: Spans) -> Seconds:
    return {
        (int(key_of(np.array([start]))[0]), second)
        for start, end in zip(spans.start.tolist(), spans.end.tolist(), strict=True)
        for second in range(int(time_of(np.array([start]))[0]), int(time_of(np.array([start]))[0]) + end - start)
    }


def plain(stretches: Sequence[tuple[int, int, int]]) -> Seconds:
    return {(key, second) for key, start, end in stretches for second in range(start, end)}


ALGEBRA: Mapping[str, tuple[Callable[[Spans, Spans], Spans], Callable[[Seconds, Seconds], Seconds]]] = {
    "both": (both, lambda one, other: one & other),
    "either": (either, lambda one, other: one | other),
    "without": (without, lambda one, other: one - other),
    "at least one of them": (lambda one, other: at_least(1, [one, other]), lambda one, other: one | other),
}


@pytest.mark.parametrize(("ours", "theirs"), ALGEBRA.values(), ids=ALGEBRA.keys())
@settings(max_examples=60, deadline=None)
@given(one=pairs, other=pairs)
def test_stretches_are_sets_of_seconds(ours: Any, theirs: Any, one: Any, other: Any) -> None:
    found = ours(spans_of(one), spans_of(other))
    assert seconds_of(found) == theirs(plain(one), plain(other))
    assert (found.start < found.end).all()
    assert (found.start[1:] > found.end[:-1]).all()


@settings(max_examples=100, deadline=None)
@given(stretches=pairs, window=st.integers(1, 30), data=st.data())
def test_what_windows_hold_is_counted_second_by_second(stretches: Any, window: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(1, window))
    filled = plain(stretches)
    found = enough(spans_of(stretches), window=window, needed=needed)
    ends = {
        (key, end)
        for key in range(3)
        for end in range(2 * LENGTH + 1)
        if sum((key, second) in filled for second in range(end - window, end)) >= needed
    }
    assert seconds_of(found) == ends


@settings(max_examples=100, deadline=None)
@given(stretches=pairs, wanted=pairs)
def test_parts_and_overlaps_are_counted_second_by_second(stretches: Any, wanted: Any) -> None:
    spans, filled = spans_of(stretches), plain(stretches)
    key, start, end = (np.array([one[place] for one in wanted], np.int64) for place in range(3))
    end = np.maximum(start, end)
    parts = cut(spans, key, start, end)
    expected = {
        (index, second)
        for index, (mine, since, until) in enumerate(zip(key.tolist(), start.tolist(), end.tolist(), strict=True))
        for second in range(since, until)
        if (mine, second) in filled
    }
    assert seconds_of(parts) == expected
    held = spans.within(on_line(key, start), on_line(key, end))
    assert held.tolist() == [sum(part == index for part, _ in expected) for index in range(len(wanted))]


# --- it cannot act ---------------------------------------------------------------------------------------------------


def test_a_back_test_calls_no_actuator_and_no_cloud(tmp_path: Path) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a back-test acted")

    acts = [name for name in vars(Actuator) if not name.startswith("_")]
    assert acts
    history = written(tmp_path, [machine("m", T0, END, every(60, T0, END))])
    with (
        ExitStack() as patched,
        mock.patch.object(socket, "socket", never),
        mock.patch.object(socket, "create_connection", never),
        mock.patch.object(socket, "getaddrinfo", never),
    ):
        for name in acts:
            patched.enter_context(mock.patch.object(Actuator, name, never))
        report = asked(history, idle(), horizon=timedelta(hours=2))
    assert report.totals.stops == 1
