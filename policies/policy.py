"""The typed policy documents: what a platform engineer writes, validated, with defaults that do no harm."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from policies.calendar import calendar
from policies.quantities import Duration, Money, Ratio, Share, format_share, parse_share


class Mode(StrEnum):
    """How far a policy may go. The installation's and the source's ceilings cap it; the lowest holds."""

    OBSERVE = "observe"
    WARN = "warn"
    ENFORCE = "enforce"

    @property
    def rank(self) -> int:
        return list(Mode).index(self)


def lowest(*modes: Mode) -> Mode:
    return min(modes, key=lambda mode: mode.rank)


class Remedy(StrEnum):
    """What a policy asks for. A kind takes only what it can; `stop` on a group means `scale_to_zero`."""

    NOTIFY = "notify"
    STOP = "stop"
    HIBERNATE = "hibernate"
    SUSPEND = "suspend"
    SCALE_TO_ZERO = "scale_to_zero"
    TERMINATE = "terminate"
    MOVE_TO_SPOT = "move_to_spot"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Kinds = Literal["instance", "node", "node_group", "workload", "notebook", "endpoint", "training_job"]


def _region_pattern(value: str) -> str:
    if re.fullmatch(r"([a-z0-9*?-]|\[!?[a-z0-9-]+\])+", value):
        return value
    likely = re.sub(r"[\s_]+", "-", value.strip().lower())
    hint = f"; did you mean {likely!r}?" if re.fullmatch(r"[a-z0-9*?-]+", likely) else ""
    raise ValueError(f"{value!r} is no region: they are written like us-east-1, eu-* or westeurope{hint}")


RegionPattern = Annotated[str, AfterValidator(_region_pattern)]
"""A region as its cloud writes it, or a shell pattern: `eu-*`."""


class Scope(_Part):
    """Which resources a policy speaks of: all named conditions must hold; an empty one holds for all."""

    projects: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    regions: tuple[RegionPattern, ...] = ()
    kinds: tuple[Kinds, ...] = ()
    skus: tuple[str, ...] = ()
    """Shell patterns: `p5.*`."""
    tags: dict[str, str] = Field(default_factory=dict)
    where: str | None = None
    """A condition over the facts."""


class IdleProfile(_Part):
    """When a resource counts as idle. Section 8 of the design, word for word."""

    for_: Duration = Field(timedelta(minutes=45), alias="for")
    """Length of the window every counted GPU must be idle for."""
    utilisation_below: Ratio = Field(0.05, gt=0, le=1)
    """A sample at or above this ratio makes its GPU busy."""
    min_coverage: Share = 0.9
    """Share of the window that samples must speak for before a GPU may be called idle."""
    max_gap: Duration = timedelta(minutes=5)
    """How long a sample speaks when no next one follows."""
    warm_up: Duration = timedelta(minutes=15)
    """Samples before the last start plus this are dropped: loading a model is not idling."""
    busy_gpus_below: int = Field(1, ge=1, strict=True)
    """Idle when fewer GPUs than this are busy or unknown. 1: one busy GPU protects its machine."""
    telemetry_delay: Duration = timedelta(minutes=3)
    """The window ends this long before now, because samples arrive late."""
    when: str | None = None
    """A further condition over the facts that must hold too, e.g. `max_power_watts < 90`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _window_not_empty(self) -> IdleProfile:
        if not self.for_:
            raise ValueError("for: the idle window must be longer than nothing, like 45m")
        return self

    @property
    def key(self) -> str:
        """Equal profiles are judged once; `when` is a condition, not part of the window."""
        return _key_of(self)


@cache
def _key_of(profile: IdleProfile) -> str:
    """Asked for once per resource and policy, and there are few profiles."""
    return profile.model_dump_json(exclude={"when"})


def _max_disturbed(value: Any) -> int | float:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return parse_share(value)


