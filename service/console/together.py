"""What following a digest's link shows: each of its machines with links of its own, and one button that keeps them all.

As with every link, a GET only shows and a POST acts, once for each finding; what it may do is what the reader could do
link by link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from service.api.auth import runtime_of
from service.console.links import carry_out, out_of_date
from service.console.rendering import LOOK, PageRoute, Stop, page
from service.model import Status
from service.notify import wording
from service.notify.links import BadLink, Claim, LinkVerb, Several
from service.runtime import Runtime
from service.store import overview
from service.store.tables import Finding, LinkUse, Resource

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
KEEP = LinkVerb.KEEP_4H


@dataclass(frozen=True, kw_only=True)
class Line:
    """One finding of the digest, as it stands now."""

    finding: Finding
    resource: Resource | None
    zone: tzinfo
    links: Mapping[str, str]
    """Label → path, of what may be done with it now."""
    keepable: bool


@router.api_route("/l/all/{token}", methods=LOOK)
def all_page(request: Request, token: str) -> Response:
    """The findings of a digest, with what may be done to each."""
    return _show(request, _several(request, token))


@router.post("/l/all/{token}")
def keep_all(request: Request, token: str) -> Response:
    """Keeps each of them that can still be kept and is not kept for longer already."""
    several = _several(request, token)
    runtime = runtime_of(request)
    now = runtime.clock.now()
    kept: list[str] = []
    try:
        with runtime.database.transaction() as session:
            for line, claim in _lines(session, runtime, several, now, lock=True):
                if line.keepable:
                    carry_out(session, claim, line.finding, now, line.zone)
                    session.add(_use_of(claim, now))
                    kept.append(line.finding.id)
    except IntegrityError:  # somebody pressed one of these buttons at the same moment, and nothing was done here
        return _show(request, several)
    return _show(request, several, kept=len(kept))


def _show(request: Request, several: Several, *, kept: int | None = None) -> Response:
    runtime = runtime_of(request)
    now = runtime.clock.now()
    with runtime.database.reading() as session:
        lines = [line for line, _ in _lines(session, runtime, several, now)]
    if not lines:
        raise Stop(404, "Not found", "What this link is about no longer exists.")
    shown: dict[str, Any] = {"lines": lines, "kept": kept, "keepable": sum(line.keepable for line in lines)}
    return page(request, "together.html", None, **shown, until=several.claims(KEEP)[0].keep_until(now))


def _several(request: Request, token: str) -> Several:
    runtime = runtime_of(request)
    try:
        return runtime.links.read_several(token, runtime.clock.now())
    except BadLink as error:
        raise Stop(403, "This link does not work any more", error.sentence) from None


def _lines(
    session: Session, runtime: Runtime, several: Several, now: datetime, *, lock: bool = False
) -> Sequence[tuple[Line, Claim]]:
    """Those that still exist, in the digest's order, each with the right to keep it."""
    claims = {claim.finding_id: claim for claim in several.claims(KEEP)}
    rows = select(Finding).where(col(Finding.id).in_(list(claims))).order_by(col(Finding.id))  # locked in one order
    findings = {row.id: row for row in session.exec(rows.with_for_update() if lock else rows)}
    wanted = {finding.resource_id for finding in findings.values()}
    resources = {row.id: row for row in session.exec(select(Resource).where(col(Resource.id).in_(wanted)))}
    zones = overview.timezones(session)
    found = []
    for id, claim in claims.items():
        finding = findings.get(id)
        if finding is None:
            continue
        zone = wording.zone_of(zones.get(finding.project or ""))
        resource = resources.get(finding.resource_id)
        line = Line(
            finding=finding,
            resource=resource if resource and resource.project == finding.project else None,
            zone=zone,
            links=_links(runtime, several, claim, finding, now, zone),
            keepable=session.get(LinkUse, claim.nonce) is None and _keepable(claim, finding, now),
        )
        found.append((line, claim))
    return found


def _keepable(claim: Claim, finding: Finding, now: datetime) -> bool:
    if finding.status in (Status.ACTING, Status.ENFORCED) or out_of_date(claim, finding) is not None:
        return False
    return finding.quiet_until is None or finding.quiet_until < claim.keep_until(now)


def _links(
    runtime: Runtime, several: Several, claim: Claim, finding: Finding, now: datetime, zone: tzinfo
) -> dict[str, str]:
    """What may be done with it as it stands now; each leads to a page of its own that asks first."""
    made = runtime.links.all_for(
        claim.finding_id, claim.episode, claim.recipient, now, zone, claim.expires, several.verbs
    )
    labels = {LinkVerb.DETAILS: "Details"}
    if finding.status == Status.ENFORCED:
        labels = {LinkVerb.UNDO: "Put it back", **labels}
    elif finding.closed_at is None and finding.status != Status.ACTING:
        stop = {LinkVerb.STOP_NOW: wording.capital(f"{wording.infinitive(finding.remedy, 'it')} now")}
        labels = {
            LinkVerb.KEEP_4H: "Keep 4 hours",
            LinkVerb.KEEP_UNTIL_MORNING: "Keep until the morning",
            **(stop if claim.episode == finding.episode and finding.remedy != "notify" else {}),
            **labels,
        }
    return {label: made[verb] for verb, label in labels.items() if verb in made}


def _use_of(claim: Claim, now: datetime) -> LinkUse:
    return LinkUse(
        nonce=claim.nonce,
        used_at=now,
        recipient=claim.recipient,
        verb=claim.verb.value,
        finding_id=claim.finding_id,
    )
