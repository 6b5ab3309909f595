"""Two instances on one database: one governs at a time, and whoever was overtaken does nothing any more."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from providers.simulated.actuator import SimulatedActuator
from providers.simulated.inventory import SimulatedInventory
from service.clock import SetClock
from service.cycle import run_cycle
from service.runtime import Runtime
from service.store import lease
from service.store.database import Database
from service.store.tables import Cycle, new_id
from tests.spine.company import Company, company, minutes


def govern(rt: Runtime) -> str | None:
    """One cycle of one instance; answers what went wrong."""
    cycle_id = new_id()
    run_cycle(rt, cycle_id=cycle_id, requested_by="test")
    with rt.database.reading() as session:
        return session.get_one(Cycle, cycle_id).error


def two(here: Company) -> tuple[Runtime, Runtime]:
    """Two instances on machines of their own."""
    first, second = here.rt, here.another()
    first.holder, second.holder = "first.example.org pid:[1] 1 a", "second.example.org pid:[1] 1 b"
    return first, second


def one_stop(here: Company) -> None:
    assert len(here.stops) == 1
    assert [action.status for action in here.actions()] == ["verified"]


def test_cycles_of_two_instances_in_turn(database: Database, clock: SetClock) -> None:
    with company(database, clock) as here:
        first, second = two(here)
        ref = here.machine()
        for rt in (first, second, first, second, second, first):
            assert govern(rt) is None
            clock.forward(minutes(15))
        one_stop(here)
        assert here.finding(ref).status == "enforced"
        assert len(here.told("warning")) == 2  # to two people, once


def test_cycles_of_two_instances_at_the_same_time(database: Database, clock: SetClock) -> None:
    with company(database, clock) as here:
        here.machine()
        errors = []
        with ThreadPoolExecutor(2) as pool:
            for _ in range(6):
                errors += list(pool.map(govern, two(here)))
                clock.forward(minutes(15))
        assert set(errors) <= {None, "another instance governs just now"}
        one_stop(here)
        assert len(here.told("warning")) == 2


def test_the_very_first_cycles_at_the_same_time(database: Database, clock: SetClock) -> None:
    with company(database, clock) as here, ThreadPoolExecutor(4) as pool:
        runtimes = [*two(here), here.another(), here.another()]
        for number, rt in enumerate(runtimes):
            rt.holder = f"{number}.example.org pid:[1] 1 a"
        errors = list(pool.map(govern, runtimes))
        assert set(errors) <= {None, "another instance governs just now"}
        assert None in errors


OVERTAKEN: dict[str, tuple[type, str]] = {
    "while it looks": (SimulatedInventory, "list"),
    "while it looks again": (SimulatedInventory, "describe"),
    "while it acts": (SimulatedActuator, "act"),
}


@pytest.mark.parametrize("sentence", OVERTAKEN)
def test_an_instance_that_was_paused_too_long_is_fenced_off(
    sentence: str,
    database: Database,
    clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
    let_leases_expire: Callable[[], None],
) -> None:
    part, name = OVERTAKEN[sentence]
    with company(database, clock) as here:
        first, second = two(here)
        ref = here.machine()
        govern(first)
        clock.forward(minutes(31))
        call = getattr(part, name)
        paused: list[bool] = []

        def pause(*args: Any, **more: Any) -> Any:
            if not paused:
                paused.append(True)
                let_leases_expire()
                assert govern(second) is None  # in the meantime the other one sees to everything
            return call(*args, **more)

        monkeypatch.setattr(part, name, pause)
        error = govern(first)
        assert error is not None
        assert "lease" in error
        clock.forward(minutes(2))
        assert govern(second) is None
        one_stop(here)
        assert here.finding(ref).status == "enforced"


def test_a_lease_that_ran_out_and_that_nobody_took_is_still_good(
    small: Company, monkeypatch: pytest.MonkeyPatch, let_leases_expire: Callable[[], None]
) -> None:
    listing = SimulatedInventory.list

    def slow(self: SimulatedInventory) -> Any:
        let_leases_expire()
        return listing(self)

    monkeypatch.setattr(SimulatedInventory, "list", slow)
    small.machine()
    for _ in range(4):
        assert small.cycle(after=minutes(16)).error is None
    one_stop(small)


def test_while_one_governs_the_other_says_so_and_touches_nothing(small: Company) -> None:
    first, second = two(small)
    small.machine()
    with small.rt.database.transaction() as session:
        assert lease.take(session, first.holder) is not None
    assert govern(second) == "another instance governs just now"
    assert small.findings() == []


def test_a_token_is_good_only_until_the_next_is_taken(
    database: Database, let_leases_expire: Callable[[], None]
) -> None:
    with database.transaction() as session:
        old = lease.take(session, "first")
    assert old is not None
    with database.transaction() as session:
        assert lease.take(session, "second") is None
    let_leases_expire()
    with database.transaction() as session:
        new = lease.take(session, "second")
    assert new is not None
    assert new.token > old.token
    with database.transaction() as session:
        lease.check(session, new)
        with pytest.raises(lease.LeaseLost):
            lease.check(session, old)
        with pytest.raises(lease.LeaseLost):
            lease.renew(session, old)
        lease.release(session, old)  # gives nothing back that is not its own
        assert lease.take(session, "first") is None
