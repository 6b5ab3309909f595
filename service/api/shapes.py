"""The words and shapes that several answers and requests share: pages, money, moments, texts."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from policies.quantities import parse_duration
from service.api.problems import Problem

Item = TypeVar("Item")

Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
ANY_OF = Query(default_factory=list)
"""A filter that may be repeated: any of its values will do."""
Words = Annotated[list[str], ANY_OF]
Limit = Annotated[int, Query(ge=1, le=500, description="how many at most")]


class Shape(BaseModel):
    """A request or an answer; what is said below a field is in OpenAPI."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Listing(Shape, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None
    """Cursor of the next page; null on the last one."""


class Money(Shape):
    """Exact: 1,000,000 micro-units are one whole unit."""

    amount_micros: int
    currency: str


def money(micros: int | None, currency: str | None) -> Money | None:
    return None if micros is None or currency is None else Money(amount_micros=micros, currency=currency)


def _plain(text: str) -> str:
    if any(character == "\x00" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds a character that is no text")
    return text.strip()


Reason = Annotated[str, AfterValidator(_plain), Field(min_length=1, max_length=1000)]
"""Why; it is kept in the audit log."""


def _length(value: Any) -> timedelta:
    """Bounded, so that adding it to any date of ours stays within the calendar."""
    try:
        length = parse_duration(value)
    except OverflowError:
        length = timedelta.max
    if not timedelta(0) < length <= timedelta(days=366):
        raise ValueError("must be longer than nothing and at most 366 days")
    return length


Length = Annotated[
    timedelta,
    BeforeValidator(_length),
    Field(json_schema_extra={"type": "string", "format": "", "examples": ["4h", "1h30m"]}),
]
"""How long, written like `4h`."""


class Until(Shape):
    """`for` a while or `until` a moment."""

    model_config = ConfigDict(extra="forbid")

    for_: Length | None = Field(None, alias="for")
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _not_both(self) -> Until:
        if self.for_ is not None and self.until is not None:
            raise ValueError("give `for` or `until`, not both")
        return self

    def end(self, now: datetime) -> datetime | None:
        """The moment meant; None when neither was given."""
        if self.for_ is not None:
            return now + self.for_
        if self.until is None:
            return None
        if not now < self.until <= now + timedelta(days=366):
            raise Problem(422, "InvalidRequest", f"until: must lie within the 366 days after {now.isoformat()}")
        return self.until
