"""Draws what was spent against time, for mails: a small picture in greys that is read by its line styles and labels.

Pure. Many mail programs show no SVG, so it is a PNG. What is said in words is `messages`'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from io import BytesIO
from typing import TYPE_CHECKING, Any

from policies.quantities import MICROS
from service.notify.wording import day, parse_moment

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

WIDTH, HEIGHT = 552, 250
"""As it is shown; it is drawn for screens of twice as many dots."""
DOTS, FINER = 2, 2
"""Dots for each unit, and how much finer it is drawn before it is made smooth."""
LEFT, RIGHT, TOP, BOTTOM = 8, 108, 20, 34
"""Room for labels; those of the lines stand on the right."""
TEXT = 13
LINE_OF_TEXT = 16
INK, GREY, PALE, PAPER = 20, 110, 225, 255


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What is drawn. Amounts in any unit, as long as it is the same."""

    spent: Sequence[tuple[datetime, int]]
    """From the beginning until now, rising."""
    amount: int
    start: datetime
    end: datetime
    """Of what is shown."""
    low: int | None = None
    high: int | None = None
    """The forecast for the end."""
    amount_label: str
    """Labels are in ASCII: the font has no more signs of currencies than that."""
    spent_label: str
    forecast_label: str = ""
    start_label: str
    now_label: str
    end_label: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """A PNG that HTML shows as `cid:…`; where it is not shown nothing is missing but the view."""

    cid: str
    png: bytes
    alt: str
    width: int
    height: int


def spend_picture(payload: Mapping[str, Any], now: datetime, zone: tzinfo) -> Image | None:
    """What the payload of a budget message says, as a picture; None when it tells of no history.

    A day's amount stands at its end, at midnight of the project's zone; the last one is now.
    """
    history = [(date.fromisoformat(one), int(micros)) for one, micros in payload.get("history") or ()]
    if not history:
        return None
    start = parse_moment(payload.get("period_start")) or datetime.combine(history[0][0], time(), zone)
    end = parse_moment(payload.get("period_end")) or now + (now - start) / 4
    ends = [(datetime.combine(one + timedelta(days=1), time(), zone), micros) for one, micros in history]
    amount, used = payload["amount"], payload["used"]
    low, high = payload.get("forecast_low"), payload.get("forecast_high")
    code = str(amount["currency"])
    curve = Curve(
        spent=[(start, 0), *((min(at, now), micros) for at, micros in ends)],
        amount=int(amount["amount_micros"]),
        start=start,
        end=end,
        low=int(low["amount_micros"]) if low else None,
        high=int(high["amount_micros"]) if high else None,
        amount_label=f"Amount\n{_whole(amount)} {code}",
        spent_label=f"Spent {_whole(used)}",
        forecast_label=f"Forecast\n{_whole(low)}\nto {_whole(high)}" if low and high else "",
        start_label=day(start, zone),
        now_label=day(now, zone),
        end_label=day(end - timedelta(seconds=1), zone),
    )
    alt = f"Spent against time: {_whole(used)} of {_whole(amount)} {code} on {day(now, zone)}"
    return Image(cid="spend", png=draw(curve), alt=alt, width=WIDTH, height=HEIGHT)


def _whole(amount: Mapping[str, Any]) -> str:
    return f"{Decimal(int(amount['amount_micros'])) / MICROS:,.0f}"


