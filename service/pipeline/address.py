"""Decides which channels a message goes to. Pure.

Owners and budget owners by mail (of spend budgets: the budget owners), the project's and the policy's further channels,
and the owner named on the machine when the address belongs to a domain the project already writes to. Anyone may set a
tag, so whoever is reached by one alone may keep the machine, and decide nothing else. When nobody is left, the
installation's own `CURFEW_NOTIFY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.documents import Project
from service.model import Message


def only_by_tag(message: Message, projects: Mapping[str, Project]) -> str | None:
    """The channel of whoever hears of it because a tag names them, and nobody who runs the project does."""
    named = message.payload.get("resource", {}).get("owner") or ""
    untagged = replace(message, payload={**message.payload, "resource": {}})
    channel = f"mail:{named}"
    return channel if channel not in channels_for(untagged, projects, ()) else None


def channels_for(message: Message, projects: Mapping[str, Project], fallback: Sequence[str]) -> tuple[str, ...]:
    """Each channel once, people first."""
    project = projects.get(message.project) if message.project else None
    found: list[str] = []
    if project is not None:
        people = _people(message, project)
        found += [f"mail:{address}" for address in people]
        domains = {_domain(address) for address in people}
        owner = message.payload.get("resource", {}).get("owner") or ""
        if "@" in owner and _domain(owner) in domains and " " not in owner:
            found.append(f"mail:{owner}")
        found += map(_channel, project.notify)
    found += map(_channel, message.policy_channels)
    if not found:
        found += map(_channel, fallback)
    return tuple(dict.fromkeys(found))


def _channel(entry: str) -> str:
    """Where a list takes addresses and URLs, an address means mail."""
    return f"mail:{entry}" if "@" in entry and "://" not in entry else entry


def _people(message: Message, project: Project) -> Sequence[str]:
    """Of money its budget owners hear, and its owners only where nobody is named for it."""
    if message.kind == "budget" and project.budget_owners:
        return project.budget_owners
    return (*project.owners, *project.budget_owners)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
