"""Asks a question in a thread of its own and waits for the answer only so long: who never answers holds up nobody.

What is asked, and what it means that there is no answer, is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked(Generic[T]):
    """One question under way, or answered."""

    at: datetime
    """As people are told it: by the clock that governs."""
    answer: Future[T] = field(default_factory=Future)
    _began: float = field(default_factory=time.monotonic)

    @property
    def age(self) -> float:
        """Real seconds since it was asked."""
        return time.monotonic() - self._began


def ask(question: Callable[[], T], *, at: datetime, name: str) -> Asked[T]:
    """Asks it at once. The thread is a daemon: the process may end while it still hangs."""
    asked: Asked[T] = Asked(at=at)

    def run() -> None:
        try:
            asked.answer.set_result(question())
        except BaseException as error:  # noqa: BLE001 - whoever takes the answer meets it
            asked.answer.set_exception(error)

    Thread(target=run, name=name, daemon=True).start()
    return asked


def wait_for(questions: Iterable[Asked[T]], *, patience: float, unless: Future[None]) -> None:
    """Until each has been answered or is `patience` seconds old, or nobody wants to wait any more."""
    asked = list(questions)
    while not unless.done():
        waiting = [one for one in asked if not one.answer.done() and one.age < patience]
        if not waiting:
            return
        left = patience - max(one.age for one in waiting)
        woken_by: list[Future[Any]] = [unless, *(one.answer for one in waiting)]
        wait(woken_by, timeout=max(0, left), return_when=FIRST_COMPLETED)
