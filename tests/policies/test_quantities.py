"""How people write durations, shares and money; and that nothing is rounded or overflows on the way."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.quantities import (
    MAX_DURATION,
    MAX_MICROS,
    Money,
    format_amount,
    format_duration,
    format_share,
    parse_amount,
    parse_duration,
    parse_ratio,
    parse_share,
)

DURATIONS = {
    "45m": 2700,
    "1h30m": 5400,
    " 2d ": 172800,
    "1w": 604800,
    "90s": 90,
    "0s": 0,
    "1.5h": 5400,
    "PT45M": 2700,
    "pt45m": 2700,
    "P1DT1H": 90000,
    "3660d": 316224000,
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_duration(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


NO_DURATIONS = (
    *("", "45", "1:30", "12.5", "-45m", "soon", "0.5s", "P", "PT0.5S", "9" * 30 + "d", "9" * 400 + "h"),
    *("3661d", "PT99999999999999H", timedelta(seconds=-1), timedelta(microseconds=1), timedelta.max),
    *(45, 4.5, None, True),
)


@pytest.mark.parametrize("value", NO_DURATIONS, ids=lambda value: str(value)[:20])
def test_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match=r"duration|longer than 3660 days"):
        parse_duration(value)


@given(st.timedeltas(timedelta(0), MAX_DURATION).map(lambda value: timedelta(seconds=int(value.total_seconds()))))
def test_a_duration_is_read_back_as_it_was_written(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value == parse_duration(value)


@pytest.mark.parametrize(("text", "ratio"), {"90%": 0.9, " 5 % ": 0.05, "100%": 1.0, "0%": 0.0, "12.5%": 0.125}.items())
def test_share(text: str, ratio: float) -> None:
    assert parse_share(text) == ratio
    assert parse_share(format_share(ratio)) == ratio


@pytest.mark.parametrize(
    "value", ["90", "101%", "-1%", "", "%", "1e1%", "9" * 400 + "%", 90, 1, 0, 1.0, 0.0, 2.5, None, True]
)
def test_no_share(value: object) -> None:
    with pytest.raises(ValueError, match="is no share"):
        parse_share(value)


AMOUNTS = {
    "200": 200_000_000,
    200: 200_000_000,
    199.95: 199_950_000,
    "0.000001": 1,
    "1e3": 1_000_000_000,
    "12.0000000": 12_000_000,
    "9223372036854.775807": MAX_MICROS,
}


@pytest.mark.parametrize(("value", "micros"), AMOUNTS.items())
def test_amount(value: object, micros: int) -> None:
    assert parse_amount(value) == micros


NO_AMOUNTS = (
    *("", "free", "-1", -0.5, "0.0000001", "NaN", "sNaN", "Infinity", float("nan"), float("inf"), True, None, [], {}),
    *("9223372036854.775808", "1e30", "1e999999999", "1e-999999999", "123456789012345678901234567890"),
    "0.1234560000000000000000000000000000001",
)


@pytest.mark.parametrize("value", NO_AMOUNTS, ids=str)
def test_no_amount(value: object) -> None:
    with pytest.raises(ValueError, match="is no amount of money"):
        parse_amount(value)


@given(st.integers(0, MAX_MICROS))
def test_an_amount_is_read_back_as_it_was_written_to_the_last_digit(micros: int) -> None:
    assert parse_amount(format_amount(micros)) == micros
    assert Decimal(format_amount(micros)) * 1_000_000 == micros


def test_amounts_are_written_with_two_decimals_at_least() -> None:
    written = [format_amount(micros) for micros in (0, 1, 500_000, 20_000_000, -1_250_000)]
    assert written == ["0.00", "0.000001", "0.50", "20.00", "-1.25"]


@pytest.mark.parametrize(
    ("written", "micros", "currency"),
    [
        pytest.param(200, 200_000_000, None, id="a plain number"),
        pytest.param("199.95", 199_950_000, None, id="a plain number as text"),
        pytest.param({"amount": "0.5", "currency": "EUR"}, 500_000, "EUR", id="with its currency"),
    ],
)
def test_money_is_read_and_written_as_it_was(written: object, micros: int, currency: str | None) -> None:
    money = Money.model_validate(written)
    assert (money.amount, money.currency) == (micros, currency)
    assert Money.model_validate(money.model_dump(mode="json")) == money


@pytest.mark.parametrize(
    "written", [{"currency": "USD"}, {"amount": 1, "currency": "dollars"}, {"amount": 1, "in": "x"}]
)
def test_no_money(written: object) -> None:
    with pytest.raises(ValidationError):
        Money.model_validate(written)


@pytest.mark.parametrize(
    ("written", "says"),
    [("5%", "did you mean '0.05'"), ("12.5 %", "did you mean '0.125'"), ("much", "is no ratio"), (True, "is no ratio")],
)
def test_no_ratio(written: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_ratio(written)


def test_a_ratio_is_a_number() -> None:
    assert [parse_ratio(value) for value in (0.05, 1)] == [0.05, 1]
