"""What is remembered of open intervals costs what all intervals say one by one, to the last micro-unit, whatever
happened in between and whoever did it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlmodel import Session, col, func, select

from service.model import Interval, MeterChange
from service.store import ledger, spend, sums, totals
from service.store.database import Database
from service.store.open_intervals import OpenIntervals, _changed, _Count
from service.store.spend import By
from service.store.tables import MeterInterval, MeterSum, Resource
from tests.store.test_spend import NOW, resource

SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
MACHINES = ["a", "b", "c"]


@dataclass
class Service:
    """Writes what cycles write."""

    database: Database
    now: datetime = NOW
    bases: dict[str, int] = field(default_factory=dict)

    def empty(self) -> None:
        with self.database.transaction() as session:
            for table in (MeterInterval, MeterSum, Resource):
                session.connection().execute(delete(table))
            kinds = ("instance", "instance", "node_group")
            session.add_all(resource(id, kind=kind) for id, kind in zip(MACHINES, kinds, strict=True))

    def meters(
        self, machine: str, rate: int, activity: str = "busy", *, project: str = "vision", rest: int = 0
    ) -> None:
        """From now on; what was open ends."""
        with self.database.transaction() as session:
            last = ledger.latest_of(session, [machine]).get(machine)
            base = rest if last is None else last.reached(max(self.now, last.started_at))
            opened = Interval(
                resource_id=machine, project=project, state="running", capacity_type="spot", activity=activity,
                rate_micros=rate, currency="USD", price_source="list", base=base,
                started_at=self.now if last is None else max(self.now, last.started_at),
            )  # fmt: skip
            closes = last is not None and last.ended_at is None
            change = MeterChange(resource_id=machine, closes=closes, at=opened.started_at, opened=(opened,))
            ledger.apply(session, [change])

    def ends(self, machine: str, *, telling: bool) -> None:
        with self.database.transaction() as session:
            last = ledger.latest_of(session, [machine]).get(machine)
            if last is not None and last.ended_at is None:
                at = max(self.now, last.started_at)
                ledger.apply(session, [MeterChange(resource_id=machine, closes=True, at=at, opened=())])
            if telling:
                self._written(session, machine)

    def becomes(self, machine: str, **values: Any) -> None:
        with self.database.transaction() as session:
            self._written(session, machine, **values)

    def sums_up(self) -> None:
        with self.database.transaction() as session:
            sums.sum_up(session, at_most=500)

    def _written(self, session: Session, machine: str, **values: Any) -> None:
        newest = session.exec(select(func.max(Resource.revision))).one()
        changed = update(Resource).where(col(Resource.id) == machine).values(revision=newest + 1, **values)
        session.connection().execute(changed)


Costs = dict[Any, int]


def remembered(service: Service, opened: OpenIntervals) -> tuple[Costs, Costs]:
    """What all cost and what idle ones cost, by project, provider, model, capacity type and currency; and it is the
    same as when everything is read anew."""
    with service.database.reading() as session:
        total, idle = totals.costs(session, service.now, opened)
        assert (total, idle) == totals.costs(session, service.now)
    return dict(+total), dict(+idle)


def one_by_one(service: Service) -> tuple[Costs, Costs]:
    """The same, from each row of the ledger by itself."""
    total: Counter[Any] = Counter()
    idle: Counter[Any] = Counter()
    by = (By.PROVIDER, By.GPU_MODEL, By.CAPACITY_TYPE, By.ACTIVITY)
    with service.database.reading() as session:
        for project in ("vision", "nlp"):
            rows = spend.metered(session, now=service.now, projects=[project])
            for ((*kind, activity), currency), cost in spend.sums(rows, by, sums.BEGINNING, service.now, UTC).items():
                total[project, *kind, currency] += cost.micros
                if activity == "idle":
                    idle[project, *kind, currency] += cost.micros
    return dict(+total), dict(+idle)


def of_any_model(costs: tuple[Costs, Costs]) -> list[Costs]:
    """A sum that was made keeps the model of its time; the rows go by the one of today."""
    found: list[Counter[Any]] = [Counter(), Counter()]
    for sums_, one in zip(found, costs, strict=True):
        for (project, provider, _, *rest), micros in one.items():
            sums_[project, provider, *rest] += micros
    return [dict(one) for one in found]


def same_as_all_read_anew(service: Service, last: ledger.Latest) -> None:
    with service.database.reading() as session:
        assert last.follow(session) == ledger.latest(session)


machines = st.sampled_from(MACHINES)
rates = st.sampled_from([0, 1, 3599, 999_999_937, 55_040_000, 2_550_000 * 10**6])
changes = st.one_of(
    st.tuples(
        st.just("meters"), machines, rates, st.sampled_from(["busy", "idle"]), st.sampled_from(["vision", "nlp"])
    ),
    st.tuples(st.just("ends"), machines, st.booleans()),
    st.tuples(st.just("is missing"), machines, st.integers(0, 10**6)),
    st.tuples(st.just("is back"), machines),
    st.tuples(st.just("is gone"), machines),
    st.tuples(st.just("is another model"), machines, st.sampled_from(["L4", "H100", None])),
    st.tuples(st.just("sums up")),
    st.tuples(st.just("forgets")),
)
story = st.lists(st.tuples(changes, st.integers(0, 10**5), st.booleans()), min_size=3, max_size=12)
"""What happens, how many seconds pass then, and whether anybody asks: a service that does not govern does not."""


def happens(service: Service, what: str, *more: Any) -> None:
    match what, more:
        case "meters", (machine, rate, activity, project):
            service.meters(machine, rate, activity, project=project)
        case "ends", (machine, telling):
            service.ends(machine, telling=telling)
        case "is missing", (machine, seconds):
            service.becomes(machine, missing_since=service.now - seconds * SECOND)
        case "is back", (machine,):
            service.becomes(machine, missing_since=None, ended_at=None)
        case "is gone", (machine,):
            service.ends(machine, telling=False)
            service.becomes(machine, ended_at=service.now)
        case "is another model", (machine, model):
            service.becomes(machine, gpu_model=model)
        case "sums up", ():
            service.sums_up()


@settings(max_examples=40)
@given(st.tuples(*[st.tuples(rates, st.integers(0, 10**20))] * len(MACHINES)), story)
def test_whatever_happened_it_costs_what_the_ledger_says(
    database: Database, at_first: list[tuple[int, int]], story: list[tuple[tuple[Any, ...], int, bool]]
) -> None:
    service, opened, last = Service(database), OpenIntervals(), ledger.Latest()
    service.empty()
    for machine, (rate, rest) in zip(MACHINES, at_first, strict=True):
        service.meters(machine, rate, rest=rest)
    for change, seconds, asks in story:
        if change == ("forgets",):
            opened.forget()
        happens(service, *change)
        service.now += seconds * SECOND
        if asks:
            assert of_any_model(remembered(service, opened)) == of_any_model(one_by_one(service))
            same_as_all_read_anew(service, last)
    same_as_all_read_anew(service, last)
    assert of_any_model(remembered(service, opened)) == of_any_model(one_by_one(service))


@given(st.lists(st.tuples(st.integers(-(10**25), 10**20), st.integers(0, 5))), st.integers(0, 10**25))
@example([(1, 1), (3599, 2), (-1, 1)], 3599)
def test_floors_are_added_and_not_floored_together(zeros: list[tuple[int, int]], run: int) -> None:
    count = _Count(of=((None, "", "", "", "", ""), 1))
    for zero, number in zeros:
        count.add(zero, number)
    assert count.micros_after(run) == sum((zero + run) // 3600 * number for zero, number in zeros)


def test_one_that_ended_without_a_word_is_missed_though_as_many_are_open(database: Database) -> None:
    service, last = Service(database), ledger.Latest()
    service.empty()
    for machine in ("a", "b"):
        service.meters(machine, 3600)
    same_as_all_read_anew(service, last)
    happens(service, "is gone", "a")
    service.meters("a", 3600)
    service.ends("b", telling=False)
    same_as_all_read_anew(service, last)


def test_only_what_changed_is_read(database: Database) -> None:
    service, opened = Service(database), OpenIntervals()
    service.empty()
    for machine in MACHINES:
        service.meters(machine, 3600)
    remembered(service, opened)

    def read() -> list[str]:
        with database.reading() as session:
            found = [row[0] for row in _changed(session, opened.revision, opened.last)]
        remembered(service, opened)
        return found

    assert read() == []
    service.now += HOUR
    service.meters("a", 7200)
    assert read() == ["a"]
    service.becomes("b", missing_since=service.now)
    assert read() == ["b"]
    service.ends("b", telling=True)
    assert read() == ["b"]
    service.sums_up()
    assert read() == []


def test_what_ended_without_a_word_is_missed(database: Database) -> None:
    service, opened = Service(database), OpenIntervals()
    service.empty()
    service.meters("a", 3600)
    service.meters("b", 3600)
    remembered(service, opened)
    service.now += HOUR
    service.ends("a", telling=False)
    service.sums_up()
    service.now += HOUR
    assert remembered(service, opened) == one_by_one(service)
    assert set(opened.lines) == {"b"}


def test_a_clock_set_back_counts_nothing_that_has_not_begun(database: Database) -> None:
    service, opened = Service(database), OpenIntervals()
    service.empty()
    service.meters("a", 3600)
    service.now += 5 * HOUR
    service.meters("b", 3600)
    remembered(service, opened)
    service.now -= 2 * HOUR
    total, _ = remembered(service, opened)
    assert total == {("vision", "aws", "H100", "spot", "USD"): 3 * 3600}
    service.now += 3 * HOUR
    assert remembered(service, opened) == one_by_one(service)


def test_another_database_than_it_was_is_read_anew(database: Database) -> None:
    service, opened = Service(database), OpenIntervals()
    service.empty()
    for _ in range(3):
        service.meters("a", 3600)
        service.becomes("a", gpu_model="L4")
    remembered(service, opened)
    service.empty()
    service.meters("b", 7200)
    service.now += HOUR
    assert remembered(service, opened) == one_by_one(service)
    assert set(opened.lines) == {"b"}
