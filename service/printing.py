"""Turns the API's answers into what people read in a terminal: tables for 80 columns, or JSON and YAML in full."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.visible import all_visible, hidden, visible

Cell = Callable[[Mapping[str, Any]], str | Text]

STYLES = {
    "busy": "green", "idle": "yellow", "running": "green", "verified": "green", "enforced": "green",
    "warned": "yellow", "due": "red", "failed": "red", "refused": "magenta", "enforce": "bold",
    "create": "green", "update": "yellow", "delete": "red",
    "passed": "green", "overridden": "magenta", "needed": "yellow",
}  # fmt: skip
"""Colours of words; shown on a terminal only."""


# --- cells -----------------------------------------------------------------------------------------------------------


def moment(value: str | None) -> str:
    """In the reader's own zone."""
    return "" if value is None else datetime.fromisoformat(value).astimezone().strftime("%d %b %H:%M")


def zone() -> str:
    """Of whoever reads, for the head of a column."""
    return datetime.now().astimezone().strftime("%Z")


def length(seconds: float | None) -> str:
    """The two largest units: `2h 5m`."""
    if seconds is None:
        return ""
    rest, parts = int(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def money(value: Mapping[str, Any] | None) -> str:
    """To the cent; the exact amount is in `-o json`."""
    if value is None:
        return "unknown"
    return f"{Decimal(value['amount_micros']) / 1_000_000:,.2f} {value['currency']}"


def word(value: Any) -> Text:
    """A word with its colour."""
    return Text(str(value), style=STYLES.get(str(value), ""))


def _get(key: str, row: Mapping[str, Any]) -> str:
    value = row.get(key)
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value)
    return "" if value is None else str(value)


def _word(key: str, row: Mapping[str, Any]) -> Text:
    return word(row.get(key) or "")


def _moment(key: str, row: Mapping[str, Any]) -> str:
    return moment(row.get(key))


def _short(key: str, row: Mapping[str, Any]) -> str:
    return str(row[key])[:8]


def _gpus(row: Mapping[str, Any]) -> str:
    held = row.get("held")
    free = "" if not held else f", {row['gpu_count'] - held['gpus']:g} unrequested"
    return f"{row['gpu_count']}×{row['gpu_model'] or '?'}{free}"


def _resource_name(row: Mapping[str, Any]) -> str:
    """Of a workload with its namespace and kind: many are called alike."""
    return str(row["external_id"] if row["kind"] == "workload" else row["name"])


def _activity(row: Mapping[str, Any]) -> Text:
    if row["state"] != "running":
        return Text("")
    idle = f" {length(row['idle_seconds'])}" if row["activity"] == "idle" and row["idle_seconds"] else ""
    return Text(row["activity"] + idle, style=STYLES.get(row["activity"], ""))


def _name_of_resource(row: Mapping[str, Any]) -> str:
    return str(row.get("resource_name") or row["resource"])


def _set(row: Mapping[str, Any]) -> str:
    return str(row["metadata"]["set"] or "")


