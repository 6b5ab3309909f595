"""What every provider must do, as tests: `providers/contract.py` in sentences that can fail.

Only what holds for all clouds belongs here; what one cloud does in its own way is tested beside that cloud.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest

from providers import errors
from providers.conformance.world import World
from providers.contract import Actuator, Inventory, Prices, Telemetry
from providers.errors import ProviderError
from providers.records import (
    CapacityType,
    InventoryAnswer,
    Kind,
    PartReport,
    ResourceRecord,
    ResourceRef,
    Series,
    Signal,
    State,
    TelemetryAnswer,
    Verb,
    resource_id,
)

STOPPING_VERBS = (Verb.STOP, Verb.SCALE_TO_ZERO, Verb.SUSPEND, Verb.HIBERNATE)
"""Verbs `restore` must be able to undo, the one to prefer first."""

CODES = {
    error.code
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, ProviderError) and error is not ProviderError
}


def inventory(world: World) -> Inventory:
    found = world.provider.inventory
    assert found is not None, f"provider {world.provider.name!r} has no inventory"
    return found


def telemetry(world: World) -> Telemetry:
    found = world.provider.telemetry
    assert found is not None, f"provider {world.provider.name!r} has no telemetry"
    return found


def prices(world: World) -> Prices:
    found = world.provider.prices
    assert found is not None, f"provider {world.provider.name!r} has no prices"
    return found


def actuator(world: World) -> Actuator:
    found = world.provider.actuator
    assert found is not None, f"provider {world.provider.name!r} has no actuator"
    return found


def machines(answer: InventoryAnswer) -> list[ResourceRecord]:
    """Whatever may be stopped. Nodes never are: where a world's machines are workloads, nodes are what they run on."""
    return [record for record in answer.records if record.ref.kind is not Kind.NODE]


def alive(answer: InventoryAnswer) -> dict[ResourceRef, ResourceRecord]:
    """What is there; clouds go on listing what is terminated for a while."""
    return {record.ref: record for record in machines(answer) if record.state is not State.TERMINATED}


def listed(world: World, ref: ResourceRef) -> ResourceRecord:
    """One machine as the list tells it."""
    found = alive(inventory(world).list())
    assert ref in found, f"the list lacks {ref}; it has {list(found)}"
    return found[ref]


def parts(answer: InventoryAnswer) -> set[tuple[str | None, str]]:
    """Whose they are, and what they are called."""
    return {(part.account, part.part) for part in answer.parts}


def part_of(answer: InventoryAnswer, record: ResourceRecord) -> PartReport:
    """The part that speaks for a record, as the service finds it: the nearest one."""
    account, part = record.ref.account, record.listed_in or record.ref.region
    by_name = {(one.account, one.part): one for one in answer.parts}
    for name in ((account, part), (account, "*"), (None, part), (None, "*")):
        if name in by_name:
            return by_name[name]
    raise AssertionError(f"no part speaks for {record.ref}; there are {sorted(by_name, key=repr)}")


def paid(world: World, ref: ResourceRef) -> ResourceRecord:
    """What costs money as long as the machine runs: itself, or the node it is placed on."""
    answer = inventory(world).list()
    record = alive(answer)[ref]
    nodes = {placement.node for placement in record.placements}
    if not nodes:
        return record
    (node,) = (one for one in answer.records if one.ref.kind is Kind.NODE and one.ref.external_id in nodes)
    return node


def stopping_verb(world: World, ref: ResourceRef) -> Verb:
    """The verb by which this provider makes such a machine cost nothing, for a while."""
    declared = world.provider.capabilities.verbs.get(ref.kind, frozenset())
    for verb in STOPPING_VERBS:
        if verb in declared:
            return verb
    raise AssertionError(f"{world.provider.name!r} declares no verb that stops a {ref.kind}: {sorted(declared)}")