def draw(curve: Curve) -> bytes:
    """The PNG."""
    from PIL import Image, ImageDraw, ImageFont

    scale = DOTS * FINER
    image = Image.new("L", (WIDTH * scale, HEIGHT * scale), PAPER)
    _Sheet(ImageDraw.Draw(image), ImageFont.load_default(TEXT * scale), curve, scale).draw()
    small = image.resize((WIDTH * DOTS, HEIGHT * DOTS), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.quantize(32).save(out, "PNG", optimize=True)
    return out.getvalue()


class _Sheet:
    """One picture while it is drawn, in units of the finished one."""

    def __init__(self, pen: ImageDraw, font: FreeTypeFont | ImageFont, curve: Curve, scale: int) -> None:
        self._pen, self._font, self._curve, self._scale = pen, font, curve, scale
        self._most = 1.08 * max(curve.amount, curve.high or 0, *(amount for _, amount in curve.spent), 1)

    def draw(self) -> None:
        curve = self._curve
        now, used = curve.spent[-1]
        if curve.low is not None and curve.high is not None and now < curve.end:
            self._fan(now, used, curve.low, curve.high)
        self._axis()
        self._dashes([(curve.start, curve.amount), (curve.end, curve.amount)], on=9, off=5, width=2, shade=INK)
        self._solid(curve.spent, width=3)
        self._dashes([(now, 0), (now, int(self._most))], on=1, off=4, width=1, shade=GREY)
        self._dot(now, used)
        self._labels(now, used)

    def _fan(self, now: datetime, used: int, low: int, high: int) -> None:
        end = self._curve.end
        corners = [self._at(now, used), self._at(end, high), self._at(end, low)]
        self._pen.polygon([(x * self._scale, y * self._scale) for x, y in corners], fill=PALE)
        for amount in (low, high):
            self._dashes([(now, used), (end, amount)], on=2, off=4, width=2, shade=INK)

    def _axis(self) -> None:
        bottom = HEIGHT - BOTTOM
        self._line([(LEFT, bottom), (WIDTH - RIGHT, bottom)], width=1, shade=GREY)

    def _labels(self, now: datetime, used: int) -> None:
        curve = self._curve
        wanted = [(self._at(curve.end, curve.amount)[1], curve.amount_label)]
        if curve.high is not None and curve.low is not None and curve.forecast_label:
            wanted.append((self._at(curve.end, (curve.high + curve.low) // 2)[1], curve.forecast_label))
        for y, text in _apart(wanted):
            self._text(WIDTH - RIGHT + 6, y, text, anchor="lm")
        x, y = self._at(now, used)
        self._spent_label(x, y, curve.spent_label)
        below = HEIGHT - BOTTOM + 14
        self._text(LEFT, below, curve.start_label, anchor="lm")
        self._text(WIDTH - RIGHT, below, curve.end_label, anchor="rm")
        room = self._width(curve.now_label) / 2 + 6
        first = LEFT + self._width(curve.start_label) + room
        last = WIDTH - RIGHT - self._width(curve.end_label) - room
        if first <= last and first <= x <= last:
            self._text(x, below, curve.now_label, anchor="mm")
        else:
            self._text(min(max(x, LEFT + room), WIDTH - RIGHT - room), 10, curve.now_label, anchor="mm")

    def _spent_label(self, x: float, y: float, text: str) -> None:
        """Left of the line's end where there is room, else right below it."""
        if x - self._width(text) - 8 > LEFT:
            self._text(x - 8, max(TOP, y - 9), text, anchor="rm")
        else:
            self._text(x + 8, min(HEIGHT - BOTTOM - 10, y + 12), text, anchor="lm")

    def _at(self, moment: datetime, amount: float) -> tuple[float, float]:
        whole = (self._curve.end - self._curve.start).total_seconds() or 1.0
        share = min(1.0, max(0.0, (moment - self._curve.start).total_seconds() / whole))
        height = HEIGHT - TOP - BOTTOM
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - height * amount / self._most

    def _solid(self, points: Sequence[tuple[datetime, int]], *, width: float) -> None:
        self._line([self._at(moment, amount) for moment, amount in points], width=width, shade=INK)

    def _dashes(
        self, points: Sequence[tuple[datetime, int]], *, on: float, off: float, width: float, shade: int
    ) -> None:
        (x0, y0), (x1, y1) = (self._at(moment, amount) for moment, amount in points)
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        gone = 0.0
        while gone < length:
            ends = gone / length, min(1.0, (gone + on) / length)
            self._line([(x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for share in ends], width=width, shade=shade)
            gone += on + off

    def _line(self, points: Sequence[tuple[float, float]], *, width: float, shade: int) -> None:
        scaled = [(x * self._scale, y * self._scale) for x, y in points]
        self._pen.line(scaled, fill=shade, width=round(width * self._scale), joint="curve")

    def _dot(self, moment: datetime, amount: int) -> None:
        x, y = self._at(moment, amount)
        self._pen.circle((x * self._scale, y * self._scale), 4.5 * self._scale, fill=INK)

    def _text(self, x: float, y: float, text: str, *, anchor: str) -> None:
        place = (x * self._scale, y * self._scale)
        self._pen.multiline_text(
            place, text, fill=INK, font=self._font, anchor=anchor, stroke_width=2 * self._scale, stroke_fill=PAPER
        )

    def _width(self, text: str) -> float:
        return self._pen.textlength(text, font=self._font) / self._scale


def _apart(wanted: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Labels moved so that none covers another or leaves the picture; each may have several lines."""
    placed: list[tuple[float, str]] = []
    top = 0.0
    for y, text in sorted(wanted):
        half = LINE_OF_TEXT * (text.count("\n") + 1) / 2
        middle = min(max(y, top + half), HEIGHT - half)
        placed.append((middle, text))
        top = middle + half + LINE_OF_TEXT / 4
    return placed
