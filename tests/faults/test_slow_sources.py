"""A source that does not answer: the others are not kept waiting, it is said, and nothing is asked twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from providers.contract import Capabilities, Provider
from providers.records import (
    CapacityType,
    InventoryAnswer,
    Kind,
    PartReport,
    Price,
    ResourceRecord,
    ResourceRef,
    Series,
    Signal,
    State,
    TelemetryAnswer,
)
from service import asking
from service.documents import Source
from service.fleet import Member
from service.pipeline import collect as collecting
from service.pipeline.collect import Collected, collect
from service.pipeline.samples import SampleMemory

NOW = datetime(2026, 11, 16, 12, 3, tzinfo=UTC)
LATE = "it has been asked since 2026-11-16T12:03+00:00 and did not answer within 1 s"


@dataclass
class Account:
    """One cloud account whose answers wait for `gate` where `slow` says so."""

    name: str
    slow: str = ""
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)
    machines: int = 1

    def _say(self, what: str) -> None:
        self.asked.append(what)
        if what == self.slow:
            assert self.gate.wait(60)

    def list(self) -> InventoryAnswer:
        machines = self.machines
        self._say("listing")
        records = tuple(self.record(number) for number in range(machines))
        return InventoryAnswer(identity=self.name, records=records, parts=(PartReport(part="here", complete=True),))

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        raise NotImplementedError

    def quote(self, records: Sequence[ResourceRecord]) -> Mapping[ResourceRef, Price]:
        self._say("prices")
        return {record.ref: Price(rate_micros=1, currency="USD", source=self.name) for record in records}

    def samples(self, records: Sequence[ResourceRecord], *, start: datetime, end: datetime) -> TelemetryAnswer:
        self._say("telemetry")
        second = int(end.timestamp()) - 60
        return TelemetryAnswer(
            series=tuple(
                Series(ref=record.ref, device="0", signal=Signal.UTILISATION, times=(second,), values=(0.5,))
                for record in records
            )
        )

    def record(self, number: int) -> ResourceRecord:
        ref = ResourceRef(
            provider="aws", account=self.name, region="here", kind=Kind.INSTANCE, external_id=f"{self.name}-{number}"
        )
        return ResourceRecord(
            ref=ref,
            incarnation="1",
            name=ref.external_id,
            zone=None,
            sku="p5.48xlarge",
            gpu_vendor="nvidia",
            gpu_model="H100",
            gpu_count=8,
            capacity_type=CapacityType.ON_DEMAND,
            state=State.RUNNING,
        )

    def member(self) -> Member:
        """As if its document had just been applied."""
        provider = Provider(
            name="aws", capabilities=Capabilities(verbs={}), inventory=self, prices=self, telemetry=self
        )
        return Member(source=Source(name=self.name, provider="simulated"), provider=provider)


@dataclass
class Looks:
    """One look after the other at the same sources."""

    members: list[Member]
    memories: dict[str, SampleMemory] = field(default_factory=dict)
    identities: Mapping[str, str] = field(default_factory=dict)
    at: datetime = NOW

    def again(self) -> Collected:
        collected = collect(
            self.members, identities=self.identities, memories=self.memories, window=timedelta(hours=1), now=self.at
        )
        self.at += timedelta(minutes=1)
        return collected


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that does not wait for its gate answers within this, even on a busy machine."""
    monkeypatch.setattr(collecting, "PATIENCE", 1.0)


@pytest.fixture
def account() -> Iterator[Callable[..., Account]]:
    """Makes accounts, and lets all that hang go in the end."""
    made: list[Account] = []

    def make(name: str, **more: Any) -> Account:
        made.append(Account(name=name, **more))
        return made[-1]

    yield make
    for one in made:
        one.gate.set()
    for thread in threading.enumerate():
        if thread.name.partition(" ")[0] in ("listing", "prices", "telemetry"):
            thread.join(10)


def arrived(member: Member, what: str) -> None:
    """Waits until what was asked has been answered."""
    member.asked[what].answer.result(10)


Make = Callable[..., Account]


def test_a_source_that_hangs_is_told_of_in_words_and_the_others_are_seen(account: Make) -> None:
    stuck, well = account("stuck", slow="listing"), account("well")
    looked = Looks([stuck.member(), well.member()]).again()
    of_stuck, of_well = looked.answers
    assert of_stuck.answer is None
    assert of_stuck.fault is not None
    assert (of_stuck.fault.code, of_stuck.fault.sentence) == ("Unreachable", LATE)
    assert of_well.answer is not None
    assert {ref.account for ref in looked.quotes} == {"well"}
    assert len(looked.series) == 1