class DisruptionBudget(_Part):
    """How much may be disturbed within an hour: a count, or a share of the resources in scope, rounded up."""

    max: Annotated[
        int | float,
        BeforeValidator(_max_disturbed),
        PlainSerializer(lambda value: value if isinstance(value, int) else format_share(value)),
    ] = 0.1
    max_hourly_cost: Money | None = None
    """Money per hour of what is disturbed within an hour; a plain number holds in each currency by itself."""


def _positive(share: float) -> float:
    if share > 0:
        return share
    raise ValueError("a share of nothing is what mode: observe says; write 1% or more")


class Rollout(_Part):
    """On which share of its scope a policy goes as far as its mode says; the rest is only observed."""

    share: Annotated[Share, AfterValidator(_positive)]
    """What it begins with. Who is in is told by a hash, so that whoever is in at 5% is in at 25%."""
    steps: tuple[Share, ...] = ()
    """What the share rises to, one after the other; with none it stays as it is."""
    every: Duration = Field(timedelta(days=7), gt=timedelta(0))
    """How long a share lasts at least."""
    max_false_stops: Share = 0.01
    """Of the stops that are decided since the share began. With more it falls back, to observing everything."""
    min_stops: int = Field(5, ge=1, strict=True)
    """Without so many decided stops a share does not rise: nothing was learnt from it."""

    @model_validator(mode="after")
    def _rises(self) -> Rollout:
        shares = (self.share, *self.steps)
        if any(after <= before for before, after in pairwise(shares)):
            written = ", ".join(format_share(share) for share in shares)
            raise ValueError(f"steps: each must be larger than the one before, these are {written}")
        return self

    @property
    def shares(self) -> tuple[float, ...]:
        """From the first to the last."""
        return (self.share, *self.steps)


def _long_form(value: Any) -> Any:
    """`5%` is short for a share that stays as it is."""
    return value if value is None or isinstance(value, Mapping | Rollout) else {"share": value}


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class BasePolicy(_Part):
    """What all policy types have."""

    name: str
    mode: Mode = Mode.OBSERVE
    scope: Scope = Scope()
    grace: Duration = timedelta(minutes=30)
    """From the delivered warning to the act."""
    action: Remedy = Remedy.STOP
    notify: tuple[str, ...] = ()
    """Further channels, Apprise URLs with `${SECRET}`s."""
    accept_loss: Annotated[
        tuple[Literal["local_disks", "group_members", "terminate"], ...], AfterValidator(_unique)
    ] = ()
    disruption_budget: DisruptionBudget = DisruptionBudget()
    approval: Literal["required"] | None = None
    rollout: Annotated[Rollout | None, BeforeValidator(_long_form, json_schema_input_type=str | Rollout | None)] = None
    """With which share of its scope it begins, and how that rises; without one everybody is met at once."""
    cool_down: Duration = timedelta(hours=4)
    """How long a resource that was restarted is left alone."""
    description: str = ""

    @property
    def acts(self) -> bool:
        """Would this policy change anything if every ceiling allowed it?"""
        return self.action is not Remedy.NOTIFY


class IdlePolicy(BasePolicy):
    """GPUs that do nothing."""

    type: Literal["idle"]
    idle: IdleProfile = IdleProfile()


class OwnershipRule(_Part):
    """What must be known about a resource, and how soon."""

    require: tuple[Literal["project", "owner"], ...] = Field(("project",), min_length=1)
    within: Duration = timedelta(hours=1)


class OwnershipPolicy(BasePolicy):
    """Resources nobody answers for."""

    type: Literal["ownership"]
    ownership: OwnershipRule = OwnershipRule()


class SpotRule(_Part):
    """How much of a scope may be bought on demand."""

    allowed_on_demand: Share = 0.0
    """Share of the scope's running GPUs. What is over it breaches, newest first."""


class SpotPolicy(BasePolicy):
    """On-demand machines where spot would do."""

    type: Literal["spot"]
    spot: SpotRule = SpotRule()


