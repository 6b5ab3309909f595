"""Turns how people write durations, shares and money in documents into exact values.

Durations: `45m`, `1h30m`, `PT45M`. Shares need the `%` sign (or are 0..1 where a ratio is asked for). Money is an
integer count of micro-units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    TypeAdapter,
    model_serializer,
    model_validator,
)
from pytimeparse.timeparse import timeparse as parse_words

MICROS = 1_000_000
MAX_MICROS = 2**63 - 1
"""What a database column holds: about nine million million units of money."""
MAX_DURATION = timedelta(days=3660)
"""Ten years; whoever writes more has slipped, and dates would run over."""
_ISO = TypeAdapter(timedelta)
_EXACTLY = Context(traps=[Inexact, InvalidOperation, Overflow])
"""Rounds nothing silently: what six decimals cannot hold is an error."""


def parse_duration(value: Any) -> timedelta:
    """`45m`, `1h30m`, `2d`, `PT45M` → timedelta of whole seconds. A bare number is refused: 45 what?"""
    if isinstance(value, timedelta):
        found: timedelta | None = value
    elif isinstance(value, str):
        found = _read_duration(value.strip())
    else:
        raise ValueError("a duration is written with its unit, like 45m, 1h30m or PT45M")
    if found is None or found < timedelta(0) or found.microseconds:
        raise ValueError(f"{value!r} is no duration; write it like 45m, 1h30m or PT45M, in whole seconds")
    if found > MAX_DURATION:
        raise ValueError(f"{value!r} is longer than {MAX_DURATION.days} days")
    return found


def _read_duration(text: str) -> timedelta | None:
    try:
        if text.upper().startswith("P"):
            return _ISO.validate_python(text.upper())
        seconds = None if re.fullmatch(r"[\d.:]*", text) else parse_words(text)
        return None if seconds is None else timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return None


def format_duration(value: timedelta) -> str:
    """The shortest way to write it that `parse_duration` reads back: `1h30m`."""
    rest = int(value.total_seconds())
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_share(value: Any) -> float:
    """`90%` → 0.9. The sign is needed: is 1 one per cent or all?"""
    if isinstance(value, float) and 0 < value < 1:
        return value  # how we store it ourselves
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError(f"{value!r} is no share; write it with its sign, like 10% (0% to 100%)")
    return float(match[1]) / 100


def format_share(value: float) -> str:
    return f"{value * 100:.6f}".rstrip("0").rstrip(".") + "%"


def parse_ratio(value: Any) -> Any:
    """A number from 0 to 1, as metrics count; whoever writes a share is told the ratio."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match is not None:
        ratio = f"{float(match[1]) / 100:.6f}".rstrip("0").rstrip(".")
        raise ValueError(f"{value!r} is written as a ratio here; did you mean '{ratio}'?")
    if isinstance(value, bool | str):
        raise ValueError(f"{value!r} is no ratio; write a number from 0 to 1, like 0.05")
    return value


def parse_amount(value: Any) -> int:
    """`200`, `"199.95"` → micro-units, exactly. More than six decimals or a non-number is refused."""
    try:
        micros = _EXACTLY.multiply(Decimal(str(value)), MICROS).to_integral_exact(context=_EXACTLY)
        exact = not isinstance(value, bool) and 0 <= micros <= MAX_MICROS
    except ArithmeticError:
        exact = False
    if not exact:
        raise ValueError(f"{value!r} is no amount of money; write a number like 200 or 199.95")
    return int(micros)


def format_amount(micros: int) -> str:
    """Micro-units → decimal text without loss, at least two decimals."""
    sign = "-" if micros < 0 else ""
    whole, fraction = divmod(abs(micros), MICROS)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
"""A length of time in whole seconds."""
Share = Annotated[float, BeforeValidator(parse_share), PlainSerializer(format_share, return_type=str)]
"""0..1, written with `%`."""
Ratio = Annotated[float, BeforeValidator(parse_ratio)]
"""0..1, written as a number."""
AmountMicros = Annotated[int, BeforeValidator(parse_amount), PlainSerializer(format_amount, return_type=str)]
"""Micro-units of the document's currency."""


def _currency_code(value: str) -> str:
    if re.fullmatch("[A-Z]{3}", value):
        return value
    hint = f"; did you mean {value.upper()!r}?" if re.fullmatch("[A-Za-z]{3}", value) else ""
    raise ValueError(f"{value!r} is no currency code of three capital letters, like USD{hint}")


class Money(BaseModel):
    """An amount with its currency, written `{amount: 200, currency: USD}`, or a plain number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: AmountMicros
    currency: Annotated[str, AfterValidator(_currency_code)] | None = None
    """None for a plain number: whatever currency it is compared with."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Money) else {"amount": value}

    @model_serializer
    def _as_written(self) -> str | dict[str, str]:
        amount = format_amount(self.amount)
        return amount if self.currency is None else {"amount": amount, "currency": self.currency}
