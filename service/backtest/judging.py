"""Has the live judge speak of every tick of the past: what resources were × what their GPUs did → verdicts over time.

A verdict can change only where something it rests on changes. So the judge is asked about the first tick after each
change, and its answer holds until the next: the same pass over the same facts table as in a cycle, one row for each
resource and moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlglot import exp

from policies.calendar import Calendar, calendar
from policies.codes import OUT, UNKNOWN
from policies.evaluate import CompiledPolicy, compile_policy, evaluate
from policies.facts import BY_NAME, Facts
from policies.policy import BasePolicy, BudgetPolicy, QuotaPolicy, SchedulePolicy, SpotPolicy, profile_of
from providers.records import State
from service.backtest.activity import Activity, Highest, highest_of
from service.backtest.past import Past
from service.backtest.question import NotReplayable
from service.backtest.spans import Ints, key_of, on_line, time_of
from service.documents import Project
from service.model import Known
from service.pipeline.evaluate import facts_of, groups_in
from service.pipeline.own import own_facts
from service.pipeline.plan import Limits, why_not

ROWS_AT_ONCE = 500_000
_STARTS: Mapping[str, Any] = {
    "age_seconds": lambda known: min(known.record.created_at or known.first_seen, known.first_seen),
    "running_seconds": lambda known: known.started_at if known.record.state is State.RUNNING else None,
    "ran_seconds": lambda known: known.started_at and known.started_at - timedelta(seconds=known.earlier_runs_seconds),
}
"""Facts that grow by one each second, and since when."""
_SIGNALS: Mapping[str, str] = {
    "max_utilisation": "utilisation",
    "max_tensor_active": "tensor_active",
    "max_dram_active": "dram_active",
    "max_power_watts": "power_watts",
    "max_memory_used_mib": "memory_used_mib",
}
"""Facts that are the highest value in the window, and the history's column."""
_COUNTS = ("busy_gpus", "idle_gpus", "unknown_gpus")
_NOT_HELD = ("cost_to_date", "coverage")


@dataclass(frozen=True)
class Verdicts:
    """What the policy says, from tick to tick: sorted by resource, then tick. Columns."""

    resource: Ints
    first: Ints
    """The first tick of the stretch, counted in steps since 1970."""
    last: Ints
    """Up to here; not included."""
    known: Ints
    """What the resource was; -1: not known."""
    code: Ints
    blocked: np.ndarray[Any, np.dtype[np.bool_]]
    """Something forbids acting on it, there is nothing to do, or it has just been restarted."""

    def __len__(self) -> int:
        return len(self.resource)


def check(policy: BasePolicy) -> CompiledPolicy:
    """The policy, ready to be judged. NotReplayable says why the past cannot be judged by it."""
    if isinstance(policy, BudgetPolicy):
        raise NotReplayable(
            "a budget policy follows the money of its period, which a history of machines does not hold"
        )
    if isinstance(policy, SpotPolicy | QuotaPolicy):
        raise NotReplayable(
            f"a {policy.type} policy counts across all machines at each moment; a back-test replays each by itself"
        )
    compiled = compile_policy(policy)
    for name in sorted(_columns(compiled)):
        if name in _NOT_HELD:
            raise NotReplayable(f"its condition names `{name}`, which a history does not hold")
    signals(compiled)
    return compiled


def signals(compiled: CompiledPolicy) -> dict[str, list[float]]:
    """The history's columns that the policy asks for beside utilisation, and the numbers it compares them with."""
    found = {column: sorted(_compared_with(compiled, fact)) for fact, column in _SIGNALS.items()}
    for fact, column in _SIGNALS.items():
        if fact in _columns(compiled) and not found[column]:
            raise NotReplayable(f"its condition compares `{fact}` with no number; a back-test follows such alone")
    return {column: numbers for column, numbers in found.items() if numbers}


def looks_back(compiled: CompiledPolicy) -> timedelta:
    """For how long something must have been idle already, for the policy to tell it from what has just fallen idle."""
    return timedelta(seconds=max(_compared_with(compiled, "idle_seconds"), default=0.0))


def judged(
    past: Past,
    policy: BasePolicy,
    compiled: CompiledPolicy,
    activity: Activity,
    *,
    step: int,
    projects: Mapping[str, Project],
    limits: Limits,
) -> Verdicts:
    """What the policy says of each resource at each tick."""
    moments = _Moments(past, policy, compiled, activity, step, projects)
    resource, first, last = moments.stretches()
    known = moments.known_at(resource, first)
    code = np.full(len(resource), UNKNOWN, np.int64)
    there = np.flatnonzero(known >= 0)
    for start in range(0, len(there), ROWS_AT_ONCE):
        rows = there[start : start + ROWS_AT_ONCE]
        code[rows] = moments.codes(resource[rows], first[rows], known[rows])
    blocked = _blocked(past, policy, limits, known, first * step)
    return Verdicts(resource, first, last, known, code, blocked)


