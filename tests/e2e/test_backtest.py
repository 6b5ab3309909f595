"""A person tries a policy on the past: on the pages, in a real browser, with the real engine and a history in files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service.clock import SetClock
from service.store.database import Database
from tests.backtest.pasts import T0, every, machine, written
from tests.e2e.browser import Phone, Served, chromium, phone, served

HOUR = 3600


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def hand(browser: Browser) -> Iterator[Phone]:
    """A phone without scripts."""
    held = phone(browser)
    yield held
    held.page.context.close()


@pytest.fixture
def house(sqlite_url: str, clock: SetClock, tmp_path: Path) -> Iterator[Served]:
    """A company whose history has a week of four machines: each works ten hours of a day, and rests eight times."""
    machines = []
    for number in range(4):
        samples = [
            (time, 0.9 if 8 * HOUR <= (time - T0 + number * HOUR) % (24 * HOUR) < 18 * HOUR else 0.01)
            for time, _ in every(60, T0, T0 + 7 * 24 * HOUR)
        ]
        owner = "lan@example.org" if number % 2 else None
        machines.append(machine(f"i-{number}", T0, T0 + 7 * 24 * HOUR, samples, project="vision", owner=owner))
    database = Database(sqlite_url)
    with served(database, clock) as house:
        house.company.rt.backtests.location = written(tmp_path / "history", machines).location
        yield house
        house.company.rt.backtests.stop()
    database.close()


def test_what_would_it_have_done(house: Served, hand: Phone, tmp_path: Path) -> None:
    house.log_in(hand)
    hand.page.get_by_role("link", name="What would a policy have done?").click()
    hand.page.get_by_label("Policy").select_option("idle-gpus")
    hand.page.locator("select[name=stretch]").select_option("all there is")
    hand.keep("backtests", tmp_path)
    hand.button("What would it have done?").click()

    hand.page.get_by_role("heading", name="What idle-gpus would have done").wait_for()
    hand.page.locator("svg.chart").first.wait_for()  # the page looks again by itself
    told = hand.text()
    assert "It would have stopped 32 times" in told
    assert "none of 32 decided stops was false" in told
    assert "Replayed from 2 Mar 2026 06:00 to 9 Mar 2026 06:00 (UTC)" in told
    assert hand.sideways <= 0
    hand.keep("backtest", tmp_path)

    hand.page.get_by_role("link", name="All back-tests").click()
    assert "idle-gpus" in hand.page.locator("table").inner_text()
    assert hand.sideways <= 0
    assert hand.complaints == []  # neither its style sheets nor its pictures are against what the page may load
