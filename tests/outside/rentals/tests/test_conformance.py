"""The rental company keeps the contract of every provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from datetime import UTC, datetime

import pytest
from company import SILENCE, SITES, Answer, Call, Company, refused
from curfew_rentals import Config, build
from curfew_rentals.translate import STATES

from providers.conformance import ProviderContract, World
from providers.contract import BuildContext
from providers.records import Kind, ResourceRef, Signal, State


class RentalsWorld:
    """An account that rents nothing yet, at two sites."""

    def __init__(self, company: Company) -> None:
        self.company = company
        context = BuildContext(source="rented", now=self.now, secret={"RENTALS_TOKEN": company.token}.__getitem__)
        self.provider = build(Config(token_secret="RENTALS_TOKEN", endpoint=company.url), context)
        self.identity = company.account

    def now(self) -> datetime:
        return datetime.now(UTC)

    def machine(
        self,
        *,
        name: str = "trainer",
        gpus: int = 1,
        tags: Mapping[str, str] | None = None,
        protected: bool = False,
        elsewhere: bool = False,
        priced: bool = True,
    ) -> ResourceRef:
        type = "mi300x" if not priced else "l4" if gpus == 1 else "h100x8"
        return self._rent(name=name, type=type, tags=dict(tags or {}), locked=protected, site=SITES[elsewhere])

    def machine_without_accelerators(self) -> ResourceRef:
        return self._rent(name="web", type="cpu8")

    def _rent(self, **what: object) -> ResourceRef:
        machine = self.company.rent(**what)
        return ResourceRef(
            provider="rentals",
            account=self.identity,
            region=machine.site,
            kind=Kind.INSTANCE,
            external_id=machine.id,
        )

    def push(self, ref: ResourceRef, *, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        self.company.usage[ref.external_id, device] = [(second, value * 100) for second, value in samples]

    def state(self, ref: ResourceRef) -> State | None:
        machine = self.company.machines.get(ref.external_id)
        return None if machine is None else STATES[machine.state]

    def snapshot(self) -> object:
        return deepcopy(self.company.machines)

    def settle(self) -> None:
        self.company.settle()

    def vanish(self, ref: ResourceRef) -> None:
        del self.company.machines[ref.external_id]

    def read_only(self) -> AbstractContextManager[object]:
        def denied(call: Call) -> Answer | None:
            may_not = refused(403, "forbidden", "this token may only look", needs="machines:write")
            return may_not if call.method == "POST" else None

        return self.company.within(denied)

    def throttled(self) -> AbstractContextManager[object]:
        return self.company.within(lambda call: refused(429, "too_many_requests", "not so fast"))

    def unreachable(self, ref: ResourceRef | None = None) -> AbstractContextManager[object]:
        return self.company.within(
            lambda call: SILENCE if ref is None or self.company.site_of(call) == ref.region else None
        )


@pytest.fixture
def world() -> Iterator[World]:
    with Company().serving() as company:
        world = RentalsWorld(company)
        yield world
        world.provider.close()


class TestRentals(ProviderContract):
    pass
