"""Turns a message's data into the words people read: a subject, plain text of at most 72 columns, simple HTML, and a
brief for chats.

Pure: no clock, no network, no store. What is said is decided once, as a `_Letter`; text, HTML and brief are ways to set
it. Nothing here promises an act unless the payload says that one will happen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import cache
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from service.notify.events import Event
from service.notify.links import LinkVerb, next_working_morning
from service.notify.picture import Image, spend_picture
from service.notify.wording import (
    capital,
    chat,
    day,
    gpus,
    hourly,
    infinitive,
    length,
    moment,
    money,
    name,
    parse_moment,
    participle,
    plain,
    relative,
    sentence,
    short_moment,
    zone_of,
)

COLUMNS = 72
BRIEF_AT_MOST = 1700
"""Characters: Discord takes 2000 with the subject, and nobody scrolls in a chat."""
Level = Literal["info", "success", "warning", "failure"]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A message in words. `level` colours it where a channel can."""

    subject: str
    text: str
    html: str
    brief: str = ""
    """Markdown of links and lists only, for chats; empty: the text stands in."""
    level: Level = "info"
    event: Event | None = None
    """The same as data, for programs."""
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Button:
    label: str
    url: str
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class _Letter:
    """What a message says, before it is set as text or HTML."""

    subject: str
    level: Level
    headline: str
    paragraphs: Sequence[str]
    picture: Image | None = None
    facts: Sequence[tuple[str, str]] = ()
    losses: Sequence[str] = ()
    ask: str = ""
    buttons: Sequence[_Button] = ()
    closing: str = ""


@dataclass(frozen=True, kw_only=True)
class _Case:
    """All that the words depend on."""

    payload: Mapping[str, Any]
    now: datetime
    due_at: datetime | None
    links: Mapping[str, str]

    @property
    def zone(self) -> tzinfo:
        return zone_of(self.payload.get("timezone"))

    @property
    def resource(self) -> Mapping[str, Any]:
        return self.payload.get("resource") or {}

    @property
    def called(self) -> str:
        return name(self.resource.get("name") or self.resource.get("external_id") or "a machine")

    @property
    def subject_tail(self) -> str:
        return f"{self.called} ({gpus(self.resource)})"

    @property
    def reason(self) -> str:
        return sentence(self.payload.get("reason") or "No reason was given.", self.zone)

    @property
    def acts(self) -> bool:
        return bool(self.payload.get("acts")) and self.due_at is not None

    def at(self, value: object) -> str | None:
        found = parse_moment(value)
        return None if found is None else f"{moment(found, self.zone)}, {relative(found, self.now)}"

    def buttons(self, *verbs: LinkVerb, strong: LinkVerb | None = None) -> list[_Button]:
        return [
            _Button(label=self._label(verb), url=self.links[verb], strong=verb is strong)
            for verb in verbs
            if verb in self.links
        ]

    def _label(self, verb: LinkVerb) -> str:
        if verb is LinkVerb.KEEP_UNTIL_MORNING:
            morning = next_working_morning(self.now, self.zone).astimezone(self.zone)
            return f"Keep it until {morning:%A} {morning.day} {morning:%B, %H:%M}"
        return {
            LinkVerb.KEEP_1H: "Keep it for 1 hour",
            LinkVerb.KEEP_4H: "Keep it for 4 hours",
            LinkVerb.STOP_NOW: capital(f"{infinitive(self.payload.get('remedy'), 'it')} now"),
            LinkVerb.APPROVE: "Approve",
            LinkVerb.UNDO: "Put it back",
            LinkVerb.DETAILS: "See the details",
        }[verb]


def render(
    kind: str, payload: Mapping[str, Any], *, now: datetime, due_at: datetime | None, links: Mapping[str, str]
) -> Rendered:
    """The message of that kind in words. `links` is verb → URL; `due_at` is None when nothing will act."""
    write = _LETTERS.get(kind)
    if write is None:
        raise ValueError(f"there is no message kind {kind!r}; there are {', '.join(_LETTERS)}")
    letter = write(_Case(payload=payload, now=now, due_at=due_at, links=links))
    return Rendered(
        subject=letter.subject,
        text=_as_text(letter),
        html=_as_html(letter),
        brief=_as_brief(letter),
        level=letter.level,
        images=() if letter.picture is None else (letter.picture,),
    )


