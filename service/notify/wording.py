"""Money, moments, lengths of time and other people's names, as a budget owner reads them. Pure; no sentences here.

Names and tags may be set by anyone who can create a machine, so `plain` is the only way they enter a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel.numbers import UnknownCurrencyError, format_currency, get_currency_precision, validate_currency

from policies.quantities import MICROS
from service.visible import visible

LOCALE = "en"
LONGEST_NAME = 120
ISO_MOMENT = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)")


def plain(value: object, longest: int = 600) -> str:
    """One line of visible characters: no line break, no control, no bidi mark, no link a mail program would make."""
    text = re.sub(r"\s+", " ", visible(str(value))).strip().replace("://", "[:]//")
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


_TO_CHATS_MARKUP = str.maketrans(
    {"<": "‹", ">": "›", "*": "∗", "`": "ʼ", "[": "(", "]": ")", "~": "∼", "\\": "＼", "|": "¦"}
)


def chat(text: object) -> str:
    """One line that no chat reads as markup, a link or a call to everybody.

    Lookalikes instead of escapes: what one chat takes for an escape, the next one shows.
    """
    line = plain(text).translate(_TO_CHATS_MARKUP)
    line = re.sub(r"@(?=everyone|here|channel)", "＠", line, flags=re.IGNORECASE)
    line = re.sub(r"(?<!\w)_+|_+(?!\w)", lambda found: "＿" * len(found[0]), line)
    return re.sub(r"^[#+\-]+(?=\s)", "–", line)


def name(value: object) -> str:
    """A name set by others, short enough for a subject."""
    return plain(value, LONGEST_NAME)


def money(micros: int, currency: str) -> str:
    """`$98.32`, `¥15,000`: the digits the currency has."""
    try:
        validate_currency(currency, LOCALE)
    except UnknownCurrencyError:
        return f"{Decimal(micros) / MICROS:,.2f} {plain(currency, 12)}"
    return format_currency(Decimal(micros) / MICROS, currency, locale=LOCALE)


def digits(micros: int, currency: str) -> Decimal:
    """What is shown of an amount, as a number: to compare sums with what a reader would add up."""
    return (Decimal(micros) / MICROS).quantize(Decimal(1).scaleb(-get_currency_precision(currency)), ROUND_HALF_EVEN)


def hourly(cost: Mapping[str, Any] | None) -> str | None:
    """`$98.32 an hour ($2,359.68 a day)`; None when no price is known."""
    if cost is None:
        return None
    amount, currency = int(cost["amount_micros"]), str(cost["currency"])
    return f"{money(amount, currency)} an hour ({money(amount * 24, currency)} a day)"


def zone_of(timezone: str | None) -> tzinfo:
    """A zone by its name, UTC when there is none of that name: a message must go out all the same."""
    try:
        return ZoneInfo(timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def moment(at: datetime, zone: tzinfo) -> str:
    """`Saturday 14 November 2026, 13:30 (Asia/Ho_Chi_Minh, UTC+7)`."""
    local = at.astimezone(zone)
    return f"{local:%A} {local.day} {local:%B %Y, %H:%M} ({_zone_words(local)})"


def short_moment(at: datetime, zone: tzinfo) -> str:
    """`Sat 14 Nov, 13:30`."""
    local = at.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b, %H:%M}"


def day(at: datetime, zone: tzinfo) -> str:
    """`14 November`."""
    local = at.astimezone(zone)
    return f"{local.day} {local:%B}"


def sentence(text: object, zone: tzinfo) -> str:
    """A sentence made elsewhere, for people of that zone: moments as they write them, a capital, a full stop."""
    told = ISO_MOMENT.sub(lambda found: _shown(found[0], zone), plain(text))
    if not told:
        return told
    return capital(told) + ("" if told[-1] in ".!?…" else ".")


def _shown(iso: str, zone: tzinfo) -> str:
    found = parse_moment(iso)
    return iso if found is None else short_moment(found, zone)


def _zone_words(local: datetime) -> str:
    zone, offset = str(local.tzinfo), int((local.utcoffset() or timedelta()).total_seconds())
    if zone == "UTC":
        return zone
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{zone}, UTC{'-' if offset < 0 else '+'}{hours}" + (f":{minutes:02d}" if minutes else "")


def length(seconds: float) -> str:
    """`45 minutes`, `1 hour 30 minutes`, `2 days 3 hours`: at most two units, rounded to the minute."""
    minutes = max(0, round(seconds / 60))
    if minutes == 0:
        return "less than a minute"
    parts = []
    for size, unit in ((1440, "day"), (60, "hour"), (1, "minute")):
        count, minutes = divmod(minutes, size)
        if count:
            parts.append(f"{count} {unit}" + ("" if count == 1 else "s"))
    return " ".join(parts[:2])


def relative(at: datetime, now: datetime) -> str:
    """`in 30 minutes`, `2 hours ago`, `now`."""
    seconds = (at - now).total_seconds()
    if abs(seconds) < 30:
        return "now"
    return f"in {length(seconds)}" if seconds > 0 else f"{length(-seconds)} ago"


_VERBS: Mapping[str, tuple[str, str]] = {
    "stop": ("stop {}", "stopped"),
    "hibernate": ("hibernate {}", "hibernated"),
    "suspend": ("suspend {}", "suspended"),
    "scale_to_zero": ("scale {} to zero", "scaled to zero"),
    "terminate": ("terminate {}", "terminated"),
    "move_to_spot": ("move {} to spot capacity", "moved to spot capacity"),
    "start": ("start {}", "started again"),
}
"""What is done, to whom, and how it is said once it is done."""


def infinitive(verb: object, what: str) -> str:
    """`scale train-7 to zero`."""
    return _VERBS.get(str(verb), _VERBS["stop"])[0].format(what)


def participle(verb: object) -> str:
    """`scaled to zero`."""
    return _VERBS.get(str(verb), _VERBS["stop"])[1]


def capital(text: str) -> str:
    """Who acted is named as they are: `token:lead`, `link:mai@example.org`."""
    return text if text.startswith(("token:", "link:")) else text[:1].upper() + text[1:]


def gpus(resource: Mapping[str, Any]) -> str:
    """`8×H100`."""
    count = int(resource.get("gpu_count") or 0)
    return f"{count}×{name(resource.get('gpu_model') or 'GPU')}"


def parse_moment(value: object) -> datetime | None:
    """A moment as payloads carry it (ISO 8601), or None."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
