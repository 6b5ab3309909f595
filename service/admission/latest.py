"""Keeps the newest snapshot at hand: asked for again and again in a thread, swapped whole. Without one, or with one
that is too old, nobody is judged.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydantic import ValidationError

from service.admission.judge import Judge
from service.admission.snapshot import Snapshot
from service.client import Client, Failure

log = structlog.get_logger()

PATH = "/admission/snapshot"
EVERY_SECONDS = 5.0
OLDEST = timedelta(minutes=15)
"""A snapshot tells of money and machines of its moment; one that is older tells too little to refuse anything."""


class Unfit(Exception):
    """A snapshot that cannot be judged on here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is known just now, whole: whoever judges takes one of these and sees no other."""

    judge: Judge | None = None
    etag: str | None = None
    trouble: str | None = "no snapshot has come yet"
    """What went wrong when it was last asked for."""


class Latest:
    """The newest snapshot of one installation, for one cluster."""

    def __init__(self, client: Client, source: str | None, now: Callable[[], datetime]) -> None:
        self._client = client
        self._source = source
        self.now = now
        self._held = Held()

    def judge(self) -> Judge | None:
        """Ready to judge, or None: then everything is let in."""
        judge = self._held.judge
        return judge if judge is not None and self.now() - judge.snapshot.at <= OLDEST else None

    @property
    def at(self) -> datetime | None:
        """Of when the snapshot is that is held."""
        judge = self._held.judge
        return judge.snapshot.at if judge is not None else None

    @property
    def trouble(self) -> str | None:
        """Why nobody is judged; None: everybody is."""
        if self.judge() is not None:
            return None
        held = self._held
        if held.judge is None:
            return held.trouble
        why = f": {held.trouble}" if held.trouble else ""
        return f"the last snapshot is of {held.judge.snapshot.at.isoformat()}, more than {OLDEST} ago{why}"

    def refresh(self) -> None:
        """Ask once. What goes wrong is kept as a sentence and harms nothing that is held."""
        before = self._held
        try:
            answer = self._client.unless(PATH, before.etag)
            if answer is None:
                self._held = Held(judge=before.judge, etag=before.etag, trouble=None)
            else:
                etag, body = answer
                self._held = Held(judge=self._newer(before.judge, body), etag=etag, trouble=None)
                if before.judge is None:
                    gc.collect()
                    gc.freeze()  # all that is there now stays; looking through it again and again holds up reviews
        except (Failure, Unfit) as error:
            self._held = Held(judge=before.judge, etag=before.etag, trouble=str(error))
        if self._held.trouble != before.trouble:
            if self._held.trouble is None:
                log.info("a snapshot is here", at=str(self.at))
            else:
                log.warning("no new snapshot", reason=self._held.trouble)

    def _newer(self, before: Judge | None, body: bytes) -> Judge:
        """Of several replicas only one has looked last: an older look is no news."""
        snapshot = read(body)
        if before is not None and snapshot.at < before.snapshot.at:
            return before
        return Judge(snapshot, cluster_of(snapshot, self._source))


def read(body: bytes) -> Snapshot:
    """A snapshot as it was sent. Raises Unfit."""
    try:
        return Snapshot.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise Unfit(f"the snapshot cannot be read, is the service of another version? {what}") from None


def cluster_of(snapshot: Snapshot, source: str | None) -> str:
    """The source that is meant. Raises Unfit."""
    there = sorted(snapshot.clusters)
    if source is not None:
        if source not in snapshot.clusters:
            raise Unfit(f"there is no Kubernetes source {source!r} that has answered; there are {there}")
        return source
    if not there:
        raise Unfit("no Kubernetes source has answered yet")
    if len(there) > 1:
        raise Unfit(f"which cluster is this? --source names one of {there}")
    return there[0]


class Refreshing:
    """Asks in a thread, as long as it is entered. `beside` is done as often."""

    def __init__(self, latest: Latest, beside: Callable[[], None], every: float = EVERY_SECONDS) -> None:
        self._latest = latest
        self._beside = beside
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """An answer that is still awaited is not waited for."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._latest.refresh()
                self._beside()
            except Exception:
                log.exception("a snapshot was not taken over")
            self._ended.wait(self._every)
