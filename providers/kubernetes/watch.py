"""Keeps one kind of object in memory, slimmed: listed page by page once, and from then on told by a watch.

What is kept of an object is `translate`'s business; which kinds there are, `inventory`'s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.errors import ProviderError, Unreachable
from providers.kubernetes.client import JSON, METADATA, METADATA_LIST, Client, Gone, Stream

Json = dict[str, Any]
Keep = Callable[[Json], Json | None]
"""What is kept of an object; None where it is none of our business."""
Told = Callable[[Json | None, Json | None], None]
"""Hears of each event what was kept of its object before, and what is now."""


def _nobody(_before: Json | None, _after: Json | None) -> None:
    """Most only want to know what there is when they look."""


WATCH_SECONDS = 300
"""After this the API server ends a watch, and it is asked for again: connections wander between its replicas."""
STALE_SECONDS = 150.0
"""What was not confirmed for longer is not known. Without a word for 90 seconds a connection is given up before."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Between attempts that fail; doubled each time. Who looks meanwhile ends the pause."""
SHORT_SECONDS = 1.0
"""A watch that ends sooner, and said nothing, was worth nothing; where it is always so, it is asked for less often."""


class Contents:
    """What lists and events have told so far. No network, no thread, no clock."""

    def __init__(self, keep: Keep) -> None:
        self.objects: dict[str, Json] = {}
        """By uid."""
        self.version: str | None = None
        """Where to watch from; None until a list is complete, and when the API server no longer knows it."""
        self._keep = keep
        self._coming: dict[str, Json] = {}

    def begin(self) -> None:
        """A list starts, or starts over. Until it is complete the earlier objects stand."""
        self._coming = {}

    def page(self, page: Mapping[str, Any]) -> None:
        """One page of it; after the last one the list is complete."""
        for item in page.get("items") or ():
            kept = self._keep(item)
            if kept is not None:
                self._coming[item["metadata"]["uid"]] = kept
        metadata = page["metadata"]
        if not metadata.get("continue"):
            self.objects, self._coming = self._coming, {}
            self.version = metadata["resourceVersion"]

    def event(self, event: Mapping[str, Any]) -> tuple[Json | None, Json | None]:
        """One event of the watch: what was kept of its object, and what is now. Raises Gone or Unreachable when that is
        the end of it: a new list is needed."""
        thing = event["object"]
        if event["type"] == "ERROR":
            self.forget_version()
            raise _failure(thing)
        metadata = thing["metadata"]
        before = kept = None
        if event["type"] != "BOOKMARK":
            before = self.objects.pop(metadata["uid"], None)
            kept = None if event["type"] == "DELETED" else self._keep(thing)
            if kept is not None:
                self.objects[metadata["uid"]] = kept
        self.version = metadata["resourceVersion"]
        return before, kept

    def forget_version(self) -> None:
        """Nothing can be watched from here: only a new list helps."""
        self.version = None


