"""Runs cycles: on a schedule, on request, never two at once in one process. What is due lives in our tables, so a lost
or doubled run harms nothing.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog
from apscheduler.schedulers.background import BackgroundScheduler

from service.cycle import run_cycle
from service.runtime import Runtime
from service.store.database import trouble_of
from service.store.tables import new_id

log = structlog.get_logger()


class Jobs:
    """The worker of one process."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._lock = threading.Lock()
        self._running: str | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cycle")
        self._scheduler = BackgroundScheduler(timezone="UTC")
        rt.ask_for_cycle = self.request

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
        self._rt.fleet.end()
        self._worker.shutdown(wait=True)

    def request(self, by: str) -> str:
        """Start a cycle, or answer the id of the one that is running."""
        with self._lock:
            if self._running is None:
                self._running = new_id()
                self._worker.submit(self._run, self._running, by)
            return self._running

    def _run(self, cycle_id: str, by: str) -> None:
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
