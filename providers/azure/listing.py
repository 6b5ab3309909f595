"""Turns a list of the Resource Manager into what is in it, and into what could not be read of it.

What the things in it mean is `translate`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

from providers.azure import translate
from providers.azure.client import Client, Query
from providers.errors import ProviderError
from providers.questions import readable
from providers.records import Fault

Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """What a list told, as it was told."""

    answers: Sequence[Answer] = ()
    complete: bool = True
    fault: Fault | None = None


def items(client: Client, path: str, *, version: str, query: Query | None = None) -> Iterator[Answer]:
    """Those before an error are valid, but not all. A list that moves while it is read may tell of one twice."""
    told = set[str]()
    for page in client.pages(path, version=version, query=query):
        for answer in page["value"]:
            key = translate.folded(str(answer.get("id") or ""))
            if not key or key not in told:
                told.add(key)
                yield answer


def listed(client: Client, path: str, *, version: str, query: Query | None = None) -> Listed:
    """As far as it could be read. Raises when nothing could."""
    answers: MutableSequence[Answer] = []
    try:
        with readable(path):
            for answer in items(client, path, version=version, query=query):
                answers.append(answer)
    except ProviderError as error:
        if not answers:
            raise
        return Listed(answers=answers, complete=False, fault=error.as_fault())
    return Listed(answers=answers)
