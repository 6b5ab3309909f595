"""The `curfew` command: reads what people type, asks a running Curfew over HTTP, and prints what it answers.

Everything heavy is imported by the command that needs it, so that `curfew --help` is there at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service import cli_history
from service.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

    from service.client import Client

HELP = """Sees what GPUs cost, warns the people who own them, and stops what idles.

The client speaks to CURFEW_URL (default http://127.0.0.1:8080) with CURFEW_TOKEN.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or settings, 3 `diff` found changes.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
token_commands = typer.Typer(
    help="API tokens: create, list, rotate, revoke.", no_args_is_help=True, rich_markup_mode=None
)
notify_commands = typer.Typer(help="Who is told.", no_args_is_help=True, rich_markup_mode=None)
db_commands = typer.Typer(help="The database.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(token_commands, name="token")
app.add_typer(notify_commands, name="notify")
app.add_typer(db_commands, name="db")
guardrail_commands = typer.Typer(help="Policies in other words.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(guardrail_commands, name="guardrails")
app.add_typer(cli_history.app, name="history")

rollout_commands = typer.Typer(
    help="Policies that begin with a share of their scope.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(rollout_commands, name="rollout")

UNUSABLE, FOUND_CHANGES = 2, 3

DOCUMENTS = ("sources", "projects", "policies", "exemptions")
KINDS = ("resources", "findings", "actions", *DOCUMENTS, "cycles", "audit", "tokens", "hold", "spend")
SINGULAR = {"policy": "policies", "cycle": "cycles", "holds": "hold"} | {
    kind.removesuffix("s"): kind for kind in KINDS if kind.endswith("s")
}
STILL_THERE: Mapping[str, Mapping[str, Any]] = {
    "resources": {"state": ("pending", "running", "stopping", "stopped", "suspended", "unknown")},
    "findings": {"status": ("open", "warned", "due", "acting", "enforced", "refused", "snoozed", "exempt")},
}
"""What a list shows without --all."""


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class AuditOutput(StrEnum):
    """How to print lines of the audit log; the last two are whole exports."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    NDJSON = "ndjson"


class RoleName(StrEnum):
    """Each may do all that the ones before may."""

    VIEWER = "viewer"
    OWNER = "owner"
    OPERATOR = "operator"
    ADMIN = "admin"


For = Annotated[str | None, typer.Option("--for", help="How long, like 4h or 1h30m.", metavar="DURATION")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")]
File = Annotated[str, typer.Option("--file", "-f", help="A YAML file, a folder of them, or - for standard input.")]
Prune = Annotated[bool, typer.Option("--prune", help="Delete what the set no longer has.")]
SetName = Annotated[str | None, typer.Option("--set", help="The set these files are; default: their folder's name.")]
Override = Annotated[
    str | None,
    typer.Option(
        "--override-backtest",
        help="Why policies may enforce though no back-test of them has passed; takes an admin.",
        metavar="REASON",
    ),
]
FindingId = Annotated[str, typer.Argument(metavar="FINDING", help="Its id, or the beginning of it.")]


def main() -> None:
    """The entry point: failures become one sentence and exit code 1, or 2 for settings that cannot work."""
    from service.client import Failure, Unusable

    try:
        app()
    except Failure as failure:
        _complain(str(failure))
        sys.exit(UNUSABLE if isinstance(failure, Unusable) else 1)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)


# --- serving ---------------------------------------------------------------------------------------------------------


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
) -> None:
    """Run the service: API, pages and cycles. Its settings are in the environment."""
    from service.serve import serve as run

    with _one_sentence():
        run(_settings(), host=host, port=port, say=typer.echo)


@app.command()
def admission(
    tls_cert: Annotated[Path, typer.Option(help="Certificate for API servers, PEM; read again when it changes.")],
    tls_key: Annotated[Path, typer.Option(help="Its key.")],
    source: Annotated[str | None, typer.Option(help="The source that this cluster is; may be left out of one.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8443,
    refresh: Annotated[float, typer.Option(help="Seconds between asking for what is new.", min=0.1)] = 5,
) -> None:
    """Review new GPU pods for Kubernetes API servers, by what the service at CURFEW_URL saw last."""
    from service.admission.server import serve as run
    from service.client import Unusable

    try:
        run(
            _client(),
            source=source,
            cert=tls_cert,
            key=tls_key,
            host=host,
            port=port,
            refresh_seconds=refresh,
            say=typer.echo,
        )
    except ValueError as error:
        raise Unusable(str(error)) from None


@db_commands.command("upgrade")
def db_upgrade() -> None:
    """Bring the database's schema to this version. `serve` does it too."""
    from service.store.database import Database

    with _one_sentence():
        database = Database(_settings().resolved_database_url)
        database.upgrade()
        database.close()
    typer.echo("The database is at this version's schema.")


# --- documents -------------------------------------------------------------------------------------------------------


@app.command()
def apply(file: File, prune: Prune = False, set_name: SetName = None, override_backtest: Override = None) -> None:
    """Apply documents: all of them or none."""
    from service import printing

    answer = _apply(file, set_name, prune=prune, dry_run=False, override_backtest=override_backtest)
    printing.changes(_console(), answer["changes"], done=True)


@app.command()
def diff(file: File, prune: Prune = False, set_name: SetName = None, override_backtest: Override = None) -> None:
    """Print what `apply` would change. Exit code 3 when it would change anything."""
    from service import printing

    answer = _apply(file, set_name, prune=prune, dry_run=True, override_backtest=override_backtest)
    printing.changes(_console(), answer["changes"], done=False)
    if any(change["action"] != "unchanged" for change in answer["changes"]):
        raise typer.Exit(FOUND_CHANGES)


def _apply(file: str, set_name: str | None, *, prune: bool, dry_run: bool, override_backtest: str | None) -> Any:
    from service import files

    path = Path(file)
    body = _texts(file)
    if prune and set_name is None and not path.is_dir():
        raise typer.BadParameter(
            "with a single file it would delete all others of its folder; name a folder or --set", param_hint="--prune"
        )
    if file != "-":
        set_name = set_name or files.set_of(path)
    params = {"set": set_name, "prune": prune, "dry_run": dry_run, "override_backtest": override_backtest}
    return _client().send("POST", "/apply", params=params, json=body)


def _texts(file: str) -> dict[str, Any]:
    """The body that carries files with their names, so that a mistake is told with its file and line."""
    from service import files
    from service.client import Failure

    try:
        texts = [("standard input", sys.stdin.read())] if file == "-" else files.texts_at(Path(file))
    except files.Refused as refused:
        raise Failure(str(refused)) from None
    return {"files": [{"name": name, "text": text} for name, text in texts]}


@app.command()
def preview(
    file: File,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    limit: Annotated[int, typer.Option(help="How many resources of each policy at most; 0: all.", min=0)] = 20,
) -> None:
    """Print what policies would do right now; nothing is stored. Documents that are no policies are left out."""
    from service import files, printing
    from service.client import Failure

    body = _texts(file)
    raws = [raw for text in body["files"] for raw in files.read_yaml(text["text"], text["name"])[0]]
    names = [str(raw.body.get("name")) for raw in raws if raw.body.get("kind", "policy") == "policy"]
    if not names:
        raise Failure(f"{file}: there is no policy to preview")
    client = _client()
    found = [_previewed(client, name, body, limit) for name in names]
    if output is not Output.TABLE:
        _print_whole(found, output)
        return
    for index, answer in enumerate(found):
        if index:
            typer.echo()
        printing.preview(_console(), answer)


def _previewed(client: Client, name: str, body: dict[str, Any], limit: int) -> Any:
    """One policy's preview, with as many of its resources as are wanted."""
    from service.client import LARGEST_PAGE

    items: list[Any] = []
    cursor = None
    while True:
        size = min(limit - len(items), LARGEST_PAGE) if limit else LARGEST_PAGE
        params = {"policy": name, "limit": size, "cursor": cursor}
        answer = client.send("POST", "/policies/preview", params=params, json=body)
        items += answer["resources"]["items"]
        cursor = answer["resources"]["next"]
        if cursor is None or len(items) == limit:
            return answer | {"resources": {"items": items, "next": cursor}}


@app.command()
def backtest(
    file: File,
    history: Annotated[
        str | None,
        typer.Option(
            "--history",
            help="Replay this history here: a folder, or s3://… and the like. Else a service does.",
            metavar="PLACE",
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="From this moment on, like 2026-11-01 (midnight in UTC) or with a time."),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Up to this moment, which is not included.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only what belonged to it.")] = None,
    false_stop_within: Annotated[
        str, typer.Option(help="A stop is false when work is seen so soon after it.", metavar="DURATION")
    ] = "2h",
    max_false_stops: Annotated[
        str, typer.Option(help="The share of false stops you would bear.", metavar="SHARE")
    ] = "1%",
    sweep: Annotated[bool, typer.Option(help="Try other terms too and recommend some.")] = True,
    step: Annotated[
        str | None,
        typer.Option(help="With --history: how far one look is from the next; default: 60s.", metavar="DURATION"),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="With --history: a price file, whose prices win over the recorded ones.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with charts, too; it needs no other file.", metavar="FILE.html")
    ] = None,
    fail_on_false_stops: Annotated[
        bool,
        typer.Option(
            "--fail-on-false-stops", help="Exit code 1 if more than --max-false-stops are false, or none is decided."
        ),
    ] = False,
) -> None:
    """Print what policies would have done to the past: what they stop and save, whom they warn and whom they hurt.

    Times are printed in your own zone. Of several policies, JSON and YAML are a list.
    """
    from service import cli_backtest

    asked = cli_backtest.asked(
        from_=from_,
        to=to,
        project=project,
        false_stop_within=false_stop_within,
        max_false_stops=max_false_stops,
        sweep=sweep,
        step=step,
        prices=prices,
    )
    code = cli_backtest.run(
        [(text["name"], text["text"]) for text in _texts(file)["files"]],
        asked,
        history=history,
        client=_client,
        output=output.value,
        page=page,
        fail_on_false_stops=fail_on_false_stops,
        out=_console(),
        err=_console(err=True),
    )
    if code:
        raise typer.Exit(code)


@app.command()
def library(
    name: Annotated[str | None, typer.Argument(help="Print this one.")] = None,
) -> None:
    """List the starter policies, or print one: `curfew library NAME > NAME.yaml`. All of them only observe."""
    from policies import library as starters
    from service import printing
    from service.client import Failure
    from service.documents import nearest

    texts = starters.texts()
    if name is None:
        printing.library(_console(), texts)
    elif name in texts:
        typer.echo(texts[name], nl=False)
    else:
        raise Failure(f"there is no starter policy {name!r}{nearest(name, texts) or '; `curfew library` lists them'}")


# --- looking ---------------------------------------------------------------------------------------------------------


@app.command()
def get(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS))],
    name: Annotated[str | None, typer.Argument(help="One of them, by name or id.")] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only what belongs to it.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most; 0: all.", min=0)] = 100,
    everything: Annotated[
        bool, typer.Option("--all", help="Also resources that are gone and findings that ended.")
    ] = False,
    by: Annotated[
        str, typer.Option(help="Break spend down by: day, provider, gpu_model, capacity_type, activity, resource.")
    ] = "gpu_model,activity",
    from_: Annotated[
        str | None, typer.Option("--from", help="Spend since this day of the project; else this month's.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Spend until the day before this one.")] = None,
) -> None:
    """Show resources, findings, actions, documents, cycles, the audit log, tokens, what is on hold, or what a project
    spent.
    """
    kind = _kind(kind)
    if kind == "spend":
        _spend(name, output, {"by": by, "from": from_, "to": to})
        return
    if project is not None and kind not in ("resources", "findings", "actions", "audit"):
        raise typer.BadParameter(f"{kind} are not filtered by project", param_hint="--project")
    client = _client()
    if name is not None:
        _print_one(kind, _one(client, kind, name), output)
        return
    if kind == "hold":
        rows = client.get("/hold")["holds"]
    else:
        only = {} if everything else STILL_THERE.get(kind, {})
        wanted = 0 if kind in DOCUMENTS else limit
        rows = list(client.pages(f"/{kind}", limit=wanted, project=project, **only))
    if not rows and project is not None:
        _one(client, "projects", project)  # nothing of a project that does not exist is a slip
    unseen = _unseen(client, rows) if kind == "resources" and output is Output.TABLE else frozenset()
    for row in rows if unseen else ():
        row["state"] += "?" * (row["id"] in unseen)
    _print(kind, rows, output)
    if unseen:
        typer.echo(f"{len(unseen)} with a ? may be out of date: `curfew get sources` says why.", err=True)
    if limit and len(rows) == limit and output is Output.TABLE:
        typer.echo(f"These are the first {limit}; --limit 0 shows all.", err=True)


def _unseen(client: Client, rows: list[Any]) -> frozenset[str]:
    """Resources whose source has not answered in full lately, by the service's own clock."""
    from datetime import datetime, timedelta

    from service.client import Failure

    try:
        looks = [cycle["started_at"] for cycle in client.get("/cycles", limit=1)["items"]]
    except Failure:  # whoever is confined to projects may not see the cycles
        looks = []
    newest = max((datetime.fromisoformat(at) for at in [*looks, *(row["last_seen"] for row in rows)]), default=None)
    if newest is None:
        return frozenset()
    lately = newest - timedelta(minutes=15)
    there = [row for row in rows if row["ended_at"] is None]
    return frozenset(row["id"] for row in there if datetime.fromisoformat(row["last_seen"]) < lately)


def _spend(project: str | None, output: Output, asked: Mapping[str, str | None]) -> None:
    from service import printing

    if project is None:
        raise typer.BadParameter("whose? write curfew get spend PROJECT", param_hint="NAME")
    client = _client()
    with _nearest_of(client, "projects", project):
        found = client.get(f"/projects/{_quoted(project)}/spend", **asked)
    if output is Output.TABLE:
        printing.spend(_console(), found)
    else:
        _print_whole(found, output)


@app.command()
def explain(
    resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="Its id, its cloud's id, or its name.")],
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Say why a resource was stopped, or why it was not, with the numbers used."""
    from service import printing

    client = _client()
    found = client.get(f"/resources/{_one(client, 'resources', resource)['id']}/explain")
    if output is Output.TABLE:
        printing.explanation(_console(), found)
    else:
        _print_whole(found, output)


@app.command()
def audit(
    project: Annotated[
        list[str] | None, typer.Option("--project", "-p", help="Of this project; may be repeated.")
    ] = None,
    actor: Annotated[list[str] | None, typer.Option(help="By this one, like token:ci; may be repeated.")] = None,
    verb: Annotated[list[str] | None, typer.Option(help="That did this; may be repeated.")] = None,
    object: Annotated[list[str] | None, typer.Option(help="To this, like token/ci; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 7d, 2026-11-01 (UTC) or a moment.")] = None,
    until: Annotated[str | None, typer.Option(help="Until then, exclusive: written like --since.")] = None,
    text: Annotated[str | None, typer.Option(help="With this somewhere in the line.")] = None,
    output: Annotated[AuditOutput, typer.Option("--output", "-o", help="How to print.")] = AuditOutput.TABLE,
    limit: Annotated[int | None, typer.Option(help="How many at most (100); 0: all.", min=0)] = None,
) -> None:
    """Search the audit log, newest first; with -o csv or -o ndjson, export all of it that matches."""
    asked = {"project": project, "actor": actor, "verb": verb, "object": object, "from": since, "to": until}
    given = {key: value for key, value in {**asked, "text": text}.items() if value}
    if output in (AuditOutput.CSV, AuditOutput.NDJSON):
        if limit is not None:
            raise typer.BadParameter("an export is whole; narrow it by --since or --project", param_hint="--limit")
        for part in _client().stream("/audit", format=output.value, **given):
            sys.stdout.write(part)
        sys.stdout.flush()
        return
    wanted = 100 if limit is None else limit
    rows = list(_client().pages("/audit", limit=wanted, **given))
    _print("audit", rows, Output(output.value))
    if wanted and len(rows) == wanted and output is AuditOutput.TABLE:
        typer.echo(f"These are the newest {wanted}; --limit 0 shows all.", err=True)


# --- acting ----------------------------------------------------------------------------------------------------------


@app.command()
def snooze(
    finding: FindingId,
    for_: Annotated[str, typer.Option("--for", help="How long, like 4h.", metavar="DURATION")],
    reason: Reason,
) -> None:
    """Leave a resource alone for a while; a fresh warning follows."""
    _say(finding, "snooze", {"for": for_, "reason": reason})


@app.command()
def approve(finding: FindingId) -> None:
    """Say yes to an act that waits for approval."""
    _say(finding, "approve")


@app.command()
def dismiss(finding: FindingId, reason: Reason) -> None:
    """Say no; it comes back only if the breach ends and starts anew."""
    _say(finding, "dismiss", {"reason": reason})


@app.command()
def act(finding: FindingId) -> None:
    """Stop now, without waiting for the grace. Protection and ceilings still hold."""
    _say(finding, "act")


@app.command()
def undo(action: Annotated[str, typer.Argument(metavar="ACTION", help="Its id, or the beginning of it.")]) -> None:
    """Put back what an action did; verified in a later cycle."""
    client = _client()
    answer = client.send("POST", f"/actions/{_one(client, 'actions', action)['id']}/undo")
    typer.echo(visible(f"Action {answer['id'][:8]} will put back {answer['resource_name'] or answer['resource']}."))


@app.command()
def hold(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project; default: all.")] = None,
    for_: For = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept in the audit log.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Lift it; every grace starts anew.")] = False,
) -> None:
    """Stop all acting at once, everywhere or in one project. Without --for it stands until it is lifted."""
    from service import printing

    client = _client()
    if lift:
        if for_ is not None or reason is not None:
            raise typer.BadParameter("lifting takes neither --for nor --reason", param_hint="--lift")
        holds = client.send("DELETE", "/hold", params={"project": project})["holds"]
        typer.echo("Lifted." if not holds else "Lifted; still on hold:")
        if holds:
            printing.table(_console(), "hold", holds)
        return
    body = {"project": project, "for": for_, "reason": reason}
    with _nearest_of(client, "projects", project or ""):
        answer = client.send("PUT", "/hold", json={key: value for key, value in body.items() if value is not None})
    until = f"until {printing.moment(answer['until'])} {printing.zone()}" if answer["until"] else "until it is lifted"
    typer.echo(f"Nothing acts {'in ' + answer['project'] if answer['project'] else 'anywhere'} {until}.")


@rollout_commands.command("show")
def rollout_show(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Its name.")],
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Say how far a policy has come in its scope, and how those it meets fare beside those it only observes."""
    from service import printing

    client = _client()
    with _nearest_of(client, "policies", policy):
        found = client.get(f"/policies/{_quoted(policy)}/rollout")
    if output is Output.TABLE:
        printing.rollout(_console(), found)
    else:
        _print_whole(found, output)


