"""What a back-test found, in sentences and rows as both the terminal and the page say them.

Made of the report as JSON (`service.backtest.report.as_json`), which is the same whether it was worked out here or
comes from a service. How it looks is `text`'s and `page`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, tzinfo
from math import sqrt
from typing import Any

Found = Mapping[str, Any]
"""A report as JSON, or a part of it."""

FEW = 20
"""Decided stops; below that the rate of false ones says little, and it is said how little."""
MOST_DAYS = 62
"""A longer time is shown by month."""
NOBODY = "nobody is named"
NO_PROJECT = "no project"


# --- numbers ---------------------------------------------------------------------------------------------------------


def hours(value: float) -> str:
    """`0.25`, `12.5`, `1,234`: three digits, and all before the point."""
    digits = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def gpu_hours(value: float) -> str:
    return f"{hours(value)} GPU hour{'' if hours(value) == '1' else 's'}"


def percent(share: float) -> str:
    """Three digits; never all of it while something is missing."""
    shown = f"{100 * share:.3g}"
    return "99.9 %" if share < 1 and float(shown) >= 100 else f"{shown} %"


def money(amount: float, currency: str) -> str:
    """To the cent; the exact amount is in the JSON."""
    return f"{amount:,.2f} {currency}"


def amounts(sums: Mapping[str, float]) -> str:
    """`1.00 EUR and 2.00 USD`: currencies are never added up."""
    return listed([money(sums[currency], currency) for currency in sorted(sums)])


def count(number: int, what: str) -> str:
    """`1 stop`, `1,200 stops`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def length(time: timedelta) -> str:
    """The two largest units: `1d 4h`."""
    rest, parts = int(time.total_seconds()), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        whole, rest = divmod(rest, size)
        if whole:
            parts.append(f"{whole}{unit}")
    return " ".join(parts[:2]) or "0s"


def moment(at: str, zone: tzinfo | None) -> str:
    """`14 Nov 2026 13:30`; in the zone of this machine when none is named."""
    local = datetime.fromisoformat(at).astimezone(zone)
    return f"{local.day} {local:%b %Y %H:%M}"


def zone_name(at: str, zone: tzinfo | None) -> str:
    local = datetime.fromisoformat(at).astimezone(zone)
    key = getattr(local.tzinfo, "key", None)
    return str(key or local.tzname() or "UTC")


# --- sentences -------------------------------------------------------------------------------------------------------


def stretch(found: Found, zone: tzinfo | None) -> str:
    """Which time was replayed, and on what."""
    if not found["samples"]:
        return f"From {moment(found['from'], zone)} to {moment(found['to'], zone)} ({zone_name(found['to'], zone)})."
    looked = length(timedelta(seconds=found["step_seconds"]))
    return (
        f"Replayed from {moment(found['from'], zone)} to {moment(found['to'], zone)} "
        f"({zone_name(found['to'], zone)}) with a look every {looked}, on {count(found['samples'], 'sample')}."
    )


def headline(found: Found) -> str:
    """What it would have done, in one sentence or two."""
    totals = found["totals"]
    if not found["samples"]:
        return "There is no history of this time, so nothing can be said of it."
    if not totals["resources"]:
        return "Nothing was in scope: no resource of this time is one that the policy speaks of."
    if not totals["stops"]:
        return _nothing(totals)
    saved = gpu_hours(totals["gpu_hours_saved"])
    paid = amounts(totals["cost_saved_by_currency"])
    stopped = "once" if totals["stops"] == 1 else f"{totals['stops']:,} times"
    words = f"It would have stopped {stopped} and saved {saved}{f' ({paid})' if paid else ''}; {decided(totals)}."
    if totals["stops_without_price"]:
        some, every = totals["stops_without_price"], totals["stops"]
        is_ = "is" if some in (1, every) else "are"
        words += f" {_of_them(some, every)} no known price and {is_} in no sum of money."
    return words


def _nothing(totals: Found) -> str:
    words = f"It would have stopped nothing of the {count(totals['resources'], 'resource')} in scope."
    unknown = totals["unknown_resources"]
    if unknown:
        all_of = "All" if unknown == totals["resources"] else f"{unknown:,}"
        words += f" {all_of} of them {'was' if unknown == 1 else 'were'} unknown for some of the time"
        words += ", and what is unknown is never stopped."
    return words


def _of_them(some: int, every: int) -> str:
    return "Each of them has" if some == every else f"{some:,} of them ha{'s' if some == 1 else 've'}"


