"""The real price histories of three clouds price a replay: each month's saving is its hours at what the machine cost
on those days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from pathlib import Path

import duckdb
import pytest

from policies.policy import DisruptionBudget, IdlePolicy
from service.backtest.question import Question
from service.backtest.replay import backtest
from service.backtest.report import Report
from service.history.layout import History
from service.history.table import Reading, import_table
from service.pipeline.price import PriceFile
from tests.real_data import REAL_DATA, needs

AWS = "prices/aws_accelerated_ondemand_history_us-east-1.csv"
AZURE = "prices/azure_gpu_ondemand_history_all_regions.csv"
GOOGLE = "prices/gcp_gpu_price_history.parquet"
pytestmark = needs(AWS, AZURE, GOOGLE)

HOUR, DAY = 3600, 86_400
PACE = 300
WORK_EVERY = 11 * DAY
"""Then each machine works for an hour; so stretches of nothing lie across the ends of months."""
IDLE_AFTER = HOUR + (45 + 3 + 30) * 60
"""From the beginning of the work: it ends, the window and the delay go by, and then the grace."""
MICRO = Decimal("0.000001")


@dataclass(frozen=True)
class Months:
    """Some months of one cloud, in which its prices moved."""

    provider: str
    region: str
    capacity: str
    skus: tuple[str, ...]
    first: date
    end: date
    listed: str
    """SQL: what a machine of ours cost and since when, as columns `sku`, `told`, `hourly`."""


CLOUDS: Mapping[str, Months] = {
    "AWS, as it made its GPUs cheaper": Months(
        provider="aws",
        region="us-east-1",
        capacity="on_demand",
        skus=("p5.48xlarge", "p5en.48xlarge", "p4d.24xlarge", "g6.xlarge"),
        first=date(2025, 5, 1),
        end=date(2025, 9, 1),
        listed=f"""SELECT instance_type AS sku, CAST(generated_at AS TIMESTAMP) AS told,
            on_demand_usd_per_hour AS hourly FROM read_csv('{REAL_DATA / AWS}', all_varchar=true)""",
    ),
    "Azure, in Warsaw": Months(
        provider="azure",
        region="polandcentral",
        capacity="on_demand",
        skus=("Standard_ND96isr_H100_v5", "Standard_ND96amsr_A100_v4", "Standard_NC24ads_A100_v4"),
        first=date(2025, 4, 1),
        end=date(2025, 8, 1),
        listed=f"""SELECT vm_size AS sku, CAST(generated_at AS TIMESTAMP) AS told,
            on_demand_usd_per_hour AS hourly FROM read_csv('{REAL_DATA / AZURE}', all_varchar=true)
            WHERE region = 'polandcentral'""",
    ),
    "Google, whose spot prices move": Months(
        provider="gcp",
        region="us-central1",
        capacity="spot",
        skus=("a3-highgpu-8g", "a2-ultragpu-2g"),
        first=date(2024, 6, 1),
        end=date(2024, 12, 1),
        listed=f"""SELECT machine_type AS sku, catalog_commit_time AT TIME ZONE 'UTC' AS told,
            hour_spot::varchar AS hourly FROM '{REAL_DATA / GOOGLE}'
            WHERE region = 'us-central1' AND hour_spot IS NOT NULL""",
    ),
}


@cache
def listed(cloud: str) -> Mapping[str, Mapping[date, int]]:
    """SKU → each day of its list → micro-units an hour; of several lists of one day the last."""
    found: dict[str, dict[date, int]] = {}
    lists = f"SELECT sku, told::date, hourly FROM ({CLOUDS[cloud].listed}) ORDER BY told, sku, hourly"
    for sku, day, hourly in duckdb.execute(lists).fetchall():
        found.setdefault(sku, {})[day] = int(Decimal(hourly).quantize(MICRO, ROUND_HALF_EVEN) * 1_000_000)
    return found


def cost(cloud: str, sku: str, day: date) -> int:
    """Micro-units an hour, as the newest list by that day has it."""
    return listed(cloud)[sku][max(since for since in listed(cloud)[sku] if since <= day)]


def price_file(cloud: str, folder: Path) -> PriceFile:
    """The history as a person would write it down: an entry for each list with another price than before."""
    months, lines = CLOUDS[cloud], []
    for sku in months.skus:
        before = None
        for day, micros in listed(cloud)[sku].items():
            if micros != before:
                lines.append(
                    f"- {{provider: {months.provider}, sku: {sku}, region: {months.region}, "
                    f"capacity_type: {months.capacity}, hourly: {micros * MICRO}, as_of: {day}, from: {day}}}\n"
                )
            before = micros
    path = folder / "prices.yaml"
    path.write_text("".join(lines))
    return PriceFile.read(path)


def second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class Past:
    """What was recorded of one cloud, and its prices."""

    cloud: str
    months: Months
    history: History
    report: Report


@pytest.fixture(scope="module", params=CLOUDS)
def past(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Past:
    cloud: str = request.param
    folder = tmp_path_factory.mktemp("past")
    history = recorded(cloud, folder)
    return Past(cloud, CLOUDS[cloud], history, replayed(history, price_file(cloud, folder)))


def recorded(cloud: str, folder: Path) -> History:
    """A table with SKUs and no prices, imported: each machine works an hour in eleven days and is idle else."""
    months = CLOUDS[cloud]
    table = folder / "fleet.parquet"
    start, end = second(months.first), second(months.end)
    skus = ", ".join(f"'{sku}'" for sku in months.skus)
    duckdb.execute(
        f"""
        COPY (
            SELECT sku AS resource, sku, time, CASE WHEN (time - {start}) % {WORK_EVERY} < {HOUR} THEN 0.9 ELSE 0 END
                AS utilisation, '{months.provider}' AS provider, '{months.region}' AS region,
                '{months.capacity}' AS capacity_type
            FROM (SELECT unnest([{skus}]) AS sku), (SELECT unnest(range({start}, {end}, {PACE})) AS time)
        ) TO '{table}' (FORMAT parquet)
        """
    )
    history = History(str(folder / "history"))
    import_table(str(table), history, Reading())
    return history


def replayed(history: History, prices: PriceFile) -> Report:
    policy = IdlePolicy(
        name="idle-gpus",
        type="idle",
        action="stop",
        grace=timedelta(minutes=30),
        cool_down=timedelta(),
        disruption_budget=DisruptionBudget.model_validate({"max": 100}),
    )
    assert policy.idle.for_ == timedelta(minutes=45)
    assert policy.idle.telemetry_delay == timedelta(minutes=3)
    return backtest(history, Question(policy=policy, prices=prices))


def idle_hours(months: Months) -> Iterator[tuple[date, int]]:
    """Each day on which a machine is stopped, and for how many seconds of it."""
    start, end = second(months.first), second(months.end) - PACE + 1  # known up to its last sample
    for work in range(start, end, WORK_EVERY):
        at, until = work + IDLE_AFTER, min(work + WORK_EVERY, end)
        while at < until:
            midnight = (at // DAY + 1) * DAY
            yield datetime.fromtimestamp(at, UTC).date(), min(until, midnight) - at
            at = min(until, midnight)


def stopped_from(months: Months) -> list[datetime]:
    return [
        datetime.fromtimestamp(work + IDLE_AFTER, UTC)
        for work in range(second(months.first), second(months.end), WORK_EVERY)
        if work + IDLE_AFTER < second(months.end)
    ]


Month = tuple[int, int]


def month(day: date) -> Month:
    return day.year, day.month


def test_each_month_saves_its_hours_at_what_they_cost_then(past: Past) -> None:
    cloud, months, report = past.cloud, past.months, past.report
    hours: dict[Month, float] = defaultdict(float)
    money: dict[Month, int] = defaultdict(int)
    for saved in report.savings:
        hours[month(saved.day)] += saved.gpu_hours_saved
        money[month(saved.day)] += saved.cost_saved_micros or 0
    wanted_hours: dict[Month, float] = defaultdict(float)
    wanted_money: dict[Month, float] = defaultdict(float)
    for day, length in idle_hours(months):
        for sku in months.skus:
            wanted_hours[month(day)] += length / HOUR
            wanted_money[month(day)] += length / HOUR * cost(cloud, sku, day)

    assert sorted({stop.at for stop in report.stops}) == stopped_from(months)
    assert report.totals.stops == len(stopped_from(months)) * len(months.skus)
    assert dict(hours) == pytest.approx(wanted_hours)
    assert set(money) == set(wanted_money)
    days_and_machines = 31 * len(months.skus)  # each is rounded to the micro-unit
    for one, micros in money.items():
        assert abs(micros - wanted_money[one]) <= days_and_machines, one
    assert report.totals.cost_saved_micros == {"USD": pytest.approx(sum(wanted_money.values()), abs=200)}
    rates = {one: wanted_money[one] / wanted_hours[one] for one in wanted_money}
    assert len({round(rate) for rate in rates.values()}) > 1, "no price moved: nothing is shown"


def test_a_month_in_which_no_price_moved_saves_hours_times_its_price(past: Past) -> None:
    """One machine, told in the plainest way."""
    cloud, months, report = past.cloud, past.months, past.report
    sku = months.skus[0]
    steady = []
    start = months.first
    while start < months.end:
        following = (start + timedelta(days=31)).replace(day=1)
        prices = {cost(cloud, sku, start + timedelta(days=number)) for number in range((following - start).days)}
        if len(prices) == 1:
            steady.append((start, following, prices.pop()))
        start = following
    assert len({price for _, _, price in steady}) > 1
    told = 0
    for start, following, price in steady:
        for stop in report.stops:
            if stop.resource == sku and stop.at.date() >= start and stop.saves_until.date() < following:
                hours = (stop.saves_until - stop.at).total_seconds() / HOUR
                assert stop.cost_saved_micros == pytest.approx(hours * price, abs=1)
                told += 1
    assert told >= len(steady)


def test_without_the_price_file_no_money_is_claimed(past: Past) -> None:
    report = replayed(past.history, PriceFile())
    assert report.totals.without_price == report.totals.stops > 0
    assert report.totals.cost_saved_micros == {}
    assert {saved.cost_saved_micros for saved in report.savings} == {None}
