"""Turns several messages about machines into one that is read: the urgent ones first, each with its own links.

Pure, like `service.notify.messages`, which sets single messages.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any, Literal

from service.notify.links import LinkVerb, next_working_morning
from service.notify.messages import BRIEF_AT_MOST, COLUMNS, LOSES, Level, Rendered, brief, template
from service.notify.wording import (
    capital,
    chat,
    digits,
    gpus,
    infinitive,
    length,
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

Group = Literal["acts", "approval", "waiting", "failed", "enforced", "undone", "notice", "unknown", "protected"]
ORDER: tuple[Group, ...] = (
    "acts", "approval", "waiting", "failed", "enforced", "undone", "notice", "unknown", "protected",
)  # fmt: skip
"""What needs a person comes first."""
KINDS = frozenset({"warning", "reminder", "failed", "enforced", "undone", "notice", "unknown", "protected"})
"""Messages about one machine: what else there is to say is said by itself."""
_LEVELS: Mapping[Group, Level] = {"failed": "failure", "acts": "warning", "approval": "warning", "undone": "success"}
_SEVERITY: tuple[Level, ...] = ("failure", "warning", "info", "success")
_DONE: frozenset[Group] = frozenset({"failed", "enforced", "undone"})
_KEPT: frozenset[Group] = frozenset({"acts", "approval", "waiting"})
"""Where keeping it changes what happens."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One message of a digest."""

    kind: str
    payload: Mapping[str, Any]
    due_at: datetime | None
    links: Mapping[str, str]

    @property
    def group(self) -> Group:
        acts = bool(self.payload.get("acts"))
        match self.kind:
            case "warning" if acts and self.due_at is not None:
                return "approval" if self.payload.get("approval_required") else "acts"
            case "reminder" if acts:
                return "approval" if self.payload.get("approval_required") else "waiting"
            case "failed" | "enforced" | "undone" | "unknown" | "protected":
                return self.kind
        return "notice"

    @property
    def done(self) -> str:
        """`stopped`, `scaled to zero`."""
        return participle((self.payload.get("action") or {}).get("verb") or self.payload.get("remedy"))

    @property
    def cost(self) -> tuple[str, int] | None:
        """Currency and micro-units an hour."""
        cost = self.payload.get("hourly_cost")
        return None if not cost else (str(cost["currency"]), int(cost["amount_micros"]))