def decided(row: Found) -> str:
    """`1 of 40 decided stops was false (2.5 %), 2 are undecided`"""
    false, told, open_ = row["false_stops"], row["decided"], row["undecided"]
    left = f", {open_:,} {'is' if open_ == 1 else 'are'} undecided" if open_ else ""
    if not told:
        return "whether any was false cannot be told, for the data end too soon after each"
    if not false:
        none = "the one decided stop was not false" if told == 1 else f"none of {told:,} decided stops was false"
        return none + left
    if told == 1:
        return f"the one decided stop was false{left}"
    rate = percent(row["false_stop_rate"])
    return f"{false:,} of {told:,} decided stops {'was' if false == 1 else 'were'} false ({rate}){left}"


def oracle(found: Found) -> str | None:
    """How near it comes to the best that could have been done."""
    totals = found["totals"]
    if not totals["resources"] or not found["samples"]:
        return None
    if totals["oracle_share"] is None:
        return "A perfect watcher would have saved nothing either."
    best = gpu_hours(totals["oracle_gpu_hours"])
    return f"A perfect watcher would have saved {best}: this policy reaches {percent(totals['oracle_share'])} of it."


def worst(found: Found, zone: tzinfo | None) -> Iterator[str]:
    """The longest and the costliest false stop, by name."""
    longest, costliest = found["longest_false_stop"], found["costliest_false_stop"]
    if longest is None:
        return
    if longest == costliest:
        yield f"The longest of them, and the costliest: {_falsely(longest, zone)}"
        return
    yield f"The longest of them: {_falsely(longest, zone)}"
    if costliest is not None:
        yield f"The costliest: {_falsely(costliest, zone)}"


def _falsely(stop: Found, zone: tzinfo | None) -> str:
    rate = hourly(stop)
    assert stop["work_resumed_at"] is not None  # that made it false
    about = ", ".join(filter(None, (f"project {stop['project']}" if stop["project"] else None, stop["owner"], rate)))
    back = length(_time(stop["work_resumed_at"]) - _time(stop["at"]))
    name = f"{stop['name']}{f' ({about})' if about else ''}"
    return f"{name}, stopped on {moment(stop['at'], zone)}, worked again {back} later."


def then(stop: Found, zone: tzinfo | None) -> str:
    """What came after one stop."""
    if stop["work_resumed_at"] is not None:
        return f"worked again {length(_time(stop['work_resumed_at']) - _time(stop['at']))} later"
    return f"no work is known until {moment(stop['saves_until'], zone)}"


def hourly(stop: Found) -> str | None:
    """What an hour of it cost while it would have been stopped."""
    stood = (_time(stop["saves_until"]) - _time(stop["at"])).total_seconds() / 3600
    if stop["cost_saved"] is None or stop["currency"] is None or stood <= 0:
        return None
    return f"{money(stop['cost_saved'] / stood, stop['currency'])} an hour"


def point_words(point: Found) -> str:
    """`idle for 45m below 5 %, grace 30m`"""
    below = point.get("below") or percent(point["utilisation_below"])
    return f"idle for {point['for']} below {below}, grace {point['grace']}"


def recommendation(sweep: Found) -> str:
    """Which point to take, and why, or that there is none."""
    ceiling, every, best = percent(sweep["max_false_stops"]), sweep["points"], sweep["recommended"]
    if best is None:
        tried = f"the {count(len(every), 'point')} tried"
        if not any(point["stops"] for point in every):
            return f"None of {tried} would have stopped anything, so there is nothing to recommend."
        rated = [point for point in every if point["false_stop_rate"] is not None]
        if not rated:
            return f"No stop of {tried} is decided, so none is recommended."
        least = min(rated, key=lambda point: (point["false_stop_rate"], -point["gpu_hours_saved"]))
        fewest = f"The fewest are of {point_words(least)}: {percent(least['false_stop_rate'])}."
        return f"None of {tried} stays within {ceiling} false stops, so none is recommended. {fewest}"
    within = [one for one in every if one["false_stop_rate"] is not None and one["false_stop_rate"] <= _most(sweep)]
    taken = " This policy is at that point already." if is_own(sweep, best) else ""
    return (
        f"Recommended: {point_words(best)}. It saves most ({gpu_hours(best['gpu_hours_saved'])}) of the "
        f"{count(len(within), 'point')} with at most {ceiling} false stops; {decided(best)}.{taken}"
    )


