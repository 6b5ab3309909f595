"""Runs cycles: on a schedule, on request, never two at once in one process; and between them sums up what has ended and
lets go of what is old. What is due lives in our tables, so a lost or doubled run harms nothing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from service.cycle import run_cycle
from service.history.compact import Compactor
from service.holder import is_gone
from service.runtime import Runtime
from service.settings import Settings
from service.store import lease, retention
from service.store.database import trouble_of
from service.store.retention import Keep
from service.store.tables import new_id

log = structlog.get_logger()
LET_GO_EVERY = timedelta(hours=1)
"""By the clock that governs; what has ended is summed up after every cycle."""
LOOKS_AGAIN_SECONDS = 0.1
"""Whether the cycle is over that a cycle before its time waits for."""
SPARED_SECONDS = 10.0
"""As much rest is put by while nothing runs: what changes now and then is looked at at once."""
AT_MOST_SECONDS = 10.0
"""Of real time for either: the next cycle waits for it, and what is left over is done after that one."""


class Jobs:
    """The worker of one process."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._lock = threading.Lock()
        self._running: str | None = None
        self._let_go_at: datetime | None = None
        self._compactor = Compactor(rt.history) if rt.history is not None else None
        self._compacted_at: datetime | None = None
        self._stopping = threading.Event()
        self._next: threading.Timer | None = None
        """A cycle before its time."""
        self._rested_at = 0.0
        """From when on such a one may begin."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cycle")
        self._scheduler = BackgroundScheduler(timezone="UTC")
        rt.ask_for_cycle = self.request
        rt.fleet.changed = self.soon

    def start(self) -> None:
        """Begin the schedule, with a first cycle at once; with CURFEW_CYCLE_SECONDS=0 only requests run."""
        seconds = self._rt.settings.cycle_seconds
        if seconds > 0:
            self._scheduler.add_job(
                self.request, "interval", args=["schedule"], seconds=seconds, max_instances=1, coalesce=True
            )
            self._scheduler.start()
            self.request("schedule")

    def stop(self) -> None:
        """End the schedule and let a running cycle finish, without what has not been answered by now."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._stopping.set()
        with self._lock:
            if self._next is not None:
                self._next.cancel()
        self._rt.fleet.end()
        self._worker.shutdown(wait=True)
        self._close_history()

    def _close_history(self) -> None:
        """What is not written yet of what was seen, if nobody else governs meanwhile."""
        rt = self._rt
        if rt.recorder is None:
            return
        try:
            with rt.database.transaction() as session:
                held = lease.take(session, rt.holder, is_gone=is_gone)
            if held is None:
                return
            rt.recorder.close(rt.clock.now())
            with rt.database.transaction() as session:
                lease.release(session, held)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is not None:
                log.error("the last of history could not be written", reason=trouble)
            else:
                log.exception("the last of history could not be written")

    def request(self, by: str) -> str:
        """Start a cycle, or answer the id of the one that is running."""
        with self._lock:
            if self._running is None:
                self._running = new_id()
                self._worker.submit(self._run, self._running, by)
            return self._running

    def soon(self, by: str) -> None:
        """A cycle before its time, once the present one is over and has been rested from. Of many such wishes one."""
        if self._rt.settings.cycle_seconds <= 0:
            return
        with self._lock:
            if self._next is None:
                self._wait(self._rested_at - time.monotonic(), by)

    def _wait(self, seconds: float, by: str) -> None:
        """With the lock held."""
        if not self._stopping.is_set():
            self._next = threading.Timer(max(0.0, seconds), self._early, [by])
            self._next.daemon = True
            self._next.start()

    def _early(self, by: str) -> None:
        with self._lock:
            self._next = None
            rest = self._rested_at - time.monotonic()
            if self._running is not None:  # it may have looked before the change
                rest = max(rest, LOOKS_AGAIN_SECONDS)
            if rest > 0:
                self._wait(rest, by)
                return
        if not self._stopping.is_set():
            self.request(by)

    def _run(self, cycle_id: str, by: str) -> None:
        began = time.monotonic()
        try:
            run_cycle(self._rt, cycle_id=cycle_id, requested_by=by)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is not None:
                log.error("a cycle could not even be reported", cycle=cycle_id, reason=trouble)
            else:
                log.exception("a cycle could not even be reported", cycle=cycle_id)
        finally:
            with self._lock:
                self._running = None
                self._rested_at = rested_at(self._rested_at, began, time.monotonic())
        try:
            self._tidy()
        except lease.LeaseLost:
            pass  # whoever governs now does it
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is not None:
                log.error("what has ended could not be summed up or let go of", reason=trouble)
            else:
                log.exception("what has ended could not be summed up or let go of")

    def _tidy(self) -> None:
        """Under the lease, like a cycle: nobody else does the same at the same time."""
        rt, now = self._rt, self._rt.clock.now()
        with rt.database.transaction() as session:
            held = lease.take(session, rt.holder, is_gone=is_gone)
        if held is None:
            return
        try:
            retention.count(rt.database, held, now, enough=self._enough())
            if _due(self._let_go_at, now):
                self._let_go(held, now)
            if self._compactor is not None and _due(self._compacted_at, now):
                self._compact(self._compactor, held, now)
        finally:
            with rt.database.transaction() as session:
                lease.release(session, held)

    def _let_go(self, held: lease.Held, now: datetime) -> None:
        """What there is no time for is gone on with after the next cycle."""
        enough = self._enough()
        gone = retention.let_go(self._rt.database, held, _keep(self._rt.settings), now, enough=enough)
        more = enough()
        if gone:
            log.info("let go of what is old", more=more, **_in_words(gone))
        self._let_go_at = None if more else now

    def _compact(self, compactor: Compactor, held: lease.Held, now: datetime) -> None:
        """The same with files of history."""

        def still_ours() -> None:
            with self._rt.database.transaction() as session:
                lease.renew(session, held)

        days = self._rt.settings.history_days
        keep = timedelta(days=days) if days else None
        enough = self._enough()
        done = compactor.tidy(now, keep=keep, enough=enough, still_ours=still_ours)
        if done:
            log.info("tidied up history", **_in_words(done))
        self._compacted_at = None if enough() else now

    def _enough(self) -> Callable[[], bool]:
        until = time.monotonic() + AT_MOST_SECONDS
        return lambda: self._stopping.is_set() or time.monotonic() >= until


def _due(last: datetime | None, now: datetime) -> bool:
    return last is None or not timedelta(0) <= now - last < LET_GO_EVERY


def rested_at(before: float, began: float, ended: float) -> float:
    """When a cycle will have been rested from: for as long as it took, less what was put by before it."""
    took = ended - began
    return min(max(before, began - SPARED_SECONDS) + 2 * took, ended + took)


def _keep(settings: Settings) -> Keep:
    def days(count: int) -> timedelta | None:
        return timedelta(days=count) if count else None

    return Keep(
        findings=days(settings.retention_findings_days),
        meter=days(settings.retention_meter_days),
        resources=days(settings.retention_resources_days),
        audit=days(settings.retention_audit_days),
        cycles=settings.retention_cycles,
    )


def _in_words(gone: Counter[str]) -> dict[str, int]:
    return {name.replace(" ", "_"): number for name, number in gone.items()}
