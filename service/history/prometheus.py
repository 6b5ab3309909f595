"""Asks an installation's Prometheus servers for the past of what Curfew knows, and writes it into a history.

Samples come in stretches of time, raw as the live cycle gets them, and become windows of five minutes at once. What a
resource was comes from the meter; from before the meter nothing is known but what it is today. What a history has
already stays as it is.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from sqlmodel import Session, col, select

from providers.contract import Telemetry
from providers.errors import ProviderError
from providers.records import CapacityType, Price, ResourceRecord, ResourceRef, Series, Signal, State
from service.documents import nearest
from service.fleet import Member
from service.history.days import DAY, Staging, Wins, staging
from service.history.layout import History, Table, midnight
from service.history.record import ARROW, WINDOW, Row, rounded, rows_of
from service.model import Known
from service.store.resources import known_of, to_json
from service.store.tables import MeterInterval, Resource

PROVIDER = "prometheus"
STRETCHES = (600, 900, 1800, 3600, 7200, 21_600)
"""Seconds that are asked for at a time: parts of a day, whole windows."""
MOST_SAMPLES = 2_000_000
"""That are held at a time, were there one every 15 seconds of five signals of each GPU."""
SIGNALS, SCRAPE_SECONDS = 5, 15
SILENCE = DAY
"""A resource without samples for longer was not there, as far as anybody knows."""
LONG_BEFORE = timedelta(days=1)
"""Nobody tells when a run began that was under way at the first sample: longer ago than any warm-up."""
PATIENCE = 3
"""So many stretches in a row that a server does not answer are enough."""

Progress = Callable[[float, str], None]


class NothingToAsk(ValueError):
    """There is no server to ask, or none answers."""


@dataclass(frozen=True, kw_only=True)
class Lived:
    """One resource and what the meter tells of it."""

    known: Known
    intervals: Sequence[MeterInterval]
    """Those in which somebody looked, in the order of time."""

    @property
    def began(self) -> int:
        """From which second on it may be asked about."""
        return _second(self.known.record.created_at) if self.known.record.created_at else 0

    @property
    def ended(self) -> int | None:
        return None if self.known.ended_at is None else _second(self.known.ended_at)


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import brought in."""

    start: datetime
    end: datetime
    sources: Sequence[str]
    resources: int
    """Of which anything was told."""
    silent: int
    """Known, and nobody told anything of them."""
    rows: int
    assumed: int
    """Of the resources those of which the time before Curfew is told, as they are today."""
    faults: Sequence[str]
    """What could not be asked, in sentences."""


def lived(session: Session, start: datetime) -> list[Lived]:
    """Every resource that was there after a moment, with what was metered of it."""
    resources = [known_of(row) for row in session.exec(select(Resource).order_by(col(Resource.id)))]
    rows = session.exec(
        select(MeterInterval)
        .where(col(MeterInterval.ended_at).is_(None) | (col(MeterInterval.ended_at) > start))
        .order_by(col(MeterInterval.started_at))
    )
    intervals: dict[str, list[MeterInterval]] = defaultdict(list)
    for row in rows:
        if not row.assumed and (row.ended_at is None or row.ended_at > row.started_at):
            intervals[row.resource_id].append(row)
    return [
        Lived(known=known, intervals=intervals.get(known.id, ()))
        for known in resources
        if known.record.ref.kind.counted and (known.ended_at is None or known.ended_at > start)
    ]


def servers(members: Mapping[str, Member], only: str | None) -> dict[str, Telemetry]:
    """The servers that are asked, by source. Raises NothingToAsk."""
    if only is not None and only not in members:
        raise NothingToAsk(f"there is no source {only!r}{nearest(only, members)}")
    chosen = {name: member for name, member in members.items() if only in (None, name)}
    found = {}
    for name, member in chosen.items():
        if member.source.provider != PROVIDER:
            if only is not None:
                raise NothingToAsk(f"source {name} is no Prometheus but {member.source.provider}")
            continue
        if member.provider is None or member.provider.telemetry is None:
            raise NothingToAsk(f"source {name}: {member.fault.sentence if member.fault else 'it has no telemetry'}")
        found[name] = member.provider.telemetry
    if not found:
        raise NothingToAsk(f"no source has the provider {PROVIDER}; `curfew get sources` shows what there is")
    return found


def import_past(
    asked: Mapping[str, Telemetry],
    resources: Sequence[Lived],
    history: History,
    *,
    start: datetime,
    end: datetime,
    progress: Progress,
) -> Imported:
    """What these servers tell of these resources from `start` to `end`, or nothing. Raises NothingToAsk, days.Busy."""
    with staging(history, Wins.OLD) as place:
        work = _Import(place, resources, _whole(start), _whole(end), progress)
        for count, (name, server) in enumerate(asked.items()):
            work.ask(name, server, count / len(asked), 1 / len(asked))
        found = work.keep()
        place.commit()
    progress(1.0, "done")
    return replace(found, sources=tuple(asked))