def stop(world: World, ref: ResourceRef) -> dict[str, object]:
    """Remember, stop and settle; what was remembered has been through JSON, as it is in the store."""
    verb = stopping_verb(world, ref)
    record = inventory(world).describe(ref)
    remembered = json.loads(json.dumps(actuator(world).remember(record, verb)))
    assert isinstance(remembered, dict)
    actuator(world).act(ref, verb, request_id="curfew-stop-1", reason="all its GPUs have been idle for 2h")
    world.settle()
    return remembered


def gone(state: State | None) -> bool:
    return state is None or state is State.TERMINATED


class InventoryContract:
    """Sees each machine once, whole, and says what it could not see."""

    def test_the_list_names_each_machine_once(self, world: World) -> None:
        expected = {world.machine(name="first"), world.machine(name="second"), world.machine(elsewhere=True)}
        answer = inventory(world).list()
        assert len(alive(answer)) == sum(record.state is not State.TERMINATED for record in machines(answer))
        assert set(alive(answer)) == expected
        assert answer.complete

    def test_the_list_names_whom_it_speaks_for(self, world: World) -> None:
        refs = {world.machine(), world.machine(elsewhere=True)}
        answer = inventory(world).list()
        assert answer.identity == world.identity
        assert set(alive(answer)) == refs, "whose each machine is, its own ref tells"

    def test_each_machine_has_a_part_that_speaks_for_it(self, world: World) -> None:
        world.machine()
        world.machine(elsewhere=True)
        answer = inventory(world).list()
        assert len(parts(answer)) == len(answer.parts), "a part is told once"
        for record in answer.records:
            part = part_of(answer, record)
            assert part.complete
            of_another = record.ref.account != answer.identity
            assert not of_another or part.account == record.ref.account, "of several accounts, a part says whose it is"

    def test_an_empty_cloud_is_an_answer(self, world: World) -> None:
        answer = inventory(world).list()
        assert answer.records == ()
        assert answer.complete
        assert answer.parts, "an answer that covers no part says nothing"
        assert answer.identity == world.identity

    def test_machines_without_accelerators_are_absent(self, world: World) -> None:
        ref, plain = world.machine(), world.machine_without_accelerators()
        assert [record.ref for record in machines(inventory(world).list())] == [ref]
        assert plain not in alive(inventory(world).list())

    def test_a_record_is_filled_in(self, world: World) -> None:
        ref = world.machine(name="vision-7", gpus=1, tags={"project": "vision"})
        record = listed(world, ref)
        assert record.ref.external_id
        assert record.ref.region or record.ref.kind is Kind.WORKLOAD, "a workload may be in several regions"
        assert record.incarnation
        assert record.name == "vision-7"
        assert record.sku
        assert record.gpu_count == 1
        assert record.gpu_model
        assert record.gpu_vendor
        assert record.gpu_vendor == record.gpu_vendor.lower()
        assert 0 < record.gpu_share <= 1
        assert record.gpu_memory_mib is None or record.gpu_memory_mib > 0
        assert record.capacity_type is CapacityType.ON_DEMAND
        assert record.state is State.RUNNING
        assert record.tags["project"] == "vision"

    def test_times_are_utc_and_not_in_the_future(self, world: World) -> None:
        record = inventory(world).describe(world.machine())
        for moment in (record.launched_at, record.created_at):
            assert moment is None or (moment.utcoffset() == timedelta(0) and moment <= world.now())

    def test_devices_are_counted(self, world: World) -> None:
        assert listed(world, world.machine(gpus=8)).gpu_count == 8

    def test_our_own_id_is_the_same_in_every_list(self, world: World) -> None:
        ref = world.machine()
        first, second = listed(world, ref), listed(world, ref)
        assert resource_id(first.ref, first.incarnation) == resource_id(second.ref, second.incarnation)

    def test_two_looks_at_what_did_not_change_are_the_same(self, world: World) -> None:
        world.machine()
        world.machine(elsewhere=True)
        first, second = inventory(world).list(), inventory(world).list()
        assert {one.ref: one for one in first.records} == {one.ref: one for one in second.records}
        assert parts(first) == parts(second)

    def test_a_machine_made_anew_under_the_same_name_is_another_one(self, world: World) -> None:
        former = listed(world, world.machine(name="trainer"))
        world.vanish(former.ref)
        world.settle()
        later = listed(world, world.machine(name="trainer"))
        assert later.name == former.name
        assert resource_id(later.ref, later.incarnation) != resource_id(former.ref, former.incarnation)

    def test_several_threads_may_look_at_once(self, world: World) -> None:
        ref = world.machine()
        world.machine(elsewhere=True)
        alone = alive(inventory(world).list())
        with ThreadPoolExecutor(4) as threads:
            lists = [threads.submit(inventory(world).list) for _ in range(2)]
            described = [threads.submit(inventory(world).describe, ref) for _ in range(2)]
        assert [alive(one.result()) for one in lists] == [alone] * 2
        assert [one.result().ref for one in described] == [ref] * 2

    def test_a_part_that_fails_is_reported_and_sinks_no_other(self, world: World) -> None:
        here, there = world.machine(), world.machine(elsewhere=True)
        whole = inventory(world).list()
        with world.unreachable(there):
            answer = inventory(world).list()
        assert answer.identity == whole.identity
        assert set(alive(answer)) == {here}
        assert not answer.complete
        assert {part.part for part in answer.parts} == {part.part for part in whole.parts}
        [broken] = [part for part in answer.parts if not part.complete]
        assert broken == part_of(answer, alive(whole)[there]), "else it would seem to have gone"
        assert part_of(answer, alive(whole)[here]).complete
        assert broken.fault is not None
        assert broken.fault.code in CODES
        assert broken.fault.sentence

    def test_describe_agrees_with_the_list_and_knows_all(self, world: World) -> None:
        ref = world.machine(tags={"owner": "an.example"})
        short, full = listed(world, ref), inventory(world).describe(ref)
        assert full.fully_described
        asked_by_id_only = {"protections", "blockers", "losses", "fully_described"}
        for name in {field.name for field in fields(full)} - asked_by_id_only:
            assert getattr(full, name) == getattr(short, name), name

    def test_describe_reports_protection(self, world: World) -> None:
        open_machine, protected = world.machine(), world.machine(protected=True)
        assert inventory(world).describe(open_machine).protections == ()
        found = inventory(world).describe(protected).protections
        assert found
        assert all(protection.source and protection.sentence for protection in found)

    def test_a_tag_that_says_so_protects(self, world: World) -> None:
        ref = world.machine(tags={"curfew-protect": "true"})
        assert [one.source for one in inventory(world).describe(ref).protections] == ["curfew-protect"]

    def test_what_stands_in_the_way_is_told_in_words(self, world: World) -> None:
        for ref in (world.machine(gpus=8), world.machine(protected=True)):
            record = inventory(world).describe(ref)
            assert all(re.fullmatch(r"([A-Z][A-Za-z0-9]+)", blocker.code) for blocker in record.blockers), (
                record.blockers
            )
            told = [*(one.sentence for one in record.protections), *(one.sentence for one in record.losses)]
            assert all(told + [blocker.sentence for blocker in record.blockers])

    def test_another_accounts_machine_is_not_looked_for_in_this_one(self, world: World) -> None:
        ref = world.machine()
        world.vanish(ref)
        with pytest.raises(ProviderError) as told:
            inventory(world).describe(replace(ref, account="123456789099"))
        assert not isinstance(told.value, errors.NotFound), "it may well be there, in its own account"

    def test_a_vanished_machine_is_told_by_its_id(self, world: World) -> None:
        kept, lost = world.machine(), world.machine()
        world.vanish(lost)
        assert set(alive(inventory(world).list())) == {kept}
        try:
            record = inventory(world).describe(lost)
        except errors.NotFound:
            return
        assert record.state is State.TERMINATED

    def test_a_part_that_gives_no_answer_is_never_taken_for_a_vanished_machine(self, world: World) -> None:
        ref = world.machine()
        with world.unreachable(ref), pytest.raises(errors.Unreachable):
            inventory(world).describe(ref)

    def test_looking_changes_nothing(self, world: World) -> None:
        ref = world.machine()
        world.machine(elsewhere=True)
        before = world.snapshot()
        inventory(world).list()
        inventory(world).describe(ref)
        assert world.snapshot() == before