@rollout_commands.command("resume")
def rollout_resume(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Its name.")],
    reason: Reason,
) -> None:
    """Let a rollout that fell back begin anew, with its first share."""
    client = _client()
    with _nearest_of(client, "policies", policy):
        answer = client.send("POST", f"/policies/{_quoted(policy)}/rollout/resume", json={"reason": reason})
    typer.echo(visible(f"Policy {policy} begins anew with {answer['share']} of its scope."))


@app.command()
def cycle(
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end and print what it did.")] = False,
    timeout: Annotated[int, typer.Option(help="Seconds to wait at most.", min=1)] = 600,
) -> None:
    """Run one cycle now."""
    client = _client()
    cycle_id = client.send("POST", "/cycles")["id"]
    if not wait:
        typer.echo(f"Cycle {cycle_id} runs.")
        return
    found = _wait_for_cycle(client, cycle_id, timeout)
    for step in found["steps"]:
        typer.echo(f"{step['step']:10} {step.get('seconds', 0):6.2f}s  {step.get('summary', '')}".rstrip())
    if found["error"]:
        from service.client import Failure

        raise Failure(f"the cycle failed: {found['error']}")


def _wait_for_cycle(client: Client, cycle_id: str, timeout: int) -> Any:
    """Its report, once it has finished. It may not be in the list yet when it was only just asked for."""
    import time

    from rich.text import Text

    from service import printing
    from service.client import Failure, NotThere

    said = printing.running(None)
    ends = time.monotonic() + timeout
    with _console(err=True).status(said) as shown:
        while time.monotonic() < ends:
            try:
                found = client.get(f"/cycles/{cycle_id}")
            except NotThere:
                found = {"finished_at": None}
            if found["finished_at"] is not None:
                return found
            said = printing.running(found.get("progress"))
            shown.update(Text(said))
            time.sleep(0.2)
    raise Failure(f"cycle {cycle_id} has not finished within {timeout} seconds; it goes on. {said}")


