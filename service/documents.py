"""The documents people apply: sources, projects, policies and exemptions, as validated values.

Both doors (files and `PUT`) use these same models, so what is accepted and how a mistake is named is the same.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Literal, Protocol
from zoneinfo import ZoneInfo, available_timezones

from babel.numbers import list_currencies
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from policies.policy import Mode, Policy
from policies.quantities import Duration
from providers import registry

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""Lower case letters, digits and inner hyphens, at most 63: fits every cloud's labels."""


def nearest(word: str, candidates: Any) -> str:
    """` Did you mean 'x'?` for a near miss, else nothing."""
    from difflib import get_close_matches

    close = get_close_matches(str(word), [str(c) for c in candidates], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"{value!r} is no time zone{nearest(value, available_timezones()) or '; write it like Asia/Ho_Chi_Minh'}")
    return value


def _currency(value: str) -> str:
    if value not in list_currencies():
        raise ValueError(f"{value!r} is no ISO 4217 currency code{nearest(value.upper(), list_currencies())}")
    return value


Address = Annotated[str, Field(pattern=r"^[^@\s<>,;\"]+@[^@\s<>,;\"]+$", max_length=254)]
"""A mail address; private domains such as `lead@corp.local` are fine."""
TimeZone = Annotated[str, AfterValidator(_zone)]
Currency = Annotated[str, AfterValidator(_currency)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name


class Source(_Document):
    """A cloud account, project, subscription or cluster, and how to reach it.

    Fields beyond these are the provider's own and are checked by its `Config`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    provider: str
    ceiling: Mode = Mode.ENFORCE
    """Caps every policy on this source's resources."""
    telemetry_interval: Duration = Field(default="5m", validate_default=True)  # type: ignore[assignment]
    """How often metrics are asked for; clouds bill for the asking. The re-check before an act always asks anew."""

    @model_validator(mode="after")
    def _provider_fields(self) -> Source:
        if self.provider not in registry.known():
            raise ValueError(f"provider: there is none called {self.provider!r}{nearest(self.provider, registry.known())}")
        registry.load(self.provider).Config.model_validate(self.config)
        return self

    @property
    def config(self) -> dict[str, Any]:
        """The provider's own fields, with `${SECRET}`s unresolved."""
        return dict(self.__pydantic_extra__ or {})


class Match(BaseModel):
    """All that is named must hold; a project lists several, any of which makes a resource its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tags: dict[str, str] = Field(default_factory=dict)
    accounts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if not (self.tags or self.accounts or self.sources or self.namespaces or self.owners):
            raise ValueError("an empty match would claim everything; name tags, accounts, sources, namespaces or owners")
        return self


class Project(_Document):
    """Who pays, who is told, in which time zone and currency, and how its resources are recognised."""

    owners: tuple[Address, ...] = ()
    budget_owners: tuple[Address, ...] = ()
    timezone: TimeZone = "UTC"
    currency: Currency = "USD"
    match: tuple[Match, ...] = ()
    notify: tuple[str, ...] = ()
    """Further channels, Apprise URLs with `${SECRET}`s."""
    description: str = ""

    @property
    def zone(self) -> tzinfo:
        return ZoneInfo(self.timezone)


class Exemption(_Document):
    """Who is left alone, why, and until when. It always expires."""

    resources: tuple[str, ...] = ()
    """Ids of ours, external ids or names."""
    projects: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)
    policies: tuple[str, ...] = ()
    """Which policies it is from; empty means from all."""
    until: datetime
    """Exclusive end, with its offset."""
    reason: str = Field(min_length=3)

    @model_validator(mode="after")
    def _names_something(self) -> Exemption:
        if self.until.tzinfo is None:
            raise ValueError("until: needs its offset, like 2026-12-01T18:00:00Z or …+07:00")
        if not (self.resources or self.projects or self.tags):
            raise ValueError("an exemption names resources, projects or tags; exempting everything is what `curfew hold` is for")
        return self

    @property
    def until_utc(self) -> datetime:
        return self.until.astimezone(UTC)


POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)

Kind = Literal["source", "project", "policy", "exemption"]
KINDS: tuple[Kind, ...] = ("source", "project", "policy", "exemption")
AnyDocument = Source | Project | Policy | Exemption
MODELS: dict[Kind, TypeAdapter[Any]] = {
    "source": TypeAdapter(Source),
    "project": TypeAdapter(Project),
    "policy": POLICY,
    "exemption": TypeAdapter(Exemption),
}


class Named(Protocol):
    """What every document has."""

    @property
    def name(self) -> str: ...