def _failure(status: Mapping[str, Any]) -> ProviderError | Gone:
    if status.get("code") == 410 or status.get("reason") in ("Expired", "Gone"):
        return Gone(str(status.get("message")))
    return Unreachable(f"a watch failed: {status.get('message') or status.get('reason')}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a collection holds, and why that may not be all."""

    objects: Mapping[str, Json]
    fault: ProviderError | None


class Watched:
    """One collection, followed in a thread of its own from the first look on."""

    def __init__(
        self,
        client: Client,
        path: str,
        keep: Keep,
        *,
        name: str = "",
        metadata_only: bool = False,
        lists_at_once: threading.Semaphore | None = None,
        clock: Callable[[], float] = time.monotonic,
        told: Told = _nobody,
    ) -> None:
        self.path = path
        self._client = client
        self._name = name or path
        self._metadata_only = metadata_only
        self._lists_at_once = lists_at_once or threading.Semaphore()
        self._clock = clock
        self._told = told
        self._changed = threading.Condition()
        """Guards everything below."""
        self._contents = Contents(keep)
        self._thread: threading.Thread | None = None
        self._stream: Stream | None = None
        """While it stands, the contents are the cluster's."""
        self._confirmed = clock()
        """When something last proved that it stands."""
        self._failures = 0
        """Attempts that failed, ever."""
        self._fault: ProviderError | None = None
        """Why the last one did."""
        self._hurry = False
        self._closed = False

    def begin(self) -> None:
        """Listing starts now, if it has not; `look` waits for it."""
        with self._changed:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._follow, name=self._name, daemon=True)
                self._thread.start()

    @property
    def answered(self) -> bool:
        """Whether it was listed, or could not be."""
        with self._changed:
            return self._known() or self._fault is not None

    def look(self, *, patience: float) -> Look:
        """What is there now. Where that is not known it is tried at once, and waited for only so long."""
        self.begin()
        with self._changed:
            if self._stream is not None and not self._known():
                self._contents.forget_version()  # silent for too long: nothing it says is trusted before a new list
                self._hang_up()
            if not self._known():
                before = self._failures
                self._hurry = True
                self._changed.notify_all()
                told = lambda: self._known() or self._failures > before or self._closed  # noqa: E731
                self._changed.wait_for(told, timeout=patience)
            fault = None
            if not self._known():
                fault = self._fault or Unreachable(f"{self.path} was not listed within {patience:g} s")
            return Look(objects=dict(self._contents.objects), fault=fault)

    def close(self) -> None:
        """Ends following; never waits."""
        with self._changed:
            self._closed = True
            self._hang_up()
            self._changed.notify_all()

    def _known(self) -> bool:
        return self._stream is not None and self._clock() - self._confirmed <= STALE_SECONDS

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    # The thread

    def _follow(self) -> None:
        idle = 0
        """Attempts in a row that were worth nothing."""
        while not self._closed:
            fault: ProviderError | None = None
            worth = False
            try:
                if self._contents.version is None:
                    self._list()
                worth = not self._closed and self._watch()
            except Gone:  # as it goes when nothing was heard of for a while; the new list will do
                self._contents.forget_version()
                fault = Unreachable(f"{self.path} changes faster than it can be listed") if idle else None
            except ProviderError as error:
                fault = error
            except Exception as error:  # noqa: BLE001 - an object nobody foresaw must not end the thread unseen
                self._contents.forget_version()
                fault = Unreachable(f"{self.path} holds something that cannot be read: {error!r}")
            idle = 0 if worth else idle + 1
            if fault is not None or idle > 1:
                self._rest(fault, min(PAUSE_SECONDS * 2 ** min(idle - 1, 10), LONGEST_PAUSE_SECONDS))

    def _rest(self, fault: ProviderError | None, seconds: float) -> None:
        with self._changed:
            if fault is not None:
                self._fault = fault
                self._failures += 1
                self._hurry = False  # who waited has his answer
                seconds = max(seconds, fault.retry_after or 0.0)
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._hurry or self._closed, timeout=seconds)
            self._hurry = False

    def _list(self) -> None:
        with self._lists_at_once:
            self._contents.begin()
            for page in self._client.pages(self.path, accept=METADATA_LIST if self._metadata_only else JSON):
                with self._changed:
                    self._contents.page(page)

    def _watch(self) -> bool:
        """Until the connection ends: whether it told something, or stood for a while. Where it broke off is known, so
        that is no failure."""
        version = self._contents.version
        assert version is not None, "a list that is complete has a version"
        stream = self._client.watch(
            self.path,
            query={"resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": WATCH_SECONDS},
            accept=METADATA if self._metadata_only else JSON,
        )
        began = self._clock()
        told = False
        try:
            with self._changed:
                self._stream, self._confirmed, self._fault = stream, began, None
                if self._closed:
                    self._hang_up()
                self._changed.notify_all()
            for event in stream:
                with self._changed:
                    if self._stream is not stream:
                        return False  # given up
                    before, after = self._contents.event(event)
                    self._confirmed = self._clock()
                told = True
                self._told(before, after)
        except Unreachable:
            if self._contents.version is None and self._stream is stream:
                raise
        finally:
            with self._changed:
                if self._stream is stream:
                    self._stream = None
            stream.close()
        return told or self._clock() - began > SHORT_SECONDS