@dataclass(frozen=True, kw_only=True)
class _Link:
    label: str
    url: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One machine."""

    called: str
    what: str
    lines: Sequence[str]
    cost: str | None
    cost_a_day: str | None
    when: str | None
    moment: str | None
    losses: Sequence[str]
    links: Sequence[_Link]


@dataclass(frozen=True, kw_only=True)
class _Section:
    """Machines with the same fate."""

    heading: str
    together: str | None
    rows: Sequence[_Row]


@dataclass(frozen=True, kw_only=True)
class _Digest:
    """What a digest says, before it is set."""

    subject: str
    level: Level
    headline: str
    sections: Sequence[_Section]
    all_of_them: _Link | None
    closing: str


def render_digest(parts: Sequence[Part], *, now: datetime, url_of_all: str | None) -> Rendered:
    """Several messages as one. `url_of_all` leads to a page with all their findings; None without a public URL."""
    digest = _digest(parts, now, url_of_all)
    return Rendered(
        subject=digest.subject,
        text=_as_text(digest),
        html=template("digest.html").render(letter=digest, loses=LOSES),
        brief=_as_brief(digest),
        level=digest.level,
    )


def _digest(parts: Sequence[Part], now: datetime, url_of_all: str | None) -> _Digest:
    ordered = sorted(parts, key=_urgency)
    groups = {group: [part for part in ordered if part.group == group] for group in ORDER}
    there = [(group, found) for group, found in groups.items() if found]
    kept = [part for part in ordered if part.group in _KEPT]
    first, its_parts = there[0]
    said = capital(_summary(first, its_parts, now, whose=_whose(parts)))
    price = _sum(its_parts) if first in _KEPT else None
    rest = len(parts) - len(its_parts)
    keepable = len(_machines(kept))
    label = f"Keep all {keepable} for 4 hours, or choose" if keepable > 1 else "See them all"
    zones = {str(zone_of(part.payload.get("timezone"))) for part in parts}
    return _Digest(
        subject=said + (f": {price} an hour" if price else "") + (f", and {rest} more" if rest else ""),
        level=min((_LEVELS.get(group, "info") for group, _ in there), key=_SEVERITY.index),
        headline=f"{said}{', unless you keep ' + _them(its_parts) if first == 'acts' else ''}.",
        sections=[
            _Section(
                heading="" if group == first else capital(_summary(group, found, now)),
                together=_together(found),
                rows=[_row(part, now, name_zone=len(zones) > 1) for part in found],
            )
            for group, found in there
        ],
        all_of_them=_Link(label=label, url=url_of_all) if url_of_all else None,
        closing=" ".join(_closing(groups, kept, url_of_all, zones)),
    )


def _urgency(part: Part) -> tuple[int, str, int, str]:
    """Within a group first what happens first, then the dearest."""
    at = part.due_at.isoformat() if part.due_at else ""
    return ORDER.index(part.group), at, -(part.cost or ("", 0))[1], _called(part)


def _machines(parts: Sequence[Part]) -> list[Part]:
    """One part of each machine: two policies may speak of the same one, which costs once."""
    return list({(part.payload.get("resource") or {}).get("id", at): part for at, part in enumerate(parts)}.values())


def _noun(parts: Sequence[Part]) -> str:
    """What they are, where they are alike."""
    kinds = {(part.payload.get("resource") or {}).get("kind", "instance") for part in parts}
    if kinds <= {"workload", "notebook", "endpoint"}:
        return kinds.pop() if len(kinds) == 1 else "workload"
    return "machine" if kinds <= {"instance", "node", "node_group"} else "resource"


def _them(parts: Sequence[Part]) -> str:
    return "it" if len(_machines(parts)) == 1 else "them"


# --- in words ---------------------------------------------------------------------------------------------------------


def _summary(group: Group, parts: Sequence[Part], now: datetime, *, whose: str = "") -> str:
    """`3 machines of vision will be stopped in 30 minutes`."""
    count = len(_machines(parts))
    one = count == 1
    who = f"{count} {_noun(parts)}{'' if one else 's'}{whose}"
    done = " or ".join(sorted({part.done for part in parts}))
    match group:
        case "acts":
            moments = sorted({part.due_at for part in parts if part.due_at is not None})
            when = relative(moments[0], now)
            return f"{who} will be {done} {when if len(moments) == 1 else f'(the first {when})'}"
        case "approval":
            return f"{who} wait{'s' if one else ''} for approval"
        case "waiting":
            return f"{who} still wait{'s' if one else ''} to be {done}"
        case "failed":
            return f"{who} could not be {done}"
        case "enforced" | "undone":
            return f"{who} {'was' if one else 'were'} {'put back' if group == 'undone' else done}"
        case "unknown":
            return f"{who} may be busy or idle, Curfew cannot tell"
        case "protected":
            return f"{who} protected for long"
    return f"{who} to have a look at; Curfew will not touch {_them(parts)}"


def _whose(parts: Sequence[Part]) -> str:
    projects = {part.payload.get("project") for part in parts}
    only = projects.pop() if len(projects) == 1 else None
    return f" of {name(only)}" if only else ""


def _sums(parts: Sequence[Part]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for part in _machines(parts):
        if part.cost is not None:
            found.setdefault(part.cost[0], []).append(part.cost[1])
    return found


def _sum(parts: Sequence[Part]) -> str | None:
    """`$118.00`, or one sum for each currency; None when no price is known."""
    return " and ".join(money(sum(each), currency) for currency, each in _sums(parts).items()) or None


def _together(parts: Sequence[Part]) -> str | None:
    """`Together: $55.04 + $31.48 + $31.48 = $118.00 an hour ($2,832.00 a day).` None for a single machine."""
    sums = _sums(parts)
    machines = _machines(parts)
    if len(machines) < 2 or not sums:
        return None
    told = []
    for currency, each in sums.items():
        a_day = money(sum(each) * 24, currency)
        told.append(f"{_added_up(each, currency)}{money(sum(each), currency)} an hour ({a_day} a day)")
    without = sum(part.cost is None for part in machines)
    unknown = f"; the price of {without} is not known" if without else ""
    return f"{'Avoided' if parts[0].group == 'enforced' else 'Together'}: {' and '.join(told)}{unknown}."


def _added_up(each: Sequence[int], currency: str) -> str:
    """The addends, where they are few and what is shown of them adds up."""
    shown = [digits(one, currency) for one in each]
    if not 1 < len(each) <= 4 or sum(shown) != digits(sum(each), currency):
        return ""
    return " + ".join(money(one, currency) for one in each) + " = "


def _closing(
    groups: Mapping[Group, Sequence[Part]], kept: Sequence[Part], url_of_all: str | None, zones: Set[str]
) -> Iterator[str]:
    if kept and url_of_all is None:
        yield "To keep them, ask whoever runs Curfew for you: it has no public address, so there are no links here."
    if groups["acts"]:
        yield "What is put to work again before its time is left alone."
    if len(zones) == 1:
        yield f"Times are those of {min(zones)}."


def _called(part: Part) -> str:
    resource = part.payload.get("resource") or {}
    return name(resource.get("name") or resource.get("external_id") or "a machine")


def _row(part: Part, now: datetime, *, name_zone: bool) -> _Row:
    payload, resource, price = part.payload, part.payload.get("resource") or {}, part.cost
    zone = zone_of(payload.get("timezone"))
    happens, at = _when(part)
    return _Row(
        called=_called(part),
        what=gpus(resource) + (f", {name(resource['sku'])}" if resource.get("sku") else ""),
        lines=_lines(part, now, zone),
        cost=f"{money(price[1], price[0])} an hour" if price else None,
        cost_a_day=f"{money(price[1] * 24, price[0])} a day" if price else None,
        when=_relative(happens, at, now) if at else None,
        moment=short_moment(at, zone) + (f" ({zone})" if name_zone else "") if at else None,
        losses=[plain(loss) for loss in payload.get("losses") or ()] if part.group in _KEPT else [],
        links=_links(part, now, zone),
    )


def _when(part: Part) -> tuple[str, datetime | None]:
    """What happens, or happened, at which moment."""
    if part.due_at is not None:
        return ("not before" if part.group == "approval" else ""), part.due_at
    if part.kind == "reminder":
        return "warned", parse_moment(part.payload.get("warned_at"))
    if part.kind in ("unknown", "protected"):
        return "for", parse_moment(part.payload.get("since"))
    return "", parse_moment((part.payload.get("action") or {}).get("at")) if part.group in _DONE else None


def _relative(happens: str, at: datetime, now: datetime) -> str:
    return (
        f"for {length((now - at).total_seconds())}" if happens == "for" else f"{happens} {relative(at, now)}".lstrip()
    )


def _lines(part: Part, now: datetime, zone: tzinfo) -> list[str]:
    """Why, in short, and what else there is to say of its kind."""
    payload = part.payload
    told = [sentence(payload.get("reason") or "No reason was given.", zone)]
    if part.group == "failed":
        told.insert(0, f"The cloud's answer: {plain((payload.get('action') or {}).get('error') or 'none')}")
    if part.kind == "reminder" and payload.get("waits_for"):
        told.append(sentence(payload["waits_for"], zone))
    spent, since = payload.get("cost_since_warning"), parse_moment(payload.get("warned_at"))
    if part.kind == "reminder" and spent and since:
        cost = money(int(spent["amount_micros"]), str(spent["currency"]))
        told.append(f"Since the warning {length((now - since).total_seconds())} ago it has cost {cost}.")
    if part.group == "notice" and part.kind != "reminder" and payload.get("not_acting_reason"):
        told.append(sentence(payload["not_acting_reason"], zone))
    return told


def _links(part: Part, now: datetime, zone: tzinfo) -> list[_Link]:
    keeps = (LinkVerb.KEEP_4H, LinkVerb.KEEP_UNTIL_MORNING)
    verbs: tuple[LinkVerb, ...] = ()
    if part.group in ("acts", "waiting"):
        verbs = (*keeps, LinkVerb.STOP_NOW)
    elif part.group == "approval":
        verbs = (LinkVerb.APPROVE, *keeps)
    elif part.group == "enforced" and not _final(part):
        verbs = (LinkVerb.UNDO,)
    morning = next_working_morning(now, zone).astimezone(zone)
    labels = {
        LinkVerb.KEEP_4H: "Keep 4 hours",
        LinkVerb.KEEP_UNTIL_MORNING: f"Keep until {morning:%A %H:%M}",
        LinkVerb.STOP_NOW: capital(f"{infinitive(part.payload.get('remedy'), 'it')} now"),
        LinkVerb.APPROVE: "Approve",
        LinkVerb.UNDO: "Put it back",
        LinkVerb.DETAILS: "Details",
    }
    return [
        _Link(label=labels[verb], url=part.links[verb]) for verb in (*verbs, LinkVerb.DETAILS) if verb in part.links
    ]


# --- the ways to set it -----------------------------------------------------------------------------------------------


def _as_text(digest: _Digest) -> str:
    blocks = [_wrap(digest.headline)]
    if digest.all_of_them:
        blocks.append(f"{digest.all_of_them.label}:\n{digest.all_of_them.url}")
    for section in digest.sections:
        head = [f"{_wrap(section.heading)}\n{'-' * COLUMNS}"] if section.heading else []
        blocks += [*head, *([_wrap(section.together)] if section.together else [])]
        blocks += [_row_as_text(row) for row in section.rows]
    if digest.closing:
        blocks.append(_wrap(digest.closing))
    return "\n\n".join(blocks) + "\n"


def _row_as_text(row: _Row) -> str:
    price = f"{row.cost} ({row.cost_a_day})" if row.cost else "Its price is not known."
    lines = [_wrap(f"{row.called}: {row.what}"), *(_wrap(line, indent="  ") for line in (*row.lines, price))]
    if row.when:
        lines.append(_wrap(f"{capital(row.when)}: {row.moment}", indent="  "))
    if row.losses:
        lines.append(_wrap(f"{LOSES} {' '.join(row.losses)}", indent="  "))
    lines += [f"  {link.label}:\n{link.url}" for link in row.links]
    return "\n".join(lines)


def _wrap(text: str, *, indent: str = "") -> str:
    return textwrap.fill(text, COLUMNS, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _as_brief(digest: _Digest) -> str:
    """A link to all of them, and of the machines as much as fits: with their links, with why, or only what and when."""
    links = [(one.label, one.url) for one in (digest.all_of_them,) if one]
    lost = sorted({loss for section in digest.sections for row in section.rows for loss in row.losses})
    said = "\n\n".join(filter(None, [digest.sections[0].together, chat(f"{LOSES} {' '.join(lost)}") if lost else ""]))
    room = BRIEF_AT_MOST - len(brief(said, links)) - 4
    for detail in (2, 1, 0):
        lines = [line for section in digest.sections for line in _section_in_brief(section, detail)]
        if sum(len(line) + 1 for line in lines) <= room:
            break
    listed: list[str] = []
    for at, line in enumerate(lines):
        room -= len(line) + 1
        if room < 20 and at < len(lines) - 1:
            listed.append("- and more")
            break
        listed.append(line)
    return brief("\n\n".join(filter(None, [said, "\n".join(listed)])), links)


def _section_in_brief(section: _Section, detail: int) -> Iterator[str]:
    if section.heading:
        yield f"\n{chat(section.heading)}:"
    for row in section.rows:
        told = ", ".join(chat(one) for one in (row.when, row.cost) if one)
        line = f"- {chat(row.called)} ({chat(row.what.partition(',')[0])})" + (f": {told}" if told else "")
        if detail >= 1:
            line += f". {chat(row.lines[0])}"
        if detail >= 2:
            line += "".join(f" [{chat(link.label)}]({link.url})" for link in row.links)
        yield line


def _final(part: Part) -> bool:
    """Nothing brings it back."""
    action = part.payload.get("action") or {}
    return bool(action.get("final", action.get("verb") == "terminate"))
