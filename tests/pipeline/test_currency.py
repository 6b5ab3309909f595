"""Currencies are converted by what a person wrote down, exactly, or not at all."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.currency import Converted, Rate, Rates
from service.runtime import compose
from service.settings import Settings
from service.store.database import Database

DAY = date(2026, 11, 16)


def a_rate(rate: str = "1.0842", *, frm: str = "EUR", to: str = "USD", as_of: date = DAY) -> Rate:
    return Rate.model_validate({"from": frm, "to": to, "rate": rate, "as_of": as_of})


def converted(rates: Rates, micros: int, on: date = DAY, frm: str = "EUR", to: str = "USD") -> Converted:
    found = rates.convert(micros, frm, to, on)
    assert found is not None
    return found


def test_an_amount_says_by_which_rate_it_was_converted() -> None:
    rates = Rates([a_rate("1.0842", as_of=date(2026, 11, 1))])

    assert rates.convert(20_000_000_000, "EUR", "USD", DAY) == Converted(
        micros=21_684_000_000, rate=Decimal("1.0842"), as_of=date(2026, 11, 1)
    )


@pytest.mark.parametrize(
    ("micros", "rate", "expected"),
    [
        pytest.param(1, "0.5", 0, id="half a micro-unit goes to the even side, down"),
        pytest.param(3, "0.5", 2, id="half a micro-unit goes to the even side, up"),
        pytest.param(5, "0.5", 2, id="and down again"),
        pytest.param(10, "0.051", 1, id="more than half goes up"),
        pytest.param(2**62, "1.00000000000000001", 2**62 + 46, id="beyond what a float or 28 digits can hold"),
        pytest.param(1_000_000, "0.00003937", 39, id="dong into dollars"),
    ],
)
def test_rounding_is_to_the_nearest_micro_unit_ties_to_even(micros: int, rate: str, expected: int) -> None:
    assert converted(Rates([a_rate(rate)]), micros).micros == expected


@pytest.mark.parametrize(
    ("frm", "to", "on"),
    [
        pytest.param("EUR", "USD", DAY - timedelta(days=1), id="before the first rate"),
        pytest.param("USD", "EUR", DAY, id="the inverse of what is given"),
        pytest.param("EUR", "JPY", DAY, id="by way of a third currency"),
        pytest.param("GBP", "USD", DAY, id="a currency nobody wrote down"),
    ],
)
def test_without_a_rate_there_is_no_answer(frm: str, to: str, on: date) -> None:
    rates = Rates([a_rate(), a_rate("154.2", frm="USD", to="JPY")])

    assert rates.convert(1_000_000, frm, to, on) is None


def test_the_same_currency_needs_no_rate() -> None:
    assert converted(Rates(), 7, frm="USD", to="USD").micros == 7


@pytest.mark.parametrize(
    ("on", "rate"),
    [
        (date(2026, 10, 1), "1.1"),
        (date(2026, 10, 31), "1.1"),
        (date(2026, 11, 1), "1.2"),
        (date(2027, 1, 1), "1.3"),
        (date(2099, 1, 1), "1.3"),
    ],
)
def test_the_newest_rate_on_or_before_the_day_counts(on: date, rate: str) -> None:
    days = {"1.3": date(2027, 1, 1), "1.1": date(2026, 10, 1), "1.2": date(2026, 11, 1)}
    rates = Rates(a_rate(text, as_of=day) for text, day in days.items())

    assert converted(rates, 1, on).rate == Decimal(rate)


# Properties.

AMOUNTS = st.integers(min_value=0, max_value=2**63 - 1)
RATES = st.integers(1, 10**12).map(lambda n: str(Decimal(n).scaleb(-6)))
DAYS = st.dates(date(2020, 1, 1), date(2030, 1, 1))


@given(RATES, AMOUNTS)
def test_no_amount_is_more_than_half_a_micro_unit_off(rate: str, micros: int) -> None:
    found = converted(Rates([a_rate(rate)]), micros).micros

    assert type(found) is int
    assert abs(found - micros * Fraction(rate)) <= Fraction(1, 2)


@given(RATES, AMOUNTS, AMOUNTS)
def test_more_money_is_never_less_in_another_currency(rate: str, first: int, second: int) -> None:
    rates = Rates([a_rate(rate)])
    less, more = sorted((first, second))

    assert converted(rates, less).micros <= converted(rates, more).micros


@given(RATES, RATES, AMOUNTS)
def test_a_higher_rate_never_gives_less(first: str, second: str, micros: int) -> None:
    low, high = sorted((first, second), key=Decimal)

    assert converted(Rates([a_rate(low)]), micros).micros <= converted(Rates([a_rate(high)]), micros).micros


@given(st.dictionaries(DAYS, RATES, max_size=6), DAYS)
def test_a_rate_is_used_from_its_day_until_the_next(given_rates: dict[date, str], on: date) -> None:
    rates = Rates(a_rate(rate, as_of=day) for day, rate in given_rates.items())
    newest = max((day for day in given_rates if day <= on), default=None)
    found = rates.convert(1_000_000, "EUR", "USD", on)

    assert (None if found is None else found.as_of) == newest


# The file.


def test_a_file_of_rates_is_read_exactly_as_written(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(
        """
