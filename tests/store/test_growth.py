"""However much has ended, and however much of it was summed up or let go of: every sum is what it would be without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session, SQLModel, col, func, select

from service.days import day_start
from service.model import Window
from service.store import audit, lease, ledger, overview, retention, spend, sums, totals
from service.store.database import Database
from service.store.retention import Keep
from service.store.spend import By, Cost, Metered
from service.store.tables import (
    Action,
    Audit,
    Cycle,
    Document,
    Finding,
    LinkUse,
    MeterInterval,
    MeterSum,
    Outbox,
    Resource,
    Tally,
)
from tests.store.test_spend import interval, resource

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
START = datetime(2026, 9, 20, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
ZONES = ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"]
PROJECTS = ["vision", "nlp"]


def never() -> bool:
    return False


def in_force(database: Database) -> lease.Held:
    with database.transaction() as session:
        held = lease.take(session, "tests")
    assert held is not None
    return held


def project(name: str, zone: str) -> Document:
    body = {"name": name, "timezone": zone}
    return Document(kind="project", name=name, version=1, body=body, updated_at=NOW, updated_by="test")


# --- any history ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """What a few machines did, as rows and as what these rows say."""

    resources: list[dict[str, Any]]
    intervals: list[dict[str, Any]]

    def told(self) -> list[Metered]:
        by_id = {row["id"]: row for row in self.resources}
        return [
            Metered(
                project=row["project"], resource=row["resource_id"], name="",
                provider=by_id[row["resource_id"]]["provider"], gpu_model=by_id[row["resource_id"]]["gpu_model"],
                capacity_type=row["capacity_type"], activity=row["activity"], assumed=row["assumed"],
                currency=row["currency"], base=row["base"], rate_micros=row["rate_micros"],
                started_at=row["started_at"], ended_at=row["ended_at"] or NOW,
            )
            for row in self.intervals
            if by_id[row["resource_id"]]["kind"] != "node_group"
        ]  # fmt: skip


@st.composite
def histories(draw: st.DrawFn) -> History:
    resources, intervals = [], []
    for number in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["instance", "instance", "node_group"]))
        model, provider = draw(st.sampled_from(["H100", "L4"])), draw(st.sampled_from(["aws", "gcp"]))
        resources.append({"id": str(number), "kind": kind, "gpu_model": model, "provider": provider})
        at, base = START + draw(st.integers(0, 40 * 86400)) * SECOND, draw(st.integers(0, 10**20))
        turns = draw(st.integers(1, 5))
        for turn in range(turns):
            seconds, rate = draw(st.integers(0, 9 * 86400)), draw(st.integers(0, 10**14))
            end = min(NOW, at + seconds * SECOND)
            row = {
                "resource_id": str(number), "project": draw(st.sampled_from(PROJECTS)), "rate_micros": rate,
                "currency": draw(st.sampled_from(["USD", "USD", "EUR"])), "assumed": draw(st.booleans()),
                "activity": draw(st.sampled_from(["busy", "idle"])), "capacity_type": "spot", "base": base,
                "started_at": at, "ended_at": end if turn < turns - 1 or draw(st.booleans()) else None,
            }  # fmt: skip
            intervals.append(row)
            at, base = end, base + rate * int((end - at).total_seconds())
    return History(resources, intervals)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("sum up"), st.integers(1, 6)),
        st.tuples(st.just("roll up"), st.integers(0, 60)),
        st.tuples(st.just("move"), st.sampled_from(ZONES)),
    ),
    max_size=6,
)
"""What may happen meanwhile: so many intervals are summed up, those of so many days ago let go of, a project moves."""


def filled(database: Database, history: History, zone: str) -> None:
    with database.transaction() as session:
        for table in (MeterInterval, MeterSum, Resource, Document):
            session.connection().execute(delete(table))
        session.add_all(project(name, zone) for name in PROJECTS)
        session.add_all(resource(**row) for row in history.resources)
        session.add_all(interval(timedelta(0), **row) for row in history.intervals)


def happens(database: Database, what: str, value: Any) -> None:
    with database.transaction() as session:
        if what == "sum up":
            sums.sum_up(session, at_most=value)
        elif what == "roll up":
            while sums.roll_up(session, NOW - value * DAY, at_most=3):
                pass
        else:
            for name in PROJECTS:
                session.merge(project(name, value))


def micros(found: dict[Any, Cost]) -> dict[Any, tuple[int, int]]:
    return {key: (cost.micros, cost.assumed_micros) for key, cost in found.items() if cost.micros}


@settings(max_examples=25)
@given(histories(), st.sampled_from(ZONES), steps)
def test_what_a_cycle_asks_is_what_all_intervals_together_say(
    database: Database, history: History, zone: str, meanwhile: list[tuple[str, Any]]
) -> None:
    """Windows of spend budgets in any zone: this month, all time, and the last day and week to the second."""
    filled(database, history, zone)
    told = history.told()
    for what, value in meanwhile:
        # spend budgets look at intervals to the second, so those of the last weeks are never let go of
        happens(database, what, max(value, 47) if what == "roll up" else value)
        zone = value if what == "move" else zone
        with database.reading() as session:
            expected = Counter[Any]()
            for row in told:
                key = (row.project, row.provider, row.gpu_model, row.capacity_type, row.currency, row.activity)
                expected[key] += row.cost(spend.BEGINNING, NOW)
            assert +spend.metered_by_kind(session, NOW) == +expected
            there = ZoneInfo(zone)
            month = Window(
                start=day_start(date(2026, 11, 1), there), end=day_start(date(2026, 12, 1), there), currency="USD",
                zone=there,
            )  # fmt: skip
            ever = Window(start=spend.BEGINNING, end=None, currency="USD", zone=there)
            for window in (month, ever):
                found = spend.spent(session, {("vision", "b"): window}, NOW)["vision", "b"]
                whole = micros(spend.sums([r for r in told if r.project == "vision"], [], window.start, NOW, there))
                assert found.own == whole.get(((), "USD"), (0, 0))[0]
                assert sum(found.foreign.values()) == whole.get(((), "EUR"), (0, 0))[0]
                assert found.assumed == {code: part for (_, code), (_, part) in whole.items() if part}
                for length, paced in ((DAY, found.last_day), (7 * DAY, found.last_week)):
                    mine = [row for row in told if row.project == "vision"]
                    lately = spend.sums(mine, [], NOW - length, NOW, there)
                    assert paced == {code: cost.micros for (_, code), cost in lately.items()}


@settings(max_examples=25)
@given(
    histories(),
    st.sampled_from(ZONES),
    st.integers(0, 50),
    st.lists(st.sampled_from([by for by in By if by is not By.RESOURCE]), unique=True),
    st.tuples(st.integers(0, 57), st.integers(0, 57)),
)
def test_whole_days_cost_the_same_before_and_after_they_are_rolled_up(
    database: Database, history: History, zone: str, age: int, by: list[By], days: tuple[int, int]
) -> None:
    filled(database, history, zone)
    there = ZoneInfo(zone)
    first, last = (day_start(START.date() + timedelta(days=day), there) for day in sorted(days))

    def asked(*how: By) -> dict[Any, tuple[int, int]]:
        with database.reading() as session:
            rows = list(spend.metered(session, now=NOW, projects=["vision"], start=first))
        return micros(spend.sums(rows, how, first, last, there))

    before, whole, machines = asked(*by), asked(), asked(By.RESOURCE)
    with database.transaction() as session:
        sums.sum_up(session, at_most=1000)
        while sums.roll_up(session, NOW - age * DAY, at_most=2):
            pass
    assert asked(*by) == before
    assert asked() == whole
    now_known = asked(By.RESOURCE)
    for (group, currency), (cost, _) in now_known.items():
        assert group == ("",) or cost <= machines[group, currency][0]
    for code in ("USD", "EUR"):
        together = sum(cost for (_, currency), (cost, _) in now_known.items() if currency == code)
        assert together == whole.get(((), code), (0, 0))[0]


def test_a_resource_goes_on_counting_from_where_it_stands(database: Database) -> None:
    """Its last interval stays, however old, unless it has ended."""
    long_ago = -500 * DAY
    with database.transaction() as session:
        session.add_all(
            [resource("a"), resource("b", ended_at=NOW - 400 * DAY), resource("c", orphaned_at=NOW + long_ago)]
        )
        for id in "abc":
            session.add(interval(long_ago, long_ago + DAY, resource_id=id, base=5))
            session.add(interval(long_ago + DAY, long_ago + 2 * DAY, resource_id=id, base=7))
        sums.sum_up(session, at_most=100)
        assert sums.roll_up(session, NOW - 400 * DAY, at_most=100) == 5
    with database.reading() as session:
        assert {id: last.base for id, last in ledger.latest(session).items()} == {"a": 7}


def test_the_last_interval_is_the_open_one_or_the_last_to_have_ended(database: Database) -> None:
    with database.transaction() as session:
        session.add_all([resource("a"), resource("b"), resource("c", ended_at=NOW)])
        for id in "abc":
            session.add(interval(-9 * DAY, -8 * DAY, resource_id=id, base=1))
            session.add(interval(-8 * DAY, -7 * DAY, resource_id=id, base=2))
        session.add(interval(-6 * DAY, resource_id="a", base=3))
    with database.reading() as session:
        assert {id: (last.base, last.ended_at) for id, last in ledger.latest(session).items()} == {
            "a": (3, None),
            "b": (2, NOW - 7 * DAY),
        }


def test_a_group_adds_nothing_to_what_its_members_cost(database: Database) -> None:
    with database.transaction() as session:
        session.add_all([resource("member"), resource("group", kind="node_group")])
        session.add_all(interval(-DAY, resource_id=id) for id in ("member", "group"))
    with database.reading() as session:
        cost, _ = totals.costs(session, NOW)
        rows = list(spend.metered(session, now=NOW, projects=["vision"]))
        hourly = spend.hourly(session, "vision")
    assert sum(cost.values()) == 24 * hourly["USD"]
    assert {row.resource for row in rows} == {"member"}


# --- what is kept, and what goes --------------------------------------------------------------------------------------

OLD, YOUNG = NOW - 500 * DAY, NOW - 10 * DAY
KEEP = Keep(findings=400 * DAY, meter=400 * DAY, resources=400 * DAY, audit=None, cycles=3)


def finding(id: str, **more: Any) -> Finding:
    given = {
        "id": id, "policy": "idle", "policy_version": 1, "resource_id": "gone", "project": "vision",
        "status": "cleared", "status_reason": "", "reason": "", "remedy": "stop", "opened_at": OLD,
        "closed_at": OLD + DAY, "rate_micros": 3600, "currency": "USD",
    }  # fmt: skip
    return Finding(**given | more)


def action(id: str, **more: Any) -> Action:
    given = {
        "id": id, "finding_id": f"of {id}", "resource_id": "gone", "source": "s", "project": "vision",
        "policy": "idle", "verb": "stop", "status": "verified", "reason": "", "requested_by": "curfew",
        "lease_token": 1, "intended_at": OLD, "verified_at": OLD, "resumed_at": OLD + DAY, "abandon_at": OLD,
        "rate_micros": 3600, "currency": "USD",
    }  # fmt: skip
    return Action(**given | more)


def message(id: str, **more: Any) -> Outbox:
    given = {
        "id": id, "message_id": id, "kind": "warning", "channel": "mail:a@example.org", "channel_kind": "mail",
        "status": "delivered", "created_at": OLD, "next_try_at": OLD,
    }  # fmt: skip
    return Outbox(**given | more)


def link(id: str, **more: Any) -> LinkUse:
    return LinkUse(**{"nonce": id, "used_at": OLD, "recipient": "a", "verb": "keep", "finding_id": "none"} | more)


def here(id: str, **more: Any) -> Resource:
    return resource(id, **more)


GOES: dict[str, list[SQLModel]] = {
    "a finding that was cleared long ago": [finding("x")],
    "its messages, its actions and its used links": [
        finding("x"), action("x", finding_id="x"), message("x", finding_id="x"), link("x", finding_id="x"),
    ],
    "a dismissed finding whose breach has ended since": [
        here("kept"), finding("x", resource_id="kept", status="dismissed", quiet_until=OLD),
    ],
    "a dismissed finding whose machine is gone": [finding("x", status="dismissed")],
    "an act without a finding": [action("x", finding_id=None)],
    "an act whose machine runs again": [here("kept"), action("x", resource_id="kept")],
    "a stop of a machine that is gone": [action("x", resumed_at=None)],
    "an act that failed": [action("x", status="failed", verified_at=None, resumed_at=None)],
    "a message that was given up": [message("x", status="failed")],
    "a used link": [link("x")],
    "a machine that ended long ago": [here("x", ended_at=OLD)],
    "a machine whose source was deleted long ago": [here("x", orphaned_at=OLD)],
    "a machine with what it cost": [
        here("x", ended_at=OLD), interval(OLD - NOW - DAY, OLD - NOW, resource_id="x", id=77),
    ],
}  # fmt: skip
STAYS: dict[str, list[SQLModel]] = {
    "a finding that ended lately": [finding("x", closed_at=YOUNG)],
    "a finding that is still active": [finding("x", status="open", closed_at=None)],
    "what was told about it, however old": [finding("x", status="open", closed_at=None), message("x", finding_id="x")],
    "a dismissed finding while its breach goes on": [
        here("kept"), finding("x", resource_id="kept", status="dismissed"),
    ],
    "a stop that can be undone": [here("kept"), action("x", resource_id="kept", resumed_at=None)],
    "the finding of such a stop": [
        here("kept"),
        finding("x", resource_id="kept"),
        action("x", finding_id="x", resource_id="kept", resumed_at=None),
    ],
    "an act under way": [action("x", status="taken", verified_at=None)],
    "an act of lately": [action("x", intended_at=YOUNG)],
    "a message that waits": [message("x", status="pending")],
    "a message of lately": [message("x", created_at=YOUNG)],
    "that a spend budget was told of": [message("x", kind="budget")],
    "a link used lately": [link("x", used_at=YOUNG)],
    "a machine that is there": [here("x")],
    "a machine that ended lately": [here("x", ended_at=YOUNG)],
    "a machine of which a finding tells": [
        here("x", ended_at=OLD), finding("y", resource_id="x", status="open", closed_at=None),
    ],
    "an interval of lately": [here("x"), interval(YOUNG - NOW, DAY - 8 * DAY, resource_id="x", id=77)],
    "an open interval, however old": [here("x"), interval(OLD - NOW, resource_id="x", id=77)],
}  # fmt: skip


def kept(database: Database) -> set[str]:
    """Tables and keys of everything that is there, apart from sums."""
    tables: list[tuple[str, Any]] = [
        ("finding", Finding.id), ("action", Action.id), ("message", Outbox.id), ("link", LinkUse.nonce),
        ("resource", Resource.id), ("interval", MeterInterval.id),
    ]  # fmt: skip
    with database.reading() as session:
        return {f"{name} {key}" for name, column in tables for key in session.exec(select(column)).all()}


def tidied(database: Database, keep: Keep = KEEP, now: datetime = NOW) -> Counter[str]:
    held = in_force(database)
    retention.count(database, held, now, enough=never)
    return retention.let_go(database, held, keep, now, enough=never)


def store(database: Database, rows: list[SQLModel]) -> None:
    with database.transaction() as session:
        session.add_all(type(row)(**row.model_dump()) for row in rows)


@pytest.mark.parametrize("case", GOES)
def test_this_goes(database: Database, case: str) -> None:
    store(database, [*GOES[case], here("newest", revision=1)])
    tidied(database)
    assert kept(database) <= {"resource kept", "resource newest"}


@pytest.mark.parametrize("case", STAYS)
def test_this_stays(database: Database, case: str) -> None:
    store(database, STAYS[case])
    before = kept(database)
    tidied(database)
    assert kept(database) == before


def test_whoever_keeps_for_ever_loses_nothing(database: Database) -> None:
    store(database, [finding("x"), message("x"), action("x"), here("x", ended_at=OLD)])
    before = kept(database)
    tidied(database, Keep(findings=None, meter=None, resources=None, audit=None, cycles=1000))
    assert kept(database) == before


def counters(session: Session) -> list[Any]:
    """Everything `/metrics` counts from rows."""
    found = (totals.actions(session), totals.notifications(session), totals.avoided(session, NOW))
    return [*found, totals.false_stops(session), totals.potential(session, NOW), *totals.costs(session, NOW)]


def test_no_counter_falls_when_rows_go(database: Database) -> None:
    machines = [here(str(n), ended_at=OLD, gpu_model=("H100", "L4")[n % 2]) for n in range(6)]
    store(
        database,
        [
            here("newest", revision=1),
            *machines,
            *(interval(OLD - NOW + n * DAY, OLD - NOW + (n + 2) * DAY, resource_id=str(n % 6)) for n in range(30)),
            *(finding(str(n), closed_at=OLD + n * SECOND, policy=("idle", "spot")[n % 2]) for n in range(40)),
            *(
                action(
                    str(n),
                    resumed_at=None if n % 3 else OLD + n * DAY,
                    policy=None if n % 5 else "x",
                    **({} if n % 7 else {"regretted_at": OLD, "regret_why": ("undo", "restart")[n % 2]}),
                )
                for n in range(40)
            ),
            *(message(str(n), channel_kind=("mail", "slack")[n % 2]) for n in range(40)),
        ],
    )
    with database.reading() as session:
        before = counters(session)
    held = in_force(database)
    retention.count(database, held, NOW, enough=never)
    with database.reading() as session:
        assert counters(session) == before
    retention.let_go(database, held, KEEP, NOW, enough=never)
    with database.reading() as session:
        assert counters(session) == before
        assert session.exec(select(func.count()).select_from(Tally)).one() > 0
    assert kept(database) == {"resource newest"}


def test_the_last_that_was_written_stays_so_that_no_two_writings_look_the_same(database: Database) -> None:
    store(database, [here("old", ended_at=OLD, revision=7)])
    tidied(database)
    assert kept(database) == {"resource old"}


def test_the_newest_reports_of_cycles_are_kept(database: Database) -> None:
    store(database, [Cycle(id=str(n), started_at=NOW + n * SECOND, requested_by="test") for n in range(9)])
    assert tidied(database) == {"cycles": 6}
    with database.reading() as session:
        assert set(session.exec(select(Cycle.id))) == {"6", "7", "8"}


def test_it_goes_on_where_it_was_stopped(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 4)
    store(database, [message(str(n)) for n in range(10)])
    held, batches = in_force(database), iter([False] * 3)  # findings, actions, messages
    assert retention.let_go(database, held, KEEP, NOW, enough=lambda: next(batches, True)) == {"messages": 4}
    assert len(kept(database)) == 6
    assert retention.let_go(database, held, KEEP, NOW, enough=never) == {"messages": 6}


def test_whoever_lost_the_lease_removes_nothing(database: Database) -> None:
    store(database, [message("x")])
    held = in_force(database)
    in_force(database)
    with pytest.raises(lease.LeaseLost):
        retention.let_go(database, held, KEEP, NOW, enough=never)
    assert kept(database) == {"message x"}


# --- the audit log ----------------------------------------------------------------------------------------------------

YEARS = Keep(findings=None, meter=None, resources=None, audit=700 * DAY, cycles=1000)


def lines(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.exec(select(Audit.verb).order_by(col(Audit.id))))


def write(database: Database, *ages: int) -> None:
    with database.transaction() as session:
        for age in sorted(ages, reverse=True):
            audit.record(session, at=NOW - age * DAY, actor="token:ci", verb=f"of {age} days ago", object="hold/1")


def test_the_audit_log_lets_go_of_old_lines_and_says_so_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    write(database, 900, 800, 750, 720, 710, 600, 1)
    assert tidied(database, YEARS) == {"audit lines": 5}
    assert lines(database) == ["of 600 days ago", "of 1 days ago", "let go"]
    with database.reading() as session:
        said = session.exec(select(Audit).order_by(col(Audit.id).desc())).first()
    assert said is not None
    assert (said.actor, said.details) == ("curfew", {"before": "2024-12-16T00:00:00+00:00", "lines": 5})
    assert tidied(database, YEARS) == {}
    assert len(lines(database)) == 3


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM audit", "DELETE FROM audit WHERE verb = 'of 600 days ago'", "UPDATE audit SET verb = 'nothing'"],
)
def test_nobody_else_removes_a_line_even_then(database: Database, statement: str) -> None:
    write(database, 800, 600)
    tidied(database, YEARS)
    with pytest.raises(DBAPIError, match="append-only"), database.transaction() as session:
        session.execute(text(statement))
    assert lines(database) == ["of 600 days ago", "let go"]


def test_by_default_every_line_stays(database: Database) -> None:
    write(database, 9000)
    tidied(database)
    assert lines(database) == ["of 9000 days ago"]


# --- what pages show --------------------------------------------------------------------------------------------------


def test_the_first_page_counts_groups_by_their_members(database: Database) -> None:
    store(database, [here("a"), here("b", state="stopped", rate_micros=0), here("group", kind="node_group")])
    with database.reading() as session:
        [found] = overview.totals(session, lambda id: "idle", lambda project: True)
    assert (found.resources, found.all_gpus, found.gpus["idle"]) == (3, 16, 8)
    assert (found.hourly, found.idle_hourly) == ({"USD": 3600 * 10**6}, {"USD": 3600 * 10**6})


def test_of_many_findings_only_those_shown_are_read(database: Database) -> None:
    rows = [here(f"r{n}") for n in range(5)]
    rows += [finding(f"f{n}", resource_id=f"r{n}", status="open", closed_at=None, rate_micros=n) for n in range(5)]
    rows += [finding("due", resource_id="r1", status="due", closed_at=None, policy="spot")]
    rows += [finding("hidden", resource_id="r2", status="due", closed_at=None, policy="spot", project="secret")]
    store(database, [*rows, finding("ended", resource_id="r0")])
    with database.reading() as session:
        shown, count = overview.most_urgent(session, lambda project: project == "vision", 3)
        everything = overview.most_urgent(session, lambda project: project == "vision")[0]
    assert [(row.finding.id, [other.id for other in row.others]) for row in shown] == [
        ("due", ["f1"]),
        ("f4", []),
        ("f3", []),
    ]
    assert [row.resource.id for row in shown if row.resource] == ["r1", "r4", "r3"]
    assert count == 5
    assert everything[:3] == shown
    assert [row.finding.id for row in everything[3:]] == ["f2", "f0"]
