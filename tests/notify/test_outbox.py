"""Whatever goes together, and whatever fails: each is delivered once when it is, and never said to be when not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from service.clock import SetClock
from service.model import Status
from service.notify.channels import DIGEST_OF_MAIL, DIGEST_OF_OTHERS, Channels, Delivery, channel_kind
from service.notify.digest import KINDS
from service.notify.links import HARMLESS, Links
from service.notify.messages import Rendered
from service.pipeline.notify import REFUSALS, Post, batches, drain, message_id_of
from service.store.database import Database
from service.store.tables import Audit, Document, Finding, Outbox
from tests.conftest import MONDAY
from tests.notify.test_messages import payload, resource

CHANNELS = ("mail:lan@example.org", "mail:minh@example.org", "slack://${SLACK}", "webhooks://h.example/x", "${URL}")


@dataclass
class Postmen(Channels):
    """Answers as it is told, and remembers what it was handed: `ok`, `no` or `raises`, for each call in turn."""

    script: list[str] = field(default_factory=list)
    handed: list[tuple[str, str, Rendered, str]] = field(default_factory=list)

    def deliver(self, channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
        answer = self.script.pop(0) if self.script else "ok"
        self.handed.append((answer, channel, rendered, message_id))
        if answer == "raises":
            raise RuntimeError("hunter2")
        return Delivery(ok=answer == "ok", error=None if answer == "ok" else "nobody answers")


@dataclass
class Box:
    """An outbox with its findings."""

    database: Database
    clock: SetClock
    channels: Postmen

    @property
    def post(self) -> Post:
        links = Links("key", "https://curfew.example.org")
        return Post(database=self.database, channels=self.channels, links=links, now=self.clock.now)

    def put(self, name: str, channel: str = CHANNELS[0], kind: str = "warning", **more: Any) -> None:
        """A message about a machine of that name, and the finding it is about."""
        now = self.clock.now()
        body = payload(
            resource=resource(id=name, name=name),
            reason=f"{name} is idle.",
            policy_changed_at=MONDAY.isoformat(),
            **more.pop("body", {}),
        )
        with self.database.transaction() as session:
            session.merge(
                Finding(
                    id=name, policy="idle-gpus", policy_version=1, resource_id=name, status="open", status_reason="",
                    reason="", remedy="stop", opened_at=now, **more,
                )
            )  # fmt: skip
            session.add(
                Outbox(
                    message_id=f"{kind}:{name}:{channel}", kind=kind, finding_id=name, episode=1, channel=channel,
                    channel_kind=channel_kind(channel), payload=body, created_at=now, next_try_at=now,
                )
            )  # fmt: skip

    def rows(self) -> dict[str, Outbox]:
        with self.database.reading() as session:
            return {row.message_id: row for row in session.exec(select(Outbox))}

    def finding(self, name: str) -> Finding:
        with self.database.reading() as session:
            return session.get_one(Finding, name)

    def change(self, name: str, **values: Any) -> None:
        with self.database.transaction() as session:
            row = session.get_one(Finding, name)
            for key, value in values.items():
                setattr(row, key, value)

    def policy(self, **values: Any) -> None:
        with self.database.transaction() as session:
            session.merge(
                Document(
                    kind="policy", name="idle-gpus", version=1, body={}, updated_at=MONDAY, updated_by="test", **values
                )
            )


@contextmanager
def boxed(template: Path, path: Path) -> Iterator[Box]:
    shutil.copy(template, path)
    database = Database(f"sqlite:///{path}")
    box = Box(database=database, clock=SetClock(MONDAY), channels=Postmen())
    box.policy()
    try:
        yield box
    finally:
        database.close()


@pytest.fixture
def box(sqlite_template: Path, tmp_path: Path) -> Iterator[Box]:
    with boxed(sqlite_template, tmp_path / "box.db") as made:
        yield made


messages = st.lists(
    st.tuples(st.sampled_from(CHANNELS), st.sampled_from([*sorted(KINDS), "test"])), min_size=1, max_size=12
)
scripts = st.lists(st.sampled_from(["ok", "ok", "no", "raises"]), max_size=20)


@settings(max_examples=40)
@given(wanted=messages, script=scripts)
def test_each_is_delivered_once_when_it_is_and_never_said_to_be_when_not(
    sqlite_template: Path, tmp_path: Path, wanted: list[tuple[str, str]], script: list[str]
) -> None:
    with boxed(sqlite_template, tmp_path / "property.db") as box:
        box.channels.script = script
        for index, (channel, kind) in enumerate(wanted):
            box.put(f"machine-{index:03}", channel, kind)

        def told(row: Outbox) -> int:
            """How often it was in something that was accepted."""
            mark = row.finding_id if row.kind != "test" else row.message_id
            return sum(
                answer == "ok" and channel == row.channel and (str(mark) in said.text or id == mark)
                for answer, channel, said, id in box.channels.handed
            )

        counts = drain(box.post)
        for row in box.rows().values():
            assert told(row) == (row.status == "delivered")
            assert (row.delivered_at is not None) == (row.status == "delivered")
            warned = box.finding(str(row.finding_id)).status == Status.WARNED
            assert warned == (row.kind == "warning" and row.status == "delivered")
        assert counts["delivered"] == sum(row.status == "delivered" for row in box.rows().values())

        box.channels.script = []
        for _ in range(4):
            box.clock.forward(timedelta(hours=1))
            drain(box.post)
        assert {row.status for row in box.rows().values()} == {"delivered"}
        assert all(told(row) == 1 for row in box.rows().values())


def test_all_that_is_due_to_one_channel_is_one_message_and_warns_of_all_at_once(box: Box) -> None:
    for name in ("a1", "b2", "c3"):
        box.put(name)
        box.put(name, "slack://${SLACK}")
    assert drain(box.post) == {"delivered": 6, "failed": 0}
    assert sorted(channel for _, channel, _, _ in box.channels.handed) == ["mail:lan@example.org", "slack://${SLACK}"]
    for name in ("a1", "b2", "c3"):
        finding = box.finding(name)
        assert (finding.status, finding.warned_at) == ("warned", MONDAY)
        assert finding.due_at == MONDAY + timedelta(minutes=30)
    with box.database.reading() as session:
        assert [row.verb for row in session.exec(select(Audit))] == ["warn"] * 3


def test_a_single_message_is_no_digest_and_a_program_gets_none(box: Box) -> None:
    box.put("a1")
    for name in ("a1", "b2"):
        box.put(name, "webhooks://h.example/x", "enforced")
    drain(box.post)
    subjects = {(channel, said.subject) for _, channel, said, _ in box.channels.handed}
    assert subjects == {
        ("mail:lan@example.org", "Will be stopped in 30 minutes: a1 (8×H100)"),
        ("webhooks://h.example/x", "Stopped: a1 (8×H100)"),
        ("webhooks://h.example/x", "Stopped: b2 (8×H100)"),
    }
    events = [said.event for _, channel, said, _ in box.channels.handed if channel.startswith("webhooks")]
    assert sorted(event.subject or "" for event in events if event) == ["finding/a1", "finding/b2"]


def test_sent_again_it_is_the_same_digest(box: Box) -> None:
    box.channels.script = ["no"]
    box.put("a1")
    box.put("b2")
    drain(box.post)
    box.clock.forward(timedelta(minutes=1))
    drain(box.post)
    first, again = (id for _, _, _, id in box.channels.handed)
    assert first == again
    assert {row.status for row in box.rows().values()} == {"delivered"}


def test_a_digests_id_does_not_depend_on_the_order(box: Box) -> None:
    rows = [Outbox(message_id=id, kind="warning", channel="c", channel_kind="mail") for id in ("x", "y", "z")]
    assert message_id_of(rows) == message_id_of(rows[::-1]) != message_id_of(rows[:2])
    assert message_id_of(rows[:1]) == "x"


@pytest.mark.parametrize(
    ("channel", "size"), [(CHANNELS[0], DIGEST_OF_MAIL), ("slack://x", DIGEST_OF_OTHERS), ("webhooks://h/x", 1)]
)
def test_a_digest_has_an_end_and_warnings_are_in_the_first(channel: str, size: int) -> None:
    kinds = ["enforced"] * size + ["warning"] * (size + 1)
    rows = [
        Outbox(message_id=f"{index}", kind=kind, channel=channel, channel_kind=channel_kind(channel))
        for index, kind in enumerate(kinds)
    ]
    found = batches(rows)
    assert sorted(len(batch) for batch in found) == sorted([size, size, 1] if size > 1 else [1] * 3)
    assert sum(len(batch) for batch in found) == len(rows)
    if size > 1:
        assert {row.kind for row in found[0]} == {"warning"}


def test_what_is_not_about_a_machine_goes_by_itself() -> None:
    rows = [
        Outbox(message_id=kind, kind=kind, channel=CHANNELS[0], channel_kind="mail")
        for kind in ("warning", "breaker", "enforced", "budget")
    ]
    assert [[row.kind for row in batch] for batch in batches(rows)] == [
        ["warning", "enforced"],
        ["breaker"],
        ["budget"],
    ]


def test_one_message_that_cannot_be_rendered_sinks_no_other(box: Box) -> None:
    box.put("a1")
    box.put("b2", body={"hourly_cost": {"amount_micros": "much", "currency": "USD"}})
    box.put("c3")
    assert drain(box.post) == {"delivered": 2, "failed": 1}
    assert [box.finding(name).status for name in ("a1", "b2", "c3")] == ["warned", "open", "warned"]
    assert box.rows()[f"warning:b2:{CHANNELS[0]}"].error == "it failed unexpectedly; the service's log has the details"


def test_a_channel_that_refuses_again_and_again_is_left_alone_until_the_next_cycle(box: Box) -> None:
    box.channels.script = ["no"] * 9
    for index in range(9):
        box.put(f"m{index}", "webhooks://h.example/x")
    box.put("m9", "mail:lan@example.org")
    drain(box.post)
    tried = [channel for _, channel, _, _ in box.channels.handed]
    assert tried.count("webhooks://h.example/x") == REFUSALS
    assert tried.count("mail:lan@example.org") == 1
    assert sum(row.attempts == 0 and row.status == "pending" for row in box.rows().values()) == 9 - REFUSALS


OVERTAKEN: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    # what happened to the finding, to its policy, and whether the message is still sent
    "nothing happened": ({}, {}, True),
    "it is no longer breached": ({"closed_at": MONDAY, "status": "cleared"}, {}, False),
    "somebody kept it": ({"episode": 2, "status": "snoozed"}, {}, False),
    "its policy was made stricter": ({}, {"mode_changed_at": MONDAY + timedelta(minutes=1)}, False),
}


@pytest.mark.parametrize("kind", ["warning", "reminder"])
@pytest.mark.parametrize("sentence", OVERTAKEN)
def test_nobody_reads_that_something_will_be_done_when_it_will_not(box: Box, sentence: str, kind: str) -> None:
    finding, policy, sent = OVERTAKEN[sentence]
    box.channels.script = ["no"]
    box.put("a1", kind=kind)
    drain(box.post)
    box.change("a1", **finding)
    box.policy(**policy)
    box.clock.forward(timedelta(minutes=1))
    drain(box.post)
    [row] = box.rows().values()
    assert len(box.channels.handed) == 1 + sent
    assert row.status == ("delivered" if sent else "withdrawn")


@pytest.mark.parametrize(
    ("channel", "recipient"),
    [
        ("mail:lan@example.org", "lan@example.org"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://***"),
        ("slack://${SLACK}", "slack://${SLACK}"),
    ],
)
def test_a_link_tells_its_reader_nothing_secret(box: Box, channel: str, recipient: str) -> None:
    box.put("a1", channel)
    box.put("b2", channel)
    drain(box.post)
    [(_, _, said, _)] = box.channels.handed
    links, found = box.post.links, []
    for line in said.text.splitlines():
        if line.startswith("https://"):
            token, read = line.rpartition("/")[2], links.read_several if "/l/all/" in line else links.read
            found.append(read(token, MONDAY).recipient)
    assert set(found) == {recipient}
    assert len(found) == 9


@pytest.mark.parametrize("several", [False, True], ids=["alone", "in a digest"])
@pytest.mark.parametrize("kind", ["warning", "enforced"])
def test_whoever_is_known_by_a_tag_alone_may_keep_and_look_and_decide_nothing(
    box: Box, kind: str, several: bool
) -> None:
    for name in ("a1", "b2") if several else ("a1",):
        box.put(name, kind=kind, body={"keeps_only": True})
    drain(box.post)
    [(_, _, said, _)] = box.channels.handed
    links = box.post.links
    found = {line.rpartition("/") for line in said.text.splitlines() if line.startswith("https://")}
    assert found
    for path, _, token in found:
        if path.endswith("/all"):
            assert set(links.read_several(token, MONDAY).verbs) == set(HARMLESS)
        else:
            assert links.read(token, MONDAY).verb in HARMLESS
