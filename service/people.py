"""What people ask for: snooze, approve, dismiss, stop now, undo, hold. Each is one transaction with one audit line.

Used alike by the API, the links in mails and the command. Nothing here calls a cloud; a cycle carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from service.store.tables import Action, Finding, Hold


class NotPossible(Exception):
    """What was asked does not fit the state things are in. `code` is stable, the text says what would."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who asks, as the audit log will name them: `token:ci`, `link:lead@example.org`."""

    actor: str


def snooze(session: Session, finding: Finding, *, until: datetime, reason: str, by: Person, now: datetime) -> None:
    """Leave the resource alone until then; a fresh warning and grace follow."""
    raise NotImplementedError


def approve(session: Session, finding: Finding, *, by: Person, now: datetime) -> None:
    """Say yes to an act whose policy requires approval."""
    raise NotImplementedError


def dismiss(session: Session, finding: Finding, *, reason: str, by: Person, now: datetime) -> None:
    """A person says no; the finding ends and reopens only if the breach ends and comes back."""
    raise NotImplementedError


def stop_now(session: Session, finding: Finding, *, by: Person, now: datetime) -> None:
    """Act without waiting for grace; protection, preconditions and ceilings still hold."""
    raise NotImplementedError


def undo(session: Session, action: Action, *, by: Person, now: datetime) -> Action:
    """Ask for an action to be put back; returns the new action that will do it."""
    raise NotImplementedError


def hold(session: Session, *, project: str | None, until: datetime | None, reason: str, by: Person, now: datetime) -> Hold:
    """Stop all acting at once, everywhere or in one project."""
    raise NotImplementedError


def lift(session: Session, *, project: str | None, by: Person, now: datetime) -> list[Hold]:
    """End the active holds of that reach; every grace in it starts anew."""
    raise NotImplementedError
