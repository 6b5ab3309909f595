"""Pages of back-tests: what was asked, how far it is, the report once it is there; and the form that asks.

The report itself is drawn by `service.backtest.page`, the asking done by `service.api.backtests`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from service.api import backtests as asking
from service.api.auth import TheRuntime
from service.api.backtests import BacktestRequest
from service.api.problems import Problem
from service.backtest.page import body
from service.console.pages import Looking, Pressing
from service.console.rendering import LOOK, PageRoute, Stop, back, page, zone_of
from service.console.sessions import Visitor
from service.runtime import Runtime
from service.store import backtests, overview
from service.store import documents as store

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

SHOWN = 50
LOOK_AGAIN_SECONDS = 2
STRETCHES: Mapping[str, timedelta | None] = {
    "the last 7 days": timedelta(days=7),
    "the last 30 days": timedelta(days=30),
    "the last 90 days": timedelta(days=90),
    "all there is": None,
}
HORIZONS = ("1h", "2h", "6h", "12h")
CEILINGS = ("0%", "1%", "2%", "5%", "10%")


@router.api_route("/backtests", methods=LOOK)
def backtests_page(request: Request, runtime: TheRuntime, visitor: Looking, policy: str = "") -> Response:
    """`?policy=` chooses one in the form."""
    reader = visitor.principal
    with runtime.database.reading() as session:
        listed = backtests.listed(session, filters={}, sees=reader.projects, cursor=None, limit=SHOWN)
        timezones = overview.timezones(session)
        seen = store.names_seen(session, "policy", reader.projects)
        names = store.names(session)
    return page(
        request,
        "backtests.html",
        visitor,
        rows=listed.items,
        more=listed.next is not None,
        timezones=timezones,
        policies=sorted(names["policy"] if seen is None else seen),
        projects=sorted(name for name in names["project"] if reader.sees(name)),
        chosen=policy,
        stretches=STRETCHES,
        horizons=HORIZONS,
        ceilings=CEILINGS,
        history=bool(runtime.backtests.location),
    )


@router.api_route("/backtests/{backtest_id}", methods=LOOK)
def backtest_page(request: Request, runtime: TheRuntime, visitor: Looking, backtest_id: str) -> Response:
    with runtime.database.reading() as session:
        row = backtests.find(session, backtest_id)
        if row is None or not visitor.principal.sees(row.project):
            raise Stop(404, "Not found", "There is no such back-test, or it is not yours to see.")
        zone = zone_of(session, row.project)
    report = None if row.report is None else body(row.report, zone)
    again = LOOK_AGAIN_SECONDS if row.status in backtests.UNFINISHED else None
    return page(request, "backtest.html", visitor, row=row, zone=zone, report=report, refresh=again)


@router.post("/backtests")
def ask(
    request: Request,
    runtime: TheRuntime,
    visitor: Pressing,
    policy: Annotated[str, Form(max_length=100)] = "",
    project: Annotated[str, Form(max_length=100)] = "",
    stretch: Annotated[str, Form()] = "the last 30 days",
    within: Annotated[str, Form()] = "2h",
    ceiling: Annotated[str, Form()] = "1%",
) -> Response:
    """What would it have done?"""
    if stretch not in STRETCHES or within not in HORIZONS or ceiling not in CEILINGS:
        raise Stop(422, "Not understood", "This form is not one that Curfew made.")
    asked = _asked(runtime, policy, project, STRETCHES[stretch], within, ceiling)
    return back(request, f"/backtests/{_ask(runtime, visitor, asked)}")


def _asked(
    runtime: Runtime, policy: str, project: str, stretch: timedelta | None, within: str, ceiling: str
) -> BacktestRequest:
    given = {"name": policy, "project": project or None, "false_stop_within": within, "max_false_stops": ceiling}
    if stretch is not None:
        given["from"] = (runtime.clock.now() - stretch).isoformat()
    try:
        return BacktestRequest.model_validate(given)
    except ValidationError as error:
        raise Stop(422, "Not understood", str(error.errors()[0]["msg"])) from None


def _ask(runtime: Runtime, visitor: Visitor, asked: BacktestRequest) -> str:
    try:
        return asking.ask(runtime, visitor.principal, asked)
    except Problem as problem:
        sentence = f"{problem.detail[0].upper()}{problem.detail[1:]}."
        raise Stop(problem.status, _TITLES.get(problem.status, "Not possible now"), sentence) from None


_TITLES = {403: "Not yours to ask", 404: "Not found", 422: "Not understood"}