class TelemetryContract:
    """Tells what GPUs did, and nothing it was not told itself."""

    def ask(self, world: World, refs: Sequence[ResourceRef], *, start: datetime, end: datetime) -> TelemetryAnswer:
        found = alive(inventory(world).list())
        return telemetry(world).samples([found[ref] for ref in refs], start=start, end=end)

    def window(self, world: World) -> tuple[datetime, datetime]:
        """The last full hour of five-minute steps, which every store's resolution divides."""
        end = int(world.now().timestamp()) // 300 * 300 - 300
        return datetime.fromtimestamp(end - 3600, UTC), datetime.fromtimestamp(end, UTC)

    def minutes(self, start: datetime, first: int, last: int) -> list[int]:
        """Every full minute in [start + first, start + last)."""
        return [int(start.timestamp()) + 60 * minute for minute in range(first, last)]

    def utilisation(self, answer: TelemetryAnswer) -> list[Series]:
        return [series for series in answer.series if series.signal is Signal.UTILISATION]

    def test_samples_are_ascending_within_the_window_and_in_our_units(self, world: World) -> None:
        ref = world.machine()
        start, end = self.window(world)
        world.push(ref, device=0, signal=Signal.UTILISATION, samples=[(t, 0.375) for t in self.minutes(start, -15, 65)])
        (series,) = self.utilisation(self.ask(world, [ref], start=start, end=end))
        assert series.ref == ref
        assert series.device
        assert len(series.times) == len(series.values) >= 12
        assert list(series.times) == sorted(set(series.times))
        assert start.timestamp() <= series.times[0]
        assert series.times[-1] < end.timestamp()
        assert series.values == pytest.approx([0.375] * len(series.values), abs=0.01)

    def test_the_highest_moment_is_not_averaged_away(self, world: World) -> None:
        ref = world.machine()
        start, end = self.window(world)
        times = self.minutes(start, 0, 60)
        samples = [(t, 1.0 if t == times[31] else 0.0) for t in times]
        world.push(ref, device=0, signal=Signal.UTILISATION, samples=samples)
        (series,) = self.utilisation(self.ask(world, [ref], start=start, end=end))
        assert max(series.values) == pytest.approx(1.0)
        assert min(series.values) == 0

    def test_each_gpu_has_its_own_series(self, world: World) -> None:
        ref = world.machine(gpus=8)
        start, end = self.window(world)
        for device in range(8):
            level = device / 10
            world.push(
                ref,
                device=device,
                signal=Signal.UTILISATION,
                samples=[(t, level) for t in self.minutes(start, 0, 60)],
            )
        found = self.utilisation(self.ask(world, [ref], start=start, end=end))
        assert len({series.device for series in found}) == len(found) == 8
        assert sorted(series.values[0] for series in found) == pytest.approx([n / 10 for n in range(8)], abs=0.01)

    def test_only_what_was_asked_for_is_answered(self, world: World) -> None:
        asked, other = world.machine(), world.machine()
        start, end = self.window(world)
        for ref in (asked, other):
            world.push(ref, device=0, signal=Signal.UTILISATION, samples=[(t, 0.5) for t in self.minutes(start, 0, 60)])
        answer = self.ask(world, [asked], start=start, end=end)
        assert {series.ref for series in answer.series} == {asked}
        assert answer.faults == ()
        assert answer.ambiguous == frozenset()

    def test_absence_is_never_filled_in(self, world: World) -> None:
        thin, silent = world.machine(), world.machine()
        start, end = self.window(world)
        spoken = self.minutes(start, 0, 10) + self.minutes(start, 50, 60)
        world.push(thin, device=0, signal=Signal.UTILISATION, samples=[(t, 0.0) for t in spoken])
        answer = self.ask(world, [thin, silent], start=start, end=end)
        assert {series.ref for series in answer.series} == {thin}
        (series,) = self.utilisation(answer)
        gap = start + timedelta(minutes=10), start + timedelta(minutes=50)
        assert not [t for t in series.times if gap[0].timestamp() <= t < gap[1].timestamp()]

    def test_no_series_is_empty(self, world: World) -> None:
        ref = world.machine()
        start, end = self.window(world)
        before = [(t, 0.5) for t in self.minutes(start, -30, -10)]
        world.push(ref, device=0, signal=Signal.UTILISATION, samples=before)
        assert self.ask(world, [ref], start=start, end=end).series == ()

    def test_asking_for_nothing_is_no_mistake(self, world: World) -> None:
        start, end = self.window(world)
        answer = telemetry(world).samples([], start=start, end=end)
        assert answer == TelemetryAnswer(series=())

    def test_a_part_that_fails_is_a_fault_and_sinks_no_other(self, world: World) -> None:
        here, there = world.machine(), world.machine(elsewhere=True)
        start, end = self.window(world)
        for ref in (here, there):
            world.push(ref, device=0, signal=Signal.UTILISATION, samples=[(t, 0.5) for t in self.minutes(start, 0, 60)])
        found = alive(inventory(world).list())
        with world.unreachable(there):
            answer = telemetry(world).samples([found[here], found[there]], start=start, end=end)
        assert {series.ref for series in answer.series} == {here}
        assert len(answer.faults) == 1
        assert answer.faults[0].fault is not None
        assert answer.faults[0].fault.code in CODES

    def test_asking_changes_nothing(self, world: World) -> None:
        ref = world.machine()
        start, end = self.window(world)
        before = world.snapshot()
        self.ask(world, [ref], start=start, end=end)
        assert world.snapshot() == before