def _marked(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a policy stands where a back-test is required."""
    mark: Mapping[str, Any] | None = row.get("metadata", {}).get("backtest")
    return mark


def _backtest(row: Mapping[str, Any]) -> Text:
    """In a word: what lets it enforce, or that nothing does."""
    mark = _marked(row)
    if mark is None or not mark["required"]:
        return Text("")
    return word({"pass": "passed", "override": "overridden"}.get(mark["by"], "needed"))


def _took(row: Mapping[str, Any]) -> str:
    if row["finished_at"] is None:
        step = (row.get("progress") or {}).get("step")
        return f"running: {step}" if step else "running"
    return f"{(_time(row['finished_at']) - _time(row['started_at'])).total_seconds():.0f}s"


def _sources(row: Mapping[str, Any]) -> str:
    if row["finished_at"] is None:
        return awaited(row.get("progress"))
    whole = sum(1 for source in row["sources"] if source.get("complete"))
    return f"{whole}/{len(row['sources'])}"


MOST_PARTS = 5
"""Of those awaited, named in a line; `-o yaml` names them all."""


def awaited(progress: Mapping[str, Any] | None) -> str:
    """Who has not answered yet, of a cycle that runs: `waits for research since 16 Nov 12:03: 16 of 17 parts, …`."""
    if progress is None:
        return ""
    if progress["unknown"]:
        return str(progress["unknown"])
    owing = [one for one in progress["sources"] if one["awaited"]]
    return f"waits for {'; '.join(_owes(one) for one in owing)}" if owing else ""


def running(progress: Mapping[str, Any] | None) -> str:
    """`The cycle runs: collect, waits for …`, for whoever waits for its end."""
    said = [word for word in ((progress or {}).get("step"), awaited(progress)) if word]
    return visible(f"The cycle runs: {', '.join(said)}" if said else "The cycle runs…")


def _owes(source: Mapping[str, Any]) -> str:
    owed = {question["about"]: question["since"] for question in source["awaited"]}
    words = f"{source['source']} ({', '.join(owed)}) since {moment(min(owed.values()))}"
    parts = source["parts"]
    if "listing" not in owed or not parts or not parts["waiting"]:
        return words
    answered, waiting = len(parts["answered"]), parts["waiting"]
    more = f" and {len(waiting) - MOST_PARTS} more" if len(waiting) > MOST_PARTS else ""
    return f"{words}: {answered} of {answered + len(waiting)} parts, not yet {', '.join(waiting[:MOST_PARTS])}{more}"


def _went_wrong(row: Mapping[str, Any]) -> str:
    """What broke the cycle off, or which sources failed it."""
    if row["error"]:
        return str(row["error"])
    faults = ((source["source"], source.get("fault")) for source in row["sources"])
    parts = (
        (source["source"], part["fault"])
        for source in row["sources"]
        for part in (*source.get("parts", ()), *source.get("telemetry", ()))
    )
    return "; ".join(f"{name}: {fault['sentence']}" for name, fault in (*faults, *parts) if fault)


def _health(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a source does; nothing for those who may not see all of it."""
    health: Mapping[str, Any] = row["metadata"].get("health") or {}
    return health


def _expires(row: Mapping[str, Any]) -> Text:
    word = "expired" if row["expired"] else "soon" if row["expires_soon"] else ""
    return Text.assemble(moment(row["expires_at"]), (f" {word}" if word else "", "red"))


def _object(row: Mapping[str, Any]) -> str:
    """With the machine's name where the line is about one."""
    name = row["details"].get("name")
    return f"{row['object']} ({name})" if name else str(row["object"])


def _mode(row: Mapping[str, Any]) -> Text:
    """How far it may go, and with which share of its scope where that is not all of it."""
    share = (row["metadata"].get("rollout") or {}).get("share", "100%")
    return Text.assemble(word(row["mode"]), "" if share == "100%" else f" {share}")


def _regretted(action: Mapping[str, Any]) -> str:
    """What people made of an act, where they regretted it."""
    return {"undo": "undone", "restart": "restarted"}.get(action["regret_why"] or "", "")


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _hourly(row: Mapping[str, Any]) -> str:
    return money(row["hourly_cost"])


text, coloured, when, short = (partial(partial, cell) for cell in (_get, _word, _moment, _short))

COLUMNS: Mapping[str, Mapping[str, Cell]] = {
    "resources": {
        "name": _resource_name, "project": text("project"), "gpus": _gpus, "state": coloured("state"),
        "activity": _activity, "per hour": _hourly,
    },
    "findings": {
        "id": short("id"), "policy": text("policy"), "resource": _name_of_resource, "status": coloured("status"),
        "due": when("due_at"), "per hour": _hourly,
    },
    "actions": {
        "id": short("id"), "when": when("intended_at"), "verb": text("verb"), "resource": _name_of_resource,
        "status": coloured("status"), "policy": text("policy"), "regretted": _regretted,
    },
    "sources": {
        "name": text("name"), "provider": text("provider"), "ceiling": coloured("ceiling"),
        "last complete": lambda row: moment(_health(row).get("last_complete")) or "never",
        "faults": lambda row: "; ".join(_health(row).get("faults", ())), "set": _set,
    },
    "projects": {
        "name": text("name"), "owners": text("owners"), "timezone": text("timezone"), "currency": text("currency"),
        "set": _set,
    },
    "policies": {
        "name": text("name"), "type": text("type"), "mode": _mode, "action": text("action"),
        "grace": text("grace"), "back-test": _backtest, "set": _set,
    },
    "exemptions": {
        "name": text("name"), "until": when("until"), "from": lambda row: _get("policies", row) or "all policies",
        "reason": text("reason"),
    },
    "cycles": {
        "id": short("id"), "started": when("started_at"), "took": _took, "sources": _sources,
        "asked for by": text("requested_by"), "error": _went_wrong,
    },
    "audit": {
        "when": when("at"), "who": text("actor"), "did": text("verb"), "to what": _object,
        "why": text("reason"),
    },
    "tokens": {
        "name": text("name"), "role": text("role"), "projects": text("projects"), "expires": _expires,
        "last used": text("last_used_on"),
    },
    "hold": {
        "project": lambda row: row["project"] or "everything",
        "until": lambda row: moment(row["until"]) or "a person lifts it",
        "by": text("created_by"), "reason": text("reason"),
    },
}  # fmt: skip
"""Kind → head of a column → what is in it."""

SOMETIMES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {"back-test": _marked, "regretted": _regretted}
"""Head of a column that is shown where any of the rows has something to say there → whether one has."""
TIMES = frozenset({"due", "when", "until", "started", "expires", "last complete"})


# --- whole answers ---------------------------------------------------------------------------------------------------


def table(console: Console, kind: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line for each; what does not fit is folded, never cut."""
    if not rows:
        console.print(f"There are no {kind}." if kind != "hold" else "Nothing is on hold.")
        return
    columns = {head: cell for head, cell in COLUMNS[kind].items() if any(map(SOMETIMES.get(head, bool), rows))}
    found = Table(box=None, pad_edge=False, header_style="bold")
    for head in columns:
        title = f"{head} ({zone()})" if head in TIMES else head
        found.add_column(title.upper(), overflow="fold", justify="right" if head == "per hour" else "left")
    rows = all_visible(rows)
    if kind == "resources":  # the API's order is by id, which says nothing to people
        rows = sorted(rows, key=lambda row: (row["project"] or "", row["name"]))
    for row in rows:
        found.add_row(*(cell(row) for cell in columns.values()))
    console.print(found)


def one(console: Console, kind: str, row: Mapping[str, Any]) -> None:
    """All fields of one thing, below each other."""
    found = Table(box=None, pad_edge=False, show_header=False)
    found.add_column(style="bold")
    found.add_column(overflow="fold")
    for key, value in all_visible(row).items():
        if value in (None, [], {}, ""):
            continue
        found.add_row(key, _readable(key, value))
    console.print(found)


def _readable(key: str, value: Any) -> str:
    if isinstance(value, Mapping) and set(value) == {"amount_micros", "currency"}:
        return money(value)
    if key == "idle_seconds":
        return length(value)
    if isinstance(value, str) and (key.endswith(("_at", "_seen")) or key in ("at", "until", "quiet_until")):
        return f"{moment(value)} {zone()}"
    if isinstance(value, Mapping | list):
        return as_yaml(value).rstrip()
    return str(value)


def spend(console: Console, found: Mapping[str, Any]) -> None:
    """What a project spent, and how its spend budgets stand."""
    found = all_visible(found)
    first, last = (_in_zone(found[key], found["timezone"]) for key in ("from", "until"))
    console.print(Text.assemble((found["project"], "bold"), f" spent from {first} to {last}"))
    console.print(f"({found['timezone']}):")
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in found["by"]:
        shown.add_column(head.replace("_", " ").upper(), overflow="fold")
    for head in ("COST", "ASSUMED"):
        shown.add_column(head, justify="right")
    for group in found["groups"]:
        labels = [group["resource_name" if head == "resource" else head] or "" for head in found["by"]]
        shown.add_row(*labels, money(group["cost"]), _some(group["assumed"]))
    for total in found["totals"]:
        shown.add_row(
            *("all" if head == found["by"][0] else "" for head in found["by"]),
            money(total["cost"]),
            _some(total["assumed"]),
        )
    console.print(shown if found["totals"] else "nothing")
    if found["unpriced"]:
        count = found["unpriced"]
        said = "1 resource runs" if count == 1 else f"{count} resources run"
        console.print(f"{said} without a price that anybody knows, and in no sum (docs/prices.md: how to give one).")
    for budget in found["budgets"]:
        console.print()
        console.print(Text(budget["words"]))


def _in_zone(value: str, timezone: str) -> str:
    """On the clocks of whose money it is: their months and days begin there."""
    return f"{_time(value).astimezone(ZoneInfo(timezone)):%d %b %Y %H:%M}"


def _some(value: Mapping[str, Any]) -> str:
    return money(value) if value["amount_micros"] else ""


def rollout(console: Console, found: Mapping[str, Any]) -> None:
    """How far a policy has come, and its two groups side by side."""
    found = all_visible(found)
    console.print(Text.assemble((found["policy"], "bold"), f": {found['words']}"))
    if found["regret"]:
        console.print(Text(f"In the last 90 days: {found['regret']['words']}"))
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("", "ENFORCED", "OBSERVED"):
        shown.add_column(head, justify="right" if head else "left")
    groups = found["groups"]
    for key in groups["enforced"]:
        cells = (groups[group][key] for group in ("enforced", "observed"))
        shown.add_row(key.replace("_", " "), *("" if cell is None else str(cell) for cell in cells))
    console.print(shown)


def changes(console: Console, found: Sequence[Mapping[str, Any]], *, done: bool) -> None:
    """What an apply did, or would do."""
    found = all_visible(found)
    for change in found:
        if change["action"] == "unchanged":
            continue
        verb = change["action"] + "d" if done else change["action"]
        console.print(Text.assemble((f"{verb:8}", STYLES[change["action"]]), f" {change['kind']} {change['name']}"))
        for entry in change["fields"]:
            console.print(Text(f"           {entry['field']}: {_plain(entry['before'])} → {_plain(entry['after'])}"))
        for note in change["notes"]:
            console.print(Text(f"           {note}"))
    same = sum(1 for change in found if change["action"] == "unchanged")
    if same == len(found):
        console.print("Nothing to change." if not done else "Nothing changed.")
    elif same:
        console.print(f"{same} unchanged")


def explanation(console: Console, found: Mapping[str, Any]) -> None:
    """Why a resource was stopped, or why not."""
    found = all_visible(found)
    resource = found["resource"]
    facts = (_gpus(resource), resource["sku"], f"{resource['provider']} {resource['region']}", resource["state"])
    console.print(Text.assemble((resource["name"], "bold"), "  ", ", ".join(facts)))
    console.print(Text(f"project {resource['project'] or 'none'}, owner {resource['owner'] or 'unknown'}"))
    if len(found["claimed_by"]) > 1:
        console.print(
            Text(f"It is claimed by {' and '.join(found['claimed_by'])} at once, so it is nobody's.", "yellow")
        )
    console.print(Text(f"This installation's ceiling is {found['ceiling']}."))
    if found["hold"]:
        console.print(Text(f"On hold: {found['hold']['reason']}", style="red"))
    for protection in found["protections"]:
        console.print(Text(f"Protected: {protection['sentence']}"))
    for policy in found["policies"]:
        if policy["verdict"] != "out_of_scope":
            console.print()
            console.print(Text.assemble((policy["policy"], "bold"), f" ({policy['mode']}): {policy['verdict']}"))
            for line in _about(policy):
                console.print(Padding(Text(line), (0, 0, 0, 2)))
    for action in found["actions"]:
        line = f"{moment(action['intended_at'])} {action['id'][:8]} {action['verb']} {action['status']}"
        console.print()
        console.print(Text(f"{line}, asked for by {action['requested_by']}: {action['error'] or action['reason']}"))
        if action["regret_why"]:
            did = "undid it" if action["regret_why"] == "undo" else "started it again soon after"
            console.print(Text(f"  a false stop: somebody {did}, {moment(action['regretted_at'])} {zone()}"))
        stands = action["status"] in ("taken", "verified") and not action["resumed_at"] and not action["undoes"]
        if stands and action["verb"] != "terminate":
            console.print(Text(f"  put it back: curfew undo {action['id'][:8]}"))


def _about(policy: Mapping[str, Any]) -> Iterator[str]:
    """What one policy says of it, and what stands in the way."""
    yield policy["reason"]
    if policy["exempt"]:
        yield f"Exempt until {moment(policy['exempt']['until'])} {zone()}: {policy['exempt']['reason']}"
    if policy["finding"]:
        finding = policy["finding"]
        yield f"Finding {finding['id'][:8]} is {finding['status']}: {finding['status_reason']}"
        if finding["not_delivered_because"]:
            yield f"Its warning could not be delivered: {finding['not_delivered_because']}"
    if policy["rollout"] and not policy["rollout"]["enforced"]:
        yield policy["rollout"]["reason"]
    if policy["cannot_act_because"]:
        yield f"Could not act: {policy['cannot_act_because']}"


def preview(console: Console, found: Mapping[str, Any]) -> None:
    """What a policy would do right now."""
    found = all_visible(found)
    counts = found["counts"]
    head = f" ({found['type']}, {found['mode']}, {found['action']}), judged {moment(found['judged_at'])} {zone()}"
    console.print(Text.assemble((found["policy"], "bold"), head))
    console.print(
        f"{counts['in_scope']} in scope: {counts['breach']} in breach, {counts['foreseen']} foreseen, "
        f"{counts['unknown']} unknown"
    )
    console.print(
        f"As things are (mode {found['mode']}, ceiling {found['ceiling']}): {counts['warned']} warned only, "
        f"{counts['acted_on']} warned and acted on"
    )
    acts = found["action"] != "notify"
    if acts:
        console.print(f"If all were at enforce: {counts['would_act']} acted on, {counts['could_not']} could not be")
    for total in found["totals"]:
        costs = f"those in breach cost {money(total['breach_per_hour'])} per hour"
        saved = f"; acting would save {money(total['would_act_per_hour'])}, {money(total['would_act_per_day'])} per day"
        console.print(f"  {costs}{saved if acts else ''}")
    for wave in found["hours"]:
        resources = f"{wave['resources']} resource{'' if wave['resources'] == 1 else 's'}"
        saved = "".join(f", {money(rate)} per hour" for rate in wave["per_hour"])
        gpus = f"{wave['gpus']:g} GPU{'' if wave['gpus'] == 1 else 's'}"
        console.print(f"  hour {wave['hour']} after the grace: {resources}, {gpus}{saved}")
    for reason in found["could_not"]:
        console.print(Padding(Text(f"{reason['count']} not: {reason['reason']}"), (0, 0, 0, 2)))
    if found["breaker"]:
        console.print(Text(f"The circuit breaker would hold everything: {found['breaker']}", style="red"))
    for note in found["notes"]:
        console.print(Text(note))
    for resource in found["resources"]["items"]:
        console.print()
        console.print(
            Text.assemble(
                (resource["name"], "bold"),
                f" {_gpus(resource)}, project {resource['project'] or 'none'}, {money(resource['saves_per_hour'])}"
                f" per hour: {resource['verdict']}",
            )
        )
        lost = [f"Would be lost: {loss}" for loss in resource["losses"] if resource["would_act"]]
        for line in (resource["reason"], resource["why"], *lost):
            console.print(Padding(Text(line), (0, 0, 0, 2)))
    if found["resources"]["next"] is not None:
        console.print(f"\nThese are the first {len(found['resources']['items'])}; --limit 0 shows all.")


def library(console: Console, texts: Mapping[str, str]) -> None:
    """The starter policies, with whom each is for."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("NAME", "TYPE", "WHOM IT IS FOR"):
        found.add_column(head, overflow="fold", no_wrap=head != "WHOM IT IS FOR")
    for name, text in texts.items():
        body = yaml.safe_load(text)
        found.add_row(name, body["type"], body["description"].removeprefix("For "))
    console.print(found)


def _plain(value: Any) -> str:
    return "nothing" if value in (None, [], {}, "") else json.dumps(value, ensure_ascii=False).strip('"')


def as_json(value: Any) -> str:
    """In full, and safe on a terminal: what is hidden is written as JSON's `\\u…`."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(json.dumps(c)[1:-1] if c != "\n" and hidden(c) else c for c in text) + "\n"


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would read as a number, too: `apply` reads it back as it was."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+)$"),
    [*"-+.0123456789"],
)


def as_yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)


def as_documents(bodies: Sequence[Mapping[str, Any]]) -> str:
    """A stream that `apply -f -` takes."""
    return "---\n".join(as_yaml({key: value for key, value in body.items() if key != "metadata"}) for body in bodies)
