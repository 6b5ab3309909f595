"""A day of 77 real GPU pods, holes and all, through a real Prometheus: each is judged as SQL over the trace says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

import duckdb
import pytest

from policies.policy import IdleProfile
from providers.records import ResourceRecord, Series
from service.pipeline.activity import judge_activity
from tests.providers.prometheus.builders import ask, machine, telemetry
from tests.providers.prometheus.server import fill, running
from tests.real_data import REAL_DATA, needs

TRACE = REAL_DATA / "traces/gentd26_pod_gpu_util_57s.parquet"
pytestmark = needs("traces/gentd26_pod_gpu_util_57s.parquet")
PROFILE = IdleProfile()
WINDOW, GAP, DELAY, WARM_UP = 45 * 60, 5 * 60, 3 * 60, 15 * 60
"""The default profile's, in seconds and written out, so that the expectation shares nothing with what it checks."""
FIRST, LAST = 1662858720, 1662940800
HOLE = FIRST + 27246
"""Where the longest hole of the trace ends, 2451 seconds after it began."""
MOMENTS = {
    "as the day begins": FIRST + 1800,
    "after an hour": FIRST + 3600,
    "in the morning": FIRST + 20_000,
    "within the longest hole": HOLE - 100,
    "just after the longest hole": HOLE + 300,
    "half an hour after it": HOLE + 1800,
    "when it has left the window": HOLE + 3600,
    "at noon": FIRST + 43_200,
    "as new pods start": FIRST + 61_800,
    "in the afternoon": FIRST + 63_000,
    "when some have ended": FIRST + 77_500,
    "at the end": LAST + 60,
    "when all have been silent for minutes": LAST + 900,
    "long after": LAST + 86_400,
}


def sql(text: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        return connection.sql(text.replace("TRACE", f"'{TRACE}'")).fetchall()


@cache
def pods() -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for pod, second, percent in sql(
        "select container_ip, timestamp_anon, gpu_util_pct from TRACE where gpu_util_pct is not null order by all"
    ):
        assert isinstance(pod, str)
        assert isinstance(second, int)
        assert isinstance(percent, float)
        found.setdefault(pod, []).append((second, percent))
    return found


def expected(at: int) -> dict[str, tuple[str | None, int]]:
    """Pod → its word and the seconds of the window that samples speak for, from the trace alone."""
    start, end = at - DELAY - WINDOW, at - DELAY
    rows = sql(
        f"""
        with sample as (
            select container_ip as pod, timestamp_anon as t, gpu_util_pct / 100 as utilisation,
                   min(timestamp_anon) over pod_samples as born,
                   lead(timestamp_anon, 1, 9e9) over (pod_samples order by timestamp_anon) as following
            from TRACE where gpu_util_pct is not null
            window pod_samples as (partition by container_ip)
        ), speech as (
            select pod, t, utilisation, greatest(t, {start}) as since, least(t + {GAP}, following, {end}) as until
            from sample where t >= born + {WARM_UP} and t < {at}
        )
        select pod, bool_or(utilisation >= 0.05), coalesce(sum(until - since) filter (until > since), 0)
        from speech where until > since or t >= {end} group by pod
        """
    )
    words: dict[str, tuple[str | None, int]] = dict.fromkeys(pods(), (None, 0))
    for pod, busy, seconds in rows:
        assert isinstance(pod, str)
        spoken = int(str(seconds).partition(".")[0])
        words[pod] = ("busy" if busy else "idle" if spoken >= 0.9 * WINDOW else None, spoken)
    return words


@pytest.fixture(scope="module")
def shift() -> int:
    """From the trace's times into the recent past."""
    return int(time.time()) - 600 - LAST


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, shift: int) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("trace")
    fill(
        folder,
        {
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="GPU-{pod}",Hostname="{pod}"}}': [(t + shift, v) for t, v in samples]
            for pod, samples in pods().items()
        },
    )
    with running(folder) as url:
        yield url


def born(pod: str, shift: int) -> datetime:
    return datetime.fromtimestamp(pods()[pod][0][0] + shift, UTC)


def fetched(server: str, shift: int, at: int) -> dict[str, tuple[ResourceRecord, tuple[Series, ...]]]:
    """Pod → its machine and what the provider tells of it, asked as a cycle asks at this moment."""
    moment = datetime.fromtimestamp(at + shift, UTC)
    records = {pod: machine(pod, launched_at=born(pod, shift)) for pod in pods()}
    reach = timedelta(seconds=WINDOW + GAP + DELAY)
    answer = ask(telemetry(server), list(records.values()), start=moment - reach, end=moment)
    assert (answer.faults, answer.ambiguous) == ((), frozenset())
    return {
        pod: (record, tuple(one for one in answer.series if one.ref == record.ref)) for pod, record in records.items()
    }


@pytest.mark.parametrize("at", MOMENTS.values(), ids=MOMENTS)
def test_every_pod_is_judged_as_the_trace_says(server: str, shift: int, at: int) -> None:
    assert len(pods()) == 77
    judged = {
        pod: judge_activity(
            series,
            gpu_count=1,
            started_at=record.launched_at,
            ambiguous=False,
            profile=PROFILE,
            at=datetime.fromtimestamp(at + shift, UTC),
        )
        for pod, (record, series) in fetched(server, shift, at).items()
    }
    words = {pod: (one.activity, round((one.coverage or 0) * WINDOW)) for pod, one in judged.items()}
    assert words == expected(at)


@pytest.mark.usefixtures("server")
def test_the_moments_show_busy_idle_and_unknown_pods() -> None:
    words = [word for at in MOMENTS.values() for word, _ in expected(at).values()]
    assert min(words.count("busy"), words.count("idle"), words.count(None)) > 50


def test_a_hole_in_the_trace_is_a_hole_in_the_answer(server: str, shift: int) -> None:
    (pod,) = [
        pod for pod, samples in pods().items() if max((b[0] - a[0] for a, b in pairwise(samples)), default=0) == 2451
    ]
    _, (series,) = fetched(server, shift, HOLE + 300)[pod]
    assert [t for t in series.times if HOLE - 2451 < t - shift < HOLE] == []
    assert HOLE + shift in series.times
    assert [(t, v) for t, v in pods()[pod] if t + shift in series.times] == [
        (t - shift, pytest.approx(v * 100)) for t, v in zip(series.times, series.values, strict=True)
    ]
    for at in (HOLE - 100, HOLE + 300, HOLE + 1800):
        assert expected(at)[pod][0] != "idle"