class PricesContract:
    """Knows what an hour costs, or says nothing."""

    def test_a_price_is_whole_micro_units_of_a_named_currency_from_a_named_source(self, world: World) -> None:
        record = paid(world, world.machine())
        price = prices(world).quote([record])[record.ref]
        assert type(price.rate_micros) is int
        assert price.rate_micros > 0
        assert len(price.currency) == 3
        assert price.currency == price.currency.upper()
        assert price.source

    def test_an_unknown_price_is_left_out(self, world: World) -> None:
        known, unknown = paid(world, world.machine()), paid(world, world.machine(priced=False))
        quoted = prices(world).quote([known, unknown])
        assert set(quoted) == {known.ref}

    def test_what_is_stopped_is_quoted_as_if_it_ran(self, world: World) -> None:
        ref = world.machine()
        record = paid(world, ref)
        running = prices(world).quote([record])[record.ref]
        stop(world, ref)
        (later,) = (one for one in inventory(world).list().records if one.ref == record.ref)
        assert prices(world).quote([later])[record.ref] == running

    def test_quoting_changes_nothing(self, world: World) -> None:
        record = listed(world, world.machine())
        before = world.snapshot()
        prices(world).quote([record])
        assert world.snapshot() == before


class ActuatorContract:
    """Stops and restores one machine, says why when it cannot, and harms nothing else."""

    def test_a_stop_stops_that_machine_and_no_other(self, world: World) -> None:
        target, neighbour = world.machine(), world.machine()
        stop(world, target)
        assert world.state(target) in (State.STOPPED, State.SUSPENDED)
        assert inventory(world).describe(target).state is world.state(target)
        assert listed(world, target).state is world.state(target), "what is stopped is there still"
        assert world.state(neighbour) is State.RUNNING

    def test_stopping_twice_is_success_and_no_harm(self, world: World) -> None:
        ref = world.machine()
        stop(world, ref)
        before = world.snapshot()
        for request_id in ("curfew-stop-1", "curfew-stop-2"):
            actuator(world).act(ref, stopping_verb(world, ref), request_id=request_id)
        world.settle()
        assert world.snapshot() == before

    def test_a_stop_on_its_way_may_be_asked_for_again(self, world: World) -> None:
        ref = world.machine()
        for request_id in ("curfew-stop-1", "curfew-stop-1", "curfew-stop-2"):
            actuator(world).act(ref, stopping_verb(world, ref), request_id=request_id)
        world.settle()
        assert world.state(ref) in (State.STOPPED, State.SUSPENDED)

    def test_restoring_brings_it_back_as_it_was(self, world: World) -> None:
        ref = world.machine(tags={"project": "vision"})
        before = inventory(world).describe(ref)
        remembered = stop(world, ref)
        actuator(world).restore(ref, remembered, request_id="curfew-restore-1")
        world.settle()
        assert world.state(ref) is State.RUNNING
        after = inventory(world).describe(ref)
        assert (after.incarnation, after.sku, after.tags) == (before.incarnation, before.sku, before.tags)
        if before.launched_at is not None:
            assert after.launched_at is not None
            assert after.launched_at >= before.launched_at

    def test_restoring_twice_is_success(self, world: World) -> None:
        ref = world.machine()
        remembered = stop(world, ref)
        for request_id in ("curfew-restore-1", "curfew-restore-1", "curfew-restore-2"):
            actuator(world).restore(ref, remembered, request_id=request_id)
            world.settle()
        assert world.state(ref) is State.RUNNING

    def test_remembering_changes_nothing_and_is_plain_json(self, world: World) -> None:
        ref = world.machine()
        record = inventory(world).describe(ref)
        before = world.snapshot()
        remembered = actuator(world).remember(record, stopping_verb(world, ref))
        assert json.loads(json.dumps(remembered)) == remembered
        assert world.snapshot() == before

    def test_a_vanished_machine_cannot_be_stopped(self, world: World) -> None:
        ref = world.machine()
        world.vanish(ref)
        with pytest.raises(errors.NotFound):
            actuator(world).act(ref, stopping_verb(world, ref), request_id="curfew-stop-1")
        assert gone(world.state(ref))

    def test_a_vanished_machine_cannot_be_restored(self, world: World) -> None:
        ref = world.machine()
        remembered = stop(world, ref)
        world.vanish(ref)
        with pytest.raises(errors.NotFound):
            actuator(world).restore(ref, remembered, request_id="curfew-restore-1")
        assert gone(world.state(ref))

    def test_a_verb_that_is_not_declared_is_refused(self, world: World) -> None:
        ref = world.machine()
        declared = world.provider.capabilities.verbs[ref.kind]
        undeclared = [verb for verb in Verb if verb not in declared]
        assert undeclared, "a provider that declares every verb declares START, which is `restore`"
        before = world.snapshot()
        for verb in undeclared:
            with pytest.raises(errors.Unsupported):
                actuator(world).act(ref, verb, request_id=f"curfew-{verb}")
        assert world.snapshot() == before

    def test_read_only_credentials_see_but_do_not_act(self, world: World) -> None:
        ref = world.machine()
        with world.read_only():
            assert inventory(world).describe(ref).state is State.RUNNING
            with pytest.raises(errors.Forbidden) as refused:
                actuator(world).act(ref, stopping_verb(world, ref), request_id="curfew-stop-1")
        assert refused.value.permission
        assert world.state(ref) is State.RUNNING

    def test_read_only_credentials_do_not_restore(self, world: World) -> None:
        ref = world.machine()
        remembered = stop(world, ref)
        with world.read_only(), pytest.raises(errors.Forbidden) as refused:
            actuator(world).restore(ref, remembered, request_id="curfew-restore-1")
        assert refused.value.permission
        assert world.state(ref) is not State.RUNNING

    def test_closing_twice_is_no_mistake(self, world: World) -> None:
        world.machine()
        inventory(world).list()
        world.provider.close()
        world.provider.close()

    def test_no_call_outlasts_what_is_declared(self, world: World) -> None:
        assert 0 < world.provider.capabilities.act_timeout_seconds <= 300


