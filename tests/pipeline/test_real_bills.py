"""Real Azure bills, row by row: the same machines, metered at the bill's own rates, cost what Azure charged.

How far the samples go. The largest is 400 rows of a month's export of two clusters (CycleCloud and AKS, HB120rs v3 and
the eight V100s of ND40rs v2), of which 187 are hours of machines; three smaller ones add a spot, a reserved and a
capacity-reserved machine. An export says on which day, of which machine and for how long, not from when to when, and it
is a sample of rows: no machine's whole month is in it. So what is compared is each row's stretch of time and its cost,
not when we would have seen the machine begin and end. The one clock in the rows is when a cluster was launched.

Azure counts whole minutes. It writes one as 0.016667 hours and adds those up, so that 34 minutes are 0.566678 hours: by
20 parts in a million more than it is, and it charges for what it writes. That, and nothing else, is between us.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest

from providers.price_lists import MICROS, to_micros
from providers.records import Price, State
from service.model import Interval
from service.money import SECONDS_PER_HOUR, interval_cost, whole_seconds
from service.pipeline.meter import LONGEST_GAP, meter
from tests.pipeline.builders import known, record
from tests.real_data import REAL_DATA, needs

STUDY = "billing/perfstudy_real_bills_2024-08/azure_ea_usage_sample400.csv"
EXPORTS = {
    STUDY: 187,
    "billing/focus_converters/azure/sample-anonymous-ea-export-dataset.csv": 3,
    "billing/azure_ea_finops_toolkit/EA_AmortizedCost_Small.csv": 2,
    "billing/azure_ea_finops_toolkit/EA_ActualCost_Small.csv": 1,
}
"""Export → how many of its rows are hours of machines."""
LISTS = "prices/azure_gpu_ondemand_history_all_regions.csv"
pytestmark = needs(*EXPORTS, LISTS)

A_MINUTE = Decimal("0.016667")
"""As Azure writes it, in hours."""
LAST_DIGIT = Decimal("0.000001")
"""Of an hour; some of Azure's sums are one of it short."""
IN_A_MILLION = 21
"""What Azure's way of writing minutes, and its last digit, may add to the cost of a stretch."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """A row that charges a machine by the hour."""

    machine: str
    day: datetime
    size: str
    region: str
    hours: Decimal
    hourly: Decimal
    cost: Decimal
    launched: datetime | None
    """Its cluster, where that says so in a tag."""

    @property
    def minutes(self) -> int:
        """The whole minutes that Azure wrote as these hours."""
        whole, part = divmod(self.hours, 1)
        return int(whole) * 60 + round(part / A_MINUTE)


@cache
def usages(export: str) -> Sequence[Usage]:
    """What charges time. A saving plan's part of an hour is no time, a purchase neither."""
    with (REAL_DATA / export).open(encoding="utf-8-sig", newline="") as file:
        return [
            usage(row)
            for row in csv.DictReader(file)
            if (row["MeterCategory"], row["UnitOfMeasure"], row["ChargeType"])
            == ("Virtual Machines", "1 Hour", "Usage")
            and row["PricingModel"] != "SavingsPlan"
            and Decimal(row["Quantity"]) > 0
        ]


def usage(row: dict[str, str]) -> Usage:
    more = json.loads(row["AdditionalInfo"])
    tags = json.loads(f"{{{row['Tags']}}}") if row["Tags"].startswith('"') else {}
    launched = tags.get("LaunchTime")
    return Usage(
        machine=f"{row['ResourceId']} {more.get('VMName')}".lower(),
        day=datetime.strptime(row["Date"], "%m/%d/%Y").replace(tzinfo=UTC),
        size=more.get("ServiceType", ""),
        region=row["ResourceLocation"].lower(),
        hours=Decimal(row["Quantity"]),
        hourly=Decimal(row["EffectivePrice"]),
        cost=Decimal(row.get("Cost") or row["CostInBillingCurrency"]),
        launched=datetime.fromisoformat(launched) if launched else None,
    )


