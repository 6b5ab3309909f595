"""A company of two projects that has lived for a day, served over real HTTP; every text of one says whose it is.

Real cycles made all there is to see: findings, warnings that no server took, acts, undos, money, holds, faults. What
must never be told is known by its marks: `beryl` to those who are confined to amber, every secret to everybody.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn
from sqlmodel import Session, select

from providers.errors import Throttled
from providers.records import Protection
from providers.simulated.activity import Busy
from service import people
from service.app import create_app
from service.backtest.report import as_json
from service.clock import SetClock
from service.notify.channels import Channels
from service.runtime import Runtime
from service.serve import log_processors, mask_of, server_options
from service.settings import Settings
from service.store import tokens
from service.store.database import Database
from service.store.tables import Backtest, Document, Finding, RolloutState
from tests.backtest.reports import report, stop, totals
from tests.conftest import MONDAY
from tests.databases import free_port
from tests.spine.company import ENFORCING, Company, company, hours, minutes

SECRETS = {
    "CURFEW_ADMIN_TOKEN": "mark-of-the-admin-token",
    "CURFEW_SECRET_KEY": "mark-of-the-signing-key-of-32-characters",
    "CURFEW_SECRET_HOOK": "mark-of-the-hook",
    "CURFEW_SECRET_PROM": "mark-of-the-telemetry-password",
    "mail": "mark-of-the-mail-password",
}
"""Where it comes from → what must be in no answer, no log line and no metric."""
MARK = "mark-of-the-"
THEIRS = "beryl"
"""The mark of the other project."""


@dataclass
class Served:
    """A company, where it listens, and what its log says."""

    here: Company
    url: str
    log: io.StringIO

    @property
    def rt(self) -> Runtime:
        return self.here.rt

    def token(self, name: str, role: str, *projects: str) -> str:
        """The text of a new token."""
        with self.rt.database.transaction() as session:
            _, raw = tokens.put(
                session,
                name,
                role=role,
                projects=list(projects),
                expires_at=None,
                rotate=False,
                by="token:test",
                now=self.here.clock.now(),
            )
        assert raw is not None
        return raw

    def ids(self, table: type[Any], *, of: str | None = None) -> list[str]:
        """Of every row, or of one project's."""
        with self.rt.database.reading() as session:
            return [row.id for row in session.exec(select(table)) if of is None or row.project == of]

    def names(self, kind: str) -> list[str]:
        """Of every document of that kind."""
        with self.rt.database.reading() as session:
            return [row.name for row in session.exec(select(Document).filter_by(kind=kind))]


@contextmanager
def served(database: Database, home: Path, environment: pytest.MonkeyPatch) -> Iterator[Served]:
    """Furnished, and listening on loopback for as long as the block lasts."""
    for name, secret in SECRETS.items():
        if name.startswith("CURFEW_SECRET_"):
            environment.setenv(name, secret)
    nobody = free_port()
    settings = {
        "home": home,
        "admin_token": SECRETS["CURFEW_ADMIN_TOKEN"],
        "secret_key": SECRETS["CURFEW_SECRET_KEY"],
        "mail": f"mailto://curfew:{SECRETS['mail']}@127.0.0.1:{nobody}/?from=curfew@example.org&to={{to}}&mode=insecure",
        "allow_targets": "127.0.0.1",
        "allow_endpoints": "127.0.0.1",
        "notify": f"json://127.0.0.1:{nobody}/${{HOOK}}",
    }
    with company(database, SetClock(MONDAY), **settings) as here, _logging(here.rt.settings) as log:
        _furnish(here, nobody)
        here.rt.backtests.location = str(home / "history")  # with nothing in it: back-tests are asked for, and fail
        port = free_port()
        with _listening(here, port):
            yield Served(here=here, url=f"http://127.0.0.1:{port}", log=log)
        here.rt.backtests.stop()


@contextmanager
def _logging(settings: Settings) -> Iterator[io.StringIO]:
    """What the service writes to its log."""
    log = io.StringIO()
    before = structlog.get_config()
    structlog.configure(
        processors=log_processors(mask_of(settings)),
        logger_factory=structlog.PrintLoggerFactory(log),
        cache_logger_on_first_use=False,
    )
    try:
        yield log
    finally:
        structlog.configure(**before)