def test_forty_that_hang_keep_the_one_that_answers_waiting_no_longer_than_one(account: Make) -> None:
    members = [account(f"stuck-{number}", slow="listing").member() for number in range(40)]
    looked = Looks([*members, account("well").member()]).again()
    assert [answer.source for answer in looked.answers if answer.answer is not None] == ["well"]


def test_what_hangs_is_not_asked_a_second_time_nor_waited_for(account: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, well = account("stuck", slow="listing"), account("well")
    looks = Looks([stuck.member(), well.member()])
    looks.again()
    before = threading.active_count()
    monkeypatch.setattr(asking, "wait", no_waiting)
    looks.members = looks.members[:1]
    for _ in range(3):
        [answer] = looks.again().answers
        assert answer.fault is not None
        assert answer.fault.sentence == LATE, "the moment is that of the first asking"
    assert stuck.asked == ["listing"]
    assert threading.active_count() <= before


def no_waiting(*_: object, **__: object) -> None:
    raise AssertionError("it was waited for")


def test_a_listing_that_comes_late_is_not_used_and_it_is_asked_anew(account: Make) -> None:
    """It may tell of a time before something that was done since: what we stopped would look restarted."""
    slow = account("slow", slow="listing")
    looks = Looks([slow.member()])
    looks.again()
    slow.gate.set()
    arrived(looks.members[0], "listing")
    slow.machines = 2
    [answer] = looks.again().answers
    assert answer.answer is not None
    assert len(answer.answer.records) == 2
    assert slow.asked.count("listing") == 2


def test_a_document_that_was_changed_is_asked_at_once_though_the_old_one_hangs(account: Make) -> None:
    stuck = account("research", slow="listing")
    looks = Looks([stuck.member()])
    looks.again()
    mended = account("research")
    looks.members = [mended.member()]
    [answer] = looks.again().answers
    assert answer.answer is not None


def test_without_prices_in_time_there_are_none_and_it_is_said(account: Make) -> None:
    slow = account("slow", slow="prices")
    looks = Looks([slow.member()])
    looked = looks.again()
    assert looked.answers[0].answer is not None
    assert looked.quotes == {}
    assert said(looked, "slow") == {"prices": LATE}
    assert looked.telemetry({}).faults == ()
    assert looks.again().quotes == {}
    assert slow.asked.count("prices") == 1
    slow.gate.set()
    arrived(looks.members[0], "prices")
    assert len(looks.again().quotes) == 1
    assert slow.asked.count("prices") == 2, "prices of an earlier look are not those of new machines"


def test_without_samples_in_time_nothing_is_known_and_it_is_said(account: Make) -> None:
    slow = account("slow", slow="telemetry")
    looks = Looks([slow.member()])
    for _ in range(2):
        looked = looks.again()
        assert looked.series == {}
        assert said(looked, "slow") == {"telemetry": LATE}
        assert len(looked.telemetry({}).faults) == 1
    assert slow.asked.count("telemetry") == 1


def test_samples_that_come_late_are_not_asked_for_again(account: Make) -> None:
    slow = account("slow", slow="telemetry")
    looks = Looks([slow.member()])
    looks.again()
    slow.gate.set()
    arrived(looks.members[0], "telemetry")
    looked = looks.again()  # the interval is not over: what came late is all that is needed
    assert said(looked, "slow") == {}
    assert len(looked.series) == 1
    assert slow.asked.count("telemetry") == 1


def test_samples_known_before_are_back_with_those_that_came_late(account: Make) -> None:
    turning = account("turning")
    looks = Looks([turning.member()])
    looks.again()
    turning.slow = "telemetry"
    looks.at = NOW + timedelta(minutes=30)
    assert looks.again().series == {}, "while it is asked, the memory is lent"
    turning.gate.set()
    arrived(looks.members[0], "telemetry")
    [series] = next(iter(looks.again().series.values()))
    assert len(series.times) == 2


def test_a_service_that_stops_waits_for_nobody(account: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PATIENCE", 3600.0)
    stuck = account("stuck", slow="listing").member()
    threading.Timer(0.1, stuck.ending.set_result, [None]).start()
    [answer] = Looks([stuck]).again().answers
    assert answer.fault is not None
    assert answer.fault.sentence.endswith("and did not answer before the service was stopped")


def test_what_hangs_does_not_keep_the_process_from_ending(account: Make) -> None:
    stuck = account("stuck", slow="listing")
    Looks([stuck.member()]).again()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "listing stuck"]
    assert thread.daemon


def said(looked: Collected, source: str) -> dict[str, str]:
    """Part → what is said of it."""
    missing = {answer.source: answer.missing for answer in looked.answers}
    return {part.part: part.fault.sentence for part in missing[source] if part.fault is not None}
