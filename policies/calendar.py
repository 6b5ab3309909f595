"""Turns opening-hours text, a country's holidays and a time zone into: should it be on at this moment, and until when?

Daylight-saving days come out right because the question is asked on the zone's own clocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from opening_hours import OpeningHours, ParserError, UnknownCountryError  # type: ignore[attr-defined]  # stubs lack them

LONGEST_LOOK_AHEAD_DAYS = 400
"""Changes further away are as good as never; looking for them is what costs."""


@dataclass(frozen=True)
class Calendar:
    """When something is on, in one zone."""

    hours: OpeningHours
    zone: ZoneInfo

    def is_on(self, at: datetime) -> bool:
        """Where the text itself says `unknown`, it is: unknown stops nothing."""
        return not self.hours.is_closed(at.astimezone(self.zone))

    def next_change(self, at: datetime) -> datetime | None:
        """When it switches next, in UTC; None for never."""
        change = self.hours.next_change(at.astimezone(self.zone))
        return None if change is None else change.astimezone(UTC)


@lru_cache(maxsize=512)
def calendar(on: str, *, holidays: str | None, zone: str) -> Calendar:
    """A calendar; ValueError says where the text is wrong, in words."""
    if len(on) > 500:
        raise ValueError("opening hours longer than 500 characters are more than a person can check")
    text = f"{on}; PH off" if holidays is not None and "PH" not in on else on
    place = ZoneInfo(zone)
    try:
        hours = OpeningHours(text, timezone=place, country=holidays, max_interval_days=LONGEST_LOOK_AHEAD_DAYS)
    except ParserError as error:
        first = str(error).partition("-->")[2].split()[0] if "-->" in str(error) else "1:1"
        likely = _likely(on)
        hint = f"; did you mean {likely!r}?" if likely else "; write them like Mo-Fr 08:00-20:00, or 24/7"
        raise ValueError(f"{on!r} is no opening hours (it fails at {first}){hint}") from None
    except UnknownCountryError:
        raise ValueError(f"no holidays are known for {holidays!r}; use an ISO 3166 country code like VN") from None
    return Calendar(hours=hours, zone=place)


def check_hours(on: str, *, holidays: str | None) -> None:
    """Raises ValueError where hours can be read, and would yet not do what they say."""
    words = set(re.findall(r"[A-Za-z]+", re.sub(r'"[^"]*"', "", on)))
    if "unknown" in words:
        raise ValueError("`unknown` says neither on nor off; write the hours it may run, or off")
    if "SH" in words:
        raise ValueError("SH: when schools have holidays is not known; write the days, like 2027 Jul 01-Aug 15 off")
    if "PH" in words and holidays is None:
        raise ValueError("PH: whose public holidays? name the country beside it, like holidays: VN")
    if sun := words & {"dawn", "sunrise", "sunset", "dusk"}:
        raise ValueError(f"{min(sun)}: a time zone does not say where the sun stands; write the hour")


def _two_digits(found: re.Match[str]) -> str:
    """`8-20` → `08:00-20:00`. `9 to 5` stays: whether its 5 is in the afternoon is not for us to guess."""
    start, end = int(found[1]), int(found[3])
    if end <= start <= 12:
        return found[0]
    return f"{start:02}:{found[2] or '00'}-{end:02}:{found[4] or '00'}"


_HABITS = (
    (r"\b(Mo|Tu|We|Th|Fr|Sa|Su)(?:n|e|es|d|dnes|u|ur|urs|i|t|tur)?(?:day)?s?\b", lambda found: found[1].title()),
    (r"\bweekdays?\b", lambda _: "Mo-Fr"),
    (r"\bweek-?ends?\b", lambda _: "Sa-Su"),
    (r"\s*(-|–|\bto\b)\s*", lambda _: "-"),
    (r"\b(\d{1,2})(?:[:.h]?(\d\d)|h)?-(\d{1,2})(?:[:.h]?(\d\d)|h)?\b", _two_digits),
)
"""How people write hours by habit, and how the standard has it."""


def _likely(on: str) -> str | None:
    """What was probably meant, if that can be read."""
    for pattern, standard in _HABITS:
        on = re.sub(pattern, standard, on, flags=re.IGNORECASE)
    try:
        OpeningHours(on)
    except ParserError:
        return None
    return on
