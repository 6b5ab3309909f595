"""A service whose cycle is under way, with sources that owe it an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from providers.contract import Capabilities, Provider
from providers.progress import Progress
from providers.records import InventoryAnswer, ResourceRecord, ResourceRef
from service.asking import Asked
from service.documents import Source
from service.fleet import Member
from service.report import Report
from service.runtime import Runtime


@dataclass
class Company:
    """An inventory of many parts that tells how far it is."""

    told: Progress

    def progress(self) -> Progress:
        return self.told

    def list(self) -> InventoryAnswer:
        raise NotImplementedError

    def describe(self, ref: ResourceRef) -> ResourceRecord:
        raise NotImplementedError


def source(name: str, *, answered: tuple[str, ...] = (), waiting: tuple[str, ...] = ()) -> Member:
    """One of those parts, that was asked nothing yet; one without parts does not tell."""
    member = Member(
        source=Source(name=name, provider="simulated"),
        provider=Provider(name="simulated", capabilities=Capabilities(verbs={})),
    )
    if not answered and not waiting:
        return member
    assert member.provider is not None
    inventory = Company(Progress(answered=answered, waiting=waiting))
    return replace(member, provider=replace(member.provider, inventory=inventory))


def owes(member: Member, since: datetime, *about: str) -> Member:
    """It was asked that then, and has not answered."""
    member.asked.update({what: Asked(at=since) for what in about})
    return member


def has_answered(member: Member, at: datetime, about: str) -> Member:
    """It was asked that then, and nobody took its answer yet."""
    asked: Asked[None] = Asked(at=at)
    asked.answer.set_result(None)
    member.asked[about] = asked
    return member


def running(rt: Runtime, cycle: str, *members: Member, step: str = "collect") -> None:
    """As if this process ran that cycle, over these sources."""
    rt.running = Report(cycle=cycle, under_way=step, steps=[{"step": "read", "seconds": 0.01, "summary": ""}])
    rt.fleet._members = {member.source.name: member for member in members}