class _Import:
    """The past on its way into a history."""

    def __init__(self, place: Staging, resources: Sequence[Lived], start: int, end: int, progress: Progress) -> None:
        self._place = place
        self._resources = resources
        self._start = start
        self._end = end
        self._progress = progress
        self._owners = _Owners(resources)
        self._faults: list[str] = []
        columns = ", ".join(f"{column} {kind}" for column, kind in Table.ACTIVITY.columns.items())
        place.sql.execute(f"CREATE TABLE told ({columns})")

    def ask(self, name: str, server: Telemetry, done: float, share: float) -> None:
        """One server, one stretch after the other."""
        self._counters = _Counters()
        gpus = sum(max(1, one.known.record.gpu_count) for one in self._resources)
        at_a_time = _stretch(gpus)
        refused = 0
        for since in range(self._start - self._start % at_a_time, self._end, at_a_time):
            first, last = max(since, self._start), min(since + at_a_time, self._end)
            shown = datetime.fromtimestamp(first, UTC)
            self._progress(
                0.9 * (done + share * (first - self._start) / max(1, self._end - self._start)),
                f"asking {name} about {shown:%Y-%m-%d %H:%M}",
            )
            records = self._owners.there(first, last)
            if not records:
                continue
            try:
                answer = server.samples(
                    records, start=datetime.fromtimestamp(first, UTC), end=datetime.fromtimestamp(last, UTC)
                )
            except ProviderError as error:
                refused += 1
                self._faults.append(f"{name}, {_span(first, last)}: {error.sentence}")
                if refused == PATIENCE:
                    raise NothingToAsk(
                        f"source {name} gives no answer: {error.sentence}; nothing was changed"
                    ) from None
                continue
            refused = 0
            self._faults += [
                f"{name}, {_span(first, last)}, {part.part}: {part.fault.sentence}"
                for part in answer.faults
                if part.fault is not None
            ]
            self._take((one for one in answer.series if one.ref not in answer.ambiguous), first, last)
            self._counters.begun = True

    def _take(self, found: Iterable[Series], first: int, last: int) -> None:
        """Samples as the rows that the live cycle would have written of them."""
        whose: dict[str, list[Series]] = defaultdict(list)
        for series in found:
            for id, own in self._owners.of(series):
                if own.times:
                    whose[id].append(self._counters.joined(id, own) if own.signal is Signal.REQUESTS_TOTAL else own)
        self._write([row for id, series in whose.items() for row in rows_of(id, series, first - 1, first, last)[0]])

    def _write(self, rows: Sequence[Row]) -> None:
        import nanoarrow

        if not rows:
            return
        columns = Table.ACTIVITY.columns
        arrays = [
            nanoarrow.c_array(values, ARROW[kind])
            for values, kind in zip(zip(*rows, strict=True), columns.values(), strict=True)
        ]
        schema = nanoarrow.struct({column: ARROW[kind] for column, kind in columns.items()})
        batch = nanoarrow.c_array_from_buffers(schema, len(rows), [None], children=arrays)
        self._place.sql.register("batch", batch)
        selected = ", ".join(f"{rounded(column)} AS {column}" for column in columns)
        self._place.sql.execute(f"INSERT INTO told SELECT {selected} FROM batch")
        self._place.sql.unregister("batch")

    # what was told, as days

    def keep(self) -> Imported:
        """Days of everything that was told. Where two servers tell of one window the higher counts, for as long as the
        longer one speaks: together they would know more than either."""
        sql = self._place.sql
        values = list(Table.ACTIVITY.columns)[5:]
        highest = ", ".join(f"{'bool_or' if name == 'served' else 'max'}({name}) AS {name}" for name in values)
        longest = ", ".join(f"longest.{name} AS {name}" for name in ("time", "until", "step"))
        days = [row[0] for row in sql.execute(f"SELECT DISTINCT time // {DAY} FROM told ORDER BY 1").fetchall()]
        rows = 0
        for count, number in enumerate(days):
            day = date(1970, 1, 1) + timedelta(days=number)
            self._progress(0.9 + 0.06 * count / len(days), f"sorting {day.isoformat()}")
            together = (
                f"SELECT resource, gpu, {longest}, {', '.join(values)} FROM (SELECT resource, gpu, {highest}, arg_max("
                "{'time': time, 'until': until, 'step': step}, coalesce(until - time, 0)) AS longest FROM told "
                f"WHERE time >= {midnight(day)} AND time < {midnight(day) + DAY} "
                f"GROUP BY resource, gpu, served IS NULL, time // {WINDOW})"
            )
            rows += int(sql.execute(f"SELECT count(*) FROM ({together})").fetchall()[0][0])
            self._place.put(Table.ACTIVITY, day, together)
        seen, assumed = self._stretches()
        self._place.put_resources(lambda share, words: self._progress(0.96 + 0.03 * share, words))
        return Imported(
            start=datetime.fromtimestamp(self._start, UTC),
            end=datetime.fromtimestamp(self._end, UTC),
            sources=(),
            resources=seen,
            silent=len(self._resources) - seen,
            rows=rows,
            assumed=assumed,
            faults=self._faults,
        )

    def _stretches(self) -> tuple[int, int]:
        """What each resource was. How many told anything, and of how many the time before Curfew is told."""
        told = self._when_told()
        assumed = 0
        batch: list[tuple[str, int, int, str]] = []
        for one in self._resources:
            stretches = list(_life(one, told.get(one.known.id, ()), self._start, self._end))
            assumed += any(stretch.before_curfew for stretch in stretches)
            batch += [
                (one.known.id, stretch.since, stretch.until, to_json(stretch.known))
                for stretch in stretches
                if stretch.until > stretch.since
            ]
        if batch:
            self._place.keep(batch)
        return len(told), assumed

    def _when_told(self) -> dict[str, list[tuple[int, int]]]:
        """Resource → the stretches of time in which samples tell of it, the last second included."""
        rows = self._place.sql.execute(
            f"""
            WITH apart AS (
                SELECT resource, time, coalesce(until, time) AS last,
                       time - max(coalesce(until, time)) OVER (
                           PARTITION BY resource ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                       ) > {SILENCE} AS new FROM told
            ), numbered AS (
                SELECT *, count(*) FILTER (new) OVER (
                    PARTITION BY resource ORDER BY time ROWS UNBOUNDED PRECEDING) AS number
                FROM apart
            )
            SELECT resource, min(time), max(last) FROM numbered GROUP BY resource, number ORDER BY resource, min(time)
            """
        ).fetchall()
        found: dict[str, list[tuple[int, int]]] = {}
        for id, first, last in rows:
            found.setdefault(id, []).append((first, last))
        return found


