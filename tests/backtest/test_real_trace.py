"""A real day of pods: what the back-test finds in it is what a reckoning second by second finds, written anew here from
the definitions alone, in plain Python and without a look at how the engine does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, cached_property
from itertools import accumulate, pairwise
from math import ceil

import duckdb
import pytest

from policies.policy import DisruptionBudget, IdlePolicy, IdleProfile
from service.backtest.activity import activity_of
from service.backtest.past import Past, bounds, read
from service.backtest.past import Reading as Asked
from service.backtest.question import HORIZONS, Question
from service.backtest.replay import backtest
from service.backtest.report import Report, Stop
from service.backtest.spans import Spans, key_of, time_of
from service.history.layout import History
from service.history.table import Reading, import_table
from tests.backtest.pasts import at, minutes
from tests.real_data import REAL_DATA, needs

TRACE = "traces/gentd26_pod_gpu_util_57s.parquet"
pytestmark = needs(TRACE)

STEP = 60
NEVER = 1 << 40

STARTER = "as the starter policy has it"
PROFILES: Mapping[str, IdleProfile] = {
    STARTER: IdleProfile(for_=minutes(45), utilisation_below=0.05),
    "a short window and little work": IdleProfile(for_=minutes(15), utilisation_below=0.01),
    "half of the window is enough": IdleProfile(for_=minutes(90), utilisation_below=0.2, min_coverage=0.5),
    "a sample speaks for two minutes": IdleProfile(for_=minutes(30), max_gap=minutes(2), telemetry_delay=minutes(0)),
}


def seconds(length: timedelta) -> int:
    return int(length.total_seconds())


@pytest.fixture(scope="module")
def real_day(tmp_path_factory: pytest.TempPathFactory) -> History:
    """The trace, by way of the documented table."""
    folder = tmp_path_factory.mktemp("trace")
    table = folder / "pods.parquet"
    duckdb.execute(
        "COPY (SELECT container_ip AS resource, timestamp_anon AS time, gpu_util_pct / 100 AS utilisation, "
        f"gpu_mem_used_bytes AS memory_used_bytes FROM '{REAL_DATA / TRACE}') TO '{table}' (FORMAT parquet)"
    )
    history = History(str(folder / "history"))
    import_table(str(table), history, Reading())
    return history


def samples_of_pods() -> dict[str, list[tuple[int, float]]]:
    """Pod → its samples in the order of time, straight from the trace."""
    found: dict[str, list[tuple[int, float]]] = {}
    for pod, time, percent in duckdb.execute(
        f"SELECT container_ip, timestamp_anon, gpu_util_pct FROM '{REAL_DATA / TRACE}' "
        "WHERE gpu_util_pct IS NOT NULL ORDER BY 1, 2"
    ).fetchall():
        found.setdefault(pod, []).append((time, percent / 100))
    return found


# --- the independent reckoning ---------------------------------------------------------------------------------------


class Pod:
    """One pod's day, second by second."""

    def __init__(self, samples: Sequence[tuple[int, float]], profile: IdleProfile) -> None:
        self.samples, self.profile = samples, profile
        self.gap, self.window, self.delay = (
            seconds(length) for length in (profile.max_gap, profile.for_, profile.telemetry_delay)
        )
        self.first = samples[0][0]
        self.end = samples[-1][0] + 1  # it is known up to its last sample
        self.zero = self.first - self.window - self.delay - 1  # no window reaches further back

    def _seconds(self, *, work: bool) -> list[int]:
        """For each second from `zero` on: how many before it a sample speaks (that shows work)."""
        says = bytearray(self.end + self.gap + 2 - self.zero)
        times = [time for time, _ in self.samples]
        for (time, value), following in zip(self.samples, [*times[1:], NEVER], strict=True):
            if not work or value >= self.profile.utilisation_below:
                for second in range(time, min(following, time + self.gap)):
                    says[second - self.zero] = 1
        return list(accumulate(says, initial=0))

    @cached_property
    def spoken(self) -> list[int]:
        return self._seconds(work=False)

    @cached_property
    def worked(self) -> list[int]:
        return self._seconds(work=True)

    def heard(self, start: int, end: int) -> int:
        """Seconds in [start, end) for which a sample speaks while the pod is known."""
        start, end = max(start, self.first), min(end, self.end)
        return self.spoken[end - self.zero] - self.spoken[start - self.zero] if end > start else 0

    def looks(self, second: int) -> str | None:
        """Busy, idle or neither, at one moment."""
        if not self.first <= second < self.end:
            return None
        start, end = second - self.delay - self.window, second - self.delay
        if self.worked[second + 1 - self.zero] > self.worked[start - self.zero]:
            return "busy"
        covered = self.spoken[end - self.zero] - self.spoken[start - self.zero]
        return "idle" if covered >= self.profile.min_coverage * self.window - 1e-6 else None

    @cached_property
    def work(self) -> list[tuple[int, int]]:
        """Each stretch for which one sample of work speaks."""
        times = [time for time, _ in self.samples]
        return [
            (time, min(following, time + self.gap, self.end))
            for (time, value), following in zip(self.samples, [*times[1:], NEVER], strict=True)
            if value >= self.profile.utilisation_below
        ]

    def next_work(self, second: int) -> int | None:
        return next((max(start, second) for start, end in self.work if end > second), None)

    def followed(self, second: int, horizon: int) -> bool:
        work = self.next_work(second)
        return work is not None and work - second <= horizon

    def decided(self, second: int, horizon: int) -> bool:
        """Work follows, or enough is heard of the whole time in which it could, to its end."""
        enough = self.heard(second, second + horizon) >= self.profile.min_coverage * horizon
        return self.followed(second, horizon) or (enough and self.end >= second + horizon)


