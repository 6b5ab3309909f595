"""The documents people apply: sources, projects, policies and exemptions, as validated values.

Both doors (files and `PUT`) use these same models, so what is accepted and how a mistake is named is the same.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Annotated, Any, Literal, Protocol
from zoneinfo import ZoneInfo, available_timezones

from babel.core import get_global
from babel.numbers import list_currencies
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from policies.policy import Mode, Policy, Remedy
from policies.quantities import AmountMicros, Duration, Share
from providers import registry
from providers.errors import ProviderError
from providers.records import CapacityType

LONGEST_WORD = 64
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"


def nearest(word: str, candidates: Iterable[Any]) -> str:
    """`; did you mean 'x'?` for a near miss, else nothing."""
    close = nearest_of(word, candidates)
    return f"; did you mean {close!r}?" if close else ""


def nearest_of(word: str, candidates: Iterable[Any]) -> str | None:
    """The candidate that was most likely meant. Nobody mistypes a name longer than a name may be."""
    from difflib import get_close_matches

    if len(str(word)) > LONGEST_WORD:
        return None
    texts = [str(candidate) for candidate in candidates]
    by_lower = {text.lower(): text for text in texts}
    close = get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def valid_name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError(no_name(value))
    return value


def no_name(value: str) -> str:
    return f"{value!r} is no name; use lower case letters, digits and inner hyphens, at most 63"


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(value: str) -> str:
    zones = _zones()
    if value not in zones:
        raise ValueError(f"{value!r} is no time zone{nearest(value, zones) or '; write it like Asia/Ho_Chi_Minh'}")
    return value


def valid_currency(value: str) -> str:
    if value not in list_currencies():
        raise ValueError(f"{value!r} is no ISO 4217 currency code{nearest(value, _paid_with())}")
    return value


@functools.cache
def _paid_with() -> frozenset[str]:
    """Currencies of today: who mistypes one does not mean marks or Yugoslav dinars."""
    of_territories = get_global("territory_currencies").values()
    return frozenset(code for found in of_territories for code, _, end, tender in found if end is None and tender)


def _address(value: str) -> str:
    fits = len(value) <= 254 and value.isprintable() and re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", value)
    if not fits:
        raise ValueError(f"{value!r} is no mail address; write it like lead@example.org")
    return value


def valid_channel(value: str) -> str:
    if MASK in value:
        raise ValueError(f"{MASK} stands for a secret that is not shown; write it again, best as ${{NAME}}")
    if not value.isprintable():
        raise ValueError("a channel holds no line breaks and no hidden characters")
    if "${" not in value and "://" not in value:
        _address(value)
    return value


Name = Annotated[str, AfterValidator(valid_name)]
"""Lower case letters, digits and inner hyphens, at most 63: fits every cloud's labels."""
Address = Annotated[str, AfterValidator(_address)]
"""A mail address; private domains such as `lead@corp.local` are fine."""
Channel = Annotated[str, AfterValidator(valid_channel)]
"""A mail address or an Apprise URL, with `${SECRET}`s."""
TimeZone = Annotated[str, AfterValidator(_zone)]
Currency = Annotated[str, AfterValidator(valid_currency)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name


def _percent(value: Any) -> Decimal:
    match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", value) if isinstance(value, str) else None
    if match is None or not 0 < Decimal(match[1]) <= 100:
        raise ValueError(f"{value!r} is no discount; write it with its sign, like 28% or 12.5% (above 0%, to 100%)")
    return Decimal(match[1]).normalize()


Percent = Annotated[Decimal, BeforeValidator(_percent), PlainSerializer(lambda value: f"{value:f}%", return_type=str)]
"""Exact, unlike a share: money comes of it."""


class Discount(BaseModel):
    """What a contract takes off a provider's prices. Of several discounts the first that fits a resource counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    percent: Percent
    capacity_types: tuple[CapacityType, ...] = ()
    """Empty: all of them."""
    skus: tuple[str, ...] = ()
    """Shell patterns of machine types, like `p5.*`; empty: all of them."""


STORED: Mapping[str, bool] = {"stored": True}
"""The context in which a source is read that was valid when it was applied. Whether its provider is still here is then
the matter of that one source: all others are governed without it."""


class Source(_Document):
    """A cloud account, project, subscription or cluster, and how to reach it.

    Fields beyond these are the provider's own and are checked by its `Config`.
    """

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    provider: str
    ceiling: Mode = Mode.ENFORCE
    """Caps every policy on this source's resources."""
    telemetry_interval: Duration = Field(default="5m", validate_default=True)
    """How often metrics are asked for; clouds bill for the asking. The re-check before an act always asks anew."""
    discounts: tuple[Discount, ...] = ()
    """Taken off what its provider quotes, never off the price file."""

    @field_validator("provider")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        if value not in registry.known() and info.context is not STORED:
            raise ValueError(f"there is no provider {value!r}{nearest(value, registry.known())}")
        return value

    @model_validator(mode="after")
    def _provider_fields(self, info: ValidationInfo) -> Source:
        if info.context is STORED:
            return self
        try:
            config = registry.load(self.provider).Config
        except ProviderError as error:
            raise ValueError(error.sentence) from None
        config.model_validate(self.config)
        return self

    @property
    def config(self) -> dict[str, Any]:
        """The provider's own fields, with `${SECRET}`s unresolved."""
        return dict(self.__pydantic_extra__ or {})


class Match(BaseModel):
    """All that is named must hold; a project lists several, any of which makes a resource its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    tags: dict[str, str] = Field(default_factory=dict)
    accounts: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if not (self.tags or self.accounts or self.sources or self.namespaces or self.owners):
            raise ValueError("an empty match claims everything; name tags, accounts, sources, namespaces or owners")
        return self


def _day(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            raise ValueError(value)
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no date; write it like 2026-11-01") from None
    if not 2000 <= day.year <= 2200:
        raise ValueError(f"{value} lies beyond what anybody budgets for")
    return day


def _amount_to_spend(micros: int) -> int:
    if micros == 0:
        raise ValueError("a spend budget of nothing is spent before it begins; write an amount above zero")
    return micros


def _thresholds(shares: tuple[float, ...]) -> tuple[float, ...]:
    if 0.0 in shares:
        raise ValueError("0% is reached before anything is spent; write shares above it, like 50%")
    return tuple(sorted(set(shares)))


Day = Annotated[date, BeforeValidator(_day)]


class SpendBudget(BaseModel):
    """How much money a project may spend in a period, on its own clocks."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    name: Name
    period: Literal["month", "quarter", "total", "range"]
    """Calendar months and quarters, all time, or from one day until another."""
    amount: Annotated[AmountMicros, AfterValidator(_amount_to_spend)]
    currency: Currency | None = None
    """The project's, unless another one is named."""
    from_: Day | None = Field(None, alias="from")
    """First day of a range, in the project's zone."""
    until: Day | None = None
    """The day after the last one."""
    alert_at: Annotated[tuple[Share, ...], AfterValidator(_thresholds)] = (0.5, 0.8, 1.0)
    """The budget owners are told once when so much of it is spent."""

    @model_validator(mode="after")
    def _days_of_a_range(self) -> SpendBudget:
        if self.period != "range":
            if self.from_ is not None or self.until is not None:
                raise ValueError(f"period: from and until belong to a range; a {self.period} has none")
        elif self.from_ is None or self.until is None:
            raise ValueError("period: a range needs from and until, like from: 2026-11-01 and until: 2026-12-01")
        elif self.until <= self.from_:
            raise ValueError(f"until: {self.until} must come after {self.from_}; it is the day after the last one")
        return self


class Project(_Document):
    """Who pays, who is told, in which time zone and currency, and how its resources are recognised."""

    owners: tuple[Address, ...] = ()
    budget_owners: tuple[Address, ...] = ()
    timezone: TimeZone = "UTC"
    currency: Currency = "USD"
    match: tuple[Match, ...] = ()
    notify: tuple[Channel, ...] = ()
    """Further channels."""
    spend_budgets: tuple[SpendBudget, ...] = ()
    idle_capacity: Literal["keep", "split"] = "keep"
    """Of its machines in a cluster, what no workload requested: kept as this project's own cost, or split among the
    cluster's workloads in proportion to the GPUs they requested."""
    description: str = ""

    @field_validator("spend_budgets")
    @classmethod
    def _each_once(cls, budgets: tuple[SpendBudget, ...]) -> tuple[SpendBudget, ...]:
        seen: set[str] = set()
        for budget in budgets:
            if budget.name in seen:
                raise ValueError(f"two spend budgets are called {budget.name!r}; nobody could tell them apart")
            seen.add(budget.name)
        return budgets

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

    @field_validator("until", mode="before")
    @classmethod
    def _moment(cls, value: Any) -> Any:
        if isinstance(value, int | float):
            raise ValueError("write the moment as text, like 2026-12-01T18:00:00Z")
        return value

    @field_validator("until")
    @classmethod
    def _with_offset(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("needs its offset, like 2026-12-01T18:00:00Z or …+07:00")
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise ValueError("lies beyond the calendar") from None
        return value

    @model_validator(mode="after")
    def _names_something(self) -> Exemption:
        if not (self.resources or self.projects or self.tags):
            raise ValueError("an exemption names resources, projects or tags; for everything there is `curfew hold`")
        return self

    @property
    def until_utc(self) -> datetime:
        return self.until.astimezone(UTC)


POLICY: TypeAdapter[Policy] = TypeAdapter(Policy)

Kind = Literal["source", "project", "policy", "exemption"]
KINDS: tuple[Kind, ...] = ("source", "project", "policy", "exemption")
COLLECTIONS: Mapping[str, Kind] = {
    "sources": "source",
    "projects": "project",
    "policies": "policy",
    "exemptions": "exemption",
}
"""Their names in URLs and on the command line."""
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


def kind_of(document: AnyDocument) -> Kind:
    match document:
        case Source():
            return "source"
        case Project():
            return "project"
        case Exemption():
            return "exemption"
    return "policy"


def written(document: AnyDocument) -> dict[str, Any]:
    """What a person wrote, in its plainest form: this is stored, so that a default may change later."""
    body: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return body


def effective(document: AnyDocument) -> dict[str, Any]:
    """All fields with their defaults: this is compared and shown."""
    body: dict[str, Any] = document.model_dump(mode="json", by_alias=True)
    return body


# --- what each kind of resource can take -----------------------------------------------------------------------------

_EVERYTHING_RUNNING = frozenset({Remedy.NOTIFY, Remedy.STOP, Remedy.TERMINATE})

REMEDIES: Mapping[str, frozenset[Remedy]] = {
    "instance": _EVERYTHING_RUNNING | {Remedy.HIBERNATE, Remedy.SUSPEND, Remedy.MOVE_TO_SPOT},
    "node": frozenset({Remedy.NOTIFY}),  # never stopped directly: its node group or cloud owns it
    "node_group": frozenset({Remedy.NOTIFY, Remedy.STOP, Remedy.SCALE_TO_ZERO, Remedy.MOVE_TO_SPOT}),
    "workload": _EVERYTHING_RUNNING | {Remedy.SUSPEND, Remedy.SCALE_TO_ZERO},
    "notebook": _EVERYTHING_RUNNING,
    "endpoint": _EVERYTHING_RUNNING | {Remedy.SCALE_TO_ZERO},
    "training_job": _EVERYTHING_RUNNING,
}
"""Kind → what a policy may ask of it. `stop` on a group means `scale_to_zero`."""


CLOUDS = ("aws", "azure", "gcp", "kubernetes")
"""Where resources are, whatever provider sees them."""


# --- what is never shown ---------------------------------------------------------------------------------------------

MASK = "***"
PLACEHOLDER = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})")
MAIL_SCHEMES = frozenset({"mailto", "mailtos"})
WEB_SCHEMES = frozenset({"http", "https", "json", "jsons", "form", "forms", "xml", "xmls", "webhook", "webhooks"})
"""Schemes whose URL begins with a place; in the others (slack, discord, …) the host may be a secret, too."""
PLACE = re.compile(r"(?:([^/?#]*)@)?((?:[\w.-]|\$\{\w+\})+|\[[\da-fA-F:.]+\])(:\d+)?([/?#].*)?", re.DOTALL)
"""Login, host, port and what follows."""


