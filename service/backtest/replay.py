"""A policy and a history → what it would have done: read, judge, live, score, in this order.

This is the one door; nothing here can act, and nothing is asked of any cloud.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from policies.evaluate import CompiledPolicy
from policies.policy import BasePolicy, IdlePolicy, Mode, profile_of
from policies.quantities import format_duration, format_share
from providers.records import Kind, Verb
from service.backtest.activity import activity_of
from service.backtest.judging import Verdicts, check, judged, looks_back, signals, spoken_of
from service.backtest.life import Lived, lived
from service.backtest.past import Past, Progress, Reading, bounds, read
from service.backtest.question import HORIZONS, Question, Sweep
from service.backtest.report import Horizon, Point, Report, Saving, Stop, Swept, Totals, Unknown, Warned
from service.backtest.score import Truth
from service.backtest.spans import LINE, Ints, Spans, both, key_of, on_line, time_of, union, without
from service.history.layout import History, day_of
from service.model import Known
from service.pipeline.plan import Limits


def _quietly(share: float, words: str) -> None:
    """Nobody watches."""


def backtest(history: History, question: Question, progress: Progress = _quietly) -> Report:
    """What the policy would have done. NotReplayable or another ValueError says why that cannot be told."""
    replay = _Replay(history, question, progress)
    found = replay.try_out(question.policy, replay.own)
    return replay.report(found)


@dataclass(frozen=True)
class _Tried:
    """What one policy would have done."""

    policy: BasePolicy
    verdicts: Verdicts
    lived: Lived
    place: Ints
    """Of each stop, on the line of resources."""
    ends: Ints
    """Up to where it would have lasted: work, or the end of the recorded run."""


class _Replay:
    """One question's history, read once for the policy and all points of its sweep."""

    def __init__(self, history: History, question: Question, progress: Progress) -> None:
        self.question = question
        self.progress = progress
        self.policy = question.policy
        self.compiled = check(self.policy)
        self.step = int(question.step.total_seconds())
        if self.step < 1:
            raise ValueError("a back-test needs a step of at least a second")
        self.profile = profile_of(self.policy)
        self.start, self.end = _stretch(history, question)
        sweep = question.sweep if isinstance(self.policy, IdlePolicy) else None
        self.sweep = sweep
        self.thresholds = sorted({self.profile.utilisation_below, *(sweep.thresholds if sweep else ())})
        self.own = self.thresholds.index(self.profile.utilisation_below)
        self.windows = [self.profile.for_, *(sweep.windows if sweep else ())]
        lead = max(self.windows) + self.profile.telemetry_delay + looks_back(self.compiled)
        reading = Reading(
            start=self.start - int((lead + self.profile.max_gap + self.profile.warm_up).total_seconds()),
            end=self.end,
            gap=int(self.profile.max_gap.total_seconds()),
            thresholds=self.thresholds,
            reach=self._reach(),
            signals=signals(self.compiled),
            project=question.project,
        )
        self.past = read(history, reading, self.profile, progress=progress, share=0.5 if sweep else 0.8)
        if question.project is not None and not len(self.past.versions):
            raise ValueError(f"nothing that is recorded of that time belonged to project {question.project!r}")
        self.truth = Truth(self.past, self.profile, self.past.work[self.own], question.prices)
        self.limits = _as_if_enforced(self.past.knowns)

    def _reach(self) -> int:
        """Work this close together never parts what is idle: no window fits in between, and no horizon."""
        if not isinstance(self.policy, IdlePolicy) or self.profile.busy_gpus_below > 1:
            return 0
        # Nor does enough of a window, after a restart that parts work from work.
        enough = min(self.windows) * self.profile.min_coverage + self.profile.telemetry_delay
        closest = min(enough, self.question.horizon, *HORIZONS)
        return max(0, int(closest.total_seconds()) - 1)

    # --- judge and live

    def try_out(self, policy: BasePolicy, threshold: int, verdicts: Verdicts | None = None) -> _Tried:
        """What this policy would have done; of two that differ in their grace alone the verdicts are the same."""
        if verdicts is None:
            compiled = self.compiled if policy is self.policy else check(policy)
            verdicts = self._judged(policy, compiled, threshold)
        found = lived(
            policy,
            verdicts,
            self.past.knowns,
            self.past.resources,
            step=self.step,
            first_tick=-(-self.start // self.step),
            until=self._until,
        )
        resource = np.array([stop.resource for stop in found.stops], np.int64)
        place = on_line(resource, np.array([stop.tick * self.step for stop in found.stops], np.int64))
        return _Tried(policy, verdicts, found, place, self._ends(place))

    def _judged(self, policy: BasePolicy, compiled: CompiledPolicy, threshold: int) -> Verdicts:
        activity = activity_of(self.past, profile_of(policy), self.past.work[threshold])
        return judged(
            self.past,
            policy,
            compiled,
            activity,
            step=self.step,
            projects=self.question.projects,
            limits=self.limits,
        )

    def _ends(self, place: Ints) -> Ints:
        run, work = self.truth.runs_until(place), self.truth.resumes(place)
        return np.where((work >= 0) & (work < run), work, run)

    def _until(self, resource: int, tick: int) -> tuple[int, bool]:
        end, worked = self.truth.lasts_until(resource * LINE + tick * self.step)
        return end % LINE, worked

    # --- score

    def report(self, found: _Tried) -> Report:
        self.progress(0.8 if self.sweep is None else 0.5, "scores the stops")
        stops = self._stops(found)
        unknown = self._unknown(found)
        totals = self._totals(found, stops, unknown)
        swept = self._swept(self.sweep) if self.sweep is not None else None
        self.progress(1.0, "done")
        return Report(
            policy=self.policy.name,
            type=getattr(self.policy, "type", "policy"),
            terms=terms(self.policy),
            start=_moment(self.start),
            end=_moment(self.end),
            horizon=self.question.horizon,
            step=self.question.step,
            samples=self.past.samples,
            totals=totals,
            stops=stops,
            horizons=[self._horizon(found, horizon) for horizon in HORIZONS],
            savings=self._savings(found, stops),
            warned=self._warned(found),
            unknown=unknown,
            sweep=swept,
            limits=self._limits(found),
        )

    def _stops(self, found: _Tried) -> list[Stop]:
        place, ends = found.place, found.ends
        horizon = int(self.question.horizon.total_seconds())
        hours = self.truth.gpu_hours(place, ends)
        followed = self.truth.followed(place, horizon)
        decided = self.truth.decided(place, horizon, self.profile.min_coverage)
        resumed = self.truth.resumes(place).tolist()
        until = time_of(self.truth.heard_until(place, ends)).tolist()
        prices = [self.truth.price_of[stop.known](day_of(stop.tick * self.step)) for stop in found.lived.stops]
        costs = {
            currency: self.truth.cost_micros(place, ends, currency).tolist()
            for currency in {price.currency for price in prices if price is not None}
        }
        stops = []
        for index, halted in enumerate(found.lived.stops):
            known = self.past.knowns[halted.known]
            price = prices[index]
            stops.append(
                Stop(
                    resource=self.past.resources[halted.resource],
                    name=known.record.name,
                    project=known.project,
                    owner=known.owner,
                    at=_moment(halted.tick * self.step),
                    saves_until=_moment(until[index]),
                    gpu_hours_saved=float(hours[index]),
                    cost_saved_micros=None if price is None else costs[price.currency][index],
                    currency=None if price is None else price.currency,
                    false_stop=bool(followed[index]) if decided[index] else None,
                    work_resumed_at=_moment(resumed[index] % LINE) if resumed[index] >= 0 else None,
                )
            )
        return stops

    def _totals(self, found: _Tried, stops: Sequence[Stop], unknown: Sequence[Unknown]) -> Totals:
        money: Counter[str] = Counter()
        for stop in stops:
            if stop.currency is not None and stop.cost_saved_micros is not None:
                money[stop.currency] += stop.cost_saved_micros
        oracle, reached = self._oracle(found)
        return Totals(
            stops=len(stops),
            gpu_hours_saved=sum(stop.gpu_hours_saved for stop in stops),
            cost_saved_micros=dict(money),
            without_price=sum(stop.cost_saved_micros is None for stop in stops),
            false_stops=sum(stop.false_stop is True for stop in stops),
            undecided=sum(stop.false_stop is None for stop in stops),
            oracle_gpu_hours=oracle,
            oracle_reached_gpu_hours=reached,
            unknown_resources=len(unknown),
            resources=len(np.unique(key_of(self._scope(found).start))),
            warnings=len(found.lived.warnings),
        )

    def _scope(self, found: _Tried, *, unblocked: bool = False) -> Spans:
        """When the policy spoke of what, within the stretch that was asked about."""
        verdicts = found.verdicts
        chosen = spoken_of(verdicts) & ~(verdicts.blocked & unblocked)
        resource = verdicts.resource[chosen]
        start = np.maximum(verdicts.first[chosen] * self.step, self.start)
        return union(
            on_line(resource, start), on_line(resource, np.minimum(verdicts.last[chosen] * self.step, self.end))
        )

    def _oracle(self, found: _Tried) -> tuple[float, float]:
        """GPU hours that stops at the first second of each idle run would save, of those that no work follows within
        the horizon; and how many of them this policy saves."""
        scope = self._scope(found, unblocked=True)
        rests = self.truth.rests()
        start = np.maximum(rests.start, on_line(key_of(rests.start), np.full(len(rests), self.start)))
        kept = (rests.end > start) & (scope.within(start, rests.end) > 0)
        start, end = start[kept], rests.end[kept]
        spared = ~self.truth.followed(start, int(self.question.horizon.total_seconds()))
        runs = Spans(start[spared], end[spared])
        hours = float(self.truth.gpu_hours(runs.start, runs.end).sum())
        inside = runs.covers(found.place)
        index = np.searchsorted(runs.start, found.place[inside], side="right") - 1
        until = np.minimum(found.ends[inside], runs.end[index])
        return hours, float(self.truth.gpu_hours(found.place[inside], until).sum())

    def _horizon(self, found: _Tried, horizon: timedelta) -> Horizon:
        seconds = int(horizon.total_seconds())
        followed = self.truth.followed(found.place, seconds)
        decided = self.truth.decided(found.place, seconds, self.profile.min_coverage)
        count = int(decided.sum())
        return Horizon(
            horizon=horizon,
            false_stops=int(followed.sum()),
            undecided=len(found.place) - count,
            decided=count,
        )

    def _savings(self, found: _Tried, stops: Sequence[Stop]) -> list[Saving]:
        """By the days of each project's own clocks; each hour counts on the day it falls on."""
        made: Counter[tuple[date, str | None, str | None]] = Counter()
        hours: dict[tuple[date, str | None, str | None], float] = defaultdict(float)
        money: Counter[tuple[date, str | None, str | None]] = Counter()
        parts: list[tuple[int, date, int, int]] = []
        for index, stop in enumerate(stops):
            zone = self._zone(stop.project)
            made[stop.at.astimezone(zone).date(), stop.project, stop.currency] += 1
            place, end = int(found.place[index]), int(found.ends[index])
            parts += [(index, day, start, until) for day, start, until in _by_day(place, end, zone)]
        stop_of, starts, untils = (np.array([part[column] for part in parts], np.int64) for column in (0, 2, 3))
        saved = self.truth.gpu_hours(starts, untils).tolist()
        # Up to the end of the day, less what was up to its beginning: so days add up to the stop, however they round.
        upto, before = (
            {
                currency: self.truth.cost_micros(found.place[stop_of], edges, currency).tolist()
                for currency in {stop.currency for stop in stops if stop.currency is not None}
            }
            for edges in (untils, starts)
        )
        for number, (index, day, *_) in enumerate(parts):
            key = (day, stops[index].project, stops[index].currency)
            hours[key] += saved[number]
            if key[2] is not None:
                money[key] += upto[key[2]][number] - before[key[2]][number]
        return [
            Saving(
                project=project,
                day=day,
                stops=made[day, project, currency],
                gpu_hours_saved=hours[day, project, currency],
                cost_saved_micros=None if currency is None else money[day, project, currency],
                currency=currency,
            )
            for day, project, currency in sorted({*made, *hours}, key=lambda key: (key[0], key[1] or "", key[2] or ""))
        ]

    def _zone(self, project: str | None) -> ZoneInfo:
        found = self.question.projects.get(project or "")
        return ZoneInfo(found.timezone if found else "UTC")

    def _warned(self, found: _Tried) -> list[Warned]:
        times: Counter[tuple[str | None, str | None]] = Counter()
        whom: dict[tuple[str | None, str | None], set[int]] = defaultdict(set)
        for warning in found.lived.warnings:
            known = self.past.knowns[warning.known]
            times[known.owner, known.project] += 1
            whom[known.owner, known.project].add(warning.resource)
        return [
            Warned(owner=owner, project=project, warnings=count, resources=len(whom[owner, project]))
            for (owner, project), count in sorted(
                times.items(), key=lambda entry: (-entry[1], entry[0][0] or "", entry[0][1] or "")
            )
        ]

    def _unknown(self, found: _Tried) -> list[Unknown]:
        """Resources in scope whose samples speak for less of their running time than the profile needs."""
        scope = self._scope(found)
        if not len(scope):
            return []
        ran = both(self.truth.running, scope)
        silent = without(ran, self.truth.heard)
        ran_seconds, silent_seconds = _per_resource(ran), _per_resource(silent)
        last = {int(known): index for index, known in enumerate(self.past.versions.resource.tolist())}
        rows = []
        for resource, seconds in silent_seconds.items():
            share = seconds / ran_seconds[resource]
            if share <= 1 - self.profile.min_coverage or seconds <= self.profile.max_gap.total_seconds():
                continue
            known = self.past.knowns[int(self.past.versions.known[last[resource]])]
            mine = slice(*np.searchsorted(silent.start, [resource * LINE, (resource + 1) * LINE]))
            rows.append(
                Unknown(
                    resource=self.past.resources[resource],
                    name=known.record.name,
                    project=known.project,
                    hours=seconds / 3600,
                    share=share,
                    why=_why(Spans(silent.start[mine], silent.end[mine]), share),
                )
            )
        return sorted(rows, key=lambda row: (-row.hours, row.resource))

    # --- sweep

    def _swept(self, sweep: Sweep) -> Swept:
        assert isinstance(self.policy, IdlePolicy)
        points, done = [], 0
        for window in sweep.windows:
            for threshold in sweep.thresholds:
                idle = self.policy.idle.model_copy(update={"for_": window, "utilisation_below": threshold})
                verdicts: Verdicts | None = None
                for grace in sweep.graces:
                    policy = self.policy.model_copy(update={"idle": idle, "grace": grace})
                    tried = self.try_out(policy, self.thresholds.index(threshold), verdicts)
                    verdicts = tried.verdicts
                    points.append(self._point(tried, window, threshold, grace))
                    done += 1
                    self.progress(0.5 + 0.5 * done / sweep.points, f"tried {done} of {sweep.points} points")
        points = [replace(point, on_frontier=not any(_beats(other, point) for other in points)) for point in points]
        most = self.question.max_false_stops
        fit = [point for point in points if point.rate is not None and point.rate <= most]
        best = max(fit, key=lambda point: (point.gpu_hours_saved, point.window, point.grace), default=None)
        return Swept(points=points, max_false_stops=most, recommended=best)

    def _point(self, tried: _Tried, window: timedelta, threshold: float, grace: timedelta) -> Point:
        row = self._horizon(tried, self.question.horizon)
        return Point(
            window=window,
            threshold=threshold,
            grace=grace,
            stops=len(tried.place),
            gpu_hours_saved=float(self.truth.gpu_hours(tried.place, tried.ends).sum()),
            false_stops=row.false_stops,
            undecided=row.undecided,
            decided=row.decided,
            on_frontier=False,
        )

    # --- words

    def _limits(self, found: _Tried) -> list[str]:
        return list(_limits(self.policy, self.past, found.lived, self.truth, self.thresholds, sweeps=bool(self.sweep)))


def terms(policy: BasePolicy) -> str:
    """The policy in a sentence."""
    what = {
        "idle": "what runs and does nothing",
        "ownership": "what nobody answers for",
        "schedule": "what runs outside its hours",
        "lifetime": "what has run for longer than it was meant to",
        "residency": "what is where it must not be",
        "expression": "what its condition holds for",
    }.get(getattr(policy, "type", ""), "what breaches it")
    if isinstance(policy, IdlePolicy):
        idle = policy.idle
        what = f"what runs and stays below {format_share(idle.utilisation_below)} for {format_duration(idle.for_)}"
        if idle.when:
            what += f" while {idle.when}"
    act = policy.action.value.replace("_", " ") if policy.acts else "only tell of"
    return f"It would {act} {what}, {format_duration(policy.grace)} after a warning."


def _limits(
    policy: BasePolicy, past: Past, lived: Lived, truth: Truth, thresholds: Sequence[float], *, sweeps: bool
) -> Iterator[str]:
    if past.reading.project is not None:
        yield f"Only what belonged to project {past.reading.project} was looked at."
    yield (
        "Recorded data cannot show what would have happened after a stop: somebody might have started the machine "
        "again sooner, moved the work elsewhere, or lost it."
    )
    yield (
        "It is judged as if the policy had enforced under every ceiling. What people would have answered to the "
        "warnings (snoozes, exemptions, approvals, holds) and the circuit breaker are not replayed."
    )
    yield "Every sample is taken to have arrived in time; live, a late one may delay a stop."
    if not policy.acts:
        yield "The policy only notifies: it would have stopped nothing."
    is_group = np.array([known.is_group for known in past.knowns] or [False])
    groups = len(np.unique(past.versions.resource[is_group[past.versions.known]]))
    if groups:
        are = "group is" if groups == 1 else "groups are"
        yield f"{groups} scaling {are} left out: a group is met as a whole, which is not replayed."
    if lived.waited:
        times = "Once" if lived.waited == 1 else f"{lived.waited} times"
        yield f"{times} the disruption budget put a stop off; what it let through later counts from then."
    if sweeps and len(thresholds) > 1:
        work = format_share(profile_of(policy).utilisation_below)
        yield f"In the sweep work is what reaches {work}, whatever a point's own threshold is."


def _beats(one: Point, other: Point) -> bool:
    """It saves at least as much at no higher rate, and is better in one of both."""
    if other.rate is None:
        return other.stops > 0 or one.gpu_hours_saved > 0
    if one.rate is None:
        return False
    as_good = one.gpu_hours_saved >= other.gpu_hours_saved and one.rate <= other.rate
    return as_good and (one.gpu_hours_saved > other.gpu_hours_saved or one.rate < other.rate)


def _stretch(history: History, question: Question) -> tuple[int, int]:
    found = bounds(history)
    if found is None:
        raise ValueError(f"there is no history in {history.shown}")
    first, last = found
    start = max(first, int(question.start.timestamp())) if question.start else first
    end = min(last, int(question.end.timestamp())) if question.end else last
    if end <= start:
        raise ValueError(
            f"nothing is known of that time: the history reaches from {_moment(first):%Y-%m-%d %H:%M} "
            f"to {_moment(last):%Y-%m-%d %H:%M} UTC"
        )
    return start, end


def _as_if_enforced(knowns: Sequence[Known]) -> Limits:
    every = {kind: frozenset(Verb) for kind in Kind}
    sources = {known.source for known in knowns}
    return Limits(
        ceiling=Mode.ENFORCE,
        source_ceilings=dict.fromkeys(sources, Mode.ENFORCE),
        breaker=1.0,
        links_usable=True,
        verbs=dict.fromkeys(sources, every),
    )


def _per_resource(spans: Spans) -> Mapping[int, int]:
    found: Counter[int] = Counter()
    for resource, seconds in zip(key_of(spans.start).tolist(), spans.length.tolist(), strict=True):
        found[resource] += seconds
    return found


def _why(silent: Spans, share: float) -> str:
    longest = int(np.argmax(silent.length))
    start, end = int(time_of(silent.start)[longest]), int(time_of(silent.end)[longest])
    if share > 0.999:
        return "It sent no samples of all its GPUs while it ran."
    return (
        f"Samples of all its GPUs speak for {1 - share:.0%} of the time it ran; the longest hole, of "
        f"{format_duration(timedelta(seconds=end - start))}, began on {_moment(start):%Y-%m-%d at %H:%M} UTC."
    )


def _by_day(start: int, end: int, zone: ZoneInfo) -> Iterator[tuple[date, int, int]]:
    """The days that a stretch of one resource falls on, with the part on each."""
    line = start - int(time_of(np.array([start]))[0])
    while start < end:
        day = _moment(start - line).astimezone(zone).date()
        midnight = datetime.combine(day + timedelta(days=1), datetime.min.time(), zone)
        until = min(end, line + int(midnight.timestamp()))
        yield day, start, until
        start = until


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)