class _Owners:
    """Whose a sample is. Something made anew under an old name is another resource, from when it was there on."""

    def __init__(self, resources: Sequence[Lived]) -> None:
        by_ref: dict[ResourceRef, list[Lived]] = defaultdict(list)
        for one in sorted(resources, key=lambda one: one.known.first_seen):
            by_ref[one.known.record.ref].append(one)
        self._spans: dict[ResourceRef, list[tuple[int, int, Lived]]] = {}
        for ref, ones in by_ref.items():
            begins = [ones[0].began, *(max(one.began, _second(one.known.first_seen)) for one in ones[1:])]
            ends = [*begins[1:], 2**62]
            self._spans[ref] = [
                (begin, end if one.ended is None else min(end, one.ended), one)
                for one, begin, end in zip(ones, begins, ends, strict=True)
            ]

    def there(self, first: int, last: int) -> list[ResourceRecord]:
        """The records to ask with; of several under one name the last."""
        found = []
        for spans in self._spans.values():
            then = [one for begin, end, one in spans if begin < last and end > first]
            if then:
                found.append(then[-1].known.record)
        return found

    def of(self, series: Series) -> Iterator[tuple[str, Series]]:
        """Resources, and what of a series is theirs."""
        for begin, end, one in self._spans.get(series.ref, ()):
            first, last = bisect_left(series.times, begin), bisect_left(series.times, end)
            yield one.known.id, replace(series, times=series.times[first:last], values=series.values[first:last])


@dataclass
class _Counters:
    """Where each counter of requests stood at the end of what was asked last."""

    last: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    begun: bool = False
    """Whether any stretch has been asked before: a counter that turns up then began at zero."""

    def joined(self, id: str, series: Series) -> Series:
        """With the sample before its first. Where the very first stretch begins it moved as little as it could."""
        unknown = None if self.begun else (series.times[0] - 1, series.values[0])
        before = self.last.get((id, series.device), unknown)
        self.last[id, series.device] = series.times[-1], series.values[-1]
        if before is None:
            return series
        return replace(series, times=(before[0], *series.times), values=(before[1], *series.values))


@dataclass(frozen=True)
class _Stretch:
    since: int
    until: int
    known: Known
    before_curfew: bool = False