class FailureContract:
    """Failures come in our words only, and are never taken for an answer."""

    def calls(self, world: World, ref: ResourceRef) -> dict[str, Callable[[], object]]:
        """Every call that asks the cloud something, ready to be made when it fails."""
        listed(world, ref)  # as it goes in a cycle
        verb = stopping_verb(world, ref)
        remembered = actuator(world).remember(inventory(world).describe(ref), verb)
        return {
            "list": lambda: inventory(world).list(),
            "describe": lambda: inventory(world).describe(ref),
            "act": lambda: actuator(world).act(ref, verb, request_id="curfew-stop-1"),
            "restore": lambda: actuator(world).restore(ref, remembered, request_id="curfew-restore-1"),
        }

    @pytest.mark.parametrize("call", ["describe", "act", "restore"])
    @pytest.mark.parametrize("fault", [errors.Throttled, errors.Unreachable])
    def test_a_failing_cloud_is_told_in_our_words(self, world: World, call: str, fault: type[ProviderError]) -> None:
        ref = world.machine()
        made = self.calls(world, ref)[call]
        with world.throttled() if fault is errors.Throttled else world.unreachable(), pytest.raises(fault) as told:
            made()
        assert told.value.sentence
        assert told.value.retry
        assert told.value.retry_after is None or told.value.retry_after >= 0
        assert world.state(ref) is State.RUNNING

    @pytest.mark.parametrize("fault", [errors.Throttled, errors.Unreachable])
    def test_a_failing_cloud_is_never_an_empty_one(self, world: World, fault: type[ProviderError]) -> None:
        record = listed(world, world.machine())
        start, end = world.now() - timedelta(hours=1), world.now()
        with world.throttled() if fault is errors.Throttled else world.unreachable():
            try:
                answer = inventory(world).list()
            except fault:
                pass
            else:
                assert answer.parts
                assert not any(part.complete for part in answer.parts)
                assert {part.fault.code for part in answer.parts if part.fault is not None} == {fault.code}
            if world.provider.telemetry is None:
                return
            try:
                samples = world.provider.telemetry.samples([record], start=start, end=end)
            except fault:
                return
            assert samples.series == ()
            assert samples.faults

    @pytest.mark.parametrize("fault", [errors.Throttled, errors.Unreachable])
    def test_what_became_of_acts_is_not_made_up(self, world: World, fault: type[ProviderError]) -> None:
        """Of a provider whose cloud accepts acts before they are done; where acts are done, nothing becomes of them."""
        ref = world.machine()
        stop(world, ref)
        operations = world.provider.operations
        if operations is None:
            return
        acts = {"curfew-stop-1": ref, "curfew-stop-nobody-asked-for": ref}
        assert operations.failures(acts) == {}
        with world.throttled() if fault is errors.Throttled else world.unreachable():
            assert operations.failures(acts) == {}

    def test_restoring_what_runs_is_success(self, world: World) -> None:
        ref = world.machine()
        self.calls(world, ref)["restore"]()
        world.settle()
        assert world.state(ref) is State.RUNNING


class ProviderContract(InventoryContract, TelemetryContract, PricesContract, ActuatorContract, FailureContract):
    """All of it."""
