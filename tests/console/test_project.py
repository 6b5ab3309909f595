"""A project's own page: what it says, who may read it, and what its signed link gives a right to."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from service.notify import links
from service.notify.links import LinkVerb, ProjectClaim
from service.pipeline.notify import rendered
from service.store.tables import Hold, MeterInterval, Outbox
from tests.console.conftest import ADMIN, HANOI, URL, House, text_of

PAGE = "/projects/vision"
EVIL = "<script>alert(1)</script>\u202e&{{ 7*7 }}\"'"


def spent(house: House, *, ago: float, hours: float, activity: str = "busy", **more: Any) -> None:
    """So many hours of the first machine, that long ago, at 100 dollars an hour."""
    start = house.clock.now() - timedelta(hours=ago)
    values: dict[str, Any] = {
        "resource_id": "r1",
        "project": "vision",
        "state": "running",
        "capacity_type": "on_demand",
        "activity": activity,
        "rate_micros": 100_000_000,
        "currency": "USD",
        "price_source": "list",
        "started_at": start,
        "ended_at": start + timedelta(hours=hours),
        "base": 0,
    }
    house.add(MeterInterval(**(values | more)))


def budgets(house: House, *budgets: dict[str, Any], **more: Any) -> None:
    given = {"timezone": HANOI, "owners": ["lead@example.org"], "spend_budgets": list(budgets)}
    house.document("project", "vision", **(given | more))


def link(house: House, project: str = "vision", recipient: str = "lead@example.org", days: int = 14) -> str:
    claim = ProjectClaim(project=project, recipient=recipient, expires=house.clock.now() + timedelta(days=days))
    return house.runtime.links.url_of_project(claim).removeprefix(URL)


FORGED: dict[str, Callable[[House], str]] = {
    "nothing": lambda house: "/p/x",
    "cut off": lambda house: link(house)[:-1],
    "another project put in": lambda house: link(house).replace("/p/W", "/p/X", 1),
    "a link to a finding": lambda house: (
        "/p/" + house.link(house.finding(house.resource("more")), LinkVerb.DETAILS).rpartition("/")[2]
    ),
    "a digest's link": lambda house: (
        "/p/" + house.link_to_all(house.finding(house.resource("more"))).rpartition("/")[2]
    ),
    "a session's cookie": lambda house: f"/p/{house.log_in(ADMIN).cookies['curfew_session']}",
    "signed with another key": lambda house: (
        "/p/"
        + links.Links("k" * 32, URL)
        .url_of_project(
            ProjectClaim(project="vision", recipient="lead@example.org", expires=house.clock.now() + timedelta(days=1))
        )
        .rpartition("/")[2]
    ),
}


@pytest.fixture
def furnished(house: House) -> House:
    """An idle and a stopped machine of vision, one of somebody else; a finding, a hold, two days of spend."""
    house.finding(house.resource())
    house.resource("asleep", state="stopped", rate_micros=0)
    house.finding(house.resource("theirs", project="robotics"))
    spent(house, ago=30, hours=2)
    spent(house, ago=5, hours=3, activity="idle")
    spent(house, ago=700, hours=1)  # last month
    return house


class TestWhatItSays:
    @pytest.fixture
    def told(self, furnished: House) -> str:
        budgets(furnished, {"name": "monthly", "period": "month", "amount": 1000})
        hold = {"id": "h1", "project": "vision", "reason": "a demo", "created_by": "x"}
        furnished.add(Hold(**hold, created_at=furnished.clock.now()))
        furnished.log_in()
        return text_of(furnished.client.get(PAGE))

    @pytest.mark.parametrize(
        "says",
        [
            "Owned by lead@example.org.",
            "On hold. Nothing is acted on until a person lifts it. A demo.",
            "Spent this month $500.00",
            "Running cost $98.32 an hour",
            "monthly 50 % spent",
            "500.00 of 1,000.00 USD (50 %) spent since 1 November",
            "The numbers Day Spent Of that, idle Mon 16 Nov $300.00 $300.00",
            "Sun 15 Nov $200.00",
            "All 8 GPUs have been idle for 52 minutes.",
            "1 more is stopped.",
        ],
    )
    def test_it_says(self, told: str, says: str) -> None:
        assert says in told

    def test_nothing_of_another_project(self, told: str) -> None:
        assert "theirs" not in told
        assert "robotics" not in told

    def test_the_table_has_what_the_plot_is_drawn_of(self, furnished: House) -> None:
        furnished.log_in()
        page = furnished.client.get(PAGE).text
        rows = re.findall(r'data-day="([\d-]+)" data-spent="([\d.]+)" data-idle="([\d.]+)"', page)
        assert len(rows) == 30
        assert rows[0] == ("2026-11-16", "300.0", "300.0")
        assert rows[1] == ("2026-11-15", "200.0", "0.0")
        assert rows[-1][0] == "2026-10-18"

    def test_currencies_are_kept_apart(self, furnished: House) -> None:
        spent(furnished, ago=4, hours=1, currency="EUR")
        furnished.log_in()
        page = furnished.client.get(PAGE)
        assert re.findall(r'data-currency="(\w+)"', page.text) == ["EUR", "USD"]
        assert "Spent this month €100.00 $500.00" in text_of(page)

    def test_a_groups_cost_is_its_members_and_counted_once(self, house: House) -> None:
        house.resource("workers", kind="node_group")
        house.resource("workers-1")
        house.log_in()
        told = text_of(house.client.get(PAGE))
        assert "Running cost $98.32 an hour" in told
        assert (
            "workers 8×H100, p5.48xlarge, on demand us-east-1 aws, 123456789012 unknown lan@example.org its members'"
            in told
        )

    def test_what_nobody_saw_says_so(self, furnished: House) -> None:
        spent(furnished, ago=2, hours=1, assumed=True)
        furnished.log_in()
        assert "$100.00 of it is assumed: nobody looked just then." in text_of(furnished.client.get(PAGE))

    def test_a_budget_that_is_not_known_says_why_and_has_no_bar(self, furnished: House) -> None:
        budgets(furnished, {"name": "grant", "period": "total", "amount": 1000, "currency": "EUR"})
        furnished.log_in()
        page = furnished.client.get(PAGE)
        assert "grant of vision is not known: there is no exchange rate from USD to EUR" in text_of(page)
        assert "of it is spent" not in page.text

    def test_a_project_in_which_nothing_is(self, house: House) -> None:
        house.log_in()
        told = text_of(house.client.get(PAGE))
        for says in (
            "It has none.",
            "Nothing was metered yet.",
            "Nothing breaches a policy.",
            "What runs now Nothing.",
        ):
            assert says in told

    def test_names_that_anyone_may_set_are_nothing_but_names(self, house: House) -> None:
        resource = house.resource(EVIL, owner=EVIL, sku=EVIL, region=EVIL, account=EVIL, gpu_model=EVIL)
        house.finding(resource, reason=EVIL, status_reason=EVIL, policy=EVIL)
        hold = {"id": "h", "project": "vision", "reason": EVIL, "created_by": EVIL}
        house.add(Hold(**hold, created_at=house.clock.now()))
        house.document("project", "vision", description=EVIL, owners=["lead@example.org"])
        house.log_in()
        for path in (PAGE, link(house)):
            response = house.client.get(path)
            assert response.status_code == 200
            assert "<script>alert" not in response.text
            assert "\u202e" not in response.text


class TestWhoMayReadIt:
    def test_the_first_page_leads_to_it(self, furnished: House) -> None:
        furnished.log_in()
        assert f'href="{PAGE}"' in furnished.client.get("/").text

    @pytest.mark.parametrize(
        ("who", "status"),
        [(("viewer",), 200), (("viewer", "vision"), 200), (("owner", "vision"), 200), (("owner", "robotics"), 404)],
    )
    def test_whoever_sees_the_project(self, furnished: House, who: tuple[str, ...], status: int) -> None:
        furnished.log_in(furnished.token("reader", *who))
        assert furnished.client.get(PAGE).status_code == status

    def test_nobody_without_a_login_or_a_link(self, furnished: House) -> None:
        assert furnished.client.get(PAGE).headers["location"] == f"/login?next={PAGE}"

    def test_it_runs_scripts_of_ours_only(self, furnished: House) -> None:
        furnished.log_in()
        for path in (PAGE, link(furnished)):
            response = furnished.client.get(path)
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; style-src 'self';")
            assert policy.endswith("script-src 'self'")
            assert "unsafe" not in policy
            scripts = re.findall(r"<script([^>]*)>([^<]*)</script>", response.text)
            assert [body for _, body in scripts] == ["", ""]
            assert all(re.fullmatch(r' src="/console/[\w.-]+\.js" defer', given) for given, _ in scripts)
            for forbidden in (" style=", " onclick=", "javascript:", "http://", "https://"):
                assert forbidden not in response.text

    def test_what_it_fetches_is_served_from_here_and_nothing_else_is(self, house: House) -> None:
        for name, media in {
            "curfew.css": "text/css",
            "project.js": "text/javascript",
            "uplot-1.6.32.js": "text/javascript",
            "uplot-1.6.32.css": "text/css",
        }.items():
            response = house.client.get(f"/console/{name}")
            assert (response.status_code, response.headers["content-type"].partition(";")[0]) == (200, media)
        for name in ("LICENSE", "..%2fpages.py", "%2e%2e%2fpages.py", "uplot%2fLICENSE"):
            assert house.client.get(f"/console/{name}").status_code == 404


class TestItsLink:
    def test_a_message_about_a_spend_budget_carries_it(self, furnished: House) -> None:
        now = furnished.clock.now()
        money = {"amount_micros": 900_000_000, "currency": "USD"}
        payload = {
            "project": "vision",
            "budget": "monthly",
            "period": "month",
            "timezone": HANOI,
            "used": money,
            "amount": {"amount_micros": 1_000_000_000, "currency": "USD"},
        }
        row = Outbox(
            message_id="m", kind="budget", channel="mail:lead@example.org", channel_kind="mail", payload=payload,
            created_at=now, next_try_at=now,
        )  # fmt: skip
        words = rendered([row], furnished.runtime.post)
        [there] = set(re.findall(rf"{URL}(/p/[\w.-]+)", words.html))
        assert f"{URL}{there}" in words.text.replace("\n", "")
        response = furnished.client.get(there)
        assert response.status_code == 200
        assert "sent to lead@example.org and can be read until Monday 30 November 2026" in text_of(response)

    def test_it_shows_and_leads_nowhere(self, furnished: House) -> None:
        before = furnished.everything()
        page = furnished.client.get(link(furnished)).text
        assert "<form" not in page
        assert {there for there in re.findall(r'href="([^"]+)"', page) if there.startswith("/")} == {
            "/",
            "/console/curfew.css",
            "/console/uplot-1.6.32.css",
        }
        assert furnished.client.post(link(furnished)).status_code == 405
        assert furnished.everything() == before

    def test_it_is_good_until_its_end(self, furnished: House) -> None:
        path = link(furnished, days=14)
        furnished.clock.forward(timedelta(days=14) - timedelta(seconds=1))
        assert furnished.client.get(path).status_code == 200
        furnished.clock.forward(timedelta(seconds=1))
        response = furnished.client.get(path)
        assert (response.status_code, "has expired" in text_of(response)) == (403, True)

    def test_it_ends_when_its_recipient_is_no_longer_told_of_the_project(self, furnished: House) -> None:
        path = link(furnished)
        furnished.document("project", "vision", owners=["another@example.org"])
        response = furnished.client.get(path)
        assert (response.status_code, "no longer told of this project" in text_of(response)) == (403, True)

    def test_it_says_the_same_of_a_project_that_is_gone(self, furnished: House) -> None:
        told = text_of(furnished.client.get(link(furnished, project="gone")))
        assert told == text_of(furnished.client.get(link(furnished, recipient="stranger@example.org")))

    def test_whoever_is_reached_by_the_installations_own_list_may_read_it(self, build: Callable[..., House]) -> None:
        house = build(notify=("ops@example.org",))
        house.document("project", "vision")
        assert house.client.get(link(house, recipient="ops@example.org")).status_code == 200

    @pytest.mark.parametrize("case", FORGED)
    def test_nothing_else_is_taken_for_it(self, furnished: House, case: str) -> None:
        response = furnished.client.get(FORGED[case](furnished))
        assert response.status_code == 403
        assert "train-7" not in response.text

    @pytest.mark.parametrize("there", ["/l/", "/l/all/"])
    def test_it_is_taken_for_nothing_else(self, furnished: House, there: str) -> None:
        token = link(furnished).removeprefix("/p/")
        for method in ("GET", "POST"):
            assert furnished.client.request(method, f"{there}{token}").status_code == 403
        furnished.client.cookies.set("curfew_session", token)
        assert furnished.client.get("/").status_code == 303
