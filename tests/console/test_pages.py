"""Who may look at what, what the pages say, and which buttons do what."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from service.clock import RealClock, SetClock
from service.console import sessions
from service.console.rendering import inside
from service.store import tokens
from service.store.tables import Audit, Cycle, EndedSession, Hold, Outbox, SourceState, Token
from tests.console.conftest import ADMIN, Browser, House, text_of
from tests.under_way import has_answered, owes, running, source

PAGES = ("/", "/findings", "/findings/f2", "/resources?project=vision", "/resources/r1")


@pytest.fixture
def furnished(house: House) -> House:
    """One machine `r1` with its warned finding `f2`."""
    house.finding(house.resource())
    return house


class TestLoggingIn:
    @pytest.mark.parametrize("path", PAGES)
    def test_nobody_sees_a_page_without_it(self, furnished: House, path: str) -> None:
        response = furnished.client.get(path)
        assert response.status_code == 303
        assert response.headers["location"] == f"/login?next={path.partition('?')[0]}"

    def test_a_good_token_opens_the_page_that_was_asked_for(self, furnished: House) -> None:
        data = {"token": f" {ADMIN} ", "next": "/findings/f2"}
        response = furnished.client.post("/login", data=data)
        assert (response.status_code, response.headers["location"]) == (303, "/findings/f2")
        assert furnished.client.get("/findings/f2").status_code == 200

    def test_the_cookie_is_kept_from_scripts_and_other_sites_and_does_not_hold_the_token(self, house: House) -> None:
        cookie = house.log_in().headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Secure", "Path=/"} <= set(cookie.split("; "))
        assert ADMIN not in cookie

    def test_a_wrong_token_is_told_so_and_opens_nothing(self, house: House) -> None:
        response = house.log_in("wrong")
        assert response.status_code == 401
        assert "unknown, expired or revoked" in text_of(response)
        assert "set-cookie" not in response.headers

    def test_guessing_is_slowed_down(self, house: House) -> None:
        answers = [house.log_in(f"guess-{count}").status_code for count in range(21)]
        assert answers == [401] * 20 + [429]
        assert house.log_in().status_code == 303

    @pytest.mark.parametrize("cookie", ["", "x", "eyJ4IjoxfQ.forged", "a.b.c"])
    def test_a_cookie_of_ones_own_making_opens_nothing(self, house: House, cookie: str) -> None:
        house.client.cookies.set(sessions.COOKIE, cookie)
        assert house.client.get("/").status_code == 303

    def test_a_session_ends_with_its_token(self, house: House) -> None:
        assert house.log_in(house.token("ci", "viewer")).status_code == 303
        assert house.client.get("/").status_code == 200
        house.clock.forward(timedelta(days=1))
        assert house.client.get("/").status_code == 303

    def test_a_session_lasts_a_working_day(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = SetClock(RealClock().now())
        monkeypatch.setattr(sessions, "RealClock", lambda: clock)
        house.log_in()
        clock.forward(sessions.LASTS - timedelta(seconds=1))
        assert house.client.get("/").status_code == 200
        clock.forward(timedelta(seconds=1))
        assert house.client.get("/").status_code == 303

    def test_logging_out_ends_it(self, house: House) -> None:
        house.log_in()
        other = Browser(house.client.app)
        other.post("/login", data={"token": ADMIN})
        assert house.press("/logout").headers["location"] == "/login"
        assert house.client.get("/").status_code == 303
        assert other.get("/").status_code == 200

    def test_a_copy_of_the_cookie_opens_nothing_once_it_is_logged_out(self, house: House) -> None:
        house.log_in()
        copied = Browser(house.client.app)
        copied.cookies.set(sessions.COOKIE, house.client.cookies[sessions.COOKIE])
        assert copied.get("/").status_code == 200
        house.press("/logout")
        assert copied.get("/").status_code == 303

    def test_what_is_kept_of_ended_sessions_is_no_more_than_needed(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = SetClock(RealClock().now())
        monkeypatch.setattr(sessions, "RealClock", lambda: clock)
        for _ in range(2):
            house.log_in()
            house.press("/logout")
            clock.forward(sessions.LASTS + timedelta(seconds=1))
        assert len(house.rows(EndedSession)) == 1

    def test_messages_that_nobody_takes_are_seen_on_the_first_page(self, house: House) -> None:
        now = house.clock.now()
        house.add(
            Outbox(
                message_id="notice:1", kind="notice", channel="mail:lan@example.org", channel_kind="mail",
                error="the mail server said 550", created_at=now, next_try_at=now,
            )
        )  # fmt: skip
        house.log_in()
        page = text_of(house.client.get("/"))
        assert "1 message could not be delivered. the mail server said 550" in " ".join(page.split())

    def test_the_cookie_says_nothing_of_what_is_stored_of_its_token(self, house: House) -> None:
        raw = house.token("ci", "viewer")
        house.log_in(raw)
        _, told = URLSafeSerializer("not the key").loads_unsafe(house.client.cookies[sessions.COOKIE])
        assert "ci" in told
        assert tokens.digest(raw) not in told

    def test_a_session_ends_when_its_token_is_renewed(self, house: House) -> None:
        house.log_in(house.token("ci", "viewer"))
        with house.runtime.database.transaction() as session:
            session.get_one(Token, "ci").sha256 = tokens.digest("another")
        assert house.client.get("/").status_code == 303

    def test_a_session_ends_when_the_overlap_of_its_tokens_rotation_is_over(self, house: House) -> None:
        house.log_in(house.token("ci", "viewer"))
        now = house.clock.now()
        with house.runtime.database.transaction() as session:
            tokens.rotate(
                session,
                session.get_one(Token, "ci"),
                overlap=timedelta(hours=1),
                expires_at=now + timedelta(days=90),
                by="test",
                now=now,
            )
        house.clock.forward(timedelta(minutes=59))
        assert house.client.get("/").status_code == 200
        house.clock.forward(timedelta(minutes=1))
        assert house.client.get("/").status_code == 303

    @pytest.mark.parametrize(("role", "told"), [("admin", True), ("operator", False)])
    def test_admins_are_told_of_tokens_that_expire_soon(self, house: House, role: str, told: bool) -> None:
        house.log_in(house.token("reader", role))  # for a day
        assert ("1 token expires soon. reader in" in text_of(house.client.get("/"))) is told

    def test_the_demo_is_open_to_look_at_and_to_nothing_else(self, build: Callable[..., House]) -> None:
        demo = build(demo_speed=60)
        finding = demo.finding(demo.resource())
        for path in PAGES:
            response = demo.client.get(path)
            assert response.status_code == 200
            assert "<form" not in response.text
        before = demo.everything()
        for path in (f"/findings/{finding.id}/snooze", "/hold", "/logout"):
            assert demo.client.post(path, data={"csrf": ""}).status_code == 403
        assert demo.everything() == before

    def test_the_demo_reloads_itself_and_an_installation_does_not(self, build: Callable[..., House]) -> None:
        assert 'http-equiv="refresh" content="5"' in build(demo_speed=60).client.get("/").text
        house = build()
        house.log_in()
        assert "http-equiv" not in house.client.get("/").text


@given(st.one_of(st.text(), st.sampled_from(["//evil.example", "/\\evil.example", "https://evil.example", "/\n/evil"])))
def test_after_the_login_one_stays_on_this_service(path: str) -> None:
    there = inside(path)
    assert re.match(r"^/($|[^/\\])", there)
    assert "\\" not in there
    assert there in (path, "/")


class TestEveryPage:
    @pytest.mark.parametrize("path", [*PAGES, "/login", "/findings/none", "/resources?project=other", "/l/forged"])
    def test_runs_no_script_fetches_nothing_and_is_not_kept(self, furnished: House, path: str) -> None:
        furnished.log_in()
        response = furnished.client.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        for forbidden in ("<script", " style=", " onclick=", "javascript:", "http://", "<iframe"):
            assert forbidden not in response.text

    def test_shows_names_that_anyone_may_set_as_nothing_but_names(self, house: House) -> None:
        evil = "<script>alert(1)</script>\u202e&{{ 7*7 }}"
        resource = house.resource(evil, owner=evil, sku=evil, region=evil, account=evil, gpu_model=evil)
        finding = house.finding(resource, reason=evil, status_reason=evil, policy=evil, evidence={evil: evil})
        house.action(resource, finding, reason=evil, error=evil, requested_by=evil)
        house.log_in()
        for path in ("/", f"/findings/{finding.id}", "/resources?project=vision", f"/resources/{resource.id}"):
            response = house.client.get(path)
            assert response.status_code == 200
            assert "<script" not in response.text
            assert "\u202e" not in response.text
            assert "&lt;script&gt;" in response.text
            assert "{{ 7*7 }}" in text_of(response)

    def test_can_be_asked_for_by_head(self, furnished: House) -> None:
        furnished.log_in()
        for path in (*PAGES, "/login", "/console/curfew.css"):
            assert furnished.client.head(path).status_code == 200

    def test_is_not_part_of_the_api(self, house: House) -> None:
        paths = house.client.get("/openapi.json").json()["paths"]
        assert not {"/", "/login", "/l/{token}", "/findings/{finding_id}"} & set(paths)


class TestTheFirstPage:
    def test_sums_gpus_and_money_by_currency(self, house: House) -> None:
        house.resource("a")
        house.resource("b", gpu_count=4, gpu_share=0.5, rate_micros=1_000_000, currency="EUR", project=None)
        house.resource("stopped", state="stopped", rate_micros=0)
        house.resource("unpriced", rate_micros=None, currency=None, gpu_count=1)
        house.resource("gone", ended_at=house.clock.now())
        house.resource("orphan", orphaned_at=house.clock.now())
        house.log_in()
        told = text_of(house.client.get("/"))
        assert "GPUs governed 19 in 4 resources" in told
        assert "€1.00 $98.32 an hour, without 1 of unknown price" in told

    def test_counts_a_stop_until_the_next_start_and_seven_days_at_most(self, house: House) -> None:
        now, resource = house.clock.now(), house.resource(state="stopped", rate_micros=0)
        house.action(resource, verified_at=now - timedelta(days=9), rate_micros=1_000_000)
        house.action(
            resource, verified_at=now - timedelta(hours=5), resumed_at=now - timedelta(hours=3), rate_micros=1_000_000
        )
        house.log_in()
        assert "Avoided so far $170.00" in text_of(house.client.get("/"))

    @pytest.mark.parametrize(
        ("ceiling", "url", "says"),
        [
            ("observe", "https://x.org", "Observe only. Curfew is watching and will not act."),
            ("warn", "https://x.org", "Warn only. Curfew warns the people who own things and will not act."),
            ("enforce", "https://x.org", "Enforcing. Where a policy says so, Curfew acts"),
            ("enforce", "", "Enforcing is off. CURFEW_PUBLIC_URL is not set"),
        ],
    )
    def test_says_in_plain_words_how_far_curfew_may_go(
        self, build: Callable[..., House], ceiling: str, url: str, says: str
    ) -> None:
        house = build(ceiling=ceiling, public_url=url)
        house.log_in()
        assert says in text_of(house.client.get("/"))

    def test_lists_each_resource_once_the_most_urgent_first(self, house: House) -> None:
        for name, status in [("quiet", "snoozed"), ("cheap", "warned"), ("seen", "open"), ("now", "acting")]:
            house.finding(house.resource(name), status=status)
        dear = house.resource("dear", running_rate_micros=500_000_000)
        house.finding(dear, status="warned")
        house.finding(dear, status="refused", policy="other-policy")
        house.finding(house.resource("over"), status="cleared", closed_at=house.clock.now())
        house.log_in()
        listed = re.findall(r'<a href="/findings/f\d+">([\w-]+)</a>', house.client.get("/").text)
        assert listed == ["now", "dear", "other-policy", "cheap", "seen", "quiet"]

    def test_tells_when_things_are_due_in_the_projects_zone(self, furnished: House) -> None:
        furnished.log_in()
        assert "acts in 20 minutes Mon 16 Nov, 16:20" in text_of(furnished.client.get("/"))

    def test_shows_more_findings_on_their_own_page(self, house: House) -> None:
        for count in range(10):
            house.finding(house.resource(f"m{count}"))
        house.log_in()
        assert "2 more" in text_of(house.client.get("/"))
        assert len(re.findall(r'href="/findings/f', house.client.get("/findings").text)) == 10

    def test_shows_how_each_source_does(self, house: House) -> None:
        now = house.clock.now()
        for name in ("new", "fine", "half", "whole", "broken"):
            house.document("source", name, provider="aws")
        part = {"part": "us-east-1", "complete": False, "fault": {"code": "Throttled", "sentence": "slow down"}}
        house.add(SourceState(source="fine", succeeded_at=now, parts=[{"part": "eu", "complete": True}]))
        house.add(SourceState(source="half", parts=[part]))
        unread = {"part": "*", "complete": True, "fault": {"code": "Forbidden", "sentence": "locks/read is missing"}}
        house.add(SourceState(source="whole", succeeded_at=now, parts=[unread]))
        house.add(SourceState(source="broken", fault={"code": "Forbidden", "sentence": "ec2:DescribeInstances"}))
        house.log_in()
        told = text_of(house.client.get("/"))
        for says in (
            "Not asked yet new",
            "Fine fine aws, last complete answer now",
            "In part half aws, never answered completely us-east-1: slow down",
            "In part whole aws, last complete answer now *: locks/read is missing",
            "Failing broken aws, never answered completely ec2:DescribeInstances",
        ):
            assert says in told

    def test_shows_who_has_not_answered_yet_while_curfew_looks(self, house: House) -> None:
        now = house.clock.now()
        for name in ("company", "lab"):
            house.document("source", name, provider="aws")
        house.add(Cycle(id="c1", started_at=now, requested_by="schedule"))
        waiting = tuple(f"1/eu-{number}" for number in range(7))
        stuck = owes(source("company", answered=("1/us-1",), waiting=waiting), now - timedelta(minutes=2), "listing")
        running(house.runtime, "c1", stuck, has_answered(source("lab", answered=("us-1",)), now, "listing"))
        house.log_in()

        told = text_of(house.client.get("/"))

        assert "Curfew looks just now, at the step collect." in told
        assert (
            "Its listing was asked for 2 minutes ago and has not come yet: 1 of 8 parts have answered, "
            "not yet 1/eu-0, 1/eu-1, 1/eu-2, 1/eu-3, 1/eu-4 and 2 more."
        ) in told
        assert told.count("has not come yet") == 1

    def test_says_that_only_the_process_that_looks_knows_how_far_it_is(self, house: House) -> None:
        began = house.clock.now() - timedelta(minutes=1)
        house.add(Cycle(id="c1", started_at=began, requested_by="schedule"))
        house.log_in()

        told = text_of(house.client.get("/"))

        assert "Another process began to look 1 minute ago; only that one knows how far it is." in told

    def test_shows_a_hold_and_who_can_lifts_it(self, house: House) -> None:
        now = house.clock.now()
        house.add(Hold(id="h1", project=None, reason="a demo today", created_by="token:ops", created_at=now))
        house.log_in(house.token("reader", "viewer"))
        told = text_of(house.client.get("/"))
        assert "On hold. Nothing is acted on until a person lifts it. A demo today." in told
        assert "Lift the hold" not in told

        house.log_in(house.token("ops", "operator"))
        assert house.press("/hold/lift").status_code == 303
        assert "On hold" not in text_of(house.client.get("/"))

    def test_says_when_the_last_look_broke_off(self, house: House) -> None:
        now = house.clock.now()
        house.add(Cycle(id="c", started_at=now, finished_at=now, requested_by="schedule", error="it broke off"))
        house.log_in()
        assert "The last look broke off. it broke off" in text_of(house.client.get("/"))


WHO = {"curfew": "curfew", "token:ops": "token:ops", "link:lan@example.org": "link:lan@example.org",
       "link:slack://A/B/C": "link:slack[:]//***"}  # fmt: skip


@pytest.mark.parametrize("actor", WHO)
def test_who_did_something_is_named_as_in_the_audit_log_without_what_is_secret(house: House, actor: str) -> None:
    resource, now = house.resource(), house.clock.now()
    finding = house.finding(resource, approved_at=now, approved_by=actor, stop_now_by=actor)
    house.action(resource, finding, requested_by=actor)
    house.add(Hold(id="h", project=None, reason="a demo", created_by=actor, created_at=now))
    house.log_in()
    told, first = text_of(house.client.get(f"/findings/{finding.id}")), text_of(house.client.get("/"))
    assert told.count(f"by {WHO[actor]}") == 3
    assert f"By {WHO[actor]}, now." in first


class TestAReaderConfinedToAProject:
    @pytest.fixture
    def confined(self, house: House) -> House:
        for name, project in [("mine", "vision"), ("theirs", "robotics"), ("nobodys", None)]:
            resource = house.resource(name, project=project)
            house.action(resource, house.finding(resource), project=project)
        house.add(Hold(id="h1", project="robotics", reason="theirs", created_by="x", created_at=house.clock.now()))
        house.log_in(house.token("lead", "owner", "vision"))
        return house

    def test_sees_nothing_of_others_on_any_list(self, confined: House) -> None:
        for path in ("/", "/findings"):
            told = text_of(confined.client.get(path))
            assert "mine" in told
            assert not {"theirs", "nobodys", "robotics"} & set(told.split())
        assert "GPUs governed 8 in 1 resource" in text_of(confined.client.get("/"))
        assert "Avoided so far $196.64" in text_of(confined.client.get("/"))

    @pytest.mark.parametrize(
        "path", ["/findings/f5", "/findings/f8", "/resources/r4", "/resources?project=robotics", "/resources"]
    )
    def test_cannot_tell_what_is_not_theirs_from_what_is_not_there(self, confined: House, path: str) -> None:
        response = confined.client.get(path)
        assert response.status_code == 404
        assert "or it is not yours to see" in text_of(response)

    def test_is_not_told_what_policies_for_others_say(self, confined: House) -> None:
        for name, projects in (("ours", ["vision"]), ("others-only", ["robotics"]), ("everybodys", [])):
            confined.document("policy", name, type="idle", scope={"projects": projects})
        told = text_of(confined.client.get("/resources/r1"))
        assert ("ours" in told, "everybodys" in told, "others-only" in told) == (True, True, False)
        confined.log_in()
        assert "others-only" in text_of(confined.client.get("/resources/r1"))

    def test_is_not_told_how_sources_do_nor_what_the_last_cycle_met(self, confined: House) -> None:
        now = confined.clock.now()
        confined.document("source", "secret-lab", provider="aws")
        fault = {"sentence": "secret-lab denied it"}
        confined.add(SourceState(source="secret-lab", parts=[], fault=fault, succeeded_at=now))
        confined.add(Cycle(id="c1", started_at=now, requested_by="schedule", error="secret-lab is broken"))
        running(confined.runtime, "c1", owes(source("secret-lab", waiting=("secret-region",)), now, "listing"))
        told = text_of(confined.client.get("/"))
        assert "secret" not in told
        assert "Curfew looks just now" not in told
        confined.log_in()
        assert "secret-lab" in text_of(confined.client.get("/"))

    def test_can_press_no_button_of_others(self, confined: House) -> None:
        before = confined.everything()
        for path in ("/findings/f5/snooze", "/findings/f5/act", "/actions/a6/undo"):
            assert confined.press(path).status_code == 404
        assert confined.press("/hold").status_code == 403
        assert confined.press("/hold/lift", project="robotics").status_code == 403
        assert confined.everything() == before


class TestButtons:
    @pytest.mark.parametrize(
        ("button", "fields", "status", "audited"),
        [
            ("snooze", {"keep": "24h", "reason": "big run"}, "snoozed", "snooze"),
            ("snooze", {}, "snoozed", "snooze"),
            ("dismiss", {"reason": "no"}, "dismissed", "dismiss"),
            ("act", {}, "warned", "stop now"),
            ("approve", {}, "warned", "approve"),
        ],
    )
    def test_do_what_they_say_and_are_written_down(
        self, furnished: House, button: str, fields: dict[str, str], status: str, audited: str
    ) -> None:
        furnished.log_in(furnished.token("lead", "owner", "vision"))
        response = furnished.press(f"/findings/f2/{button}", **fields)
        assert (response.status_code, response.headers["location"]) == (303, "/findings/f2")
        assert f'"badge {status}"' in furnished.client.get("/findings/f2").text
        lines = [(line.actor, line.verb) for line in furnished.rows(Audit) if line.object == "finding/f2"]
        assert lines == [("token:lead", audited)]

    def test_putting_back_is_asked_for_once(self, house: House) -> None:
        resource = house.resource(state="stopped", rate_micros=0)
        action = house.action(resource, house.finding(resource, status="enforced"))
        house.log_in()
        assert "Put it back" in text_of(house.client.get("/"))
        assert house.press(f"/actions/{action.id}/undo").status_code == 303
        told = text_of(house.client.get("/"))
        assert "being put back" in told
        assert "Put it back" not in told

    def test_putting_back_what_has_moved_takes_the_right_where_it_is_now(self, house: House) -> None:
        resource = house.resource(project="robotics")
        action = house.action(resource, house.finding(resource, project="vision"), project="vision")
        house.log_in(house.token("lead", "owner", "vision"))
        response = house.press(f"/actions/{action.id}/undo")
        assert (response.status_code, "belongs to another project now" in text_of(response)) == (403, True)
        house.log_in(house.token("both", "owner", "vision", "robotics"))
        assert house.press(f"/actions/{action.id}/undo").status_code == 303

    def test_holding_everything_takes_an_operator(self, house: House) -> None:
        house.log_in(house.token("lead", "owner", "vision"))
        assert house.press("/hold").status_code == 403
        house.log_in(house.token("ops", "operator"))
        assert house.press("/hold", reason="board meeting").status_code == 303
        assert "On hold. Nothing is acted on until Monday 16 November 2026, 13:00 (UTC)" in text_of(
            house.client.get("/")
        )

    def test_what_does_not_fit_any_more_is_a_sentence(self, house: House) -> None:
        house.finding(house.resource(), status="enforced")
        house.log_in()
        response = house.press("/findings/f2/snooze")
        assert response.status_code == 409
        assert "It has been acted on already; undo the action instead." in text_of(response)

    def test_are_offered_only_to_those_who_may_press_them(self, furnished: House) -> None:
        furnished.log_in(furnished.token("reader", "viewer"))
        page = furnished.client.get("/findings/f2").text
        assert "/snooze" not in page
        assert furnished.press("/findings/f2/snooze").status_code == 403

    def test_approving_is_offered_only_where_it_is_waited_for(self, furnished: House) -> None:
        furnished.log_in()
        assert "Approve" not in text_of(furnished.client.get("/findings/f2"))
        furnished.document("policy", "idle-gpus", type="idle", approval="required")
        assert "Approve" in text_of(furnished.client.get("/findings/f2"))

    @pytest.mark.parametrize("path", ["/findings/f2/snooze", "/findings/f2/act", "/hold", "/hold/lift", "/logout"])
    def test_pressed_from_elsewhere_do_nothing(self, furnished: House, path: str) -> None:
        furnished.log_in()
        before = furnished.everything()
        form = re.search(r'name="csrf" value="([^"]+)"', furnished.client.get("/").text)
        assert form is not None
        cross_site = {"sec-fetch-site": "cross-site"}
        answers = [
            furnished.client.post(path),
            furnished.client.post(path, data={"csrf": "made up"}),
            furnished.client.post(path, data={"csrf": form[1]}, headers=cross_site),
        ]
        assert [answer.status_code for answer in answers] == [403, 403, 403]
        assert furnished.everything() == before
        assert furnished.client.get("/").status_code == 200

    def test_of_one_session_do_not_work_in_another(self, furnished: House) -> None:
        furnished.log_in(furnished.token("lead", "owner", "vision"))
        form = re.search(r'name="csrf" value="([^"]+)"', furnished.client.get("/").text)
        assert form is not None
        furnished.log_in()
        answer = furnished.client.post("/findings/f2/snooze", data={"csrf": form[1]})
        assert answer.status_code == 403


class TestDetails:
    def test_of_a_finding_give_the_numbers_in_their_units_and_who_was_told(self, furnished: House) -> None:
        now = furnished.clock.now()
        for channel, delivered in [("mail:lan@example.org", now), ("slack://T000/B000/topsecret", None)]:
            furnished.add(
                Outbox(
                    message_id=channel,
                    kind="warning",
                    finding_id="f2",
                    channel=channel,
                    channel_kind="mail",
                    created_at=now,
                    next_try_at=now,
                    delivered_at=delivered,
                    error=None if delivered else "it said 500",
                )
            )
        furnished.log_in()
        response = furnished.client.get("/findings/f2")
        told = text_of(response)
        for says in (
            "idle 52 minutes",
            "max utilisation 1.3%",
            "owner not known",
            "Monday 16 November 2026, 16:20 (Asia/Ho_Chi_Minh, UTC+7), in 20 minutes",
            "$98.32/h",
            "Warning lan@example.org now",
            "not yet: it said 500",
        ):
            assert says in told
        assert "topsecret" not in response.text

    def test_of_a_resource_say_why_it_was_or_was_not_stopped(self, furnished: House) -> None:
        furnished.document("policy", "idle-gpus", type="idle")
        furnished.log_in()
        told = text_of(furnished.client.get("/resources/r1"))
        assert "No cycle has judged it yet." in told
        assert "Warned: Warned." in told