def metered(row: Usage, minutes: int) -> Sequence[Interval]:
    """The meter's rows of a machine that runs for so long from the day's first moment, looked at as often as we do."""
    price = Price(rate_micros=to_micros(row.hourly), currency="USD", source="the bill")
    machine = record(row.machine, provider="azure", region=row.region, sku=row.size)
    end = row.day + timedelta(minutes=minutes)
    rows: list[Interval] = []
    at, last = row.day, None
    while last is None or last < end:
        state = State.RUNNING if at < end else State.STOPPED
        seen = known(record=replace(machine, state=state), price=price, state_since=at)
        for change in meter([seen], {one.resource_id: one for one in rows}, at, last_look=last):
            if change.closes:
                rows[-1] = replace(rows[-1], ended_at=change.at)
            rows += change.opened
        at, last = min(end, at + LONGEST_GAP), at
    return rows


def seconds(rows: Sequence[Interval]) -> int:
    """How long it cost something."""
    return sum(whole_seconds(row.started_at, row.ended_at) for row in rows if row.rate_micros and row.ended_at)


def micros(rows: Sequence[Interval]) -> int:
    return sum(
        interval_cost(row.base, row.rate_micros, whole_seconds(row.started_at, row.ended_at))
        for row in rows
        if row.ended_at
    )


@pytest.mark.parametrize("export", EXPORTS)
def test_every_row_is_as_long_as_azure_writes_it(export: str) -> None:
    assert len(usages(export)) == EXPORTS[export]
    for row in usages(export):
        hours, rest = divmod(seconds(metered(row, row.minutes)) // 60, 60)
        assert hours + rest * A_MINUTE - row.hours in (0, LAST_DIGIT), row
        assert row.hours <= 24, row


@pytest.mark.parametrize("export", EXPORTS)
def test_every_row_costs_what_azure_charged_but_for_how_it_writes_minutes(export: str) -> None:
    for row in usages(export):
        rows = metered(row, row.minutes)
        hours = Fraction(seconds(rows), SECONDS_PER_HOUR)
        charged, ours, hourly = Fraction(row.cost) * MICROS, micros(rows), Fraction(row.hourly) * MICROS
        off = abs(hourly - to_micros(row.hourly)) * hours  # a rate of ours has no more than six decimals
        assert abs(charged - ours - (Fraction(row.hours) - hours) * hourly) < 1 + off, row
        assert abs(charged - ours) < 1 + off + charged * IN_A_MILLION / MICROS, row


def test_whole_hours_cost_the_same_to_the_last_micro_unit() -> None:
    whole = [row for export in EXPORTS for row in usages(export) if row.minutes % 60 == 0]
    assert len(whole) == 31
    assert [micros(metered(row, row.minutes)) for row in whole] == [to_micros(row.cost) for row in whole]


def test_all_of_the_study_together_is_less_than_twenty_in_a_million_apart() -> None:
    rows = usages(STUDY)
    ours = sum(micros(metered(row, row.minutes)) for row in rows)
    charged = to_micros(sum((row.cost for row in rows), Decimal()))
    assert (ours, charged) == (513_505_397, 513_512_199)
    assert charged - ours < charged * 20 // MICROS


def test_a_machine_in_two_rows_of_a_day_costs_as_one_stretch() -> None:
    one, other = (row for row in usages(STUDY) if row.machine.endswith("aks-userpool-38373098-vmss_44"))
    assert (one.day, one.hourly, {one.minutes, other.minutes}) == (other.day, other.hourly, {39, 48})
    apart = [micros(metered(row, row.minutes)) for row in (one, other)]
    assert micros(metered(one, one.minutes + other.minutes)) == sum(apart)


def test_no_machine_is_charged_for_longer_than_its_cluster_is_there() -> None:
    first_days = [row for row in usages(STUDY) if row.launched and row.launched.date() == row.day.date()]
    assert len(first_days) == 68
    for row in first_days:
        assert row.launched is not None
        assert timedelta(minutes=row.minutes) <= row.day + timedelta(days=1) - row.launched


def test_the_rates_are_those_of_the_list_of_the_time_to_four_digits() -> None:
    with (REAL_DATA / LISTS).open(newline="") as file:
        listed = {
            (row["region"], row["vm_size"]): Decimal(row["on_demand_usd_per_hour"])
            for row in csv.DictReader(file)
            if row["generated_at"].startswith("2024-04-23")
        }
    [(region, size, hourly)] = {
        (row.region, row.size, row.hourly) for row in usages(STUDY) if (row.region, row.size) in listed
    }
    assert (region, size, listed[region, size]) == ("westus2", "Standard_ND40rs_v2", Decimal("22.032"))
    assert hourly == listed[region, size].quantize(Decimal("0.01"))
