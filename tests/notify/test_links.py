"""What a signed link gives the right to, for how long, and what it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.notify.links import BadLink, Claim, Links, LinkVerb, next_working_morning

NOW = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)  # a Saturday
HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
ZONES = sorted(available_timezones() - {"localtime", "Factory"})


def links(key: str | list[str] = "key", url: str = "https://curfew.example.org") -> Links:
    return Links(key, url)


def token_of(url: str) -> str:
    return url.rpartition("/l/")[2]


def some_link(verb: LinkVerb = LinkVerb.KEEP_4H, *, expires: datetime = NOW + timedelta(days=1)) -> str:
    return links().all_for("f1", 3, "lan@example.org", NOW, HANOI, expires)[verb]


def test_each_link_says_one_finding_one_verb_one_recipient_and_when_it_ends() -> None:
    expires = NOW + timedelta(days=1)
    for verb, url in links().all_for("f1", 3, "lan@example.org", NOW, HANOI, expires).items():
        assert url.startswith("https://curfew.example.org/l/")
        claim = links().read(token_of(url), NOW)
        assert (claim.finding_id, claim.episode, claim.recipient) == ("f1", 3, "lan@example.org")
        assert claim.verb == verb
        assert claim.expires == expires


def test_there_is_a_link_for_every_verb() -> None:
    assert set(links().all_for("f1", 1, "a@b.c", NOW, HANOI, NOW)) == set(LinkVerb)


def test_without_a_public_url_there_are_no_links() -> None:
    assert links(url="").all_for("f1", 1, "a@b.c", NOW, HANOI, NOW + timedelta(days=1)) == {}


def test_a_public_url_with_a_path_is_kept() -> None:
    made = links(url="https://example.org/curfew/").all_for("f1", 1, "a@b.c", NOW, HANOI, NOW)
    assert all(url.startswith("https://example.org/curfew/l/") for url in made.values())


@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=1), timedelta(days=400)])
def test_from_its_end_on_a_link_has_expired_by_the_clock_it_is_handed(late: timedelta) -> None:
    token = token_of(some_link(expires=NOW + timedelta(hours=2)))
    assert links().read(token, NOW + timedelta(hours=2, seconds=-1))
    with pytest.raises(BadLink, match="has expired"):
        links().read(token, NOW + timedelta(hours=2) + late)


def test_another_key_reads_nothing_and_an_old_key_still_reads_after_a_rotation() -> None:
    token = token_of(some_link())
    with pytest.raises(BadLink, match="not one of ours"):
        links("other").read(token, NOW)
    assert links(["new", "key"]).read(token, NOW).finding_id == "f1"
    newest = token_of(links(["new", "key"]).all_for("f1", 1, "a", NOW, HANOI, NOW + timedelta(days=1))["details"])
    assert links("new").read(newest, NOW)


@given(position=st.integers(min_value=0), replacement=st.sampled_from("aB3-_."))
def test_no_changed_character_goes_unnoticed(position: int, replacement: str) -> None:
    token = token_of(some_link())
    position %= len(token)
    forged = token[:position] + replacement + token[position + 1 :]
    if forged == token:
        return
    try:
        claim = links().read(forged, NOW)
    except BadLink:
        return
    # base64 has spare bits at its very end: another writing of the same signature is the same link
    assert position == len(token) - 1
    assert claim == links().read(token, NOW)


@given(st.text())
def test_whatever_is_sent_instead_of_a_token_is_a_bad_link(text: str) -> None:
    with pytest.raises(BadLink):
        links().read(text, NOW)


def test_a_message_sent_twice_gives_no_second_use_and_a_new_episode_does() -> None:
    first = links().read(token_of(some_link()), NOW)
    again = links().read(token_of(some_link(expires=NOW + timedelta(days=2))), NOW)
    other = Claim(finding_id="f1", verb=LinkVerb.KEEP_4H, recipient="lan@example.org", expires=NOW, episode=4)
    assert first.nonce == again.nonce != other.nonce


@pytest.mark.parametrize(
    ("verb", "until"),
    [
        (LinkVerb.KEEP_1H, NOW + timedelta(minutes=10, hours=1)),
        (LinkVerb.KEEP_4H, NOW + timedelta(minutes=10, hours=4)),
        (LinkVerb.KEEP_UNTIL_MORNING, datetime(2026, 11, 16, 2, 0, tzinfo=UTC)),
    ],
)
def test_hours_count_from_the_click_and_the_morning_is_the_one_the_message_named(
    verb: LinkVerb, until: datetime
) -> None:
    claim = links().read(token_of(some_link(verb)), NOW)
    assert claim.keep_until(NOW + timedelta(minutes=10)) == until


@pytest.mark.parametrize(
    ("now", "zone", "morning"),
    [
        ("2026-11-12T20:00+00:00", "UTC", "2026-11-13T09:00+00:00"),  # Thursday evening
        ("2026-11-13T03:00+00:00", "UTC", "2026-11-13T09:00+00:00"),  # in the night to Friday
        ("2026-11-13T09:00+00:00", "UTC", "2026-11-16T09:00+00:00"),  # Friday at nine
        ("2026-11-14T06:00+00:00", "Asia/Ho_Chi_Minh", "2026-11-16T02:00+00:00"),  # Saturday
        ("2026-11-15T23:00+00:00", "America/Los_Angeles", "2026-11-16T17:00+00:00"),  # Sunday there
        ("2026-03-27T20:00+00:00", "Europe/Berlin", "2026-03-30T07:00+00:00"),  # clocks go forward on the Sunday
        ("2026-10-23T20:00+00:00", "Europe/Berlin", "2026-10-26T08:00+00:00"),  # and back
    ],
)
def test_the_next_working_morning_is_nine_on_the_clocks_of_the_project(now: str, zone: str, morning: str) -> None:
    found = next_working_morning(datetime.fromisoformat(now), ZoneInfo(zone))
    assert found == datetime.fromisoformat(morning)


@given(
    now=st.integers(0, 5_000_000).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    zone=st.sampled_from(ZONES),
)
def test_the_next_working_morning_is_ahead_and_at_most_four_days_away(now: datetime, zone: str) -> None:
    morning = next_working_morning(now, ZoneInfo(zone))
    assert now < morning <= now + timedelta(days=4)
    assert morning.astimezone(ZoneInfo(zone)).weekday() < 5
