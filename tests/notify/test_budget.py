"""What budget owners read and see when a spend budget has reached a threshold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.notify.messages import COLUMNS, Rendered, render
from service.notify.picture import DOTS, HEIGHT, WIDTH, Curve, draw
from tests.notify.conftest import Sink
from tests.notify.test_channels import channels, relay

NOW = datetime(2026, 11, 21, 13, 30, tzinfo=UTC)


def money(units: float, currency: str = "USD") -> dict[str, Any]:
    return {"amount_micros": round(units * 10**6), "currency": currency}


def letter(**changes: Any) -> Rendered:
    payload: dict[str, Any] = {
        "project": "vision",
        "timezone": "Asia/Ho_Chi_Minh",
        "budget": "monthly",
        "period": "month",
        "period_start": "2026-10-31T17:00:00+00:00",
        "period_end": "2026-11-30T17:00:00+00:00",
        "threshold": "80%",
        "amount": money(20_000),
        "used": money(16_117.5),
        "assumed": None,
        "used_ratio": 0.805875,
        "hourly_cost": money(98.32),
        "forecast_low": money(24_100),
        "forecast_high": money(27_000),
        "miss_by_low": money(4_100),
        "miss_by_high": money(7_000),
        "basis": "at the pace of the last 24 hours and of the last 7 days",
        "run_out_earliest": "2026-11-24T03:00:00+00:00",
        "run_out_latest": "2026-11-26T03:00:00+00:00",
        "reason": "…",
        "conversions": [],
        "spenders": [{"name": "train-7", "cost": money(5_000.5)}, {"name": "sweep-12", "cost": money(900)}],
        "history": [[f"2026-11-{day:02d}", day * 767_500_000] for day in range(1, 22)],
    }
    return render("budget", {**payload, **changes}, now=NOW, due_at=None, links={})


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "says",
    [
        "80 % of spend budget monthly of vision is spent: $16,117.50 of $20,000.00.",
        "At the pace of the last 24 hours and of the last 7 days the month ends at $24,100.00 to $27,000.00, "
        "$4,100.00 to $7,000.00 over the amount.",
        "This message only tells; nothing is stopped because of it.",
        "Period 1 November to 30 November 2026",
        "Runs out between Tue 24 Nov, 10:00 (in 2 days 13 hours) and Thu 26 Nov, 10:00 (in 4 days 13 hours)",
        "Cost $98.32 an hour ($2,359.68 a day)",
        "Spent most train-7 $5,000.50; sweep-12 $900.00",
    ],
)
def test_it_says(says: str) -> None:
    found = letter()
    assert says in squeezed(found.text)
    assert found.level == "warning"


OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "all of it": (
        {"used": money(20_412.1)},
        "Spend budget monthly of vision is spent: $20,412.10 of $20,000.00 (102 %).",
    ),
    "a micro-unit less is not all of it": ({"used": money(19_999.999999)}, "99 % of spend budget monthly of vision"),
    "within the amount": (
        {"miss_by_low": money(0), "miss_by_high": money(0)},
        "ends at $24,100.00 to $27,000.00, within the amount.",
    ),
    "at worst over the amount": (
        {"miss_by_low": money(0), "miss_by_high": money(7_000)},
        "ends at $24,100.00 to $27,000.00, up to $7,000.00 over the amount.",
    ),
    "one pace only": (
        {"forecast_high": money(24_100), "miss_by_high": money(4_100)},
        "the month ends at $24,100.00, $4,100.00 over the amount.",
    ),
    "at the earliest": ({"run_out_latest": None}, "Runs out Tue 24 Nov, 10:00 (in 2 days 13 hours) at the earliest"),
    "what nobody saw": ({"assumed": money(120)}, "Assumed $120.00 of it, while nobody looked"),
    "the rates": (
        {"conversions": ["1 EUR = 1.10 USD (as of 2026-11-01)"]},
        "Converted 1 EUR = 1.10 USD (as of 2026-11",
    ),
    "all time": (
        {"period": "total", "period_start": None, "period_end": None, "forecast_low": None, "forecast_high": None},
        "Period all time",
    ),
    "the last day of a year": (
        {"period_start": "2026-11-30T17:00:00+00:00", "period_end": "2026-12-31T17:00:00+00:00"},
        "Period 1 December to 31 December 2026",
    ),
}


@pytest.mark.parametrize("sentence", OTHERWISE)
def test_otherwise_it_says(sentence: str) -> None:
    changes, says = OTHERWISE[sentence]
    assert says in squeezed(letter(**changes).text)


def test_without_history_there_is_no_picture() -> None:
    found = letter(history=[])
    assert found.images == ()
    assert "<img" not in found.html


def test_the_picture_is_shown_in_the_html_and_said_for_those_who_do_not_see_it() -> None:
    found = letter()
    [image] = found.images
    assert f'<img src="cid:{image.cid}" alt="Spent against time: 16,118 of 20,000 USD on 21 November"' in found.html
    with Image.open(BytesIO(image.png)) as picture:
        assert (picture.format, picture.size) == ("PNG", (WIDTH * DOTS, HEIGHT * DOTS))
    assert len(image.png) < 40_000


def test_it_travels_with_the_mail(sink: Sink) -> None:
    found = letter()
    assert channels(relay(sink.port)).deliver("mail:money@example.org", found, message_id="budget:vision").ok
    [mail] = sink.arrived
    assert mail.get_content_type() == "multipart/alternative"
    text, related = mail.iter_parts()
    assert (text.get_content_type(), related.get_content_type()) == ("text/plain", "multipart/related")
    html, picture = related.iter_parts()
    assert html.get_content_type() == "text/html"
    assert (picture["Content-ID"], picture.get_content_type()) == ("<spend>", "image/png")
    assert picture.get_content() == found.images[0].png


# --- whatever the numbers ---------------------------------------------------------------------------------------------

AMOUNTS = st.integers(0, 10**18)


@given(
    st.lists(AMOUNTS, min_size=1, max_size=40),
    st.integers(1, 10**18),
    st.none() | st.tuples(AMOUNTS, AMOUNTS).map(sorted),
    st.floats(0.01, 1),
    st.text("0123456789,. USD", max_size=30),
)
def test_whatever_the_numbers_there_is_a_picture(
    spent: list[int], amount: int, forecast: list[int] | None, share: float, label: str
) -> None:
    start = NOW - timedelta(days=30)
    rising = [sum(spent[: index + 1]) for index in range(len(spent))]
    step = timedelta(days=30) * share / len(rising)
    curve = Curve(
        spent=[(start + step * index, one) for index, one in enumerate(rising)],
        amount=amount,
        start=start,
        end=NOW,
        low=None if forecast is None else forecast[0],
        high=None if forecast is None else forecast[1],
        amount_label=f"Amount\n{label}",
        spent_label=label,
        forecast_label=label,
        start_label="1 November",
        now_label="21 November",
        end_label="30 November",
    )
    with Image.open(BytesIO(draw(curve))) as picture:
        assert picture.size == (WIDTH * DOTS, HEIGHT * DOTS)


@given(name=st.text(max_size=300))
def test_a_machines_name_cannot_break_the_message(name: str) -> None:
    found = letter(spenders=[{"name": name, "cost": money(1)}])
    assert "<script" not in found.html
    assert all(len(line) <= COLUMNS or " " not in line.strip() for line in found.text.splitlines())
