"""Finds who pays for a resource and who owns it, from its tags, account, source and namespace. Pure.

When two projects claim the same resource neither gets it: an ambiguous join is unknown, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from providers.records import ResourceRecord
from service.documents import Match, Project
from service.model import Known

OWNER_TAGS = ("owner", "created-by", "created_by", "createdby", "creator")
"""Tag keys that name a person, in this order, whatever their case."""


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Who pays, or why nobody could be found."""

    project: str | None
    owner: str | None
    claimed_by: tuple[str, ...] = ()
    """More than one: ambiguous."""


def attribute(record: ResourceRecord, source: str, projects: Mapping[str, Project]) -> Attribution:
    """The one project that claims a record, and the owner its tags name."""
    owner = owner_of(record.tags)
    claims = tuple(
        name
        for name, project in sorted(projects.items())
        if any(_matches(match, record, source, owner) for match in project.match)
    )
    return Attribution(project=claims[0] if len(claims) == 1 else None, owner=owner, claimed_by=claims)


def attributed(known: Known, projects: Mapping[str, Project], now: datetime) -> Known:
    """The resource with its project and owner; a change of project is dated, because it restarts a grace."""
    found = attribute(known.record, known.source, projects)
    if found.project == known.project:
        return known if found.owner == known.owner else replace(known, owner=found.owner)
    return replace(known, project=found.project, owner=found.owner, project_since=now)


def owner_of(tags: Mapping[str, str]) -> str | None:
    """The person a resource's tags name."""
    by_key = {key.lower(): value for key, value in sorted(tags.items())}
    return next((by_key[key].strip() for key in OWNER_TAGS if by_key.get(key, "").strip()), None)


def _matches(match: Match, record: ResourceRecord, source: str, owner: str | None) -> bool:
    """All that a match names holds."""
    namespace = record.ref.external_id.split("/", 1)[0] if record.ref.provider == "kubernetes" else None
    return (
        all(record.tags.get(key) == value for key, value in match.tags.items())
        and (not match.accounts or record.ref.account in match.accounts)
        and (not match.sources or source in match.sources)
        and (not match.namespaces or namespace in match.namespaces)
        and (not match.owners or owner in match.owners)
    )
