"""What people do with a mail on their phone: a real browser, 390 pixels wide, scripts switched off unless said."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from providers.simulated.activity import Busy, Idle, Silent
from service.clock import SetClock
from service.store.database import Database
from service.store.tables import Finding, MeterInterval, Resource
from tests.e2e.browser import Phone, Served, chromium, phone, served
from tests.spine.company import minutes

LONG = "a-machine-whose-name-somebody-made-much-too-long-" + "x" * 70
EVIL = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def house(sqlite_url: str, clock: SetClock) -> Iterator[Served]:
    """An idle machine of `vision`; its people were warned."""
    database = Database(sqlite_url)
    with served(database, clock) as house:
        house.company.machine("trainer")
        assert house.company.cycle().error is None
        yield house
    database.close()


@pytest.fixture
def hand(browser: Browser) -> Iterator[Phone]:
    """A phone without scripts."""
    held = phone(browser)
    yield held
    held.page.context.close()


def state(house: Served) -> str:
    return house.company.findings()[-1].status


class TestTheLinksOfAMail:
    KEEPS = (
        ("Keep it for 1 hour", "Keep it until Mon 16 Nov, 17:00", "Monday 16 November 2026, 17:00"),
        ("Keep it for 4 hours", "Keep it until Mon 16 Nov, 20:00", "Monday 16 November 2026, 20:00"),
        (
            "Keep it until Tuesday 17 November, 09:00",
            "Keep it until Tue 17 Nov, 09:00",
            "Tuesday 17 November 2026, 09:00",
        ),
    )

    @pytest.mark.parametrize(("link", "button", "until"), KEEPS)
    def test_keeping_a_machine(
        self, house: Served, hand: Phone, tmp_path: Path, link: str, button: str, until: str
    ) -> None:
        house.open_mail(hand, "Will be stopped in 30 minutes", tmp_path)
        assert hand.sideways <= 0
        hand.keep("mail", tmp_path)
        hand.page.get_by_role("link", name=link).click()
        assert "Keep trainer?" in hand.text()
        assert hand.sideways <= 0
        hand.keep("asked", tmp_path)
        hand.button(button).click()
        assert f"Done It is left alone until {until} (Asia/Ho_Chi_Minh, UTC+7)." in hand.text()
        assert hand.sideways <= 0
        hand.keep("done", tmp_path)
        assert state(house) == "snoozed"
        hand.page.reload()
        assert "Already done" in hand.text()
        assert hand.complaints == []

    def test_stopping_a_machine_now_and_putting_it_back(self, house: Served, hand: Phone, tmp_path: Path) -> None:
        house.open_mail(hand, "Will be stopped in 30 minutes", tmp_path)
        hand.page.get_by_role("link", name="Stop it now").click()
        assert "Stop trainer now?" in hand.text()
        assert house.company.stops == []
        hand.button("Stop it now").click()
        assert "It will be done within the next minutes. You are told when it is." in hand.text()

        house.company.cycle(after=minutes(1))
        house.company.cycle(after=minutes(1))
        assert len(house.company.stops) == 1
        house.open_mail(hand, "Stopped: trainer", tmp_path)
        assert hand.sideways <= 0
        hand.page.get_by_role("link", name="Put it back").click()
        assert "Put trainer back?" in hand.text()
        hand.button("Put it back").click()
        assert "It is being put back. You are told when it is done." in hand.text()
        hand.keep("put-back", tmp_path)

        house.company.cycle(after=minutes(1))
        house.company.cycle(after=minutes(1))
        with house.company.rt.database.reading() as session:
            assert session.get_one(Resource, house.company.named("trainer")).state == "running"
        house.open_mail(hand, "Put back: trainer", tmp_path)
        hand.page.get_by_role("link", name="See the details").click()
        assert "All 8 H100 have been idle" in hand.text()
        assert hand.sideways <= 0
        assert hand.complaints == []

    def test_looking_does_nothing(self, house: Served, hand: Phone, tmp_path: Path) -> None:
        for link in ("Keep it for 4 hours", "Stop it now", "See the details"):
            house.open_mail(hand, "Will be stopped in 30 minutes", tmp_path)
            hand.page.get_by_role("link", name=link).click()
            assert "trainer" in hand.text()
        assert state(house) == "warned"
        assert house.company.findings()[-1].stop_now_by is None

    def test_a_link_that_is_too_old_says_so(self, house: Served, hand: Phone, tmp_path: Path) -> None:
        house.company.clock.forward(timedelta(days=5))
        house.open_mail(hand, "Will be stopped in 30 minutes", tmp_path)
        hand.page.get_by_role("link", name="Stop it now").click()
        assert "This link was good until Thursday 19 November 2026, 09:30 (UTC) and has expired." in hand.text()
        assert hand.sideways <= 0
        hand.keep("expired", tmp_path)

    def test_the_page_of_a_digest(self, house: Served, hand: Phone, tmp_path: Path) -> None:
        for name in ("encoder", LONG):
            house.company.machine(name)
        house.company.cycle(after=minutes(5))
        house.open_mail(hand, "2 machines", tmp_path)
        assert hand.sideways <= 0
        hand.keep("digest", tmp_path)
        hand.page.get_by_role("link", name="Keep all 2 for 4 hours, or choose").first.click()
        assert hand.sideways <= 0
        hand.keep("together", tmp_path)
        hand.button("Keep all 2 for 4 hours").click()
        assert "Done 2 are left alone until" in hand.text()
        assert hand.sideways <= 0


def spend(house: Served) -> None:
    """Two weeks of it, so that its budget's people are told."""
    trainer, now = house.company.named("trainer"), house.company.clock.now()
    with house.company.rt.database.transaction() as session:
        for day in range(1, 15):
            for hours, activity in ((6, "busy"), (day % 5, "idle")):
                start = now - timedelta(days=day, hours=6 if activity == "busy" else 0)
                session.add(
                    MeterInterval(
                        resource_id=trainer, project="vision", state="running", capacity_type="on_demand",
                        activity=activity, rate_micros=55_040_000, currency="USD", price_source="list",
                        started_at=start, ended_at=start + timedelta(hours=hours), base=0,
                    )
                )  # fmt: skip
    house.company.document(
        "project",
        name="vision",
        owners=["lead@example.org"],
        budget_owners=["budget@example.org"],
        match=[{"tags": {"project": "vision"}}],
        timezone="Asia/Ho_Chi_Minh",
        spend_budgets=[{"name": "monthly", "period": "month", "amount": 6000}],
    )
    assert house.company.cycle(after=minutes(5)).error is None


