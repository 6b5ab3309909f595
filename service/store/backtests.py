"""Back-tests as rows: asked for, under way, done with their report or failed with a sentence; and what a person let
enforce without one. Whether one is good enough is `service.gate`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from policies.digest import digest
from policies.policy import BasePolicy
from service.store import views
from service.store.documents import Confinement
from service.store.lease import real_now
from service.store.tables import Backtest, BacktestOverride
from service.store.views import Page

SILENT = timedelta(hours=1)
"""Of a back-test that gave no sign of life for so long, nobody says that it goes on."""
ABANDONED = "the service that was to work it out is gone; ask again"


class BacktestStatus(StrEnum):
    """Where a back-test is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


UNFINISHED = (BacktestStatus.QUEUED.value, BacktestStatus.RUNNING.value)


# --- the life of one -------------------------------------------------------------------------------------------------


def create(
    session: Session,
    *,
    policy: BasePolicy,
    body: Mapping[str, Any],
    question: Mapping[str, Any],
    project: str | None,
    horizon: timedelta,
    step: timedelta,
    asked_by: str,
    holder: str,
    now: datetime,
) -> Backtest:
    """Asked for and queued. `body` is the policy as `service.documents.written` has it, `holder` who will do it."""
    row = Backtest(
        policy=policy.name,
        digest=digest(policy),
        body=dict(body),
        project=project,
        question=dict(question),
        horizon_seconds=int(horizon.total_seconds()),
        step_seconds=int(step.total_seconds()),
        asked_by=asked_by,
        asked_at=now,
        holder=holder,
        alive_at=real_now(),
    )
    session.add(row)
    session.flush()
    return row


def start(session: Session, id: str, *, now: datetime) -> bool:
    """Whether it is ours to do: it is still queued."""
    changes = {"status": BacktestStatus.RUNNING.value, "started_at": now, "alive_at": real_now()}
    return _changed(session, id, [BacktestStatus.QUEUED.value], changes)


def progress(session: Session, id: str, share: float, words: str) -> bool:
    """How far it is; whether anybody still waits for it. To be told every few minutes at least."""
    changes = {"progress_share": min(max(share, 0.0), 1.0), "progress_words": words, "alive_at": real_now()}
    return _changed(session, id, [BacktestStatus.RUNNING.value], changes)


def alive(session: Session, holder: str) -> None:
    """A sign of life of all that this process has yet to do."""
    unfinished = col(Backtest.status).in_(UNFINISHED)
    session.connection().execute(
        update(Backtest).where(unfinished, col(Backtest.holder) == holder).values(alive_at=real_now())
    )


def finish(session: Session, id: str, report: Mapping[str, Any], *, now: datetime) -> bool:
    """Done, with the report as `service.backtest.report.as_json` has it; also when it was given up for dead."""
    totals = report["totals"]
    changes = {
        "status": BacktestStatus.DONE.value,
        "finished_at": now,
        "progress_share": 1.0,
        "progress_words": "",
        "error": None,
        "data_from": datetime.fromisoformat(report["from"]),
        "data_to": datetime.fromisoformat(report["to"]),
        "stops": totals["stops"],
        "decided": totals["decided"],
        "undecided": totals["undecided"],
        "false_stops": totals["false_stops"],
        "report": dict(report),
    }
    return _changed(session, id, [BacktestStatus.RUNNING.value, BacktestStatus.FAILED.value], changes)


def fail(session: Session, id: str, reason: str, *, now: datetime) -> bool:
    """It came to nothing, and why, in a sentence."""
    changes = {"status": BacktestStatus.FAILED.value, "finished_at": now, "error": reason}
    return _changed(session, id, UNFINISHED, changes)


def give_up(session: Session, *, now: datetime, is_gone: Callable[[str], bool] = lambda holder: False) -> int:
    """What a process has left undone that is gone, or that was silent for long, has failed. What another one is at goes
    on. How many there were.
    """
    rows = session.exec(select(Backtest).where(col(Backtest.status).in_(UNFINISHED)).options(_without_report())).all()
    silent_since = real_now() - SILENT
    left = [row for row in rows if is_gone(row.holder) or row.alive_at < silent_since]
    return sum(fail(session, row.id, ABANDONED, now=now) for row in left)


def _changed(session: Session, id: str, from_: Sequence[str], changes: Mapping[str, Any]) -> bool:
    statement = update(Backtest).where(col(Backtest.id) == id, col(Backtest.status).in_(from_)).values(**changes)
    return session.connection().execute(statement).rowcount == 1


# --- reading ---------------------------------------------------------------------------------------------------------


def find(session: Session, id: str) -> Backtest | None:
    """One, with its report."""
    return session.get(Backtest, id)


def listed(
    session: Session, *, filters: Mapping[str, Collection[str]], sees: Confinement, cursor: str | None, limit: int
) -> Page[Backtest]:
    """Newest first, without their reports. A confined reader gets those that were confined to one of his projects."""
    return views.backtests(session, filters=filters, sees=sees, cursor=cursor, limit=limit)


def tried(session: Session, policies: Iterable[str], *, since: datetime) -> Mapping[str, Sequence[Backtest]]:
    """Policy → what came to an end of those asked for since then, the newest first, without their reports."""
    statement = select(Backtest).where(
        col(Backtest.policy).in_(list(policies)),
        col(Backtest.asked_at) >= since,
        col(Backtest.status).in_([BacktestStatus.DONE.value, BacktestStatus.FAILED.value]),
    )
    newest_first = statement.order_by(col(Backtest.asked_at).desc(), col(Backtest.id).desc())
    found: dict[str, list[Backtest]] = {}
    for row in session.exec(newest_first.options(_without_report())):
        found.setdefault(row.policy, []).append(row)
    return found


def done_of(session: Session, policy: str, digest: str) -> Sequence[Backtest]:
    """All that were done of this very policy, the newest first, without their reports."""
    statement = select(Backtest).where(
        Backtest.policy == policy, Backtest.digest == digest, Backtest.status == BacktestStatus.DONE.value
    )
    newest_first = statement.order_by(col(Backtest.asked_at).desc(), col(Backtest.id).desc())
    return session.exec(newest_first.options(_without_report())).all()


def _without_report() -> Any:
    """Reports are long; whoever does not read one does not load it."""
    return defer(Backtest.report, raiseload=True)  # type: ignore[arg-type]


# --- what was let enforce --------------------------------------------------------------------------------------------


def rely_on(session: Session, id: str, *, now: datetime) -> None:
    """A policy was let enforce because of it: it stays for as long as there is such a policy."""
    session.connection().execute(update(Backtest).where(col(Backtest.id) == id).values(relied_on_at=now))


def overrides(session: Session, policies: Iterable[str]) -> Mapping[tuple[str, str], BacktestOverride]:
    """(policy, digest) → who let this very policy enforce without a back-test."""
    rows = session.exec(select(BacktestOverride).where(col(BacktestOverride.policy).in_(list(policies))))
    return {(row.policy, row.digest): row for row in rows}


def override(session: Session, policy: str, digest: str, *, reason: str, by: str, now: datetime) -> None:
    """A person lets it enforce. The first one to do so stays who did; each is in the audit log."""
    if session.get(BacktestOverride, (policy, digest)) is None:
        session.add(BacktestOverride(policy=policy, digest=digest, reason=reason, allowed_by=by, allowed_at=now))
        session.flush()


def forget_overrides(session: Session, policy: str) -> None:
    """The policy is gone; another one of its name is for somebody to answer for anew."""
    session.connection().execute(delete(BacktestOverride).where(col(BacktestOverride.policy) == policy))
