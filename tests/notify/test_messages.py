"""What people are told: what, why, how much, when and how to keep it; never a promise of what will not happen."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.notify import wording
from service.notify.links import Links
from service.notify.messages import COLUMNS, Rendered, render
from service.visible import HIDDEN

NOW = datetime(2026, 11, 14, 6, 0, tzinfo=UTC)
KINDS = ("warning", "notice", "enforced", "undone", "failed", "breaker", "rollout", "unknown")
HANOI = ZoneInfo("Asia/Ho_Chi_Minh")


def resource(**changes: Any) -> dict[str, Any]:
    return {
        "id": "r1",
        "name": "train-7",
        "kind": "instance",
        "provider": "aws",
        "account": "123456789012",
        "region": "us-east-1",
        "external_id": "i-0abc",
        "sku": "p5.48xlarge",
        "gpu_model": "H100",
        "gpu_count": 8,
        "capacity_type": "on_demand",
        "state": "running",
        "owner": "lan@example.org",
        "launched_at": "2026-11-13T20:00:00+00:00",
        **changes,
    }


def payload(**changes: Any) -> dict[str, Any]:
    return {
        "project": "vision",
        "timezone": "Asia/Ho_Chi_Minh",
        "policy": "idle-gpus",
        "mode": "enforce",
        "remedy": "stop",
        "reason": "All 8 GPUs have been idle for 52 minutes.",
        "evidence": {"idle_seconds": 3120},
        "resource": resource(),
        "hourly_cost": {"amount_micros": 98_320_000, "currency": "USD"},
        "grace_seconds": 1800,
        "losses": ["The 8 local NVMe disks are wiped when it stops."],
        "approval_required": False,
        "acts": True,
        "not_acting_reason": None,
        "opened_at": "2026-11-14T05:58:00+00:00",
        "action": {"id": "a1", "verb": "stop", "at": "2026-11-14T05:59:00+00:00", "error": None},
        "pre_state": {},
        **changes,
    }


def links() -> dict[str, str]:
    maker = Links("key", "https://curfew.example.org")
    return maker.all_for("f1", 1, "lan@example.org", NOW, HANOI, NOW + timedelta(days=2))


def warning(*, due_in: timedelta | None = timedelta(minutes=30), with_links: bool = True, **changes: Any) -> Rendered:
    due_at = None if due_in is None else NOW + due_in
    return render("warning", payload(**changes), now=NOW, due_at=due_at, links=links() if with_links else {})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.hrefs: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "href":
                self.hrefs.append(value or "")
            if key in ("src", "srcset", "background"):
                self.fetched.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def page(html: str) -> _Page:
    found = _Page()
    found.feed(html)
    return found


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


class TestAWarning:
    @pytest.mark.parametrize(
        "says",
        [
            "train-7 will be stopped in 30 minutes, unless you keep it.",
            "All 8 GPUs have been idle for 52 minutes.",
            "Saturday 14 November 2026, 13:30 (Asia/Ho_Chi_Minh, UTC+7), in 30 minutes",
            "8×H100",
            "aws, 123456789012, us-east-1, i-0abc",
            "vision",
            "lan@example.org",
            "$98.32 an hour ($2,359.68 a day)",
            "for 10 hours",
            "The 8 local NVMe disks are wiped when it stops.",
            "Keep it for 1 hour",
            "Keep it for 4 hours",
            "Keep it until Monday 16 November, 09:00",
            "Stop it now",
        ],
    )
    def test_says_all_a_budget_owner_must_know_in_text_and_in_html(self, says: str) -> None:
        rendered = warning()
        assert says in squeezed(rendered.text)
        assert says in squeezed(page(rendered.html).text)

    def test_has_the_moment_and_the_machine_in_its_subject(self) -> None:
        assert warning().subject == "Will be stopped in 30 minutes: train-7 (8×H100)"

    def test_has_every_link_once_in_text_and_in_html(self) -> None:
        rendered, made = warning(), links()
        shown = [made[verb] for verb in ("keep_1h", "keep_4h", "keep_until_morning", "stop_now", "details")]
        assert page(rendered.html).hrefs == shown
        assert [line for line in rendered.text.splitlines() if line.startswith("https://")] == shown

    def test_that_needs_an_approval_says_that_nothing_happens_without_one(self) -> None:
        rendered = warning(approval_required=True)
        assert rendered.subject == "Waits for approval: train-7 (8×H100)"
        assert "once somebody approves it" in rendered.text
        assert "Without an approval nothing is done to it" in rendered.text
        assert links()["approve"] in rendered.text
        assert "unless you keep it" not in rendered.text

    @pytest.mark.parametrize(
        ("remedy", "participle"),
        [
            ("stop", "stopped"),
            ("hibernate", "hibernated"),
            ("suspend", "suspended"),
            ("scale_to_zero", "scaled to zero"),
            ("terminate", "terminated"),
            ("move_to_spot", "moved to spot capacity"),
        ],
    )
    def test_names_what_will_be_done(self, remedy: str, participle: str) -> None:
        assert f"train-7 will be {participle} in 30 minutes" in squeezed(warning(remedy=remedy).text)

    @pytest.mark.parametrize(
        ("cost", "says"),
        [
            ({"amount_micros": 98_320_000, "currency": "EUR"}, "€98.32 an hour (€2,359.68 a day)"),
            ({"amount_micros": 15_000_000_000, "currency": "JPY"}, "¥15,000 an hour (¥360,000 a day)"),
            ({"amount_micros": 2_500_000_000_000, "currency": "VND"}, "₫2,500,000 an hour"),
            ({"amount_micros": 1_000_000, "currency": "GPUCREDIT"}, "1.00 GPUCREDIT an hour"),
            (None, "its price is not known"),
        ],
    )
    def test_gives_the_cost_in_its_own_currency(self, cost: dict[str, Any] | None, says: str) -> None:
        assert says in squeezed(warning(hourly_cost=cost).text)

    def test_without_links_says_whom_to_ask(self) -> None:
        assert "ask whoever runs Curfew" in squeezed(warning(with_links=False).text)

    def test_in_a_zone_nobody_knows_is_still_sent(self) -> None:
        assert "06:30 (UTC)" in warning(timezone="Mars/Olympus").text


@pytest.mark.parametrize(
    "changes",
    [{"acts": False}, {"acts": False, "not_acting_reason": "the policy's mode is warn"}, {"due_in": None}],
)
def test_where_nothing_will_act_no_stop_is_promised_and_no_loss_is_threatened(changes: dict[str, Any]) -> None:
    rendered = warning(**changes)
    everything = squeezed(rendered.subject + rendered.text + page(rendered.html).text)
    assert "Curfew will not touch it" in everything
    for word in ("will be stopped", "unless you keep it", "Stop it now", "wiped", "13:30"):
        assert word not in everything
    if changes.get("not_acting_reason"):
        assert "The policy's mode is warn." in everything


@pytest.mark.parametrize(
    ("kind", "changes", "subject", "says"),
    [
        ("notice", {}, "Please have a look: train-7 (8×H100), $98.32 an hour", "Curfew will not touch it"),
        ("enforced", {}, "Stopped: train-7 (8×H100)", "this avoids $98.32 an hour"),
        ("undone", {}, "Put back: train-7 (8×H100)", "as it was before Curfew acted"),
        (
            "failed",
            {"action": {"id": "a", "verb": "stop", "at": None, "error": "UnauthorizedOperation: ec2:StopInstances"}},
            "Could not stop train-7 (8×H100)",
            "UnauthorizedOperation: ec2:StopInstances",
        ),
        ("breaker", {"held_by": "curfew"}, "Curfew holds everything until a person lifts it", "lift the hold"),
        (
            "rollout",
            {"policy": "idle-gpus", "share": "5%", "at": "2026-11-14T04:00:00+00:00"},
            "Only observes now, as its stops were regretted: policy idle-gpus",
            "curfew rollout resume",
        ),
        (
            "unknown",
            {"since": "2026-11-14T04:00:00+00:00"},
            "Cannot tell whether it is busy: train-7 (8×H100)",
            "2 hours ago",
        ),
    ],
)
def test_every_other_kind_says_its_own(kind: str, changes: dict[str, Any], subject: str, says: str) -> None:
    rendered = render(kind, payload(**changes), now=NOW, due_at=None, links=links())
    assert rendered.subject == subject
    assert says in squeezed(rendered.text)
    assert says in squeezed(page(rendered.html).text)
    assert "All 8 GPUs have been idle for 52 minutes." in squeezed(rendered.text)


def test_a_stop_can_be_put_back_and_a_termination_cannot() -> None:
    def done(verb: str) -> Rendered:
        changed = payload(action={"id": "a", "verb": verb, "at": None, "error": None})
        return render("enforced", changed, now=NOW, due_at=None, links=links())

    assert links()["undo"] in done("stop").text
    assert links()["undo"] not in done("terminate").text
    assert "cannot be put back" in done("terminate").text


def test_a_kind_nobody_knows_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="warning, notice, enforced"):
        render("greeting", payload(), now=NOW, due_at=None, links={})


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_a_payload_can_hold_is_enough(kind: str) -> None:
    rendered = render(kind, {}, now=NOW, due_at=None, links={})
    assert rendered.subject
    assert rendered.text
    assert rendered.html


EVIL = (
    "x\r\nBcc: everyone@example.org",
    "<img src=http://evil.example/p.gif onerror=alert(1)>",
    "\u202egpj.exe\u202c",
    "a\u2028b\u0000c\x1b[31m",
    "click https://evil.example/now",
    "{{ 7*7 }}{% for %}",
    '"><a href="https://evil.example">keep it</a>',
    "n" * 5000,
)
hostile = st.one_of(st.sampled_from(EVIL), st.text(max_size=80))


@given(kind=st.sampled_from(KINDS), name=hostile, other=hostile, acts=st.booleans())
def test_names_that_anyone_may_set_break_neither_headers_nor_html_nor_lines(
    kind: str, name: str, other: str, acts: bool
) -> None:
    changed = payload(
        acts=acts,
        resource=resource(name=name, owner=other, sku=other, region=name, gpu_model=other),
        reason=other,
        losses=[other],
        project=other,
        policy=name,
        held_by=name,
        not_acting_reason=other,
        action={"id": "a", "verb": "stop", "at": None, "error": other},
    )
    rendered = render(kind, changed, now=NOW, due_at=NOW + timedelta(minutes=30), links=links())

    categories = {unicodedata.category(c) for c in rendered.subject}
    assert not categories & HIDDEN
    assert {unicodedata.category(c) for c in rendered.text if c != "\n"}.isdisjoint(HIDDEN)
    for line in rendered.text.splitlines():
        assert len(line) <= COLUMNS or line.startswith("https://curfew.example.org/l/")
    assert "evil.example" not in " ".join(re.findall(r"https?://\S+", rendered.text))
    found = page(rendered.html)
    assert found.fetched == []
    assert {"img", "script", "iframe", "form", "link"}.isdisjoint(found.tags)
    assert all(href.startswith("https://curfew.example.org/l/") for href in found.hrefs)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            "warned; acts at 2026-11-14T07:26:21+00:00 unless somebody objects",
            "Warned; acts at Sat 14 Nov, 14:26 unless somebody objects.",
        ),
        ("Kept until 2026-11-16T02:00:00Z.", "Kept until Mon 16 Nov, 09:00."),
        ("nothing to see", "Nothing to see."),
        ("from 2026-99-99T07:26:21Z", "From 2026-99-99T07:26:21Z."),
        ("", ""),
    ],
)
def test_sentences_made_elsewhere_tell_the_time_of_their_reader(told: str, says: str) -> None:
    assert wording.sentence(told, HANOI) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (1800, "in 30 minutes"),
        (-7200, "2 hours ago"),
        (10, "now"),
        (5400, "in 1 hour 30 minutes"),
        (90061, "in 1 day 1 hour"),
        (-31, "1 minute ago"),
    ],
)
def test_moments_are_told_relative_to_now(seconds: int, says: str) -> None:
    assert wording.relative(NOW + timedelta(seconds=seconds), NOW) == says


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("token:lead asked to undo it.", "token:lead asked to undo it."),
        ("link:mai@example.org asked for it.", "link:mai@example.org asked for it."),
        ("all 8 H100 have been idle.", "All 8 H100 have been idle."),
        ("", ""),
    ],
)
def test_a_sentence_begins_with_a_capital_but_for_names(told: str, said: str) -> None:
    assert wording.capital(told) == said
