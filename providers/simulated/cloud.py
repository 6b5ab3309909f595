"""A whole cloud in memory: its machines, what happens to them over time, and the faults a test injects.

Everything is a function of the time its clock shows; a machine's past is a short list of state changes. How it is
listed, measured, priced and acted on is in the files beside this one.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import RLock
from typing import Any, Literal

from providers.errors import Misconfigured, NotFound, ProviderError
from providers.records import Blocker, CapacityType, Kind, Loss, Protection, ResourceRef, Signal, State, Verb
from providers.simulated.activity import Activity, Silent
from providers.simulated.catalogue import SKUS, Sku

Call = Literal["list", "describe", "samples", "quote", "act", "restore"]
CALLS: frozenset[Call] = frozenset({"list", "describe", "samples", "quote", "act", "restore"})


@dataclass(kw_only=True)
class Machine:
    """One machine (or workload), as its cloud knows it. Tests may change any of it at any time."""

    name: str
    launched_at: datetime
    """Its last start; the cloud renews it."""
    sku: Sku = SKUS["g6.xlarge"]
    kind: Kind = Kind.INSTANCE
    region: str = ""
    """The cloud's first region when left empty."""
    zone: str | None = None
    external_id: str = ""
    """Made up by the cloud when left empty."""
    created_at: datetime | None = None
    """The first start when not given."""
    tags: dict[str, str] = field(default_factory=dict)
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    managed_by: str | None = None
    locked: bool = False
    """The cloud's own protection: seen only when asked about by id, and the cloud refuses every act."""
    protections: tuple[Protection, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    losses: tuple[Loss, ...] = ()
    """Further ones; local disks and termination speak for themselves."""
    activity: Activity = field(default_factory=Silent)
    pushed: dict[tuple[int, Signal], dict[int, float]] = field(default_factory=dict)
    """Samples pushed by hand; where there are any, they are all that telemetry knows."""
    ambiguous: bool = False
    """Its series match another machine as well."""
    stubborn: bool = False
    """Acts are accepted and never take effect."""
    fails_late: ProviderError | None = None
    """Acts are accepted and never take effect, and afterwards the cloud tells why."""
    powered_off: bool = False
    run_limit_seconds: int | None = None
    history: list[tuple[datetime, State]] = field(default_factory=list)
    """From when it was in which state, ascending; what is under way is already in it. Running when left empty."""

    def state_at(self, moment: datetime) -> State:
        index = bisect_right(self.history, moment, key=lambda change: change[0])
        return self.history[max(index - 1, 0)][1]

    def become(self, changes: Sequence[tuple[datetime, State]]) -> None:
        """New changes replace what was still to come after the first of them."""
        self.history = [change for change in self.history if change[0] <= changes[0][0]] + list(changes)


@dataclass(kw_only=True)
class Group:
    """A scaling group: keeps as many machines of one sort as it is told to. Tests may change any of it at any time."""

    name: str
    sku: Sku
    region: str = ""
    """The cloud's first region when left empty."""
    minimum: int = 0
    desired: int = 0
    maximum: int = 10
    launches: CapacityType = CapacityType.ON_DEMAND
    """What its next machines run on."""
    tags: dict[str, str] = field(default_factory=dict)
    activity: Activity = field(default_factory=Silent)
    """What its next machines do."""
    locked: bool = False
    stubborn: bool = False
    fails_late: ProviderError | None = None

    @property
    def signature(self) -> str:
        """What its machines' `managed_by` says."""
        return f"autoscaling:{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """One call of `act` or `restore` that reached the cloud, whatever became of it."""

    at: datetime
    verb: Verb
    """`START` for a restore."""
    external_id: str
    request_id: str
    changed: bool
    """False for a repetition, for what was so already, and for what was refused."""
    error: str | None
    """Code of the error that was answered; with `changed`, the answer was lost after the deed."""


@dataclass(kw_only=True, eq=False)
class Failure:
    """Calls that fail, until healed or used up."""

    error: ProviderError
    calls: frozenset[Call]
    region: str | None
    external_id: str | None
    times: int | None
    after: bool

    def meets(self, call: Call, region: str, external_id: str | None, *, after: bool) -> bool:
        return (
            call in self.calls
            and self.region in (None, region)
            and self.external_id in (None, external_id)
            and self.times != 0
            and self.after is after
        )


class SimulatedCloud:
    """One account of one cloud.

    Whoever reads or changes it from another thread than the provider's own parts holds `lock`.
    """

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        provider: str = "aws",
        account: str = "111122223333",
        regions: Sequence[str] = ("us-east-1", "eu-west-1"),
        currency: str = "USD",
        transition: timedelta = timedelta(seconds=60),
    ) -> None:
        self.now = now
        self.provider = provider
        self.account = account
        """Change it and another account answers."""
        self.regions = tuple(regions)
        self.currency = currency
        self.transition = transition
        """How long stopping and starting take."""
        self.lag = timedelta(0)
        """How late samples arrive."""
        self.machines: dict[str, Machine] = {}
        """By external id."""
        self._vanished: set[str] = set()
        self.groups: dict[str, Group] = {}
        """By name."""
        self.acts: list[Act] = []
        self.lock = RLock()
        self._accepted: set[str] = set()
        self.failed_late: dict[str, ProviderError] = {}
        """By request id, what became of acts that were accepted."""
        self._failures: list[Failure] = []
        self._script: list[tuple[datetime, Callable[[datetime], object]]] = []

    # -- what is there -----------------------------------------------------------------------------------------

    def add(self, machine: Machine) -> ResourceRef:
        """Put a machine into the cloud; it has been running since `launched_at` unless its history says otherwise."""
        with self.lock:
            machine.region = machine.region or self.regions[0]
            machine.created_at = machine.created_at or machine.launched_at
            machine.history = machine.history or [(machine.launched_at, State.RUNNING)]
            machine.external_id = machine.external_id or self._new_id(machine)
            self.machines[machine.external_id] = machine
            return self.ref(machine)

    def add_group(self, group: Group) -> ResourceRef:
        """Put a scaling group into the cloud, and launch what of its machines is not there yet."""
        with self.lock:
            group.region = group.region or self.regions[0]
            self.groups[group.name] = group
            self._fill(group, self.now(), at_once=True)
            return self.ref(group)

    def members(self, group: Group) -> list[Machine]:
        """The machines it has now, those that are going too."""
        now = self.now()
        return [
            machine
            for machine in self.machines.values()
            if machine.managed_by == group.signature
            and machine.region == group.region
            and machine.state_at(now) is not State.TERMINATED
        ]

    def ref(self, thing: Machine | Group) -> ResourceRef:
        return ResourceRef(
            provider=self.provider,
            account=self.account,
            region=thing.region,
            kind=Kind.NODE_GROUP if isinstance(thing, Group) else thing.kind,
            external_id=thing.name if isinstance(thing, Group) else thing.external_id,
        )

    def find(self, ref: ResourceRef) -> Machine | Group:
        """The machine or group a ref speaks of, or NotFound; of another account's nothing is known."""
        if ref.account != self.account:
            raise Misconfigured(f"account {ref.account} is none of this source's, which sees {self.account}")
        things: Mapping[str, Machine | Group] = self.groups if ref.kind is Kind.NODE_GROUP else self.machines
        thing = things.get(ref.external_id)
        if thing is None or self.ref(thing) != ref:
            raise NotFound(f"{self.provider} {self.account} has no {ref.kind} {ref.external_id!r} in {ref.region}")
        return thing

    def present(self) -> datetime:
        """The time now, after all that should have happened by then has."""
        with self.lock:
            now = self.now()
            while self._script and self._script[0][0] <= now:
                moment, happening = self._script.pop(0)
                happening(moment)
            return now

    # -- what happens ------------------------------------------------------------------------------------------

    def later(self, moment: datetime, happening: Callable[[datetime], object]) -> None:
        """Let something happen at a moment of the clock; it is told that moment."""
        with self.lock:
            self._script.append((moment, happening))
            self._script.sort(key=lambda entry: entry[0])

    def stop(self, external_id: str, at: datetime | None = None, *, into: State = State.STOPPED) -> bool:
        """Begin to stop a machine (a person did, or an act); False when it stops or is stopped already."""
        with self.lock:
            at = at or self.now()
            machine = self.machines[external_id]
            heading_for = machine.history[-1][1]
            if heading_for is State.TERMINATED or (heading_for is not State.RUNNING and into is not State.TERMINATED):
                return False
            machine.become([(at, State.STOPPING), (at + self.transition, into)])
            return True

    def start(self, external_id: str, at: datetime | None = None) -> bool:
        """Begin to start a machine (a person did, or a restore); False when it starts or runs already."""
        with self.lock:
            at = at or self.now()
            machine = self.machines[external_id]
            if machine.history[-1][1] in (State.RUNNING, State.TERMINATED):
                return False
            machine.become([(at, State.PENDING), (at + self.transition, State.RUNNING)])
            machine.launched_at = at
            return True

    def resize(self, name: str, desired: int, *, minimum: int | None = None, maximum: int | None = None) -> bool:
        """Tell a group how many machines to keep (a person did, or an act); False when it knew."""
        with self.lock:
            group = self.groups[name]
            before = (group.minimum, group.desired, group.maximum)
            group.desired = desired
            group.minimum = min(group.minimum, desired) if minimum is None else minimum
            group.maximum = max(group.maximum, desired) if maximum is None else maximum
            for machine in self._staying(group)[desired:]:
                self.stop(machine.external_id, into=State.TERMINATED)
            self._fill(group, self.now(), at_once=False)
            return before != (group.minimum, group.desired, group.maximum)

    def _staying(self, group: Group) -> list[Machine]:
        """Its machines but for those that are going."""
        return [machine for machine in self.members(group) if machine.history[-1][1] is not State.TERMINATED]

    def _fill(self, group: Group, at: datetime, *, at_once: bool) -> None:
        starting = [(at, State.PENDING), (at + self.transition, State.RUNNING)]
        for _ in range(group.desired - len(self._staying(group))):
            self.add(
                Machine(
                    name=f"{group.name}-{len(self.machines)}",
                    launched_at=at,
                    sku=group.sku,
                    region=group.region,
                    tags=dict(group.tags),
                    capacity_type=group.launches,
                    managed_by=group.signature,
                    activity=group.activity,
                    history=[(at, State.RUNNING)] if at_once else starting,
                )
            )

    def vanish(self, external_id: str) -> None:
        """Remove a machine; its id is unknown from now on."""
        with self.lock:
            del self.machines[external_id]
            self._vanished.add(external_id)

    def push(self, external_id: str, device: int, signal: Signal, samples: Sequence[tuple[int, float]]) -> None:
        """Let telemetry know these (unix seconds, value) of one GPU, and nothing else of that machine."""
        with self.lock:
            self.machines[external_id].pushed.setdefault((device, signal), {}).update(samples)

    # -- what goes wrong ---------------------------------------------------------------------------------------

    def fail(
        self,
        error: ProviderError,
        *calls: Call,
        region: str | None = None,
        external_id: str | None = None,
        times: int | None = None,
        after: bool = False,
    ) -> Failure:
        """Answer calls with an error: all of them when none is named, in one region, for one machine, so many times.

        `after`: only once the deed is done, so that the answer is lost and the truth has to be read back.
        """
        failure = Failure(
            error=error,
            calls=frozenset(calls) or CALLS,
            region=region,
            external_id=external_id,
            times=times,
            after=after,
        )
        with self.lock:
            self._failures.append(failure)
        return failure

    def heal(self, failure: Failure | None = None) -> None:
        """End one failure, or all."""
        with self.lock:
            self._failures = [kept for kept in self._failures if failure is not None and kept is not failure]

    @contextmanager
    def failing(
        self,
        error: ProviderError,
        *calls: Call,
        region: str | None = None,
        external_id: str | None = None,
        after: bool = False,
    ) -> Iterator[Failure]:
        """`fail` for the length of a `with`."""
        failure = self.fail(error, *calls, region=region, external_id=external_id, after=after)
        try:
            yield failure
        finally:
            self.heal(failure)

    def meet(self, call: Call, region: str, external_id: str | None = None, *, after: bool = False) -> None:
        """Raise the failure that waits for this call, if one does."""
        with self.lock:
            for failure in self._failures:
                if failure.meets(call, region, external_id, after=after):
                    if failure.times is not None:
                        failure.times -= 1
                    error = failure.error
                    raise type(error)(error.sentence, permission=error.permission, retry_after=error.retry_after)

    def attempt(self, call: Call, ref: ResourceRef, verb: Verb, request_id: str, change: Callable[[Any], bool]) -> None:
        """One try to change the world, written down in `acts` whatever becomes of it; each request id changes once."""
        with self.lock:
            at = self.present()
            changed, error = False, None
            try:
                self.meet(call, ref.region, ref.external_id)
                thing = self.find(ref)
                if request_id not in self._accepted:
                    changed = not thing.stubborn and not thing.fails_late and change(thing)
                    self._accepted.add(request_id)
                    if thing.fails_late is not None:
                        self.failed_late[request_id] = thing.fails_late
                self.meet(call, ref.region, ref.external_id, after=True)
            except ProviderError as answered:
                error = answered.code
                raise
            finally:
                self.acts.append(
                    Act(
                        at=at,
                        verb=verb,
                        external_id=ref.external_id,
                        request_id=request_id,
                        changed=changed,
                        error=error,
                    )
                )

    # -- names -------------------------------------------------------------------------------------------------

    def _new_id(self, machine: Machine) -> str:
        """An id as this cloud writes it, the same in every run. Those of AWS are never given again, names are."""
        slug, number = machine.name or "unnamed", 1
        taken = self.machines.keys() | (self._vanished if self.provider == "aws" else set())
        while (made := self._id(machine, slug)) in taken:
            number += 1
            slug = f"{machine.name or 'unnamed'}-{number}"
        return made

    def _id(self, machine: Machine, slug: str) -> str:
        match self.provider:
            case "aws":
                digest = hashlib.sha256(f"{self.account}/{machine.region}/{slug}".encode()).hexdigest()
                return f"i-{digest[:17]}"
            case "gcp":
                zone = machine.zone or f"{machine.region}-a"
                return f"projects/{self.account}/zones/{zone}/instances/{slug}"
            case "azure":
                group = f"/subscriptions/{self.account}/resourceGroups/{machine.region}"
                return f"{group}/providers/Microsoft.Compute/virtualMachines/{slug}"
            case _:
                return f"default/Deployment/{slug}"