@dataclass(frozen=True)
class Stopped:
    """One stop of a plain replay."""

    pod: str
    at: int
    until: int
    hours: float
    false: bool | None
    resumed: int | None


def stops_of(name: str, pod: Pod, grace: int, horizon: int) -> list[Stopped]:
    """Look after look: warned in the first that finds it idle, stopped a grace later in the first that still does."""
    found: list[Stopped] = []
    warned: int | None = None
    second = ceil(pod.first / STEP) * STEP
    while second < pod.end:
        said = pod.looks(second)
        if said == "busy":
            warned = None
        elif said == "idle" and warned is None:
            warned = second
        elif said == "idle" and warned is not None and second >= warned + max(grace, STEP):
            resumed = pod.next_work(second)
            until = pod.end if resumed is None else min(resumed, pod.end)
            false = pod.followed(second, horizon) if pod.decided(second, horizon) else None
            found.append(Stopped(name, second, until, pod.heard(second, until) / 3600, false, resumed))
            warned = None
            second = max(second + STEP, ceil(until / STEP) * STEP)
            continue
        second += STEP
    return found


def oracle(pod: Pod, stops: Sequence[Stopped], horizon: int) -> tuple[float, float]:
    """Of each stretch without work that none follows within the horizon: its hours, and those that stops save of it."""
    edges = [(pod.first, pod.first), *pod.work, (pod.end, pod.end)]
    rests = [(end, start) for (_, end), (start, _) in pairwise(edges) if start > end]
    spared = [(start, end) for start, end in rests if not pod.followed(start, horizon)]
    saved = [
        pod.heard(stop.at, min(stop.until, end)) for stop in stops for start, end in spared if start <= stop.at < end
    ]
    return sum(pod.heard(start, end) for start, end in spared) / 3600, sum(saved) / 3600


@cache
def pods_of(kind: str) -> Mapping[str, Pod]:
    return {name: Pod(samples, PROFILES[kind]) for name, samples in samples_of_pods().items()}


# --- windows ---------------------------------------------------------------------------------------------------------


def past_of(history: History, profile: IdleProfile) -> Past:
    first, last = bounds(history) or (0, 0)
    gap, levels = seconds(profile.max_gap), (profile.utilisation_below,)
    asked = Asked(start=first - 86400, end=last, gap=gap, thresholds=levels, reach=0)
    return read(history, asked, profile, progress=lambda share, words: None)


def by_pod(past: Past, spans: Spans) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    columns = key_of(spans.start).tolist(), time_of(spans.start).tolist(), time_of(spans.end).tolist()
    for number, start, end in zip(*columns, strict=True):
        found.setdefault(past.resources[number], []).append((start, end))
    return found


def stretches(pod: Pod, word: str) -> list[tuple[int, int]]:
    """Where every second says so."""
    found: list[tuple[int, int]] = []
    for second in range(pod.first, pod.end):
        if pod.looks(second) == word:
            if found and found[-1][1] == second:
                found[-1] = (found[-1][0], second + 1)
            else:
                found.append((second, second + 1))
    return found


@pytest.mark.parametrize("kind", PROFILES)
def test_idle_and_busy_are_what_they_are_at_each_second_of_the_day(real_day: History, kind: str) -> None:
    profile = PROFILES[kind]
    past = past_of(real_day, profile)
    found = activity_of(past, profile, past.work[0])
    idle, busy = by_pod(past, found.idle), by_pod(past, found.busy)
    pods = pods_of(kind)

    assert len(pods) == len(past.resources) == 77
    assert idle == {name: spans for name, pod in pods.items() if (spans := stretches(pod, "idle"))}
    assert busy == {name: spans for name, pod in pods.items() if (spans := stretches(pod, "busy"))}