# --- what is said, kind by kind ---------------------------------------------------------------------------------------


def _warning(case: _Case) -> _Letter:
    if not case.acts or case.due_at is None:
        return _notice(case)
    done, when = participle(case.payload.get("remedy")), relative(case.due_at, case.now)
    facts = [("When", f"{moment(case.due_at, case.zone)}, {when}"), *_facts(case)]
    if case.payload.get("approval_required"):
        return _Letter(
            subject=f"Waits for approval: {case.subject_tail}",
            level="warning",
            headline=f"{case.called} will be {done} once somebody approves it.",
            paragraphs=[case.reason, "Without an approval nothing is done to it, however long that takes."],
            facts=[("Not before", facts[0][1]), *facts[1:]],
            losses=_losses(case),
            ask="Do you want to approve it, or to keep it?",
            buttons=case.buttons(LinkVerb.APPROVE, *_KEEPS, LinkVerb.DETAILS, strong=LinkVerb.APPROVE),
            closing=_no_links(case),
        )
    return _Letter(
        subject=f"Will be {done} {when}: {case.subject_tail}",
        level="warning",
        headline=f"{case.called} will be {done} {when}, unless you keep it.",
        paragraphs=[case.reason],
        facts=facts,
        losses=_losses(case),
        ask="Do you still need it?",
        buttons=case.buttons(*_KEEPS, LinkVerb.STOP_NOW, LinkVerb.DETAILS, strong=LinkVerb.KEEP_4H),
        closing=_no_links(case) or "It is also left alone if it is put to work again before then.",
    )