@contextmanager
def _listening(here: Company, port: int) -> Iterator[None]:
    """As `curfew serve` does, but that no cycle runs by itself."""
    here.rt.ask_for_cycle = lambda by: "cycle-1"
    config = uvicorn.Config(create_app(here.rt), port=port, **server_options(here.rt.settings))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _furnish(here: Company, nobody: int) -> None:
    _documents(here, nobody)
    idle = {word: here.machine(f"{word}-idle", **_of(word)) for word in ("amber", "beryl")}
    for word in ("amber", "beryl"):
        here.machine(f"{word}-busy", activity=Busy(), **_of(word))
        protection = Protection(source=word, sentence=f"{word} asked for it")
        here.machine(f"{word}-kept", protections=(protection,), **_of(word))
    here.machine("nobodys", tags={})
    deaf = Channels(here.rt.settings, here.rt.secrets)  # nobody listens where it sends to
    here.rt.channels = deaf
    assert here.cycle().error is None
    here.rt.channels = here.postman  # type: ignore[assignment]
    for _ in range(3):
        assert here.cycle(after=minutes(31)).error is None
    [stopped] = [action for action in here.actions() if action.project == "beryl"]
    here.undo(stopped.id, by="token:beryl-lead")
    here.rt.channels = deaf
    assert here.cycle(after=minutes(1)).error is None
    # A machine changes hands: what was done before is the business of those who had it.
    moved = here.cloud.machines[idle["beryl"].external_id]
    moved.name, moved.tags = "amber-moved", dict(_of("amber")["tags"])
    here.cloud.fail(Throttled("beryl asks too often"), "list", region="eu-west-1")
    with here.rt.database.transaction() as session:
        _said(session, here.clock.now())
        session.add_all(_backtest(word, here.clock.now()) for word in ("amber", "beryl"))
    assert here.cycle(after=minutes(5)).error is None
    with here.rt.database.transaction() as session:
        for row in session.exec(select(RolloutState)):  # nothing looks any more
            row.share, row.fallen_back_at, row.reason = 0.0, here.clock.now(), "1 of 1 stop was regretted."


def _documents(here: Company, nobody: int) -> None:
    here.delete("policy", "idle-gpus")
    here.delete("project", "vision")
    for word in ("amber", "beryl"):
        _project(here, word, nobody)
        here.document(
            "policy", **{**ENFORCING, "name": f"{word}-idle", "scope": {"projects": [word]}, "rollout": "100%"}
        )
        here.document("exemption", name=f"{word}-demo", projects=[word], policies=["all-idle"],
                      until="2026-12-24T00:00:00Z", reason=f"{word} demo day")  # fmt: skip
    here.document("policy", **{**ENFORCING, "name": "all-idle", "mode": "warn", "scope": {}, "rollout": "100%"})
    here.document("policy", name="all-quota", type="quota", quota={"max_gpus": 8, "per": "project"}, mode="enforce",
                  approval="required", accept_loss=["local_disks"], grace="4h")  # fmt: skip
    here.document("source", name="beryl-telemetry", provider="prometheus", url=f"http://127.0.0.1:{nobody}/",
                  username="beryl", password="${PROM}")  # fmt: skip


def _project(here: Company, word: str, nobody: int) -> None:
    here.document(
        "project",
        name=word,
        owners=[f"{word}@example.org"],
        budget_owners=[f"{word}-budget@example.org"],
        match=[{"tags": {"project": word}}],
        notify=[f"json://127.0.0.1:{nobody}/{word}/${{HOOK}}"],
        spend_budgets=[{"name": f"{word}-monthly", "period": "month", "amount": 100}],
        description=f"{word} trains",
    )


def _of(word: str) -> dict[str, Any]:
    return {"tags": {"project": word, "owner": f"{word}-lead@example.org", "team": word}}


def _backtest(word: str, now: datetime) -> Backtest:
    """One that is done, and stopped a machine of theirs."""
    stops = (stop(name=f"{word}-idle", project=word, owner=f"{word}-lead@example.org"),)
    found = as_json(report(policy=f"{word}-idle", stops=stops, totals=totals(stops), warned=[], unknown=[]))
    return Backtest(
        policy=f"{word}-idle", digest="d", project=word, status="done", horizon_seconds=7200, step_seconds=60,
        asked_by=f"token:{word}-lead", asked_at=now, alive_at=now, finished_at=now, holder="h", report=found,
    )  # fmt: skip


def _said(session: Session, now: datetime) -> None:
    """What people say to what was found."""
    for word in ("amber", "beryl"):
        by = people.Person(actor=f"token:{word}-lead")
        people.hold(session, project=word, until=now + hours(5), reason=f"{word} trains", by=by, now=now)
        finding = session.exec(select(Finding).filter_by(project=word, status="refused")).first()
        assert finding is not None
        people.snooze(session, finding, until=now + hours(2), reason=f"{word} trains", by=by, now=now)
