"""A digest's link shows its machines; its button keeps those that can be kept, once, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from service.app import create_app
from service.clock import SetClock
from service.notify.links import LinkVerb, Several
from service.store.database import Database
from service.store.tables import Audit, Finding, LinkUse
from tests.console.conftest import URL, Browser, House, house_of, text_of

RECIPIENT = "lan@example.org"


def link_to_all(house: House, *findings: Finding, lasts: timedelta = timedelta(days=3)) -> str:
    several = Several(
        findings=tuple((finding.id, finding.episode) for finding in findings),
        recipient=RECIPIENT,
        expires=house.clock.now() + lasts,
    )
    return house.runtime.links.url_of_several(several).removeprefix(URL)


@pytest.fixture
def three(house: House) -> list[Finding]:
    return [house.finding(house.resource(name)) for name in ("train-7", "train-8", "train-9")]


def by_id(house: House) -> dict[str, Finding]:
    return {row.id: row for row in house.rows(Finding)}


def test_looking_changes_nothing_however_often(house: House, three: list[Finding]) -> None:
    path, before = link_to_all(house, *three), house.everything()
    for method in ("GET", "HEAD", "GET", "OPTIONS"):
        assert house.client.request(method, path).status_code in (200, 405)
    assert house.everything() == before


def test_each_machine_is_shown_with_links_of_its_own(house: House, three: list[Finding]) -> None:
    response = house.client.get(link_to_all(house, *three))
    told = text_of(response)
    for finding, name in zip(three, ("train-7", "train-8", "train-9"), strict=True):
        assert name in told
        for verb in (LinkVerb.KEEP_4H, LinkVerb.KEEP_UNTIL_MORNING, LinkVerb.STOP_NOW, LinkVerb.DETAILS):
            assert f'href="{URL}{house.link(finding, verb, RECIPIENT)}"' in response.text
    assert told.count("All 8 GPUs have been idle for 52 minutes.") == 3
    assert ">Keep all 3 for 4 hours</button>" in response.text


def test_its_button_keeps_them_all_for_four_hours_and_is_written_down(house: House, three: list[Finding]) -> None:
    response = house.client.post(link_to_all(house, *three))
    assert "3 are left alone until Monday 16 November 2026, 20:00 (Asia/Ho_Chi_Minh, UTC+7)." in text_of(response)
    for finding in house.rows(Finding):
        assert (finding.status, finding.quiet_until) == ("snoozed", house.clock.now() + timedelta(hours=4))
    assert [(line.actor, line.verb) for line in house.rows(Audit)] == [(f"link:{RECIPIENT}", "snooze")] * 3
    assert {use.finding_id for use in house.rows(LinkUse)} == {finding.id for finding in three}


def test_a_second_press_does_nothing_and_says_so(house: House, three: list[Finding]) -> None:
    path = link_to_all(house, *three)
    house.client.post(path)
    before = house.everything()
    house.clock.forward(timedelta(minutes=3))
    answer = house.client.post(path)
    assert "Nothing was left to keep" in text_of(answer)
    assert "</button>" not in answer.text
    assert house.everything() == before


def test_who_kept_one_by_its_own_link_keeps_the_others_here(house: House, three: list[Finding]) -> None:
    house.client.post(house.link(three[0], LinkVerb.KEEP_4H, RECIPIENT))
    house.clock.forward(timedelta(hours=1))
    assert "2 are left alone" in text_of(house.client.post(link_to_all(house, *three)))
    kept = {id: row.quiet_until for id, row in by_id(house).items()}
    assert kept[three[0].id] == house.clock.now() + timedelta(hours=3)
    assert kept[three[1].id] == house.clock.now() + timedelta(hours=4)


def test_what_cannot_be_kept_any_more_is_shown_and_left(house: House) -> None:
    now = house.clock.now()
    over = house.finding(house.resource("over"), status="cleared", closed_at=now)
    done = house.finding(house.resource("done"), status="enforced")
    longer = house.finding(house.resource("longer"), status="snoozed", quiet_until=now + timedelta(days=2))
    open_one = house.finding(house.resource("open"))
    before = {id: row.model_dump() for id, row in by_id(house).items()}

    response = house.client.post(link_to_all(house, over, done, longer, open_one))
    assert "1 is left alone" in text_of(response)
    after = {id: row.model_dump() for id, row in by_id(house).items()}
    assert {id for id in after if after[id] != before[id]} == {open_one.id}
    assert f'href="{URL}{house.link(done, LinkVerb.UNDO, RECIPIENT)}"' in response.text
    assert house.link(over, LinkVerb.STOP_NOW, RECIPIENT) not in response.text


def test_of_what_started_anew_since_then_no_stop_is_offered(house: House) -> None:
    finding = house.finding(house.resource("train-7"))
    path = link_to_all(house, finding)
    with house.runtime.database.transaction() as session:
        row = session.get_one(Finding, finding.id)
        row.episode = 2
    response = house.client.get(path)
    assert "Stop it now" not in response.text
    assert "Keep it for 4 hours" in response.text


@pytest.mark.parametrize(
    ("lasts", "changes", "status"),
    [(timedelta(0), "", 403), (timedelta(days=1), "x", 403), (timedelta(days=1), "", 404)],
)
def test_a_link_that_is_cut_or_late_or_about_nothing_gives_no_right(
    house: House, three: list[Finding], lasts: timedelta, changes: str, status: int
) -> None:
    gone = Finding(**{**three[0].model_dump(), "id": "gone"})
    path = link_to_all(house, *(three if status == 403 else [gone]), lasts=lasts) + changes
    before = house.everything()
    for method in ("GET", "POST"):
        assert house.client.request(method, path).status_code == status
    assert house.everything() == before


def test_a_link_to_one_is_none_to_all_and_the_other_way_round(house: House, three: list[Finding]) -> None:
    one = house.link(three[0], LinkVerb.KEEP_4H).removeprefix("/l/")
    several = link_to_all(house, *three).removeprefix("/l/all/")
    assert house.client.post(f"/l/all/{one}").status_code == 403
    assert house.client.post(f"/l/{several}").status_code == 403


def test_pressed_twice_at_once_each_is_kept_once(database: Database, clock: SetClock) -> None:
    house = house_of(database, clock)
    path = link_to_all(house, *(house.finding(house.resource(name)) for name in ("a", "b")))
    app = create_app(house.runtime)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: Browser(app).post(path).status_code, range(4)))
    assert set(answers) == {200}
    assert [line.verb for line in house.rows(Audit)] == ["snooze"] * 2
    assert {row.episode for row in house.rows(Finding)} == {2}
