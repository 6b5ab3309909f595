"""What a cycle does, step by step: for the row it becomes, and, while it runs, how far each of its sources is.

Kept in the memory of the process that runs it; what another process runs is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from providers.progress import Progress, progress_of
from service.fleet import Member


@dataclass
class Report:
    """What a cycle did, and does."""

    cycle: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    under_way: str | None = None
    """The step that has begun and not ended."""

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a step; what it says of itself goes into `summary`."""
        said: dict[str, Any] = {"step": name, "summary": ""}
        self.under_way = name
        began = time.monotonic()
        try:
            yield said
        finally:
            said["seconds"] = round(time.monotonic() - began, 4)
            self.steps.append(said)
            self.under_way = None


@dataclass(frozen=True, kw_only=True)
class Awaited:
    """A question that a source still owes an answer to, maybe since an earlier cycle."""

    about: str
    """`listing`, `prices` or `telemetry`."""
    since: datetime


@dataclass(frozen=True, kw_only=True)
class SourceProgress:
    """How far one source is."""

    source: str
    awaited: tuple[Awaited, ...]
    """None: it has answered whatever it has been asked."""
    parts: Progress | None
    """Of its listing; None when its provider does not tell."""
    fault: str | None
    """Why it cannot be asked at all."""


def progress(members: Iterable[Member]) -> list[SourceProgress]:
    """How far each source is at this moment. Asks no cloud."""
    return [
        SourceProgress(
            source=member.source.name,
            awaited=tuple(
                Awaited(about=about, since=question.at)
                for about, question in member.asked.copy().items()  # the cycle goes on meanwhile
                if not question.answer.done()
            ),
            parts=progress_of(member.provider.inventory) if member.provider and member.provider.inventory else None,
            fault=member.fault.sentence if member.fault else None,
        )
        for member in members
    ]