class TestTheProjectsPage:
    def test_without_scripts_its_table_is_open_and_is_the_plot(
        self, house: Served, hand: Phone, tmp_path: Path
    ) -> None:
        spend(house)
        house.open_mail(hand, "pend budget monthly of vision", tmp_path)
        assert hand.sideways <= 0
        hand.page.get_by_role("link", name="See the details").click()
        assert "sent to budget@example.org" in hand.text()
        assert hand.page.locator("table.days tbody tr").count() == 30
        assert hand.page.locator("table.days").is_visible()
        assert not hand.page.locator(".plot").is_visible()
        assert hand.page.get_by_role("button").count() == 0
        assert hand.sideways <= 0
        assert hand.complaints == []
        hand.keep("project-linked", tmp_path)

    @pytest.mark.parametrize("dark", [False, True])
    def test_with_scripts_the_plot_is_drawn_from_the_table(
        self, house: Served, browser: Browser, tmp_path: Path, dark: bool
    ) -> None:
        spend(house)
        seen = phone(browser, scripts=True, dark=dark)
        house.log_in(seen)
        seen.page.get_by_role("link", name="vision").last.click()
        seen.page.locator(".plot canvas").wait_for()
        legend = " ".join(seen.page.locator(".u-legend").locator("th, td").all_inner_texts())
        rows = seen.page.locator("table.days tbody tr")
        total = sum(float(row.get_attribute("data-spent") or 0) for row in rows.all())
        assert f"Spent ${total:,.2f} Of that, idle" in legend
        colours = seen.page.evaluate(
            """() => {
                const canvas = document.querySelector(".plot canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return new Set(new Uint32Array(data.buffer)).size;
            }"""
        )
        assert colours > 4, "bars, hatching, lines and labels"
        assert not seen.page.locator("table.days").is_visible()
        assert seen.sideways <= 0
        seen.keep("project", tmp_path)
        seen.page.get_by_text("The numbers").click()
        assert seen.page.locator("table.days").is_visible()
        assert seen.sideways <= 0
        assert seen.complaints == [], "its policy refuses nothing that it needs"
        seen.page.context.close()