@notify_commands.command("test")
def notify_test(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Its name.")],
) -> None:
    """Send a test message to each channel of a project. Exit code 1 when one did not take it."""
    from service.client import Failure

    client = _client()
    with _nearest_of(client, "projects", project):
        tried = client.send("POST", f"/projects/{_quoted(project)}/notify/test")["channels"]
    for one in tried:
        error = "" if one["ok"] else f": {one['error']}"
        typer.echo(visible(f"{'ok    ' if one['ok'] else 'FAILED'}  {one['channel']}{error}"))
    if not tried:
        raise Failure(f"project {project} has no owners and no channels, and CURFEW_NOTIFY names nobody")
    if not all(one["ok"] for one in tried):
        raise typer.Exit(1)


@guardrail_commands.command("kubernetes")
def guardrails_kubernetes(
    source: Annotated[str | None, typer.Option(help="Which cluster; may be left out of one.")] = None,
) -> None:
    """Print what can be said once and for all as ValidatingAdmissionPolicies, for `kubectl apply -f -`."""
    from contextlib import closing
    from datetime import UTC, datetime

    from service.admission.guardrails import guardrails as made
    from service.admission.latest import PATH, Unfit, cluster_of, read
    from service.client import Failure

    with closing(_client()) as client:
        answer = client.unless(PATH, None)
    assert answer is not None  # nothing was known before
    try:
        snapshot = read(answer[1])
        found = made(snapshot, cluster_of(snapshot, source), datetime.now(UTC))
    except Unfit as error:
        raise Failure(str(error)) from None
    typer.echo(found.text(), nl=False)


