"""Works out the back-tests that a service is asked for: one after the other, in a thread of its own.

What was asked and what came of it are rows (`service.store.backtests`). No transaction is open while one is worked out,
and none outlives the process: what it leaves undone has failed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from service.backtest.answer import Progress, answer
from service.backtest.question import Question
from service.clock import Clock
from service.history.layout import History
from service.store import backtests
from service.store.database import Database

log = structlog.get_logger()

MOST_WAITING = 8
"""Beside the one that is worked out: who comes later is told to come again."""
MOST_STOPS = 100_000
"""In a report that is kept: some 300 bytes each, in the database and in each answer."""
TELL_EVERY = 0.5
"""Seconds between two notes of how far it is."""
LETS_GO = 5.0
"""Seconds that a stop waits for the one under way."""

STOPPED = "the service was stopped while it was under way; ask again"
BROKE_OFF = "it broke off; the service's log says why"

Answer = Callable[[History, Question, Progress], dict[str, Any]]


class Stopped(Exception):
    """Nobody waits for it any more."""


class Backtests:
    """The queue of one process."""

    def __init__(self, database: Database, clock: Clock, *, location: str, holder: str, work: Answer = answer) -> None:
        self.location = location
        """Of the history; empty: there is none."""
        self._database, self._clock, self._holder, self._work = database, clock, holder, work
        self._waiting: deque[tuple[str, Question]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._under_way: str | None = None
        self._stopping = threading.Event()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= MOST_WAITING

    def add(self, id: str, question: Question) -> None:
        """Its row is there: it is worked out when its turn comes."""
        with self._lock:
            self._waiting.append((id, question))
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="back-tests", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """What is not done by now has failed. The one under way is let go of at the next sign it gives."""
        with self._lock:
            self._stopping.set()
            left = [id for id, _ in self._waiting]
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join(LETS_GO)
        left += [self._under_way] if self._under_way is not None else []
        for id in left:
            self._fail(id, STOPPED)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                id, question = self._waiting.popleft()
                self._under_way = id
            try:
                self._one(id, question)
            except Exception:  # one failure sinks nothing else: the database may be back for the next
                log.exception("a back-test broke off", backtest=id)
            finally:
                self._under_way = None

    def _one(self, id: str, question: Question) -> None:
        with self._database.transaction() as session:
            if not backtests.start(session, id, now=self._clock.now()):
                return
        try:
            report = self._work(History(self.location), question, self._teller(id))
            _check_length(report)
        except Stopped:
            self._fail(id, STOPPED)
        except ValueError as error:  # it cannot be replayed, and why
            self._fail(id, str(error))
        except Exception:
            log.exception("a back-test broke off", backtest=id)
            self._fail(id, BROKE_OFF)
        else:
            with self._database.transaction() as session:
                backtests.finish(session, id, report, now=self._clock.now())

    def _teller(self, id: str) -> Progress:
        """Notes how far it is, now and then, and that those who wait are not forgotten. Raises Stopped."""
        last = float("-inf")

        def tell(share: float, words: str) -> None:
            nonlocal last
            if self._stopping.is_set():
                raise Stopped
            if time.monotonic() - last < TELL_EVERY:
                return
            with self._database.transaction() as session:
                wanted = backtests.progress(session, id, share, words)
                backtests.alive(session, self._holder)
            if not wanted:
                raise Stopped
            last = time.monotonic()

        return tell

    def _fail(self, id: str, reason: str) -> None:
        with self._database.transaction() as session:
            backtests.fail(session, id, reason, now=self._clock.now())


def _check_length(report: Mapping[str, Any]) -> None:
    if len(report["stops"]) > MOST_STOPS:
        raise ValueError(
            f"it would have stopped {len(report['stops']):,} times, and a service keeps no report of more than "
            f"{MOST_STOPS:,}; ask of a shorter time or of one project, or offline with `--history`"
        )
