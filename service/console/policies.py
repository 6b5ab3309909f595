"""The page of a policy: how far it goes, how its stops were received, how its rollout fares; and the button that lets
one that fell back begin anew.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from policies.policy import BasePolicy
from service import canary
from service.api.auth import TheRuntime
from service.console.pages import Looking, Pressing
from service.console.rendering import LOOK, PageRoute, Stop, back, page
from service.console.sessions import Visitor
from service.people import NotPossible
from service.pipeline import rollout
from service.store import documents, rollouts

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
NO_REASON = "on the console, without a reason"


@router.api_route("/policies/{name}", methods=LOOK)
def policy_page(request: Request, runtime: TheRuntime, visitor: Looking, name: str) -> Response:
    now, sees = runtime.clock.now(), visitor.principal.projects
    with runtime.database.reading() as session:
        policy = _seen(session, name, visitor)
        regret = canary.regret_of(session, [policy], now, sees=sees).get(name)
        stand = canary.stand_of(session, [policy], now, sees=sees).get(name)
        groups = {} if stand is None else canary.compared(session, policy, stand.stage, runtime.view, now, sees=sees)
    shown = {key: asdict(group) for key, group in groups.items()}
    return page(request, "policy.html", visitor, policy=policy, regret=regret, stand=stand, groups=shown)


@router.post("/policies/{name}/rollout/resume")
def resume(
    request: Request,
    runtime: TheRuntime,
    visitor: Pressing,
    name: str,
    reason: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    now, by = runtime.clock.now(), visitor.principal
    with runtime.database.transaction() as session:
        policy = _seen(session, name, visitor)
        if not by.may("rollout"):
            raise Stop(403, "Not yours to do", f"Your token's role is {by.role.value}, which does not allow this here.")
        begun = None if policy.rollout is None else rollout.begun(policy, now)
        why = reason or NO_REASON
        if begun is None or not rollouts.resume(session, begun, by=by.actor, reason=why, now=now):
            raise NotPossible("NotFallenBack", "its rollout has not fallen back")
    return back(request, f"/policies/{quote(name, safe='')}")


def _seen(session: Session, name: str, visitor: Visitor) -> BasePolicy:
    among = documents.names_seen(session, "policy", visitor.principal.projects)
    row = documents.find(session, "policy", name)
    policy = None if row is None or (among is not None and name not in among) else documents.policy_in(row)
    if policy is None:
        raise Stop(404, "Not found", "There is no such policy, or it is not yours to see.")
    return policy