def _most(sweep: Found) -> float:
    return float(sweep["max_false_stops"])


def is_own(sweep: Found, point: Found) -> bool:
    return any(one.get("own") and _key(one) == _key(point) for one in sweep["points"])


def _key(point: Found) -> tuple[Any, ...]:
    return point["for"], point["utilisation_below"], point["grace"]


def is_shown(sweep: Found, point: Found) -> bool:
    """On the frontier, the policy's own, or recommended."""
    best = sweep["recommended"]
    return bool(point["on_frontier"] or point.get("own") or (best is not None and _key(point) == _key(best)))


def shown_points(sweep: Found) -> list[dict[str, Any]]:
    """The frontier, the policy's own point and the recommended one: fewest false stops first. Where only the threshold
    differs and nothing comes of it, they are one row: its `below` says from which to which. None, where none of all
    stops anything.
    """
    if not any(point["stops"] for point in sweep["points"]):
        return []
    rows: dict[tuple[Any, ...], list[Found]] = {}
    for point in sweep["points"]:
        if is_shown(sweep, point):
            alike = ("for", "grace", "stops", "gpu_hours_saved", "false_stops", "decided", "undecided")
            rows.setdefault(tuple(point[name] for name in alike), []).append(point)
    found = [_row(sweep, points) for points in rows.values()]
    return sorted(found, key=lambda row: (row["false_stop_rate"] or 0, row["gpu_hours_saved"]))


def _row(sweep: Found, points: Sequence[Found]) -> dict[str, Any]:
    best, below = sweep["recommended"], sorted(point["utilisation_below"] for point in points)
    return {
        **points[0],
        "below": percent(below[0]) if len(below) == 1 else f"{percent(below[0])} to {percent(below[-1])}",
        "own": any(point.get("own") for point in points),
        "recommended": best is not None and any(_key(point) == _key(best) for point in points),
        "on_frontier": any(point["on_frontier"] for point in points),
    }


def confidence(row: Found) -> str | None:
    """How little few decided stops say; None when there are enough of them."""
    told = row["decided"]
    if not told or told >= FEW:
        return None
    only = "Only 1 decided stop stands" if told == 1 else f"Only {told} decided stops stand"
    return f"{only} behind this rate; the true one may well be as high as {percent(at_most(row['false_stops'], told))}."


def at_most(false: int, decided: int) -> float:
    """Upper end of Wilson's interval: the true rate is below it in 95 of 100 such cases."""
    z2, seen = 1.645**2, false / decided
    middle = seen + z2 / (2 * decided)
    return min(1.0, (middle + sqrt(z2 * (seen * (1 - seen) + z2 / (4 * decided)) / decided)) / (1 + z2 / decided))


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Saved:
    """What was saved under one heading."""

    stops: int = 0
    gpu_hours: float = 0.0
    cost: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    by_project: dict[str | None, float] = field(default_factory=lambda: defaultdict(float))
    """GPU hours."""

    def add(self, row: Found) -> None:
        self.stops += row["stops"]
        self.gpu_hours += row["gpu_hours_saved"]
        self.by_project[row["project"]] += row["gpu_hours_saved"]
        if row["cost_saved"] is not None and row["currency"] is not None:
            self.cost[row["currency"]] += row["cost_saved"]

    @property
    def paid(self) -> str:
        return amounts(self.cost) or "not known"


def by_project(found: Found) -> list[tuple[str | None, Saved]]:
    """Who saves most, first."""
    sums: dict[str | None, Saved] = defaultdict(Saved)
    for row in found["savings"]:
        sums[row["project"]].add(row)
    return sorted(sums.items(), key=lambda one: (-one[1].gpu_hours, one[0] or ""))


def by_day(found: Found) -> tuple[str, list[tuple[str, Saved]]]:
    """`day` or `month`, and what was saved on each, also where that is nothing."""
    if not found["savings"]:
        return "day", []
    days = [date.fromisoformat(row["day"]) for row in found["savings"]]
    first, last = min(days), max(days)
    each = [first + timedelta(days=more) for more in range((last - first).days + 1)]
    unit, form = ("day", "%Y-%m-%d") if len(each) <= MOST_DAYS else ("month", "%Y-%m")
    sums = {day.strftime(form): Saved() for day in each}
    for row, day in zip(found["savings"], days, strict=True):
        sums[day.strftime(form)].add(row)
    return unit, list(sums.items())
