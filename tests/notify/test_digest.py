"""Several messages as one: everything of each is in it, what is urgent comes first, and sums are true."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.notify import wording
from service.notify.digest import KINDS, ORDER, Part, render_digest
from service.notify.links import Links, LinkVerb, Several
from service.notify.messages import BRIEF_AT_MOST, COLUMNS, Rendered
from tests.notify.test_messages import HANOI, NOW, hostile, page, payload, resource, squeezed

MAKER = Links("key", "https://curfew.example.org")
ALL = MAKER.url_of_several(
    Several(findings=(("f1", 1), ("f2", 1)), recipient="lan@example.org", expires=NOW + timedelta(days=3))
)
GRACE = timedelta(minutes=30)


def part(kind: str = "warning", name: str = "train-7", *, cost: float | None = 98.32, **changes: Any) -> Part:
    due_in = changes.pop("due_in", GRACE)
    currency = changes.pop("currency", "USD")
    links = changes.pop("links", None)
    what = payload(
        **{
            "resource": resource(id=name, name=name),
            "hourly_cost": None if cost is None else {"amount_micros": round(cost * 1_000_000), "currency": currency},
            **changes,
        }
    )
    made = MAKER.all_for(f"of-{name}", 1, "lan@example.org", NOW, HANOI, NOW + timedelta(days=3))
    due_at = NOW + due_in if kind == "warning" and what["acts"] else None
    return Part(kind=kind, payload=what, due_at=due_at, links=made if links is None else links)


def digest(*parts: Part, url_of_all: str | None = ALL) -> Rendered:
    return render_digest(parts, now=NOW, url_of_all=url_of_all)


THREE = (part(name="a", cost=55.04), part(name="b", cost=31.48), part(name="c", cost=31.48))


class TestThreeWarnings:
    def test_are_one_sentence_with_the_sum_of_what_they_cost(self) -> None:
        made = digest(*THREE)
        assert made.subject == "3 machines of vision will be stopped in 30 minutes: $118.00 an hour"
        assert made.level == "warning"
        together = "Together: $55.04 + $31.48 + $31.48 = $118.00 an hour ($2,832.00 a day)."
        for words in (squeezed(made.text), squeezed(page(made.html).text), made.brief):
            assert together in words
        assert "3 machines of vision will be stopped in 30 minutes, unless you keep them." in squeezed(made.text)

    @pytest.mark.parametrize("name", ["a", "b", "c"])
    def test_each_have_why_what_when_and_links_of_their_own(self, name: str) -> None:
        made, its = digest(*THREE), MAKER.all_for(f"of-{name}", 1, "lan@example.org", NOW, HANOI, NOW)
        links = [page(made.html).hrefs, [line for line in made.text.splitlines() if line.startswith("https://")]]
        claims = [[MAKER.read(url.rpartition("/")[2], NOW) for url in shown if "/all/" not in url] for shown in links]
        for found in claims:
            verbs = {claim.verb for claim in found if claim.finding_id == f"of-{name}"}
            assert verbs == {LinkVerb.KEEP_4H, LinkVerb.KEEP_UNTIL_MORNING, LinkVerb.STOP_NOW, LinkVerb.DETAILS}
        assert set(its) == {str(verb) for verb in LinkVerb}
        for words in (squeezed(made.text), squeezed(page(made.html).text)):
            assert words.count("All 8 GPUs have been idle for 52 minutes.") == 3
            assert words.count("The 8 local NVMe disks are wiped when it stops.") == 3
            assert words.count("Sat 14 Nov, 13:30") == 3
            assert "Times are those of Asia/Ho_Chi_Minh." in words

    def test_are_kept_by_one_link(self) -> None:
        made = digest(*THREE)
        assert page(made.html).hrefs[0] == ALL
        assert f"Keep all 3 for 4 hours, or choose:\n{ALL}\n" in made.text
        assert f"[Keep all 3 for 4 hours, or choose]({ALL})" in made.brief

    def test_without_a_public_url_say_whom_to_ask(self) -> None:
        made = digest(*(part(name=name, links={}) for name in "ab"), url_of_all=None)
        assert "ask whoever runs Curfew" in squeezed(made.text)
        assert page(made.html).hrefs == []
        assert "](" not in made.brief


SUMS: dict[str, tuple[tuple[Part, ...], str]] = {
    "of two currencies there are two sums": (
        (part(name="a", cost=1), part(name="b", cost=2), part(name="c", cost=3, currency="EUR")),
        "Together: €3.00 an hour (€72.00 a day) and $2.00 + $1.00 = $3.00 an hour ($72.00 a day).",
    ),
    "what has no price is said": (
        (part(name="a", cost=1), part(name="b", cost=None)),
        "Together: $1.00 an hour ($24.00 a day); the price of 1 is not known.",
    ),
    "addends that do not add up as shown are left out": (
        (part(name="a", cost=0.333333), part(name="b", cost=0.333333), part(name="c", cost=0.333333)),
        "Together: $1.00 an hour ($24.00 a day).",
    ),
    "more than four are only summed": (
        tuple(part(name=name, cost=1) for name in "abcde"),
        "Together: $5.00 an hour ($120.00 a day).",
    ),
    "one machine that two policies speak of costs once": (
        (part(name="a", cost=1), part(name="a", cost=1, policy="lifetime"), part(name="b", cost=2)),
        "Together: $2.00 + $1.00 = $3.00 an hour ($72.00 a day).",
    ),
    "what was stopped was avoided": (
        (part("enforced", "a", cost=1), part("enforced", "b", cost=2)),
        "Avoided: $2.00 + $1.00 = $3.00 an hour ($72.00 a day).",
    ),
}


@pytest.mark.parametrize("sentence", SUMS)
def test_a_sum(sentence: str) -> None:
    parts, said = SUMS[sentence]
    assert said in squeezed(digest(*parts).text)


def test_the_first_of_several_moments_is_named_and_its_machine_comes_first() -> None:
    made = digest(part(name="late", due_in=timedelta(hours=2)), part(name="soon", due_in=timedelta(minutes=12)))
    assert made.subject.startswith("2 machines of vision will be stopped (the first in 12 minutes)")
    assert made.text.index("soon:") < made.text.index("late:")


MIXED = {
    "unknown": part("unknown", "silent", since="2026-11-14T00:00:00+00:00"),
    "protected": part("protected", "locked", since="2026-10-01T00:00:00+00:00"),
    "notice": part("notice", "member", acts=False, not_acting_reason="it is a member of a group"),
    "undone": part("undone", "returned", action={"id": "a", "verb": "start", "at": None, "error": None}),
    "enforced": part("enforced", "gone"),
    "failed": part("failed", "stuck", action={"id": "a", "verb": "stop", "at": None, "error": "Forbidden: no"}),
    "waiting": part("reminder", "patient", warned_at="2026-11-13T06:00:00+00:00", waits_for="waits for its turn"),
    "approval": part("warning", "gated", approval_required=True),
    "acts": part("warning", "doomed"),
}


def test_what_needs_a_person_comes_first() -> None:
    made = digest(*MIXED.values())
    names = [p.payload["resource"]["name"] for group in ORDER for key, p in MIXED.items() if key == group]
    assert len(names) == len(ORDER)
    for words in (made.text, page(made.html).text):
        places = [words.index(name) for name in names]
        assert places == sorted(places)
    assert made.subject == "1 machine of vision will be stopped in 30 minutes: $98.32 an hour, and 8 more"
    assert made.level == "failure"


@pytest.mark.parametrize(
    ("group", "heading", "also"),
    [
        ("approval", "1 machine of vision waits for approval", "Approve"),
        ("waiting", "1 machine of vision still waits to be stopped", "Waits for its turn."),
        ("failed", "1 machine of vision could not be stopped", "The cloud's answer: Forbidden: no"),
        ("enforced", "1 machine of vision was stopped", "Put it back"),
        ("undone", "1 machine of vision was put back", "Details"),
        ("notice", "1 machine of vision to have a look at; Curfew will not touch it", "It is a member of a group."),
        ("unknown", "1 machine of vision may be busy or idle, Curfew cannot tell", "For 6 hours: Sat 14 Nov, 07:00"),
        ("protected", "1 machine of vision protected for long", "Details"),
    ],
)
def test_each_kind_says_its_own(group: str, heading: str, also: str) -> None:
    made = digest(MIXED[group])
    for words in (squeezed(made.text), squeezed(page(made.html).text)):
        assert heading in words
    assert also in squeezed(made.text)


def test_of_what_nothing_will_be_done_to_no_stop_is_promised() -> None:
    made = digest(part(name="a", acts=False), part("notice", "b", acts=False), part("reminder", "c", acts=False))
    everything = squeezed(made.subject + made.text + page(made.html).text + made.brief)
    assert "Curfew will not touch them" in everything
    for word in ("will be stopped", "unless you keep", "Stop it now", "wiped", "Keep"):
        assert word not in everything


def test_what_a_reminder_costs_is_since_the_warning() -> None:
    made = digest(
        part(
            "reminder",
            "a",
            acts=False,
            warned_at="2026-11-13T06:00:00+00:00",
            cost_since_warning={"amount_micros": 2_359_680_000, "currency": "USD"},
        )
    )
    assert "Since the warning 1 day ago it has cost $2,359.68." in squeezed(made.text)


def test_of_two_zones_each_moment_names_its_own() -> None:
    made = digest(part(name="a"), part(name="b", timezone="Europe/Berlin"))
    assert "13:30 (Asia/Ho_Chi_Minh)" in made.text
    assert "07:30 (Europe/Berlin)" in made.text
    assert "Times are those of" not in made.text


@pytest.mark.parametrize("count", [2, 3, 8, 15])
def test_a_brief_fits_into_every_chat_and_names_as_many_as_fit(count: int) -> None:
    made = digest(*(part(name=f"train-{index:02}") for index in range(count)))
    assert len(made.brief) <= BRIEF_AT_MOST
    assert sum(f"train-{index:02}" in made.brief for index in range(count)) == count
    assert made.brief.count("The 8 local NVMe disks are wiped when it stops.") == 1


def test_a_brief_too_long_for_a_chat_says_that_there_is_more() -> None:
    made = digest(*(part(name=f"{index:02}" + "n" * 100) for index in range(15)))
    assert len(made.brief) <= BRIEF_AT_MOST
    assert "\n- and more\n" in made.brief
    assert f"]({ALL})" in made.brief


@given(
    parts=st.lists(
        st.builds(
            lambda kind, name, other, acts, price: part(
                kind,
                cost=price,
                acts=acts,
                resource=resource(id=name, name=name, sku=other, gpu_model=other, owner=other),
                reason=other,
                losses=[other],
                project=other,
                not_acting_reason=name,
                warned_at="2026-11-13T06:00:00+00:00",
                waits_for=name,
                action={"id": "a", "verb": "stop", "at": None, "error": other},
            ),
            st.sampled_from(sorted(KINDS)),
            hostile,
            hostile,
            st.booleans(),
            st.none() | st.integers(0, 10**6),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_names_that_anyone_may_set_break_neither_headers_nor_html_nor_lines(parts: list[Part]) -> None:
    made = digest(*parts)
    for text in (made.subject, made.text.replace("\n", ""), made.brief.replace("\n", "")):
        assert all(wording.plain(c) == c or c == " " for c in text)
    for line in made.text.splitlines():
        assert len(line) <= COLUMNS or line.startswith("https://curfew.example.org/l/")
    found = page(made.html)
    assert found.fetched == []
    assert {"img", "script", "iframe", "form", "link"}.isdisjoint(found.tags)
    assert all(href.startswith("https://curfew.example.org/l/") for href in found.hrefs)
    bare = re.sub(r"\[[^\[\]]+\]\(https://curfew\.example\.org/l/[\w.\-/]+\)", "", made.brief)
    assert not set("[]<>*`~|\\") & set(bare)
    assert len(made.brief) <= BRIEF_AT_MOST


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_least_a_payload_can_hold_is_enough(kind: str) -> None:
    made = render_digest([Part(kind=kind, payload={}, due_at=None, links={})] * 2, now=NOW, url_of_all=None)
    assert made.subject
    assert made.text
    assert made.html
    assert made.brief
