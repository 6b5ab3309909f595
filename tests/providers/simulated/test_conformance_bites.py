"""The suite finds what is wrong: each way to break a provider fails the test that speaks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from threading import get_ident
from typing import Any

import pytest

from providers.conformance import ProviderContract
from providers.contract import Provider
from providers.errors import Forbidden, NoCapacity, NotFound, ProviderError, Throttled, Unreachable
from providers.records import (
    InventoryAnswer,
    Kind,
    Price,
    ResourceRecord,
    ResourceRef,
    Series,
    State,
    TelemetryAnswer,
    Verb,
)
from tests.providers.simulated.test_conformance import SimulatedWorld

RIGHT = ("gcp", Kind.INSTANCE)
"""A cloud that gives names again."""


class BrokenWorld(SimulatedWorld):
    """A right cloud behind a provider that is wrong in one way."""

    def __init__(self, wrong: Callable[[Part], Part]) -> None:
        super().__init__(*RIGHT)
        right = self._provider
        part = wrong(Part(right, self))
        self._provider = replace(
            right, inventory=part, telemetry=part, prices=part, actuator=part, operations=part, close=part.close
        )


class Part:
    """All parts in one, passing everything on; the mutants below override one thing."""

    def __init__(self, right: Provider, world: SimulatedWorld) -> None:
        assert right.inventory is not None
        assert right.telemetry is not None
        assert right.prices is not None
        assert right.actuator is not None
        assert right.operations is not None
        self.right = right
        self.world = world
        self.list = right.inventory.list
        self.describe = right.inventory.describe
        self.samples = right.telemetry.samples
        self.quote = right.prices.quote
        self.remember = right.actuator.remember
        self.act = right.actuator.act
        self.restore = right.actuator.restore
        self.failures = right.operations.failures
        self.close = right.close


def of_list(change: Callable[[InventoryAnswer], InventoryAnswer]) -> Callable[[Part], Part]:
    def wrong(part: Part) -> Part:
        right = part.list
        part.list = lambda: change(right())
        return part

    return wrong


def of_describe(change: Callable[[ResourceRecord], ResourceRecord]) -> Callable[[Part], Part]:
    def wrong(part: Part) -> Part:
        right = part.describe
        part.describe = lambda ref: change(right(ref))
        return part

    return wrong


def of_samples(change: Callable[[TelemetryAnswer], TelemetryAnswer]) -> Callable[[Part], Part]:
    def wrong(part: Part) -> Part:
        right = part.samples

        def samples(records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
            return change(right(records, start=start, end=end))

        part.samples = samples
        return part

    return wrong


def of_series(change: Callable[[Series], Series]) -> Callable[[Part], Part]:
    return of_samples(lambda answer: replace(answer, series=tuple(change(series) for series in answer.series)))


def of_quote(change: Callable[[Price], Price]) -> Callable[[Part], Part]:
    def wrong(part: Part) -> Part:
        right = part.quote
        part.quote = lambda records: {ref: change(price) for ref, price in right(records).items()}
        return part

    return wrong


def a_wider_window(part: Part) -> Part:
    right = part.samples

    def samples(records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        return right(records, start=start - timedelta(minutes=10), end=end)

    part.samples = samples
    return part


def everything_sampled(part: Part) -> Part:
    right = part.samples

    def samples(records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        return right(part.list().records if records else [], start=start, end=end)

    part.samples = samples
    return part


def holes_filled(series: Series) -> Series:
    times = tuple(range(series.times[0], series.times[-1] + 1, 60))
    return replace(series, times=times, values=(0.0,) * len(times))


def a_free_machine(part: Part) -> Part:
    right = part.quote

    def quote(records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        return {r.ref: Price(rate_micros=0, currency="USD", source="?") for r in records} | dict(right(records))

    part.quote = quote
    return part


def an_act(change: Callable[[Part, ResourceRef, Verb, str], None]) -> Callable[[Part], Part]:
    def wrong(part: Part) -> Part:
        def act(ref: ResourceRef, verb: Verb, *, request_id: str, reason: str = "") -> None:
            change(part, ref, verb, request_id)

        part.act = act
        return part

    return wrong


def right_act(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    assert part.right.actuator is not None
    part.right.actuator.act(ref, verb, request_id=request_id)


def stop_the_neighbours_too(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    right_act(part, ref, verb, request_id)
    for external_id in part.world.cloud.machines:
        part.world.cloud.stop(external_id)


def complain_when_stopped(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    state = part.world.state(ref)
    right_act(part, ref, verb, request_id)
    if state is not State.RUNNING:
        raise NotFound("it is stopped already")


def shrug_at_the_vanished(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    if part.world.state(ref) is not None:
        right_act(part, ref, verb, request_id)


def take_any_verb(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    right_act(part, ref, Verb.STOP, request_id)


def name_no_permission(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    try:
        right_act(part, ref, verb, request_id)
    except Forbidden:
        raise Forbidden("no") from None


def leak_the_sdk(part: Part, ref: ResourceRef, verb: Verb, request_id: str) -> None:
    try:
        right_act(part, ref, verb, request_id)
    except ProviderError as error:
        raise RuntimeError("ClientError(ThrottlingException)") from error


def take_no_reason(part: Part) -> Part:
    def act(ref: ResourceRef, verb: Verb, *, request_id: str) -> None:
        right_act(part, ref, verb, request_id)

    part.act = act  # type: ignore[assignment]  # wrong
    return part


def no_restore(part: Part) -> Part:
    def restore(ref: ResourceRef, remembered: Mapping[str, Any], *, request_id: str) -> None:
        """Says yes and does nothing."""

    part.restore = restore
    return part


def a_memory_that_is_no_json(part: Part) -> Part:
    part.remember = lambda record, verb: {"at": record.launched_at}
    return part


def a_look_that_changes(part: Part) -> Part:
    right = part.list

    def look() -> InventoryAnswer:
        for machine in part.world.cloud.machines.values():
            machine.tags["seen"] = "yes"
        return right()

    part.list = look
    return part


def failures_swallowed(part: Part) -> Part:
    right = part.list

    def look() -> InventoryAnswer:
        answer = right()
        return replace(answer, parts=tuple(replace(p, complete=True, fault=None) for p in answer.parts))

    part.list = look
    return part


def of_records(change: Callable[[ResourceRecord], ResourceRecord]) -> Callable[[Part], Part]:
    return of_list(lambda answer: replace(answer, records=tuple(change(record) for record in answer.records)))


def every_look_counted(part: Part) -> Part:
    looks = count()
    return of_records(lambda record: replace(record, tags={"looks": str(next(looks))}))(part)


def of_one_thread_only(part: Part) -> Part:
    right, mine = part.list, get_ident()

    def look() -> InventoryAnswer:
        if get_ident() != mine:
            raise Unreachable("this connection is another thread's")
        return right()

    part.list = look
    return part


def any_accounts_machine(part: Part) -> Part:
    right = part.describe
    part.describe = lambda ref: right(replace(ref, account=part.world.identity))
    return part


def an_end_made_up(part: Part) -> Part:
    part.failures = lambda acts: {request_id: NoCapacity("it has failed, surely") for request_id in acts}
    return part


def of_one_end_only(part: Part) -> Part:
    ends = iter([None])
    part.close = lambda: next(ends)
    return part


WRONG: dict[str, tuple[Callable[[Part], Part], str]] = {
    "lists a machine twice": (
        of_list(lambda answer: replace(answer, records=answer.records * 2)),
        "test_the_list_names_each_machine_once",
    ),
    "lists one machine less": (
        of_list(lambda answer: replace(answer, records=answer.records[1:])),
        "test_the_list_names_each_machine_once",
    ),
    "names no account": (
        of_list(lambda answer: replace(answer, identity="")),
        "test_the_list_names_whom_it_speaks_for",
    ),
    "loses its name with a part": (
        of_list(lambda answer: answer if answer.complete else replace(answer, identity="?")),
        "test_a_part_that_fails_is_reported_and_sinks_no_other",
    ),
    "tells of machines that no part speaks for": (
        of_list(lambda answer: replace(answer, parts=tuple(replace(part, part="all") for part in answer.parts))),
        "test_each_machine_has_a_part_that_speaks_for_it",
    ),
    "tells a part twice": (
        of_list(lambda answer: replace(answer, parts=answer.parts * 2)),
        "test_each_machine_has_a_part_that_speaks_for_it",
    ),
    "tells of parts as another account's": (
        of_list(lambda answer: replace(answer, parts=tuple(replace(part, account="?") for part in answer.parts))),
        "test_each_machine_has_a_part_that_speaks_for_it",
    ),
    "tells of each look something new": (
        every_look_counted,
        "test_two_looks_at_what_did_not_change_are_the_same",
    ),
    "takes a name for a machine": (
        of_records(lambda record: replace(record, incarnation=record.name)),
        "test_a_machine_made_anew_under_the_same_name_is_another_one",
    ),
    "answers one thread only": (of_one_thread_only, "test_several_threads_may_look_at_once"),
    "overlooks a tag that protects": (
        of_describe(
            lambda record: replace(
                record, protections=tuple(one for one in record.protections if one.source != "curfew-protect")
            )
        ),
        "test_a_tag_that_says_so_protects",
    ),
    "has no words for what is lost": (
        of_describe(lambda record: replace(record, losses=tuple(replace(one, sentence="") for one in record.losses))),
        "test_what_stands_in_the_way_is_told_in_words",
    ),
    "looks for another account's machine here": (
        any_accounts_machine,
        "test_another_accounts_machine_is_not_looked_for_in_this_one",
    ),
    "covers no part": (
        of_list(lambda answer: replace(answer, parts=())),
        "test_an_empty_cloud_is_an_answer",
    ),
    "says nothing of a part that failed": (
        failures_swallowed,
        "test_a_part_that_fails_is_reported_and_sinks_no_other",
    ),
    "describes otherwise than it lists": (
        of_describe(lambda record: replace(record, tags={})),
        "test_describe_agrees_with_the_list_and_knows_all",
    ),
    "describes half": (
        of_describe(lambda record: replace(record, fully_described=False)),
        "test_describe_agrees_with_the_list_and_knows_all",
    ),
    "overlooks protection": (
        of_describe(lambda record: replace(record, protections=())),
        "test_describe_reports_protection",
    ),
    "tags what it sees": (a_look_that_changes, "test_looking_changes_nothing"),
    "answers more than the window": (a_wider_window, "test_samples_are_ascending_within_the_window_and_in_our_units"),
    "answers in per cent": (
        of_series(lambda series: replace(series, values=tuple(100 * value for value in series.values))),
        "test_samples_are_ascending_within_the_window_and_in_our_units",
    ),
    "answers newest first": (
        of_series(lambda series: replace(series, times=series.times[::-1])),
        "test_samples_are_ascending_within_the_window_and_in_our_units",
    ),
    "averages the peak away": (
        of_series(lambda s: replace(s, values=(sum(s.values) / len(s.values),) * len(s.values))),
        "test_the_highest_moment_is_not_averaged_away",
    ),
    "gives one series for all GPUs": (
        of_samples(lambda answer: replace(answer, series=answer.series[:1])),
        "test_each_gpu_has_its_own_series",
    ),
    "answers for all machines": (everything_sampled, "test_only_what_was_asked_for_is_answered"),
    "fills holes with zeros": (of_series(holes_filled), "test_absence_is_never_filled_in"),
    "keeps quiet about failed telemetry": (
        of_samples(lambda answer: replace(answer, faults=())),
        "test_a_part_that_fails_is_a_fault_and_sinks_no_other",
    ),
    "prices in broken numbers": (
        of_quote(lambda price: replace(price, rate_micros=price.rate_micros / 3)),  # type: ignore[arg-type]  # wrong
        "test_a_price_is_whole_micro_units_of_a_named_currency_from_a_named_source",
    ),
    "calls an unknown price zero": (a_free_machine, "test_an_unknown_price_is_left_out"),
    "stops nothing": (an_act(lambda *_: None), "test_a_stop_stops_that_machine_and_no_other"),
    "forgets what is stopped": (
        of_list(lambda answer: replace(answer, records=tuple(r for r in answer.records if r.state is State.RUNNING))),
        "test_a_stop_stops_that_machine_and_no_other",
    ),
    "wants no reason": (take_no_reason, "test_a_stop_stops_that_machine_and_no_other"),
    "can be closed once": (of_one_end_only, "test_closing_twice_is_no_mistake"),
    "stops its neighbours": (an_act(stop_the_neighbours_too), "test_a_stop_stops_that_machine_and_no_other"),
    "complains of what is stopped": (an_act(complain_when_stopped), "test_stopping_twice_is_success_and_no_harm"),
    "shrugs at what vanished": (an_act(shrug_at_the_vanished), "test_a_vanished_machine_cannot_be_stopped"),
    "takes any verb for a stop": (an_act(take_any_verb), "test_a_verb_that_is_not_declared_is_refused"),
    "names no permission": (an_act(name_no_permission), "test_read_only_credentials_see_but_do_not_act"),
    "restores nothing": (no_restore, "test_restoring_brings_it_back_as_it_was"),
    "remembers what is no JSON": (a_memory_that_is_no_json, "test_remembering_changes_nothing_and_is_plain_json"),
}


@pytest.mark.parametrize(("wrong", "test"), WRONG.values(), ids=WRONG)
def test_the_suite_catches_a_provider_that(wrong: Callable[[Part], Part], test: str) -> None:
    getattr(ProviderContract(), test)(SimulatedWorld(*RIGHT))
    with pytest.raises((Exception, pytest.fail.Exception)):
        getattr(ProviderContract(), test)(BrokenWorld(wrong))


def test_the_suite_catches_a_provider_that_leaks_its_sdks_errors() -> None:
    with pytest.raises(RuntimeError):
        ProviderContract().test_a_failing_cloud_is_told_in_our_words(
            BrokenWorld(an_act(leak_the_sdk)), "act", Throttled
        )


def test_the_suite_catches_a_provider_that_takes_a_failing_cloud_for_an_empty_one() -> None:
    with pytest.raises(AssertionError):
        ProviderContract().test_a_failing_cloud_is_never_an_empty_one(BrokenWorld(failures_swallowed), Throttled)


def test_the_suite_catches_a_provider_that_makes_up_what_became_of_acts() -> None:
    with pytest.raises(AssertionError):
        ProviderContract().test_what_became_of_acts_is_not_made_up(BrokenWorld(an_end_made_up), Throttled)