def _notice(case: _Case) -> _Letter:
    cost = case.payload.get("hourly_cost")
    price = f", {money(int(cost['amount_micros']), str(cost['currency']))} an hour" if cost else ""
    return _Letter(
        subject=f"Please have a look: {case.subject_tail}{price}",
        level="info",
        headline=f"Please have a look at {case.called}.",
        paragraphs=[case.reason, _untouched(case)],
        facts=_facts(case),
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _enforced(case: _Case) -> _Letter:
    action = case.payload.get("action") or {}
    done = participle(action.get("verb") or case.payload.get("remedy"))
    cost = hourly(case.payload.get("hourly_cost"))
    paragraphs = [case.reason]
    if cost is not None:
        paragraphs.append(f"For as long as it stays that way, this avoids {cost}.")
    undoable = not action.get("final", action.get("verb") == "terminate")
    return _Letter(
        subject=f"{capital(done)}: {case.subject_tail}",
        level="info",
        headline=f"{case.called} was {done}.",
        paragraphs=paragraphs,
        facts=[*_fact("Done", case.at(action.get("at"))), *_facts(case, running=False)],
        ask="Do you need it back?" if undoable else "",
        buttons=case.buttons(*((LinkVerb.UNDO,) if undoable else ()), LinkVerb.DETAILS, strong=LinkVerb.UNDO),
        closing="" if undoable else "It cannot be put back.",
    )


def _undone(case: _Case) -> _Letter:
    action = case.payload.get("action") or {}
    cost = hourly(case.payload.get("hourly_cost"))
    return _Letter(
        subject=f"Put back: {case.subject_tail}",
        level="success",
        headline=f"{case.called} is as it was before Curfew acted.",
        paragraphs=[case.reason, *([f"From now on it costs {cost} again."] if cost else [])],
        facts=[*_fact("Done", case.at(action.get("at"))), *_facts(case)],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _failed(case: _Case) -> _Letter:
    action = case.payload.get("action") or {}
    verb = action.get("verb") or case.payload.get("remedy")
    cost = hourly(case.payload.get("hourly_cost"))
    return _Letter(
        subject=f"Could not {infinitive(verb, case.called)} ({gpus(case.resource)})",
        level="failure",
        headline=f"Curfew tried to {infinitive(verb, case.called)}, and could not.",
        paragraphs=[
            f"The cloud's answer: {plain(action.get('error') or 'none')}",
            f"Why it was tried: {case.reason}",
            *([f"It goes on costing {cost}."] if cost and verb != "start" else []),
        ],
        facts=[*_fact("Tried", case.at(action.get("at"))), *_facts(case)],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _breaker(case: _Case) -> _Letter:
    held_by = case.payload.get("held_by")
    return _Letter(
        subject="Curfew holds everything until a person lifts it",
        level="failure",
        headline="Curfew holds everything: it acts on nothing until a person lifts the hold.",
        paragraphs=[
            case.reason,
            "Watching, metering and warning go on. Look at what was found, then lift the hold: curfew hold --lift",
            "Whoever lifts it agrees to what was found until then: after a fresh warning and its grace it goes on. "
            "What should not be stopped needs a snooze or an exemption first. CURFEW_BREAKER says what is too much.",
        ],
        facts=_fact("Held by", name(held_by) if held_by else None),
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _rollout(case: _Case) -> _Letter:
    """Of a policy that fell back to observing, as too many of its stops were regretted."""
    policy = f"policy {name(case.payload.get('policy'))}"
    share = case.payload.get("share")
    return _Letter(
        subject=f"Only observes now, as its stops were regretted: {policy}",
        level="warning",
        headline=f"{capital(policy)} has fallen back: it observes, and acts on nothing.",
        paragraphs=[
            case.reason,
            "It stays like that until a person changes it or lets it begin anew: curfew rollout resume NAME",
            "A stop counts as regretted when somebody undoes it, or starts the machine again soon after.",
        ],
        facts=[
            *_fact("Fell back", case.at(case.payload.get("at"))),
            *_fact("From", f"{share} of its scope" if share else None),
        ],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _unknown(case: _Case) -> _Letter:
    return _Letter(
        subject=f"Cannot tell whether it is busy: {case.subject_tail}",
        level="warning",
        headline=f"Curfew cannot tell whether {case.called} is busy or idle.",
        paragraphs=[case.reason, "What is not known is never acted on, so it goes on running and costing."],
        facts=[*_fact("Unknown since", case.at(case.payload.get("since"))), *_facts(case)],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _protected(case: _Case) -> _Letter:
    return _Letter(
        subject=f"Protected for long: {case.subject_tail}",
        level="info",
        headline=f"{case.called} is protected, and has been for long.",
        paragraphs=[case.reason, "Curfew honours that and never stops it. Please check whether it is still wanted."],
        facts=[*_fact("Protected since", case.at(case.payload.get("since"))), *_facts(case)],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _reminder(case: _Case) -> _Letter:
    """Of a warning that nothing came of yet, with what that has cost."""
    waiting = bool(case.payload.get("acts"))
    approval = waiting and bool(case.payload.get("approval_required"))
    verbs = [LinkVerb.DETAILS]
    if waiting:
        verbs = [LinkVerb.APPROVE if approval else LinkVerb.STOP_NOW, *_KEEPS, LinkVerb.DETAILS]
    return _Letter(
        subject=f"{'Still waits for approval' if approval else 'Still there'}: {case.subject_tail}",
        level="warning" if waiting else "info",
        headline=f"{case.called} is still as it was when Curfew warned about it.",
        paragraphs=[
            case.reason,
            *([sentence(case.payload["waits_for"], case.zone)] if case.payload.get("waits_for") else []),
            *_spent(case),
            *([] if waiting else [_untouched(case)]),
        ],
        facts=[*_fact("Warned", case.at(case.payload.get("warned_at"))), *_facts(case)],
        losses=_losses(case) if waiting else (),
        ask=("Do you want to approve it, or to keep it?" if approval else "Do you still need it?") if waiting else "",
        buttons=case.buttons(*verbs, strong=LinkVerb.APPROVE),
    )


def _untouched(case: _Case) -> str:
    why = case.payload.get("not_acting_reason")
    return "Curfew will not touch it." + (f" {sentence(why, case.zone)}" if why else "")


def _spent(case: _Case) -> list[str]:
    """What it has cost since the warning, at the price it has now."""
    cost, since = case.payload.get("cost_since_warning"), parse_moment(case.payload.get("warned_at"))
    if not cost or since is None:
        return []
    spent = money(int(cost["amount_micros"]), str(cost["currency"]))
    return [
        f"In the {length((case.now - since).total_seconds())} since then it has cost {spent}, at its present price."
    ]


def _test(case: _Case) -> _Letter:
    project = case.payload.get("project")
    about = f"project {name(project)}" if project else "what belongs to nobody"
    return _Letter(
        subject=f"A test: messages about {about} arrive here",
        level="success",
        headline=f"This is a test. Messages about {about} arrive here.",
        paragraphs=["Nothing happened, and nothing needs to be done."],
        facts=_fact("Asked for by", name(case.payload["by"]) if case.payload.get("by") else None),
    )


def _budget(case: _Case) -> _Letter:
    """Of a spend budget that has reached a threshold; nothing acts because of this message."""
    payload = case.payload
    of = f"spend budget {name(payload.get('budget'))} of {name(payload.get('project'))}"
    used, amount = _money_of(payload.get("used")), _money_of(payload.get("amount"))
    share = int(payload["used"]["amount_micros"]) * 100 // int(payload["amount"]["amount_micros"])
    assumed, spenders = payload.get("assumed"), payload.get("spenders") or ()
    headline = f"{capital(of)} is spent: {used} of {amount} ({share} %)."
    if share < 100:
        headline = f"{share} % of {of} is spent: {used} of {amount}."
    return _Letter(
        subject=headline.removesuffix("."),
        level="failure" if share >= 100 else "warning",
        headline=headline,
        paragraphs=[*_leads_to(case), "This message only tells; nothing is stopped because of it."],
        picture=spend_picture(payload, case.now, case.zone),
        facts=[
            ("Period", _period(case)),
            *_fact("Runs out", _run_out(case)),
            *_fact("Cost", hourly(payload.get("hourly_cost"))),
            *_fact("Assumed", f"{_money_of(assumed)} of it, while nobody looked" if assumed else None),
            *_fact("Spent most", "; ".join(f"{name(one['name'])} {_money_of(one['cost'])}" for one in spenders)),
            *_fact("Converted", "; ".join(plain(one) for one in payload.get("conversions") or ())),
        ],
        buttons=case.buttons(LinkVerb.DETAILS),
    )


def _money_of(amount: Mapping[str, Any] | None) -> str:
    return "" if amount is None else money(int(amount["amount_micros"]), str(amount["currency"]))


def _between(low: Mapping[str, Any] | None, high: Mapping[str, Any] | None) -> str | None:
    if low is None or high is None:
        return None
    return _money_of(low) if _money_of(low) == _money_of(high) else f"{_money_of(low)} to {_money_of(high)}"


def _misses(case: _Case) -> bool:
    return bool(case.payload.get("miss_by_high") and case.payload["miss_by_high"]["amount_micros"])


def _leads_to(case: _Case) -> list[str]:
    payload = case.payload
    forecast = _between(payload.get("forecast_low"), payload.get("forecast_high"))
    if forecast is None:
        return []
    what = {"month": "the month", "quarter": "the quarter"}.get(str(payload.get("period")), "the period")
    low, high = payload.get("miss_by_low"), payload.get("miss_by_high")
    over = _between(low, high) if low and low["amount_micros"] else f"up to {_money_of(high)}"
    verdict = f", {over} over the amount" if _misses(case) else ", within the amount"
    return [f"{capital(plain(payload.get('basis')))} {what} ends at {forecast}{verdict}."]


def _run_out(case: _Case) -> str | None:
    earliest, latest = (parse_moment(case.payload.get(key)) for key in ("run_out_earliest", "run_out_latest"))
    if earliest is None:
        return None
    first = f"{short_moment(earliest, case.zone)} ({relative(earliest, case.now)})"
    if latest is None:
        return f"{first} at the earliest"
    last = f"{short_moment(latest, case.zone)} ({relative(latest, case.now)})"
    return first if first == last else f"between {first} and {last}"


def _period(case: _Case) -> str:
    start, end = (parse_moment(case.payload.get(key)) for key in ("period_start", "period_end"))
    if start is None or end is None:
        return "all time"
    last = end - timedelta(seconds=1)
    return f"{day(start, case.zone)} to {day(last, case.zone)} {last.astimezone(case.zone):%Y}"


_LETTERS: Mapping[str, Callable[[_Case], _Letter]] = {
    "warning": _warning,
    "notice": _notice,
    "enforced": _enforced,
    "undone": _undone,
    "failed": _failed,
    "breaker": _breaker,
    "rollout": _rollout,
    "unknown": _unknown,
    "protected": _protected,
    "reminder": _reminder,
    "test": _test,
    "budget": _budget,
}
_KEEPS = (LinkVerb.KEEP_1H, LinkVerb.KEEP_4H, LinkVerb.KEEP_UNTIL_MORNING)


def _facts(case: _Case, *, running: bool = True) -> list[tuple[str, str]]:
    """What it is, where, whose, what it costs."""
    payload, resource = case.payload, case.resource
    what = f"{case.called}: {gpus(resource)}" + (f", {name(resource['sku'])}" if resource.get("sku") else "")
    capacity = str(resource.get("capacity_type") or "unknown")
    if capacity != "unknown":
        what += f", {name(capacity).replace('_', '-')}"
    places = [resource.get("provider"), resource.get("account"), resource.get("region"), resource.get("external_id")]
    where = ", ".join(name(place) for place in places if place)
    told = ", ".join(name(one) for one in payload.get("told") or ())
    project, policy = payload.get("project"), payload.get("policy")
    return [
        ("What", what),
        *_fact("Where", where),
        ("Project", name(project) if project else "none: nobody has claimed it"),
        ("Owner", name(resource["owner"]) if resource.get("owner") else "nobody is named"),
        ("Cost", hourly(payload.get("hourly_cost")) or "its price is not known"),
        *_fact("Running", _running(case) if running else None),
        *_fact("Policy", name(policy) if policy else None),
        *_fact("Also told", told),
    ]


def _running(case: _Case) -> str | None:
    since = parse_moment(case.resource.get("launched_at"))
    if since is None or case.resource.get("state") not in ("running", None):
        return None
    return f"for {length((case.now - since).total_seconds())}"


def _fact(label: str, value: str | None) -> list[tuple[str, str]]:
    return [(label, value)] if value else []


def _losses(case: _Case) -> list[str]:
    return [plain(loss) for loss in case.payload.get("losses") or ()]


def _no_links(case: _Case) -> str:
    if any(verb in case.links for verb in _KEEPS):
        return ""
    return "To keep it, ask whoever runs Curfew for you: it has no public address, so there are no links here."


# --- the ways to set it -----------------------------------------------------------------------------------------------


def _as_text(letter: _Letter) -> str:
    blocks = [_wrap(letter.headline), *(_wrap(paragraph) for paragraph in letter.paragraphs)]
    if letter.facts:
        width = max(len(label) for label, _ in letter.facts) + 2
        blocks.append(
            "\n".join(_wrap(value, first=label.ljust(width), rest=" " * width) for label, value in letter.facts)
        )
    if letter.losses:
        lost = "\n".join(_wrap(loss, first="- ", rest="  ") for loss in letter.losses)
        blocks.append(f"{LOSES}\n{lost}")
    if letter.ask:
        blocks.append(_wrap(letter.ask))
    blocks += [f"{button.label}:\n{button.url}" for button in letter.buttons]
    if letter.closing:
        blocks.append(_wrap(letter.closing))
    return "\n\n".join(blocks) + "\n"


LOSES = "What would be lost:"


def _wrap(text: str, *, first: str = "", rest: str = "") -> str:
    return textwrap.fill(text, COLUMNS, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _as_brief(letter: _Letter) -> str:
    """Why, how much, when, and the links; the subject stands above it."""
    facts = [f"{label}: {chat(value)}" for label, value in letter.facts if label in _BRIEFLY]
    lost = f"{LOSES} {' '.join(chat(loss) for loss in letter.losses)}" if letter.losses else ""
    said = [" ".join(chat(paragraph) for paragraph in letter.paragraphs), " · ".join(facts), lost]
    return brief("\n\n".join(filter(None, said)), [(button.label, button.url) for button in letter.buttons])


_BRIEFLY = ("When", "Not before", "Cost", "Asked for by")


def brief(words: str, links: Sequence[tuple[str, str]]) -> str:
    """Markdown within what every chat takes: first the links have room, then as much of the words as fits."""
    line = " · ".join(f"[{chat(label)}]({url})" for label, url in links)
    room = BRIEF_AT_MOST - len(line) - len("\n\n")
    if len(words) > room:
        words = words[: max(0, room - 1)].rstrip() + "…"
    return "\n\n".join(part for part in (words, line) if part)


def _as_html(letter: _Letter) -> str:
    return template("mail.html").render(letter=letter, loses=LOSES)


@cache
def template(file: str) -> Template:
    """A template of mails; whatever is put into one is escaped."""
    environment = Environment(
        loader=PackageLoader("service.notify"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(file)
