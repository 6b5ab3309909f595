"""One kind of object stays as the cluster has it: through lists that start over, watches that die, and silence."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import Forbidden, ProviderError, Throttled, Unreachable
from providers.kubernetes import watch as module
from providers.kubernetes.client import Client, Gone
from providers.kubernetes.watch import Contents, Json, Watched
from tests.kubernetes.cluster import Cluster
from tests.providers.kubernetes.front import NO_ANSWER, Call, Front, Reply, refused

PATH = "/api/v1/configmaps"


def thing(uid: str, version: int, *, ours: bool = True) -> Json:
    metadata = {"uid": uid, "name": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, "ours": ours, "managedFields": "much that nobody needs"}


def keep(found: Json) -> Json | None:
    return (
        {"name": found["metadata"]["name"], "version": found["metadata"]["resourceVersion"]} if found["ours"] else None
    )


@dataclass
class Store:
    """A collection as an API server has it: its objects, every event that ever was, and since when it remembers."""

    objects: dict[str, Json] = field(default_factory=dict)
    events: list[tuple[int, Json]] = field(default_factory=list)
    version: int = 1
    remembers_since: int = 0

    def put(self, uid: str, *, ours: bool) -> None:
        self.version += 1
        kind = "MODIFIED" if uid in self.objects else "ADDED"
        self.objects[uid] = thing(uid, self.version, ours=ours)
        self.events.append((self.version, {"type": kind, "object": self.objects[uid]}))

    def delete(self, uid: str) -> None:
        if uid in self.objects:
            self.version += 1
            last = thing(uid, self.version, ours=self.objects.pop(uid)["ours"])
            self.events.append((self.version, {"type": "DELETED", "object": last}))

    def forget(self) -> None:
        """Compaction: what was before can no longer be watched from."""
        self.remembers_since = self.version

    def bookmark(self) -> Json:
        return {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}}

    def pages(self, size: int) -> list[Json]:
        items = list(copy.deepcopy(self.objects).values())
        cut = [items[at : at + size] for at in range(0, len(items), size)] or [[]]
        return [
            {"metadata": {"resourceVersion": str(self.version), "continue": "" if last else "more"}, "items": page}
            for number, page in enumerate(cut)
            for last in [number == len(cut) - 1]
        ]

    def since(self, version: str) -> list[Json]:
        if int(version) < self.remembers_since:
            raise Gone("too old resource version")
        return [event for at, event in self.events if at > int(version)]

    def kept(self) -> dict[str, Json]:
        return {uid: slim for uid, found in self.objects.items() if (slim := keep(found)) is not None}


UIDS = st.sampled_from("abcde")
CHANGES = st.one_of(
    st.tuples(st.just("put"), UIDS, st.booleans()),
    st.tuples(st.just("delete"), UIDS),
    st.tuples(st.just("forget")),
)


def change(store: Store, step: tuple[Any, ...]) -> None:
    match step:
        case ("put", uid, ours):
            store.put(uid, ours=ours)
        case ("delete", uid):
            store.delete(uid)
        case _:
            store.forget()


class TestContents:
    @given(
        rounds=st.lists(
            st.tuples(
                st.lists(CHANGES, max_size=6),
                st.integers(1, 3).map(lambda size: size),
                st.integers(0, 8),
                st.booleans(),
                st.booleans(),
            ),
            max_size=8,
        )
    )
    def test_a_watch_that_dies_and_resumes_anywhere_ends_in_the_same_objects(
        self, rounds: list[tuple[list[tuple[Any, ...]], int, int, bool, bool]]
    ) -> None:
        """Each round: the cluster changes; then as many pages or events are heard as there is time for, before the
        connection dies: in the middle of a list, between events, after a bookmark, or not at all."""
        store, contents = Store(), Contents(keep)
        for changes, page_size, heard, bookmarked, repeated in rounds:
            for step in changes:
                change(store, step)
            follow(store, contents, page_size=page_size, heard=heard, bookmarked=bookmarked, repeated=repeated)
        follow(store, contents, page_size=2, heard=10_000, bookmarked=True, repeated=False)

        assert contents.objects == store.kept()

    @given(before=st.lists(CHANGES, max_size=8), after=st.lists(CHANGES, max_size=8), pages=st.integers(0, 2))
    def test_a_list_that_starts_over_leaves_nothing_of_its_first_pages(
        self, before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], pages: int
    ) -> None:
        store, contents = Store(), Contents(keep)
        for step in before:
            change(store, step)
        contents.begin()
        for page in store.pages(2)[:-1][:pages]:
            contents.page(page)
        assert contents.objects == {}, "half a list is none"
        for step in after:
            change(store, step)

        contents.begin()
        for page in store.pages(3):
            contents.page(page)

        assert contents.objects == store.kept()
        assert contents.version == str(store.version)

    def test_what_is_no_longer_ours_is_forgotten(self) -> None:
        store, contents = Store(), Contents(keep)
        store.put("a", ours=True)
        follow(store, contents, page_size=5, heard=5, bookmarked=False, repeated=False)
        store.put("a", ours=False)

        follow(store, contents, page_size=5, heard=5, bookmarked=False, repeated=False)

        assert contents.objects == {}

    @pytest.mark.parametrize(
        ("status", "expected"),
        [
            ({"code": 410, "reason": "Expired", "message": "too old resource version"}, Gone),
            ({"code": 500, "reason": "InternalError", "message": "etcd is not well"}, Unreachable),
        ],
    )
    def test_an_error_among_the_events_asks_for_a_new_list(
        self, status: Mapping[str, Any], expected: type[Exception]
    ) -> None:
        contents = Contents(keep)
        contents.page(Store().pages(1)[0])

        with pytest.raises(expected):
            contents.event({"type": "ERROR", "object": status})

        assert contents.version is None


def follow(store: Store, contents: Contents, *, page_size: int, heard: int, bookmarked: bool, repeated: bool) -> None:
    """As the thread does, with `heard` pages and events before the connection dies."""
    left = heard
    if contents.version is not None:
        try:
            store.since(contents.version)
        except Gone:
            contents.forget_version()
    if contents.version is None:
        contents.begin()
        for page in store.pages(page_size):
            if left == 0:
                return
            left -= 1
            contents.page(page)
    assert contents.version is not None
    for event in store.since(contents.version):
        if left == 0:
            return
        left -= 1
        for _ in range(1 + repeated):  # an event that comes twice does no harm
            contents.event(event)
    if bookmarked:
        contents.event(store.bookmark())


# The thread, against a client that does what it is told.

Act = Callable[[], Any]


class FakeStream:
    def __init__(self, *acts: Json | ProviderError | Gone) -> None:
        self._acts = acts
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[Json]:
        for act in self._acts:
            if isinstance(act, Exception):
                raise act
            yield act
        self.closed.wait(10)

    def close(self) -> None:
        self.closed.set()


class Ending(FakeStream):
    def __iter__(self) -> Iterator[Json]:
        for act in self._acts:
            if isinstance(act, Exception):
                raise act
            yield act


class FakeClient:
    """Answers lists and watches one after the other; after the last one it hangs on, hearing nothing."""

    def __init__(self, *, lists: list[Any], watches: list[Any]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[str] = []
        self.answers_once: Callable[[], bool] | None = None
        """Lists wait until this is so."""

    def pages(self, path: str, *, accept: str) -> Iterator[Json]:
        self.asked.append("list")
        if self.answers_once is not None:
            until(self.answers_once)
        told = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(told, Exception):
            raise told
        for page in told:
            if isinstance(page, Exception):
                raise page
            yield page

    def watch(self, path: str, *, query: Mapping[str, Any], accept: str) -> FakeStream:
        assert query["allowWatchBookmarks"] == "true"
        assert query["timeoutSeconds"]
        self.asked.append(f"watch from {query['resourceVersion']}")
        told = self.watches.pop(0) if self.watches else FakeStream()
        if isinstance(told, Exception):
            raise told
        assert isinstance(told, FakeStream)
        return told


def page(*things: Json, version: int, more: bool = False) -> Json:
    return {"metadata": {"resourceVersion": str(version), "continue": "more" if more else ""}, "items": list(things)}


def event(kind: str, found: Json) -> Json:
    return {"type": kind, "object": found}


BROKEN_OFF = Unreachable("the cluster hung up")

STORIES: dict[str, tuple[list[Any], list[Any], set[str], list[str]]] = {
    "the watch goes on where the list was taken": (
        [[page(thing("a", 1), version=5)]],
        [FakeStream(event("ADDED", thing("b", 6)))],
        {"a", "b"},
        ["list", "watch from 5"],
    ),
    "a watch that breaks off goes on after the last event": (
        [[page(thing("a", 1), version=5)]],
        [Ending(event("ADDED", thing("b", 6)), BROKEN_OFF), FakeStream(event("DELETED", thing("a", 7)))],
        {"b"},
        ["list", "watch from 5", "watch from 6"],
    ),
    "a watch that the server ends goes on after the last bookmark": (
        [[page(thing("a", 1), version=5)]],
        [Ending(event("BOOKMARK", thing("", 9))), FakeStream(event("ADDED", thing("b", 10)))],
        {"a", "b"},
        ["list", "watch from 5", "watch from 9"],
    ),
    "a version that is too old is listed anew": (
        [[page(thing("a", 1), version=5)], [page(thing("b", 8), version=9)]],
        [Gone("too old"), FakeStream(event("ADDED", thing("c", 10)))],
        {"b", "c"},
        ["list", "watch from 5", "list", "watch from 9"],
    ),
    "a version that grows too old while watching is listed anew": (
        [[page(thing("a", 1), version=5)], [page(thing("b", 8), version=9)]],
        [
            Ending(event("ADDED", thing("x", 6)), event("ERROR", {"code": 410, "message": "too old"})),
            FakeStream(event("ADDED", thing("c", 10))),
        ],
        {"b", "c"},
        ["list", "watch from 5", "list", "watch from 9"],
    ),
    "a list whose next page is no longer known starts over": (
        [[page(thing("a", 1), version=5, more=True), Gone("expired")], [page(thing("b", 8), version=9)]],
        [FakeStream(event("ADDED", thing("c", 10)))],
        {"b", "c"},
        ["list", "list", "watch from 9"],
    ),
    "a watch that cannot be told is listed anew": (
        [[page(thing("a", 1), version=5)], [page(thing("b", 8), version=9)]],
        [
            Ending(event("ERROR", {"code": 500, "message": "not now"})),
            FakeStream(event("ADDED", thing("c", 10))),
        ],
        {"b", "c"},
        ["list", "watch from 5", "list", "watch from 9"],
    ),
    "an object nobody foresaw is listed anew": (
        [[page(thing("a", 1), version=5)], [page(thing("b", 8), version=9)]],
        [Ending({"type": "ADDED", "object": {"metadata": {}}}), FakeStream(event("ADDED", thing("c", 10)))],
        {"b", "c"},
        ["list", "watch from 5", "list", "watch from 9"],
    ),
}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)


@pytest.mark.parametrize("story", STORIES)
def test_what_is_kept_is_what_is_there(story: str) -> None:
    lists, watches, expected, asked = STORIES[story]
    client = FakeClient(lists=list(lists), watches=list(watches))
    watched = watching(client)
    try:
        until(lambda: {one["name"] for one in watched.look(patience=10).objects.values()} == expected)

        assert watched.look(patience=10).fault is None
        assert client.asked == asked
    finally:
        watched.close()


@pytest.mark.parametrize("fault", [Forbidden("no", permission="list configmaps"), Throttled("slower"), BROKEN_OFF])
def test_a_list_that_fails_is_told_with_its_reason_and_tried_again_by_the_next_look(
    fault: ProviderError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 30.0)
    client = FakeClient(lists=[fault, [page(thing("a", 1), version=5)]], watches=[])
    watched = watching(client)
    client.answers_once = lambda: (
        watched._hurry
    )  # one that failed before anybody looks is tried again by the first look
    try:
        first = watched.look(patience=10)
        client.answers_once = None
        second = watched.look(patience=10)
    finally:
        watched.close()

    assert (first.objects, first.fault) == ({}, fault)
    assert (set(second.objects), second.fault) == ({"a"}, None)


def test_a_watch_that_cannot_be_resumed_makes_it_unknown_though_its_objects_stand() -> None:
    watches = [Ending(event("ADDED", thing("b", 6))), Throttled("slower"), Throttled("slower"), Throttled("slower")]
    client = FakeClient(lists=[[page(thing("a", 1), version=5)]], watches=list(watches))
    watched = watching(client)
    try:
        until(lambda: watched.look(patience=10).fault is not None)
        looks = [watched.look(patience=10) for _ in range(6)]
    finally:
        watched.close()

    assert all(set(look.objects) == {"a", "b"} for look in looks)
    assert looks[-1].fault is None, "and known again when it can be"


def test_what_was_not_confirmed_for_long_is_listed_anew() -> None:
    now = [0.0]
    client = FakeClient(lists=[[page(thing("a", 1), version=5)], [page(thing("b", 8), version=9)]], watches=[])
    watched = Watched(as_client(client), PATH, keep, clock=lambda: now[0])
    try:
        assert set(watched.look(patience=10).objects) == {"a"}
        now[0] += module.STALE_SECONDS
        assert set(watched.look(patience=10).objects) == {"a"}
        now[0] += 1

        late = watched.look(patience=10)
    finally:
        watched.close()

    assert (set(late.objects), late.fault) == ({"b"}, None)
    assert client.asked == ["list", "watch from 5", "list", "watch from 9"]


@pytest.mark.parametrize("sign", ["BOOKMARK", "ADDED"])
def test_a_bookmark_or_an_event_confirms(sign: str) -> None:
    now = [0.0]
    told = threading.Event()

    class Later(FakeStream):
        def __iter__(self) -> Iterator[Json]:
            told.wait(10)
            yield event(sign, thing("a", 9))
            now[0] += module.STALE_SECONDS
            self.closed.wait(10)

    client = FakeClient(lists=[[page(thing("a", 1), version=5)]], watches=[Later()])
    watched = Watched(as_client(client), PATH, keep, clock=lambda: now[0])
    try:
        watched.look(patience=10)
        now[0] += 100
        told.set()
        until(lambda: now[0] > 200)

        assert watched.look(patience=10).fault is None
        assert client.asked == ["list", "watch from 5"]
    finally:
        watched.close()


def test_a_list_that_takes_too_long_is_not_waited_for() -> None:
    release = threading.Event()

    class Slow(FakeClient):
        def pages(self, path: str, *, accept: str) -> Iterator[Json]:
            release.wait(10)
            return super().pages(path, accept=accept)

    watched = watching(Slow(lists=[[page(version=5)]], watches=[]))
    try:
        look = watched.look(patience=0.01)

        assert isinstance(look.fault, Unreachable)
        assert PATH in look.fault.sentence
    finally:
        release.set()
        watched.close()


def test_closing_waits_for_nobody_and_ends_the_thread() -> None:
    client = FakeClient(lists=[[page(version=5)]], watches=[])
    watched = watching(client)
    watched.look(patience=10)
    thread = next(thread for thread in threading.enumerate() if thread is watched._thread)

    watched.close()

    thread.join(10)
    assert not thread.is_alive()
    watched.begin()
    assert client.asked == ["list", "watch from 5"]


class TestWithARealCluster:
    def test_it_follows_through_broken_connections_and_lists_that_start_over(
        self, cluster: Cluster, namespace: str, cluster_front: Front, client_of: Callable[[Front], Client]
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        watched = Watched(client_of(cluster_front), path, lambda found: {"name": found["metadata"]["name"]})

        def seen() -> set[str]:
            look = watched.look(patience=10)
            assert look.fault is None
            return {one["name"] for one in look.objects.values()} - {"kube-root-ca.crt"}

        def make(name: str) -> None:
            cluster.create({"kind": "ConfigMap", "metadata": {"name": name}}, namespace)

        try:
            make("listed")
            until(lambda: seen() == {"listed"})
            make("watched")
            until(lambda: seen() == {"listed", "watched"})
            cluster_front.cut()
            make("resumed")
            until(lambda: seen() == {"listed", "watched", "resumed"})
            expired = refused(410, "Expired", "too old resource version")
            with cluster_front.within(lambda call: expired if call.watches else None):
                until(lambda: sum(call.watches for call in cluster_front.calls) > 3)
            cluster.delete("ConfigMap", "listed", namespace)
            until(lambda: seen() == {"watched", "resumed"})
        finally:
            watched.close()

    def test_metadata_alone_is_enough_where_nothing_else_is_needed(
        self, cluster: Cluster, namespace: str, cluster_front: Front, client_of: Callable[[Front], Client]
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        whole: list[Json] = []

        def kept(found: Json) -> Json:
            whole.append(found)
            return found

        watched = Watched(client_of(cluster_front), path, kept, metadata_only=True)
        try:
            watched.look(patience=10)
            cluster.create({"kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "b"}}, namespace)
            until(lambda: any(one["metadata"]["name"] == "one" for one in whole))
        finally:
            watched.close()

        assert all("data" not in one for one in whole)

    def test_while_nothing_answers_nothing_is_known(
        self, cluster: Cluster, namespace: str, cluster_front: Front, client_of: Callable[[Front], Client]
    ) -> None:
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        watched = Watched(client_of(cluster_front), path, lambda found: found)

        def silent(call: Call) -> Reply:
            return NO_ANSWER

        try:
            assert watched.look(patience=10).fault is None
            with cluster_front.within(silent):
                until(lambda: watched.look(patience=10).fault is not None)
            until(lambda: watched.look(patience=10).fault is None)
        finally:
            watched.close()


def watching(client: FakeClient) -> Watched:
    return Watched(as_client(client), PATH, keep)


def as_client(fake: FakeClient) -> Client:
    client: Any = fake
    return client  # type: ignore[no-any-return]


def until(told: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.002)
