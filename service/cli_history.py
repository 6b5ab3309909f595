"""`curfew history`: brings a past into a history and says what is in one. Works on files here, not on a running Curfew.

Everything heavy is imported by the command that needs it, so that `curfew --help` is there at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.visible import visible

if TYPE_CHECKING:
    from service.history.content import Content
    from service.history.layout import History
    from service.settings import Settings

app = typer.Typer(
    help="What was seen: the past that policies are tried on.", no_args_is_help=True, rich_markup_mode=None
)
import_commands = typer.Typer(help="Bring in a past.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(import_commands, name="import")

Progress = Callable[[float, str], None]


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"


Place = Annotated[
    str | None,
    typer.Option(
        "--history", help="Where the history is: a folder, or a URL like s3://bucket/folder; default: CURFEW_HISTORY.",
        metavar="DIR",
    ),
]  # fmt: skip


@import_commands.command("table")
def import_table(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV (also .gz, .zst) or Parquet, on this machine.")],
    history: Annotated[
        str,
        typer.Option("--history", help="Where to put it: a folder, or a URL like s3://bucket/folder.", metavar="DIR"),
    ],
    ignore_columns: Annotated[str, typer.Option(help="Columns to leave out, like a,b.")] = "",
    percent: Annotated[bool, typer.Option("--percent", help="utilisation is 0 to 100, not 0 to 1.")] = False,
    milliseconds: Annotated[bool, typer.Option("--milliseconds", help="time is in milliseconds, not seconds.")] = False,
) -> None:
    """Bring in a table with the columns resource, time and utilisation, and more if there are.

    What is there already stays; samples of the same resource, GPU and second are replaced.
    """
    from service.client import Failure
    from service.history import table

    reading = table.Reading(
        ignore=[name for part in ignore_columns.split(",") if (name := part.strip())],
        percent=percent,
        milliseconds=milliseconds,
    )
    try:
        with _progress() as progress:
            found = table.import_table(file, _history(history), reading, progress)
    except (ValueError, OSError) as error:
        raise Failure(_sentence(error)) from None
    typer.echo(
        f"{found.samples:,} samples of {found.gpus:,} GPUs of {found.resources:,} resources, "
        f"{found.start:%Y-%m-%d %H:%M:%S} to {found.end:%Y-%m-%d %H:%M:%S} UTC, are in {visible(history)}."
    )
    if found.duplicates:
        typer.echo(f"{found.duplicates:,} told of a GPU and second again: the highest utilisation counts.", err=True)
    if found.silent:
        typer.echo(f"{found.silent:,} rows have neither utilisation nor state: they say nothing.", err=True)
    if found.without_zone:
        typer.echo("Times without a zone were taken as UTC.", err=True)


@import_commands.command("prometheus")
def import_prometheus(
    days: Annotated[int, typer.Option(help="How far back.", min=1, max=3660)] = 30,
    source: Annotated[
        str | None, typer.Option(help="Only this source; default: all with the provider prometheus.")
    ] = None,
    history: Place = None,
) -> None:
    """Bring in what this installation's Prometheus servers tell of the resources that Curfew knows.

    Works with the settings of the service, as `curfew db upgrade` does; the service need not run.
    """
    from datetime import timedelta

    from service.cli import _one_sentence, _settings
    from service.client import Failure
    from service.history import prometheus
    from service.runtime import compose
    from service.store import documents

    settings = _settings()
    with _one_sentence():
        runtime = compose(settings)
        runtime.database.upgrade()
        try:
            end = runtime.clock.now()
            start = end - timedelta(days=days)
            with runtime.database.reading() as session:
                sources = documents.load(session).sources
                resources = prometheus.lived(session, start)
            place = _history(history or _default(settings))
            try:
                asked = prometheus.servers(runtime.fleet.update(sources), source)
                with _progress() as progress:
                    found = prometheus.import_past(asked, resources, place, start=start, end=end, progress=progress)
            except (ValueError, OSError) as error:
                raise Failure(_sentence(error)) from None
        finally:
            runtime.fleet.end()
            runtime.database.close()
    _tell(found, place)


def _tell(found: Any, place: History) -> None:
    """What came, what did not, and what of it is assumed."""
    typer.echo(
        f"{found.rows:,} windows of {found.resources:,} resources, {found.start:%Y-%m-%d %H:%M} to "
        f"{found.end:%Y-%m-%d %H:%M} UTC, told by {visible(', '.join(found.sources))}, are in {visible(place.shown)}."
    )
    if found.assumed:
        typer.echo(
            f"{found.assumed:,} of them are told with the project and the price of today for the time before Curfew "
            "metered them."
        )
    if found.silent:
        typer.echo(f"Nothing was told of {found.silent:,} further resources: they are unknown.", err=True)
    for fault in found.faults[:20]:
        typer.echo(visible(f"Not told: {fault}"), err=True)
    if len(found.faults) > 20:
        typer.echo(f"… and {len(found.faults) - 20:,} further stretches of time.", err=True)


@app.command()
def show(
    history: Place = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TABLE,
) -> None:
    """Say what is in a history: from when to when, of what, and how much of the time is known."""
    from service.cli import _one_sentence, _settings
    from service.client import Failure
    from service.history import content
    from service.printing import as_json

    with _one_sentence():
        place = _history(history or _default(_settings()))
        try:
            with _progress() as progress:
                found = content.content(place, progress)
        except OSError as error:
            raise Failure(_sentence(error)) from None
    if output is Output.JSON:
        typer.echo(as_json(content.as_json(found)), nl=False)
    elif found.first is None:
        raise Failure(f"{place.shown}: there is no history; the service writes one, and `curfew history import` does")
    else:
        _print(place, found)


def _print(place: History, found: Content) -> None:
    from rich.table import Table

    from service.cli import _console

    rows = sum(found.rows.values())
    typer.echo(
        visible(f"{place.shown}: {found.first} to {found.last}, {found.days:,} days with anything in them (UTC)")
    )
    typer.echo(
        f"{found.resources:,} resources, {found.gpus:,} GPUs, {rows:,} rows, {found.bytes / 10**6:,.1f} MB in "
        f"{found.files:,} files"
    )
    if not found.projects:
        return
    typer.echo()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("PROJECT")
    for name in ("RESOURCES", "GPU HOURS RUN", "OF THESE KNOWN"):
        table.add_column(name, justify="right")
    for one in found.projects:
        share = "" if one.share is None else f"{one.share:.1%}"
        name = "(none)" if one.project is None else visible(one.project)
        table.add_row(name, f"{one.resources:,}", f"{one.gpu_hours:,.1f}", share)
    _console().print(table)


def _history(location: str) -> History:
    from service.client import Unusable
    from service.history.layout import History

    try:
        return History(location)
    except ValueError as error:
        raise Unusable(str(error)) from None


def _default(settings: Settings) -> str:
    """Where the service keeps its own."""
    from service.client import Unusable

    place = settings.resolved_history
    if place is None:
        raise Unusable("CURFEW_HISTORY is off: say with --history where the history is")
    return place


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda share, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share, words: bar.update(task, completed=share, description=words)