def _country(value: str) -> str:
    if re.fullmatch("[A-Z]{2}", value):
        return value
    hint = f"; did you mean {value.upper()!r}?" if re.fullmatch("[A-Za-z]{2}", value) else ""
    raise ValueError(f"{value!r} is no country code of two capital letters, like VN{hint}")


class ScheduleRule(_Part):
    """When the resources of a scope may run, on the clocks of their project."""

    on: str
    """Opening-hours syntax: `Mo-Fr 08:00-20:00`."""
    holidays: Annotated[str, AfterValidator(_country)] | None = None
    """ISO code of the country whose public holidays are off too: `VN`."""

    @model_validator(mode="after")
    def _readable(self) -> ScheduleRule:
        for field, holidays in (("on", None), ("holidays", self.holidays)):
            try:
                calendar(self.on, holidays=holidays, zone="UTC")
            except ValueError as error:
                raise ValueError(f"{field}: {error}") from None
        return self


class SchedulePolicy(BasePolicy):
    """Resources that run outside their hours."""

    type: Literal["schedule"]
    schedule: ScheduleRule


class LifetimeRule(_Part):
    """How long a resource may run in all."""

    max: Duration = Field(gt=timedelta(0))
    """Cumulative running time; a restart does not reset it."""
    backstop: Duration | None = Field(None, ge=timedelta(hours=1))
    """How much later than this policy would, the cloud ends a run by itself, in case Curfew is not there. Only where a
    cloud can (Google Cloud, while a machine is stopped), only in `enforce`; it cannot be taken back during a run."""


class LifetimePolicy(BasePolicy):
    """Resources that have run for longer than they were meant to."""

    type: Literal["lifetime"]
    lifetime: LifetimeRule


class ResidencyRule(_Part):
    """Where resources may be."""

    allowed_regions: tuple[RegionPattern, ...] = Field(min_length=1)


class ResidencyPolicy(BasePolicy):
    """Resources in regions they must not be in."""

    type: Literal["residency"]
    residency: ResidencyRule


class QuotaRule(_Part):
    """How many GPUs may run at once."""

    max_gpus: int = Field(ge=0, strict=True)
    per: Literal["project", "owner", "gpu_model"] | None = None
    """Counted for each of these; without it for the scope as a whole. What is over it breaches, newest first."""


class QuotaPolicy(BasePolicy):
    """More GPUs at once than agreed."""

    type: Literal["quota"]
    quota: QuotaRule


class ExpressionRule(_Part):
    """A condition of one's own."""

    when: str


class ExpressionPolicy(BasePolicy):
    """Whatever can be said over the facts."""

    type: Literal["expression"]
    expression: ExpressionRule


class BudgetRule(_Part):
    """Which spend budget of the project counts, and from which share of it on."""

    budget: str
    """Name of one of the project's `spend_budgets`."""
    at: Share = 1.0
    """Share of the amount that must be spent before anything breaches."""
    order: Literal["idle_first", "newest_first", "most_expensive_first"] = "idle_first"
    """Whom it meets first; only as many as bring the forecast of the period under the amount."""


class BudgetPolicy(BasePolicy):
    """Resources of a project whose money is spent."""

    type: Literal["budget"]
    budget: BudgetRule


Policy = Annotated[
    IdlePolicy
    | OwnershipPolicy
    | SpotPolicy
    | SchedulePolicy
    | LifetimePolicy
    | ResidencyPolicy
    | QuotaPolicy
    | ExpressionPolicy
    | BudgetPolicy,
    Field(discriminator="type"),
]
"""Any policy, told apart by its `type`."""

DEFAULT_PROFILE = IdleProfile()
"""The installation's: what `activity` and `idle_seconds` of a resource follow outside of any policy."""


def profile_of(policy: BasePolicy) -> IdleProfile:
    """The idle profile a policy's telemetry facts follow."""
    return policy.idle if isinstance(policy, IdlePolicy) else DEFAULT_PROFILE
