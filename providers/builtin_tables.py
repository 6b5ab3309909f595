"""Turns the tables that come with a cloud's package into rows. What a row means is that cloud's business."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from importlib.resources import files


def rows(package: str, table: str) -> Iterator[Mapping[str, str]]:
    """Of a CSV file. Its lines that begin with # say where it is from."""
    text = files(package).joinpath(table).read_text("utf-8")
    return csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
