"""A project's own page: what it spent and may spend, what was found in it, what runs now and what that costs.

For whoever is logged in and sees the project, and by a signed link for those who are told of its money. It only shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from providers.records import Kind
from service.api.auth import TheRuntime
from service.console.pages import Looking
from service.console.rendering import LOOK, PageRoute, Stop, activity_of, page
from service.days import day_of, day_start, month_of
from service.documents import Project
from service.model import Message
from service.notify.links import BadLink
from service.pipeline import budget
from service.pipeline.address import channels_for
from service.pipeline.budget import BudgetState
from service.pipeline.notify import recipient_of
from service.runtime import Runtime
from service.store import documents, overview, spend, views
from service.store.overview import FindingRow, Money
from service.store.spend import By
from service.store.sums import UNUSED
from service.store.tables import Hold, Resource

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
DAYS = 30
"""Of the plot: a month and what came before it, on a phone too."""


@dataclass(kw_only=True)
class Day:
    """What one day cost, in micro-units of one currency."""

    day: date
    spent: int = 0
    idle: int = 0
    assumed: int = 0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A resource that is not stopped, and what it does."""

    resource: Resource
    doing: str
    idle_seconds: int | None

    @property
    def counted(self) -> bool:
        """A group's cost is its members' and counted with them."""
        return Kind(self.resource.kind).counted


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    """Everything on the page."""

    project: Project
    zone: tzinfo
    this_month: Money
    days: Mapping[str, Sequence[Day]]
    """Currency → each of the last days."""
    budgets: Sequence[BudgetState]
    hourly: Money
    idle_hourly: Money
    running: Sequence[Running]
    stopped: int
    more: bool
    """There are more resources than are shown."""
    findings: Sequence[FindingRow]
    found: int
    """How many there are in all."""
    holds: Sequence[Hold]


@router.api_route("/projects/{name}", methods=LOOK)
def project_page(request: Request, runtime: TheRuntime, visitor: Looking, name: str) -> Response:
    with runtime.database.reading() as session:
        project = _project(session, name) if visitor.principal.sees(name) else None
        if project is None:
            raise Stop(404, "Not found", "There is no such project, or it is not yours to see.")
        view = _view(session, runtime, project)
    return page(request, "project.html", visitor, draws=True, view=view, claim=None)


@router.api_route("/p/{token}", methods=LOOK)
def linked_page(request: Request, runtime: TheRuntime, token: str) -> Response:
    """The same by a link in a message, as long as its recipient is still told of the project."""
    try:
        claim = runtime.links.read_project(token, runtime.clock.now())
    except BadLink as error:
        raise Stop(403, "This link does not work any more", error.sentence) from None
    with runtime.database.reading() as session:
        project = _project(session, claim.project)
        if project is None or claim.recipient not in _told(project, runtime):
            sentence = "Whoever it was sent to is no longer told of this project."
            raise Stop(403, "This link does not work any more", sentence)
        view = _view(session, runtime, project)
    return page(request, "project.html", None, draws=True, view=view, claim=claim)


def _project(session: Session, name: str) -> Project | None:
    row = documents.find(session, "project", name)
    document = None if row is None else documents.read(row)
    return document if isinstance(document, Project) else None


def _told(project: Project, runtime: Runtime) -> set[str]:
    """Who hears of the project, as their links name them."""
    anything = Message(kind="warning", key="page", project=project.name, policy_channels=(), payload={})
    channels = channels_for(anything, {project.name: project}, runtime.settings.notify)
    return {recipient_of(channel) for channel in channels}


def _view(session: Session, runtime: Runtime, project: Project) -> ProjectView:
    name, now, activity = project.name, runtime.clock.now(), activity_of(runtime)
    rows = overview.resources(session, name)
    told = runtime.view.activity if runtime.view else lambda _: ("unknown", None)
    doing = [(row, overview.shown_activity(row.state, activity(row.id))) for row in rows]
    running = [Running(resource=row, doing=one, idle_seconds=told(row.id)[1]) for row, one in doing if one != "stopped"]
    idle_hourly: Money = defaultdict(int)
    for one in running:
        if (
            (one.doing == "idle" or one.resource.lent_share is not None)  # what nobody requested of it
            and one.counted
            and one.resource.rate_micros is not None
            and one.resource.currency is not None
        ):
            idle_hourly[one.resource.currency] += one.resource.rate_micros
    days = _days(session, project, now)
    findings, found = overview.most_urgent(session, lambda project: project == name, overview.SHOWN)
    first, _ = month_of(day_of(now, project.zone))
    states = budget.states(
        {name: project},
        spend.spent(session, budget.windows({name: project}, now), now),
        {name: spend.hourly(session, name)},
        runtime.rates,
        now,
    )
    return ProjectView(
        project=project,
        zone=project.zone,
        this_month={
            currency: sum(day.spent for day in its_days if day.day >= first) for currency, its_days in days.items()
        },
        days={currency: its_days[-DAYS:] for currency, its_days in days.items()},
        budgets=list(states.values()),
        hourly=spend.hourly(session, name),
        idle_hourly=idle_hourly,
        running=running,
        stopped=len(rows) - len(running),
        more=len(rows) == overview.SHOWN,
        findings=findings,
        found=found,
        holds=[hold for hold in views.holds(session, now=now) if hold.project in (None, name)],
    )


def _days(session: Session, project: Project, now: datetime) -> dict[str, list[Day]]:
    """Currency → the days from the first of this month or the first of the plot, whichever is earlier, until today."""
    today = day_of(now, project.zone)
    first = min(month_of(today)[0], today - timedelta(days=DAYS - 1))
    every = [first + timedelta(days=count) for count in range((today - first).days + 1)]
    start = day_start(first, project.zone)
    rows = spend.metered(session, now=now, projects=[project.name], start=start)
    found: dict[str, dict[date, Day]] = {}
    for ((day, activity), currency), cost in spend.sums(rows, [By.DAY, By.ACTIVITY], start, now, project.zone).items():
        days = found.setdefault(currency, {one: Day(day=one) for one in every})
        its = days[date.fromisoformat(day)]
        its.spent += cost.micros
        its.assumed += cost.assumed_micros
        if activity in UNUSED:
            its.idle += cost.micros
    return {currency: list(days.values()) for currency, days in sorted(found.items())}