def _columns(compiled: CompiledPolicy) -> set[str]:
    return {column.name for column in compiled.code.find_all(exp.Column)}


@dataclass
class _Moments:
    """Where verdicts may change, and the facts there."""

    past: Past
    policy: BasePolicy
    compiled: CompiledPolicy
    activity: Activity
    step: int
    projects: Mapping[str, Project]

    def __post_init__(self) -> None:
        self.columns = _columns(self.compiled)
        versions = self.past.versions
        self.spans = versions.spans
        self.calendars = self._calendars()
        profile = profile_of(self.policy)
        self.highest = {
            fact: (highest_of(self.past, profile, self.past.signals[column]), signals(self.compiled)[column])
            for fact, column in _SIGNALS.items()
            if fact in self.columns
        }

    def stretches(self) -> tuple[Ints, Ints, Ints]:
        """Resource, first tick, last tick: in between nothing changes."""
        places = np.concatenate(
            [
                self.spans.start,
                self.spans.end,
                *((self.activity.idle.start, self.activity.idle.end) if self._asks("activity", "idle_seconds") else ()),
                *((self.activity.busy.start, self.activity.busy.end) if self._asks("activity") else ()),
                *(self._counts(name).at for name in _COUNTS if self._asks(name)),
                *(side for highest, _ in self.highest.values() for side in _edges(highest)),
                *self._ages(),
                *self._restarts(),
                *self._switches(),
            ]
        )
        resource, tick = key_of(places), -(-time_of(places) // self.step)
        order = np.unique(on_line(resource, tick))
        resource, tick = key_of(order), time_of(order)
        goes_on = resource[1:] == resource[:-1]
        return resource[:-1][goes_on], tick[:-1][goes_on], tick[1:][goes_on]

    def _asks(self, *names: str) -> bool:
        return not self.columns.isdisjoint(names)

    def _counts(self, name: str) -> Any:
        return getattr(self.activity, name)

    def known_at(self, resource: Ints, tick: Ints) -> Ints:
        """What each was at its tick; -1 where that is not known."""
        place = on_line(resource, tick * self.step)
        index = np.searchsorted(self.spans.start, place, side="right") - 1
        there = self.spans.covers(place)
        return np.where(there, self.past.versions.known[np.maximum(index, 0)], -1)

    def codes(self, resource: Ints, tick: Ints, known: Ints) -> Ints:
        """What the judge says of these rows. Rows that are alike in all it asks are asked about once."""
        place = on_line(resource, tick * self.step)
        columns: dict[str, Ints] = {"known": known}
        if self._asks("activity"):
            columns["activity"] = self.activity.idle.covers(place) + 2 * self.activity.busy.covers(place)
        for name in _COUNTS:
            if self._asks(name):
                columns[name] = self._counts(name).at_place(place)
        for name in _STARTS:
            if self._asks(name):
                start = self._start_of(name)[known]
                columns[name] = np.where(start < 0, self._at_rest(name)[known], np.maximum(0, tick * self.step - start))
        if self._asks("idle_seconds"):
            columns["idle_seconds"] = self._idle_seconds(place)
        for name, (highest, _) in self.highest.items():
            levels = [spans.covers(place) for spans in (*highest.at_least, *highest.above)]
            columns[name] = np.where(highest.known.covers(place), np.sum(levels, axis=0), -1)
        if self.calendars:
            columns["off_now"], columns["off_soon"] = self._off(known, tick * self.step)
        table = np.stack(list(columns.values()))
        alike, which = np.unique(table, axis=1, return_inverse=True)
        return self._asked(dict(zip(columns, alike, strict=True)))[which.ravel()]

    def _asked(self, columns: Mapping[str, Ints]) -> Ints:
        knowns = self.past.knowns
        chosen = columns["known"].tolist()
        groups = groups_in(knowns) if self._asks("member_of") else []
        told = facts_of(knowns, groups, frozenset(known.id for known in knowns), {}, {}, _ANY)
        base: dict[str, Sequence[Any]] = {}
        for name in self.columns & set(told.base):
            if name in _STARTS:
                base[name] = _or_none(columns[name])
            elif name not in _NOT_HELD:
                values = list(told.base[name])
                base[name] = [values[index] for index in chosen]
        # The state decides for groups too, and nothing else is read of a row but what the policy names.
        telemetry: dict[str, Sequence[Any]] = {}
        for name in self.columns:
            if name == "activity":
                telemetry[name] = [_WORDS[index] for index in columns[name].tolist()]
            elif name in self.highest:
                telemetry[name] = _between(columns[name], self.highest[name][1])
            elif name in columns and name in BY_NAME and BY_NAME[name].telemetry:
                telemetry[name] = _or_none(columns[name])
        own: dict[str, list[Any]] = {
            name: [bool(value) for value in columns[name].tolist()]
            for name in ("off_now", "off_soon")
            if name in columns
        }
        if self._asks("claimed_by"):
            claims = own_facts([self.policy], knowns, self.projects, {}, _ANY)[self.policy.name]["claimed_by"]
            own["claimed_by"] = [claims[index] for index in chosen]
        tags = list(told.tags)
        facts = Facts(
            base=base,
            activity={profile_of(self.policy).key: telemetry},
            tags=[tags[index] for index in chosen],
            own={self.policy.name: own},
        )
        outcome = evaluate(facts, [self.policy]).outcomes[self.policy.name]
        if outcome.fault is not None:
            raise NotReplayable(f"it could not be judged: {outcome.fault}")
        return np.frombuffer(outcome.codes, np.uint8).astype(np.int64)

    # --- facts that go on by themselves

    def _start_of(self, name: str) -> Ints:
        """Since when a fact of each resource has been growing; -1: it is not known."""
        starts = (_STARTS[name](known) for known in self.past.knowns)
        return np.array([-1 if start is None else _from(start) for start in starts] or [-1], np.int64)

    def _at_rest(self, name: str) -> Ints:
        """What it is while it does not grow; -1: not known."""
        told = (known.earlier_runs_seconds if name == "ran_seconds" else -1 for known in self.past.knowns)
        return np.fromiter(told, np.int64)

    def _ages(self) -> Iterator[Ints]:
        """Where something that grows reaches a number that the policy compares it with."""
        versions = self.past.versions
        for name in _STARTS:
            for number in _compared_with(self.compiled, name):
                start = self._start_of(name)[versions.known] if len(versions) else versions.known
                reached = start + int(number)
                for time in (reached, reached + 1):
                    within = (start >= 0) & (time > versions.start) & (time < versions.end)
                    yield on_line(versions.resource[within], time[within])
        for number in _compared_with(self.compiled, "idle_seconds"):
            since = self._idle_since()
            idle = self.activity.idle
            for time in (since + int(number), since + int(number) + 1):
                place = on_line(key_of(idle.start), time)
                yield place[(place > idle.start) & (place < idle.end)]

    def _idle_since(self) -> Ints:
        """For each idle stretch since when it was idle, as the first look that finds it so tells."""
        profile = profile_of(self.policy)
        back = int((profile.for_ + profile.telemetry_delay).total_seconds())
        idle, quiet = self.activity.idle, self.activity.quiet
        first = -(-time_of(idle.start) // self.step) * self.step
        window = on_line(key_of(idle.start), first - back)
        if profile.busy_gpus_below > 1 or not len(quiet):
            since = window
        else:
            index = np.maximum(np.searchsorted(quiet.start, window, side="right") - 1, 0)
            since = np.where(quiet.covers(window), quiet.start[index], window)
        unseen = on_line(key_of(idle.start), first)[1:] == self._next_tick(idle.end)[:-1]  # no look was in between
        told_by = np.maximum.accumulate(np.where(np.append(False, unseen)[: len(idle)], 0, np.arange(len(idle))))
        return time_of(since[told_by])

    def _next_tick(self, place: Ints) -> Ints:
        return on_line(key_of(place), -(-time_of(place) // self.step) * self.step)

    def _idle_seconds(self, place: Ints) -> Ints:
        idle = self.activity.idle
        if not len(idle):
            return np.full(len(place), -1)
        index = np.maximum(np.searchsorted(idle.start, place, side="right") - 1, 0)
        return np.where(idle.covers(place), time_of(place) - self._idle_since()[index], -1)

    def _restarts(self) -> Iterator[Ints]:
        """Where a cool-down ends."""
        versions = self.past.versions
        if not len(versions):
            return
        until = _cool_until(self.past.knowns, self.policy)[versions.known]
        within = (until > versions.start) & (until < versions.end)
        yield on_line(versions.resource[within], until[within])

    # --- schedules

    def _calendars(self) -> dict[str, tuple[Ints, Ints]]:
        """Time zone → the seconds at which its hours switch, and whether it is off from then on."""
        if not isinstance(self.policy, SchedulePolicy):
            return {}
        zones = {"UTC", *(project.timezone for project in self.projects.values())}
        rule = self.policy.schedule
        reading = self.past.reading
        until = reading.end + int(self.policy.grace.total_seconds())
        return {
            zone: _switches(calendar(rule.on, holidays=rule.holidays, zone=zone), reading.start, until)
            for zone in zones
        }

    def _zone(self, known: Known) -> str:
        project = self.projects.get(known.project or "")
        return project.timezone if project else "UTC"

    def _switches(self) -> Iterator[Ints]:
        grace = int(self.policy.grace.total_seconds())
        versions = self.past.versions
        for zone, (at, _) in self.calendars.items():
            mine = np.array([self._zone(known) == zone for known in self.past.knowns], bool)
            rows = np.flatnonzero(mine[versions.known]) if len(versions) else versions.known
            for shift in (0, grace):
                times = at - shift
                low = np.searchsorted(times, versions.start[rows])
                count = np.searchsorted(times, versions.end[rows]) - low
                of = np.repeat(rows, count)
                which = np.repeat(low, count) + np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
                yield on_line(versions.resource[of], times[which])

    def _off(self, known: Ints, time: Ints) -> tuple[Ints, Ints]:
        zones = [self._zone(one) for one in self.past.knowns]
        grace = int(self.policy.grace.total_seconds())
        now, soon = np.zeros(len(known), np.int64), np.zeros(len(known), np.int64)
        for zone, (at, off) in self.calendars.items():
            mine = np.array([name == zone for name in zones], bool)[known]
            now[mine] = off[np.searchsorted(at, time[mine], side="right") - 1]
            soon[mine] = off[np.searchsorted(at, time[mine] + grace, side="right") - 1]
        return now, soon


_ANY = datetime(2000, 1, 1, tzinfo=UTC)
"""Some moment: what is asked with it does not change with time."""
_WORDS = (None, "idle", "busy", "busy")


def _from(moment: datetime) -> int:
    """The first whole second that is not before it."""
    return math.ceil(moment.timestamp())


def _or_none(column: Ints) -> list[int | None]:
    return [None if value < 0 else value for value in column.tolist()]


def _between(level: Ints, numbers: Sequence[float]) -> list[float | None]:
    """For how many numbers a value reaches or is above, one that compares with all of them as it does."""
    told = [numbers[0] - 1]
    for number, following in zip(numbers, [*numbers[1:], numbers[-1] + 2], strict=True):
        told += [number, (number + following) / 2]
    return [None if value < 0 else told[value] for value in level.tolist()]


def _edges(highest: Highest) -> Iterator[Ints]:
    for spans in (highest.known, *highest.at_least, *highest.above):
        yield spans.start
        yield spans.end


def _switches(hours: Calendar, start: int, end: int) -> tuple[Ints, Ints]:
    """From before the start: each moment at which it may switch, and whether it is off then."""
    moment: datetime | None = datetime.fromtimestamp(start - 86400, UTC)
    at, off = [], []
    while moment is not None and moment.timestamp() <= end:
        at.append(int(moment.timestamp()))
        off.append(int(not hours.is_on(moment)))
        moment = hours.next_change(moment)
    return np.array(at, np.int64), np.array(off, np.int64)


def _compared_with(compiled: CompiledPolicy, name: str) -> set[float]:
    """The numbers at which a comparison of this fact may turn. NotReplayable where it is reckoned with."""
    found = set[float]()
    for column in compiled.code.find_all(exp.Column):
        if column.name != name:
            continue
        parent = column.parent
        while isinstance(parent, exp.Paren):
            parent = parent.parent
        if isinstance(parent, exp.Is):  # whether it is known turns with what it rests on
            continue
        others = [node for node in (parent.args.values() if parent else ()) if isinstance(node, exp.Literal)]
        if not isinstance(parent, exp.GT | exp.GTE | exp.LT | exp.LTE | exp.EQ | exp.NEQ | exp.Between) or not others:
            raise NotReplayable(
                f"its condition reckons with `{name}`; a back-test follows comparisons with a number only"
            )
        found |= {float(other.name) for other in others}
    return found


def _cool_until(knowns: Sequence[Known], policy: BasePolicy) -> Ints:
    ends = [known.restarted_at + policy.cool_down if known.restarted_at else None for known in knowns]
    return np.array([-1 if end is None else _from(end) for end in ends] or [-1], np.int64)


def _blocked(past: Past, policy: BasePolicy, limits: Limits, known: Ints, time: Ints) -> Any:
    """Where the live plan would refuse to act, or leave it alone for a while."""
    forbidden = np.zeros(len(past.knowns) + 1, bool)
    for index, one in enumerate(past.knowns):
        then = datetime.fromtimestamp(past.reading.start, UTC)  # a protection that ends on its way protects throughout
        nothing_to_do = policy.acts and one.record.state is not State.RUNNING
        left_alone = not one.governed or one.is_group or nothing_to_do
        forbidden[index] = left_alone or why_not(one, policy, limits, then) is not None
    cooling = np.append(_cool_until(past.knowns, policy)[: len(past.knowns)], -1)[known] > time
    return forbidden[known] | cooling


def spoken_of(verdicts: Verdicts) -> Any:
    """Where the policy speaks of the resource for certain."""
    return (verdicts.code < OUT) & (verdicts.known >= 0)
