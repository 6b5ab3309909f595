"""What one look makes of what was known: new, changed, restarted, missing, ended, orphaned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.records import Fault, InventoryAnswer, Kind, PartReport, Protection, ResourceRecord, State
from service.model import Known, SourceAnswer
from service.pipeline.reconcile import Reconciled, reconcile
from tests.pipeline.builders import NOW, REGION, SOURCE, answer, hours, known, minutes, record

ONE = known()


def look(*answers: SourceAnswer, at: Known | None = ONE, sources: tuple[str, ...] = (SOURCE,)) -> Reconciled:
    return reconcile({} if at is None else {at.id: at}, answers, sources, NOW)


def after(*answers: SourceAnswer, at: Known | None = ONE, sources: tuple[str, ...] = (SOURCE,)) -> Known:
    [found] = look(*answers, at=at, sources=sources).resources
    return found


def halted(state: State = State.STOPPED, since: timedelta = hours(2)) -> Known:
    return known(record=record(state=state), started_at=None, state_since=NOW - since)


MISSING = replace(ONE, missing_since=NOW - minutes(5))
GONE_FOR_A_WHILE = replace(ONE, orphaned_at=NOW - hours(1))
LOCK = Protection(source="curfew-protect", sentence="its tag curfew-protect is 'yes'")

SENTENCES: dict[str, tuple[Known | None, SourceAnswer, Callable[[Known], object], object]] = {
    "a new machine began when its cloud says": (
        None,
        answer(record()),
        lambda k: (k.first_seen, k.started_at, k.restarted_at),
        (NOW, NOW - hours(24), None),
    ),
    "a start in the future is a start now": (
        None,
        answer(record(launched_at=NOW + hours(1))),
        lambda k: k.started_at,
        NOW,
    ),
    "a machine that is new and stopped has not started": (
        None,
        answer(record(state=State.STOPPED)),
        lambda k: k.started_at,
        None,
    ),
    "nothing changed": (ONE, answer(record()), lambda k: k, ONE),
    # missing
    "missing once from a complete answer: missing, still there": (
        ONE,
        answer(),
        lambda k: (k.missing_since, k.ended_at, k.record.state),
        (NOW, None, State.RUNNING),
    ),
    "missing twice: ended when it was first missing": (
        MISSING,
        answer(),
        lambda k: (k.ended_at, k.record.state),
        (NOW - minutes(5), State.TERMINATED),
    ),
    "missing once and then there: never missing": (MISSING, answer(record()), lambda k: k, ONE),
    "missing from an incomplete part: as it was": (
        ONE,
        answer(regions=(), failed=[REGION]),
        lambda k: k,
        ONE,
    ),
    "missing a second time from an incomplete part: still only missing": (
        MISSING,
        answer(regions=(), failed=[REGION]),
        lambda k: k,
        MISSING,
    ),
    "another part's failure keeps nothing from being missing": (
        ONE,
        answer(failed=["eu-west-1"]),
        lambda k: k.missing_since,
        NOW,
    ),
    "a source that could not be asked: as it was": (
        MISSING,
        SourceAnswer(source=SOURCE, fault=Fault(code="Unreachable", sentence="no answer")),
        lambda k: k,
        MISSING,
    ),
    "another account answers: nothing of it is believed": (
        MISSING,
        answer(account="999999999999"),
        lambda k: k,
        MISSING,
    ),
    "the very first answer tells who the source is": (
        ONE,
        answer(record(), identity=None, account="999999999999"),
        lambda k: k,
        ONE,
    ),
    "terminated by id: ended now": (
        ONE,
        answer(record(state=State.TERMINATED)),
        lambda k: (k.ended_at, k.record.state),
        (NOW, State.TERMINATED),
    ),
    "missing and then listed as terminated: ended now": (
        MISSING,
        answer(record(state=State.TERMINATED)),
        lambda k: k.ended_at,
        NOW,
    ),
    # orphans
    "its region is no longer asked for: orphaned, not ended": (
        ONE,
        answer(regions=["eu-west-1"]),
        lambda k: (k.orphaned_at, k.ended_at, k.governed),
        (NOW, None, False),
    ),
    "an orphan stays one since it became one": (
        GONE_FOR_A_WHILE,
        answer(regions=["eu-west-1"]),
        lambda k: k,
        GONE_FOR_A_WHILE,
    ),
    "its region is asked for again: ours again": (GONE_FOR_A_WHILE, answer(record()), lambda k: k, ONE),
    # runs and restarts
    "stopped: the run is over": (
        ONE,
        answer(record(state=State.STOPPED)),
        lambda k: (k.started_at, k.state_since),
        (None, NOW),
    ),
    "stopped and started: a restart, at its cloud's word": (
        halted(),
        answer(record(launched_at=NOW - minutes(3))),
        lambda k: (k.started_at, k.restarted_at, k.state_since),
        (NOW - minutes(3),) * 3,
    ),
    "stopped and starting: a restart too": (
        halted(),
        answer(record(state=State.PENDING, launched_at=NOW - minutes(1))),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - minutes(1),) * 2,
    ),
    "a workload gets another pod: a fresh idle clock, and nobody restarted it": (
        known(record=record(kind=Kind.WORKLOAD)),
        answer(record(kind=Kind.WORKLOAD, launched_at=NOW - minutes(3))),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - minutes(3), None),
    ),
    "a workload at zero runs again: a restart": (
        known(record=record(kind=Kind.WORKLOAD, state=State.STOPPED), started_at=None),
        answer(record(kind=Kind.WORKLOAD, launched_at=NOW - minutes(3))),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - minutes(3),) * 2,
    ),
    "missing from the part that lists it, whatever its region": (
        known(record=record(kind=Kind.WORKLOAD, region="", listed_in="jobs.batch")),
        answer(regions=["pods", "jobs.batch"]),
        lambda k: k.missing_since,
        NOW,
    ),
    "the part that lists it did not answer: as it was": (
        known(record=record(kind=Kind.WORKLOAD, region="", listed_in="rayclusters.ray.io")),
        answer(regions=["pods", "jobs.batch"], failed=["rayclusters.ray.io"]),
        lambda k: (k.missing_since, k.orphaned_at),
        (None, None),
    ),
    "starting and then running is one start": (
        known(record=record(state=State.PENDING), started_at=NOW - minutes(2), restarted_at=NOW - minutes(2)),
        answer(record()),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - minutes(2),) * 2,
    ),
    "stopped and running again, and its cloud tells no launch: restarted now": (
        known(record=record(state=State.STOPPED, launched_at=None), started_at=None),
        answer(record(launched_at=None)),
        lambda k: (k.started_at, k.restarted_at),
        (NOW, NOW),
    ),
    "stopped and running again with the launch time of before: restarted now": (
        halted(),
        answer(record()),
        lambda k: (k.started_at, k.restarted_at, k.state_since),
        (NOW, NOW, NOW),
    ),
    "a later launch time alone tells of a restart between two looks": (
        ONE,
        answer(record(launched_at=NOW - minutes(2))),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - minutes(2),) * 2,
    ),
    "an earlier launch time does not": (
        ONE,
        answer(record(launched_at=NOW - hours(99))),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - hours(24), None),
    ),
    "a state nobody knows ends no run": (
        ONE,
        answer(record(state=State.UNKNOWN)),
        lambda k: k.started_at,
        NOW - hours(24),
    ),
    "running, unknown, running is one run": (
        known(record=record(state=State.UNKNOWN), started_at=NOW - hours(24)),
        answer(record()),
        lambda k: (k.started_at, k.restarted_at),
        (NOW - hours(24), None),
    ),
    "stopped, unknown, running is a restart, though its cloud tells no launch": (
        known(record=record(state=State.UNKNOWN, launched_at=None), started_at=None),
        answer(record(launched_at=None)),
        lambda k: (k.started_at, k.restarted_at),
        (NOW, NOW),
    ),
    # protections
    "a protection is dated when first seen": (
        ONE,
        answer(record(protections=(LOCK,))),
        lambda k: k.protected_since,
        NOW,
    ),
    "and keeps its date": (
        known(record=record(protections=(LOCK,)), protected_since=NOW - hours(9)),
        answer(record(protections=(LOCK,))),
        lambda k: k.protected_since,
        NOW - hours(9),
    ),
    "and loses it with the protection": (
        known(record=record(protections=(LOCK,)), protected_since=NOW - hours(9)),
        answer(record()),
        lambda k: k.protected_since,
        None,
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_one_look(sentence: str) -> None:
    before, said, of, expected = SENTENCES[sentence]
    assert of(after(said, at=before)) == expected


def test_a_deleted_source_orphans_its_resources_and_ends_none() -> None:
    found = after(at=ONE, sources=())
    assert (found.orphaned_at, found.ended_at, found.governed) == (NOW, None, False)


def test_what_was_terminated_before_it_was_ever_seen_is_not_kept() -> None:
    assert look(answer(record(state=State.TERMINATED)), at=None).resources == ()


def test_what_ended_and_comes_back_is_new() -> None:
    found = after(answer(record()), at=replace(ONE, ended_at=NOW - hours(1)))
    assert (found.first_seen, found.ended_at) == (NOW, None)


LOSSES: dict[str, tuple[Known, tuple[ResourceRecord, ...], bool]] = {
    "running and suddenly missing is lost": (ONE, (), True),
    "missing for the second time is no further loss": (MISSING, (), False),
    "stopped and missing is no loss": (halted(), (), False),
    "terminated by id is no loss": (ONE, (record(state=State.TERMINATED),), False),
    "still there is no loss": (ONE, (record(),), False),
    "a workload that is deleted is no loss": (known(record=record(kind=Kind.WORKLOAD)), (), False),
    "a node that is another resource's machine is no further loss": (
        known(record=record(kind=Kind.NODE), same_as="i-1"),
        (),
        False,
    ),
}


@pytest.mark.parametrize("sentence", LOSSES)
def test_what_the_breaker_counts_as_lost(sentence: str) -> None:
    before, records, is_lost = LOSSES[sentence]
    assert bool(look(answer(*records), at=before).lost) == is_lost


def test_what_was_not_described_in_this_look_is_not_seen() -> None:
    assert look(answer(record())).seen == {ONE.id}
    assert look(answer()).seen == set()
    assert look(answer(regions=(), failed=[REGION])).seen == set()


OURS, OTHERS = "123456789012", "999999999999"


@pytest.mark.parametrize(
    ("parts", "missing", "orphaned"),
    [
        pytest.param([(OURS, REGION, True)], True, False, id="its account's part is complete: missing"),
        pytest.param([(OURS, REGION, False)], False, False, id="its account's part is not: as it was"),
        pytest.param([(OURS, "*", False)], False, False, id="nothing of its account is known: as it was"),
        pytest.param([(OURS, "*", False), (OURS, REGION, True)], True, False, id="its region's part speaks first"),
        pytest.param(
            [(OURS, "*", False), (OTHERS, REGION, True)], False, False, id="another account's part is not its"
        ),
        pytest.param([(None, "*", False), (None, "eu-west-1", True)], False, False, id="no region is known for sure"),
        pytest.param(
            [(OTHERS, REGION, True)], False, True, id="its account is not asked any more: orphaned, not ended"
        ),
        pytest.param([(OTHERS, "*", False)], False, True, id="another account fails, its own is not asked: orphaned"),
    ],
)
def test_a_source_of_several_accounts(parts: list[tuple[str | None, str, bool]], missing: bool, orphaned: bool) -> None:
    told = tuple(PartReport(account=account, part=part, complete=complete) for account, part, complete in parts)
    found = after(
        SourceAnswer(source=SOURCE, identity=OURS, answer=InventoryAnswer(identity=OURS, records=(), parts=told))
    )
    assert (found.missing_since is not None, found.orphaned_at is not None) == (missing, orphaned)
    assert found.ended_at is None


TWO = ("another", SOURCE)


def test_two_sources_of_one_account_count_a_machine_once() -> None:
    found = look(answer(record()), answer(record(), source="another"), at=None, sources=TWO)
    assert len(found.resources) == 1
    assert found.resources[0].source == "another"  # the first by name


def test_a_machine_stays_with_the_source_it_was_seen_through() -> None:
    assert after(answer(record()), answer(record(), source="another"), sources=TWO).source == SOURCE


def test_what_one_source_lacks_and_another_sees_is_neither_missing_nor_lost() -> None:
    found = look(answer(), answer(record(), source="another"), sources=TWO)
    assert found.lost == ()
    assert (found.resources[0].missing_since, found.resources[0].source) == (None, "another")


@st.composite
def answers(draw: st.DrawFn) -> list[SourceAnswer]:
    """Up to three sources that see overlapping machines of one account, some in part, one as somebody else."""
    found = []
    for source in ("a", "b", SOURCE):
        names = draw(st.lists(st.sampled_from(["i-1", "i-2", "i-3"]), unique=True))
        states = [draw(st.sampled_from(list(State))) for _ in names]
        complete = draw(st.booleans())
        found.append(
            answer(
                *(record(name, state=state) for name, state in zip(names, states, strict=True)),
                source=source,
                account=draw(st.sampled_from(["123456789012", "123456789012", "999999999999"])),
                regions=[REGION] if complete else [],
                failed=[] if complete else [REGION],
            )
        )
    return found


BEFORE = {one.id: one for one in (known("i-1"), known("i-2", source="a"), known("i-3", source="b"))}


@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_sources_and_records_does_not_matter(said: list[SourceAnswer], random: object) -> None:
    whole = reconcile(BEFORE, said, ("a", "b", SOURCE), NOW)
    shuffled = list(said)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = reconcile(dict(reversed(BEFORE.items())), shuffled, (SOURCE, "b", "a"), NOW)
    assert (again.resources, again.seen) == (whole.resources, whole.seen)
    assert {one.id for one in again.lost} == {one.id for one in whole.lost}


@given(answers())
def test_nothing_vanishes_and_nothing_ends_at_first_sight_of_its_absence(said: list[SourceAnswer]) -> None:
    found = {one.id: one for one in reconcile(BEFORE, said, ("a", "b", SOURCE), NOW).resources}
    assert found.keys() >= BEFORE.keys()
    believed = [one.answer for one in said if one.answer is not None and not one.identity_changed]
    for key, before in BEFORE.items():
        states = {seen.state for one in believed for seen in one.records if seen.name == before.record.name}
        assert found[key].ended_at is None or State.TERMINATED in states