- {from: EUR, to: USD, rate: "1.0842", as_of: 2026-11-01}
- {from: VND, to: USD, rate: 0.00003937000000001, as_of: 2026-11-01}
"""
    )
    rates = Rates.read(path)

    assert converted(rates, 1_000_000).micros == 1_084_200
    assert converted(rates, 1, frm="VND").rate == Decimal("0.00003937000000001")


def test_an_empty_file_holds_no_rates(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("# none yet\n")

    assert Rates.read(path).convert(1, "EUR", "USD", DAY) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {from: EUR, to: USD, rate: 1.1}", "line 1, entry 1, as_of: is missing"),
        ("- {from: EUR, to: USD, rate: 0, as_of: 2026-11-01}", "entry 1, rate: '0' is no exchange rate"),
        ("- {from: EUR, to: USD, rate: -1, as_of: 2026-11-01}", "entry 1, rate: '-1' is no exchange rate"),
        ("- {from: EUR, to: USD, rate: .nan, as_of: 2026-11-01}", "entry 1, rate: '.nan' is no exchange rate"),
        ("- {from: EUR, to: USD, rate: '1,08', as_of: 2026-11-01}", "entry 1, rate: '1,08' is no exchange rate"),
        ("- {from: EUR, to: USD, rate: 1e99, as_of: 2026-11-01}", "entry 1, rate: '1e99' has more than 18 digits"),
        ("- {from: EUR, to: UDS, rate: 1.1, as_of: 2026-11-01}", "entry 1, to: 'UDS' is no ISO 4217 currency code"),
        ("- {from: EUR, to: EUR, rate: 1.1, as_of: 2026-11-01}", "entry 1, from EUR to EUR is no exchange"),
        ("- {from: EUR, to: USD, rate: 1.1, as_of: 2026-13-01}", "entry 1, as_of: '2026-13-01' is no date"),
        (
            "- {from: EUR, to: USD, rate: 1.1, as_of: 2026-11-01}\n- {frm: EUR, to: USD, rate: 1, as_of: 2026-11-01}",
            "line 2, entry 2, frm: there is no such field; did you mean 'from'?",
        ),
        (
            "- &a {from: EUR, to: USD, rate: 1.1, as_of: 2026-11-01}\n- *a",
            "there are two rates from EUR to USD as of 2026-11-01",
        ),
    ],
)
def test_a_mistake_is_named_by_file_entry_and_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"^the file of exchange rates .*rates\.yaml cannot be used") as refused:
        Rates.read(path)
    assert says in str(refused.value)


def test_the_service_reads_its_rates_at_start(tmp_path: Path, sqlite_url: str) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("- {from: EUR, to: USD, rate: 2, as_of: 2026-11-01}")
    database = Database(sqlite_url)
    runtime = compose(Settings(home=tmp_path, rates=path), database=database)

    assert converted(runtime.rates, 1_000_000).micros == 2_000_000
    with pytest.raises(ValueError, match=r"missing\.yaml cannot be read"):
        compose(Settings(home=tmp_path, rates=tmp_path / "missing.yaml"), database=database)
    database.close()
