"""`curfew backtest`: policies in files → what they would have done to the past, worked out here or by a service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from policies.policy import BasePolicy, Policy
from policies.quantities import format_duration, format_share, parse_duration, parse_share
from service import files, printing
from service.backtest import text
from service.backtest.answer import answer, check_stretch, moment_of
from service.backtest.question import STEP, Question, usual_sweep
from service.client import Client, Failure
from service.documents import Project, written
from service.history.layout import History, shown
from service.pipeline.price import PriceFile
from service.visible import visible

WAIT = 0.3
"""Seconds between asking a service how far it is."""

Told = Callable[[float, str], None]
Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was typed, read."""

    start: datetime | None
    end: datetime | None
    project: str | None
    horizon: timedelta
    max_false_stops: float
    sweep: bool
    step: timedelta | None
    prices: Path | None


def asked(
    *,
    from_: str | None,
    to: str | None,
    project: str | None,
    false_stop_within: str,
    max_false_stops: str,
    sweep: bool,
    step: str | None,
    prices: Path | None,
) -> Asked:
    """Raises BadParameter that names the option."""
    with _option("--from"):
        start = None if from_ is None else moment_of(from_)
    with _option("--to"):
        end = None if to is None else moment_of(to)
        check_stretch(start, end)
    with _option("--false-stop-within"):
        horizon = _longer_than_nothing(parse_duration(false_stop_within))
    with _option("--max-false-stops"):
        ceiling = parse_share(max_false_stops)
    with _option("--step"):
        looks = None if step is None else _longer_than_nothing(parse_duration(step))
    return Asked(
        start=start,
        end=end,
        project=project,
        horizon=horizon,
        max_false_stops=ceiling,
        sweep=sweep,
        step=looks,
        prices=prices,
    )


