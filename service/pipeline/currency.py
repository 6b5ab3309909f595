"""Turns money of one currency into another by dated rates a person wrote down. Pure, apart from reading the file once.

Only what is given is used: no inverse, no way round by a third currency. Without a rate there is no answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from service.documents import Currency
from service.pipeline.entries import read_entries

MOST_DIGITS = 18
"""Of a rate; whoever writes more has slipped."""


def _rate(value: Any) -> Decimal:
    try:
        rate = Decimal(value) if isinstance(value, str | int) and not isinstance(value, bool) else Decimal("nan")
    except InvalidOperation:
        rate = Decimal("nan")
    if not rate.is_finite() or rate <= 0:
        raise ValueError(f'{value!r} is no exchange rate; write a number above zero, in quotes, like "1.0842"')
    if len(rate.as_tuple().digits) > MOST_DIGITS or abs(rate.adjusted()) > MOST_DIGITS:
        raise ValueError(f"{value!r} has more than {MOST_DIGITS} digits")
    return rate


class Rate(BaseModel):
    """On and after `as_of`, one unit of `from` is `rate` units of `to`, until a newer rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Currency = Field(alias="from")
    target: Currency = Field(alias="to")
    rate: Annotated[Decimal, BeforeValidator(_rate)]
    as_of: date

    @model_validator(mode="after")
    def _two_currencies(self) -> Rate:
        if self.source == self.target:
            raise ValueError(f"from {self.source} to {self.target} is no exchange")
        return self


@dataclass(frozen=True, kw_only=True)
class Converted:
    """An amount in its new currency, and by which rate."""

    micros: int
    rate: Decimal
    as_of: date


class Rates:
    """All exchange rates this installation knows."""

    def __init__(self, rates: Iterable[Rate] = ()) -> None:
        """Raises ValueError when there are two rates for one pair of currencies and one day."""
        self._rates: dict[tuple[str, str], list[Rate]] = {}
        for rate in sorted(rates, key=lambda rate: rate.as_of):
            known = self._rates.setdefault((rate.source, rate.target), [])
            if known and known[-1].as_of == rate.as_of:
                raise ValueError(f"there are two rates from {rate.source} to {rate.target} as of {rate.as_of}")
            known.append(rate)

    @classmethod
    def read(cls, path: Path) -> Rates:
        """A YAML list of rates. Raises ValueError that names the file, the entry and the field."""
        rates = read_entries(path, Rate, what="file of exchange rates")
        try:
            return cls(rates)
        except ValueError as error:
            raise ValueError(f"the file of exchange rates {path} cannot be used: {error}") from None

    def convert(self, micros: int, frm: str, to: str, on: date) -> Converted | None:
        """By the newest rate on or before the day, to the nearest micro-unit, ties to even. None without a rate."""
        if frm == to:
            return Converted(micros=micros, rate=Decimal(1), as_of=on)
        known = self._rates.get((frm, to), [])
        count = bisect_right(known, on, key=lambda rate: rate.as_of)
        if count == 0:
            return None
        found = known[count - 1]
        return Converted(micros=round(micros * Fraction(found.rate)), rate=found.rate, as_of=found.as_of)