@pytest.mark.parametrize("kind", PROFILES)
def test_holes_never_count_as_idle(real_day: History, kind: str) -> None:
    """Of no window that is called idle is more missing than may be: told by DuckDB of the holes, not of the samples."""
    profile = PROFILES[kind]
    past = past_of(real_day, profile)
    idle = [(pod, *span) for pod, spans in by_pod(past, activity_of(past, profile, past.work[0]).idle).items()
            for span in spans]  # fmt: skip
    gap, window, delay = (seconds(each) for each in (profile.max_gap, profile.for_, profile.telemetry_delay))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE idle (pod VARCHAR, since BIGINT, until BIGINT)")
        connection.executemany("INSERT INTO idle VALUES (?, ?, ?)", idle)
        connection.execute(
            f"""
            CREATE TABLE hole AS
            SELECT container_ip AS pod, timestamp_anon + {gap} AS since, lead(timestamp_anon, 1, {NEVER}) OVER (
                PARTITION BY container_ip ORDER BY timestamp_anon) AS until
            FROM '{REAL_DATA / TRACE}' WHERE gpu_util_pct IS NOT NULL QUALIFY until > since
            UNION ALL SELECT container_ip, 0, min(timestamp_anon) FROM '{REAL_DATA / TRACE}'
            WHERE gpu_util_pct IS NOT NULL GROUP BY 1;
            CREATE TABLE look AS SELECT pod, unnest(range(since, until, 30)) AS moment FROM idle
            """
        )
        holes, looks = connection.execute("SELECT (SELECT count(*) FROM hole), (SELECT count(*) FROM look)").fetchall()[
            0
        ]
        worst, met = connection.execute(
            f"""
            SELECT max(missing), count(*) FROM (
                SELECT look.pod, moment,
                    sum(greatest(0, least(moment - {delay}, until) - greatest(moment - {delay + window}, since)))
                        AS missing
                FROM look JOIN hole
                    ON hole.pod = look.pod AND since < moment AND until > moment - {delay + window}
                GROUP BY ALL
            )
            """
        ).fetchall()[0]
    assert holes > 2 * 77
    assert looks > 10_000
    assert met > 0
    assert worst <= (1 - profile.min_coverage) * window + 1e-6


# --- stops -----------------------------------------------------------------------------------------------------------


def policy(profile: IdleProfile, grace: timedelta) -> IdlePolicy:
    return IdlePolicy(
        name="idle-gpus",
        type="idle",
        action="stop",
        idle=profile,
        grace=grace,
        cool_down=timedelta(),
        disruption_budget=DisruptionBudget.model_validate({"max": 1000}),
    )


def replayed(history: History, profile: IdleProfile, grace: timedelta, horizon: timedelta) -> Report:
    return backtest(history, Question(policy=policy(profile, grace), horizon=horizon))


@pytest.mark.parametrize("horizon", [timedelta(hours=2), timedelta(minutes=20)], ids=["two hours", "twenty minutes"])
@pytest.mark.parametrize("grace", [minutes(30), minutes(0)], ids=["half an hour of grace", "no grace"])
@pytest.mark.parametrize("kind", PROFILES)
def test_stops_and_sums_are_those_of_a_plain_replay(
    real_day: History, kind: str, grace: timedelta, horizon: timedelta
) -> None:
    profile = PROFILES[kind]
    report = replayed(real_day, profile, grace, horizon)
    pods = pods_of(kind)
    wanted = {name: stops_of(name, pod, seconds(grace), seconds(horizon)) for name, pod in pods.items()}
    every = sorted((stop for stops in wanted.values() for stop in stops), key=lambda stop: (stop.at, stop.pod))
    oracles = [oracle(pod, wanted[name], seconds(horizon)) for name, pod in pods.items()]

    assert [(stop.at, stop.resource, stop.false_stop, stop.work_resumed_at) for stop in by_time(report)] == [
        (at(stop.at), stop.pod, stop.false, None if stop.resumed is None else at(stop.resumed)) for stop in every
    ]
    assert [stop.gpu_hours_saved for stop in by_time(report)] == pytest.approx([stop.hours for stop in every])
    totals = report.totals
    assert totals.stops == len(every) > 20
    assert totals.false_stops == sum(stop.false is True for stop in every) > 0
    assert totals.undecided == sum(stop.false is None for stop in every)
    assert totals.gpu_hours_saved == pytest.approx(sum(stop.hours for stop in every))
    assert totals.oracle_gpu_hours == pytest.approx(sum(hours for hours, _ in oracles))
    assert totals.oracle_reached_gpu_hours == pytest.approx(sum(reached for _, reached in oracles))
    assert not any("disruption budget" in limit for limit in report.limits)


def by_time(report: Report) -> list[Stop]:
    return sorted(report.stops, key=lambda stop: (stop.at, stop.resource))


def test_the_table_of_horizons_is_that_of_a_plain_replay(real_day: History) -> None:
    profile = PROFILES[STARTER]
    report = replayed(real_day, profile, minutes(30), timedelta(hours=2))
    pods = pods_of(STARTER)
    every = [stop for name, pod in pods.items() for stop in stops_of(name, pod, 1800, 7200)]
    for row in report.horizons:
        horizon = seconds(row.horizon)
        assert row.false_stops == sum(pods[stop.pod].followed(stop.at, horizon) for stop in every)
        assert row.decided == sum(pods[stop.pod].decided(stop.at, horizon) for stop in every)
        assert row.decided + row.undecided == len(every)
    assert tuple(row.horizon for row in report.horizons) == HORIZONS
