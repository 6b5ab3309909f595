"""A link in a message acts once, on one finding, in one way; looking at it never acts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from service.app import create_app
from service.clock import SetClock
from service.notify.links import LinkVerb
from service.store.database import Database
from service.store.tables import Action, Audit, Finding, LinkUse
from tests.console.conftest import Browser, House, house_of, text_of
from tests.spine.company import company, minutes

ACTING = [verb for verb in LinkVerb if verb is not LinkVerb.DETAILS]


@pytest.fixture
def furnished(house: House) -> House:
    resource = house.resource()
    house.action(resource, house.finding(resource))
    return house


def only_finding(house: House) -> Finding:
    [finding] = house.rows(Finding)
    assert isinstance(finding, Finding)
    return finding


@pytest.mark.parametrize("verb", list(LinkVerb))
def test_looking_at_a_link_changes_nothing_however_often(furnished: House, verb: LinkVerb) -> None:
    path, before = furnished.link(only_finding(furnished), verb), furnished.everything()
    for method in ("GET", "HEAD", "GET", "OPTIONS"):
        assert furnished.client.request(method, path).status_code in (200, 405)
    assert furnished.everything() == before


@pytest.mark.parametrize(
    ("verb", "asks", "button"),
    [
        (LinkVerb.KEEP_1H, "Keep train-7?", "Keep it until Mon 16 Nov, 17:00"),
        (LinkVerb.KEEP_4H, "Keep train-7?", "Keep it until Mon 16 Nov, 20:00"),
        (LinkVerb.KEEP_UNTIL_MORNING, "Keep train-7?", "Keep it until Tue 17 Nov, 09:00"),
        (LinkVerb.STOP_NOW, "Stop train-7 now?", "Stop it now"),
        (LinkVerb.APPROVE, "Approve: stop train-7?", "Approve"),
        (LinkVerb.UNDO, "Put train-7 back?", "Put it back"),
    ],
)
def test_it_says_what_its_button_will_do(furnished: House, verb: LinkVerb, asks: str, button: str) -> None:
    response = furnished.client.get(furnished.link(only_finding(furnished), verb))
    told = text_of(response)
    assert asks in told
    assert "All 8 GPUs have been idle for 52 minutes." in told
    assert f">{button}</button>" in response.text


@pytest.mark.parametrize(
    ("verb", "status", "until", "audited"),
    [
        (LinkVerb.KEEP_1H, "snoozed", timedelta(hours=1), "snooze"),
        (LinkVerb.KEEP_4H, "snoozed", timedelta(hours=4), "snooze"),
        (LinkVerb.KEEP_UNTIL_MORNING, "snoozed", timedelta(hours=17), "snooze"),
        (LinkVerb.STOP_NOW, "warned", None, "stop now"),
        (LinkVerb.APPROVE, "warned", None, "approve"),
    ],
)
def test_its_button_does_it_and_is_written_down(
    furnished: House, verb: LinkVerb, status: str, until: timedelta | None, audited: str
) -> None:
    response = furnished.client.post(furnished.link(only_finding(furnished), verb))
    assert response.status_code == 200
    assert text_of(response).count("Done") >= 1
    finding = only_finding(furnished)
    assert finding.status == status
    assert finding.quiet_until == (None if until is None else furnished.clock.now() + until)
    assert [(line.actor, line.verb) for line in furnished.rows(Audit)] == [("link:lan@example.org", audited)]
    [use] = furnished.rows(LinkUse)
    assert (use.recipient, use.verb, use.finding_id) == ("lan@example.org", verb.value, finding.id)


def test_undo_asks_for_what_was_stopped_to_be_put_back(furnished: House) -> None:
    response = furnished.client.post(furnished.link(only_finding(furnished), LinkVerb.UNDO))
    assert "It is being put back." in text_of(response)
    undo = next(action for action in furnished.rows(Action) if action.undoes)
    assert undo.requested_by == "link:lan@example.org"


def test_what_has_moved_to_another_project_is_not_put_back_by_the_old_ones_link(house: House) -> None:
    resource = house.resource(project="robotics")
    finding = house.finding(resource, project="vision")
    house.action(resource, finding, project="vision")
    response = house.client.post(house.link(finding, LinkVerb.UNDO))
    assert (response.status_code, "The machine belongs to another project now" in text_of(response)) == (409, True)
    assert not [action for action in house.rows(Action) if action.undoes]


@pytest.mark.parametrize("verb", ACTING)
def test_a_second_use_answers_kindly_and_does_nothing(furnished: House, verb: LinkVerb) -> None:
    path = furnished.link(only_finding(furnished), verb)
    assert furnished.client.post(path).status_code == 200
    before = furnished.everything()
    furnished.clock.forward(timedelta(minutes=3))
    for answer in (furnished.client.post(path), furnished.client.get(path)):
        assert answer.status_code == 200
        told = text_of(answer)
        assert "Already done" in told
        assert (
            "at Monday 16 November 2026, 16:00 (Asia/Ho_Chi_Minh, UTC+7), by the link sent to lan@example.org" in told
        )
    assert furnished.everything() == before


def test_pressed_twice_at_once_it_acts_once(database: Database, clock: SetClock) -> None:
    house = house_of(database, clock)
    house.finding(house.resource())
    path = house.link(only_finding(house), LinkVerb.KEEP_4H)
    app = create_app(house.runtime)

    def press(_: int) -> int:
        return Browser(app).post(path).status_code

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(press, range(4)))
    assert answers == [200] * 4
    assert len(house.rows(LinkUse)) == 1
    assert len(house.rows(Audit)) == 1
    assert only_finding(house).episode == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_expired_or_forged_link_gives_no_right(furnished: House, method: str) -> None:
    path = furnished.link(only_finding(furnished), LinkVerb.STOP_NOW)
    before = furnished.everything()
    forged = furnished.client.request(method, path[:-8] + "AAAAAAAA")
    assert (forged.status_code, "not one of ours" in text_of(forged)) == (403, True)
    furnished.clock.forward(timedelta(days=3))
    expired = furnished.client.request(method, path)
    assert (expired.status_code, "has expired" in text_of(expired)) == (403, True)
    assert furnished.everything() == before


@pytest.mark.parametrize("verb", [LinkVerb.STOP_NOW, LinkVerb.APPROVE])
def test_stopping_and_approving_take_the_newest_message(furnished: House, verb: LinkVerb) -> None:
    path = furnished.link(only_finding(furnished), verb)
    assert furnished.client.post(furnished.link(only_finding(furnished), LinkVerb.KEEP_1H)).status_code == 200
    before = furnished.everything()
    assert "<button" not in furnished.client.get(path).text
    answer = furnished.client.post(path)
    assert answer.status_code == 409
    assert "Please use the link in the newest one." in text_of(answer)
    assert furnished.everything() == before


def test_keeping_works_with_an_older_message_too(furnished: House) -> None:
    path = furnished.link(only_finding(furnished), LinkVerb.KEEP_4H)
    assert furnished.client.post(furnished.link(only_finding(furnished), LinkVerb.KEEP_1H)).status_code == 200
    assert furnished.client.post(path).status_code == 200
    assert only_finding(furnished).quiet_until == furnished.clock.now() + timedelta(hours=4)


def test_a_morning_that_has_passed_is_not_kept_until(furnished: House) -> None:
    path = furnished.link(only_finding(furnished), LinkVerb.KEEP_UNTIL_MORNING)
    furnished.clock.forward(timedelta(hours=18))
    before = furnished.everything()
    assert "<button" not in furnished.client.get(path).text
    assert furnished.client.post(path).status_code == 409
    assert furnished.everything() == before


def test_what_cannot_be_done_leaves_the_link_unused(house: House) -> None:
    finding = house.finding(house.resource(), status="enforced")
    before = house.everything()
    kept = house.client.post(house.link(finding, LinkVerb.KEEP_4H))
    assert (kept.status_code, "undo the action instead" in text_of(kept)) == (409, True)
    undone = house.client.post(house.link(finding, LinkVerb.UNDO))
    assert (undone.status_code, "There is nothing to put back" in text_of(undone)) == (409, True)
    assert house.everything() == before


def test_when_it_is_over_there_is_nothing_to_press(house: House) -> None:
    finding = house.finding(
        house.resource(), status="cleared", status_reason="Busy again.", closed_at=house.clock.now()
    )
    response = house.client.get(house.link(finding, LinkVerb.KEEP_4H))
    assert "There is nothing to do any more." in text_of(response)
    assert "Busy again." in text_of(response)
    assert "<button" not in response.text


def test_details_are_for_reading_without_an_account_and_lead_nowhere_else(furnished: House) -> None:
    path = furnished.link(only_finding(furnished), LinkVerb.DETAILS)
    response = furnished.client.get(path)
    assert "All 8 GPUs have been idle for 52 minutes." in text_of(response)
    assert "52 minutes" in text_of(response)
    assert re.findall(r'<a [^>]*href="([^"]+)"', response.text) == ["/"]
    assert "<form" not in response.text
    before = furnished.everything()
    assert furnished.client.post(path).status_code == 409
    assert furnished.everything() == before


def test_one_recipients_link_does_not_use_up_anothers(furnished: House) -> None:
    finding = only_finding(furnished)
    for recipient in ("lan@example.org", "mai@example.org"):
        assert furnished.client.post(furnished.link(finding, LinkVerb.KEEP_1H, recipient)).status_code == 200
    assert {use.recipient for use in furnished.rows(LinkUse)} == {"lan@example.org", "mai@example.org"}


@pytest.fixture
def open_database(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


def test_the_link_in_a_real_warning_keeps_the_machine_running(open_database: Database, clock: SetClock) -> None:
    with company(open_database, clock) as here:
        ref = here.machine()
        here.cycle()
        (_, mail), *_ = here.postman.taken
        keep = re.search(r"Keep it for 4 hours:\nhttps://curfew\.example\.org(/l/\S+)", mail.text)
        assert keep is not None
        assert Browser(create_app(here.rt)).post(keep[1]).status_code == 200

        here.cycles(minutes(235))
        assert here.cloud.acts == []
        assert here.finding(ref).status == "snoozed"
        here.cycles(minutes(45))
        assert [act.verb for act in here.cloud.acts] == ["stop"]


@pytest.mark.parametrize(("keeps_only", "offered"), [(False, True), (True, False)])
def test_a_digest_offers_no_more_than_its_reader_may(house: House, keeps_only: bool, offered: bool) -> None:
    warned = house.finding(house.resource())
    stopped = house.finding(house.resource(), status="enforced")
    told = text_of(house.client.get(house.link_to_all(warned, stopped, keeps_only=keeps_only)))
    assert ("Stop it now" in told, "Put it back" in told, "Keep 4 hours" in told) == (offered, offered, True)
