"""A question to the past → its report as JSON, for whoever asks: the command, and the service on behalf of people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from policies.policy import BasePolicy, IdlePolicy
from policies.quantities import format_duration
from service.backtest.question import Question
from service.backtest.report import as_json
from service.history.layout import History

Progress = Callable[[float, str], None]
"""Told the share that is done, 0..1, and what is at hand."""


def answer(history: History, question: Question, progress: Progress) -> dict[str, Any]:
    """Raises NotReplayable or ValueError with a sentence."""
    if not history.days():
        raise ValueError("there is no history yet: nothing was recorded or imported")
    from service.backtest.replay import backtest  # with numpy, which nothing else needs

    return marked(as_json(backtest(history, question, progress)), question.policy)


def marked(found: Mapping[str, Any], policy: BasePolicy) -> dict[str, Any]:
    """The report with its policy's own point of the sweep marked as `own`."""
    if found["sweep"] is None or not isinstance(policy, IdlePolicy):
        return dict(found)
    ours = (format_duration(policy.idle.for_), policy.idle.utilisation_below, format_duration(policy.grace))
    points = [
        {**point, "own": (point["for"], point["utilisation_below"], point["grace"]) == ours}
        for point in found["sweep"]["points"]
    ]
    return {**found, "sweep": {**found["sweep"], "points": points}}


def moment_of(text: str) -> datetime:
    """`2026-11-01` (midnight, UTC), `2026-11-01T08:00+07:00`, or without a zone in UTC. Raises ValueError."""
    try:
        found = datetime.fromisoformat(text.strip())
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day there are have no other zone
        example = date(2026, 11, 1).isoformat()
        raise ValueError(f"{text!r} is no date or moment; write it like {example} or {example}T08:00Z") from None


def check_stretch(start: datetime | None, end: datetime | None) -> None:
    """Raises ValueError when it is empty."""
    if start is not None and end is not None and end <= start:
        raise ValueError(f"it would end ({end.isoformat()}) before it begins ({start.isoformat()})")