# --- tokens ----------------------------------------------------------------------------------------------------------


@token_commands.command("create")
def token_create(
    name: Annotated[str, typer.Argument(help="Lower case letters, digits and hyphens.")],
    role: Annotated[RoleName, typer.Option(help="What it may do.")],
    project: Annotated[list[str] | None, typer.Option("--project", "-p", help="Confine it; may be repeated.")] = None,
    for_: For = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new text for a token that exists, and end the old one at once.")
    ] = False,
) -> None:
    """Make a token and print it, once."""
    from service.client import Failure

    body: dict[str, Any] = {"role": role.value, "projects": project or [], "rotate": rotate}
    if for_ is not None:
        body["for"] = for_
    client = _client()
    if not rotate and any(token["name"] == name for token in client.pages("/tokens", limit=0)):
        raise Failure(
            f"there is a token {name!r} already; `curfew token rotate {name}` gives it a new text and lets the old one "
            "work on for a while, --rotate ends the old one at once"
        )
    answer = client.send("PUT", f"/tokens/{_quoted(name)}", json=body)
    _show_once(answer)


@token_commands.command("rotate")
def token_rotate(
    name: Annotated[str, typer.Argument(help="Which.")],
    overlap: Annotated[
        str, typer.Option(help="How long the old text works on; 0s ends it at once.", metavar="DURATION")
    ] = "24h",
    for_: For = None,
) -> None:
    """Give a token a new text and print it, once. With --for it is valid for so long from now on."""
    body = {"overlap": overlap} | ({} if for_ is None else {"for": for_})
    _show_once(_client().send("POST", f"/tokens/{_quoted(name)}/rotate", json=body))