def mask_channel(url: str) -> str:
    """A notification channel without what may be secret in it: of a webhook only the scheme and the host are shown.

    `${NAME}` says nothing and stays. What cannot be told apart is hidden whole.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if "@" in url else _mask_text(url)
    found = PLACE.fullmatch(rest)
    if found is not None:
        login, host, port, path = (part or "" for part in found.groups())
        at = "@" if login else ""
        if scheme.lower() in MAIL_SCHEMES:
            user, colon, password = login.partition(":")
            path = re.sub(r"([?&][^=&?]*=)([^&]*)", lambda query: query[1] + _mask_text(query[2]), path)
            return f"{scheme}{separator}{user}{colon}{_mask_text(password)}{at}{host}{port}{path}"
        if scheme.lower() in WEB_SCHEMES and "@" not in path:
            login = ":".join(_mask_text(part) for part in login.split(":"))
            return f"{scheme}{separator}{login}{at}{host}{port}{path[:1]}{_mask_text(path[1:])}"
    return scheme + separator + _mask_text(rest)


def _mask_text(text: str) -> str:
    return "".join(part if PLACEHOLDER.fullmatch(part) else MASK for part in PLACEHOLDER.split(text) if part)


def masked(body: Mapping[str, Any]) -> dict[str, Any]:
    """A document's body as it may be shown to anybody who may read it."""
    shown = dict(body)
    if isinstance(shown.get("notify"), list | tuple):
        shown["notify"] = [mask_channel(channel) for channel in shown["notify"]]
    return shown


