"""Gives each resource its hourly rate: the price file first, then what its provider quotes. Pure, apart from reading
the file once at start-up. A resource nobody has a price for has none; it never costs zero by omission.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from policies.quantities import parse_amount
from providers.records import Price, ResourceRecord, ResourceRef
from service.documents import Currency


class FilePrice(BaseModel):
    """One line of a price file. Patterns are shell patterns; the first line that fits wins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = "*"
    account: str = "*"
    region: str = "*"
    sku: str = "*"
    capacity_type: str = "*"
    gpu_model: str = "*"
    hourly: Annotated[int, BeforeValidator(parse_amount)] = Field(description="for the whole resource")
    currency: Currency = "USD"
    as_of: date

    def fits(self, record: ResourceRecord) -> bool:
        wanted = (
            (record.ref.provider, self.provider),
            (record.ref.account, self.account),
            (record.ref.region, self.region),
            (record.sku, self.sku),
            (record.capacity_type.value, self.capacity_type),
            (record.gpu_model or "", self.gpu_model),
        )
        return all(fnmatchcase(value, pattern) for value, pattern in wanted)


class PriceFile:
    """The prices a person wrote down; they win over list prices."""

    def __init__(self, lines: Sequence[FilePrice] = (), *, name: str = "") -> None:
        self._lines = lines
        self._name = name

    @classmethod
    def read(cls, path: Path) -> PriceFile:
        """A YAML list of prices. Raises ValueError naming the file and the entry."""
        try:
            lines = TypeAdapter(tuple[FilePrice, ...]).validate_python(yaml.safe_load(path.read_text()) or ())
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise ValueError(f"the price file {path} cannot be used: {error}") from error
        return cls(lines, name=path.name)

    def quote(self, record: ResourceRecord) -> Price | None:
        line = next((line for line in self._lines if line.fits(record)), None)
        if line is None:
            return None
        source = f"file {self._name}, {line.as_of.isoformat()}"
        return Price(rate_micros=line.hourly, currency=line.currency, source=source)


def price_of(record: ResourceRecord, file: PriceFile, quoted: Mapping[ResourceRef, Price]) -> Price | None:
    """The running rate of a resource, or None when nobody knows it."""
    return file.quote(record) or quoted.get(record.ref)