def _show_once(answer: Any) -> None:
    """A new text alone on standard output, and what is to be known of it beside."""
    from service import printing

    typer.echo(answer["token"])
    typer.echo("Keep it well: it cannot be shown again.", err=True)
    for key, words in (("old_text_until", "The old one works until"), ("expires_at", "It expires")):
        if answer[key] is not None:
            typer.echo(f"{words} {printing.moment(answer[key])} {printing.zone()}.", err=True)


@token_commands.command("list")
def token_list(output: Annotated[Output, typer.Option("--output", "-o")] = Output.TABLE) -> None:
    """Show the tokens, without their texts."""
    rows = list(_client().pages("/tokens", limit=0))
    _print("tokens", rows, output)
    for row in rows:
        if row["expires_soon"] and output is Output.TABLE:
            typer.echo(
                f"{row['name']} expires soon; `curfew token rotate {row['name']} --for 90d` renews it.", err=True
            )


@token_commands.command("revoke")
def token_revoke(name: Annotated[str, typer.Argument(help="Which.")]) -> None:
    """End a token at once."""
    _client().send("DELETE", f"/tokens/{_quoted(name)}")
    typer.echo(f"Token {name} is revoked.")


# --- shared by the commands ------------------------------------------------------------------------------------------


def _client() -> Client:
    from service.client import DEFAULT_URL, Client

    return Client(os.environ.get("CURFEW_URL") or DEFAULT_URL, os.environ.get("CURFEW_TOKEN") or None)