SECRET_FIELD = re.compile(r"(password|passwd|secret|token|api_?key|private_?key|access_?key)(?!.*(_file|_path|_name)$)")


NAMES_A_SECRET = frozenset({"token_secret"})
"""Fields that do not hold a secret but say what it is called, because it is read anew each time."""
SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def secrets_named(config: Mapping[str, Any]) -> set[str]:
    """The secrets that a source asks for by name."""
    found: set[str] = set()
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= secrets_named(value)
        elif key in NAMES_A_SECRET and isinstance(value, str) and SECRET_NAME.fullmatch(value):
            found.add(value)
    return found


def literal_secrets(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Fields of a source that look like secrets and are written out. They belong into `${NAME}`."""
    found: list[tuple[str, ...]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += literal_secrets(value, (*path, key))
        elif isinstance(value, str) and "${" not in value and value:
            login_in_url = re.match(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", value)
            names_one = key in NAMES_A_SECRET and SECRET_NAME.fullmatch(value)
            a_key_itself = "PRIVATE KEY-----" in value or '"private_key"' in value
            if (SECRET_FIELD.search(key.lower()) and not names_one) or login_in_url or a_key_itself:
                found.append((*path, key))
    return found


def endpoints(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Custom endpoints a source names: any field called an endpoint or an URL."""
    found: list[tuple[tuple[str, ...], str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            found += endpoints(value, (*path, key))
        elif isinstance(value, str) and value and re.search(r"(^|_)(endpoint|url|uri|host|server)s?(_|$)", key.lower()):
            found.append(((*path, key), value))
    return found