class TestLoggedIn:
    @pytest.fixture
    def full(self, house: Served) -> Served:
        """Machines with names of every kind, something held, something stopped."""
        house.company.machine(LONG, activity=Busy(), tags={"project": "vision", "owner": f"{LONG}@example.org"})
        house.company.machine(EVIL)
        house.company.machine("silent", activity=Silent(), tags={})
        house.company.machine("other", activity=Idle(), tags={"project": "vision"})
        spend(house)
        house.company.cycle(after=minutes(30))
        house.company.cycle(after=minutes(5))
        return house

    def pages(self, house: Served) -> dict[str, str]:
        finding = house.company.findings()[0]
        long = house.company.named(LONG)
        return {
            "first": "/",
            "findings": "/findings",
            "finding": f"/findings/{finding.id}",
            "resources": "/resources?project=vision",
            "resource": f"/resources/{finding.resource_id}",
            "long": f"/resources/{long}",
            "project": "/projects/vision",
            "nothing": "/projects/none",
        }

    @pytest.mark.parametrize(("scripts", "dark"), [(False, False), (True, True)])
    def test_no_page_is_wider_than_a_phone_or_runs_what_is_not_ours(
        self, full: Served, browser: Browser, tmp_path: Path, scripts: bool, dark: bool
    ) -> None:
        seen = phone(browser, scripts=scripts, dark=dark)
        house = full
        house.log_in(seen)
        for name, path in self.pages(house).items():
            seen.page.goto(f"{house.url}{path}")
            assert seen.sideways <= 0, name
            assert "hacked" not in seen.page.title(), name
            seen.keep(name, tmp_path)
        refused = [line for line in seen.complaints if "404" not in line]
        assert refused == []
        seen.page.context.close()

    def test_a_button_is_pressed_and_the_session_ends(self, house: Served, hand: Phone) -> None:
        house.log_in(hand)
        hand.page.get_by_role("link", name="trainer").first.click()
        hand.page.get_by_label("because").fill("a demo tomorrow")
        hand.button("Keep it").click()
        assert "a demo tomorrow" in hand.text()
        assert state(house) == "snoozed"
        hand.page.get_by_role("button", name="Log out").click()
        hand.page.goto(f"{house.url}/projects/vision")
        assert hand.page.url == f"{house.url}/login?next=/projects/vision"

    def test_another_site_cannot_press_it(self, house: Served, hand: Phone, tmp_path: Path) -> None:
        house.log_in(hand)
        [finding] = house.company.findings()
        assert isinstance(finding, Finding)
        form = tmp_path / "evil.html"
        form.write_text(
            f'<form method="post" action="{house.url}/findings/{finding.id}/act"><button>A prize</button></form>'
        )
        hand.page.goto(form.as_uri())
        hand.page.get_by_role("button", name="A prize").click()
        assert "too old or came from elsewhere" in hand.text()
        assert house.company.findings()[-1].stop_now_by is None