def _console(*, err: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=err, highlight=False, markup=False, emoji=False, soft_wrap=False)


def _settings() -> Any:
    """From the environment; a wrong one is told by its name."""
    from pydantic import ValidationError

    from service.client import Unusable
    from service.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        raise Unusable("\n".join(_setting(entry["loc"], entry["msg"]) for entry in error.errors())) from None


def _setting(location: tuple[int | str, ...], message: str) -> str:
    place = "".join(f"CURFEW_{part}: ".upper() for part in location[:1])  # none: the sentence names it
    return f"{place}{message.removeprefix('Value error, ').removeprefix('Input ')}"


@contextmanager
def _one_sentence() -> Iterator[None]:
    """What cannot work here, said without a traceback."""
    from sqlalchemy.exc import ArgumentError, DBAPIError

    from service.client import Failure, Unusable
    from service.store.database import trouble_of

    try:
        yield
    except DBAPIError as error:
        said = str(error.orig).splitlines()[0]
        raise Failure(f"{trouble_of(error) or 'the database refused'} ({said})") from None
    except ArgumentError:
        raise Unusable("CURFEW_DATABASE_URL is no database's URL; write postgresql://user:password@host/name") from None
    except ValueError as error:
        raise Unusable(str(error)) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise Unusable(f"{place}{error.strerror or error}; CURFEW_HOME must be a folder that can be written") from None


