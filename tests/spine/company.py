"""One small simulated company, a set clock and a real database: runs whole cycles and tells what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from providers import simulated
from providers.records import ResourceRef, Verb
from providers.simulated.activity import Idle
from providers.simulated.catalogue import SKUS
from providers.simulated.cloud import Act, Machine, SimulatedCloud
from service import people
from service.clock import SetClock
from service.cycle import run_cycle
from service.documents import MODELS
from service.notify.channels import Delivery
from service.notify.messages import Rendered
from service.runtime import Runtime, compose
from service.settings import Settings
from service.store.database import Database
from service.store.tables import Action, Cycle, Document, Finding, Outbox, Resource, new_id

SOURCE = "research"


@dataclass
class Postman:
    """Takes every message, or none while `dead`."""

    dead: bool = False
    taken: list[tuple[str, Rendered]] = field(default_factory=list)

    def deliver(self, channel: str, rendered: Rendered, *, message_id: str) -> Delivery:
        if self.dead:
            return Delivery(ok=False, error="nobody answers")
        self.taken.append((channel, rendered))
        return Delivery(ok=True)


@dataclass
class Company:
    """What a test holds in its hands."""

    rt: Runtime
    clock: SetClock
    cloud: SimulatedCloud
    postman: Postman

    def another(self) -> Runtime:
        """A second runtime on the same database, cloud and clock: another instance, or this one after a crash."""
        rt = compose(self.rt.settings, clock=self.clock, database=self.rt.database)
        rt.channels = self.postman  # type: ignore[assignment]
        return rt

    def restart(self) -> None:
        """All that was in memory is gone."""
        self.rt = self.another()

    def document(self, kind: str, **body: Any) -> None:
        """Put a document straight into the store, validated like any other."""
        model = MODELS[kind].validate_python(body)  # type: ignore[index]
        with self.rt.database.transaction() as session:
            row = session.get(Document, (kind, body["name"]))
            version = row.version + 1 if row else 1
            session.merge(
                Document(
                    kind=kind,
                    name=body["name"],
                    version=version,
                    body=model.model_dump(mode="json", exclude_unset=True, by_alias=True),
                    updated_at=self.clock.now(),
                    updated_by="test",
                    mode_changed_at=self.clock.now() if row else None,
                )
            )

    def machine(self, name: str = "trainer", **more: Any) -> ResourceRef:
        """A running machine of 8 H100, idle unless told otherwise, launched a day ago, paid by `vision`."""
        more.setdefault("tags", {"project": "vision", "owner": "mai@example.org"})
        more.setdefault("activity", Idle())
        more.setdefault("launched_at", self.clock.now() - timedelta(days=1))
        more.setdefault("sku", SKUS["p5.48xlarge"])
        return self.cloud.add(Machine(name=name, **more))

    def cycle(self, *, after: timedelta = timedelta(0)) -> Cycle:
        """Let time pass, then run one cycle."""
        self.clock.forward(after)
        cycle_id = new_id()
        run_cycle(self.rt, cycle_id=cycle_id, requested_by="test")
        with self.rt.database.reading() as session:
            row = session.get(Cycle, cycle_id)
            assert row is not None
            return row

    def cycles(self, length: timedelta, *, every: timedelta = timedelta(minutes=5)) -> None:
        """Cycles at that pace for that long."""
        end = self.clock.now() + length
        while self.clock.now() < end:
            assert self.cycle(after=every).error is None

    def findings(self, **where: Any) -> list[Finding]:
        with self.rt.database.reading() as session:
            return list(session.exec(select(Finding).filter_by(**where).order_by(Finding.opened_at)).all())  # type: ignore[arg-type]

    def delete(self, kind: str, name: str) -> None:
        with self.rt.database.transaction() as session:
            session.delete(session.get_one(Document, (kind, name)))

    @contextmanager
    def speaking(self, ref: ResourceRef, policy: str = "idle-gpus") -> Iterator[tuple[Session, Finding, datetime]]:
        """A transaction in which a person speaks to the newest finding of a machine."""
        with self.rt.database.transaction() as session:
            yield session, session.get_one(Finding, self.finding(ref, policy).id), self.clock.now()

    def undo(self, action_id: str, by: str = "token:lead") -> Action:
        with self.rt.database.transaction() as session:
            return people.undo(
                session, session.get_one(Action, action_id), by=people.Person(actor=by), now=self.clock.now()
            )

    @property
    def stops(self) -> list[Act]:
        """Acts that changed something, undos apart."""
        return [act for act in self.cloud.acts if act.changed and act.verb is not Verb.START]

    def told(self, kind: str) -> list[Outbox]:
        """Messages of a kind that were delivered."""
        return [row for row in self.outbox() if row.kind == kind and row.status == "delivered"]

    def finding(self, ref: ResourceRef, policy: str = "idle-gpus") -> Finding:
        """The newest finding of a machine."""
        found = self.findings(resource_id=self.resource(ref).id, policy=policy)
        assert found, "there is no such finding"
        return found[-1]

    def named(self, name: str) -> str:
        """Our id of the machine of that name."""
        with self.rt.database.reading() as session:
            return session.exec(select(Resource).filter_by(name=name)).one().id

    def actions(self) -> list[Action]:
        with self.rt.database.reading() as session:
            return list(
                session.exec(select(Action).order_by(col(Action.intended_at), col(Action.undoes).is_not(None))).all()
            )

    def outbox(self) -> list[Outbox]:
        with self.rt.database.reading() as session:
            return list(session.exec(select(Outbox)).all())

    def resource(self, ref: ResourceRef) -> Resource:
        with self.rt.database.reading() as session:
            return session.exec(select(Resource).filter_by(external_id=ref.external_id)).one()


ENFORCING: dict[str, Any] = {
    "name": "idle-gpus",
    "type": "idle",
    "mode": "enforce",
    "scope": {"projects": ["vision"]},
    "idle": {"for": "45m"},
    "grace": "30m",
    "action": "stop",
    "accept_loss": ["local_disks"],
    "disruption_budget": {"max": "100%"},
}


@contextmanager
def company(database: Database, clock: SetClock, **settings: Any) -> Iterator[Company]:
    """A company with one source, one project and one enforcing policy, at the ceiling `enforce`."""
    cloud = SimulatedCloud(clock.now, provider="aws", account="123456789012")
    simulated.clouds[SOURCE] = cloud
    chosen = {
        "ceiling": "enforce",
        "public_url": "https://curfew.example.org",
        "secret_key": "s" * 32,
        "breaker": "100%",
    }
    rt = compose(Settings(**{**chosen, **settings}), clock=clock, database=database)
    postman = Postman()
    rt.channels = postman  # type: ignore[assignment]
    made = Company(rt=rt, clock=clock, cloud=cloud, postman=postman)
    made.document("source", name=SOURCE, provider="simulated", company="demo", cloud="aws")
    made.document(
        "project",
        name="vision",
        owners=["lead@example.org"],
        match=[{"tags": {"project": "vision"}}],
        timezone="Asia/Ho_Chi_Minh",
    )
    made.document("policy", **ENFORCING)
    try:
        yield made
    finally:
        simulated.forget(SOURCE)


@contextmanager
def small_company(sqlite_url: str, clock: SetClock, **settings: Any) -> Iterator[Company]:
    """A company on SQLite, where the kind of database does not matter."""
    database = Database(sqlite_url)
    with company(database, clock, **settings) as made:
        yield made
    database.close()


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)
