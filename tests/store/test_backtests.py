"""The life of a back-test as a row: asked for, under way, done or failed; who sees it, and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import InvalidRequestError
from sqlmodel import Session, col, select

from policies.policy import IdlePolicy
from service.store import backtests, lease, retention
from service.store.backtests import BacktestStatus
from service.store.database import Database
from service.store.tables import Backtest, Document

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = IdlePolicy(name="idle-gpus", type="idle")


def ask(
    session: Session,
    *,
    policy: IdlePolicy = POLICY,
    project: str | None = None,
    holder: str = "us",
    now: datetime = NOW,
) -> Backtest:
    return backtests.create(
        session,
        policy=policy,
        body={"name": policy.name, "type": "idle"},
        question={},
        project=project,
        horizon=timedelta(hours=2),
        step=timedelta(minutes=1),
        asked_by="token:ann",
        holder=holder,
        now=now,
    )


def a_report(**totals: int) -> Mapping[str, Any]:
    counts = {"stops": 30, "decided": 25, "undecided": 5, "false_stops": 1} | totals
    return {"from": (NOW - 20 * DAY).isoformat(), "to": NOW.isoformat(), "totals": counts}


def read(database: Database, id: str) -> Backtest:
    with database.reading() as session:
        row = backtests.find(session, id)
        assert row is not None
        return row


def test_it_is_queued_then_runs_then_is_done_with_its_report(database: Database) -> None:
    with database.transaction() as session:
        id = ask(session).id
    assert read(database, id).status == BacktestStatus.QUEUED
    with database.transaction() as session:
        assert backtests.start(session, id, now=NOW)
        assert not backtests.start(session, id, now=NOW), "it is started once only"
        assert backtests.progress(session, id, 0.5, "reading 2026-11-16")
    under_way = read(database, id)
    assert (under_way.status, under_way.progress_share, under_way.progress_words) == (
        BacktestStatus.RUNNING,
        0.5,
        "reading 2026-11-16",
    )
    with database.transaction() as session:
        assert backtests.finish(session, id, a_report(), now=NOW + DAY)
    done = read(database, id)
    assert (done.status, done.progress_share, done.error) == (BacktestStatus.DONE, 1.0, None)
    assert (done.data_from, done.data_to, done.finished_at) == (NOW - 20 * DAY, NOW, NOW + DAY)
    assert (done.stops, done.decided, done.undecided, done.false_stops) == (30, 25, 5, 1)
    assert done.report == a_report()


def test_one_that_failed_says_why_and_one_that_is_done_cannot_fail(database: Database) -> None:
    with database.transaction() as session:
        failing, done = ask(session).id, ask(session).id
        backtests.start(session, done, now=NOW)
        backtests.finish(session, done, a_report(), now=NOW)
        assert backtests.fail(session, failing, "there is no history", now=NOW)
        assert not backtests.fail(session, done, "too late", now=NOW)
        assert not backtests.progress(session, done, 0.1, "again")
    assert (read(database, failing).status, read(database, failing).error) == ("failed", "there is no history")
    assert (read(database, done).status, read(database, done).error) == ("done", None)


def test_a_start_of_the_service_gives_up_what_nobody_does_any_more_and_nothing_else(database: Database) -> None:
    with database.transaction() as session:
        killed, silent, others = ask(session, holder="killed").id, ask(session).id, ask(session, holder="other").id
        backtests.start(session, killed, now=NOW)
        backtests.start(session, others, now=NOW)
        long_ago = lease.real_now() - 2 * backtests.SILENT
        session.connection().execute(update(Backtest).where(col(Backtest.id) == silent).values(alive_at=long_ago))
    with database.transaction() as session:
        assert backtests.give_up(session, now=NOW, is_gone=lambda holder: holder == "killed") == 2
    assert {id: read(database, id).status for id in (killed, silent, others)} == {
        killed: "failed",
        silent: "failed",
        others: "running",
    }
    assert "ask again" in (read(database, killed).error or "")


def test_what_fell_silent_is_given_up_after_a_cycle_too(database: Database) -> None:
    """Its process may have run somewhere else, and nobody starts anything for weeks."""
    with database.transaction() as session:
        silent, others = ask(session).id, ask(session, holder="other").id
        long_ago = lease.real_now() - 2 * backtests.SILENT
        session.connection().execute(update(Backtest).where(col(Backtest.id) == silent).values(alive_at=long_ago))
        held = lease.take(session, "us")
    assert held is not None
    assert retention.count(database, held, NOW, enough=lambda: False) == {"back-tests given up": 1}
    assert (read(database, silent).status, read(database, others).status) == ("failed", "queued")


def test_what_waits_for_its_turn_lives_while_its_process_says_so(database: Database) -> None:
    with database.transaction() as session:
        id = ask(session, holder="us").id
        long_ago = lease.real_now() - 2 * backtests.SILENT
        session.connection().execute(update(Backtest).where(col(Backtest.id) == id).values(alive_at=long_ago))
        backtests.alive(session, "us")
        assert backtests.give_up(session, now=NOW) == 0


def test_one_that_was_given_up_for_dead_and_comes_to_its_end_is_done(database: Database) -> None:
    with database.transaction() as session:
        id = ask(session).id
        backtests.start(session, id, now=NOW)
        assert backtests.give_up(session, now=NOW, is_gone=lambda holder: True) == 1
        assert backtests.finish(session, id, a_report(), now=NOW)
    assert (read(database, id).status, read(database, id).error) == ("done", None)


def test_the_list_is_newest_first_without_reports_and_confined_to_what_its_reader_may_see(database: Database) -> None:
    with database.transaction() as session:
        whole = ask(session, now=NOW - DAY).id
        vision = ask(session, project="vision").id
        ask(session, project="speech", now=NOW + DAY)
    with database.reading() as session:
        every = backtests.listed(session, filters={}, sees=None, cursor=None, limit=2)
        assert [row.project for row in every.items] == ["speech", "vision"]
        more = backtests.listed(session, filters={}, sees=None, cursor=every.next, limit=2)
        assert [row.id for row in more.items] == [whole]
        confined = backtests.listed(session, filters={}, sees=frozenset({"vision"}), cursor=None, limit=9)
        assert [row.id for row in confined.items] == [vision]
        with pytest.raises(InvalidRequestError):
            _ = more.items[0].report


KEPT_FOR: Mapping[str, tuple[dict[str, Any], bool]] = {
    "one that is old": ({"asked_at": NOW - 401 * DAY}, False),
    "one that is young": ({"asked_at": NOW - DAY}, True),
    "an old one that never ended": ({"status": "running"}, True),
    "an old one that a policy was let enforce by": ({"relied_on_at": NOW - 300 * DAY}, True),
    "an old one that a policy was let enforce by which is gone": (
        {"relied_on_at": NOW - 300 * DAY, "policy": "gone"},
        False,
    ),
}


@pytest.mark.parametrize("which", KEPT_FOR)
def test_back_tests_go_with_findings(database: Database, which: str) -> None:
    changes, stays = KEPT_FOR[which]
    with database.transaction() as session:
        session.add(Document(kind="policy", name="idle-gpus", version=1, updated_at=NOW, updated_by="x"))
        id = ask(session, now=NOW - 500 * DAY).id
        backtests.fail(session, id, "no history", now=NOW - 500 * DAY)
        session.connection().execute(update(Backtest).where(col(Backtest.id) == id).values(**changes))
        held = lease.take(session, "us")
    assert held is not None
    keep = retention.Keep(findings=400 * DAY, meter=None, resources=None, audit=None, cycles=1000)
    done = retention.let_go(database, held, keep, NOW, enough=lambda: False)
    with database.reading() as session:
        assert bool(session.exec(select(Backtest.id)).all()) is stays
    assert done["back-tests"] == (0 if stays else 1)


def test_an_override_holds_for_this_very_policy_and_the_first_one_who_gave_it_is_kept(database: Database) -> None:
    with database.transaction() as session:
        backtests.override(session, "idle-gpus", "abc", reason="agreed in the board", by="token:ann", now=NOW)
        backtests.override(session, "idle-gpus", "abc", reason="again", by="token:bob", now=NOW + DAY)
    with database.reading() as session:
        given = dict(backtests.overrides(session, ["idle-gpus", "other"]))
    found = given.pop(("idle-gpus", "abc"))
    assert (found.reason, found.allowed_by, found.allowed_at) == ("agreed in the board", "token:ann", NOW)
    assert given == {}
    with database.transaction() as session:
        backtests.forget_overrides(session, "other")
        assert backtests.overrides(session, ["idle-gpus"])
        backtests.forget_overrides(session, "idle-gpus")
        assert not backtests.overrides(session, ["idle-gpus"])


def test_what_was_tried_of_a_policy_is_told_newest_first_without_reports(database: Database) -> None:
    with database.transaction() as session:
        long_ago, first, second, waiting = (ask(session, now=NOW - days * DAY).id for days in (91, 2, 1, 0))
        other = ask(session, policy=IdlePolicy(name="other", type="idle")).id
        for id in (long_ago, first, other):
            backtests.start(session, id, now=NOW)
            backtests.finish(session, id, a_report(), now=NOW)
        backtests.fail(session, second, "no history", now=NOW)
        backtests.start(session, waiting, now=NOW)
    with database.reading() as session:
        found = backtests.tried(session, ["idle-gpus", "none"], since=NOW - 90 * DAY)
        assert {name: [row.id for row in rows] for name, rows in found.items()} == {"idle-gpus": [second, first]}
        with pytest.raises(InvalidRequestError):
            _ = found["idle-gpus"][0].report