def _complain(sentence: str) -> None:
    for line in sentence.splitlines():
        typer.echo(f"curfew: {visible(line)}", err=True)


def _kind(given: str) -> str:
    from difflib import get_close_matches

    kind = SINGULAR.get(given.lower(), given.lower())
    if kind in KINDS:
        return kind
    close = get_close_matches(kind, KINDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(KINDS)}"
    raise typer.BadParameter(f"there is no kind {given!r}{hint}", param_hint="KIND")


def _one(client: Client, kind: str, word: str) -> Any:
    """One thing by its id or name, by the beginning of its id, or for a resource by what its cloud calls it."""
    from service.client import Failure, NotThere

    if kind in ("audit", "hold"):
        raise typer.BadParameter(f"{kind} is only shown as a whole", param_hint="NAME")
    if kind in (*DOCUMENTS, "tokens"):
        with _nearest_of(client, kind, word):
            return client.get(f"/{kind}/{_quoted(word)}")
    try:
        return client.get(f"/{kind}/{_quoted(word)}")
    except NotThere:
        pass
    if kind == "resources":
        rows = [row for key in ("external_id", "name") for row in client.pages("/resources", limit=0, **{key: word})]
        found = list({row["id"]: row for row in rows}.values())  # one without a name is named as its cloud calls it
        living = [row for row in found if row["ended_at"] is None]
        found = living or found
    else:
        found = []
    if not found and len(word) >= 4:
        found = [row for row in client.pages(f"/{kind}", limit=0) if row["id"].startswith(word)]
    if not found:
        raise NotThere(f"there is no {kind.removesuffix('s')} {word!r} that this token may see")
    if len(found) > 1:
        ids = ", ".join(row["id"] for row in found[:5])
        raise Failure(f"{word!r} is not one {kind.removesuffix('s')} but {len(found)}; name it by its id: {ids}")
    return found[0]


