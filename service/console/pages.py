"""The pages people look at and the buttons they press, rendered here and working without JavaScript.

A GET never changes anything. What a button does is done by `service.people`, in one transaction with its audit line;
what is shown is read by `service.store.overview`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from service import people
from service.api.auth import TheRuntime, address_of
from service.console import sessions
from service.console.rendering import (
    LOOK,
    LoginNeeded,
    PageRoute,
    Stop,
    activity_of,
    back,
    finding_view,
    inside,
    page,
    zone_of,
)
from service.console.sessions import Visitor
from service.report import progress
from service.runtime import Runtime
from service.store import cycles, overview, tokens
from service.store.tables import Action, Finding, Resource

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

DEMO_REFRESH_SECONDS = 5
KEEPS: Mapping[str, timedelta] = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "24h": timedelta(hours=24)}
HOLD = timedelta(hours=4)
Row = TypeVar("Row", Finding, Action, Resource)
Reason = Annotated[str, Form(max_length=500)]


def _visitor(request: Request, runtime: TheRuntime) -> Visitor:
    """Who looks; raises LoginNeeded."""
    visitor = sessions.visitor_of(request, runtime)
    if visitor is None:
        raise LoginNeeded
    return visitor


def _person(request: Request, runtime: TheRuntime, csrf: Annotated[str, Form()] = "") -> Visitor:
    """Who presses a button: logged in, and on a page of ours."""
    visitor = sessions.visitor_of(request, runtime)
    if visitor is None or not sessions.genuine(request, visitor, csrf):
        raise Stop(403, "Not from here", "This form is too old or came from elsewhere. Please log in and press again.")
    return visitor


Looking = Annotated[Visitor, Depends(_visitor)]
Pressing = Annotated[Visitor, Depends(_person)]


# --- looking ----------------------------------------------------------------------------------------------------------


@router.api_route("/", methods=LOOK)
def first_page(request: Request, runtime: TheRuntime, visitor: Looking) -> Response:
    with runtime.database.reading() as session:
        reader, now = visitor.principal, runtime.clock.now()
        found = overview.overview(session, now, activity_of(runtime), reader.sees, all_of_it=reader.sees_all)
        expiring = tokens.expiring(session, now=now) if reader.may("tokens") else ()
        looking = _looking(session, runtime) if reader.sees_all else {}
    shown: dict[str, Any] = {"view": found, "expiring": expiring, "ceiling": _ceiling(runtime), **looking}
    return page(request, "overview.html", visitor, refresh=_refresh(runtime), **shown)


def _looking(session: Session, runtime: Runtime) -> dict[str, Any]:
    """How far the cycle is that runs here, or since when another process runs one."""
    running = runtime.running
    last = cycles.last(session)
    elsewhere = last is not None and last.finished_at is None and running is None and runtime.running is None
    found = progress(runtime.fleet.members.values()) if running else ()
    return {
        "running": running,
        "asked": {one.source: one for one in found},
        "elsewhere": last if elsewhere else None,
    }


@router.api_route("/findings", methods=LOOK)
def findings_page(request: Request, runtime: TheRuntime, visitor: Looking) -> Response:
    with runtime.database.reading() as session:
        shown, count = overview.most_urgent(session, visitor.principal.sees, overview.SHOWN)
        timezones = overview.timezones(session)
    return page(request, "findings.html", visitor, rows=shown, count=count, timezones=timezones)


@router.api_route("/findings/{finding_id}", methods=LOOK)
def finding_page(request: Request, runtime: TheRuntime, visitor: Looking, finding_id: str) -> Response:
    with runtime.database.reading() as session:
        finding = _seen(session.get(Finding, finding_id), visitor, "finding")
        view = finding_view(session, finding, runtime, visitor.principal.sees)
        return page(request, "finding.html", visitor, **view, keeps=KEEPS)


@router.api_route("/resources", methods=LOOK)
def resources_page(request: Request, runtime: TheRuntime, visitor: Looking, project: str = "") -> Response:
    if not visitor.principal.sees(project or None):
        raise Stop(404, "Not found", "There is no such project, or it is not yours to see.")
    activity = activity_of(runtime)
    with runtime.database.reading() as session:
        rows = overview.resources(session, project or None)
    shown = [(row, overview.shown_activity(row.state, activity(row.id))) for row in rows]
    return page(request, "resources.html", visitor, project=project or None, rows=shown, refresh=_refresh(runtime))


@router.api_route("/resources/{resource_id}", methods=LOOK)
def resource_page(request: Request, runtime: TheRuntime, visitor: Looking, resource_id: str) -> Response:
    from service.explain import explain  # it brings the whole judge along, which the other pages do not need

    with runtime.database.reading() as session:
        resource = _seen(session.get(Resource, resource_id), visitor, "resource")
        zone = zone_of(session, resource.project)
    doing = overview.shown_activity(resource.state, activity_of(runtime)(resource.id))
    explained = explain(runtime, resource_id, to=visitor.principal.projects) or {}
    return page(request, "resource.html", visitor, resource=resource, doing=doing, zone=zone, explained=explained)


# --- logging in and out -----------------------------------------------------------------------------------------------


@router.api_route("/login", methods=LOOK)
def login_page(request: Request, then: Annotated[str, Query(alias="next")] = "/") -> Response:
    return page(request, "login.html", None, then=inside(then), wrong="")


@router.post("/login")
def log_in(
    request: Request,
    runtime: TheRuntime,
    token: Annotated[str, Form()] = "",
    then: Annotated[str, Form(alias="next")] = "/",
) -> Response:
    failed_logins = request.app.state.failed_logins
    if sessions.from_elsewhere(request):
        raise Stop(403, "Not from here", "This form was sent by another site. Please log in on this page.")
    response = back(request, inside(then))
    if sessions.log_in(response, request, runtime, token.strip()):
        return response
    if failed_logins.blocked(address_of(request)):
        wrong = "Too many wrong tokens came from your address. Please try again in a minute."
        return page(request, "login.html", None, status=429, then=inside(then), wrong=wrong)
    failed_logins.failed(address_of(request))
    wrong = "This token is unknown, expired or revoked."
    return page(request, "login.html", None, status=401, then=inside(then), wrong=wrong)


@router.post("/logout")
def log_out(request: Request, runtime: TheRuntime, _visitor: Pressing) -> Response:
    response = back(request, "/login")
    sessions.log_out(response, request, runtime)
    return response


# --- buttons ----------------------------------------------------------------------------------------------------------


@router.post("/findings/{finding_id}/snooze")
def snooze(
    request: Request,
    runtime: TheRuntime,
    visitor: Pressing,
    finding_id: str,
    keep: Annotated[str, Form()] = "4h",
    reason: Reason = "",
) -> Response:
    if keep not in KEEPS:
        raise Stop(422, "Not understood", f"It can be kept for {', '.join(KEEPS)}.")
    now = runtime.clock.now()
    with runtime.database.transaction() as session:
        finding = _seen(session.get(Finding, finding_id, with_for_update=True), visitor, "finding")
        by = _allowed(visitor, "snooze", finding.project)
        people.snooze(session, finding, until=now + KEEPS[keep], reason=reason or NO_REASON, by=by, now=now)
    return back(request, f"/findings/{finding_id}")


@router.post("/findings/{finding_id}/approve")
def approve(request: Request, runtime: TheRuntime, visitor: Pressing, finding_id: str) -> Response:
    with runtime.database.transaction() as session:
        finding = _seen(session.get(Finding, finding_id, with_for_update=True), visitor, "finding")
        by = _allowed(visitor, "approve", finding.project)
        people.approve(session, finding, by=by, now=runtime.clock.now())
    return back(request, f"/findings/{finding_id}")


@router.post("/findings/{finding_id}/dismiss")
def dismiss(request: Request, runtime: TheRuntime, visitor: Pressing, finding_id: str, reason: Reason = "") -> Response:
    with runtime.database.transaction() as session:
        finding = _seen(session.get(Finding, finding_id, with_for_update=True), visitor, "finding")
        by = _allowed(visitor, "dismiss", finding.project)
        people.dismiss(session, finding, reason=reason or NO_REASON, by=by, now=runtime.clock.now())
    return back(request, f"/findings/{finding_id}")


@router.post("/findings/{finding_id}/act")
def stop_now(request: Request, runtime: TheRuntime, visitor: Pressing, finding_id: str) -> Response:
    with runtime.database.transaction() as session:
        finding = _seen(session.get(Finding, finding_id, with_for_update=True), visitor, "finding")
        by = _allowed(visitor, "act", finding.project)
        people.stop_now(session, finding, by=by, now=runtime.clock.now())
    return back(request, f"/findings/{finding_id}")


@router.post("/actions/{action_id}/undo")
def undo(request: Request, runtime: TheRuntime, visitor: Pressing, action_id: str) -> Response:
    with runtime.database.transaction() as session:
        action = _seen(session.get(Action, action_id, with_for_update=True), visitor, "action")
        by = _allowed(visitor, "undo", action.project)
        if not visitor.principal.may("undo", people.project_now(session, action)):
            raise Stop(403, "Not yours to do", f"{people.MOVED[0].upper()}{people.MOVED[1:]}.")
        people.undo(session, action, by=by, now=runtime.clock.now())
        there = f"/findings/{action.finding_id}" if action.finding_id else f"/resources/{action.resource_id}"
    return back(request, there)


@router.post("/hold")
def hold_everything(request: Request, runtime: TheRuntime, visitor: Pressing, reason: Reason = "") -> Response:
    by, now = _allowed(visitor, "hold", None), runtime.clock.now()
    with runtime.database.transaction() as session:
        people.hold(session, project=None, until=now + HOLD, reason=reason or NO_REASON, by=by, now=now)
    return back(request, "/")


@router.post("/hold/lift")
def lift_hold(
    request: Request, runtime: TheRuntime, visitor: Pressing, project: Annotated[str, Form()] = ""
) -> Response:
    by = _allowed(visitor, "hold", project or None)
    with runtime.database.transaction() as session:
        people.lift(session, project=project or None, by=by, now=runtime.clock.now())
    return back(request, "/")


NO_REASON = "on the console, without a reason"


STATIC: Mapping[str, tuple[str, str]] = {
    "curfew.css": ("curfew.css", "text/css"),
    "backtest.css": ("backtest.css", "text/css"),
    "project.js": ("project.js", "text/javascript"),
    "uplot-1.6.32.css": ("uplot/uPlot-1.6.32.min.css", "text/css"),
    "uplot-1.6.32.js": ("uplot/uPlot-1.6.32.min.js", "text/javascript"),
}
"""What the pages fetch, all of it from here: file and media type."""


@router.api_route("/console/{name}", methods=LOOK)
def static(name: str) -> Response:
    if name not in STATIC:
        raise Stop(404, "Not found", "There is no such file.")
    return Response(_file(name), media_type=STATIC[name][1], headers={"Cache-Control": "public, max-age=300"})


@cache
def _file(name: str) -> bytes:
    return (files("service.console") / "static").joinpath(STATIC[name][0]).read_bytes()


def _seen(row: Row | None, visitor: Visitor, kind: str) -> Row:
    """The row, or the same answer for what is not there and for what is not theirs to see."""
    if row is None or not visitor.principal.sees(row.project):
        raise Stop(404, "Not found", f"There is no such {kind}, or it is not yours to see.")
    return row


def _allowed(visitor: Visitor, verb: str, project: str | None) -> people.Person:
    """Who presses, as the audit log names them; raises Stop when it is not theirs to do."""
    if not visitor.principal.may(verb, project):
        role = visitor.principal.role.value
        raise Stop(403, "Not yours to do", f"Your token's role is {role}, which does not allow this here.")
    return people.Person(actor=visitor.principal.actor)


def _refresh(runtime: Runtime) -> int | None:
    return DEMO_REFRESH_SECONDS if runtime.settings.demo_speed > 0 else None


def _ceiling(runtime: Runtime) -> Mapping[str, str]:
    """How far Curfew may go here, in plain words."""
    reachable = runtime.links.usable or runtime.ceiling.value != "enforce"
    return _CEILINGS[runtime.ceiling.value if reachable else "unreachable"]


_CEILINGS: Mapping[str, Mapping[str, str]] = {
    "observe": {"title": "Observe only", "says": "Curfew is watching and will not act."},
    "warn": {"title": "Warn only", "says": "Curfew warns the people who own things and will not act."},
    "enforce": {
        "title": "Enforcing",
        "says": "Where a policy says so, Curfew acts: after a delivered warning, its grace, and a second look.",
    },
    "unreachable": {
        "title": "Enforcing is off",
        "says": "CURFEW_PUBLIC_URL is not set, so nobody could object to a warning. Therefore nothing is stopped.",
    },
}
