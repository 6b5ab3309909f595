"""What a running Curfew is made of, composed once at start-up.

Everything that serves a request or runs a cycle is handed this value; nothing reaches for globals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from policies.policy import Mode
from service.backtests import Backtests
from service.census import Census
from service.clock import AcceleratedClock, Clock, RealClock
from service.fleet import Fleet
from service.history.layout import History
from service.history.record import Recorder
from service.holder import this_process
from service.model import Known
from service.notify.channels import Channels, check_channels
from service.notify.links import Links
from service.pipeline.currency import Rates
from service.pipeline.evaluate import Judged, Look
from service.pipeline.notify import Post
from service.pipeline.plan import InForce, Limits
from service.pipeline.price import PriceFile
from service.pipeline.samples import SampleMemory
from service.report import Report
from service.secrets import Secrets
from service.settings import Settings
from service.store.database import Database
from service.store.ledger import Latest
from service.store.open_intervals import OpenIntervals
from service.store.resources import Remembered
from service.store.spend import Paces


@dataclass(frozen=True, kw_only=True)
class View:
    """What the last cycle saw and judged: for reads that need no new look."""

    at: datetime
    resources: dict[str, Known]
    look: Look
    """What the policies were judged on: others can be judged on it too."""
    window: timedelta
    """How far back samples were asked for."""
    judged: Judged
    policies: dict[str, InForce]
    limits: Limits

    def activity(self, resource_id: str) -> tuple[str, int | None]:
        """`busy`, `idle` or `unknown` by the installation's own profile, and for how many seconds idle."""
        return self.judged.default_activity(resource_id)


@dataclass(kw_only=True)
class Memory:
    """What a cycle remembers for the next one and may forget at any time: forgetting only makes it more careful."""

    resources: Remembered = field(default_factory=Remembered)
    paces: Paces = field(default_factory=Paces)
    latest: Latest = field(default_factory=Latest)
    open_intervals: OpenIntervals = field(default_factory=OpenIntervals)
    census: Census = field(default_factory=Census)
    samples: dict[str, SampleMemory] = field(default_factory=dict)
    idle_since: dict[tuple[str, str], datetime] = field(default_factory=dict)
    unknown_since: dict[str, datetime] = field(default_factory=dict)
    unlimited: dict[str, datetime] = field(default_factory=dict)
    """Resource → when its cloud refused to limit its runs."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Source → its faults when last asked, so that the log tells of each change once."""


@dataclass(kw_only=True)
class Counted:
    """What this process counts itself; a restart begins at zero, as Prometheus expects of a counter."""

    source_errors: Counter[tuple[str, ...]] = field(default_factory=Counter)
    step_seconds: Counter[tuple[str, ...]] = field(default_factory=Counter)
    step_runs: Counter[tuple[str, ...]] = field(default_factory=Counter)


def _nobody(by: str) -> str:
    raise RuntimeError(f"{by} asked for a cycle, but nothing here runs cycles")


@dataclass(kw_only=True)
class Runtime:
    """Shared by the API, the pages and the cycle."""

    settings: Settings
    clock: Clock
    database: Database
    secrets: Secrets = field(repr=False)
    fleet: Fleet = field(repr=False)
    channels: Channels = field(repr=False)
    links: Links = field(repr=False)
    backtests: Backtests = field(repr=False)
    prices: PriceFile = field(default_factory=PriceFile, repr=False)
    rates: Rates = field(default_factory=Rates, repr=False)
    recorder: Recorder | None = field(default=None, repr=False)
    """Keeps what is seen, and knows where; None: nothing is kept."""
    holder: str = ""
    """Who we are to the lease: this process, never another one on the same machine."""
    memory: Memory = field(default_factory=Memory, repr=False)
    view: View | None = field(default=None, repr=False)
    """None until the first cycle of this process."""
    running: Report | None = field(default=None, repr=False)
    """Of the cycle that this process runs just now."""
    metrics: bytes = field(default=b"", repr=False)
    """Rendered once per cycle."""
    counted: Counted = field(default_factory=Counted, repr=False)
    ask_for_cycle: Callable[[str], str] = field(default=_nobody, repr=False)

    def request_cycle(self, *, by: str) -> str:
        """Ask for a cycle now; answers its id, or the id of the one that is running."""
        return self.ask_for_cycle(by)

    @property
    def post(self) -> Post:
        return Post(database=self.database, channels=self.channels, links=self.links, now=self.clock.now)

    @property
    def history(self) -> History | None:
        """Where what was seen is kept."""
        return None if self.recorder is None else self.recorder.history

    @property
    def ceiling(self) -> Mode:
        return self.settings.ceiling


def compose(settings: Settings, *, clock: Clock | None = None, database: Database | None = None) -> Runtime:
    """A runtime from settings. Raises ValueError for settings that cannot work."""
    check_channels(settings)
    clock = clock or _clock(settings)
    database = database or Database(settings.resolved_database_url)
    secrets = Secrets(folder=settings.secrets_dir)
    holder = this_process()
    return Runtime(
        settings=settings,
        clock=clock,
        database=database,
        secrets=secrets,
        fleet=Fleet(
            secrets=secrets,
            ceiling=settings.ceiling,
            now=clock.now,
            allow_endpoints=settings.allow_endpoints,
            allow_exec=settings.allow_exec,
        ),
        channels=Channels(settings, secrets),
        links=Links(settings.signing_key(), settings.public_url),
        backtests=Backtests(database, clock, location=settings.resolved_history or "", holder=holder),
        prices=PriceFile.read(settings.prices) if settings.prices else PriceFile(),
        rates=Rates.read(settings.rates) if settings.rates else Rates(),
        recorder=_recorder(settings),
        holder=holder,
    )


def _recorder(settings: Settings) -> Recorder | None:
    location = settings.resolved_history
    try:
        return None if location is None else Recorder(History(location))
    except ValueError as error:
        raise ValueError(f"CURFEW_HISTORY: {error}; or set it to off") from None


def _clock(settings: Settings) -> Clock:
    if settings.demo_speed > 0:
        return AcceleratedClock(start=datetime.fromisoformat(settings.demo_start), speed=settings.demo_speed)
    return RealClock()