@contextmanager
def _nearest_of(client: Client, kind: str, word: str) -> Iterator[None]:
    """What is not there, with the name that was probably meant."""
    from service.client import NotThere
    from service.documents import nearest

    try:
        yield
    except NotThere as error:
        hint = nearest(word, [row["name"] for row in client.pages(f"/{kind}", limit=0)])
        raise NotThere(f"{error}{hint}") from None


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _say(finding: str, verb: str, body: dict[str, Any] | None = None) -> None:
    """Something to one finding; prints where it stands then."""
    client = _client()
    answer = client.send("POST", f"/findings/{_one(client, 'findings', finding)['id']}/{verb}", json=body)
    name = answer["resource_name"] or answer["resource"]
    typer.echo(visible(f"{name} ({answer['policy']}) is {answer['status']}: {answer['status_reason']}"))


def _print(kind: str, rows: list[Any], output: Output) -> None:
    from service import printing

    if output is Output.TABLE:
        printing.table(_console(), kind, rows)
    elif output is Output.YAML and kind in DOCUMENTS:
        typer.echo(printing.as_documents(rows), nl=False)
    else:
        _print_whole(rows, output)


def _print_one(kind: str, row: Any, output: Output) -> None:
    from service import printing

    if output is Output.TABLE:
        printing.one(_console(), kind, row)
    elif output is Output.YAML and kind in DOCUMENTS:
        typer.echo(printing.as_documents([row]), nl=False)
    else:
        _print_whole(row, output)


def _print_whole(value: Any, output: Output) -> None:
    from service import printing

    typer.echo(printing.as_json(value) if output is Output.JSON else printing.as_yaml(value), nl=False)


if __name__ == "__main__":
    main()
