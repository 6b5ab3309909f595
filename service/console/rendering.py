"""Turns values into pages: the templates, the words and numbers in them, the headers every page has, and refusals.

What is shown on which page is decided by the routes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from datetime import UTC, tzinfo
from functools import cache
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlmodel import Session

from policies.facts import BY_NAME
from policies.quantities import MICROS
from service.api.auth import runtime_of
from service.console.sessions import Visitor
from service.documents import mask_channel
from service.notify import wording
from service.people import NotPossible
from service.runtime import Runtime
from service.store import overview
from service.store.tables import Finding, Resource

LOOK = ["GET", "HEAD"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address of a link is the right to use it
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


class Stop(Exception):
    """Instead of the page: a sentence with its status."""

    def __init__(self, status: int, title: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.title, self.sentence = status, title, sentence


class LoginNeeded(Exception):
    """Nobody is logged in, and this is not a page for everybody."""


class PageRoute(APIRoute):
    """A route whose refusals are pages for people, not problems for programs."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except LoginNeeded:
                there = request.url.path.removeprefix(root(request)) or "/"
                return back(request, f"/login?next={quote(there, safe='/')}")
            except Stop as stop:
                found = stop
            except NotPossible as error:
                found = Stop(409, "Not possible now", wording.sentence(error.sentence, UTC))
            except RequestValidationError:
                found = Stop(422, "Not understood", "This form or address is not one that Curfew made.")
            return page(request, "refused.html", None, status=found.status, title=found.title, sentence=found.sentence)

        return handled


def page(
    request: Request,
    template: str,
    visitor: Visitor | None,
    *,
    status: int = 200,
    draws: bool = False,
    **shown: Any,
) -> Response:
    """`draws`: the page has a plot, for which scripts of ours may run on it."""
    runtime = runtime_of(request)
    context: dict[str, Any] = {
        "root": root(request),
        "visitor": visitor,
        "now": runtime.clock.now(),
        "demo": runtime.settings.demo_speed > 0,
        "refresh": None,
    }
    text = _environment().get_template(template).render(context | shown)
    headers = HEADERS | {"Content-Security-Policy": f"{HEADERS['Content-Security-Policy']}; script-src 'self'"}
    return HTMLResponse(text, status_code=status, headers=headers if draws else HEADERS)


def back(request: Request, path: str) -> Response:
    """After a button: look again, so that reloading does not press it twice."""
    return RedirectResponse(root(request) + path, status_code=303, headers=HEADERS)


def inside(path: str) -> str:
    """A path of this service, never another site."""
    harmless = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if harmless else "/"


def root(request: Request) -> str:
    """What stands before every path when a proxy serves us below one."""
    return str(request.scope.get("root_path") or "").rstrip("/")


def activity_of(runtime: Runtime) -> overview.ActivityOf:
    """What the last cycle of this process judged; unknown for all before the first."""
    view = runtime.view
    return (lambda _id: "unknown") if view is None else (lambda resource_id: view.activity(resource_id)[0])


def zone_of(session: Session, project: str | None) -> tzinfo:
    """The zone in which a project's people read the time."""
    return wording.zone_of(overview.timezones(session).get(project or ""))


def resource_of(session: Session, finding: Finding, sees: overview.Sees | None = None) -> Resource | None:
    """What the finding is about, as far as this reader sees it; whoever has a link sees what is of the finding's
    project. None when it has moved elsewhere, or was forgotten.
    """
    resource = session.get(Resource, finding.resource_id)
    if resource is None:
        return None
    seen = resource.project == finding.project if sees is None else sees(resource.project)
    return resource if seen else None


def finding_view(
    session: Session, finding: Finding, runtime: Runtime, sees: overview.Sees | None = None
) -> dict[str, Any]:
    """Everything about one finding, for `finding.html`."""
    resource = resource_of(session, finding, sees)
    doing = overview.shown_activity(resource.state, activity_of(runtime)(resource.id)) if resource else "unknown"
    return {
        "finding": finding,
        "resource": resource,
        "doing": doing,
        "actions": overview.actions_of(session, finding.id),
        "messages": overview.messages_of(session, finding.id),
        "zone": zone_of(session, finding.project),
        "undecided": finding.closed_at is None and finding.status not in ("acting", "enforced"),
        "waits_for_approval": finding.approved_at is None and overview.needs_approval(session, finding.policy),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": wording.plain,
        "name": wording.name,
        "money": wording.money,
        "units": lambda micros: micros / MICROS,
        "channel": lambda channel: wording.plain(mask_channel(channel)),
        "actor": _actor,
        "words": lambda word: str(word).replace("_", " ").replace("-", " "),
        "gpus": lambda count: f"{count:g}",
        "number": _number,
        "fact": _fact,
        "parsed": wording.parse_moment,
    }
    environment.globals |= {
        "moment": wording.moment,
        "short_moment": wording.short_moment,
        "sentence": wording.sentence,
        "infinitive": wording.infinitive,
        "capital": wording.capital,
        "relative": wording.relative,
        "length": wording.length,
        "zone_of": wording.zone_of,
        "STATUS": _STATUS,
        "ACTIVITIES": overview.ACTIVITIES,
    }
    return environment


def _actor(actor: str) -> str:
    """Who did it, as the audit log names them; of a link sent to a webhook only what may be shown."""
    return wording.plain(mask_channel(actor) if "://" in actor else actor)


def _fact(key: object) -> str:
    """A fact's name in words; its unit stands with its value."""
    return re.sub(r"_(seconds|watts|mib)$", "", wording.name(key)).replace("_", " ")


def _number(value: object, fact: str) -> str:
    """A fact as a reader takes it in, in its unit."""
    column = BY_NAME.get(fact)
    unit = column.unit if column else ""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return wording.plain(value)
    if unit == "s":
        return wording.length(value)
    if unit == "0..1":
        return f"{100 * value:.3g}%"
    return f"{value:,.6g} {unit if unit in ('W', 'MiB') else ''}".rstrip()


_STATUS = {
    "open": "Noticed",
    "warned": "Warned",
    "due": "Due",
    "acting": "Acting",
    "enforced": "Done",
    "refused": "Cannot be done",
    "snoozed": "Kept",
    "exempt": "Exempt",
    "cleared": "Over",
    "dismissed": "Dismissed",
    "closed": "Closed",
    "intended": "About to be done",
    "taken": "Asked of the cloud",
    "verified": "Done",
    "failed": "Failed",
    "abandoned": "Given up",
    "undone": "Put back",
}
"""Statuses of findings and actions in words for people."""