def _life(one: Lived, told: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[_Stretch]:
    """What a resource was, in the order of time: first as it is today wherever samples tell of it, then as metered."""
    metered = list(_metered(one, start, end))
    curfew = metered[0].since if metered else end if one.ended is None else min(end, one.ended)
    for first, last in told:
        if first >= curfew:
            break
        until = curfew if metered and curfew - last <= SILENCE else min(last + 1, curfew)
        yield from _as_today(one.known, first, until)
    yield from metered


def _as_today(known: Known, first: int, until: int) -> Iterator[_Stretch]:
    """It showed samples, so it ran; when it began to, its cloud may tell of the present run."""
    record = replace(known.record, state=State.RUNNING, stopped_by=None)
    at = datetime.fromtimestamp(first, UTC)
    began = known.started_at or known.record.launched_at
    plain = replace(
        known,
        record=record,
        ended_at=None,
        missing_since=None,
        orphaned_at=None,
        restarted_at=None,
        earlier_runs_seconds=0,
        first_seen=min(known.first_seen, at),
        state_since=at,
        project_since=min(known.project_since, at) if known.project_since else None,
    )
    if began is not None and first < _second(began) < until:
        yield _Stretch(first, _second(began), replace(plain, started_at=at - LONG_BEFORE), before_curfew=True)
        yield _Stretch(_second(began), until, replace(plain, started_at=began, state_since=began), before_curfew=True)
    else:
        earlier = began if began is not None and _second(began) <= first else at - LONG_BEFORE
        yield _Stretch(first, until, replace(plain, started_at=earlier), before_curfew=True)


def _metered(one: Lived, start: int, end: int) -> Iterator[_Stretch]:
    """What the meter saw, where it looked; intervals that differ in activity only are one stretch."""
    known = one.known
    runs_since: datetime | None = None
    stopped = False
    restarted: datetime | None = None
    open_: _Stretch | None = None
    for interval in one.intervals:
        since = max(_second(interval.started_at), start)
        until = min(end if interval.ended_at is None else _second(interval.ended_at), end)
        if one.ended is not None:
            until = min(until, one.ended)
        state = State(interval.state)
        if state is State.RUNNING:
            if runs_since is None:
                runs_since = interval.started_at
                restarted = runs_since if stopped else None
        elif state in (State.STOPPED, State.SUSPENDED, State.STOPPING):
            runs_since, stopped = None, True
        then = replace(
            known,
            record=replace(
                known.record,
                state=state,
                capacity_type=CapacityType(interval.capacity_type),
                stopped_by=known.record.stopped_by if state is known.record.state else None,
            ),
            ended_at=None,
            missing_since=None,
            orphaned_at=None,
            project=interval.project,
            started_at=_began(known, runs_since, stopped),
            restarted_at=restarted,
            price=_price(known, interval),
        )
        if open_ is not None and open_.until >= since and _alike(open_.known, then):
            open_ = replace(open_, until=max(until, open_.until))
            continue
        if open_ is not None:
            yield open_
            if open_.known.record.state is state:
                then = replace(then, state_since=open_.known.state_since)
            else:
                then = replace(then, state_since=interval.started_at)
            if open_.known.project == then.project:
                then = replace(then, project_since=open_.known.project_since)
            elif then.project is not None:
                then = replace(then, project_since=interval.started_at)
        open_ = _Stretch(since, until, then)
    if open_ is not None:
        yield open_


def _began(known: Known, runs_since: datetime | None, stopped: bool) -> datetime | None:
    """When the run began that an interval is of: the one under way when the meter began, its cloud may tell of."""
    if runs_since is None or stopped:
        return runs_since
    if known.started_at is not None and known.started_at <= runs_since:
        return known.started_at
    return runs_since - LONG_BEFORE


def _price(known: Known, interval: MeterInterval) -> Price | None:
    """What an hour of running cost. Of what did not run the meter tells nothing; a machine that workloads hold part of
    is metered for the rest only."""
    if interval.rate_micros == 0 or known.lent is not None:
        return known.price
    return Price(rate_micros=interval.rate_micros, currency=interval.currency, source=interval.price_source)


def _alike(one: Known, other: Known) -> bool:
    return (one.record.state, one.record.capacity_type, one.project, one.price, one.started_at) == (
        other.record.state,
        other.record.capacity_type,
        other.project,
        other.price,
        other.started_at,
    )


def _stretch(gpus: int) -> int:
    """How long a stretch is asked for at a time."""
    fits = MOST_SAMPLES * SCRAPE_SECONDS / (SIGNALS * max(1, gpus))
    return max((seconds for seconds in STRETCHES if seconds <= fits), default=STRETCHES[0])


def _span(first: int, last: int) -> str:
    since, until = datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC)
    return f"{since:%Y-%m-%d %H:%M} to {until:%H:%M} UTC"


def _whole(at: datetime) -> int:
    return _second(at) // WINDOW * WINDOW


def _second(at: datetime) -> int:
    return int(at.timestamp())