@contextmanager
def _option(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _longer_than_nothing(length: timedelta) -> timedelta:
    if not length:
        raise ValueError("must be longer than nothing, like 2h")
    return length


def run(
    texts: Sequence[tuple[str, str]],
    asked: Asked,
    *,
    history: str | None,
    client: Callable[[], Client],
    output: str,
    page: Path | None,
    fail_on_false_stops: bool,
    out: Console,
    err: Console,
) -> int:
    """Back-tests each policy in these files; answers the exit code."""
    policies, projects = _documents(texts)
    if history is None:
        if asked.step is not None or asked.prices is not None:
            raise typer.BadParameter("is for --history: a service looks at its own pace and has its own prices",
                                     param_hint="--step" if asked.step is not None else "--prices")  # fmt: skip
        service = client()
        work: Callable[[Policy, Told], Found] = lambda policy, told: _by_service(service, policy, asked, told)  # noqa: E731
    else:
        past, prices = _history(history), _prices(asked.prices)
        work = lambda policy, told: _here(past, policy, asked, projects, prices, told)  # noqa: E731
    found, failures = _each(policies, work, err)
    _print(found, out, output, as_list=len(policies) > 1)
    if page is not None and found:
        _write_page(found, page, err)
    if failures:
        raise Failure("\n".join(failures))
    return 1 if fail_on_false_stops and not all([_passed(report, asked, err) for report in found]) else 0


def _documents(texts: Sequence[tuple[str, str]]) -> tuple[list[Policy], dict[str, Project]]:
    """The policies, and the projects whose clocks they go by. What else is there is left out."""
    raws, mistakes = [], []
    for name, content in texts:
        found, wrong = files.read_yaml(content, name)
        raws += [raw for raw in found if raw.body.get("kind") not in ("source", "exemption")]
        mistakes += wrong
    parsed, more = files.parse(raws)
    if mistakes or more:
        raise Failure(str(files.Refused([*mistakes, *more])))
    policies = [entry.document for entry in parsed if isinstance(entry.document, BasePolicy)]
    if not policies:
        raise Failure(f"{', '.join(name for name, _ in texts)}: there is no policy to back-test")
    return policies, {entry.name: entry.document for entry in parsed if isinstance(entry.document, Project)}


def _history(location: str) -> History:
    """Raises Failure when there is nothing there to look at."""
    try:
        history = History(location)
        if history.local and not Path(location.removeprefix("file://")).is_dir():
            raise Failure(f"{location}: there is no such folder; {MAKES_HISTORY}")
        if not history.days():
            raise Failure(f"{history.shown}: there is no history in it; {MAKES_HISTORY}")
    except ValueError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{shown(location)}: cannot be read: {error.strerror or type(error).__name__}") from None
    return history


MAKES_HISTORY = (
    "`curfew history import prometheus --days 30` fetches what a Prometheus kept, `curfew history import table FILE` "
    "reads a table, and a service with CURFEW_HISTORY keeps what it sees"
)


def _prices(path: Path | None) -> PriceFile:
    if path is None:
        return PriceFile()
    try:
        return PriceFile.read(path)
    except (ValueError, OSError) as error:
        raise Failure(str(error)) from None


# --- working it out --------------------------------------------------------------------------------------------------


def _each(
    policies: Sequence[Policy], work: Callable[[Policy, Told], Found], err: Console
) -> tuple[list[Found], list[str]]:
    """The reports, and why there is none of the others. One that cannot be replayed does not keep the rest back."""
    found, failures = [], []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        for policy in policies:
            task = shown.add_task(policy.name, total=1.0)

            def told(share: float, words: str, *, task: Any = task, name: str = policy.name) -> None:
                shown.update(task, completed=share, description=visible(f"{name}: {words}" if words else name))

            try:
                found.append(work(policy, told))
            except ValueError as error:
                failures.append(f"{policy.name}: {error}")
            shown.remove_task(task)
    return found, failures


def _here(
    history: History, policy: Policy, asked: Asked, projects: Mapping[str, Project], prices: PriceFile, told: Told
) -> Found:
    question = Question(
        policy=policy,
        start=asked.start,
        end=asked.end,
        project=asked.project,
        horizon=asked.horizon,
        step=asked.step or STEP,
        max_false_stops=asked.max_false_stops,
        sweep=usual_sweep(policy) if asked.sweep else None,
        projects=projects,
        prices=prices,
    )
    try:
        return answer(history, question, told)
    except (duckdb.Error, OSError) as error:
        raise Failure(f"{history.shown}: cannot be read: {str(error).splitlines()[0]}") from None


def _by_service(client: Client, policy: Policy, asked: Asked, told: Told) -> Found:
    """Asked of a service, which does one after the other."""
    body = {
        "policy": written(policy),
        "from": asked.start.isoformat() if asked.start else None,
        "to": asked.end.isoformat() if asked.end else None,
        "project": asked.project,
        "false_stop_within": format_duration(asked.horizon),
        "max_false_stops": format_share(asked.max_false_stops),
        "sweep": asked.sweep,
    }
    given = {key: value for key, value in body.items() if value is not None}
    id = client.send("POST", "/policies/backtest", json=given)["id"]
    while True:
        row = client.get(f"/backtests/{id}")
        if row["status"] == "done":
            report: Found = row["report"]
            return report
        if row["status"] == "failed":
            raise ValueError(row["error"])
        told(row["progress"]["share"], row["progress"]["words"] or row["status"])
        time.sleep(WAIT)


# --- showing it ------------------------------------------------------------------------------------------------------


def _print(found: Sequence[Found], out: Console, output: str, *, as_list: bool) -> None:
    """One policy: its report; several: a list of theirs."""
    if output != "table":
        whole: Any = list(found) if as_list else (found[0] if found else None)
        if whole is not None:
            typer.echo(printing.as_json(whole) if output == "json" else printing.as_yaml(whole), nl=False)
        return
    for index, report in enumerate(found):
        if index:
            out.print()
        text.show(out, report)


def _write_page(found: Sequence[Found], path: Path, err: Console) -> None:
    from service.backtest import page

    try:
        path.write_text(page.whole(found), "utf-8")
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None
    err.print(f"The page is in {path}.", markup=False, highlight=False)


def _passed(report: Found, asked: Asked, err: Console) -> bool:
    """Whether its false stops are within what was allowed, and there is anything to tell it by."""
    totals, most = report["totals"], format_share(asked.max_false_stops)
    if totals["false_stop_rate"] is None:
        why = "no stop of it is decided, so nothing shows that it is harmless"
    elif totals["false_stop_rate"] > asked.max_false_stops:
        why = f"{totals['false_stops']} of {totals['decided']} decided stops are false, which is more than {most}"
    else:
        return True
    err.print(visible(f"{report['policy']}: {why}"), markup=False, highlight=False)
    return False
